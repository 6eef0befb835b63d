//! Joins decisions and effects: one loop that owns what is to be done next, one task a stage of a
//! file's journey, nothing shared between them but the names that are being taken.
//!
//! A start is an ordinary start (promise P9): read what is unsettled in the ledger, sweep, go on.
//! A stop finishes what is in flight for `drain_for` and drops the rest; a drop is a power cut, and
//! power cuts are what the tests do.

mod asking;
mod carry;
mod commands;
mod cuts;
mod event;
mod files;
mod folders;
mod footing;
mod grounds;
mod ids;
mod intake;
mod order;
mod reload;
mod resume;
mod sealing;
mod status;
mod targets;
mod twins;
mod unrecorded;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use asking::Known;
use carry::{BUDGET_BYTES, Carried, Context, Equipped};
use event::{Event, Ticket, Unequipped, Work};
pub use folders::chain;
use footing::Rooms;
use ids::Ids;
use intake::Intake;
use order::Orders;
use reload::Reload;
use sealing::Sealing;

pub use status::{no_route_alert, parent_alerts, pause_on_record};
use targets::Targets;
use twins::Turns;
use unrecorded::Unrecorded;

use crate::config::Config;
use crate::journey::grounds::Account;
use crate::journey::schedule::{Limits, Schedule};
use crate::model::blot::Blotter;
use crate::model::command::{Command, CommandAnswer};
use crate::model::file::FileId;
use crate::model::outcome::Cause;
use crate::model::route::RouteName;
use crate::model::status::Waiting;
use crate::model::step::{Entry, RouteRecord, Step};
use crate::model::time::{Now, Tick, Wall};
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::folder::Disk;
use crate::world::ledger::{Ledger, LedgerError};
use crate::world::watch::{Hint, Watch};

/// Files under way over all routes: each has at most one open file or connection.
const ACTIVE_MAX: usize = 512;

/// Files of one route waiting in `sending/` for another attempt.
const PARKED_MAX: usize = 10_000;

/// Events handled before the next look at what can be started.
const EVENTS_A_TURN: usize = 256;

/// The wall clock may drift this far from the clock that only goes on before it has jumped: a
/// clock that is being disciplined is slewed by less in a turn of the loop.
const JUMP_MIN: Duration = Duration::from_secs(2);

/// Commands are heard this long after the start at the latest, whatever folder does not answer.
const COMMANDS_WITHIN: Duration = Duration::from_secs(10);

/// The loop wakes at least this often, so that a jump of a clock cannot put it to sleep.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// Until when the loop runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Until it is told to stop.
    Service,
    /// Until everything that is there has gone its way, or nothing has moved for this long.
    Once {
        /// How long.
        patience: Duration,
    },
    /// Until the command that it was started for is done. Nothing is sent, no folder is swept.
    OneCommand,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Files accepted.
    pub sent: u64,
    /// Files that ended in `failed/`.
    pub failed: u64,
    /// Files that ended in `held/`.
    pub held: u64,
    /// Files that could not be found again.
    pub missing: u64,
    /// A destination stayed away, a folder could not be listed, or a route is paused: files wait.
    pub something_unavailable: bool,
    /// It ended so that another loop can go on.
    pub is_for_reload: bool,
}

/// What a stop asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Finish what is in flight.
    Drain,
    /// The same, so that another loop can go on with another config: without dropping anything.
    Reload,
    /// End at once.
    Now,
}

/// What was found before the loop began.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// What a person should know, in sentences.
    pub alerts: Vec<String>,
    /// Roots that could not be reached, each with a sentence for as long as that lasts.
    pub unreached: Vec<(Arc<Path>, String)>,
    /// The ledger is an old copy: every route that it does not know starts paused, until a person
    /// resumes it. (Those on record are paused there.)
    pub starts_paused: bool,
    /// It may work as root over folders that others can write.
    pub allows_root: bool,
    /// Since when the service runs, where an earlier loop of it has ended for a reload.
    pub running_since: Option<Wall>,
}

