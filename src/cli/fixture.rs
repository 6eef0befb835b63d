//! For the tests of this layer: a config without a file, a ledger in memory, made-up files.
#![expect(clippy::disallowed_methods, reason = "it puts files where a story needs them")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::records::Records;
use super::screen::{Screen, Style};
use crate::config::{self, Config, LoadOptions};
use crate::model::file::{Digest, FileId, Identity, Place};
use crate::model::outcome::{Cause, Code};
use crate::model::route::Route;
use crate::model::step::{
    Attempt, AttemptEnd, Entry, Envelope, History, RouteRecord, State, Twin, Verdict,
};
use crate::model::time::Wall;
use crate::world::instance::{Mark, Whose};
use crate::world::ledger::{Count, LedgerError, Query};

/// 2026-11-21 08:00:00 UTC, when every made-up story begins.
pub(super) const START: Wall = Wall(1_795_248_000_000);

/// No colours, UTC, one hour after the start.
pub(super) fn style() -> Style {
    Style { colours: false, zone: TimeZone::UTC, now: START.plus(Duration::from_hours(1)) }
}

pub(super) fn screen(out: &mut Vec<u8>) -> Screen<'_> {
    Screen { out, style: style() }
}

/// What `write` wrote, and what it returned.
pub(super) fn shown<T>(write: impl FnOnce(&mut Screen<'_>) -> T) -> (String, T) {
    let mut out = Vec::new();
    let result = write(&mut screen(&mut out));
    (String::from_utf8(out).unwrap(), result)
}

/// A text with the folder of a test as `ROOT`, and with paths as Unix writes them: the same on
/// every system.
pub(super) fn portable(text: &str, root: &Path) -> String {
    let root = root.display().to_string();
    if !cfg!(windows) {
        return text.replace(&root, "ROOT");
    }
    // In JSON each backslash is two.
    let plain = |text: &str| text.replace(r"\\", "/").replace('\\', "/");
    plain(text).replace(&plain(&root), "ROOT")
}

/// A config with these inbound routes below `root`, all folders there.
pub(super) fn config(root: &Path, routes: &[&str]) -> Config {
    let state_dir = root.join("state");
    let mut text = format!(
        "root = '{}'\nstate_dir = '{}'\ncompany = 'acme'\nauto_routes = false\n\
         first_sweep_max_age = 'off'\n\
         [credential.inbound]\nkind = 'oauth2'\ntoken_url = 'https://auth.example/oauth/token'\n\
         client_id = 'id'\nclient_secret = {{ env = 'SECRET' }}\n",
        root.join("drop").display(),
        state_dir.display()
    );
    for name in routes {
        writeln!(text, "[route.{name}]\nfolder = '{}'", root.join(name).display()).unwrap();
    }
    let options = LoadOptions { secrets_may_be_missing: true, ..LoadOptions::default() };
    let mut config = config::read(text.as_bytes(), &root.join("config.toml"), &options)
        .expect("a config without faults");
    config.credentials.clear();
    config.warnings.clear();
    config.marked.clear();
    let folders = config.routes.iter().map(|route| &route.folders);
    let own = folders.flat_map(|it| [&it.sending, &it.sent, &it.failed, &it.held]);
    for folder in own.map(AsRef::as_ref).chain([&*state_dir]) {
        std::fs::DirBuilder::new().recursive(true).create(folder).unwrap();
    }
    config
}

/// On its routes no file is ready within an hour.
pub(super) fn never_quiet(config: &mut Config) {
    for route in &mut config.routes {
        let route = Arc::get_mut(route).expect("nobody else has it yet");
        route.ready.quiet_for = Duration::from_hours(1);
    }
}

pub(super) fn route(root: &Path, name: &str) -> Route {
    Route::clone(&config(root, &[name]).routes[0])
}

/// A made-up file, claimed `id` seconds after the start, with one attempt that led to `state`.
pub(super) fn file(config: &Config, id: u64, route: &str, name: &str, state: State) -> History {
    let route = config.routes.iter().find(|known| &*known.name.0 == route).expect("a route");
    let claimed_at = START.plus(Duration::from_secs(id));
    let ended_at = claimed_at.plus(Duration::from_secs(2));
    let (verdict, code, plain, folder) = match state {
        State::Sent => (Verdict::Delivered, "http-200", "the server accepted it", "sent"),
        State::Failed => (Verdict::Rejected, "http-422", "the server refused it: 422", "failed"),
        State::Held => (Verdict::InDoubt, "no-answer-timeout", "no answer within 60s", "held"),
        State::Sending
        | State::Deferred
        | State::Confirming
        | State::Missing
        | State::Cancelled => (Verdict::Deferred, "http-503", "the server answered 503", ""),
    };
    let ended = state != State::Sending;
    let end = AttemptEnd {
        verdict,
        code: Code::of(code),
        status: code.strip_prefix("http-").and_then(|status| status.parse().ok()),
        request_id: None,
        plain: plain.to_owned(),
    };
    let decided = !folder.is_empty();
    let digest = Digest([7; 32]);
    let entry = Entry {
        id: FileId(id),
        route: route.name.clone(),
        name: name.into(),
        source: Place::new(&route.folders.inbox, name),
        marker: None,
        identity: Identity { volume: 1, number: id, size: 2_048, mtime_ns: 1_795_000_000 },
        digest: Some(digest),
        envelope: Some(Envelope {
            digest,
            bytes: 2_048,
            conversion: None,
            wrap: None,
            remarks: Vec::new(),
        }),
        key: format!("key-{id}"),
        previous: None,
        claimed_at,
        state,
        settled: decided || matches!(state, State::Missing | State::Cancelled),
        cause: (ended && state != State::Sent).then(|| Cause::new(Code::of(code), plain)),
        target: decided
            .then(|| Place::of_path(&route.folders.inbox.join(folder).join(name)).unwrap()),
        decided_at: (ended && state != State::Deferred).then_some(ended_at),
        attempt: 1,
        attempt_open_since: (!ended).then_some(claimed_at),
        last_verdict: ended.then_some(verdict),
        run: None,
        confirming_since: None,
        unspent_since: None,
        due_at: (state == State::Deferred).then(|| START.plus(Duration::from_mins(61))),
        waited_for: Duration::ZERO,
    };
    let begun_at = claimed_at;
    let (ended_at, end) = if ended { (Some(ended_at), Some(end)) } else { (None, None) };
    let attempts = vec![Attempt { number: 1, begun_at, ended_at, end }];
    History { entry, attempts, remarks: Vec::new() }
}

/// The same under another name at its target.
pub(super) fn retargeted(mut history: History, name: &str) -> History {
    let target = history.entry.target.as_mut().expect("a decided file");
    target.name = name.into();
    history
}

/// Puts a file where its record says, with its size, its mtime on record and, where one is due,
/// its sidecar. Returns the entry with the identity that the file has now.
pub(super) fn put_in_place(config: &Config, entry: &Entry) -> Entry {
    let route = config.routes.iter().find(|route| route.name == entry.route).expect("a route");
    let place = entry.target.clone().unwrap_or_else(|| {
        let mut name = std::ffi::OsString::from(format!("{}~", entry.id));
        name.push(&entry.name);
        Place::new(&route.folders.sending, name)
    });
    put(&place.path(), entry);
    if matches!(entry.state, State::Failed | State::Held) {
        let mut sidecar = place.path().into_os_string();
        sidecar.push(".why.txt");
        std::fs::write(sidecar, "why it is here").unwrap();
    }
    let mut entry = entry.clone();
    entry.identity = crate::cli::verify::identity_of(&place.path()).unwrap().unwrap();
    entry
}

/// Puts a file of an entry's size and mtime somewhere.
pub(super) fn put(path: &Path, entry: &Entry) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(entry.identity.size).unwrap();
    let mtime = Duration::from_nanos(u64::try_from(entry.identity.mtime_ns).unwrap());
    file.set_modified(std::time::UNIX_EPOCH + mtime).unwrap();
}

