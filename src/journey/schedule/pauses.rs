//! The schedule's part about pauses: what begins and ends one, and which file probes meanwhile.

use std::time::Duration;

use super::{
    Change, Gate, Key, Lane, NEW_PROBER_WITHIN, Pause, PauseView, Phase, STRIKES_MAX, Schedule,
    Start, Track, WINDOW_START, begin, is_first_of_its_name, take_up,
};
use crate::journey::runs::Errand;
use crate::journey::send::Judged;
use crate::journey::settle::{Next, ceiling};
use crate::model::file::FileId;
use crate::model::outcome::{Cause, Outcome};
use crate::model::route::{Backoff, Destination, RouteName};
use crate::model::time::{Now, Tick};

impl Schedule {
    /// A person pauses a route.
    pub fn pause_by_person(&mut self, route: &RouteName, now: Now) {
        if let Some(lane) = self.lanes.get_mut(route) {
            lane.paused_by_person.get_or_insert(now.wall);
        }
        self.note_blocked(now.tick);
    }

    /// A person lets a route go on: whatever paused it, one file probes at once.
    pub fn resume_by_person(&mut self, route: &RouteName, now: Now) {
        if let Some(lane) = self.lanes.get_mut(route) {
            lane.paused_by_person = None;
            lane.footing.try_now(now.tick);
            let circuit = self.circuits.get_mut(&lane.destination);
            if let Some(pause) = lane.pause.as_mut() {
                pause.next_probe_at = now.tick;
            }
            if let Some(circuit) = circuit {
                circuit.not_before = Tick(0);
                circuit.pacer.forget_wait();
                if let Some(pause) = circuit.pause.as_mut() {
                    pause.next_probe_at = now.tick;
                }
            }
        }
        self.note_blocked(now.tick);
    }

    pub(super) fn gate(&self, lane: &Lane, now: Tick) -> Gate {
        let is_suspended = self.suspended_until.is_some_and(|until| until > now);
        let is_short = self.short.is_some() || lane.footing.is_closed();
        if lane.paused_by_person.is_some() || is_suspended || is_short {
            return Gate::Closed;
        }
        let circuit = self.circuits.get(&lane.destination);
        if circuit.is_some_and(|circuit| circuit.not_before > now) {
            return Gate::Closed;
        }
        let pauses = [lane.pause.as_ref(), circuit.and_then(|circuit| circuit.pause.as_ref())];
        let mut gate = Gate::Open;
        for pause in pauses.into_iter().flatten() {
            if pause.prober.is_some() || pause.next_probe_at > now {
                return Gate::Closed;
            }
            gate = Gate::Probe;
        }
        gate
    }

    fn pauses_of<'a>(&'a self, lane: &'a Lane) -> impl Iterator<Item = &'a Pause> + Clone {
        let circuit = self.circuits.get(&lane.destination);
        [lane.pause.as_ref(), circuit.and_then(|circuit| circuit.pause.as_ref())]
            .into_iter()
            .flatten()
    }

    /// Who probes next, while nobody does. A parked file that has not probed in this pause goes
    /// before one that has, and of those the one that did so longest ago. Where the trouble may be
    /// that of single files, every other probe is a new file's, if one turns up in time: however
    /// many bad ones are parked, a good one in the drop folder has its turn.
    pub(super) fn probe_of(&self, lane: &Lane, now: Tick) -> Option<Probe> {
        let pauses = self.pauses_of(lane);
        if lane.order.is_some() && !lane.is_free() {
            // The one ahead probes again and again: nobody else may go before it.
            let ahead = |(_, id): &&(Tick, FileId)| {
                lane.is_its_turn(*id)
                    && is_first_of_its_name(&self.names, &self.looks, &self.files, *id)
            };
            return lane.parked.iter().find(ahead).map(|(due, id)| Probe::Parked(*due, *id));
        }
        let new = (!self.has_too_many_parked(lane)).then_some(Probe::New);
        let probed_at = |id: &FileId| {
            let at = self.files.get(id).and_then(|track| track.probed_at);
            at.filter(|at| pauses.clone().any(|pause| pause.begun_at <= *at))
        };
        let lawful = || {
            lane.parked
                .iter()
                .copied()
                .filter(|(_, id)| is_first_of_its_name(&self.names, &self.looks, &self.files, *id))
        };
        let Some((due, id)) = lawful().min_by_key(|(_, id)| probed_at(id)) else { return new };
        let has_probed = probed_at(&id).is_some();
        let wants_new = if pauses.clone().any(|pause| pause.may_be_the_files) {
            has_probed || pauses.clone().any(|pause| pause.wants_new)
        } else {
            has_probed && lawful().nth(1).is_none()
        };
        // New ones have a moment to turn up.
        let is_late =
            pauses.clone().all(|pause| pause.next_probe_at.plus(NEW_PROBER_WITHIN) <= now);
        new.filter(|_| wants_new && !is_late).or(Some(Probe::Parked(due, id)))
    }

