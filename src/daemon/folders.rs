//! The loop's part about folders: making routes ready, sweeping, feeding what is found.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Daemon;
use super::carry::{self, Context, Elsewhere, Equipped};
use super::event::{
    EquipFault, Equipment, Event, LookTicket, SweepFault, Ticket, Unequipped, Work,
};
use super::grounds;
use super::intake::{Candidate, Intake};
use super::order;
use super::{resume, status};
use crate::config::{Discovery, WatchMode};
use crate::journey::detect::{Reason, Selector};
use crate::journey::grounds::is_another;
use crate::journey::validate::Checker;
use crate::model::file::{FolderSeen, Place};
use crate::model::outcome::Code;
pub use crate::model::outcome::chain;
use crate::model::route::{OnFailed, Route, RouteName};
use crate::model::step::{ALL_PAUSED, LEDGER_BEHIND, RouteRecord, State};
use crate::model::time::{Now, Tick, Wall};
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::folder::{Disk, FolderError};
use crate::world::ledger::{Ledger, Query};
use crate::world::watch::Hint;

impl<W: World> Daemon<W> {
    /// Takes up what the config names; folders that become routes are found by sweeping their
    /// parents.
    pub(super) fn begin_folders(&mut self) {
        let config = Arc::clone(&self.config);
        for route in &config.routes {
            self.take_up_route(Arc::clone(route));
        }
        let now = self.now().tick;
        for parent in config.root.iter().chain(config.discoveries.iter().map(|rule| &rule.parent)) {
            if !self.intakes.contains_key(parent) {
                let mut intake = Intake::new(Arc::clone(parent), true, now);
                intake.take_watch(self.arm(parent, true));
                self.intakes.insert(Arc::clone(parent), intake);
            }
        }
    }

    /// A route is known from now on, and made ready at the next turn.
    pub(super) fn take_up_route(&mut self, route: Arc<Route>) {
        let name = route.name.clone();
        if self.equipped.contains_key(&name) || self.unequipped.contains_key(&name) {
            return;
        }
        let due_at = self.now().tick;
        self.unequipped.insert(name, Unequipped { route, said: None, due_at: Some(due_at) });
    }

    /// Makes routes ready whose time has come: the first time, and again after trouble.
    pub(super) fn equip_due(&mut self, now: Tick) {
        let due: Vec<Arc<Route>> = self
            .unequipped
            .values_mut()
            .filter(|route| route.due_at.is_some_and(|due_at| due_at <= now))
            .map(|route| {
                route.due_at = None;
                Arc::clone(&route.route)
            })
            .collect();
        for route in due {
            let ctx = Arc::clone(&self.ctx);
            let record = self.records.get(&route.name).cloned();
            // What a stop left half-written is beside the targets of what is unsettled.
            let unsettled = self.unsettled.get(&route.name).into_iter().flatten();
            let targets: BTreeSet<Arc<Path>> = unsettled
                .filter_map(|entry| entry.target.as_ref())
                .map(|target| Arc::clone(&target.folder))
                .collect();
            let claimed = self.unsettled.get(&route.name).map_or(0, Vec::len);
            let on_record =
                OnRecord { record, starts_paused: self.notes.starts_paused, targets, claimed };
            self.spawn(Ticket::Equip(route.name.clone()), async move {
                Work::Equipped(Box::new(equip(&ctx, route, on_record).await))
            });
        }
    }

    pub(super) fn next_equip_at(&self) -> Option<Tick> {
        self.unequipped.values().filter_map(|route| route.due_at).min()
    }

