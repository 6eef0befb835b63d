//! `state_dir/begun`: which attempts have handed their first byte over. It is not synced, so it
//! outlives a killed process and not a power cut; it says so itself by naming the boot it is of.
//! Keeps promise P6 from holding files that were certainly never sent.
//!
//! One header line, then one line an attempt: `<id> <number>` had begun, `<id> <number> ?` is an
//! attempt from before this boot that nobody knows about.
#![expect(clippy::disallowed_methods, reason = "a file of the ledger's own, in its own folder")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::LedgerId;
use crate::model::file::FileId;
use crate::world::boot::boot;
use crate::world::own_files;

/// Written anew beyond this many bytes: about 300,000 attempts.
const BYTES_MAX: u64 = 4_000_000;

/// What is open alone may fill it many times over; what is longer than this is none of ours.
const READ_MAX: u64 = 1 << 30;

const FORMAT: &str = "patchdrop-begun-1";

/// An attempt: file and number.
pub(super) type Try = (FileId, u32);

/// The file, and what it says about the attempts that have no end on record.
#[derive(Debug)]
pub(super) struct Begun {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    header: String,
    /// None after a rewrite that failed: then the next attempt rewrites it.
    file: Option<File>,
    bytes: u64,
    bytes_max: u64,
    /// The last write was cut short: the next line starts on a line of its own.
    torn: bool,
    /// Attempts on record without an end, and whether they had begun; `None`: nobody knows.
    known: BTreeMap<Try, Option<bool>>,
}

impl Begun {
    /// Reads what an earlier process left, and begins a file of this process. `open` are the
    /// attempts on record that have no end.
    pub(super) fn open(state_dir: &Path, ledger: LedgerId, open: &[Try]) -> io::Result<Self> {
        Self::open_at(state_dir, ledger, open, boot().as_deref(), BYTES_MAX)
    }

    fn open_at(
        state_dir: &Path,
        ledger: LedgerId,
        open: &[Try],
        boot: Option<&str>,
        bytes_max: u64,
    ) -> io::Result<Self> {
        let path = state_dir.join("begun");
        let header = format!("{FORMAT} {} {ledger}\n", boot.unwrap_or("-"));
        let earlier = read(&path);
        let lines = match (&earlier, boot) {
            (Some(earlier), Some(_)) if earlier.header == header => Some(&earlier.lines),
            _ => None,
        };
        let known = open
            .iter()
            .map(|attempt| {
                let begun =
                    lines.and_then(|lines| lines.get(attempt).copied().unwrap_or(Some(false)));
                (*attempt, begun)
            })
            .collect();
        let (file, bytes) = write_anew(&path, &header, &known)?;
        let inner = Inner { path, header, file: Some(file), bytes, bytes_max, torn: false, known };
        Ok(Self { inner: Mutex::new(inner) })
    }

    /// The ledger that the file in `state_dir` is of, if one can be read from it.
    pub(super) fn ledger(state_dir: &Path) -> Option<LedgerId> {
        let earlier = read(&state_dir.join("begun"))?;
        LedgerId::parse(earlier.header.trim_end().rsplit(' ').next()?)
    }

    /// Writes down that an attempt begins.
    pub(super) fn begin(&self, attempt: Try) -> io::Result<()> {
        let mut inner = self.lock();
        let mut file = match inner.file.take() {
            Some(file) if inner.bytes <= inner.bytes_max => file,
            too_long => {
                // Windows replaces no file that is open.
                drop(too_long);
                let (file, bytes) = write_anew(&inner.path, &inner.header, &inner.known)?;
                inner.bytes = bytes;
                inner.torn = false;
                // What is open alone may fill it: then it doubles, so that it is not rewritten
                // each time.
                inner.bytes_max = inner.bytes_max.max(bytes.saturating_mul(2));
                file
            }
        };
        let mut line = String::with_capacity(24);
        if inner.torn {
            line.push('\n');
        }
        push_line(&mut line, attempt, Some(true));
        inner.torn = true;
        let written = file.write_all(line.as_bytes());
        inner.file = Some(file);
        written?;
        inner.torn = false;
        inner.bytes += line.len() as u64;
        inner.known.insert(attempt, Some(true));
        Ok(())
    }

    /// Whether an attempt without an end on record had begun; `None`: nobody knows.
    pub(super) fn had_begun(&self, attempt: Try) -> Option<bool> {
        self.lock().known.get(&attempt).copied().flatten()
    }

