//! Root's commands in the service's place: what they leave behind is the service's.

use std::os::unix::fs::{MetadataExt as _, chown};
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

#[test]
fn what_roots_commands_make_before_the_first_start_belongs_to_the_service() {
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "NOT RUN: root's commands before the first start: these tests do not run as root"
        );
        return;
    }
    let site = Site::new();
    std::fs::create_dir(site.path("state")).unwrap();
    for folder in ["state", "drop", "drop/orders"] {
        chown(site.path(folder), Some(SERVICE), Some(SERVICE)).unwrap();
    }
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
