//! `patchdrop release`: held files go, and those that were too old at the first sweep.

use std::ffi::OsString;

use super::Globals;
use super::change;
use super::exit_code::Exit;
use super::failure::Failure;
use super::load::Secrets;
use super::records;
use super::resolve::{self, Wanted};
use super::screen::Screen;
use crate::model::command::Command;
use crate::model::step::State;

const HELD: Wanted = Wanted { states: &[State::Held], done: "released" };

/// Let held files go, or the files that were already old when a route was first swept
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A released file is sent again under the same idempotency key. Look at its .why.txt first:\n\
    if the answer was lost, the server may have it already (then: patchdrop mark FILE --sent).\n\n\
    Examples:\n  \
    patchdrop release orders-17.json\n  \
    patchdrop release --route orders          the old files of a new route\n  \
    patchdrop release --route orders --held   its held files too"
)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub(super) struct Arguments {
    /// Held files: a path, an id, or a name that occurs once
    #[arg(value_name = "FILE", group = "which")]
    files: Vec<OsString>,
    /// The files of this route that were too old at its first sweep
    #[arg(long, group = "which")]
    route: Option<String>,
    /// With --route: its held files too
    #[arg(long, requires = "route", conflicts_with = "files")]
    held: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let config = globals.load(Secrets::MayBeMissing)?;
    let commands = if let Some(name) = &arguments.route {
        let route = change::known_route(&config, name)?.name.to_string();
        vec![Command::ReleaseRoute { route, held: arguments.held }]
    } else {
        let ledger = records::open_ledger(&config)?;
        let mut ids = Vec::new();
        for file in &arguments.files {
            ids.push(resolve::find_in(&ledger, &config, file, &HELD, &screen.style)?.id);
        }
        ids.sort_unstable();
        ids.dedup();
        vec![Command::Release { ids: ids.iter().map(ToString::to_string).collect() }]
    };
    change::carry_out(&config, commands, arguments.json, screen).await
}
