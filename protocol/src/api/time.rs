//! A moment as files and command lines have it: a day or a time of RFC 3339. Pure: no clock.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::utc;
use crate::stamp::{civil_from_days, days_from_civil};

/// Seconds of a day.
const DAY: i64 = 24 * 3600;

/// A moment, in seconds since the Unix epoch. Written as `2026-12-01T18:00:00Z`; read in that form
/// with any distance from UTC, as a day (its begin in UTC), or as the number itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        time(text).map(Self).ok_or("give a day (2026-12-01) or a time (2026-12-01T18:00Z)")
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = format!("{}Z", utc(self.0).replace(' ', "T"));
        // What has no such text stays a number.
        if text.parse() == Ok(*self) {
            serializer.serialize_str(&text)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Time;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a day (2026-12-01) or a time (2026-12-01T18:00Z)")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                text.parse().map_err(|advice| E::custom(format!("{text:?} is no time; {advice}")))
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Time, E> {
                Ok(Time(seconds))
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Time, E> {
                i64::try_from(seconds).map(Time).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
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
    fn a_moment_is_written_so_that_it_is_read_as_the_same() {
        for (text, expected) in [
            ("\"2026-12-01\"", Some(1_796_083_200)),
            ("\"2026-12-01T18:00+01:00\"", Some(1_796_144_400)),
            ("1796083200", Some(1_796_083_200)),
            ("-5", Some(-5)),
            ("\"soon\"", None),
            ("18446744073709551615", None),
            ("true", None),
        ] {
            let read = serde_json::from_str::<Time>(text).ok();
            assert_eq!(read, expected.map(Time), "{text}");
        }
        for seconds in [i64::MIN, -1, 0, 1, 86_400, 1_796_144_400, 253_402_300_799, i64::MAX] {
            let text = serde_json::to_string(&Time(seconds)).expect("JSON");
            assert_eq!(serde_json::from_str::<Time>(&text).ok(), Some(Time(seconds)), "{text}");
        }
        let text = serde_json::to_string(&Time(1_796_144_400)).expect("JSON");
        assert_eq!(text, "\"2026-12-01T17:00:00Z\"");
    }
}
