//! Folders that are watched: what is seen in each, what of it waits and why (promise P12).
//!
//! An intake is one folder: a drop folder with the routes that share it, or a parent in which
//! folders become routes. It holds one chunk of sightings at most; the sweep behind it goes on
//! when that is used up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::carry::Equipped;
use crate::journey::detect::{self, Reason, Sorted};
use crate::journey::order::{InLine, Line};
use crate::journey::ready::{self, Evidence, Readiness, Remembered};
use crate::model::file::{FolderSeen, Kind, Sighting};
use crate::model::route::RouteName;
use crate::model::status::Waiting;
use crate::model::time::{Now, Tick, Wall};

/// Names that the system said were renamed into a folder, at most so many; the others wait
/// `quiet_for` like any file.
const MOVED_IN_MAX: usize = 1_024;

/// Versions of files remembered a folder; beyond it a file is simply looked at again.
const REMEMBERED_MAX: usize = 4_096;

/// Shortest span between two sweeps of a folder. The next one also waits as long as the last one
/// took, so that listing a huge folder never takes more than half of a core.
const SWEEP_GAP: Duration = Duration::from_millis(10);

/// A sweep that has waited so long for room lists on without claiming, so that `status` is right
/// and no folder stays open.
const FEED_FOR: Duration = Duration::from_secs(1);

/// One folder.
pub(super) struct Intake {
    /// Which.
    pub(super) folder: Arc<Path>,
    /// The routes that share it, each with the time of its first sweep (none once a person has let
    /// the old files go). Empty for a parent.
    pub(super) routes: Vec<(Arc<Equipped>, Option<Wall>)>,
    /// When it was last listed to its end.
    pub(super) swept_at: Option<Wall>,
    /// Why it cannot be listed.
    pub(super) fault: Option<String>,
    /// Which folder it was when it was last listed to its end.
    pub(super) stood: Option<FolderSeen>,
    /// Listed every `poll_every`, since no event tells.
    pub(super) is_polled: bool,
    /// Why it is not watched, though it should be.
    pub(super) watch_fault: Option<String>,
    /// A parent: its folders may become routes.
    pub(super) is_parent: bool,
    ours: BTreeSet<OsString>,
    is_dirty: bool,
    /// Each with the number of the sweep under way, or last begun, when it came.
    moved_in: BTreeMap<OsString, u64>,
    remembered: BTreeMap<OsString, Seen>,
    look_at: Tick,
    gap_end: Tick,
    sweep: Option<Sweep>,
    sweeps: u64,
    counts: Counts,
    /// Routes that keep an order, by their place among those of the folder.
    lines: BTreeMap<usize, Line>,
    warned: BTreeSet<Reason>,
    /// When the wall clock last jumped: change times from before say nothing about now.
    clock_jumped_at: Option<Tick>,
}

type Counts = BTreeMap<(usize, Reason), Waiting>;

struct Seen {
    remembered: Remembered,
    /// The number of the last sweep that saw it.
    sweep: u64,
}

/// A sweep under way.
struct Sweep {
    begun_at: Tick,
    /// When it last gave something.
    fed_at: Tick,
    pending: VecDeque<Sighting>,
    go_on: Option<oneshot::Sender<()>>,
    counts: Counts,
    folders: Vec<OsString>,
    look_at: Option<Tick>,
    only_counts: bool,
}

/// A candidate that is ready, as far as can be seen from outside.
pub(super) struct Candidate {
    /// Its route.
    pub(super) equipped: Arc<Equipped>,
    /// The route's place among those of the folder.
    pub(super) index: usize,
    /// What was seen.
    pub(super) sighting: Sighting,
    /// Why it is taken for complete.
    pub(super) evidence: Evidence,
}

/// What a sweep has found when it ends.
pub(super) struct SweepEnd {
    /// The folders in a parent.
    pub(super) folders: Vec<OsString>,
    /// What an administrator should be told once.
    pub(super) news: Vec<(Reason, Waiting)>,
}

impl Intake {
    /// The wall clock has jumped: for a while files are quiet since they were first seen.
    pub(super) fn clock_jumped(&mut self, now: Tick) {
        self.clock_jumped_at = Some(now);
        self.touch();
    }

