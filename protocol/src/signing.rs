//! Keys that sign what a backend orders, and the exact bytes that are signed.
//!
//! Ed25519 (RFC 8032) as ring has it; signing needs no randomness, and making keys is the caller's.
//! This file must not know what an order asks for, nor who may give one.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Size of a public key, in bytes.
const KEY_SIZE: usize = 32;
/// Size of a signature, in bytes.
const SIGNATURE_SIZE: usize = 64;

/// The private half. Shows nothing of itself.
pub struct SigningKey(Ed25519KeyPair);

/// The public half. As text: 44 characters of base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VerifyingKey([u8; KEY_SIZE]);

/// A signature. As text: 88 characters of base64.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signature([u8; SIGNATURE_SIZE]);

/// Why bytes or a text are no key or signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SigningError {
    /// Not a PKCS#8 document (RFC 5958) with an Ed25519 key.
    #[error("not an Ed25519 key as PKCS#8")]
    NoSigningKey,
    /// Not 32 bytes as base64.
    #[error("a signing key is 32 bytes as base64 (44 characters)")]
    NoVerifyingKey,
    /// Not 64 bytes as base64.
    #[error("a signature is 64 bytes as base64 (88 characters)")]
    NoSignature,
}

impl SigningKey {
    /// Reads a PKCS#8 document, DER, with or without the public half.
    ///
    /// # Errors
    /// [`SigningError::NoSigningKey`].
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, SigningError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(document);
        pair.map(Self).map_err(|_| SigningError::NoSigningKey)
    }

    /// The public half.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        let bytes = self.0.public_key().as_ref();
        VerifyingKey(bytes.try_into().expect("a public key of Ed25519 has 32 bytes"))
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.0.sign(message);
        Signature(signature.as_ref().try_into().expect("a signature of Ed25519 has 64 bytes"))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verifying_key().fingerprint())
    }
}

impl VerifyingKey {
    /// Whether the signature is this key's for exactly this message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, &signature.0).is_ok()
    }

    /// `SHA256:` and the hash of the 32 bytes as base64 without padding, as SSH shows its keys.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(digest(&SHA256, &self.0)))
    }
}

impl FromStr for VerifyingKey {
    type Err = SigningError;

    fn from_str(text: &str) -> Result<Self, SigningError> {
        decode(text).map(Self).ok_or(SigningError::NoVerifyingKey)
    }
}

impl FromStr for Signature {
    type Err = SigningError;

    fn from_str(text: &str) -> Result<Self, SigningError> {
        decode(text).map(Self).ok_or(SigningError::NoSignature)
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({self})")
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({self})")
    }
}

/// By `try_from`, which serde and others use.
macro_rules! by_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = SigningError;

            fn try_from(text: String) -> Result<Self, SigningError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

by_text!(VerifyingKey);
by_text!(Signature);

/// Canonical base64 with padding, of exactly so many bytes.
fn decode<const SIZE: usize>(text: &str) -> Option<[u8; SIZE]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 section 7.1, test 1: PKCS#8 without the public half, the public key.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

    fn document() -> Vec<u8> {
        let hex = format!("302e020100300506032b657004220420{SEED}");
        let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
        pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
    }

    #[test]
    fn a_key_is_read_signs_and_shows_nothing_of_itself() {
        let key = SigningKey::from_pkcs8(&document()).expect("a key");
        let public = key.verifying_key();
        assert_eq!(public.to_string(), "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        let signature = key.sign(b"");
        assert!(signature.to_string().starts_with("5VZDAMNgrHKQhuLMgG6CioSHfx64"), "{signature}");
        assert!(public.verifies(b"", &signature));
        assert!(!public.verifies(b"x", &signature));
        let shown = format!("{key:?}");
        assert!(shown.starts_with("SigningKey(SHA256:"), "{shown}");
    }

    #[test]
    fn texts_have_one_spelling() {
        let text = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        let key: VerifyingKey = text.parse().expect("a key");
        assert_eq!(key.to_string(), text);
        for wrong in [
            "",
            "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURp=",
            " 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHUQ==",
        ] {
            assert_eq!(wrong.parse::<VerifyingKey>(), Err(SigningError::NoVerifyingKey), "{wrong}");
            assert_eq!(wrong.parse::<Signature>(), Err(SigningError::NoSignature), "{wrong}");
        }
        assert!(SigningKey::from_pkcs8(b"no key").is_err());
    }
}
