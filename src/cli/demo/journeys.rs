//! What happens to each file, read from the service's own record while it happens: nothing here
//! knows what the samples are.

use std::collections::{BTreeMap, BTreeSet};

use super::super::failure::Failure;
use super::super::records::Records;
use super::super::screen::{Screen, shown_bytes};
use crate::model::file::{FileId, shown};
use crate::model::status::Status;
use crate::model::step::{Attempt, Conversion, Entry, History, State, Verdict};
use crate::model::time::Wall;
use crate::world::ledger::Query;

/// Files followed at once: the newest on record.
const FOLLOWED_MAX: usize = 200;

/// Follows the record and says what is new.
#[derive(Default)]
pub(super) struct Journeys {
    /// The newest entry of each file by route and name.
    entries: BTreeMap<(String, String), Entry>,
    /// What has been said of whom.
    said: BTreeMap<FileId, BTreeSet<(Wall, String)>>,
    /// Waiting files that have been spoken of.
    waiting: BTreeSet<(String, String)>,
}

impl Journeys {
    /// Prints what has come on record since the last look.
    pub(super) fn look(
        &mut self,
        ledger: &impl Records,
        screen: &mut Screen<'_>,
    ) -> Result<(), Failure> {
        let mut newest = ledger.list(&Query { limit: FOLLOWED_MAX, ..Query::default() })?;
        newest.reverse();
        let listed: BTreeSet<FileId> = newest.iter().map(|entry| entry.id).collect();
        self.said.retain(|id, _| listed.contains(id));
        self.entries.retain(|_, entry| listed.contains(&entry.id));
        for entry in newest {
            let title = (entry.route.to_string(), shown(&entry.name));
            if self.entries.get(&title) != Some(&entry) || !entry.settled {
                self.tell(ledger, &entry, screen)?;
            }
            self.entries.insert(title, entry);
        }
        Ok(())
    }

    fn tell(
        &mut self,
        ledger: &impl Records,
        entry: &Entry,
        screen: &mut Screen<'_>,
    ) -> Result<(), Failure> {
        let Some(history) = ledger.history(entry.id)? else { return Ok(()) };
        let said = self.said.entry(entry.id).or_default();
        let new: Vec<_> = events(&history).into_iter().filter(|it| !said.contains(it)).collect();
        let Some((at, _)) = new.last() else { return Ok(()) };
        let words: Vec<&str> = new.iter().map(|(_, text)| text.as_str()).collect();
        let title = format!("{}/{}", entry.route, shown(&entry.name));
        line(screen, *at, &title, &words.join(" → "))?;
        said.extend(new);
        Ok(())
    }

    /// Prints which files the service is waiting for.
    pub(super) fn look_at_waiting(
        &mut self,
        status: &Status,
        screen: &mut Screen<'_>,
    ) -> Result<(), Failure> {
        let Some(at) = status.at else { return Ok(()) };
        for route in &status.routes {
            for (reason, waiting) in &route.waiting {
                let Some(words) = reason_words(reason) else { continue };
                let title = format!("{}/{}", route.name, waiting.example);
                if self.waiting.insert((title.clone(), reason.clone())) {
                    line(screen, at, &title, words)?;
                }
            }
        }
        Ok(())
    }

    /// The newest entry of a name.
    pub(super) fn entry(&self, route: &str, name: &str) -> Option<&Entry> {
        self.entries.get(&(route.to_owned(), name.to_owned()))
    }

    /// How many different files are on record.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// One line of a journey: when, who, what.
pub(super) fn line(
    screen: &mut Screen<'_>,
    at: Wall,
    title: &str,
    text: &str,
) -> Result<(), Failure> {
    let time = screen.style.time(at);
    let clock = time.rsplit(' ').next().unwrap_or_default();
    writeln!(screen.out, "{clock}  {title:<29}  {text}")?;
    Ok(screen.out.flush()?)
}

/// Why a file that nobody has claimed is still where it was dropped.
fn reason_words(reason: &str) -> Option<&'static str> {
    match reason {
        "not-ready" => Some("waits: perhaps not complete yet"),
        "truncated" => Some("waits: it stops in the middle, its writer may go on"),
        "ignored" => Some("stays: its name matches no `include`"),
        "paused" => Some("waits: its route is paused"),
        _ => None,
    }
}

/// Everything on record, in few words, in the order in which it happened.
fn events(history: &History) -> Vec<(Wall, String)> {
    let History { entry, attempts, remarks } = history;
    let mut events = vec![(entry.claimed_at, claim_words(entry))];
    for attempt in attempts {
        if attempt.number > 1 {
            events.push((attempt.begun_at, format!("attempt {}", attempt.number)));
        }
        events.extend(attempt_words(attempt));
    }
    for remark in remarks {
        // What is behind a semicolon goes into detail: `explain` has it.
        let text = remark.text.split(';').next().unwrap_or_default();
        events.push((remark.at, text.to_owned()));
    }
    let decided_at = entry.decided_at.unwrap_or(entry.claimed_at);
    match entry.state {
        State::Sent | State::Failed | State::Held => {
            events.push((decided_at, end_words(entry, attempts)));
        }
        State::Missing | State::Cancelled => {
            events.push((decided_at, entry.state.name().to_owned()));
        }
        State::Sending | State::Deferred | State::Confirming => {}
    }
    events.sort_by_key(|(at, _)| *at);
    events
}

fn claim_words(entry: &Entry) -> String {
    let conversion = entry.envelope.as_ref().and_then(|envelope| envelope.conversion);
    let bytes = shown_bytes(entry.identity.size);
    match conversion {
        None => format!("claimed, {bytes}"),
        Some(Conversion::Utf8BomDropped) => format!("claimed, {bytes}, BOM dropped"),
        Some(conversion) => format!("claimed, {bytes}, {} to UTF-8", conversion.name()),
    }
}

/// How an attempt ended, unless that decided the file.
fn attempt_words(attempt: &Attempt) -> Option<(Wall, String)> {
    let end = attempt.end.as_ref()?;
    let word = match end.verdict {
        Verdict::Deferred => "deferred",
        Verdict::RouteFault => "not accepted, the route pauses",
        Verdict::TokenRefused => "token refused",
        Verdict::NotSent => return Some((attempt.ended_at?, "not sent yet".to_owned())),
        Verdict::Delivered | Verdict::Rejected | Verdict::InDoubt | Verdict::Changed => {
            return None;
        }
    };
    Some((attempt.ended_at?, format!("{word} ({})", end.code)))
}

fn end_words(entry: &Entry, attempts: &[Attempt]) -> String {
    let status = attempts.last().and_then(|attempt| attempt.end.as_ref()?.status);
    let state = entry.state.name();
    match (entry.state, status, &entry.cause) {
        (State::Sent, Some(status), _) => format!("{state} ({status})"),
        (State::Held, _, Some(cause)) if entry.last_verdict == Some(Verdict::InDoubt) => {
            format!("in doubt, {state} ({})", cause.code)
        }
        (_, _, Some(cause)) => format!("{state} ({})", cause.code),
        (_, _, None) => state.to_owned(),
    }
}
