//! Everything that can wake the loop.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::asking::Answered;
use super::carry::{Equipped, Report, Stumble};
use super::footing::Whose;
use super::sealing::Sealed;
use crate::model::command::{Command, CommandAnswer};
use crate::model::file::{FileId, FolderSeen, Sighting};
use crate::model::room::Room;
use crate::model::route::{Route, RouteName};
use crate::model::status::Waiting;
use crate::model::step::{Entry, RouteRecord};
use crate::model::time::{Tick, Wall};
use crate::world::folder::FolderError;
use crate::world::instance::MarkError;
use crate::world::ledger::LedgerError;
use crate::world::watch::Hint;

/// One event.
pub(super) enum Event {
    /// Part of a listing; nothing more is listed before `go_on` is answered.
    Chunk(Arc<Path>, Vec<Sighting>, oneshot::Sender<()>),
    /// A task of ours has ended.
    Done(Ticket, Work),
    /// Something may have happened in folders.
    Hints(Vec<Hint>),
    /// A person asks for something.
    Command(Command, oneshot::Sender<CommandAnswer>),
    /// A time has come.
    Woken,
    /// Finish what is in flight, start nothing.
    Stop,
    /// The wish to go on with another config.
    Reload,
    /// End at once.
    StopNow,
}

/// Which task it was.
#[derive(Clone, Debug)]
pub(super) enum Ticket {
    /// A look at a candidate.
    Look(Box<LookTicket>),
    /// A later stage of a file's journey.
    File(FileId),
    /// A listing.
    Sweep(Arc<Path>),
    /// A route's folders and record.
    Equip(RouteName),
    /// Moves of a route's files, to be made durable.
    Seal(RouteName),
    /// The held file of a route that comes first, as of that many changes.
    Held(RouteName, u64),
    /// How much room volumes have.
    Room(Whose),
    /// A command's work.
    Command,
}

impl Ticket {
    /// Whether a stop waits for it: not for what changes nothing, and may hang with its volume.
    pub(super) fn is_waited_for(&self) -> bool {
        match self {
            Self::Sweep(_) | Self::Equip(_) | Self::Held(..) | Self::Room(_) => false,
            Self::Look(_) | Self::File(_) | Self::Seal(_) | Self::Command => true,
        }
    }
}

/// What a look was at.
#[derive(Clone, Debug)]
pub(super) struct LookTicket {
    /// The drop folder.
    pub(super) folder: Arc<Path>,
    /// The route's place among those of the folder.
    pub(super) index: usize,
    /// The route.
    pub(super) route: RouteName,
    /// What was seen.
    pub(super) sighting: Sighting,
}

/// What a task has come to.
pub(super) enum Work {
    /// A stage of a journey.
    Report(Report),
    /// A question about runs.
    Asked(Box<Answered>),
    /// Moves that have become durable, or have not.
    Sealed(Sealed),
    /// A listing, of which folder it was, and what lies in `sending/` of its routes that is not
    /// ours.
    Swept(Result<Option<FolderSeen>, SweepFault>, Vec<(RouteName, Waiting)>),
    /// A route is ready, or cannot be.
    Equipped(Box<Result<Equipment, EquipFault>>),
    /// The held file of a route that comes first.
    FirstHeld(Box<Result<Option<Entry>, LedgerError>>),
    /// Entries that a command has put back on their journey.
    TakenUp(Vec<TakenUp>),
    /// Room on volumes that tell it.
    Rooms(Vec<(Arc<Path>, Room)>),
    /// It panicked: a bug, said loudly.
    Panicked,
}

/// A file that a command has put back on its journey.
pub(super) enum TakenUp {
    /// Parked, due at once.
    Entry(Box<Entry>),
    /// A stage of its journey has already ended.
    Report(Box<Entry>, Report),
    /// A route's record has changed.
    Route(RouteRecord),
    /// All routes were paused at once, or let go.
    AllPaused(Option<Wall>),
}

/// A route that is ready.
pub(super) struct Equipment {
    /// The route with its rules compiled.
    pub(super) equipped: Arc<Equipped>,
    /// What is on record about it.
    pub(super) record: RouteRecord,
    /// When its newest file on record was accepted.
    pub(super) delivered_at: Option<Wall>,
    /// Files in `sending/` whose record was lost, on record again as held.
    pub(super) strays: Vec<Entry>,
    /// Where it keeps an order, a held file that comes first.
    pub(super) held: Option<Entry>,
    /// Where it is paused and a file that fails does that, the last that failed.
    pub(super) failed: Option<Entry>,
    /// What lies in `sending/` and is not ours.
    pub(super) foreign: Waiting,
}

/// Why a folder was not listed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SweepFault {
    /// The folder, or those of its routes.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The mark of its root.
    #[error(transparent)]
    Mark(#[from] MarkError),
}

/// Why a route cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum EquipFault {
    /// Its folders.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The mark of its root.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// What lies in its `sending/`.
    #[error(transparent)]
    Stray(#[from] Stumble),
    /// Its rules.
    #[error("{0}")]
    Rules(String),
}

/// A route to be made ready, and again after a while if that fails.
#[derive(Clone, Debug)]
pub(super) struct Unequipped {
    /// The route.
    pub(super) route: Arc<Route>,
    /// The last fault said, so that it is said once.
    pub(super) said: Option<String>,
    /// When to try; none while it is being tried.
    pub(super) due_at: Option<Tick>,
}
