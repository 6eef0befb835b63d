//! `patchdrop send`: one file goes the whole way, and its end is shown.
#![expect(clippy::disallowed_methods, reason = "it copies into a drop folder, as any program does")]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Globals;
use super::change;
use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::load::Secrets;
use super::preview;
use super::records::{self, Records};
use super::screen::Screen;
use super::verify::identity_of;
use super::when::parse_span;
use crate::daemon;
use crate::model::command::Command;
use crate::model::file::{Identity, shown};
use crate::model::quoted::quoted;
use crate::model::route::Route;
use crate::model::status::Pause;
use crate::model::step::{Entry, State};
use crate::world::clock::{Clock, SystemClock};
use crate::world::control::{self, ControlError};
use crate::world::ledger::Query;

/// How often the ledger is asked.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Copy a file into a route's folder and wait for its end
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit 0: sent. 3: it failed or is held. 69: it lies there and is not sent yet.\n\n\
    Example:\n  \
    patchdrop send order-17.json --route orders"
)]
pub(super) struct Arguments {
    /// The file; it is copied
    file: PathBuf,
    /// The route
    #[arg(long)]
    route: String,
    /// How long to wait for its end
    #[arg(long = "for", value_name = "SPAN", value_parser = parse_span, default_value = "5m")]
    patience: Duration,
}

pub(super) async fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let config = globals.load(Secrets::MayBeMissing)?;
    let route = change::known_route(&config, &arguments.route)?;
    let dropped = drop_in(&route, &arguments.file)?;
    match control::ask(&config.state_dir, &Command::Sweep).await {
        Ok(_) => {}
        Err(ControlError::NoService { .. }) => {
            let path = dropped.path.display();
            let what = format!("no service is running; {path} waits for it");
            return Err(Failure::machine(what)
                .hint(format!("start it: patchdrop{} run (or run --once)", globals.flag())));
        }
        Err(error) => return Err(error.into()),
    }
    let ledger = records::open_ledger(&config)?;
    if let Some(pause) = pause_of(&ledger, &route)? {
        let name = shown(&dropped.name);
        writeln!(screen.out, "{name} waits: {}. {}", pause.text, pause.remedy)?;
        screen.out.flush()?;
    }
    follow(&ledger, &route, &dropped, arguments.patience, screen).await
}

/// The pause on record that keeps a route from sending.
fn pause_of(ledger: &impl Records, route: &Route) -> Result<Option<Pause>, Failure> {
    let record = ledger.routes()?.into_iter().find(|record| record.name == route.name);
    let Some(since) = record.as_ref().and_then(|record| record.paused_at) else { return Ok(None) };
    let code = record.as_ref().and_then(|record| record.pause_code.as_ref());
    Ok(Some(daemon::pause_on_record(route, since, code)))
}

/// A file as it lies in the drop folder.
struct Dropped {
    path: PathBuf,
    name: OsString,
    identity: Identity,
}

/// Copies under a temporary name, makes it durable, renames without replacing.
fn drop_in(route: &Route, file: &Path) -> Result<Dropped, Failure> {
    let name = file
        .file_name()
        .filter(|_| file.is_file())
        .ok_or_else(|| Failure::usage(format!("{} is not a file", file.display())))?;
    if !preview::takes(route, name)? {
        let wanted = route.select.include.join(", ");
        return Err(Failure::usage(format!(
            "{} is none of route {}, which takes {wanted}",
            shown(name),
            route.name
        ))
        .hint("see include and exclude of the route"));
    }
    let inbox = &route.folders.inbox;
    let path = inbox.join(name);
    let part = inbox.join(format!(".patchdrop-{:016x}.part", random()));
    let cannot = |doing: &str, error: io::Error| {
        Failure::because(Kind::Machine, format!("cannot {doing} {}", path.display()), error)
            .hint("see that the folder is there and this account may write into it")
    };
    let source = File::open(file).map_err(|error| {
        Failure::because(Kind::Machine, format!("cannot read {}", file.display()), error).hint(
            format!(
                "where root sends it is read as the service's account: let that read it, or put it \
                 into {} yourself",
                inbox.display()
            ),
        )
    })?;
    let moved = copy(source, &part).map_err(|error| cannot("write", error)).and_then(|()| {
        move_new(&part, &path).map_err(|error| {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return cannot("move a file to", error);
            }
            let what =
                format!("{} is there already and not sent yet; nothing was done", path.display());
            Failure::usage(what).hint(format!("patchdrop explain {}", quoted(&path)))
        })
    });
    // Whatever failed, no half-written copy stays behind.
    if moved.is_err() {
        fs::remove_file(&part).ok();
    }
    moved?;
    if let Some(marker) = preview::selector(route)?.marker_of(name) {
        // Where it is there already, whatever it is, it stays as it is.
        match OpenOptions::new().write(true).create_new(true).open(inbox.join(&marker)) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(|error| cannot("write the done-marker of", error))?;
    }
    // Somebody may have claimed it already: then its record is found by name alone.
    let identity = identity_of(&path).ok().flatten();
    let unknown = Identity { volume: 0, number: 0, size: 0, mtime_ns: 0 };
    Ok(Dropped { name: name.to_owned(), identity: identity.unwrap_or(unknown), path })
}

