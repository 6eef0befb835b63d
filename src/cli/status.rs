//! `patchdrop status`: how things stand, what needs a person first.

use std::time::Duration;

use super::Globals;
use super::exit_code::Exit;
use super::failure::Failure;
use super::load::{self, Secrets};
use super::preview::{self, Depth, Looker, Ruled, Survey};
use super::records::{self, Records};
use super::screen::{Align, Screen, Style, Table, counted, grouped};
use crate::config::Config;
use crate::daemon;
use crate::journey::detect::Reason;
use crate::journey::health::{self, MAX_WAIT};
use crate::journey::settle;
use crate::model::command::{Command, CommandAnswer};
use crate::model::route::Route;
use crate::model::status::{DestinationStatus, PAUSED_WITH_ALL, Pause, RouteStatus, Status};
use crate::model::step::State;
use crate::world::control::{self, ControlError};
use crate::world::ledger::{Count, Query};

/// Entries read at a time.
const PAGE: usize = 1_000;

/// How things stand: what needs you first, then every route
#[derive(Debug, clap::Args)]
#[command(after_help = "It asks the running service; without one it reads ledger and folders.\n\n\
    Example:\n  \
    patchdrop status --json | jq '.routes[] | select(.held > 0) | .name'")]
pub(super) struct Arguments {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let status = ask(globals, screen).await?;
    if arguments.json {
        screen.json(&status)?;
    } else {
        render(&status, screen)?;
    }
    Ok(Exit::Done)
}

/// How things stand, for a person who asked for more than that.
pub(super) async fn show(globals: &Globals, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let status = ask(globals, screen).await?;
    render(&status, screen)?;
    Ok(Exit::Done)
}

async fn ask(globals: &Globals, screen: &Screen<'_>) -> Result<Status, Failure> {
    let config = match globals.load(Secrets::MayBeMissing) {
        Ok(config) => config,
        Err(failure) => {
            let note = load::goes_on_without(globals, &failure);
            let asked = load::ask_in_spite_of(globals, failure, &Command::Status);
            let mut status = status_in(asked.await?)?;
            status.alerts.push(note);
            return Ok(status);
        }
    };
    Ok(match control::ask(&config.state_dir, &Command::Status).await {
        Ok(answer) => status_in(answer)?,
        Err(ControlError::NoService { .. }) => {
            let ledger = records::open_ledger(&config)?;
            without_service(&config, &ledger, &screen.style).await?
        }
        Err(error) => return Err(error.into()),
    })
}

fn status_in(answer: CommandAnswer) -> Result<Status, Failure> {
    match answer {
        CommandAnswer::Status(status) => Ok(*status),
        CommandAnswer::Refused(why) => Err(Failure::machine(why)),
        CommandAnswer::Done(_) => {
            let what = "the service answered something else than its status";
            Err(Failure::new(super::Kind::Bug, what))
        }
    }
}

/// How things stand as far as config, ledger and folders tell.
async fn without_service(
    config: &Config,
    ledger: &impl Records,
    style: &Style,
) -> Result<Status, Failure> {
    let counts = ledger.counts()?;
    let looker = Looker::new(ledger, Depth::Outside);
    let grave: Vec<String> =
        vec!["no service is running: nothing is sent (start it: patchdrop service start, or patchdrop run)".into()];
    let mut alerts = grave.clone();
    let broken = config.broken.iter();
    alerts.extend(broken.map(|it| format!("route {} cannot run: {}", it.name, it.notice.text)));
    let not_routes = load::not_routes(config);
    alerts.extend(not_routes.iter().map(|(folder, it)| daemon::no_route_alert(folder, &it.text)));
    let mut routes = Vec::new();
    for inbox in preview::inboxes(config, ledger)? {
        let (survey, fault) = match looker.survey(&inbox).await? {
            Ok(survey) => (survey, None),
            Err(error) => (Survey::new(), Some(daemon::chain(&error))),
        };
        if inbox.routes.is_empty() {
            let left = survey.iter().map(|((_, reason), waiting)| (*reason, waiting));
            alerts.extend(daemon::parent_alerts(&inbox.folder, left, fault.as_deref()));
        }
        for (index, ruled) in inbox.routes.iter().enumerate() {
            let name = &ruled.route.name;
            let count = counts.iter().find(|count| *count.route == *name.0);
            let mut status = route_status(ruled, count);
            let own = survey.iter().filter(|((route, _), _)| *route == index);
            status.waiting =
                own.map(|((_, reason), it)| (reason.name().to_owned(), it.clone())).collect();
            status.folder_fault.clone_from(&fault);
            status.next_due_at = next_due(ledger, &ruled.route)?;
            status.last_sent_at = last_sent(ledger, &ruled.route)?;
            routes.push(status);
        }
    }
    routes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: 0,
        started_at: None,
        at: Some(style.now),
        routes,
        destinations: Vec::new(),
        alerts,
        grave,
        all_paused_since: ledger.all_paused_at()?,
    })
}

