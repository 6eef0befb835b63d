//! Which of two files is ahead, on a route that keeps an order: by name or by arrival. Bounded
//! (promise P10): of a listing only the files that are first in line are kept.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::detect::Reason;
use super::ready::Evidence;
use crate::model::file::Sighting;
use crate::model::route::{OnFailed, OrderBy, Route};
use crate::model::step::State;

/// Files of one listing that are kept in line. The next listing finds those behind them.
pub const LINE_MAX: usize = 256;

/// A name as `order = "name"` compares it: runs of digits as numbers, everything else by its bytes;
/// names that are equal so (`1` and `01`) by their bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NaturalName {
    /// Each number as `0`, how many digits it has without leading zeros, and these: the longer one
    /// is the larger, and against anything else it stands where digits stand.
    key: Vec<u8>,
    whole: OsString,
}

impl NaturalName {
    /// Reads a name.
    #[must_use]
    pub fn new(name: &OsStr) -> Self {
        let bytes = name.as_encoded_bytes();
        let mut key = Vec::with_capacity(bytes.len() + 4);
        for run in bytes.chunk_by(|one, other| one.is_ascii_digit() && other.is_ascii_digit()) {
            if run.first().is_some_and(u8::is_ascii_digit) {
                let zeros = run.iter().take_while(|digit| **digit == b'0').count();
                let digits = run.get(zeros..).unwrap_or_default();
                // A name has at most 255 bytes where files have names.
                key.extend([b'0', u8::try_from(digits.len()).unwrap_or(u8::MAX)]);
                key.extend(digits);
            } else {
                key.extend(run);
            }
        }
        Self { key, whole: name.to_owned() }
    }
}

/// A file's place in line; the smallest is the head.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinePlace {
    /// By name.
    Name(NaturalName),
    /// By arrival: the listing that saw it first, its mtime, its name.
    Arrival(u64, i64, OsString),
}

/// One that waits in line.
#[derive(Clone, Debug)]
pub struct InLine {
    /// What was seen.
    pub sighting: Sighting,
    /// Why it is taken for complete; else why it is not, so that it holds up those behind it.
    pub ready: Result<Evidence, Reason>,
}

/// The files of one drop folder that are first in line for one route.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// As of the last whole listing.
    now: BTreeMap<LinePlace, InLine>,
    /// As of the listing under way.
    next: BTreeMap<LinePlace, InLine>,
    /// When each of those in line was first seen: its file, and the number of the listing.
    seen: BTreeMap<OsString, ((u64, u64), u64)>,
    /// Nothing is known of the head before a listing has ended.
    is_proved: bool,
    /// The head is not complete after all.
    is_waiting: bool,
}

impl Line {
    /// A listing begins: who is first is known again when it has ended.
    pub fn begin(&mut self) {
        self.next.clear();
        self.is_proved = false;
        self.is_waiting = false;
    }

    /// A candidate of the listing under way, whose number is `listing`.
    pub fn add(&mut self, by: OrderBy, file: InLine, listing: u64) {
        let Sighting { name, identity, .. } = &file.sighting;
        let place = match by {
            OrderBy::Name => LinePlace::Name(NaturalName::new(name)),
            OrderBy::Arrival => {
                let which = (identity.volume, identity.number);
                let known = self.seen.get(name).filter(|(known, _)| *known == which);
                let first = known.map_or(listing, |(_, first)| *first);
                LinePlace::Arrival(first, identity.mtime_ns, name.clone())
            }
        };
        self.next.insert(place, file);
        if self.next.len() > LINE_MAX {
            self.next.pop_last();
        }
    }

    /// The listing has ended, and has seen everything that is there.
    pub fn end(&mut self) {
        self.now = std::mem::take(&mut self.next);
        self.is_proved = true;
        self.seen = self
            .now
            .iter()
            .filter_map(|(place, file)| {
                let LinePlace::Arrival(first, _, name) = place else { return None };
                let identity = &file.sighting.identity;
                Some((name.clone(), ((identity.volume, identity.number), *first)))
            })
            .collect();
    }

    /// The one that is ahead of all others in the folder, if that is known.
    #[must_use]
    pub fn head(&self) -> Option<&InLine> {
        self.now.first_key_value().map(|(_, file)| file).filter(|_| self.is_proved)
    }

    /// The head has been claimed, or is gone: the next one is the head.
    pub fn take(&mut self) -> Option<InLine> {
        self.now.pop_first().map(|(_, file)| file)
    }

