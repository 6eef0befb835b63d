//! The network: one attempt, no retries, no judgement.
//!
//! Localises what reqwest and hyper do with a request. It keeps promise P6's evidence exact: how
//! far a body had come when its connection ended is read from the body itself, and once that has
//! been read, the body yields nothing more. It keeps P8 for streamed bodies: the last block leaves
//! only after length and digest of everything have matched the record. It keeps P11: no path, no
//! query, no header and no body of a request is ever in a text.

use std::error::Error as StdError;
use std::future::Future;
use std::io::{self, Read};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use reqwest::Url;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use rustls::CertificateError;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::model::exchange::{Answer, Body, Progress, RateHeaders, Reply, Request, Stream};
use crate::model::file::Digest;
use crate::model::outcome::{Cause, Code};
use crate::model::secret::Secret;

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

/// A pooled connection is not used again after this: many servers close theirs after five seconds,
/// and a POST on a stale one can be read by the server without an answer reaching us.
const IDLE_FOR: Duration = Duration::from_secs(3);
/// What one read of a streamed body yields at most. Six blocks are alive in a stream at worst, so
/// 256 streams at once stay below 25 MB.
const BLOCK_BYTES: usize = 16 * 1024;
/// Blocks read ahead of the connection.
const BLOCKS_AHEAD: usize = 2;
/// Blocks that hyper may hold and the socket has not taken. Hyper itself would take 400 KB.
const BLOCKS_OUT: usize = 2;
/// A body in memory leaves in pieces of this size, so that a stall in its middle is seen as one.
const PIECE_BYTES: usize = 64 * 1024;
/// How much of an answer is kept.
const ANSWER_MAX: usize = 64 * 1024;
/// How much of an answer is read and dropped so that its connection can be used again.
const DRAIN_MAX: usize = 256 * 1024;
/// A header of an answer is kept up to this length.
const HEADER_MAX: usize = 256;

/// Which proxy requests take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// What the system says (environment, or the system's settings).
    System,
    /// None.
    #[default]
    None,
    /// This one. A secret, since it may hold a name and a password.
    Url(Secret),
}

/// How the network is reached.
#[derive(Clone, Debug, Default)]
pub struct EndpointOptions {
    /// Which proxy; loopback is always reached directly.
    pub proxy: Proxy,
    /// The value of `User-Agent`.
    pub user_agent: String,
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The proxy's URL is none. (It may hold a password, so it is not shown.)
    #[error("the proxy's URL cannot be used")]
    ProxyUrl,
    /// The client could not be built.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

/// HTTP/1.1 through reqwest, TLS by rustls with ring, certificates from the system's store. Clones
/// share their connections.
#[derive(Clone, Debug)]
pub struct HttpEndpoint {
    direct: reqwest::Client,
    proxied: Option<reqwest::Client>,
    /// The system has no certificate store: every HTTPS request will fail, and is told why.
    no_roots: bool,
}

impl HttpEndpoint {
    /// Reads the system's certificate store once. A system without one is no error here, since
    /// plain `http://` needs none; HTTPS requests then end with code `tls` and say so.
    ///
    /// # Errors
    /// The proxy's URL or the user agent cannot be used.
    pub fn new(options: EndpointOptions) -> Result<Self, EndpointError> {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("a TLS provider was installed before");
        }
        let EndpointOptions { proxy, user_agent } = options;
        let direct = || client(&user_agent).no_proxy();
        let (direct, no_roots) = match direct().build() {
            Ok(direct) => (direct, false),
            // Most likely no certificate was found; any other reason stands in the way again.
            Err(_) => (build(direct().tls_certs_only(Vec::new()))?, true),
        };
        let proxied = match proxy {
            Proxy::None => None,
            Proxy::System => Some(client(&user_agent)),
            Proxy::Url(url) => {
                let proxy =
                    reqwest::Proxy::all(url.reveal()).map_err(|_| EndpointError::ProxyUrl)?;
                Some(client(&user_agent).proxy(proxy))
            }
        };
        let proxied = proxied.map(|builder| {
            build(if no_roots { builder.tls_certs_only(Vec::new()) } else { builder })
        });
        Ok(Self { direct, proxied: proxied.transpose()?, no_roots })
    }

