//! The fakes for the world's traits. Every effect passes one gate, at which the power can go.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::future::pending;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use patchdrop::model::exchange::{
    Answer, Body, CredentialName, Progress, Reply, Request, Token, TokenRefusal,
};
use patchdrop::model::file::{Digest, FileId, FolderSeen, Identity, Place, Sighting};
use patchdrop::model::outcome::{Cause, Code};
use patchdrop::model::route::RouteName;
use patchdrop::model::secret::Secret;
use patchdrop::model::step::{
    Attempt, Entry, History, RouteRecord, State as FileState, Step, Twin, UNCLEAN_BOOT, Verdict,
};
use patchdrop::model::time::{Now, Tick, Wall};
use patchdrop::world::World;
use patchdrop::world::clock::Clock;
use patchdrop::world::endpoint::Endpoint;
use patchdrop::world::folder::{Disk, Examined, FolderError, MoveError};
use patchdrop::world::ledger::{Count, Ledger, LedgerError, Query};
use patchdrop::world::token::Tokens;
use tokio::sync::{Notify, mpsc};

use crate::state::{
    Asked, Behaviour, Disk as DiskState, Record, Rule, Run, Server, Stored, digest,
};
use crate::stories::StoryFlow;

/// Everything that outlives a simulated process.
pub struct State {
    pub disk: DiskState,
    pub record: Record,
    pub server: Server,
    pub rule: Rule,
    pub flow: Option<StoryFlow>,
    pub ledger_refuses: fn(&Step, u64) -> bool,
    pub clock: fn(u64) -> i64,
    pub syncs_folders: bool,
    /// Neither folders nor ledger are synced: only the end of a process has to be outlived.
    pub is_unsynced: bool,
    /// Folders on a volume of their own.
    pub elsewhere: BTreeSet<PathBuf>,
    pub token: u64,
    pub token_requests: usize,
    /// Wall time at the start of the present process.
    pub wall_base: i64,
    pub began_at: i64,
    pub effects: usize,
    pub cut_before: Option<usize>,
    pub is_cut: bool,
    pub last_effect: String,
    pub violations: Vec<String>,
    pub dice: u64,
}

pub struct Fake {
    pub state: Arc<Mutex<State>>,
    pub cut: Arc<Notify>,
    started: tokio::time::Instant,
}

