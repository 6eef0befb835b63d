//! Tokens from a server that nobody here wrote: npm's oidc-provider, `tests/oidc/server.mjs`.
//!
//! `tests/oidc/run` starts it and says where it is. Without it nothing here can pass: the tests fail,
//! so that a test left out never looks like one that held.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "these are tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use patchdrop::model::exchange::{Answer, Body, CredentialName, Reply, Request, Token};
use patchdrop::model::route::{Credential, CredentialKind, CredentialsIn, OAuth2, TokenMethod};
use patchdrop::model::secret::Secret;
use patchdrop::world::clock::SystemClock;
use patchdrop::world::endpoint::{Endpoint, EndpointOptions, HttpEndpoint};
use patchdrop::world::token::{TokenDesk, Tokens};
use tempfile::TempDir;

/// A secret that servers read differently in a Basic header.
const SIGNS: &str = "marked-secret+with%25signs/and=more";

fn server() -> String {
    std::env::var("PATCHDROP_OIDC").expect("these tests need their server: run ./tests/run oidc")
}

/// A client of the server, its desk, and the network.
struct Scene {
    desk: TokenDesk<SystemClock, HttpEndpoint>,
    endpoint: HttpEndpoint,
    name: CredentialName,
    _state: TempDir,
}

impl Scene {
    fn new(client: &str, secret: &str, change: impl FnOnce(&mut OAuth2)) -> Self {
        let mut oauth2 = OAuth2 {
            token_url: format!("{}/token", server()),
            method: TokenMethod::Auto,
            credentials_in: None,
            client_id: client.to_owned(),
            client_secret: Secret::new(secret),
            scope: Some("access-inbound".to_owned()),
            extra: BTreeMap::new(),
            token_field: None,
        };
        change(&mut oauth2);
        let name = CredentialName::from(client);
        let credential = Credential {
            name: Arc::clone(&name),
            kind: CredentialKind::OAuth2(oauth2),
            refresh_before: Duration::from_mins(10),
            lifetime: Duration::from_hours(24),
            keep_token: true,
            hosts: BTreeSet::new(),
        };
        let endpoint = HttpEndpoint::new(EndpointOptions::default()).unwrap();
        let state = tempfile::tempdir().unwrap();
        let credentials = BTreeMap::from([(Arc::clone(&name), Arc::new(credential))]);
        let clock = Arc::new(SystemClock::new());
        let desk = TokenDesk::new(credentials, state.path(), clock, endpoint.clone());
        Self { desk, endpoint, name, _state: state }
    }

    async fn current(&self) -> Token {
        self.desk.current(&self.name).await.unwrap()
    }

    fn way(&self) -> &'static str {
        self.desk.peek(&self.name).unwrap().way
    }

    /// The status that the API behind the tokens answers with.
    async fn use_token(&self, token: &Token) -> u16 {
        let authorization = ("Authorization".to_owned(), token.authorization.clone());
        self.post("/inbound", vec![authorization], "{}").await.status
    }

    async fn post(&self, path: &str, mut headers: Vec<(String, Secret)>, body: &str) -> Answer {
        let form = Secret::new("application/x-www-form-urlencoded");
        headers.push(("Content-Type".to_owned(), form));
        let request = Request {
            method: "POST",
            url: Secret::new(format!("{}{path}", server())),
            headers,
            body: Body::Bytes(body.to_owned().into()),
            connect_timeout: Duration::from_secs(20),
            timeout: Duration::from_secs(20),
        };
        match self.endpoint.send(request).await {
            Reply::Answer(answer) => answer,
            other @ (Reply::NoAnswer { .. } | Reply::Changed) => panic!("no answer: {other:?}"),
        }
    }

    /// Code and remedy of a refusal, in which no secret stands.
    async fn refusal(&self) -> (String, String) {
        let refusal = self.desk.current(&self.name).await.unwrap_err();
        assert!(!format!("{refusal:?}").contains("marked-secret"), "{refusal:?}");
        (refusal.cause.code.to_string(), refusal.remedy)
    }
}

#[tokio::test]
async fn client_credentials_by_basic() {
    let scene = Scene::new("basic", "marked-secret-of-basic", |oauth2| {
        oauth2.method = TokenMethod::Post;
        oauth2.credentials_in = Some(CredentialsIn::Basic);
    });
    let token = scene.current().await;
    assert_eq!(scene.use_token(&token).await, 201);
    assert_eq!(scene.way(), "POST, credentials in the Basic header");
    let glimpse = scene.desk.peek(&scene.name).unwrap();
    assert_eq!(glimpse.expires_at.since(glimpse.fetched_at), Duration::from_mins(10));
    assert!(!glimpse.is_assumed);
}

