//! OpenSSH public keys: one line in, one strong value out, equal by the key itself.
//!
//! Source: sshd(8) "AUTHORIZED_KEYS FILE FORMAT", RFC 4253 section 6.6, RFC 5656, RFC 8709 and
//! OpenSSH's PROTOCOL.u2f. This file must not know options, files or accounts.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::digest;
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use crate::ssh_blob::{BlobReader, bit_len};

/// Longest key line, in bytes: an RSA key of 16384 bits is 2.8 kB.
const MAX_LINE: usize = 8 * 1024;
/// Longest comment, in bytes.
const MAX_COMMENT: usize = 1024;

/// A public key that OpenSSH accepts in `authorized_keys`, with its comment.
///
/// Two keys are equal when their blobs are: the comment says nothing about access. A copy takes a pointer: the same
/// key goes to thousands of servers.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicKey(Arc<Parts>);

/// What stands on a key's line.
struct Parts {
    algorithm: Algorithm,
    blob: Vec<u8>,
    /// The whole line, with the comment if there is one.
    line: String,
    /// How much of it is type and key, in bytes.
    without_comment: usize,
}

/// The key types that may stand in `authorized_keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `ssh-ed25519`
    Ed25519,
    /// `ssh-rsa`
    Rsa,
    /// `ecdsa-sha2-nistp256`
    EcdsaP256,
    /// `ecdsa-sha2-nistp384`
    EcdsaP384,
    /// `ecdsa-sha2-nistp521`
    EcdsaP521,
    /// `sk-ssh-ed25519@openssh.com`: held by a FIDO token
    SkEd25519,
    /// `sk-ecdsa-sha2-nistp256@openssh.com`: held by a FIDO token
    SkEcdsaP256,
}

/// Which keys are good enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPolicy {
    /// Smallest RSA modulus, in bits.
    pub min_rsa_bits: usize,
}

/// Why a text is no usable public key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublicKeyError {
    /// The text holds no two words, or is too long.
    #[error("not a public key line; give `TYPE BASE64 [COMMENT]` as it stands in a .pub file")]
    NotAKeyLine,
    /// It is a private key.
    #[error("this is a PRIVATE key; give the .pub file beside it, and keep this one secret")]
    PrivateKey,
    /// A line break or another control character, which would write further lines.
    #[error("a key is one line of printable text; it holds the control character {0:?}")]
    ControlCharacter(char),
    /// The comment is longer than 1024 bytes.
    #[error("a comment of more than {MAX_COMMENT} bytes")]
    CommentTooLong,
    /// A certificate, which is not listed in `authorized_keys` as a plain key.
    #[error("{0} is a certificate; give the plain public key that it certifies")]
    Certificate(String),
    /// A type that OpenSSH does not accept, or does not accept any more.
    #[error("{0} is no key type that OpenSSH accepts; use ssh-ed25519")]
    UnknownType(String),
    /// The second word is not base64.
    #[error("the second word of a public key must be base64; was it cut when it was copied?")]
    NotBase64,
    /// The blob says another type than the first word.
    #[error("the line says {line}, the key inside is of another type")]
    TypeMismatch {
        /// The first word.
        line: String,
    },
    /// The blob is not a key of its type.
    #[error("the key is damaged; was it cut when it was copied?")]
    Damaged,
    /// An RSA key smaller than the policy allows.
    #[error("an RSA key of {bits} bits; at least {min} are required, or use ssh-ed25519")]
    TooSmall {
        /// Bits of the key's modulus.
        bits: usize,
        /// Bits required.
        min: usize,
    },
}

impl KeyPolicy {
    /// Takes every well-formed key: for removing keys, and for reading what was stored.
    pub const ANY: Self = Self { min_rsa_bits: 0 };
}

impl Default for KeyPolicy {
    /// RSA keys of at least 2048 bits.
    fn default() -> Self {
        Self { min_rsa_bits: 2048 }
    }
}

impl Algorithm {
    const ALL: [Self; 7] = [
        Self::Ed25519,
        Self::Rsa,
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::SkEd25519,
        Self::SkEcdsaP256,
    ];

    /// The name on key lines and in blobs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ssh-ed25519",
            Self::Rsa => "ssh-rsa",
            Self::EcdsaP256 => "ecdsa-sha2-nistp256",
            Self::EcdsaP384 => "ecdsa-sha2-nistp384",
            Self::EcdsaP521 => "ecdsa-sha2-nistp521",
            Self::SkEd25519 => "sk-ssh-ed25519@openssh.com",
            Self::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    /// Whether a FIDO token holds the private half.
    #[must_use]
    pub fn is_on_token(self) -> bool {
        matches!(self, Self::SkEd25519 | Self::SkEcdsaP256)
    }

