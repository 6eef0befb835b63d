//! Folders that other people can write: what they do there costs no file and doubles none.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use patchdrop::simulator::{Act, Rule};

use super::scene::{Plan, Scene, files, names};

/// Set in a child with mounts of its own.
const CHILD: &str = "PATCHDROP_E2E_CHILD";

/// Whether this is a child that may mount what it likes; the first call starts it and waits for it.
fn may_mount(test: &str) -> bool {
    const WRAPPER: [&str; 3] = ["unshare", "--mount", "--map-root-user"];
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let wrapped = || {
        let mut command = Command::new(WRAPPER[0]);
        command.args(&WRAPPER[1..]).env(CHILD, "1");
        command
    };
    if !wrapped().arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("NOT RUN: {test}: no mounts of its own here");
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let ended = wrapped().arg(program).args([test, "--exact", "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(
        ended.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    false
}

fn mount(arguments: &[&str], at: &std::path::Path) {
    let status = Command::new("mount").args(arguments).arg(at).status().unwrap();
    assert!(status.success(), "mount {arguments:?} {}", at.display());
}

fn slowly() -> Vec<Rule> {
    vec![Rule { act: Act::Slow { millis: 1_500 }, ..Rule::default() }]
}

/// The only file in `sending/`.
fn claimed(scene: &Scene) -> std::path::PathBuf {
    let sending = scene.inbox().join("sending");
    let names = files(&sending);
    assert_eq!(names.len(), 1, "{names:?}");
    sending.join(&names[0])
}

#[test]
fn a_copied_file_whose_original_cannot_be_removed_is_copied_once_whatever_is_killed() {
    let test =
        "hostile::a_copied_file_whose_original_cannot_be_removed_is_copied_once_whatever_is_killed";
    if !may_mount(test) {
        return;
    }
    let mut scene = Scene::of(Plan::default());
    let (root, sent) = (scene.path("root"), scene.inbox().join("sent"));
    mount(&["-t", "tmpfs", "-o", "mode=755", "none"], &root);
    fs::create_dir_all(&sent).unwrap();
    mount(&["-t", "tmpfs", "-o", "mode=755", "none"], &sent);
    scene.sim.set_rules(slowly());
    scene.start();
    scene.drop_into_by_copy("a.json", "{}");
    scene.until("it is on its way", |scene| scene.posts() == 1);
    mount(&["-o", "remount,ro"], &root);
    let mut tries = BTreeSet::new();
    scene.until("it was tried three times", |scene| {
        let pause = scene.route("orders").and_then(|route| route.pause);
        tries.extend(pause.and_then(|pause| pause.next_probe_at));
        tries.len() >= 3
    });
    assert_eq!(names(&sent), ["a.json"]);
    scene.kill();
    mount(&["-o", "remount,rw"], &root);
    assert_eq!(
        (files(&scene.inbox().join("sending")).len(), names(&sent)),
        (1, vec!["a.json".to_owned()])
    );
    scene.start();
    scene.until("sending/ is empty", |scene| files(&scene.inbox().join("sending")).is_empty());
    assert_eq!(names(&sent), ["a.json"]);
    assert_eq!(scene.posts(), 1);
    scene.verify();

    // An equal file of yesterday is another file.
    scene.sim.set_rules(Vec::new());
    scene.drop_into_by_copy("a.json", "{}");
    scene.until_in("sent", &["a.json", "a~2.json"]);
    scene.verify();
}

#[test]
fn a_file_overwritten_while_it_is_sent_does_not_lie_in_sent_without_a_word() {
    let scene = Scene::running(Plan::default());
    scene.sim.set_rules(slowly());
    scene.drop_file("a.json", "{\"is\": \"checked\"}");
    scene.until("it is on its way", |scene| scene.posts() == 1);
    fs::write(claimed(&scene), "{\"is\": \"smuggled in\"}").unwrap();
    scene.until_in("sent", &["a.json", "a.json.why.txt"]);
    assert_eq!(scene.code_of("sent", "a.json"), "changed-after-claim");
    scene.until("that is said", |scene| {
        let alerts = scene.status().unwrap().alerts.join("\n");
        alerts.contains("a.json") && scene.log().contains("not what was accepted")
    });
    scene.until("verify names it once it is settled", |scene| {
        let verified = scene.ask(&["verify"]);
        verified.code == Some(3) && verified.out.contains("changed: a.json")
    });
    assert!(scene.ask(&["explain", "a.json"]).out.contains("not what was accepted"));

    // One that was touched alone is the same file.
    scene.drop_file("b.json", "{}");
    scene.until("it is on its way", |scene| scene.posts() == 2);
    super::scene::age(&claimed(&scene), std::time::Duration::from_mins(1));
    scene.until_in("sent", &["a.json", "a.json.why.txt", "b.json"]);
}

#[test]
fn a_file_changed_in_sending_while_patchdrop_is_down_is_held_and_not_missing() {
    let mut scene = Scene::running(Plan::default());
    scene.sim.set_rules(slowly());
    scene.drop_file("a.json", "{\"is\": \"checked\"}");
    scene.until("it is on its way", |scene| scene.posts() == 1);
    scene.kill();
    fs::write(claimed(&scene), "{\"is\": \"smuggled in\"}").unwrap();
    scene.start();
    scene.until_in("held", &["a.json", "a.json.why.txt"]);
    assert_eq!(scene.code_of("held", "a.json"), "changed-after-claim");
    assert_eq!(scene.posts(), 1);
    scene.verify();
}

const EAGER: &str = "poll_every = '1s'\nsweep_every = '1s'";
const RETRY_SOON: &str = "retry = { first = '500ms', factor = 1.0, max = '500ms' }";

fn unavailable() -> Vec<Rule> {
    let act = Act::Answer { status: 503, message: None, retry_after: None };
    vec![Rule { act, ..Rule::default() }]
}

/// Waits until the route says that its folders are not as they must be, in these words.
fn until_stopped(scene: &Scene, why: &str) {
    scene.until(why, |scene| {
        let fault = scene.route("orders").and_then(|route| route.folder_fault);
        fault.is_some_and(|fault| fault.contains(why))
    });
    assert!(scene.log().contains("route stopped: its folders are not as they must be"));
}

fn until_well(scene: &Scene) {
    scene.until("the route goes on", |scene| {
        scene.route("orders").is_some_and(|route| route.folder_fault.is_none())
    });
}

fn none_is_missing(scene: &Scene) {
    let listed = scene.ask(&["list", "--state", "missing", "--json"]);
    assert!(!listed.out.contains("a.json"), "{listed:?}");
}

#[test]
fn a_sending_folder_that_somebody_replaces_stops_the_route_and_no_file_is_missing() {
    let scene = Scene::running(Plan { top: EAGER, defaults: RETRY_SOON, ..Plan::default() });
    scene.sim.set_rules(unavailable());
    scene.drop_file("a.json", "{}");
    scene.until("it is deferred", |scene| scene.route("orders").unwrap().deferred == 1);
    let (sending, gone) = (scene.inbox().join("sending"), scene.path("gone"));
    fs::rename(&sending, &gone).unwrap();
    fs::create_dir(&sending).unwrap();
    until_stopped(&scene, "was replaced by another folder");
    scene.sim.set_rules(Vec::new());
    scene.drop_file("b.json", "{}");
    scene.until("it is tried", |scene| {
        scene.status().unwrap().alerts.join("\n").contains("are tried again")
    });
    assert!(names(&sending).is_empty(), "{:?}", names(&sending));
    assert!(scene.inbox().join("b.json").exists());
    none_is_missing(&scene);
    fs::remove_dir(&sending).unwrap();
    fs::rename(&gone, &sending).unwrap();
    until_well(&scene);
    scene.until_in("sent", &["a.json", "b.json"]);
    none_is_missing(&scene);
    scene.verify();
}

#[test]
fn the_mount_point_of_a_volume_that_is_away_is_no_empty_root() {
    if !may_mount("hostile::the_mount_point_of_a_volume_that_is_away_is_no_empty_root") {
        return;
    }
    let mut scene = Scene::of(Plan { top: EAGER, defaults: RETRY_SOON, ..Plan::default() });
    // The mount point has a folder of the route's name, too.
    let (root, away) = (scene.path("root"), scene.path("outside"));
    mount(&["-t", "tmpfs", "-o", "mode=755", "none"], &root);
    fs::create_dir(scene.inbox()).unwrap();
    scene.start();
    scene.sim.set_rules(unavailable());
    scene.drop_into_by_copy("a.json", "{}");
    scene.until("it is deferred", |scene| scene.route("orders").unwrap().deferred == 1);
    let moved = |from: &std::path::Path, to: &std::path::Path| {
        let status = Command::new("mount").arg("--move").arg(from).arg(to).status().unwrap();
        assert!(status.success());
    };
    moved(&root, &away);
    until_stopped(&scene, "is on another volume than before");
    scene.until("it is tried", |scene| {
        scene.status().unwrap().alerts.join("\n").contains("are tried again")
    });
    none_is_missing(&scene);
    assert!(names(&scene.inbox()).is_empty(), "{:?}", names(&scene.inbox()));
    moved(&away, &root);
    until_well(&scene);
    scene.sim.set_rules(Vec::new());
    scene.until_in("sent", &["a.json"]);
    none_is_missing(&scene);
    scene.verify();
}

#[test]
fn folders_of_ours_that_others_can_write_stop_the_route_until_they_cannot() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::running(Plan { top: EAGER, ..Plan::default() });
    let set = |folder: &str, mode: u32| {
        let path = scene.inbox().join(folder);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for (folder, mode) in [("sending", 0o770), ("sent", 0o777), ("held", 0o1777)] {
        set(folder, mode);
        until_stopped(&scene, &format!("can be written by others (mode {mode:04o})"));
        scene.drop_file("a.json", "{}");
        scene.until("a sweep has failed", |scene| {
            scene.route("orders").unwrap().folder_fault.is_some()
        });
        assert_eq!(scene.posts(), 0);
        fs::remove_file(scene.inbox().join("a.json")).unwrap();
        set(folder, 0o750);
        until_well(&scene);
    }
    scene.drop_file("b.json", "{}");
    scene.until_in("sent", &["b.json"]);
    scene.verify();
}

#[test]
fn a_dated_folder_that_others_can_write_or_a_link_in_its_place_stops_the_route() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let scene = Scene::running(Plan {
        top: EAGER,
        defaults: "sent = '{dir}/archive/{date}/sent'",
        ..Plan::default()
    });
    scene.drop_file("a.json", "{}");
    let archive = scene.path("archive");
    let sent = || archive.join(names(&archive)[0].clone()).join("sent");
    scene.until("it is sent", |_| !names(&archive).is_empty() && names(&sent()) == ["a.json"]);
    let today = archive.join(&names(&archive)[0]);

    fs::set_permissions(&today, fs::Permissions::from_mode(0o777)).unwrap();
    until_stopped(&scene, "can be written by others (mode 0777)");
    fs::set_permissions(&today, fs::Permissions::from_mode(0o750)).unwrap();
    until_well(&scene);

    let (aside, theirs) = (scene.path("aside"), scene.path("outside/theirs"));
    fs::create_dir_all(theirs.join("sent")).unwrap();
    fs::rename(&today, &aside).unwrap();
    symlink(&theirs, &today).unwrap();
    until_stopped(&scene, "is a link");
    scene.drop_file("b.json", "{}");
    scene
        .until("a sweep has failed", |scene| scene.route("orders").unwrap().folder_fault.is_some());
    assert_eq!(names(&theirs.join("sent")), [""; 0]);
    fs::remove_file(&today).unwrap();
    fs::rename(&aside, &today).unwrap();
    scene.until("the other one is sent", |_| names(&sent()) == ["a.json", "b.json"]);
    scene.verify();
}

#[test]
fn root_takes_nothing_from_a_folder_that_others_can_write_unless_it_is_allowed() {
    use std::os::unix::fs::PermissionsExt;
    if !may_mount(
        "hostile::root_takes_nothing_from_a_folder_that_others_can_write_unless_it_is_allowed",
    ) {
        return;
    }
    let mut scene = Scene::of(Plan { top: EAGER, ..Plan::default() });
    fs::set_permissions(scene.inbox(), fs::Permissions::from_mode(0o1777)).unwrap();
    scene.drop_file("a.json", "{}");
    scene.launch();
    scene.until("it is refused", |scene| {
        let alerts = scene.status().map(|status| status.alerts.join("\n")).unwrap_or_default();
        alerts.contains("--allow-root")
    });
    assert_eq!(scene.posts(), 0);
    assert_eq!(scene.stop(), Some(0));
    scene.launch_with(&["--allow-root"]);
    scene.until_in("sent", &["a.json"]);
    scene.verify();
}

#[test]
fn a_file_with_another_name_elsewhere_stays_until_that_is_gone() {
    let scene = Scene::running(Plan { top: EAGER, ..Plan::default() });
    let outside = scene.path("outside/original.json");
    fs::write(&outside, "{}").unwrap();
    fs::hard_link(&outside, scene.inbox().join("a.json")).unwrap();
    scene.until("it stays", |scene| scene.waiting("hard-link") == 1);
    assert_eq!(scene.posts(), 0);
    fs::remove_file(&outside).unwrap();
    scene.until_in("sent", &["a.json"]);
    scene.verify();
}

#[test]
fn what_others_put_into_sending_is_counted_and_left_alone() {
    let scene = Scene::running(Plan { top: EAGER, defaults: RETRY_SOON, ..Plan::default() });
    let sending = scene.inbox().join("sending");
    fs::write(sending.join("notes.txt"), "x").unwrap();
    scene.until("it is counted", |scene| scene.waiting("foreign") == 1);
    scene.drop_file("a.json", "{}");
    scene.until_in("sent", &["a.json"]);
    let listed = scene.ask(&["list", "--json"]).out;
    let id = listed.split("\"id\":").nth(1).and_then(|rest| rest.split('"').nth(1)).unwrap();
    fs::write(sending.join(format!("{id}~a.json")), "x").unwrap();
    fs::write(sending.join(format!("{id}~other.json")), "x").unwrap();
    fs::write(sending.join("zzzzzzzzzz~later.json"), "x").unwrap();
    scene.until("all are counted", |scene| scene.waiting("foreign") == 4);
    assert_eq!(files(&sending).len(), 4);
    assert_eq!(scene.posts(), 1);
}

#[test]
fn a_sending_folder_that_is_away_at_a_start_is_not_made_anew_over_files_on_record() {
    let mut scene = Scene::running(Plan { top: EAGER, defaults: RETRY_SOON, ..Plan::default() });
    scene.sim.set_rules(unavailable());
    scene.drop_file("a.json", "{}");
    scene.until("it is deferred", |scene| scene.route("orders").unwrap().deferred == 1);
    assert_eq!(scene.stop(), Some(0));
    let (sending, away) = (scene.inbox().join("sending"), scene.path("away"));
    fs::rename(&sending, &away).unwrap();
    scene.launch();
    scene.until("that is said", |scene| {
        let alerts = scene.status().map(|status| status.alerts.join("\n")).unwrap_or_default();
        alerts.contains("is not there, and it should hold what is under way")
    });
    assert!(!sending.exists());
    none_is_missing(&scene);
    fs::rename(&away, &sending).unwrap();
    scene.sim.set_rules(Vec::new());
    scene.until_in("sent", &["a.json"]);
    scene.verify();
}

#[test]
fn links_in_one_drop_folder_keep_no_other_route_from_starting() {
    let mut scene = Scene::of(Plan::default());
    let stock = scene.path("root/stock");
    for folder in [&stock, &scene.inbox()] {
        fs::create_dir_all(folder).unwrap();
    }
    for name in ["sent", "failed"] {
        std::os::unix::fs::symlink(scene.inbox(), stock.join(name)).unwrap();
    }
    scene.start();
    scene.drop_file("order.json", "{}");
    scene.until_in("sent", &["order.json"]);
    let check = scene.ask(&["check"]);
    assert_eq!(check.code, Some(3), "{check:?}");
    assert!(check.out.contains("stock/sent is a link"), "{check:?}");
    scene.until("the other one is stopped", |scene| {
        scene.log().contains("stock") && scene.ask(&["status"]).out.contains("stock")
    });
    assert_eq!(scene.stop(), Some(0));
}
