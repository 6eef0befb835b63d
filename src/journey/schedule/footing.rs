//! The schedule's part about ground that gives way: a route whose own folders cannot be worked in
//! (full, read-only, without rights), and volumes too full for records to be kept. Both hold back
//! claims and attempts, so that nothing is sent that could not be put where it belongs; neither is
//! a fault of a file, and neither counts towards giving one up.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::{Change, Lane, PauseView, Phase, Schedule, Start, is_first_of_its_name, take_up};
use crate::model::file::FileId;
use crate::model::outcome::Cause;
use crate::model::route::RouteName;
use crate::model::time::{Now, Tick, Wall};

/// Different files in a row that stumble over their folders before the route pauses for that. One
/// alone may be at fault itself: it is another account's, or cannot be moved.
const STRIKES_MAX: u32 = 3;

/// The longest wait between two tries of a route whose folders cannot be worked in.
const LONGEST: Duration = Duration::from_mins(1);

/// How far a fault of a folder reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every file: the volume is full or read-only.
    Volume,
    /// Perhaps the file alone.
    Perhaps,
}

/// A route's folders cannot be worked in.
#[derive(Clone, Debug)]
struct Trouble {
    cause: Cause,
    since: Wall,
    reach: Reach,
    tries: u32,
    next_at: Tick,
    trying: Option<FileId>,
    /// New files may go on, one at a time: the fault may be that of the stuck ones alone.
    lets_new: bool,
}

/// A volume is too full to begin anything on.
#[derive(Clone, Debug)]
pub(super) struct Shortage {
    cause: Cause,
    since: Wall,
}

/// How firmly a route stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Footing {
    trouble: Option<Trouble>,
    /// Files that stumbled over folders, the one that tries next first.
    stuck: VecDeque<FileId>,
    strikes: u32,
    short: Option<Shortage>,
}

impl Footing {
    /// Nothing is begun.
    pub(super) fn is_closed(&self) -> bool {
        self.short.is_some() || self.is_stuck()
    }

    /// Its folders cannot be worked in: one file tries, now and then.
    pub(super) fn is_stuck(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| !trouble.lets_new)
    }

    /// Time does not count towards giving a file up.
    pub(super) fn is_blocked(&self) -> bool {
        self.short.is_some() || self.trouble.is_some()
    }

    /// Whether one more file may be under way.
    pub(super) fn has_room(&self, active: usize) -> bool {
        self.trouble.is_none() || active == 0
    }

    pub(super) fn next_at(&self) -> Option<Tick> {
        let trouble = self.trouble.as_ref().filter(|trouble| trouble.trying.is_none());
        trouble.map(|trouble| trouble.next_at)
    }

    pub(super) fn try_now(&mut self, now: Tick) {
        if let Some(trouble) = &mut self.trouble {
            trouble.next_at = now;
        }
    }

    pub(super) fn view(&self) -> Option<PauseView> {
        if let Some(Trouble { cause, since, next_at, .. }) = &self.trouble {
            let (cause, since, next_probe_at) = (cause.clone(), *since, *next_at);
            return Some(PauseView { cause, since, next_probe_at });
        }
        self.short.as_ref().map(Shortage::view)
    }

    /// The file that was trying is not (any more); the next try is a while off.
    pub(super) fn tried(&mut self, id: FileId, now: Tick) {
        if let Some(trouble) = self.trouble.as_mut().filter(|it| it.trying == Some(id)) {
            trouble.trying = None;
            trouble.tries = trouble.tries.saturating_add(1);
            trouble.next_at = now.plus(wait(trouble.tries));
        }
    }

    /// A journey has ended.
    pub(super) fn forget(&mut self, id: FileId) {
        self.stuck.retain(|other| *other != id);
        if let Some(trouble) = &mut self.trouble {
            trouble.trying = trouble.trying.filter(|trying| *trying != id);
            // Nobody is left who could try.
            trouble.lets_new |= self.stuck.is_empty();
        }
    }
}

