//! How things stand, as a copy (nothing outside the loop sees its state).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::Daemon;
use super::intake::Intake;
use crate::journey::detect::Reason;
use crate::journey::order;
use crate::journey::pace::PaceView;
use crate::journey::schedule::{PAUSED_BY_PERSON, PauseView};
use crate::journey::send;
use crate::model::outcome::Code;
use crate::model::route::{Destination, Route, RouteName};
use crate::model::status::PAUSED_WITH_ALL;
use crate::model::status::{DestinationStatus, Pace, Pause, RouteStatus, Status, Waiting};
use crate::model::step::{ALL_PAUSED, LEDGER_BEHIND, State, UNCLEAN_BOOT};
use crate::model::time::{Now, Tick, Wall};
use crate::world::World;
use crate::world::ledger::Ledger;

/// A server that asks for a longer wait than this is a person's business, too.
const LONG_WAIT: Duration = Duration::from_mins(3);

impl<W: World> Daemon<W> {
    /// Everything but the counts that only the ledger has.
    pub(super) fn snapshot(&self) -> Status {
        let now = self.now();
        let grave = self.grave();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: Some(self.notes.running_since.unwrap_or(self.started_at)),
            at: Some(now.wall),
            routes: self
                .intakes
                .values()
                .flat_map(|intake| self.route_statuses(intake, now))
                .collect(),
            destinations: self
                .schedule
                .destinations()
                .map(|(destination, pause)| DestinationStatus {
                    host: destination.host.to_string(),
                    credential: destination.credential.as_ref().map(ToString::to_string),
                    pause: pause.map(|pause| pause_of(&pause, self.a_route_to(destination), now)),
                    pace: pace_of(&self.schedule.pace(destination, now.tick), now),
                })
                .collect(),
            alerts: self.alerts(&grave, now),
            grave,
            all_paused_since: self.all_paused_at,
        }
    }

    /// What keeps files from being sent and no pause says, in sentences.
    fn grave(&self) -> Vec<String> {
        let unreached = self.notes.unreached.iter();
        let mut alerts: Vec<String> = unreached.map(|(_, text)| text.clone()).collect();
        if let Some(fault) = &self.ledger_fault {
            alerts.push(format!("sending is paused, nothing can be put on record: {fault}"));
        }
        alerts.extend(self.rooms.grave().cloned());
        if !self.unrecorded.is_empty() {
            alerts.push(format!(
                "the server's answers for {} files wait to be put on record: see to the disk of state_dir before patchdrop is stopped; a stop now would leave them in doubt",
                self.unrecorded.len()
            ));
        }
        for (name, route) in &self.unequipped {
            if let Some(fault) = &route.said {
                alerts.push(format!("route {name} is stopped: {fault}"));
            }
        }
        alerts
    }

    /// What needs a person, in sentences.
    fn alerts(&self, grave: &[String], now: Now) -> Vec<String> {
        let mut alerts = [grave, &self.notes.alerts].concat();
        alerts.extend(self.rooms.alerts().cloned());
        if let Some((id, why)) = self.stumbles.first_key_value() {
            let files = self.stumbles.len();
            alerts.push(format!(
                "{files} claimed files cannot go on and are tried again, e.g. {id}: {why}"
            ));
        }
        if self.changed.files > 0 {
            let Waiting { files, example, .. } = &self.changed;
            alerts.push(format!(
                "{files} accepted files were changed in sending/ before they were moved, e.g. {example}: what lies in sent/ is not what was accepted, see the .why.txt beside it. Nobody but patchdrop may write into sending/"
            ));
        }
        for (route, entries) in &self.unsettled {
            let files = match entries.len() {
                1 => "1 file waits".to_owned(),
                many => format!("{many} files wait"),
            };
            alerts.push(format!(
                "{files} in sending/ of route {route}, which is not configured or not there: nothing becomes of them until it is back, in the config or on disk"
            ));
        }
        for (route, cause) in &self.asking_faults {
            alerts.push(format!(
                "what became of runs of route {route} cannot be asked: {} ({}); its accepted files wait in sending/, and patchdrop goes on asking. Check core_url, and that its credential may read runs",
                cause.plain, cause.code
            ));
        }
        for (destination, pause) in self.schedule.destinations() {
            let until = self.schedule.pace(destination, now.tick).until;
            let wait = until.map_or(Duration::ZERO, |until| until.since(now.tick));
            if pause.is_none() && wait >= LONG_WAIT {
                alerts.push(format!(
                    "{destination} lets nothing in until {}: it has asked for that wait. `patchdrop resume ROUTE` tries sooner; retry_after_max of [destination.\"{}\"] bounds what is believed",
                    wall_of(until.unwrap_or(now.tick), now),
                    destination.host
                ));
            }
        }
        self.alerts_about_waiting(now, &mut alerts);
        let not_routes = self.not_routes.iter();
        alerts.extend(not_routes.map(|(folder, why)| no_route_alert(folder, why)));
        for intake in self.intakes.values().filter(|intake| intake.is_parent) {
            alerts.extend(parent_alerts(
                &intake.folder,
                intake.left_in_parent(),
                intake.fault.as_deref(),
            ));
        }
        alerts
    }

    /// What keeps many files waiting and no pause says.
    fn alerts_about_waiting(&self, now: Now, alerts: &mut Vec<String>) {
        for (destination, _) in self.schedule.destinations() {
            if self.schedule.is_wary_of(destination, now.tick) {
                let route =
                    self.a_route_to(destination).map_or("ROUTE".into(), ToString::to_string);
                alerts.push(format!(
                    "{destination} has left files in doubt one after the other: it gets one file at a time, and the more it leaves in doubt the longer patchdrop waits, up to 4 hours. Look at what the files in held/ say: a server that answers late needs a longer `timeout`, one that cuts connections a look of its own; `patchdrop resume {route}` tries at once"
                ));
            }
        }
        alerts.extend(self.equipped.values().filter_map(|equipped| {
            let view = self.schedule.view(&equipped.route.name);
            let route = &equipped.route.name;
            if view.parked + view.asking >= super::PARKED_MAX {
                return Some(format!(
                    "{} files of route {route} wait in sending/ for another attempt: nothing new is claimed before some of them have gone. `patchdrop list --route {route} --state deferred` tells why they wait",
                    view.parked + view.asking
                ));
            }
            let pause = view.pause.filter(|_| equipped.route.order.is_some())?;
            Some(format!(
                "route {route} keeps an order, and its first file is refused ({}): if it is that file alone, move it out of sending/ and `patchdrop resume {route}` lets the next one go",
                pause.cause.code
            ))
        }));
    }

    /// A route that sends there: what helps one of them helps all.
    fn a_route_to(&self, destination: &Destination) -> Option<&RouteName> {
        let mut routes = self.equipped.values().map(|equipped| &equipped.route);
        let route = routes.find(|route| {
            route.deliver.host == destination.host
                && route.deliver.credential == destination.credential
        });
        route.map(|route| &route.name)
    }

    /// What waits in a drop folder for one of its routes. What is ready and waits for nothing but
    /// the pace is told from what waits for its turn.
    fn waiting(&self, intake: &Intake, index: usize, now: Now) -> BTreeMap<String, Waiting> {
        let mut waiting = intake.waiting(index, now);
        let route = intake.routes.get(index).map(|(equipped, _)| &equipped.route.name);
        let until = route.and_then(|route| self.schedule.paced_until(route, now.tick));
        if let Some(until) = until
            && let Some(ready) = waiting.remove(Reason::Ready.name())
        {
            let paced = Waiting { next_look_at: Some(wall_of(until, now)), ..ready };
            waiting.insert(Reason::Paced.name().to_owned(), paced);
        }
        // Where nothing is sent at all, whose turn it is keeps nobody waiting.
        let code = route.and_then(|route| self.records.get(route)?.pause_code.as_ref());
        if code.is_some_and(|code| code.0 == ALL_PAUSED)
            && let Some(in_line) = waiting.remove(Reason::InLine.name())
        {
            let paused = waiting.entry(Reason::Paused.name().to_owned()).or_default();
            let oldest_at = paused.oldest_at.into_iter().chain(in_line.oldest_at).min();
            let files = paused.files + in_line.files;
            let first = if paused.files > 0 { std::mem::take(paused) } else { in_line };
            *paused = Waiting { files, oldest_at, ..first };
        }
        let foreign = route.and_then(|route| self.foreign.get(route));
        if let Some(foreign) = foreign.filter(|foreign| foreign.files > 0) {
            waiting.insert(Reason::Foreign.name().to_owned(), foreign.clone());
        }
        waiting
    }

    fn deferred_for_ms(&self, route: &RouteName) -> u64 {
        u64::try_from(self.schedule.longest_wait(route).as_millis()).unwrap_or(u64::MAX)
    }

    fn route_statuses(&self, intake: &Intake, now: Now) -> Vec<RouteStatus> {
        intake
            .routes
            .iter()
            .enumerate()
            .map(|(index, (equipped, _))| {
                let route = &equipped.route;
                let view = self.schedule.view(&route.name);
                let record = self.records.get(&route.name);
                let on_record = self.delivered_at.get(&route.name).copied();
                let code = record.and_then(|record| record.pause_code.as_ref());
                let by_person =
                    view.paused_by_person.map(|since| pause_on_record(route, since, code));
                let by_itself =
                    view.pause.as_ref().map(|pause| pause_of(pause, Some(&route.name), now));
                RouteStatus {
                    name: route.name.to_string(),
                    folder: route.folders.inbox.display().to_string(),
                    host: route.deliver.host.to_string(),
                    credential: route.deliver.credential.as_ref().map(ToString::to_string),
                    pause: self.order_pause(&route.name).or(by_person).or(by_itself),
                    waiting: self.waiting(intake, index, now),
                    sending: view.active as u64,
                    deferred: view.parked as u64,
                    deferred_for_ms: self.deferred_for_ms(&route.name),
                    confirming: view.asking as u64,
                    next_due_at: view.next_due_at.map(|due| wall_of(due, now)),
                    last_sent_at: view.last_sent_at.max(on_record),
                    swept_at: intake.swept_at,
                    folder_fault: intake.fault.clone(),
                    watch_fault: intake.watch_fault.clone(),
                    ..RouteStatus::default()
                }
            })
            .collect()
    }
}

