//! What became of runs: one question to the Core API for one file in `sending/`, and what follows.
//! Nothing is sent from here (promises P3, P4 and P6).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::carry::{Carried, Context, Equipped, Report, Stumble, decide, sending_place};
use super::resume::resume;
use crate::journey::runs::{
    self, Confirmed, Errand, FIRST_LOOK_AFTER, Look, Looked, PAGES_MAX, Run, Told,
};
use crate::journey::send;
use crate::model::exchange::{Reply, Request, Token};
use crate::model::file::FileId;
use crate::model::outcome::{Cause, Code};
use crate::model::route::{Flow, Route, RouteName};
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

/// How long a look at runs waits after one that could not be had.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Clocks that differ by less are the same.
const SAME_CLOCK: i64 = 4_000;

/// What is known of the questions asked for a file, as long as the process lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Questions in a row that came to nothing.
    failures: u32,
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

/// Asks what became of a file that waits for it. `siblings` are the routes of the same flow.
pub(super) async fn ask<W: World>(
    ctx: &Arc<Context<W>>,
    equipped: &Arc<Equipped>,
    id: FileId,
    known: Known,
    siblings: Vec<RouteName>,
) -> Report {
    match ask_entry(ctx, equipped, id, known, siblings).await {
        Ok(report) => report,
        Err(stumble) => Report::Stumbled(id, stumble),
    }
}

async fn ask_entry<W: World>(
    ctx: &Arc<Context<W>>,
    equipped: &Arc<Equipped>,
    id: FileId,
    known: Known,
    siblings: Vec<RouteName>,
) -> Result<Report, Stumble> {
    let route = &equipped.route;
    let Some(entry) = ctx.world.ledger().entry(id).await? else { return Ok(Report::Left(None)) };
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
    let Some(flow) = &route.deliver.flow else { return Ok(no_flow(ctx, equipped, entry).await) };
    match runs::errand(&entry, route) {
        Errand::Attempt => Ok(resume(ctx, equipped, id).await),
        Errand::Confirm => Ok(confirm(ctx, equipped, flow, entry, known).await),
        Errand::LookUp => look_up(ctx, equipped, flow, entry, known, siblings).await,
    }
}

/// The route has become another kind since the file was accepted.
async fn no_flow<W: World>(
    ctx: &Arc<Context<W>>,
    equipped: &Arc<Equipped>,
    entry: Entry,
) -> Report {
    let plain = "accepted, unconfirmed: its route starts no flow any more";
    let cause = Cause::new(Code::of("unconfirmed"), plain);
    let carried = Box::new(Carried::of(entry));
    decide(ctx, equipped, carried, None, None, (State::Sent, cause)).await
}

async fn confirm<W: World>(
    ctx: &Arc<Context<W>>,
    equipped: &Arc<Equipped>,
    flow: &Flow,
    entry: Entry,
    known: Known,
) -> Report {
    let route = &equipped.route;
    let carried = |entry| Box::new(Carried::of(entry));
    let (Some(rules), Some(run)) = (flow.confirm, entry.run.clone()) else {
        // The route does not ask for runs any more: its acceptance is what counts.
        let cause = Cause::new(Code::of("unconfirmed"), "accepted, unconfirmed");
        return decide(ctx, equipped, carried(entry), None, None, (State::Sent, cause)).await;
    };
    let request = |token: Option<&Token>| runs::run_request(&route.deliver, flow, &run, token);
    let told = question(ctx, route, request, runs::run_told).await;
    let failed = why_not(&told);
    let failures = if failed.is_some() { known.failures.saturating_add(1) } else { 0 };
    let (now, dice) = (ctx.world.clock().now().wall, ctx.world.clock().dice());
    match runs::confirm(&entry, &rules, &told, failures, now, dice) {
        Confirmed::AskAgain(wait) => Report::Asked(Asked {
            route: route.name.clone(),
            wait,
            errand: Errand::Confirm,
            known: Known { failures, ..known },
            failed,
        }),
        Confirmed::Settle { state, cause } => {
            let has_reason = state == State::Failed;
            let excerpt = if has_reason { reason(ctx, route, flow, &run).await } else { None };
            let cause = cause.with_excerpt(excerpt);
            decide(ctx, equipped, carried(entry), None, None, (state, cause)).await
        }
    }
}

