//! Every reply, and how far a request had come.

use std::collections::BTreeSet;
use std::io::Read;
use std::time::Duration;

use patchdrop::model::exchange::{Body, Progress, RateHeaders, Reply, Request, Stream};
use patchdrop::model::file::Digest;
use patchdrop::model::network::{Network, Proxy};
use patchdrop::model::secret::Secret;
use patchdrop::simulator::{Act, Match, Per, Rule, Simulator, SimulatorOptions};
use patchdrop::world::endpoint::{Endpoint, EndpointOptions, HttpEndpoint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{SECRET, answer, digest, endpoint, post};

const SHORT: Duration = Duration::from_millis(200);
const MIB: usize = 1024 * 1024;

/// A peer that serves one connection as the script says.
async fn peer<F, Out, T>(script: F) -> (String, JoinHandle<T>)
where
    F: FnOnce(TcpStream) -> Out + Send + 'static,
    Out: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/in?sig={SECRET}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        script(stream).await
    });
    (url, task)
}

/// Reads up to and including the empty line; gives the head and what came after it.
async fn read_head(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return (String::from_utf8(bytes).unwrap(), rest);
        }
        let read = stream.read_buf(&mut bytes).await.unwrap();
        assert_ne!(read, 0, "the request ended in its head");
    }
}

/// Reads a head and a body of `total` bytes.
async fn read_request(stream: &mut TcpStream, total: usize) -> (String, Vec<u8>) {
    let (head, mut body) = read_head(stream).await;
    while body.len() < total {
        assert_ne!(stream.read_buf(&mut body).await.unwrap(), 0, "the request ended in its body");
    }
    (head, body)
}

fn streamed(url: &str, bytes: Vec<u8>, says: (u64, Digest)) -> Request {
    let stream =
        Stream { reader: Box::new(std::io::Cursor::new(bytes)), bytes: says.0, digest: says.1 };
    Request { body: Body::Stream(stream), ..post(url, "") }
}

fn true_stream(url: &str, bytes: Vec<u8>) -> Request {
    let says = (bytes.len() as u64, digest(&bytes));
    streamed(url, bytes, says)
}

/// Bytes without a short period, so that a swapped or lost block shows in the digest.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let block: Vec<u8> = std::iter::repeat_with(next).take(10_007).collect();
    let mut all = block.repeat(bytes / block.len() + 1);
    all.truncate(bytes);
    all
}

#[track_caller]
fn check(reply: &Reply, wanted: Progress, code: &str, words: &str) {
    let Reply::NoAnswer { progress, cause } = reply else { panic!("not so: {reply:?}") };
    assert_eq!((*progress, cause.code.to_string().as_str()), (wanted, code), "{}", cause.plain);
    assert!(cause.plain.contains(words), "{}", cause.plain);
    let shown = format!("{reply:?}");
    assert!(!shown.contains(SECRET) && !shown.contains("/in"), "{shown}");
}

#[tokio::test]
async fn a_refused_connection_is_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let reply = endpoint().send(post(format!("http://{addr}/in?{SECRET}"), "{}")).await;
    check(&reply, Progress::Nothing, "connect-refused", &format!("connection refused by {addr}"));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_nothing() {
    // Too long a label for DNS, so that no question leaves this machine.
    let host = format!("{}.invalid", "a".repeat(70));
    let reply = endpoint().send(post(format!("http://{host}/in?{SECRET}"), "{}")).await;
    check(&reply, Progress::Nothing, "dns", &format!("the name {host} does not resolve"));
}

#[tokio::test]
async fn a_port_without_tls_is_nothing() {
    let (url, _peer) = peer(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream.read(&mut [0; 64]).await.unwrap()
    })
    .await;
    let reply = endpoint().send(post(url.replace("http:", "https:"), "{}")).await;
    check(&reply, Progress::Nothing, "tls", "does not speak TLS");
}

#[tokio::test]
async fn a_connection_that_is_never_ready_is_nothing() {
    let (url, _peer) =
        peer(|mut stream| async move { stream.read_to_end(&mut vec![]).await }).await;
    let request = Request { connect_timeout: SHORT, ..post(url.replace("http:", "https:"), "{}") };
    let reply = endpoint().send(request).await;
    check(&reply, Progress::Nothing, "connect-timeout", "no connection to 127.0.0.1:");
}

