//! What every ledger must do, whatever it is kept in.

use std::collections::BTreeMap;
use std::time::Duration;

use patchdrop::model::file::FileId;
use patchdrop::model::outcome::{Cause, Code};
use patchdrop::model::route::RouteName;
use patchdrop::model::step::{
    Attempt, Claim, Conversion, Entry, Intent, Remark, RouteRecord, State, Step, Verdict, Wrap,
};
use patchdrop::model::time::Wall;
use patchdrop::world::ledger::{Count, Ledger, LedgerError, Query};

use crate::words::*;

/// A kind of ledger, over a folder of its own.
pub(crate) trait Backend {
    type Ledger: Ledger;

    fn new() -> Self;

    /// Opens it; `load` says how many files are on their way.
    fn open(&self, load: usize) -> Self::Ledger;
}

/// One `#[test]` for each claim of the suite, for one backend.
macro_rules! conformance {
    ($backend:ty: $($claim:ident)*) => {
        $(
            #[tokio::test]
            async fn $claim() {
                crate::suite::$claim::<$backend>().await;
            }
        )*
    };
}
pub(crate) use conformance;

async fn record<L: Ledger>(ledger: &L, steps: Vec<Step>) {
    ledger.commit(steps).await.unwrap();
}

async fn entry<L: Ledger>(ledger: &L, id: u64) -> Entry {
    ledger.entry(FileId(id)).await.unwrap().unwrap()
}

/// What a claim alone folds to.
fn fresh(claim: Claim) -> Entry {
    let refused = match claim.intent {
        Intent::Attempt => None,
        Intent::Refuse { cause, target } => Some((cause.for_the_record(), target)),
        Intent::Found { .. } => unreachable!("no fresh claim is one that was found"),
    };
    let (cause, target) = refused.clone().unzip();
    Entry {
        id: claim.id,
        route: claim.route,
        name: claim.name,
        source: claim.source,
        marker: claim.marker,
        identity: claim.identity,
        digest: claim.digest,
        envelope: claim.envelope,
        key: claim.key,
        previous: claim.previous,
        claimed_at: claim.at,
        state: if refused.is_some() { State::Failed } else { State::Sending },
        settled: false,
        cause,
        target,
        decided_at: refused.as_ref().map(|_| claim.at),
        attempt: u32::from(refused.is_none()),
        attempt_open_since: refused.is_none().then_some(claim.at),
        last_verdict: None,
        run: None,
        confirming_since: None,
        unspent_since: None,
        due_at: None,
        waited_for: Duration::ZERO,
    }
}

fn end_cause() -> Cause {
    Cause::new(Code::http(503), "the server answered 503")
}

pub(crate) async fn a_claimed_file_is_sending_with_attempt_1_open<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, vec![claimed(100)]).await;
    assert_eq!(entry(&ledger, 100).await, fresh(claim(100)));
    assert_eq!(ledger.entry(FileId(101)).await.unwrap(), None);
    assert_eq!(ledger.entry(FileId(u64::MAX)).await.unwrap(), None);
}

pub(crate) async fn a_refused_file_is_failed_without_attempt_and_without_excerpt<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, vec![refused(100)]).await;
    let Step::Claimed(claim) = refused(100) else { unreachable!() };
    assert_eq!(entry(&ledger, 100).await, fresh(*claim));
    assert_eq!(ledger.history(FileId(100)).await.unwrap().unwrap().attempts, []);
}

pub(crate) async fn a_file_found_without_a_record_is_held_in_doubt_without_an_attempt<
    B: Backend,
>() {
    let backend = B::new();
    let ledger = backend.open(0);
    let mut claim = claim(100);
    let cause = Cause::new(Code::of("record-lost"), "nobody knows");
    claim.intent = Intent::Found { cause, target: place("/srv/orders/held", "a.json") };
    record(&ledger, vec![Step::Claimed(Box::new(claim.clone()))]).await;
    let found = entry(&ledger, 100).await;
    assert_eq!(found, Entry::of(&claim));
    assert_eq!((found.state, found.attempt), (State::Held, 0));
    assert_eq!(found.last_verdict, Some(Verdict::InDoubt));
    let history = ledger.history(FileId(100)).await.unwrap().unwrap();
    assert_eq!(history.attempts, [], "no attempt is made up");
    record(&ledger, vec![Step::Settled { id: FileId(100) }]).await;
    let (source, identity, at) = (claim.source, claim.identity, Wall(900));
    record(&ledger, vec![Step::Released { id: FileId(100), source, identity, at }]).await;
    record(&ledger, vec![Step::AttemptBegun { id: FileId(100), attempt: 1, at }]).await;
    let released = entry(&ledger, 100).await;
    assert_eq!((released.state, released.attempt), (State::Sending, 1));
    assert_eq!(released.key, claim.key);
}

