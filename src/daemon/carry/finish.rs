//! Steps 6 and 7: what follows a verdict goes on record; then the file goes where it belongs.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::grounds;
use super::super::targets::Reservation;
use super::{
    Carried, Context, Equipped, Report, Stumble, Unconcluded, folder_is_there, removed,
    sending_place,
};
use crate::journey::order;
use crate::journey::runs::Errand;
use crate::journey::send::Judged;
use crate::journey::settle::{self, Next};
use crate::model::file::{FileId, Identity, Place, shown};
use crate::model::outcome::{Cause, Code};
use crate::model::route::Route;
use crate::model::step::{AttemptEnd, Entry, State, Step};
use crate::model::time::Wall;
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::folder::{Disk, FolderError, MoveError};
use crate::world::ledger::{Ledger, LedgerError};

/// With the pause that goes on record together with a failure, on a route that keeps an order and
/// wants it so: nothing can be claimed between the two.
pub(super) fn then_pause(
    route: &Route,
    entry: &Entry,
    state: State,
    at: Wall,
    mut steps: Vec<Step>,
) -> Vec<Step> {
    if order::pauses(route, state) {
        steps.push(Step::RoutePaused { id: entry.id, route: route.name.clone(), at });
    }
    steps
}

/// Step 6: what follows a verdict goes on record; then the file is parked or finished.
pub(in crate::daemon) async fn conclude<W: World>(
    ctx: &Context<W>,
    equipped: &Equipped,
    mut carried: Box<Carried>,
    judged: Judged,
    next: Next,
    waited_for: Duration,
) -> Report {
    let at = ctx.world.clock().now().wall;
    let (id, attempt) = (carried.entry.id, carried.entry.attempt);
    let end = judged.end();
    let accepted = |due_at| Step::Accepted {
        id,
        attempt: Some((attempt, end.clone())),
        run: judged.run.clone(),
        at,
        due_at,
    };
    let (step, parked) = match &next {
        Next::Park { wait, errand } => {
            let due_at = at.plus(*wait);
            let step = Step::AttemptEnded { id, attempt, end, at, due_at, waited_for };
            (step, Report::Parked(*wait, *errand))
        }
        Next::Confirm => {
            let confirm = equipped.route.deliver.flow.as_ref().and_then(|flow| flow.confirm);
            let wait = confirm.map_or(Duration::ZERO, |confirm| confirm.every);
            (accepted(at.plus(wait)), Report::Parked(wait, Errand::Confirm))
        }
        Next::Settle { state, cause } => {
            let has_run = judged.run.is_some();
            let (before, ended) =
                if has_run { (Some(accepted(at)), None) } else { (None, Some((attempt, end))) };
            let end = (*state, cause);
            return match put_end(ctx, equipped, &mut carried.entry, before, ended, end).await {
                Ok(reservation) => {
                    let cause = Some(cause.clone());
                    finish(ctx, equipped, *carried, cause, reservation).await
                }
                Err(error) => Unconcluded::report(carried, judged, next, error),
            };
        }
    };
    match ctx.world.ledger().commit(vec![step]).await {
        Ok(()) => parked,
        Err(error) => Unconcluded::report(carried, judged, next, error),
    }
}

/// Puts the end of a journey on record, in one commit with the step that leads to it, and goes
/// there.
pub(in crate::daemon) async fn decide<W: World>(
    ctx: &Context<W>,
    equipped: &Equipped,
    mut carried: Box<Carried>,
    before: Option<Step>,
    attempt: Option<(u32, AttemptEnd)>,
    (state, cause): (State, Cause),
) -> Report {
    let id = carried.entry.id;
    let end = (state, &cause);
    match put_end(ctx, equipped, &mut carried.entry, before, attempt, end).await {
        Ok(reservation) => finish(ctx, equipped, *carried, Some(cause), reservation).await,
        Err(error) => Report::Stumbled(id, error.into()),
    }
}

