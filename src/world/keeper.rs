//! Whose the secrets are that root sets: the account's that `state_dir` belongs to, else the
//! service could not read them. All other commands of root's that write there work as that account.
//!
//! On Windows the list of rights that files take over from their folder says all that.
#![expect(clippy::disallowed_methods, reason = "it looks whose the folder is")]

#[cfg(not(unix))]
use std::fs::File;
use std::io;
use std::path::Path;

/// Whoever keeps a `state_dir`, where this process is root and may have to hand over what it makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeper {
    /// Account and group; `None` where whatever is made is the keeper's already.
    #[cfg(unix)]
    heir: Option<(u32, u32)>,
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::MetadataExt as _;

    use rustix::fd::AsFd;
    use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, fstat, open};
    use rustix::process::{getegid, geteuid};

    use super::{Keeper, Path, io};

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
}

#[cfg(not(unix))]
impl Keeper {
    /// Nobody has to hand over anything.
    #[must_use]
    pub fn of(_state_dir: &Path) -> Self {
        Self::default()
    }

    /// Nothing to hand over.
    ///
    /// # Errors
    /// None.
    pub fn give(self, _made: &File) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

    use super::*;

    /// Some account that is nobody's here.
    const SERVICE: (u32, u32) = (61_234, 61_235);

    fn owner(path: &Path) -> (u32, u32) {
        let seen = std::fs::symlink_metadata(path).unwrap();
        (seen.uid(), seen.gid())
    }

    #[test]
    fn what_root_makes_is_the_keepers() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: handing over what root makes: these tests do not run as root");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let state_dir = scratch.path().join("state");
        std::fs::create_dir(&state_dir).unwrap();
        chown(&state_dir, Some(SERVICE.0), Some(SERVICE.1)).unwrap();
        let file = state_dir.join("file");
        Keeper::of(&state_dir).give(File::create_new(&file).unwrap()).unwrap();
        assert_eq!(owner(&file), SERVICE);
        // What is somebody's already is not ours to give.
        chown(&file, Some(7), Some(7)).unwrap();
        Keeper::of(&state_dir).give(File::open(&file).unwrap()).unwrap();
        assert_eq!(owner(&file), (7, 7));
        assert_eq!(Keeper::of(&scratch.path().join("nowhere")), Keeper::default());
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
        let file = inbox.join("file");
        let keeper = Keeper { heir: Some(SERVICE) };
        keeper.give(File::create_new(&file).unwrap()).unwrap();
        assert_eq!(owner(&file), (SERVICE.0, 700));
    }
}