pub(crate) async fn every_part_of_a_claim_comes_back<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    let bare = Claim { digest: None, envelope: None, ..claim(100) };
    let full = Claim {
        marker: Some("101.json.done".into()),
        previous: Some(FileId(100)),
        key: "key of another".to_owned(),
        ..claim(101)
    };
    let mut plain = claim(102);
    let envelope = plain.envelope.as_mut().unwrap();
    envelope.conversion = None;
    envelope.remarks.clear();
    let mut wrapped = claim(103);
    wrapped.envelope.as_mut().unwrap().wrap = Some(Wrap::Payload);
    let mut both = claim(104);
    let envelope = both.envelope.as_mut().unwrap();
    (envelope.conversion, envelope.wrap) = (Some(Conversion::Utf16Le), Some(Wrap::Payload));
    wrapped.envelope.as_mut().unwrap().conversion = None;
    for claim in [bare, full, plain, wrapped, both] {
        record(&ledger, vec![Step::Claimed(Box::new(claim.clone()))]).await;
        assert_eq!(entry(&ledger, claim.id.0).await, fresh(claim));
    }
}

pub(crate) async fn any_name_comes_back_exactly<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    let mut names: Vec<std::ffi::OsString> = [
        "a\nb.json",
        "ü.json",
        "u\u{308}.json",
        "'; DROP TABLE file",
        "1",
        "x".repeat(255).as_str(),
    ]
    .map(Into::into)
    .into();
    #[cfg(unix)]
    names.extend([
        std::os::unix::ffi::OsStringExt::from_vec(b"\xff\xfe\x80.json".to_vec()),
        std::os::unix::ffi::OsStringExt::from_vec(b"\xffb".to_vec()),
    ]);
    #[cfg(windows)]
    names.push(std::os::windows::ffi::OsStringExt::from_wide(&[0xd800, 0x61]));
    for (id, name) in (100..).zip(names) {
        let mut claim = claim(id);
        claim.source.folder = std::path::Path::new("/srv").join(&name).into();
        claim.source.name.clone_from(&name);
        claim.marker = Some(name.clone());
        claim.name.clone_from(&name);
        record(&ledger, vec![Step::Claimed(Box::new(claim.clone()))]).await;
        assert_eq!(entry(&ledger, id).await, fresh(claim));
        let query = Query { name: Some(name), limit: 10, ..Query::default() };
        let found = ledger.list(query).await.unwrap();
        assert_eq!(found.iter().map(|entry| entry.id.0).collect::<Vec<_>>(), [id]);
    }
}

pub(crate) async fn an_ended_attempt_parks_the_file_until_the_next_begins<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, vec![claimed(100)]).await;
    record(&ledger, vec![ended(100, 1, Verdict::Deferred, 200)]).await;
    let parked = Entry {
        state: State::Deferred,
        cause: Some(end_cause()),
        attempt_open_since: None,
        last_verdict: Some(Verdict::Deferred),
        due_at: Some(Wall(1_200)),
        waited_for: Duration::from_millis(1_500),
        ..fresh(claim(100))
    };
    assert_eq!(entry(&ledger, 100).await, parked);
    record(&ledger, vec![begun(100, 2, 300)]).await;
    let again = Entry {
        state: State::Sending,
        attempt: 2,
        attempt_open_since: Some(Wall(300)),
        due_at: None,
        ..parked
    };
    assert_eq!(entry(&ledger, 100).await, again);
}

pub(crate) async fn a_file_is_unspent_since_the_first_route_fault_until_it_is_decided<
    B: Backend,
>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, vec![claimed(100), ended(100, 1, Verdict::Deferred, 200)]).await;
    assert_eq!(entry(&ledger, 100).await.unspent_since, None);
    record(&ledger, vec![begun(100, 2, 300), ended(100, 2, Verdict::RouteFault, 400)]).await;
    record(&ledger, vec![begun(100, 3, 500), ended(100, 3, Verdict::RouteFault, 600)]).await;
    record(&ledger, vec![begun(100, 4, 700), ended(100, 4, Verdict::Deferred, 800)]).await;
    assert_eq!(entry(&ledger, 100).await.unspent_since, Some(Wall(400)));
    record(&ledger, vec![decided(100, None, State::Failed, 900)]).await;
    assert_eq!(entry(&ledger, 100).await.unspent_since, None);
}

pub(crate) async fn a_decision_closes_its_attempt_and_keeps_no_excerpt<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, vec![claimed(100)]).await;
    record(&ledger, vec![delivered(100, 200)]).await;
    let sent = Entry {
        state: State::Sent,
        cause: Some(cause("http-200")),
        target: Some(place("/srv/drop/orders/sent", "100.json")),
        decided_at: Some(Wall(200)),
        attempt_open_since: None,
        last_verdict: Some(Verdict::Delivered),
        ..fresh(claim(100))
    };
    assert_eq!(entry(&ledger, 100).await, sent);
    assert_eq!(ledger.unsettled().await.unwrap(), std::slice::from_ref(&sent));

    let target = place("/srv/drop/orders/sent", "100~2.json");
    record(&ledger, vec![Step::Retargeted { id: FileId(100), target: target.clone() }]).await;
    let sent = Entry { target: Some(target), ..sent };
    assert_eq!(entry(&ledger, 100).await, sent);

    record(&ledger, vec![settled(100)]).await;
    record(&ledger, vec![settled(100)]).await;
    assert_eq!(entry(&ledger, 100).await, Entry { settled: true, ..sent });
    assert_eq!(ledger.unsettled().await.unwrap(), []);
}

