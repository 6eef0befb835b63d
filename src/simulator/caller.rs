//! Who is let in, and how whoever is not is told.

use hyper::StatusCode;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION};
use hyper::http::request::Parts;
use tokio::time::Instant;

use super::State;
use super::answer::{Response, message};
use super::text::unbasic;

/// The scope of the inbound API.
pub(super) const SCOPE: &str = "access-inbound";

/// A token that was given out.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) ends_at: Instant,
    /// Scopes, one blank between; `None`: it comes from a login.
    pub(super) scope: Option<String>,
    /// Payloads that it let in.
    pub(super) uses: u64,
}

/// What a credential is good for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    Unknown,
    WithoutScope,
}

/// Which credentials a door takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Tokens of the token endpoint.
    Oauth2,
    /// API keys and tokens of the login.
    Core,
    /// Any of both.
    Any,
}

/// `None` if the caller may go on, else what it is told.
pub(super) fn refuse(state: &State, head: &Parts, takes: Takes) -> Option<Response> {
    match standing(state, head, takes) {
        Standing::Good => None,
        Standing::WithoutScope => {
            Some(message(StatusCode::FORBIDDEN, "Invalid scope(s) provided."))
        }
        Standing::Unknown => Some(unauthenticated(head)),
    }
}

/// Laravel leads who does not ask for JSON to its login page.
fn unauthenticated(head: &Parts) -> Response {
    if accepts_json(head) {
        return message(StatusCode::UNAUTHORIZED, "Unauthenticated.");
    }
    let mut answer = message(StatusCode::FOUND, "Found");
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/login"));
    answer
}

/// Whether the first type that is accepted is JSON: what Laravel's `wantsJson` looks at.
fn accepts_json(head: &Parts) -> bool {
    let accept = head.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let first = accept.split(',').next().unwrap_or("");
    first.contains("/json") || first.contains("+json")
}

fn authorization(head: &Parts) -> Option<&str> {
    head.headers.get(AUTHORIZATION)?.to_str().ok()
}

fn standing(state: &State, head: &Parts, takes: Takes) -> Standing {
    let options = &state.options;
    let Some(value) = authorization(head) else { return Standing::Unknown };
    if let Some(pair) = value.strip_prefix("Basic ") {
        let is_known = options.basic.as_ref().is_some_and(|(user, password)| {
            unbasic(pair).is_some_and(|(id, secret)| id == *user && secret == password.reveal())
        });
        return if is_known { Standing::Good } else { Standing::Unknown };
    }
    let Some(token) = value.strip_prefix("Bearer ") else {
        let is_key =
            takes != Takes::Oauth2 && options.api_keys.iter().any(|known| known.reveal() == value);
        return if is_key { Standing::Good } else { Standing::Unknown };
    };
    if options.bearer.as_ref().is_some_and(|known| known.reveal() == token) {
        return Standing::Good;
    }
    let inner = state.inner();
    let Some(issued) = inner.tokens.get(token) else { return Standing::Unknown };
    if Instant::now() >= issued.ends_at
        || options.token_uses_max.is_some_and(|max| issued.uses >= max)
    {
        return Standing::Unknown;
    }
    let may_inbound = issued
        .scope
        .as_ref()
        .is_some_and(|scopes| scopes.split(' ').any(|scope| scope == SCOPE || scope == "*"));
    let is_good = match takes {
        Takes::Oauth2 => may_inbound,
        Takes::Core => issued.scope.is_none(),
        Takes::Any => may_inbound || issued.scope.is_none(),
    };
    if is_good { Standing::Good } else { Standing::WithoutScope }
}

/// Counts an accepted payload against the token that let it in.
pub(super) fn use_token(state: &State, head: &Parts) {
    let token = authorization(head).and_then(|value| value.strip_prefix("Bearer "));
    let mut inner = state.inner();
    if let Some(issued) = token.and_then(|token| inner.tokens.get_mut(token)) {
        issued.uses += 1;
    }
}

/// Gives out a token.
pub(super) fn issue(state: &State, scope: Option<String>) -> String {
    let mut inner = state.inner();
    inner.seen.tokens_issued += 1;
    let token = format!("simulated.{:08}.{}", inner.seen.tokens_issued, serial());
    let ends_at = Instant::now() + state.options.token_lifetime;
    inner.tokens.insert(token.clone(), Issued { ends_at, scope, uses: 0 });
    token
}

/// So that a token of an earlier run is not taken for one of this run.
fn serial() -> String {
    let number = getrandom::u64().unwrap_or_default();
    format!("{number:016x}")
}
