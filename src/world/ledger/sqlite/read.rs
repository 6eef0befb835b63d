//! Tables into entries.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::{FromSqlError, FromSqlResult, Type, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::{Count, LedgerId, Query, RESENT};
use super::text::{name_value, read_name, read_optional_name};
use crate::model::file::{Digest, FileId, Identity, Place};
use crate::model::outcome::{Cause, Code};
use crate::model::route::RouteName;
use crate::model::step::{
    Attempt, AttemptEnd, Entry, Envelope, History, Remark, RouteRecord, State, Twin, Verdict,
};
use crate::model::time::Wall;

/// `SELECT` of whole entries, in the order in which [`Shelf::entry`] reads them.
macro_rules! select_entry {
    ($rest:literal) => {
        concat!(
            "
            SELECT
                id, route, name, source_folder, source_name, marker,
                volume, number, size, mtime_ns, digest,
                body_digest, body_bytes, conversion, body_remarks,
                key, previous, claimed_at, state, settled,
                cause_code, cause_plain, target_folder, target_name, decided_at,
                attempt, open_since, last_verdict, run, confirming_since,
                unspent_since, due_at, waited_for
            FROM file
            ",
            $rest
        )
    };
}

pub(super) fn unsettled(connection: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut statement =
        connection.prepare_cached(select_entry!("WHERE settled = 0 ORDER BY id"))?;
    let mut shelf = Shelf::default();
    statement.query_map([], |row| shelf.entry(row))?.collect()
}

/// Attempts on record that have no end, of files that are not settled.
pub(super) fn open_attempts(connection: &Connection) -> rusqlite::Result<Vec<(FileId, u32)>> {
    let mut statement = connection.prepare(
        "
        SELECT id, attempt FROM file
        WHERE settled = 0 AND open_since IS NOT NULL
        ORDER BY id
        ",
    )?;
    statement.query_map([], |row| Ok((file_id(row.get(0)?), row.get(1)?)))?.collect()
}

pub(super) fn entry(connection: &Connection, id: FileId) -> rusqlite::Result<Option<Entry>> {
    let Ok(id) = i64::try_from(id.0) else { return Ok(None) };
    connection
        .prepare_cached(select_entry!("WHERE id = ?1"))?
        .query_row([id], |row| Shelf::default().entry(row))
        .optional()
}

pub(super) fn history(connection: &Connection, id: FileId) -> rusqlite::Result<Option<History>> {
    // One transaction, so that entry, attempts and remarks are of one moment.
    let moment = connection.unchecked_transaction()?;
    let Some(entry) = entry(&moment, id)? else { return Ok(None) };
    let row = id.0.cast_signed();
    let attempts = moment
        .prepare_cached(
            "
            SELECT number, begun_at, ended_at, verdict, code, status, request_id, plain
            FROM attempt WHERE file = ?1 ORDER BY number
            ",
        )?
        .query_map([row], attempt)?
        .collect::<rusqlite::Result<_>>()?;
    let remarks = moment
        .prepare_cached("SELECT at, text FROM remark WHERE file = ?1 ORDER BY number")?
        .query_map([row], |row| Ok(Remark { at: Wall(row.get(0)?), text: row.get(1)? }))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(History { entry, attempts, remarks }))
}

fn attempt(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    let verdict = row.get_ref(3)?;
    let end = if verdict == ValueRef::Null {
        None
    } else {
        Some(AttemptEnd {
            verdict: known(verdict, Verdict::parse)?,
            code: Code(row.get::<_, String>(4)?.into()),
            status: row.get(5)?,
            request_id: row.get(6)?,
            plain: row.get(7)?,
        })
    };
    Ok(Attempt {
        number: row.get(0)?,
        begun_at: Wall(row.get(1)?),
        ended_at: row.get::<_, Option<_>>(2)?.map(Wall),
        end,
    })
}