pub(crate) async fn a_decision_without_attempt_leaves_the_attempts_alone<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, vec![claimed(100), ended(100, 1, Verdict::InDoubt, 200)]).await;
    record(&ledger, vec![decided(100, None, State::Held, 300)]).await;
    let held = entry(&ledger, 100).await;
    assert_eq!(held.last_verdict, Some(Verdict::InDoubt));
    assert_eq!((held.state, held.due_at), (State::Held, None));
}

pub(crate) async fn cancelled_and_missing_files_are_settled_at_once<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, vec![claimed(100), claimed(101), refused(102)]).await;
    let (why, at) = (cause("swapped"), Wall(200));
    for id in [100, 102] {
        record(&ledger, vec![Step::Cancelled { id: FileId(id), cause: why.clone(), at }]).await;
    }
    record(&ledger, vec![Step::Missing { id: FileId(101), cause: why.clone(), at }]).await;
    for (id, state) in [(100, State::Cancelled), (101, State::Missing), (102, State::Cancelled)] {
        let entry = entry(&ledger, id).await;
        assert_eq!((entry.state, entry.settled, entry.cause), (state, true, Some(why.clone())));
    }
    assert_eq!(ledger.unsettled().await.unwrap(), []);
}

pub(crate) async fn a_released_file_is_due_at_once_and_remembers_why_it_was_held<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, vec![claimed(100), ended(100, 1, Verdict::InDoubt, 150)]).await;
    record(&ledger, vec![decided(100, None, State::Held, 200), settled(100)]).await;
    let source = place("/srv/drop/orders/held", "100.json");
    let (id, at) = (FileId(100), Wall(500));
    let released = Step::Released { id, source: source.clone(), identity: identity(4), at };
    record(&ledger, vec![released]).await;
    let expected = Entry {
        state: State::Deferred,
        source,
        identity: identity(4),
        attempt_open_since: None,
        last_verdict: Some(Verdict::InDoubt),
        due_at: Some(at),
        ..fresh(claim(100))
    };
    assert_eq!(entry(&ledger, 100).await, expected);
    let remarks = ledger.history(id).await.unwrap().unwrap().remarks;
    let [remark] = &remarks[..] else { panic!("{remarks:?}") };
    assert_eq!(remark.at, at);
    for part in ["released", "held", "http-200: plain words about http-200", "/held/100.json"] {
        let text = remark.text.replace('\\', "/");
        assert!(text.contains(part), "{part} is not in {text}");
    }
    record(&ledger, vec![begun(100, 2, 600), ended(100, 2, Verdict::Deferred, 700)]).await;
}

pub(crate) async fn an_accepted_file_is_confirming_and_never_attempted_again<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, vec![claimed(100), accepted(100, true, 200)]).await;
    let confirming = Entry {
        state: State::Confirming,
        attempt_open_since: None,
        last_verdict: Some(Verdict::Delivered),
        run: Some("31".to_owned()),
        confirming_since: Some(Wall(200)),
        due_at: Some(Wall(30_200)),
        ..fresh(claim(100))
    };
    assert_eq!(entry(&ledger, 100).await, confirming);
    let check_refused = async |step: Step| {
        let refused = ledger.commit(vec![step]).await;
        assert!(matches!(refused, Err(LedgerError::Impossible { .. })), "{refused:?}");
    };
    check_refused(begun(100, 2, 300)).await;
    check_refused(Step::Cancelled { id: FileId(100), cause: end_cause(), at: Wall(300) }).await;
    // A person lets a held one go: its run is asked for again, from then on.
    record(&ledger, vec![decided(100, None, State::Held, 400), settled(100)]).await;
    let released = Step::Released {
        id: FileId(100),
        source: place("/srv/drop/orders/held", "100.json"),
        identity: identity(4),
        at: Wall(500),
    };
    record(&ledger, vec![released]).await;
    let again = entry(&ledger, 100).await;
    assert_eq!(again.state, State::Confirming);
    assert_eq!(again.confirming_since, Some(Wall(500)));
    check_refused(begun(100, 2, 600)).await;
}

pub(crate) async fn a_run_is_known_as_that_of_its_file<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, vec![claimed(100), claimed(101), accepted(101, true, 200)]).await;
    let runs = ["30", "31", "32"].map(str::to_owned).to_vec();
    let found = ledger.files_of_runs(runs).await.unwrap();
    assert_eq!(found, BTreeMap::from([("31".to_owned(), FileId(101))]));
    assert_eq!(ledger.files_of_runs(Vec::new()).await.unwrap(), BTreeMap::new());
}

