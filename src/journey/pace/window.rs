//! The limit that a server tells of in its answers: so many requests in a window.
//!
//! Ordinary answers mostly say how many are left and not when the window ends; a refusal says how
//! long to wait, in whole seconds. A window is taken to begin with its first request, as Laravel
//! has it, and to be of a length in whole seconds: so one refusal tells the length, and every later
//! window is known beforehand. Where that turns out to be too early, one request is refused, not
//! many: whenever a window is over by reckoning alone, one goes ahead and the others follow its
//! answer.

use std::time::Duration;

use super::{Heard, Wait};
use crate::model::route::Rate;
use crate::model::time::Tick;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// After so long without a word somebody else may have begun a window.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// What is known of the server's limit.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    open: Option<Open>,
    length: Option<Duration>,
    /// The one that went ahead into the next window.
    ahead: Option<u64>,
    refused_until: Option<Tick>,
}

/// The window that the server counts in at present.
#[derive(Clone, Copy, Debug)]
struct Open {
    limit: Option<u64>,
    /// The least that an answer said is left.
    left: u64,
    /// Starts up to this number had begun when it said so.
    left_known_to: u64,
    /// Starts below this number belong to the window before.
    first: u64,
    /// It was open by then: the first answer.
    known_at: Tick,
    /// Its first request was one of ours, as far as can be told.
    is_ours: bool,
    /// The last word about it.
    heard_at: Tick,
    ends_at: Option<Tick>,
    /// A start was refused in it without a word about how long.
    is_refused: bool,
}

impl Window {
    pub(super) fn may_start(&self, in_flight: usize, now: Tick) -> Result<(), Wait> {
        if let Some(until) = self.refused_until.filter(|until| *until > now) {
            return Err(Wait::Until(until));
        }
        let Some(open) = &self.open else { return Ok(()) };
        // The server may not have counted what is in flight.
        if (in_flight as u64) < open.left {
            return Ok(());
        }
        match open.ends_at {
            Some(ends_at) if ends_at <= now => match self.ahead {
                Some(_) => Err(Wait::Answer),
                None => Ok(()),
            },
            Some(ends_at) if in_flight == 0 => Err(Wait::Until(ends_at)),
            // Nobody knows when it ends: whoever tries it learns that.
            None if in_flight == 0 => Ok(()),
            Some(_) | None => Err(Wait::Answer),
        }
    }

    /// When this window ends, if that is known and still to come.
    pub(super) fn opens_at(&self, now: Tick) -> Option<Tick> {
        self.open?.ends_at.filter(|ends_at| *ends_at > now)
    }

    pub(super) fn began(&mut self, number: u64, now: Tick) {
        let is_over = self.open.is_some_and(|open| open.ends_at.is_some_and(|end| end <= now));
        if is_over && self.ahead.is_none() {
            self.ahead = Some(number);
        }
    }

    /// The rate, as far as it is known.
    pub(super) fn rate(&self) -> Option<Rate> {
        let count = u32::try_from(self.open?.limit?).ok()?;
        Some(Rate { count, per: self.length? })
    }

    pub(super) fn is_refused(&self, now: Tick) -> bool {
        self.refused_until.is_some_and(|until| until > now)
    }

    pub(super) fn forget_wait(&mut self) {
        self.refused_until = None;
        self.ahead = None;
        if let Some(open) = &mut self.open {
            open.ends_at = open.ends_at.map(|_| Tick(0));
        }
    }

    /// Takes in the end of a start; `begun` have begun so far. How long to wait, if it was refused
    /// and that is known.
    pub(super) fn heard(
        &mut self,
        number: u64,
        begun_at: Tick,
        heard: &Heard,
        begun: u64,
        now: Tick,
    ) -> Option<Duration> {
        let was_ahead = self.ahead == Some(number);
        if was_ahead {
            self.ahead = None;
        }
        if heard.status == Some(429) {
            return self.refused(begun_at, was_ahead, heard, begun, now);
        }
        let Some(left) = heard.allowance.remaining else {
            // A server that no longer tells has no limit that could be kept.
            let is_servers_word = heard.status.is_some_and(|status| status < 400);
            if is_servers_word && self.open.is_none_or(|open| number >= open.first) {
                self.open = None;
            }
            return None;
        };
        self.counted((number, begun_at), left, heard.allowance.limit, begun, now);
        if let Some(reset_in) = heard.allowance.reset_in {
            self.ends_in(begun_at, reset_in, now);
        }
        None
    }

