//! Puts the service together: lock, ledger, marks, disk, network, control socket, signals; then
//! runs the loop. The same for the service, for one pass, and for a single command without a
//! service.

use std::future::Future;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::{mpsc, oneshot};

use super::failure::{Failure, Kind};
use crate::config::{Config, Notice};
use crate::daemon::{Daemon, End, Mode, Notes, Sources, Stop};
use crate::model::command::{Command, CommandAnswer};
use crate::world::RealWorld;
use crate::world::clock::{Clock, SystemClock};
use crate::world::control::ControlServer;
use crate::world::endpoint::{EndpointOptions, HttpEndpoint};
use crate::world::folder::RealDisk;
use crate::world::instance::{LockError, MarkError, MarkFinding, StateLock};
use crate::world::ledger::sqlite::{LedgerOptions, OpenError, SqliteLedger};
use crate::world::token::TokenDesk;
use crate::world::watch::{NoWatch, Watch, Watcher, mailbox};

/// A command and where its answer goes.
type Asked = (Command, oneshot::Sender<CommandAnswer>);

/// Everything that the loop needs, taken.
struct Taken {
    lock: StateLock,
    world: Arc<RealWorld>,
    load: Arc<AtomicUsize>,
    notes: Notes,
}

/// Runs the loop until its mode or a signal ends it. `allows_root`: also as root over folders that
/// others can write.
pub(super) async fn serve(
    config: Config,
    mode: Mode,
    allows_root: bool,
    mut stop: mpsc::Receiver<Stop>,
) -> Result<End, Failure> {
    for route in &config.broken {
        tracing::error!(
            route = %route.name,
            why = %route.notice.text,
            "route stopped; its folder is nobody else's meanwhile"
        );
    }
    let config = Arc::new(config);
    let taken = tokio::select! {
        biased;
        Some(_) = stop.recv() => {
            tracing::info!("stopped before anything had begun");
            return Ok(End::default());
        }
        taken = take(&config) => taken?,
    };
    let mut control = ControlServer::bind(&config.state_dir).map_err(|error| {
        Failure::machine(error).hint("commands cannot reach the service without its socket")
    })?;
    let (commands, commands_in) = mpsc::channel(1);
    let hearing = async {
        while let Some(asked) = control.next().await {
            if commands.send(asked).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let (watch, hints, watching) = watching();
    let sources = Sources { hints, commands: commands_in, stop };
    let daemon = Daemon::new(
        Arc::clone(&taken.world),
        Arc::clone(&config),
        watch,
        Arc::clone(&taken.load),
        mode,
        Notes { allows_root, ..taken.notes.clone() },
    );
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        config = %config.path.display(),
        state_dir = %config.state_dir.display(),
        "started"
    );
    // On the threads of the tasks that it waits for: none has to wake another for each event.
    let running = tokio::spawn(daemon.run(sources));
    let end = tokio::select! {
        end = running => end.unwrap_or_else(|error| resume_unwind(error.into_panic())),
        () = hearing => unreachable!("hearing goes on for ever"),
        () = watching => unreachable!("watching goes on for ever"),
    };
    tracing::info!("stopped");
    finish(taken);
    end.map_err(|error| {
        Failure::machine(error).hint("see whether the disk with state_dir is there and not full")
    })
}

/// Does one command as the service would, without sweeping or sending anything.
pub(super) async fn carry_out(config: Config, command: Command) -> Result<CommandAnswer, Failure> {
    let config = Arc::new(config);
    let taken = take(&config).await?;
    let (_hints, hints) = mpsc::channel(1);
    let (commands, commands_in) = mpsc::channel::<Asked>(1);
    let (stop, stop_in) = mpsc::channel(1);
    let daemon = Daemon::new(
        Arc::clone(&taken.world),
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
    finish(taken);
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

/// Takes lock, ledger and marks, in this order.
async fn take(config: &Arc<Config>) -> Result<Taken, Failure> {
    raise_open_files();
    let clock = Arc::new(SystemClock::new());
    let load = Arc::new(AtomicUsize::new(0));
    let (state, since) = (Arc::clone(config), clock.now().wall);
    let options = LedgerOptions { load: Arc::clone(&load) };
    // On a thread of its own: a disk that hangs must not keep a stop from being heard.
    let opening = tokio::task::spawn_blocking(move || {
        let lock = StateLock::take(&state.state_dir, since).map_err(no_lock)?;
        let opened = SqliteLedger::open(&state.state_dir, options).map_err(no_ledger)?;
        Ok::<_, Failure>((lock, opened))
    });
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
    let folders = config.root.iter().chain(&config.marked).cloned().collect();
    let findings = opened.ledger.check_marks(folders).await.map_err(no_mark)?;
    for finding in &findings {
        note_mark(finding, &mut notes);
    }
    let endpoint = endpoint(config)?;
    let tokens = TokenDesk::new(
        config.credentials.clone(),
        &config.state_dir,
        Arc::clone(&clock),
        endpoint.clone(),
    );
    let disk = RealDisk::new(Arc::clone(&load));
    let world = Arc::new(RealWorld { clock, disk, ledger: opened.ledger, endpoint, tokens });
    Ok(Taken { lock, world, load, notes })
}

/// The door to the network.
pub(super) fn endpoint(config: &Config) -> Result<HttpEndpoint, Failure> {
    let user_agent = concat!("patchdrop/", env!("CARGO_PKG_VERSION")).to_owned();
    let network = config.network.clone();
    HttpEndpoint::new(EndpointOptions { network, user_agent }).map_err(Failure::machine)
}

/// Lets the ledger finish before the lock goes. Tasks that were dropped may hold the world a moment
/// longer; then the ledger finishes with the last of them.
fn finish(taken: Taken) {
    match Arc::try_unwrap(taken.world) {
        Ok(world) => world.ledger.close(),
        Err(world) => drop(world),
    }
    taken.lock.release();
}

fn no_lock(error: LockError) -> Failure {
    match error {
        LockError::Held { .. } => Failure::machine(error)
            .hint("one instance a state_dir: stop the other one, or give this one its own config"),
        LockError::Io { .. } => Failure::machine(error).hint(
            "run it as the service's account, or set `state_dir` to a folder that it may write",
        ),
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
    Failure::new(kind, error)
}

fn no_mark(error: MarkError) -> Failure {
    match error {
        MarkError::Foreign { .. } => Failure::new(Kind::Config, error).hint(
            "use another root; or, if that instance is gone for good, remove the folder \
             `.patchdrop` in it: files in sending/ are then held",
        ),
        MarkError::Unreadable { .. } | MarkError::Io { .. } | MarkError::Ledger(_) => {
            Failure::machine(error).hint("the service's account must be able to write there")
        }
    }
}

fn note_mark(finding: &MarkFinding, notes: &mut Notes) {
    let text = match finding {
        MarkFinding::Ours { .. } | MarkFinding::New { .. } => return,
        MarkFinding::Lost { folder, .. } => format!(
            "the ledger that knew {} is gone; a new one has begun, files in sending/ are \
             held and sent/ has no record",
            folder.display()
        ),
        MarkFinding::Behind { folder, .. } => {
            notes.starts_paused = true;
            format!(
                "the ledger is an older copy than the mark in {} says: every route is paused; \
                 compare sent/ with the receiver, then `patchdrop resume ROUTE`",
                folder.display()
            )
        }
        MarkFinding::Vanished { folder } => format!(
            "the mark in {} is gone: is the volume mounted? patchdrop goes on with what it \
             finds there",
            folder.display()
        ),
        MarkFinding::Unreachable { folder, error } => {
            format!("{} cannot be reached: {error}", folder.display())
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

/// The wish to stop, by signal: the first one drains, a second one ends at once.
pub(super) fn stop_by_signal() -> mpsc::Receiver<Stop> {
    let (stop, stop_in) = mpsc::channel(2);
    let mut signals = Signals::hear();
    tokio::spawn(async move {
        for wish in [Stop::Drain, Stop::Now] {
            signals.next().await;
            if stop.send(wish).await.is_err() {
                return;
            }
        }
    });
    stop_in
}

/// The signals that ask for a stop, heard without a gap: one that comes while another is being
/// acted on counts.
#[cfg(unix)]
struct Signals(Vec<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Signals {
    fn hear() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let heard = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        for error in heard.iter().filter_map(|signal| signal.as_ref().err()) {
            tracing::error!(%error, "a signal that asks for a stop cannot be heard");
        }
        Self(heard.into_iter().flatten().collect())
    }

    async fn next(&mut self) {
        std::future::poll_fn(|context| {
            let is_heard = |signal: &mut tokio::signal::unix::Signal| {
                matches!(signal.poll_recv(context), std::task::Poll::Ready(Some(())))
            };
            if self.0.iter_mut().any(is_heard) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn hear() -> Self {
        Self
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

/// A warning of the config as one log line.
pub(super) fn warn(notice: &Notice, path: &Path) {
    tracing::warn!("{}", notice.at(path));
}
