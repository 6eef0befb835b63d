//! `patchdrop verify`: whether ledger and folders agree, file by file (promises P1 to P5).
//!
//! Every file on record is looked for where its record says, in the order in which files move;
//! then the folders are listed for what is on no record. Nothing is changed. Beside a running
//! service a file may move while it is looked at, so whatever seems wrong is looked at again.
#![expect(clippy::disallowed_methods, reason = "it lists folders itself, read-only")]

mod listing;
mod moved;
mod shown;

use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Globals;
use super::exit_code::Exit;
use super::failure::Failure;
use super::load::{self, Secrets};
use super::records::{self, Records};
use super::screen::Screen;
use super::serve;
use crate::config::Config;
use crate::daemon::chain;
use crate::journey::settle;
use crate::model::file::{Digest, FileId, Identity, Place, shown as shown_name};
use crate::model::route::Route;
use crate::model::step::{Entry, State, Verdict};
use crate::model::time::Wall;
use crate::world::instance::{self, Whose};
use crate::world::ledger::Query;

use shown::{Disagreement, Fault, Report, render};

/// Entries read at a time.
const PAGE: usize = 1_000;
/// Looks at a file that keeps moving before it is called at fault.
const LOOKS_MAX: usize = 5;

/// Compare ledger and folders: is every file where its record says?
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It changes nothing and works beside a running service. Exit 0: they agree; 3: they don't.\n\
    A file that somebody has taken out of sent/ after it was sent is no fault, and is counted.\n\n\
    Examples:\n  \
    patchdrop verify --json\n  \
    patchdrop verify --deep        after a restored backup, or on a disk that you do not trust"
)]
pub(super) struct Arguments {
    /// Read every file and compare its content with the digest on record, too: takes as long as
    /// reading them
    #[arg(long)]
    deep: bool,
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
    /// Whether the target's `.why.txt` is there and says something.
    pub(super) explained: bool,
}

/// What the record says, as far as the judgement needs it.
#[derive(Clone, Copy, Debug)]
struct Recorded {
    state: State,
    settled: bool,
    /// What its attempts say.
    attempts: Attempts,
    /// Whether another file on record follows this one (resent, moved back by hand).
    followed: Followed,
    /// Whether a later file went to the same target: this one had been taken away before.
    replaced: bool,
}

/// Whether another file on record follows one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Followed {
    /// None does.
    No,
    /// One was about to, and its claim came to nothing.
    InVain,
    /// What becomes of the file is on the record of that one.
    Yes,
}

/// What the attempts on record say about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempts {
    /// Nothing against it.
    Sound,
    /// It counts as sent, and no acceptance is on record: not its own, nor that of the file that it
    /// duplicates, nor a person's word.
    NotAccepted,
    /// More than one of them was accepted.
    AcceptedTwice,
    /// One of them has no end on record.
    Open,
    /// It counts as failed for what is not its own fault, and was not given up either.
    NotItsFault,
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
    /// That it is nowhere is on record.
    MissedBefore,
    /// Its claim came to nothing.
    Cancelled,
    /// They disagree.
    Fault(Disagreement),
}

