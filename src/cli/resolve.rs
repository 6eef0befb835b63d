//! Which file a person means: by path, by id, or by a name that occurs once.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::Failure;
use super::records::Records;
use super::screen::Style;
use super::{load, preview};
use crate::config::Config;
use crate::journey::detect;
use crate::model::file::{FileId, shown};
use crate::model::route::Route;
use crate::model::step::{Entry, State};
use crate::world::ledger::Query;

/// Candidates shown before "and more".
const CANDIDATES_MAX: usize = 10;

/// What was meant.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// A file that was claimed once.
    OnRecord(Box<Entry>),
    /// A file in a drop folder.
    Waiting {
        /// Where it lies.
        path: PathBuf,
        /// Whose drop folder that is.
        route: Arc<Route>,
    },
}

/// Which files a command can be about.
pub(super) struct Wanted {
    /// Their states.
    pub(super) states: &'static [State],
    /// What would be done to them, e.g. `resent`.
    pub(super) done: &'static str,
}

/// Looks a file up, whatever its state.
pub(super) fn find(
    ledger: &impl Records,
    config: &Config,
    text: &OsStr,
    style: &Style,
) -> Result<Found, Failure> {
    let mut found = candidates(ledger, config, text)?;
    match found.len() {
        0 => Err(unknown(config, text)),
        1 => Ok(found.remove(0)),
        _ => Err(ambiguous(text, &found, style)),
    }
}

/// Looks up a file in one of the states that the command is for. A name that occurs several times
/// is clear where only one of them is in such a state.
pub(super) fn find_in(
    ledger: &impl Records,
    config: &Config,
    text: &OsStr,
    wanted: &Wanted,
    style: &Style,
) -> Result<Entry, Failure> {
    let found = candidates(ledger, config, text)?;
    let fits = |found: &&Found| match found {
        Found::OnRecord(entry) => wanted.states.contains(&entry.state),
        Found::Waiting { .. } => false,
    };
    let mut fitting: Vec<Found> = found.iter().filter(fits).cloned().collect();
    match (fitting.pop(), found.first()) {
        (Some(Found::OnRecord(entry)), _) if fitting.is_empty() => Ok(*entry),
        (Some(last), _) => {
            fitting.push(last);
            Err(ambiguous(text, &fitting, style))
        }
        (None, None) => Err(unknown(config, text)),
        (None, Some(first)) => Err(unfit(first, wanted)),
    }
}

fn unfit(found: &Found, wanted: &Wanted) -> Failure {
    let states: Vec<&str> = wanted.states.iter().map(|state| state.name()).collect();
    let (what, id) = match found {
        Found::OnRecord(entry) => {
            (format!("{} is {}", shown(&entry.name), entry.state.name()), entry.id.to_string())
        }
        Found::Waiting { path, .. } => {
            (format!("{} is waiting in its drop folder", path.display()), shown(path.as_os_str()))
        }
    };
    Failure::usage(format!("{what}; only {} files can be {}", states.join(" or "), wanted.done))
        .hint(format!("patchdrop explain {id}"))
}

fn unknown(config: &Config, text: &OsStr) -> Failure {
    let path = Path::new(text);
    let places = if path.components().count() > 1 {
        vec![path.to_owned()]
    } else {
        load::routes(config).iter().map(|route| route.folders.inbox.join(path)).collect()
    };
    if let Some((link, target)) = places.iter().find_map(|it| Some((it, it.read_link().ok()?))) {
        let (link_shown, target) = (shown(link.as_os_str()), shown(target.as_os_str()));
        return Failure::usage(format!(
            "{link_shown} is a link, to {target}: patchdrop neither sends nor moves links"
        ))
        .hint("name the file itself, or drop a copy of it");
    }
    Failure::usage(format!("no file {} is known", shown(text)))
        .hint("give a path, an id, or the name it was dropped under; patchdrop list shows them")
}

fn ambiguous(text: &OsStr, found: &[Found], style: &Style) -> Failure {
    let mut failure = Failure::usage(format!(
        "{} can be one of {}{}; say which by its id or path",
        shown(text),
        found.len().min(CANDIDATES_MAX),
        if found.len() > CANDIDATES_MAX { " or more" } else { "" },
    ));
    for found in found.iter().take(CANDIDATES_MAX) {
        failure = failure.hint(match found {
            Found::OnRecord(entry) => format!(
                "{}  {}  {}  {}",
                entry.id,
                style.time(entry.claimed_at),
                entry.route,
                entry.state.name()
            ),
            Found::Waiting { path, route } => {
                format!("{}  {}  waiting", path.display(), route.name)
            }
        });
    }
    failure
}

