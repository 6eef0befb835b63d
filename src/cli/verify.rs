//! `patchdrop verify`: whether ledger and folders agree (promises P1, P4, P5).
//!
//! Every file on record is looked for where its record says, in the order in which files move;
//! then the folders are listed for what is on no record. Nothing is changed. Beside a running
//! service a file may move while it is looked at, so whatever seems wrong is looked at again.
#![expect(clippy::disallowed_methods, reason = "it lists folders itself, read-only")]

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::Globals;
use super::exit_code::Exit;
use super::failure::Failure;
use super::load::{self, Secrets};
use super::records::{self, Records};
use super::resolve::claimed_id;
use super::screen::{Screen, counted};
use crate::config::Config;
use crate::journey::detect;
use crate::model::file::{FileId, Identity, Place, shown};
use crate::model::route::Route;
use crate::model::step::{Entry, State, Verdict};
use crate::model::time::Wall;
use crate::world::ledger::Query;

/// Entries read at a time.
const PAGE: usize = 1_000;
/// Faults that are listed; all are counted.
const FAULTS_MAX: usize = 1_000;
/// Looks at a file that keeps moving before it is called at fault.
const LOOKS_MAX: usize = 5;

/// Compare ledger and folders: is every file where its record says?
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It changes nothing and works beside a running service. Exit 0: they agree; 3: they don't.\n\n\
    Example:\n  \
    patchdrop verify --json"
)]
pub(super) struct Arguments {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// One look at one name, compared with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    /// No regular file has that name.
    Nothing,
    /// The file on record.
    Same,
    /// Another file, or the same one edited.
    Other,
}

/// What was found at the places where a file can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Where it was dropped (or lay before a release).
    pub(super) source: Here,
    /// `sending/`.
    pub(super) sending: Here,
    /// `sent/`, `failed/`, `held/`.
    pub(super) target: Here,
    /// Whether the target's `.why.txt` is there.
    pub(super) explained: bool,
}

/// What the record says, as far as the judgement needs it.
#[derive(Clone, Copy, Debug)]
struct Recorded {
    state: State,
    settled: bool,
    /// Whether an acceptance is on record: its own, a duplicate's, or a person's word.
    accepted: bool,
    /// Whether another file on record follows this one (resent, moved back by hand).
    followed: bool,
}

/// How record and folders agree about one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// It is where its record says.
    InPlace,
    /// It is between two places: the service finishes that, or the next start.
    Unfinished,
    /// It was taken up again, or moved back into its drop folder.
    MovedOn,
    /// It was sent, and later somebody took it out of `sent/`.
    RemovedSince,
    /// It was sent, and later somebody changed it or put another file in its place.
    ChangedSince,
    /// That it is nowhere is on record.
    MissedBefore,
    /// Its claim came to nothing.
    Cancelled,
    /// They disagree.
    Fault(Disagreement),
}

/// What is wrong. The names are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Disagreement {
    /// It is in none of its places.
    Missing,
    /// It is settled and still in `sending/`, or a copy of it is beside it on no record.
    Doubled,
    /// The file in `sending/`, or that came from there, is not the one that was checked.
    Changed,
    /// It is in `sent/`, and no acceptance is on record.
    NotAccepted,
    /// It is in `failed/` or `held/` without a sidecar.
    Unexplained,
    /// It is in `sending/` under an id of this ledger that the ledger does not know.
    Unrecorded,
    /// A folder cannot be listed.
    Unreadable,
}

impl Disagreement {
    fn remedy(self) -> &'static str {
        match self {
            Self::Missing => {
                "patchdrop explain ID says when it was last seen; look for it in backups"
            }
            Self::Doubled => "compare both; the one named here is left over and never sent",
            Self::Changed => {
                "somebody wrote into sending/; the service holds such a file, or says beside it that it was sent as it was before"
            }
            Self::NotAccepted => "do not trust that the server has it: look there, then mark it",
            Self::Unexplained => "patchdrop explain ID says what the sidecar said",
            Self::Unrecorded => "the ledger has lost it: start the service, it holds such files",
            Self::Unreadable => "see that the folder is there and this account may list it",
        }
    }
}

