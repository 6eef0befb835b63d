//! What goes onto the wire for a file, and what the answer means.

use std::time::Duration;

use super::pace::{Allowance, Heard};
use super::runs;
use crate::model::blot::Blotter;
use crate::model::exchange::{Answer, Body, Progress, Reply, Request, Token, percent_encoded};
use crate::model::file::shown;
use crate::model::outcome::{Blame, Cause, Code, Outcome};
use crate::model::route::{Delivery, Hmac, HmacEncoding, JudgeRules, RouteName};
use crate::model::secret::Secret;
use crate::model::step::{AttemptEnd, Entry, Verdict};
use crate::model::time::Wall;

/// From this number on a reset is a time, in seconds since 1970: as a span it would be 30 years.
const EPOCH_FROM: u64 = 1_000_000_000;

/// And from this one on in milliseconds.
const EPOCH_MILLIS_FROM: u64 = 1_000_000_000_000;

/// How much of an answer may stand in a sidecar.
const EXCERPT_MAX_BYTES: usize = 2_048;

/// The request for one attempt. `signature` is that of the body, where the route has one.
#[must_use]
pub fn request(
    entry: &Entry,
    delivery: &Delivery,
    body: Body,
    signature: Option<&Secret>,
    token: Option<&Token>,
) -> Request {
    let mut headers = vec![
        ("Content-Type".to_owned(), Secret::new(&*delivery.content_type)),
        ("Accept".to_owned(), Secret::new("application/json")),
    ];
    if let Some(name) = &delivery.idempotency_header {
        headers.push((name.clone(), Secret::new(&*entry.key)));
    }
    for (name, value) in &delivery.headers {
        headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        headers.push((name.clone(), Secret::new(filled_in(value.reveal(), entry))));
    }
    if let (Some(hmac), Some(signature)) = (&delivery.hmac, signature) {
        headers.push((hmac.header.clone(), signature.clone()));
    }
    if let Some(token) = token {
        headers.push(("Authorization".to_owned(), token.authorization.clone()));
    }
    Request {
        method: delivery.method,
        url: url(delivery, entry),
        headers,
        body,
        connect_timeout: delivery.connect_timeout,
        timeout: delivery.timeout,
    }
}

/// The URL of one attempt: a flow's variables differ from file to file. They go as one JSON object
/// in the query (seen in the vendor's own client).
fn url(delivery: &Delivery, entry: &Entry) -> Secret {
    let variables = delivery.flow.as_ref().map(|flow| &flow.variables);
    let Some(variables) = variables.filter(|variables| !variables.is_empty()) else {
        return delivery.url.clone();
    };
    let fill = |value: &String| {
        value
            .replace("{sha256}", &body_digest(entry))
            .replace("{id}", &entry.id.to_string())
            .replace("{name}", &entry.name.to_string_lossy())
    };
    let filled: serde_json::Map<String, serde_json::Value> =
        variables.iter().map(|(name, value)| (name.clone(), fill(value).into())).collect();
    let json = serde_json::Value::Object(filled).to_string();
    let url = delivery.url.reveal();
    let joint = if url.contains('?') { '&' } else { '?' };
    Secret::new(format!("{url}{joint}flow_variables={}", percent_encoded(&json)))
}

fn body_digest(entry: &Entry) -> String {
    entry.envelope.as_ref().map(|envelope| envelope.digest.to_string()).unwrap_or_default()
}

/// Signs a body piece by piece: HMAC with SHA-256.
pub struct Signer {
    mac: hmac::Hmac<sha2::Sha256>,
    encoding: HmacEncoding,
}

impl Signer {
    /// Begins a signature.
    #[must_use]
    pub fn new(rules: &Hmac) -> Self {
        use hmac::KeyInit as _;
        let key = rules.key.reveal().as_bytes();
        let mac = hmac::Hmac::new_from_slice(key).expect("HMAC takes a key of any length");
        Self { mac, encoding: rules.encoding }
    }

    /// Takes the next piece.
    pub fn take(&mut self, piece: &[u8]) {
        use hmac::Mac as _;
        self.mac.update(piece);
    }

