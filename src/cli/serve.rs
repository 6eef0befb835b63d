//! Puts the service together: lock, ledger, marks, disk, network, control socket, signals; then
//! runs the loop. The same for the service, for one pass, and for a single command without a
//! service.

use std::future::Future;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::failure::{Failure, Kind};
use super::heartbeat;
use super::reload::{Reader, Reloading};
use super::wishes::Wishes;
use crate::config::{Config, Notice};
use crate::daemon::{Daemon, End, Mode, Notes, Sources, Stop, chain};
use crate::model::command::{Command, CommandAnswer};
use crate::model::durability::Durability;
use crate::service::{News, listens, tell, watchdog};
use crate::telemetry::MILESTONE;
use crate::world::RealWorld;
use crate::world::clock::{Clock, SystemClock};
use crate::world::control::ControlServer;
use crate::world::endpoint::{EndpointOptions, HttpEndpoint};
use crate::world::folder::RealDisk;
use crate::world::instance::{LockError, MarkError, MarkFinding, StateLock};
use crate::world::ledger::LedgerError;
use crate::world::ledger::sqlite::{LedgerOptions, OpenError, Opened, SqliteLedger};
use crate::world::token::TokenDesk;
use crate::world::watch::{NoWatch, Watch, Watcher, mailbox};

/// A command and where its answer goes.
type Asked = (Command, oneshot::Sender<CommandAnswer>);

/// What stays when the config changes: lock, record, marks.
struct Taken {
    lock: StateLock,
    clock: Arc<SystemClock>,
    ledger: Arc<SqliteLedger>,
    durability: Durability,
    load: Arc<AtomicUsize>,
    notes: Notes,
}

/// Runs the loop until its mode or a signal ends it, with one config after another where `reader`
/// can read it again. `allows_root`: also as root over folders that others can write.
pub(super) async fn serve(
    config: Config,
    mode: Mode,
    allows_root: bool,
    mut wishes: Wishes,
    reader: Option<&Reader<'_>>,
) -> Result<End, Failure> {
    let mut config = Arc::new(config);
    let mut taken = tokio::select! {
        biased;
        Some(_) = wishes.stop.recv() => {
            tell(&[News::Stopping]);
            tracing::info!("stopped before anything had begun");
            return Ok(End::default());
        }
        taken = take_when_possible(&config, mode) => taken?,
        () = keep_told_of_the_start() => unreachable!("it goes on for ever"),
    };
    taken.notes.allows_root = allows_root;
    // A reload begins another loop, and no other service.
    taken.notes.running_since = Some(taken.clock.now().wall);
    let mut control = ControlServer::bind(&config.state_dir).map_err(|error| {
        Failure::machine(error).hint("commands cannot reach the service without its socket")
    })?;
    let taken_over = OnceLock::new();
    tracing::info!(
        target: MILESTONE,
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        config = %config.path.display(),
        state_dir = %config.state_dir.display(),
        "started"
    );
    let end = loop {
        for route in &config.broken {
            tracing::error!(
                route = %route.name,
                why = %route.notice.text,
                "route stopped; its folder is nobody else's meanwhile"
            );
        }
        let reloading = Reloading::new(&config, &taken.ledger, reader);
        let end =
            run_with(&config, mode, &taken, &mut wishes, &mut control, &reloading, &taken_over);
        let end = end.await?;
        match (&end, reloading.next()) {
            (Ok(end), Some(newer)) if end.is_for_reload => {
                config = newer;
                tracing::info!(target: MILESTONE, config = %config.path.display(), "reloaded");
            }
            _ => break end,
        }
    };
    // A stop in order is the last thing that the marks tell.
    let ended = taken.ledger.keep_marks().await;
    let lost_to = taken_over.into_inner().or(ended.err());
    tracing::info!(target: MILESTONE, "stopped");
    finish(taken);
    if let Some(error) = lost_to {
        return Err(no_mark(error));
    }
    end.map_err(|error| {
        Failure::machine(error).hint("see whether the disk with state_dir is there and not full")
    })
}

