//! SSH keys: making, reading and writing private keys, comparing public ones, and signatures over
//! bytes that are no part of a connection.
//!
//! Private keys never show up in `Debug` and are never written over another file.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use russh::keys::ssh_key::private::{KeypairData, RsaKeypair};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{self, LineEnding, SshSig};
use russh::keys::{Algorithm, HashAlg, PublicKeyBase64};
use zeroize::Zeroizing;

use crate::error::KeyError;

/// Smallest accepted RSA modulus in bits.
const RSA_MIN_BITS: usize = 2048;
/// Largest accepted RSA modulus in bits: what OpenSSH allows.
const RSA_MAX_BITS: usize = 16384;
/// No private key file is larger (an RSA key of 16384 bits takes 13 KB).
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The kind of key to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519: what to use unless an old peer asks for RSA.
    Ed25519,
    /// RSA, e.g. for a version-1 backend.
    Rsa {
        /// Modulus size, 2048 to 16384.
        bits: usize,
    },
}

/// An Ed25519 or RSA private key. Cheap to clone; `Debug` shows the fingerprint only.
#[derive(Clone)]
pub struct PrivateKey(Arc<ssh_key::PrivateKey>);

impl PrivateKey {
    /// Makes a new key. RSA takes seconds of CPU: call it from a blocking thread.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let mut rng = russh::keys::key::safe_rng();
        let key = match kind {
            KeyKind::Ed25519 => ssh_key::PrivateKey::random(&mut rng, Algorithm::Ed25519),
            KeyKind::Rsa { bits } => {
                check_rsa_bits(bits)?;
                RsaKeypair::random(&mut rng, bits).map(ssh_key::PrivateKey::from)
            }
        };
        key.map_err(unreadable).and_then(Self::checked)
    }

    /// Reads an unencrypted OpenSSH, PKCS#1 (`RSA PRIVATE KEY`) or PKCS#8 (`PRIVATE KEY`) text.
    pub fn from_openssh(text: &str) -> Result<Self, KeyError> {
        match russh::keys::decode_secret_key(text, None) {
            Ok(key) if key.is_encrypted() => Err(KeyError::Encrypted),
            Ok(key) => Self::checked(key),
            Err(russh::keys::Error::KeyIsEncrypted) => Err(KeyError::Encrypted),
            Err(_) if text.contains("ENCRYPTED") => Err(KeyError::Encrypted),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// Reads a key file. A file that its group or others may read is refused.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::TooOpen { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(io)?;
        Self::from_openssh(&text)
    }

    /// Writes a new file with mode 0600 and syncs it and its folder. Never overwrites.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyError> {
        let io = |source: std::io::Error| match source.kind() {
            ErrorKind::AlreadyExists => KeyError::Exists(path.to_owned()),
            _ => KeyError::Io { path: path.to_owned(), source },
        };
        let text = self.to_openssh()?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
        file.write_all(text.as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let folder = std::fs::File::open(folder).map_err(io)?;
        folder.sync_all().map_err(io)
    }

    /// The OpenSSH private key text, wiped from memory when dropped.
    pub fn to_openssh(&self) -> Result<Zeroizing<String>, KeyError> {
        self.0.to_openssh(LineEnding::LF).map_err(unreadable)
    }

    /// The public half.
    pub fn public(&self) -> PublicKeyBlob {
        PublicKeyBlob::of(self.0.public_key())
    }

    /// The public key line of two words, e.g. `ssh-ed25519 AAAA...`.
    pub fn public_line(&self) -> String {
        self.public().line()
    }

    /// The fingerprint of the public key, `SHA256:...` as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        self.public().fingerprint()
    }

    /// Signs bytes for one purpose, as `ssh-keygen -Y sign -n NAMESPACE` does (PROTOCOL.sshsig):
    /// the PEM text. RSA signs with SHA-512.
    ///
    /// # Errors
    /// [`KeyError::CannotSign`], e.g. for an empty namespace.
    pub fn sign(&self, namespace: &str, bytes: &[u8]) -> Result<String, KeyError> {
        let signed = self.0.sign(namespace, HashAlg::Sha512, bytes);
        signed
            .and_then(|signature| signature.to_pem(LineEnding::LF))
            .map_err(|error| KeyError::CannotSign(error.to_string()))
    }

    /// Whether this is an RSA key.
    pub fn is_rsa(&self) -> bool {
        self.0.algorithm().is_rsa()
    }

    fn checked(key: ssh_key::PrivateKey) -> Result<Self, KeyError> {
        match key.key_data() {
            KeypairData::Ed25519(_) | KeypairData::Rsa(_) => {
                check_public(key.public_key().key_data())?;
                Ok(Self(Arc::new(key)))
            }
            KeypairData::Encrypted(_) => Err(KeyError::Encrypted),
            _ => Err(KeyError::Unsupported(key.algorithm().to_string())),
        }
    }

    pub(crate) fn inner(&self) -> &Arc<ssh_key::PrivateKey> {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.fingerprint())
    }
}

