//! `[credential.NAME]`, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::address::UrlRules;
use super::page::{At, Sink};
use super::raw::{KINDS, Kind, RawCredential};
use super::section::Written;
use super::span::show_span;
use super::suggest;
use super::vault::Vault;
use crate::model::route::{Credential, CredentialKind, CredentialsIn, Login, OAuth2, TokenMethod};
use crate::model::secret::Secret;

const REFRESH_BEFORE: Duration = Duration::from_mins(10);
const LIFETIME: Duration = Duration::from_hours(24);
/// The scope that Patchworks' inbound API wants.
const SCOPE: &str = "access-inbound";
/// Where the Core API's documentation logs in; other pages of it name other hosts.
const LOGIN_URL: &str = "https://svc-fabric.pwks.co/api/v1/login";
const USER_FIELD: &str = "email";
const PASSWORD_FIELD: &str = "password";
const WHERE_SHOWN: &str = "the connector's authentication tab shows it";

use Kind::{ApiKey, Basic, Bearer, Login as LoginKind, OAuth2 as OAuth2Kind};

/// Which kinds a key means something for. What is not here holds for every kind.
const MEANT_FOR: [(&str, &[Kind]); 19] = [
    ("token_url", &[OAuth2Kind]),
    ("method", &[OAuth2Kind]),
    ("credentials_in", &[OAuth2Kind]),
    ("scope", &[OAuth2Kind]),
    ("client_id", &[OAuth2Kind]),
    ("client_secret", &[OAuth2Kind]),
    ("login_url", &[LoginKind]),
    ("user_field", &[LoginKind]),
    ("password_field", &[LoginKind]),
    ("email", &[LoginKind]),
    ("password", &[LoginKind, Basic]),
    ("extra", &[OAuth2Kind, LoginKind]),
    ("token_field", &[OAuth2Kind, LoginKind]),
    ("refresh_before", &[OAuth2Kind, LoginKind]),
    ("lifetime", &[OAuth2Kind, LoginKind]),
    ("keep_token", &[OAuth2Kind, LoginKind]),
    ("api_key", &[ApiKey]),
    ("token", &[Bearer]),
    ("user", &[Basic]),
];

/// What a kind cannot do without, and where it comes from.
fn needed(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind {
        OAuth2Kind => &[
            ("token_url", WHERE_SHOWN),
            ("client_id", WHERE_SHOWN),
            (
                "client_secret",
                "write client_secret = { env = \"NAME\" }, { file = \"PATH\" } or { stored = \"NAME\" }",
            ),
        ],
        LoginKind => &[
            ("email", "the e-mail address that somebody logs in to Patchworks with"),
            (
                "password",
                "write password = { env = \"NAME\" }, { file = \"PATH\" } or { stored = \"NAME\" }",
            ),
        ],
        ApiKey => &[(
            "api_key",
            "write api_key = { env = \"NAME\" }, { file = \"PATH\" } or { stored = \"NAME\" }",
        )],
        Bearer => &[(
            "token",
            "write token = { env = \"NAME\" }, { file = \"PATH\" } or { stored = \"NAME\" }",
        )],
        Basic => &[
            ("user", "write user = 'NAME'"),
            (
                "password",
                "write password = { env = \"NAME\" }, { file = \"PATH\" } or { stored = \"NAME\" }",
            ),
        ],
    }
}

/// Checks one credential. Its hosts are only those that it names itself.
pub(super) fn check(
    sink: &Sink,
    urls: UrlRules<'_>,
    vault: &Vault<'_>,
    name: &At<String>,
    raw: &RawCredential,
) -> Option<Credential> {
    let kind = raw.kind.as_ref().map(|kind| kind.value);
    check_keys(sink, name, raw, kind);
    let opened = Opened::of(urls, vault, raw);
    opened.note_pairs(vault);
    check_exchange(sink, name, raw, kind);
    check_signs(sink, raw, &opened);
    let hosts: BTreeSet<String> = raw
        .hosts
        .iter()
        .flat_map(|hosts| &hosts.value)
        .filter_map(|written| urls.host(written))
        .collect();
    Some(Credential {
        name: Arc::from(name.value.as_str()),
        kind: opened.into_kind(kind?, raw)?,
        refresh_before: raw.refresh_before.as_ref().map_or(REFRESH_BEFORE, |span| span.value),
        lifetime: raw.lifetime.as_ref().map_or(LIFETIME, |span| span.value),
        keep_token: raw.keep_token.as_ref().is_none_or(|keep| keep.value),
        hosts,
    })
}

