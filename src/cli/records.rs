//! The ledger as reading commands see it: nothing here can change it.

use crate::model::file::FileId;
use crate::model::step::{Entry, History, RouteRecord};
use crate::world::ledger::{Count, LedgerError, Query};

/// What is on record. Calls may block.
pub(super) trait Records {
    /// One entry.
    fn entry(&self, id: FileId) -> Result<Option<Entry>, LedgerError>;
    /// One file's whole history.
    fn history(&self, id: FileId) -> Result<Option<History>, LedgerError>;
    /// Entries, newest first.
    fn list(&self, query: &Query) -> Result<Vec<Entry>, LedgerError>;
    /// How many files stand where, by route.
    fn counts(&self) -> Result<Vec<Count>, LedgerError>;
    /// What is on record about routes.
    fn routes(&self) -> Result<Vec<RouteRecord>, LedgerError>;
    /// Whether this ledger can have given out an id.
    fn has_reserved(&self, id: FileId) -> Result<bool, LedgerError>;
}