/// The decision: pure, total.
fn judge(recorded: Recorded, seen: Seen) -> Finding {
    use Disagreement::{
        AcceptedTwice, Altered, Changed, Doubled, Missing, NotAccepted, NotItsFault, Unended,
        Unexplained,
    };
    let Seen { source, sending, target, explained } = seen;
    match recorded.state {
        State::Missing => Finding::MissedBefore,
        State::Cancelled => Finding::Cancelled,
        _ if recorded.attempts == Attempts::AcceptedTwice => Finding::Fault(AcceptedTwice),
        State::Sending | State::Deferred | State::Confirming => match (sending, source) {
            (Here::Same | Here::Nothing, Here::Same) => Finding::Unfinished,
            (Here::Same, _) => Finding::InPlace,
            (Here::Other, _) => Finding::Fault(Changed),
            (Here::Nothing, _) => Finding::Fault(Missing),
        },
        State::Sent if recorded.attempts == Attempts::NotAccepted => Finding::Fault(NotAccepted),
        State::Failed if recorded.attempts == Attempts::NotItsFault => Finding::Fault(NotItsFault),
        State::Sent | State::Failed | State::Held if !recorded.settled => {
            match (sending, target, source) {
                (Here::Other, ..) => Finding::Fault(Changed),
                (Here::Same, ..) | (_, Here::Same, _) | (_, _, Here::Same) => Finding::Unfinished,
                // Somebody changed it before its last move, which is said beside it.
                (_, Here::Other, _) if explained => Finding::Unfinished,
                (Here::Nothing, ..) => Finding::Fault(Missing),
            }
        }
        _ if sending != Here::Nothing => Finding::Fault(Doubled),
        _ if recorded.attempts == Attempts::Open => Finding::Fault(Unended),
        State::Sent => match target {
            Here::Same => Finding::InPlace,
            // The service says so of a file that was changed while it was sent.
            Here::Other if explained => Finding::Fault(Changed),
            Here::Other if !recorded.replaced => Finding::Fault(Altered),
            Here::Other | Here::Nothing => Finding::RemovedSince,
        },
        // The later one may have ended at the same place.
        State::Failed | State::Held if recorded.followed == Followed::Yes => Finding::MovedOn,
        State::Failed | State::Held => match (target, explained) {
            (Here::Same | Here::Other, true) => Finding::InPlace,
            (Here::Other | Here::Nothing, _) if recorded.followed == Followed::InVain => {
                Finding::MovedOn
            }
            (Here::Same | Here::Other, false) => Finding::Fault(Unexplained),
            (Here::Nothing, _) if source == Here::Same => Finding::MovedOn,
            (Here::Nothing, _) => Finding::Fault(Missing),
        },
    }
}

pub(super) fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let config = globals.load(Secrets::MayBeMissing)?;
    let ledger = records::open_ledger(&config)?;
    let report = verify(&config, &ledger, screen.style.now, arguments.deep)?;
    if arguments.json {
        screen.json(&report)?;
    } else {
        render(&report, screen)?;
    }
    Ok(if report.faults_total == 0 { Exit::Done } else { Exit::SomeFailed })
}

/// What the first pass leaves to the second: some eight bytes a file and question.
#[derive(Default)]
struct Known {
    /// Ids that were on record.
    ids: HashSet<u64>,
    /// Those of them that were on their way.
    on_their_way: HashSet<u64>,
    /// Ids that another file follows.
    followed: HashSet<u64>,
    /// Ids that another file was about to follow.
    followed_in_vain: HashSet<u64>,
    /// Digests of the paths of all targets.
    targets: HashSet<u64>,
    /// Digests of route, name, size and time of all files that lie where they ended.
    ended: HashSet<u64>,
    /// The same of those that are missing.
    missing: HashSet<u64>,
}

impl Known {
    fn take(&mut self, entry: &Entry) {
        self.ids.insert(entry.id.0);
        self.follow(entry);
        self.targets.extend(entry.target.as_ref().map(|it| digest_of(&it.path())));
        let Identity { size, mtime_ns, .. } = entry.identity;
        let file = digest_of(&(&*entry.route.0, &*entry.name, size, mtime_ns));
        match entry.state {
            _ if !entry.settled => self.on_their_way.insert(entry.id.0),
            State::Sent | State::Failed | State::Held => self.ended.insert(file),
            State::Missing => self.missing.insert(file),
            State::Cancelled | State::Sending | State::Deferred | State::Confirming => false,
        };
    }
}

impl Known {
    /// Remembers which file this one follows.
    fn follow(&mut self, entry: &Entry) {
        let is_in_vain = entry.state == State::Cancelled;
        let followed = if is_in_vain { &mut self.followed_in_vain } else { &mut self.followed };
        followed.extend(entry.previous.map(|id| id.0));
    }

