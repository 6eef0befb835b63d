//! Slots, windows, bounds, the order of a name, and when to look again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

use patchdrop::journey::detect::Reason;
use patchdrop::journey::runs::Errand;
use patchdrop::journey::schedule::{Limits, Refused, Start};
use patchdrop::journey::settle::Next;
use patchdrop::model::outcome::Outcome;
use patchdrop::model::time::Tick;

use crate::scene::{CUT, SECOND, Scene, WIDE, judged, name_of, route};

#[test]
fn no_more_attempts_than_slots_and_each_end_frees_one() {
    for concurrency in [1, 2, 4] {
        let mut scene = Scene::of_one(concurrency);
        let claimed = scene.claim_many(100);
        let begun = scene.attempts();
        assert_eq!(begun, claimed[..concurrency], "the oldest first, one a slot");
        for (ended, next) in claimed.iter().zip(&claimed[concurrency..]) {
            scene.answer(*ended, Outcome::Delivered);
            assert_eq!(scene.attempts(), [*next]);
        }
    }
}

#[test]
fn before_the_first_delivery_a_handful_is_claimed_and_then_more() {
    let mut scene = Scene::of_one(2);
    let claimed = scene.claim_many(1000);
    assert_eq!(claimed.len(), 2 + 4, "its slots and four more");
    assert_eq!(scene.may_claim("orders", "next"), Err(Reason::Ready));
    assert!(!scene.schedule.wants_files(&name_of("orders"), Tick(scene.tick)));
    for _ in 0..1000 {
        for id in scene.attempts() {
            scene.answer(id, Outcome::Delivered);
        }
        scene.claim_many(1000);
    }
    assert_eq!(scene.schedule.view(&name_of("orders")).active, 64, "the window has a bound");
}

#[test]
fn the_bound_over_all_routes_leaves_each_route_its_places() {
    let limits = Limits { active_max: 20, parked_max: 1000 };
    let routes: Vec<_> =
        (0..10).map(|n| route(&format!("route{n}"), &format!("host{n}"), 16)).collect();
    let mut scene = Scene::new(limits, &routes);
    let mut claimed = [0; 10];
    for (n, claimed) in claimed.iter_mut().enumerate() {
        while scene.claim(&format!("route{n}"), &format!("{claimed}.json")).is_ok() {
            *claimed += 1;
        }
    }
    assert_eq!(claimed, [20, 8, 8, 8, 8, 8, 8, 8, 8, 8]);
    assert_eq!(scene.schedule.active(), 92);
}

#[test]
fn with_too_many_parked_files_nothing_new_is_claimed() {
    let limits = Limits { active_max: 1000, parked_max: 3 };
    let mut scene = Scene::new(limits, &[route("orders", "server.example", 2)]);
    let parked: Vec<_> =
        (0..3).map(|n| scene.recorded("orders", &format!("old{n}"), SECOND * 100)).collect();
    assert_eq!(scene.may_claim("orders", "new"), Err(Reason::TooManyDeferred));
    scene.schedule.ended(parked[1]);
    assert_eq!(scene.may_claim("orders", "new"), Ok(()));
}

#[test]
fn files_that_stumble_as_they_are_claimed_take_no_slots() {
    let mut scene = Scene::of_one(2);
    let stumbled = scene.claim_many(4);
    for id in &stumbled {
        scene.schedule.stumbled(*id, scene.now().tick);
    }
    assert_eq!(scene.starts(), [], "they wait");
    scene.pass(SECOND * 2);
    for start in scene.starts() {
        let Start::Resume(id) = start else { panic!("{start:?}, and it was never claimed whole") };
        scene.schedule.resumed(id);
    }
    assert_eq!(scene.attempts().len(), 2, "both slots are free for them");
}

#[test]
fn retries_get_half_of_the_slots_while_new_files_wait_and_all_otherwise() {
    let mut scene = Scene::of_one(4);
    for n in 0..8 {
        scene.recorded("orders", &format!("old{n}"), Duration::ZERO);
    }
    let new = scene.claim_many(4);
    assert!(new.len() >= 2, "{new:?}");
    let taken_up: Vec<_> = scene.starts();
    for start in &taken_up {
        if let Start::Resume(id) = start {
            scene.schedule.resumed(*id);
        }
    }
    // New files were first to take the slots: as each ends, old and new take turns.
    let mut begun: Vec<_> = taken_up
        .iter()
        .filter_map(|start| if let Start::Attempt(id) = start { Some(*id) } else { None })
        .collect();
    begun.extend(scene.attempts());
    assert_eq!(begun.len(), 4);
    let mut in_flight = begun;
    for _ in 0..40 {
        scene.claim_many(4);
        let ended = in_flight.remove(0);
        scene.answer(ended, Outcome::Delivered);
        in_flight.extend(scene.attempts());
        let old = in_flight.iter().filter(|id| id.0 <= 8).count();
        assert!(old <= 2, "{old} of four slots are taken by old files while new ones wait");
    }
    let all_old_are_sent =
        (1..=8).all(|id| !scene.schedule.knows(patchdrop::model::file::FileId(id)));
    assert!(all_old_are_sent, "nor were the old ones starved");

    let mut scene = Scene::of_one(4);
    for n in 0..8 {
        scene.recorded("orders", &format!("old{n}"), Duration::ZERO);
    }
    assert_eq!(scene.attempts().len(), 4, "with no new file waiting, all slots are theirs");
}