    pub(super) fn start_probe(&mut self, route: &RouteName, now: Tick, starts: &mut Vec<Start>) {
        let Some(lane) = self.lanes.get(route) else { return };
        if lane.in_flight >= lane.concurrency {
            // Attempts from before the pause fill the slots: their answers will tell.
            return;
        }
        let probe = self.probe_of(lane, now);
        let Some(lane) = self.lanes.get_mut(route) else { return };
        let Some(circuit) = self.circuits.get_mut(&lane.destination) else { return };
        if !lane.has_slot() || !circuit.may_start(now) {
            return;
        }
        let (id, start) =
            if let Some(id) = lane.retries.pop_front().or_else(|| lane.fresh.pop_front()) {
                begin(&mut self.files, lane, circuit, id, now);
                (id, Start::Attempt(id))
            } else if let Some(Probe::Parked(due, id)) = probe {
                lane.parked.remove(&(due, id));
                self.active += 1;
                take_up(&mut self.files, lane, id, now);
                (id, Start::Resume(id))
            } else {
                return;
            };
        let key = self.files.get(&id).map(|track| (track.route.clone(), track.name.clone()));
        for pause in [lane.pause.as_mut(), circuit.pause.as_mut()].into_iter().flatten() {
            pause.prober.clone_from(&key);
        }
        starts.push(start);
    }