    /// The signature as its header carries it.
    #[must_use]
    pub fn finish(self) -> Secret {
        use base64::Engine as _;
        use hmac::Mac as _;
        use std::fmt::Write as _;
        let bytes = self.mac.finalize().into_bytes();
        Secret::new(match self.encoding {
            HmacEncoding::Base64 => base64::engine::general_purpose::STANDARD.encode(bytes),
            HmacEncoding::Hex => bytes.iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").expect("a String takes every write");
                text
            }),
        })
    }
}

/// Puts `{name}`, `{id}` and `{sha256}` into a header's value. A name goes percent-encoded where
/// it is not plain ASCII: a header can carry nothing else.
fn filled_in(value: &str, entry: &Entry) -> String {
    if !value.contains('{') {
        return value.to_owned();
    }
    let mut name = String::new();
    for byte in entry.name.as_encoded_bytes() {
        if byte.is_ascii_graphic() && *byte != b'%' || *byte == b' ' {
            name.push(char::from(*byte));
        } else {
            name = format!("{name}%{byte:02X}");
        }
    }
    value
        .replace("{sha256}", &body_digest(entry))
        .replace("{id}", &entry.id.to_string())
        .replace("{name}", &name)
}

/// Everything secret in a request: a server may repeat it in its answer (promise P11).
#[must_use]
pub fn secrets_in(request: &Request) -> Vec<Secret> {
    let mut secrets = vec![request.url.clone()];
    for (name, value) in &request.headers {
        let known = ["content-type", "accept"];
        if known.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            continue;
        }
        if let Some((_, bare)) = value.reveal().split_once(' ') {
            secrets.push(Secret::new(bare));
        }
        if name.eq_ignore_ascii_case("authorization") {
            secrets.push(value.clone());
        }
    }
    secrets
}

/// What one attempt came to, in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The verdict.
    pub outcome: Outcome,
    /// Why.
    pub cause: Cause,
    /// HTTP status, where there was one.
    pub status: Option<u16>,
    /// The server's id of the request.
    pub request_id: Option<String>,
    /// The server asks for a wait of at least this long.
    pub retry_after: Option<Duration>,
    /// What the server says about its rate limit.
    pub allowance: Allowance,
    /// A large body was cut in the middle: perhaps an early 401 whose answer was lost.
    pub may_hide_a_refused_token: bool,
    /// The server's id of the run that an accepting answer names.
    pub run: Option<String>,
}

impl Judged {
    /// What an attempt came to of which the server has said nothing.
    #[must_use]
    pub fn unanswered(outcome: Outcome, cause: Cause) -> Self {
        Self {
            outcome,
            cause,
            status: None,
            request_id: None,
            retry_after: None,
            allowance: Allowance::default(),
            may_hide_a_refused_token: false,
            run: None,
        }
    }

    /// Whether anything of the server's own words is in it.
    #[must_use]
    pub fn says_something(&self) -> bool {
        self.cause.excerpt.is_some() || self.request_id.is_some() || self.run.is_some()
    }

    /// The same with these secrets blotted out of whatever the server said: it may repeat what it
    /// was sent.
    #[must_use]
    pub fn blotted(mut self, blotters: &[&Blotter]) -> Self {
        for blotter in blotters {
            let clean = |text: String| blotter.blot(&text).into_owned();
            self.cause.excerpt = self.cause.excerpt.map(clean);
            self.request_id = self.request_id.map(clean);
            self.run = self.run.map(clean);
        }
        self
    }

    /// The same for the ledger.
    #[must_use]
    pub fn end(&self) -> AttemptEnd {
        AttemptEnd {
            verdict: match self.outcome {
                Outcome::Delivered => Verdict::Delivered,
                Outcome::Deferred(_) => Verdict::Deferred,
                Outcome::Rejected => Verdict::Rejected,
                Outcome::InDoubt => Verdict::InDoubt,
                Outcome::RouteFault => Verdict::RouteFault,
                Outcome::TokenRefused => Verdict::TokenRefused,
                Outcome::Changed => Verdict::Changed,
            },
            code: self.cause.code.clone(),
            status: self.status,
            request_id: self.request_id.clone(),
            plain: self.cause.plain.clone(),
        }
    }

