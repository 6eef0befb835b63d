//! `patchdrop pause` and `patchdrop resume`: whether a route sends, or any.

use super::Globals;
use super::change;
use super::exit_code::Exit;
use super::failure::Failure;
use super::load::Secrets;
use super::screen::Screen;
use crate::model::command::Command;

/// Start no more attempts on a route, or on all, until `resume`; files that land there wait
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
#[command(after_help = "A pause survives a restart.\n\n\
    Examples:\n  \
    patchdrop pause orders\n  \
    patchdrop pause --all")]
pub(super) struct PauseArguments {
    /// The route
    #[arg(group = "which")]
    route: Option<String>,
    /// All routes, also those that are found while it lasts; `resume ROUTE` lets one go alone
    #[arg(long, group = "which")]
    all: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Lift a pause, and try again at once what patchdrop itself has paused
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
#[command(after_help = "Examples:\n  patchdrop resume orders\n  patchdrop resume --all")]
pub(super) struct ResumeArguments {
    /// The route
    #[arg(group = "which")]
    route: Option<String>,
    /// All that `pause --all` has paused; a route that was paused by itself stays so
    #[arg(long, group = "which")]
    all: bool,
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
    let command = match &arguments.route {
        Some(route) => {
            Command::Pause { route: change::known_route(&config, route)?.name.to_string() }
        }
        None => Command::PauseAll,
    };
    change::carry_out(&config, vec![command], arguments.json, screen).await
}

pub(super) async fn resume(
    globals: &Globals,
    arguments: &ResumeArguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let config = globals.load(Secrets::MayBeMissing)?;
    let command = match &arguments.route {
        Some(route) => {
            Command::Resume { route: change::known_route(&config, route)?.name.to_string() }
        }
        None => Command::ResumeAll,
    };
    change::carry_out(&config, vec![command], arguments.json, screen).await
}
