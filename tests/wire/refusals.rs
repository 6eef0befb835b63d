//! Every answer of a token endpoint that is no token: one sentence, one hint, never the secret.

use std::time::Duration;

use patchdrop::model::exchange::{Answer, Progress, Reply};
use patchdrop::model::outcome::{Cause, Code};
use patchdrop::model::route::Credential;
use patchdrop::world::token::Tokens;

use super::SECRET;
use super::token::{Office, credential, json, login, name, reply};

/// The secret in every form that goes over the wire.
const FORMS: [&str; 6] = [
    SECRET,
    "s3cret",
    "s3cret-Value_%C3%A4%C3%B6%2F%2B",
    // Base64 of the secret alone, and of the pairs with client id and address.
    "czNjcmV0LVZhbHVlX8Okw7YvKw==",
    "ZGVtby1jbGllbnQ6czNjcmV0LVZhbHVlX8Okw7YvKw==",
    "cm9ib3RAZXhhbXBsZS5jb206czNjcmV0LVZhbHVlX8Okw7YvKw==",
];

/// What is said of an answer, for a snapshot: one sentence and one hint, never the secret, and the
/// same again without another request.
async fn check(credential: Credential, reply: Reply) -> String {
    let case = match &reply {
        Reply::Answer(answer) => {
            let body = String::from_utf8_lossy(&answer.body);
            format!("{} {} {body}", answer.status, answer.content_type).trim_end().to_owned()
        }
        Reply::NoAnswer { cause, .. } => format!("no answer: {}", cause.plain),
        Reply::Changed => "changed".to_owned(),
    };
    let office = Office::of(move |_, _| reply.clone());
    let desk = office.desk(credential.clone());
    let refusal = desk.current(&name()).await.unwrap_err();
    let plain = &refusal.cause.plain;
    assert!(!plain.ends_with('.') && !plain.contains(". ") && !plain.contains('\n'), "{plain}");
    assert!(refusal.remedy.ends_with('.'), "{case}: {}", refusal.remedy);
    assert_eq!(refusal.cause.remedy.as_ref(), Some(&refusal.remedy), "{case}");
    assert!(refusal.retry_after.unwrap() > Duration::ZERO, "{case}");
    assert!(desk.peek(&name()).is_none(), "{case}");
    let shown = format!("{refusal:?} {refusal:#?} {desk:?} {credential:?}");
    for form in FORMS {
        let is_there = shown.to_lowercase().contains(&form.to_lowercase());
        assert!(!is_there, "{form} after {case} in {shown}");
    }
    let asked = office.endpoint.count();
    let again = desk.current(&name()).await.unwrap_err();
    assert_eq!(office.endpoint.count(), asked, "{case}");
    assert_eq!((&again.cause.code, &again.remedy), (&refusal.cause.code, &refusal.remedy));
    format!("{case}\n  {}: {plain}\n  {}\n\n", refusal.cause.code, refusal.remedy)
}

/// The same of many answers.
async fn check_all(credential: &Credential, replies: impl IntoIterator<Item = Reply>) -> String {
    let mut said = String::new();
    for reply in replies {
        said += &check(credential.clone(), reply).await;
    }
    said
}

fn no_answer(code: &'static str, plain: &'static str) -> Reply {
    Reply::NoAnswer { progress: Progress::Nothing, cause: Cause::new(Code::of(code), plain) }
}

fn error(status: u16, error: &str) -> Reply {
    json(status, &format!("{{\"error\":\"{error}\",\"error_description\":\"No.\"}}"))
}

