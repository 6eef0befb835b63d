//! Folders and files on Unix, as plain blocking functions.
//!
//! Every operation opens the folder, works relative to it and closes it again: nobody can swap the
//! folder between two steps of one operation, and an unmount finds no handle of ours.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    Access, AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::lease::{self, Lease};
use super::real::Own;
use super::volume::{MountTable, is_local, volume_kind};
use super::{Examined, FolderError, MoveError, Volume};
use crate::model::file::{Digest, FolderSeen, Identity, Kind, Place, Sighting};
use crate::model::time::Wall;

/// An fsync of a folder makes its renames durable.
pub(super) const SYNCS_FOLDERS: bool = true;

/// Of what cannot be looked at.
const UNKNOWN: Identity = Identity { volume: 0, number: 0, size: 0, mtime_ns: 0 };

/// A file that is read in one go is read in pieces of this size.
const BUFFER_BYTES: usize = 128 * 1024;

/// An open file that is being examined. The read lease, where there is one, ends when it is
/// dropped.
pub struct Grip {
    file: File,
    identity: Identity,
}

impl std::fmt::Debug for Grip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grip").field("identity", &self.identity).finish_non_exhaustive()
    }
}

// ---- folders --------------------------------------------------------------------------------

/// Opens a folder; a link in its last place is refused. The one door through which every operation
/// goes.
fn folder_handle(folder: &Path, own: &Own) -> Result<OwnedFd, FolderError> {
    #[cfg(target_os = "linux")]
    let access = OFlags::PATH;
    #[cfg(not(target_os = "linux"))]
    let access = OFlags::RDONLY;
    the_pinned(open_folder(folder, access | OFlags::NOFOLLOW)?, folder, own)
}

/// A folder opened so that it can be listed or synced, for which it must be readable.
fn readable_handle(folder: &Path, own: &Own) -> Result<OwnedFd, FolderError> {
    the_pinned(open_folder(folder, OFlags::RDONLY | OFlags::NOFOLLOW)?, folder, own)
}

/// Refuses a folder that is not the one which was pinned under its path. Looked at through the
/// handle, so nobody can swap it between this look and what is done in it.
fn the_pinned(handle: OwnedFd, folder: &Path, own: &Own) -> Result<OwnedFd, FolderError> {
    let Some(pinned) = own.pinned(folder) else { return Ok(handle) };
    let stat =
        rustix::fs::fstat(&handle).map_err(|errno| folder_fault("look at", folder, errno))?;
    // On shares numbers may change by themselves.
    let is_it = unsigned(stat.st_dev) == pinned.volume
        && (!pinned.is_local || unsigned(stat.st_ino) == pinned.number);
    if is_it { Ok(handle) } else { Err(FolderError::Replaced { path: folder.to_owned() }) }
}

/// Asks nobody's pin.
pub(super) fn inspect(folder: &Path) -> Result<Option<FolderSeen>, FolderError> {
    let stat = match rustix::fs::lstat(folder) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(folder_fault("look at", folder, errno)),
    };
    Ok(Some(FolderSeen {
        kind: kind(&stat),
        volume: unsigned(stat.st_dev),
        number: unsigned(stat.st_ino),
        is_local: volume_kind(folder) == Volume::Local,
        owner: Some(stat.st_uid),
        mode: u32::try_from(unsigned(stat.st_mode)).unwrap_or(0) & 0o7777,
    }))
}

pub(super) fn account() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn open_folder(folder: &Path, flags: OFlags) -> Result<OwnedFd, FolderError> {
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::io::retry_on_intr(|| rustix::fs::open(folder, flags, Mode::empty()))
        .map_err(|errno| folder_fault("open", folder, errno))
}

/// The names in a folder, read piece by piece.
pub(super) struct Listing {
    folder: Arc<Path>,
    entries: Dir,
}

impl Listing {
    pub(super) fn open(folder: Arc<Path>, own: &Own) -> Result<Self, FolderError> {
        let handle = readable_handle(&folder, own)?;
        let entries = Dir::new(handle).map_err(|errno| folder_fault("list", &folder, errno))?;
        Ok(Self { folder, entries })
    }

