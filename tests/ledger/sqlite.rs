//! The embedded ledger: the suite, and its files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use patchdrop::model::file::FileId;
use patchdrop::model::step::{State, Step, Verdict};
use patchdrop::world::instance::{LockError, StateLock};
use patchdrop::world::ledger::sqlite::{LedgerOptions, OpenError, Opened, SqliteLedger};
use patchdrop::world::ledger::{Ledger, LedgerError, Query};

use crate::suite::{Backend, conformance};
use crate::words::*;

pub(crate) struct Sqlite(tempfile::TempDir);

impl Sqlite {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn db(&self) -> std::path::PathBuf {
        self.path().join("ledger/ledger.db")
    }

    pub(crate) fn opened(&self) -> Opened {
        SqliteLedger::open(self.path(), LedgerOptions::default()).unwrap()
    }
}

impl Backend for Sqlite {
    type Ledger = SqliteLedger;

    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self, load: usize) -> SqliteLedger {
        let load = Arc::new(AtomicUsize::new(load));
        let opened =
            SqliteLedger::open(self.path(), LedgerOptions { load, ..LedgerOptions::default() })
                .unwrap();
        assert!(opened.lost.is_none(), "{:?}", opened.lost);
        opened.ledger
    }
}

conformance! {
    Sqlite:
    a_claimed_file_is_sending_with_attempt_1_open
    a_refused_file_is_failed_without_attempt_and_without_excerpt
    a_file_found_without_a_record_is_held_in_doubt_without_an_attempt
    every_part_of_a_claim_comes_back
    any_name_comes_back_exactly
    an_ended_attempt_parks_the_file_until_the_next_begins
    a_file_is_unspent_since_the_first_route_fault_until_it_is_decided
    a_decision_closes_its_attempt_and_keeps_no_excerpt
    an_accepted_file_is_confirming_and_never_attempted_again
    a_run_is_known_as_that_of_its_file
    attempts_of_a_span_are_found_by_route_and_time
    what_is_read_back_is_what_the_model_makes_of_the_steps
    a_decision_without_attempt_leaves_the_attempts_alone
    cancelled_and_missing_files_are_settled_at_once
    a_released_file_is_due_at_once_and_remembers_why_it_was_held
    a_person_may_decide_a_settled_file_anew
    a_history_has_all_attempts_and_remarks_in_order
    an_impossible_step_fails_with_all_of_its_commit
    an_impossible_commit_does_not_hurt_those_beside_it
    what_was_answered_is_there_after_a_reopen
    what_was_appended_is_there_after_a_close
    what_was_appended_needs_no_company
    an_empty_commit_brings_what_was_appended
    what_was_taken_up_again_is_no_longer_counted_as_failed
    unsettled_files_come_oldest_first
    ids_come_in_blocks_that_only_grow
    twins_know_of_each_other_until_a_person_lets_one_go
    a_predecessor_is_the_newest_settled_failure_with_this_digest
    counts_agree_with_the_entries_whatever_happened
    a_list_is_newest_first_and_holds_what_was_asked_for
    a_hundred_thousand_files_are_listed_page_by_page
    a_routes_record_is_replaced_as_a_whole
    a_pause_of_all_is_on_record_with_the_routes_that_it_concerns
    a_failure_may_pause_its_route_in_the_same_commit
    a_process_knows_which_of_its_attempts_have_begun
}

/// What a power cut or a kill leaves: the files as they are, with nobody closing them.
pub(crate) fn cut(from: &Sqlite) -> Sqlite {
    let to = Sqlite::new();
    std::fs::create_dir(to.path().join("ledger")).unwrap();
    for name in ["ledger/ledger.db", "ledger/ledger.db-wal", "begun"] {
        std::fs::copy(from.path().join(name), to.path().join(name)).unwrap();
    }
    to
}

