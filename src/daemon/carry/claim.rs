//! Steps 1 to 4: one look, one open, one pass; then on record, then in `sending/`, then durable.

use std::ffi::OsString;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::super::resume::{moved_back_by_a_power_cut, settle_again};
use super::super::twins::twin_for;
use super::finish::{finish, free_target, make_again, then_pause};
use super::{
    Carried, Context, Equipped, KEPT_MAX_BYTES, Report, Stumble, cancel, make_durable,
    sending_place,
};
use crate::journey::detect::Reason;
use crate::journey::ready::{self, Evidence, Readiness};
use crate::journey::settle::{self};
use crate::journey::validate::{Checked, Findings};
use crate::model::file::{FileId, Identity, Place, Sighting};
use crate::model::outcome::Cause;
use crate::model::route::Route;
use crate::model::step::{Claim, Entry, Intent, Step, Verdict};
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::folder::{Disk, Examined, FolderError, MoveError};
use crate::world::ledger::Ledger;

/// Steps 1 to 4: one look, one open, one pass; then on record, then renamed into `sending/`, then
/// durable. `previous` is the failed entry that a person wants sent again.
pub(in crate::daemon) async fn claim<W: World>(
    ctx: &Context<W>,
    equipped: &Arc<Equipped>,
    sighting: Sighting,
    mut evidence: Evidence,
) -> Report {
    let route = &equipped.route;
    let place = Place::new(&route.folders.inbox, sighting.name.clone());
    let marker = equipped.selector.marker_of(&sighting.name);
    if let Some(marker) = &marker {
        let seen = ctx.world.disk().look(Place::new(&route.folders.inbox, marker)).await;
        let now = ctx.world.clock().now();
        let counts =
            matches!(&seen, Ok(Some(seen)) if ready::marker_counts(seen, &sighting, now.wall));
        evidence.marker = Some(counts);
        if let Readiness::Wait(reason, wait) =
            ready::assess(&sighting, &route.ready, &evidence, now)
        {
            return Report::Left(Some((reason, wait)));
        }
    }
    let (examined, permit) = match examine(ctx, equipped, place.clone(), &sighting).await {
        Ok(examined) => examined,
        Err(error) => return Report::Left(left_because(&error)),
    };
    let now = ctx.world.clock().now();
    // The number is left out: some shares change it between two looks.
    let unchanged = examined.identity.size == sighting.identity.size
        && examined.identity.mtime_ns == sighting.identity.mtime_ns
        && examined.changed_at == sighting.changed_at
        && examined
            .findings
            .digest
            .is_none_or(|_| examined.findings.read_bytes == examined.identity.size);
    if !unchanged {
        return Report::Left(Some((Reason::NotReady, route.ready.quiet_for)));
    }
    if examined.links > 1 {
        let quiet = ready::unchanged_for(examined.changed_at, &evidence, now);
        let reason = ready::many_names(quiet, &route.ready);
        return Report::Left(Some((reason, route.ready.quiet_for.max(Duration::from_secs(1)))));
    }
    if let Checked::Truncated(_) = &examined.findings.result
        && ready::may_be_unfinished(examined.changed_at, &route.ready, &evidence, now)
    {
        let quiet = ready::unchanged_for(examined.changed_at, &evidence, now);
        let wait = route.ready.truncated_after.saturating_sub(quiet);
        return Report::Left(Some((Reason::Truncated, wait)));
    }
    if let Checked::Unread(_) = &examined.findings.result {
        return Report::Left(Some((Reason::Unreadable, route.ready.quiet_for)));
    }
    take_over(ctx, equipped, place, marker, examined, permit, None).await
}

type Look<W> = Examined<<<W as World>::Disk as Disk>::Grip, Findings>;

/// Opens a file and checks it in one pass, keeping a small body where the budget allows.
pub(in crate::daemon) async fn examine<W: World>(
    ctx: &Context<W>,
    equipped: &Arc<Equipped>,
    place: Place,
    sighting: &Sighting,
) -> Result<(Look<W>, Option<OwnedSemaphorePermit>), FolderError> {
    let size = sighting.identity.size;
    let permit = u32::try_from(size)
        .ok()
        .filter(|_| size <= KEPT_MAX_BYTES)
        .and_then(|bytes| Arc::clone(&ctx.budget).try_acquire_many_owned(bytes).ok());
    let keep_max = if permit.is_some() { usize::try_from(size).unwrap_or(0) } else { 0 };
    let equipped = Arc::clone(equipped);
    let read = move |input: &mut dyn Read, identity: &Identity| {
        equipped.checker.validate(&equipped.route.name, input, identity.size, keep_max)
    };
    Ok((ctx.world.disk().examine(place, read).await?, permit))
}

