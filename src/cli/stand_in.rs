//! Who works in the service's place does it as the account that `state_dir` belongs to.
//!
//! Below `state_dir` and in the drop folders that account can put whatever it likes under any name:
//! links, other files, a record of its own. What root did there would be done wherever they lead.
#![expect(clippy::disallowed_methods, reason = "the process becomes another one before it begins")]

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::failure::{Failure, Kind};
use crate::world::secrets::SecretError;

const ROOT: u32 = 0;

/// Gives root's rights up where `state_dir` is another account's: this process begins anew as that
/// account, with its groups. Returns where there is nothing to give up. `begins`: where
/// there is none yet, this command makes one or does without.
///
/// # Errors
/// This machine has no `setpriv`, or it refuses; or `state_dir` is to be made, by root and perhaps
/// for another account.
pub(super) fn for_the_keeper(state_dir: &Path, begins: bool) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    if !begins && is_missing(state_dir) {
        let error = SecretError::NoStateDir { path: state_dir.to_owned() };
        let remedy = error.remedy("");
        return Err(Failure::because(
            Kind::Machine,
            "nothing was done: what root makes there now, the service could not use",
            error,
        )
        .hint("start the service once, it makes it for its account: patchdrop service start")
        .hint(format!("or {remedy}")));
    }
    let Some((owner, group)) = keeper_of(state_dir) else { return Ok(()) };
    let failed = |error| {
        let what = format!(
            "{} belongs to account {owner}, and what is done there is not done as root",
            state_dir.display()
        );
        Failure::because(Kind::Machine, what, error)
            .hint("run it as that account: sudo -u ACCOUNT patchdrop ...; or install util-linux, which has setpriv")
    };
    let program = std::env::current_exe().map_err(failed)?;
    let become_it = |groups: &str| {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={owner}")).arg(format!("--regid={group}")).arg(groups);
        command.arg("--");
        command
    };
    // Drop folders may be open to a group alone. An account that has no name has no groups.
    let named = become_it("--init-groups")
        .arg("true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(failed)?;
    let groups = if named.success() { "--init-groups" } else { "--clear-groups" };
    Err(failed(become_it(groups).arg(program).args(std::env::args_os().skip(1)).exec()))
}

fn is_missing(state_dir: &Path) -> bool {
    std::fs::metadata(state_dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Account and group, where they are not root's. A link is whose it is, unless it is root's.
fn keeper_of(state_dir: &Path) -> Option<(u32, u32)> {
    let mut seen = std::fs::symlink_metadata(state_dir).ok()?;
    if seen.is_symlink() && seen.uid() == ROOT {
        seen = std::fs::metadata(state_dir).ok()?;
    }
    (seen.uid() != ROOT).then(|| (seen.uid(), seen.gid()))
}
