//! The schedule's part about doubts that cost a file: each ends in front of a person, so a server
//! that never answers in time must get a handful of files and not one a probe.

use std::time::Duration;

use crate::model::time::Tick;

/// So many doubts, not made up for by clean answers, speak against a destination.
const WARY_FROM: u32 = 3;

/// Clean answers that make up for one doubt: a server that leaves more than one file in nine in
/// doubt is not fit to be sent to unattended.
const CLEAN_PER_DOUBT: u32 = 8;

/// The wait for the first probe; it doubles with each further doubt, so that the pause is never
/// much longer than the trouble has lasted.
const WAIT_FIRST: Duration = Duration::from_mins(1);

/// The longest wait: six to twelve files a day at most.
const WAIT_MAX: Duration = Duration::from_hours(4);

/// Beyond this the wait grows no more.
const DOUBTS_MAX: u32 = WARY_FROM + 8;

/// A doubt is forgotten after so long without another.
const FORGOTTEN_AFTER: Duration = WAIT_MAX;

/// How far a destination is trusted to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Doubts {
    count: u32,
    last_at: Tick,
    clean: u32,
}

impl Doubts {
    /// A file was left in doubt and is a person's business now.
    pub(super) fn doubted(&mut self, now: Tick) {
        self.count = (self.count_at(now) + 1).min(DOUBTS_MAX);
        self.last_at = now;
    }

    /// The server has answered in time.
    pub(super) fn answered(&mut self) {
        if self.count == 0 {
            return;
        }
        self.clean += 1;
        if self.clean >= CLEAN_PER_DOUBT {
            self.clean = 0;
            self.count -= 1;
        }
    }

    /// Doubts that nothing has made up for.
    pub(super) fn count_at(&self, now: Tick) -> u32 {
        let faded = now.since(self.last_at).as_secs() / FORGOTTEN_AFTER.as_secs();
        self.count.saturating_sub(u32::try_from(faded).unwrap_or(u32::MAX))
    }

    /// Whether each further file is one too many: then one goes at a time, and the first doubt
    /// pauses.
    pub(super) fn is_wary(&self, now: Tick) -> bool {
        self.count_at(now) >= WARY_FROM
    }

    /// The longest wait for the next probe; none while there is no need to be wary.
    pub(super) fn wait(&self, now: Tick) -> Duration {
        match self.count_at(now).checked_sub(WARY_FROM) {
            Some(more) => (WAIT_FIRST * (1 << more.min(DOUBTS_MAX))).min(WAIT_MAX),
            None => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_with_each_doubt_up_to_its_bound() {
        let mut doubts = Doubts::default();
        let mut waits = Vec::new();
        for _ in 0..14 {
            doubts.doubted(Tick(0));
            waits.push(doubts.wait(Tick(0)).as_secs() / 60);
        }
        assert_eq!(waits, [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 240, 240, 240, 240]);
    }

    #[test]
    fn eight_clean_answers_make_up_for_one_doubt_and_so_do_four_quiet_hours() {
        #[track_caller]
        fn check(doubted: u32, clean: u32, quiet: Duration, expected: u32) {
            let mut doubts = Doubts::default();
            for _ in 0..doubted {
                doubts.doubted(Tick(0));
            }
            for _ in 0..clean {
                doubts.answered();
            }
            let now = Tick(0).plus(quiet);
            assert_eq!(doubts.count_at(now), expected);
            assert_eq!(doubts.is_wary(now), expected >= 3);
        }
        let none = Duration::ZERO;
        check(0, 100, none, 0);
        check(3, 7, none, 3);
        check(3, 8, none, 2);
        check(3, 24, none, 0);
        check(3, 0, FORGOTTEN_AFTER.saturating_sub(Duration::from_secs(1)), 3);
        check(3, 0, FORGOTTEN_AFTER, 2);
        check(3, 0, FORGOTTEN_AFTER * 100, 0);
        check(1_000, 0, FORGOTTEN_AFTER, 10);
    }
}
