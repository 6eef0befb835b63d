//! The stand-in answers as the real APIs are known to.

use std::collections::BTreeSet;
use std::time::Duration;

use patchdrop::model::exchange::{Answer, Body, Progress, Reply, Request};
use patchdrop::model::secret::Secret;
use patchdrop::simulator::{
    Act, Door, DoorSeen, HmacEncoding, HmacOptions, IdForm, LoginOptions, Match, OddToken, Per,
    RateReset, Rule, RunEnd, RunForm, Simulator, SimulatorOptions, StartOptions, TokenWay,
    WebhookOptions,
};
use patchdrop::world::endpoint::Endpoint;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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

/// A request by its line, headers and body: `("GET", "/path", &[(name, value)], body)`.
async fn ask(
    simulator: &Simulator,
    line: &str,
    headers: &[(&str, &str)],
    body: impl Into<bytes::Bytes>,
) -> Answer {
    let (method, path) = line.split_once(' ').unwrap();
    let method = if method == "GET" { "GET" } else { "POST" };
    let of = |(name, value): &(&str, &str)| ((*name).to_owned(), Secret::new(*value));
    let headers = headers.iter().map(of).collect();
    send(Request { method, headers, ..post(format!("{}{path}", simulator.url()), body) }).await
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

/// Headers of a request for the Core or Start API.
const KEYED: [(&str, &str); 3] = [
    ("Authorization", "demo-key"),
    ("Accept", "application/json"),
    ("Content-Type", "application/json"),
];

fn starting(start: StartOptions) -> SimulatorOptions {
    SimulatorOptions { start, ..Default::default() }
}

#[tokio::test]
async fn a_login_gives_a_token_to_who_knows_the_password_in_fields_that_can_be_set() {
    let good = "{\"email\":\"demo@example.com\",\"password\":\"demo-password\"}";
    let check = async |options: LoginOptions, body: &str, status: u16, place: &str| {
        let options = SimulatorOptions { login: options, ..Default::default() };
        let simulator = start(options).await;
        let json_type = [("Content-Type", "application/json")];
        let answer = ask(&simulator, "POST /api/v1/login", &json_type, body.to_owned()).await;
        assert_eq!(answer.status, status, "{body}");
        let found = json(&answer).pointer(place).cloned();
        assert!(found.is_some_and(|found| !found.is_null()), "{body}: {}", json(&answer));
    };
    let usual = LoginOptions::default;
    check(usual(), good, 200, "/token").await;
    check(usual(), good, 200, "/expires_in").await;
    check(usual(), &good.replace("demo-p", "p"), 401, "/message").await;
    check(usual(), "{\"email\":\"demo@example.com\"}", 422, "/errors/password/0").await;
    check(usual(), "{", 422, "/errors/email/0").await;
    let user = LoginOptions { user_field: "username".into(), ..usual() };
    check(user.clone(), good, 422, "/errors/username/0").await;
    check(user, &good.replace("email", "username"), 200, "/token").await;
    let nested = LoginOptions { token_place: "data.access_token".into(), ..usual() };
    check(nested, good, 200, "/data/access_token").await;

    let simulator = start(SimulatorOptions::default()).await;
    assert_eq!(ask(&simulator, "GET /api/v1/login", &[], "").await.status, 405);
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(ask(&simulator, "POST /api/v1/login", &form, "email=a").await.status, 422);
}

#[tokio::test]
async fn each_door_takes_its_own_credentials_and_no_other() {
    let simulator = start(SimulatorOptions::default()).await;
    let oauth = format!("Bearer {}", token(&simulator, "access-inbound").await);
    let login = "{\"email\":\"demo@example.com\",\"password\":\"demo-password\"}";
    let json_type = [("Content-Type", "application/json")];
    let answer = ask(&simulator, "POST /api/v1/login", &json_type, login).await;
    let bare = json(&answer)["token"].as_str().unwrap().to_owned();
    let login = format!("Bearer {bare}");
    let [inbound, start_flow, runs] =
        ["POST /v1/demo/orders", "POST /api/v1/flows/7/start", "GET /api/v1/flow-runs"];
    for (line, authorization, accept, status) in [
        (inbound, oauth.as_str(), "application/json", 200),
        (inbound, "demo-key", "application/json", 401),
        (inbound, &login, "application/json", 403),
        (inbound, "Bearer wrong", "*/*", 302),
        (start_flow, "demo-key", "application/json", 200),
        (start_flow, "demo-key", "*/*", 200),
        (start_flow, "Bearer demo-key", "application/json", 401),
        (start_flow, "Bearer demo-key", "*/*", 302),
        (start_flow, &login, "application/vnd.api+json", 200),
        (start_flow, &bare, "application/json", 401),
        (start_flow, &oauth, "application/json", 403),
        (start_flow, "Basic dTpw", "application/json", 401),
        (runs, "demo-key", "application/json", 200),
        (runs, &login, "application/json", 200),
        (runs, "", "application/json", 401),
    ] {
        let headers = [
            ("Authorization", authorization),
            ("Accept", accept),
            ("Content-Type", "application/json"),
        ];
        let answer = ask(&simulator, line, &headers, "").await;
        assert_eq!(answer.status, status, "{line} {accept}");
    }
    let open = SimulatorOptions {
        bearer: Some(Secret::new("fixed")),
        basic: Some(("u".into(), Secret::new("p"))),
        hook_is_closed: true,
        ..Default::default()
    };
    let simulator = start(open).await;
    for line in [inbound, start_flow, runs, "POST /hook/door"] {
        for (authorization, status) in
            [("Bearer fixed", 200), ("Basic dTpw", 200), ("Basic dTpx", 401), ("fixed", 401)]
        {
            let headers = [("Authorization", authorization), ("Accept", "application/json")];
            assert_eq!(ask(&simulator, line, &headers, "").await.status, status, "{line}");
        }
    }
}

#[tokio::test]
async fn odd_answers_come_from_the_token_doors_when_a_rule_says_so() {
    let at_token = Match { door: Some(Door::Token), ..Match::default() };
    let check = async |act: Act, is_odd: fn(&Answer) -> bool| {
        let rules = vec![Rule { when: at_token.clone(), act: act.clone(), ..Rule::default() }];
        let simulator = start(SimulatorOptions { rules, ..Default::default() }).await;
        let body = "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret";
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let answer = ask(&simulator, "POST /oauth/token", &form, body).await;
        assert!(is_odd(&answer), "{act:?}: {} {:?}", answer.status, answer.body);
        // Without a door in it a rule leaves tokens alone.
        simulator.set_rules(vec![Rule { act, ..Rule::default() }]);
        let answer = ask(&simulator, "POST /oauth/token", &form, body).await;
        assert_eq!((answer.status, json(&answer)["expires_in"].as_u64()), (200, Some(86_400)));
    };
    let odd = |how| Act::OddToken { how };
    check(odd(OddToken::NoLifetime), |it| json(it).get("expires_in").is_none()).await;
    check(odd(OddToken::NoTime), |it| json(it)["expires_in"] == 0).await;
    check(odd(OddToken::LifetimeAsText), |it| json(it)["expires_in"] == "86400").await;
    check(odd(OddToken::ControlCharacter), |it| {
        json(it)["access_token"].as_str().unwrap().contains('\r')
    })
    .await;
    check(odd(OddToken::Empty), |it| json(it)["access_token"] == "").await;
    check(odd(OddToken::Absent), |it| json(it)["access_token"].is_null()).await;
    check(odd(OddToken::CutShort), |it| serde_json::from_slice::<Value>(&it.body).is_err()).await;
    check(Act::Html, |it| it.body.starts_with(b"<!DOCTYPE")).await;
    check(Act::Redirect, |it| it.status == 302).await;
    let reply = Act::Reply {
        status: 418,
        content_type: "text/plain".into(),
        body: "teapot".into(),
        headers: [("x-odd".to_owned(), "yes".to_owned())].into(),
        stores: false,
    };
    check(reply, |it| it.status == 418 && it.body == "teapot").await;
}

#[tokio::test]
async fn a_start_takes_envelopes_raw_bodies_and_nothing_and_refuses_the_rest() {
    let flows = StartOptions {
        flows: Some(BTreeSet::from(["7".into(), "8".into()])),
        undeployed: BTreeSet::from(["8".into()]),
        body_max_bytes: 1_000,
        ..StartOptions::default()
    };
    let simulator = start(starting(flows)).await;
    let large = format!("{{\"payload\":\"{}\"}}", "x".repeat(1_000));
    let no_json = [KEYED[0], KEYED[1], ("Content-Type", "text/plain")];
    let [plain, raw] = ["/api/v1/flows/7/start", "/api/v1/flows/7/start/raw"];
    let mut taken = 0;
    for (path, headers, body, status, flow_gets) in [
        (plain, &KEYED, "{\"payload\":\"{\\\"a\\\":\\u00e9}\"}", 200, Some("{\"a\":é}")),
        (plain, &KEYED, "{\"payload\":\"\",\"x\":[1]}", 200, Some("")),
        (plain, &KEYED, "", 200, None),
        ("/api/v1/flows/7/start/12", &KEYED, "{\"payload\":\"a\"}", 200, Some("a")),
        ("/api/v1/flows/7/manual", &KEYED, "{\"payload\":\"a\"}", 200, Some("a")),
        ("/api/v1/flows/8/start/12", &KEYED, "{\"payload\":\"a\"}", 200, Some("a")),
        (plain, &KEYED, "{\"a\":1}", 200, None),
        (plain, &KEYED, "[{\"payload\":\"a\"}]", 200, None),
        (plain, &no_json, "{\"payload\":\"a\"}", 200, None),
        (plain, &KEYED, "{\"payload\":{\"a\":1}}", 422, None),
        (plain, &KEYED, "{\"payload\":null}", 422, None),
        (plain, &KEYED, "{\"payload\":\"a", 422, None),
        (plain, &KEYED, large.as_str(), 413, None),
        (raw, &KEYED, "{\"a\":1}", 200, Some("{\"a\":1}")),
        ("/api/v1/flows/7/manual/raw/3", &KEYED, "[1]", 200, Some("[1]")),
        (raw, &KEYED, "", 200, None),
        (raw, &KEYED, "12", 422, None),
        (raw, &KEYED, "{\"a\":", 422, None),
        (raw, &no_json, "{\"a\":1}", 422, None),
        ("/api/v1/flows/9/start", &KEYED, "", 404, None),
        ("/api/v1/flows/8/start", &KEYED, "", 422, None),
        ("/api/v1/flows/7/begin", &KEYED, "", 404, None),
        ("/api/v1/flows/7/start/latest", &KEYED, "", 404, None),
        ("/api/v1/flows/7/start?flow_variables=[]", &KEYED, "", 422, None),
        ("/api/v1/flows/7/start?virtual_environment_id=x", &KEYED, "", 422, None),
    ] {
        let answer = ask(&simulator, &format!("POST {path}"), headers, body.to_owned()).await;
        assert_eq!(answer.status, status, "{path} {body}: {:?}", answer.body);
        taken += u64::from(status == 200);
        let seen = simulator.seen();
        assert_eq!(seen.accepted, taken, "{path} {body}");
        if status == 200 {
            let payload = seen.payloads.last().unwrap();
            let started = payload.start.as_ref().unwrap();
            let expected = flow_gets.map(|text| digest(text.as_bytes()));
            assert_eq!(started.payload_sha256, expected, "{path} {body}");
            let is_ignored = flow_gets.is_none() && !body.is_empty();
            assert_eq!(started.is_payload_ignored, is_ignored, "{path} {body}");
            assert_eq!(payload.sha256, digest(body.as_bytes()));
            assert_eq!(payload.announced_bytes, Some(body.len() as u64));
            assert_eq!(json(&answer)["flow_run_id"].to_string(), *started.run);
        }
    }
    assert_eq!(simulator.seen().payloads_ignored, 3);
    assert_eq!(ask(&simulator, &format!("GET {plain}"), &KEYED, "").await.status, 405);
    let asked =
        "/api/v1/flows/7/manual/raw/3?virtual_environment_id=2&flow_variables=%7B%22n%22:1%7D";
    ask(&simulator, &format!("POST {asked}"), &KEYED, "{}").await;
    let payload = simulator.seen().payloads.pop().unwrap();
    let started = payload.start.unwrap();
    assert_eq!((payload.door, &*payload.vanity), (Door::Start, "7"));
    assert_eq!(payload.environment.as_deref(), Some("2"));
    assert_eq!((&*started.trigger, started.is_raw), ("manual", true));
    assert_eq!(started.version.as_deref(), Some("3"));
    assert_eq!(started.variables.as_deref(), Some("{\"n\":1}"));
}

#[tokio::test]
async fn the_run_id_is_where_the_options_say_or_nowhere() {
    let check =
        async |field: Option<&str>, run_ids, pointer: &str, is_right: fn(&Value) -> bool| {
            let run_id_field = field.map(str::to_owned);
            let options = StartOptions { run_id_field, run_ids, ..StartOptions::default() };
            let simulator = start(starting(options)).await;
            let answer = json(&ask(&simulator, "POST /api/v1/flows/7/start", &KEYED, "").await);
            assert!(is_right(answer.pointer(pointer).unwrap_or(&Value::Null)), "{answer}");
            assert_eq!(answer["message"], "Flow initialised.");
        };
    check(Some("run_id"), IdForm::Number, "/run_id", Value::is_number).await;
    check(Some("data.id"), IdForm::Text, "/data/id", Value::is_string).await;
    check(None, IdForm::Number, "/flow_run_id", Value::is_null).await;
}

#[tokio::test]
async fn a_run_ends_as_it_should_and_its_log_says_why() {
    for (ends, status, level) in [
        (RunEnd::Success, 2, "INFO"),
        (RunEnd::Failure, 3, "ERROR"),
        (RunEnd::Stopped, 4, "WARNING"),
        (RunEnd::Partial, 5, "ERROR"),
        (RunEnd::Status(9), 9, "INFO"),
        (RunEnd::Never, 1, ""),
        (RunEnd::Missing, 404, ""),
    ] {
        for form in [RunForm::Flat, RunForm::Attributes] {
            let options = StartOptions { run_form: form, ..StartOptions::default() };
            let simulator = start(starting(options)).await;
            let contains = Some("marked".into());
            let reason = Some("no such customer".into());
            simulator.set_rules(vec![Rule {
                when: Match { contains, ..Match::default() },
                act: Act::Run { ends, queue_millis: None, takes_millis: None, reason },
                ..Rule::default()
            }]);
            let body = "{\"payload\":\"marked\"}";
            let started = ask(&simulator, "POST /api/v1/flows/7/start", &KEYED, body).await;
            let id = json(&started)["flow_run_id"].to_string();
            let line = format!("GET /api/v1/flow-runs/{id}?include=flow,flowVersion");
            let answer = ask(&simulator, &line, &KEYED, "").await;
            let list = json(&ask(&simulator, "GET /api/v1/flow-runs", &KEYED, "").await);
            if ends == RunEnd::Missing {
                assert_eq!((answer.status, &list["meta"]["total"]), (404, &Value::from(0)));
                continue;
            }
            let at = if form == RunForm::Flat { "" } else { "/attributes" };
            let found = json(&answer);
            assert_eq!(found["data"]["id"].to_string(), id);
            let of = |name: &str| found.pointer(&format!("/data{at}/{name}")).unwrap().clone();
            assert_eq!((of("status"), of("flow_id")), (status.into(), 7.into()), "{found}");
            assert_eq!(of("finished_at").is_null(), ends == RunEnd::Never);
            assert_eq!(list["data"][0], found["data"]);
            let line = format!("GET /api/v1/flow-runs/{id}/flow-run-logs?sort=id");
            let log = json(&ask(&simulator, &line, &KEYED, "").await);
            if ends != RunEnd::Never {
                let entry = log["data"].as_array().unwrap().last().unwrap().pointer(at).unwrap();
                assert_eq!(entry["log_level"], level);
                assert_eq!(entry["log_message"], "no such customer");
            }
        }
    }
    let simulator = start(SimulatorOptions::default()).await;
    for line in
        ["/api/v1/flow-runs/1", "/api/v1/flow-runs/1/flow-run-logs", "/api/v1/flow-runs/1/x"]
    {
        assert_eq!(ask(&simulator, &format!("GET {line}"), &KEYED, "").await.status, 404);
    }
    assert_eq!(ask(&simulator, "POST /api/v1/flow-runs", &KEYED, "").await.status, 405);
}

#[tokio::test]
async fn a_run_is_in_no_list_before_it_begins_and_goes_on_until_it_ends() {
    let hour = Duration::from_hours(1);
    let options = StartOptions { run_queue_delay: hour, run_takes: hour, ..Default::default() };
    let simulator = start(starting(options)).await;
    let started = ask(&simulator, "POST /api/v1/flows/7/start", &KEYED, "").await;
    let line = format!("GET /api/v1/flow-runs/{}", json(&started)["flow_run_id"]);
    let found = json(&ask(&simulator, &line, &KEYED, "").await);
    assert_eq!(
        (&found["data"]["status"], found["data"]["started_at"].is_null()),
        (&1.into(), true)
    );
    let total = async || {
        json(&ask(&simulator, "GET /api/v1/flow-runs", &KEYED, "").await)["meta"]["total"].clone()
    };
    assert_eq!(total().await, 0);
    let end = "{\"ends\":\"failure\",\"reason\":\"by hand\"}";
    let answer = ask(&simulator, "POST /_simulator/end-runs", &KEYED, end).await;
    assert_eq!(message(&answer), "Runs ended: 1.");
    assert_eq!(json(&ask(&simulator, &line, &KEYED, "").await)["data"]["status"], 3);
    assert_eq!(total().await, 1);
    assert_eq!(simulator.end_runs(RunEnd::Success, None), 0);
    assert_eq!(simulator.runs()[0].reason.as_deref(), Some("by hand"));
}

#[tokio::test]
async fn runs_are_listed_by_what_is_asked_for_and_page_by_page() {
    let simulator = start(SimulatorOptions::default()).await;
    for flow in ["7", "8", "7", "7"] {
        ask(&simulator, &format!("POST /api/v1/flows/{flow}/start"), &KEYED, "").await;
    }
    let runs = simulator.runs();
    let (first, last) = (runs[0].begins_at_ms, runs[3].begins_at_ms);
    let after = last + 1;
    for (query, status, total, ids) in [
        (String::new(), 200, 4, vec![0, 1, 2, 3]),
        ("sort=-started_at".into(), 200, 4, vec![3, 2, 1, 0]),
        ("filter[flow_id]=7&sort=-id".into(), 200, 3, vec![3, 2, 0]),
        ("filter%5Bflow_id%5D=8".into(), 200, 1, vec![1]),
        ("filter[status]=2&filter[trigger]=API".into(), 200, 4, vec![0, 1, 2, 3]),
        ("filter[status]=3".into(), 200, 0, vec![]),
        (
            format!("filter[started_after]={first}&filter[started_before]={last}"),
            200,
            4,
            vec![0, 1, 2, 3],
        ),
        (format!("filter[started_after]={after}"), 200, 0, vec![]),
        (format!("filter[started_before]={}", first - 1), 200, 0, vec![]),
        ("per_page=3".into(), 200, 4, vec![0, 1, 2]),
        ("per_page=3&page=2".into(), 200, 4, vec![3]),
        ("per_page=101".into(), 422, 0, vec![]),
        ("filter[started_after]=yesterday".into(), 422, 0, vec![]),
        ("filter[colour]=red".into(), 400, 0, vec![]),
        ("sort=colour".into(), 400, 0, vec![]),
    ] {
        let line = format!("GET /api/v1/flow-runs?{query}");
        let answer = ask(&simulator, &line, &KEYED, "").await;
        assert_eq!(answer.status, status, "{query}");
        if status == 200 {
            let answer = json(&answer);
            assert_eq!(answer["meta"]["total"], total, "{query}");
            let found = answer["data"].as_array().unwrap();
            let found: Vec<u64> = found.iter().map(|run| run["id"].as_u64().unwrap()).collect();
            let ids: Vec<u64> = ids.into_iter().map(|at: usize| runs[at].id).collect();
            assert_eq!(found, ids, "{query}");
            assert_eq!(answer["links"]["next"].is_null(), query != "per_page=3", "{query}");
        }
    }
}

#[tokio::test]
async fn a_webhook_wants_its_signature_and_its_hmac() {
    let options = |hmac| SimulatorOptions {
        webhook: WebhookOptions {
            ids: Some(BTreeSet::from(["abc".into()])),
            callbacks: BTreeSet::from(["sync".into()]),
            hmac,
            ..WebhookOptions::default()
        },
        ..SimulatorOptions::default()
    };
    let check = async |options: SimulatorOptions, line: &str, headers: &[(&str, &str)], status| {
        let simulator = start(options).await;
        let answer = ask(&simulator, line, headers, "what do ya want for nothing?").await;
        assert_eq!(answer.status, status, "{line} {headers:?}");
        assert_eq!(simulator.seen().accepted, u64::from(status == 200));
        let shown = serde_json::to_string(&simulator.seen()).unwrap();
        assert!(!shown.contains("demo-signature") && !shown.contains("964ec3843"), "{shown}");
    };
    let signed = "POST /api/v1/demo/abc?patchworks_signature=demo-signature";
    check(options(None), signed, &[], 200).await;
    check(options(None), &signed.replace("abc?", "abc/live?"), &[], 200).await;
    check(options(None), &signed.replace("demo-s", "s"), &[], 403).await;
    check(options(None), "POST /api/v1/demo/abc", &[], 403).await;
    check(options(None), &signed.replace("abc", "abd"), &[], 404).await;
    check(options(None), &signed.replace("/demo/", "/acme/"), &[], 404).await;
    let in_header = [("patchworks-signature", "demo-signature")];
    check(options(None), "POST /api/v1/demo/abc", &in_header, 403).await;
    let mut takes_header = options(None);
    takes_header.webhook.takes_signature_header = true;
    check(takes_header, "POST /api/v1/demo/abc", &in_header, 200).await;

    let hmac = |encoding| {
        let key = Secret::new("Jefe");
        options(Some(HmacOptions { key, encoding, ..HmacOptions::default() }))
    };
    let hex = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    let base64 = "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=";
    for (encoding, value, status) in [
        (HmacEncoding::Hex, hex, 200),
        (HmacEncoding::Hex, base64, 401),
        (HmacEncoding::Hex, &hex.replace('5', "6"), 401),
        (HmacEncoding::Base64, base64, 200),
        (HmacEncoding::Base64, hex, 401),
    ] {
        check(hmac(encoding), signed, &[("X-HMAC-HASH", value)], status).await;
    }
    check(hmac(HmacEncoding::Hex), signed, &[], 401).await;

    let simulator = start(options(None)).await;
    let answer = send(post(simulator.webhook_url("abc").reveal(), "<a/>")).await;
    assert_eq!(answer.body, "{\"message\":\"Flow initialised.\"}");
    let answer = send(post(simulator.webhook_url("sync").reveal(), "a,b")).await;
    assert!(json(&answer).is_array());
    let get = signed.replace("POST", "GET");
    assert_eq!(ask(&simulator, &get, &[], "").await.status, 200);
    let methods: Vec<String> =
        simulator.seen().payloads.into_iter().map(|it| it.method.into()).collect();
    assert_eq!(methods, ["POST", "POST", "GET"]);
    let own = WebhookOptions {
        status: 202,
        content_type: "text/plain".into(),
        body: "thanks".into(),
        ..WebhookOptions::default()
    };
    let simulator = start(SimulatorOptions { webhook: own, ..Default::default() }).await;
    let answer = send(post(simulator.webhook_url("abc").reveal(), "")).await;
    assert_eq!((answer.status, &answer.body[..]), (202, &b"thanks"[..]));
}

#[tokio::test]
async fn each_door_has_its_own_rate_and_count() {
    let minute = Duration::from_mins(1);
    let rates = [(Door::Start, (1, minute)), (Door::Runs, (2, minute)), (Door::Login, (1, minute))];
    let simulator = start(SimulatorOptions { rates: rates.into(), ..Default::default() }).await;
    for (line, status) in [
        ("POST /api/v1/flows/7/start", 200),
        ("POST /api/v1/flows/7/start", 429),
        ("GET /api/v1/flow-runs", 200),
        ("GET /api/v1/flow-runs", 200),
        ("GET /api/v1/flow-runs", 429),
        ("POST /api/v1/login", 422),
        ("POST /api/v1/login", 429),
        ("POST /hook/door", 200),
    ] {
        assert_eq!(ask(&simulator, line, &KEYED, "").await.status, status, "{line}");
    }
    let seen = simulator.counts();
    let throttled = |door| seen.doors.get(&door).map_or(0, DoorSeen::throttled);
    assert_eq!(
        [Door::Start, Door::Runs, Door::Login, Door::Hook, Door::Token].map(throttled),
        [1, 1, 1, 0, 0]
    );
    assert_eq!(seen.doors[&Door::Runs].requests, 3);
}

/// The head of an answer, in small letters, by a client that shows all of it.
async fn head(simulator: &Simulator, request: &str) -> String {
    let mut stream = TcpStream::connect(simulator.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.to_lowercase()
}

#[tokio::test]
async fn every_answer_of_a_limited_door_says_what_is_left_and_a_429_when_it_begins_anew() {
    for (reset, least) in [(RateReset::Epoch, 1_700_000_000), (RateReset::FromNow, 1)] {
        let rates = [(Door::Hook, (1, Duration::from_millis(59_500)))].into();
        let options = SimulatorOptions { rates, rate_reset: reset, ..Default::default() };
        let simulator = start(options).await;
        let request = "POST /hook/door HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                       Content-Length: 0\r\n\r\n";
        let first = head(&simulator, request).await;
        assert!(first.starts_with("http/1.1 200"), "{first}");
        assert!(first.contains("x-ratelimit-limit: 1\r\nx-ratelimit-remaining: 0\r\n"), "{first}");
        assert!(!first.contains("retry-after") && !first.contains("x-ratelimit-reset"), "{first}");
        let second = head(&simulator, request).await;
        assert!(second.starts_with("http/1.1 429"), "{second}");
        let number = |name: &str| -> u64 {
            let line = second.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.parse().unwrap()
        };
        assert!((1..=60).contains(&number("retry-after: ")), "{second}");
        assert!(number("x-ratelimit-reset: ") >= least, "{second}");
        assert_eq!(number("x-ratelimit-reset: ") <= 60, reset == RateReset::FromNow);
    }
}

#[tokio::test]
async fn a_body_is_as_long_as_it_was_announced_or_it_is_not_stored() {
    let simulator = start(SimulatorOptions::default()).await;
    let line = "POST /hook/door HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    let chunked = format!("{line}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n");
    assert!(head(&simulator, &chunked).await.starts_with("http/1.1 200"));
    let long = format!("{line}Content-Length: 2\r\n\r\n{{}}}}");
    assert!(head(&simulator, &long).await.starts_with("http/1.1 200"));
    let mut stream = TcpStream::connect(simulator.addr()).await.unwrap();
    stream.write_all(format!("{line}Content-Length: 3\r\n\r\n{{}}").as_bytes()).await.unwrap();
    drop(stream);
    while simulator.seen().broken_off == 0 {
        tokio::task::yield_now().await;
    }
    let seen = simulator.seen();
    let announced: Vec<_> = seen.payloads.iter().map(|it| (it.announced_bytes, it.bytes)).collect();
    assert_eq!(announced, [(None, 2), (Some(2), 2)]);
    assert_eq!(seen.unannounced, 1);
}

#[tokio::test]
async fn one_request_too_many_at_once_is_turned_away() {
    let rules = vec![Rule {
        when: Match { vanity: Some("stuck".into()), ..Match::default() },
        act: Act::Hang,
        ..Rule::default()
    }];
    let options = SimulatorOptions { rules, capacity: Some((1, 503)), ..Default::default() };
    let simulator = start(options).await;
    assert_eq!(ask(&simulator, "POST /hook/door", &[], "").await.status, 200);
    let url = format!("{}/hook/stuck", simulator.url());
    let stuck = tokio::spawn(async move { endpoint().send(post(url, "")).await });
    while simulator.seen().doors[&Door::Hook].requests < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&simulator, "POST /hook/door", &[], "").await.status, 503);
    stuck.abort();
}

