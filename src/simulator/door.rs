//! One request: what it is for, whether it is let in, what becomes of its body.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::time::{Duration, Instant};

use super::oauth::{self, Bearer};
use super::record::Payload;
use super::rules::{self, Act, View};
use super::{Inner, Rule, State, hang};
use crate::model::file::Digest;

pub(super) type Response = hyper::Response<Full<Bytes>>;

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    #[error("cut on purpose")]
    OnPurpose,
    #[error("the sender went away")]
    BySender,
}

/// A body that is not kept: what is remembered of it.
struct Read {
    sha256: Digest,
    bytes: u64,
    found: Vec<String>,
    kept: Option<Bytes>,
}

enum Reading {
    Done(Read),
    TooLarge,
}

pub(super) async fn answer(
    request: Request<Incoming>,
    state: &Arc<State>,
) -> Result<Response, Cut> {
    let (head, body) = request.into_parts();
    if let Some(page) = head.uri.path().strip_prefix("/_simulator/") {
        return pages(page, &head, body, state).await;
    }
    {
        let mut inner = state.inner();
        inner.seen.requests += 1;
        inner.in_flight += 1;
        inner.seen.concurrency_peak = inner.seen.concurrency_peak.max(inner.in_flight);
    }
    let _leaves = Leaves(state);
    let path = head.uri.path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let answered = match parts.as_slice() {
        ["oauth", "token"] => token(&head, body, state).await,
        ["v1", company, vanity] => inbound(&head, body, state, company, vanity).await,
        ["hook", name] => admit(&head, body, state, name, None).await,
        _ => Ok(message(StatusCode::NOT_FOUND, "Not Found")),
    };
    let mut inner = state.inner();
    match &answered {
        Ok(answer) => *inner.seen.by_status.entry(answer.status().as_u16()).or_default() += 1,
        Err(Cut::OnPurpose) => inner.seen.cut += 1,
        Err(Cut::BySender) => inner.seen.broken_off += 1,
    }
    answered
}

/// Counts a request out, also one whose sender went away.
struct Leaves<'a>(&'a State);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.inner().in_flight -= 1;
    }
}

async fn token(head: &Parts, body: Incoming, state: &State) -> Result<Response, Cut> {
    state.inner().seen.token_requests += 1;
    let body = collect(body).await?;
    Ok(oauth::answer(state, head, &body))
}

/// The inbound API lets nobody in without a token, and reads no body that is too large.
async fn inbound(
    head: &Parts,
    body: Incoming,
    state: &State,
    company: &str,
    vanity: &str,
) -> Result<Response, Cut> {
    let options = &state.options;
    if content_length(head) > options.body_max_bytes {
        return Ok(too_large());
    }
    if head.method != Method::POST {
        let text = "The method is not supported for this route. Supported methods: POST.";
        return Ok(message(StatusCode::METHOD_NOT_ALLOWED, text));
    }
    let bearer = state.inner().bearer(head, options.token_uses_max);
    match bearer {
        Bearer::Good => {}
        Bearer::Unknown => {
            swallow(body, options.body_max_bytes).await?;
            return Ok(message(StatusCode::UNAUTHORIZED, "Unauthenticated."));
        }
        Bearer::WithoutScope => {
            swallow(body, options.body_max_bytes).await?;
            return Ok(message(StatusCode::FORBIDDEN, "Invalid scope(s) provided."));
        }
    }
    let pace = state.inner().pace(options.rate);
    if let Some(Pace { wait: Some(wait), limit, .. }) = pace {
        swallow(body, options.body_max_bytes).await?;
        let mut answer = message(StatusCode::TOO_MANY_REQUESTS, "Too Many Attempts.");
        let headers = answer.headers_mut();
        let seconds = wait.as_secs().max(1);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        headers.insert("x-ratelimit-limit", HeaderValue::from(limit));
        headers.insert("x-ratelimit-remaining", HeaderValue::from(0));
        headers.insert("x-ratelimit-reset", HeaderValue::from(seconds));
        return Ok(answer);
    }
    let is_known = match &options.vanities {
        Some(vanities) => vanities.contains(vanity),
        None => is_vanity(vanity),
    };
    if company != options.company || !is_known {
        swallow(body, options.body_max_bytes).await?;
        return Ok(message(StatusCode::NOT_FOUND, "Not Found"));
    }
    let mut answer = admit(head, body, state, vanity, Some(options.body_max_bytes)).await?;
    if let Some(pace) = pace {
        let headers = answer.headers_mut();
        headers.insert("x-ratelimit-limit", HeaderValue::from(pace.limit));
        headers.insert("x-ratelimit-remaining", HeaderValue::from(pace.remaining));
    }
    Ok(answer)
}

