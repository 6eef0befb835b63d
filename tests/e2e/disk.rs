//! Disks that are full, read-only or nearly so: sending pauses, nothing is lost, nothing is sent
//! twice, and it goes on by itself. Each test mounts volumes of its own in a namespace of its own.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::scene::{Plan, Scene, beat, names};

/// Set in a child that may mount.
const CHILD: &str = "PATCHDROP_E2E_MAY_MOUNT";

/// Whether this is the child that may mount; else runs this test in one, where that can be done.
pub(crate) fn may_mount(test: &str) -> bool {
    const NAMESPACE: [&str; 2] = ["--mount", "--map-root-user"];
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let probe = Command::new("unshare").args(NAMESPACE).arg("true").output();
    if !probe.as_ref().is_ok_and(|probe| probe.status.success()) {
        // Past the capture of the test harness, which shows nothing of a test that succeeds.
        writeln!(std::io::stderr().lock(), "NOT RUN: {test}: {probe:?}").unwrap();
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new("unshare");
    child.args(NAMESPACE).arg(program).args([test, "--exact", "--nocapture"]).env(CHILD, "1");
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "{test} in a child: {}\n{said}\n{complained}", output.status);
    false
}

/// A volume of a test's own; gone with it.
struct Volume(PathBuf);

impl Volume {
    fn mount(path: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&path).unwrap();
        let volume = Self(path);
        volume.run(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o"])
                .arg(format!("size={size}"))
                .arg("none"),
        );
        volume
    }

    fn remount(&self, option: &str) {
        self.run(Command::new("mount").args(["-o", &format!("remount,{option}")]));
    }

    fn run(&self, command: &mut Command) {
        let status = command.arg(&self.0).status().unwrap();
        assert!(status.success(), "{command:?}");
    }

    /// Uses up all room that is left.
    fn fill(&self) {
        let mut ballast = fs::File::create(self.0.join("ballast")).unwrap();
        while ballast.write_all(&[7; 512]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let umount = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(umount.is_ok() || std::thread::panicking(), "{umount:?}");
    }
}

fn drop_many(scene: &Scene, folder: &Path, numbers: std::ops::Range<usize>, bytes: usize) {
    for number in numbers {
        let body = format!("{{\"n\": {number}, \"filler\": \"{}\"}}", "x".repeat(bytes));
        scene.drop_into(folder, format!("{number}.json"), body);
    }
}

/// Every one of these has arrived, and exactly once.
fn assert_each_arrived_once(scene: &Scene, files: usize) {
    let arrivals = scene.arrivals();
    assert_eq!(arrivals.len(), files, "{}", scene.story());
    for (name, times) in arrivals {
        assert_eq!(times, 1, "{name} arrived {times} times\n{}", scene.story());
    }
}

