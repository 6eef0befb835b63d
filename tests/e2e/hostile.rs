//! Folders that other people can write: what they do there costs no file and doubles none.

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
    mount(&["-t", "tmpfs", "none"], &root);
    fs::create_dir_all(&sent).unwrap();
    mount(&["-t", "tmpfs", "none"], &sent);
    scene.sim.set_rules(slowly());
    scene.start();
    scene.drop_into_by_copy("a.json", "{}");
    scene.until("it is on its way", |scene| scene.posts() == 1);
    mount(&["-o", "remount,ro"], &root);
    let tries = |scene: &Scene| scene.log().matches("a file could not").count();
    scene.until("it was tried three times", |scene| tries(scene) >= 3);
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
    let verified = scene.ask(&["verify"]);
    assert_eq!(verified.code, Some(3), "{verified:?}");
    assert!(verified.out.contains("changed: a.json"), "{verified:?}");
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
