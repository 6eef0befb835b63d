//! Where the commands meet the other parts: each function here is one call into config, ledger,
//! daemon, simulator or token cache, with its errors made into failures.
#![expect(clippy::disallowed_methods, reason = "reading commands list folders themselves")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use glob::{MatchOptions, Pattern};

use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::records::Records;
use super::screen::Screen;
use crate::config::{Config, Notice};
use crate::model::command::{Command, CommandAnswer};
use crate::model::file::{FileId, shown};
use crate::model::outcome::Fault;
use crate::model::route::{Route, Select};
use crate::model::status::Waiting;
use crate::model::step::{Entry, Envelope, History, RouteRecord};
use crate::model::time::Wall;
use crate::world::ledger::{Count, LedgerError, Query};

fn not_built(what: &str) -> Failure {
    Failure::machine(format!("{what} is not built yet"))
}

/// Whether a command needs the secrets that the config names. They are often in the service's
/// environment only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrets {
    /// It sends, or says whether sending would work.
    Needed,
    /// It sends nothing.
    MayBeMissing,
}

/// Loads and checks a config; relative paths are relative to `base`, else to the file's folder.
pub(super) fn load_config(
    path: &Path,
    _base: Option<&Path>,
    _secrets: Secrets,
) -> Result<Config, Failure> {
    if !path.try_exists().unwrap_or(true) {
        return Err(Failure::new(Kind::Config, format!("there is no config {}", path.display()))
            .hint("name one: patchdrop --config FILE, or PATCHDROP_CONFIG")
            .hint("patchdrop init DIR writes one to start from; patchdrop demo needs none"));
    }
    let notice = Notice {
        key: String::new(),
        line: None,
        text: "reading the config is not built yet".to_owned(),
        hint: None,
    };
    let text = format!("{} cannot be used", path.display());
    Err(Failure::new(Kind::Config, text).notices(vec![notice]))
}

/// The config that `init` writes.
pub(super) fn example_config() -> &'static str {
    "# patchdrop: every subfolder of root is a route; its name is the vanity URL\n\
     root    = '/srv/patchdrop'\n\
     company = 'acme'\n\n\
     [credential.inbound]\n\
     kind          = 'oauth2'\n\
     token_url     = 'https://…'\n\
     client_id     = '…'\n\
     client_secret = { env = 'PATCHDROP_CLIENT_SECRET' }\n"
}

/// Every route, those discovered among the folders of now included, by name.
pub(super) fn routes(config: &Config) -> Vec<Arc<Route>> {
    let mut routes = config.routes.clone();
    routes.sort_by(|one, other| one.name.cmp(&other.name));
    routes
}

/// Routes that cannot run because of something beside the config file, each with why.
pub(super) fn broken(_config: &Config) -> Vec<Notice> {
    Vec::new()
}

/// The ledger for reading, beside a running service or without one.
pub(super) fn open_ledger(_config: &Config) -> Result<impl Records + use<>, Failure> {
    Err::<NoLedger, _>(not_built("the ledger"))
}

/// How to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Until told to stop.
    Service,
    /// Until nothing is left to do.
    Once {
        /// How long a destination may stay away.
        patience: Duration,
    },
    /// Say what would happen.
    DryRun,
}

/// Runs the service, or one pass.
pub(super) async fn run(
    _config: Config,
    mode: Mode,
    _screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    std::future::ready(()).await;
    Err(match mode {
        Mode::Service => not_built("the service"),
        Mode::Once { patience } => not_built(&format!("a pass of {} s", patience.as_secs())),
        Mode::DryRun => not_built("a dry run"),
    })
}

/// Takes the lock and does what the service would do.
pub(super) async fn carry_out(
    _config: &Config,
    _command: Command,
) -> Result<CommandAnswer, Failure> {
    std::future::ready(()).await;
    Err(not_built("doing this without a running service").hint("start it: patchdrop run"))
}

/// Why a file in a drop folder is still there and when it is looked at next, in sentences.
pub(super) fn preview(config: &Config, path: &Path) -> Vec<String> {
    let name = path.file_name().unwrap_or_default();
    let routes = routes(config);
    let here = routes.iter().filter(|route| Some(&*route.folders.inbox) == path.parent());
    let sentences = here.map(|route| match reason(&route.folders, &route.select, name) {
        "waiting" => format!("it is one of route {}: sent once it is complete", route.name),
        reason => format!("it is none of route {}: {reason}", route.name),
    });
    sentences.collect()
}

/// Validates one file by a route's rules: what would be sent, or why not.
pub(super) fn validate(_route: &Route, _path: &Path) -> Result<Result<Envelope, Fault>, Failure> {
    Err(not_built("validating a file"))
}

/// What lies in a drop folder, by reason, as far as names and kinds tell.
pub(super) fn survey(route: &Route) -> io::Result<BTreeMap<String, Waiting>> {
    let mut reasons: BTreeMap<String, Waiting> = BTreeMap::new();
    for entry in fs::read_dir(&route.folders.inbox)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let folders = &route.folders;
        let path = entry.path();
        let ours = [&folders.sending, &folders.sent, &folders.failed, &folders.held];
        let reason = match kind {
            _ if ours.iter().any(|folder| folder.starts_with(&path)) => continue,
            kind if kind.is_file() => reason(folders, &route.select, &name),
            kind if kind.is_dir() => "folder",
            kind if kind.is_symlink() => "link",
            _ => "special",
        };
        let waiting = reasons.entry(reason.to_owned()).or_default();
        waiting.files += 1;
        if waiting.example.is_empty() {
            waiting.example = shown(&name);
        }
    }
    Ok(reasons)
}

