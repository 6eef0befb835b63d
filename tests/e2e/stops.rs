//! Stops: what is in flight is finished within `drain_for`, a second wish ends at once, and no
//! folder that hangs keeps either from being heard.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use patchdrop::simulator::{Act, Rule};
use rustix::process::Signal;

use super::disk::may_mount;
use super::scene::{Plan, Scene, beat, files, names};

/// A server that never answers, and one file on its way to it.
fn hanging(top: &'static str) -> Scene {
    let scene = Scene::running(Plan { top, ..Plan::default() });
    scene.sim.set_rules(vec![Rule { act: Act::Hang, ..Rule::default() }]);
    scene.drop_file("stuck.json", "{\"n\": 1}");
    scene.until("it is on its way", |scene| scene.posts() == 1);
    scene
}

/// What was on its way is held, what was not is sent, each at most once.
fn assert_only_the_stuck_one_is_in_doubt(mut scene: Scene) {
    scene.sim.set_rules(Vec::new());
    scene.drop_file("later.json", "{\"n\": 2}");
    scene.start();
    scene.until_in("sent", &["later.json"]);
    scene.until("the doubt is held", |scene| {
        names(&scene.inbox().join("held")).contains(&"stuck.json".to_owned())
    });
    assert_eq!(scene.code_of("held", "stuck.json"), "no-answer-on-record");
    assert_eq!(scene.arrivals().get("stuck.json").copied().unwrap_or(0), 0);
    assert_eq!(files(&scene.inbox()), [""; 0]);
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn an_interrupt_drains_like_a_termination() {
    let mut scene = Scene::running(Plan::default());
    for number in 0..100 {
        scene.drop_file(format!("{number}.json"), "{}");
    }
    scene.signal(Signal::INT);
    assert_eq!(scene.ended(), Some(0));
    assert_eq!(names(&scene.inbox().join("held")), [""; 0]);
    scene.start();
    scene.until("all are sent", |scene| names(&scene.inbox().join("sent")).len() == 100);
    assert_eq!(scene.posts(), 100);
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn a_second_signal_ends_at_once_whatever_hangs() {
    for second in [Signal::TERM, Signal::INT] {
        let mut scene = hanging("drain_for = '10m'");
        let since = Instant::now();
        scene.signal(Signal::TERM);
        scene.until("it has heard the first", |scene| scene.log().contains("stopping"));
        assert!(scene.is_up(), "the first one waits for the answer");
        scene.signal(second);
        assert_eq!(scene.ended(), Some(0));
        assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
        assert_only_the_stuck_one_is_in_doubt(scene);
    }
}

#[test]
fn a_stop_ends_when_drain_for_has_passed_whatever_hangs() {
    let mut scene = hanging("drain_for = '1s'");
    assert_eq!(scene.stop(), Some(0));
    assert_only_the_stuck_one_is_in_doubt(scene);
}

/// A mount whose server never answers; it fails at once when this is dropped.
struct Hung(Child);

impl Hung {
    fn mount(scene: &Scene, below: &str) -> Self {
        let path = scene.path(below);
        fs::create_dir_all(&path).unwrap();
        let script = "exec 3<>/dev/fuse && \
            mount -i -t fuse -o fd=3,rootmode=040000,user_id=0,group_id=0 hung \"$0\" && \
            echo mounted && exec sleep 600";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        assert_eq!(line, "mounted\n");
        Self(child)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
    }
}

#[test]
fn a_lock_that_somebody_removes_lets_no_second_service_in() {
    let mut scene = Scene::running(Plan::default());
    scene.until("commands are answered", |scene| scene.status().is_some());
    fs::remove_file(scene.path("state/lock")).unwrap();
    let second = scene.ask(&["run", "--once"]);
    assert_eq!(second.code, Some(69), "{second:?}");
    assert!(second.err.contains("another patchdrop (pid "), "{second:?}");
    scene.drop_file("order.json", "{}");
    scene.until_in("sent", &["order.json"]);
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn a_root_that_hangs_stops_neither_the_start_of_the_others_nor_a_stop() {
    if !may_mount("stops::a_root_that_hangs_stops_neither_the_start_of_the_others_nor_a_stop") {
        return;
    }
    let mut scene = Scene::of(Plan {
        top: "root = '{dir}/hung'",
        tables: "[route.orders]\nfolder = '{dir}/root/orders'\n",
        ..Plan::default()
    });
    let hung = Hung::mount(&scene, "hung");
    // A stop is heard while the start still waits for the root.
    scene.launch();
    beat(Duration::from_secs(1));
    let since = Instant::now();
    scene.signal(Signal::TERM);
    let code = scene.ended();
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    assert!(code.is_none() || code == Some(0), "{code:?}");

    scene.launch();
    scene.drop_file("order.json", "{}");
    scene.until_in("sent", &["order.json"]);
    scene.until("status answers", |scene| scene.status().is_some());
    let alerts = scene.status().unwrap().alerts;
    assert!(alerts.iter().any(|alert| alert.contains("no answer")), "{alerts:?}");
    let since = Instant::now();
    assert_eq!(scene.stop(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    drop(hung);
    assert_eq!(scene.arrivals().len(), 1);
}
