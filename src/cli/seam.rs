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
use super::service;
use crate::config::{self, Config, LoadOptions, Notice};
use crate::daemon;
use crate::journey::validate::{Checked, Checker};
use crate::model::command::{Command, CommandAnswer};
use crate::model::exchange::{CredentialName, TokenRefusal};
use crate::model::file::{FileId, shown};
use crate::model::outcome::Fault;
use crate::model::route::{Credential, Route, Select};
use crate::model::status::Waiting;
use crate::model::step::{Entry, Envelope, History, RouteRecord};
use crate::model::time::Wall;
use crate::simulator::{Simulator, SimulatorOptions};
use crate::telemetry;
use crate::world::clock::SystemClock;
use crate::world::endpoint::{EndpointOptions, HttpEndpoint};
use crate::world::ledger::sqlite::{OpenError, SqliteLedger, SqliteReader};
use crate::world::ledger::{Count, LedgerError, Query};
use crate::world::token::{TokenDesk, Tokens};

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
    base: Option<&Path>,
    secrets: Secrets,
) -> Result<Config, Failure> {
    let options = LoadOptions {
        base: base.map(Path::to_owned),
        secrets_may_be_missing: secrets == Secrets::MayBeMissing,
        ..LoadOptions::default()
    };
    config::load(path, &options).map_err(|faults| {
        let text = format!("{} cannot be used", faults.path.display());
        Failure::new(Kind::Config, text)
            .notices(faults.notices)
            .hint("nothing was touched; examples/config.toml explains every key")
    })
}

/// The config that `init` writes.
pub(super) fn example_config() -> &'static str {
    config::EXAMPLE
}

/// Every route, those discovered among the folders of now included, by name.
pub(super) fn routes(config: &Config) -> Vec<Arc<Route>> {
    let mut routes = config.routes.clone();
    for discovery in &config.discoveries {
        // A parent that cannot be listed has no routes now; the service says so.
        let Ok(folders) = fs::read_dir(&discovery.parent) else { continue };
        let folders = folders.flatten().filter(|it| it.file_type().is_ok_and(|it| it.is_dir()));
        let names = folders.filter_map(|folder| folder.file_name().into_string().ok());
        let found = names.filter_map(|name| discovery.route_of(&name).ok());
        routes.extend(found.filter(|route| route.folders.inbox.is_dir()));
    }
    routes.sort_by(|one, other| one.name.cmp(&other.name));
    routes
}

/// Routes that cannot run because of something beside the config file, each with why.
pub(super) fn broken(config: &Config) -> Vec<Notice> {
    config.broken.iter().map(|route| route.notice.clone()).collect()
}

/// The ledger for reading, beside a running service or without one.
pub(super) fn open_ledger(config: &Config) -> Result<impl Records + use<>, Failure> {
    let error = match SqliteLedger::open_read_only(&config.state_dir) {
        Ok(reader) => return Ok(Reading(Some(reader))),
        Err(OpenError::Absent { path }) if !path.try_exists().unwrap_or(true) => {
            return Ok(Reading(None));
        }
        Err(error) => error,
    };
    let (kind, hint) = match &error {
        OpenError::Absent { .. } => {
            (Kind::Machine, "start the service once: it brings an older ledger up to date")
        }
        OpenError::Denied { .. } => (Kind::Machine, "run this as the service's account or as root"),
        OpenError::Newer { .. } => (
            Kind::Config,
            "install the newer patchdrop again; an older one never reads or writes here",
        ),
        OpenError::Damaged { .. } => (
            Kind::Machine,
            "start the service: it sets a damaged ledger aside, holds what was on its way, and \
             says so",
        ),
        OpenError::Unavailable { .. } | OpenError::SetAside { .. } => {
            (Kind::Machine, "see whether the disk with state_dir is there and not full")
        }
    };
    Err(Failure::new(kind, error).hint(hint))
}

/// An open ledger; none before the first start: then nothing is on record.
struct Reading(Option<SqliteReader>);

