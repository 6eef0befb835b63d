//! The loop's part in a reload: it begins nothing new until what is in flight has ended, and then
//! ends itself, so that another one can go on with the new config. An ordinary start follows
//! (promise P9), and nothing is dropped on the way: a reload never leaves a doubt.

use std::time::Duration;

use super::Daemon;
use crate::model::time::Tick;
use crate::world::World;

/// After a reload has waited in vain the old config goes on for this long before it waits again:
/// one long upload must not hold up all other routes.
const GO_ON_FOR: Duration = Duration::from_mins(5);

/// A reload that waits for what is in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reload {
    /// Until then nothing new is begun.
    still_until: Tick,
    /// From then on it waits once more.
    again_at: Tick,
    /// Whether it was said that it waits in vain.
    is_said: bool,
}

impl Reload {
    fn at(now: Tick, wait: Duration) -> Self {
        let still_until = now.plus(wait);
        Self { still_until, again_at: still_until.plus(GO_ON_FOR), is_said: false }
    }

    pub(super) fn next_at(self, now: Tick) -> Tick {
        if now < self.still_until { self.still_until } else { self.again_at }
    }
}

impl<W: World> Daemon<W> {
    pub(super) fn begin_reload(&mut self) {
        if self.stop_by.is_none() {
            self.reload = Some(Reload::at(self.now().tick, self.config.drain_for));
            tracing::info!(in_flight = self.busy, "reloading, finishing what is in flight");
        }
    }

    /// Whether anything new may be begun.
    pub(super) fn may_begin(&self, now: Tick) -> bool {
        self.stop_by.is_none() && self.reload.is_none_or(|reload| reload.still_until <= now)
    }

    /// Says so where a reload waits in vain, and waits again in time.
    pub(super) fn look_after_reload(&mut self, now: Tick) {
        let Some(reload) = &mut self.reload else { return };
        if reload.again_at <= now {
            *reload = Reload::at(now, self.config.drain_for);
            tracing::info!(in_flight = self.busy, "reloading, finishing what is in flight");
        } else if reload.still_until <= now && !reload.is_said {
            reload.is_said = true;
            tracing::warn!(
                in_flight = self.busy,
                "the changed config waits: what is in flight has not ended within drain_for; the old one goes on, and patchdrop tries again in 5 minutes"
            );
        }
    }
}
