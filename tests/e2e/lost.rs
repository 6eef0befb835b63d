//! A ledger that is lost, old, copied or cut: nothing is sent twice, and it says so itself.

use std::fs;
use std::process::Command;

use patchdrop::simulator::{Act, Match, Rule};
use serde_json::Value;

use super::scene::{Plan, Scene, names};

fn copy(scene: &Scene, from: &str, to: &str) {
    fs::remove_dir_all(scene.path(to)).ok();
    let copied = Command::new("cp").arg("-a").arg(scene.path(from)).arg(scene.path(to)).status();
    assert!(copied.unwrap().success());
}

/// A file that the server has and has not answered for.
fn in_flight(scene: &Scene, name: &str) {
    let when = Match { name: Some(name.to_owned()), ..Match::default() };
    scene.sim.set_rules(vec![Rule { when, act: Act::StoreThenHang, ..Rule::default() }]);
    scene.drop_file(name, format!("{{\"name\": \"{name}\"}}"));
    scene.until("the server has it", |scene| scene.arrivals().contains_key(name));
}

fn keys(scene: &Scene, name: &str) -> Vec<String> {
    let payloads = scene.sim.seen().payloads.into_iter();
    let its = payloads.filter(|payload| payload.name.as_deref() == Some(name));
    its.map(|payload| payload.key.map(String::from).unwrap_or_default()).collect()
}

fn json(scene: &Scene, code: i32, arguments: &[&str]) -> Value {
    let ended = scene.ask(&[arguments, &["--json"]].concat());
    assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}\n{}", scene.story());
    serde_json::from_str(&ended.out).unwrap()
}

