//! The loop's part about commands: each is one event, carried out one at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::carry::{self, Context, Equipped, Report};
use super::event::{TakenUp, Ticket, Work};
use super::folders::chain;
use super::resume;
use super::{Daemon, Mode, status};
use crate::journey::runs::Errand;
use crate::journey::schedule::Refused;
use crate::model::command::{Command, CommandAnswer, Done};
use crate::model::file::FileId;
use crate::model::outcome::{Cause, Code};
use crate::model::route::RouteName;
use crate::model::step::{ALL_PAUSED, Entry, RouteRecord, State, Step};
use crate::model::time::Wall;
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::folder::Disk;
use crate::world::ledger::{Ledger, Query};

type Equipment = BTreeMap<RouteName, Arc<Equipped>>;

/// A file that is on its last move is waited for so long before a command refuses it.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);
const SETTLES_LOOK: Duration = Duration::from_millis(25);

/// Files taken by one page of a list.
const PAGE: usize = 500;

impl<W: World> Daemon<W> {
    /// Begins to carry out a command.
    pub(super) fn obey(&mut self, command: Command, reply: oneshot::Sender<CommandAnswer>) {
        let now = self.now();
        self.command_under_way = true;
        let ctx = Arc::clone(&self.ctx);
        let equipped = self.equipped.clone();
        match command {
            Command::Status => {
                let snapshot = self.snapshot();
                self.spawn(Ticket::Command, async move {
                    let status = status::with_counts(&*ctx.world, snapshot).await;
                    answer(reply, CommandAnswer::Status(Box::new(status)));
                    Work::TakenUp(Vec::new())
                });
            }
            Command::Sweep => {
                self.intakes.values_mut().for_each(super::Intake::touch);
                let done = done("all routes", true, "looking into every folder now", now.wall);
                answer(reply, CommandAnswer::Done(vec![done]));
                self.command_under_way = false;
            }
            // Whoever starts the loop reads configs; without a service there is none to be changed.
            Command::Reload => {
                let why = "no service runs that could go on with a changed config; it is read at each start";
                answer(reply, CommandAnswer::Refused(why.into()));
                self.command_under_way = false;
            }
            Command::Pause { route } => self.pause_route(&route, reply),
            Command::Resume { route } => self.resume_route(&route, reply),
            Command::PauseAll => {
                let since = self.all_paused_at.unwrap_or(now.wall);
                self.set_all_routes(reply, Some(since), pause_with_all);
            }
            Command::ResumeAll => self.set_all_routes(reply, None, resume_with_all),
            Command::ReleaseRoute { route, held: false } => {
                self.set_route(&route, reply, |record, _| {
                    record.released = true;
                    if record.paused_at.is_none() {
                        return "its old files go out now".into();
                    }
                    let all = if is_paused_with_all(record) { "--all" } else { &*record.name.0 };
                    format!("its old files go out once it is not paused: patchdrop resume {all}")
                });
            }
            Command::ReleaseRoute { route, held: true } => {
                self.spawn(Ticket::Command, async move {
                    match ids_in(&ctx, &route, State::Held).await {
                        Ok(ids) => release_all(&ctx, &equipped, ids, reply).await,
                        Err(why) => {
                            answer(reply, CommandAnswer::Refused(why));
                            Work::TakenUp(Vec::new())
                        }
                    }
                });
            }
            Command::Release { ids } => self.spawn(Ticket::Command, async move {
                release_all(&ctx, &equipped, ids, reply).await
            }),
            Command::Resend { ids } => {
                let only_this = self.mode == Mode::OneCommand;
                self.spawn(Ticket::Command, async move {
                    resend_all(&ctx, &equipped, ids, reply, only_this).await
                });
            }
            Command::Mark { id, sent, note } => self.spawn(Ticket::Command, async move {
                mark(&ctx, &equipped, id, sent, note, reply).await
            }),
        }
    }

    fn pause_route(&mut self, route: &str, reply: oneshot::Sender<CommandAnswer>) {
        self.set_route(route, reply, |record, at| {
            record.paused_at.get_or_insert(at);
            record.pause_code = None;
            format!(
                "paused: nothing is claimed or sent until `patchdrop resume {}`; what is in flight \
                 ends",
                record.name
            )
        });
    }

    fn resume_route(&mut self, route: &str, reply: oneshot::Sender<CommandAnswer>) {
        let is_alone = self.all_paused_at.is_some();
        self.set_route(route, reply, |record, _| {
            record.paused_at = None;
            record.pause_code = None;
            if is_alone {
                "goes on alone; all others stay paused until `patchdrop resume --all`".into()
            } else {
                "goes on; if patchdrop itself had paused it, one file tries now".into()
            }
        });
    }