impl Records for Reading {
    fn entry(&self, id: FileId) -> Result<Option<Entry>, LedgerError> {
        self.0.as_ref().map_or(Ok(None), |reader| reader.entry(id))
    }

    fn history(&self, id: FileId) -> Result<Option<History>, LedgerError> {
        self.0.as_ref().map_or(Ok(None), |reader| reader.history(id))
    }

    fn list(&self, query: &Query) -> Result<Vec<Entry>, LedgerError> {
        self.0.as_ref().map_or(Ok(Vec::new()), |reader| reader.list(query))
    }

    fn counts(&self) -> Result<Vec<Count>, LedgerError> {
        self.0.as_ref().map_or(Ok(Vec::new()), SqliteReader::counts)
    }

    fn routes(&self) -> Result<Vec<RouteRecord>, LedgerError> {
        self.0.as_ref().map_or(Ok(Vec::new()), SqliteReader::routes)
    }

    fn has_reserved(&self, id: FileId) -> Result<bool, LedgerError> {
        // The reader does not tell what is reserved: a block of 10,000 beyond the newest on record.
        let newest = Records::list(self, &Query { limit: 1, ..Query::default() })?;
        Ok(newest.first().is_some_and(|newest| id.0 < newest.id.0.saturating_add(10_000)))
    }
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
    config: Config,
    mode: Mode,
    _screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let _telemetry = telemetry::start(&config.log, &config.all_secrets())
        .map_err(|error| Failure::new(Kind::Config, error))?;
    for notice in &config.warnings {
        service::warn(notice, &config.path);
    }
    let mode = match mode {
        Mode::Service => daemon::Mode::Service,
        Mode::Once { patience } => daemon::Mode::Once { patience },
        Mode::DryRun => return Err(not_built("a dry run")),
    };
    let end = service::serve(config, mode, service::stop_by_signal()).await?;
    Ok(match mode {
        daemon::Mode::Once { .. } if end.failed + end.held + end.missing > 0 => Exit::SomeFailed,
        daemon::Mode::Once { .. } if end.something_unavailable => Exit::Unavailable,
        _ => Exit::Done,
    })
}

