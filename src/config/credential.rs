//! `[credential.NAME]`, checked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::address::UrlRules;
use super::page::{At, Sink};
use super::raw::RawCredential;
use super::section::Written;
use super::span::show_span;
use super::vault::Vault;
use crate::model::route::{Credential, CredentialsIn, OAuth2, TokenMethod};
use crate::model::secret::Secret;

const REFRESH_BEFORE: Duration = Duration::from_mins(10);
const LIFETIME: Duration = Duration::from_hours(24);
/// The scope that Patchworks' inbound API wants.
const SCOPE: &str = "access-inbound";
const WHERE_SHOWN: &str = "the connector's authentication tab shows it";

/// Checks one credential. Its hosts are only those that it names itself.
pub(super) fn check(
    sink: &Sink,
    urls: UrlRules<'_>,
    vault: &Vault<'_>,
    name: &At<String>,
    raw: &RawCredential,
) -> Option<Credential> {
    let need = |key: &str, is_there: bool, hint: &str| {
        if !is_there {
            sink.missing(name, key, hint);
        }
    };
    need("kind", raw.kind.is_some(), "write kind = \"oauth2\"");
    need("token_url", raw.token_url.is_some(), WHERE_SHOWN);
    need("client_id", raw.client_id.is_some(), WHERE_SHOWN);
    let hint = "write client_secret = { env = \"NAME\" } or { file = \"PATH\" }";
    need("client_secret", raw.client_secret.is_some(), hint);
    let token_url = raw.token_url.as_ref().and_then(|written| urls.url(written));
    let client_id = raw.client_id.as_ref().and_then(|written| vault.open(written));
    let client_secret = raw.client_secret.as_ref().and_then(|written| vault.open(written));
    if let (Some(id), Some(secret)) = (&client_id, &client_secret) {
        note_pair(vault, id.reveal(), secret);
    }
    check_combinations(sink, name, raw);
    let hosts: BTreeSet<String> = raw
        .hosts
        .iter()
        .flat_map(|hosts| &hosts.value)
        .filter_map(|written| urls.host(written))
        .collect();
    raw.kind.as_ref()?;
    Some(Credential {
        name: Arc::from(name.value.as_str()),
        oauth2: OAuth2 {
            token_url: token_url?.into(),
            method: raw.method.as_ref().map_or(TokenMethod::Auto, |method| method.value),
            credentials_in: raw.credentials_in.as_ref().map(|place| place.value),
            client_id: client_id?.reveal().to_owned(),
            client_secret: client_secret?,
            scope: match &raw.scope {
                None => Some(SCOPE.to_owned()),
                Some(scope) => Some(scope.value.clone()).filter(|scope| !scope.is_empty()),
            },
            extra: raw
                .extra
                .iter()
                .map(|(name, value)| (name.clone(), value.value.clone()))
                .collect(),
            token_field: raw
                .token_field
                .as_ref()
                .map_or_else(|| "access_token".to_owned(), |field| field.value.clone()),
        },
        refresh_before: raw.refresh_before.as_ref().map_or(REFRESH_BEFORE, |span| span.value),
        lifetime: raw.lifetime.as_ref().map_or(LIFETIME, |span| span.value),
        keep_token: raw.keep_token.as_ref().is_none_or(|keep| keep.value),
        hosts,
    })
}

/// Id and secret together are what Basic puts into one base64 word.
fn note_pair(vault: &Vault<'_>, id: &str, secret: &Secret) {
    if !secret.reveal().is_empty() {
        vault.note(&format!("{id}:{}", secret.reveal()));
    }
}

fn check_combinations(sink: &Sink, name: &At<String>, raw: &RawCredential) {
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
    if let Some(field) = &raw.token_field
        && (field.value.is_empty() || field.value.chars().any(char::is_control))
    {
        sink.fault(field.notice("not a field", "write the name, e.g. 'access_token'"));
    }
    if let Some(id) = raw.client_id.as_ref()
        && id.value == Written::Plain(String::new())
    {
        sink.fault(id.notice("must not be empty", WHERE_SHOWN));
    }
    for reserved in ["grant_type", "client_id", "client_secret", "scope"] {
        if let Some(value) = raw.extra.get(reserved) {
            let hint = match reserved {
                "grant_type" => "take it out: patchdrop sends client_credentials",
                _ => "write it as a key of the credential, not below extra",
            };
            sink.fault(value.notice("extra cannot replace what the exchange itself sends", hint));
        }
    }
}
