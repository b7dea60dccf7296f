//! A signing key under a passphrase: the exact bytes of the file, Argon2id (RFC 9106) and AES-256-GCM.
//!
//! Six lines of text, each in one spelling; all but the last are authenticated with it, so that
//! none can be altered. The public half stands in clear: servers enrol while the key is locked.
//! This file must not know files, nor when a key is opened.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bastio_protocol::{SigningKey, VerifyingKey};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::SystemRandom;
use thiserror::Error;
use zeroize::Zeroizing;

/// What every version begins with.
const MAGIC: &str = "bastio sealed signing key, version ";
/// The version that is written.
const VERSION: &str = "1";
/// Size of the salt, in bytes (RFC 9106 section 3.1 recommends it).
const SALT: usize = 16;
/// Longest file that is read, in bytes.
pub const MAX_SEALED: usize = 4096;
/// Longest passphrase, in bytes.
const MAX_PASSPHRASE: usize = 1024;
/// Fewest characters of a new passphrase.
const MIN_NEW: usize = 12;
/// Most memory that a file may ask for, in KiB, and most passes and lanes: a file that asks for more is
/// not ours.
const MAX_COST: Cost = Cost { memory: 1024 * 1024, passes: 64, lanes: 64 };

/// What a guess costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// The second choice of RFC 9106 section 4: 64 MiB, three passes, four lanes.
    pub const DEFAULT: Self = Self { memory: 64 * 1024, passes: 3, lanes: 4 };
    /// Next to nothing.
    #[cfg(test)]
    pub(crate) const TEST: Self = Self { memory: 8, passes: 1, lanes: 1 };

    fn is_bearable(self) -> bool {
        let Self { memory, passes, lanes } = self;
        memory <= MAX_COST.memory && passes <= MAX_COST.passes && lanes <= MAX_COST.lanes
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m={} t={} p={}", self.memory, self.passes, self.lanes)
    }
}

/// What opens a sealed key. Shows nothing of itself, and is wiped when dropped.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

/// Why a text is no passphrase. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PassphraseError {
    /// Nothing.
    #[error("the passphrase is empty")]
    Empty,
    /// Too long.
    #[error("the passphrase is longer than {MAX_PASSPHRASE} bytes")]
    TooLong,
    /// Something that no keyboard types on purpose.
    #[error("the passphrase holds a control character, or is more than one line")]
    Control,
    /// Too short for a new one.
    #[error("a new passphrase has at least {MIN_NEW} characters; take five or more random words")]
    TooShort,
}

/// Why a key is not sealed or not opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SealError {
    /// Another version of the format.
    #[error("it was sealed in a way that this version does not know (version {0})")]
    OtherVersion(String),
    /// Not what was once written.
    #[error("the sealed key is damaged: {0}")]
    Damaged(&'static str),
    /// It does not open. Altered bytes look the same.
    #[error("wrong passphrase (or the sealed key was altered)")]
    WrongPassphrase,
    /// What is to be sealed is no signing key.
    #[error("not an Ed25519 key as PKCS#8")]
    NoKey,
    /// The system gave no random numbers.
    #[error("the system has no random numbers")]
    NoRandomness,
}

/// A key that is sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedKey {
    public: VerifyingKey,
    cost: Cost,
    salt: [u8; SALT],
    nonce: [u8; NONCE_LEN],
    sealed: Vec<u8>,
}

