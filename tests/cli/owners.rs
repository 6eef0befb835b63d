//! Root's commands in the service's place: what they leave behind is the service's.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use crate::live::Site;

/// Some account that is nobody's here.
const SERVICE: u32 = 61_234;

/// Everything below a folder that is not the service's.
fn foreign_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let seen = std::fs::symlink_metadata(&path).unwrap();
        if seen.is_dir() {
            found.extend(foreign_below(&path));
        }
        if seen.uid() != SERVICE {
            found.push(path);
        }
    }
    found
}

/// Drop folders and `state_dir` are the service's; nothing has been started yet.
fn site_of_the_service() -> Site {
    let site = Site::new();
    std::fs::set_permissions(site.path(""), Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(site.path("state")).unwrap();
    for folder in ["state", "drop", "drop/orders"] {
        chown(site.path(folder), Some(SERVICE), Some(SERVICE)).unwrap();
    }
    site
}

#[test]
fn what_roots_commands_make_before_the_first_start_belongs_to_the_service() {
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "NOT RUN: root's commands before the first start: these tests do not run as root"
        );
        return;
    }
    let site = site_of_the_service();
    let check = |code: i32, arguments: &[&str]| {
        let ended = site.run(arguments);
        assert_eq!(ended.code, code, "{arguments:?}\n{}{}", ended.out, ended.err);
        for folder in ["state", "drop"] {
            let foreign = foreign_below(&site.path(folder));
            assert!(foreign.is_empty(), "{arguments:?} leaves {foreign:?}");
        }
    };
    check(0, &["pause", "--all"]);
    check(0, &["resume", "--all"]);
    check(0, &["token", "--refresh"]);
    check(0, &["token", "--forget"]);
    check(0, &["verify"]);
    check(0, &["adopt"]);
    std::fs::write(site.path("a.json"), "{}").unwrap();
    let file = site.path("a.json");
    check(69, &["send", file.to_str().unwrap(), "--route", "orders"]);
    site.rules(Some(crate::live::refused()));
    check(3, &["run", "--once", "--allow-root"]);
    check(0, &["resend", "--route", "orders"]);
}

#[test]
fn a_state_dir_that_is_to_be_made_is_not_made_by_a_command_of_roots() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: a state_dir that is not there: these tests do not run as root");
        return;
    }
    let site = Site::new();
    std::fs::remove_dir_all(site.path("state")).ok();
    std::fs::write(site.path("a.json"), "{}").unwrap();
    let file = site.path("a.json");
    for arguments in [
        &["pause", "--all"][..],
        &["resume", "orders"],
        &["resend", "--route", "orders"],
        &["release", "--route", "orders"],
        &["adopt"],
        &["token", "--refresh"],
        &["send", file.to_str().unwrap(), "--route", "orders"],
    ] {
        let ended = site.run(arguments);
        assert_eq!(ended.code, 69, "{arguments:?}\n{}{}", ended.out, ended.err);
        assert!(ended.err.contains("state is not there"), "{}", ended.err);
        assert!(ended.err.contains("install -d -m 700 -o ACCOUNT"), "{}", ended.err);
        assert!(!site.path("state").exists(), "{arguments:?}");
        assert!(!site.path("drop/orders/a.json").exists(), "{arguments:?}");
    }
    site.ends(0, &["check"]);
    site.ends(0, &["token"]);
    site.ends(0, &["verify"]);
    assert!(!site.path("state").exists());
    site.ends(0, &["run", "--once", "--allow-root"]);
    site.ends(0, &["pause", "--all"]);
}

#[test]
fn a_pipe_in_the_place_of_a_file_of_ours_keeps_nobody_waiting() {
    let check = |planted: &str, arguments: &[&str], code: i32, said: &str| {
        let site = Site::new();
        site.ends(0, &["run", "--once", "--allow-root"]);
        let path = site.path(planted);
        let mut folder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(folder.recursive(true), 0o700);
        folder.create(path.parent().unwrap()).unwrap();
        std::fs::remove_file(&path).ok();
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let mut child = site.command(arguments);
        let log = std::fs::File::create(site.path("said")).unwrap();
        let mut child = child.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let begun = std::time::Instant::now();
        let ended = loop {
            if let Some(ended) = child.try_wait().unwrap() {
                break ended;
            }
            if begun.elapsed().as_secs() > 30 {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{arguments:?} waits at {planted}");
            }
            std::thread::yield_now();
        };
        let text = std::fs::read_to_string(site.path("said")).unwrap();
        assert_eq!(ended.code(), Some(code), "{planted} {arguments:?}\n{text}");
        assert!(text.contains(said), "{planted} {arguments:?}\n{text}");
    };
    let pause = &["pause", "--all"][..];
    check("state/lock", pause, 69, "it is no regular file");
    check("state/lock.owner", pause, 0, "");
    check("state/begun", pause, 0, "");
    check("state/begun", &["run", "--once", "--allow-root"], 0, "");
    check("state/tokens/inbound.json", &["token"], 0, "none kept");
    check("state/ledger/ledger.db", pause, 69, "it is no regular file");
    check("state/ledger/ledger.db", &["status"], 69, "it is no regular file");
    check("state/ledger/ledger.db-wal", &["list"], 69, "it is no regular file");
    check("state/secrets/inbound", &["secret", "list"], 0, "is no regular file");
    check("drop/.patchdrop/owner.json", pause, 69, "is no regular file and no mark");
}

