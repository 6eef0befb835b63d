//! Logs: one line an event, to standard error or a file, with every known secret blotted out.
//!
//! Nothing in the program logs a secret on purpose; the blotting keeps promise P11 where a
//! library, or an error from far below, does.

mod event_log;
#[cfg(target_os = "linux")]
mod journal;
mod roll;

use std::borrow::Cow;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use event_log::{EventLog, Pages};
use roll::RollingFile;

use crate::config::{LogFormat, LogRules, Secret};
use crate::model::blot::Blotter;

/// Libraries that speak of their own affairs.
const QUIET: [&str; 11] = [
    "h2",
    "hyper",
    "hyper_util",
    "jsonschema",
    "mio",
    "notify",
    "reqwest",
    "rustls",
    "tokio",
    "tokio_util",
    "want",
];

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log file cannot be opened.
    #[error("cannot open the log file {}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The filter is not understood.
    #[error("cannot read the log level {level:?}")]
    Level {
        /// What `level` says.
        level: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging has been started before.
    #[error("logging has been started already")]
    Started,
}

/// The target of the few turns in a service's life that an administrator must see in the system's
/// own log although nothing is wrong: it has started, stopped, taken over another config.
pub const MILESTONE: &str = "patchdrop::milestone";

/// Keeps the log. What is written is flushed when it is dropped.
#[derive(Debug)]
pub struct Guard {
    ink: Ink,
}

impl Guard {
    /// Keeps further secrets out of the log; those of before stay out as well.
    pub fn learn(&self, secrets: &[Secret]) {
        let mut known = self.ink.blotter.write().unwrap_or_else(PoisonError::into_inner);
        *known = known.knowing_too(secrets);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // There is nobody left to tell.
        drop(self.ink.lock().flush());
    }
}

/// Starts logging for the whole process. `source`: under what name the system's own log is told
/// too, where the system has one that nobody reads standard error into (Windows).
///
/// # Errors
/// A log file that cannot be opened, a level that is none, a second start.
pub fn start(
    rules: &LogRules,
    secrets: &[Secret],
    source: Option<&str>,
) -> Result<Guard, TelemetryError> {
    let (output, is_terminal): (Box<dyn Write + Send>, bool) = if let Some(path) = &rules.file {
        (Box::new(RollingFile::open(path, rules.roll_at_bytes, rules.keep)?), false)
    } else {
        let is_terminal = io::stderr().is_terminal() && is_coloured_by_escapes();
        (Box::new(io::stderr()), is_terminal)
    };
    let ink = Ink::new(output, secrets);
    let pages = source.and_then(pages);
    let subscriber = match journal(rules, &ink)? {
        Some(journal) => journal,
        None => subscriber(rules, ink.clone(), is_terminal, pages)?,
    };
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Started)?;
    Ok(Guard { ink })
}

/// Whether a terminal takes escapes for colours. A console of Windows does only once it is told to,
/// and one of before 2016 never.
#[must_use]
pub fn is_coloured_by_escapes() -> bool {
    #[cfg(windows)]
    return anstyle_query::windows::enable_ansi_colors() == Some(true);
    #[cfg(not(windows))]
    true
}

/// Says why a service ends that nobody asked to: in its log and in the system's, in the latter
/// alone where it has come to no log of its own.
#[cfg(windows)]
pub fn say_why_it_ends(source: &str, why: &str) {
    if tracing::dispatcher::has_been_set() {
        let why: Vec<&str> = why.lines().map(str::trim).collect();
        tracing::error!(why = why.join("; "), "the service has ended");
    } else if let Some(pages) = pages(source) {
        pages.enter(
            Level::ERROR,
            &format!("the service has ended\r\n{}", why.replace('\n', "\r\n")),
        );
    }
}

#[cfg(windows)]
fn pages(source: &str) -> Option<Box<dyn Pages>> {
    Some(Box::new(event_log::calls::Source::new(source)))
}

#[cfg(not(windows))]
fn pages(_source: &str) -> Option<Box<dyn Pages>> {
    None
}

fn append(path: &Path) -> Result<std::fs::File, TelemetryError> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|source| TelemetryError::Open { path: path.to_owned(), source })
}