    /// At most `most` sightings; fewer mean that this is the end.
    pub(super) fn read(&mut self, most: usize) -> Result<Vec<Sighting>, FolderError> {
        let mut sightings = Vec::new();
        while sightings.len() < most {
            let Some((name, _)) = self.next_name()? else { break };
            if let Some(sighting) = self.sighting(name)? {
                sightings.push(sighting);
            }
        }
        Ok(sightings)
    }

    fn next_name(&mut self) -> Result<Option<(OsString, FileType)>, FolderError> {
        loop {
            let entry = match self.entries.read() {
                None => return Ok(None),
                Some(Ok(entry)) => entry,
                Some(Err(errno)) => return Err(folder_fault("list", &self.folder, errno)),
            };
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                return Ok(Some((OsString::from_vec(name.to_vec()), entry.file_type())));
            }
        }
    }

    fn sighting(&self, name: OsString) -> Result<Option<Sighting>, FolderError> {
        let handle =
            self.entries.fd().map_err(|errno| folder_fault("list", &self.folder, errno))?;
        match rustix::fs::statat(handle, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(sighting(name, &stat))),
            Err(Errno::NOENT) => Ok(None),
            // The right to search is the folder's: without it no entry can be looked at.
            Err(errno @ (Errno::ACCESS | Errno::PERM)) => {
                Err(folder_fault("list", &self.folder, errno))
            }
            Err(_) => Ok(Some(Sighting {
                name,
                kind: Kind::Unknown,
                identity: UNKNOWN,
                changed_at: Wall(0),
            })),
        }
    }
}

pub(super) fn subfolders(folder: Arc<Path>, own: &Own) -> Result<Vec<OsString>, FolderError> {
    let mut listing = Listing::open(folder, own)?;
    let mut names = Vec::new();
    while let Some((name, file_type)) = listing.next_name()? {
        let is_folder = match file_type {
            FileType::Directory => true,
            FileType::Unknown => {
                listing.sighting(name.clone())?.is_some_and(|seen| seen.kind == Kind::Folder)
            }
            FileType::RegularFile
            | FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice => false,
        };
        if is_folder {
            names.push(name);
        }
    }
    Ok(names)
}

pub(super) fn sync_folder(folder: &Path, own: &Own) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::io::retry_on_intr(|| rustix::fs::open(folder, flags, Mode::empty()))?;
    // Callers share an answer by its number.
    let handle = the_pinned(handle, folder, own).map_err(|_| io::Error::from(Errno::STALE))?;
    // Whoever may leave it out does not come here.
    own.sync_always(|| Ok(rustix::fs::fsync(handle)?))
}

/// Everything that was done on a folder's volume before becomes durable.
pub(super) fn sync_volume(folder: &Path, own: &Own) -> Result<(), FolderError> {
    let handle = open_folder(folder, OFlags::RDONLY)?;
    #[cfg(target_os = "linux")]
    let sync = || Ok(rustix::fs::syncfs(handle)?);
    #[cfg(not(target_os = "linux"))]
    let sync = || Ok(rustix::fs::fsync(handle)?);
    own.sync_always(sync).map_err(|error| FolderError::of("sync", folder.to_path_buf(), error))
}

/// Every missing folder of the path is made with mode 0750 and its parent synced. The last one's
/// parent is synced even if nothing was missing: an earlier process may have been cut off between
/// the two.
pub(super) fn make_folder(folder: &Path, own: &Own) -> Result<(), FolderError> {
    let existed = match folder_handle(folder, own) {
        Ok(_) => true,
        Err(FolderError::Gone { .. }) => false,
        Err(error) => return Err(error),
    };
    let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return if existed { Ok(()) } else { Err(FolderError::Gone { path: folder.to_owned() }) };
    };
    if existed {
        let synced = own.sync(|| sync_parent(parent));
        return match synced.map_err(|error| FolderError::of("sync", parent.to_path_buf(), error)) {
            // A parent that may be searched but not read, like a `/srv` of mode 0711, is not ours
            // to make anything in; what exists there is the administrator's.
            Err(FolderError::Denied { .. }) => Ok(()),
            other => other,
        };
    }
    if let Err(errno) = rustix::fs::stat(parent) {
        if errno != Errno::NOENT {
            return Err(folder_fault("open", parent, errno));
        }
        make_folder(parent, own)?;
    }
    // One that was not there is a new one, and ours.
    own.unpin(folder);
    match rustix::fs::mkdir(folder, Mode::from_raw_mode(0o750)) {
        Ok(()) => own
            .keeper()
            .give_folder(folder)
            .map_err(|error| FolderError::of("hand over", folder.to_path_buf(), error))?,
        Err(Errno::EXIST) => drop(folder_handle(folder, own)?),
        Err(errno) => return Err(folder_fault("create", folder, errno)),
    }
    // What is copied into a new folder leaves no original behind.
    let synced = own.sync_always(|| sync_parent(parent));
    synced.map_err(|error| FolderError::of("sync", parent.to_path_buf(), error))
}

