//! The schedule's part about pauses: what begins and ends one, and which file probes meanwhile.

use std::time::Duration;

use super::{
    Change, Gate, Key, Lane, NEW_PROBER_WITHIN, Pause, PauseView, Phase, STRIKES_MAX, Schedule,
    Start, Track, WINDOW_START, begin, is_first_of_its_name, take_up,
};
use crate::journey::send::Judged;
use crate::journey::settle::ceiling;
use crate::model::file::FileId;
use crate::model::outcome::Cause;
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
        if lane.paused_by_person.is_some() || self.suspended_until.is_some_and(|until| until > now)
        {
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

    /// The parked file that probes next: another than the last time.
    pub(super) fn next_prober(&self, lane: &Lane) -> Option<(Tick, FileId)> {
        let last = self.last_probers(lane);
        lane.parked.iter().copied().find(|(_, id)| {
            let key = self.files.get(id).map(|track| (track.route.clone(), track.name.clone()));
            is_first_of_its_name(&self.names, &self.looks, &self.files, *id)
                && key.is_some_and(|key| !last.contains(&&key))
        })
    }

    pub(super) fn last_probers<'a>(&'a self, lane: &'a Lane) -> Vec<&'a Key> {
        let circuit = self.circuits.get(&lane.destination);
        [lane.pause.as_ref(), circuit.and_then(|circuit| circuit.pause.as_ref())]
            .into_iter()
            .flatten()
            .filter_map(|pause| pause.last_prober.as_ref())
            .collect()
    }

    /// Whether the file that probed last must do it again: new ones had time to turn up.
    pub(super) fn same_may_probe(&self, lane: &Lane, now: Tick) -> bool {
        let circuit = self.circuits.get(&lane.destination);
        [lane.pause.as_ref(), circuit.and_then(|circuit| circuit.pause.as_ref())]
            .into_iter()
            .flatten()
            .all(|pause| pause.next_probe_at.plus(NEW_PROBER_WITHIN) <= now)
    }

    pub(super) fn start_probe(&mut self, route: &RouteName, now: Tick, starts: &mut Vec<Start>) {
        let Some(lane) = self.lanes.get(route) else { return };
        if lane.in_flight >= lane.concurrency {
            // Attempts from before the pause fill the slots: their answers will tell.
            return;
        }
        let same = |lane: &Lane| {
            lane.parked
                .iter()
                .find(|(_, id)| is_first_of_its_name(&self.names, &self.looks, &self.files, *id))
                .copied()
                .filter(|_| self.same_may_probe(lane, now))
        };
        let parked = self.next_prober(lane).or_else(|| same(lane));
        let Some(lane) = self.lanes.get_mut(route) else { return };
        let Some(circuit) = self.circuits.get_mut(&lane.destination) else { return };
        if !lane.has_slot() || circuit.pacer.may_start(now).is_err() {
            return;
        }
        let (id, start) =
            if let Some(id) = lane.retries.pop_front().or_else(|| lane.fresh.pop_front()) {
                begin(&mut self.files, lane, circuit, id, now);
                (id, Start::Attempt(id))
            } else if let Some((due, id)) = parked {
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
            && circuit.not_before <= now;
        let waiting: Vec<FileId> = lane.fresh.drain(..).chain(lane.retries.drain(..)).collect();
        for id in waiting {
            let Some(track) = self.files.get_mut(&id) else { continue };
            let is_prober = |(route, name): &Key| *route == track.route && *name == track.name;
            if may_probe && probers.iter().any(is_prober) {
                if lane.has_slot() && circuit.pacer.may_start(now).is_ok() {
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

    pub(super) fn pause_route(
        &mut self,
        key: &Key,
        cause: &Cause,
        now: Now,
        dice: f64,
        changes: &mut Vec<Change>,
    ) {
        let Some(lane) = self.lanes.get_mut(&key.0) else { return };
        let retry = lane.retry;
        lane.window = lane.concurrency + WINDOW_START;
        if extend(&mut lane.pause, key, cause, &retry, now, dice) {
            changes.push(Change::RoutePaused(key.0.clone(), cause.clone()));
        }
    }

    pub(super) fn pause_destination(
        &mut self,
        destination: &Destination,
        key: &Key,
        judged: &Judged,
        now: Now,
        dice: f64,
        changes: &mut Vec<Change>,
    ) {
        let Some(retry) = self.lanes.get(&key.0).map(|lane| lane.retry) else { return };
        for lane in self.lanes.values_mut().filter(|lane| lane.destination == *destination) {
            lane.window = lane.concurrency + WINDOW_START;
        }
        let Some(circuit) = self.circuits.get_mut(destination) else { return };
        circuit.strikes.clear();
        if extend(&mut circuit.pause, key, &judged.cause, &retry, now, dice) {
            let cause = judged.cause.clone();
            changes.push(Change::DestinationPaused(destination.clone(), cause));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call, and each is a different fact")]
    pub(super) fn strike(
        &mut self,
        id: FileId,
        destination: &Destination,
        key: &Key,
        judged: &Judged,
        now: Now,
        dice: f64,
        changes: &mut Vec<Change>,
    ) {
        let Some(circuit) = self.circuits.get_mut(destination) else { return };
        circuit.strikes.insert(id);
        if circuit.pause.is_some() || circuit.strikes.len() >= STRIKES_MAX {
            self.pause_destination(destination, key, judged, now, dice, changes);
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
        for lane in self.lanes.values_mut() {
            let circuit = self.circuits.get(&lane.destination);
            let blocked = lane.paused_by_person.is_some()
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

/// Begins a pause (true) or, if it holds already and its probe failed, waits longer.
fn extend(
    pause: &mut Option<Pause>,
    key: &Key,
    cause: &Cause,
    retry: &Backoff,
    now: Now,
    dice: f64,
) -> bool {
    // Half of the wait is jittered: a pause always holds for a while, and two services that lost
    // the same server do not come back in step.
    let wait = |probes: u32| ceiling(retry, probes).mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0);
    if let Some(known) = pause {
        if known.prober.as_ref() == Some(key) {
            known.last_prober = Some(key.clone());
            known.probes = known.probes.saturating_add(1);
            known.next_probe_at = now.tick.plus(wait(known.probes));
            known.cause = cause.clone();
        }
        return false;
    }
    *pause = Some(Pause {
        cause: cause.clone(),
        since: now.wall,
        probes: 1,
        next_probe_at: now.tick.plus(wait(1)),
        prober: None,
        last_prober: Some(key.clone()),
    });
    true
}

pub(super) fn blocked_until(lane: &Lane, now: Tick) -> Duration {
    lane.blocked_for + lane.blocked_since.map_or(Duration::ZERO, |since| now.since(since))
}
