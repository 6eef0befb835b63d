//! Files that are still being written, change under our hands, or go away.

use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use patchdrop::simulator::{Act, Match, Rule};

use super::scene::{Plan, Scene, beat, files, names};

/// A JSON array in pieces of about 1 KB.
fn pieces(letter: char) -> Vec<String> {
    let row = |end: &str| format!("\"{}\"{end}\n", String::from(letter).repeat(1000));
    let mut pieces = vec!["[".to_owned() + &row(",")];
    pieces.extend((0..12).map(|_| row(",")));
    pieces.push(row("]"));
    pieces
}

/// How a program writes its file.
struct Writer {
    name: &'static str,
    letter: char,
    pause: Duration,
    pauses: usize,
    reopens: bool,
    keeps_mtime_old: bool,
}

impl Writer {
    fn write(&self, inbox: &Path) -> Vec<u8> {
        let path = inbox.join(self.name);
        let open = || File::options().create(true).append(true).open(&path).unwrap();
        let pieces = pieces(self.letter);
        let every = pieces.len().div_ceil(self.pauses);
        let mut file = open();
        for (at, piece) in pieces.iter().enumerate() {
            if self.reopens {
                file = open();
            }
            file.write_all(piece.as_bytes()).unwrap();
            if self.keeps_mtime_old {
                let old = SystemTime::now() - Duration::from_hours(24 * 365 * 25);
                file.set_times(FileTimes::new().set_modified(old)).unwrap();
            }
            if at % every == 0 {
                if self.reopens {
                    drop(file);
                    beat(self.pause);
                    file = open();
                } else {
                    beat(self.pause);
                }
            }
        }
        pieces.concat().into_bytes()
    }
}

