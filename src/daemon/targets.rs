//! Names that files under way are going to take. No two of them choose the same one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::file::Place;

/// The names taken by files that are being settled. The set is shared by their tasks and never
/// held over a wait; it decides nothing but who comes first.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    taken: Arc<Mutex<BTreeSet<Place>>>,
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
        let free = taken.insert(place.clone());
        drop(taken);
        free.then(|| Reservation { targets: self.clone(), place })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut taken = self.targets.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.place);
    }
}
