//! Who pauses, for whom, who probes, and what lets go again.

use std::ffi::OsStr;
use std::time::Duration;

use patchdrop::journey::detect::Reason;
use patchdrop::journey::runs::Errand;
use patchdrop::journey::schedule::{Change, Refused, Start};
use patchdrop::journey::settle::Next;
use patchdrop::model::file::FileId;
use patchdrop::model::outcome::Outcome;
use patchdrop::model::time::Tick;

use crate::scene::{CUT, DOWN, SECOND, Scene, WIDE, destination, judged, name_of, route};

#[test]
fn a_wrong_url_costs_a_handful_of_requests_an_hour_and_no_file() {
    for dice in [0.0, 0.5, 0.999] {
        let mut scene = Scene::of_one(2);
        scene.dice = dice;
        let end = scene.tick + 3_600_000;
        let (mut requests, mut names) = (0, 0);
        while scene.tick < end {
            while names < 1000 && scene.claim("orders", &format!("{names}.json")).is_ok() {
                names += 1;
            }
            for id in scene.attempts() {
                requests += 1;
                scene.answer(id, Outcome::RouteFault);
                assert!(scene.schedule.knows(id), "its fault is not the file's");
            }
            scene.pass_to_wake();
        }
        let view = scene.schedule.view(&name_of("orders"));
        // Two at once, then a probe after at least half of 1, 2, 4 ... 300 s.
        assert!((10..=40).contains(&requests), "{requests} requests with dice {dice}");
        assert_eq!(view.active + view.parked, names, "every file is where it was");
        assert!(view.parked <= 60, "{} files wait in sending/", view.parked);
    }
}

#[test]
fn the_first_refusal_pauses_the_route_and_claimed_files_are_shelved() {
    let mut scene = Scene::of_one(1);
    let claimed = scene.claim_many(3);
    assert_eq!(scene.starts(), [Start::Attempt(claimed[0])]);
    let changes = scene.answer(claimed[0], Outcome::RouteFault);
    let cause = judged(Outcome::RouteFault).cause;
    assert_eq!(changes, [Change::RoutePaused(name_of("orders"), cause)]);
    assert!(scene.is_paused("orders"));
    assert_eq!(scene.may_claim("orders", "new"), Err(Reason::Paused));
    let shelved: Vec<_> = claimed[1..].iter().map(|id| Start::Shelve(*id)).collect();
    assert_eq!(scene.starts(), shelved);
    assert_eq!(scene.starts(), [], "each is shelved once");
}

#[test]
fn the_probe_is_another_file_where_there_is_one() {
    let mut scene = Scene::of_one(1);
    let claimed = scene.claim_many(3);
    let mut probers = scene.attempts();
    for _ in 0..5 {
        let last = *probers.last().expect("one has begun");
        scene.answer(last, Outcome::RouteFault);
        let mut begun = scene.attempts();
        assert_eq!(begun, [], "nothing starts before the probe's time");
        while begun.is_empty() {
            scene.pass_to_wake();
            begun = scene.attempts();
        }
        assert_eq!(begun.len(), 1, "one probes at a time");
        probers.extend(begun);
    }
    assert!(probers.windows(2).all(|pair| pair[0] != pair[1]), "{probers:?}");
    assert!(probers.iter().all(|id| claimed.contains(id)));
}

/// Lets time pass, and drops a new file whenever it can be claimed, until one with a name that
/// `is_good` knows has been delivered; how many attempts that took.
fn attempts_until_delivered(
    scene: &mut Scene,
    new: &[(&str, &str)],
    bad: &dyn Fn(FileId) -> bool,
    trouble: &Outcome,
) -> usize {
    let (mut new, mut attempts) = (new.iter(), 0);
    let mut next = new.next();
    for _ in 0..200 {
        if let Some((route, name)) = next
            && scene.claim(route, name).is_ok()
        {
            next = new.next();
        }
        for id in scene.attempts() {
            attempts += 1;
            if !bad(id) {
                scene.answer(id, Outcome::Delivered);
                return attempts;
            }
            scene.answer(id, trouble.clone());
        }
        scene.pass_to_wake();
    }
    panic!("the good file has never had its turn in {attempts} attempts");
}