fn left_because(error: &FolderError) -> Option<(Reason, Duration)> {
    let again = Duration::from_secs(1);
    match error {
        FolderError::Gone { .. } => None,
        FolderError::NotAFile { .. } => Some((Reason::Special, again)),
        FolderError::InUse { .. } => Some((Reason::InUse, again)),
        FolderError::Denied { .. }
        | FolderError::Full { .. }
        | FolderError::Replaced { .. }
        | FolderError::Unfit { .. }
        | FolderError::Io { .. } => Some((Reason::Unreadable, again)),
    }
}

/// Steps 2 to 4 for a file that was examined.
async fn take_over<W: World>(
    ctx: &Context<W>,
    equipped: &Arc<Equipped>,
    place: Place,
    marker: Option<OsString>,
    examined: Look<W>,
    permit: Option<OwnedSemaphorePermit>,
    resent: Option<&Entry>,
) -> Report {
    let route = &equipped.route;
    let now = ctx.world.clock().now().wall;
    let seen = (examined.identity, examined.findings.digest);
    if resent.is_none()
        && let Some(entry) = moved_back_by_a_power_cut(ctx, route, &place, seen).await
    {
        let settled = settle_again(ctx, equipped, entry, place, examined.identity);
        return Box::pin(settled).await;
    }
    let previous = match resent {
        Some(entry) => Some(entry.clone()),
        None => predecessor(ctx, route, &examined.findings).await,
    };
    let id = match ctx.ids.next(ctx.world.ledger(), now).await {
        Ok(id) => id,
        Err(error) => return Report::Unrecorded(error),
    };
    let name = previous
        .as_ref()
        .filter(|_| resent.is_some())
        .map_or_else(|| place.name.clone(), |entry| entry.name.clone());
    let (intent, envelope, body, reservation) = match examined.findings.result {
        Checked::Sound { envelope, body } => (Intent::Attempt, Some(envelope), body, None),
        Checked::Truncated(fault) | Checked::Faulty(fault) => {
            let cause = Cause { remedy: Some(fault.remedy), ..fault.cause };
            let folder = settle::dated(&route.folders.failed, now);
            let reservation = free_target(ctx, &folder, &name, id, Some(settle::WHY)).await;
            let target = reservation.place.clone();
            (Intent::Refuse { cause, target }, None, None, Some(reservation))
        }
        Checked::Unread(_) => {
            return Report::Left(Some((Reason::Unreadable, Duration::from_secs(1))));
        }
    };
    let claim = Claim {
        id,
        route: route.name.clone(),
        name,
        source: place.clone(),
        marker,
        identity: examined.identity,
        digest: examined.findings.digest,
        twin: twin_for(route, envelope.as_ref()),
        envelope,
        key: key_for(ctx, id, previous.as_ref()),
        previous: previous.as_ref().map(|entry| entry.id),
        at: now,
        intent,
    };
    let entry = Entry::of(&claim);
    if let Err(error) = ctx.world.ledger().commit(claiming(route, &entry, claim)).await {
        return Report::Unrecorded(error);
    }
    let sending = sending_place(route, &entry);
    if let Err(report) = move_in(ctx, route, &entry, Some(examined.grip), &sending).await {
        return report;
    }
    if let Some(previous) = &previous {
        forget_sidecar(ctx, previous).await;
    }
    let carried = Carried { entry, body, turn: None, _permit: permit };
    match reservation {
        Some(reservation) => {
            let cause = carried.entry.cause.clone();
            Box::pin(finish(ctx, equipped, carried, cause, reservation)).await
        }
        None => Report::Claimed(Box::new(carried)),
    }
}

/// What puts a claim on record.
fn claiming(route: &Route, entry: &Entry, claim: Claim) -> Vec<Step> {
    let at = claim.at;
    then_pause(route, entry, entry.state, at, vec![Step::Claimed(Box::new(claim))])
}

/// Steps 3 and 4: the marker, then the file, into `sending/`; both folders durable.
pub(in crate::daemon) async fn move_in<W: World>(
    ctx: &Context<W>,
    route: &Route,
    entry: &Entry,
    grip: Option<<W::Disk as Disk>::Grip>,
    sending: &Place,
) -> Result<(), Report> {
    let disk = ctx.world.disk();
    let stumbled = |stumble: Stumble| Report::Stumbled(entry.id, stumble);
    if let Some(marker) = &entry.marker {
        let from = Place { folder: Arc::clone(&entry.source.folder), name: marker.clone() };
        let to = Place::new(&route.folders.sending, settle::claimed_name(entry.id, marker));
        match disk.move_new(from, to).await {
            Ok(_) | Err(MoveError::Gone { .. } | MoveError::Taken { .. }) => {}
            Err(error) => return Err(stumbled(error.into())),
        }
    }
    let moved = match grip {
        Some(grip) => disk.claim(grip, entry.source.clone(), sending.clone()).await,
        None => disk.move_new(entry.source.clone(), sending.clone()).await.map(drop),
    };
    match moved {
        Ok(()) => {}
        Err(MoveError::Folder(FolderError::Gone { path })) if path == *sending.folder => {
            // The entry is on record: it is taken up again as soon as its folder is there.
            let made = make_again(ctx, route, &sending.folder).await;
            let gone = FolderError::Gone { path };
            return Err(stumbled(made.err().unwrap_or(gone).into()));
        }
        Err(MoveError::Gone { .. }) => return Err(Box::pin(cancel(ctx, entry, VANISHED)).await),
        Err(MoveError::Swapped { .. }) => return Err(Box::pin(put_back(ctx, route, entry)).await),
        Err(error) => return Err(stumbled(error.into())),
    }
    make_durable(ctx, &sending.folder, &entry.source.folder)
        .await
        .map_err(|error| stumbled(error.into()))
}

