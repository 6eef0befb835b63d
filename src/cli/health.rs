//! `patchdrop health`: one line for monitoring, and why; its exit codes are those of monitoring
//! plugins.

use std::fmt::Write as _;
use std::time::Duration;

use super::Globals;
use super::exit_code::Exit;
use super::failure::Failure;
use super::load::{self, Secrets};
use super::records::{self, Records};
use super::screen::{Screen, Style};
use super::when::parse_span;
use crate::config::Config;
use crate::daemon::chain;
use crate::journey::health::{self, Health, Lately, Level, MAX_WAIT, Symptom};
use crate::model::command::{Command, CommandAnswer};
use crate::model::status::Status;
use crate::model::step::{State, Verdict};
use crate::world::control::{self, ControlError};
use crate::world::ledger::Query;

/// Entries read at a time.
const PAGE: usize = 1_000;
/// More than this is as bad as this.
const COUNTED_MAX: usize = 10_000;
const DAY: Duration = Duration::from_hours(24);

/// Is all well? One line and an exit code for monitoring
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It asks the running service. Its exit codes are those of monitoring plugins:\n  \
    0 ok, 1 warning (something waits for a person), 2 critical (files are not sent, or no service\n  \
    runs), 3 unknown (no config, no rights)\n\n\
    Examples:\n  \
    patchdrop health\n  \
    patchdrop health --max-wait 1h\n  \
    patchdrop health >/dev/null || echo 'patchdrop needs somebody'"
)]
pub(super) struct Arguments {
    /// How long a file may be due before it is critical [default: 15m]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    max_wait: Option<Duration>,
    /// End with 0 unless it is critical or unknown, and with 1 then; for Docker and scripts
    #[arg(long)]
    only_critical: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Whatever goes wrong is an answer, too.
pub(super) async fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let max_wait = arguments.max_wait.unwrap_or(MAX_WAIT);
    let (health, lately) = look(globals, max_wait, &screen.style).await;
    if arguments.json {
        screen.json(&as_json(&health, lately))?;
    } else {
        screen.out.write_all(plain(&health, lately, max_wait).as_bytes())?;
    }
    let level = health.level();
    Ok(match (arguments.only_critical, level) {
        (false, level) => level.into(),
        (true, Level::Ok | Level::Warning) => Level::Ok.into(),
        (true, Level::Critical | Level::Unknown) => Level::Warning.into(),
    })
}

impl From<Level> for Exit {
    /// Monitoring takes the same numbers for something else.
    fn from(level: Level) -> Self {
        match level {
            Level::Ok => Self::Done,
            Level::Warning => Self::Bug,
            Level::Critical => Self::Usage,
            Level::Unknown => Self::SomeFailed,
        }
    }
}

async fn look(globals: &Globals, max_wait: Duration, style: &Style) -> (Health, Option<Lately>) {
    let config = match globals.load(Secrets::MayBeMissing) {
        Ok(config) => config,
        Err(broken) => return (look_in_spite_of(globals, broken, max_wait, style).await, None),
    };
    match status_of(control::ask(&config.state_dir, &Command::Status).await) {
        Err(symptom) => (Health { symptoms: vec![symptom], ..Health::default() }, None),
        Ok(status) => {
            let lately = lately(&config, style);
            let known = lately.unwrap_or_default();
            (health::judge(&status, known, max_wait, style.now), lately)
        }
    }
}

/// The service may go on beside a config that has been broken since.
async fn look_in_spite_of(
    globals: &Globals,
    broken: Failure,
    max_wait: Duration,
    style: &Style,
) -> Health {
    let check = format!("patchdrop{} check", globals.flag());
    let unknown = |broken: &Failure| {
        let mut text = broken.error.to_string();
        if broken.hints.iter().any(|hint| hint == load::NOT_FOUND) {
            text = format!("{text}; {}", load::NOT_FOUND);
        }
        alone(Level::Unknown, text, &check)
    };
    let (state_dir, broken) = match load::state_dir_in_spite_of(globals, broken) {
        Ok(found) => found,
        Err(broken) => return unknown(&broken),
    };
    match control::ask(&state_dir, &Command::Status).await {
        Err(ControlError::NoService { .. }) => unknown(&broken),
        asked => match status_of(asked) {
            Ok(mut status) => {
                status.alerts.push(load::goes_on_without(globals, &broken));
                health::judge(&status, Lately::default(), max_wait, style.now)
            }
            Err(symptom) => {
                let text = broken.error.to_string();
                let symptoms = vec![symptom, Symptom::new(Level::Warning, text, check)];
                Health { symptoms, ..Health::default() }
            }
        },
    }
}

