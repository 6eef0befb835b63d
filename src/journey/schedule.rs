//! What to do next: many files, time, pauses and fairness, as one state machine without a clock.
//!
//! It knows every file that is on its journey (promise P10 bounds how many), but neither bodies nor
//! entries. The loop tells it what happened and asks what to start.

mod asking;
mod doubts;
mod footing;
mod pacing;
mod pauses;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

use doubts::Doubts;
use footing::{Footing, Shortage};
use pauses::{Probe, Trouble, blocked_until};

pub use footing::Reach;

use super::detect::Reason;
use super::order::NaturalName;
use super::pace::{Lesson, Pacer, Turn};
use super::runs::Errand;
use super::send::Judged;
use super::settle::Next;
use crate::model::file::FileId;
use crate::model::outcome::{Blame, Cause, Code, Outcome};
use crate::model::route::{
    Backoff, Destination, OrderBy, PaceRules, Priority, Rate, Route, RouteName,
};
use crate::model::time::{Now, Tick, Wall};

/// How much may be under way at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Files being looked at, claimed, sent or settled, over all routes.
    pub active_max: usize,
    /// Files of one route that wait in `sending/` for another attempt; beyond it nothing new is
    /// claimed there.
    pub parked_max: usize,
}

/// Answers of different files in a row that speak against the destination before it pauses.
const STRIKES_MAX: usize = 3;

/// How many claims a route may have under way before its first delivery, beyond its slots: if the
/// URL is wrong, so many files are in `sending/` and not a thousand.
const WINDOW_START: usize = 4;

/// How many files a route that delivers may have under way for each of its slots. The more are
/// under way, the more of them share one fsync.
const WINDOW_PER_SLOT: usize = 16;

/// How long a due probe waits for a file that has not been refused yet.
const NEW_PROBER_WITHIN: Duration = Duration::from_secs(1);

/// The smallest step of time.
const TICK: Duration = Duration::from_millis(1);

/// Places that a route always has, however busy the others are.
const PLACES_ALWAYS: usize = 8;

/// What to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Send this claimed file: a slot is taken for it.
    Attempt(FileId),
    /// Take this parked file up again: look at it and report it as claimed.
    Resume(FileId),
    /// Ask for this parked file's run, or look its flow's runs up. It takes no slot.
    Ask(FileId),
    /// Its route has paused before its attempt began: put on record that it was not sent, and park
    /// it.
    Shelve(FileId),
}

/// A name in a route: what promise P13 is about.
type Key = (RouteName, OsString);

/// Whether a route may start something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Probe,
    Closed,
}

/// A pause that patchdrop itself has decided on.
#[derive(Clone, Debug)]
struct Pause {
    cause: Cause,
    /// Whether the trouble may be that of single files: then every other probe is a new one's.
    may_be_the_files: bool,
    since: Wall,
    begun_at: Tick,
    probes: u32,
    next_probe_at: Tick,
    /// The file that probes, while it does.
    prober: Option<Key>,
    /// The last probe was a parked file's: the next one is a new one's.
    wants_new: bool,
}

/// A destination: its pace, its pause and what speaks against it.
#[derive(Clone, Debug, Default)]
struct Circuit {
    pause: Option<Pause>,
    not_before: Tick,
    strikes: BTreeSet<FileId>,
    doubts: Doubts,
    in_flight: usize,
    pacer: Pacer,
    /// The route that had the last turn: the next one is served first.
    served: Option<RouteName>,
    /// Questions under way, the oldest first.
    questions: VecDeque<Turn>,
    /// When the log was last told that the server asks to wait.
    said_at: Option<Tick>,
}

/// A route's part of the schedule.
#[derive(Clone, Debug)]
struct Lane {
    destination: Destination,
    concurrency: usize,
    retry: Backoff,
    pause: Option<Pause>,
    paused_by_person: Option<Wall>,
    fresh: VecDeque<FileId>,
    retries: VecDeque<FileId>,
    parked: BTreeSet<(Tick, FileId)>,
    /// Where its files leave in an order: what says so.
    order: Option<OrderBy>,
    /// All its files under way but those being looked at, the one ahead first; empty without an
    /// order.
    line: BTreeSet<(Option<NaturalName>, FileId)>,
    /// A held file comes first: nothing is claimed before a person has decided about it.
    is_held_up: bool,
    priority: Priority,
    /// Its turns: see `pacing`.
    credit: i64,
    /// Parked until their runs are asked for: no pause holds them back, and no slot is theirs.
    asking: BTreeSet<(Tick, FileId)>,
    /// Parked before their last move: no pause holds that back, since nothing is sent by it.
    finishing: BTreeSet<(Tick, FileId)>,
    asks: usize,
    /// Where runs are asked for; none where there are none.
    core: Option<Destination>,
    /// The pace there lets no question go before.
    asks_not_before: Tick,
    active: usize,
    active_retries: usize,
    in_flight: usize,
    retries_in_flight: usize,
    window: usize,
    delivered_at: Option<Tick>,
    last_sent_at: Option<Wall>,
    blocked_for: Duration,
    blocked_since: Option<Tick>,
    footing: Footing,
}