impl Passphrase {
    /// Reads one line; the line break at its end is no part of it.
    ///
    /// # Errors
    /// [`PassphraseError`].
    pub fn parse(text: &str) -> Result<Self, PassphraseError> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        match line {
            "" => Err(PassphraseError::Empty),
            long if long.len() > MAX_PASSPHRASE => Err(PassphraseError::TooLong),
            odd if odd.contains(char::is_control) => Err(PassphraseError::Control),
            fine => Ok(Self(Zeroizing::new(fine.to_owned()))),
        }
    }

    /// As [`Passphrase::parse`], for one that shall seal.
    ///
    /// # Errors
    /// [`PassphraseError`].
    pub fn parse_new(text: &str) -> Result<Self, PassphraseError> {
        let passphrase = Self::parse(text)?;
        passphrase.check_new()?;
        Ok(passphrase)
    }

    /// Whether it is long enough to seal something.
    ///
    /// # Errors
    /// [`PassphraseError::TooShort`].
    pub fn check_new(&self) -> Result<(), PassphraseError> {
        match self.0.chars().count() {
            0..MIN_NEW => Err(PassphraseError::TooShort),
            _ => Ok(()),
        }
    }

    /// Whether both are the same: for one that was typed twice.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(not shown)")
    }
}

impl SealedKey {
    /// Seals a PKCS#8 document.
    ///
    /// # Errors
    /// [`SealError::NoKey`], [`SealError::NoRandomness`].
    pub fn seal(document: &[u8], with: &Passphrase, cost: Cost) -> Result<Self, SealError> {
        let key = SigningKey::from_pkcs8(document).map_err(|_| SealError::NoKey)?;
        let (salt, nonce) = (random()?, random()?);
        let mut sealed =
            Self { public: key.verifying_key(), cost, salt, nonce, sealed: Vec::new() };
        // With room for the tag, so that no copy of the secret is left behind by growing.
        let mut body = Zeroizing::new(Vec::with_capacity(document.len() + AES_256_GCM.tag_len()));
        body.extend_from_slice(document);
        let aad = Aad::from(sealed.header());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let cipher = sealed.cipher(with)?;
        cipher
            .seal_in_place_append_tag(nonce, aad, &mut *body)
            .expect("a document is far shorter than AES-GCM's limit");
        sealed.sealed = body.to_vec();
        Ok(sealed)
    }

    /// Whether a file is, or was once, a sealed key.
    #[must_use]
    pub fn is_meant(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC.as_bytes())
    }

    /// Reads what [`SealedKey::to_text`] has written, in that spelling alone.
    ///
    /// # Errors
    /// [`SealError::OtherVersion`], [`SealError::Damaged`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SealError> {
        let damaged = SealError::Damaged;
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("not text"))?;
        let rest = text.strip_prefix(MAGIC).ok_or(damaged("not a sealed key"))?;
        let (version, _) = rest.split_once('\n').ok_or(damaged("cut off"))?;
        if version != VERSION {
            return Err(SealError::OtherVersion(version.escape_debug().take(20).collect()));
        }
        let mut lines = text.lines().skip(1);
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(": ");
        let public = value("public").and_then(|text| text.parse().ok());
        let cost = value("argon2id").and_then(parse_cost);
        let salt = value("salt").and_then(decode::<SALT>);
        let nonce = value("nonce").and_then(decode::<NONCE_LEN>);
        let sealed = value("sealed").and_then(|text| STANDARD.decode(text).ok());
        let key = Self {
            public: public.ok_or(damaged("no public half"))?,
            cost: cost.ok_or(damaged("no cost that can be borne"))?,
            salt: salt.ok_or(damaged("no salt"))?,
            nonce: nonce.ok_or(damaged("no nonce"))?,
            sealed: sealed.ok_or(damaged("nothing sealed"))?,
        };
        if key.to_text() == text { Ok(key) } else { Err(damaged("something stands in it beside")) }
    }

    /// The file.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}sealed: {}\n", self.header(), STANDARD.encode(&self.sealed))
    }

    /// The public half. Nothing but opening proves that it belongs to what is sealed.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        self.public
    }

    /// What a guess costs.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// The PKCS#8 document, and the key that it is. Takes as long as [`Cost`] says: not for a task that
    /// others wait for.
    ///
    /// # Errors
    /// [`SealError::WrongPassphrase`], [`SealError::Damaged`].
    pub fn open(&self, with: &Passphrase) -> Result<(Zeroizing<Vec<u8>>, SigningKey), SealError> {
        let wrong = || SealError::WrongPassphrase;
        let cipher = self.cipher(with)?;
        let mut body = Zeroizing::new(self.sealed.clone());
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let aad = Aad::from(self.header());
        let length = cipher.open_in_place(nonce, aad, &mut body).map_err(|_| wrong())?.len();
        body.truncate(length);
        let key = SigningKey::from_pkcs8(&body).map_err(|_| wrong())?;
        // AES-GCM alone does not bind what is sealed to one passphrase.
        if key.verifying_key() == self.public { Ok((body, key)) } else { Err(wrong()) }
    }

    /// Everything but the last line.
    fn header(&self) -> String {
        format!(
            "{MAGIC}{VERSION}\npublic: {}\nargon2id: {}\nsalt: {}\nnonce: {}\n",
            self.public,
            self.cost,
            STANDARD.encode(self.salt),
            STANDARD.encode(self.nonce),
        )
    }

    fn cipher(&self, with: &Passphrase) -> Result<LessSafeKey, SealError> {
        let Cost { memory, passes, lanes } = self.cost;
        let params = Params::new(memory, passes, lanes, Some(32));
        let unknown = |_| SealError::Damaged("a cost that Argon2 does not know");
        let params = params.map_err(unknown)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut key = Zeroizing::new([0_u8; 32]);
        argon2.hash_password_into(with.0.as_bytes(), &self.salt, key.as_mut()).map_err(unknown)?;
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref());
        Ok(LessSafeKey::new(key.expect("a key of AES-256 has 32 bytes")))
    }
}

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedKey({})", self.public.fingerprint())
    }
}

