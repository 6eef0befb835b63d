//! Things in a drop folder that are no plain files, and names that careless programs stumble over.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::scene::{Plan, Scene, files, names};

#[test]
fn links_fifos_devices_and_folders_are_left_alone_counted_and_warned_of_once() {
    let scene = Scene::running(Plan { top: "sweep_every = '1s'", ..Plan::default() });
    let inbox = scene.inbox();
    fs::write(scene.path("outside/target.json"), "{}").unwrap();
    symlink(scene.path("outside/target.json"), inbox.join("link.json")).unwrap();
    symlink("nowhere", inbox.join("dangling.json")).unwrap();
    fs::create_dir(inbox.join("folder.json")).unwrap();
    fs::write(inbox.join("folder.json/inside.json"), "{}").unwrap();
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, inbox.join("fifo.json"), FileType::Fifo, mode, 0).unwrap();
    let device =
        mknodat(CWD, inbox.join("null.json"), FileType::CharacterDevice, mode, makedev(1, 3));
    let specials = 1 + u64::from(device.is_ok());
    if let Err(error) = device {
        eprintln!("NOT TRIED here: a device in a drop folder ({error})");
    }
    fs::write(inbox.join("notes.txt"), "not wanted").unwrap();
    scene.until("all are counted", |scene| {
        (scene.waiting("link"), scene.waiting("special"), scene.waiting("in-a-subfolder"))
            == (2, specials, 1)
            && scene.waiting("ignored") == 1
    });
    let swept_at = scene.route("orders").unwrap().swept_at;
    scene.until("two more sweeps", |scene| {
        scene.route("orders").unwrap().swept_at.unwrap().since(swept_at.unwrap()).as_millis() > 2000
    });
    scene.drop_file("good.json", "{}");
    scene.until_in("sent", &["good.json"]);
    let log = scene.log();
    for reason in ["link", "special", "in-a-subfolder", "ignored"] {
        let said = log.lines().filter(|line| line.contains(&format!("reason={reason}"))).count();
        assert_eq!(said, 1, "{reason} in\n{log}");
    }
    let status = scene.ask(&["status", "--json"]).out;
    assert!(status.contains("\"special\""), "{status}");
    let mut expected = vec![
        "dangling.json",
        "failed",
        "fifo.json",
        "folder.json",
        "held",
        "link.json",
        "notes.txt",
        "null.json",
        "sending",
        "sent",
    ];
    expected.retain(|name| specials == 2 || *name != "null.json");
    assert_eq!(names(&inbox), expected);
    assert_eq!(scene.posts(), 1);
    scene.verify();
}

#[test]
fn odd_names_are_kept_and_nothing_is_overwritten() {
    let scene = Scene::running(Plan::default());
    let longest = "l".repeat(250) + ".json";
    let odd: [(&[u8], &str); 9] = [
        (b"caf\xe9.json", "{\"n\": 1}"),
        (b"line\nbreak.json", "{\"n\": 2}"),
        (longest.as_bytes(), "{\"n\": 3}"),
        (b"Case.json", "{\"n\": 4}"),
        (b"case.json", "{\"n\": 5}"),
        (b"CASE.JSON", "{\"n\": 6}"),
        ("Größe 7 {name} %41.json".as_bytes(), "{\"n\": 7}"),
        (b"-rf.json", "{\"n\": 8}"),
        (b"\x1b[31mred.json", "{\"n\": 9}"),
    ];
    for (name, content) in odd {
        scene.drop_file(OsStr::from_bytes(name), content);
    }
    let sent = scene.inbox().join("sent");
    scene.until("all are sent", |_| names(&sent).len() == odd.len());
    for (name, content) in odd {
        let path = sent.join(OsStr::from_bytes(name));
        assert_eq!(fs::read_to_string(path).unwrap(), content, "{name:?}");
        let arrived = scene.arrived();
        let bodies = arrived.iter().filter(|(_, _, body)| body == content.as_bytes()).count();
        assert_eq!(bodies, 1, "{name:?}");
    }
    assert_eq!(scene.posts(), odd.len() as u64);
    assert!(!scene.log().contains("\x1b[31m"), "a name moves the terminal's cursor");
    scene.verify();
}

#[test]
fn a_bad_file_of_255_bytes_name_gets_a_shorter_sidecar() {
    let scene = Scene::running(Plan::default());
    let longest = "l".repeat(250) + ".json";
    scene.drop_file(&longest, "nonsense");
    let failed = scene.inbox().join("failed");
    scene.until("it is in failed/", |_| names(&failed).len() == 2);
    let found = names(&failed);
    assert_eq!(found[0], longest);
    assert!(found[1].starts_with(&"l".repeat(180)) && found[1].ends_with(".why.txt"), "{found:?}");
    scene.verify();
}

#[test]
fn a_name_taken_in_sent_is_never_overwritten() {
    let scene = Scene::running(Plan::default());
    let sent = scene.inbox().join("sent");
    fs::write(sent.join("a.json"), "somebody else's").unwrap();
    for (content, expected) in [("[1]", "a~2.json"), ("[2]", "a~3.json"), ("[3]", "a~4.json")] {
        scene.drop_file("a.json", content);
        scene.until(expected, |_| sent.join(expected).exists());
        assert_eq!(fs::read_to_string(sent.join(expected)).unwrap(), content);
    }
    assert_eq!(fs::read_to_string(sent.join("a.json")).unwrap(), "somebody else's");
    assert_eq!(scene.posts(), 3);
    scene.verify();
}

#[test]
fn an_unreadable_file_stays_is_counted_and_looked_at_again() {
    let is_root = rustix::process::geteuid().is_root();
    let account = is_root.then_some(65_534);
    let scene = Scene::running(Plan { top: "sweep_every = '1s'", account, ..Plan::default() });
    scene.drop_file("closed.json", "{}");
    let scene = {
        scene.until_in("sent", &["closed.json"]);
        scene
    };
    let outside = scene.path("outside/secret.json");
    fs::write(&outside, "{\"a\": 1}").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o000)).unwrap();
    let path = scene.inbox().join("secret.json");
    fs::rename(outside, &path).unwrap();
    scene.until("it is counted", |scene| scene.waiting("unreadable") == 1);
    assert_eq!(files(&scene.inbox()), ["secret.json"]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    scene.until_in("sent", &["closed.json", "secret.json"]);
    assert_eq!(scene.posts(), 2);
    scene.verify();
}
