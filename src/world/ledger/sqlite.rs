//! The embedded ledger: `SQLite` in `state_dir/ledger/`, in WAL mode, synced with every commit
//! unless `durability = "process-crash"` (`cuts.rs`).
//!
//! Keeps promises P2 and P3: what a commit has answered survives a power cut. One thread writes,
//! with one fsync for all who wait; reading goes through connections of its own, also from other
//! processes. `state_dir/begun` and the marks in the roots belong to it.
//!
//! Damage: only a database that is no database, or a damaged one, seen on a second open, is set
//! aside, with its whole folder. The whole database is checked at a start after an unclean end (up
//! to 128 MiB) and after damage was seen at run time; an ordinary start checks nothing.

mod connect;
mod cuts;
mod fold;
mod marks;
mod read;
mod sieve;
mod text;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use self::connect::{Failure, Home, SCHEMA, Seen, ledger_id};
use self::cuts::Cuts;
use self::sieve::Sieve;
use self::writer::{Change, Request, Writer};
use super::begun::Begun;
use super::{Count, Ledger, LedgerError, LedgerId, Query};
use crate::model::durability::Durability;
use crate::model::file::{Digest, FileId};
use crate::model::route::RouteName;
use crate::model::step::{Entry, History, RouteRecord, Step, Twin};
use crate::model::time::Wall;
use crate::world::clock::{Clock, SystemClock};
use crate::world::gather::Gather;
use crate::world::instance::{self, Here, Mark, MarkError, Marks, Whose};

/// So many ids are reserved at once: at most one more commit for each 10,000 files.
const BLOCK: u64 = 10_000;

/// Idle reading connections that are kept.
const READERS: usize = 4;

/// What a ledger is told at its opening.
#[derive(Clone, Debug, Default)]
pub struct LedgerOptions {
    /// How many files are on their way right now: the more, the longer a commit waits for company
    /// (at most 4 ms).
    pub load: Arc<AtomicUsize>,
    /// What its commits outlive.
    pub durability: Durability,
}

/// A ledger opened for writing.
#[derive(Debug)]
pub struct Opened {
    /// The ledger.
    pub ledger: SqliteLedger,
    /// What happened to the one before, if it was damaged.
    pub lost: Option<Lost>,
}

/// A damaged ledger was set aside and a new one begun.
#[derive(Debug)]
pub struct Lost {
    /// What is wrong with the old one.
    pub why: LedgerError,
    /// The folder where it lies now.
    pub set_aside: PathBuf,
}

