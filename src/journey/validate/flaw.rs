//! What can be wrong with a file, in codes and in words. No word here shows content of the file.

use super::xml::XmlFlaw;
use crate::model::outcome::{Cause, Code, Fault};
use crate::model::route::RouteName;

/// A place relative to the piece that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// An index in the piece.
    Index(usize),
    /// Where the current string or number began, before this piece.
    Token,
    /// Where the current escape began, before this piece.
    Escape,
}

/// What is wrong with a text, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Defect {
    /// Where.
    pub(super) at: At,
    /// What.
    pub(super) kind: Kind,
}

impl Defect {
    pub(super) fn new(index: usize, kind: Kind) -> Self {
        Self { at: At::Index(index), kind }
    }
}

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Against the grammar; what stands there.
    NotJson(&'static str),
    TrailingContent,
    SeveralDocuments,
    /// The byte, and what it would be in windows-1252 if it stands in a string.
    InvalidUtf8(u8, Option<char>),
    InvalidUtf16,
    /// The route says windows-1252, which does not assign this byte.
    UnassignedByte(u8),
    ControlCharacter(u8),
    /// The deepest nesting allowed, and whether it is the schema that sets it.
    TooDeep(usize, bool),
    DuplicateKey,
    NumberTooLarge,
    LoneSurrogate,
    /// The text stops in the middle, with this many arrays and objects open.
    Stops(usize),
    /// The text stops within a character.
    StopsInCharacter,
    /// From here on the file holds NUL bytes and nothing else.
    NulTail,
    Empty,
    /// The file is no XML document.
    Xml(XmlFlaw),
}

impl Kind {
    fn code(self) -> Code {
        Code::of(match self {
            Self::Xml(flaw) => flaw.code(),
            Self::NotJson(_) => "not-json",
            Self::TrailingContent => "trailing-content",
            Self::SeveralDocuments => "several-documents",
            Self::InvalidUtf8(..) => "invalid-utf8",
            Self::InvalidUtf16 => "invalid-utf16",
            Self::UnassignedByte(_) => "wrong-encoding",
            Self::ControlCharacter(_) => "control-character",
            Self::TooDeep(..) => "too-deep",
            Self::DuplicateKey => "duplicate-key",
            Self::NumberTooLarge => "number-too-large",
            Self::LoneSurrogate => "lone-surrogate",
            Self::Stops(_) | Self::StopsInCharacter | Self::NulTail => "truncated",
            Self::Empty => "empty",
        })
    }

    /// Whether such a file may still be being written.
    pub(super) fn is_unfinished(self) -> bool {
        match self {
            Self::Stops(_) | Self::StopsInCharacter | Self::NulTail | Self::Empty => true,
            Self::Xml(flaw) => flaw.is_unfinished(),
            Self::NotJson(_)
            | Self::TrailingContent
            | Self::SeveralDocuments
            | Self::InvalidUtf8(..)
            | Self::InvalidUtf16
            | Self::UnassignedByte(_)
            | Self::ControlCharacter(_)
            | Self::TooDeep(..)
            | Self::DuplicateKey
            | Self::NumberTooLarge
            | Self::LoneSurrogate => false,
        }
    }