    /// The same for a route that sends no credential of its own: a 401 is about its URL, its
    /// signature or its headers, and not about what other routes send to that host.
    #[must_use]
    pub fn without_credential(mut self) -> Self {
        if self.outcome == Outcome::TokenRefused {
            self.outcome = Outcome::RouteFault;
            let status = self.status.unwrap_or(401);
            self.cause.plain = format!("the server does not let this request in ({status})");
            self.cause.remedy = Some(
                "Check the signature in the route's `url`, its `hmac` and its `headers`, and whether it needs a `credential`; the files wait and go out by themselves.".into(),
            );
        }
        self
    }

    /// What it says about the pace.
    #[must_use]
    pub fn heard(&self) -> Heard {
        Heard {
            status: self.status,
            retry_after: self.retry_after,
            allowance: self.allowance,
            is_trouble: match self.status {
                Some(status) => is_trouble(status),
                None => is_silence(&self.cause.code),
            },
        }
    }
}

/// What a reply to something else than a file, a question, says about the pace.
#[must_use]
pub fn heard(reply: &Reply, now: Wall) -> Heard {
    match reply {
        Reply::Answer(answer) => Heard {
            status: Some(answer.status),
            // What of it is believed is the destination's matter.
            retry_after: answer.asked_wait(now),
            allowance: allowance(answer, now),
            is_trouble: is_trouble(answer.status),
        },
        Reply::NoAnswer { cause, .. } => {
            Heard { is_trouble: is_silence(&cause.code), ..Heard::default() }
        }
        Reply::Changed => Heard::default(),
    }
}

/// Whether there was no answer because the server took too long.
fn is_silence(code: &Code) -> bool {
    matches!(code.0.as_ref(), "no-answer-timeout" | "send-stalled" | "connect-timeout")
}

/// Statuses of a server that has too much to do.
fn is_trouble(status: u16) -> bool {
    status >= 500 || status == 408
}

/// Judges a reply by the route's rules. `now` is the wall clock, for a `Retry-After` that is a
/// date and an answer that has no `Date`.
#[must_use]
pub fn judge(rules: &JudgeRules, reply: &Reply, now: Wall) -> Judged {
    match reply {
        Reply::Answer(answer) => judge_answer(rules, answer, now),
        Reply::NoAnswer { progress, cause } => {
            let outcome = match progress {
                Progress::Nothing => Outcome::Deferred(Blame::Destination),
                Progress::Partial => Outcome::Deferred(Blame::Attempt),
                Progress::Whole => Outcome::InDoubt,
            };
            Judged {
                may_hide_a_refused_token: *progress == Progress::Partial,
                ..Judged::unanswered(outcome, cause.clone())
            }
        }
        Reply::Changed => {
            let plain = "the file's content changed after it was claimed; the connection was dropped before the last block";
            let cause = Cause::new(Code::of("changed-after-claim"), plain);
            Judged::unanswered(Outcome::Changed, cause)
        }
    }
}

fn judge_answer(rules: &JudgeRules, answer: &Answer, now: Wall) -> Judged {
    let status = answer.status;
    let (outcome, code, plain) = if rules.doubtful.contains(&status) {
        (
            Outcome::InDoubt,
            Code::http(status),
            format!("a gateway answered {status}; the server behind it may have accepted the file"),
        )
    } else if rules.success.contains(&status) {
        judge_success(rules, answer)
    } else if (200..300).contains(&status) {
        (
            Outcome::InDoubt,
            Code::http(status),
            format!("the server answered {status}, which is not among `success`"),
        )
    } else if status == 401 || status == 403 && names_the_token(answer) {
        let plain = format!("the server refused the access token ({status})");
        (Outcome::TokenRefused, Code::http(status), plain)
    } else if status == 429 {
        let plain = "the server asks for fewer requests (429)".to_owned();
        (Outcome::Deferred(Blame::Destination), Code::http(status), plain)
    } else if status == 408 || status == 425 || status >= 500 {
        let plain = format!("the server could not take the file now ({status})");
        let asks = answer.retry_after.is_some();
        let blame = if asks { Blame::Destination } else { Blame::Attempt };
        (Outcome::Deferred(blame), Code::http(status), plain)
    } else if rules.file_faults.contains(&status) {
        let plain = format!("the server refused this file ({status})");
        (Outcome::Rejected, Code::http(status), plain)
    } else {
        (Outcome::RouteFault, Code::http(status), route_fault(status))
    };
    let says = outcome != Outcome::Delivered;
    let run = (!says).then(|| runs::run_named(&answer.body, &rules.run_id_fields)).flatten();
    Judged {
        cause: Cause::new(code, plain).with_excerpt(says.then(|| excerpt(answer)).flatten()),
        outcome,
        status: Some(status),
        request_id: answer.request_id.clone(),
        retry_after: answer.asked_wait(now),
        allowance: allowance(answer, now),
        may_hide_a_refused_token: false,
        run,
    }
}

