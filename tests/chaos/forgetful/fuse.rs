//! The tree as the kernel asks for it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::Shared;
use super::trap::Of;
use super::tree::{Content, Kind, Tree};

/// How long the kernel may believe what it was told. All changes come through it.
const KNOWN_FOR: Duration = Duration::from_secs(1);

const GENERATION: Generation = Generation(0);

type Listing = Vec<(u64, FileType, OsString)>;

pub(super) struct Fuse {
    shared: Arc<Shared>,
    /// Listings under way: one that changes meanwhile is told as it was.
    listings: Mutex<BTreeMap<u64, Listing>>,
    next_handle: AtomicU64,
    /// Which mount this is.
    mount: u64,
}

impl Fuse {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let mount = shared.mounts.load(Ordering::SeqCst);
        Self { shared, listings: Mutex::default(), next_handle: AtomicU64::new(1), mount }
    }

    fn may_change(&self, what: impl FnOnce() -> String) -> Result<(), Errno> {
        if self.shared.mounts.load(Ordering::SeqCst) != self.mount {
            return Err(Errno::EIO);
        }
        self.shared.refusal(what)
    }

    /// A change, refused or passed on. `what` names it, with the number of what it is about at the
    /// end.
    fn change<T>(
        &self,
        of: Of,
        what: impl Fn() -> String,
        act: impl FnOnce(&mut Tree) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.shared.wait();
        self.may_change(&what)?;
        let passed = self.shared.trap.pass(of, what, || act(&mut self.shared.tree()));
        // Whoever asked has been killed.
        passed.unwrap_or(Err(Errno::EIO))
    }

    /// What a write to a file is.
    fn writes(&self, ino: INodeNo) -> Of {
        if self.shared.tree().is_ledger(ino.0) { Of::LedgerWrite } else { Of::Write }
    }

    fn made(
        &self,
        request: &Request,
        (folder, name): (INodeNo, &OsStr),
        (kind, perm): (Kind, u32),
    ) -> Result<FileAttr, Errno> {
        let perm = (perm & 0o7777) as u16;
        self.change(
            Of::Step,
            || format!("make {} in {}", name.display(), folder.0),
            |tree| {
                let owner = (request.uid(), request.gid());
                let number = tree.make(folder.0, name, kind, perm, owner)?;
                tree.attr(number)
            },
        )
    }

    fn sync(
        &self,
        of: Of,
        what: impl Fn() -> String,
        act: impl FnOnce(&mut Tree) -> Result<(), Errno>,
        reply: ReplyEmpty,
    ) {
        let done = self.change(of, what, act);
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        let span = Duration::from_micros(self.shared.sync_micros.load(Ordering::Relaxed));
        if span.is_zero() {
            empty(done, reply);
        } else {
            // Others must not wait for it.
            std::thread::spawn(move || {
                super::super::scene::beat(span);
                empty(done, reply);
            });
        }
    }
}

fn empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn entry(done: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match done {
        Ok(attr) => reply.entry(&KNOWN_FOR, &attr, GENERATION),
        Err(errno) => reply.error(errno),
    }
}

fn attributes(done: Result<FileAttr, Errno>, reply: ReplyAttr) {
    match done {
        Ok(attr) => reply.attr(&KNOWN_FOR, &attr),
        Err(errno) => reply.error(errno),
    }
}