/// Runs the loop with one config.
async fn run_with(
    config: &Arc<Config>,
    mode: Mode,
    taken: &Taken,
    wishes: &mut Wishes,
    control: &mut ControlServer,
    reloading: &Reloading<'_>,
    taken_over: &OnceLock<MarkError>,
) -> Result<Result<End, LedgerError>, Failure> {
    let world = world_of(taken, config)?;
    let endpoint = world.endpoint.clone();
    let (stopping, stop_in) = mpsc::channel(2);
    let (commands, commands_in) = mpsc::channel(1);
    let (watch, hints, watching) = watching();
    let sources = Sources { hints, commands: commands_in, stop: stop_in };
    let (load, notes) = (Arc::clone(&taken.load), taken.notes.clone());
    let daemon = Daemon::new(world, Arc::clone(config), watch, load, mode, notes);
    // On the threads of the tasks that it waits for: none has to wake another for each event.
    let running = tokio::spawn(daemon.run(sources));
    Ok(tokio::select! {
        end = running => end.unwrap_or_else(|error| resume_unwind(error.into_panic())),
        () = hear(control, &commands, reloading, &stopping) => unreachable!("it goes on for ever"),
        () = heed(&mut wishes.commands, &mut wishes.under_way, &commands, reloading, &stopping)
            => unreachable!("it goes on for ever"),
        () = watching => unreachable!("watching goes on for ever"),
        () = keep_marks(taken, &stopping, taken_over) => unreachable!("it goes on for ever"),
        () = keep_beating(config, mode, &taken.clock, endpoint, &commands) => {
            unreachable!("it goes on for ever")
        }
        () = keep_told(&commands) => unreachable!("it goes on for ever"),
        () = hand_on(&mut wishes.stop, &stopping) => unreachable!("it goes on for ever"),
    })
}

/// Hands commands to the loop, for ever; the wish for a reload is dealt with here.
async fn hear(
    control: &mut ControlServer,
    commands: &mpsc::Sender<Asked>,
    reloading: &Reloading<'_>,
    stop: &mpsc::Sender<Stop>,
) {
    while let Some((command, reply)) = control.next().await {
        if command == Command::Reload {
            // Whoever asked may have gone; what was asked for is done all the same.
            drop(reply.send(reloading.begin(stop).await));
        } else {
            let alert = reloading.alert().filter(|_| command == Command::Status);
            let reply = match alert {
                Some(alert) => knowing(alert, reply),
                None => reply,
            };
            if commands.send((command, reply)).await.is_err() {
                break;
            }
        }
    }
    std::future::pending::<()>().await;
}

/// An answer that says one thing more than the loop knows.
fn knowing(alert: String, reply: oneshot::Sender<CommandAnswer>) -> oneshot::Sender<CommandAnswer> {
    let (inner, answered) = oneshot::channel();
    tokio::spawn(async move {
        let Ok(mut answer) = answered.await else { return };
        if let CommandAnswer::Status(status) = &mut answer {
            status.alerts.push(alert);
        }
        // Whoever asked may have gone.
        drop(reply.send(answer));
    });
    inner
}

/// Calls `heartbeat_url` while all is well, for ever.
async fn keep_beating(
    config: &Config,
    mode: Mode,
    clock: &SystemClock,
    endpoint: HttpEndpoint,
    commands: &mpsc::Sender<Asked>,
) {
    if let (Some(url), Mode::Service) = (&config.heartbeat_url, mode) {
        let status = || async {
            let (reply, answer) = oneshot::channel();
            commands.send((Command::Status, reply)).await.ok()?;
            match answer.await {
                Ok(CommandAnswer::Status(status)) => Some(*status),
                Ok(CommandAnswer::Done(_) | CommandAnswer::Refused(_)) | Err(_) => None,
            }
        };
        heartbeat::beat(url, clock, &endpoint, status).await;
    }
    std::future::pending::<()>().await;
}

/// Does what a signal or the service manager asks, for ever. What is not done when the loop ends is
/// done by the next one.
async fn heed(
    asked: &mut mpsc::Receiver<Command>,
    under_way: &mut Option<Command>,
    commands: &mpsc::Sender<Asked>,
    reloading: &Reloading<'_>,
    stop: &mpsc::Sender<Stop>,
) {
    loop {
        if under_way.is_none() {
            *under_way = asked.recv().await;
        }
        let Some(command) = under_way.clone() else { break };
        if command == Command::Reload {
            // It ends this loop.
            *under_way = None;
            reloading.begin(stop).await;
            continue;
        }
        let (reply, answer) = oneshot::channel();
        if commands.send((command.clone(), reply)).await.is_err() {
            break;
        }
        let Ok(answer) = answer.await else { break };
        match answer {
            CommandAnswer::Done(_) => tell(&[News::Paused(command == Command::PauseAll)]),
            CommandAnswer::Status(_) => {}
            CommandAnswer::Refused(why) => {
                tracing::error!(%why, ?command, "what the service manager asked for was not done");
                tell(&[News::Ready]);
            }
        }
        *under_way = None;
    }
    std::future::pending::<()>().await;
}

