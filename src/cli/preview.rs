//! What would become of the files that lie in drop folders: by the decisions that the service
//! takes, and without touching anything.
//!
//! One look cannot tell everything: where change times can't be trusted (a network volume) they are
//! believed here all the same, and a rename into place is not seen as one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::failure::{Failure, Kind as FailureKind};
use super::load;
use super::records::Records;
use crate::config::Config;
use crate::journey::detect::{self, Reason, Selector, Sorted};
use crate::journey::grounds::{self, Role};
use crate::journey::ready::{self, Evidence, Readiness};
use crate::journey::validate::{Checked, Checker, Findings};
use crate::model::durability::Durability;
use crate::model::file::{Identity, Kind, Place, Sighting};
use crate::model::outcome::{Code, Fault};
use crate::model::route::Route;
use crate::model::status::Waiting;
use crate::model::step::{ALL_PAUSED, Envelope, State};
use crate::model::time::{Now, Wall};
use crate::world::clock::{Clock, SystemClock};
use crate::world::folder::{Disk, FolderError, RealDisk};
use crate::world::ledger::Query;

/// What would become of a file.
#[derive(Debug)]
pub(super) enum Fate {
    /// It would be sent; what of it, if it was read.
    Goes(Option<Envelope>),
    /// It would go to `failed/`.
    Fails(Fault),
    /// It stays where it is, and is looked at again after this long, if time alone helps.
    Stays(Reason, Option<Duration>),
}

/// How closely a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// From outside: name, kind, times.
    Outside,
    /// Read and checked by its route's rules, and compared with the ledger.
    Through,
}

/// One drop folder with the routes that share it, or a parent in which folders become routes.
pub(super) struct Inbox {
    /// Which folder.
    pub(super) folder: Arc<Path>,
    /// The routes; empty for a parent.
    pub(super) routes: Vec<Ruled>,
    is_parent: bool,
    own_names: BTreeSet<OsString>,
}

/// A route with its rules compiled and what is on record about it.
pub(super) struct Ruled {
    /// The route.
    pub(super) route: Arc<Route>,
    /// Since when a person has paused it.
    pub(super) paused_at: Option<Wall>,
    /// Why, where no person has paused it.
    pub(super) pause_code: Option<Code>,
    selector: Selector,
    checker: Arc<Checker>,
    /// None once a person has let the old files go.
    first_sweep_at: Option<Wall>,
}

/// Who looks, and when.
pub(super) struct Looker<'a, R> {
    disk: RealDisk,
    ledger: &'a R,
    depth: Depth,
    now: Now,
}

impl<'a, R: Records> Looker<'a, R> {
    /// One look at `depth`, now.
    pub(super) fn new(ledger: &'a R, depth: Depth) -> Self {
        let now = SystemClock::new().now();
        Self { disk: RealDisk::new(Arc::default(), Durability::PowerLoss), ledger, depth, now }
    }

