//! What a start or a second look finds out about journeys on record, and how they go on (promises
//! P1, P3, P9): entries that are unsettled, files in `sending/` without a record, and files that a
//! power cut has moved back.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use super::carry::{
    Carried, Context, Equipped, Report, Stumble, VANISHED, cancel, decide, examine, finish,
    finish_copy, folder_is_there, follow, forget_beside, home, make_durable, missing, move_in,
    not_sent, put_back, removed, sending_place, write_beside,
};
use crate::journey::resume::{AttemptTrace, Found, LastAttempt, Resume, resume as decide_resume};
use crate::journey::runs::{self, Errand};
use crate::journey::send::Judged;
use crate::journey::settle;
use crate::journey::validate::Checked;
use crate::model::file::{Digest, FileId, Identity, Place, Sighting};
use crate::model::outcome::{Cause, Code, Outcome};
use crate::model::route::Route;
use crate::model::status::Waiting;
use crate::model::step::{AttemptEnd, Claim, Entry, Intent, State, Step, Verdict};
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::folder::{Disk, FolderError, MoveError};
use crate::world::ledger::{Ledger, LedgerError, Query};

/// Finds out where a journey on record stands, and goes on from there.
pub(super) async fn resume<W: World>(
    ctx: &Context<W>,
    equipped: &Arc<Equipped>,
    id: FileId,
) -> Report {
    match resume_entry(ctx, equipped, id).await {
        Ok(report) => report,
        Err(stumble) => Report::Stumbled(id, stumble),
    }
}

async fn resume_entry<W: World>(
    ctx: &Context<W>,
    equipped: &Arc<Equipped>,
    id: FileId,
) -> Result<Report, Stumble> {
    let route = &equipped.route;
    let Some(entry) = ctx.world.ledger().entry(id).await? else {
        return Ok(Report::Left(None));
    };
    let sending = sending_place(route, &entry);
    let found = find(ctx, &entry, &sending).await?;
    let trace = AttemptTrace {
        had_begun: ctx.world.ledger().had_begun(id, entry.attempt),
        renames_are_durable: ctx.world.disk().syncs_folders(),
    };
    Ok(match decide_resume(&entry, &found, trace) {
        Resume::GoOn(last) => {
            // The process may have died between the rename and its fsync.
            make_durable(ctx, &sending.folder, &entry.source.folder).await?;
            forget_original(ctx, route, &entry, &sending).await?;
            go_on(ctx, equipped, entry, last).await
        }
        Resume::RenameAgain(last) => {
            if let Err(report) = move_in(ctx, route, &entry, None, &sending).await {
                return Ok(report);
            }
            forget_sidecar_at(ctx, &entry.source, id).await;
            go_on(ctx, equipped, entry, last).await
        }
        Resume::Settled => match entry.target.clone() {
            Some(target) => {
                // The sidecar was written first, but a power cut may have kept the move alone.
                let cause = entry.cause.clone();
                write_beside(ctx, route, &entry, cause.as_ref(), &target).await?;
                follow(ctx, route, entry, &target).await
            }
            None => Report::Left(None),
        },
        Resume::PutBack => put_back(ctx, route, &entry).await,
        Resume::Changed(last) => hold_changed(ctx, equipped, entry, last).await,
        Resume::Cancelled => cancel(ctx, &entry, VANISHED).await,
        Resume::Removed => removed(ctx, entry).await,
        Resume::Missing => missing(ctx, entry).await,
    })
}

