//! `patchdrop list`: the files on record, newest first.

use serde::Serialize;

use super::Globals;
use super::change;
use super::exit_code::Exit;
use super::failure::Failure;
use super::load::Secrets;
use super::records::{self, Records};
use super::screen::{Align, Screen, Table, grouped};
use super::when::Since;
use crate::config::Config;
use crate::model::file::shown;
use crate::model::step::{Entry, State};
use crate::model::time::Wall;
use crate::world::ledger::Query;

/// Entries read at a time.
const PAGE: usize = 1_000;
/// Beyond so many the rest is not counted one by one.
const COUNTED_MAX: u64 = 100_000;

/// List files, newest first
#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --state failed or held only files that still are are listed: what was resent, released or\n\
    moved back into its drop folder is under way as a later file. --all lists those too.\n\n\
    Files that still wait in a drop folder are not on record: `patchdrop status` counts them,\n\
    `patchdrop run --dry-run` lists them.\n\n\
    Examples:\n  \
    patchdrop list --state failed --since 24h\n  \
    patchdrop list --route orders --code http-422 --json"
)]
pub(super) struct Arguments {
    /// Only this route's
    #[arg(long)]
    route: Option<String>,
    /// Only in this state; may be given several times
    #[arg(long, value_name = "STATE", value_parser = parse_state)]
    state: Vec<State>,
    /// Only since: 24h, 7d, 2026-11-21, "2026-11-21 08:15"
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    since: Option<Since>,
    /// Only with this code, e.g. http-422, body-too-large
    #[arg(long)]
    code: Option<String>,
    /// Files that a later one has taken up again, too
    #[arg(long)]
    all: bool,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

fn parse_state(text: &str) -> Result<State, String> {
    State::parse(text).ok_or_else(|| {
        "there are sending, deferred, confirming, held, sent, failed, missing, cancelled; files that \
         wait are not on record: patchdrop status counts them"
            .to_owned()
    })
}

/// A file on record, as `--json` shows it. Names are part of the interface.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    id: String,
    route: String,
    name: String,
    state: &'static str,
    settled: bool,
    claimed_at: Wall,
    decided_at: Option<Wall>,
    due_at: Option<Wall>,
    attempt: u32,
    code: Option<String>,
    cause: Option<String>,
    path: String,
    bytes: u64,
    sha256: Option<String>,
    idempotency_key: String,
    previous: Option<String>,
}

impl Line {
    pub(super) fn of(entry: &Entry) -> Self {
        let cause = entry.cause.as_ref();
        Self {
            id: entry.id.to_string(),
            route: entry.route.to_string(),
            name: shown(&entry.name),
            state: entry.state.name(),
            settled: entry.settled,
            claimed_at: entry.claimed_at,
            decided_at: entry.decided_at,
            due_at: entry.due_at,
            attempt: entry.attempt,
            code: cause.map(|cause| cause.code.to_string()),
            cause: cause.map(|cause| cause.plain.clone()),
            path: shown(entry.target.as_ref().unwrap_or(&entry.source).path().as_os_str()),
            bytes: entry.identity.size,
            sha256: entry.digest.map(|digest| digest.to_string()),
            idempotency_key: entry.key.clone(),
            previous: entry.previous.map(|id| id.to_string()),
        }
    }
}

pub(super) fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let config = globals.load(Secrets::MayBeMissing)?;
    let query = query(&config, arguments, screen)?;
    let ledger = records::open_ledger(&config)?;
    show(&ledger, query, arguments.json, screen)?;
    Ok(Exit::Done)
}

fn query(config: &Config, arguments: &Arguments, screen: &Screen<'_>) -> Result<Query, Failure> {
    let route = match &arguments.route {
        Some(name) => Some(change::known_route(config, name)?.name.clone()),
        None => None,
    };
    let since = arguments.since.as_ref();
    Ok(Query {
        route,
        states: arguments.state.clone(),
        code: arguments.code.clone(),
        since: since.map(|it| it.wall(screen.style.now, &screen.style.zone)),
        only_last: !arguments.all && is_about_trouble(&arguments.state),
        limit: arguments.limit,
        ..Query::default()
    })
}

/// Whether the question is what needs a person: then what was taken up again does not.
fn is_about_trouble(states: &[State]) -> bool {
    !states.is_empty() && states.iter().all(|it| matches!(it, State::Failed | State::Held))
}

