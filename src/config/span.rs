//! Spans (`"30s"`), sizes (`"8MB"`) and rates (`"60/min"`), read and written.

use std::time::Duration;

use crate::model::route::Rate;

const SPAN_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZE_UNITS: [(&str, u64); 10] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// What a span looks like, for messages.
pub(super) const SPAN_FORM: &str = "a span such as \"30s\" (units ms, s, m, h, d)";

/// What a size looks like, for messages.
pub(super) const SIZE_FORM: &str =
    "a size such as \"8MB\" (units B, kB, MB, GB, TB, KiB, MiB, GiB)";

/// Reads a span: a whole number and a unit, e.g. `"500ms"`, `"24h"`. `None` for anything else.
pub(super) fn span(text: &str) -> Option<Duration> {
    counted(text, &SPAN_UNITS).map(Duration::from_millis)
}

/// Reads a size in bytes: a whole number and a unit, e.g. `"8MB"` (10^6) or `"8MiB"` (2^20).
pub(super) fn size(text: &str) -> Option<u64> {
    counted(text, &SIZE_UNITS)
}

/// What a rate looks like, for messages.
pub(super) const RATE_FORM: &str =
    "a rate such as \"60/min\" (a count from 1 to 100000; units s, min, h, d)";

/// Reads a rate: a whole number, a slash and a unit, e.g. `"60/min"`, `"5/s"`.
pub(super) fn rate(text: &str) -> Option<Rate> {
    let (count, unit) = text.split_once('/')?;
    let seconds = match unit.trim() {
        "s" => 1,
        "min" | "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let count = count.trim();
    let is_whole = count.bytes().all(|byte| byte.is_ascii_digit());
    let count = count.parse().ok().filter(|_| is_whole)?;
    Some(Rate { count, per: Duration::from_secs(seconds) })
}

fn counted(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Writes a span in the largest unit that it is a whole number of.
pub(super) fn show_span(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    show(millis, SPAN_UNITS.iter().rev().filter(|_| millis > 0).copied(), "s")
}

/// Writes a size in the largest decimal unit that it is a whole number of.
pub(super) fn show_size(bytes: u64) -> String {
    let decimal = SIZE_UNITS.iter().rev().filter(|(name, _)| !name.contains('i') && *name != "KB");
    show(bytes, decimal.filter(|_| bytes > 0).copied(), "B")
}

fn show(count: u64, mut units: impl Iterator<Item = (&'static str, u64)>, zero: &str) -> String {
    units
        .find(|(_, factor)| count.is_multiple_of(*factor))
        .map_or_else(|| format!("0{zero}"), |(name, factor)| format!("{}{name}", count / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_a_whole_number_and_a_unit() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(span(text), millis.map(Duration::from_millis), "{text}");
        };
        check("500ms", Some(500));
        check("30s", Some(30_000));
        check("5 m", Some(300_000));
        check("24h", Some(86_400_000));
        check("30d", Some(2_592_000_000));
        check("0s", Some(0));
        check("30", None);
        check("s", None);
        check("1.5s", None);
        check("-1s", None);
        check("30S", None);
        check("99999999999999999999d", None);
        check("18446744073709551615d", None);
        check("3é", None);
        check("", None);
    }

    #[test]
    fn sizes_tell_decimal_from_binary_units() {
        let check = |text: &str, bytes: Option<u64>| assert_eq!(size(text), bytes, "{text}");
        check("8MB", Some(8_000_000));
        check("8MiB", Some(8_388_608));
        check("2 GB", Some(2_000_000_000));
        check("100B", Some(100));
        check("8mb", None);
        check("8", None);
        check("MB", None);
    }

    #[test]
    fn rates_are_a_count_and_a_unit_of_time() {
        let check = |text: &str, expected: Option<(u32, u64)>| {
            let read = rate(text).map(|rate| (rate.count, rate.per.as_secs()));
            assert_eq!(read, expected, "{text}");
        };
        check("60/min", Some((60, 60)));
        check("5/s", Some((5, 1)));
        check(" 300 / h ", Some((300, 3_600)));
        check("1000/d", Some((1_000, 86_400)));
        check("0/s", Some((0, 1)));
        check("60", None);
        check("60/", None);
        check("/min", None);
        check("+60/min", None);
        check("-1/s", None);
        check("1.5/s", None);
        check("60/hour", None);
        check("99999999999/s", None);
    }

    #[test]
    fn what_is_shown_reads_back_the_same() {
        for text in ["500ms", "1500ms", "30s", "5m", "24h", "1d", "5d", "0s"] {
            let read = span(text).unwrap();
            assert_eq!(span(&show_span(read)), Some(read), "{text}");
        }
        assert_eq!(show_span(Duration::from_secs(90)), "90s");
        assert_eq!(show_span(Duration::from_hours(24)), "1d");
        assert_eq!(show_size(8_000_000), "8MB");
        assert_eq!(show_size(8_388_608), "8388608B");
    }
}
