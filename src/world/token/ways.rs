//! How a token is asked for: every way as a request, and what needs no asking.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{CONNECT_TIMEOUT, TIMEOUT};
use crate::model::exchange::{Body, Request, percent_encoded};
use crate::model::route::{CredentialKind, CredentialsIn, Login, OAuth2, TokenMethod};
use crate::model::secret::Secret;

/// How a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Way {
    GetBasic,
    GetQuery,
    GetForm,
    GetJson,
    PostBasic,
    PostQuery,
    PostForm,
    PostJson,
    Login,
}

/// Every way that may be tried, in order; none for a kind that asks for nothing.
pub(super) fn ways(kind: &CredentialKind) -> Vec<Way> {
    match kind {
        CredentialKind::OAuth2(oauth2) => oauth2_ways(oauth2),
        CredentialKind::Login(_) => vec![Way::Login],
        CredentialKind::ApiKey(_) | CredentialKind::Bearer(_) | CredentialKind::Basic { .. } => {
            Vec::new()
        }
    }
}

/// The request for a token, this way; `None` if this kind knows no such way.
pub(super) fn request(kind: &CredentialKind, way: Way) -> Option<Request> {
    match kind {
        CredentialKind::OAuth2(oauth2) if way != Way::Login => Some(oauth2_request(oauth2, way)),
        CredentialKind::Login(login) if way == Way::Login => Some(login_request(login)),
        CredentialKind::OAuth2(_)
        | CredentialKind::Login(_)
        | CredentialKind::ApiKey(_)
        | CredentialKind::Bearer(_)
        | CredentialKind::Basic { .. } => None,
    }
}

/// What goes into `Authorization` where nothing is asked for; `None` for the other kinds.
pub(super) fn fixed(kind: &CredentialKind) -> Option<Secret> {
    match kind {
        CredentialKind::OAuth2(_) | CredentialKind::Login(_) => None,
        CredentialKind::ApiKey(key) => Some(key.clone()),
        CredentialKind::Bearer(token) => Some(Secret::new(format!("Bearer {}", token.reveal()))),
        CredentialKind::Basic { user, password } => Some(basic(user, password)),
    }
}

/// RFC 7617; the characters are UTF-8.
fn basic(user: &str, password: &Secret) -> Secret {
    let pair = format!("{user}:{}", password.reveal());
    Secret::new(format!("Basic {}", STANDARD.encode(pair)))
}

/// Every form in which a server could repeat what was sent to it.
pub(super) fn telling_forms(kind: &CredentialKind) -> Vec<String> {
    let (id, secret) = match kind {
        CredentialKind::OAuth2(oauth2) => (oauth2.client_id.as_str(), &oauth2.client_secret),
        CredentialKind::Login(login) => (login.email.as_str(), &login.password),
        CredentialKind::Basic { user, password } => (user.as_str(), password),
        CredentialKind::ApiKey(secret) | CredentialKind::Bearer(secret) => ("", secret),
    };
    let secret = secret.reveal();
    let pair = format!("{id}:{secret}");
    let mut forms = vec![secret.to_owned()];
    for plain in [secret, pair.as_str()] {
        let letters = STANDARD.encode(plain);
        forms.push(letters.trim_end_matches('=').replace('+', "-").replace('/', "_"));
        forms.push(letters);
        let escaped = percent_encoded(plain);
        forms.push(escaped.replace("%20", "+"));
        forms.push(escaped);
    }
    forms.retain(|form| !form.is_empty());
    forms
}

/// Whether a Basic header of these holds what RFC 6749 (2.3.1) would have encoded first. Stock
/// Passport decodes nothing there, so it goes as it is.
pub(super) fn is_read_in_two_ways(oauth2: &OAuth2) -> bool {
    let is_plain = |text: &str| percent_encoded(text) == text;
    !(is_plain(&oauth2.client_id) && is_plain(oauth2.client_secret.reveal()))
}