/// Where each key is written that only some kinds have.
fn written(raw: &RawCredential) -> [(&'static str, Option<At<()>>); 19] {
    fn place<T>(written: Option<&At<T>>) -> Option<At<()>> {
        written.map(|written| written.with(()))
    }
    // A table has no line of its own: its first entry's is near enough.
    let extra = raw.extra.values().min_by_key(|value| value.line);
    [
        ("token_url", place(raw.token_url.as_ref())),
        ("login_url", place(raw.login_url.as_ref())),
        ("method", place(raw.method.as_ref())),
        ("credentials_in", place(raw.credentials_in.as_ref())),
        ("scope", place(raw.scope.as_ref())),
        ("extra", place(extra)),
        ("token_field", place(raw.token_field.as_ref())),
        ("user_field", place(raw.user_field.as_ref())),
        ("password_field", place(raw.password_field.as_ref())),
        ("client_id", place(raw.client_id.as_ref())),
        ("client_secret", place(raw.client_secret.as_ref())),
        ("email", place(raw.email.as_ref())),
        ("password", place(raw.password.as_ref())),
        ("api_key", place(raw.api_key.as_ref())),
        ("token", place(raw.token.as_ref())),
        ("user", place(raw.user.as_ref())),
        ("refresh_before", place(raw.refresh_before.as_ref())),
        ("lifetime", place(raw.lifetime.as_ref())),
        ("keep_token", place(raw.keep_token.as_ref())),
    ]
}

/// Keys that are missing for this kind, and keys that mean nothing for it.
fn check_keys(sink: &Sink, name: &At<String>, raw: &RawCredential, kind: Option<Kind>) {
    let Some(kind) = kind else {
        let words = KINDS.map(|(word, _)| word);
        sink.missing(name, "kind", &format!("write kind = {}", suggest::list(&words)));
        return;
    };
    let places = written(raw);
    let is_written =
        |key: &str| places.iter().any(|(known, place)| *known == key && place.is_some());
    for (key, hint) in needed(kind) {
        if !is_written(key) {
            sink.missing(name, key, hint);
        }
    }
    for (key, place) in &places {
        let meant_for = MEANT_FOR.iter().find(|(known, _)| known == key).map(|(_, kinds)| *kinds);
        if let (Some(place), Some(meant_for)) = (place, meant_for)
            && !meant_for.contains(&kind)
        {
            let others: Vec<&str> = meant_for.iter().map(|kind| word(*kind)).collect();
            let text = format!("means nothing with kind = \"{}\"", word(kind));
            let hint = format!("take it out, or write kind = {}", suggest::list(&others));
            sink.fault(place.notice(text, hint));
        }
    }
}

fn word(kind: Kind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(word, _)| word)
}

/// Everything written, looked up, whether or not the kind wants it: all faults are told at once.
struct Opened {
    token_url: Option<String>,
    login_url: Option<String>,
    client_id: Option<Secret>,
    client_secret: Option<Secret>,
    email: Option<Secret>,
    password: Option<Secret>,
    api_key: Option<Secret>,
    token: Option<Secret>,
    user: Option<Secret>,
}

impl Opened {
    fn of(urls: UrlRules<'_>, vault: &Vault<'_>, raw: &RawCredential) -> Self {
        let open = |written: &Option<At<Written>>| vault.open(written.as_ref()?);
        let login_url = match &raw.login_url {
            Some(written) => urls.url(written).map(Into::into),
            None => Some(LOGIN_URL.to_owned()),
        };
        Self {
            token_url: raw.token_url.as_ref().and_then(|written| urls.url(written)).map(Into::into),
            login_url,
            client_id: open(&raw.client_id),
            client_secret: open(&raw.client_secret),
            email: open(&raw.email),
            password: open(&raw.password),
            api_key: open(&raw.api_key),
            token: open(&raw.token),
            user: open(&raw.user),
        }
    }

    /// Name and secret together are what Basic puts into one base64 word. (The log blots the
    /// base64 and percent-encoded forms of whatever is noted.)
    fn note_pairs(&self, vault: &Vault<'_>) {
        for (id, secret) in [(&self.client_id, &self.client_secret), (&self.user, &self.password)] {
            if let (Some(id), Some(secret)) = (id, secret)
                && !secret.reveal().is_empty()
            {
                vault.note(&format!("{}:{}", id.reveal(), secret.reveal()));
            }
        }
    }

    fn into_kind(self, kind: Kind, raw: &RawCredential) -> Option<CredentialKind> {
        let extra: BTreeMap<String, String> =
            raw.extra.iter().map(|(name, value)| (name.clone(), value.value.clone())).collect();
        let text = |written: &Option<At<String>>| written.as_ref().map(|text| text.value.clone());
        Some(match kind {
            OAuth2Kind => CredentialKind::OAuth2(OAuth2 {
                token_url: self.token_url?,
                method: raw.method.as_ref().map_or(TokenMethod::Auto, |method| method.value),
                credentials_in: raw.credentials_in.as_ref().map(|place| place.value),
                client_id: self.client_id?.reveal().to_owned(),
                client_secret: self.client_secret?,
                scope: match &raw.scope {
                    None => Some(SCOPE.to_owned()),
                    Some(scope) => Some(scope.value.clone()).filter(|scope| !scope.is_empty()),
                },
                extra,
                token_field: text(&raw.token_field),
            }),
            LoginKind => CredentialKind::Login(Login {
                login_url: self.login_url?,
                user_field: text(&raw.user_field).unwrap_or_else(|| USER_FIELD.to_owned()),
                password_field: text(&raw.password_field)
                    .unwrap_or_else(|| PASSWORD_FIELD.to_owned()),
                email: self.email?.reveal().to_owned(),
                password: self.password?,
                extra,
                token_field: text(&raw.token_field),
            }),
            ApiKey => CredentialKind::ApiKey(self.api_key?),
            Bearer => CredentialKind::Bearer(self.token?),
            Basic => CredentialKind::Basic {
                user: self.user?.reveal().to_owned(),
                password: self.password?,
            },
        })
    }
}