/// Parents above the folders that patchdrop works in may be links.
fn sync_parent(parent: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::io::retry_on_intr(|| rustix::fs::open(parent, flags, Mode::empty()))?;
    Ok(rustix::fs::fsync(handle)?)
}

// ---- looks and reads ------------------------------------------------------------------------

pub(super) fn look(place: &Place, own: &Own) -> Result<Option<Sighting>, FolderError> {
    let folder = folder_handle(&place.folder, own)?;
    match rustix::fs::statat(&folder, name_in(place)?, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(sighting(place.name.clone(), &stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(file_fault("look at", place, errno)),
    }
}

pub(super) fn examine<T>(
    place: &Place,
    own: &Own,
    read: impl FnOnce(&mut dyn Read, &Identity) -> T,
) -> Result<Examined<Grip, T>, FolderError> {
    let (mut file, _) = open_regular(place, own)?;
    let lease = lease::take(&file);
    if lease == Lease::Refused && is_local(&file) {
        return Err(FolderError::InUse { path: place.path() });
    }
    // Taken after the lease: what a writer did before it is seen, and nothing can follow.
    let before = stat_of(&file, place)?;
    let identity = identity(&before);
    let findings = read(&mut file, &identity);
    let after = stat_of(&file, place)?;
    if identity != self::identity(&after) || changed_at(&before) != changed_at(&after) {
        return Err(FolderError::InUse { path: place.path() });
    }
    Ok(Examined {
        grip: Grip { file, identity },
        identity,
        changed_at: changed_at(&before),
        lease_granted: lease == Lease::Granted,
        links: unsigned(before.st_nlink).max(1),
        findings,
    })
}

pub(super) fn digest(place: &Place, own: &Own) -> Result<Option<(Identity, Digest)>, FolderError> {
    let folder_is_there = folder_handle(&place.folder, own).map(drop);
    let (mut file, before) = match open_regular(place, own) {
        Ok(opened) => opened,
        // Nothing has the name; but of a folder that is away nobody can say so.
        Err(FolderError::Gone { .. }) => return folder_is_there.map(|()| None),
        Err(error) => return Err(error),
    };
    let digest =
        digest_of(&mut file).map_err(|error| FolderError::of("read", place.path(), error))?;
    let identity = identity(&before);
    if identity != self::identity(&stat_of(&file, place)?) {
        return Err(FolderError::InUse { path: place.path() });
    }
    Ok(Some((identity, digest)))
}

fn digest_of(file: &mut File) -> io::Result<Digest> {
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest(sha256.finalize().into())),
            Ok(count) => sha256.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn open(place: &Place, own: &Own) -> Result<Box<dyn Read + Send>, FolderError> {
    open_regular(place, own).map(|(file, _)| Box::new(file) as Box<dyn Read + Send>)
}

/// Opens a regular file for reading. Anything else is not opened at all: opening a FIFO or a
/// device can have effects. Should one take the name between look and open, the open does not
/// block, and the second look refuses it.
fn open_regular(place: &Place, own: &Own) -> Result<(File, Stat), FolderError> {
    let folder = folder_handle(&place.folder, own)?;
    let name = name_in(place)?;
    let seen = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| file_fault("open", place, errno))?;
    if kind(&seen) != Kind::File {
        return Err(FolderError::NotAFile { path: place.path() });
    }
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file =
        rustix::io::retry_on_intr(|| rustix::fs::openat(&folder, name, flags, Mode::empty()))
            .map_err(|errno| file_fault("open", place, errno))?;
    let file = File::from(file);
    let stat = stat_of(&file, place)?;
    if kind(&stat) != Kind::File {
        return Err(FolderError::NotAFile { path: place.path() });
    }
    Ok((file, stat))
}

fn stat_of(file: &File, place: &Place) -> Result<Stat, FolderError> {
    rustix::fs::fstat(file).map_err(|errno| file_fault("read", place, errno))
}

// ---- moves ----------------------------------------------------------------------------------

pub(super) fn claim(mut grip: Grip, from: &Place, to: &Place, own: &Own) -> Result<(), MoveError> {
    let source = folder_handle(&from.folder, own)?;
    let target = folder_handle(&to.folder, own)?;
    let (from_name, to_name) = (name_in(from)?, name_in(to)?);
    rename_new(&source, from_name, &target, to_name)
        .map_err(|errno| move_fault(errno, (&source, from), (&target, to)))?;
    let moved = match rustix::fs::statat(&target, to_name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => identity(&stat),
        Err(Errno::NOENT) => return Err(MoveError::Gone { source_path: to.path() }),
        Err(errno) => {
            // What lies there cannot be told, so it goes back; if it can't, resume will find it.
            rename_new(&target, to_name, &source, from_name).ok();
            return Err(file_fault("look at", to, errno).into());
        }
    };
    let is_the_one = moved == grip.identity || is_renumbered(&mut grip, moved, to, own);
    drop(grip.file);
    if is_the_one { Ok(()) } else { Err(MoveError::Swapped { target: to.path() }) }
}

/// Whether a file that seems to be another one differs by its number alone, which some shares
/// change by themselves: then the bytes decide.
fn is_renumbered(grip: &mut Grip, moved: Identity, to: &Place, own: &Own) -> bool {
    let known = grip.identity;
    if moved.size != known.size || moved.mtime_ns != known.mtime_ns {
        return false;
    }
    let Ok(examined) = grip.file.rewind().and_then(|()| digest_of(&mut grip.file)) else {
        return false;
    };
    matches!(digest(to, own), Ok(Some((_, digest))) if digest == examined)
}

pub(super) fn move_new(from: &Place, to: &Place, own: &Own) -> Result<Identity, MoveError> {
    let source = folder_handle(&from.folder, own)?;
    let target = folder_handle(&to.folder, own)?;
    match rename_new(&source, name_in(from)?, &target, name_in(to)?) {
        // Somebody may have taken it on at once: then nothing can be said of it.
        Ok(()) => Ok(rustix::fs::statat(&target, &to.name, AtFlags::SYMLINK_NOFOLLOW)
            .map_or(UNKNOWN, |stat| identity(&stat))),
        Err(Errno::XDEV) => move_across(&source, from, &target, to, own),
        Err(errno) => Err(move_fault(errno, (&source, from), (&target, to))),
    }
}

/// A rename that never replaces, by the best means that the file system has.
fn rename_new(source: &OwnedFd, from: &OsStr, target: &OwnedFd, to: &OsStr) -> Result<(), Errno> {
    match rustix::fs::renameat_with(source, from, target, to, RenameFlags::NOREPLACE) {
        // NFS and some FUSE file systems know no flags.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            match link_then_unlink(source, from, target, to) {
                Err(Errno::PERM | Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::MLINK) => {
                    check_then_rename(source, from, target, to)
                }
                other => other,
            }
        }
        other => other,
    }
}