fn is_vanity(text: &str) -> bool {
    let is_fit = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
    };
    (3..=36).contains(&text.len()) && text.bytes().all(is_fit)
}

#[derive(Clone, Copy)]
struct Pace {
    limit: u32,
    remaining: u32,
    wait: Option<Duration>,
}

impl Inner {
    /// Counts a request against the rate limit.
    fn pace(&mut self, rate: Option<(u32, Duration)>) -> Option<Pace> {
        let (limit, span) = rate?;
        let now = Instant::now();
        let (since, count) = match self.window {
            Some((since, count)) if now < since + span => (since, count),
            _ => (now, 0),
        };
        let count = count.saturating_add(1);
        self.window = Some((since, count));
        let wait = (count > limit).then(|| (since + span).saturating_duration_since(now));
        Some(Pace { limit, remaining: limit.saturating_sub(count), wait })
    }
}

/// A request that was let in: rules first, then the ordinary.
async fn admit(
    head: &Parts,
    body: Incoming,
    state: &State,
    vanity: &str,
    bytes_max: Option<u64>,
) -> Result<Response, Cut> {
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let (name, key) = (text(&state.options.name_header), text(&state.options.key_header));
    if let Some(name) = name {
        state.inner().seen.count_name(name);
    }
    let act = |found: Option<&[String]>| {
        let mut inner = state.inner();
        let Inner { seen, rules, tally, .. } = &mut *inner;
        let tokens_issued = seen.tokens_issued;
        let view = View { vanity, name, key, bytes: content_length(head), tokens_issued, found };
        rules::act(rules, tally, &view)
    };
    let early = act(None);
    match &early {
        Some(Act::AnswerEarly { status }) => {
            let mut answer = message(status_of(*status), "Answered before the body was read.");
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Ok(answer);
        }
        Some(Act::HangUnread) => match hang(state).await {},
        Some(Act::CutMidBody) => {
            swallow(body, content_length(head) / 2).await?;
            return Err(Cut::OnPurpose);
        }
        _ => {}
    }
    let read = match read(body, state, bytes_max).await? {
        Reading::Done(read) => read,
        Reading::TooLarge => return Ok(too_large()),
    };
    let act = early.or_else(|| act(Some(&read.found))).unwrap_or_default();
    if let Act::Slow { millis } = act {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    let stores = matches!(
        act,
        Act::Store
            | Act::Slow { .. }
            | Act::StoreThenAnswer { .. }
            | Act::StoreThenCut
            | Act::StoreThenHang
    );
    if stores {
        store(state, head, vanity, (name, key), read);
    }
    conclude(act, state).await
}

async fn conclude(act: Act, state: &State) -> Result<Response, Cut> {
    match act {
        Act::Store | Act::Slow { .. } => {
            Ok(message(StatusCode::OK, "Payload stored successfully."))
        }
        Act::StoreThenAnswer { status } | Act::AnswerEarly { status } => {
            Ok(message(status_of(status), "Answered by a rule of the simulator."))
        }
        Act::StoreThenCut | Act::CutMidBody => Err(Cut::OnPurpose),
        Act::StoreThenHang | Act::Hang | Act::HangUnread => match hang(state).await {},
        Act::Answer { status, message: text, retry_after } => {
            let text = text.as_deref().unwrap_or("Answered by a rule of the simulator.");
            let mut answer = message(status_of(status), text);
            if let Some(seconds) = retry_after {
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            Ok(answer)
        }
        Act::Html => {
            let page = "<!DOCTYPE html><html><title>Sign in</title><p>Please sign in.</html>";
            let mut answer = hyper::Response::new(Full::from(page));
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            answer.headers_mut().insert(CONTENT_TYPE, html);
            Ok(answer)
        }
        Act::Redirect => {
            let mut answer = message(StatusCode::FOUND, "Found");
            answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/login"));
            Ok(answer)
        }
    }
}

fn store(
    state: &State,
    head: &Parts,
    vanity: &str,
    (name, key): (Option<&str>, Option<&str>),
    read: Read,
) {
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default();
    let payload = Payload {
        vanity: Box::from(vanity),
        key: key.map(Box::from),
        name: name.map(Box::from),
        sha256: read.sha256,
        bytes: read.bytes,
        is_json: content_type.contains("/json") || content_type.contains("+json"),
    };
    let mut inner = state.inner();
    inner.use_token(head);
    inner.seen.accepted += 1;
    inner.seen.accepted_bytes += read.bytes;
    if inner.seen.payloads.len() < state.options.payloads_max {
        inner.seen.payloads.push(payload);
        inner.bodies.extend(read.kept);
    }
}

/// Reads a body to its end without keeping it, looking for what the rules look for.
async fn read(mut body: Incoming, state: &State, bytes_max: Option<u64>) -> Result<Reading, Cut> {
    let wanted: Vec<String> =
        state.inner().rules.iter().filter_map(|rule| rule.when.contains.clone()).collect();
    let overlap = wanted.iter().map(String::len).max().unwrap_or(0);
    let mut hasher = Sha256::new();
    let mut bytes = 0;
    let mut found = Vec::new();
    let mut window = BytesMut::new();
    let mut kept = state.options.keep_bodies.then(BytesMut::new);
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.map_err(|_| Cut::BySender)?.into_data() else { continue };
        bytes += chunk.len() as u64;
        if bytes_max.is_some_and(|max| bytes > max) {
            return Ok(Reading::TooLarge);
        }
        hasher.update(&chunk);
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(&chunk);
        }
        if overlap > 0 {
            window.extend_from_slice(&chunk);
            for text in &wanted {
                if !found.contains(text) && holds(&window, text.as_bytes()) {
                    found.push(text.clone());
                }
            }
            let keep_from = window.len().saturating_sub(overlap);
            window = window.split_off(keep_from);
        }
    }
    let sha256 = Digest(hasher.finalize().into());
    Ok(Reading::Done(Read { sha256, bytes, found, kept: kept.map(BytesMut::freeze) }))
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}

