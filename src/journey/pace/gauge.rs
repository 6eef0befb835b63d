//! How many at once a server bears: as many as the routes have slots until it is in trouble, then
//! fewer at once, and more again by and by.

use std::time::Duration;

use super::Turn;
use crate::model::time::Tick;

/// Good answers at a level below one that was too much, before that is tried again.
const PATIENCE: usize = 10;

/// The same where it was too much again and again.
const PATIENCE_MAX: usize = 40;

/// Latency has risen if it is this many times the usual one,
const RISEN_TIMES: u32 = 4;

/// and longer than that by at least this.
const RISEN_BY: Duration = Duration::from_millis(250);

/// How many at once.
#[derive(Clone, Debug)]
pub(super) struct Gauge {
    /// `None`: whatever the slots allow.
    allowed: Option<usize>,
    /// So many at once were too many.
    too_many: Option<usize>,
    /// Good answers since the last step.
    calm: usize,
    patience: usize,
    /// Starts up to this number belong to the trouble that is known.
    cut_at: u64,
    /// Latency in microseconds: over the last answers, and the usual one.
    recent: Option<(u64, u64)>,
}

impl Default for Gauge {
    fn default() -> Self {
        Self { allowed: None, too_many: None, calm: 0, patience: PATIENCE, cut_at: 0, recent: None }
    }
}

impl Gauge {
    pub(super) fn at_once(&self) -> Option<usize> {
        self.allowed
    }

    /// Whether this start is older than the last trouble.
    pub(super) fn knows(&self, turn: Turn) -> bool {
        turn.number <= self.cut_at
    }

    pub(super) fn recovered(&mut self) {
        self.too_many = None;
        self.patience = PATIENCE;
    }

    /// The server had too much to do; `in_flight` counts this one.
    pub(super) fn trouble(&mut self, turn: Turn, in_flight: usize, begun: u64) {
        if turn.beside <= 1 {
            return;
        }
        let mut level = self.allowed.unwrap_or_else(|| in_flight.max(turn.beside));
        if turn.number > self.cut_at {
            let is_known = self.too_many.is_some_and(|known| turn.beside.abs_diff(known) <= 1);
            self.patience = if is_known { (2 * self.patience).min(PATIENCE_MAX) } else { PATIENCE };
            self.cut_at = begun;
        }
        // Of those that were sent together the first one that was too many tells the most.
        level = level.min(turn.beside - 1);
        self.allowed = Some(level);
        self.too_many = Some(level + 1);
        self.calm = 0;
    }

    /// An answer without trouble; `most` is what the slots allow.
    pub(super) fn good(
        &mut self,
        turn: Turn,
        now: Tick,
        in_flight: usize,
        begun: u64,
        most: usize,
    ) {
        let has_risen = self.note_latency(now.since(turn.at));
        if turn.number <= self.cut_at {
            return;
        }
        if has_risen && turn.beside > 1 {
            let level = self.allowed.unwrap_or_else(|| in_flight.max(turn.beside));
            self.allowed = Some((level * 4 / 5).max(most / 4).max(1));
            self.cut_at = begun;
            self.calm = 0;
            return;
        }
        if let Some(allowed) = self.allowed {
            self.rise(turn, allowed);
            if self.allowed.is_some_and(|allowed| allowed >= most) {
                self.allowed = None;
                self.recovered();
            }
        }
    }

    fn rise(&mut self, turn: Turn, allowed: usize) {
        match self.too_many {
            Some(too_many) if allowed + 1 >= too_many => {
                if turn.beside < allowed {
                    return;
                }
                self.calm += 1;
                let is_above = allowed >= too_many;
                if is_above && self.calm >= allowed {
                    self.recovered();
                } else if !is_above && self.calm >= self.patience {
                    self.allowed = Some(allowed + 1);
                    self.calm = 0;
                }
            }
            // Only where the level is used does a good answer speak for a higher one.
            Some(_) | None if 2 * turn.beside >= allowed => self.allowed = Some(allowed + 1),
            Some(_) | None => {}
        }
    }

    /// Whether latency is well above what is usual. The usual follows slowly upwards: what stays so
    /// is usual.
    fn note_latency(&mut self, latency: Duration) -> bool {
        let latency = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(1 << 48);
        let (recent, usual) = self.recent.unwrap_or((latency, latency));
        let recent = (recent * 7 + latency) / 8;
        let usual = if recent < usual { recent } else { usual + (recent - usual) / 64 };
        self.recent = Some((recent, usual));
        let risen_by = u64::try_from(RISEN_BY.as_micros()).unwrap_or(u64::MAX);
        recent > usual * u64::from(RISEN_TIMES) && recent > usual + risen_by
    }
}
