//! A text as it is read: valid UTF-8, one document, and where in it something is wrong.

use std::ffi::OsStr;
use std::fmt;

use super::flaw::{At, Defect, Kind};
use super::json::{Limits, Parser};
use crate::model::file::shown;
use crate::model::outcome::Fault;
use crate::model::route::RouteName;
use crate::model::step::Conversion;

/// An excerpt has at most this many characters on either side of its mark.
const SIDE_MAX: usize = 39;
/// So much of the last piece is kept for an excerpt; a character has at most four bytes.
const TAIL_BYTES: usize = SIDE_MAX * 4;
/// Stands in an excerpt where the fault is.
const MARK: char = '▸';

/// A place in the text: lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    line: u64,
    column: u64,
    /// Offset in the file in bytes, shown where the file's encoding makes it hard to count.
    offset: u64,
    conversion: Option<Conversion>,
}

impl Spot {
    /// The beginning of a text; a byte order mark may stand before it in the file.
    pub(super) fn start(conversion: Option<Conversion>, offset: u64) -> Self {
        Self { line: 1, column: 1, offset, conversion }
    }

    pub(super) fn line(self) -> u64 {
        self.line
    }

    /// The place behind `text`, which begins here.
    fn after(self, text: &[u8]) -> Self {
        let breaks = count(text, |byte| byte == b'\n');
        let line = if breaks > 0 { last_line(text) } else { text };
        let letters = count(line, is_letter);
        let bytes = match self.conversion {
            None | Some(Conversion::Utf8BomDropped) => text.len() as u64,
            Some(Conversion::Windows1252) => count(text, is_letter),
            Some(Conversion::Utf16Le | Conversion::Utf16Be) => {
                2 * (count(text, is_letter) + count(text, |byte| byte >= 0xf0))
            }
        };
        Self {
            line: self.line + breaks,
            column: if breaks > 0 { 1 + letters } else { self.column + letters },
            offset: self.offset + bytes,
            conversion: self.conversion,
        }
    }
}

/// Whether a character begins with this byte, in UTF-8.
fn is_letter(byte: u8) -> bool {
    !matches!(byte, 0x80..=0xbf)
}

/// How many bytes are such ones. So many at a time that a byte holds their number: that lets the
/// compiler look at a whole register at once, which matters as all of a large file is counted.
fn count(bytes: &[u8], is_such: impl Fn(u8) -> bool) -> u64 {
    bytes
        .chunks(255)
        .map(|chunk| u64::from(chunk.iter().map(|byte| u8::from(is_such(*byte))).sum::<u8>()))
        .sum()
}

/// What stands behind the last line break.
fn last_line(text: &[u8]) -> &[u8] {
    let has_break = |chunk: &&[u8]| count(chunk, |byte| byte == b'\n') > 0;
    let without: usize =
        text.rchunks(64).take_while(|chunk| !has_break(chunk)).map(<[u8]>::len).sum();
    let before = &text[..text.len() - without];
    let at = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    &text[at..]
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)?;
        if self.conversion.is_some() {
            write!(f, " (byte offset {})", self.offset)?;
        }
        Ok(())
    }
}

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Flaw {
    pub(super) kind: Kind,
    spot: Spot,
    excerpt: Option<String>,
    /// Nothing but NUL bytes follows in this piece. If none but such bytes follow in the file,
    /// its writer has reserved the space and may still be filling it.
    pub(super) nul_follows: bool,
}

impl Flaw {
    pub(super) fn fault(&self, route: &RouteName) -> Fault {
        self.kind.fault(&self.spot.to_string(), self.excerpt.clone(), route)
    }
}

/// What every reader of a file is asked for, whatever the file's format.
pub(super) trait Scan {
    /// Takes the next piece. The answer is how much of it was taken: a character may be cut at
    /// its end (at most three bytes), and is to be given again. With `last` the text must be whole.
    fn take(&mut self, piece: &[u8], last: bool) -> Result<usize, Flaw>;