fn alone(level: Level, text: impl Into<String>, remedy: impl Into<String>) -> Health {
    Health { symptoms: vec![Symptom::new(level, text, remedy)], ..Health::default() }
}

fn status_of(answer: Result<CommandAnswer, ControlError>) -> Result<Status, Symptom> {
    let (level, text, remedy) = match answer {
        Ok(CommandAnswer::Status(status)) => return Ok(*status),
        Ok(CommandAnswer::Refused(why)) => (Level::Critical, why, "patchdrop status"),
        Ok(CommandAnswer::Done(_)) => {
            let text = "the service answered something else than its status".to_owned();
            (Level::Unknown, text, "restart the service: it may be another version")
        }
        Err(ControlError::NoService { .. }) => {
            (Level::Critical, "no service runs, nothing is sent".to_owned(), "start the service")
        }
        Err(error @ ControlError::Denied { .. }) => {
            (Level::Unknown, chain(&error), "run this as the service's account or as root")
        }
        Err(error @ ControlError::Garbled { .. }) => {
            let remedy = "the service may be another version: restart it";
            (Level::Unknown, chain(&error), remedy)
        }
        Err(error @ ControlError::Hangs { .. }) => {
            (Level::Critical, chain(&error), "see its log; restart it")
        }
        Err(error @ ControlError::Ended { .. }) => {
            let text = format!("{}, nothing is sent", chain(&error));
            (Level::Critical, text, "see its log; start it, if its manager does not")
        }
        Err(error) => (Level::Critical, chain(&error), "see the log of the service"),
    };
    Err(Symptom::new(level, text, remedy))
}

/// What only the record knows; `None` where it cannot be read, which the service says if it
/// matters.
fn lately(config: &Config, style: &Style) -> Option<Lately> {
    let ledger = records::open_ledger(config).ok()?;
    let since = style.now.minus(DAY);
    let failed = Query { states: vec![State::Failed], since: Some(since), ..Query::default() };
    let held = Query { states: vec![State::Held], ..Query::default() };
    let in_doubt = |verdict: Option<Verdict>| verdict == Some(Verdict::InDoubt);
    Some(Lately {
        failed: counted(&ledger, failed, |_| true)?,
        in_doubt: counted(&ledger, held, in_doubt)?,
    })
}

fn counted(
    ledger: &impl Records,
    query: Query,
    counts: impl Fn(Option<Verdict>) -> bool,
) -> Option<u64> {
    let mut query = Query { only_last: true, limit: PAGE, ..query };
    let (mut seen, mut found) = (0, 0);
    while seen < COUNTED_MAX {
        let page = ledger.list(&query).ok()?;
        let Some(last) = page.last() else { break };
        query.before = Some(last.id);
        seen += page.len();
        found += page.iter().filter(|entry| counts(entry.last_verdict)).count() as u64;
    }
    Some(found)
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "OK",
        Level::Warning => "WARNING",
        Level::Critical => "CRITICAL",
        Level::Unknown => "UNKNOWN",
    }
}