    fn client_for(&self, url: &Url) -> (&reqwest::Client, bool) {
        match &self.proxied {
            Some(proxied) if !is_loopback(url) => (proxied, true),
            _ => (&self.direct, false),
        }
    }
}

fn client(user_agent: &str) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .http1_only()
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .pool_idle_timeout(IDLE_FOR)
        .tcp_nodelay(true)
        .user_agent(user_agent)
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, EndpointError> {
    builder.build().map_err(|error| EndpointError::Client(error.without_url()))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost") || bare.ends_with(".localhost"),
    }
}

impl Endpoint for HttpEndpoint {
    async fn send(&self, request: Request) -> Reply {
        let call = match Call::new(request).await {
            Ok(call) => call,
            Err(reply) => return reply,
        };
        let Call { request, handover, limits, host } = call;
        let (client, proxied) = self.client_for(request.url());
        let words = Words { host: &host, proxied, no_roots: self.no_roots };
        let reply = match within(&handover, &limits, client.execute(request)).await {
            Ok(Ok(response)) => read(response, &handover, &limits, &words).await,
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
    handover.touch();
    let status = response.status();
    let mut answer = head(status.as_u16(), response.headers());
    let mut kept = Vec::new();
    let drained = within(handover, limits, async {
        let mut seen = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            handover.touch();
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
        tracing::debug!(host = words.host, "the body of an answer stalled");
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

/// A request ready to go.
struct Call {
    request: reqwest::Request,
    handover: Arc<Handover>,
    limits: Limits,
    host: String,
}

impl Call {
    async fn new(request: Request) -> Result<Self, Reply> {
        let invalid = |what: &str| Reply::NoAnswer {
            progress: Progress::Nothing,
            cause: Cause::new(Code::of("request-invalid"), what),
        };
        let url = Url::parse(request.url.reveal()).map_err(|_| {
            invalid("the URL cannot be used: it is no complete http:// or https:// URL")
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("the URL cannot be used: it is neither http:// nor https://"));
        }
        let host = shown_host(&url);
        let method = reqwest::Method::from_bytes(request.method.as_bytes())
            .map_err(|_| invalid("the request's method cannot be used"))?;
        let started = Instant::now();
        let limits = Limits { started, connect: request.connect_timeout, stall: request.timeout };
        let handover = Arc::new(Handover::new(started));
        let mut call = reqwest::Request::new(method, url);
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

fn shown_host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
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

const STAGE_UNTOUCHED: u8 = 0;
const STAGE_BEGUN: u8 = 1;
const STAGE_WHOLE: u8 = 2;
/// Set on top of a stage: nothing more leaves.
const REVOKED: u8 = 4;

const TROUBLE_CHANGED: u8 = 1;
const TROUBLE_READ: u8 = 2;

/// What the body and the attempt that waits for its answer both see. The body runs in hyper's
/// connection task; `revoke` is what makes the last look exact.
struct Handover {
    stage: AtomicU8,
    trouble: AtomicU8,
    started: Instant,
    /// Milliseconds after `started` at which something last moved, in either direction.
    moved_at: AtomicU64,
    /// Blocks that hyper has and the socket does not.
    out: AtomicUsize,
    /// Wakes the body: a block was written, or it was revoked.
    waker: AtomicWaker,
    /// The body is whole, or has been dropped.
    ended: Notify,
    dropped: AtomicU8,
}

impl Handover {
    fn new(started: Instant) -> Self {
        Self {
            stage: AtomicU8::new(STAGE_UNTOUCHED),
            trouble: AtomicU8::new(0),
            started,
            moved_at: AtomicU64::new(0),
            out: AtomicUsize::new(0),
            waker: AtomicWaker::new(),
            ended: Notify::new(),
            dropped: AtomicU8::new(0),
        }
    }

    fn touch(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_at.fetch_max(millis, Ordering::AcqRel);
    }

    fn progress(&self) -> Progress {
        match self.stage.load(Ordering::Acquire) & !REVOKED {
            STAGE_UNTOUCHED => Progress::Nothing,
            STAGE_BEGUN => Progress::Partial,
            _ => Progress::Whole,
        }
    }

    /// From here on the body yields nothing more; says how far it had come.
    fn revoke(&self) -> Progress {
        self.stage.fetch_or(REVOKED, Ordering::AcqRel);
        self.waker.wake();
        self.progress()
    }

    /// The body takes a step; `false` if it was revoked before.
    fn advance(&self, stage: u8) -> bool {
        let step = self.stage.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            (now & REVOKED == 0).then_some(now.max(stage))
        });
        if step.is_ok() {
            self.touch();
            if stage == STAGE_WHOLE {
                self.ended.notify_one();
            }
        }
        step.is_ok()
    }

    /// Waits until the body is whole or gone.
    async fn ended(&self) {
        while self.progress() != Progress::Whole && self.dropped.load(Ordering::Acquire) == 0 {
            self.ended.notified().await;
        }
    }

    /// When to look again; `None` when it has stood still for too long.
    fn next_check(&self, limits: &Limits) -> Option<Instant> {
        let now = Instant::now();
        if self.progress() == Progress::Nothing {
            let end = limits.started + limits.connect;
            return (now < end).then(|| end.min(now + limits.stall));
        }
        let moved = Duration::from_millis(self.moved_at.load(Ordering::Acquire));
        let end = self.started + moved + limits.stall;
        (now < end).then_some(end)
    }
}

/// A body that reports how far it has come.
struct Tracked {
    source: Source,
    total: u64,
    handover: Arc<Handover>,
}

enum Source {
    Bytes(Bytes),
    /// Not yet asked for: no byte is read before there is a connection. (The mutex is never locked;
    /// reqwest wants bodies that may be shared, and readers may not be.)
    Waiting(Mutex<Option<Stream>>),
    Blocks(mpsc::Receiver<Block>),
}

enum Block {
    More(Vec<u8>),
    Last(Vec<u8>),
    Changed,
    Unreadable,
}

/// Ends a body's connection before its last byte.
#[derive(Debug, thiserror::Error)]
#[error("the body was withdrawn")]
struct Withdrawn;

impl Tracked {
    fn of_bytes(bytes: Bytes, handover: &Arc<Handover>) -> Self {
        let total = bytes.len() as u64;
        Self { source: Source::Bytes(bytes), total, handover: Arc::clone(handover) }
    }

    fn of_stream(stream: Stream, handover: &Arc<Handover>) -> Self {
        let total = stream.bytes;
        Self {
            source: Source::Waiting(Mutex::new(Some(stream))),
            total,
            handover: Arc::clone(handover),
        }
    }

    fn withdraw(&self, trouble: u8) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        self.handover.trouble.store(trouble, Ordering::Release);
        Poll::Ready(Some(Err(Withdrawn)))
    }

    fn hand_over(
        &self,
        bytes: Bytes,
        is_last: bool,
    ) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        let stage = if is_last { STAGE_WHOLE } else { STAGE_BEGUN };
        if self.handover.advance(stage) {
            Poll::Ready(Some(Ok(Frame::data(bytes))))
        } else {
            Poll::Ready(Some(Err(Withdrawn)))
        }
    }

    /// A piece that says so when the socket has taken it.
    fn counted<T: AsRef<[u8]> + Send + Sync + 'static>(&self, bytes: T) -> Bytes {
        self.handover.out.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(Out { bytes, handover: Arc::clone(&self.handover) })
    }
}

struct Out<T> {
    bytes: T,
    handover: Arc<Handover>,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Out<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl<T> Drop for Out<T> {
    fn drop(&mut self) {
        self.handover.out.fetch_sub(1, Ordering::AcqRel);
        self.handover.touch();
        self.handover.waker.wake();
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.handover.dropped.store(1, Ordering::Release);
        self.handover.ended.notify_one();
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = Withdrawn;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        let this = &mut *self;
        this.handover.waker.register(cx.waker());
        if !this.handover.advance(STAGE_BEGUN) {
            return Poll::Ready(Some(Err(Withdrawn)));
        }
        if this.handover.out.load(Ordering::Acquire) >= BLOCKS_OUT {
            return Poll::Pending;
        }
        if let Source::Waiting(stream) = &mut this.source
            && let Some(stream) = stream.get_mut().ok().and_then(Option::take)
        {
            let (blocks, receiver) = mpsc::channel(BLOCKS_AHEAD);
            tokio::task::spawn_blocking(move || feed(stream, &blocks));
            this.source = Source::Blocks(receiver);
        }
        match &mut this.source {
            Source::Bytes(rest) if rest.is_empty() => Poll::Ready(None),
            Source::Bytes(rest) if rest.len() <= PIECE_BYTES && this.total == rest.len() as u64 => {
                let whole = std::mem::take(rest);
                this.hand_over(whole, true)
            }
            Source::Bytes(rest) => {
                let piece = rest.split_to(rest.len().min(PIECE_BYTES));
                let is_last = rest.is_empty();
                let piece = this.counted(piece);
                this.hand_over(piece, is_last)
            }
            Source::Waiting(_) => Poll::Ready(None),
            Source::Blocks(blocks) => match ready!(blocks.poll_recv(cx)) {
                Some(Block::More(bytes)) => {
                    let bytes = this.counted(bytes);
                    this.hand_over(bytes, false)
                }
                Some(Block::Last(bytes)) => {
                    let bytes = this.counted(bytes);
                    this.hand_over(bytes, true)
                }
                Some(Block::Changed) => this.withdraw(TROUBLE_CHANGED),
                // After the last block nothing is asked for; before it, the reading thread died.
                None if this.handover.progress() == Progress::Whole => Poll::Ready(None),
                Some(Block::Unreadable) | None => this.withdraw(TROUBLE_READ),
            },
        }
    }

    /// Hyper asks once before it writes the head. For an empty body that is the moment at which
    /// the request leaves, since no frame will be asked for.
    fn is_end_stream(&self) -> bool {
        if self.total == 0 {
            return self.handover.advance(STAGE_WHOLE);
        }
        self.handover.progress() == Progress::Whole
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.total)
    }
}

/// Reads a stream to its end on a thread that may block. Each block is held back until another
/// byte has been read after it, the last one until length and digest match.
fn feed(stream: Stream, blocks: &mpsc::Sender<Block>) {
    let Stream { mut reader, bytes: total, digest } = stream;
    let mut hasher = Sha256::new();
    let mut seen = 0_u64;
    let mut held: Option<Vec<u8>> = None;
    let last = loop {
        let block = match next_block(&mut *reader) {
            Ok(block) => block,
            Err(error) => {
                tracing::debug!(kind = %error.kind(), "a body could not be read to its end");
                break Block::Unreadable;
            }
        };
        seen = seen.saturating_add(block.len() as u64);
        if seen > total {
            break Block::Changed;
        }
        if block.is_empty() {
            let matches = seen == total && Digest(hasher.finalize().into()) == digest;
            break match held.take() {
                Some(block) if matches => Block::Last(block),
                _ => Block::Changed,
            };
        }
        hasher.update(&block);
        if let Some(block) = held.replace(block)
            && blocks.blocking_send(Block::More(block)).is_err()
        {
            return;
        }
    };
    if blocks.blocking_send(last).is_err() {
        tracing::trace!("nobody waits for the end of a body any more");
    }
}

/// The next block, full unless the stream ends; empty at its end.
fn next_block(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut block = vec![0_u8; BLOCK_BYTES];
    let mut filled = 0;
    while filled < BLOCK_BYTES {
        match reader.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    block.truncate(filled);
    Ok(block)
}

/// Turns what the libraries say into one plain sentence and a stable code.
struct Words<'a> {
    host: &'a str,
    proxied: bool,
    no_roots: bool,
}

impl Words<'_> {
    fn of_stall(&self, progress: Progress, limits: &Limits) -> Cause {
        let host = self.host;
        let stall = limits.stall.as_secs_f64();
        let (code, text) = match progress {
            Progress::Nothing => (
                "connect-timeout",
                format!(
                    "no connection to {} within {} s",
                    self.peer(),
                    limits.connect.as_secs_f64()
                ),
            ),
            Progress::Partial => {
                ("send-stalled", format!("{host} took nothing more of the body for {stall} s"))
            }
            Progress::Whole => (
                "no-answer-timeout",
                format!("the whole body was sent, and {host} did not answer for {stall} s"),
            ),
        };
        Cause::new(Code::of(code), text)
    }

    fn of_error(&self, error: &reqwest::Error, progress: Progress) -> Cause {
        let causes = chain(error);
        if let Some(tls) = causes.iter().find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
            return Cause::new(Code::of("tls"), self.of_tls(tls));
        }
        if error.is_dns() {
            let name = self.host.rsplit_once(':').map_or(self.host, |(name, _)| name);
            let text = if self.proxied {
                format!("a name does not resolve: the proxy's, or {name}")
            } else {
                format!("the name {name} does not resolve")
            };
            return Cause::new(Code::of("dns"), text);
        }
        let io = causes.iter().find_map(|cause| cause.downcast_ref::<io::Error>());
        if error.is_connect() {
            return self.of_connect(io.map(io::Error::kind), &causes);
        }
        if causes
            .iter()
            .filter_map(|c| c.downcast_ref::<hyper::Error>())
            .any(hyper::Error::is_parse)
        {
            let text = format!("{} did not answer in HTTP/1.1", self.host);
            return Cause::new(Code::of("not-http"), text);
        }
        let text = match progress {
            Progress::Whole => {
                format!(
                    "the connection to {} ended after the whole body, without an answer",
                    self.host
                )
            }
            Progress::Nothing | Progress::Partial => {
                format!("the connection to {} ended before the whole body was sent", self.host)
            }
        };
        Cause::new(Code::of("cut"), text)
    }

