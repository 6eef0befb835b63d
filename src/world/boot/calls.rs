//! The one call about the registry that `windows-registry` does not make.
#![expect(unsafe_code, reason = "no safe binding tells when a key was changed")]

use std::ptr::null_mut;

use windows_registry::Key;
use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::System::Registry::RegQueryInfoKeyW;

/// When a key, its values or the list of its subkeys last changed, in units of 100 ns since 1601.
pub(super) fn changed_at(key: &Key) -> Option<u64> {
    let mut at = FILETIME::default();
    // SAFETY: the key is open for as long as it is borrowed; of all that the call could tell only
    // the time is asked for, and its place is ours.
    let code = unsafe {
        RegQueryInfoKeyW(
            key.as_raw(),
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
            &raw mut at,
        )
    };
    (code == 0).then(|| u64::from(at.dwHighDateTime) << 32 | u64::from(at.dwLowDateTime))
}
