//! The calls of Windows that the standard library does not make: what an open file is, giving it
//! another name or none through its handle, and how much room a volume has. Nothing else here is
//! unsafe, and nothing here decides.
#![expect(unsafe_code, reason = "no safe binding that we have renames through a handle")]

use std::fs::File;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::AsRawHandle;
use std::path::Path;

use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_BASIC_INFO, FILE_DISPOSITION_FLAG_DELETE,
    FILE_DISPOSITION_FLAG_IGNORE_READONLY_ATTRIBUTE, FILE_DISPOSITION_FLAG_POSIX_SEMANTICS,
    FILE_DISPOSITION_INFO, FILE_DISPOSITION_INFO_EX, FILE_INFO_BY_HANDLE_CLASS, FILE_RENAME_INFO,
    FileBasicInfo, FileDispositionInfo, FileDispositionInfoEx, FileRenameInfo, GetDiskFreeSpaceExW,
    GetDriveTypeW, GetFileInformationByHandle, GetFileInformationByHandleEx,
    SetFileInformationByHandle,
};

/// What `GetDriveTypeW` says of a drive letter that stands for a share.
const DRIVE_REMOTE: u32 = 4;

/// What an open file or folder is. Times are in units of 100 ns since 1601.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) attributes: u32,
    pub(super) volume: u64,
    pub(super) number: u64,
    pub(super) links: u64,
    pub(super) size: u64,
    pub(super) modified: i64,
    /// When content, name or attributes last changed; the modification time where the file system
    /// keeps none (FAT).
    pub(super) changed: i64,
}

/// Asks through the handle: what a folder's listing says is stale until a writer closes the file.
pub(super) fn facts(file: &File) -> io::Result<Facts> {
    let mut found = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open for as long as `file` is borrowed, and the structure is ours and
    // of the type that the call fills.
    let answer = unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut found) };
    if answer == 0 {
        return Err(io::Error::last_os_error());
    }
    let modified = ticks(found.ftLastWriteTime.dwHighDateTime, found.ftLastWriteTime.dwLowDateTime);
    Ok(Facts {
        attributes: found.dwFileAttributes,
        volume: u64::from(found.dwVolumeSerialNumber),
        number: joined(found.nFileIndexHigh, found.nFileIndexLow),
        links: u64::from(found.nNumberOfLinks),
        size: joined(found.nFileSizeHigh, found.nFileSizeLow),
        modified,
        changed: changed(file).filter(|changed| *changed > 0).unwrap_or(modified),
    })
}

fn changed(file: &File) -> Option<i64> {
    let mut times = FILE_BASIC_INFO::default();
    let bytes = u32::try_from(size_of::<FILE_BASIC_INFO>()).ok()?;
    // SAFETY: as above; the size is that of the structure.
    let answer = unsafe {
        GetFileInformationByHandleEx(
            file.as_raw_handle(),
            FileBasicInfo,
            (&raw mut times).cast(),
            bytes,
        )
    };
    (answer != 0).then_some(times.ChangeTime)
}

fn joined(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn ticks(high: u32, low: u32) -> i64 {
    i64::try_from(joined(high, low)).unwrap_or(i64::MAX)
}

/// Gives an open file, opened with the right to delete it, another path on its volume. Never
/// replaces.
pub(super) fn rename_new(file: &File, to: &Path) -> io::Result<()> {
    let name: Vec<u8> = to.as_os_str().encode_wide().flat_map(u16::to_ne_bytes).collect();
    let length = u32::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidFilename)?;
    // ReplaceIfExists and RootDirectory stay zero.
    let mut request = vec![0; offset_of!(FILE_RENAME_INFO, FileNameLength)];
    request.extend(length.to_ne_bytes());
    request.extend(name);
    // It ends in a zero, and is never shorter than the structure.
    request.extend([0; size_of::<FILE_RENAME_INFO>()]);
    set(file, FileRenameInfo, &request)
}

/// Removes an open file, opened with the right to delete it: this very file, whatever has its name
/// by now. Also one that is marked read-only, where the system can (Windows 10 1809 and later).
pub(super) fn remove(file: &File) -> io::Result<()> {
    let flags = FILE_DISPOSITION_FLAG_DELETE
        | FILE_DISPOSITION_FLAG_POSIX_SEMANTICS
        | FILE_DISPOSITION_FLAG_IGNORE_READONLY_ATTRIBUTE;
    let request = flags.to_ne_bytes();
    debug_assert_eq!(request.len(), size_of::<FILE_DISPOSITION_INFO_EX>());
    set(file, FileDispositionInfoEx, &request)
        .or_else(|_| set(file, FileDispositionInfo, &[1; size_of::<FILE_DISPOSITION_INFO>()]))
}

/// Copies the request to where any of its structures may lie.
fn set(file: &File, class: FILE_INFO_BY_HANDLE_CLASS, request: &[u8]) -> io::Result<()> {
    let mut aligned = vec![0_u64; request.len().div_ceil(size_of::<u64>())];
    for (word, bytes) in aligned.iter_mut().zip(request.chunks(size_of::<u64>())) {
        let mut whole = [0; size_of::<u64>()];
        whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        *word = u64::from_ne_bytes(whole);
    }
    let bytes = u32::try_from(request.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the handle is open for as long as `file` is borrowed; the request is at least `bytes`
    // long, aligned to 8, and only read. That it is laid out as the class wants it is up to the two
    // callers, which take lengths and offsets from the structures themselves.
    let answer = unsafe {
        SetFileInformationByHandle(file.as_raw_handle(), class, aligned.as_ptr().cast(), bytes)
    };
    if answer == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Bytes that this account may still write to a folder's volume, and bytes that it has in all.
pub(super) fn room(folder: &Path) -> io::Result<(u64, u64)> {
    let (mut free, mut total) = (0, 0);
    let folder = terminated(folder);
    // SAFETY: the path ends in a zero, and the two numbers are ours; the third is not asked for.
    let answer = unsafe {
        GetDiskFreeSpaceExW(folder.as_ptr(), &raw mut free, &raw mut total, std::ptr::null_mut())
    };
    if answer == 0 { Err(io::Error::last_os_error()) } else { Ok((free, total)) }
}

/// Whether a drive (`Z:\`) stands for a share.
pub(super) fn is_mapped(drive: &Path) -> bool {
    let drive = terminated(drive);
    // SAFETY: the path ends in a zero.
    unsafe { GetDriveTypeW(drive.as_ptr()) == DRIVE_REMOTE }
}

fn terminated(path: &Path) -> Vec<u16> {
    path.as_os_str().encode_wide().chain([0]).collect()
}
