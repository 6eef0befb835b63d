//! The end of many journeys at once: the last moves of a route become durable together, and are
//! put on record as settled together (protocol, step 8). Nobody waits for it, so the files have
//! left their places before, and their fsyncs wait longer for company than any other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Daemon;
use super::carry::Context;
use super::event::{Ticket, Work};
use super::folders::chain;
use crate::journey::runs::Errand;
use crate::journey::schedule::Refused;
use crate::model::route::{Route, RouteName};
use crate::model::step::{Entry, Step};
use crate::model::time::Tick;
use crate::world::World;
use crate::world::folder::{Disk, FolderError};
use crate::world::ledger::Ledger;

/// So many moves of a route are sealed without a wait.
const COMPANY_MAX: usize = 256;

/// With fewer files on their way nobody waits for company.
const LOAD_MIN: usize = 8;

/// The longest that a move waits for company.
const LONGEST: Duration = Duration::from_millis(25);

/// More than this many moved files of one route keep their places until they are sealed: a folder
/// whose fsync hangs must not fill the memory (promise P10).
const FREE_MAX: usize = 1_024;

/// How long a file whose folder cannot be synced waits before it is taken up again.
const AGAIN: Duration = Duration::from_secs(5);

/// Moved files of one route that are not durable where they are.
#[derive(Default)]
pub(super) struct Sealing {
    moved: Vec<Entry>,
    first_at: Tick,
    /// Those that are being sealed now.
    under_way: usize,
}

impl Sealing {
    fn is_due(&self, load: usize, now: Tick) -> bool {
        self.under_way == 0 && is_company(self.moved.len(), now.since(self.first_at), load)
    }

    fn next_wake(&self) -> Option<Tick> {
        (self.under_way == 0 && !self.moved.is_empty()).then(|| self.first_at.plus(LONGEST))
    }
}

/// Whether so many moves, the first of which has waited so long, should go now; `load` is the
/// number of files on their way.
fn is_company(moved: usize, waited: Duration, load: usize) -> bool {
    let enough = if load < LOAD_MIN { 1 } else { (load / 2).min(COMPANY_MAX) };
    moved >= enough || (moved > 0 && waited >= LONGEST)
}

/// What became of moved files.
pub(super) struct Sealed {
    /// Settled.
    settled: Vec<Entry>,
    /// Their folder could not be synced, and why.
    stumbled: Vec<(Entry, String)>,
}

/// Makes the folders of these moves durable, each once, and puts the files on record as settled.
async fn seal<W: World>(ctx: &Context<W>, route: &Route, moved: Vec<Entry>) -> Sealed {
    let target_of = |entry: &Entry| entry.target.as_ref().map(|target| Arc::clone(&target.folder));
    let mut folders: Vec<Arc<Path>> = Vec::new();
    for folder in moved.iter().filter_map(target_of) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    let sync = async |folder: Arc<Path>| {
        let synced: Result<(), FolderError> = ctx.world.disk().sync(Arc::clone(&folder)).await;
        (folder, synced.err().map(|error| chain(&error)))
    };
    // The places that were left come last: a power cut in between must never find a file gone there
    // and not yet here, nor here without its sidecar.
    let synced: BTreeMap<Arc<Path>, Option<String>> =
        join_all(folders.into_iter().map(sync)).await.into_iter().collect();
    let (_, both) = sync(Arc::clone(&route.folders.sending)).await;
    let fault_at = |folder: &Arc<Path>| synced.get(folder).cloned().flatten();
    let mut sealed = Sealed { settled: Vec::new(), stumbled: Vec::new() };
    let mut steps = Vec::new();
    for mut entry in moved {
        let at_target = target_of(&entry).and_then(|folder| fault_at(&folder));
        match both.clone().or(at_target) {
            None => {
                let step = Step::Settled { id: entry.id };
                entry.apply(&step);
                steps.push(step);
                sealed.settled.push(entry);
            }
            Some(fault) => sealed.stumbled.push((entry, fault)),
        }
    }
    if !steps.is_empty() {
        ctx.world.ledger().append(steps);
    }
    sealed
}

