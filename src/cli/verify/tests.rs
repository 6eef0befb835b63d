use std::ffi::OsStr;
use std::time::Duration;

use super::*;
use crate::cli::fixture::{self, FakeLedger, START, file};
use crate::model::step::History;

use Here::{Nothing, Other, Same};

const LONG_AFTER: Wall = Wall(i64::MAX);

fn seen(source: Here, sending: Here, target: Here) -> Seen {
    Seen { source, sending, target, explained: true }
}

const SOUND: Recorded = Recorded {
    state: State::Sent,
    settled: true,
    attempts: Attempts::Sound,
    followed: Followed::No,
    replaced: false,
};

fn check(state: State, settled: bool, seen: Seen, expected: Finding) {
    let recorded = Recorded { state, settled, ..SOUND };
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
        check(state, false, seen(Nothing, Nothing, Other), Finding::Unfinished);
        let changed = Finding::Fault(Disagreement::Changed);
        check(state, false, seen(Nothing, Other, Same), changed);
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
    let altered = Finding::Fault(Disagreement::Altered);
    let alone = || Seen { explained: false, ..seen(Nothing, Nothing, Other) };
    check(State::Sent, true, alone(), altered);
    let replaced = Recorded { replaced: true, ..SOUND };
    assert_eq!(judge(replaced, alone()), Finding::RemovedSince);
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
        let recorded = Recorded { settled, attempts: Attempts::NotAccepted, ..SOUND };
        let finding = judge(recorded, seen(Nothing, Nothing, Same));
        assert_eq!(finding, Finding::Fault(Disagreement::NotAccepted));
    }
    for state in [State::Failed, State::Held] {
        let recorded = Recorded { state, ..SOUND };
        for target in [Same, Other] {
            let bare = Seen { explained: false, ..seen(Nothing, Nothing, target) };
            assert_eq!(judge(recorded, bare), Finding::Fault(Disagreement::Unexplained));
        }
        let followed = Recorded { followed: Followed::Yes, ..recorded };
        let in_vain = Recorded { followed: Followed::InVain, ..recorded };
        for target in [Nothing, Other, Same] {
            let bare = Seen { explained: false, ..seen(Nothing, Nothing, target) };
            assert_eq!(judge(followed, bare), Finding::MovedOn, "{target:?}");
            let expected = match target {
                Same => Finding::Fault(Disagreement::Unexplained),
                Nothing | Other => Finding::MovedOn,
            };
            assert_eq!(judge(in_vain, bare), expected, "{target:?}");
        }
    }
}

#[test]
fn two_acceptances_and_an_attempt_without_an_end_are_faults() {
    for state in [State::Deferred, State::Confirming, State::Sent, State::Failed, State::Held] {
        let twice = Recorded { state, attempts: Attempts::AcceptedTwice, ..SOUND };
        let finding = judge(twice, seen(Nothing, Nothing, Same));
        assert_eq!(finding, Finding::Fault(Disagreement::AcceptedTwice));
    }
    for state in [State::Sent, State::Failed, State::Held] {
        let open = Recorded { state, attempts: Attempts::Open, ..SOUND };
        let at_its_end = seen(Nothing, Nothing, Same);
        assert_eq!(judge(open, at_its_end), Finding::Fault(Disagreement::Unended));
        let moving = Recorded { settled: false, ..open };
        assert_eq!(judge(moving, at_its_end), Finding::Unfinished);
    }
    let open =
        Recorded { state: State::Sending, settled: false, attempts: Attempts::Open, ..SOUND };
    assert_eq!(judge(open, seen(Nothing, Same, Nothing)), Finding::InPlace);
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
    has_lost: bool,
    whose: Whose,
    deep: bool,
}