/// Where events come from.
pub struct Sources {
    /// Hints about folders.
    pub hints: mpsc::Receiver<Vec<Hint>>,
    /// Commands, each with where its answer goes.
    pub commands: mpsc::Receiver<(Command, oneshot::Sender<CommandAnswer>)>,
    /// The wish to stop.
    pub stop: mpsc::Receiver<Stop>,
}

/// The service.
pub struct Daemon<W: World> {
    ctx: Arc<Context<W>>,
    config: Arc<Config>,
    mode: Mode,
    watch: Box<dyn Watch>,
    load: Arc<AtomicUsize>,

    schedule: Schedule,
    intakes: BTreeMap<Arc<Path>, Intake>,
    equipped: BTreeMap<RouteName, Arc<Equipped>>,
    unequipped: BTreeMap<RouteName, Unequipped>,
    records: BTreeMap<RouteName, RouteRecord>,
    /// Since when all routes are paused at once, those to come among them.
    all_paused_at: Option<Wall>,
    /// Those that were let go alone and have left since are paused with all others again.
    has_seen_who_left: bool,
    /// Files that disk or ledger did not let go on, and why; each is on its journey and so bounded.
    stumbles: BTreeMap<FileId, String>,
    /// When a file of a route was last said to have stumbled; one for each route.
    stumbled_at: BTreeMap<RouteName, Tick>,
    rooms: Rooms,
    /// What lies in `sending/` of each route and is not ours.
    foreign: BTreeMap<RouteName, Waiting>,
    /// Files that were changed in `sending/` while they were sent, since this start.
    changed: Waiting,
    /// How often files' runs were asked for; each is on its journey and so bounded.
    asked: BTreeMap<FileId, Known>,
    /// Routes whose runs cannot be asked for, and why.
    asking_faults: BTreeMap<RouteName, Cause>,
    /// When each route's newest file was accepted, as of this start.
    delivered_at: BTreeMap<RouteName, Wall>,
    /// Claimed files that wait for a slot.
    ready: BTreeMap<FileId, Box<Carried>>,
    /// Files that were moved to their end and are not settled, by route.
    sealing: BTreeMap<RouteName, Sealing>,
    /// What keeps routes with an order waiting.
    orders: Orders,
    /// Which folder is fed from first, counted.
    fed: usize,
    /// Answers that the ledger did not take, and those that it is being offered again.
    unrecorded: BTreeMap<FileId, Unrecorded>,
    /// When they are offered again.
    offer_at: Tick,
    /// Unsettled entries whose route is not there (yet).
    unsettled: BTreeMap<RouteName, Vec<Entry>>,

    /// Routes with unsettled files that are not configured (said once).
    orphans: BTreeSet<RouteName>,
    /// Folders that a person would expect to be routes and are none, each with why (said once).
    not_routes: BTreeMap<PathBuf, String>,

    tasks: JoinSet<(Ticket, Work)>,
    /// Tasks that a stop waits for.
    busy: usize,
    chunks: mpsc::Sender<Event>,
    chunks_in: mpsc::Receiver<Event>,
    command_under_way: bool,

    notes: Notes,
    started_at: Wall,
    began_at: Tick,
    /// Both clocks as they were at the last turn.
    clocks: Now,
    progress_at: Tick,
    stop_by: Option<Tick>,
    reload: Option<Reload>,
    ledger_fault: Option<String>,
    end: End,
}