#[tokio::test]
async fn every_answered_commit_survives_a_cut_and_each_is_there_whole_or_not_at_all() {
    let backend = Sqlite::new();
    let ledger = Arc::new(backend.open(64));
    let mut answered = Vec::new();
    for round in 0..10_u64 {
        let commits = (0..20).map(|number| {
            let id = 1_000 + round * 100 + number * 2;
            let ledger = Arc::clone(&ledger);
            async move {
                ledger.commit(vec![claimed(id), claimed(id + 1)]).await.unwrap();
                id
            }
        });
        let (late, on_time) = futures_util::future::join(
            tokio::spawn({
                let ledger = Arc::clone(&ledger);
                async move {
                    ledger
                        .commit(vec![claimed(5_000 + 2 * round), claimed(5_001 + 2 * round)])
                        .await
                }
            }),
            futures_util::future::join_all(commits),
        )
        .await;
        late.unwrap().unwrap();
        answered.extend(on_time);
        // One more is under way while the files are copied.
        let under_way = tokio::spawn({
            let ledger = Arc::clone(&ledger);
            async move {
                ledger.commit(vec![claimed(8_000 + 2 * round), claimed(8_001 + 2 * round)]).await
            }
        });
        let copy = cut(&backend);
        let after = copy.open(0);
        for id in &answered {
            for id in [*id, id + 1] {
                assert!(after.entry(FileId(id)).await.unwrap().is_some(), "{id} is lost");
            }
        }
        let pairs = after.list(Query { limit: 10_000, ..Query::default() }).await.unwrap();
        assert_eq!(pairs.len() % 2, 0, "a commit is there in part");
        under_way.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn many_commits_share_one_write() {
    let backend = Sqlite::new();
    let ledger = backend.open(400);
    ledger.commit(vec![claimed(1)]).await.unwrap();
    let wal = || std::fs::metadata(backend.path().join("ledger/ledger.db-wal")).unwrap().len();
    let before = wal();
    ledger.commit(vec![claimed(2)]).await.unwrap();
    let alone = wal() - before;
    let before = wal();
    let commits = (100..200).map(|id| ledger.commit(vec![claimed(id)]));
    for answer in futures_util::future::join_all(commits).await {
        answer.unwrap();
    }
    let together = wal() - before;
    assert!(together < 50 * alone, "{together} bytes for 100 commits, {alone} for one");
}

#[tokio::test]
async fn after_a_kill_in_the_same_boot_it_is_known_what_had_begun() {
    let backend = Sqlite::new();
    let ledger = backend.open(0);
    ledger.commit(vec![claimed(100), claimed(101), claimed(102)]).await.unwrap();
    ledger.commit(vec![ended(102, 1, Verdict::Deferred, 5)]).await.unwrap();
    ledger.begun(FileId(100), 1).unwrap();
    let once = cut(&backend);
    drop(once.open(0));
    let twice = once.open(0);
    // Where the system does not name its boots, nothing is known.
    let known = cfg!(windows) || Path::new("/proc/sys/kernel/random/boot_id").exists();
    assert_eq!(twice.had_begun(FileId(100), 1), known.then_some(true));
    assert_eq!(twice.had_begun(FileId(101), 1), known.then_some(false));
    assert_eq!(twice.had_begun(FileId(102), 1), None, "its end is on record");
}

#[tokio::test]
async fn after_another_boot_nothing_is_known_about_earlier_attempts() {
    let backend = Sqlite::new();
    let ledger = backend.open(0);
    ledger.commit(vec![claimed(100), claimed(101)]).await.unwrap();
    ledger.begun(FileId(100), 1).unwrap();
    let cut = cut(&backend);
    let path = cut.path().join("begun");
    let text = std::fs::read_to_string(&path).unwrap();
    let boot = text.split(' ').nth(1).unwrap();
    std::fs::write(&path, text.replace(boot, "another-boot")).unwrap();
    for _ in 0..2 {
        let later = cut.open(0);
        assert_eq!(later.had_begun(FileId(100), 1), None);
        assert_eq!(later.had_begun(FileId(101), 1), None);
    }
}

pub(crate) fn shell(backend: &Sqlite, sql: &str) {
    rusqlite::Connection::open(backend.db()).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let backend = Sqlite::new();
    drop(backend.open(0));
    shell(&backend, "PRAGMA user_version = 9");
    for _ in 0..2 {
        let error = SqliteLedger::open(backend.path(), LedgerOptions::default()).unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 9, known: 4, .. }), "{error:?}");
        let error = SqliteLedger::open_read_only(backend.path()).unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 9, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_database_of_another_program_is_left_alone() {
    let backend = Sqlite::new();
    std::fs::create_dir(backend.path().join("ledger")).unwrap();
    shell(&backend, "CREATE TABLE diary (entry TEXT)");
    let error = SqliteLedger::open(backend.path(), LedgerOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::Unavailable { .. }), "{error:?}");
    shell(&backend, "INSERT INTO diary (entry) VALUES ('still here')");
}

pub(crate) fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    use std::io::{Seek, SeekFrom, Write};
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

