//! The inbound API for services, and the plain door.

use hyper::body::Incoming;
use hyper::{Method, StatusCode};

use super::answer::{Cut, Response, message, not_found, too_large, wrong_method};
use super::body::Wanted;
use super::caller::{self, Takes};
use super::door::{Visit, content_length};

/// The inbound API lets nobody in without a token, and reads no body that is too large.
pub(super) async fn answer(
    visit: &Visit<'_>,
    company: &str,
    body: Incoming,
) -> Result<Response, Cut> {
    let options = &visit.state.options;
    let most = options.body_max_bytes;
    if content_length(visit.head) > most {
        return Ok(too_large());
    }
    if visit.head.method != Method::POST {
        return Ok(wrong_method("POST"));
    }
    let stranger = caller::refuse(visit.state, visit.head, Takes::Oauth2);
    if let Some(answer) = stranger.or_else(|| visit.too_early()) {
        return visit.turn_away(body, most, answer).await;
    }
    let is_known = match &options.vanities {
        Some(vanities) => vanities.contains(visit.place),
        None => is_vanity(visit.place),
    };
    if company == options.company && is_known {
        take(visit, body, Some(most)).await
    } else {
        visit.turn_away(body, most, not_found()).await
    }
}

/// The plain door takes any method and any body.
pub(super) async fn hook(visit: &Visit<'_>, body: Incoming) -> Result<Response, Cut> {
    let is_closed = visit.state.options.hook_is_closed;
    let stranger = is_closed.then(|| caller::refuse(visit.state, visit.head, Takes::Any)).flatten();
    if let Some(answer) = stranger.or_else(|| visit.too_early()) {
        return visit.turn_away(body, u64::MAX, answer).await;
    }
    take(visit, body, None).await
}

/// What is let in is stored, whatever it is.
async fn take(visit: &Visit<'_>, body: Incoming, bytes_max: Option<u64>) -> Result<Response, Cut> {
    let store = |_: &_, read| {
        visit.store(read, None, None);
        message(StatusCode::OK, "Payload stored successfully.")
    };
    visit.serve(body, Wanted { bytes_max, ..Wanted::default() }, store).await
}

fn is_vanity(text: &str) -> bool {
    let is_fit = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
    };
    (3..=36).contains(&text.len()) && text.bytes().all(is_fit)
}
