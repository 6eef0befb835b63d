//! The database file: where it is, how it is opened, and what its errors mean.
#![expect(clippy::disallowed_methods, reason = "the ledger's own files, in its own folder")]

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::super::{LedgerError, LedgerId};
use crate::model::file::FileId;
use crate::model::room::Room;
use crate::world::own_files::{self, is_free_for_a_file};
use crate::world::rights;
use crate::world::room::room;

/// `pdro`, in the file's header: tells our databases from others.
const APPLICATION_ID: i32 = 0x7064_726f;

/// Frozen; `user_version` is the number of the last one applied.
const MIGRATIONS: [&str; SCHEMA as usize] = [
    include_str!("../migrations/0001.sql"),
    include_str!("../migrations/0002.sql"),
    include_str!("../migrations/0003.sql"),
    include_str!("../migrations/0004.sql"),
];

/// Newest schema that this program knows.
pub(super) const SCHEMA: u32 = 4;

/// Nobody but the service writes; this is for a person with a database shell.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// After an unclean end a database up to this size is checked as a whole: about half a second.
const CHECK_BYTES_MAX: u64 = 128 << 20;

/// Once the WAL is this large it goes into the database. A checkpoint costs two fsyncs, so not one
/// every 4 MB. On a volume that has so little room that sending pauses there is still twice this.
const WAL_BYTES: u64 = 16 << 20;

/// A WAL is at most this part of its volume: what fills a small one must not be the WAL itself,
/// which could then neither grow nor go into the database.
const WAL_SHARE: u64 = 40;

/// `SQLite`'s page, bytes, as new databases have it.
const PAGE_BYTES: u64 = 4_096;

/// Why something did not work, cheap to tell to everybody who waits for it.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    Unavailable(Trouble),
    Damaged(Trouble),
    Replaced,
    Newer { found: u32 },
    Impossible { id: FileId, why: &'static str },
}

/// What the system or `SQLite` said about the ledger's file.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    path: PathBuf,
    source: Arc<dyn Error + Send + Sync>,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot use {}", self.path.display())
    }
}

impl Error for Trouble {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

impl Trouble {
    fn new(path: &Path, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { path: path.to_owned(), source: Arc::from(source.into()) }
    }
}

/// `SQLite` could not make the file larger in which programs share the ledger, and gives a bare
/// number as the reason.
#[derive(Debug, thiserror::Error)]
#[error("its volume is full, or a quota is used up")]
struct NoSpace(#[source] rusqlite::Error);

impl Failure {
    /// What went wrong in a call of the operating system.
    pub(super) fn system(path: &Path, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(Trouble::new(path, source))
    }

    /// Only what says that the content is wrong is damage; all else may pass.
    pub(super) fn sqlite(path: &Path, error: rusqlite::Error) -> Self {
        let misread = matches!(
            error,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
        );
        let damaged = matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
        );
        let trouble = match error.sqlite_error() {
            Some(code) if code.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => {
                Trouble::new(path, NoSpace(error))
            }
            _ => Trouble::new(path, error),
        };
        if damaged || misread { Self::Damaged(trouble) } else { Self::Unavailable(trouble) }
    }

    /// As the trait has it.
    pub(super) fn error(&self) -> LedgerError {
        match self {
            Self::Unavailable(trouble) => LedgerError::Unavailable(Box::new(trouble.clone())),
            Self::Damaged(trouble) => LedgerError::Damaged(Box::new(trouble.clone())),
            Self::Replaced => LedgerError::Replaced,
            Self::Newer { found } => LedgerError::Newer { found: *found, known: SCHEMA },
            Self::Impossible { id, why } => LedgerError::Impossible { id: *id, why },
        }
    }
}

/// Where a ledger's files are. They have a folder of their own, so that one rename sets database,
/// WAL and shared memory aside together.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) state_dir: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) db: PathBuf,
    wal: PathBuf,
    shm: PathBuf,
    /// Here after damage was seen at run time: the next start checks the whole database.
    suspect: PathBuf,
}

/// Device and file number of the database and of its WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    db: Option<(u64, u64)>,
    wal: Option<(u64, u64)>,
}

impl Seen {
    /// Whether the database is still the file that it was.
    pub(super) fn has_same_db(self, other: Self) -> bool {
        self.db.is_some() && self.db == other.db
    }
}

