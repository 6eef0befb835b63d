//! A stand-in for the Patchworks APIs on loopback, as strict as what is known of them.
//!
//! It serves the token endpoint (`/oauth/token`), the inbound API (`/v1/{company}/{vanity}`), a
//! plain door (`/hook/{name}`, any method) and its own pages below `/_simulator/`. Like the real
//! inbound API it stores what it gets and does not look whether that is JSON. Faults are ordered by
//! [`Rule`]s that look at the request, never by a list that is used up, so that a file sent again
//! gets the answer that a real server would give.
//!
//! Of each accepted payload it keeps digest, length and key; bodies only when asked.
#![expect(clippy::disallowed_methods, reason = "a server of its own: it waits on request")]

mod door;
mod oauth;
mod record;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::model::secret::Secret;

pub use oauth::TokenWay;
pub use record::{Payload, Seen};
pub use rules::{Act, Match, Per, Rule};

use oauth::Issued;
use rules::Tally;

/// What a connection reads ahead; hyper's own choice is 400 KB.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// What the simulator is to be.
#[derive(Clone, Debug)]
pub struct SimulatorOptions {
    /// Port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// The one company it knows.
    pub company: String,
    /// The vanities it knows; `None`: every well-formed one.
    pub vanities: Option<BTreeSet<String>>,
    /// The client id it accepts.
    pub client_id: String,
    /// The secret it accepts.
    pub client_secret: Secret,
    /// How a token may be asked for.
    pub token_ways: BTreeSet<TokenWay>,
    /// How long a token lives.
    pub token_lifetime: Duration,
    /// After how many accepted payloads a token ends early; `None` for never.
    pub token_uses_max: Option<u64>,
    /// Largest body of the inbound API in bytes.
    pub body_max_bytes: u64,
    /// Requests of the inbound API in a span of time; `None` for no limit.
    pub rate: Option<(u32, Duration)>,
    /// The header by which a sender names the file.
    pub name_header: String,
    /// The header that holds the idempotency key.
    pub key_header: String,
    /// Whether bodies are kept. All of them, in memory: for small tests only.
    pub keep_bodies: bool,
    /// How many payloads are kept on record; later ones are counted only.
    pub payloads_max: usize,
    /// What goes wrong.
    pub rules: Vec<Rule>,
}

impl Default for SimulatorOptions {
    fn default() -> Self {
        Self {
            port: 0,
            company: "demo".to_owned(),
            vanities: None,
            client_id: "demo-client".to_owned(),
            client_secret: Secret::new("demo-secret"),
            token_ways: TokenWay::ALL.into(),
            token_lifetime: Duration::from_hours(24),
            token_uses_max: None,
            body_max_bytes: 8_000_000,
            rate: None,
            name_header: "x-file-name".to_owned(),
            key_header: "idempotency-key".to_owned(),
            keep_bodies: false,
            payloads_max: 1_000_000,
            rules: Vec::new(),
        }
    }
}

/// Why there is no simulator.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on 127.0.0.1:{port}")]
pub struct SimulatorError {
    /// The port asked for.
    pub port: u16,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

/// A running simulator. Dropping it stops it as a crash would.
#[derive(Debug)]
pub struct Simulator {
    addr: SocketAddr,
    state: Arc<State>,
}

/// What all connections share.
#[derive(Debug)]
struct State {
    options: SimulatorOptions,
    stopped: CancellationToken,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    seen: Seen,
    bodies: Vec<bytes::Bytes>,
    rules: Vec<Rule>,
    tally: Tally,
    tokens: BTreeMap<String, Issued>,
    in_flight: u64,
    window: Option<(tokio::time::Instant, u32)>,
}

impl State {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Simulator {
    /// Listens on loopback and serves on the current runtime.
    ///
    /// # Errors
    /// The port is taken, or may not be used.
    pub async fn start(options: SimulatorOptions) -> Result<Self, SimulatorError> {
        let port = options.port;
        let failed = |source| SimulatorError { port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let inner = Inner { rules: options.rules.clone(), ..Inner::default() };
        let state = Arc::new(State {
            options,
            stopped: CancellationToken::new(),
            inner: Mutex::new(inner),
        });
        tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { addr, state })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:PORT`, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where tokens are asked for.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("http://{}/oauth/token", self.addr)
    }

    /// The `base_url` of the inbound API.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Everything it has seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.state.inner().seen.clone()
    }

    /// The same without names and the list of payloads.
    #[must_use]
    pub fn counts(&self) -> Seen {
        self.state.inner().seen.counts()
    }

    /// The kept bodies, in the order of their acceptance.
    #[must_use]
    pub fn bodies(&self) -> Vec<bytes::Bytes> {
        self.state.inner().bodies.clone()
    }

    /// Replaces all rules; what was counted for the old ones is forgotten.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        self.state.inner().set_rules(rules);
    }

    /// Ends every token that was given out.
    pub fn revoke_tokens(&self) {
        self.state.inner().tokens.clear();
    }

    /// Stops listening and cuts every connection.
    pub fn stop(&self) {
        self.state.stopped.cancel();
    }

    /// Waits until somebody has stopped it.
    pub async fn stopped(&self) {
        self.state.stopped.cancelled().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    fn set_rules(&mut self, rules: Vec<Rule>) {
        self.rules = rules;
        self.tally = Tally::default();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        tokio::select! {
            () = state.stopped.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(serve(stream, Arc::clone(&state)));
                }
                // Out of descriptors, most likely: those in use come back.
                Err(error) => {
                    tracing::debug!(%error, "the simulator could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the simulator could not turn off Nagle's algorithm");
    }
    let answer = service_fn(|request| door::answer(request, &state));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(READ_AHEAD_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::select! {
        () = state.stopped.cancelled() => {}
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the simulator was cut");
        }
    }
}

/// A wait that only a stop ends.
async fn hang(state: &State) -> Infallible {
    state.stopped.cancelled().await;
    std::future::pending().await
}