/// Chooses where a file goes, and puts that and the end of its journey on record.
async fn put_end<W: World>(
    ctx: &Context<W>,
    equipped: &Equipped,
    entry: &mut Entry,
    before: Option<Step>,
    attempt: Option<(u32, AttemptEnd)>,
    (state, cause): (State, &Cause),
) -> Result<Reservation, LedgerError> {
    let at = ctx.world.clock().now().wall;
    let reservation = home(ctx, equipped, entry, state, at).await;
    let (id, target) = (entry.id, reservation.place.clone());
    let decided = Step::Decided { id, attempt, state, cause: cause.for_the_record(), target, at };
    let steps = before.into_iter().chain([decided]).collect();
    let steps = then_pause(&equipped.route, entry, state, at, steps);
    ctx.world.ledger().commit(steps.clone()).await?;
    for step in &steps {
        entry.apply(step);
    }
    Ok(reservation)
}

/// The folder of a state, and the ending of what is written beside a file there.
fn home_of(route: &Route, state: State) -> (&Path, Option<&'static str>) {
    match state {
        State::Sent => (&route.folders.sent, route.receipts.then_some(settle::RECEIPT)),
        State::Held => (&route.folders.held, Some(settle::WHY)),
        State::Failed
        | State::Sending
        | State::Deferred
        | State::Confirming
        | State::Missing
        | State::Cancelled => (&route.folders.failed, Some(settle::WHY)),
    }
}

/// A free place for a file in the folder of a state.
pub(in crate::daemon) async fn home<W: World>(
    ctx: &Context<W>,
    equipped: &Equipped,
    entry: &Entry,
    state: State,
    at: Wall,
) -> Reservation {
    let (folder, ending) = home_of(&equipped.route, state);
    let folder = settle::dated(folder, at);
    if ending.is_none() && ctx.world.disk().syncs_folders() && !equipped.elsewhere.of(state) {
        // Nothing stands beside it, and the move itself never replaces: a look would only cost. A
        // name that turns out taken costs one more commit. (Where a power cut can undo a claim, or
        // a move copies, an equal file at a recorded target is taken for this one: there we look.)
        let place = Place::new(&Arc::from(folder.as_path()), entry.name.clone());
        if let Some(reservation) = ctx.targets.reserve(place) {
            return reservation;
        }
    }
    free_target(ctx, &folder, &entry.name, entry.id, ending).await
}

/// A name in a target folder that is free, with that of its sidecar, and kept for this file. A look
/// may be out of date a moment later: the move itself never replaces.
pub(super) async fn free_target<W: World>(
    ctx: &Context<W>,
    folder: &Path,
    name: &std::ffi::OsStr,
    id: FileId,
    ending: Option<&str>,
) -> Reservation {
    let folder: Arc<Path> = Arc::from(folder);
    let disk = ctx.world.disk();
    for candidate in settle::targets(name, id) {
        let place = Place::new(&folder, candidate);
        let Some(reservation) = ctx.targets.reserve(place.clone()) else { continue };
        if !matches!(disk.look(place.clone()).await, Ok(None) | Err(_)) {
            continue;
        }
        if let Some(ending) = ending {
            let beside = settle::beside(&place.name, id, ending);
            if !matches!(disk.look(Place::new(&folder, beside)).await, Ok(None) | Err(_)) {
                continue;
            }
        }
        return reservation;
    }
    // Even the name with the id is taken: by a person's doing. One more number ends it.
    let mut attempt = 0_u32;
    loop {
        attempt += 1;
        let mut odd = OsString::from(format!("{id}~{attempt}~"));
        odd.push(shown(name).chars().take(60).collect::<String>());
        let place = Place::new(&folder, odd);
        if let Some(reservation) = ctx.targets.reserve(place.clone())
            && !matches!(disk.look(place).await, Ok(Some(_)))
        {
            return reservation;
        }
    }
}

