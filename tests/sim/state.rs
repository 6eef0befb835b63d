//! The fake world's state: a disk with a volatile and a durable layer, a ledger, a server, and the
//! violations seen so far. It outlives the process that is simulated.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use patchdrop::model::file::{Digest, FileId, Identity, Kind, Place, Sighting};
use patchdrop::model::step::{Attempt, Entry, Remark, RouteRecord, Step, Verdict};
use patchdrop::model::time::Wall;
use sha2::Digest as _;

pub type Folder = BTreeMap<OsString, u64>;

#[derive(Clone, Debug)]
pub struct Node {
    pub content: Vec<u8>,
    pub mtime_ns: i64,
    pub changed_at: Wall,
}

/// One change of a folder that no fsync has made durable yet.
#[derive(Clone, Debug)]
enum Pending {
    Rename { from: Place, to: Place, node: u64, replaces: bool },
    Create { place: Place, node: u64 },
    Remove { place: Place },
}

impl Pending {
    fn touches(&self, folder: &Path) -> bool {
        match self {
            Self::Rename { from, to, .. } => *from.folder == *folder || *to.folder == *folder,
            Self::Create { place, .. } | Self::Remove { place } => *place.folder == *folder,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub nodes: BTreeMap<u64, Node>,
    pub folders: BTreeMap<PathBuf, Folder>,
    durable: BTreeMap<PathBuf, Folder>,
    pending: Vec<Pending>,
    next_node: u64,
}

impl Disk {
    pub fn make_folder(&mut self, folder: &Path) {
        self.folders.entry(folder.to_owned()).or_default();
        self.durable.entry(folder.to_owned()).or_default();
    }

    pub fn node_at(&self, place: &Place) -> Option<u64> {
        self.folders.get(&*place.folder)?.get(&place.name).copied()
    }

    pub fn durably_at(&self, place: &Place) -> Option<u64> {
        self.durable.get(&*place.folder)?.get(&place.name).copied()
    }

    pub fn content(&self, place: &Place) -> Option<&[u8]> {
        Some(&self.nodes.get(&self.node_at(place)?)?.content)
    }

    pub fn identity(&self, node: u64) -> Identity {
        let known = &self.nodes[&node];
        let size = known.content.len() as u64;
        Identity { volume: 1, number: node, size, mtime_ns: known.mtime_ns }
    }

    pub fn sighting(&self, name: &OsStr, node: u64) -> Sighting {
        Sighting {
            name: name.to_owned(),
            kind: Kind::File,
            identity: self.identity(node),
            changed_at: self.nodes[&node].changed_at,
        }
    }

    /// A person puts a file there, durably; one that is there is replaced by a new one.
    pub fn put(&mut self, place: &Place, content: &[u8], now: Wall) {
        self.sync(&place.folder);
        self.next_node += 1;
        let node = self.next_node;
        let mtime_ns = now.0 * 1_000_000;
        self.nodes.insert(node, Node { content: content.to_vec(), mtime_ns, changed_at: now });
        for layer in [&mut self.folders, &mut self.durable] {
            layer.entry(place.folder.to_path_buf()).or_default().insert(place.name.clone(), node);
        }
    }

    /// A person writes into a file in place, durably, and sets its mtime back.
    pub fn rewrite(&mut self, place: &Place, content: &[u8], now: Wall) {
        self.sync(&place.folder);
        let Some(node) = self.node_at(place).and_then(|node| self.nodes.get_mut(&node)) else {
            return;
        };
        assert_eq!(node.content.len(), content.len(), "a rewrite keeps the length");
        node.content = content.to_vec();
        node.changed_at = now;
    }

    /// As a write does without anybody setting the time back.
    pub fn touch(&mut self, place: &Place, now: Wall) {
        if let Some(node) = self.node_at(place).and_then(|node| self.nodes.get_mut(&node)) {
            node.mtime_ns = now.0 * 1_000_000;
        }
    }

    /// A person moves a file, durably.
    pub fn person_moves(&mut self, from: &Place, to: &Place, now: Wall) {
        self.sync(&from.folder);
        self.sync(&to.folder);
        for layer in [&mut self.folders, &mut self.durable] {
            if let Some(node) = layer.get_mut(&*from.folder).and_then(|at| at.remove(&from.name)) {
                layer.get_mut(&*to.folder).unwrap().insert(to.name.clone(), node);
                self.nodes.get_mut(&node).unwrap().changed_at = now;
            }
        }
    }

    /// A person removes a file, durably.
    pub fn person_removes(&mut self, place: &Place) {
        self.sync(&place.folder);
        for layer in [&mut self.folders, &mut self.durable] {
            if let Some(at) = layer.get_mut(&*place.folder) {
                at.remove(&place.name);
            }
        }
    }

    pub fn rename(&mut self, from: &Place, to: &Place, replaces: bool, now: Wall) {
        let node = self.folders.get_mut(&*from.folder).unwrap().remove(&from.name).unwrap();
        self.folders.get_mut(&*to.folder).unwrap().insert(to.name.clone(), node);
        self.nodes.get_mut(&node).unwrap().changed_at = now;
        self.pending.push(Pending::Rename { from: from.clone(), to: to.clone(), node, replaces });
    }

    pub fn create(&mut self, place: &Place, content: Vec<u8>, now: Wall) {
        self.next_node += 1;
        let node = self.next_node;
        let mtime_ns = now.0 * 1_000_000;
        self.nodes.insert(node, Node { content, mtime_ns, changed_at: now });
        self.folders.get_mut(&*place.folder).unwrap().insert(place.name.clone(), node);
        self.pending.push(Pending::Create { place: place.clone(), node });
    }

    /// A copy with the times of its original.
    pub fn copy(&mut self, node: u64, place: &Place, now: Wall) {
        let Node { content, mtime_ns, .. } = self.nodes[&node].clone();
        self.create(place, content, now);
        self.nodes.get_mut(&self.next_node).unwrap().mtime_ns = mtime_ns;
    }

    pub fn remove(&mut self, place: &Place) {
        if let Some(at) = self.folders.get_mut(&*place.folder)
            && at.remove(&place.name).is_some()
        {
            self.pending.push(Pending::Remove { place: place.clone() });
        }
    }

    /// All that was done anywhere is durable.
    pub fn sync_all(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            self.persist(&pending);
        }
    }

    /// fsync of a folder: all that was done in it is durable.
    pub fn sync(&mut self, folder: &Path) {
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|pending| pending.touches(folder));
        self.pending = later;
        for pending in &now {
            self.persist(pending);
        }
    }

