//! The login of the Core API: an e-mail address and a password for a token.

use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::answer::{Cut, Response, invalid, message, wrong_method};
use super::caller::issue;
use super::door::{Visit, is_json};
use super::oauth::{BODY_MAX_BYTES, for_a_token, given_out};
use super::rules::Act;

pub(super) async fn answer(visit: &Visit<'_>, body: Incoming) -> Result<Response, Cut> {
    if visit.head.method != Method::POST {
        return visit.turn_away(body, BODY_MAX_BYTES, wrong_method("POST")).await;
    }
    for_a_token(visit, body, |body, act| exchange(visit, body, act)).await
}

fn exchange(visit: &Visit<'_>, body: &[u8], act: &Act) -> Response {
    let options = &visit.state.options;
    let login = &options.login;
    let fields: Value = if is_json(visit.head) {
        serde_json::from_slice(body).unwrap_or_default()
    } else {
        Value::Null
    };
    let text = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or_default();
    let (user, password) = (text(&login.user_field), text(&login.password_field));
    let faults: Vec<(&str, String)> =
        [(&login.user_field, user), (&login.password_field, password)]
            .into_iter()
            .filter(|(_, text)| text.is_empty())
            .map(|(field, _)| (field.as_str(), format!("The {field} field is required.")))
            .collect();
    if !faults.is_empty() {
        return invalid(&faults);
    }
    if user != login.user || password != login.password.reveal() {
        let text = "These credentials do not match our records.";
        return message(StatusCode::UNAUTHORIZED, text);
    }
    let token = issue(visit.state, None);
    let mut body = json!({ "message": "You have successfully logged in." });
    put(&mut body, &login.token_place, json!(token));
    if login.says_lifetime {
        put(&mut body, "expires_in", json!(options.token_lifetime.as_secs()));
    }
    let odd = if let Act::OddToken { how } = act { Some(*how) } else { None };
    given_out(body, &login.token_place, odd)
}

/// Puts a value where a path such as `data.token` leads.
pub(super) fn put(body: &mut Value, place: &str, value: Value) {
    let mut here = body;
    for part in place.split('.') {
        if !here.is_object() {
            *here = json!({});
        }
        here = &mut here[part];
    }
    *here = value;
}
