//! The token cache: one file a credential in `state_dir/tokens`, for its owner alone (promise P11).
//!
//! A token is believed only under the settings that it was asked for with. The way that worked is
//! remembered for longer: as long as the endpoint is the same, whatever became of the token.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::CLOCK_SLACK;
use super::answer::is_token;
use super::ways::{Way, hex};
use crate::model::route::{Credential, CredentialKind};
use crate::model::time::Wall;
use crate::world::own_files;
use crate::world::rights;

/// A token is some kilobytes at most.
const BYTES_MAX: u64 = 1 << 20;

/// The token cache could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove {}", .path.display())]
pub struct TokenCacheError {
    /// Which file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// A token as the cache file has it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) fingerprint: String,
    /// The fingerprint of the endpoint alone.
    #[serde(default)]
    pub(super) endpoint: String,
    pub(super) fetched_at: Wall,
    pub(super) expires_at: Wall,
    pub(super) generation: u64,
    pub(super) way: Way,
    /// The answer named no lifetime that could be believed.
    #[serde(default)]
    pub(super) is_assumed: bool,
    pub(super) token: String,
}

/// What of a cache file can be used.
#[derive(Default)]
pub(super) struct Remembered {
    /// The token, perhaps past its end.
    pub(super) kept: Option<Kept>,
    /// The way that worked last.
    pub(super) way: Option<Way>,
}

/// Reads a credential's cache file; what cannot be used is passed over and said.
pub(super) fn remember(path: &Path, credential: &Credential, now: Wall) -> Remembered {
    let name = &credential.name;
    let kept = match read(path) {
        Ok(Some(kept)) => kept,
        Ok(None) => return Remembered::default(),
        Err(error) => {
            tracing::warn!(credential = %name, %error, "passed over a damaged token cache");
            return Remembered::default();
        }
    };
    let way = (kept.endpoint == endpoint_mark(credential)).then_some(kept.way);
    if kept.fingerprint != fingerprint(credential) {
        tracing::info!(credential = %name, "passed over a token of other settings");
    } else if kept.fetched_at > now.plus(CLOCK_SLACK) {
        tracing::warn!(credential = %name, "passed over a token from the future");
    } else if !is_token(&kept.token) {
        tracing::warn!(credential = %name, "passed over a damaged token cache");
    } else {
        return Remembered { way, kept: Some(kept) };
    }
    Remembered { way, kept: None }
}

/// Everything that makes one exchange another.
pub(super) fn fingerprint(credential: &Credential) -> String {
    let mut mark = Mark::default();
    match &credential.kind {
        CredentialKind::OAuth2(oauth2) => {
            mark.add(&oauth2.token_url);
            mark.add(&oauth2.client_id);
            mark.add(oauth2.client_secret.reveal());
            mark.add(oauth2.scope.as_deref().unwrap_or_default());
            mark.add(oauth2.token_field.as_deref().unwrap_or_default());
            mark.pairs(&oauth2.extra);
        }
        CredentialKind::Login(login) => {
            mark.add("login");
            mark.add(&login.login_url);
            for part in [&login.user_field, &login.password_field, &login.email] {
                mark.add(part);
            }
            mark.add(login.password.reveal());
            mark.add(login.token_field.as_deref().unwrap_or_default());
            mark.pairs(&login.extra);
        }
        // Nothing is asked for, so nothing is kept.
        CredentialKind::ApiKey(_) | CredentialKind::Bearer(_) | CredentialKind::Basic { .. } => {}
    }
    mark.finish()
}

/// The endpoint alone: a way that works there works with a new secret too.
pub(super) fn endpoint_mark(credential: &Credential) -> String {
    let mut mark = Mark::default();
    mark.add(credential.kind.word());
    mark.add(credential.kind.asked_at().unwrap_or_default());
    mark.finish()
}

/// Each part with its length before it, so that no two settings give the same bytes.
#[derive(Default)]
struct Mark(Sha256);

impl Mark {
    fn add(&mut self, part: &str) {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part.as_bytes());
    }

    fn pairs(&mut self, pairs: &std::collections::BTreeMap<String, String>) {
        for (name, value) in pairs {
            self.add(name);
            self.add(value);
        }
    }

    fn finish(self) -> String {
        self.0.finalize().into_iter().flat_map(hex).collect()
    }
}

/// A file name for any credential name.
pub(super) fn file_name(credential: &str) -> String {
    let mut name = String::new();
    for byte in credential.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            name.push(char::from(byte));
        } else {
            name.push('%');
            name.extend(hex(byte));
        }
    }
    name + ".json"
}

fn read(path: &Path) -> io::Result<Option<Kept>> {
    let text = match own_files::read(path, BYTES_MAX) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // The parser's own words could quote the token.
    let kept = serde_json::from_slice(&text)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not a token cache"))?;
    Ok(Some(kept))
}

/// Removes a cache file; one that is not there is no error.
pub(super) fn remove(path: &Path) -> Result<(), TokenCacheError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(TokenCacheError { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Temporary name, fsync, rename over the older one, fsync of the folder. Owner only.
pub(super) fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let state_dir = folder.parent().ok_or(io::ErrorKind::InvalidInput)?;
    rights::make_folder(state_dir)?;
    own_files::make_folder(folder, false)?;
    let temporary = path.with_extension("json.new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file =
        own_files::create(&temporary, own_files::PRIVATE, std::fs::OpenOptions::new().write(true))?;
    file.write_all(&serde_json::to_vec(kept)?)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temporary, path)?;
    sync_folder(folder)
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

/// Folders can't be synced here.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}
