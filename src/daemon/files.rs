//! The loop's part about files on their journey: what a stage reports, and what follows.

use std::sync::Arc;
use std::time::Duration;

use super::Daemon;
use super::asking::{self, Answered, Asked};
use super::carry::{self, Carried, Equipped, Report};
use super::event::{LookTicket, Ticket, Work};
use super::folders::chain;
use super::resume;
use crate::journey::detect::Reason;
use crate::journey::pace::Heard;
use crate::journey::runs::{self, Errand};
use crate::journey::schedule::{Change, Refused, Start};
use crate::journey::send::{self, Judged};
use crate::journey::settle::{self, Next, Standing};
use crate::model::file::{FileId, shown};
use crate::model::route::{InDoubt, Route, RouteName};
use crate::model::step::{Entry, State};
use crate::model::time::Now;
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::ledger::{Ledger, LedgerError};

/// How long nothing is started after the ledger refused a commit.
pub(super) const SUSPEND_FOR: Duration = Duration::from_secs(5);

impl<W: World> Daemon<W> {
    /// Starts what the schedule says; each is on record there as started.
    pub(super) fn start(&mut self, start: Start) {
        let ctx = Arc::clone(&self.ctx);
        let (Start::Attempt(id) | Start::Resume(id) | Start::Ask(id) | Start::Shelve(id)) = start;
        let route = self.schedule.route_of(id).and_then(|route| self.equipped.get(route));
        let Some(equipped) = route.cloned() else { return };
        self.rooms.hurry(&equipped.route.name, self.now().tick);
        let ticket = Ticket::File(id);
        match start {
            Start::Resume(_) => {
                self.spawn(ticket, async move {
                    Work::Report(resume::resume(&ctx, &equipped, id).await)
                });
            }
            Start::Ask(_) => {
                let known = self.asked.get(&id).copied().unwrap_or_default();
                let siblings = self.routes_of_flow(&equipped);
                self.spawn(ticket, async move {
                    let answered = asking::ask(&ctx, &equipped, id, known, siblings).await;
                    Work::Asked(Box::new(answered))
                });
            }
            Start::Attempt(_) => {
                let Some(carried) = self.ready.remove(&id) else { return };
                self.spawn(ticket, async move {
                    Work::Report(carry::attempt(&ctx, &equipped, carried).await)
                });
            }
            Start::Shelve(_) => {
                let Some(carried) = self.ready.remove(&id) else { return };
                let waited_for = self.schedule.waited_for(id);
                self.spawn(ticket, async move {
                    Work::Report(carry::shelve(&ctx, carried, waited_for).await)
                });
            }
        }
    }

    /// A look at a candidate has ended.
    pub(super) fn looked(&mut self, look: LookTicket, work: Work) {
        let now = self.now();
        let LookTicket { folder, index, route, sighting } = look;
        let report = if let Work::Report(report) = work {
            report
        } else {
            tracing::error!(%route, file = %sighting.shown(), "a look at a file failed by a bug; it is looked at again; please report this");
            Report::Left(Some((Reason::NotReady, Duration::from_mins(1))))
        };
        let finding = match report {
            Report::Claimed(carried) => {
                self.schedule.claimed(carried.entry.id, &route, &sighting.name);
                self.ready.insert(carried.entry.id, carried);
                return;
            }
            Report::Stumbled(id, stumble) => {
                self.schedule.claimed(id, &route, &sighting.name);
                self.stumbled(id, &stumble, now);
                return;
            }
            Report::Moved(entry) => {
                self.schedule.look_ended(&route, &sighting.name);
                self.moved(*entry);
                return;
            }
            Report::Ended(entry) => {
                self.schedule.look_ended(&route, &sighting.name);
                self.ended(&entry);
                return;
            }
            Report::Unrecorded(error) => {
                self.ledger_refused(&error, now);
                Some((Reason::Ready, SUSPEND_FOR))
            }
            Report::Left(finding) => finding,
            Report::Resumed(_)
            | Report::Answered(..)
            | Report::Doubted(..)
            | Report::Asked(..)
            | Report::Unconcluded(_)
            | Report::Parked(..) => None,
        };
        self.schedule.look_ended(&route, &sighting.name);
        if let Some(intake) = self.intakes.get_mut(&folder) {
            intake.look_failed(index, &sighting, finding, now.tick);
        }
    }

