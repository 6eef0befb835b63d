//! Files whose route has other folders now than their record says: somebody has moved the root, or
//! changed `folder` or `sent`. They lie where the route's files lie, under the same name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::identity_of;
use crate::model::file::Place;
use crate::model::route::Route;
use crate::model::step::{Entry, State};

/// The entry with the place where its file lies now, where that is not the one on record: nothing
/// is there, and the same file is in the route's folder of today.
pub(super) fn found_elsewhere(entry: &Entry, route: Option<&Route>) -> Option<Entry> {
    let (target, route) = (entry.target.as_ref()?, route?);
    let folders = &route.folders;
    let pattern = match entry.state {
        State::Sent => &folders.sent,
        State::Failed => &folders.failed,
        State::Held => &folders.held,
        State::Sending
        | State::Deferred
        | State::Confirming
        | State::Missing
        | State::Cancelled => return None,
    };
    let folder = folder_of_today(pattern, &target.folder)?;
    if *folder == *target.folder || !entry.settled || target.path().symlink_metadata().is_ok() {
        return None;
    }
    let place = Place::new(&Arc::from(folder), target.name.clone());
    let found = identity_of(&place.path()).ok().flatten()?;
    let is_it = found.size == entry.identity.size && found.mtime_ns == entry.identity.mtime_ns;
    is_it.then(|| Entry { target: Some(place), ..entry.clone() })
}

/// The folder for which a pattern stands: what follows its first `{date}` is as on record.
fn folder_of_today(pattern: &Path, recorded: &Path) -> Option<PathBuf> {
    let has_date = |part: &std::path::Component<'_>| {
        part.as_os_str().to_str().is_some_and(|text| text.contains("{date}"))
    };
    let parts: Vec<_> = pattern.components().collect();
    let fixed = parts.iter().position(has_date).unwrap_or(parts.len());
    let dated = parts.len() - fixed;
    let recorded: Vec<_> = recorded.components().collect();
    let tail = recorded.get(recorded.len().checked_sub(dated)?..)?;
    Some(parts.iter().take(fixed).chain(tail).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dated_folder_keeps_its_date() {
        let check = |pattern: &str, recorded: &str, expected: &str| {
            let folder = folder_of_today(Path::new(pattern), Path::new(recorded));
            assert_eq!(folder, Some(PathBuf::from(expected)));
        };
        check("/new/orders/sent", "/old/orders/sent", "/new/orders/sent");
        check("/n/sent/{date}", "/old/orders/sent/2026-11-21", "/n/sent/2026-11-21");
        check("/n/{date}/x", "/old/2026-11-21/x", "/n/2026-11-21/x");
    }
}
