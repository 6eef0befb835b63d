//! Is there room enough on a volume? Before it is so full that records and sidecars could not be
//! written, nothing new is begun; long before that it is said.

use crate::model::room::Room;

/// Below this, or below a tenth of a small volume, it is said.
const LOW_BYTES: u64 = 1 << 30;

/// Below this, or below a twentieth of a small volume, nothing is begun: enough for the ledger's
/// WAL (at most half of it), the sidecars of all files under way, and what other programs write
/// until somebody comes.
const SHORT_BYTES: u64 = 32 << 20;

/// Fewer files than this can be made: it is said.
const LOW_FILES: u64 = 4_096;

/// Fewer files than this can be made: nothing is begun. Each file under way may need a sidecar.
const SHORT_FILES: u64 = 1_024;

/// How a volume stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Room enough.
    Ample,
    /// It gets less: a person should know.
    Low,
    /// Too little to begin anything.
    Short,
}

/// Judges the room on a volume. One that was short goes on only with half as much again, so that
/// it does not come and go.
#[must_use]
pub fn assess(room: &Room, was_short: bool) -> Level {
    let scale = |least: u64| if was_short { least + least / 2 } else { least };
    let few = |least: u64| room.free_files.is_some_and(|files| files < least);
    if room.free_bytes < scale(floor_bytes(room)) || few(scale(SHORT_FILES)) {
        Level::Short
    } else if room.free_bytes < LOW_BYTES.min(room.total_bytes / 10) || few(LOW_FILES) {
        Level::Low
    } else {
        Level::Ample
    }
}

/// The room below which nothing is begun, bytes.
#[must_use]
pub fn floor_bytes(room: &Room) -> u64 {
    SHORT_BYTES.min(room.total_bytes / 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_volume_is_low_long_before_it_is_short() {
        fn check(free_bytes: u64, total_bytes: u64, was_short: bool, expected: Level) {
            let room = Room { free_bytes, total_bytes, free_files: None };
            assert_eq!(assess(&room, was_short), expected, "{free_bytes} of {total_bytes}");
        }
        let disk = 100_000 * MIB;
        check(disk, disk, false, Level::Ample);
        check(1_024 * MIB, disk, false, Level::Ample);
        check(1_023 * MIB, disk, false, Level::Low);
        check(32 * MIB, disk, false, Level::Low);
        check(32 * MIB - 1, disk, false, Level::Short);
        check(47 * MIB, disk, true, Level::Short);
        check(48 * MIB, disk, true, Level::Low);
        check(MIB / 2, MIB, false, Level::Ample);
        check(MIB / 11, MIB, false, Level::Low);
        check(MIB / 21, MIB, false, Level::Short);
        check(0, 0, false, Level::Ample);
    }

    #[test]
    fn a_volume_that_can_make_few_files_is_short_whatever_its_bytes() {
        let room = |files| Room { free_bytes: 1 << 40, total_bytes: 1 << 41, free_files: files };
        assert_eq!(assess(&room(None), false), Level::Ample);
        assert_eq!(assess(&room(Some(1 << 20)), false), Level::Ample);
        assert_eq!(assess(&room(Some(2_000)), false), Level::Low);
        assert_eq!(assess(&room(Some(500)), false), Level::Short);
        assert_eq!(assess(&room(Some(1_200)), true), Level::Short);
    }
}
