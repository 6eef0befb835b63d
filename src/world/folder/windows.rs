//! Folders and files on Windows, as plain blocking functions.
//!
//! A file is examined and claimed through one handle that denies everybody else to write, rename or
//! delete it: what was read is what is moved. While an operation lasts, a handle on its folder
//! keeps that from being swapped, and afterwards none is left. Paths go to the system in their long
//! form (`\\?\`), in which `aux` and `name.` are names like any other.

mod calls;

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::windows::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf, Prefix};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use windows_sys::Win32::Foundation::{
    ERROR_DELETE_PENDING, ERROR_LOCK_VIOLATION, ERROR_SHARING_VIOLATION, GENERIC_READ,
    GENERIC_WRITE,
};
use windows_sys::Win32::Storage::FileSystem::{
    DELETE, FILE_ATTRIBUTE_REPARSE_POINT, FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_LIST_DIRECTORY, FILE_READ_ATTRIBUTES, FILE_SHARE_DELETE, FILE_SHARE_READ,
    FILE_SHARE_WRITE,
};

use super::real::Own;
use super::{Examined, FolderError, MoveError, Volume};
use crate::model::file::{Digest, FolderSeen, Identity, Kind, Place, Sighting};
use crate::model::room::Room;
use crate::model::time::Wall;

/// Renames become durable when the system sees fit.
pub(super) const SYNCS_FOLDERS: bool = false;

/// A file that is read in one go is read in pieces of this size.
const BUFFER_BYTES: usize = 128 * 1024;
/// Of what cannot be looked at.
const UNKNOWN: Identity = Identity { volume: 0, number: 0, size: 0, mtime_ns: 0 };
/// 1 January 1970 as Windows counts: in units of 100 ns since 1601.
const EPOCH_TICKS: i64 = 116_444_736_000_000_000;

const SHARE_ALL: u32 = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

/// An open file that is being examined; others may read it meanwhile, and not write, rename or
/// delete it.
#[derive(Debug)]
pub struct Grip {
    file: File,
}

// ---- folders --------------------------------------------------------------------------------

/// Keeps a folder what it is for as long as an operation lasts: it cannot be renamed or removed,
/// nor can those above it. Refuses one that is not the one which was pinned under its path.
fn hold(folder: &Path, own: &Own) -> Result<File, FolderError> {
    let held = OpenOptions::new()
        .access_mode(FILE_LIST_DIRECTORY | FILE_READ_ATTRIBUTES)
        .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT)
        .open(long(folder));
    let held = held.map_err(|error| of("open", folder.to_owned(), error))?;
    let seen = Seen::of(&held).map_err(|error| of("look at", folder.to_owned(), error))?;
    if seen.kind != Kind::Folder {
        let source = io::Error::from(io::ErrorKind::NotADirectory);
        return Err(FolderError::Io { doing: "open", path: folder.to_owned(), source });
    }
    let Some(pinned) = own.pinned(folder) else { return Ok(held) };
    // On shares numbers may change by themselves.
    let is_it = seen.facts.volume == pinned.volume
        && (!pinned.is_local || seen.facts.number == pinned.number);
    if is_it { Ok(held) } else { Err(FolderError::Replaced { path: folder.to_owned() }) }
}

/// Asks nobody's pin.
pub(super) fn inspect(folder: &Path) -> Result<Option<FolderSeen>, FolderError> {
    let seen = match look_at(folder) {
        Ok(seen) => seen,
        Err(error) if is_nothing(&error) => return Ok(None),
        Err(error) => return Err(of("look at", folder.to_owned(), error)),
    };
    Ok(Some(FolderSeen {
        kind: seen.kind,
        volume: seen.facts.volume,
        number: seen.facts.number,
        is_local: volume_kind(folder) == Volume::Local,
        owner: None,
        mode: 0,
    }))
}

/// The names in a folder, read piece by piece.
pub(super) struct Listing {
    folder: Arc<Path>,
    entries: std::fs::ReadDir,
    _held: File,
}

impl Listing {
    pub(super) fn open(folder: Arc<Path>, own: &Own) -> Result<Self, FolderError> {
        let held = hold(&folder, own)?;
        #[expect(clippy::disallowed_methods, reason = "this is the door to folders")]
        let entries = std::fs::read_dir(long(&folder));
        let entries = entries.map_err(|error| of("list", folder.to_path_buf(), error))?;
        Ok(Self { folder, entries, _held: held })
    }

