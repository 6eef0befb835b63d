//! Is a file complete? Evidence, not a sleep: renamed into place, its done-marker there, or
//! unchanged for `quiet_for` by its change time.

use std::time::Duration;

use super::detect::Reason;
use crate::model::file::{Identity, Kind, Sighting};
use crate::model::route::ReadyRules;
use crate::model::time::{Now, Tick, Wall};

/// What is remembered of a file that was not ready at an earlier look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Its identity then.
    pub identity: Identity,
    /// Its change time then.
    pub changed_at: Wall,
    /// When this very version was first seen.
    pub first_seen: Tick,
    /// Why it was not taken, when it was opened.
    pub finding: Option<Reason>,
}

impl Remembered {
    /// Whether a sighting shows the same version.
    #[must_use]
    pub fn is_version(&self, sighting: &Sighting) -> bool {
        // The number is left out: some shares change it between two looks.
        let (known, seen) = (&self.identity, &sighting.identity);
        known.size == seen.size
            && known.mtime_ns == seen.mtime_ns
            && self.changed_at == sighting.changed_at
    }
}

/// What there is to go by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// The system said that it was renamed into the folder.
    pub moved_in: bool,
    /// Change times on this volume can be trusted (local disk, same clock).
    pub trusts_change_time: bool,
    /// The route has done-markers: whether a valid one is there.
    pub marker: Option<bool>,
    /// What is remembered of this name, if this very version was seen before.
    pub remembered: Option<Remembered>,
}

/// What the evidence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Complete, as far as can be seen without opening it.
    Ready,
    /// Look again after this long.
    Wait(Reason, Duration),
}

/// A change time this far ahead of the clock is still believed: file systems stamp with a coarse
/// clock that may run a tick ahead of ours, never more.
const CLOCK_GRAIN: Duration = Duration::from_millis(50);

/// Shortest wait before another look.
const SHORTEST: Duration = Duration::from_millis(20);

/// Judges one sighting.
#[must_use]
pub fn assess(sighting: &Sighting, rules: &ReadyRules, evidence: &Evidence, now: Now) -> Readiness {
    if evidence.marker == Some(false) {
        return Readiness::Wait(Reason::NoMarker, rules.quiet_for.max(SHORTEST));
    }
    let quiet = unchanged_for(sighting.changed_at, evidence, now);
    if let Some(Remembered { finding: Some(Reason::Truncated), .. }) = evidence.remembered
        && quiet < rules.truncated_after
    {
        let left = rules.truncated_after.saturating_sub(quiet);
        return Readiness::Wait(Reason::Truncated, left.max(SHORTEST));
    }
    if evidence.moved_in || evidence.marker == Some(true) || quiet >= rules.quiet_for {
        Readiness::Ready
    } else {
        let left = rules.quiet_for.saturating_sub(quiet);
        Readiness::Wait(Reason::NotReady, left.max(SHORTEST))
    }
}

/// How long a version has been unchanged: by its change time where that can be trusted and is not
/// ahead of our clock, else since this version was first seen.
#[must_use]
pub fn unchanged_for(changed_at: Wall, evidence: &Evidence, now: Now) -> Duration {
    let ahead = changed_at > now.wall.plus(CLOCK_GRAIN);
    if evidence.trusts_change_time && !ahead {
        now.wall.since(changed_at)
    } else {
        evidence.remembered.map_or(Duration::ZERO, |known| now.tick.since(known.first_seen))
    }
}

/// Why a file with more than one name is left. A writer may have given it its last name by a link
/// and be about to take the other away; later it is somebody's who keeps the other, and could
/// change the file while it is sent.
#[must_use]
pub fn many_names(quiet: Duration, rules: &ReadyRules) -> Reason {
    if quiet < rules.quiet_for { Reason::NotReady } else { Reason::HardLink }
}

/// Whether a document that stops in the middle may still be being written.
#[must_use]
pub fn may_be_unfinished(
    changed_at: Wall,
    rules: &ReadyRules,
    evidence: &Evidence,
    now: Now,
) -> bool {
    unchanged_for(changed_at, evidence, now) < rules.truncated_after
}

