//! File ids, out of the block that the ledger has reserved.

use std::ops::Range;

use tokio::sync::Mutex;

use crate::model::file::FileId;
use crate::model::time::Wall;
use crate::world::ledger::{Ledger, LedgerError};

/// Hands out ids. The lock is held over a reservation, so that two never overlap.
#[derive(Debug, Default)]
pub(super) struct Ids {
    block: Mutex<Range<u64>>,
}

impl Ids {
    /// The next id. Reserves another block when the last one is used up.
    pub(super) async fn next<L: Ledger>(
        &self,
        ledger: &L,
        now: Wall,
    ) -> Result<FileId, LedgerError> {
        let mut block = self.block.lock().await;
        if let Some(id) = block.next() {
            return Ok(FileId(id));
        }
        // A block starts no lower than the wall clock in milliseconds: ids sort by time even
        // across ledgers.
        let floor = FileId(u64::try_from(now.0).unwrap_or(0));
        *block = ledger.reserve(floor).await?;
        let id = block.next().expect("a reserved block is not empty");
        Ok(FileId(id))
    }
}