    /// At most `most` sightings; fewer mean that this is the end.
    pub(super) fn read(&mut self, most: usize) -> Result<Vec<Sighting>, FolderError> {
        let mut sightings = Vec::new();
        while sightings.len() < most {
            let Some(entry) = self.entries.next() else { break };
            let entry = entry.map_err(|error| of("list", self.folder.to_path_buf(), error))?;
            // What the entry itself knows of size and time is stale until its writer closes it.
            let place = Place::new(&self.folder, entry.file_name());
            match seen_at(&place) {
                Ok(seen) => sightings.extend(seen),
                Err(_) => sightings.push(Sighting {
                    name: place.name,
                    kind: Kind::Unknown,
                    identity: UNKNOWN,
                    changed_at: Wall(0),
                }),
            }
        }
        Ok(sightings)
    }
}

pub(super) fn subfolders(folder: Arc<Path>, own: &Own) -> Result<Vec<OsString>, FolderError> {
    let mut listing = Listing::open(folder, own)?;
    let mut names = Vec::new();
    loop {
        let sightings = listing.read(256)?;
        if sightings.is_empty() {
            return Ok(names);
        }
        let folders = sightings.into_iter().filter(|seen| seen.kind == Kind::Folder);
        names.extend(folders.map(|seen| seen.name));
    }
}

/// Folders can't be synced.
pub(super) fn sync_folder(_folder: &Path, _own: &Own) -> io::Result<()> {
    Ok(())
}

/// Only an administrator can do that for a whole volume.
pub(super) fn sync_volume(_folder: &Path, _own: &Own) -> Result<(), FolderError> {
    Ok(())
}

pub(super) fn make_folder(folder: &Path, own: &Own) -> Result<(), FolderError> {
    match hold(folder, own) {
        Ok(_) => return Ok(()),
        Err(FolderError::Gone { .. }) => {}
        Err(error) => return Err(error),
    }
    // One that was not there is a new one, and ours.
    own.unpin(folder);
    #[expect(clippy::disallowed_methods, reason = "this is the door to folders")]
    let made = std::fs::create_dir_all(long(folder));
    made.map_err(|error| of("create", folder.to_owned(), error))
}

// ---- looks and reads ------------------------------------------------------------------------

pub(super) fn look(place: &Place, own: &Own) -> Result<Option<Sighting>, FolderError> {
    let _held = hold(&place.folder, own)?;
    name_in(place)?;
    seen_at(place)
}

fn seen_at(place: &Place) -> Result<Option<Sighting>, FolderError> {
    match look_at(&place.path()) {
        Ok(seen) => Ok(Some(Sighting {
            name: place.name.clone(),
            kind: seen.kind,
            identity: seen.identity(&place.folder),
            changed_at: seen.changed_at(),
        })),
        Err(error) if is_nothing(&error) => Ok(None),
        Err(error) => Err(of("look at", place.path(), error)),
    }
}

/// Nobody can keep others from a look at what a name stands for, and a look keeps out nobody.
fn look_at(path: &Path) -> io::Result<Seen> {
    let file = OpenOptions::new()
        .access_mode(FILE_READ_ATTRIBUTES)
        .share_mode(SHARE_ALL)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT)
        .open(long(path))?;
    Seen::of(&file)
}

pub(super) fn examine<T>(
    place: &Place,
    own: &Own,
    read: impl FnOnce(&mut dyn Read, &Identity) -> T,
) -> Result<Examined<Grip, T>, FolderError> {
    let _held = hold(&place.folder, own)?;
    // Denies writers, and is refused while there is one; with the right to delete, the file can be
    // renamed through this very handle.
    let (mut file, before) = open_regular(place, GENERIC_READ | DELETE, FILE_SHARE_READ)?;
    let identity = before.identity(&place.folder);
    let findings = read(&mut file, &identity);
    let after = Seen::of(&file).map_err(|error| of("read", place.path(), error))?;
    // A server need not know what programs on its own side do.
    if identity != after.identity(&place.folder) {
        return Err(FolderError::InUse { path: place.path() });
    }
    Ok(Examined {
        grip: Grip { file },
        identity,
        changed_at: before.changed_at(),
        lease_granted: volume_kind(&place.folder) == Volume::Local,
        links: before.facts.links.max(1),
        findings,
    })
}

