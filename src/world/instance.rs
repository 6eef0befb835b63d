//! Whose state folder and whose roots these are: an OS lock on `state_dir`, and a mark in each
//! root. Keeps promise P3 from two services that send the same files, and tells a lost ledger from
//! a first start.
//!
//! Nothing here stays open inside a root: an open file there would keep it from being unmounted.
#![expect(clippy::disallowed_methods, reason = "our own small files, never a file to be sent")]

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ledger::{LedgerError, LedgerId};
use crate::model::time::Wall;

/// Why `state_dir` could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another patchdrop ({owner}) uses {}", .state_dir.display())]
    Held {
        /// The folder.
        state_dir: PathBuf,
        /// Who and since when, as far as it says so.
        owner: String,
    },
    /// The lock file can't be opened or locked.
    #[error("cannot lock {}", .path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The lock on a state folder. It ends with the process, whatever ends that.
#[derive(Debug)]
pub struct StateLock {
    file: File,
}

impl StateLock {
    /// Locks `state_dir`, which is made (owner only) if it is not there. `since` is for the owner's
    /// text alone.
    ///
    /// # Errors
    /// [`LockError::Held`] if another process has it.
    pub fn take(state_dir: &Path, since: Wall) -> Result<Self, LockError> {
        let path = state_dir.join("lock");
        let fail = |source| LockError::Io { path: path.clone(), source };
        make_private_folder(state_dir).map_err(fail)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        private(&mut options);
        let file = options.open(&path).map_err(fail)?;
        // The text lies beside the lock: on Windows nobody can read a locked file.
        let text = state_dir.join("lock.owner");
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let owner = std::fs::read_to_string(&text).unwrap_or_default();
                let owner = owner.lines().next().unwrap_or("unknown").to_owned();
                return Err(LockError::Held { state_dir: state_dir.to_owned(), owner });
            }
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
        let owner = format!("pid {} on {} since {since}\n", std::process::id(), host());
        if let Err(error) = std::fs::write(&text, owner) {
            // For information only: the lock itself is held.
            tracing::debug!(%error, path = %text.display(), "could not write who holds the lock");
        }
        Ok(Self { file })
    }

    /// Lets go of it.
    pub fn release(self) {
        // Closing unlocks too; this is for whoever inherited the file.
        drop(self.file.unlock());
    }
}