    /// Changes a route's record, durably, then acts on it.
    fn set_route(
        &mut self,
        name: &str,
        reply: oneshot::Sender<CommandAnswer>,
        change: impl FnOnce(&mut RouteRecord, Wall) -> String,
    ) {
        let now = self.now();
        let known = self.records.get(&RouteName::new(name)).cloned();
        let Some(mut record) = known.filter(|_| self.equipped.contains_key(&RouteName::new(name)))
        else {
            let names: Vec<_> = self.equipped.keys().map(ToString::to_string).collect();
            let text = format!("no route {name}; the routes are: {}", names.join(", "));
            answer(reply, CommandAnswer::Refused(text));
            self.command_under_way = false;
            return;
        };
        let text = change(&mut record, now.wall);
        let ctx = Arc::clone(&self.ctx);
        self.spawn(Ticket::Command, async move {
            match ctx.world.ledger().put_route(record.clone()).await {
                Ok(()) => {
                    let subject = record.name.to_string();
                    answer(reply, CommandAnswer::Done(vec![done(&subject, true, &text, now.wall)]));
                    Work::TakenUp(vec![TakenUp::Route(record)])
                }
                Err(error) => {
                    answer(reply, CommandAnswer::Refused(chain(&error)));
                    Work::TakenUp(Vec::new())
                }
            }
        });
    }

    /// Pauses all routes, or lets them go: those on record, of this config or not, and those to
    /// come. Durably, then acts on it.
    fn set_all_routes(
        &mut self,
        reply: oneshot::Sender<CommandAnswer>,
        paused_at: Option<Wall>,
        change: impl Fn(&mut RouteRecord, Wall) -> Option<&'static str>,
    ) {
        let at = self.now().wall;
        let (mut changed, mut all_done) = (Vec::new(), Vec::new());
        for record in self.records.values() {
            let mut record = record.clone();
            let Some(text) = change(&mut record, at) else { continue };
            let name = &record.name;
            // One that no config has now is changed all the same, and is no news.
            if self.equipped.contains_key(name) || self.unequipped.contains_key(name) {
                all_done.push(done(&name.0, true, text, at));
            }
            changed.push(record);
        }
        let is_news = self.all_paused_at != paused_at || !changed.is_empty();
        let text = match (is_news, paused_at) {
            (false, _) => "nothing to change: they stand so already",
            (true, Some(_)) => "paused, also those that are found later, until `resume --all`",
            (true, None) => "go on, but for those that were paused by themselves",
        };
        all_done.push(done("all routes", true, text, at));
        let ctx = Arc::clone(&self.ctx);
        self.spawn(Ticket::Command, async move {
            if let Err(error) = ctx.world.ledger().put_all_paused(paused_at, changed.clone()).await
            {
                answer(reply, CommandAnswer::Refused(chain(&error)));
                return Work::TakenUp(Vec::new());
            }
            answer(reply, CommandAnswer::Done(all_done));
            let routes = changed.into_iter().map(TakenUp::Route);
            Work::TakenUp([TakenUp::AllPaused(paused_at)].into_iter().chain(routes).collect())
        });
    }

    /// While all routes are paused, one that was let go alone is on record as that. Where it has
    /// left the config meanwhile, or its folder has gone, it is paused with all others again: it
    /// would go on as soon as it came back, long after anybody thought of it.
    pub(super) fn pause_those_that_left(&mut self) {
        let has_time = self.mode != Mode::OneCommand && !self.command_under_way;
        if self.has_seen_who_left || !has_time || !self.has_swept_all_parents() {
            return;
        }
        self.has_seen_who_left = true;
        let broken: Vec<&str> = self.config.broken.iter().map(|it| it.name.as_str()).collect();
        let Some(at) = self.all_paused_at else { return };
        let left = self.records.values().filter(|record| {
            let name = &record.name;
            let is_here = self.equipped.contains_key(name)
                || self.unequipped.contains_key(name)
                || broken.contains(&&*name.0);
            record.paused_at.is_none() && !is_here
        });
        let changed: Vec<RouteRecord> = left
            .map(|record| {
                let mut record = record.clone();
                record.paused_at = Some(at);
                record.pause_code = Some(Code::of(ALL_PAUSED));
                record
            })
            .collect();
        if changed.is_empty() {
            return;
        }
        let ctx = Arc::clone(&self.ctx);
        self.command_under_way = true;
        self.spawn(Ticket::Command, async move {
            match ctx.world.ledger().put_all_paused(Some(at), changed.clone()).await {
                Ok(()) => Work::TakenUp(changed.into_iter().map(TakenUp::Route).collect()),
                // The next start tries again.
                Err(_) => Work::TakenUp(Vec::new()),
            }
        });
    }

