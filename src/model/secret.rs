//! A value that must never be written anywhere (promise P11).

use std::fmt;
use std::sync::Arc;

/// The longest name of a secret that patchdrop keeps, bytes.
const SECRET_NAME_MAX: usize = 64;

/// A credential, token, signature or signed URL. It has no `Display`, and its `Debug` is blind.
/// A copy is the same value in the same place.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a value that must not be shown.
    #[must_use]
    pub fn new(value: impl Into<Arc<str>>) -> Self {
        Self(value.into())
    }

    /// The value itself. Call it only where it goes onto the wire or into an owner-only file.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// Whether a secret that patchdrop keeps can have this name: it becomes the name of a file, of a
/// systemd credential and of an argument.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=SECRET_NAME_MAX).contains(&name.len())
        && name.bytes().all(fits)
        && !name.starts_with(['.', '-'])
        && !name.ends_with('.')
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_a_name_that_every_system_takes_for_a_file() {
        for name in ["inbound", "a", "Shop_7.client-secret", "0", &"n".repeat(64)] {
            assert!(is_secret_name(name), "{name}");
        }
        let long = "n".repeat(65);
        for name in
            ["", ".", "..", ".hidden", "-x", "a.", "a/b", "a\\b", "a b", "\u{e4}", "a:b", &long]
        {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
