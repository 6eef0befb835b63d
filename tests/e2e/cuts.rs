//! A service that is not synced (`durability = "process-crash"`), and starts in another boot.

use patchdrop::simulator::{Act, Match, Rule};

use super::scene::{Plan, Scene, UNSYNCED, files, names};

fn unsynced() -> Scene {
    Scene::running(Plan { tables: UNSYNCED, ..Plan::default() })
}

/// As if the system had been started anew since.
fn another_boot(scene: &Scene) {
    let ledger = rusqlite::Connection::open(scene.path("state/ledger/ledger.db")).unwrap();
    let change = "UPDATE ledger SET unsynced_boot = 'another' WHERE unsynced_boot IS NOT NULL";
    ledger.execute(change, []).unwrap();
    let begun = scene.path("state/begun");
    let text = std::fs::read_to_string(&begun).unwrap();
    let boot = text.split(' ').nth(1).unwrap().to_owned();
    std::fs::write(&begun, text.replacen(&boot, "another", 1)).unwrap();
}

fn rule(scene: &Scene, name: &str, act: Act) {
    let when = Match { name: Some(name.to_owned()), ..Match::default() };
    scene.sim.set_rules(vec![Rule { when, act, ..Rule::default() }]);
}

#[test]
fn another_boot_without_a_clean_end_holds_what_was_under_way_and_pauses_until_a_person_looked() {
    let mut scene = unsynced();
    scene.drop_file("before.json", "{}");
    scene.until_in("sent", &["before.json"]);
    rule(&scene, "waits.json", Act::Answer { status: 503, message: None, retry_after: None });
    scene.drop_file("waits.json", "{\"n\": 1}");
    scene.until("it has been tried", |scene| scene.posts() > 1);
    scene.kill();
    another_boot(&scene);
    // It has come back to where it was dropped, and its record is lost: it looks like a new one.
    scene.drop_file("back.json", "{\"n\": 2}");
    scene.sim.set_rules(Vec::new());
    let posts = scene.posts();
    scene.start();
    scene.until_in("held", &["waits.json", "waits.json.why.txt"]);
    assert_eq!(scene.code_of("held", "waits.json"), "no-answer-on-record");
    scene.until("the other waits", |scene| scene.waiting("paused") == 1);
    let pause = scene.route("orders").unwrap().pause.expect("it starts paused");
    assert_eq!(pause.code, "unclean-boot");
    assert!(pause.remedy.contains("patchdrop resume orders"), "{pause:?}");
    assert!(scene.log().contains("the system was started anew"), "{}", scene.log());
    // The pause outlives an end in order, and what was sent before is not sent again.
    assert_eq!(scene.stop(), Some(0));
    scene.start();
    scene.until("it still waits", |scene| scene.waiting("paused") == 1);
    assert_eq!(scene.posts(), posts, "nothing is sent before a person has looked");
    assert_eq!(scene.ask(&["resume", "orders"]).code, Some(0));
    scene.until_in("sent", &["back.json", "before.json"]);
    assert_eq!(names(&scene.inbox().join("held")), ["waits.json", "waits.json.why.txt"]);
    assert_eq!(scene.arrivals()["before.json"], 1);
    scene.stop_and_verify();
}

#[test]
fn another_boot_after_an_end_in_order_is_an_ordinary_start() {
    let mut scene = unsynced();
    scene.drop_file("before.json", "{}");
    scene.until_in("sent", &["before.json"]);
    assert_eq!(scene.stop(), Some(0));
    another_boot(&scene);
    scene.start();
    scene.drop_file("after.json", "{}");
    scene.until_in("sent", &["after.json", "before.json"]);
    assert_eq!(files(&scene.inbox().join("held")), [""; 0]);
    scene.stop_and_verify();
}

#[test]
fn a_change_back_to_syncing_does_not_forget_that_nothing_was_synced() {
    let mut scene = unsynced();
    scene.drop_file("before.json", "{}");
    scene.until_in("sent", &["before.json"]);
    scene.kill();
    another_boot(&scene);
    scene.configure("", "", "");
    scene.drop_file("new.json", "{}");
    scene.start();
    scene.until("it waits", |scene| scene.waiting("paused") == 1);
    assert_eq!(scene.route("orders").unwrap().pause.unwrap().code, "unclean-boot");
    scene.stop_and_verify();
}