fn candidates(ledger: &impl Records, config: &Config, text: &OsStr) -> Result<Vec<Found>, Failure> {
    if let Some(entry) = by_id(ledger, text)? {
        return Ok(vec![entry]);
    }
    let path = Path::new(text);
    if path.components().count() > 1 {
        return Ok(by_path(ledger, config, path)?.into_iter().collect());
    }
    let mut found = Vec::new();
    for route in load::routes(config) {
        found.extend(waiting(&route.folders.inbox.join(text), &[route]));
    }
    let limit = CANDIDATES_MAX + 1;
    let query = Query { name: Some(text.to_owned()), limit, ..Query::default() };
    let entries = ledger.list(&query)?;
    found.extend(entries.into_iter().map(|entry| Found::OnRecord(Box::new(entry))));
    Ok(found)
}

fn by_id(ledger: &impl Records, text: &OsStr) -> Result<Option<Found>, Failure> {
    let Some(id) = text.to_str().and_then(|text| FileId::parse(&text.to_ascii_lowercase())) else {
        return Ok(None);
    };
    Ok(ledger.entry(id)?.map(|entry| Found::OnRecord(Box::new(entry))))
}

/// A path names at most one file: the one that lies there now, else the last that did.
fn by_path(ledger: &impl Records, config: &Config, path: &Path) -> Result<Option<Found>, Failure> {
    let routes = load::routes(config);
    for path in spellings(path) {
        let path = beside(&path);
        if let Some(found) = waiting(&path, &routes) {
            return Ok(Some(found));
        }
        let Some(name) = path.file_name() else { continue };
        let in_sending = routes.iter().any(|route| path.starts_with(&route.folders.sending));
        if in_sending
            && let Some(id) = claimed_id(&path)
            && let Some(entry) = ledger.entry(id)?
        {
            return Ok(Some(Found::OnRecord(Box::new(entry))));
        }
        let mut last: Option<Entry> = None;
        for name in dropped_names(name) {
            let limit = 1_000;
            let query = Query { name: Some(name), limit, ..Query::default() };
            for entry in ledger.list(&query)? {
                let at_target = entry.target.as_ref().is_some_and(|it| it.path() == path);
                let was_here = at_target || entry.source.path() == path;
                if was_here && last.as_ref().is_none_or(|last| last.id < entry.id) {
                    last = Some(entry);
                }
            }
        }
        if let Some(entry) = last {
            return Ok(Some(Found::OnRecord(Box::new(entry))));
        }
    }
    Ok(None)
}

/// The file that a sidecar or receipt lies beside; any other path as it is.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().and_then(OsStr::to_str);
    match name
        .and_then(|name| detect::SIDECAR_ENDINGS.iter().find_map(|end| name.strip_suffix(end)))
    {
        Some(name) => path.with_file_name(name),
        None => path.to_owned(),
    }
}

/// The path from the root on, and the same with links in its folders followed.
fn spellings(path: &Path) -> Vec<PathBuf> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let followed = absolute
        .parent()
        .and_then(|folder| folder.canonicalize().ok())
        .zip(absolute.file_name())
        .map(|(folder, name)| folder.join(name));
    let mut spellings = vec![absolute];
    spellings.extend(followed.filter(|followed| !spellings.contains(followed)));
    spellings
}

fn waiting(path: &Path, routes: &[Arc<Route>]) -> Option<Found> {
    let folder = path.parent()?;
    let mut here = routes.iter().filter(|route| *route.folders.inbox == *folder);
    let first = here.next()?;
    let name = path.file_name()?;
    if !path.symlink_metadata().ok()?.is_file() || detect::is_sidecar(name) {
        return None;
    }
    let wants = |route: &&Arc<Route>| preview::takes(route, name).unwrap_or(false);
    let route = routes.iter().filter(|it| *it.folders.inbox == *folder).find(wants);
    Some(Found::Waiting { path: path.to_owned(), route: Arc::clone(route.unwrap_or(first)) })
}

/// The id in `sending/<id>~<name>` or `sending/<id>~/<name>`.
pub(super) fn claimed_id(path: &Path) -> Option<FileId> {
    let of = |text: &OsStr| {
        let bytes = text.as_encoded_bytes();
        let end = bytes.iter().position(|byte| *byte == b'~')?;
        FileId::parse(std::str::from_utf8(bytes.get(..end)?).ok()?)
    };
    path.file_name().and_then(of).or_else(|| path.parent()?.file_name().and_then(of))
}

