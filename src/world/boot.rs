//! Which boot of the system this is: what was written and not synced is there for as long as it
//! lasts.
#![cfg_attr(
    unix,
    expect(clippy::disallowed_methods, reason = "a file of the system's, which tells only this")
)]

/// Names this boot of the system, the same for every process of it; `None` where the system does
/// not tell: then every start may be one after a power cut. A container has the boot of its host,
/// and so of the memory in which its writes wait for the disk.
#[cfg(unix)]
pub(super) fn boot() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let boot = boot.trim();
    (!boot.is_empty() && !boot.contains(' ')).then(|| boot.to_owned())
}

/// Windows counts its boots where an administrator may have switched the counting off.
#[cfg(windows)]
pub(super) fn boot() -> Option<String> {
    None
}