/// After `damage` the ledger is set aside whole, a new one begins, and the lost one is known.
async fn check_damage(damage: impl Fn(&Sqlite)) {
    let backend = Sqlite::new();
    let ledger = backend.open(0);
    let id = *ledger.id();
    for number in 0..50 {
        ledger
            .commit((0..20).map(|more| claimed(100 + number * 20 + more)).collect())
            .await
            .unwrap();
    }
    drop(ledger);
    damage(&backend);
    let Opened { ledger, lost } = backend.opened();
    let lost = lost.expect("it is damaged");
    assert!(matches!(lost.why, LedgerError::Damaged(_)), "{:?}", lost.why);
    assert!(lost.set_aside.join("ledger.db").exists(), "{}", lost.set_aside.display());
    assert_ne!(*ledger.id(), id);
    assert_eq!(ledger.unsettled().await.unwrap(), []);
    ledger.commit(vec![claimed(100)]).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_set_aside() {
    check_damage(|backend| overwrite(&backend.db(), 0, &[0x55; 512])).await;
}

#[tokio::test]
async fn damage_is_found_at_the_start_after_an_unclean_end() {
    check_damage(|backend| {
        let bytes = std::fs::metadata(backend.db()).unwrap().len();
        // All pages but the first few, which every opening reads.
        let pages = vec![0x55; usize::try_from(bytes).unwrap() - 20 * 4096];
        overwrite(&backend.db(), 20 * 4096, &pages);
        std::fs::write(backend.path().join("ledger/ledger.db-wal"), "torn").unwrap();
    })
    .await;
}

#[tokio::test]
async fn damage_seen_in_use_is_looked_into_at_the_next_start() {
    let seen = async |backend: &Sqlite| {
        let ledger = backend.open(0);
        let query = Query { limit: 10_000, ..Query::default() };
        let error = ledger.list(query).await.unwrap_err();
        assert!(matches!(error, LedgerError::Damaged(_)), "{error:?}");
    };
    let backend = Sqlite::new();
    let ledger = backend.open(0);
    let query = Query { limit: 10_000, ..Query::default() };
    // Settled files: what a start reads does not include them.
    for number in 0..50 {
        let steps = (0..20).flat_map(|more| whole(100 + number * 20 + more, State::Sent));
        ledger.commit(steps.collect()).await.unwrap();
    }
    assert_eq!(ledger.list(query).await.unwrap().len(), 1_000);
    drop(ledger);
    let bytes = std::fs::metadata(backend.db()).unwrap().len();
    let pages = vec![0x55; usize::try_from(bytes).unwrap() - 20 * 4096];
    overwrite(&backend.db(), 20 * 4096, &pages);
    seen(&backend).await;
    assert!(backend.opened().lost.is_some());
}

#[cfg(unix)]
#[tokio::test]
async fn a_replaced_or_removed_database_takes_no_commit() {
    let (backend, other) = (Sqlite::new(), Sqlite::new());
    drop(other.open(0));
    let ledger = backend.open(0);
    ledger.commit(vec![claimed(100)]).await.unwrap();
    let aside = backend.path().join("aside");
    std::fs::rename(backend.db(), &aside).unwrap();
    for _ in 0..2 {
        let error = ledger.commit(vec![claimed(101)]).await.unwrap_err();
        assert!(matches!(error, LedgerError::Replaced), "removed: {error:?}");
    }
    std::fs::copy(other.db(), backend.db()).unwrap();
    for _ in 0..2 {
        let error = ledger.commit(vec![claimed(101)]).await.unwrap_err();
        assert!(matches!(error, LedgerError::Replaced), "replaced: {error:?}");
    }
    let error = ledger.entry(FileId(100)).await.unwrap_err();
    assert!(matches!(error, LedgerError::Replaced), "read: {error:?}");
    std::fs::rename(&aside, backend.db()).unwrap();
    ledger.commit(vec![claimed(101)]).await.unwrap();
    drop(ledger);
    let ledger = backend.open(0);
    assert_eq!(ledger.unsettled().await.unwrap().len(), 2, "it came back, with all commits");
}

#[cfg(unix)]
#[tokio::test]
async fn a_removed_wal_is_noticed_and_loses_nothing() {
    let backend = Sqlite::new();
    let ledger = backend.open(0);
    ledger.commit(vec![claimed(100)]).await.unwrap();
    assert_eq!(ledger.unsettled().await.unwrap().len(), 1);
    std::fs::remove_file(backend.path().join("ledger/ledger.db-wal")).unwrap();
    let error = ledger.commit(vec![claimed(101)]).await.unwrap_err();
    assert!(matches!(error, LedgerError::Replaced), "{error:?}");
    ledger.commit(vec![claimed(102)]).await.unwrap();
    drop(ledger);
    let ids: Vec<u64> =
        backend.open(0).unsettled().await.unwrap().iter().map(|entry| entry.id.0).collect();
    assert_eq!(ids, [100, 102]);
}

#[tokio::test]
async fn while_another_program_writes_a_commit_is_refused_and_can_be_tried_again() {
    let backend = Sqlite::new();
    let ledger = backend.open(0);
    let other = rusqlite::Connection::open(backend.db()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = ledger.commit(vec![claimed(100)]).await.unwrap_err();
    assert!(matches!(error, LedgerError::Unavailable(_)), "{error:?}");
    drop(other);
    ledger.commit(vec![claimed(100)]).await.unwrap();
}

#[tokio::test]
async fn a_command_reads_while_the_service_writes() {
    let backend = Sqlite::new();
    let absent = SqliteLedger::open_read_only(backend.path()).unwrap_err();
    assert!(matches!(absent, OpenError::Absent { .. }), "{absent:?}");
    let ledger = backend.open(0);
    let reader = SqliteLedger::open_read_only(backend.path()).unwrap();
    assert_eq!(reader.id(), ledger.id());
    ledger.commit(whole(100, State::Failed)).await.unwrap();
    ledger.commit(vec![claimed(101)]).await.unwrap();
    let all = reader.list(&Query { limit: 10, ..Query::default() }).unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(reader.unsettled().unwrap().len(), 1);
    assert_eq!(reader.counts().unwrap(), ledger.counts().await.unwrap());
    assert_eq!(reader.history(FileId(100)).unwrap().unwrap().attempts.len(), 1);
    assert_eq!(reader.entry(FileId(102)).unwrap(), None);
    assert_eq!(reader.routes().unwrap(), []);
    let ids = ledger.reserve(FileId(1_000)).await.unwrap();
    for (id, reserved) in [(999, false), (ids.start, true), (ids.end - 1, true), (ids.end, false)] {
        assert_eq!(reader.has_reserved(FileId(id)).unwrap(), reserved, "{id}");
    }
    ledger.close();
    assert_eq!(reader.unsettled().unwrap().len(), 1);
    let reader = SqliteLedger::open_read_only(backend.path()).unwrap();
    assert_eq!(reader.unsettled().unwrap().len(), 1, "and after it has stopped");
}

#[tokio::test]
async fn an_end_leaves_nothing_in_the_wal() {
    let backend = Sqlite::new();
    let ledger = backend.open(0);
    ledger.commit(vec![claimed(100)]).await.unwrap();
    ledger.entry(FileId(100)).await.unwrap();
    ledger.close();
    assert!(!backend.path().join("ledger/ledger.db-wal").exists());
}

#[cfg(unix)]
#[test]
fn the_ledger_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let backend = Sqlite::new();
    drop(backend.open(0));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&backend.path().join("ledger")), 0o700);
    assert_eq!(mode(&backend.db()), 0o600);
}

