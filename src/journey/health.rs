//! Is all well? One judgement for monitoring (`patchdrop health`) and for the heartbeat.
//!
//! Made from the same copy that `status` shows: what is critical keeps files from being sent and
//! does not pass by itself soon; what is a warning waits for a person and holds nothing else up.

use std::fmt::Write as _;
use std::time::Duration;

use crate::journey::detect::Reason;
use crate::journey::schedule::PAUSED_BY_PERSON;
use crate::model::status::{PAUSED_WITH_ALL, Pause, RouteStatus, Status};
use crate::model::time::Wall;

/// How long a file may be due unless something else is asked for.
pub const MAX_WAIT: Duration = Duration::from_mins(15);

/// A pause that is shorter passes by itself: a server that is started anew, a lost connection.
pub const GRACE: Duration = Duration::from_mins(5);

/// How well it is. The numbers are those of monitoring plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Nothing to do.
    Ok = 0,
    /// Something waits for a person; the rest goes on.
    Warning = 1,
    /// Files are not sent.
    Critical = 2,
    /// It could not be found out.
    Unknown = 3,
}

/// Something that is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symptom {
    /// How bad it is.
    pub level: Level,
    /// What, one sentence.
    pub text: String,
    /// What to do; may be empty.
    pub remedy: String,
}

impl Symptom {
    /// A symptom.
    pub fn new(level: Level, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level, text: text.into(), remedy: remedy.into() }
    }
}

/// What is counted for monitoring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Routes.
    pub routes: u64,
    /// Files in drop folders that are to be sent, and files on their way.
    pub waiting: u64,
    /// How long the file that has waited longest has been due.
    pub oldest_wait: Duration,
    /// Files in `held/`.
    pub held: u64,
    /// Routes that are paused, by themselves or with their destination or by a person.
    pub paused: u64,
}

/// What a look at the record adds, where somebody has looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lately {
    /// Files that failed within a day and were not taken up again.
    pub failed: u64,
    /// Held files that may have been accepted.
    pub in_doubt: u64,
}

/// Whether all is well, and if not, why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Worst first.
    pub symptoms: Vec<Symptom>,
    /// What was counted.
    pub figures: Figures,
}

impl Health {
    /// The worst of it.
    #[must_use]
    pub fn level(&self) -> Level {
        self.symptoms.first().map_or(Level::Ok, |worst| worst.level)
    }
}

/// Judges how things stand at `now`. `max_wait`: how long a file may be due.
#[must_use]
pub fn judge(status: &Status, lately: Lately, max_wait: Duration, now: Wall) -> Health {
    let mut symptoms = Vec::new();
    let mut figures = Figures { routes: status.routes.len() as u64, ..Figures::default() };
    for alert in &status.alerts {
        let is_grave = status.grave.contains(alert);
        let level = if is_grave { Level::Critical } else { Level::Warning };
        symptoms.push(Symptom::new(level, alert, "patchdrop status"));
    }
    if let Some(since) = status.all_paused_since {
        let alone = status.but_for_those_alone();
        let text = format!("nothing is sent{alone}: {PAUSED_WITH_ALL}, since {since}");
        symptoms.push(Symptom::new(Level::Warning, text, "patchdrop resume --all"));
    }
    for destination in &status.destinations {
        let pause = destination.pause.iter();
        let subject = format!("destination {}", destination.host);
        symptoms.extend(pause.filter_map(|pause| of_pause(&subject, pause, now)));
    }
    for route in &status.routes {
        // Said once for all of them.
        let own_pause = route.pause.iter().filter(|pause| pause.text != PAUSED_WITH_ALL);
        let subject = format!("route {}", route.name);
        symptoms.extend(own_pause.filter_map(|pause| of_pause(&subject, pause, now)));
        symptoms.extend(besides_its_pause(route, max_wait, now));
        count(route, now, &mut figures);
    }
    if lately.in_doubt > 0 {
        let text = format!("{} held because they may have been accepted", files(lately.in_doubt));
        symptoms.push(Symptom::new(Level::Warning, text, "patchdrop list --state held"));
    }
    if lately.failed > 0 {
        let text = format!("{} failed in the last 24 h", files(lately.failed));
        symptoms.push(Symptom::new(
            Level::Warning,
            text,
            "patchdrop list --state failed --since 24h",
        ));
    }
    symptoms.sort_by_key(|symptom| std::cmp::Reverse(symptom.level));
    Health { symptoms, figures }
}

