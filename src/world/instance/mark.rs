//! The mark itself, `.patchdrop/owner.json` in a root: what it says, and how it is read and written
//! whole. It is never held open.
#![expect(clippy::disallowed_methods, reason = "our own small files, never a file to be sent")]

use std::ffi::OsStr;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{MarkError, Standing};
use crate::model::file::shown;
use crate::model::time::Wall;
use crate::world::own_files;

/// Volume and file number of a folder.
pub(in crate::world) type Number = (u64, u64);

/// A mark is some hundred bytes; what is longer is none.
const BYTES_MAX: u64 = 64 << 10;

/// What a root says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Whose it is: the id of a ledger, 32 hexadecimal digits.
    pub ledger: String,
    /// The machine's name, for people; two machines may share it.
    pub host: String,
    /// Which machine: a digest of its own id, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Where the ledger is.
    pub state_dir: String,
    /// Volume and number of that folder: a copy has others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// First file id ever reserved; 0 for none.
    pub reserved_from: u64,
    /// End of the last block of file ids reserved; 0 for none.
    pub reserved_end: u64,
    /// The ledger's epoch when this was written; 0 from patchdrop 0.1.0.
    #[serde(default)]
    pub epoch: u64,
    /// When this was written.
    pub written_at: Wall,
    /// Which patchdrop wrote it.
    pub version: String,
}

impl Mark {
    /// The ids that its ledger has given out.
    #[must_use]
    pub fn reserved(&self) -> Range<u64> {
        self.reserved_from..self.reserved_end
    }

    /// Ours, as things stand.
    pub(super) fn of(standing: &Standing, at: Wall) -> Self {
        let Here { host, machine, place } = standing.here.clone();
        Self {
            ledger: standing.ledger.to_string(),
            host,
            machine,
            state_dir: standing.state_dir.display().to_string(),
            place,
            reserved_from: standing.reserved.start,
            reserved_end: standing.reserved.end,
            epoch: standing.epoch,
            written_at: at,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ledger, host, state_dir, written_at, .. } = self;
        // Whoever may write in the root may have written anything into it.
        let [ledger, host, state_dir] = [ledger, host, state_dir].map(|it| shown(OsStr::new(it)));
        write!(f, "ledger {ledger} on {host}, state_dir {state_dir}, last seen {written_at}")
    }
}

/// Which machine and which state folder these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    host: String,
    machine: Option<String>,
    place: Option<String>,
}

impl Here {
    /// This machine, with the ledger in `state_dir`.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        let place = number(state_dir).map(|(volume, number)| format!("{volume}:{number}"));
        Self { host: host(), machine: machine(), place }
    }

    /// Whether nothing speaks against a mark being from this machine. A name that has changed does:
    /// a copied machine often keeps its id and gets another name.
    pub(super) fn may_be_that_of(&self, mark: &Mark) -> bool {
        let is_other = |one: &Option<String>, other: &Option<String>| {
            one.as_ref().zip(other.as_ref()).is_some_and(|(one, other)| one != other)
        };
        mark.host == self.host && !is_other(&mark.machine, &self.machine)
    }

    /// Whether a mark is from this machine and, where machines cannot be told apart (containers
    /// often have one name and no id), from this very state folder.
    pub(super) fn is_certainly_that_of(&self, mark: &Mark) -> bool {
        let has_id = mark.machine.is_some() && self.machine.is_some();
        let is_of_0_1_0 = mark.machine.is_none() && mark.place.is_none();
        self.may_be_that_of(mark) && (has_id || is_of_0_1_0 || mark.place == self.place)
    }
}

/// Whether the state folder that a mark names is another one than ours and holds a ledger: then
/// ours is a copy of it, and not the same one at a new place.
pub(super) fn has_another_ledger(mark: &Mark, state_dir: &Path) -> bool {
    let theirs = Path::new(&mark.state_dir);
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    theirs.is_absolute()
        && theirs != state_dir
        && theirs.join("ledger/ledger.db").exists()
        && real(theirs) != real(state_dir)
}

/// What is in the place of a mark.
#[derive(Debug)]
pub(super) enum Reading {
    /// A mark.
    Mark(Mark),
    /// No such file.
    Nothing,
    /// A file that is no JSON at all: empty, cut, or full of zeros, as power cuts leave them.
    Torn(serde_json::Error),
}

