//! What of an installation belongs to one account, and what lies beside it: Windows keeps lists of
//! who may, and by itself lets everybody read what is in `%ProgramData%`.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{self, Config};
use crate::service::{self, Installation, Report, Step};
use crate::world::rights;

/// Where config and state of all instances are, unless somebody wants them elsewhere.
fn home() -> Option<PathBuf> {
    config::default_state_dir().parent().map(Path::to_path_buf)
}

/// What is for the service's account: its state, and a config in the usual place.
pub(in crate::cli) fn closes(config: &Config, path: &Path) -> Vec<PathBuf> {
    let is_at_home = path.parent().is_some_and(|folder| Some(folder) == home().as_deref());
    let state_dir = Some(config.state_dir.to_path_buf());
    state_dir.into_iter().chain(is_at_home.then(|| path.to_path_buf())).collect()
}

/// Closes all this, and gives the account what it needs to be a service's.
pub(super) fn see_to(installation: &Installation, report: &mut Report) {
    let Some(account) = report.account.clone() else { return };
    if let Err(error) = rights::make_folder(&installation.state_dir) {
        report.done.push(format!("{} cannot be made: {error}", installation.state_dir.display()));
    }
    let home = home().filter(|home| installation.closes.iter().any(|path| path.starts_with(home)));
    if let Some(home) = home {
        let accounts = accounts(&home, &account);
        let done = rights::close_to_all(&home, &accounts);
        report.done.push(told(&home, &accounts.join(", "), done));
    }
    for path in &installation.closes {
        report.done.push(told(path, &account, rights::close(path, Some(&account))));
    }
    if !service::must_log_on(&account) {
        return;
    }
    match rights::let_log_on(&account) {
        Ok(()) => report.done.push(format!("{account} may log on as a service")),
        Err(error) => report.next.insert(0, by_hand(&account, &error.to_string())),
    }
}

/// Those of all instances that are installed with a config there, ours among them: what a config
/// names may lie beside it.
fn accounts(home: &Path, ours: &str) -> Vec<String> {
    let mut accounts = vec![ours.to_owned()];
    for entry in std::fs::read_dir(home).into_iter().flatten().flatten() {
        let installed = service::windows_instance(&entry.path())
            .and_then(|instance| service::windows_account(&instance));
        let is_known = |it: &String| accounts.iter().any(|known| known.eq_ignore_ascii_case(it));
        if let Some(account) = installed.filter(|it| !is_known(it)) {
            accounts.push(account);
        }
    }
    accounts
}

fn told(path: &Path, accounts: &str, done: io::Result<()>) -> String {
    let shown = path.display();
    match done {
        Ok(()) => {
            format!("{shown} is open to {accounts}, to administrators and to the system alone")
        }
        Err(error) => format!("{shown} could not be closed to others: {error}"),
    }
}

fn by_hand(account: &str, why: &str) -> Step {
    Step {
        why: format!(
            "{account} must be let log on as a service, which could not be done ({why}); where a \
             policy of the domain says who may, name it there"
        ),
        command: "secpol.msc: Local Policies, User Rights Assignment, Log on as a service"
            .to_owned(),
    }
}
