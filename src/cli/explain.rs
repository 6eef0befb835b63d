//! `patchdrop explain`: one file's whole story, in sentences.

mod waiting;

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;
use waiting::Waiting;

use super::Globals;
use super::exit_code::Exit;
use super::failure::Failure;
use super::list::Line;
use super::load::{self, Secrets};
use super::records::{self, Records};
use super::resolve::{self, Found};
use super::screen::{Screen, Style, shown_bytes, shown_span};
use super::verify::{self, Here, Seen};
use crate::config::Config;
use crate::journey::runs::{self, Errand};
use crate::journey::settle;
use crate::model::file::{FileId, Place, shown};
use crate::model::step::{Attempt, Conversion, Entry, Envelope, History, State, Verdict, Wrap};
use crate::model::time::Wall;

/// Tell one file's whole story and what you can do
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    patchdrop explain orders-17.json\n  \
    patchdrop explain /srv/patchdrop/orders/failed/orders-17.json")]
pub(super) struct Arguments {
    /// A path, an id, or a name that occurs once
    #[arg(value_name = "NAME")]
    name: OsString,
    /// Print it as JSON
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
    match resolve::find(&ledger, &config, &arguments.name, &screen.style)? {
        Found::Waiting { path, route } => {
            let waiting = Waiting::gather(&config, &ledger, path, route).await?;
            if arguments.json {
                screen.json(&waiting.record())?;
            } else {
                waiting.tell(&globals.flag(), screen)?;
            }
        }
        Found::OnRecord(entry) => {
            let story = Story::gather(&config, &ledger, *entry)?;
            if arguments.json {
                screen.json(&story.record())?;
            } else {
                story.tell(&globals.flag(), screen)?;
            }
        }
    }
    Ok(Exit::Done)
}

/// What is known about a file, from ledger and folders.
struct Story {
    history: History,
    /// The file that took this one up again.
    follower: Option<FileId>,
    /// Since when a person has paused its route.
    paused_at: Option<Wall>,
    seen: Seen,
    expected_at: PathBuf,
    inbox: PathBuf,
    /// Its flow's runs are looked up before anything else.
    is_looked_up: bool,
    /// Its route is in the config, and its folder there.
    has_route: bool,
}

/// A story, as `--json` shows it. Names are part of the interface.
#[derive(Serialize)]
struct Record {
    #[serde(flatten)]
    line: Line,
    conversion: Option<Cow<'static, str>>,
    remarks: Vec<String>,
    attempts: Vec<AttemptRecord>,
    notes: Vec<NoteRecord>,
    expected_at: String,
    is_there: bool,
    taken_up_again_as: Option<String>,
    next: String,
}

#[derive(Serialize)]
struct AttemptRecord {
    number: u32,
    begun_at: Wall,
    ended_at: Option<Wall>,
    verdict: Option<&'static str>,
    code: Option<String>,
    status: Option<u16>,
    request_id: Option<String>,
    text: Option<String>,
}

#[derive(Serialize)]
struct NoteRecord {
    at: Wall,
    text: String,
}

impl Story {
    fn gather(config: &Config, ledger: &impl Records, entry: Entry) -> Result<Self, Failure> {
        let history = ledger.history(entry.id)?;
        let history =
            history.unwrap_or(History { entry, attempts: Vec::new(), remarks: Vec::new() });
        let entry = &history.entry;
        let routes = load::routes(config);
        let route = routes.iter().find(|route| route.name == entry.route).map(AsRef::as_ref);
        let record = ledger.routes()?.into_iter().find(|it| it.name == entry.route);
        Ok(Self {
            follower: verify::follower(ledger, entry)?.map(|entry| entry.id),
            paused_at: record.and_then(|record| record.paused_at),
            seen: verify::look(entry, route),
            expected_at: verify::expected_at(entry, route),
            inbox: route.map_or(&entry.source.folder, |route| &route.folders.inbox).to_path_buf(),
            has_route: route.is_some(),
            is_looked_up: route
                .is_some_and(|route| runs::errand(entry, route.in_doubt) == Errand::LookUp),
            history,
        })
    }