impl Yard {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        let whose = Whose::Ours;
        Self { root, config, histories: Vec::new(), has_lost: false, whose, deep: false }
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
        let mut ledger = FakeLedger::of(self.histories.clone());
        ledger.has_lost = self.has_lost;
        ledger.whose = self.whose;
        verify(&self.config, &ledger, LONG_AFTER, self.deep).unwrap()
    }

    fn text(&self) -> String {
        let report = self.verify();
        let (text, shown) = fixture::shown(|screen| render(&report, screen));
        shown.unwrap();
        fixture::portable(&text, self.root.path())
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

fn kinds(report: &Report) -> Vec<(Disagreement, &str)> {
    report.faults.iter().map(|fault| (fault.kind, fault.name.as_str())).collect()
}

#[test]
fn a_file_that_lies_twice_at_its_end_is_told() {
    let mut yard = Yard::new();
    let sent = yard.add(11, "a.json", State::Sent).clone();
    let failed = yard.add(12, "b.json", State::Failed).clone();
    yard.add(13, "c~2.json", State::Sent);
    fixture::put(&yard.path("sent/a~2.json"), &sent);
    fixture::put(&yard.path(&format!("held/b~{}.json", failed.id)), &failed);
    // Strangers: another name, another time.
    fixture::put(&yard.path("sent/z.json"), &sent);
    fs::write(yard.path("sent/a~3.json"), "x").unwrap();
    let report = yard.verify();
    let doubled = Disagreement::Doubled;
    let second = format!("b~{}.json", failed.id);
    assert_eq!(kinds(&report), [(doubled, "a~2.json"), (doubled, second.as_str())]);
    assert_eq!(report.unrecorded_in_sent, 2);
}

#[test]
fn a_missing_file_that_lies_where_it_would_have_ended_is_counted_apart() {
    let mut yard = Yard::new();
    let missing = yard.add(11, "a.json", State::Missing).clone();
    fixture::put(&yard.path("sent/a.json"), &missing);
    let report = yard.verify();
    assert_eq!((report.found_again, report.unrecorded_in_sent, report.faults_total), (1, 0, 0));
}

#[test]
fn what_came_along_and_stayed_behind_is_told() {
    let mut yard = Yard::new();
    let sent = yard.add(11, "a.json", State::Sent).id;
    let going = yard.add(12, "b.json", State::Deferred).id;
    fs::write(yard.path(&format!("sending/{sent}~a.json.done")), "").unwrap();
    fs::write(yard.path(&format!("sending/{going}~b.json.done")), "").unwrap();
    fs::write(yard.path("sending/.patchdrop-1-2.part"), "").unwrap();
    fs::write(yard.path("sent/.patchdrop-1-3.part"), "").unwrap();
    fs::write(yard.path("failed/gone.json.why.txt"), "why").unwrap();
    let report = yard.verify();
    assert_eq!(kinds(&report), [(Disagreement::LeftBehind, &*format!("{sent}~a.json.done"))]);
    assert_eq!((report.half_written, report.sidecars_alone), (2, 1));
    assert_eq!(report.foreign_in_sending, 0);
}

#[test]
fn an_empty_sidecar_explains_nothing() {
    let mut yard = Yard::new();
    yard.add(11, "a.json", State::Failed);
    fs::write(yard.path("failed/a.json.why.txt"), "").unwrap();
    assert_eq!(kinds(&yard.verify()), [(Disagreement::Unexplained, "a.json")]);
}

#[test]
fn a_duplicate_is_accepted_only_if_the_file_that_it_names_is() {
    let mut yard = Yard::new();
    let first = yard.add(11, "first.json", State::Sent).id;
    let in_doubt = yard.add(12, "in-doubt.json", State::Held).id;
    let duplicate_of = |entry: &mut Entry, plain: String| {
        entry.last_verdict = None;
        entry.attempt = 0;
        let code = crate::model::outcome::Code::of("duplicate-of");
        entry.cause = Some(crate::model::outcome::Cause::new(code, plain));
        entry.id
    };
    let second = yard.add(13, "second.json", State::Sent);
    let second = duplicate_of(second, format!("the same bytes were accepted as {first}."));
    duplicate_of(yard.add(14, "third.json", State::Sent), format!("as file {second}, which"));
    duplicate_of(yard.add(15, "fourth.json", State::Sent), format!("as {in_doubt}"));
    duplicate_of(yard.add(16, "fifth.json", State::Sent), format!("as {}", FileId(99)));
    duplicate_of(yard.add(17, "sixth.json", State::Sent), "nobody knows of what".to_owned());
    for history in &mut yard.histories[2..] {
        history.attempts.clear();
    }
    let not_accepted = Disagreement::NotAccepted;
    let expected = ["sixth.json", "fifth.json", "fourth.json"].map(|name| (not_accepted, name));
    assert_eq!(kinds(&yard.verify()), expected);
}

#[test]
fn a_second_acceptance_is_found_among_the_attempts() {
    let mut yard = Yard::new();
    yard.add(11, "a.json", State::Sent).attempt = 2;
    let history = yard.histories.last_mut().unwrap();
    let mut again = history.attempts[0].clone();
    again.number = 2;
    history.attempts.push(again);
    assert_eq!(kinds(&yard.verify()), [(Disagreement::AcceptedTwice, "a.json")]);
}

#[test]
fn what_is_not_a_files_own_fault_fails_it_only_when_it_is_given_up() {
    let mut yard = Yard::new();
    let mut end = |id: u64, name: &str, verdict: Verdict, code: &'static str, after: Duration| {
        let entry = yard.add(id, name, State::Failed);
        entry.last_verdict = Some(verdict);
        let code = crate::model::outcome::Code::of(code);
        entry.cause = Some(crate::model::outcome::Cause::new(code, "no matter"));
        entry.decided_at = Some(entry.claimed_at.plus(after));
    };
    let hour = Duration::from_hours(1);
    let long = hour * 24 * 30;
    end(11, "own.json", Verdict::Rejected, "http-422", hour);
    end(12, "down.json", Verdict::Deferred, "http-503", long);
    end(13, "token.json", Verdict::TokenRefused, "http-401", long);
    end(14, "route.json", Verdict::RouteFault, "http-404", long);
    end(15, "again.json", Verdict::RouteFault, "refused-again", hour);
    end(16, "late.json", Verdict::Deferred, "gave-up", long);
    end(17, "soon.json", Verdict::Deferred, "gave-up", hour);
    end(18, "person.json", Verdict::Deferred, "marked-failed", hour);
    let report = yard.verify();
    let expected = ["route.json", "token.json", "down.json"];
    assert_eq!(kinds(&report), expected.map(|name| (Disagreement::NotItsFault, name)));
    assert_eq!(report.gave_up_sooner, 1);
}

