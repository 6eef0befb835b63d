//! The ledger: the durable record of what happened to each file.

pub mod sqlite;

mod begun;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::path::Path;

use crate::model::file::{Digest, FileId};
use crate::model::route::RouteName;
use crate::model::step::{Entry, History, RouteRecord, State, Step, Twin};
use crate::model::time::Wall;
use crate::world::instance::MarkError;

/// Why the ledger cannot be used. While it can't, nothing is sent.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Full disk, read-only file system, I/O error, lock: may pass. Nothing of the refused commit
    /// is on record.
    #[error("the ledger cannot be written")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its content is damaged.
    #[error("the ledger is damaged")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The file that is open is no longer the one in `state_dir`.
    #[error("the ledger was replaced or removed while in use")]
    Replaced,
    /// Written by a newer patchdrop.
    #[error("the ledger has schema {found}, this patchdrop knows up to {known}")]
    Newer {
        /// Schema number found.
        found: u32,
        /// Newest schema number known.
        known: u32,
    },
    /// What is on record rules this step out: a bug. Nothing of its commit is on record; other
    /// commits are not concerned.
    #[error("the record of file {id} rules out this step: {why}")]
    Impossible {
        /// The file.
        id: FileId,
        /// What is wrong.
        why: &'static str,
    },
}

impl LedgerError {
    /// What becomes of it while the service runs, and what a person can do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "patchdrop tries again by itself",
            Self::Damaged(_) => {
                "only a start looks into it: restart the service; a ledger that is damaged is then \
                 set aside, and what is in sending/ is held"
            }
            Self::Replaced => {
                "put the ledger back into state_dir, or restart the service; what is in sending/ \
                 and on no record is then held"
            }
            Self::Newer { .. } => "install the newer patchdrop again",
            Self::Impossible { .. } => "please report this; other files are not concerned",
        }
    }
}

/// Names one ledger for good: 128 random bits, made with it, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LedgerId(pub [u8; 16]);

impl LedgerId {
    /// Reads an id as [`fmt::Display`] writes it; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_ours =
            text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let value = is_ours.then(|| u128::from_str_radix(text, 16).ok())??;
        Some(Self(value.to_be_bytes()))
    }
}

impl fmt::Display for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Which files to list.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only this route's.
    pub route: Option<RouteName>,
    /// Only these states; empty: all.
    pub states: Vec<State>,
    /// Only with this cause code.
    pub code: Option<String>,
    /// Only those claimed or decided at or after this.
    pub since: Option<Wall>,
    /// Only those that no later file takes up again (resent, moved back by hand); a claim that came
    /// to nothing takes nothing up.
    pub only_last: bool,
    /// Only those dropped under this name.
    pub name: Option<std::ffi::OsString>,
    /// Only files with an id below this (for paging, newest first).
    pub before: Option<FileId>,
    /// At most so many, newest first.
    pub limit: usize,
}

/// What [`Count::states`] calls files in `failed` or `held` that a later file takes up again.
pub const RESENT: &str = "resent";

/// How many files stand where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// The route.
    pub route: String,
    /// Files per state, and [`RESENT`]; each file under one of them.
    pub states: BTreeMap<&'static str, u64>,
    /// Since when its oldest file has been on its way that waits for another attempt or is at one:
    /// when it was claimed, or let go by a person.
    pub retried_since: Option<Wall>,
}

