//! How much room is left on a folder's volume.

#[cfg(unix)]
use std::path::Path;

#[cfg(unix)]
use crate::model::room::Room;

/// Asks the volume; none if it does not say.
#[cfg(unix)]
pub(super) fn room(folder: &Path) -> Option<Room> {
    let volume = rustix::fs::statvfs(folder).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(volume.f_frsize);
    Some(Room {
        free_bytes: bytes(volume.f_bavail),
        total_bytes: bytes(volume.f_blocks),
        // Some file systems make room for files as they go, and count none.
        free_files: (volume.f_files > 0).then_some(volume.f_favail),
    })
}

#[cfg(windows)]
pub(super) use super::folder::room;