#[test]
fn a_heap_of_due_files_leaves_places_for_new_ones() {
    let mut scene = Scene::of_one(2);
    for n in 0..500 {
        scene.recorded("orders", &format!("old{n}"), Duration::ZERO);
    }
    scene.attempts();
    assert!(!scene.claim_many(1).is_empty(), "half of the places are for new files");
}

#[test]
fn a_name_on_its_way_is_not_claimed_again_until_its_end() {
    let mut scene = Scene::of_one(2);
    let id = scene.claim("orders", "a").expect("nothing is under way");
    assert_eq!(scene.may_claim("orders", "a"), Err(Reason::SameName));
    assert_eq!(scene.attempts(), [id]);
    scene.answer(id, CUT);
    assert_eq!(scene.may_claim("orders", "a"), Err(Reason::SameName), "it is parked");
    scene.schedule.ended(id);
    assert_eq!(scene.may_claim("orders", "a"), Ok(()));
}

#[test]
fn a_look_that_comes_to_nothing_frees_its_name_and_place() {
    let mut scene = Scene::of_one(2);
    let (orders, a) = (name_of("orders"), OsStr::new("a"));
    scene.schedule.look_begun(&orders, a, Tick(scene.tick));
    assert_eq!(scene.may_claim("orders", "a"), Err(Reason::SameName));
    assert_eq!(scene.schedule.active(), 1);
    scene.schedule.look_ended(&orders, a);
    assert_eq!(scene.may_claim("orders", "a"), Ok(()));
    assert_eq!(scene.schedule.active(), 0);
}

#[test]
fn a_file_let_go_by_a_person_waits_while_another_of_its_name_is_looked_at() {
    let mut scene = Scene::of_one(4);
    let (orders, a) = (name_of("orders"), OsStr::new("a"));
    scene.schedule.look_begun(&orders, a, Tick(scene.tick));
    let let_go = scene.recorded("orders", "a", Duration::ZERO);
    assert_eq!(scene.starts(), []);
    let newer = scene.next_id();
    scene.schedule.claimed(newer, &orders, a);
    assert_eq!(scene.attempts(), [newer]);
    scene.answer(newer, Outcome::Delivered);
    assert_eq!(scene.attempts(), [let_go]);
}

#[test]
fn parked_files_of_one_name_go_one_by_one_the_oldest_first() {
    let mut scene = Scene::of_one(4);
    let oldest = scene.recorded("orders", "a", SECOND * 10);
    let newer = scene.recorded("orders", "a", Duration::ZERO);
    let other = scene.recorded("orders", "b", SECOND * 5);
    assert_eq!(scene.attempts(), [], "the newer one waits for the oldest, though it is due");
    scene.pass(SECOND * 5);
    assert_eq!(scene.attempts(), [other], "another name does not wait for them");
    scene.pass(SECOND * 5);
    assert_eq!(scene.attempts(), [oldest]);
    assert_eq!(scene.attempts(), [], "the newer one waits while the oldest is in flight");
    scene.answer(oldest, CUT);
    assert_eq!(scene.attempts(), [], "and while it is deferred");
    scene.pass(Duration::from_mins(1));
    assert_eq!(scene.attempts(), [oldest]);
    scene.answer(oldest, Outcome::Delivered);
    assert_eq!(scene.attempts(), [newer]);
}

#[test]
fn a_wake_is_told_for_each_file_though_an_earlier_one_waits_for_its_name() {
    let mut scene = Scene::of_one(4);
    let oldest = scene.recorded("orders", "a", SECOND * 20);
    scene.recorded("orders", "a", SECOND);
    let start = scene.tick;
    scene.pass(SECOND * 2);
    assert_eq!(scene.attempts(), []);
    assert_eq!(scene.next_wake(), Some(Tick(start + 20_000)), "the oldest is due then");
    scene.pass_to_wake();
    assert_eq!(scene.attempts(), [oldest]);
}

#[test]
fn a_parked_file_starts_when_it_is_due_and_a_wake_is_told_for_it() {
    let mut scene = Scene::of_one(1);
    assert_eq!(scene.next_wake(), None);
    let id = scene.recorded("orders", "a", SECOND * 3);
    assert_eq!(scene.next_wake(), Some(Tick(scene.tick + 3000)));
    assert!(!scene.schedule.is_idle());
    scene.pass(Duration::from_millis(2999));
    assert_eq!(scene.starts(), []);
    scene.pass(Duration::from_millis(1));
    assert_eq!(scene.starts(), [Start::Resume(id)]);
    scene.schedule.resumed(id);
    assert_eq!(scene.starts(), [Start::Attempt(id)]);
    scene.answer(id, Outcome::Delivered);
    assert!(scene.schedule.is_idle());
    assert_eq!(scene.next_wake(), None);
}

