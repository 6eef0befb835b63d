//! Killed, or the power cut, at every single rename, fsync and send of a journey.
//!
//! One run for each number N: the service starts over files that wait, and is killed before or after
//! its N-th operation on the disk or at the server, counted over the whole process. Then the disk
//! keeps everything, or forgets what was not synced; the service starts again, and at the end the
//! judgement is the same as for a file that nothing happened to. A run that reaches its end without
//! having been killed is past the last N.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use super::dice::{Dice, seed};
use super::forgetful::trap::{Counted, Moment, Of};
use super::forgetful::{Forgetful, Shared};
use super::judge::{Dropped, STOPPED, doubts, judge_all, rest, rest_or_stop, unfinished};
use super::receiver::{Answers, Receiver};
use super::scene::{GUARD, Plan, Scene, UNSYNCED, beat, files, scale};

/// A journey is some sixty operations long; one that never ends must not run for ever.
const OPERATIONS_MAX: u64 = 400;

/// What the disk does when the service has been killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    Keeps,
    /// All that was not synced is gone.
    Forgets,
    /// Some of it is.
    ForgetsSome,
}

/// Files with their contents, what the server says, and what the route says about doubt.
pub(super) struct Story {
    pub(super) name: &'static str,
    files: &'static [(&'static str, &'static str)],
    answers: Answers,
    may_resend: bool,
    /// Keys of `[defaults]`.
    defaults: &'static str,
    /// A second file of the first one's name, dropped when that has left the drop folder.
    follower: Option<&'static str>,
    /// Whether `sent` lies on another disk.
    is_sent_elsewhere: bool,
}

/// When a service is killed, and what its disk does then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) counted: Counted,
    pub(super) at: (u64, Moment),
    pub(super) disk_does: Disk,
    /// Whether, and when, it is killed once more after the start that follows. There the steps are
    /// counted.
    pub(super) again: Option<(u64, Moment)>,
    /// Whether the disk is deaf to syncs of folders.
    pub(super) is_deaf: bool,
}

impl Way {
    fn simple(at: (u64, Moment), disk_does: Disk) -> Self {
        Self { counted: Counted::Steps, at, disk_does, again: None, is_deaf: false }
    }
}

/// What one run showed.
pub(super) struct Run {
    /// The operation at which it was killed; none if N was past the end.
    pub(super) killed_at: Option<String>,
    /// The same of the second kill.
    pub(super) killed_again_at: Option<String>,
    /// How many operations were counted up to the first kill, or to the end.
    pub(super) operations: u64,
    in_doubt: bool,
    /// Whether a file had been accepted and not yet moved.
    between: bool,
}

const QUICK: &str = "quiet_for = '100ms'\nretry = { first = '20ms', factor = 1.5, max = '100ms', \
                     give_up_after = '1h' }\n";

pub(super) const ACCEPTED: Story = Story {
    name: "accepted",
    files: &[("a.json", "{\"n\": 1}")],
    answers: |_, _| 200,
    may_resend: false,
    defaults: "",
    follower: None,
    is_sent_elsewhere: false,
};

const REFUSED: Story = Story {
    name: "refused by the server",
    files: &[("a.json", "\"unwanted\"")],
    answers: |_, _| 422,
    may_resend: false,
    defaults: "",
    follower: None,
    is_sent_elsewhere: false,
};

pub(super) const SECOND_TRY: Story = Story {
    name: "accepted at the second try, with in_doubt = resend and a receipt",
    files: &[("a.json", "{\"n\": 1}"), ("b.json", "{\"n\": 2}")],
    answers: |_, before| if before == 0 { 503 } else { 201 },
    may_resend: true,
    defaults: "in_doubt = 'resend'\nreceipts = true\n",
    follower: None,
    is_sent_elsewhere: false,
};

const SAME_NAME: Story = Story {
    name: "two files of one name",
    files: &[("a.json", "{\"n\": 1}")],
    answers: |_, _| 200,
    may_resend: false,
    defaults: "",
    follower: Some("{\"n\": 2}"),
    is_sent_elsewhere: false,
};

const ELSEWHERE: Story = Story {
    name: "sent/ on another disk",
    files: &[("a.json", "{\"n\": 1}")],
    answers: |_, _| 200,
    may_resend: false,
    defaults: "",
    follower: None,
    is_sent_elsewhere: true,
};

