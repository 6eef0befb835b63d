//! The demo is run as a user runs it: it judges itself, and what it shows is what happened.

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