    /// The power goes: each pending change is kept or lost, as `keeps` says; one that builds on a
    /// lost one is lost with it.
    pub fn cut(&mut self, mut keeps: impl FnMut() -> bool) {
        for pending in std::mem::take(&mut self.pending) {
            if keeps() {
                self.persist(&pending);
            }
        }
        self.folders = self.durable.clone();
    }

    fn persist(&mut self, pending: &Pending) {
        match pending {
            Pending::Rename { from, to, node, replaces } => {
                let is_there =
                    self.durable.get(&*from.folder).and_then(|at| at.get(&from.name)) == Some(node);
                let free = !self.durable[&*to.folder].contains_key(&to.name);
                if is_there && (free || *replaces) {
                    self.durable.get_mut(&*from.folder).unwrap().remove(&from.name);
                    self.durable.get_mut(&*to.folder).unwrap().insert(to.name.clone(), *node);
                }
            }
            Pending::Create { place, node } => {
                self.durable.get_mut(&*place.folder).unwrap().insert(place.name.clone(), *node);
            }
            Pending::Remove { place } => {
                self.durable.get_mut(&*place.folder).unwrap().remove(&place.name);
            }
        }
    }
}

/// What is on record, and what only this boot or process knows.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub entries: BTreeMap<FileId, Entry>,
    pub attempts: BTreeMap<FileId, Vec<Attempt>>,
    pub remarks: BTreeMap<FileId, Vec<Remark>>,
    /// What files have in common with their twins, on routes that look for duplicates.
    pub twins: BTreeMap<FileId, Digest>,
    pub routes: BTreeMap<String, RouteRecord>,
    pub all_paused_at: Option<Wall>,
    pub reserved_end: u64,
    /// Appended, not yet durable.
    pub appended: Vec<Step>,
    /// `begun` of this boot.
    pub begun: BTreeSet<(FileId, u32)>,
    /// Whether `begun` was lost: another boot.
    pub is_other_boot: bool,
    /// Of this boot, which is counted up by each power cut.
    pub boot: u32,
    /// The mark of a ledger that is not synced.
    pub unsynced_boot: Option<u32>,
    pub unsure_below: u64,
    /// What a power cut leaves for certain of a ledger that is not synced; none of one that is.
    pub synced: Option<Box<Self>>,
    /// The commits since; a power cut keeps the first of them.
    pub tail: Vec<Vec<Step>>,
    /// Ids that this process has claimed: what it has not begun, it knows.
    pub own: BTreeSet<FileId>,
}

