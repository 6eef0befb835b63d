//! The stand-in answers as the real APIs are known to.

use std::collections::BTreeSet;
use std::time::Duration;

use patchdrop::model::exchange::{Answer, Body, Progress, Reply, Request};
use patchdrop::model::secret::Secret;
use patchdrop::simulator::{Act, Match, Per, Rule, Simulator, SimulatorOptions, TokenWay};
use patchdrop::world::endpoint::Endpoint;
use serde_json::Value;

use super::{answer, digest, endpoint, post};

async fn start(options: SimulatorOptions) -> Simulator {
    Simulator::start(options).await.unwrap()
}

async fn token(simulator: &Simulator, scope: &str) -> String {
    let body = format!(
        "{{\"grant_type\":\"client_credentials\",\"client_id\":\"demo-client\",\
         \"client_secret\":\"demo-secret\",\"scope\":\"{scope}\"}}"
    );
    let answer = answer(endpoint().send(post(simulator.token_url(), body)).await);
    let json: Value = serde_json::from_slice(&answer.body).unwrap();
    json["access_token"].as_str().unwrap().to_owned()
}

fn payload(simulator: &Simulator, vanity: &str, token: &str, key: &str, body: &str) -> Request {
    let mut request = post(format!("{}/{vanity}", simulator.base_url()), body.to_owned());
    for (name, value) in [
        ("Accept", "application/json".to_owned()),
        ("Authorization", format!("Bearer {token}")),
        ("Idempotency-Key", key.to_owned()),
        ("X-File-Name", format!("{key}.json")),
    ] {
        request.headers.push((name.to_owned(), Secret::new(value)));
    }
    request
}

async fn send(request: Request) -> Answer {
    answer(endpoint().send(request).await)
}