    fn record(&self) -> Record {
        let History { entry, attempts, remarks } = &self.history;
        let envelope = entry.envelope.as_ref();
        let attempt = |attempt: &Attempt| {
            let end = attempt.end.as_ref();
            AttemptRecord {
                number: attempt.number,
                begun_at: attempt.begun_at,
                ended_at: attempt.ended_at,
                verdict: end.map(|end| end.verdict.name()),
                code: end.map(|end| end.code.to_string()),
                status: end.and_then(|end| end.status),
                request_id: end.and_then(|end| end.request_id.clone()),
                text: end.map(|end| end.plain.clone()),
            }
        };
        Record {
            line: Line::of(entry),
            conversion: envelope.and_then(Envelope::changes),
            remarks: envelope.map(|it| it.remarks.clone()).unwrap_or_default(),
            attempts: attempts.iter().map(attempt).collect(),
            notes: remarks
                .iter()
                .map(|remark| NoteRecord { at: remark.at, text: remark.text.clone() })
                .collect(),
            expected_at: shown(self.expected_at.as_os_str()),
            is_there: self.is_there(),
            taken_up_again_as: self.follower.map(|id| id.to_string()),
            next: self.next(None),
        }
    }

    fn is_there(&self) -> bool {
        let settled = self.history.entry.settled && self.history.entry.target.is_some();
        if settled { self.seen.target != Here::Nothing } else { self.seen.sending == Here::Same }
    }

    fn tell(&self, flag: &str, screen: &mut Screen<'_>) -> Result<(), Failure> {
        let entry = &self.history.entry;
        let style = screen.style.clone();
        let name = shown(&entry.name);
        let heading =
            format!("{name} ({}), route {}: {}", entry.id, entry.route, entry.state.name());
        writeln!(screen.out, "{}\n", style.bold(&heading))?;
        for (at, text) in self.events() {
            let mut lines = text.lines();
            writeln!(screen.out, "  {}  {}", style.time(at), lines.next().unwrap_or_default())?;
            for line in lines {
                writeln!(screen.out, "  {:19}  {line}", "")?;
            }
        }
        writeln!(screen.out, "\n{} {}", style.bold("Now:"), self.whereabouts(&style))?;
        writeln!(screen.out, "{} {}", style.bold("Next:"), self.next(Some(&style)))?;
        let can = self.remedies(flag);
        if !can.is_empty() {
            writeln!(screen.out, "{}", style.bold("You can:"))?;
        }
        for (command, effect) in can {
            writeln!(screen.out, "  {command}\n      {effect}")?;
        }
        Ok(())
    }

    /// Everything on record, in the order in which it happened.
    fn events(&self) -> Vec<(Wall, String)> {
        let History { entry, attempts, remarks } = &self.history;
        let mut events = vec![(entry.claimed_at, claim_text(entry))];
        for attempt in attempts {
            events.push((attempt.begun_at, format!("attempt {} began", attempt.number)));
            events.extend(attempt.ended_at.map(|at| (at, attempt_end_text(attempt, at))));
        }
        events.extend(remarks.iter().map(|remark| (remark.at, remark.text.clone())));
        let decided = entry.decided_at.filter(|_| entry.state != State::Sending);
        events.extend(decided.map(|at| (at, decision_text(entry))));
        events.sort_by_key(|(at, _)| *at);
        events
    }

    fn whereabouts(&self, style: &Style) -> String {
        let entry = &self.history.entry;
        let expected = shown(self.expected_at.as_os_str());
        let source = shown(entry.source.path().as_os_str());
        if matches!(entry.state, State::Missing | State::Cancelled) {
            return match self.last_seen() {
                _ if entry.state == State::Cancelled => {
                    "its claim came to nothing; the name belongs to nobody, or to a new file"
                        .to_owned()
                }
                Some((from, to)) => {
                    let (from, to) = (style.time(from), style.time(to));
                    format!("it is nowhere: it went missing between {from} and {to}")
                }
                None => "it is nowhere".to_owned(),
            };
        }
        if let Some(follower) = self.follower
            && self.seen.target == Here::Nothing
        {
            return format!("it was taken up again as {follower} (patchdrop explain {follower})");
        }
        match (self.is_there(), entry.settled) {
            (true, true) if self.seen.target == Here::Other => {
                format!("something of that name is at {expected}, but not what was sent")
            }
            (true, _) => format!("it is at {expected}"),
            (false, true) if self.seen.source == Here::Same => {
                format!("it was moved back to {source}")
            }
            (false, true) => format!("somebody has taken it from {expected}"),
            (false, false) if self.seen.target == Here::Same => {
                let target = entry.target.as_ref().map(Place::path).unwrap_or_default();
                format!("it is at {}, and that is about to be recorded", shown(target.as_os_str()))
            }
            (false, false) if self.seen.source == Here::Same => {
                format!("it is still at {source}; its move into sending/ is not done")
            }
            (false, false) => format!("it is not at {expected}, where its record says"),
        }
    }