/// What lies in a parent of routes and belongs to none, in sentences.
pub fn parent_alerts<'a>(
    folder: &Path,
    left: impl IntoIterator<Item = (Reason, &'a Waiting)>,
    fault: Option<&str>,
) -> Vec<String> {
    let folder = folder.display();
    let alert = |(reason, waiting): (Reason, &Waiting)| {
        let Waiting { files, example, .. } = waiting;
        let (name, remedy) = (reason.name(), reason.remedy());
        match files {
            1 => format!("{example} stays in {folder} ({name}). {remedy}"),
            _ => format!("{files} stay in {folder} ({name}), such as {example}. {remedy}"),
        }
    };
    let mut alerts: Vec<String> = left.into_iter().map(alert).collect();
    alerts.extend(fault.map(|fault| format!("{folder} is not looked into: {fault}")));
    alerts
}

/// A folder that a person would expect to be a route, and why it is none.
#[must_use]
pub fn no_route_alert(folder: &Path, why: &str) -> String {
    format!("{} is no route, nothing in it is sent: {why}", folder.display())
}

/// The pause that is on record, which a person lifts: one that a person has set, or a failed file
/// where the route keeps an order, or that of an old ledger, or of one whose end a power cut may
/// have taken.
#[must_use]
pub fn pause_on_record(route: &Route, since: Wall, code: Option<&Code>) -> Pause {
    match code.map(|code| &*code.0) {
        Some(LEDGER_BEHIND) => return paused_by_an_old_ledger(route, since),
        Some(UNCLEAN_BOOT) => return paused_by_an_unclean_boot(route, since),
        _ => {}
    }
    let is_with_all = code.is_some_and(|code| code.0 == ALL_PAUSED);
    let text = if is_with_all {
        PAUSED_WITH_ALL
    } else if order::pauses(route, State::Failed) {
        "a person paused it, or a file failed and on_failed = \"pause\""
    } else {
        "a person paused it"
    };
    Pause {
        code: PAUSED_BY_PERSON.to_string(),
        text: text.into(),
        remedy: if is_with_all {
            "`patchdrop resume --all` lets all go on that were paused so.".into()
        } else {
            format!("`patchdrop resume {}` lets it go on.", route.name)
        },
        since: Some(since),
        next_probe_at: None,
    }
}

