//! One exchange for everybody, none after a restart, and a refused secret left in peace.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use patchdrop::model::exchange::{
    Answer, Body, CredentialName, Progress, Reply, Request, Token, TokenRefusal,
};
use patchdrop::model::outcome::{Cause, Code};
use patchdrop::model::route::{
    Credential, CredentialKind, CredentialsIn, Login, OAuth2, TokenMethod,
};
use patchdrop::model::secret::Secret;
use patchdrop::model::time::{Now, Tick, Wall};
use patchdrop::simulator::{Simulator, SimulatorOptions, TokenWay};
use patchdrop::world::clock::Clock;
use patchdrop::world::endpoint::{Endpoint, HttpEndpoint};
use patchdrop::world::token::{TokenDesk, Tokens};
use tempfile::TempDir;

use super::{Captured, SECRET, endpoint};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// A clock that stands still until it is moved.
pub(crate) struct Still(Mutex<Now>);

impl Still {
    fn new() -> Arc<Self> {
        let now = Now { wall: Wall(1_790_000_000_000), tick: Tick(5_000) };
        Arc::new(Self(Mutex::new(now)))
    }

    fn pass(&self, span: Duration) {
        let mut now = self.0.lock().unwrap();
        *now = Now { wall: now.wall.plus(span), tick: now.tick.plus(span) };
    }

    fn set_wall(&self, change: impl Fn(Wall) -> Wall) {
        let mut now = self.0.lock().unwrap();
        now.wall = change(now.wall);
    }
}

impl Clock for Still {
    fn now(&self) -> Now {
        *self.0.lock().unwrap()
    }

    async fn sleep(&self, _span: Duration) {
        panic!("nothing here waits");
    }

    fn dice(&self) -> f64 {
        0.5
    }
}

type Rule = dyn Fn(&Request, u64) -> Reply + Send + Sync;

/// An endpoint that answers by rule and notes what it was asked.
#[derive(Clone)]
pub(crate) struct Scripted {
    rule: Arc<Rule>,
    count: Arc<AtomicU64>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn new(rule: impl Fn(&Request, u64) -> Reply + Send + Sync + 'static) -> Self {
        Self { rule: Arc::new(rule), count: Arc::default(), asked: Arc::default() }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Endpoint for Scripted {
    async fn send(&self, request: Request) -> Reply {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let body = match &request.body {
            Body::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Body::Stream(_) => panic!("no token request is streamed"),
        };
        let headers: Vec<_> = request
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.reveal()))
            .collect();
        let line =
            format!("{} {} [{}] {body}", request.method, request.url.reveal(), headers.join(", "));
        self.asked.lock().unwrap().push(line);
        (self.rule)(&request, count)
    }
}

pub(crate) fn reply(status: u16, content_type: &str, body: &str) -> Reply {
    Reply::Answer(Answer {
        status,
        content_type: content_type.into(),
        body: body.to_owned().into(),
        ..Answer::default()
    })
}

pub(crate) fn json(status: u16, body: &str) -> Reply {
    reply(status, "application/json", body)
}

fn granted(count: u64) -> Reply {
    json(200, &format!("{{\"access_token\":\"tok{count}\",\"expires_in\":86400}}"))
}

fn refused() -> Reply {
    json(
        401,
        "{\"error\":\"invalid_client\",\"error_description\":\"Client authentication failed\"}",
    )
}

fn credential_of(kind: CredentialKind) -> Credential {
    Credential {
        name: "inbound".into(),
        kind,
        refresh_before: Duration::from_mins(10),
        lifetime: DAY,
        keep_token: true,
        hosts: BTreeSet::from(["inbound.pwks.co".into(), "127.0.0.1:8080".into()]),
    }
}

pub(crate) fn credential(token_url: &str) -> Credential {
    credential_of(CredentialKind::OAuth2(OAuth2 {
        token_url: token_url.into(),
        method: TokenMethod::Auto,
        credentials_in: None,
        client_id: "demo-client".into(),
        client_secret: Secret::new(SECRET),
        scope: Some("access-inbound".into()),
        extra: BTreeMap::new(),
        token_field: None,
    }))
}

pub(crate) fn login(login_url: &str) -> Credential {
    credential_of(CredentialKind::Login(Login {
        login_url: login_url.into(),
        user_field: "email".into(),
        password_field: "password".into(),
        email: "robot@example.com".into(),
        password: Secret::new(SECRET),
        extra: BTreeMap::new(),
        token_field: None,
    }))
}

fn oauth2(credential: &mut Credential) -> &mut OAuth2 {
    let CredentialKind::OAuth2(oauth2) = &mut credential.kind else { panic!("not oauth2") };
    oauth2
}

