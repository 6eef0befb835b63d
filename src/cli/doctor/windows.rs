//! What only Windows asks of an administrator: peace from the virus scanner, and folders closed to
//! other accounts.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::findings::{Finding, Level, Section};
use crate::cli::service::ours;
use crate::config::Config;
use crate::model::route::Route;
use crate::service;
use crate::world::rights;

/// Folders and their rights, then the virus scanner.
pub(super) fn sections(config: &Config, routes: &[Arc<Route>]) -> [Section; 2] {
    [folders(config, routes), scanner(config, routes)]
}

fn folders(config: &Config, routes: &[Arc<Route>]) -> Section {
    let account = account_of(&config.path);
    let whose = account.as_deref().unwrap_or("the account that this runs as");
    let mut findings = Vec::new();
    for path in ours::closes(config, &config.path) {
        findings.push(if path.exists() {
            let others = rights::others(&path, account.as_deref());
            of_ours(&path, whose, others)
        } else {
            let text = format!("{} is not there yet", path.display());
            Finding::new(Level::Warning, "state_dir", text, INSTALL)
        });
    }
    let root = config.root.iter().map(|root| ("root".to_owned(), root));
    let inboxes = routes.iter().map(|it| (format!("route {}", it.name), &it.folders.inbox));
    for (subject, folder) in root.chain(inboxes) {
        let shown = folder.display();
        findings.push(if folder.is_dir() {
            Finding::ok(subject, format!("{shown} is there"))
        } else {
            let text = format!("{shown} is not there");
            let remedy =
                format!("mkdir \"{shown}\", and patchdrop service install says the rights");
            Finding::new(Level::Away, subject, text, remedy)
        });
    }
    Section { title: "Folders", findings }
}

/// Closes what is ours to others.
const INSTALL: &str = "patchdrop service install";

/// The account of the service with this config.
fn account_of(config: &Path) -> Option<String> {
    service::windows_account(&service::windows_instance(config)?)
}

fn of_ours(path: &Path, whose: &str, others: io::Result<Vec<String>>) -> Finding {
    let (subject, shown) = ("rights", path.display());
    match others {
        Err(error) => {
            let text = format!("the rights of {shown} cannot be read: {error}");
            Finding::new(Level::Warning, subject, text, "run this as an administrator")
        }
        Ok(others) if others.is_empty() => {
            let text = format!("{shown} is for {whose}, administrators and the system alone");
            Finding::ok(subject, text)
        }
        Ok(others) => {
            let text = format!(
                "{shown} is also open to {}: ledger, tokens and secrets are nobody else's",
                others.join(", ")
            );
            Finding::new(Level::Warning, subject, text, INSTALL)
        }
    }
}

/// A scanner that holds a new file open keeps it from being moved, and a ledger from being written.
fn scanner(config: &Config, routes: &[Arc<Route>]) -> Section {
    let program = std::env::current_exe().ok();
    let folders = watched(config, routes);
    let lines = exclusions(&folders, program.as_deref());
    let text = format!(
        "have these left out of real-time scanning, so that files can be moved at once; in an \
         administrator's PowerShell: {}",
        lines.join("; ")
    );
    Section { title: "Virus scanner", findings: vec![Finding::ok("exclusions", text)] }
}

/// The fewest folders that hold everything.
fn watched(config: &Config, routes: &[Arc<Route>]) -> BTreeSet<PathBuf> {
    let own = [config.state_dir.to_path_buf()].into_iter();
    let root = config.root.iter().map(|root| root.to_path_buf());
    let inboxes = routes.iter().map(|route| route.folders.inbox.to_path_buf());
    let all: BTreeSet<PathBuf> = own.chain(root).chain(inboxes).collect();
    let is_below_another = |path: &Path| path.ancestors().skip(1).any(|above| all.contains(above));
    all.iter().filter(|path| !is_below_another(path)).cloned().collect()
}

/// A line for each, ready to paste.
fn exclusions(folders: &BTreeSet<PathBuf>, program: Option<&Path>) -> Vec<String> {
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "''"));
    let folders =
        folders.iter().map(|path| format!("Add-MpPreference -ExclusionPath {}", quoted(path)));
    let program =
        program.map(|path| format!("Add-MpPreference -ExclusionProcess {}", quoted(path)));
    folders.chain(program).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_else_may_get_at_what_is_ours_is_told_with_what_closes_it() {
        let check = |others: io::Result<Vec<String>>, level: Level, words: &str, remedy: &str| {
            let finding = of_ours(Path::new(r"C:\state"), r"NT SERVICE\patchdrop", others);
            assert_eq!((finding.level, finding.remedy.as_str()), (level, remedy));
            assert!(finding.text.contains(words), "{}", finding.text);
        };
        check(Ok(Vec::new()), Level::Ok, r"for NT SERVICE\patchdrop, administrators", "");
        let users = r"BUILTIN\Users";
        check(Ok(vec![users.to_owned()]), Level::Warning, users, INSTALL);
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        check(Err(denied), Level::Warning, "cannot be read", "run this as an administrator");
    }

    #[test]
    fn a_line_can_be_pasted_whatever_the_folder_is_called() {
        let folders = BTreeSet::from([PathBuf::from(r"D:\Anna's drop")]);
        let lines = exclusions(&folders, Some(Path::new(r"C:\patchdrop.exe")));
        let expected = [
            r"Add-MpPreference -ExclusionPath 'D:\Anna''s drop'",
            r"Add-MpPreference -ExclusionProcess 'C:\patchdrop.exe'",
        ];
        assert_eq!(lines, expected);
    }
}
