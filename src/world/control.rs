//! How a command reaches the running service: a socket in `state_dir`, on Windows a named pipe.
//!
//! One JSON line goes each way ([`Command`] there, [`CommandAnswer`] back). Who may ask is the
//! system's business, in a file each below. What a command means is decided by whoever receives it.
#![expect(clippy::disallowed_methods, reason = "this is the door to the control socket")]

#[cfg(windows)]
mod pipe;
#[cfg(unix)]
mod unix;

#[cfg(windows)]
use pipe as system;
#[cfg(unix)]
use unix as system;

pub use system::{ControlServer, SOCKET_NAME, is_answered};

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::model::command::{Command, CommandAnswer};

/// Callers served at once; one more waits until one is done.
const CONNECTIONS_MAX: usize = 16;
/// Commands that wait for the loop.
const QUEUE_MAX: usize = 16;
/// A caller that takes longer to say what it wants is cut off.
const REQUEST_FOR: Duration = Duration::from_secs(5);
/// The same while others wait for its place, so that mute ones hold them up for this long only.
const REQUEST_FOR_IN_A_CROWD: Duration = Duration::from_millis(250);
/// The longest the loop may take; a `resend` of 50,000 files is many commits.
const ANSWER_FOR: Duration = Duration::from_mins(5);
/// How long who asks how things stand waits: nothing is changed by that, a loop that is alive
/// answers between two files, and monitoring gives up on a check after ten seconds or later.
const STATUS_FOR: Duration = Duration::from_secs(8);
/// A caller that does not read its answer.
const WRITE_FOR: Duration = Duration::from_secs(10);
/// After a failed accept (no file handles left).
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Longest answer that a caller reads: 50,000 files of one long sentence each.
const ANSWER_MAX: usize = 64 << 20;

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
    /// It was asked how things stand and said nothing: it hangs.
    #[error("the service does not answer within {} s", STATUS_FOR.as_secs())]
    Hangs {
        /// The socket.
        path: PathBuf,
    },
    /// It was asked how things stand and ended, or was ended, before it said so.
    #[error("the service has ended before it answered")]
    Ended {
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

/// One caller's command, and its answer. Each notice in `crowd` is for the caller that has been
/// mute for longest: another one wants its place.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    asked: &mpsc::Sender<Asked>,
    crowd: &Notify,
) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let answer = match hear(read_line(&mut reader, REQUEST_MAX), crowd).await {
        Err(why) => refused(why),
        Ok(Err(Unreadable::TooLong)) => {
            refused(format!("the command is longer than {REQUEST_MAX} bytes"))
        }
        Ok(Err(Unreadable::Io(_))) => return,
        Ok(Ok(line)) if line.is_empty() => return,
        Ok(Ok(line)) => match serde_json::from_slice(&line) {
            Ok(command) => ask_loop(command, asked).await,
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

/// Waits until one more may be served. Who is answered is not disturbed.
async fn make_room(conversations: &mut JoinSet<()>, crowd: &Notify) {
    while conversations.len() >= CONNECTIONS_MAX {
        crowd.notify_one();
        conversations.join_next().await;
    }
}

/// What a caller says, as long as it may take for that.
async fn hear<L>(line: impl Future<Output = L>, crowd: &Notify) -> Result<L, String> {
    let mut line = pin!(line);
    if let Ok(heard) = timeout(REQUEST_FOR_IN_A_CROWD, &mut line).await {
        return Ok(heard);
    }
    let waiting = timeout(REQUEST_FOR.saturating_sub(REQUEST_FOR_IN_A_CROWD), async {
        tokio::select! {
            biased;
            heard = &mut line => Ok(heard),
            () = crowd.notified() => Err("no command came, and others wait".to_owned()),
        }
    });
    let too_late = |_| Err(format!("no command came within {} s", REQUEST_FOR.as_secs()));
    waiting.await.unwrap_or_else(too_late)
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
    let stream = system::connect(state_dir).await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut line = serde_json::to_vec(command)
        .map_err(|source| refusal("write to", &path, io::Error::other(source)))?;
    line.push(b'\n');
    match writer.write_all(&line).await {
        // The service may have answered before it had read all: that answer says why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(refusal("write to", &path, error)),
        Ok(()) => {}
    }
    let is_question = *command == Command::Status;
    let patience = if is_question { STATUS_FOR } else { REQUEST_FOR + ANSWER_FOR + WRITE_FOR };
    match timeout(patience, read_line(&mut reader, ANSWER_MAX)).await {
        Ok(Ok(line)) if !line.is_empty() => {
            serde_json::from_slice(&line).map_err(|source| ControlError::Garbled { source })
        }
        Ok(Err(Unreadable::Io(error))) if !is_hung_up(&error) => {
            Err(refusal("read from", &path, error))
        }
        Err(_) if is_question => Err(ControlError::Hangs { path }),
        Ok(_) if is_question => Err(ControlError::Ended { path }),
        Ok(_) | Err(_) => Err(ControlError::NoAnswer { path }),
    }
}

fn is_hung_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
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

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use std::os::unix::fs::MetadataExt;

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
        let mut stream = system::connect(state_dir).await.unwrap();
        stream.write_all(bytes).await.ok();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.ok();
        answer
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

        #[cfg(unix)]
        drop(std::os::unix::net::UnixListener::bind(folder.path().join(SOCKET_NAME)).unwrap());
        #[cfg(windows)]
        std::fs::write(folder.path().join(SOCKET_NAME), r"\\.\pipe\patchdrop-dead").unwrap();
        let asked = ask(folder.path(), &Command::Status).await;
        assert!(matches!(asked, Err(ControlError::NoService { .. })), "{asked:?}");
    }

    #[cfg(unix)]
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

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn who_asks_how_a_hung_service_stands_is_not_kept_for_minutes() {
        let folder = tempfile::tempdir().unwrap();
        let _hung =
            std::os::unix::net::UnixListener::bind(folder.path().join(SOCKET_NAME)).unwrap();
        let check = async |command: Command, seconds: std::ops::Range<u64>| {
            let begun = tokio::time::Instant::now();
            let error = ask(folder.path(), &command).await.unwrap_err();
            let hangs = matches!(error, ControlError::Hangs { .. });
            assert_eq!(hangs, command == Command::Status, "{error}");
            let waited = begun.elapsed().as_secs();
            assert!(seconds.contains(&waited), "{waited} s");
        };
        check(Command::Status, 8..9).await;
        check(Command::Sweep, 300..400).await;
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_service_that_is_killed_while_it_is_asked_has_ended_and_done_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(folder.path().join(SOCKET_NAME)).unwrap();
        let killed = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
        let error = ask(folder.path(), &Command::Status).await.unwrap_err();
        killed.await.unwrap();
        assert!(matches!(error, ControlError::Ended { .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn mute_callers_are_cut_off_and_do_not_hold_up_the_others_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let _service = serve(folder.path());
        let mut mute = Vec::new();
        for _ in 0..40 {
            let mut stream = system::connect(folder.path()).await.unwrap();
            stream.write_all(b"{\"command\":").await.unwrap();
            mute.push(stream);
        }
        let begun = tokio::time::Instant::now();
        assert_eq!(ask(folder.path(), &Command::Sweep).await.unwrap(), echo(&Command::Sweep));
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(1), "{waited:?}");
        for (mute, why) in [(mute.remove(0), "and others wait"), (mute.remove(38), "within 5 s")] {
            let mut answer = String::new();
            BufReader::new(mute).read_line(&mut answer).await.unwrap();
            assert!(answer.starts_with("{\"refused\":\"no command came"), "{answer}");
            assert!(answer.contains(why), "{answer}");
        }
    }

    #[tokio::test]
    async fn fifty_callers_at_once_are_all_answered() {
        let folder = tempfile::tempdir().unwrap();
        let _service = serve(folder.path());
        let mut callers = JoinSet::new();
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
