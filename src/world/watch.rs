//! Hints: something may have happened in a folder. They may be lost, late or double.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{
    ErrorKind, Event, EventKind, EventKindMask, RecommendedWatcher, RecursiveMode, WatchPathConfig,
    Watcher as _,
};
use tokio::sync::Notify;

/// One hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Something was created, written or removed in this folder.
    Touched {
        /// The folder as it was armed.
        folder: Arc<Path>,
    },
    /// A file was renamed into this folder under this name: evidence that it is complete.
    MovedIn {
        /// The folder as it was armed.
        folder: Arc<Path>,
        /// Its name there.
        name: OsString,
    },
    /// Events were lost, or the watch on this folder has ended (folder removed, volume unmounted).
    Lost {
        /// The folder; `None`: all of them.
        folder: Option<Arc<Path>>,
    },
}

/// Why a folder cannot be watched; it is polled instead.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The system's limit of watches is reached.
    #[error("the limit of file watches is reached")]
    Limit,
    /// Anything else.
    #[error("cannot watch {}", .folder.display())]
    Other {
        /// The folder.
        folder: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Arms watches. Hints arrive on the channel that it was made with.
pub trait Watch: Send + 'static {
    /// Watches a folder (not what is below it). Arming twice re-arms.
    ///
    /// # Errors
    /// The folder is then to be polled.
    fn arm(&mut self, folder: &Arc<Path>) -> Result<(), WatchError>;
    /// Stops watching a folder; no error if it was not watched.
    fn disarm(&mut self, folder: &Arc<Path>);
}

/// The most names of moved-in files that wait for the receiver, for each folder. Beyond it the
/// folder is only touched, and its files wait their quiet period like any other.
pub const NAMES_MAX: usize = 1_024;

/// Makes a mailbox for hints.
#[must_use]
pub fn mailbox() -> (HintSender, HintReceiver) {
    let mailbox = Arc::new(Mailbox { state: Mutex::new(Pending::default()), bell: Notify::new() });
    (HintSender { mailbox: Arc::clone(&mailbox) }, HintReceiver { mailbox })
}

/// Puts hints into the mailbox. Events come by the hundred thousand, so what waits is merged: at
/// most one [`Hint::Touched`], one [`Hint::Lost`] and [`NAMES_MAX`] names for each folder.
#[derive(Clone)]
pub struct HintSender {
    mailbox: Arc<Mailbox>,
}

impl HintSender {
    /// Leaves a hint and never waits.
    pub fn post(&self, hint: Hint) {
        let mut pending = self.mailbox.lock();
        match hint {
            Hint::Touched { folder } => pending.of(folder).is_touched = true,
            Hint::Lost { folder: Some(folder) } => pending.of(folder).is_lost = true,
            Hint::Lost { folder: None } => pending.is_lost = true,
            Hint::MovedIn { folder, name } => {
                let folder = pending.of(folder);
                if folder.names.len() < NAMES_MAX {
                    folder.names.insert(name);
                } else if !folder.names.contains(&name) {
                    folder.is_touched = true;
                }
            }
        }
        drop(pending);
        self.mailbox.bell.notify_one();
    }

    fn forget(&self, folder: &Path) {
        self.mailbox.lock().folders.remove(folder);
    }
}

/// Takes hints out of the mailbox.
pub struct HintReceiver {
    mailbox: Arc<Mailbox>,
}

impl HintReceiver {
    /// Everything that has come in since the last call, at least one hint: what is lost first, then
    /// folder by folder. Waits for ever where nothing is watched. Safe to drop while it waits: no
    /// hint goes missing.
    pub async fn next(&mut self) -> Vec<Hint> {
        loop {
            let hints = std::mem::take(&mut *self.mailbox.lock()).into_hints();
            if !hints.is_empty() {
                return hints;
            }
            self.mailbox.bell.notified().await;
        }
    }
}

