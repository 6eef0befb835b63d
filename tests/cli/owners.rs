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