fn message(answer: &Answer) -> String {
    let json: Value = serde_json::from_slice(&answer.body).unwrap();
    json["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_payload_is_stored_as_it_comes_json_or_not() {
    let simulator = start(SimulatorOptions { keep_bodies: true, ..Default::default() }).await;
    let token = token(&simulator, "access-inbound").await;
    for body in ["{\"a\":1}", "{\"a\":", ""] {
        let answer = send(payload(&simulator, "demo/orders", &token, "k1", body)).await;
        assert_eq!((answer.status, message(&answer)), (200, "Payload stored successfully.".into()));
    }
    let seen = simulator.seen();
    assert_eq!((seen.accepted, seen.token_requests, seen.tokens_issued), (3, 1, 1));
    assert_eq!(seen.payloads[1].sha256, digest(b"{\"a\":"));
    assert_eq!(seen.payloads[1].key.as_deref(), Some("k1"));
    assert_eq!(seen.payloads[1].name.as_deref(), Some("k1.json"));
    assert_eq!(simulator.bodies()[0], "{\"a\":1}");
}

#[tokio::test]
async fn whoever_is_not_let_in_is_told_as_laravel_does() {
    let simulator = start(SimulatorOptions {
        vanities: Some(BTreeSet::from(["orders".into()])),
        ..Default::default()
    })
    .await;
    let good = token(&simulator, "access-inbound").await;
    let bare = token(&simulator, "").await;
    let big = "x".repeat(8_000_001);
    let case = async |path: &str, token: &str, body: &str, method, status, text: &str| {
        let request = Request { method, ..payload(&simulator, path, token, "k", body) };
        let answer = send(request).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(message(&answer).contains(text), "{path}: {}", message(&answer));
    };
    case("demo/orders", "wrong", "{}", "POST", 401, "Unauthenticated.").await;
    case("demo/orders", &bare, "{}", "POST", 403, "Invalid scope(s) provided.").await;
    case("demo/ordres", &good, "{}", "POST", 404, "Not Found").await;
    case("acme/orders", &good, "{}", "POST", 404, "Not Found").await;
    case("demo/orders", &good, "{}", "PUT", 405, "not supported").await;
    let exact = "x".repeat(8_000_000);
    case("demo/orders", &good, &exact, "POST", 200, "stored").await;
    // The refusal comes before the body is read; a reset on the way may swallow it.
    match endpoint().send(payload(&simulator, "demo/orders", &good, "k", &big)).await {
        Reply::Answer(answer) => assert_eq!(answer.status, 413),
        Reply::NoAnswer { progress, .. } => assert_ne!(progress, Progress::Nothing),
        Reply::Changed => panic!("nothing changed"),
    }
    simulator.revoke_tokens();
    case("demo/orders", &good, "{}", "POST", 401, "Unauthenticated.").await;
    assert_eq!(simulator.seen().accepted, 1);
}

#[tokio::test]
async fn a_token_ends_after_its_lifetime_or_its_uses() {
    let short = SimulatorOptions { token_lifetime: Duration::ZERO, ..Default::default() };
    let simulator = start(short).await;
    let ended = token(&simulator, "access-inbound").await;
    assert_eq!(send(payload(&simulator, "demo/orders", &ended, "k", "{}")).await.status, 401);

    let simulator = start(SimulatorOptions { token_uses_max: Some(2), ..Default::default() }).await;
    let token = token(&simulator, "*").await;
    for status in [200, 200, 401] {
        let answer = send(payload(&simulator, "demo/orders", &token, "k", "{}")).await;
        assert_eq!(answer.status, status);
    }
}

#[tokio::test]
async fn the_rate_limit_says_when_to_come_back() {
    let rate = Some((2, Duration::from_mins(1)));
    let simulator = start(SimulatorOptions { rate, ..Default::default() }).await;
    let token = token(&simulator, "access-inbound").await;
    for status in [200, 200, 429] {
        let answer = send(payload(&simulator, "demo/orders", &token, "k", "{}")).await;
        assert_eq!(answer.status, status);
        let wait: Option<u64> = answer.retry_after.map(|text| text.parse().unwrap());
        assert_eq!(wait.is_some_and(|wait| (1..=60).contains(&wait)), status == 429);
    }
    assert_eq!(simulator.seen().accepted, 2);
}

#[tokio::test]
async fn a_rule_answers_by_the_request_not_by_its_turn() {
    let of = |vanity: &str| Match { vanity: Some(vanity.into()), ..Match::default() };
    let rules = vec![
        Rule {
            when: of("flaky"),
            first: Some(2),
            per: Per::Key,
            act: Act::Answer { status: 503, message: None, retry_after: Some(3) },
        },
        Rule { when: of("gateway"), act: Act::StoreThenAnswer { status: 504 }, ..Rule::default() },
        Rule { when: of("proxy"), act: Act::Html, ..Rule::default() },
        Rule {
            when: Match { contains: Some("POISON".into()), ..Match::default() },
            act: Act::Answer {
                status: 422,
                message: Some("No such field.".into()),
                retry_after: None,
            },
            ..Rule::default()
        },
        Rule { when: of("slow"), act: Act::Slow { millis: 1 }, ..Rule::default() },
    ];
    let simulator = start(SimulatorOptions::default()).await;
    let pages = format!("{}/_simulator", simulator.url());
    let set = post(format!("{pages}/rules"), serde_json::to_vec(&rules).unwrap());
    assert_eq!(send(set).await.status, 200);
    let hook = |name: &str, key: &str, body: &str| {
        let mut request = post(format!("{}/hook/{name}", simulator.url()), body.to_owned());
        request.headers.push(("Idempotency-Key".into(), Secret::new(key)));
        request
    };
    for (name, key, body, status) in [
        ("flaky", "a", "{}", 503),
        ("flaky", "b", "{}", 503),
        ("flaky", "a", "{}", 503),
        ("flaky", "a", "{}", 200),
        ("flaky", "b", "{}", 503),
        ("flaky", "b", "{}", 200),
        ("gateway", "c", "{}", 504),
        ("gateway", "c", "{}", 504),
        ("proxy", "d", "{}", 200),
        ("orders", "e", "{\"x\":\"POISON\"}", 422),
        ("orders", "e", "{\"x\":\"POISON\"}", 422),
        ("orders", "e", "{}", 200),
        ("slow", "f", "{}", 200),
    ] {
        assert_eq!(send(hook(name, key, body)).await.status, status, "{name} {key}");
    }
    let answer = send(Request {
        method: "GET",
        body: Body::Bytes(bytes::Bytes::new()),
        ..post(format!("{pages}/seen"), "")
    })
    .await;
    let seen: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(seen["accepted"], 6);
    assert_eq!(seen["by_status"]["503"], 4);
    assert_eq!(seen["payloads"][2]["vanity"], "gateway");
    assert_eq!(seen["payloads"][0]["sha256"], digest(b"{}").to_string());
    assert_eq!(seen["payloads"].as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn lost_answers_are_stored_or_not_as_the_rule_says() {
    for (act, is_stored) in [
        (Act::StoreThenCut, true),
        (Act::StoreThenHang, true),
        (Act::Hang, false),
        (Act::HangUnread, false),
    ] {
        let rules = vec![Rule { act: act.clone(), ..Rule::default() }];
        let simulator = start(SimulatorOptions { rules, ..Default::default() }).await;
        let mut request = post(format!("{}/hook/door", simulator.url()), "{}");
        request.timeout = Duration::from_millis(300);
        let reply = endpoint().send(request).await;
        let Reply::NoAnswer { progress, .. } = reply else { panic!("{act:?}: {reply:?}") };
        assert_eq!(progress, Progress::Whole, "{act:?}");
        assert_eq!(simulator.seen().accepted, u64::from(is_stored), "{act:?}");
    }
}

#[tokio::test]
async fn an_early_401_meets_large_bodies_until_the_next_token() {
    let rules = vec![Rule {
        when: Match { bytes_min: Some(1_000_000), until_token: Some(1), ..Match::default() },
        act: Act::AnswerEarly { status: 401 },
        ..Rule::default()
    }];
    let simulator = start(SimulatorOptions { rules, ..Default::default() }).await;
    let first = token(&simulator, "access-inbound").await;
    let large = "7".repeat(4_000_000);
    assert_eq!(send(payload(&simulator, "demo/orders", &first, "k", "7")).await.status, 200);
    match endpoint().send(payload(&simulator, "demo/orders", &first, "k", &large)).await {
        Reply::Answer(answer) => assert_eq!(answer.status, 401),
        // The reset that follows may overtake the answer, as in the wild.
        Reply::NoAnswer { cause, .. } => assert_eq!(cause.code.to_string(), "cut"),
        Reply::Changed => panic!("nothing changed"),
    }
    let second = token(&simulator, "access-inbound").await;
    assert_eq!(send(payload(&simulator, "demo/orders", &second, "k", &large)).await.status, 200);
    assert_eq!(simulator.seen().accepted, 2);
}

#[tokio::test]
async fn stock_passport_takes_no_get_and_no_credentials_in_the_query() {
    let ways = SimulatorOptions { token_ways: TokenWay::PASSPORT.into(), ..Default::default() };
    let simulator = start(ways).await;
    let url = simulator.token_url();
    let all = "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret";
    let case = async |method, url: String, content_type: &str, body: &str, status, error: &str| {
        let headers = vec![("Content-Type".to_owned(), Secret::new(content_type))];
        let request = Request { method, headers, ..post(url, body.to_owned()) };
        let answer = send(request).await;
        assert_eq!(answer.status, status, "{method} {content_type} {body}");
        let json: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(json["error"].as_str().unwrap_or_default(), error);
    };
    let form = "application/x-www-form-urlencoded";
    case("GET", format!("{url}?{all}"), form, "", 405, "").await;
    case("POST", format!("{url}?{all}"), form, "", 400, "unsupported_grant_type").await;
    case("POST", url.clone(), "text/plain", all, 400, "unsupported_grant_type").await;
    case("POST", url.clone(), form, "grant_type=client_credentials", 400, "invalid_request").await;
    case("POST", url.clone(), form, &all.replace("demo-s", "x"), 401, "invalid_client").await;
    case("POST", url.clone(), form, &format!("{all}&scope=x"), 400, "invalid_scope").await;
    case("POST", url.clone(), form, &format!("{all}&scope=access-inbound"), 200, "").await;
    assert_eq!(simulator.seen().tokens_issued, 1);
}

#[tokio::test]
async fn a_stop_ends_everything_and_frees_the_port() {
    let simulator = start(SimulatorOptions::default()).await;
    let (port, url) = (simulator.addr().port(), format!("{}/hook/x", simulator.url()));
    assert_eq!(send(post(format!("{}/_simulator/stop", simulator.url()), "")).await.status, 200);
    simulator.stopped().await;
    // The listener goes with its task; until then the port is taken.
    let next = loop {
        match Simulator::start(SimulatorOptions { port, ..Default::default() }).await {
            Ok(next) => break next,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(send(post(url, "{}")).await.status, 200);
    assert_eq!((simulator.seen().accepted, next.seen().accepted), (0, 1));
}
