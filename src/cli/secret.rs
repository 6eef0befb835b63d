//! `patchdrop secret`: secrets that patchdrop keeps, set, listed and removed. Their values are
//! never an argument and never shown.
#![expect(clippy::disallowed_methods, reason = "systemd says in the environment where they are")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use super::Globals;
use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::load;
use super::screen::{Align, Screen, Table};
use crate::config::NoSecret;
use crate::daemon::chain;
use crate::model::secret::{Secret, is_secret_name};
use crate::world::control;
use crate::world::secrets::{self, SECRET_BYTES_MAX, SecretError, Source, Stored};

/// Keep secrets for { stored = "NAME" }: set, list, remove
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A value is asked for, or read from standard input; it is never an argument \
    and never shown.\nOn Linux a credential that systemd hands to the service comes before a secret \
    of its name.\n\n\
    Examples:\n  \
    patchdrop secret set inbound && patchdrop reload\n  \
    pass show patchworks | patchdrop secret set inbound --stdin\n  \
    patchdrop secret list"
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Store a secret, in place of an older one of that name
    Set {
        /// Its name: 1 to 64 of A-Z a-z 0-9 . _ -
        #[arg(value_parser = parse_name)]
        name: String,
        /// Read the value from standard input instead of asking for it
        #[arg(long)]
        stdin: bool,
    },
    /// Show which secrets there are and which the config uses; never their values
    List {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a secret
    Remove {
        /// Its name
        #[arg(value_parser = parse_name)]
        name: String,
    },
}

pub(super) fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let shelf = load::shelf(&globals.config_path())?;
    let state_dir = &shelf.state_dir;
    match &arguments.action {
        Action::Set { name, stdin } => {
            let value = if *stdin { given(&mut io::stdin().lock())? } else { asked(name)? };
            let there_was = secrets::set(state_dir, name, &value).map_err(|it| fail(it, name))?;
            let what = if there_was { "stored in place of the older one" } else { "stored" };
            writeln!(screen.out, "{name}: {what}")?;
            if !shelf.used.contains_key(name) {
                let form = format!("{{ stored = \"{name}\" }}");
                writeln!(screen.out, "The config does not use it yet: write {form} there.")?;
            } else if control::is_answered(state_dir) {
                let flag = globals.flag();
                writeln!(
                    screen.out,
                    "The running service goes on with the one it has: patchdrop{flag} reload takes \
                     this one over."
                )?;
            }
            Ok(Exit::Done)
        }
        Action::List { json } => {
            let stored = secrets::list(state_dir, credentials_folder().as_deref());
            let stored = stored.map_err(|error| fail(error, "NAME"))?;
            let refused =
                |one: &Stored| Some((one.name.clone(), look_up(state_dir, &one.name).err()?));
            let refused = stored.iter().filter_map(refused).collect();
            let lines = lines(&stored, &shelf.used, &refused);
            if *json {
                screen.json(&as_json(&lines))?;
            } else {
                render(&lines, globals, screen)?;
            }
            let is_wanted = |line: &Line<'_>| line.stored.is_none() || !line.keys.is_empty();
            let is_missing = lines.iter().any(|line| !line.is_to_be_had() && is_wanted(line));
            Ok(if is_missing { Exit::SomeFailed } else { Exit::Done })
        }
        Action::Remove { name } => {
            if !secrets::remove(state_dir, name).map_err(|error| fail(error, name))? {
                let failure = Failure::usage(format!("no secret {name} is stored"));
                return Err(failure.hint("patchdrop secret list shows which there are"));
            }
            writeln!(screen.out, "{name}: removed")?;
            if let Some(keys) = shelf.used.get(name) {
                let keys = keys.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                writeln!(
                    screen.out,
                    "{}",
                    screen.style.alarm(&format!(
                        "The config uses it for {keys}: without it the service does not start again."
                    ))
                )?;
            }
            Ok(Exit::Done)
        }
    }
}

/// A secret of the store, for the config; what stands in its way in words.
pub(super) fn look_up(state_dir: &Path, name: &str) -> Result<Secret, NoSecret> {
    secrets::read(state_dir, credentials_folder().as_deref(), name)
        .map_err(|error| NoSecret { text: chain(&error), hint: error.remedy(name) })
}

