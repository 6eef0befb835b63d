//! A file: its id, its identity on disk, the digest of its bytes, its place.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::time::Wall;

/// Names one journey of one file. A path is not an identity: the same name is dropped again
/// tomorrow, and takes a new id.
///
/// Ids come in blocks that the ledger reserves (see `world::ledger`); a block never starts below
/// the wall clock in milliseconds, so ids sort by time, are unique and only grow. Written as ten
/// characters of Crockford's base 32 in lower case, e.g. `1kq8z7x2ab`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ID_CHARS: usize = 10;

impl FileId {
    /// Reads an id as [`fmt::Display`] writes it; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != ID_CHARS {
            return None;
        }
        text.bytes()
            .try_fold(0_u64, |value, byte| {
                let digit = BASE32.iter().position(|known| *known == byte)?;
                Some(value << 5 | digit as u64)
            })
            .map(Self)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0_u8; ID_CHARS];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            *place = BASE32[usize::try_from(rest & 31).unwrap_or(0)];
            rest >>= 5;
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or("?"))
    }
}

/// What the file system says a file is, as far as a rename leaves it alone. The change time is
/// not part of it: the claim's own rename changes that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device or volume serial number; comparable within one mount only.
    pub volume: u64,
    /// Inode or file index; 0 where the file system has no stable ones.
    pub number: u64,
    /// Length in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970 UTC.
    pub mtime_ns: i64,
}

impl Identity {
    /// Whether both describe the same file. Where one side has no stable number, size and mtime
    /// decide (and the digest, where the caller has one).
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let numbers_agree = self.number == 0 || other.number == 0 || self.number == other.number;
        numbers_agree && self.size == other.size && self.mtime_ns == other.mtime_ns
    }
}

/// SHA-256 of a file or of a body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The folder, absolute.
    pub folder: Arc<Path>,
    /// The name in it: one path component, any bytes that the file system takes.
    pub name: OsString,
}

impl Place {
    /// `name` in `folder`.
    #[must_use]
    pub fn new(folder: &Arc<Path>, name: impl Into<OsString>) -> Self {
        Self { folder: Arc::clone(folder), name: name.into() }
    }

    /// Splits a path; `None` if it has no file name or no folder.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        Some(Self { folder: Arc::from(path.parent()?), name: path.file_name()?.to_owned() })
    }

    /// The whole path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().display().fmt(f)
    }
}

/// What kind of thing a name stands for, seen without following links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, junction or other reparse point.
    Link,
    /// FIFO, socket, device.
    Special,
    /// It is listed, but the system cannot say what it is (a damaged entry, a stale handle). Its
    /// identity is zero.
    Unknown,
}

/// One look at a folder itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderSeen {
    /// What has its name; links are not followed.
    pub kind: Kind,
    /// Device or volume serial number.
    pub volume: u64,
    /// Inode or file index; 0 where the system tells none.
    pub number: u64,
    /// Whether its volume is on this machine: only there owner and mode mean what they say.
    pub is_local: bool,
    /// The account that it belongs to, where the system has such numbers.
    pub owner: Option<u32>,
    /// The bits of its mode that say who may do what.
    pub mode: u32,
}

/// One look at one name in a folder. It may be out of date a moment later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Its name.
    pub name: OsString,
    /// What it is.
    pub kind: Kind,
    /// Its identity as of this look.
    pub identity: Identity,
    /// When content or metadata last changed (ctime; on Windows `ChangeTime`).
    pub changed_at: Wall,
}

impl Sighting {
    /// The name as it may be shown: control characters and bytes that are no UTF-8 are escaped.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.name)
    }
}

/// A file name fit for a log line, a sidecar or a terminal: one line, nothing that moves a cursor.
#[must_use]
pub fn shown(name: &OsStr) -> String {
    let mut text = String::new();
    for part in name.as_encoded_bytes().utf8_chunks() {
        for letter in part.valid().chars() {
            if letter.is_control() || is_format(letter) {
                text.extend(letter.escape_default());
            } else {
                text.push(letter);
            }
        }
        for byte in part.invalid() {
            text = format!("{text}\\x{byte:02x}");
        }
    }
    text
}

/// Marks that reorder or hide text (bidirectional overrides, zero-width signs).
fn is_format(letter: char) -> bool {
    matches!(
        letter,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    )
}
