//! Whose state folder and whose roots these are: an OS lock on `state_dir`, and a mark in each
//! root. Keeps promise P3 from two services that send the same files, and tells a lost ledger from
//! a first start.
//!
//! Nothing here stays open inside a root: an open file there would keep it from being unmounted.
#![expect(clippy::disallowed_methods, reason = "our own small files, never a file to be sent")]

mod mark;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[cfg(windows)]
pub(super) use self::mark::host;
#[cfg(not(windows))]
use self::mark::host;
pub use self::mark::{Here, Mark};
pub(super) use self::mark::{Number, number};
use self::mark::{Reading, read, sync_folder, write};
use super::control;
use super::ledger::{LedgerError, LedgerId};
use super::own_files;
use super::rights;
use crate::model::file::shown;
use crate::model::time::Wall;

/// A mark that cannot be read or written in this time is on a mount that hangs.
const MARK_WAIT: Duration = Duration::from_secs(10);

/// Who holds a lock is told in one short line.
const OWNER_BYTES_MAX: u64 = 4 << 10;

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
    /// Locks `state_dir`, which is made (closed to others) if it is not there. `since` is for the
    /// owner's text alone.
    ///
    /// # Errors
    /// [`LockError::Held`] if another process has it.
    pub fn take(state_dir: &Path, since: Wall) -> Result<Self, LockError> {
        let path = state_dir.join("lock");
        let fail = |source| LockError::Io { path: path.clone(), source };
        make_private_folder(state_dir).map_err(fail)?;
        let file = open_or_make(&path).map_err(fail)?;
        // The text lies beside the lock: on Windows nobody can read a locked file.
        let text = state_dir.join("lock.owner");
        let is_ours = match file.try_lock() {
            // Whoever removes the file leaves the lock on it to a service that still runs.
            Ok(()) => !control::is_answered(state_dir),
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        };
        if !is_ours {
            return Err(LockError::Held {
                state_dir: state_dir.to_owned(),
                owner: owner_in(&text),
            });
        }
        let owner = format!("pid {} on {} since {since}\n", std::process::id(), host());
        if let Err(error) = own_files::write(&text, &owner) {
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
    #[error("{} belongs to another patchdrop: {mark}", .folder.display())]
    Foreign {
        /// The root.
        folder: PathBuf,
        /// Its mark.
        mark: Box<Mark>,
    },
    /// The mark names our ledger, at another place: one of the two is a copy, and both would send.
    #[error("{} is in use by another copy of this patchdrop: {mark}", .folder.display())]
    Elsewhere {
        /// The root.
        folder: PathBuf,
        /// Its mark.
        mark: Box<Mark>,
    },
    /// Our mark is gone, and the folder is not known to be the one that held it.
    #[error(
        "the mark of patchdrop in {} is gone: see whether its volume is mounted; if this folder \
         was made anew, `patchdrop adopt` marks it again",
        .folder.display()
    )]
    Vanished {
        /// The root.
        folder: PathBuf,
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
    /// Something else has its name.
    #[error("{} is {is} and no mark of patchdrop", .path.display())]
    NoMark {
        /// What should be the mark.
        path: PathBuf,
        /// What it is.
        is: &'static str,
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

impl MarkError {
    /// Whether somebody else works in the root: then nothing in it is ours to send.
    #[must_use]
    pub fn is_somebody_elses(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Elsewhere { .. })
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
    /// Ours was gone or says nothing (a power cut, somebody tidied up), and the folder is the one
    /// that held it. It is written again.
    Restored {
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
    /// It knows of ids or of starts that our ledger does not: the ledger is an old copy. Nothing
    /// may be sent before a person has said so; that is on record with this finding.
    Behind {
        /// The root.
        folder: Arc<Path>,
        /// What it says.
        mark: Box<Mark>,
    },
    /// Our mark was there once and is not now, and the folder is not known to be the same: perhaps
    /// a volume is not mounted. Nothing was written; `SqliteLedger::adopt` writes it again.
    Vanished {
        /// The root.
        folder: Arc<Path>,
    },
    /// The folder is not there, can't be read, or does not answer.
    Unreachable {
        /// The root.
        folder: Arc<Path>,
        /// What the system said.
        error: io::Error,
    },
}

impl MarkFinding {
    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Arc<Path> {
        match self {
            Self::Ours { folder }
            | Self::New { folder }
            | Self::Restored { folder }
            | Self::Lost { folder, .. }
            | Self::Behind { folder, .. }
            | Self::Vanished { folder }
            | Self::Unreachable { folder, .. } => folder,
        }
    }

    /// Whether the folder is to hold our mark from now on.
    pub(super) fn is_to_be_marked(&self) -> bool {
        !matches!(self, Self::Vanished { .. } | Self::Unreachable { .. })
    }

    /// Whether a mark that cannot be written there is an error: the folder has none of ours yet.
    pub(super) fn must_be_marked(&self) -> bool {
        matches!(self, Self::New { .. } | Self::Lost { .. } | Self::Restored { .. })
    }
}

/// What a root's mark says to whoever only reads this ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This ledger wrote it.
    Ours,
    /// There is none, and this ledger has never marked the folder.
    Nobodys,
    /// There is none, and this ledger has marked the folder.
    Unmarked,
    /// An earlier ledger, lost or taken over, that this one stands in for.
    Lost,
    /// This ledger at a later time: what is open is an older copy.
    Later,
    /// This ledger at another place, on another machine or in another `state_dir`: one of the two
    /// is a copy, and a start is refused.
    Elsewhere,
    /// Another ledger, or there is no ledger here: what was sent from below the folder is on
    /// another record.
    Anothers,
}

/// The mark of a folder, as it is; `None`: there is none that can be read.
///
/// # Errors
/// [`MarkError`] if it cannot be read, or is not what patchdrop writes.
pub fn mark_in(folder: &Path) -> Result<Option<Mark>, MarkError> {
    Ok(match read(folder)? {
        Reading::Mark(mark) => Some(mark),
        Reading::Nothing | Reading::Torn(_) => None,
    })
}

/// What a ledger knows of itself.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its id.
    pub ledger: LedgerId,
    /// The lost ledgers that it stands in for.
    pub lost: Vec<LedgerId>,
    /// The ids that it has given out; an end of 0 for none.
    pub reserved: Range<u64>,
    /// Grows with every start, every end, and every minute of work.
    pub epoch: u64,
    /// Where it is.
    pub state_dir: PathBuf,
    /// Whose machine and state folder these are.
    pub here: Here,
    /// The folders that it has marked so far, with their numbers at that time.
    pub marked: BTreeMap<PathBuf, Option<Number>>,
}

impl Standing {
    /// Whether this mark is of a ledger that was lost and that this one stands in for. A ledger
    /// that has given out ids is no stand-in for one that it does not know of.
    fn stands_in_for(&self, mark: &Mark) -> bool {
        let known = self.lost.iter().any(|lost| lost.to_string() == mark.ledger);
        let same_path = mark.state_dir == self.state_dir.display().to_string();
        known || self.reserved.end == 0 && same_path && self.here.is_certainly_that_of(mark)
    }

    /// Whether a mark that names our ledger was written by it, and not by a copy.
    fn wrote(&self, mark: &Mark) -> bool {
        is_from(&self.here, mark, &self.state_dir)
    }
}

fn is_from(here: &Here, mark: &Mark, state_dir: &Path) -> bool {
    here.may_be_that_of(mark) && !mark::has_another_ledger(mark, state_dir)
}

/// Whether a mark that names a ledger was written by the one in `state_dir`, and not by a copy.
pub(super) fn was_written_here(mark: &Mark, state_dir: &Path) -> bool {
    is_from(&Here::of(state_dir), mark, state_dir)
}

/// What marks tell the ledger, to be put on record before any of them is written.
#[derive(Debug, Default)]
pub(super) struct Tidings {
    /// The ids that lost ledgers had given out.
    pub(super) lost: Vec<(LedgerId, Range<u64>)>,
    /// Epoch and ids of the newest copy of our ledger, where ours is older.
    pub(super) behind: Option<(u64, Range<u64>)>,
}

impl Tidings {
    /// Those of all findings.
    pub(super) fn of<'a>(findings: impl IntoIterator<Item = &'a MarkFinding>) -> Self {
        let mut tidings = Self::default();
        for finding in findings {
            match finding {
                MarkFinding::Lost { mark, .. } => tidings.lose(mark),
                MarkFinding::Behind { mark, .. } => tidings.fall_behind(mark),
                MarkFinding::Ours { .. }
                | MarkFinding::New { .. }
                | MarkFinding::Restored { .. }
                | MarkFinding::Vanished { .. }
                | MarkFinding::Unreachable { .. } => {}
            }
        }
        tidings
    }

    /// The ledger of this mark is lost.
    pub(super) fn lose(&mut self, mark: &Mark) {
        let Some(id) = LedgerId::parse(&mark.ledger) else { return };
        let ids = mark.reserved();
        match self.lost.iter_mut().find(|(known, _)| *known == id) {
            Some((_, known)) if known.is_empty() => *known = ids,
            Some(_) if ids.is_empty() => {}
            Some((_, known)) => *known = ids.start.min(known.start)..ids.end.max(known.end),
            None => self.lost.push((id, ids)),
        }
    }

    /// Our own ledger is older than this mark.
    pub(super) fn fall_behind(&mut self, mark: &Mark) {
        let (epoch, ids) = self.behind.take().unwrap_or((0, mark.reserved()));
        let ids = ids.start.min(mark.reserved_from)..ids.end.max(mark.reserved_end);
        self.behind = Some((epoch.max(mark.epoch), ids));
    }
}