fn oauth2_ways(oauth2: &OAuth2) -> Vec<Way> {
    let get = |credentials_in| match credentials_in {
        CredentialsIn::Basic => Way::GetBasic,
        CredentialsIn::Query => Way::GetQuery,
        CredentialsIn::Form => Way::GetForm,
        CredentialsIn::Json => Way::GetJson,
    };
    let post = |credentials_in| match credentials_in {
        CredentialsIn::Basic => Way::PostBasic,
        CredentialsIn::Query => Way::PostQuery,
        CredentialsIn::Form => Way::PostForm,
        CredentialsIn::Json => Way::PostJson,
    };
    match (oauth2.method, oauth2.credentials_in) {
        (TokenMethod::Auto, None) => vec![Way::GetBasic, Way::PostForm, Way::PostJson],
        (TokenMethod::Auto, Some(CredentialsIn::Form)) => vec![Way::PostForm],
        (TokenMethod::Auto, Some(CredentialsIn::Json)) => vec![Way::PostJson],
        (TokenMethod::Auto, Some(both)) => vec![get(both), post(both)],
        (TokenMethod::Get, place) => vec![get(place.unwrap_or(CredentialsIn::Basic))],
        (TokenMethod::Post, place) => vec![post(place.unwrap_or(CredentialsIn::Form))],
    }
}

impl Way {
    /// The way in words, for people.
    pub(super) fn plain(self) -> &'static str {
        match self {
            Self::GetBasic => "GET, credentials in the Basic header",
            Self::GetQuery => "GET, credentials in the query",
            Self::GetForm => "GET, credentials in a form body",
            Self::GetJson => "GET, credentials in a JSON body",
            Self::PostBasic => "POST, credentials in the Basic header",
            Self::PostQuery => "POST, credentials in the query",
            Self::PostForm => "POST, credentials in a form body",
            Self::PostJson => "POST, credentials in a JSON body",
            Self::Login => "POST, e-mail and password in a JSON body",
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::GetBasic | Self::GetQuery | Self::GetForm | Self::GetJson => "GET",
            Self::PostBasic | Self::PostQuery | Self::PostForm | Self::PostJson | Self::Login => {
                "POST"
            }
        }
    }

    /// Whether id and secret stand in an `Authorization` header.
    pub(super) fn is_basic(self) -> bool {
        matches!(self, Self::GetBasic | Self::PostBasic)
    }
}

fn oauth2_request(oauth2: &OAuth2, way: Way) -> Request {
    let mut fields: BTreeMap<&str, &str> =
        oauth2.extra.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    fields.insert("grant_type", "client_credentials");
    if let Some(scope) = oauth2.scope.as_deref().filter(|scope| !scope.is_empty()) {
        fields.insert("scope", scope);
    }
    let mut headers = Vec::new();
    if way.is_basic() {
        let value = basic(&oauth2.client_id, &oauth2.client_secret);
        headers.push(("Authorization".to_owned(), value));
    } else {
        fields.insert("client_id", &oauth2.client_id);
        fields.insert("client_secret", oauth2.client_secret.reveal());
    }
    let mut url = oauth2.token_url.clone();
    let body = match way {
        Way::GetBasic | Way::GetQuery | Way::PostQuery => {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&form(&fields));
            None
        }
        Way::GetForm | Way::PostForm | Way::PostBasic => {
            Some(("application/x-www-form-urlencoded", form(&fields)))
        }
        Way::GetJson | Way::PostJson | Way::Login => Some(("application/json", json(&fields))),
    };
    exchange(way, url, headers, body)
}

fn login_request(login: &Login) -> Request {
    let mut fields: BTreeMap<&str, &str> =
        login.extra.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    fields.insert(&login.user_field, &login.email);
    fields.insert(&login.password_field, login.password.reveal());
    let body = Some(("application/json", json(&fields)));
    exchange(Way::Login, login.login_url.clone(), Vec::new(), body)
}

/// `Accept` matters: without it Patchworks' APIs may answer with a page.
fn exchange(
    way: Way,
    url: String,
    mut headers: Vec<(String, Secret)>,
    body: Option<(&str, String)>,
) -> Request {
    headers.insert(0, ("Accept".to_owned(), Secret::new("application/json")));
    let (content_type, body) = body.unzip();
    if let Some(content_type) = content_type {
        headers.push(("Content-Type".to_owned(), Secret::new(content_type)));
    }
    Request {
        method: way.method(),
        url: Secret::new(url),
        headers,
        body: Body::Bytes(Bytes::from(body.unwrap_or_default())),
        connect_timeout: CONNECT_TIMEOUT,
        timeout: TIMEOUT,
    }
}

fn json(fields: &BTreeMap<&str, &str>) -> String {
    serde_json::to_string(fields).expect("a map of strings is JSON")
}

/// `application/x-www-form-urlencoded`.
fn form(fields: &BTreeMap<&str, &str>) -> String {
    let pair = |(name, value): (&&str, &&str)| {
        format!("{}={}", percent_encoded(name), percent_encoded(value))
    };
    fields.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// Two digits.
pub(super) fn hex(byte: u8) -> [char; 2] {
    [byte >> 4, byte & 15].map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or('0'))
}
