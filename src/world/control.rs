//! The control socket: how a command reaches the running service.
//!
//! `state_dir/control.sock`, one JSON line each way ([`Command`] there, [`CommandAnswer`] back). It
//! is open to the service's own account and to root alone: by its mode, and because every caller's
//! account is asked of the system. What a command means is decided by whoever receives it.

use std::io;
use std::path::PathBuf;

use tokio::sync::oneshot;

use crate::model::command::{Command, CommandAnswer};

#[cfg(not(unix))]
pub use absent::{ControlServer, ask, is_answered};
#[cfg(unix)]
pub use unix::{ControlServer, ask, is_answered};

/// The name of the socket in `state_dir`.
pub const SOCKET_NAME: &str = "control.sock";

/// Longest request in bytes. The ids of 50,000 files fit; whoever has more asks in several lines.
pub const REQUEST_MAX: usize = 1 << 20;

/// A command, and where its answer goes. Dropping the sender tells the asker that the service is
/// stopping.
pub type Asked = (Command, oneshot::Sender<CommandAnswer>);

/// Why a command did not reach the service, or its answer did not come back.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nothing listens there: no service runs.
    #[error("no service listens at {}", .path.display())]
    NoService {
        /// The socket.
        path: PathBuf,
    },
    /// This account may not talk to the service.
    #[error("no permission for {}", .path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The command was handed over and no answer came. It may have been carried out.
    #[error("the service took the command and did not answer; it may have carried it out")]
    NoAnswer {
        /// The socket.
        path: PathBuf,
    },
    /// The answer is none that this patchdrop knows: another version's, most likely.
    #[error("the answer of the service is not understood")]
    Garbled {
        /// Where it stops making sense.
        #[source]
        source: serde_json::Error,
    },
    /// The name is taken by something that is no socket.
    #[error("{} is in the way and is no socket", .path.display())]
    InTheWay {
        /// The socket.
        path: PathBuf,
    },
    /// There is no such socket on this system yet.
    #[error("commands cannot reach a running service on this system yet")]
    Unsupported,
    /// Anything else.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// The verb: open, listen on, write to, read from.
        doing: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

#[cfg(not(unix))]
mod absent {
    use std::path::Path;

    use super::{Asked, Command, CommandAnswer, ControlError, SOCKET_NAME};

    /// Listens for commands.
    #[derive(Debug)]
    pub struct ControlServer(std::convert::Infallible);

    impl ControlServer {
        /// Listens.
        ///
        /// # Errors
        /// [`ControlError::Unsupported`].
        pub fn bind(_state_dir: &Path) -> Result<Self, ControlError> {
            Err(ControlError::Unsupported)
        }

        /// The next command.
        pub async fn next(&mut self) -> Option<Asked> {
            match self.0 {}
        }
    }

    /// Whether a service answers here.
    #[must_use]
    pub fn is_answered(_state_dir: &Path) -> bool {
        false
    }

    /// Asks the service.
    ///
    /// # Errors
    /// [`ControlError::NoService`]: whoever asks then finds out by the lock whether one runs.
    pub async fn ask(state_dir: &Path, _command: &Command) -> Result<CommandAnswer, ControlError> {
        Err(ControlError::NoService { path: state_dir.join(SOCKET_NAME) })
    }
}

#[cfg(unix)]
mod unix {
    #![expect(clippy::disallowed_methods, reason = "this is the door to the control socket")]

    use std::fs;
    use std::io;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use rustix::fd::{AsRawFd, OwnedFd};
    use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::{mpsc, oneshot};
    use tokio::task::{JoinHandle, JoinSet};
    use tokio::time::timeout;

    use super::{Asked, Command, CommandAnswer, ControlError, REQUEST_MAX, SOCKET_NAME};