/// Why the marks don't let this instance start.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// Another instance works here.
    #[error(
        "{} belongs to another patchdrop: ledger {} on {}, state_dir {}, last seen {}",
        .folder.display(), .mark.ledger, .mark.host, .mark.state_dir, .mark.written_at
    )]
    Foreign {
        /// The root.
        folder: PathBuf,
        /// Its mark.
        mark: Box<Mark>,
    },
    /// It is not what patchdrop writes.
    #[error("cannot understand the mark {}", .path.display())]
    Unreadable {
        /// The mark.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// It can't be read or written.
    #[error("cannot {doing} the mark {}", .path.display())]
    Io {
        /// The verb: read, write.
        doing: &'static str,
        /// The mark.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The ledger could not be asked or told.
    #[error("cannot compare the marks with the ledger")]
    Ledger(#[from] LedgerError),
}

/// What a root says about itself, in `.patchdrop/owner.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Whose it is: the id of a ledger, 32 hexadecimal digits.
    pub ledger: String,
    /// The machine's name, for people.
    pub host: String,
    /// Where the ledger is.
    pub state_dir: String,
    /// First file id ever reserved; 0 for none.
    pub reserved_from: u64,
    /// End of the last block of file ids reserved; 0 for none.
    pub reserved_end: u64,
    /// When this was written.
    pub written_at: Wall,
    /// Which patchdrop wrote it.
    pub version: String,
}

impl Mark {
    /// The ids that its ledger has given out.
    #[must_use]
    pub fn reserved(&self) -> Range<u64> {
        self.reserved_from..self.reserved_end
    }

    fn of(standing: &Standing, at: Wall) -> Self {
        Self {
            ledger: standing.ledger.to_string(),
            host: host(),
            state_dir: standing.state_dir.display().to_string(),
            reserved_from: standing.reserved.start,
            reserved_end: standing.reserved.end,
            written_at: at,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What one folder's mark says to this instance.
#[derive(Debug)]
pub enum MarkFinding {
    /// It is ours.
    Ours {
        /// The root.
        folder: Arc<Path>,
    },
    /// There was none; now there is ours.
    New {
        /// The root.
        folder: Arc<Path>,
    },
    /// It is of a ledger that this one stands in for: damaged, or gone from `state_dir`. Not a
    /// first start: files in `sending/` may have been sent. Now there is ours, and new ids start
    /// beyond those of the lost one.
    Lost {
        /// The root.
        folder: Arc<Path>,
        /// What it said.
        mark: Box<Mark>,
    },
    /// It knows of ids that our ledger does not: the ledger is an old copy. Nothing may be sent
    /// before a person has said so.
    Behind {
        /// The root.
        folder: Arc<Path>,
        /// What it says.
        mark: Box<Mark>,
    },
    /// Our mark was there once and is not now: perhaps a volume is not mounted. Nothing was
    /// written; `SqliteLedger::adopt` writes it again.
    Vanished {
        /// The root.
        folder: Arc<Path>,
    },
    /// The folder is not there or can't be read.
    Unreachable {
        /// The root.
        folder: Arc<Path>,
        /// What the system said.
        error: io::Error,
    },
}

impl MarkFinding {
    /// The folder, if it is to hold a new mark of ours.
    pub(super) fn to_mark(&self) -> Option<&Arc<Path>> {
        match self {
            Self::New { folder } | Self::Lost { folder, .. } => Some(folder),
            Self::Ours { .. }
            | Self::Behind { .. }
            | Self::Vanished { .. }
            | Self::Unreachable { .. } => None,
        }
    }
}

/// What a ledger knows of itself.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its id.
    pub ledger: LedgerId,
    /// The lost ledger that it stands in for.
    pub replaces: Option<LedgerId>,
    /// The ids that it has given out; an end of 0 for none.
    pub reserved: Range<u64>,
    /// Where it is.
    pub state_dir: PathBuf,
    /// The folders that it has marked so far.
    pub marked: Vec<PathBuf>,
}

impl Standing {
    /// Whether this mark is of a ledger that was lost and that this one stands in for. A ledger
    /// that has given out ids is no stand-in for one that it does not know of.
    fn stands_in_for(&self, mark: &Mark) -> bool {
        let known = self.replaces.is_some_and(|lost| lost.to_string() == mark.ledger);
        let same_place =
            mark.host == host() && mark.state_dir == self.state_dir.display().to_string();
        known || self.reserved.end == 0 && same_place
    }
}

/// The marks that are kept up to date.
#[derive(Debug, Default)]
pub struct Marks {
    folders: BTreeSet<Arc<Path>>,
}

impl Marks {
    /// Reads the marks of all folders and changes nothing.
    ///
    /// # Errors
    /// [`MarkError`]: another instance's mark, or one that can't be understood.
    pub fn look(folders: &[Arc<Path>], standing: &Standing) -> Result<Vec<MarkFinding>, MarkError> {
        folders.iter().map(|folder| find(Arc::clone(folder), standing)).collect()
    }

    /// All ids that lost ledgers had given out, and the id of the last one.
    pub(super) fn lost(findings: &[MarkFinding]) -> Option<(LedgerId, Range<u64>)> {
        let mut lost: Option<(LedgerId, Range<u64>)> = None;
        for finding in findings {
            let MarkFinding::Lost { mark, .. } = finding else { continue };
            let Some(id) = LedgerId::parse(&mark.ledger) else { continue };
            let ids = mark.reserved();
            lost = match lost {
                Some((_, more)) if ids.is_empty() => Some((id, more)),
                Some((_, more)) if !more.is_empty() => {
                    Some((id, ids.start.min(more.start)..ids.end.max(more.end)))
                }
                _ => Some((id, ids)),
            };
        }
        lost
    }

    /// Writes our mark where the findings say so, and keeps it up to date from now on.
    pub(super) fn take(
        &mut self,
        findings: &[MarkFinding],
        standing: &Standing,
        at: Wall,
    ) -> Result<(), MarkError> {
        for finding in findings {
            match finding {
                MarkFinding::New { folder } | MarkFinding::Lost { folder, .. } => {
                    write(folder, &Mark::of(standing, at))?;
                    self.folders.insert(Arc::clone(folder));
                }
                MarkFinding::Ours { folder } | MarkFinding::Behind { folder, .. } => {
                    self.folders.insert(Arc::clone(folder));
                }
                MarkFinding::Vanished { .. } | MarkFinding::Unreachable { .. } => {}
            }
        }
        Ok(())
    }

    /// Brings the marks that are still ours up to date. One that can't be written is skipped, for
    /// the others tell the same; if none can, that is an error. None is made where none is: the
    /// volume may have gone from under its mount point.
    pub(super) fn update(&self, standing: &Standing, at: Wall) -> Result<(), MarkError> {
        let mark = Mark::of(standing, at);
        let mut written = 0;
        let mut last = None;
        for folder in &self.folders {
            match read(folder) {
                Ok(Some(found)) if found.ledger == mark.ledger => match write(folder, &mark) {
                    Ok(()) => written += 1,
                    Err(error) => last = Some(error),
                },
                Ok(Some(found)) => {
                    last = Some(MarkError::Foreign {
                        folder: folder.to_path_buf(),
                        mark: Box::new(found),
                    });
                }
                Ok(None) => last = Some(failed("read", folder)(io::ErrorKind::NotFound.into())),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if written == 0 => Err(error),
            Some(error) => {
                tracing::warn!(%error, "could not bring a mark up to date");
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn find(folder: Arc<Path>, standing: &Standing) -> Result<MarkFinding, MarkError> {
    // An unmounted volume is often an error of the folder itself, not of what should be in it.
    if let Err(error) = std::fs::read_dir(&folder) {
        return Ok(MarkFinding::Unreachable { folder, error });
    }
    let Some(mark) = read(&folder)? else {
        let known = standing.marked.iter().any(|marked| **marked == *folder);
        return Ok(if known {
            MarkFinding::Vanished { folder }
        } else {
            MarkFinding::New { folder }
        });
    };
    if mark.ledger == standing.ledger.to_string() {
        let behind = mark.reserved_end > standing.reserved.end;
        return Ok(if behind {
            MarkFinding::Behind { folder, mark: Box::new(mark) }
        } else {
            MarkFinding::Ours { folder }
        });
    }
    let mark = Box::new(mark);
    if standing.stands_in_for(&mark) {
        Ok(MarkFinding::Lost { folder, mark })
    } else {
        Err(MarkError::Foreign { folder: folder.to_path_buf(), mark })
    }
}

fn mark_folder(folder: &Path) -> PathBuf {
    folder.join(".patchdrop")
}

fn mark_path(folder: &Path) -> PathBuf {
    mark_folder(folder).join("owner.json")
}

fn failed(doing: &'static str, folder: &Path) -> impl Fn(io::Error) -> MarkError {
    move |source| MarkError::Io { doing, path: mark_path(folder), source }
}

fn read(folder: &Path) -> Result<Option<Mark>, MarkError> {
    let path = mark_path(folder);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed("read", folder))?,
    };
    let mark =
        serde_json::from_slice(&text).map_err(|source| MarkError::Unreadable { path, source })?;
    Ok(Some(mark))
}

/// Temporary name, fsync, rename, fsync of the folders.
fn write(folder: &Path, mark: &Mark) -> Result<(), MarkError> {
    let fail = failed("write", folder);
    let text = serde_json::to_vec_pretty(mark)
        .map_err(|source| MarkError::Unreadable { path: mark_path(folder), source })?;
    write_text(folder, &text).map_err(fail)
}

fn write_text(folder: &Path, text: &[u8]) -> io::Result<()> {
    let own = mark_folder(folder);
    match std::fs::create_dir(&own) {
        Ok(()) => sync_folder(folder)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    if !std::fs::symlink_metadata(&own)?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, ".patchdrop is not a folder"));
    }
    let fresh = own.join("owner.json.new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(&fresh)?;
    file.write_all(text)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&fresh, mark_path(folder))?;
    sync_folder(&own)
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Folders can't be synced here.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes a folder with those above it, durably: a power cut right after a first start must not take
/// the ledger away with the folder that it lies in.
fn make_private_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|it| std::fs::symlink_metadata(it).is_err()).collect();
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    for made in missing.into_iter().rev() {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_folder(parent.unwrap_or_else(|| Path::new(".")))?;
    }
    Ok(())
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
}

#[cfg(not(unix))]
fn private(_options: &mut OpenOptions) {}

/// This machine's name.
#[cfg(unix)]
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// This machine's name.
#[cfg(not(unix))]
fn host() -> String {
    std::env::var_os("COMPUTERNAME")
        .map_or_else(|| "this machine".to_owned(), |name| name.to_string_lossy().into_owned())
}
