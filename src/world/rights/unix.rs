//! Modes: what is ours is its owner's alone.
#![expect(clippy::disallowed_methods, reason = "our own folders and files, made and looked at")]

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

pub(super) fn close(path: &Path, _account: Option<&str>) -> io::Result<()> {
    let mode = if fs::metadata(path)?.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

pub(super) fn others(path: &Path, _account: Option<&str>) -> io::Result<Vec<String>> {
    let mode = fs::metadata(path)?.permissions().mode();
    let may = [(0o070, "its group"), (0o007, "everybody")];
    let may = may.iter().filter(|(bits, _)| mode & bits != 0);
    Ok(may.map(|(_, who)| (*who).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_may_by_the_mode_are_told() {
        let scratch = tempfile::tempdir().unwrap();
        let check = |mode: u32, expected: &[&str]| {
            fs::set_permissions(scratch.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(others(scratch.path(), None).unwrap(), expected, "{mode:o}");
        };
        check(0o700, &[]);
        check(0o750, &["its group"]);
        check(0o711, &["its group", "everybody"]);
        check(0o707, &["everybody"]);
    }
}
