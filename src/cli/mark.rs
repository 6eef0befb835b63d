//! `patchdrop mark`: what a person found out about a file goes on record.

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

const UNDECIDED: Wanted = Wanted { states: &[State::Held, State::Failed], done: "marked" };

/// Put on record what you found out about a held or failed file
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    patchdrop mark orders-17.json --sent --note 'order 17 is in the shop, seen by Ana'")]
#[command(group = clap::ArgGroup::new("finding").required(true))]
pub(super) struct Arguments {
    /// The file: a path, an id, or a name that occurs once
    #[arg(value_name = "FILE")]
    file: OsString,
    /// The server has it: to sent/
    #[arg(long, group = "finding")]
    sent: bool,
    /// The server does not have it and it is not to be sent: to failed/
    #[arg(long, group = "finding")]
    failed: bool,
    /// How you know; kept with the file's record
    #[arg(long, value_name = "TEXT", value_parser = said)]
    note: String,
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
    let ledger = records::open_ledger(&config)?;
    let entry = resolve::find_in(&ledger, &config, &arguments.file, &UNDECIDED, &screen.style)?;
    drop(ledger);
    let note = arguments.note.clone();
    let command = Command::Mark { id: entry.id.to_string(), sent: arguments.sent, note };
    change::carry_out(&config, vec![command], arguments.json, screen).await
}

/// A note that says something.
fn said(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("it says nothing: write how you know"),
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::said;

    #[test]
    fn a_note_of_blanks_says_nothing() {
        assert!(said("").is_err() && said(" \t\n").is_err());
        assert_eq!(said(" seen by Ana "), Ok("seen by Ana".to_owned()));
    }
}