/// The decision: pure, total.
fn judge(recorded: Recorded, seen: Seen) -> Finding {
    use Disagreement::{Changed, Doubled, Missing, NotAccepted, Unexplained};
    let Seen { source, sending, target, explained } = seen;
    match recorded.state {
        State::Missing => Finding::MissedBefore,
        State::Cancelled => Finding::Cancelled,
        State::Sending | State::Deferred | State::Confirming => match (sending, source) {
            (Here::Same | Here::Nothing, Here::Same) => Finding::Unfinished,
            (Here::Same, _) => Finding::InPlace,
            (Here::Other, _) => Finding::Fault(Changed),
            (Here::Nothing, _) => Finding::Fault(Missing),
        },
        State::Sent if !recorded.accepted => Finding::Fault(NotAccepted),
        State::Sent | State::Failed | State::Held if !recorded.settled => {
            match (sending, target, source) {
                (Here::Other, ..) => Finding::Fault(Changed),
                (Here::Same, ..) | (_, Here::Same, _) | (_, _, Here::Same) => Finding::Unfinished,
                // Its sidecar is written before its move.
                (Here::Nothing, Here::Other, _) if explained && recorded.state == State::Sent => {
                    Finding::Fault(Changed)
                }
                (Here::Nothing, Here::Other, _) if explained => Finding::Unfinished,
                (Here::Nothing, ..) => Finding::Fault(Missing),
            }
        }
        _ if sending != Here::Nothing => Finding::Fault(Doubled),
        State::Sent if target == Here::Same => Finding::InPlace,
        // The service says so of a file that was changed while it was sent.
        State::Sent if target == Here::Other && explained => Finding::Fault(Changed),
        State::Sent if target == Here::Other => Finding::ChangedSince,
        State::Sent => Finding::RemovedSince,
        State::Failed | State::Held => match (target, explained) {
            (Here::Same | Here::Other, true) => Finding::InPlace,
            (Here::Other | Here::Nothing, _) if recorded.followed => Finding::MovedOn,
            (Here::Same | Here::Other, false) => Finding::Fault(Unexplained),
            (Here::Nothing, _) if source == Here::Same => Finding::MovedOn,
            (Here::Nothing, _) => Finding::Fault(Missing),
        },
    }
}

/// One disagreement, as it is shown.
#[derive(Debug, Serialize)]
struct Fault {
    #[serde(rename = "fault")]
    kind: Disagreement,
    id: Option<String>,
    route: String,
    name: String,
    /// Where it should be, or what cannot be read.
    path: String,
}

/// What a verification found. Names are part of the interface of `--json`.
#[derive(Debug, Default, Serialize)]
struct Report {
    on_record: u64,
    in_place: u64,
    unfinished: u64,
    moved_on: u64,
    removed_since: u64,
    changed_since: u64,
    missed_before: u64,
    cancelled: u64,
    foreign_in_sending: u64,
    unrecorded_in_sent: u64,
    unrecorded_in_failed: u64,
    unrecorded_in_held: u64,
    faults_total: u64,
    /// The first 1,000.
    faults: Vec<Fault>,
}

impl Report {
    fn fault(&mut self, fault: impl FnOnce() -> Fault) {
        self.faults_total += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault());
        }
    }

    fn count(&mut self, finding: Finding) {
        let counter = match finding {
            Finding::InPlace => &mut self.in_place,
            Finding::Unfinished => &mut self.unfinished,
            Finding::MovedOn => &mut self.moved_on,
            Finding::RemovedSince => &mut self.removed_since,
            Finding::ChangedSince => &mut self.changed_since,
            Finding::MissedBefore => &mut self.missed_before,
            Finding::Cancelled => &mut self.cancelled,
            Finding::Fault(_) => return,
        };
        *counter += 1;
    }
}