/// A file taken up again from another volume was copied into `sending/`; its move may have been cut
/// off before the original was removed.
async fn forget_original<W: World>(
    ctx: &Context<W>,
    route: &Route,
    entry: &Entry,
    sending: &Place,
) -> Result<(), Stumble> {
    let (source, disk) = (&entry.source, ctx.world.disk());
    let is_at_home = source.folder == route.folders.inbox || source.folder == sending.folder;
    if is_at_home
        || !disk.is_elsewhere(Arc::clone(&source.folder), Arc::clone(&sending.folder)).await
    {
        return Ok(());
    }
    // Its place may be another file's by now.
    let query = Query { name: Some(entry.name.clone()), limit: NAMESAKES_MAX, ..Query::default() };
    let namesakes = ctx.world.ledger().list(query).await?;
    let is_taken = |other: &Entry| {
        let is_of_this_chain = other.id == entry.id || Some(other.id) == entry.previous;
        !is_of_this_chain && other.target.as_ref() == Some(source)
    };
    if !namesakes.iter().any(is_taken) && finish_copy(ctx, source, sending).await? {
        forget_sidecar_at(ctx, source, entry.id).await;
    }
    Ok(())
}

/// Entries of one name that are looked through.
const NAMESAKES_MAX: usize = 1_000;

/// A released file leaves its old sidecar behind in `held/` or `failed/`.
async fn forget_sidecar_at<W: World>(ctx: &Context<W>, source: &Place, id: FileId) {
    forget_beside(ctx, source, id, Some(settle::WHY)).await;
}

async fn find<W: World>(
    ctx: &Context<W>,
    entry: &Entry,
    sending: &Place,
) -> Result<Found, Stumble> {
    let disk = ctx.world.disk();
    let mut found = Found::default();
    if let Some(seen) = disk.look(sending.clone()).await? {
        found.sending = Some(seen.identity);
        if !seen.identity.is_same(&entry.identity) {
            let digest = disk.digest(sending.clone()).await?;
            found.sending_digest = digest.map(|(_, digest)| digest);
        }
        return Ok(found);
    }
    // A folder that is not there (a volume not mounted) is no evidence that the file is not.
    folder_is_there(ctx, &sending.folder).await?;
    folder_is_there(ctx, &entry.source.folder).await?;
    if let (Some(target), Some(_)) = (&entry.target, entry.decided_at) {
        found.target = digest_if_file(ctx, target).await?;
    }
    found.source = digest_if_file(ctx, &entry.source).await?;
    Ok(found)
}