/// Where a file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Claimed; waits for a slot.
    Ready,
    /// In an attempt that was started at this turn.
    Sending(Turn),
    /// Being moved, or put on record.
    Settling,
    /// Waits in `sending/` until then.
    Parked { due: Tick, since: Tick, blocked_for: Duration },
    /// Being taken up again.
    Resuming,
    /// Its run is being asked for.
    Asking,
}

#[derive(Clone, Debug)]
struct Track {
    route: RouteName,
    name: OsString,
    phase: Phase,
    /// What it was last parked for.
    errand: Errand,
    is_retry: bool,
    refused_at: Option<Tick>,
    /// When it last probed in vain, or began a pause.
    probed_at: Option<Tick>,
    waited_for: Duration,
    /// Disk or ledger trouble in a row; for the wait before the next try.
    stumbles: u32,
}

/// Whether a file of an earlier run was refused there for the route's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was not.
    Never,
    /// It was, and the route has delivered another file after that.
    BeforeDelivery,
    /// It was, and the route has delivered nothing since.
    SinceDelivery,
}

/// How a route stands, for `status`.
#[derive(Clone, Debug, Default)]
pub struct LaneView {
    /// The pause in force, with the time of the next probe.
    pub pause: Option<PauseView>,
    /// Since when a person has paused it.
    pub paused_by_person: Option<Wall>,
    /// Claimed and on their way.
    pub active: usize,
    /// Waiting in `sending/` for another attempt, or for a look at runs before it.
    pub parked: usize,
    /// Accepted, and waiting in `sending/` for their runs.
    pub asking: usize,
    /// When the next of them is due.
    pub next_due_at: Option<Tick>,
    /// When the last file was accepted.
    pub last_sent_at: Option<Wall>,
}

/// A pause, for `status` and logs.
#[derive(Clone, Debug)]
pub struct PauseView {
    /// Why.
    pub cause: Cause,
    /// Since when.
    pub since: Wall,
    /// When one file probes again.
    pub next_probe_at: Tick,
}

/// A change that is worth one log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A route paused, for this reason.
    RoutePaused(RouteName, Cause),
    /// A route goes on.
    RouteResumed(RouteName),
    /// A destination paused.
    DestinationPaused(Destination, Cause),
    /// A destination goes on.
    DestinationResumed(Destination),
    /// A destination's limit has become known, or another one: it is kept to.
    DestinationPaced(Destination, Rate),
    /// A destination refuses for its rate limit, and asks to wait so long.
    DestinationWaits(Destination, Duration),
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Schedule {
    limits: Limits,
    /// What the config says about destinations, by host.
    rules: BTreeMap<Arc<str>, PaceRules>,
    lanes: BTreeMap<RouteName, Lane>,
    circuits: BTreeMap<Destination, Circuit>,
    files: BTreeMap<FileId, Track>,
    /// Names under way, each with the claimed files that bear it; empty during a look.
    names: BTreeMap<Key, BTreeSet<FileId>>,
    /// Names that are being looked at: each may turn out to be another claimed file.
    looks: BTreeSet<Key>,
    active: usize,
    suspended_until: Option<Tick>,
    /// The volume of the record is too full to begin anything.
    short: Option<Shortage>,
    turn: usize,
}