    fn of_connect(
        &self,
        kind: Option<io::ErrorKind>,
        causes: &[&(dyn StdError + 'static)],
    ) -> Cause {
        let peer = self.peer();
        let says = |words: &str| causes.iter().any(|cause| cause.to_string().contains(words));
        let (code, text) = if kind == Some(io::ErrorKind::ConnectionRefused) {
            ("connect-refused", format!("connection refused by {peer}"))
        } else if kind == Some(io::ErrorKind::TimedOut) {
            ("connect-timeout", format!("no connection to {peer}: it does not respond"))
        } else if kind == Some(io::ErrorKind::NetworkUnreachable) {
            ("connect", format!("no network leads to {peer}"))
        } else if kind == Some(io::ErrorKind::HostUnreachable) {
            ("connect", format!("no way leads to {peer}"))
        } else if says("proxy authorization required") {
            ("connect", "the proxy asks for a name and a password".to_owned())
        } else if says("tunnel error") {
            ("connect", format!("the proxy does not connect to {}", self.host))
        } else if kind == Some(io::ErrorKind::UnexpectedEof) {
            ("connect", format!("{peer} ended the connection while it was being set up"))
        } else {
            ("connect", format!("no connection to {peer}"))
        };
        Cause::new(Code::of(code), text)
    }

    fn of_tls(&self, error: &rustls::Error) -> String {
        let host = self.host;
        if let rustls::Error::InvalidCertificate(certificate) = error {
            let why = of_certificate(certificate, self.no_roots);
            return format!("the certificate of {host} is not trusted: {why}");
        }
        if matches!(error, rustls::Error::InvalidMessage(_)) {
            return format!("{host} does not speak TLS on this port");
        }
        if let rustls::Error::AlertReceived(alert) = error {
            return format!("{host} refused the TLS connection ({alert:?})");
        }
        format!("no TLS connection with {host} could be agreed on")
    }

    /// Whom the connection goes to.
    fn peer(&self) -> String {
        if self.proxied { format!("the proxy for {}", self.host) } else { self.host.to_owned() }
    }
}

fn of_certificate(error: &CertificateError, no_roots: bool) -> &'static str {
    if no_roots {
        return "this machine has no certificate store; install the package ca-certificates";
    }
    if matches!(error, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        "it has expired, or this machine's clock is wrong"
    } else if matches!(
        error,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }
    ) {
        "it is not valid yet, or this machine's clock is wrong"
    } else if matches!(
        error,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
    ) {
        "it is for another host name; an intercepting proxy may be in between"
    } else if matches!(error, CertificateError::Revoked) {
        "it has been revoked"
    } else if matches!(error, CertificateError::UnknownIssuer) {
        "its issuer is unknown; if an intercepting proxy or a private authority signs it, that \
         authority must be in this machine's certificate store"
    } else {
        "it did not pass the check"
    }
}