/// The disk of a story, as it is before the service starts: the folders, the config, the files.
fn scene_of(
    story: &Story,
    disk: &Forgetful,
    other: Option<&Forgetful>,
    receiver: &Receiver,
) -> (Scene, Dropped) {
    let defaults = format!("{QUICK}{}", story.defaults);
    let mut tables =
        format!("[route.orders]\ndeliver = 'http'\nurl = 'http://{}/in'\n", receiver.addr);
    if let Some(other) = other {
        tables = format!("{tables}sent = '{}'\n", other.path().join("sent").display());
    }
    let scene = Scene::of(Plan {
        defaults: Box::leak(defaults.into_boxed_str()),
        tables: Box::leak(tables.into_boxed_str()),
        top: "poll_every = '1s'\n",
        within: Some(disk.path().to_owned()),
        ..Plan::default()
    });
    if let Some(other) = other {
        std::os::unix::fs::symlink(other.path(), scene.path("elsewhere")).unwrap();
    }
    // It is made by the test, whose own operations must not be counted.
    std::fs::write(scene.path("log"), "").unwrap();
    let mut dropped = Dropped::new();
    for (name, body) in story.files {
        scene.drop_file(name, body);
        dropped.insert(body.as_bytes().to_vec(), (*name).to_owned());
    }
    (scene, dropped)
}

/// What a failed run shows besides: the operations up to the kill.
struct Tell(Arc<Shared>);

impl Drop for Tell {
    fn drop(&mut self) {
        if std::thread::panicking() && !EXPECTS_PANICS.get() {
            let story = self.0.trap.story();
            let tree = self.0.tree();
            for (place, what) in story.iter().enumerate() {
                println!("operation {}: {}", place + 1, tree.named(what));
            }
        }
    }
}

/// A story under way.
struct Stage {
    disk: Forgetful,
    other: Option<Forgetful>,
    scene: Scene,
    dropped: Dropped,
    /// What is yet to be dropped, in its turn.
    follower: Option<(&'static str, &'static str)>,
}

impl Stage {
    /// The service has run before: its folders are there, and last. Without them it would stop
    /// before anything could be lost.
    fn rehearse(&mut self, story: &Story) {
        self.scene.launch();
        rest(&self.scene, &self.dropped);
        self.scene.until("the service answers", |scene| scene.status().is_some());
        assert_eq!(self.scene.stop(), Some(0));
        for (number, (name, _)) in story.files.iter().enumerate() {
            let (name, body) = (format!("again-{name}"), format!("{{\"again\": {number}}}"));
            self.scene.drop_file(&name, &body);
            self.dropped.insert(body.into_bytes(), name);
        }
    }

    /// Starts the service, with the trap set, and waits for its kill or for the story's end.
    /// Where it was killed; none if it has come to the end.
    fn play(&mut self, counted: Counted, at: (u64, Moment)) -> Option<String> {
        let trap = Arc::clone(&self.disk.shared.trap);
        trap.arm(counted, at);
        let pid = self.scene.launch();
        trap.victim(pid);
        let since = Instant::now();
        while self.scene.is_up()
            && (unfinished(&self.scene) > 0 || self.follower.is_some())
            && trap.sprung().is_none()
        {
            let folder = self.scene.inbox();
            if let Some((name, body)) =
                self.follower.take_if(|(name, _)| !folder.join(name).exists())
            {
                let below = folder.strip_prefix(self.disk.path()).unwrap();
                self.disk.put(below, name, body.as_bytes());
                self.dropped.insert(body.as_bytes().to_vec(), name.to_owned());
            }
            assert!(since.elapsed() < GUARD, "neither killed nor done\n{}", self.scene.story());
            beat(Duration::from_millis(3));
        }
        let killed_at = trap.sprung();
        if killed_at.is_some() {
            assert_eq!(self.scene.ended(), None, "it was not killed\n{}", self.scene.story());
        }
        trap.disarm();
        killed_at
    }

    /// What the disk does when the service has been killed.
    fn cut(&mut self, disk_does: Disk, dice: &mut Dice) {
        for disk in [Some(&mut self.disk), self.other.as_mut()].into_iter().flatten() {
            match disk_does {
                Disk::Keeps => {}
                Disk::Forgets => disk.cut(|| false),
                Disk::ForgetsSome => disk.cut(|| dice.below(2) == 0),
            }
        }
    }
}