fn desk<C: Clock, E: Endpoint + Clone>(
    credential: Credential,
    folder: &Path,
    clock: &Arc<C>,
    endpoint: &E,
) -> TokenDesk<C, E> {
    let credentials = BTreeMap::from([(Arc::clone(&credential.name), Arc::new(credential))]);
    TokenDesk::new(credentials, folder, Arc::clone(clock), endpoint.clone())
}

/// An endpoint that answers by rule, a clock that stands still, and a folder for what is kept.
pub(crate) struct Office {
    pub(crate) endpoint: Scripted,
    clock: Arc<Still>,
    folder: TempDir,
}

impl Office {
    pub(crate) fn of(rule: impl Fn(&Request, u64) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { endpoint: Scripted::new(rule), clock: Still::new(), folder }
    }

    /// A desk in it, as after a restart where there was one before.
    pub(crate) fn desk(&self, credential: Credential) -> TokenDesk<Still, Scripted> {
        desk(credential, self.folder.path(), &self.clock, &self.endpoint)
    }
}

pub(crate) fn name() -> CredentialName {
    "inbound".into()
}

fn shown(result: &Result<Token, TokenRefusal>) -> String {
    match result {
        Ok(token) => format!("{} {}", token.generation, token.authorization.reveal()),
        Err(refusal) => refusal.cause.code.to_string(),
    }
}

/// Lets spawned tasks run to where they wait for something else. All of them run on this thread,
/// and a write of the cache on another.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

async fn simulated(options: SimulatorOptions) -> (Simulator, Credential, HttpEndpoint, TempDir) {
    let simulator = Simulator::start(options).await.unwrap();
    let mut credential = credential(&simulator.token_url());
    oauth2(&mut credential).client_secret = Secret::new("demo-secret");
    (simulator, credential, endpoint(), tempfile::tempdir().unwrap())
}

#[tokio::test]
async fn fifty_at_once_share_one_exchange_and_a_restart_asks_for_none() {
    let (simulator, credential, endpoint, folder) = simulated(SimulatorOptions::default()).await;
    let clock = Still::new();
    let first = desk(credential.clone(), folder.path(), &clock, &endpoint);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let desk = first.clone();
        tasks.spawn(async move { desk.current(&name()).await.unwrap().authorization });
    }
    let tokens = tasks.join_all().await;
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!(simulator.seen().token_requests, 1);
    assert_eq!(first.peek(&name()).unwrap().way, "GET, credentials in the Basic header");

    let again = desk(credential, folder.path(), &clock, &endpoint);
    assert_eq!(again.current(&name()).await.unwrap().authorization, tokens[0]);
    assert_eq!(simulator.seen().token_requests, 1);
}

#[tokio::test]
async fn an_end_costs_one_exchange() {
    let office = Office::of(|_, count| granted(count));
    let desk = office.desk(credential("http://t/"));
    assert_eq!(shown(&desk.current(&name()).await), "1 Bearer tok1");
    office.clock.pass(DAY);
    assert_eq!(shown(&desk.current(&name()).await), "2 Bearer tok2");
    assert_eq!(shown(&desk.current(&name()).await), "2 Bearer tok2");
    assert_eq!(office.endpoint.count(), 2);
}

#[tokio::test]
async fn shortly_before_its_end_the_old_token_is_used_while_a_new_one_is_fetched() {
    let office = Office::of(|_, count| granted(count));
    let desk = office.desk(credential("http://t/"));
    desk.current(&name()).await.unwrap();
    // refresh_before is 10 min, half of the jitter's 10 % on top.
    office.clock.pass(DAY.saturating_sub(Duration::from_secs(631)));
    assert_eq!(shown(&desk.current(&name()).await), "1 Bearer tok1");
    assert_eq!(office.endpoint.count(), 1);
    office.clock.pass(Duration::from_secs(1));
    assert_eq!(shown(&desk.current(&name()).await), "1 Bearer tok1");
    assert_eq!(shown(&desk.current(&name()).await), "1 Bearer tok1");
    until(|| desk.peek(&name()).unwrap().generation == 2).await;
    assert_eq!(shown(&desk.current(&name()).await), "2 Bearer tok2");
    assert_eq!(office.endpoint.count(), 2);
}

