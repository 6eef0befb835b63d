//! The one thread that writes: it takes all commits that wait, applies them in one transaction and
//! answers all after one fsync.
#![expect(clippy::disallowed_methods, reason = "the wait is real time on a thread of its own")]

use std::ffi::OsString;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::super::{LedgerError, LedgerId};
use super::connect::{BUSY_TIMEOUT, Failure, Seen, ledger_id};
use super::cuts::Cut;
use super::fold::{Effects, Fold};
use super::text::Name;
use super::{BLOCK, Shared, cuts};
use crate::model::file::FileId;
use crate::model::step::{LEDGER_BEHIND, RouteRecord, Step};
use crate::model::time::Wall;
use crate::world::gather::Gather;
use crate::world::instance::{Number, Tidings};

/// How long a step that nobody waits for may wait for company.
const APPENDED_MAX: Duration = Duration::from_millis(200);

/// After this long without work the WAL is brought into the database.
const IDLE: Duration = Duration::from_secs(2);

/// After a failure the steps that nobody waits for are tried again this much later.
const AGAIN: Duration = Duration::from_secs(2);

/// One change, all or none.
#[derive(Debug)]
pub(super) enum Change {
    Steps(Vec<Step>),
    Reserve {
        floor: u64,
    },
    Route(RouteRecord),
    /// A pause of all routes at once, or its end, with those that it concerns.
    AllPaused(Option<Wall>, Vec<RouteRecord>),
    Marked(Marking),
    /// This ledger may be older than the truth.
    Cut(Cut),
    /// An end in order.
    Rest,
}

/// What marks tell, and what they will say next.
#[derive(Debug, Default)]
pub(super) struct Marking {
    /// These folders hold our mark now, with their numbers.
    pub(super) folders: Vec<(OsString, Option<Number>)>,
    pub(super) at: Wall,
    /// The ids of lost ledgers count as given out; an older copy of our ledger pauses every route.
    pub(super) tidings: Tidings,
    pub(super) epoch: u64,
}

/// The ids that were reserved; empty for all other changes.
pub(super) type Answer = Result<Range<u64>, LedgerError>;

/// A change and who waits for it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) change: Change,
    pub(super) done: Option<oneshot::Sender<Answer>>,
}

/// What the thread owns.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) gather: Gather,
    pub(super) connection: Option<Connection>,
    /// One whose commit was refused: open until the next one has taken a commit. What a refused
    /// commit has left in the WAL is unknown to who shares this one's index of it, and would be
    /// taken for a commit by who is the first to open the WAL.
    pub(super) retired: Option<Connection>,
    pub(super) seen: Seen,
    /// Changes that nobody waits for, and when they go alone.
    pub(super) appended: Vec<Change>,
    pub(super) due: Option<Instant>,
    /// Whether the WAL may hold anything.
    pub(super) dirty: bool,
}

