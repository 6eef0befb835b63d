//! Threads for work that may block, a few for each volume: a hung mount keeps its own threads
//! and nobody else's. They are plain threads, so a stop need not wait for them.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

#[cfg(unix)]
use super::volume::MountTable;
#[cfg(windows)]
use super::windows::MountTable;

/// Threads of a volume elsewhere for looks, reads and moves: each waits for answers most of its
/// time. One of this machine gets as many as there are processors, up to this: more would spin on
/// the locks of its folders.
const WORKERS_MAX: usize = 8;
/// Even one processor does not wait for one disk alone.
const WORKERS_MIN: usize = 2;
/// Threads of one volume for folder fsyncs; each also waits a few milliseconds for company.
const SYNCERS_MAX: usize = 8;
/// How long a thread without work stays.
const IDLE_FOR: Duration = Duration::from_secs(10);
/// Folders whose volume is remembered. Dated targets (`sent/2026-11-21`) come without end.
const FOLDERS_MAX: usize = 4_096;

type Job = Box<dyn FnOnce() + Send>;

/// A queue of jobs and the threads that take them. Each job has a caller that waits for it, so the
/// queue is as short as the callers are few.
pub(super) struct Lane {
    shared: Arc<Shared>,
}

struct Shared {
    threads_max: usize,
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Lane {
    fn new(threads_max: usize) -> Self {
        let shared =
            Shared { threads_max, state: Mutex::new(State::default()), bell: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Runs `job` on one of the threads and waits for it. If the caller stops waiting before the
    /// job has begun, it never begins.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (answer, result) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
        self.submit(Box::new(move || {
            if !answer.is_closed() {
                drop(answer.send(catch_unwind(AssertUnwindSafe(job))));
            }
        }));
        match result.await {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => unreachable!("a job answers as long as its caller waits"),
        }
    }

    /// Runs `job` on one of the threads.
    pub(super) fn submit(&self, job: Job) {
        let mut state = self.shared.lock();
        state.jobs.push_back(job);
        if state.idle > 0 {
            drop(state);
            self.shared.bell.notify_one();
        } else if state.threads < self.shared.threads_max {
            state.threads += 1;
            drop(state);
            self.add_thread();
        }
    }

    fn add_thread(&self) {
        let shared = Arc::clone(&self.shared);
        let started =
            std::thread::Builder::new().name("disk".to_owned()).spawn(move || shared.work());
        if started.is_err() {
            // The system gives no more threads. Others will take the job; without others it is
            // better done here, late, than never.
            let mut state = self.shared.lock();
            state.threads -= 1;
            let job = if state.threads == 0 { state.jobs.pop_front() } else { None };
            drop(state);
            if let Some(job) = job {
                job();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (woken, wait) =
                self.bell.wait_timeout(state, IDLE_FOR).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if wait.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

fn workers(is_remote: bool) -> usize {
    if is_remote {
        return WORKERS_MAX;
    }
    std::thread::available_parallelism()
        .map_or(WORKERS_MIN, usize::from)
        .clamp(WORKERS_MIN, WORKERS_MAX)
}

/// The threads of one volume.
pub(super) struct VolumeLanes {
    /// Looks, reads, moves.
    pub(super) work: Lane,
    /// Folder fsyncs.
    pub(super) syncs: Lane,
    is_remote: bool,
}

/// Which folder is on which volume. Asks the mount table only, never the volume, which may hang.
#[derive(Default)]
pub(super) struct Volumes {
    table: Mutex<MountTable>,
    state: Mutex<VolumesState>,
}

#[derive(Default)]
struct VolumesState {
    /// By the folder's text: paths compare part by part, slowly.
    of_folder: BTreeMap<OsString, Arc<VolumeLanes>>,
    of_mount: BTreeMap<PathBuf, Arc<VolumeLanes>>,
}

impl Volumes {
    /// The threads for a folder.
    pub(super) fn lanes(&self, folder: &Arc<Path>) -> Arc<VolumeLanes> {
        if let Some(lanes) = self.lock().of_folder.get(folder.as_os_str()) {
            return Arc::clone(lanes);
        }
        self.looked_up(folder)
    }

    /// The threads for a move: those of the remote side, which is the one that may hang.
    pub(super) fn lanes_for_move(&self, from: &Arc<Path>, to: &Arc<Path>) -> Arc<VolumeLanes> {
        let source = self.lanes(from);
        if source.is_remote { source } else { self.lanes(to) }
    }

    /// Folders in their order, those that follow one another on one volume together: a job for
    /// several costs little more than one for the first, and hangs with no other volume.
    pub(super) fn runs(&self, folders: Vec<Arc<Path>>) -> Vec<(Arc<VolumeLanes>, Vec<Arc<Path>>)> {
        let mut runs: Vec<(Arc<VolumeLanes>, Vec<Arc<Path>>)> = Vec::new();
        for folder in folders {
            let lanes = self.lanes(&folder);
            match runs.last_mut() {
                Some((last, together)) if Arc::ptr_eq(last, &lanes) => together.push(folder),
                _ => runs.push((lanes, vec![folder])),
            }
        }
        runs
    }

    /// As [`Self::lanes`], by the mount table as it is now.
    pub(super) fn looked_up(&self, folder: &Arc<Path>) -> Arc<VolumeLanes> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mount = table.mount_of(folder);
        drop(table);
        let mut state = self.lock();
        let lanes = state.of_mount.entry(mount.point).or_insert_with(|| {
            Arc::new(VolumeLanes {
                work: Lane::new(workers(mount.is_remote)),
                syncs: Lane::new(SYNCERS_MAX),
                is_remote: mount.is_remote,
            })
        });
        let lanes = Arc::clone(lanes);
        if state.of_folder.len() >= FOLDERS_MAX {
            state.of_folder.clear();
        }
        state.of_folder.insert(folder.as_os_str().to_owned(), Arc::clone(&lanes));
        lanes
    }

    fn lock(&self) -> MutexGuard<'_, VolumesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn no_more_jobs_run_at_once_than_the_lane_has_threads() {
        let lane = Lane::new(3);
        let running = Arc::new(AtomicUsize::new(0));
        let (began, beginnings) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for _ in 0..10 {
            let (running, began, gate) = (Arc::clone(&running), began.clone(), Arc::clone(&gate));
            lane.submit(Box::new(move || {
                began.send(running.fetch_add(1, Ordering::SeqCst) + 1).unwrap();
                gate.lock().unwrap().recv().unwrap();
                running.fetch_sub(1, Ordering::SeqCst);
            }));
        }
        let mut most = 0;
        for job in 0..10 {
            most = most.max(beginnings.recv().unwrap());
            if job >= 2 {
                open.send(()).unwrap();
            }
        }
        assert_eq!(most, 3, "three jobs had begun before the first could end");
        assert!(lane.shared.lock().threads <= 3);
    }

    #[tokio::test]
    async fn a_job_whose_caller_has_gone_never_begins() {
        let lane = Lane::new(1);
        let (open, gate) = mpsc::channel::<()>();
        lane.submit(Box::new(move || gate.recv().unwrap()));
        let has_begun = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&has_begun);
        let waiting = lane.run(move || flag.store(true, Ordering::SeqCst));
        tokio::select! {
            biased;
            () = waiting => unreachable!("the only thread is taken"),
            () = std::future::ready(()) => {}
        }
        open.send(()).unwrap();
        assert_eq!(lane.run(|| 7).await, 7);
        assert!(!has_begun.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller_and_the_thread_goes_on() {
        let lane = Arc::new(Lane::new(1));
        let inside = Arc::clone(&lane);
        let outcome = tokio::spawn(async move { inside.run(|| panic!("planted")).await }).await;
        assert!(outcome.unwrap_err().is_panic());
        assert_eq!(lane.run(|| 7).await, 7);
    }

    #[test]
    fn folders_of_one_mount_share_their_threads() {
        let volumes = Volumes::default();
        let one = volumes.lanes(&Arc::from(Path::new("/proc/one")));
        let other = volumes.lanes(&Arc::from(Path::new("/proc/other")));
        assert!(Arc::ptr_eq(&one, &other));
        let elsewhere = volumes.lanes(&Arc::from(Path::new("/no-such-mount/sent")));
        assert_eq!(Arc::ptr_eq(&one, &elsewhere), !cfg!(target_os = "linux"));
    }

    #[test]
    fn folders_that_follow_one_another_on_one_mount_are_one_run() {
        let volumes = Volumes::default();
        let folders = |texts: &[&str]| texts.iter().map(|it| Arc::from(Path::new(it))).collect();
        let runs = volumes.runs(folders(&["/proc/one", "/proc/other", "/sys/one", "/proc/one"]));
        let runs: Vec<Vec<Arc<Path>>> = runs.into_iter().map(|(_, folders)| folders).collect();
        let elsewhere: Vec<Vec<Arc<Path>>> = if cfg!(target_os = "linux") {
            vec![
                folders(&["/proc/one", "/proc/other"]),
                folders(&["/sys/one"]),
                folders(&["/proc/one"]),
            ]
        } else {
            vec![folders(&["/proc/one", "/proc/other", "/sys/one", "/proc/one"])]
        };
        assert_eq!(runs, elsewhere);
    }

    #[test]
    fn the_memory_for_folders_is_bounded() {
        let volumes = Volumes::default();
        for number in 0..=FOLDERS_MAX {
            volumes.lanes(&Arc::from(PathBuf::from(format!("/sent/{number}"))));
        }
        assert!(volumes.lock().of_folder.len() <= FOLDERS_MAX);
    }
}