    /// For a missing file: when it was last on record as there, and when it was missed.
    fn last_seen(&self) -> Option<(Wall, Wall)> {
        let History { entry, attempts, remarks } = &self.history;
        let missed_at = entry.decided_at?;
        let seen = attempts
            .iter()
            .flat_map(|attempt| [Some(attempt.begun_at), attempt.ended_at])
            .flatten()
            .chain(remarks.iter().map(|remark| remark.at))
            .chain([entry.claimed_at]);
        Some((seen.filter(|at| *at < missed_at).max().unwrap_or(entry.claimed_at), missed_at))
    }

    /// Whether it is on its way by a route that the config no longer has.
    fn waits_for_its_route(&self) -> bool {
        let is_under_way = matches!(
            self.history.entry.state,
            State::Sending | State::Deferred | State::Confirming
        );
        is_under_way && !self.has_route
    }

    fn next(&self, style: Option<&Style>) -> String {
        let entry = &self.history.entry;
        let when = |at: Wall| match style {
            Some(style) => format!("{} ({})", style.until(at), style.time(at)),
            None => format!("at {at}"),
        };
        if self.waits_for_its_route() {
            return format!("nothing until route {} is there again", entry.route);
        }
        if let Some(at) = self.paused_at
            && matches!(entry.state, State::Sending | State::Deferred)
        {
            let route = &entry.route;
            return format!(
                "nothing until a person lifts the pause of route {route}, set {}",
                style.map_or_else(|| at.to_string(), |style| style.time(at))
            );
        }
        match entry.state {
            State::Sending => match entry.attempt_open_since {
                Some(_) => format!(
                    "attempt {} is under way; if its answer is lost, the route's in_doubt decides",
                    entry.attempt
                ),
                None => "it goes out as soon as there is room".to_owned(),
            },
            State::Deferred if self.is_looked_up => format!(
                "the runs of its flow are looked up {}: it is sent again only if none can be its own, both times",
                entry.due_at.map_or_else(|| "soon".to_owned(), when)
            ),
            State::Deferred => match entry.due_at {
                Some(at) => format!(
                    "attempt {} follows {}, unless its route or destination is paused then",
                    entry.attempt + 1,
                    when(at)
                ),
                None => format!("attempt {} follows", entry.attempt + 1),
            },
            State::Confirming => {
                let run = entry.run.as_deref().unwrap_or("without an id");
                format!(
                    "its run {run} is asked for until it has ended; whatever comes of it, the file is not sent again by itself"
                )
            }
            State::Sent | State::Failed | State::Held if !entry.settled => {
                let target = entry.target.as_ref().map(Place::path).unwrap_or_default();
                format!("it is moved to {}", shown(target.as_os_str()))
            }
            State::Held => "nothing by itself: a person decides".to_owned(),
            State::Failed if self.follower.is_some() => "nothing: it was taken up again".to_owned(),
            State::Failed => "nothing by itself".to_owned(),
            State::Sent | State::Cancelled => "nothing: this is the end of its journey".to_owned(),
            State::Missing => "nothing by itself: patchdrop cannot find it".to_owned(),
        }
    }

