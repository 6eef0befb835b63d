//! Runs of flows, and what the Core API says of them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::State;
use super::answer::{Cut, Response, invalid, json_answer, message, not_found, wrong_method};
use super::body::Wanted;
use super::caller::{self, Takes};
use super::door::Visit;
use super::options::{IdForm, RunEnd, RunForm, TimeForm};
use super::rules::Act;
use super::text::{is_number, pairs};

/// Most runs on one page, as the specification of at least one list has it.
const PER_PAGE_MAX: u64 = 100;
/// Runs on one page when nothing is asked for: Laravel's own.
const PER_PAGE: u64 = 15;
/// Status 1: it has begun, or waits.
const STARTED: i64 = 1;

/// One run of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// Its number.
    pub id: u64,
    /// The flow.
    pub flow: Box<str>,
    /// The version asked for.
    pub version: Option<Box<str>>,
    /// The virtual environment asked for.
    pub environment: Option<Box<str>>,
    /// `API` or `Manual`.
    pub trigger: &'static str,
    /// When it begins, in milliseconds since 1970. Until then no list has it.
    pub begins_at_ms: u64,
    /// When it ends, unless it never does.
    pub ends_at_ms: u64,
    /// How it ends.
    pub ends: RunEnd,
    /// Why it fails, for its log.
    pub reason: Option<Box<str>>,
}

impl Run {
    /// Whether it has ended by then.
    #[must_use]
    pub fn is_over(&self, now_ms: u64) -> bool {
        self.ends != RunEnd::Never && now_ms >= self.ends_at_ms
    }

    fn status(&self, now_ms: u64) -> i64 {
        match self.ends {
            _ if !self.is_over(now_ms) => STARTED,
            RunEnd::Success => 2,
            RunEnd::Failure => 3,
            RunEnd::Stopped => 4,
            RunEnd::Partial => 5,
            RunEnd::Status(status) => status,
            RunEnd::Never | RunEnd::Missing => STARTED,
        }
    }
}

/// The time, in milliseconds since 1970.
pub(super) fn now_millis() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Begins a run; its number.
pub(super) fn begin(
    state: &State,
    flow: &str,
    version: Option<&str>,
    environment: Option<&str>,
    trigger: &'static str,
    act: &Act,
) -> u64 {
    let options = &state.options.start;
    let (queue, takes) = (millis(options.run_queue_delay), millis(options.run_takes));
    let (ends, queue, takes, reason) =
        if let Act::Run { ends, queue_millis, takes_millis, reason } = act {
            let reason = reason.as_deref().map(Box::from);
            (*ends, queue_millis.unwrap_or(queue), takes_millis.unwrap_or(takes), reason)
        } else {
            (options.run_ends, queue, takes, None)
        };
    let begins_at_ms = now_millis().saturating_add(queue);
    let mut inner = state.inner();
    inner.seen.runs_started += 1;
    let id = state.runs_from + inner.seen.runs_started;
    let run = Run {
        id,
        flow: Box::from(flow),
        version: version.map(Box::from),
        environment: environment.map(Box::from),
        trigger,
        begins_at_ms,
        ends_at_ms: begins_at_ms.saturating_add(takes),
        ends,
        reason,
    };
    if inner.runs.len() < state.options.payloads_max {
        inner.runs.push(run);
    }
    id
}

/// Ends every run that has not ended; says how many.
pub(super) fn end_all(state: &State, ends: RunEnd, reason: Option<&str>) -> usize {
    let now = now_millis();
    let mut inner = state.inner();
    let mut count = 0;
    for run in inner.runs.iter_mut().filter(|run| !run.is_over(now)) {
        run.begins_at_ms = run.begins_at_ms.min(now);
        (run.ends_at_ms, run.ends, run.reason) = (now, ends, reason.map(Box::from));
        count += 1;
    }
    count
}

pub(super) async fn answer(
    visit: &Visit<'_>,
    rest: &[&str],
    body: Incoming,
) -> Result<Response, Cut> {
    const BODY_MAX_BYTES: u64 = 1024 * 1024;
    let turned_away = if !matches!(rest, [] | [_] | [_, "flow-run-logs"]) {
        Some(not_found())
    } else if visit.head.method != Method::GET {
        Some(wrong_method("GET"))
    } else {
        caller::refuse(visit.state, visit.head, Takes::Core)
    };
    if let Some(answer) = turned_away.or_else(|| visit.too_early()) {
        return visit.turn_away(body, BODY_MAX_BYTES, answer).await;
    }
    let wanted = Wanted { bytes_max: Some(BODY_MAX_BYTES), ..Wanted::default() };
    visit.serve(body, wanted, |_, _| found(visit, rest)).await
}

