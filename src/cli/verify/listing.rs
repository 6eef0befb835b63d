//! What lies in a route's own folders and is on no record, or is left over.
#![expect(clippy::disallowed_methods, reason = "it lists folders itself, read-only")]

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::failure::Failure;
use super::super::records::Records;
use super::super::resolve::claimed_id;
use super::shown::{Disagreement, Fault, Report};
use super::{Known, changed_at, digest_of, identity_of};
use crate::journey::{detect, settle};
use crate::model::file::{Identity, shown};
use crate::model::route::Route;
use crate::model::step::State;
use crate::model::time::Wall;

/// What is in `sending/` beside the files that are on their way.
pub(super) fn sending(
    ledger: &impl Records,
    route: &Route,
    known: &Known,
    report: &mut Report,
) -> Result<(), Failure> {
    let Some(names) = list(route, &route.folders.sending, report) else { return Ok(()) };
    for found in names.flatten() {
        let path = found.path();
        if half_written(&found.file_name()) {
            report.half_written += 1;
            continue;
        }
        let Some(id) = claimed_id(&path) else {
            report.foreign_in_sending += 1;
            continue;
        };
        if known.on_their_way.contains(&id.0) {
            continue;
        }
        let fault = |kind| Fault {
            kind,
            id: Some(id.to_string()),
            route: Some(route.name.to_string()),
            name: shown(&found.file_name()),
            path: shown(path.as_os_str()),
        };
        match ledger.entry(id)? {
            // The file itself has been told already; this came with it: its done-marker.
            Some(entry) if entry.settled => {
                let is_itself = found.file_name() == settle::claimed_name(id, &entry.name);
                if !is_itself && path.symlink_metadata().is_ok() {
                    report.fault(|| fault(Disagreement::LeftBehind));
                }
            }
            Some(_) => {}
            None if ledger.has_reserved(id)? => {
                report.fault(|| fault(Disagreement::Unrecorded));
            }
            None => report.foreign_in_sending += 1,
        }
    }
    Ok(())
}

fn half_written(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".patchdrop-")
}

/// What lies in `sent/`, `failed/` or `held/` and is on no record. What came there after the
/// verification began is on a record that it has not read.
pub(super) fn target(
    route: &Route,
    folder: &Path,
    state: State,
    known: &Known,
    began: Wall,
    report: &mut Report,
) {
    let Some(names) = list(route, folder, report) else { return };
    let mut unrecorded = 0_u64;
    for found in names.flatten() {
        let (name, path) = (found.file_name(), found.path());
        let metadata = found.metadata().ok().filter(fs::Metadata::is_file);
        if metadata.is_none_or(|it| began <= changed_at(&it)) {
            continue;
        }
        if half_written(&name) {
            report.half_written += 1;
        } else if detect::is_sidecar(&name) {
            report.sidecars_alone += u64::from(is_alone(&path, known));
        } else if !known.targets.contains(&digest_of(&path)) {
            if is_among(&known.ended, route, &path) {
                report.fault(|| Fault {
                    kind: Disagreement::Doubled,
                    id: None,
                    route: Some(route.name.to_string()),
                    name: shown(&name),
                    path: shown(path.as_os_str()),
                });
            } else if is_among(&known.missing, route, &path) {
                report.found_again += 1;
            } else {
                unrecorded += 1;
            }
        }
    }
    let counter = match state {
        State::Sent => &mut report.unrecorded_in_sent,
        State::Failed => &mut report.unrecorded_in_failed,
        State::Sending
        | State::Deferred
        | State::Confirming
        | State::Held
        | State::Missing
        | State::Cancelled => &mut report.unrecorded_in_held,
    };
    *counter += unrecorded;
}

/// Whether a sidecar stands beside no file, and none is on its way there. Of one whose name had to
/// be shortened only the file's beginning is known: it is not looked for.
fn is_alone(sidecar: &Path, known: &Known) -> bool {
    // Both endings are of two parts. A name need not be UTF-8.
    let file = sidecar.with_extension("").with_extension("");
    let is_shortened = file.file_name().is_some_and(|name| {
        let name = name.to_string_lossy();
        let id = name.rsplit_once('~').map(|(_, id)| id);
        id.is_some_and(|id| crate::model::file::FileId::parse(id).is_some())
    });
    !is_shortened && file.symlink_metadata().is_err() && !known.targets.contains(&digest_of(&file))
}

/// Whether an unrecorded file is one of these: of its name (or of that with a number, as a move
/// gives it where the name is taken), its size and its time.
fn is_among(files: &HashSet<u64>, route: &Route, path: &Path) -> bool {
    let Ok(Some(Identity { size, mtime_ns, .. })) = identity_of(path) else { return false };
    let name = path.file_name().unwrap_or_default();
    let of = |name: &OsStr| digest_of(&(&*route.name.0, name, size, mtime_ns));
    files.contains(&of(name)) || without_number(name).is_some_and(|name| files.contains(&of(&name)))
}

/// `order.json` of `order~2.json`.
fn without_number(name: &OsStr) -> Option<OsString> {
    let path = Path::new(name);
    let (stem, _) = path.file_stem()?.to_str()?.rsplit_once('~')?;
    let mut name = OsString::from(stem);
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    Some(name)
}

/// A folder's names; one that is not there has none.
fn list(route: &Route, folder: &Path, report: &mut Report) -> Option<fs::ReadDir> {
    match fs::read_dir(folder) {
        Ok(names) => Some(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            report.fault(|| Fault {
                kind: Disagreement::Unreadable,
                id: None,
                route: Some(route.name.to_string()),
                name: error.to_string(),
                path: folder.display().to_string(),
            });
            None
        }
    }
}

/// The folders that a pattern with `{date}` stands for now; the folder itself without.
pub(super) fn dated_folders(pattern: &Path) -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_str().and_then(|text| text.split_once("{date}"));
        let Some((before, after)) = text else {
            for folder in &mut folders {
                folder.push(part);
            }
            continue;
        };
        let fits = |name: &OsStr| {
            let inner = name.to_str().and_then(|name| name.strip_prefix(before));
            let inner = inner.and_then(|name| name.strip_suffix(after));
            inner.is_some_and(|date| date.parse::<jiff::civil::Date>().is_ok())
        };
        folders = folders
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(|names| names.flatten().map(|found| found.path()))
            .filter(|path| path.file_name().is_some_and(fits))
            .collect();
        folders.sort();
    }
    folders
}