    /// A converter found that what follows the last piece (already taken) cannot be converted.
    fn unconvertible(&self, kind: Kind) -> Flaw;

    /// A converter found that the file ends within a character.
    fn stops(&mut self) -> Flaw;

    /// What a receiver may change, for the record. Without content of the file.
    fn remarks(&self) -> Vec<String>;
}

/// Where a reader is, and what went before.
pub(super) struct Trail {
    /// Where the next piece begins.
    pub(super) here: Spot,
    /// The end of what went before it.
    tail: Vec<u8>,
}

impl Trail {
    pub(super) fn new(start: Spot) -> Self {
        Self { here: start, tail: Vec::new() }
    }

    /// Becomes the same as another.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.here = other.here;
        self.tail.clear();
        self.tail.extend_from_slice(&other.tail);
    }

    /// `text` has been read.
    pub(super) fn advance(&mut self, text: &[u8]) {
        self.here = self.here.after(text);
        let fresh = &text[text.len().saturating_sub(TAIL_BYTES)..];
        let surplus = (self.tail.len() + fresh.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(fresh);
    }

    /// A flaw in the next piece. Its place is that of the index.
    pub(super) fn flaw(&self, defect: Defect, piece: &[u8]) -> Flaw {
        let index = match defect.at {
            At::Index(index) => index.min(piece.len()),
            At::Token | At::Escape => 0,
        };
        let (before, after) = piece.split_at(index);
        let excerpt = (defect.kind != Kind::Empty).then(|| excerpt(&self.tail, before, after));
        let nul_follows = after.first() == Some(&0) && after.iter().all(|byte| *byte == 0);
        Flaw { kind: defect.kind, spot: self.here.after(before), excerpt, nul_follows }
    }
}

/// The reader of a JSON text, piece by piece.
pub(super) struct Text {
    parser: Parser,
    trail: Trail,
    /// Where a string or number, and an escape, began that go on in the next piece.
    token: Spot,
    escape: Spot,
    firsts: [Option<Spot>; 3],
}

impl Text {
    pub(super) fn new(limits: Limits, start: Spot) -> Self {
        Self {
            parser: Parser::new(limits),
            trail: Trail::new(start),
            token: start,
            escape: start,
            firsts: [None; 3],
        }
    }

    fn not_utf8(&self, piece: &[u8], at: usize) -> Defect {
        let byte = piece.get(at).copied().unwrap_or_default();
        let letter = in_windows_1252(byte).filter(|_| self.parser.is_in_string());
        Defect::new(at, Kind::InvalidUtf8(byte, letter))
    }

    fn advance(&mut self, text: &[u8]) {
        if self.parser.is_in_token() {
            self.token = self.spot(self.parser.token(), text);
        }
        if self.parser.is_in_escape() {
            self.escape = self.spot(self.parser.escape_began(), text);
        }
        self.trail.advance(text);
    }

    fn spot(&self, at: At, piece: &[u8]) -> Spot {
        match at {
            At::Index(index) => self.trail.here.after(&piece[..index.min(piece.len())]),
            At::Token => self.token,
            At::Escape => self.escape,
        }
    }

    fn flaw(&self, defect: Defect, piece: &[u8]) -> Flaw {
        Flaw { spot: self.spot(defect.at, piece), ..self.trail.flaw(defect, piece) }
    }

    fn note_firsts(&mut self, text: &[u8]) {
        let Parser { duplicates, numbers, surrogates, .. } = &self.parser;
        let firsts = [duplicates, numbers, surrogates].map(|tally| tally.first);
        for (index, at) in firsts.into_iter().enumerate() {
            if let (None, Some(at)) = (self.firsts[index], at) {
                self.firsts[index] = Some(self.spot(at, text));
            }
        }
    }
}

