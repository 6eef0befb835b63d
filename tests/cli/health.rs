//! `health` beside a running service, without one, and where nothing can be known; and the heartbeat
//! of the real program.

use patchdrop::simulator::Act;

use crate::live::Site;
use crate::patchdrop;

#[test]
fn health_follows_the_service_from_its_start_to_its_end() {
    let site = Site::new();
    let before = site.ends(2, &["health"]);
    assert!(before.starts_with("PATCHDROP CRITICAL - no service runs"), "{before}");

    let service = site.start();
    let well = site.ends(0, &["health"]);
    assert!(well.starts_with("PATCHDROP OK - 1 route, 0 files waiting | waiting=0"), "{well}");
    assert_eq!(well.lines().count(), 1, "{well}");

    site.drop_until("broken.json", "{]", "failed");
    site.rules(Some(Act::StoreThenCut));
    site.drop_until("doubt.json", "{}", "held");
    site.rules(None);
    let warned = site.ends(1, &["health"]);
    assert!(warned.contains(" in_doubt=1;;;0 failed_24h=1;;;0"), "{warned}");
    assert!(warned.contains("\nWARNING: 1 file failed in the last 24 h"), "{warned}");
    assert_eq!(site.ends(0, &["health", "--only-critical"]), warned);
    let json = site.json(1, &["health", "--max-wait", "1h"]);
    assert_eq!((&json["level"], &json["held"]), (&"warning".into(), &1.into()));

    // A config that was not taken is told until a good one is.
    let path = site.path("config.toml");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{good}[log]\nlevel = 'debug'\n")).unwrap();
    assert_eq!(site.run(&["reload"]).code, 78);
    std::fs::write(&path, &good).unwrap();
    let warned = site.ends(1, &["health"]);
    assert!(warned.contains("the changed config was not taken"), "{warned}");
    site.ends(0, &["reload"]);
    site.until("it is forgotten", || !site.ends(1, &["health"]).contains("was not taken"));
    site.stop(service);
    site.ends(2, &["health"]);
    site.ends(1, &["health", "--only-critical"]);
}

#[test]
fn what_cannot_be_known_is_unknown() {
    for arguments in [
        &["health", "--config", "/nowhere/config.toml"][..],
        &["health", "--max-wait", "soon"],
        &["health", "--nonsense"],
    ] {
        let ended = patchdrop(arguments);
        assert_eq!(ended.code, 3, "{arguments:?}: {}{}", ended.out, ended.err);
    }
    let ended = patchdrop(&["health", "--config", "/nowhere/config.toml"]);
    assert!(ended.out.starts_with("PATCHDROP UNKNOWN - "), "{}", ended.out);
    assert_eq!(ended.err, "");
}