impl Shortage {
    pub(super) fn view(&self) -> PauseView {
        let (cause, since) = (self.cause.clone(), self.since);
        PauseView { cause, since, next_probe_at: Tick(0) }
    }
}

fn wait(tries: u32) -> Duration {
    Duration::from_secs(1 << tries.min(6)).min(LONGEST)
}

impl Schedule {
    /// Disk or ledger did not let a file go on: it is parked, and looked at again after a wait that
    /// grows from 1 s to a minute.
    pub fn stumbled(&mut self, id: FileId, now: Tick) {
        let Some(track) = self.files.get_mut(&id) else { return };
        track.stumbles = track.stumbles.saturating_add(1);
        if let Some(lane) = self.lanes.get_mut(&track.route) {
            lane.footing.tried(id, now);
        }
        let wait = Duration::from_secs(1 << track.stumbles.saturating_sub(1).min(5));
        let errand = track.errand;
        self.park(id, wait.min(Duration::from_mins(1)), errand, now);
    }

    /// Nothing starts before `wait` has passed: the ledger cannot be written.
    pub fn suspend(&mut self, wait: Duration, now: Tick) {
        self.suspended_until = self.suspended_until.max(Some(now.plus(wait)));
    }

    /// The ledger can be written again.
    pub fn go_on(&mut self) {
        self.suspended_until = None;
    }

    /// A file's folders did not let it go on: it is parked. A volume's fault pauses the route at
    /// once, any other one when several files in a row meet it.
    pub fn folder_refused(
        &mut self,
        id: FileId,
        (cause, reach): (Cause, Reach),
        now: Now,
    ) -> Option<Change> {
        let track = self.files.get(&id)?;
        let (route, is_first) = (track.route.clone(), track.stumbles == 0);
        let was_trying = self.lanes.get(&route).is_some_and(|lane| {
            lane.footing.trouble.as_ref().is_some_and(|trouble| trouble.trying == Some(id))
        });
        self.stumbled(id, now.tick);
        let footing = &mut self.lanes.get_mut(&route)?.footing;
        let is_new = !footing.stuck.contains(&id);
        if is_new {
            footing.stuck.push_back(id);
        }
        if let Some(trouble) = &mut footing.trouble {
            if reach == Reach::Volume || was_trying {
                trouble.reach = reach;
                trouble.cause = cause;
            }
            let is_perhaps = trouble.reach == Reach::Perhaps;
            if was_trying {
                trouble.lets_new = is_perhaps;
            } else if is_new && trouble.lets_new {
                trouble.lets_new = false;
                trouble.next_at = trouble.next_at.max(now.tick.plus(wait(trouble.tries)));
            }
            return None;
        }
        footing.strikes += u32::from(is_first);
        if reach == Reach::Perhaps && footing.strikes < STRIKES_MAX {
            return None;
        }
        footing.trouble = Some(Trouble {
            cause: cause.clone(),
            since: now.wall,
            reach,
            tries: 0,
            next_at: now.tick.plus(wait(0)),
            trying: None,
            lets_new: false,
        });
        self.note_blocked(now.tick);
        Some(Change::RoutePaused(route, cause))
    }

    /// A stage of a file's journey went well; `is_moved`: it is where it belongs. What had paused
    /// its route for its folders is over if this file had met it.
    pub fn folders_worked(&mut self, id: FileId, is_moved: bool, now: Tick) -> Option<Change> {
        let route = self.files.get(&id)?.route.clone();
        let footing = &mut self.lanes.get_mut(&route)?.footing;
        let was_stuck = footing.stuck.contains(&id);
        if was_stuck || is_moved {
            footing.strikes = 0;
            footing.stuck.retain(|other| *other != id);
        }
        let is_over = |trouble: &Trouble| was_stuck || is_moved && trouble.lets_new;
        if !footing.trouble.as_ref().is_some_and(is_over) {
            return None;
        }
        footing.trouble = None;
        for id in std::mem::take(&mut footing.stuck) {
            self.due_now(id, now);
        }
        self.note_blocked(now);
        Some(Change::RouteResumed(route))
    }

