//! What is different in a config that was read again, in words for a person.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use toml::de::{DeTable, DeValue};

use super::Config;
use super::page::Page;

/// Every key that is written, dotted, with a digest of what it is set to: the value itself may be
/// nobody's business (promise P11).
#[derive(Clone, Default)]
pub(super) struct Written(BTreeMap<String, u64>);

impl fmt::Debug for Written {
    /// How a config is written is no part of what it means.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written(..)")
    }
}

/// All keys of a config file.
pub(super) fn written(page: &Page, table: &DeTable<'_>) -> Written {
    let mut found = Written::default();
    collect(page, table, "", &mut found);
    found
}

fn collect(page: &Page, table: &DeTable<'_>, above: &str, found: &mut Written) {
    for (key, value) in table {
        let name = part(key.get_ref());
        let dotted = if above.is_empty() { name } else { format!("{above}.{name}") };
        if let DeValue::Table(table) = value.get_ref() {
            if table.is_empty() {
                found.0.insert(dotted.clone(), 0);
            }
            collect(page, table, &dotted, found);
        } else {
            let mut digest = DefaultHasher::new();
            page.written(value.span()).hash(&mut digest);
            found.0.insert(dotted, digest.finish());
        }
    }
}

/// A key as it is written: names of hosts hold dots.
fn part(name: &str) -> String {
    let is_bare = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    if name.chars().all(is_bare) { name.to_owned() } else { format!("\"{name}\"") }
}

/// What a newer config changes, in sentences that name keys and no values; never empty.
pub(super) fn changes(old: &Config, new: &Config) -> Vec<String> {
    let (is, was) = (sections(&new.written), sections(&old.written));
    let mut said: Vec<String> = Vec::new();
    for section in is.difference(&was) {
        said.push(format!("[{section}] is new"));
    }
    for section in was.difference(&is) {
        said.push(format!("[{section}] is gone"));
    }
    let both: BTreeSet<&String> = old.written.0.keys().chain(new.written.0.keys()).collect();
    for key in both {
        let section = section_of(key);
        if section.is_some_and(|it| is.contains(it) != was.contains(it)) {
            continue;
        }
        match (old.written.0.get(key), new.written.0.get(key)) {
            (Some(one), Some(other)) if one != other => said.push(format!("{key} has changed")),
            (Some(_), None) => said.push(format!("{key} is no longer set")),
            (None, Some(_)) => said.push(format!("{key} is set now")),
            _ => {}
        }
    }
    let values = |config: &Config| -> BTreeSet<String> {
        config.secrets.iter().map(|secret| secret.reveal().to_owned()).collect()
    };
    if said.is_empty() && values(old) != values(new) {
        said.push("a secret has another value".to_owned());
    }
    if said.is_empty() {
        said.push("no key has changed; secrets and schemas were read anew".to_owned());
    }
    said
}

/// Keys that a running service cannot change: they name what it has open.
pub(super) fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let fixed = [
        ("state_dir", old.state_dir != new.state_dir),
        ("ledger.durability", old.durability != new.durability),
        ("log", old.log != new.log),
    ];
    fixed.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// The table that a key of a named thing stands in: `route.orders`.
fn section_of(key: &str) -> Option<&str> {
    let named = ["route.", "credential.", "destination."];
    let kind = named.into_iter().find(|kind| key.starts_with(kind))?;
    let name = key.get(kind.len()..)?;
    // The dots between quotes are the name's own.
    let quotes = name.strip_prefix('"').and_then(|rest| rest.find('"')).map_or(0, |end| end + 2);
    let dot = name.get(quotes..)?.find('.').map(|dot| kind.len() + quotes + dot);
    let end = dot.unwrap_or(key.len());
    key.get(..end)
}

fn sections(written: &Written) -> BTreeSet<&str> {
    written.0.keys().filter_map(|key| section_of(key)).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{LoadOptions, read};
    use super::*;

    const OLD: &str = "
root = '/r'
state_dir = '/s'
auto_routes = false
[route.orders]
deliver = 'http'
url = 'https://server.example/orders'
timeout = '30s'
";

    fn config(text: &str) -> Config {
        read(text.as_bytes(), Path::new("/c/config.toml"), &LoadOptions::default()).unwrap()
    }

    #[test]
    fn what_is_different_is_said_by_key_and_never_by_value() {
        #[track_caller]
        fn check(newer: &str, expected: &[&str]) {
            assert_eq!(changes(&config(OLD), &config(newer)), expected);
        }
        check(OLD, &["no key has changed; secrets and schemas were read anew"]);
        check(&OLD.replace("30s", "40s"), &["route.orders.timeout has changed"]);
        check(&OLD.replace("timeout = '30s'", ""), &["route.orders.timeout is no longer set"]);
        check(&format!("sweep_every = '30s'\n{OLD}"), &["sweep_every is set now"]);
        let more = "[route.stock]\ndeliver = 'http'\nurl = 'https://server.example/stock'\n";
        check(&format!("{OLD}{more}"), &["[route.stock] is new"]);
        let host = "[destination.'server.example']\nrate = '5/s'\n";
        check(&format!("{OLD}{host}"), &["[destination.\"server.example\"] is new"]);
        check(
            &OLD.replace("route.orders", "route.returns"),
            &["[route.returns] is new", "[route.orders] is gone"],
        );
    }

    #[test]
    fn what_the_service_has_open_needs_a_restart() {
        #[track_caller]
        fn check(newer: &str, expected: &[&str]) {
            assert_eq!(needs_restart(&config(OLD), &config(newer)), expected);
        }
        check(&OLD.replace("30s", "40s"), &[]);
        check(&OLD.replace("'/s'", "'/other'"), &["state_dir"]);
        check(&format!("{OLD}[log]\nlevel = 'debug'\n"), &["log"]);
        check(&format!("{OLD}[ledger]\ndurability = 'process-crash'\n"), &["ledger.durability"]);
    }
}
