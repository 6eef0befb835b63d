//! What became of runs: one question to the Core API for one file in `sending/`, and what follows.
//! Nothing is sent from here (promises P3, P4 and P6).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::carry::{Carried, Context, Equipped, Report, Stumble, decide, sending_place};
use super::resume::resume;
use crate::journey::pace::Heard;
use crate::journey::runs::{
    self, Confirmed, Errand, FIRST_LOOK_AFTER, Look, Looked, PAGES_MAX, Progress, Run, Told,
};
use crate::journey::send;
use crate::model::blot::Blotter;
use crate::model::exchange::{Reply, Request, Token};
use crate::model::file::{FileId, shown};
use crate::model::outcome::{Cause, Code};
use crate::model::route::{Flow, InDoubt, RouteName};
use crate::model::secret::Secret;
use crate::model::step::{Attempt, Entry, State, Step};
use crate::model::time::Wall;
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::endpoint::Endpoint;
use crate::world::folder::Disk;
use crate::world::ledger::Ledger;
use crate::world::token::Tokens;

/// A flow's runs that could not be looked up for a reason that does not pass by itself are asked
/// for this often before a person decides.
const REFUSALS_MAX: u32 = 3;

/// After so many answers in a row that say nothing of a run it is said.
const STRANGE_SAID_AT: u32 = 5;

/// How long a look at runs waits after one that could not be had.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Clocks that differ by less are the same.
const SAME_CLOCK: i64 = 4_000;

/// What is known of the questions asked for a file, as long as the process lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Questions in a row that came to nothing.
    failures: u32,
    /// Answers in a row that say nothing of the run: it is not there, or its status is strange.
    strange: u32,
    /// Looks at the flow's runs that found none that fits.
    looks: u32,
}

/// A question was asked, and another follows.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) route: RouteName,
    pub(super) wait: Duration,
    pub(super) errand: Errand,
    pub(super) known: Known,
    /// Why it came to nothing, if it did.
    pub(super) failed: Option<Cause>,
}

/// Asks what became of a file that waits for it, and what the last answer says about the server's
/// pace. `siblings` are the routes of the same flow.
pub(super) async fn ask<W: World>(
    ctx: &Arc<Context<W>>,
    equipped: &Arc<Equipped>,
    id: FileId,
    known: Known,
    siblings: Vec<RouteName>,
) -> Answered {
    let mut desk = Desk {
        ctx,
        equipped,
        known,
        heard: Heard::default(),
        is_understood: false,
        secrets: Vec::new(),
    };
    let report = match desk.ask(id, siblings).await {
        Ok(report) => report,
        Err(stumble) => Report::Stumbled(id, stumble),
    };
    Answered { report, heard: desk.heard, is_understood: desk.is_understood }
}

/// What a question came to.
pub(super) struct Answered {
    pub(super) report: Report,
    /// What the last answer says about the server's pace.
    pub(super) heard: Heard,
    /// Whether it was an answer to the question.
    pub(super) is_understood: bool,
}

/// Where one file's questions are asked.
struct Desk<'a, W: World> {
    ctx: &'a Arc<Context<W>>,
    equipped: &'a Arc<Equipped>,
    known: Known,
    heard: Heard,
    /// The last answer was one to the question.
    is_understood: bool,
    /// Those of the last request.
    secrets: Vec<Secret>,
}