    /// Its watch stands, is not wanted, or is not to be had.
    pub(super) fn take_watch(&mut self, armed: Result<bool, String>) {
        self.is_polled = !matches!(armed, Ok(true));
        self.watch_fault = armed.err();
    }

    /// A folder that has never been swept.
    pub(super) fn new(folder: Arc<Path>, is_parent: bool, now: Tick) -> Self {
        Self {
            folder,
            routes: Vec::new(),
            swept_at: None,
            fault: None,
            stood: None,
            is_polled: false,
            watch_fault: None,
            is_parent,
            ours: BTreeSet::from([OsString::from(".patchdrop")]),
            is_dirty: true,
            moved_in: BTreeMap::new(),
            remembered: BTreeMap::new(),
            look_at: now,
            gap_end: now,
            sweep: None,
            sweeps: 0,
            counts: Counts::new(),
            lines: BTreeMap::new(),
            warned: BTreeSet::new(),
            clock_jumped_at: None,
        }
    }

    /// Adds a route that has its files here.
    pub(super) fn add_route(&mut self, equipped: Arc<Equipped>, first_sweep_at: Option<Wall>) {
        let own = equipped.route.folders.own_names_in(&self.folder);
        self.ours.extend(own.map(OsString::from));
        if equipped.route.order.is_some() {
            self.lines.insert(self.routes.len(), Line::default());
        }
        self.routes.push((equipped, first_sweep_at));
        self.is_dirty = true;
    }

    /// Something may have happened here.
    pub(super) fn touch(&mut self) {
        self.is_dirty = true;
    }

    /// A file was renamed to this name here: evidence that it is complete.
    pub(super) fn moved_in(&mut self, name: OsString) {
        self.is_dirty = true;
        if self.moved_in.len() < MOVED_IN_MAX {
            self.moved_in.insert(name, self.sweeps);
        }
    }

    /// Whether a sweep should begin now.
    pub(super) fn is_sweep_due(&self, now: Tick) -> bool {
        self.sweep.is_none() && self.gap_end <= now && (self.is_dirty || self.look_at <= now)
    }

    /// When something is to be done here without any other event.
    pub(super) fn next_wake(&self, now: Tick) -> Option<Tick> {
        match &self.sweep {
            Some(sweep) if sweep.pending.is_empty() || sweep.only_counts => None,
            Some(sweep) => Some(sweep.fed_at.plus(FEED_FOR)),
            None if self.is_dirty => Some(self.gap_end.max(now)),
            None => Some(self.gap_end.max(self.look_at)),
        }
    }

    /// A sweep begins.
    pub(super) fn begin_sweep(&mut self, now: Tick) {
        self.is_dirty = false;
        self.sweeps += 1;
        self.lines.values_mut().for_each(Line::begin);
        self.sweep = Some(Sweep {
            begun_at: now,
            fed_at: now,
            pending: VecDeque::new(),
            go_on: None,
            counts: Counts::new(),
            folders: Vec::new(),
            look_at: None,
            only_counts: false,
        });
    }

    /// A chunk of the sweep has come; dropping or answering `go_on` asks for the next.
    pub(super) fn chunk(
        &mut self,
        sightings: Vec<Sighting>,
        go_on: oneshot::Sender<()>,
        now: Tick,
    ) {
        if let Some(sweep) = &mut self.sweep {
            sweep.pending.extend(sightings);
            sweep.go_on = Some(go_on);
            sweep.fed_at = now;
        }
    }

    /// The next ready candidate of the sweep under way; everything before it is counted. None: the
    /// chunk is used up (and the next one was asked for).
    pub(super) fn next_candidate(&mut self, now: Now) -> Option<Candidate> {
        loop {
            let Some(sighting) = self.sweep.as_mut()?.pending.pop_front() else {
                if let Some(go_on) = self.sweep.as_mut()?.go_on.take()
                    && go_on.send(()).is_err()
                {
                    tracing::trace!("the sweep has ended meanwhile");
                }
                return None;
            };
            if let Some(candidate) = self.assess(sighting, now) {
                return Some(candidate);
            }
        }
    }

    /// There is no room for a candidate: it stays in front, unless the sweep has waited too long.
    pub(super) fn put_back(&mut self, candidate: Candidate, now: Tick) {
        let Some(sweep) = &mut self.sweep else { return };
        sweep.only_counts |= sweep.fed_at.plus(FEED_FOR) <= now;
        if sweep.only_counts {
            self.left(candidate.index, &candidate.sighting, Reason::Ready, None, now);
        } else {
            sweep.pending.push_front(candidate.sighting);
        }
    }

