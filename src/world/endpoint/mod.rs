//! The network: one attempt, no retries, no judgement.
//!
//! Localises what reqwest and hyper do with a request. It keeps promise P6's evidence exact: how
//! far a body had come when its connection ended is read from the body itself, and once that has
//! been read, the body yields nothing more. It keeps P8 for streamed bodies: the last block leaves
//! only after length and digest of everything have matched the record. It keeps P11: no path, no
//! query, no header and no body of a request is ever in a text.

mod body;
mod certificate;
mod client;
mod target;
mod words;

use std::future::Future;
use std::io::Read as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use self::body::{Handover, TROUBLE_CHANGED, TROUBLE_READ, Tracked};
pub use self::client::{EndpointError, EndpointOptions, HttpEndpoint, Trust};
use self::target::Target;
use self::words::Words;
use crate::model::exchange::{Answer, Body, Progress, RateHeaders, Reply, Request, Stream};
use crate::model::outcome::{Cause, Code};
use crate::model::time::Wall;

/// Sends requests.
pub trait Endpoint: Send + Sync + 'static {
    /// One attempt: connects, hands over the body, reads the answer. Never follows a redirect,
    /// never tries again, never says what an answer means.
    fn send(&self, request: Request) -> impl Future<Output = Reply> + Send;
}

impl<E: Endpoint> Endpoint for Arc<E> {
    fn send(&self, request: Request) -> impl Future<Output = Reply> + Send {
        E::send(self, request)
    }
}

/// How much of an answer is kept.
const ANSWER_MAX: usize = 64 * 1024;
/// How much of an answer is read and dropped so that its connection can be used again.
const DRAIN_MAX: usize = 256 * 1024;
/// A header of an answer is kept up to this length.
const HEADER_MAX: usize = 256;
/// What one look at a server shows.
#[derive(Debug)]
pub struct Glance {
    /// What came back.
    pub reply: Reply,
    /// When the server's certificate ends; `None` without an answer over TLS. Where a proxy looks
    /// into TLS, the certificate is the proxy's.
    pub certificate_ends: Option<Wall>,
}

impl Endpoint for HttpEndpoint {
    async fn send(&self, request: Request) -> Reply {
        self.attempt(request, None).await
    }
}

impl HttpEndpoint {
    /// One attempt, as [`Endpoint::send`] makes it, with an eye on the server's certificate.
    pub async fn glance(&self, request: Request) -> Glance {
        let mut certificate_ends = None;
        let reply = self.attempt(request, Some(&mut certificate_ends)).await;
        Glance { reply, certificate_ends }
    }

    async fn attempt(&self, request: Request, ends: Option<&mut Option<Wall>>) -> Reply {
        let target = self.targets().of(&request.url);
        let call = match Call::new(request, target).await {
            Ok(call) => call,
            Err(reply) => return reply,
        };
        let Call { request, handover, limits, host } = call;
        let (client, proxy) = self.client_for(request.url());
        let proxy = proxy.as_deref();
        let is_plain = request.url().scheme() == "http";
        let words = Words { host: &host, proxy, trust: self.trust() };
        let reply = match within(&handover, &limits, client.execute(request)).await {
            // No server answers this, only a proxy that has passed nothing on.
            Ok(Ok(response)) if is_plain && proxy.is_some() && response.status() == 407 => {
                handover.revoke();
                no_answer(&handover, Progress::Nothing, words.of_proxy_login())
            }
            Ok(Ok(response)) => {
                if let Some(ends) = ends {
                    *ends = certificate::end_of(&response);
                }
                read(response, &handover, &limits, &words).await
            }
            Ok(Err(error)) => {
                let progress = if error.is_connect() {
                    handover.revoke();
                    Progress::Nothing
                } else {
                    // A connection there was, even if the body was not asked for.
                    handover.revoke().max_partial()
                };
                no_answer(&handover, progress, words.of_error(&error, progress))
            }
            Err(Stalled) => {
                let progress = handover.revoke();
                no_answer(&handover, progress, words.of_stall(progress, &limits))
            }
        };
        handover.revoke();
        reply
    }
}

impl Progress {
    fn max_partial(self) -> Self {
        match self {
            Self::Nothing => Self::Partial,
            Self::Partial | Self::Whole => self,
        }
    }
}

/// Trouble with our own bytes comes before anything the network says about it.
fn no_answer(handover: &Handover, progress: Progress, cause: Cause) -> Reply {
    match handover.trouble.load(Ordering::Acquire) {
        TROUBLE_CHANGED => Reply::Changed,
        TROUBLE_READ => Reply::NoAnswer {
            progress,
            cause: Cause::new(
                Code::of("read-error"),
                "the file could not be read to its end while it was sent; the connection was \
                 dropped before its last bytes",
            ),
        },
        _ => Reply::NoAnswer { progress, cause },
    }
}