    /// A later stage of a journey has ended.
    pub(super) fn carried(&mut self, id: FileId, work: Work) {
        let now = self.now();
        let (report, heard, is_understood) = match work {
            Work::Report(report) => (Some(report), Heard::default(), false),
            Work::Asked(answered) => {
                let Answered { report, heard, is_understood } = *answered;
                (Some(report), heard, is_understood)
            }
            Work::Equipped(_)
            | Work::Sealed(_)
            | Work::Swept(..)
            | Work::Rooms(_)
            | Work::TakenUp(_)
            | Work::FirstHeld(_)
            | Work::Panicked => (None, Heard::default(), false),
        };
        if is_understood && !matches!(report, Some(Report::Asked(_))) {
            let route = self.schedule.route_of(id).cloned();
            route.inspect(|route| self.asking_goes_on(route));
        }
        if let Some(core) = self.schedule.asks_at(id).cloned() {
            for change in self.schedule.asked(&core, &heard, now) {
                say(&change);
            }
        }
        let Some(report) = report else {
            tracing::error!(file = %id, "a stage of a file's journey failed by a bug; it is taken up again; please report this");
            self.was_recorded(id);
            self.schedule.stumbled(id, now.tick);
            return;
        };
        self.reported(id, report, now);
    }

    pub(super) fn reported(&mut self, id: FileId, report: Report, now: Now) {
        self.stumbles.remove(&id);
        let is_refused =
            matches!(report, Report::Stumbled(..) | Report::Unrecorded(_) | Report::Unconcluded(_));
        if !matches!(report, Report::Unconcluded(_)) {
            self.was_recorded(id);
        }
        if !is_refused {
            self.worked(id, matches!(report, Report::Moved(_)), now.tick);
        }
        match report {
            Report::Claimed(carried) | Report::Resumed(carried) => {
                self.schedule.resumed(id);
                self.ready.insert(id, carried);
            }
            Report::Answered(carried, judged) => self.answered(carried, judged, now),
            Report::Doubted(carried, judged) => {
                let next = self.decide(&carried.entry, &judged);
                self.schedule.settling(id);
                self.conclude(carried, judged, next);
            }
            Report::Parked(wait, errand) => self.schedule.park(id, wait, errand, now.tick),
            Report::Asked(asked) => {
                self.schedule.park(id, asked.wait, asked.errand, now.tick);
                self.has_asked(id, asked);
            }
            Report::Moved(entry) => {
                self.schedule.settling(id);
                self.moved(*entry);
            }
            Report::Ended(entry) => {
                self.schedule.ended(id);
                self.ended(&entry);
            }
            Report::Stumbled(_, stumble) => self.stumbled(id, &stumble, now),
            Report::Unrecorded(error) => {
                self.ledger_refused(&error, now);
                self.schedule.stumbled(id, now.tick);
            }
            Report::Unconcluded(unconcluded) => self.keep(*unconcluded, now),
            Report::Left(_) => self.schedule.ended(id),
        }
    }

    fn answered(&mut self, carried: Box<Carried>, judged: Judged, now: Now) {
        let id = carried.entry.id;
        let judged = self.schedule.believed(id, judged);
        tracing::debug!(
            route = %carried.entry.route,
            id = %id,
            attempt = carried.entry.attempt,
            status = judged.status,
            code = %judged.cause.code,
            "attempt ended"
        );
        let next = self.decide(&carried.entry, &judged);
        let dice = self.ctx.world.clock().dice();
        let changes = self.schedule.answered(id, &judged, &next, now, dice);
        for change in changes {
            say(&change);
        }
        self.conclude(carried, judged, next);
    }

    fn decide(&self, entry: &Entry, judged: &Judged) -> Next {
        let Some(equipped) = self.equipped.get(&entry.route) else {
            return Next::Park { wait: Duration::from_mins(1), errand: Errand::Attempt };
        };
        let standing = Standing {
            delivered_since_refusal: self.schedule.delivered_since_refusal(entry.id),
            waited_for: self.schedule.waited_for(entry.id),
            dice: self.ctx.world.clock().dice(),
        };
        settle::decide(entry, judged, &equipped.route, standing)
    }

