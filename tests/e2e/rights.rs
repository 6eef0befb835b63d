//! Rights that are taken away while it runs: sending pauses and says so, nothing is lost or sent
//! twice, and it goes on by itself when they are back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::scene::{Plan, Scene, files, names};

/// Files that wait while a right is missing.
const FILES: usize = 20;

/// Tests run as root may not try this as root, who has every right.
fn account() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(65_534)
}

/// Takes rights from a folder of the route, and gives them back when that has been said.
fn check(below: &str, mode: u32, is_said: fn(&Scene) -> bool) {
    let mut scene = Scene::running(Plan {
        top: "sweep_every = '1s'",
        defaults: "retry = { first = '100ms', factor = 1.5, max = '500ms' }",
        account: account(),
        ..Plan::default()
    });
    scene.drop_file("before.json", "{}");
    scene.until_in("sent", &["before.json"]);
    // They are there, and have not been claimed, when the right goes.
    let paused = scene.ask(&["pause", "orders"]);
    assert_eq!(paused.code, Some(0), "{paused:?}");
    for number in 0..FILES {
        scene.drop_file(format!("{number}.json"), format!("{{\"n\": {number}}}"));
    }
    let folder = scene.inbox().join(below);
    let before = fs::metadata(&folder).unwrap().permissions();
    fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    let resumed = scene.ask(&["resume", "orders"]);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    scene.until(&format!("it is said of {below:?} {mode:o}"), is_said);
    assert!(scene.posts() < FILES as u64, "it sends on\n{}", scene.story());
    fs::set_permissions(&folder, before).unwrap();
    let sent = scene.inbox().join("sent");
    scene.until("all are sent", |_| names(&sent).len() == FILES + 1);
    assert_eq!(scene.arrivals().len(), FILES + 1, "{}", scene.story());
    assert_eq!(scene.posts(), FILES as u64 + 1, "{}", scene.story());
    assert_eq!(files(&scene.inbox()), [""; 0]);
    for end in ["failed", "held"] {
        assert_eq!(names(&scene.inbox().join(end)), [""; 0], "{}", scene.story());
    }
    scene.stop_and_verify();
}

fn has_no_permission(scene: &Scene) -> bool {
    let pause = scene.route("orders").and_then(|route| route.pause);
    pause.is_some_and(|pause| pause.code == "no-permission")
}

fn cannot_list(scene: &Scene) -> bool {
    let fault = scene.route("orders").and_then(|route| route.folder_fault);
    fault.is_some_and(|fault| fault.contains("no permission"))
}

#[test]
fn rights_that_are_lost_while_it_runs_pause_the_route_and_cost_no_file() {
    // Nothing can be taken out of the drop folder; it cannot be listed; nothing can be claimed;
    // nothing can be moved to its end.
    check("", 0o500, has_no_permission);
    check("", 0o300, cannot_list);
    check("sending", 0o500, has_no_permission);
    check("sent", 0o500, has_no_permission);
}