pub(super) fn list(connection: &Connection, query: &Query) -> rusqlite::Result<Vec<Entry>> {
    if let (Some(route), [State::Sent]) = (&query.route, query.states.as_slice())
        && !has_sent(connection, &route.0)?
    {
        return Ok(Vec::new());
    }
    let mut sql = String::from(select_entry!("WHERE true"));
    let mut values: Vec<Value> = Vec::new();
    let mut narrow = |condition: &str, value: Value| {
        values.push(value);
        sql.push_str(" AND ");
        sql.push_str(&condition.replace('?', &format!("?{}", values.len())));
    };
    if let Some(route) = &query.route {
        narrow("route = ?", Value::from(route.0.to_string()));
    }
    if !query.states.is_empty() {
        // The states are one JSON list, so that their number does not change the statement.
        let states: Vec<&str> = query.states.iter().map(|state| state.name()).collect();
        let states = serde_json::Value::from(states).to_string();
        narrow("state IN (SELECT value FROM json_each(?))", Value::from(states));
    }
    if let Some(code) = &query.code {
        narrow("cause_code = ?", Value::from(code.clone()));
    }
    if let Some(since) = query.since {
        narrow("max(claimed_at, coalesce(decided_at, claimed_at)) >= ?", Value::from(since.0));
    }
    if let Some(name) = &query.name {
        narrow("name = ?", name_value(name));
    }
    if let Some(before) = query.before {
        narrow("id < ?", Value::from(i64::try_from(before.0).unwrap_or(i64::MAX)));
    }
    if query.only_last {
        sql.push_str(
            "
            AND NOT EXISTS (
                SELECT 1 FROM file AS later
                WHERE later.previous = file.id AND later.state <> 'cancelled'
            )
            ",
        );
    }
    if !query.states.is_empty() && !query.states.contains(&State::Sent) {
        // Most files are sent. Both indexes together hold all that are not.
        sql.push_str(
            "
            AND id IN (
                SELECT id FROM file WHERE settled = 0
                UNION ALL
                SELECT id FROM file WHERE settled = 1 AND state <> 'sent'
            )
            ",
        );
    }
    values.push(Value::from(i64::try_from(query.limit).unwrap_or(i64::MAX)));
    sql = format!("{sql} ORDER BY id DESC LIMIT ?{}", values.len());
    let mut shelf = Shelf::default();
    connection
        .prepare(&sql)?
        .query_map(rusqlite::params_from_iter(values), |row| shelf.entry(row))?
        .collect()
}

/// Whether a route has sent anything. Without this every start would read all files of all other
/// routes for each route that has not.
fn has_sent(connection: &Connection, route: &str) -> rusqlite::Result<bool> {
    connection.query_row(
        "
        SELECT EXISTS (SELECT 1 FROM tally WHERE route = ?1 AND state = ?2 AND files > 0)
            OR EXISTS (SELECT 1 FROM file WHERE settled = 0 AND route = ?1 AND state = ?2)
        ",
        params![route, State::Sent.name()],
        |row| row.get(0),
    )
}

pub(super) fn predecessor(
    connection: &Connection,
    route: &RouteName,
    digest: &Digest,
) -> rusqlite::Result<Option<Entry>> {
    connection
        .prepare_cached(select_entry!(
            "
            WHERE route = ?1 AND digest = ?2 AND settled = 1 AND state <> 'sent'
                AND state IN ('failed', 'held')
            ORDER BY id DESC
            LIMIT 1
            "
        ))?
        .query_row(params![&*route.0, digest.0], |row| Shelf::default().entry(row))
        .optional()
}

/// This file and others with the same twin, itself first, then those accepted.
pub(super) fn twins(connection: &Connection, id: FileId) -> rusqlite::Result<Vec<Twin>> {
    let row = i64::try_from(id.0).unwrap_or(i64::MAX);
    let moment = connection.unchecked_transaction()?;
    let mut shelf = Shelf::default();
    let entries: Vec<Entry> = moment
        .prepare_cached(select_entry!(
            "
            WHERE id IN (
                SELECT other.file FROM twin AS own
                JOIN twin AS other ON other.twin = own.twin
                WHERE own.file = ?1
            )
            ORDER BY id <> ?1, state NOT IN ('sent', 'confirming'), id
            LIMIT 100
            "
        ))?
        .query_map([row], |row| shelf.entry(row))?
        .collect::<rusqlite::Result<_>>()?;
    with_doubts(&moment, entries)
}

/// The files on record that have this in common, those that were accepted first.
pub(super) fn twins_of(connection: &Connection, twin: &Digest) -> rusqlite::Result<Vec<Twin>> {
    let moment = connection.unchecked_transaction()?;
    let mut shelf = Shelf::default();
    let entries: Vec<Entry> = moment
        .prepare_cached(select_entry!(
            "
            WHERE id IN (SELECT file FROM twin WHERE twin = ?1)
            ORDER BY state NOT IN ('sent', 'confirming'), id
            LIMIT 100
            "
        ))?
        .query_map([&twin.0], |row| shelf.entry(row))?
        .collect::<rusqlite::Result<_>>()?;
    with_doubts(&moment, entries)
}

