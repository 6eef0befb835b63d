//! One request: what it is for, what the rules want, how it is answered.

use std::sync::{Arc, OnceLock};

use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use tokio::time::Duration;

use super::answer::{Cut, Response, message, not_found, status_of, too_large, typed};
use super::body::{self, Read, Wanted, swallow};
use super::caller::use_token;
use super::options::Door;
use super::pace::{self, Pace};
use super::record::{Payload, Started};
use super::rules::{self, Act, View};
use super::{Inner, State, flow, hang, inbound, login, oauth, pages, run, webhook};

/// How much of a body is read of which nothing is wanted.
const UNWANTED_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What a path leads to.
enum Road<'a> {
    Token,
    Login,
    Inbound { company: &'a str, vanity: &'a str },
    Start { flow: &'a str, rest: &'a [&'a str] },
    Runs { rest: &'a [&'a str] },
    Webhook { id: &'a str, environment: Option<&'a str> },
    Hook { name: &'a str },
    Nowhere,
}

impl<'a> Road<'a> {
    fn of(parts: &'a [&'a str], company: &str) -> Self {
        match parts {
            ["oauth", "token"] => Self::Token,
            ["api", "v1", "login"] | ["fabric", "api", "login"] => Self::Login,
            ["v1", company, vanity] => Self::Inbound { company, vanity },
            ["api", "v1", "flows", flow, rest @ ..] => Self::Start { flow, rest },
            ["api", "v1", "flow-runs", rest @ ..] => Self::Runs { rest },
            ["api", "v1", of, id] if *of == company => Self::Webhook { id, environment: None },
            ["api", "v1", of, id, environment] if *of == company => {
                Self::Webhook { id, environment: Some(environment) }
            }
            ["hook", name] => Self::Hook { name },
            _ => Self::Nowhere,
        }
    }

    fn door(&self) -> (Door, &'a str) {
        match self {
            Self::Token => (Door::Token, ""),
            Self::Login => (Door::Login, ""),
            Self::Inbound { vanity, .. } => (Door::Inbound, vanity),
            Self::Start { flow, .. } => (Door::Start, flow),
            Self::Runs { rest } => (Door::Runs, rest.first().copied().unwrap_or("")),
            Self::Webhook { id, .. } => (Door::Webhook, id),
            Self::Hook { name } => (Door::Hook, name),
            Self::Nowhere => (Door::Nowhere, ""),
        }
    }
}

pub(super) async fn answer(
    request: Request<Incoming>,
    state: &Arc<State>,
) -> Result<Response, Cut> {
    let (head, body) = request.into_parts();
    if let Some(page) = head.uri.path().strip_prefix("/_simulator/") {
        return pages::answer(page, &head, body, state).await;
    }
    let path = head.uri.path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let road = Road::of(&parts, &state.options.company);
    let (door, place) = road.door();
    let in_flight = {
        let mut inner = state.inner();
        inner.seen.requests += 1;
        inner.seen.doors.entry(door).or_default().requests += 1;
        inner.in_flight += 1;
        inner.seen.concurrency_peak = inner.seen.concurrency_peak.max(inner.in_flight);
        inner.in_flight
    };
    let _leaves = Leaves(state);
    let visit = Visit { door, place, path: &path, head: &head, state, pace: OnceLock::new() };
    let answered = match pace::crowded(state, in_flight) {
        Some(answer) => visit.turn_away(body, UNWANTED_MAX_BYTES, answer).await,
        None => enter(&visit, road, body).await,
    };
    let answered = answered.map(|answer| Pace::mark(visit.pace.get().copied(), answer));
    if answered.is_ok() && !state.options.latency.is_zero() {
        tokio::time::sleep(state.options.latency).await;
    }
    let mut inner = state.inner();
    let seen = &mut inner.seen;
    match &answered {
        Ok(answer) => {
            let status = answer.status().as_u16();
            *seen.by_status.entry(status).or_default() += 1;
            *seen.doors.entry(door).or_default().by_status.entry(status).or_default() += 1;
        }
        Err(Cut::OnPurpose) => seen.cut += 1,
        Err(Cut::BySender) => seen.broken_off += 1,
    }
    answered
}

