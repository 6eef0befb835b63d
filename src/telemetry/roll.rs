//! A log file that stays bounded: at a given size it is set aside under the time of that moment,
//! and of those that were set aside the oldest go.
//!
//! Set aside by one rename, not by one for each older file: on Windows any of those may be open in
//! somebody's viewer, which forbids it. What cannot be renamed or removed now is left for the next
//! time; lines are never lost for that.
#![expect(clippy::disallowed_methods, reason = "the log's own folder, where no file is dropped")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::civil::DateTime;

use super::{TelemetryError, append};

/// `20261122T081500123Z`, by UTC.
const TIME: &str = "%Y%m%dT%H%M%S%3fZ";
const TIME_READ: &str = "%Y%m%dT%H%M%S%fZ";

/// Two are at least so far apart in name.
const MOMENT: jiff::SignedDuration = jiff::SignedDuration::from_millis(1);

/// One of this many parts of the size goes into a file that cannot be set aside before that is
/// tried again.
const TRY_AGAIN_AFTER: u64 = 10;

/// The file that is written to.
pub(super) struct RollingFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// The size at which it is set aside.
    roll_at: u64,
    /// The size at which that is tried next.
    next_at: u64,
    /// How many are kept besides.
    keep: usize,
}

impl RollingFile {
    /// Appends to the file. `roll_at`: in bytes; `keep`: files besides this one.
    pub(super) fn open(path: &Path, roll_at: u64, keep: usize) -> Result<Self, TelemetryError> {
        let file = append(path)?;
        let bytes = file.metadata().map_or(0, |found| found.len());
        Ok(Self { path: path.to_owned(), file, bytes, roll_at, next_at: roll_at, keep })
    }

    /// Sets the file aside if so many bytes more would be too many.
    fn make_room(&mut self, length: u64) {
        if self.bytes.saturating_add(length) <= self.next_at {
            return;
        }
        // Somebody may have emptied it. A line that is too long by itself goes into an empty one.
        self.bytes = self.file.metadata().map_or(self.bytes, |found| found.len());
        if self.bytes == 0 || self.bytes.saturating_add(length) <= self.next_at {
            return;
        }
        match self.set_aside() {
            Ok(file) => {
                self.file = file;
                self.bytes = 0;
                self.next_at = self.roll_at;
                self.remove_oldest();
            }
            Err(error) => {
                self.next_at = self.bytes.saturating_add(self.roll_at / TRY_AGAIN_AFTER);
                // There is no other place to say it.
                writeln!(
                    self.file,
                    "{} WARN  this file cannot be set aside and grows on: {error}",
                    jiff::Timestamp::now()
                )
                .ok();
            }
        }
    }

    /// Gives the file its other name, which is later than that of every other; the new one.
    fn set_aside(&self) -> io::Result<File> {
        let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).datetime();
        let newest = self.aside().pop().and_then(|last| last.checked_add(MOMENT).ok());
        let aside = self.path_aside(newest.map_or(now, |newest| newest.max(now)));
        fs::rename(&self.path, &aside)?;
        append(&self.path).map_err(io::Error::other)
    }

    /// When each of those beside it was set aside, in order.
    fn aside(&self) -> Vec<DateTime> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let Ok(found) = fs::read_dir(folder) else { return Vec::new() };
        let times =
            found.flatten().filter_map(|entry| set_aside_at(&self.path, &entry.file_name()));
        let mut times: Vec<_> = times.collect();
        times.sort();
        times
    }

    fn path_aside(&self, at: DateTime) -> PathBuf {
        self.path.with_file_name(name_aside(&self.path, at))
    }

    fn remove_oldest(&self) {
        let aside = self.aside();
        for at in aside.iter().take(aside.len().saturating_sub(self.keep)) {
            // One that is open in a viewer goes the next time.
            fs::remove_file(self.path_aside(*at)).ok();
        }
    }
}