#[tokio::test]
async fn client_credentials_by_form() {
    let scene = Scene::new("form", "marked-secret-of-form", |oauth2| {
        oauth2.method = TokenMethod::Post;
    });
    let token = scene.current().await;
    assert_eq!(scene.use_token(&token).await, 201);
    assert_eq!(scene.way(), "POST, credentials in a form body");
}

#[tokio::test]
async fn auto_finds_the_way_where_get_is_not_taken() {
    let scene = Scene::new("form", "marked-secret-of-form", |_| {});
    let token = scene.current().await;
    assert_eq!(scene.use_token(&token).await, 201);
    assert_eq!(scene.way(), "POST, credentials in a form body");
}

#[tokio::test]
async fn a_token_is_followed_by_a_new_one_before_its_end() {
    let scene = Scene::new("brief", "marked-secret-of-brief", |_| {});
    let first = scene.current().await;
    assert_eq!(scene.use_token(&first).await, 201);
    // It lives for three seconds, and is renewed after half of them. Asking until then is the only
    // wait that the server's own clock allows, here and below.
    let mut token = first.clone();
    while token.generation == first.generation {
        assert_eq!(scene.use_token(&token).await, 201);
        token = scene.current().await;
    }
    assert_eq!(scene.use_token(&token).await, 201);
}

#[tokio::test]
async fn an_expired_token_is_followed_by_a_new_one() {
    let scene = Scene::new("brief", "marked-secret-of-brief", |_| {});
    let first = scene.current().await;
    assert_eq!(scene.use_token(&first).await, 201);
    while scene.use_token(&first).await != 401 {}
    // The server counts whole seconds: it may end a token a little before what it has said.
    let second = scene.desk.refresh(&scene.name, first.generation).await.unwrap();
    assert_eq!(second.generation, first.generation + 1);
    assert_eq!(scene.use_token(&second).await, 201);
}

#[tokio::test]
async fn a_token_that_was_revoked_is_replaced_once() {
    let scene = Scene::new("form", "marked-secret-of-form", |_| {});
    let first = scene.current().await;
    let bare = first.authorization.reveal().trim_start_matches("Bearer ");
    let form = format!("token={bare}&client_id=form&client_secret=marked-secret-of-form");
    assert_eq!(scene.post("/token/revocation", vec![], &form).await.status, 200);
    assert_eq!(scene.use_token(&first).await, 401);
    let second = scene.desk.refresh(&scene.name, first.generation).await.unwrap();
    assert_eq!(second.generation, first.generation + 1);
    assert_eq!(scene.use_token(&second).await, 201);
}

#[tokio::test]
async fn an_unknown_client_and_a_wrong_secret_are_told_clearly() {
    for (client, secret) in [("nobody", "marked-secret"), ("form", "marked-secret-of-another")] {
        let scene = Scene::new(client, secret, |_| {});
        let (code, remedy) = scene.refusal().await;
        assert_eq!(code, "token-invalid-client", "{client}");
        assert!(remedy.contains(&format!("[credential.{client}]")), "{remedy}");
    }
}

#[tokio::test]
async fn a_client_that_was_dismissed_is_refused_from_then_on() {
    let scene = Scene::new("leaver", "marked-secret-of-leaver", |_| {});
    let first = scene.current().await;
    assert_eq!(scene.use_token(&first).await, 201);
    assert_eq!(scene.post("/dismiss/leaver", vec![], "").await.status, 204);
    let refusal = scene.desk.refresh(&scene.name, first.generation).await.unwrap_err();
    assert_eq!(refusal.cause.code.to_string(), "token-invalid-client");
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(30)));
    assert_eq!(scene.refusal().await.0, "token-invalid-client");
}

#[tokio::test]
async fn a_scope_that_the_client_may_not_have_is_told_clearly() {
    let scene = Scene::new("form", "marked-secret-of-form", |oauth2| {
        oauth2.scope = Some("another-scope".to_owned());
    });
    let (code, remedy) = scene.refusal().await;
    assert_eq!(code, "token-invalid-scope");
    assert!(remedy.contains("scope of [credential.form]"), "{remedy}");
}

#[tokio::test]
async fn a_secret_that_basic_headers_carry_in_two_ways_gets_a_hint_that_helps() {
    let scene = Scene::new("signs-basic", SIGNS, |oauth2| {
        oauth2.method = TokenMethod::Post;
        oauth2.credentials_in = Some(CredentialsIn::Basic);
    });
    let (code, remedy) = scene.refusal().await;
    assert_eq!(code, "token-invalid-client");
    assert!(remedy.contains("credentials_in = \"form\""), "{remedy}");
    let scene = Scene::new("signs-form", SIGNS, |oauth2| {
        oauth2.credentials_in = Some(CredentialsIn::Form);
    });
    let token = scene.current().await;
    assert_eq!(scene.use_token(&token).await, 201);
}
