//! Whose patchdrop's own files are: the account that `state_dir` belongs to. A command of root's
//! works in the service's place; what it leaves behind must be the service's, else that may neither
//! write its own record nor start.
//!
//! On Windows the list of rights that files take over from their folder says all that.
#![expect(clippy::disallowed_methods, reason = "our own files and folders are made here")]

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// For the keeper alone.
pub(super) const PRIVATE: u32 = 0o600;
/// Others may read it, as far as the process's mask lets them.
pub(super) const READABLE: u32 = 0o644;

/// Opens a file of ours, links followed. A pipe in its place keeps nobody waiting: what is no
/// regular file is an error.
///
/// # Errors
/// What the system said.
pub(super) fn open(path: &Path, how: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    {
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        std::os::unix::fs::OpenOptionsExt::custom_flags(how, flags);
    }
    match how.open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        // A pipe that nobody reads, a socket.
        #[cfg(unix)]
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            Err(no_file())
        }
        Ok(_) => Err(no_file()),
        Err(error) => Err(error),
    }
}

/// The bytes of a small file of ours, at most `max` of them; see [`open`].
///
/// # Errors
/// What the system said; a longer file is an error.
pub(super) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    open(path, OpenOptions::new().read(true))?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let text = format!("larger than {} KiB", max / 1024);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// Whether something that is no regular file has the name of one, links followed.
///
/// # Errors
/// It has, or what the system said. One that is not there is no error.
pub(super) fn is_free_for_a_file(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(no_file()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no regular file: move it away")
}

/// Whoever keeps a `state_dir`, where this process is root and may have to hand over what it makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeper {
    /// Account and group; `None` where whatever is made is the keeper's already.
    #[cfg(unix)]
    heir: Option<(u32, u32)>,
}

#[cfg(unix)]
mod unix {
    use std::fs::DirBuilder;
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};

    use rustix::fd::AsFd;
    use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, fstat, open};
    use rustix::process::{getegid, geteuid};

    use super::{File, Keeper, OpenOptions, Path, io};

    const ROOT: u32 = 0;

    impl Keeper {
        /// The one whose `state_dir` this is. One that is not there is nobody's yet.
        #[must_use]
        pub fn of(state_dir: &Path) -> Self {
            if !geteuid().is_root() {
                return Self::default();
            }
            let seen = std::fs::metadata(state_dir).ok();
            let heir = seen.map(|seen| (seen.uid(), seen.gid()));
            Self { heir: heir.filter(|(owner, _)| *owner != ROOT) }
        }

        /// The account's number, where it is not the one that this process runs as.
        #[must_use]
        pub fn account(self) -> Option<u32> {
            self.heir.map(|(owner, _)| owner)
        }

        /// Hands over what this process has just made, by its open handle, so that no link leads
        /// elsewhere. What is not root's is not ours to give. A group that the folder above has
        /// handed down stays: it is an administrator's choice.
        ///
        /// # Errors
        /// What the system said.
        pub fn give(self, made: impl AsFd) -> io::Result<()> {
            let Some((owner, group)) = self.heir else { return Ok(()) };
            let seen = fstat(&made)?;
            if seen.st_uid != ROOT {
                return Ok(());
            }
            let is_handed_down = seen.st_gid != getegid().as_raw();
            let group = (!is_handed_down).then(|| Gid::from_raw(group));
            Ok(fchown(made, Some(Uid::from_raw(owner)), group)?)
        }

        /// The same for a folder that this process has just made, by its path.
        ///
        /// # Errors
        /// What the system said.
        pub(in crate::world) fn give_folder(self, made: &Path) -> io::Result<()> {
            if self.heir.is_none() {
                return Ok(());
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            self.give(open(made, flags, Mode::empty())?)
        }
    }

    pub(super) fn create(path: &Path, mode: u32, how: &mut OpenOptions) -> io::Result<File> {
        how.create_new(true).mode(mode).open(path)
    }

    pub(super) fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
        DirBuilder::new().mode(mode).create(folder)
    }
}

#[cfg(unix)]
use unix::{create, make_folder};

#[cfg(not(unix))]
impl Keeper {
    /// Nobody has to hand over anything.
    #[must_use]
    pub fn of(_state_dir: &Path) -> Self {
        Self::default()
    }

