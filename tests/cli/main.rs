//! What a person sees: help texts, failures, exit codes, of the real program.
//!
//! Snapshots are in `snapshots/`; `INSTA_UPDATE=always cargo test --test cli` writes them anew.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests make files of their own, and end where something is not as they claim"
)]

#[cfg(unix)]
mod health;
#[cfg(unix)]
mod live;
#[cfg(unix)]
mod online;
#[cfg(unix)]
mod owners;
#[cfg(unix)]
mod secrets;

use std::path::Path;
use std::process::{Command, Stdio};

use patchdrop::cli::exit_code::Exit;

const COMMANDS: [&str; 22] = [
    "run",
    "check",
    "doctor",
    "init",
    "demo",
    "send",
    "status",
    "health",
    "list",
    "explain",
    "resend",
    "release",
    "mark",
    "pause",
    "resume",
    "service",
    "verify",
    "adopt",
    "token",
    "secret",
    "simulator",
    "completions",
];

struct Ended {
    out: String,
    err: String,
    code: i32,
}

fn patchdrop(arguments: &[&str]) -> Ended {
    let output = program().args(arguments).output().expect("the program starts");
    Ended {
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
        code: output.status.code().expect("an end without a signal"),
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchdrop"));
    command
        .env_remove("PATCHDROP_CONFIG")
        .env_remove("CLICOLOR_FORCE")
        .env("TZ", "UTC")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

#[test]
fn each_command_has_a_short_help_with_an_example() {
    let mut texts = vec![("patchdrop".to_owned(), patchdrop(&["--help"]))];
    texts.extend(COMMANDS.map(|name| (format!("patchdrop {name}"), patchdrop(&[name, "--help"]))));
    for (name, ended) in texts {
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{name}");
        let longest = ended.out.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= 110, "{name}: a line of {longest} characters");
        if name != "patchdrop" {
            assert!(ended.out.contains("\nExample"), "{name} shows no example:\n{}", ended.out);
        }
        insta::assert_snapshot!(name.replace(' ', "-"), ended.out);
    }
}

#[test]
fn the_help_lists_every_command_and_every_exit_code() {
    let help = patchdrop(&["--help"]).out;
    for name in COMMANDS {
        assert!(help.contains(&format!("\n  {name} ")), "{name} is not in\n{help}");
    }
    for (exit, meaning) in Exit::ALL {
        let line = format!("\n  {:>2}  {}", exit as u8, meaning.lines().next().unwrap());
        assert!(help.contains(&line), "{line} is not in\n{help}");
    }
    let short = patchdrop(&["-h"]);
    assert_eq!(short.code, 0);
}

#[test]
fn version_names_the_program_and_its_version() {
    let ended = patchdrop(&["--version"]);
    assert_eq!(ended.out, concat!("patchdrop ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(ended.code, 0);
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2_and_says_why() {
    let check = |arguments: &[&str], complaint: &str| {
        let ended = patchdrop(arguments);
        assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains(complaint), "{complaint:?} is not in\n{}", ended.err);
    };
    check(&[], "Usage: patchdrop");
    check(&["upload"], "unrecognized subcommand 'upload'");
    check(&["stauts"], "'status'");
    check(&["run", "--for", "10m"], "--once");
    check(&["run", "--once", "--for", "soon"], "for example 10m");
    check(&["run", "--once", "--dry-run"], "cannot be used with");
    check(&["send", "a.json"], "--route <ROUTE>");
    check(&["check", "a.json"], "--route <ROUTE>");
    check(&["list", "--state", "lost"], "there are sending, deferred, confirming, held");
    check(&["list", "--since", "yesterday"], "write a span (24h, 7d) or a local time");
    check(&["pause"], "<ROUTE|--all>");
    check(&["resume"], "<ROUTE|--all>");
    check(&["pause", "orders", "--all"], "cannot be used with");
    check(&["resend"], "<FILE|--route <ROUTE>|--code <CODE>|--since <TIME>>");
    check(&["resend", "a.json", "--route", "orders"], "cannot be used with");
    check(&["release"], "<FILE|--route <ROUTE>>");
    check(&["release", "a.json", "--held"], "cannot be used with");
    check(&["release", "--held"], "--route <ROUTE>");
    check(&["mark", "a.json", "--sent"], "--note <TEXT>");
    check(&["mark", "a.json", "--note", "x"], "<--sent|--failed>");
    check(&["mark", "a.json", "--sent", "--failed", "--note", "x"], "cannot be used with");
    for nothing in ["", " \t"] {
        check(&["mark", "a.json", "--sent", "--note", nothing], "it says nothing");
    }
    check(&["token", "--refresh", "--forget"], "cannot be used with");
    check(&["completions", "cmd"], "possible values: bash");
}

#[test]
fn a_config_that_is_not_there_ends_with_78_and_says_what_to_do() {
    let commands: [&[&str]; 9] = [
        &["status"],
        &["list"],
        &["verify"],
        &["run"],
        &["check"],
        &["doctor"],
        &["explain", "a.json"],
        &["pause", "orders"],
        &["token"],
    ];
    for command in commands {
        let ended = patchdrop(&[&["--config", "/nowhere/config.toml"], command].concat());
        assert_eq!((ended.code, ended.out.as_str()), (78, ""), "{command:?}: {}", ended.err);
        assert!(ended.err.contains("/nowhere/config.toml"), "{command:?}: {}", ended.err);
        assert!(ended.err.contains("patchdrop init DIR"), "{command:?}: {}", ended.err);
    }
}

#[test]
fn the_config_is_found_by_environment_and_the_flag_wins() {
    let from_environment = program()
        .env("PATCHDROP_CONFIG", "/nowhere/environment.toml")
        .arg("status")
        .output()
        .unwrap();
    let text = String::from_utf8(from_environment.stderr).unwrap();
    assert!(text.contains("/nowhere/environment.toml"), "{text}");
    let from_flag = program()
        .env("PATCHDROP_CONFIG", "/nowhere/environment.toml")
        .args(["status", "--config", "/nowhere/flag.toml"])
        .output()
        .unwrap();
    let text = String::from_utf8(from_flag.stderr).unwrap();
    assert!(text.contains("/nowhere/flag.toml"), "{text}");
}

#[test]
fn init_makes_a_config_and_a_drop_folder_and_never_overwrites() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("new");
    let folder = folder.to_str().unwrap();
    let ended = patchdrop(&["init", folder]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let config = Path::new(folder).join("config.toml");
    assert!(Path::new(folder).join("drop/orders").is_dir());
    std::fs::write(&config, "mine").unwrap();
    let ended = patchdrop(&["init", folder]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("is there already and stays as it is"), "{}", ended.out);
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "mine");
}

#[test]
fn what_the_machine_refuses_ends_with_69_and_its_cause() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let ended = patchdrop(&["init", file.to_str().unwrap()]);
    assert_eq!(ended.code, 69);
    assert!(ended.err.starts_with("error: cannot make "), "{}", ended.err);
    assert!(ended.err.contains("\n  because: "), "{}", ended.err);
    assert!(ended.err.contains("\n  hint: "), "{}", ended.err);
}

#[test]
fn completions_name_every_command_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ended = patchdrop(&["completions", shell]);
        assert_eq!(ended.code, 0, "{shell}");
        for name in COMMANDS {
            assert!(ended.out.contains(name), "{shell}: {name}");
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = program()
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).expect("UTF-8"), "");
    assert_eq!(output.status.code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = program().args(["completions", "bash"]).stdout(full).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("error: the output cannot be written\n  because: "), "{text}");
    assert_eq!(output.status.code(), Some(69));
}