pub(crate) async fn attempts_of_a_span_are_found_by_route_and_time<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    let elsewhere = Claim { route: RouteName::new("stock"), ..claim(103) };
    record(
        &ledger,
        vec![
            claimed(100),
            ended(100, 1, Verdict::Deferred, 200),
            claimed(101),
            claimed(102),
            ended(102, 1, Verdict::NotSent, 300),
            Step::Claimed(Box::new(elsewhere)),
            begun(100, 2, 900),
        ],
    )
    .await;
    let check = async |routes: &[&str], from: i64, to: i64, expected: &[u64]| {
        let routes = routes.iter().map(|name| RouteName::new(name)).collect();
        let found = ledger.attempted_between(routes, Wall(from), Wall(to)).await.unwrap();
        let found: Vec<u64> = found.into_iter().map(|id| id.0).collect();
        assert_eq!(found, expected, "{from} to {to}");
    };
    // Attempt 1 of file 101 is still open; that of 102 was never sent.
    check(&["orders"], 0, 1_000, &[100, 101]).await;
    check(&["orders"], 201, 899, &[101]).await;
    check(&["orders"], 200, 899, &[100, 101]).await;
    check(&["orders"], 0, 99, &[]).await;
    check(&["orders", "stock"], 0, 1_000, &[100, 101, 103]).await;
    check(&[], 0, 1_000, &[]).await;
}

pub(crate) async fn what_is_read_back_is_what_the_model_makes_of_the_steps<B: Backend>() {
    let released = |id: u64, at: i64| Step::Released {
        id: FileId(id),
        source: place("/srv/drop/orders/held", "x.json"),
        identity: identity(4),
        at: Wall(at),
    };
    let missing =
        |id: u64, at: i64| Step::Missing { id: FileId(id), cause: cause("missing"), at: Wall(at) };
    let cancelled = |id: u64, at: i64| Step::Cancelled {
        id: FileId(id),
        cause: cause("vanished"),
        at: Wall(at),
    };
    let stories = [
        vec![ended(100, 1, Verdict::RouteFault, 200), begun(100, 2, 300)],
        vec![ended(100, 1, Verdict::RouteFault, 200), decided(100, None, State::Failed, 300)],
        vec![ended(100, 1, Verdict::InDoubt, 200), accepted(100, false, 300)],
        vec![accepted(100, true, 200), decided(100, None, State::Sent, 300), settled(100)],
        vec![
            accepted(100, true, 200),
            decided(100, None, State::Held, 300),
            settled(100),
            released(100, 400),
        ],
        vec![
            decided(100, Some((1, Verdict::InDoubt)), State::Held, 300),
            settled(100),
            released(100, 400),
            begun(100, 2, 500),
        ],
        vec![missing(100, 300)],
        vec![cancelled(100, 300)],
    ];
    for story in stories {
        let backend = B::new();
        let ledger = backend.open(0);
        let mut expected = Entry::of(&claim(100));
        record(&ledger, vec![claimed(100)]).await;
        for step in &story {
            record(&ledger, vec![step.clone()]).await;
            expected.apply(step);
        }
        expected.cause = expected.cause.map(|cause| cause.for_the_record());
        assert_eq!(entry(&ledger, 100).await, expected, "{story:?}");
    }
}

pub(crate) async fn a_person_may_decide_a_settled_file_anew<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, whole(100, State::Held)).await;
    record(&ledger, vec![decided(100, None, State::Sent, 500)]).await;
    let sent = entry(&ledger, 100).await;
    assert_eq!((sent.state, sent.settled), (State::Sent, false));
    record(&ledger, vec![settled(100)]).await;
    let counts = ledger.counts().await.unwrap();
    assert_eq!(
        counts,
        [Count {
            route: "orders".into(),
            states: BTreeMap::from([("sent", 1)]),
            ..Count::default()
        }]
    );
}

pub(crate) async fn a_history_has_all_attempts_and_remarks_in_order<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    let id = FileId(100);
    record(&ledger, vec![claimed(100), ended(100, 1, Verdict::NotSent, 200)]).await;
    record(&ledger, vec![Step::Noted { id, at: Wall(250), text: "first".to_owned() }]).await;
    record(&ledger, vec![begun(100, 2, 300)]).await;
    record(&ledger, vec![Step::Noted { id, at: Wall(240), text: "second".to_owned() }]).await;
    let history = ledger.history(id).await.unwrap().unwrap();
    let first = Attempt {
        number: 1,
        begun_at: Wall(100),
        ended_at: Some(Wall(200)),
        end: Some(end(Verdict::NotSent)),
    };
    let second = Attempt { number: 2, begun_at: Wall(300), ended_at: None, end: None };
    assert_eq!(history.attempts, [first, second]);
    let remark = |at, text: &str| Remark { at: Wall(at), text: text.to_owned() };
    assert_eq!(history.remarks, [remark(250, "first"), remark(240, "second")]);
    assert_eq!(history.entry, entry(&ledger, 100).await);
    assert_eq!(ledger.history(FileId(101)).await.unwrap(), None);
}

