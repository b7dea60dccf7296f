//! The text of `expiry-time=`, in the form that one sshd reads, and back.
//!
//! Before OpenSSH 9.1 sshd reads it as its own local time, and always as standard time: it leaves
//! `tm_isdst` at 0 (mktime(3)), so that in summer the same text means one hour later than the
//! clock on the wall. This file must not know keys or files.

use std::fs::File;
use std::io::Read;

use tz::{TimeZone, UtcDateTime};

use super::version::Version;

/// Where the host says what its local time is.
const ZONE: &str = "/etc/localtime";
/// Largest zone file that is read, in bytes.
const MAX_ZONE: u64 = 1 << 20;
/// 9999-12-31 23:59:59: later ends are that one.
const LAST: i64 = 253_402_300_799;
/// The end of what has ended anyway; 0 is not a time for sshd.
const FIRST: i64 = 1;
/// Steps in which standard time is looked for around a moment of summer time, as glibc does.
const STRIDE: i64 = 601_200;
/// Steps to both sides: some eight years.
const STEPS: i64 = 428;

/// How one sshd reads times.
#[derive(Debug, Clone)]
pub enum Clock {
    /// With `Z`: as UTC.
    Utc,
    /// As local time of this zone.
    Local(Box<TimeZone>),
}

impl Clock {
    /// The clock of an sshd on this host; one that does not tell its version is a recent one. An
    /// older one would then refuse the key, never let it in for longer.
    pub fn of(version: Option<Version>) -> Self {
        if version.is_none_or(Version::reads_utc) {
            Self::Utc
        } else {
            Self::Local(Box::new(zone()))
        }
    }

    /// The text for an end, in seconds since the Unix epoch.
    pub fn text(&self, until: i64) -> String {
        let until = until.clamp(FIRST, LAST);
        match self {
            Self::Utc => format!("{}Z", digits(until)),
            Self::Local(zone) => digits(until + standard_offset(zone, until)),
        }
    }

    /// What this sshd makes of a text: `YYYYMMDD[HHMM[SS]][Z]`, in seconds since the Unix epoch.
    pub fn read(&self, text: &str) -> Option<i64> {
        match (text.strip_suffix(['Z', 'z']), self) {
            (Some(text), Self::Utc) => naive(text),
            (Some(_), Self::Local(_)) => None,
            (None, Self::Utc) => read_local(&zone(), text),
            (None, Self::Local(zone)) => read_local(zone, text),
        }
    }
}

fn read_local(zone: &TimeZone, text: &str) -> Option<i64> {
    let naive = naive(text)?;
    let about = naive - standard_offset(zone, naive);
    Some(naive - standard_offset(zone, about))
}

/// The host's zone; UTC when it names none, as glibc has it.
fn zone() -> TimeZone {
    let mut bytes = Vec::new();
    let read = File::open(ZONE).and_then(|file| file.take(MAX_ZONE).read_to_end(&mut bytes));
    let zone = read.ok().and_then(|_| TimeZone::from_tz_data(&bytes).ok());
    zone.unwrap_or_else(TimeZone::utc)
}

/// Seconds that standard time is ahead of UTC around a moment.
fn standard_offset(zone: &TimeZone, at: i64) -> i64 {
    let standard = |at: i64| {
        let kind = zone.find_local_time_type(at).ok()?;
        (!kind.is_dst()).then(|| i64::from(kind.ut_offset()))
    };
    let around = (0..STEPS).flat_map(|step| [at - step * STRIDE, at + step * STRIDE]);
    around.into_iter().find_map(standard).unwrap_or(0)
}

/// `YYYYMMDDHHMMSS` of a time in seconds since the Unix epoch.
fn digits(at: i64) -> String {
    let Ok(it) = UtcDateTime::from_timespec(at.clamp(FIRST, LAST), 0) else {
        // Not within these bounds; sshd refuses a key with such an end.
        return "00000000000000".to_owned();
    };
    let (year, month, day) = (it.year(), it.month(), it.month_day());
    let (hour, minute, second) = (it.hour(), it.minute(), it.second());
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}

/// The time that digits would mean in UTC.
fn naive(text: &str) -> Option<i64> {
    if !matches!(text.len(), 8 | 12 | 14) || !text.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let year = text.get(..4)?.parse().ok()?;
    let mut parts = [1_u8, 1, 0, 0, 0];
    for (part, at) in parts.iter_mut().zip((4..text.len()).step_by(2)) {
        *part = text.get(at..at + 2)?.parse().ok()?;
    }
    let [month, day, hour, minute, second] = parts;
    let time = UtcDateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    Some(time.unix_time())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn local(rule: &str) -> Clock {
        Clock::Local(Box::new(TimeZone::from_posix_tz(rule).unwrap()))
    }

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    /// What `ssh-keygen -s -V` of OpenSSH 8.4 makes of the texts with TZ=Europe/Berlin.
    #[test]
    fn summer_is_written_in_standard_time_as_sshd_reads_it() {
        let berlin = local(BERLIN);
        let summer = 1_782_903_600; // 2026-07-01 11:00 UTC, 13:00 on the wall
        assert_eq!(berlin.text(summer), "20260701120000");
        let winter = 1_796_122_800; // 2026-12-01 11:00 UTC, 12:00 on the wall
        assert_eq!(berlin.text(winter), "20261201120000");
        assert_eq!(Clock::Utc.text(summer), "20260701110000Z");
        let kolkata = local("IST-5:30");
        assert_eq!(kolkata.text(summer), "20260701163000");
        let sydney = local("AEST-10AEDT,M10.1.0,M4.1.0/3");
        assert_eq!(sydney.text(winter), "20261201210000");
    }

    #[test]
    fn texts_are_read_as_each_sshd_reads_them() {
        assert_eq!(Clock::Utc.read("20260701110000Z"), Some(1_782_903_600));
        assert_eq!(Clock::Utc.read("202607011100z"), Some(1_782_903_600));
        assert_eq!(Clock::Utc.read("20260701Z"), Some(1_782_864_000));
        assert_eq!(local(BERLIN).read("20260701120000"), Some(1_782_903_600));
        assert_eq!(local(BERLIN).read("20260701110000Z"), None);
        for text in ["", "Z", "2026", "20261301", "20260701110", "2026070111000 ", "２０２６0701"]
        {
            assert_eq!(Clock::Utc.read(text), None, "{text}");
        }
    }

    #[test]
    fn ends_outside_of_all_calendars_have_ended_or_never_end() {
        assert_eq!(Clock::Utc.text(i64::MIN), "19700101000001Z");
        assert_eq!(Clock::Utc.text(0), "19700101000001Z");
        assert_eq!(Clock::Utc.text(i64::MAX), "99991231235959Z");
        assert_eq!(local(BERLIN).text(i64::MAX), "99991231235959");
    }

    #[test]
    fn the_version_chooses() {
        assert!(matches!(Clock::of(None), Clock::Utc));
        assert!(matches!(Clock::of(Some(Version(9, 1))), Clock::Utc));
        assert!(matches!(Clock::of(Some(Version(8, 4))), Clock::Local(_)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(until in 1_000_000_000_i64..4_000_000_000) {
            for clock in [Clock::Utc, local(BERLIN), local("AEST-10AEDT,M10.1.0,M4.1.0/3"), local("<-03>3")] {
                prop_assert_eq!(clock.read(&clock.text(until)), Some(until));
            }
        }

        #[test]
        fn any_text_is_read_without_harm(text in ".{0,16}") {
            let _ = (Clock::Utc.read(&text), local(BERLIN).read(&text));
        }
    }
}