fn digest_on_record(entry: &mut Entry, content: &[u8]) {
    use sha2::Digest as _;
    entry.digest = Some(Digest(sha2::Sha256::digest(content).into()));
}

#[test]
fn the_content_decides_where_the_time_has_changed_and_everywhere_if_it_is_asked_for() {
    let mut yard = Yard::new();
    let zeros = [0; 2_048];
    for (id, name) in [(11, "touched.json"), (12, "altered.json"), (13, "bad-block.json")] {
        digest_on_record(yard.add(id, name, State::Sent), &zeros);
    }
    let going = yard.add(14, "going.json", State::Deferred);
    digest_on_record(going, &[1; 2_048]);
    let later = std::time::SystemTime::now();
    for (name, content) in [("touched.json", [0; 2_048]), ("altered.json", [1; 2_048])] {
        fs::write(yard.path("sent").join(name), content).unwrap();
        let file = fs::File::options().write(true).open(yard.path("sent").join(name)).unwrap();
        file.set_modified(later).unwrap();
    }
    digest_on_record(&mut yard.histories[2].entry, &[2; 2_048]);
    let altered = Disagreement::Altered;
    assert_eq!(kinds(&yard.verify()), [(altered, "altered.json")]);
    yard.deep = true;
    let changed = Disagreement::Changed;
    let expected =
        [(changed, "going.json"), (altered, "bad-block.json"), (altered, "altered.json")];
    assert_eq!(kinds(&yard.verify()), expected);
}

#[test]
fn it_says_no_more_than_is_true() {
    let mut yard = Yard::new();
    yard.add(11, "a.json", State::Sent);
    assert!(yard.text().ends_with("Ledger and folders agree.\n"), "{}", yard.text());
    fs::remove_file(yard.path("sent/a.json")).unwrap();
    fs::write(yard.path("sent/b.json"), "x").unwrap();
    let text = yard.text();
    assert!(text.contains("taken out of sent/ by somebody: no fault"), "{text}");
    assert!(text.contains("do not take them for sent"), "{text}");
    assert!(!text.contains("agree"), "{text}");
    yard.has_lost = true;
    let text = yard.text();
    assert!(text.contains("1 file  sent, record lost"), "{text}");
    assert_eq!(yard.verify().faults_total, 0);
}

#[test]
fn what_another_ledger_knows_is_no_stranger_s() {
    let check = |whose, expected: Option<Disagreement>, word: &str| {
        let mut yard = Yard::new();
        fs::write(yard.path("sent/a.json"), "x").unwrap();
        yard.whose = whose;
        let report = yard.verify();
        let kinds: Vec<_> = report.faults.iter().map(|fault| fault.kind).collect();
        assert_eq!(kinds, expected.into_iter().collect::<Vec<_>>(), "{whose:?}");
        let text = yard.text();
        assert!(text.contains(word), "{whose:?}: {text}");
        assert_eq!(text.contains("No fault"), expected.is_none(), "{whose:?}: {text}");
    };
    let (lost, stranger) = ("1 file  sent, record lost", "1 file  in sent/ without a record");
    check(Whose::Ours, None, stranger);
    check(Whose::Nobodys, None, stranger);
    check(Whose::Anothers, Some(Disagreement::OtherLedger), lost);
    check(Whose::Later, Some(Disagreement::OlderCopy), lost);
    check(Whose::Unmarked, Some(Disagreement::Unmarked), stranger);
}

#[test]
fn a_file_that_was_taken_up_again_and_failed_under_the_same_name_is_judged_once() {
    let mut yard = Yard::new();
    let name = format!("{}.json", "x".repeat(248));
    // Both texts beside it are under ids: the name is too long for one of its own.
    for (id, previous) in [(11, None), (12, Some(FileId(11)))] {
        let mut history = file(&yard.config, id, "orders", &name, State::Failed);
        history.entry.previous = previous;
        fixture::put(&yard.path(&format!("failed/{name}")), &history.entry);
        yard.histories.push(history);
    }
    let sidecar = settle::beside(OsStr::new(&name), FileId(12), settle::WHY);
    fs::write(yard.path("failed").join(sidecar), "why").unwrap();
    let report = yard.verify();
    assert_eq!(kinds(&report), []);
    assert_eq!((report.in_place, report.moved_on), (1, 1));
}