    /// Takes the claimed files of a route that has paused out of memory; the one that probes stays
    /// and gets its slot.
    pub(super) fn shelve(&mut self, route: &RouteName, now: Tick, starts: &mut Vec<Start>) {
        let Some(lane) = self.lanes.get_mut(route) else { return };
        if lane.fresh.is_empty() && lane.retries.is_empty() {
            return;
        }
        let Some(circuit) = self.circuits.get_mut(&lane.destination) else { return };
        let probers: Vec<Key> = [lane.pause.as_ref(), circuit.pause.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(|pause| pause.prober.clone())
            .collect();
        let may_probe = lane.paused_by_person.is_none()
            && self.suspended_until.is_none()
            && !(self.short.is_some() || lane.footing.is_closed())
            && circuit.not_before <= now;
        let waiting: Vec<FileId> = lane.fresh.drain(..).chain(lane.retries.drain(..)).collect();
        for id in waiting {
            let Some(track) = self.files.get_mut(&id) else { continue };
            let is_prober = |(route, name): &Key| *route == track.route && *name == track.name;
            if may_probe && probers.iter().any(is_prober) {
                if lane.has_slot() && circuit.may_start(now) {
                    begin(&mut self.files, lane, circuit, id, now);
                    starts.push(Start::Attempt(id));
                } else {
                    lane.retries.push_back(id);
                }
            } else {
                track.phase = Phase::Settling;
                starts.push(Start::Shelve(id));
            }
        }
    }

    pub(super) fn resume_route(&mut self, route: &RouteName, now: Tick, changes: &mut Vec<Change>) {
        let Some(lane) = self.lanes.get_mut(route) else { return };
        if lane.pause.take().is_none() {
            return;
        }
        changes.push(Change::RouteResumed(route.clone()));
        let parked: Vec<(Tick, FileId)> = std::mem::take(&mut lane.parked).into_iter().collect();
        for (due, id) in parked {
            let is_unspent = self.files.get(&id).is_some_and(|track| track.refused_at.is_some());
            let due = if is_unspent { due.min(now) } else { due };
            if let Some(Track { phase: Phase::Parked { due: known, .. }, .. }) =
                self.files.get_mut(&id)
            {
                *known = due;
            }
            lane.parked.insert((due, id));
        }
    }

    pub(super) fn resume_destination(
        &mut self,
        destination: &Destination,
        changes: &mut Vec<Change>,
    ) {
        let Some(circuit) = self.circuits.get_mut(destination) else { return };
        circuit.strikes.clear();
        if circuit.pause.take().is_some() {
            circuit.pacer.recovered();
            changes.push(Change::DestinationResumed(destination.clone()));
        }
    }

    pub(super) fn pause_route(&mut self, trouble: &Trouble<'_>, changes: &mut Vec<Change>) {
        let route = &trouble.key.0;
        let Some(lane) = self.lanes.get_mut(route) else { return };
        lane.window = lane.concurrency + WINDOW_START;
        let retry = lane.retry;
        let began = extend(&mut lane.pause, trouble, &retry, Duration::ZERO);
        if began {
            changes.push(Change::RoutePaused(route.clone(), trouble.cause.clone()));
        }
        self.note_probed(trouble, began);
    }

    pub(super) fn pause_destination(
        &mut self,
        destination: &Destination,
        trouble: &Trouble<'_>,
        changes: &mut Vec<Change>,
    ) {
        let Some(retry) = self.lanes.get(&trouble.key.0).map(|lane| lane.retry) else { return };
        for lane in self.lanes.values_mut().filter(|lane| lane.destination == *destination) {
            lane.window = lane.concurrency + WINDOW_START;
        }
        let Some(circuit) = self.circuits.get_mut(destination) else { return };
        circuit.strikes.clear();
        let wait = circuit.doubts.wait(trouble.now.tick);
        let began = extend(&mut circuit.pause, trouble, &retry, wait);
        if began {
            let cause = trouble.cause.clone();
            changes.push(Change::DestinationPaused(destination.clone(), cause));
        }
        self.note_probed(trouble, began);
    }

    /// What an answer says about how far its destination can be trusted to give one in time; its
    /// slot is free.
    pub(super) fn heeded(
        &mut self,
        destination: &Destination,
        judged: &Judged,
        next: &Next,
        now: Tick,
    ) {
        let Some(circuit) = self.circuits.get_mut(destination) else { return };
        circuit.in_flight = circuit.in_flight.saturating_sub(1);
        let goes_again = matches!(next, Next::Park { errand: Errand::Attempt, .. });
        match judged.outcome {
            Outcome::InDoubt if !goes_again => circuit.doubts.doubted(now),
            Outcome::Delivered | Outcome::Rejected | Outcome::RouteFault => {
                circuit.doubts.answered();
            }
            Outcome::InDoubt | Outcome::TokenRefused | Outcome::Deferred(_) | Outcome::Changed => {}
        }
    }

    /// Whether a destination has left so many files in doubt that one goes at a time now.
    #[must_use]
    pub fn is_wary_of(&self, destination: &Destination, now: Tick) -> bool {
        self.circuits.get(destination).is_some_and(|circuit| circuit.doubts.is_wary(now))
    }

    pub(super) fn strike(
        &mut self,
        destination: &Destination,
        trouble: &Trouble<'_>,
        changes: &mut Vec<Change>,
    ) {
        let Some(circuit) = self.circuits.get_mut(destination) else { return };
        circuit.strikes.insert(trouble.id);
        let is_enough = circuit.strikes.len() >= STRIKES_MAX;
        if circuit.pause.is_some() || is_enough || circuit.doubts.is_wary(trouble.now.tick) {
            self.pause_destination(destination, trouble, changes);
        }
    }

    /// The file that began a pause, or has probed in it, stands behind the others.
    fn note_probed(&mut self, trouble: &Trouble<'_>, began: bool) {
        let Some(lane) = self.lanes.get(&trouble.key.0) else { return };
        let probed =
            || self.pauses_of(lane).any(|pause| pause.prober.as_ref() == Some(trouble.key));
        if (began || probed())
            && let Some(track) = self.files.get_mut(&trouble.id)
        {
            track.probed_at = Some(trouble.now.tick);
        }
    }

    pub(super) fn free_probe(&mut self, key: &Key) {
        let lanes = self.lanes.get_mut(&key.0);
        let Some(lane) = lanes else { return };
        let circuit = self.circuits.get_mut(&lane.destination);
        let pauses = [lane.pause.as_mut(), circuit.and_then(|circuit| circuit.pause.as_mut())];
        for pause in pauses.into_iter().flatten() {
            if pause.prober.as_ref() == Some(key) {
                pause.prober = None;
            }
        }
    }

    /// Counts time in which a route is paused, for the give-up time.
    pub(super) fn note_blocked(&mut self, now: Tick) {
        let all_short = self.short.is_some();
        for lane in self.lanes.values_mut() {
            let circuit = self.circuits.get(&lane.destination);
            let blocked = all_short
                || lane.footing.is_blocked()
                || lane.paused_by_person.is_some()
                || lane.pause.is_some()
                || circuit.is_some_and(|circuit| {
                    circuit.pause.is_some() || circuit.pacer.is_refused(now)
                });
            match (blocked, lane.blocked_since) {
                (true, None) => lane.blocked_since = Some(now),
                (false, Some(since)) => {
                    lane.blocked_for += now.since(since);
                    lane.blocked_since = None;
                }
                (true, Some(_)) | (false, None) => {}
            }
        }
    }
}

impl Pause {
    pub(super) fn view(&self) -> PauseView {
        PauseView {
            cause: self.cause.clone(),
            since: self.since,
            next_probe_at: self.next_probe_at,
        }
    }
}

/// Who probes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// This parked file, which is due then.
    Parked(Tick, FileId),
    /// One that is not claimed yet.
    New,
}

