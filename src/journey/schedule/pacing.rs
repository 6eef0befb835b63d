//! The schedule's part about pace: one pacer a destination, whose turn it is, questions that are no
//! files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Change, Circuit, Gate, Schedule, Start, begin};
use crate::journey::pace::{Heard, Lesson, PaceView, Pacer, Turn, Wait};
use crate::journey::send::Judged;
use crate::model::file::FileId;
use crate::model::route::{Destination, PaceRules, RouteName};
use crate::model::time::{Now, Tick};

/// That a server asks to wait is said at most this often: some do it over and over.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// Who waits for the answer to another question asks again after this long.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

impl Schedule {
    /// What the config says about destinations, by host. It holds for those that are not known yet.
    pub fn set_pace_rules(&mut self, rules: BTreeMap<Arc<str>, PaceRules>) {
        self.rules = rules;
    }

    pub(super) fn circuit(&mut self, destination: &Destination) -> &mut Circuit {
        let rules = self.rules.get(&destination.host).copied().unwrap_or_default();
        let fresh = || Circuit { pacer: Pacer::new(rules), ..Circuit::default() };
        self.circuits.entry(destination.clone()).or_insert_with(fresh)
    }

    /// Attempts, while slots and pace allow. Where they allow few, the routes of a destination take
    /// turns from one call to the next, each as often as its priority says, and none is left out.
    pub(super) fn attempt_in_turn(
        &mut self,
        open: Vec<&RouteName>,
        now: Tick,
        starts: &mut Vec<Start>,
    ) {
        let mut sharing: BTreeMap<Destination, Vec<&RouteName>> = BTreeMap::new();
        for route in open {
            let Some(lane) = self.lanes.get_mut(route) else { continue };
            if lane.has_ready() {
                sharing.entry(lane.destination.clone()).or_default().push(route);
            } else {
                lane.credit = 0;
            }
        }
        for (destination, mut routes) in sharing {
            routes.sort();
            while let Some(id) = self
                .next_in_turn(&destination, &routes, now)
                .and_then(|route| self.attempt_one(route, now))
            {
                starts.push(Start::Attempt(id));
            }
        }
    }