/// The head is complete: whatever happens to the body, this is an answer.
async fn read(
    mut response: reqwest::Response,
    handover: &Handover,
    limits: &Limits,
    words: &Words<'_>,
) -> Reply {
    handover.hear();
    let status = response.status();
    let mut answer = head(status.as_u16(), response.headers());
    let mut kept = Vec::new();
    let drained = within(handover, limits, async {
        let mut seen = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            handover.hear();
            seen += chunk.len();
            let room = ANSWER_MAX.saturating_sub(kept.len()).min(chunk.len());
            kept.extend_from_slice(&chunk[..room]);
            if seen > ANSWER_MAX + DRAIN_MAX {
                break;
            }
        }
    })
    .await;
    if drained.is_err() {
        tracing::debug!(host = words.host, "the body of an answer did not come to its end");
    }
    answer.body = Bytes::from(kept);
    if status.is_success() && handover.progress() != Progress::Whole {
        // A server may accept before it has read everything. That counts once everything has left;
        // if it never does, nobody knows what was accepted.
        if within(handover, limits, handover.ended()).await.is_err()
            || handover.revoke() != Progress::Whole
        {
            let text = format!(
                "{} answered {} before the whole body had been sent, and the rest did not get \
                 through",
                words.host,
                status.as_u16()
            );
            let cause = Cause::new(Code::of("cut"), text);
            return no_answer(handover, Progress::Whole, cause);
        }
    }
    Reply::Answer(answer)
}

fn head(status: u16, headers: &HeaderMap) -> Answer {
    let text = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?.trim();
        Some(value.chars().take(HEADER_MAX).collect::<String>())
    };
    let www_authenticate = headers
        .get_all("www-authenticate")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect::<Vec<_>>()
        .join(", ");
    Answer {
        status,
        content_type: text("content-type").unwrap_or_default().to_ascii_lowercase(),
        retry_after: text("retry-after"),
        date: text("date"),
        rate: RateHeaders {
            limit: text("x-ratelimit-limit").or_else(|| text("ratelimit-limit")),
            remaining: text("x-ratelimit-remaining").or_else(|| text("ratelimit-remaining")),
            reset: text("x-ratelimit-reset").or_else(|| text("ratelimit-reset")),
            summary: text("ratelimit"),
        },
        www_authenticate: www_authenticate.chars().take(4 * HEADER_MAX).collect(),
        request_id: REQUEST_IDS.iter().find_map(|name| text(name)).filter(|id| !id.is_empty()),
        body: Bytes::new(),
    }
}

/// Headers by which servers and gateways name a request, most specific first.
const REQUEST_IDS: [&str; 6] =
    ["x-request-id", "request-id", "x-correlation-id", "x-amzn-requestid", "x-amz-cf-id", "cf-ray"];

/// Headers that the client adds to ours: host, length, user agent and what it accepts. Room is made
/// for them at once.
const HEADERS_OF_CLIENT: usize = 4;

/// A request ready to go.
struct Call {
    request: reqwest::Request,
    handover: Arc<Handover>,
    limits: Limits,
    host: Arc<str>,
}

impl Call {
    async fn new(request: Request, target: Result<Target, &str>) -> Result<Self, Reply> {
        let invalid = |what: &str| Reply::NoAnswer {
            progress: Progress::Nothing,
            cause: Cause::new(Code::of("request-invalid"), what),
        };
        let Target { url, host } = target.map_err(invalid)?;
        let method = reqwest::Method::from_bytes(request.method.as_bytes())
            .map_err(|_| invalid("the request's method cannot be used"))?;
        let started = Instant::now();
        let limits = Limits { started, connect: request.connect_timeout, stall: request.timeout };
        let handover = Arc::new(Handover::new(started));
        let mut call = reqwest::Request::new(method, url);
        call.headers_mut().reserve(request.headers.len() + HEADERS_OF_CLIENT);
        for (name, value) in &request.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes());
            let (Ok(parsed), Ok(mut value)) = (parsed, HeaderValue::from_str(value.reveal()))
            else {
                return Err(invalid("a header of the request cannot be used"));
            };
            value.set_sensitive(true);
            call.headers_mut().append(parsed, value);
        }
        let body = match request.body {
            Body::Bytes(bytes) => Tracked::of_bytes(bytes, &handover),
            Body::Stream(stream) if stream.bytes == 0 => {
                if !is_empty(stream).await {
                    return Err(Reply::Changed);
                }
                Tracked::of_bytes(Bytes::new(), &handover)
            }
            Body::Stream(stream) => Tracked::of_stream(stream, &handover),
        };
        if body.total == 0 && !matches!(request.method, "GET" | "HEAD") {
            // Hyper sends no length for an empty body of itself, and some servers answer 411.
            call.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        *call.body_mut() = Some(reqwest::Body::wrap(body));
        Ok(Self { request: call, handover, limits, host })
    }
}

/// An empty stream has no last byte to withhold, so it is looked at before.
async fn is_empty(stream: Stream) -> bool {
    let mut reader = stream.reader;
    let read = tokio::task::spawn_blocking(move || reader.read(&mut [0_u8; 1]));
    matches!(read.await, Ok(Ok(0))) && stream.digest.0 == <[u8; 32]>::from(Sha256::digest([]))
}

/// How long an attempt may stand still.
struct Limits {
    started: Instant,
    connect: Duration,
    stall: Duration,
}

struct Stalled;

/// Drives `work` until it ends or nothing has moved for too long.
async fn within<F: Future>(
    handover: &Handover,
    limits: &Limits,
    work: F,
) -> Result<F::Output, Stalled> {
    let mut work = pin!(work);
    let first = limits.connect.min(limits.stall);
    let mut alarm = pin!(tokio::time::sleep_until(Instant::now() + first));
    loop {
        tokio::select! {
            biased;
            output = &mut work => return Ok(output),
            () = &mut alarm => match handover.next_check(limits) {
                Some(at) => alarm.as_mut().reset(at),
                None => return Err(Stalled),
            },
        }
    }
}