impl<W: World> Daemon<W> {
    /// A file is where it belongs; its place is free for another, and its name too.
    pub(super) fn moved(&mut self, entry: Entry) {
        let now = self.now().tick;
        let id = entry.id;
        self.progress_at = now;
        self.order_after(&entry);
        self.name_is_free(&entry);
        let sealing = self.sealing.entry(entry.route.clone()).or_default();
        if sealing.moved.is_empty() {
            sealing.first_at = now;
        }
        sealing.moved.push(entry);
        if sealing.moved.len() + sealing.under_way <= FREE_MAX {
            self.schedule.ended(id);
        }
    }

    /// Starts what is due.
    pub(super) fn seal_due(&mut self, now: Tick) {
        let load = self.schedule.active();
        let is_stopping = self.stop_by.is_some();
        let due = |sealing: &Sealing| sealing.is_due(if is_stopping { 0 } else { load }, now);
        let routes: Vec<RouteName> = self
            .sealing
            .iter()
            .filter(|(_, sealing)| due(sealing))
            .map(|(route, _)| route.clone())
            .collect();
        for name in routes {
            let Some(equipped) = self.equipped.get(&name).cloned() else { continue };
            let Some(sealing) = self.sealing.get_mut(&name) else { continue };
            let moved = std::mem::take(&mut sealing.moved);
            sealing.under_way = moved.len();
            let ctx = Arc::clone(&self.ctx);
            self.spawn(Ticket::Seal(name), async move {
                Work::Sealed(seal(&ctx, &equipped.route, moved).await)
            });
        }
    }

    /// When moves have waited long enough.
    pub(super) fn next_seal_at(&self) -> Option<Tick> {
        self.sealing.values().filter_map(Sealing::next_wake).min()
    }

    /// Whether every file that was moved is durable where it is.
    pub(super) fn is_all_sealed(&self) -> bool {
        self.sealing.is_empty()
    }

    /// No seal of this route is under way any more.
    pub(super) fn seal_ended(&mut self, route: &RouteName) {
        if let Some(sealing) = self.sealing.get_mut(route) {
            sealing.under_way = 0;
            if sealing.moved.is_empty() {
                self.sealing.remove(route);
            }
        }
    }

    /// A route's moves have become durable, or have not.
    pub(super) fn sealed(&mut self, route: &RouteName, sealed: Sealed) {
        self.seal_ended(route);
        for entry in sealed.settled {
            self.schedule.ended(entry.id);
            self.ended(&entry);
        }
        let now = self.now().tick;
        if let Some((_, fault)) = sealed.stumbled.first() {
            let files = sealed.stumbled.len();
            tracing::warn!(%route, files, error = %fault, "files were moved and it is not sure that a power cut would not undo it; they are on record and looked at again");
        }
        for (entry, fault) in sealed.stumbled {
            self.stumbles.insert(entry.id, fault);
            self.schedule.parked_on_record(
                entry.id,
                route,
                &entry.name,
                entry.waited_for,
                Refused::Never,
                (AGAIN, Errand::Finish),
                now,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_wait_for_company_only_where_it_is_likely() {
        fn check(moved: usize, waited_ms: u64, load: usize, expected: bool) {
            let goes = is_company(moved, Duration::from_millis(waited_ms), load);
            assert_eq!(goes, expected, "{moved} moved, {waited_ms} ms, load {load}");
        }
        check(0, 1_000, 0, false);
        check(1, 0, 0, true);
        check(1, 0, 7, true);
        check(1, 0, 8, false);
        check(4, 0, 8, true);
        check(1, 24, 8, false);
        check(1, 25, 8, true);
        check(255, 0, 10_000, false);
        check(256, 0, 10_000, true);
    }
}
