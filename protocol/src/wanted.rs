//! What must hold for a wanted account, and for all of a server, beyond each single field.
//!
//! This file must not know what a server has now: whether an id is free there is the agent's to say.

use std::collections::BTreeMap;

use serde::Serialize;
use thiserror::Error;

use crate::{
    KeyFile, KeyOptionsError, KeyPolicy, PublicKeyError, SudoPolicyError, Username, WantedAccount,
    WantedState,
};

/// Longest JSON of one `wanted`, in bytes. In an order it is a text inside JSON and at most twice as long,
/// so that it always fits a frame ([`crate::V2_LIMIT`]).
pub const WANTED_LIMIT: usize = 512_000;
/// Most key lines that are put back, and the longest, in bytes.
const MAX_KEY_LINES: usize = 64;
const MAX_KEY_LINE: usize = 16 * 1024;
/// Numeric ids that mean something else: root, nobody, and "none" of 16 and of 32 bits.
const NO_UIDS: [u32; 4] = [0, 65_534, 65_535, u32::MAX];

/// Why nobody can be given this.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WantedError {
    /// More than a frame takes for sure.
    #[error("{found} bytes of accounts, at most {WANTED_LIMIT} go at once; send set-user for each")]
    TooLong {
        /// Bytes of its JSON.
        found: usize,
    },
    /// An id that no person has.
    #[error("uid {0} is nobody's to have")]
    Uid(u32),
    /// One id for two names.
    #[error("uid {uid} is wanted for {one} and for {other}")]
    UidTwice {
        /// The id.
        uid: u32,
        /// A name.
        one: Username,
        /// The other.
        other: Username,
    },
    /// A key that stands there with different options or ends.
    #[error("the key {0} is there twice; one entry says all of it")]
    KeyTwice(String),
    /// A key that the policy forbids.
    #[error("the key {fingerprint}: {fault}")]
    Key {
        /// Which one.
        fingerprint: String,
        /// What is wrong.
        fault: PublicKeyError,
    },
    /// Options that this key cannot have.
    #[error("the key {fingerprint}: {fault}")]
    Options {
        /// Which one.
        fingerprint: String,
        /// What is wrong.
        fault: KeyOptionsError,
    },
    /// An account that is given back and yet has keys, an end, a lock or a rule; or a key line that is none.
    #[error("release: {0}")]
    Release(&'static str),
    /// A sudo rule that cannot be written.
    #[error(transparent)]
    Sudo(#[from] SudoPolicyError),
}

impl WantedAccount {
    /// Whether its fields fit together, its keys are good enough and it can be sent.
    ///
    /// # Errors
    /// [`WantedError`] with the first fault.
    pub fn check(&self, policy: &KeyPolicy) -> Result<(), WantedError> {
        self.check_fields(policy)?;
        check_length(self)
    }

    fn check_fields(&self, policy: &KeyPolicy) -> Result<(), WantedError> {
        self.spec.uid.map_or(Ok(()), check_uid)?;
        self.check_release()?;
        if let crate::Sudo::Policy(rule) = &self.sudo {
            rule.check()?;
        }
        let mut before = None;
        for grant in &self.keys {
            let fingerprint = || grant.public_key.fingerprint();
            // They are sorted by key first.
            if before.replace(&grant.public_key) == Some(&grant.public_key) {
                return Err(WantedError::KeyTwice(fingerprint()));
            }
            let good = grant.public_key.meets(policy);
            good.map_err(|fault| WantedError::Key { fingerprint: fingerprint(), fault })?;
            let fits = grant.options.fits(&grant.public_key);
            fits.map_err(|fault| WantedError::Options { fingerprint: fingerprint(), fault })?;
        }
        Ok(())
    }
}

impl WantedAccount {
    fn check_release(&self) -> Result<(), WantedError> {
        let Some(lines) = &self.release else { return Ok(()) };
        let has_rule = matches!(self.sudo, crate::Sudo::Policy(_));
        if !self.keys.is_empty() || self.until.is_some() || self.locked || has_rule {
            return Err(WantedError::Release("what is given back has no keys, end, lock or rule"));
        }
        let is_line = |line: &String| line.len() <= MAX_KEY_LINE && KeyFile::is_key_line(line);
        if lines.len() > MAX_KEY_LINES || !lines.iter().all(is_line) {
            return Err(WantedError::Release("at most 64 key lines of at most 16384 bytes"));
        }
        Ok(())
    }
}

impl WantedState {
    /// Whether each account is good, no two names want one numeric id, and it can be sent.
    ///
    /// # Errors
    /// [`WantedError`] with the first fault.
    pub fn check(&self, policy: &KeyPolicy) -> Result<(), WantedError> {
        self.accounts.values().try_for_each(|account| account.check_fields(policy))?;
        let reserved = self.reserved_uids.iter().map(|(name, uid)| (name, *uid));
        let wanted =
            self.accounts.iter().filter_map(|(name, it)| it.spec.uid.map(|uid| (name, uid)));
        let mut owners = BTreeMap::new();
        for (name, uid) in reserved.chain(wanted) {
            check_uid(uid)?;
            match owners.insert(uid, name) {
                Some(before) if before != name => {
                    let (one, other) = (before.clone(), name.clone());
                    return Err(WantedError::UidTwice { uid, one, other });
                }
                _ => {}
            }
        }
        check_length(self)
    }
}

fn check_uid(uid: u32) -> Result<(), WantedError> {
    if NO_UIDS.contains(&uid) { Err(WantedError::Uid(uid)) } else { Ok(()) }
}

fn check_length(wanted: &impl Serialize) -> Result<(), WantedError> {
    let found = serde_json::to_vec(wanted).map_or(usize::MAX, |json| json.len());
    if found > WANTED_LIMIT { Err(WantedError::TooLong { found }) } else { Ok(()) }
}
