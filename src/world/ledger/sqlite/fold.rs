//! Steps into tables: the one place that says what a step does to a file's entry.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, ToSql, params};

use super::super::begun::Try;
use super::connect::Failure;
use super::text::{Name, read_optional_name};
use crate::model::file::{Digest, FileId, Identity, Place, shown};
use crate::model::outcome::Cause;
use crate::model::step::{AttemptEnd, Claim, Envelope, Intent, State, Step, Verdict};
use crate::model::time::Wall;

/// What steps do beside the tables; it counts once their commit is durable.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Settled files by route and state: how many more, or fewer.
    tally: BTreeMap<(String, State), i64>,
    /// Attempts that came on record.
    pub(super) opened: Vec<Try>,
    /// Attempts that nobody will ask for any more.
    pub(super) ended: Vec<Try>,
    /// Digests of files that settled as `failed` or `held`.
    pub(super) troubled: Vec<[u8; 32]>,
}

impl Effects {
    pub(super) fn add(&mut self, more: Self) {
        for (key, files) in more.tally {
            *self.tally.entry(key).or_default() += files;
        }
        self.opened.extend(more.opened);
        self.ended.extend(more.ended);
        self.troubled.extend(more.troubled);
    }

    /// Brings the tally up to date, within the transaction of the steps.
    pub(super) fn write_tally(&self, fold: &Fold<'_>) -> Result<(), Failure> {
        for ((route, state), files) in &self.tally {
            fold.run(
                "
                INSERT INTO tally (route, state, files) VALUES (?1, ?2, ?3)
                ON CONFLICT (route, state) DO UPDATE SET files = files + excluded.files
                ",
                params![route, state.name(), files],
            )?;
        }
        Ok(())
    }
}

/// The decision's update. Only the end of the last attempt closes what is open.
macro_rules! decide {
    ($where:literal) => {
        concat!(
            "
            UPDATE file
            SET state = ?2, settled = 0, cause_code = ?3, cause_plain = ?4,
                target_folder = ?5, target_name = ?6, decided_at = ?7,
                open_since = CASE attempt WHEN ?8 THEN NULL ELSE open_since END,
                last_verdict = coalesce(?9, last_verdict),
                unspent_since = NULL, due_at = NULL
            ",
            $where
        )
    };
}

/// What a step must know of a file before it.
struct Standing {
    route: String,
    state: State,
    settled: bool,
    attempt: u32,
    decided: bool,
}

/// Applies steps within an open transaction. What it prepares it keeps at hand: looking a long
/// statement up in the connection's cache costs as much as a short one takes to run.
pub(super) struct Fold<'c> {
    connection: &'c Connection,
    path: &'c Path,
    at_hand: RefCell<Vec<(&'static str, CachedStatement<'c>)>>,
}

impl<'c> Fold<'c> {
    pub(super) fn new(connection: &'c Connection, path: &'c Path) -> Self {
        Self { connection, path, at_hand: RefCell::default() }
    }

    /// Runs one statement and tells how many rows it changed.
    pub(super) fn run(&self, sql: &'static str, params: &[&dyn ToSql]) -> Result<usize, Failure> {
        self.try_run(sql, params).map_err(|error| self.failure(error))
    }

    fn try_run(&self, sql: &'static str, params: &[&dyn ToSql]) -> rusqlite::Result<usize> {
        self.with(sql, |statement| statement.execute(params))
    }

