//! Gathers requests that one fsync can serve: under load a short wait for company costs less than
//! an fsync each, and without load nobody waits at all.
#![expect(clippy::disallowed_methods, reason = "the wait is real time on a thread of its own")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

/// With fewer files than this on their way nobody waits: company is unlikely.
const LOAD_MIN: usize = 8;

/// A file passes a door that gathers about four times (claim, its rename, outcome, settling), so a
/// quarter of the files on their way is the company that can be expected.
const SHARE: usize = 4;

/// A wait is slept through in naps of this length: being woken for every single request would cost
/// more than the wait is worth.
const NAP: Duration = Duration::from_micros(500);

/// How long to wait for company, and for how much.
#[derive(Clone, Debug)]
pub struct Gather {
    /// How many files are on their way right now.
    pub load: Arc<AtomicUsize>,
    /// So many waiting requests are always enough to go.
    pub most: usize,
    /// The wait ends when nobody has come for so long.
    pub patience: Duration,
    /// The longest wait after the first request, however many come.
    pub longest: Duration,
}

impl Gather {
    /// The usual measure: goes with 128 requests, 10 ms after the last one, or 100 ms after the
    /// first. On a slow machine requests come slowly, and that is where an fsync costs most; no
    /// file is held up by it for longer than the others take to come as far.
    #[must_use]
    pub fn new(load: Arc<AtomicUsize>) -> Self {
        let (patience, longest) = (Duration::from_millis(10), Duration::from_millis(100));
        Self { load, most: 128, patience, longest }
    }

    /// How many requests are company enough at this load.
    fn goal(&self) -> usize {
        let load = self.load.load(Ordering::Relaxed);
        if load < LOAD_MIN { 1 } else { (load / SHARE).min(self.most) }
    }

    /// `first` and whatever else waits in `receiver`; waits for more while `load` says that more
    /// is likely. Returns at least `first`, at most four times `most`, in the order of arrival.
    /// Blocks the thread for at most `longest` and a nap.
    pub fn take<T>(&self, first: T, receiver: &Receiver<T>) -> Vec<T> {
        let group_max = self.most.saturating_mul(4).max(1);
        let mut group = vec![first];
        let mut wait: Option<Wait> = None;
        loop {
            let before = group.len();
            while group.len() < group_max {
                match receiver.try_recv() {
                    Ok(next) => group.push(next),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return group,
                }
            }
            if group.len() >= self.goal() {
                return group;
            }
            let now = Instant::now();
            let wait = wait.get_or_insert(Wait { began_at: now, last_at: now });
            if group.len() > before {
                wait.last_at = now;
            }
            let is_over = now.duration_since(wait.last_at) >= self.patience
                || now.duration_since(wait.began_at) >= self.longest;
            if is_over {
                return group;
            }
            thread::sleep(NAP.min(self.patience));
        }
    }
}

/// A wait for company under way.
struct Wait {
    began_at: Instant,
    /// When somebody last came.
    last_at: Instant,
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const FOR_EVER: Duration = Duration::from_hours(1);

    fn check(load: usize, patience: Duration, waiting: u32, expected: usize) {
        let load_now = Arc::new(AtomicUsize::new(load));
        let gather = Gather { load: load_now, most: 128, patience, longest: FOR_EVER };
        let (sender, receiver) = channel();
        for request in 1..=waiting {
            sender.send(request).unwrap();
        }
        let group = gather.take(0, &receiver);
        assert_eq!(group.len(), expected, "load {load}, {waiting} waiting");
        assert!(group.is_sorted(), "requests keep their order");
    }

    #[test]
    fn nobody_waits_without_load() {
        check(0, FOR_EVER, 0, 1);
        check(7, FOR_EVER, 0, 1);
        check(7, FOR_EVER, 3, 4);
    }

    #[test]
    fn a_quarter_of_the_load_is_company_enough() {
        check(8, FOR_EVER, 1, 2);
        check(100, FOR_EVER, 24, 25);
    }

    #[test]
    fn all_that_wait_come_along_even_beyond_the_goal() {
        check(8, FOR_EVER, 50, 51);
    }

    #[test]
    fn a_hundred_and_twenty_eight_are_always_enough() {
        check(100_000, FOR_EVER, 127, 128);
    }

    #[test]
    fn a_group_has_a_bound() {
        check(100_000, FOR_EVER, 2000, 512);
    }

    #[test]
    fn patience_ends() {
        check(100_000, Duration::ZERO, 3, 4);
    }

    #[test]
    fn company_that_arrives_during_the_wait_comes_along() {
        let load = Arc::new(AtomicUsize::new(12));
        let gather = Gather { load, most: 128, patience: FOR_EVER, longest: FOR_EVER };
        let (sender, receiver) = channel();
        let others = thread::spawn(move || {
            sender.send(1).unwrap();
            sender.send(2).unwrap();
            sender
        });
        assert_eq!(gather.take(0, &receiver), [0, 1, 2]);
        drop(others.join());
    }

    #[test]
    fn a_wait_ends_when_nobody_is_left_to_come() {
        let gather = Gather::new(Arc::new(AtomicUsize::new(1000)));
        let gather = Gather { patience: FOR_EVER, longest: FOR_EVER, ..gather };
        let (sender, receiver) = channel::<u32>();
        drop(sender);
        assert_eq!(gather.take(0, &receiver), [0]);
    }

    #[test]
    fn company_that_never_ends_is_not_waited_for_for_ever() {
        let load = Arc::new(AtomicUsize::new(1000));
        let gather = Gather { load, most: 128, patience: FOR_EVER, longest: Duration::ZERO };
        let (sender, receiver) = channel();
        sender.send(1).unwrap();
        assert_eq!(gather.take(0, &receiver), [0, 1]);
    }
}