    pub(super) fn route_equipped(
        &mut self,
        name: &RouteName,
        result: Result<Equipment, EquipFault>,
    ) {
        let now = self.now();
        let Equipment { equipped, record, delivered_at, strays, foreign, held, failed } =
            match result {
                Ok(ready) => match self.paused_with_all(&ready.record, now.wall) {
                    Some(record) => return self.record_first(Equipment { record, ..ready }),
                    None => ready,
                },
                Err(fault) => {
                    let text = chain(&fault);
                    if let Some(route) = self.unequipped.get_mut(name) {
                        route.due_at = Some(now.tick.plus(self.config.poll_every));
                        if route.said.as_ref() != Some(&text) {
                            tracing::error!(route = %name, error = %text, "route stopped: its folders are not usable; patchdrop tries again by itself");
                        }
                        route.said = Some(text);
                    }
                    return;
                }
            };
        self.unequipped.remove(name);
        let route = Arc::clone(&equipped.route);
        self.notes.unreached.retain(|(root, _)| !route.folders.inbox.starts_with(root));
        self.schedule.add_route(&route, record.paused_at, now);
        let code = record.pause_code.as_ref();
        let is_said =
            self.mode == super::Mode::OneCommand || code.is_some_and(|code| code.0 == ALL_PAUSED);
        if let Some(since) = record.paused_at.filter(|_| !is_said) {
            let pause = status::pause_on_record(&route, since, code);
            let (why, remedy) = (pause.text, pause.remedy);
            tracing::warn!(route = %name, %since, %why, %remedy, "route is paused, it sends nothing");
        }
        if let Some(at) = delivered_at {
            self.schedule.delivered_on_record(name);
            self.delivered_at.insert(name.clone(), at);
        }
        let first_sweep_at = record.first_sweep_at.filter(|_| !record.released);
        self.records.insert(name.clone(), record);
        self.foreign.insert(name.clone(), foreign);
        self.equipped.insert(name.clone(), Arc::clone(&equipped));
        self.order_on_record(name, held, failed);
        for entry in self.unsettled.remove(name).into_iter().flatten().chain(strays) {
            self.park_entry(&entry, now);
        }
        let (folder, host) = (route.folders.inbox.display(), &route.deliver.host);
        tracing::info!(route = %name, %folder, %host, "route ready");
        if self.mode == super::Mode::OneCommand {
            return;
        }
        let folder = &route.folders.inbox;
        if !self.intakes.contains_key(folder) {
            let mut intake = Intake::new(Arc::clone(folder), false, now.tick);
            intake.take_watch(self.arm(folder, equipped.is_local));
            self.intakes.insert(Arc::clone(folder), intake);
        }
        if let Some(intake) = self.intakes.get_mut(folder) {
            intake.add_route(equipped, first_sweep_at);
        }
    }

    /// Puts a route's record on record before it is made ready with it.
    fn record_first(&mut self, equipment: Equipment) {
        let ctx = Arc::clone(&self.ctx);
        self.spawn(Ticket::Equip(equipment.record.name.clone()), async move {
            let put = ctx.world.ledger().put_route(equipment.record.clone()).await;
            Work::Equipped(Box::new(put.map(|()| equipment).map_err(EquipFault::from)))
        });
    }

    /// Watches a folder where its events can be trusted; whether it does, or why it cannot.
    fn arm(&mut self, folder: &Arc<Path>, is_local: bool) -> Result<bool, String> {
        let trusted = match self.config.watch {
            WatchMode::Auto => is_local,
            WatchMode::Events => true,
            WatchMode::Poll => false,
        };
        if !trusted {
            return Ok(false);
        }
        self.watch.arm(folder).map(|()| true).map_err(|error| {
            let error = chain(&error);
            tracing::warn!(folder = %folder.display(), %error, "folder is polled, not watched");
            error
        })
    }

    /// Hints: they hurry a sweep and prove a rename, nothing else.
    pub(super) fn heed(&mut self, hints: Vec<Hint>) {
        for hint in hints {
            match hint {
                Hint::Touched { folder } => {
                    if let Some(intake) = self.intakes.get_mut(&folder) {
                        intake.touch();
                    }
                }
                Hint::MovedIn { folder, name } => {
                    if let Some(intake) = self.intakes.get_mut(&folder) {
                        intake.moved_in(name);
                    }
                }
                Hint::Lost { folder: Some(folder) } => self.arm_again(&folder),
                // Perhaps only an overflow, perhaps the end of the connection to the system: every
                // folder is armed anew, and polled where that fails.
                Hint::Lost { folder: None } => {
                    let folders: Vec<Arc<Path>> = self.intakes.keys().cloned().collect();
                    for folder in &folders {
                        self.arm_again(folder);
                    }
                }
            }
        }
    }

