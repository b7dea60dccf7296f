//! Points in time as sshd and sudo write them, `YYYYMMDDHHMMSS`, and the calendar behind that.
//!
//! This file must not know what time it is, nor any time zone: who knows an offset says it.

/// The first moment that sshd and sudo can name and tell from "never": a second and a day after
/// the epoch's beginning, so that every time zone has it.
const FIRST: i64 = SECONDS_OF_DAY + 1;
/// The last day with a year of four digits, less one for time zones.
const LAST: i64 = 253_402_300_799 - SECONDS_OF_DAY;
const SECONDS_OF_DAY: i64 = 86_400;

/// The digits for a moment (seconds since the Unix epoch) on a clock that is `offset` seconds
/// ahead of UTC. What lies beyond the years 1970 to 9999 becomes their first or last moment:
/// long over stays over, and practically never stays so.
pub(crate) fn digits(moment: i64, offset: i64) -> String {
    let local = moment.clamp(FIRST, LAST) + offset.clamp(-SECONDS_OF_DAY, SECONDS_OF_DAY);
    let (days, second) = (local.div_euclid(SECONDS_OF_DAY), local.rem_euclid(SECONDS_OF_DAY));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}

/// The moment of `YYYYMMDD`, `YYYYMMDDHHMM` or `YYYYMMDDHHMMSS` on a clock that is `offset`
/// seconds ahead of UTC. `None` when there is no such day or time of day.
pub(crate) fn moment(digits: &str, offset: i64) -> Option<i64> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(digits.len(), 8 | 12 | 14) {
        return None;
    }
    let part = |from: usize, to: usize| digits.get(from..to).map_or(Ok(0), str::parse::<i64>);
    let (year, month, day) = (part(0, 4).ok()?, part(4, 6).ok()?, part(6, 8).ok()?);
    let (hour, minute, second) = (part(8, 10).ok()?, part(10, 12).ok()?, part(12, 14).ok()?);
    let days = days_from_civil(year, month, day);
    let good =
        civil_from_days(days) == (year, month, day) && hour < 24 && minute < 60 && second < 60;
    good.then(|| days * SECONDS_OF_DAY + hour * 3600 + minute * 60 + second - offset)
}

/// Year, month and day, of the Gregorian calendar, of a day counted from 1970-01-01. Years begin in March here, so that the day
/// that comes and goes is the last one; 400 years have 146097 days.
#[must_use]
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + next, month, day)
}

/// Days from 1970-01-01 to that day; the inverse of [`civil_from_days`] for days that exist.
#[must_use]
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_written_as_date_writes_them() {
        // `date -u -d @N +%Y%m%d%H%M%S`
        for (seconds, expected) in [
            (86_401, "19700102000001"),
            (951_782_399, "20000228235959"),
            (951_782_400, "20000229000000"),
            (1_709_251_199, "20240229235959"),
            (1_795_315_849, "20261122025049"),
            (4_107_542_400, "21000301000000"),
            (253_402_214_399, "99991230235959"),
        ] {
            assert_eq!(digits(seconds, 0), expected, "{seconds}");
            assert_eq!(moment(expected, 0), Some(seconds), "{expected}");
        }
    }

    #[test]
    fn an_offset_is_the_clock_ahead_of_utc() {
        assert_eq!(digits(1_795_315_849, 3600), "20261122035049");
        assert_eq!(digits(1_795_315_849, -19_800), "20261121212049");
        assert_eq!(moment("20261122035049", 3600), Some(1_795_315_849));
    }

    #[test]
    fn what_no_clock_shows_is_no_moment() {
        for text in [
            "",
            "2026",
            "20260229",
            "20261301",
            "20260001",
            "20260100",
            "202601012400",
            "202601012360",
            "20260101235960",
            "2026010123595",
            "2026-101",
            "+2260101",
            "２０２６",
        ] {
            assert_eq!(moment(text, 0), None, "{text}");
        }
        assert_eq!(moment("20261121", 0), moment("20261121000000", 0));
    }

    #[test]
    fn what_cannot_be_written_is_as_far_as_can_be() {
        assert_eq!(digits(i64::MIN, i64::MIN), "19700101000001");
        assert_eq!(digits(i64::MAX, i64::MAX), "99991231235959");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(seconds in FIRST..=LAST, offset in -50_400_i64..=50_400) {
            prop_assert_eq!(moment(&digits(seconds, offset), offset), Some(seconds));
        }
    }
}
