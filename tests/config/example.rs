//! `examples/config.toml` is the reference: it is right, and its defaults are the defaults.
#![expect(clippy::disallowed_methods, reason = "the tests write what the config names")]

use patchdrop::config::{self, Config, EXAMPLE};

use super::{options, read, right};

fn reveal(config: &Config) -> String {
    let secrets: Vec<String> =
        config.all_secrets().iter().map(|secret| secret.reveal().to_owned()).collect();
    format!("{config:#?}\n{secrets:#?}")
}

fn is_setting(line: &str) -> bool {
    line.strip_prefix('#')
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with([' ', '#', '-']))
}

fn switched_on(line: &str) -> &str {
    line.strip_prefix('#').unwrap_or(line)
}

#[test]
fn the_example_works_as_it_stands() {
    let config = right(EXAMPLE);
    assert_eq!(config.warnings, []);
    assert_eq!(config.routes.len(), 0);
    assert_eq!(config.discoveries.len(), 1);
    let orders = config.discoveries[0].route_of("Orders").unwrap();
    assert_eq!(orders.deliver.url.reveal(), "https://inbound.pwks.co/v1/acme/orders");
}

#[test]
fn every_line_marked_default_says_the_default() {
    let as_written = reveal(&right(EXAMPLE));
    let defaults: Vec<usize> = EXAMPLE
        .lines()
        .enumerate()
        .filter(|(_, line)| line.trim_end().ends_with("# default"))
        .filter(|(_, line)| cfg!(unix) || !line.starts_with("#state_dir"))
        .map(|(at, _)| at)
        .collect();
    assert!(defaults.len() > 40, "{} defaults", defaults.len());
    let with = |switched: &[usize]| {
        let lines: Vec<&str> = EXAMPLE
            .lines()
            .enumerate()
            .map(|(at, line)| if switched.contains(&at) { switched_on(line) } else { line })
            .collect();
        lines.join("\n")
    };
    // One at a time names the line that lies; all together is what the house rule says.
    for at in &defaults {
        let line = EXAMPLE.lines().nth(*at).unwrap();
        assert_eq!(reveal(&right(&with(&[*at]))), as_written, "{line}");
    }
    assert_eq!(reveal(&right(&with(&defaults))), as_written);
}

#[test]
fn every_setting_that_is_switched_off_can_be_switched_on() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("order.schema.json"), r#"{"type": "object"}"#).unwrap();
    let authority = rcgen::generate_simple_self_signed(["ours.example".to_owned()]).unwrap();
    std::fs::write(scratch.path().join("authority.pem"), authority.cert.pem()).unwrap();
    let text: String = EXAMPLE
        .lines()
        .map(|line| if is_setting(line) { switched_on(line) } else { line })
        .fold(String::new(), |text, line| text + line + "\n");
    let path = scratch.path().join("config.toml");
    std::fs::write(&path, &text).unwrap();
    let config = config::load(&path, &options(scratch.path())).unwrap_or_else(|faults| {
        panic!("{faults}");
    });
    assert_eq!(config.broken, []);
    assert_eq!(config.warnings, []);
    assert_eq!(config.routes.len(), 4);
}

#[test]
fn prose_is_no_setting() {
    // A line that was meant as a setting and reads as prose would never be tested.
    for line in EXAMPLE.lines().filter(|line| line.starts_with("# ")) {
        let prose = line.trim_start_matches(['#', ' ']);
        let word = prose.split(' ').next().unwrap();
        let is_assignment = prose.strip_prefix(word).is_some_and(|rest| rest.starts_with(" = "));
        assert!(!is_assignment || prose.starts_with("url = {"), "{line}");
        assert!(!line.ends_with("# default"), "{line}");
    }
}

#[test]
fn without_its_secret_the_example_is_refused() {
    let text = EXAMPLE.replace("PATCHDROP_CLIENT_SECRET", "NOT_SET_ANYWHERE");
    let faults = read(&text).unwrap_err();
    assert_eq!(faults.notices.len(), 1, "{faults}");
    assert!(faults.notices[0].text.contains("NOT_SET_ANYWHERE is not set"), "{faults}");
}
