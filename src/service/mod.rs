//! The system's service manager: what it is told of us, and how patchdrop becomes one of its
//! services. Knows nothing of what the service does.
#![warn(missing_docs)]

use std::time::Duration;

#[cfg(not(any(target_os = "linux", windows)))]
mod absent;
mod instance;
#[cfg(any(windows, test))]
mod life;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod systemd;
#[cfg(windows)]
mod windows;

#[cfg(not(any(target_os = "linux", windows)))]
use absent as system;
#[cfg(target_os = "linux")]
use systemd as system;
#[cfg(windows)]
use windows::install as system;

pub use instance::{Installation, Instance, Password, Report, Runs, ServiceError, Standing, Step};

/// Exit codes after which a restart would change nothing: the command line or the config is at
/// fault.
pub const NEEDS_A_PERSON: [u8; 2] = [2, 78];

/// What a service manager may ask of a service that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To end, once what is in flight has ended.
    Stop,
    /// To begin nothing more.
    Pause,
    /// To go on after a pause.
    Continue,
    /// To read its config again.
    Reload,
}

/// What a service manager wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'n> {
    /// The start, or a reload, is done.
    Ready,
    /// The start waits for something outside, maybe for long: why, in one line.
    Waiting(&'n str),
    /// Whether all work is paused.
    Paused(bool),
    /// A changed config is being taken over; [`News::Ready`] follows.
    Reloading,
    /// The end has begun.
    Stopping,
    /// How things stand, in one line.
    Status(&'n str),
    /// It still works.
    Alive,
}

/// What the service manager of Windows calls an instance; the Event Log as well.
#[cfg(windows)]
#[must_use]
pub fn windows_name(instance: &Instance) -> String {
    windows::install::service_name(instance)
}

/// The instance that a config is for by its name, if it can be one's.
#[cfg(windows)]
#[must_use]
pub fn windows_instance(config: &std::path::Path) -> Option<Instance> {
    let stem = config.file_stem()?.to_str()?;
    let is_toml = config.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("toml"));
    let name = Some(stem).filter(|stem| !stem.eq_ignore_ascii_case("config"));
    is_toml.then(|| Instance::of(name).ok())?
}

/// The account that an installed instance runs as, as the service manager of Windows names it.
#[cfg(windows)]
#[must_use]
pub fn windows_account(instance: &Instance) -> Option<String> {
    windows::install::installed_account(instance)
}

/// Whether Windows lets an account, as a [`Report`] names it, be a service's only if it has the
/// right to log on as one.
#[cfg(windows)]
#[must_use]
pub fn must_log_on(account: &str) -> bool {
    windows::install::must_log_on(account)
}

/// Lets the service manager of Windows, which has started this process, call `work` on a thread of
/// its own, as the service of that name. `heed` hears its wishes and must not wait. `work` returns
/// an exit code: after one of [`NEEDS_A_PERSON`] the manager is told so, after any other than 0
/// that it was not asked for the process ends with it, which is what the manager's recovery actions
/// are for. Blocks until the service has stopped.
///
/// # Errors
/// This process was not started by the service manager.
#[cfg(windows)]
pub fn host(
    name: &str,
    heed: Box<dyn Fn(Wish) + Send + Sync>,
    work: Box<dyn FnOnce() -> u8 + Send>,
) -> std::io::Result<()> {
    windows::host(name, heed, work)
}

/// Whether a service manager wants to be told anything.
#[must_use]
pub fn listens() -> bool {
    #[cfg(target_os = "linux")]
    return linux::listens();
    #[cfg(windows)]
    return windows::listens();
    #[cfg(not(any(target_os = "linux", windows)))]
    false
}

/// Tells the service manager. Without one nothing happens; one that does not listen is no reason to
/// stop working.
pub fn tell(news: &[News<'_>]) {
    #[cfg(target_os = "linux")]
    linux::tell(news);
    #[cfg(windows)]
    windows::tell(news);
    #[cfg(not(any(target_os = "linux", windows)))]
    let _ = news;
}

/// How soon at the latest the service manager wants to hear that it still works, if it does.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    return sd_notify::watchdog_enabled();
    #[cfg(not(target_os = "linux"))]
    None
}

/// What an installation would write and do, as text. Changes nothing, and needs no rights.
///
/// # Errors
/// As for [`install`], but for the rights.
pub fn draft(installation: &Installation) -> Result<String, ServiceError> {
    system::draft(installation)
}

/// Makes it a service that starts with the system; it is not started. Again, it brings what is
/// there up to date.
///
/// # Errors
/// Without the rights of an administrator, with an account or folders that cannot be, without a
/// service manager. What was written before stays.
pub fn install(installation: &Installation) -> Result<Report, ServiceError> {
    system::install(installation)
}

/// Stops a service and takes it out of the system. Its config, state and drop folders stay.
///
/// # Errors
/// Without the rights, and where there is no such service.
pub fn uninstall(instance: &Instance) -> Result<Report, ServiceError> {
    system::uninstall(instance)
}

/// Starts a service and waits until it works.
///
/// # Errors
/// Without the rights, where there is no such service, and if it ends instead.
pub fn start(instance: &Instance) -> Result<Report, ServiceError> {
    system::start(instance)
}

/// Stops a service and waits until it has ended.
///
/// # Errors
/// Without the rights, and where there is no such service.
pub fn stop(instance: &Instance) -> Result<Report, ServiceError> {
    system::stop(instance)
}

/// How a service stands.
///
/// # Errors
/// Without a service manager, or one that does not answer.
pub fn status(instance: &Instance) -> Result<Standing, ServiceError> {
    system::status(instance)
}
