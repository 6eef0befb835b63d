//! What an administrator must see, told to the system's own log besides: on Windows the Event Log.
//! Warnings, errors, and the few turns of the service's life ([`super::MILESTONE`]); no more than
//! some a minute, since that log is everybody's and bounded.

#[cfg(windows)]
pub(super) mod calls;

use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::FormattedFields;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::{Fields, MILESTONE, SharedBlotter, chain, current, one_line};
use crate::model::blot::Blotter;

/// Entries within one minute; what comes then is counted.
const A_MINUTE: u32 = 30;

/// Where entries go.
pub(super) trait Pages: Send + Sync + 'static {
    /// Writes one entry. One that cannot be written is lost.
    fn enter(&self, level: Level, text: &str);
}

/// The layer that tells.
pub(super) struct EventLog {
    pages: Box<dyn Pages>,
    blotter: SharedBlotter,
    bound: Mutex<Bound>,
}

impl EventLog {
    pub(super) fn new(pages: Box<dyn Pages>, blotter: SharedBlotter) -> Self {
        Self { pages, blotter, bound: Mutex::default() }
    }

    fn enter(&self, level: Level, text: &str) {
        let minute = jiff::Timestamp::now().as_second() / 60;
        let (left_out, may_enter) =
            self.bound.lock().unwrap_or_else(PoisonError::into_inner).admit(minute);
        if left_out > 0 {
            let text = format!("{left_out} entries were left out here; they are in the log file");
            self.pages.enter(Level::WARN, &text);
        }
        if may_enter {
            self.pages.enter(level, text);
        }
    }
}

impl<S> Layer<S> for EventLog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN && event.metadata().target() != MILESTONE {
            return;
        }
        let blotter = current(&self.blotter);
        let mut entry = Entry { blotter: &blotter, message: String::new(), fields: String::new() };
        event.record(&mut entry);
        for span in context.event_scope(event).into_iter().flatten() {
            let extensions = span.extensions();
            let text = extensions.get::<FormattedFields<Fields>>().map(|it| it.fields.clone());
            let json = extensions.get::<FormattedFields<JsonFields>>().map(|it| it.fields.clone());
            if let Some(fields) = text.or(json) {
                entry.fields.push_str("\r\n");
                entry.fields.push_str(fields.trim());
            }
        }
        let text = format!("{}{}", entry.message, entry.fields);
        self.enter(level, &blotter.blot(&text));
    }
}

/// An event as text: what happened, then each field on a line.
struct Entry<'b> {
    blotter: &'b Blotter,
    message: String,
    fields: String,
}

impl Entry<'_> {
    fn put(&mut self, field: &Field, value: &str) {
        // Before anything in it is escaped: that would change the secret's look.
        let value = self.blotter.blot(value);
        let value = one_line(&value);
        match field.name() {
            "message" => self.message.push_str(&value),
            name if name.starts_with("log.") => {}
            name => write!(self.fields, "\r\n{name}: {value}").unwrap_or_default(),
        }
    }
}

impl Visit for Entry<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, &chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

/// How many entries this minute has.
#[derive(Default)]
struct Bound {
    minute: i64,
    entered: u32,
    left_out: u64,
}

impl Bound {
    /// How many were left out in a minute that is over, and whether one more may be entered.
    fn admit(&mut self, minute: i64) -> (u64, bool) {
        let left_out = if minute == self.minute { 0 } else { self.left_out };
        if minute != self.minute {
            *self = Self { minute, ..Self::default() };
        }
        if self.entered < A_MINUTE {
            self.entered += 1;
            return (left_out, true);
        }
        self.left_out += 1;
        (left_out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many_entries_and_the_next_one_says_what_was_left_out() {
        let mut bound = Bound::default();
        for _ in 0..A_MINUTE {
            assert_eq!(bound.admit(7), (0, true));
        }
        for _ in 0..3 {
            assert_eq!(bound.admit(7), (0, false));
        }
        assert_eq!(bound.admit(8), (3, true));
        assert_eq!(bound.admit(8), (0, true));
    }
}
