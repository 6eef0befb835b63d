use std::time::Duration;

use super::*;
use crate::cli::fixture::{self, FakeLedger, START, file};
use crate::model::step::History;

use Here::{Nothing, Other, Same};

const LONG_AFTER: Wall = Wall(i64::MAX);

fn seen(source: Here, sending: Here, target: Here) -> Seen {
    Seen { source, sending, target, explained: true }
}

fn check(state: State, settled: bool, seen: Seen, expected: Finding) {
    let recorded = Recorded { state, settled, accepted: true, followed: false };
    assert_eq!(judge(recorded, seen), expected, "{recorded:?} {seen:?}");
}

#[test]
fn a_file_on_its_way_is_in_sending_and_nowhere_else() {
    for state in [State::Sending, State::Deferred] {
        check(state, false, seen(Nothing, Same, Nothing), Finding::InPlace);
        check(state, false, seen(Other, Same, Nothing), Finding::InPlace);
        check(state, false, seen(Same, Same, Nothing), Finding::Unfinished);
        check(state, false, seen(Same, Nothing, Nothing), Finding::Unfinished);
        let missing = Finding::Fault(Disagreement::Missing);
        check(state, false, seen(Nothing, Nothing, Nothing), missing);
        check(state, false, seen(Other, Nothing, Nothing), missing);
        let changed = Finding::Fault(Disagreement::Changed);
        check(state, false, seen(Nothing, Other, Nothing), changed);
    }
}

#[test]
fn a_decided_file_may_be_between_two_places_until_it_is_settled() {
    for state in [State::Sent, State::Failed, State::Held] {
        check(state, false, seen(Nothing, Same, Nothing), Finding::Unfinished);
        check(state, false, seen(Nothing, Same, Same), Finding::Unfinished);
        check(state, false, seen(Nothing, Nothing, Same), Finding::Unfinished);
        check(state, false, seen(Same, Nothing, Nothing), Finding::Unfinished);
        let missing = Finding::Fault(Disagreement::Missing);
        check(state, false, seen(Nothing, Nothing, Nothing), missing);
        let alone = Seen { explained: false, ..seen(Nothing, Nothing, Other) };
        check(state, false, alone, missing);
        let changed = Finding::Fault(Disagreement::Changed);
        check(state, false, seen(Nothing, Other, Same), changed);
        let said = if state == State::Sent { changed } else { Finding::Unfinished };
        check(state, false, seen(Nothing, Nothing, Other), said);
    }
}

#[test]
fn a_settled_file_is_at_its_target_and_not_in_sending() {
    for state in [State::Sent, State::Failed, State::Held] {
        check(state, true, seen(Nothing, Nothing, Same), Finding::InPlace);
        check(state, true, seen(Other, Nothing, Same), Finding::InPlace);
        let doubled = Finding::Fault(Disagreement::Doubled);
        check(state, true, seen(Nothing, Same, Same), doubled);
        check(state, true, seen(Nothing, Other, Same), doubled);
    }
    check(State::Sent, true, seen(Nothing, Nothing, Nothing), Finding::RemovedSince);
    let alone = Seen { explained: false, ..seen(Nothing, Nothing, Other) };
    check(State::Sent, true, alone, Finding::ChangedSince);
    let changed = Finding::Fault(Disagreement::Changed);
    check(State::Sent, true, seen(Nothing, Nothing, Other), changed);
    for state in [State::Failed, State::Held] {
        let missing = Finding::Fault(Disagreement::Missing);
        check(state, true, seen(Nothing, Nothing, Nothing), missing);
        check(state, true, seen(Same, Nothing, Nothing), Finding::MovedOn);
        check(state, true, seen(Nothing, Nothing, Other), Finding::InPlace);
    }
}

