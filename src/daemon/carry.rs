//! One file's whole journey, in order: claim, attempt, conclude, finish. (`resume` beside it finds
//! out where a journey on record stands, and joins in here.) Decisions come from `journey`, effects
//! go to `world`; what is durable when is said at each step.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::asking::Asked;
use super::grounds;
use super::ids::Ids;
use super::resume::{moved_back_by_a_power_cut, settle_again};
use super::targets::{Reservation, Targets};
use super::twins::{Turn, TurnTaken, Turns, turn, twin_for};
use crate::journey::detect::{Reason, Selector};
use crate::journey::grounds::Account;
use crate::journey::order;
use crate::journey::pace::Allowance;
use crate::journey::ready::{self, Evidence, Readiness};
use crate::journey::runs::Errand;
use crate::journey::send::{self, Judged, Signer};
use crate::journey::settle::{self, Next};
use crate::journey::validate::{Checked, Checker, Findings, body_reader};
use crate::model::blot::Blotter;
use crate::model::exchange::{Body, Stream, Token, TokenRefusal};
use crate::model::file::{FileId, Identity, Place, Sighting, shown};
use crate::model::outcome::{Cause, Code, Outcome};
use crate::model::route::Route;
use crate::model::secret::Secret;
use crate::model::step::{AttemptEnd, Claim, Entry, Envelope, Intent, State, Step, Verdict};
use crate::model::time::Wall;
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::endpoint::Endpoint;
use crate::world::folder::{Disk, Examined, FolderError, MoveError};
use crate::world::ledger::{Ledger, LedgerError};
use crate::world::token::Tokens;

/// A body up to this size is kept in memory between check and attempt, while the byte budget has
/// room for it; anything else is read from disk again while it is sent.
pub(super) const KEPT_MAX_BYTES: u64 = 256 << 10;

/// The byte budget: all kept bodies together. With 4 KiB pages and the rest of the program it keeps
/// peak memory under 64 MB.
pub(super) const BUDGET_BYTES: usize = 6 << 20;

/// What every journey needs.
pub(super) struct Context<W: World> {
    pub(super) world: Arc<W>,
    /// Who this process is.
    pub(super) account: Account,
    pub(super) ids: Ids,
    pub(super) targets: Targets,
    pub(super) turns: Turns,
    pub(super) budget: Arc<Semaphore>,
    /// Knows the secrets of the config.
    pub(super) blotter: Blotter,
    /// When this process began.
    pub(super) started_at: Wall,
}

/// A route with its rules compiled.
#[derive(Debug)]
pub(super) struct Equipped {
    pub(super) route: Arc<Route>,
    pub(super) checker: Checker,
    pub(super) selector: Selector,
    pub(super) is_local: bool,
    pub(super) elsewhere: Elsewhere,
}

/// Which of a route's folders are on another volume than its `sending/`: a move there copies, and
/// one that is cut off leaves the file at both places.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Elsewhere {
    pub(super) sent: bool,
    pub(super) failed: bool,
    pub(super) held: bool,
}

impl Elsewhere {
    fn of(self, state: State) -> bool {
        match state {
            State::Sent => self.sent,
            State::Held => self.held,
            State::Failed
            | State::Sending
            | State::Deferred
            | State::Confirming
            | State::Missing
            | State::Cancelled => self.failed,
        }
    }
}

/// A claimed file between two stages.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) entry: Entry,
    body: Option<Bytes>,
    /// No other file of the same bytes is sent meanwhile, where the route looks for duplicates.
    pub(super) turn: Option<TurnTaken>,
    /// Its share of the byte budget.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Carried {
    pub(super) fn of(entry: Entry) -> Self {
        Self { entry, body: None, turn: None, _permit: None }
    }
}