    pub(super) fn conclude(&mut self, carried: Box<Carried>, judged: Judged, next: Next) {
        let id = carried.entry.id;
        let Some(equipped) = self.equipped.get(&carried.entry.route).cloned() else { return };
        let ctx = Arc::clone(&self.ctx);
        let waited_for = self.schedule.waited_for(id);
        self.spawn(Ticket::File(id), async move {
            let conclude = carry::conclude(&ctx, &equipped, carried, judged, next, waited_for);
            Work::Report(conclude.await)
        });
    }

    /// The next sweep looks whether the route's folders are those that they were.
    pub(super) fn doubt_the_folders_of(&mut self, id: FileId) {
        let route = self.schedule.route_of(id).and_then(|route| self.equipped.get(route));
        if let Some(intake) =
            route.and_then(|route| self.intakes.get_mut(&route.route.folders.inbox))
        {
            intake.touch();
        }
    }

    /// Nothing is sent that cannot be put on record. (A step that the record rules out is the fault
    /// of one file and stops no other.)
    pub(super) fn ledger_refused(&mut self, error: &LedgerError, now: Now) {
        if let LedgerError::Impossible { id, .. } = error {
            let text = chain(error);
            tracing::error!(file = %id, error = %text, "a file cannot go on by a bug; it is taken up again; please report this");
            return;
        }
        let text = format!("{}; {}", chain(error), error.remedy());
        if self.ledger_fault.as_ref() != Some(&text) {
            tracing::error!(error = %text, "sending paused: nothing can be put on record");
        }
        self.ledger_fault = Some(text);
        self.schedule.suspend(SUSPEND_FOR, now.tick);
    }

    /// A journey has ended: one line, and whoever waited for the name is looked at.
    pub(super) fn ended(&mut self, entry: &Entry) {
        self.stumbles.remove(&entry.id);
        self.asked.remove(&entry.id);
        self.progress_at = self.now().tick;
        self.ledger_works();
        let (route, id, file) = (&entry.route, entry.id, shown(&entry.name));
        let cause = entry.cause.as_ref();
        let code = cause.map(|cause| cause.code.to_string()).unwrap_or_default();
        let why = cause.map(|cause| cause.plain.as_str()).unwrap_or_default();
        match entry.state {
            State::Sent => {
                self.end.sent += 1;
                tracing::info!(%route, %file, %id, attempts = entry.attempt, code, "sent");
            }
            State::Failed => {
                self.end.failed += 1;
                tracing::error!(%route, %file, %id, attempts = entry.attempt, code, why, "failed: see the .why.txt beside it in failed/");
            }
            State::Held => {
                self.end.held += 1;
                tracing::error!(%route, %file, %id, attempts = entry.attempt, code, why, "held: a person decides; see the .why.txt beside it in held/");
            }
            State::Missing => {
                self.end.missing += 1;
                tracing::error!(%route, %file, %id, why, "missing: somebody took it away while it was on its way; `patchdrop explain` tells what is known");
            }
            State::Cancelled => {
                tracing::debug!(%route, %file, %id, code, "claim cancelled, nothing was sent");
            }
            State::Sending | State::Deferred | State::Confirming => {}
        }
        if entry.state == State::Failed {
            self.order_after(entry);
        }
        self.name_is_free(entry);
    }

    /// Whoever waits in the folder for this name is looked at.
    pub(super) fn name_is_free(&mut self, entry: &Entry) {
        let inbox = self.equipped.get(&entry.route).map(|equipped| &equipped.route.folders.inbox);
        if let Some(intake) = inbox.and_then(|inbox| self.intakes.get_mut(inbox))
            && (intake.has_same_name() || entry.state == State::Cancelled)
        {
            intake.touch();
        }
    }

