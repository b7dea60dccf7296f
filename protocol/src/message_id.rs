//! The `mid` of a message: whatever scalar the sender chose, echoed to the letter.
//!
//! This file must not know where ids come from: randomness is the caller's.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use thiserror::Error;

/// Longest `mid`, in bytes of its JSON text.
const MAX_LEN: usize = 256;

/// A message id: a JSON string, number or boolean. Kept as its exact JSON text, so that numbers
/// beyond 64 bits and fractions come back as they were sent. Two ids are equal when their JSON
/// text is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(String);

/// Why a `mid` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MessageIdError {
    /// No `mid`, or `null`.
    #[error("the message has no mid")]
    Missing,
    /// A list or an object.
    #[error("a mid is a string, a number or a boolean, not a list or an object")]
    NotAScalar,
    /// More than 256 bytes.
    #[error("a mid of more than {MAX_LEN} bytes")]
    TooLong,
}

impl MessageId {
    /// An id in the form that the original agent makes: the number as a decimal string.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        Self(format!("\"{number}\""))
    }

    /// Takes the JSON text of a `mid` member.
    ///
    /// # Errors
    /// [`MessageIdError`] when it is no scalar or too long.
    pub fn from_json(value: &RawValue) -> Result<Self, MessageIdError> {
        let text = value.get();
        match text.bytes().next() {
            None | Some(b'n') => Err(MessageIdError::Missing),
            Some(b'[' | b'{') => Err(MessageIdError::NotAScalar),
            _ if text.len() > MAX_LEN => Err(MessageIdError::TooLong),
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// The id for people and databases: the text of a string, the JSON of anything else.
    #[must_use]
    pub fn text(&self) -> String {
        let inside = self.0.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        match inside {
            Some(plain) if !plain.contains('\\') => plain.to_owned(),
            _ => serde_json::from_str::<String>(&self.0).unwrap_or_else(|_| self.0.clone()),
        }
    }

    /// The id as JSON text, as it stands on the wire.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

impl From<&str> for MessageId {
    /// An id that is a JSON string.
    fn from(text: &str) -> Self {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if text.bytes().all(is_plain) {
            return Self(format!("\"{text}\""));
        }
        Self(serde_json::Value::from(text).to_string())
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({})", self.0)
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}