/// What a stage reports to the loop.
#[derive(Debug)]
pub(super) enum Report {
    /// The look came to nothing; look again after this long. `None`: it is gone, or cancelled.
    Left(Option<(Reason, Duration)>),
    /// The look could not be put on record.
    Unrecorded(LedgerError),
    /// Claimed: it waits for a slot.
    Claimed(Box<Carried>),
    /// Taken up again: it waits for a slot.
    Resumed(Box<Carried>),
    /// An attempt has ended: `decide` says what follows.
    Answered(Box<Carried>, Judged),
    /// An attempt of an earlier run may have been accepted.
    Doubted(Box<Carried>, Judged),
    /// An attempt has ended in a way that is known here and nowhere else: the ledger did not take
    /// it. The loop keeps it until the ledger does.
    Unconcluded(Box<Unconcluded>),
    /// Parked, on record, for this.
    Parked(Duration, Errand),
    /// A question about runs was answered, or not; it is asked again after this wait.
    Asked(Asked),
    /// It is where it belongs, which is on record; what is left is to make that durable.
    Moved(Box<Entry>),
    /// Its journey has ended.
    Ended(Box<Entry>),
    /// Disk or ledger did not let it go on; it stays as it is on record.
    Stumbled(FileId, Stumble),
}

/// The end of an attempt that the ledger did not take. While this process lives it is no doubt
/// (promises P3, P6): it is put on record as soon as that is possible.
#[derive(Debug)]
pub(super) struct Unconcluded {
    pub(super) carried: Box<Carried>,
    pub(super) judged: Judged,
    pub(super) next: Next,
    pub(super) error: LedgerError,
}

impl Unconcluded {
    fn report(carried: Box<Carried>, judged: Judged, next: Next, error: LedgerError) -> Report {
        if let LedgerError::Impossible { id, .. } = error {
            // The record says otherwise: it is gone by, not by what is known here.
            return Report::Stumbled(id, error.into());
        }
        // Its body has been sent; if it has to go again, it is read again.
        let carried = Box::new(Carried::of(carried.entry));
        Report::Unconcluded(Box::new(Self { carried, judged, next, error }))
    }
}

/// What a journey can stumble over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stumble {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A folder or file.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A move.
    #[error(transparent)]
    Move(#[from] MoveError),
}