impl Record {
    pub fn apply(&mut self, step: &Step) {
        let id = step.id();
        match step {
            Step::Claimed(claim) => {
                let entry = Entry::of(claim);
                if entry.attempt == 1 {
                    let first =
                        Attempt { number: 1, begun_at: claim.at, ended_at: None, end: None };
                    self.attempts.insert(id, vec![first]);
                }
                self.own.insert(id);
                self.twins.extend(claim.twin.map(|twin| (id, twin)));
                assert!(self.entries.insert(id, entry).is_none(), "id {id} claimed twice");
                return;
            }
            Step::AttemptBegun { attempt, at, .. } => {
                let next = Attempt { number: *attempt, begun_at: *at, ended_at: None, end: None };
                self.own.insert(id);
                self.attempts.entry(id).or_default().push(next);
            }
            Step::AttemptEnded { attempt, end, at, .. }
            | Step::Accepted { attempt: Some((attempt, end)), at, .. }
            | Step::Decided { attempt: Some((attempt, end)), at, .. } => {
                let known = self.attempts.entry(id).or_default();
                if let Some(known) = known.iter_mut().find(|known| known.number == *attempt) {
                    known.ended_at = Some(*at);
                    known.end = Some(end.clone());
                }
            }
            Step::RoutePaused { route, at, .. } => {
                if let Some(record) = self.routes.get_mut(&*route.0) {
                    record.paused_at.get_or_insert(*at);
                }
            }
            Step::Noted { at, text, .. } => {
                let remark = Remark { at: *at, text: text.clone() };
                self.remarks.entry(id).or_default().push(remark);
            }
            Step::Decided { attempt: None, .. }
            | Step::Accepted { attempt: None, .. }
            | Step::Retargeted { .. }
            | Step::Settled { .. }
            | Step::Cancelled { .. }
            | Step::Missing { .. }
            | Step::Released { .. } => {}
        }
        self.entries.get_mut(&id).expect("a step about a known file").apply(step);
    }

    /// A commit of a ledger that is not synced, unless it is at rest.
    pub fn commit(&mut self, steps: Vec<Step>) {
        for step in &steps {
            self.apply(step);
        }
        if self.unsynced_boot.is_none() {
            self.sync();
        } else {
            self.tail.push(steps);
        }
    }

    /// Everything so far is durable. Nothing to do for a ledger of which nothing can be lost.
    pub fn sync(&mut self) {
        self.tail.clear();
        if self.synced.take().is_some() {
            self.account();
        }
    }

    /// From here on it is known what a power cut leaves.
    pub fn account(&mut self) {
        self.synced = Some(Box::new(self.clone()));
    }

    /// The power goes: of the commits that were not synced the first ones are kept, as many as
    /// `keep` says of their number.
    pub fn lose_the_tail(&mut self, keep: impl FnOnce(usize) -> usize) {
        let Some(synced) = self.synced.take() else { return };
        let tail = std::mem::take(&mut self.tail);
        let boot = self.boot;
        *self = *synced;
        self.boot = boot;
        for step in tail.iter().take(keep(tail.len())).flatten() {
            self.apply(step);
        }
        self.account();
    }

    pub fn has_delivered(&self, id: FileId) -> bool {
        self.attempts.get(&id).is_some_and(|attempts| {
            attempts.iter().any(|attempt| {
                attempt.end.as_ref().is_some_and(|end| end.verdict == Verdict::Delivered)
            })
        })
    }
}

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Stores it, 200.
    Accept,
    /// Stores it; the answer is lost.
    AcceptAndLose,
    /// Stores it; a gateway answers 504.
    AcceptAndHide,
    /// Nothing stored, this status.
    Status(u16),
    /// Nobody there.
    Away,
}

/// A request that the server stored.
#[derive(Clone, Debug)]
pub struct Stored {
    pub id: FileId,
    pub digest: Digest,
}

/// The server answers by rule, not from a used-up list: what it does may depend on the content,
/// on how often it has seen it, on the token and on the time since the story's begin.
pub type Rule = fn(&Asked) -> Behaviour;

#[derive(Clone, Debug)]
pub struct Asked {
    pub content: String,
    /// How many requests with this content came before.
    pub before: usize,
    pub token: u64,
    /// Seconds since the story's begin.
    pub at: u64,
    pub stored: usize,
}

/// A run that a stored request has started.
#[derive(Clone, Debug)]
pub struct Run {
    pub id: u64,
    pub started_at: Wall,
    /// What the Core API says once it has ended; none: it never ends.
    pub ends_as: Option<u8>,
}

#[derive(Clone, Debug, Default)]
pub struct Server {
    pub stored: Vec<Stored>,
    pub runs: Vec<Run>,
    /// Questions to the Core API.
    pub questions: usize,
    pub seen: BTreeMap<Vec<u8>, usize>,
    /// Attempts that were used for a request.
    pub used: BTreeSet<(FileId, u32)>,
    pub keys: BTreeMap<Vec<u8>, BTreeSet<String>>,
    pub in_flight: BTreeSet<OsString>,
    pub requests: usize,
}

pub fn digest(bytes: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(bytes).into())
}