impl<W: World> Desk<'_, W> {
    async fn ask(&mut self, id: FileId, siblings: Vec<RouteName>) -> Result<Report, Stumble> {
        let (ctx, equipped) = (self.ctx, self.equipped);
        let route = &equipped.route;
        let Some(entry) = ctx.world.ledger().entry(id).await? else {
            return Ok(Report::Left(None));
        };
        let seen = ctx.world.disk().look(sending_place(route, &entry)).await?;
        let is_there = seen.is_some_and(|seen| seen.identity.is_same(&entry.identity));
        let is_open = entry.attempt_open_since.is_some() || entry.decided_at.is_some();
        if !is_there || is_open {
            // The record and the disk do not agree, or it is not a question that comes next.
            let report = resume(ctx, equipped, id).await;
            if !matches!(report, Report::Parked(_, Errand::Confirm | Errand::LookUp)) {
                return Ok(report);
            }
        }
        let errand = runs::errand(&entry, route.in_doubt);
        match (errand, &route.deliver.flow) {
            (Errand::Attempt | Errand::Finish, _) => Ok(resume(ctx, equipped, id).await),
            (Errand::Confirm, Some(flow)) => Ok(self.confirm(flow, entry).await),
            (Errand::LookUp, Some(flow)) if route.in_doubt == InDoubt::Lookup => {
                self.look_up(flow, entry, siblings).await
            }
            (Errand::LookUp, _) => {
                let plain = "nobody has looked whether it was accepted, and its route does not look runs up any more";
                Ok(self.hold(entry, Cause::new(Code::of("run-not-looked-up"), plain)).await)
            }
            (Errand::Confirm, None) => {
                let plain = "accepted, unconfirmed: its route starts no flow any more";
                Ok(self.end(entry, None, State::Sent, unconfirmed(plain)).await)
            }
        }
    }

    /// Puts an end on record and goes there.
    async fn end(&self, entry: Entry, before: Option<Step>, state: State, cause: Cause) -> Report {
        let carried = Box::new(Carried::of(entry));
        decide(self.ctx, self.equipped, carried, before, None, (state, cause)).await
    }

    fn again(&self, errand: Errand, wait: Duration, failed: Option<Cause>) -> Report {
        let route = self.equipped.route.name.clone();
        Report::Asked(Asked { route, wait, errand, known: self.known, failed })
    }

    async fn confirm(&mut self, flow: &Flow, entry: Entry) -> Report {
        let delivery = &self.equipped.route.deliver;
        let (Some(rules), Some(run)) = (flow.confirm, entry.run.clone()) else {
            let plain = "accepted, unconfirmed: its route does not ask for runs any more";
            return self.end(entry, None, State::Sent, unconfirmed(plain)).await;
        };
        let request = |token: Option<&Token>| runs::run_request(delivery, flow, &run, token);
        let told = self.question(request, runs::run_told).await;
        let failed = why_not(&told);
        self.known.failures =
            if failed.is_some() { self.known.failures.saturating_add(1) } else { 0 };
        self.note_strange(&told, &entry);
        let (now, dice) = (self.ctx.world.clock().now().wall, self.ctx.world.clock().dice());
        match runs::confirm(&entry, &rules, &told, self.known.failures, now, dice) {
            Confirmed::AskAgain(wait) => self.again(Errand::Confirm, wait, failed),
            Confirmed::Settle { state, cause } => {
                let has_reason = state == State::Failed;
                let excerpt = if has_reason { self.reason(flow, &run).await } else { None };
                self.end(entry, None, state, cause.with_excerpt(excerpt)).await
            }
        }
    }

    /// Says once of a file that answers about its run say nothing: it would wait for long.
    fn note_strange(&mut self, told: &Told<Progress>, entry: &Entry) {
        let what = if *told == Told::Answer(Progress::NotThere) {
            "the Core API knows no such run"
        } else if matches!(told, Told::Answer(Progress::Unknown(_))) {
            "the status of its run is not understood"
        } else {
            self.known.strange = 0;
            return;
        };
        self.known.strange = self.known.strange.saturating_add(1);
        if self.known.strange == STRANGE_SAID_AT {
            let (route, file) = (&entry.route, shown(&entry.name));
            let run = entry.run.as_deref().unwrap_or_default();
            tracing::warn!(%route, %file, id = %entry.id, run, "{what}; the file is accepted and waits in sending/ until confirm_for ends: check core_url and run_id_field");
        }
    }

    /// What the run's log says last; for the sidecar alone, since it may hold content.
    async fn reason(&mut self, flow: &Flow, run: &str) -> Option<String> {
        let delivery = &self.equipped.route.deliver;
        let request = |token: Option<&Token>| runs::log_request(delivery, flow, run, token);
        let read = |reply: &Reply, _| Told::Answer(runs::log_told(reply));
        match self.question(request, read).await {
            Told::Answer(reason) => reason.map(|reason| {
                let clean = self.ctx.blotter.blot(&reason);
                Blotter::new(&self.secrets).blot(&clean).into_owned()
            }),
            Told::TokenRefused(_) | Told::Later { .. } | Told::Refused(_) => None,
        }
    }

    /// Looks the flow's runs up: was the attempt without an answer accepted?
    async fn look_up(
        &mut self,
        flow: &Flow,
        entry: Entry,
        siblings: Vec<RouteName>,
    ) -> Result<Report, Stumble> {
        let now = self.ctx.world.clock().now().wall;
        let ledger = self.ctx.world.ledger();
        let history = ledger.history(entry.id).await?;
        let last = history.and_then(|history| history.attempts.last().cloned());
        let Some(Attempt { begun_at, ended_at, .. }) = last else {
            return Ok(resume(self.ctx, self.equipped, entry.id).await);
        };
        let ended_at = ended_at.unwrap_or(now);
        let since_end = now.since(ended_at);
        if since_end < FIRST_LOOK_AFTER {
            let wait = FIRST_LOOK_AFTER.saturating_sub(since_end);
            return Ok(self.again(Errand::LookUp, wait, None));
        }
        let ours = runs::window(begun_at, ended_at);
        let listed = match self.list_runs(flow, ours).await {
            Ok(listed) => listed,
            Err(told) => return Ok(self.not_listed(flow, entry, &told, since_end).await),
        };
        let ids = listed.runs.iter().map(|run| run.id.clone()).collect();
        let owners = ledger.files_of_runs(ids).await?;
        let of_others: BTreeSet<String> =
            owners.into_iter().filter(|(_, file)| *file != entry.id).map(|(run, _)| run).collect();
        let attempted = ledger.attempted_between(siblings, ours.0, ours.1).await?;
        let look = Look {
            runs: &listed.runs,
            is_whole: listed.is_whole,
            window: listed.window,
            of_others: &of_others,
            others_attempted: attempted.iter().any(|file| *file != entry.id),
            is_second: self.known.looks > 0,
            since_end,
        };
        match runs::look(flow, &look) {
            Looked::LookAgain(wait) => {
                self.known = Known { looks: self.known.looks + 1, ..Known::default() };
                Ok(self.again(Errand::LookUp, wait, None))
            }
            Looked::SendAgain => self.send_again(flow, entry).await,
            Looked::Accepted(run) => Ok(self.found(flow, entry, run).await),
            Looked::Hold(cause) => Ok(self.hold(entry, cause).await),
        }
    }

    /// The flow's runs could not be had: they are asked for again, but not for ever.
    async fn not_listed(
        &mut self,
        flow: &Flow,
        entry: Entry,
        told: &Told<()>,
        since_end: Duration,
    ) -> Report {
        self.known.failures = self.known.failures.saturating_add(1);
        let why = why_not(told)
            .unwrap_or_else(|| Cause::new(Code::of("runs-not-understood"), "no answer"));
        let give_up_after = self.equipped.route.retry.give_up_after;
        let is_final = matches!(told, Told::Refused(_)) && self.known.failures >= REFUSALS_MAX
            || entry.waited_for + since_end >= give_up_after;
        if is_final {
            let (id, plain) = (&flow.id, &why.plain);
            let plain = format!("the runs of flow {id} could not be looked up: {plain}");
            return self.hold(entry, Cause::new(Code::of("run-not-looked-up"), plain)).await;
        }
        let asked = match told {
            Told::Later { retry_after, .. } => retry_after.unwrap_or_default(),
            Told::Answer(()) | Told::TokenRefused(_) | Told::Refused(_) => Duration::ZERO,
        };
        let dice = self.ctx.world.clock().dice();
        let wait = runs::again(LOOK_EVERY, self.known.failures - 1, asked, dice);
        self.again(Errand::LookUp, wait, Some(why))
    }

    /// What is put on record about a file that a person decides.
    async fn hold(&self, entry: Entry, cause: Cause) -> Report {
        let last = entry.cause.as_ref().map(|last| last.plain.clone()).unwrap_or_default();
        let cause = Cause { plain: format!("{}; the attempt: {last}", cause.plain), ..cause };
        self.end(entry, None, State::Held, cause).await
    }

    async fn send_again(&self, flow: &Flow, entry: Entry) -> Result<Report, Stumble> {
        let at = self.ctx.world.clock().now().wall;
        let text = format!(
            "the runs of flow {} were looked up twice after attempt {}: none can be this file's, so it is sent again",
            flow.id, entry.attempt
        );
        let step = Step::Noted { id: entry.id, at, text };
        self.ctx.world.ledger().commit(vec![step]).await?;
        Ok(Report::Resumed(Box::new(Carried::of(entry))))
    }

    /// The attempt was accepted after all.
    async fn found(&self, flow: &Flow, entry: Entry, run: String) -> Report {
        let at = self.ctx.world.clock().now().wall;
        let id = entry.id;
        let plain = format!(
            "accepted: run {run} of flow {} is that of the attempt without an answer",
            flow.id
        );
        let wait = flow.confirm.map_or(Duration::ZERO, |confirm| confirm.every);
        let due_at = at.plus(wait);
        let accepted = Step::Accepted { id, attempt: None, run: Some(run), at, due_at };
        if flow.confirm.is_none() {
            let cause = Cause::new(Code::of("run-found"), plain);
            return self.end(entry, Some(accepted), State::Sent, cause).await;
        }
        let noted = Step::Noted { id, at, text: plain };
        match self.ctx.world.ledger().commit(vec![accepted, noted]).await {
            Ok(()) => Report::Parked(wait, Errand::Confirm),
            Err(error) => Report::Stumbled(id, error.into()),
        }
    }

    async fn list_runs(&mut self, flow: &Flow, ours: (Wall, Wall)) -> Result<Listed, Told<()>> {
        let delivery = &self.equipped.route.deliver;
        let margin = Duration::from_millis(SAME_CLOCK.unsigned_abs());
        let wide = |(from, to): (Wall, Wall)| (from.minus(margin), to.plus(margin));
        let mut span = wide(ours);
        let mut may_correct = true;
        'span: loop {
            let mut listed = Listed { runs: Vec::new(), is_whole: false, window: ours };
            for page in 1..=PAGES_MAX {
                let request =
                    |token: Option<&Token>| runs::runs_request(delivery, flow, span, page, token);
                let found = match self.question(request, runs::runs_told).await {
                    Told::Answer(found) => found,
                    Told::TokenRefused(cause) => return Err(Told::TokenRefused(cause)),
                    Told::Later { cause, retry_after } => {
                        return Err(Told::Later { cause, retry_after });
                    }
                    Told::Refused(cause) => return Err(Told::Refused(cause)),
                };
                let now = self.ctx.world.clock().now().wall;
                listed.window = runs::by_server_clock(ours, found.server_now, now);
                let ahead = found.server_now.map_or(0, |server| server.0 - now.0);
                if may_correct && ahead.abs() > SAME_CLOCK {
                    // Its clock is not ours: what was asked for was another span.
                    may_correct = false;
                    span = wide(listed.window);
                    continue 'span;
                }
                listed.runs.extend(found.runs);
                if !found.has_more {
                    listed.is_whole = true;
                    break;
                }
            }
            return Ok(listed);
        }
    }

    /// One question, with the route's credential; once more with a fresh token if that was
    /// refused.
    async fn question<T>(
        &mut self,
        request: impl Fn(Option<&Token>) -> Request,
        read: impl Fn(&Reply, Wall) -> Told<T>,
    ) -> Told<T> {
        let world = &self.ctx.world;
        let credential = self.equipped.route.deliver.credential.as_ref();
        let mut token = match credential {
            Some(credential) => match world.tokens().current(credential).await {
                Ok(token) => Some(token),
                Err(refusal) => {
                    let (cause, retry_after) = (refusal.cause, refusal.retry_after);
                    return Told::Later { cause, retry_after };
                }
            },
            None => None,
        };
        let mut may_refresh = true;
        loop {
            let request = request(token.as_ref());
            self.secrets = send::secrets_in(&request);
            let reply = world.endpoint().send(request).await;
            let now = world.clock().now().wall;
            self.heard = send::heard(&reply, now);
            let told = read(&reply, now);
            self.is_understood = matches!(told, Told::Answer(_));
            if let (Told::Answer(_), Some(credential), Some(taken)) = (&told, credential, &token) {
                world.tokens().taken(credential, taken.generation);
            }
            let (Told::TokenRefused(_), Some(credential), Some(refused), true) =
                (&told, credential, &token, may_refresh)
            else {
                return told;
            };
            may_refresh = false;
            match world.tokens().refresh(credential, refused.generation).await {
                Ok(newer) if newer.generation > refused.generation => token = Some(newer),
                Ok(_) | Err(_) => return told,
            }
        }
    }
}

fn unconfirmed(plain: &str) -> Cause {
    Cause::new(Code::of("unconfirmed"), plain)
}

/// A flow's runs of a span of time.
struct Listed {
    runs: Vec<Run>,
    is_whole: bool,
    /// The span by the server's clock.
    window: (Wall, Wall),
}

/// Why a question came to nothing.
fn why_not<T>(told: &Told<T>) -> Option<Cause> {
    match told {
        Told::Answer(_) => None,
        Told::TokenRefused(cause) | Told::Refused(cause) | Told::Later { cause, .. } => {
            Some(cause.for_the_record())
        }
    }
}
