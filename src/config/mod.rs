//! What the administrator wrote, checked: every fault at once, each with its key and line.
//!
//! [`raw`] is the file as written, [`check`] turns it into what is meant.

pub mod check;
pub mod raw;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::model::exchange::CredentialName;
use crate::model::route::{Credential, Route};
use crate::model::secret::Secret;

/// A whole configuration, immutable.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// The folder whose subfolders are routes.
    pub root: Option<Arc<Path>>,
    /// Ledger, token cache, lock, control socket.
    pub state_dir: Arc<Path>,
    /// Routes with a fixed folder.
    pub routes: Vec<Arc<Route>>,
    /// Where further routes are found as folders appear: `auto_routes`, `{vanity}` patterns.
    pub discoveries: Vec<Discovery>,
    /// Credentials by name.
    pub credentials: BTreeMap<CredentialName, Arc<Credential>>,
    /// How folders are watched.
    pub watch: WatchMode,
    /// How often a folder without events is listed.
    pub poll_every: Duration,
    /// How often every folder is listed, events or not.
    pub sweep_every: Duration,
    /// How long a stop waits for what is in flight.
    pub drain_for: Duration,
    /// Logging.
    pub log: LogRules,
    /// Further folders that each hold a mark of whose they are (absolute route folders).
    pub marked: Vec<Arc<Path>>,
    /// Things worth saying that stop nothing.
    pub warnings: Vec<Notice>,
}

/// How folders are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchMode {
    /// Events where they can be trusted, polling elsewhere.
    Auto,
    /// Events.
    Events,
    /// Polling.
    Poll,
}

/// Where and how patchdrop logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRules {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,patchdrop=debug`.
    pub level: String,
    /// `auto`, `text`, `json`.
    pub format: LogFormat,
    /// A file instead of standard error.
    pub file: Option<PathBuf>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else text without colours.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// A fault or a warning about the config: what, where, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The key, dotted, e.g. `route.orders.max_body`; empty for the file as a whole.
    pub key: String,
    /// Line in the file, from 1; `None` where there is none.
    pub line: Option<usize>,
    /// What is wrong, one sentence without full stop.
    pub text: String,
    /// What to do.
    pub hint: Option<String>,
}

/// A rule by which folders become routes.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// The route table's name; `None` for `auto_routes`.
    pub name: Option<String>,
    /// The folder whose subfolders are looked at.
    pub parent: Arc<Path>,
    /// What follows the vanity's part: `export` of `erp/{vanity}/export`; empty for `auto_routes`.
    pub suffix: PathBuf,
    /// Makes the route of one subfolder.
    pub(crate) template: Arc<check::Template>,
}

/// Everything secret in a config, for redaction.
pub type Secrets = Vec<Secret>;

/// Why a folder does not become a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotARoute {
    /// Why, one sentence without full stop.
    pub text: String,
    /// Whether an administrator should be told (once): not for patchdrop's own and system folders.
    pub is_news: bool,
}

impl Discovery {
    /// The route of one subfolder, or why it is none.
    pub fn route_of(&self, _folder_name: &str) -> Result<Arc<Route>, NotARoute> {
        Err(NotARoute { text: String::new(), is_news: false })
    }
}