fn with_doubts(connection: &Connection, entries: Vec<Entry>) -> rusqlite::Result<Vec<Twin>> {
    let mut in_doubt = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM attempt WHERE file = ?1 AND verdict = 'in-doubt')",
    )?;
    entries
        .into_iter()
        .map(|entry| {
            let was_in_doubt = in_doubt.query_row([entry.id.0.cast_signed()], |row| row.get(0))?;
            Ok(Twin { entry, was_in_doubt })
        })
        .collect()
}

/// The newest journey that names this one as the one it follows.
pub(super) fn successor(connection: &Connection, id: FileId) -> rusqlite::Result<Option<FileId>> {
    let mut statement = connection.prepare_cached(
        "
        SELECT id FROM file
        WHERE previous = ?1 AND state <> 'cancelled'
        ORDER BY id DESC
        LIMIT 1
        ",
    )?;
    statement
        .query_row([i64::try_from(id.0).unwrap_or(i64::MAX)], |row| {
            row.get::<_, i64>(0).map(file_id)
        })
        .optional()
}

/// Which of these runs is on record as that of which file.
pub(super) fn files_of_runs(
    connection: &Connection,
    runs: &[String],
) -> rusqlite::Result<BTreeMap<String, FileId>> {
    let mut statement = connection.prepare_cached("SELECT id FROM file WHERE run = ?1")?;
    let mut files = BTreeMap::new();
    for run in runs {
        let file =
            statement.query_row([run], |row| row.get::<_, i64>(0).map(file_id)).optional()?;
        files.extend(file.map(|file| (run.clone(), file)));
    }
    Ok(files)
}

/// Files of these routes that had an attempt under way in a span of time, and may have been sent.
pub(super) fn attempted_between(
    connection: &Connection,
    routes: &[RouteName],
    from: Wall,
    to: Wall,
) -> rusqlite::Result<BTreeSet<FileId>> {
    let mut statement = connection.prepare_cached(
        "
        SELECT attempt.file
        FROM attempt JOIN file ON file.id = attempt.file
        WHERE attempt.begun_at BETWEEN ?2 - 86400000 AND ?1
            AND coalesce(attempt.ended_at, ?1) >= ?2
            AND coalesce(attempt.verdict, '') <> 'not-sent'
            AND file.route IN (SELECT value FROM json_each(?3))
        ",
    )?;
    let routes: Vec<&str> = routes.iter().map(|route| &*route.0).collect();
    let routes = serde_json::Value::from(routes).to_string();
    statement
        .query_map(params![to.0, from.0, routes], |row| row.get::<_, i64>(0).map(file_id))?
        .collect()
}

/// The digests of all settled files that failed or are held.
pub(super) fn troubled(
    connection: &Connection,
    mut each: impl FnMut(&[u8; 32]),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "
        SELECT digest FROM file
        WHERE settled = 1 AND state <> 'sent' AND digest IS NOT NULL
            AND state IN ('failed', 'held')
        ",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(&row.get(0)?);
    }
    Ok(())
}

pub(super) fn counts(connection: &Connection) -> rusqlite::Result<Vec<Count>> {
    let mut routes: BTreeMap<String, Count> = BTreeMap::new();
    let mut statement = connection.prepare_cached(
        "
        SELECT route, state, sum(files)
        FROM (
            SELECT route, state, files FROM tally
            UNION ALL
            SELECT route, state, 1 FROM file WHERE settled = 0
            UNION ALL
            -- What was taken up again counts as that, and no longer as failed or held. A claim
            -- that came to nothing has taken up nothing.
            SELECT old.route, change.state, change.files
            FROM (
                SELECT DISTINCT previous AS id FROM file
                WHERE previous IS NOT NULL AND state <> 'cancelled'
            ) AS again
            JOIN file AS old
                ON old.id = again.id AND old.settled = 1 AND old.state IN ('failed', 'held')
            JOIN (
                SELECT 'failed' AS was, 'failed' AS state, -1 AS files
                UNION ALL SELECT 'held', 'held', -1
                UNION ALL SELECT 'failed', 'resent', 1
                UNION ALL SELECT 'held', 'resent', 1
            ) AS change
                ON change.was = old.state
        )
        GROUP BY route, state
        ",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let route: String = row.get(0)?;
        let found = row.get_ref(1)?;
        let is_resent = found == ValueRef::Text(RESENT.as_bytes());
        let state = if is_resent { RESENT } else { state(found)?.name() };
        let files = u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0);
        if files > 0 {
            let count = routes
                .entry(route)
                .or_insert_with_key(|route| Count { route: route.clone(), ..Count::default() });
            count.states.insert(state, files);
        }
    }
    for (route, since) in retried_since(connection)? {
        if let Some(count) = routes.get_mut(&route) {
            count.retried_since = Some(since);
        }
    }
    Ok(routes.into_values().collect())
}

