//! Secrets that patchdrop keeps: set by a person, used by the service, changed while it runs.

use std::io::Write as _;
use std::process::Stdio;

use crate::live::Site;
use crate::{Ended, program};

const KEPT: &str = "{ stored = 'inbound' }";

/// A site whose client secret is stored; nothing is stored yet.
fn site() -> Site {
    let site = Site::new();
    let path = site.path("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("{ env = 'LIVE_SECRET' }", KEPT)).unwrap();
    site
}

fn set(site: &Site, name: &str, value: &str) -> Ended {
    let mut child = site
        .command(&["secret", "set", name, "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Ended {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}

/// `state_dir` as a package makes it.
fn with_state_dir(site: &Site) {
    std::fs::create_dir(site.path("state")).unwrap();
}

#[test]
fn a_secret_is_stored_by_pipe_used_by_the_service_and_never_shown() {
    let site = site();
    with_state_dir(&site);
    let ended = site.run(&["run", "--once"]);
    assert_eq!(ended.code, 78, "{}", ended.err);
    assert!(ended.err.contains("no secret inbound is stored in"), "{}", ended.err);
    assert!(ended.err.contains("patchdrop secret set inbound"), "{}", ended.err);
    let listed = site.json(3, &["secret", "list"]);
    assert_eq!(listed[0]["stored"], false);
    assert_eq!(listed[0]["used_by"][0], "credential.inbound.client_secret");

    let ended = set(&site, "inbound", &format!("{}\r\n", site.secret));
    assert_eq!((ended.code, ended.out.as_str()), (0, "inbound: stored\n"), "{}", ended.err);
    let ended = set(&site, "spare", "battery");
    assert!(ended.out.contains("does not use it yet"), "{}", ended.out);
    let listed = site.json(0, &["secret", "list"]);
    assert_eq!((&listed[0]["name"], &listed[0]["source"]), (&"inbound".into(), &"file".into()));
    assert_eq!(listed[1]["used_by"], serde_json::json!([]));
    for text in [listed.to_string(), site.ends(0, &["secret", "list"])] {
        assert!(!text.contains(&site.secret) && !text.contains("battery"), "{text}");
    }

    let service = site.start();
    site.drop_until("a.json", "{}", "sent");
    site.stop(service);
    let log = std::fs::read_to_string(site.path("log")).unwrap();
    assert!(!log.contains(&site.secret), "{log}");

    let removed = site.ends(0, &["secret", "remove", "inbound"]);
    assert!(removed.contains("uses it for credential.inbound.client_secret"), "{removed}");
    site.ends(2, &["secret", "remove", "inbound"]);
    assert_eq!(site.run(&["check"]).code, 78);
}

#[test]
fn a_file_that_reading_refuses_is_listed_as_refused_with_what_mends_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = site();
    with_state_dir(&site);
    set(&site, "inbound", &site.secret);
    let file = site.path("state/secrets/inbound");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = site.ends(3, &["secret", "list"]);
    assert!(text.contains("file, refused"), "{text}");
    assert!(text.contains(&format!("chmod go= {}", file.display())), "{text}");
    let listed = site.json(3, &["secret", "list"]);
    assert!(listed[0]["refused"].as_str().unwrap().contains("mode 0644"), "{listed}");
    let doctor = site.json(78, &["doctor"]).to_string();
    assert_eq!(doctor.matches("mode 0644").count(), 1, "{doctor}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(site.json(0, &["secret", "list"])[0]["refused"].is_null());
}

#[test]
fn a_reload_takes_a_changed_secret_over_and_uses_no_token_of_the_old_one() {
    let site = site();
    with_state_dir(&site);
    assert_eq!(set(&site, "inbound", &site.secret).code, 0);
    let service = site.start();
    site.drop_until("a.json", "{}", "sent");
    assert_eq!(site.simulator.seen().token_requests, 1);

    let reload = || {
        assert!(site.ends(0, &["reload"]).contains("a secret has another value"));
    };
    let ended = set(&site, "inbound", "not-the-secret");
    assert!(ended.out.contains("patchdrop --config"), "{}", ended.out);
    assert!(ended.out.contains("reload takes this one over"), "{}", ended.out);
    reload();
    site.drop_in("b.json", "{}");
    site.until("the old token is not used for it", || {
        let status = site.json(0, &["status"]);
        !status["destinations"][0]["pause"].is_null()
    });
    assert_eq!(set(&site, "inbound", &site.secret).code, 0);
    reload();
    site.until("b.json is sent", || site.path("drop/orders/sent/b.json").exists());
    site.stop(service);
}

#[test]
fn a_value_is_never_an_argument_and_a_name_never_a_path() {
    let check = |arguments: &[&str], says: &str| {
        let output = program().args(["secret"]).args(arguments).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(err.contains(says), "{arguments:?}: {err}");
    };
    check(&["set", "inbound", "hunter2"], "unexpected argument");
    check(&["set", "../inbound", "--stdin"], "a name has 1 to 64 of");
    check(&["remove", ".hidden"], "a name has 1 to 64 of");
    let site = site();
    with_state_dir(&site);
    for bad in ["", "\n", "one\ntwo"] {
        let ended = set(&site, "inbound", bad);
        assert_eq!(ended.code, 2, "{bad:?}: {}", ended.err);
        assert!(ended.err.contains("nothing was stored"), "{}", ended.err);
    }
    let ended = site.run(&["secret", "set", "inbound"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("add --stdin"), "{}", ended.err);
    assert!(!site.path("state/secrets").exists());
}