/// A second name for the file, then the first is taken away. A link never replaces.
fn link_then_unlink(
    source: &OwnedFd,
    from: &OsStr,
    target: &OwnedFd,
    to: &OsStr,
) -> Result<(), Errno> {
    let linked = rustix::fs::linkat(source, from, target, to, AtFlags::empty());
    match linked {
        Ok(()) => {}
        // The name is taken by this very file: an earlier move was cut off in the middle, or a
        // server's answer was lost and the request repeated.
        Err(Errno::EXIST) if are_two_names_of_one(source, from, target, to) => {}
        Err(errno) => return Err(errno),
    }
    let unlinked = rustix::fs::unlinkat(source, from, AtFlags::empty());
    if unlinked.is_err() && linked.is_ok() {
        rustix::fs::unlinkat(target, to, AtFlags::empty()).ok();
    }
    unlinked
}

/// For file systems with neither: safe only where nobody else makes names in the target folder.
fn check_then_rename(
    source: &OwnedFd,
    from: &OsStr,
    target: &OwnedFd,
    to: &OsStr,
) -> Result<(), Errno> {
    match rustix::fs::statat(target, to, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => rustix::fs::renameat(source, from, target, to),
        Err(errno) => Err(errno),
    }
}

fn are_two_names_of_one(source: &OwnedFd, from: &OsStr, target: &OwnedFd, to: &OsStr) -> bool {
    let is_same = |one: Result<Stat, Errno>, other: Result<Stat, Errno>| {
        matches!((one, other), (Ok(one), Ok(other))
            if one.st_dev == other.st_dev && one.st_ino == other.st_ino)
    };
    let is_one_name = from == to && is_same(rustix::fs::fstat(source), rustix::fs::fstat(target));
    let one = rustix::fs::statat(source, from, AtFlags::SYMLINK_NOFOLLOW);
    let other = rustix::fs::statat(target, to, AtFlags::SYMLINK_NOFOLLOW);
    !is_one_name && is_same(one, other)
}

