//! The system's service manager: what it is told of us. Knows nothing of what the service does.
#![warn(missing_docs)]

use std::time::Duration;

#[cfg(target_os = "linux")]
mod linux;

/// What a service manager wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'n> {
    /// The start, or a reload, is done.
    Ready,
    /// A changed config is being taken over; [`News::Ready`] follows.
    Reloading,
    /// The end has begun.
    Stopping,
    /// How things stand, in one line.
    Status(&'n str),
    /// It still works.
    Alive,
}

/// Whether a service manager wants to be told anything.
#[must_use]
pub fn listens() -> bool {
    #[cfg(target_os = "linux")]
    return linux::listens();
    #[cfg(not(target_os = "linux"))]
    false
}

/// Tells the service manager. Without one nothing happens; one that does not listen is no reason to
/// stop working.
pub fn tell(news: &[News<'_>]) {
    #[cfg(target_os = "linux")]
    linux::tell(news);
    #[cfg(not(target_os = "linux"))]
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