/// Why a ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Full disk, no such volume, locked by another program: nothing was changed.
    #[error("cannot open the ledger {}", .path.display())]
    Unavailable {
        /// The database.
        path: PathBuf,
        /// What the system or `SQLite` said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// This account may not.
    #[error("no permission for the ledger {}, which belongs to {owner}", .path.display())]
    Denied {
        /// The database.
        path: PathBuf,
        /// Whose it is, in words.
        owner: String,
    },
    /// Written by a newer patchdrop. The program ends with exit code 78.
    #[error(
        "the ledger {} has schema {found}, this patchdrop knows up to {known}",
        .path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Schema number found.
        found: u32,
        /// Newest schema number known.
        known: u32,
    },
    /// For reading only: there is none, or it has an older schema, until the service has started.
    #[error("there is no ledger {} that can be read; the service makes it", .path.display())]
    Absent {
        /// The database.
        path: PathBuf,
    },
    /// For reading only: its content is damaged.
    #[error("the ledger {} is damaged", .path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What `SQLite` said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It is damaged and could not be renamed.
    #[error("cannot set the damaged ledger in {} aside", .folder.display())]
    SetAside {
        /// The ledger's folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The embedded ledger.
#[derive(Debug)]
pub struct SqliteLedger {
    shared: Arc<Shared>,
    /// `None` only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    marks: Arc<Mutex<Marks>>,
}

/// What the writer thread and all others know.
#[derive(Debug)]
struct Shared {
    home: Home,
    id: LedgerId,
    here: Here,
    /// Ledgers that were lost or taken over, and the ids that they had given out.
    lost: Mutex<Vec<(LedgerId, Range<u64>)>>,
    reserved_from: AtomicU64,
    reserved_end: AtomicU64,
    epoch: AtomicU64,
    behind_at: Mutex<Option<Wall>>,
    /// Something came on record since the marks were last written.
    has_changed: AtomicBool,
    begun: Begun,
    cuts: Cuts,
    sieve: Sieve,
    readers: Readers,
}

impl Shared {
    fn reserved(&self) -> Range<u64> {
        self.reserved_from.load(Ordering::Acquire)..self.reserved_end.load(Ordering::Acquire)
    }

    /// Counts further ids as given out.
    fn widen(&self, ids: &Range<u64>) {
        if ids.is_empty() {
            return;
        }
        if self.reserved().end == 0 {
            self.reserved_from.store(ids.start, Ordering::Release);
        }
        self.reserved_from.fetch_min(ids.start, Ordering::AcqRel);
        self.reserved_end.fetch_max(ids.end, Ordering::AcqRel);
    }
}

impl SqliteLedger {
    /// Opens the ledger in `state_dir`, or makes one. The caller holds the lock on `state_dir`.
    ///
    /// # Errors
    /// [`OpenError`]; a damaged ledger is none: see [`Opened::lost`].
    pub fn open(state_dir: &Path, options: LedgerOptions) -> Result<Opened, OpenError> {
        let home = Home::of(state_dir);
        let (found, lost) = match begin(&home) {
            Err(Failure::Damaged(first)) => {
                tracing::warn!(error = %first, "found the ledger damaged, opening it once more");
                home.suspect();
                match begin(&home) {
                    Err(failure @ Failure::Damaged(_)) => {
                        let aside = home.set_aside(&compact(now())).map_err(|source| {
                            OpenError::SetAside { folder: home.folder.clone(), source }
                        })?;
                        let lost = Lost { why: failure.error(), set_aside: aside };
                        (begin(&home), Some(lost))
                    }
                    other => (other, None),
                }
            }
            other => (other, None),
        };
        let ledger = found
            .and_then(|found| Self::start(home.clone(), found, options))
            .map_err(|failure| open_error(&home, &failure))?;
        Ok(Opened { ledger, lost })
    }

    /// Opens the ledger for reading, beside whoever writes; needs no lock.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_read_only(state_dir: &Path) -> Result<SqliteReader, OpenError> {
        let home = Home::of(state_dir);
        let fail = |failure: &Failure| open_error(&home, failure);
        match std::fs::exists(&home.db) {
            Ok(true) => {}
            Ok(false) => return Err(OpenError::Absent { path: home.db }),
            Err(error) => return Err(fail(&Failure::system(&home.db, error))),
        }
        let connection = home.open_reader().map_err(|failure| fail(&failure))?;
        let found = home.schema(&connection).map_err(|failure| fail(&failure))?;
        let id = (found == SCHEMA).then(|| ledger_id(&connection));
        match id {
            None | Some(Ok(None)) => Err(OpenError::Absent { path: home.db }),
            Some(Ok(Some(id))) => Ok(SqliteReader { home, id, connection }),
            Some(Err(error)) => Err(fail(&Failure::sqlite(&home.db, error))),
        }
    }

    /// Its id, which it keeps for good.
    #[must_use]
    pub fn id(&self) -> &LedgerId {
        &self.shared.id
    }

    /// Writes what was appended, brings the WAL into the database and closes it. Dropping does the
    /// same.
    pub fn close(self) {
        drop(self);
    }

    fn start(home: Home, found: Found, options: LedgerOptions) -> Result<Self, Failure> {
        let Found { connection, row, lost, sieve, open } = found;
        let begun = Begun::open(&home.state_dir, row.id, &open)
            .map_err(|error| Failure::system(&home.state_dir.join("begun"), error))?;
        let mark = (options.durability, row.unsynced_boot, row.unsure_below);
        let cuts = Cuts::begin(&home, &connection, mark)?;
        let seen = home.look();
        let shared = Arc::new(Shared {
            id: row.id,
            here: Here::of(&home.state_dir),
            lost: Mutex::new(lost),
            reserved_from: AtomicU64::new(row.reserved.start),
            reserved_end: AtomicU64::new(row.reserved.end),
            epoch: AtomicU64::new(row.epoch),
            behind_at: Mutex::new(row.behind_at),
            has_changed: AtomicBool::new(false),
            begun,
            cuts,
            sieve,
            readers: Readers { home: home.clone(), seen, idle: Mutex::default() },
            home,
        });
        let lags = shared.cuts.may_ever_lag();
        let (requests, receiver) = mpsc::channel();
        let writer = Writer {
            shared: Arc::clone(&shared),
            // Company is worth waiting for where an fsync is shared.
            gather: Gather::new(if lags { Arc::default() } else { options.load }),
            connection: Some(connection),
            retired: None,
            seen,
            appended: Vec::new(),
            due: None,
            dirty: true,
        };
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| Failure::system(&shared.home.db, error))?;
        let (requests, thread) = (Some(requests), Some(thread));
        Ok(Self { shared, requests, thread, marks: Arc::default() })
    }

    /// The queue has no bound of its own: each file on its way waits for its commit, so it is as
    /// long as there are files on their way.
    async fn change(&self, change: Change) -> Result<Range<u64>, LedgerError> {
        let (done, answer) = oneshot::channel();
        self.request(Request { change, done: Some(done) });
        let stopped = |_| Failure::system(&self.shared.home.db, "its writer has stopped").error();
        answer.await.map_err(stopped)?
    }

    fn request(&self, request: Request) {
        let requests = self.requests.as_ref().expect("it is there until the ledger is dropped");
        // If the thread has ended, the request is dropped, and with it what its sender waits for.
        drop(requests.send(request));
    }

    async fn read<T, F>(&self, read: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        block(move || shared.readers.read(read)).await.map_err(|failure| {
            if matches!(failure, Failure::Damaged(_)) {
                self.shared.home.suspect();
            }
            failure.error()
        })
    }
}

