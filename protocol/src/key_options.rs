//! The options in front of a key, as sshd(8) defines them under AUTHORIZED_KEYS FILE FORMAT.
//!
//! This file must not know the key behind them, nor which sshd understands which option.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Options of one key, in one spelling. Nothing by default: the key may do everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyOptions(String);

/// Why a text is no list of options.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("key options: {reason}")]
pub struct KeyOptionsError {
    reason: String,
}

impl KeyOptions {
    /// Parses a list of options.
    ///
    /// # Errors
    /// [`KeyOptionsError`].
    pub fn parse(text: &str) -> Result<Self, KeyOptionsError> {
        if text.contains(|c: char| c.is_control()) {
            return Err(KeyOptionsError { reason: "no control characters".to_owned() });
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The options as they stand in front of the key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for KeyOptions {
    type Error = KeyOptionsError;

    fn try_from(text: String) -> Result<Self, KeyOptionsError> {
        Self::parse(&text)
    }
}

impl From<KeyOptions> for String {
    fn from(options: KeyOptions) -> Self {
        options.0
    }
}