fn route_status(ruled: &Ruled, count: Option<&Count>) -> RouteStatus {
    let route = &ruled.route;
    let files =
        |state: State| count.and_then(|count| count.states.get(state.name())).copied().unwrap_or(0);
    RouteStatus {
        name: route.name.to_string(),
        folder: route.folders.inbox.display().to_string(),
        host: route.deliver.host.to_string(),
        credential: route.deliver.credential.as_ref().map(ToString::to_string),
        deferred_since: count.and_then(|count| count.retried_since),
        pause: ruled
            .paused_at
            .map(|since| daemon::pause_on_record(route, since, ruled.pause_code.as_ref())),
        sending: files(State::Sending),
        deferred: files(State::Deferred),
        confirming: files(State::Confirming),
        held: files(State::Held),
        failed: files(State::Failed),
        sent: files(State::Sent),
        ..RouteStatus::default()
    }
}

fn next_due(
    ledger: &impl Records,
    route: &Route,
) -> Result<Option<crate::model::time::Wall>, Failure> {
    let (mut before, mut first) = (None, None);
    loop {
        let query = Query {
            route: Some(route.name.clone()),
            states: vec![State::Deferred],
            before,
            limit: PAGE,
            ..Query::default()
        };
        let page = ledger.list(&query)?;
        let Some(last) = page.last() else { return Ok(first) };
        before = Some(last.id);
        first = first.into_iter().chain(page.iter().filter_map(|entry| entry.due_at)).min();
    }
}

fn last_sent(
    ledger: &impl Records,
    route: &Route,
) -> Result<Option<crate::model::time::Wall>, Failure> {
    let query = Query {
        route: Some(route.name.clone()),
        states: vec![State::Sent],
        limit: 1,
        ..Query::default()
    };
    Ok(ledger.list(&query)?.first().and_then(|entry| entry.decided_at))
}

/// The whole page.
fn render(status: &Status, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let style = screen.style.clone();
    let heading = match status.started_at {
        Some(at) => format!(
            "patchdrop {}, running since {} (process {})",
            status.version,
            style.time(at),
            status.pid
        ),
        None => format!("patchdrop {}, not running", status.version),
    };
    writeln!(screen.out, "{}\n", style.bold(&heading))?;
    let needs = needs_attention(status, &style);
    if needs.is_empty() {
        writeln!(screen.out, "{}\n", style.well("All is well."))?;
    } else {
        writeln!(screen.out, "{}", style.alarm("Needs attention"))?;
        for (what, remedy) in needs {
            writeln!(screen.out, "  {what}")?;
            if !remedy.is_empty() {
                writeln!(screen.out, "      {remedy}")?;
            }
        }
        writeln!(screen.out)?;
    }
    routes_table(status, &style).write(screen, "")?;
    let paces = pace_lines(status, &style);
    if !paces.is_empty() {
        writeln!(screen.out, "\n{}", style.bold("Pace"))?;
        for line in paces {
            writeln!(screen.out, "  {line}")?;
        }
    }
    let waiting = waiting_lines(status, &style);
    if !waiting.is_empty() {
        writeln!(screen.out, "\n{}", style.bold("In the drop folders"))?;
        for line in waiting {
            writeln!(screen.out, "  {line}")?;
        }
    }
    Ok(())
}

