//! The Core API: how it is asked about runs, and what its answers mean.
//!
//! Wire facts: `GET {core_url}/flow-runs/{id}`, `GET {core_url}/flow-runs?filter[...]=...` and
//! `GET {core_url}/flow-runs/{id}/flow-run-logs`, statuses 1 to 5, resources under `data` with
//! their fields directly in them or under `attributes` (seen in two public clients). What else a
//! server says is not understood, and a run that is not understood has not ended.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::journey::send::{self, excerpt, field_of};
use crate::model::exchange::{Answer, Body, Reply, Request, Token, percent_encoded};
use crate::model::outcome::{Cause, Code};
use crate::model::route::{Delivery, Flow};
use crate::model::secret::Secret;
use crate::model::time::Wall;

/// Runs on one page of a listing; the API gives no more (documented for one list).
const PAGE_RUNS: usize = 100;

/// Pages that are read of one listing. More runs than that in two minutes are nobody's to tell
/// apart.
pub const PAGES_MAX: usize = 10;

/// Longest id of a run.
const RUN_ID_MAX: usize = 128;

/// A status that is longer than this is no status, and not shown.
const STATUS_SHOWN_MAX: usize = 16;

/// The id of the run that an accepting answer names, in the first of these fields that holds one.
#[must_use]
pub fn run_named(body: &Bytes, fields: &[String]) -> Option<String> {
    fields.iter().find_map(|field| id_of(&field_of(body, field)?))
}

/// Ids are integers in the documentation and texts in clients: they are kept as text.
fn id_of(value: &Value) -> Option<String> {
    let number = || value.as_number().filter(|number| number.is_i64() || number.is_u64());
    let text = value.as_str().map(|text| text.trim().to_owned());
    let text = text.or_else(|| number().map(ToString::to_string))?;
    let is_id =
        (1..=RUN_ID_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_id.then_some(text)
}

/// What the Core API says of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has not ended.
    Running,
    /// It is not there: not yet, where it was just started.
    NotThere,
    /// It succeeded.
    Succeeded,
    /// It succeeded in part.
    PartlySucceeded,
    /// It failed.
    Failed,
    /// It was stopped.
    Stopped,
    /// A status that is not understood, as it stands there.
    Unknown(String),
}

impl Progress {
    /// Statuses of the vendor's own client: 1 started, 2 success, 3 failure, 4 stopped, 5 partial
    /// success; the same in words.
    fn of(status: &Value) -> Self {
        let text = status.as_str().map_or_else(|| status.to_string(), str::to_owned);
        let text = text.trim().to_ascii_lowercase().replace(['_', '-'], " ");
        match text.as_str() {
            "1" | "started" | "running" | "pending" | "queued" => Self::Running,
            "2" | "success" | "succeeded" | "completed" => Self::Succeeded,
            "3" | "failure" | "failed" | "error" => Self::Failed,
            "4" | "stopped" | "cancelled" | "canceled" => Self::Stopped,
            "5" | "partial success" | "partially successful" | "partial" => Self::PartlySucceeded,
            _ => {
                let is_shown = text.len() <= STATUS_SHOWN_MAX
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b' ');
                Self::Unknown(if is_shown { text } else { "…".to_owned() })
            }
        }
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// When it started, by the server's clock; none where that is not understood.
    pub started_at: Option<Wall>,
    /// How it stands.
    pub progress: Progress,
}

impl Run {
    fn of(resource: &Value) -> Option<Self> {
        Some(Self {
            id: id_of(field(resource, "id")?)?,
            started_at: field(resource, "started_at").and_then(moment),
            progress: Progress::of(field(resource, "status")?),
        })
    }
}

/// A field of a resource: directly in it, or among its attributes.
fn field<'a>(resource: &'a Value, name: &str) -> Option<&'a Value> {
    resource.get(name).or_else(|| resource.get("attributes")?.get(name))
}

/// A moment as an API may write it: milliseconds or seconds since 1970, or a date and time, in UTC
/// where no offset is said.
fn moment(value: &Value) -> Option<Wall> {
    let digits = || value.as_str().and_then(|text| text.trim().parse().ok());
    if let Some(number) = value.as_i64().or_else(digits) {
        let is_millis = number.unsigned_abs() >= 100_000_000_000;
        return Some(Wall(if is_millis { number } else { number.checked_mul(1_000)? }));
    }
    let text = value.as_str()?.trim();
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Wall(at.as_millisecond()));
    }
    let civil = text.replacen(' ', "T", 1).parse::<jiff::civil::DateTime>().ok()?;
    let at = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Wall(at.timestamp().as_millisecond()))
}