/// Steps 1 to 4: one look, one open, one pass; then on record, then renamed into `sending/`, then
/// durable. `previous` is the failed entry that a person wants sent again.
pub(super) async fn claim<W: World>(
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
pub(super) async fn examine<W: World>(
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

/// With the pause that goes on record together with a failure, on a route that keeps an order and
/// wants it so: nothing can be claimed between the two.
fn then_pause(
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

/// Steps 3 and 4: the marker, then the file, into `sending/`; both folders durable.
pub(super) async fn move_in<W: World>(
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

/// Both folders of a rename.
pub(super) async fn make_durable<W: World>(
    ctx: &Context<W>,
    to: &Arc<Path>,
    from: &Arc<Path>,
) -> Result<(), FolderError> {
    let disk = ctx.world.disk();
    let both = tokio::join!(disk.sync(Arc::clone(to)), disk.sync(Arc::clone(from)));
    both.0.and(both.1)
}

pub(super) const VANISHED: (&str, &str) =
    ("vanished", "the file was gone before it could be claimed; nothing was sent");
const SWAPPED: (&str, &str) =
    ("swapped", "another file took its name while it was claimed; that one starts anew");

pub(super) async fn cancel<W: World>(
    ctx: &Context<W>,
    entry: &Entry,
    (code, plain): (&'static str, &'static str),
) -> Report {
    let at = ctx.world.clock().now().wall;
    let cause = Cause::new(Code::of(code), plain);
    let step = Step::Cancelled { id: entry.id, cause, at };
    end_with(ctx, entry.clone(), vec![step]).await
}

/// The only undo: what was moved is not what was examined. It goes back under its name, or, if
/// that is taken by now, under one with the id; never replacing.
pub(super) async fn put_back<W: World>(ctx: &Context<W>, route: &Route, entry: &Entry) -> Report {
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

/// Where a claimed file lies.
pub(super) fn sending_place(route: &Route, entry: &Entry) -> Place {
    Place::new(&route.folders.sending, settle::claimed_name(entry.id, &entry.name))
}

/// Step 5: one attempt on record before its first byte, the recorded bytes and nothing else; at
/// most one more with a fresh token, on record as well.
pub(super) async fn attempt<W: World>(
    ctx: &Arc<Context<W>>,
    equipped: &Equipped,
    carried: Box<Carried>,
) -> Report {
    let route = &equipped.route;
    let id = carried.entry.id;
    let mut carried = match Box::pin(turn(ctx, equipped, carried)).await {
        Turn::Mine(carried) => carried,
        Turn::NotMine(report) => return *report,
    };
    if carried.entry.attempt_open_since.is_none()
        && let Err(error) = begin_attempt(ctx, &mut carried.entry, None).await
    {
        return Report::Stumbled(id, error.into());
    }
    let mut may_refresh = true;
    loop {
        let token = match token_for(ctx, route).await {
            Ok(token) => token,
            Err(refusal) => return Report::Answered(carried, no_token(&refusal)),
        };
        let body = match body_of(ctx, route, &carried).await {
            Ok(Some(body)) => body,
            Ok(None) => return Box::pin(missing(ctx, carried.entry)).await,
            Err(error) => return Report::Stumbled(id, error.into()),
        };
        let signature = match signature_of(ctx, route, &carried).await {
            Ok(signature) => signature,
            Err(error) => return Report::Stumbled(id, error.into()),
        };
        let request =
            send::request(&carried.entry, &route.deliver, body, signature.as_ref(), token.as_ref());
        if let Err(error) = ctx.world.ledger().begun(id, carried.entry.attempt) {
            return Report::Stumbled(id, error.into());
        }
        let secrets = send::secrets_in(&request);
        let reply = ctx.world.endpoint().send(request).await;
        let mut judged = send::judge(&route.judge, &reply, ctx.world.clock().now().wall);
        if route.deliver.credential.is_none() {
            judged = judged.without_credential();
        }
        if judged.says_something() {
            judged = judged.blotted(&[&ctx.blotter, &Blotter::new(&secrets)]);
        }
        let refused = judged.outcome == Outcome::TokenRefused;
        if let (Some(token), Some(credential)) = (&token, &route.deliver.credential)
            && judged.outcome == Outcome::Delivered
        {
            ctx.world.tokens().taken(credential, token.generation);
        }
        let Some(token) =
            token.filter(|_| may_refresh && (refused || judged.may_hide_a_refused_token))
        else {
            return Report::Answered(carried, judged);
        };
        may_refresh = false;
        let renewed = refresh(ctx, route, &token).await;
        if !(refused && renewed) {
            return Report::Answered(carried, judged);
        }
        if let Err(error) = begin_attempt(ctx, &mut carried.entry, Some(judged.end())).await {
            let next = Next::Park { wait: Duration::ZERO, errand: Errand::Attempt };
            return Unconcluded::report(carried, judged, next, error);
        }
    }
}

/// Puts the next attempt on record, with the end of the one before it where that was this one's.
async fn begin_attempt<W: World>(
    ctx: &Context<W>,
    entry: &mut Entry,
    ended: Option<AttemptEnd>,
) -> Result<(), LedgerError> {
    let at = ctx.world.clock().now().wall;
    let mut steps = Vec::new();
    if let Some(end) = ended {
        steps.push(Step::AttemptEnded {
            id: entry.id,
            attempt: entry.attempt,
            end,
            at,
            due_at: at,
            waited_for: entry.waited_for,
        });
    }
    steps.push(Step::AttemptBegun { id: entry.id, attempt: entry.attempt + 1, at });
    ctx.world.ledger().commit(steps.clone()).await?;
    for step in &steps {
        entry.apply(step);
    }
    Ok(())
}

async fn token_for<W: World>(
    ctx: &Context<W>,
    route: &Route,
) -> Result<Option<Token>, TokenRefusal> {
    match &route.deliver.credential {
        Some(credential) => ctx.world.tokens().current(credential).await.map(Some),
        None => Ok(None),
    }
}

/// One forced refresh a generation; whether there is a newer token now.
async fn refresh<W: World>(ctx: &Context<W>, route: &Route, refused: &Token) -> bool {
    let Some(credential) = &route.deliver.credential else { return false };
    match ctx.world.tokens().refresh(credential, refused.generation).await {
        Ok(token) => token.generation > refused.generation,
        Err(_) => false,
    }
}

fn no_token(refusal: &TokenRefusal) -> Judged {
    Judged {
        outcome: Outcome::TokenRefused,
        cause: refusal.cause.clone(),
        status: None,
        request_id: None,
        retry_after: refusal.retry_after,
        allowance: Allowance::default(),
        may_hide_a_refused_token: false,
        run: None,
    }
}

/// The recorded bytes: from memory, or from `sending/`; `None` if the file is no longer there.
async fn body_of<W: World>(
    ctx: &Arc<Context<W>>,
    route: &Route,
    carried: &Carried,
) -> Result<Option<Body>, FolderError> {
    if let Some(bytes) = &carried.body {
        return Ok(Some(Body::Bytes(bytes.clone())));
    }
    let place = sending_place(route, &carried.entry);
    if ctx.world.disk().look(place.clone()).await?.is_none() {
        folder_is_there(ctx, &place.folder).await?;
        return Ok(None);
    }
    let Some(envelope) = carried.entry.envelope.clone() else { return Ok(None) };
    let Envelope { digest, bytes, conversion, wrap, .. } = envelope;
    let file = FromDisk { ctx: Arc::clone(ctx), place, open: None };
    let reader = Box::new(body_reader(file, conversion, wrap));
    Ok(Some(Body::Stream(Stream { reader, bytes, digest })))
}

/// The signature of exactly these bytes, where the route signs: a large body is read once more for
/// it, since a header goes before what it signs.
async fn signature_of<W: World>(
    ctx: &Arc<Context<W>>,
    route: &Route,
    carried: &Carried,
) -> Result<Option<Secret>, FolderError> {
    let Some(hmac) = &route.deliver.hmac else { return Ok(None) };
    let mut signer = Signer::new(hmac);
    if let Some(bytes) = &carried.body {
        signer.take(bytes);
        return Ok(Some(signer.finish()));
    }
    let Some(Body::Stream(mut stream)) = body_of(ctx, route, carried).await? else {
        return Ok(None);
    };
    let sign = move || {
        let mut block = vec![0; SIGN_BLOCK_BYTES];
        loop {
            match stream.reader.read(&mut block)? {
                0 => return Ok(signer.finish()),
                read => signer.take(&block[..read]),
            }
        }
    };
    let task: Result<io::Result<Secret>, _> = tokio::task::spawn_blocking(sign).await;
    let signature = task.unwrap_or_else(|error| Err(io::Error::other(error)));
    let path = sending_place(route, &carried.entry).path();
    signature.map(Some).map_err(|source| FolderError::Io { doing: "read", path, source })
}

/// A body that is signed is read in blocks of this size.
const SIGN_BLOCK_BYTES: usize = 64 << 10;

/// Opens its file at the first read, on the thread that may block.
struct FromDisk<W: World> {
    ctx: Arc<Context<W>>,
    place: Place,
    open: Option<Box<dyn Read + Send>>,
}

impl<W: World> Read for FromDisk<W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.open.is_none() {
            let open = self.ctx.world.disk().open(&self.place).map_err(io::Error::other)?;
            self.open = Some(open);
        }
        self.open.as_mut().map_or(Ok(0), |file| file.read(buffer))
    }
}

/// Step 6: what follows a verdict goes on record; then the file is parked or finished.
pub(super) async fn conclude<W: World>(
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
pub(super) async fn decide<W: World>(
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
pub(super) async fn home<W: World>(
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
async fn free_target<W: World>(
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
pub(super) async fn finish<W: World>(
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
pub(super) async fn finish_copy<W: World>(
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
pub(super) async fn make_again<W: World>(
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
pub(super) async fn follow<W: World>(
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
pub(super) async fn write_beside<W: World>(
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

pub(super) async fn forget_beside<W: World>(
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

pub(super) async fn folder_is_there<W: World>(
    ctx: &Context<W>,
    folder: &Path,
) -> Result<(), FolderError> {
    let gone = || FolderError::Gone { path: folder.to_owned() };
    let place = Place::of_path(folder).ok_or_else(gone)?;
    match ctx.world.disk().look(place).await? {
        Some(_) => Ok(()),
        None => Err(gone()),
    }
}

pub(super) fn not_sent(entry: &Entry, at: Wall, waited_for: Duration) -> Step {
    Step::AttemptEnded {
        id: entry.id,
        attempt: entry.attempt,
        end: AttemptEnd {
            verdict: Verdict::NotSent,
            code: Code::of("not-sent"),
            status: None,
            request_id: None,
            plain: "the attempt never began: nothing was sent".into(),
        },
        at,
        due_at: at,
        waited_for,
    }
}

/// Puts on record that a claimed file was not sent (its route paused, or patchdrop stops).
pub(super) async fn shelve<W: World>(
    ctx: &Context<W>,
    carried: Box<Carried>,
    waited_for: Duration,
) -> Report {
    let id = carried.entry.id;
    if carried.entry.attempt_open_since.is_none() {
        return Report::Parked(Duration::ZERO, Errand::Attempt);
    }
    let step = not_sent(&carried.entry, ctx.world.clock().now().wall, waited_for);
    match ctx.world.ledger().commit(vec![step]).await {
        Ok(()) => Report::Parked(Duration::ZERO, Errand::Attempt),
        Err(error) => Report::Stumbled(id, error.into()),
    }
}

pub(super) async fn missing<W: World>(ctx: &Context<W>, entry: Entry) -> Report {
    let at = ctx.world.clock().now().wall;
    let known_at = entry.attempt_open_since.unwrap_or(entry.claimed_at);
    let mut plain = format!(
        "the file was claimed {} and known to be there {known_at}; at {at} it was neither in sending/ nor where it was dropped",
        entry.claimed_at
    );
    if entry.attempt_open_since.is_some() {
        plain.push_str("; its last attempt has no end on record, so it may have been accepted");
    }
    let step = Step::Missing { id: entry.id, cause: Cause::new(Code::of("missing"), plain), at };
    end_with(ctx, entry, vec![step]).await
}

pub(super) async fn removed<W: World>(ctx: &Context<W>, entry: Entry) -> Report {
    let at = ctx.world.clock().now().wall;
    let id = entry.id;
    let text = format!(
        "it ended as {} and is not there: somebody else took it away between {} and {at}",
        entry.state.name(),
        entry.claimed_at
    );
    tracing::error!(route = %entry.route, file = %shown(&entry.name), %id, "taken away while it was on its way: {text}");
    end_with(ctx, entry, vec![Step::Noted { id, at, text }, Step::Settled { id }]).await
}

async fn end_with<W: World>(ctx: &Context<W>, mut entry: Entry, steps: Vec<Step>) -> Report {
    if let Err(error) = ctx.world.ledger().commit(steps.clone()).await {
        return Report::Stumbled(entry.id, error.into());
    }
    for step in &steps {
        entry.apply(step);
    }
    Report::Ended(Box::new(entry))
}

/// A failed file that a person wants sent again: checked again, and claimed under a new id that
/// remembers the old one.
pub(super) async fn resend<W: World>(
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