pub(super) fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let config = globals.load(Secrets::MayBeMissing)?;
    let ledger = records::open_ledger(&config)?;
    let report = verify(&config, &ledger, screen.style.now)?;
    if arguments.json {
        screen.json(&report)?;
    } else {
        render(&report, screen)?;
    }
    Ok(if report.faults_total == 0 { Exit::Done } else { Exit::SomeFailed })
}

/// What the first pass leaves to the second: a few numbers of eight bytes a file.
#[derive(Default)]
struct Known {
    /// Ids that were on record.
    ids: HashSet<u64>,
    /// Ids that another file follows.
    followed: HashSet<u64>,
    /// Digests of the paths of all targets.
    targets: HashSet<u64>,
    /// Digests of what all files at a target are: name, size, modification time.
    looks: HashSet<u64>,
}

/// What a file that lies in a target folder is known by: a copy that a broken move left has the
/// name of its original, or one that was tried when that was taken, its size and its time.
fn looks_digest(folder: &Path, name: &OsStr, size: u64, mtime_ns: i64) -> u64 {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    hasher.hash_one((folder, name, size, mtime_ns))
}

/// The names that a file of this name may have been dropped under, by the names that are tried in
/// a target folder.
fn names_before(name: &OsStr) -> Vec<OsString> {
    let path = Path::new(name);
    let mut names = vec![name.to_owned()];
    let stem = path.file_stem().and_then(OsStr::to_str);
    if let Some((stem, _)) = stem.and_then(|stem| stem.rsplit_once('~')) {
        let mut before = OsString::from(stem);
        if let Some(ending) = path.extension() {
            before.push(".");
            before.push(ending);
        }
        names.push(before);
    }
    names
}

fn path_digest(path: &Path) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(path)
}

fn verify(config: &Config, ledger: &impl Records, began: Wall) -> Result<Report, Failure> {
    let routes = load::routes(config);
    let mut report = Report::default();
    let mut known = Known::default();
    let mut before = None;
    loop {
        let page = ledger.list(&Query { before, limit: PAGE, ..Query::default() })?;
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        for entry in page {
            report.on_record += 1;
            known.ids.insert(entry.id.0);
            known.followed.extend(entry.previous.map(|id| id.0));
            known.targets.extend(entry.target.as_ref().map(|it| path_digest(&it.path())));
            let Identity { size, mtime_ns, .. } = entry.identity;
            let looks = |it: &Place| looks_digest(&it.folder, &entry.name, size, mtime_ns);
            known.looks.extend(entry.target.as_ref().map(looks));
            one_file(ledger, &routes, entry, &mut known, &mut report)?;
        }
    }
    for route in &routes {
        list_sending(ledger, route, &known, &mut report)?;
        let folders = &route.folders;
        for (pattern, state) in [
            (&folders.sent, State::Sent),
            (&folders.failed, State::Failed),
            (&folders.held, State::Held),
        ] {
            for folder in dated_folders(pattern) {
                list_target(route, &folder, state, &known, began, &mut report);
            }
        }
    }
    Ok(report)
}

