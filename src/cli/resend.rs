//! `patchdrop resend`: failed files are taken up again.

use std::ffi::OsString;

use super::Globals;
use super::change;
use super::exit_code::Exit;
use super::failure::Failure;
use super::load::Secrets;
use super::records::{self, Records};
use super::resolve::{self, Wanted};
use super::screen::Screen;
use super::when::Since;
use crate::model::command::Command;
use crate::model::file::FileId;
use crate::model::step::State;
use crate::world::ledger::Query;

/// Entries read at a time.
const PAGE: usize = 1_000;

const FAILED: Wanted = Wanted { states: &[State::Failed], done: "resent" };

/// Take failed files up again
#[derive(Debug, clap::Args)]
#[command(after_help = "Each goes out as a new file that remembers the old one.\n\n\
    Examples:\n  \
    patchdrop resend orders-17.json\n  \
    patchdrop resend --route orders --code http-422 --since 24h")]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
pub(super) struct Arguments {
    /// Failed files: a path, an id, or a name that occurs once
    #[arg(value_name = "FILE", group = "which", conflicts_with_all = ["route", "code", "since"])]
    files: Vec<OsString>,
    /// All failed files of this route
    #[arg(long, group = "which")]
    route: Option<String>,
    /// All that failed with this code (see `patchdrop list`)
    #[arg(long, group = "which")]
    code: Option<String>,
    /// All that failed since: 24h, 7d, 2026-11-21
    #[arg(long, value_name = "TIME", value_parser = Since::parse, group = "which")]
    since: Option<Since>,
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
    let mut ids = Vec::new();
    for file in &arguments.files {
        ids.push(resolve::find_in(&ledger, &config, file, &FAILED, &screen.style)?.id);
    }
    if arguments.files.is_empty() {
        let route = match &arguments.route {
            Some(name) => Some(change::known_route(&config, name)?.name.clone()),
            None => None,
        };
        let since = &arguments.since;
        let since = since.as_ref().map(|it| it.wall(screen.style.now, &screen.style.zone));
        let code = arguments.code.clone();
        let states = vec![State::Failed];
        ids = matching(&ledger, &Query { route, states, code, since, ..Query::default() })?;
        if ids.is_empty() {
            return Err(Failure::usage("no failed file matches")
                .hint("patchdrop list --state failed shows them"));
        }
    }
    drop(ledger);
    // Oldest first: files of one name leave in the order of their claims (promise P13).
    ids.sort_unstable();
    ids.dedup();
    let commands = ids
        .chunks(change::IDS_MAX)
        .map(|ids| Command::Resend { ids: ids.iter().map(ToString::to_string).collect() });
    change::carry_out(&config, commands.collect(), arguments.json, screen).await
}

/// The ids of the failed files that match and have not been taken up since.
fn matching(ledger: &impl Records, query: &Query) -> Result<Vec<FileId>, Failure> {
    let mut ids = Vec::new();
    let mut before = None;
    loop {
        let page = ledger.list(&Query { before, limit: PAGE, ..query.clone() })?;
        let Some(last) = page.last() else { return Ok(ids) };
        before = Some(last.id);
        ids.extend(page.iter().filter(|entry| still_there(entry)).map(|entry| entry.id));
    }
}

/// A file that was resent or moved back is no longer where its record says.
fn still_there(entry: &crate::model::step::Entry) -> bool {
    entry.target.as_ref().is_some_and(|target| target.path().symlink_metadata().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture::{self, FakeLedger, file};

    #[test]
    fn all_that_match_and_still_lie_in_failed_are_taken_however_many() {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        let count = u64::try_from(PAGE).unwrap() + 5;
        let mut histories: Vec<_> = (1..=count)
            .map(|id| file(&config, id, "orders", &format!("{id}.json"), State::Failed))
            .collect();
        histories.push(file(&config, count + 1, "orders", "sent.json", State::Sent));
        for history in &histories[..histories.len() - 2] {
            fixture::put_in_place(&config, &history.entry);
        }
        let ledger = FakeLedger::of(histories);
        let states = vec![State::Failed];
        let ids = matching(&ledger, &Query { states, ..Query::default() }).unwrap();
        assert_eq!(ids.len(), PAGE + 4, "but the one that somebody took out of failed/");
        assert!(!ids.contains(&FileId(count)));
    }
}
