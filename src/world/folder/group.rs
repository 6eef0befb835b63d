//! Folder fsyncs that many callers share: one that begins after a rename makes that rename
//! durable, whoever asked for it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::lane::Lane;

/// So many callers are company enough: at 128 the fsync is below 1 % of the work of its files.
const COMPANY_MAX: usize = 128;
/// With fewer files on their way nobody waits for company.
const LOAD_MIN: usize = 8;
/// The wait for company ends when nobody has come for so long; about one fsync of an ordinary disk.
const PATIENCE: Duration = Duration::from_millis(10);
/// The longest that a caller waits for company, however many come. On a slow machine they come
/// slowly, and that is where an fsync costs most.
const LONGEST: Duration = Duration::from_millis(100);

/// What an error without a number is passed on as: input/output error.
const EIO: i32 = 5;

/// An fsync's answer as it can be handed to many: the system's error number.
type Answer = Result<(), i32>;

/// The callers of every folder that is being synced or waits for it.
pub(super) struct SharedSyncs {
    load: Arc<AtomicUsize>,
    /// By the folder's text: paths compare part by part, slowly.
    folders: Mutex<BTreeMap<OsString, Company>>,
}

/// The callers that wait for the next fsync of one folder. There is one of these, and one job for
/// it on the lane, as long as anybody waits.
struct Company {
    waiting: Vec<oneshot::Sender<Answer>>,
    first_at: Instant,
    last_at: Instant,
    arrived: Arc<Condvar>,
}

impl SharedSyncs {
    /// `load` is the number of files on their way.
    pub(super) fn new(load: Arc<AtomicUsize>) -> Self {
        Self { load, folders: Mutex::new(BTreeMap::new()) }
    }

    /// Waits for an fsync of `folder` that begins after this call; `fsync` does it.
    pub(super) async fn sync(
        self: &Arc<Self>,
        lane: &Lane,
        folder: &Arc<Path>,
        fsync: impl Fn(&Path) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let (answer, result) = oneshot::channel();
        if self.join(folder, answer) {
            let (syncs, folder) = (Arc::clone(self), Arc::clone(folder));
            lane.submit(Box::new(move || syncs.work(&folder, &fsync)));
        }
        let answer = result.await.expect("a company is answered before it is dropped");
        answer.map_err(io::Error::from_raw_os_error)
    }

    /// Whether the caller is the first, so that a job must be started.
    fn join(&self, folder: &Arc<Path>, answer: oneshot::Sender<Answer>) -> bool {
        let now = now();
        let mut folders = self.lock();
        if let Some(company) = folders.get_mut(folder.as_os_str()) {
            if company.waiting.is_empty() {
                company.first_at = now;
            }
            company.last_at = now;
            company.waiting.push(answer);
            if company.waiting.len() >= self.wanted() {
                company.arrived.notify_one();
            }
            return false;
        }
        let arrived = Arc::new(Condvar::new());
        let company = Company { waiting: vec![answer], first_at: now, last_at: now, arrived };
        folders.insert(folder.as_os_str().to_owned(), company);
        true
    }

    /// Syncs until nobody waits any more.
    fn work(&self, folder: &Arc<Path>, fsync: &impl Fn(&Path) -> io::Result<()>) {
        while let Some(waiting) = self.gathered(folder) {
            let answer = fsync(folder).map_err(|error| error.raw_os_error().unwrap_or(EIO));
            for caller in waiting {
                caller.send(answer).ok();
            }
        }
    }

    /// Waits for company if it is likely to come, and takes those who wait; `None`, and the folder
    /// forgotten, if nobody does.
    fn gathered(&self, folder: &Arc<Path>) -> Option<Vec<oneshot::Sender<Answer>>> {
        let mut folders = self.lock();
        loop {
            let company = folders.get_mut(folder.as_os_str())?;
            if company.waiting.is_empty() {
                folders.remove(folder.as_os_str());
                return None;
            }
            let left = PATIENCE
                .saturating_sub(company.last_at.elapsed())
                .min(LONGEST.saturating_sub(company.first_at.elapsed()));
            if company.waiting.len() >= self.wanted() || left.is_zero() {
                return Some(std::mem::take(&mut company.waiting));
            }
            let arrived = Arc::clone(&company.arrived);
            let (woken, _) =
                arrived.wait_timeout(folders, left).unwrap_or_else(PoisonError::into_inner);
            folders = woken;
        }
    }

    /// How many callers are company enough for the files that are on their way now.
    fn wanted(&self) -> usize {
        let load = self.load.load(Ordering::Relaxed);
        if load < LOAD_MIN { 1 } else { COMPANY_MAX.min(load / 4) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OsString, Company>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "a wait of milliseconds that decides nothing")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::lane::Volumes;
    use super::*;

    fn folder() -> Arc<Path> {
        Arc::from(Path::new("/drop/sending"))
    }

    #[test]
    fn company_is_awaited_only_where_it_is_likely() {
        fn check(load: usize, wanted: usize) {
            let syncs = SharedSyncs::new(Arc::new(AtomicUsize::new(load)));
            assert_eq!(syncs.wanted(), wanted, "with {load} files on their way");
        }
        check(0, 1);
        check(7, 1);
        check(8, 2);
        check(100, 25);
        check(512, 128);
        check(100_000, 128);
    }

    #[tokio::test]
    async fn callers_that_come_during_an_fsync_share_the_next_one() {
        let lanes = Volumes::default().lanes(&folder());
        let syncs = Arc::new(SharedSyncs::new(Arc::default()));
        let (began, mut beginnings) = tokio::sync::mpsc::unbounded_channel();
        let (end, ends) = mpsc::channel::<()>();
        let ends = Arc::new(Mutex::new(ends));
        let caller = || {
            let (syncs, lanes) = (Arc::clone(&syncs), Arc::clone(&lanes));
            let (began, ends) = (began.clone(), Arc::clone(&ends));
            tokio::spawn(async move {
                let fsync = move |_: &Path| {
                    began.send(()).unwrap();
                    ends.lock().unwrap().recv().unwrap();
                    Ok(())
                };
                syncs.sync(&lanes.syncs, &folder(), fsync).await
            })
        };
        let first = caller();
        beginnings.recv().await.unwrap();
        let others: Vec<_> = (0..100).map(|_| caller()).collect();
        while syncs.lock().get(folder().as_os_str()).map_or(0, |company| company.waiting.len())
            < 100
        {
            tokio::task::yield_now().await;
        }
        assert!(!first.is_finished(), "nobody is answered before the fsync has ended");
        end.send(()).unwrap();
        end.send(()).unwrap();
        first.await.unwrap().unwrap();
        for other in others {
            other.await.unwrap().unwrap();
        }
        beginnings.recv().await.unwrap();
        assert!(beginnings.try_recv().is_err(), "two fsyncs for 101 callers");
        while !syncs.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_failed_fsync_fails_for_everybody_who_waits() {
        let lanes = Volumes::default().lanes(&folder());
        let syncs = Arc::new(SharedSyncs::new(Arc::new(AtomicUsize::new(8))));
        let fsync = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
        let folder = folder();
        let (one, other) = tokio::join!(
            syncs.sync(&lanes.syncs, &folder, fsync),
            syncs.sync(&lanes.syncs, &folder, fsync)
        );
        assert!(one.is_err() && other.is_err());
    }
}