impl Drop for SqliteLedger {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ledger's writer ended in a panic");
        }
    }
}

/// A UUID (version 8) out of ledger and id: what receivers that look at keys expect.
fn key_of(ledger: &LedgerId, first: FileId) -> String {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    hash.update(ledger.0);
    hash.update(first.0.to_be_bytes());
    let hash = hash.finalize();
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&hash[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = u128::from_be_bytes(bytes);
    let part = |shift: u32, digits: u32| (hex >> shift) & ((1 << (4 * digits)) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 8),
        part(80, 4),
        part(64, 4),
        part(48, 4),
        part(0, 12)
    )
}

impl Ledger for SqliteLedger {
    async fn commit(&self, steps: Vec<Step>) -> Result<(), LedgerError> {
        self.change(Change::Steps(steps)).await.map(|_| ())
    }

    fn append(&self, steps: Vec<Step>) {
        if !steps.is_empty() {
            self.request(Request { change: Change::Steps(steps), done: None });
        }
    }

    fn begun(&self, id: FileId, attempt: u32) -> Result<(), LedgerError> {
        self.shared.begun.begin((id, attempt)).map_err(|error| {
            Failure::system(&self.shared.home.state_dir.join("begun"), error).error()
        })
    }

    fn had_begun(&self, id: FileId, attempt: u32) -> Option<bool> {
        self.shared.begun.had_begun((id, attempt))
    }

    fn key(&self, first: FileId) -> String {
        key_of(&self.shared.id, first)
    }

    fn key_of_stray(&self, id: FileId) -> String {
        let lost = lock(&self.shared.lost);
        let theirs = lost.iter().rev().find(|(_, ids)| ids.contains(&id.0));
        key_of(theirs.map_or(&self.shared.id, |(ledger, _)| ledger), id)
    }

    fn is_unsure(&self) -> bool {
        self.cut_is_unnoted()
    }

    async fn note_cut(&self, steps: Vec<Step>) -> Result<(), LedgerError> {
        self.put_cut(steps).await
    }

    fn unsure_below(&self) -> Option<FileId> {
        self.moves_unsure_below()
    }

    fn is_unsynced(&self) -> bool {
        self.has_mark_of_a_boot()
    }