/// Step 7: the sidecar, then the move. (Step 8, both folders durable and "settled" on record, is
/// done for many files at once: see `sealing`.)
pub(in crate::daemon) async fn finish<W: World>(
    ctx: &Context<W>,
    equipped: &Equipped,
    mut carried: Carried,
    cause: Option<Cause>,
    mut reservation: Reservation,
) -> Report {
    let route = &*equipped.route;
    let id = carried.entry.id;
    carried.body = None;
    let sending = sending_place(route, &carried.entry);
    loop {
        let target = reservation.place.clone();
        match write_beside(ctx, route, &carried.entry, cause.as_ref(), &target).await {
            Ok(()) => {}
            Err(Stumble::Folder(FolderError::Gone { path })) if path == *target.folder => {
                if let Err(error) = make_again(ctx, route, &target.folder).await {
                    return Report::Stumbled(id, error.into());
                }
                continue;
            }
            Err(stumble) => return Report::Stumbled(id, stumble),
        }
        match ctx.world.disk().move_new(sending.clone(), target.clone()).await {
            Ok(moved) => {
                match say_if_changed(ctx, route, &carried.entry, &moved, &target).await {
                    Ok(None) => {}
                    Ok(changed) => carried.entry.cause = changed,
                    Err(stumble) => return Report::Stumbled(id, stumble),
                }
                break;
            }
            Err(MoveError::Gone { .. }) => {
                if let Err(error) = folder_is_there(ctx, &sending.folder).await {
                    return Report::Stumbled(id, error.into());
                }
                return Box::pin(removed(ctx, carried.entry)).await;
            }
            Err(MoveError::Folder(FolderError::Gone { path })) if path == *target.folder => {
                if let Err(error) = make_again(ctx, route, &target.folder).await {
                    return Report::Stumbled(id, error.into());
                }
            }
            Err(MoveError::Taken { .. }) => {
                // It was free when it was put on record: an equal file there is our own copy, of a
                // move that was cut off before the original was removed.
                if equipped.elsewhere.of(carried.entry.state) {
                    match finish_copy(ctx, &sending, &target).await {
                        Ok(true) => break,
                        Ok(false) => {}
                        Err(error) => return Report::Stumbled(id, error.into()),
                    }
                }
                let (_, ending) = home_of(route, carried.entry.state);
                forget_beside(ctx, &target, id, ending).await;
                let folder = Arc::clone(&target.folder);
                let next = free_target(ctx, &folder, &carried.entry.name, id, ending).await;
                let step = Step::Retargeted { id, target: next.place.clone() };
                if let Err(error) = ctx.world.ledger().commit(vec![step.clone()]).await {
                    return Report::Stumbled(id, error.into());
                }
                carried.entry.apply(&step);
                reservation = next;
            }
            Err(error) => return Report::Stumbled(id, error.into()),
        }
    }
    follow(ctx, route, carried.entry, &reservation.place).await
}

/// Ends a move to another volume that left the file at both places; whether it had. Their digests
/// decide: what cannot be read is an error, and no reason for a second copy.
pub(in crate::daemon) async fn finish_copy<W: World>(
    ctx: &Context<W>,
    from: &Place,
    to: &Place,
) -> Result<bool, FolderError> {
    let disk = ctx.world.disk();
    let Some((identity, original)) = disk.digest(from.clone()).await? else { return Ok(false) };
    let copy = match disk.digest(to.clone()).await {
        Err(FolderError::NotAFile { .. }) => None,
        other => other?,
    };
    if copy.is_none_or(|(_, copy)| copy != original) {
        return Ok(false);
    }
    disk.finish_move(from.clone(), identity, to.clone()).await?;
    Ok(true)
}

/// Looks whether what was moved is what was checked: somebody may have written into `sending/`.
/// What was accepted was accepted, so it stays where it is, but not without a word. What was said.
async fn say_if_changed<W: World>(
    ctx: &Context<W>,
    route: &Route,
    entry: &Entry,
    moved: &Identity,
    target: &Place,
) -> Result<Option<Cause>, Stumble> {
    let is_known = entry.cause.as_ref().is_some_and(|cause| cause.code.0 == settle::CHANGED);
    if moved.is_same(&entry.identity) || is_known {
        return Ok(None);
    }
    let disk = ctx.world.disk();
    let lies_there = disk.digest(target.clone()).await?.map(|(_, digest)| digest);
    if lies_there.is_none() || lies_there == entry.digest {
        return Ok(None);
    }
    let at = ctx.world.clock().now().wall;
    let id = entry.id;
    let cause = settle::changed_before_its_move(entry.state);
    let text = cause.plain.clone();
    tracing::error!(route = %entry.route, file = %shown(&entry.name), %id, place = %target, "{text}; see the .why.txt beside it, and find out who writes into sending/");
    let note = Step::Noted { id, at, text };
    ctx.world.ledger().commit(vec![note]).await?;
    let name = settle::beside(&target.name, id, settle::WHY);
    let beside = Place { folder: Arc::clone(&target.folder), name };
    let (_, ending) = home_of(route, entry.state);
    // What a person has put there stays; where a sidecar is due it is ours.
    if ending != Some(settle::WHY) && disk.look(beside.clone()).await?.is_some() {
        return Ok(Some(cause));
    }
    let history = ctx.world.ledger().history(id).await?;
    let attempts = history.map(|history| history.attempts).unwrap_or_default();
    let why = settle::why(entry, entry.state, &cause, &attempts, at);
    disk.write(beside, why.into_bytes()).await?;
    Ok(Some(cause))
}

