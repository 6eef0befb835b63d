//! The token endpoint, as Patchworks documents it (GET) and as stock Laravel Passport has it (POST
//! with the grant in the body). It refuses as league's oauth2-server does, of which Passport is
//! made.

use std::collections::BTreeMap;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::State;
use super::answer::{Cut, Response, json_answer, typed, wrong_method};
use super::body::{Read, Wanted};
use super::caller::{SCOPE, issue};
use super::door::Visit;
use super::rules::{Act, OddToken};
use super::text::{pairs, unbasic};

/// One way to ask for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenWay {
    /// GET, id and secret in a Basic header, the rest in the query.
    GetBasic,
    /// GET, everything in the query.
    GetQuery,
    /// POST, id and secret in a Basic header, the rest in the body.
    PostBasic,
    /// POST, everything in a form body.
    PostForm,
    /// POST, everything in a JSON body.
    PostJson,
}

impl TokenWay {
    /// All sound ways: what is documented, and what stock Passport takes.
    pub const ALL: [Self; 4] = [Self::GetBasic, Self::PostBasic, Self::PostForm, Self::PostJson];
    /// What stock Passport takes.
    pub const PASSPORT: [Self; 3] = [Self::PostBasic, Self::PostForm, Self::PostJson];
}

/// Longest body of a request for a token.
pub(super) const BODY_MAX_BYTES: u64 = 64 * 1024;

pub(super) async fn answer(visit: &Visit<'_>, body: Incoming) -> Result<Response, Cut> {
    visit.state.inner().seen.token_requests += 1;
    for_a_token(visit, body, |body, act| exchange(visit.state, visit.head, body, act)).await
}

/// A request for a token, its short body read as a whole.
pub(super) async fn for_a_token(
    visit: &Visit<'_>,
    body: Incoming,
    exchange: impl FnOnce(&[u8], &Act) -> Response,
) -> Result<Response, Cut> {
    if let Some(answer) = visit.too_early() {
        return visit.turn_away(body, BODY_MAX_BYTES, answer).await;
    }
    let wanted = Wanted { bytes_max: Some(BODY_MAX_BYTES), is_kept: true, ..Wanted::default() };
    let ordinary = |act: &_, read: Read| exchange(&read.kept.unwrap_or_default(), act);
    visit.serve(body, wanted, ordinary).await
}

/// Credentials for a token.
fn exchange(state: &State, head: &Parts, body: &[u8], act: &Act) -> Response {
    let options = &state.options;
    let takes = |way| options.token_ways.contains(&way);
    let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let authorization = text(AUTHORIZATION);
    let basic = authorization.and_then(|value| value.strip_prefix("Basic ")).and_then(unbasic);
    let is_get = head.method == Method::GET;
    let fields: BTreeMap<String, String> =
        if is_get && (takes(TokenWay::GetBasic) || takes(TokenWay::GetQuery)) {
            pairs(head.uri.query().unwrap_or_default())
        } else if head.method == Method::POST {
            let content_type = text(CONTENT_TYPE).unwrap_or_default();
            if content_type.contains("json") && takes(TokenWay::PostJson) {
                serde_json::from_slice(body).unwrap_or_default()
            } else if content_type.contains("form-urlencoded")
                && (takes(TokenWay::PostForm) || takes(TokenWay::PostBasic) && basic.is_some())
            {
                pairs(std::str::from_utf8(body).unwrap_or_default())
            } else {
                BTreeMap::new()
            }
        } else {
            return wrong_method("POST");
        };
    if fields.get("grant_type").map(String::as_str) != Some("client_credentials") {
        return refusal(Refused::Grant);
    }
    let takes_basic = if is_get { takes(TokenWay::GetBasic) } else { takes(TokenWay::PostBasic) };
    let basic = basic.filter(|_| takes_basic);
    let written = || Some((fields.get("client_id")?.clone(), fields.get("client_secret")?.clone()));
    let takes_written = if is_get {
        takes(TokenWay::GetQuery)
    } else {
        takes(TokenWay::PostForm) || takes(TokenWay::PostJson)
    };
    let Some((id, secret)) = basic.or_else(|| takes_written.then(written).flatten()) else {
        return refusal(Refused::Missing("client_id"));
    };
    let is_known = id == options.client_id && secret == options.client_secret.reveal();
    if !is_known || state.inner().is_client_revoked {
        let mut answer = refusal(Refused::Client);
        if authorization.is_some() {
            let realm = HeaderValue::from_static("Basic realm=\"OAuth\"");
            answer.headers_mut().insert(WWW_AUTHENTICATE, realm);
        }
        return answer;
    }
    let scope = fields.get("scope").cloned().unwrap_or_default();
    if !scope.split_whitespace().all(|scope| scope == SCOPE || scope == "*") {
        return refusal(Refused::Scope);
    }
    let token = issue(state, Some(scope));
    let lifetime = options.token_lifetime.as_secs();
    let odd = if let Act::OddToken { how } = act { Some(*how) } else { None };
    let body = json!({ "token_type": "Bearer", "expires_in": lifetime, "access_token": token });
    given_out(body, "access_token", odd)
}