    /// An answer said how many are left.
    fn counted(
        &mut self,
        (number, begun_at): (u64, Tick),
        left: u64,
        limit: Option<u64>,
        begun: u64,
        now: Tick,
    ) {
        let Some(open) = &mut self.open else {
            self.open = Some(self.opened(left, limit, (1, 0), begun, now));
            return;
        };
        if number < open.first {
            return;
        }
        let is_over = open.ends_at.is_some_and(|ends_at| ends_at <= begun_at);
        let is_more = left >= open.left && left > 0;
        if number > open.left_known_to && (is_more || is_over) {
            let before = *open;
            self.note_length(&before, now);
            let known = limit.or(before.limit);
            let since = (number, before.left_known_to);
            self.open = Some(self.opened(left, known, since, begun, now));
            return;
        }
        if left < open.left {
            open.left = left;
            open.left_known_to = begun;
        }
        open.is_ours &= begun_at.since(open.heard_at) <= SILENCE_MAX;
        open.heard_at = now;
    }

    /// A new window. `first` is the first start that is certainly in it, and what began after
    /// `before` may be.
    fn opened(
        &self,
        left: u64,
        limit: Option<u64>,
        (first, before): (u64, u64),
        begun: u64,
        now: Tick,
    ) -> Open {
        let used = limit.map(|limit| limit.saturating_sub(left));
        Open {
            limit,
            left,
            left_known_to: begun,
            first,
            known_at: now,
            is_ours: used.is_some_and(|used| used <= begun.saturating_sub(before)),
            heard_at: now,
            ends_at: self.length.map(|length| end_of(now, length)),
            is_refused: false,
        }
    }

    /// The window before was refused without a word about how long, and now it is over.
    fn note_length(&mut self, before: &Open, now: Tick) {
        if before.is_refused && before.is_ours && self.length.is_none() {
            self.length = Some(whole(now.since(before.known_at)));
        }
    }

    fn refused(
        &mut self,
        begun_at: Tick,
        was_ahead: bool,
        heard: &Heard,
        begun: u64,
        now: Tick,
    ) -> Option<Duration> {
        let asked = heard.retry_after.or(heard.allowance.reset_in);
        let open = self.open.get_or_insert(Open {
            limit: heard.allowance.limit,
            left: 0,
            left_known_to: begun,
            first: 1,
            known_at: now,
            is_ours: false,
            heard_at: now,
            ends_at: None,
            is_refused: false,
        });
        // A refusal while more were left is for another limit than the one that is counted here.
        let is_explained = open.left == 0 || heard.allowance.remaining == Some(0);
        let known_until = open.ends_at.filter(|ends_at| *ends_at <= begun_at).unwrap_or_default();
        let silence = begun_at.since(open.heard_at.max(known_until));
        open.is_ours &= is_explained && silence <= SILENCE_MAX;
        open.heard_at = now;
        open.limit = heard.allowance.limit.or(open.limit);
        open.left = 0;
        open.left_known_to = begun;
        let Some(asked) = asked else {
            open.is_refused = true;
            open.ends_at = None;
            return None;
        };
        // Zero seconds is what a rounding server says in the last one.
        let asked = asked.max(SECOND);
        let told = now.plus(asked);
        self.ends_in(begun_at, asked, now);
        let open = self.open.as_mut()?;
        if was_ahead || !open.is_ours {
            // Reckoning has failed here: the server's own word, to the second.
            open.ends_at = Some(told);
        }
        let until = open.ends_at.unwrap_or(told).max(self.refused_until.unwrap_or_default());
        self.refused_until = Some(until);
        Some(until.since(now))
    }

    /// An answer said that the window ends in so many seconds.
    fn ends_in(&mut self, begun_at: Tick, told: Duration, now: Tick) {
        let Some(open) = &mut self.open else { return };
        if !open.is_ours {
            open.ends_at = Some(now.plus(told));
            return;
        }
        let seen = whole(begun_at.since(open.known_at) + told);
        let is_much_shorter = |known: Duration| seen + SECOND < known;
        let length = match self.length {
            Some(known) if seen <= known && !is_much_shorter(known) => known,
            Some(_) | None => seen,
        };
        self.length = Some(length);
        open.ends_at = Some(end_of(open.known_at, length));
    }
}

/// When a window of this length is over for certain: clocks differ a little in their pace.
fn end_of(known_at: Tick, length: Duration) -> Tick {
    known_at.plus(length + length / 1000 + Duration::from_millis(1))
}

/// The length of a window from a span that whole seconds were told of: a minute where that is as
/// near, else the whole seconds in it, since servers round up what is left.
fn whole(span: Duration) -> Duration {
    let minutes = (span + MINUTE / 2).as_secs() / MINUTE.as_secs();
    let minutes = Duration::from_secs(minutes * MINUTE.as_secs());
    if minutes > Duration::ZERO && minutes.abs_diff(span) < SECOND {
        return minutes;
    }
    Duration::from_secs(span.as_secs()).max(SECOND)
}
