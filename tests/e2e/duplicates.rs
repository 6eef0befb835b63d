//! The same bytes for the same URL go out once where a route says so (promises P3 and P4).

use patchdrop::simulator::{Act, Rule};

use super::scene::{Plan, Scene, names};

const SKIP: &str = "duplicates = 'skip'\nconcurrency = 8";
const HOLD: &str = "duplicates = 'hold'\nconcurrency = 8";

#[test]
fn equal_files_dropped_at_once_go_out_once_and_all_are_sent() {
    let mut scene = Scene::running(Plan { defaults: SKIP, ..Plan::default() });
    for number in 0..40 {
        scene.drop_file(format!("{number}.json"), "{\"order\": 1}");
    }
    scene.drop_file("other.json", "{\"order\": 2}");
    scene.until("all are sent", |scene| names(&scene.inbox().join("sent")).len() == 41);
    assert_eq!(scene.arrived().len(), 2, "{}", scene.story());
    scene.verify();
    // The record outlives the process.
    assert_eq!(scene.stop(), Some(0));
    scene.start();
    scene.drop_file("late.json", "{\"order\": 1}");
    scene.until("it is sent", |scene| names(&scene.inbox().join("sent")).len() == 42);
    assert_eq!(scene.arrived().len(), 2, "{}", scene.story());
    let told = scene.ask(&["explain", "late.json"]);
    assert!(told.out.contains("the same bytes were accepted"), "{told:?}");
    scene.verify();
}

#[test]
fn a_held_duplicate_goes_out_when_a_person_lets_it_go() {
    let scene = Scene::running(Plan { defaults: HOLD, ..Plan::default() });
    scene.drop_file("a.json", "{\"order\": 1}");
    scene.until_in("sent", &["a.json"]);
    scene.drop_file("b.json", "{\"order\": 1}");
    scene.until_in("held", &["b.json", "b.json.why.txt"]);
    assert_eq!(scene.code_of("held", "b.json"), "duplicate-of");
    assert_eq!(scene.arrived().len(), 1);
    let released = scene.ask(&["release", "b.json"]);
    assert_eq!(released.code, Some(0), "{released:?}");
    scene.until_in("sent", &["a.json", "b.json"]);
    assert_eq!(scene.arrived().len(), 2);
    scene.verify();
}

#[test]
fn a_file_waits_while_its_twin_is_in_doubt_and_is_not_sent_if_that_had_arrived() {
    let scene = Scene::running(Plan { defaults: SKIP, ..Plan::default() });
    scene.sim.set_rules(vec![Rule {
        act: Act::StoreThenAnswer { status: 504 },
        first: Some(1),
        ..Rule::default()
    }]);
    scene.drop_file("a.json", "{\"order\": 1}");
    scene.until_in("held", &["a.json", "a.json.why.txt"]);
    scene.drop_file("b.json", "{\"order\": 1}");
    scene.until("the second waits and says why", |scene| {
        scene.ask(&["explain", "b.json"]).out.contains("the same bytes may have been accepted")
    });
    assert_eq!(scene.arrived().len(), 1, "{}", scene.story());
    let marked = scene.ask(&["mark", "a.json", "--sent", "--note", "it is there"]);
    assert_eq!(marked.code, Some(0), "{marked:?}");
    scene.until_in("sent", &["a.json", "b.json"]);
    assert_eq!(scene.arrived().len(), 1, "{}", scene.story());
    scene.verify();
}
