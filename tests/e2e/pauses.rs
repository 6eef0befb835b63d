//! A fault that is not the files' own never costs a file (promise P5).

use std::time::Duration;

use patchdrop::simulator::SimulatorOptions;

use super::scene::{Plan, Scene, beat, files, names};

const FILES: usize = 1_000;

fn drop_many(scene: &Scene, folder: &str) {
    let folder = scene.path("root").join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    for number in 0..FILES {
        scene.drop_into(&folder, format!("{number}.json"), format!("{{\"n\": {number}}}"));
    }
}

#[test]
fn a_misspelt_vanity_costs_a_handful_of_requests_and_no_file() {
    let vanities = Some(["stock".to_owned()].into());
    let mut scene = Scene::running(Plan {
        tables: "[route.orders]\nvanity = 'stok'",
        simulator: SimulatorOptions { vanities, ..SimulatorOptions::default() },
        ..Plan::default()
    });
    drop_many(&scene, "orders");
    scene.until("the route pauses itself", |scene| {
        let route = scene.route("orders").unwrap();
        route.pause.is_some_and(|pause| pause.code == "http-404")
            && route.waiting.values().map(|waiting| waiting.files).sum::<u64>() > 900
    });
    // What it does in some seconds of its own: probes, ever more seldom.
    beat(Duration::from_secs(4));
    assert!(scene.posts() <= 12, "{} requests\n{}", scene.posts(), scene.story());
    assert_eq!(names(&scene.inbox().join("failed")), [""; 0]);
    assert_eq!(names(&scene.inbox().join("held")), [""; 0]);
    assert_eq!(scene.stop(), Some(0));
    scene.configure("", "", "[route.orders]\nvanity = 'stock'");
    scene.start();
    scene.until("all go out", |scene| names(&scene.inbox().join("sent")).len() == FILES);
    assert_eq!(scene.arrivals().len(), FILES);
    assert_eq!(scene.sim.counts().accepted, FILES as u64);
    assert_eq!(names(&scene.inbox().join("failed")), [""; 0]);
    scene.verify();
}

#[test]
fn a_server_that_is_down_for_a_while_costs_no_file_and_sending_resumes_by_itself() {
    let mut scene = Scene::running(Plan {
        defaults: "retry = { first = '100ms', factor = 1.5, max = '500ms', give_up_after = '2s' }",
        ..Plan::default()
    });
    scene.drop_file("before.json", "{}");
    scene.until_in("sent", &["before.json"]);
    scene.sim.stop();
    for number in 0..100 {
        scene.drop_file(format!("{number}.json"), "{}");
    }
    scene.until("the destination pauses", |scene| {
        let status = scene.status().unwrap();
        status.destinations.iter().any(|destination| destination.pause.is_some())
    });
    // Longer than give_up_after: paused time does not count.
    beat(Duration::from_millis(3_500));
    assert_eq!(names(&scene.inbox().join("failed")), [""; 0], "{}", scene.story());
    scene.revive();
    scene.until("all go out", |scene| names(&scene.inbox().join("sent")).len() == 101);
    assert_eq!(scene.arrivals().len(), 100);
    assert_eq!(scene.sim.counts().accepted, 100);
    assert_eq!(names(&scene.inbox().join("failed")), [""; 0]);
    assert_eq!(files(&scene.inbox()), [""; 0]);
    // One line a change, whatever waits and however often it was tried.
    let log = scene.log();
    let lines = |text| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!((lines("destination paused"), lines("destination goes on")), (1, 1), "{log}");
    assert_eq!(lines("WARN") + lines("ERROR"), 2, "{log}");
    scene.verify();
}

#[test]
fn a_token_that_is_good_for_two_files_only_is_replaced_as_often_as_needed() {
    let scene = Scene::running(Plan {
        defaults: "concurrency = 1",
        simulator: SimulatorOptions { token_uses_max: Some(2), ..SimulatorOptions::default() },
        ..Plan::default()
    });
    for number in 0..9 {
        scene.drop_file(format!("{number}.json"), "{}");
    }
    // Each token was taken before it was refused, so no refresh has to wait.
    scene.until("all go out", |scene| names(&scene.inbox().join("sent")).len() == 9);
    assert_eq!(scene.sim.seen().tokens_issued, 5);
    scene.verify();
}

#[test]
fn an_api_that_takes_no_token_is_probed_without_wearing_out_the_token_url() {
    let scene = Scene::running(Plan {
        defaults: "retry = { first = '100ms', factor = 1.5, max = '300ms', give_up_after = '1d' }",
        simulator: SimulatorOptions { token_uses_max: Some(0), ..SimulatorOptions::default() },
        ..Plan::default()
    });
    scene.drop_file("order.json", "{}");
    scene.until("probes go on", |scene| scene.posts() >= 6);
    // One that was fetched and one that was forced; the next may be forced after 30 s.
    assert_eq!(scene.sim.seen().token_requests, 2);
    assert_eq!(names(&scene.inbox().join("failed")), [""; 0]);
}

#[test]
fn an_old_copy_of_the_ledger_starts_paused_and_says_so_itself() {
    let mut scene = Scene::running(Plan::default());
    scene.drop_file("a.json", "{\"n\": 1}");
    scene.until_in("sent", &["a.json"]);
    assert_eq!(scene.stop(), Some(0));
    // A later copy has given out ids that this ledger does not know.
    let mark = scene.path("root/.patchdrop/owner.json");
    let text = std::fs::read_to_string(&mark).unwrap();
    let mut later: serde_json::Value = serde_json::from_str(&text).unwrap();
    let end = later["reserved_end"].as_u64().unwrap();
    later["reserved_end"] = (end + 50_000).into();
    std::fs::write(&mark, later.to_string()).unwrap();
    scene.start();
    scene.drop_file("b.json", "{\"n\": 2}");
    scene.until("it waits", |scene| scene.waiting("paused") == 1);
    let pause = scene.route("orders").unwrap().pause.expect("it starts paused");
    assert_eq!(pause.code, "ledger-behind");
    assert!(pause.remedy.contains("patchdrop resume orders"), "{pause:?}");
    assert_eq!(scene.arrivals().len(), 1);
    assert_eq!(scene.ask(&["resume", "orders"]).code, Some(0));
    scene.until_in("sent", &["a.json", "b.json"]);
    scene.stop_and_verify();
}