impl<W: World> Daemon<W> {
    /// A service that has not begun. `load` is kept at the number of files under way, for those who
    /// gather work that one fsync can serve.
    pub fn new(
        world: Arc<W>,
        config: Arc<Config>,
        watch: Box<dyn Watch>,
        load: Arc<AtomicUsize>,
        mode: Mode,
        notes: Notes,
    ) -> Self {
        let now = world.clock().now();
        let (chunks, chunks_in) = mpsc::channel(16);
        let mut schedule = Schedule::new(Limits { active_max: ACTIVE_MAX, parked_max: PARKED_MAX });
        schedule.set_pace_rules(config.destinations.clone());
        if mode == Mode::OneCommand {
            schedule.suspend(Duration::MAX, now.tick);
        }
        let account = Account { number: world.disk().account(), allows_root: notes.allows_root };
        Self {
            ctx: Arc::new(Context {
                world,
                account,
                root: config.root.clone(),
                ids: Ids::default(),
                targets: Targets::default(),
                turns: Turns::default(),
                budget: Arc::new(Semaphore::new(BUDGET_BYTES)),
                blotter: Blotter::new(&config.all_secrets()),
                started_at: now.wall,
            }),
            config,
            mode,
            watch,
            load,
            schedule,
            intakes: BTreeMap::new(),
            equipped: BTreeMap::new(),
            unequipped: BTreeMap::new(),
            records: BTreeMap::new(),
            all_paused_at: None,
            has_seen_who_left: false,
            stumbles: BTreeMap::new(),
            stumbled_at: BTreeMap::new(),
            rooms: Rooms::default(),
            foreign: BTreeMap::new(),
            changed: Waiting::default(),
            asked: BTreeMap::new(),
            asking_faults: BTreeMap::new(),
            delivered_at: BTreeMap::new(),
            ready: BTreeMap::new(),
            sealing: BTreeMap::new(),
            orders: Orders::default(),
            fed: 0,
            unrecorded: BTreeMap::new(),
            offer_at: now.tick,
            unsettled: BTreeMap::new(),
            orphans: BTreeSet::new(),
            not_routes: BTreeMap::new(),
            tasks: JoinSet::new(),
            busy: 0,
            chunks,
            chunks_in,
            command_under_way: false,
            notes,
            started_at: now.wall,
            began_at: now.tick,
            clocks: now,
            progress_at: now.tick,
            stop_by: None,
            reload: None,
            ledger_fault: None,
            end: End::default(),
        }
    }

    /// Runs until its mode says that it is over.
    ///
    /// # Errors
    /// The ledger could not be read at the start. Later trouble with it pauses sending.
    pub async fn run(mut self, mut sources: Sources) -> Result<End, LedgerError> {
        self.heed_a_cut().await?;
        self.read_ledger().await?;
        self.begin_folders();
        loop {
            self.pump();
            if self.is_over() {
                break;
            }
            let event = self.next_event(&mut sources).await;
            self.take(event);
            for _ in 0..EVENTS_A_TURN {
                let Some(done) = self.tasks.try_join_next() else { break };
                self.take(finished(done));
            }
            for _ in 0..EVENTS_A_TURN {
                let Ok(chunk) = self.chunks_in.try_recv() else { break };
                self.take(chunk);
            }
        }
        self.end.is_for_reload = self.stop_by.is_none() && self.reload.is_some();
        self.shelve_the_rest().await;
        self.rest().await;
        Ok(self.end)
    }

    async fn read_ledger(&mut self) -> Result<(), LedgerError> {
        let ledger = self.ctx.world.ledger();
        self.all_paused_at = ledger.all_paused_at().await?;
        if let Some(since) = self.all_paused_at.filter(|_| self.mode != Mode::OneCommand) {
            tracing::warn!(%since, "a person has paused all routes: patchdrop resume --all ends that");
        }
        for record in ledger.routes().await? {
            self.records.insert(record.name.clone(), record);
        }
        for entry in ledger.unsettled().await? {
            self.unsettled.entry(entry.route.clone()).or_default().push(entry);
        }
        Ok(())
    }

    async fn next_event(&mut self, sources: &mut Sources) -> Event {
        let now = self.now();
        let sleep = self.next_wake(now.tick).since(now.tick).min(LONGEST_SLEEP);
        let world = Arc::clone(&self.ctx.world);
        let may_command = !self.command_under_way && self.knows_its_routes();
        tokio::select! {
            biased;
            Some(stop) = sources.stop.recv() => match stop {
                Stop::Drain => Event::Stop,
                Stop::Reload => Event::Reload,
                Stop::Now => Event::StopNow,
            },
            Some(done) = self.tasks.join_next() => finished(done),
            Some(chunk) = self.chunks_in.recv() => chunk,
            Some((command, reply)) = sources.commands.recv(), if may_command => {
                Event::Command(command, reply)
            }
            Some(hints) = sources.hints.recv() => Event::Hints(hints),
            () = world.clock().sleep(sleep) => Event::Woken,
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Chunk(folder, sightings, go_on) => {
                let now = self.now().tick;
                if let Some(intake) = self.intakes.get_mut(&folder) {
                    intake.chunk(sightings, go_on, now);
                }
            }
            Event::Done(ticket, work) => self.done(ticket, work),
            Event::Hints(hints) => self.heed(hints),
            Event::Command(command, reply) => self.obey(command, reply),
            Event::Woken => {}
            Event::Stop if self.stop_by.is_none() => {
                self.stop_by = Some(self.now().tick.plus(self.config.drain_for));
                tracing::info!(in_flight = self.busy, "stopping, finishing what is in flight");
            }
            Event::Reload => self.begin_reload(),
            // A second wish to stop means at once.
            Event::Stop | Event::StopNow => self.stop_by = Some(Tick(0)),
        }
    }