pub(super) fn digest(place: &Place, own: &Own) -> Result<Option<(Identity, Digest)>, FolderError> {
    let _held = hold(&place.folder, own)?;
    let opened = open_regular(place, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE);
    let (mut file, seen) = match opened {
        Ok(opened) => opened,
        Err(FolderError::Gone { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => sha256.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(of("read", place.path(), error)),
        }
    }
    Ok(Some((seen.identity(&place.folder), Digest(sha256.finalize().into()))))
}

/// Others may rename it meanwhile, as the end of its journey does, and not write to it.
pub(super) fn open(place: &Place, own: &Own) -> Result<Box<dyn Read + Send>, FolderError> {
    let _held = hold(&place.folder, own)?;
    open_regular(place, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE)
        .map(|(file, _)| Box::new(file) as Box<dyn Read + Send>)
}

/// Opens a regular file; a link is not followed. Other reparse points (a deduplicated file, one in
/// a cloud store) are files whose content the system brings only if it may look behind them.
fn open_regular(place: &Place, access: u32, share: u32) -> Result<(File, Seen), FolderError> {
    let path = long(&place.folder).join(name_in(place)?);
    let fault = |error| of("open", place.path(), error);
    let seen = look_at(&path).map_err(fault)?;
    if seen.kind != Kind::File {
        return Err(FolderError::NotAFile { path: place.path() });
    }
    let is_reparsed = seen.facts.attributes & FILE_ATTRIBUTE_REPARSE_POINT != 0;
    let flags = if is_reparsed { 0 } else { FILE_FLAG_OPEN_REPARSE_POINT };
    let mut options = OpenOptions::new();
    options.access_mode(access).share_mode(share).custom_flags(flags);
    let file = options.open(&path).map_err(fault)?;
    let opened = Seen::of(&file).map_err(|error| of("read", place.path(), error))?;
    let is_swapped = is_reparsed && opened.facts.number != seen.facts.number;
    if opened.kind != Kind::File || is_swapped {
        return Err(FolderError::NotAFile { path: place.path() });
    }
    Ok((file, opened))
}

// ---- moves ----------------------------------------------------------------------------------

/// Through the handle that the file was read with, so no other can be moved in its stead.
pub(super) fn claim(grip: Grip, from: &Place, to: &Place, own: &Own) -> Result<(), MoveError> {
    let _source = hold(&from.folder, own)?;
    let _target = hold(&to.folder, own)?;
    rename_new(&grip.file, to)
}

pub(super) fn move_new(from: &Place, to: &Place, own: &Own) -> Result<Identity, MoveError> {
    let _source = hold(&from.folder, own)?;
    let _target = hold(&to.folder, own)?;
    let (file, seen) = open_to_move(from)?;
    match rename_new(&file, to) {
        Ok(()) => Ok(seen.identity(&from.folder)),
        Err(MoveError::Folder(FolderError::Io { source, .. }))
            if source.kind() == io::ErrorKind::CrossesDevices =>
        {
            drop(file);
            move_across(from, to, own)
        }
        Err(error) => Err(error),
    }
}

fn open_to_move(from: &Place) -> Result<(File, Seen), MoveError> {
    let opened = OpenOptions::new()
        .access_mode(DELETE | FILE_READ_ATTRIBUTES)
        .share_mode(SHARE_ALL)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT)
        .open(long(&from.folder).join(name_in(from)?));
    let opened = opened.and_then(|file| Seen::of(&file).map(|seen| (file, seen)));
    opened.map_err(|error| match of("move", from.path(), error) {
        FolderError::Gone { path } => MoveError::Gone { source_path: path },
        other => other.into(),
    })
}

fn rename_new(file: &File, to: &Place) -> Result<(), MoveError> {
    let target = long(&to.folder).join(name_in(to)?);
    let Err(error) = calls::rename_new(file, &target) else { return Ok(()) };
    Err(match error.kind() {
        io::ErrorKind::AlreadyExists => MoveError::Taken { target: to.path() },
        // The file itself is open here.
        io::ErrorKind::NotFound => FolderError::Gone { path: to.folder.to_path_buf() }.into(),
        // A folder of that name, for one.
        io::ErrorKind::PermissionDenied if look_at(&target).is_ok() => {
            MoveError::Taken { target: to.path() }
        }
        _ => of("move", to.path(), error).into(),
    })
}