/// How often the marks are looked at and brought up to date.
const MARKS_EVERY: Duration = Duration::from_mins(1);

/// Keeps the marks up to date, for ever. Where another instance has taken a root over it asks for a
/// stop, once, and tells which one.
async fn keep_marks(taken: &Taken, stop: &mpsc::Sender<Stop>, taken_over: &OnceLock<MarkError>) {
    loop {
        taken.clock.sleep(MARKS_EVERY).await;
        let Err(error) = taken.ledger.keep_marks().await else { continue };
        let text = chain(&error);
        if taken_over.set(error).is_ok() {
            tracing::error!(error = %text, "another patchdrop has taken a root over; this one stops");
            // A loop that has ended needs no stop.
            stop.send(Stop::Drain).await.ok();
        }
    }
}

/// How often the service manager hears how things stand, if it does not want to hear it sooner.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Tells the service manager how things stand, for ever: first that the start is done, then again
/// and again that the loop answers.
async fn keep_told(commands: &mpsc::Sender<Asked>) {
    if !listens() {
        return std::future::pending().await;
    }
    let every = watchdog().map_or(TOLD_EVERY, |within| TOLD_EVERY.min(within / 3));
    let mut is_ready = false;
    let mut turn = tokio::time::interval(every);
    loop {
        turn.tick().await;
        let (reply, answer) = oneshot::channel();
        if commands.send((Command::Status, reply)).await.is_err() {
            return std::future::pending().await;
        }
        let Ok(CommandAnswer::Status(status)) = answer.await else { continue };
        let (line, is_paused) = (status.in_one_line(), status.all_paused_since.is_some());
        let (paused, status) = (News::Paused(is_paused), News::Status(&line));
        if is_ready {
            tell(&[paused, status, News::Alive]);
        } else {
            tell(&[paused, News::Ready, status, News::Alive]);
        }
        is_ready = true;
    }
}

/// Tells the service manager again and again that a start goes on, for ever.
async fn keep_told_of_the_start() {
    let mut turn = tokio::time::interval(TOLD_EVERY);
    loop {
        turn.tick().await;
        tell(&[News::Status("starting, reading the record")]);
    }
}

/// Hands the wish to stop on, for ever.
async fn hand_on(asked: &mut mpsc::Receiver<Stop>, stop: &mpsc::Sender<Stop>) {
    while let Some(wish) = asked.recv().await {
        tell(&[News::Stopping, News::Status("stopping, finishing what is in flight")]);
        if stop.send(wish).await.is_err() {
            break;
        }
    }
    std::future::pending::<()>().await;
}

/// Does one command as the service would, without sweeping or sending anything.
pub(super) async fn carry_out(config: Config, command: Command) -> Result<CommandAnswer, Failure> {
    let config = Arc::new(config);
    // A command alone is soon over and knows few folders: it is synced.
    let taken = take(&config, Durability::PowerLoss).await?;
    let world = world_of(&taken, &config)?;
    let (_hints, hints) = mpsc::channel(1);
    let (commands, commands_in) = mpsc::channel::<Asked>(1);
    let (stop, stop_in) = mpsc::channel(1);
    let daemon = Daemon::new(
        world,
        config,
        Box::new(NoWatch),
        Arc::clone(&taken.load),
        Mode::OneCommand,
        // Only folders of ours are touched, by a person who is root.
        Notes { allows_root: true, ..taken.notes.clone() },
    );
    let asking = async {
        let (reply, answer) = oneshot::channel();
        let answer = match commands.send((command, reply)).await {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        // A loop that has ended needs no stop.
        let stopped = stop.send(Stop::Drain).await;
        tracing::trace!(?stopped, "one command done");
        answer
    };
    let sources = Sources { hints, commands: commands_in, stop: stop_in };
    let (end, answer) = tokio::join!(daemon.run(sources), asking);
    let marked = taken.ledger.keep_marks().await;
    finish(taken);
    marked.map_err(no_mark)?;
    end.map_err(Failure::machine)?;
    answer.ok_or_else(|| Failure::machine("the command was not answered"))
}

/// As many open files as the system lets us have: each file under way may hold one, and each
/// connection. What cannot be raised stays as it is.
#[cfg(unix)]
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(not(unix))]
fn raise_open_files() {}