/// `before` is possible, `step` then is not, and it changes nothing, nor does what came with it.
async fn check_impossible<B: Backend>(before: Vec<Step>, step: Step) {
    let backend = B::new();
    let ledger = backend.open(0);
    if !before.is_empty() {
        record(&ledger, before).await;
    }
    let query = Query { limit: 10, ..Query::default() };
    let standing = ledger.list(query.clone()).await.unwrap();
    let said = format!("{step:?}");
    let error = ledger.commit(vec![claimed(999), step]).await.unwrap_err();
    let LedgerError::Impossible { id, .. } = error else { panic!("{said}: {error:?}") };
    assert_ne!(id, FileId(999), "{said}");
    assert_eq!(ledger.list(query).await.unwrap(), standing, "{said}");
}

pub(crate) async fn an_impossible_step_fails_with_all_of_its_commit<B: Backend>() {
    let id = FileId(100);
    let target = place("/t", "n");
    let on_its_way = || vec![claimed(100)];
    let is_sent = || vec![claimed(100), delivered(100, 200)];
    let (at, why) = (Wall(300), cause("gone"));
    let release = || Step::Released { id, source: target.clone(), identity: identity(1), at };
    check_impossible::<B>(vec![], settled(100)).await;
    check_impossible::<B>(vec![], begun(100, 1, 1)).await;
    check_impossible::<B>(vec![], Step::Noted { id, at, text: String::new() }).await;
    check_impossible::<B>(on_its_way(), claimed(100)).await;
    check_impossible::<B>(on_its_way(), begun(100, 1, 1)).await;
    check_impossible::<B>(on_its_way(), ended(100, 2, Verdict::Deferred, 1)).await;
    check_impossible::<B>(on_its_way(), settled(100)).await;
    check_impossible::<B>(on_its_way(), decided(100, None, State::Deferred, 1)).await;
    let unknown = decided(100, Some((2, Verdict::Delivered)), State::Sent, 1);
    check_impossible::<B>(on_its_way(), unknown).await;
    check_impossible::<B>(on_its_way(), Step::Retargeted { id, target: target.clone() }).await;
    check_impossible::<B>(on_its_way(), release()).await;
    check_impossible::<B>(is_sent(), begun(100, 2, 300)).await;
    check_impossible::<B>(is_sent(), ended(100, 1, Verdict::Deferred, 300)).await;
    check_impossible::<B>(is_sent(), decided(100, None, State::Failed, 300)).await;
    check_impossible::<B>(is_sent(), Step::Cancelled { id, cause: why, at }).await;
    check_impossible::<B>(whole(100, State::Sent), release()).await;
    let cancelled = vec![claimed(100), Step::Cancelled { id, cause: cause("swapped"), at }];
    check_impossible::<B>(cancelled, release()).await;
    check_impossible::<B>(whole(100, State::Failed), begun(100, 2, 300)).await;
    let huge = Claim { id: FileId(u64::MAX), ..claim(1) };
    check_impossible::<B>(vec![], Step::Claimed(Box::new(huge))).await;
}

pub(crate) async fn an_impossible_commit_does_not_hurt_those_beside_it<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(80);
    let commits = (100..120).map(|id| {
        // Every fifth also claims an id that its neighbour claims.
        let steps = if id % 5 == 0 { vec![claimed(id), settled(500)] } else { vec![claimed(id)] };
        ledger.commit(steps)
    });
    let answers = futures_util::future::join_all(commits).await;
    for (id, answer) in (100..120).zip(answers) {
        let found = ledger.entry(FileId(id)).await.unwrap();
        assert_eq!(answer.is_ok(), id % 5 != 0, "{id}: {answer:?}");
        assert_eq!(found.is_some(), id % 5 != 0, "{id}");
    }
    let on_record = BTreeMap::from([("sending", 16)]);
    assert_eq!(ledger.counts().await.unwrap()[0].states, on_record);
}

pub(crate) async fn what_was_answered_is_there_after_a_reopen<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, vec![claimed(100), delivered(100, 200)]).await;
    ledger.append(vec![settled(100)]);
    record(&ledger, vec![claimed(101)]).await;
    drop(ledger);
    let ledger = backend.open(0);
    assert!(entry(&ledger, 100).await.settled);
    assert_eq!(entry(&ledger, 101).await, fresh(claim(101)));
}

pub(crate) async fn what_was_appended_is_there_after_a_close<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, vec![claimed(100), delivered(100, 200)]).await;
    ledger.append(vec![settled(100)]);
    ledger.append(vec![settled(777)]);
    drop(ledger);
    let ledger = backend.open(0);
    assert!(entry(&ledger, 100).await.settled, "an impossible one does not take it along");
}

pub(crate) async fn what_was_appended_needs_no_company<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, vec![claimed(100), delivered(100, 200)]).await;
    ledger.append(vec![settled(100)]);
    let comes = async { while !entry(&ledger, 100).await.settled {} };
    tokio::time::timeout(Duration::from_mins(1), comes).await.expect("it comes by itself");
}

pub(crate) async fn an_empty_commit_brings_what_was_appended<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    for id in 100..120 {
        record(&ledger, vec![claimed(id), delivered(id, 200)]).await;
        ledger.append(vec![settled(id)]);
        record(&ledger, Vec::new()).await;
        assert!(entry(&ledger, id).await.settled, "{id}");
    }
}