fn named(destination: &DestinationStatus) -> String {
    match &destination.credential {
        Some(credential) => format!("{} as {credential}", destination.host),
        None => destination.host.clone(),
    }
}

/// How fast destinations are sent to, where something bounds that.
fn pace_lines(status: &Status, style: &Style) -> Vec<String> {
    let line = |destination: &DestinationStatus| {
        let pace = destination.pace.as_ref()?;
        let mut parts = Vec::new();
        if let (Some(requests), Some(per_ms)) = (pace.requests, pace.per_ms) {
            let per = settle::spoken(Duration::from_millis(per_ms));
            parts.push(format!("at most {requests} requests in {per}"));
        }
        parts
            .extend(pace.at_once.map(|most| format!("{most} at once, because more were too many")));
        parts
            .extend(pace.until.map(|until| format!("paced, the next goes {}", style.until(until))));
        Some(format!("{}: {}", named(destination), parts.join(", ")))
    };
    status.destinations.iter().filter_map(line).collect()
}

/// What a person must know or do, with the remedy.
fn needs_attention(status: &Status, style: &Style) -> Vec<(String, String)> {
    let mut needs: Vec<(String, String)> =
        status.alerts.iter().map(|alert| (alert.clone(), String::new())).collect();
    if let Some(since) = status.all_paused_since {
        let (since, alone) = (style.time(since), status.but_for_those_alone());
        let text = format!("{PAUSED_WITH_ALL}, since {since}: nothing is sent{alone}");
        needs.push((text, "patchdrop resume --all".to_owned()));
    }
    for destination in &status.destinations {
        if let Some(pause) = &destination.pause {
            let subject = format!("destination {}", named(destination));
            needs.push(paused(&subject, pause, style));
        }
    }
    for route in &status.routes {
        let name = &route.name;
        // A pause of all is said once.
        if let Some(pause) = route.pause.as_ref().filter(|it| it.text != PAUSED_WITH_ALL) {
            needs.push(paused(&format!("route {name}"), pause, style));
        }
        // As `health` judges it.
        let symptoms = health::besides_its_pause(route, MAX_WAIT, style.now);
        needs.extend(symptoms.into_iter().map(|symptom| (symptom.text, symptom.remedy)));
        if route.failed > 0 {
            needs.push((
                format!("route {name}: {} failed", counted(route.failed, "file")),
                format!("patchdrop list --route {name} --state failed"),
            ));
        }
    }
    needs
}

fn paused(subject: &str, pause: &Pause, style: &Style) -> (String, String) {
    let since = pause.since.map(|at| format!(" since {}", style.time(at))).unwrap_or_default();
    let probe = pause.next_probe_at.map(|at| format!(", tried again {}", style.until(at)));
    let (text, code, probe) = (&pause.text, &pause.code, probe.unwrap_or_default());
    (format!("{subject} is paused{since}{probe}: {text} ({code})"), pause.remedy.clone())
}

fn routes_table(status: &Status, style: &Style) -> Table {
    // Most have no flows: a column of noughts would only be in the way.
    let confirms = status.routes.iter().any(|route| route.confirming > 0);
    let confirming = confirms.then_some(("confirming", Align::Right));
    let mut columns = vec![
        ("route", Align::Left),
        ("waiting", Align::Right),
        ("sending", Align::Right),
        ("deferred", Align::Right),
    ];
    columns.extend(confirming);
    columns.extend([
        ("held", Align::Right),
        ("failed", Align::Right),
        ("sent", Align::Right),
        ("last sent", Align::Left),
        ("to", Align::Left),
    ]);
    let mut table = Table::new(&columns);
    for route in &status.routes {
        let deferred = match route.next_due_at {
            Some(at) if route.deferred > 0 => {
                format!("{} ({})", grouped(route.deferred), style.until(at))
            }
            _ => grouped(route.deferred),
        };
        let mut row = vec![
            route.name.clone(),
            grouped(on_their_way(route)),
            grouped(route.sending),
            deferred,
        ];
        row.extend(confirms.then(|| grouped(route.confirming)));
        row.extend([
            grouped(route.held),
            grouped(route.failed),
            grouped(route.sent),
            route.last_sent_at.map_or_else(|| "never".to_owned(), |at| style.ago(at)),
            route.host.clone(),
        ]);
        table.row(row);
    }
    table
}

