//! The text of `expiry-time=`, in the form that one sshd reads, and back.
//!
//! Before OpenSSH 9.1 sshd reads it as its own local time, and always as standard time: it leaves
//! `tm_isdst` at 0 (mktime(3)), so that in summer the same text means one hour later than the
//! clock on the wall. This file must not know keys or files.

use std::fs::File;
use std::io::Read;

use bastio_protocol::KeyExpiry;
use tz::TimeZone;

use super::version::Version;

/// Where the host says what its local time is.
const ZONE: &str = "/etc/localtime";
/// Largest zone file that is read, in bytes.
const MAX_ZONE: u64 = 1 << 20;
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
    #[must_use]
    pub fn expiry(&self, until: i64) -> KeyExpiry {
        match self {
            Self::Utc => KeyExpiry::utc(until),
            Self::Local(zone) => KeyExpiry::local(until, standard_offset(zone, until)),
        }
    }

    /// The end that this sshd reads, in seconds since the Unix epoch; `None` when it takes the text
    /// for none, and the key for no key.
    #[must_use]
    pub fn moment(&self, expiry: &KeyExpiry) -> Option<i64> {
        match self {
            _ if !expiry.is_utc() && matches!(self, Self::Utc) => {
                Some(local_moment(&zone(), expiry))
            }
            Self::Utc => Some(expiry.moment(0)),
            Self::Local(_) if expiry.is_utc() => None,
            Self::Local(zone) => Some(local_moment(zone, expiry)),
        }
    }
}

fn local_moment(zone: &TimeZone, expiry: &KeyExpiry) -> i64 {
    let about = expiry.moment(standard_offset(zone, expiry.moment(0)));
    expiry.moment(standard_offset(zone, about))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn local(rule: &str) -> Clock {
        Clock::Local(Box::new(TimeZone::from_posix_tz(rule).unwrap()))
    }

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
    const SYDNEY: &str = "AEST-10AEDT,M10.1.0,M4.1.0/3";
    /// 2026-07-01 11:00 UTC, 13:00 on Berlin's walls.
    const SUMMER: i64 = 1_782_903_600;
    /// 2026-12-01 11:00 UTC, 12:00 on Berlin's walls.
    const WINTER: i64 = 1_796_122_800;

    /// What `ssh-keygen -s -V` of OpenSSH 8.4 makes of the texts with TZ=Europe/Berlin.
    #[test]
    fn summer_is_written_in_standard_time_as_sshd_reads_it() {
        for (clock, until, text) in [
            (local(BERLIN), SUMMER, "20260701120000"),
            (local(BERLIN), WINTER, "20261201120000"),
            (Clock::Utc, SUMMER, "20260701110000Z"),
            (local("IST-5:30"), SUMMER, "20260701163000"),
            (local(SYDNEY), WINTER, "20261201210000"),
        ] {
            assert_eq!(clock.expiry(until).as_str(), text);
            assert_eq!(clock.moment(&KeyExpiry::parse(text).unwrap()), Some(until), "{text}");
        }
        let utc = KeyExpiry::utc(SUMMER);
        assert_eq!(local(BERLIN).moment(&utc), None);
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
            for clock in [Clock::Utc, local(BERLIN), local(SYDNEY), local("<-03>3")] {
                prop_assert_eq!(clock.moment(&clock.expiry(until)), Some(until));
            }
        }

        #[test]
        fn any_moment_is_written_without_harm(until: i64) {
            let _ = local(BERLIN).moment(&local(BERLIN).expiry(until));
        }
    }
}