    fn remedies(&self, flag: &str) -> Vec<(String, String)> {
        let entry = &self.history.entry;
        let (id, route) = (entry.id, &entry.route);
        let inbox = shown(self.inbox.as_os_str());
        let command =
            |rest: String, effect: &str| (format!("patchdrop{flag} {rest}"), effect.to_owned());
        let sidecar = |text: &str| {
            let name = self.expected_at.file_name().unwrap_or_default();
            let path = self.expected_at.with_file_name(settle::beside(name, id, settle::WHY));
            (format!("read {}", shown(path.as_os_str())), text.to_owned())
        };
        if self.waits_for_its_route() {
            return vec![(
                format!("write route {route} into the config again, or make {inbox} again"),
                "it goes on where it was".to_owned(),
            )];
        }
        match entry.state {
            State::Held => vec![
                sidecar("why, and what the server said"),
                command(format!("mark {id} --sent --note '…'"), "the server has it: to sent/"),
                command(
                    format!("release {id}"),
                    match entry.confirming_since {
                        Some(_) => "ask for its run again; nothing is sent",
                        None => "send it again under the same key",
                    },
                ),
                command(
                    format!("mark {id} --failed --note '…'"),
                    "it is not to be sent: to failed/",
                ),
            ],
            State::Failed if self.follower.is_none() => vec![
                sidecar(match entry.attempt {
                    0 => "why, and where in the file",
                    _ => "why, and what the server said",
                }),
                command(format!("resend {id}"), "check it again and send it as it is"),
                (
                    format!("correct it and move it to {inbox}"),
                    "it is sent as a new file".to_owned(),
                ),
            ],
            State::Missing => vec![(
                format!("put it back into {inbox}"),
                "it is sent as a new file; look at the attempts above first".to_owned(),
            )],
            State::Sending | State::Deferred if self.paused_at.is_some() => {
                vec![command(format!("resume {route}"), "let the route send again")]
            }
            State::Deferred if self.is_looked_up => Vec::new(),
            State::Deferred => vec![command(format!("resume {route}"), "try again at once")],
            State::Sending | State::Confirming | State::Failed | State::Sent | State::Cancelled => {
                Vec::new()
            }
        }
    }
}

fn claim_text(entry: &Entry) -> String {
    let source = shown(entry.source.path().as_os_str());
    let size = shown_bytes(entry.identity.size);
    // Nobody knows when a file was claimed whose record was lost.
    let is_found = settle::claimed_id(&entry.source.name) == Some(entry.id);
    let how = if is_found { "found without a record at" } else { "claimed from" };
    let mut lines = vec![format!("{how} {source}, {size}")];
    lines.extend(entry.digest.map(|digest| format!("sha256 {digest}")));
    lines.extend(
        entry.previous.map(|id| format!("it takes up {id} again (patchdrop explain {id})")),
    );
    let marker = entry.marker.as_deref();
    lines.extend(marker.map(|marker| format!("its done-marker {} moves along", shown(marker))));
    if let Some(envelope) = &entry.envelope {
        let changes: Vec<&str> = envelope
            .conversion
            .map(conversion_text)
            .into_iter()
            .chain(envelope.wrap.map(wrap_text))
            .collect();
        if !changes.is_empty() {
            lines.push(format!(
                "{}: what is sent has {}, sha256 {}",
                changes.join(", "),
                shown_bytes(envelope.bytes),
                envelope.digest
            ));
        }
        lines.extend(envelope.remarks.iter().map(|remark| format!("remark: {remark}")));
    }
    lines.push(format!("idempotency key {}", entry.key));
    lines.join("\n")
}

fn conversion_text(conversion: Conversion) -> &'static str {
    match conversion {
        Conversion::Utf8BomDropped => "its UTF-8 byte order mark was dropped",
        Conversion::Utf16Le => "converted from UTF-16 (little-endian) to UTF-8",
        Conversion::Utf16Be => "converted from UTF-16 (big-endian) to UTF-8",
        Conversion::Windows1252 => "converted from windows-1252 to UTF-8",
    }
}

fn wrap_text(wrap: Wrap) -> &'static str {
    match wrap {
        Wrap::Payload => "put into an envelope as the text of \"payload\"",
    }
}

fn attempt_end_text(attempt: &Attempt, at: Wall) -> String {
    let Some(end) = &attempt.end else {
        return format!("attempt {} ended", attempt.number);
    };
    let verdict = match end.verdict {
        Verdict::Delivered => "accepted",
        Verdict::Deferred => "not accepted, to be tried again",
        Verdict::Rejected => "refused, the file is at fault",
        Verdict::InDoubt => "in doubt, it may have been accepted",
        Verdict::RouteFault => "refused, the route is at fault and the file unspent",
        Verdict::TokenRefused => "the access token was refused",
        Verdict::Changed => "broken off, the file was not the one that was checked",
        Verdict::NotSent => "nothing was sent",
    };
    let took = shown_span(at.since(attempt.begun_at));
    let mut lines = vec![
        format!("attempt {} ended after {took}: {verdict}", attempt.number),
        format!("{}: {}", end.code, end.plain),
    ];
    let request_id = end.request_id.as_ref();
    lines.extend(request_id.map(|id| format!("the server calls this request {id}")));
    lines.join("\n")
}