impl Scan for Text {
    fn take(&mut self, piece: &[u8], last: bool) -> Result<usize, Flaw> {
        let (valid, wrong) = match std::str::from_utf8(piece) {
            Ok(_) => (piece.len(), None),
            Err(error) => {
                let cut = error.error_len().is_none();
                (error.valid_up_to(), Some(cut))
            }
        };
        let text = &piece[..valid];
        self.parser.take(text).map_err(|defect| self.flaw(defect, piece))?;
        self.note_firsts(text);
        let cut = wrong == Some(true);
        if wrong == Some(false) || (cut && last && !self.parser.is_in_string()) {
            return Err(self.flaw(self.not_utf8(piece, valid), piece));
        }
        if last {
            self.parser.finish(valid).map_err(|defect| self.flaw(defect, piece))?;
            self.note_firsts(text);
        } else {
            self.advance(text);
        }
        Ok(valid)
    }

    fn unconvertible(&self, kind: Kind) -> Flaw {
        self.flaw(Defect::new(0, kind), b"")
    }

    fn stops(&mut self) -> Flaw {
        let open = match self.parser.finish(0) {
            Err(Defect { kind: Kind::Stops(open), .. }) => open,
            Err(_) | Ok(()) => 0,
        };
        self.unconvertible(Kind::Stops(open))
    }

    fn remarks(&self) -> Vec<String> {
        let Parser { duplicates, numbers, surrogates, .. } = &self.parser;
        let tallies = [
            (
                duplicates,
                "keys that occur twice in one object",
                "a receiver may keep one value only",
            ),
            (numbers, "numbers that a double cannot hold exactly", "a receiver may round them"),
            (surrogates, "escaped halves of surrogate pairs", "a receiver may replace them"),
        ];
        let mut remarks: Vec<String> = self
            .firsts
            .iter()
            .zip(tallies)
            .filter_map(|(first, (tally, what, then))| {
                let first = first.as_ref()?;
                Some(format!("{what}: {}, the first at {first}; {then}", tally.count))
            })
            .collect();
        if self.parser.keys_uncompared() {
            remarks.push(
                "objects with very many keys were not searched for duplicates to the end".into(),
            );
        }
        remarks
    }
}

/// The letter that windows-1252 makes of a byte, if it is one that can be shown.
pub(super) fn in_windows_1252(byte: u8) -> Option<char> {
    let letter = [byte];
    let (letter, _) = encoding_rs::WINDOWS_1252.decode_without_bom_handling(&letter);
    let is_shown = |letter: &char| !letter.is_control() && !matches!(letter, '\u{a0}' | '\u{ad}');
    letter.chars().next().filter(is_shown)
}

/// What stands round a fault, the place marked; one line, at most 80 characters.
fn excerpt(tail: &[u8], before: &[u8], after: &[u8]) -> String {
    let near = &before[before.len().saturating_sub(TAIL_BYTES)..];
    let mut before = tail.to_vec();
    before.extend_from_slice(near);
    let mut left = letters(&before);
    let mut room = SIDE_MAX;
    left.reverse();
    left.retain(|letter| take_room(letter, &mut room));
    left.reverse();
    let mut right = letters(&after[..after.len().min(TAIL_BYTES)]);
    room = SIDE_MAX;
    right.retain(|letter| take_room(letter, &mut room));
    format!("{}{MARK}{}", left.concat(), right.concat())
}

/// Whether a letter still fits; once one does not, none does.
fn take_room(letter: &str, room: &mut usize) -> bool {
    let length = letter.chars().count();
    let fits = length <= *room;
    *room = if fits { *room - length } else { 0 };
    fits
}

/// Each character as it may be shown; bytes that are no UTF-8 as `\xNN`.
fn letters(bytes: &[u8]) -> Vec<String> {
    let mut letters = Vec::new();
    for part in bytes.utf8_chunks() {
        letters.extend(
            part.valid().chars().map(|letter| shown(OsStr::new(letter.encode_utf8(&mut [0; 4])))),
        );
        letters.extend(part.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    letters
}