fn show(
    ledger: &impl Records,
    query: Query,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    if json {
        let mut lines = Vec::new();
        each_page(ledger, &query, |page| lines.extend(page.iter().map(Line::of)))?;
        return screen.json(&lines);
    }
    let mut table = Table::new(&[
        ("claimed", Align::Left),
        ("state", Align::Left),
        ("route", Align::Left),
        ("id", Align::Left),
        ("name", Align::Left),
        ("cause", Align::Left),
    ]);
    let style = screen.style.clone();
    let mut last = None;
    let rows = each_page(ledger, &query, |page| {
        for entry in page {
            let cause = entry.cause.as_ref();
            let cause = cause.map(|cause| format!("{}: {}", cause.code, cause.plain));
            table.row(vec![
                style.time(entry.claimed_at),
                entry.state.name().to_owned(),
                entry.route.to_string(),
                entry.id.to_string(),
                shown(&entry.name),
                cause.unwrap_or_default(),
            ]);
        }
        last = page.last().map(|entry| entry.id).or(last);
    })?;
    if rows == 0 {
        writeln!(screen.out, "no file on record matches")?;
        return Ok(());
    }
    table.write(screen, "")?;
    let more = count(ledger, Query { before: last, ..query })?;
    if more > COUNTED_MAX {
        writeln!(screen.out, "\nand more than {} more (--limit N)", grouped(COUNTED_MAX))?;
    } else if more > 0 {
        writeln!(screen.out, "\nand {} more (--limit N)", grouped(more))?;
    }
    Ok(())
}

/// Hands at most `query.limit` entries over, page by page; how many there were.
fn each_page(
    ledger: &impl Records,
    query: &Query,
    mut take: impl FnMut(&[Entry]),
) -> Result<usize, Failure> {
    let mut taken = 0;
    let mut before = query.before;
    while taken < query.limit {
        let limit = PAGE.min(query.limit - taken);
        let page = ledger.list(&Query { before, limit, ..query.clone() })?;
        take(&page);
        taken += page.len();
        match page.last() {
            Some(last) if page.len() == limit => before = Some(last.id),
            _ => break,
        }
    }
    Ok(taken)
}

/// How many match, counted up to a little above [`COUNTED_MAX`].
fn count(ledger: &impl Records, query: Query) -> Result<u64, Failure> {
    let limit = usize::try_from(COUNTED_MAX).unwrap_or(usize::MAX).saturating_add(1);
    let counted = each_page(ledger, &Query { limit, ..query }, |_| {})?;
    Ok(u64::try_from(counted).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture::{self, FakeLedger, file};

    fn ledger(config: &Config) -> FakeLedger {
        let states = [
            State::Sent,
            State::Failed,
            State::Held,
            State::Deferred,
            State::Sending,
            State::Missing,
            State::Cancelled,
        ];
        FakeLedger::of((0..7).map(|n| {
            let name = format!("order-{n}\n.json");
            file(config, n + 11, "orders", &name, states[usize::try_from(n).unwrap()])
        }))
    }

    fn listed(query: Query, json: bool) -> String {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        let mut out = Vec::new();
        let mut screen = fixture::screen(&mut out);
        show(&ledger(&config), query, json, &mut screen).unwrap();
        String::from_utf8(out).unwrap().replace(&root.path().display().to_string(), "ROOT")
    }

    #[test]
    fn the_table_is_aligned_newest_first_and_says_how_many_more() {
        let query = Query { limit: 5, ..Query::default() };
        insta::assert_snapshot!(listed(query, false));
    }

    #[test]
    fn what_matches_nothing_says_so() {
        let query = Query { limit: 5, code: Some("x".to_owned()), ..Query::default() };
        assert_eq!(listed(query, false), "no file on record matches\n");
        let query = Query { limit: 5, code: Some("x".to_owned()), ..Query::default() };
        assert_eq!(listed(query, true), "[]\n");
    }

    // Its text holds paths as Unix writes them.
    #[cfg(unix)]
    #[test]
    fn json_has_every_fact_of_the_table_and_more() {
        let query = Query { limit: 1, states: vec![State::Held], ..Query::default() };
        insta::assert_snapshot!(listed(query, true));
    }

    #[test]
    fn a_long_list_is_read_in_pages() {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        let ledger =
            FakeLedger::of((1..=2_500).map(|n| file(&config, n, "orders", "a.json", State::Sent)));
        let mut ids = Vec::new();
        let query = Query { limit: 2_400, ..Query::default() };
        let count = each_page(&ledger, &query, |page| ids.extend(page.iter().map(|it| it.id.0)));
        assert_eq!(count.unwrap(), 2_400);
        assert_eq!(ids, (101..=2_500).rev().collect::<Vec<u64>>());
        assert_eq!(ledger.longest_page.get(), PAGE);
    }
}
