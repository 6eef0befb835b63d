//! What the administrator wrote, checked: every fault at once, each with its key and line.
//!
//! `raw` is the file as written, `check` turns it into what is meant. Nothing on disk is touched.

mod address;
mod changes;
mod check;
mod credential;
mod delivery;
mod destination;
mod discovery;
mod drives;
mod flow;
mod folders;
mod network;
mod page;
mod raw;
mod rules;
mod section;
mod span;
mod suggest;
mod territory;
mod vault;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::model::durability::Durability;
use crate::model::exchange::CredentialName;
use crate::model::network::Network;
use crate::model::route::{Credential, PaceRules, Route};
pub use crate::model::secret::Secret;
pub use discovery::NotARoute;

/// The reference of every key: the sample that is shipped, and what `patchdrop init` writes.
pub const EXAMPLE: &str = include_str!("../../examples/config.toml");

/// A config is a page that a person wrote; what is larger is something else.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// Where a patchdrop keeps its state if its config does not say: the system's place for that.
#[must_use]
pub fn default_state_dir() -> PathBuf {
    check::default_state_dir()
}

/// Reads and checks a config file.
///
/// # Errors
/// Every fault at once. Faults in one route's surroundings are no error: see [`Config::broken`].
pub fn load(path: &Path, options: &LoadOptions) -> Result<Config, ConfigFaults> {
    read(&bytes_of(path)?, path, options)
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, ConfigFaults> {
    vault::read(path, FILE_MAX).map_err(|error| {
        let hint = misnamed(path).map_or_else(
            || "patchdrop init DIR writes one; --config FILE names another".to_owned(),
            |other| {
                format!("{} is there: rename it; Explorer hides the ending .txt", other.display())
            },
        );
        let text = format!("cannot be read: {error}");
        let notice = Notice { key: String::new(), line: None, text, hint: Some(hint) };
        ConfigFaults { path: path.to_owned(), notices: vec![notice] }
    })
}

/// What a config file says about stored secrets. What else is wrong with it is no hindrance, as
/// long as it is TOML: secrets may be set before it is complete.
///
/// # Errors
/// It cannot be read, or is no TOML.
pub fn shelf(path: &Path, options: &LoadOptions) -> Result<Shelf, ConfigFaults> {
    let bytes = bytes_of(path)?;
    let faults = |notices| ConfigFaults { path: path.to_owned(), notices };
    let page = page::Page::decode(&bytes).map_err(|notice| faults(vec![notice]))?;
    let table = page.parse().map_err(faults)?;
    let raw = raw::Raw::read(&page, &page::Sink::default(), &table);
    let state_dir = check::state_dir(&base_of(path, options), &raw).value;
    Ok(Shelf { state_dir, used: section::stored_in(&table) })
}

/// The `state_dir` of a config that may have any fault, one of its syntax among them; `None` where
/// that is what is not understood.
///
/// # Errors
/// The file cannot be read.
pub fn state_dir_in(path: &Path, options: &LoadOptions) -> Result<Option<PathBuf>, ConfigFaults> {
    let Ok(page) = page::Page::decode(&bytes_of(path)?) else { return Ok(None) };
    let (table, is_whole) = page.parse_what_there_is();
    let raw = raw::Raw::read(&page, &page::Sink::default(), &table);
    // A line that is not understood may be the one that names it.
    let may_be_unread = raw.state_dir.is_none() && (!is_whole || table.contains_key("state_dir"));
    if may_be_unread && page.names("state_dir") {
        return Ok(None);
    }
    Ok(Some(check::state_dir(&base_of(path, options), &raw).value))
}

/// What relative paths are relative to.
fn base_of(path: &Path, options: &LoadOptions) -> PathBuf {
    let base = options.base.clone().or_else(|| path.parent().map(Path::to_owned));
    let base = std::path::absolute(base.unwrap_or_default()).or_else(|_| {
        // An empty path is the current folder.
        std::path::absolute(".")
    });
    folders::absolute(&base.unwrap_or_default(), Path::new(""))
}

/// The file that somebody meant to save under this name, where an editor has put `.txt` behind it.
fn misnamed(path: &Path) -> Option<PathBuf> {
    let mut name = path.file_name()?.to_owned();
    name.push(".txt");
    let other = path.with_file_name(name);
    let is_there = |path: &Path| std::fs::symlink_metadata(path).is_ok();
    (!is_there(path) && is_there(&other)).then_some(other)
}

/// Checks the bytes of a config file. `path` is where they are from: relative paths start there.
///
/// # Errors
/// As for [`load`].
pub fn read(bytes: &[u8], path: &Path, options: &LoadOptions) -> Result<Config, ConfigFaults> {
    let faults = |notices| ConfigFaults { path: path.to_owned(), notices };
    let page = page::Page::decode(bytes).map_err(|notice| faults(vec![notice]))?;
    let table = page.parse().map_err(faults)?;
    let base = base_of(path, options);
    let sink = page::Sink::default();
    let config = {
        let raw = raw::Raw::read(&page, &sink, &table);
        let state_dir = check::state_dir(&base, &raw);
        let vault = vault::Vault {
            sink: &sink,
            environment: &options.environment,
            base: &base,
            store: &options.store,
            state_dir: &state_dir.value,
            is_needed: !options.secrets_may_be_missing,
            found: std::cell::RefCell::default(),
            files: std::cell::RefCell::default(),
        };
        check::check(&sink, &vault, path, &raw, &state_dir)
    };
    let written = changes::written(&page, &table);
    let (notices, warnings) = sink.finish();
    match config {
        Some(config) if notices.is_empty() => Ok(Config { warnings, written, ..config }),
        _ => Err(faults(notices)),
    }
}

/// How a config is read.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// What relative paths are relative to; the config file's folder if `None`.
    pub base: Option<PathBuf>,
    /// Where `{ env = "NAME" }` is looked up.
    pub environment: Environment,
    /// Where `{ stored = "NAME" }` is looked up.
    pub store: Store,
    /// For commands that send nothing: a secret that is not to be had is empty, and no fault.
    pub secrets_may_be_missing: bool,
}

