//! The real folders and files. What the system does is in `unix.rs` and `windows.rs`, as plain
//! blocking functions; this carries them to the threads of their volume.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use super::group::SharedSyncs;
use super::lane::Volumes;
use super::system::{self, Grip};
use super::{Disk, Examined, FolderError, MoveError, Volume, volume_kind};
use crate::model::durability::Durability;
use crate::model::file::{Digest, FolderSeen, Identity, Place, Sighting};
use crate::model::room::Room;
use crate::model::time::Wall;
use crate::world::keeper::Keeper;
use crate::world::room::room;

/// Most sightings in one chunk of a sweep.
const CHUNK_MAX: usize = 256;
/// Chunks that one hop to a blocking thread reads. A slow receiver holds no thread.
const CHUNKS_A_HOP: usize = 4;

/// Folders and files of this machine. Holds no folder open between two calls, so that a volume can
/// be unmounted while patchdrop runs.
pub struct RealDisk {
    volumes: Volumes,
    syncs: Arc<SharedSyncs>,
    own: Arc<Own>,
}

/// What is this process's own: the names of its temporary files, the count of its fsyncs, and what
/// it knows its folders to be.
pub(super) struct Own {
    token: String,
    temporary: AtomicU64,
    started_at: Wall,
    fsyncs: AtomicU64,
    durability: Durability,
    #[cfg_attr(not(unix), expect(dead_code, reason = "nobody has to hand over anything there"))]
    keeper: Keeper,
    /// What folders must be, by their text: paths compare part by part, slowly.
    pins: RwLock<BTreeMap<OsString, FolderSeen>>,
}

impl RealDisk {
    /// `load` is the number of files on their way; folder fsyncs wait for company by it.
    #[must_use]
    pub fn new(load: Arc<AtomicUsize>, durability: Durability) -> Self {
        Self {
            volumes: Volumes::default(),
            syncs: Arc::new(SharedSyncs::new(load)),
            own: Arc::new(Own::new(durability)),
        }
    }

    /// Makes what it makes for the account that `state_dir` belongs to.
    #[must_use]
    pub fn kept_by(mut self, keeper: Keeper) -> Self {
        self.own = Arc::new(Own { keeper, ..Own::new(self.own.durability) });
        self
    }

    /// How many fsyncs there were so far, of folders and of files.
    #[must_use]
    pub fn fsyncs(&self) -> u64 {
        self.own.fsyncs.load(Ordering::Relaxed)
    }

    /// Removes the temporary files (`.patchdrop-*.part`) that an earlier process left in a folder,
    /// and says how many. Those of this process, or changed since it started, stay.
    ///
    /// # Errors
    /// [`FolderError`] if the folder can't be listed or a file not removed.
    pub async fn temporary_names_swept(&self, folder: Arc<Path>) -> Result<u64, FolderError> {
        let own = Arc::clone(&self.own);
        self.on(&Arc::clone(&folder), move || sweep_temporary(&folder, &own)).await
    }

    async fn on<T: Send + 'static>(
        &self,
        folder: &Arc<Path>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.volumes.lanes(folder).work.run(job).await
    }
}

impl Disk for RealDisk {
    type Grip = Grip;

    async fn sweep(
        &self,
        folder: Arc<Path>,
        chunks: mpsc::Sender<Vec<Sighting>>,
    ) -> Result<(), FolderError> {
        // A volume may have been mounted or unmounted here since the last sweep.
        let lanes = self.volumes.looked_up(&folder);
        let own = Arc::clone(&self.own);
        let mut read = lanes
            .work
            .run(move || {
                let mut listing = system::Listing::open(folder, &own)?;
                Ok((listing.read(CHUNK_MAX * CHUNKS_A_HOP)?, listing))
            })
            .await;
        loop {
            let (mut sightings, mut listing) = read?;
            let is_end = sightings.len() < CHUNK_MAX * CHUNKS_A_HOP;
            while !sightings.is_empty() {
                let rest = sightings.split_off(sightings.len().min(CHUNK_MAX));
                if chunks.send(sightings).await.is_err() {
                    return Ok(());
                }
                sightings = rest;
            }
            if is_end {
                return Ok(());
            }
            let read_on = move || Ok((listing.read(CHUNK_MAX * CHUNKS_A_HOP)?, listing));
            read = lanes.work.run(read_on).await;
        }
    }

    async fn subfolders(&self, folder: Arc<Path>) -> Result<Vec<OsString>, FolderError> {
        let own = Arc::clone(&self.own);
        self.on(&Arc::clone(&folder), move || system::subfolders(folder, &own)).await
    }

