//! A tree of files in memory with two layers: what programs see, and what a power cut leaves.
//!
//! A file's content is durable once the file is synced. A change of folders (made, linked, renamed,
//! removed) is durable once a folder that it touches is synced, along with the earlier changes that
//! it builds on. Modes, owners and times are durable at once: nothing here depends on them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::SystemTime;

use fuser::{Errno, FileAttr, FileType, INodeNo};

/// The unit in which content is made durable.
const PAGE: usize = 4_096;

/// The folder at the top, as FUSE numbers it.
pub(crate) const TOP: u64 = 1;

/// What the ledger's files are called.
const LEDGER: [&str; 2] = ["ledger.db", "ledger.db-wal"];

/// Content in both layers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Pages that differ, perhaps.
    dirty: BTreeSet<usize>,
}

impl Content {
    pub(crate) fn read(&self, offset: usize, most: usize) -> &[u8] {
        let end = offset.saturating_add(most).min(self.now.len());
        self.now.get(offset..end).unwrap_or_default()
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.now.len() < end {
            self.resize(end);
        }
        self.now[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / PAGE..=end / PAGE);
    }

    pub(crate) fn resize(&mut self, len: usize) {
        let old = self.now.len();
        self.now.resize(len, 0);
        self.dirty.extend(old.min(len) / PAGE..=old.max(len) / PAGE);
    }

    fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            self.persist(page);
        }
    }

    fn persist(&mut self, page: usize) {
        let start = (page * PAGE).min(self.now.len());
        let end = (start + PAGE).min(self.now.len());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.now[start..end]);
    }

    /// The power goes: of the pages that were not synced each is kept or lost.
    fn cut(&mut self, keeps: &mut impl FnMut() -> bool) {
        for page in std::mem::take(&mut self.dirty) {
            if keeps() {
                self.persist(page);
            }
        }
        other_boot(&mut self.durable);
        self.now = self.durable.clone();
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Folder {
        now: BTreeMap<OsString, u64>,
        durable: BTreeMap<OsString, u64>,
    },
    File(Content),
    Link(PathBuf),
    /// A socket, or whatever else has neither content nor entries.
    Other(FileType),
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) perm: u16,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: SystemTime,
    pub(crate) ctime: SystemTime,
    links: u32,
}

/// A place in a folder.
type Slot = (u64, OsString);

/// A change of folders that no sync has made durable yet.
#[derive(Clone, Debug)]
struct Change {
    /// What it takes away, and the node that must be there.
    from: Option<(Slot, u64)>,
    /// What it puts there, and what it replaces.
    to: Option<(Slot, u64, Option<u64>)>,
}