/// One run: killed, started again, perhaps killed again, judged.
pub(super) fn run(story: &Story, way: Way, dice: &mut Dice) -> Run {
    let disk = Forgetful::new();
    let shared = Arc::clone(&disk.shared);
    let _tell = Tell(Arc::clone(&shared));
    let pass = Arc::clone(&shared);
    let receiver = Receiver::start(
        story.answers,
        Arc::new(move |what, act| {
            pass.trap.pass(Of::Step, || what, act);
        }),
    );
    let other = story.is_sent_elsewhere.then(|| disk.beside());
    let (scene, dropped) = scene_of(story, &disk, other.as_ref(), &receiver);
    let follower = story.follower.map(|body| (story.files[0].0, body));
    let mut stage = Stage { disk, other, scene, dropped, follower };
    if way.is_deaf {
        stage.rehearse(story);
    }
    shared.tree().settle();
    stage.disk.deaf_to_folders(way.is_deaf);
    let killed_at = stage.play(way.counted, way.at);
    let operations = shared.trap.seen();
    let (mut between, mut killed_again_at) = (false, None);
    if killed_at.is_some() {
        between = !receiver.arrived().is_empty() && unfinished(&stage.scene) > 0;
        stage.cut(way.disk_does, dice);
        if let Some(again) = way.again {
            killed_again_at = stage.play(Counted::Steps, again);
            if killed_again_at.is_some() {
                stage.cut(way.disk_does, dice);
            }
        }
        if killed_again_at.is_some() || way.again.is_none() {
            stage.scene.launch();
        }
    }
    let Stage { mut scene, dropped, other, disk: _disk, .. } = stage;
    if way.is_deaf {
        rest_or_stop(&scene, &dropped);
    } else {
        rest(&scene, &dropped);
    }
    // Before that a signal to stop would end it like any program.
    scene.until("the service answers", |scene| scene.status().is_some());
    assert_eq!(scene.stop(), Some(0));
    let doubts = doubts(&scene);
    judge_all(&scene, &dropped, story.may_resend, &receiver.arrived(), &doubts);
    if other.is_some() {
        assert!(!scene.inbox().join("sent").exists(), "sent/ is not on the other disk");
    }
    Run { killed_at, killed_again_at, operations, in_doubt: !doubts.is_empty(), between }
}

/// All N of a story, from the first to past the end.
fn sweep(story: &Story, moment: Moment, disk_does: Disk, dice: &mut Dice) -> (u64, u64, u64) {
    let (mut kills, mut doubts, mut between) = (0, 0, 0);
    for n in scale("PATCHDROP_CHAOS_FROM", 1)..=OPERATIONS_MAX {
        let run = catch_unwind(AssertUnwindSafe(|| {
            run(story, Way::simple((n, moment), disk_does), dice)
        }));
        let run = run.unwrap_or_else(|_| {
            panic!("story {:?}, {moment:?} operation {n}, disk {disk_does:?}", story.name)
        });
        doubts += u64::from(run.in_doubt);
        between += u64::from(run.between);
        if run.killed_at.is_none() {
            println!(
                "{}: {moment:?}, disk {disk_does:?}: {kills} kills, {doubts} in doubt, {between} \
                 between acceptance and move",
                story.name
            );
            return (kills, doubts, between);
        }
        kills += 1;
    }
    panic!("story {:?}: no end after {OPERATIONS_MAX} operations", story.name)
}

fn sweep_all(story: &Story, ways: &[(Moment, Disk)]) {
    let mut dice = Dice::new(seed());
    for (moment, disk_does) in ways {
        let (kills, doubts, between) = sweep(story, *moment, *disk_does, &mut dice);
        assert!(kills > 15, "only {kills} operations were seen");
        assert!(doubts > 0, "no attempt was ever in doubt");
        let accepts = (story.answers)("a.json", 1) < 300;
        assert!(!accepts || between > 0, "no kill hit between acceptance and move");
    }
}

#[test]
fn a_file_survives_a_kill_at_every_operation_of_its_journey() {
    sweep_all(&ACCEPTED, &[(Moment::Before, Disk::Keeps), (Moment::After, Disk::Keeps)]);
}

#[test]
fn a_file_survives_a_power_cut_at_every_operation_of_its_journey() {
    sweep_all(&ACCEPTED, &[(Moment::Before, Disk::Forgets), (Moment::After, Disk::ForgetsSome)]);
}

#[test]
fn two_files_of_one_name_survive_a_power_cut_at_every_operation() {
    sweep_all(&SAME_NAME, &[(Moment::Before, Disk::Forgets), (Moment::After, Disk::ForgetsSome)]);
}

#[test]
fn a_file_that_moves_to_another_disk_survives_a_kill_and_a_power_cut_at_every_operation() {
    sweep_all(&ELSEWHERE, &[(Moment::Before, Disk::Keeps), (Moment::After, Disk::Forgets)]);
}

#[test]
fn a_file_that_the_server_refuses_survives_a_power_cut_at_every_operation() {
    sweep_all(&REFUSED, &[(Moment::Before, Disk::Forgets), (Moment::After, Disk::Keeps)]);
}

