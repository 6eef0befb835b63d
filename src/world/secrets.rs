//! Secrets that patchdrop keeps (`{ stored = "NAME" }`), a file each in `state_dir/secrets`, and
//! those that systemd hands to the service.
//!
//! Keeps promise P11 on the disk: on Linux a file is for the account alone that `state_dir` belongs
//! to, on Windows it is encrypted for this machine as well. What others could have read or written
//! is not believed. No value is ever in an error.
#![expect(clippy::disallowed_methods, reason = "our own small files, never a file to be sent")]

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::model::quoted::quoted;
use crate::model::secret::{Secret, is_secret_name};
use crate::model::time::Wall;

/// The folder in `state_dir`.
const FOLDER: &str = "secrets";

/// A secret is a line, not a document. Bytes.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Where a secret is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// systemd has handed it to this process (`LoadCredential=`).
    Credential,
    /// A file in `state_dir/secrets`.
    File,
}

/// A secret that is there, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// Where it is from.
    pub source: Source,
    /// When it was set, as far as its file tells.
    pub set_at: Option<Wall>,
}

/// Why a secret cannot be had, or be kept.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Nothing has that name.
    #[error("no secret {name} is stored in {}", .folder.display())]
    Absent {
        /// Its name.
        name: String,
        /// Where it would be.
        folder: PathBuf,
    },
    /// `state_dir` is not there, and whose it is to be is not ours to say.
    #[error("{} is not there", .path.display())]
    NoStateDir {
        /// `state_dir`.
        path: PathBuf,
    },
    /// This account may not.
    #[error("no permission for {}", .path.display())]
    Denied {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others may read or write it: it may be known to them, or be theirs.
    #[error("{} is open to other accounts (mode {mode:04o}) and is not believed", .path.display())]
    Exposed {
        /// Which file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not of the account that `state_dir` belongs to.
    #[error(
        "{} belongs to account {owner} and not to account {wanted}, as state_dir does: it is not \
         believed",
        .path.display()
    )]
    Foreign {
        /// Which file or folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it must be.
        wanted: u32,
    },
    /// A link, a folder, a device.
    #[error("{} is no regular file and is not believed", .path.display())]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// It was encrypted by another machine, or by this one before it was set up anew.
    #[error("secret {name} was stored on another machine ({host}) and cannot be read on this one")]
    Elsewhere {
        /// Its name.
        name: String,
        /// The machine's name at that time.
        host: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is not what patchdrop writes.
    #[error("{} is no secret that patchdrop has written: {why}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Anything else.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// The verb: open, read, write, list, remove, encrypt.
        doing: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl SecretError {
    fn of(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::PermissionDenied {
            return Self::Denied { path, source };
        }
        Self::Io { doing, path, source }
    }

    /// What the administrator can do about the secret of this name, one sentence.
    #[must_use]
    pub fn remedy(&self, name: &str) -> String {
        match self {
            Self::Absent { .. } if cfg!(windows) => {
                format!("store it: patchdrop secret set {name}")
            }
            Self::Absent { .. } => format!(
                "store it: patchdrop secret set {name} (one that systemd hands to the service by \
                 LoadCredential={name}:FILE is seen by the service alone)"
            ),
            Self::NoStateDir { .. } if cfg!(windows) => {
                "have it made for administrators and the service's account alone: patchdrop service \
                 install"
                    .to_owned()
            }
            Self::NoStateDir { path } => format!(
                "make it for the account that the service runs as: install -d -m 700 -o ACCOUNT {}",
                quoted(path)
            ),
            Self::Denied { .. } => {
                "run this as the service's account or as an administrator".to_owned()
            }
            Self::Exposed { path, .. } => format!(
                "take the rights of others away, and replace the secret if somebody may have read \
                 it: chmod go= {}",
                quoted(path)
            ),
            Self::Foreign { path, wanted, .. } => format!(
                "look who has put it there; then give it to the right account: chown {wanted} {}",
                quoted(path)
            ),
            Self::NotAFile { path } => {
                format!("move {} away and set it again: patchdrop secret set {name}", quoted(path))
            }
            Self::Elsewhere { .. } | Self::Damaged { .. } => {
                format!("set it again: patchdrop secret set {name}")
            }
            Self::Io { .. } => {
                "see whether the disk with state_dir is there and not full".to_owned()
            }
        }
    }
}

/// The folder that secrets are kept in.
#[must_use]
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join(FOLDER)
}

/// The value of a secret: the credential of that name where systemd has handed one over
/// (`credentials` is its folder), else the file.
///
/// # Errors
/// [`SecretError`]; a credential that is there and cannot be read is an error, too.
pub fn read(
    state_dir: &Path,
    credentials: Option<&Path>,
    name: &str,
) -> Result<Secret, SecretError> {
    if let Some(path) = credential(credentials, name) {
        return text(&path, credential_bytes(&path)?);
    }
    system::read(state_dir, name)
}

/// Keeps a secret, in place of an older one of that name; whether there was one. Whole or not at
/// all, whatever ends this process.
///
/// # Errors
/// [`SecretError`]
pub fn set(state_dir: &Path, name: &str, value: &Secret) -> Result<bool, SecretError> {
    system::set(state_dir, name, value)
}

