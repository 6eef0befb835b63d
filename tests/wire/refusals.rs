//! Every answer of a token endpoint that is no token: one sentence, one hint, never the secret.

use std::time::Duration;

use patchdrop::model::exchange::{Answer, Progress, Reply};
use patchdrop::model::outcome::{Cause, Code};
use patchdrop::model::route::Credential;
use patchdrop::world::token::Tokens;

use super::SECRET;
use super::token::{Scripted, Still, credential, desk, json, login, name, reply};

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

async fn check(credential: Credential, reply: Reply, code: &str, words: &str, hint: &str) {
    let case = format!("{code} for {reply:?}");
    let endpoint = Scripted::new(move |_, _| reply.clone());
    let (clock, folder) = (Still::new(), tempfile::tempdir().unwrap());
    let desk = desk(credential.clone(), folder.path(), &clock, &endpoint);
    let refusal = desk.current(&name()).await.unwrap_err();
    assert_eq!(refusal.cause.code.to_string(), code, "{case}");
    let plain = &refusal.cause.plain;
    assert!(plain.contains(words), "{case}: {plain}");
    assert!(!plain.ends_with('.') && !plain.contains(". ") && !plain.contains('\n'), "{plain}");
    assert!(refusal.remedy.contains(hint), "{case}: {}", refusal.remedy);
    assert!(refusal.remedy.ends_with('.'), "{case}: {}", refusal.remedy);
    assert_eq!(refusal.cause.remedy.as_ref(), Some(&refusal.remedy), "{case}");
    assert!(refusal.retry_after.unwrap() > Duration::ZERO, "{case}");
    assert!(desk.peek(&name()).is_none(), "{case}");
    let shown = format!("{refusal:?} {refusal:#?} {desk:?} {credential:?}");
    for form in FORMS {
        let is_there = shown.to_lowercase().contains(&form.to_lowercase());
        assert!(!is_there, "{form} after {case} in {shown}");
    }
    // Said again without being asked again, and the same.
    let again = desk.current(&name()).await.unwrap_err();
    assert_eq!((again.cause.code, again.remedy), (refusal.cause.code, refusal.remedy), "{case}");
}

fn no_answer(code: &'static str, plain: &'static str) -> Reply {
    Reply::NoAnswer { progress: Progress::Nothing, cause: Cause::new(Code::of(code), plain) }
}

fn error(status: u16, error: &str) -> Reply {
    json(status, &format!("{{\"error\":\"{error}\",\"error_description\":\"No.\"}}"))
}