/// The request that asks for one run.
#[must_use]
pub fn run_request(delivery: &Delivery, flow: &Flow, run: &str, token: Option<&Token>) -> Request {
    get(delivery, format!("{}/flow-runs/{}", flow.core_url, percent_encoded(run)), token)
}

/// The request for a run's log, newest line last.
#[must_use]
pub fn log_request(delivery: &Delivery, flow: &Flow, run: &str, token: Option<&Token>) -> Request {
    let run = percent_encoded(run);
    get(delivery, format!("{}/flow-runs/{run}/flow-run-logs?sort=id", flow.core_url), token)
}

/// The request for one page (from 1) of a flow's runs that started between two moments.
#[must_use]
pub fn runs_request(
    delivery: &Delivery,
    flow: &Flow,
    (from, to): (Wall, Wall),
    page: usize,
    token: Option<&Token>,
) -> Request {
    let url = format!(
        "{}/flow-runs?filter%5Bflow_id%5D={}&filter%5Bstarted_after%5D={}\
         &filter%5Bstarted_before%5D={}&sort=-started_at&page={page}&per_page={PAGE_RUNS}",
        flow.core_url,
        percent_encoded(&flow.id),
        from.0,
        to.0,
    );
    get(delivery, url, token)
}

fn get(delivery: &Delivery, url: String, token: Option<&Token>) -> Request {
    let mut headers = vec![("Accept".to_owned(), Secret::new("application/json"))];
    if let Some(token) = token {
        headers.push(("Authorization".to_owned(), token.authorization.clone()));
    }
    Request {
        method: "GET",
        url: Secret::new(url),
        headers,
        body: Body::Bytes(Bytes::new()),
        connect_timeout: delivery.connect_timeout,
        timeout: delivery.timeout,
    }
}

/// What a question to the Core API came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told<T> {
    /// An answer.
    Answer(T),
    /// The access token was refused.
    TokenRefused(Cause),
    /// No usable answer now; it may come later.
    Later {
        /// Why.
        cause: Cause,
        /// The server asks for a wait of at least this long.
        retry_after: Option<Duration>,
    },
    /// The API does not answer this, and will not by itself: URL or rights.
    Refused(Cause),
}

/// What an answer says of one run.
#[must_use]
pub fn run_told(reply: &Reply, now: Wall) -> Told<Progress> {
    let answer = match usable(reply, now) {
        Ok(answer) => answer,
        // A run that was just started may not be there yet.
        Err(Told::Refused(cause)) if cause.code == Code::http(404) => {
            return Told::Answer(Progress::NotThere);
        }
        Err(told) => return told.without(),
    };
    // A `status` beside `data` says how the request went, not how the run did.
    let status = match field_of(&answer.body, "data") {
        Some(resource) => Run::of(&resource).map(|run| run.progress),
        None => field_of(&answer.body, "status").map(|status| Progress::of(&status)),
    };
    status.map_or_else(|| Told::Refused(not_understood("a run")), Told::Answer)
}

/// One page of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunsPage {
    /// The runs, newest first.
    pub runs: Vec<Run>,
    /// Whether another page follows.
    pub has_more: bool,
    /// The server's clock, where it says it; in whole seconds.
    pub server_now: Option<Wall>,
}

/// What an answer says of a flow's runs.
#[must_use]
pub fn runs_told(reply: &Reply, now: Wall) -> Told<RunsPage> {
    let answer = match usable(reply, now) {
        Ok(answer) => answer,
        Err(told) => return told.without(),
    };
    let Some(Value::Array(resources)) = field_of(&answer.body, "data") else {
        return Told::Refused(not_understood("a list of runs"));
    };
    let runs: Option<Vec<Run>> = resources.iter().map(Run::of).collect();
    let Some(runs) = runs else { return Told::Refused(not_understood("a list of runs")) };
    let number = |field: &str| field_of(&answer.body, field).and_then(|value| value.as_u64());
    let has_more = match (number("meta.current_page"), number("meta.last_page")) {
        (Some(current), Some(last)) => current < last,
        _ => runs.len() >= PAGE_RUNS,
    };
    Told::Answer(RunsPage { runs, has_more, server_now: answer.server_now() })
}

