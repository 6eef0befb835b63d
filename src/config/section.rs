//! One table of the file, read key by key. A value of the wrong type or out of range becomes a
//! notice, and reading goes on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeFloat, DeInteger, DeTable, DeValue};

use super::Notice;
use super::page::{At, Page, Sink, path_hint};
use super::{raw, span, suggest};
use crate::model::route::Rate;
use crate::model::secret::is_secret_name;

type Value<'a> = Spanned<DeValue<'a>>;

/// The largest count of a rate: so many starts are remembered.
const RATE_MAX: u32 = 100_000;

/// A value that may be plain or come from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It stands in the file.
    Plain(String),
    /// `{ env = "NAME" }`.
    Env(String),
    /// `{ file = "PATH" }`.
    File(String),
    /// `{ stored = "NAME" }`.
    Stored(String),
}

/// `"off"`, or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OrOff<T> {
    Off,
    Is(T),
}

/// The keys of a kind of table.
#[derive(Debug)]
pub(super) struct Keys {
    /// Those that are read.
    pub(super) accepted: &'static [&'static str],
    /// Those that the documentation promises for a later version.
    pub(super) planned: &'static [&'static str],
}

/// A table that may be there.
pub(super) struct Section<'a> {
    page: &'a Page,
    sink: &'a Sink,
    table: Option<&'a DeTable<'a>>,
    path: String,
    keys: &'static Keys,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Section<'a> {
    /// The file itself.
    pub(super) fn top(
        page: &'a Page,
        sink: &'a Sink,
        table: &'a DeTable<'a>,
        keys: &'static Keys,
    ) -> Self {
        Self {
            page,
            sink,
            table: Some(table),
            path: String::new(),
            keys,
            asked: RefCell::default(),
        }
    }

    fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn value(&self, name: &'static str) -> Option<&'a Value<'a>> {
        debug_assert!(self.keys.accepted.contains(&name), "{name} is not in the list of keys");
        self.asked.borrow_mut().insert(name);
        let (_, value) = self.table?.iter().find(|(key, _)| key.get_ref() == name)?;
        Some(value)
    }

    fn at<T>(&self, name: &str, value: &Value<'_>, read: T) -> At<T> {
        At { value: read, line: self.page.line(value.span().start), key: self.key(name) }
    }

    /// Reads one key by `read`, which says what it wants where the value is something else.
    fn read<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Wanted>,
    ) -> Option<At<T>> {
        let value = self.value(name)?;
        match read(value.get_ref()) {
            Ok(read) => Some(self.at(name, value, read)),
            Err(wanted) => {
                self.refuse(name, value, wanted);
                None
            }
        }
    }

    fn refuse(&self, name: &str, value: &Value<'_>, wanted: Wanted) {
        let text = format!("must be {}, not {}", wanted.form, shown(value.get_ref()));
        self.sink.fault(self.at(name, value, ()).notice(text, wanted.hint));
    }

    /// Any text.
    pub(super) fn text(&self, name: &'static str) -> Option<At<String>> {
        self.read(name, |value| match value.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(Wanted::form("text in quotes")),
        })
    }

    /// A path: text without control characters, which only an escape could have put there.
    pub(super) fn path(&self, name: &'static str) -> Option<At<String>> {
        let span = self.value(name)?.span();
        let text = self.text(name)?;
        let hint = path_hint(self.page.written(span));
        self.is_path(&text, hint).then_some(text)
    }

    fn is_path(&self, text: &At<String>, hint: Option<String>) -> bool {
        let fault = if text.value.is_empty() {
            "the path is empty"
        } else if text.value.chars().any(char::is_control) {
            "the path holds a tab, a line break or another control character"
        } else if cfg!(unix) && is_windows_path(&text.value) {
            "this is a Windows path, and patchdrop runs on another system here"
        } else {
            return true;
        };
        self.sink.fault(text.notice(fault, hint.unwrap_or_default()));
        false
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &'static str) -> Option<At<bool>> {
        self.read(name, |value| {
            value.as_bool().ok_or_else(|| match value.as_str() {
                Some(word @ ("true" | "false")) => {
                    Wanted::form("true or false").hint(format!("write {word} without quotes"))
                }
                _ => Wanted::form("true or false"),
            })
        })
    }

    /// A whole number in a range.
    pub(super) fn whole(
        &self,
        name: &'static str,
        range: RangeInclusive<usize>,
    ) -> Option<At<usize>> {
        let form = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(name, |value| {
            let number = integer(value).and_then(|number| usize::try_from(number).ok());
            number.filter(|number| range.contains(number)).ok_or_else(|| Wanted::form(form))
        })
    }

    /// A number in a range.
    pub(super) fn number(&self, name: &'static str, range: RangeInclusive<f64>) -> Option<At<f64>> {
        let form = format!("a number from {} to {}", range.start(), range.end());
        self.read(name, |value| {
            let number = value.as_integer().map(DeInteger::as_str);
            let number = number.or_else(|| value.as_float().map(DeFloat::as_str));
            let number = number.and_then(|text| text.parse().ok());
            number.filter(|number| range.contains(number)).ok_or_else(|| Wanted::form(form))
        })
    }

    /// A span in a range.
    pub(super) fn span(
        &self,
        name: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<At<Duration>> {
        self.read(name, |value| span_in(value, &range))
    }

    /// A span in a range, or `"off"`.
    pub(super) fn span_or_off(
        &self,
        name: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<At<OrOff<Duration>>> {
        self.read(name, |value| match value.as_str() {
            Some("off") => Ok(OrOff::Off),
            _ => span_in(value, &range)
                .map(OrOff::Is)
                .map_err(|wanted| Wanted { form: wanted.form + ", or \"off\"", ..wanted }),
        })
    }

    /// A rate of at least one.
    pub(super) fn rate(&self, name: &'static str) -> Option<At<Rate>> {
        self.read(name, |value| {
            let rate = value.as_str().and_then(span::rate);
            rate.filter(|rate| (1..=RATE_MAX).contains(&rate.count)).ok_or_else(|| {
                let wanted = Wanted::form(span::RATE_FORM);
                match integer(value) {
                    Some(count) => wanted.hint(format!("write \"{count}/min\" if you mean that")),
                    None => wanted,
                }
            })
        })
    }

    /// A size of at least one byte.
    pub(super) fn size(&self, name: &'static str) -> Option<At<u64>> {
        self.read(name, size)
    }

    /// A size of at least one byte, or `"off"`.
    pub(super) fn size_or_off(&self, name: &'static str) -> Option<At<OrOff<u64>>> {
        self.read(name, |value| match value.as_str() {
            Some("off") => Ok(OrOff::Off),
            _ => size(value)
                .map(OrOff::Is)
                .map_err(|wanted| Wanted { form: wanted.form + ", or \"off\"", ..wanted }),
        })
    }

    /// One of several words. `planned` are words for a later version.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &'static str,
        choices: &[(&'static str, T)],
        planned: &[&str],
    ) -> Option<At<T>> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.read(name, |value| {
            let written = value.as_str().unwrap_or_default();
            match choices.iter().find(|(word, _)| *word == written) {
                Some((_, meant)) => Ok(*meant),
                None if planned.contains(&written) => Err(Wanted::form(suggest::list(&words))
                    .hint(format!("\"{written}\" is planned and not in this version"))),
                None => Err(Wanted::form(suggest::list(&words)).hint(
                    suggest::nearest(written, words.iter().copied())
                        .map(|word| format!("did you mean \"{word}\"?"))
                        .unwrap_or_default(),
                )),
            }
        })
    }

    /// A list of texts. A single text is refused with the hint to put brackets round it.
    pub(super) fn texts(&self, name: &'static str) -> Option<At<Vec<At<String>>>> {
        let list = self.array(name, "a list of texts, e.g. ['*.json']")?;
        let mut texts = Vec::new();
        for item in list.value {
            match item.get_ref().as_str() {
                Some(text) => texts.push(self.at(name, item, text.to_owned())),
                None => self.refuse(name, item, Wanted::form("a list of texts")),
            }
        }
        Some(At { value: texts, line: list.line, key: list.key })
    }

    /// A list of HTTP statuses in a range.
    pub(super) fn statuses(
        &self,
        name: &'static str,
        range: RangeInclusive<u16>,
    ) -> Option<At<BTreeSet<u16>>> {
        let list = self.array(name, "a list of HTTP statuses, e.g. [200, 202]")?;
        let mut statuses = BTreeSet::new();
        for item in list.value {
            let status = integer(item.get_ref()).and_then(|number| u16::try_from(number).ok());
            match status.filter(|status| range.contains(status)) {
                Some(status) => {
                    statuses.insert(status);
                }
                None => self.refuse(
                    name,
                    item,
                    Wanted::form(format!(
                        "a list of HTTP statuses from {} to {}",
                        range.start(),
                        range.end()
                    )),
                ),
            }
        }
        Some(At { value: statuses, line: list.line, key: list.key })
    }

    fn array(&self, name: &'static str, form: &str) -> Option<At<Vec<&'a Value<'a>>>> {
        let value = self.value(name)?;
        if let DeValue::Array(items) = value.get_ref() {
            return Some(self.at(name, value, items.iter().collect()));
        }
        let one = self.page.written(value.span());
        let is_single = value.get_ref().is_str() || value.get_ref().is_integer();
        let hint =
            if is_single && !one.contains('\n') { format!("write [{one}]") } else { String::new() };
        let wanted = Wanted::form(form).hint(hint);
        self.refuse(name, value, wanted);
        None
    }

    /// A secret: from elsewhere, never plain.
    pub(super) fn secret(&self, name: &'static str) -> Option<At<Written>> {
        let value = self.value(name)?;
        let secret = self.written(name, value, "a secret")?;
        if let Written::Plain(_) = secret.value {
            self.sink.fault(secret.notice(
                "a secret must not stand in the config",
                format!("write {name} = {{ env = \"NAME\" }}, {{ file = \"PATH\" }} or {{ stored = \"NAME\" }}"),
            ));
            return None;
        }
        Some(secret)
    }

    /// A text, or a secret from elsewhere.
    pub(super) fn text_or_secret(&self, name: &'static str) -> Option<At<Written>> {
        let value = self.value(name)?;
        self.written(name, value, "text in quotes or a secret")
    }

    fn written(&self, name: &str, value: &Value<'_>, form: &str) -> Option<At<Written>> {
        let place = self.at(name, value, ());
        let forms = "{ env = \"NAME\" }, { file = \"PATH\" } or { stored = \"NAME\" }";
        if let Some(text) = value.get_ref().as_str() {
            return Some(place.with(Written::Plain(text.to_owned())));
        }
        let Some(table) = value.get_ref().as_table() else {
            // What was written is not repeated: it may be the secret itself.
            self.sink.fault(place.notice(format!("must be {form}"), format!("write {forms}")));
            return None;
        };
        let mut entries = table.iter();
        let (Some((key, source)), None) = (entries.next(), entries.next()) else {
            self.sink
                .fault(place.notice("a secret has exactly one source", format!("write {forms}")));
            return None;
        };
        let text = source.get_ref().as_str().map(str::to_owned).filter(|text| !text.is_empty());
        let fault = match (key.get_ref().as_ref(), text) {
            ("env", Some(text)) if !text.contains(['=', '\0']) => {
                return Some(place.with(Written::Env(text)));
            }
            ("file", Some(text)) => {
                let text = place.with(text);
                let hint = path_hint(self.page.written(source.span()));
                return self
                    .is_path(&text, hint)
                    .then(|| text.with(Written::File(text.value.clone())));
            }
            ("env" | "file", _) => format!("{} must be a name in quotes", key.get_ref()),
            ("stored", Some(text)) if is_secret_name(&text) => {
                return Some(place.with(Written::Stored(text)));
            }
            ("stored", _) => {
                "stored must be a name in quotes: 1 to 64 of A-Z a-z 0-9 . _ -".to_owned()
            }
            (other, _) => format!("{other} is no source of a secret"),
        };
        self.sink.fault(place.notice(fault, format!("write {forms}")));
        None
    }

    /// A table of texts or secrets by name.
    pub(super) fn named_values(&self, name: &'static str) -> BTreeMap<String, At<Written>> {
        let mut values = BTreeMap::new();
        for (key, value) in self.table_at(name).into_iter().flat_map(DeTable::iter) {
            let place = format!("{name}.{}", key.get_ref());
            if let Some(written) = self.written(&place, value, "text in quotes or a secret") {
                values.insert(key.get_ref().to_string(), written);
            }
        }
        values
    }

    /// A table of texts by name.
    pub(super) fn named_texts(&self, name: &'static str) -> BTreeMap<String, At<String>> {
        let mut texts = BTreeMap::new();
        for (key, value) in self.table_at(name).into_iter().flat_map(DeTable::iter) {
            let place = format!("{name}.{}", key.get_ref());
            match value.get_ref().as_str() {
                Some(text) => {
                    texts
                        .insert(key.get_ref().to_string(), self.at(&place, value, text.to_owned()));
                }
                None => self.refuse(&place, value, Wanted::form("text in quotes")),
            }
        }
        texts
    }

    /// Text, whole number, number, or true/false.
    pub(super) fn scalar(&self, name: &'static str) -> Option<At<serde_json::Value>> {
        self.read(name, |value| {
            let scalar = match value {
                DeValue::String(text) => Some(serde_json::Value::from(text.as_ref())),
                DeValue::Integer(_) => integer(value).map(serde_json::Value::from),
                DeValue::Float(number) => number
                    .as_str()
                    .parse()
                    .ok()
                    .and_then(serde_json::Number::from_f64)
                    .map(Into::into),
                DeValue::Boolean(flag) => Some(serde_json::Value::from(*flag)),
                DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
            };
            scalar.ok_or_else(|| Wanted::form("text, a number, true or false"))
        })
    }

    fn table_at(&self, name: &'static str) -> Option<&'a DeTable<'a>> {
        let value = self.value(name)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.refuse(name, value, Wanted::form("a table"));
        }
        table
    }

    /// A table with keys of its own; empty where it is not written.
    pub(super) fn section(&self, name: &'static str, keys: &'static Keys) -> Self {
        let path = self.key(name);
        Self { table: self.table_at(name), path, keys, asked: RefCell::default(), ..*self }
    }

    /// Tables by name, `[route.NAME]`.
    pub(super) fn sections(
        &self,
        name: &'static str,
        keys: &'static Keys,
    ) -> Vec<(At<String>, Self)> {
        let mut sections = Vec::new();
        for (key, value) in self.table_at(name).into_iter().flat_map(DeTable::iter) {
            let place = format!("{name}.{}", key.get_ref());
            let Some(table) = value.get_ref().as_table() else {
                self.refuse(
                    &place,
                    value,
                    Wanted::form("a table").hint(format!("write [{place}]")),
                );
                continue;
            };
            let path = self.key(&place);
            let line = self.page.line(key.span().start);
            let section = Self {
                table: Some(table),
                path: path.clone(),
                keys,
                asked: RefCell::default(),
                ..*self
            };
            sections.push((At { value: key.get_ref().to_string(), line, key: path }, section));
        }
        sections
    }

    /// Reports what is in the table and has not been asked for.
    pub(super) fn finish(self) {
        debug_assert_eq!(
            *self.asked.borrow(),
            self.keys.accepted.iter().copied().collect(),
            "the list of keys and what is read differ"
        );
        for (key, _) in self.table.into_iter().flat_map(DeTable::iter) {
            let name = key.get_ref().as_ref();
            if self.keys.accepted.contains(&name) {
                continue;
            }
            let hint = if self.keys.planned.contains(&name) {
                Some("this key is planned and not in this version".to_owned())
            } else if raw::TOP.accepted.contains(&name) {
                // In TOML whatever follows a [table] belongs to it.
                Some(format!("move {name} to the top, before the first [table]"))
            } else {
                suggest::nearest(name, self.keys.accepted.iter().copied())
                    .map(|near| format!("did you mean {near}?"))
            };
            self.sink.fault(Notice {
                key: self.key(name),
                line: Some(self.page.line(key.span().start)),
                text: "unknown key".to_owned(),
                hint,
            });
        }
    }
}