    /// Whether the sweep has given up claiming and only counts.
    pub(super) fn only_counts(&self) -> bool {
        self.sweep.as_ref().is_some_and(|sweep| sweep.only_counts)
    }

    /// A candidate was taken: the sweep is alive.
    pub(super) fn taken(&mut self, name: &OsString, now: Tick) {
        self.moved_in.remove(name);
        if let Some(sweep) = &mut self.sweep {
            sweep.fed_at = now;
        }
    }

    /// Counts a file that stays, and remembers when to look again.
    pub(super) fn left(
        &mut self,
        index: usize,
        sighting: &Sighting,
        reason: Reason,
        wait: Option<Duration>,
        now: Tick,
    ) {
        let look_at = wait.map(|wait| now.plus(wait));
        let counts = if let Some(sweep) = &mut self.sweep {
            sweep.look_at = earlier(sweep.look_at, look_at);
            &mut sweep.counts
        } else {
            self.look_at = earlier(Some(self.look_at), look_at).unwrap_or(self.look_at);
            &mut self.counts
        };
        let waiting = counts.entry((index, reason)).or_default();
        waiting.files += 1;
        if waiting.oldest_at.is_none_or(|oldest| sighting.changed_at < oldest) {
            waiting.oldest_at = Some(sighting.changed_at);
            waiting.example = sighting.shown();
        }
    }

    /// A look at a candidate came to nothing.
    pub(super) fn look_failed(
        &mut self,
        index: usize,
        sighting: &Sighting,
        finding: Option<(Reason, Duration)>,
        now: Tick,
    ) {
        let Some((reason, wait)) = finding else {
            self.remembered.remove(&sighting.name);
            return;
        };
        if let Some(line) = self.lines.get_mut(&index) {
            line.wait();
        }
        self.remember(sighting, Some(reason), now);
        self.left(index, sighting, reason, Some(wait), now);
    }

    /// The sweep has ended; `every` is the span to the next one if nothing asks for it earlier.
    pub(super) fn end_sweep(&mut self, every: Duration, now: Now) -> SweepEnd {
        let Some(sweep) = self.sweep.take() else {
            return SweepEnd { folders: Vec::new(), news: Vec::new() };
        };
        let took = now.tick.since(sweep.begun_at).min(FEED_FOR);
        self.gap_end = now.tick.plus(SWEEP_GAP.max(took));
        let periodic = now.tick.plus(every);
        self.look_at = sweep.look_at.map_or(periodic, |at| at.min(periodic));
        let sweeps = self.sweeps;
        self.remembered.retain(|_, seen| seen.sweep == sweeps);
        // What came before this sweep began, it has seen.
        self.moved_in.retain(|_, sweep| *sweep >= sweeps);
        self.counts = sweep.counts;
        self.lines.values_mut().for_each(Line::end);
        self.swept_at = Some(now.wall);
        self.fault = None;
        let mut news = Vec::new();
        let present: BTreeSet<Reason> = self.counts.keys().map(|(_, reason)| *reason).collect();
        for ((_, reason), waiting) in &self.counts {
            if reason.needs_a_person() && self.warned.insert(*reason) {
                news.push((*reason, waiting.clone()));
            }
        }
        self.warned.retain(|reason| present.contains(reason));
        SweepEnd { folders: sweep.folders, news }
    }

    /// The sweep could not be done: the folder is not there or cannot be read. Whether that is
    /// news. What was known of it stays: a folder that vanished is not an empty one.
    pub(super) fn sweep_failed(&mut self, fault: String, retry: Duration, now: Tick) -> bool {
        self.sweep = None;
        self.gap_end = now.plus(SWEEP_GAP);
        self.look_at = now.plus(retry);
        self.is_dirty = false;
        let is_news = self.fault.as_ref() != Some(&fault);
        self.fault = Some(fault);
        is_news
    }

    /// Whether anything here will be ready by itself: then a drain is not over.
    pub(super) fn has_more_to_come(&self) -> bool {
        self.sweep.is_some()
            || self.is_dirty
            || self.swept_at.is_none() && self.fault.is_none()
            || self.counts.keys().any(|(_, reason)| {
                matches!(
                    reason,
                    Reason::Ready
                        | Reason::NotReady
                        | Reason::InUse
                        | Reason::Truncated
                        | Reason::SameName
                )
            })
    }

