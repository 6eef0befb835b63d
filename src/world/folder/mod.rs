//! Folders and files: look, open, read, move without replacing, make durable.

mod group;
mod lane;
#[cfg(unix)]
mod lease;
mod real;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
mod volume;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

pub use real::RealDisk;
pub use system::Grip;
#[cfg(unix)]
pub use volume::volume_kind;
#[cfg(windows)]
pub use windows::volume_kind;
#[cfg(windows)]
pub(super) use windows::{long, number, room};

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::model::file::{Digest, FolderSeen, Identity, Place, Sighting};
use crate::model::room::Room;

/// Why a look, a read or a write did not work. The path is in every variant.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Nothing has that name (any more).
    #[error("{} is not there", .path.display())]
    Gone {
        /// Which path.
        path: PathBuf,
    },
    /// It is a link, a folder or a device: not opened.
    #[error("{} is not a regular file", .path.display())]
    NotAFile {
        /// Which path.
        path: PathBuf,
    },
    /// Another folder, or another volume, is where a folder of ours was.
    #[error("{} is another folder than before", .path.display())]
    Replaced {
        /// Which path.
        path: PathBuf,
    },
    /// A folder that must not be worked in as it is.
    #[error("{} {why}", .path.display())]
    Unfit {
        /// Which path.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// Another program has it open for writing.
    #[error("{} is still open in another program", .path.display())]
    InUse {
        /// Which path.
        path: PathBuf,
    },
    /// This account may not.
    #[error("no permission for {}", .path.display())]
    Denied {
        /// Which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The volume is full, or a quota is.
    #[error("no space left for {}", .path.display())]
    Full {
        /// Which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// The verb: open, look at, read, list, sync, write, move, remove, create.
        doing: &'static str,
        /// Which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl FolderError {
    /// What the system said, sorted.
    fn of(doing: &'static str, path: PathBuf, source: io::Error) -> Self {
        let kind = source.kind();
        if kind == io::ErrorKind::NotFound {
            Self::Gone { path }
        } else if kind == io::ErrorKind::PermissionDenied {
            Self::Denied { path, source }
        } else if kind == io::ErrorKind::StorageFull || kind == io::ErrorKind::QuotaExceeded {
            Self::Full { path, source }
        } else {
            Self::Io { doing, path, source }
        }
    }

    /// Whether it is this process, or the machine, that has too many files open.
    #[must_use]
    pub fn lacks_handles(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        source.raw_os_error().is_some_and(|number| TOO_MANY_OPEN.contains(&number))
    }
}

#[cfg(unix)]
const TOO_MANY_OPEN: [i32; 2] =
    [rustix::io::Errno::MFILE.raw_os_error(), rustix::io::Errno::NFILE.raw_os_error()];
/// `ERROR_TOO_MANY_OPEN_FILES`.
#[cfg(windows)]
const TOO_MANY_OPEN: [i32; 1] = [4];

/// Why a move did not happen. Whatever the variant: nothing was replaced.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The target name is taken.
    #[error("{} is taken", .target.display())]
    Taken {
        /// The target.
        target: PathBuf,
    },
    /// The source is not there.
    #[error("{} is not there", .source_path.display())]
    Gone {
        /// The source.
        source_path: PathBuf,
    },
    /// The file that was moved is not the one that was examined. It now lies at the target.
    #[error("{} was swapped for another file while it was claimed", .target.display())]
    Swapped {
        /// Where the other file lies now.
        target: PathBuf,
    },
    /// Anything else. The file is still at the source.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Where a folder's volume is. On a remote one events do not tell what other machines do, and
/// change times are those of another clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    /// On this machine.
    Local,
    /// On another machine, or behind a program (FUSE).
    Remote {
        /// `nfs`, `smb`, `fuse`, `9p`, `ceph`, `afs`, `lustre`, `gpfs`, `vboxsf`, `vmhgfs`.
        kind: &'static str,
    },
}

/// What the examination of a file yields.
pub struct Examined<Grip, T> {
    /// Keeps the file open, with a read lease where the system grants one, until it is claimed or
    /// dropped.
    pub grip: Grip,
    /// Its identity, taken from the open file.
    pub identity: Identity,
    /// When it last changed, taken from the open file.
    pub changed_at: crate::model::time::Wall,
    /// Whether the system has proved that nobody has it open for writing.
    pub lease_granted: bool,
    /// How many names it has, taken from the open file; 1 where the system tells none.
    pub links: u64,
    /// What `read` returned.
    pub findings: T,
}

/// Folders and files. Nothing here follows a link, and no move replaces anything.
///
/// A rename is durable only after `sync` of both folders.
pub trait Disk: Send + Sync + 'static {
    /// An open file that is being examined.
    type Grip: Send + 'static;

    /// Lists a folder in chunks of at most 256 sightings, in no order, until its end or until the
    /// receiver is gone. Names that vanish meanwhile are left out. An unreadable folder is an
    /// error, never an empty one.
    fn sweep(
        &self,
        folder: Arc<Path>,
        chunks: mpsc::Sender<Vec<Sighting>>,
    ) -> impl Future<Output = Result<(), FolderError>> + Send;

    /// The names of the folders (no links) in a folder.
    fn subfolders(
        &self,
        folder: Arc<Path>,
    ) -> impl Future<Output = Result<Vec<OsString>, FolderError>> + Send;

    /// Opens a regular file without following links, takes a read lease where it can, and runs
    /// `read` over it once, on a thread that may block.
    fn examine<T, F>(
        &self,
        place: Place,
        read: F,
    ) -> impl Future<Output = Result<Examined<Self::Grip, T>, FolderError>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Read, &Identity) -> T + Send + 'static;

    /// Moves an examined file, never replacing, and checks that what was moved is what was
    /// examined. Gives up the grip in any case.
    fn claim(
        &self,
        grip: Self::Grip,
        from: Place,
        to: Place,
    ) -> impl Future<Output = Result<(), MoveError>> + Send;

    /// Moves, never replacing. Where the target is on another volume: copy under a temporary name,
    /// fsync, rename, fsync the folder, then remove the source. Returns the identity of what was
    /// moved, as it was when it left.
    fn move_new(
        &self,
        from: Place,
        to: Place,
    ) -> impl Future<Output = Result<Identity, MoveError>> + Send;

    /// The end of a move to another volume that was cut off, or could not remove its source: what
    /// is at `to` is whole. Makes that durable, then removes `from`, if that is still the file of
    /// this identity.
    fn finish_move(
        &self,
        from: Place,
        identity: Identity,
        to: Place,
    ) -> impl Future<Output = Result<(), FolderError>> + Send;

    /// Whether a move between two folders has to copy. May say so of two folders that need no copy,
    /// and never blocks longer than a look.
    fn is_elsewhere(&self, from: Arc<Path>, to: Arc<Path>) -> impl Future<Output = bool> + Send;

    /// Makes all creates, renames and unlinks in a folder durable. Concurrent calls share one
    /// fsync. Does nothing where folders can't be fsynced (Windows), or where only a crash of this
    /// process has to be outlived ([`crate::model::durability::Durability`]).
    fn sync(&self, folder: Arc<Path>) -> impl Future<Output = Result<(), FolderError>> + Send;

    /// Makes everything durable that was done on a folder's volume before, also where `sync` does
    /// nothing. Does nothing where the system cannot do that for all of a volume (Windows).
    fn sync_volume(
        &self,
        folder: Arc<Path>,
    ) -> impl Future<Output = Result<(), FolderError>> + Send;

    /// One look at one name; `None` if nothing has it.
    fn look(
        &self,
        place: Place,
    ) -> impl Future<Output = Result<Option<Sighting>, FolderError>> + Send;

    /// Identity and SHA-256 of a regular file; `None` if nothing has the name.
    fn digest(
        &self,
        place: Place,
    ) -> impl Future<Output = Result<Option<(Identity, Digest)>, FolderError>> + Send;

    /// Opens a regular file for reading. Called on a thread that may block.
    ///
    /// # Errors
    /// [`FolderError`] as for every look.
    fn open(&self, place: &Place) -> Result<Box<dyn Read + Send>, FolderError>;

    /// Writes a small file of ours (sidecar, receipt): temporary name, fsync (where `sync` is not
    /// left out), rename over an older one of the same name. Not durable before `sync`.
    fn write(
        &self,
        place: Place,
        content: Vec<u8>,
    ) -> impl Future<Output = Result<(), FolderError>> + Send;

    /// Removes a file of ours (sidecar); one that is not there is no error.
    fn remove(&self, place: Place) -> impl Future<Output = Result<(), FolderError>> + Send;

    /// Makes a folder (and its parents below an existing one) if it is not there, owner-only where
    /// the system knows modes, and makes that durable.
    fn make_folder(
        &self,
        folder: Arc<Path>,
    ) -> impl Future<Output = Result<(), FolderError>> + Send;

    /// Removes what earlier processes left half-written in a folder under our temporary names; how
    /// many.
    fn clear_temporary(
        &self,
        folder: Arc<Path>,
    ) -> impl Future<Output = Result<u64, FolderError>> + Send;

    /// One look at each of these folders itself, links not followed; `None` where nothing has its
    /// name. In their order; the first that cannot be looked at is the error.
    fn inspect_all(
        &self,
        folders: Vec<Arc<Path>>,
    ) -> impl Future<Output = Result<Vec<Option<FolderSeen>>, FolderError>> + Send;

    /// As [`Self::inspect_all`], at one folder.
    fn inspect(
        &self,
        folder: Arc<Path>,
    ) -> impl Future<Output = Result<Option<FolderSeen>, FolderError>> + Send {
        async move { Ok(self.inspect_all(vec![folder]).await?.pop().flatten()) }
    }

    /// From now on this path must be this folder: every operation in another one is refused with
    /// [`FolderError::Replaced`], until it is pinned again, or made by `make_folder`.
    fn pin(&self, folder: &Arc<Path>, seen: FolderSeen);

    /// This path need not be any folder any more.
    fn unpin(&self, folder: &Path);

    /// What a folder must be.
    fn pinned(&self, folder: &Path) -> Option<FolderSeen>;

    /// The number of the account that this process works as, where the system has such numbers.
    fn account(&self) -> Option<u32>;

    /// Whether a folder is on a local volume: its events and its change times can be trusted.
    fn is_local(&self, folder: Arc<Path>) -> impl Future<Output = bool> + Send;

    /// How much room is left on the volumes of folders; those that cannot tell are left out.
    fn rooms(
        &self,
        _folders: Vec<Arc<Path>>,
    ) -> impl Future<Output = Vec<(Arc<Path>, Room)>> + Send {
        std::future::ready(Vec::new())
    }

    /// Whether `sync` really makes renames durable there; if not, a rename on record may be lost
    /// in a power cut even after a later commit.
    fn syncs_folders(&self) -> bool;
}