pub(crate) async fn what_was_taken_up_again_is_no_longer_counted_as_failed<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, whole(100, State::Failed)).await;
    record(&ledger, whole(101, State::Failed)).await;
    record(&ledger, whole(102, State::Held)).await;
    record(&ledger, whole(103, State::Failed)).await;
    let again = |id, previous| {
        let claim = Claim { previous: Some(FileId(previous)), ..claim(id) };
        vec![Step::Claimed(Box::new(claim))]
    };
    record(&ledger, again(110, 100)).await;
    record(&ledger, again(111, 100)).await;
    record(&ledger, again(112, 102)).await;
    record(&ledger, again(113, 103)).await;
    let cancelled =
        Step::Cancelled { id: FileId(113), cause: cause("claim-undone"), at: Wall(500) };
    record(&ledger, vec![cancelled]).await;
    let states = [("cancelled", 1), ("failed", 2), ("resent", 2), ("sending", 3)];
    let states = BTreeMap::from(states);
    let expected = Count { route: "orders".to_owned(), states, ..Count::default() };
    assert_eq!(ledger.counts().await.unwrap(), [expected]);
}

pub(crate) async fn unsettled_files_come_oldest_first<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    for id in [105, 101, 103] {
        record(&ledger, vec![claimed(id)]).await;
    }
    record(&ledger, whole(102, State::Failed)).await;
    let ids: Vec<u64> = ledger.unsettled().await.unwrap().iter().map(|entry| entry.id.0).collect();
    assert_eq!(ids, [101, 103, 105]);
}

pub(crate) async fn ids_come_in_blocks_that_only_grow<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    assert!(!ledger.has_reserved(FileId(0)));
    let first = ledger.reserve(FileId(1_000)).await.unwrap();
    assert_eq!(first, 1_000..11_000);
    assert_eq!(ledger.reserve(FileId(5)).await.unwrap(), 11_000..21_000);
    drop(ledger);
    let ledger = backend.open(0);
    assert_eq!(ledger.reserve(FileId(50_000)).await.unwrap(), 50_000..60_000);
    for (id, reserved) in [(999, false), (1_000, true), (59_999, true), (60_000, false)] {
        assert_eq!(ledger.has_reserved(FileId(id)), reserved, "{id}");
    }
    let [one, two] =
        futures_util::future::join_all([ledger.reserve(FileId(0)), ledger.reserve(FileId(0))])
            .await
            .try_into()
            .unwrap();
    assert_eq!((one.unwrap(), two.unwrap()), (60_000..70_000, 70_000..80_000));
}

pub(crate) async fn a_predecessor_is_the_newest_settled_failure_with_this_digest<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    let (orders, invoices) = (RouteName::new("orders"), RouteName::new("invoices"));
    let found = async |ledger: &B::Ledger, route: &RouteName, byte| {
        let entry = ledger.predecessor(route, &digest(byte)).await.unwrap();
        entry.map(|entry| entry.id.0)
    };
    assert_eq!(found(&ledger, &orders, 7).await, None);
    record(&ledger, whole(100, State::Failed)).await;
    record(&ledger, whole(101, State::Held)).await;
    record(&ledger, whole(102, State::Sent)).await;
    record(&ledger, vec![claimed(103), decided(103, None, State::Failed, 200)]).await;
    record(&ledger, vec![claimed(104)]).await;
    let missing = Step::Missing { id: FileId(104), cause: cause("gone"), at: Wall(5) };
    record(&ledger, vec![missing]).await;
    assert_eq!(found(&ledger, &orders, 7).await, Some(101));
    assert_eq!(found(&ledger, &invoices, 7).await, None);
    assert_eq!(found(&ledger, &orders, 8).await, None);
    drop(ledger);
    assert_eq!(found(&backend.open(0), &orders, 7).await, Some(101));
}

pub(crate) async fn twins_know_of_each_other_until_a_person_lets_one_go<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    let with_twin = |id: u64, byte: Option<u8>| {
        Step::Claimed(Box::new(Claim { twin: byte.map(digest), ..claim(id) }))
    };
    let found = async |ledger: &B::Ledger, id: u64| {
        let twins = ledger.twins(FileId(id)).await.unwrap();
        twins.iter().map(|twin| (twin.entry.id.0, twin.was_in_doubt)).collect::<Vec<_>>()
    };
    record(&ledger, vec![with_twin(100, Some(1))]).await;
    record(&ledger, vec![with_twin(101, Some(1)), delivered(101, 200), settled(101)]).await;
    record(&ledger, vec![with_twin(102, Some(2)), with_twin(103, None)]).await;
    record(&ledger, vec![with_twin(104, Some(1)), ended(104, 1, Verdict::InDoubt, 200)]).await;
    record(&ledger, vec![begun(104, 2, 300), ended(104, 2, Verdict::NotSent, 400)]).await;
    assert_eq!(found(&ledger, 100).await, [(100, false), (101, false), (104, true)]);
    assert_eq!(found(&ledger, 104).await, [(104, true), (101, false), (100, false)]);
    assert_eq!(found(&ledger, 102).await, [(102, false)]);
    assert_eq!(found(&ledger, 103).await, [], "its route looks for none");

    let release = |id: u64| Step::Released {
        id: FileId(id),
        source: place("/srv/drop/orders/held", &format!("{id}.json")),
        identity: identity(id),
        at: Wall(600),
    };
    let duplicate = Step::Decided {
        id: FileId(100),
        attempt: None,
        state: State::Held,
        cause: cause("duplicate-of"),
        target: place("/srv/drop/orders/held", "100.json"),
        at: Wall(500),
    };
    record(&ledger, vec![duplicate, settled(100), release(100)]).await;
    assert_eq!(found(&ledger, 100).await, [], "a person has seen that it is a duplicate");
    record(&ledger, vec![decided(104, None, State::Held, 500), settled(104), release(104)]).await;
    assert_eq!(found(&ledger, 104).await, [(104, true), (101, false)]);
    drop(ledger);
    assert_eq!(found(&backend.open(0), 104).await, [(104, true), (101, false)]);
}