fn on_their_way(route: &RouteStatus) -> u64 {
    let goes = |reason: &str| Reason::parse(reason).is_some_and(Reason::is_to_be_sent);
    let waiting = route.waiting.iter().filter(|(reason, _)| goes(reason));
    waiting.map(|(_, waiting)| waiting.files).sum()
}

/// What keeps files where they were dropped, a few lines for each reason.
fn waiting_lines(status: &Status, style: &Style) -> Vec<String> {
    let mut lines = Vec::new();
    for route in &status.routes {
        for (name, waiting) in &route.waiting {
            let reason = Reason::parse(name);
            if waiting.files == 0 {
                continue;
            }
            let plain = reason.map(|reason| format!(": {}", reason.plain())).unwrap_or_default();
            let files = grouped(waiting.files);
            lines.push(format!("{}: {files} {name}{plain}", route.name));
            let mut parts = Vec::new();
            if !waiting.example.is_empty() {
                let such = if waiting.files == 1 { "" } else { "such as " };
                parts.push(format!("{such}{}", waiting.example));
            }
            parts.extend(waiting.oldest_at.map(|at| {
                let which = if waiting.files == 1 { "changed" } else { "the oldest changed" };
                format!("{which} {}", style.ago(at))
            }));
            parts.extend(waiting.next_look_at.map(|at| format!("next look {}", style.until(at))));
            if !parts.is_empty() {
                lines.push(format!("    {}", parts.join(", ")));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture::{self, FakeLedger, START, file};
    use crate::model::status::{Pace, Waiting};
    use crate::model::step::RouteRecord;
    use crate::model::time::Wall;

    fn at(seconds: u64) -> Wall {
        START.plus(Duration::from_secs(seconds))
    }

    fn busy() -> Status {
        let waiting = |files, example: &str| Waiting {
            files,
            next_look_at: Some(at(3_604)),
            oldest_at: Some(at(3_500)),
            example: example.to_owned(),
        };
        let orders = RouteStatus {
            name: "orders".to_owned(),
            folder: "/srv/patchdrop/orders".to_owned(),
            host: "inbound.pwks.co".to_owned(),
            pause: Some(Pause {
                code: "http-404".to_owned(),
                text: "the server does not know this URL".to_owned(),
                remedy: "see `vanity` of route orders".to_owned(),
                since: Some(at(3_000)),
                next_probe_at: Some(at(3_630)),
            }),
            waiting: [
                ("ready".to_owned(), waiting(12, "a.json")),
                ("truncated".to_owned(), waiting(1, "b.json")),
                ("ignored".to_owned(), waiting(2, "notes.docx")),
                ("older-than-first-sweep".to_owned(), waiting(500, "old.json")),
            ]
            .into(),
            deferred: 3,
            next_due_at: Some(at(3_660)),
            held: 2,
            failed: 1,
            sent: 1_204,
            last_sent_at: Some(at(2_900)),
            ..RouteStatus::default()
        };
        let stock = RouteStatus {
            name: "stock".to_owned(),
            host: "inbound.pwks.co".to_owned(),
            folder_fault: Some("/srv/patchdrop/stock is not there".to_owned()),
            ..RouteStatus::default()
        };
        Status {
            version: "0.1.0".to_owned(),
            pid: 4_711,
            started_at: Some(at(0)),
            at: Some(at(3_600)),
            routes: vec![orders, stock],
            destinations: vec![DestinationStatus {
                host: "inbound.pwks.co".to_owned(),
                credential: Some("inbound".to_owned()),
                pause: Some(Pause {
                    code: "connect-refused".to_owned(),
                    text: "nothing listens there".to_owned(),
                    since: Some(at(3_540)),
                    next_probe_at: Some(at(3_605)),
                    ..Pause::default()
                }),
                pace: Some(Pace {
                    requests: Some(60),
                    per_ms: Some(60_000),
                    at_once: None,
                    until: Some(at(3_620)),
                }),
            }],
            grave: Vec::new(),
            alerts: vec!["the ledger is on a disk with 1 % left".to_owned()],
            all_paused_since: None,
        }
    }

    #[test]
    fn what_needs_a_person_comes_first_and_says_what_to_do() {
        let (text, shown) = fixture::shown(|screen| render(&busy(), screen));
        shown.unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_quiet_service_says_that_all_is_well() {
        let mut status = busy();
        status.alerts.clear();
        status.destinations.clear();
        status.routes.truncate(1);
        status.routes[0] = RouteStatus {
            name: "orders".to_owned(),
            host: "inbound.pwks.co".to_owned(),
            sent: 7,
            last_sent_at: Some(at(3_599)),
            ..RouteStatus::default()
        };
        let (text, shown) = fixture::shown(|screen| render(&status, screen));
        shown.unwrap();
        insta::assert_snapshot!(text, @r"
        patchdrop 0.1.0, running since 2026-11-21 08:00:00 (process 4711)

        All is well.

        route   waiting  sending  deferred  held  failed  sent  last sent  to
        orders        0        0         0     0       0     7  1s ago     inbound.pwks.co
        ");
    }

    #[tokio::test]
    async fn without_a_service_ledger_and_folders_tell() {
        let root = tempfile::tempdir().unwrap();
        let mut config = fixture::config(root.path(), &["orders", "stock"]);
        fixture::never_quiet(&mut config);
        let orders = root.path().join("orders");
        for name in ["a.json", "b.JSON", "c.json.tmp", ".d.json", "e.docx", "a.json.why.txt"] {
            std::fs::File::create_new(orders.join(name)).unwrap();
        }
        std::fs::DirBuilder::new().create(orders.join("older")).unwrap();
        let mut ledger = FakeLedger::of([
            file(&config, 11, "orders", "1.json", State::Sent),
            file(&config, 12, "orders", "2.json", State::Sent),
            file(&config, 13, "orders", "3.json", State::Deferred),
            file(&config, 14, "orders", "4.json", State::Held),
            file(&config, 15, "stock", "5.json", State::Failed),
        ]);
        ledger.routes = vec![RouteRecord {
            name: crate::model::route::RouteName::new("stock"),
            first_sweep_at: None,
            released: false,
            paused_at: Some(START),
            pause_code: None,
        }];
        let status = without_service(&config, &ledger, &fixture::style()).await.unwrap();
        let orders = &status.routes[0];
        assert_eq!((orders.sent, orders.deferred, orders.held, orders.failed), (2, 1, 1, 0));
        assert_eq!(orders.next_due_at, Some(at(3_660)));
        assert_eq!(orders.last_sent_at, Some(at(14)));
        let waiting: Vec<(&str, u64)> =
            orders.waiting.iter().map(|(reason, it)| (reason.as_str(), it.files)).collect();
        let expected = [
            ("ignored", 1),
            ("in-a-subfolder", 1),
            ("not-ready", 2),
            ("sidecar", 1),
            ("temporary", 2),
        ];
        assert_eq!(waiting, expected);
        let pause = status.routes[1].pause.as_ref().unwrap();
        assert_eq!((pause.code.as_str(), pause.since), ("paused-by-person", Some(START)));
        assert_eq!((status.pid, status.started_at), (0, None));
        let (text, shown) = fixture::shown(|screen| render(&status, screen));
        shown.unwrap();
        assert!(text.starts_with("patchdrop 0.1.0, not running\n"), "{text}");
        assert!(text.contains("no service is running"), "{text}");
    }

    #[test]
    fn json_is_the_status_itself() {
        let (text, shown) = fixture::shown(|screen| screen.json(&busy()));
        shown.unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), busy());
    }
}
