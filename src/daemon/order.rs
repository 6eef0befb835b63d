//! The loop's part about routes that keep an order: a held file comes first until a person has
//! decided about it, and one that failed may pause its route.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Daemon;
use super::carry::Context;
use super::event::{Ticket, Work};
use super::folders::chain;
use crate::journey::order;
use crate::model::file::shown;
use crate::model::route::RouteName;
use crate::model::status::Pause;
use crate::model::step::{Entry, State};
use crate::world::World;
use crate::world::folder::Disk;
use crate::world::ledger::{Ledger, LedgerError, Query};

/// Held files looked at by one page.
const PAGE: usize = 200;

/// What keeps ordered routes waiting.
#[derive(Default)]
pub(super) struct Orders {
    /// By route, a file in `held/` that comes before all others.
    held: BTreeMap<RouteName, Entry>,
    /// By route, the last file that failed and paused it.
    failed: BTreeMap<RouteName, Entry>,
    /// Routes whose held files are being looked for.
    looks: BTreeSet<RouteName>,
    /// Files that came to `held/`: what was found before the last one is out of date.
    changes: u64,
}

impl<W: World> Daemon<W> {
    /// What is on record of an ordered route at its start.
    pub(super) fn order_on_record(
        &mut self,
        route: &RouteName,
        held: Option<Entry>,
        failed: Option<Entry>,
    ) {
        self.schedule.hold_up(route, held.is_some());
        if let Some(entry) = held {
            let (file, id) = (shown(&entry.name), entry.id);
            tracing::warn!(%route, %file, %id, "held file comes first: the route keeps an order, and nothing goes before it is released, marked or moved away");
            self.orders.held.insert(route.clone(), entry);
        }
        if let Some(entry) = failed {
            self.orders.failed.insert(route.clone(), entry);
        }
    }

    /// A file has come to its end: on a route that keeps an order those behind it may have to wait.
    pub(super) fn order_after(&mut self, entry: &Entry) {
        let Some(equipped) = self.equipped.get(&entry.route) else { return };
        if equipped.route.order.is_none() {
            return;
        }
        let (route, file, id) = (&entry.route, shown(&entry.name), entry.id);
        if entry.state == State::Held {
            self.orders.changes += 1;
            self.schedule.hold_up(route, true);
            tracing::error!(%route, %file, %id, "route waits: it keeps an order, and nothing goes before this file is released, marked or moved out of held/");
            self.orders.held.insert(route.clone(), entry.clone());
        }
        let is_known = self.orders.failed.get(route).is_some_and(|known| known.id == id);
        let by_person = entry.cause.as_ref().is_some_and(|cause| cause.code.0 == "marked-failed");
        if order::pauses(&equipped.route, entry.state) && !is_known && !by_person {
            let now = self.now();
            let at = entry.decided_at.unwrap_or(now.wall);
            if let Some(record) = self.records.get_mut(route) {
                record.paused_at.get_or_insert(at);
            }
            self.schedule.pause_by_person(route, now);
            tracing::error!(%route, %file, %id, "route paused: it keeps an order and this file failed; `patchdrop resume` lets the next one go");
            self.orders.failed.insert(route.clone(), entry.clone());
        }
    }

    /// Finds out whether a held file still comes first: a person may have done something about it.
    pub(super) fn look_for_held(&mut self, route: &RouteName) {
        let is_ordered = |name| self.equipped.get(name).is_some_and(|it| it.route.order.is_some());
        if !is_ordered(route) || !self.orders.looks.insert(route.clone()) {
            return;
        }
        let ctx = Arc::clone(&self.ctx);
        let (name, changes) = (route.clone(), self.orders.changes);
        self.spawn(Ticket::Held(route.clone(), changes), async move {
            Work::FirstHeld(Box::new(first_held(&ctx, &name).await))
        });
    }