/// A first attempt is left out: a large file may be at it for hours, and that is no fault.
fn retried_since(connection: &Connection) -> rusqlite::Result<Vec<(String, Wall)>> {
    connection
        .prepare_cached(
            "
            SELECT route, min(max(claimed_at, coalesce(
                -- A person has let it go: it was held until then.
                (SELECT max(at) FROM remark WHERE file = file.id AND text LIKE 'released;%'), 0)))
            FROM file
            WHERE settled = 0 AND (state = 'deferred' OR state = 'sending' AND attempt > 1)
            GROUP BY route
            ",
        )?
        .query_map([], |row| Ok((row.get(0)?, Wall(row.get(1)?))))?
        .collect()
}

pub(super) fn all_paused_at(connection: &Connection) -> rusqlite::Result<Option<Wall>> {
    let sql = "SELECT all_paused_at FROM ledger WHERE one = 1";
    connection.query_row(sql, [], |row| Ok(row.get::<_, Option<_>>(0)?.map(Wall)))
}

pub(super) fn routes(connection: &Connection) -> rusqlite::Result<Vec<RouteRecord>> {
    connection
        .prepare_cached(
            "SELECT name, first_sweep_at, released, paused_at, pause_code FROM route ORDER BY name",
        )?
        .query_map([], |row| {
            Ok(RouteRecord {
                name: RouteName::new(&row.get::<_, String>(0)?),
                first_sweep_at: row.get::<_, Option<_>>(1)?.map(Wall),
                released: row.get(2)?,
                paused_at: row.get::<_, Option<_>>(3)?.map(Wall),
                pause_code: row.get::<_, Option<String>>(4)?.map(|code| Code(code.into())),
            })
        })?
        .collect()
}

/// Lost ledgers, oldest first, and the ids that they had given out.
pub(super) fn lost(connection: &Connection) -> rusqlite::Result<Vec<(LedgerId, Range<u64>)>> {
    connection
        .prepare("SELECT ledger, ids_from, ids_end FROM lost ORDER BY noted_at, ids_end")?
        .query_map([], |row| {
            let ids = row.get::<_, i64>(1)?.cast_unsigned()..row.get::<_, i64>(2)?.cast_unsigned();
            Ok((LedgerId(row.get(0)?), ids))
        })?
        .collect()
}

/// The folders that hold our mark, each with its number at that time.
pub(super) fn marked(
    connection: &Connection,
) -> rusqlite::Result<BTreeMap<PathBuf, Option<(u64, u64)>>> {
    connection
        .prepare("SELECT folder, volume, number FROM root")?
        .query_map([], |row| {
            let folder = PathBuf::from(read_name(row.get_ref(0)?)?);
            let number = row.get::<_, Option<i64>>(1)?.zip(row.get::<_, Option<i64>>(2)?);
            let number = number.map(|(one, other)| (one.cast_unsigned(), other.cast_unsigned()));
            Ok((folder, number))
        })?
        .collect()
}

/// How many folders a listing remembers, so that entries share them.
const FOLDERS: usize = 16;

/// What entries of one listing share.
#[derive(Default)]
struct Shelf {
    folders: Vec<Arc<Path>>,
    route: Option<RouteName>,
}

impl Shelf {
    fn entry(&mut self, row: &Row<'_>) -> rusqlite::Result<Entry> {
        let mut columns = Columns { row, next: 0 };
        Ok(Entry {
            id: file_id(columns.get()?),
            route: self.route(columns.get()?),
            name: columns.name()?,
            source: self.place(&mut columns)?.ok_or(rusqlite::Error::InvalidColumnType(
                3,
                "source_folder".to_owned(),
                Type::Null,
            ))?,
            marker: columns.optional_name()?,
            identity: Identity {
                volume: columns.unsigned()?,
                number: columns.unsigned()?,
                size: columns.unsigned()?,
                mtime_ns: columns.get()?,
            },
            digest: columns.get::<Option<[u8; 32]>>()?.map(Digest),
            envelope: envelope(&mut columns)?,
            key: columns.get()?,
            previous: columns.get::<Option<i64>>()?.map(file_id),
            claimed_at: Wall(columns.get()?),
            state: columns.known(State::parse)?.ok_or(rusqlite::Error::InvalidColumnType(
                18,
                "state".to_owned(),
                Type::Null,
            ))?,
            settled: columns.get()?,
            cause: cause(&mut columns)?,
            target: self.place(&mut columns)?,
            decided_at: columns.time()?,
            attempt: columns.get()?,
            attempt_open_since: columns.time()?,
            last_verdict: columns.known(Verdict::parse)?,
            run: columns.get()?,
            confirming_since: columns.time()?,
            unspent_since: columns.time()?,
            due_at: columns.time()?,
            waited_for: Duration::from_millis(u64::try_from(columns.get::<i64>()?).unwrap_or(0)),
        })
    }

