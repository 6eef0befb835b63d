//! Marks: whose roots these are, and what they tell a ledger that was copied, restored or lost.

use std::path::Path;
use std::sync::Arc;

use patchdrop::model::file::FileId;
use patchdrop::model::route::RouteName;
use patchdrop::model::step::{LEDGER_BEHIND, RouteRecord};
use patchdrop::model::time::Wall;
use patchdrop::world::instance::{MarkError, MarkFinding};
use patchdrop::world::ledger::Ledger;
use patchdrop::world::ledger::sqlite::SqliteLedger;
use serde_json::{Value, json};

use crate::sqlite::{Sqlite, overwrite};
use crate::suite::Backend;
use crate::words::*;

fn root() -> (tempfile::TempDir, Arc<Path>) {
    let root = tempfile::tempdir().unwrap();
    let path = Arc::from(root.path());
    (root, path)
}

fn mark(root: &Path) -> Value {
    let text = std::fs::read(root.join(".patchdrop/owner.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[tokio::test]
async fn a_first_start_marks_its_roots_and_reserving_keeps_the_marks_up_to_date() {
    let (backend, (_root, root)) = (Sqlite::new(), root());
    let ledger = backend.open(0);
    let found = ledger.check_marks(vec![Arc::clone(&root)]).await.unwrap();
    assert!(matches!(found[..], [MarkFinding::New { .. }]), "{found:?}");
    assert_eq!(mark(&root)["ledger"], ledger.id().to_string());
    ledger.reserve(FileId(5_000)).await.unwrap();
    assert_eq!(mark(&root)["reserved_from"], 5_000);
    assert_eq!(mark(&root)["reserved_end"], 15_000);
    drop(ledger);
    let found = backend.open(0).check_marks(vec![root]).await.unwrap();
    assert!(matches!(found[..], [MarkFinding::Ours { .. }]), "{found:?}");
}

#[tokio::test]
async fn a_root_of_another_instance_is_refused_and_left_alone() {
    let (one, two, (_root, root)) = (Sqlite::new(), Sqlite::new(), root());
    let (first, second) = (one.open(0), two.open(0));
    first.check_marks(vec![Arc::clone(&root)]).await.unwrap();
    let (_free, free) = self::root();
    let error = second.check_marks(vec![Arc::clone(&free), Arc::clone(&root)]).await.unwrap_err();
    assert!(matches!(error, MarkError::Foreign { .. }), "{error:?}");
    assert!(error.to_string().contains(&first.id().to_string()), "{error}");
    assert_eq!(mark(&root)["ledger"], first.id().to_string());
    assert!(!free.join(".patchdrop").exists(), "nothing is written when a start is refused");
    second.adopt(vec![Arc::clone(&root)]).await.unwrap();
    assert_eq!(mark(&root)["ledger"], second.id().to_string());
    first.reserve(FileId(1)).await.unwrap_err();
}

/// After `lose` the marks tell a lost ledger; ids go on beyond those of the lost one.
async fn check_lost(lose: impl Fn(&Sqlite)) {
    let (backend, (_root, root), (_away, away)) = (Sqlite::new(), root(), root());
    let ledger = backend.open(0);
    ledger.check_marks(vec![Arc::clone(&root), Arc::clone(&away)]).await.unwrap();
    ledger.reserve(FileId(5_000)).await.unwrap();
    drop(ledger);
    lose(&backend);
    let ledger = backend.opened().ledger;
    let found = ledger.check_marks(vec![Arc::clone(&root)]).await.unwrap();
    assert!(matches!(found[..], [MarkFinding::Lost { .. }]), "{found:?}");
    assert_eq!(mark(&root)["ledger"], ledger.id().to_string());
    assert!(ledger.has_reserved(FileId(5_000)), "ids of the lost ledger are not foreign");
    assert!(ledger.has_reserved(FileId(14_999)));
    assert_eq!(ledger.reserve(FileId(0)).await.unwrap(), 15_000..25_000);
    drop(ledger);
    let ledger = backend.open(0);
    assert!(ledger.has_reserved(FileId(5_000)), "nor at the next start");
    let found = ledger.check_marks(vec![root, away]).await.unwrap();
    let told = matches!(found[..], [MarkFinding::Ours { .. }, MarkFinding::Lost { .. }]);
    assert!(told, "a root that was away is told too: {found:?}");
}

#[tokio::test]
async fn a_ledger_that_is_gone_is_lost_and_no_first_start() {
    check_lost(|backend| std::fs::remove_dir_all(backend.path().join("ledger")).unwrap()).await;
    check_lost(|backend| {
        std::fs::remove_dir_all(backend.path().join("ledger")).unwrap();
        std::fs::remove_file(backend.path().join("begun")).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_ledger_that_was_set_aside_is_lost() {
    check_lost(|backend| overwrite(&backend.db(), 0, &[0x55; 512])).await;
}

#[tokio::test]
async fn a_root_that_is_not_there_is_told_and_the_others_are_marked() {
    let (backend, (_root, root)) = (Sqlite::new(), root());
    let gone: Arc<Path> = Arc::from(root.join("gone"));
    let ledger = backend.open(0);
    let found = ledger.check_marks(vec![Arc::clone(&gone), root]).await.unwrap();
    let told = matches!(found[..], [MarkFinding::Unreachable { .. }, MarkFinding::New { .. }]);
    assert!(told, "{found:?}");
    ledger.reserve(FileId(1)).await.unwrap();
    assert!(!gone.exists());
}

/// The ledger in an earlier state is put back over a later one.
struct Copy(Vec<u8>);

impl Copy {
    fn of(backend: &Sqlite) -> Self {
        Self(std::fs::read(backend.db()).unwrap())
    }

    fn put_back(&self, backend: &Sqlite) {
        for beside in ["ledger/ledger.db-wal", "ledger/ledger.db-shm"] {
            std::fs::remove_file(backend.path().join(beside)).ok();
        }
        std::fs::write(backend.db(), &self.0).unwrap();
    }
}

fn record(name: &str) -> RouteRecord {
    RouteRecord {
        name: RouteName::new(name),
        first_sweep_at: Some(Wall(1)),
        released: false,
        paused_at: None,
        pause_code: None,
    }
}

/// A ledger that was copied after `before`, used by `then`, and put back is known to be old, its
/// routes are paused until each was resumed, and a second start knows it as well.
async fn check_behind(before: impl AsyncFn(&SqliteLedger), then: impl AsyncFn(&SqliteLedger)) {
    let (backend, (_root, root)) = (Sqlite::new(), root());
    let roots = || vec![Arc::clone(&root)];
    let ledger = backend.open(0);
    ledger.check_marks(roots()).await.unwrap();
    ledger.reserve(FileId(5_000)).await.unwrap();
    ledger.put_route(record("orders")).await.unwrap();
    before(&ledger).await;
    ledger.close();
    let copy = Copy::of(&backend);
    let ledger = backend.open(0);
    ledger.check_marks(roots()).await.unwrap();
    then(&ledger).await;
    ledger.close();
    let reserved_end = mark(&root)["reserved_end"].as_u64().unwrap();
    copy.put_back(&backend);
    let ledger = backend.open(0);
    let found = ledger.check_marks(roots()).await.unwrap();
    assert!(matches!(found[..], [MarkFinding::Behind { .. }]), "{found:?}");
    assert!(ledger.has_reserved(FileId(reserved_end - 1)), "its ids are not foreign");
    ledger.close();
    // The mark agrees with it from now on; that it is old stays on record.
    for _ in 0..2 {
        let ledger = backend.open(0);
        let found = ledger.check_marks(roots()).await.unwrap();
        assert!(matches!(found[..], [MarkFinding::Ours { .. }]), "{found:?}");
        assert!(ledger.behind_since().is_some());
        let route = ledger.routes().await.unwrap().remove(0);
        assert!(route.paused_at.is_some());
        assert_eq!(route.pause_code.as_ref().map(|code| &*code.0), Some(LEDGER_BEHIND));
        assert!(reserved_end <= ledger.reserve(FileId(0)).await.unwrap().start);
        ledger.close();
    }
    let ledger = backend.open(0);
    ledger.put_route(record("orders")).await.unwrap();
    ledger.close();
    assert_eq!(backend.open(0).behind_since(), None, "every route was resumed");
}

#[tokio::test]
async fn a_ledger_behind_its_mark_pauses_every_route_until_a_person_has_resumed_it() {
    let nothing = async |_: &SqliteLedger| {};
    // It has given out ids that the copy does not know.
    check_behind(nothing, async |ledger| {
        ledger.reserve(FileId(5_000)).await.unwrap();
    })
    .await;
    // It has started and sent within one block of ids.
    check_behind(nothing, async |ledger| ledger.commit(vec![claimed(5_001)]).await.unwrap()).await;
    check_behind(nothing, nothing).await;
}

#[tokio::test]
async fn a_copy_that_was_made_while_it_ran_shows_as_old_after_the_next_minute_of_work() {
    let (backend, (_root, root)) = (Sqlite::new(), root());
    let ledger = backend.open(0);
    ledger.check_marks(vec![Arc::clone(&root)]).await.unwrap();
    ledger.commit(vec![claimed(100)]).await.unwrap();
    ledger.keep_marks().await.unwrap();
    let copied = crate::sqlite::cut(&backend);
    let before = mark(&root)["epoch"].clone();
    ledger.keep_marks().await.unwrap();
    assert_eq!(mark(&root)["epoch"], before, "nothing has come on record since");
    ledger.commit(vec![claimed(101)]).await.unwrap();
    ledger.keep_marks().await.unwrap();
    drop(ledger);
    std::fs::remove_dir_all(backend.path().join("ledger")).unwrap();
    std::fs::rename(copied.path().join("ledger"), backend.path().join("ledger")).unwrap();
    let found = backend.open(0).check_marks(vec![root]).await.unwrap();
    assert!(matches!(found[..], [MarkFinding::Behind { .. }]), "{found:?}");
}

#[tokio::test]
async fn a_folder_whose_mark_was_removed_is_marked_again_if_it_is_still_the_same() {
    let (backend, (_root, root)) = (Sqlite::new(), root());
    let ledger = backend.open(0);
    ledger.check_marks(vec![Arc::clone(&root)]).await.unwrap();
    std::fs::remove_dir_all(root.join(".patchdrop")).unwrap();
    ledger.reserve(FileId(1)).await.unwrap();
    assert_eq!(mark(&root)["ledger"], ledger.id().to_string());
    std::fs::remove_dir_all(root.join(".patchdrop")).unwrap();
    let found = ledger.check_marks(vec![Arc::clone(&root)]).await.unwrap();
    assert!(matches!(found[..], [MarkFinding::Restored { .. }]), "{found:?}");
    assert_eq!(mark(&root)["ledger"], ledger.id().to_string());
}

#[tokio::test]
async fn another_folder_in_its_place_is_not_marked_unasked_and_nothing_in_it_is_ours() {
    let (backend, (_base, base)) = (Sqlite::new(), root());
    let root: Arc<Path> = Arc::from(base.join("root"));
    std::fs::create_dir(&root).unwrap();
    let ledger = backend.open(0);
    ledger.check_marks(vec![Arc::clone(&root)]).await.unwrap();
    // As an unmounted volume leaves it.
    std::fs::rename(&root, base.join("aside")).unwrap();
    std::fs::create_dir(&root).unwrap();
    let error = ledger.reserve(FileId(1)).await.unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("patchdrop adopt"), "it names no remedy: {why}");
    let found = ledger.check_marks(vec![Arc::clone(&root)]).await.unwrap();
    assert!(matches!(found[..], [MarkFinding::Vanished { .. }]), "{found:?}");
    let orders = root.join("orders");
    let error = ledger.admit(&orders, false).await.unwrap_err();
    assert!(matches!(error, MarkError::Vanished { .. }), "{error:?}");
    assert!(!root.join(".patchdrop").exists());
    // It is mounted again.
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(base.join("aside"), &root).unwrap();
    assert!(ledger.admit(&orders, false).await.unwrap(), "its mark is looked at");
    assert!(!ledger.admit(&orders, false).await.unwrap(), "once");
    assert!(ledger.admit(&orders, true).await.unwrap(), "whenever it is asked for");
    ledger.reserve(FileId(1)).await.unwrap();
    // Or it was made anew, and a person says so.
    std::fs::rename(&root, base.join("aside")).unwrap();
    std::fs::create_dir(&root).unwrap();
    ledger.adopt(vec![Arc::clone(&root)]).await.unwrap();
    ledger.reserve(FileId(1)).await.unwrap();
}

#[tokio::test]
async fn a_root_that_comes_back_as_another_instances_is_not_ours() {
    let (one, two, (_base, base)) = (Sqlite::new(), Sqlite::new(), root());
    let root: Arc<Path> = Arc::from(base.join("root"));
    let ledger = one.open(0);
    let found = ledger.check_marks(vec![Arc::clone(&root)]).await.unwrap();
    assert!(matches!(found[..], [MarkFinding::Unreachable { .. }]), "{found:?}");
    std::fs::create_dir(&root).unwrap();
    two.open(0).check_marks(vec![Arc::clone(&root)]).await.unwrap();
    let error = ledger.admit(&root.join("orders"), false).await.unwrap_err();
    assert!(matches!(error, MarkError::Foreign { .. }), "{error:?}");
}

/// What a mark says that is not understood, and whether the root is taken for ours again.
async fn check_torn(content: &[u8], is_known: bool, expected: bool) {
    let (backend, (_root, root)) = (Sqlite::new(), root());
    let ledger = backend.open(0);
    if is_known {
        ledger.check_marks(vec![Arc::clone(&root)]).await.unwrap();
    }
    std::fs::create_dir_all(root.join(".patchdrop")).unwrap();
    std::fs::write(root.join(".patchdrop/owner.json"), content).unwrap();
    drop(ledger);
    let ledger = backend.open(0);
    let found = ledger.check_marks(vec![Arc::clone(&root)]).await;
    if expected {
        assert!(
            matches!(found, Ok(ref it) if matches!(it[..], [MarkFinding::Restored { .. }])),
            "{found:?}"
        );
    } else {
        assert!(matches!(found, Err(MarkError::Unreadable { .. })), "{found:?}");
        assert_eq!(std::fs::read(root.join(".patchdrop/owner.json")).unwrap(), content);
        ledger.adopt(vec![Arc::clone(&root)]).await.unwrap();
    }
    assert_eq!(mark(&root)["ledger"], ledger.id().to_string());
}

#[tokio::test]
async fn a_mark_that_a_power_cut_has_emptied_does_not_stop_a_root_that_is_known_to_be_ours() {
    for torn in [&b""[..], &[0; 300], b"{", b"{\"ledger\": \"00"] {
        check_torn(torn, true, true).await;
        check_torn(torn, false, false).await;
    }
    // What a newer patchdrop may have written is not overwritten.
    check_torn(b"{\"owner\": 1}", true, false).await;
}

fn edit(root: &Path, changes: &Value) {
    let mut mark = mark(root);
    for (key, value) in changes.as_object().unwrap() {
        mark[key] = value.clone();
    }
    std::fs::write(root.join(".patchdrop/owner.json"), mark.to_string()).unwrap();
}

/// Whether a root whose mark names our ledger and says this beside is ours.
async fn check_elsewhere(changes: Value, is_ours: bool) {
    let (backend, (_root, root)) = (Sqlite::new(), root());
    let ledger = backend.open(0);
    ledger.check_marks(vec![Arc::clone(&root)]).await.unwrap();
    ledger.put_route(record("orders")).await.unwrap();
    ledger.close();
    edit(&root, &changes);
    let ledger = backend.open(0);
    let found = ledger.check_marks(vec![Arc::clone(&root)]).await;
    if is_ours {
        assert!(
            matches!(found, Ok(ref it) if matches!(it[..], [MarkFinding::Ours { .. }])),
            "{changes}: {found:?}"
        );
        return;
    }
    let error = found.unwrap_err();
    assert!(matches!(error, MarkError::Elsewhere { .. }), "{changes}: {error:?}");
    let said = error.to_string();
    let says = mark(&root);
    for who in ["host", "state_dir", "written_at"] {
        assert!(said.contains(says[who].as_str().unwrap()), "{who} is not in: {said}");
    }
    ledger.adopt(vec![Arc::clone(&root)]).await.unwrap();
    let found = ledger.check_marks(vec![Arc::clone(&root)]).await.unwrap();
    assert!(matches!(found[..], [MarkFinding::Ours { .. }]), "{changes}: {found:?}");
    assert_eq!(ledger.behind_since().is_some(), changes["epoch"].is_u64(), "{changes}");
}

#[tokio::test]
async fn two_copies_of_one_ledger_never_work_on_one_root() {
    check_elsewhere(json!({}), true).await;
    check_elsewhere(json!({ "host": "another" }), false).await;
    // A machine that was copied along with its name.
    let has_id = cfg!(windows) || Path::new("/etc/machine-id").exists();
    check_elsewhere(json!({ "machine": "0011223344556677" }), !has_id).await;
    // The other copy has worked since.
    check_elsewhere(json!({ "host": "another", "epoch": 99 }), false).await;
    // A state_dir that was moved is the same one; one that was copied is not.
    check_elsewhere(json!({ "state_dir": "/nowhere/any/more" }), true).await;
    let other = Sqlite::new();
    drop(other.open(0));
    check_elsewhere(json!({ "state_dir": other.path() }), false).await;
    // As 0.1.0 wrote it.
    check_elsewhere(json!({ "machine": null, "place": null, "epoch": 0 }), true).await;
}

#[tokio::test]
async fn a_copy_that_has_been_adopted_elsewhere_learns_it_while_it_runs() {
    for changes in [json!({ "host": "another" }), json!({ "ledger": "00".repeat(16) })] {
        let (backend, (_root, root)) = (Sqlite::new(), root());
        let ledger = backend.open(0);
        ledger.check_marks(vec![Arc::clone(&root)]).await.unwrap();
        ledger.keep_marks().await.unwrap();
        edit(&root, &changes);
        let said = mark(&root);
        let error = ledger.keep_marks().await.unwrap_err();
        assert!(error.is_somebody_elses(), "{error:?}");
        ledger.reserve(FileId(1)).await.unwrap_err();
        assert_eq!(mark(&root), said, "it is left alone");
    }
}

#[tokio::test]
async fn two_containers_of_one_name_do_not_take_each_other_for_lost() {
    let (one, two, (_root, root)) = (Sqlite::new(), Sqlite::new(), root());
    one.open(0).check_marks(vec![Arc::clone(&root)]).await.unwrap();
    // Each sees its own state folder under the same path, and neither has an id of its machine.
    edit(&root, &json!({ "machine": null, "state_dir": two.path() }));
    let error = two.open(0).check_marks(vec![Arc::clone(&root)]).await.unwrap_err();
    assert!(matches!(error, MarkError::Foreign { .. }), "{error:?}");
}

#[tokio::test]
async fn what_an_adopted_instance_left_counts_as_lost_and_keeps_its_keys() {
    let (one, two, (_root, root)) = (Sqlite::new(), Sqlite::new(), root());
    let first = one.open(0);
    first.check_marks(vec![Arc::clone(&root)]).await.unwrap();
    let theirs = FileId(first.reserve(FileId(5_000)).await.unwrap().start + 7);
    let key = first.key(theirs);
    first.close();
    let second = two.open(0);
    second.reserve(FileId(900_000)).await.unwrap();
    second.adopt(vec![Arc::clone(&root)]).await.unwrap();
    // Windows replaces no file that another ledger has open.
    second.close();
    for _ in 0..2 {
        let second = two.open(0);
        assert!(second.has_reserved(theirs), "it would be left alone as foreign");
        assert_eq!(second.key_of_stray(theirs), key);
        assert_ne!(second.key(theirs), key);
        let own = FileId(900_001);
        assert_eq!(second.key_of_stray(own), second.key(own));
        second.close();
    }
}
