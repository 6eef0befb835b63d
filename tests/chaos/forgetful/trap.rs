//! Counts what a process does to the disk and to the server, and ends it at a chosen operation.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

/// Before or after the operation has its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After,
}

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// A change of folders, the sync of a file or folder, what the server does.
    Step,
    /// The sync of the ledger or of its WAL.
    LedgerSync,
    /// One write to these.
    LedgerWrite,
    /// One write to another file.
    Write,
}

/// Which operations count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Changes, syncs and what the server does: no single writes.
    #[default]
    Steps,
    /// Each write and each sync of the ledger, and nothing else.
    Ledger,
}

impl Counted {
    fn holds(self, of: Of) -> bool {
        match self {
            Self::Steps => matches!(of, Of::Step | Of::LedgerSync),
            Self::Ledger => matches!(of, Of::LedgerSync | Of::LedgerWrite),
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    victim: Option<u32>,
    at: Option<(u64, Moment)>,
    counted: Counted,
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
    pub(crate) fn arm(&self, counted: Counted, at: (u64, Moment)) {
        *self.lock() = Inner { at: Some(at), counted, ..Inner::default() };
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

    /// How many operations were counted.
    pub(crate) fn seen(&self) -> u64 {
        self.lock().seen
    }

    pub(crate) fn story(&self) -> Vec<String> {
        self.lock().story.clone()
    }

    /// Passes an operation on, unless the process has been killed: from then on nothing of it has
    /// an effect any more, as if all of its threads had stopped at once.
    pub(crate) fn pass<T>(
        &self,
        of: Of,
        what: impl FnOnce() -> String,
        act: impl FnOnce() -> T,
    ) -> Option<T> {
        let mut inner = self.lock();
        let Some((at, moment)) = inner.at else { return Some(act()) };
        if inner.sprung.is_some() {
            return None;
        }
        if !inner.counted.holds(of) {
            return Some(act());
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