    /// The record of a route that is being made ready, where all routes were paused, or let go,
    /// meanwhile, or are paused and nothing is known of it yet.
    pub(super) fn paused_with_all(&self, record: &RouteRecord, now: Wall) -> Option<RouteRecord> {
        let known = self.records.get(&record.name);
        let is_with_all = match known {
            Some(known) => is_paused_with_all(known),
            None => self.all_paused_at.is_some(),
        };
        if is_with_all && record.paused_at.is_none() {
            let paused_at = known.and_then(|known| known.paused_at).or(Some(now));
            let pause_code = Some(Code::of(ALL_PAUSED));
            return Some(RouteRecord { paused_at, pause_code, ..record.clone() });
        }
        let is_let_go = known.is_some_and(|known| known.paused_at.is_none());
        (is_let_go && is_paused_with_all(record)).then(|| RouteRecord {
            paused_at: None,
            pause_code: None,
            ..record.clone()
        })
    }

    /// Acts on what a command has put on record.
    pub(super) fn taken_up(&mut self, taken_up: TakenUp) {
        let now = self.now();
        match taken_up {
            TakenUp::Entry(entry) => {
                let route = entry.route.clone();
                self.park_entry(&Entry { due_at: None, ..*entry }, now);
                self.look_for_held(&route);
            }
            TakenUp::Report(entry, report) => {
                self.schedule.parked_on_record(
                    entry.id,
                    &entry.route,
                    &entry.name,
                    entry.waited_for,
                    Refused::Never,
                    (Duration::ZERO, Errand::Attempt),
                    now.tick,
                );
                // What is claimed and on record is taken up again like any parked file, so that a
                // file of the same name that is on its way goes first.
                if !matches!(report, Report::Claimed(_) | Report::Resumed(_)) {
                    self.reported(entry.id, report, now);
                }
                self.look_for_held(&entry.route);
            }
            TakenUp::AllPaused(at) => {
                if self.all_paused_at != at {
                    let what = if at.is_some() { "paused" } else { "let go" };
                    tracing::warn!("all routes {what} by a person");
                }
                self.all_paused_at = at;
            }
            TakenUp::Route(record) => {
                let name = record.name.clone();
                if record.paused_at.is_some() {
                    self.schedule.pause_by_person(&name, now);
                    tracing::warn!(route = %name, "route paused by a person");
                } else {
                    self.schedule.resume_by_person(&name, now);
                }
                for intake in self.intakes.values_mut() {
                    for (equipped, first_sweep_at) in &mut intake.routes {
                        if equipped.route.name == name && record.released {
                            *first_sweep_at = None;
                        }
                    }
                    intake.touch();
                }
                self.records.insert(name, record);
            }
        }
    }
}

fn pause_with_all(record: &mut RouteRecord, at: Wall) -> Option<&'static str> {
    record.paused_at.is_none().then(|| {
        record.paused_at = Some(at);
        record.pause_code = Some(Code::of(ALL_PAUSED));
        "paused with all others; what is in flight ends"
    })
}

fn resume_with_all(record: &mut RouteRecord, _at: Wall) -> Option<&'static str> {
    is_paused_with_all(record).then(|| {
        record.paused_at = None;
        record.pause_code = None;
        "goes on"
    })
}

fn is_paused_with_all(record: &RouteRecord) -> bool {
    record.pause_code.as_ref().is_some_and(|code| code.0 == ALL_PAUSED)
}

fn answer(reply: oneshot::Sender<CommandAnswer>, answer: CommandAnswer) {
    if reply.send(answer).is_err() {
        tracing::debug!("whoever asked has gone");
    }
}

fn done(subject: &str, ok: bool, text: &str, at: Wall) -> Done {
    Done { subject: subject.to_owned(), ok, text: text.to_owned(), at }
}

/// All files of a route in one state, oldest first.
async fn ids_in<W: World>(
    ctx: &Context<W>,
    route: &str,
    state: State,
) -> Result<Vec<String>, String> {
    let mut ids: Vec<FileId> = Vec::new();
    loop {
        let query = Query {
            route: Some(RouteName::new(route)),
            states: vec![state],
            before: ids.last().copied(),
            limit: PAGE,
            ..Query::default()
        };
        let page = ctx.world.ledger().list(query).await.map_err(|error| chain(&error))?;
        ids.extend(page.iter().map(|entry| entry.id));
        if page.len() < PAGE {
            break;
        }
    }
    // Files of one name leave in the order of their claims (promise P13).
    ids.sort_unstable();
    Ok(ids.iter().map(ToString::to_string).collect())
}