/// The pause in which every route starts when the ledger is an old copy.
fn paused_by_an_old_ledger(route: &Route, since: Wall) -> Pause {
    Pause {
        code: LEDGER_BEHIND.to_owned(),
        text: "the ledger is an older copy: what it does not know may have been sent".into(),
        remedy: format!(
            "Compare sent/ with the receiver, then `patchdrop resume {}` lets it go on.",
            route.name
        ),
        since: Some(since),
        next_probe_at: None,
    }
}

/// The pause in which every route starts when a power cut may have taken the end of the record.
fn paused_by_an_unclean_boot(route: &Route, since: Wall) -> Pause {
    Pause {
        code: UNCLEAN_BOOT.to_owned(),
        text: "the system was started anew before the record was on the disk: what was sent last \
               may not be on record"
            .into(),
        remedy: format!(
            "Compare what is in the drop folder and in held/ with the receiver, take away what it \
             has, then `patchdrop resume {}` lets the rest go.",
            route.name
        ),
        since: Some(since),
        next_probe_at: None,
    }
}

fn pause_of(pause: &PauseView, route: Option<&RouteName>, now: Now) -> Pause {
    Pause {
        code: pause.cause.code.to_string(),
        text: pause.cause.plain.clone(),
        remedy: send::remedy(&pause.cause, route),
        since: Some(pause.since),
        next_probe_at: Some(wall_of(pause.next_probe_at, now)),
    }
}