/// What is asked for: a list, a run, or its log.
fn found(visit: &Visit<'_>, rest: &[&str]) -> Response {
    let now = now_millis();
    let [id, rest @ ..] = rest else {
        return list(visit, now).unwrap_or_else(|refusal| refusal);
    };
    let may_wait = visit.state.options.start.queued_runs_are_found;
    let inner = visit.state.inner();
    let is_it = |run: &&Run| {
        run.id.to_string() == *id
            && run.ends != RunEnd::Missing
            && (may_wait || now >= run.begins_at_ms)
    };
    let Some(run) = inner.runs.iter().find(is_it).cloned() else { return not_found() };
    drop(inner);
    let body = if rest.is_empty() {
        json!({ "data": resource(visit.state, &run, now) })
    } else {
        json!({ "data": log(visit.state, &run, now) })
    };
    json_answer(StatusCode::OK, &body)
}

/// What may be asked of the list.
struct Asked {
    filters: BTreeMap<String, String>,
    started_after: u64,
    started_before: u64,
    sort: String,
    page: u64,
    per_page: u64,
}

impl Asked {
    const FILTERS: [&str; 7] = [
        "flow_id",
        "flow_version_id",
        "virtual_environment_id",
        "status",
        "trigger",
        "started_after",
        "started_before",
    ];

    /// # Errors
    /// The answer to a query that is not understood.
    fn of(query: &str) -> Result<Self, Response> {
        let query = pairs(query);
        let mut filters = BTreeMap::new();
        for (name, value) in &query {
            let Some(name) = name.strip_prefix("filter[").and_then(|it| it.strip_suffix(']'))
            else {
                continue;
            };
            if !Self::FILTERS.contains(&name) {
                let text = format!(
                    "Requested filter(s) `{name}` are not allowed. Allowed filter(s) are `{}`.",
                    Self::FILTERS.join(", ")
                );
                return Err(message(StatusCode::BAD_REQUEST, &text));
            }
            filters.insert(name.to_owned(), value.clone());
        }
        let sort = query.get("sort").map_or("id", String::as_str);
        if !["id", "started_at"].contains(&sort.trim_start_matches('-')) {
            let text = format!("Requested sort(s) `{sort}` is not allowed.");
            return Err(message(StatusCode::BAD_REQUEST, &text));
        }
        let number = |name: &'static str, text: Option<&String>, default: u64| match text {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|_| invalid(&[(name, format!("The {name} field must be an integer."))])),
        };
        let asked = Self {
            started_after: number("started_after", filters.get("started_after"), 0)?,
            started_before: number("started_before", filters.get("started_before"), u64::MAX)?,
            sort: sort.to_owned(),
            page: number("page", query.get("page"), 1)?.max(1),
            per_page: number("per_page", query.get("per_page"), PER_PAGE)?.max(1),
            filters,
        };
        if asked.per_page > PER_PAGE_MAX {
            let text = format!("The per page field must not be greater than {PER_PAGE_MAX}.");
            return Err(invalid(&[("per_page", text)]));
        }
        Ok(asked)
    }

    fn fits(&self, run: &Run, now: u64) -> bool {
        let is = |name: &str, value: Option<&str>| {
            self.filters.get(name).is_none_or(|wanted| Some(wanted.as_str()) == value)
        };
        run.ends != RunEnd::Missing
            && now >= run.begins_at_ms
            && (self.started_after..=self.started_before).contains(&run.begins_at_ms)
            && is("flow_id", Some(&run.flow))
            && is("flow_version_id", run.version.as_deref())
            && is("virtual_environment_id", run.environment.as_deref())
            && is("status", Some(&run.status(now).to_string()))
            && is("trigger", Some(run.trigger))
    }
}