/// An entry that a command names, with its route, if it is in one of these states and settled.
async fn settled_entry<W: World>(
    ctx: &Context<W>,
    equipped: &Equipment,
    id: &str,
    states: &[State],
) -> Result<(Entry, Arc<Equipped>), String> {
    let parsed = FileId::parse(id).ok_or_else(|| format!("{id} is no file id"))?;
    let ledger = ctx.world.ledger();
    let on_record = async || {
        let found = ledger.entry(parsed).await.map_err(|error| chain(&error))?;
        found.ok_or_else(|| "no such file is on record".to_owned())
    };
    let mut entry = on_record().await?;
    for _ in 0..SETTLES_WITHIN.as_millis() / SETTLES_LOOK.as_millis() {
        if entry.settled || !states.contains(&entry.state) {
            break;
        }
        // That it has arrived may be said already, and only wait for company.
        ctx.world.clock().sleep(SETTLES_LOOK).await;
        ledger.commit(Vec::new()).await.map_err(|error| chain(&error))?;
        entry = on_record().await?;
    }
    let Some(route) = equipped.get(&entry.route) else {
        return Err(format!("its route {} is not there", entry.route));
    };
    let state = entry.state.name();
    if !states.contains(&entry.state) {
        let wanted: Vec<_> = states.iter().map(|state| state.name()).collect();
        return Err(format!("it is {state}; this is for {} files", wanted.join(" or ")));
    }
    if !entry.settled {
        return Err(format!("it is being moved to {state}/ right now; try again in a moment"));
    }
    // Its file belongs to a later journey now: what is said of this one would move that one's.
    if let Some(later) = ledger.successor(parsed).await.map_err(|error| chain(&error))? {
        return Err(format!("it was taken up again as {later}; say it of that one"));
    }
    Ok((entry, Arc::clone(route)))
}

async fn release_all<W: World>(
    ctx: &Context<W>,
    equipped: &Equipment,
    ids: Vec<String>,
    reply: oneshot::Sender<CommandAnswer>,
) -> Work {
    let mut all = Vec::new();
    let mut said = Vec::new();
    for id in ids {
        let at = ctx.world.clock().now().wall;
        match release(ctx, equipped, &id).await {
            Ok((entry, text)) => {
                said.push(done(&id, true, &text, at));
                all.push(TakenUp::Entry(Box::new(entry)));
            }
            Err(text) => said.push(done(&id, false, &text, at)),
        }
    }
    answer(reply, CommandAnswer::Done(said));
    Work::TakenUp(all)
}

/// Lets one held file go: same id, same key.
async fn release<W: World>(
    ctx: &Context<W>,
    equipped: &Equipment,
    id: &str,
) -> Result<(Entry, String), String> {
    let (mut entry, _) = settled_entry(ctx, equipped, id, &[State::Held]).await?;
    let step = back_on_its_journey(ctx, &entry).await?;
    ctx.world.ledger().commit(vec![step.clone()]).await.map_err(|error| chain(&error))?;
    entry.apply(&step);
    let what = match entry.confirming_since {
        Some(_) => "its run is asked for again, nothing is sent",
        None => "it is sent again under the same key",
    };
    let mut text = format!("released: {what}");
    if let Some(newer) = newer_sent(ctx, &entry).await {
        let newer = format!("; a newer file of this name ({newer}) has been accepted since");
        text.push_str(&newer);
        text.push_str(": this older one arrives after it");
    }
    Ok((entry, text))
}

/// The newest later file of the same name that was accepted (promise P13).
async fn newer_sent<W: World>(ctx: &Context<W>, entry: &Entry) -> Option<FileId> {
    let query = Query {
        route: Some(entry.route.clone()),
        states: vec![State::Sent],
        name: Some(entry.name.clone()),
        limit: 1,
        ..Query::default()
    };
    let newest = ctx.world.ledger().list(query).await.ok()?.into_iter().next()?;
    (newest.id > entry.id).then_some(newest.id)
}

/// The step that puts a settled file back on its journey, from where it lies now.
async fn back_on_its_journey<W: World>(ctx: &Context<W>, entry: &Entry) -> Result<Step, String> {
    let source = entry.target.clone().ok_or("it is not on record where it lies")?;
    let found = ctx.world.disk().digest(source.clone()).await.map_err(|error| chain(&error))?;
    let (identity, digest) = found.ok_or_else(|| format!("it is no longer at {source}"))?;
    if entry.digest.is_some_and(|recorded| recorded != digest) {
        return Err(format!(
            "{source} has changed since it was put there; move it back into its drop folder to send it as it is now"
        ));
    }
    let at = ctx.world.clock().now().wall;
    Ok(Step::Released { id: entry.id, source, identity, at })
}