fn pace_of(view: &PaceView, now: Now) -> Option<Pace> {
    let pace = Pace {
        requests: view.rate.map(|rate| rate.count),
        per_ms: view.rate.and_then(|rate| u64::try_from(rate.per.as_millis()).ok()),
        at_once: view.at_once.map(|most| most as u64),
        until: view.until.map(|until| wall_of(until, now)),
    };
    (pace != Pace::default()).then_some(pace)
}

fn wall_of(tick: Tick, now: Now) -> Wall {
    now.wall.plus(tick.since(now.tick))
}

/// What patchdrop itself has paused it pauses anew after a restart, for a fault that is as old as
/// the oldest file that waits, unless another one was accepted since.
fn date_pauses_back(status: &mut Status) {
    fn dated<'r>(pause: &Pause, routes: impl Iterator<Item = &'r RouteStatus>) -> Option<Wall> {
        // One that a person lifts is on record itself.
        pause.next_probe_at?;
        let (oldest, last_sent): (Vec<_>, Vec<_>) =
            routes.map(|route| (route.deferred_since, route.last_sent_at)).unzip();
        let stands_since = oldest.into_iter().flatten().min()?;
        let stands_since = last_sent.into_iter().flatten().fold(stands_since, Wall::max);
        pause.since.map(|since| since.min(stands_since))
    }
    for route in &mut status.routes {
        let since = route.pause.as_ref().and_then(|pause| dated(pause, std::iter::once(&*route)));
        if let (Some(pause), Some(_)) = (&mut route.pause, since) {
            pause.since = since;
        }
    }
    for destination in &mut status.destinations {
        let Some(pause) = &mut destination.pause else { continue };
        let its_own = status.routes.iter().filter(|route| {
            route.host == destination.host && route.credential == destination.credential
        });
        if let Some(since) = dated(pause, its_own) {
            pause.since = Some(since);
        }
    }
}

/// Adds what only the ledger knows.
pub(super) async fn with_counts<W: World>(world: &W, mut status: Status) -> Status {
    match world.ledger().counts().await {
        Ok(counts) => {
            for count in counts {
                let route = status.routes.iter_mut().find(|route| route.name == count.route);
                let Some(route) = route else { continue };
                let of = |state: State| count.states.get(state.name()).copied().unwrap_or(0);
                route.held = of(State::Held);
                route.failed = of(State::Failed);
                route.sent = of(State::Sent);
                route.deferred_since = count.retried_since;
            }
            date_pauses_back(&mut status);
        }
        Err(error) => {
            let text = format!("the ledger cannot be read: {error}");
            status.alerts.push(text.clone());
            status.grave.push(text);
        }
    }
    status
}
