//! The file as text: its encoding, its lines, its syntax; and where notices are collected.

use std::cell::RefCell;
use std::ops::Range;

use toml::de::DeTable;

use super::Notice;

/// Collects every fault and warning while a config is read and checked.
#[derive(Debug, Default)]
pub(super) struct Sink {
    faults: RefCell<Vec<Notice>>,
    missing: RefCell<Vec<Notice>>,
    warnings: RefCell<Vec<Notice>>,
}

impl Sink {
    pub(super) fn fault(&self, notice: Notice) {
        self.faults.borrow_mut().push(notice);
    }

    /// A key that should be there. Not said where the key is there and has another fault.
    pub(super) fn missing<T>(&self, table: &At<T>, key: &str, hint: &str) {
        let place = At { value: (), line: table.line, key: format!("{}.{key}", table.key) };
        self.missing.borrow_mut().push(place.notice("is missing", hint));
    }

    pub(super) fn warn(&self, notice: Notice) {
        self.warnings.borrow_mut().push(notice);
    }

    pub(super) fn is_clean(&self) -> bool {
        self.faults.borrow().is_empty() && self.missing.borrow().is_empty()
    }

    /// Faults and warnings, each by line and said once.
    pub(super) fn finish(self) -> (Vec<Notice>, Vec<Notice>) {
        let mut faults = self.faults.into_inner();
        let missing = self.missing.into_inner().into_iter();
        let unsaid: Vec<Notice> =
            missing.filter(|notice| faults.iter().all(|fault| fault.key != notice.key)).collect();
        faults.extend(unsaid);
        (in_order(faults), in_order(self.warnings.into_inner()))
    }
}

fn in_order(mut notices: Vec<Notice>) -> Vec<Notice> {
    // A value in [defaults] is looked at once for each route: it is said once.
    notices.sort_by(|a, b| (a.line, &a.key, &a.text).cmp(&(b.line, &b.key, &b.text)));
    notices.dedup();
    notices
}

/// A value together with where it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct At<T> {
    pub(super) value: T,
    /// From 1.
    pub(super) line: usize,
    /// Dotted, as a person would name it: `route.orders.max_body`.
    pub(super) key: String,
}

/// The place of a key, if it is written.
pub(super) fn bare<T>(written: Option<&At<T>>) -> Option<At<()>> {
    written.map(|written| written.with(()))
}

impl<T> At<T> {
    /// Another value at the same place.
    pub(super) fn with<U>(&self, value: U) -> At<U> {
        At { value, line: self.line, key: self.key.clone() }
    }

    /// A notice about this value.
    pub(super) fn notice(&self, text: impl Into<String>, hint: impl Into<String>) -> Notice {
        let hint = hint.into();
        Notice {
            key: self.key.clone(),
            // A default has no line.
            line: (self.line > 0).then_some(self.line),
            text: text.into(),
            hint: (!hint.is_empty()).then_some(hint),
        }
    }
}

/// The text of a config file.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    line_starts: Vec<usize>,
}

impl Page {
    /// Decodes a file: UTF-8 with or without BOM, UTF-16 with BOM.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Notice> {
        let text = match bytes {
            [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest)?,
            [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
            [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
            _ => utf8(bytes)?,
        };
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Ok(Self { text, line_starts })
    }

    /// The line, from 1, that an offset is on.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// What is written there.
    pub(super) fn written(&self, span: Range<usize>) -> &str {
        self.text.get(span).unwrap_or_default()
    }

    /// The table that the text spells, or every syntax fault.
    pub(super) fn parse(&self) -> Result<DeTable<'_>, Vec<Notice>> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        if errors.is_empty() {
            return Ok(table.into_inner());
        }
        Err(in_order(errors.iter().map(|error| self.syntax_fault(error)).collect()))
    }

    /// The table as far as it can be made out, and whether that is all of it.
    pub(super) fn parse_what_there_is(&self) -> (DeTable<'_>, bool) {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        (table.into_inner(), errors.is_empty())
    }

    /// Whether a line begins with this key, be it understood or not.
    pub(super) fn names(&self, key: &str) -> bool {
        self.text
            .lines()
            .any(|line| line.trim_start_matches([' ', '\t', '"', '\'']).starts_with(key))
    }

    fn syntax_fault(&self, error: &toml::de::Error) -> Notice {
        let Some(span) = error.span() else {
            return Notice {
                key: String::new(),
                line: None,
                text: format!("not TOML: {}", error.message()),
                hint: None,
            };
        };
        let line = self.line(span.start);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let end = self.line_starts.get(line).copied().unwrap_or(self.text.len());
        let column = self.written(start..span.start).chars().count() + 1;
        let mut text = format!("column {column}: {}", error.message());
        if error.message() == "duplicate key" {
            text = format!("{text} {}", self.written(span));
        }
        Notice {
            key: String::new(),
            line: Some(line),
            text,
            hint: path_hint(self.written(start..end)),
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<String, Notice> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(text.to_owned()),
        Err(error) => error,
    };
    let (before, after) = bytes.split_at(error.valid_up_to());
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
    Err(Notice {
        key: String::new(),
        line: Some(before.split(|byte| *byte == b'\n').count()),
        text: format!("column {column}: byte {:02X} is not UTF-8", after.first().unwrap_or(&0)),
        hint: Some("save the file as UTF-8".to_owned()),
    })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, Notice> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units = pairs.iter().map(|pair| unit(*pair));
    let text: Result<String, _> = char::decode_utf16(units).collect();
    text.ok().filter(|_| rest.is_empty()).ok_or_else(|| Notice {
        key: String::new(),
        line: None,
        text: "the file begins as UTF-16 and is not UTF-16".to_owned(),
        hint: Some("save the file as UTF-8".to_owned()),
    })
}

/// The hint to use single quotes, if the text holds a backslash in double quotes. Only what is
/// plainly a path is repeated: the text may be anything, a secret too.
pub(super) fn path_hint(written: &str) -> Option<String> {
    let mut quoted = written.split('"').skip(1).step_by(2);
    let text = quoted.find(|quoted| quoted.contains('\\'))?;
    let has_drive =
        matches!(text.as_bytes(), [drive, b':', b'\\', ..] if drive.is_ascii_alphabetic());
    if has_drive || text.starts_with("\\\\") {
        Some(format!("write paths in single quotes: '{text}'"))
    } else {
        Some("write text that holds backslashes in single quotes".to_owned())
    }
}
