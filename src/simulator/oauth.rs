//! The token endpoint, as Patchworks documents it (GET) and as stock Laravel Passport has it (POST
//! with the grant in the body).

use std::collections::BTreeMap;

use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::door::{Response, json_answer};
use super::{Inner, State};

/// One way to ask for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenWay {
    /// GET, id and secret in a Basic header, the rest in the query.
    GetBasic,
    /// POST, id and secret in a Basic header, the rest in the body.
    PostBasic,
    /// POST, everything in a form body.
    PostForm,
    /// POST, everything in a JSON body.
    PostJson,
}

impl TokenWay {
    /// All ways: what is documented, and what stock Passport takes.
    pub const ALL: [Self; 4] = [Self::GetBasic, Self::PostBasic, Self::PostForm, Self::PostJson];
    /// What stock Passport takes.
    pub const PASSPORT: [Self; 3] = [Self::PostBasic, Self::PostForm, Self::PostJson];
}

/// A token that was given out.
#[derive(Debug)]
pub(super) struct Issued {
    ends_at: Instant,
    scope: String,
    uses: u64,
}

/// What a bearer token is good for.
pub(super) enum Bearer {
    Good,
    Unknown,
    WithoutScope,
}

const SCOPE: &str = "access-inbound";

impl Inner {
    pub(super) fn bearer(&self, head: &Parts, uses_max: Option<u64>) -> Bearer {
        let token = head
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        match token.and_then(|token| self.tokens.get(token)) {
            Some(issued)
                if Instant::now() < issued.ends_at
                    && uses_max.is_none_or(|max| issued.uses < max) =>
            {
                let mut scopes = issued.scope.split(' ');
                if scopes.any(|scope| scope == SCOPE || scope == "*") {
                    Bearer::Good
                } else {
                    Bearer::WithoutScope
                }
            }
            _ => Bearer::Unknown,
        }
    }

    /// Counts an accepted payload against the token that let it in.
    pub(super) fn use_token(&mut self, head: &Parts) {
        let value = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| value.strip_prefix("Bearer "));
        if let Some(issued) = token.and_then(|token| self.tokens.get_mut(token)) {
            issued.uses += 1;
        }
    }
}

/// Answers a token request whose body has been read.
pub(super) fn answer(state: &State, head: &Parts, body: &[u8]) -> Response {
    let options = &state.options;
    let takes = |way| options.token_ways.contains(&way);
    let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let basic = authorization.and_then(|value| value.strip_prefix("Basic ")).and_then(unbasic);
    let fields = if head.method == Method::GET && takes(TokenWay::GetBasic) {
        pairs(head.uri.query().unwrap_or_default())
    } else if head.method == Method::POST {
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default();
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
        let message = "The method is not supported for this route. Supported methods: POST.";
        return json_answer(StatusCode::METHOD_NOT_ALLOWED, &json!({ "message": message }));
    };
    if fields.get("grant_type").map(String::as_str) != Some("client_credentials") {
        return refusal(400, "unsupported_grant_type", "Check the `grant_type` parameter");
    }
    let basic = basic.filter(|_| takes(TokenWay::PostBasic) || head.method == Method::GET);
    let in_body = || Some((fields.get("client_id")?.clone(), fields.get("client_secret")?.clone()));
    let pair = if head.method == Method::GET { basic } else { basic.or_else(in_body) };
    let Some((id, secret)) = pair else {
        return refusal(400, "invalid_request", "Check the `client_id` parameter");
    };
    if id != options.client_id || secret != options.client_secret.reveal() {
        let mut answer = refusal(401, "invalid_client", "Client authentication failed");
        if authorization.is_some() {
            let realm = hyper::header::HeaderValue::from_static("Basic realm=\"OAuth\"");
            answer.headers_mut().insert(hyper::header::WWW_AUTHENTICATE, realm);
        }
        return answer;
    }
    let scope = fields.get("scope").cloned().unwrap_or_default();
    if !scope.split_whitespace().all(|scope| scope == SCOPE || scope == "*") {
        return refusal(400, "invalid_scope", "Check the `scope` parameter");
    }
    issue(state, scope)
}

fn issue(state: &State, scope: String) -> Response {
    let lifetime = state.options.token_lifetime;
    let mut inner = state.inner();
    inner.seen.tokens_issued += 1;
    let token = format!("simulated.{:08}.{}", inner.seen.tokens_issued, serial());
    let issued = Issued { ends_at: Instant::now() + lifetime, scope, uses: 0 };
    inner.tokens.insert(token.clone(), issued);
    drop(inner);
    let seconds = lifetime.as_secs();
    json_answer(
        StatusCode::OK,
        &json!({ "token_type": "Bearer", "expires_in": seconds, "access_token": token }),
    )
}

/// So that a token of an earlier run is not taken for one of this run.
fn serial() -> String {
    let number = getrandom::u64().unwrap_or_default();
    format!("{number:016x}")
}

fn refusal(status: u16, error: &str, hint: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = json!({ "error": error, "error_description": hint, "hint": hint, "message": hint });
    json_answer(status, &body)
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (unescape(name), unescape(value)))
        .collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let digits = std::str::from_utf8(&digits).unwrap_or("00");
                bytes.push(u8::from_str_radix(digits, 16).unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The pair in a Basic header.
fn unbasic(text: &str) -> Option<(String, String)> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut group, mut bits) = (0_u32, 0_u32);
    for letter in text.trim_end_matches('=').bytes() {
        let value = LETTERS.iter().position(|known| *known == letter)?;
        group = group << 6 | u32::try_from(value).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(group >> bits & 0xff).ok()?);
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}
