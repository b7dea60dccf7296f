//! Which version of OpenSSH this is, and what that version understands in a key line.
//!
//! Source: the release notes at openssh.com. This file must not know files or programs.

use std::fmt;

/// Major and minor number of OpenSSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16);

/// The first version that takes `expiry-time=`.
const EXPIRY: Version = Version(7, 7);
/// The first version that reads a time with `Z` as UTC, in place of its own local time.
const UTC: Version = Version(9, 1);
/// Options that came with a version still in use or later; all others are older.
const OPTIONS: [(&str, Version); 5] = [
    ("restrict", Version(7, 2)),
    ("expiry-time", EXPIRY),
    ("permitlisten", Version(7, 8)),
    ("no-touch-required", Version(8, 2)),
    ("verify-required", Version(8, 4)),
];
/// Keys on hardware (`sk-...`) came with this version.
const HARDWARE_KEYS: Version = Version(8, 2);

impl Version {
    /// Reads what `sshd -V` says; older ones do not know `-V` and complain around it.
    pub fn parse(said: &str) -> Option<Self> {
        let at = said.find("OpenSSH_")?;
        let text = said.get(at..)?.strip_prefix("OpenSSH_")?;
        let (major, rest) = text.split_once('.')?;
        let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }

    /// Whether it lets keys end by themselves.
    pub fn has_expiry(self) -> bool {
        self >= EXPIRY
    }

    /// Whether it reads times in UTC.
    pub fn reads_utc(self) -> bool {
        self >= UTC
    }

    /// Whether it knows keys of this algorithm.
    pub fn knows_algorithm(self, algorithm: &str) -> bool {
        !algorithm.starts_with("sk-") || self >= HARDWARE_KEYS
    }

    /// The first of these options that it does not know.
    pub fn unknown_option(self, options: &str) -> Option<&'static str> {
        let names = option_names(options);
        let is_asked = |name: &str| names.iter().any(|it| it.eq_ignore_ascii_case(name));
        let unknown = OPTIONS.into_iter().find(|(name, since)| *since > self && is_asked(name));
        unknown.map(|(name, _)| name)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenSSH {}.{}", self.0, self.1)
    }
}

/// The names in a list of options: what stands before `=`, split at commas outside quotes.
fn option_names(options: &str) -> Vec<String> {
    let (mut names, mut name) = (Vec::new(), String::new());
    let (mut quoted, mut in_value, mut before) = (false, false, ' ');
    for c in options.chars() {
        match c {
            '"' if before != '\\' => quoted = !quoted,
            ',' if !quoted => {
                names.push(std::mem::take(&mut name));
                in_value = false;
            }
            '=' if !quoted => in_value = true,
            c if !quoted && !in_value => name.push(c),
            _ => {}
        }
        before = c;
    }
    names.push(name);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_sshd_says() {
        for (said, version) in [
            ("OpenSSH_9.2, OpenSSL 3.0.22 25 Aug 2026\n", Some(Version(9, 2))),
            ("OpenSSH_10.0p2 Debian-7+deb13u4, OpenSSL 3.5.7\n", Some(Version(10, 0))),
            ("unknown option -- V\nOpenSSH_8.4p1 Debian-5+deb11u7\nusage:", Some(Version(8, 4))),
            ("usage: sshd\n", None),
            ("OpenSSH_x", None),
            ("OpenSSH_99999999.1", None),
        ] {
            assert_eq!(Version::parse(said), version, "{said}");
        }
        assert_eq!(Version(9, 2).to_string(), "OpenSSH 9.2");
    }

    #[test]
    fn what_came_with_a_version_is_known_from_then_on() {
        let table = [
            (Version(7, 4), false, false, Some("expiry-time")),
            (Version(8, 0), true, false, Some("no-touch-required")),
            (Version(8, 2), true, false, Some("verify-required")),
            (Version(8, 4), true, false, None),
            (Version(9, 1), true, true, None),
            (Version(10, 0), true, true, None),
        ];
        let all = r#"restrict,command="a,verify-required=\"x",no-touch-required,expiry-time="1",Verify-Required"#;
        for (version, expiry, utc, unknown) in table {
            assert_eq!((version.has_expiry(), version.reads_utc()), (expiry, utc), "{version}");
            assert_eq!(version.unknown_option(all), unknown, "{version}");
        }
        let quoted = r#"command="verify-required,no-touch-required""#;
        assert_eq!(Version(7, 4).unknown_option(quoted), None);
        assert!(!Version(8, 1).knows_algorithm("sk-ssh-ed25519@openssh.com"));
        assert!(Version(8, 1).knows_algorithm("ssh-ed25519"));
    }
}