    /// The type of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

impl PublicKey {
    /// Parses one line `TYPE BASE64 [COMMENT]`; white space around it is ignored.
    ///
    /// # Errors
    /// [`PublicKeyError`]; options in front of the type are not taken here.
    pub fn parse(line: &str, policy: &KeyPolicy) -> Result<Self, PublicKeyError> {
        if line.contains("PRIVATE KEY-----") {
            return Err(PublicKeyError::PrivateKey);
        }
        let line = line.trim_matches([' ', '\t', '\r', '\n']);
        if let Some(found) = line.chars().find(|c| c.is_control() && *c != '\t') {
            return Err(PublicKeyError::ControlCharacter(found));
        }
        let (name, rest) = line.split_once([' ', '\t']).ok_or(PublicKeyError::NotAKeyLine)?;
        let rest = rest.trim_start();
        let (encoded, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        if line.len() > MAX_LINE || encoded.is_empty() {
            return Err(PublicKeyError::NotAKeyLine);
        }
        let algorithm = parse_type(name)?;
        // There is one way to write a blob in base64, and no other is taken.
        let (blob, comment) = (decode_base64(encoded)?, comment.trim());
        let without_comment = name.len() + 1 + encoded.len();
        let mut line = String::with_capacity(without_comment + 1 + comment.len());
        line.extend([name, " ", encoded]);
        if !comment.is_empty() {
            line.extend([" ", comment]);
        }
        let key = Self(Arc::new(Parts { algorithm, blob, line, without_comment }));
        key.check(name, policy)?;
        Ok(key)
    }

    /// The key's type.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// The key itself, as RFC 4253 encodes it.
    #[must_use]
    pub fn blob(&self) -> &[u8] {
        &self.0.blob
    }

    /// The comment; empty when there is none.
    #[must_use]
    pub fn comment(&self) -> &str {
        self.0.line.get(self.0.without_comment + 1..).unwrap_or_default()
    }

    /// The fingerprint as OpenSSH prints it: `SHA256:` and 43 characters of base64.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let hash = digest::digest(&digest::SHA256, &self.0.blob);
        format!("SHA256:{}", STANDARD_NO_PAD.encode(hash))
    }

    /// The whole line, with the comment if there is one.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.0.line
    }

    /// Type and key without the comment, as they stand on a line.
    #[must_use]
    pub fn without_comment(&self) -> String {
        self.0.line.get(..self.0.without_comment).unwrap_or_default().to_owned()
    }

    /// Whether the key is good enough.
    ///
    /// # Errors
    /// [`PublicKeyError::TooSmall`].
    pub fn meets(&self, policy: &KeyPolicy) -> Result<(), PublicKeyError> {
        let mut fields = BlobReader::new(&self.0.blob);
        let bits = fields.string().and_then(|_| self.check_fields(&mut fields)).flatten();
        match bits {
            Some(bits) if bits < policy.min_rsa_bits => {
                Err(PublicKeyError::TooSmall { bits, min: policy.min_rsa_bits })
            }
            _ => Ok(()),
        }
    }

    fn check(&self, name: &str, policy: &KeyPolicy) -> Result<(), PublicKeyError> {
        if self.comment().len() > MAX_COMMENT {
            return Err(PublicKeyError::CommentTooLong);
        }
        let mut fields = BlobReader::new(&self.0.blob);
        let inner = fields.string().ok_or(PublicKeyError::Damaged)?;
        if inner != name.as_bytes() {
            return Err(PublicKeyError::TypeMismatch { line: name.to_owned() });
        }
        self.check_fields(&mut fields).ok_or(PublicKeyError::Damaged)?;
        if !fields.is_empty() {
            return Err(PublicKeyError::Damaged);
        }
        self.meets(policy)
    }

    /// Reads the fields behind the type; the size of an RSA modulus in bits.
    fn check_fields(&self, fields: &mut BlobReader<'_>) -> Option<Option<usize>> {
        match self.0.algorithm {
            Algorithm::Ed25519 => ed25519_point(fields)?,
            Algorithm::EcdsaP256 => nist_point(fields, b"nistp256", 32)?,
            Algorithm::EcdsaP384 => nist_point(fields, b"nistp384", 48)?,
            Algorithm::EcdsaP521 => nist_point(fields, b"nistp521", 66)?,
            Algorithm::SkEd25519 => {
                ed25519_point(fields)?;
                fields.string()?;
            }
            Algorithm::SkEcdsaP256 => {
                nist_point(fields, b"nistp256", 32)?;
                fields.string()?;
            }
            Algorithm::Rsa => {
                fields.positive_mpint()?;
                return Some(Some(bit_len(fields.positive_mpint()?)));
            }
        }
        Some(None)
    }
}

fn parse_type(name: &str) -> Result<Algorithm, PublicKeyError> {
    if name.contains("-cert-v0") {
        return Err(PublicKeyError::Certificate(shorten(name)));
    }
    Algorithm::from_name(name).ok_or_else(|| PublicKeyError::UnknownType(shorten(name)))
}

/// At most 40 characters of foreign text, for an error that stays readable.
fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

fn decode_base64(text: &str) -> Result<Vec<u8>, PublicKeyError> {
    STANDARD.decode(text).map_err(|_| PublicKeyError::NotBase64)
}

fn ed25519_point(fields: &mut BlobReader<'_>) -> Option<()> {
    (fields.string()?.len() == 32).then_some(())
}

/// An uncompressed point on a NIST curve whose coordinates have `size` bytes.
fn nist_point(fields: &mut BlobReader<'_>, curve: &[u8], size: usize) -> Option<()> {
    let named = fields.string()? == curve;
    let point = fields.string()?;
    (named && point.len() == 1 + 2 * size && point.first() == Some(&4)).then_some(())
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.blob == other.0.blob
    }
}

impl Eq for PublicKey {}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.blob.cmp(&other.0.blob)
    }
}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.blob.hash(state);
    }
}

impl fmt::Display for PublicKey {
    /// [`PublicKey::line`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.line())
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.line())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.0.algorithm.name(), self.fingerprint())
    }
}

impl TryFrom<String> for PublicKey {
    type Error = PublicKeyError;

    /// Takes any well-formed key; where a policy counts, use [`PublicKey::parse`].
    fn try_from(line: String) -> Result<Self, Self::Error> {
        Self::parse(&line, &KeyPolicy::ANY)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests;
