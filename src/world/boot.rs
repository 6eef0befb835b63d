//! Which boot of the system this is: what was written and not synced is there for as long as it
//! lasts.
#![cfg_attr(
    unix,
    expect(clippy::disallowed_methods, reason = "a file of the system's, which tells only this")
)]

#[cfg(windows)]
mod calls;

/// Names this boot of the system, the same for every process of it; `None` where the system does
/// not tell: then every start may be one after a power cut. A container has the boot of its host,
/// and so of the memory in which its writes wait for the disk.
#[cfg(unix)]
pub(super) fn boot() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let boot = boot.trim();
    (!boot.is_empty() && !boot.contains(' ')).then(|| boot.to_owned())
}

/// Windows names no boots. But the part of its registry that tells of the hardware lies in memory
/// alone and is made anew at each boot: the time at which it came to know of the processors, in
/// units of 100 ns, is that of no other. Were it to change meanwhile, a start would take itself for
/// one in another boot: what is in doubt is then held, never sent. With it stands the count of
/// boots, which an administrator may have switched off.
#[cfg(windows)]
pub(super) fn boot() -> Option<String> {
    use windows_registry::LOCAL_MACHINE;
    let processors = LOCAL_MACHINE.open(r"HARDWARE\DESCRIPTION\System\CentralProcessor").ok()?;
    let made = calls::changed_at(&processors).filter(|ticks| *ticks > 0)?;
    let counted = LOCAL_MACHINE
        .open(r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters")
        .and_then(|key| key.get_u32("BootId"));
    Some(format!("{made:016x}-{}", counted.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_one_name_that_fits_into_a_line() {
        let name = boot();
        assert_eq!(name, boot());
        if cfg!(any(windows, target_os = "linux")) {
            let name = name.unwrap();
            assert!(!name.is_empty() && !name.contains(char::is_whitespace), "{name:?}");
        }
    }
}