#[tokio::test]
async fn an_empty_body_waits_for_its_connection_and_then_counts_as_whole() {
    let (url, _peer) =
        peer(|mut stream| async move { stream.read_to_end(&mut vec![]).await }).await;
    let request = Request { connect_timeout: SHORT, ..post(url.replace("http:", "https:"), "") };
    check(&endpoint().send(request).await, Progress::Nothing, "connect-timeout", "");

    let (url, head) = peer(|mut stream| async move { read_head(&mut stream).await.0 }).await;
    check(&endpoint().send(post(url, "")).await, Progress::Whole, "cut", "without an answer");
    assert!(head.await.unwrap().to_lowercase().contains("content-length: 0\r\n"));
}

#[tokio::test]
async fn a_cut_after_the_body_is_whole() {
    let (url, _peer) = peer(|mut stream| async move { read_request(&mut stream, 2).await }).await;
    let reply = endpoint().send(post(url, "{}")).await;
    check(&reply, Progress::Whole, "cut", "after the whole body, without an answer");
}

#[tokio::test]
async fn a_cut_within_the_body_is_partial() {
    for make in [true_stream, |url: &str, bytes: Vec<u8>| post(url, bytes)] {
        let (url, _peer) =
            peer(|mut stream| async move { read_request(&mut stream, 100_000).await }).await;
        let reply = endpoint().send(make(&url, noise(32 * MIB))).await;
        check(&reply, Progress::Partial, "cut", "before the whole body was sent");
    }
}

#[tokio::test]
async fn silence_after_the_body_is_whole() {
    let (url, _peer) = peer(|mut stream| async move {
        read_request(&mut stream, 2).await;
        stream.read(&mut [0; 1]).await
    })
    .await;
    let reply = endpoint().send(Request { timeout: SHORT, ..post(url, "{}") }).await;
    check(&reply, Progress::Whole, "no-answer-timeout", "did not answer for 0.2 s");
}

#[tokio::test]
async fn a_peer_that_reads_nothing_stalls_the_body() {
    for make in [true_stream, |url: &str, bytes: Vec<u8>| post(url, bytes)] {
        let (url, peer) = peer(|stream| async move { stream }).await;
        let request = Request { timeout: SHORT, ..make(&url, noise(32 * MIB)) };
        let reply = endpoint().send(request).await;
        check(&reply, Progress::Partial, "send-stalled", "took nothing more of the body");
        drop(peer.await.unwrap());
    }
}

#[tokio::test]
async fn slow_but_steady_is_no_timeout() {
    // Longer than `timeout` in all, but something moves all the time.
    let (url, _peer) = peer(|mut stream| async move {
        read_request(&mut stream, 2).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n").await.unwrap();
        let mut pause = tokio::time::interval(Duration::from_millis(100));
        for letter in b"12345678" {
            pause.tick().await;
            stream.write_all(&[*letter]).await.unwrap();
        }
        stream.read(&mut [0; 1]).await
    })
    .await;
    let timeout = Duration::from_millis(600);
    let reply = endpoint().send(Request { timeout, ..post(url, "{}") }).await;
    assert_eq!(answer(reply).body, "12345678");
}

#[tokio::test]
async fn bytes_that_changed_never_leave_whole() {
    let bytes = noise(MIB);
    let right = (bytes.len() as u64, digest(&bytes));
    let mut other = bytes.clone();
    other[10] ^= 1;
    let mut longer = bytes.clone();
    longer.push(0);
    let shorter = bytes[..bytes.len() - 1].to_vec();
    for (what, changed) in [("other", other), ("longer", longer), ("shorter", shorter)] {
        let (url, got) = peer(|mut stream| async move {
            let mut all = Vec::new();
            let (_, rest) = read_head(&mut stream).await;
            all.extend(rest);
            while stream.read_buf(&mut all).await.is_ok_and(|read| read > 0) {}
            all.len()
        })
        .await;
        let reply = endpoint().send(streamed(&url, changed, right)).await;
        assert!(matches!(reply, Reply::Changed), "{what}: {reply:?}");
        let got = got.await.unwrap();
        assert!(got < bytes.len(), "{what}: {got} bytes left");
    }
}