/// The error and everything below it. An I/O error that wraps another hides it from `source`.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut causes = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        causes.push(cause);
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => cause.source(),
        };
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_trusted_is_told_why() {
        let words = Words { host: "shop.example", proxied: false, no_roots: false };
        let of = |error| words.of_tls(&rustls::Error::InvalidCertificate(error));
        for (error, part) in [
            (CertificateError::Expired, "it has expired"),
            (CertificateError::NotValidYet, "not valid yet"),
            (CertificateError::NotValidForName, "for another host name; an intercepting proxy"),
            (CertificateError::UnknownIssuer, "issuer is unknown; if an intercepting proxy"),
            (CertificateError::Revoked, "has been revoked"),
            (CertificateError::BadSignature, "did not pass the check"),
        ] {
            let text = of(error);
            assert!(text.starts_with("the certificate of shop.example is not trusted: "), "{text}");
            assert!(text.contains(part), "{text}");
        }
        let bare = Words { no_roots: true, ..words };
        let error = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert!(bare.of_tls(&error).contains("no certificate store"));
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        for (url, is_so) in [
            ("http://127.0.0.1:8080/x", true),
            ("http://127.8.9.1/", true),
            ("http://[::1]:80/", true),
            ("http://localhost/", true),
            ("http://LOCALHOST/", true),
            ("http://a.localhost/", true),
            ("http://localhost.example/", false),
            ("http://notlocalhost/", false),
            ("http://10.0.0.1/", false),
            ("http://127.0.0.1.example/", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), is_so, "{url}");
        }
    }

    #[test]
    fn an_error_hidden_in_an_io_error_is_found() {
        let inner = rustls::Error::HandshakeNotComplete;
        let outer = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, inner));
        assert!(chain(&outer).iter().any(|cause| cause.is::<rustls::Error>()));
    }

    #[test]
    fn a_revoked_body_yields_nothing_more() {
        use http_body::Body as _;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let handover = Arc::new(Handover::new(Instant::now()));
        let mut body = pin!(Tracked::of_bytes(Bytes::from(vec![1; 2 * PIECE_BYTES]), &handover));
        assert!(matches!(body.as_mut().poll_frame(&mut cx), Poll::Ready(Some(Ok(_)))));
        assert_eq!(handover.revoke(), Progress::Partial);
        assert!(matches!(body.as_mut().poll_frame(&mut cx), Poll::Ready(Some(Err(Withdrawn)))));
        assert_eq!(handover.progress(), Progress::Partial);

        let handover = Arc::new(Handover::new(Instant::now()));
        let empty = Tracked::of_bytes(Bytes::new(), &handover);
        assert_eq!(handover.revoke(), Progress::Nothing);
        assert!(!empty.is_end_stream());
        assert_eq!(handover.progress(), Progress::Nothing);
    }

    #[test]
    fn no_more_than_two_blocks_wait_for_the_socket() {
        use http_body::Body as _;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let handover = Arc::new(Handover::new(Instant::now()));
        let mut body = pin!(Tracked::of_bytes(Bytes::from(vec![1; 3 * PIECE_BYTES]), &handover));
        let first = body.as_mut().poll_frame(&mut cx);
        let second = body.as_mut().poll_frame(&mut cx);
        assert!(first.is_ready() && second.is_ready());
        assert!(body.as_mut().poll_frame(&mut cx).is_pending());
        drop(first);
        assert!(body.as_mut().poll_frame(&mut cx).is_ready());
        assert_eq!(handover.progress(), Progress::Whole);
    }
}