#[tokio::test]
async fn an_early_refresh_that_fails_costs_nobody_the_old_token() {
    let office = Office::of(|_, count| if count == 1 { granted(1) } else { refused() });
    let desk = office.desk(credential("http://t/"));
    desk.current(&name()).await.unwrap();
    office.clock.pass(DAY.saturating_sub(Duration::from_mins(1)));
    for _ in 0..3 {
        assert_eq!(shown(&desk.current(&name()).await), "1 Bearer tok1");
        until(|| office.endpoint.count() == 2).await;
    }
    office.clock.pass(Duration::from_mins(1));
    assert_eq!(shown(&desk.current(&name()).await), "token-invalid-client");
}

#[tokio::test]
async fn a_short_life_is_never_refreshed_before_its_half() {
    let office = Office::of(|_, _| json(200, "{\"access_token\":\"t\",\"expires_in\":\"60\"}"));
    let desk = office.desk(credential("http://t/"));
    desk.current(&name()).await.unwrap();
    office.clock.pass(Duration::from_secs(29));
    desk.current(&name()).await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(office.endpoint.count(), 1);
    office.clock.pass(Duration::from_secs(1));
    desk.current(&name()).await.unwrap();
    until(|| desk.peek(&name()).unwrap().generation == 2).await;
    assert_eq!(office.endpoint.count(), 2);
}

#[tokio::test]
async fn a_refused_token_is_refreshed_once_a_generation() {
    let office = Office::of(|_, count| granted(count));
    let desk = office.desk(credential("http://t/"));
    desk.current(&name()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let desk = desk.clone();
        tasks.spawn(async move { shown(&desk.refresh(&name(), 1).await) });
    }
    assert!(tasks.join_all().await.iter().all(|token| token == "2 Bearer tok2"));
    assert_eq!(shown(&desk.refresh(&name(), 1).await), "2 Bearer tok2");
    assert_eq!(office.endpoint.count(), 2);
    // Taken in between: its refusal is news.
    desk.taken(&name(), 2);
    assert_eq!(shown(&desk.refresh(&name(), 2).await), "3 Bearer tok3");
}

#[tokio::test]
async fn an_api_that_refuses_every_token_does_not_wear_out_the_token_endpoint() {
    let office = Office::of(|_, count| granted(count));
    let desk = office.desk(credential("http://t/"));
    let mut asked_at = vec![];
    for second in 0..7200 {
        let before = office.endpoint.count();
        // A probe: whatever token there is, refused; one forced refresh, refused again.
        let token = desk.current(&name()).await.unwrap();
        match desk.refresh(&name(), token.generation).await {
            Ok(newer) => assert!(newer.generation > token.generation),
            Err(refusal) => {
                assert_eq!(refusal.cause.code, Code::of("token-refused-again"));
                assert!(refusal.retry_after.unwrap() > Duration::ZERO);
                // Probes go on with what there is.
                assert_eq!(desk.current(&name()).await.unwrap().generation, token.generation);
            }
        }
        if office.endpoint.count() > before {
            asked_at.push(second);
        }
        office.clock.pass(Duration::from_secs(1));
    }
    // First and forced at once, then after growing waits.
    assert_eq!(asked_at, [0, 30, 90, 210, 450, 930, 1830, 2730, 3630, 4530, 5430, 6330]);
    assert_eq!(office.endpoint.count(), 13);
    // Once a token was taken, the next refusal is answered at once, and the waits begin anew.
    let token = desk.current(&name()).await.unwrap();
    desk.taken(&name(), token.generation);
    let second = desk.refresh(&name(), token.generation).await.unwrap();
    let refusal = desk.refresh(&name(), second.generation).await.unwrap_err();
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(30)));
}

#[tokio::test]
async fn a_refused_token_is_handed_out_no_more_even_if_there_is_no_other() {
    let away = || Reply::NoAnswer {
        progress: Progress::Nothing,
        cause: Cause::new(Code::of("connect-refused"), "connection refused by t"),
    };
    let office = Office::of(move |_, count| if count == 2 { away() } else { granted(count) });
    let desk = office.desk(credential("http://t/"));
    desk.current(&name()).await.unwrap();
    assert_eq!(shown(&desk.refresh(&name(), 1).await), "token-unreachable");
    assert_eq!(shown(&desk.current(&name()).await), "token-unreachable");
    assert_eq!(office.endpoint.count(), 2);
    office.clock.pass(Duration::from_secs(1));
    assert_eq!(shown(&desk.current(&name()).await), "2 Bearer tok3");
}