/// Where the mark of a folder is.
pub(super) fn path(folder: &Path) -> PathBuf {
    own_folder(folder).join("owner.json")
}

fn own_folder(folder: &Path) -> PathBuf {
    folder.join(".patchdrop")
}

fn failed(doing: &'static str, folder: &Path) -> impl Fn(io::Error) -> MarkError {
    move |source| MarkError::Io { doing, path: path(folder), source }
}

pub(super) fn read(folder: &Path) -> Result<Reading, MarkError> {
    let fail = failed("read", folder);
    let path = path(folder);
    match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Reading::Nothing),
        Err(error) => return Err(fail(error)),
        Ok(found) if found.is_symlink() => return Err(MarkError::NoMark { path, is: "a link" }),
        Ok(found) if !found.is_file() => {
            return Err(MarkError::NoMark { path, is: "no regular file" });
        }
        Ok(found) if found.len() > BYTES_MAX => {
            return Err(MarkError::NoMark { path, is: "too long" });
        }
        Ok(_) => {}
    }
    let text = match own_files::read(&path, BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Reading::Nothing),
        other => other.map_err(fail)?,
    };
    match serde_json::from_slice(&text) {
        Ok(mark) => Ok(Reading::Mark(mark)),
        // Something that is written well and not known may be a newer patchdrop's.
        Err(source) if source.is_data() => Err(MarkError::Unreadable { path, source }),
        Err(source) => Ok(Reading::Torn(source)),
    }
}

/// Temporary name, fsync, rename, fsync of the folders.
pub(super) fn write(folder: &Path, mark: &Mark) -> Result<(), MarkError> {
    let text = serde_json::to_vec_pretty(mark)
        .map_err(|source| MarkError::Unreadable { path: path(folder), source })?;
    write_text(folder, &text).map_err(failed("write", folder))
}

fn write_text(folder: &Path, text: &[u8]) -> io::Result<()> {
    let own = own_folder(folder);
    if own_files::make_folder(&own, true)? {
        sync_folder(folder)?;
    }
    if !std::fs::symlink_metadata(&own)?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, ".patchdrop is not a folder"));
    }
    let fresh = own.join("owner.json.new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = own_files::create(&fresh, own_files::READABLE, OpenOptions::new().write(true))?;
    file.write_all(text)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&fresh, path(folder))?;
    sync_folder(&own)
}

/// Volume and number of a folder; `None` where the system does not tell.
#[cfg(unix)]
pub(in crate::world) fn number(folder: &Path) -> Option<Number> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(folder).ok().map(|found| (found.dev(), found.ino()))
}

/// Volume and number of a folder; `None` where the system does not tell.
#[cfg(windows)]
pub(in crate::world) fn number(folder: &Path) -> Option<Number> {
    crate::world::folder::number(folder)
}

#[cfg(unix)]
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

/// Folders can't be synced here.
#[cfg(not(unix))]
pub(super) fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// This machine's name.
#[cfg(unix)]
pub(in crate::world) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// This machine's name.
#[cfg(not(unix))]
pub(in crate::world) fn host() -> String {
    std::env::var_os("COMPUTERNAME")
        .map_or_else(|| "this machine".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// A digest of this machine's id, which is not to be told to others as it is (machine-id(5)).
#[cfg(target_os = "linux")]
fn machine() -> Option<String> {
    let id = std::fs::read_to_string("/etc/machine-id").ok()?;
    let id = id.trim();
    (id.len() == 32).then(|| digest_of(id)).flatten()
}

/// A digest of the id that Windows drew for this machine when it was installed. Copies of a virtual
/// machine keep it, unless they were prepared for that.
#[cfg(windows)]
fn machine() -> Option<String> {
    let key = windows_registry::LOCAL_MACHINE.open(r"SOFTWARE\Microsoft\Cryptography").ok()?;
    let id = key.get_string("MachineGuid").ok()?;
    (!id.trim().is_empty()).then(|| digest_of(id.trim())).flatten()
}

/// Only its name is known here.
#[cfg(not(any(target_os = "linux", windows)))]
fn machine() -> Option<String> {
    None
}

#[cfg(any(target_os = "linux", windows))]
fn digest_of(id: &str) -> Option<String> {
    use sha2::Digest as _;
    let digest = sha2::Sha256::new().chain_update("patchdrop ").chain_update(id).finalize();
    let first = digest.first_chunk::<8>()?;
    Some(format!("{:016x}", u64::from_be_bytes(*first)))
}
