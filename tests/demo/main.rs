//! The demo is run as a user runs it: it judges itself, and what it shows is what happened.
#![expect(clippy::disallowed_methods, reason = "reads what the demo leaves to look at")]

use std::process::{Command, Stdio};

/// Runs the demo in a folder for temporary files of its own; what it printed.
fn demo(temporary: &std::path::Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_patchdrop"))
        .arg("demo")
        .env_remove("PATCHDROP_CONFIG")
        .env("TMPDIR", temporary)
        .env("TMP", temporary)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{text}\n{errors}");
    assert_eq!(errors, "", "the console stays clean");
    text
}

#[test]
fn the_demo_ends_well_and_shows_where_each_file_ended() {
    let temporary = tempfile::tempdir().expect("a folder");
    let text = demo(temporary.path());
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    // The file, where it is now, how often the server was asked.
    for (file, place, requests) in [
        ("customers/customers-all.json", "sent/", "1"),
        ("orders/SO-1001.json", "sent/", "1"),
        ("orders/SO-1003.json", "failed/", "0"),
        ("stock/stock-hamburg.json", "sent/", "1"),
        ("old-erp/invoice-88.json", "sent/", "1"),
        ("customers/K-4712.json", "failed/", "0"),
        ("orders/SO-1004.json", "failed/", "1"),
        ("orders/SO-1005.json", "held/", "1"),
        ("stock/stock-muenchen.json", "sent/", "2"),
    ] {
        let is_row = |row: &Vec<&str>| {
            row.first() == Some(&file) && row.windows(2).any(|pair| pair == [place, requests])
        };
        assert!(rows.iter().any(is_row), "{file} in {place}, {requests} requests:\n{text}");
    }
    // A journey may be shown in one line or in several: the record is looked at while it grows.
    for (file, words) in [
        ("orders/SO-1001.json", "claimed, 668 bytes"),
        ("orders/SO-1001.json", "sent (200)"),
        ("orders/SO-1003.json", "failed (truncated)"),
        ("orders/SO-1005.json", "in doubt, held (cut)"),
        ("stock/stock-muenchen.json", "deferred (http-503)"),
        ("stock/stock-muenchen.json", "attempt 2"),
    ] {
        let is_said = |line: &str| line.contains(file) && line.contains(words);
        assert!(text.lines().any(is_said), "{file}: {words:?} is not in\n{text}");
    }
    assert!(text.contains("\nAll as it should be"), "{text}");
    assert_sidecars_speak_plainly(temporary.path());
    if cfg!(unix) {
        assert_suggested_commands_work(&text);
    }
}

/// Runs what the demo says one may try, as it says it.
fn assert_suggested_commands_work(text: &str) {
    let tried = text.lines().filter(|line| line.contains(" --config "));
    let tried: Vec<&str> = tried.filter(|line| !line.contains("run --once")).collect();
    assert_eq!(tried.len(), 4, "{text}");
    for line in tried {
        let output = Command::new("sh").args(["-c", line]).output().expect("sh starts");
        assert!(output.status.success(), "{line}: {output:?}");
    }
}

/// The first line says what is wrong, and what to do stands where a person looks for it.
fn assert_sidecars_speak_plainly(temporary: &std::path::Path) {
    let folders = std::fs::read_dir(temporary).expect("the demo's folder is left");
    let folder = folders.map(|entry| entry.expect("an entry").path()).next().expect("a folder");
    for (file, first, advice) in [
        ("failed/SO-1003.json", "objects are open.", "  Check that the program that writes"),
        ("failed/SO-1004.json", "refused this file (422).", "  Mend what the server objects to"),
        ("held/SO-1005.json", "without an answer.", "  It has it:     patchdrop mark "),
    ] {
        let path = folder.join("drop/orders").join(format!("{file}.why.txt"));
        let text = std::fs::read_to_string(&path).expect("a sidecar");
        assert!(text.lines().next().is_some_and(|line| line.ends_with(first)), "{text}");
        let (_, what_to_do) = text.split_once("What you can do:\n").expect("what to do");
        assert!(what_to_do.contains(advice), "{text}");
    }
}