pub(in crate::daemon) const VANISHED: (&str, &str) =
    ("vanished", "the file was gone before it could be claimed; nothing was sent");

const SWAPPED: (&str, &str) =
    ("swapped", "another file took its name while it was claimed; that one starts anew");

/// The only undo: what was moved is not what was examined. It goes back under its name, or, if
/// that is taken by now, under one with the id; never replacing.
pub(in crate::daemon) async fn put_back<W: World>(
    ctx: &Context<W>,
    route: &Route,
    entry: &Entry,
) -> Report {
    let disk = ctx.world.disk();
    let from = sending_place(route, entry);
    for name in settle::targets(&entry.source.name, entry.id) {
        let to = Place::new(&entry.source.folder, name);
        match disk.move_new(from.clone(), to).await {
            Err(MoveError::Taken { .. }) => {}
            Ok(_) | Err(MoveError::Gone { .. }) => break,
            Err(error) => return Report::Stumbled(entry.id, error.into()),
        }
    }
    cancel(ctx, entry, SWAPPED).await
}

/// The earlier entry that a file moved back by hand continues: same route, same bytes, in `failed/`
/// or `held/` on record, and no longer there.
async fn predecessor<W: World>(
    ctx: &Context<W>,
    route: &Route,
    findings: &Findings,
) -> Option<Entry> {
    let digest = findings.digest.as_ref()?;
    let entry = ctx.world.ledger().predecessor(&route.name, digest).await.ok()??;
    let target = entry.target.clone()?;
    let gone = matches!(ctx.world.disk().look(target).await, Ok(None));
    gone.then_some(entry)
}

/// A resend keeps the key of its chain, unless the receiver has answered under that key, by a
/// rejection or by accepting it for a run that then failed: then a new one is due.
fn key_for<W: World>(ctx: &Context<W>, id: FileId, previous: Option<&Entry>) -> String {
    match previous {
        Some(entry)
            // One whose record was lost has a verdict and no attempt.
            if (entry.attempt > 0 || entry.last_verdict.is_some())
                && !matches!(
                    entry.last_verdict,
                    Some(
                        Verdict::Rejected
                            | Verdict::RouteFault
                            | Verdict::Changed
                            | Verdict::Delivered
                    )
                ) =>
        {
            entry.key.clone()
        }
        _ => ctx.world.ledger().key(id),
    }
}

async fn forget_sidecar<W: World>(ctx: &Context<W>, entry: &Entry) {
    if let Some(target) = &entry.target {
        let name = settle::beside(&target.name, entry.id, settle::WHY);
        let sidecar = Place { folder: Arc::clone(&target.folder), name };
        if let Err(error) = ctx.world.disk().remove(sidecar).await {
            tracing::debug!(%error, "could not remove an old sidecar");
        }
    }
}

/// A failed file that a person wants sent again: checked again, and claimed under a new id that
/// remembers the old one.
pub(in crate::daemon) async fn resend<W: World>(
    ctx: &Context<W>,
    equipped: &Arc<Equipped>,
    old: &Entry,
) -> Result<Report, String> {
    let Some(target) = old.target.clone() else {
        return Err("it is not on record where it lies".into());
    };
    let seen = match ctx.world.disk().look(target.clone()).await {
        Ok(Some(seen)) => seen,
        Ok(None) => return Err(format!("it is no longer at {target}")),
        Err(error) => return Err(error.to_string()),
    };
    let (examined, permit) =
        examine(ctx, equipped, target.clone(), &seen).await.map_err(|error| error.to_string())?;
    match &examined.findings.result {
        Checked::Sound { .. } => {}
        Checked::Truncated(fault) | Checked::Faulty(fault) => {
            return Err(format!("it can still not be sent: {}", fault.cause.plain));
        }
        Checked::Unread(error) => return Err(format!("it cannot be read: {error}")),
    }
    Ok(take_over(ctx, equipped, target, None, examined, permit, Some(old)).await)
}
