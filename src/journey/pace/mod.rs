//! How fast a destination is sent to: one pacer each, shared by its routes and whoever asks there.
//!
//! Three things hold a start back, each in a room of its own: the rate that the config gives
//! (`bucket`), the limit that the server's answers tell of (`window`), and how many at once the
//! server bears (`gauge`). None of them waits for anything but time or an answer, so nothing
//! starves.

mod bucket;
mod gauge;
mod window;

use std::collections::BTreeSet;
use std::time::Duration;

use bucket::Bucket;
use gauge::Gauge;
use window::Window;

use crate::model::route::{PaceRules, Rate};
use crate::model::time::Tick;

/// How many questions at once are the usual where no route sends to.
const QUESTIONS_AT_ONCE: usize = 4;

/// What an answer says about the server's rate limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// So many requests a window.
    pub limit: Option<u64>,
    /// So many are left in this window, this request counted.
    pub remaining: Option<u64>,
    /// The window ends so long from now; whole seconds, rounded by the server as it likes.
    pub reset_in: Option<Duration>,
}

/// What the end of an attempt or a question says about the pace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// The server asks for a wait of at least this long.
    pub retry_after: Option<Duration>,
    /// What it says about its rate limit.
    pub allowance: Allowance,
    /// It had too much to do, or never answered.
    pub is_trouble: bool,
}

impl Heard {
    /// The same without waits beyond `most`: a gateway may ask for any.
    #[must_use]
    pub fn believed(self, most: Duration) -> Self {
        let cap = |wait: Option<Duration>| wait.map(|wait| wait.min(most));
        let reset_in = cap(self.allowance.reset_in);
        let allowance = Allowance { reset_in, ..self.allowance };
        Self { retry_after: cap(self.retry_after), allowance, ..self }
    }
}

/// One start on record: handed back when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Counts the starts of this destination, from 1.
    number: u64,
    /// When it began.
    pub at: Tick,
    /// How many were in flight then, this one among them.
    beside: usize,
}

/// What a start waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// This time.
    Until(Tick),
    /// The end of something in flight.
    Answer,
}

/// What the end of a turn has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lesson {
    /// The server refused for its rate limit and said how long: starts wait until then, and
    /// nothing else need be done about it.
    pub waits: Option<Duration>,
    /// The server's limit is known, or has become another one.
    pub rate: Option<Rate>,
    /// It belongs to a trouble that was heard of before: it began before that was known.
    pub is_known_trouble: bool,
}

/// How a destination is paced, for `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PaceView {
    /// The rate that is kept to, given or learnt.
    pub rate: Option<Rate>,
    /// Nothing starts before this.
    pub until: Option<Tick>,
    /// So many at once, because more were too many.
    pub at_once: Option<usize>,
}

/// The pace of one destination.
#[derive(Clone, Debug)]
pub struct Pacer {
    rules: PaceRules,
    bucket: Option<Bucket>,
    window: Window,
    gauge: Gauge,
    begun: u64,
    in_flight: BTreeSet<u64>,
    slots: usize,
}

impl Default for Pacer {
    fn default() -> Self {
        Self::new(PaceRules::default())
    }
}

impl Pacer {
    /// A pacer that has heard nothing yet.
    #[must_use]
    pub fn new(rules: PaceRules) -> Self {
        Self {
            rules,
            bucket: rules.rate.map(Bucket::new),
            window: Window::default(),
            gauge: Gauge::default(),
            begun: 0,
            in_flight: BTreeSet::new(),
            slots: 0,
        }
    }

    /// The rules it was made by.
    #[must_use]
    pub fn rules(&self) -> &PaceRules {
        &self.rules
    }

    /// A route with so many slots sends here too.
    pub fn add_slots(&mut self, slots: usize) {
        self.slots += slots;
    }

    /// Whether one more may start.
    ///
    /// # Errors
    /// What to wait for; asked again after that, the answer may be the same.
    pub fn may_start(&self, now: Tick) -> Result<(), Wait> {
        let in_flight = self.in_flight.len();
        let most = self.rules.concurrency.unwrap_or(usize::MAX);
        if in_flight >= self.gauge.at_once().unwrap_or(usize::MAX).min(most).max(1) {
            return Err(Wait::Answer);
        }
        if let Some(at) = self.bucket.as_ref().and_then(|bucket| bucket.wait(now)) {
            return Err(Wait::Until(at));
        }
        self.window.may_start(in_flight, now)
    }

    /// One starts; the turn is handed back when it ends.
    pub fn began(&mut self, now: Tick) -> Turn {
        self.begun += 1;
        self.in_flight.insert(self.begun);
        if let Some(bucket) = &mut self.bucket {
            bucket.take(now);
        }
        self.window.began(self.begun, now);
        Turn { number: self.begun, at: now, beside: self.in_flight.len() }
    }

    /// One has ended, and this is what was heard.
    pub fn ended(&mut self, turn: Turn, heard: &Heard, now: Tick) -> Lesson {
        if !self.in_flight.remove(&turn.number) {
            return Lesson::default();
        }
        if let Some(bucket) = &mut self.bucket {
            bucket.ended(turn.at, now);
        }
        let before = self.window.rate();
        let waits = self.window.heard(turn.number, turn.at, heard, self.begun, now);
        let rate = self.window.rate().filter(|rate| before != Some(*rate));
        let is_known_trouble = heard.is_trouble && self.gauge.knows(turn);
        if heard.is_trouble {
            self.gauge.trouble(turn, self.in_flight.len() + 1, self.begun);
        } else if heard.status.is_some_and(|status| status != 429) {
            let most = self.rules.concurrency.unwrap_or(usize::MAX);
            let most = most.min(self.slots.max(QUESTIONS_AT_ONCE));
            self.gauge.good(turn, now, self.in_flight.len() + 1, self.begun, most);
        }
        Lesson { waits, rate, is_known_trouble }
    }

    /// One that was begun will never say anything.
    pub fn vanished(&mut self, turn: Turn, now: Tick) {
        self.ended(turn, &Heard::default(), now);
    }

    /// A trouble that has paused everything is over: what it taught about how many at once says
    /// nothing now.
    pub fn recovered(&mut self) {
        self.gauge.recovered();
    }

    /// A person does not want to wait.
    pub fn forget_wait(&mut self) {
        self.window.forget_wait();
    }

    /// Whether the server has refused and the wait that it asked for is not over.
    #[must_use]
    pub fn is_refused(&self, now: Tick) -> bool {
        self.window.is_refused(now)
    }

    /// When the next may start, if it is time that it waits for.
    #[must_use]
    pub fn next_start_at(&self, now: Tick) -> Option<Tick> {
        match self.may_start(now) {
            Err(Wait::Until(at)) => Some(at),
            Err(Wait::Answer) => self.window.opens_at(now),
            Ok(()) => None,
        }
    }

    /// How it stands.
    #[must_use]
    pub fn view(&self, now: Tick) -> PaceView {
        PaceView {
            rate: slower(self.window.rate(), self.rules.rate),
            until: match self.may_start(now) {
                Err(Wait::Until(at)) => Some(at),
                Err(Wait::Answer) | Ok(()) => None,
            },
            at_once: self.gauge.at_once(),
        }
    }
}

/// The one that lets fewer through in the long run.
fn slower(one: Option<Rate>, other: Option<Rate>) -> Option<Rate> {
    let spacing = |rate: &Rate| rate.per.as_secs_f64() / f64::from(rate.count.max(1));
    one.into_iter().chain(other).max_by(|one, other| spacing(one).total_cmp(&spacing(other)))
}

#[cfg(test)]
mod tests;