    /// A watch has ended or its folder has come back: armed first, then swept.
    fn arm_again(&mut self, folder: &Arc<Path>) {
        let Some(intake) = self.intakes.get(folder) else { return };
        let is_local = intake.routes.first().is_none_or(|(equipped, _)| equipped.is_local);
        let is_armed = self.arm(folder, is_local);
        if let Some(intake) = self.intakes.get_mut(folder) {
            intake.take_watch(is_armed);
            intake.touch();
        }
    }

    pub(super) fn sweep_due(&mut self, now: Tick) {
        let schedule = &self.schedule;
        let mut due = Vec::new();
        for intake in self.intakes.values_mut() {
            let wants = |equipped: &Equipped| schedule.wants_files(&equipped.route.name, now);
            if intake.has_files_without_room()
                && intake.routes.iter().any(|(equipped, _)| wants(equipped))
            {
                intake.touch();
            }
            if intake.is_sweep_due(now) {
                intake.begin_sweep(now);
                let routes: Vec<Arc<Equipped>> =
                    intake.routes.iter().map(|(equipped, _)| Arc::clone(equipped)).collect();
                due.push((Arc::clone(&intake.folder), intake.stood, routes));
            }
        }
        for (folder, stood, routes) in due {
            let ctx = Arc::clone(&self.ctx);
            let chunks = self.chunks.clone();
            // While files are under way their own lie in `sending/`, and there may be many.
            let is_idle = |equipped: &Arc<Equipped>| {
                let view = self.schedule.view(&equipped.route.name);
                view.active + view.parked + view.asking == 0
            };
            let idle = routes.iter().filter(|route| is_idle(route)).cloned().collect();
            let task = sweep(ctx, Arc::clone(&folder), stood, routes, idle, chunks);
            self.spawn(Ticket::Sweep(folder), task);
        }
    }

    /// Hands ready candidates on while their routes have room: one a folder and round, and not the
    /// same folder first each time, so that none fills all places.
    pub(super) fn feed(&mut self, now: Now) {
        let mut folders: VecDeque<Arc<Path>> = self
            .intakes
            .iter()
            .filter(|(_, intake)| intake.may_have_candidates())
            .map(|(folder, _)| Arc::clone(folder))
            .collect();
        if folders.is_empty() {
            return;
        }
        folders.rotate_left(self.fed % folders.len());
        self.fed = self.fed.wrapping_add(1);
        while let Some(folder) = folders.pop_front() {
            if self.feed_from(&folder, now) {
                folders.push_back(folder);
            }
        }
    }

    /// Takes up one candidate of a folder; whether there was one. Those that have to wait are
    /// counted.
    fn feed_from(&mut self, folder: &Arc<Path>, now: Now) -> bool {
        let Some(intake) = self.intakes.get_mut(folder) else { return false };
        for head in intake.heads() {
            let (route, name) = (&head.equipped.route.name, &head.sighting.name);
            if self.schedule.may_claim(route, name, now.tick).is_ok() {
                intake.head_taken(head.index, now.tick);
                self.look_at(folder, head, now.tick);
                return true;
            }
        }
        while let Some(candidate) = intake.next_candidate(now) {
            let (route, name) = (&candidate.equipped.route.name, &candidate.sighting.name);
            match self.schedule.may_claim(route, name, now.tick) {
                Ok(()) => {
                    intake.taken(name, now.tick);
                    self.look_at(folder, candidate, now.tick);
                    return true;
                }
                Err(Reason::Ready) => {
                    intake.put_back(candidate, now.tick);
                    if !intake.only_counts() {
                        return false;
                    }
                }
                Err(reason) => {
                    intake.left(candidate.index, &candidate.sighting, reason, None, now.tick);
                }
            }
        }
        false
    }