/// To another volume: copy under a temporary name, make it durable, give it its name, make that
/// durable, and only then remove the source. Cut off anywhere, the file is at one of the two
/// places, or at both.
fn move_across(
    source: &OwnedFd,
    from: &Place,
    target: &OwnedFd,
    to: &Place,
    own: &Own,
) -> Result<Identity, MoveError> {
    let (mut original, stat) = match open_regular(from, own) {
        Err(FolderError::Gone { path }) => return Err(MoveError::Gone { source_path: path }),
        other => other?,
    };
    // A copy may take long: not for a name that is taken.
    match rustix::fs::statat(target, name_in(to)?, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        Ok(_) => return Err(MoveError::Taken { target: to.path() }),
        Err(errno) => return Err(file_fault("look at", to, errno).into()),
    }
    sync_late(from, own)?;
    let temporary = own.temporary_name();
    let copied = copy(&mut original, &stat, target, &temporary, own)
        .map_err(|error| FolderError::of("write", to.path(), error))
        .and_then(|()| match stat_of(&original, from)? {
            now if identity(&now) == identity(&stat) => Ok(()),
            _ => Err(FolderError::InUse { path: from.path() }),
        });
    let named = copied.map_err(MoveError::from).and_then(|()| {
        rename_new(target, &temporary, target, name_in(to)?)
            .map_err(|errno| move_fault(errno, (source, from), (target, to)))
    });
    if let Err(error) = named {
        rustix::fs::unlinkat(target, &temporary, AtFlags::empty()).ok();
        return Err(error);
    }
    end_move(source, from, identity(&stat), to, own)?;
    Ok(identity(&stat))
}

pub(super) fn finish_move(
    from: &Place,
    identity: Identity,
    to: &Place,
    own: &Own,
) -> Result<(), FolderError> {
    end_move(&folder_handle(&from.folder, own)?, from, identity, to, own)
}

/// The copy becomes durable under its name, then the original goes. If another file has taken the
/// original's name meanwhile, that one was not copied, and stays.
fn end_move(
    source: &OwnedFd,
    from: &Place,
    copied: Identity,
    to: &Place,
    own: &Own,
) -> Result<(), FolderError> {
    sync_folder(&to.folder, own)
        .map_err(|error| FolderError::of("sync", to.folder.to_path_buf(), error))?;
    let now = rustix::fs::statat(source, name_in(from)?, AtFlags::SYMLINK_NOFOLLOW);
    if now.is_ok_and(|now| identity(&now) == copied) {
        rustix::fs::unlinkat(source, &from.name, AtFlags::empty())
            .map_err(|errno| file_fault("remove", from, errno))?;
        sync_late(from, own)?;
    }
    Ok(())
}

/// What was done so far in the folder of a file becomes durable, where that was left out.
fn sync_late(file: &Place, own: &Own) -> Result<(), FolderError> {
    own.sync_late(|| sync_folder(&file.folder, own))
        .map_err(|error| FolderError::of("sync", file.folder.to_path_buf(), error))
}

/// Two mounts of one volume are two places for a rename. What cannot be asked counts as one: then
/// the move itself finds out.
pub(super) fn is_elsewhere(one: &Path, other: &Path) -> bool {
    let volume = |path: &Path| rustix::fs::stat(path).ok().map(|stat| unsigned(stat.st_dev));
    match (volume(one), volume(other)) {
        (Some(one), Some(other)) if one != other => true,
        _ => {
            let mut table = MountTable::default();
            table.mount_of(one).point != table.mount_of(other).point
        }
    }
}

