//! What of a file's fate depends on other files: its place in an order, and files that are equal.

use std::collections::{BTreeMap, btree_map};

use super::super::failure::Failure;
use super::super::preview::{Fate, Ruled};
use super::super::records::Records;
use crate::journey::order::NaturalName;
use crate::journey::twins::{self, Twins};
use crate::model::file::{Digest, FileId, Sighting};
use crate::model::route::{Duplicates, OrderBy};
use crate::model::step::{Entry, State};
use crate::world::ledger::Query;

/// What happens to a file that has a twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Twin {
    /// It is not sent, since this one was accepted or goes first.
    Not(Duplicates, String),
    /// It waits until it is known what becomes of this one.
    Waits(String),
}

/// Files that would be sent, by what twins have in common; each with its name.
#[derive(Default)]
pub(super) struct Equal(BTreeMap<Digest, String>);

impl Equal {
    /// Whether a file that would be sent has a twin, on record or among those before it.
    pub(super) fn twin(
        &mut self,
        ledger: &impl Records,
        ruled: &Ruled,
        sighting: &Sighting,
        fate: &Fate,
    ) -> Result<Option<Twin>, Failure> {
        let route = &ruled.route;
        let (Fate::Goes(Some(envelope)), Duplicates::Skip | Duplicates::Hold) =
            (fate, route.duplicates)
        else {
            return Ok(None);
        };
        let digest = twins::twin_of(&route.deliver, &envelope.digest);
        let not = |twin: String| Some(Twin::Not(route.duplicates, twin));
        // It has no id of its own yet.
        let judged = twins::judge(FileId(u64::MAX), &ledger.twins_of(&digest)?, |_: &Entry| None);
        Ok(match judged {
            Twins::Accepted(id) => not(format!("{id}, which was accepted")),
            Twins::UnderWay(id) | Twins::InDoubt(id) => Some(Twin::Waits(id.to_string())),
            Twins::Free => match self.0.entry(digest) {
                btree_map::Entry::Occupied(first) => not(first.get().clone()),
                btree_map::Entry::Vacant(place) => {
                    place.insert(sighting.shown());
                    None
                }
            },
        })
    }
}

/// The first in line of each route that keeps an order.
#[derive(Default)]
pub(super) struct Heads(BTreeMap<usize, Head>);

/// One that is first so far.
struct Head {
    place: (Option<NaturalName>, i64, std::ffi::OsString),
    name: String,
    is_ready: bool,
}

impl Heads {
    /// One more file in the drop folder; `index` says of which route.
    pub(super) fn add(&mut self, index: usize, ruled: &Ruled, sighting: &Sighting, fate: &Fate) {
        use crate::journey::detect::Reason;
        let Some(order) = ruled.route.order else { return };
        let is_in_line = match fate {
            Fate::Goes(_) | Fate::Fails(_) => true,
            Fate::Stays(reason, _) => matches!(
                reason,
                Reason::NotReady
                    | Reason::Truncated
                    | Reason::InUse
                    | Reason::NoMarker
                    | Reason::SameName
                    | Reason::Unreadable
            ),
        };
        let mtime = sighting.identity.mtime_ns;
        let place = match order.by {
            OrderBy::Name => (Some(NaturalName::new(&sighting.name)), 0, sighting.name.clone()),
            OrderBy::Arrival => (None, mtime, sighting.name.clone()),
        };
        if !is_in_line || self.0.get(&index).is_some_and(|head| head.place < place) {
            return;
        }
        let is_ready = matches!(fate, Fate::Goes(_) | Fate::Fails(_));
        self.0.insert(index, Head { place, name: sighting.shown(), is_ready });
    }

    /// Who goes first, in a sentence for each route that keeps an order.
    pub(super) fn tell(
        &self,
        ledger: &impl Records,
        routes: &[Ruled],
    ) -> Result<Vec<String>, Failure> {
        let mut told = Vec::new();
        for (index, head) in &self.0 {
            let Some(ruled) = routes.get(*index) else { continue };
            let route = &ruled.route.name;
            let name = &head.name;
            let states = vec![State::Sending, State::Deferred, State::Confirming, State::Held];
            let query = Query { route: Some(route.clone()), states, ..Query::default() };
            let ahead = ledger.list(&Query { only_last: true, limit: 1, ..query })?.pop();
            told.push(match ahead {
                Some(entry) => format!(
                    "order of route {route}: {name} is the first here, and waits for {}, which is {}",
                    entry.id,
                    entry.state.name()
                ),
                None if head.is_ready => {
                    format!("order of route {route}: {name} goes first, the others after it one by one")
                }
                None => format!(
                    "order of route {route}: {name} is the first and stays: all others wait for it"
                ),
            });
        }
        Ok(told)
    }
}
