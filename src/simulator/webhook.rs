//! Webhooks and callbacks: a signature in the URL, a body of any type, perhaps an HMAC.

use hyper::Method;
use hyper::body::Incoming;

use super::answer::{Cut, Response, message, not_found, status_of, too_large, typed, wrong_method};
use super::body::{Read, Wanted};
use super::door::{Visit, content_length};
use super::hmac;
use super::options::WebhookOptions;
use super::text::pairs;

/// The query's name, and that of the header that may stand for it.
const SIGNATURE: &str = "patchworks_signature";
const SIGNATURE_HEADER: &str = "patchworks-signature";

pub(super) async fn answer(
    visit: &Visit<'_>,
    environment: Option<&str>,
    body: Incoming,
) -> Result<Response, Cut> {
    let options = &visit.state.options.webhook;
    let most = options.body_max_bytes.unwrap_or(u64::MAX);
    if content_length(visit.head) > most {
        return Ok(too_large());
    }
    let is_known = options.ids.as_ref().is_none_or(|ids| ids.contains(visit.place))
        || options.callbacks.contains(visit.place);
    let refused = if ![Method::GET, Method::POST].contains(&visit.head.method) {
        Some(wrong_method("GET, POST"))
    } else if !is_known {
        Some(not_found())
    } else if !is_signed(visit, options) {
        Some(message(status_of(options.signature_status), "Invalid signature."))
    } else {
        None
    };
    if let Some(answer) = refused.or_else(|| visit.too_early()) {
        return visit.turn_away(body, most, answer).await;
    }
    let wanted = Wanted {
        bytes_max: options.body_max_bytes,
        hmac_key: options.hmac.as_ref().map(|hmac| hmac.key.reveal().as_bytes()),
        ..Wanted::default()
    };
    visit.serve(body, wanted, |_, read| take(visit, environment, read)).await
}

fn is_signed(visit: &Visit<'_>, options: &WebhookOptions) -> bool {
    let wanted = options.signature.reveal();
    let query = pairs(visit.head.uri.query().unwrap_or_default());
    let header = visit.head.headers.get(SIGNATURE_HEADER).and_then(|value| value.to_str().ok());
    query.get(SIGNATURE).is_some_and(|given| given == wanted)
        || options.takes_signature_header && header == Some(wanted)
}

/// Stores the body if its HMAC is right.
fn take(visit: &Visit<'_>, environment: Option<&str>, read: Read) -> Response {
    let options = &visit.state.options.webhook;
    if let (Some(hmac), Some(mac)) = (&options.hmac, read.mac) {
        let given = visit.head.headers.get(&hmac.header).and_then(|value| value.to_str().ok());
        if !given.is_some_and(|given| hmac::is_same(hmac, given, mac)) {
            return message(status_of(hmac.status), "HMAC verification failed.");
        }
    }
    visit.store(read, environment, None);
    if options.callbacks.contains(visit.place) {
        let body = options.callback_body.clone();
        return typed(hyper::StatusCode::OK, "application/json", body);
    }
    typed(status_of(options.status), &options.content_type, options.body.clone())
}