/// The durable record.
pub trait Ledger: Send + Sync + 'static {
    /// Puts steps on record, all or none; durable when it returns, in the sense that was chosen
    /// ([`crate::model::durability::Durability`]; all but steps in the stricter one). Concurrent
    /// commits share one fsync. Without any steps: what was appended before is on record when it
    /// returns.
    fn commit(&self, steps: Vec<Step>) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Puts steps on record along with a later commit; nobody waits, and a power cut may forget
    /// them. For `Settled` only.
    fn append(&self, steps: Vec<Step>);

    /// Writes down, not durably, that the first byte of an attempt is about to leave: survives the
    /// end of this process, not of this boot.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`]: then the attempt must not start.
    fn begun(&self, id: FileId, attempt: u32) -> Result<(), LedgerError>;

    /// Whether, in this same boot, an attempt of an earlier process is known not to have reached
    /// its first byte: `Some(true)` it had begun, `Some(false)` it had not, `None` another boot.
    fn had_begun(&self, id: FileId, attempt: u32) -> Option<bool>;

    /// The idempotency key of a chain of journeys that begins with this id: unique to this ledger,
    /// at most 64 characters of ASCII.
    fn key(&self, first: FileId) -> String;

    /// The idempotency key under which a file went out whose record is lost, as its id tells:
    /// [`Ledger::key`] as the ledger had it that gave the id out (promise P6).
    fn key_of_stray(&self, id: FileId) -> String {
        self.key(id)
    }

    /// Whether files below this folder are ours to send. Where the mark of its root could not be
    /// read before, or was not ours, or with `anew`, it is looked at now: then `true`, and what is
    /// on record about routes may have changed.
    ///
    /// # Errors
    /// [`MarkError`]: they are not, or nobody knows yet.
    fn admit(
        &self,
        _folder: &Path,
        _anew: bool,
    ) -> impl Future<Output = Result<bool, MarkError>> + Send {
        async { Ok(false) }
    }

    /// Whether this ledger was worked with in another boot without being synced, and had no clean
    /// end: then it may be older than what happened, folders as well, and nothing that it says is
    /// acted on before [`Ledger::note_cut`].
    fn is_unsure(&self) -> bool {
        false
    }

    /// Puts on record, all or nothing and durably, that this ledger is unsure: these steps, a pause
    /// of every route under [`crate::model::step::UNCLEAN_BOOT`], and which files may have lost
    /// their moves. From then on it is sure again.
    fn note_cut(&self, steps: Vec<Step>) -> impl Future<Output = Result<(), LedgerError>> + Send {
        self.commit(steps)
    }

    /// Files with an id below this may have lost their moves in a power cut, although that is on
    /// record; `None`: nobody has kept account.
    fn unsure_below(&self) -> Option<FileId> {
        None
    }

    /// Whether an end in order has to be told by [`Ledger::rest`].
    fn is_unsynced(&self) -> bool {
        false
    }

    /// To be called at an end, when all that was done in folders is durable: makes all that is on
    /// record durable, and after that says so, durably. What comes on record later is synced.
    fn rest(&self) -> impl Future<Output = Result<(), LedgerError>> + Send {
        async { Ok(()) }
    }

    /// Reserves ids, durably (ledger first, then the marks in the roots), none below `floor`.
    fn reserve(
        &self,
        floor: FileId,
    ) -> impl Future<Output = Result<Range<u64>, LedgerError>> + Send;

    /// Whether an id can have been given out by this ledger.
    fn has_reserved(&self, id: FileId) -> bool;

    /// All entries that are not settled, oldest first.
    fn unsettled(&self) -> impl Future<Output = Result<Vec<Entry>, LedgerError>> + Send;

    /// One entry.
    fn entry(&self, id: FileId) -> impl Future<Output = Result<Option<Entry>, LedgerError>> + Send;

    /// One file's whole history.
    fn history(
        &self,
        id: FileId,
    ) -> impl Future<Output = Result<Option<History>, LedgerError>> + Send;

    /// Entries, newest first.
    fn list(&self, query: Query) -> impl Future<Output = Result<Vec<Entry>, LedgerError>> + Send;

    /// The newest settled entry of this route in `failed` or `held` whose file had this digest.
    /// Cheap when there is none.
    fn predecessor(
        &self,
        route: &RouteName,
        digest: &Digest,
    ) -> impl Future<Output = Result<Option<Entry>, LedgerError>> + Send;

    /// This file and others with the same twin (see [`crate::model::step::Claim::twin`]): itself
    /// first, then those accepted, then the oldest first; at most 100. Empty for one that a person
    /// let go although its twin was accepted.
    fn twins(&self, id: FileId) -> impl Future<Output = Result<Vec<Twin>, LedgerError>> + Send;

    /// The newest journey that took this one's file up again (resend, moved back by hand), a claim
    /// that came to nothing left out.
    fn successor(
        &self,
        id: FileId,
    ) -> impl Future<Output = Result<Option<FileId>, LedgerError>> + Send;

    /// Which of these runs (the server's ids) is on record as started by which file.
    fn files_of_runs(
        &self,
        runs: Vec<String>,
    ) -> impl Future<Output = Result<BTreeMap<String, FileId>, LedgerError>> + Send;

    /// Files of these routes that had an attempt under way between two moments, both included, and
    /// may have been sent. (An attempt that began more than a day before is not looked for.)
    fn attempted_between(
        &self,
        routes: Vec<RouteName>,
        from: Wall,
        to: Wall,
    ) -> impl Future<Output = Result<BTreeSet<FileId>, LedgerError>> + Send;

    /// How many files stand where, by route.
    fn counts(&self) -> impl Future<Output = Result<Vec<Count>, LedgerError>> + Send;

    /// What is on record about routes.
    fn routes(&self) -> impl Future<Output = Result<Vec<RouteRecord>, LedgerError>> + Send;

    /// Since when a person has paused all routes at once, those that nobody knows of yet among
    /// them.
    fn all_paused_at(&self) -> impl Future<Output = Result<Option<Wall>, LedgerError>> + Send;

    /// Puts that in place and the records of routes with it, all or none, durably.
    fn put_all_paused(
        &self,
        at: Option<Wall>,
        records: Vec<RouteRecord>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Puts a route's record in place, durably.
    fn put_route(
        &self,
        record: RouteRecord,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;
}