#[test]
fn bad_files_never_keep_a_good_one_from_probing() {
    #[track_caller]
    fn check(bad: u64, trouble: &Outcome) {
        let mut scene = Scene::of_one(2);
        let parked: Vec<_> = (0..bad)
            .map(|n| scene.recorded("orders", &format!("bad{n}"), Duration::ZERO))
            .collect();
        let is_bad = |id: FileId| parked.contains(&id);
        // They are refused first, so that the route or its destination is paused.
        for _ in 0..bad.max(6) {
            let mut begun = scene.attempts();
            while begun.is_empty() {
                scene.pass_to_wake();
                begun = scene.attempts();
            }
            for id in begun {
                scene.answer(id, trouble.clone());
            }
        }
        assert!(scene.is_paused("orders"));
        let took = attempts_until_delivered(&mut scene, &[("orders", "good")], &is_bad, trouble);
        assert!(took <= 3, "{took} attempts before the good one of {bad} bad ones, {trouble:?}");
        assert!(!scene.is_paused("orders"));
    }
    for bad in [1, 2, 3, 10, 100] {
        check(bad, &Outcome::RouteFault);
    }
    for bad in [3, 10, 100] {
        check(bad, &CUT);
    }
}

#[test]
fn bad_files_of_two_routes_never_keep_a_good_one_of_either_from_probing() {
    for good in ["a", "b"] {
        let mut scene = Scene::new(WIDE, &[route("a", "one", 2), route("b", "one", 2)]);
        let bad: Vec<_> = [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4")]
            .map(|(route, name)| scene.recorded(route, name, Duration::ZERO))
            .to_vec();
        let is_bad = |id: FileId| bad.contains(&id);
        for _ in 0..8 {
            for id in scene.attempts() {
                scene.answer(id, CUT);
            }
            scene.pass_to_wake();
        }
        assert!(scene.is_paused("a") && scene.is_paused("b"));
        let took = attempts_until_delivered(&mut scene, &[(good, "good")], &is_bad, &CUT);
        assert!(took <= 4, "{took} attempts before the good one of route {good}");
    }
}

#[test]
fn whoever_probed_longest_ago_probes_next_and_a_dead_server_costs_no_claims() {
    let mut scene = Scene::of_one(1);
    let ids: Vec<_> =
        (0..4).map(|n| scene.recorded("orders", &n.to_string(), Duration::ZERO)).collect();
    let mut probers = Vec::new();
    while probers.len() < 9 {
        assert!(probers.is_empty() || scene.may_claim("orders", "new").is_err());
        for id in scene.attempts() {
            scene.answer(id, DOWN);
            probers.push(id);
        }
        scene.pass_to_wake();
    }
    let in_turn: Vec<_> = ids.iter().cycle().take(9).copied().collect();
    assert_eq!(probers, in_turn);
}

/// Drops files while they are claimed; one in `of` attempts is accepted, the others are left in
/// doubt. How many are in the first day, and how many were accepted.
fn a_day_of_doubts(concurrency: usize, of: usize) -> (usize, usize) {
    let mut scene = Scene::of_one(concurrency);
    scene.dice = 0.5;
    let end = scene.tick + 24 * 3_600_000;
    let (mut held, mut sent, mut attempts) = (0, 0, 0);
    while scene.tick < end && attempts < 20_000 {
        scene.claim_many(1_000);
        for id in scene.attempts() {
            attempts += 1;
            if attempts % of == 0 {
                sent += 1;
                scene.answer(id, Outcome::Delivered);
            } else {
                held += 1;
                scene.answer(id, Outcome::InDoubt);
            }
        }
        // An answer in time is a matter of seconds.
        scene.pass(SECOND);
        if scene.may_claim("orders", "next").is_err() && scene.attempts().is_empty() {
            scene.pass_to_wake();
        }
    }
    (held, sent)
}

#[test]
fn a_server_that_never_answers_leaves_a_handful_in_doubt_and_not_hundreds_a_day() {
    for concurrency in [1, 4, 16] {
        let (held, _) = a_day_of_doubts(concurrency, usize::MAX);
        assert!(held > 5, "its probes go on: {held}");
        assert!(held <= 3 + concurrency + 18, "{held} with {concurrency} slots");
    }
}

#[test]
fn a_server_that_answers_now_and_then_leaves_a_handful_in_doubt_too() {
    for of in [2, 3, 10] {
        let (held, sent) = a_day_of_doubts(4, of);
        assert!(held <= 30, "{held} held and {sent} sent, one in {of}");
        assert!(sent >= 1, "{sent} sent, one in {of}");
    }
}

#[test]
fn after_doubts_one_file_goes_at_a_time_until_clean_answers_have_made_up_for_them() {
    let mut scene = Scene::of_one(4);
    let ids = scene.claim_many(8);
    for id in scene.attempts() {
        scene.answer(id, Outcome::InDoubt);
    }
    assert!(scene.is_paused("orders"));
    scene.pass(Duration::from_mins(5));
    let mut alone = 0;
    loop {
        scene.claim_many(8);
        let begun = scene.attempts();
        if begun.len() > 1 {
            break;
        }
        alone += 1;
        scene.answer(begun[0], Outcome::Delivered);
    }
    // Four doubts, of which two are left after sixteen deliveries.
    assert_eq!(alone, 16, "{ids:?}");
}

#[test]
fn a_doubt_that_costs_no_file_is_probed_again_as_usual() {
    let mut scene = Scene::of_one(3);
    let ids: Vec<_> =
        (0..3).map(|n| scene.recorded("orders", &n.to_string(), Duration::ZERO)).collect();
    assert_eq!(scene.attempts(), ids);
    let doubt = judged(Outcome::InDoubt);
    for id in &ids {
        let next = Next::Park { wait: SECOND, errand: Errand::Attempt };
        scene.schedule.answered(*id, &doubt, &next, scene.now(), 0.0);
        scene.schedule.park(*id, SECOND, Errand::Attempt, Tick(scene.tick));
    }
    assert!(scene.is_paused("orders"));
    scene.pass(SECOND);
    assert_eq!(scene.attempts().len(), 1, "the usual schedule");
}

#[test]
fn a_file_alone_probes_again_a_second_later_and_a_new_one_goes_before_it() {
    let mut scene = Scene::of_one(1);
    let id = scene.claim("orders", "a").expect("there is room");
    assert_eq!(scene.attempts(), [id]);
    scene.answer(id, Outcome::RouteFault);
    scene.pass(Duration::from_millis(499));
    assert_eq!(scene.may_claim("orders", "b"), Err(Reason::Paused));
    scene.pass(Duration::from_millis(1));
    assert_eq!(scene.attempts(), []);

    let mut alone = scene.clone();
    alone.pass(Duration::from_millis(999));
    assert_eq!(alone.attempts(), []);
    alone.pass(Duration::from_millis(1));
    assert_eq!(alone.attempts(), [id]);

    scene.claim("orders", "b").expect("a new file may probe");
    assert_eq!(scene.may_claim("orders", "c"), Err(Reason::Paused));
    assert_eq!(scene.attempts().len(), 1);
    scene.pass(SECOND * 100);
    assert_eq!(scene.attempts(), [], "one probe at a time");
}

#[test]
fn a_probe_that_came_to_nothing_lets_another_go() {
    let mut scene = Scene::of_one(1);
    let id = scene.claim("orders", "a").expect("there is room");
    assert_eq!(scene.attempts(), [id]);
    scene.answer(id, Outcome::RouteFault);
    scene.pass(Duration::from_millis(500));
    let (orders, gone) = (name_of("orders"), OsStr::new("gone"));
    scene.schedule.look_begun(&orders, gone, Tick(scene.tick));
    assert_eq!(scene.may_claim("orders", "b"), Err(Reason::Paused));
    scene.schedule.look_ended(&orders, gone);
    assert_eq!(scene.may_claim("orders", "b"), Ok(()));
}

#[test]
fn a_delivered_or_rejected_probe_lets_go_and_unspent_files_are_due_at_once() {
    for outcome in [Outcome::Delivered, Outcome::Rejected] {
        let mut scene = Scene::of_one(2);
        let refused = scene.claim_many(2);
        assert_eq!(scene.attempts(), refused);
        for id in &refused {
            scene.answer(*id, Outcome::RouteFault);
        }
        scene.pass(Duration::from_millis(500));
        // The first one to be refused began the pause: the second probes.
        assert_eq!(scene.attempts(), [refused[1]]);
        let changes = scene.answer(refused[1], outcome);
        assert_eq!(changes, [Change::RouteResumed(name_of("orders"))]);
        assert_eq!(scene.attempts(), [refused[0]], "its minute is not over, but it is unspent");
        assert!(!scene.is_paused("orders"));
    }
}

#[test]
fn three_files_in_a_row_speak_against_the_destination_and_one_file_thrice_does_not() {
    let mut scene = Scene::of_one(1);
    let id = scene.recorded("orders", "a", Duration::ZERO);
    for _ in 0..5 {
        assert_eq!(scene.attempts(), [id]);
        assert_eq!(scene.answer(id, CUT), []);
        scene.pass(Duration::from_mins(1));
    }
    assert!(!scene.is_paused("orders"));

    for outcome in [CUT, Outcome::InDoubt] {
        let mut scene = Scene::of_one(3);
        let ids = scene.claim_many(6);
        assert_eq!(scene.attempts(), ids[..3]);
        assert_eq!(scene.answer(ids[0], outcome.clone()), []);
        assert_eq!(scene.answer(ids[1], outcome.clone()), []);
        let changes = scene.answer(ids[2], outcome.clone());
        let cause = judged(outcome).cause;
        assert_eq!(changes, [Change::DestinationPaused(destination("server.example"), cause)]);
    }
}

#[test]
fn an_answer_between_them_ends_the_row() {
    for between in [Outcome::Delivered, Outcome::Rejected] {
        let mut scene = Scene::of_one(4);
        let ids = scene.claim_many(4);
        assert_eq!(scene.attempts(), ids);
        scene.answer(ids[0], CUT);
        scene.answer(ids[1], CUT);
        scene.answer(ids[2], between);
        assert_eq!(scene.answer(ids[3], CUT), []);
        assert!(!scene.is_paused("orders"));
    }
}

#[test]
fn a_fault_of_the_destination_pauses_all_its_routes_at_once_and_no_other() {
    for outcome in [DOWN, Outcome::TokenRefused] {
        let routes = [route("a", "one", 2), route("b", "one", 2), route("c", "two", 2)];
        let mut scene = Scene::new(WIDE, &routes);
        let id = scene.claim("a", "x").expect("there is room");
        let b = scene.claim("b", "x").expect("there is room");
        assert_eq!(scene.attempts().len(), 2);
        scene.answer(id, outcome.clone());
        assert_eq!(scene.may_claim("a", "y"), Err(Reason::Paused));
        assert_eq!(scene.may_claim("b", "y"), Err(Reason::Paused));
        assert_eq!(scene.may_claim("c", "y"), Ok(()));
        // What the other route had in flight is a word for the destination as a whole.
        let changes = scene.answer(b, Outcome::Delivered);
        assert_eq!(changes, [Change::DestinationResumed(destination("one"))]);
        assert_eq!(scene.may_claim("a", "y"), Ok(()));
    }
}

#[test]
fn one_file_probes_a_destination_whatever_the_number_of_its_routes() {
    let routes = [route("a", "one", 2), route("b", "one", 2)];
    let mut scene = Scene::new(WIDE, &routes);
    for (route, name) in [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")] {
        scene.claim(route, name).expect("there is room");
    }
    for id in scene.attempts() {
        scene.answer(id, DOWN);
    }
    for _ in 0..4 {
        let mut begun = scene.attempts();
        while begun.is_empty() {
            scene.pass_to_wake();
            begun = scene.attempts();
        }
        assert_eq!(begun.len(), 1, "{begun:?}");
        scene.answer(begun[0], DOWN);
    }
}

#[test]
fn every_route_of_the_destination_waits_as_long_as_the_server_asks() {
    let routes = [route("a", "one", 2), route("b", "one", 2), route("c", "two", 2)];
    let mut scene = Scene::new(WIDE, &routes);
    let id = scene.claim("a", "x").expect("there is room");
    assert_eq!(scene.attempts(), [id]);
    let mut busy = judged(DOWN);
    busy.retry_after = Some(SECOND * 30);
    scene.answer_with(id, &busy);
    let begun = scene.tick;
    let parked = scene.recorded("b", "old", Duration::ZERO);
    let other = scene.recorded("c", "old", Duration::ZERO);
    assert_eq!(scene.attempts(), [other], "another server has not asked for it");
    while scene.tick < begun + 29_999 {
        scene.tick = scene.next_wake().expect("it ends").0.min(begun + 29_999);
        assert_eq!(scene.attempts(), []);
        assert_eq!(scene.may_claim("a", "y"), Err(Reason::Paused));
        assert_eq!(scene.may_claim("b", "y"), Err(Reason::Paused));
    }
    scene.pass_to_wake();
    assert_eq!(scene.tick, begun + 30_000);
    let begun = scene.attempts();
    assert!(begun == [id] || begun == [parked], "one file probes: {begun:?}");
}

#[test]
fn whether_a_delivery_lies_between_a_refusal_and_an_attempt_decides_whose_fault_it_is() {
    #[track_caller]
    fn check(refused: Refused, delivered_before: bool, expected: bool) {
        let mut scene = Scene::of_one(2);
        let orders = name_of("orders");
        if delivered_before {
            scene.schedule.delivered_on_record(&orders);
        }
        let (id, a) = (FileId(1_000), OsStr::new("a"));
        let (none, tick) = (Duration::ZERO, Tick(scene.tick));
        scene.schedule.parked_on_record(
            id,
            &orders,
            a,
            none,
            refused,
            (none, Errand::Attempt),
            tick,
        );
        assert!(!scene.schedule.delivered_since_refusal(id), "no attempt has begun");
        assert_eq!(scene.attempts(), [id]);
        assert_eq!(scene.schedule.delivered_since_refusal(id), expected, "{refused:?}");
    }
    check(Refused::Never, false, false);
    check(Refused::Never, true, false);
    check(Refused::BeforeDelivery, true, true);
    check(Refused::SinceDelivery, true, false);
    check(Refused::SinceDelivery, false, false);
}

#[test]
fn an_attempt_that_began_before_the_delivery_does_not_count_against_its_file() {
    let mut scene = Scene::of_one(2);
    let ids = scene.claim_many(3);
    assert_eq!(scene.attempts(), ids[..2]);
    scene.answer(ids[0], Outcome::RouteFault);
    scene.pass(SECOND);
    // The other one in flight proves the route right; the first is tried again.
    scene.answer(ids[1], Outcome::Delivered);
    scene.pass(SECOND);
    let begun = scene.attempts();
    assert!(begun.contains(&ids[0]), "{begun:?}");
    assert!(scene.schedule.delivered_since_refusal(ids[0]));
    assert!(!scene.schedule.delivered_since_refusal(ids[2]), "it was never refused");
    let changes = scene.answer(ids[0], Outcome::RouteFault);
    assert_eq!(changes, [], "the file is at fault: no pause");
    assert!(!scene.schedule.knows(ids[0]));

    // Refused while another of its route is in flight and delivered after: not judged by that.
    let mut scene = Scene::of_one(2);
    let ids = scene.claim_many(2);
    assert_eq!(scene.attempts(), ids);
    scene.answer(ids[0], Outcome::Delivered);
    scene.answer(ids[1], Outcome::RouteFault);
    assert!(scene.schedule.knows(ids[1]), "its attempt began before the delivery");
}

#[test]
fn a_person_pauses_and_resumes_a_route() {
    let mut scene = Scene::of_one(2);
    let orders = name_of("orders");
    let parked = scene.recorded("orders", "old", SECOND);
    let claimed = scene.claim_many(1);
    scene.schedule.pause_by_person(&orders, scene.now());
    scene.pass(SECOND * 1000);
    assert_eq!(scene.starts(), [Start::Shelve(claimed[0])]);
    scene.schedule.park(claimed[0], Duration::ZERO, Errand::Attempt, Tick(scene.tick));
    assert_eq!(scene.starts(), []);
    assert_eq!(scene.may_claim("orders", "b"), Err(Reason::Paused));
    assert_eq!(scene.next_wake(), None, "nothing goes by itself");
    let since = scene.schedule.view(&orders).paused_by_person;
    scene.pass(SECOND);
    scene.schedule.pause_by_person(&orders, scene.now());
    assert_eq!(scene.schedule.view(&orders).paused_by_person, since, "it is paused already");
    scene.schedule.resume_by_person(&orders, scene.now());
    let mut begun = scene.attempts();
    begun.sort_unstable();
    assert_eq!(begun, [parked, claimed[0]]);
}

#[test]
fn a_person_who_resumes_lets_one_file_probe_at_once() {
    for outcome in [Outcome::RouteFault, DOWN] {
        let mut scene = Scene::of_one(2);
        scene.dice = 0.9;
        let ids = scene.claim_many(2);
        assert_eq!(scene.attempts(), ids);
        for id in &ids {
            scene.answer(*id, outcome.clone());
        }
        assert_eq!(scene.attempts(), []);
        scene.schedule.resume_by_person(&name_of("orders"), scene.now());
        assert_eq!(scene.attempts().len(), 1);
    }
}

#[test]
fn nothing_starts_while_the_ledger_cannot_be_written() {
    let mut scene = Scene::of_one(2);
    let id = scene.recorded("orders", "a", Duration::ZERO);
    scene.schedule.suspend(SECOND * 5, Tick(scene.tick));
    assert_eq!(scene.starts(), []);
    assert_eq!(scene.may_claim("orders", "b"), Err(Reason::Paused));
    assert_eq!(scene.next_wake(), Some(Tick(scene.tick + 5000)));
    scene.pass(Duration::from_millis(4999));
    assert_eq!(scene.starts(), []);
    scene.pass_to_wake();
    assert_eq!(scene.attempts(), [id]);
}

#[test]
fn a_probe_waits_too_while_the_ledger_cannot_be_written() {
    let mut scene = Scene::of_one(1);
    let ids = scene.claim_many(2);
    assert_eq!(scene.attempts(), ids[..1]);
    scene.answer(ids[0], Outcome::RouteFault);
    assert_eq!(scene.attempts(), []);
    scene.pass(Duration::from_millis(500));
    assert_eq!(scene.starts(), [Start::Resume(ids[1])]);
    scene.schedule.resumed(ids[1]);
    scene.schedule.suspend(SECOND * 5, Tick(scene.tick));
    assert!(!scene.starts().contains(&Start::Attempt(ids[1])), "it cannot be put on record");
}

#[test]
fn a_probe_takes_a_slot_like_any_other_attempt() {
    let routes = [route("a", "host", 1), route("b", "host", 1)];
    let mut scene = Scene::new(WIDE, &routes);
    let in_flight = scene.claim("a", "slow").expect("there is room");
    let refused = scene.claim("b", "refused").expect("there is room");
    assert_eq!(scene.attempts().len(), 2);
    scene.recorded("a", "waits", Duration::ZERO);
    scene.answer_with(refused, &judged(DOWN));
    let mut begun = Vec::new();
    while begun.is_empty() {
        scene.pass_to_wake();
        begun = scene.attempts();
    }
    assert_eq!(begun, [refused], "the one slot of route a is taken by {in_flight}");
}

#[test]
fn a_file_whose_end_is_decided_makes_its_last_move_whatever_is_paused() {
    let mut scene = Scene::of_one(2);
    let orders = name_of("orders");
    scene.schedule.pause_by_person(&orders, scene.now());
    let waits = scene.recorded("orders", "waits", Duration::ZERO);
    let (id, none, tick) = (FileId(1_000), Duration::ZERO, Tick(scene.tick));
    let (name, errand) = (OsStr::new("decided"), (SECOND, Errand::Finish));
    scene.schedule.parked_on_record(id, &orders, name, none, Refused::Never, errand, tick);
    assert_eq!(scene.starts(), []);
    scene.pass_to_wake();
    assert_eq!(scene.starts(), [Start::Resume(id)]);
    assert!(scene.schedule.knows(waits), "it waits for the person");

    // One whose move did not succeed is tried again the same way.
    let mut scene = Scene::of_one(2);
    let id = scene.claim("orders", "a").expect("there is room");
    assert_eq!(scene.attempts(), [id]);
    let rejected = judged(Outcome::Rejected);
    let next = scene.next_of(id, &rejected);
    scene.schedule.answered(id, &rejected, &next, scene.now(), 0.0);
    scene.schedule.stumbled(id, Tick(scene.tick));
    scene.schedule.pause_by_person(&orders, scene.now());
    scene.pass(SECOND);
    assert_eq!(scene.starts(), [Start::Resume(id)]);
}