async fn resend_all<W: World>(
    ctx: &Context<W>,
    equipped: &Equipment,
    ids: Vec<String>,
    reply: oneshot::Sender<CommandAnswer>,
    only_this: bool,
) -> Work {
    let mut all = Vec::new();
    let mut said = Vec::new();
    for id in ids {
        let at = ctx.world.clock().now().wall;
        let claimed = match settled_entry(ctx, equipped, &id, &[State::Failed]).await {
            Ok((old, route)) => carry::resend(ctx, &route, &old).await,
            Err(text) => Err(text),
        };
        match claimed {
            Ok(Report::Claimed(carried)) => {
                let entry = carried.entry.clone();
                let text = format!("taken up again as {}, key {}", entry.id, entry.key);
                said.push(done(&id, true, &text, at));
                // On record as not sent: it waits its turn like any parked file, and with no
                // service running it is the next one's to send.
                let report = carry::shelve(ctx, carried, entry.waited_for).await;
                if !only_this {
                    all.push(TakenUp::Report(Box::new(entry), report));
                }
            }
            Ok(Report::Unrecorded(error)) => said.push(done(&id, false, &chain(&error), at)),
            Ok(Report::Stumbled(new, stumble)) => {
                // It may only have to be copied from another volume, which a claim does not do.
                if !only_this && let Ok(Some(entry)) = ctx.world.ledger().entry(new).await {
                    all.push(TakenUp::Entry(Box::new(entry)));
                }
                said.push(done(
                    &id,
                    true,
                    &format!("on record, and goes on by itself: {}", chain(&stumble)),
                    at,
                ));
            }
            Ok(_) => said.push(done(&id, false, "it was gone before it could be taken up", at)),
            Err(text) => said.push(done(&id, false, &text, at)),
        }
    }
    answer(reply, CommandAnswer::Done(said));
    Work::TakenUp(all)
}

/// Puts on record what a person found out, and moves the file there.
async fn mark<W: World>(
    ctx: &Context<W>,
    equipped: &Equipment,
    id: String,
    sent: bool,
    note: String,
    reply: oneshot::Sender<CommandAnswer>,
) -> Work {
    let at = ctx.world.clock().now().wall;
    match marked(ctx, equipped, &id, sent, &note).await {
        Ok((entry, report)) => {
            let place = entry.target.as_ref().map(ToString::to_string).unwrap_or_default();
            let text = format!("on record as {}: {place}", entry.state.name());
            answer(reply, CommandAnswer::Done(vec![done(&id, true, &text, at)]));
            Work::TakenUp(vec![TakenUp::Report(Box::new(entry), report)])
        }
        Err(text) => {
            answer(reply, CommandAnswer::Done(vec![done(&id, false, &text, at)]));
            Work::TakenUp(Vec::new())
        }
    }
}

async fn marked<W: World>(
    ctx: &Context<W>,
    equipped: &Equipment,
    id: &str,
    sent: bool,
    note: &str,
) -> Result<(Entry, Report), String> {
    let (entry, route) = settled_entry(ctx, equipped, id, &[State::Held, State::Failed]).await?;
    let released = back_on_its_journey(ctx, &entry).await?;
    let at = ctx.world.clock().now().wall;
    let (state, code) =
        if sent { (State::Sent, "marked-sent") } else { (State::Failed, "marked-failed") };
    let cause = Cause::new(Code::of(code), format!("a person said so: {note}"));
    // A failed file that stays failed stays where it is; its own name is not taken by another.
    let (target, reservation) = match &entry.target {
        Some(place) if entry.state == state => (place.clone(), None),
        _ => {
            let reservation = carry::home(ctx, &route, &entry, state, at).await;
            (reservation.place.clone(), Some(reservation))
        }
    };
    let decided = Step::Decided { id: entry.id, attempt: None, state, cause, target, at };
    let noted = Step::Noted {
        id: entry.id,
        at,
        text: format!("marked as {} by a person: {note}", state.name()),
    };
    let steps = vec![released, noted, decided];
    ctx.world.ledger().commit(steps).await.map_err(|error| chain(&error))?;
    drop(reservation);
    let report = resume::resume(ctx, &route, entry.id).await;
    let entry = if let Report::Moved(entry) | Report::Ended(entry) = &report {
        (**entry).clone()
    } else {
        entry
    };
    Ok((entry, report))
}