fn judge_success(rules: &JudgeRules, answer: &Answer) -> (Outcome, Code, String) {
    let status = answer.status;
    if !rules.html_is_success && is_html(answer) {
        return (
            Outcome::RouteFault,
            Code::of("html-answer"),
            format!("an HTML page came back with {status}: a proxy or a login page, not the API"),
        );
    }
    if let Some((field, expected)) = &rules.success_when
        && field_of(&answer.body, field).as_ref() != Some(expected)
    {
        return (
            Outcome::RouteFault,
            Code::of("success-when-not-met"),
            format!("the answer ({status}) does not have `{field}` as `success_when` asks"),
        );
    }
    (Outcome::Delivered, Code::http(status), format!("accepted ({status})"))
}

fn route_fault(status: u16) -> String {
    match status {
        404 => "the server knows no such URL (404): is the vanity or the company misspelt?".into(),
        403 => "the server does not allow this credential to use the URL (403)".into(),
        405 => "the server does not allow this method at the URL (405)".into(),
        300..=399 => format!("the server wants to redirect ({status}); redirects are not followed"),
        _ => format!("the server does not take requests at this URL ({status})"),
    }
}

/// What the administrator can do about a route that is at fault; none: about a destination.
#[must_use]
pub fn remedy(cause: &Cause, route: Option<&RouteName>) -> String {
    if let Some(remedy) = &cause.remedy {
        return remedy.clone();
    }
    let of_route = route.map_or_else(|| "its routes".into(), |route| format!("route {route}"));
    let resumed = route.map_or_else(|| "ROUTE".into(), ToString::to_string);
    match cause.code.0.as_ref() {
        "http-404" => format!(
            "Compare `company`, `vanity` and `base_url` (or `flow_id`, or `url`) of {of_route} with the address that the receiver shows; the files wait and go out by themselves."
        ),
        "http-401" | "http-403" => format!(
            "Check the credential of {of_route}: that it is for this API and not revoked (oauth2: client id, secret and scope); the files wait and go out by themselves."
        ),
        "http-429" => {
            "Nothing: patchdrop waits as long as the server asks. `concurrency` may be lowered.".into()
        }
        "dns" | "connect" | "connect-refused" | "connect-timeout" => {
            "Check the network, the proxy and the host name; patchdrop tries again by itself.".into()
        }
        "tls" => {
            "Check the certificate of the server, the clock, and whether a proxy intercepts TLS; patchdrop tries again by itself.".into()
        }
        "html-answer" | "success-when-not-met" => format!(
            "Look at the answer in the log of the receiver; check the URL, `success_type` and `success_when` of {of_route}."
        ),
        code if code.starts_with("http-3") => format!(
            "Put the final URL into the config of {of_route}; the files wait and go out by themselves."
        ),
        _ => format!(
            "The files wait and are tried again by themselves; `patchdrop resume {resumed}` tries at once."
        ),
    }
}

/// Azure and others answer 403 for an expired token; the answer then names the token.
fn names_the_token(answer: &Answer) -> bool {
    const NAMES: [&str; 3] = ["invalid_token", "token_expired", "TokenExpired"];
    if NAMES.iter().any(|name| answer.www_authenticate.contains(name)) {
        return true;
    }
    ["error", "code", "error.code"].iter().any(|field| {
        field_of(&answer.body, field)
            .and_then(|value| value.as_str().map(|text| NAMES.contains(&text)))
            .unwrap_or(false)
    })
}

pub(super) fn is_html(answer: &Answer) -> bool {
    let start: Vec<u8> = answer
        .body
        .iter()
        .copied()
        .skip_while(u8::is_ascii_whitespace)
        .take(14)
        .map(|byte| byte.to_ascii_lowercase())
        .collect();
    answer.content_type.starts_with("text/html")
        || start.starts_with(b"<!doctype html")
        || start.starts_with(b"<html")
}