/// What the run's log says last; for the sidecar alone, since it may hold content.
async fn reason<W: World>(
    ctx: &Arc<Context<W>>,
    route: &Route,
    flow: &Flow,
    run: &str,
) -> Option<String> {
    let request = |token: Option<&Token>| runs::log_request(&route.deliver, flow, run, token);
    let read = |reply: &Reply, _| Told::Answer(runs::log_told(reply));
    match question(ctx, route, request, read).await {
        Told::Answer(reason) => reason,
        Told::TokenRefused(_) | Told::Later { .. } | Told::Refused(_) => None,
    }
}

/// Looks the flow's runs up: was the attempt without an answer accepted?
async fn look_up<W: World>(
    ctx: &Arc<Context<W>>,
    equipped: &Arc<Equipped>,
    flow: &Flow,
    entry: Entry,
    known: Known,
    siblings: Vec<RouteName>,
) -> Result<Report, Stumble> {
    let route = &equipped.route;
    let now = ctx.world.clock().now().wall;
    let history = ctx.world.ledger().history(entry.id).await?;
    let last = history.and_then(|history| history.attempts.last().cloned());
    let Some(Attempt { begun_at, ended_at, .. }) = last else {
        return Ok(resume(ctx, equipped, entry.id).await);
    };
    let ended_at = ended_at.unwrap_or(now);
    let since_end = now.since(ended_at);
    let again = |wait, known, failed| {
        let (route, errand) = (route.name.clone(), Errand::LookUp);
        Ok(Report::Asked(Asked { route, wait, errand, known, failed }))
    };
    if since_end < FIRST_LOOK_AFTER {
        return again(FIRST_LOOK_AFTER.saturating_sub(since_end), known, None);
    }
    let ours = runs::window(begun_at, ended_at);
    let listed = match list_runs(ctx, route, flow, ours).await {
        Ok(listed) => listed,
        Err(told) => {
            let failures = known.failures.saturating_add(1);
            let why = why_not(&told)
                .unwrap_or_else(|| Cause::new(Code::of("runs-not-understood"), "no answer"));
            let is_final = matches!(told, Told::Refused(_)) && failures >= REFUSALS_MAX
                || entry.waited_for + since_end >= route.retry.give_up_after;
            if is_final {
                let (id, plain) = (&flow.id, &why.plain);
                let plain = format!("the runs of flow {id} could not be looked up: {plain}");
                let cause = Cause::new(Code::of("run-not-looked-up"), plain);
                return Ok(hold(ctx, equipped, entry, cause).await);
            }
            let asked = match told {
                Told::Later { retry_after, .. } => retry_after.unwrap_or_default(),
                Told::Answer(()) | Told::TokenRefused(_) | Told::Refused(_) => Duration::ZERO,
            };
            let wait = runs::again(LOOK_EVERY, failures - 1, asked, ctx.world.clock().dice());
            return again(wait, Known { failures, ..known }, Some(why));
        }
    };
    let ids = listed.runs.iter().map(|run| run.id.clone()).collect();
    let owners = ctx.world.ledger().files_of_runs(ids).await?;
    let of_others: BTreeSet<String> =
        owners.into_iter().filter(|(_, file)| *file != entry.id).map(|(run, _)| run).collect();
    let attempted = ctx.world.ledger().attempted_between(siblings, ours.0, ours.1).await?;
    let look = Look {
        runs: &listed.runs,
        is_whole: listed.is_whole,
        window: listed.window,
        of_others: &of_others,
        others_attempted: attempted.iter().any(|file| *file != entry.id),
        is_second: known.looks > 0,
        since_end,
    };
    match runs::look(flow, &look) {
        Looked::LookAgain(wait) => again(wait, Known { failures: 0, looks: known.looks + 1 }, None),
        Looked::SendAgain => send_again(ctx, flow, entry).await,
        Looked::Accepted(run) => Ok(found(ctx, equipped, flow, entry, run).await),
        Looked::Hold(cause) => Ok(hold(ctx, equipped, entry, cause).await),
    }
}

/// What is put on record about a file that a person decides.
async fn hold<W: World>(
    ctx: &Arc<Context<W>>,
    equipped: &Arc<Equipped>,
    entry: Entry,
    cause: Cause,
) -> Report {
    let last = entry.cause.as_ref().map(|last| last.plain.clone()).unwrap_or_default();
    let cause = Cause { plain: format!("{}; the attempt: {last}", cause.plain), ..cause };
    let carried = Box::new(Carried::of(entry));
    decide(ctx, equipped, carried, None, None, (State::Held, cause)).await
}

