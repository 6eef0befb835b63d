//! patchdrop's own small files, in `state_dir` and in roots: made for their owner, and opened in
//! such a way that nothing that has come into their place keeps anybody waiting or leads elsewhere.
#![expect(
    clippy::disallowed_methods,
    reason = "our own files and folders, never a file to be sent"
)]

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::path::Path;

use self::system::{folder_builder, with_mode, without_waiting};

/// For its owner alone.
pub(super) const PRIVATE: u32 = 0o600;
/// Others may read it, as far as the process's mask lets them.
pub(super) const READABLE: u32 = 0o644;

/// Opens a file of ours, links followed. A pipe in its place keeps nobody waiting: what is no
/// regular file is an error.
///
/// # Errors
/// What the system said.
pub(super) fn open(path: &Path, how: &mut OpenOptions) -> io::Result<File> {
    match without_waiting(how).open(path) {
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

/// Makes a file of this mode, which must not be there: not even a link of its name. `how` says what
/// it is opened for.
///
/// # Errors
/// What the system said.
pub(super) fn create(path: &Path, mode: u32, how: &mut OpenOptions) -> io::Result<File> {
    with_mode(how, mode).create_new(true).open(path)
}

/// Makes a folder that others may go through and list if `is_open`, within the process's mask;
/// whether it was not there.
///
/// # Errors
/// What the system said.
pub(super) fn make_folder(folder: &Path, is_open: bool) -> io::Result<bool> {
    match folder_builder(if is_open { 0o755 } else { 0o700 }).create(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a small text of ours in the place of an older one. A link in its place is not followed
/// but removed.
///
/// # Errors
/// What the system said.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    create(path, READABLE, OpenOptions::new().write(true))?.write_all(text.as_bytes())
}

#[cfg(unix)]
mod system {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

    use super::{DirBuilder, OpenOptions};

    pub(super) fn with_mode(how: &mut OpenOptions, mode: u32) -> &mut OpenOptions {
        how.mode(mode)
    }

    pub(super) fn without_waiting(how: &mut OpenOptions) -> &mut OpenOptions {
        how.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
    }

    pub(super) fn folder_builder(mode: u32) -> DirBuilder {
        let mut builder = DirBuilder::new();
        builder.mode(mode);
        builder
    }
}

#[cfg(not(unix))]
mod system {
    use super::{DirBuilder, OpenOptions};

    pub(super) fn with_mode(how: &mut OpenOptions, _mode: u32) -> &mut OpenOptions {
        how
    }

    pub(super) fn without_waiting(how: &mut OpenOptions) -> &mut OpenOptions {
        how
    }

    pub(super) fn folder_builder(_mode: u32) -> DirBuilder {
        DirBuilder::new()
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_made_follows_no_link_and_what_is_no_file_is_not_opened() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        std::fs::write(at("victim"), "another's").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        create(&at("link"), PRIVATE, OpenOptions::new().write(true)).unwrap_err();
        write(&at("link"), "ours").unwrap();
        assert_eq!(std::fs::read_to_string(at("victim")).unwrap(), "another's");
        assert_eq!(read(&at("link"), 4).unwrap(), b"ours");
        read(&at("link"), 3).unwrap_err();
        assert!(make_folder(&at("folder"), false).unwrap());
        assert!(!make_folder(&at("folder"), false).unwrap());
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, mode, 0)
            .unwrap();
        for odd in ["pipe", "folder"] {
            assert!(read(&at(odd), 9).is_err(), "{odd}");
            assert!(open(&at(odd), OpenOptions::new().read(true).write(true)).is_err(), "{odd}");
            assert!(open(&at(odd), OpenOptions::new().write(true)).is_err(), "{odd}");
            assert!(is_free_for_a_file(&at(odd)).is_err(), "{odd}");
        }
        is_free_for_a_file(&at("link")).unwrap();
        is_free_for_a_file(&at("nothing")).unwrap();
    }
}