impl Home {
    pub(super) fn of(state_dir: &Path) -> Self {
        let folder = state_dir.join("ledger");
        Self {
            state_dir: state_dir.to_owned(),
            db: folder.join("ledger.db"),
            wal: folder.join("ledger.db-wal"),
            shm: folder.join("ledger.db-shm"),
            suspect: folder.join("suspect"),
            folder,
        }
    }

    /// One look at both files: an unlinked database goes on accepting writes, silently.
    pub(super) fn look(&self) -> Seen {
        Seen { db: number(&self.db), wal: number(&self.wal) }
    }

    /// Makes sure that the next start looks closely. That it can't be written down changes nothing.
    pub(super) fn suspect(&self) {
        let said = own_files::write(&self.suspect, "damage was seen while in use\n");
        if let Err(error) = said {
            tracing::debug!(%error, "could not note the damage of the ledger");
        }
    }

    /// Opens for writing. `create` makes what is not there; without it a file that is gone is an
    /// error, so that a lost ledger is never followed by a silent empty one.
    pub(super) fn open_writer(&self, create: bool) -> Result<Connection, Failure> {
        let failure = |error| Failure::sqlite(&self.db, error);
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        self.are_files()?;
        if create {
            make_private(&self.db).map_err(|error| Failure::system(&self.db, error))?;
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let unclean = self.wal_bytes() > 0;
        let mut connection = Connection::open_with_flags(&self.db, flags).map_err(failure)?;
        set_up(&connection, 8_000).map_err(failure)?;
        limit_wal(&connection, room(&self.folder)).map_err(failure)?;
        self.migrate(&mut connection)?;
        let suspect = std::fs::symlink_metadata(&self.suspect).is_ok();
        let small = std::fs::metadata(&self.db).is_ok_and(|db| db.len() <= CHECK_BYTES_MAX);
        if suspect || (create && unclean && small) {
            self.check(&connection)?;
        }
        if suspect && let Err(error) = std::fs::remove_file(&self.suspect) {
            return Err(Failure::system(&self.suspect, error));
        }
        Ok(connection)
    }

    /// Opens for reading, beside whoever writes.
    pub(super) fn open_reader(&self) -> Result<Connection, Failure> {
        let failure = |error| Failure::sqlite(&self.db, error);
        self.are_files()?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.db, flags).map_err(failure)?;
        set_up(&connection, 2_000).map_err(failure)?;
        Ok(connection)
    }

    /// `SQLite` would wait at a pipe in the place of one of its files.
    fn are_files(&self) -> Result<(), Failure> {
        let paths = [&self.db, &self.wal, &self.shm].into_iter();
        let mut odd = paths.filter_map(|path| Some((path, is_free_for_a_file(path).err()?)));
        odd.next().map_or(Ok(()), |(path, error)| Err(Failure::system(path, error)))
    }

    fn migrate(&self, connection: &mut Connection) -> Result<(), Failure> {
        let failure = |error| Failure::sqlite(&self.db, error);
        let found = self.schema(connection)?;
        if found == 0 {
            let mode: String = connection
                .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
                .map_err(failure)?;
            if mode != "wal" {
                let why = "the file system of state_dir cannot share memory between programs; \
                           use a local disk";
                return Err(Failure::system(&self.db, why));
            }
        }
        for (number, migration) in (1_u32..).zip(MIGRATIONS).skip(found as usize) {
            let change = connection.transaction().map_err(failure)?;
            change.execute_batch(migration).map_err(failure)?;
            change.pragma_update(None, "application_id", APPLICATION_ID).map_err(failure)?;
            change.pragma_update(None, "user_version", number).map_err(failure)?;
            change.commit().map_err(failure)?;
        }
        Ok(())
    }

    /// The schema's number; 0 for an empty file.
    pub(super) fn schema(&self, connection: &Connection) -> Result<u32, Failure> {
        let failure = |error| Failure::sqlite(&self.db, error);
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let application = number("application_id").map_err(failure)?;
        let found = number("user_version").map_err(failure)?;
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(failure)?;
        if application != APPLICATION_ID && (application != 0 || found != 0 || tables != 0) {
            return Err(Failure::system(&self.db, "it is a database of another program"));
        }
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        if found > SCHEMA { Err(Failure::Newer { found }) } else { Ok(found) }
    }

