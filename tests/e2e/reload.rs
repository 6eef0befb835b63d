//! A changed config while the service runs: checked first, then taken over once what is in flight has
//! ended.

use std::fs;

use patchdrop::simulator::{Act, Match, Rule};
use rustix::process::Signal;

use super::scene::{Plan, Scene};

const OTHER: &str = "[route.stock]\ninclude = ['*.dat']\n";

/// A service with one file whose answer takes a while.
fn busy() -> Scene {
    let scene = Scene::running(Plan::default());
    let when = Match { contains: Some("slow".to_owned()), ..Match::default() };
    scene.sim.set_rules(vec![Rule { when, act: Act::Slow { millis: 1_500 }, ..Rule::default() }]);
    scene.drop_file("slow.json", "{\"slow\": 1}");
    scene.until("it is on its way", |scene| scene.posts() == 1);
    scene
}

#[test]
fn a_changed_config_is_taken_over_once_what_is_in_flight_has_ended() {
    let mut scene = busy();
    fs::create_dir(scene.path("root/stock")).unwrap();
    scene.configure("", "timeout = '7s'", OTHER);
    let reload = scene.ask(&["reload"]);
    assert_eq!(reload.code, Some(0), "{reload:?}");
    assert!(reload.out.contains("defaults.timeout is set now"), "{reload:?}");
    assert!(reload.out.contains("[route.stock] is new"), "{reload:?}");
    scene.until("it goes on", |scene| scene.log().contains("reloaded"));
    scene.until_in("sent", &["slow.json"]);
    fs::write(scene.path("root/stock/a.dat"), "{}").unwrap();
    scene.until("the new route works", |scene| scene.path("root/stock/sent/a.dat").exists());
    scene.drop_file("order.json", "{}");
    scene.until_in("sent", &["order.json", "slow.json"]);
    // Nothing was sent again, and one token did for both.
    assert_eq!(scene.arrived().len(), 3, "{}", scene.story());
    assert_eq!(scene.sim.seen().token_requests, 1);
    scene.stop_and_verify();
}

#[test]
fn a_config_that_cannot_be_used_changes_nothing_and_says_why() {
    let mut scene = Scene::running(Plan::default());
    let good = fs::read_to_string(scene.path("config.toml")).unwrap();
    let check = |newer: String, code: i32, says: &str| {
        fs::write(scene.path("config.toml"), newer).unwrap();
        let reload = scene.ask(&["reload"]);
        assert_eq!(reload.code, Some(code), "{reload:?}");
        assert!(reload.err.contains(says), "{reload:?}");
    };
    check(good.replace("[defaults]", "[defaults]\ntimeuot = '7s'"), 78, "timeout");
    check(good.replace("level = 'info'", "level = 'debug'"), 78, "log cannot change while");
    // By signal nobody sees the command's words: the log has them.
    fs::write(scene.path("config.toml"), good.replace("'info'", "'loud'")).unwrap();
    scene.signal(Signal::HUP);
    scene.until("it is said", |scene| scene.log().contains("the old one stays"));
    fs::write(scene.path("config.toml"), &good).unwrap();
    scene.signal(Signal::HUP);
    scene.until("a good one is taken", |scene| scene.log().contains("reloaded"));
    scene.drop_file("order.json", "{}");
    scene.until_in("sent", &["order.json"]);
    scene.stop_and_verify();
    let reload = scene.ask(&["reload"]);
    assert_eq!(reload.code, Some(69), "{reload:?}");
}

#[test]
fn a_stop_during_a_reload_is_a_stop() {
    let mut scene = busy();
    assert_eq!(scene.ask(&["reload"]).code, Some(0));
    assert_eq!(scene.stop(), Some(0));
    scene.until_in("sent", &["slow.json"]);
    assert!(!scene.log().contains("reloaded"), "{}", scene.log());
    scene.verify();
}
