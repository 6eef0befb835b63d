//! The end of the demo: the table, and whether everything is as it should be. The record, the
//! folders and the simulator are asked, each for itself.
#![expect(clippy::disallowed_methods, reason = "it looks at the files as a person would")]

use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::super::failure::Failure;
use super::super::screen::{Align, Screen, Table};
use super::journeys::Journeys;
use super::samples::Sample;
use crate::model::file::{Digest, Place};
use crate::model::step::{Conversion, Entry, State};
use crate::simulator::Seen;

/// Width of the table's last column in characters.
const WHY_WIDTH: usize = 44;

/// Whether a sample's journey has come to its end, file and all.
pub(super) fn has_ended(sample: &Sample, journeys: &Journeys) -> bool {
    if sample.end.is_none() {
        return true;
    }
    let Some(entry) = journeys.entry(sample.route, sample.name) else { return false };
    let has_end = matches!(entry.state, State::Sent | State::Failed | State::Held);
    let target = entry.target.as_ref().map(Place::path);
    has_end && target.is_some_and(|path| path.exists())
}

/// Prints what became of each sample.
pub(super) fn show(
    samples: &[Sample],
    journeys: &Journeys,
    seen: &Seen,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("file", Align::Left),
        ("what it was", Align::Left),
        ("now in", Align::Left),
        ("requests", Align::Right),
        ("why", Align::Left),
    ]);
    for sample in samples {
        let entry = journeys.entry(sample.route, sample.name);
        let mut why = folded(&why(entry)).into_iter();
        table.row(vec![
            sample.title(),
            sample.what.to_owned(),
            place(entry),
            requests(sample, seen).to_string(),
            why.next().unwrap_or_default(),
        ]);
        for more in why {
            let mut row = vec![String::new(); 4];
            row.push(more);
            table.row(row);
        }
    }
    Ok(table.write(screen, "")?)
}

fn place(entry: Option<&Entry>) -> String {
    match entry {
        None => "its folder".to_owned(),
        Some(entry) => match entry.target.as_ref().and_then(|target| target.folder.file_name()) {
            Some(folder) => format!("{}/", folder.display()),
            None => entry.state.name().to_owned(),
        },
    }
}

fn why(entry: Option<&Entry>) -> String {
    let Some(entry) = entry else { return "no *.json: left alone, and counted".to_owned() };
    let plain = entry.cause.as_ref().map_or("", |cause| cause.plain.as_str());
    match entry.envelope.as_ref().and_then(|envelope| envelope.conversion) {
        None => plain.to_owned(),
        Some(Conversion::Utf8BomDropped) => format!("{plain}, without its BOM"),
        Some(_) => format!("{plain}, as UTF-8"),
    }
}

/// Text in lines of at most [`WHY_WIDTH`] characters, unless a word is longer.
fn folded(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one from the start");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WHY_WIDTH {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn requests(sample: &Sample, seen: &Seen) -> u64 {
    seen.by_name.get(sample.name).copied().unwrap_or(0)
}

/// Everything that is not as it should be, in sentences.
pub(super) fn differences(
    samples: &[Sample],
    root: &Path,
    journeys: &Journeys,
    seen: &Seen,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for sample in samples {
        let title = sample.title();
        let all = [
            entry_fault(sample, journeys.entry(sample.route, sample.name)),
            file_fault(sample, root, journeys.entry(sample.route, sample.name)),
            server_fault(sample, seen),
        ];
        wrong.extend(all.into_iter().flatten().map(|fault| format!("{title}: {fault}")));
    }
    let on_record = samples.iter().filter(|sample| sample.end.is_some()).count();
    if journeys.len() != on_record {
        wrong.push(format!("{} files are on record, not {on_record}", journeys.len()));
    }
    let stored = samples.iter().filter(|sample| sample.stored.is_some()).count();
    if seen.payloads.len() != stored {
        wrong.push(format!("the server stored {}, not {stored}", seen.payloads.len()));
    }
    if seen.token_requests != 1 {
        wrong.push(format!("the server was asked for a token {} times", seen.token_requests));
    }
    wrong
}

/// The record against what is expected.
fn entry_fault(sample: &Sample, entry: Option<&Entry>) -> Option<String> {
    let (state, code) = match entry {
        None => (None, ""),
        Some(entry) => {
            (Some(entry.state), entry.cause.as_ref().map_or("", |cause| cause.code.0.as_ref()))
        }
    };
    let word = |state: Option<State>| state.map_or("not on record", State::name);
    if state != sample.end {
        return Some(format!("it is {}, not {}", word(state), word(sample.end)));
    }
    let is_as_expected = sample.code.is_empty() || sample.code == code;
    (!is_as_expected).then(|| format!("the reason is {code}, not {}", sample.code))
}

/// The folders against the record: it is there, byte for byte, explained, and nowhere else.
fn file_fault(sample: &Sample, root: &Path, entry: Option<&Entry>) -> Option<String> {
    let dropped_at = root.join(sample.route).join(sample.name);
    let path = match entry {
        None => dropped_at.clone(),
        Some(entry) => entry.target.as_ref()?.path(),
    };
    match fs::read(&path) {
        Err(error) => return Some(format!("{} cannot be read: {error}", path.display())),
        Ok(bytes) if bytes != sample.bytes => {
            return Some(format!("{} is not what was dropped", path.display()));
        }
        Ok(_) => {}
    }
    if path != dropped_at && dropped_at.exists() {
        return Some(format!("something is still at {}", dropped_at.display()));
    }
    let mut sidecar = path.into_os_string();
    sidecar.push(".why.txt");
    let is_explained = fs::read(&sidecar).is_ok_and(|text| !text.is_empty());
    let must_be = matches!(sample.end, Some(State::Failed | State::Held));
    match (is_explained, must_be) {
        (false, true) => Some(format!("{} is missing", sidecar.display())),
        (true, false) => Some(format!("{} should not be there", sidecar.display())),
        _ => None,
    }
}

/// The simulator against what is expected.
fn server_fault(sample: &Sample, seen: &Seen) -> Option<String> {
    let asked = requests(sample, seen);
    if asked != sample.requests {
        return Some(format!("the server saw {asked} requests, not {}", sample.requests));
    }
    let stored: Vec<Digest> = seen
        .payloads
        .iter()
        .filter(|payload| payload.name.as_deref() == Some(sample.name) && payload.is_json)
        .filter(|payload| &*payload.vanity == sample.route)
        .map(|payload| payload.sha256)
        .collect();
    let digest = |bytes: &Vec<u8>| Digest(Sha256::digest(bytes).into());
    let expected: Vec<Digest> = sample.stored.iter().map(digest).collect();
    (stored != expected)
        .then(|| format!("the server stored it {} times, or not what was expected", stored.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_folded_between_words() {
        let text =
            "the connection to 127.0.0.1:40327 ended after the whole body, without an answer";
        let lines = folded(text);
        assert_eq!(lines.join(" "), text);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| line.chars().count() <= WHY_WIDTH), "{lines:?}");
        assert_eq!(folded(""), [""]);
    }

    #[test]
    fn a_demo_in_which_nothing_happened_is_wrong_about_every_file() {
        let samples = super::super::samples::all();
        let nowhere = tempfile::tempdir().unwrap();
        let wrong = differences(&samples, nowhere.path(), &Journeys::default(), &Seen::default());
        for sample in &samples {
            let title = sample.title();
            assert!(wrong.iter().any(|text| text.starts_with(&title)), "{title}: {wrong:#?}");
        }
        assert!(wrong.iter().any(|text| text.contains("for a token 0 times")), "{wrong:#?}");
    }
}
