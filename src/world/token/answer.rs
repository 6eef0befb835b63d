//! What the answer of a token endpoint means: a token, or one clear sentence and a hint.
//!
//! Nothing of an answer stands in a sentence: a server may repeat what it was sent (promise P11).

use std::time::Duration;

use serde_json::Value;

use super::ways::{Way, is_read_in_two_ways, telling_forms};
use super::{LIFETIME_MAX, REFUSED_WAIT};
use crate::model::exchange::{Answer, Reply};
use crate::model::outcome::{Cause, Code};
use crate::model::route::{Credential, CredentialKind};
use crate::model::time::Wall;

/// Longest token; servers refuse headers beyond 8 to 32 KB anyway.
const TOKEN_MAX: usize = 16 * 1024;
/// Of what a server says about its refusal this many characters are kept.
const DESCRIPTION_MAX: usize = 300;
/// Where tokens are found unless the config names one field: with `OAuth2`, with Patchworks' login,
/// and below `data` as Patchworks' resources have it.
const TOKEN_FIELDS: [&str; 4] = ["access_token", "token", "data.access_token", "data.token"];
const LIFETIME_FIELDS: [&str; 2] = ["expires_in", "data.expires_in"];

/// What a token endpoint gave.
pub(super) struct Grant {
    pub(super) token: String,
    pub(super) lifetime: Duration,
    /// The answer named no lifetime: it is the config's.
    pub(super) is_assumed: bool,
}

/// Why it gave nothing.
pub(super) struct Refusal {
    pub(super) cause: Cause,
    pub(super) remedy: String,
    pub(super) retry_after: Option<Duration>,
    /// The next way may work.
    pub(super) goes_on: bool,
    /// The endpoint could not be asked, as opposed to: it said no.
    pub(super) is_away: bool,
    /// Of several refusals the one of the highest rank is told, of equal ones the last.
    pub(super) rank: u8,
}

impl Refusal {
    fn new(code: &'static str, plain: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            cause: Cause::new(Code::of(code), plain),
            remedy: remedy.into(),
            retry_after: None,
            goes_on: false,
            is_away: false,
            rank: 3,
        }
    }

    fn away(mut self, retry_after: Option<Duration>) -> Self {
        self.is_away = true;
        self.retry_after = retry_after;
        self
    }

    fn goes_on(mut self, rank: u8) -> Self {
        self.goes_on = true;
        self.rank = rank;
        self
    }
}

/// One question to a token endpoint, for saying what became of it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) credential: &'a Credential,
    pub(super) way: Way,
}

