//! Folders and files where there is no Unix, with what the standard library has, as plain blocking
//! functions. Where it cannot prove something, it says the careful thing: no file numbers, no
//! lease, folders that can't be synced.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use super::real::Own;
use super::{Examined, FolderError, MoveError, Volume};
use crate::model::file::{Digest, FolderSeen, Identity, Kind, Place, Sighting};
use crate::model::time::Wall;

/// Renames become durable when the system sees fit.
pub(super) const SYNCS_FOLDERS: bool = false;

const BUFFER_BYTES: usize = 128 * 1024;
/// Two handles refuse each other: somebody has the file open for writing.
const ERROR_SHARING_VIOLATION: i32 = 32;
/// A part of the file is locked.
const ERROR_LOCK_VIOLATION: i32 = 33;

/// An open file that is being examined; others may read it meanwhile, and not write, rename or
/// delete it.
#[derive(Debug)]
pub struct Grip {
    file: File,
    identity: Identity,
}

/// The names in a folder, read piece by piece.
pub(super) struct Listing {
    folder: Arc<Path>,
    entries: std::fs::ReadDir,
}

impl Listing {
    pub(super) fn open(folder: Arc<Path>, _own: &Own) -> Result<Self, FolderError> {
        #[expect(clippy::disallowed_methods, reason = "this is the door to folders")]
        let entries = std::fs::read_dir(&folder);
        let entries = entries.map_err(|error| of("list", folder.to_path_buf(), error))?;
        Ok(Self { folder, entries })
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
                    identity: Identity { volume: 0, number: 0, size: 0, mtime_ns: 0 },
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

pub(super) fn sync_folder(_folder: &Path, _own: &Own) -> io::Result<()> {
    Ok(())
}

/// Only an administrator can do that for a whole volume.
pub(super) fn sync_volume(_folder: &Path, _own: &Own) -> Result<(), FolderError> {
    Ok(())
}

pub(super) fn make_folder(folder: &Path, _own: &Own) -> Result<(), FolderError> {
    #[expect(clippy::disallowed_methods, reason = "this is the door to folders")]
    let made = std::fs::create_dir_all(folder);
    made.map_err(|error| of("create", folder.to_path_buf(), error))
}

pub(super) fn look(place: &Place, _own: &Own) -> Result<Option<Sighting>, FolderError> {
    seen_at(place)
}

fn seen_at(place: &Place) -> Result<Option<Sighting>, FolderError> {
    match std::fs::symlink_metadata(place.path()) {
        Ok(metadata) => Ok(Some(Sighting {
            name: place.name.clone(),
            kind: kind(&metadata),
            identity: identity(&metadata),
            changed_at: changed_at(&metadata),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(of("look at", place.path(), error)),
    }
}

pub(super) fn examine<T>(
    place: &Place,
    _own: &Own,
    read: impl FnOnce(&mut dyn Read, &Identity) -> T,
) -> Result<Examined<Grip, T>, FolderError> {
    let (mut file, before) = open_regular(place)?;
    let identity = identity(&before);
    let findings = read(&mut file, &identity);
    let after = file.metadata().map_err(|error| of("read", place.path(), error))?;
    if identity != self::identity(&after) {
        return Err(FolderError::InUse { path: place.path() });
    }
    Ok(Examined {
        grip: Grip { file, identity },
        identity,
        changed_at: changed_at(&before),
        lease_granted: cfg!(windows),
        // The standard library does not tell how many names a file has.
        links: 1,
        findings,
    })
}

pub(super) fn digest(place: &Place, _own: &Own) -> Result<Option<(Identity, Digest)>, FolderError> {
    let (mut file, before) = match open_regular(place) {
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
    Ok(Some((identity(&before), Digest(sha256.finalize().into()))))
}

pub(super) fn open(place: &Place, _own: &Own) -> Result<Box<dyn Read + Send>, FolderError> {
    open_regular(place).map(|(file, _)| Box::new(file) as Box<dyn Read + Send>)
}

fn open_regular(place: &Place) -> Result<(File, Metadata), FolderError> {
    let seen =
        std::fs::symlink_metadata(place.path()).map_err(|error| of("open", place.path(), error))?;
    if kind(&seen) != Kind::File {
        return Err(FolderError::NotAFile { path: place.path() });
    }
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(windows)]
    {
        use std::os::windows::fs::OpenOptionsExt;
        const FILE_SHARE_READ: u32 = 0x0000_0001;
        const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
        options.share_mode(FILE_SHARE_READ).custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    }
    let file = options.open(place.path()).map_err(|error| of("open", place.path(), error))?;
    let metadata = file.metadata().map_err(|error| of("read", place.path(), error))?;
    if kind(&metadata) != Kind::File {
        return Err(FolderError::NotAFile { path: place.path() });
    }
    Ok((file, metadata))
}

/// The handle denies renames to everybody, ourselves included, so it is closed first; size and
/// time say afterwards whether another file slipped in between.
pub(super) fn claim(grip: Grip, from: &Place, to: &Place, _own: &Own) -> Result<(), MoveError> {
    drop(grip.file);
    rename_new(from, to)?;
    match seen_at(to)? {
        None => Err(MoveError::Gone { source_path: to.path() }),
        Some(seen) if seen.identity == grip.identity => Ok(()),
        Some(_) => Err(MoveError::Swapped { target: to.path() }),
    }
}

pub(super) fn move_new(from: &Place, to: &Place, own: &Own) -> Result<Identity, MoveError> {
    match rename_new(from, to) {
        // Somebody may have taken it on at once: then nothing can be said of it.
        Ok(()) => Ok(seen_at(to)
            .ok()
            .flatten()
            .map_or(Identity { volume: 0, number: 0, size: 0, mtime_ns: 0 }, |seen| seen.identity)),
        Err(MoveError::Folder(FolderError::Io { source, .. }))
            if source.kind() == io::ErrorKind::CrossesDevices =>
        {
            move_across(from, to, own)
        }
        Err(error) => Err(error),
    }
}

/// A second name for the file, then the first is taken away: a link never replaces. File systems
/// without links (FAT) get a check and a rename.
fn rename_new(from: &Place, to: &Place) -> Result<(), MoveError> {
    let linked = std::fs::hard_link(from.path(), to.path());
    match linked {
        Ok(()) => {
            if let Err(error) = remove_name(&from.path()) {
                remove_name(&to.path()).ok();
                return Err(of("move", from.path(), error).into());
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(MoveError::Taken { target: to.path() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(MoveError::Gone { source_path: from.path() })
        }
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            Err(FolderError::Io { doing: "move", path: from.path(), source: error }.into())
        }
        Err(_) => check_then_rename(from, to),
    }
}

fn check_then_rename(from: &Place, to: &Place) -> Result<(), MoveError> {
    if seen_at(to)?.is_some() {
        return Err(MoveError::Taken { target: to.path() });
    }
    match replace(&from.path(), &to.path()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(MoveError::Gone { source_path: from.path() })
        }
        Err(error) => Err(of("move", from.path(), error).into()),
    }
}

/// Copy under a temporary name, flush, give it its name, remove the source.
fn move_across(from: &Place, to: &Place, own: &Own) -> Result<Identity, MoveError> {
    let (mut original, before) = open_regular(from)?;
    // A copy may take long: not for a name that is taken.
    if std::fs::symlink_metadata(to.path()).is_ok() {
        return Err(MoveError::Taken { target: to.path() });
    }
    let temporary = Place::new(&to.folder, own.temporary_name());
    let copied = create(&temporary.path()).and_then(|mut file| {
        io::copy(&mut original, &mut file)?;
        if let Ok(modified) = before.modified() {
            file.set_modified(modified).ok();
        }
        own.sync_always(|| file.sync_all())
    });
    let named = copied
        .map_err(|error| MoveError::from(of("write", to.path(), error)))
        .and_then(|()| rename_new(&temporary, to));
    if let Err(error) = named {
        remove_name(&temporary.path()).ok();
        return Err(error);
    }
    drop(original);
    remove_name(&from.path()).map_err(|error| of("remove", from.path(), error))?;
    Ok(identity(&before))
}

/// Removes the original of a copy that is whole, unless another file has taken its name.
pub(super) fn finish_move(
    from: &Place,
    copied: Identity,
    _to: &Place,
    _own: &Own,
) -> Result<(), FolderError> {
    match seen_at(from)? {
        Some(seen) if seen.identity == copied => {
            remove_name(&from.path()).map_err(|error| of("remove", from.path(), error))
        }
        _ => Ok(()),
    }
}

/// By the paths' first parts alone.
pub(super) fn is_elsewhere(one: &Path, other: &Path) -> bool {
    mount_of(one).point != mount_of(other).point
}

pub(super) fn write(place: &Place, content: &[u8], own: &Own) -> Result<(), FolderError> {
    let temporary = place.folder.join(own.temporary_name());
    let written = create(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            own.sync(|| file.sync_all())
        })
        .and_then(|()| replace(&temporary, &place.path()));
    written.map_err(|error| {
        remove_name(&temporary).ok();
        of("write", place.path(), error)
    })
}

pub(super) fn remove(place: &Place, _own: &Own) -> Result<(), FolderError> {
    match remove_name(&place.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(of("remove", place.path(), error))
        }
        _ => Ok(()),
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

#[expect(clippy::disallowed_methods, reason = "this is the door to files; callers have checked")]
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

#[expect(clippy::disallowed_methods, reason = "this is the door to files")]
fn remove_name(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

fn of(doing: &'static str, path: PathBuf, error: io::Error) -> FolderError {
    match error.raw_os_error() {
        Some(ERROR_SHARING_VIOLATION | ERROR_LOCK_VIOLATION) if cfg!(windows) => {
            FolderError::InUse { path }
        }
        _ => FolderError::of(doing, path, error),
    }
}

fn kind(metadata: &Metadata) -> Kind {
    #[cfg(windows)]
    {
        use std::os::windows::fs::MetadataExt;
        const FILE_ATTRIBUTE_REPARSE_POINT: u32 = 0x0000_0400;
        if metadata.file_attributes() & FILE_ATTRIBUTE_REPARSE_POINT != 0 {
            return Kind::Link;
        }
    }
    if metadata.is_symlink() {
        Kind::Link
    } else if metadata.is_dir() {
        Kind::Folder
    } else if metadata.is_file() {
        Kind::File
    } else {
        Kind::Special
    }
}

/// The standard library hands out no file numbers, so size and time decide, and the digest where
/// the caller has one.
fn identity(metadata: &Metadata) -> Identity {
    let modified = metadata.modified().map_or(0, |time| nanos(time));
    Identity { volume: 0, number: 0, size: metadata.len(), mtime_ns: modified }
}

/// The standard library hands out no change time; the modification time stands in.
fn changed_at(metadata: &Metadata) -> Wall {
    Wall(metadata.modified().map_or(0, |time| nanos(time) / 1_000_000))
}

fn nanos(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(span) => i64::try_from(span.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |span| -span),
    }
}

/// The standard library hands out neither numbers nor owners: a folder is known by its name alone.
pub(super) fn inspect(folder: &Path) -> Result<Option<FolderSeen>, FolderError> {
    match std::fs::symlink_metadata(folder) {
        Ok(metadata) => Ok(Some(FolderSeen {
            kind: kind(&metadata),
            volume: 0,
            number: 0,
            is_local: volume_kind(folder) == Volume::Local,
            owner: None,
            mode: 0,
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(of("look at", folder.to_path_buf(), error)),
    }
}

/// Asks nothing: network paths (`\\server\share`) count as remote.
pub fn volume_kind(path: &Path) -> Volume {
    let is_share = path.as_os_str().as_encoded_bytes().starts_with(br"\\")
        && !path.as_os_str().as_encoded_bytes().starts_with(br"\\?\")
        && !path.as_os_str().as_encoded_bytes().starts_with(br"\\.\");
    if is_share { Volume::Remote { kind: "smb" } } else { Volume::Local }
}

/// The drive or share that a path lies in.
pub(super) struct Mount {
    pub(super) point: PathBuf,
    pub(super) is_remote: bool,
}

/// By the path's first part alone.
pub(super) fn mount_of(path: &Path) -> Mount {
    let point = path.components().next().map(|first| PathBuf::from(first.as_os_str()));
    let is_remote = volume_kind(path) != Volume::Local;
    Mount { point: point.unwrap_or_default(), is_remote }
}