/// Reads up to so many bytes and drops them.
async fn swallow(mut body: Incoming, bytes_max: u64) -> Result<(), Cut> {
    let mut bytes = 0;
    while bytes < bytes_max
        && let Some(frame) = body.frame().await
    {
        if let Ok(chunk) = frame.map_err(|_| Cut::BySender)?.into_data() {
            bytes += chunk.len() as u64;
        }
    }
    Ok(())
}

async fn collect(body: Incoming) -> Result<Bytes, Cut> {
    let limited = http_body_util::Limited::new(body, 1024 * 1024);
    Ok(limited.collect().await.map_err(|_| Cut::BySender)?.to_bytes())
}

/// The simulator's own pages: `seen`, `counts`, `rules`, `revoke`, `stop`.
async fn pages(page: &str, head: &Parts, body: Incoming, state: &State) -> Result<Response, Cut> {
    let body = collect(body).await?;
    let answer = match (&head.method, page) {
        (&Method::GET, "seen") => {
            let seen = state.inner().seen.clone();
            json_answer(StatusCode::OK, &seen)
        }
        (&Method::GET, "counts") => {
            let counts = state.inner().seen.counts();
            json_answer(StatusCode::OK, &counts)
        }
        (&Method::GET, "rules") => {
            let rules = state.inner().rules.clone();
            json_answer(StatusCode::OK, &rules)
        }
        (&Method::POST, "rules") => match serde_json::from_slice::<Vec<Rule>>(&body) {
            Ok(rules) => {
                state.inner().set_rules(rules);
                message(StatusCode::OK, "Rules set.")
            }
            Err(error) => message(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        (&Method::POST, "revoke") => {
            state.inner().tokens.clear();
            message(StatusCode::OK, "All tokens have ended.")
        }
        (&Method::POST, "stop") => {
            state.stopped.cancel();
            message(StatusCode::OK, "Stopped.")
        }
        _ => message(StatusCode::NOT_FOUND, "There is seen, counts, rules, revoke and stop."),
    };
    Ok(answer)
}

fn content_length(head: &Parts) -> u64 {
    let text = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn too_large() -> Response {
    let mut answer = message(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large.");
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn message(status: StatusCode, text: &str) -> Response {
    json_answer(status, &json!({ "message": text }))
}

pub(super) fn json_answer<T: serde::Serialize>(status: StatusCode, body: &T) -> Response {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut answer = hyper::Response::new(Full::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
