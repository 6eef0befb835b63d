//! The ledger's part about power cuts where it is not synced (`durability = "process-crash"`): the
//! mark of the boot in which it is worked with, and what a start in another boot makes of it. Keeps
//! promise P3 where the record itself may have lost its tail.
//!
//! The mark is durable before the first commit that is not, and taken away only behind all of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::{Connection, params};

use super::super::LedgerError;
use super::connect::Failure;
use super::fold::{Effects, Fold};
use super::writer::Change;
use super::{Home, SqliteLedger};
use crate::model::durability::Durability;
use crate::model::file::FileId;
use crate::model::step::{Step, UNCLEAN_BOOT};
use crate::model::time::Wall;
use crate::world::boot::boot;

/// In place of the name of a boot on systems that tell none: no later start takes it for its own.
const NAMELESS: &str = "-";

/// What is known about syncs left out, by this process and those before it.
#[derive(Debug)]
pub(super) struct Cuts {
    durability: Durability,
    boot: Option<String>,
    /// The mark is of another boot.
    is_unsure: AtomicBool,
    /// The mark stands.
    is_unsynced: AtomicBool,
    unsure_below: AtomicU64,
}

impl Cuts {
    /// By the mark that was found, which is set if this process is to sync less.
    pub(super) fn begin(
        home: &Home,
        connection: &Connection,
        (durability, mark, unsure_below): (Durability, Option<String>, u64),
    ) -> Result<Self, Failure> {
        let boot = boot();
        let is_unsure = mark.is_some() && mark != boot;
        let cuts = Self {
            durability,
            boot,
            is_unsure: AtomicBool::new(is_unsure),
            is_unsynced: AtomicBool::new(mark.is_some()),
            unsure_below: AtomicU64::new(unsure_below),
        };
        if let (Some(fresh), false) = (cuts.mark(), is_unsure) {
            connection
                .execute("UPDATE ledger SET unsynced_boot = ?1 WHERE one = 1", params![fresh])
                .map_err(|error| Failure::sqlite(&home.db, error))?;
            cuts.is_unsynced.store(true, Ordering::Release);
        }
        Ok(cuts)
    }

    /// The mark under which this process leaves syncs out, if it does.
    fn mark(&self) -> Option<&str> {
        match self.durability {
            Durability::PowerLoss => None,
            Durability::ProcessCrash => Some(self.boot.as_deref().unwrap_or(NAMELESS)),
        }
    }

    /// Before a commit of these changes: whether it may wait for the system to write it. What is
    /// rare, and what ids and marks rely on, never does.
    ///
    /// With `normal` the WAL is still synced around each checkpoint, every 16 MB: a power cut takes
    /// the tail of the record away and never damages the database, as `off` could.
    pub(super) fn set_synchronous(
        &self,
        connection: &Connection,
        changes: &[&Change],
    ) -> rusqlite::Result<()> {
        if !self.may_ever_lag() {
            return Ok(());
        }
        let may_lag = self.is_unsynced.load(Ordering::Acquire)
            && !self.is_unsure.load(Ordering::Acquire)
            && changes.iter().all(|change| matches!(change, Change::Steps(_)));
        let level = if may_lag { "normal" } else { "full" };
        connection.pragma_update(None, "synchronous", level)
    }

    /// Whether there are commits that cost no fsync, so that nobody need wait for company.
    pub(super) fn may_ever_lag(&self) -> bool {
        self.durability == Durability::ProcessCrash
    }
}

/// What a start puts on record that finds the mark of another boot.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) steps: Vec<Step>,
    pub(super) at: Wall,
    /// The mark from then on.
    pub(super) mark: Option<String>,
}

/// Every route waits for a person, and what may have been done without a record is on record.
pub(super) fn note(fold: &Fold<'_>, cut: &Cut) -> Result<Effects, Failure> {
    let effects = fold.apply(&cut.steps)?;
    fold.run(
        "
        UPDATE route SET paused_at = coalesce(paused_at, ?1), pause_code = ?2
        WHERE pause_code IS NULL
        ",
        params![cut.at.0, UNCLEAN_BOOT],
    )?;
    fold.run(
        "UPDATE ledger SET unsynced_boot = ?1, unsure_below = reserved_end WHERE one = 1",
        params![cut.mark],
    )?;
    Ok(effects)
}

/// Everything before it is durable with it.
pub(super) fn rest(fold: &Fold<'_>) -> Result<(), Failure> {
    fold.run("UPDATE ledger SET unsynced_boot = NULL WHERE one = 1", &[]).map(drop)
}

impl SqliteLedger {
    pub(super) fn cut_is_unnoted(&self) -> bool {
        self.shared.cuts.is_unsure.load(Ordering::Acquire)
    }

    pub(super) async fn put_cut(&self, steps: Vec<Step>) -> Result<(), LedgerError> {
        let cuts = &self.shared.cuts;
        let below = self.shared.reserved().end;
        let mark = cuts.mark().map(str::to_owned);
        self.change(Change::Cut(Cut { steps, at: super::now(), mark })).await?;
        cuts.unsure_below.store(below, Ordering::Release);
        cuts.is_unsynced.store(cuts.mark().is_some(), Ordering::Release);
        cuts.is_unsure.store(false, Ordering::Release);
        Ok(())
    }

    pub(super) fn moves_unsure_below(&self) -> Option<FileId> {
        let cuts = &self.shared.cuts;
        let below = cuts.unsure_below.load(Ordering::Acquire);
        // Where folders can never be synced a clean end tells nothing about moves.
        let keeps_account = cfg!(unix) && (below > 0 || cuts.mark().is_some());
        keeps_account.then_some(FileId(below))
    }

    pub(super) fn has_mark_of_a_boot(&self) -> bool {
        self.shared.cuts.is_unsynced.load(Ordering::Acquire)
    }

    pub(super) async fn put_to_rest(&self) -> Result<(), LedgerError> {
        // Whoever commits from now on is synced.
        self.shared.cuts.is_unsynced.store(false, Ordering::Release);
        let rested = self.change(Change::Rest).await.map(drop);
        if rested.is_err() {
            self.shared.cuts.is_unsynced.store(true, Ordering::Release);
        }
        rested
    }
}