    fn done(&mut self, ticket: Ticket, work: Work) {
        if ticket.is_waited_for() {
            self.busy = self.busy.saturating_sub(1);
        }
        match (ticket, work) {
            (Ticket::Look(look), work) => self.looked(*look, work),
            (Ticket::File(id), work) => self.carried(id, work),
            (Ticket::Sweep(folder), Work::Swept(result, foreign)) => {
                self.foreign.extend(foreign);
                self.swept(&folder, result);
            }
            (Ticket::Equip(route), Work::Equipped(result)) => self.route_equipped(&route, *result),
            (Ticket::Seal(route), Work::Sealed(sealed)) => self.sealed(&route, sealed),
            (Ticket::Held(route, changes), Work::FirstHeld(found)) => {
                self.held_found(&route, changes, Some(*found));
            }
            (Ticket::Held(route, changes), _) => self.held_found(&route, changes, None),
            (Ticket::Room(whose), Work::Rooms(rooms)) => self.room_found(whose, rooms),
            (Ticket::Command, work) => {
                self.command_under_way = false;
                if let Work::TakenUp(all) = work {
                    for taken_up in all {
                        self.taken_up(taken_up);
                    }
                }
            }
            (ticket, _) => {
                if let Ticket::Seal(route) = &ticket {
                    self.seal_ended(route);
                }
                tracing::error!(?ticket, "a task ended in a way it should not; please report this");
            }
        }
    }

    /// Starts everything that can be started now.
    fn pump(&mut self) {
        let now = self.now();
        self.compare_clocks(now);
        self.seal_due(now.tick);
        self.offer_due(now.tick);
        self.look_after_reload(now.tick);
        if self.may_begin(now.tick) {
            self.equip_due(now.tick);
            self.sweep_due(now.tick);
            self.look_after_room(now.tick);
            self.feed(now);
            self.pause_those_that_left();
            for start in self.schedule.starts(now.tick) {
                self.start(start);
            }
        }
        self.load.store(self.schedule.active(), Ordering::Relaxed);
    }

    /// Notices a wall clock that was set: files that were being written look quiet then.
    fn compare_clocks(&mut self, now: Now) {
        let passed = now.tick.since(self.clocks.tick);
        let expected = self.clocks.wall.plus(passed);
        self.clocks = now;
        let drift = now.wall.since(expected).max(expected.since(now.wall));
        if drift > JUMP_MIN {
            let (from, to) = (expected, now.wall);
            tracing::warn!(%from, %to, "the clock was set; files are judged by when they were first seen for a while");
            self.intakes.values_mut().for_each(|intake| intake.clock_jumped(now.tick));
        }
    }

    fn is_over(&self) -> bool {
        let now = self.now().tick;
        let is_done = self.busy == 0 && self.is_all_sealed() && self.unrecorded.is_empty();
        if let Some(by) = self.stop_by {
            return is_done || by <= now;
        }
        if self.reload.is_some() && is_done {
            return true;
        }
        match self.mode {
            Mode::Service | Mode::OneCommand => false,
            Mode::Once { patience } => self.is_drained() || self.progress_at.plus(patience) <= now,
        }
    }

    /// Whether every route that is configured or found has been made ready, or cannot be: commands
    /// wait for that.
    fn knows_its_routes(&self) -> bool {
        self.began_at.plus(COMMANDS_WITHIN) <= self.now().tick || self.has_asked_all_folders()
    }

