//! A disk that forgets what was not synced, tells how often it was asked for what, and can be made
//! to kill, hang, refuse and dawdle: a FUSE file system over a tree in memory.
//!
//! It runs in the test's own process. Its threads never touch the mount themselves.

mod fuse;
pub(crate) mod trap;
pub(crate) mod tree;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuser::{BackgroundSession, Errno, MountOption};
use tempfile::TempDir;

use fuse::Fuse;
use trap::Trap;
use tree::{Content, Kind, TOP, Tree};

/// What the disk refuses, and with which error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub(crate) with: Errno,
    /// Told what is asked for: `make NAME in FOLDER`, `rename NAME to NAME in FOLDER`, `unlink NAME
    /// in FOLDER`, `write ... of file NAME`, `fsync file NAME`, `fsync folder NAME`, each name the
    /// last part of a path, with the number before the last one.
    pub(crate) of: fn(&str) -> bool,
}

/// What the threads of the file system share with the test.
#[derive(Debug)]
pub(crate) struct Shared {
    tree: Mutex<Tree>,
    pub(crate) trap: Arc<Trap>,
    is_hung: Mutex<bool>,
    moves_again: Condvar,
    refuses: Mutex<Option<Refusal>>,
    /// How often it has refused something.
    pub(crate) refused: AtomicU64,
    /// Microseconds that each fsync takes, of files and folders.
    sync_micros: AtomicU64,
    /// Syncs of files and folders.
    pub(crate) syncs: AtomicU64,
    /// Whether fsync of folders below `root/` does nothing, as if patchdrop did not ask for it.
    is_deaf_to_folders: AtomicBool,
    /// Counts mounts: what comes late from an earlier one has no effect.
    mounts: AtomicU64,
}

/// A mounted disk.
pub(crate) struct Forgetful {
    pub(crate) shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    mount: TempDir,
}

impl Shared {
    pub(crate) fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every request waits while the disk hangs.
    fn wait(&self) {
        let mut is_hung = self.is_hung.lock().unwrap_or_else(PoisonError::into_inner);
        while *is_hung {
            is_hung = self.moves_again.wait(is_hung).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn refusal(&self, what: impl FnOnce() -> String) -> Result<(), Errno> {
        let refuses = self.refuses.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Refusal { with, of }) = *refuses else { return Ok(()) };
        if !of(&self.tree().named(&what())) {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(with)
    }
}

impl Forgetful {
    /// An empty disk, mounted.
    ///
    /// # Panics
    /// If this machine cannot mount: nothing is left out silently.
    pub(crate) fn new() -> Self {
        Self::counted_by(Arc::default())
    }

    /// Another disk in the same machine: what happens on it counts along.
    pub(crate) fn beside(&self) -> Self {
        Self::counted_by(Arc::clone(&self.shared.trap))
    }

    fn counted_by(trap: Arc<Trap>) -> Self {
        let shared = Arc::new(Shared {
            tree: Mutex::new(Tree::new()),
            trap,
            is_hung: Mutex::new(false),
            moves_again: Condvar::new(),
            refuses: Mutex::new(None),
            refused: AtomicU64::new(0),
            sync_micros: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            is_deaf_to_folders: AtomicBool::new(false),
            mounts: AtomicU64::new(0),
        });
        let mount = tempfile::tempdir().expect("a folder to mount at");
        let mut disk = Self { shared, session: None, mount };
        disk.mount();
        disk
    }

    fn mount(&mut self) {
        let mut config = fuser::Config::default();
        config.mount_options = vec![
            MountOption::FSName("forgetful".to_owned()),
            MountOption::Subtype("forgetful".to_owned()),
            MountOption::DefaultPermissions,
        ];
        config.n_threads = Some(2);
        let fuse = Fuse::new(Arc::clone(&self.shared));
        let session = fuser::spawn_mount(fuse, self.mount.path(), &config);
        self.session = Some(session.unwrap_or_else(|error| {
            panic!(
                "no FUSE file system could be mounted: {error}. These tests need /dev/fuse and the \
                 right to mount (root, or `unshare -Urm`)"
            )
        }));
    }

    /// Takes the mount away at once; who still has a file open there gets errors.
    fn unmount(&mut self) {
        let Some(session) = self.session.take() else { return };
        self.shared.mounts.fetch_add(1, Ordering::SeqCst);
        let ended = Command::new("umount").arg("--lazy").arg(self.mount.path()).status();
        assert!(ended.is_ok_and(|ended| ended.success()), "the disk was not unmounted");
        drop(session);
    }

    pub(crate) fn path(&self) -> &Path {
        self.mount.path()
    }

    /// The power goes and comes back: what was not synced is gone, except what `keeps` says.
    pub(crate) fn cut(&mut self, keeps: impl FnMut() -> bool) {
        self.unmount();
        self.shared.tree().cut(keeps);
        self.mount();
    }

    /// Unmounted and mounted again, nothing lost; `meanwhile` runs in between.
    pub(crate) fn remount(&mut self, meanwhile: impl FnOnce(&Path)) {
        self.unmount();
        meanwhile(self.mount.path());
        self.mount();
    }

    /// From now on every request waits.
    pub(crate) fn hang(&self) {
        *self.shared.is_hung.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    pub(crate) fn go_on(&self) {
        *self.shared.is_hung.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.shared.moves_again.notify_all();
    }

    /// From now on nothing can be made, written or renamed; `None`: it can again.
    pub(crate) fn refuse(&self, with: Option<Errno>) {
        self.refuse_only(with.map(|with| Refusal { with, of: |_| true }));
    }

    /// From now on some of that cannot be done.
    pub(crate) fn refuse_only(&self, refusal: Option<Refusal>) {
        *self.shared.refuses.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }

    /// How long each fsync takes.
    pub(crate) fn slow_syncs(&self, span: Duration) {
        self.shared.sync_micros.store(span.as_micros() as u64, Ordering::Relaxed);
    }

    pub(crate) fn deaf_to_folders(&self, is_deaf: bool) {
        self.shared.is_deaf_to_folders.store(is_deaf, Ordering::Relaxed);
    }

    /// Puts a whole file there behind the mount's back: no event tells of it. `folder` is a path
    /// below the top.
    pub(crate) fn put(&self, folder: &Path, name: &str, body: &[u8]) {
        let mut tree = self.shared.tree();
        let mut at = TOP;
        for part in folder.components() {
            at = tree.lookup(at, part.as_os_str()).expect("the folder is there");
        }
        let mut content = Content::default();
        content.write(0, body);
        let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let number = tree.make(at, OsStr::new(name), Kind::File(content), 0o644, owner);
        tree.sync_file(number.expect("a new name")).expect("a file");
        tree.sync_folder(at);
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        self.go_on();
        self.shared.trap.disarm();
        self.unmount();
    }
}
