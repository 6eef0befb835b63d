//! Who may get at what is patchdrop's own: its state, its config, its pipe. The system,
//! administrators and the service's account, nobody else. Keeps promise P11 where a folder would
//! otherwise be open to whoever may look at those above it.
//!
//! On Unix that is a mode, and the account is the owner. On Windows it is a list of rights that
//! takes nothing over from the folders above.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::io;
use std::path::Path;

#[cfg(unix)]
use self::unix as system;
#[cfg(windows)]
use self::windows as system;
#[cfg(windows)]
pub(super) use self::windows::Closed;

/// Makes a folder, with those above it that are not there. Those made are closed from their first
/// moment on to all but this account, administrators and the system.
///
/// # Errors
/// What the system said. A folder that is there already is left as it is, and is no error.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    system::make_folder(folder)
}

/// Closes a folder with what it hands down to all below it, or a file, to everybody but the system,
/// administrators and one account. On Windows that is the named one, such as
/// `NT SERVICE\patchdrop`, else the one that this process runs under. On Unix it is the owner,
/// whoever is named.
///
/// # Errors
/// What the system said, also of a name that is no account's.
pub fn close(path: &Path, account: Option<&str>) -> io::Result<()> {
    system::close(path, account)
}

/// [`close`] for several accounts.
///
/// # Errors
/// What the system said, also of a name that is no account's.
#[cfg(windows)]
pub fn close_to_all(path: &Path, accounts: &[String]) -> io::Result<()> {
    system::close_to_all(path, accounts)
}

/// Lets an account log on as a service of this machine. A policy of its domain that says who may
/// takes that away again, unless it names the account too.
///
/// # Errors
/// What the system said, also of a name that is no account's.
#[cfg(windows)]
pub fn let_log_on(account: &str) -> io::Result<()> {
    system::let_log_on(account)
}

/// Who else than [`close`] would leave may get at a folder or a file, in words; nobody, if it is
/// empty.
///
/// # Errors
/// What the system said.
pub fn others(path: &Path, account: Option<&str>) -> io::Result<Vec<String>> {
    system::others(path, account)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "the tests make what is closed")]

    use super::*;

    /// Nobody else may get at it. Wine keeps a list that a folder is made with, and neither hands
    /// it down nor takes another for it.
    fn check_closed(path: &Path) {
        if cfg!(windows) && std::env::var_os("WINELOADER").is_some() {
            return;
        }
        assert_eq!(others(path, None).unwrap(), Vec::<String>::new(), "{}", path.display());
    }

    #[test]
    fn a_folder_that_is_made_is_closed_to_others_with_those_made_above_it() {
        let scratch = tempfile::tempdir().unwrap();
        let (above, folder) = (scratch.path().join("a"), scratch.path().join("a/b"));
        make_folder(&folder).unwrap();
        make_folder(&folder).unwrap();
        assert_eq!(others(&above, None).unwrap(), Vec::<String>::new());
        check_closed(&folder);
        std::fs::write(folder.join("file"), "ours").unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("file")).unwrap(), "ours");
        make_folder(&folder.join("file")).unwrap_err();
    }

    #[test]
    fn what_was_open_to_others_is_closed_and_stays_usable() {
        let scratch = tempfile::tempdir().unwrap();
        let (folder, file) = (scratch.path().join("folder"), scratch.path().join("file"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&file, "ours").unwrap();
        for path in [&folder, &file] {
            close(path, None).unwrap();
            check_closed(path);
        }
        std::fs::write(folder.join("within"), "ours").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "ours");
        close(&scratch.path().join("nothing"), None).unwrap_err();
    }
}