/// Where systemd has put this process's credentials, if it has any.
fn credentials_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
    folder.map(PathBuf::from)
}

fn fail(error: SecretError, name: &str) -> Failure {
    let remedy = error.remedy(name);
    Failure::machine(error).hint(remedy)
}

fn parse_name(text: &str) -> Result<String, String> {
    if is_secret_name(text) {
        return Ok(text.to_owned());
    }
    Err("a name has 1 to 64 of A-Z a-z 0-9 . _ - and does not begin or end with a dot".to_owned())
}

/// Asks at the terminal, twice.
fn asked(name: &str) -> Result<Secret, Failure> {
    let no_terminal = |error: io::Error| {
        Failure::because(Kind::Usage, "there is no terminal to ask at", error)
            .hint("write the value to standard input and add --stdin")
    };
    if !io::stdin().is_terminal() {
        let error = io::Error::other("standard input is no terminal");
        return Err(no_terminal(error));
    }
    let ask = |prompt: String| rpassword::prompt_password(prompt).map_err(no_terminal);
    let first = ask(format!("Value of {name} (it is not shown): "))?;
    let value = sound(first)?;
    if ask("The same again: ".to_owned())? != value.reveal() {
        let failure = Failure::usage("the two values differ; nothing was stored");
        return Err(failure.hint("try again"));
    }
    Ok(value)
}

/// Reads the value from a pipe; a line break at its end belongs to the pipe.
fn given(input: &mut dyn Read) -> Result<Secret, Failure> {
    let mut bytes = Vec::new();
    input
        .take(SECRET_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::because(Kind::Machine, "cannot read the value", error))?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        let text = format!("the value is larger than {} KiB", SECRET_BYTES_MAX / 1024);
        return Err(Failure::usage(text).hint("a secret is a line, not a document"));
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::usage("the value is not UTF-8").hint("have it written as UTF-8, or type it")
    })?;
    let line = text.trim_start_matches('\u{feff}');
    let line = line.strip_suffix('\n').unwrap_or(line);
    sound(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

fn sound(value: String) -> Result<Secret, Failure> {
    if value.is_empty() {
        return Err(Failure::usage("the value is empty; nothing was stored"));
    }
    if value.chars().any(char::is_control) {
        let text = "the value holds line breaks or control characters; nothing was stored";
        return Err(Failure::usage(text).hint("the secret alone, on one line"));
    }
    Ok(Secret::new(value))
}

/// A secret that is stored, or used, or both.
#[derive(Debug, PartialEq, Eq)]
struct Line<'s> {
    name: &'s str,
    stored: Option<&'s Stored>,
    /// Why reading refuses what is stored.
    refused: Option<&'s NoSecret>,
    /// The keys of the config that use it.
    keys: Vec<&'s str>,
}

impl Line<'_> {
    fn is_to_be_had(&self) -> bool {
        self.stored.is_some() && self.refused.is_none()
    }
}

fn lines<'s>(
    stored: &'s [Stored],
    used: &'s BTreeMap<String, BTreeSet<String>>,
    refused: &'s BTreeMap<String, NoSecret>,
) -> Vec<Line<'s>> {
    let names: BTreeSet<&str> =
        stored.iter().map(|one| one.name.as_str()).chain(used.keys().map(String::as_str)).collect();
    let line = |name: &'s str| Line {
        name,
        stored: stored.iter().find(|one| one.name == name),
        refused: refused.get(name),
        keys: used.get(name).into_iter().flatten().map(String::as_str).collect(),
    };
    names.into_iter().map(line).collect()
}

fn word(source: Source) -> &'static str {
    match source {
        Source::Credential => "credential of systemd",
        Source::File => "file",
    }
}

fn as_json(lines: &[Line<'_>]) -> serde_json::Value {
    let line = |line: &Line<'_>| {
        serde_json::json!({
            "name": line.name,
            "stored": line.stored.is_some(),
            "source": line.stored.map(|stored| match stored.source {
                Source::Credential => "credential",
                Source::File => "file",
            }),
            "refused": line.refused.map(|why| &why.text),
            "remedy": line.refused.map(|why| &why.hint),
            "set_at": line.stored.and_then(|stored| stored.set_at),
            "used_by": line.keys,
        })
    };
    lines.iter().map(line).collect()
}