#[test]
fn files_that_are_sent_again_survive_a_power_cut_at_every_operation() {
    sweep_all(&SECOND_TRY, &[(Moment::After, Disk::Forgets)]);
}

/// As if the system had been started anew: `begun` names another boot since the cut.
fn other_boot_for_the_ledger(scene: &Scene) {
    let ledger = rusqlite::Connection::open(scene.path("state/ledger/ledger.db")).unwrap();
    let change = "UPDATE ledger SET unsynced_boot = 'another' WHERE unsynced_boot IS NOT NULL";
    assert_eq!(ledger.execute(change, []).unwrap(), 1, "the mark of the boot was not durable");
}

/// A service that syncs nothing is cut off when some files have arrived: whatever its record and its
/// folders have lost, nothing goes out again before a person has let it, and no file is lost.
#[test]
fn a_power_cut_under_a_service_that_syncs_nothing_sends_nothing_twice() {
    const FILES: usize = 24;
    let mut dice = Dice::new(seed());
    for arrived in [1, 6, 12, 18, FILES, FILES] {
        let mut disk = Forgetful::new();
        let mut scene = Scene::of(Plan {
            defaults: "concurrency = 2\nquiet_for = '100ms'\n",
            tables: UNSYNCED,
            within: Some(disk.path().to_owned()),
            ..Plan::default()
        });
        for number in 0..FILES {
            scene.drop_file(format!("{number}.json"), format!("{{\"n\": {number}}}"));
        }
        disk.shared.tree().settle();
        scene.launch();
        scene.until("some have arrived", |scene| scene.arrivals().len() >= arrived);
        scene.kill();
        let keeps_some = dice.below(2) == 0;
        disk.cut(|| keeps_some && dice.below(2) == 0);
        other_boot_for_the_ledger(&scene);
        let posts = scene.posts();
        scene.launch();
        scene.until("it waits for a person", |scene| {
            let pause = scene.route("orders").and_then(|route| route.pause);
            pause.is_some_and(|pause| pause.code == "unclean-boot")
        });
        scene.until("nothing is under way", |scene| {
            let left = files(&scene.inbox()).len() as u64;
            files(&scene.inbox().join("sending")).is_empty() && scene.waiting("paused") == left
        });
        assert_eq!(scene.posts(), posts, "sent again by itself\n{}", scene.story());
        let mut places = BTreeMap::<Vec<u8>, u32>::new();
        for folder in ["", "held", "sent", "failed"] {
            let folder = scene.inbox().join(folder);
            for name in files(&folder).iter().filter(|name| !name.ends_with(".why.txt")) {
                *places.entry(std::fs::read(folder.join(name)).unwrap()).or_default() += 1;
            }
        }
        assert_eq!(places.len(), FILES, "{places:?}\n{}", scene.story());
        assert!(places.values().all(|times| *times == 1), "{places:?}\n{}", scene.story());
        assert_eq!(scene.stop(), Some(0));
    }
}

thread_local! {
    /// Whether panics of this thread are what is looked for.
    static EXPECTS_PANICS: Cell<bool> = const { Cell::new(false) };
}

/// What this thread's panics say is not printed where they happen.
fn expect_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let ordinary = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !EXPECTS_PANICS.get() {
                ordinary(panic);
            }
        }));
    });
    EXPECTS_PANICS.set(true);
}

/// Without the syncs of folders the same cuts must be seen to break promises: else the tests above
/// would show nothing.
#[test]
fn with_folder_syncs_switched_off_the_same_cuts_lose_files_or_send_them_twice() {
    let mut dice = Dice::new(seed());
    expect_panics();
    let mut broken = BTreeMap::<u64, String>::new();
    let mut last = 0;
    for n in 1..=OPERATIONS_MAX {
        let way = Way::simple((n, Moment::Before), Disk::Forgets);
        let ended = catch_unwind(AssertUnwindSafe(|| {
            run(&ACCEPTED, Way { is_deaf: true, ..way }, &mut dice).killed_at
        }));
        match ended {
            Ok(None) => break,
            Ok(Some(_)) => {}
            Err(panic) => {
                let told = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                broken.insert(n, told.lines().next().unwrap_or_default().to_owned());
            }
        }
        last = n;
    }
    EXPECTS_PANICS.set(false);
    for (n, told) in &broken {
        println!("  before operation {n}: {told}");
    }
    let stopped = broken.values().filter(|told| told.starts_with(STOPPED)).count();
    println!(
        "with folder syncs switched off {} of {last} cuts broke a promise, and {stopped} more stopped \
         the route",
        broken.len() - stopped
    );
    assert!(broken.len() > stopped, "the cuts do not show that a folder's sync is missing");
}