    /// What lies in a drop folder, by name. An unreadable folder is an error, never an empty one.
    pub(super) async fn list(&self, inbox: &Inbox) -> Result<Vec<Sighting>, FolderError> {
        let role = if inbox.is_parent { Role::Root } else { Role::Inbox };
        if let Some(seen) = self.disk.inspect(Arc::clone(&inbox.folder)).await? {
            grounds::is_fit(role, seen.kind).map_err(|why| FolderError::Unfit {
                path: inbox.folder.to_path_buf(),
                why: why.to_string(),
            })?;
        }
        let (chunks, mut receiver) = mpsc::channel(1);
        let gathering = async {
            let mut all: Vec<Sighting> = Vec::new();
            while let Some(chunk) = receiver.recv().await {
                all.extend(chunk);
            }
            all
        };
        let (swept, mut all) =
            tokio::join!(self.disk.sweep(Arc::clone(&inbox.folder), chunks), gathering);
        swept?;
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// What would become of one of them, and of which route it is. None: it is patchdrop's own, a
    /// folder in a parent, or gone meanwhile.
    pub(super) async fn fate(
        &self,
        inbox: &Inbox,
        sighting: &Sighting,
    ) -> Result<Option<(usize, Fate)>, Failure> {
        let left = |reason| Ok(Some((0, Fate::Stays(reason, None))));
        if inbox.is_parent && sighting.kind == Kind::Folder {
            return Ok(None);
        }
        let selectors: Vec<&Selector> = inbox.routes.iter().map(|ruled| &ruled.selector).collect();
        let is_ours = |name: &OsString| inbox.own_names.contains(name);
        let index = match detect::sort(sighting, &selectors, is_ours) {
            Sorted::Ours => return Ok(None),
            Sorted::Left(Reason::Ignored) if inbox.routes.is_empty() => {
                return left(Reason::NoRoute);
            }
            Sorted::Left(reason) => return left(reason),
            Sorted::Candidate(index) => index,
        };
        let fate = match self.outside(inbox, &inbox.routes[index], sighting).await? {
            Ok(evidence) if self.depth == Depth::Through => {
                self.through(inbox, &inbox.routes[index], sighting, &evidence).await
            }
            Ok(_) => Some(Fate::Goes(None)),
            Err(stays) => Some(stays),
        };
        Ok(fate.map(|fate| (index, fate)))
    }

    /// What would become of the file at a place; none if nothing is there.
    pub(super) async fn fate_of(
        &self,
        inbox: &Inbox,
        place: Place,
    ) -> Result<Option<(usize, Fate)>, Failure> {
        match self.disk.look(place).await.map_err(Failure::machine)? {
            Some(sighting) => self.fate(inbox, &sighting).await,
            None => Ok(None),
        }
    }

    /// Whether a candidate is ready, as far as can be seen without opening it.
    async fn outside(
        &self,
        inbox: &Inbox,
        ruled: &Ruled,
        sighting: &Sighting,
    ) -> Result<Result<Evidence, Fate>, Failure> {
        let conditions = &ruled.route.ready;
        let stays = |reason, again| Ok(Err(Fate::Stays(reason, again)));
        let first_sweep_at = ruled.first_sweep_at;
        if first_sweep_at
            .is_some_and(|at| detect::is_older_than_first_sweep(sighting, at, conditions))
        {
            return stays(Reason::OlderThanFirstSweep, None);
        }
        let mut evidence = Evidence { trusts_change_time: true, ..Evidence::default() };
        if let Some(marker) = ruled.selector.marker_of(&sighting.name) {
            let seen = self.disk.look(Place::new(&inbox.folder, marker)).await;
            let now = self.now.wall;
            let counts =
                matches!(&seen, Ok(Some(seen)) if ready::marker_counts(seen, sighting, now));
            evidence.marker = Some(counts);
        }
        if let Readiness::Wait(reason, wait) =
            ready::assess(sighting, conditions, &evidence, self.now)
        {
            return stays(reason, Some(wait));
        }
        if self.depth == Depth::Through && self.has_namesake(&ruled.route, &sighting.name)? {
            return stays(Reason::SameName, None);
        }
        Ok(Ok(evidence))
    }

    /// Whether an earlier file of this name is on its way.
    fn has_namesake(&self, route: &Route, name: &OsStr) -> Result<bool, Failure> {
        let query = Query {
            route: Some(route.name.clone()),
            states: vec![State::Sending, State::Deferred],
            name: Some(name.to_owned()),
            limit: 1,
            ..Query::default()
        };
        Ok(!self.ledger.list(&query)?.is_empty())
    }

    /// Reads a ready file as the service would before its claim. None: it is gone.
    async fn through(
        &self,
        inbox: &Inbox,
        ruled: &Ruled,
        sighting: &Sighting,
        evidence: &Evidence,
    ) -> Option<Fate> {
        let conditions = &ruled.route.ready;
        let (name, checker) = (ruled.route.name.clone(), Arc::clone(&ruled.checker));
        let read = move |input: &mut dyn Read, identity: &Identity| -> Findings {
            checker.validate(&name, input, identity.size, 0)
        };
        let place = Place::new(&inbox.folder, sighting.name.clone());
        let examined = match self.disk.examine(place, read).await {
            Ok(examined) => examined,
            Err(FolderError::Gone { .. }) => return None,
            Err(FolderError::InUse { .. }) => return Some(Fate::Stays(Reason::InUse, None)),
            Err(FolderError::NotAFile { .. }) => return Some(Fate::Stays(Reason::Special, None)),
            Err(_) => return Some(Fate::Stays(Reason::Unreadable, None)),
        };
        Some(match examined.findings.result {
            Checked::Sound { envelope, .. } => Fate::Goes(Some(envelope)),
            Checked::Truncated(_)
                if ready::may_be_unfinished(
                    sighting.changed_at,
                    conditions,
                    evidence,
                    self.now,
                ) =>
            {
                let quiet = ready::unchanged_for(sighting.changed_at, evidence, self.now);
                let wait = conditions.truncated_after.saturating_sub(quiet);
                Fate::Stays(Reason::Truncated, Some(wait))
            }
            Checked::Truncated(fault) | Checked::Faulty(fault) => Fate::Fails(fault),
            Checked::Unread(_) => Fate::Stays(Reason::Unreadable, None),
        })
    }

    /// What lies in a drop folder, counted by route and reason, for `status`; or why it cannot be
    /// listed.
    pub(super) async fn survey(
        &self,
        inbox: &Inbox,
    ) -> Result<Result<Survey, FolderError>, Failure> {
        let sightings = match self.list(inbox).await {
            Ok(sightings) => sightings,
            Err(error) => return Ok(Err(error)),
        };
        let mut survey = Survey::new();
        for sighting in sightings {
            let (index, reason) = match self.fate(inbox, &sighting).await? {
                None => continue,
                Some((index, Fate::Stays(reason, _))) => (index, reason),
                Some((index, Fate::Goes(_) | Fate::Fails(_))) => {
                    let ruled = inbox.routes.get(index);
                    let is_paused = ruled.is_some_and(|ruled| ruled.paused_at.is_some());
                    (index, if is_paused { Reason::Paused } else { Reason::Ready })
                }
            };
            let waiting = survey.entry((index, reason)).or_default();
            waiting.files += 1;
            if waiting.oldest_at.is_none_or(|oldest| sighting.changed_at < oldest) {
                waiting.oldest_at = Some(sighting.changed_at);
                waiting.example = sighting.shown();
            }
        }
        Ok(Ok(survey))
    }
}

/// How many files wait, by the place of their route in [`Inbox::routes`] and by reason.
pub(super) type Survey = BTreeMap<(usize, Reason), Waiting>;

/// Every folder that the service would watch now: those of routes, by the route's name, then the
/// parents.
pub(super) fn inboxes(config: &Config, ledger: &impl Records) -> Result<Vec<Inbox>, Failure> {
    let records = ledger.routes()?;
    let all_paused_at = ledger.all_paused_at()?;
    let now = SystemClock::new().now().wall;
    let mut inboxes: Vec<Inbox> = Vec::new();
    for route in load::routes(config) {
        let record = records.iter().find(|record| record.name == route.name);
        // Without a record its first sweep is still to come.
        let first_sweep_at = record.and_then(|record| record.first_sweep_at).unwrap_or(now);
        let ruled = Ruled {
            selector: selector(&route)?,
            checker: Arc::new(checker(&route)?),
            // A route that is not on record is paused with all others.
            paused_at: record.map_or(all_paused_at, |record| record.paused_at),
            pause_code: match record {
                Some(record) => record.pause_code.clone(),
                None => all_paused_at.map(|_| Code::of(ALL_PAUSED)),
            },
            first_sweep_at: (!record.is_some_and(|record| record.released))
                .then_some(first_sweep_at),
            route: Arc::clone(&route),
        };
        let folder = Arc::clone(&route.folders.inbox);
        let inbox = inbox_of(&mut inboxes, folder);
        let own = route.folders.own_names_in(&inbox.folder);
        inbox.own_names.extend(own.map(OsStr::to_owned));
        inbox.routes.push(ruled);
    }
    let parents = config.discoveries.iter().map(|rule| &rule.parent);
    for parent in config.root.iter().chain(parents) {
        inbox_of(&mut inboxes, Arc::clone(parent)).is_parent = true;
    }
    Ok(inboxes)
}

fn inbox_of(inboxes: &mut Vec<Inbox>, folder: Arc<Path>) -> &mut Inbox {
    let known = inboxes.iter().position(|inbox| inbox.folder == folder);
    let index = known.unwrap_or(inboxes.len());
    if known.is_none() {
        let own_names = BTreeSet::from([OsString::from(".patchdrop")]);
        inboxes.push(Inbox { folder, routes: Vec::new(), is_parent: false, own_names });
    }
    &mut inboxes[index]
}

/// A route's name rules.
pub(super) fn selector(route: &Route) -> Result<Selector, Failure> {
    Selector::new(&route.select, &route.ready)
        .map_err(|error| Failure::because(FailureKind::Config, "a glob cannot be read", error))
}

/// A route's check.
pub(super) fn checker(route: &Route) -> Result<Checker, Failure> {
    Checker::new(&route.check).map_err(|error| Failure::new(FailureKind::Config, error))
}

/// Whether a route takes files of this name.
pub(super) fn takes(route: &Route, name: &OsStr) -> Result<bool, Failure> {
    let sighting = Sighting {
        name: name.to_owned(),
        kind: Kind::File,
        identity: Identity { volume: 0, number: 0, size: 0, mtime_ns: 0 },
        changed_at: Wall(0),
    };
    let sorted = detect::sort(&sighting, &[&selector(route)?], |_| false);
    Ok(matches!(sorted, Sorted::Candidate(_)))
}