/// How long the service waits before it tries a start again that something outside has kept from
/// it: soon enough for whoever has just made room, and seldom enough for a log.
const START_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Takes everything. What may pass by itself, a full disk below the ledger before all, is the end
/// of a command and no end of the service: running, it would have waited for it, too.
async fn take_when_possible(config: &Arc<Config>, mode: Mode) -> Result<Taken, Failure> {
    let mut said = None;
    loop {
        let failure = match take(config, config.durability).await {
            Err(failure) if failure.may_pass && mode == Mode::Service => failure,
            taken => return taken,
        };
        let (error, hints) = (chain(&*failure.error), failure.hints.join("; "));
        tell(&[News::Waiting(&format!("cannot start yet: {error}"))]);
        if said.as_ref() != Some(&error) {
            tracing::error!(
                %error, hints,
                "cannot start yet and sends nothing; patchdrop tries again by itself"
            );
            said = Some(error);
        }
        SystemClock::new().sleep(START_AGAIN_AFTER).await;
    }
}

/// Takes lock, ledger and marks, in this order.
async fn take(config: &Arc<Config>, durability: Durability) -> Result<Taken, Failure> {
    raise_open_files();
    let clock = Arc::new(SystemClock::new());
    let load = Arc::new(AtomicUsize::new(0));
    let (state, own_load) = (Arc::clone(config), Arc::clone(&load));
    // On a thread of its own: a disk that hangs must not keep a stop from being heard.
    let opening = tokio::task::spawn_blocking(move || open(&state, &own_load, durability));
    let (lock, opened) = opening.await.map_err(Failure::machine)??;
    let mut notes = Notes::default();
    if let Some(lost) = &opened.lost {
        let text = format!(
            "the ledger was damaged ({}) and set aside as {}; a new one has begun, \
             files in sending/ are held",
            lost.why,
            lost.set_aside.display()
        );
        tracing::error!("{text}");
        notes.alerts.push(text);
    }
    let findings = opened.ledger.check_marks(marked_folders(config)).await.map_err(no_mark)?;
    for finding in &findings {
        note_mark(finding, &mut notes);
    }
    if let Some(since) = opened.ledger.behind_since() {
        notes.starts_paused = true;
        // Each route says so itself as long as it is paused.
        tracing::error!(
            %since,
            "the ledger is an older copy of itself: routes are paused until a person has compared \
             sent/ with the receiver and resumed them (patchdrop resume ROUTE)"
        );
    }
    let ledger = Arc::new(opened.ledger);
    Ok(Taken { lock, clock, ledger, durability, load, notes })
}

/// The world as a config wants it.
fn world_of(taken: &Taken, config: &Config) -> Result<Arc<RealWorld>, Failure> {
    let endpoint = endpoint(config)?;
    let tokens = TokenDesk::new(
        config.credentials.clone(),
        &config.state_dir,
        Arc::clone(&taken.clock),
        endpoint.clone(),
    );
    Ok(Arc::new(RealWorld {
        clock: Arc::clone(&taken.clock),
        disk: RealDisk::new(Arc::clone(&taken.load), taken.durability),
        ledger: Arc::clone(&taken.ledger),
        endpoint,
        tokens,
    }))
}

/// Takes the lock and opens the ledger.
pub(super) fn open(
    config: &Config,
    load: &Arc<AtomicUsize>,
    durability: Durability,
) -> Result<(StateLock, Opened), Failure> {
    let now = SystemClock::new().now().wall;
    let lock = StateLock::take(&config.state_dir, now).map_err(no_lock)?;
    let options = LedgerOptions { load: Arc::clone(load), durability };
    let opened = SqliteLedger::open(&config.state_dir, options).map_err(no_ledger)?;
    Ok((lock, opened))
}

/// The folders that hold a mark of whose they are.
pub(super) fn marked_folders(config: &Config) -> Vec<Arc<Path>> {
    config.root.iter().chain(&config.marked).cloned().collect()
}

/// The door to the network.
pub(super) fn endpoint(config: &Config) -> Result<HttpEndpoint, Failure> {
    let user_agent = concat!("patchdrop/", env!("CARGO_PKG_VERSION")).to_owned();
    let network = config.network.clone();
    HttpEndpoint::new(EndpointOptions { network, user_agent }).map_err(Failure::machine)
}

/// Lets the ledger finish before the lock goes. Tasks that were dropped may hold it a moment
/// longer; then the ledger finishes with the last of them.
fn finish(taken: Taken) {
    match Arc::try_unwrap(taken.ledger) {
        Ok(ledger) => ledger.close(),
        Err(ledger) => drop(ledger),
    }
    taken.lock.release();
}