    fn is_followed(&self, id: FileId) -> Followed {
        if self.followed.contains(&id.0) {
            Followed::Yes
        } else if self.followed_in_vain.contains(&id.0) {
            Followed::InVain
        } else {
            Followed::No
        }
    }
}

fn digest_of(value: &(impl std::hash::Hash + ?Sized)) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
}

fn verify(
    config: &Config,
    ledger: &impl Records,
    began: Wall,
    deep: bool,
) -> Result<Report, Failure> {
    let routes = load::routes(config);
    let mut report = Report { deep, ..Report::default() };
    for root in serve::marked_folders(config) {
        look_at_mark(ledger, &root, &mut report)?;
    }
    report.ledger_was_lost |= ledger.has_lost()?;
    let mut known = Known::default();
    let mut before = None;
    loop {
        let page = ledger.list(&Query { before, limit: PAGE, ..Query::default() })?;
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        for entry in page {
            report.on_record += 1;
            one_file(ledger, &routes, entry, &mut known, &mut report)?;
        }
    }
    for route in &routes {
        listing::sending(ledger, route, &known, &mut report)?;
        let folders = &route.folders;
        for (pattern, state) in [
            (&folders.sent, State::Sent),
            (&folders.failed, State::Failed),
            (&folders.held, State::Held),
        ] {
            for folder in listing::dated_folders(pattern) {
                listing::target(route, &folder, state, &known, began, &mut report);
            }
        }
    }
    Ok(report)
}

/// Whose a root is. What another ledger knows is on no record here, so nothing in `sent/` may be
/// called a stranger for that (promise P3, where a person obeys).
fn look_at_mark(ledger: &impl Records, root: &Path, report: &mut Report) -> Result<(), Failure> {
    let fault = |kind, name| Fault {
        kind,
        id: None,
        route: None,
        name,
        path: shown_name(root.as_os_str()),
    };
    let mark = match instance::mark_in(root) {
        Ok(mark) => mark,
        Err(error) => {
            report.ledger_was_lost = true;
            report.fault(|| fault(Disagreement::Unreadable, chain(&error)));
            return Ok(());
        }
    };
    let kind = match ledger.whose(root, mark.as_ref())? {
        Whose::Ours | Whose::Nobodys | Whose::Lost | Whose::Elsewhere => return Ok(()),
        Whose::Unmarked => Disagreement::Unmarked,
        Whose::Later => Disagreement::OlderCopy,
        Whose::Anothers => Disagreement::OtherLedger,
    };
    report.ledger_was_lost |= kind != Disagreement::Unmarked;
    let name = mark.map_or_else(|| "no mark of patchdrop".to_owned(), |mark| mark.to_string());
    report.fault(|| fault(kind, name));
    Ok(())
}

fn one_file(
    ledger: &impl Records,
    routes: &[Arc<Route>],
    mut entry: Entry,
    known: &mut Known,
    report: &mut Report,
) -> Result<(), Failure> {
    let route = routes.iter().find(|route| route.name == entry.route).map(AsRef::as_ref);
    if let Some(moved) = moved::found_elsewhere(&entry, route) {
        report.found_elsewhere += 1;
        entry = moved;
    }
    let target = entry.target.as_ref().map(|it| digest_of(&it.path()));
    let replaced = target.is_some_and(|target| known.targets.contains(&target));
    known.take(&entry);
    for look_number in 1.. {
        let recorded = recorded(ledger, &entry, known.is_followed(entry.id), replaced)?;
        let finding = judge(recorded, look_into(&entry, route, report.deep));
        let Finding::Fault(fault) = finding else {
            report.count(finding);
            report.gave_up_sooner += u64::from(gave_up_sooner(&entry, route));
            return Ok(());
        };
        // It may have moved between the reading and the look; then its record has changed too, or
        // another file has come to follow it.
        if let Some(follower) = follower(ledger, &entry)?
            && known.is_followed(entry.id) == Followed::No
        {
            known.follow(&follower);
            continue;
        }
        let again = ledger.entry(entry.id)?;
        let again = again.map(|it| moved::found_elsewhere(&it, route).unwrap_or(it));
        match again {
            Some(newer) if newer != entry && look_number < LOOKS_MAX => entry = newer,
            _ => {
                report.fault(|| Fault {
                    kind: fault,
                    id: Some(entry.id.to_string()),
                    route: Some(entry.route.to_string()),
                    name: shown_name(&entry.name),
                    path: shown_name(expected_at(&entry, route).as_os_str()),
                });
                return Ok(());
            }
        }
    }
    Ok(())
}

