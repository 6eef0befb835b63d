//! What a route sends with each file: where to, as whom, signed how, under which headers.

use std::sync::Arc;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

use super::page::{At, Sink};
use super::raw::{Deliver, RawRoute};
use super::rules::{Setting, span, unknown_placeholder, value};
use super::section::Written;
use super::{address, flow, suggest};
use crate::model::route::{Delivery, Format, Hmac, HmacEncoding};
use crate::model::secret::Secret;
use crate::model::step::Wrap;

/// Base of Patchworks' inbound API.
pub(super) const BASE_URL: &str = "https://inbound.pwks.co/v1";
/// The header that Patchworks' webhooks read a signature from (documented).
const HMAC_HEADER: &str = "X-HMAC-HASH";
const IDEMPOTENCY_HEADER: &str = "Idempotency-Key";

/// Headers that patchdrop or HTTP itself sets.
const OWN_HEADERS: [&str; 10] = [
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "host",
    "connection",
    "expect",
    "te",
    "trailer",
    "upgrade",
];

/// Checks what a route sends with each file; a fault has been said where there is none.
pub(super) fn check(
    setting: &Setting<'_>,
    table: &At<String>,
    raw: &RawRoute,
    deliver: Deliver,
    wrap: Option<Wrap>,
) -> Option<Delivery> {
    let (kind, url) = match deliver {
        Deliver::Inbound => ("inbound", inbound_url(setting, table, raw)),
        Deliver::Flow => ("flow", flow::url(setting, table, raw)),
        Deliver::Webhook => ("webhook", http_url(setting, table, raw, "webhook")),
        Deliver::Http => ("http", http_url(setting, table, raw, "http")),
    };
    let flow = (deliver == Deliver::Flow).then(|| flow::check(setting, raw));
    let hmac = hmac(setting, table, raw, deliver);
    let credential = credential(setting, table, raw, deliver);
    let headers = headers(setting, raw, matches!(credential, Ok(Some(_))));
    let content_type = content_type(setting.sink, raw, deliver, wrap);
    let idempotency_header = idempotency_header(setting.sink, raw);
    let (url, host) = url?;
    let credential = credential.ok()?;
    let flow = match flow {
        Some(flow) => Some(flow?),
        None => None,
    };
    // Hosts of base URLs are among a credential's hosts.
    if let (Deliver::Http | Deliver::Webhook, Some(name)) = (deliver, &credential)
        && let Some(known) = setting.credentials.get(name)
        && !known.hosts.contains(&host)
        && !url.reveal().is_empty()
    {
        let place = raw.credential.as_ref().unwrap_or(table);
        setting.sink.fault(place.notice(
            format!("the credential {name} may not go to {host}"),
            format!("write hosts = ['{host}'] in [credential.{name}] if it is meant to"),
        ));
    }
    Some(Delivery {
        kind,
        url,
        host: Arc::from(host),
        method: value(raw.method.as_ref(), "POST"),
        content_type,
        headers,
        idempotency_header,
        hmac,
        flow,
        credential,
        connect_timeout: span(raw.connect_timeout.as_ref(), 10),
        timeout: span(raw.timeout.as_ref(), 60),
    })
}

/// The inbound URL up to the vanity, and its host.
fn inbound_url(
    setting: &Setting<'_>,
    table: &At<String>,
    raw: &RawRoute,
) -> Option<(Secret, String)> {
    let company = raw.company.as_ref().or(setting.company);
    if company.is_none() {
        setting.sink.fault(table.notice(
            "an inbound route needs a company",
            "write company = 'NAME' at the top: the part of the inbound URL after /v1/",
        ));
    }
    let company = company.filter(|company| is_company(setting.sink, company));
    let base = match raw.base_url.as_ref().or(setting.base_url) {
        Some(written) => setting.urls.base(written)?,
        None => Url::parse(BASE_URL).expect("the constant is a URL"),
    };
    let host = address::host(&base);
    Some((Secret::new(format!("{}/{}", base.as_str().trim_end_matches('/'), company?.value)), host))
}