fn parse_cost(text: &str) -> Option<Cost> {
    let mut words = text.split(' ');
    let mut number = |name: &str| words.next()?.strip_prefix(name)?.parse().ok();
    let cost = Cost { memory: number("m=")?, passes: number("t=")?, lanes: number("p=")? };
    cost.is_bearable().then_some(cost)
}

fn decode<const SIZE: usize>(text: &str) -> Option<[u8; SIZE]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn random<const SIZE: usize>() -> Result<[u8; SIZE], SealError>
where
    [u8; SIZE]: ring::rand::RandomlyConstructable,
{
    let bytes = ring::rand::generate(&SystemRandom::new());
    Ok(bytes.map_err(|_| SealError::NoRandomness)?.expose())
}

#[cfg(test)]
mod tests {
    use ring::signature::Ed25519KeyPair;

    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::parse(text).unwrap()
    }

    fn sealed() -> (Vec<u8>, SealedKey) {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let document = document.as_ref().to_vec();
        let sealed = SealedKey::seal(&document, &passphrase("correct horse"), Cost::TEST).unwrap();
        (document, sealed)
    }

    #[test]
    fn what_was_sealed_opens_with_its_passphrase_alone() {
        let (document, sealed) = sealed();
        let read = SealedKey::parse(sealed.to_text().as_bytes()).unwrap();
        assert_eq!(read, sealed);
        let (opened, key) = read.open(&passphrase("correct horse\n")).unwrap();
        assert_eq!(*opened, document);
        assert_eq!(key.verifying_key(), read.verifying_key());
        for wrong in ["correct horsf", "Correct horse", "correct horse ", "c"] {
            assert_eq!(read.open(&passphrase(wrong)).unwrap_err(), SealError::WrongPassphrase);
        }
        let again = SealedKey::seal(&document, &passphrase("correct horse"), Cost::TEST).unwrap();
        assert_ne!((again.salt, again.nonce), (sealed.salt, sealed.nonce));
        assert_ne!(again.sealed, sealed.sealed);
        assert!(SealedKey::seal(b"no key", &passphrase("x"), Cost::TEST).is_err());
    }

    /// Each byte in turn, each bit of it: nothing of the file can be altered.
    #[test]
    fn no_altered_byte_opens() {
        let (_, sealed) = sealed();
        let text = sealed.to_text().into_bytes();
        let with = passphrase("correct horse");
        for place in 0..text.len() {
            for bit in [0x01, 0x02, 0x04, 0x20] {
                let mut altered = text.clone();
                altered[place] ^= bit;
                let opened = SealedKey::parse(&altered).and_then(|key| key.open(&with).map(drop));
                assert!(opened.is_err(), "byte {place}: {:?}", String::from_utf8_lossy(&altered));
            }
        }
    }

    #[test]
    fn cut_off_and_longer_files_are_refused() {
        let (_, sealed) = sealed();
        let text = sealed.to_text();
        for length in 0..text.len() {
            assert!(SealedKey::parse(&text.as_bytes()[..length]).is_err(), "{length} bytes");
        }
        assert!(SealedKey::parse(format!("{text}\n").as_bytes()).is_err());
        assert!(SealedKey::parse(text.replace('\n', "\r\n").as_bytes()).is_err());
    }

    #[test]
    fn other_versions_and_costs_beyond_bounds_are_told() {
        let (_, sealed) = sealed();
        let text = sealed.to_text();
        let other = text.replacen("version 1\n", "version 2\n", 1);
        assert!(SealedKey::is_meant(other.as_bytes()));
        let error = SealedKey::parse(other.as_bytes()).unwrap_err();
        assert_eq!(error, SealError::OtherVersion("2".to_owned()));
        for cost in ["m=1048577 t=1 p=1", "m=8 t=65 p=1", "m=8 t=1 p=65", "m=8 t=1", "m=-8 t=1 p=1"]
        {
            let greedy = text.replacen("m=8 t=1 p=1", cost, 1);
            let error = SealedKey::parse(greedy.as_bytes()).unwrap_err();
            assert_eq!(error, SealError::Damaged("no cost that can be borne"), "{cost}");
        }
        // Fewer than Argon2 can do with.
        let small = text.replacen("m=8 t=1 p=1", "m=1 t=1 p=1", 1);
        let small = SealedKey::parse(small.as_bytes()).unwrap();
        assert!(matches!(small.open(&passphrase("x")), Err(SealError::Damaged(_))));
    }

    /// The public half of another key, sealed in good faith under a passphrase of the attacker's.
    #[test]
    fn a_key_that_is_not_the_one_it_says_does_not_open() {
        let ((_, one), (_, two)) = (sealed(), sealed());
        let mut forged = two.clone();
        forged.public = one.public;
        assert_eq!(
            forged.open(&passphrase("correct horse")).unwrap_err(),
            SealError::WrongPassphrase
        );
    }

    #[test]
    fn passphrases_are_one_line_and_new_ones_are_long() {
        for (text, expected) in [
            ("", PassphraseError::Empty),
            ("\r\n", PassphraseError::Empty),
            ("two\nlines", PassphraseError::Control),
            ("a\0b", PassphraseError::Control),
            (&"x".repeat(1025), PassphraseError::TooLong),
        ] {
            assert_eq!(Passphrase::parse(text).unwrap_err(), expected);
        }
        assert_eq!(Passphrase::parse_new("elevenchars").unwrap_err(), PassphraseError::TooShort);
        let passphrase = Passphrase::parse_new("twelve chars").unwrap();
        assert!(passphrase.is(&Passphrase::parse("twelve chars\r\n").unwrap()));
        assert!(!format!("{passphrase:?}").contains("twelve"));
    }

    /// RFC 9106 names the parameters; this is what files of version 1 have.
    #[test]
    fn new_files_cost_what_the_rfc_recommends() {
        assert_eq!(Cost::DEFAULT.to_string(), "m=65536 t=3 p=4");
        assert!(Cost::DEFAULT.is_bearable());
    }
}