fn copy(
    original: &mut File,
    stat: &Stat,
    target: &OwnedFd,
    temporary: &OsStr,
    own: &Own,
) -> io::Result<()> {
    let mut file = create(target, temporary, 0o600, own)?;
    io::copy(original, &mut file)?;
    // Some file systems know neither mode nor times; the bytes count.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(stat.st_mode & 0o777)).ok();
    rustix::fs::futimens(&file, &times(stat)).ok();
    own.sync_always(|| file.sync_all())
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanos| Timespec {
        tv_sec: seconds,
        tv_nsec: i32::try_from(nanos).unwrap_or(0).into(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

// ---- files of ours --------------------------------------------------------------------------

pub(super) fn write(place: &Place, content: &[u8], own: &Own) -> Result<(), FolderError> {
    let folder = folder_handle(&place.folder, own)?;
    let name = name_in(place)?;
    let temporary = own.temporary_name();
    let written = create(&folder, &temporary, 0o640, own)
        .and_then(|mut file| {
            file.write_all(content)?;
            own.sync(|| file.sync_all())
        })
        .and_then(|()| Ok(rustix::fs::renameat(&folder, &temporary, &folder, name)?));
    written.map_err(|error| {
        rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty()).ok();
        FolderError::of("write", place.path(), error)
    })
}

pub(super) fn remove(place: &Place, own: &Own) -> Result<(), FolderError> {
    let folder = folder_handle(&place.folder, own)?;
    match rustix::fs::unlinkat(&folder, name_in(place)?, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(file_fault("remove", place, errno)),
    }
}

fn create(folder: &OwnedFd, name: &OsStr, mode: u32, own: &Own) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    #[expect(clippy::useless_conversion, reason = "a mode has 16 bits on some systems")]
    let mode = Mode::from_raw_mode(mode.try_into().unwrap_or(0o600));
    let file = File::from(rustix::fs::openat(folder, name, flags, mode)?);
    own.keeper().give(&file)?;
    Ok(file)
}

// ---- what the system says, in our words -----------------------------------------------------

/// The name of a place, which must be one path component: anything else would leave the folder.
fn name_in(place: &Place) -> Result<&OsStr, FolderError> {
    let name = place.name.as_bytes();
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(FolderError::Io { doing: "name", path: place.path(), source });
    }
    Ok(&place.name)
}

fn folder_fault(doing: &'static str, folder: &Path, errno: Errno) -> FolderError {
    FolderError::of(doing, folder.to_owned(), errno.into())
}

fn file_fault(doing: &'static str, place: &Place, errno: Errno) -> FolderError {
    match errno {
        Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::NXIO => {
            FolderError::NotAFile { path: place.path() }
        }
        // A program holds a write lease, as Samba does for its clients.
        Errno::AGAIN => FolderError::InUse { path: place.path() },
        _ => FolderError::of(doing, place.path(), errno.into()),
    }
}

fn move_fault(
    errno: Errno,
    (source, from): (&OwnedFd, &Place),
    (target, to): (&OwnedFd, &Place),
) -> MoveError {
    let may_not_change =
        |folder| rustix::fs::accessat(folder, ".", Access::WRITE_OK, AtFlags::EACCESS).is_err();
    match errno {
        Errno::EXIST => MoveError::Taken { target: to.path() },
        Errno::NOENT => match rustix::fs::statat(source, &from.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => FolderError::Gone { path: to.folder.to_path_buf() }.into(),
            Err(_) => MoveError::Gone { source_path: from.path() },
        },
        Errno::ACCESS | Errno::PERM if may_not_change(target) => {
            file_fault("move", to, errno).into()
        }
        Errno::NOSPC | Errno::DQUOT | Errno::NAMETOOLONG => {
            FolderError::of("move", to.path(), errno.into()).into()
        }
        _ => FolderError::of("move", from.path(), errno.into()).into(),
    }
}

fn sighting(name: OsString, stat: &Stat) -> Sighting {
    Sighting { name, kind: kind(stat), identity: identity(stat), changed_at: changed_at(stat) }
}

fn kind(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Folder,
        FileType::Symlink => Kind::Link,
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Kind::Special,
    }
}