#[tokio::test]
async fn a_refused_secret_is_not_hammered() {
    let office = Office::of(|_, _| refused());
    let desk = office.desk(credential("http://t/"));
    let mut asked_at = vec![];
    for second in 0..7200 {
        let before = office.endpoint.count();
        let refusal = desk.current(&name()).await.unwrap_err();
        assert!(refusal.retry_after.unwrap() > Duration::ZERO);
        if office.endpoint.count() > before {
            asked_at.push(second);
        }
        office.clock.pass(Duration::from_secs(1));
    }
    assert_eq!(asked_at, [0, 30, 90, 210, 450, 930, 1830, 2730, 3630, 4530, 5430, 6330]);
    // It stops at invalid_client: one way, one request a time.
    assert_eq!(office.endpoint.count(), 12);
}

#[tokio::test]
async fn auto_walks_on_where_a_way_is_not_taken_and_remembers_what_was() {
    let walk_on = [
        reply(302, "text/html", ""),
        reply(200, "text/html", "<!doctype html><p>Sign in"),
        json(404, "{}"),
        json(405, "{}"),
        json(415, "{}"),
        json(400, "{\"error\":\"unsupported_grant_type\"}"),
    ];
    for first in walk_on {
        let case = format!("{first:?}");
        let office = Office::of(move |request, count| {
            let is_json = request.headers.iter().any(|(_, value)| value.reveal().ends_with("json"))
                && request.headers.iter().any(|(name, _)| name == "Content-Type");
            let body = matches!(&request.body, Body::Bytes(bytes) if bytes.starts_with(b"{"));
            if is_json && body { granted(count) } else { first.clone() }
        });
        let first_desk = office.desk(credential("http://t/x?y=1"));
        assert_eq!(shown(&first_desk.current(&name()).await), "1 Bearer tok3", "{case}");
        let asked = office.endpoint.asked.lock().unwrap().clone();
        assert!(asked[0].starts_with("GET http://t/x?y=1&grant_type=client_credentials&scope="));
        assert!(asked[0].contains("Authorization: Basic ZGVtby1jbGllbnQ6czNjcmV0"));
        assert!(asked[1].starts_with("POST http://t/x?y=1 "));
        assert!(asked[1].contains("client_secret=s3cret-Value_%C3%A4%C3%B6%2F%2B"), "{}", asked[1]);
        assert!(asked[2].ends_with("\"scope\":\"access-inbound\"}"), "{}", asked[2]);
        for line in &asked {
            let url = line.split(' ').nth(1).unwrap();
            assert!(!url.contains("s3cret"), "{url}");
        }
        // Remembered, also across a restart and after the end of the token.
        office.clock.pass(25 * HOUR);
        let again = office.desk(credential("http://t/x?y=1"));
        assert_eq!(shown(&again.current(&name()).await), "2 Bearer tok4", "{case}");
    }
}

type Change = fn(&Still, &mut Credential);

#[tokio::test]
async fn the_way_that_worked_outlives_its_token() {
    let only_form = |request: &Request, count| {
        if matches!(&request.body, Body::Bytes(bytes) if bytes.starts_with(b"client_id=")) {
            granted(count)
        } else {
            json(405, "{}")
        }
    };
    let year = 365 * DAY;
    let changes: [(&str, Change, u64); 5] = [
        ("past its end", |clock, _| clock.pass(2 * DAY), 1),
        ("a new secret", |_, new| oauth2(new).client_secret = Secret::new("another one"), 1),
        ("another scope", |_, new| oauth2(new).scope = None, 1),
        (
            "from the future",
            |clock, _| {
                clock.set_wall(|wall| Wall(wall.0 - i64::try_from(DAY.as_millis()).unwrap()));
            },
            1,
        ),
        // Another endpoint is asked from the start.
        ("another endpoint", |_, new| oauth2(new).token_url = "http://u/".into(), 2),
    ];
    for (case, change, requests) in changes {
        let office = Office::of(only_form);
        let mut credential = credential("http://t/");
        let first = office.desk(credential.clone());
        first.current(&name()).await.unwrap();
        assert_eq!(office.endpoint.count(), 2, "{case}");
        office.clock.pass(Duration::from_secs(1));
        change(&office.clock, &mut credential);
        let second = office.desk(credential);
        second.current(&name()).await.unwrap();
        assert_eq!(office.endpoint.count() - 2, requests, "{case}");
    }
    // In one run: after a refusal, and after the end.
    let office = Office::of(only_form);
    let desk = office.desk(credential("http://t/"));
    desk.current(&name()).await.unwrap();
    desk.refresh(&name(), 1).await.unwrap();
    office.clock.pass(year);
    desk.current(&name()).await.unwrap();
    assert_eq!(office.endpoint.count(), 4);
    // Forgetting forgets the way too.
    desk.forget(&name()).await.unwrap();
    desk.current(&name()).await.unwrap();
    assert_eq!(office.endpoint.count(), 6);
}

