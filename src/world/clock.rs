//! Time and dice.
#![expect(clippy::disallowed_methods, reason = "this is the door to the system's clock")]

use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::time::{Now, Tick, Wall};

/// Both clocks, waiting, and randomness.
pub trait Clock: Send + Sync + 'static {
    /// Both clocks, now.
    fn now(&self) -> Now;
    /// Waits for `span`.
    fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send;
    /// A number in `[0, 1)`, for jitter only.
    fn dice(&self) -> f64;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Ticks count from here.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(span) => i64::try_from(span.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        };
        let tick = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { wall: Wall(wall), tick: Tick(tick) }
    }

    async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    fn dice(&self) -> f64 {
        fastrand::f64()
    }
}
