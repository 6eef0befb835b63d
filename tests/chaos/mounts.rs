//! Mounts that tell of nothing, hang, go away and come back; and more events than fit in a queue.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fuser::Errno;
use patchdrop::simulator::{Act, Match, Per, Rule};
use rustix::process::{Pid, Signal, kill_process};

use super::forgetful::Forgetful;
use super::judge::in_folder;
use super::scene::{Plan, Scene, beat, files, names, scale};

const POLLED: &str = "poll_every = '1s'\nsweep_every = '1s'\n";

const QUICK: &str = "quiet_for = '100ms'\nretry = { first = '50ms', factor = 1.5, max = '300ms', \
                     give_up_after = '1h' }\n";

/// A scene on an ordinary disk with a second route, `share`, whose folder lies on a mount.
fn scene_with_share(folder: &Path) -> Scene {
    let tables = format!("[route.share]\nfolder = '{}'\nvanity = 'share'\n", folder.display());
    Scene::of(Plan {
        top: POLLED,
        defaults: QUICK,
        tables: Box::leak(tables.into_boxed_str()),
        ..Plan::default()
    })
}

/// A folder on the mount: its path, and the same below the mount's top.
fn folder_on(disk: &Forgetful) -> (PathBuf, PathBuf) {
    let folder = disk.path().join("share");
    fs::create_dir(&folder).unwrap();
    disk.shared.tree().settle();
    (folder, PathBuf::from("share"))
}

/// Each name arrived once and lies in `sent/`, and nothing else did.
fn all_sent_once(scene: &Scene, folder: &Path, count: usize) {
    let arrivals: BTreeMap<String, usize> = scene.arrivals();
    let again: Vec<_> = arrivals.iter().filter(|(_, times)| **times > 1).collect();
    assert!(again.is_empty(), "sent more than once: {again:?}\n{}", scene.story());
    assert_eq!(arrivals.len(), count, "{}", scene.story());
    assert_eq!(names(&folder.join("sent")).len(), count);
    assert_eq!(files(folder), [""; 0]);
    scene.verify();
}

#[test]
fn files_written_behind_a_mount_are_found_without_an_event() {
    let disk = Forgetful::new();
    let (folder, below) = folder_on(&disk);
    let mut scene = scene_with_share(&folder);
    scene.start();
    for number in 0..100 {
        disk.put(&below, &format!("{number}.json"), format!("{{\"n\": {number}}}").as_bytes());
    }
    let sent = folder.join("sent");
    scene.until("all are sent", |_| names(&sent).len() == 100);
    all_sent_once(&scene, &folder, 100);
    assert_eq!(scene.stop(), Some(0));
}

#[test]
fn a_mount_that_hangs_holds_up_nobody_else_and_goes_on_where_it_stood() {
    let disk = Forgetful::new();
    let (folder, below) = folder_on(&disk);
    let mut scene = scene_with_share(&folder);
    scene.start();
    disk.put(&below, "before.json", b"{}");
    scene.until("the share works", |_| names(&folder.join("sent")) == ["before.json"]);
    for number in 0..30 {
        disk.put(&below, &format!("{number}.json"), format!("{{\"n\": {number}}}").as_bytes());
    }
    disk.hang();
    for number in 0..200 {
        scene.drop_file(format!("o{number}.json"), format!("{{\"o\": {number}}}"));
    }
    let sent = scene.inbox().join("sent");
    scene.until("the other route goes on", |_| names(&sent).len() == 200);
    scene.until("the service answers", |scene| scene.status().is_some());
    disk.go_on();
    scene.until("the share goes on", |_| names(&folder.join("sent")).len() == 31);
    assert_eq!(scene.arrivals().len(), 231);
    assert_eq!(scene.posts(), 231);
    assert_eq!(files(&folder), [""; 0]);
    scene.verify();
    assert_eq!(scene.stop(), Some(0));
}

#[test]
fn a_mount_that_goes_and_comes_back_loses_nothing_and_sends_nothing_twice() {
    let mut disk = Forgetful::new();
    let (folder, below) = folder_on(&disk);
    let mut scene = scene_with_share(&folder);
    scene.start();
    // Some have been accepted, some wait in sending/ for another try, some in the drop folder.
    let busy = |first| {
        let act = Act::Answer { status: 503, message: None, retry_after: None };
        vec![Rule { when: Match::default(), first, per: Per::All, act }]
    };
    for number in 0..20 {
        disk.put(&below, &format!("a{number}.json"), format!("{{\"a\": {number}}}").as_bytes());
    }
    scene.until("some are sent", |_| names(&folder.join("sent")).len() > 5);
    scene.sim.set_rules(busy(None));
    for number in 0..20 {
        disk.put(&below, &format!("b{number}.json"), format!("{{\"b\": {number}}}").as_bytes());
    }
    scene.until("some wait for another try", |_| !names(&folder.join("sending")).is_empty());
    let is_faulty =
        |scene: &Scene| scene.route("share").is_some_and(|route| route.folder_fault.is_some());
    disk.remount(|mount_point| {
        scene.until("that is said", is_faulty);
        scene.sim.set_rules(Vec::new());
        let strays = names(mount_point);
        assert!(strays.is_empty(), "made on the disk below the mount: {strays:?}");
    });
    scene.until("all are sent", |_| names(&folder.join("sent")).len() == 40);
    all_sent_once(&scene, &folder, 40);
    for end in ["failed", "held"] {
        assert_eq!(names(&folder.join(end)), [""; 0]);
    }
    assert_eq!(scene.stop(), Some(0));
}

