//! `patchdrop service`: this patchdrop as a service of the system.
#![expect(clippy::disallowed_methods, reason = "it asks the disk which folders share a volume")]

#[cfg(windows)]
pub(super) mod ours;

use std::io::Read;
use std::path::{Path, PathBuf};

use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::load::{self, Secrets};
use super::screen::Screen;
use super::{Globals, status, trees};
use crate::config::{self, Config};
use crate::service::{self, Installation, Instance, Password, Report, Runs, ServiceError};

/// Make this patchdrop a service of the system, start it, stop it, see how it stands
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each service has a config, a state_dir and a log of its own: the one called\n\
    shop7 reads shop7.toml beside the usual config.toml.\n\n\
    Examples:\n  \
    patchdrop service install           as systemd or Windows wants it; what is left to do is said\n  \
    patchdrop service start\n  \
    patchdrop service install --name shop7    a second one beside it"
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Have it start with the system; again after a change of folders in the config
    Install(InstallArguments),
    /// Stop it and take it out of the system; config, state and drop folders stay
    Uninstall(Named),
    /// Start it, and wait until it works
    Start(Named),
    /// Stop it, and wait until what is in flight has ended
    Stop(Named),
    /// How it stands with the system, and with its files
    Status(Named),
}

#[derive(Debug, clap::Args)]
struct Named {
    /// One of several on this machine
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,
}

#[derive(Debug, clap::Args)]
struct InstallArguments {
    #[command(flatten)]
    named: Named,
    /// The account that it runs as [default: one of its own]
    #[arg(long)]
    account: Option<String>,
    /// Read the account's password from standard input (Windows)
    #[arg(long, requires = "account")]
    stdin: bool,
    /// Show what would be written and done, and change nothing
    #[arg(long)]
    print: bool,
}

fn parse_name(text: &str) -> Result<String, String> {
    Instance::of(Some(text)).map(|_| text.to_owned()).map_err(|_| {
        "1 to 32 of a-z, A-Z, 0-9, - and _, and not config, which is the one without a name"
            .to_owned()
    })
}

impl Named {
    fn instance(&self) -> Result<Instance, Failure> {
        Ok(Instance::of(self.name.as_deref())?)
    }

    /// The config of this instance: the one that was asked for, or the one with its name.
    fn globals(&self, globals: &Globals) -> Globals {
        match (&globals.config, &self.name) {
            (None, Some(name)) => {
                let config = globals.config_path().with_file_name(format!("{name}.toml"));
                Globals { config: Some(config) }
            }
            _ => globals.clone(),
        }
    }
}

pub(super) async fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    match &arguments.action {
        Action::Install(arguments) => install(globals, arguments, screen),
        Action::Uninstall(named) => {
            let report = service::uninstall(&named.instance()?)?;
            tell(&report, screen)
        }
        Action::Start(named) => start(globals, named, screen),
        Action::Stop(named) => tell(&service::stop(&named.instance()?)?, screen),
        Action::Status(named) => show(globals, named, screen).await,
    }
}

fn install(
    globals: &Globals,
    arguments: &InstallArguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let instance = arguments.named.instance()?;
    let globals = arguments.named.globals(globals);
    let config = globals.load(Secrets::MayBeMissing)?;
    has_a_state_of_its_own(&instance, &config)?;
    let password = if arguments.stdin { Some(read_password()?) } else { None };
    let program = std::env::current_exe()
        .map_err(|error| Failure::because(Kind::Machine, "cannot find this program", error))?;
    let found = trees::of(&config, &load::routes(&config), &volume);
    let path = std::path::absolute(&config.path).unwrap_or_else(|_| config.path.clone());
    let installation = Installation {
        closes: closes(&config, &path),
        config: path,
        program,
        account: arguments.account.clone(),
        password,
        state_dir: config.state_dir.to_path_buf(),
        writes: found.trees,
        drain: config.drain_for,
        instance,
    };
    let shared = trees::shared_state(&config.state_dir, &installation.config);
    if arguments.print {
        screen.out.write_all(service::draft(&installation)?.as_bytes())?;
        for note in found.notes.iter().chain(&shared) {
            writeln!(screen.out, "({note})")?;
        }
        return Ok(Exit::Done);
    }
    let report = enter(&installation)?;
    tell(&report, screen)?;
    for note in found.notes.iter().chain(&shared) {
        writeln!(screen.out, "{note}")?;
    }
    let (flag, config_flag) = (installation.instance.flag(), globals.flag());
    writeln!(screen.out, "\nNext:")?;
    for step in &report.next {
        writeln!(screen.out, "  {}\n    {}", step.why, step.command)?;
    }
    writeln!(screen.out, "  is all in order?\n    patchdrop{config_flag} doctor")?;
    writeln!(screen.out, "  start it\n    patchdrop service start{flag}")?;
    Ok(Exit::Done)
}