    /// Whether files wait here for nothing but room on their route: none under way, or a pause;
    /// and are not known by name.
    pub(super) fn has_files_without_room(&self) -> bool {
        let is_used_up = |index| self.lines.get(index).is_some_and(Line::is_used_up);
        self.has(&[Reason::Ready, Reason::Paused, Reason::TooManyDeferred])
            || self.lines_with_files().any(is_used_up)
    }

    fn lines_with_files(&self) -> impl Iterator<Item = &usize> {
        self.lines.keys().filter(|index| self.counts.contains_key(&(**index, Reason::InLine)))
    }

    /// The routes that keep an order and have files here that wait for their turn.
    pub(super) fn routes_in_line(&self) -> impl Iterator<Item = &RouteName> {
        let route = |index: &usize| self.routes.get(*index);
        self.lines_with_files().filter_map(route).map(|(equipped, _)| &equipped.route.name)
    }

    /// Whether there may be heads or candidates, or a chunk to ask for: asked of every folder in
    /// every turn, and of most the answer is no.
    pub(super) fn may_have_candidates(&self) -> bool {
        let sweep = self.sweep.as_ref();
        let is_fed = sweep.is_some_and(|sweep| !sweep.pending.is_empty() || sweep.go_on.is_some());
        is_fed || !self.lines.is_empty()
    }

    /// Of each route that keeps an order the file that is ahead of all others here, where that is
    /// known and it is complete.
    pub(super) fn heads(&self) -> Vec<Candidate> {
        if self.sweep.is_some() || self.is_dirty || self.fault.is_some() {
            return Vec::new();
        }
        let head = |(index, line): (&usize, &Line)| {
            let file = line.head()?;
            let (equipped, _) = self.routes.get(*index)?;
            let evidence = *file.ready.as_ref().ok()?;
            let (equipped, sighting) = (Arc::clone(equipped), file.sighting.clone());
            Some(Candidate { equipped, index: *index, sighting, evidence })
        };
        self.lines.iter().filter_map(head).collect()
    }

    /// The head of a route was taken.
    pub(super) fn head_taken(&mut self, index: usize, now: Tick) {
        let Some(file) = self.lines.get_mut(&index).and_then(Line::take) else { return };
        self.taken(&file.sighting.name, now);
        if let Some(waiting) = self.counts.get_mut(&(index, Reason::InLine)) {
            waiting.files = waiting.files.saturating_sub(1);
            if waiting.files == 0 {
                self.counts.remove(&(index, Reason::InLine));
            }
        }
    }

    /// On a route that keeps an order a candidate lines up, ready or not; whether it is such a
    /// route.
    fn line_up(
        &mut self,
        index: usize,
        sighting: &Sighting,
        ready: Result<Evidence, Reason>,
    ) -> bool {
        let order = self.routes.get(index).and_then(|(equipped, _)| equipped.route.order);
        let Some((line, order)) = self.lines.get_mut(&index).zip(order) else { return false };
        line.add(order.by, InLine { sighting: sighting.clone(), ready }, self.sweeps);
        true
    }

    /// Whether a file waits here for an earlier one of its name.
    pub(super) fn has_same_name(&self) -> bool {
        self.has(&[Reason::SameName])
    }

    fn has(&self, reasons: &[Reason]) -> bool {
        let counted = |counts: &Counts| counts.keys().any(|(_, reason)| reasons.contains(reason));
        counted(&self.counts) || self.sweep.as_ref().is_some_and(|sweep| counted(&sweep.counts))
    }

    /// Whether files wait here for a pause to end.
    pub(super) fn has_paused_files(&self) -> bool {
        self.has(&[Reason::Paused])
    }

    /// What waits here for one of its routes, for `status`.
    pub(super) fn waiting(&self, index: usize, now: Now) -> BTreeMap<String, Waiting> {
        let next = now.wall.plus(self.look_at.since(now.tick));
        self.counts
            .iter()
            .filter(|((route, _), _)| *route == index)
            .map(|((_, reason), waiting)| {
                let waiting = Waiting { next_look_at: Some(next), ..waiting.clone() };
                (reason.name().to_owned(), waiting)
            })
            .collect()
    }