    async fn examine<T, F>(&self, place: Place, read: F) -> Result<Examined<Grip, T>, FolderError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Read, &Identity) -> T + Send + 'static,
    {
        let folder = Arc::clone(&place.folder);
        let own = Arc::clone(&self.own);
        self.on(&folder, move || system::examine(&place, &own, read)).await
    }

    async fn claim(&self, grip: Grip, from: Place, to: Place) -> Result<(), MoveError> {
        let lanes = self.volumes.lanes_for_move(&from.folder, &to.folder);
        let own = Arc::clone(&self.own);
        lanes.work.run(move || system::claim(grip, &from, &to, &own)).await
    }

    async fn move_new(&self, from: Place, to: Place) -> Result<Identity, MoveError> {
        let own = Arc::clone(&self.own);
        let lanes = self.volumes.lanes_for_move(&from.folder, &to.folder);
        lanes.work.run(move || system::move_new(&from, &to, &own)).await
    }

    async fn finish_move(
        &self,
        from: Place,
        identity: Identity,
        to: Place,
    ) -> Result<(), FolderError> {
        let own = Arc::clone(&self.own);
        let lanes = self.volumes.lanes_for_move(&from.folder, &to.folder);
        lanes.work.run(move || system::finish_move(&from, identity, &to, &own)).await
    }

    async fn is_elsewhere(&self, from: Arc<Path>, to: Arc<Path>) -> bool {
        let lanes = self.volumes.lanes_for_move(&from, &to);
        lanes.work.run(move || system::is_elsewhere(&from, &to)).await
    }

    async fn sync(&self, folder: Arc<Path>) -> Result<(), FolderError> {
        if !self.syncs_folders() {
            return Ok(());
        }
        let own = Arc::clone(&self.own);
        let lanes = self.volumes.lanes(&folder);
        let fsync = move |folder: &Path| system::sync_folder(folder, &own);
        let answer = self.syncs.sync(&lanes.syncs, &folder, fsync).await;
        answer.map_err(|error| FolderError::of("sync", folder.to_path_buf(), error))
    }

    async fn sync_volume(&self, folder: Arc<Path>) -> Result<(), FolderError> {
        let own = Arc::clone(&self.own);
        let lanes = self.volumes.lanes(&folder);
        lanes.syncs.run(move || system::sync_volume(&folder, &own)).await
    }

    async fn look(&self, place: Place) -> Result<Option<Sighting>, FolderError> {
        let folder = Arc::clone(&place.folder);
        let own = Arc::clone(&self.own);
        self.on(&folder, move || system::look(&place, &own)).await
    }

    async fn digest(&self, place: Place) -> Result<Option<(Identity, Digest)>, FolderError> {
        let folder = Arc::clone(&place.folder);
        let own = Arc::clone(&self.own);
        self.on(&folder, move || system::digest(&place, &own)).await
    }

    fn open(&self, place: &Place) -> Result<Box<dyn Read + Send>, FolderError> {
        system::open(place, &self.own)
    }

    async fn write(&self, place: Place, content: Vec<u8>) -> Result<(), FolderError> {
        let own = Arc::clone(&self.own);
        let folder = Arc::clone(&place.folder);
        self.on(&folder, move || system::write(&place, &content, &own)).await
    }

    async fn remove(&self, place: Place) -> Result<(), FolderError> {
        let folder = Arc::clone(&place.folder);
        let own = Arc::clone(&self.own);
        self.on(&folder, move || system::remove(&place, &own)).await
    }

    async fn make_folder(&self, folder: Arc<Path>) -> Result<(), FolderError> {
        let own = Arc::clone(&self.own);
        self.on(&Arc::clone(&folder), move || system::make_folder(&folder, &own)).await
    }

    async fn clear_temporary(&self, folder: Arc<Path>) -> Result<u64, FolderError> {
        self.temporary_names_swept(folder).await
    }

    async fn inspect_all(
        &self,
        folders: Vec<Arc<Path>>,
    ) -> Result<Vec<Option<FolderSeen>>, FolderError> {
        let mut seen = Vec::with_capacity(folders.len());
        for (lanes, here) in self.volumes.runs(folders) {
            let ask = move || here.iter().map(|folder| system::inspect(folder)).collect();
            let asked: Result<Vec<_>, _> = lanes.work.run(ask).await;
            seen.extend(asked?);
        }
        Ok(seen)
    }

    fn pin(&self, folder: &Arc<Path>, seen: FolderSeen) {
        self.own.pin(folder, seen);
    }

    fn unpin(&self, folder: &Path) {
        self.own.unpin(folder);
    }

    fn pinned(&self, folder: &Path) -> Option<FolderSeen> {
        self.own.pinned(folder)
    }

    fn account(&self) -> Option<u32> {
        #[cfg(unix)]
        let account = Some(system::account());
        #[cfg(not(unix))]
        let account = None;
        account
    }

    async fn is_local(&self, folder: Arc<Path>) -> bool {
        self.on(&Arc::clone(&folder), move || volume_kind(&folder) == Volume::Local).await
    }

    async fn rooms(&self, mut folders: Vec<Arc<Path>>) -> Vec<(Arc<Path>, Room)> {
        let mut rooms = Vec::with_capacity(folders.len());
        folders.sort_by_cached_key(|folder| Arc::as_ptr(&self.volumes.lanes(folder)).addr());
        for (lanes, here) in self.volumes.runs(folders) {
            let ask = |folder: Arc<Path>| room(&folder).map(|room| (folder, room));
            let asked = move || here.into_iter().filter_map(ask).collect::<Vec<_>>();
            rooms.extend(lanes.work.run(asked).await);
        }
        rooms
    }

    fn syncs_folders(&self) -> bool {
        system::SYNCS_FOLDERS && self.own.durability == Durability::PowerLoss
    }
}