#[test]
fn sent_needs_an_acceptance_and_failed_and_held_an_explanation() {
    for settled in [true, false] {
        let recorded = Recorded { state: State::Sent, settled, accepted: false, followed: false };
        let finding = judge(recorded, seen(Nothing, Nothing, Same));
        assert_eq!(finding, Finding::Fault(Disagreement::NotAccepted));
    }
    for state in [State::Failed, State::Held] {
        let recorded = Recorded { state, settled: true, accepted: true, followed: false };
        for target in [Same, Other] {
            let bare = Seen { explained: false, ..seen(Nothing, Nothing, target) };
            assert_eq!(judge(recorded, bare), Finding::Fault(Disagreement::Unexplained));
        }
        let followed = Recorded { followed: true, ..recorded };
        let gone = Seen { explained: false, ..seen(Nothing, Nothing, Nothing) };
        assert_eq!(judge(followed, gone), Finding::MovedOn);
    }
}

#[test]
fn what_is_known_to_be_missing_or_cancelled_is_no_fault() {
    for here in [Nothing, Same, Other] {
        check(State::Missing, true, seen(here, here, here), Finding::MissedBefore);
        check(State::Cancelled, true, seen(here, here, here), Finding::Cancelled);
    }
}

struct Yard {
    root: tempfile::TempDir,
    config: Config,
    histories: Vec<History>,
}

impl Yard {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        Self { root, config, histories: Vec::new() }
    }

    /// A file on record that is where its record says.
    fn add(&mut self, id: u64, name: &str, state: State) -> &mut Entry {
        let mut history = file(&self.config, id, "orders", name, state);
        if !matches!(state, State::Missing | State::Cancelled) {
            history.entry = fixture::put_in_place(&self.config, &history.entry);
        }
        self.histories.push(history);
        &mut self.histories.last_mut().unwrap().entry
    }

    fn path(&self, rest: &str) -> PathBuf {
        self.root.path().join("orders").join(rest)
    }

    fn verify(&self) -> Report {
        let ledger = FakeLedger::of(self.histories.clone());
        verify(&self.config, &ledger, LONG_AFTER).unwrap()
    }

    fn text(&self) -> String {
        let report = self.verify();
        let (text, shown) = fixture::shown(|screen| render(&report, screen));
        shown.unwrap();
        text.replace(&self.root.path().display().to_string(), "ROOT")
    }
}

#[test]
fn a_sound_house_agrees() {
    let mut yard = Yard::new();
    yard.add(11, "a.json", State::Sent);
    yard.add(12, "b.json", State::Failed);
    yard.add(13, "c.json", State::Held);
    yard.add(14, "d.json", State::Deferred);
    yard.add(15, "e.json", State::Sending);
    yard.add(16, "f.json", State::Cancelled);
    let report = yard.verify();
    assert_eq!((report.on_record, report.in_place, report.cancelled), (6, 5, 1));
    assert_eq!(report.faults_total, 0, "{report:?}");
    let strays =
        report.foreign_in_sending + report.unrecorded_in_sent + report.unrecorded_in_failed;
    assert_eq!(strays + report.unrecorded_in_held, 0, "{report:?}");
}

#[test]
fn every_disagreement_is_named_with_its_place_and_remedy() {
    let mut yard = Yard::new();
    yard.add(11, "removed.json", State::Sent);
    yard.add(12, "unexplained.json", State::Failed);
    yard.add(13, "missing.json", State::Held);
    yard.add(14, "changed.json", State::Deferred);
    yard.add(15, "not-accepted.json", State::Sent).last_verdict = Some(Verdict::InDoubt);
    let attempt = yard.histories.last_mut().unwrap().attempts.last_mut().unwrap();
    attempt.end.as_mut().unwrap().verdict = Verdict::InDoubt;
    let doubled = yard.add(16, "doubled.json", State::Sent).clone();
    let old = yard.add(17, "old.json", State::Failed).id;
    yard.add(18, "old-again.json", State::Sent).previous = Some(old);

    fs::remove_file(yard.path("sent/removed.json")).unwrap();
    fs::remove_file(yard.path("failed/unexplained.json.why.txt")).unwrap();
    fs::remove_file(yard.path("held/missing.json")).unwrap();
    fs::write(yard.path(&format!("sending/{}~changed.json", FileId(14))), "other").unwrap();
    fixture::put(&yard.path(&format!("sending/{}~doubled.json", doubled.id)), &doubled);
    fs::remove_file(yard.path("failed/old.json")).unwrap();
    fs::write(yard.path(&format!("sending/{}~lost.json", FileId(999))), "x").unwrap();
    fs::write(yard.path(&format!("sending/{}~foreign.json", FileId(1 << 40))), "x").unwrap();
    fs::write(yard.path("sending/notes.txt"), "x").unwrap();
    fs::write(yard.path("sent/somebody's.json"), "x").unwrap();
    insta::assert_snapshot!(yard.text());
}

