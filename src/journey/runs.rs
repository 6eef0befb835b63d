//! What became of a run: which one an answer names, how the Core API is asked, what its answer
//! means, and what follows for the file that started it (promises P3, P4 and P6). A file that has
//! started a run is accepted: whatever is asked or answered here, it is never sent again.
//!
//! Wire facts: `GET {core_url}/flow-runs/{id}`, `GET {core_url}/flow-runs?filter[...]=...` and
//! `GET {core_url}/flow-runs/{id}/flow-run-logs`, statuses 1 to 5, resources under `data` with
//! their fields directly in them or under `attributes` (seen in two public clients). What else a
//! server says is not understood, and a run that is not understood has not ended.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::send::{self, excerpt, field_of};
use super::settle::spoken;
use crate::model::exchange::{Answer, Body, Reply, Request, Token};
use crate::model::outcome::{Cause, Code};
use crate::model::route::{Confirm, Delivery, Flow, InDoubt, Late};
use crate::model::secret::Secret;
use crate::model::step::{Entry, State, Verdict};
use crate::model::time::Wall;

/// What is next for a file that waits in `sending/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Another attempt.
    Attempt,
    /// Asking for its run: it is accepted.
    Confirm,
    /// Looking its flow's runs up: the last attempt may have been accepted.
    LookUp,
    /// Its last move: its end is decided, and nothing is sent any more.
    Finish,
}

/// What is next for an entry on record that is in no attempt, by what its route
/// says now of attempts without an answer.
#[must_use]
pub fn errand(entry: &Entry, in_doubt: InDoubt) -> Errand {
    if entry.decided_at.is_some() {
        return Errand::Finish;
    }
    if entry.confirming_since.is_some() {
        return Errand::Confirm;
    }
    // A file that a person let go has no cause on record: it is sent.
    let is_in_doubt = entry.state == State::Deferred
        && entry.last_verdict == Some(Verdict::InDoubt)
        && entry.cause.is_some();
    // The config may have changed since the attempt: what nobody has looked up yet is never sent
    // again unless the route says so now.
    if is_in_doubt && in_doubt != InDoubt::Resend { Errand::LookUp } else { Errand::Attempt }
}

/// Runs reach the queue about every 30 s (documented); they are looked up this long after the
/// attempt for the first time.
pub const FIRST_LOOK_AFTER: Duration = Duration::from_secs(90);

/// And this long after it for the second.
pub const SECOND_LOOK_AFTER: Duration = Duration::from_mins(3);

/// A run that started later than this after an attempt's end is not that attempt's.
pub const STARTS_WITHIN: Duration = Duration::from_mins(1);

/// Start times may be in whole seconds, cut off.
const CLOCK_GRAIN: Duration = Duration::from_secs(1);

/// Runs on one page of a listing; the API gives no more (documented for one list).
const PAGE_RUNS: usize = 100;

/// Pages that are read of one listing. More runs than that in two minutes are nobody's to tell
/// apart.
pub const PAGES_MAX: usize = 10;

/// Longest id of a run.
const RUN_ID_MAX: usize = 128;

/// So many questions in a row must have come to nothing before their failing makes a file late.
const FAILURES_BEFORE_LATE: u32 = 3;

/// A status that is longer than this is no status, and not shown.
const STATUS_SHOWN_MAX: usize = 16;

/// A wait between two questions that could not be asked grows up to this.
const ASK_AGAIN_MAX: Duration = Duration::from_mins(10);

/// And no server is believed that asks for more than this: the file's time is not its.
const ASKED_MAX: Duration = Duration::from_hours(1);

const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes one value of a query or one part of a path.
#[must_use]
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string()
}

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
        let field = |name: &str| {
            resource.get(name).or_else(|| resource.get("attributes").and_then(|all| all.get(name)))
        };
        Some(Self {
            id: id_of(field("id")?)?,
            started_at: field("started_at").and_then(moment),
            progress: Progress::of(field("status")?),
        })
    }
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
    get(delivery, format!("{}/flow-runs/{}", flow.core_url, encoded(run)), token)
}

