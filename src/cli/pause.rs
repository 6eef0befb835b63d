//! `patchdrop pause` and `patchdrop resume`: whether a route sends.

use super::Globals;
use super::change;
use super::exit_code::Exit;
use super::failure::Failure;
use super::load::Secrets;
use super::screen::Screen;
use crate::model::command::Command;

/// Start no more attempts on a route, until `resume`; files that land there wait
#[derive(Debug, clap::Args)]
#[command(after_help = "A pause survives a restart.\n\n\
    Example:\n  \
    patchdrop pause orders")]
pub(super) struct PauseArguments {
    /// The route
    route: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Lift a pause, and try again at once what patchdrop itself has paused
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  patchdrop resume orders")]
pub(super) struct ResumeArguments {
    /// The route
    route: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    globals: &Globals,
    arguments: &PauseArguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let config = globals.load(Secrets::MayBeMissing)?;
    let route = change::known_route(&config, &arguments.route)?.name.to_string();
    change::carry_out(&config, vec![Command::Pause { route }], arguments.json, screen).await
}

pub(super) async fn resume(
    globals: &Globals,
    arguments: &ResumeArguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let config = globals.load(Secrets::MayBeMissing)?;
    let route = change::known_route(&config, &arguments.route)?.name.to_string();
    change::carry_out(&config, vec![Command::Resume { route }], arguments.json, screen).await
}
