//! `patchdrop run`: the service, or one pass.

use std::time::Duration;

use super::Globals;
use super::exit_code::Exit;
use super::failure::Failure;
use super::screen::Screen;
use super::seam::{self, Mode, Secrets};
use super::when::parse_span;

const ONCE_FOR: Duration = Duration::from_mins(10);

/// Watch the drop folders and send what lands there
#[derive(Debug, clap::Args)]
#[command(after_help = "It runs until it is told to stop: Ctrl-C, SIGTERM.\n\n\
    Examples:\n  \
    patchdrop run\n  \
    patchdrop run --once --for 10m   from a scheduler: see the exit code\n  \
    patchdrop run --dry-run          what would happen to each file")]
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
}

pub(super) async fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let config = globals.load(Secrets::Needed)?;
    let mode = if arguments.dry_run {
        Mode::DryRun
    } else if arguments.once {
        Mode::Once { patience: arguments.patience.unwrap_or(ONCE_FOR) }
    } else {
        Mode::Service
    };
    seam::run(config, mode, screen).await
}
