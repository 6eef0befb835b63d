//! The power-cut sweep: each story runs once to count its effects, then again and again, cut before
//! every one of them, restarted, run to rest, and held against the promises P1 to P13.
//!
//! A cut is a kill of the process (the disk and this boot's notes survive) or of the power (any
//! subset of what was not synced survives, and the notes of the boot do not).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]
#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod promises;
mod state;
mod stories;
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use patchdrop::config::{self, Config, LoadOptions};
use patchdrop::daemon::{Daemon, Mode, Notes, Sources, Stop};
use patchdrop::model::command::{Command, CommandAnswer};
use patchdrop::model::route::{Confirm, Duplicates, Flow, InDoubt, Late, Route};
use patchdrop::model::time::Wall;
use patchdrop::world::watch::{Hint, Watch, WatchError};
use tokio::sync::{Notify, mpsc, oneshot};

use state::{Disk, Record, Server};
use stories::{Act, ROOT, Story, StoryFlow, place, places_of};
use world::{Fake, Parts, State};

/// What of the unsynced a power cut keeps: nothing, everything, and three times some.
const SEEDS: u64 = 5;

/// So many effects of a story are cut in every way.
const EARLY: usize = 40;

const BEGIN: i64 = 1_795_305_600_000;

struct NoEvents;

impl Watch for NoEvents {
    fn arm(&mut self, _folder: &Arc<Path>) -> Result<(), WatchError> {
        Ok(())
    }
    fn disarm(&mut self, _folder: &Arc<Path>) {}
}

fn folder(name: &str) -> Arc<Path> {
    Arc::from(Path::new(&format!("{ROOT}{name}")))
}

fn flow_of(flow: StoryFlow) -> Flow {
    Flow {
        id: "12".into(),
        variables: BTreeMap::new(),
        core_url: "https://core.example/api".into(),
        core_host: "core.example".into(),
        confirm: flow.confirms.then_some(Confirm {
            every: Duration::from_secs(30),
            within: Duration::from_mins(10),
            late: Late::Hold,
            partial_is_success: false,
        }),
    }
}

const CONFIG: &str = r"
state_dir   = '/s'
watch       = 'poll'
poll_every  = '20s'
sweep_every = '60s'
first_sweep_max_age = 'off'

[route.orders]
folder  = '{ROOT}'
deliver = 'http'
url     = 'https://server.example/v1/acme/orders'
headers = { X-Id = '{id}', X-Name = '{name}' }
max_body = '8MB'
concurrency = 2
";

/// Read once: there are many thousand runs.
static READ: LazyLock<Config> = LazyLock::new(|| {
    let options = LoadOptions::default();
    let text = CONFIG.replace("{ROOT}", ROOT);
    let read = config::read(text.as_bytes(), Path::new("/etc/patchdrop/config.toml"), &options);
    read.expect("the config of the simulation is sound")
});

fn config(story: &Story) -> Config {
    let mut config = READ.clone();
    let mut route = Route::clone(&config.routes[0]);
    route.deliver.flow = story.flow.map(flow_of);
    route.deliver.credential = story.has_credential.then(|| Arc::from("main"));
    route.judge.run_id_fields = story.flow.map(|_| "flow_run_id".to_owned()).into_iter().collect();
    route.in_doubt = match (story.flow, story.resends_in_doubt) {
        (Some(_), _) => InDoubt::Lookup,
        (None, true) => InDoubt::Resend,
        (None, false) => InDoubt::Hold,
    };
    route.order = story.order;
    route.receipts = story.receipts;
    route.duplicates = if story.skips_duplicates { Duplicates::Skip } else { Duplicates::Send };
    config.routes = vec![Arc::new(route)];
    config
}

/// One story's world, over any number of simulated processes.
struct Sim<'a> {
    story: &'a Story,
    state: Arc<Mutex<State>>,
    /// Acts done so far.
    done: Arc<Mutex<usize>>,
    /// In the end a person lets the route go on.
    resumes: AtomicBool,
}

