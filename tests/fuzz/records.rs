//! Rows of a ledger that nobody wrote so: what reads them says so, or makes sense of them.

use patchdrop::model::file::FileId;
use patchdrop::world::ledger::Query;
use patchdrop::world::ledger::sqlite::{LedgerOptions, SqliteLedger};
use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value;

use super::fuzz;

fn values() -> impl Strategy<Value = Value> {
    let texts = prop::sample::select(vec![
        "",
        "sent",
        "sending",
        "held",
        "in-doubt",
        "delivered",
        "orders",
        "../..",
        "/",
        "a\0b",
        "[\"x\"]",
        "{}",
        "payload",
        "utf-16",
        "http-200",
        "\u{1f600}",
        "deferred",
    ]);
    let numbers = prop_oneof![any::<i64>(), -2_i64..3, Just(i64::MAX), Just(i64::MIN)];
    prop_oneof![
        1 => Just(Value::Null),
        3 => numbers.prop_map(Value::Integer),
        3 => texts.prop_map(|text| Value::Text(text.to_owned())),
        1 => "\\PC{0,20}".prop_map(Value::Text),
        2 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Blob),
    ]
}

/// The columns of a table.
fn columns(ledger: &Connection, table: &str) -> Vec<String> {
    let mut query = ledger.prepare("SELECT name FROM pragma_table_info(?1)").unwrap();
    query.query_map([table], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// A row of a file and its attempt as they should be, for the values that are not changed.
const ROWS: &str = "
    DELETE FROM attempt; DELETE FROM remark; DELETE FROM file;
    INSERT INTO file (id, route, name, source_folder, source_name, volume, number, size, mtime_ns,
        key, claimed_at, state, settled, attempt, waited_for)
    VALUES (7, 'orders', 'a.json', '/r/orders', 'a.json', 1, 2, 3, 4, 'k', 5, 'sending', 0, 1, 0);
    INSERT INTO attempt (file, number, begun_at) VALUES (7, 1, 6);
    INSERT INTO remark (file, number, at, text) VALUES (7, 1, 6, 'x');";

#[test]
fn no_row_is_too_odd_for_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let state_dir = folder.path().join("state");
    let opened = SqliteLedger::open(&state_dir, LedgerOptions::default()).unwrap();
    opened.ledger.close();
    let writer = Connection::open(state_dir.join("ledger/ledger.db")).unwrap();
    writer.execute_batch("PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF").unwrap();
    let tables = ["file", "attempt", "remark", "route", "tally"];
    let all: Vec<(&str, String)> = tables
        .into_iter()
        .flat_map(|table| columns(&writer, table).into_iter().map(move |column| (table, column)))
        .collect();
    let reader = SqliteLedger::open_read_only(&state_dir).unwrap();
    let change = (prop::sample::select(all), values());
    let mut changed = 0_u64;
    fuzz(prop::collection::vec(change, 1..5), |changes| {
        writer.execute_batch(ROWS).unwrap();
        for ((table, column), value) in changes {
            // What the table's own rules keep out cannot be there.
            let update = format!("UPDATE {table} SET {column} = ?1");
            changed += writer.execute(&update, [value]).unwrap_or(0) as u64;
        }
        let query = Query { limit: 10, ..Query::default() };
        drop((reader.unsettled(), reader.list(&query), reader.counts(), reader.routes()));
        drop((reader.entry(FileId(7)), reader.history(FileId(7)), reader.has_reserved(FileId(7))));
    });
    assert!(changed > 50, "only {changed} values were changed");
}
