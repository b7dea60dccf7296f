//! A secret that never shows by accident.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use ring::digest;
use zeroize::Zeroizing;

use bastio_protocol::audit::hex;

/// What every secret begins with, so that scanners for leaked secrets find it.
const PREFIX: &str = "bst_";

/// The secret of an API key: `bst_` and 43 characters of base64url, 256 random bits.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// A new secret from the system's random numbers.
    pub(super) fn random() -> Self {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        OsRng.try_fill_bytes(bytes.as_mut()).expect("getrandom(2) works on every supported kernel");
        Self(Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_ref()))))
    }

    /// None that is known here: only its hash was given.
    pub(super) fn none() -> Self {
        Self(Zeroizing::new(String::new()))
    }

    /// The secret itself: for the one answer that shows it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// What is stored of a secret.
pub(super) fn hash(secret: &str) -> String {
    hex(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref())
}
