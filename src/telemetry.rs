//! Logs: one line an event, to standard error or a file, with every known secret blotted out.
//!
//! Nothing in the program logs a secret on purpose; the blotting keeps promise P11 where a
//! library, or an error from far below, does.
use std::borrow::Cow;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogFormat, LogRules, Secret};

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

/// A secret shorter than this would blot out half of every line.
const SECRET_BYTES_MIN: usize = 6;

/// What stands where a secret was.
const BLOT: &str = "***";

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

/// Keeps the log. What is written is flushed when it is dropped.
#[derive(Debug)]
pub struct Guard {
    ink: Ink,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // There is nobody left to tell.
        drop(self.ink.lock().flush());
    }
}

/// Starts logging for the whole process.
///
/// # Errors
/// A log file that cannot be opened, a level that is none, a second start.
pub fn start(rules: &LogRules, secrets: &[Secret]) -> Result<Guard, TelemetryError> {
    let (output, is_terminal): (Box<dyn Write + Send>, bool) = match &rules.file {
        Some(path) => (Box::new(append(path)?), false),
        None => (Box::new(io::stderr()), io::stderr().is_terminal()),
    };
    let ink = Ink::new(output, secrets);
    let subscriber = subscriber(rules, ink.clone(), is_terminal)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Started)?;
    Ok(Guard { ink })
}

fn append(path: &Path) -> Result<std::fs::File, TelemetryError> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|source| TelemetryError::Open { path: path.to_owned(), source })
}

fn subscriber(
    rules: &LogRules,
    ink: Ink,
    is_terminal: bool,
) -> Result<Box<dyn Subscriber + Send + Sync>, TelemetryError> {
    let filter = EnvFilter::builder()
        .parse(filter(&rules.level))
        .map_err(|source| TelemetryError::Level { level: rules.level.clone(), source })?;
    let fields = Fields { needles: Arc::clone(&ink.needles) };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(ink);
    Ok(match rules.format {
        LogFormat::Json => Box::new(
            lines
                .json()
                .with_timer(Clock)
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .finish(),
        ),
        LogFormat::Auto | LogFormat::Text => {
            let is_coloured = is_terminal && rules.format == LogFormat::Auto;
            Box::new(lines.with_ansi(is_coloured).fmt_fields(fields).event_format(Line).finish())
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
    needles: Arc<[String]>,
}

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut pen = Pen { writer, needles: &self.needles, result: Ok(()) };
        fields.record(&mut pen);
        pen.result
    }
}

struct Pen<'w, 'n> {
    writer: Writer<'w>,
    needles: &'n [String],
    result: fmt::Result,
}

impl Pen<'_, '_> {
    fn put(&mut self, field: &Field, value: &str) {
        // Before it is quoted: quotes within quotes would change the secret's look.
        let value = &blotted(value, self.needles);
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
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        self.put(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
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
    needles: Arc<[String]>,
}

impl fmt::Debug for Ink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ink({} secrets)", self.needles.len())
    }
}

impl Ink {
    fn new(output: Box<dyn Write + Send>, secrets: &[Secret]) -> Self {
        Self { output: Arc::new(Mutex::new(output)), needles: needles(secrets).into() }
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
        let clean = blotted(&text, &self.needles);
        self.lock().write_all(clean.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock().flush()
    }
}

fn blotted<'t>(text: &'t str, needles: &[String]) -> Cow<'t, str> {
    let mut clean = Cow::Borrowed(text);
    for needle in needles {
        if clean.contains(needle.as_str()) {
            clean = Cow::Owned(clean.replace(needle.as_str(), BLOT));
        }
    }
    clean
}

/// Every form in which a secret may turn up, the longest first.
fn needles(secrets: &[Secret]) -> Vec<String> {
    let mut needles = Vec::new();
    for secret in secrets {
        let plain = secret.reveal();
        if plain.len() < SECRET_BYTES_MIN {
            continue;
        }
        let escaped = [plain.escape_default().to_string(), plain.escape_debug().to_string()];
        for form in [plain.to_owned()].into_iter().chain(escaped) {
            let json = serde_json::Value::from(form.as_str()).to_string();
            needles.push(json.get(1..json.len() - 1).unwrap_or_default().to_owned());
            needles.push(form);
        }
        for is_kept in [is_unreserved, is_form_safe] {
            let encoded = percent_encoded(plain, is_kept);
            needles.push(encoded.to_lowercase());
            needles.push(encoded.replace("%20", "+"));
            needles.push(encoded);
        }
        needles.extend(base64_forms(plain.as_bytes()));
    }
    needles.retain(|needle| needle.len() >= SECRET_BYTES_MIN);
    needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    needles.dedup();
    needles
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn is_form_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._*".contains(&byte)
}

fn percent_encoded(text: &str, is_kept: fn(u8) -> bool) -> String {
    let encode = |byte| {
        if is_kept(byte) { String::from(char::from(byte)) } else { format!("%{byte:02X}") }
    };
    text.bytes().map(encode).collect()
}

/// The base64 of a secret wherever it begins in what is encoded, both alphabets, without the
/// letters that also depend on its neighbours.
fn base64_forms(secret: &[u8]) -> impl Iterator<Item = String> {
    (0..3_usize).flat_map(move |before| {
        let padded: Vec<u8> =
            std::iter::repeat_n(0, before).chain(secret.iter().copied()).collect();
        let letters = base64(&padded);
        let first = (before * 8).div_ceil(6);
        let whole = padded.len() * 8 / 6;
        let form: String = letters.chars().take(whole).skip(first).collect();
        let url_safe = form.replace('+', "-").replace('/', "_");
        [form, url_safe]
    })
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut letters = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            letters.push(char::from(BASE64[bits >> (18 - 6 * place) & 63]));
        }
    }
    letters
}

#[cfg(test)]
mod tests {
    use tracing::{debug, info, info_span, warn};

    use super::*;

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

    fn logged(level: &str, format: LogFormat, secret: &str, log: impl FnOnce()) -> String {
        let sheet = Sheet::default();
        let ink = Ink::new(Box::new(sheet.clone()), &[Secret::new(secret)]);
        let rules = LogRules { level: level.to_owned(), format, file: None };
        let subscriber = subscriber(&rules, ink, false).unwrap();
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
    fn a_secret_is_blotted_out_in_every_form() {
        let secret = "s3cr\u{e9}t/\"word\" +x";
        let in_base64 = |before: &str| base64(format!("{before}{secret} and more").as_bytes());
        let forms = [
            secret.to_owned(),
            format!("{secret:?}"),
            serde_json::to_string(secret).unwrap(),
            percent_encoded(secret, is_unreserved),
            percent_encoded(secret, is_unreserved).to_lowercase(),
            percent_encoded(secret, is_form_safe).replace("%20", "+"),
            in_base64(""),
            in_base64("u"),
            in_base64("us"),
            in_base64("user:").replace('+', "-").replace('/', "_"),
        ];
        for form in forms {
            for format in [LogFormat::Text, LogFormat::Json] {
                let text = logged("info", format, secret, || info!(answer = %form, "{form}"));
                assert!(text.contains(BLOT), "{form} in {text}");
                for word in ["s3cr", "word"] {
                    assert!(!text.contains(word), "{form} in {text}");
                }
            }
        }
    }

    #[test]
    fn a_short_secret_does_not_blot_out_the_log() {
        let text = logged("info", LogFormat::Text, "er", || info!("delivered"));
        assert_eq!(behind_time(&text), "INFO  delivered\n");
    }

    #[test]
    fn base64_is_base64() {
        // Test vectors of RFC 4648, without the padding.
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
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