/// A ledger that lives in memory and is only read.
pub(super) struct FakeLedger {
    histories: Vec<History>,
    /// What the routes' records are.
    pub(super) routes: Vec<RouteRecord>,
    /// Ids below this were given out.
    pub(super) reserved: u64,
    /// Whether it stands in for a lost ledger.
    pub(super) has_lost: bool,
    /// What marks say to it.
    pub(super) whose: Whose,
    /// The longest page that was asked for.
    pub(super) longest_page: Cell<usize>,
}

impl FakeLedger {
    pub(super) fn of(histories: impl IntoIterator<Item = History>) -> Self {
        let mut histories: Vec<History> = histories.into_iter().collect();
        histories.sort_by_key(|history| history.entry.id);
        Self {
            histories,
            routes: Vec::new(),
            reserved: 1_000_000,
            has_lost: false,
            whose: Whose::Ours,
            longest_page: Cell::new(0),
        }
    }

    fn find(&self, id: FileId) -> Option<&History> {
        self.histories.iter().find(|history| history.entry.id == id)
    }
}

fn matches(entry: &Entry, query: &Query) -> bool {
    let newest = entry.decided_at.unwrap_or(entry.claimed_at).max(entry.claimed_at);
    let code = entry.cause.as_ref().map(|cause| cause.code.to_string());
    query.route.as_ref().is_none_or(|route| *route == entry.route)
        && (query.states.is_empty() || query.states.contains(&entry.state))
        && (query.code.is_none() || query.code == code)
        && query.since.is_none_or(|since| newest >= since)
        && query.name.as_ref().is_none_or(|name| *name == entry.name)
        && query.before.is_none_or(|before| entry.id < before)
}

