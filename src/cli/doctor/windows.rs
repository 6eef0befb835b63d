//! What only Windows asks of an administrator: peace from the virus scanner, and folders closed to
//! other accounts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::findings::{Finding, Section};
use crate::config::Config;
use crate::model::route::Route;

/// A scanner that holds a new file open keeps it from being moved, and a ledger from being written.
pub(super) fn section(config: &Config, routes: &[Arc<Route>]) -> Section {
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
