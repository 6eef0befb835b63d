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
    let command = match &arguments.route {
        Some(route) => Command::Pause { route: route.clone() },
        None => Command::PauseAll,
    };
    change(globals, arguments.route.as_deref(), command, arguments.json, screen).await
}

pub(super) async fn resume(
    globals: &Globals,
    arguments: &ResumeArguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let command = match &arguments.route {
        Some(route) => Command::Resume { route: route.clone() },
        None => Command::ResumeAll,
    };
    change(globals, arguments.route.as_deref(), command, arguments.json, screen).await
}

/// The service knows its routes: it is reached beside a config that has been broken since, too.
async fn change(
    globals: &Globals,
    route: Option<&str>,
    command: Command,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let config = match globals.load(Secrets::MayBeMissing) {
        Ok(config) => config,
        Err(broken) => {
            return change::carry_out_in_spite_of(globals, broken, command, json, screen).await;
        }
    };
    if let Some(route) = route {
        change::known_route(&config, route)?;
    }
    change::carry_out(&config, vec![command], json, screen).await
}
