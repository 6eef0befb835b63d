//! Files that Windows encrypts for this machine (DPAPI, machine scope). Every account of the
//! machine could decrypt one, so the folder is closed to others as `state_dir` is.

mod dpapi;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{FOLDER, SecretError, bytes_of, wall};
use crate::model::secret::{Secret, is_secret_name};
use crate::model::time::Wall;
use crate::world::instance;

/// What a secret's file is called. (`NAME` alone could be a program's, or a device's.)
const ENDING: &str = ".secret";

/// A secret as its file has it.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// The machine that can decrypt it, for people.
    host: String,
    /// What Windows made of the value, in base64.
    sealed: String,
}

pub(super) fn read(state_dir: &Path, name: &str) -> Result<Secret, SecretError> {
    let path = path_of(state_dir, name);
    let seen = match fs::symlink_metadata(&path) {
        Ok(seen) => seen,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SecretError::Absent {
                name: name.to_owned(),
                folder: state_dir.join(FOLDER),
            });
        }
        Err(source) => return Err(SecretError::of("open", &path, source)),
    };
    if !seen.is_file() {
        return Err(SecretError::NotAFile { path });
    }
    let bytes = File::open(&path)
        .and_then(bytes_of)
        .map_err(|source| SecretError::of("read", &path, source))?;
    let damaged = |why| SecretError::Damaged { path: path.clone(), why };
    // The parser's own words could quote what is in it.
    let kept: Sealed =
        serde_json::from_slice(&bytes).map_err(|_| damaged("it is not what was written"))?;
    let sealed = STANDARD.decode(&kept.sealed).map_err(|_| damaged("it is not base64"))?;
    let plain = dpapi::unseal(&sealed).map_err(|source| SecretError::Elsewhere {
        name: name.to_owned(),
        host: kept.host,
        source,
    })?;
    String::from_utf8(plain).map(Secret::new).map_err(|_| damaged("it is not UTF-8"))
}

pub(super) fn set(state_dir: &Path, name: &str, value: &Secret) -> Result<bool, SecretError> {
    let folder = state_dir.join(FOLDER);
    let path = path_of(state_dir, name);
    let fail = |source: io::Error| SecretError::of("write", &path, source);
    if !state_dir.is_dir() {
        return Err(SecretError::NoStateDir { path: state_dir.to_owned() });
    }
    // It takes over the list of rights of `state_dir`, which only the service's account,
    // administrators and the system can enter.
    DirBuilder::new()
        .recursive(true)
        .create(&folder)
        .map_err(|source| SecretError::of("write", &folder, source))?;
    let sealed = dpapi::seal(value.reveal().as_bytes())
        .map_err(|source| SecretError::of("encrypt", &path, source))?;
    let kept = Sealed { host: instance::host(), sealed: STANDARD.encode(sealed) };
    let text = serde_json::to_vec(&kept).map_err(|error| fail(io::Error::other(error)))?;
    let there_was = fs::symlink_metadata(&path).is_ok();
    let temporary = folder.join(format!(".{name}.new"));
    unlink(&temporary).map_err(fail)?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(fail)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(fail)?;
    drop(file);
    fs::rename(&temporary, &path).map_err(fail)?;
    Ok(there_was)
}

pub(super) fn remove(state_dir: &Path, name: &str) -> Result<bool, SecretError> {
    let path = path_of(state_dir, name);
    unlink(&path).map_err(|source| SecretError::of("remove", &path, source))
}

pub(super) fn list(state_dir: &Path) -> Result<Vec<(String, Option<Wall>)>, SecretError> {
    let folder = state_dir.join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(SecretError::of("list", &folder, source)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| SecretError::of("list", &folder, source))?;
        let Ok(file_name) = entry.file_name().into_string() else { continue };
        let Some(name) = file_name.strip_suffix(ENDING).filter(|name| is_secret_name(name)) else {
            continue;
        };
        let modified = entry.metadata().and_then(|seen| seen.modified());
        found.push((name.to_owned(), modified.ok().and_then(wall)));
    }
    Ok(found)
}

fn path_of(state_dir: &Path, name: &str) -> PathBuf {
    state_dir.join(FOLDER).join(format!("{name}{ENDING}"))
}

/// Whether there was something.
fn unlink(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