/// What the exchange for a token cannot be.
fn check_exchange(sink: &Sink, name: &At<String>, raw: &RawCredential, kind: Option<Kind>) {
    if let (Some(method), Some(place)) = (&raw.method, &raw.credentials_in)
        && method.value == TokenMethod::Get
        && matches!(place.value, CredentialsIn::Form | CredentialsIn::Json)
    {
        sink.fault(place.notice(
            "a GET has no body that id and secret could stand in",
            "write method = \"POST\", or credentials_in = \"basic\"",
        ));
    }
    let lifetime = raw.lifetime.as_ref().map_or(LIFETIME, |span| span.value);
    let refresh_before = raw.refresh_before.as_ref().map_or(REFRESH_BEFORE, |span| span.value);
    if refresh_before >= lifetime {
        let written = raw.refresh_before.as_ref().or(raw.lifetime.as_ref());
        let place = written.map_or_else(|| name.with(()), |span| span.with(()));
        sink.fault(place.notice(
            format!(
                "refresh_before ({}) is not shorter than lifetime ({}): no token would ever do",
                show_span(refresh_before),
                show_span(lifetime)
            ),
            "make refresh_before a small part of lifetime",
        ));
    }
    for (field, example) in [
        (&raw.token_field, "access_token"),
        (&raw.user_field, USER_FIELD),
        (&raw.password_field, PASSWORD_FIELD),
    ] {
        if let Some(field) = field
            && (field.value.is_empty() || field.value.chars().any(char::is_control))
        {
            sink.fault(field.notice("not a field", format!("write the name, e.g. '{example}'")));
        }
    }
    check_fields(sink, raw, kind);
}

/// What stands in the request already cannot stand there twice.
fn check_fields(sink: &Sink, raw: &RawCredential, kind: Option<Kind>) {
    let field = |written: &Option<At<String>>, default: &str| {
        written.as_ref().map_or_else(|| default.to_owned(), |field| field.value.clone())
    };
    let reserved = if kind == Some(LoginKind) {
        let user = field(&raw.user_field, USER_FIELD);
        let password = field(&raw.password_field, PASSWORD_FIELD);
        if user == password {
            let place = raw.password_field.as_ref().or(raw.user_field.as_ref());
            if let Some(place) = place {
                let text = "user_field and password_field are the same";
                sink.fault(place.notice(text, "write the two names that the login wants"));
            }
        }
        vec![user, password]
    } else {
        ["grant_type", "client_id", "client_secret", "scope"].map(str::to_owned).to_vec()
    };
    for name in reserved {
        if let Some(value) = raw.extra.get(&name) {
            let hint = match name.as_str() {
                "grant_type" => "take it out: patchdrop sends client_credentials",
                _ => "write it as a key of the credential, not below extra",
            };
            sink.fault(value.notice("extra cannot replace what the exchange itself sends", hint));
        }
    }
}

/// What no header or exchange can carry. No message repeats a value: it may be the secret.
fn check_signs(sink: &Sink, raw: &RawCredential, opened: &Opened) {
    for (written, hint) in [
        (&raw.client_id, WHERE_SHOWN),
        (&raw.email, "write the e-mail address"),
        (&raw.user, "write the user's name"),
    ] {
        if let Some(written) = written
            && written.value == Written::Plain(String::new())
        {
            sink.fault(written.notice("must not be empty", hint));
        }
    }
    let fault = |written: &Option<At<Written>>, text: &str, hint: &str| {
        if let Some(written) = written {
            sink.fault(written.notice(text, hint));
        }
    };
    let is_visible = |letter: char| letter.is_ascii_graphic();
    if let Some(key) = &opened.api_key
        && !key.reveal().chars().all(|letter| is_visible(letter) || letter == ' ')
    {
        let hint = "copy the key alone; it is made of letters, digits and signs of ASCII";
        fault(&raw.api_key, "the key holds what no header can carry", hint);
    }
    if let Some(token) = &opened.token {
        let text = token.reveal();
        if text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
            let hint = "take the word Bearer out: patchdrop writes it";
            fault(&raw.token, "the token begins with the word Bearer", hint);
        } else if !text.chars().all(is_visible) {
            let hint = "copy the token alone, without spaces";
            fault(&raw.token, "the token holds what no header can carry", hint);
        }
    }
    if let Some(user) = &opened.user {
        if user.reveal().contains(':') {
            let text = "a colon in the name would end it: RFC 7617 allows none";
            fault(&raw.user, text, "ask for another name");
        } else if user.reveal().chars().any(char::is_control) {
            fault(&raw.user, "the name holds control characters", "write the user's name alone");
        }
    }
}