fn render(lines: &[Line<'_>], globals: &Globals, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(writeln!(screen.out, "No secret is stored, and the config uses none.")?);
    }
    let columns = ["secret", "from", "set", "used by"].map(|name| (name, Align::Left));
    let mut table = Table::new(&columns);
    for line in lines {
        let from = line.stored.map_or("not stored", |stored| word(stored.source));
        let from =
            if line.refused.is_some() { format!("{from}, refused") } else { from.to_owned() };
        let set_at = line.stored.and_then(|stored| stored.set_at);
        let used_by =
            if line.keys.is_empty() { "nothing".to_owned() } else { line.keys.join(", ") };
        let set_at = set_at.map_or_else(|| "-".to_owned(), |at| screen.style.time(at));
        table.row(vec![line.name.to_owned(), from, set_at, used_by]);
    }
    table.write(screen, "")?;
    for line in lines.iter().filter(|line| line.stored.is_none()) {
        let text = format!(
            "{} is not stored: patchdrop{} secret set {}",
            line.name,
            globals.flag(),
            line.name
        );
        writeln!(screen.out, "{}", screen.style.alarm(&text))?;
    }
    for (line, why) in lines.iter().filter_map(|line| Some((line, line.refused?))) {
        let text = format!("{} is refused: {}", line.name, why.text);
        writeln!(screen.out, "{}\n  hint: {}", screen.style.alarm(&text), why.hint)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture::{self, START};

    #[test]
    fn a_value_is_one_line_without_the_line_break_of_its_pipe() {
        fn check(given_bytes: &[u8], expected: Option<&str>) {
            let found = given(&mut &*given_bytes);
            assert_eq!(found.ok().as_ref().map(Secret::reveal), expected, "{given_bytes:?}");
        }
        check(b"staple", Some("staple"));
        check(b"staple\n", Some("staple"));
        check(b"staple\r\n", Some("staple"));
        check("\u{feff}st\u{e4}ple\r\n".as_bytes(), Some("st\u{e4}ple"));
        check(b" staple ", Some(" staple "));
        for bad in [&b""[..], b"\n", b"one\ntwo", b"tab\tbed", b"\xff\xfe", b"line\n\n"] {
            check(bad, None);
        }
        check(&vec![b'x'; 64 * 1024], Some(&"x".repeat(64 * 1024)));
        check(&vec![b'x'; 64 * 1024 + 1], None);
    }

    #[test]
    fn the_list_names_what_is_stored_what_is_used_and_what_is_missing() {
        let stored = |name: &str, source| Stored {
            name: name.to_owned(),
            source,
            set_at: (source == Source::File).then_some(START),
        };
        let stored = [
            stored("inbound", Source::File),
            stored("open", Source::File),
            stored("old", Source::Credential),
        ];
        let why = NoSecret {
            text: "/s/secrets/open is open to other accounts (mode 0644)".to_owned(),
            hint: "chmod go= /s/secrets/open".to_owned(),
        };
        let refused = BTreeMap::from([("open".to_owned(), why)]);
        let key = |key: &str| BTreeSet::from([key.to_owned()]);
        let used = BTreeMap::from([
            ("inbound".to_owned(), key("credential.inbound.client_secret")),
            ("hook".to_owned(), key("route.stock.url")),
        ]);
        let lines = lines(&stored, &used, &refused);
        let globals = Globals { config: None };
        let (text, shown) = fixture::shown(|screen| render(&lines, &globals, screen));
        shown.unwrap();
        insta::assert_snapshot!(text, @r"
        secret   from                   set                  used by
        hook     not stored             -                    route.stock.url
        inbound  file                   2026-11-21 08:00:00  credential.inbound.client_secret
        old      credential of systemd  -                    nothing
        open     file, refused          2026-11-21 08:00:00  nothing
        hook is not stored: patchdrop secret set hook
        open is refused: /s/secrets/open is open to other accounts (mode 0644)
          hint: chmod go= /s/secrets/open
        ");
        let json = as_json(&lines);
        assert_eq!(json[0]["stored"], false);
        assert_eq!(json[1]["source"], "file");
        assert_eq!(json[2]["used_by"], serde_json::json!([]));
    }
}