fn recorded(
    ledger: &impl Records,
    entry: &Entry,
    followed: Followed,
    replaced: bool,
) -> Result<Recorded, Failure> {
    // One attempt cannot have been accepted twice.
    let attempts = if entry.attempt > 1 && acceptances(ledger, entry)? > 1 {
        Attempts::AcceptedTwice
    } else if entry.state == State::Sent && !accepted(ledger, entry)? {
        Attempts::NotAccepted
    } else if entry.attempt_open_since.is_some() {
        Attempts::Open
    } else if entry.state == State::Failed && !is_its_fault(entry) {
        Attempts::NotItsFault
    } else {
        Attempts::Sound
    };
    Ok(Recorded { state: entry.state, settled: entry.settled, attempts, followed, replaced })
}

/// The newest file of the same name that remembers this one.
pub(super) fn follower(ledger: &impl Records, entry: &Entry) -> Result<Option<Entry>, Failure> {
    let name = Some(entry.name.clone());
    let query = Query { name, limit: PAGE, ..Query::default() };
    let namesakes = ledger.list(&query)?;
    Ok(namesakes.into_iter().find(|other| other.previous == Some(entry.id)))
}

/// How long a chain of duplicates is followed.
const DUPLICATES_MAX: usize = 16;

/// Promise P4: its own acceptance, that of the file it duplicates, or a person's word.
fn accepted(ledger: &impl Records, entry: &Entry) -> Result<bool, Failure> {
    let mut entry = entry.clone();
    for _ in 0..DUPLICATES_MAX {
        let code = entry.cause.as_ref().map(|cause| cause.code.0.clone()).unwrap_or_default();
        let by_a_person = code.starts_with("marked");
        let by_a_run = entry.confirming_since.is_some();
        let by_itself = entry.last_verdict == Some(Verdict::Delivered);
        if by_a_person || by_a_run || by_itself || acceptances(ledger, &entry)? > 0 {
            return Ok(true);
        }
        let cause = entry.cause.as_ref().filter(|_| code.starts_with("duplicate"));
        let Some(other) = cause.and_then(|cause| named_in(&cause.plain)) else { return Ok(false) };
        // Acceptance by its run, or by a person, is that of a file in `sent/` alone.
        match ledger.entry(other)? {
            Some(other) if matches!(other.state, State::Sent | State::Confirming) => entry = other,
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// Promise P5: what is not a file's own fault fails it only when it is given up, refused again
/// after others got through, or a person says so.
fn is_its_fault(entry: &Entry) -> bool {
    let code = entry.cause.as_ref().map(|cause| &*cause.code.0).unwrap_or_default();
    match entry.last_verdict {
        Some(Verdict::Deferred | Verdict::RouteFault | Verdict::TokenRefused) => {
            matches!(code, "gave-up" | "refused-again") || code.starts_with("marked")
        }
        Some(
            Verdict::Delivered
            | Verdict::Rejected
            | Verdict::InDoubt
            | Verdict::Changed
            | Verdict::NotSent,
        )
        | None => true,
    }
}

/// Whether a file was given up before it can have waited as long as its route says now.
fn gave_up_sooner(entry: &Entry, route: Option<&Route>) -> bool {
    let is_given_up = entry.cause.as_ref().is_some_and(|cause| &*cause.code.0 == "gave-up");
    let (Some(at), Some(route)) = (entry.decided_at, route) else { return false };
    is_given_up && at.since(entry.claimed_at) < route.retry.give_up_after
}

/// The file that a sentence names by its id.
fn named_in(text: &str) -> Option<FileId> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric()).find_map(FileId::parse)
}

/// How many attempts of a file have an acceptance on record (promise P3: one at most).
fn acceptances(ledger: &impl Records, entry: &Entry) -> Result<usize, Failure> {
    let Some(history) = ledger.history(entry.id)? else { return Ok(0) };
    let ends = history.attempts.iter().filter_map(|attempt| attempt.end.as_ref());
    Ok(ends.filter(|end| end.verdict == Verdict::Delivered).count())
}

/// Where a claimed file lies.
pub(super) fn sending_place(entry: &Entry, route: Option<&Route>) -> PathBuf {
    let sending = match route {
        Some(route) => route.folders.sending.to_path_buf(),
        None => entry.source.folder.join("sending"),
    };
    sending.join(settle::claimed_name(entry.id, &entry.name))
}

/// Where its record says that a file is.
pub(super) fn expected_at(entry: &Entry, route: Option<&Route>) -> PathBuf {
    match &entry.target {
        Some(target) if entry.settled => target.path(),
        _ => sending_place(entry, route),
    }
}

/// Looks for a file in the order in which it moves, so that one that moves is not missed.
pub(super) fn look(entry: &Entry, route: Option<&Route>) -> Seen {
    look_into(entry, route, false)
}

/// The same; with `deep` its content is read, too.
fn look_into(entry: &Entry, route: Option<&Route>, deep: bool) -> Seen {
    let same_file = |_: &Path, found: &Identity| found.is_same(&entry.identity);
    let source = compare(&entry.source.path(), same_file);
    let sending = compare(&sending_place(entry, route), |path, found| {
        found.is_same(&entry.identity) && (!deep || has_digest(path, entry.digest))
    });
    let target = entry.target.as_ref().map(Place::path);
    let explained = target.as_deref().is_some_and(|target| has_sidecar(target, entry.id));
    // A move to another volume gives a new number, and a backup that was put back a new time.
    let same_content = |path: &Path, found: &Identity| {
        let is_as_it_was =
            found.size == entry.identity.size && found.mtime_ns == entry.identity.mtime_ns;
        let is_touched = found.size == entry.identity.size && !is_as_it_was;
        if deep || is_touched { has_digest(path, entry.digest) } else { is_as_it_was }
    };
    let target = target.map_or(Here::Nothing, |target| compare(&target, same_content));
    Seen { source, sending, target, explained }
}

/// Whether a file has this digest. One that is on record without a digest was never read; one that
/// is gone meanwhile is looked for again.
fn has_digest(path: &Path, recorded: Option<Digest>) -> bool {
    use sha2::Digest as _;
    let Some(recorded) = recorded else { return true };
    let Ok(mut file) = fs::File::open(path) else { return false };
    let mut hash = sha2::Sha256::new();
    let mut block = vec![0; 64 << 10];
    loop {
        match file.read(&mut block) {
            Ok(0) => return hash.finalize()[..] == recorded.0,
            Ok(read) => hash.update(block.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

fn compare(path: &Path, is_same: impl Fn(&Path, &Identity) -> bool) -> Here {
    match identity_of(path) {
        Ok(None) | Err(_) => Here::Nothing,
        Ok(Some(found)) if is_same(path, &found) => Here::Same,
        Ok(Some(_)) => Here::Other,
    }
}

/// Whether what stands beside a file says why it is there. An empty text explains nothing.
fn has_sidecar(target: &Path, id: FileId) -> bool {
    let name = target.file_name().unwrap_or_default();
    let sidecar = target.with_file_name(settle::beside(name, id, settle::WHY));
    sidecar.symlink_metadata().is_ok_and(|found| found.len() > 0)
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

#[cfg(test)]
mod tests;