impl Change {
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        let from = self.from.as_ref().map(|(slot, _)| slot);
        from.into_iter().chain(self.to.as_ref().map(|(slot, ..)| slot))
    }

    fn touches(&self, folder: u64) -> bool {
        self.slots().any(|(of, _)| *of == folder)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    nodes: BTreeMap<u64, Node>,
    pending: Vec<Change>,
    next: u64,
    /// The ledger and its WAL.
    ledger: BTreeSet<u64>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let mut tree = Self {
            nodes: BTreeMap::new(),
            pending: Vec::new(),
            next: TOP,
            ledger: BTreeSet::new(),
        };
        tree.add(Kind::Folder { now: BTreeMap::new(), durable: BTreeMap::new() }, 0o755, (0, 0));
        tree
    }

    fn add(&mut self, kind: Kind, perm: u16, owner: (u32, u32)) -> u64 {
        let (number, now) = (self.next, SystemTime::now());
        self.next += 1;
        let node = Node { kind, perm, owner, mtime: now, ctime: now, links: 1 };
        self.nodes.insert(number, node);
        number
    }

    pub(crate) fn node(&self, number: u64) -> Result<&Node, Errno> {
        self.nodes.get(&number).ok_or(Errno::ESTALE)
    }

    pub(crate) fn node_mut(&mut self, number: u64) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&number).ok_or(Errno::ESTALE)
    }

    pub(crate) fn content_mut(&mut self, number: u64) -> Result<&mut Content, Errno> {
        match &mut self.node_mut(number)?.kind {
            Kind::File(content) => Ok(content),
            Kind::Folder { .. } => Err(Errno::EISDIR),
            Kind::Link(_) | Kind::Other(_) => Err(Errno::EINVAL),
        }
    }

    pub(crate) fn entries(&self, folder: u64) -> Result<&BTreeMap<OsString, u64>, Errno> {
        match &self.node(folder)?.kind {
            Kind::Folder { now, .. } => Ok(now),
            Kind::File(_) | Kind::Link(_) | Kind::Other(_) => Err(Errno::ENOTDIR),
        }
    }

    fn entries_mut(&mut self, folder: u64) -> Result<&mut BTreeMap<OsString, u64>, Errno> {
        let node = self.node_mut(folder)?;
        node.mtime = SystemTime::now();
        node.ctime = node.mtime;
        match &mut node.kind {
            Kind::Folder { now, .. } => Ok(now),
            Kind::File(_) | Kind::Link(_) | Kind::Other(_) => Err(Errno::ENOTDIR),
        }
    }

    fn durable_mut(&mut self, folder: u64) -> Option<&mut BTreeMap<OsString, u64>> {
        match &mut self.nodes.get_mut(&folder)?.kind {
            Kind::Folder { durable, .. } => Some(durable),
            Kind::File(_) | Kind::Link(_) | Kind::Other(_) => None,
        }
    }

    pub(crate) fn lookup(&self, folder: u64, name: &OsStr) -> Result<u64, Errno> {
        self.entries(folder)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(crate) fn make(
        &mut self,
        folder: u64,
        name: &OsStr,
        kind: Kind,
        perm: u16,
        owner: (u32, u32),
    ) -> Result<u64, Errno> {
        if self.entries(folder)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let number = self.add(kind, perm, owner);
        if LEDGER.iter().any(|ledger| name == *ledger) {
            self.ledger.insert(number);
        }
        self.entries_mut(folder)?.insert(name.to_owned(), number);
        let to = Some(((folder, name.to_owned()), number, None));
        self.pending.push(Change { from: None, to });
        Ok(number)
    }

    pub(crate) fn link(&mut self, number: u64, folder: u64, name: &OsStr) -> Result<(), Errno> {
        if self.entries(folder)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let node = self.node_mut(number)?;
        node.links += 1;
        node.ctime = SystemTime::now();
        self.entries_mut(folder)?.insert(name.to_owned(), number);
        let to = Some(((folder, name.to_owned()), number, None));
        self.pending.push(Change { from: None, to });
        Ok(())
    }

    pub(crate) fn remove(&mut self, folder: u64, name: &OsStr) -> Result<(), Errno> {
        let number = self.lookup(folder, name)?;
        if let Kind::Folder { now, .. } = &self.node(number)?.kind
            && !now.is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.entries_mut(folder)?.remove(name);
        let node = self.node_mut(number)?;
        node.links = node.links.saturating_sub(1);
        node.ctime = SystemTime::now();
        let from = Some(((folder, name.to_owned()), number));
        self.pending.push(Change { from, to: None });
        Ok(())
    }

    pub(crate) fn rename(
        &mut self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        may_replace: bool,
    ) -> Result<(), Errno> {
        let number = self.lookup(from.0, from.1)?;
        let replaced = self.lookup(to.0, to.1).ok();
        if replaced.is_some() && !may_replace {
            return Err(Errno::EEXIST);
        }
        if replaced == Some(number) {
            return Ok(());
        }
        self.entries_mut(from.0)?.remove(from.1);
        self.entries_mut(to.0)?.insert(to.1.to_owned(), number);
        self.node_mut(number)?.ctime = SystemTime::now();
        if let Some(replaced) = replaced {
            let node = self.node_mut(replaced)?;
            node.links = node.links.saturating_sub(1);
        }
        let from = Some(((from.0, from.1.to_owned()), number));
        let to = Some(((to.0, to.1.to_owned()), number, replaced));
        self.pending.push(Change { from, to });
        Ok(())
    }

    /// fsync of a file.
    pub(crate) fn sync_file(&mut self, number: u64) -> Result<(), Errno> {
        self.content_mut(number)?.sync();
        Ok(())
    }

    /// fsync of a folder: what was done in it is durable, with what that builds on.
    pub(crate) fn sync_folder(&mut self, folder: u64) {
        let mut wanted = vec![false; self.pending.len()];
        let mut slots = BTreeSet::<Slot>::new();
        for (place, change) in self.pending.iter().enumerate().rev() {
            if change.touches(folder) || change.slots().any(|slot| slots.contains(slot)) {
                wanted[place] = true;
                slots.extend(change.slots().cloned());
            }
        }
        let pending = std::mem::take(&mut self.pending);
        for (change, is_wanted) in pending.into_iter().zip(wanted) {
            if is_wanted {
                self.persist(&change);
            } else {
                self.pending.push(change);
            }
        }
    }

    /// An operation's text with the name of the file or folder whose number it ends with.
    pub(crate) fn named(&self, what: &str) -> String {
        let number = what.rsplit_once(' ').and_then(|(_, number)| number.parse::<u64>().ok());
        let of = |node: &Node| match &node.kind {
            Kind::Folder { now, .. } => {
                now.iter().find(|(_, to)| Some(**to) == number).map(|it| it.0.clone())
            }
            Kind::File(_) | Kind::Link(_) | Kind::Other(_) => None,
        };
        let name = number.and_then(|_| self.nodes.values().find_map(of)).unwrap_or_default();
        format!("{what} {}", name.display())
    }

    /// Whether a file is the ledger, or its WAL.
    pub(crate) fn is_ledger(&self, number: u64) -> bool {
        self.ledger.contains(&number)
    }

    /// Whether a folder is called `root`, or lies below one.
    pub(crate) fn is_below_root(&self, folder: u64) -> bool {
        let holds = |at: &(u64, bool)| -> Vec<(u64, bool)> {
            let entries = self.entries(at.0).into_iter().flatten();
            entries.map(|(name, number)| (*number, at.1 || name == "root")).collect()
        };
        let mut found = vec![(TOP, false)];
        while let Some(at) = found.pop() {
            if at.0 == folder {
                return at.1;
            }
            found.extend(holds(&at));
        }
        false
    }

    /// All that there is, is durable.
    pub(crate) fn settle(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            self.persist(&change);
        }
        for node in self.nodes.values_mut() {
            if let Kind::File(content) = &mut node.kind {
                content.sync();
            }
        }
    }

    /// Puts a change into the durable layer, if what it builds on is there.
    fn persist(&mut self, change: &Change) {
        if let Some(((folder, name), number)) = &change.from
            && self.durable_mut(*folder).and_then(|at| at.get(name).copied()) != Some(*number)
        {
            return;
        }
        if let Some(((folder, name), _, replaced)) = &change.to
            && self.durable_mut(*folder).is_none_or(|at| at.get(name).copied() != *replaced)
        {
            return;
        }
        if let Some(((folder, name), _)) = &change.from
            && let Some(at) = self.durable_mut(*folder)
        {
            at.remove(name);
        }
        if let Some(((folder, name), number, _)) = &change.to
            && let Some(at) = self.durable_mut(*folder)
        {
            at.insert(name.clone(), *number);
        }
    }

    /// The power goes. Of the changes of folders and the pages of files that were not synced each
    /// is kept or lost as `keeps` says; a change that builds on a lost one is lost.
    pub(crate) fn cut(&mut self, mut keeps: impl FnMut() -> bool) {
        for change in std::mem::take(&mut self.pending) {
            if keeps() {
                self.persist(&change);
            }
        }
        for node in self.nodes.values_mut() {
            match &mut node.kind {
                Kind::Folder { now, durable } => *now = durable.clone(),
                Kind::File(content) => content.cut(&mut keeps),
                Kind::Link(_) | Kind::Other(_) => {}
            }
        }
        // Sockets are dead, what nobody names is gone.
        let mut links = BTreeMap::<u64, u32>::from([(TOP, 1)]);
        for node in self.nodes.values() {
            if let Kind::Folder { now, .. } = &node.kind {
                for number in now.values() {
                    *links.entry(*number).or_default() += 1;
                }
            }
        }
        self.nodes.retain(|number, node| {
            node.links = links.get(number).copied().unwrap_or(0);
            node.links > 0
        });
    }

    pub(crate) fn attr(&self, number: u64) -> Result<FileAttr, Errno> {
        let node = self.node(number)?;
        let (kind, size) = match &node.kind {
            Kind::Folder { .. } => (FileType::Directory, 4_096),
            Kind::File(content) => (FileType::RegularFile, content.now.len() as u64),
            Kind::Link(to) => (FileType::Symlink, to.as_os_str().len() as u64),
            Kind::Other(kind) => (*kind, 0),
        };
        Ok(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: node.mtime,
            mtime: node.mtime,
            ctime: node.ctime,
            crtime: node.ctime,
            kind,
            perm: node.perm,
            nlink: node.links,
            uid: node.owner.0,
            gid: node.owner.1,
            rdev: 0,
            blksize: 4_096,
            flags: 0,
        })
    }
}

/// The machine is the same after a cut that is played; its boot must not be. patchdrop knows its
/// boot from the header of `begun`, so another one is written there.
fn other_boot(content: &mut [u8]) {
    const HEAD: &[u8] = b"patchdrop-begun-1 ";
    if content.starts_with(HEAD)
        && let Some(first) = content.get_mut(HEAD.len())
    {
        *first = if *first == b'0' { b'1' } else { b'0' };
    }
}