/// A folder whose mark is kept, or waited for.
#[derive(Debug, Default)]
struct Kept {
    /// The folder's number when its mark was last read or written.
    number: Option<Number>,
    /// A thread is at it. One that hangs in a dead mount must not be joined by others.
    busy: Arc<AtomicBool>,
    /// Its mark has been seen to be ours; else nothing below it is sent.
    is_ours: bool,
}

/// The marks that are kept up to date.
#[derive(Debug, Default)]
pub struct Marks {
    folders: BTreeMap<Arc<Path>, Kept>,
}

impl Marks {
    /// The folder at or above this one whose mark has not been seen to be ours; with `any`, also
    /// one whose mark has.
    pub(super) fn above(&self, folder: &Path, any: bool) -> Option<Arc<Path>> {
        let pending = self.folders.iter().filter(|(_, kept)| any || !kept.is_ours);
        let above = pending.map(|(root, _)| root).filter(|root| folder.starts_with(root));
        above.max_by_key(|root| root.as_os_str().len()).cloned()
    }

    /// The mark of this folder has gone: nothing below it is ours until it has been seen again.
    pub(super) fn doubt(&mut self, folder: &Path) {
        if let Some(kept) = self.folders.get_mut(folder) {
            kept.is_ours = false;
        }
    }

