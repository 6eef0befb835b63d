//! What goes over the wire, against the simulator and against peers that behave badly. Loopback
//! only. Timeouts are short only where a timeout is what is tested.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "these are tests")]

mod endpoint;
mod network;
mod refusals;
mod simulator;
mod token;

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use patchdrop::model::exchange::{Body, Reply, Request};
use patchdrop::model::file::Digest;
use patchdrop::model::secret::Secret;
use patchdrop::world::endpoint::{EndpointOptions, HttpEndpoint};
use sha2::Digest as _;

/// A value that must turn up nowhere.
const SECRET: &str = "s3cret-Value_äö/+";

fn digest(bytes: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(bytes).into())
}

fn endpoint() -> HttpEndpoint {
    Captured::start();
    let options = EndpointOptions { user_agent: "patchdrop-test".into(), ..Default::default() };
    HttpEndpoint::new(options).unwrap()
}

fn post(url: impl Into<String>, body: impl Into<bytes::Bytes>) -> Request {
    Request {
        method: "POST",
        url: Secret::new(url.into()),
        headers: vec![("Content-Type".into(), Secret::new("application/json"))],
        body: Body::Bytes(body.into()),
        connect_timeout: Duration::from_secs(20),
        timeout: Duration::from_secs(20),
    }
}

fn answer(reply: Reply) -> patchdrop::model::exchange::Answer {
    match reply {
        Reply::Answer(answer) => answer,
        other @ (Reply::NoAnswer { .. } | Reply::Changed) => panic!("no answer: {other:?}"),
    }
}

/// What `tracing` has written in the whole test run, for looking for secrets in it. (One subscriber
/// for all threads: a scoped one is missed by call sites that another thread meets first.)
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn start() -> &'static Self {
        static CAPTURED: OnceLock<Captured> = OnceLock::new();
        CAPTURED.get_or_init(|| {
            let captured = Self::default();
            let writer = captured.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::set_global_default(subscriber).unwrap();
            captured
        })
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
