//! Counts what a process does to the disk and to the server, and ends it at a chosen operation.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

/// Before or after the operation has its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After,
}

#[derive(Debug, Default)]
struct Inner {
    victim: Option<u32>,
    at: Option<(u64, Moment)>,
    seen: u64,
    sprung: Option<String>,
    /// What was counted, in order.
    story: Vec<String>,
}

/// Counts over the whole process, whatever thread an operation comes from.
#[derive(Debug, Default)]
pub(crate) struct Trap(Mutex<Inner>);

impl Trap {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts from now on; the process that is to end is named by [`Self::victim`].
    pub(crate) fn arm(&self, at: u64, moment: Moment) {
        *self.lock() = Inner { at: Some((at, moment)), ..Inner::default() };
    }

    /// The process that is to end. It may have come to its last operation already.
    pub(crate) fn victim(&self, pid: u32) {
        let mut inner = self.lock();
        inner.victim = Some(pid);
        if inner.sprung.is_some() {
            kill(pid);
        }
    }

    /// Counts no more; what was counted stays.
    pub(crate) fn disarm(&self) {
        let mut inner = self.lock();
        inner.at = None;
        inner.victim = None;
    }

    /// The operation at which the process was killed.
    pub(crate) fn sprung(&self) -> Option<String> {
        self.lock().sprung.clone()
    }

    pub(crate) fn story(&self) -> Vec<String> {
        self.lock().story.clone()
    }

    /// Passes an operation on, unless the process has been killed: from then on nothing of it has
    /// an effect any more, as if all of its threads had stopped at once.
    pub(crate) fn pass<T>(
        &self,
        what: impl FnOnce() -> String,
        act: impl FnOnce() -> T,
    ) -> Option<T> {
        let mut inner = self.lock();
        let Some((at, moment)) = inner.at else { return Some(act()) };
        if inner.sprung.is_some() {
            return None;
        }
        inner.seen += 1;
        let what = what();
        inner.story.push(what.clone());
        if inner.seen != at {
            return Some(act());
        }
        let done = (moment == Moment::After).then(act);
        inner.sprung = Some(format!("{moment:?} {at}: {what}"));
        if let Some(pid) = inner.victim {
            kill(pid);
        }
        done
    }
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::KILL).expect("our own child, not waited for yet");
}