/// Whether a company fits into a URL as one part.
pub(super) fn is_company(sink: &Sink, company: &At<String>) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_part = !company.value.is_empty()
        && company.value.bytes().all(fits)
        && !company.value.bytes().all(|byte| byte == b'.');
    if !is_part {
        sink.fault(company.notice(
            format!("{:?} cannot be part of a URL", company.value),
            "write the part of the inbound URL after /v1/, e.g. 'acme'",
        ));
    }
    is_part
}

fn http_url(
    setting: &Setting<'_>,
    table: &At<String>,
    raw: &RawRoute,
    kind: &str,
) -> Option<(Secret, String)> {
    let Some(written) = &raw.url else {
        let hint = format!("deliver = \"{kind}\" needs the URL to send to");
        setting.sink.missing(table, "url", &hint);
        return None;
    };
    let Some(url) = setting.vault.open_url(setting.urls, written) else {
        return (!setting.vault.is_needed).then(|| (Secret::new(""), "unknown".to_owned()));
    };
    if kind == "webhook" && matches!(written.value, Written::Plain(_)) && url.query().is_some() {
        setting.sink.warn(written.notice(
            "a signed URL is a secret, and whoever may read this file may send with it",
            "write url = { env = \"NAME\" }, { file = \"PATH\" } or { stored = \"NAME\" }",
        ));
    }
    let host = address::host(&url);
    Some((Secret::new(String::from(url)), host))
}

/// A fault has been reported.
struct Said;

/// The credential of a route, if it has one; an error is a fault that has been said.
fn credential(
    setting: &Setting<'_>,
    table: &At<String>,
    raw: &RawRoute,
    deliver: Deliver,
) -> Result<Option<Arc<str>>, Said> {
    let names: Vec<&str> = setting.credential_names.iter().map(String::as_str).collect();
    if let Some(written) = &raw.credential {
        if names.contains(&written.value.as_str()) {
            return Ok(Some(Arc::from(written.value.as_str())));
        }
        let hint = if names.is_empty() {
            format!("write a table [credential.{}]", written.value)
        } else {
            suggest::hint(&written.value, &names)
        };
        let text = format!("there is no credential {:?}", written.value);
        setting.sink.fault(written.notice(text, hint));
        return Err(Said);
    }
    match (deliver, names.as_slice()) {
        (Deliver::Http | Deliver::Webhook, _) => Ok(None),
        (Deliver::Inbound | Deliver::Flow, [only]) => Ok(Some(Arc::from(*only))),
        (Deliver::Inbound | Deliver::Flow, []) => {
            let hint = "write a table [credential.NAME]; examples/config.toml shows it";
            let text = format!("{} needs a credential", article(deliver));
            setting.sink.fault(table.notice(text, hint));
            Err(Said)
        }
        (Deliver::Inbound | Deliver::Flow, several) => {
            setting.sink.fault(table.notice(
                format!(
                    "there are several credentials, and {} needs one of them",
                    article(deliver)
                ),
                format!(
                    "write credential = {}, in its table or in [defaults]",
                    suggest::list(several)
                ),
            ));
            Err(Said)
        }
    }
}

fn article(deliver: Deliver) -> &'static str {
    match deliver {
        Deliver::Inbound => "an inbound route",
        Deliver::Flow => "a flow route",
        Deliver::Webhook => "a webhook route",
        Deliver::Http => "an http route",
    }
}

/// How bodies are signed.
fn hmac(
    setting: &Setting<'_>,
    table: &At<String>,
    raw: &RawRoute,
    deliver: Deliver,
) -> Option<Hmac> {
    let is_signed = matches!(deliver, Deliver::Webhook | Deliver::Http);
    let others = [
        raw.hmac.algorithm.as_ref().map(|written| written.with(())),
        raw.hmac.header.as_ref().map(|written| written.with(())),
        raw.hmac.encoding.as_ref().map(|written| written.with(())),
    ];
    let Some(written) = raw.hmac.key.as_ref().filter(|_| is_signed) else {
        if is_signed && others.iter().any(Option::is_some) {
            let hint = "write hmac = { key = { env = \"NAME\" } }: the secret that both sides know";
            setting.sink.missing(table, "hmac.key", hint);
        }
        return None;
    };
    let header = raw.hmac.header.as_ref();
    if let Some(header) = header {
        check_free_header(setting.sink, header, "use letters, digits and -");
    }
    Some(Hmac {
        key: setting.vault.open(written)?,
        header: header.map_or_else(|| HMAC_HEADER.to_owned(), |header| header.value.clone()),
        encoding: value(raw.hmac.encoding.as_ref(), HmacEncoding::Hex),
    })
}