#[test]
fn a_file_still_being_written_is_sent_once_and_whole_after_its_end() {
    let scene = Scene::running(Plan {
        defaults: "quiet_for = '300ms'\ntruncated_after = '1500ms'",
        ..Plan::default()
    });
    let often = Duration::from_millis(200);
    let base = Writer {
        name: "",
        letter: 'a',
        pause: often,
        pauses: 14,
        reopens: false,
        keeps_mtime_old: false,
    };
    let writers = [
        Writer { name: "steady.json", ..base },
        // Longer than quiet_for, and than truncated_after: that somebody has it open shows.
        Writer { name: "pauses.json", letter: 'b', pause: often * 9, pauses: 2, ..base },
        Writer { name: "old.json", letter: 'c', keeps_mtime_old: true, ..base },
        // Longer than quiet_for: that the document is not at its end shows.
        Writer {
            name: "again.json",
            letter: 'd',
            pause: often * 3,
            pauses: 5,
            reopens: true,
            ..base
        },
        Writer {
            name: "old-again.json",
            letter: 'e',
            reopens: true,
            keeps_mtime_old: true,
            ..base
        },
    ];
    let inbox = scene.inbox();
    let written: Vec<(&str, Vec<u8>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = writers
            .iter()
            .map(|writer| scope.spawn(|| (writer.name, writer.write(&inbox))))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    scene.until("all are sent", |scene| names(&scene.inbox().join("sent")).len() == written.len());
    let arrived = scene.arrived();
    for (name, content) in &written {
        let bodies: Vec<_> = arrived.iter().filter(|(_, of, _)| of == name).collect();
        assert_eq!(bodies.len(), 1, "{name}: {}", scene.story());
        assert!(bodies[0].2 == *content, "{name}: {} bytes arrived", bodies[0].2.len());
    }
    assert_eq!(scene.posts(), written.len() as u64);
    scene.verify();
}

#[test]
fn the_same_rules_hold_for_a_file_that_is_half_written_at_the_start() {
    let mut scene = Scene::of(Plan::default());
    let mut file = File::create(scene.inbox().join("half.json")).unwrap();
    file.write_all(b"[1, 2,").unwrap();
    // Nobody has this one open, and it stops in the middle.
    fs::write(scene.inbox().join("left.json"), "[1,").unwrap();
    scene.start();
    scene.drop_file("whole.json", "[]");
    scene.until_in("sent", &["whole.json"]);
    file.write_all(b" 3]").unwrap();
    drop(file);
    scene.until_in("sent", &["half.json", "whole.json"]);
    scene.until_in("failed", &["left.json", "left.json.why.txt"]);
    let arrived = scene.arrived();
    let half = arrived.iter().find(|(_, name, _)| name == "half.json").unwrap();
    assert_eq!(half.2, b"[1, 2, 3]");
    assert_eq!(scene.posts(), 2);
    scene.verify();
}

#[test]
fn the_newest_of_a_name_at_the_claim_is_the_one_that_is_sent() {
    let scene = Scene::running(Plan { defaults: "quiet_for = '1h'", ..Plan::default() });
    // Renamed over one that was not ready.
    fs::write(scene.inbox().join("a.json"), "{\"version\": 1}").unwrap();
    scene.until("it waits", |scene| scene.waiting("not-ready") == 1);
    scene.drop_file("a.json", "{\"version\": 2}");
    scene.until_in("sent", &["a.json"]);
    let bodies: Vec<Vec<u8>> = scene.arrived().into_iter().map(|(_, _, body)| body).collect();
    assert_eq!(bodies, [b"{\"version\": 2}".to_vec()]);
    scene.verify();
}

#[test]
fn a_name_dropped_again_while_its_route_is_paused_is_sent_once_as_it_is_then() {
    let scene = Scene::running(Plan::default());
    assert_eq!(scene.ask(&["pause", "orders"]).code, Some(0));
    scene.drop_file("b.json", "{\"version\": 3}");
    scene.until("it waits", |scene| scene.waiting("paused") == 1);
    scene.drop_file("b.json", "{\"version\": 4}");
    assert_eq!(scene.ask(&["resume", "orders"]).code, Some(0));
    scene.until_in("sent", &["b.json"]);
    let bodies: Vec<Vec<u8>> = scene.arrived().into_iter().map(|(_, _, body)| body).collect();
    assert_eq!(bodies, [b"{\"version\": 4}".to_vec()]);
    scene.verify();
}

#[test]
fn a_name_dropped_again_while_the_first_is_on_its_way_follows_it() {
    let scene = Scene::running(Plan::default());
    scene.sim.set_rules(vec![Rule {
        when: Match { contains: Some("first".to_owned()), ..Match::default() },
        act: Act::Slow { millis: 1_500 },
        ..Rule::default()
    }]);
    scene.drop_file("a.json", "{\"is\": \"first\"}");
    scene.until("it is on its way", |scene| scene.posts() == 1);
    scene.drop_file("a.json", "{\"is\": \"second\"}");
    scene.until("the second waits", |scene| scene.waiting("same-name-on-its-way") == 1);
    scene.until_in("sent", &["a.json", "a~2.json"]);
    let bodies: Vec<Vec<u8>> = scene.arrived().into_iter().map(|(_, _, body)| body).collect();
    assert_eq!(bodies, [b"{\"is\": \"first\"}".to_vec(), b"{\"is\": \"second\"}".to_vec()]);
    let sent = scene.inbox().join("sent");
    assert_eq!(fs::read(sent.join("a~2.json")).unwrap(), b"{\"is\": \"second\"}");
    scene.verify();
}

#[test]
fn a_file_that_vanishes_before_its_claim_is_forgotten_quietly() {
    let scene = Scene::running(Plan::default());
    assert_eq!(scene.ask(&["pause", "orders"]).code, Some(0));
    scene.drop_file("gone.json", "{}");
    scene.until("it waits", |scene| scene.waiting("paused") == 1);
    fs::remove_file(scene.inbox().join("gone.json")).unwrap();
    assert_eq!(scene.ask(&["resume", "orders"]).code, Some(0));
    scene.drop_file("next.json", "{}");
    scene.until_in("sent", &["next.json"]);
    scene.until("nothing waits", |scene| {
        scene.route("orders").is_some_and(|route| route.waiting.is_empty())
    });
    assert_eq!(scene.posts(), 1);
    let log = scene.log();
    assert!(!log.contains("gone.json") && !log.contains("ERROR"), "{log}");
    scene.verify();
}

/// Takes the file out of `sending/` once `is_there` says so. That must be said loudly, and be on
/// record with the times between which it happened.
fn check_missing(scene: &Scene, state: &str, is_there: impl Fn(&Scene) -> bool) {
    scene.drop_file("gone.json", "{}");
    scene.until("it is on its way", is_there);
    let sending = scene.inbox().join("sending");
    let claimed = files(&sending);
    assert_eq!(claimed.len(), 1, "{claimed:?}");
    fs::rename(sending.join(&claimed[0]), scene.path("outside/taken.json")).unwrap();
    scene.until("somebody says that it is missing", |scene| {
        let loud = |line: &str| line.contains("ERROR") && line.contains("took it away");
        scene.log().lines().any(|line| loud(line) && line.contains("gone.json"))
    });
    let listed = scene.ask(&["list", "--state", state, "--json"]).out;
    assert!(listed.contains("gone.json"), "{listed}\n{}", scene.story());
    let explained = scene.ask(&["explain", "gone.json"]);
    assert_eq!(explained.code, Some(0), "{explained:?}");
    assert!(explained.out.contains("and is not there") || explained.out.contains("neither"));
    for folder in ["sent", "held", "failed"] {
        assert!(!scene.inbox().join(folder).join("gone.json").exists());
    }
}

#[test]
fn a_file_that_vanishes_out_of_sending_while_it_is_deferred_is_missing() {
    let scene = Scene::running(Plan {
        defaults: "retry = { first = '500ms', factor = 1.0, max = '500ms' }",
        ..Plan::default()
    });
    let answer = Act::Answer { status: 503, message: None, retry_after: None };
    scene.sim.set_rules(vec![Rule { act: answer, ..Rule::default() }]);
    check_missing(&scene, "missing", |scene| {
        scene.route("orders").is_some_and(|route| route.deferred == 1)
    });
}

#[test]
fn a_file_that_vanishes_during_an_accepted_attempt_is_on_record_as_sent_and_said_to_be_gone() {
    let scene = Scene::running(Plan::default());
    scene.sim.set_rules(vec![Rule { act: Act::Slow { millis: 1_000 }, ..Rule::default() }]);
    check_missing(&scene, "sent", |scene| scene.posts() == 1);
    scene.verify();
}

#[test]
fn a_file_that_vanishes_during_its_attempt_keeps_its_end_and_is_said_to_be_gone() {
    let scene = Scene::running(Plan { defaults: "timeout = '3s'", ..Plan::default() });
    scene.sim.set_rules(vec![Rule { act: Act::Hang, ..Rule::default() }]);
    check_missing(&scene, "held", |scene| scene.posts() == 1);
    assert_eq!(scene.ask(&["verify"]).code, Some(3), "verify must not be content");
}