async fn send_again<W: World>(
    ctx: &Arc<Context<W>>,
    flow: &Flow,
    entry: Entry,
) -> Result<Report, Stumble> {
    let at = ctx.world.clock().now().wall;
    let text = format!(
        "the runs of flow {} were looked up twice after attempt {}: none can be this file's, so it is sent again",
        flow.id, entry.attempt
    );
    let step = Step::Noted { id: entry.id, at, text };
    ctx.world.ledger().commit(vec![step]).await?;
    Ok(Report::Resumed(Box::new(Carried::of(entry))))
}

/// The attempt was accepted after all.
async fn found<W: World>(
    ctx: &Arc<Context<W>>,
    equipped: &Arc<Equipped>,
    flow: &Flow,
    entry: Entry,
    run: String,
) -> Report {
    let at = ctx.world.clock().now().wall;
    let id = entry.id;
    let plain =
        format!("accepted: run {run} of flow {} is that of the attempt without an answer", flow.id);
    let wait = flow.confirm.map_or(Duration::ZERO, |confirm| confirm.every);
    let accepted = Step::Accepted { id, attempt: None, run: Some(run), at, due_at: at.plus(wait) };
    let noted = Step::Noted { id, at, text: plain.clone() };
    if flow.confirm.is_some() {
        return match ctx.world.ledger().commit(vec![accepted, noted]).await {
            Ok(()) => Report::Parked(wait, Errand::Confirm),
            Err(error) => Report::Stumbled(id, error.into()),
        };
    }
    let cause = Cause::new(Code::of("run-found"), plain);
    let carried = Box::new(Carried::of(entry));
    decide(ctx, equipped, carried, Some(accepted), None, (State::Sent, cause)).await
}

/// A flow's runs of a span of time.
struct Listed {
    runs: Vec<Run>,
    is_whole: bool,
    /// The span by the server's clock.
    window: (Wall, Wall),
}

async fn list_runs<W: World>(
    ctx: &Arc<Context<W>>,
    route: &Route,
    flow: &Flow,
    ours: (Wall, Wall),
) -> Result<Listed, Told<()>> {
    let margin = Duration::from_millis(SAME_CLOCK.unsigned_abs());
    let wide = |(from, to): (Wall, Wall)| (from.minus(margin), to.plus(margin));
    let mut span = wide(ours);
    let mut may_correct = true;
    'span: loop {
        let mut listed = Listed { runs: Vec::new(), is_whole: false, window: ours };
        for page in 1..=PAGES_MAX {
            let request =
                |token: Option<&Token>| runs::runs_request(&route.deliver, flow, span, page, token);
            let told = question(ctx, route, request, runs::runs_told).await;
            let found = match told {
                Told::Answer(found) => found,
                Told::TokenRefused(cause) => return Err(Told::TokenRefused(cause)),
                Told::Later { cause, retry_after } => {
                    return Err(Told::Later { cause, retry_after });
                }
                Told::Refused(cause) => return Err(Told::Refused(cause)),
            };
            let now = ctx.world.clock().now().wall;
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

/// One question, with the route's credential; once more with a fresh token if that was refused.
async fn question<W: World, T>(
    ctx: &Arc<Context<W>>,
    route: &Route,
    request: impl Fn(Option<&Token>) -> Request,
    read: impl Fn(&Reply, Wall) -> Told<T>,
) -> Told<T> {
    let credential = route.deliver.credential.as_ref();
    let mut token = match credential {
        Some(credential) => match ctx.world.tokens().current(credential).await {
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
        let secrets = send::secrets_in(&request);
        let reply = send::without_secrets(ctx.world.endpoint().send(request).await, &secrets);
        let told = read(&reply, ctx.world.clock().now().wall);
        let (Told::TokenRefused(_), Some(credential), Some(refused), true) =
            (&told, credential, &token, may_refresh)
        else {
            return told;
        };
        may_refresh = false;
        match ctx.world.tokens().refresh(credential, refused.generation).await {
            Ok(newer) if newer.generation > refused.generation => token = Some(newer),
            Ok(_) | Err(_) => return told,
        }
    }
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