/// The request for a run's log, newest line last.
#[must_use]
pub fn log_request(delivery: &Delivery, flow: &Flow, run: &str, token: Option<&Token>) -> Request {
    let run = encoded(run);
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
        encoded(&flow.id),
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
    let server_now = answer.date.as_deref().and_then(send::http_date);
    Told::Answer(RunsPage { runs, has_more, server_now })
}

/// The last lines of a run's log that are errors, for the sidecar (they are content).
#[must_use]
pub fn log_told(reply: &Reply) -> Option<String> {
    let Reply::Answer(answer) = reply else { return None };
    if !(200..300).contains(&answer.status) {
        return None;
    }
    let Some(Value::Array(lines)) = field_of(&answer.body, "data") else { return None };
    let field = |line: &Value, name: &str| {
        let value = line.get(name).or_else(|| line.get("attributes")?.get(name))?;
        let text = value.as_str().map(str::to_owned);
        text.or_else(|| value.as_number().map(ToString::to_string))
    };
    let is_error = |line: &&Value| {
        let level = field(line, "log_level").unwrap_or_default().to_ascii_lowercase();
        ["error", "critical", "fatal", "emergency", "alert"].contains(&level.as_str())
    };
    let errors: Vec<&Value> = lines.iter().filter(is_error).collect();
    let chosen = if errors.is_empty() { lines.iter().collect() } else { errors };
    let last: Vec<String> =
        chosen.iter().rev().take(3).rev().filter_map(|line| field(line, "log_message")).collect();
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
            retry_after: send::retry_after(answer, now),
        }),
        403 => Err(Told::Refused(cause(
            "the Core API does not let this credential ask for runs (403)".to_owned(),
        ))),
        _ => Err(Told::Refused(cause(format!("the Core API does not answer this ({status})")))),
    }
}

/// What follows for an accepted file from what is known of its run.
#[derive(Clone, Debug, PartialEq)]
pub enum Confirmed {
    /// Ask again after this wait.
    AskAgain(Duration),
    /// The journey ends.
    Settle {
        /// `sent`, `failed` or `held`.
        state: State,
        /// Why.
        cause: Cause,
    },
}

/// Decides from the Core API's word on a run. `failures` counts questions in a row that came to
/// nothing, this one included; `dice` is in `[0, 1)`.
#[must_use]
pub fn confirm(
    entry: &Entry,
    rules: &Confirm,
    told: &Told<Progress>,
    failures: u32,
    now: Wall,
    dice: f64,
) -> Confirmed {
    let run = entry.run.as_deref().unwrap_or("unknown");
    let settle = |state: State, code: &'static str, plain: String| Confirmed::Settle {
        state,
        cause: Cause::new(Code::of(code), plain),
    };
    let failed = |what: &str| {
        settle(State::Failed, "run-failed", format!("accepted, but run {run} {what} at the server"))
    };
    let waits_for = match told {
        Told::Answer(Progress::Succeeded) => {
            return settle(State::Sent, "run-succeeded", format!("accepted, run {run} succeeded"));
        }
        Told::Answer(Progress::PartlySucceeded) if rules.partial_is_success => {
            let plain = format!("accepted, run {run} succeeded in part");
            return settle(State::Sent, "run-succeeded", plain);
        }
        Told::Answer(Progress::Failed) => return failed("failed"),
        Told::Answer(Progress::Stopped) => return failed("was stopped"),
        Told::Answer(Progress::PartlySucceeded) => return failed("succeeded only in part"),
        Told::Answer(Progress::Running) => "it has not ended".to_owned(),
        Told::Answer(Progress::NotThere) => {
            "the Core API knows no such run (404); check core_url and run_id_field".to_owned()
        }
        Told::Answer(Progress::Unknown(status)) => {
            format!("its status \"{status}\" is not understood")
        }
        Told::TokenRefused(cause) | Told::Refused(cause) | Told::Later { cause, .. } => {
            format!("it could not be asked for: {}", cause.plain)
        }
    };
    let since = entry.confirming_since.unwrap_or(now);
    let left = rules.within.saturating_sub(now.since(since));
    // After a long stop the first question may fail because the network is not there yet.
    let is_told = matches!(told, Told::Answer(_)) || failures >= FAILURES_BEFORE_LATE;
    if left.is_zero() && is_told {
        let state = match rules.late {
            Late::Hold => State::Held,
            Late::Sent => State::Sent,
        };
        let within = spoken(rules.within);
        let plain = format!("accepted, but run {run} is not confirmed after {within}: {waits_for}");
        return settle(state, "run-unconfirmed", plain);
    }
    let asked = match told {
        Told::Later { retry_after, .. } => retry_after.unwrap_or_default(),
        Told::Answer(_) | Told::TokenRefused(_) | Told::Refused(_) => Duration::ZERO,
    };
    let wait = again(rules.every, failures, asked, dice);
    Confirmed::AskAgain(if left.is_zero() { wait } else { wait.min(left) })
}