    /// The one row of a statement, if it has one.
    pub(super) fn row<T>(
        &self,
        sql: &'static str,
        params: &[&dyn ToSql],
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Failure> {
        self.with(sql, |statement| statement.query_row(params, read).optional())
            .map_err(|error| self.failure(error))
    }

    fn with<T>(
        &self,
        sql: &'static str,
        run: impl FnOnce(&mut CachedStatement<'c>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let mut at_hand = self.at_hand.borrow_mut();
        let found = at_hand.iter().position(|(known, _)| std::ptr::eq(*known, sql));
        let place = found.unwrap_or(at_hand.len());
        if found.is_none() {
            at_hand.push((sql, self.connection.prepare_cached(sql)?));
        }
        run(&mut at_hand[place].1)
    }

    /// As this ledger's failure.
    pub(super) fn failure(&self, error: rusqlite::Error) -> Failure {
        Failure::sqlite(self.path, error)
    }

    /// Applies one commit's steps, in order. After an error the transaction (or a savepoint) must
    /// be rolled back.
    pub(super) fn apply(&self, steps: &[Step]) -> Result<Effects, Failure> {
        let mut effects = Effects::default();
        for step in steps {
            self.step(step, &mut effects)?;
        }
        Ok(effects)
    }

    fn step(&self, step: &Step, effects: &mut Effects) -> Result<(), Failure> {
        match step {
            Step::Claimed(claim) => self.claimed(claim, effects),
            Step::AttemptBegun { id, attempt, at } => {
                self.attempt_begun(*id, *attempt, *at, effects)
            }
            Step::AttemptEnded { id, attempt, end, at, due_at, waited_for } => {
                effects.ended.push((*id, *attempt));
                self.attempt_ended((*id, *attempt), end, *at, *due_at, *waited_for)
            }
            Step::Accepted { id, attempt, run, at, due_at } => {
                self.accepted(*id, attempt.as_ref(), run.as_deref(), (*at, *due_at), effects)
            }
            Step::Decided { id, attempt, state, cause, target, at } => {
                let outcome = Outcome { state: *state, cause, target, at: *at };
                self.decided(*id, attempt.as_ref(), &outcome, effects)
            }
            Step::Retargeted { id, target } => self.retargeted(*id, target),
            Step::Settled { id } => self.settled(*id, effects),
            Step::Cancelled { id, cause, at } => {
                let before = self.standing(*id)?;
                let is_accepted = matches!(before.state, State::Sent | State::Confirming);
                require(!before.settled && !is_accepted, *id, "its outcome is on record")?;
                self.gone(*id, &before, State::Cancelled, cause, *at, effects)
            }
            Step::Missing { id, cause, at } => {
                let before = self.standing(*id)?;
                self.gone(*id, &before, State::Missing, cause, *at, effects)
            }
            Step::Released { id, source, identity, at } => {
                self.released(*id, source, identity, *at, effects)
            }
            Step::RoutePaused { id, route, at } => {
                self.standing(*id)?;
                self.run(
                    "
                    INSERT INTO route (name, first_sweep_at, released, paused_at)
                    VALUES (?1, NULL, 0, ?2)
                    ON CONFLICT (name) DO UPDATE SET paused_at = coalesce(paused_at, ?2)
                    ",
                    params![&*route.0, at.0],
                )?;
                Ok(())
            }
            Step::Noted { id, at, text } => {
                self.standing(*id)?;
                self.remark(*id, *at, text)
            }
        }
    }

    /// State `sending` with attempt 1 open; or, refused, `failed` with its target, no attempt; or,
    /// found without a record, `held` with its target, in doubt, no attempt.
    fn claimed(&self, claim: &Claim, effects: &mut Effects) -> Result<(), Failure> {
        let row = number(claim.id)?;
        let (state, verdict, decided) = intended(&claim.intent);
        let attempt = u32::from(decided.is_none());
        let (cause, target) = decided.unzip();
        let at = claim.at.0;
        let open_since = (attempt == 1).then_some(at);
        let decided_at = target.map(|_| at);
        let body = Body::of(claim.envelope.as_ref());
        let Identity { volume, number: file_number, size, mtime_ns } = claim.identity;
        let written = self.try_run(
            "
            INSERT INTO file (
                id, route, name, source_folder, source_name, marker,
                volume, number, size, mtime_ns, digest,
                body_digest, body_bytes, conversion, body_remarks,
                key, previous, claimed_at, state, settled,
                cause_code, cause_plain, target_folder, target_name, decided_at,
                attempt, open_since, last_verdict, unspent_since, due_at, waited_for
            ) VALUES (
                ?1, ?2, ?3, ?4, ?5, ?6,
                ?7, ?8, ?9, ?10, ?11,
                ?12, ?13, ?14, ?15,
                ?16, ?17, ?18, ?19, 0,
                ?20, ?21, ?22, ?23, ?24,
                ?25, ?26, ?27, NULL, NULL, 0
            )
            ",
            params![
                row,
                &*claim.route.0,
                Name(&claim.name),
                Name(claim.source.folder.as_os_str()),
                Name(&claim.source.name),
                claim.marker.as_deref().map(Name),
                volume.cast_signed(),
                file_number.cast_signed(),
                size.cast_signed(),
                mtime_ns,
                claim.digest.map(|digest| digest.0),
                body.digest,
                body.bytes,
                body.conversion,
                body.remarks,
                claim.key,
                claim.previous.map(number).transpose()?,
                at,
                state.name(),
                cause.map(|cause| &*cause.code.0),
                cause.map(|cause| &*cause.plain),
                target.map(|target| Name(target.folder.as_os_str())),
                target.map(|target| Name(&target.name)),
                decided_at,
                attempt,
                open_since,
                verdict,
            ],
        );
        match written {
            Err(error) if is_taken(&error) => {
                return Err(impossible(claim.id, "this id is taken already"));
            }
            other => other.map_err(|error| self.failure(error))?,
        };
        self.twin_row(row, claim.twin.as_ref())?;
        if attempt == 1 {
            self.attempt_row(claim.id, attempt, claim.at)?;
            effects.opened.push((claim.id, attempt));
        }
        Ok(())
    }

    fn twin_row(&self, row: i64, twin: Option<&Digest>) -> Result<(), Failure> {
        let Some(Digest(twin)) = twin else { return Ok(()) };
        self.run("INSERT INTO twin (file, twin) VALUES (?1, ?2)", params![row, twin])?;
        Ok(())
    }

    /// State `sending`, attempt `attempt` open, no longer parked.
    fn attempt_begun(
        &self,
        id: FileId,
        attempt: u32,
        at: Wall,
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        let before = self.standing(id)?;
        require(!before.settled, id, "it is settled, nothing is attempted any more")?;
        let is_accepted = before.state == State::Confirming;
        require(!is_accepted, id, "its acceptance is on record, it is not sent again")?;
        require(!before.decided, id, "it is decided, nothing is attempted any more")?;
        require(attempt > before.attempt, id, "this attempt is on record already")?;
        self.attempt_row(id, attempt, at)?;
        self.run(
            "
            UPDATE file SET state = 'sending', attempt = ?2, open_since = ?3, due_at = NULL
            WHERE id = ?1
            ",
            params![number(id)?, attempt, at.0],
        )?;
        effects.ended.push((id, before.attempt));
        effects.opened.push((id, attempt));
        Ok(())
    }

    fn attempt_row(&self, id: FileId, attempt: u32, at: Wall) -> Result<(), Failure> {
        self.run(
            "INSERT INTO attempt (file, number, begun_at) VALUES (?1, ?2, ?3)",
            params![number(id)?, attempt, at.0],
        )?;
        Ok(())
    }

    /// State `deferred` until `due_at`; unspent since the first fault of the route's.
    fn attempt_ended(
        &self,
        (id, attempt): Try,
        end: &AttemptEnd,
        at: Wall,
        due_at: Wall,
        waited_for: Duration,
    ) -> Result<(), Failure> {
        let before = self.standing(id)?;
        require(!before.settled && !before.decided, id, "it is decided, no attempt is under way")?;
        require(attempt == before.attempt, id, "it is not the last attempt that ended")?;
        self.end_attempt(id, attempt, end, at)?;
        let unspent_at = (end.verdict == Verdict::RouteFault).then_some(at.0);
        self.run(
            "
            UPDATE file
            SET state = 'deferred', open_since = NULL, due_at = ?2, waited_for = ?3,
                last_verdict = ?4, cause_code = ?5, cause_plain = ?6,
                unspent_since = coalesce(unspent_since, ?7)
            WHERE id = ?1
            ",
            params![
                number(id)?,
                due_at.0,
                millis(waited_for),
                end.verdict.name(),
                &*end.code.0,
                end.plain,
                unspent_at,
            ],
        )?;
        Ok(())
    }

    /// State `confirming`: accepted, with the run that is to be asked for.
    fn accepted(
        &self,
        id: FileId,
        attempt: Option<&(u32, AttemptEnd)>,
        run: Option<&str>,
        (at, due_at): (Wall, Wall),
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        let before = self.standing(id)?;
        require(!before.settled && !before.decided, id, "it is decided, nothing is asked for")?;
        self.run(
            "
            UPDATE file
            SET state = 'confirming', run = ?2, confirming_since = ?3, due_at = ?4,
                open_since = CASE attempt WHEN ?5 THEN NULL ELSE open_since END,
                last_verdict = coalesce(?6, last_verdict),
                cause_code = NULL, cause_plain = NULL
            WHERE id = ?1
            ",
            params![
                number(id)?,
                run,
                at.0,
                due_at.0,
                attempt.map(|(number, _)| number),
                attempt.map(|(_, end)| end.verdict.name()),
            ],
        )?;
        if let Some((number, end)) = attempt {
            self.end_attempt(id, *number, end, at)?;
            effects.ended.push((id, *number));
        }
        Ok(())
    }

    fn end_attempt(
        &self,
        id: FileId,
        attempt: u32,
        end: &AttemptEnd,
        at: Wall,
    ) -> Result<(), Failure> {
        let rows = self.run(
            "
            UPDATE attempt
            SET ended_at = ?3, verdict = ?4, code = ?5, status = ?6, request_id = ?7, plain = ?8
            WHERE file = ?1 AND number = ?2
            ",
            params![
                number(id)?,
                attempt,
                at.0,
                end.verdict.name(),
                &*end.code.0,
                end.status,
                end.request_id,
                end.plain,
            ],
        )?;
        require(rows == 1, id, "this attempt is not on record")
    }

    /// The outcome with its target; closes the attempt that brought it; no longer parked.
    fn decided(
        &self,
        id: FileId,
        attempt: Option<&(u32, AttemptEnd)>,
        outcome: &Outcome<'_>,
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        let is_outcome = matches!(outcome.state, State::Sent | State::Failed | State::Held);
        require(is_outcome, id, "a file is decided to be sent, failed or held, nothing else")?;
        let last_verdict = attempt.map(|(_, end)| end.verdict.name());
        let row = number(id)?;
        let params = params![
            row,
            outcome.state.name(),
            &*outcome.cause.code.0,
            outcome.cause.plain,
            Name(outcome.target.folder.as_os_str()),
            Name(&outcome.target.name),
            outcome.at.0,
            attempt.map(|(number, _)| number),
            last_verdict,
        ];
        // Nearly always it is the first decision: then there is nothing to set down.
        if self.run(decide!("WHERE id = ?1 AND settled = 0 AND target_folder IS NULL"), params)?
            == 0
        {
            let before = self.standing(id)?;
            let turns = before.state == State::Sent && outcome.state != State::Sent;
            require(before.settled || !turns, id, "its acceptance is on record")?;
            self.set_down(id, &before, "decided anew", outcome.at, effects)?;
            self.run(decide!("WHERE id = ?1"), params)?;
        }
        if let Some((number, end)) = attempt {
            self.end_attempt(id, *number, end, outcome.at)?;
            effects.ended.push((id, *number));
        }
        Ok(())
    }

    fn retargeted(&self, id: FileId, target: &Place) -> Result<(), Failure> {
        let before = self.standing(id)?;
        require(before.decided && !before.settled, id, "it has no target that could change")?;
        self.run(
            "UPDATE file SET target_folder = ?2, target_name = ?3 WHERE id = ?1",
            params![number(id)?, Name(target.folder.as_os_str()), Name(&target.name)],
        )?;
        Ok(())
    }

    /// Nothing is left to do. Said twice it changes nothing.
    fn settled(&self, id: FileId, effects: &mut Effects) -> Result<(), Failure> {
        let before = self.standing(id)?;
        if before.settled {
            return Ok(());
        }
        require(before.decided, id, "it is not decided, so it cannot be settled")?;
        let row = number(id)?;
        self.run("UPDATE file SET settled = 1 WHERE id = ?1", params![row])?;
        effects.ended.push((id, before.attempt));
        if before.state != State::Sent {
            let digest =
                self.row("SELECT digest FROM file WHERE id = ?1", params![row], |row| row.get(0))?;
            effects.troubled.extend::<Option<[u8; 32]>>(digest.flatten());
        }
        *effects.tally.entry((before.route, before.state)).or_default() += 1;
        Ok(())
    }

    /// Cancelled or missing: settled at once, whatever was decided before.
    fn gone(
        &self,
        id: FileId,
        before: &Standing,
        state: State,
        cause: &Cause,
        at: Wall,
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        self.set_down(id, before, state.name(), at, effects)?;
        self.run(
            "
            UPDATE file
            SET state = ?2, settled = 1, cause_code = ?3, cause_plain = ?4, decided_at = ?5,
                unspent_since = NULL, due_at = NULL
            WHERE id = ?1
            ",
            params![number(id)?, state.name(), &*cause.code.0, cause.plain, at.0],
        )?;
        effects.ended.push((id, before.attempt));
        *effects.tally.entry((before.route.clone(), state)).or_default() += 1;
        Ok(())
    }

    /// Deferred and due at once, from a new place; its time to wait begins anew.
    fn released(
        &self,
        id: FileId,
        source: &Place,
        identity: &Identity,
        at: Wall,
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        let before = self.standing(id)?;
        require(before.settled, id, "it is on its way, there is nothing to release")?;
        let is_sent = before.state == State::Sent;
        require(!is_sent, id, "its acceptance is on record, it is not sent again")?;
        let is_cancelled = before.state == State::Cancelled;
        require(!is_cancelled, id, "it was cancelled, its name belongs to another file")?;
        self.set_down(id, &before, "released", at, effects)?;
        // A person has seen that it is a duplicate, and wants it sent.
        self.run(
            "
            DELETE FROM twin
            WHERE file = ?1
                AND EXISTS (SELECT 1 FROM file WHERE id = ?1 AND cause_code = 'duplicate-of')
            ",
            params![number(id)?],
        )?;
        self.run(
            "
            UPDATE file
            SET state = CASE WHEN confirming_since IS NULL THEN 'deferred' ELSE 'confirming' END,
                confirming_since = CASE WHEN confirming_since IS NULL THEN NULL ELSE ?8 END,
                settled = 0, source_folder = ?2, source_name = ?3,
                volume = ?4, number = ?5, size = ?6, mtime_ns = ?7,
                cause_code = NULL, cause_plain = NULL,
                target_folder = NULL, target_name = NULL, decided_at = NULL,
                unspent_since = NULL, due_at = ?8, waited_for = 0
            WHERE id = ?1
            ",
            params![
                number(id)?,
                Name(source.folder.as_os_str()),
                Name(&source.name),
                identity.volume.cast_signed(),
                identity.number.cast_signed(),
                identity.size.cast_signed(),
                identity.mtime_ns,
                at.0,
            ],
        )?;
        Ok(())
    }

    /// Before an outcome is overwritten: it stays as a remark, and is no longer tallied.
    fn set_down(
        &self,
        id: FileId,
        before: &Standing,
        doing: &str,
        at: Wall,
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        if before.settled {
            *effects.tally.entry((before.route.clone(), before.state)).or_default() -= 1;
        }
        if !before.decided && !before.settled {
            return Ok(());
        }
        let last = self.row(
            "
            SELECT cause_code, cause_plain, target_folder, target_name, decided_at
            FROM file WHERE id = ?1
            ",
            params![number(id)?],
            |row| {
                let code: Option<String> = row.get(0)?;
                let plain: Option<String> = row.get(1)?;
                let folder = read_optional_name(row.get_ref(2)?)?;
                let name = read_optional_name(row.get_ref(3)?)?;
                let target = folder.zip(name).map(|(folder, name)| Path::new(&folder).join(name));
                Ok((code, plain, target, row.get::<_, Option<i64>>(4)?))
            },
        )?;
        let (code, plain, target, decided_at) =
            last.ok_or_else(|| impossible(id, "there is no such file on record"))?;
        let mut text = format!("{doing}; until then {}", before.state.name());
        if let Some(since) = decided_at {
            text = format!("{text} since {}", Wall(since));
        }
        if let Some((code, plain)) = code.zip(plain) {
            text = format!("{text} ({code}: {plain})");
        }
        if let Some(target) = target {
            text = format!("{text} at {}", shown(target.as_os_str()));
        }
        self.remark(id, at, &text)
    }

    fn remark(&self, id: FileId, at: Wall, text: &str) -> Result<(), Failure> {
        self.run(
            "
            INSERT INTO remark (file, number, at, text)
            SELECT ?1, coalesce(max(number), 0) + 1, ?2, ?3 FROM remark WHERE file = ?1
            ",
            params![number(id)?, at.0, text],
        )?;
        Ok(())
    }

    fn standing(&self, id: FileId) -> Result<Standing, Failure> {
        let found = self.row(
            "
            SELECT route, state, settled, attempt, target_folder IS NOT NULL
            FROM file WHERE id = ?1
            ",
            params![number(id)?],
            |row| {
                Ok(Standing {
                    route: row.get(0)?,
                    state: super::read::state(row.get_ref(1)?)?,
                    settled: row.get(2)?,
                    attempt: row.get(3)?,
                    decided: row.get(4)?,
                })
            },
        )?;
        found.ok_or_else(|| impossible(id, "there is no such file on record"))
    }
}

/// What a claim makes of a file: its state, a verdict without an attempt, and what is decided.
fn intended(intent: &Intent) -> (State, Option<&'static str>, Option<(&Cause, &Place)>) {
    match intent {
        Intent::Attempt => (State::Sending, None, None),
        Intent::Refuse { cause, target } => (State::Failed, None, Some((cause, target))),
        Intent::Found { cause, target } => {
            (State::Held, Some(Verdict::InDoubt.name()), Some((cause, target)))
        }
    }
}

/// What is decided.
struct Outcome<'a> {
    state: State,
    cause: &'a Cause,
    target: &'a Place,
    at: Wall,
}

/// An envelope's columns; all NULL for a refused file.
#[derive(Default)]
struct Body {
    digest: Option<[u8; 32]>,
    bytes: Option<i64>,
    conversion: Option<Cow<'static, str>>,
    remarks: Option<String>,
}

impl Body {
    fn of(envelope: Option<&Envelope>) -> Self {
        let Some(envelope) = envelope else { return Self::default() };
        let remarks = (!envelope.remarks.is_empty())
            .then(|| serde_json::Value::from(envelope.remarks.clone()).to_string());
        Self {
            digest: Some(envelope.digest.0),
            bytes: Some(envelope.bytes.cast_signed()),
            conversion: envelope.changes(),
            remarks,
        }
    }
}

fn number(id: FileId) -> Result<i64, Failure> {
    i64::try_from(id.0).map_err(|_| impossible(id, "no id is that large"))
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn is_taken(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY
            || error.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_ROWID
    })
}

fn require(holds: bool, id: FileId, why: &'static str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(impossible(id, why)) }
}

fn impossible(id: FileId, why: &'static str) -> Failure {
    Failure::Impossible { id, why }
}