impl Fake {
    pub fn new(state: Arc<Mutex<State>>, cut: Arc<Notify>) -> Self {
        Self { state, cut, started: tokio::time::Instant::now() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn wall(&self) -> Wall {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap();
        let state = self.lock();
        let true_wall = state.wall_base + elapsed;
        let at = u64::try_from((true_wall - state.began_at) / 1_000).unwrap_or(0);
        Wall(true_wall + (state.clock)(at))
    }

    /// What is appended is on record a moment later; readers see it then.
    fn read(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let appended = std::mem::take(&mut state.record.appended);
        if !appended.is_empty() {
            state.record.commit(appended);
        }
        state
    }

    /// The gate before every effect. When the power goes, nothing returns any more.
    async fn gate(&self, what: impl FnOnce() -> String) {
        // Others may run between any two effects.
        tokio::task::yield_now().await;
        if !self.passes(what) {
            pending::<()>().await;
        }
    }

    fn passes(&self, what: impl FnOnce() -> String) -> bool {
        let mut state = self.lock();
        if state.is_cut {
            return false;
        }
        if state.cut_before == Some(state.effects) {
            state.is_cut = true;
            state.last_effect = what();
            self.cut.notify_one();
            return false;
        }
        state.effects += 1;
        true
    }
}

impl Fake {
    /// The copy takes its name in one effect; the original goes in another.
    async fn move_across(&self, from: Place, to: Place) -> Result<Identity, MoveError> {
        self.gate(|| format!("copy {from} to {to}")).await;
        let now = self.wall();
        let copied = {
            let mut state = self.lock();
            if state.is_unsynced {
                state.disk.sync(&from.folder);
            }
            let Some(node) = state.disk.node_at(&from) else {
                return Err(MoveError::Gone { source_path: from.path() });
            };
            if state.disk.node_at(&to).is_some() {
                return Err(MoveError::Taken { target: to.path() });
            }
            state.disk.copy(node, &to, now);
            state.disk.identity(node)
        };
        self.finish_move(from, copied, to).await?;
        Ok(copied)
    }
}

impl State {
    pub fn violates(&mut self, promise: &str, text: &str) {
        self.violations.push(format!("{promise}: {text}"));
    }
}

pub struct Parts(pub Arc<Fake>);

impl World for Parts {
    type Clock = Fake;
    type Disk = Fake;
    type Ledger = Fake;
    type Endpoint = Fake;
    type Tokens = Fake;
    fn clock(&self) -> &Fake {
        &self.0
    }
    fn disk(&self) -> &Fake {
        &self.0
    }
    fn ledger(&self) -> &Fake {
        &self.0
    }
    fn endpoint(&self) -> &Fake {
        &self.0
    }
    fn tokens(&self) -> &Fake {
        &self.0
    }
}

impl Clock for Fake {
    fn now(&self) -> Now {
        let tick = u64::try_from(self.started.elapsed().as_millis()).unwrap();
        Now { wall: self.wall(), tick: Tick(tick) }
    }

    async fn sleep(&self, span: Duration) {
        tokio::time::sleep_until(tokio::time::Instant::now() + span).await;
    }

    fn dice(&self) -> f64 {
        let mut state = self.lock();
        state.dice = state.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        f64::from(u32::try_from(state.dice >> 40).unwrap()) / f64::from(1_u32 << 24)
    }
}

impl Disk for Fake {
    type Grip = u64;

    async fn sweep(
        &self,
        folder: Arc<Path>,
        chunks: mpsc::Sender<Vec<Sighting>>,
    ) -> Result<(), FolderError> {
        let all: Vec<Sighting> = {
            let state = self.lock();
            let Some(names) = state.disk.folders.get(&*folder) else {
                return Err(FolderError::Gone { path: folder.to_path_buf() });
            };
            names.iter().map(|(name, node)| state.disk.sighting(name, *node)).collect()
        };
        for chunk in all.chunks(2) {
            if chunks.send(chunk.to_vec()).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn subfolders(&self, _folder: Arc<Path>) -> Result<Vec<OsString>, FolderError> {
        Ok(Vec::new())
    }

    async fn examine<T, F>(&self, place: Place, read: F) -> Result<Examined<u64, T>, FolderError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Read, &Identity) -> T + Send + 'static,
    {
        tokio::task::yield_now().await;
        let (node, identity, changed_at, content) = {
            let state = self.lock();
            let Some(node) = state.disk.node_at(&place) else {
                return Err(FolderError::Gone { path: place.path() });
            };
            let known = state.disk.nodes[&node].clone();
            (node, state.disk.identity(node), known.changed_at, known.content)
        };
        let findings = read(&mut Cursor::new(content), &identity);
        Ok(Examined { grip: node, identity, changed_at, lease_granted: true, links: 1, findings })
    }

    async fn claim(&self, grip: u64, from: Place, to: Place) -> Result<(), MoveError> {
        if self.is_elsewhere(Arc::clone(&from.folder), Arc::clone(&to.folder)).await {
            // A claim is a rename, and nothing else.
            let source = std::io::Error::from(std::io::ErrorKind::CrossesDevices);
            return Err(FolderError::Io { doing: "move", path: from.path(), source }.into());
        }
        self.move_new(from, to.clone()).await?;
        if self.lock().disk.node_at(&to) != Some(grip) {
            return Err(MoveError::Swapped { target: to.path() });
        }
        Ok(())
    }

    async fn move_new(&self, from: Place, to: Place) -> Result<Identity, MoveError> {
        if self.is_elsewhere(Arc::clone(&from.folder), Arc::clone(&to.folder)).await {
            return self.move_across(from, to).await;
        }
        self.gate(|| format!("move {from} to {to}")).await;
        let now = self.wall();
        let mut state = self.lock();
        if !state.disk.folders.contains_key(&*to.folder) {
            return Err(FolderError::Gone { path: to.path() }.into());
        }
        let Some(node) = state.disk.node_at(&from) else {
            return Err(MoveError::Gone { source_path: from.path() });
        };
        if state.disk.node_at(&to).is_some() {
            return Err(MoveError::Taken { target: to.path() });
        }
        state.disk.rename(&from, &to, false, now);
        Ok(state.disk.identity(node))
    }

    async fn finish_move(
        &self,
        from: Place,
        identity: Identity,
        to: Place,
    ) -> Result<(), FolderError> {
        Disk::sync(self, Arc::clone(&to.folder)).await?;
        if self.lock().is_unsynced {
            // The original is not removed before its copy is durable, whatever else is left out.
            self.lock().disk.sync(&to.folder);
        }
        self.gate(|| format!("remove {from}, which was copied")).await;
        let mut state = self.lock();
        if state.disk.node_at(&from).is_some_and(|node| state.disk.identity(node) == identity) {
            state.disk.remove(&from);
            if state.is_unsynced {
                state.disk.sync(&from.folder);
            }
        }
        Ok(())
    }

    async fn is_elsewhere(&self, from: Arc<Path>, to: Arc<Path>) -> bool {
        let elsewhere = &self.lock().elsewhere;
        elsewhere.contains(&*from) != elsewhere.contains(&*to)
    }

    async fn sync(&self, folder: Arc<Path>) -> Result<(), FolderError> {
        self.gate(|| format!("sync {}", folder.display())).await;
        let mut state = self.lock();
        if state.syncs_folders {
            state.disk.sync(&folder);
        }
        Ok(())
    }

    async fn sync_volume(&self, folder: Arc<Path>) -> Result<(), FolderError> {
        self.gate(|| format!("sync the volume of {}", folder.display())).await;
        let mut state = self.lock();
        if state.syncs_folders || state.is_unsynced {
            state.disk.sync_all();
        }
        Ok(())
    }

    async fn look(&self, place: Place) -> Result<Option<Sighting>, FolderError> {
        let state = self.lock();
        if state.disk.folders.contains_key(&place.path()) {
            let identity = Identity { volume: 1, number: 1, size: 0, mtime_ns: 0 };
            let kind = patchdrop::model::file::Kind::Folder;
            let changed_at = Wall(0);
            return Ok(Some(Sighting { name: place.name, kind, identity, changed_at }));
        }
        Ok(state.disk.node_at(&place).map(|node| state.disk.sighting(&place.name, node)))
    }

    async fn digest(&self, place: Place) -> Result<Option<(Identity, Digest)>, FolderError> {
        let state = self.lock();
        Ok(state
            .disk
            .node_at(&place)
            .map(|node| (state.disk.identity(node), digest(&state.disk.nodes[&node].content))))
    }

    fn open(&self, place: &Place) -> Result<Box<dyn Read + Send>, FolderError> {
        match self.lock().disk.content(place) {
            Some(content) => Ok(Box::new(Cursor::new(content.to_vec()))),
            None => Err(FolderError::Gone { path: place.path() }),
        }
    }

    async fn write(&self, place: Place, content: Vec<u8>) -> Result<(), FolderError> {
        self.gate(|| format!("write {place}")).await;
        let now = self.wall();
        self.lock().disk.create(&place, content, now);
        Ok(())
    }

    async fn remove(&self, place: Place) -> Result<(), FolderError> {
        self.gate(|| format!("remove {place}")).await;
        self.lock().disk.remove(&place);
        Ok(())
    }

    async fn make_folder(&self, folder: Arc<Path>) -> Result<(), FolderError> {
        self.lock().disk.make_folder(&folder);
        Ok(())
    }

    async fn clear_temporary(&self, _folder: Arc<Path>) -> Result<u64, FolderError> {
        Ok(0)
    }

    async fn inspect_all(
        &self,
        folders: Vec<Arc<Path>>,
    ) -> Result<Vec<Option<FolderSeen>>, FolderError> {
        let state = self.lock();
        let seen = FolderSeen {
            kind: patchdrop::model::file::Kind::Folder,
            volume: 1,
            number: 1,
            is_local: true,
            owner: None,
            mode: 0o750,
        };
        let is_there = |folder: &Arc<Path>| state.disk.folders.contains_key(&**folder);
        Ok(folders.iter().map(|folder| is_there(folder).then_some(seen)).collect())
    }

    fn pin(&self, _folder: &Arc<Path>, _seen: FolderSeen) {}

    fn unpin(&self, _folder: &Path) {}

    fn pinned(&self, _folder: &Path) -> Option<FolderSeen> {
        None
    }

    fn account(&self) -> Option<u32> {
        None
    }

    async fn is_local(&self, _folder: Arc<Path>) -> bool {
        true
    }

    fn syncs_folders(&self) -> bool {
        self.lock().syncs_folders
    }
}

impl Ledger for Fake {
    async fn commit(&self, steps: Vec<Step>) -> Result<(), LedgerError> {
        self.gate(|| format!("commit {steps:?}")).await;
        let now = self.wall();
        let mut state = self.lock();
        let at = u64::try_from((now.0 - state.began_at) / 1_000).unwrap_or(0);
        if steps.iter().any(|step| (state.ledger_refuses)(step, at)) {
            return Err(LedgerError::Unavailable("no space left on device".into()));
        }
        let mut all = std::mem::take(&mut state.record.appended);
        all.extend(steps);
        let excerpt =
            |step: &Step| matches!(step, Step::Decided { cause, .. } if cause.excerpt.is_some());
        if all.iter().any(excerpt) {
            state.violates("P11", "an excerpt went into the ledger");
        }
        state.record.commit(all);
        Ok(())
    }

    fn append(&self, steps: Vec<Step>) {
        if self.passes(|| "append".into()) {
            self.lock().record.appended.extend(steps);
        }
    }

    fn begun(&self, id: FileId, attempt: u32) -> Result<(), LedgerError> {
        if !self.passes(|| format!("begun {id} {attempt}")) {
            return Err(LedgerError::Replaced);
        }
        self.lock().record.begun.insert((id, attempt));
        Ok(())
    }

    fn had_begun(&self, id: FileId, attempt: u32) -> Option<bool> {
        let state = self.lock();
        if state.record.is_other_boot && !state.record.own.contains(&id) {
            return None;
        }
        Some(state.record.begun.contains(&(id, attempt)))
    }

    fn is_unsure(&self) -> bool {
        let record = &self.lock().record;
        record.unsynced_boot.is_some_and(|boot| boot != record.boot)
    }

    async fn note_cut(&self, steps: Vec<Step>) -> Result<(), LedgerError> {
        self.gate(|| format!("note the cut {steps:?}")).await;
        let at = self.wall();
        let mut state = self.lock();
        let is_unsynced = state.is_unsynced;
        let record = &mut state.record;
        for step in &steps {
            record.apply(step);
        }
        for route in record.routes.values_mut().filter(|route| route.pause_code.is_none()) {
            route.paused_at.get_or_insert(at);
            route.pause_code = Some(Code::of(UNCLEAN_BOOT));
        }
        record.unsure_below = record.reserved_end;
        record.unsynced_boot = is_unsynced.then_some(record.boot);
        record.sync();
        Ok(())
    }

    fn unsure_below(&self) -> Option<FileId> {
        let state = self.lock();
        state.is_unsynced.then_some(FileId(state.record.unsure_below))
    }

    fn is_unsynced(&self) -> bool {
        self.lock().record.unsynced_boot.is_some()
    }

    async fn rest(&self) -> Result<(), LedgerError> {
        self.gate(|| "rest".into()).await;
        let mut state = self.lock();
        let appended = std::mem::take(&mut state.record.appended);
        state.record.unsynced_boot = None;
        state.record.commit(appended);
        Ok(())
    }

    fn key(&self, first: FileId) -> String {
        format!("key-{first}")
    }

    async fn reserve(&self, floor: FileId) -> Result<Range<u64>, LedgerError> {
        self.gate(|| "reserve".into()).await;
        let mut state = self.lock();
        let start = state.record.reserved_end.max(floor.0);
        state.record.reserved_end = start + 10_000;
        state.record.sync();
        Ok(start..start + 10_000)
    }

    fn has_reserved(&self, id: FileId) -> bool {
        id.0 < self.lock().record.reserved_end
    }

    async fn unsettled(&self) -> Result<Vec<Entry>, LedgerError> {
        let state = self.lock();
        Ok(state.record.entries.values().filter(|entry| !entry.settled).cloned().collect())
    }

    async fn entry(&self, id: FileId) -> Result<Option<Entry>, LedgerError> {
        let state = self.read();
        Ok(state.record.entries.get(&id).cloned())
    }

    async fn history(&self, id: FileId) -> Result<Option<History>, LedgerError> {
        let state = self.read();
        Ok(state.record.entries.get(&id).map(|entry| History {
            entry: entry.clone(),
            attempts: state.record.attempts.get(&id).cloned().unwrap_or_default(),
            remarks: state.record.remarks.get(&id).cloned().unwrap_or_default(),
        }))
    }

    async fn list(&self, query: Query) -> Result<Vec<Entry>, LedgerError> {
        let state = self.read();
        let fits = |entry: &&Entry| {
            (query.states.is_empty() || query.states.contains(&entry.state))
                && query.name.as_ref().is_none_or(|name| *name == entry.name)
        };
        Ok(state.record.entries.values().rev().filter(fits).take(query.limit).cloned().collect())
    }

    async fn predecessor(
        &self,
        route: &RouteName,
        digest: &Digest,
    ) -> Result<Option<Entry>, LedgerError> {
        let state = self.read();
        let fits = |entry: &&Entry| {
            entry.settled
                && entry.route == *route
                && entry.digest == Some(*digest)
                && matches!(entry.state, FileState::Failed | FileState::Held)
        };
        Ok(state.record.entries.values().rev().find(fits).cloned())
    }

    async fn twins(&self, id: FileId) -> Result<Vec<Twin>, LedgerError> {
        let state = self.read();
        let own = state.record.twins.get(&id);
        let is_in_doubt = |attempt: &Attempt| {
            attempt.end.as_ref().is_some_and(|end| end.verdict == Verdict::InDoubt)
        };
        let twin = |entry: &Entry| Twin {
            entry: entry.clone(),
            was_in_doubt: state
                .record
                .attempts
                .get(&entry.id)
                .into_iter()
                .flatten()
                .any(is_in_doubt),
        };
        let share = |entry: &&Entry| own.is_some() && state.record.twins.get(&entry.id) == own;
        let mut twins: Vec<Twin> = state.record.entries.values().filter(share).map(twin).collect();
        twins.sort_by_key(|twin| {
            let is_accepted = matches!(twin.entry.state, FileState::Sent | FileState::Confirming);
            (twin.entry.id != id, !is_accepted, twin.entry.id)
        });
        Ok(twins)
    }

    async fn successor(&self, id: FileId) -> Result<Option<FileId>, LedgerError> {
        let state = self.read();
        let follows =
            |entry: &&Entry| entry.previous == Some(id) && entry.state != FileState::Cancelled;
        Ok(state.record.entries.values().rev().find(follows).map(|entry| entry.id))
    }

    async fn files_of_runs(
        &self,
        runs: Vec<String>,
    ) -> Result<BTreeMap<String, FileId>, LedgerError> {
        let state = self.read();
        let named = state.record.entries.values().filter_map(|entry| {
            entry.run.as_ref().filter(|run| runs.contains(run)).map(|run| (run.clone(), entry.id))
        });
        Ok(named.collect())
    }

    async fn attempted_between(
        &self,
        routes: Vec<RouteName>,
        from: Wall,
        to: Wall,
    ) -> Result<BTreeSet<FileId>, LedgerError> {
        let state = self.read();
        let under_way = |id: &FileId| {
            state.record.attempts.get(id).into_iter().flatten().any(|attempt| {
                let sent = attempt.end.as_ref().is_none_or(|end| end.verdict != Verdict::NotSent);
                sent && attempt.begun_at <= to && attempt.ended_at.is_none_or(|end| end >= from)
            })
        };
        let entries = state.record.entries.values().filter(|entry| routes.contains(&entry.route));
        Ok(entries.map(|entry| entry.id).filter(under_way).collect())
    }

    async fn counts(&self) -> Result<Vec<Count>, LedgerError> {
        Ok(Vec::new())
    }

    async fn routes(&self) -> Result<Vec<RouteRecord>, LedgerError> {
        Ok(self.lock().record.routes.values().cloned().collect())
    }

    async fn all_paused_at(&self) -> Result<Option<Wall>, LedgerError> {
        Ok(self.lock().record.all_paused_at)
    }

    async fn put_all_paused(
        &self,
        at: Option<Wall>,
        records: Vec<RouteRecord>,
    ) -> Result<(), LedgerError> {
        self.gate(|| "put the pause of all".into()).await;
        let mut state = self.lock();
        state.record.all_paused_at = at;
        let named = records.into_iter().map(|record| (record.name.to_string(), record));
        state.record.routes.extend(named);
        state.record.sync();
        Ok(())
    }

    async fn put_route(&self, record: RouteRecord) -> Result<(), LedgerError> {
        self.gate(|| "put route".into()).await;
        let mut state = self.lock();
        state.record.routes.insert(record.name.to_string(), record);
        state.record.sync();
        Ok(())
    }
}

impl Endpoint for Fake {
    async fn send(&self, request: Request) -> Reply {
        if request.method == "GET" {
            self.gate(|| "question arrives".into()).await;
            let now = self.wall();
            let told = self.lock().tell(request.url.reveal(), now);
            self.gate(|| "told".into()).await;
            return told;
        }
        self.gate(|| "request arrives".into()).await;
        let headers: BTreeMap<String, String> = request
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.reveal().to_owned()))
            .collect();
        let content = match request.body {
            Body::Bytes(bytes) => bytes.to_vec(),
            Body::Stream(mut stream) => {
                let mut content = Vec::new();
                let read = stream.reader.read_to_end(&mut content);
                if read.is_err() || digest(&content) != stream.digest {
                    return Reply::Changed;
                }
                content
            }
        };
        let arrived = self.arrive(&headers, &content);
        // The server takes its time: another request of the same name would be seen in flight.
        tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(5)).await;
        let name = headers.get("X-Name").cloned().unwrap_or_default();
        self.lock().server.in_flight.remove(&OsString::from(name));
        self.gate(|| "answer comes".into()).await;
        let (behaviour, run) = arrived;
        reply(behaviour, run)
    }
}