/// What is not well with a route but for a pause of it.
#[must_use]
pub fn besides_its_pause(route: &RouteStatus, max_wait: Duration, now: Wall) -> Vec<Symptom> {
    let mut symptoms = Vec::new();
    let subject = format!("route {}", route.name);
    if let Some(fault) = &route.folder_fault {
        let remedy = "see that the folder is there and that the service's account may use it";
        symptoms.push(Symptom::new(Level::Critical, format!("{subject}: {fault}"), remedy));
    }
    symptoms.extend(overdue(route, max_wait, now));
    if route.held > 0 {
        let text = format!("{subject}: {} held, a person decides", files(route.held));
        let remedy = format!("patchdrop list --route {} --state held", route.name);
        symptoms.push(Symptom::new(Level::Warning, text, remedy));
    }
    for (name, waiting) in route.waiting.iter().filter(|(_, waiting)| waiting.files > 0) {
        let Some(reason) = Reason::parse(name).filter(|reason| reason.needs_a_person()) else {
            continue;
        };
        let mut text = format!("{subject}: {}: {}", files(waiting.files), reason.plain());
        if !waiting.example.is_empty() {
            // Writing to a string cannot fail.
            write!(text, ", such as {}", waiting.example).ok();
        }
        let remedy = reason.remedy().replace("NAME", &route.name);
        symptoms.push(Symptom::new(Level::Warning, text, remedy));
    }
    if let Some(fault) = &route.watch_fault {
        let text = format!("{subject}: its folder is polled, not watched: {fault}");
        // A folder that another machine serves is polled and no fault.
        let remedy = "more watches, where the system has run out of them: patchdrop doctor";
        symptoms.push(Symptom::new(Level::Warning, text, remedy));
    }
    symptoms
}

/// A person's pause is meant; any other one is a fault that should have passed.
fn of_pause(subject: &str, pause: &Pause, now: Wall) -> Option<Symptom> {
    let level = if *pause.code == *PAUSED_BY_PERSON.0 || pause.code.starts_with("order-") {
        Level::Warning
    } else if pause.since.is_none_or(|since| now.since(since) >= GRACE) {
        Level::Critical
    } else {
        return None;
    };
    let text = format!("{subject} is paused: {} ({})", pause.text, pause.code);
    Some(Symptom::new(level, text, &pause.remedy))
}

/// Whether a file has been due for too long, and its route has sent nothing for as long: a long
/// queue that gets shorter is no fault.
fn overdue(route: &RouteStatus, max_wait: Duration, now: Wall) -> Option<Symptom> {
    let has_stood = route.last_sent_at.is_none_or(|at| now.since(at) >= max_wait);
    let (wait, example) = oldest(route, now);
    if wait.is_zero() || wait < max_wait || !has_stood || route.pause.is_some() {
        return None;
    }
    let such = example.map_or_else(String::new, |name| format!(", {name}"));
    let text = format!(
        "route {}: a file has been due for {} min{such}, and nothing was sent meanwhile",
        route.name,
        wait.as_secs() / 60
    );
    Some(Symptom::new(Level::Critical, text, "patchdrop explain FILE, patchdrop status"))
}

