//! A body on its way, and how far it has come.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Limits;
use crate::model::exchange::{Progress, Stream};
use crate::model::file::Digest;

/// What one read of a streamed body yields at most. Four blocks are alive in a stream at worst (one
/// held back, one read ahead, two out), so 256 streams at once stay below 17 MB.
const BLOCK_BYTES: usize = 16 * 1024;
/// Blocks that hyper may hold and the socket has not taken. Hyper itself would take 400 KB.
const BLOCKS_OUT: usize = 2;
/// A body in memory leaves in pieces of this size, so that a stall in its middle is seen as one.
const PIECE_BYTES: usize = 64 * 1024;

/// How long the body of an answer may take in all, once the request has left: its status says most,
/// and a server that lets it drip must not keep the slot.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

const STAGE_UNTOUCHED: u8 = 0;
const STAGE_BEGUN: u8 = 1;
const STAGE_WHOLE: u8 = 2;
/// Set on top of a stage: nothing more leaves.
const REVOKED: u8 = 4;

pub(super) const TROUBLE_CHANGED: u8 = 1;
pub(super) const TROUBLE_READ: u8 = 2;

/// What the body and the attempt that waits for its answer both see. The body runs in hyper's
/// connection task; `revoke` is what makes the last look exact.
pub(super) struct Handover {
    stage: AtomicU8,
    pub(super) trouble: AtomicU8,
    started: Instant,
    /// Milliseconds after `started` at which something of the request last left.
    moved_at: AtomicU64,
    /// The same for what last came in.
    heard_at: AtomicU64,
    /// The same for the head of the answer; the largest number while there is none.
    answered_at: AtomicU64,
    /// Blocks that hyper has and the socket does not.
    out: AtomicUsize,
    /// Wakes the body: a block was written, or it was revoked.
    waker: AtomicWaker,
    /// The body is whole, or has been dropped.
    ended: Notify,
    dropped: AtomicU8,
}

impl Handover {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            stage: AtomicU8::new(STAGE_UNTOUCHED),
            trouble: AtomicU8::new(0),
            started,
            moved_at: AtomicU64::new(0),
            heard_at: AtomicU64::new(0),
            answered_at: AtomicU64::new(u64::MAX),
            out: AtomicUsize::new(0),
            waker: AtomicWaker::new(),
            ended: Notify::new(),
            dropped: AtomicU8::new(0),
        }
    }

    fn passed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Something of the request left.
    pub(super) fn touch(&self) {
        self.moved_at.fetch_max(self.passed(), Ordering::AcqRel);
    }

    /// The head of the answer came, or something of its body.
    pub(super) fn hear(&self) {
        let passed = self.passed();
        self.heard_at.fetch_max(passed, Ordering::AcqRel);
        self.answered_at.fetch_min(passed, Ordering::AcqRel);
    }

    pub(super) fn progress(&self) -> Progress {
        match self.stage.load(Ordering::Acquire) & !REVOKED {
            STAGE_UNTOUCHED => Progress::Nothing,
            STAGE_BEGUN => Progress::Partial,
            _ => Progress::Whole,
        }
    }

    /// From here on the body yields nothing more; says how far it had come.
    pub(super) fn revoke(&self) -> Progress {
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
    pub(super) async fn ended(&self) {
        while self.progress() != Progress::Whole && self.dropped.load(Ordering::Acquire) == 0 {
            self.ended.notified().await;
        }
    }

    /// When to look again; `None` when it has stood still for too long.
    pub(super) fn next_check(&self, limits: &Limits) -> Option<Instant> {
        let now = Instant::now();
        if self.progress() == Progress::Nothing {
            let end = limits.started + limits.connect;
            return (now < end).then(|| end.min(now + limits.stall));
        }
        let moved = self.moved_at.load(Ordering::Acquire);
        let heard = self.heard_at.load(Ordering::Acquire);
        let mut end = self.started + Duration::from_millis(moved.max(heard)) + limits.stall;
        let answered = self.answered_at.load(Ordering::Acquire);
        if answered != u64::MAX {
            let late = Duration::from_millis(moved.max(answered)) + ANSWER_WITHIN;
            end = end.min(self.started + late);
        }
        (now < end).then_some(end)
    }
}

/// A body that reports how far it has come.
pub(super) struct Tracked {
    source: Source,
    pub(super) total: u64,
    handover: Arc<Handover>,
}

enum Source {
    Bytes(Bytes),
    /// Not yet asked for: no byte is read before there is a connection. (The mutex is never locked;
    /// reqwest wants bodies that may be shared, and readers may not be.)
    Waiting(Mutex<Option<Stream>>),
    /// The next block is being read. A thread is taken for one read, not for the whole body: it
    /// never waits for a slow server.
    Reading(JoinHandle<Step>),
    /// No more is read.
    Ended,
}

/// What one read came to.
enum Step {
    /// A block, and what reads the one after it.
    More(Vec<u8>, Reading),
    Last(Vec<u8>),
    Changed,
    Unreadable,
}