    /// Callers served at once; more wait in the system's queue until one is done.
    const CONNECTIONS_MAX: usize = 16;
    /// Commands that wait for the loop.
    const QUEUE_MAX: usize = 16;
    /// A caller that takes longer to say what it wants is cut off, so that 16 mute ones hold up
    /// the others for this long only.
    const REQUEST_FOR: Duration = Duration::from_secs(5);
    /// The longest the loop may take; a `resend` of 50,000 files is many commits.
    const ANSWER_FOR: Duration = Duration::from_mins(5);
    /// A caller that does not read its answer.
    const WRITE_FOR: Duration = Duration::from_secs(10);
    /// After a failed accept (no file handles left).
    const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(200);
    /// Longest answer that a caller reads: 50,000 files of one long sentence each.
    const ANSWER_MAX: usize = 64 << 20;
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
        loop {
            while conversations.len() >= CONNECTIONS_MAX {
                conversations.join_next().await;
            }
            match listener.accept().await {
                Ok((stream, _)) => {
                    conversations.spawn(converse(stream, asked.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a caller on the control socket was lost");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    }

    async fn converse(stream: UnixStream, asked: mpsc::Sender<Asked>) {
        if !may_ask(&stream) {
            return;
        }
        let (mut reader, mut writer) = stream.into_split();
        let answer = match timeout(REQUEST_FOR, read_line(&mut reader, REQUEST_MAX)).await {
            Err(_) => refused(format!("no command came within {} s", REQUEST_FOR.as_secs())),
            Ok(Err(Unreadable::TooLong)) => {
                refused(format!("the command is longer than {REQUEST_MAX} bytes"))
            }
            Ok(Err(Unreadable::Io(_))) => return,
            Ok(Ok(line)) if line.is_empty() => return,
            Ok(Ok(line)) => match serde_json::from_slice(&line) {
                Ok(command) => ask_loop(command, &asked).await,
                Err(error) => refused(format!(
                    "this is no command that patchdrop {} knows: {error}",
                    env!("CARGO_PKG_VERSION")
                )),
            },
        };
        let Ok(mut line) = serde_json::to_vec(&answer) else { return };
        line.push(b'\n');
        // A caller that has gone is no concern of the service: what it asked for is done.
        timeout(WRITE_FOR, writer.write_all(&line)).await.ok();
    }

    /// Whether the caller's account is ours or root's.
    fn may_ask(stream: &UnixStream) -> bool {
        let own = rustix::process::geteuid().as_raw();
        stream.peer_cred().is_ok_and(|caller| caller.uid() == own || caller.uid() == 0)
    }

    async fn ask_loop(command: Command, asked: &mpsc::Sender<Asked>) -> CommandAnswer {
        let (answer, answered) = oneshot::channel();
        let conversation = async {
            asked.send((command, answer)).await.ok()?;
            answered.await.ok()
        };
        match timeout(ANSWER_FOR, conversation).await {
            Ok(Some(answer)) => answer,
            Ok(None) => refused("the service is stopping".to_owned()),
            Err(_) => refused(format!(
                "the service has not answered within {} s; it may still carry this out",
                ANSWER_FOR.as_secs()
            )),
        }
    }

    fn refused(text: String) -> CommandAnswer {
        CommandAnswer::Refused(text)
    }

    enum Unreadable {
        TooLong,
        Io(io::Error),
    }

    /// One line without its end; empty if there is none.
    async fn read_line(
        reader: &mut (impl AsyncRead + Unpin),
        bytes_max: usize,
    ) -> Result<Vec<u8>, Unreadable> {
        let mut line = Vec::new();
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        BufReader::new(reader)
            .take(limit)
            .read_until(b'\n', &mut line)
            .await
            .map_err(Unreadable::Io)?;
        let ended = line.pop_if(|last| *last == b'\n').is_some();
        if !ended && line.len() > bytes_max {
            return Err(Unreadable::TooLong);
        }
        Ok(line)
    }

    /// Asks the running service and waits for its answer.
    ///
    /// # Errors
    /// [`ControlError::NoService`] where nothing listens: then the caller may take the lock and do
    /// it itself. After every other error the service may run.
    pub async fn ask(state_dir: &Path, command: &Command) -> Result<CommandAnswer, ControlError> {
        let path = state_dir.join(SOCKET_NAME);
        let address = match Address::of(state_dir) {
            Ok(address) => address,
            Err(error) => return Err(refusal("open", &path, error)),
        };
        let stream = UnixStream::connect(&address.path)
            .await
            .map_err(|source| refusal("open", &path, source))?;
        let (mut reader, mut writer) = stream.into_split();
        let mut line = serde_json::to_vec(command)
            .map_err(|source| refusal("write to", &path, io::Error::other(source)))?;
        line.push(b'\n');
        match writer.write_all(&line).await {
            // The service may have answered before it had read all: that answer says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(refusal("write to", &path, error)),
            Ok(()) => {}
        }
        let patience = REQUEST_FOR + ANSWER_FOR + WRITE_FOR;
        match timeout(patience, read_line(&mut reader, ANSWER_MAX)).await {
            Ok(Ok(line)) if !line.is_empty() => {
                serde_json::from_slice(&line).map_err(|source| ControlError::Garbled { source })
            }
            Ok(Err(Unreadable::Io(error))) if error.kind() != io::ErrorKind::ConnectionReset => {
                Err(refusal("read from", &path, error))
            }
            _ => Err(ControlError::NoAnswer { path }),
        }
    }

    fn refusal(doing: &'static str, path: &Path, source: io::Error) -> ControlError {
        let path = path.to_owned();
        if doing == "open"
            && matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        {
            return ControlError::NoService { path };
        }
        if source.kind() == io::ErrorKind::PermissionDenied {
            return ControlError::Denied { path, source };
        }
        ControlError::Io { doing, path, source }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::model::command::Done;
    use crate::model::time::Wall;

    /// A loop that says what it was asked.
    fn serve(state_dir: &Path) -> tokio::task::JoinHandle<()> {
        let mut server = ControlServer::bind(state_dir).unwrap();
        tokio::spawn(async move {
            while let Some((command, answer)) = server.next().await {
                answer.send(echo(&command)).ok();
            }
        })
    }

    fn echo(command: &Command) -> CommandAnswer {
        CommandAnswer::Done(vec![Done {
            subject: "x".to_owned(),
            ok: true,
            text: format!("{command:?}"),
            at: Wall(1_000),
        }])
    }

    fn pause(route: &str) -> Command {
        Command::Pause { route: route.to_owned() }
    }

    async fn say(state_dir: &Path, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(state_dir.join(SOCKET_NAME)).await.unwrap();
        stream.write_all(bytes).await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn every_command_goes_there_and_its_answer_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let _service = serve(folder.path());
        let commands = [
            Command::Status,
            Command::Sweep,
            pause("orders"),
            Command::Resume { route: "orders".to_owned() },
            Command::ReleaseRoute { route: "a\nb".to_owned(), held: true },
            Command::Release { ids: vec!["1kq8z7x2ab".to_owned()] },
            Command::Resend { ids: (0..50_000).map(|n| format!("{n:010}")).collect() },
            Command::Mark { id: "1".to_owned(), sent: true, note: "\"said\" so".to_owned() },
        ];
        for command in commands {
            assert_eq!(ask(folder.path(), &command).await.unwrap(), echo(&command));
        }
    }

    #[tokio::test]
    async fn where_nothing_listens_the_caller_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let asked = ask(folder.path(), &Command::Status).await;
        assert!(matches!(asked, Err(ControlError::NoService { .. })), "{asked:?}");

        drop(std::os::unix::net::UnixListener::bind(folder.path().join(SOCKET_NAME)).unwrap());
        let asked = ask(folder.path(), &Command::Status).await;
        assert!(matches!(asked, Err(ControlError::NoService { .. })), "{asked:?}");
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_anything_else_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SOCKET_NAME);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let server = ControlServer::bind(folder.path()).unwrap();
        assert_eq!(path.symlink_metadata().unwrap().mode() & 0o777, 0o600);
        drop(server);
        assert!(path.symlink_metadata().is_err(), "a stopped service leaves no socket");

        std::fs::File::create_new(&path).unwrap();
        let bound = ControlServer::bind(folder.path());
        assert!(matches!(bound, Err(ControlError::InTheWay { .. })), "{bound:?}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_state_dir_with_a_long_path_works() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::DirBuilder::new().recursive(true).create(&deep).unwrap();
        let _service = serve(&deep);
        assert_eq!(ask(&deep, &Command::Sweep).await.unwrap(), echo(&Command::Sweep));
    }

    #[tokio::test]
    async fn garbage_is_refused_with_a_reason_and_harms_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let _service = serve(folder.path());
        for garbage in [
            &b"what is up?\n"[..],
            b"\xff\xfe\n",
            b"{\"command\":\"explode\"}\n",
            b"{\"command\":\"pause\"}\n",
            b"{\"command\":\"pause\",\"route\":\"a\",\"force\":true}\n",
            b"[[[[[[\n",
        ] {
            let answer = say(folder.path(), garbage).await;
            assert!(answer.starts_with("{\"refused\":\"this is no command"), "{answer}");
        }
        assert_eq!(ask(folder.path(), &Command::Sweep).await.unwrap(), echo(&Command::Sweep));
    }

    #[tokio::test]
    async fn a_line_beyond_the_limit_is_refused_before_it_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let _service = serve(folder.path());
        let command = pause(&"r".repeat(REQUEST_MAX));
        let answer = ask(folder.path(), &command).await.unwrap();
        assert_eq!(
            answer,
            CommandAnswer::Refused("the command is longer than 1048576 bytes".to_owned())
        );
        let most = pause(&"r".repeat(REQUEST_MAX - 30));
        assert_eq!(ask(folder.path(), &most).await.unwrap(), echo(&most));
    }

    #[tokio::test(start_paused = true)]
    async fn mute_callers_are_cut_off_and_do_not_hold_up_the_others_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let _service = serve(folder.path());
        let mut mute = Vec::new();
        for _ in 0..40 {
            let mut stream = UnixStream::connect(folder.path().join(SOCKET_NAME)).await.unwrap();
            stream.write_all(b"{\"command\":").await.unwrap();
            mute.push(stream);
        }
        assert_eq!(ask(folder.path(), &Command::Sweep).await.unwrap(), echo(&Command::Sweep));
        let mut answer = String::new();
        mute[0].read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "{\"refused\":\"no command came within 5 s\"}\n");
    }

    #[tokio::test]
    async fn fifty_callers_at_once_are_all_answered() {
        let folder = tempfile::tempdir().unwrap();
        let _service = serve(folder.path());
        let mut callers = tokio::task::JoinSet::new();
        for number in 0..50 {
            let state_dir = folder.path().to_owned();
            callers.spawn(async move {
                let command = pause(&number.to_string());
                ask(&state_dir, &command).await.unwrap() == echo(&command)
            });
        }
        assert_eq!(callers.join_all().await, vec![true; 50]);
    }

    #[tokio::test]
    async fn a_loop_that_drops_the_question_answers_that_it_is_stopping() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = ControlServer::bind(folder.path()).unwrap();
        let (answer, ()) = tokio::join!(ask(folder.path(), &Command::Sweep), async {
            drop(server.next().await);
        });
        assert_eq!(answer.unwrap(), CommandAnswer::Refused("the service is stopping".to_owned()));
    }
}