/// An Ed25519 or RSA public key, compared by its wire form (RFC 4253 section 6.6); a comment is no
/// part of it. `Display` and [`FromStr`] are the OpenSSH line.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKeyBlob {
    bytes: Vec<u8>,
    rsa: bool,
}

impl PublicKeyBlob {
    /// The wire form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads the wire form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let key = russh::keys::key::parse_public_key(bytes).map_err(unreadable)?;
        Self::try_of(&key)
    }

    /// Two words without a comment, e.g. `ssh-ed25519 AAAA...`.
    pub fn line(&self) -> String {
        use russh::keys::ssh_key::PublicKey;
        // The bytes were parsed when this value was made.
        match PublicKey::from_bytes(&self.bytes) {
            Ok(key) => format!("{} {}", self.algorithm(), key.public_key_base64()),
            Err(_) => String::new(),
        }
    }

    /// `SHA256:...`, as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        match ssh_key::PublicKey::from_bytes(&self.bytes) {
            Ok(key) => key.fingerprint(HashAlg::Sha256).to_string(),
            Err(_) => String::new(),
        }
    }

    /// Checks that the holder of this key has signed exactly these bytes for exactly this purpose:
    /// `signature` is the text of `ssh-keygen -Y sign -n NAMESPACE` (PROTOCOL.sshsig).
    ///
    /// # Errors
    /// [`KeyError::BadSignature`] for everything else, SHA-1 and the signature of another key
    /// included.
    pub fn verify(&self, namespace: &str, bytes: &[u8], signature: &str) -> Result<(), KeyError> {
        let signature = SshSig::from_pem(signature.trim()).map_err(|_| KeyError::BadSignature)?;
        if signature.algorithm() == (Algorithm::Rsa { hash: None }) {
            return Err(KeyError::BadSignature);
        }
        let key =
            ssh_key::PublicKey::from_bytes(&self.bytes).map_err(|_| KeyError::BadSignature)?;
        key.verify(namespace, bytes, &signature).map_err(|_| KeyError::BadSignature)
    }

    /// `ssh-ed25519` or `ssh-rsa`.
    pub fn algorithm(&self) -> &'static str {
        if self.rsa { "ssh-rsa" } else { "ssh-ed25519" }
    }

    /// Whether this is an RSA key.
    pub fn is_rsa(&self) -> bool {
        self.rsa
    }

    /// For keys that were checked before.
    fn of(key: &ssh_key::PublicKey) -> Self {
        Self { bytes: key.public_key_bytes(), rsa: key.algorithm().is_rsa() }
    }

    /// Refuses kinds and sizes that are not accepted.
    pub(crate) fn try_of(key: &ssh_key::PublicKey) -> Result<Self, KeyError> {
        check_public(key.key_data())?;
        Ok(Self::of(key))
    }
}

impl FromStr for PublicKeyBlob {
    type Err = KeyError;

    fn from_str(line: &str) -> Result<Self, KeyError> {
        let key = ssh_key::PublicKey::from_openssh(line.trim()).map_err(unreadable)?;
        Self::try_of(&key)
    }
}

impl fmt::Display for PublicKeyBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())
    }
}

impl fmt::Debug for PublicKeyBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKeyBlob({} {})", self.algorithm(), self.fingerprint())
    }
}

/// The one key a host must have. Several pins mean that any of them will do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostKeyPin(PublicKeyBlob);

impl HostKeyPin {
    /// Pins a key.
    pub fn new(key: PublicKeyBlob) -> Self {
        Self(key)
    }

    /// The pinned key.
    pub fn key(&self) -> &PublicKeyBlob {
        &self.0
    }

    /// Fingerprint of the pinned key, `SHA256:...`.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }
}

impl FromStr for HostKeyPin {
    type Err = KeyError;

    fn from_str(line: &str) -> Result<Self, KeyError> {
        line.parse().map(Self)
    }
}

impl fmt::Display for HostKeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn check_public(key: &KeyData) -> Result<(), KeyError> {
    match key {
        KeyData::Ed25519(_) => Ok(()),
        KeyData::Rsa(rsa) => check_rsa_bits(rsa.key_size() as usize),
        other => Err(KeyError::Unsupported(other.algorithm().to_string())),
    }
}

fn check_rsa_bits(bits: usize) -> Result<(), KeyError> {
    if (RSA_MIN_BITS..=RSA_MAX_BITS).contains(&bits) {
        Ok(())
    } else {
        Err(KeyError::BadSize { bits })
    }
}

fn unreadable(error: impl fmt::Display) -> KeyError {
    KeyError::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests;