/// A wait that grows with each question in a row that came to nothing; jittered, so that many files
/// do not ask at once.
#[must_use]
pub fn again(every: Duration, failures: u32, asked: Duration, dice: f64) -> Duration {
    let grown = every.saturating_mul(2_u32.saturating_pow(failures.min(16)));
    let most = grown.min(ASK_AGAIN_MAX.max(every));
    most.mul_f64(0.75 + 0.5 * dice.clamp(0.0, 1.0)).max(asked.min(ASKED_MAX))
}

/// What a look at a flow's runs leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// No run fits so far: look once more after this wait.
    LookAgain(Duration),
    /// No run fits, both times: the attempt was not accepted.
    SendAgain,
    /// It was accepted, as this run.
    Accepted(String),
    /// A person decides.
    Hold(Cause),
}

/// The span in which a run of this attempt must have started, by our clock.
#[must_use]
pub fn window(begun_at: Wall, ended_at: Wall) -> (Wall, Wall) {
    (begun_at, ended_at.plus(STARTS_WITHIN))
}

/// The same by the server's clock, which is `server_now` where ours is `now`.
#[must_use]
pub fn by_server_clock(
    (from, to): (Wall, Wall),
    server_now: Option<Wall>,
    now: Wall,
) -> (Wall, Wall) {
    // A `Date` is in whole seconds, cut off: half a second more is the best guess.
    let ahead = server_now.map_or(0, |server| server.0 + 500 - now.0);
    let grain = i64::try_from(CLOCK_GRAIN.as_millis()).unwrap_or(0);
    let slack = if server_now.is_some() { grain } else { 0 };
    (Wall(from.0 + ahead - grain), Wall(to.0 + ahead + slack))
}

/// What is known when a flow's runs have been looked up.
#[derive(Clone, Debug)]
pub struct Look<'a> {
    /// The runs that the API lists.
    pub runs: &'a [Run],
    /// Whether these are all there are.
    pub is_whole: bool,
    /// The span in which the run must have started, by the server's clock.
    pub window: (Wall, Wall),
    /// Ids of runs that are on record as those of other files.
    pub of_others: &'a BTreeSet<String>,
    /// Whether another file's attempt on this flow was under way in the span.
    pub others_attempted: bool,
    /// Whether this is the second look.
    pub is_second: bool,
    /// Time since the attempt's end.
    pub since_end: Duration,
}