pub(crate) async fn counts_agree_with_the_entries_whatever_happened<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, whole(100, State::Sent)).await;
    record(&ledger, whole(101, State::Failed)).await;
    record(&ledger, whole(102, State::Held)).await;
    record(&ledger, whole(103, State::Held)).await;
    record(&ledger, vec![claimed(104), refused(105)]).await;
    let invoice = Claim { route: RouteName::new("invoices"), ..claim(106) };
    record(&ledger, vec![Step::Claimed(Box::new(invoice))]).await;
    let (id, at) = (FileId(103), Wall(500));
    let source = place("/srv/drop/orders/held", "103.json");
    record(&ledger, vec![Step::Released { id, source, identity: identity(1), at }]).await;
    let missing = |id| Step::Missing { id: FileId(id), cause: cause("gone"), at };
    record(&ledger, vec![missing(104), missing(101)]).await;
    let count = |route: &str, states: &[(&'static str, u64)]| Count {
        route: route.to_owned(),
        states: states.iter().copied().collect(),
        // Since a person has let it go; the invoice is at its first attempt.
        retried_since: (route == "orders").then_some(at),
    };
    let orders = [("deferred", 1), ("failed", 1), ("held", 1), ("missing", 2), ("sent", 1)];
    let expected = [count("invoices", &[("sending", 1)]), count("orders", &orders)];
    assert_eq!(ledger.counts().await.unwrap(), expected);
    drop(ledger);
    assert_eq!(backend.open(0).counts().await.unwrap(), expected);
}

async fn check_list<L: Ledger>(ledger: &L, query: Query, expected: &[u64]) {
    let said = format!("{query:?}");
    let found = ledger.list(Query { limit: 100, ..query }).await.unwrap();
    assert_eq!(found.iter().map(|entry| entry.id.0).collect::<Vec<_>>(), expected, "{said}");
}

pub(crate) async fn a_list_is_newest_first_and_holds_what_was_asked_for<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, whole(100, State::Sent)).await;
    record(&ledger, whole(101, State::Failed)).await;
    record(&ledger, vec![claimed(102), delivered(102, 9_000)]).await;
    record(&ledger, vec![refused(103)]).await;
    let invoice = Claim { route: RouteName::new("invoices"), ..claim(104) };
    record(&ledger, vec![Step::Claimed(Box::new(invoice))]).await;
    let all = Query::default;
    check_list(&ledger, all(), &[104, 103, 102, 101, 100]).await;
    check_list(&ledger, Query { route: Some(RouteName::new("invoices")), ..all() }, &[104]).await;
    check_list(&ledger, Query { states: vec![State::Sent], ..all() }, &[102, 100]).await;
    check_list(&ledger, Query { states: vec![State::Failed], ..all() }, &[103, 101]).await;
    let both = vec![State::Sent, State::Sending];
    check_list(&ledger, Query { states: both, ..all() }, &[104, 102, 100]).await;
    check_list(&ledger, Query { code: Some("json-syntax".into()), ..all() }, &[103]).await;
    check_list(&ledger, Query { since: Some(Wall(103)), ..all() }, &[104, 103, 102]).await;
    check_list(&ledger, Query { name: Some("101.json".into()), ..all() }, &[101]).await;
    check_list(&ledger, Query { before: Some(FileId(102)), ..all() }, &[101, 100]).await;
    let failed = || Query { states: vec![State::Failed], only_last: true, ..all() };
    check_list(&ledger, failed(), &[103, 101]).await;
    let again = Claim { previous: Some(FileId(101)), ..claim(105) };
    record(&ledger, vec![Step::Claimed(Box::new(again))]).await;
    check_list(&ledger, failed(), &[103]).await;
    check_list(&ledger, Query { only_last: false, ..failed() }, &[103, 101]).await;
    let cause = Cause::new(Code::of("vanished"), "it came to nothing");
    record(&ledger, vec![Step::Cancelled { id: FileId(105), cause, at: Wall(9) }]).await;
    check_list(&ledger, failed(), &[103, 101]).await;
    let narrow = Query {
        route: Some(RouteName::new("orders")),
        states: vec![State::Failed],
        before: Some(FileId(103)),
        ..all()
    };
    check_list(&ledger, narrow, &[101]).await;
    let sent_of = |route: &str| Query {
        route: Some(RouteName::new(route)),
        states: vec![State::Sent],
        ..all()
    };
    check_list(&ledger, sent_of("orders"), &[102, 100]).await;
    check_list(&ledger, sent_of("invoices"), &[]).await;
    record(&ledger, vec![delivered(104, 9_001)]).await;
    check_list(&ledger, sent_of("invoices"), &[104]).await;
    record(&ledger, vec![settled(104)]).await;
    check_list(&ledger, sent_of("invoices"), &[104]).await;
}