impl Schedule {
    /// An empty schedule.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            rules: BTreeMap::new(),
            lanes: BTreeMap::new(),
            circuits: BTreeMap::new(),
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            looks: BTreeSet::new(),
            active: 0,
            suspended_until: None,
            short: None,
            turn: 0,
        }
    }

    /// Adds a route; one that is known keeps its state.
    pub fn add_route(&mut self, route: &Route, paused_by_person: Option<Wall>, now: Now) {
        let destination = route.deliver.destination();
        let is_new = !self.lanes.contains_key(&route.name);
        let concurrency = if route.order.is_some() { 1 } else { route.concurrency.max(1) };
        let pacer = &mut self.circuit(&destination).pacer;
        if is_new {
            pacer.add_slots(concurrency);
        }
        self.lanes.entry(route.name.clone()).or_insert_with(|| Lane {
            destination,
            concurrency,
            retry: route.retry,
            pause: None,
            paused_by_person,
            fresh: VecDeque::new(),
            retries: VecDeque::new(),
            parked: BTreeSet::new(),
            order: route.order.map(|order| order.by),
            line: BTreeSet::new(),
            is_held_up: false,
            priority: route.priority,
            credit: 0,
            asking: BTreeSet::new(),
            finishing: BTreeSet::new(),
            asks: 0,
            core: route.deliver.core(),
            asks_not_before: Tick(0),
            active: 0,
            active_retries: 0,
            in_flight: 0,
            retries_in_flight: 0,
            window: concurrency + WINDOW_START,
            delivered_at: None,
            last_sent_at: None,
            blocked_for: Duration::ZERO,
            blocked_since: None,
            footing: Footing::default(),
        });
        self.note_blocked(now.tick);
    }

    /// Whether a ready file of this name may be claimed now; if not, why it waits.
    ///
    /// # Errors
    /// The reason that `status` shows.
    pub fn may_claim(&self, route: &RouteName, name: &OsStr, now: Tick) -> Result<(), Reason> {
        if self.names.contains_key(&(route.clone(), name.to_owned())) {
            return Err(Reason::SameName);
        }
        let Some(lane) = self.lanes.get(route) else { return Err(Reason::NoRoute) };
        match self.gate(lane, now) {
            Gate::Probe if self.probe_of(lane, now) == Some(Probe::New) => Ok(()),
            Gate::Closed | Gate::Probe => Err(Reason::Paused),
            Gate::Open if lane.order.is_some() && !lane.is_free() => Err(Reason::InLine),
            Gate::Open if self.has_room(lane) => Ok(()),
            Gate::Open if self.has_too_many_parked(lane) => Err(Reason::TooManyDeferred),
            Gate::Open => Err(Reason::Ready),
        }
    }

    fn has_too_many_parked(&self, lane: &Lane) -> bool {
        lane.parked.len() + lane.asking.len() + lane.finishing.len() >= self.limits.parked_max
    }

    fn has_room(&self, lane: &Lane) -> bool {
        let kept_for_retries = if lane.parked.is_empty() { 0 } else { lane.retry_places() };
        let fresh = lane.active.saturating_sub(lane.active_retries);
        lane.active < lane.window
            && fresh + kept_for_retries < lane.window
            && lane.footing.has_room(lane.active)
            && !self.has_too_many_parked(lane)
            && (lane.order.is_none() || lane.is_free())
            && (self.active < self.limits.active_max || lane.active < PLACES_ALWAYS)
    }

    /// Whether a route has room for more claims, whatever their names.
    #[must_use]
    pub fn wants_files(&self, route: &RouteName, now: Tick) -> bool {
        self.lanes.get(route).is_some_and(|lane| match self.gate(lane, now) {
            Gate::Open => self.has_room(lane),
            Gate::Probe => self.probe_of(lane, now) == Some(Probe::New),
            Gate::Closed => false,
        })
    }

    /// Whether no file of a route is being looked at, claimed, sent or settled.
    #[must_use]
    pub fn is_at_rest(&self, route: &RouteName) -> bool {
        self.lanes.get(route).is_none_or(|lane| lane.active == 0)
    }

    /// A look at a candidate has begun: its name is taken until the look comes to nothing or the
    /// file's journey ends.
    pub fn look_begun(&mut self, route: &RouteName, name: &OsStr, now: Tick) {
        self.names.entry((route.clone(), name.to_owned())).or_default();
        self.looks.insert((route.clone(), name.to_owned()));
        self.active += 1;
        let Some(lane) = self.lanes.get_mut(route) else { return };
        lane.active += 1;
        let circuit = self.circuits.get_mut(&lane.destination);
        let pauses = [lane.pause.as_mut(), circuit.and_then(|circuit| circuit.pause.as_mut())];
        for pause in pauses.into_iter().flatten() {
            if pause.prober.is_none() && pause.next_probe_at <= now {
                pause.prober = Some((route.clone(), name.to_owned()));
            }
        }
    }

    /// The look came to nothing: not ready, gone, unreadable.
    pub fn look_ended(&mut self, route: &RouteName, name: &OsStr) {
        let key = (route.clone(), name.to_owned());
        self.looks.remove(&key);
        if self.names.get(&key).is_some_and(BTreeSet::is_empty) {
            self.names.remove(&key);
        }
        self.leave_active(route, false);
        self.free_probe(&key);
    }

    /// The look ended in a claim: the file waits for a slot.
    pub fn claimed(&mut self, id: FileId, route: &RouteName, name: &OsStr) {
        let track = Track {
            route: route.clone(),
            name: name.to_owned(),
            phase: Phase::Ready,
            errand: Errand::Attempt,
            is_retry: false,
            refused_at: None,
            probed_at: None,
            waited_for: Duration::ZERO,
            stumbles: 0,
        };
        self.files.insert(id, track);
        let key = (route.clone(), name.to_owned());
        self.looks.remove(&key);
        self.names.entry(key).or_default().insert(id);
        if let Some(lane) = self.lanes.get_mut(route) {
            lane.line_up(id, name);
            lane.fresh.push_back(id);
        }
    }

    /// An unsettled file of an earlier run, or one that a person let go: parked, due after `wait`.
    #[expect(clippy::too_many_arguments, reason = "one call, and each is a different fact")]
    pub fn parked_on_record(
        &mut self,
        id: FileId,
        route: &RouteName,
        name: &OsStr,
        waited_for: Duration,
        refused: Refused,
        (wait, errand): (Duration, Errand),
        now: Tick,
    ) {
        self.names.entry((route.clone(), name.to_owned())).or_default().insert(id);
        let track = Track {
            route: route.clone(),
            name: name.to_owned(),
            phase: Phase::Resuming,
            errand,
            is_retry: true,
            refused_at: match refused {
                Refused::Never => None,
                Refused::BeforeDelivery => Some(Tick(0)),
                Refused::SinceDelivery => Some(Tick(2)),
            },
            probed_at: None,
            waited_for,
            stumbles: 0,
        };
        if self.files.insert(id, track).is_none() {
            self.active += 1;
            if let Some(lane) = self.lanes.get_mut(route) {
                lane.line_up(id, name);
                lane.active += 1;
                lane.active_retries += 1;
            }
        }
        self.park(id, wait, errand, now);
    }

    /// The route has delivered files in an earlier run: what was refused before that is told by
    /// [`Refused::BeforeDelivery`].
    pub fn delivered_on_record(&mut self, route: &RouteName) {
        if let Some(lane) = self.lanes.get_mut(route) {
            lane.delivered_at.get_or_insert(Tick(1));
        }
    }

    /// A route that keeps an order has a held file that comes first, or has none any more.
    pub fn hold_up(&mut self, route: &RouteName, is_held_up: bool) {
        if let Some(lane) = self.lanes.get_mut(route) {
            lane.is_held_up = is_held_up && lane.order.is_some();
        }
    }

    /// Whether a held file keeps the others of its route waiting.
    #[must_use]
    pub fn is_held_up(&self, route: &RouteName) -> bool {
        self.lanes.get(route).is_some_and(|lane| lane.is_held_up)
    }

    /// A parked file was taken up again and waits for a slot.
    pub fn resumed(&mut self, id: FileId) {
        self.ask_ended(id);
        let Some(track) = self.files.get_mut(&id) else { return };
        track.phase = Phase::Ready;
        track.is_retry = true;
        track.stumbles = 0;
        if let Some(lane) = self.lanes.get_mut(&track.route) {
            lane.retries.push_back(id);
        }
    }

    /// Moves a file out of its attempt, or out of anything else, into its last stage.
    pub fn settling(&mut self, id: FileId) {
        self.leave_stage(id);
        if let Some(track) = self.files.get_mut(&id) {
            track.phase = Phase::Settling;
            track.errand = Errand::Finish;
        }
    }

    /// Frees the slot of an attempt that has ended without an answer that could be judged, and the
    /// place of a question.
    fn leave_stage(&mut self, id: FileId) {
        self.ask_ended(id);
        let Some(track) = self.files.get_mut(&id) else { return };
        let Phase::Sending(turn) = track.phase else { return };
        track.phase = Phase::Settling;
        let Some(lane) = self.lanes.get_mut(&track.route) else { return };
        lane.in_flight = lane.in_flight.saturating_sub(1);
        lane.retries_in_flight = lane.retries_in_flight.saturating_sub(usize::from(track.is_retry));
        if let Some(circuit) = self.circuits.get_mut(&lane.destination) {
            circuit.in_flight = circuit.in_flight.saturating_sub(1);
            circuit.pacer.vanished(turn, turn.at);
        }
    }

    /// A file's journey has ended, whatever the end.
    pub fn ended(&mut self, id: FileId) {
        self.leave_stage(id);
        let Some(track) = self.files.remove(&id) else { return };
        let key = (track.route.clone(), track.name);
        self.free_name(id, &key);
        self.free_probe(&key);
        if let Some(lane) = self.lanes.get_mut(&track.route) {
            lane.line.remove(&lane.in_line(id, &key.1));
            lane.footing.forget(id);
            match track.phase {
                Phase::Parked { due, .. } => {
                    lane.parked.remove(&(due, id));
                    lane.asking.remove(&(due, id));
                    lane.finishing.remove(&(due, id));
                    return;
                }
                Phase::Ready => {
                    lane.fresh.retain(|other| *other != id);
                    lane.retries.retain(|other| *other != id);
                }
                Phase::Sending(_) | Phase::Settling | Phase::Resuming | Phase::Asking => {}
            }
        }
        self.leave_active(&track.route, track.is_retry);
    }

    fn free_name(&mut self, id: FileId, key: &Key) {
        if let Some(bearers) = self.names.get_mut(key) {
            bearers.remove(&id);
            if bearers.is_empty() && !self.looks.contains(key) {
                self.names.remove(key);
            }
        }
    }

    /// Parks a file that is under way. One that is accepted holds nothing of its name back.
    pub fn park(&mut self, id: FileId, wait: Duration, errand: Errand, now: Tick) {
        self.leave_stage(id);
        let Some(track) = self.files.get_mut(&id) else { return };
        let due = now.plus(wait);
        let route = track.route.clone();
        let Some(lane) = self.lanes.get_mut(&route) else { return };
        let blocked_for = blocked_until(lane, now);
        if track.phase == Phase::Ready {
            // It stumbled after its claim: it waits for no slot any more.
            lane.fresh.retain(|other| *other != id);
            lane.retries.retain(|other| *other != id);
        }
        track.phase = Phase::Parked { due, since: now, blocked_for };
        track.errand = errand;
        let was_retry = std::mem::replace(&mut track.is_retry, true);
        match errand {
            Errand::Attempt => lane.parked.insert((due, id)),
            Errand::Confirm | Errand::LookUp => lane.asking.insert((due, id)),
            Errand::Finish => lane.finishing.insert((due, id)),
        };
        let key = (route.clone(), track.name.clone());
        if errand == Errand::Confirm {
            self.free_name(id, &key);
        }
        self.leave_active(&route, was_retry);
        self.free_probe(&key);
    }

    /// Time that a file has waited, paused time not counted.
    #[must_use]
    pub fn waited_for(&self, id: FileId) -> Duration {
        self.files.get(&id).map_or(Duration::ZERO, |track| track.waited_for)
    }

    /// Whether the route has delivered another file since this one was first refused for the
    /// route's fault, and this attempt began after that.
    #[must_use]
    pub fn delivered_since_refusal(&self, id: FileId) -> bool {
        let Some(track) = self.files.get(&id) else { return false };
        let delivered_at = self.lanes.get(&track.route).and_then(|lane| lane.delivered_at);
        match (track.refused_at, delivered_at, track.phase) {
            (Some(refused_at), Some(delivered_at), Phase::Sending(turn)) => {
                delivered_at > refused_at && turn.at >= delivered_at
            }
            _ => false,
        }
    }

    /// An attempt has ended: frees its slot, and pauses or resumes route and destination.
    pub fn answered(
        &mut self,
        id: FileId,
        judged: &Judged,
        next: &Next,
        now: Now,
        dice: f64,
    ) -> Vec<Change> {
        let Some(track) = self.files.get_mut(&id) else { return Vec::new() };
        let was_retry = track.is_retry;
        if judged.outcome == Outcome::RouteFault {
            track.refused_at = track.refused_at.or(Some(now.tick));
        }
        if matches!(next, Next::Settle { .. }) {
            track.errand = Errand::Finish;
        }
        let phase = std::mem::replace(&mut track.phase, Phase::Settling);
        let key = (track.route.clone(), track.name.clone());
        let Some(lane) = self.lanes.get_mut(&key.0) else { return Vec::new() };
        lane.in_flight = lane.in_flight.saturating_sub(1);
        lane.retries_in_flight = lane.retries_in_flight.saturating_sub(usize::from(was_retry));
        let destination = lane.destination.clone();
        let mut changes = Vec::new();
        let lesson = if let Phase::Sending(turn) = phase {
            self.heeded(&destination, judged, next, now.tick);
            self.hear(&destination, turn, &judged.heard(), now, &mut changes)
        } else {
            Lesson::default()
        };
        let is_paced = lesson.waits.is_some();
        let may_be_the_files = !matches!(
            judged.outcome,
            Outcome::TokenRefused | Outcome::Deferred(Blame::Destination)
        );
        let cause = &judged.cause;
        let trouble = Trouble { id, key: &key, was_retry, cause, may_be_the_files, now, dice };
        let files_own =
            matches!(next, Next::Settle { cause, .. } if cause.code.0 == "refused-again");
        match judged.outcome {
            Outcome::Delivered => {
                self.delivered(&key.0, now, &mut changes);
                self.resume_destination(&destination, &mut changes);
            }
            Outcome::Rejected => {
                self.resume_route(&key.0, now.tick, &mut changes);
                self.resume_destination(&destination, &mut changes);
            }
            Outcome::RouteFault => {
                self.resume_destination(&destination, &mut changes);
                if !files_own {
                    self.pause_route(&trouble, &mut changes);
                }
            }
            // The server is there and says what it wants: that is no fault, and nothing probes.
            Outcome::Deferred(_) if is_paced => {
                self.resume_destination(&destination, &mut changes);
            }
            Outcome::TokenRefused | Outcome::Deferred(Blame::Destination) => {
                self.pause_destination(&destination, &trouble, &mut changes);
            }
            // Refused for too many at once: those that were sent together share one strike.
            Outcome::Deferred(Blame::Attempt)
                if lesson.is_known_trouble && judged.status.is_some() => {}
            Outcome::Deferred(Blame::Attempt) | Outcome::InDoubt => {
                self.strike(&destination, &trouble, &mut changes);
            }
            Outcome::Changed => {}
        }
        if let (Some(wait), Some(circuit)) =
            (judged.retry_after.filter(|_| !is_paced), self.circuits.get_mut(&destination))
        {
            circuit.not_before = circuit.not_before.max(now.tick.plus(wait));
        }
        self.free_probe(&key);
        self.note_blocked(now.tick);
        changes
    }

    /// What to start now. Each is considered started.
    pub fn starts(&mut self, now: Tick) -> Vec<Start> {
        if self.suspended_until.is_some_and(|until| until <= now) {
            self.suspended_until = None;
        }
        self.note_blocked(now);
        let mut starts = Vec::new();
        let routes: Vec<RouteName> = self.lanes.keys().cloned().collect();
        if routes.is_empty() {
            return starts;
        }
        self.turn = (self.turn + 1) % routes.len();
        let mut open = Vec::new();
        for route in routes.iter().cycle().skip(self.turn).take(routes.len()) {
            self.start_asks(route, now, &mut starts);
            self.start_last_moves(route, now, &mut starts);
            self.start_try(route, now, &mut starts);
            let Some(lane) = self.lanes.get(route) else { continue };
            match self.gate(lane, now) {
                Gate::Open => {
                    self.start_open(route, now, &mut starts);
                    open.push(route);
                }
                Gate::Probe => self.start_probe(route, now, &mut starts),
                Gate::Closed => self.shelve(route, now, &mut starts),
            }
        }
        self.attempt_in_turn(open, now, &mut starts);
        starts
    }

    /// When something may be startable without any other event; `None` if never.
    #[must_use]
    pub fn next_wake(&self, now: Tick) -> Option<Tick> {
        let mut wake: Option<Tick> = self.suspended_until;
        let mut earliest = |tick: Tick| {
            if tick > now {
                wake = Some(wake.map_or(tick, |known| known.min(tick)));
            }
        };
        for lane in self.lanes.values() {
            if let Some((due, _)) = lane.asking.range((now.plus(TICK), FileId(0))..).next() {
                earliest(*due);
            }
            if !lane.asking.is_empty() {
                earliest(lane.asks_not_before);
            }
            if let Some((due, _)) = lane.finishing.range((now.plus(TICK), FileId(0))..).next() {
                earliest(*due);
            }
        }
        for lane in self.lanes.values().filter(|lane| lane.paused_by_person.is_none()) {
            lane.footing.next_at().into_iter().for_each(&mut earliest);
            // Those that are due already wait for something else than time.
            if let Some((due, _)) = lane.parked.range((now.plus(TICK), FileId(0))..).next() {
                earliest(*due);
            }
            if let Some(pause) = &lane.pause {
                earliest(pause.next_probe_at);
                earliest(pause.next_probe_at.plus(NEW_PROBER_WITHIN));
            }
        }
        for (destination, circuit) in &self.circuits {
            if let Some(at) = circuit.pacer.next_start_at(now)
                && self.has_ready(destination)
            {
                earliest(at);
            }
            earliest(circuit.not_before);
            if let Some(pause) = &circuit.pause {
                earliest(pause.next_probe_at);
                earliest(pause.next_probe_at.plus(NEW_PROBER_WITHIN));
            }
        }
        wake
    }

    /// Whether nothing is under way and nothing is parked that could go by itself: every file that
    /// is left waits for a pause to end or a person.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let waits = |lane: &Lane| {
            !(lane.parked.is_empty() && lane.asking.is_empty() && lane.finishing.is_empty())
        };
        self.active == 0 && !self.lanes.values().any(waits)
    }

    /// Files under way over all routes.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active
    }

    /// Whether anything is paused by patchdrop itself.
    #[must_use]
    pub fn is_any_paused(&self) -> bool {
        self.short.is_some()
            || self.lanes.values().any(|lane| lane.pause.is_some() || lane.footing.is_blocked())
            || self.circuits.values().any(|circuit| circuit.pause.is_some())
    }

    /// How a route stands.
    #[must_use]
    pub fn view(&self, route: &RouteName) -> LaneView {
        let Some(lane) = self.lanes.get(route) else { return LaneView::default() };
        let is_looked_up = |(_, id): &&(Tick, FileId)| {
            self.files.get(id).is_some_and(|track| track.errand == Errand::LookUp)
        };
        let looked_up = lane.asking.iter().filter(is_looked_up).count();
        LaneView {
            pause: self.footing_view(lane).or_else(|| lane.pause.as_ref().map(Pause::view)),
            paused_by_person: lane.paused_by_person,
            active: lane.active,
            parked: lane.parked.len() + lane.finishing.len() + looked_up,
            asking: lane.asking.len() - looked_up + lane.asks,
            next_due_at: lane.parked.first().map(|(due, _)| *due),
            last_sent_at: lane.last_sent_at,
        }
    }

    /// How long the file has waited that has waited longest for its next attempt, paused time not
    /// counted.
    #[must_use]
    pub fn longest_wait(&self, route: &RouteName) -> Duration {
        let parked = self.lanes.get(route).into_iter().flat_map(|lane| &lane.parked);
        parked.map(|(_, id)| self.waited_for(*id)).max().unwrap_or_default()
    }

    /// How each destination stands.
    pub fn destinations(&self) -> impl Iterator<Item = (&Destination, Option<PauseView>)> {
        self.circuits
            .iter()
            .map(|(destination, circuit)| (destination, circuit.pause.as_ref().map(Pause::view)))
    }

    /// Whether a file is on its journey here.
    #[must_use]
    pub fn knows(&self, id: FileId) -> bool {
        self.files.contains_key(&id)
    }

    /// The route of a file on its journey.
    #[must_use]
    pub fn route_of(&self, id: FileId) -> Option<&RouteName> {
        self.files.get(&id).map(|track| &track.route)
    }

    /// Whether the route is paused by itself, its destination or a person.
    #[must_use]
    pub fn is_paused(&self, route: &RouteName, now: Tick) -> bool {
        self.lanes.get(route).is_some_and(|lane| self.gate(lane, now) != Gate::Open)
    }

    /// Files whose end is decided make their last moves, whatever is paused: nothing is sent by
    /// that, and a file that failed does not lie in `sending/` for as long as its route waits.
    fn start_last_moves(&mut self, route: &RouteName, now: Tick, starts: &mut Vec<Start>) {
        if self.suspended_until.is_some_and(|until| until > now) {
            return;
        }
        let active_max = self.limits.active_max;
        let Some(lane) = self.lanes.get_mut(route) else { return };
        while !lane.footing.is_stuck() && (self.active < active_max || lane.active < PLACES_ALWAYS)
        {
            let may = |id: &FileId| {
                (lane.order.is_none() || lane.active == 0)
                    && is_first_of_its_name(&self.names, &self.looks, &self.files, *id)
            };
            let mut due = lane.finishing.iter().take_while(|(due, _)| *due <= now).copied();
            let Some((due, id)) = due.find(|(_, id)| may(id)) else { return };
            lane.finishing.remove(&(due, id));
            self.active += 1;
            take_up(&mut self.files, lane, id, now);
            starts.push(Start::Resume(id));
        }
    }

    fn start_open(&mut self, route: &RouteName, now: Tick, starts: &mut Vec<Start>) {
        let active_max = self.limits.active_max;
        let Some(lane) = self.lanes.get_mut(route) else { return };
        let room = |lane: &Lane, active: usize| {
            lane.active_retries < lane.retry_places()
                && lane.active < lane.window
                && lane.footing.has_room(lane.active)
                && (active < active_max || lane.active < PLACES_ALWAYS)
        };
        while room(lane, self.active) {
            let (names, looks, files) = (&self.names, &self.looks, &self.files);
            let Some((due, id)) = lane
                .parked
                .iter()
                .take_while(|(due, _)| *due <= now)
                .find(|(_, id)| {
                    lane.is_its_turn(*id) && is_first_of_its_name(names, looks, files, *id)
                })
                .copied()
            else {
                break;
            };
            lane.parked.remove(&(due, id));
            self.active += 1;
            take_up(&mut self.files, lane, id, now);
            starts.push(Start::Resume(id));
        }
    }

    fn delivered(&mut self, route: &RouteName, now: Now, changes: &mut Vec<Change>) {
        if let Some(lane) = self.lanes.get_mut(route) {
            lane.delivered_at = Some(now.tick);
            lane.last_sent_at = Some(now.wall);
            let most = (WINDOW_PER_SLOT * lane.concurrency).max(64);
            lane.window = (lane.window + 2).min(most);
        }
        self.resume_route(route, now.tick, changes);
    }

    fn leave_active(&mut self, route: &RouteName, was_retry: bool) {
        self.active = self.active.saturating_sub(1);
        if let Some(lane) = self.lanes.get_mut(route) {
            lane.active = lane.active.saturating_sub(1);
            lane.active_retries = lane.active_retries.saturating_sub(usize::from(was_retry));
        }
    }
}