/// A field of a JSON answer, by dotted path.
pub(super) fn field_of(body: &[u8], path: &str) -> Option<serde_json::Value> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    let found = path.split('.').try_fold(&document, |value, part| match value {
        serde_json::Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        serde_json::Value::Object(fields) => fields.get(part),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => None,
    })?;
    Some(found.clone())
}

/// The first 2 KB of an answer as one escaped piece of text.
pub(super) fn excerpt(answer: &Answer) -> Option<String> {
    if answer.body.is_empty() {
        return None;
    }
    let mut text = String::new();
    for letter in String::from_utf8_lossy(&answer.body).chars() {
        if text.len() >= EXCERPT_MAX_BYTES {
            text.push('…');
            break;
        }
        if letter.is_control() && letter != '\n' {
            text.extend(letter.escape_default());
        } else {
            text.push(letter);
        }
    }
    Some(text)
}

/// What the answer's headers say about the server's rate limit.
fn allowance(answer: &Answer, now: Wall) -> Allowance {
    let rate = &answer.rate;
    let said = |header: &Option<String>, names: [&str; 2]| {
        let own = header.as_deref().and_then(leading_number);
        own.or_else(|| names.iter().find_map(|name| member(rate.summary.as_deref()?, name)))
    };
    let reset_in = |reset: u64| {
        if reset < EPOCH_FROM {
            return Duration::from_secs(reset);
        }
        let millis = if reset < EPOCH_MILLIS_FROM { reset.saturating_mul(1000) } else { reset };
        let at = Wall(i64::try_from(millis).unwrap_or(i64::MAX));
        at.since(answer.server_now().unwrap_or(now))
    };
    let limit = said(&rate.limit, ["limit", "q"]);
    let remaining = said(&rate.remaining, ["remaining", "r"]);
    // Some servers mean none by a limit of 0; as a limit it would let nothing through.
    let is_none = limit == Some(0);
    Allowance {
        limit: limit.filter(|_| !is_none),
        remaining: remaining.filter(|_| !is_none),
        reset_in: said(&rate.reset, ["reset", "t"]).map(reset_in),
    }
}

/// The number at the start: what follows it (`100;w=60`) belongs to other policies.
fn leading_number(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.get(..digits)?.parse().ok()
}

/// The number that `RateLimit` gives under this name: `limit=60, remaining=3` or `"api";r=3;t=20`.
fn member(summary: &str, name: &str) -> Option<u64> {
    summary.split([',', ';']).find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| leading_number(value))?
    })
}