#[tokio::test]
async fn small_and_empty_streams_are_checked_too() {
    let simulator = Simulator::start(SimulatorOptions::default()).await.unwrap();
    let url = format!("{}/hook/door", simulator.url());
    let nothing = digest(b"");
    for (bytes, says, is_sent) in [
        (&b"x"[..], (1, digest(b"x")), true),
        (b"x", (1, digest(b"y")), false),
        (b"", (0, nothing), true),
        (b"x", (0, nothing), false),
        (b"", (0, digest(b"x")), false),
        (b"", (1, digest(b"x")), false),
    ] {
        let reply = endpoint().send(streamed(&url, bytes.to_vec(), says)).await;
        assert_eq!(matches!(reply, Reply::Answer(_)), is_sent, "{bytes:?} as {says:?}: {reply:?}");
        assert_eq!(matches!(reply, Reply::Changed), !is_sent, "{bytes:?} as {says:?}: {reply:?}");
    }
    assert_eq!(simulator.seen().accepted, 2);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_to_its_end_is_partial() {
    struct Breaks(u64);
    impl Read for Breaks {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::other(SECRET));
            }
            self.0 -= 1;
            Ok(into.len())
        }
    }
    let simulator = Simulator::start(SimulatorOptions::default()).await.unwrap();
    let url = format!("{}/hook/door", simulator.url());
    let stream = Stream { reader: Box::new(Breaks(5)), bytes: MIB as u64, digest: Digest([0; 32]) };
    let reply = endpoint().send(Request { body: Body::Stream(stream), ..post(url, "") }).await;
    check(&reply, Progress::Partial, "read-error", "could not be read to its end");
    assert_eq!(simulator.seen().accepted, 0);
}

#[tokio::test]
async fn a_stream_arrives_byte_for_byte_with_its_length() {
    let simulator = Simulator::start(SimulatorOptions::default()).await.unwrap();
    let url = format!("{}/hook/door", simulator.url());
    for bytes in [1, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 5 * MIB + 3] {
        let bytes = noise(bytes);
        let reply = endpoint().send(true_stream(&url, bytes.clone())).await;
        assert_eq!(answer(reply).status, 200);
        let seen = simulator.seen();
        let payload = seen.payloads.last().unwrap();
        assert_eq!((payload.bytes, payload.sha256), (bytes.len() as u64, digest(&bytes)));
    }
    let (url, head) = peer(|mut stream| async move { read_head(&mut stream).await.0 }).await;
    drop(endpoint().send(true_stream(&url, noise(MIB))).await);
    let head = head.await.unwrap().to_lowercase();
    assert!(head.contains(&format!("content-length: {MIB}\r\n")), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
}

#[tokio::test]
async fn an_early_refusal_of_a_large_body_is_an_answer() {
    for make in [true_stream, |url: &str, bytes: Vec<u8>| post(url, bytes)] {
        let (url, peer) = peer(|mut stream| async move {
            read_head(&mut stream).await;
            let text = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}";
            stream.write_all(text.as_bytes()).await.unwrap();
            // The rest of the body must not follow.
            let mut rest = 0;
            while let Ok(read @ 1..) = stream.read(&mut vec![0; 65536]).await {
                rest += read;
            }
            rest
        })
        .await;
        let reply = answer(endpoint().send(make(&url, noise(64 * MIB))).await);
        assert_eq!((reply.status, reply.body.as_ref()), (401, &b"{}"[..]));
        assert!(peer.await.unwrap() < 64 * MIB);
    }
}

#[tokio::test]
async fn an_early_acceptance_counts_once_everything_has_left() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    let (url, _peer) = peer(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        while stream.read(&mut vec![0; 65536]).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    let reply = endpoint().send(true_stream(&url, noise(32 * MIB))).await;
    assert_eq!(answer(reply).status, 200);

    let (url, _peer) = peer(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        stream
    })
    .await;
    let request = Request { timeout: SHORT, ..true_stream(&url, noise(32 * MIB)) };
    let reply = endpoint().send(request).await;
    check(&reply, Progress::Whole, "cut", "answered 200 before the whole body");
}