#[test]
fn a_name_that_is_too_long_for_sending_is_found_where_it_was_cut() {
    let mut yard = Yard::new();
    let name = format!("{}.json", "x".repeat(250));
    let mut history = file(&yard.config, 11, "orders", &name, State::Deferred);
    let claimed = yard.path("sending").join(settle::claimed_name(FileId(11), OsStr::new(&name)));
    fixture::put(&claimed, &history.entry);
    history.entry.identity = identity_of(&claimed).unwrap().unwrap();
    yard.histories.push(history);
    let report = yard.verify();
    assert_eq!(kinds(&report), []);
    assert_eq!(report.in_place, 1);
}

#[cfg(unix)]
#[test]
fn the_text_beside_a_long_name_that_is_no_utf8_is_recognised() {
    use std::os::unix::ffi::OsStrExt as _;
    let root = tempfile::tempdir().unwrap();
    let name = [&[0xff; 245][..], b".json"].concat();
    let target = root.path().join(OsStr::from_bytes(&name));
    let sidecar = settle::beside(OsStr::from_bytes(&name), FileId(7), settle::WHY);
    assert!(!has_sidecar(&target, FileId(7)));
    fs::write(root.path().join(sidecar), "why").unwrap();
    assert!(has_sidecar(&target, FileId(7)));
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
    let report = verify(&yard.config, &ledger, LONG_AFTER, false).unwrap();
    assert_eq!(report.unrecorded_in_sent, 1);
    let report = verify(&yard.config, &ledger, Wall(0), false).unwrap();
    assert_eq!(report.unrecorded_in_sent, 0);
}

#[test]
fn a_dated_target_stands_for_all_its_days() {
    let root = tempfile::tempdir().unwrap();
    for day in ["2026-11-20", "2026-11-21", "notes", "x2026-11-21"] {
        fs::create_dir_all(root.path().join("archive").join(day).join("sent")).unwrap();
    }
    let folders = listing::dated_folders(&root.path().join("archive/{date}/sent"));
    let days = ["2026-11-20", "2026-11-21"];
    assert_eq!(folders, days.map(|day| root.path().join("archive").join(day).join("sent")));
    assert_eq!(listing::dated_folders(Path::new("/x/sent")), [PathBuf::from("/x/sent")]);
}

#[test]
fn a_sidecar_with_a_shortened_name_is_recognised() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join(format!("{}.json", "ü".repeat(122)));
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
    let report = verify(&config, &ledger, START.plus(Duration::from_secs(1)), false).unwrap();
    assert_eq!((report.on_record, report.removed_since), (5_000, 5_000));
    assert_eq!(ledger.longest_page.get(), PAGE);
}

#[test]
fn a_root_that_was_moved_is_said_once_and_each_file_found() {
    let mut yard = Yard::new();
    let old: Arc<Path> = Arc::from(Path::new("/nowhere/any/more"));
    for (id, name, state) in
        [(11, "a.json", State::Sent), (12, "b.json", State::Failed), (13, "c.json", State::Held)]
    {
        let entry = yard.add(id, name, state);
        entry.target = Some(Place::new(&old, name));
        entry.source = Place::new(&old, name);
    }
    // One that was taken out of sent/ before.
    yard.add(14, "d.json", State::Sent).target = Some(Place::new(&old, "d.json"));
    fs::remove_file(yard.path("sent/d.json")).unwrap();
    let report = yard.verify();
    assert_eq!(kinds(&report), []);
    assert_eq!((report.in_place, report.removed_since, report.found_elsewhere), (3, 1, 3));
    assert_eq!(report.unrecorded_in_sent, 0);
    let text = yard.text();
    assert_eq!(text.matches("the root was moved").count(), 1, "{text}");
}

#[cfg(unix)]
#[test]
fn a_sidecar_beside_a_file_whose_name_is_not_utf8_is_not_alone() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let yard = Yard::new();
    let failed = yard.path("failed");
    fs::write(failed.join(OsStr::from_bytes(b"M\xfcller.json")), "{}").unwrap();
    fs::write(failed.join(OsStr::from_bytes(b"M\xfcller.json.why.txt")), "why").unwrap();
    fs::write(failed.join(OsStr::from_bytes(b"M\xe4rz.json.why.txt")), "why").unwrap();
    let report = yard.verify();
    assert_eq!((report.sidecars_alone, report.unrecorded_in_failed), (1, 1));
}
