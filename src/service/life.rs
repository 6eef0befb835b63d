//! How a service stands with a manager that keeps a state of each service, as Windows' does: which
//! state follows which, and that one which lasts is told of again and again. Plain data: it calls
//! nothing, so the order of the states is tested on every system.

use super::{News, Wish};

/// What the manager knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has begun, and is not ready.
    Starting,
    /// It works.
    Running,
    /// It was asked to pause.
    Pausing,
    /// It runs and sends nothing.
    Paused,
    /// It was asked to go on.
    Resuming,
    /// It was asked to stop, or has begun to.
    Stopping,
    /// It has ended.
    Stopped,
}

impl State {
    /// Whether another state is to follow: until then the manager wants to hear of progress.
    pub(super) fn is_pending(self) -> bool {
        match self {
            Self::Running | Self::Paused | Self::Stopped => false,
            Self::Starting | Self::Pausing | Self::Resuming | Self::Stopping => true,
        }
    }

    /// Whether the manager may ask for anything now. It must not while a service starts or stops.
    pub(super) fn heeds(self) -> bool {
        match self {
            Self::Starting | Self::Stopping | Self::Stopped => false,
            Self::Running | Self::Pausing | Self::Paused | Self::Resuming => true,
        }
    }
}

/// Where it stands, and how far it has come on the way to the next state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// The state.
    pub(super) state: State,
    /// Grows with all news of a state that is pending; 0 in those that are not.
    pub(super) checkpoint: u32,
    /// Whether all sending is paused, as far as is known.
    is_paused: bool,
}

impl Life {
    /// At the start.
    pub(super) const fn new() -> Self {
        Self { state: State::Starting, checkpoint: 1, is_paused: false }
    }