/// Every `{ stored = "NAME" }` in a file, with the keys that it stands for.
pub(super) fn stored_in(table: &DeTable<'_>) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    collect_stored(table, "", &mut found);
    found
}

fn collect_stored(
    table: &DeTable<'_>,
    above: &str,
    found: &mut BTreeMap<String, BTreeSet<String>>,
) {
    for (key, value) in table {
        let name = key.get_ref();
        let dotted = if above.is_empty() { name.to_string() } else { format!("{above}.{name}") };
        let Some(below) = value.get_ref().as_table() else { continue };
        // Keys of these are names of the receiver's.
        let is_named = matches!(name.as_ref(), "headers" | "extra" | "flow_variables");
        let stored = below.iter().find(|(key, _)| !is_named && key.get_ref() == "stored");
        match stored.and_then(|(_, name)| name.get_ref().as_str()) {
            Some(name) => {
                found.entry(name.to_owned()).or_default().insert(dotted);
            }
            None => collect_stored(below, &dotted, found),
        }
    }
}

/// What a key wants that a value is not.
struct Wanted {
    form: String,
    hint: String,
}

impl Wanted {
    fn form(form: impl Into<String>) -> Self {
        Self { form: form.into(), hint: String::new() }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn span_in(value: &DeValue<'_>, range: &RangeInclusive<Duration>) -> Result<Duration, Wanted> {
    let Some(read) = value.as_str().and_then(span::span) else {
        let wanted = Wanted::form(span::SPAN_FORM);
        return Err(match integer(value) {
            Some(seconds) => wanted.hint(format!("write \"{seconds}s\" if you mean seconds")),
            None => wanted,
        });
    };
    if range.contains(&read) {
        return Ok(read);
    }
    let (least, most) = (span::show_span(*range.start()), span::show_span(*range.end()));
    Err(Wanted::form(format!("from \"{least}\" to \"{most}\"")))
}

fn size(value: &DeValue<'_>) -> Result<u64, Wanted> {
    let read = value.as_str().and_then(span::size).filter(|bytes| *bytes > 0);
    read.ok_or_else(|| {
        let wanted = Wanted::form(span::SIZE_FORM);
        match (integer(value), value.as_str()) {
            (Some(bytes), _) => wanted.hint(format!("write \"{bytes}B\" if you mean bytes")),
            (None, Some(text)) if span::size(&text.to_uppercase()).is_some() => {
                wanted.hint(format!("did you mean \"{}\"?", text.to_uppercase()))
            }
            (None, _) => wanted,
        }
    })
}

/// What was written instead, short, on one line.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() <= 60 => format!("{:?}", text.as_ref()),
        DeValue::String(_) => "this text".to_owned(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn is_windows_path(text: &str) -> bool {
    let bytes = text.as_bytes();
    let has_drive = matches!(bytes, [drive, b':', b'\\', ..] if drive.is_ascii_alphabetic());
    has_drive || text.starts_with("\\\\")
}