/// Whether a done-marker counts: it is a file, and not older than its file's last modification.
/// A file from the future (its writer's clock, or a copied date) is taken by its change time, which
/// is this system's: no marker could ever be newer than such a date.
#[must_use]
pub fn marker_counts(marker: &Sighting, file: &Sighting, now: Wall) -> bool {
    if marker.kind != Kind::File {
        return false;
    }
    let ahead = i128::from(file.identity.mtime_ns) > i128::from(now.0) * 1_000_000;
    if ahead {
        return marker.changed_at >= file.changed_at;
    }
    marker.identity.mtime_ns >= file.identity.mtime_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: ReadyRules = ReadyRules {
        quiet_for: Duration::from_secs(1),
        truncated_after: Duration::from_secs(30),
        done_marker: None,
        first_sweep_max_age: None,
    };

    fn sighting(changed_at: i64) -> Sighting {
        let identity = Identity { volume: 1, number: 7, size: 10, mtime_ns: 0 };
        Sighting { name: "a".into(), kind: Kind::File, identity, changed_at: Wall(changed_at) }
    }

    fn check(changed_at: i64, evidence: Evidence, expected: Readiness) {
        let now = Now { wall: Wall(100_000), tick: Tick(50_000) };
        assert_eq!(assess(&sighting(changed_at), &RULES, &evidence, now), expected);
    }

    fn remembered(first_seen: u64, finding: Option<Reason>) -> Remembered {
        let Sighting { identity, changed_at, .. } = sighting(99_900);
        Remembered { identity, changed_at, first_seen: Tick(first_seen), finding }
    }

    #[test]
    fn quiet_is_measured_by_the_change_time_where_it_is_trusted() {
        let trusted = Evidence { trusts_change_time: true, ..Evidence::default() };
        check(99_000, trusted, Readiness::Ready);
        check(99_001, trusted, Readiness::Wait(Reason::NotReady, SHORTEST));
        check(99_500, trusted, Readiness::Wait(Reason::NotReady, Duration::from_millis(500)));
    }

    #[test]
    fn a_change_time_from_the_future_counts_from_first_seen() {
        let trusted = Evidence { trusts_change_time: true, ..Evidence::default() };
        check(186_400_000, trusted, Readiness::Wait(Reason::NotReady, RULES.quiet_for));
        let known = Evidence { remembered: Some(remembered(49_000, None)), ..trusted };
        check(186_400_000, known, Readiness::Ready);
    }

    #[test]
    fn where_change_times_lie_the_wait_counts_from_first_seen() {
        check(0, Evidence::default(), Readiness::Wait(Reason::NotReady, RULES.quiet_for));
        let known = Evidence { remembered: Some(remembered(49_400, None)), ..Evidence::default() };
        check(0, known, Readiness::Wait(Reason::NotReady, Duration::from_millis(400)));
    }

    #[test]
    fn a_rename_into_place_needs_no_wait_and_a_marker_neither() {
        let moved = Evidence { moved_in: true, ..Evidence::default() };
        check(99_999, moved, Readiness::Ready);
        let marked = Evidence { marker: Some(true), ..Evidence::default() };
        check(99_999, marked, Readiness::Ready);
        let unmarked = Evidence { marker: Some(false), moved_in: true, ..Evidence::default() };
        check(0, unmarked, Readiness::Wait(Reason::NoMarker, RULES.quiet_for));
    }

    #[test]
    fn a_marker_counts_unless_its_file_was_changed_after_it() {
        // Modification times in milliseconds, change times likewise; now is 100,000.
        fn check(file: (i64, i64), marker: (i64, i64), expected: bool) {
            let seen = |(modified, changed): (i64, i64)| {
                let mut seen = sighting(changed);
                seen.identity.mtime_ns = modified * 1_000_000;
                seen
            };
            let counts = marker_counts(&seen(marker), &seen(file), Wall(100_000));
            assert_eq!(counts, expected, "file {file:?}, marker {marker:?}");
        }
        check((50_000, 50_000), (50_000, 50_000), true);
        check((50_000, 50_000), (49_999, 60_000), false);
        check((50_000, 90_000), (50_001, 50_001), true);
        // A date in the future would be newer than any marker.
        check((4_000_000_000_000, 50_000), (60_000, 60_000), true);
        check((4_000_000_000_000, 70_000), (60_000, 60_000), false);
    }

    #[test]
    fn only_a_file_is_a_marker() {
        for kind in [Kind::File, Kind::Folder, Kind::Link, Kind::Special, Kind::Unknown] {
            let marker = Sighting { kind, ..sighting(50_000) };
            let counts = marker_counts(&marker, &sighting(50_000), Wall(100_000));
            assert_eq!(counts, kind == Kind::File, "{kind:?}");
        }
    }

    #[test]
    fn a_document_seen_to_stop_in_the_middle_is_left_until_truncated_after() {
        let evidence = Evidence {
            trusts_change_time: true,
            moved_in: true,
            remembered: Some(remembered(0, Some(Reason::Truncated))),
            ..Evidence::default()
        };
        check(90_000, evidence, Readiness::Wait(Reason::Truncated, Duration::from_secs(20)));
        check(70_000, evidence, Readiness::Ready);
    }
}