impl Writer {
    /// Writes until all senders are gone; then what was appended, and the WAL into the database.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        loop {
            let wait = match self.due {
                Some(due) => due.saturating_duration_since(Instant::now()),
                None if self.dirty => IDLE,
                None => Duration::MAX,
            };
            match requests.recv_timeout(wait) {
                Ok(request) if request.done.is_none() => self.append(request.change),
                Ok(first) => self.write(self.gather.take(first, requests)),
                Err(RecvTimeoutError::Timeout) if self.due.is_some() => self.write(Vec::new()),
                Err(RecvTimeoutError::Timeout) => self.checkpoint(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if self.due.is_some() {
            self.write(Vec::new());
        }
        self.shared.readers.clear();
        self.checkpoint();
    }

    fn append(&mut self, change: Change) {
        self.appended.push(change);
        self.due.get_or_insert_with(|| Instant::now() + APPENDED_MAX);
    }

    pub(super) fn write(&mut self, group: Vec<Request>) {
        let mut asked = Vec::with_capacity(group.len());
        for Request { change, done } in group {
            match done {
                Some(done) => asked.push((change, done)),
                None => self.appended.push(change),
            }
        }
        let changes: Vec<&Change> =
            self.appended.iter().chain(asked.iter().map(|(change, _)| change)).collect();
        let result = commit(&self.shared, &mut self.connection, &mut self.seen, &changes);
        match result {
            Ok(mut answers) => {
                self.retired = None;
                self.dirty = true;
                self.due = None;
                for answer in answers.drain(..self.appended.len()) {
                    if let Err(failure) = answer {
                        let error = failure.error();
                        tracing::error!(%error, "left an impossible step out of the ledger");
                    }
                }
                self.appended.clear();
                for ((_, done), answer) in asked.into_iter().zip(answers) {
                    tell(done, answer.map_err(|failure| failure.error()));
                }
            }
            Err(failure) => {
                self.shared.readers.clear();
                self.retire(matches!(failure, Failure::Unavailable(_)));
                self.due = (!self.appended.is_empty()).then(|| Instant::now() + AGAIN);
                if matches!(failure, Failure::Damaged(_)) {
                    self.shared.home.suspect();
                }
                for (_, done) in asked {
                    tell(done, Err(failure.error()));
                }
            }
        }
    }

    /// A connection that has failed is not trusted with the next commit. It brings the WAL into the
    /// database where it can, which may be all the room there is.
    fn retire(&mut self, may_pass: bool) {
        let failed = self.connection.take();
        if !may_pass {
            self.retired = None;
            return;
        }
        let Some(failed) = failed else { return };
        if !failed.is_autocommit()
            && let Err(error) = failed.execute_batch("ROLLBACK")
        {
            tracing::debug!(%error, "could not roll back what the ledger has refused");
            return;
        }
        checkpoint(&failed);
        self.retired = Some(failed);
    }

    /// In an idle moment: gives the WAL's room back and keeps a later start quick. It must not hold
    /// anybody up, so it waits for no reader and takes what it gets.
    fn checkpoint(&mut self) {
        self.dirty = false;
        self.connection.iter().for_each(checkpoint);
    }
}

/// Brings the WAL into the database, as far as that goes without waiting for anybody.
fn checkpoint(connection: &Connection) {
    let run = || {
        connection.busy_timeout(Duration::ZERO)?;
        connection.query_row("PRAGMA wal_checkpoint(truncate)", [], |_| Ok(()))?;
        connection.busy_timeout(BUSY_TIMEOUT)
    };
    if let Err(error) = run() {
        tracing::debug!(%error, "could not bring the ledger's WAL into its database");
        connection.busy_timeout(BUSY_TIMEOUT).ok();
    }
}

fn tell(done: oneshot::Sender<Answer>, answer: Answer) {
    // Who asked may have stopped waiting; what is on record stays on record.
    drop(done.send(answer));
}

/// One transaction, one fsync. An impossible change fails alone; any other failure fails all.
fn commit(
    shared: &Shared,
    connection: &mut Option<Connection>,
    seen: &mut Seen,
    changes: &[&Change],
) -> Result<Vec<Result<Range<u64>, Failure>>, Failure> {
    let open = connected(shared, connection, seen)?;
    let set = shared.cuts.set_synchronous(open, changes);
    set.map_err(|error| Failure::sqlite(&shared.home.db, error))?;
    let fold = Fold::new(open, &shared.home.db);
    let end = shared.reserved().end;
    fold.run("BEGIN IMMEDIATE", &[])?;
    let (answers, effects) = match apply_all(&fold, changes, end) {
        Err(Failure::Impossible { .. }) => {
            fold.run("ROLLBACK", &[])?;
            fold.run("BEGIN IMMEDIATE", &[])?;
            apply_each(&fold, changes, end)?
        }
        other => other?,
    };
    effects.write_tally(&fold)?;
    fold.run("COMMIT", &[])?;
    if changes.iter().any(|change| !matches!(change, Change::Marked(_))) {
        shared.has_changed.store(true, Ordering::Release);
    }
    // Only now is any of it true.
    shared.begun.note(&effects.opened, &effects.ended);
    for digest in &effects.troubled {
        shared.sieve.insert(digest);
    }
    for ids in answers.iter().flatten() {
        shared.widen(ids);
    }
    Ok(answers)
}

type Applied = (Vec<Result<Range<u64>, Failure>>, Effects);

/// The usual way: nothing is wrong with any of them.
fn apply_all(fold: &Fold<'_>, changes: &[&Change], end: u64) -> Result<Applied, Failure> {
    let mut effects = Effects::default();
    let mut answers = Vec::with_capacity(changes.len());
    for change in changes {
        answers.push(Ok(apply(fold, change, end, &mut effects)?));
    }
    Ok((answers, effects))
}

/// One of them is wrong: each gets a savepoint of its own.
fn apply_each(fold: &Fold<'_>, changes: &[&Change], end: u64) -> Result<Applied, Failure> {
    let mut effects = Effects::default();
    let mut answers = Vec::with_capacity(changes.len());
    for change in changes {
        fold.run("SAVEPOINT change", &[])?;
        let mut own = Effects::default();
        let answer = apply(fold, change, end, &mut own);
        match answer {
            Ok(_) => effects.add(own),
            Err(Failure::Impossible { .. }) => {
                fold.run("ROLLBACK TO change", &[])?;
            }
            Err(failure) => return Err(failure),
        }
        fold.run("RELEASE change", &[])?;
        answers.push(answer);
    }
    Ok((answers, effects))
}

fn put_route(fold: &Fold<'_>, record: &RouteRecord) -> Result<(), Failure> {
    fold.run(
        "
        INSERT INTO route (name, first_sweep_at, released, paused_at, pause_code)
        VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (name) DO UPDATE
        SET first_sweep_at = excluded.first_sweep_at, released = excluded.released,
            paused_at = excluded.paused_at, pause_code = excluded.pause_code
        ",
        params![
            &*record.name.0,
            record.first_sweep_at.map(|at| at.0),
            record.released,
            record.paused_at.map(|at| at.0),
            record.pause_code.as_ref().map(|code| &*code.0),
        ],
    )?;
    // Once a person has let every route go on, later ones need not be asked for.
    fold.run(
        "
        UPDATE ledger SET behind_at = NULL
        WHERE behind_at IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM route WHERE pause_code = ?1)
        ",
        params![LEDGER_BEHIND],
    )?;
    Ok(())
}