struct Mailbox {
    state: Mutex<Pending>,
    bell: Notify,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Pending {
    is_lost: bool,
    folders: BTreeMap<Arc<Path>, PendingFolder>,
}

#[derive(Default)]
struct PendingFolder {
    is_lost: bool,
    is_touched: bool,
    names: BTreeSet<OsString>,
}

impl Pending {
    fn of(&mut self, folder: Arc<Path>) -> &mut PendingFolder {
        self.folders.entry(folder).or_default()
    }

    fn into_hints(self) -> Vec<Hint> {
        let mut hints = Vec::new();
        if self.is_lost {
            hints.push(Hint::Lost { folder: None });
        }
        for (folder, pending) in self.folders {
            if pending.is_lost {
                hints.push(Hint::Lost { folder: Some(Arc::clone(&folder)) });
            }
            if pending.is_touched {
                hints.push(Hint::Touched { folder: Arc::clone(&folder) });
            }
            let moved_in = |name| Hint::MovedIn { folder: Arc::clone(&folder), name };
            hints.extend(pending.names.into_iter().map(moved_in));
        }
        hints
    }
}

/// For polling: watches nothing, gives no hint, and never fails.
#[derive(Debug, Default)]
pub struct NoWatch;

impl Watch for NoWatch {
    fn arm(&mut self, _folder: &Arc<Path>) -> Result<(), WatchError> {
        Ok(())
    }

    fn disarm(&mut self, _folder: &Arc<Path>) {}
}

/// The system's own events (inotify on Linux).
///
/// A file that leaves a folder gives no hint: nearly all of them leave by our own claims, and each
/// would call for another sweep.
pub struct Watcher {
    hints: HintSender,
    armed: Arc<Mutex<BTreeSet<Arc<Path>>>>,
    events: Option<RecommendedWatcher>,
}

impl Watcher {
    /// Hints go to the mailbox of `hints`. Nothing is watched before the first folder is armed.
    #[must_use]
    pub fn new(hints: HintSender) -> Self {
        Self { hints, armed: Arc::new(Mutex::new(BTreeSet::new())), events: None }
    }

    /// The one connection to the system, made when it is first needed.
    fn events(&mut self) -> notify::Result<&mut RecommendedWatcher> {
        let events = if let Some(events) = self.events.take() { events } else { self.connect()? };
        Ok(self.events.insert(events))
    }

    /// Opened, modified, closed unwritten and new attributes are not asked for: they would come
    /// several times for each file. Removals must be, or the removal of the watched folder itself
    /// would not be told.
    fn connect(&self) -> notify::Result<RecommendedWatcher> {
        let kinds = EventKindMask::CREATE
            | EventKindMask::REMOVE
            | EventKindMask::MODIFY_NAME
            | EventKindMask::ACCESS_CLOSE;
        let config = notify::Config::default().with_event_kinds(kinds).with_follow_symlinks(false);
        let (hints, armed) = (self.hints.clone(), Arc::clone(&self.armed));
        let on_event = move |event: notify::Result<Event>| {
            let armed = armed.lock().unwrap_or_else(PoisonError::into_inner);
            translate(event, &armed, &hints);
        };
        RecommendedWatcher::new(on_event, config)
    }

    fn watch(&mut self, folder: &Path) -> notify::Result<()> {
        if !is_folder(folder)? {
            return Err(io::Error::from(io::ErrorKind::NotADirectory).into());
        }
        let config =
            WatchPathConfig::new(RecursiveMode::NonRecursive).with_dereference_symlinks(false);
        let events = self.events()?;
        // A watch dies with its folder, and one whose folder was renamed follows it; both look
        // alive from here, and watching again would change nothing.
        events.unwatch(folder).ok();
        events.watch_with(folder, config)
    }
}

impl Watch for Watcher {
    fn arm(&mut self, folder: &Arc<Path>) -> Result<(), WatchError> {
        self.armed().insert(Arc::clone(folder));
        self.watch(folder).map_err(|error| {
            self.disarm(folder);
            if is_limit(&error) {
                return WatchError::Limit;
            }
            WatchError::Other { folder: folder.to_path_buf(), source: Box::new(error) }
        })
    }