#[tokio::test]
async fn auto_stops_where_another_way_cannot_help() {
    let stop_at = [
        refused(),
        json(400, "{\"error\":\"invalid_client\"}"),
        json(401, "{}"),
        json(403, "{}"),
        json(429, "{}"),
        json(503, "{}"),
        reply(502, "text/html", "<html>"),
        json(200, "{\"tok\":1}"),
        json(200, "{\"access_token\":\"a b\"}"),
        Reply::NoAnswer {
            progress: Progress::Whole,
            cause: Cause::new(Code::of("cut"), "the connection to t ended"),
        },
    ];
    for first in stop_at {
        let case = format!("{first:?}");
        let office = Office::of(move |_, _| first.clone());
        let desk = office.desk(credential("http://t/"));
        desk.current(&name()).await.unwrap_err();
        assert_eq!(office.endpoint.count(), 1, "{case}");
    }
}

#[tokio::test]
async fn of_several_refusals_the_one_that_tells_most_is_told() {
    let error = |status, error: &str| json(status, &format!("{{\"error\":\"{error}\"}}"));
    let page = || reply(200, "text/html", "<html>");
    for (replies, code) in [
        // A server that reads no JSON misses everything in the third request.
        (
            [json(404, "{}"), error(400, "invalid_scope"), error(400, "invalid_request")],
            "token-invalid-scope",
        ),
        (
            [json(404, "{}"), error(400, "invalid_scope"), error(401, "invalid_client")],
            "token-invalid-scope",
        ),
        ([page(), error(400, "unauthorized_client"), json(415, "")], "token-unauthorized-client"),
        ([json(405, ""), error(400, "unsupported_grant_type"), page()], "token-unsupported-grant"),
        ([page(), json(404, "{}"), json(405, "")], "token-method"),
        ([json(404, "{}"), json(405, ""), error(401, "invalid_client")], "token-invalid-client"),
    ] {
        let case = format!("{replies:?}");
        let office =
            Office::of(move |_, count| replies[usize::try_from(count - 1).unwrap()].clone());
        let desk = office.desk(credential("http://t/"));
        assert_eq!(shown(&desk.current(&name()).await), code, "{case}");
        assert_eq!(office.endpoint.count(), 3, "{case}");
    }
}

#[tokio::test]
async fn a_way_that_works_no_longer_is_left_for_the_others() {
    let office = Office::of(|request, count| match (request.method, count) {
        ("GET", 1) | ("POST", _) => granted(count),
        (_, _) => json(405, "{}"),
    });
    let desk = office.desk(credential("http://t/"));
    desk.current(&name()).await.unwrap();
    office.clock.pass(DAY);
    assert_eq!(shown(&desk.current(&name()).await), "2 Bearer tok3");
    assert_eq!(desk.peek(&name()).unwrap().way, "POST, credentials in a form body");
}

#[tokio::test]
async fn a_login_posts_address_and_password_as_json() {
    let office = Office::of(|_, _| {
        json(200, "{\"message\":\"Welcome\",\"data\":{\"token\":\"jwt\",\"expires_in\":7200}}")
    });
    let desk = office.desk(login("http://t/api/v1/login"));
    assert_eq!(shown(&desk.current(&name()).await), "1 Bearer jwt");
    let asked = office.endpoint.asked.lock().unwrap().clone();
    let body = format!("{{\"email\":\"robot@example.com\",\"password\":\"{SECRET}\"}}");
    let wanted = format!(
        "POST http://t/api/v1/login [Accept: application/json, Content-Type: application/json] {body}"
    );
    assert_eq!(asked, [wanted]);
    let glimpse = desk.peek(&name()).unwrap();
    assert_eq!(glimpse.expires_at.since(glimpse.fetched_at), 2 * HOUR);
    assert_eq!(glimpse.way, "POST, e-mail and password in a JSON body");
}

#[tokio::test]
async fn a_login_takes_other_fields_and_is_kept_like_any_token() {
    let office = Office::of(|_, count| {
        json(200, &format!("{{\"token\":\"no\",\"auth\":{{\"jwt\":\"yes{count}\"}}}}"))
    });
    let mut credential = login("http://t/");
    let CredentialKind::Login(login) = &mut credential.kind else { panic!() };
    login.user_field = "username".into();
    login.password_field = "pass".into();
    login.extra.insert("tenant".into(), "acme".into());
    login.token_field = Some("auth.jwt".into());
    let first = office.desk(credential.clone());
    assert_eq!(shown(&first.current(&name()).await), "1 Bearer yes1");
    let asked = office.endpoint.asked.lock().unwrap()[0].clone();
    let body =
        format!("{{\"pass\":\"{SECRET}\",\"tenant\":\"acme\",\"username\":\"robot@example.com\"}}");
    assert!(asked.ends_with(&body), "{asked}");
    let again = office.desk(credential.clone());
    assert_eq!(shown(&again.current(&name()).await), "1 Bearer yes1");
    assert!(again.peek(&name()).unwrap().is_assumed);
    let CredentialKind::Login(login) = &mut credential.kind else { panic!() };
    login.password = Secret::new("changed since");
    let changed = office.desk(credential);
    assert_eq!(shown(&changed.current(&name()).await), "1 Bearer yes2");
}