impl Own {
    pub(super) fn new(durability: Durability) -> Self {
        let token = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
        Self {
            token: format!("{token:016x}"),
            temporary: AtomicU64::new(0),
            started_at: now(),
            fsyncs: AtomicU64::new(0),
            durability,
            keeper: Keeper::default(),
            pins: RwLock::default(),
        }
    }

    /// Whose what is made here shall be.
    #[cfg(unix)]
    pub(super) fn keeper(&self) -> Keeper {
        self.keeper
    }

    /// A name for a temporary file that no other process and no other call uses.
    pub(super) fn temporary_name(&self) -> OsString {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        OsString::from(format!("{TEMPORARY_PREFIX}{}-{number}{TEMPORARY_SUFFIX}", self.token))
    }

    /// Whether this is the name of a temporary file of another process.
    fn is_foreign_temporary(&self, name: &OsStr) -> bool {
        name.to_str().is_some_and(|name| {
            name.strip_prefix(TEMPORARY_PREFIX).is_some_and(|rest| {
                rest.ends_with(TEMPORARY_SUFFIX) && !rest.starts_with(&self.token)
            })
        })
    }

    /// What a folder must be, if anybody has said so.
    pub(super) fn pinned(&self, folder: &Path) -> Option<FolderSeen> {
        let pins = self.pins.read().unwrap_or_else(PoisonError::into_inner);
        pins.get(folder.as_os_str()).copied()
    }

    pub(super) fn pin(&self, folder: &Arc<Path>, seen: FolderSeen) {
        let mut pins = self.pins.write().unwrap_or_else(PoisonError::into_inner);
        pins.insert(folder.as_os_str().to_owned(), seen);
    }

    pub(super) fn unpin(&self, folder: &Path) {
        let mut pins = self.pins.write().unwrap_or_else(PoisonError::into_inner);
        pins.remove(folder.as_os_str());
    }

    /// The one door of every fsync that only a power cut can make a difference to: it is left out
    /// where nothing but a crash of this process has to be outlived.
    pub(super) fn sync(&self, fsync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.durability {
            Durability::PowerLoss => self.sync_always(fsync),
            Durability::ProcessCrash => Ok(()),
        }
    }

    /// Makes up for a sync that was left out. A file that is copied elsewhere is so durably: where
    /// its own last rename, or the removal of the original, were not, a power cut could show it
    /// twice.
    #[cfg(unix)]
    pub(super) fn sync_late(&self, fsync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.durability {
            Durability::PowerLoss => Ok(()),
            Durability::ProcessCrash => fsync(),
        }
    }

    /// The door of those without which a file could be lost: of a copy before its original goes,
    /// of a new folder, of a whole volume at an end.
    pub(super) fn sync_always(&self, fsync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.fsyncs.fetch_add(1, Ordering::Relaxed);
        fsync()
    }
}

const TEMPORARY_PREFIX: &str = ".patchdrop-";
const TEMPORARY_SUFFIX: &str = ".part";

/// File times lag behind the clock by up to one tick of the kernel, 10 ms at the slowest.
const TICK: Duration = Duration::from_millis(10);

/// Only what changed before this process started is stale: a command may be copying a file in
/// beside the service.
fn sweep_temporary(folder: &Arc<Path>, own: &Own) -> Result<u64, FolderError> {
    let mut removed = 0;
    let mut listing = system::Listing::open(Arc::clone(folder), own)?;
    loop {
        let sightings = listing.read(CHUNK_MAX)?;
        if sightings.is_empty() {
            return Ok(removed);
        }
        for sighting in sightings {
            let is_file = sighting.kind == crate::model::file::Kind::File;
            let is_stale = sighting.changed_at.plus(TICK) < own.started_at;
            if is_file && is_stale && own.is_foreign_temporary(&sighting.name) {
                system::remove(&Place::new(folder, sighting.name), own)?;
                removed += 1;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the moment this process began, asked once")]
fn now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
