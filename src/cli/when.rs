//! Spans and times as a person types them: `10m`, `24h`, `2026-11-21`, `2026-11-21 08:15`.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::model::time::Wall;

/// Reads a span such as `30s`, `10m`, `24h`, `30d`; for clap, so its error is a sentence.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err("write a number and s, m, h, d or w, for example 10m".to_owned()),
    };
    let number: u64 =
        number.parse().map_err(|_| "write it for example as 30s, 10m or 24h".to_owned())?;
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(|| "that is longer than patchdrop can count".to_owned())
}

/// A point in time as a person means it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// This long ago.
    Ago(Duration),
    /// Local date and time.
    Local(jiff::civil::DateTime),
    /// A time with its offset.
    Exact(Wall),
}

impl Since {
    /// Reads `24h`, `2026-11-21`, `2026-11-21 08:15` or RFC 3339; for clap.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(span) = parse_span(text) {
            return Ok(Self::Ago(span));
        }
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Ok(Self::Exact(Wall(time.as_millisecond())));
        }
        if let Ok(time) = text.parse::<jiff::civil::DateTime>() {
            return Ok(Self::Local(time));
        }
        Err("write a span (24h, 7d) or a local time (2026-11-21, \"2026-11-21 08:15\")".to_owned())
    }

    /// The wall time that is meant.
    pub(crate) fn wall(&self, now: Wall, zone: &TimeZone) -> Wall {
        match self {
            Self::Ago(span) => {
                Wall(now.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
            }
            Self::Exact(wall) => *wall,
            Self::Local(time) => match time.to_zoned(zone.clone()) {
                Ok(zoned) => Wall(zoned.timestamp().as_millisecond()),
                Err(_) => Wall(i64::MIN),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times_are_read_as_they_are_meant() {
        let now = Wall(1_000_000_000_000);
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let check = |text: &str, wall: i64| {
            assert_eq!(Since::parse(text).unwrap().wall(now, &zone), Wall(wall), "{text}");
        };
        check("30s", 999_999_970_000);
        check("10m", 999_999_400_000);
        check("24h", 999_913_600_000);
        check("7d", 999_395_200_000);
        check("2w", 998_790_400_000);
        check("2001-09-09T01:46:40Z", 1_000_000_000_000);
        check("2001-09-09 03:46:40", 1_000_000_000_000);
        check("2001-09-09 03:46", 999_999_960_000);
        check("2001-09-09", 999_986_400_000);
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["", "10", "m", "-5m", "5 m", "1.5h", "yesterday", "99999999999999999999s"] {
            assert!(Since::parse(text).unwrap_err().contains("24h"), "{text}");
            assert!(parse_span(text).is_err(), "{text}");
        }
        assert!(parse_span("18446744073709551615w").is_err());
    }
}