/// # Errors
/// The answer to a query that is not understood.
fn list(visit: &Visit<'_>, now: u64) -> Result<Response, Response> {
    let asked = Asked::of(visit.head.uri.query().unwrap_or_default())?;
    let mut runs: Vec<Run> = {
        let inner = visit.state.inner();
        inner.runs.iter().filter(|run| asked.fits(run, now)).cloned().collect()
    };
    if asked.sort.ends_with("started_at") {
        runs.sort_by_key(|run| (run.begins_at_ms, run.id));
    }
    if asked.sort.starts_with('-') {
        runs.reverse();
    }
    let Asked { page, per_page, .. } = asked;
    let total = runs.len() as u64;
    let last = total.div_ceil(per_page).max(1);
    let skipped = (page - 1).saturating_mul(per_page);
    let shown: Vec<Value> = runs
        .iter()
        .skip(usize::try_from(skipped).unwrap_or(usize::MAX))
        .take(usize::try_from(per_page).unwrap_or(usize::MAX))
        .map(|run| resource(visit.state, run, now))
        .collect();
    let count = shown.len() as u64;
    let path = visit.path;
    let link = |page: u64| format!("{path}?page={page}");
    let body = json!({
        "data": shown,
        "meta": {
            "current_page": page,
            "last_page": last,
            "per_page": per_page,
            "total": total,
            "from": (count > 0).then_some(skipped + 1),
            "to": (count > 0).then_some(skipped + count),
            "path": path,
        },
        "links": {
            "first": link(1),
            "last": link(last),
            "prev": (page > 1).then(|| link(page - 1)),
            "next": (page < last).then(|| link(page + 1)),
        },
    });
    Ok(json_answer(StatusCode::OK, &body))
}

/// A run as JSON.
fn resource(state: &State, run: &Run, now: u64) -> Value {
    let has_begun = now >= run.begins_at_ms;
    let fields = json!({
        "flow_id": id(state, &run.flow),
        "flow_version_id": run.version.as_deref().map(|text| id(state, text)),
        "virtual_environment_id": run.environment.as_deref().map(|text| id(state, text)),
        "trigger": run.trigger,
        "status": run.status(now),
        "started_at": has_begun.then(|| time(state, run.begins_at_ms)),
        "finished_at": run.is_over(now).then(|| time(state, run.ends_at_ms)),
    });
    formed(state, "flow-runs", run.id, fields)
}

/// The log of a run.
fn log(state: &State, run: &Run, now: u64) -> Vec<Value> {
    let mut lines = Vec::new();
    if now >= run.begins_at_ms {
        lines.push(("INFO", "Flow run started.", run.begins_at_ms));
    }
    if run.is_over(now) {
        let reason = run.reason.as_deref();
        let (level, text) = match run.ends {
            RunEnd::Failure => ("ERROR", reason.unwrap_or("A step of the flow failed.")),
            RunEnd::Partial => ("ERROR", reason.unwrap_or("Some payloads failed.")),
            RunEnd::Stopped => ("WARNING", reason.unwrap_or("Flow run stopped by a user.")),
            RunEnd::Success | RunEnd::Never | RunEnd::Missing | RunEnd::Status(_) => {
                ("INFO", reason.unwrap_or("Flow run completed."))
            }
        };
        lines.push((level, text, run.ends_at_ms));
    }
    let entry = |(number, (level, text, at)): (u64, (&str, &str, u64))| {
        let fields = json!({
            "flow_run_id": id(state, &run.id.to_string()),
            "flow_step_id": Value::Null,
            "log_level": level,
            "log_message": text,
            "created_at": time(state, at),
        });
        formed(state, "flow-run-logs", run.id.saturating_mul(10) + number, fields)
    };
    (1..).zip(lines).map(entry).collect()
}

/// A resource in the form that is wanted.
fn formed(state: &State, kind: &str, number: u64, fields: Value) -> Value {
    let number = id(state, &number.to_string());
    match state.options.start.run_form {
        RunForm::Attributes => json!({ "type": kind, "id": number, "attributes": fields }),
        RunForm::Flat => {
            let mut flat = json!({ "id": number });
            if let (Some(flat), Value::Object(fields)) = (flat.as_object_mut(), fields) {
                flat.extend(fields);
            }
            flat
        }
    }
}

fn id(state: &State, text: &str) -> Value {
    match state.options.start.run_ids {
        IdForm::Number if is_number(text) => text.parse::<u64>().map_or(json!(text), Value::from),
        IdForm::Number | IdForm::Text => json!(text),
    }
}

fn time(state: &State, at_ms: u64) -> Value {
    match state.options.start.run_times {
        TimeForm::Millis => json!(at_ms),
        TimeForm::Iso => {
            let at = i64::try_from(at_ms)
                .ok()
                .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok().map(|at| at.to_string()));
            json!(at)
        }
    }
}