fn reason(
    _folders: &crate::model::route::Folders,
    select: &Select,
    name: &std::ffi::OsStr,
) -> &'static str {
    if is_ours(name) {
        "ours"
    } else if any_matches(&select.temp_names, name) {
        "temporary"
    } else if is_selected(select, name) {
        "waiting"
    } else {
        "ignored"
    }
}

/// Whether a name is a sidecar's or a receipt's.
pub(super) fn is_ours(name: &std::ffi::OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.ends_with(b".why.txt") || name.ends_with(b".receipt.json")
}

/// Whether a name is one that a route wants.
pub(super) fn is_selected(select: &Select, name: &std::ffi::OsStr) -> bool {
    any_matches(&select.include, name)
        && !any_matches(&select.exclude, name)
        && !any_matches(&select.temp_names, name)
        && !is_ours(name)
}

fn any_matches(globs: &[String], name: &std::ffi::OsStr) -> bool {
    let options = MatchOptions { case_sensitive: false, ..MatchOptions::default() };
    globs.iter().any(|glob| {
        Pattern::new(glob).is_ok_and(|it| it.matches_with(&name.to_string_lossy(), options))
    })
}

/// What is kept about a credential's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeptToken {
    /// The credential.
    pub(super) credential: String,
    /// Where the token was asked for.
    pub(super) token_url: String,
    /// The token itself is nowhere in here; `None`: none is kept.
    pub(super) kept: Option<Kept>,
}

/// A token as it is kept in `state_dir`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// The folder where it is kept.
    pub(super) folder: PathBuf,
    /// How it was obtained, e.g. `GET, basic`.
    pub(super) obtained_by: String,
    /// When.
    pub(super) obtained_at: Wall,
    /// Its end.
    pub(super) expires_at: Wall,
}

/// What is kept about every credential, or about one.
pub(super) fn tokens(config: &Config) -> Result<Vec<KeptToken>, Failure> {
    if config.credentials.is_empty() {
        return Ok(Vec::new());
    }
    Err(not_built("the token cache"))
}

/// Asks for a new token now.
pub(super) async fn refresh_token(_config: &Config, _credential: &str) -> Result<(), Failure> {
    std::future::ready(()).await;
    Err(not_built("asking for a token"))
}

/// Removes the kept token of a credential; whether there was one.
pub(super) async fn forget_token(_config: &Config, _credential: &str) -> Result<bool, Failure> {
    std::future::ready(()).await;
    Err(not_built("the token cache"))
}

/// A running simulator.
pub(super) struct Simulated {
    /// What and where.
    pub(super) urls: Vec<(String, String)>,
    /// The client secret that it takes; a stand-in's, so no secret.
    pub(super) client_secret: String,
    /// A config that uses it.
    pub(super) example: String,
}

impl Simulated {
    /// Ends it.
    pub(super) async fn stop(self) {
        std::future::ready(()).await;
    }
}

/// Starts the simulator on loopback; port 0 is a free one.
pub(super) async fn start_simulator(port: u16) -> Result<Simulated, Failure> {
    std::future::ready(()).await;
    let none = Simulated { urls: Vec::new(), client_secret: String::new(), example: String::new() };
    match port {
        1..1_024 => Err(Failure::new(Kind::Usage, "ports below 1024 are the system's")),
        _ if none.urls.is_empty() => Err(not_built("the simulator")),
        _ => Ok(none),
    }
}

/// The demo.
pub(super) async fn demo(_stay: bool, _screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    std::future::ready(()).await;
    Err(not_built("the demo"))
}

/// Stands where the embedded ledger's reader will.
enum NoLedger {}

impl Records for NoLedger {
    fn entry(&self, _: FileId) -> Result<Option<Entry>, LedgerError> {
        match *self {}
    }

    fn history(&self, _: FileId) -> Result<Option<History>, LedgerError> {
        match *self {}
    }

    fn list(&self, _: &Query) -> Result<Vec<Entry>, LedgerError> {
        match *self {}
    }

    fn counts(&self) -> Result<Vec<Count>, LedgerError> {
        match *self {}
    }

    fn routes(&self) -> Result<Vec<RouteRecord>, LedgerError> {
        match *self {}
    }

    fn has_reserved(&self, _: FileId) -> Result<bool, LedgerError> {
        match *self {}
    }
}

/// A config that no file was read for, for the tests of this layer.
#[cfg(test)]
pub(super) fn made_up_config(root: &Path, state_dir: &Path, routes: Vec<Arc<Route>>) -> Config {
    use crate::config::{LogFormat, LogRules, WatchMode};

    Config {
        path: root.join("config.toml"),
        root: Some(Arc::from(root)),
        state_dir: Arc::from(state_dir),
        routes,
        discoveries: Vec::new(),
        credentials: BTreeMap::new(),
        watch: WatchMode::Auto,
        poll_every: Duration::from_secs(10),
        sweep_every: Duration::from_mins(1),
        drain_for: Duration::from_secs(90),
        log: LogRules { level: "info".to_owned(), format: LogFormat::Auto, file: None },
        marked: Vec::new(),
        warnings: Vec::new(),
    }
}