pub(crate) async fn a_hundred_thousand_files_are_listed_page_by_page<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    for chunk in 0..100_u64 {
        let steps = (0..1_000).map(|number| {
            let bare = Claim { envelope: None, ..claim(1_000_000 + chunk * 1_000 + number) };
            Step::Claimed(Box::new(bare))
        });
        record(&ledger, steps.collect()).await;
    }
    let (mut before, mut expected, mut pages) = (None, 1_100_000_u64, 0);
    loop {
        let page = ledger.list(Query { before, limit: 7_000, ..Query::default() }).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        pages += 1;
        for entry in page {
            expected -= 1;
            assert_eq!(entry.id, FileId(expected));
        }
    }
    assert_eq!((expected, pages), (1_000_000, 15));
    assert_eq!(ledger.unsettled().await.unwrap().len(), 100_000);
}

pub(crate) async fn a_routes_record_is_replaced_as_a_whole<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    let record = |name: &str, released| RouteRecord {
        name: RouteName::new(name),
        first_sweep_at: Some(Wall(5)),
        released,
        paused_at: (!released).then_some(Wall(9)),
        pause_code: None,
    };
    ledger.put_route(record("orders", false)).await.unwrap();
    ledger.put_route(record("invoices", true)).await.unwrap();
    ledger.put_route(record("orders", true)).await.unwrap();
    drop(ledger);
    let routes = backend.open(0).routes().await.unwrap();
    assert_eq!(routes, [record("invoices", true), record("orders", true)]);
}

pub(crate) async fn a_pause_of_all_is_on_record_with_the_routes_that_it_concerns<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    assert_eq!(ledger.all_paused_at().await.unwrap(), None);
    let record = |name: &str, paused_at| RouteRecord {
        name: RouteName::new(name),
        first_sweep_at: None,
        released: false,
        paused_at,
        pause_code: None,
    };
    ledger.put_route(record("orders", None)).await.unwrap();
    let paused = vec![record("orders", Some(Wall(9))), record("stock", Some(Wall(9)))];
    ledger.put_all_paused(Some(Wall(9)), paused.clone()).await.unwrap();
    drop(ledger);
    let ledger = backend.open(0);
    assert_eq!(ledger.all_paused_at().await.unwrap(), Some(Wall(9)));
    assert_eq!(ledger.routes().await.unwrap(), paused);
    ledger.put_all_paused(None, Vec::new()).await.unwrap();
    assert_eq!(ledger.all_paused_at().await.unwrap(), None);
    assert_eq!(ledger.routes().await.unwrap(), paused, "those stand as they stood");
}

pub(crate) async fn a_failure_may_pause_its_route_in_the_same_commit<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    let orders = RouteName::new("orders");
    let paused = |id, at| Step::RoutePaused { id: FileId(id), route: orders.clone(), at: Wall(at) };
    let known = RouteRecord {
        name: orders.clone(),
        first_sweep_at: Some(Wall(5)),
        released: true,
        paused_at: None,
        pause_code: None,
    };
    ledger.put_route(known.clone()).await.unwrap();
    record(&ledger, vec![claimed(100), paused(100, 9)]).await;
    record(&ledger, vec![claimed(101), paused(101, 20)]).await;
    drop(ledger);
    let ledger = backend.open(0);
    let expected = RouteRecord { paused_at: Some(Wall(9)), ..known };
    assert_eq!(ledger.routes().await.unwrap(), [expected], "since the first of them");
    check_impossible::<B>(vec![], paused(998, 9)).await;
}

pub(crate) async fn a_process_knows_which_of_its_attempts_have_begun<B: Backend>() {
    let backend = B::new();
    let ledger = backend.open(0);
    record(&ledger, vec![claimed(100), claimed(101), refused(102)]).await;
    ledger.begun(FileId(100), 1).unwrap();
    assert_eq!(ledger.had_begun(FileId(100), 1), Some(true));
    assert_eq!(ledger.had_begun(FileId(101), 1), Some(false));
    assert_eq!(ledger.had_begun(FileId(102), 1), None, "it was never attempted");
    record(&ledger, vec![ended(101, 1, Verdict::NotSent, 200), begun(101, 2, 300)]).await;
    assert_eq!(ledger.had_begun(FileId(101), 2), Some(false));
    ledger.begun(FileId(101), 2).unwrap();
    assert_eq!(ledger.had_begun(FileId(101), 2), Some(true));
}
