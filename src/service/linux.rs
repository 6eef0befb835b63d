//! systemd, by its notify protocol: `NOTIFY_SOCKET` says where it listens.

use sd_notify::NotifyState;

use super::News;

/// A start that waits says so again within this long.
const WAITS_FOR_USEC: u32 = 60_000_000;

#[expect(clippy::disallowed_methods, reason = "systemd says in the environment where it listens")]
pub(super) fn listens() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

pub(super) fn tell(news: &[News<'_>]) {
    let mut states = Vec::with_capacity(news.len() + 1);
    for one in news {
        match one {
            News::Ready => states.push(NotifyState::Ready),
            News::Waiting(text) => {
                states.push(NotifyState::Status(text));
                // Nor is it killed for not being ready.
                states.push(NotifyState::ExtendTimeoutUsec(WAITS_FOR_USEC));
            }
            // The status says so.
            News::Paused(_) => {}
            News::Reloading => {
                states.push(NotifyState::Reloading);
                // Without it `Type=notify-reload` takes the message for an old one.
                states.extend(NotifyState::monotonic_usec_now().ok());
            }
            News::Stopping => states.push(NotifyState::Stopping),
            News::Status(text) => states.push(NotifyState::Status(text)),
            News::Alive => states.push(NotifyState::Watchdog),
        }
    }
    if let Err(error) = sd_notify::notify(&states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