    async fn rest(&self) -> Result<(), LedgerError> {
        self.put_to_rest().await
    }

    async fn reserve(&self, floor: FileId) -> Result<Range<u64>, LedgerError> {
        let ids = self.change(Change::Reserve { floor: floor.0 }).await?;
        self.tell_marks().await.map_err(|error| LedgerError::Unavailable(Box::new(error)))?;
        Ok(ids)
    }

    async fn admit(&self, folder: &Path, anew: bool) -> Result<bool, MarkError> {
        self.admit_below(folder, anew).await
    }

    fn has_reserved(&self, id: FileId) -> bool {
        self.shared.reserved().contains(&id.0)
    }

    async fn unsettled(&self) -> Result<Vec<Entry>, LedgerError> {
        self.read(read::unsettled).await
    }

    async fn entry(&self, id: FileId) -> Result<Option<Entry>, LedgerError> {
        self.read(move |connection| read::entry(connection, id)).await
    }

    async fn history(&self, id: FileId) -> Result<Option<History>, LedgerError> {
        self.read(move |connection| read::history(connection, id)).await
    }

    async fn list(&self, query: Query) -> Result<Vec<Entry>, LedgerError> {
        self.read(move |connection| read::list(connection, &query)).await
    }

    async fn predecessor(
        &self,
        route: &RouteName,
        digest: &Digest,
    ) -> Result<Option<Entry>, LedgerError> {
        if !self.shared.sieve.may_hold(&digest.0) {
            return Ok(None);
        }
        let (route, digest) = (route.clone(), *digest);
        self.read(move |connection| read::predecessor(connection, &route, &digest)).await
    }

    async fn twins(&self, id: FileId) -> Result<Vec<Twin>, LedgerError> {
        self.read(move |connection| read::twins(connection, id)).await
    }

    async fn successor(&self, id: FileId) -> Result<Option<FileId>, LedgerError> {
        self.read(move |connection| read::successor(connection, id)).await
    }

    async fn files_of_runs(
        &self,
        runs: Vec<String>,
    ) -> Result<BTreeMap<String, FileId>, LedgerError> {
        self.read(move |connection| read::files_of_runs(connection, &runs)).await
    }

    async fn attempted_between(
        &self,
        routes: Vec<RouteName>,
        from: Wall,
        to: Wall,
    ) -> Result<BTreeSet<FileId>, LedgerError> {
        self.read(move |connection| read::attempted_between(connection, &routes, from, to)).await
    }

    async fn counts(&self) -> Result<Vec<Count>, LedgerError> {
        self.read(read::counts).await
    }

    async fn routes(&self) -> Result<Vec<RouteRecord>, LedgerError> {
        self.read(read::routes).await
    }

    async fn all_paused_at(&self) -> Result<Option<Wall>, LedgerError> {
        self.read(read::all_paused_at).await
    }

    async fn put_all_paused(
        &self,
        at: Option<Wall>,
        records: Vec<RouteRecord>,
    ) -> Result<(), LedgerError> {
        self.change(Change::AllPaused(at, records)).await.map(|_| ())
    }

    async fn put_route(&self, record: RouteRecord) -> Result<(), LedgerError> {
        self.change(Change::Route(record)).await.map(|_| ())
    }
}

/// A ledger opened for reading, for commands beside a running service. Its calls block.
#[derive(Debug)]
pub struct SqliteReader {
    home: Home,
    id: LedgerId,
    connection: Connection,
}

impl SqliteReader {
    /// The ledger's id.
    #[must_use]
    pub fn id(&self) -> &LedgerId {
        &self.id
    }

    /// Whether an id can have been given out by this ledger.
    pub fn has_reserved(&self, id: FileId) -> Result<bool, LedgerError> {
        Ok(self.told(own_row(&self.connection))?.reserved.contains(&id.0))
    }

    /// Whether files may have been sent that it does not know of: it stands in for a ledger that
    /// was lost or taken over, or was once an older copy of itself.
    pub fn has_lost(&self) -> Result<bool, LedgerError> {
        let was_behind = self.told(own_row(&self.connection))?.was_behind_at.is_some();
        Ok(was_behind || !self.told(read::lost(&self.connection))?.is_empty())
    }

