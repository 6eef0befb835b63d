//! Limits: so many requests in a window, so many in flight.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};
use tokio::time::Instant;

use super::State;
use super::answer::{Response, message};
use super::options::{Door, RateReset};

/// What every answer of a door with a rate says.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    limit: u32,
    remaining: u32,
}

impl Pace {
    /// The answer, with what the door says of its rate.
    pub(super) fn mark(pace: Option<Self>, mut answer: Response) -> Response {
        if let Some(Self { limit, remaining }) = pace {
            let headers = answer.headers_mut();
            headers.insert("x-ratelimit-limit", HeaderValue::from(limit));
            headers.insert("x-ratelimit-remaining", HeaderValue::from(remaining));
        }
        answer
    }
}

/// Counts a request against the rate of its door.
///
/// # Errors
/// The answer to a request that comes too early.
pub(super) fn enter(state: &State, door: Door) -> Result<Option<Pace>, Response> {
    let options = &state.options;
    let inbound = options.rate.filter(|_| door == Door::Inbound);
    let Some((limit, span)) = options.rates.get(&door).copied().or(inbound) else {
        return Ok(None);
    };
    let now = Instant::now();
    let mut inner = state.inner();
    let (since, count) = match inner.windows.get(&door) {
        Some((since, count)) if now < *since + span => (*since, *count),
        _ => (now, 0),
    };
    let count = count.saturating_add(1);
    inner.windows.insert(door, (since, count));
    drop(inner);
    let pace = Pace { limit, remaining: limit.saturating_sub(count) };
    if count <= limit {
        return Ok(Some(pace));
    }
    let wait = (since + span).saturating_duration_since(now);
    let answer = message(StatusCode::TOO_MANY_REQUESTS, "Too Many Attempts.");
    let mut answer = Pace::mark(Some(pace), answer);
    let headers = answer.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait).max(1)));
    let reset = match options.rate_reset {
        RateReset::FromNow => whole_seconds(wait).max(1),
        RateReset::Epoch => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            whole_seconds(now + wait)
        }
    };
    headers.insert("x-ratelimit-reset", HeaderValue::from(reset));
    Err(answer)
}

/// Rounded up: HTTP has whole seconds only, and who comes back too early is refused again.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// The answer to a request that is one too many at once.
pub(super) fn crowded(state: &State, in_flight: u64) -> Option<Response> {
    let (most, status) = state.options.capacity?;
    let text = "Too many requests at once.";
    (in_flight > most).then(|| message(super::answer::status_of(status), text))
}
