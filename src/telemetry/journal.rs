//! The journal of systemd, in its own protocol: one datagram an event, each of its facts a field
//! that `journalctl PATCHDROP_ROUTE=orders` finds. (The crates for this take a field as it comes,
//! and every known secret has to be blotted out first.)

use std::fmt::{self, Write};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::{SharedBlotter, chain, current, one_line, quoted};
use crate::model::blot::Blotter;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Most of a value that is written, in bytes: an event has to fit into one datagram.
const VALUE_MAX: usize = 8 * 1024;
/// The journal's own limit of a field's name.
const NAME_MAX: usize = 64;
/// How long a journal that does not read may keep an event; then it is lost.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The way to the journal.
pub(super) struct Journal {
    socket: UnixDatagram,
    address: PathBuf,
    blotter: SharedBlotter,
}

impl Journal {
    /// The journal, if that is what standard error leads to.
    #[expect(clippy::disallowed_methods, reason = "systemd says in the environment what it opened")]
    pub(super) fn behind_standard_error(blotter: &SharedBlotter) -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let found = rustix::fs::fstat(io::stderr()).ok()?;
        let is_journal = stream == format!("{}:{}", found.st_dev, found.st_ino);
        if is_journal { Self::at(Path::new(SOCKET), blotter).ok() } else { None }
    }

    fn at(address: &Path, blotter: &SharedBlotter) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(WAIT_MAX))?;
        let (address, blotter) = (address.to_owned(), SharedBlotter::clone(blotter));
        Ok(Self { socket, address, blotter })
    }

    /// Addressed each time: a journal that was started anew is found again. What it does not take
    /// is lost, as is a line that cannot be written.
    fn send(&self, datagram: &[u8]) {
        drop(self.socket.send_to(datagram, &self.address));
    }
}

/// Facts of an event or a span, by name.
#[derive(Default)]
struct Facts(Vec<(&'static str, String)>);

impl Visit for Facts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.push((field.name(), chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }
}

impl<S> Layer<S> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut facts = Facts::default();
        attributes.record(&mut facts);
        span.extensions_mut().insert(facts);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(facts) = span.extensions_mut().get_mut::<Facts>() {
            values.record(facts);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut facts = Facts::default();
        event.record(&mut facts);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Facts>() {
                facts.0.extend(of_span.0.iter().cloned());
            }
        }
        let blotter = current(&self.blotter);
        self.send(&datagram(*event.metadata().level(), &facts, &blotter));
    }
}

