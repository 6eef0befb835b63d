//! Hints: something may have happened in a folder. They may be lost, late or double.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

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
