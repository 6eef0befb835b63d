//! The Event Log of Windows: entries of the Application log. Nothing else here is unsafe, and
//! nothing here decides what is entered.
#![expect(unsafe_code, reason = "the crates that write there take over all logging")]

use std::ptr::{null, null_mut};

use tracing::Level;
use windows_sys::Win32::System::EventLog::{
    DeregisterEventSource, EVENTLOG_ERROR_TYPE, EVENTLOG_INFORMATION_TYPE, EVENTLOG_WARNING_TYPE,
    RegisterEventSourceW, ReportEventW,
};

use super::Pages;

/// A longer text the system refuses (31,839 letters).
const LETTERS_MAX: usize = 30_000;

/// Numbers of the entries, for those who filter by them. What they say is the text alone.
const INFORMATION: u32 = 10;
const WARNING: u32 = 20;
const ERROR: u32 = 30;

/// Who enters.
pub(in crate::telemetry) struct Source {
    /// Ends in a zero.
    name: Vec<u16>,
}

impl Source {
    pub(in crate::telemetry) fn new(name: &str) -> Self {
        Self { name: terminated(name) }
    }
}

impl Pages for Source {
    fn enter(&self, level: Level, text: &str) {
        let (kind, number) = match level {
            Level::ERROR => (EVENTLOG_ERROR_TYPE, ERROR),
            Level::WARN => (EVENTLOG_WARNING_TYPE, WARNING),
            _ => (EVENTLOG_INFORMATION_TYPE, INFORMATION),
        };
        let text: String = text.chars().take(LETTERS_MAX / 2).collect();
        let text = terminated(&text);
        let texts = [text.as_ptr()];
        // SAFETY: both strings end in a zero and live until the call has returned, as does the one
        // pointer that is said to be there; the source is what the first call has given, used and
        // given back here alone.
        unsafe {
            let source = RegisterEventSourceW(null(), self.name.as_ptr());
            if !source.is_null() {
                ReportEventW(source, kind, 0, number, null_mut(), 1, 0, texts.as_ptr(), null());
                DeregisterEventSource(source);
            }
        }
    }
}

fn terminated(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}