/// The last lines of a run's log that are errors, for the sidecar (they are content).
#[must_use]
pub fn log_told(reply: &Reply) -> Option<String> {
    let Reply::Answer(answer) = reply else { return None };
    if !(200..300).contains(&answer.status) {
        return None;
    }
    let Some(Value::Array(lines)) = field_of(&answer.body, "data") else { return None };
    let text_of = |line: &Value, name: &str| {
        let value = field(line, name)?;
        let text = value.as_str().map(str::to_owned);
        text.or_else(|| value.as_number().map(ToString::to_string))
    };
    let is_error = |line: &&Value| {
        let level = text_of(line, "log_level").unwrap_or_default().to_ascii_lowercase();
        ["error", "critical", "fatal", "emergency", "alert"].contains(&level.as_str())
    };
    let errors: Vec<&Value> = lines.iter().filter(is_error).collect();
    let chosen = if errors.is_empty() { lines.iter().collect() } else { errors };
    let last: Vec<String> =
        chosen.iter().rev().take(3).rev().filter_map(|line| text_of(line, "log_message")).collect();
    let text = Answer { body: Bytes::from(last.join("\n")), ..Answer::default() };
    excerpt(&text)
}

impl Told<()> {
    fn without<T>(self) -> Told<T> {
        match self {
            Self::Answer(()) => Told::Refused(not_understood("what was asked for")),
            Self::TokenRefused(cause) => Told::TokenRefused(cause),
            Self::Later { cause, retry_after } => Told::Later { cause, retry_after },
            Self::Refused(cause) => Told::Refused(cause),
        }
    }
}

fn not_understood(what: &str) -> Cause {
    Cause::new(
        Code::of("runs-not-understood"),
        format!("the Core API's answer is not understood: {what} was expected"),
    )
}

