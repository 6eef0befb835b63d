//! `patchdrop man`: a manual page for every command, from the command line itself; packages bring
//! them along.
#![expect(clippy::disallowed_methods, reason = "it writes pages into the folder that it is given")]

use std::fs;
use std::io;
use std::path::PathBuf;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::screen::Screen;

/// Write a manual page for each command into a folder
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    patchdrop man ./man1 && man ./man1/patchdrop.1")]
pub(super) struct Arguments {
    /// The folder; made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(arguments: &Arguments, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let folder = &arguments.folder;
    let failed = |error: io::Error| {
        let what = format!("cannot write pages into {}", folder.display());
        Failure::because(Kind::Machine, what, error)
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let pages = pages()?;
    for (name, page) in &pages {
        fs::write(folder.join(name), page).map_err(failed)?;
    }
    writeln!(screen.out, "{} pages in {}", pages.len(), folder.display())?;
    Ok(Exit::Done)
}

/// Each page with the name of its file.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = super::command_line();
    command.build();
    let mut pages = Vec::new();
    add(&command, true, &mut pages)?;
    Ok(pages)
}

fn add(
    command: &clap::Command,
    is_first: bool,
    pages: &mut Vec<(String, Vec<u8>)>,
) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    pages.push((format!("{name}.1"), page(command, is_first)?));
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        add(inner, false, pages)?;
    }
    Ok(())
}

fn page(command: &clap::Command, is_first: bool) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).manual("patchdrop");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|inner| !inner.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    if is_first {
        first_page_ends().to_writer(&mut page)?;
    } else {
        after_help(command).to_writer(&mut page)?;
    }
    Ok(page)
}

/// What stands below the help of a command: remarks, then examples.
fn after_help(command: &clap::Command) -> Roff {
    let mut roff = Roff::new();
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (remarks, examples) = match text.find("Example") {
        Some(at) => text.split_at(at),
        None => (text.as_str(), ""),
    };
    if !remarks.trim().is_empty() {
        roff.control("SH", ["REMARKS"]);
        for part in remarks.trim().split("\n\n") {
            roff.control("PP", []);
            roff.text([roman(part)]);
        }
    }
    let mut lines = examples.lines();
    if lines.next().is_some() {
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        for line in lines {
            roff.text([roman(line.trim_start())]);
        }
        roff.control("fi", []);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("patchdrop"), roman("(1)")]);
    roff
}

/// What the page of patchdrop itself says beside its commands.
fn first_page_ends() -> Roff {
    let mut roff = Roff::new();
    let mut section = |name: &str, lines: &[(String, String)]| {
        roff.control("SH", [name]);
        for (term, meaning) in lines {
            roff.control("TP", []);
            roff.text([bold(term.as_str())]);
            roff.text([roman(meaning.as_str())]);
        }
    };
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let codes = Exit::ALL.map(|(exit, meaning)| ((exit as u8).to_string(), words(meaning)));
    section("EXIT STATUS", &codes);
    let line = |term: &str, meaning: &str| (term.to_owned(), meaning.to_owned());
    section(
        "FILES",
        &[
            line("/etc/patchdrop/config.toml", "the config; it explains every key"),
            line("/etc/patchdrop/NAME.toml", "the config of patchdrop@NAME.service"),
            line(
                "/var/lib/patchdrop",
                "state_dir: the record of every file, tokens, the lock, the control socket",
            ),
            line(
                "ROOT/ROUTE",
                "a drop folder, with sending, sent, failed and held in it; what lies in the last \
                 two has a NAME.why.txt beside it",
            ),
            line("/usr/share/doc/patchdrop", "README, changelog and the reference of all keys"),
        ],
    );
    section(
        "ENVIRONMENT",
        &[
            line("PATCHDROP_CONFIG", "the config, where --config does not name one"),
            line("NO_COLOR, CLICOLOR_FORCE", "no colours, or colours also where no terminal is"),
        ],
    );
    section(
        "SEE ALSO",
        &[line("systemctl(1), journalctl(1)", "the service and its log: journalctl -u patchdrop")],
    );
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_the_first_one_has_all_exit_codes() {
        let pages = pages().unwrap();
        let text = |name: &str| {
            let page = pages.iter().find(|(page, _)| page == name).expect(name);
            String::from_utf8(page.1.clone()).unwrap()
        };
        let first = text("patchdrop.1");
        for (exit, _) in Exit::ALL {
            assert!(first.contains(&format!("\\fB{}\\fR", exit as u8)), "{exit:?}\n{first}");
        }
        for section in ["NAME", "SYNOPSIS", "FILES", "ENVIRONMENT"] {
            assert!(first.contains(&format!(".SH {section}")), "{section}");
        }
        let line = crate::cli::command_line();
        for command in line.get_subcommands().filter(|command| !command.is_hide_set()) {
            let page = text(&format!("patchdrop-{}.1", command.get_name()));
            assert!(page.contains(".SH EXAMPLES"), "{}", command.get_name());
        }
        assert!(text("patchdrop-service-install.1").contains("account"));
        assert!(!pages.iter().any(|(name, _)| name == "patchdrop-man.1"));
    }
}