/// The way to the journal, where lines on standard error would end there and no other format was
/// asked for.
#[cfg(target_os = "linux")]
fn journal(
    rules: &LogRules,
    ink: &Ink,
) -> Result<Option<Box<dyn Subscriber + Send + Sync>>, TelemetryError> {
    use tracing_subscriber::layer::SubscriberExt;
    if rules.file.is_some() || rules.format != LogFormat::Auto {
        return Ok(None);
    }
    let Some(journal) = journal::Journal::behind_standard_error(&ink.blotter) else {
        return Ok(None);
    };
    let registry = tracing_subscriber::registry().with(filter_of(rules)?).with(journal);
    Ok(Some(Box::new(registry)))
}

#[cfg(not(target_os = "linux"))]
fn journal(
    _rules: &LogRules,
    _ink: &Ink,
) -> Result<Option<Box<dyn Subscriber + Send + Sync>>, TelemetryError> {
    Ok(None)
}

fn filter_of(rules: &LogRules) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(filter(&rules.level))
        .map_err(|source| TelemetryError::Level { level: rules.level.clone(), source })
}

fn subscriber(
    rules: &LogRules,
    ink: Ink,
    is_terminal: bool,
    pages: Option<Box<dyn Pages>>,
) -> Result<Box<dyn Subscriber + Send + Sync>, TelemetryError> {
    let filter = filter_of(rules)?;
    let fields = Fields { blotter: Arc::clone(&ink.blotter) };
    let event_log = pages.map(|pages| EventLog::new(pages, Arc::clone(&ink.blotter)));
    // A line that cannot be written is lost. Saying so on standard error would be a panic where
    // that is what cannot be written: a full disk, or a reader that has gone.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(ink)
        .log_internal_errors(false);
    Ok(match rules.format {
        LogFormat::Json => Box::new(
            lines
                .json()
                .with_timer(Clock)
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .finish()
                .with(event_log),
        ),
        LogFormat::Auto | LogFormat::Text => {
            let is_coloured = is_terminal && rules.format == LogFormat::Auto;
            let lines = lines.with_ansi(is_coloured).fmt_fields(fields).event_format(Line);
            Box::new(lines.finish().with(event_log))
        }
    })
}

/// The filter that `level` asks for, with libraries kept to warnings unless it names them.
fn filter(level: &str) -> String {
    let parts: Vec<&str> = level.split(',').map(str::trim).collect();
    let says_little = parts.iter().any(|part| ["off", "error", "warn"].contains(part));
    let mut filter = parts.join(",");
    for library in QUIET {
        let is_named = parts.iter().filter_map(|part| part.split_once('=')).any(|(target, _)| {
            target
                .strip_prefix(library)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        });
        if !says_little && !is_named {
            filter = format!("{filter},{library}=warn");
        }
    }
    filter
}

/// The wall clock, as records have it.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:.3}", jiff::Timestamp::now())
    }
}

/// `TIME LEVEL text field=value ...`, the fields of the spans after those of the event.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        Clock.format_time(&mut writer)?;
        let level = *event.metadata().level();
        if writer.has_ansi_escapes() {
            write!(writer, " \x1b[{}m{level:<5}\x1b[0m", colour(level))?;
        } else {
            write!(writer, " {level:<5}")?;
        }
        context.format_fields(writer.by_ref(), event)?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                writer.write_str(&fields.fields)?;
            }
        }
        writeln!(writer)
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        _ => 34,
    }
}

/// ` text field=value ...`, one line whatever the values are.
struct Fields {
    blotter: SharedBlotter,
}

/// What the log must not show; a reload may bring more.
type SharedBlotter = Arc<RwLock<Blotter>>;

fn current(blotter: &SharedBlotter) -> Blotter {
    blotter.read().unwrap_or_else(PoisonError::into_inner).clone()
}

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let blotter = current(&self.blotter);
        let mut pen = Pen { writer, blotter: &blotter, result: Ok(()) };
        fields.record(&mut pen);
        pen.result
    }
}

struct Pen<'w, 'n> {
    writer: Writer<'w>,
    blotter: &'n Blotter,
    result: fmt::Result,
}

impl Pen<'_, '_> {
    fn put(&mut self, field: &Field, value: &str) {
        // Before it is quoted: quotes within quotes would change the secret's look.
        let value = &self.blotter.blot(value);
        let written = match field.name() {
            "message" => write!(self.writer, " {}", one_line(value)),
            // What the log crate's records carry along.
            name if name.starts_with("log.") => Ok(()),
            name => write!(self.writer, " {name}={}", quoted(value)),
        };
        self.result = self.result.and(written);
    }
}