/// An answer with a status that means an answer.
fn usable(reply: &Reply, now: Wall) -> Result<&Answer, Told<()>> {
    let answer = match reply {
        Reply::Answer(answer) => answer,
        Reply::NoAnswer { cause, .. } => {
            return Err(Told::Later { cause: cause.clone(), retry_after: None });
        }
        Reply::Changed => return Err(Told::Refused(not_understood("an answer"))),
    };
    let status = answer.status;
    let cause = |plain: String| Cause::new(Code::http(status), plain);
    if send::is_html(answer) {
        let plain = format!("an HTML page came back with {status}: a proxy or a login page");
        return Err(Told::Refused(Cause::new(Code::of("html-answer"), plain)));
    }
    match status {
        200..=299 => Ok(answer),
        401 => {
            let plain = "the Core API refused the credential (401)".to_owned();
            Err(Told::TokenRefused(cause(plain)))
        }
        408 | 425 | 429 | 500.. => Err(Told::Later {
            cause: cause(format!("the Core API cannot answer now ({status})")),
            retry_after: answer.asked_wait(now),
        }),
        403 => Err(Told::Refused(cause(
            "the Core API does not let this credential ask for runs (403)".to_owned(),
        ))),
        _ => Err(Told::Refused(cause(format!("the Core API does not answer this ({status})")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Reply {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Reply::Answer(Answer { status, body, ..Answer::default() })
    }

    fn cause(told: &Told<Progress>) -> String {
        match told {
            Told::Answer(progress) => format!("{progress:?}"),
            Told::TokenRefused(cause) => format!("token refused: {}", cause.code),
            Told::Later { cause, retry_after } => format!("later: {} {retry_after:?}", cause.code),
            Told::Refused(cause) => format!("refused: {}", cause.code),
        }
    }

    #[test]
    fn a_run_is_named_by_the_first_field_that_holds_an_id() {
        let fields = ["flow_run_id", "run_id", "id", "data.id"].map(str::to_owned);
        let check = |body: &str, run: Option<&str>| {
            let body = Bytes::copy_from_slice(body.as_bytes());
            assert_eq!(run_named(&body, &fields).as_deref(), run, "{body:?}");
        };
        check(r#"{"flow_run_id": 17, "id": 3}"#, Some("17"));
        check(r#"{"flow_run_id": null, "run_id": "01ab-c"}"#, Some("01ab-c"));
        check(r#"{"data": {"id": 99}}"#, Some("99"));
        check(r#"{"id": "a b"}"#, None);
        check(r#"{"id": ""}"#, None);
        check(r#"{"id": 1.5}"#, None);
        check(r#"{"id": {"x": 1}}"#, None);
        check("not json", None);
        check(&format!(r#"{{"id": "{}"}}"#, "x".repeat(129)), None);
    }

    #[test]
    fn what_the_api_says_of_a_run_is_read_in_every_form_that_was_seen() {
        let check = |reply: &Reply, expected: &str| {
            assert_eq!(cause(&run_told(reply, Wall(0))), expected, "{reply:?}");
        };
        let run =
            |status: &str| answer(200, &format!(r#"{{"data": {{"id": 7, "status": {status}}}}}"#));
        check(&run("1"), "Running");
        check(&run("2"), "Succeeded");
        check(&run("3"), "Failed");
        check(&run("4"), "Stopped");
        check(&run("5"), "PartlySucceeded");
        check(&run(r#""partial_success""#), "PartlySucceeded");
        check(&run("9"), "Unknown(\"9\")");
        let nested = r#"{"data": {"id": "7", "attributes": {"status": 2}}}"#;
        check(&answer(200, nested), "Succeeded");
        check(&answer(200, r#"{"status": "failure"}"#), "Failed");
        let wrapped = r#"{"status": "success", "data": {"flow_run": {"id": 7, "status": 3}}}"#;
        check(&answer(200, wrapped), "refused: runs-not-understood");
        check(
            &answer(200, r#"{"status": "success", "data": null}"#),
            "refused: runs-not-understood",
        );
        check(&answer(404, r#"{"message": "Not Found"}"#), "NotThere");
        check(&answer(401, "{}"), "token refused: http-401");
        check(&answer(403, "{}"), "refused: http-403");
        check(&answer(503, "{}"), "later: http-503 None");
        check(&answer(200, "<html>sign in</html>"), "refused: html-answer");
        check(&answer(200, "[]"), "refused: runs-not-understood");
        let slow = Answer { status: 429, retry_after: Some("7".into()), ..Answer::default() };
        check(&Reply::Answer(slow), "later: http-429 Some(7s)");
    }

    #[test]
    fn a_list_of_runs_says_when_they_started_and_whether_there_are_more() {
        let body = r#"{"data": [
            {"id": 3, "status": 1, "started_at": 1700000000123},
            {"id": "2", "attributes": {"status": 2, "started_at": "2023-11-14 22:13:20"}},
            {"id": 1, "status": 2, "started_at": "2023-11-14T22:13:20.5Z"},
            {"id": 0, "status": 2, "started_at": "yesterday"},
            {"id": 4, "status": 2, "started_at": -9223372036854775808}
        ], "meta": {"current_page": 1, "last_page": 2}}"#;
        let Told::Answer(page) = runs_told(&answer(200, body), Wall(0)) else { panic!("a list") };
        let started: Vec<_> =
            page.runs.iter().map(|run| (run.id.as_str(), run.started_at)).collect();
        let at = |millis| Some(Wall(millis));
        assert_eq!(
            started,
            [
                ("3", at(1_700_000_000_123)),
                ("2", at(1_700_000_000_000)),
                ("1", at(1_700_000_000_500)),
                ("0", None),
                ("4", at(i64::MIN))
            ]
        );
        assert!(page.has_more);
        let last = r#"{"data": [], "meta": {"current_page": 2, "last_page": 2}}"#;
        let Told::Answer(page) = runs_told(&answer(200, last), Wall(0)) else { panic!("a list") };
        assert!(!page.has_more);
        let odd = answer(200, r#"{"data": [{"name": "no id"}]}"#);
        assert!(matches!(runs_told(&odd, Wall(0)), Told::Refused(_)));
    }

    #[test]
    fn the_last_errors_of_a_log_are_its_reason() {
        let log = |lines: &str| log_told(&answer(200, &format!(r#"{{"data": [{lines}]}}"#)));
        let error = r#"{"log_level": "ERROR", "log_message": "no such customer"}"#;
        let note = r#"{"log_level": "info", "log_message": "began"}"#;
        assert_eq!(log(&format!("{note},{error},{note}")).as_deref(), Some("no such customer"));
        assert_eq!(log(note).as_deref(), Some("began"));
        assert_eq!(log(""), None);
        assert_eq!(log_told(&answer(500, "{}")), None);
    }
}