#[tokio::test]
async fn a_complete_head_is_an_answer_even_if_its_body_is_cut() {
    let (url, _peer) = peer(|mut stream| async move {
        read_request(&mut stream, 2).await;
        let text = "HTTP/1.1 503 Away\r\nContent-Type: Text/Plain\r\nRetry-After: 7\r\n\
                    Date: Sat, 21 Nov 2026 08:15:00 GMT\r\nX-Request-Id: abc\r\n\
                    WWW-Authenticate: Bearer\r\nWWW-Authenticate: Basic\r\n\
                    Content-Length: 100\r\n\r\nhalf";
        stream.write_all(text.as_bytes()).await.unwrap();
    })
    .await;
    let answer = answer(endpoint().send(post(url, "{}")).await);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.content_type, "text/plain");
    assert_eq!(answer.retry_after.as_deref(), Some("7"));
    assert_eq!(answer.date.as_deref(), Some("Sat, 21 Nov 2026 08:15:00 GMT"));
    assert_eq!(answer.request_id.as_deref(), Some("abc"));
    assert_eq!(answer.www_authenticate, "Bearer, Basic");
    assert_eq!(answer.body, "half");
}

#[tokio::test]
async fn what_a_server_says_of_its_limit_comes_along_in_both_spellings() {
    #[track_caller]
    fn check(rate: &RateHeaders, expected: [Option<&str>; 4]) {
        let RateHeaders { limit, remaining, reset, summary } = rate;
        let said = [limit, remaining, reset, summary];
        assert_eq!(said.map(|text| text.as_deref()), expected);
    }
    let heads = [
        "X-RateLimit-Limit: 60\r\nX-RateLimit-Remaining: 59\r\n",
        "ratelimit-limit: 100\r\nratelimit-remaining: 7\r\nratelimit-reset: 5\r\n",
        "RateLimit: limit=60, remaining=3, reset=20\r\n",
    ];
    let expected = [
        [Some("60"), Some("59"), None, None],
        [Some("100"), Some("7"), Some("5"), None],
        [None, None, None, Some("limit=60, remaining=3, reset=20")],
    ];
    for (head, expected) in heads.into_iter().zip(expected) {
        let (url, _peer) = peer(move |mut stream| async move {
            read_request(&mut stream, 2).await;
            let text = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: 0\r\n\r\n");
            stream.write_all(text.as_bytes()).await.unwrap();
            stream
        })
        .await;
        let answer = answer(endpoint().send(post(url, "{}")).await);
        check(&answer.rate, expected);
    }
}

#[tokio::test]
async fn half_a_head_is_no_answer() {
    let (url, _peer) = peer(|mut stream| async move {
        read_request(&mut stream, 2).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-").await.unwrap();
    })
    .await;
    check(&endpoint().send(post(url, "{}")).await, Progress::Whole, "cut", "without an answer");

    let (url, _peer) = peer(|mut stream| async move {
        read_request(&mut stream, 2).await;
        stream.write_all(b"220 mail.example ready\r\n\r\n").await.unwrap();
        stream
    })
    .await;
    check(&endpoint().send(post(url, "{}")).await, Progress::Whole, "not-http", "in HTTP/1.1");
}

