//! Reads and writes the fields of an SSH public key blob (RFC 4251, section 5).
//!
//! This file must not know which fields a key of some type has.

/// A reader over a blob; each call takes the next field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlobReader<'a>(&'a [u8]);

impl<'a> BlobReader<'a> {
    /// Reads `blob` from its first byte.
    pub(crate) fn new(blob: &'a [u8]) -> Self {
        Self(blob)
    }

    /// The next `string`: four bytes of length, then the bytes.
    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        self.0 = rest;
        Some(field)
    }

    /// The next `mpint`, which must be positive and without needless leading zeros; its magnitude.
    pub(crate) fn positive_mpint(&mut self) -> Option<&'a [u8]> {
        match self.string()? {
            [0, rest @ ..] if rest.first().is_some_and(|byte| *byte >= 0x80) => Some(rest),
            field if field.first().is_some_and(|byte| (1..0x80).contains(byte)) => Some(field),
            _ => None,
        }
    }

    /// Whether every byte has been read.
    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// Appends a `string`.
pub(crate) fn write_string(blob: &mut Vec<u8>, field: &[u8]) {
    // A field that was read from a blob has a length of 32 bits.
    blob.extend(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
    blob.extend(field);
}

/// Bits of a magnitude without leading zero bytes.
pub(crate) fn bit_len(magnitude: &[u8]) -> usize {
    let zeros = magnitude.first().map_or(0, |byte| byte.leading_zeros() as usize);
    magnitude.len() * 8 - zeros
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_strings_to_the_end() {
        let mut reader = BlobReader::new(&[0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0]);
        assert_eq!(reader.string(), Some(&b"ab"[..]));
        assert!(!reader.is_empty());
        assert_eq!(reader.string(), Some(&b""[..]));
        assert!(reader.is_empty());
        assert_eq!(reader.string(), None);
    }

    #[test]
    fn refuses_fields_longer_than_the_blob() {
        assert_eq!(BlobReader::new(&[0, 0, 0, 3, 1, 2]).string(), None);
        assert_eq!(BlobReader::new(&[255, 255, 255, 255, 1]).string(), None);
        assert_eq!(BlobReader::new(&[0, 0, 0]).string(), None);
    }

    #[test]
    fn reads_positive_numbers_only_in_their_one_form() {
        let read = |field: &[u8]| {
            let mut blob = (field.len() as u32).to_be_bytes().to_vec();
            blob.extend_from_slice(field);
            BlobReader::new(&blob).positive_mpint().map(bit_len)
        };
        assert_eq!(read(&[1, 0, 1]), Some(17));
        assert_eq!(read(&[0, 0x80]), Some(8));
        assert_eq!(read(&[0x80]), None, "negative");
        assert_eq!(read(&[0, 1]), None, "needless zero");
        assert_eq!(read(&[]), None, "zero");
    }
}