/// Makes a folder of ours again that somebody has removed, if the drop folder itself is there: a
/// volume that is not mounted has neither.
pub(in crate::daemon) async fn make_again<W: World>(
    ctx: &Context<W>,
    route: &Route,
    folder: &Arc<Path>,
) -> Result<(), FolderError> {
    // The mount point of a volume that is away is no place to make anything.
    grounds::stand(ctx, route).await?;
    ctx.world.disk().make_folder(Arc::clone(folder)).await?;
    let route = &route.name;
    tracing::warn!(%route, folder = %folder.display(), "folder had been removed; made again");
    Ok(())
}

/// The marker follows its file.
pub(in crate::daemon) async fn follow<W: World>(
    ctx: &Context<W>,
    route: &Route,
    entry: Entry,
    target: &Place,
) -> Report {
    let disk = ctx.world.disk();
    if let Some(marker) = &entry.marker {
        let from = Place::new(&route.folders.sending, settle::claimed_name(entry.id, marker));
        for name in settle::targets(marker, entry.id) {
            match disk.move_new(from.clone(), Place::new(&target.folder, name)).await {
                Err(MoveError::Taken { .. }) => {}
                Ok(_) | Err(MoveError::Gone { .. }) => break,
                Err(error) => return Report::Stumbled(entry.id, error.into()),
            }
        }
    }
    Report::Moved(Box::new(entry))
}

/// Writes what stands beside a file at its target, before it moves there.
pub(in crate::daemon) async fn write_beside<W: World>(
    ctx: &Context<W>,
    route: &Route,
    entry: &Entry,
    cause: Option<&Cause>,
    target: &Place,
) -> Result<(), Stumble> {
    let disk = ctx.world.disk();
    let (folder, ending) = home_of(route, entry.state);
    if *folder != *target.folder {
        disk.make_folder(Arc::clone(&target.folder)).await?;
    }
    let Some(ending) = ending else { return Ok(()) };
    let at = entry.decided_at.unwrap_or_default();
    let history = ctx.world.ledger().history(entry.id).await?;
    let attempts = history.map(|history| history.attempts).unwrap_or_default();
    let content = if entry.state == State::Sent {
        let end = attempts.last().and_then(|attempt| attempt.end.as_ref());
        settle::receipt(entry, end, &route.deliver.host, at)
    } else {
        let unknown = Cause::new(Code::of("unknown"), "no reason is on record");
        let cause = cause.unwrap_or(&unknown);
        settle::why(entry, entry.state, cause, &attempts, at).into_bytes()
    };
    let name = settle::beside(&target.name, entry.id, ending);
    disk.write(Place { folder: Arc::clone(&target.folder), name }, content).await?;
    Ok(())
}

pub(in crate::daemon) async fn forget_beside<W: World>(
    ctx: &Context<W>,
    target: &Place,
    id: FileId,
    ending: Option<&str>,
) {
    let Some(ending) = ending else { return };
    let name = settle::beside(&target.name, id, ending);
    let beside = Place { folder: Arc::clone(&target.folder), name };
    if let Err(error) = ctx.world.disk().remove(beside).await {
        tracing::debug!(%error, "could not remove a sidecar beside a taken name");
    }
}