    /// The look at the head came to nothing yet: it stays ahead, and who is behind it does not
    /// matter before the next listing.
    pub fn wait(&mut self) {
        self.now.clear();
        self.is_waiting = true;
    }

    /// Whether all that were kept in line have gone: another listing finds those behind them.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.now.is_empty() && !self.is_waiting
    }
}

/// Whether the end of a file in this state pauses its route until a person resumes it.
#[must_use]
pub fn pauses(route: &Route, state: State) -> bool {
    let on_failed = route.order.map(|order| order.on_failed);
    state == State::Failed && on_failed == Some(OnFailed::Pause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file::{Identity, Kind};
    use crate::model::time::Wall;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let check = |names: &[&str]| {
            let mut sorted: Vec<_> =
                names.iter().map(|name| NaturalName::new(OsStr::new(name))).collect();
            sorted.reverse();
            sorted.sort();
            let sorted: Vec<_> = sorted.iter().map(|name| name.whole.to_str()).collect();
            let expected: Vec<_> = names.iter().map(|name| Some(*name)).collect();
            assert_eq!(sorted, expected);
        };
        check(&["9.json", "10.json", "100.json"]);
        check(&["a.json", "a1.json", "a2.json", "a10.json", "aa.json"]);
        check(&["00.json", "0001.json", "001.json", "1.json", "2.json"]);
        check(&["2026-9-30.json", "2026-11-21.json", "2026-11-21b.json"]);
        check(&[
            "x99999999999999999999999998",
            "x99999999999999999999999999",
            "x100000000000000000000000000",
        ]);
        check(&["A", "a", "a b", "a-b", "ab"]);
        check(&["1-9", "1-10", "9-1", "10-1"]);
    }

    fn file(name: &str, number: u64, mtime_ns: i64) -> InLine {
        let identity = Identity { volume: 1, number, size: 1, mtime_ns };
        let sighting =
            Sighting { name: name.into(), kind: Kind::File, identity, changed_at: Wall(0) };
        InLine { sighting, ready: Ok(Evidence::default()) }
    }

    fn heads(line: &mut Line) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(head) = line.head() {
            names.push(head.sighting.name.to_string_lossy().into_owned());
            line.take();
        }
        names
    }

    #[test]
    fn the_head_is_known_only_when_the_whole_folder_has_been_listed() {
        let mut line = Line::default();
        line.begin();
        line.add(OrderBy::Name, file("2", 2, 0), 1);
        assert!(line.head().is_none());
        line.add(OrderBy::Name, file("1", 1, 0), 1);
        line.end();
        assert_eq!(heads(&mut line.clone()), ["1", "2"]);
        line.begin();
        assert!(line.head().is_none(), "a smaller one may have come");
        line.end();
        assert!(line.head().is_none(), "nothing is there");
    }

    #[test]
    fn of_a_huge_folder_the_first_in_line_are_kept_whatever_the_order_of_the_listing() {
        for by in [OrderBy::Name, OrderBy::Arrival] {
            let mut line = Line::default();
            line.begin();
            for n in 0..10_000_u64 {
                let n = n * 7_919 % 10_000;
                line.add(by, file(&n.to_string(), n, i64::try_from(n).unwrap()), 1);
                assert!(line.next.len() <= LINE_MAX);
            }
            line.end();
            let expected: Vec<_> = (0..LINE_MAX).map(|n| n.to_string()).collect();
            assert_eq!(heads(&mut line), expected);
        }
    }

    #[test]
    fn by_arrival_the_one_seen_first_goes_first_then_the_older_then_the_smaller_name() {
        let mut line = Line::default();
        line.begin();
        line.add(OrderBy::Arrival, file("z", 1, 50), 1);
        line.add(OrderBy::Arrival, file("y", 2, 50), 1);
        line.end();
        line.begin();
        for (name, number, mtime) in [("a", 3, 10), ("z", 1, 50), ("b", 4, 5), ("y", 2, 60)] {
            line.add(OrderBy::Arrival, file(name, number, mtime), 2);
        }
        line.end();
        assert_eq!(heads(&mut line.clone()), ["z", "y", "b", "a"]);
        // Another file under the same name has come later.
        line.begin();
        line.add(OrderBy::Arrival, file("z", 9, 50), 3);
        line.add(OrderBy::Arrival, file("y", 2, 60), 3);
        line.end();
        assert_eq!(heads(&mut line), ["y", "z"]);
    }
}