fn reply(behaviour: Behaviour, run: Option<u64>) -> Reply {
    let cut = |progress| {
        let cause = Cause::new(Code::of("cut"), "the connection was cut");
        Reply::NoAnswer { progress, cause }
    };
    let status = |status| Reply::Answer(Answer { status, ..Answer::default() });
    match behaviour {
        Behaviour::Accept => Reply::Answer(Answer {
            status: 200,
            body: run.map(|run| format!(r#"{{"flow_run_id": {run}}}"#)).unwrap_or_default().into(),
            ..Answer::default()
        }),
        Behaviour::AcceptAndLose => cut(Progress::Whole),
        Behaviour::AcceptAndHide => status(504),
        Behaviour::Status(code) => status(code),
        Behaviour::Away => cut(Progress::Nothing),
    }
}

impl Fake {
    /// The server sees a request: what it does, and what must be true at this moment (P2, P3, P6,
    /// P8, P13).
    fn arrive(
        &self,
        headers: &BTreeMap<String, String>,
        content: &[u8],
    ) -> (Behaviour, Option<u64>) {
        let at = self.wall();
        let mut state = self.lock();
        let state = &mut *state;
        let token = headers
            .get("Authorization")
            .and_then(|value| value.strip_prefix("Bearer "))
            .and_then(|value| value.parse().ok())
            .unwrap_or(0);
        let before = state.server.seen.entry(content.to_vec()).or_default();
        let asked = Asked {
            content: String::from_utf8_lossy(content).into_owned(),
            before: *before,
            token,
            at: u64::try_from((at.0 - state.began_at) / 1_000).unwrap_or(0),
            stored: state.server.stored.len(),
        };
        let behaviour = (state.rule)(&asked);
        let mut named = None;
        if behaviour == Behaviour::Away {
            return (behaviour, named);
        }
        *before += 1;
        state.server.requests += 1;
        state.check_arrival(headers, content);
        let stores = matches!(
            behaviour,
            Behaviour::Accept | Behaviour::AcceptAndLose | Behaviour::AcceptAndHide
        );
        if let Some(id) = headers.get("X-Id").and_then(|id| FileId::parse(id)).filter(|_| stores) {
            state.server.stored.push(Stored { id, digest: digest(content) });
            if let Some(flow) = state.flow {
                let ends_as = (flow.run_ends)(&asked.content);
                let id = 700 + state.server.runs.len() as u64;
                let started_at = at.plus(Duration::from_secs(20));
                state.server.runs.push(Run { id, started_at, ends_as });
                named = flow.names_runs.then_some(id);
            }
        }
        (behaviour, named)
    }
}

impl State {
    /// The Core API: one run, or all that started in a span. A run has ended 40 s after its start.
    fn tell(&mut self, url: &str, now: Wall) -> Reply {
        let flow = self.flow.expect("only flows have runs");
        let before = self.server.questions;
        self.server.questions += 1;
        if !(flow.core_is_up)(before) {
            let cause = Cause::new(Code::of("cut"), "the core is away");
            return Reply::NoAnswer { progress: Progress::Nothing, cause };
        }
        let shown = |run: &Run| {
            let is_over = run.started_at.plus(Duration::from_secs(40)) <= now;
            let status = run.ends_as.filter(|_| is_over).unwrap_or(1);
            format!(r#"{{"id":{},"status":{status},"started_at":{}}}"#, run.id, run.started_at.0)
        };
        let begun = self.server.runs.iter().filter(|run| run.started_at <= now);
        let data = match url.split_once("/flow-runs/") {
            Some((_, log)) if log.contains("/flow-run-logs") => {
                r#"[{"log_level":"error","log_message":"no such customer"}]"#.to_owned()
            }
            Some((_, id)) => begun.filter(|run| run.id.to_string() == id).map(shown).collect(),
            None => {
                let bound = |name: &str| {
                    let (_, rest) = url.split_once(&format!("%5B{name}%5D=")).expect("a bound");
                    Wall(rest.split('&').next().and_then(|text| text.parse().ok()).expect("ms"))
                };
                let span = bound("started_after")..=bound("started_before");
                let runs = begun.filter(|run| span.contains(&run.started_at)).map(shown);
                format!("[{}]", runs.collect::<Vec<_>>().join(","))
            }
        };
        let status = if data.is_empty() { 404 } else { 200 };
        let body = format!(r#"{{"data":{data}}}"#).into();
        Reply::Answer(Answer { status, body, ..Answer::default() })
    }

    fn check_arrival(&mut self, headers: &BTreeMap<String, String>, content: &[u8]) {
        let Some(id) = headers.get("X-Id").and_then(|id| FileId::parse(id)) else {
            self.violates("P2", "a request without id");
            return;
        };
        let key = headers.get("Idempotency-Key").cloned().unwrap_or_default();
        let Some(entry) = self.record.entries.get(&id).cloned() else {
            self.violates("P2", &format!("{id} was sent before its claim was on record"));
            return;
        };
        if entry.attempt_open_since.is_none() {
            self.violates("P2", &format!("{id} was sent without an attempt on record"));
        }
        if !self.server.used.insert((id, entry.attempt)) {
            self.violates("P2", &format!("attempt {} of {id} was used twice", entry.attempt));
        }
        let is_accepted = entry.confirming_since.is_some() || entry.state == FileState::Sent;
        if self.record.has_delivered(id) || is_accepted {
            self.violates("P3", &format!("{id} was sent after a recorded acceptance"));
        }
        if entry.key != key {
            self.violates("P6", &format!("{id} went out under another key than recorded"));
        }
        let claimed = patchdrop::journey::settle::claimed_name(id, &entry.name);
        let is_there = self.disk.folders.iter().any(|(folder, names)| {
            let place = Place::new(&Arc::from(folder.as_path()), claimed.clone());
            names.contains_key(&claimed)
                && (!self.syncs_folders || self.disk.durably_at(&place).is_some())
        });
        if !is_there {
            self.violates("P2", &format!("{id} was sent before its rename was durable"));
        }
        if entry.envelope.as_ref().is_none_or(|body| body.digest != digest(content)) {
            self.violates("P8", &format!("{id}: other bytes than recorded"));
        }
        if !self.server.in_flight.insert(entry.name.clone()) {
            self.violates("P13", &format!("two files named {} in flight", entry.name.display()));
        }
        let ended = |id: FileId| {
            self.record
                .appended
                .iter()
                .any(|step| matches!(step, Step::Settled { id: one } if *one == id))
        };
        let older_waits = self.record.entries.values().any(|other| {
            !ended(other.id)
                && other.name == entry.name
                && other.route == entry.route
                && other.id < id
                && !other.settled
                // It is accepted: it has left.
                && other.confirming_since.is_none()
        });
        if older_waits {
            self.violates("P13", &format!("{id} overtook an older file of its name"));
        }
        self.server.keys.entry(content.to_vec()).or_default().insert(key);
    }
}

impl Tokens for Fake {
    async fn current(&self, credential: &CredentialName) -> Result<Token, TokenRefusal> {
        let generation = self.lock().token;
        if generation == 0 {
            return self.refresh(credential, 0).await;
        }
        Ok(token(generation))
    }

    async fn refresh(
        &self,
        _credential: &CredentialName,
        generation: u64,
    ) -> Result<Token, TokenRefusal> {
        let mut state = self.lock();
        if state.token <= generation {
            state.token = generation + 1;
            state.token_requests += 1;
        }
        Ok(token(state.token))
    }
}

fn token(generation: u64) -> Token {
    Token { authorization: Secret::new(format!("Bearer {generation}")), generation }
}