impl Circuit {
    /// Whether pace and trust let one more attempt begin.
    fn may_start(&self, now: Tick) -> bool {
        self.pacer.may_start(now).is_ok() && (self.in_flight == 0 || !self.doubts.is_wary(now))
    }
}

impl Lane {
    /// Whether none of its files is under way, and none keeps the others waiting.
    fn is_free(&self) -> bool {
        self.line.is_empty() && self.active == 0 && !self.is_held_up
    }

    /// Whether a parked file may go as far as its route's order goes: it is the one ahead, and none
    /// is on its way.
    fn is_its_turn(&self, id: FileId) -> bool {
        let is_ahead = self.line.first().is_some_and(|(_, first)| *first == id);
        self.order.is_none() || is_ahead && self.active == 0 && self.asking.is_empty()
    }

    fn in_line(&self, id: FileId, name: &OsStr) -> (Option<NaturalName>, FileId) {
        ((self.order == Some(OrderBy::Name)).then(|| NaturalName::new(name)), id)
    }

    fn line_up(&mut self, id: FileId, name: &OsStr) {
        if self.order.is_some() {
            let place = self.in_line(id, name);
            self.line.insert(place);
        }
    }

    /// Half of the places at most are for files taken up again, so that new ones are not starved
    /// by a heap of old ones; and that half is theirs, so that they are not starved either.
    fn retry_places(&self) -> usize {
        (self.window / 2).max(1)
    }