fn lines(scene: &Scene, text: &str) -> usize {
    scene.log().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn a_full_disk_under_the_ledger_pauses_sending_and_costs_no_answer() {
    if !may_mount("disk::a_full_disk_under_the_ledger_pauses_sending_and_costs_no_answer") {
        return;
    }
    let mut scene = Scene::of(Plan { top: "state_dir = '{dir}/v/state'", ..Plan::default() });
    scene.sits_in("v/state");
    let volume = Volume::mount(scene.path("v"), "1m");
    scene.start();
    let mut dropped = 0;
    let mut drop_more = |files| {
        drop_many(&scene, &scene.inbox(), dropped..dropped + files, 10);
        dropped += files;
        dropped
    };
    let to = drop_more(20);
    scene.until("the first are sent", |scene| names(&scene.inbox().join("sent")).len() == to);
    for round in 1..=3 {
        // Some are on their way while the last byte of room goes.
        drop_more(10);
        volume.fill();
        drop_more(10);
        // What the ledger has of room for its next rows, nobody knows: files come until it is used.
        scene.until("sending pauses", |scene| {
            let is_paused = lines(scene, "sending paused") >= round;
            is_paused || drop_more(1) == 0
        });
        beat(Duration::from_millis(500));
        volume.empty();
        let to = drop_more(0);
        scene.until("all go out", |scene| names(&scene.inbox().join("sent")).len() == to);
    }
    let files = drop_more(0);
    assert_each_arrived_once(&scene, files);
    assert_eq!(names(&scene.inbox().join("held")), [""; 0], "{}", scene.story());
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn a_start_on_a_full_disk_waits_for_room_and_a_command_ends() {
    if !may_mount("disk::a_start_on_a_full_disk_waits_for_room_and_a_command_ends") {
        return;
    }
    let mut scene = Scene::of(Plan { top: "state_dir = '{dir}/v/state'", ..Plan::default() });
    scene.sits_in("v/state");
    let volume = Volume::mount(scene.path("v"), "1m");
    scene.start();
    drop_many(&scene, &scene.inbox(), 0..1, 10);
    scene.until("it is sent", |scene| names(&scene.inbox().join("sent")).len() == 1);
    scene.kill();
    volume.fill();
    drop_many(&scene, &scene.inbox(), 1..2, 10);
    let ended = scene.ask(&["run", "--once"]);
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.err.contains("full"), "{ended:?}");
    // What that one gave back as it ended.
    volume.fill();
    scene.launch();
    scene.until("it says that it waits", |scene| lines(scene, "cannot start yet") == 1);
    volume.empty();
    scene.until("it starts by itself", |scene| names(&scene.inbox().join("sent")).len() == 2);
    assert_eq!(lines(&scene, "cannot start yet"), 1, "{}", scene.story());
    assert_each_arrived_once(&scene, 2);
    // A wait for room ends with a stop as well.
    scene.kill();
    volume.fill();
    scene.launch();
    scene.until("it waits again", |scene| lines(scene, "cannot start yet") == 2);
    assert_eq!(scene.stop(), Some(0));
    volume.empty();
    scene.verify();
}

#[test]
fn a_ledger_gives_the_room_of_its_wal_back_when_idle() {
    if !may_mount("disk::a_ledger_gives_the_room_of_its_wal_back_when_idle") {
        return;
    }
    let mut scene = Scene::of(Plan { top: "state_dir = '{dir}/v/state'", ..Plan::default() });
    scene.sits_in("v/state");
    let volume = Volume::mount(scene.path("v"), "1m");
    scene.start();
    let wal = volume.0.join("state/ledger/ledger.db-wal");
    for round in 1..=4 {
        drop_many(&scene, &scene.inbox(), (round - 1) * 60..round * 60, 10);
        scene.until("all are sent", |scene| names(&scene.inbox().join("sent")).len() == round * 60);
        scene.until("the room is back", |_| fs::metadata(&wal).is_ok_and(|wal| wal.len() == 0));
    }
    assert_each_arrived_once(&scene, 240);
    assert_eq!(lines(&scene, "sending paused"), 0, "{}", scene.story());
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn a_small_volume_holds_a_ledger_that_is_never_idle() {
    if !may_mount("disk::a_small_volume_holds_a_ledger_that_is_never_idle") {
        return;
    }
    let mut scene = Scene::of(Plan { top: "state_dir = '{dir}/v/state'", ..Plan::default() });
    scene.sits_in("v/state");
    let _volume = Volume::mount(scene.path("v"), "1m");
    scene.start();
    // One by one, so that no two share a commit.
    for number in 0..60 {
        drop_many(&scene, &scene.inbox(), number..number + 1, 10);
        scene.until("it is sent", |scene| names(&scene.inbox().join("sent")).len() == number + 1);
    }
    assert_each_arrived_once(&scene, 60);
    assert_eq!(lines(&scene, "sending paused"), 0, "{}", scene.story());
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn a_full_disk_under_sent_pauses_the_route_with_one_line_and_no_file_is_sent_meanwhile() {
    /// More than are sent before the first of them is found to have no room.
    const FILES: usize = 80;
    let test =
        "a_full_disk_under_sent_pauses_the_route_with_one_line_and_no_file_is_sent_meanwhile";
    if !may_mount(&format!("disk::{test}")) {
        return;
    }
    let mut scene =
        Scene::of(Plan { defaults: "sent = '{dir}/v/sent'\nconcurrency = 2", ..Plan::default() });
    let volume = Volume::mount(scene.path("v"), "1m");
    scene.start();
    drop_many(&scene, &scene.inbox(), 0..FILES, 50_000);
    scene.until("the route pauses", |scene| {
        let pause = scene.route("orders").and_then(|route| route.pause);
        pause.is_some_and(|pause| pause.code == "disk-full")
    });
    scene.until("what was under way has ended", |scene| {
        scene.route("orders").is_some_and(|route| route.sending == 0)
    });
    let posts = scene.posts();
    // It tries several times by itself, and sends nothing.
    beat(Duration::from_secs(4));
    assert_eq!(scene.posts(), posts, "{}", scene.story());
    assert!(usize::try_from(posts).unwrap() < FILES, "{posts} of {FILES} were sent");
    assert_eq!(lines(&scene, "route paused"), 1, "{}", scene.story());
    assert_eq!(lines(&scene, "could not go on"), 0, "{}", scene.story());
    let elsewhere = scene.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let mut taken = 0;
    while taken < FILES {
        for name in names(&volume.0.join("sent")) {
            if Path::new(&name).extension().is_some_and(|it| it == "json") {
                fs::copy(volume.0.join("sent").join(&name), elsewhere.join(&name)).unwrap();
                fs::remove_file(volume.0.join("sent").join(&name)).unwrap();
                taken += 1;
            }
        }
        assert!(scene.is_up());
        beat(Duration::from_millis(50));
    }
    assert_each_arrived_once(&scene, FILES);
    assert_eq!(names(&elsewhere).len(), FILES);
    assert_eq!(lines(&scene, "route goes on"), lines(&scene, "route paused"));
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn a_volume_that_turns_read_only_pauses_its_route_after_a_handful_of_claims() {
    let test = "disk::a_volume_that_turns_read_only_pauses_its_route_after_a_handful_of_claims";
    if !may_mount(test) {
        return;
    }
    let mut scene =
        Scene::of(Plan { tables: "[route.stock]\nfolder = '{dir}/v/stock'", ..Plan::default() });
    let volume = Volume::mount(scene.path("v"), "4m");
    let stock = volume.0.join("stock");
    fs::create_dir(&stock).unwrap();
    fs::create_dir(scene.path("v/outside")).unwrap();
    scene.start();
    assert_eq!(scene.stop(), Some(0));
    for number in 0..200 {
        fs::write(stock.join(format!("{number}.json")), format!("{{\"n\": {number}}}")).unwrap();
    }
    volume.remount("ro");
    scene.start();
    scene.until("the route pauses", |scene| {
        let pause = scene.route("stock").and_then(|route| route.pause);
        pause.is_some_and(|pause| pause.code == "read-only")
    });
    beat(Duration::from_secs(3));
    assert_eq!(scene.posts(), 0);
    let route = scene.route("stock").unwrap();
    assert!(route.deferred + route.sending <= 16, "{route:?}");
    assert_eq!(lines(&scene, "route paused"), 1, "{}", scene.story());
    // Another route goes on meanwhile.
    scene.drop_file("order.json", "{}");
    scene.until_in("sent", &["order.json"]);
    volume.remount("rw");
    scene.until("all go out", |_| names(&stock.join("sent")).len() == 200);
    assert_each_arrived_once(&scene, 201);
    assert_eq!(lines(&scene, "route goes on"), 1, "{}", scene.story());
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn a_full_disk_under_failed_costs_no_file_and_no_reason() {
    if !may_mount("disk::a_full_disk_under_failed_costs_no_file_and_no_reason") {
        return;
    }
    let mut scene = Scene::of(Plan { defaults: "failed = '{dir}/v/failed'", ..Plan::default() });
    let volume = Volume::mount(scene.path("v"), "1m");
    scene.start();
    volume.fill();
    for number in 0..30 {
        scene.drop_file(format!("{number}.json"), format!("{{\"n\": {number}]"));
    }
    scene.until("the route pauses", |scene| {
        let pause = scene.route("orders").and_then(|route| route.pause);
        pause.is_some_and(|pause| pause.code == "disk-full" || pause.code == "disk-nearly-full")
    });
    beat(Duration::from_secs(2));
    assert!(lines(&scene, "could not go on") <= 1, "{}", scene.story());
    volume.empty();
    let failed = volume.0.join("failed");
    scene.until("all are there with their reasons", |_| names(&failed).len() == 60);
    for name in names(&failed) {
        assert!(fs::metadata(failed.join(&name)).unwrap().len() > 0, "{name} is empty");
    }
    assert_eq!(scene.posts(), 0);
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}