async fn enter(visit: &Visit<'_>, road: Road<'_>, body: Incoming) -> Result<Response, Cut> {
    match road {
        Road::Token => oauth::answer(visit, body).await,
        Road::Login => login::answer(visit, body).await,
        Road::Inbound { company, .. } => inbound::answer(visit, company, body).await,
        Road::Start { rest, .. } => flow::answer(visit, rest, body).await,
        Road::Runs { rest } => run::answer(visit, rest, body).await,
        Road::Webhook { environment, .. } => webhook::answer(visit, environment, body).await,
        Road::Hook { .. } => inbound::hook(visit, body).await,
        Road::Nowhere => visit.turn_away(body, UNWANTED_MAX_BYTES, not_found()).await,
    }
}

/// Counts a request out, also one whose sender went away.
struct Leaves<'a>(&'a State);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.inner().in_flight -= 1;
    }
}

/// One request at one door.
pub(super) struct Visit<'a> {
    pub(super) door: Door,
    /// The vanity, the flow's, run's or webhook's id, or the name of the plain door.
    pub(super) place: &'a str,
    pub(super) path: &'a str,
    pub(super) head: &'a Parts,
    pub(super) state: &'a State,
    /// What the door says of its rate, once the request was counted and came in time.
    pace: OnceLock<Pace>,
}

/// What the rules made of a request.
enum Admitted {
    /// It has its answer already.
    Answered(Response),
    /// Its body was read; then this is to happen.
    In(Act, Read),
}

