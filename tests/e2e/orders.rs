//! Routes that keep an order, over kills, failures and people; and a server that never answers.

use std::time::Duration;

use patchdrop::simulator::{Act, Match, Per, Rule, SimulatorOptions};

use super::scene::{Plan, Scene, beat, names};

const BY_NAME: &str = "[route.orders]\norder = 'name'\non_failed = 'pause'\nin_doubt = 'resend'\n\
                       retry = { first = '100ms', max = '300ms' }";

fn rule(name: Option<&str>, first: Option<u64>, per: Per, act: Act) -> Rule {
    let when = Match { name: name.map(str::to_owned), ..Match::default() };
    Rule { when, first, per, act }
}

/// The names in the order in which the simulator took them, one after the other the same once.
fn taken(scene: &Scene) -> Vec<String> {
    let mut names: Vec<String> = scene.arrived().into_iter().map(|(_, name, _)| name).collect();
    names.dedup();
    names
}

fn numbered(numbers: impl Iterator<Item = u32>) -> Vec<String> {
    numbers.map(|number| format!("{number}.json")).collect()
}

#[test]
fn files_leave_by_name_over_kills_and_a_server_in_trouble() {
    let trouble = rule(
        None,
        Some(1),
        Per::Key,
        Act::Answer { status: 503, message: None, retry_after: None },
    );
    let mut scene = Scene::of(Plan {
        tables: BY_NAME,
        simulator: SimulatorOptions {
            keep_bodies: true,
            rules: vec![trouble],
            ..SimulatorOptions::default()
        },
        ..Plan::default()
    });
    // Dropped from the last to the first, and the last of all is the smallest.
    for name in numbered((1..=24).rev()) {
        scene.drop_file(name, "{}");
    }
    scene.drop_file("0.json", "{}");
    for kills in 1..=3 {
        scene.launch();
        scene.until("some have gone", |scene| scene.arrivals().len() >= kills * 4);
        scene.kill();
    }
    scene.start();
    scene.until("all have gone", |scene| names(&scene.inbox().join("sent")).len() == 25);
    assert_eq!(taken(&scene), numbered(0..=24));
    scene.verify();
}

#[test]
fn a_file_that_fails_pauses_its_route_and_a_restart_keeps_that() {
    let mut scene = Scene::of(Plan { tables: BY_NAME, ..Plan::default() });
    scene.drop_file("3.json", "{}");
    scene.drop_file("2.json", "{\"broken\": ]");
    scene.drop_file("1.json", "{}");
    scene.start();
    scene.until_in("sent", &["1.json"]);
    scene.until_in("failed", &["2.json", "2.json.why.txt"]);
    for restarts in 0..2 {
        scene.until("the route is paused for it", |scene| {
            let pause = scene.route("orders").and_then(|route| route.pause);
            pause.is_some_and(|pause| pause.code == "order-failed" && pause.text.contains("2.json"))
        });
        scene.until("the next one is counted", |scene| scene.waiting("in-line") == 1);
        if restarts == 0 {
            scene.kill();
            scene.start();
        }
    }
    assert_eq!(taken(&scene), ["1.json"]);
    assert_eq!(scene.ask(&["resume", "orders"]).code, Some(0));
    scene.until_in("sent", &["1.json", "3.json"]);
    scene.verify();
}

#[test]
fn a_held_file_blocks_its_route_over_a_restart_until_a_person_decides() {
    for how in ["release", "mark", "move"] {
        let lost = rule(Some("1.json"), Some(1), Per::Key, Act::StoreThenCut);
        let mut scene = Scene::of(Plan {
            tables: "[route.orders]\norder = 'arrival'\non_failed = 'skip'",
            top: "sweep_every = '500ms'",
            simulator: SimulatorOptions { rules: vec![lost], ..SimulatorOptions::default() },
            ..Plan::default()
        });
        scene.start();
        scene.drop_file("1.json", "{}");
        scene.until_in("held", &["1.json", "1.json.why.txt"]);
        scene.drop_file("2.json", "{}");
        scene.kill();
        scene.start();
        scene.until("the route says why it waits", |scene| {
            let pause = scene.route("orders").and_then(|route| route.pause);
            pause.is_some_and(|pause| pause.code == "order-held" && pause.text.contains("1.json"))
        });
        scene.until("the next one is counted", |scene| scene.waiting("in-line") == 1);
        match how {
            "release" => assert_eq!(scene.ask(&["release", "1.json"]).code, Some(0)),
            "mark" => {
                let said = scene.ask(&["mark", "1.json", "--sent", "--note", "it is there"]);
                assert_eq!(said.code, Some(0), "{said:?}");
            }
            _ => {
                let held = scene.inbox().join("held");
                std::fs::rename(held.join("1.json"), scene.path("outside/1.json")).unwrap();
            }
        }
        let sent: &[&str] = if how == "move" { &["2.json"] } else { &["1.json", "2.json"] };
        scene.until_in("sent", sent);
        let newest = scene.sim.seen().payloads.pop().unwrap().name.map(String::from);
        assert_eq!(newest.as_deref(), Some("2.json"), "{how}");
    }
}