/// Removes a secret's file; whether there was one.
///
/// # Errors
/// [`SecretError`]
pub fn remove(state_dir: &Path, name: &str) -> Result<bool, SecretError> {
    system::remove(state_dir, name)
}

/// What is stored, by name; a credential hides a file of its name.
///
/// # Errors
/// [`SecretError`]
pub fn list(state_dir: &Path, credentials: Option<&Path>) -> Result<Vec<Stored>, SecretError> {
    let files = system::list(state_dir)?;
    let mut found: Vec<Stored> = credentials.map(credentials_in).unwrap_or_default();
    for (name, set_at) in files {
        if found.iter().all(|stored| stored.name != name) {
            found.push(Stored { name, source: Source::File, set_at });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn credential(credentials: Option<&Path>, name: &str) -> Option<PathBuf> {
    let path = credentials?.join(name);
    (is_secret_name(name) && std::fs::symlink_metadata(&path).is_ok()).then_some(path)
}

/// systemd has seen to it that nobody else can read it.
fn credential_bytes(path: &Path) -> Result<Vec<u8>, SecretError> {
    std::fs::File::open(path)
        .and_then(bytes_of)
        .map_err(|source| SecretError::of("read", path, source))
}

fn credentials_in(folder: &Path) -> Vec<Stored> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let names = names.filter(|name| is_secret_name(name));
    names.map(|name| Stored { name, source: Source::Credential, set_at: None }).collect()
}

/// All of a file; one that is longer than any secret is an error.
fn bytes_of(file: std::fs::File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        let text = format!("larger than {} KiB", SECRET_BYTES_MAX / 1024);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// A secret as it lies in a file; a line break at its end is whoever wrote it by hand's.
fn text(path: &Path, bytes: Vec<u8>) -> Result<Secret, SecretError> {
    let text = String::from_utf8(bytes)
        .map_err(|_| SecretError::Damaged { path: path.to_owned(), why: "it is not UTF-8" })?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

/// When a file was last changed, milliseconds since 1970.
fn wall(modified: std::time::SystemTime) -> Option<Wall> {
    let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(Wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Secret {
        Secret::new(text)
    }

    fn names(state_dir: &Path, credentials: Option<&Path>) -> Vec<(String, Source)> {
        let stored = list(state_dir, credentials).unwrap();
        stored.into_iter().map(|stored| (stored.name, stored.source)).collect()
    }

    #[test]
    fn a_secret_is_kept_replaced_listed_and_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let state_dir = scratch.path();
        assert_eq!(names(state_dir, None), []);
        assert!(matches!(read(state_dir, None, "inbound"), Err(SecretError::Absent { .. })));
        assert!(!remove(state_dir, "inbound").unwrap());

        assert!(!set(state_dir, "inbound", &value("st\u{e4}ple")).unwrap());
        assert!(!set(state_dir, "hook", &value("x")).unwrap());
        assert!(set(state_dir, "inbound", &value("battery ")).unwrap());
        assert_eq!(read(state_dir, None, "inbound").unwrap().reveal(), "battery ");
        let expected = [("hook".to_owned(), Source::File), ("inbound".to_owned(), Source::File)];
        assert_eq!(names(state_dir, None), expected);
        let set_at = list(state_dir, None).unwrap()[0].set_at.unwrap();
        assert!(set_at > Wall(1_700_000_000_000), "{set_at}");
        let left = std::fs::read_dir(folder(state_dir)).unwrap().count();
        assert_eq!(left, 2, "nothing but the secrets is left behind");

        assert!(remove(state_dir, "inbound").unwrap());
        assert!(matches!(read(state_dir, None, "inbound"), Err(SecretError::Absent { .. })));
        assert_eq!(read(state_dir, None, "hook").unwrap().reveal(), "x");
    }

    #[test]
    fn a_credential_of_the_service_comes_first() {
        let (scratch, handed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (state_dir, credentials) = (scratch.path(), Some(handed.path()));
        set(state_dir, "inbound", &value("of the file")).unwrap();
        set(state_dir, "hook", &value("hook of the file")).unwrap();
        std::fs::write(handed.path().join("inbound"), "of systemd\n").unwrap();
        std::fs::write(handed.path().join("other"), "other").unwrap();
        let read = |name| read(state_dir, credentials, name).unwrap().reveal().to_owned();
        assert_eq!(read("inbound"), "of systemd");
        assert_eq!(read("hook"), "hook of the file");
        assert_eq!(read("other"), "other");
        let expected = [
            ("hook".to_owned(), Source::File),
            ("inbound".to_owned(), Source::Credential),
            ("other".to_owned(), Source::Credential),
        ];
        assert_eq!(names(state_dir, credentials), expected);
    }

    #[test]
    fn what_is_longer_than_a_secret_is_not_read() {
        let scratch = tempfile::tempdir().unwrap();
        let long = "x".repeat(usize::try_from(SECRET_BYTES_MAX).unwrap() + 1);
        std::fs::write(scratch.path().join("long"), long).unwrap();
        let error = read(scratch.path(), Some(scratch.path()), "long").unwrap_err();
        assert!(matches!(error, SecretError::Io { .. }), "{error:?}");
    }
}