impl Visit<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Counts against the rate of the door, of which the answer then speaks; the answer itself to a
    /// request that comes too early.
    pub(super) fn too_early(&self) -> Option<Response> {
        match pace::enter(self.state, self.door) {
            Ok(pace) => {
                if let Some(pace) = pace {
                    self.pace.get_or_init(|| pace);
                }
                None
            }
            Err(answer) => Some(answer),
        }
    }

    /// Answers a request whose body is of no interest, when the body is there.
    pub(super) async fn turn_away(
        &self,
        body: Incoming,
        most: u64,
        answer: Response,
    ) -> Result<Response, Cut> {
        swallow(body, most).await?;
        Ok(answer)
    }

    /// A request that was let in, to its answer: what the rules want of it, else what is ordinary.
    pub(super) async fn serve(
        &self,
        body: Incoming,
        wanted: Wanted<'_>,
        ordinary: impl FnOnce(&Act, Read) -> Response,
    ) -> Result<Response, Cut> {
        match self.admit(body, wanted).await? {
            Admitted::Answered(answer) => Ok(answer),
            Admitted::In(act, read) => self.finish(act, |act| ordinary(act, read)).await,
        }
    }

    /// Rules first, then the body.
    async fn admit(&self, body: Incoming, wanted: Wanted<'_>) -> Result<Admitted, Cut> {
        let options = &self.state.options;
        let takes_payloads = self.door.takes_payloads();
        if takes_payloads && let Some(name) = self.header(&options.name_header) {
            self.state.inner().seen.count_name(name);
        }
        let early = self.act(None);
        match &early {
            Some(Act::AnswerEarly { status }) => {
                let text = "Answered before the body was read.";
                let mut answer = message(status_of(*status), text);
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                return Ok(Admitted::Answered(answer));
            }
            Some(Act::HangUnread) => match hang(self.state).await {},
            Some(Act::CutMidBody) => {
                swallow(body, content_length(self.head) / 2).await?;
                return Err(Cut::OnPurpose);
            }
            _ => {}
        }
        let is_kept = wanted.is_kept || options.keep_bodies && takes_payloads;
        let Some(read) = body::read(body, self.state, Wanted { is_kept, ..wanted }).await? else {
            return Ok(Admitted::Answered(too_large()));
        };
        let act = early.or_else(|| self.act(Some(&read.found))).unwrap_or_default();
        if let Act::Slow { millis } = act {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        Ok(Admitted::In(act, read))
    }

    fn act(&self, found: Option<&[String]>) -> Option<Act> {
        let options = &self.state.options;
        let mut inner = self.state.inner();
        let Inner { seen, rules, tally, .. } = &mut *inner;
        let view = View {
            door: self.door,
            path: self.path,
            vanity: self.place,
            name: self.header(&options.name_header),
            key: self.header(&options.key_header),
            bytes: content_length(self.head),
            tokens_issued: seen.tokens_issued,
            found,
        };
        rules::act(rules, tally, &view)
    }

    /// Keeps what there is to know of a payload.
    pub(super) fn store(&self, read: Read, environment: Option<&str>, start: Option<Box<Started>>) {
        use_token(self.state, self.head);
        let options = &self.state.options;
        let announced_bytes = self.header(CONTENT_LENGTH.as_str()).and_then(|it| it.parse().ok());
        let payload = Payload {
            door: self.door,
            vanity: Box::from(self.place),
            method: Box::from(self.head.method.as_str()),
            key: self.header(&options.key_header).map(Box::from),
            name: self.header(&options.name_header).map(Box::from),
            sha256: read.sha256,
            bytes: read.bytes,
            announced_bytes,
            content_type: Box::from(self.header(CONTENT_TYPE.as_str()).unwrap_or_default()),
            is_json: is_json(self.head),
            environment: environment.map(Box::from),
            start,
        };
        let mut inner = self.state.inner();
        inner.seen.accepted += 1;
        inner.seen.accepted_bytes += read.bytes;
        inner.seen.unannounced += u64::from(announced_bytes.is_none() && read.bytes > 0);
        if inner.seen.payloads.len() < options.payloads_max {
            inner.seen.payloads.push(payload);
            inner.bodies.extend(read.kept.filter(|_| options.keep_bodies));
        }
    }

    /// Does what is ordinary if the act wants that, and answers as it wants.
    async fn finish(
        &self,
        act: Act,
        ordinary: impl FnOnce(&Act) -> Response,
    ) -> Result<Response, Cut> {
        let by_rule = "Answered by a rule of the simulator.";
        let answer = act.stores().then(|| ordinary(&act));
        match act {
            Act::Store | Act::Slow { .. } | Act::OddToken { .. } | Act::Run { .. } => {
                answer.ok_or(Cut::OnPurpose)
            }
            Act::StoreThenAnswer { status } | Act::AnswerEarly { status } => {
                Ok(message(status_of(status), by_rule))
            }
            Act::StoreThenCut | Act::CutMidBody => Err(Cut::OnPurpose),
            Act::StoreThenHang | Act::Hang | Act::HangUnread => match hang(self.state).await {},
            Act::Answer { status, message: text, retry_after } => {
                let mut answer = message(status_of(status), text.as_deref().unwrap_or(by_rule));
                if let Some(seconds) = retry_after {
                    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
                }
                Ok(answer)
            }
            Act::Html => {
                let page = "<!DOCTYPE html><html><title>Sign in</title><p>Please sign in.</html>";
                Ok(typed(StatusCode::OK, "text/html; charset=utf-8", page))
            }
            Act::Redirect => {
                let mut answer = message(StatusCode::FOUND, "Found");
                answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/login"));
                Ok(answer)
            }
            Act::Reply { status, content_type, body, headers, .. } => {
                let mut answer = typed(status_of(status), &content_type, body);
                for (name, value) in headers {
                    let pair = (HeaderName::try_from(name), HeaderValue::try_from(value));
                    if let (Ok(name), Ok(value)) = pair {
                        answer.headers_mut().insert(name, value);
                    }
                }
                Ok(answer)
            }
        }
    }
}

/// Whether `Content-Type` says JSON.
pub(super) fn is_json(head: &Parts) -> bool {
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|text| text.contains("/json") || text.contains("+json"))
}

pub(super) fn content_length(head: &Parts) -> u64 {
    let text = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}