/// What is read-only, full or broken for a while costs time and no file.
#[test]
fn a_disk_that_refuses_every_change_for_a_while_costs_no_file() {
    for errno in [Errno::ENOSPC, Errno::EROFS, Errno::EIO, Errno::EDQUOT] {
        let disk = Forgetful::new();
        let (folder, below) = folder_on(&disk);
        let mut scene = scene_with_share(&folder);
        scene.start();
        disk.put(&below, "before.json", b"{\"n\": -1}");
        scene.until("the share works", |_| names(&folder.join("sent")) == ["before.json"]);
        disk.refuse(Some(errno));
        for number in 0..30 {
            disk.put(&below, &format!("{number}.json"), format!("{{\"n\": {number}}}").as_bytes());
        }
        // Long enough for some tries; what it decides is decided by the judgement below.
        beat(Duration::from_secs(2));
        disk.refuse(None);
        scene.until("all are sent", |_| names(&folder.join("sent")).len() == 31);
        all_sent_once(&scene, &folder, 31);
        assert_eq!(scene.stop(), Some(0));
    }
}

/// The same with everything on that disk: ledger, lock and state too.
#[test]
fn a_full_disk_below_the_ledger_too_costs_no_file() {
    for errno in [Errno::ENOSPC, Errno::EIO] {
        let disk = Forgetful::new();
        let mut scene = Scene::of(Plan {
            top: POLLED,
            defaults: QUICK,
            within: Some(disk.path().to_owned()),
            ..Plan::default()
        });
        scene.start();
        let put = |from: usize, to: usize| {
            let inbox = scene.inbox();
            let below = inbox.strip_prefix(disk.path()).unwrap();
            for number in from..to {
                let body = format!("{{\"n\": {number}}}");
                disk.put(below, &format!("{number}.json"), body.as_bytes());
            }
        };
        put(0, 100);
        let sent = scene.inbox().join("sent");
        scene.until("it works", |_| names(&sent).len() > 10);
        disk.refuse(Some(errno));
        put(100, 150);
        beat(Duration::from_secs(2));
        disk.refuse(None);
        let ended = |scene: &Scene| names(&sent).len() + in_folder(scene, "held").len();
        scene.until("all have ended", |scene| ended(scene) == 150);
        let held = in_folder(&scene, "held");
        assert!(held.is_empty(), "an answer that was known was lost: {held:?}\n{}", scene.story());
        all_sent_once(&scene, &scene.inbox(), 150);
        assert_eq!(scene.stop(), Some(0));
    }
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let mut scene = Scene::of(Plan { defaults: QUICK, ..Plan::default() });
    std::os::unix::fs::symlink("/dev/full", scene.path("log")).unwrap();
    scene.start();
    scene.drop_file("a.json", "{}");
    scene.until_in("sent", &["a.json"]);
    assert!(scene.is_up());
    assert_eq!(scene.stop(), Some(0));
}

#[test]
fn more_events_than_the_queue_holds_are_made_up_for_by_a_sweep() {
    let count = scale("PATCHDROP_CHAOS_BURST", 50_000) as usize;
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let queue: usize = queue.trim().parse().unwrap();
    assert!(count > queue, "{count} events do not overflow a queue of {queue}");
    let mut scene =
        Scene::of(Plan { defaults: "concurrency = 256\nquiet_for = '10ms'", ..Plan::default() });
    let pid = scene.start();
    for number in 0..count {
        let path = scene.path("outside").join(format!("{number}.json"));
        fs::write(path, format!("{{\"n\": {number}}}")).unwrap();
    }
    // It reads no event meanwhile: the kernel's queue overflows for certain.
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    for number in 0..count {
        let name = format!("{number}.json");
        fs::rename(scene.path("outside").join(&name), scene.inbox().join(&name)).unwrap();
    }
    kill_process(pid, Signal::CONT).unwrap();
    // A drain of so many takes longer than any one wait; it must go on all the time.
    let sent = scene.inbox().join("sent");
    let mut before = 0;
    while before < count {
        let is_more = |_: &Scene| {
            beat(Duration::from_millis(200));
            names(&sent).len() > before
        };
        scene.until("the drain goes on", is_more);
        before = names(&sent).len();
    }
    all_sent_once(&scene, &scene.inbox(), count);
    assert_eq!(scene.posts(), count as u64);
    assert_eq!(scene.stop(), Some(0));
}