    /// Whether every folder that becomes a route has been found.
    fn has_swept_all_parents(&self) -> bool {
        let mut parents = self.intakes.values().filter(|intake| intake.is_parent);
        parents.all(|intake| intake.swept_at.is_some() && intake.fault.is_none())
    }

    fn has_asked_all_folders(&self) -> bool {
        self.unequipped.values().all(|route| route.said.is_some())
            && self
                .intakes
                .values()
                .filter(|intake| intake.is_parent)
                .all(|intake| intake.swept_at.is_some() || intake.fault.is_some())
    }

    fn is_drained(&self) -> bool {
        self.busy == 0
            && self.is_all_sealed()
            && self.schedule.is_idle()
            && self.unequipped.values().all(|route| route.said.is_some())
            && self.intakes.values().all(|intake| !intake.has_more_to_come())
            && !self.has_files_in_line()
            && !(self.schedule.is_any_paused()
                && self.intakes.values().any(Intake::has_paused_files))
    }

    fn next_wake(&self, now: Tick) -> Tick {
        let mut wake = now.plus(LONGEST_SLEEP);
        let mut earlier = |tick: Option<Tick>| wake = wake.min(tick.unwrap_or(wake));
        earlier(self.stop_by);
        earlier(self.next_seal_at());
        earlier(self.next_offer_at());
        if let Mode::Once { patience } = self.mode {
            earlier(Some(self.progress_at.plus(patience)));
        }
        if !self.knows_its_routes() {
            earlier(Some(self.began_at.plus(COMMANDS_WITHIN)));
        }
        earlier(self.reload.map(|reload| reload.next_at(now)));
        if self.may_begin(now) {
            earlier(self.schedule.next_wake(now));
            earlier(self.next_equip_at());
            earlier(self.rooms.next_at());
            for intake in self.intakes.values() {
                earlier(intake.next_wake(now));
            }
        }
        wake.max(Tick(now.0 + 1))
    }

    /// What was claimed and has not been sent is put on record as such, so that a restart need not
    /// doubt it.
    async fn shelve_the_rest(&mut self) {
        self.end.something_unavailable |= !self.schedule.is_idle()
            || self.intakes.values().any(|intake| intake.fault.is_some())
            || self.intakes.values().any(Intake::has_paused_files)
            || self.unequipped.values().any(|route| route.said.is_some());
        if !self.unrecorded.is_empty() {
            let files = self.unrecorded.len();
            tracing::error!(
                files,
                "stopped before the ledger took the server's answers for some files: the next start finds them in doubt"
            );
        }
        let at = self.now().wall;
        let ready = std::mem::take(&mut self.ready);
        let unsent = ready.values().filter(|carried| carried.entry.attempt_open_since.is_some());
        let steps: Vec<Step> = unsent
            .map(|carried| {
                carry::not_sent(&carried.entry, at, self.schedule.waited_for(carried.entry.id))
            })
            .collect();
        let files = steps.len();
        if files > 0
            && let Err(error) = self.ctx.world.ledger().commit(steps).await
        {
            tracing::warn!(files, error = %chain(&error), "could not record files as not sent; the next start finds out that they were not");
        }
    }

    fn spawn(&mut self, ticket: Ticket, task: impl Future<Output = Work> + Send + 'static) {
        if ticket.is_waited_for() {
            self.busy += 1;
        }
        // A stage is some kilobytes: in a box it is moved once and not with each wrapping.
        let task = Box::pin(task);
        self.tasks.spawn(async move {
            let work = AssertUnwindSafe(task).catch_unwind().await.unwrap_or(Work::Panicked);
            (ticket, work)
        });
    }

    fn now(&self) -> Now {
        self.ctx.world.clock().now()
    }
}

/// A task's end as an event. The tasks catch their own panics; one that was cancelled belongs to a
/// loop that has ended.
fn finished(done: Result<(Ticket, Work), tokio::task::JoinError>) -> Event {
    match done {
        Ok((ticket, work)) => Event::Done(ticket, work),
        Err(_) => Event::Woken,
    }
}