#[test]
fn what_is_read_from_state_dir_and_roots_steers_no_terminal() {
    let site = Site::new();
    let service = site.start();
    std::fs::write(site.path("state/lock.owner"), "pid 1 \u{1b}[2Jgone\u{7}\n").unwrap();
    let ended = site.run(&["run", "--once", "--allow-root"]);
    assert_eq!(ended.code, 69);
    assert!(ended.err.contains("pid 1 \\u{1b}[2Jgone\\u{7}"), "{:?}", ended.err);
    site.stop(service);

    let mark = site.path("drop/.patchdrop/owner.json");
    let text = std::fs::read_to_string(&mark).unwrap();
    let mut forged: serde_json::Value = serde_json::from_str(&text).unwrap();
    forged["host"] = "a\u{1b}[31mb".into();
    std::fs::write(&mark, forged.to_string()).unwrap();
    let ended = site.run(&["adopt"]);
    assert!(ended.out.contains("a\\u{1b}[31mb"), "{:?}", ended.out);
    assert!(!ended.out.contains('\u{1b}'), "{:?}", ended.out);

    let path = site.path("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let odd = "[route.orders]\ninclude = [\"a\\u001bM*.json\"]\n";
    std::fs::write(&path, format!("{text}{odd}")).unwrap();
    let said = site.ends(0, &["check"]);
    assert!(said.contains("a\\u{1b}M*.json"), "{said:?}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn a_link_in_the_place_of_a_mark_is_named_and_adopted_away() {
    let site = Site::new();
    site.ends(0, &["run", "--once", "--allow-root"]);
    let (mark, elsewhere) = (site.path("drop/.patchdrop/owner.json"), site.path("elsewhere"));
    std::fs::rename(&mark, &elsewhere).unwrap();
    symlink(&elsewhere, &mark).unwrap();
    let ended = site.run(&["run", "--once", "--allow-root"]);
    assert_eq!(ended.code, 69, "{}", ended.err);
    assert!(ended.err.contains("is a link and no mark"), "{}", ended.err);
    assert!(ended.err.contains("patchdrop adopt --yes"), "{}", ended.err);
    let said = site.json(3, &["adopt"]);
    assert_eq!(said[0]["mark"], "unreadable", "{said}");
    site.ends(0, &["adopt", "--yes"]);
    assert!(std::fs::symlink_metadata(&mark).unwrap().is_file());
    assert!(elsewhere.exists());
    site.ends(0, &["run", "--once", "--allow-root"]);
}

#[test]
fn links_of_the_service_lead_roots_commands_nowhere() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: root's commands and links: these tests do not run as root");
        return;
    }
    let check = |planted: &str, arguments: &[&str]| {
        let site = site_of_the_service();
        let victim = site.path("victim");
        std::fs::create_dir(&victim).unwrap();
        std::fs::write(victim.join("a.txt"), "of root").unwrap();
        std::fs::remove_dir(site.path(planted)).ok();
        symlink(&victim, site.path(planted)).unwrap();
        std::os::unix::fs::lchown(site.path(planted), Some(SERVICE), Some(SERVICE)).unwrap();
        let file = site.path("a.json");
        std::fs::write(&file, "{}").unwrap();
        let arguments: Vec<&str> = arguments
            .iter()
            .map(|it| if *it == "FILE" { file.to_str().unwrap() } else { it })
            .collect();
        let ended = site.run(&arguments);
        let left: Vec<_> =
            std::fs::read_dir(&victim).unwrap().map(|it| it.unwrap().path()).collect();
        assert_eq!(left, [victim.join("a.txt")], "{planted} {arguments:?}\n{}", ended.err);
        assert_eq!(std::fs::metadata(&left[0]).unwrap().uid(), 0, "{planted} {arguments:?}");
        assert_eq!(std::fs::metadata(&victim).unwrap().uid(), 0, "{planted} {arguments:?}");
    };
    check("state/ledger", &["pause", "--all"]);
    check("state/ledger", &["run", "--once", "--allow-root"]);
    check("state/tokens", &["token", "--refresh"]);
    check("state", &["pause", "--all"]);
    check("drop/orders", &["pause", "--all"]);
    check("drop/orders", &["send", "FILE", "--route", "orders", "--for", "1s"]);
}
