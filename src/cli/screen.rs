//! How things look on a terminal: times, sizes, counts, tables. And the one way out: standard
//! output, whose reader may have gone.
#![expect(clippy::disallowed_methods, reason = "the terminal's wishes are in the environment")]

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use jiff::tz::TimeZone;

use super::failure::Failure;
use crate::model::time::Wall;
use crate::world::clock::{Clock, SystemClock};

/// Where a command writes, and how.
pub(crate) struct Screen<'a> {
    /// Standard output.
    pub(crate) out: &'a mut dyn Write,
    /// How it looks.
    pub(crate) style: Style,
}

impl Screen<'_> {
    /// Pretty JSON and a line end.
    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut *self.out, value).map_err(io::Error::from)?;
        Ok(writeln!(self.out)?)
    }
}

/// Colours, time zone and now.
#[derive(Clone)]
pub(crate) struct Style {
    /// Whether to use them.
    pub(crate) colours: bool,
    /// For times of day.
    pub(crate) zone: TimeZone,
    /// For "3m ago".
    pub(crate) now: Wall,
}

impl Style {
    /// As standard output and the environment have it (`NO_COLOR`, see no-color.org).
    pub(crate) fn of_terminal() -> Self {
        let colours = io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
            && crate::telemetry::is_coloured_by_escapes();
        Self { colours, zone: TimeZone::system(), now: SystemClock::new().now().wall }
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A heading.
    pub(crate) fn bold(&self, text: &str) -> String {
        self.painted("1", text)
    }

    /// What needs a person.
    pub(crate) fn alarm(&self, text: &str) -> String {
        self.painted("1;31", text)
    }

    /// What is well.
    pub(crate) fn well(&self, text: &str) -> String {
        self.painted("32", text)
    }

    /// Local time to the second, e.g. `2026-11-21 08:15:00`.
    pub(crate) fn time(&self, at: Wall) -> String {
        match jiff::Timestamp::from_millisecond(at.0) {
            Ok(time) => time.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
            Err(_) => at.to_string(),
        }
    }

    /// `3m ago`, or `just now` within a second and for times that are yet to come.
    pub(crate) fn ago(&self, at: Wall) -> String {
        match self.now.since(at) {
            span if span < Duration::from_secs(1) => "just now".to_owned(),
            span => format!("{} ago", shown_span(span)),
        }
    }

    /// `in 3m`, or `now`.
    pub(crate) fn until(&self, at: Wall) -> String {
        match at.since(self.now) {
            span if span < Duration::from_secs(1) => "now".to_owned(),
            span => format!("in {}", shown_span(span)),
        }
    }
}

/// The two largest parts of a span: `45s`, `4m`, `3h 20m`, `2d 4h`.
pub(crate) fn shown_span(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| {
        if small == 0 {
            format!("{large}{unit}")
        } else {
            format!("{large}{unit} {small}{small_unit}")
        }
    };
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "m"),
        _ => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

/// `531 bytes`, `2.1 kB`, `8.0 MB`: powers of ten, as in the config.
pub(crate) fn shown_bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    for (size, unit) in UNITS {
        if bytes >= size {
            let tenths = bytes / (size / 10);
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    counted(bytes, "byte")
}

/// `1 file`, `1,204 files`.
pub(crate) fn counted(number: u64, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {word}{plural}", grouped(number))
}

/// `1,204`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows of text in aligned columns, two spaces apart, no lines drawn.
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// Writes heading and rows. No line has spaces at its end.
    pub(crate) fn write(&self, screen: &mut Screen<'_>, indent: &str) -> io::Result<()> {
        let width = |index: usize| {
            let cells = self.rows.iter().map(|row| row[index].chars().count());
            cells.chain([self.columns[index].0.len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &[String]| {
            let mut text = String::new();
            for (index, cell) in cells.iter().enumerate() {
                if index > 0 {
                    text.push_str("  ");
                }
                let gap = " ".repeat(widths[index].saturating_sub(cell.chars().count()));
                match self.columns[index].1 {
                    Align::Left => text.extend([cell.as_str(), &gap]),
                    Align::Right => text.extend([gap.as_str(), cell]),
                }
            }
            text.trim_end().to_owned()
        };
        let heading: Vec<String> =
            self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        writeln!(screen.out, "{indent}{}", screen.style.bold(&line(&heading)))?;
        for row in &self.rows {
            writeln!(screen.out, "{indent}{}", line(row))?;
        }
        Ok(())
    }
}

/// Writes on, into nothing, once its reader has gone (`patchdrop list | head`): that is no error,
/// and what the command does besides writing must still be done.
pub(crate) struct Patient<W> {
    inner: W,
    gone: bool,
}

impl<W: Write> Patient<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, gone: false }
    }

    fn forgive<T>(&mut self, result: io::Result<T>, instead: T) -> io::Result<T> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(instead)
            }
            other => other,
        }
    }
}

impl<W: Write> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gone {
            return Ok(bytes.len());
        }
        let result = self.inner.write(bytes);
        self.forgive(result, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        let result = self.inner.flush();
        self.forgive(result, ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_sizes_and_counts_read_well() {
        let spans = [
            (0, "0ms"),
            (12, "12ms"),
            (1_000, "1s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (61_000, "1m 1s"),
            (3_600_000, "1h"),
            (12_000_000, "3h 20m"),
            (187_200_000, "2d 4h"),
        ];
        for (millis, text) in spans {
            assert_eq!(shown_span(Duration::from_millis(millis)), text);
        }
        let sizes = [
            (0, "0 bytes"),
            (1, "1 byte"),
            (999, "999 bytes"),
            (1_000, "1.0 kB"),
            (2_190, "2.1 kB"),
            (8_000_000, "8.0 MB"),
            (u64::MAX, "18446744.0 TB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(shown_bytes(bytes), text);
        }
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_204), "1,204");
        assert_eq!(grouped(200_000), "200,000");
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(counted(0, "file"), "0 files");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_but_a_full_disk_is() {
        struct Broken(io::ErrorKind, u32);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(self.0.into())
            }
        }
        let mut pipe = Patient::new(Broken(io::ErrorKind::BrokenPipe, 0));
        for _ in 0..3 {
            pipe.write_all(b"line\n").unwrap();
        }
        pipe.flush().unwrap();
        assert_eq!(pipe.inner.1, 1, "nothing is written to a pipe that is known to be broken");

        let mut disk = Patient::new(Broken(io::ErrorKind::StorageFull, 0));
        assert_eq!(disk.write_all(b"line\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