/// The answer that gives a token out, odd if a rule wants it so. `place` is where the token is.
pub(super) fn given_out(mut body: Value, place: &str, odd: Option<OddToken>) -> Response {
    let pointer = format!("/{}", place.replace('.', "/"));
    let lifetime = body.get("expires_in").and_then(Value::as_u64).unwrap_or(0);
    let token = body.pointer(&pointer).and_then(Value::as_str).unwrap_or_default();
    let (place, value) = match odd {
        None | Some(OddToken::CutShort) => (None, Value::Null),
        Some(OddToken::NoLifetime) => (Some("/expires_in"), Value::Null),
        Some(OddToken::NoTime) => (Some("/expires_in"), json!(0)),
        Some(OddToken::LifetimeAsText) => (Some("/expires_in"), json!(lifetime.to_string())),
        Some(OddToken::Absent) => (Some(&*pointer), Value::Null),
        Some(OddToken::Empty) => (Some(&*pointer), json!("")),
        Some(OddToken::ControlCharacter) => {
            (Some(&*pointer), json!(format!("{token}\r\nX-Injected: yes")))
        }
    };
    if let Some(here) = place.and_then(|place| body.pointer_mut(place)) {
        *here = value;
    }
    if odd == Some(OddToken::NoLifetime)
        && let Some(fields) = body.as_object_mut()
    {
        fields.remove("expires_in");
    }
    if odd == Some(OddToken::CutShort) {
        let mut text = body.to_string();
        text.truncate(text.len() / 2);
        return typed(StatusCode::OK, "application/json", text);
    }
    json_answer(StatusCode::OK, &body)
}

/// Why there is no token.
#[derive(Clone, Copy)]
enum Refused {
    Grant,
    Missing(&'static str),
    Client,
    Scope,
}

fn refusal(refused: Refused) -> Response {
    let (status, error, description, hint) = match refused {
        Refused::Grant => (
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            "The authorization grant type is not supported by the authorization server.",
            Some("Check that all required parameters have been provided".to_owned()),
        ),
        Refused::Missing(field) => (
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "The request is missing a required parameter, includes an invalid parameter value, \
             includes a parameter more than once, or is otherwise malformed.",
            Some(format!("Check the `{field}` parameter")),
        ),
        Refused::Client => {
            (StatusCode::UNAUTHORIZED, "invalid_client", "Client authentication failed", None)
        }
        Refused::Scope => (
            StatusCode::BAD_REQUEST,
            "invalid_scope",
            "The requested scope is invalid, unknown, or malformed",
            Some("Check the `scope` parameter".to_owned()),
        ),
    };
    let mut body =
        json!({ "error": error, "error_description": description, "message": description });
    if let (Some(hint), Some(fields)) = (hint, body.as_object_mut()) {
        fields.insert("hint".to_owned(), json!(hint));
    }
    json_answer(status, &body)
}