async fn digest_if_file<W: World>(
    ctx: &Context<W>,
    place: &Place,
) -> Result<Option<(Identity, Digest)>, Stumble> {
    match ctx.world.disk().digest(place.clone()).await {
        Ok(found) => Ok(found),
        Err(FolderError::Gone { .. } | FolderError::NotAFile { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Goes on with a file that lies in `sending/`.
async fn go_on<W: World>(
    ctx: &Context<W>,
    equipped: &Arc<Equipped>,
    mut entry: Entry,
    last: LastAttempt,
) -> Report {
    let id = entry.id;
    if let Some(target) = entry.target.clone().filter(|_| entry.decided_at.is_some()) {
        let cause = cause_again(ctx, equipped, &entry).await;
        let Some(reservation) = ctx.targets.reserve(target) else {
            // The one that keeps it is about to take it: look again after that.
            let target = sending_place(&equipped.route, &entry).path();
            return Report::Stumbled(id, MoveError::Taken { target }.into());
        };
        return finish(ctx, equipped, Carried::of(entry), cause, reservation).await;
    }
    match last {
        LastAttempt::Ended => match runs::errand(&entry, equipped.route.in_doubt) {
            Errand::Attempt | Errand::Finish => Report::Resumed(Box::new(Carried::of(entry))),
            errand @ (Errand::Confirm | Errand::LookUp) => {
                let now = ctx.world.clock().now().wall;
                let wait = entry.due_at.map_or(Duration::ZERO, |due_at| due_at.since(now));
                Report::Parked(wait, errand)
            }
        },
        LastAttempt::InDoubt => Report::Doubted(Box::new(Carried::of(entry)), lost_answer()),
        LastAttempt::NotSent => {
            let step = not_sent(&entry, ctx.world.clock().now().wall, entry.waited_for);
            if let Err(error) = ctx.world.ledger().commit(vec![step.clone()]).await {
                return Report::Stumbled(id, error.into());
            }
            entry.apply(&step);
            Report::Resumed(Box::new(Carried::of(entry)))
        }
    }
}

/// What lies in `sending/` is not what was checked and may have been sent: a person decides.
async fn hold_changed<W: World>(
    ctx: &Context<W>,
    equipped: &Arc<Equipped>,
    entry: Entry,
    last: LastAttempt,
) -> Report {
    let cause = settle::changed_after_claim(last);
    let verdict = match last {
        LastAttempt::InDoubt => Some(Verdict::InDoubt),
        LastAttempt::NotSent => Some(Verdict::NotSent),
        LastAttempt::Ended => None,
    };
    let end = verdict.map(|verdict| AttemptEnd {
        verdict,
        code: cause.code.clone(),
        status: None,
        request_id: None,
        plain: cause.plain.clone(),
    });
    let attempt = end.map(|end| (entry.attempt, end));
    let carried = Box::new(Carried::of(entry));
    decide(ctx, equipped, carried, None, attempt, (State::Held, cause)).await
}

/// The reason on record; for a file that we refused ourselves with its excerpt, which only the
/// file has.
async fn cause_again<W: World>(
    ctx: &Context<W>,
    equipped: &Arc<Equipped>,
    entry: &Entry,
) -> Option<Cause> {
    let cause = entry.cause.clone()?;
    if entry.attempt > 0 || entry.digest.is_none() {
        return Some(cause);
    }
    let place = sending_place(&equipped.route, entry);
    let looked = Arc::clone(equipped);
    let read = move |input: &mut dyn Read, identity: &Identity| {
        looked.checker.validate(&looked.route.name, input, identity.size, 0)
    };
    let Ok(examined) = ctx.world.disk().examine(place, read).await else { return Some(cause) };
    match examined.findings.result {
        Checked::Truncated(fault) | Checked::Faulty(fault) => {
            let Cause { excerpt, .. } = fault.cause;
            Some(Cause { excerpt, remedy: Some(fault.remedy), ..cause })
        }
        Checked::Sound { .. } | Checked::Unread(_) => Some(cause),
    }
}

fn lost_answer() -> Judged {
    let plain = "patchdrop or the machine stopped during the attempt; no answer is on record";
    Judged::unanswered(Outcome::InDoubt, Cause::new(Code::of("no-answer-on-record"), plain))
}

/// Where renames cannot be made durable, a power cut may bring a file back whose journey has ended:
/// the same file, at the same place, and nothing at its target. It is not a new one (promise P3).
pub(super) async fn moved_back_by_a_power_cut<W: World>(
    ctx: &Context<W>,
    route: &Route,
    place: &Place,
    (identity, digest): (Identity, Option<Digest>),
) -> Option<Entry> {
    let unsure_below = match (ctx.world.ledger().unsure_below(), ctx.world.disk().syncs_folders()) {
        (Some(FileId(0)), _) | (None, true) => return None,
        (Some(below), _) => Some(below),
        (None, false) => None,
    };
    let query = Query {
        route: Some(route.name.clone()),
        name: Some(place.name.clone()),
        limit: 1,
        ..Query::default()
    };
    let entry = ctx.world.ledger().list(query).await.ok()?.pop()?;
    let decided_before = entry.decided_at.is_some_and(|at| at < ctx.started_at);
    let is_it = entry.settled
        && unsure_below.is_none_or(|below| entry.id < below)
        && decided_before
        && entry.source == *place
        && entry.identity.is_same(&identity)
        && entry.digest == digest;
    let target = entry.target.clone().filter(|_| is_it)?;
    matches!(ctx.world.disk().look(target).await, Ok(None)).then_some(entry)
}

/// Moves a file again to where its record says that it is.
pub(super) async fn settle_again<W: World>(
    ctx: &Context<W>,
    equipped: &Arc<Equipped>,
    entry: Entry,
    source: Place,
    identity: Identity,
) -> Report {
    let id = entry.id;
    match undo_settled(ctx, equipped, entry, source, identity).await {
        Ok(_) => resume(ctx, equipped, id).await,
        Err(error) => Report::Unrecorded(error),
    }
}

/// Puts on record that a file whose end was settled lies at `source` again, and goes to the same
/// end once more.
async fn undo_settled<W: World>(
    ctx: &Context<W>,
    equipped: &Equipped,
    mut entry: Entry,
    source: Place,
    identity: Identity,
) -> Result<Entry, LedgerError> {
    let at = ctx.world.clock().now().wall;
    let (id, state) = (entry.id, entry.state);
    let unknown = || Cause::new(Code::of("unknown"), "no reason is on record");
    // An excerpt is for the sidecar alone (promise P11).
    let cause = Cause { excerpt: None, ..entry.cause.clone().unwrap_or_else(unknown) };
    let target = home(ctx, equipped, &entry, state, at).await;
    let steps = vec![
        Step::Released { id, source, identity, at },
        Step::Noted {
            id,
            at,
            text: format!("a power cut undid its moves; it is moved again as {}", state.name()),
        },
        Step::Decided { id, attempt: None, state, cause, target: target.place.clone(), at },
    ];
    ctx.world.ledger().commit(steps.clone()).await?;
    for step in &steps {
        entry.apply(step);
    }
    Ok(entry)
}

/// What a listing of `sending/` has found.
#[derive(Default)]
struct InSending {
    /// Names with an id of this ledger that may be its business, each with what is on record.
    ours: Vec<(FileId, Sighting, Option<Entry>)>,
    /// Everything else but what is on its way.
    foreign: Waiting,
}

impl InSending {
    fn count_foreign(&mut self, sighting: &Sighting) {
        self.foreign.files += 1;
        if self.foreign.oldest_at.is_none_or(|oldest| sighting.changed_at < oldest) {
            self.foreign.oldest_at = Some(sighting.changed_at);
            self.foreign.example = sighting.shown();
        }
    }
}

async fn list_sending<W: World>(
    ctx: &Context<W>,
    equipped: &Equipped,
) -> Result<InSending, Stumble> {
    let sending = &equipped.route.folders.sending;
    let (chunks, mut listing) = tokio::sync::mpsc::channel(1);
    let sweep = ctx.world.disk().sweep(Arc::clone(sending), chunks);
    let collect = async {
        let mut found = InSending::default();
        while let Some(chunk) = listing.recv().await {
            for sighting in chunk {
                let id = settle::claimed_id(&sighting.name);
                let Some(id) = id.filter(|id| ctx.world.ledger().has_reserved(*id)) else {
                    found.count_foreign(&sighting);
                    continue;
                };
                // Known ones are the ledger's business; the look-up is one by key.
                match ctx.world.ledger().entry(id).await? {
                    Some(entry) if !entry.settled && is_name_of(&entry, &sighting) => {}
                    Some(entry) if !entry.settled => found.count_foreign(&sighting),
                    known => found.ours.push((id, sighting, known)),
                }
            }
        }
        Ok::<_, Stumble>(found)
    };
    let (swept, found) = tokio::join!(sweep, collect);
    swept?;
    found
}

/// Whether a name in `sending/` is that of an entry's file or of its marker: an id is easily
/// copied.
fn is_name_of(entry: &Entry, sighting: &Sighting) -> bool {
    let names = std::iter::once(&entry.name).chain(entry.marker.as_ref());
    names.map(|name| settle::claimed_name(entry.id, name)).any(|name| name == sighting.name)
}

/// What lies in `sending/` and is not ours (promise P12).
pub(super) async fn foreign_in_sending<W: World>(
    ctx: &Context<W>,
    equipped: &Equipped,
) -> Result<Waiting, Stumble> {
    let mut found = list_sending(ctx, equipped).await?;
    for (_, sighting, known) in std::mem::take(&mut found.ours) {
        // A journey may have ended while it was listed.
        let place = Place::new(&equipped.route.folders.sending, sighting.name.clone());
        if known.is_none() || matches!(ctx.world.disk().look(place).await, Ok(Some(_))) {
            found.count_foreign(&sighting);
        }
    }
    Ok(found.foreign)
}

/// Files in `sending/` with an id that this ledger has reserved and does not know: their record was
/// lost. Whether they were sent, nobody knows; they are put on record again, as held. One whose end
/// is settled lost its last move in a power cut, and makes it again. Whatever else lies there is
/// not ours, is counted and stays.
pub(super) async fn take_in_strays<W: World>(
    ctx: &Context<W>,
    equipped: &Arc<Equipped>,
) -> Result<(Vec<Entry>, Waiting), Stumble> {
    let sending = &equipped.route.folders.sending;
    let mut found = list_sending(ctx, equipped).await?;
    let mut entries = Vec::new();
    for (id, sighting, known) in std::mem::take(&mut found.ours) {
        let entry = match known {
            None => hold_stray(ctx, equipped, id, &sighting).await?,
            Some(entry) if ends_elsewhere(ctx, &entry, &sighting).await => {
                let source = Place::new(sending, sighting.name.clone());
                let identity = sighting.identity;
                Some(undo_settled(ctx, equipped, entry, source, identity).await?)
            }
            Some(_) => None,
        };
        if entry.is_none() {
            found.count_foreign(&sighting);
        }
        entries.extend(entry);
    }
    let files = found.foreign.files;
    if files > 0 {
        tracing::warn!(route = %equipped.route.name, files, example = %found.foreign.example, "files in sending/ are not patchdrop's: they are left alone; nothing but patchdrop may write there");
    }
    Ok((entries, found.foreign))
}

/// Whether a file in `sending/` is the one of a settled entry and nothing is at its target.
async fn ends_elsewhere<W: World>(ctx: &Context<W>, entry: &Entry, seen: &Sighting) -> bool {
    let Some(target) = entry.target.clone().filter(|_| entry.identity.is_same(&seen.identity))
    else {
        return false;
    };
    matches!(ctx.world.disk().look(target).await, Ok(None))
}

async fn hold_stray<W: World>(
    ctx: &Context<W>,
    equipped: &Arc<Equipped>,
    id: FileId,
    sighting: &Sighting,
) -> Result<Option<Entry>, Stumble> {
    let route = &equipped.route;
    let place = Place::new(&route.folders.sending, sighting.name.clone());
    let examined = match examine(ctx, equipped, place.clone(), sighting).await {
        Ok((examined, _)) => examined,
        Err(FolderError::Gone { .. } | FolderError::NotAFile { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let at = ctx.world.clock().now().wall;
    let envelope = match examined.findings.result {
        Checked::Sound { envelope, .. } => Some(envelope),
        Checked::Truncated(_) | Checked::Faulty(_) | Checked::Unread(_) => None,
    };
    let cause = Cause::new(
        Code::of("record-lost"),
        "the ledger that knew this file is lost; whether it was accepted is not on record",
    );
    let mut claim = Claim {
        id,
        route: route.name.clone(),
        name: settle::name_of_claimed(&sighting.name),
        source: place,
        marker: None,
        identity: examined.identity,
        digest: examined.findings.digest,
        envelope,
        key: ctx.world.ledger().key_of_stray(id),
        previous: None,
        twin: None,
        at,
        intent: Intent::Attempt,
    };
    let reservation = home(ctx, equipped, &Entry::of(&claim), State::Held, at).await;
    claim.intent = Intent::Found { cause, target: reservation.place.clone() };
    let entry = Entry::of(&claim);
    ctx.world.ledger().commit(vec![Step::Claimed(Box::new(claim))]).await?;
    Ok(Some(entry))
}