/// How long the file that has waited longest has been due, and its name where it is known.
fn oldest(route: &RouteStatus, now: Wall) -> (Duration, Option<&str>) {
    let is_due = |name: &str| {
        matches!(
            Reason::parse(name),
            Some(
                Reason::Ready
                    | Reason::Paced
                    | Reason::InLine
                    | Reason::SameName
                    | Reason::TooManyDeferred
                    | Reason::Paused
            )
        )
    };
    let due = route.waiting.iter().filter(|(name, waiting)| is_due(name) && waiting.files > 0);
    let in_folder = due
        .filter_map(|(_, waiting)| {
            let example = (waiting.files == 1).then_some(waiting.example.as_str());
            Some((now.since(waiting.oldest_at?), example))
        })
        .max_by_key(|(wait, _)| *wait);
    let on_record = route.deferred_since.map_or(Duration::ZERO, |since| now.since(since));
    let deferred = (on_record.max(Duration::from_millis(route.deferred_for_ms)), None);
    in_folder.filter(|(wait, _)| *wait >= deferred.0).unwrap_or(deferred)
}

fn count(route: &RouteStatus, now: Wall, figures: &mut Figures) {
    let goes = |name: &str| Reason::parse(name).is_some_and(Reason::is_to_be_sent);
    let waiting = route.waiting.iter().filter(|(name, _)| goes(name));
    let in_folder = waiting.map(|(_, waiting)| waiting.files).sum::<u64>();
    figures.waiting += in_folder + route.sending + route.deferred;
    figures.oldest_wait = figures.oldest_wait.max(oldest(route, now).0);
    figures.held += route.held;
    figures.paused += u64::from(route.pause.is_some());
}