/// The names that a file at its target may have been dropped under: its own, and that without what
/// was added because it was taken (`name~2.json`, `name~<id>.json`).
fn dropped_names(name: &OsStr) -> Vec<OsString> {
    let mut names = vec![name.to_owned()];
    let Some(text) = name.to_str() else { return names };
    let (stem, ending) = match text.rsplit_once('.') {
        Some((stem, ending)) => (stem, format!(".{ending}")),
        None => (text, String::new()),
    };
    if let Some((original, added)) = stem.rsplit_once('~')
        && (added.parse::<u64>().is_ok() || FileId::parse(added).is_some())
    {
        names.push(format!("{original}{ending}").into());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failure::Kind;
    use crate::cli::fixture::{self, FakeLedger, file};

    const HELD: Wanted = Wanted { states: &[State::Held], done: "released" };

    fn id_of(found: Result<Found, Failure>) -> String {
        match found {
            Ok(Found::OnRecord(entry)) => entry.id.to_string(),
            Ok(Found::Waiting { path, route }) => format!("{} {}", route.name, path.display()),
            Err(failure) => failure.error.to_string(),
        }
    }

    #[test]
    fn a_file_is_found_by_id_by_path_and_by_a_name_that_occurs_once() {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        let orders = root.path().join("orders");
        let ledger = FakeLedger::of([
            file(&config, 11, "orders", "a.json", State::Sent),
            file(&config, 12, "orders", "b.json", State::Sent),
            fixture::retargeted(file(&config, 13, "orders", "b.json", State::Failed), "b~2.json"),
            file(&config, 14, "orders", "c.json", State::Deferred),
        ]);
        std::fs::File::create_new(orders.join("new.json")).unwrap();
        let style = fixture::style();
        let check = |text: &str, expected: &str| {
            let found = find(&ledger, &config, OsStr::new(text), &style);
            assert_eq!(id_of(found), expected, "{text}");
        };
        let id = |number| FileId(number).to_string();
        let at = |path: &str| orders.join(path).display().to_string();
        check(&id(11), &id(11));
        check(&id(14).to_uppercase(), &id(14));
        check("a.json", &id(11));
        check(&at("sent/a.json"), &id(11));
        check(&at("sent/b.json"), &id(12));
        check(&at("failed/b~2.json"), &id(13));
        check(&at("failed/b~2.json.why.txt"), &id(13));
        check(&at(&format!("sending/{}~c.json", id(14))), &id(14));
        check(&at("b.json"), &id(13));
        check("new.json", &format!("orders {}", at("new.json")));
        check(&at("new.json"), &format!("orders {}", at("new.json")));
        check("b.json", "b.json can be one of 2; say which by its id or path");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("/srv/x.json", orders.join("l.json")).unwrap();
            let said = "is a link, to /srv/x.json: patchdrop neither sends nor moves links";
            check("l.json", &format!("{} {said}", at("l.json")));
            check(&at("l.json"), &format!("{} {said}", at("l.json")));
        }
        check("z.json", "no file z.json is known");
        check(&id(99), &format!("no file {} is known", id(99)));
        check(&at("sent/z.json"), &format!("no file {} is known", at("sent/z.json")));
    }

    #[test]
    fn the_state_that_a_command_is_for_tells_files_of_one_name_apart() {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        let ledger = FakeLedger::of([
            file(&config, 11, "orders", "a.json", State::Sent),
            file(&config, 12, "orders", "a.json", State::Held),
            file(&config, 13, "orders", "b.json", State::Sent),
            file(&config, 14, "orders", "c.json", State::Held),
            file(&config, 15, "orders", "c.json", State::Held),
        ]);
        let style = fixture::style();
        let find = |text: &str| find_in(&ledger, &config, OsStr::new(text), &HELD, &style);
        assert_eq!(find("a.json").unwrap().id, FileId(12));
        let failure = find("b.json").unwrap_err();
        assert_eq!(failure.error.to_string(), "b.json is sent; only held files can be released");
        assert_eq!(failure.kind, Kind::Usage);
        let failure = find("c.json").unwrap_err();
        assert_eq!(failure.kind, Kind::Usage);
        assert_eq!(
            failure.hints,
            [
                "000000000f  2026-11-21 08:00:15  orders  held",
                "000000000e  2026-11-21 08:00:14  orders  held",
            ]
        );
    }
}
