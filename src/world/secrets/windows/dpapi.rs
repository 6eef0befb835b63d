//! The calls by which Windows encrypts for a machine. Nothing else here is unsafe, and nothing here
//! decides.
#![expect(unsafe_code, reason = "the standard library does not encrypt")]

use std::io;
use std::ptr;

use windows_sys::Win32::Foundation::LocalFree;
use windows_sys::Win32::Security::Cryptography::{
    CRYPT_INTEGER_BLOB, CRYPTPROTECT_LOCAL_MACHINE, CRYPTPROTECT_UI_FORBIDDEN, CryptProtectData,
    CryptUnprotectData,
};

/// Encrypts so that only this machine can decrypt.
pub(super) fn seal(plain: &[u8]) -> io::Result<Vec<u8>> {
    let input = blob(plain)?;
    let mut output = empty();
    // SAFETY: `input` points to bytes that are borrowed until the call has ended; `output` is ours
    // and of the type that the call fills; what is null may be null.
    let answer = unsafe {
        CryptProtectData(
            &raw const input,
            ptr::null(),
            ptr::null(),
            ptr::null(),
            ptr::null(),
            CRYPTPROTECT_LOCAL_MACHINE | CRYPTPROTECT_UI_FORBIDDEN,
            &raw mut output,
        )
    };
    taken(answer, &output)
}

/// Decrypts what this machine has encrypted.
pub(super) fn unseal(sealed: &[u8]) -> io::Result<Vec<u8>> {
    let input = blob(sealed)?;
    let mut output = empty();
    // SAFETY: as above.
    let answer = unsafe {
        CryptUnprotectData(
            &raw const input,
            ptr::null_mut(),
            ptr::null(),
            ptr::null(),
            ptr::null(),
            CRYPTPROTECT_UI_FORBIDDEN,
            &raw mut output,
        )
    };
    taken(answer, &output)
}

fn blob(bytes: &[u8]) -> io::Result<CRYPT_INTEGER_BLOB> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    // The calls read what is pointed to, and take no constant pointer for it.
    Ok(CRYPT_INTEGER_BLOB { cbData: length, pbData: bytes.as_ptr().cast_mut() })
}

fn empty() -> CRYPT_INTEGER_BLOB {
    CRYPT_INTEGER_BLOB { cbData: 0, pbData: ptr::null_mut() }
}

/// Copies what a call has made, and frees it.
fn taken(answer: i32, output: &CRYPT_INTEGER_BLOB) -> io::Result<Vec<u8>> {
    if answer == 0 {
        return Err(io::Error::last_os_error());
    }
    if output.pbData.is_null() {
        return Ok(Vec::new());
    }
    let length = usize::try_from(output.cbData).map_err(io::Error::other)?;
    // SAFETY: the call has made `cbData` bytes at `pbData`, which nobody else knows of.
    let bytes = unsafe { std::slice::from_raw_parts(output.pbData, length) }.to_vec();
    // SAFETY: made by the call with `LocalAlloc`, and freed once.
    unsafe { LocalFree(output.pbData.cast()) };
    Ok(bytes)
}
