//! A socket in `state_dir`, open to the service's own account and to root alone: by its mode, and
//! because every caller's account is asked of the system.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fd::{AsRawFd, OwnedFd};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use super::{ACCEPT_AGAIN_AFTER, Asked, ControlError, QUEUE_MAX, converse, make_room, refusal};

/// The name of the socket in `state_dir`.
pub const SOCKET_NAME: &str = "control.sock";

/// Room for a path in a socket address: 104 bytes on macOS, 108 on Linux, one is the end.
const ADDRESS_MAX: usize = 103;

/// Listens for commands. Dropping it ends every conversation and removes the socket.
#[derive(Debug)]
pub struct ControlServer {
    asked: mpsc::Receiver<Asked>,
    acceptor: JoinHandle<()>,
    path: PathBuf,
}

impl ControlServer {
    /// Listens on `state_dir/control.sock`, mode 0600, inside a tokio runtime. The caller
    /// holds the lock on `state_dir`, so a socket that is already there is a dead one and is
    /// replaced.
    ///
    /// # Errors
    /// [`ControlError::InTheWay`], [`ControlError::Denied`], [`ControlError::Io`]. The service
    /// runs well without; only commands don't reach it.
    pub fn bind(state_dir: &Path) -> Result<Self, ControlError> {
        let path = state_dir.join(SOCKET_NAME);
        let refuse = |source| refusal("listen on", &path, source);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => {
                fs::remove_file(&path).map_err(refuse)?;
            }
            Ok(_) => return Err(ControlError::InTheWay { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refuse(error)),
        }
        let address = Address::of(state_dir).map_err(refuse)?;
        let listener = UnixListener::bind(&address.path).map_err(refuse)?;
        // Between these two lines the mode is the umask's; `may_ask` covers that moment.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(refuse)?;
        let (sender, asked) = mpsc::channel(QUEUE_MAX);
        let acceptor = tokio::spawn(accept(listener, sender));
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
        // One that stays is taken for a dead one by the next service and by every caller.
        fs::remove_file(&self.path).ok();
    }
}

/// A path short enough for a socket address. Where `state_dir` is too long it leads through an
/// open handle on it (Linux only; elsewhere the long path fails, and the error names it).
struct Address {
    path: PathBuf,
    _folder: Option<OwnedFd>,
}

impl Address {
    fn of(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(SOCKET_NAME);
        if path.as_os_str().len() <= ADDRESS_MAX || !cfg!(target_os = "linux") {
            return Ok(Self { path, _folder: None });
        }
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let folder = rustix::fs::open(state_dir, flags, rustix::fs::Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        Ok(Self { path: path.join(SOCKET_NAME), _folder: Some(folder) })
    }
}

/// Whether a service answers here: the lock alone does not say so if somebody has removed its
/// file.
#[must_use]
pub fn is_answered(state_dir: &Path) -> bool {
    let connected = Address::of(state_dir)
        .and_then(|address| std::os::unix::net::UnixStream::connect(&address.path));
    connected.is_ok()
}

async fn accept(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    let mut conversations = JoinSet::new();
    let crowd = Arc::new(Notify::new());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                make_room(&mut conversations, &crowd).await;
                let (asked, crowd) = (asked.clone(), Arc::clone(&crowd));
                conversations.spawn(async move {
                    if may_ask(&stream) {
                        converse(stream, &asked, &crowd).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a caller on the control socket was lost");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// Whether the caller's account is ours or root's.
fn may_ask(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|caller| caller.uid() == own || caller.uid() == 0)
}

/// Reaches the service.
pub(super) async fn connect(state_dir: &Path) -> Result<UnixStream, ControlError> {
    let path = state_dir.join(SOCKET_NAME);
    let address = Address::of(state_dir).map_err(|error| refusal("open", &path, error))?;
    UnixStream::connect(&address.path).await.map_err(|source| refusal("open", &path, source))
}