#[tokio::test]
async fn an_oauth2_refusal_is_one_clear_sentence_and_a_hint() {
    let replies = [
        error(401, "invalid_client"),
        error(400, "invalid_client"),
        error(400, "invalid_scope"),
        error(400, "unsupported_grant_type"),
        error(400, "invalid_request"),
        error(400, "unauthorized_client"),
        error(400, "made_up"),
        json(401, "{}"),
        json(403, ""),
        json(404, "{}"),
        json(405, "{}"),
        json(415, "{}"),
        json(418, "{}"),
    ];
    insta::assert_snapshot!(check_all(&credential("http://t/"), replies).await);
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_one_clear_sentence_and_a_hint() {
    let replies = [
        reply(200, "text/html", "<html>"),
        reply(200, "", " <!DOCTYPE html>"),
        reply(404, "text/html", "gone"),
        reply(302, "", ""),
        reply(308, "text/html", "<html>"),
        json(200, "garbage"),
        json(204, ""),
        json(200, "[]"),
        json(200, "{\"tok\":\"x\"}"),
        json(200, "{\"token\":5}"),
        json(200, "{\"token\":\"a b\"}"),
        json(200, "{\"token\":\"a\\nb\"}"),
        json(200, "{\"token\":\"a\\u0000\"}"),
        json(200, "{\"token\":\"ü\"}"),
        json(200, "{\"token\":\"\"}"),
        json(200, "{\"token\":\"a\",\"expires_in\":0}"),
        json(200, "{\"token\":\"a\",\"expires_in\":0.5}"),
        json(200, "{\"token\":\"a\",\"expires_in\":-1}"),
        json(200, "{\"token\":\"a\",\"expires_in\":\"-5\"}"),
        json(429, "{}"),
        json(500, "{}"),
        reply(503, "text/html", "<html>"),
        no_answer("dns", "the name t does not resolve"),
        no_answer("connect-refused", "t refuses"),
        no_answer("tls", "the certificate is not trusted"),
        no_answer("request-invalid", "not a URL"),
        Reply::Changed,
    ];
    insta::assert_snapshot!(check_all(&credential("http://t/"), replies.clone()).await);
    insta::assert_snapshot!(check_all(&login("http://t/"), replies).await);
}

#[tokio::test]
async fn a_refused_login_names_address_and_password() {
    let message = "{\"message\":\"These credentials do not match our records.\"}";
    let fields = "{\"message\":\"The username field is required.\",\"errors\":{\"username\":[]}}";
    let replies = [
        json(401, message),
        json(422, message),
        json(422, fields),
        json(403, "{}"),
        error(401, "invalid_client"),
        json(404, "{}"),
        json(405, "{}"),
        json(418, "{}"),
    ];
    insta::assert_snapshot!(check_all(&login("http://t/"), replies).await);
}

#[tokio::test]
async fn a_server_that_repeats_the_secret_is_not_quoted() {
    let other_case = "s3cret-Value_%c3%a4%c3%b6%2f%2b";
    for form in FORMS.into_iter().filter(|form| form.len() > 6).chain([other_case]) {
        for key in ["error_description", "message", "hint"] {
            let body =
                serde_json::json!({ "error": "invalid_client", key: format!("no {form} here") });
            let reply = json(401, &body.to_string());
            let said = check(credential("http://t/"), reply.clone()).await;
            assert!(said.contains("  token-invalid-client: "), "{said}");
            let said = check(login("http://t/"), reply).await;
            assert!(said.contains("  token-login-refused: "), "{said}");
        }
    }
}

#[tokio::test]
async fn what_the_server_says_is_kept_for_the_sidecar_alone() {
    let text = "Client authentication failed\u{7}";
    let body = serde_json::json!({ "error": "invalid_client", "message": text });
    let office = Office::of(move |_, _| json(401, &body.to_string()));
    let desk = office.desk(credential("http://t/"));
    let cause = desk.current(&name()).await.unwrap_err().cause;
    assert_eq!(cause.excerpt.as_deref(), Some("Client authentication failed\\u{7}"));
    assert!(!cause.plain.contains("failed"), "{}", cause.plain);
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_kept() {
    let check = async |status, asked: &str, date: Option<&str>, seconds: u64| {
        let answer = Answer {
            status,
            retry_after: Some(asked.to_owned()),
            date: date.map(str::to_owned),
            ..Answer::default()
        };
        let office = Office::of(move |_, _| Reply::Answer(answer.clone()));
        let desk = office.desk(credential("http://t/"));
        let refusal = desk.current(&name()).await.unwrap_err();
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(seconds)), "{status} {asked}");
    };
    let date = "Sun, 22 Nov 2026 10:00:00 GMT";
    check(429, "120", None, 120).await;
    check(429, "Sun, 22 Nov 2026 10:02:00 GMT", Some(date), 120).await;
    check(503, "Sun, 22 Nov 2026 10:02:00 GMT", Some(date), 120).await;
    check(429, "soon", None, 30).await;
    check(429, "0", None, 1).await;
    check(503, "1000000", None, 3600).await;
    check(503, "soon", None, 1).await;
}
