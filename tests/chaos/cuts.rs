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
use super::forgetful::trap::Moment;
use super::forgetful::{Forgetful, Shared};
use super::judge::{Dropped, doubts, judge_all, rest, unfinished};
use super::receiver::{Answers, Receiver};
use super::scene::{GUARD, Plan, Scene, UNSYNCED, beat, files, scale};

/// A journey is some sixty operations long; one that never ends must not run for ever.
const OPERATIONS_MAX: u64 = 400;

/// What the disk does when the service has been killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    Keeps,
    /// All that was not synced is gone.
    Forgets,
    /// Some of it is.
    ForgetsSome,
}

/// Files with their contents, what the server says, and what the route says about doubt.
struct Story {
    name: &'static str,
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

/// What one run showed.
struct Run {
    /// The operation at which it was killed; none if N was past the end.
    killed_at: Option<String>,
    in_doubt: bool,
    /// Whether a file had been accepted and not yet moved.
    between: bool,
}

const QUICK: &str = "quiet_for = '100ms'\nretry = { first = '20ms', factor = 1.5, max = '100ms', \
                     give_up_after = '1h' }\n";

const ACCEPTED: Story = Story {
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

const SECOND_TRY: Story = Story {
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
            let tree = self.0.tree();
            for (place, what) in self.0.trap.story().iter().enumerate() {
                println!("operation {}: {}", place + 1, tree.named(what));
            }
        }
    }
}

/// One run: killed at N, started again, judged.
fn run(story: &Story, at: (u64, Moment), disk_does: Disk, dice: &mut Dice, is_deaf: bool) -> Run {
    let mut disk = Forgetful::new();
    let shared = Arc::clone(&disk.shared);
    let _tell = Tell(Arc::clone(&shared));
    let pass = Arc::clone(&shared);
    let receiver = Receiver::start(
        story.answers,
        Arc::new(move |what, act| {
            pass.trap.pass(|| what, act);
        }),
    );
    let mut other = story.is_sent_elsewhere.then(|| disk.beside());
    let (mut scene, mut dropped) = scene_of(story, &disk, other.as_ref(), &receiver);
    shared.tree().settle();
    disk.deaf_to_folders(is_deaf);
    shared.trap.arm(at.0, at.1);
    let pid = scene.launch();
    shared.trap.victim(pid);
    let since = Instant::now();
    let mut follower = story.follower;
    while scene.is_up()
        && (unfinished(&scene) > 0 || follower.is_some())
        && shared.trap.sprung().is_none()
    {
        let (first, _) = story.files[0];
        if let Some(body) = follower.take_if(|_| !scene.inbox().join(first).exists()) {
            let folder = scene.inbox();
            disk.put(folder.strip_prefix(disk.path()).unwrap(), first, body.as_bytes());
            dropped.insert(body.as_bytes().to_vec(), first.to_owned());
        }
        assert!(since.elapsed() < GUARD, "neither killed nor done\n{}", scene.story());
        beat(Duration::from_millis(3));
    }
    let killed_at = shared.trap.sprung();
    let (mut in_doubt, mut between) = (false, false);
    if killed_at.is_some() {
        assert_eq!(scene.ended(), None, "it was not killed\n{}", scene.story());
        shared.trap.disarm();
        between = !receiver.arrived().is_empty() && unfinished(&scene) > 0;
        for disk in [Some(&mut disk), other.as_mut()].into_iter().flatten() {
            match disk_does {
                Disk::Keeps => {}
                Disk::Forgets => disk.cut(|| false),
                Disk::ForgetsSome => disk.cut(|| dice.below(2) == 0),
            }
        }
        scene.launch();
    } else {
        shared.trap.disarm();
    }
    rest(&scene, &dropped);
    // Before that a signal to stop would end it like any program.
    scene.until("the service answers", |scene| scene.status().is_some());
    assert_eq!(scene.stop(), Some(0));
    let doubts = doubts(&scene);
    in_doubt |= !doubts.is_empty();
    judge_all(&scene, &dropped, story.may_resend, &receiver.arrived(), &doubts);
    if other.is_some() {
        assert!(!scene.inbox().join("sent").exists(), "sent/ is not on the other disk");
    }
    Run { killed_at, in_doubt, between }
}

/// All N of a story, from the first to past the end.
fn sweep(story: &Story, moment: Moment, disk_does: Disk, dice: &mut Dice) -> (u64, u64, u64) {
    let (mut kills, mut doubts, mut between) = (0, 0, 0);
    for n in scale("PATCHDROP_CHAOS_FROM", 1)..=OPERATIONS_MAX {
        let run =
            catch_unwind(AssertUnwindSafe(|| run(story, (n, moment), disk_does, dice, false)));
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
        let ended = catch_unwind(AssertUnwindSafe(|| {
            run(&ACCEPTED, (n, Moment::Before), Disk::Forgets, &mut dice, true).killed_at
        }));
        match ended {
            Ok(None) => break,
            Ok(Some(_)) => last = n,
            Err(panic) => {
                let told = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                broken.insert(n, told.lines().next().unwrap_or_default().to_owned());
            }
        }
    }
    EXPECTS_PANICS.set(false);
    println!("with folder syncs switched off {} of {last} cuts broke a promise", broken.len());
    for (n, told) in &broken {
        println!("  before operation {n}: {told}");
    }
    assert!(!broken.is_empty(), "the cuts do not show that a folder's sync is missing");
}
