//! The secret that opens the backend's API. Shows itself only to who asks by name.
//!
//! Must not know where tokens come from.

use std::fmt;

use thiserror::Error;

/// Longest token, in bytes.
pub const MAX_LEN: usize = 1024;

/// A bearer token: 1 to 1024 visible ASCII characters, so that it can be nothing but the value of
/// one header.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Why a text is no token. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Nothing but white space.
    #[error("the token is empty")]
    Empty,
    /// Longer than 1024 bytes.
    #[error("the token is longer than {MAX_LEN} bytes")]
    TooLong,
    /// A blank, a control character or something beyond ASCII.
    #[error("the token holds a blank or a character that no token holds")]
    Character,
}

impl Token {
    /// Parses a token; white space around it is ignored.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.len() > MAX_LEN {
            return Err(TokenError::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Character);
        }
        Ok(Self(text.to_owned()))
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_one_line_of_visible_ascii() {
        assert_eq!(Token::parse(" bst_1\n").map(|t| t.expose().to_owned()), Ok("bst_1".to_owned()));
        for (text, expected) in [
            ("", TokenError::Empty),
            (" \n", TokenError::Empty),
            ("a b", TokenError::Character),
            ("a\r\nX-Evil: 1", TokenError::Character),
            ("tökén", TokenError::Character),
            (&"a".repeat(MAX_LEN + 1), TokenError::TooLong),
        ] {
            assert_eq!(Token::parse(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn debug_output_does_not_show_it() {
        let token = Token::parse("bst_secret").expect("a token");
        assert!(!format!("{token:?}").contains("secret"));
    }
}
