//! One file's whole journey, in order: `claim`, `attempt`, then what follows in `finish`. Here is
//! what the stages hand to each other and tell the loop, and how a journey ends early. (`resume`
//! finds out where a journey on record stands, and joins in.) Decisions come from `journey`,
//! effects go to `world`; what is durable when is said at each step.

mod claim;

mod attempt;

mod finish;

pub(super) use self::attempt::attempt;
pub(super) use self::claim::{VANISHED, claim, examine, move_in, put_back, resend};
pub(super) use self::finish::{
    conclude, decide, finish, finish_copy, follow, forget_beside, home, write_beside,
};

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::asking::Asked;
use super::ids::Ids;
use super::targets::Targets;
use super::twins::{TurnTaken, Turns};
use crate::journey::detect::{Reason, Selector};
use crate::journey::grounds::Account;
use crate::journey::runs::Errand;
use crate::journey::send::Judged;
use crate::journey::settle::{self, Next};
use crate::journey::validate::Checker;
use crate::model::blot::Blotter;
use crate::model::file::{FileId, Place, shown};
use crate::model::outcome::{Cause, Code};
use crate::model::route::Route;
use crate::model::step::{AttemptEnd, Entry, State, Step, Verdict};
use crate::model::time::Wall;
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::folder::{Disk, FolderError, MoveError};
use crate::world::ledger::{Ledger, LedgerError};

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
    /// The folder whose subfolders are routes.
    pub(super) root: Option<Arc<Path>>,
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

/// Where a claimed file lies.
pub(super) fn sending_place(route: &Route, entry: &Entry) -> Place {
    Place::new(&route.folders.sending, settle::claimed_name(entry.id, &entry.name))
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