#[tokio::test]
async fn what_goes_out_as_it_is_asks_nobody_and_has_nothing_newer() {
    let kinds = [
        (CredentialKind::ApiKey(Secret::new("0123|key")), "1 0123|key"),
        (CredentialKind::Bearer(Secret::new("a.b.c")), "1 Bearer a.b.c"),
        (
            // The example of RFC 7617, 2.1: the name is UTF-8.
            CredentialKind::Basic { user: "test".into(), password: Secret::new("123\u{a3}") },
            "1 Basic dGVzdDoxMjPCow==",
        ),
    ];
    for (kind, wanted) in kinds {
        let office = Office::of(|_, _| panic!("nothing is asked for"));
        let desk = office.desk(credential_of(kind));
        for _ in 0..3 {
            assert_eq!(shown(&desk.current(&name()).await), wanted);
            let refusal = desk.refresh(&name(), 1).await.unwrap_err();
            assert_eq!(refusal.cause.code, Code::of("token-fixed"));
            assert!(refusal.remedy.contains("[credential.inbound]"), "{}", refusal.remedy);
            office.clock.pass(DAY);
        }
        assert!(desk.peek(&name()).is_none());
        desk.forget(&name()).await.unwrap();
        assert!(desk.may_go_to(&name(), "inbound.pwks.co"));
        assert!(!desk.may_go_to(&name(), "elsewhere.example.com"));
        assert_eq!(std::fs::read_dir(office.folder.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_method_that_is_set_is_the_only_one() {
    for (method, place, wanted) in [
        (
            TokenMethod::Get,
            None,
            "GET http://t/?grant_type=client_credentials&scope=access-inbound ",
        ),
        (
            TokenMethod::Get,
            Some(CredentialsIn::Query),
            "GET http://t/?client_id=demo-client&client_secret=",
        ),
        (TokenMethod::Post, None, "POST http://t/ "),
        (
            TokenMethod::Post,
            Some(CredentialsIn::Basic),
            "POST http://t/ [Accept: application/json, Authorization: Basic ",
        ),
        (TokenMethod::Auto, Some(CredentialsIn::Json), "POST http://t/ "),
    ] {
        let office = Office::of(|_, _| json(405, "{}"));
        let mut credential = credential("http://t/");
        oauth2(&mut credential).method = method;
        oauth2(&mut credential).credentials_in = place;
        let desk = office.desk(credential);
        assert_eq!(shown(&desk.current(&name()).await), "token-method");
        let asked = office.endpoint.asked.lock().unwrap().clone();
        assert_eq!(asked.len(), 1);
        assert!(asked[0].starts_with(wanted), "{}", asked[0]);
    }
}

#[tokio::test]
async fn every_way_works_with_the_simulator() {
    for way in TokenWay::ALL {
        let options = SimulatorOptions { token_ways: [way].into(), ..Default::default() };
        let (simulator, mut credential, endpoint, folder) = simulated(options).await;
        if way == TokenWay::PostBasic {
            oauth2(&mut credential).method = TokenMethod::Post;
            oauth2(&mut credential).credentials_in = Some(CredentialsIn::Basic);
        }
        let clock = Still::new();
        let desk = desk(credential, folder.path(), &clock, &endpoint);
        let result = desk.current(&name()).await;
        assert!(shown(&result).starts_with("1 Bearer simulated."), "{way:?}: {}", shown(&result));
        assert_eq!(simulator.seen().tokens_issued, 1);
    }
}

#[tokio::test]
async fn retry_after_of_a_token_endpoint_is_honoured() {
    let office = Office::of(|_, count| {
        let answer = Answer { status: 429, retry_after: Some("120".into()), ..Answer::default() };
        if count == 1 { Reply::Answer(answer) } else { granted(count) }
    });
    let desk = office.desk(credential("http://t/"));
    let refusal = desk.current(&name()).await.unwrap_err();
    assert_eq!(refusal.retry_after, Some(Duration::from_mins(2)));
    office.clock.pass(Duration::from_secs(119));
    assert_eq!(shown(&desk.current(&name()).await), "token-throttled");
    office.clock.pass(Duration::from_secs(1));
    assert_eq!(shown(&desk.current(&name()).await), "1 Bearer tok2");
}

#[tokio::test]
async fn answers_of_other_shapes_are_read_too() {
    for (field, body, hours) in [
        (None, "{\"access_token\":\"t\"}", 24),
        (None, "{\"token\":\"t\",\"expires_in\":7200}", 2),
        (None, "{\"access_token\":null,\"token\":\"t\",\"expires_in\":null}", 24),
        (None, "{\"data\":{\"access_token\":\"t\",\"expires_in\":7200}}", 2),
        (None, "{\"data\":{\"token\":\"t\"},\"expires_in\":\"soon\"}", 24),
        (None, "{\"access_token\":\"t\",\"expires_in\":\"7200\"}", 2),
        (Some("data.jwt"), "{\"data\":{\"jwt\":\"t\"},\"token\":\"x\",\"expires_in\":3600.5}", 1),
        (None, "{\"access_token\":\"t\",\"expires_in\":1e300}", 24 * 365),
    ] {
        let office = Office::of(move |_, _| json(200, body));
        let mut credential = credential("http://t/");
        oauth2(&mut credential).token_field = field.map(str::to_owned);
        let desk = office.desk(credential);
        assert_eq!(shown(&desk.current(&name()).await), "1 Bearer t", "{body}");
        let glimpse = desk.peek(&name()).unwrap();
        let lifetime = glimpse.expires_at.since(glimpse.fetched_at);
        assert_eq!(lifetime.as_secs() / 3600, hours, "{body}");
    }
}

#[tokio::test]
async fn a_cache_of_other_settings_or_damaged_is_passed_over() {
    let changes: [fn(&mut OAuth2); 5] = [
        |oauth2| oauth2.client_id.push('x'),
        |oauth2| oauth2.client_secret = Secret::new("another"),
        |oauth2| oauth2.token_url.push('x'),
        |oauth2| oauth2.scope = None,
        |oauth2| drop(oauth2.extra.insert("audience".into(), "x".into())),
    ];
    for change in changes {
        let office = Office::of(|_, count| granted(count));
        let mut credential = credential("http://t/");
        let first = office.desk(credential.clone());
        first.current(&name()).await.unwrap();
        change(oauth2(&mut credential));
        let second = office.desk(credential);
        second.current(&name()).await.unwrap();
        assert_eq!(office.endpoint.count(), 2);
    }
    for damage in ["", "{", "{\"token\":5}", "null"] {
        let office = Office::of(|_, count| granted(count));
        let tokens = office.folder.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        std::fs::write(tokens.join("inbound.json"), damage).unwrap();
        let desk = office.desk(credential("http://t/"));
        assert_eq!(shown(&desk.current(&name()).await), "1 Bearer tok1");
    }
}

#[tokio::test]
async fn what_is_kept_is_the_owners_and_forgetting_removes_it() {
    let office = Office::of(|_, count| granted(count));
    let first = office.desk(credential("http://t/"));
    first.current(&name()).await.unwrap();
    let path = office.folder.path().join("tokens/inbound.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("tok1") && !text.contains(SECRET), "{text}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let tokens = std::fs::metadata(office.folder.path().join("tokens")).unwrap();
        assert_eq!(tokens.permissions().mode() & 0o777, 0o700);
    }
    first.forget(&name()).await.unwrap();
    assert!(!path.exists() && first.peek(&name()).is_none());
    first.forget(&name()).await.unwrap();
    assert_eq!(shown(&first.current(&name()).await), "1 Bearer tok2");

    let mut unkept = credential("http://t/");
    unkept.keep_token = false;
    let other = tempfile::tempdir().unwrap();
    desk(unkept, other.path(), &office.clock, &office.endpoint).current(&name()).await.unwrap();
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_costs_the_restart_only() {
    let office = Office::of(|_, count| granted(count));
    // A file where the folder should be.
    std::fs::write(office.folder.path().join("tokens"), "").unwrap();
    let desk = office.desk(credential("http://t/"));
    assert_eq!(shown(&desk.current(&name()).await), "1 Bearer tok1");
    assert_eq!(shown(&desk.current(&name()).await), "1 Bearer tok1");
}

#[tokio::test]
async fn a_jumping_clock_makes_no_token_live_for_ever() {
    let office = Office::of(|_, count| granted(count));
    let first = office.desk(credential("http://t/"));
    first.current(&name()).await.unwrap();
    // Back by a year: the tick still ends it after a day.
    let year = 365 * DAY;
    office.clock.set_wall(|wall| Wall(wall.0 - i64::try_from(year.as_millis()).unwrap()));
    office.clock.pass(12 * HOUR);
    assert_eq!(shown(&first.current(&name()).await), "1 Bearer tok1");
    office.clock.pass(12 * HOUR);
    assert_eq!(shown(&first.current(&name()).await), "2 Bearer tok2");
    // A machine that slept: ticks stood still, the wall went on.
    office.clock.set_wall(|wall| wall.plus(25 * HOUR));
    assert_eq!(shown(&first.current(&name()).await), "3 Bearer tok3");
    // A restart that finds a token from the future does not trust it.
    office.clock.set_wall(|wall| Wall(wall.0 - 86_400_000));
    let second = office.desk(credential("http://t/"));
    second.current(&name()).await.unwrap();
    assert_eq!(office.endpoint.count(), 4);
}

#[tokio::test]
async fn a_caller_that_goes_away_tears_no_exchange() {
    let (simulator, credential, endpoint, folder) = simulated(SimulatorOptions::default()).await;
    let clock = Still::new();
    let desk = desk(credential, folder.path(), &clock, &endpoint);
    {
        let name = name();
        let mut caller = Box::pin(desk.current(&name));
        // Polled until the request is out, then dropped.
        tokio::select! {
            biased;
            _ = &mut caller => {}
            () = until(|| simulator.seen().token_requests == 1) => {}
        }
    }
    assert_eq!(desk.current(&name()).await.unwrap().generation, 1);
    assert_eq!(simulator.seen().token_requests, 1);
}

#[tokio::test]
async fn a_credential_goes_to_its_hosts_alone() {
    let office = Office::of(|_, count| granted(count));
    let desk = office.desk(credential("http://t/"));
    for (host, may) in [
        ("inbound.pwks.co", true),
        ("INBOUND.pwks.co", true),
        ("inbound.pwks.co:8443", false),
        ("127.0.0.1:8080", true),
        ("127.0.0.1", false),
        ("pwks.co", false),
        ("inbound.pwks.co.evil.example", false),
        ("", false),
    ] {
        assert_eq!(desk.may_go_to(&name(), host), may, "{host}");
    }
    assert!(!desk.may_go_to(&"other".into(), "inbound.pwks.co"));
    let unknown = desk.current(&"other".into()).await;
    assert_eq!(shown(&unknown), "token-no-credential");
}

#[tokio::test]
async fn no_secret_and_no_token_is_ever_logged_or_shown() {
    let captured = Captured::start();
    let (_simulator, credential, endpoint, folder) = simulated(SimulatorOptions::default()).await;
    let clock = Still::new();
    let good = desk(credential.clone(), folder.path(), &clock, &endpoint);
    let token = good.current(&name()).await.unwrap();
    let mut wrong = credential;
    oauth2(&mut wrong).client_secret = Secret::new(SECRET);
    let bad = desk(wrong.clone(), folder.path(), &clock, &endpoint);
    let refusal = bad.current(&name()).await.unwrap_err();
    let mut text = format!("{good:?} {token:?} {refusal:?} {wrong:?} {:?}", good.peek(&name()));
    let kept_in = tempfile::tempdir().unwrap();
    for kind in [
        CredentialKind::ApiKey(Secret::new(SECRET)),
        CredentialKind::Bearer(Secret::new(SECRET)),
        CredentialKind::Basic { user: "robot".into(), password: Secret::new(SECRET) },
    ] {
        let fixed = credential_of(kind);
        let desk = desk(fixed.clone(), kept_in.path(), &clock, &endpoint);
        let (token, refusal) = (desk.current(&name()).await, desk.refresh(&name(), 1).await);
        write!(text, "{fixed:?} {desk:?} {token:?} {refusal:?}").unwrap();
    }
    let refused = Scripted::new(|_, _| json(422, "{\"message\":\"no\"}"));
    let desk = desk(login("http://t/"), kept_in.path(), &clock, &refused);
    write!(text, "{desk:?} {:?}", desk.current(&name()).await).unwrap();
    text += &captured.text();
    for said in ["fetched a token", "a fixed credential was refused", "asked for a token in vain"] {
        assert!(text.contains(said), "{said}: nothing was captured");
    }
    let bearer = token.authorization.reveal().trim_start_matches("Bearer ");
    // Base64 of client id and user with the colon, and of the secret where it is whole.
    for secret in
        [SECRET, "s3cret", "demo-secret", bearer, "ZGVtby1jbGllbnQ6", "cm9ib3Q6", "czNjcmV0"]
    {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}
