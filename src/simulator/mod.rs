//! A stand-in for the Patchworks APIs on loopback, as strict as what is known of them.
//!
//! Its doors: the token endpoint (`/oauth/token`), the login (`/api/v1/login`), the inbound API
//! (`/v1/{company}/{vanity}`), the Start API (`/api/v1/flows/{flow}/…`), what the Core API says of
//! runs (`/api/v1/flow-runs…`), webhooks and callbacks (`/api/v1/{company}/{id}`), a plain door
//! (`/hook/{name}`, any method) and its own pages below `/_simulator/`. Like the real inbound API
//! it stores what it gets there and does not look whether that is JSON. Faults are ordered by
//! [`Rule`]s that look at the request, never by a list that is used up, so that a file sent again
//! gets the answer that a real server would give.
//!
//! Of each accepted payload it keeps digest, length and key; bodies only when asked. Credentials,
//! signatures and queries it neither records nor logs.
#![expect(clippy::disallowed_methods, reason = "a server of its own: it waits on request")]

mod answer;
mod body;
mod caller;
mod document;
mod door;
mod flow;
mod hmac;
mod inbound;
mod login;
mod oauth;
mod options;
mod pace;
mod pages;
mod record;
mod rules;
mod run;
mod text;
mod webhook;

use std::collections::BTreeMap;
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
pub use options::{
    Door, HmacEncoding, HmacOptions, IdForm, LoginOptions, RateReset, RunEnd, RunForm,
    SimulatorOptions, StartOptions, TimeForm, WebhookOptions,
};
pub use record::{DoorSeen, Payload, Seen, Started};
pub use rules::{Act, Match, OddToken, Per, Rule};
pub use run::Run;

use caller::Issued;
use rules::Tally;

/// What a connection reads ahead; hyper's own choice is 400 KB.
const READ_AHEAD_BYTES: usize = 64 * 1024;

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
    /// Below the number of every run, so that those of an earlier simulator are not taken for its
    /// own: the time of its start.
    runs_from: u64,
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
    runs: Vec<Run>,
    is_client_revoked: bool,
    in_flight: u64,
    windows: BTreeMap<Door, (tokio::time::Instant, u32)>,
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
            runs_from: run::now_millis(),
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

    /// Where a login is sent to.
    #[must_use]
    pub fn login_url(&self) -> String {
        format!("http://{}/api/v1/login", self.addr)
    }

    /// The `start_url` of the Start API.
    #[must_use]
    pub fn start_url(&self) -> String {
        format!("http://{}/api/v1", self.addr)
    }

    /// The `core_url` of the Core API.
    #[must_use]
    pub fn core_url(&self) -> String {
        format!("http://{}/api/v1", self.addr)
    }

    /// The URL of a webhook, with its signature: as secret as that is.
    #[must_use]
    pub fn webhook_url(&self, id: &str) -> Secret {
        let SimulatorOptions { company, webhook, .. } = &self.state.options;
        let signature = webhook.signature.reveal();
        let address = self.addr;
        Secret::new(format!(
            "http://{address}/api/v1/{company}/{id}?patchworks_signature={signature}"
        ))
    }

    /// The runs that were started, in the order of their numbers.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        self.state.inner().runs.clone()
    }

    /// Ends every run that has not ended, now and in that way. Says how many.
    pub fn end_runs(&self, ends: RunEnd, reason: Option<&str>) -> usize {
        run::end_all(&self.state, ends, reason)
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

    /// Takes the client's right away: no token for it any more, and those it has are ended.
    pub fn revoke_client(&self) {
        self.state.inner().is_client_revoked = true;
        self.revoke_tokens();
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
