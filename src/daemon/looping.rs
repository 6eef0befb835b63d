//! The one loop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::carry::{self, BUDGET_BYTES, Carried, Context, Equipped, Report};
use super::event::{EquipFault, Event, LookTicket, TakenUp, Ticket, Unequipped, Work};
use super::ids::Ids;
use super::intake::Intake;
use super::targets::Targets;
use crate::config::{Config, Discovery, WatchMode};
use crate::journey::detect::{Reason, Selector};
use crate::journey::schedule::{Change, Limits, Schedule, Start};
use crate::journey::send::{self, Judged};
use crate::journey::settle::{self, Standing};
use crate::journey::validate::Checker;
use crate::model::command::{Command, CommandAnswer};
use crate::model::file::{FileId, Sighting, shown};
use crate::model::outcome::Outcome;
use crate::model::route::{Route, RouteName};
use crate::model::step::{Entry, RouteRecord, State};
use crate::model::time::{Now, Tick, Wall};
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::folder::{Disk, FolderError};
use crate::world::ledger::{Ledger, LedgerError};
use crate::world::watch::{Hint, Watch};

/// Files under way over all routes: each has at most one open file or connection.
const ACTIVE_MAX: usize = 512;

/// Files of one route waiting in `sending/` for another attempt.
const PARKED_MAX: usize = 10_000;

/// How long nothing is started after the ledger refused a commit.
const SUSPEND_FOR: Duration = Duration::from_secs(5);

/// Events handled before the next look at what can be started.
const EVENTS_A_TURN: usize = 256;

/// Until when the loop runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Until it is told to stop.
    Service,
    /// Until everything that is there has gone its way, or a destination has stayed away this
    /// long.
    Once {
        /// How long.
        patience: Duration,
    },
    /// Until the command that it was started for is done; folders are left alone.
    OneCommand,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Files accepted.
    pub sent: u64,
    /// Files that ended in `failed/`.
    pub failed: u64,
    /// Files that ended in `held/`.
    pub held: u64,
    /// Files that could not be found again.
    pub missing: u64,
    /// A destination stayed away, or a folder could not be listed.
    pub something_unavailable: bool,
}

/// What a stop asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Finish what is in flight.
    Drain,
    /// End at once.
    Now,
}

/// The service.
pub struct Daemon<W: World> {
    pub(super) ctx: Arc<Context<W>>,
    pub(super) config: Arc<Config>,
    pub(super) mode: Mode,
    pub(super) schedule: Schedule,
    pub(super) intakes: BTreeMap<Arc<Path>, Intake>,
    pub(super) equipped: BTreeMap<RouteName, Arc<Equipped>>,
    pub(super) unequipped: BTreeMap<RouteName, Unequipped>,
    pub(super) records: BTreeMap<RouteName, RouteRecord>,
    /// Entries whose route is no longer configured, by route.
    pub(super) orphans: BTreeMap<RouteName, u64>,
    pub(super) alerts: BTreeMap<&'static str, String>,
    pub(super) started_at: Wall,
    ready: BTreeMap<FileId, Box<Carried>>,
    tasks: JoinSet<Work>,
    tickets: BTreeMap<u64, Ticket>,
    ids_of_tasks: BTreeMap<tokio::task::Id, u64>,
    chunks: mpsc::Sender<Event>,
    watch: Box<dyn Watch>,
    load: Arc<AtomicUsize>,
    equip_again_at: Tick,
    pub(super) end: End,
    pub(super) is_stopping: bool,
    away_since: Option<Tick>,
}

/// Where events come from.
pub struct Sources {
    /// Hints about folders.
    pub hints: mpsc::Receiver<Vec<Hint>>,
    /// Commands.
    pub commands: mpsc::Receiver<(Command, oneshot::Sender<CommandAnswer>)>,
    /// The wish to stop.
    pub stop: mpsc::Receiver<Stop>,
}