impl Records for FakeLedger {
    fn entry(&self, id: FileId) -> Result<Option<Entry>, LedgerError> {
        Ok(self.find(id).map(|history| history.entry.clone()))
    }

    fn history(&self, id: FileId) -> Result<Option<History>, LedgerError> {
        Ok(self.find(id).cloned())
    }

    fn list(&self, query: &Query) -> Result<Vec<Entry>, LedgerError> {
        self.longest_page.set(self.longest_page.get().max(query.limit));
        let found = self.histories.iter().rev().map(|history| &history.entry);
        let is_last = |entry: &Entry| {
            let all = self.histories.iter().map(|history| &history.entry);
            all.filter(|later| later.state != State::Cancelled)
                .all(|later| later.previous != Some(entry.id))
        };
        let found = found.filter(|entry| matches(entry, query));
        let found = found.filter(|entry| !query.only_last || is_last(entry));
        Ok(found.take(query.limit).cloned().collect())
    }

    fn twins_of(&self, _twin: &Digest) -> Result<Vec<Twin>, LedgerError> {
        Ok(Vec::new())
    }

    fn counts(&self) -> Result<Vec<Count>, LedgerError> {
        let mut counts: BTreeMap<String, Count> = BTreeMap::new();
        for History { entry, .. } in &self.histories {
            let route = entry.route.to_string();
            let count = counts.entry(route.clone()).or_insert(Count { route, ..Count::default() });
            *count.states.entry(entry.state.name()).or_default() += 1;
        }
        Ok(counts.into_values().collect())
    }

    fn routes(&self) -> Result<Vec<RouteRecord>, LedgerError> {
        Ok(self.routes.clone())
    }

    fn all_paused_at(&self) -> Result<Option<Wall>, LedgerError> {
        Ok(None)
    }

    fn has_reserved(&self, id: FileId) -> Result<bool, LedgerError> {
        Ok(id.0 < self.reserved)
    }

    fn has_lost(&self) -> Result<bool, LedgerError> {
        Ok(self.has_lost)
    }

    fn whose(&self, _folder: &Path, _mark: Option<&Mark>) -> Result<Whose, LedgerError> {
        Ok(self.whose)
    }
}