    /// Remembers what was found about a folder, and its number.
    pub(super) fn remember(&mut self, finding: &MarkFinding, number: Option<Number>) {
        let kept = self.folders.entry(Arc::clone(finding.folder())).or_default();
        kept.is_ours = finding.is_to_be_marked();
        kept.number = number;
    }

    /// The folders that hold our mark.
    pub(super) fn ours(&self) -> Vec<Arc<Path>> {
        let ours = self.folders.iter().filter(|(_, kept)| kept.is_ours);
        ours.map(|(folder, _)| Arc::clone(folder)).collect()
    }

    /// Begins some work on a folder's mark, unless an earlier one hangs there.
    pub(super) fn begin(&mut self, folder: &Arc<Path>) -> io::Result<Turn> {
        let kept = self.folders.entry(Arc::clone(folder)).or_default();
        if kept.busy.swap(true, Ordering::AcqRel) {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "an earlier look has not come back",
            ));
        }
        Ok(Turn { busy: Arc::clone(&kept.busy), number: kept.number })
    }
}

/// The one thread that is at a folder's mark.
#[derive(Debug)]
pub(super) struct Turn {
    busy: Arc<AtomicBool>,
    /// What number the folder had.
    pub(super) number: Option<Number>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.busy.store(false, Ordering::Release);
    }
}

/// Runs what may hang on a thread of its own, and waits for it no longer than [`MARK_WAIT`].
pub(super) async fn patiently<T: Send + 'static>(
    turn: Turn,
    work: impl FnOnce(&Turn) -> T + Send + 'static,
) -> io::Result<T> {
    let task = tokio::task::spawn_blocking(move || work(&turn));
    match tokio::time::timeout(MARK_WAIT, task).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down and has dropped the work: nobody waits any more.
            Err(_) => std::future::pending().await,
        },
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer for {} s: the mount hangs", MARK_WAIT.as_secs()),
        )),
    }
}