#[test]
fn the_heartbeat_beats_and_its_url_is_in_no_log() {
    let site = Site::new();
    let path = site.path("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let url = format!("{}/no-such-place-4711", site.simulator.url());
    std::fs::write(&path, format!("heartbeat_url = '{url}'\n{text}")).unwrap();
    let service = site.start();
    // The simulator knows no such page: that is said once, and hurts nothing.
    let log = || std::fs::read_to_string(site.path("log")).unwrap_or_default();
    site.until("the first beat has failed", || log().contains("the heartbeat was not heard"));
    site.drop_until("a.json", "{}", "sent");
    site.stop(service);
    assert!(!log().contains("no-such-place-4711"), "{}", log());
    let changed = site.ends(0, &["check"]);
    assert!(!changed.contains("no-such-place-4711"), "{changed}");
}

#[test]
fn doctor_looks_at_this_machine_even_where_a_secret_is_the_services_alone() {
    let site = Site::new();
    let titles = |all: &serde_json::Value| -> Vec<String> {
        let sections = all["sections"].as_array().unwrap().iter();
        sections.map(|section| section["title"].as_str().unwrap().to_owned()).collect()
    };
    let well = site.json(0, &["doctor"]);
    for title in ["Folders", "Room", "Service", "Servers"] {
        assert!(titles(&well).contains(&title.to_owned()), "{well}");
    }
    let path = site.path("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("{ env = 'LIVE_SECRET' }", "{ stored = 'none' }")).unwrap();
    let without = site.json(78, &["doctor"]);
    assert!(titles(&without).contains(&"Folders".to_owned()), "{without}");
    assert!(!titles(&without).contains(&"Servers".to_owned()), "{without}");
    let said = without.to_string();
    assert!(said.contains("patchdrop secret set none"), "{said}");
    assert!(said.contains("credential.inbound.client_secret"), "{said}");
    let faults = |all: &serde_json::Value| -> Vec<serde_json::Value> {
        let sections = all["sections"].as_array().unwrap().iter();
        let findings = sections.flat_map(|section| section["findings"].as_array().unwrap());
        let refused = |it: &&serde_json::Value| {
            it["text"].as_str().unwrap().contains("secret") && it["level"] != "ok"
        };
        findings.filter(refused).cloned().collect()
    };
    assert_eq!(faults(&without).len(), 1, "one cause, one finding: {without}");
}

#[test]
fn doctor_tells_a_root_whose_mark_would_be_refused_before_the_start_does() {
    let site = Site::new();
    let service = site.start();
    // Before any id was given out the ledger may stand in for another one.
    site.drop_until("a.json", "{}", "sent");
    site.stop(service);
    site.ends(0, &["doctor"]);
    let mark = site.path("drop/.patchdrop/owner.json");
    let text = std::fs::read_to_string(&mark).unwrap();
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let check = |key: &str, other: &str, expected: &str| {
        let own = found[key].as_str().unwrap();
        std::fs::write(&mark, text.replace(own, other)).unwrap();
        let said = site.ends(78, &["doctor"]);
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("patchdrop adopt --yes"), "{said}");
        assert_eq!(site.run(&["run", "--once"]).code, 78);
    };
    check("ledger", "00112233445566778899aabbccddeeff", "belongs to another patchdrop");
    check("host", "some-other-machine", "is in use by another copy of this patchdrop");
    std::fs::write(&mark, &text).unwrap();
    site.ends(0, &["doctor"]);
}

#[test]
fn a_config_that_was_broken_since_does_not_hide_the_service_that_runs() {
    let site = Site::new();
    let service = site.start();
    let path = site.path("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}oops = 1\n")).unwrap();
    let status = site.json(0, &["status"]);
    assert_eq!(status["routes"][0]["name"], "orders");
    assert!(status["alerts"][0].as_str().unwrap().contains("cannot be used, and"), "{status}");
    assert_eq!(site.run(&["health"]).code, 1);
    let check = |broken: &str| {
        std::fs::write(&path, broken).unwrap();
        let ended = site.run(&["pause", "--all"]);
        assert_eq!(ended.code, 0, "{broken}\n{}", ended.err);
        assert!(ended.out.contains("orders: paused with all others"), "{}", ended.out);
        assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
        assert!(ended.err.contains("goes on under its last good one"), "{}", ended.err);
        let done = site.json(0, &["resume", "--all"]);
        assert_eq!(done[0]["subject"], "orders");
        site.ends(0, &["pause", "orders"]);
        site.ends(0, &["resume", "orders"]);
        site.ends(69, &["pause", "nowhere"]);
        let ended = site.run(&["health"]);
        assert_eq!(ended.code, 1, "{broken}\n{}", ended.out);
        assert!(ended.out.contains("goes on with the last good one"), "{}", ended.out);
        site.ends(0, &["status"]);
    };
    check(&format!("{text}oops = 1\n"));
    check(&format!("{text}oops = \n[[\n"));
    check(&text.replace("root = 'drop'", "root = 'drop"));
    std::fs::write(&path, text.replace("state_dir = 'state'", "state_dir 'state'")).unwrap();
    let ended = site.run(&["pause", "--all"]);
    assert_eq!(ended.code, 78, "{}", ended.err);
    assert!(ended.err.contains("--config COPY"), "{}", ended.err);
    let health = site.run(&["health"]);
    assert_eq!(health.code, 3, "{}", health.out);
    assert!(health.out.contains("--config COPY"), "{}", health.out);
    std::fs::remove_file(&path).unwrap();
    let ended = site.run(&["pause", "--all"]);
    assert_eq!(ended.code, 78, "{}", ended.err);
    assert!(!ended.err.contains("--config COPY"), "{}", ended.err);

    std::fs::write(&path, format!("{text}oops = 1\n")).unwrap();
    site.stop(service);
    assert_eq!(site.run(&["health"]).code, 3);
    assert_eq!(site.run(&["status"]).code, 78);
    assert_eq!(site.run(&["pause", "--all"]).code, 78);
}

#[test]
fn a_restart_does_not_make_a_file_younger_that_waits_nor_the_fault_that_keeps_it() {
    let site = Site::new();
    let service = site.start();
    site.rules(Some(Act::Answer { status: 503, message: None, retry_after: None }));
    for name in ["a.json", "b.json", "c.json"] {
        site.drop_in(name, "{}");
    }
    let paused = || {
        let status = site.json(0, &["status"]);
        let is_paused = !status["destinations"][0]["pause"].is_null();
        (is_paused && status["routes"][0]["deferred"] == 3).then_some(status)
    };
    site.until("its destination is paused", || paused().is_some());
    site.stop(service);
    let entries = site.json(0, &["list"]);
    let claimed = entries.as_array().unwrap().iter().map(|entry| entry["claimed_at"].to_string());
    let oldest = claimed.min().unwrap();

    let service = site.start();
    site.until("its destination is paused again", || paused().is_some());
    let status = paused().unwrap_or_else(|| site.json(0, &["status"]));
    assert_eq!(status["routes"][0]["deferred_since"].to_string(), oldest, "{status}");
    assert_eq!(status["destinations"][0]["pause"]["since"].to_string(), oldest, "{status}");
    site.until("a file has waited for a second", || {
        let health = site.run(&["health", "--max-wait", "1s"]);
        health.code == 2 && health.out.contains("a file has been due for")
    });
    site.stop(service);
}