    /// Parks an unsettled entry, due when the record says, but never later than the route's longest
    /// wait: the wall clock may have jumped since.
    pub(super) fn park_entry(&mut self, entry: &Entry, now: Now) {
        let Some(equipped) = self.equipped.get(&entry.route) else { return };
        let due_at = entry.due_at.unwrap_or(now.wall);
        let wait = due_at.since(now.wall).min(equipped.route.retry.max);
        let delivered_at = self.delivered_at.get(&entry.route);
        let refused = match (entry.unspent_since, delivered_at) {
            (None, _) => Refused::Never,
            (Some(since), Some(delivered_at)) if *delivered_at > since => Refused::BeforeDelivery,
            (Some(_), _) => Refused::SinceDelivery,
        };
        let in_doubt = equipped.route.in_doubt;
        // Whoever pauses a route, a file that a person has to decide about is in `held/` meanwhile.
        let is_to_be_held = in_doubt == InDoubt::Hold
            && entry.attempt_open_since.is_some()
            && self.ctx.world.ledger().had_begun(entry.id, entry.attempt) != Some(false);
        let errand = if is_to_be_held { Errand::Finish } else { runs::errand(entry, in_doubt) };
        self.schedule.parked_on_record(
            entry.id,
            &entry.route,
            &entry.name,
            entry.waited_for,
            refused,
            (wait, errand),
            now.tick,
        );
    }
}

impl<W: World> Daemon<W> {
    /// Routes that start the same flow as this one, itself among them.
    fn routes_of_flow(&self, equipped: &Equipped) -> Vec<RouteName> {
        let flow_of = |route: &Route| {
            let flow = route.deliver.flow.as_ref()?;
            Some((Arc::clone(&flow.core_host), Arc::clone(&flow.id)))
        };
        let Some(flow) = flow_of(&equipped.route) else { return Vec::new() };
        let routes = self.equipped.values().map(|other| &other.route);
        let same = routes.filter(|route| flow_of(route).as_ref() == Some(&flow));
        same.map(|route| route.name.clone()).collect()
    }

    fn asking_goes_on(&mut self, route: &RouteName) {
        if self.asking_faults.remove(route).is_some() {
            tracing::info!(%route, "runs can be asked for again");
        }
    }

    /// Remembers how often was asked; one line when asking begins or ceases to fail.
    fn has_asked(&mut self, id: FileId, asked: Asked) {
        let Asked { known, failed, route, .. } = asked;
        self.asked.insert(id, known);
        match failed {
            None => self.asking_goes_on(&route),
            Some(cause) => {
                let before = self.asking_faults.insert(route.clone(), cause.clone());
                if before.is_none_or(|before| before.code != cause.code) {
                    let (code, why) = (&cause.code, &cause.plain);
                    tracing::warn!(%route, %code, %why, "runs cannot be asked for; files that were accepted or are in doubt wait in sending/, nothing is sent twice, and patchdrop goes on asking: check core_url and that the credential may read runs");
                }
            }
        }
    }
}

/// One line for each change of state.
pub(super) fn say(change: &Change) {
    match change {
        Change::RoutePaused(route, cause) => {
            let remedy = send::remedy(cause, Some(route));
            let (code, why) = (&cause.code, &cause.plain);
            tracing::error!(%route, %code, %why, "route paused, files wait: {remedy}");
        }
        Change::RouteResumed(route) => tracing::info!(%route, "route goes on"),
        Change::DestinationPaused(destination, cause) => {
            let remedy = send::remedy(cause, None);
            let (code, why) = (&cause.code, &cause.plain);
            tracing::error!(%destination, %code, %why, "destination paused, files wait, one probes from time to time: {remedy}");
        }
        Change::DestinationResumed(destination) => {
            tracing::info!(%destination, "destination goes on");
        }
        Change::DestinationPaced(destination, rate) => {
            let (requests, per) = (rate.count, settle::spoken(rate.per));
            tracing::info!(%destination, requests, per, "destination paced: its limit is known from its answers and kept to");
        }
        Change::DestinationWaits(destination, wait) => {
            let wait_for = settle::spoken(*wait);
            tracing::warn!(%destination, wait_for, "destination asks for fewer requests, files wait as long as it says and go on by themselves");
        }
    }
}
