//! Where secrets come from, and which there are.
#![expect(clippy::disallowed_methods, reason = "config reads secrets from environment and files")]

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use reqwest::Url;

use super::address::UrlRules;
use super::page::{At, Sink};
use super::section::Written;
use super::{Environment, NoSecret, Store, folders};
use crate::model::secret::Secret;

/// A secret is a line, not a document.
const FILE_MAX: u64 = 64 * 1024;

/// Looks secrets up and remembers them for redaction.
pub(super) struct Vault<'a> {
    pub(super) sink: &'a Sink,
    pub(super) environment: &'a Environment,
    /// What relative paths are relative to.
    pub(super) base: &'a Path,
    /// Where `{ stored = "NAME" }` is looked up, and in which `state_dir`.
    pub(super) store: &'a Store,
    pub(super) state_dir: &'a Path,
    /// Where this is false, a secret that is not to be had is empty and no fault.
    pub(super) is_needed: bool,
    pub(super) found: RefCell<Vec<Secret>>,
    pub(super) files: RefCell<Vec<At<PathBuf>>>,
}

impl Vault<'_> {
    /// The value of a plain text or of a secret.
    pub(super) fn open(&self, written: &At<Written>) -> Option<Secret> {
        let secret = match &written.value {
            Written::Plain(text) => return Some(Secret::new(text.as_str())),
            Written::Env(name) => self.environment_variable(written, name),
            Written::File(path) => self.file(written, path),
            Written::Stored(name) => self.stored(written, name),
        };
        match secret {
            Ok(value) => {
                let secret = Secret::new(value);
                self.found.borrow_mut().push(secret.clone());
                Some(secret)
            }
            Err(_) if !self.is_needed => Some(Secret::new("")),
            Err((text, hint)) => {
                self.sink.fault(written.notice(text, hint));
                None
            }
        }
    }

    /// A URL that may be secret, or have secret parts. `None` where that is said, or where nothing
    /// secret is needed and it is not to be had.
    pub(super) fn open_url(&self, urls: UrlRules<'_>, written: &At<Written>) -> Option<Url> {
        let text = self.open(written)?;
        if text.reveal().is_empty() && !self.is_needed {
            return None;
        }
        let url = urls.url(&written.with(text.reveal().to_owned()))?;
        if !matches!(written.value, Written::Plain(_)) {
            self.note(url.as_str());
        }
        // Signatures stand in queries.
        if let Some(query) = url.query() {
            self.note(query);
            for (_, value) in url.query_pairs().filter(|(_, value)| value.len() >= 12) {
                self.note(&value);
            }
        }
        Some(url)
    }

    /// Notes something else that must not be shown.
    pub(super) fn note(&self, value: &str) {
        if !value.is_empty() {
            self.found.borrow_mut().push(Secret::new(value));
        }
    }

    /// An environment variable that need not be there.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        match self.environment {
            Environment::Given(variables) => variables.get(name).cloned(),
            Environment::Process => std::env::var(name).ok(),
        }
    }

    fn environment_variable(
        &self,
        written: &At<Written>,
        name: &str,
    ) -> Result<String, (String, String)> {
        let value = match self.environment {
            Environment::Given(variables) => variables.get(name).cloned(),
            Environment::Process => match std::env::var(name) {
                Ok(value) => Some(value),
                Err(std::env::VarError::NotPresent) => None,
                Err(std::env::VarError::NotUnicode(_)) => {
                    let text = format!("the environment variable {name} is not UTF-8");
                    return Err((text, "set it anew".to_owned()));
                }
            },
        };
        let hint = if cfg!(windows) {
            "patchdrop secret set NAME, and write { stored = \"NAME\" }: what is set for all of \
             Windows, everybody on it can read"
                .to_owned()
        } else {
            format!(
                "set {name} for the service, or use {{ file = \"PATH\" }}, or keep it by patchdrop \
                 secret set NAME and write {{ stored = \"NAME\" }}"
            )
        };
        let value = value
            .ok_or_else(|| (format!("the environment variable {name} is not set"), hint.clone()))?;
        self.complete(written, value, &format!("the environment variable {name}"), hint)
    }

    fn file(&self, written: &At<Written>, path: &str) -> Result<String, (String, String)> {
        let path = folders::absolute(self.base, Path::new(path));
        self.files.borrow_mut().push(written.with(path.clone()));
        let shown = format!("the secret's file {}", path.display());
        let hint = "the account that patchdrop runs as must be able to read it".to_owned();
        let bytes = read(&path, FILE_MAX)
            .map_err(|error| (format!("{shown} cannot be read: {error}"), hint))?;
        if is_open_to_all(&path) {
            self.sink.warn(written.notice(
                format!("{shown} is readable by every user of this machine"),
                "take the rights of others away: chmod o-rwx FILE",
            ));
        }
        let text = String::from_utf8(bytes).map_err(|_| {
            (format!("{shown} is not UTF-8"), "save it as UTF-8, the secret alone".to_owned())
        })?;
        let text = text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']).to_owned();
        self.complete(written, text, &shown, "write the secret into it".to_owned())
    }

    fn stored(&self, written: &At<Written>, name: &str) -> Result<String, (String, String)> {
        let again = || format!("set it again: patchdrop secret set {name}");
        let found = match self.store {
            Store::None => {
                Err((format!("secret {name} is not stored"), "there is no store here".to_owned()))
            }
            Store::Given(secrets) => secrets.get(name).cloned().ok_or_else(|| {
                (format!("secret {name} is not stored"), format!("patchdrop secret set {name}"))
            }),
            Store::Opened(look_up) => match look_up(self.state_dir, name) {
                Ok(secret) => Ok(secret.reveal().to_owned()),
                Err(NoSecret { text, hint }) => Err((text, hint)),
            },
        };
        self.complete(written, found?, &format!("secret {name}"), again())
    }

    fn complete(
        &self,
        written: &At<Written>,
        value: String,
        shown: &str,
        hint: String,
    ) -> Result<String, (String, String)> {
        if value.is_empty() {
            return Err((format!("{shown} is empty"), hint));
        }
        if value.chars().any(char::is_control) {
            let hint = "the secret alone, on one line".to_owned();
            return Err((format!("{shown} holds line breaks or control characters"), hint));
        }
        if value.trim() != value {
            self.sink.warn(written.notice(
                format!("{shown} begins or ends with a space, which is taken as part of it"),
                "remove the space unless it is meant",
            ));
        }
        Ok(value)
    }
}

/// Reads a whole file; one larger than `max` is an error, so that a device can be named by
/// mistake without harm.
pub(super) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("larger than {} KiB", max / 1024)));
    }
    Ok(bytes)
}

#[cfg(unix)]
fn is_open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_open_to_all(_path: &Path) -> bool {
    false
}
