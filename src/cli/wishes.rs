//! What is asked of the running service from outside its socket: by signals, and on Windows by the
//! service manager. Stops have a channel of their own: nothing that is asked before holds them up.

use tokio::sync::mpsc;

use crate::daemon::Stop;
use crate::model::command::Command;

/// So many wait at most; a person asks seldom.
const WAITING_MAX: usize = 16;

/// What is asked, as it comes.
pub(super) struct Wishes {
    /// The wish to stop: the first one drains, a second one ends at once.
    pub(super) stop: mpsc::Receiver<Stop>,
    /// What else is to be done.
    pub(super) commands: mpsc::Receiver<Command>,
    /// What is being done: it outlives the loop that was to do it.
    pub(super) under_way: Option<Command>,
}

impl Wishes {
    /// Nothing but a stop is asked.
    pub(super) fn to_stop(stop: mpsc::Receiver<Stop>) -> Self {
        let (_, commands) = mpsc::channel(1);
        Self { stop, commands, under_way: None }
    }

    /// What signals ask.
    pub(super) fn by_signal() -> Self {
        let (asked, commands) = mpsc::channel(WAITING_MAX);
        tokio::spawn(heed_hangups(asked));
        Self { stop: stop_by_signal(), commands, under_way: None }
    }

    /// What the service manager asks, and who hears it.
    #[cfg(windows)]
    pub(super) fn by_manager() -> (Self, impl Fn(crate::service::Wish) + Send + Sync + 'static) {
        use crate::service::Wish;
        let (stop, stop_in) = mpsc::channel(WAITING_MAX);
        let (asked, commands) = mpsc::channel(WAITING_MAX);
        let heed = move |wish| {
            let is_heard = match wish {
                Wish::Stop => stop.try_send(Stop::Drain).is_ok(),
                Wish::Pause => asked.try_send(Command::PauseAll).is_ok(),
                Wish::Continue => asked.try_send(Command::ResumeAll).is_ok(),
                Wish::Reload => asked.try_send(Command::Reload).is_ok(),
            };
            if !is_heard {
                tracing::warn!(
                    ?wish,
                    "the service manager asks too much at once; this is not done"
                );
            }
        };
        (Self { stop: stop_in, commands, under_way: None }, heed)
    }
}

/// The wish to stop, by signal.
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

/// Asks for a reload at each SIGHUP, for ever.
#[cfg(unix)]
async fn heed_hangups(asked: mpsc::Sender<Command>) {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::hangup()) {
        Ok(mut hangups) => {
            while hangups.recv().await.is_some() {
                if asked.send(Command::Reload).await.is_err() {
                    return;
                }
            }
        }
        Err(error) => tracing::error!(%error, "a hangup cannot be heard and would end patchdrop"),
    }
}

/// Windows sends none.
#[cfg(not(unix))]
async fn heed_hangups(asked: mpsc::Sender<Command>) {
    asked.closed().await;
}

/// The signals that ask for a stop, heard without a gap: one that comes while another is being
/// acted on counts.
#[cfg(unix)]
struct Signals(Vec<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Signals {
    fn hear() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let heard =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()].map(signal);
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

/// What asks for a stop: Ctrl-C and Ctrl-Break, the closing of the window, the end of the system.
/// After the last two Windows leaves a few seconds.
#[cfg(windows)]
struct Signals {
    interrupts: Option<tokio::signal::windows::CtrlC>,
    breaks: Option<tokio::signal::windows::CtrlBreak>,
    closings: Option<tokio::signal::windows::CtrlClose>,
    shutdowns: Option<tokio::signal::windows::CtrlShutdown>,
}

#[cfg(windows)]
impl Signals {
    fn hear() -> Self {
        use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
        fn heard<T>(signal: std::io::Result<T>) -> Option<T> {
            if let Err(error) = &signal {
                tracing::error!(%error, "a signal that asks for a stop cannot be heard");
            }
            signal.ok()
        }
        Self {
            interrupts: heard(ctrl_c()),
            breaks: heard(ctrl_break()),
            closings: heard(ctrl_close()),
            shutdowns: heard(ctrl_shutdown()),
        }
    }

    async fn next(&mut self) {
        let Self { interrupts, breaks, closings, shutdowns } = self;
        tokio::select! {
            Some(()) = async { interrupts.as_mut()?.recv().await } => {}
            Some(()) = async { breaks.as_mut()?.recv().await } => {}
            Some(()) = async { closings.as_mut()?.recv().await } => {}
            Some(()) = async { shutdowns.as_mut()?.recv().await } => {}
            else => std::future::pending().await,
        }
    }
}