fn identity(stat: &Stat) -> Identity {
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Identity {
        volume: unsigned(stat.st_dev),
        number: unsigned(stat.st_ino),
        size: unsigned(stat.st_size),
        mtime_ns: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanos),
    }
}

fn changed_at(stat: &Stat) -> Wall {
    let millis = i64::try_from(stat.st_ctime_nsec).unwrap_or(0) / 1_000_000;
    Wall(stat.st_ctime.saturating_mul(1_000).saturating_add(millis))
}

/// The fields of `stat` have other widths and signs on other systems.
pub(super) fn unsigned(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(0)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests make and look at the files themselves")]
mod tests {
    use super::*;
    use crate::model::durability::Durability;

    type Rename = fn(&OwnedFd, &OsStr, &OwnedFd, &OsStr) -> Result<(), Errno>;

    /// What file systems without `RENAME_NOREPLACE` get must keep the same promise.
    fn check(rename: Rename) {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let content = |name: &str| std::fs::read_to_string(at(name)).ok();
        let folder = folder_handle(root.path(), &Own::new(Durability::PowerLoss)).unwrap();
        let renamed = |from: &str, to: &str| rename(&folder, from.as_ref(), &folder, to.as_ref());
        std::fs::write(at("one"), "1").unwrap();
        std::fs::write(at("two"), "2").unwrap();

        assert_eq!(renamed("one", "two"), Err(Errno::EXIST));
        assert_eq!((content("one").as_deref(), content("two").as_deref()), (Some("1"), Some("2")));
        assert_eq!(renamed("one", "one"), Err(Errno::EXIST));
        assert_eq!(content("one").as_deref(), Some("1"));
        assert_eq!(renamed("none", "three"), Err(Errno::NOENT));
        assert_eq!(renamed("one", "three"), Ok(()));
        assert_eq!((content("one"), content("three").as_deref()), (None, Some("1")));
        std::os::unix::fs::symlink("nowhere", at("link")).unwrap();
        assert_eq!(renamed("three", "link"), Err(Errno::EXIST), "a dangling link is a name too");
    }

    #[test]
    fn every_kind_of_rename_replaces_nothing() {
        check(rename_new);
        check(link_then_unlink);
        check(check_then_rename);
    }

    /// Shares that number their files anew are not at hand: the number is changed in the grip.
    #[test]
    fn a_claim_of_a_file_that_was_numbered_anew_goes_by_its_bytes() {
        fn check(moved: &str, is_claimed: bool) {
            let root = tempfile::tempdir().unwrap();
            let own = Own::new(Durability::PowerLoss);
            let folder: Arc<Path> = Arc::from(root.path());
            let (from, to) = (Place::new(&folder, "a"), Place::new(&folder, "b"));
            std::fs::write(from.path(), "examined").unwrap();
            let Examined { mut grip, .. } = examine(&from, &own, |_, _| ()).unwrap();
            let mtime = std::fs::metadata(from.path()).unwrap().modified().unwrap();
            if moved == "examined" {
                grip.identity.number += 1;
            } else {
                std::fs::remove_file(from.path()).unwrap();
                std::fs::write(from.path(), moved).unwrap();
                let times = std::fs::FileTimes::new().set_modified(mtime);
                File::open(from.path()).unwrap().set_times(times).unwrap();
            }
            let claimed = claim(grip, &from, &to, &own);
            assert_eq!(claimed.is_ok(), is_claimed, "{moved}: {claimed:?}");
            assert!(to.path().exists());
        }
        check("examined", true);
        check("exchange", false);
        check("other", false);
    }

    #[test]
    fn a_move_by_link_that_was_cut_off_is_finished() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder_handle(root.path(), &Own::new(Durability::PowerLoss)).unwrap();
        std::fs::write(root.path().join("one"), "1").unwrap();
        std::fs::hard_link(root.path().join("one"), root.path().join("two")).unwrap();
        link_then_unlink(&folder, "one".as_ref(), &folder, "two".as_ref()).unwrap();
        assert!(!root.path().join("one").exists());
        assert!(root.path().join("two").exists());
        link_then_unlink(&folder, "two".as_ref(), &folder, "two".as_ref()).unwrap_err();
        assert!(root.path().join("two").exists());
    }
}