    /// A candidate's journey begins.
    fn look_at(&mut self, folder: &Arc<Path>, candidate: Candidate, now: Tick) {
        let Candidate { equipped, index, sighting, evidence } = candidate;
        let route = equipped.route.name.clone();
        self.schedule.look_begun(&route, &sighting.name, now);
        self.rooms.hurry(&route, now);
        let ticket = Ticket::Look(Box::new(LookTicket {
            folder: Arc::clone(folder),
            index,
            route,
            sighting: sighting.clone(),
        }));
        let ctx = Arc::clone(&self.ctx);
        self.spawn(ticket, async move {
            Work::Report(carry::claim(&ctx, &equipped, sighting, evidence).await)
        });
    }

    pub(super) fn swept(
        &mut self,
        folder: &Arc<Path>,
        result: Result<Option<FolderSeen>, SweepFault>,
    ) {
        let now = self.now();
        let Some(intake) = self.intakes.get_mut(folder) else { return };
        let every = if intake.is_polled { self.config.poll_every } else { self.config.sweep_every };
        match result {
            Ok(stands) => {
                let came_back = intake.fault.is_some();
                let before = std::mem::replace(&mut intake.stood, stands);
                let is_another = before.zip(stands).is_some_and(|(one, it)| is_another(&one, &it));
                let end = intake.end_sweep(every, now);
                let is_parent = intake.is_parent;
                for (reason, waiting) in end.news {
                    tracing::warn!(
                        folder = %folder.display(),
                        files = waiting.files,
                        example = %waiting.example,
                        reason = reason.name(),
                        "files stay where they are: {}", reason.remedy()
                    );
                }
                if came_back {
                    tracing::info!(folder = %folder.display(), "folder is back");
                }
                // The watch is on the folder that was there, wherever that is now.
                if came_back || is_another {
                    self.arm_again(folder);
                }
                self.notes.unreached.retain(|(root, _)| !folder.starts_with(root));
                self.look_for_held_in(folder);
                if is_parent {
                    self.discover(folder, &end.folders);
                }
            }
            Err(error) => {
                let fault = chain(&error);
                let is_unfit = match &error {
                    SweepFault::Folder(error) => {
                        matches!(error, FolderError::Unfit { .. } | FolderError::Replaced { .. })
                    }
                    SweepFault::Mark(_) => true,
                };
                let what = if is_unfit {
                    "route stopped: its folders are not as they must be"
                } else {
                    "folder cannot be listed"
                };
                if intake.sweep_failed(fault.clone(), self.config.poll_every, now.tick) {
                    tracing::error!(folder = %folder.display(), error = %fault, "{what}; nothing is taken for gone, patchdrop tries again by itself");
                }
            }
        }
    }

    /// Whether a configured route has its files there.
    fn has_route_in(&self, folder: &Path) -> bool {
        self.config.routes.iter().any(|route| route.folders.inbox.starts_with(folder))
    }

    /// Folders in a parent become routes, or are counted.
    fn discover(&mut self, parent: &Arc<Path>, folders: &[std::ffi::OsString]) {
        let config = Arc::clone(&self.config);
        self.not_routes.retain(|folder, _| {
            let is_elsewhere = folder.parent() != Some(parent);
            is_elsewhere
                || folder.file_name().is_some_and(|name| folders.iter().any(|it| it == name))
        });
        let rules: Vec<&Discovery> =
            config.discoveries.iter().filter(|rule| rule.parent == *parent).collect();
        for folder in folders {
            let Some(name) = folder.to_str() else { continue };
            for rule in &rules {
                match rule.route_of(name) {
                    Ok(route) => self.take_up_route(route),
                    Err(not) if not.is_news() && !self.has_route_in(&parent.join(folder)) => {
                        let path = parent.join(folder);
                        let known = self.not_routes.insert(path.clone(), not.text.clone());
                        if known.as_ref() != Some(&not.text) {
                            let (folder, reason) = (path.display(), &not.text);
                            tracing::warn!(%folder, %reason, "folder is no route: nothing in it is sent");
                        }
                    }
                    Err(_) => {}
                }
            }
        }
        for (route, entries) in &self.unsettled {
            if !self.unequipped.contains_key(route) && self.orphans.insert(route.clone()) {
                tracing::error!(%route, files = entries.len(), "files wait in sending/ of a route that is no longer configured or whose folder is not there");
            }
        }
    }
}