#[test]
fn a_person_s_word_and_an_earlier_delivery_count_as_acceptance() {
    let mut yard = Yard::new();
    let marked = yard.add(11, "marked.json", State::Sent);
    marked.last_verdict = Some(Verdict::InDoubt);
    marked.cause = Some(crate::model::outcome::Cause::new(
        crate::model::outcome::Code::of("marked-sent"),
        "a person found it in the shop",
    ));
    yard.add(12, "twice.json", State::Sent).last_verdict = Some(Verdict::NotSent);
    assert_eq!(yard.verify().faults_total, 0);
}

#[test]
fn what_came_after_the_verification_began_is_not_called_unrecorded() {
    let yard = Yard::new();
    fs::write(yard.path("sent/new.json"), "x").unwrap();
    let ledger = FakeLedger::of([]);
    let report = verify(&yard.config, &ledger, LONG_AFTER).unwrap();
    assert_eq!(report.unrecorded_in_sent, 1);
    let report = verify(&yard.config, &ledger, Wall(0)).unwrap();
    assert_eq!(report.unrecorded_in_sent, 0);
}

#[test]
fn a_copy_that_a_broken_move_left_beside_its_file_is_doubled() {
    let mut yard = Yard::new();
    let sent = yard.add(11, "a.json", State::Sent).clone();
    for name in ["a~2.json", "other.json"] {
        fixture::put(&yard.path(&format!("sent/{name}")), &sent);
    }
    let report = yard.verify();
    assert_eq!((report.faults_total, report.unrecorded_in_sent), (1, 1));
    assert_eq!(
        (report.faults[0].kind, &*report.faults[0].name),
        (Disagreement::Doubled, "a~2.json")
    );
    assert_eq!(report.in_place, 1);
}

#[test]
fn a_dated_target_stands_for_all_its_days() {
    let root = tempfile::tempdir().unwrap();
    for day in ["2026-11-20", "2026-11-21", "notes", "x2026-11-21"] {
        fs::create_dir_all(root.path().join("archive").join(day).join("sent")).unwrap();
    }
    let folders = dated_folders(&root.path().join("archive/{date}/sent"));
    let days = ["2026-11-20", "2026-11-21"];
    assert_eq!(folders, days.map(|day| root.path().join("archive").join(day).join("sent")));
    assert_eq!(dated_folders(Path::new("/x/sent")), [PathBuf::from("/x/sent")]);
}

#[test]
fn a_sidecar_with_a_shortened_name_is_recognised() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join(format!("{}.json", "ü".repeat(120)));
    assert!(!has_sidecar(&target, FileId(7)));
    let short = format!("{}~{}.why.txt", "ü".repeat(90), FileId(7));
    fs::write(root.path().join(short), "why").unwrap();
    assert!(has_sidecar(&target, FileId(7)));
}

#[test]
fn memory_for_many_files_is_pages_and_eight_bytes_each() {
    let root = tempfile::tempdir().unwrap();
    let config = fixture::config(root.path(), &["orders"]);
    let entries = (1..=5_000).map(|id| file(&config, id, "orders", "a.json", State::Sent));
    let ledger = FakeLedger::of(entries);
    let report = verify(&config, &ledger, START.plus(Duration::from_secs(1))).unwrap();
    assert_eq!((report.on_record, report.removed_since), (5_000, 5_000));
    assert_eq!(ledger.longest_page.get(), PAGE);
}
