//! Times as people write and read them: `2h`, `2026-12-01`, RFC 3339. Pure: the time is passed in.

use std::str::FromStr;

pub use bastio_protocol::api::utc;
use bastio_protocol::{civil_from_days, days_from_civil};

/// Seconds of a day.
const DAY: i64 = 24 * 3600;

/// When something begins or ends, as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// So many seconds from now.
    In(i64),
    /// At that time, in seconds since the Unix epoch.
    At(i64),
}

impl Moment {
    /// In seconds since the Unix epoch.
    pub fn at(self, now: i64) -> i64 {
        match self {
            Self::In(seconds) => now.saturating_add(seconds),
            Self::At(at) => at,
        }
    }
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        span(text).map(Self::In).or_else(|| time(text).map(Self::At)).ok_or(
            "give a duration (90s, 15min, 2h, 7d, 4w), a day (2026-12-01, its begin in UTC) or a \
             time (2026-12-01T18:00Z)",
        )
    }
}

/// When something was, as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// So many seconds ago.
    Ago(i64),
    /// At that time, in seconds since the Unix epoch.
    At(i64),
}

impl Past {
    /// In seconds since the Unix epoch.
    pub fn at(self, now: i64) -> i64 {
        match self {
            Self::Ago(seconds) => now.saturating_sub(seconds),
            Self::At(at) => at,
        }
    }
}

impl FromStr for Past {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        span(text).map(Self::Ago).or_else(|| time(text).map(Self::At)).ok_or(
            "give how long ago it was (90s, 15min, 2h, 7d, 4w), a day (2026-12-01, its begin in \
             UTC) or a time (2026-12-01T18:00:00Z)",
        )
    }
}

/// `90s`, `15min`, `2h`, `7d`, `4w`: in seconds.
fn span(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => DAY,
        "w" => 7 * DAY,
        _ => return None,
    };
    number.parse::<i64>().ok().filter(|number| *number > 0)?.checked_mul(seconds)
}

/// A day, or a day with a time and its distance from UTC (RFC 3339).
fn time(text: &str) -> Option<i64> {
    let (day, rest) = match text.split_at_checked(10)? {
        (day, "") => return days(day).map(|days| days * DAY),
        (day, rest) => (days(day)? * DAY, rest.strip_prefix(['T', 't', ' '])?),
    };
    let (clock, rest) = rest.split_at_checked(5)?;
    let (seconds, zone) = match rest.strip_prefix(':') {
        Some(rest) => rest.split_at_checked(2)?,
        None => ("00", rest),
    };
    let zone = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        ("+", zone) => minutes(zone)? * 60,
        ("-", zone) => -minutes(zone)? * 60,
        _ => return None,
    };
    let seconds = number(seconds, 2, 0..=59)?;
    Some(day + minutes(clock)? * 60 + seconds - zone)
}

/// `HH:MM` in minutes.
fn minutes(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    Some(number(hours, 2, 0..=23)? * 60 + number(minutes, 2, 0..=59)?)
}

/// `YYYY-MM-DD` in days since the Unix epoch.
fn days(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let year = number(parts.next()?, 4, 1970..=9999)?;
    let month = number(parts.next()?, 2, 1..=12)?;
    let day = number(parts.next()?, 2, 1..=31)?;
    let days = days_from_civil(year, month, day);
    // A day that the month does not have is the next month's.
    (parts.next().is_none() && civil_from_days(days) == (year, month, day)).then_some(days)
}

fn number(text: &str, digits: usize, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    let good = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    good.then(|| text.parse().ok()).flatten().filter(|number| range.contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_as_people_write_them() {
        for (text, expected) in [
            ("90s", Some(Moment::In(90))),
            ("15min", Some(Moment::In(900))),
            ("2h", Some(Moment::In(7200))),
            ("7d", Some(Moment::In(7 * DAY))),
            ("4w", Some(Moment::In(28 * DAY))),
            ("1970-01-02", Some(Moment::At(DAY))),
            ("2026-12-01", Some(Moment::At(1_796_083_200))),
            ("2024-02-29", Some(Moment::At(1_709_164_800))),
            ("2026-12-01T18:00:00Z", Some(Moment::At(1_796_148_000))),
            ("2026-12-01T18:00Z", Some(Moment::At(1_796_148_000))),
            ("2026-12-01T18:00+01:00", Some(Moment::At(1_796_144_400))),
            ("2026-12-01T18:00", None),
            ("2026-12-01T18:00:Z", None),
            ("2026-12-01T18Z", None),
            ("2026-12-01T18:00:00+01:00", Some(Moment::At(1_796_144_400))),
            ("2026-12-01T18:00:00-05:30", Some(Moment::At(1_796_167_800))),
            ("", None),
            ("0h", None),
            ("2", None),
            ("h", None),
            ("2 h", None),
            ("-2h", None),
            ("99999999999999999w", None),
            ("2023-02-29", None),
            ("2026-13-01", None),
            ("2026-12-01T18:00:00", None),
            ("2026-12-01T25:00:00Z", None),
            ("tomorrow", None),
        ] {
            assert_eq!(text.parse::<Moment>().ok(), expected, "{text}");
        }
        assert_eq!(Moment::In(5).at(10), 15);
        assert_eq!("2h".parse::<Past>().map(|past| past.at(10_000)), Ok(2800));
        assert_eq!("1970-01-02".parse::<Past>().map(|past| past.at(10_000)), Ok(DAY));
        assert!("yesterday".parse::<Past>().is_err());
    }

    #[test]
    fn times_are_shown_as_they_are_written() {
        assert_eq!(utc(1_796_148_000), "2026-12-01 18:00:00");
        for days in (0..40_000).step_by(13) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