#[test]
fn a_file_that_is_not_complete_keeps_those_behind_it_waiting() {
    let mut scene =
        Scene::of(Plan { tables: BY_NAME, defaults: "truncated_after = '2s'", ..Plan::default() });
    std::fs::write(scene.inbox().join("1.json"), "{\"half\":").unwrap();
    scene.drop_file("2.json", "{}");
    scene.start();
    scene.until("it is seen to be incomplete", |scene| scene.waiting("truncated") == 1);
    assert_eq!(scene.waiting("in-line"), 1);
    assert_eq!(scene.posts(), 0);
    std::fs::write(scene.inbox().join("1.json"), "{\"half\": 2}").unwrap();
    scene.until_in("sent", &["1.json", "2.json"]);
    assert_eq!(scene.sim.seen().payloads[0].name.as_deref(), Some("1.json"));
}

#[test]
fn a_server_that_never_answers_leaves_a_handful_in_doubt() {
    let hang = rule(None, None, Per::All, Act::StoreThenHang);
    let mut scene = Scene::running(Plan {
        defaults: "timeout = '300ms'",
        simulator: SimulatorOptions { rules: vec![hang], ..SimulatorOptions::default() },
        ..Plan::default()
    });
    for number in 0..200 {
        scene.drop_file(format!("{number}.json"), "{}");
    }
    scene.until("the destination pauses", |scene| {
        let status = scene.status().unwrap();
        status.destinations.iter().any(|destination| destination.pause.is_some())
            && status.alerts.iter().any(|alert| alert.contains("in doubt one after the other"))
    });
    // What it does in some seconds of its own: nothing before half a minute has passed.
    beat(Duration::from_secs(4));
    let held = names(&scene.inbox().join("held")).len() / 2;
    // Three speak against it, and as many as there are slots may be in flight at that time.
    assert!((3..=3 + 4).contains(&held), "{held} held\n{}", scene.story());
    assert_eq!(scene.posts(), held as u64);
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn a_dry_run_says_who_goes_first_and_who_is_equal_to_another() {
    let mut scene = Scene::of(Plan {
        defaults: "order = 'name'\non_failed = 'skip'\nduplicates = 'skip'\nquiet_for = '100ms'",
        ..Plan::default()
    });
    scene.drop_file("10.json", "{\"n\": 1}");
    scene.drop_file("9.json", "{\"n\": 2}");
    scene.drop_file("11.json", "{\"n\": 1}");
    let told = |scene: &Scene| scene.ask(&["run", "--dry-run"]).out;
    scene.until("all are ready", |scene| told(scene).contains("would be sent  9.json"));
    let text = told(&scene);
    for expected in [
        "9.json goes first, the others after it one by one",
        "would be skipped  11.json: the same bytes as 10.json",
        "2 files would be sent, 1 would not, since equal ones are, 0 would fail",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    scene.start();
    scene.until("all are sent", |scene| names(&scene.inbox().join("sent")).len() == 3);
    assert_eq!(scene.stop(), Some(0));
    assert_eq!(scene.posts(), 2);
    // What is on record counts too.
    scene.drop_file("12.json", "{\"n\": 2}");
    let is_known = |scene: &Scene| {
        let text = told(scene);
        text.contains("would be skipped  12.json: the same bytes as ")
            && text.contains(", which was accepted")
    };
    scene.until("its twin is known", is_known);
    let as_json = scene.ask(&["run", "--dry-run", "--json"]).out;
    let lines: serde_json::Value = serde_json::from_str(&as_json).unwrap();
    assert_eq!((&lines[0]["fate"], &lines[0]["code"]), (&"skipped".into(), &"duplicate-of".into()));
}