    fn due_now(&mut self, id: FileId, now: Tick) {
        let Some(track) = self.files.get_mut(&id) else { return };
        let Phase::Parked { due, .. } = &mut track.phase else { return };
        let Some(lane) = self.lanes.get_mut(&track.route) else { return };
        if lane.parked.remove(&(*due, id)) {
            *due = now.min(*due);
            lane.parked.insert((*due, id));
        }
    }

    /// One of the stuck files tries, whatever else is paused: nothing is sent by it that is not
    /// let through after it.
    pub(super) fn start_try(&mut self, route: &RouteName, now: Tick, starts: &mut Vec<Start>) {
        if self.suspended_until.is_some_and(|until| until > now) {
            return;
        }
        let Some(lane) = self.lanes.get_mut(route) else { return };
        let is_due = lane.footing.next_at().is_some_and(|next_at| next_at <= now);
        if !is_due || lane.paused_by_person.is_some() {
            return;
        }
        let (names, looks, files) = (&self.names, &self.looks, &self.files);
        let parked_at = |id: &FileId| match files.get(id).map(|track| track.phase) {
            Some(Phase::Parked { due, .. }) => Some((due, *id)),
            _ => None,
        };
        let found = lane.footing.stuck.iter().filter_map(parked_at).find(|(due, id)| {
            let waits = |set: &BTreeSet<(Tick, FileId)>| set.contains(&(*due, *id));
            (waits(&lane.parked) || waits(&lane.finishing))
                && is_first_of_its_name(names, looks, files, *id)
        });
        let Some(trouble) = &mut lane.footing.trouble else { return };
        let Some((due, id)) = found else {
            trouble.lets_new = true;
            trouble.next_at = now.plus(LONGEST);
            return;
        };
        trouble.trying = Some(id);
        lane.footing.stuck.retain(|other| *other != id);
        lane.footing.stuck.push_back(id);
        lane.parked.remove(&(due, id));
        lane.finishing.remove(&(due, id));
        self.active += 1;
        take_up(&mut self.files, lane, id, now);
        starts.push(Start::Resume(id));
    }

    /// A volume of the route's is too full to begin anything, or is not; one line a change.
    pub fn set_short(
        &mut self,
        route: &RouteName,
        cause: Option<Cause>,
        now: Now,
    ) -> Option<Change> {
        let lane = self.lanes.get_mut(route)?;
        let change = match (&lane.footing.short, &cause) {
            (None, Some(cause)) => Some(Change::RoutePaused(route.clone(), cause.clone())),
            (Some(_), None) => Some(Change::RouteResumed(route.clone())),
            (None, None) | (Some(_), Some(_)) => None,
        };
        lane.footing.short = shortage(lane.footing.short.take(), cause, now);
        self.note_blocked(now.tick);
        change
    }

    /// The volume of the record is too full to begin anything on any route, or is not; whether
    /// that is a change.
    pub fn set_all_short(&mut self, cause: Option<Cause>, now: Now) -> bool {
        let is_change = self.short.is_some() != cause.is_some();
        self.short = shortage(self.short.take(), cause, now);
        self.note_blocked(now.tick);
        is_change
    }

    /// Whether a route's folders cannot be worked in.
    #[must_use]
    pub fn is_stuck(&self, route: &RouteName) -> bool {
        self.lanes.get(route).is_some_and(|lane| lane.footing.trouble.is_some())
    }

    pub(super) fn footing_view(&self, lane: &Lane) -> Option<PauseView> {
        lane.footing.view().or_else(|| self.short.as_ref().map(Shortage::view))
    }
}

fn shortage(known: Option<Shortage>, cause: Option<Cause>, now: Now) -> Option<Shortage> {
    let since = known.map_or(now.wall, |known| known.since);
    cause.map(|cause| Shortage { cause, since })
}