/// Looks whether the folders are those that they were, then lists one chunk by chunk, each only
/// when the one before is used up.
async fn sweep<W: World>(
    ctx: Arc<Context<W>>,
    folder: Arc<Path>,
    stood: Option<FolderSeen>,
    routes: Vec<Arc<Equipped>>,
    idle: Vec<Arc<Equipped>>,
    chunks: mpsc::Sender<Event>,
) -> Work {
    let stands = match grounds::before_listing(&ctx, &folder, stood, &routes).await {
        Ok(stands) => stands,
        Err(fault) => return Work::Swept(Err(fault), Vec::new()),
    };
    let (sender, mut receiver) = mpsc::channel(1);
    let listing = ctx.world.disk().sweep(Arc::clone(&folder), sender);
    let forwarding = async {
        while let Some(chunk) = receiver.recv().await {
            let (go_on, wait) = oneshot::channel();
            if chunks.send(Event::Chunk(Arc::clone(&folder), chunk, go_on)).await.is_err()
                || wait.await.is_err()
            {
                break;
            }
        }
        receiver.close();
    };
    let (result, ()) = tokio::join!(listing, forwarding);
    let mut foreign = Vec::new();
    for equipped in idle {
        // What cannot be told now is told by a later sweep.
        if let Ok(found) = resume::foreign_in_sending(&ctx, &equipped).await {
            foreign.push((equipped.route.name.clone(), found));
        }
    }
    Work::Swept(result.map(|()| stands).map_err(Into::into), foreign)
}

/// What a stop left half-written is only in the way; that it cannot be removed stops nothing.
async fn clear_temporary(disk: &impl Disk, folder: &Arc<Path>) {
    match disk.clear_temporary(Arc::clone(folder)).await {
        Ok(0) => {}
        Ok(files) => {
            tracing::info!(folder = %folder.display(), files, "removed what was left half-written");
        }
        Err(error) => {
            let folder = folder.display();
            tracing::warn!(%folder, error = %chain(&error), "half-written files stay where they are");
        }
    }
}

/// What is known of a route before it is made ready.
struct OnRecord {
    record: Option<RouteRecord>,
    /// The ledger is an old copy: a route that it does not know starts paused.
    starts_paused: bool,
    /// Folders in which a stop may have left something half-written.
    targets: BTreeSet<Arc<Path>>,
    /// Files that it has in `sending/`.
    claimed: usize,
}