impl Visit for Pen<'_, '_> {
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

/// An error with what caused it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Text without anything that ends a line or moves a cursor: a file's name may hold what looks
/// like another line of the log.
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(moves) {
        return Cow::Borrowed(text);
    }
    let mut line = String::new();
    for letter in text.chars() {
        if moves(letter) {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    Cow::Owned(line)
}

fn moves(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// The same as a value: in quotes where it would not end by itself.
fn quoted(text: &str) -> Cow<'_, str> {
    let line = one_line(text);
    let is_bare = !line.is_empty() && !line.contains([' ', '"', '=']);
    if is_bare { line } else { Cow::Owned(format!("\"{}\"", line.replace('"', "\\\""))) }
}

/// Where lines go, shared by all threads; whole lines only, without secrets.
#[derive(Clone)]
struct Ink {
    output: Arc<Mutex<Box<dyn Write + Send>>>,
    blotter: SharedBlotter,
}

impl fmt::Debug for Ink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ink({:?})", current(&self.blotter))
    }
}

impl Ink {
    fn new(output: Box<dyn Write + Send>, secrets: &[Secret]) -> Self {
        let blotter = Arc::new(RwLock::new(Blotter::new(secrets)));
        Self { output: Arc::new(Mutex::new(output)), blotter }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Box<dyn Write + Send>> {
        // A line that another thread left half written does not stop the next.
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Ink {
    type Writer = &'a Ink;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Ink {
    /// Takes whole lines: the subscriber formats an event completely before it writes it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let blotter = current(&self.blotter);
        let clean = blotter.blot(&text);
        self.lock().write_all(clean.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use tracing::{debug, info, info_span, warn};

    use super::*;
    use crate::model::blot::BLOT;

    /// Collects what is written.
    #[derive(Clone, Default)]
    struct Sheet(Arc<Mutex<Vec<u8>>>);

    impl Write for Sheet {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn rules(level: &str, format: LogFormat) -> LogRules {
        LogRules { level: level.to_owned(), format, file: None, roll_at_bytes: 1_000, keep: 1 }
    }

    fn logged(level: &str, format: LogFormat, secret: &str, log: impl FnOnce()) -> String {
        let sheet = Sheet::default();
        let ink = Ink::new(Box::new(sheet.clone()), &[Secret::new(secret)]);
        let rules = rules(level, format);
        let subscriber = subscriber(&rules, ink, false, None).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = sheet.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// A line behind its time.
    fn behind_time(text: &str) -> &str {
        let (time, line) = text.split_once(' ').unwrap();
        assert_eq!(time.len(), "2026-11-21T08:15:00.123Z".len(), "{time}");
        assert!(time.ends_with('Z'), "{time}");
        line
    }

    #[test]
    fn a_text_line_has_time_level_text_and_fields() {
        let text = logged("info", LogFormat::Text, "", || {
            let _span = info_span!("file", id = "1kq8z7x2ab").entered();
            info!(route = "orders", file = %"x y.json", attempt = 2, "delivered");
        });
        let line = "INFO  delivered route=orders file=\"x y.json\" attempt=2 id=1kq8z7x2ab\n";
        assert_eq!(behind_time(&text), line);
    }

    #[test]
    fn a_file_name_cannot_forge_a_line() {
        let text = logged("info", LogFormat::Auto, "", || {
            warn!(file = %"x\n2026 ERROR \x1b[2J\u{202e}", "rejected");
        });
        assert_eq!(text.lines().count(), 1);
        let line = "WARN  rejected file=\"x\\n2026 ERROR \\u{1b}[2J\\u{202e}\"\n";
        assert_eq!(behind_time(&text), line);
    }

    #[test]
    fn an_error_is_logged_with_what_caused_it() {
        let error = TelemetryError::Open {
            path: PathBuf::from("x.log"),
            source: io::Error::other("disk on fire"),
        };
        let text = logged("info", LogFormat::Text, "", || {
            let error: &dyn std::error::Error = &error;
            warn!(error, "failed");
        });
        let line = "WARN  failed error=\"cannot open the log file x.log: disk on fire\"\n";
        assert_eq!(behind_time(&text), line);
    }

    #[test]
    fn a_json_line_is_one_object_with_its_span() {
        let text = logged("info", LogFormat::Json, "", || {
            let _span = info_span!("file", id = "1kq8z7x2ab").entered();
            info!(route = "orders", "delivered");
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "delivered");
        assert_eq!(line["route"], "orders");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["span"]["id"], "1kq8z7x2ab");
    }

    #[test]
    fn a_secret_is_blotted_out_of_every_line() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let said = "said s3cret-word";
            let text = logged("info", format, "s3cret-word", || info!(answer = said, "{said}"));
            assert!(text.contains(BLOT) && !text.contains("word"), "{text}");
        }
    }

    #[test]
    fn a_short_secret_does_not_blot_out_the_log() {
        let text = logged("info", LogFormat::Text, "er", || info!("delivered"));
        assert_eq!(behind_time(&text), "INFO  delivered\n");
    }

    #[test]
    fn libraries_are_quiet_unless_they_are_named() {
        let check = |level: &str, lines: &[&str]| {
            let text = logged(level, LogFormat::Text, "", || {
                debug!(target: "hyper::client", "hyper debug");
                warn!(target: "hyper::client", "hyper warn");
                debug!(target: "hyper_util::client", "hyper_util debug");
                debug!(target: "rustls", "rustls debug");
                debug!(target: "patchdrop::daemon", "own debug");
                info!(target: "patchdrop::daemon", "own info");
            });
            let seen: Vec<&str> = text
                .lines()
                .map(|line| behind_time(line).split_once(' ').unwrap().1.trim())
                .collect();
            assert_eq!(seen, lines, "{level}");
        };
        check("info", &["hyper warn", "own info"]);
        check("trace", &["hyper warn", "own debug", "own info"]);
        check("warn", &["hyper warn"]);
        check("error", &[]);
        check("off", &[]);
        check("info,patchdrop=debug", &["hyper warn", "own debug", "own info"]);
        check("info,hyper=debug", &["hyper debug", "hyper warn", "own info"]);
        check(
            "debug, hyper::client=debug",
            &["hyper debug", "hyper warn", "own debug", "own info"],
        );
    }

    /// Keeps what is entered.
    #[derive(Clone, Default)]
    struct Book(Arc<Mutex<Vec<(Level, String)>>>);

    impl Pages for Book {
        fn enter(&self, level: Level, text: &str) {
            self.0.lock().unwrap().push((level, text.to_owned()));
        }
    }

    fn entered(format: LogFormat, log: impl FnOnce()) -> Vec<(Level, String)> {
        let (sheet, book) = (Sheet::default(), Book::default());
        let ink = Ink::new(Box::new(sheet), &[Secret::new("s3cret-word")]);
        let pages: Option<Box<dyn Pages>> = Some(Box::new(book.clone()));
        let subscriber = subscriber(&rules("info", format), ink, false, pages).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        let entries = book.0.lock().unwrap();
        entries.clone()
    }

    #[test]
    fn the_systems_log_has_what_needs_a_person_and_the_milestones() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let entries = entered(format, || {
                let _span = info_span!("file", id = "1kq8z7x2ab").entered();
                info!(route = "orders", "delivered");
                debug!(target: MILESTONE, "filtered out by the level");
                info!(target: MILESTONE, version = "1", "started");
                warn!(file = %"x\n2026.json", said = "said s3cret-word", "rejected");
            });
            assert_eq!(entries.len(), 2, "{entries:?}");
            assert_eq!(entries[0].0, Level::INFO);
            assert!(entries[0].1.starts_with("started\r\nversion: 1\r\n"), "{entries:?}");
            assert!(entries[0].1.contains("1kq8z7x2ab"), "{entries:?}");
            assert_eq!(entries[1].0, Level::WARN);
            let text = &entries[1].1;
            assert!(text.starts_with("rejected\r\nfile: x\\n2026.json\r\nsaid: said "), "{text}");
            assert!(text.contains(BLOT) && !text.contains("word"), "{text}");
        }
    }

    #[test]
    fn the_systems_log_is_not_flooded() {
        let entries = entered(LogFormat::Text, || (0..1_000).for_each(|_| warn!("again")));
        // Two minutes at most are touched.
        assert!((30..=61).contains(&entries.len()), "{}", entries.len());
    }

    #[cfg(unix)]
    #[expect(clippy::disallowed_methods, reason = "the test looks at the file")]
    #[test]
    fn a_log_file_is_appended_to_and_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("patchdrop.log");
        for line in ["one\n", "two\n"] {
            append(&path).unwrap().write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let missing = append(&scratch.path().join("none/patchdrop.log")).unwrap_err();
        assert!(missing.to_string().starts_with("cannot open the log file"), "{missing}");
    }
}
