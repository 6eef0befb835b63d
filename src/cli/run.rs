//! `patchdrop run`: the service, or one pass.

use std::time::Duration;

use super::Globals;
use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::load::Secrets;
use super::reload::Reader;
use super::screen::Screen;
use super::when::parse_span;
use super::{dry_run, serve};
use crate::daemon::{End, Mode};
use crate::telemetry;

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
    if arguments.once {
        once(globals, arguments.patience.unwrap_or(ONCE_FOR), arguments.allow_root).await
    } else {
        serve(globals, Mode::Service, arguments.allow_root).await.map(|_| Exit::Done)
    }
}

async fn once(globals: &Globals, patience: Duration, allows_root: bool) -> Result<Exit, Failure> {
    let end = serve(globals, Mode::Once { patience }, allows_root).await?;
    Ok(if end.failed + end.held + end.missing > 0 {
        Exit::SomeFailed
    } else if end.something_unavailable {
        Exit::Unavailable
    } else {
        Exit::Done
    })
}

/// The service with its log.
async fn serve(globals: &Globals, mode: Mode, allows_root: bool) -> Result<End, Failure> {
    let config = globals.load(Secrets::Needed)?;
    let telemetry = telemetry::start(&config.log, &config.all_secrets())
        .map_err(|error| Failure::new(Kind::Config, error))?;
    for notice in &config.warnings {
        serve::warn(notice, &config.path);
    }
    let reader = Reader {
        read: &|| globals.load(Secrets::Needed),
        learn: &|secrets| telemetry.learn(secrets),
    };
    serve::serve(config, mode, allows_root, serve::stop_by_signal(), Some(&reader)).await
}