/// Makes a route's folders and its record, and compiles its rules.
async fn equip<W: World>(
    ctx: &Context<W>,
    route: Arc<Route>,
    on_record: OnRecord,
) -> Result<Equipment, EquipFault> {
    let world = &ctx.world;
    let disk = world.disk();
    let inbox = &route.folders.inbox;
    let OnRecord { record, starts_paused, targets, claimed } = on_record;
    grounds::stand(ctx, &route).await?;
    let (record, starts_paused) = admitted(ctx, &route, record, starts_paused).await?;
    grounds::keeps_claims(ctx, &route, claimed).await?;
    disk.make_folder(Arc::clone(&route.folders.sending)).await?;
    clear_temporary(disk, &route.folders.sending).await;
    for target in &targets {
        if *target != route.folders.sent
            && *target != route.folders.failed
            && *target != route.folders.held
            && disk.inspect(Arc::clone(target)).await?.is_some()
        {
            clear_temporary(disk, target).await;
        }
    }
    for folder in [&route.folders.sent, &route.folders.failed, &route.folders.held] {
        if !folder.to_string_lossy().contains("{date}") {
            disk.make_folder(Arc::clone(folder)).await?;
            clear_temporary(disk, folder).await;
        }
    }
    grounds::stand(ctx, &route).await?;
    let selector = Selector::new(&route.select, &route.ready)
        .map_err(|error| EquipFault::Rules(format!("a glob cannot be read: {error}")))?;
    let checker = Checker::new(&route.check)
        .map_err(|fault| EquipFault::Rules(format!("the schema cannot be used: {fault}")))?;
    let is_local = disk.is_local(Arc::clone(inbox)).await;
    let record = match record {
        Some(record) if record.first_sweep_at.is_some() => record,
        known => {
            let fresh = fresh_record(&route, known, starts_paused, world.clock().now().wall);
            world.ledger().put_route(fresh.clone()).await?;
            fresh
        }
    };
    let elsewhere = elsewhere(disk, &route).await;
    let equipped = Arc::new(Equipped { route, checker, selector, is_local, elsewhere });
    let (strays, foreign) = resume::take_in_strays(ctx, &equipped).await?;
    let newest_sent = Query {
        route: Some(equipped.route.name.clone()),
        states: vec![State::Sent],
        limit: 1,
        ..Query::default()
    };
    let newest_sent = world.ledger().list(newest_sent).await?;
    let delivered_at = newest_sent.first().and_then(|entry| entry.decided_at);
    let mut held = None;
    let mut failed = None;
    if let Some(order) = equipped.route.order {
        held = order::first_held(ctx, &equipped.route.name).await?;
        if record.paused_at.is_some() && order.on_failed == OnFailed::Pause {
            let name = Some(equipped.route.name.clone());
            let query =
                Query { route: name, states: vec![State::Failed], limit: 1, ..Query::default() };
            failed = world.ledger().list(query).await?.pop();
        }
    }
    Ok(Equipment { equipped, record, delivered_at, strays, held, failed, foreign })
}

async fn elsewhere(disk: &impl Disk, route: &Route) -> Elsewhere {
    let is = async |folder: &Arc<Path>| {
        disk.is_elsewhere(Arc::clone(&route.folders.sending), undated(folder)).await
    };
    let folders = &route.folders;
    let (sent, failed, held) =
        tokio::join!(is(&folders.sent), is(&folders.failed), is(&folders.held));
    Elsewhere { sent, failed, held }
}

/// A target folder as far as its path has no date in it.
pub(super) fn undated(folder: &Arc<Path>) -> Arc<Path> {
    let has_date = |path: &Path| path.to_string_lossy().contains("{date}");
    folder.ancestors().find(|path| !has_date(path)).map_or_else(|| Arc::clone(folder), Arc::from)
}

/// Whether files of a route are ours to send: its record, and whether it starts paused where it has
/// none.
async fn admitted<W: World>(
    ctx: &Context<W>,
    route: &Route,
    mut record: Option<RouteRecord>,
    mut starts_paused: bool,
) -> Result<(Option<RouteRecord>, bool), EquipFault> {
    let (ledger, disk) = (ctx.world.ledger(), ctx.world.disk());
    if ledger.admit(&route.folders.inbox, false).await? {
        // A root that has come back may have told that the ledger is an old copy.
        let routes = ledger.routes().await?;
        let is_behind = |record: &RouteRecord| {
            record.pause_code.as_ref().is_some_and(|code| code.0 == LEDGER_BEHIND)
        };
        starts_paused |= routes.iter().any(is_behind);
        record = routes.into_iter().find(|record| record.name == route.name);
    }
    // Only a route that a later ledger has worked for is one that an old one does not know.
    let sending = Place::of_path(&route.folders.sending).filter(|_| starts_paused);
    let was_worked_for = match sending {
        Some(sending) => disk.look(sending).await?.is_some(),
        None => false,
    };
    Ok((record, was_worked_for))
}

fn fresh_record(
    route: &Route,
    known: Option<RouteRecord>,
    starts_paused: bool,
    now: Wall,
) -> RouteRecord {
    let fresh = RouteRecord {
        name: route.name.clone(),
        first_sweep_at: Some(now),
        released: false,
        paused_at: starts_paused.then_some(now),
        pause_code: starts_paused.then(|| Code::of(LEDGER_BEHIND)),
    };
    match known {
        Some(known) => RouteRecord { first_sweep_at: fresh.first_sweep_at, ..known },
        None => fresh,
    }
}
