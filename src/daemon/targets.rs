//! Names that files under way are going to take. No two of them choose the same one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::file::Place;

/// The names taken by files that are being settled. The set is shared by their tasks and never
/// held over a wait; it decides nothing but who comes first.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    /// By name, which tells most apart, each with its folders: paths compare part by part, slowly.
    taken: Arc<Mutex<BTreeMap<OsString, Vec<Arc<Path>>>>>,
}

/// A name that is kept until this is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    targets: Targets,
    /// The name.
    pub(super) place: Place,
}

impl Targets {
    /// Keeps a name, unless somebody else does.
    pub(super) fn reserve(&self, place: Place) -> Option<Reservation> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let folders = taken.entry(place.name.clone()).or_default();
        let free = !folders.contains(&place.folder);
        if free {
            folders.push(Arc::clone(&place.folder));
        }
        drop(taken);
        free.then(|| Reservation { targets: self.clone(), place })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut taken = self.targets.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folders) = taken.get_mut(&self.place.name) {
            folders.retain(|folder| *folder != self.place.folder);
            if folders.is_empty() {
                taken.remove(&self.place.name);
            }
        }
    }
}