/// An event as the journal wants it. `MESSAGE` reads like a line of the log, so that it says
/// everything where fields are not shown.
fn datagram(level: Level, facts: &Facts, blotter: &Blotter) -> Vec<u8> {
    let mut datagram = Vec::new();
    let mut message = String::new();
    put(&mut datagram, "PRIORITY", priority(level));
    put(&mut datagram, "SYSLOG_IDENTIFIER", "patchdrop");
    for (name, value) in &facts.0 {
        let value = blotter.blot(value);
        if *name == "message" {
            message.insert_str(0, &one_line(&value));
            put(&mut datagram, "PATCHDROP_EVENT", &value);
        } else if !name.starts_with("log.") {
            write!(message, " {name}={}", quoted(&value)).unwrap_or_default();
            put(&mut datagram, &field_name(name), &value);
        }
    }
    put(&mut datagram, "MESSAGE", &message);
    datagram
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// `route` is `PATCHDROP_ROUTE`.
fn field_name(name: &str) -> String {
    let letter = |letter: char| {
        if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' }
    };
    let name: String = name.chars().map(letter).collect();
    format!("PATCHDROP_{name}").chars().take(NAME_MAX).collect()
}

/// One field; a value of several lines is preceded by its length.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    let value = value.get(..value.floor_char_boundary(VALUE_MAX)).unwrap_or(value);
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, RwLock};

    use tracing::{error, info, info_span, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::model::blot::BLOT;
    use crate::model::secret::Secret;

    type Fields = BTreeMap<String, String>;

    /// What the journal would have kept of a datagram.
    fn read(mut datagram: &[u8]) -> Fields {
        let mut fields = Fields::new();
        while let Some(end) = datagram.iter().position(|byte| *byte == b'\n') {
            let line = std::str::from_utf8(&datagram[..end]).unwrap();
            datagram = &datagram[end + 1..];
            let (name, value) = if let Some((name, value)) = line.split_once('=') {
                (name, value.to_owned())
            } else {
                let (length, rest) = datagram.split_at(8);
                let length = u64::from_le_bytes(length.try_into().unwrap());
                let (value, rest) = rest.split_at(usize::try_from(length).unwrap());
                assert_eq!(rest.first(), Some(&b'\n'));
                datagram = &rest[1..];
                (line, String::from_utf8(value.to_vec()).unwrap())
            };
            assert!(fields.insert(name.to_owned(), value).is_none(), "{name} twice");
        }
        assert!(datagram.is_empty());
        fields
    }

    /// What a journal hears of what is logged.
    fn heard(secrets: &[Secret], log: impl FnOnce()) -> Vec<Fields> {
        let scratch = tempfile::tempdir().unwrap();
        let address = scratch.path().join("socket");
        let socket = UnixDatagram::bind(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let blotter = Arc::new(RwLock::new(Blotter::new(secrets)));
        let journal = Journal::at(&address, &blotter).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), log);
        let mut all = Vec::new();
        let mut buffer = vec![0; 256 * 1024];
        while let Ok(length) = socket.recv(&mut buffer) {
            all.push(read(&buffer[..length]));
        }
        all
    }

    #[test]
    fn each_fact_of_an_event_and_of_its_span_is_a_field() {
        let all = heard(&[], || {
            let _span = info_span!("file", id = "1kq8z7x2ab", late = tracing::field::Empty);
            let span = info_span!("file", id = "1kq8z7x2ab", late = tracing::field::Empty);
            span.record("late", 7);
            let _entered = span.entered();
            info!(route = "orders", file = %"x y.json", attempt = 2, "delivered");
        });
        let wanted = [
            ("MESSAGE", "delivered route=orders file=\"x y.json\" attempt=2 id=1kq8z7x2ab late=7"),
            ("PATCHDROP_ATTEMPT", "2"),
            ("PATCHDROP_EVENT", "delivered"),
            ("PATCHDROP_FILE", "x y.json"),
            ("PATCHDROP_ID", "1kq8z7x2ab"),
            ("PATCHDROP_LATE", "7"),
            ("PATCHDROP_ROUTE", "orders"),
            ("PRIORITY", "6"),
            ("SYSLOG_IDENTIFIER", "patchdrop"),
        ];
        let wanted: Fields = wanted.map(|(name, value)| (name.into(), value.into())).into();
        assert_eq!(all, [wanted]);
    }

    #[test]
    fn levels_are_the_priorities_of_syslog() {
        let all = heard(&[], || {
            error!("a");
            warn!("b");
            info!("c");
            tracing::debug!("d");
        });
        let priorities: Vec<&str> = all.iter().map(|fields| fields["PRIORITY"].as_str()).collect();
        assert_eq!(priorities, ["3", "4", "6", "7"]);
    }

    #[test]
    fn a_file_name_cannot_forge_a_field_nor_a_line() {
        let name = "x\nMESSAGE=all is well\nPRIORITY=7\n\u{1b}[2J";
        let all = heard(&[], || warn!(file = %name, "rejected"));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0]["PATCHDROP_FILE"], name);
        assert_eq!(all[0]["PRIORITY"], "4");
        assert!(!all[0]["MESSAGE"].contains(['\n', '\u{1b}']), "{}", all[0]["MESSAGE"]);
    }

    #[test]
    fn a_secret_is_blotted_out_of_every_field() {
        let all = heard(&[Secret::new("s3cret-word")], || {
            let _span = info_span!("file", token = "s3cret-word").entered();
            info!(answer = "said s3cret-word", "s3cret-word said");
        });
        let fields = &all[0];
        assert!(fields["MESSAGE"].contains(BLOT), "{fields:?}");
        assert!(fields.values().all(|value| !value.contains("s3cret-word")), "{fields:?}");
    }

    #[test]
    fn a_value_without_end_still_fits_into_a_datagram() {
        let all = heard(&[], || {
            let long = "ü".repeat(1_000_000);
            info!(a = long, b = long, c = long, d = long, "long");
        });
        assert_eq!(all[0]["PATCHDROP_A"].len(), VALUE_MAX);
        assert_eq!(all[0]["PATCHDROP_EVENT"], "long");
    }

    #[test]
    fn a_journal_that_is_away_is_no_reason_to_stop_and_is_found_again() {
        let scratch = tempfile::tempdir().unwrap();
        let address = scratch.path().join("socket");
        let blotter = Arc::new(RwLock::new(Blotter::new(&[])));
        let journal = Journal::at(&address, &blotter).unwrap();
        let subscriber = tracing_subscriber::registry().with(journal);
        let socket = tracing::subscriber::with_default(subscriber, || {
            info!("nobody hears this");
            let socket = UnixDatagram::bind(&address).unwrap();
            socket.set_nonblocking(true).unwrap();
            info!("back");
            socket
        });
        let mut buffer = [0; 1_024];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(read(&buffer[..length])["PATCHDROP_EVENT"], "back");
    }
}
