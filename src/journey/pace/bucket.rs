//! The rate that the config gives: a place for each start of the last span.
//!
//! A server that counts in windows of its own must never see more than the count in one of them,
//! wherever its windows lie. So any span holds at most the count, and a start keeps its place until
//! a span after the server has certainly counted it, which is when it answered: the next may travel
//! faster.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::route::Rate;
use crate::model::time::Tick;

/// A slow answer keeps its place longer by at most this part of the span.
const LONGEST_ON_THE_WAY: u32 = 20;

/// Starts of the last span.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// When each place is free again, with how many become free then: bounded by the count.
    taken: BTreeMap<Tick, u32>,
    total: u32,
}

impl Bucket {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, taken: BTreeMap::new(), total: 0 }
    }

    fn longest(&self) -> Duration {
        self.rate.per / LONGEST_ON_THE_WAY
    }

    /// When there is a place, if there is none now.
    pub(super) fn wait(&self, now: Tick) -> Option<Tick> {
        let free: u32 = self.taken.range(..=now).map(|(_, places)| places).sum();
        if self.total - free < self.rate.count {
            return None;
        }
        self.taken.range(Tick(now.0 + 1)..).next().map(|(free_at, _)| *free_at)
    }

    pub(super) fn take(&mut self, now: Tick) {
        while let Some(oldest) = self.taken.first_entry().filter(|oldest| *oldest.key() <= now) {
            self.total -= oldest.remove();
        }
        self.total += 1;
        *self.taken.entry(now.plus(self.rate.per + self.longest())).or_default() += 1;
    }

    pub(super) fn ended(&mut self, begun_at: Tick, now: Tick) {
        let held = begun_at.plus(self.rate.per + self.longest());
        let counted_at = now.min(begun_at.plus(self.longest()));
        let Some(places) = self.taken.get_mut(&held) else { return };
        *places -= 1;
        if *places == 0 {
            self.taken.remove(&held);
        }
        *self.taken.entry(counted_at.plus(self.rate.per)).or_default() += 1;
    }
}