/// Reads one folder's mark and changes nothing.
pub(super) fn find(folder: Arc<Path>, standing: &Standing) -> Result<MarkFinding, MarkError> {
    // An unmounted volume is often an error of the folder itself, not of what should be in it.
    if let Err(error) = std::fs::read_dir(&folder) {
        return Ok(MarkFinding::Unreachable { folder, error });
    }
    let known = standing.marked.get(&*folder);
    let mark = match (read(&folder)?, known) {
        (Reading::Mark(mark), _) => mark,
        (Reading::Nothing, None) => return Ok(MarkFinding::New { folder }),
        // Without its file only the folder itself can say that it is the one that was marked.
        (Reading::Nothing, Some(marked)) => {
            let is_same = marked.is_some() && *marked == number(&folder);
            // Before any id was given out nothing of ours can lie there: a power cut during the
            // first start must not need a person.
            return Ok(if is_same || standing.reserved.end == 0 {
                MarkFinding::Restored { folder }
            } else {
                MarkFinding::Vanished { folder }
            });
        }
        // A file of that name there is proof enough that it is no bare mount point.
        (Reading::Torn(_), Some(_)) => return Ok(MarkFinding::Restored { folder }),
        (Reading::Torn(source), None) => {
            return Err(MarkError::Unreadable { path: mark::path(&folder), source });
        }
    };
    let mark = Box::new(mark);
    if mark.ledger != standing.ledger.to_string() {
        return if standing.stands_in_for(&mark) {
            Ok(MarkFinding::Lost { folder, mark })
        } else {
            Err(MarkError::Foreign { folder: folder.to_path_buf(), mark })
        };
    }
    if !standing.wrote(&mark) {
        return Err(MarkError::Elsewhere { folder: folder.to_path_buf(), mark });
    }
    let is_behind = mark.reserved_end > standing.reserved.end || mark.epoch > standing.epoch;
    Ok(if is_behind { MarkFinding::Behind { folder, mark } } else { MarkFinding::Ours { folder } })
}

/// Writes our mark, whatever is there.
pub(super) fn put(folder: &Path, standing: &Standing, at: Wall) -> Result<(), MarkError> {
    write(folder, &Mark::of(standing, at))
}

/// Reads our mark again and brings it up to date; with `only_look` it is not written. None is made
/// where none is, unless the folder is still the one that held it: the volume may have gone from
/// under its mount point.
pub(super) fn renew(
    folder: &Path,
    standing: &Standing,
    marked: Option<Number>,
    at: Wall,
    only_look: bool,
) -> Result<(), MarkError> {
    let is_current = match read(folder)? {
        Reading::Mark(found) if found.ledger != standing.ledger.to_string() => {
            return Err(MarkError::Foreign { folder: folder.into(), mark: Box::new(found) });
        }
        Reading::Mark(found) if !standing.here.may_be_that_of(&found) => {
            return Err(MarkError::Elsewhere { folder: folder.into(), mark: Box::new(found) });
        }
        Reading::Mark(_) => true,
        Reading::Nothing | Reading::Torn(_) => {
            if marked.is_none() || marked != number(folder) {
                return Err(MarkError::Vanished { folder: folder.into() });
            }
            tracing::warn!(folder = %folder.display(), "a mark was gone or said nothing; it was written again");
            false
        }
    };
    if is_current && only_look { Ok(()) } else { put(folder, standing, at) }
}

/// Makes a folder with those above it, durably: a power cut right after a first start must not take
/// the ledger away with the folder that it lies in.
fn make_private_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|it| std::fs::symlink_metadata(it).is_err()).collect();
    rights::make_folder(folder)?;
    for made in missing.into_iter().rev() {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_folder(parent.unwrap_or_else(|| Path::new(".")))?;
    }
    Ok(())
}

/// Who holds the lock, as the text beside it says. It may say anything.
fn owner_in(text: &Path) -> String {
    let owner = own_files::read(text, OWNER_BYTES_MAX).unwrap_or_default();
    let owner = String::from_utf8_lossy(&owner);
    owner.lines().next().map_or_else(|| "unknown".to_owned(), |line| shown(OsStr::new(line)))
}

/// Opens a file of ours, made where it is not there.
fn open_or_make(path: &Path) -> io::Result<File> {
    let mut how = OpenOptions::new();
    how.read(true).write(true);
    match own_files::create(path, own_files::PRIVATE, &mut how.clone()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            own_files::open(path, &mut how)
        }
        other => other,
    }
}