/// An answer that speaks against a route or a destination.
pub(super) struct Trouble<'a> {
    pub(super) id: FileId,
    pub(super) key: &'a Key,
    /// Whether the file was parked before.
    pub(super) was_retry: bool,
    pub(super) cause: &'a Cause,
    /// Whether it may be that of the file alone.
    pub(super) may_be_the_files: bool,
    pub(super) now: Now,
    pub(super) dice: f64,
}

/// Begins a pause (true) or, if it holds already and its probe failed, waits longer; at least for
/// some part of `least`.
fn extend(
    pause: &mut Option<Pause>,
    trouble: &Trouble<'_>,
    retry: &Backoff,
    least: Duration,
) -> bool {
    let Trouble { cause, may_be_the_files, now, .. } = *trouble;
    // Half of the wait is jittered: a pause always holds for a while, and two services that lost
    // the same server do not come back in step.
    let jitter = 0.5 + trouble.dice.clamp(0.0, 1.0) / 2.0;
    let wait = |probes: u32| ceiling(retry, probes).max(least).mul_f64(jitter);
    if let Some(known) = pause {
        if known.prober.as_ref() == Some(trouble.key) {
            known.wants_new = trouble.was_retry;
            known.probes = known.probes.saturating_add(1);
            known.next_probe_at = now.tick.plus(wait(known.probes));
            known.cause = cause.clone();
            known.may_be_the_files = may_be_the_files;
        }
        return false;
    }
    *pause = Some(Pause {
        cause: cause.clone(),
        may_be_the_files,
        since: now.wall,
        begun_at: now.tick,
        probes: 1,
        next_probe_at: now.tick.plus(wait(1)),
        prober: None,
        wants_new: false,
    });
    true
}

pub(super) fn blocked_until(lane: &Lane, now: Tick) -> Duration {
    lane.blocked_for + lane.blocked_since.map_or(Duration::ZERO, |since| now.since(since))
}