    /// Whose turn it is: each route that could begin an attempt gains as many turns as its priority
    /// has, the one with the most of them goes and gives as many as all have gained. The routes
    /// mix evenly that way.
    fn next_in_turn<'r>(
        &mut self,
        destination: &Destination,
        routes: &[&'r RouteName],
        now: Tick,
    ) -> Option<&'r RouteName> {
        let circuit = self.circuits.get(destination).filter(|circuit| circuit.may_start(now))?;
        let mut best: Option<(i64, bool, &RouteName)> = None;
        let mut gained = 0;
        for route in routes {
            let lane = self.lanes.get_mut(*route);
            let Some(lane) = lane.filter(|lane| lane.has_ready() && lane.has_slot()) else {
                continue;
            };
            let turns = i64::from(lane.priority.turns());
            lane.credit += turns;
            gained += turns;
            let is_after = circuit.served.as_ref().is_none_or(|served| *route > served);
            if best.is_none_or(|(credit, after, _)| (credit, after) < (lane.credit, is_after)) {
                best = Some((lane.credit, is_after, route));
            }
        }
        let (_, _, route) = best?;
        self.lanes.get_mut(route)?.credit -= gained;
        Some(route)
    }

    pub(super) fn attempt_one(&mut self, route: &RouteName, now: Tick) -> Option<FileId> {
        let lane = self.lanes.get_mut(route)?;
        let circuit = self.circuits.get_mut(&lane.destination)?;
        if !lane.has_slot() || !circuit.may_start(now) {
            return None;
        }
        let retry_slots = (lane.concurrency / 2).max(1);
        let retries_may = lane.retries_in_flight < retry_slots || lane.fresh.is_empty();
        let prefers_retry = retries_may && (lane.retries_in_flight * 2 <= lane.in_flight);
        let id = if prefers_retry {
            lane.retries.pop_front().or_else(|| lane.fresh.pop_front())
        } else {
            lane.fresh.pop_front().or_else(|| lane.retries.pop_front())
        }?;
        begin(&mut self.files, lane, circuit, id, now);
        circuit.served = Some(route.clone());
        Some(id)
    }

    /// Tells the pacer how an attempt or a question has ended.
    pub(super) fn hear(
        &mut self,
        destination: &Destination,
        turn: Turn,
        heard: &Heard,
        now: Now,
        changes: &mut Vec<Change>,
    ) -> Lesson {
        let Some(circuit) = self.circuits.get_mut(destination) else { return Lesson::default() };
        let lesson = circuit.pacer.ended(turn, heard, now.tick);
        if let Some(rate) = lesson.rate {
            changes.push(Change::DestinationPaced(destination.clone(), rate));
        }
        let was_said = circuit.said_at.is_some_and(|at| now.tick.since(at) < SAY_EVERY);
        if let Some(wait) = lesson.waits.filter(|_| !was_said) {
            circuit.said_at = Some(now.tick);
            changes.push(Change::DestinationWaits(destination.clone(), wait));
        }
        lesson
    }

    /// Whether a question (not a file) may go to a destination now; if so, it is counted as under
    /// way until [`Schedule::asked`]. One that no route sends to is known from then on.
    ///
    /// # Errors
    /// When to ask again.
    pub fn may_ask(&mut self, destination: &Destination, now: Tick) -> Result<(), Tick> {
        let circuit = self.circuit(destination);
        if circuit.not_before > now {
            return Err(circuit.not_before);
        }
        circuit.pacer.may_start(now).map_err(|wait| match wait {
            Wait::Until(at) => at,
            Wait::Answer => now.plus(ASK_AGAIN_AFTER),
        })?;
        let turn = circuit.pacer.began(now);
        circuit.questions.push_back(turn);
        Ok(())
    }

    /// A question has been answered, or never will be.
    pub fn asked(&mut self, destination: &Destination, heard: &Heard, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        let circuit = self.circuit(destination);
        let most = circuit.pacer.rules().retry_after_max;
        if let Some(turn) = circuit.questions.pop_front() {
            let heard = heard.believed(most);
            let lesson = self.hear(destination, turn, &heard, now, &mut changes);
            if let Some(wait) = heard.retry_after.filter(|_| lesson.waits.is_none()) {
                let circuit = self.circuit(destination);
                circuit.not_before = circuit.not_before.max(now.tick.plus(wait));
            }
        }
        changes
    }

    /// What is believed of a verdict: no wait beyond the destination's `retry_after_max`.
    #[must_use]
    pub fn believed(&self, id: FileId, judged: Judged) -> Judged {
        let lane = self.files.get(&id).and_then(|track| self.lanes.get(&track.route));
        let circuit = lane.and_then(|lane| self.circuits.get(&lane.destination));
        let rules = circuit.map_or_else(PaceRules::default, |circuit| *circuit.pacer.rules());
        let heard = judged.heard().believed(rules.retry_after_max);
        Judged { retry_after: heard.retry_after, allowance: heard.allowance, ..judged }
    }

    /// How each destination is paced.
    #[must_use]
    pub fn pace(&self, destination: &Destination, now: Tick) -> PaceView {
        let circuit = self.circuits.get(destination);
        circuit.map(|circuit| circuit.pacer.view(now)).unwrap_or_default()
    }

    /// Until when files of a route wait for nothing but the pace of its destination.
    #[must_use]
    pub fn paced_until(&self, route: &RouteName, now: Tick) -> Option<Tick> {
        let lane = self.lanes.get(route).filter(|lane| self.gate(lane, now) == Gate::Open)?;
        self.circuits.get(&lane.destination)?.pacer.view(now).until
    }

    /// Whether something waits for its turn there, or a probe is due.
    pub(super) fn has_ready(&self, destination: &Destination) -> bool {
        let circuit = self.circuits.get(destination);
        self.lanes.values().filter(|lane| lane.destination == *destination).any(|lane| {
            let is_paused =
                lane.pause.is_some() || circuit.is_some_and(|circuit| circuit.pause.is_some());
            lane.has_ready() || is_paused && !lane.parked.is_empty()
        })
    }
}
