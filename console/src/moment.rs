//! Times as people write and read them: `2h`, `2026-12-01`, RFC 3339. Pure: the time is passed in.

use std::str::FromStr;

use bastio_protocol::api::Time;
pub use bastio_protocol::api::utc;

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
        span(text).map(Self::In).or_else(|| text.parse().ok().map(|Time(at)| Self::At(at))).ok_or(
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
        span(text).map(Self::Ago).or_else(|| text.parse().ok().map(|Time(at)| Self::At(at))).ok_or(
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

#[cfg(test)]
mod tests {
    use bastio_protocol::{civil_from_days, days_from_civil};

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