fn at(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

impl Filesystem for Fuse {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.shared.wait();
        let tree = self.shared.tree();
        entry(tree.lookup(parent.0, name).and_then(|number| tree.attr(number)), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.shared.wait();
        attributes(self.shared.tree().attr(ino.0), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.shared.wait();
        let set = |tree: &mut Tree| {
            if let Some(size) = size {
                tree.content_mut(ino.0)?.resize(size as usize);
            }
            let node = tree.node_mut(ino.0)?;
            node.perm = mode.map_or(node.perm, |mode| (mode & 0o7777) as u16);
            node.owner = (uid.unwrap_or(node.owner.0), gid.unwrap_or(node.owner.1));
            node.ctime = SystemTime::now();
            if let Some(mtime) = mtime {
                node.mtime = at(mtime);
            } else if size.is_some() {
                node.mtime = node.ctime;
            }
            tree.attr(ino.0)
        };
        let done = match size {
            Some(_) => self.change(self.writes(ino), || format!("cut file {}", ino.0), set),
            None => set(&mut self.shared.tree()),
        };
        attributes(done, reply);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.shared.wait();
        match self.shared.tree().node(ino.0).map(|node| &node.kind) {
            Ok(Kind::Link(to)) => reply.data(to.as_os_str().as_bytes()),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let kind = match mode & 0o17_0000 {
            0o14_0000 => Kind::Other(FileType::Socket),
            0o01_0000 => Kind::Other(FileType::NamedPipe),
            _ => Kind::File(Content::default()),
        };
        entry(self.made(request, (parent, name), (kind, mode & !umask)), reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let kind = Kind::Folder { now: BTreeMap::new(), durable: BTreeMap::new() };
        entry(self.made(request, (parent, name), (kind, mode & !umask)), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let kind = Kind::Link(target.to_owned());
        entry(self.made(request, (parent, name), (kind, 0o777)), reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let kind = Kind::File(Content::default());
        match self.made(request, (parent, name), (kind, mode & !umask)) {
            Ok(attr) => {
                let flags = FopenFlags::empty();
                reply.created(&KNOWN_FOR, &attr, GENERATION, FileHandle(0), flags);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let done = self.change(
            Of::Step,
            || format!("link {} in {}", newname.display(), newparent.0),
            |tree| {
                tree.link(ino.0, newparent.0, newname)?;
                tree.attr(ino.0)
            },
        );
        entry(done, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let what = || format!("unlink {} in {}", name.display(), parent.0);
        empty(self.change(Of::Step, what, |tree| tree.remove(parent.0, name)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let what = || format!("rmdir {} in {}", name.display(), parent.0);
        empty(self.change(Of::Step, what, |tree| tree.remove(parent.0, name)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return reply.error(Errno::EINVAL);
        }
        let may_replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let (from, to) = (name.display(), newname.display());
        let done = self.change(
            Of::Step,
            || format!("rename {from} to {to} in {}", newparent.0),
            |tree| tree.rename((parent.0, name), (newparent.0, newname), may_replace),
        );
        empty(done, reply);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.shared.wait();
        match self.shared.tree().content_mut(ino.0) {
            Ok(content) => reply.data(content.read(offset as usize, size as usize)),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = |tree: &mut Tree| {
            tree.content_mut(ino.0)?.write(offset as usize, data);
            let node = tree.node_mut(ino.0)?;
            node.mtime = SystemTime::now();
            node.ctime = node.mtime;
            Ok::<_, Errno>(())
        };
        let what = || format!("write {} bytes at {offset} of file {}", data.len(), ino.0);
        match self.change(self.writes(ino), what, write) {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.shared.wait();
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let of = if self.shared.tree().is_ledger(ino.0) { Of::LedgerSync } else { Of::Step };
        self.sync(of, || format!("fsync file {}", ino.0), |tree| tree.sync_file(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let is_deaf = self.shared.is_deaf_to_folders.load(Ordering::Relaxed);
        let act = |tree: &mut Tree| {
            // The ledger's own folder is synced by the ledger.
            if !(is_deaf && tree.is_below_root(ino.0)) {
                tree.sync_folder(ino.0);
            }
            Ok(())
        };
        self.sync(Of::Step, || format!("fsync folder {}", ino.0), act, reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.shared.wait();
        let tree = self.shared.tree();
        let listed = tree.entries(ino.0).map(|entries| {
            let kind = |number| tree.attr(number).map_or(FileType::RegularFile, |attr| attr.kind);
            let dots = [".", ".."].map(|dot| (ino.0, FileType::Directory, OsString::from(dot)));
            let entries = entries.iter().map(|(name, to)| (*to, kind(*to), name.clone()));
            dots.into_iter().chain(entries).collect::<Listing>()
        });
        match listed {
            Ok(listing) => {
                let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
                let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
                listings.insert(handle, listing);
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.shared.wait();
        let listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        let listing = listings.get(&fh.0).map(Vec::as_slice).unwrap_or_default();
        for (place, (number, kind, name)) in listing.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*number), place as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.shared.wait();
        reply.statfs(1 << 24, 1 << 23, 1 << 23, 1 << 20, 1 << 20, 4_096, 255, 4_096);
    }
}
