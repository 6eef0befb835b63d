//! The program as a service: the service manager starts it, asks it to stop, to pause, to go on and
//! to read its config again, and is told how it stands.
//!
//! Its recovery actions are for a process that ends without having said that it stops. So a fault
//! that a restart may mend ends the process just so, and one that needs a person (see
//! [`NEEDS_A_PERSON`]) is a stop with a service-specific code: no restart follows it.

use std::ffi::OsString;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use windows_service::service::{
    ServiceControl, ServiceControlAccept, ServiceExitCode, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{
    ServiceControlHandlerResult, ServiceStatusHandle, register,
};
use windows_service::service_dispatcher;

use crate::service::life::{Life, State};
use crate::service::{NEEDS_A_PERSON, News, Wish};

/// Within this long the manager hears of a state that is pending again: three times as long as it
/// is told at the latest.
const HINT: Duration = Duration::from_secs(30);

/// The code of a panic.
const BUG: u8 = 1;

/// The one service of this process: the manager passes nothing along, so it is found here.
static HOSTED: OnceLock<Hosted> = OnceLock::new();

struct Hosted {
    name: String,
    heed: Box<dyn Fn(Wish) + Send + Sync>,
    work: Mutex<Option<Box<dyn FnOnce() -> u8 + Send>>>,
    handle: OnceLock<ServiceStatusHandle>,
    life: Mutex<Life>,
}

/// Lets the service manager, which has started this process, call `work`; `heed` hears its wishes.
/// Blocks until the service has stopped. Where `work` ends with a code after which a restart may
/// help, the process ends with it here.
///
/// # Errors
/// It was not started by the service manager.
pub(in crate::service) fn host(
    name: &str,
    heed: Box<dyn Fn(Wish) + Send + Sync>,
    work: Box<dyn FnOnce() -> u8 + Send>,
) -> io::Result<()> {
    let hosted = Hosted {
        name: name.to_owned(),
        heed,
        work: Mutex::new(Some(work)),
        handle: OnceLock::new(),
        life: Mutex::new(Life::new()),
    };
    if HOSTED.set(hosted).is_err() {
        return Err(io::Error::other("this process is a service already"));
    }
    service_dispatcher::start(name, service_main).map_err(|error| match error {
        windows_service::Error::Winapi(error) => error,
        other => io::Error::other(other),
    })
}

// Where the manager enters, by its address and on a thread of its own: a function that calls
// `serve`.
windows_service::define_windows_service!(service_main, serve);

fn serve(_arguments: Vec<OsString>) {
    let Some(hosted) = HOSTED.get() else { return };
    // A closure that captures nothing: whatever the crate frees after a stop, nothing is gone.
    let Ok(handle) = register(&hosted.name, hear) else { exit(i32::from(BUG)) };
    if hosted.handle.set(handle).is_err() {
        return;
    }
    hosted.report(&hosted.lock(), ServiceExitCode::NO_ERROR);
    let work = hosted.work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let code = work.map_or(BUG, |work| catch_unwind(AssertUnwindSafe(work)).unwrap_or(BUG));
    let mut life = hosted.lock();
    if code != 0 && life.state != State::Stopping && !NEEDS_A_PERSON.contains(&code) {
        exit(i32::from(code));
    }
    life.end();
    let exit_code = match code {
        0 => ServiceExitCode::NO_ERROR,
        code => ServiceExitCode::ServiceSpecific(u32::from(code)),
    };
    hosted.report(&life, exit_code);
}

/// What the manager asks. It waits for the answer, and so does everybody else who asks it anything:
/// here things are only noted.
fn hear(control: ServiceControl) -> ServiceControlHandlerResult {
    use ServiceControl as Asked;
    let Some(hosted) = HOSTED.get() else { return ServiceControlHandlerResult::NoError };
    let wish = if matches!(control, Asked::Stop | Asked::Shutdown | Asked::Preshutdown) {
        Wish::Stop
    } else if matches!(control, Asked::Pause) {
        Wish::Pause
    } else if matches!(control, Asked::Continue) {
        Wish::Continue
    } else if matches!(control, Asked::ParamChange) {
        Wish::Reload
    } else if matches!(control, Asked::Interrogate) {
        return ServiceControlHandlerResult::NoError;
    } else {
        return ServiceControlHandlerResult::NotImplemented;
    };
    // Before the answer: from then on the manager sends nothing more to one that stops.
    let mut life = hosted.lock();
    if life.hear(wish) {
        hosted.report(&life, ServiceExitCode::NO_ERROR);
    }
    drop(life);
    (hosted.heed)(wish);
    ServiceControlHandlerResult::NoError
}

/// Whether there is a manager to be told.
pub(in crate::service) fn listens() -> bool {
    HOSTED.get().is_some()
}

/// Tells it.
pub(in crate::service) fn tell(news: &[News<'_>]) {
    let Some(hosted) = HOSTED.get() else { return };
    let mut life = hosted.lock();
    if life.tell(news) {
        hosted.report(&life, ServiceExitCode::NO_ERROR);
    }
}

impl Hosted {
    fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the manager. It is told while the lock is held, so that it hears of states in their
    /// order.
    fn report(&self, life: &Life, exit_code: ServiceExitCode) {
        let Some(handle) = self.handle.get() else { return };
        let status = ServiceStatus {
            service_type: ServiceType::OWN_PROCESS,
            current_state: match life.state {
                State::Starting => ServiceState::StartPending,
                State::Running => ServiceState::Running,
                State::Pausing => ServiceState::PausePending,
                State::Paused => ServiceState::Paused,
                State::Resuming => ServiceState::ContinuePending,
                State::Stopping => ServiceState::StopPending,
                State::Stopped => ServiceState::Stopped,
            },
            controls_accepted: if life.state.heeds() {
                ServiceControlAccept::STOP
                    | ServiceControlAccept::PRESHUTDOWN
                    | ServiceControlAccept::SHUTDOWN
                    | ServiceControlAccept::PAUSE_CONTINUE
                    | ServiceControlAccept::PARAM_CHANGE
            } else {
                ServiceControlAccept::empty()
            },
            exit_code,
            checkpoint: life.checkpoint,
            wait_hint: if life.state.is_pending() { HINT } else { Duration::ZERO },
            process_id: None,
        };
        if let Err(error) = handle.set_service_status(status) {
            tracing::debug!(%error, "the service manager could not be told");
        }
    }
}