fn decision_text(entry: &Entry) -> String {
    match &entry.cause {
        // The code of an acceptance says nothing more.
        Some(cause) if entry.state == State::Sent => format!("sent: {}", cause.plain),
        Some(cause) => format!("{}: {} ({})", entry.state.name(), cause.plain, cause.code),
        None => entry.state.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "these tests move files as people do")]

    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::cli::fixture::{self, FakeLedger, START, file};
    use crate::model::step::{Remark, RouteRecord};

    /// The story of the first of these files, which lies where its record says unless told
    /// otherwise.
    fn told(
        state: State,
        change: impl FnOnce(&mut History),
        disturb: impl FnOnce(&Path),
    ) -> String {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        let mut history = file(&config, 11, "orders", "order 17.json", state);
        if !matches!(state, State::Missing | State::Cancelled) {
            history.entry = fixture::put_in_place(&config, &history.entry);
        }
        change(&mut history);
        disturb(&root.path().join("orders"));
        let entry = history.entry.clone();
        let mut follower = file(&config, 12, "orders", "order 17.json", State::Sent);
        follower.entry.previous =
            Some(FileId(11)).filter(|_| history.remarks.iter().any(|it| it.text == "taken up"));
        let mut ledger = FakeLedger::of([history, follower]);
        ledger.routes.push(RouteRecord {
            name: entry.route.clone(),
            first_sweep_at: None,
            released: false,
            paused_at: entry.unspent_since,
            pause_code: None,
        });
        let story = Story::gather(&config, &ledger, entry).unwrap();
        let (text, shown) = fixture::shown(|screen| story.tell("", screen));
        shown.unwrap();
        fixture::portable(&text, root.path())
    }

    #[test]
    fn a_sent_file_with_everything_that_can_be_said() {
        let text = told(
            State::Sent,
            |history| {
                history.entry.previous = Some(FileId(5));
                history.entry.marker = Some("order 17.done".into());
                let envelope = history.entry.envelope.as_mut().unwrap();
                envelope.conversion = Some(Conversion::Utf16Le);
                envelope.bytes = 1_025;
                envelope.remarks.push("2 numbers are beyond a double".to_owned());
                let end = history.attempts[0].end.as_mut().unwrap();
                end.request_id = Some("req-9".to_owned());
                let at = START.plus(Duration::from_secs(12));
                history.remarks.push(Remark { at, text: "released by a person".to_owned() });
            },
            |_| (),
        );
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_held_file_says_what_a_person_can_do() {
        insta::assert_snapshot!(told(State::Held, |_| (), |_| ()));
    }

    #[test]
    fn a_failed_file_says_what_a_person_can_do() {
        insta::assert_snapshot!(told(State::Failed, |_| (), |_| ()));
    }

    #[test]
    fn a_deferred_file_says_when_it_is_tried_again() {
        insta::assert_snapshot!(told(State::Deferred, |_| (), |_| ()));
    }

    #[test]
    fn a_file_whose_runs_are_looked_up_is_not_said_to_be_sent_again() {
        use crate::model::outcome::{Cause, Code};
        let doubt = |history: &mut History| {
            history.entry.last_verdict = Some(Verdict::InDoubt);
            history.entry.cause = Some(Cause::new(Code::of("cut"), "no answer"));
        };
        let text = told(State::Deferred, doubt, |_| ());
        assert!(text.contains("are looked up"), "{text}");
        assert!(!text.contains("follows") && !text.contains("try again at once"), "{text}");
    }

    #[test]
    fn a_missing_file_says_between_when() {
        insta::assert_snapshot!(told(State::Missing, |_| (), |_| ()));
    }

    fn check(
        state: State,
        change: impl FnOnce(&mut History),
        disturb: impl FnOnce(&Path),
        expected: &str,
    ) {
        let text = told(state, change, disturb);
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }

    #[test]
    fn where_it_is_now_is_looked_up_and_not_taken_from_the_record() {
        let gone = |path: &'static str| {
            move |inbox: &Path| {
                std::fs::remove_file(inbox.join(path)).unwrap();
            }
        };
        let keep = |_: &mut History| ();
        let sent = "sent/order 17.json";
        let taken = "Now: somebody has taken it from ROOT/orders/sent/order 17.json\n";
        check(State::Sent, keep, gone(sent), taken);
        let back = |inbox: &Path| {
            std::fs::rename(inbox.join("failed/order 17.json"), inbox.join("order 17.json"))
                .unwrap();
        };
        let moved = "Now: it was moved back to ROOT/orders/order 17.json\n";
        check(State::Failed, keep, back, moved);
        let path = "sending/000000000b~order 17.json";
        let lost = format!("Now: it is not at ROOT/orders/{path}, where its record says\n");
        check(State::Sending, keep, gone(path), &lost);
        let replaced = |inbox: &Path| std::fs::write(inbox.join(sent), "other").unwrap();
        let other = "but not what was sent\n";
        check(State::Sent, keep, replaced, other);
    }

    #[test]
    fn what_comes_next_depends_on_pauses_and_followers() {
        let none = |_: &Path| ();
        let paused = |history: &mut History| history.entry.unspent_since = Some(START);
        let text = "Next: nothing until a person lifts the pause of route orders, set 2026-11-21";
        check(State::Deferred, paused, none, text);
        let text = "  patchdrop resume orders\n      let the route send again\n";
        check(State::Deferred, paused, none, text);
        check(State::Sending, |_| (), none, "Next: attempt 1 is under way");
        let taken_up = |history: &mut History| {
            history.remarks.push(Remark { at: START, text: "taken up".to_owned() });
        };
        let gone = |inbox: &Path| {
            std::fs::remove_file(inbox.join("failed/order 17.json")).unwrap();
        };
        let text = "Now: it was taken up again as 000000000c (patchdrop explain 000000000c)\n";
        check(State::Failed, taken_up, gone, text);
    }

    #[test]
    fn a_file_whose_route_is_gone_waits_for_it() {
        let leave = |history: &mut History| history.entry.route.0 = "stock".into();
        let none = |_: &Path| ();
        check(State::Deferred, leave, none, "Next: nothing until route stock is there again\n");
        let text = "  write route stock into the config again, or make ROOT/orders again\n";
        check(State::Sending, leave, none, text);
        check(State::Failed, leave, none, "Next: nothing by itself\n");
    }

    #[tokio::test]
    async fn a_file_that_waits_is_told_why_and_what_comes_next() {
        let root = tempfile::tempdir().unwrap();
        let mut config = fixture::config(root.path(), &["orders"]);
        fixture::never_quiet(&mut config);
        let check = async |name: &str, content: &str, expected: &[&str]| {
            let path = root.path().join("orders").join(name);
            std::fs::write(&path, content).unwrap();
            let route = Arc::clone(&config.routes[0]);
            let ledger = FakeLedger::of([]);
            let waiting = Waiting::gather(&config, &ledger, path, route).await.unwrap();
            let record = waiting.record();
            assert_eq!(record["state"], "waiting");
            let (text, told) = fixture::shown(|screen| waiting.tell("", screen));
            told.unwrap();
            for expected in expected {
                assert!(text.contains(expected), "{expected:?} is not in\n{text}");
            }
        };
        check("b.csv", "1", &["(ignored)", "widen `include`", "No service is running"]).await;
        check("a.json", "{}", &["changed a moment ago (not-ready); it may be ready in"]).await;
    }

    #[test]
    fn json_tells_the_same_story() {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        let history = file(&config, 11, "orders", "a.json", State::Held);
        let entry = fixture::put_in_place(&config, &history.entry);
        let ledger = FakeLedger::of([History { entry: entry.clone(), ..history }]);
        let story = Story::gather(&config, &ledger, entry).unwrap();
        let (text, shown) = fixture::shown(|screen| screen.json(&story.record()));
        shown.unwrap();
        insta::assert_snapshot!(fixture::portable(&text, root.path()));
    }
}