impl Write for RollingFile {
    /// Takes whole lines; none is divided.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = line.len() as u64;
        self.make_room(length);
        self.file.write_all(line)?;
        self.bytes = self.bytes.saturating_add(length);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// `patchdrop.20261122T081500123Z.log`.
fn name_aside(path: &Path, at: DateTime) -> String {
    let (stem, ending) = parts(path);
    format!("{stem}.{}{ending}", at.strftime(TIME))
}

/// When a file in the log's folder was set aside, if it was.
fn set_aside_at(path: &Path, name: &OsStr) -> Option<DateTime> {
    let (stem, ending) = parts(path);
    let time = name.to_str()?.strip_prefix(&stem)?.strip_prefix('.')?.strip_suffix(&*ending)?;
    let at = DateTime::strptime(TIME_READ, time).ok()?;
    // The same time may be written in other ways, which are not ours.
    (name == OsStr::new(&name_aside(path, at))).then_some(at)
}

/// The name without its ending, and the ending with its dot.
fn parts(path: &Path) -> (String, String) {
    let text = |part: &OsStr| part.to_string_lossy().into_owned();
    let ending = path.extension().map(|ending| format!(".{}", text(ending)));
    (path.file_stem().map(text).unwrap_or_default(), ending.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let found = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_set_aside_whole_and_the_oldest_go() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("patchdrop.log");
        fs::write(scratch.path().join("patchdrop.notes.log"), "somebody's").unwrap();
        let mut log = RollingFile::open(&path, 20, 2).unwrap();
        for line in 0..10 {
            log.write_all(format!("line {line}\n").as_bytes()).unwrap();
        }
        // Seven bytes a line: two in each, the rest of the 20 stays empty.
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 8\nline 9\n");
        let all = names(scratch.path());
        let aside: Vec<_> =
            all.iter().filter(|it| set_aside_at(&path, it.as_ref()).is_some()).cloned().collect();
        assert_eq!(aside.len(), 2, "{all:?}");
        assert!(all.contains(&"patchdrop.notes.log".to_owned()), "not ours, not removed");
        let kept = aside.iter().map(|name| fs::read_to_string(scratch.path().join(name)).unwrap());
        // By name they are in their order.
        assert_eq!(kept.collect::<Vec<_>>(), ["line 4\nline 5\n", "line 6\nline 7\n"]);
    }

    #[test]
    fn a_start_goes_on_with_the_file_that_is_there() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("patchdrop.log");
        for line in ["one\n", "two\n", "three\n"] {
            RollingFile::open(&path, 10, 5).unwrap().write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(names(scratch.path()).len(), 2);
    }

    #[test]
    fn a_file_that_somebody_empties_is_not_set_aside() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("patchdrop.log");
        let mut log = RollingFile::open(&path, 10, 5).unwrap();
        log.write_all(b"12345678\n").unwrap();
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        log.write_all(b"abc\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "abc\n");
        assert_eq!(names(scratch.path()), ["patchdrop.log"]);
    }

    #[test]
    fn no_line_is_lost_where_the_file_cannot_be_set_aside() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("log");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("patchdrop.log");
        let mut log = RollingFile::open(&path, 10, 5).unwrap();
        log.write_all(b"first 9\n").unwrap();
        // Its folder has another name now, so there is nothing to be renamed.
        let elsewhere = scratch.path().join("elsewhere");
        fs::rename(&folder, &elsewhere).unwrap();
        log.write_all(b"second\n").unwrap();
        drop(log);
        let text = fs::read_to_string(elsewhere.join("patchdrop.log")).unwrap();
        assert!(text.starts_with("first 9\n") && text.ends_with("\nsecond\n"), "{text}");
        assert!(text.contains("cannot be set aside and grows on"), "{text}");
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_make_the_newest_the_oldest() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("patchdrop.log");
        let later = "patchdrop.29991122T081500123Z.log";
        fs::write(scratch.path().join(later), "from a clock that was wrong").unwrap();
        let mut log = RollingFile::open(&path, 10, 2).unwrap();
        for line in ["12345678\n", "23456789\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(
            names(scratch.path()),
            [later, "patchdrop.29991122T081500124Z.log", "patchdrop.log"]
        );
    }

    #[test]
    fn names_of_files_set_aside_are_told_from_others() {
        let path = Path::new("log/patchdrop.log");
        let check = |name: &str, is_ours: bool| {
            let at = set_aside_at(path, name.as_ref());
            assert_eq!(at.is_some(), is_ours, "{name}");
            assert!(at.is_none_or(|at| name_aside(path, at) == name), "{name}");
        };
        check("patchdrop.20261122T081500123Z.log", true);
        check("patchdrop.20261122T081500000Z.log", true);
        check("patchdrop.20261122T081500Z.log", false);
        check("patchdrop.20261122T0815001234Z.log", false);
        check("patchdrop.log", false);
        check("patchdrop.1.log", false);
        check("patchdrop.20261122T081500123Z.log.gz", false);
        check("patchdrop-old.20261122T081500123Z.log", false);
        check("patchdrop.20261399T081500123Z.log", false);
        let bare = Path::new("log");
        let at = set_aside_at(bare, "log.20261122T081500123Z".as_ref());
        assert!(at.is_some());
    }
}
