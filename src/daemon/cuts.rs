//! The loop's part about a record that is not synced (`durability = "process-crash"`): at the
//! start, what a power cut may have taken from it; at the end, that nothing can be taken any more.
//! Keeps promises P3 and P6 where the ledger may have lost what it knew.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::folders::chain;
use super::{Daemon, Mode};
use crate::journey::resume::doubt_all;
use crate::model::step::Step;
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::folder::Disk;
use crate::world::ledger::{Ledger, LedgerError};

/// A volume that takes longer must not keep the end: a mount may hang, a service manager may not
/// wait.
const REST_WITHIN: Duration = Duration::from_secs(20);

impl<W: World> Daemon<W> {
    /// Before anything is read of a ledger that may be older than the truth: every file that it
    /// would send is in doubt from now on, and every route waits for a person.
    pub(super) async fn heed_a_cut(&mut self) -> Result<(), LedgerError> {
        let ledger = self.ctx.world.ledger();
        if !ledger.is_unsure() {
            return Ok(());
        }
        let steps = doubt_all(&ledger.unsettled().await?, self.now().wall);
        let mut files = 0;
        for step in &steps {
            if let Step::AttemptBegun { id, attempt, .. } = step {
                // Said before it is on record: an end of this process between the two must not
                // make it one that never began.
                ledger.begun(*id, *attempt)?;
                files += 1;
            }
        }
        ledger.note_cut(steps).await?;
        tracing::error!(
            files,
            "the system was started anew while the ledger was not synced (durability = \"process-crash\") and had no clean end: the record may miss what was sent last; files that were under way are in doubt, and all routes are paused until a person has compared inbox, sent/ and held/ with the receiver (patchdrop resume ROUTE)"
        );
        Ok(())
    }

    /// The end in order: folders first, then the record, then the word that both are durable. A
    /// command alone knows too few folders to say so.
    pub(super) async fn rest(&mut self) {
        let ledger = self.ctx.world.ledger();
        if self.mode == Mode::OneCommand || !ledger.is_unsynced() {
            return;
        }
        let mut folders: BTreeSet<Arc<Path>> = BTreeSet::new();
        for equipped in self.equipped.values() {
            let route = &equipped.route.folders;
            folders.extend([Arc::clone(&route.inbox), Arc::clone(&route.sending)]);
        }
        let disk = self.ctx.world.disk();
        let syncs = folders.into_iter().map(|folder| disk.sync_volume(folder));
        let synced = tokio::select! {
            all = join_all(syncs) => all.into_iter().collect::<Result<(), _>>(),
            () = self.ctx.world.clock().sleep(REST_WITHIN) => {
                tracing::warn!("a volume could not be synced in time at the end: if the system is started anew before the next clean end, all routes begin paused");
                return;
            }
        };
        let rested = match synced {
            Ok(()) => ledger.rest().await.map_err(|error| chain(&error)),
            Err(error) => Err(chain(&error)),
        };
        if let Err(error) = rested {
            tracing::warn!(%error, "could not make everything durable at the end: if the system is started anew before the next clean end, all routes begin paused");
        }
    }
}
