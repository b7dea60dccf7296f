//! When sshd stops taking a key: the value of the option `expiry-time=""`.
//!
//! This file must not know which form a server's sshd understands, nor the server's time zone.

use std::fmt;

use super::{KeyOptionsError, fault};
use crate::stamp;

/// The text of an end: `YYYYMMDDHHMMSS`, in sshd's local time, or with a `Z` behind it in UTC (OpenSSH 9.1 and
/// later). Read are also the shorter forms `YYYYMMDD` and `YYYYMMDDHHMM`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyExpiry(String);

impl KeyExpiry {
    /// The end at that moment (seconds since the Unix epoch), in UTC.
    ///
    /// Moments before 1970-01-02 are as that day, moments behind the year 9999 as its end.
    #[must_use]
    pub fn utc(moment: i64) -> Self {
        Self(format!("{}Z", stamp::digits(moment, 0)))
    }

    /// The end at that moment for an sshd that knows local time only; its clock is then `offset`
    /// seconds ahead of UTC (at most a day). Limits as [`KeyExpiry::utc`].
    #[must_use]
    pub fn local(moment: i64, offset: i64) -> Self {
        Self(stamp::digits(moment, offset))
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`KeyOptionsError`]: sshd takes such a text for no time, and the key for no key.
    pub fn parse(text: &str) -> Result<Self, KeyOptionsError> {
        match stamp::moment(text.strip_suffix('Z').unwrap_or(text), 0) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(fault(format!("expiry-time={text:?} is no time"))),
        }
    }

    /// Whether it is in UTC, so that no offset counts.
    #[must_use]
    pub fn is_utc(&self) -> bool {
        self.0.ends_with('Z')
    }

    /// The moment in seconds since the Unix epoch, where the clock is `offset` seconds ahead of UTC (at most a
    /// day; counts for local times only).
    #[must_use]
    pub fn moment(&self, offset: i64) -> i64 {
        let (digits, offset) = match self.0.strip_suffix('Z') {
            Some(digits) => (digits, 0),
            None => (self.0.as_str(), offset),
        };
        stamp::moment(digits, offset).expect("only times are taken and written")
    }

    /// The value as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyExpiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_written_and_read_in_utc_and_in_local_time() {
        let moment = 1_795_315_849;
        assert_eq!(KeyExpiry::utc(moment).as_str(), "20261122025049Z");
        assert_eq!(KeyExpiry::local(moment, 3600).as_str(), "20261122035049");
        assert_eq!(KeyExpiry::utc(moment).moment(7200), moment);
        assert_eq!(KeyExpiry::local(moment, 3600).moment(3600), moment);
        assert!(KeyExpiry::utc(moment).is_utc() && !KeyExpiry::local(moment, 0).is_utc());
    }

    #[test]
    fn ends_of_others_are_read() {
        let moment = |text| KeyExpiry::parse(text).map(|expiry| expiry.moment(0)).ok();
        assert_eq!(moment("20261122"), Some(1_795_305_600));
        assert_eq!(moment("202611220250Z"), Some(1_795_315_800));
        for text in
            ["", "Z", "2026", "20261122z", "20261122ZZ", "20261322", "never", "20261122\"", "+1d"]
        {
            assert_eq!(moment(text), None, "{text}");
        }
    }

    #[test]
    fn every_moment_can_be_written_and_read() {
        for moment in [i64::MIN, -1, 0, i64::MAX] {
            let utc = KeyExpiry::utc(moment);
            assert_eq!(KeyExpiry::parse(utc.as_str()), Ok(utc));
        }
    }
}
