//! Many files: each exactly once, byte for byte, with as few tokens as can be.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use patchdrop::model::file::Digest;
use patchdrop::simulator::SimulatorOptions;
use sha2::{Digest as _, Sha256};

use super::scene::{Plan, Scene, age, files, names, scale};

/// A document of about 2 KB that no other is.
fn document(number: u64) -> String {
    let rows: Vec<String> =
        (0..60).map(|row| format!("{{\"sku\": \"{number}-{row}\", \"qty\": {row}}}")).collect();
    format!("{{\"order\": {number}, \"rows\": [{}]}}", rows.join(", "))
}

fn drop_numbered(scene: &Scene, numbers: std::ops::Range<u64>) {
    for number in numbers {
        scene.drop_file(format!("{number}.json"), document(number));
    }
}

/// Exactly these arrived, each once, each whole; nothing else is anywhere.
fn check_all_arrived(scene: &Scene, numbers: std::ops::Range<u64>) {
    let expected: BTreeMap<String, Digest> = numbers
        .map(|number| {
            let digest = Sha256::digest(document(number).as_bytes());
            (format!("{number}.json"), Digest(digest.into()))
        })
        .collect();
    let seen = scene.sim.seen();
    assert_eq!(seen.accepted, expected.len() as u64);
    let arrived: BTreeMap<String, Digest> = seen
        .payloads
        .into_iter()
        .map(|payload| (String::from(payload.name.unwrap()), payload.sha256))
        .collect();
    assert!(arrived == expected, "{} of {} names arrived", arrived.len(), expected.len());
    let inbox = scene.inbox();
    assert_eq!(names(&inbox.join("sent")).len(), expected.len());
    for folder in ["sending", "failed", "held"] {
        assert_eq!(names(&inbox.join(folder)), [""; 0], "{folder}");
    }
    assert_eq!(files(&inbox), [""; 0]);
}

fn until_sent(scene: &Scene, count: u64) {
    scene.until(&format!("{count} are sent"), |scene| {
        scene.sim.counts().accepted >= count
            && names(&scene.inbox().join("sent")).len() as u64 >= count
    });
}

#[test]
fn files_renamed_in_arrive_exactly_once_with_one_token_in_all() {
    let count = scale("PATCHDROP_E2E_FILES", 10_000);
    let mut scene =
        Scene::running(Plan { simulator: SimulatorOptions::default(), ..Plan::default() });
    drop_numbered(&scene, 0..count);
    until_sent(&scene, count);
    check_all_arrived(&scene, 0..count);
    assert_eq!(scene.sim.counts().token_requests, 1);
    // A restart costs none.
    assert_eq!(scene.stop(), Some(0));
    scene.start();
    drop_numbered(&scene, count..count + 10);
    until_sent(&scene, count + 10);
    assert_eq!(scene.sim.counts().token_requests, 1);
    // One that ends midway costs one, and no file.
    drop_numbered(&scene, count + 10..count + 200);
    scene.sim.revoke_tokens();
    drop_numbered(&scene, count + 200..count + 400);
    until_sent(&scene, count + 400);
    check_all_arrived(&scene, 0..count + 400);
    assert_eq!(scene.sim.counts().token_requests, 2);
    scene.verify();
}

#[test]
fn files_that_are_there_at_the_start_go_by_run_once_which_ends_with_0() {
    let scene = Scene::of(Plan { simulator: SimulatorOptions::default(), ..Plan::default() });
    drop_numbered(&scene, 0..1_000);
    let ended = scene.ask(&["run", "--once"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    check_all_arrived(&scene, 0..1_000);
    assert_eq!(scene.sim.counts().token_requests, 1);
    scene.verify();
}

#[test]
fn run_once_ends_with_3_when_a_file_failed_and_69_when_the_server_stays_away() {
    let scene = Scene::of(Plan::default());
    scene.drop_file("bad.json", "nonsense");
    scene.drop_file("good.json", "{}");
    assert_eq!(scene.ask(&["run", "--once"]).code, Some(3));
    assert_eq!(names(&scene.inbox().join("sent")), ["good.json"]);
    scene.sim.stop();
    scene.drop_file("late.json", "{}");
    let ended = scene.ask(&["run", "--once", "--for", "2s"]);
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert_eq!(names(&scene.inbox().join("failed")), ["bad.json", "bad.json.why.txt"]);
    scene.verify();
}

#[test]
fn files_a_year_old_at_the_first_start_wait_until_they_are_released() {
    let mut scene = Scene::of(Plan { simulator: SimulatorOptions::default(), ..Plan::default() });
    drop_numbered(&scene, 0..500);
    for number in 0..500 {
        let path = scene.inbox().join(format!("{number}.json"));
        age(&path, Duration::from_hours(24 * 365));
    }
    fs::write(scene.inbox().join("500.json"), document(500)).unwrap();
    scene.start();
    until_sent(&scene, 1);
    scene.until("all are counted", |scene| scene.waiting("older-than-first-sweep") == 500);
    // Not at the next start either, and an old time on a new file is no reason to wait.
    assert_eq!(scene.stop(), Some(0));
    scene.start();
    let late = scene.path("outside/501.json");
    fs::write(&late, document(501)).unwrap();
    age(&late, Duration::from_hours(24 * 365));
    fs::rename(&late, scene.inbox().join("501.json")).unwrap();
    until_sent(&scene, 2);
    assert_eq!(files(&scene.inbox()).len(), 500);
    assert_eq!(scene.posts(), 2);
    let ended = scene.ask(&["release", "--route", "orders"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    until_sent(&scene, 502);
    check_all_arrived(&scene, 0..502);
    scene.verify();
}