    fn plain(self, place: &str, route: &RouteName) -> String {
        match self {
            Self::Xml(flaw) => flaw.plain(place),
            Self::NotJson(what) => format!("{what} at {place}"),
            Self::TrailingContent => {
                format!("the document is followed by other content at {place}")
            }
            Self::SeveralDocuments => format!(
                "the file holds several JSON documents one after another (NDJSON?); the second \
                 begins at {place}"
            ),
            Self::InvalidUtf8(byte, Some(letter)) => format!(
                "byte {byte:02X} at {place} looks like {letter} in windows-1252; set encoding = \
                 'windows-1252' for route {route}"
            ),
            Self::InvalidUtf8(byte, None) => format!("byte {byte:02X} at {place} is not UTF-8"),
            Self::InvalidUtf16 => format!("half a surrogate pair at {place} is not UTF-16"),
            Self::UnassignedByte(byte) => {
                format!("byte {byte:02X} at {place} stands for nothing in windows-1252")
            }
            Self::ControlCharacter(b'\n' | b'\r') => {
                format!("a raw line break in a string at {place}")
            }
            Self::ControlCharacter(b'\t') => format!("a raw tab in a string at {place}"),
            Self::ControlCharacter(byte) => {
                format!("control character {byte:02X} in a string at {place}")
            }
            Self::TooDeep(limit, false) => {
                format!("arrays and objects nest more than {limit} deep at {place}")
            }
            Self::TooDeep(limit, true) => format!(
                "arrays and objects nest more than {limit} deep at {place}, deeper than a schema \
                 is applied to"
            ),
            Self::DuplicateKey => format!("a key occurs twice in one object at {place}"),
            Self::NumberTooLarge => {
                format!("a number that a double cannot hold, or not exactly, at {place}")
            }
            Self::LoneSurrogate => format!("an escaped half of a surrogate pair at {place}"),
            Self::Stops(0) => format!("the document stops in the middle at {place}"),
            Self::Stops(1) => {
                format!("the document stops in the middle at {place}, one array or object is open")
            }
            Self::Stops(open) => format!(
                "the document stops in the middle at {place}, {open} arrays and objects are open"
            ),
            Self::StopsInCharacter => format!("the file stops within a character at {place}"),
            Self::NulTail => format!(
                "the file holds nothing but NUL bytes from {place} on: its writer has reserved \
                 space and not filled it"
            ),
            Self::Empty => {
                "the file is empty; that counts as unfinished until truncated_after, as \
                            a writer may only just have created it"
                    .to_owned()
            }
        }
    }

    fn remedy(self, route: &RouteName) -> String {
        match self {
            Self::Xml(flaw) => flaw.remedy(route),
            Self::InvalidUtf8(_, Some(_)) => format!(
                "Set encoding = 'windows-1252' for route {route}, or have the file written in \
                 UTF-8, and drop it again."
            ),
            Self::InvalidUtf8(_, None) | Self::InvalidUtf16 => {
                format!(
                    "Set the encoding of route {route} to what its files are in, or mend the file."
                )
            }
            Self::UnassignedByte(_) => format!(
                "Set encoding = 'auto' for route {route} if its files are in UTF-8, or mend the file."
            ),
            Self::TooDeep(_, false) => {
                format!("Raise max_depth of route {route}, if the receiver can take it.")
            }
            Self::TooDeep(_, true) => {
                format!(
                    "Have the file written with less nesting, or remove schema from route {route}."
                )
            }
            Self::SeveralDocuments => "Have each document written to a file of its own.".to_owned(),
            Self::DuplicateKey | Self::NumberTooLarge | Self::LoneSurrogate => format!(
                "Mend the program that writes the file; only without strict and schema does route \
                 {route} send such files."
            ),
            Self::Stops(_) | Self::StopsInCharacter | Self::NulTail | Self::Empty => {
                "Check that the program that writes the file comes to its end, and drop it again."
                    .to_owned()
            }
            Self::NotJson(_) | Self::TrailingContent | Self::ControlCharacter(_) => {
                "Mend the file or the program that writes it, and drop it again.".to_owned()
            }
        }
    }

    /// The fault in full. `place` is a [`super::text::Spot`] in words.
    pub(super) fn fault(self, place: &str, excerpt: Option<String>, route: &RouteName) -> Fault {
        let cause = Cause::new(self.code(), self.plain(place, route)).with_excerpt(excerpt);
        Fault { cause, remedy: self.remedy(route) }
    }
}

/// A fault that has no line and column.
pub(super) fn fault(code: &'static str, plain: String, remedy: String) -> Fault {
    Fault { cause: Cause::new(Code::of(code), plain), remedy }
}
