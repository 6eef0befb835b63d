//! Read leases: the kernel's word that nobody has a file open for writing.
//!
//! While a read lease is held, another program's open for writing waits (at most
//! `/proc/sys/fs/lease-break-time`, 45 s) until the lease is released; closing the file releases
//! it. The kernel tells the holder by a signal, SIGIO unless told otherwise, and SIGIO ends a
//! process that does not expect it. SIGURG is ignored by default, so that one is asked for first.

use std::fs::File;

/// What the kernel answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    /// Nobody has the file open for writing, and nobody can until it is closed here.
    Granted,
    /// Somebody has it open for writing. Some network file systems answer the same when they
    /// merely have no delegation from their server.
    Refused,
    /// No lease is to be had: the file is another account's, or the file system knows none.
    Unknown,
}

/// Asks for a read lease on a file that is open for reading only.
#[cfg(target_os = "linux")]
pub(super) fn take(file: &File) -> Lease {
    /// `F_SETSIG` of `fcntl(2)`; 10 in asm-generic, which every supported architecture uses.
    const F_SETSIG: libc::c_int = 10;

    if fcntl(file, F_SETSIG, libc::SIGURG).is_err() {
        return Lease::Unknown;
    }
    match fcntl(file, libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => Lease::Granted,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Lease::Refused,
        Err(_) => Lease::Unknown,
    }
}

/// Only Linux has leases.
#[cfg(not(target_os = "linux"))]
pub(super) fn take(_file: &File) -> Lease {
    Lease::Unknown
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe binding knows F_SETSIG and F_SETLEASE")]
fn fcntl(file: &File, command: libc::c_int, value: libc::c_int) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;

    // SAFETY: the descriptor is open for as long as `file` is borrowed, and both commands take a
    // plain integer, so no memory of ours is handed over.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), command, value) };
    if answer == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
