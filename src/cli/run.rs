//! `patchdrop run`: the service, or one pass.

use std::time::Duration;

use super::Globals;
use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::load::Secrets;
use super::reload::Reader;
use super::screen::Screen;
use super::when::parse_span;
use super::wishes::Wishes;
use super::{dry_run, serve};
use crate::config::Config;
use crate::daemon::{End, Mode};
use crate::telemetry;
use crate::world::rights;

/// Where a service without standard error logs unless its config says otherwise, below `state_dir`.
const LOG_FOLDER: &str = "log";
const LOG_FILE: &str = "patchdrop.log";

const ONCE_FOR: Duration = Duration::from_mins(10);

/// Watch the drop folders and send what lands there
#[derive(Debug, clap::Args)]
#[command(after_help = "It runs until it is told to stop: Ctrl-C, SIGTERM.\n\n\
    Examples:\n  \
    patchdrop run\n  \
    patchdrop run --once --for 10m   from a scheduler: see the exit code\n  \
    patchdrop run --dry-run          what would happen to each file")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(super) struct Arguments {
    /// Send what is there, by the same rules, and end
    #[arg(long)]
    once: bool,
    /// With --once: how long to wait for a server that stays away [default: 10m]
    #[arg(long = "for", value_name = "SPAN", value_parser = parse_span, requires = "once")]
    patience: Option<Duration>,
    /// Say of every file where it would go or why it would not, and touch nothing
    #[arg(long, conflicts_with = "once")]
    dry_run: bool,
    /// As root: work also where others than root can write
    #[arg(long, conflicts_with = "dry_run")]
    allow_root: bool,
    /// With --dry-run: print it as JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// As the service, of that instance; for the service manager alone
    #[cfg(windows)]
    #[arg(long, value_name = "NAME", hide = true, conflicts_with_all = ["once", "dry_run"])]
    service: Option<Option<String>>,
}

pub(super) async fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    if arguments.dry_run {
        // Nothing is sent, so nothing secret is needed.
        let config = globals.load(Secrets::MayBeMissing)?;
        return dry_run::run(&config, arguments.json, screen).await;
    }
    #[cfg(windows)]
    if let Some(instance) = &arguments.service {
        return super::hosted::run(globals, instance.as_deref(), arguments.allow_root);
    }
    if arguments.once {
        once(globals, arguments.patience.unwrap_or(ONCE_FOR), arguments.allow_root).await
    } else {
        let wishes = Wishes::by_signal();
        serve(globals, Mode::Service, arguments.allow_root, wishes, None).await.map(|_| Exit::Done)
    }
}

async fn once(globals: &Globals, patience: Duration, allows_root: bool) -> Result<Exit, Failure> {
    let end =
        serve(globals, Mode::Once { patience }, allows_root, Wishes::by_signal(), None).await?;
    Ok(if end.failed + end.held + end.missing > 0 {
        Exit::SomeFailed
    } else if end.something_unavailable {
        Exit::Unavailable
    } else {
        Exit::Done
    })
}

/// Gives a config without a log file one of its own in `state_dir`, whose rights it takes over.
#[expect(clippy::disallowed_methods, reason = "the log's folder, where no file is dropped")]
fn log_to_a_file(config: &mut Config) -> Result<(), Failure> {
    if config.log.file.is_none() {
        let folder = config.state_dir.join(LOG_FOLDER);
        let made = rights::make_folder(&config.state_dir);
        made.and_then(|()| std::fs::create_dir_all(&folder)).map_err(|error| {
            let what = format!("cannot make {}", folder.display());
            Failure::because(Kind::Machine, what, error)
                .hint("let the service's account write to state_dir, or set `file` of [log]")
        })?;
        config.log.file = Some(folder.join(LOG_FILE));
    }
    Ok(())
}

/// The service with its log. `source`: what it is called in the system's own log, where nobody sees
/// its standard error.
pub(super) async fn serve(
    globals: &Globals,
    mode: Mode,
    allows_root: bool,
    wishes: Wishes,
    source: Option<&str>,
) -> Result<End, Failure> {
    let read = || {
        let mut config = globals.load(Secrets::Needed)?;
        if source.is_some() {
            log_to_a_file(&mut config)?;
        }
        Ok(config)
    };
    let config = read()?;
    let telemetry =
        telemetry::start(&config.log, &config.all_secrets(), source).map_err(|error| {
            let hint = "see [log]: the file's folder must be there, and the service's account be \
                        able to write in it";
            Failure::new(Kind::Config, error).hint(hint)
        })?;
    for notice in &config.warnings {
        serve::warn(notice, &config.path);
    }
    let reader = Reader { read: &read, learn: &|secrets| telemetry.learn(secrets) };
    serve::serve(config, mode, allows_root, wishes, Some(&reader)).await
}