fn files(number: u64) -> String {
    if number == 1 { "1 file".to_owned() } else { format!("{number} files") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::{DestinationStatus, Waiting};

    const NOW: Wall = Wall(1_795_248_000_000);
    const MINUTE: Duration = Duration::from_mins(1);

    fn ago(minutes: u32) -> Wall {
        NOW.minus(MINUTE * minutes)
    }

    fn pause(code: &str, minutes: u32) -> Pause {
        Pause { code: code.into(), since: Some(ago(minutes)), ..Pause::default() }
    }

    fn waiting(reason: Reason, minutes: u32) -> (String, Waiting) {
        let waiting = Waiting { files: 1, oldest_at: Some(ago(minutes)), ..Waiting::default() };
        (reason.name().to_owned(), waiting)
    }

    #[track_caller]
    fn check(route: RouteStatus, expected: Level) {
        let status = Status { routes: vec![route], ..Status::default() };
        let health = judge(&status, Lately::default(), MAX_WAIT, NOW);
        assert_eq!(health.level(), expected, "{health:?}");
        assert_eq!(health.symptoms.is_empty(), expected == Level::Ok, "{health:?}");
    }

    fn waits(reason: Reason, minutes: u32) -> RouteStatus {
        RouteStatus { waiting: [waiting(reason, minutes)].into(), ..RouteStatus::default() }
    }

    #[test]
    fn a_route_is_judged_by_what_keeps_its_files() {
        let quiet = RouteStatus::default;
        check(quiet(), Level::Ok);
        check(RouteStatus { sent: 7, failed: 9, sending: 3, ..quiet() }, Level::Ok);
        check(RouteStatus { held: 1, ..quiet() }, Level::Warning);
        check(RouteStatus { folder_fault: Some("gone".into()), ..quiet() }, Level::Critical);
        check(RouteStatus { watch_fault: Some("no more".into()), ..quiet() }, Level::Warning);
        check(
            RouteStatus { pause: Some(pause(&PAUSED_BY_PERSON.0, 99)), ..quiet() },
            Level::Warning,
        );
        check(RouteStatus { pause: Some(pause("order-failed", 99)), ..quiet() }, Level::Warning);
        check(RouteStatus { pause: Some(pause("http-404", 4)), ..quiet() }, Level::Ok);
        check(RouteStatus { pause: Some(pause("http-404", 5)), ..quiet() }, Level::Critical);
        check(RouteStatus { pause: Some(Pause::default()), ..quiet() }, Level::Critical);
    }

    #[test]
    fn a_file_may_be_due_for_a_while_and_longer_in_a_queue_that_moves() {
        check(waits(Reason::Ready, 14), Level::Ok);
        check(waits(Reason::Ready, 15), Level::Critical);
        check(waits(Reason::Paced, 15), Level::Critical);
        check(RouteStatus { last_sent_at: Some(ago(14)), ..waits(Reason::Ready, 99) }, Level::Ok);
        check(
            RouteStatus { last_sent_at: Some(ago(15)), ..waits(Reason::Ready, 99) },
            Level::Critical,
        );
        // Its pause says it already.
        let paused = RouteStatus {
            pause: Some(pause(&PAUSED_BY_PERSON.0, 99)),
            ..waits(Reason::Paused, 99)
        };
        check(paused, Level::Warning);
        // Not due: its writer is at it, or it is nobody's.
        check(waits(Reason::InUse, 99), Level::Ok);
        check(waits(Reason::NoMarker, 99), Level::Ok);
        check(waits(Reason::Temporary, 99), Level::Ok);
        check(waits(Reason::Ignored, 1), Level::Warning);
        check(waits(Reason::OlderThanFirstSweep, 99), Level::Warning);
        let deferred = |minutes: u64| RouteStatus {
            deferred: 1,
            deferred_for_ms: minutes * 60_000,
            ..RouteStatus::default()
        };
        // A restart has lost what was counted before it, and not what is on record.
        let on_record = |minutes| RouteStatus { deferred_since: Some(ago(minutes)), ..deferred(0) };
        check(on_record(14), Level::Ok);
        check(on_record(15), Level::Critical);
        check(RouteStatus { last_sent_at: Some(ago(14)), ..on_record(99) }, Level::Ok);
        check(deferred(14), Level::Ok);
        check(deferred(15), Level::Critical);
        // Nothing waits, and so for no time.
        assert!(overdue(&RouteStatus::default(), Duration::ZERO, NOW).is_none());
    }

    #[test]
    fn what_concerns_all_routes_is_judged_too() {
        let check = |status: &Status, lately: Lately, expected: Level| {
            assert_eq!(judge(status, lately, MAX_WAIT, NOW).level(), expected, "{status:?}");
        };
        let none = Lately::default();
        let alerts = vec!["the ledger cannot be written".to_owned(), "a file too many".to_owned()];
        let mut status = Status { alerts: alerts.clone(), ..Status::default() };
        check(&status, none, Level::Warning);
        status.grave = alerts[..1].to_vec();
        check(&status, none, Level::Critical);
        let away = |minutes| DestinationStatus {
            pause: Some(pause("connect-refused", minutes)),
            ..DestinationStatus::default()
        };
        let status = |minutes| Status { destinations: vec![away(minutes)], ..Status::default() };
        check(&status(4), none, Level::Ok);
        check(&status(5), none, Level::Critical);
        check(&Status::default(), Lately { failed: 1, in_doubt: 0 }, Level::Warning);
        check(&Status::default(), Lately { failed: 0, in_doubt: 1 }, Level::Warning);
    }

    #[test]
    fn the_worst_comes_first_and_everything_is_counted() {
        let bad = RouteStatus {
            pause: Some(pause("http-404", 60)),
            sending: 2,
            ..waits(Reason::Paused, 90)
        };
        let held = RouteStatus { held: 3, deferred: 1, ..waits(Reason::Ready, 1) };
        let status = Status { routes: vec![held, bad], ..Status::default() };
        let health = judge(&status, Lately::default(), MAX_WAIT, NOW);
        let levels: Vec<Level> = health.symptoms.iter().map(|symptom| symptom.level).collect();
        assert_eq!(levels, [Level::Critical, Level::Warning]);
        let expected =
            Figures { routes: 2, waiting: 5, oldest_wait: MINUTE * 90, held: 3, paused: 1 };
        assert_eq!(health.figures, expected);
    }
}