    /// What lies in a parent that is no route itself.
    pub(super) fn left_in_parent(&self) -> impl Iterator<Item = (Reason, &Waiting)> {
        let is_parent = self.routes.is_empty();
        let counts = self.counts.iter().filter(move |_| is_parent);
        counts.map(|((_, reason), waiting)| (*reason, waiting))
    }

    fn assess(&mut self, sighting: Sighting, now: Now) -> Option<Candidate> {
        if self.is_parent && self.routes.is_empty() {
            self.assess_in_parent(sighting, now.tick);
            return None;
        }
        let selectors: Vec<_> =
            self.routes.iter().map(|(equipped, _)| &equipped.selector).collect();
        let ours = |name: &OsString| self.ours.contains(name);
        let index = match detect::sort(&sighting, &selectors, ours) {
            Sorted::Ours => return None,
            Sorted::Left(Reason::Subfolder) if self.is_parent => {
                self.assess_in_parent(sighting, now.tick);
                return None;
            }
            Sorted::Left(reason) => {
                self.left(0, &sighting, reason, None, now.tick);
                return None;
            }
            Sorted::Candidate(index) => index,
        };
        let (equipped, first_sweep_at) = self.routes.get(index)?.clone();
        let rules = &equipped.route.ready;
        if first_sweep_at.is_some_and(|at| detect::is_older_than_first_sweep(&sighting, at, rules))
        {
            self.left(index, &sighting, Reason::OlderThanFirstSweep, None, now.tick);
            return None;
        }
        let sweep = self.sweeps;
        let remembered = self
            .remembered
            .get_mut(&sighting.name)
            .filter(|seen| seen.remembered.is_version(&sighting))
            .map(|seen| {
                seen.sweep = sweep;
                seen.remembered
            });
        let evidence = Evidence {
            moved_in: self.moved_in.contains_key(&sighting.name),
            trusts_change_time: equipped.is_local
                && self.clock_jumped_at.is_none_or(|at| {
                    now.tick.since(at) > rules.quiet_for.max(rules.truncated_after)
                }),
            marker: None,
            remembered,
        };
        if rules.done_marker.is_none()
            && let Readiness::Wait(reason, wait) = ready::assess(&sighting, rules, &evidence, now)
        {
            self.line_up(index, &sighting, Err(reason));
            self.remember(&sighting, remembered.and_then(|known| known.finding), now.tick);
            self.left(index, &sighting, reason, Some(wait), now.tick);
            return None;
        }
        if self.line_up(index, &sighting, Ok(evidence)) {
            self.left(index, &sighting, Reason::InLine, None, now.tick);
            return None;
        }
        Some(Candidate { equipped, index, sighting, evidence })
    }

    fn assess_in_parent(&mut self, sighting: Sighting, now: Tick) {
        let reason = match sighting.kind {
            Kind::Folder => {
                if let Some(sweep) = &mut self.sweep {
                    sweep.folders.push(sighting.name);
                }
                return;
            }
            Kind::File => Reason::NoRoute,
            Kind::Link => Reason::Link,
            Kind::Special => Reason::Special,
            Kind::Unknown => Reason::Unreadable,
        };
        self.left(0, &sighting, reason, None, now);
    }

    /// Remembers this version of a file; a later look at the same version keeps when it was first
    /// seen.
    fn remember(&mut self, sighting: &Sighting, finding: Option<Reason>, now: Tick) {
        let sweep = self.sweeps;
        let has_room = self.remembered.len() < REMEMBERED_MAX;
        match self.remembered.get_mut(&sighting.name) {
            Some(seen) if seen.remembered.is_version(sighting) => {
                seen.remembered.finding = finding;
                seen.sweep = sweep;
            }
            _ if has_room => {
                let Sighting { identity, changed_at, .. } = *sighting;
                let remembered = Remembered { identity, changed_at, first_seen: now, finding };
                self.remembered.insert(sighting.name.clone(), Seen { remembered, sweep });
            }
            _ => {}
        }
    }
}

fn earlier(known: Option<Tick>, other: Option<Tick>) -> Option<Tick> {
    match (known, other) {
        (Some(known), Some(other)) => Some(known.min(other)),
        (known, other) => known.or(other),
    }
}