    /// What the mark of a folder says to this ledger. It is to be read before it is asked about: a
    /// running service puts an epoch on record before it writes it into a mark.
    pub fn whose(&self, folder: &Path, mark: Option<&Mark>) -> Result<Whose, LedgerError> {
        let Some(mark) = mark else {
            let has_marked = self.told(read::marked(&self.connection))?.contains_key(folder);
            return Ok(if has_marked { Whose::Unmarked } else { Whose::Nobodys });
        };
        let own = self.told(own_row(&self.connection))?;
        if mark.ledger == own.id.to_string() {
            if !instance::was_written_here(mark, &self.home.state_dir) {
                return Ok(Whose::Elsewhere);
            }
            let is_later = own.epoch < mark.epoch || own.reserved.end < mark.reserved_end;
            return Ok(if is_later { Whose::Later } else { Whose::Ours });
        }
        let lost = self.told(read::lost(&self.connection))?;
        let is_lost = lost.iter().any(|(ledger, _)| mark.ledger == ledger.to_string());
        Ok(if is_lost { Whose::Lost } else { Whose::Anothers })
    }

    /// All entries that are not settled, oldest first.
    pub fn unsettled(&self) -> Result<Vec<Entry>, LedgerError> {
        self.told(read::unsettled(&self.connection))
    }

    /// One entry.
    pub fn entry(&self, id: FileId) -> Result<Option<Entry>, LedgerError> {
        self.told(read::entry(&self.connection, id))
    }

    /// One file's whole history.
    pub fn history(&self, id: FileId) -> Result<Option<History>, LedgerError> {
        self.told(read::history(&self.connection, id))
    }

    /// Files on record that have this in common (method, URL and body): up to 100, those that were
    /// accepted first.
    pub fn twins_of(&self, twin: &Digest) -> Result<Vec<Twin>, LedgerError> {
        self.told(read::twins_of(&self.connection, twin))
    }

    /// Entries, newest first.
    pub fn list(&self, query: &Query) -> Result<Vec<Entry>, LedgerError> {
        self.told(read::list(&self.connection, query))
    }

    /// How many files stand where, by route.
    pub fn counts(&self) -> Result<Vec<Count>, LedgerError> {
        self.told(read::counts(&self.connection))
    }

    /// Since when a person has paused all routes at once.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn all_paused_at(&self) -> Result<Option<Wall>, LedgerError> {
        self.told(read::all_paused_at(&self.connection))
    }

    /// What is on record about routes.
    pub fn routes(&self) -> Result<Vec<RouteRecord>, LedgerError> {
        self.told(read::routes(&self.connection))
    }

    fn told<T>(&self, result: rusqlite::Result<T>) -> Result<T, LedgerError> {
        result.map_err(|error| Failure::sqlite(&self.home.db, error).error())
    }
}

/// Reading connections; a file that was replaced is not read.
#[derive(Debug)]
struct Readers {
    home: Home,
    seen: Seen,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Failure> {
        if !self.seen.has_same_db(self.home.look()) {
            return Err(Failure::Replaced);
        }
        let idle = lock(&self.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.home.open_reader()?,
        };
        let result = read(&connection).map_err(|error| Failure::sqlite(&self.home.db, error))?;
        let mut idle = lock(&self.idle);
        if idle.len() < READERS {
            idle.push(connection);
        }
        Ok(result)
    }

    fn clear(&self) {
        lock(&self.idle).clear();
    }
}

/// A database that has been opened, and what a start reads of it.
struct Found {
    connection: Connection,
    row: OwnRow,
    lost: Vec<(LedgerId, Range<u64>)>,
    sieve: Sieve,
    open: Vec<(FileId, u32)>,
}