    /// The same, for the routes of a folder that has just been listed, where one comes first.
    pub(super) fn look_for_held_in(&mut self, folder: &std::path::Path) {
        let routes: Vec<RouteName> = self
            .orders
            .held
            .keys()
            .filter(|name| {
                let equipped = self.equipped.get(*name);
                equipped.is_some_and(|equipped| *equipped.route.folders.inbox == *folder)
            })
            .cloned()
            .collect();
        for route in routes {
            self.look_for_held(&route);
        }
    }

    /// What a look for held files has found.
    pub(super) fn held_found(
        &mut self,
        route: &RouteName,
        changes: u64,
        found: Option<Result<Option<Entry>, LedgerError>>,
    ) {
        self.orders.looks.remove(route);
        if changes != self.orders.changes {
            return self.look_for_held(route);
        }
        match found {
            Some(Ok(Some(entry))) => {
                self.schedule.hold_up(route, true);
                self.orders.held.insert(route.clone(), entry);
            }
            Some(Ok(None)) => {
                self.schedule.hold_up(route, false);
                if self.orders.held.remove(route).is_some() {
                    tracing::info!(%route, "no held file comes first any more: the next one goes");
                }
            }
            Some(Err(error)) => {
                tracing::warn!(%route, error = %chain(&error), "could not find out whether a held file still comes first; patchdrop looks again by itself");
            }
            None => {}
        }
    }

    /// Why an ordered route waits for a person, for `status`.
    pub(super) fn order_pause(&self, route: &RouteName) -> Option<Pause> {
        let paused_at = self.records.get(route).and_then(|record| record.paused_at);
        let failed = self.orders.failed.get(route);
        if let Some(entry) =
            failed.filter(|entry| paused_at.is_some() && entry.decided_at == paused_at)
        {
            return Some(Pause {
                code: "order-failed".into(),
                text: format!(
                    "{} ({}) failed, and on_failed = \"pause\"",
                    shown(&entry.name),
                    entry.id
                ),
                remedy: format!(
                    "Put it right (`patchdrop resend {}`), or leave it, then `patchdrop resume {route}` lets the next one go.",
                    entry.id
                ),
                since: entry.decided_at,
                next_probe_at: None,
            });
        }
        let entry = self.orders.held.get(route).filter(|_| paused_at.is_none())?;
        Some(Pause {
            code: "order-held".into(),
            text: format!("{} ({}) is held and comes first", shown(&entry.name), entry.id),
            remedy: format!(
                "Read the .why.txt beside it, then `patchdrop release {0}`, `patchdrop mark {0} --sent|--failed`, or move it out of held/.",
                entry.id
            ),
            since: entry.decided_at,
            next_probe_at: None,
        })
    }

    /// Whether files wait in line on a route that no person has to let go on first.
    pub(super) fn has_files_in_line(&self) -> bool {
        self.intakes.values().flat_map(super::Intake::routes_in_line).any(|route| {
            let is_paused = self.records.get(route).is_some_and(|it| it.paused_at.is_some());
            !is_paused && !self.schedule.is_held_up(route)
        })
    }
}

/// A held file of a route that is there and that no later journey has taken up; none lets the
/// others go.
pub(super) async fn first_held<W: World>(
    ctx: &Context<W>,
    route: &RouteName,
) -> Result<Option<Entry>, LedgerError> {
    let mut before = None;
    loop {
        let query = Query {
            route: Some(route.clone()),
            states: vec![State::Held],
            before,
            limit: PAGE,
            ..Query::default()
        };
        let page = ctx.world.ledger().list(query).await?;
        before = page.last().map(|entry| entry.id);
        let is_last = page.len() < PAGE;
        for entry in page {
            if ctx.world.ledger().successor(entry.id).await?.is_some() {
                continue;
            }
            // A folder that cannot be looked into is no evidence that the file is not there.
            let is_gone = match entry.target.clone().filter(|_| entry.settled) {
                Some(target) => matches!(ctx.world.disk().look(target).await, Ok(None)),
                None => false,
            };
            if !is_gone {
                return Ok(Some(entry));
            }
        }
        if is_last {
            return Ok(None);
        }
    }
}