    fn disarm(&mut self, folder: &Arc<Path>) {
        self.armed().remove(folder);
        if let Some(events) = &mut self.events {
            events.unwatch(folder).ok();
        }
        self.hints.forget(folder);
    }
}

impl Watcher {
    fn armed(&self) -> MutexGuard<'_, BTreeSet<Arc<Path>>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a folder may take to answer before it is polled instead: whoever arms must not hang
/// with a volume that does.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Whether a folder is there, asked on a thread that may be left behind.
fn is_folder(folder: &Path) -> io::Result<bool> {
    let (answer, answered) = std::sync::mpsc::channel();
    let asked = folder.to_owned();
    std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
        // Nobody may be left to hear it.
        drop(answer.send(std::fs::symlink_metadata(asked).map(|found| found.is_dir())));
    })?;
    answered.recv_timeout(ANSWER_WITHIN).unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, "the volume does not answer"))
    })
}

/// What an event hints at; most hint at nothing.
fn translate(event: notify::Result<Event>, armed: &BTreeSet<Arc<Path>>, hints: &HintSender) {
    let event = match event {
        Ok(event) if event.need_rescan() => return hints.post(Hint::Lost { folder: None }),
        Ok(event) => event,
        Err(error) => {
            let folder = error.paths.first().and_then(|path| armed.get(path.as_path()));
            return hints.post(Hint::Lost { folder: folder.cloned() });
        }
    };
    let Some(path) = event.paths.first() else { return };
    let folder = path.parent().and_then(|parent| armed.get(parent)).cloned();
    match event.kind {
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
            if let Some(folder) = armed.get(path.as_path()) {
                hints.post(Hint::Lost { folder: Some(Arc::clone(folder)) });
            }
        }
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
            if let (Some(folder), Some(name)) = (folder, path.file_name()) {
                hints.post(Hint::MovedIn { folder, name: name.to_owned() });
            }
        }
        EventKind::Any
        | EventKind::Other
        | EventKind::Create(_)
        | EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(
            ModifyKind::Any
            | ModifyKind::Data(_)
            | ModifyKind::Other
            | ModifyKind::Name(RenameMode::Any | RenameMode::Other),
        ) => {
            if let Some(folder) = folder {
                hints.post(Hint::Touched { folder });
            }
        }
        // Both names of one rename come again after each came alone.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both) | ModifyKind::Metadata(_))
        | EventKind::Access(
            AccessKind::Any
            | AccessKind::Read
            | AccessKind::Open(_)
            | AccessKind::Close(_)
            | AccessKind::Other,
        ) => {}
    }
}

/// Whether the system refuses for want of watches, or of whole inotify instances.
fn is_limit(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::MaxFilesWatch => true,
        ErrorKind::Io(error) => is_out_of_instances(error),
        ErrorKind::Generic(_)
        | ErrorKind::PathNotFound
        | ErrorKind::WatchNotFound
        | ErrorKind::InvalidConfig(_) => false,
    }
}

#[cfg(unix)]
fn is_out_of_instances(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMFILE)
}

#[cfg(not(unix))]
fn is_out_of_instances(_error: &io::Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_overflow_and_a_dead_connection_name_no_folder_and_mean_all_of_them() {
        let rescan = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        let dead = notify::Error::io(io::Error::from(io::ErrorKind::BrokenPipe));
        for event in [Ok(rescan), Err(dead)] {
            let (sender, mut receiver) = mailbox();
            translate(event, &BTreeSet::from([Arc::from(Path::new("/in"))]), &sender);
            assert_eq!(receiver.next().await, [Hint::Lost { folder: None }]);
        }
    }
}
