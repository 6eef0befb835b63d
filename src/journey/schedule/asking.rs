//! The schedule's part about runs: parked files whose runs are asked for. Nothing is sent by that,
//! so neither slots nor pauses of the destination matter to it; the pace of the Core API does.

use super::{Phase, Schedule, Start, take_up};
use crate::model::file::FileId;
use crate::model::route::{Destination, RouteName};
use crate::model::time::Tick;

/// Files of one route whose runs are asked for at once.
const ASKS_MAX: usize = 4;

impl Schedule {
    /// Questions about runs: nothing is sent by them, so no pause but the ledger's holds them.
    pub(super) fn start_asks(&mut self, route: &RouteName, now: Tick, starts: &mut Vec<Start>) {
        if self.suspended_until.is_some_and(|until| until > now) {
            return;
        }
        loop {
            let Some(lane) = self.lanes.get(route) else { return };
            let due = lane.asking.first().copied().filter(|(due, _)| *due <= now);
            let Some((due, id)) = due.filter(|_| lane.asks < ASKS_MAX) else { return };
            let may_ask = match lane.core.clone() {
                Some(core) => self.may_ask(&core, now),
                // Its route has become one without runs: what is to be said needs no question.
                None => Ok(()),
            };
            let Some(lane) = self.lanes.get_mut(route) else { return };
            if let Err(at) = may_ask {
                lane.asks_not_before = at;
                return;
            }
            lane.asking.remove(&(due, id));
            lane.asks += 1;
            self.active += 1;
            take_up(&mut self.files, lane, id, now);
            if let Some(track) = self.files.get_mut(&id) {
                track.phase = Phase::Asking;
            }
            starts.push(Start::Ask(id));
        }
    }

    /// Where a question about this file is under way, if one is.
    #[must_use]
    pub fn asks_at(&self, id: FileId) -> Option<&Destination> {
        let track = self.files.get(&id).filter(|track| track.phase == Phase::Asking)?;
        self.lanes.get(&track.route)?.core.as_ref()
    }

    /// A question is answered: its place is free.
    pub(super) fn ask_ended(&mut self, id: FileId) {
        let Some(track) = self.files.get_mut(&id) else { return };
        if track.phase == Phase::Asking {
            track.phase = Phase::Resuming;
            if let Some(lane) = self.lanes.get_mut(&track.route) {
                lane.asks = lane.asks.saturating_sub(1);
            }
        }
    }
}
