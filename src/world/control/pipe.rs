//! A named pipe. Its name is drawn anew at each start and written into `state_dir`, so that no
//! other program can take it beforehand and pass for the service. Its list of rights is that of
//! `state_dir`: the service's account, the system's and administrators may open it, nobody else,
//! nor anybody from another machine.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::windows::named_pipe::{
    ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use windows_sys::Win32::Foundation::ERROR_PIPE_BUSY;

use super::super::rights::Closed;
use super::{
    ACCEPT_AGAIN_AFTER, Asked, ControlError, QUEUE_MAX, REQUEST_FOR, converse, make_room, refusal,
};

/// The file in `state_dir` that names the pipe.
pub const SOCKET_NAME: &str = "control.pipe";

/// Pipes have no queue of callers: one that finds all taken comes again after this long.
const CALL_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// And gives up when the callers before it must have been cut off, were they mute.
const CALL_FOR: Duration = REQUEST_FOR.saturating_mul(4);

/// What a caller has not yet read may be gone with our end: it has this long to hang up first.
const HANG_UP_FOR: Duration = Duration::from_secs(1);

/// Listens for commands. Dropping it ends every conversation and removes the pipe.
#[derive(Debug)]
pub struct ControlServer {
    asked: mpsc::Receiver<Asked>,
    acceptor: JoinHandle<()>,
    path: PathBuf,
}

impl ControlServer {
    /// Listens on a new pipe and writes its name to `state_dir/control.pipe`, inside a tokio
    /// runtime. The caller holds the lock on `state_dir`, so what is there is an older name.
    ///
    /// # Errors
    /// [`ControlError::Denied`], [`ControlError::Io`]. The service runs well without; only commands
    /// don't reach it.
    pub fn bind(state_dir: &Path) -> Result<Self, ControlError> {
        let path = state_dir.join(SOCKET_NAME);
        let refuse = |source| refusal("listen on", &path, source);
        let drawn = || getrandom::u64().map_err(io::Error::other);
        let name = drawn().and_then(|one| Ok((one, drawn()?))).map_err(refuse)?;
        let name = format!(r"\\.\pipe\patchdrop-{:016x}{:016x}", name.0, name.1);
        let closed = Closed::to_others().map_err(refuse)?;
        let first = closed.listen(options().first_pipe_instance(true), &name);
        let listener = first.map_err(refuse)?;
        fs::write(&path, &name).map_err(refuse)?;
        let (sender, asked) = mpsc::channel(QUEUE_MAX);
        let acceptor = tokio::spawn(accept(listener, name, closed, sender));
        Ok(Self { asked, acceptor, path })
    }

    /// The next command. `None` only if the acceptor has died.
    pub async fn next(&mut self) -> Option<Asked> {
        self.asked.recv().await
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.acceptor.abort();
        // A name that stays is that of no pipe, which is what every caller finds.
        fs::remove_file(&self.path).ok();
    }
}

fn options() -> ServerOptions {
    let mut options = ServerOptions::new();
    options.reject_remote_clients(true);
    options
}

async fn accept(
    mut listener: NamedPipeServer,
    name: String,
    closed: Closed,
    asked: mpsc::Sender<Asked>,
) {
    let mut conversations = JoinSet::new();
    let crowd = Arc::new(Notify::new());
    loop {
        let connected = listener.connect().await;
        let next = loop {
            match closed.listen(&options(), &name) {
                Ok(next) => break next,
                Err(error) => {
                    tracing::warn!(%error, "callers on the control pipe have to wait");
                    sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        };
        let mut caller = std::mem::replace(&mut listener, next);
        match connected {
            Ok(()) => {
                make_room(&mut conversations, &crowd).await;
                let (asked, crowd) = (asked.clone(), Arc::clone(&crowd));
                conversations.spawn(async move {
                    converse(&mut caller, &asked, &crowd).await;
                    timeout(HANG_UP_FOR, caller.read(&mut [0])).await.ok();
                });
            }
            Err(error) => tracing::warn!(%error, "a caller on the control pipe was lost"),
        }
    }
}

/// Whether a service answers here.
#[must_use]
pub fn is_answered(state_dir: &Path) -> bool {
    let Ok(name) = fs::read_to_string(state_dir.join(SOCKET_NAME)) else { return false };
    match OpenOptions::new().read(true).write(true).open(name) {
        Ok(_) => true,
        Err(error) => is_busy(&error),
    }
}

/// Reaches the service.
pub(super) async fn connect(state_dir: &Path) -> Result<NamedPipeClient, ControlError> {
    let path = state_dir.join(SOCKET_NAME);
    let refuse = |source| refusal("open", &path, source);
    let name = fs::read_to_string(&path).map_err(refuse)?;
    let calling = async {
        loop {
            match ClientOptions::new().open(&name) {
                Err(error) if is_busy(&error) => sleep(CALL_AGAIN_AFTER).await,
                other => return other,
            }
        }
    };
    match timeout(CALL_FOR, calling).await {
        Ok(connected) => connected.map_err(refuse),
        Err(_) => Err(refuse(io::Error::from(io::ErrorKind::TimedOut))),
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error().and_then(|code| u32::try_from(code).ok()) == Some(ERROR_PIPE_BUSY)
}
