//! Answers.

use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use serde_json::json;

pub(super) type Response = hyper::Response<Full<Bytes>>;

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    #[error("cut on purpose")]
    OnPurpose,
    #[error("the sender went away")]
    BySender,
}

pub(super) fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

pub(super) fn too_large() -> Response {
    let mut answer = message(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large.");
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

pub(super) fn not_found() -> Response {
    message(StatusCode::NOT_FOUND, "Not Found")
}

/// 405 with the one method, or the methods, that there are.
pub(super) fn wrong_method(allowed: &'static str) -> Response {
    let text = format!("The method is not supported for this route. Supported methods: {allowed}.");
    let mut answer = message(StatusCode::METHOD_NOT_ALLOWED, &text);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// 422 as Laravel words it: the first fault, and all of them by field.
pub(super) fn invalid(faults: &[(&str, String)]) -> Response {
    let errors: serde_json::Map<String, serde_json::Value> =
        faults.iter().map(|(field, text)| ((*field).to_owned(), json!([text]))).collect();
    let first = faults.first().map(|(_, text)| text.as_str()).unwrap_or_default();
    let body = json!({ "message": first, "errors": errors });
    json_answer(StatusCode::UNPROCESSABLE_ENTITY, &body)
}

pub(super) fn message(status: StatusCode, text: &str) -> Response {
    json_answer(status, &json!({ "message": text }))
}

pub(super) fn json_answer<T: serde::Serialize>(status: StatusCode, body: &T) -> Response {
    let body = serde_json::to_vec(body).unwrap_or_default();
    typed(status, "application/json", body)
}

/// An answer of any type.
pub(super) fn typed(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Response {
    let mut answer = hyper::Response::new(Full::from(body.into()));
    *answer.status_mut() = status;
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        answer.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    answer
}