fn apply(
    fold: &Fold<'_>,
    change: &Change,
    end: u64,
    effects: &mut Effects,
) -> Result<Range<u64>, Failure> {
    match change {
        Change::Steps(steps) => effects.add(fold.apply(steps)?),
        Change::Reserve { floor } => return reserve(fold, end.max(*floor)),
        Change::Route(record) => put_route(fold, record)?,
        Change::AllPaused(at, records) => {
            let at = at.map(|at| at.0);
            fold.run("UPDATE ledger SET all_paused_at = ?1 WHERE one = 1", params![at])?;
            for record in records {
                put_route(fold, record)?;
            }
        }
        Change::Marked(marking) => return marked(fold, marking),
        Change::Cut(cut) => effects.add(cuts::note(fold, cut)?),
        Change::Rest => cuts::rest(fold)?,
    }
    Ok(0..0)
}

/// The next block, none of it below `floor`.
fn reserve(fold: &Fold<'_>, floor: u64) -> Result<Range<u64>, Failure> {
    let Ok(floor) = i64::try_from(floor) else {
        return Err(Failure::Impossible { id: FileId(floor), why: "no id is that large" });
    };
    let reserved = fold.row(
        "
        UPDATE ledger
        SET reserved_from = CASE reserved_end WHEN 0 THEN ?1 ELSE reserved_from END,
            reserved_end = max(reserved_end, ?1) + ?2
        WHERE one = 1
        RETURNING reserved_end
        ",
        params![floor, BLOCK.cast_signed()],
        |row| row.get::<_, i64>(0),
    )?;
    let end = reserved.ok_or_else(|| fold.failure(rusqlite::Error::QueryReturnedNoRows))?;
    let end = end.cast_unsigned();
    Ok(end - BLOCK..end)
}

fn marked(fold: &Fold<'_>, marking: &Marking) -> Result<Range<u64>, Failure> {
    let Marking { folders, at, tidings, epoch } = marking;
    for (folder, number) in folders {
        let (volume, number) = number.unzip();
        fold.run(
            "
            INSERT INTO root (folder, marked_at, volume, number) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (folder) DO UPDATE
            SET marked_at = excluded.marked_at, volume = excluded.volume, number = excluded.number
            ",
            params![Name(folder), at.0, volume.map(u64::cast_signed), number.map(u64::cast_signed)],
        )?;
    }
    fold.run(
        "UPDATE ledger SET epoch = max(epoch, ?1) WHERE one = 1",
        params![epoch.cast_signed()],
    )?;
    let mut ids = 0..0;
    for (ledger, theirs) in &tidings.lost {
        lose(fold, ledger, theirs, *at)?;
        ids = both(ids, theirs.clone());
    }
    if let Some((_, newer)) = &tidings.behind {
        fall_behind(fold, *at)?;
        ids = both(ids, newer.clone());
    }
    if !ids.is_empty() {
        fold.run(
            "
            UPDATE ledger
            SET reserved_end = max(reserved_end, ?2),
                reserved_from = CASE reserved_end WHEN 0 THEN ?1 ELSE min(reserved_from, ?1) END
            WHERE one = 1
            ",
            params![ids.start.cast_signed(), ids.end.cast_signed()],
        )?;
    }
    Ok(ids)
}