impl<'a> Sim<'a> {
    fn new(story: &'a Story) -> Self {
        let mut disk = Disk::default();
        disk.make_folder(Path::new(ROOT));
        for name in ["sending", "sent", "failed", "held"] {
            disk.make_folder(&folder(&format!("/{name}")));
        }
        let state = State {
            disk,
            record: Record::default(),
            server: Server::default(),
            rule: story.rule,
            flow: story.flow,
            ledger_refuses: story.ledger_refuses,
            clock: story.clock,
            syncs_folders: story.syncs_folders,
            is_unsynced: story.is_unsynced,
            elsewhere: story.elsewhere.iter().map(|name| folder(name).to_path_buf()).collect(),
            token: 0,
            token_requests: 0,
            wall_base: BEGIN,
            began_at: BEGIN,
            effects: 0,
            cut_before: None,
            is_cut: false,
            last_effect: String::new(),
            violations: Vec::new(),
            dice: 7,
        };
        let state = Arc::new(Mutex::new(state));
        Self { story, state, done: Arc::new(Mutex::new(0)), resumes: AtomicBool::new(false) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs a process until it is cut (true) or at rest (false).
    fn run(&self, cut_before: Option<usize>) -> bool {
        self.act_while_down();
        {
            let mut state = self.lock();
            state.effects = 0;
            state.cut_before = cut_before;
            state.is_cut = false;
            let record = &mut state.record;
            if self.story.is_unsynced && record.unsynced_boot.is_none() {
                record.unsynced_boot = Some(record.boot);
                record.synced = None;
                record.tail.clear();
                record.account();
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let cut = Arc::new(Notify::new());
        let (elapsed, was_cut) = runtime.block_on(self.process(Arc::clone(&cut)));
        drop(runtime);
        self.lock().wall_base += elapsed + 1_000;
        was_cut
    }

    async fn process(&self, cut: Arc<Notify>) -> (i64, bool) {
        let started = tokio::time::Instant::now();
        let fake = Arc::new(Fake::new(Arc::clone(&self.state), Arc::clone(&cut)));
        let (_hints, hints) = mpsc::channel::<Vec<Hint>>(1);
        let (commands, commands_in) = mpsc::channel(1);
        let (stop, stop_in) = mpsc::channel(1);
        let sources = Sources { hints, commands: commands_in, stop: stop_in };
        let daemon = Daemon::new(
            Arc::new(Parts(Arc::clone(&fake))),
            Arc::new(config(self.story)),
            Box::new(NoEvents),
            Arc::new(AtomicUsize::new(0)),
            Mode::Service,
            Notes::default(),
        );
        let people = async {
            self.people(&fake, started, commands).await;
            let rest = Duration::from_secs(self.story.rest);
            tokio::time::sleep_until(tokio::time::Instant::now() + rest).await;
            stop.send(Stop::Drain).await.unwrap();
            std::future::pending::<()>().await;
        };
        // A task of its own: what people do wakes it only where they do something to it.
        let mut daemon = tokio::spawn(daemon.run(sources));
        let was_cut = tokio::select! {
            biased;
            () = cut.notified() => true,
            end = &mut daemon => {
                end.unwrap().expect("the fake ledger can be read");
                // What is appended goes along with the close of the ledger.
                let mut state = fake.lock();
                let appended = std::mem::take(&mut state.record.appended);
                state.record.commit(appended);
                false
            }
            () = people => unreachable!("people never leave"),
        };
        (i64::try_from(started.elapsed().as_millis()).unwrap(), was_cut)
    }

    /// Does what is left of the script, each act once.
    async fn people(
        &self,
        fake: &Fake,
        started: tokio::time::Instant,
        commands: mpsc::Sender<(Command, oneshot::Sender<CommandAnswer>)>,
    ) {
        let behind = fake.lock().wall_base - BEGIN;
        loop {
            let index = *self.done.lock().unwrap();
            let Some((at, act)) = self.story.script.get(index).cloned() else {
                if self.resumes.load(Ordering::Relaxed) {
                    let (reply, answer) = oneshot::channel();
                    let resume = Command::Resume { route: "orders".into() };
                    commands.send((resume, reply)).await.unwrap();
                    drop(answer.await);
                }
                return;
            };
            let due = i64::try_from(at).unwrap() * 1_000 - behind;
            if let Ok(due) = u64::try_from(due) {
                tokio::time::sleep_until(started + Duration::from_millis(due)).await;
            }
            self.act(fake, &act, &commands).await;
            *self.done.lock().unwrap() = index + 1;
        }
    }

    /// What is due is done while the process is down, too.
    fn act_while_down(&self) {
        let now = self.lock().wall_base;
        loop {
            let index = *self.done.lock().unwrap();
            let Some((at, act)) = self.story.script.get(index) else { return };
            let is_due = BEGIN + i64::try_from(*at).unwrap() * 1_000 <= now;
            if !is_due || !act.needs_nobody() {
                return;
            }
            self.act_on_disk(act, Wall(now));
            *self.done.lock().unwrap() = index + 1;
        }
    }

    fn act_on_disk(&self, act: &Act, now: Wall) {
        let mut state = self.lock();
        match act {
            Act::Drop(path, content) | Act::Put(path, content) => {
                state.disk.put(&place(path), content.as_bytes(), now);
            }
            Act::PutIfFree(path, content) if state.disk.node_at(&place(path)).is_none() => {
                state.disk.put(&place(path), content.as_bytes(), now);
            }
            Act::Rewrite(path, content) => {
                state.disk.rewrite(&place(path), content.as_bytes(), now);
            }
            Act::PutIfFree(..)
            | Act::MoveBack { .. }
            | Act::TakeAway(_)
            | Act::ChangeClaimed(..)
            | Act::Tell(..)
            | Act::AwaitClaimed(_)
            | Act::Await(..) => {}
        }
    }

    async fn act(
        &self,
        fake: &Fake,
        act: &Act,
        commands: &mpsc::Sender<(Command, oneshot::Sender<CommandAnswer>)>,
    ) {
        let now = patchdrop::world::clock::Clock::now(fake).wall;
        match act {
            act if act.needs_nobody() => self.act_on_disk(act, now),
            Act::Drop(..) | Act::Put(..) | Act::PutIfFree(..) | Act::Rewrite(..) => {
                unreachable!("done above")
            }
            Act::MoveBack { content, name } => {
                let from = places_of(&fake.lock(), content).pop();
                if let Some(from) = from {
                    fake.lock().disk.person_moves(&from, &place(name), now);
                }
            }
            Act::ChangeClaimed(content, other) => {
                let sending = folder("/sending");
                let all = places_of(&fake.lock(), content);
                let mut state = fake.lock();
                for place in all.iter().filter(|place| place.folder == sending) {
                    state.disk.rewrite(place, other.as_bytes(), now);
                    state.disk.touch(place, now);
                }
            }
            Act::TakeAway(content) => {
                let all = places_of(&fake.lock(), content);
                let mut state = fake.lock();
                for place in &all {
                    state.disk.person_removes(place);
                }
            }
            Act::AwaitClaimed(content) => {
                // At most an hour: a service that never claims must be found out, not waited for.
                for _ in 0..3_600 {
                    let places = places_of(&fake.lock(), content);
                    if places.iter().all(|place| *place.folder != *Path::new(ROOT)) {
                        return;
                    }
                    let later = tokio::time::Instant::now() + Duration::from_secs(1);
                    tokio::time::sleep_until(later).await;
                }
            }
            Act::Await(content, state) => self.await_state(fake, content, *state).await,
            Act::Tell(content, command) => {
                let Some(id) = Self::newest(fake, content) else { return };
                let (reply, answer) = oneshot::channel();
                if commands.send((command(id), reply)).await.is_ok() {
                    drop(answer.await);
                }
            }
        }
    }

    fn newest(fake: &Fake, content: &str) -> Option<String> {
        let digest = state::digest(content.as_bytes());
        let state = fake.lock();
        let mut entries = state.record.entries.values().rev();
        entries.find(|entry| entry.digest == Some(digest)).map(|entry| entry.id.to_string())
    }

    /// Waits, at most an hour, until the newest entry of this content is there. (A cut may lead it
    /// elsewhere: then the story goes on without.)
    async fn await_state(&self, fake: &Fake, content: &str, wanted: patchdrop::model::step::State) {
        let digest = state::digest(content.as_bytes());
        for _ in 0..3_600 {
            let is_there = {
                let state = fake.lock();
                state
                    .record
                    .entries
                    .values()
                    .rev()
                    .find(|entry| entry.digest == Some(digest))
                    .is_some_and(|entry| {
                        entry.state == wanted && (entry.settled || appended(&state, entry.id))
                    })
            };
            if is_there {
                return;
            }
            tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_secs(1)).await;
        }
    }

    /// Contents that a person has dropped so far and not taken away or replaced.
    fn present(&self) -> Vec<&'static str> {
        let done = *self.done.lock().unwrap();
        let mut at: BTreeMap<&str, &'static str> = BTreeMap::new();
        let mut kept = Vec::new();
        for (_, act) in &self.story.script[..done] {
            if let Act::Drop(path, content) | Act::Put(path, content) = act {
                at.insert(path, content);
            }
        }
        kept.extend(at.into_values());
        kept
    }
}

fn appended(state: &State, id: patchdrop::model::file::FileId) -> bool {
    state.record.appended.iter().any(|step| step.id() == id)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Kill,
    Power { seed: u64 },
}

/// What a cut leaves.
fn cut(state: &mut State, kind: Cut) {
    state.record.own.clear();
    state.server.in_flight.clear();
    match kind {
        Cut::Kill => {
            state.record.appended.clear();
            // The fake's rename is one operation for the process too.
        }
        Cut::Power { seed } => {
            let mut dice = seed;
            state.disk.cut(|| match seed {
                0 => false,
                1 => true,
                _ => {
                    dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(0x9E37);
                    dice >> 63 == 1
                }
            });
            state.record.appended.clear();
            if state.is_unsynced {
                state.record.lose_the_tail(|commits| match seed {
                    0 => 0,
                    1 => commits,
                    _ => usize::try_from(dice >> 33).unwrap() % (commits + 1),
                });
                state.record.own.clear();
                // The numbers of attempts that are forgotten are used again.
                state.server.used.clear();
            }
            state.record.boot += 1;
            state.record.begun.clear();
            state.record.is_other_boot = true;
        }
    }
}

/// Runs a story with one cut; the violations.
fn run_with_cut(story: &Story, at: usize, kind: Cut) -> Vec<String> {
    let sim = Sim::new(story);
    if sim.run(Some(at)) {
        let mut state = sim.lock();
        cut(&mut state, kind);
        promises::check_one_place(&mut state, story, &sim.present());
        if kind == Cut::Kill {
            promises::check_explained(&mut state);
        }
        // A route without a record has never been worked for.
        let is_unsure = matches!(kind, Cut::Power { .. })
            && state.record.unsynced_boot.is_some()
            && !state.record.routes.is_empty();
        drop(state);
        sim.run(None);
        if is_unsure {
            return compare_and_resume(&sim);
        }
    }
    let mut state = sim.lock();
    promises::check_rest(&mut state, story);
    std::mem::take(&mut state.violations)
}

/// After a power cut that nothing was synced against: by itself nothing was sent again. A person
/// takes away what the server has and the record does not know, and lets the route go on.
fn compare_and_resume(sim: &Sim<'_>) -> Vec<String> {
    {
        let mut state = sim.lock();
        promises::check_unsure_rest(&mut state, sim.story);
        promises::take_away_what_nobody_recorded(&mut state);
    }
    sim.resumes.store(true, Ordering::Relaxed);
    sim.run(None);
    let mut state = sim.lock();
    promises::check_resumed(&mut state, sim.story);
    std::mem::take(&mut state.violations)
}

fn run_whole(story: &Story) -> (usize, Vec<String>) {
    let sim = Sim::new(story);
    sim.run(None);
    let mut state = sim.lock();
    let effects = state.effects;
    promises::check_rest(&mut state, story);
    promises::check_whole(&mut state, story);
    drop(state);
    // What came to rest stays at rest over a stop and a start.
    sim.run(None);
    let mut state = sim.lock();
    promises::check_rest(&mut state, story);
    (effects, std::mem::take(&mut state.violations))
}

/// Every effect is cut as a kill and as power cuts. Late in a long story the effects are those of
/// before once more, for another file or try: there one power cut each, in turn.
fn kinds_of_cut(at: usize) -> Vec<Cut> {
    let seeds = if at < EARLY { 0..SEEDS } else { at as u64 % SEEDS..at as u64 % SEEDS + 1 };
    std::iter::once(Cut::Kill).chain(seeds.map(|seed| Cut::Power { seed })).collect()
}

/// Every effect is cut, unless `PATCHDROP_SIM_EVERY=N` asks for each Nth alone: for systems on which
/// a minute here is ten.
#[expect(clippy::disallowed_methods, reason = "who starts a test says it in the environment")]
fn cut_every() -> usize {
    let every = std::env::var("PATCHDROP_SIM_EVERY");
    every.map_or(1, |every| every.parse().expect("PATCHDROP_SIM_EVERY is a number from 1"))
}

/// One story, cut everywhere, until something breaks here or in another story.
fn sweep(story: &Story, broken: &AtomicBool) -> Vec<String> {
    let (effects, violations) = run_whole(story);
    if !violations.is_empty() {
        broken.store(true, Ordering::Relaxed);
        return violations.iter().map(|text| format!("{text} [{}, uncut]", story.name)).collect();
    }
    for at in (0..effects).step_by(cut_every()) {
        for kind in &kinds_of_cut(at) {
            if broken.load(Ordering::Relaxed) {
                return Vec::new();
            }
            let violations = run_with_cut(story, at, *kind);
            if !violations.is_empty() {
                broken.store(true, Ordering::Relaxed);
                let place = format!("{}, {kind:?} before effect {at}", story.name);
                return violations.iter().map(|text| format!("{text} [{place}]")).collect();
            }
        }
    }
    Vec::new()
}

#[test]
fn every_story_keeps_every_promise_wherever_it_is_cut() {
    let only = std::env::args().skip_while(|arg| arg != "--story").nth(1);
    let mut stories: Vec<Story> = [
        stories::all(),
        stories::flows(),
        stories::in_order(),
        stories::refusals(),
        stories::unsynced(),
    ]
    .into_iter()
    .flatten()
    .collect();
    stories.retain(|story| only.as_ref().is_none_or(|only| story.name.contains(only.as_str())));
    let broken = AtomicBool::new(false);
    let next = AtomicUsize::new(0);
    let sweep_all = || {
        let mut violations = Vec::new();
        while let Some(story) = stories.get(next.fetch_add(1, Ordering::Relaxed)) {
            violations.extend(sweep(story, &broken));
        }
        violations
    };
    // A thread for each story would leave nothing to whatever else the machine does.
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(sweep_all)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}