fn copy(mut source: File, to: &Path) -> io::Result<()> {
    let mut target = OpenOptions::new().write(true).create_new(true).open(to)?;
    io::copy(&mut source, &mut target)?;
    if let Ok(modified) = source.metadata()?.modified() {
        target.set_modified(modified)?;
    }
    target.sync_all()
}

/// A rename that never replaces (promise P7).
fn move_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => {}
            other => return Ok(other?),
        }
    }
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()))
}

/// Waits for the file's end, and says what becomes of it.
async fn follow(
    ledger: &impl Records,
    route: &Route,
    dropped: &Dropped,
    patience: Duration,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let clock = SystemClock::new();
    let end = clock.now().tick.plus(patience);
    let mut said = String::new();
    loop {
        let entry = record_of(ledger, route, dropped)?;
        if let Some(entry) = &entry {
            if entry.settled {
                return ended(entry, screen);
            }
            let text = on_its_way(entry, screen);
            if text != said {
                writeln!(screen.out, "{text}")?;
                screen.out.flush()?;
                said = text;
            }
        }
        if clock.now().tick >= end {
            let explain = format!("patchdrop explain {}", quoted(&dropped.path));
            let what = format!("{} is not sent yet; it goes on without you", shown(&dropped.name));
            let id = entry.map(|entry| format!("patchdrop explain {}", entry.id));
            return Err(Failure::machine(what).hint(id.unwrap_or(explain)));
        }
        clock.sleep(LOOK_EVERY).await;
    }
}

fn record_of(
    ledger: &impl Records,
    route: &Route,
    dropped: &Dropped,
) -> Result<Option<Entry>, Failure> {
    let query = Query {
        route: Some(route.name.clone()),
        name: Some(dropped.name.clone()),
        limit: 10,
        ..Query::default()
    };
    let entries = ledger.list(&query)?;
    Ok(entries.into_iter().find(|entry| entry.identity.is_same(&dropped.identity)))
}

fn on_its_way(entry: &Entry, screen: &Screen<'_>) -> String {
    let name = shown(&entry.name);
    match (&entry.cause, entry.due_at) {
        (Some(cause), Some(at)) if entry.state == State::Deferred => format!(
            "{name} ({}) is deferred: {} ({}); tried again at {}",
            entry.id,
            cause.plain,
            cause.code,
            screen.style.time(at)
        ),
        _ if entry.state == State::Confirming => format!(
            "{name} ({}) is accepted; its run {} has not ended yet",
            entry.id,
            entry.run.as_deref().unwrap_or("without an id")
        ),
        _ => format!("{name} ({}) is on its way", entry.id),
    }
}