impl Asked<'_> {
    fn is_login(self) -> bool {
        matches!(self.credential.kind, CredentialKind::Login(_))
    }

    /// What messages call the endpoint.
    fn url(self) -> &'static str {
        if self.is_login() { "the login URL" } else { "the token URL" }
    }

    fn table(self) -> String {
        format!("[credential.{}]", self.credential.name)
    }

    /// `login_url of [credential.x]`.
    fn url_key(self) -> String {
        let key = if self.is_login() { "login_url" } else { "token_url" };
        format!("{key} of {}", self.table())
    }

    /// The keys that say how it is asked.
    fn way_keys(self) -> String {
        let keys = if self.is_login() {
            "login_url, user_field and password_field"
        } else {
            "token_url, method and credentials_in"
        };
        format!("{keys} of {}", self.table())
    }

    fn token_field(self) -> Option<String> {
        match &self.credential.kind {
            CredentialKind::OAuth2(oauth2) => oauth2.token_field.clone(),
            CredentialKind::Login(login) => login.token_field.clone(),
            CredentialKind::ApiKey(_)
            | CredentialKind::Bearer(_)
            | CredentialKind::Basic { .. } => None,
        }
    }

    /// What a reply means. `now` is for a `Retry-After` that is a date.
    pub(super) fn understand(self, reply: &Reply, now: Wall) -> Result<Grant, Refusal> {
        let answer = match reply {
            Reply::Answer(answer) => answer,
            Reply::NoAnswer { cause, .. } => return Err(self.unreachable(cause)),
            Reply::Changed => {
                let cause = Cause::new(Code::of("cut"), "the request was broken off");
                return Err(self.unreachable(&cause));
            }
        };
        let status = answer.status;
        if (300..400).contains(&status) {
            return Err(Refusal::new(
                "token-redirect",
                format!("{} answered {status}, a redirect, as a login page does", self.url()),
                format!("Check {}: it must be the endpoint itself.", self.url_key()),
            )
            .goes_on(1));
        }
        if status >= 500 || status == 429 || status == 408 {
            return Err(self.busy(answer, now));
        }
        let json = serde_json::from_slice::<Value>(&answer.body).ok();
        if json.is_none() && looks_like_html(answer) {
            return Err(Refusal::new(
                "token-html",
                format!("{} answered {status} with an HTML page instead of a token", self.url()),
                format!(
                    "Check {}, and whether a proxy or login page is in between.",
                    self.url_key()
                ),
            )
            .goes_on(1));
        }
        if (200..300).contains(&status) {
            return self.grant(status, json.as_ref());
        }
        Err(self.refusal_of_status(answer, json.as_ref()))
    }

    fn unreachable(self, cause: &Cause) -> Refusal {
        let (code, plain) = if cause.code == Code::of("tls") {
            let plain = format!("no secure connection to {}: {}", self.url(), cause.plain);
            let remedy = format!(
                "Check {}; a proxy that opens TLS connections to look inside is a likely cause, \
                 and its CA must then be among the system's.",
                self.url_key()
            );
            return Refusal::new("token-tls", plain, remedy).away(None);
        } else if cause.code == Code::of("request-invalid") {
            ("token-request-invalid", format!("the token cannot be asked for: {}", cause.plain))
        } else {
            ("token-unreachable", format!("{} cannot be reached: {}", self.url(), cause.plain))
        };
        let remedy = format!("Check {} and the network; patchdrop goes on trying.", self.url_key());
        Refusal::new(code, plain, remedy).away(None)
    }

    fn busy(self, answer: &Answer, now: Wall) -> Refusal {
        let retry_after = answer.asked_wait(now);
        if answer.status == 429 {
            return Refusal::new(
                "token-throttled",
                format!("{} answered 429: too many token requests", self.url()),
                "Nothing to do if it passes; else see who else uses these credentials.",
            )
            .away(Some(retry_after.unwrap_or(REFUSED_WAIT.0)));
        }
        Refusal::new(
            "token-unavailable",
            format!("{} answered {}: the server is in trouble", self.url(), answer.status),
            format!("Nothing to do if it passes; else ask whoever runs {}.", self.url_key()),
        )
        .away(retry_after)
    }

    fn refusal_of_status(self, answer: &Answer, json: Option<&Value>) -> Refusal {
        let status = answer.status;
        let error = json.and_then(|json| json.get("error")).and_then(Value::as_str);
        let error = error.filter(|_| !self.is_login());
        let known = error.and_then(|error| self.of_error(error));
        let rank = match error {
            // Said only by a server that has understood the request and knows the client: what it
            // says to another way tells less.
            Some("invalid_scope" | "unauthorized_client") => 4,
            Some(_) => 2,
            None => 1,
        };
        let refusal = known.unwrap_or_else(|| self.of_bare_status(status));
        let goes_on =
            matches!(status, 400 | 404 | 405 | 415 | 422) && error != Some("invalid_client");
        let refusal = if goes_on { refusal.goes_on(rank) } else { refusal };
        let excerpt = json.and_then(|json| self.description(json));
        Refusal { cause: refusal.cause.with_excerpt(excerpt), ..refusal }
    }

    /// RFC 6749, 5.2.
    fn of_error(self, error: &str) -> Option<Refusal> {
        let table = self.table();
        Some(match error {
            "invalid_client" => Refusal::new(
                "token-invalid-client",
                "the token URL refused the client id or the client secret (invalid_client)",
                format!(
                    "Check client_id and client_secret of {table}; a secret is shown once, so make \
                     a new one if in doubt{}.",
                    self.basic_advice()
                ),
            ),
            "invalid_scope" => Refusal::new(
                "token-invalid-scope",
                "the token URL refused the scope (invalid_scope)",
                format!("Check scope of {table}; \"\" asks for none."),
            ),
            "invalid_request" => Refusal::new(
                "token-invalid-request",
                "the token URL misses something in the request (invalid_request)",
                format!("Check {}, and whether it wants more, as extra.", self.way_keys()),
            ),
            "unsupported_grant_type" => Refusal::new(
                "token-unsupported-grant",
                "the token URL does not take client credentials this way (unsupported_grant_type)",
                format!("Check {}.", self.way_keys()),
            ),
            "unauthorized_client" => Refusal::new(
                "token-unauthorized-client",
                "this client may not ask for a token with its credentials (unauthorized_client)",
                format!("Check that the client of {table} is meant for client credentials."),
            ),
            _ => return None,
        })
    }

    fn basic_advice(self) -> &'static str {
        match &self.credential.kind {
            CredentialKind::OAuth2(oauth2)
                if self.way.is_basic() && is_read_in_two_ways(oauth2) =>
            {
                ". It holds signs that servers read differently in a Basic header: credentials_in \
                 = \"form\" avoids that"
            }
            CredentialKind::OAuth2(_)
            | CredentialKind::Login(_)
            | CredentialKind::ApiKey(_)
            | CredentialKind::Bearer(_)
            | CredentialKind::Basic { .. } => "",
        }
    }

    fn of_bare_status(self, status: u16) -> Refusal {
        let (url, table) = (self.url(), self.table());
        match status {
            404 => Refusal::new(
                "token-not-found",
                format!("{url} answered 404: nothing is there"),
                if self.is_login() {
                    format!("Check {}.", self.url_key())
                } else {
                    format!("Check {} on the connector's authentication tab.", self.url_key())
                },
            ),
            400 | 401 | 403 | 422 if self.is_login() => Refusal::new(
                "token-login-refused",
                format!("{url} answered {status}: it refused the e-mail address or the password"),
                format!(
                    "Check email and password of {table}; if it misses a field, user_field and \
                     password_field."
                ),
            ),
            401 | 403 => Refusal::new(
                "token-refused",
                format!("{url} answered {status}: it refused the client id or the secret"),
                format!("Check client_id and client_secret of {table}."),
            ),
            405 | 415 => Refusal::new(
                "token-method",
                format!("{url} answered {status}: it does not take the request this way"),
                format!("Check {}.", self.way_keys()),
            ),
            _ => Refusal::new(
                "token-refused",
                format!("{url} answered {status} without a token"),
                format!("Check {}.", self.way_keys()),
            ),
        }
    }

    /// What the server says about its refusal, unless that repeats a secret.
    fn description(self, json: &Value) -> Option<String> {
        let text = ["error_description", "message", "hint"]
            .iter()
            .find_map(|key| json.get(key).and_then(Value::as_str))?;
        let forms = telling_forms(&self.credential.kind);
        // Percent signs may be followed by digits of either case.
        let small = text.to_ascii_lowercase();
        let repeats = forms.iter().any(|form| small.contains(&form.to_ascii_lowercase()));
        let shown = || text.chars().take(DESCRIPTION_MAX).flat_map(char::escape_default).collect();
        (!repeats).then(shown)
    }

    fn grant(self, status: u16, json: Option<&Value>) -> Result<Grant, Refusal> {
        let Some(json) = json else {
            return Err(Refusal::new(
                "token-not-json",
                format!("{} answered {status} with something that is not JSON", self.url()),
                format!("Check {}.", self.url_key()),
            ));
        };
        let wanted = self.token_field();
        let found = match &wanted {
            Some(wanted) => field(json, wanted),
            None => TOKEN_FIELDS
                .iter()
                .filter_map(|name| field(json, name))
                .find(|found| found.is_string()),
        };
        let Some(token) = found.and_then(Value::as_str) else {
            let fields = wanted.unwrap_or_else(|| "access_token or token".to_owned());
            let mut refusal = Refusal::new(
                "token-no-field",
                format!("{}'s answer has no text field {fields}", self.url()),
                format!("Check {} and token_field.", self.url_key()),
            );
            refusal.cause.excerpt = self.description(json);
            return Err(refusal);
        };
        if !is_token(token) {
            return Err(Refusal::new(
                "token-malformed",
                format!("{}'s answer holds a token that no header can carry", self.url()),
                format!("Check {} and token_field.", self.url_key()),
            ));
        }
        let (lifetime, is_assumed) = self.lifetime(json)?;
        Ok(Grant { token: token.to_owned(), lifetime, is_assumed })
    }

    /// How long the token lives, and whether that is the config's word alone.
    fn lifetime(self, json: &Value) -> Result<(Duration, bool), Refusal> {
        let seconds = LIFETIME_FIELDS.iter().find_map(|name| field(json, name)).and_then(|value| {
            value.as_f64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()))
        });
        match seconds.filter(|seconds| !seconds.is_nan()) {
            None => Ok((self.credential.lifetime, true)),
            Some(seconds) if seconds >= 1.0 => {
                let lifetime = Duration::try_from_secs_f64(seconds).unwrap_or(LIFETIME_MAX);
                Ok((lifetime.min(LIFETIME_MAX), false))
            }
            Some(_) => Err(Refusal::new(
                "token-expired",
                format!("{} gave a token that has already ended (expires_in below 1)", self.url()),
                format!(
                    "Ask whoever runs {}; the server's clock or settings are wrong.",
                    self.url_key()
                ),
            )),
        }
    }
}

/// The field of a dotted name.
fn field<'v>(json: &'v Value, name: &str) -> Option<&'v Value> {
    name.split('.').try_fold(json, |value, part| value.get(part))
}

fn looks_like_html(answer: &Answer) -> bool {
    let start = answer.body.trim_ascii_start();
    answer.content_type.contains("html")
        || start.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"<html"))
        || start.get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"<!doctype"))
}

/// Visible ASCII without spaces: what `Authorization` can carry after `Bearer `.
pub(super) fn is_token(text: &str) -> bool {
    (1..=TOKEN_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