/// A header that a route names must be one that nothing else sets; `form` says what a name is.
fn check_free_header(sink: &Sink, written: &At<String>, form: &str) {
    let lower = written.value.to_ascii_lowercase();
    if HeaderName::from_bytes(written.value.as_bytes()).is_err() {
        sink.fault(written.notice("not a header name", form));
    } else if lower == "authorization" || OWN_HEADERS.contains(&lower.as_str()) {
        sink.fault(written.notice("this header is set to something else", "choose another name"));
    }
}

fn headers(setting: &Setting<'_>, raw: &RawRoute, has_token: bool) -> Vec<(String, Secret)> {
    let mut headers = Vec::new();
    let key_header = raw.idempotency_header.as_ref();
    let key_header = key_header.map_or(IDEMPOTENCY_HEADER, |key| &key.value).to_ascii_lowercase();
    for (name, written) in &raw.headers {
        let lower = name.to_ascii_lowercase();
        let fault = |text: &str, hint: &str| setting.sink.fault(written.notice(text, hint));
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            fault("not a header name", "use letters, digits and -");
            continue;
        }
        if lower == "content-type" {
            fault("this header has a key of its own", "write content_type = '...'");
        } else if OWN_HEADERS.contains(&lower.as_str()) {
            fault("patchdrop sets this header itself", "take it out");
        } else if lower == "authorization" && has_token {
            fault("the route's credential fills this header", "take it out, or the credential");
        } else if lower == key_header {
            fault(
                "this header carries the idempotency key, another one for each file",
                "take it out; or choose another name, or \"\" for none: idempotency_header = '...'",
            );
        }
        if let Written::Plain(text) = &written.value
            && let Some(unknown) = unknown_placeholder(text, &["name", "id", "sha256"])
        {
            let text = format!("{{{unknown}}} stands for nothing");
            fault(&text, "known are {name}, {id} and {sha256}");
        }
        let Some(value) = setting.vault.open(written) else { continue };
        if HeaderValue::from_str(value.reveal()).is_err() {
            fault("holds characters that a header cannot carry", "use one line of plain ASCII");
        }
        headers.push((name.clone(), value));
    }
    headers
}

/// The Content-Type of a body.
fn media_type(format: Format, wrap: Option<Wrap>) -> &'static str {
    match (format, wrap) {
        (_, Some(Wrap::Payload)) | (Format::Json, None) => "application/json",
        (Format::Xml, None) => "application/xml",
        (Format::Text, None) => "text/plain; charset=utf-8",
        (Format::Binary, None) => "application/octet-stream",
    }
}

fn content_type(sink: &Sink, raw: &RawRoute, deliver: Deliver, wrap: Option<Wrap>) -> String {
    let Some(written) = &raw.content_type else {
        return media_type(value(raw.format.as_ref(), Format::Json), wrap).to_owned();
    };
    if !written.value.contains('/') || HeaderValue::from_str(&written.value).is_err() {
        sink.fault(written.notice("not a content type", "write e.g. 'application/json'"));
    } else if matches!(deliver, Deliver::Inbound | Deliver::Flow)
        && !written.value.contains("/json")
        && !written.value.contains("+json")
    {
        sink.fault(written.notice(
            "Patchworks reads a body as JSON only if its type says so; else it stores nothing",
            "leave it out, or write 'application/json'",
        ));
    }
    written.value.clone()
}

fn idempotency_header(sink: &Sink, raw: &RawRoute) -> Option<String> {
    let Some(written) = &raw.idempotency_header else {
        return Some(IDEMPOTENCY_HEADER.to_owned());
    };
    if written.value.is_empty() {
        return None;
    }
    check_free_header(sink, written, "use letters, digits and -; \"\" turns it off");
    Some(written.value.clone())
}