/// To another volume: copy under a temporary name, flush, give it its name, flush, and only then
/// remove the source, through the handle that was copied from. Cut off anywhere, the file is at one
/// of the two places, or at both.
fn move_across(from: &Place, to: &Place, own: &Own) -> Result<Identity, MoveError> {
    let opened = open_regular(from, GENERIC_READ | DELETE, FILE_SHARE_READ);
    let (mut original, seen) = match opened {
        Err(FolderError::Gone { path }) => return Err(MoveError::Gone { source_path: path }),
        other => other?,
    };
    // A copy may take long: not for a name that is taken.
    if seen_at(to)?.is_some() {
        return Err(MoveError::Taken { target: to.path() });
    }
    let temporary = Place::new(&to.folder, own.temporary_name());
    let fault = |error| of("write", to.path(), error);
    let mut copy = create(&temporary).map_err(fault)?;
    let copied = io::copy(&mut original, &mut copy)
        .and_then(|_| {
            // Some file systems know no times; the bytes count.
            let modified = original.metadata().and_then(|metadata| metadata.modified());
            modified.and_then(|modified| copy.set_modified(modified)).ok();
            own.sync_always(|| copy.sync_all())
        })
        .map_err(|error| MoveError::from(fault(error)))
        .and_then(|()| rename_new(&copy, to));
    if let Err(error) = copied {
        calls::remove(&copy).ok();
        return Err(error);
    }
    own.sync_always(|| copy.sync_all()).map_err(fault)?;
    calls::remove(&original).map_err(|error| of("remove", from.path(), error))?;
    Ok(seen.identity(&from.folder))
}

/// The copy becomes durable under its name, then the original goes. If another file has taken the
/// original's name meanwhile, that one was not copied, and stays.
pub(super) fn finish_move(
    from: &Place,
    copied: Identity,
    to: &Place,
    own: &Own,
) -> Result<(), FolderError> {
    let _source = hold(&from.folder, own)?;
    let (original, seen) = match open_to_move(from) {
        Ok(opened) => opened,
        Err(MoveError::Folder(error)) => return Err(error),
        Err(_) => return Ok(()),
    };
    if seen.identity(&from.folder) != copied {
        return Ok(());
    }
    let copy = OpenOptions::new().write(true).open(long(&to.folder).join(name_in(to)?));
    copy.and_then(|copy| own.sync_always(|| copy.sync_all()))
        .map_err(|error| of("sync", to.path(), error))?;
    calls::remove(&original).map_err(|error| of("remove", from.path(), error))
}

/// What cannot be asked counts as one volume: then the move itself finds out.
pub(super) fn is_elsewhere(one: &Path, other: &Path) -> bool {
    let volume = |path: &Path| look_at(path).ok().map(|seen| seen.facts.volume);
    match (volume(one), volume(other)) {
        (Some(one), Some(other)) if one != other => true,
        _ => mount_of(one).point != mount_of(other).point,
    }
}

// ---- files of ours --------------------------------------------------------------------------

pub(super) fn write(place: &Place, content: &[u8], own: &Own) -> Result<(), FolderError> {
    let _held = hold(&place.folder, own)?;
    let name = name_in(place)?;
    let temporary = Place::new(&place.folder, own.temporary_name());
    let fault = |error| of("write", place.path(), error);
    let mut file = create(&temporary).map_err(fault)?;
    let written = file.write_all(content).and_then(|()| own.sync(|| file.sync_all()));
    drop(file);
    let folder = long(&place.folder);
    #[expect(clippy::disallowed_methods, reason = "a file of ours may be replaced by a newer one")]
    let named =
        written.and_then(|()| std::fs::rename(folder.join(&temporary.name), folder.join(name)));
    named.map_err(|error| {
        remove_name(&temporary).ok();
        fault(error)
    })
}

pub(super) fn remove(place: &Place, own: &Own) -> Result<(), FolderError> {
    let _held = hold(&place.folder, own)?;
    name_in(place)?;
    match remove_name(place) {
        Err(error) if !is_nothing(&error) => Err(of("remove", place.path(), error)),
        _ => Ok(()),
    }
}

fn create(place: &Place) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .access_mode(GENERIC_WRITE | DELETE)
        .share_mode(FILE_SHARE_READ)
        .open(long(&place.folder).join(&place.name))
}

#[expect(clippy::disallowed_methods, reason = "this is the door to files")]
fn remove_name(place: &Place) -> io::Result<()> {
    std::fs::remove_file(long(&place.folder).join(&place.name))
}

// ---- what the system says, in our words -----------------------------------------------------

/// One look through an open handle.
struct Seen {
    facts: calls::Facts,
    kind: Kind,
}

impl Seen {
    fn of(file: &File) -> io::Result<Self> {
        let facts = calls::facts(file)?;
        // Of reparse points those are links that stand for another name.
        let file_type = file.metadata()?.file_type();
        let kind = if file_type.is_symlink() {
            Kind::Link
        } else if file_type.is_dir() {
            Kind::Folder
        } else if file_type.is_file() {
            Kind::File
        } else {
            Kind::Special
        };
        Ok(Self { facts, kind })
    }

    /// Servers may number their files anew at any time, so there size and time decide.
    fn identity(&self, folder: &Path) -> Identity {
        let is_local = volume_kind(folder) == Volume::Local;
        Identity {
            volume: self.facts.volume,
            number: if is_local { self.facts.number } else { 0 },
            size: self.facts.size,
            mtime_ns: since_epoch(self.facts.modified).saturating_mul(100),
        }
    }

