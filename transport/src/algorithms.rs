//! Which SSH algorithms each side offers. The lists for version-1 agents are what those were seen
//! to accept; nothing with SHA-1 is offered unless asked for by name.

use std::borrow::Cow;

use russh::keys::{Algorithm, HashAlg};
use russh::{Preferred, cipher, kex, mac};

use crate::error::ServeError;
use crate::keys::{HostKeyPin, PrivateKey};

const RSA_SHA512: Algorithm = Algorithm::Rsa { hash: Some(HashAlg::Sha512) };
const RSA_SHA256: Algorithm = Algorithm::Rsa { hash: Some(HashAlg::Sha256) };
const RSA_SHA1: Algorithm = Algorithm::Rsa { hash: None };

/// What a server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithms {
    /// russh's defaults (post-quantum key exchange first) without SHA-1.
    Modern,
    /// For version-1 agents with current libraries: one RSA host key with SHA-2 signatures,
    /// curve25519 under both names, ECDH on NIST curves, AES-CTR, HMAC-SHA2. No SHA-1.
    LegacyRsa,
    /// For untouched version-1 agents of 2013: `LegacyRsa` plus group-exchange-sha1, hmac-sha1 and
    /// ssh-rsa. Weak; off unless somebody decides otherwise.
    LegacySha1,
}

const LEGACY_KEX: &[kex::Name] = &[
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
];
const LEGACY_CIPHERS: &[cipher::Name] =
    &[cipher::AES_256_CTR, cipher::AES_192_CTR, cipher::AES_128_CTR];
const LEGACY_MACS: &[mac::Name] =
    &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM, mac::HMAC_SHA512, mac::HMAC_SHA256];
/// Not algorithms: extension negotiation (RFC 8308) and the strict order against Terrapin.
const SERVER_EXTENSIONS: &[kex::Name] =
    &[kex::EXTENSION_SUPPORT_AS_SERVER, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER];

impl Algorithms {
    /// Whether `ssh-rsa` (SHA-1) may sign a login.
    pub(crate) fn allows_sha1(self) -> bool {
        self == Self::LegacySha1
    }

    /// A version-1 agent picks Ed25519 when it is offered and then refuses it for ever.
    pub(crate) fn check_host_keys(self, keys: &[PrivateKey]) -> Result<(), ServeError> {
        match (self, keys) {
            (_, []) => Err(ServeError::HostKeys("a server needs a host key")),
            (Self::Modern, _) => Ok(()),
            (_, [key]) if key.is_rsa() => Ok(()),
            _ => Err(ServeError::HostKeys(
                "a listener for version-1 agents needs exactly one host key, an RSA key",
            )),
        }
    }

    pub(crate) fn for_server(self) -> Preferred {
        let legacy = Preferred { cipher: Cow::Borrowed(LEGACY_CIPHERS), ..Preferred::DEFAULT };
        match self {
            Self::Modern => Preferred { key: without_sha1(), ..Preferred::DEFAULT },
            Self::LegacyRsa => Preferred {
                kex: [LEGACY_KEX, SERVER_EXTENSIONS].concat().into(),
                key: vec![RSA_SHA512, RSA_SHA256].into(),
                mac: Cow::Borrowed(LEGACY_MACS),
                ..legacy
            },
            Self::LegacySha1 => Preferred {
                kex: [LEGACY_KEX, &[kex::DH_GEX_SHA1], SERVER_EXTENSIONS].concat().into(),
                key: vec![RSA_SHA512, RSA_SHA256, RSA_SHA1].into(),
                mac: [LEGACY_MACS, &[mac::HMAC_SHA1]].concat().into(),
                ..legacy
            },
        }
    }
}

/// What a client offers: host keys of the pinned types only, Ed25519 first, so that the host
/// cannot answer with a key of another type than the one it is known by.
pub(crate) fn for_client(pins: &[HostKeyPin], legacy_sha1: bool) -> Preferred {
    let mut key = Vec::new();
    if pins.iter().any(|pin| !pin.key().is_rsa()) {
        key.push(Algorithm::Ed25519);
    }
    if pins.iter().any(|pin| pin.key().is_rsa()) {
        key.extend([RSA_SHA512, RSA_SHA256]);
        if legacy_sha1 {
            key.push(RSA_SHA1);
        }
    }
    let mut preferred = Preferred { key: key.into(), ..Preferred::DEFAULT };
    if legacy_sha1 {
        preferred.kex.to_mut().push(kex::DH_GEX_SHA1);
        preferred.mac.to_mut().push(mac::HMAC_SHA1);
    }
    preferred
}

fn without_sha1() -> Cow<'static, [Algorithm]> {
    let keys = Preferred::DEFAULT.key;
    keys.iter().filter(|key| **key != RSA_SHA1).cloned().collect()
}
