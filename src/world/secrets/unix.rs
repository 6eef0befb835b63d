//! Owner-only files. All work goes through an open folder: `state_dir` belongs to an account with
//! few rights, and root must not be led elsewhere by a link that it has put there.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, Mode, OFlags, Stat};
use rustix::process::geteuid;

use super::{FOLDER, SecretError, bytes_of, text, wall};
use crate::model::secret::{Secret, is_secret_name};
use crate::model::time::Wall;
use crate::world::keeper::Keeper;

const OTHERS: u32 = 0o077;
const ROOT: u32 = 0;

/// The folder of the secrets, open, and whose it must be.
struct Shelf {
    folder: OwnedFd,
    path: PathBuf,
    owner: u32,
    keeper: Keeper,
}

pub(super) fn read(state_dir: &Path, name: &str) -> Result<Secret, SecretError> {
    let absent = || SecretError::Absent { name: name.to_owned(), folder: state_dir.join(FOLDER) };
    let shelf = Shelf::open(state_dir)?.ok_or_else(absent)?;
    let path = shelf.path.join(name);
    // A pipe in its place must not keep us waiting.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match fs::openat(&shelf.folder, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Err(absent()),
        Err(rustix::io::Errno::LOOP) => return Err(SecretError::NotAFile { path }),
        Err(error) => return Err(SecretError::of("open", &path, error.into())),
    };
    let found = file.metadata().map_err(|source| SecretError::of("read", &path, source))?;
    if !found.is_file() {
        return Err(SecretError::NotAFile { path });
    }
    shelf.is_kept(&path, found.uid(), found.mode())?;
    let bytes = bytes_of(file).map_err(|source| SecretError::of("read", &path, source))?;
    text(&path, bytes)
}