    fn changed_at(&self) -> Wall {
        Wall(since_epoch(self.facts.changed) / 10_000)
    }
}

fn since_epoch(ticks: i64) -> i64 {
    ticks.saturating_sub(EPOCH_TICKS)
}

/// The name of a place, which must be one path component: anything else would leave the folder, or
/// name a stream within a file.
fn name_in(place: &Place) -> Result<&OsStr, FolderError> {
    let name = place.name.as_encoded_bytes();
    let is_strange = |byte: &u8| matches!(byte, b'/' | b'\\' | b':' | 0);
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(is_strange) {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(FolderError::Io { doing: "name", path: place.path(), source });
    }
    Ok(&place.name)
}

/// The long form of an absolute path; any other stays as it is.
pub(in crate::world) fn long(path: &Path) -> PathBuf {
    let mut parts = path.components();
    let Some(Component::Prefix(prefix)) = parts.next() else { return path.to_owned() };
    let mut plain = match prefix.kind() {
        Prefix::Disk(_) => OsString::from(r"\\?\"),
        Prefix::UNC(..) => OsString::from(r"\\?\UNC\"),
        Prefix::Verbatim(_)
        | Prefix::VerbatimUNC(..)
        | Prefix::VerbatimDisk(_)
        | Prefix::DeviceNS(_) => return path.to_owned(),
    };
    match prefix.kind() {
        Prefix::UNC(server, share) => {
            plain.push(server);
            plain.push(r"\");
            plain.push(share);
        }
        _ => plain.push(prefix.as_os_str()),
    }
    if parts.next() != Some(Component::RootDir) {
        return path.to_owned();
    }
    let mut is_root = true;
    for part in parts {
        let Component::Normal(name) = part else { return path.to_owned() };
        plain.push(r"\");
        plain.push(name);
        is_root = false;
    }
    if is_root {
        plain.push(r"\");
    }
    PathBuf::from(plain)
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn of(doing: &'static str, path: PathBuf, error: io::Error) -> FolderError {
    match error.raw_os_error().and_then(|code| u32::try_from(code).ok()) {
        Some(ERROR_SHARING_VIOLATION | ERROR_LOCK_VIOLATION) => FolderError::InUse { path },
        Some(ERROR_DELETE_PENDING) => FolderError::Gone { path },
        _ => FolderError::of(doing, path, error),
    }
}

/// Shares (`\\server\share`) are remote, and drive letters that stand for one.
pub fn volume_kind(path: &Path) -> Volume {
    let is_share = match path.components().next() {
        Some(Component::Prefix(prefix)) => match prefix.kind() {
            Prefix::UNC(..) | Prefix::VerbatimUNC(..) => true,
            Prefix::Disk(letter) | Prefix::VerbatimDisk(letter) => {
                calls::is_mapped(Path::new(&format!("{}:\\", char::from(letter))))
            }
            Prefix::Verbatim(_) | Prefix::DeviceNS(_) => false,
        },
        _ => false,
    };
    if is_share { Volume::Remote { kind: "smb" } } else { Volume::Local }
}

/// Asks the volume how much room there is; none if it does not say.
pub(in crate::world) fn room(folder: &Path) -> Option<Room> {
    let (free_bytes, total_bytes) = calls::room(&long(folder)).ok()?;
    Some(Room { free_bytes, total_bytes, free_files: None })
}

/// Volume and number of a folder of this machine; none of one on a share, which may change.
pub(in crate::world) fn number(folder: &Path) -> Option<(u64, u64)> {
    let seen = inspect(folder).ok()??;
    (seen.is_local && seen.number != 0).then_some((seen.volume, seen.number))
}

/// The drive or share that a path lies in.
pub(super) struct Mount {
    pub(super) point: PathBuf,
    pub(super) is_remote: bool,
}

/// There is none to be read: paths say it themselves.
#[derive(Default)]
pub(super) struct MountTable;

impl MountTable {
    #[expect(clippy::unused_self, reason = "elsewhere there is a table")]
    pub(super) fn mount_of(&mut self, path: &Path) -> Mount {
        mount_of(path)
    }
}

/// By the path's first part alone, which never blocks.
fn mount_of(path: &Path) -> Mount {
    let point = path.components().next().map(|first| PathBuf::from(first.as_os_str()));
    let is_remote = volume_kind(path) != Volume::Local;
    Mount { point: point.unwrap_or_default(), is_remote }
}

#[cfg(test)]
#[path = "windows/tests.rs"]
mod tests;