fn no_lock(error: LockError) -> Failure {
    match error {
        LockError::Held { .. } => Failure::machine(error)
            .hint("one instance a state_dir: stop the other one, or give this one its own config"),
        LockError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::InvalidData => {
            Failure::machine(error).hint("patchdrop makes its own once that one has gone")
        }
        LockError::Io { ref source, .. } => {
            let may_pass = source.kind() != std::io::ErrorKind::PermissionDenied;
            Failure::machine(error).passing(may_pass).hint(
                "run it as the service's account, or set `state_dir` to a folder that it may write",
            )
        }
    }
}

fn no_ledger(error: OpenError) -> Failure {
    let kind = match &error {
        OpenError::Newer { .. } => Kind::Config,
        OpenError::Unavailable { .. }
        | OpenError::Denied { .. }
        | OpenError::Absent { .. }
        | OpenError::Damaged { .. }
        | OpenError::SetAside { .. } => Kind::Machine,
    };
    if matches!(error, OpenError::Unavailable { .. } | OpenError::SetAside { .. }) {
        let hint = "see whether the disk with state_dir is there and not full";
        return Failure::new(kind, error).passing(true).hint(hint);
    }
    Failure::new(kind, error)
}

pub(super) fn no_mark(error: MarkError) -> Failure {
    match error {
        MarkError::Foreign { .. } => Failure::new(Kind::Config, error)
            .hint("use another root, or this one by that patchdrop alone")
            .hint(
                "if that one is gone for good, `patchdrop adopt` takes the root over; what it left \
                 in sending/ is then held",
            ),
        MarkError::Elsewhere { .. } => Failure::new(Kind::Config, error)
            .hint(
                "two copies of one patchdrop would send every file twice: a copied machine or \
                 state_dir needs a root of its own and an empty state_dir",
            )
            .hint(
                "if the other one has ended for good (this machine was renamed, its disk was moved \
                 here), `patchdrop adopt` goes on from it",
            ),
        MarkError::Unreadable { .. } | MarkError::NoMark { .. } => Failure::machine(error).hint(
            "if no other patchdrop uses this root, `patchdrop adopt --yes` writes its mark anew",
        ),
        MarkError::Ledger(_) => Failure::machine(error)
            .passing(true)
            .hint("see whether the disk with state_dir is there and not full"),
        MarkError::Io { ref source, .. } => {
            let may_pass = source.kind() != std::io::ErrorKind::PermissionDenied;
            Failure::machine(error)
                .passing(may_pass)
                .hint("the service's account must be able to write there, and the disk have room")
        }
        MarkError::Vanished { .. } => {
            Failure::machine(error).hint("the service's account must be able to write there")
        }
    }
}

fn note_mark(finding: &MarkFinding, notes: &mut Notes) {
    let text = match finding {
        MarkFinding::Ours { .. } | MarkFinding::New { .. } => return,
        MarkFinding::Restored { folder } => {
            tracing::warn!(folder = %folder.display(), "the mark was gone or said nothing; it was written again");
            return;
        }
        MarkFinding::Lost { folder, .. } => format!(
            "the ledger that knew {} is gone; a new one has begun, files in sending/ are \
             held and sent/ has no record",
            folder.display()
        ),
        MarkFinding::Behind { folder, mark } => {
            tracing::error!(
                folder = %folder.display(), written_at = %mark.written_at,
                "the mark knows of a later ledger than this one"
            );
            return;
        }
        // Routes below these are stopped, each saying so as long as it lasts.
        MarkFinding::Vanished { folder } => {
            tracing::error!("{}", MarkError::Vanished { folder: folder.to_path_buf() });
            return;
        }
        MarkFinding::Unreachable { folder, error } => {
            let text = format!(
                "{} could not be reached at the start: {error}; its routes begin when it can be",
                folder.display()
            );
            tracing::error!("{text}");
            notes.unreached.push((Arc::clone(folder), text));
            return;
        }
    };
    tracing::error!("{text}");
    notes.alerts.push(text);
}

/// The watcher, and what carries its hints into the loop one batch at a time.
fn watching()
-> (Box<dyn Watch>, mpsc::Receiver<Vec<crate::world::watch::Hint>>, impl Future<Output = ()>) {
    let (sender, mut receiver) = mailbox();
    let (hints, hints_in) = mpsc::channel(1);
    let carrying = async move {
        loop {
            let batch = receiver.next().await;
            if hints.send(batch).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    (Box::new(Watcher::new(sender)), hints_in, carrying)
}

/// A warning of the config as one log line.
pub(super) fn warn(notice: &Notice, path: &Path) {
    let remedy = notice.hint.as_deref();
    tracing::warn!(remedy, "{}", notice.in_one_line(path));
}
