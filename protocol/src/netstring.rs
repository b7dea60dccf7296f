//! Frames: `<decimal length>:<body>,` over bytes that arrive in any pieces.
//!
//! Source: D. J. Bernstein's netstrings, with the limit of the original agent. This file must
//! not know what a body means, nor where its bytes come from.

use thiserror::Error;

/// Largest body of version 1 of the wire, in bytes (32 KiB; the limit itself is allowed).
pub const V1_LIMIT: usize = 32 * 1024;

/// Longest length field accepted, in digits. The original agent takes any number of leading
/// zeros; an end keeps a peer from feeding zeros for ever.
const MAX_DIGITS: usize = 8 * 1024;

/// Why a stream of bytes is no netstring. After any of these the stream cannot be read on: where
/// the next frame begins is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetstringError {
    /// A byte other than a digit or `:` stands in the length (a sign, a space, a newline...).
    #[error("byte 0x{byte:02x} in the length of a netstring; only digits may stand before ':'")]
    NotADigit {
        /// The byte found.
        byte: u8,
    },
    /// The length has no digit (`:,`).
    #[error("a netstring without a length")]
    NoLength,
    /// The announced body is larger than the reader's limit; found before the body is read.
    #[error("a netstring longer than the limit of {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The byte behind the body is not `,`: the length was wrong.
    #[error("byte 0x{found:02x} instead of ',' behind the body of a netstring")]
    MissingComma {
        /// The byte found.
        found: u8,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a netstring")]
    Truncated,
    /// [`Netstring::parse`] found bytes behind the one frame.
    #[error("{extra} bytes behind the netstring")]
    TrailingBytes {
        /// How many bytes stand behind the frame.
        extra: usize,
    },
}

/// Composes and parses single, whole netstrings.
#[derive(Debug)]
pub struct Netstring;

impl Netstring {
    /// Frames `body`. Writes no leading zeros; an empty body is `0:,`.
    #[must_use]
    pub fn compose(body: &[u8]) -> Vec<u8> {
        let mut frame = format!("{}:", body.len()).into_bytes();
        frame.reserve_exact(body.len() + 1);
        frame.extend_from_slice(body);
        frame.push(b',');
        frame
    }

    /// Parses bytes that are exactly one netstring and returns its body.
    ///
    /// # Errors
    /// Any [`NetstringError`]; an incomplete frame is [`NetstringError::Truncated`].
    pub fn parse(frame: &[u8], limit: usize) -> Result<Vec<u8>, NetstringError> {
        let mut decoder = NetstringDecoder::new(limit);
        decoder.push(frame);
        let body = decoder.next_body()?.ok_or(NetstringError::Truncated)?;
        match decoder.buffered() {
            0 => Ok(body),
            extra => Err(NetstringError::TrailingBytes { extra }),
        }
    }
}

/// Decodes netstrings from bytes pushed in pieces of any size.
///
/// Holds at most what was pushed and not yet taken; a frame over the limit is refused as soon as
/// its length is known. Leading zeros are accepted, as the original agent accepts them.
#[derive(Debug)]
pub struct NetstringDecoder {
    limit: usize,
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that belong to frames already taken.
    taken: usize,
    failed: Option<NetstringError>,
}

/// Where a frame's body stands in the buffer.
struct Header {
    body_start: usize,
    body_len: usize,
}

impl NetstringDecoder {
    /// A decoder that refuses bodies of more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, buffer: Vec::new(), taken: 0, failed: None }
    }

    /// From the next body on, refuses those of more than `limit` bytes.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes bytes as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole body, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// Once the stream is malformed every further call returns the same error.
    pub fn next_body(&mut self) -> Result<Option<Vec<u8>>, NetstringError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let next = self.decode();
        if let Err(error) = &next {
            self.failed = Some(error.clone());
        }
        // Most streams are silent for most of the time, and hold no memory then.
        if self.failed.is_some() || (self.buffered() == 0 && matches!(next, Ok(None))) {
            self.buffer = Vec::new();
            self.taken = 0;
        }
        next
    }

    /// Says that the stream has ended.
    ///
    /// # Errors
    /// [`NetstringError::Truncated`] when it ended inside a frame.
    pub fn finish(&self) -> Result<(), NetstringError> {
        match (&self.failed, self.buffered()) {
            (Some(error), _) => Err(error.clone()),
            (None, 0) => Ok(()),
            (None, _) => Err(NetstringError::Truncated),
        }
    }

    /// Bytes held that belong to no body taken so far.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.taken
    }

    fn decode(&mut self) -> Result<Option<Vec<u8>>, NetstringError> {
        let pending = self.buffer.get(self.taken..).unwrap_or_default();
        let Some(header) = parse_header(pending, self.limit)? else {
            return Ok(None);
        };
        let body_end = header.body_start + header.body_len;
        match pending.get(body_end) {
            None => Ok(None),
            Some(b',') => {
                let body = pending.get(header.body_start..body_end).unwrap_or_default().to_vec();
                self.taken += body_end + 1;
                Ok(Some(body))
            }
            Some(&found) => Err(NetstringError::MissingComma { found }),
        }
    }
}

/// Reads `<digits>:`. `None` when the colon has not arrived yet.
fn parse_header(bytes: &[u8], limit: usize) -> Result<Option<Header>, NetstringError> {
    let mut body_len = 0_usize;
    for (index, &byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                body_len = body_len.saturating_mul(10).saturating_add(usize::from(byte - b'0'));
                if body_len > limit || index >= MAX_DIGITS {
                    return Err(NetstringError::TooLong { limit });
                }
            }
            b':' if index == 0 => return Err(NetstringError::NoLength),
            b':' => return Ok(Some(Header { body_start: index + 1, body_len })),
            _ => return Err(NetstringError::NotADigit { byte }),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
