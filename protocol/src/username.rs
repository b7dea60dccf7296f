//! Login names as bastio accepts them.
//!
//! This file must not know whether an account of that name exists anywhere.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest login name, in bytes (Linux `LOGIN_NAME_MAX` less the final NUL as useradd(8) applies it).
const MAX_LEN: usize = 32;
/// Longest login name of version 1 of the wire.
const MAX_LEN_V1: usize = 31;

/// A login name: 1 to 32 characters, the first of `[a-z_]`, then `[a-z0-9_]`, with `-` and `.`
/// allowed inside (neither first nor last).
///
/// The original agent knows only names without dash and dot, up to 31 characters:
/// [`Username::fits_version_1`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Username(String);

/// Why a text is no login name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UsernameError {
    /// Nothing, or more than 32 characters.
    #[error("a user name has 1 to 32 characters, this one has {len}")]
    Length {
        /// Characters found.
        len: usize,
    },
    /// A character that no login name may hold at this place.
    #[error(
        "{found:?} may not stand at place {place} of a user name; use a-z, 0-9 and _, \
         begin with a letter or _, and keep - and . inside"
    )]
    Character {
        /// The character found.
        found: char,
        /// Its place, counted from 1.
        place: usize,
    },
}

impl Username {
    /// Parses a login name.
    ///
    /// # Errors
    /// [`UsernameError`] with the first fault found.
    pub fn parse(text: &str) -> Result<Self, UsernameError> {
        let len = text.chars().count();
        if len == 0 || len > MAX_LEN {
            return Err(UsernameError::Length { len });
        }
        for (index, found) in text.chars().enumerate() {
            let allowed = match found {
                'a'..='z' | '_' => true,
                '0'..='9' => index > 0,
                '-' | '.' => index > 0 && index + 1 < len,
                _ => false,
            };
            if !allowed {
                return Err(UsernameError::Character { found, place: index + 1 });
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether an original agent (version 1 of the wire) can take this name.
    #[must_use]
    pub fn fits_version_1(&self) -> bool {
        self.0.len() <= MAX_LEN_V1 && !self.0.contains(['-', '.'])
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Username {
    type Error = UsernameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl std::str::FromStr for Username {
    type Err = UsernameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl From<Username> for String {
    fn from(name: Username) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_login_names_are() {
        for text in
            ["a", "_", "alice", "web_1", "a-b", "jean.luc", "a2345678901234567890123456789012"]
        {
            assert_eq!(Username::parse(text).map(|n| n.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn refuses_each_fault_by_name() {
        let character = |found, place| Err(UsernameError::Character { found, place });
        for (text, expected) in [
            ("", Err(UsernameError::Length { len: 0 })),
            ("a23456789012345678901234567890123", Err(UsernameError::Length { len: 33 })),
            ("1a", character('1', 1)),
            ("-a", character('-', 1)),
            ("a-", character('-', 2)),
            ("a.", character('.', 2)),
            ("Alice", character('A', 1)),
            ("alice\n", character('\n', 6)),
            ("a b", character(' ', 2)),
            ("a$", character('$', 2)),
            ("a/../b", character('/', 2)),
            ("é", character('é', 1)),
        ] {
            assert_eq!(Username::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn knows_what_version_1_can_take() {
        for (text, fits) in [
            ("alice", true),
            ("a234567890123456789012345678901", true),
            ("a2345678901234567890123456789012", false),
            ("a-b", false),
            ("a.b", false),
        ] {
            assert_eq!(Username::parse(text).map(|n| n.fits_version_1()), Ok(fits), "{text}");
        }
    }
}