    /// None.
    #[must_use]
    pub fn account(self) -> Option<u32> {
        None
    }

    /// Nothing to hand over.
    ///
    /// # Errors
    /// None.
    pub fn give(self, _made: &File) -> io::Result<()> {
        Ok(())
    }

    /// Nothing to hand over.
    pub(in crate::world) fn give_folder(self, _made: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(not(unix))]
fn create(path: &Path, _mode: u32, how: &mut OpenOptions) -> io::Result<File> {
    how.create_new(true).open(path)
}

#[cfg(not(unix))]
fn make_folder(folder: &Path, _mode: u32) -> io::Result<()> {
    std::fs::create_dir(folder)
}

impl Keeper {
    /// Makes a file of this mode, which must not be there: not even a link of its name. `how` says
    /// what it is opened for.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn create(self, path: &Path, mode: u32, how: &mut OpenOptions) -> io::Result<File> {
        let file = create(path, mode, how)?;
        self.give(&file)?;
        Ok(file)
    }

    /// Makes a folder that others may go through and list if `is_open`, within the process's mask;
    /// whether it was not there.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn make_folder(self, folder: &Path, is_open: bool) -> io::Result<bool> {
        match make_folder(folder, if is_open { 0o755 } else { 0o700 }) {
            Ok(()) => self.give_folder(folder).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes a small text of ours in the place of an older one. A link in its place is not
    /// followed but removed.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn write(self, path: &Path, text: &str) -> io::Result<()> {
        use std::io::Write as _;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.create(path, READABLE, OpenOptions::new().write(true))?.write_all(text.as_bytes())
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

    use super::*;

    /// Some account that is nobody's here.
    const SERVICE: (u32, u32) = (61_234, 61_235);

    fn owner(path: &Path) -> (u32, u32) {
        let seen = std::fs::symlink_metadata(path).unwrap();
        (seen.uid(), seen.gid())
    }

    #[test]
    fn what_root_makes_is_the_keepers_and_a_link_is_never_followed() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: handing over what root makes: these tests do not run as root");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let state_dir = scratch.path().join("state");
        std::fs::create_dir(&state_dir).unwrap();
        chown(&state_dir, Some(SERVICE.0), Some(SERVICE.1)).unwrap();
        let keeper = Keeper::of(&state_dir);
        let (file, folder) = (state_dir.join("file"), state_dir.join("folder"));
        keeper.create(&file, PRIVATE, OpenOptions::new().write(true)).unwrap();
        assert!(keeper.make_folder(&folder, false).unwrap());
        assert!(!keeper.make_folder(&folder, false).unwrap());
        assert_eq!((owner(&file), owner(&folder)), (SERVICE, SERVICE));

        // The account may put links where root is to write.
        let (victim, link) = (scratch.path().join("victim"), state_dir.join("link"));
        std::fs::write(&victim, "root's").unwrap();
        symlink(&victim, &link).unwrap();
        keeper.create(&link, PRIVATE, OpenOptions::new().write(true)).unwrap_err();
        keeper.write(&link, "ours").unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "root's");
        assert_eq!(owner(&victim).0, 0);
        assert_eq!(owner(&link), SERVICE);

        let nobodys = Keeper::of(&scratch.path().join("nowhere"));
        assert_eq!(nobodys, Keeper::default());
        nobodys.make_folder(&scratch.path().join("root's"), false).unwrap();
        assert_eq!(owner(&scratch.path().join("root's")).0, 0);
    }

    #[test]
    fn a_group_that_the_folder_above_hands_down_stays() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: groups handed down: these tests do not run as root");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let inbox = scratch.path().join("inbox");
        std::fs::create_dir(&inbox).unwrap();
        chown(&inbox, Some(SERVICE.0), Some(700)).unwrap();
        std::fs::set_permissions(&inbox, std::fs::Permissions::from_mode(0o3770)).unwrap();
        let keeper = Keeper { heir: Some(SERVICE) };
        keeper.make_folder(&inbox.join("sent"), false).unwrap();
        assert_eq!(owner(&inbox.join("sent")), (SERVICE.0, 700));
    }
}