/// One try to open or to make the database.
fn begin(home: &Home) -> Result<Found, Failure> {
    home.make_folder().map_err(|error| Failure::system(&home.folder, error))?;
    let connection = home.open_writer(true)?;
    let failure = |error| Failure::sqlite(&home.db, error);
    if ledger_id(&connection).map_err(failure)?.is_none() {
        make_row(home, &connection)?;
    }
    let row = own_row(&connection).map_err(failure)?;
    let lost = read::lost(&connection).map_err(failure)?;
    let sieve = Sieve::new();
    read::troubled(&connection, |digest| sieve.insert(digest)).map_err(failure)?;
    let open = read::open_attempts(&connection).map_err(failure)?;
    Ok(Found { connection, row, lost, sieve, open })
}

/// A new ledger's own row, and the names of its files made durable.
fn make_row(home: &Home, connection: &Connection) -> Result<(), Failure> {
    let mut id = [0_u8; 16];
    getrandom::fill(&mut id).map_err(|error| Failure::system(&home.db, error))?;
    // A `begun` without its ledger tells which one is lost.
    let replaces = Begun::ledger(&home.state_dir).map(|lost| lost.0);
    let at = now().0;
    let failure = |error| Failure::sqlite(&home.db, error);
    let both = connection.unchecked_transaction().map_err(failure)?;
    both.execute(
        "
        INSERT INTO ledger (one, id, replaces, created_at, reserved_from, reserved_end)
        VALUES (1, ?1, ?2, ?3, 0, 0)
        ",
        params![id, replaces, at],
    )
    .map_err(failure)?;
    both.execute(
        "
        INSERT INTO lost (ledger, ids_from, ids_end, noted_at)
        SELECT ?1, 0, 0, ?2 WHERE ?1 IS NOT NULL
        ",
        params![replaces, at],
    )
    .map_err(failure)?;
    both.commit().map_err(failure)?;
    home.sync_folder().map_err(|error| Failure::system(&home.folder, error))
}

struct OwnRow {
    id: LedgerId,
    reserved: Range<u64>,
    epoch: u64,
    behind_at: Option<Wall>,
    unsynced_boot: Option<String>,
    unsure_below: u64,
    was_behind_at: Option<Wall>,
}

fn own_row(connection: &Connection) -> rusqlite::Result<OwnRow> {
    connection
        .query_row(
            "
            SELECT id, reserved_from, reserved_end, epoch, behind_at, unsynced_boot, unsure_below,
                was_behind_at
            FROM ledger WHERE one = 1
            ",
            [],
            |row| {
                let reserved =
                    row.get::<_, i64>(1)?.cast_unsigned()..row.get::<_, i64>(2)?.cast_unsigned();
                Ok(OwnRow {
                    id: LedgerId(row.get(0)?),
                    reserved,
                    epoch: row.get::<_, i64>(3)?.cast_unsigned(),
                    behind_at: row.get::<_, Option<_>>(4)?.map(Wall),
                    unsynced_boot: row.get(5)?,
                    unsure_below: row.get::<_, i64>(6)?.cast_unsigned(),
                    was_behind_at: row.get::<_, Option<_>>(7)?.map(Wall),
                })
            },
        )
        .optional()?
        .ok_or(rusqlite::Error::QueryReturnedNoRows)
}

fn open_error(home: &Home, failure: &Failure) -> OpenError {
    let path = home.db.clone();
    match failure {
        Failure::Unavailable(trouble) if connect::is_denied(trouble) => {
            OpenError::Denied { path, owner: home.owner() }
        }
        Failure::Unavailable(trouble) => {
            OpenError::Unavailable { path, source: Box::new(trouble.clone()) }
        }
        Failure::Damaged(trouble) => OpenError::Damaged { path, source: Box::new(trouble.clone()) },
        Failure::Newer { found } => OpenError::Newer { path, found: *found, known: SCHEMA },
        Failure::Replaced | Failure::Impossible { .. } => {
            OpenError::Unavailable { path, source: Box::new(failure.error()) }
        }
    }
}

/// Runs what may block on a thread that may.
async fn block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down and has dropped the work: nobody waits any more.
            Err(_) => std::future::pending().await,
        },
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Wall {
    SystemClock::new().now().wall
}

/// `20261121T081500Z`, fit for a file name on every system.
fn compact(at: Wall) -> String {
    let seconds = at.to_string().split('.').next().unwrap_or_default().replace(['-', ':'], "");
    format!("{seconds}Z")
}