pub(super) fn set(state_dir: &Path, name: &str, value: &Secret) -> Result<bool, SecretError> {
    let shelf = Shelf::make(state_dir)?;
    let path = shelf.path.join(name);
    let fail = |source: io::Error| SecretError::of("write", &path, source);
    let there_was = fs::statat(&shelf.folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    // What begins with a dot is the name of no secret.
    let temporary = format!(".{name}.new");
    shelf.unlink(&temporary).map_err(fail)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = fs::openat(&shelf.folder, temporary.as_str(), flags, mode)
        .map_err(|error| fail(error.into()))?;
    shelf.keeper.give(&file).map_err(fail)?;
    let mut file = File::from(file);
    file.write_all(value.reveal().as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
    fs::renameat(&shelf.folder, temporary.as_str(), &shelf.folder, name)
        .and_then(|()| fs::fsync(&shelf.folder))
        .map_err(|error| fail(error.into()))?;
    Ok(there_was)
}

pub(super) fn remove(state_dir: &Path, name: &str) -> Result<bool, SecretError> {
    let Some(shelf) = Shelf::open(state_dir)? else { return Ok(false) };
    let removed = shelf.unlink(name).and_then(|there_was| {
        fs::fsync(&shelf.folder)?;
        Ok(there_was)
    });
    removed.map_err(|source| SecretError::of("remove", &shelf.path.join(name), source))
}

pub(super) fn list(state_dir: &Path) -> Result<Vec<(String, Option<Wall>)>, SecretError> {
    let Some(shelf) = Shelf::open(state_dir)? else { return Ok(Vec::new()) };
    let fail = |error: rustix::io::Errno| SecretError::of("list", &shelf.path, error.into());
    let mut found = Vec::new();
    for entry in fs::Dir::read_from(&shelf.folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if !is_secret_name(name) {
            continue;
        }
        let seen = fs::statat(&shelf.folder, name, AtFlags::SYMLINK_NOFOLLOW);
        let changed = seen.ok().and_then(|seen| {
            let since = u64::try_from(seen.st_mtime).ok()?;
            wall(std::time::UNIX_EPOCH + std::time::Duration::from_secs(since))
        });
        found.push((name.to_owned(), changed));
    }
    Ok(found)
}

impl Shelf {
    /// `None` where there is no such folder yet.
    fn open(state_dir: &Path) -> Result<Option<Self>, SecretError> {
        let Some((state, seen)) = open_state(state_dir)? else { return Ok(None) };
        let path = state_dir.join(FOLDER);
        let folder = match open_folder(&state) {
            Ok(folder) => folder,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
                return Err(SecretError::NotAFile { path });
            }
            Err(error) => return Err(SecretError::of("open", &path, error.into())),
        };
        let own =
            fs::fstat(&folder).map_err(|error| SecretError::of("open", &path, error.into()))?;
        let shelf = Self { folder, owner: seen.st_uid, keeper: Keeper::of(state_dir), path };
        // Whoever may write in it can put a secret of their own in the place of ours.
        shelf.is_kept(&shelf.path, own.st_uid, own.st_mode)?;
        Ok(Some(shelf))
    }

    /// The same, made where it is not there. Root makes it for the account that `state_dir` is of.
    fn make(state_dir: &Path) -> Result<Self, SecretError> {
        let fail = |error: rustix::io::Errno| {
            SecretError::of("write", &state_dir.join(FOLDER), error.into())
        };
        let (state, seen) = match open_state(state_dir)? {
            Some(found) => found,
            None if geteuid().as_raw() == ROOT => {
                return Err(SecretError::NoStateDir { path: state_dir.to_owned() });
            }
            None => {
                let mut builder = std::fs::DirBuilder::new();
                std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
                builder
                    .recursive(true)
                    .create(state_dir)
                    .map_err(|source| SecretError::of("write", state_dir, source))?;
                let path = state_dir.to_owned();
                open_state(state_dir)?.ok_or(SecretError::NoStateDir { path })?
            }
        };
        let own = geteuid().as_raw();
        if own != ROOT && own != seen.st_uid {
            // The service would not believe a file of ours.
            let source = io::Error::from(io::ErrorKind::PermissionDenied);
            return Err(SecretError::Denied { path: state_dir.to_owned(), source });
        }
        match fs::mkdirat(&state, FOLDER, Mode::RWXU) {
            Ok(()) => {
                let folder = open_folder(&state).map_err(fail)?;
                Keeper::of(state_dir)
                    .give(&folder)
                    .map_err(|source| SecretError::of("write", &state_dir.join(FOLDER), source))?;
                fs::fsync(&state).map_err(fail)?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(fail(error)),
        }
        let path = state_dir.to_owned();
        Self::open(state_dir)?.ok_or(SecretError::NoStateDir { path })
    }

    fn is_kept(&self, path: &Path, owner: u32, mode: u32) -> Result<(), SecretError> {
        let path = || path.to_owned();
        if owner != self.owner {
            return Err(SecretError::Foreign { path: path(), owner, wanted: self.owner });
        }
        if mode & OTHERS != 0 {
            return Err(SecretError::Exposed { path: path(), mode: mode & 0o7777 });
        }
        Ok(())
    }

    /// Whether there was something.
    fn unlink(&self, name: &str) -> io::Result<bool> {
        match fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn open_state(state_dir: &Path) -> Result<Option<(OwnedFd, Stat)>, SecretError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = fs::open(state_dir, flags, Mode::empty())
        .and_then(|state| fs::fstat(&state).map(|seen| (state, seen)));
    match opened {
        Ok(found) => Ok(Some(found)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(SecretError::of("open", state_dir, error.into())),
    }
}

fn open_folder(state: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(state, FOLDER, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::super::{SecretError, folder, list, read, set};
    use super::*;

    fn store() -> (tempfile::TempDir, PathBuf) {
        let scratch = tempfile::tempdir().unwrap();
        set(scratch.path(), "inbound", &Secret::new("staple")).unwrap();
        let path = folder(scratch.path()).join("inbound");
        (scratch, path)
    }

    fn open_up(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn nobody_else_can_read_what_is_kept() {
        let (scratch, path) = store();
        let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&path), mode(&folder(scratch.path()))), (0o600, 0o700));
    }

    #[test]
    fn what_others_could_read_or_replace_is_not_believed() {
        #[track_caller]
        fn check(spoil: impl Fn(&Path, &Path), expected: &str) {
            let (scratch, path) = store();
            spoil(&folder(scratch.path()), &path);
            let error = read(scratch.path(), None, "inbound").unwrap_err();
            let remedy = error.remedy("inbound");
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!remedy.is_empty() && !format!("{error:?} {remedy}").contains("staple"));
        }
        check(|_, path| open_up(path, 0o640), "inbound is open to other accounts (mode 0640)");
        check(|_, path| open_up(path, 0o604), "inbound is open to other accounts (mode 0604)");
        check(|folder, _| open_up(folder, 0o770), "secrets is open to other accounts");
        check(
            |folder, path| {
                std::fs::rename(path, folder.join("elsewhere")).unwrap();
                symlink(folder.join("elsewhere"), path).unwrap();
            },
            "inbound is no regular file",
        );
        check(
            |_, path| {
                std::fs::remove_file(path).unwrap();
                std::fs::create_dir(path).unwrap();
            },
            "inbound is no regular file",
        );
        check(
            |folder, _| {
                let moved = folder.with_file_name("moved");
                std::fs::rename(folder, &moved).unwrap();
                symlink(moved, folder).unwrap();
            },
            "secrets is no regular file",
        );
        check(|_, path| std::fs::write(path, b"\xff").unwrap(), "it is not UTF-8");
        if geteuid().is_root() {
            check(|_, path| chown(path, Some(4_711), None).unwrap(), "belongs to account 4711");
            check(|folder, _| chown(folder, Some(4_711), None).unwrap(), "belongs to account 4711");
        }
    }

    #[test]
    fn root_keeps_it_for_the_account_of_state_dir_and_does_not_guess_that() {
        if !geteuid().is_root() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let state_dir = scratch.path().join("state");
        let secret = Secret::new("staple");
        let error = set(&state_dir, "inbound", &secret).unwrap_err();
        assert!(matches!(error, SecretError::NoStateDir { .. }), "{error:?}");

        std::fs::create_dir(&state_dir).unwrap();
        chown(&state_dir, Some(4_711), Some(4_712)).unwrap();
        set(&state_dir, "inbound", &secret).unwrap();
        for path in [folder(&state_dir), folder(&state_dir).join("inbound")] {
            let seen = std::fs::symlink_metadata(&path).unwrap();
            assert_eq!((seen.uid(), seen.gid()), (4_711, 4_712), "{}", path.display());
        }
        assert_eq!(read(&state_dir, None, "inbound").unwrap().reveal(), "staple");
        assert_eq!(list(&state_dir, None).unwrap().len(), 1);
    }

    #[test]
    fn a_link_in_place_of_the_half_written_one_is_not_followed() {
        let (scratch, path) = store();
        let victim = scratch.path().join("victim");
        std::fs::write(&victim, "untouched").unwrap();
        symlink(&victim, path.with_file_name(".inbound.new")).unwrap();
        set(scratch.path(), "inbound", &Secret::new("battery")).unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(read(scratch.path(), None, "inbound").unwrap().reveal(), "battery");
    }
}