/// The span that holds both.
fn both(one: Range<u64>, other: Range<u64>) -> Range<u64> {
    match (one.is_empty(), other.is_empty()) {
        (true, _) => other,
        (_, true) => one,
        _ => one.start.min(other.start)..one.end.max(other.end),
    }
}

fn lose(fold: &Fold<'_>, ledger: &LedgerId, ids: &Range<u64>, at: Wall) -> Result<(), Failure> {
    fold.run(
        "
        INSERT INTO lost (ledger, ids_from, ids_end, noted_at) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (ledger) DO UPDATE
        SET ids_from = CASE ids_end WHEN 0 THEN excluded.ids_from
                ELSE min(ids_from, excluded.ids_from) END,
            ids_end = max(ids_end, excluded.ids_end)
        ",
        params![ledger.0, ids.start.cast_signed(), ids.end.cast_signed(), at.0],
    )?;
    fold.run("UPDATE ledger SET replaces = ?1 WHERE one = 1", params![ledger.0])?;
    Ok(())
}

/// What this ledger does not know may have been sent: every route waits for a person, durably.
fn fall_behind(fold: &Fold<'_>, at: Wall) -> Result<(), Failure> {
    fold.run(
        "
        UPDATE ledger SET behind_at = coalesce(behind_at, ?1), was_behind_at = ?1 WHERE one = 1
        ",
        params![at.0],
    )?;
    fold.run(
        "UPDATE route SET paused_at = ?1, pause_code = ?2 WHERE paused_at IS NULL",
        params![at.0, LEDGER_BEHIND],
    )?;
    Ok(())
}

/// The connection, if the file it has open is still the one in `state_dir`; opened anew after a
/// failure.
fn connected<'c>(
    shared: &Shared,
    connection: &'c mut Option<Connection>,
    seen: &mut Seen,
) -> Result<&'c Connection, Failure> {
    let now = shared.home.look();
    if !seen.has_same_db(now) {
        return Err(Failure::Replaced);
    }
    if connection.is_some() && now != *seen {
        // The WAL alone was removed. Closing all connections saves what it holds, for it is still
        // open; the next commit finds everything in place.
        shared.readers.clear();
        return Err(Failure::Replaced);
    }
    if connection.is_none() {
        let fresh = shared.home.open_writer(false)?;
        let id = ledger_id(&fresh).map_err(|error| Failure::sqlite(&shared.home.db, error))?;
        if id != Some(shared.id) {
            return Err(Failure::Replaced);
        }
        *seen = shared.home.look();
        *connection = Some(fresh);
    }
    Ok(connection.as_ref().expect("it was opened just now"))
}

#[cfg(test)]
mod tests {
    use super::super::{LedgerOptions, SqliteLedger};
    use super::*;

    fn note(number: i64) -> Change {
        // A route's record is the smallest change there is; a long name fills pages.
        let name = format!("{number}{}", "x".repeat(3_000));
        Change::Route(RouteRecord {
            name: crate::model::route::RouteName::new(&name),
            first_sweep_at: Some(Wall(number)),
            released: false,
            paused_at: None,
            pause_code: None,
        })
    }

    #[test]
    fn a_full_disk_refuses_a_commit_whole_and_the_next_starts_anew() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(folder.path(), LedgerOptions::default()).unwrap().ledger;
        let shared = Arc::clone(&ledger.shared);
        let connection = shared.home.open_writer(false).unwrap();
        connection.pragma_update(None, "max_page_count", 40).unwrap();
        let mut writer = Writer {
            gather: Gather::new(Arc::default()),
            connection: Some(connection),
            retired: None,
            seen: shared.home.look(),
            shared,
            appended: vec![note(-1)],
            due: None,
            dirty: false,
        };
        let mut write = |numbers: Range<i64>| {
            let (done, answer): (Vec<_>, Vec<_>) =
                numbers.clone().map(|_| oneshot::channel()).unzip();
            let requests = numbers.zip(done);
            let requests =
                requests.map(|(number, done)| Request { change: note(number), done: Some(done) });
            writer.write(requests.collect());
            answer.into_iter().map(|mut answer| answer.try_recv().unwrap()).collect::<Vec<_>>()
        };
        for answer in write(0..100) {
            let error = answer.unwrap_err();
            assert!(matches!(error, LedgerError::Unavailable(_)), "{error:?}");
        }
        let reader = SqliteLedger::open_read_only(folder.path()).unwrap();
        assert_eq!(reader.routes().unwrap(), [], "nothing of it is on record");
        assert!(write(0..100).iter().all(Result::is_ok), "there is room again");
        assert_eq!(reader.routes().unwrap().len(), 101, "and what nobody waits for came along");
    }
}