fn one_file(
    ledger: &impl Records,
    routes: &[Arc<Route>],
    mut entry: Entry,
    known: &mut Known,
    report: &mut Report,
) -> Result<(), Failure> {
    for look_number in 1.. {
        let recorded = Recorded {
            state: entry.state,
            settled: entry.settled,
            accepted: entry.state != State::Sent || accepted(ledger, &entry)?,
            followed: known.followed.contains(&entry.id.0),
        };
        let route = routes.iter().find(|route| route.name == entry.route);
        let finding = judge(recorded, look(&entry, route.map(AsRef::as_ref)));
        let Finding::Fault(fault) = finding else {
            report.count(finding);
            return Ok(());
        };
        // It may have moved between the reading and the look; then its record has changed too, or
        // another file has come to follow it.
        if let Some(follower) = follower(ledger, &entry)?
            && !known.followed.contains(&entry.id.0)
        {
            known.followed.extend(follower.previous.map(|id| id.0));
            continue;
        }
        let again = ledger.entry(entry.id)?;
        match again {
            Some(newer) if newer != entry && look_number < LOOKS_MAX => entry = newer,
            _ => {
                report.fault(|| Fault {
                    kind: fault,
                    id: Some(entry.id.to_string()),
                    route: entry.route.to_string(),
                    name: shown(&entry.name),
                    path: shown(expected_at(&entry, route.map(AsRef::as_ref)).as_os_str()),
                });
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The newest file of the same name that remembers this one.
pub(super) fn follower(ledger: &impl Records, entry: &Entry) -> Result<Option<Entry>, Failure> {
    let name = Some(entry.name.clone());
    let query = Query { name, limit: PAGE, ..Query::default() };
    let namesakes = ledger.list(&query)?;
    Ok(namesakes.into_iter().find(|other| other.previous == Some(entry.id)))
}

/// Promise P4: its own acceptance, that of the file it duplicates, or a person's word.
fn accepted(ledger: &impl Records, entry: &Entry) -> Result<bool, Failure> {
    let by_other_word = entry.cause.as_ref().is_some_and(|cause| {
        cause.code.0.starts_with("marked") || cause.code.0.starts_with("duplicate")
    });
    let by_a_run = entry.confirming_since.is_some();
    if by_other_word || by_a_run || entry.last_verdict == Some(Verdict::Delivered) {
        return Ok(true);
    }
    let history = ledger.history(entry.id)?;
    let delivered = |history: &crate::model::step::History| {
        let mut ends = history.attempts.iter().filter_map(|attempt| attempt.end.as_ref());
        ends.any(|end| end.verdict == Verdict::Delivered)
    };
    Ok(history.as_ref().is_some_and(delivered))
}

/// Where a claimed file lies: `sending/<id>~<name>`, or `sending/<id>~/<name>` for a long name.
pub(super) fn sending_places(entry: &Entry, route: Option<&Route>) -> [PathBuf; 2] {
    let sending = match route {
        Some(route) => route.folders.sending.to_path_buf(),
        None => entry.source.folder.join("sending"),
    };
    let mut name = OsString::from(format!("{}~", entry.id));
    let long = sending.join(&name).join(&entry.name);
    name.push(&entry.name);
    [sending.join(name), long]
}

/// Where its record says that a file is.
pub(super) fn expected_at(entry: &Entry, route: Option<&Route>) -> PathBuf {
    match &entry.target {
        Some(target) if entry.settled => target.path(),
        _ => {
            let [short, long] = sending_places(entry, route);
            if long.symlink_metadata().is_ok() { long } else { short }
        }
    }
}

/// Looks for a file in the order in which it moves, so that one that moves is not missed.
pub(super) fn look(entry: &Entry, route: Option<&Route>) -> Seen {
    let same_file = |found: &Identity| found.is_same(&entry.identity);
    // A move to another volume gives a new number.
    let same_content = |found: &Identity| {
        found.size == entry.identity.size && found.mtime_ns == entry.identity.mtime_ns
    };
    let source = compare(&entry.source.path(), same_file);
    let sending = sending_places(entry, route)
        .iter()
        .map(|path| compare(path, same_file))
        .find(|here| *here != Here::Nothing)
        .unwrap_or(Here::Nothing);
    let target = entry.target.as_ref().map(Place::path);
    let explained = target.as_deref().is_some_and(|target| has_sidecar(target, entry.id));
    let target = target.map_or(Here::Nothing, |target| compare(&target, same_content));
    Seen { source, sending, target, explained }
}

fn compare(path: &Path, is_same: impl Fn(&Identity) -> bool) -> Here {
    match identity_of(path) {
        Ok(None) | Err(_) => Here::Nothing,
        Ok(Some(found)) if is_same(&found) => Here::Same,
        Ok(Some(_)) => Here::Other,
    }
}

/// `NAME.why.txt`, or, for a name too long for that, its first 180 bytes and `~<id>.why.txt`.
fn has_sidecar(target: &Path, id: FileId) -> bool {
    let mut path = target.as_os_str().to_owned();
    path.push(".why.txt");
    if Path::new(&path).symlink_metadata().is_ok() {
        return true;
    }
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let end = (0..=name.len().min(180)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    let short = format!("{}~{id}.why.txt", name.get(..end).unwrap_or_default());
    target.with_file_name(short).symlink_metadata().is_ok()
}

/// Identity of a regular file, links not followed; `None` if there is none.
pub(super) fn identity_of(path: &Path) -> io::Result<Option<Identity>> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(identity(&found))),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn identity(found: &fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    let mtime_ns = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
    Identity { volume: found.dev(), number: found.ino(), size: found.size(), mtime_ns }
}

#[cfg(not(unix))]
fn identity(found: &fs::Metadata) -> Identity {
    let mtime = found.modified().ok();
    let since = mtime.and_then(|mtime| mtime.duration_since(std::time::UNIX_EPOCH).ok());
    let mtime_ns = since.and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(0);
    Identity { volume: 0, number: 0, size: found.len(), mtime_ns }
}

/// When a file was last moved or changed; where the system does not tell, long ago.
#[cfg(unix)]
fn changed_at(found: &fs::Metadata) -> Wall {
    use std::os::unix::fs::MetadataExt;
    Wall(found.ctime().saturating_mul(1_000).saturating_add(found.ctime_nsec() / 1_000_000))
}

#[cfg(not(unix))]
fn changed_at(_found: &fs::Metadata) -> Wall {
    Wall(0)
}

fn list_sending(
    ledger: &impl Records,
    route: &Route,
    known: &Known,
    report: &mut Report,
) -> Result<(), Failure> {
    let Some(names) = list(route, &route.folders.sending, report) else { return Ok(()) };
    for found in names.flatten() {
        let path = found.path();
        let id = claimed_id(&path);
        if id.is_some_and(|id| known.ids.contains(&id.0)) {
            continue;
        }
        let Some(id) = id else {
            report.foreign_in_sending += 1;
            continue;
        };
        if ledger.entry(id)?.is_some() {
            continue;
        }
        if !ledger.has_reserved(id)? {
            report.foreign_in_sending += 1;
            continue;
        }
        report.fault(|| Fault {
            kind: Disagreement::Unrecorded,
            id: Some(id.to_string()),
            route: route.name.to_string(),
            name: shown(&found.file_name()),
            path: shown(path.as_os_str()),
        });
    }
    Ok(())
}

/// Counts what lies in `sent/`, `failed/` or `held/` and is on no record. What came there after
/// the verification began is on a record that it has not read.
fn list_target(
    route: &Route,
    folder: &Path,
    state: State,
    known: &Known,
    began: Wall,
    report: &mut Report,
) {
    let Some(names) = list(route, folder, report) else { return };
    let mut unrecorded = 0_u64;
    for found in names.flatten() {
        let name = found.file_name();
        let ours = detect::is_sidecar(&name) || name.as_encoded_bytes().starts_with(b".patchdrop-");
        let metadata = found.metadata().ok().filter(fs::Metadata::is_file);
        let Some(metadata) = metadata.filter(|it| !ours && changed_at(it) < began) else {
            continue;
        };
        if known.targets.contains(&path_digest(&found.path())) {
            continue;
        }
        let Identity { size, mtime_ns, .. } = identity(&metadata);
        let is_known =
            |name: &OsString| known.looks.contains(&looks_digest(folder, name, size, mtime_ns));
        if !names_before(&name).iter().any(is_known) {
            unrecorded += 1;
            continue;
        }
        report.fault(|| Fault {
            kind: Disagreement::Doubled,
            id: None,
            route: route.name.to_string(),
            name: shown(&name),
            path: shown(found.path().as_os_str()),
        });
    }
    let counter = match state {
        State::Sent => &mut report.unrecorded_in_sent,
        State::Failed => &mut report.unrecorded_in_failed,
        State::Sending
        | State::Deferred
        | State::Confirming
        | State::Held
        | State::Missing
        | State::Cancelled => &mut report.unrecorded_in_held,
    };
    *counter += unrecorded;
}

/// A folder's names; one that is not there has none.
fn list(route: &Route, folder: &Path, report: &mut Report) -> Option<fs::ReadDir> {
    match fs::read_dir(folder) {
        Ok(names) => Some(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            report.fault(|| Fault {
                kind: Disagreement::Unreadable,
                id: None,
                route: route.name.to_string(),
                name: error.to_string(),
                path: folder.display().to_string(),
            });
            None
        }
    }
}

/// The folders that a pattern with `{date}` stands for now; the folder itself without.
fn dated_folders(pattern: &Path) -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_str().and_then(|text| text.split_once("{date}"));
        let Some((before, after)) = text else {
            for folder in &mut folders {
                folder.push(part);
            }
            continue;
        };
        let fits = |name: &OsStr| {
            let inner = name.to_str().and_then(|name| name.strip_prefix(before));
            let inner = inner.and_then(|name| name.strip_suffix(after));
            inner.is_some_and(|date| date.parse::<jiff::civil::Date>().is_ok())
        };
        folders = folders
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(|names| names.flatten().map(|found| found.path()))
            .filter(|path| path.file_name().is_some_and(fits))
            .collect();
        folders.sort();
    }
    folders
}

fn render(report: &Report, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let style = screen.style.clone();
    writeln!(
        screen.out,
        "{}",
        style.bold(&format!("{} on record", counted(report.on_record, "file")))
    )?;
    let lines = [
        (report.in_place, "where the record says"),
        (report.unfinished, "between two places; the service or its next start finishes that"),
        (report.moved_on, "taken up again, or moved back into the drop folder"),
        (report.removed_since, "sent, and later taken out of sent/ by somebody"),
        (report.changed_since, "sent, and later changed in sent/ by somebody"),
        (report.missed_before, "missing, as the record says (patchdrop list --state missing)"),
        (report.cancelled, "claims that came to nothing"),
    ];
    let beside = [
        (report.foreign_in_sending, "foreign in sending/, left alone"),
        (report.unrecorded_in_sent, "in sent/ without a record"),
        (report.unrecorded_in_failed, "in failed/ without a record"),
        (report.unrecorded_in_held, "in held/ without a record"),
    ];
    for (number, text) in lines {
        if number > 0 {
            writeln!(screen.out, "  {:>14}  {text}", counted(number, "file"))?;
        }
    }
    if beside.iter().any(|(number, _)| *number > 0) {
        writeln!(screen.out, "{}", style.bold("beside these"))?;
    }
    for (number, text) in beside {
        if number > 0 {
            writeln!(screen.out, "  {:>14}  {text}", counted(number, "file"))?;
        }
    }
    if report.faults_total == 0 {
        writeln!(screen.out, "\n{}", style.well("Ledger and folders agree."))?;
        return Ok(());
    }
    let heading = format!("Ledger and folders disagree: {}", counted(report.faults_total, "fault"));
    writeln!(screen.out, "\n{}", style.alarm(&heading))?;
    for fault in &report.faults {
        let kind = serde_json::to_value(fault.kind).unwrap_or_default();
        let kind = kind.as_str().unwrap_or_default();
        let id = fault.id.as_deref().unwrap_or("-");
        writeln!(screen.out, "  {kind}: {} ({id}, route {})", fault.name, fault.route)?;
        writeln!(screen.out, "      {}", fault.path)?;
        writeln!(screen.out, "      {}", fault.kind.remedy().replace("ID", id))?;
    }
    if usize::try_from(report.faults_total).unwrap_or(usize::MAX) > report.faults.len() {
        writeln!(screen.out, "  and more, all of them counted above")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
