//! Killed at random moments: nothing is lost, nothing is sent twice, doubt is held.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::scene::{Plan, Scene, UNSYNCED, beat, files, names, scale};

const FILES_A_ROUND: u64 = 60;

/// A small generator; its seed is in the message of a failed test.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn a_service_killed_again_and_again_loses_nothing_and_sends_nothing_twice() {
    check_kills("", scale("PATCHDROP_E2E_KILLS", 20));
}

#[test]
fn a_service_that_syncs_nothing_loses_and_doubles_nothing_by_a_kill_either() {
    check_kills(UNSYNCED, scale("PATCHDROP_E2E_KILLS", 20) / 2);
}

fn check_kills(tables: &'static str, rounds: u64) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = scale("PATCHDROP_E2E_SEED", u64::from(now.subsec_nanos()) | 1);
    eprintln!("PATCHDROP_E2E_SEED={seed}");
    let mut dice = Dice(seed);
    let mut scene = Scene::of(Plan { defaults: "concurrency = 8", tables, ..Plan::default() });
    let mut dropped = 0;
    for _ in 0..rounds {
        scene.launch();
        let moment = dice.below(FILES_A_ROUND);
        for number in 0..FILES_A_ROUND {
            if number == moment {
                beat(Duration::from_millis(dice.below(250)));
            }
            scene.drop_file(format!("{dropped}.json"), format!("{{\"n\": {dropped}}}"));
            dropped += 1;
        }
        beat(Duration::from_millis(dice.below(150)));
        scene.kill();
    }
    scene.start();
    let inbox = scene.inbox();
    let held = |_: &Scene| {
        let mut held = files(&inbox.join("held"));
        held.retain(|name| !name.ends_with(".why.txt"));
        held
    };
    scene.until("all have come to an end", |scene| {
        let sent = names(&inbox.join("sent")).len();
        (sent + held(scene).len()) as u64 == dropped && names(&inbox.join("sending")).is_empty()
    });
    let mut arrived = BTreeMap::<String, u64>::new();
    for (_, name, body) in scene.arrived() {
        let number = name.strip_suffix(".json").unwrap();
        assert_eq!(body, format!("{{\"n\": {number}}}").into_bytes(), "seed {seed}: {name}");
        *arrived.entry(name).or_default() += 1;
    }
    let held = held(&scene);
    for number in 0..dropped {
        let name = format!("{number}.json");
        let times = arrived.get(&name).copied().unwrap_or(0);
        let is_held = held.contains(&name);
        assert!(times <= 1, "seed {seed}: {name} arrived {times} times\n{}", scene.story());
        assert!(is_held || times == 1, "seed {seed}: {name} is in sent/ and never arrived");
    }
    for name in &held {
        assert_eq!(scene.code_of("held", name), "no-answer-on-record", "seed {seed}");
    }
    // At most what was in flight at a kill may be in doubt.
    assert!(held.len() as u64 <= 8 * rounds, "seed {seed}: {} are held", held.len());
    assert_eq!(files(&inbox), [""; 0]);
    assert_eq!(files(&inbox.join("failed")), [""; 0]);
    scene.stop_and_verify();
}

#[test]
fn a_stop_in_the_middle_leaves_nothing_in_doubt() {
    let mut scene = Scene::running(Plan { defaults: "concurrency = 8", ..Plan::default() });
    let mut dropped = 0;
    for _ in 0..3 {
        for _ in 0..200 {
            scene.drop_file(format!("{dropped}.json"), "{}");
            dropped += 1;
        }
        assert_eq!(scene.stop(), Some(0));
        scene.start();
    }
    scene.until("all are sent", |scene| names(&scene.inbox().join("sent")).len() == dropped);
    assert_eq!(scene.arrivals().len(), dropped);
    assert_eq!(scene.posts(), dropped as u64);
    scene.verify();
}