/// Where environment variables are looked up.
#[derive(Clone, Debug, Default)]
pub enum Environment {
    /// This process's.
    #[default]
    Process,
    /// These and no others.
    Given(BTreeMap<String, String>),
}

/// Where secrets that patchdrop keeps are looked up, by `state_dir` and name.
#[derive(Clone, Debug, Default)]
pub enum Store {
    /// Nowhere: there are none.
    #[default]
    None,
    /// These and no others.
    Given(BTreeMap<String, String>),
    /// In the real one.
    Opened(fn(&Path, &str) -> Result<Secret, NoSecret>),
}

/// Why a stored secret cannot be had. Neither text says anything of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSecret {
    /// What is wrong, one sentence without full stop.
    pub text: String,
    /// What to do.
    pub hint: String,
}

/// What a config says about secrets that patchdrop keeps, whatever else is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelf {
    /// Where they are kept.
    pub state_dir: PathBuf,
    /// The names that it uses, each with the keys that it uses them for.
    pub used: BTreeMap<String, BTreeSet<String>>,
}

/// Everything that is wrong with a config, by line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigFaults {
    /// The file.
    pub path: PathBuf,
    /// At least one.
    pub notices: Vec<Notice>,
}

impl fmt::Display for ConfigFaults {
    /// One fault a line, `FILE:LINE: KEY: TEXT`, each hint on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, notice) in self.notices.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&notice.at(&self.path))?;
        }
        Ok(())
    }
}

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
    /// Routes that cannot run because of something outside the config file (their schema): they
    /// alone stand still, and their folders are nobody else's. `check` reports each as a fault.
    pub broken: Vec<BrokenRoute>,
    /// Credentials by name.
    pub credentials: BTreeMap<CredentialName, Arc<Credential>>,
    /// How the network is reached.
    pub network: Network,
    /// What is called every minute while all is well.
    pub heartbeat_url: Option<Secret>,
    /// What the routes to one host share, by host (with port where it is not the default); a host
    /// that is not here has the defaults.
    pub destinations: BTreeMap<Arc<str>, PaceRules>,
    /// What the record and the folders outlive.
    pub durability: Durability,
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
    secrets: Secrets,
    written: changes::Written,
}

impl Config {
    /// What a newer config changes, in sentences that name keys and no values; never empty.
    pub fn changes(&self, newer: &Self) -> Vec<String> {
        changes::changes(self, newer)
    }

    /// Keys in which a newer config differs and that only a restart can change.
    pub fn needs_restart(&self, newer: &Self) -> Vec<&'static str> {
        changes::needs_restart(self, newer)
    }

    /// Every secret in it, for redaction: client secrets, signed URLs and their parts, headers.
    pub fn all_secrets(&self) -> Secrets {
        self.secrets.clone()
    }
}

/// A route that cannot run because of something outside the config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenRoute {
    /// Its name; `auto_routes` for all that would be discovered so.
    pub name: String,
    /// Its drop folder; may hold `{vanity}`.
    pub folder: Arc<Path>,
    /// What is wrong.
    pub notice: Notice,
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
    /// The size in bytes at which that file is set aside.
    pub roll_at_bytes: u64,
    /// How many that were set aside are kept.
    pub keep: usize,
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

impl Notice {
    /// The notice as it is shown: `FILE:LINE: KEY: TEXT`, the hint on a line of its own.
    pub fn at(&self, path: &Path) -> String {
        let hint = self.hint.as_ref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        format!("{}{hint}", self.in_one_line(path))
    }

    /// The same without its hint.
    pub fn in_one_line(&self, path: &Path) -> String {
        let place = match self.line {
            Some(line) => format!("{}:{line}", path.display()),
            None => path.display().to_string(),
        };
        let key = if self.key.is_empty() { String::new() } else { format!(" {}:", self.key) };
        format!("{place}:{key} {}", self.text)
    }
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
    template: Arc<discovery::Template>,
}

/// Everything secret in a config, for redaction.
pub type Secrets = Vec<Secret>;