#[tokio::test]
async fn late_answers_do_not_wait_for_one_another() {
    let latency = Duration::from_millis(500);
    let simulator = start(SimulatorOptions { latency, ..Default::default() }).await;
    let since = std::time::Instant::now();
    let url = format!("{}/hook/door", simulator.url());
    let (one, other) = tokio::join!(send(post(&url, "")), send(post(&url, "")));
    assert_eq!((one.status, other.status), (200, 200));
    assert!(since.elapsed() >= latency);
    assert_eq!(simulator.seen().concurrency_peak, 2);
}

#[tokio::test]
async fn a_rule_with_a_door_or_a_path_meets_what_brings_no_payload() {
    let answer = |status| Act::Answer { status, message: None, retry_after: None };
    let when = |door, path: Option<&str>| Match {
        door,
        path: path.map(str::to_owned),
        ..Match::default()
    };
    let runs = "GET /api/v1/flow-runs";
    for (when, line, status) in [
        (when(Some(Door::Runs), None), runs, 500),
        (when(None, Some("/api/v1/flow-runs")), runs, 500),
        (when(None, Some("/hook/")), runs, 200),
        (when(None, None), runs, 200),
        (when(None, None), "POST /hook/door", 500),
        (when(Some(Door::Start), None), "POST /hook/door", 200),
        (when(Some(Door::Start), None), "POST /api/v1/flows/7/start", 500),
    ] {
        let rules = vec![Rule { when: when.clone(), act: answer(500), ..Rule::default() }];
        let simulator = start(SimulatorOptions { rules, ..Default::default() }).await;
        assert_eq!(ask(&simulator, line, &KEYED, "").await.status, status, "{line} {when:?}");
    }
}

#[tokio::test]
async fn a_revoked_client_gets_no_token_and_what_it_had_is_worth_nothing() {
    let simulator = start(SimulatorOptions::default()).await;
    let had = token(&simulator, "access-inbound").await;
    simulator.revoke_client();
    assert_eq!(send(payload(&simulator, "demo/orders", &had, "k", "{}")).await.status, 401);
    let body = "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret";
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let answer = ask(&simulator, "POST /oauth/token", &form, body).await;
    assert_eq!((answer.status, &json(&answer)["error"]), (401, &"invalid_client".into()));
}