/// Decides (house.md, "In doubt"). One run that nobody else can have started is this file's.
#[must_use]
pub fn look(flow: &Flow, look: &Look<'_>) -> Looked {
    let hold = |plain: String| Looked::Hold(Cause::new(Code::of("run-not-told-apart"), plain));
    let id = &flow.id;
    let fits = |run: &&Run| {
        let (from, to) = look.window;
        let is_of_that_time = run.started_at.is_none_or(|at| (from..=to).contains(&at));
        is_of_that_time && !look.of_others.contains(&run.id)
    };
    let fitting: Vec<&Run> = look.runs.iter().filter(fits).collect();
    if !look.is_whole {
        return hold(format!(
            "flow {id} had too many runs at that time to tell which is this file's"
        ));
    }
    match fitting.as_slice() {
        [] if look.is_second => Looked::SendAgain,
        [] => {
            Looked::LookAgain(SECOND_LOOK_AFTER.saturating_sub(look.since_end).max(
                // A first look that came late (a stop, a network that was away) is followed by a
                // second one all the same.
                SECOND_LOOK_AFTER.saturating_sub(FIRST_LOOK_AFTER),
            ))
        }
        [only] if only.started_at.is_none() => {
            hold(format!("flow {id} has run {}, and when it started is not understood", only.id))
        }
        [only] if look.others_attempted => hold(format!(
            "run {} of flow {id} may be this file's or that of another file sent at the same time",
            only.id
        )),
        [only] => Looked::Accepted(only.id.clone()),
        several => {
            let ids: Vec<&str> = several.iter().take(5).map(|run| run.id.as_str()).collect();
            hold(format!(
                "{} runs of flow {id} fit this attempt ({})",
                several.len(),
                ids.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: &str = "12";

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

    fn accepted() -> Entry {
        use crate::model::file::{FileId, Identity, Place};
        use crate::model::route::RouteName;
        use crate::model::step::{Claim, Intent, Step};
        use std::path::Path;
        use std::sync::Arc;
        let mut entry = Entry::of(&Claim {
            id: FileId(7),
            route: RouteName::new("orders"),
            name: "a.json".into(),
            source: Place::new(&Arc::from(Path::new("/r/orders")), "a.json"),
            marker: None,
            identity: Identity { volume: 1, number: 1, size: 5, mtime_ns: 9 },
            digest: None,
            envelope: None,
            key: "k".into(),
            previous: None,
            at: Wall(0),
            intent: Intent::Attempt,
        });
        let run = Some("31".to_owned());
        let at = Wall(1_000);
        entry.apply(&Step::Accepted { id: FileId(7), attempt: None, run, at, due_at: at });
        entry
    }

    #[test]
    fn an_attempt_without_an_answer_is_repeated_only_where_the_route_says_so_now() {
        use crate::model::file::FileId;
        use crate::model::step::{AttemptEnd, Step};
        let mut entry = Entry { run: None, confirming_since: None, ..accepted() };
        let deferred = |verdict| Step::AttemptEnded {
            id: FileId(7),
            attempt: 1,
            end: AttemptEnd {
                verdict,
                code: Code::of("cut"),
                status: None,
                request_id: None,
                plain: "no answer".into(),
            },
            at: Wall(2_000),
            due_at: Wall(9_000),
            waited_for: Duration::ZERO,
        };
        let (doubted, refused) = (deferred(Verdict::InDoubt), deferred(Verdict::Deferred));
        entry.apply(&doubted);
        assert_eq!(errand(&entry, InDoubt::Lookup), Errand::LookUp);
        // It was to be looked up, and the config has changed before that.
        assert_eq!(errand(&entry, InDoubt::Hold), Errand::LookUp);
        assert_eq!(errand(&entry, InDoubt::Resend), Errand::Attempt);
        entry.apply(&refused);
        for in_doubt in [InDoubt::Lookup, InDoubt::Hold, InDoubt::Resend] {
            assert_eq!(errand(&entry, in_doubt), Errand::Attempt);
            assert_eq!(errand(&accepted(), in_doubt), Errand::Confirm);
        }
    }

    #[test]
    fn what_stands_beside_an_accepted_file_never_says_that_it_was_not_sent() {
        use crate::journey::settle::why;
        let check = |state, code: &'static str, lead: &str, way: &str| {
            let entry = Entry { last_verdict: Some(Verdict::Delivered), ..accepted() };
            let cause = Cause::new(Code::of(code), "accepted, but");
            let text = why(&entry, state, &cause, &[], Wall(9_000));
            assert!(text.starts_with(lead), "{text}");
            assert!(text.contains(way) && !text.contains("as it is"), "{text}");
        };
        check(State::Failed, "run-failed", "a.json failed after it was sent", "patchdrop resend");
        let lead = "a.json is held until a person decides";
        check(State::Held, "run-unconfirmed", lead, "(sends nothing)");
        check(State::Held, "run-unconfirmed", lead, "look at run 31");
    }

    const RULES: Confirm = Confirm {
        every: Duration::from_secs(30),
        within: Duration::from_hours(1),
        late: Late::Hold,
        partial_is_success: false,
    };

    #[test]
    fn a_run_decides_where_its_file_goes_and_a_wait_has_an_end() {
        let rules = RULES;
        let with_three_failures = Told::TokenRefused(Cause::new(Code::of("http-401"), "refused"));
        let early = Wall(2_000);
        let late = Wall(1_000).plus(Duration::from_hours(1));
        let check = |rules: &Confirm, told: Told<Progress>, now: Wall, expected: &str| {
            let failures = if told == with_three_failures { 3 } else { 0 };
            let text = match confirm(&accepted(), rules, &told, failures, now, 0.5) {
                Confirmed::AskAgain(wait) => format!("again after {wait:?}"),
                Confirmed::Settle { state, cause } => {
                    format!("{} {}: {}", state.name(), cause.code, cause.plain)
                }
            };
            assert_eq!(text, expected, "{told:?}");
        };
        let told = Told::Answer;
        let cause = Cause::new(Code::of("cut"), "the network is down");
        let away = Told::Later { cause, retry_after: None };
        check(
            &rules,
            told(Progress::Succeeded),
            late,
            "sent run-succeeded: accepted, run 31 succeeded",
        );
        check(
            &rules,
            told(Progress::Failed),
            early,
            "failed run-failed: accepted, but run 31 failed at the server",
        );
        check(
            &rules,
            told(Progress::Stopped),
            early,
            "failed run-failed: accepted, but run 31 was stopped at the server",
        );
        check(
            &rules,
            told(Progress::PartlySucceeded),
            early,
            "failed run-failed: accepted, but run 31 succeeded only in part at the server",
        );
        let lenient = Confirm { partial_is_success: true, late: Late::Sent, ..rules };
        check(
            &lenient,
            told(Progress::PartlySucceeded),
            early,
            "sent run-succeeded: accepted, run 31 succeeded in part",
        );
        check(&rules, told(Progress::Running), early, "again after 30s");
        check(&rules, away.clone(), early, "again after 30s");
        check(
            &rules,
            told(Progress::Running),
            late,
            "held run-unconfirmed: accepted, but run 31 is not confirmed after 1 h: it has not ended",
        );
        check(&rules, away, late, "again after 30s");
        check(
            &rules,
            with_three_failures.clone(),
            late,
            "held run-unconfirmed: accepted, but run 31 is not confirmed after 1 h: it could not be asked for: refused",
        );
        check(
            &lenient,
            told(Progress::Unknown("9".into())),
            late,
            "sent run-unconfirmed: accepted, but run 31 is not confirmed after 1 h: its status \"9\" is not understood",
        );
    }

    #[test]
    fn a_run_that_is_never_there_is_not_said_to_go_on() {
        let told = Told::Answer(Progress::NotThere);
        let late = Wall(1_000).plus(Duration::from_hours(1));
        let Confirmed::Settle { state, cause } = confirm(&accepted(), &RULES, &told, 0, late, 0.5)
        else {
            panic!("it waits no longer");
        };
        assert_eq!(state, State::Held);
        assert!(cause.plain.contains("knows no such run (404); check core_url"), "{}", cause.plain);
    }

    #[test]
    fn waits_between_questions_grow_while_they_come_to_nothing() {
        let every = Duration::from_secs(30);
        let wait = |failures, dice| again(every, failures, Duration::ZERO, dice);
        assert_eq!(wait(0, 0.5), every);
        assert_eq!(wait(2, 0.5), every * 4);
        assert_eq!(wait(20, 0.5), ASK_AGAIN_MAX);
        assert!(wait(0, 0.0) < every && wait(0, 1.0) > every);
        assert_eq!(again(every, 0, Duration::from_mins(2), 0.0), Duration::from_mins(2));
        assert_eq!(again(ASK_AGAIN_MAX * 2, 3, Duration::ZERO, 0.5), ASK_AGAIN_MAX * 2);
        assert_eq!(again(every, 0, Duration::from_hours(24_000), 0.5), ASKED_MAX);
    }

    fn flow() -> Flow {
        Flow {
            id: FLOW.into(),
            variables: std::collections::BTreeMap::new(),
            core_url: "https://core.example/api/v1".into(),
            core_host: "core.example".into(),
            confirm: None,
        }
    }

    #[test]
    fn one_run_that_nobody_else_can_have_started_is_the_files_own() {
        let started = |id: &str, at: i64| Run {
            id: id.to_owned(),
            started_at: Some(Wall(at)),
            progress: Progress::Running,
        };
        let odd = Run { started_at: None, ..started("5", 0) };
        let window = (Wall(1_000), Wall(70_000));
        let check =
            |runs: &[Run], others: &[&str], attempted: bool, second: bool, expected: &str| {
                let of_others = others.iter().map(ToString::to_string).collect();
                let found = look(
                    &flow(),
                    &Look {
                        runs,
                        is_whole: true,
                        window,
                        of_others: &of_others,
                        others_attempted: attempted,
                        is_second: second,
                        since_end: Duration::from_secs(95),
                    },
                );
                let text = match found {
                    Looked::LookAgain(wait) => format!("look again after {wait:?}"),
                    Looked::SendAgain => "send again".to_owned(),
                    Looked::Accepted(run) => format!("accepted as {run}"),
                    Looked::Hold(cause) => format!("hold: {}", cause.plain),
                };
                assert!(text.starts_with(expected), "{text} is not {expected}");
            };
        check(&[], &[], false, false, "look again after 90s");
        check(&[], &[], true, true, "send again");
        check(&[started("5", 2_000)], &[], false, false, "accepted as 5");
        check(&[started("5", 70_000)], &[], false, true, "accepted as 5");
        check(&[started("5", 999), started("6", 70_001)], &[], false, true, "send again");
        check(&[started("5", 2_000), started("6", 3_000)], &["6"], false, false, "accepted as 5");
        check(&[started("5", 2_000)], &["5"], false, true, "send again");
        check(&[started("5", 2_000)], &[], true, false, "hold: run 5 of flow 12 may be");
        check(
            &[started("5", 2_000), started("6", 3_000)],
            &[],
            false,
            true,
            "hold: 2 runs of flow 12",
        );
        check(&[odd], &[], false, false, "hold: flow 12 has run 5, and when it started");
    }

    #[test]
    fn a_list_that_is_not_whole_decides_nothing() {
        let found = look(
            &flow(),
            &Look {
                runs: &[],
                is_whole: false,
                window: (Wall(0), Wall(1)),
                of_others: &BTreeSet::new(),
                others_attempted: false,
                is_second: true,
                since_end: SECOND_LOOK_AFTER,
            },
        );
        assert!(matches!(found, Looked::Hold(_)), "{found:?}");
    }

    #[test]
    fn the_servers_clock_is_the_one_that_its_runs_go_by() {
        let ours = (Wall(100_000), Wall(170_000));
        assert_eq!(by_server_clock(ours, None, Wall(0)), (Wall(99_000), Wall(170_000)));
        let now = Wall(1_000_000);
        let ahead = by_server_clock(ours, Some(Wall(1_060_000)), now);
        assert_eq!(ahead, (Wall(159_500), Wall(231_500)));
        let behind = by_server_clock(ours, Some(Wall(940_000)), now);
        assert_eq!(behind, (Wall(39_500), Wall(111_500)));
    }

    #[test]
    fn ids_and_filters_are_encoded() {
        assert_eq!(encoded("a/b?c=1&d"), "a%2Fb%3Fc%3D1%26d");
        assert_eq!(encoded("01ab-c_.~"), "01ab-c_.~");
    }
}
