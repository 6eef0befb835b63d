//! A ledger that is not synced: what it says of the boot in which it is worked with, and what a start
//! in another boot makes of it.

use std::sync::Arc;

use patchdrop::model::durability::Durability;
use patchdrop::model::file::FileId;
use patchdrop::model::route::RouteName;
use patchdrop::model::step::{LEDGER_BEHIND, RouteRecord, Step, UNCLEAN_BOOT};
use patchdrop::model::time::Wall;
use patchdrop::world::ledger::Ledger;
use patchdrop::world::ledger::sqlite::{LedgerOptions, SqliteLedger};

use crate::sqlite::{Sqlite, shell};
use crate::suite::Backend;
use crate::words::*;

const NEITHER: &str = "UPDATE ledger SET unsynced_boot = 'another' WHERE unsynced_boot IS NOT NULL";

fn open(backend: &Sqlite, durability: Durability) -> SqliteLedger {
    let options = LedgerOptions { load: Arc::default(), durability };
    SqliteLedger::open(backend.path(), options).unwrap().ledger
}

fn mark(backend: &Sqlite) -> Option<String> {
    let database = rusqlite::Connection::open(backend.db()).unwrap();
    database.query_row("SELECT unsynced_boot FROM ledger", [], |row| row.get(0)).unwrap()
}

/// What a ledger that is not synced takes for the name of this boot.
fn this_boot() -> String {
    if cfg!(target_os = "linux") {
        return std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap()
            .trim()
            .to_owned();
    }
    let backend = Sqlite::new();
    drop(open(&backend, Durability::ProcessCrash));
    mark(&backend).unwrap()
}

fn record(name: &str, paused_at: Option<Wall>) -> RouteRecord {
    RouteRecord {
        name: RouteName::new(name),
        first_sweep_at: Some(Wall(1)),
        released: false,
        paused_at,
        pause_code: None,
    }
}

#[tokio::test]
async fn the_mark_of_the_boot_stands_from_the_start_until_an_end_in_order() {
    let backend = Sqlite::new();
    drop(open(&backend, Durability::PowerLoss));
    assert_eq!(mark(&backend), None, "what is synced needs none");
    let ledger = open(&backend, Durability::ProcessCrash);
    assert!(ledger.is_unsynced() && !ledger.is_unsure());
    assert_eq!(mark(&backend), Some(this_boot()), "before anything else comes on record");
    drop(ledger);
    assert_eq!(mark(&backend), Some(this_boot()), "a close alone is no end in order");
    // Whoever comes next in the same boot knows all, and need not be of the same mind.
    for durability in [Durability::PowerLoss, Durability::ProcessCrash] {
        let ledger = open(&backend, durability);
        assert!(ledger.is_unsynced() && !ledger.is_unsure(), "{durability:?}");
    }
    let ledger = open(&backend, Durability::PowerLoss);
    ledger.rest().await.unwrap();
    assert!(!ledger.is_unsynced());
    assert_eq!(mark(&backend), None);
}

#[tokio::test]
async fn another_boot_without_a_clean_end_pauses_every_route_once_it_is_noted() {
    for durability in [Durability::PowerLoss, Durability::ProcessCrash] {
        let backend = Sqlite::new();
        let ledger = open(&backend, Durability::ProcessCrash);
        let ids = ledger.reserve(FileId(0)).await.unwrap();
        let file = claim(ids.start);
        let id = file.id;
        ledger.put_route(record("orders", None)).await.unwrap();
        ledger.put_route(record("stock", Some(Wall(5)))).await.unwrap();
        let code = Some(patchdrop::model::outcome::Code::of(LEDGER_BEHIND));
        let behind = RouteRecord { pause_code: code, ..record("old", Some(Wall(6))) };
        ledger.put_route(behind.clone()).await.unwrap();
        ledger.commit(vec![Step::Claimed(Box::new(file))]).await.unwrap();
        drop(ledger);
        // Where folders are never synced, a start trusts no move anyway.
        let below = cfg!(unix).then_some(FileId(ids.end));
        shell(&backend, NEITHER);
        // An end before it is noted changes nothing.
        assert!(open(&backend, durability).is_unsure());
        let ledger = open(&backend, durability);
        assert!(ledger.is_unsure());
        assert_eq!(mark(&backend).as_deref(), Some("another"), "it is not of this boot yet");
        let doubt = Step::AttemptBegun { id, attempt: 2, at: Wall(9) };
        ledger.note_cut(vec![doubt]).await.unwrap();
        assert!(!ledger.is_unsure());
        assert_eq!(ledger.entry(id).await.unwrap().unwrap().attempt, 2);
        assert_eq!(ledger.unsure_below(), below);
        let routes = ledger.routes().await.unwrap();
        let paused = |name: &str| routes.iter().find(|route| &*route.name.0 == name).unwrap();
        for (name, since) in [("orders", None), ("stock", Some(Wall(5)))] {
            let route = paused(name);
            assert_eq!(route.pause_code.as_ref().map(|code| &*code.0), Some(UNCLEAN_BOOT));
            assert!(
                route.paused_at.is_some() && since.is_none_or(|at| route.paused_at == Some(at))
            );
        }
        assert_eq!(*paused("old"), behind, "it waits for a person anyway");
        drop(ledger);
        let expected = (durability == Durability::ProcessCrash).then(this_boot);
        assert_eq!(mark(&backend), expected, "{durability:?}");
        // Which moves may be lost is remembered for good; the rest is certain again.
        let ledger = open(&backend, Durability::PowerLoss);
        assert!(!ledger.is_unsure());
        assert_eq!(ledger.unsure_below(), below);
    }
}

#[tokio::test]
async fn another_boot_after_an_end_in_order_is_an_ordinary_start() {
    let backend = Sqlite::new();
    let ledger = open(&backend, Durability::ProcessCrash);
    ledger.put_route(record("orders", None)).await.unwrap();
    ledger.rest().await.unwrap();
    // What comes on record after that is synced; it needs no mark.
    ledger.commit(vec![Step::Claimed(Box::new(claim(7_000_000)))]).await.unwrap();
    drop(ledger);
    shell(&backend, NEITHER);
    let ledger = open(&backend, Durability::ProcessCrash);
    assert!(!ledger.is_unsure());
    assert_eq!(ledger.routes().await.unwrap(), [record("orders", None)]);
}