fn ended(entry: &Entry, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let (name, id) = (shown(&entry.name), entry.id);
    let cause = entry.cause.as_ref();
    let because = cause.map(|it| format!(": {} ({})", it.plain, it.code)).unwrap_or_default();
    let at = entry.target.as_ref().map(|it| shown(it.path().as_os_str())).unwrap_or_default();
    if entry.state == State::Sent {
        let plain = cause.map(|it| format!(": {}", it.plain)).unwrap_or_default();
        writeln!(screen.out, "{}", screen.style.well(&format!("{name} ({id}) is sent{plain}")))?;
        writeln!(screen.out, "  {at}")?;
        return Ok(Exit::Done);
    }
    let text = format!("{name} ({id}) is {}{because}", entry.state.name());
    writeln!(screen.out, "{}", screen.style.alarm(&text))?;
    if !at.is_empty() {
        writeln!(screen.out, "  {at}")?;
    }
    writeln!(screen.out, "  patchdrop explain {id}")?;
    Ok(Exit::SomeFailed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture::{self, FakeLedger, file};

    fn listing(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|found| found.unwrap())
            .filter(|found| found.file_type().unwrap().is_file())
            .map(|found| found.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_copy_lands_whole_and_keeps_its_time_and_replaces_nothing() {
        let root = tempfile::tempdir().unwrap();
        let route = fixture::route(root.path(), "orders");
        let source = root.path().join("a.json");
        fs::write(&source, "{}").unwrap();
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000);
        File::options().write(true).open(&source).unwrap().set_modified(time).unwrap();

        let dropped = drop_in(&route, &source).unwrap();
        assert_eq!(fs::read_to_string(&dropped.path).unwrap(), "{}");
        assert_eq!(dropped.identity.mtime_ns, 1_000_000_000_000_000);
        assert!(source.exists(), "it is a copy");

        fs::write(&source, "[1]").unwrap();
        let failure = drop_in(&route, &source).err().unwrap();
        assert_eq!(failure.kind, Kind::Usage);
        assert!(failure.error.to_string().contains("is there already"), "{failure:?}");
        assert_eq!(fs::read_to_string(&dropped.path).unwrap(), "{}");
        assert_eq!(listing(&route.folders.inbox), ["a.json"], "no part is left behind");
    }

    #[test]
    fn what_the_route_would_ignore_is_refused_before_anything_is_written() {
        let root = tempfile::tempdir().unwrap();
        let route = fixture::route(root.path(), "orders");
        for name in ["a.csv", ".a.json", "a.json.why.txt"] {
            let source = root.path().join(name);
            fs::write(&source, "{}").unwrap();
            assert_eq!(drop_in(&route, &source).err().unwrap().kind, Kind::Usage, "{name}");
        }
        assert_eq!(drop_in(&route, root.path()).err().unwrap().kind, Kind::Usage);
        let none = root.path().join("none.json");
        assert_eq!(drop_in(&route, &none).err().unwrap().kind, Kind::Usage);
        assert_eq!(listing(&route.folders.inbox), Vec::<String>::new());
    }

    #[test]
    fn a_route_with_a_done_marker_gets_it_after_the_file() {
        let root = tempfile::tempdir().unwrap();
        let mut route = fixture::route(root.path(), "orders");
        let source = root.path().join("a.json");
        fs::write(&source, "{}").unwrap();
        route.ready.done_marker = Some("{name}.done".to_owned());
        drop_in(&route, &source).unwrap();
        assert_eq!(listing(&route.folders.inbox), ["a.json", "a.json.done"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_place_of_a_done_marker_leads_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let mut route = fixture::route(root.path(), "orders");
        let source = root.path().join("a.json");
        fs::write(&source, "{}").unwrap();
        route.ready.done_marker = Some("{name}.done".to_owned());
        let elsewhere = root.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, route.folders.inbox.join("a.json.done")).unwrap();
        drop_in(&route, &source).unwrap();
        assert!(!elsewhere.exists());
    }

    #[tokio::test]
    async fn the_end_of_this_very_file_is_shown_and_decides_the_exit_code() {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        let check = async |state: State, expected: &str, exit: Exit| {
            let older = file(&config, 11, "orders", "a.json", State::Held);
            let own = file(&config, 12, "orders", "a.json", state);
            let path = own.entry.source.path();
            let dropped = Dropped { path, name: "a.json".into(), identity: own.entry.identity };
            let ledger = FakeLedger::of([own, older]);
            let mut out = Vec::new();
            let mut screen = fixture::screen(&mut out);
            let route = &config.routes[0];
            let patience = Duration::ZERO;
            let end = follow(&ledger, route, &dropped, patience, &mut screen).await;
            let text = String::from_utf8(out).unwrap();
            assert!(text.starts_with(expected), "{text}");
            assert_eq!(end.unwrap_or_else(|failure| failure.kind.exit()), exit);
        };
        let id = "a.json (000000000c) is";
        check(State::Sent, &format!("{id} sent\n"), Exit::Done).await;
        check(State::Failed, &format!("{id} failed: the server refused"), Exit::SomeFailed).await;
        check(State::Held, &format!("{id} held: no answer"), Exit::SomeFailed).await;
        let deferred = format!("{id} deferred: the server answered 503 (http-503); tried again at");
        check(State::Deferred, &deferred, Exit::Unavailable).await;
        check(State::Sending, &format!("{id} on its way\n"), Exit::Unavailable).await;
    }
}
