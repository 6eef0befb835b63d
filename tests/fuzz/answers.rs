//! What servers say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use patchdrop::journey::runs;
use patchdrop::journey::send::{heard, judge, remedy};
use patchdrop::model::exchange::{Answer, Body, RateHeaders, Reply, Request};
use patchdrop::model::route::{Credential, CredentialKind, JudgeRules, OAuth2, TokenMethod};
use patchdrop::model::secret::Secret;
use patchdrop::model::time::{Now, Tick, Wall};
use patchdrop::world::clock::Clock;
use patchdrop::world::endpoint::{Endpoint, EndpointOptions, HttpEndpoint};
use patchdrop::world::token::{TokenDesk, Tokens};
use proptest::prelude::*;

use super::{fuzz, mutated};

const NOW: Wall = Wall(1_790_000_000_000);

const BODY: &str = "{\"data\": {\"flow_run_id\": 17, \"state\": \"stored\", \"attributes\": {\"status\": 2}}, \
     \"error\": \"invalid_token\", \"access_token\": \"t\", \"expires_in\": 86400, \"meta\": {\"last_page\": 1}}";

const BODY_PARTS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"null",
    b"-1",
    b"1e308",
    b"18446744073709551616",
    b"\\ud800",
    b"\xff",
    b"\0",
    b"<html>",
    b"\"id\":",
    b"\"data\":[",
    b"\"expires_in\":\"x\",",
    b"\n",
    b"\"started_at\":\"9999-12-31T23:59:59Z\",",
    b"{\"a\":{\"a\":{\"a\":",
];

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => mutated(BODY.into(), BODY_PARTS),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (0_usize..20_000).prop_map(|depth| "[".repeat(depth).into_bytes()),
    ]
}

/// Numbers, dates and noise.
fn header() -> impl Strategy<Value = Option<String>> {
    let odd = prop::sample::select(vec![
        "",
        "0",
        "-1",
        "1e9",
        "18446744073709551615",
        "99999999999999999999999",
        " 7 ",
        "12, 13",
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "Wed, 99 Foo 99999 99:99:99 GMT",
        "1790000000",
        "nan",
        "1790000000000",
        "\u{e4}",
        "60;w=60",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "0.0000001",
    ]);
    prop::option::of(prop_oneof![odd.prop_map(str::to_owned), "\\PC{0,20}".prop_map(String::from)])
}

fn answers() -> impl Strategy<Value = Answer> {
    let types = prop::sample::select(vec![
        "application/json",
        "text/html",
        "",
        "text/html; charset=\u{e4}",
        "application/problem+json",
    ]);
    let rate = (header(), header(), header());
    let status = prop_oneof![100_u16..600, any::<u16>()];
    let heads = (status, types, header(), header(), rate, header(), header());
    (heads, bodies()).prop_map(|((status, of_type, retry, date, rate, www, id), body)| Answer {
        status,
        content_type: of_type.to_owned(),
        retry_after: retry,
        date,
        rate: RateHeaders { limit: rate.0, remaining: rate.1, reset: rate.2, summary: None },
        www_authenticate: www.unwrap_or_default(),
        request_id: id,
        body: body.into(),
    })
}

fn rules() -> JudgeRules {
    JudgeRules {
        success: BTreeSet::from([200, 201, 202, 204]),
        success_when: Some(("data.state".into(), "stored".into())),
        html_is_success: false,
        file_faults: BTreeSet::from([400, 409, 413, 422]),
        doubtful: BTreeSet::from([502, 504]),
        run_id_fields: vec!["flow_run_id".into(), "data.id".into()],
    }
}

#[test]
fn no_answer_is_too_odd_for_a_verdict() {
    let rules = rules();
    fuzz(answers(), |answer| {
        let reply = Reply::Answer(answer);
        let judged = judge(&rules, &reply, NOW);
        assert!(!judged.cause.plain.is_empty(), "a verdict without a word");
        drop((remedy(&judged.cause, None), judged.end(), judged.heard(), heard(&reply, NOW)));
        drop((runs::run_told(&reply, NOW), runs::runs_told(&reply, NOW), runs::log_told(&reply)));
    });
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Now {
        Now { wall: NOW, tick: Tick(5_000) }
    }

    async fn sleep(&self, _span: Duration) {
        panic!("nothing here waits");
    }

    fn dice(&self) -> f64 {
        0.5
    }
}

/// Gives every request the same answer.
#[derive(Clone)]
struct Saying(Arc<Mutex<Answer>>);

impl Endpoint for Saying {
    async fn send(&self, _: Request) -> Reply {
        Reply::Answer(self.0.lock().unwrap().clone())
    }
}

#[test]
fn no_token_answer_is_too_odd() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let name = Arc::from("inbound");
    let credential = Credential {
        name: Arc::clone(&name),
        kind: CredentialKind::OAuth2(OAuth2 {
            token_url: "https://auth.example.com/oauth/token".into(),
            method: TokenMethod::Auto,
            credentials_in: None,
            client_id: "me".into(),
            client_secret: Secret::new("s3cret-word"),
            scope: None,
            extra: BTreeMap::new(),
            token_field: None,
        }),
        refresh_before: Duration::from_mins(10),
        lifetime: Duration::from_hours(24),
        keep_token: false,
        hosts: BTreeSet::new(),
    };
    let folder = tempfile::tempdir().unwrap();
    fuzz(answers(), |answer| {
        let credentials = BTreeMap::from([(Arc::clone(&name), Arc::new(credential.clone()))]);
        let saying = Saying(Arc::new(Mutex::new(answer)));
        let desk = TokenDesk::new(credentials, folder.path(), Arc::new(Still), saying);
        match runtime.block_on(desk.current(&name)) {
            Ok(token) => {
                let header = token.authorization.reveal();
                let is_plain = header.bytes().all(|byte| (b' '..=b'~').contains(&byte));
                assert!(is_plain, "no header can carry {header:?}");
            }
            Err(refusal) => {
                let said = format!("{refusal:?}");
                assert!(!said.contains("s3cret-word"), "P11: {said}");
            }
        }
    });
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\
     Retry-After: 3\r\nDate: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n{\"a\": [1, 2]}";

const HEAD_PARTS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\0",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/0.9",
    b" 999 ",
    b"-1",
    b"Transfer-Encoding: chunked\r\n",
    b"ffffffffffffffff\r\n",
    b"Content-Length: 99999999999\r\n",
    b":",
    b"\xff",
    b"Content-Encoding: gzip\r\n",
    b"Connection: upgrade\r\n",
    b"HTTP/2",
];

#[test]
fn no_bytes_are_too_odd_for_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let says = Arc::new(Mutex::new(Vec::new()));
    let said = Arc::clone(&says);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4_096];
            let bytes: Vec<u8> = said.lock().unwrap().clone();
            // The other end may have gone.
            drop(stream.read(&mut request).and_then(|_| stream.write_all(&bytes)));
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = EndpointOptions { user_agent: "patchdrop-fuzz".into(), ..Default::default() };
    let endpoint = runtime.block_on(async { HttpEndpoint::new(options).unwrap() });
    let rules = rules();
    fuzz(mutated(HEAD.into(), HEAD_PARTS), |bytes| {
        *says.lock().unwrap() = bytes;
        let request = Request {
            method: "POST",
            url: Secret::new(url.as_str()),
            headers: vec![],
            body: Body::Bytes("{}".into()),
            connect_timeout: Duration::from_secs(2),
            timeout: Duration::from_secs(2),
        };
        let reply = runtime.block_on(endpoint.send(request));
        assert!(!judge(&rules, &reply, NOW).cause.plain.is_empty());
    });
}