    /// Takes note of what a commit did: these attempts came on record, those have an end.
    pub(super) fn note(&self, opened: &[Try], ended: &[Try]) {
        let mut inner = self.lock();
        for attempt in opened {
            inner.known.entry(*attempt).or_insert(Some(false));
        }
        for attempt in ended {
            inner.known.remove(attempt);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Earlier {
    header: String,
    lines: BTreeMap<Try, Option<bool>>,
}

/// `None` if it is not there or anything in it is not understood: then nothing is known.
fn read(path: &Path) -> Option<Earlier> {
    let text = String::from_utf8(own_files::read(path, READ_MAX).ok()?).ok()?;
    let (header, rest) = text.split_once('\n')?;
    if !header.starts_with(FORMAT) {
        return None;
    }
    let mut lines = BTreeMap::new();
    for line in rest.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let attempt = (FileId::parse(words.next()?)?, words.next()?.parse().ok()?);
        let begun = match words.next() {
            None => Some(true),
            Some("?") => None,
            Some(_) => return None,
        };
        lines.insert(attempt, begun);
    }
    Some(Earlier { header: format!("{header}\n"), lines })
}

fn push_line(text: &mut String, (id, number): Try, begun: Option<bool>) {
    let mark = match begun {
        Some(true) => "",
        None => " ?",
        // An attempt that had not begun is one that is not named.
        Some(false) => return,
    };
    writeln!(text, "{id} {number}{mark}").expect("a String takes any text");
}

fn write_anew(
    path: &Path,
    header: &str,
    known: &BTreeMap<Try, Option<bool>>,
) -> io::Result<(File, u64)> {
    let mut text = header.to_owned();
    for (attempt, begun) in known {
        push_line(&mut text, *attempt, *begun);
    }
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = own_files::create(&fresh, own_files::PRIVATE, OpenOptions::new().append(true))?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&fresh, path)?;
    Ok((file, text.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: LedgerId = LedgerId([7; 16]);
    const ONE: Try = (FileId(1_000_001), 1);
    const TWO: Try = (FileId(1_000_002), 3);
    const THREE: Try = (FileId(1_000_003), 1);

    fn open(folder: &Path, boot: &str, open: &[Try]) -> Begun {
        Begun::open_at(folder, LEDGER, open, Some(boot), BYTES_MAX).unwrap()
    }

    #[test]
    fn within_one_process_begun_and_not_begun_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let begun = open(folder.path(), "a", &[]);
        begun.note(&[ONE, TWO], &[]);
        begun.begin(ONE).unwrap();
        assert_eq!(begun.had_begun(ONE), Some(true));
        assert_eq!(begun.had_begun(TWO), Some(false));
        assert_eq!(begun.had_begun(THREE), None, "it is not on record");
        begun.note(&[], &[ONE]);
        assert_eq!(begun.had_begun(ONE), None, "its end is on record");
    }

    #[test]
    fn a_killed_process_is_remembered_through_two_more_kills_in_one_boot() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path(), "a", &[]);
        first.note(&[ONE, TWO], &[]);
        first.begin(ONE).unwrap();
        drop(first);
        for _ in 0..2 {
            let later = open(folder.path(), "a", &[ONE, TWO]);
            assert_eq!(later.had_begun(ONE), Some(true));
            assert_eq!(later.had_begun(TWO), Some(false));
        }
    }

    #[test]
    fn another_boot_knows_nothing_and_does_not_learn_by_a_second_start() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path(), "a", &[]);
        first.note(&[ONE, TWO], &[]);
        first.begin(ONE).unwrap();
        drop(first);
        for _ in 0..2 {
            let later = open(folder.path(), "b", &[ONE, TWO]);
            assert_eq!(later.had_begun(ONE), None);
            assert_eq!(later.had_begun(TWO), None);
        }
    }

    fn check_unknown(content: &str) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("begun"), content).unwrap();
        assert_eq!(open(folder.path(), "a", &[ONE]).had_begun(ONE), None, "{content:?}");
    }

    #[test]
    fn what_is_not_understood_is_not_believed() {
        check_unknown("");
        check_unknown("patchdrop-begun-1 a");
        check_unknown("something else\n");
        check_unknown(&format!("patchdrop-begun-1 a {}\n", LedgerId([8; 16])));
        check_unknown(&format!("patchdrop-begun-1 a {LEDGER}\nnonsense\n"));
        check_unknown(&format!("patchdrop-begun-1 a {LEDGER}\n{} 1 x\n", ONE.0));
    }

    #[test]
    fn without_the_name_of_a_boot_nothing_is_known() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let begun = Begun::open_at(folder.path(), LEDGER, &[ONE], None, BYTES_MAX).unwrap();
            assert_eq!(begun.had_begun(ONE), None);
        }
    }

    #[test]
    fn a_long_file_is_written_anew_with_what_is_still_open() {
        let folder = tempfile::tempdir().unwrap();
        let begun = Begun::open_at(folder.path(), LEDGER, &[], Some("a"), 1_000).unwrap();
        begun.note(&[ONE], &[]);
        begun.begin(ONE).unwrap();
        for number in 0..10_000 {
            let attempt = (FileId(2_000_000 + number), 1);
            begun.note(&[attempt], &[]);
            begun.begin(attempt).unwrap();
            begun.note(&[], &[attempt]);
        }
        let bytes = std::fs::metadata(folder.path().join("begun")).unwrap().len();
        assert!(bytes < 1_100, "{bytes} bytes");
        drop(begun);
        assert_eq!(open(folder.path(), "a", &[ONE]).had_begun(ONE), Some(true));
    }

    #[test]
    fn the_file_names_its_ledger() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Begun::ledger(folder.path()), None);
        drop(open(folder.path(), "a", &[]));
        assert_eq!(Begun::ledger(folder.path()), Some(LEDGER));
    }
}