#[test]
fn a_deleted_ledger_holds_what_was_on_its_way_and_keeps_its_key() {
    let mut scene = Scene::running(Plan::default());
    scene.drop_file("before.json", "{}");
    scene.until_in("sent", &["before.json"]);
    in_flight(&scene, "a.json");
    scene.kill();
    fs::remove_dir_all(scene.path("state/ledger")).unwrap();
    scene.sim.set_rules(Vec::new());
    scene.start();
    scene.until_in("held", &["a.json", "a.json.why.txt"]);
    assert_eq!(scene.code_of("held", "a.json"), "record-lost");
    let why = fs::read_to_string(scene.inbox().join("held/a.json.why.txt")).unwrap();
    assert!(why.starts_with("a.json may or may not have been accepted"), "{why}");
    assert!(!why.contains("attempt 1"), "nobody knows of an attempt: {why}");
    let record = json(&scene, 0, &["explain", "a.json"]);
    assert_eq!(record["attempts"], serde_json::json!([]), "{record}");
    let found = json(&scene, 0, &["verify"]);
    assert_eq!(found["unrecorded_in_sent"], 1, "{found}");
    assert_eq!(found["ledger_was_lost"], true, "{found}");
    // A person has looked, and lets it go: under the key of the ledger that is lost.
    assert_eq!(scene.ask(&["release", "a.json"]).code, Some(0));
    scene.until_in("sent", &["a.json", "before.json"]);
    let keys = keys(&scene, "a.json");
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert_eq!(keys[0], keys[1], "it went out under another key");
    assert_eq!(scene.arrivals()["before.json"], 1);
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn an_old_copy_starts_paused_at_every_start_until_a_person_resumes_it() {
    let mut scene = Scene::running(Plan::default());
    scene.drop_file("a.json", "{\"n\": 1}");
    scene.until_in("sent", &["a.json"]);
    assert_eq!(scene.stop(), Some(0));
    copy(&scene, "state", "backup");
    scene.start();
    scene.drop_file("b.json", "{\"n\": 2}");
    scene.until_in("sent", &["a.json", "b.json"]);
    in_flight(&scene, "c.json");
    scene.kill();
    fs::remove_dir_all(scene.path("state")).unwrap();
    fs::rename(scene.path("backup"), scene.path("state")).unwrap();
    scene.sim.set_rules(Vec::new());
    for _ in 0..3 {
        scene.start();
        let pause = scene.route("orders").unwrap().pause.expect("it starts paused");
        assert_eq!(pause.code, "ledger-behind");
        assert_eq!(scene.stop(), Some(0));
        let status = json(&scene, 0, &["status"]);
        assert_eq!(status["routes"][0]["pause"]["code"], "ledger-behind", "{status}");
    }
    scene.start();
    scene.drop_file("d.json", "{\"n\": 4}");
    scene.until("it waits", |scene| scene.waiting("paused") == 1);
    assert_eq!(scene.ask(&["resume", "orders"]).code, Some(0));
    scene.until_in("sent", &["a.json", "b.json", "d.json"]);
    scene.until_in("held", &["c.json", "c.json.why.txt"]);
    assert_eq!(scene.stop(), Some(0));
    scene.start();
    assert!(scene.route("orders").unwrap().pause.is_none(), "it was resumed");
    assert_eq!(scene.stop(), Some(0));
    assert!(scene.arrivals().values().all(|times| *times == 1), "{:?}", scene.arrivals());
    scene.verify();
}

#[test]
fn a_second_copy_is_refused_with_who_and_when_and_adopt_takes_over() {
    let mut scene = Scene::running(Plan::default());
    scene.drop_file("a.json", "{}");
    scene.until_in("sent", &["a.json"]);
    assert_eq!(scene.stop(), Some(0));
    let mark = scene.path("root/.patchdrop/owner.json");
    let mut other: Value = serde_json::from_slice(&fs::read(&mark).unwrap()).unwrap();
    other["host"] = "web-2".into();
    fs::write(&mark, other.to_string()).unwrap();
    scene.drop_file("b.json", "{}");
    let ended = scene.ask(&["run", "--once"]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    for who in ["web-2", other["written_at"].as_str().unwrap(), "patchdrop adopt"] {
        assert!(ended.err.contains(who), "{who}: {}", ended.err);
    }
    let ended = scene.ask(&["adopt"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.out.contains("web-2") && ended.out.contains("adopt --yes"), "{}", ended.out);
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(&mark).unwrap()).unwrap(), other);
    assert_eq!(scene.ask(&["adopt", "/nowhere"]).code, Some(2));
    assert_eq!(scene.ask(&["adopt", "--yes"]).code, Some(0));
    scene.start();
    scene.until_in("sent", &["a.json", "b.json"]);
    assert_eq!(scene.ask(&["adopt"]).code, Some(69), "not beside the service");
    assert_eq!(scene.stop(), Some(0));
    assert_eq!(json(&scene, 0, &["adopt"])[0]["mark"], "ours");
    scene.verify();
}

#[test]
fn what_another_instance_left_in_sending_is_held_once_its_root_is_adopted() {
    let mut scene = Scene::running(Plan::default());
    in_flight(&scene, "a.json");
    scene.kill();
    scene.sim.set_rules(Vec::new());
    // Another patchdrop, with a state folder of its own, comes upon what that one has left.
    fs::remove_dir_all(scene.path("state")).unwrap();
    mark_says(&scene.path("root/.patchdrop/owner.json"), "web-2");
    let ended = scene.ask(&["run", "--once"]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert_eq!(scene.ask(&["adopt", "--yes"]).code, Some(0));
    scene.start();
    scene.until_in("held", &["a.json", "a.json.why.txt"]);
    assert_eq!(scene.code_of("held", "a.json"), "record-lost");
    assert_eq!(scene.ask(&["release", "a.json"]).code, Some(0));
    scene.until_in("sent", &["a.json"]);
    let keys = keys(&scene, "a.json");
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

fn mark_says(mark: &std::path::Path, host: &str) {
    let mut other: Value = serde_json::from_slice(&fs::read(mark).unwrap()).unwrap();
    other["host"] = host.into();
    fs::write(mark, other.to_string()).unwrap();
}

#[test]
fn a_root_that_comes_back_as_somebody_elses_is_left_alone() {
    let mut scene = Scene::running(Plan { top: "poll_every = '1s'", ..Plan::default() });
    assert_eq!(scene.stop(), Some(0));
    fs::rename(scene.path("root"), scene.path("aside")).unwrap();
    scene.launch();
    scene.until("it runs", |scene| scene.status().is_some());
    mark_says(&scene.path("aside/.patchdrop/owner.json"), "web-2");
    scene.drop_into(&scene.path("aside/orders"), "a.json", "{}");
    fs::rename(scene.path("aside"), scene.path("root")).unwrap();
    scene.until("that is said", |scene| {
        scene.status().is_some_and(|status| status.alerts.iter().any(|it| it.contains("web-2")))
    });
    assert_eq!(names(&scene.inbox()), ["a.json", "failed", "held", "sending", "sent"]);
    // Its owner has gone, and the mark is ours again.
    mark_says(&scene.path("root/.patchdrop/owner.json"), uname().trim());
    scene.until_in("sent", &["a.json"]);
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

fn uname() -> String {
    String::from_utf8(Command::new("uname").arg("-n").output().unwrap().stdout).unwrap()
}

#[test]
fn a_root_that_was_taken_over_is_told_at_the_end_and_its_mark_left_alone() {
    let mut scene = Scene::running(Plan::default());
    let mark = scene.path("root/.patchdrop/owner.json");
    mark_says(&mark, "web-2");
    assert_eq!(scene.stop(), Some(78));
    assert!(scene.log().contains("web-2"), "{}", scene.log());
    assert!(fs::read_to_string(&mark).unwrap().contains("web-2"));
}

#[test]
fn what_was_sent_under_a_ledger_that_is_gone_is_never_called_a_stranger_s() {
    let mut scene = Scene::running(Plan::default());
    scene.drop_file("a.json", "{}");
    scene.until_in("sent", &["a.json"]);
    assert_eq!(scene.stop(), Some(0));
    fs::rename(scene.path("state"), scene.path("aside")).unwrap();
    // The administrator looks before the next start, when no ledger is there.
    let found = json(&scene, 3, &["verify"]);
    assert_eq!(found["faults"][0]["fault"], "other-ledger", "{found}");
    assert_eq!(
        (&found["unrecorded_in_sent"], &found["ledger_was_lost"]),
        (&1.into(), &true.into())
    );
    let told = scene.ask(&["verify"]).out;
    assert!(told.contains("sent, record lost") && !told.contains("No fault"), "{told}");
    // Another config, with a ledger of its own, looks at the same root.
    mark_says(&scene.path("root/.patchdrop/owner.json"), "web-2");
    assert_eq!(scene.ask(&["run", "--once"]).code, Some(78));
    let found = json(&scene, 3, &["verify"]);
    assert_eq!(found["faults"][0]["fault"], "other-ledger", "{found}");
}

#[test]
fn what_an_old_copy_does_not_know_is_never_called_a_stranger_s_even_after_it_was_resumed() {
    let mut scene = Scene::running(Plan::default());
    scene.drop_file("a.json", "{\"n\": 1}");
    scene.until_in("sent", &["a.json"]);
    assert_eq!(scene.stop(), Some(0));
    copy(&scene, "state", "backup");
    scene.start();
    scene.drop_file("b.json", "{\"n\": 2}");
    scene.until_in("sent", &["a.json", "b.json"]);
    assert_eq!(scene.stop(), Some(0));
    fs::remove_dir_all(scene.path("state")).unwrap();
    fs::rename(scene.path("backup"), scene.path("state")).unwrap();
    let found = json(&scene, 3, &["verify"]);
    assert_eq!(found["faults"][0]["fault"], "older-copy", "{found}");
    scene.start();
    assert_eq!(scene.ask(&["resume", "orders"]).code, Some(0));
    for _ in 0..2 {
        let told = scene.ask(&["verify"]);
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(told.out.contains("1 file  sent, record lost"), "{}", told.out);
        assert_eq!(scene.stop(), Some(0));
        scene.start();
    }
    scene.stop_and_verify();
}

/// The WAL cut to this part of its length while a file was in flight and others had been sent.
fn check_cut(part: u64, whole: u64) {
    let mut scene = Scene::running(Plan::default());
    for number in 0..5 {
        scene.drop_file(format!("{number}.json"), format!("{{\"n\": {number}}}"));
    }
    scene.until("they are sent", |scene| names(&scene.inbox().join("sent")).len() == 5);
    in_flight(&scene, "a.json");
    scene.kill();
    let wal = fs::File::options().write(true).open(scene.path("state/ledger/ledger.db-wal"));
    let wal = wal.unwrap();
    wal.set_len(wal.metadata().unwrap().len() * part / whole).unwrap();
    scene.sim.set_rules(Vec::new());
    scene.start();
    if scene.route("orders").unwrap().pause.is_some() {
        assert_eq!(scene.ask(&["resume", "orders"]).code, Some(0));
    }
    scene.until_in("held", &["a.json", "a.json.why.txt"]);
    scene.drop_file("b.json", "{}");
    scene.until("sending goes on", |scene| scene.arrivals().contains_key("b.json"));
    scene.until("it is sent", |scene| names(&scene.inbox().join("sending")).is_empty());
    assert_eq!(scene.stop(), Some(0));
    let arrivals = scene.arrivals();
    assert!(arrivals.values().all(|times| *times == 1), "{part}/{whole}: {arrivals:?}");
    assert_eq!(arrivals.len(), 7);
    scene.verify();
}

#[test]
fn a_wal_that_has_lost_its_tail_sends_nothing_twice() {
    for part in 0..4 {
        check_cut(part, 4);
    }
}