    fn has_slot(&self) -> bool {
        self.in_flight < self.concurrency
    }

    /// Whether files wait for their turn.
    fn has_ready(&self) -> bool {
        !(self.fresh.is_empty() && self.retries.is_empty())
    }
}

/// Promise P13: a parked file may go on if it is the oldest of its name, and no other one of that
/// name is under way or being looked at.
fn is_first_of_its_name(
    names: &BTreeMap<Key, BTreeSet<FileId>>,
    looks: &BTreeSet<Key>,
    files: &BTreeMap<FileId, Track>,
    id: FileId,
) -> bool {
    let Some(track) = files.get(&id) else { return false };
    let key = (track.route.clone(), track.name.clone());
    if looks.contains(&key) {
        return false;
    }
    let Some(bearers) = names.get(&key) else { return true };
    let is_parked = |other: &FileId| {
        files.get(other).is_some_and(|track| matches!(track.phase, Phase::Parked { .. }))
    };
    bearers.first() == Some(&id) && bearers.iter().all(|other| *other == id || is_parked(other))
}

fn take_up(files: &mut BTreeMap<FileId, Track>, lane: &mut Lane, id: FileId, now: Tick) {
    lane.active += 1;
    lane.active_retries += 1;
    let Some(track) = files.get_mut(&id) else { return };
    if let Phase::Parked { since, blocked_for, .. } = track.phase {
        let paused = blocked_until(lane, now).saturating_sub(blocked_for);
        track.waited_for += now.since(since).saturating_sub(paused);
    }
    track.phase = Phase::Resuming;
    track.is_retry = true;
}

fn begin(
    files: &mut BTreeMap<FileId, Track>,
    lane: &mut Lane,
    circuit: &mut Circuit,
    id: FileId,
    now: Tick,
) {
    let Some(track) = files.get_mut(&id) else { return };
    track.phase = Phase::Sending(circuit.pacer.began(now));
    circuit.in_flight += 1;
    lane.in_flight += 1;
    lane.retries_in_flight += usize::from(track.is_retry);
}

/// The code of a pause by a person.
pub const PAUSED_BY_PERSON: Code = Code::of("paused-by-person");