    fn route(&mut self, name: String) -> RouteName {
        match &self.route {
            Some(route) if *route.0 == *name => route.clone(),
            _ => self.route.insert(RouteName(Arc::from(name))).clone(),
        }
    }

    fn place(&mut self, columns: &mut Columns<'_, '_>) -> rusqlite::Result<Option<Place>> {
        let (folder, name) = (columns.optional_name()?, columns.optional_name()?);
        Ok(folder.zip(name).map(|(folder, name)| Place { folder: self.folder(&folder), name }))
    }

    fn folder(&mut self, path: &OsStr) -> Arc<Path> {
        if let Some(known) = self.folders.iter().find(|known| known.as_os_str() == path) {
            return Arc::clone(known);
        }
        if self.folders.len() == FOLDERS {
            self.folders.remove(0);
        }
        let folder: Arc<Path> = Arc::from(Path::new(path));
        self.folders.push(Arc::clone(&folder));
        folder
    }
}

fn envelope(columns: &mut Columns<'_, '_>) -> rusqlite::Result<Option<Envelope>> {
    let digest: Option<[u8; 32]> = columns.get()?;
    let bytes: Option<i64> = columns.get()?;
    let (conversion, wrap) = columns.known(Envelope::parse_changes)?.unwrap_or_default();
    let remarks: Option<String> = columns.get()?;
    let remarks = match remarks {
        Some(list) => serde_json::from_str(&list).map_err(FromSqlError::other)?,
        None => Vec::new(),
    };
    Ok(digest.zip(bytes).map(|(digest, bytes)| Envelope {
        digest: Digest(digest),
        bytes: bytes.cast_unsigned(),
        conversion,
        wrap,
        remarks,
    }))
}

fn cause(columns: &mut Columns<'_, '_>) -> rusqlite::Result<Option<Cause>> {
    let (code, plain): (Option<String>, Option<String>) = (columns.get()?, columns.get()?);
    Ok(code.zip(plain).map(|(code, plain)| Cause::new(Code(code.into()), plain)))
}

/// Reads one column after the other.
struct Columns<'r, 'stmt> {
    row: &'r Row<'stmt>,
    next: usize,
}

impl Columns<'_, '_> {
    fn get<T: rusqlite::types::FromSql>(&mut self) -> rusqlite::Result<T> {
        self.next += 1;
        self.row.get(self.next - 1)
    }

    fn unsigned(&mut self) -> rusqlite::Result<u64> {
        self.get().map(i64::cast_unsigned)
    }

    fn time(&mut self) -> rusqlite::Result<Option<Wall>> {
        Ok(self.get::<Option<i64>>()?.map(Wall))
    }

    fn name(&mut self) -> rusqlite::Result<OsString> {
        self.next += 1;
        Ok(read_name(self.row.get_ref(self.next - 1)?)?)
    }

    fn optional_name(&mut self) -> rusqlite::Result<Option<OsString>> {
        self.next += 1;
        Ok(read_optional_name(self.row.get_ref(self.next - 1)?)?)
    }

    fn known<T>(&mut self, parse: fn(&str) -> Option<T>) -> rusqlite::Result<Option<T>> {
        self.next += 1;
        let value = self.row.get_ref(self.next - 1)?;
        if value == ValueRef::Null { Ok(None) } else { Ok(Some(known(value, parse)?)) }
    }
}

/// Reads a state's name.
pub(super) fn state(value: ValueRef<'_>) -> FromSqlResult<State> {
    known(value, State::parse)
}

fn known<T>(value: ValueRef<'_>, parse: fn(&str) -> Option<T>) -> FromSqlResult<T> {
    parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
}

fn file_id(row: i64) -> FileId {
    FileId(row.cast_unsigned())
}