/// Takes the lock and does what the service would do.
pub(super) async fn carry_out(config: &Config, command: Command) -> Result<CommandAnswer, Failure> {
    service::carry_out(config.clone(), command).await
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
pub(super) fn validate(route: &Route, path: &Path) -> Result<Result<Envelope, Fault>, Failure> {
    let unread = |error: io::Error| {
        Failure::because(Kind::Usage, format!("{} cannot be read", path.display()), error)
    };
    let checker = Checker::new(&route.check).map_err(|error| Failure::new(Kind::Config, error))?;
    let mut file = fs::File::open(path).map_err(unread)?;
    let bytes = file.metadata().map_err(unread)?.len();
    match checker.validate(&route.name, &mut file, bytes, 0).result {
        Checked::Sound { envelope, .. } => Ok(Ok(envelope)),
        Checked::Truncated(fault) | Checked::Faulty(fault) => Ok(Err(fault)),
        Checked::Unread(error) => Err(unread(error)),
    }
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

/// The tokens of every credential, as the service keeps them.
fn token_desk(config: &Config) -> Result<TokenDesk<SystemClock, HttpEndpoint>, Failure> {
    let user_agent = concat!("patchdrop/", env!("CARGO_PKG_VERSION")).to_owned();
    let endpoint = HttpEndpoint::new(EndpointOptions { user_agent, ..EndpointOptions::default() })
        .map_err(Failure::machine)?;
    let clock = Arc::new(SystemClock::new());
    Ok(TokenDesk::new(config.credentials.clone(), &config.state_dir, clock, endpoint))
}

/// What is kept about every credential, or about one.
pub(super) fn tokens(config: &Config) -> Result<Vec<KeptToken>, Failure> {
    let desk = token_desk(config)?;
    let token = |(name, credential): (&CredentialName, &Arc<Credential>)| KeptToken {
        credential: name.to_string(),
        token_url: credential.oauth2.token_url.clone(),
        kept: desk.peek(name).map(|glimpse| Kept {
            folder: config.state_dir.join("tokens"),
            obtained_by: glimpse.way.to_owned(),
            obtained_at: glimpse.fetched_at,
            expires_at: glimpse.expires_at,
        }),
    };
    Ok(config.credentials.iter().map(token).collect())
}

/// Asks for a new token now.
pub(super) async fn refresh_token(config: &Config, credential: &str) -> Result<(), Failure> {
    let desk = token_desk(config)?;
    let name = CredentialName::from(credential);
    let asked = match desk.peek(&name) {
        Some(glimpse) => desk.refresh(&name, glimpse.generation).await,
        None => desk.current(&name).await,
    };
    match asked {
        Ok(_) => Ok(()),
        Err(TokenRefusal { cause, remedy, .. }) => {
            let text = format!("credential {credential}: {} ({})", cause.plain, cause.code);
            Err(Failure::machine(text).hint(remedy))
        }
    }
}

/// Removes the kept token of a credential; whether there was one.
pub(super) async fn forget_token(config: &Config, credential: &str) -> Result<bool, Failure> {
    let desk = token_desk(config)?;
    let name = CredentialName::from(credential);
    let there_was = desk.peek(&name).is_some();
    desk.forget(&name).await.map_err(Failure::machine)?;
    Ok(there_was)
}

/// A running simulator.
pub(super) struct Simulated {
    /// What and where.
    pub(super) urls: Vec<(String, String)>,
    /// The client secret that it takes; a stand-in's, so no secret.
    pub(super) client_secret: String,
    /// A config that uses it.
    pub(super) example: String,
    simulator: Simulator,
}

impl Simulated {
    /// Ends it.
    pub(super) async fn stop(self) {
        self.simulator.stop();
        self.simulator.stopped().await;
    }
}

/// Starts the simulator on loopback; port 0 is a free one.
pub(super) async fn start_simulator(port: u16) -> Result<Simulated, Failure> {
    let options = SimulatorOptions { port, ..SimulatorOptions::default() };
    let (company, client_id) = (options.company.clone(), options.client_id.clone());
    let client_secret = options.client_secret.reveal().to_owned();
    let simulator = Simulator::start(options).await.map_err(|error| {
        Failure::machine(error).hint("give another port, or none for a free one")
    })?;
    let (base_url, token_url) = (simulator.base_url(), simulator.token_url());
    let example = format!(
        "root     = 'drop'\ncompany  = '{company}'\nbase_url = '{base_url}'\n\n\
         [credential.inbound]\nkind          = 'oauth2'\ntoken_url     = '{token_url}'\n\
         client_id     = '{client_id}'\n\
         client_secret = {{ env = 'PATCHDROP_CLIENT_SECRET' }}\n"
    );
    let urls = vec![
        ("inbound API".to_owned(), format!("{base_url}/{company}/VANITY")),
        ("token".to_owned(), token_url),
    ];
    Ok(Simulated { urls, client_secret, example, simulator })
}

/// A config for the tests of this layer, with these routes.
#[cfg(test)]
pub(super) fn made_up_config(root: &Path, state_dir: &Path, routes: Vec<Arc<Route>>) -> Config {
    let text = format!(
        "root = '{}'\nstate_dir = '{}'\ncompany = 'acme'\nauto_routes = false\n\
         [credential.inbound]\nkind = 'oauth2'\ntoken_url = 'https://auth.example/oauth/token'\n\
         client_id = 'id'\nclient_secret = {{ env = 'SECRET' }}\n",
        root.join("drop").display(),
        state_dir.display()
    );
    let options = LoadOptions { secrets_may_be_missing: true, ..LoadOptions::default() };
    let mut config = config::read(text.as_bytes(), &root.join("config.toml"), &options)
        .expect("a config without faults");
    config.routes = routes;
    config.credentials.clear();
    config.warnings.clear();
    config
}