#[tokio::test]
async fn an_oauth2_refusal_is_one_clear_sentence_and_a_hint() {
    for (reply, code, words, hint) in [
        (
            error(401, "invalid_client"),
            "token-invalid-client",
            "refused the client id or the client secret",
            "client_id and client_secret of [credential.inbound]",
        ),
        (
            error(400, "invalid_client"),
            "token-invalid-client",
            "refused the client id",
            "credentials_in = \"form\"",
        ),
        (error(400, "invalid_scope"), "token-invalid-scope", "the scope", "asks for none"),
        (
            error(400, "unsupported_grant_type"),
            "token-unsupported-grant",
            "does not take client credentials this way",
            "token_url, method and credentials_in",
        ),
        (
            error(400, "invalid_request"),
            "token-invalid-request",
            "misses something in the request",
            "method and credentials_in",
        ),
        (
            error(400, "unauthorized_client"),
            "token-unauthorized-client",
            "may not ask for a token",
            "meant for client credentials",
        ),
        (error(400, "made_up"), "token-refused", "answered 400 without a token", "token_url"),
        (json(401, "{}"), "token-refused", "refused the client id or the secret", "client_secret"),
        (json(403, ""), "token-refused", "answered 403", "client_secret"),
        (json(404, "{}"), "token-not-found", "nothing is there", "authentication tab"),
        (json(405, "{}"), "token-method", "does not take the request this way", "method"),
        (json(415, "{}"), "token-method", "does not take the request this way", "method"),
        (json(418, "{}"), "token-refused", "answered 418 without a token", "token_url"),
    ] {
        check(credential("http://t/"), reply, code, words, hint).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_one_clear_sentence_and_a_hint() {
    let replies = || {
        [
            (
                reply(200, "text/html", "<html>"),
                "token-html",
                "an HTML page instead of a token",
                "proxy",
            ),
            (reply(200, "", " <!DOCTYPE html>"), "token-html", "an HTML page", "login page"),
            (reply(404, "text/html", "gone"), "token-html", "answered 404 with an HTML", "_url of"),
            (reply(302, "", ""), "token-redirect", "a redirect, as a login page does", "itself"),
            (reply(308, "text/html", "<html>"), "token-redirect", "answered 308", "_url of"),
            (json(200, "garbage"), "token-not-json", "something that is not JSON", "_url of"),
            (json(204, ""), "token-not-json", "answered 204", "_url of"),
            (
                json(200, "[]"),
                "token-no-field",
                "no text field access_token or token",
                "token_field",
            ),
            (json(200, "{\"tok\":\"x\"}"), "token-no-field", "no text field", "token_field"),
            (json(200, "{\"token\":5}"), "token-no-field", "no text field", "token_field"),
            (
                json(200, "{\"token\":\"a b\"}"),
                "token-malformed",
                "no header can carry",
                "token_field",
            ),
            (json(200, "{\"token\":\"a\\nb\"}"), "token-malformed", "no header", "token_field"),
            (json(200, "{\"token\":\"a\\u0000\"}"), "token-malformed", "no header", "token_field"),
            (json(200, "{\"token\":\"ü\"}"), "token-malformed", "no header", "token_field"),
            (json(200, "{\"token\":\"\"}"), "token-malformed", "no header", "token_field"),
            (json(200, "{\"token\":\"a\",\"expires_in\":0}"), "token-expired", "ended", "clock"),
            (json(200, "{\"token\":\"a\",\"expires_in\":0.5}"), "token-expired", "ended", "clock"),
            (json(200, "{\"token\":\"a\",\"expires_in\":-1}"), "token-expired", "ended", "clock"),
            (
                json(200, "{\"token\":\"a\",\"expires_in\":\"-5\"}"),
                "token-expired",
                "ended",
                "_url",
            ),
            (json(429, "{}"), "token-throttled", "too many token requests", "who else"),
            (json(500, "{}"), "token-unavailable", "the server is in trouble", "_url of"),
            (reply(503, "text/html", "<html>"), "token-unavailable", "answered 503", "passes"),
            (
                no_answer("dns", "the name t does not resolve"),
                "token-unreachable",
                "resolve",
                "network",
            ),
            (no_answer("connect-refused", "t refuses"), "token-unreachable", "reached", "network"),
            (no_answer("tls", "the certificate is not trusted"), "token-tls", "not trusted", "CA"),
            (
                no_answer("request-invalid", "not a URL"),
                "token-request-invalid",
                "not a URL",
                "_url",
            ),
            (Reply::Changed, "token-unreachable", "broken off", "goes on trying"),
        ]
    };
    for (reply, code, words, hint) in replies() {
        check(credential("http://t/"), reply, code, words, hint).await;
    }
    for (reply, code, words, hint) in replies() {
        check(login("http://t/"), reply, code, words, hint).await;
    }
}

#[tokio::test]
async fn a_refused_login_names_address_and_password() {
    let message = "{\"message\":\"These credentials do not match our records.\"}";
    let fields = "{\"message\":\"The username field is required.\",\"errors\":{\"username\":[]}}";
    for (reply, code, words, hint) in [
        (
            json(401, message),
            "token-login-refused",
            "address or the password",
            "email and password",
        ),
        (
            json(422, message),
            "token-login-refused",
            "answered 422: it refused",
            "email and password",
        ),
        (json(422, fields), "token-login-refused", "answered 422", "user_field and password_field"),
        (json(403, "{}"), "token-login-refused", "answered 403", "[credential.inbound]"),
        (
            error(401, "invalid_client"),
            "token-login-refused",
            "the login URL answered 401",
            "email",
        ),
        (json(404, "{}"), "token-not-found", "the login URL answered 404", "login_url of"),
        (json(405, "{}"), "token-method", "the login URL answered 405", "login_url"),
        (json(418, "{}"), "token-refused", "the login URL answered 418", "login_url"),
    ] {
        check(login("http://t/"), reply, code, words, hint).await;
    }
}

#[tokio::test]
async fn a_server_that_repeats_the_secret_is_not_quoted() {
    let other_case = "s3cret-Value_%c3%a4%c3%b6%2f%2b";
    for form in FORMS.into_iter().filter(|form| form.len() > 6).chain([other_case]) {
        for key in ["error_description", "message", "hint"] {
            let body =
                serde_json::json!({ "error": "invalid_client", key: format!("no {form} here") });
            let (code, words) = ("token-invalid-client", "refused the client id");
            check(credential("http://t/"), json(401, &body.to_string()), code, words, "").await;
            let body = body.to_string();
            check(login("http://t/"), json(401, &body), "token-login-refused", "401", "").await;
        }
    }
}

#[tokio::test]
async fn what_the_server_says_is_kept_for_the_sidecar_alone() {
    let text = "Client authentication failed\u{7}";
    let body = serde_json::json!({ "error": "invalid_client", "message": text });
    let endpoint = Scripted::new(move |_, _| json(401, &body.to_string()));
    let (clock, folder) = (Still::new(), tempfile::tempdir().unwrap());
    let desk = desk(credential("http://t/"), folder.path(), &clock, &endpoint);
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
        let endpoint = Scripted::new(move |_, _| Reply::Answer(answer.clone()));
        let (clock, folder) = (Still::new(), tempfile::tempdir().unwrap());
        let desk = desk(credential("http://t/"), folder.path(), &clock, &endpoint);
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
