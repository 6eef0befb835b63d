//! Answers that are known and could not be put on record: the ledger's disk was full, or away.
//! While this process lives such an answer is no doubt, so it is kept and offered to the ledger
//! again; nothing is started meanwhile. Keeps promises P3 and P6: only a stop or a kill makes a
//! doubt of it.
//!
//! There are never more of them than files under way: each keeps its place until it is on record.

use super::Daemon;
use super::carry::Unconcluded;
use super::files::SUSPEND_FOR;
use crate::model::file::FileId;
use crate::model::time::{Now, Tick};
use crate::world::World;

/// Where such an answer is.
pub(super) enum Unrecorded {
    /// Here.
    Kept(Box<Unconcluded>),
    /// On its way to the ledger again.
    Offered,
}

impl<W: World> Daemon<W> {
    /// Keeps an answer that the ledger did not take.
    pub(super) fn keep(&mut self, unconcluded: Unconcluded, now: Now) {
        let id = unconcluded.carried.entry.id;
        self.schedule.settling(id);
        self.ledger_refused(&unconcluded.error, now);
        self.offer_at = now.tick.plus(SUSPEND_FOR);
        self.unrecorded.insert(id, Unrecorded::Kept(Box::new(unconcluded)));
    }

    /// Offers what is kept to the ledger again, when it is time. Until it takes all of it, nothing
    /// new is begun.
    pub(super) fn offer_due(&mut self, now: Tick) {
        if self.unrecorded.is_empty() {
            return;
        }
        self.schedule.suspend(SUSPEND_FOR, now);
        if now < self.offer_at {
            return;
        }
        self.offer_at = now.plus(SUSPEND_FOR);
        let mut offered = Vec::new();
        for unrecorded in self.unrecorded.values_mut() {
            if let Unrecorded::Kept(kept) = std::mem::replace(unrecorded, Unrecorded::Offered) {
                offered.push(*kept);
            }
        }
        for Unconcluded { carried, judged, next, .. } in offered {
            self.conclude(carried, judged, next);
        }
    }

    pub(super) fn next_offer_at(&self) -> Option<Tick> {
        (!self.unrecorded.is_empty()).then_some(self.offer_at)
    }

    /// A stage of this file has ended otherwise: if its answer was kept, it no longer is.
    pub(super) fn was_recorded(&mut self, id: FileId) {
        if self.unrecorded.remove(&id).is_some() && self.unrecorded.is_empty() {
            self.schedule.go_on();
            self.ledger_works();
        }
    }

    /// The ledger has taken something.
    pub(super) fn ledger_works(&mut self) {
        if self.unrecorded.is_empty() && self.ledger_fault.take().is_some() {
            tracing::info!("sending goes on: the ledger can be written again");
        }
    }
}