    fn check(&self, connection: &Connection) -> Result<(), Failure> {
        let verdict: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| Failure::sqlite(&self.db, error))?;
        if verdict == "ok" {
            return Ok(());
        }
        Err(Failure::Damaged(Trouble::new(&self.db, verdict)))
    }

    fn wal_bytes(&self) -> u64 {
        std::fs::metadata(&self.wal).map_or(0, |wal| wal.len())
    }

    /// Moves the whole folder out of the way, replacing nothing. `at` is compact, fit for a name.
    pub(super) fn set_aside(&self, at: &str) -> io::Result<PathBuf> {
        let mut aside = self.state_dir.join(format!("ledger.damaged-{at}"));
        let mut number = 2;
        while std::fs::symlink_metadata(&aside).is_ok() {
            aside = self.state_dir.join(format!("ledger.damaged-{at}-{number}"));
            number += 1;
        }
        std::fs::rename(&self.folder, &aside)?;
        sync_folder(&self.state_dir)?;
        Ok(aside)
    }

    /// Makes the ledger's folder, owner only.
    pub(super) fn make_folder(&self) -> io::Result<()> {
        rights::make_folder(&self.state_dir)?;
        own_files::make_folder(&self.folder, false)?;
        sync_folder(&self.state_dir)
    }

    /// Makes the names of a new ledger durable.
    pub(super) fn sync_folder(&self) -> io::Result<()> {
        sync_folder(&self.folder)
    }

    /// Who may use the ledger, in words.
    pub(super) fn owner(&self) -> String {
        let place = [&self.db, &self.folder, &self.state_dir];
        place.iter().find_map(|path| owner(path)).unwrap_or_else(|| "another account".to_owned())
    }
}

/// Whether it is this account's rights that are missing.
pub(super) fn is_denied(trouble: &Trouble) -> bool {
    if let Some(error) = trouble.source.downcast_ref::<io::Error>() {
        return error.kind() == io::ErrorKind::PermissionDenied;
    }
    let Some(error) = trouble.source.downcast_ref::<rusqlite::Error>() else { return false };
    match error.sqlite_error_code() {
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => true,
        Some(ErrorCode::CannotOpen) => may_not_read(&trouble.path),
        _ => false,
    }
}

/// `SQLite` does not say why it could not open a file; the system does. The file is not opened to
/// find out: closing it would drop the locks that this process has on it.
#[cfg(unix)]
fn may_not_read(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::READ_OK) == Err(rustix::io::Errno::ACCESS)
}

#[cfg(not(unix))]
fn may_not_read(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The id in the `ledger` row; `None` in a database that has none yet.
pub(super) fn ledger_id(connection: &Connection) -> rusqlite::Result<Option<LedgerId>> {
    use rusqlite::OptionalExtension;
    let id = connection
        .query_row("SELECT id FROM ledger WHERE one = 1", [], |row| row.get::<_, [u8; 16]>(0))
        .optional()?;
    Ok(id.map(LedgerId))
}

fn set_up(connection: &Connection, cache_kb: i64) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(64);
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Reading through a map turns an I/O error into a signal that ends the process.
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", -cache_kb)?;
    connection.pragma_update(None, "synchronous", "full")
}

/// Cut back, too, after a long reader has let it grow.
fn limit_wal(connection: &Connection, room: Option<Room>) -> rusqlite::Result<()> {
    let bytes = room.map_or(WAL_BYTES, |room| WAL_BYTES.min(room.total_bytes / WAL_SHARE));
    let pages = (bytes / PAGE_BYTES).max(1).cast_signed();
    connection.pragma_update(None, "wal_autocheckpoint", pages)?;
    connection.pragma_update(None, "journal_size_limit", bytes.saturating_mul(4).cast_signed())
}

/// The files beside it are given to its owner by `SQLite` itself.
fn make_private(path: &Path) -> io::Result<()> {
    match own_files::create(path, own_files::PRIVATE, std::fs::OpenOptions::new().write(true)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(unix)]
fn number(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// An open database can't be removed or replaced here: it only has to be there.
#[cfg(not(unix))]
fn number(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|_| (0, 0))
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

/// Folders can't be synced here.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn owner(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let uid = std::fs::metadata(path).ok()?.uid();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| format!("account {name}"))
    });
    Some(name.unwrap_or_else(|| format!("the account with number {uid}")))
}

#[cfg(not(unix))]
fn owner(_path: &Path) -> Option<String> {
    None
}