#[test]
fn trouble_with_disk_or_ledger_waits_longer_each_time_up_to_a_bound() {
    let mut scene = Scene::of_one(1);
    let id = scene.recorded("orders", "a", Duration::ZERO);
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert_eq!(scene.starts(), [Start::Resume(id)]);
        let before = scene.tick;
        scene.schedule.stumbled(id, Tick(before));
        scene.pass_to_wake();
        waits.push((scene.tick - before) / 1000);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 32, 32]);
}

#[test]
fn paused_time_does_not_count_as_waiting() {
    let mut scene = Scene::of_one(1);
    let id = scene.recorded("orders", "a", SECOND * 10);
    let orders = name_of("orders");
    scene.pass(SECOND * 4);
    scene.schedule.pause_by_person(&orders, scene.now());
    scene.pass(SECOND * 1000);
    scene.schedule.resume_by_person(&orders, scene.now());
    scene.pass(SECOND * 2);
    assert_eq!(scene.starts(), [Start::Resume(id)]);
    assert_eq!(scene.schedule.waited_for(id), SECOND * 6);
}

#[test]
fn waiting_adds_up_over_attempts_and_runs() {
    let mut scene = Scene::of_one(1);
    let (orders, a) = (name_of("orders"), OsStr::new("a"));
    let id = patchdrop::model::file::FileId(7);
    let (waited_for, tick) = (SECOND * 100, Tick(scene.tick));
    scene.schedule.parked_on_record(
        id,
        &orders,
        a,
        waited_for,
        Refused::Never,
        (SECOND, Errand::Attempt),
        tick,
    );
    scene.pass(SECOND);
    assert_eq!(scene.attempts(), [id]);
    scene.answer(id, CUT);
    scene.pass(Duration::from_mins(1));
    assert_eq!(scene.attempts(), [id]);
    assert_eq!(scene.schedule.waited_for(id), SECOND * 161);
}

#[test]
fn routes_take_turns_when_the_places_are_few() {
    let limits = Limits { active_max: 1, parked_max: 1000 };
    let mut scene = Scene::new(limits, &[route("a", "one", 1), route("b", "two", 1)]);
    let mut ends = [0, 0];
    for n in 0..200 {
        for (route, ends) in ["a", "b"].iter().zip(&mut ends) {
            if let Ok(id) = scene.claim(route, &n.to_string()) {
                for begun in scene.attempts() {
                    scene.answer(begun, Outcome::Delivered);
                }
                *ends += usize::from(!scene.schedule.knows(id));
            }
        }
    }
    assert_eq!(ends, [200, 200]);
}

#[test]
fn an_unknown_route_claims_nothing() {
    let scene = Scene::new(WIDE, &[]);
    assert_eq!(scene.may_claim("orders", "a"), Err(Reason::NoRoute));
    assert!(!scene.schedule.wants_files(&name_of("orders"), Tick(scene.tick)));
}

#[test]
fn a_claim_that_stumbles_takes_no_slot() {
    let mut scene = Scene::of_one(1);
    let stumbled = scene.claim("orders", "a.json").unwrap();
    scene.schedule.stumbled(stumbled, Tick(scene.tick));
    assert_eq!(scene.starts(), [], "it is parked");
    let next = scene.claim("orders", "b.json").unwrap();
    assert_eq!(scene.starts(), [Start::Attempt(next)]);
    scene.answer(next, Outcome::Delivered);
    scene.pass(SECOND);
    assert_eq!(scene.starts(), [Start::Resume(stumbled)]);
    scene.schedule.resumed(stumbled);
    assert_eq!(scene.starts(), [Start::Attempt(stumbled)]);
}

#[test]
fn a_question_that_ends_a_journey_frees_its_place() {
    let mut scene = Scene::of_one(4);
    let accepted = judged(Outcome::Delivered);
    let mut waiting = BTreeSet::new();
    for name in 0..20 {
        let id = scene.claim("orders", &name.to_string()).expect("there is room");
        assert_eq!(scene.attempts(), [id]);
        scene.schedule.answered(id, &accepted, &Next::Confirm, scene.now(), 0.0);
        scene.schedule.park(id, SECOND, Errand::Confirm, Tick(scene.tick));
        waiting.insert(id);
    }
    let mut rounds = 0;
    while !waiting.is_empty() {
        rounds += 1;
        assert!(rounds < 100, "{} were never asked for", waiting.len());
        scene.pass(SECOND);
        for start in scene.starts() {
            let Start::Ask(id) = start else { panic!("{start:?}") };
            assert!(waiting.remove(&id));
            // As the loop does where the run has succeeded: its last stage, then its end.
            scene.schedule.settling(id);
            scene.schedule.ended(id);
        }
    }
}
