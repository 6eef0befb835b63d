//! Routes that keep an order: one file at a time, and none past the one ahead of it.

use std::ffi::OsStr;
use std::time::Duration;

use patchdrop::journey::detect::Reason;
use patchdrop::journey::runs::Errand;
use patchdrop::journey::schedule::Start;
use patchdrop::journey::settle::Next;
use patchdrop::model::outcome::Outcome;
use patchdrop::model::route::{OnFailed, OrderBy, Ordered, Route};
use patchdrop::model::time::Tick;

use crate::scene::{CUT, DOWN, SECOND, Scene, WIDE, judged, name_of, route};

const BOTH: [OrderBy; 2] = [OrderBy::Name, OrderBy::Arrival];

pub(crate) fn ordered(name: &str, host: &str, by: OrderBy) -> Route {
    let order = Some(Ordered { by, on_failed: OnFailed::Skip });
    Route { order, ..route(name, host, 4) }
}

fn of_one(by: OrderBy) -> Scene {
    Scene::new(WIDE, &[ordered("orders", "server.example", by)])
}

#[test]
fn one_file_is_on_its_way_at_a_time() {
    for by in BOTH {
        let mut scene = of_one(by);
        let orders = name_of("orders");
        for n in 0..5 {
            scene.schedule.look_begun(&orders, OsStr::new("look"), Tick(scene.tick));
            assert_eq!(scene.may_claim("orders", "other"), Err(Reason::InLine), "one is looked at");
            scene.schedule.look_ended(&orders, OsStr::new("look"));
            let id = scene.claim("orders", &n.to_string()).expect("none is on its way");
            assert_eq!(scene.may_claim("orders", "other"), Err(Reason::InLine), "one waits");
            assert!(!scene.schedule.wants_files(&orders, Tick(scene.tick)));
            assert_eq!(scene.attempts(), [id]);
            assert_eq!(scene.may_claim("orders", "other"), Err(Reason::InLine), "one is sent");
            scene.answer(id, Outcome::Delivered);
            assert!(scene.schedule.wants_files(&orders, Tick(scene.tick)));
        }
    }
}

#[test]
fn a_deferred_file_blocks_until_it_has_gone() {
    for outcome in [CUT, DOWN, Outcome::RouteFault] {
        let mut scene = of_one(OrderBy::Name);
        let id = scene.claim("orders", "1").expect("none is on its way");
        for _ in 0..20 {
            let mut begun = scene.attempts();
            while begun.is_empty() {
                assert!(scene.may_claim("orders", "2").is_err(), "{outcome:?}");
                scene.pass_to_wake();
                begun = scene.attempts();
            }
            assert_eq!(begun, [id], "the head probes, and nobody else");
            scene.answer(id, outcome.clone());
        }
        while scene.attempts().is_empty() {
            scene.pass_to_wake();
        }
        scene.answer(id, Outcome::Delivered);
        scene.claim("orders", "2").expect("the next one's turn");
    }
}

#[test]
fn one_that_waits_for_its_run_blocks_too() {
    for errand in [Errand::Confirm, Errand::LookUp] {
        let mut scene = of_one(OrderBy::Arrival);
        let id = scene.claim("orders", "1").expect("none is on its way");
        let old = scene.recorded("orders", "0", Duration::ZERO);
        assert_eq!(scene.attempts(), [id]);
        let accepted = judged(Outcome::Delivered);
        scene.schedule.answered(id, &accepted, &Next::Confirm, scene.now(), 0.0);
        scene.schedule.park(id, SECOND * 30, errand, Tick(scene.tick));
        assert_eq!(scene.may_claim("orders", "2"), Err(Reason::InLine), "{errand:?}");
        assert_eq!(scene.attempts(), [], "{errand:?}");
        scene.schedule.ended(id);
        assert_eq!(scene.attempts(), [old]);
    }
}

#[test]
fn files_of_an_earlier_run_go_one_by_one_in_the_order_of_the_route() {
    #[track_caller]
    fn check(by: OrderBy, expected: [usize; 4]) {
        let mut scene = of_one(by);
        let names = ["10.json", "9.json", "1.json", "2.json"];
        let waits = [0, 0, 50, 0];
        let ids: Vec<_> = names
            .iter()
            .zip(waits)
            .map(|(name, wait)| scene.recorded("orders", name, SECOND * wait))
            .collect();
        let mut gone = Vec::new();
        while gone.len() < ids.len() {
            assert_eq!(scene.may_claim("orders", "0.json"), Err(Reason::InLine));
            let begun = scene.attempts();
            assert!(begun.len() <= 1, "{begun:?}");
            for id in begun {
                scene.answer(id, Outcome::Delivered);
                gone.push(id);
            }
            if gone.len() < ids.len() && scene.next_wake().is_some() {
                scene.pass_to_wake();
            }
        }
        assert_eq!(gone, expected.map(|n| ids[n]), "{by:?}");
    }
    check(OrderBy::Name, [2, 3, 1, 0]);
    check(OrderBy::Arrival, [0, 1, 2, 3]);
}

#[test]
fn one_that_a_person_lets_go_waits_for_the_one_on_its_way_and_takes_its_place() {
    let mut scene = of_one(OrderBy::Name);
    let five = scene.claim("orders", "5").expect("none is on its way");
    let seven = scene.recorded("orders", "7", Duration::ZERO);
    let two = scene.recorded("orders", "2", Duration::ZERO);
    assert_eq!(scene.attempts(), [five]);
    scene.answer(five, Outcome::Delivered);
    assert_eq!(scene.attempts(), [two]);
    scene.answer(two, CUT);
    assert_eq!(scene.starts(), [], "it waits for its next attempt, and the other for it");
    scene.pass(SECOND * 60);
    assert_eq!(scene.attempts(), [two]);
    scene.answer(two, Outcome::Delivered);
    assert_eq!(scene.attempts(), [seven]);
}

#[test]
fn a_held_file_blocks_claims_until_a_person_has_decided_and_not_what_a_person_let_go() {
    let mut scene = of_one(OrderBy::Name);
    let orders = name_of("orders");
    scene.schedule.hold_up(&orders, true);
    assert_eq!(scene.may_claim("orders", "2"), Err(Reason::InLine));
    assert!(!scene.schedule.wants_files(&orders, Tick(scene.tick)));
    let released = scene.recorded("orders", "1", Duration::ZERO);
    assert_eq!(scene.attempts(), [released]);
    scene.answer(released, Outcome::Delivered);
    assert_eq!(scene.may_claim("orders", "2"), Err(Reason::InLine));
    scene.schedule.hold_up(&orders, false);
    assert_eq!(scene.may_claim("orders", "2"), Ok(()));

    let mut scene = Scene::of_one(1);
    scene.schedule.hold_up(&orders, true);
    assert_eq!(scene.may_claim("orders", "2"), Ok(()), "no order, no queue");
}

#[test]
fn a_pause_by_a_person_shelves_the_head_and_it_is_the_head_afterwards() {
    let mut scene = of_one(OrderBy::Name);
    let orders = name_of("orders");
    let id = scene.claim("orders", "1").expect("none is on its way");
    scene.schedule.pause_by_person(&orders, scene.now());
    assert_eq!(scene.starts(), [Start::Shelve(id)]);
    scene.schedule.park(id, Duration::ZERO, Errand::Attempt, Tick(scene.tick));
    scene.schedule.resume_by_person(&orders, scene.now());
    assert_eq!(scene.may_claim("orders", "0"), Err(Reason::InLine));
    assert_eq!(scene.attempts(), [id]);
}