/// Without the commas of large numbers, which scripts would stumble over.
fn counted_in(number: u64, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// The line of a monitoring plugin with its figures behind a bar, then a line for each reason.
fn plain(health: &Health, lately: Option<Lately>, max_wait: Duration) -> String {
    let figures = &health.figures;
    let first = match health.symptoms.as_slice() {
        [] => format!(
            "{}, {} waiting",
            counted_in(figures.routes, "route"),
            counted_in(figures.waiting, "file")
        ),
        [only] => only.text.clone(),
        [worst, rest @ ..] => format!("{} (and {} more)", worst.text, rest.len()),
    };
    // A bar would begin the figures.
    let mut text = format!("PATCHDROP {} - {}", word(health.level()), first.replace('|', "/"));
    if figures.routes > 0 || health.symptoms.is_empty() {
        let (wait, max) = (figures.oldest_wait.as_secs(), max_wait.as_secs());
        // Writing to a string cannot fail.
        write!(
            text,
            " | waiting={};;;0 oldest_wait={wait}s;;{max};0 held={};;;0 paused={};;;0",
            figures.waiting, figures.held, figures.paused
        )
        .ok();
        if let Some(Lately { failed, in_doubt }) = lately {
            write!(text, " in_doubt={in_doubt};;;0 failed_24h={failed};;;0").ok();
        }
    }
    text.push('\n');
    for Symptom { level, text: what, remedy } in &health.symptoms {
        let what = what.replace('|', "/");
        let remedy = if remedy.is_empty() { String::new() } else { format!(" [{remedy}]") };
        writeln!(text, "{}: {what}{}", word(*level), remedy.replace('|', "/")).ok();
    }
    text
}

fn as_json(health: &Health, lately: Option<Lately>) -> serde_json::Value {
    let figures = &health.figures;
    let symptom = |symptom: &Symptom| {
        serde_json::json!({
            "level": word(symptom.level).to_lowercase(),
            "text": symptom.text,
            "remedy": (!symptom.remedy.is_empty()).then_some(&symptom.remedy),
        })
    };
    serde_json::json!({
        "level": word(health.level()).to_lowercase(),
        "exit": health.level() as u8,
        "reasons": health.symptoms.iter().map(symptom).collect::<Vec<_>>(),
        "routes": figures.routes,
        "waiting": figures.waiting,
        "oldest_wait_s": figures.oldest_wait.as_secs(),
        "held": figures.held,
        "paused": figures.paused,
        "in_doubt": lately.map(|lately| lately.in_doubt),
        "failed_24h": lately.map(|lately| lately.failed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture::{self, FakeLedger, file};
    use crate::journey::health::Figures;

    #[test]
    fn one_line_says_it_all_and_each_reason_follows() {
        let figures = Figures {
            routes: 2,
            waiting: 12,
            oldest_wait: Duration::from_secs(34),
            held: 3,
            paused: 1,
        };
        let fine = Health { figures, ..Health::default() };
        let lately = Some(Lately { failed: 5, in_doubt: 2 });
        insta::assert_snapshot!(plain(&fine, lately, MAX_WAIT), @"PATCHDROP OK - 2 routes, 12 files waiting | waiting=12;;;0 oldest_wait=34s;;900;0 held=3;;;0 paused=1;;;0 in_doubt=2;;;0 failed_24h=5;;;0");
        let symptoms = vec![
            Symptom::new(Level::Critical, "route orders is paused: a | b (http-404)", "mend it"),
            Symptom::new(Level::Warning, "3 files held", ""),
        ];
        let bad = Health { symptoms, figures };
        insta::assert_snapshot!(plain(&bad, None, MAX_WAIT), @r"
        PATCHDROP CRITICAL - route orders is paused: a / b (http-404) (and 1 more) | waiting=12;;;0 oldest_wait=34s;;900;0 held=3;;;0 paused=1;;;0
        CRITICAL: route orders is paused: a / b (http-404) [mend it]
        WARNING: 3 files held
        ");
        let json = as_json(&bad, lately);
        assert_eq!((&json["level"], &json["exit"]), (&"critical".into(), &2.into()));
        assert!(json["reasons"][1]["remedy"].is_null());
    }

    #[test]
    fn a_service_that_does_not_run_is_critical_and_one_that_cannot_be_asked_is_unknown() {
        let path = || std::path::PathBuf::from("/s/control.sock");
        let source = || std::io::Error::other("x");
        let check = |answer, expected: Level| {
            let found = status_of(answer).map_err(|symptom| symptom.level);
            assert_eq!(found, Err(expected));
        };
        check(Err(ControlError::NoService { path: path() }), Level::Critical);
        check(Err(ControlError::NoAnswer { path: path() }), Level::Critical);
        check(Err(ControlError::Hangs { path: path() }), Level::Critical);
        check(Err(ControlError::Ended { path: path() }), Level::Critical);
        check(Err(ControlError::Denied { path: path(), source: source() }), Level::Unknown);
        check(Ok(CommandAnswer::Refused("the service is stopping".into())), Level::Critical);
        check(Ok(CommandAnswer::Done(Vec::new())), Level::Unknown);
    }

    #[test]
    fn the_numbers_are_those_of_monitoring() {
        for level in [Level::Ok, Level::Warning, Level::Critical, Level::Unknown] {
            assert_eq!(Exit::from(level) as u8, level as u8);
        }
    }

    #[test]
    fn what_failed_lately_and_what_is_in_doubt_is_counted_page_by_page() {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        let many = 1..=2_500;
        let name = |id: u64| format!("{id}.json");
        let state = |id: u64| if id.is_multiple_of(2) { State::Failed } else { State::Held };
        let ledger =
            FakeLedger::of(many.map(|id| file(&config, id, "orders", &name(id), state(id))));
        let count = |state, counts: fn(Option<Verdict>) -> bool| {
            counted(&ledger, Query { states: vec![state], ..Query::default() }, counts)
        };
        assert_eq!(count(State::Failed, |_| true), Some(1_250));
        assert_eq!(count(State::Held, |it| it == Some(Verdict::InDoubt)), Some(1_250));
        assert_eq!(count(State::Held, |_| false), Some(0));
        assert_eq!(ledger.longest_page.get(), PAGE);
    }
}