#[tokio::test]
async fn of_a_long_answer_64_kib_are_kept() {
    let (url, peer) = peer(|mut stream| async move {
        read_request(&mut stream, 2).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        // Endless, until the other side has had enough.
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    let answer = answer(endpoint().send(post(url, "{}")).await);
    assert_eq!(answer.body.len(), 64 * 1024);
    peer.await.unwrap();
}

#[tokio::test]
async fn nothing_is_sent_twice_and_no_redirect_followed() {
    let rules = vec![
        Rule {
            when: Match { vanity: Some("moved".into()), ..Match::default() },
            act: Act::Redirect,
            ..Rule::default()
        },
        Rule {
            when: Match { vanity: Some("gone".into()), ..Match::default() },
            act: Act::StoreThenCut,
            ..Rule::default()
        },
    ];
    let simulator =
        Simulator::start(SimulatorOptions { rules, ..Default::default() }).await.unwrap();
    let endpoint = endpoint();
    let url = |name: &str| format!("{}/hook/{name}", simulator.url());
    assert_eq!(answer(endpoint.send(post(url("moved"), "{}")).await).status, 302);
    // The connection is warm now: the case in which clients like to try again by themselves.
    let reply = endpoint.send(post(url("gone"), "{}")).await;
    check(&reply, Progress::Whole, "cut", "without an answer");
    let seen = simulator.seen();
    assert_eq!((seen.requests, seen.accepted, seen.cut), (2, 1, 1));
}

#[tokio::test]
async fn a_hundred_at_once_arrive_once_each() {
    let simulator = Simulator::start(SimulatorOptions::default()).await.unwrap();
    let endpoint = endpoint();
    let mut tasks = tokio::task::JoinSet::new();
    let mut wanted = BTreeSet::new();
    for number in 0..100 {
        let body = format!("{{\"number\":{number}}}");
        wanted.insert(digest(body.as_bytes()));
        let mut request = post(format!("{}/hook/door", simulator.url()), body.clone());
        if number % 2 == 0 {
            request = true_stream(request.url.reveal(), body.into_bytes());
        }
        let endpoint = endpoint.clone();
        tasks.spawn(async move { answer(endpoint.send(request).await).status });
    }
    assert!(tasks.join_all().await.into_iter().all(|status| status == 200));
    let seen = simulator.seen();
    assert_eq!(seen.accepted, 100);
    assert_eq!(seen.payloads.iter().map(|payload| payload.sha256).collect::<BTreeSet<_>>(), wanted);
}

#[tokio::test]
async fn a_proxy_is_never_asked_for_loopback_and_never_shown() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Secret::new(format!("http://user:{SECRET}@{closed}").replace('/', "%2F"));
    let proxy = Secret::new(proxy.reveal().replacen("http:%2F%2F", "http://", 1));
    let through = |proxy: Secret| {
        let network = Network { proxy: Proxy::Url(proxy), ..Network::default() };
        EndpointOptions { network, user_agent: "patchdrop".into() }
    };
    let options = through(proxy);
    assert!(!format!("{options:?}").contains(SECRET));
    let endpoint = HttpEndpoint::new(options).unwrap();
    let simulator = Simulator::start(SimulatorOptions::default()).await.unwrap();
    let reply = endpoint.send(post(format!("{}/hook/door", simulator.url()), "{}")).await;
    assert_eq!(answer(reply).status, 200);

    let reply = endpoint.send(post(format!("http://shop.example/in?{SECRET}"), "{}")).await;
    let words =
        format!("connection refused by the proxy http://{closed} for shop.example (see the");
    check(&reply, Progress::Nothing, "connect-refused", &words);
    assert!(!format!("{endpoint:?}").contains("s3cret"));

    let error = HttpEndpoint::new(through(Secret::new(format!("::{SECRET}"))));
    assert!(!format!("{:?}", error.unwrap_err()).contains(SECRET));
}

#[tokio::test]
async fn what_cannot_be_a_request_is_said_without_showing_it() {
    let header = |name: &str, value: &str| vec![(name.to_owned(), Secret::new(value))];
    let simulator = Simulator::start(SimulatorOptions::default()).await.unwrap();
    let url = format!("{}/hook/door", simulator.url());
    let base = || post(url.clone(), "{}");
    for request in [
        post(format!("not a URL {SECRET}"), "{}"),
        post(format!("ftp://host/{SECRET}"), "{}"),
        Request { headers: header("X", &format!("{SECRET}\n")), ..base() },
        Request { headers: header("X\n", SECRET), ..base() },
    ] {
        let reply = endpoint().send(request).await;
        check(&reply, Progress::Nothing, "request-invalid", "cannot be used");
    }
    assert_eq!(simulator.seen().requests, 0);
}

#[tokio::test]
async fn a_server_that_cuts_mid_body_has_nothing_whole() {
    let rules = vec![Rule { act: Act::CutMidBody, per: Per::All, ..Rule::default() }];
    let simulator =
        Simulator::start(SimulatorOptions { rules, ..Default::default() }).await.unwrap();
    let url = format!("{}/hook/door", simulator.url());
    let reply = endpoint().send(true_stream(&url, noise(64 * MIB))).await;
    check(&reply, Progress::Partial, "cut", "before the whole body was sent");
    assert_eq!(simulator.seen().accepted, 0);
}
