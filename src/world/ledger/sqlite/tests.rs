//! What `SQLite` says, and what follows: only damage sets a ledger aside, all else may pass.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, ffi};
use tokio::sync::oneshot;

use super::connect::Failure;
use super::writer::{Change, Request, Writer};
use super::{LedgerError, LedgerOptions, SqliteLedger};
use crate::world::gather::Gather;

fn check(code: i32, damaged: bool) {
    let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
    let error = Failure::sqlite(Path::new("/state/ledger/ledger.db"), error).error();
    let is_right = match &error {
        LedgerError::Damaged(_) => damaged,
        LedgerError::Unavailable(_) => !damaged,
        LedgerError::Replaced | LedgerError::Newer { .. } | LedgerError::Impossible { .. } => false,
    };
    assert!(is_right, "{code}: {error:?}");
    let waits = error.remedy().contains("by itself");
    assert_eq!(waits, !damaged, "what is said is what happens: {code}");
}

#[test]
fn only_what_says_that_the_content_is_wrong_is_damage() {
    for code in [ffi::SQLITE_NOTADB, ffi::SQLITE_CORRUPT, ffi::SQLITE_CORRUPT_VTAB] {
        check(code, true);
    }
    for code in [
        ffi::SQLITE_IOERR,
        ffi::SQLITE_IOERR_READ,
        ffi::SQLITE_IOERR_SHORT_READ,
        ffi::SQLITE_IOERR_FSYNC,
        ffi::SQLITE_IOERR_SHMMAP,
        ffi::SQLITE_FULL,
        ffi::SQLITE_READONLY,
        ffi::SQLITE_READONLY_DBMOVED,
        ffi::SQLITE_BUSY,
        ffi::SQLITE_LOCKED,
        ffi::SQLITE_CANTOPEN,
        ffi::SQLITE_PERM,
        ffi::SQLITE_NOMEM,
        ffi::SQLITE_PROTOCOL,
        ffi::SQLITE_INTERRUPT,
    ] {
        check(code, false);
    }
}

/// A commit through a connection with this fault is refused as one that may pass; the next goes.
fn check_passes(fault: impl Fn(&SqliteLedger) -> Connection) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(folder.path(), LedgerOptions::default()).unwrap().ledger;
    let shared = Arc::clone(&ledger.shared);
    let mut writer = Writer {
        gather: Gather::new(Arc::default()),
        connection: Some(fault(&ledger)),
        retired: None,
        seen: shared.home.look(),
        shared,
        appended: Vec::new(),
        due: None,
        dirty: false,
    };
    let mut reserve = || {
        let (done, mut answer) = oneshot::channel();
        let change = Change::Reserve { floor: 7 };
        writer.write(vec![Request { change, done: Some(done) }]);
        answer.try_recv().unwrap()
    };
    let error = reserve().unwrap_err();
    assert!(matches!(error, LedgerError::Unavailable(_)), "{error:?}");
    let ids: Range<u64> = reserve().unwrap();
    assert_eq!(ids.start, 7, "nothing of the refused one is on record");
    assert!(!folder.path().join("ledger/suspect").exists(), "the next start suspects nothing");
}

#[test]
fn a_file_system_that_became_read_only_refuses_commits_until_it_passes() {
    check_passes(|ledger| {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(&ledger.shared.home.db, flags).unwrap()
    });
}