    /// Takes in what there is to tell. Whether the manager has to hear of it.
    pub(super) fn tell(&mut self, news: &[News<'_>]) -> bool {
        let before = *self;
        for one in news {
            self.take(one);
        }
        if self.state == before.state && self.state.is_pending() && !news.is_empty() {
            self.checkpoint = self.checkpoint.saturating_add(1);
        }
        self.is_news_after(before)
    }

    fn take(&mut self, news: &News<'_>) {
        match (news, self.state) {
            (News::Stopping, _) => self.enter(State::Stopping),
            // What was asked for has been done, or was refused: then it stands as before.
            (News::Ready | News::Waiting(_), State::Starting)
            | (News::Ready, State::Pausing | State::Resuming) => self.settle(),
            (News::Paused(is_paused), state) => {
                self.is_paused = *is_paused;
                let is_there = match state {
                    State::Running | State::Paused => true,
                    State::Pausing => *is_paused,
                    State::Resuming => !*is_paused,
                    State::Starting | State::Stopping | State::Stopped => false,
                };
                if is_there {
                    self.settle();
                }
            }
            (
                News::Ready | News::Waiting(_) | News::Reloading | News::Status(_) | News::Alive,
                _,
            ) => {}
        }
    }

    /// Takes in what the manager asks. Whether it has to hear of a new state.
    pub(super) fn hear(&mut self, wish: Wish) -> bool {
        let before = *self;
        match (wish, self.state) {
            (Wish::Stop, _) => self.enter(State::Stopping),
            (Wish::Pause, State::Running | State::Resuming) => self.enter(State::Pausing),
            (Wish::Continue, State::Paused | State::Pausing) => self.enter(State::Resuming),
            (Wish::Pause | Wish::Continue | Wish::Reload, _) => {}
        }
        self.is_news_after(before)
    }

    /// What the manager does not see does not count.
    fn is_news_after(self, before: Self) -> bool {
        (self.state, self.checkpoint) != (before.state, before.checkpoint)
    }

    /// It ends now: nothing follows.
    pub(super) fn end(&mut self) {
        (self.state, self.checkpoint) = (State::Stopped, 0);
    }

    fn settle(&mut self) {
        self.enter(if self.is_paused { State::Paused } else { State::Running });
    }

    /// From a stop no state leads back.
    fn enter(&mut self, state: State) {
        if self.state != state && !matches!(self.state, State::Stopping | State::Stopped) {
            self.state = state;
            self.checkpoint = u32::from(state.is_pending());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told or asked in turn, and each state that the manager hears of with its checkpoint.
    fn check(events: &[Result<News<'_>, Wish>], heard: &[(State, u32)]) {
        let mut life = Life::new();
        let mut told = Vec::new();
        for event in events {
            let is_new = match event {
                Ok(news) => life.tell(&[*news]),
                Err(wish) => life.hear(*wish),
            };
            if is_new {
                told.push((life.state, life.checkpoint));
            }
        }
        assert_eq!(told, heard, "{events:?}");
    }

    #[test]
    fn a_start_is_pending_until_it_is_ready_and_tells_how_far_it_is() {
        check(
            &[Ok(News::Status("reading")), Ok(News::Alive), Ok(News::Ready), Ok(News::Alive)],
            &[(State::Starting, 2), (State::Starting, 3), (State::Running, 0)],
        );
    }

    #[test]
    fn a_start_that_waits_for_something_outside_runs_so_that_it_can_be_stopped() {
        check(
            &[Ok(News::Waiting("no room")), Ok(News::Ready), Err(Wish::Stop)],
            &[(State::Running, 0), (State::Stopping, 1)],
        );
    }

    #[test]
    fn a_start_of_what_was_paused_ends_in_paused() {
        let mut life = Life::new();
        assert!(life.tell(&[News::Paused(true), News::Ready]));
        assert_eq!((life.state, life.checkpoint), (State::Paused, 0));
    }

    #[test]
    fn a_pause_and_its_end_are_pending_until_they_are_on_record() {
        check(
            &[
                Ok(News::Ready),
                Err(Wish::Pause),
                // What a regular look has found before the pause was on record.
                Ok(News::Paused(false)),
                Ok(News::Paused(true)),
                Err(Wish::Continue),
                Ok(News::Paused(true)),
                Ok(News::Paused(false)),
            ],
            &[
                (State::Running, 0),
                (State::Pausing, 1),
                (State::Pausing, 2),
                (State::Paused, 0),
                (State::Resuming, 1),
                (State::Resuming, 2),
                (State::Running, 0),
            ],
        );
    }

    #[test]
    fn a_pause_that_was_refused_leaves_it_running() {
        check(
            &[Ok(News::Ready), Err(Wish::Pause), Ok(News::Ready)],
            &[(State::Running, 0), (State::Pausing, 1), (State::Running, 0)],
        );
    }

    #[test]
    fn a_pause_by_a_command_is_seen_by_the_manager_too() {
        check(
            &[
                Ok(News::Ready),
                Ok(News::Paused(true)),
                Ok(News::Paused(true)),
                Ok(News::Paused(false)),
            ],
            &[(State::Running, 0), (State::Paused, 0), (State::Running, 0)],
        );
    }

    #[test]
    fn a_reload_changes_no_state() {
        check(
            &[Ok(News::Ready), Err(Wish::Reload), Ok(News::Reloading), Ok(News::Ready)],
            &[(State::Running, 0)],
        );
    }

    #[test]
    fn from_a_stop_nothing_leads_back_and_its_checkpoint_grows() {
        check(
            &[
                Ok(News::Ready),
                Err(Wish::Stop),
                Ok(News::Stopping),
                Ok(News::Ready),
                Ok(News::Paused(true)),
                Err(Wish::Pause),
                Ok(News::Status("2 on their way")),
            ],
            &[
                (State::Running, 0),
                (State::Stopping, 1),
                (State::Stopping, 2),
                (State::Stopping, 3),
                (State::Stopping, 4),
                (State::Stopping, 5),
            ],
        );
    }

    #[test]
    fn after_its_end_nothing_is_told() {
        let mut life = Life::new();
        life.end();
        assert_eq!((life.state, life.checkpoint), (State::Stopped, 0));
        assert!(!life.tell(&[News::Stopping, News::Ready, News::Paused(true), News::Alive]));
        assert!(!life.hear(Wish::Stop) && !life.hear(Wish::Pause));
    }

    #[test]
    fn nothing_may_be_asked_while_it_starts_or_stops() {
        for (state, heeds) in [
            (State::Starting, false),
            (State::Running, true),
            (State::Pausing, true),
            (State::Paused, true),
            (State::Resuming, true),
            (State::Stopping, false),
            (State::Stopped, false),
        ] {
            assert_eq!(state.heeds(), heeds, "{state:?}");
        }
    }
}