/// Ends a body's connection before its last byte.
#[derive(Debug, thiserror::Error)]
#[error("the body was withdrawn")]
pub(super) struct Withdrawn;

impl Tracked {
    pub(super) fn of_bytes(bytes: Bytes, handover: &Arc<Handover>) -> Self {
        let total = bytes.len() as u64;
        Self { source: Source::Bytes(bytes), total, handover: Arc::clone(handover) }
    }

    pub(super) fn of_stream(stream: Stream, handover: &Arc<Handover>) -> Self {
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
            this.source = Reading::of(stream).ahead();
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
            Source::Reading(step) => {
                let step = ready!(Pin::new(step).poll(cx));
                this.source = Source::Ended;
                match step {
                    Ok(Step::More(bytes, reading)) => {
                        this.source = reading.ahead();
                        let bytes = this.counted(bytes);
                        this.hand_over(bytes, false)
                    }
                    Ok(Step::Last(bytes)) => {
                        let bytes = this.counted(bytes);
                        this.hand_over(bytes, true)
                    }
                    Ok(Step::Changed) => this.withdraw(TROUBLE_CHANGED),
                    // A read that did not come back: it panicked, or the program is ending.
                    Ok(Step::Unreadable) | Err(_) => this.withdraw(TROUBLE_READ),
                }
            }
            Source::Ended if this.handover.progress() == Progress::Whole => Poll::Ready(None),
            Source::Waiting(_) | Source::Ended => Poll::Ready(Some(Err(Withdrawn))),
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

/// A stream on its way to its end. Each block is held back until another byte has been read after
/// it, the last one until length and digest match.
struct Reading {
    stream: Stream,
    hasher: Sha256,
    seen: u64,
    held: Vec<u8>,
}

impl Reading {
    fn of(stream: Stream) -> Self {
        Self { stream, hasher: Sha256::new(), seen: 0, held: Vec::new() }
    }

    /// Reads the next block on a thread that may block.
    fn ahead(self) -> Source {
        Source::Reading(tokio::task::spawn_blocking(move || self.step()))
    }

    fn step(mut self) -> Step {
        loop {
            let block = match next_block(&mut *self.stream.reader) {
                Ok(block) => block,
                Err(error) => {
                    tracing::debug!(kind = %error.kind(), "a body could not be read to its end");
                    return Step::Unreadable;
                }
            };
            self.seen = self.seen.saturating_add(block.len() as u64);
            if self.seen > self.stream.bytes {
                return Step::Changed;
            }
            if block.is_empty() {
                let is_whole = self.seen == self.stream.bytes;
                let matches = Digest(self.hasher.finalize().into()) == self.stream.digest;
                return if is_whole && matches && self.seen > 0 {
                    Step::Last(self.held)
                } else {
                    Step::Changed
                };
            }
            self.hasher.update(&block);
            let before = std::mem::replace(&mut self.held, block);
            if !before.is_empty() {
                return Step::More(before, self);
            }
        }
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

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_drip_for_a_while_and_no_longer() {
        let begun = Instant::now();
        let limits = Limits {
            started: begun,
            connect: Duration::from_secs(5),
            stall: Duration::from_mins(1),
        };
        let handover = Handover::new(begun);
        assert!(handover.advance(STAGE_WHOLE));
        let second = Duration::from_secs(1);
        let mut drops = tokio::time::interval_at(begun + second, second);
        let drip = async {
            loop {
                drops.tick().await;
                handover.hear();
            }
        };
        let drained: Result<(), _> = super::super::within(&handover, &limits, drip).await;
        assert!(drained.is_err());
        // The first drop, then as long as an answer may take.
        assert_eq!(begun.elapsed(), second + ANSWER_WITHIN);
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
    fn a_body_that_waits_for_its_server_holds_no_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let bytes = vec![7; 10 * BLOCK_BYTES];
        let stream = || Stream {
            reader: Box::new(io::Cursor::new(bytes.clone())),
            bytes: bytes.len() as u64,
            digest: Digest(Sha256::digest(&bytes).into()),
        };
        let handovers = [(); 3].map(|()| Arc::new(Handover::new(Instant::now())));
        let mut bodies = handovers.each_ref().map(|at| Tracked::of_stream(stream(), at));
        let taken = runtime.block_on(async {
            let mut taken = Vec::new();
            // As many as may wait for the socket, of each: none is asked for more after that.
            for body in &mut bodies {
                for _ in 0..BLOCKS_OUT {
                    let frame = std::future::poll_fn(|cx| {
                        http_body::Body::poll_frame(Pin::new(&mut *body), cx)
                    });
                    let frame = tokio::time::timeout(Duration::from_mins(1), frame).await;
                    taken.push(frame.expect("a thread for the next block").unwrap().unwrap());
                }
            }
            taken
        });
        assert_eq!(taken.len(), 3 * BLOCKS_OUT);
        assert!(handovers.iter().all(|at| at.progress() == Progress::Partial));
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