/// A file's name for messages.
#[must_use]
pub fn shown_name(entry: &Entry) -> String {
    shown(&entry.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::exchange::RateHeaders;
    use bytes::Bytes;
    use std::collections::BTreeSet;

    fn rules() -> JudgeRules {
        JudgeRules {
            success: BTreeSet::from([200, 201, 202, 204]),
            success_when: None,
            html_is_success: false,
            file_faults: BTreeSet::from([400, 409, 413, 422]),
            doubtful: BTreeSet::from([502, 504, 520, 524]),
            run_id_fields: Vec::new(),
        }
    }

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer { status, body: Bytes::from_static(body.as_bytes()), ..Answer::default() }
    }

    fn outcome(answer: Answer) -> Outcome {
        judge(&rules(), &Reply::Answer(answer), Wall(0)).outcome
    }

    #[test]
    fn each_status_means_what_the_table_says() {
        let check = |status: u16, expected: Outcome| {
            assert_eq!(outcome(answer(status, "")), expected, "{status}");
        };
        for status in [200, 201, 202, 204] {
            check(status, Outcome::Delivered);
        }
        for status in [203, 206, 502, 504, 520, 524] {
            check(status, Outcome::InDoubt);
        }
        for status in [408, 425, 500, 503, 599] {
            check(status, Outcome::Deferred(Blame::Attempt));
        }
        check(429, Outcome::Deferred(Blame::Destination));
        for status in [400, 409, 413, 422] {
            check(status, Outcome::Rejected);
        }
        for status in [300, 301, 302, 307, 308, 402, 403, 404, 405, 406, 410, 415, 418] {
            check(status, Outcome::RouteFault);
        }
        check(401, Outcome::TokenRefused);
    }

    #[test]
    fn a_403_that_names_the_token_is_about_the_token() {
        assert_eq!(outcome(answer(403, r#"{"error":"invalid_token"}"#)), Outcome::TokenRefused);
        assert_eq!(outcome(answer(403, r#"{"code":"TokenExpired"}"#)), Outcome::TokenRefused);
        assert_eq!(outcome(answer(403, r#"{"error":"forbidden"}"#)), Outcome::RouteFault);
        let mut named = answer(403, "");
        named.www_authenticate = "Bearer error=\"invalid_token\"".into();
        assert_eq!(outcome(named), Outcome::TokenRefused);
    }

    #[test]
    fn an_answer_that_repeats_a_secret_is_blotted() {
        let secrets = [Secret::new("https://h/x?sig=abcdef"), Secret::new("tok-123456")];
        let echo = r#"{"you":"Bearer tok-123456","at":"https://h/x?sig=abcdef"}"#;
        let judged = judge(&rules(), &Reply::Answer(answer(422, echo)), Wall(0));
        let judged = judged.blotted(&[&Blotter::new(&secrets), &Blotter::default()]);
        let excerpt = judged.cause.excerpt.expect("a refusal shows what the server said");
        assert_eq!(excerpt, r#"{"you":"Bearer ***","at":"***"}"#);
    }

    #[test]
    fn no_answer_is_judged_by_how_far_the_body_had_come() {
        let check = |progress: Progress, expected: Outcome| {
            let cause = Cause::new(Code::of("cut"), "the connection was cut");
            let judged = judge(&rules(), &Reply::NoAnswer { progress, cause }, Wall(0));
            assert_eq!(judged.outcome, expected);
        };
        check(Progress::Nothing, Outcome::Deferred(Blame::Destination));
        check(Progress::Partial, Outcome::Deferred(Blame::Attempt));
        check(Progress::Whole, Outcome::InDoubt);
    }

    #[test]
    fn a_page_with_200_or_an_unmet_condition_is_the_routes_fault() {
        assert_eq!(outcome(answer(200, " <!DOCTYPE html><p>")), Outcome::RouteFault);
        let mut typed = answer(200, "hello");
        typed.content_type = "text/html; charset=utf-8".into();
        assert_eq!(outcome(typed), Outcome::RouteFault);
        let mut rules = rules();
        rules.success_when = Some(("data.state".into(), "ok".into()));
        let check = |body: &'static str, expected: Outcome| {
            let judged = judge(&rules, &Reply::Answer(answer(200, body)), Wall(0));
            assert_eq!(judged.outcome, expected, "{body}");
        };
        check(r#"{"data":{"state":"ok"}}"#, Outcome::Delivered);
        check(r#"{"data":{"state":"no"}}"#, Outcome::RouteFault);
        check("", Outcome::RouteFault);
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let check = |text: &str, date: Option<&str>, expected: Option<u64>| {
            let mut asked = answer(503, "");
            asked.retry_after = Some(text.into());
            asked.date = date.map(str::to_owned);
            let judged = judge(&rules(), &Reply::Answer(asked), Wall(784_111_777_000));
            assert_eq!(judged.retry_after, expected.map(Duration::from_secs), "{text}");
            assert_eq!(judged.outcome, Outcome::Deferred(Blame::Destination));
        };
        check("7", None, Some(7));
        check("999999", None, Some(999_999));
        check("Sun, 06 Nov 1994 08:50:37 GMT", None, Some(60));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some("Sun, 06 Nov 1994 08:50:27 GMT"), Some(10));
        check("Sun, 06 Nov 1994 08:00:00 GMT", None, Some(0));
        check("soon", None, None);
    }

    #[test]
    fn the_rate_limit_is_read_in_each_of_its_forms() {
        #[track_caller]
        fn check(rate: [&str; 4], date: Option<&str>, expected: [Option<u64>; 3]) {
            let said = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            let [limit, remaining, reset, summary] = rate.map(said);
            let rate = RateHeaders { limit, remaining, reset, summary };
            let answer =
                Answer { status: 200, rate, date: date.map(str::to_owned), ..Answer::default() };
            // Ours is ten minutes ahead of the server's clock.
            let now = Wall(1_795_248_900_000 + 600_000);
            let Allowance { limit, remaining, reset_in } = allowance(&answer, now);
            let reset_in = reset_in.map(|span| span.as_secs());
            assert_eq!([limit, remaining, reset_in], expected, "{answer:?}");
        }
        let date = Some("Sat, 21 Nov 2026 08:15:00 GMT");
        check(["60", "59", "", ""], None, [Some(60), Some(59), None]);
        check(["60", "0", "17", ""], None, [Some(60), Some(0), Some(17)]);
        check(["60", "0", "1795248930", ""], date, [Some(60), Some(0), Some(30)]);
        check(["60", "0", "1795248930000", ""], date, [Some(60), Some(0), Some(30)]);
        check(["60", "0", "1795248930", ""], None, [Some(60), Some(0), Some(0)]);
        check(["100, 100;w=60", "7", "5", ""], None, [Some(100), Some(7), Some(5)]);
        check(["", "", "", "limit=60, remaining=3, reset=20"], None, [Some(60), Some(3), Some(20)]);
        check(["", "", "", "\"api\";r=3;t=20"], None, [None, Some(3), Some(20)]);
        check(["many", "-1", "soon", "x=1"], None, [None, None, None]);
        check(["", "", "", ""], None, [None, None, None]);
        check(["0", "0", "9", ""], None, [None, None, Some(9)]);
        check(["", "", "", "limit=0, remaining=0"], None, [None, None, None]);
    }

    #[test]
    fn only_what_speaks_of_too_much_to_do_is_trouble() {
        let check = |status: u16, expected: bool| {
            let judged = judge(&rules(), &Reply::Answer(answer(status, "")), Wall(0));
            assert_eq!(judged.heard().is_trouble, expected, "{status}");
        };
        for status in [408, 500, 502, 503, 504, 529] {
            check(status, true);
        }
        for status in [200, 401, 404, 422, 429] {
            check(status, false);
        }
        let check = |code: &'static str, expected: bool| {
            let cause = Cause::new(Code::of(code), "no answer");
            let reply = Reply::NoAnswer { progress: Progress::Whole, cause };
            assert_eq!(judge(&rules(), &reply, Wall(0)).heard().is_trouble, expected, "{code}");
            assert_eq!(heard(&reply, Wall(0)).is_trouble, expected, "{code}");
        };
        check("no-answer-timeout", true);
        check("send-stalled", true);
        check("cut", false);
        check("dns", false);
    }

    #[test]
    fn an_answers_text_goes_into_the_excerpt_alone_and_is_bounded() {
        let long: &'static str = Box::leak("x\u{7}".repeat(4_000).into_boxed_str());
        let judged = judge(&rules(), &Reply::Answer(answer(422, long)), Wall(0));
        let excerpt = judged.cause.excerpt.clone().unwrap();
        assert!(excerpt.len() < 2_100 && excerpt.contains("\\u{7}"));
        assert!(!judged.cause.plain.contains("xx") && !judged.end().plain.contains('x'));
    }

    #[test]
    fn without_a_credential_a_401_is_the_routes_own() {
        let judged = |status| judge(&rules(), &Reply::Answer(answer(status, "")), Wall(0));
        let refused = judged(401).without_credential();
        assert_eq!(refused.outcome, Outcome::RouteFault);
        assert!(!refused.cause.plain.contains("token"), "{}", refused.cause.plain);
        assert!(remedy(&refused.cause, None).contains("`hmac`"));
        for status in [200, 422, 429, 503] {
            assert_eq!(judged(status).without_credential(), judged(status));
        }
    }

    #[test]
    fn a_remedy_names_a_command_that_takes_what_it_names() {
        let check = |route: Option<&RouteName>, expected: &str| {
            let cause = Cause::new(Code::of("no-answer-timeout"), "no answer");
            let said = remedy(&cause, route);
            assert!(said.contains(expected), "{expected:?} is not in {said:?}");
        };
        check(Some(&RouteName::new("orders")), "`patchdrop resume orders` tries at once");
        check(None, "`patchdrop resume ROUTE` tries at once");
        let remedy_of_its_own = "Check client_secret of [credential.inbound].".to_owned();
        let cause = Cause::new(Code::of("token-invalid-client"), "refused");
        let cause = Cause { remedy: Some(remedy_of_its_own.clone()), ..cause };
        assert_eq!(remedy(&cause, None), remedy_of_its_own);
    }
}