#[test]
fn a_ledger_of_version_0_1_0_is_understood() {
    let backend = Sqlite::new();
    std::fs::create_dir(backend.path().join("ledger")).unwrap();
    shell(&backend, include_str!("../compat/0.1.0/ledger.sql"));
    drop(backend.open(0));
    let reader = SqliteLedger::open_read_only(backend.path()).unwrap();
    assert_eq!(reader.id().to_string(), "000102030405060708090a0b0c0d0e0f");
    let all = reader.list(&Query { limit: 100, ..Query::default() }).unwrap();
    let states: Vec<_> = all.iter().map(|entry| (entry.state, entry.settled)).collect();
    assert_eq!(
        states,
        [
            (State::Cancelled, true),
            (State::Missing, true),
            (State::Held, true),
            (State::Deferred, false),
            (State::Failed, true),
            (State::Sent, true),
            (State::Sending, false),
        ]
    );
    let sending = all.last().unwrap();
    let Step::Claimed(claim) = claimed(1_000_100) else { unreachable!() };
    assert_eq!(sending.source, claim.source);
    assert_eq!((sending.identity, sending.digest), (claim.identity, claim.digest));
    assert_eq!((sending.envelope.clone(), &sending.key), (claim.envelope, &claim.key));
    let deferred = reader.history(FileId(1_000_103)).unwrap().unwrap();
    assert_eq!(deferred.attempts.len(), 2);
    assert_eq!(deferred.remarks.len(), 1);
    assert_eq!(reader.routes().unwrap().len(), 1);
    assert_eq!(reader.counts().unwrap().len(), 1);
}

#[test]
fn a_second_instance_is_told_who_has_the_state_folder() {
    let state_dir = tempfile::tempdir().unwrap();
    let since = patchdrop::model::time::Wall(0);
    let lock = StateLock::take(state_dir.path(), since).unwrap();
    let error = StateLock::take(state_dir.path(), since).unwrap_err();
    let LockError::Held { owner, .. } = &error else { panic!("{error:?}") };
    assert!(owner.contains(&format!("pid {} on ", std::process::id())), "{owner}");
    assert!(owner.contains("since 1970-01-01T00:00:00.000Z"), "{owner}");
    assert!(error.to_string().contains(&state_dir.path().display().to_string()), "{error}");
    lock.release();
    StateLock::take(state_dir.path(), since).unwrap();
}