#[cfg(windows)]
fn closes(config: &Config, path: &Path) -> Vec<PathBuf> {
    ours::closes(config, path)
}

/// Elsewhere what is ours is closed by its owner and mode.
#[cfg(not(windows))]
fn closes(_config: &Config, _path: &Path) -> Vec<PathBuf> {
    Vec::new()
}

fn enter(installation: &Installation) -> Result<Report, ServiceError> {
    #[cfg(windows)]
    {
        let mut report = service::install(installation)?;
        ours::see_to(installation, &mut report);
        Ok(report)
    }
    #[cfg(not(windows))]
    service::install(installation)
}

/// Two services on one state would take turns in being refused.
fn has_a_state_of_its_own(instance: &Instance, config: &Config) -> Result<(), Failure> {
    let usual = config::default_state_dir();
    let Some(name) = instance.name().filter(|_| *config.state_dir == *usual) else {
        return Ok(());
    };
    let stem = usual.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let own = usual.with_file_name(format!("{stem}-{name}"));
    let text = format!(
        "{} keeps its state in {}, where the service without a name has its own",
        config.path.display(),
        usual.display()
    );
    Err(Failure::new(Kind::Config, text)
        .hint(format!("write into it: state_dir = '{}'", own.display())))
}

/// The volume that a folder lies on, or will: that of the nearest one above it that is there.
#[cfg(unix)]
fn volume(folder: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    folder.ancestors().find_map(|there| std::fs::metadata(there).ok()).map(|found| found.dev())
}

/// On Windows a path begins with its volume.
#[cfg(not(unix))]
fn volume(_folder: &Path) -> Option<u64> {
    None
}

fn read_password() -> Result<Password, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .take(1_024)
        .read_to_string(&mut text)
        .map_err(|error| Failure::because(Kind::Machine, "cannot read the password", error))?;
    let text = text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Failure::usage("there is no password on standard input"));
    }
    Ok(Password::new(text.to_owned()))
}

/// The config is checked first: its faults are told better here than by the service's log.
fn start(globals: &Globals, named: &Named, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let config = named.globals(globals).load(Secrets::MayBeMissing)?;
    tracing::trace!(config = %config.path.display(), "checked before the start");
    tell(&service::start(&named.instance()?)?, screen)
}

async fn show(globals: &Globals, named: &Named, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let standing = service::status(&named.instance()?)?;
    let how = standing.runs.in_words();
    let start = match (standing.runs, standing.starts_with_system) {
        (Runs::NotInstalled, _) => "",
        (_, true) => ", starts with the system",
        (_, false) => ", does not start with the system",
    };
    writeln!(screen.out, "{}: {how}{start}", standing.service)?;
    for fact in &standing.facts {
        writeln!(screen.out, "  {fact}")?;
    }
    if standing.runs != Runs::Running && standing.runs != Runs::Paused {
        return Ok(Exit::Unavailable);
    }
    writeln!(screen.out)?;
    status::show(&named.globals(globals), screen).await
}

fn tell(report: &Report, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    for line in &report.done {
        writeln!(screen.out, "{line}")?;
    }
    Ok(Exit::Done)
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        let again = if cfg!(windows) {
            "open a terminal as administrator and type it again".to_owned()
        } else {
            let line: Vec<String> = std::env::args().skip(1).collect();
            format!("sudo patchdrop {}", line.join(" "))
        };
        match &error {
            ServiceError::Name { .. } => Self::usage(error),
            ServiceError::NoRights { .. } => Self::machine(error).hint(again),
            ServiceError::NotInstalled { .. } => {
                Self::machine(error).hint("install it: patchdrop service install")
            }
            ServiceError::Absent { .. } => Self::machine(error).hint(
                "without one it runs in the foreground, or under a supervisor of yours: \
                     patchdrop run starts it, Ctrl-C or SIGTERM stops it, patchdrop status says \
                     how it stands",
            ),
            ServiceError::Unfit { hint, .. } => {
                let hint = hint.clone();
                Self::new(Kind::Config, error).hint(hint)
            }
            ServiceError::Refused { hint, .. } => {
                let hint = hint.clone();
                Self::machine(error).hint(hint)
            }
            ServiceError::Io { .. } => Self::machine(error).hint("see whether the disk is full"),
        }
    }
}
