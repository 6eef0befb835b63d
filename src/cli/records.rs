//! The ledger as reading commands see it: nothing here can change it.

use std::path::Path;

use super::failure::{Failure, Kind};
use crate::config::Config;
use crate::model::file::{Digest, FileId};
use crate::model::step::{Entry, History, RouteRecord, Twin};
use crate::model::time::Wall;
use crate::world::instance::{Mark, Whose};
use crate::world::ledger::sqlite::{OpenError, SqliteLedger, SqliteReader};
use crate::world::ledger::{Count, LedgerError, Query};

/// What is on record. Calls may block.
pub(super) trait Records {
    /// One entry.
    fn entry(&self, id: FileId) -> Result<Option<Entry>, LedgerError>;
    /// One file's whole history.
    fn history(&self, id: FileId) -> Result<Option<History>, LedgerError>;
    /// Entries, newest first.
    fn list(&self, query: &Query) -> Result<Vec<Entry>, LedgerError>;
    /// Files that have this in common (method, URL and body).
    fn twins_of(&self, twin: &Digest) -> Result<Vec<Twin>, LedgerError>;
    /// How many files stand where, by route.
    fn counts(&self) -> Result<Vec<Count>, LedgerError>;
    /// What is on record about routes.
    fn routes(&self) -> Result<Vec<RouteRecord>, LedgerError>;
    /// Since when a person has paused all routes at once.
    fn all_paused_at(&self) -> Result<Option<Wall>, LedgerError>;
    /// Whether this ledger can have given out an id.
    fn has_reserved(&self, id: FileId) -> Result<bool, LedgerError>;
    /// Whether files may have been sent that it does not know of.
    fn has_lost(&self) -> Result<bool, LedgerError>;
    /// What the mark of a folder, read before, says to it.
    fn whose(&self, folder: &Path, mark: Option<&Mark>) -> Result<Whose, LedgerError>;
}

/// The ledger for reading, beside a running service or without one.
pub(super) fn open_ledger(config: &Config) -> Result<impl Records + use<>, Failure> {
    let error = match SqliteLedger::open_read_only(&config.state_dir) {
        Ok(reader) => return Ok(Reading(Some(reader))),
        Err(OpenError::Absent { path }) if !path.try_exists().unwrap_or(true) => {
            return Ok(Reading(None));
        }
        Err(error) => error,
    };
    let (kind, hint) = match &error {
        OpenError::Absent { .. } => {
            (Kind::Machine, "start the service once: it brings an older ledger up to date")
        }
        OpenError::Denied { .. } => (Kind::Machine, "run this as the service's account or as root"),
        OpenError::Newer { .. } => (
            Kind::Config,
            "install the newer patchdrop again; an older one never reads or writes here",
        ),
        OpenError::Damaged { .. } => (
            Kind::Machine,
            "start the service: it sets a damaged ledger aside, holds what was on its way, and \
             says so",
        ),
        OpenError::Unavailable { .. } | OpenError::SetAside { .. } => {
            (Kind::Machine, "see whether the disk with state_dir is there and not full")
        }
    };
    Err(Failure::new(kind, error).hint(hint))
}

/// An open ledger; none before the first start: then nothing is on record.
struct Reading(Option<SqliteReader>);

impl Records for Reading {
    fn entry(&self, id: FileId) -> Result<Option<Entry>, LedgerError> {
        self.0.as_ref().map_or(Ok(None), |reader| reader.entry(id))
    }

    fn history(&self, id: FileId) -> Result<Option<History>, LedgerError> {
        self.0.as_ref().map_or(Ok(None), |reader| reader.history(id))
    }

    fn list(&self, query: &Query) -> Result<Vec<Entry>, LedgerError> {
        self.0.as_ref().map_or(Ok(Vec::new()), |reader| reader.list(query))
    }

    fn twins_of(&self, twin: &Digest) -> Result<Vec<Twin>, LedgerError> {
        self.0.as_ref().map_or(Ok(Vec::new()), |reader| reader.twins_of(twin))
    }

    fn counts(&self) -> Result<Vec<Count>, LedgerError> {
        self.0.as_ref().map_or(Ok(Vec::new()), SqliteReader::counts)
    }

    fn routes(&self) -> Result<Vec<RouteRecord>, LedgerError> {
        self.0.as_ref().map_or(Ok(Vec::new()), SqliteReader::routes)
    }

    fn all_paused_at(&self) -> Result<Option<Wall>, LedgerError> {
        self.0.as_ref().map_or(Ok(None), SqliteReader::all_paused_at)
    }

    fn has_reserved(&self, id: FileId) -> Result<bool, LedgerError> {
        self.0.as_ref().map_or(Ok(false), |reader| reader.has_reserved(id))
    }

    fn has_lost(&self) -> Result<bool, LedgerError> {
        self.0.as_ref().map_or(Ok(false), SqliteReader::has_lost)
    }

    fn whose(&self, folder: &Path, mark: Option<&Mark>) -> Result<Whose, LedgerError> {
        let without = if mark.is_some() { Whose::Anothers } else { Whose::Nobodys };
        self.0.as_ref().map_or(Ok(without), |reader| reader.whose(folder, mark))
    }
}
