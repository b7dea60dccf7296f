//! Receipts: what a server's root processor signs about the state that an action has left behind, so that whoever has
//! the server's receipt key can tell, later and elsewhere, that access ended there.
//!
//! A receipt names accounts and, for each, the hash of a text that says all of its state ([`StateOfAccount`]). "No
//! access" has one text for each login, so the end of access can be checked without knowing anything else. Pure: whose key
//! it must be, and whether the receipt is the awaited one, is the caller's to say.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::audit::hex;
use crate::order::push;
use crate::{
    MessageId, ServerId, Signature, SigningKey, Status, Sudo, Username, VerifyingKey, WantedAccount,
};

/// What is signed begins with this, so that no other use of a key can be taken for a receipt.
const DOMAIN: &[u8] = b"bastio-receipt-v1";
/// First line of the text of a state.
const HEAD: &str = "bastio-state-v1";
/// Most accounts that a receipt lists; of more it carries the hash of the list alone.
pub const LISTED_LIMIT: usize = 512;
/// Size of a hash, in bytes.
const SIZE: usize = 32;

/// A SHA-256 hash. As text: 64 hexadecimal digits in small letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StateHash([u8; SIZE]);

/// Not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a hash is 64 hexadecimal digits in small letters")]
pub struct StateHashError;

/// What is left of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// There is none.
    Absent,
    /// It is there and lets nobody in: locked, or its end has come.
    Locked,
    /// It lets in as this says.
    Present(&'a WantedAccount),
}

/// All that a receipt says about one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateOfAccount<'a> {
    /// Its login name.
    pub login: &'a Username,
    /// What is left of it.
    pub standing: Standing<'a>,
    /// Whether its sessions and processes were ended, or there were none.
    pub sessions_ended: bool,
}

/// Which accounts a receipt is about: the hash of each one's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct States {
    /// By login name.
    pub accounts: BTreeMap<Username, StateHash>,
    /// Whether these are all that bastio manages on the server: whoever is missing has no account of bastio's there.
    pub complete: bool,
}

/// What a receipt is given for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occasion {
    /// The server's id at its backend.
    pub server: ServerId,
    /// The highest number of an order that the server had obeyed.
    pub sequence: u64,
    /// When, by the server's clock, in seconds since the Unix epoch.
    pub at: i64,
    /// The id of the action.
    pub mid: MessageId,
    /// Its name on the wire.
    pub action: String,
    /// How it ended.
    pub status: Status,
}

/// A signed receipt. Until [`Receipt::verify`] has said yes, nothing in it may be believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    server: ServerId,
    sequence: u64,
    at: i64,
    mid: RawMid,
    action: String,
    status: Status,
    /// Absent when there are more than [`LISTED_LIMIT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accounts: Option<BTreeMap<Username, StateHash>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    complete: bool,
    digest: StateHash,
    signature: Signature,
}

/// How much of the server's accounts a receipt names.
#[derive(Debug, Clone, Copy)]
struct Extent {
    complete: bool,
    listed: bool,
}

/// A `mid` as it stands in a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RawMid(MessageId);

/// Why a receipt proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReceiptFault {
    /// Another key's, or something in it was altered.
    #[error("the signature is not that of the server's receipt key over this receipt")]
    Signature,
    /// The list is another than the one that was signed.
    #[error("the list of accounts was altered: its hash is another than the signed one")]
    Accounts,
}

impl StateHash {
    fn of(bytes: &[u8]) -> Self {
        Self::taken(digest(&SHA256, bytes).as_ref())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn taken(bytes: &[u8]) -> Self {
        Self(bytes.try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl FromStr for StateHash {
    type Err = StateHashError;

    fn from_str(text: &str) -> Result<Self, StateHashError> {
        let digits = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 2 * SIZE || !text.as_bytes().iter().all(digits) {
            return Err(StateHashError);
        }
        let mut bytes = [0; SIZE];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| StateHashError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| StateHashError)?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for StateHash {
    type Error = StateHashError;

    fn try_from(text: String) -> Result<Self, StateHashError> {
        text.parse()
    }
}

impl From<StateHash> for String {
    fn from(hash: StateHash) -> Self {
        hash.to_string()
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateHash({self})")
    }
}

impl StateOfAccount<'_> {
    /// The text whose hash a receipt carries: lines, each with its newline. See docs/protocol.md, "Receipts".
    #[must_use]
    pub fn text(&self) -> String {
        let account = match self.standing {
            Standing::Absent => "absent",
            Standing::Locked => "locked",
            Standing::Present(_) => "present",
        };
        let sessions = if self.sessions_ended { "ended" } else { "left" };
        let login = self.login;
        let mut text = format!("{HEAD}\nlogin {login}\naccount {account}\nsessions {sessions}\n");
        if let Standing::Present(account) = self.standing {
            describe(account, &mut text).expect("writing into a text never fails");
        }
        text
    }

    /// The hash of [`Self::text`].
    #[must_use]
    pub fn hash(&self) -> StateHash {
        StateHash::of(self.text().as_bytes())
    }

    /// The state of an account which lets nobody in and as which nothing runs.
    #[must_use]
    pub fn no_access<'a>(login: &'a Username, standing: Standing<'static>) -> StateOfAccount<'a> {
        StateOfAccount { login, standing, sessions_ended: true }
    }
}

fn describe(account: &WantedAccount, text: &mut String) -> fmt::Result {
    let json = |it: serde_json::Result<String>| it.expect("texts and numbers always serialise");
    if !account.spec.is_empty() {
        writeln!(text, "spec {}", json(serde_json::to_string(&account.spec)))?;
    }
    write!(text, "until ")?;
    until(account.until, text)?;
    match &account.sudo {
        Sudo::None => writeln!(text, "sudo none")?,
        Sudo::Plain => writeln!(text, "sudo plain")?,
        Sudo::Policy(policy) => {
            writeln!(text, "sudo {}", json(serde_json::to_string(policy)))?;
        }
    }
    let mut keys: Vec<_> =
        account.keys.iter().map(|key| (key.public_key.fingerprint(), key)).collect();
    keys.sort_by(|one, other| one.0.cmp(&other.0));
    for (fingerprint, key) in keys {
        write!(text, "key {fingerprint} options {} until ", key.options.as_str())?;
        until(account.key_until(key), text)?;
    }
    Ok(())
}

fn until(seconds: Option<i64>, text: &mut String) -> fmt::Result {
    match seconds {
        Some(seconds) => writeln!(text, "{seconds}"),
        None => writeln!(text, "-"),
    }
}

impl States {
    /// Adds the state of an account.
    pub fn add(&mut self, state: &StateOfAccount<'_>) {
        self.accounts.insert(state.login.clone(), state.hash());
    }

    fn digest(accounts: &BTreeMap<Username, StateHash>) -> StateHash {
        let mut context = Context::new(&SHA256);
        for (login, hash) in accounts {
            let mut bytes = Vec::with_capacity(128);
            push(&mut bytes, login.as_str().as_bytes());
            bytes.extend_from_slice(&hash.0);
            context.update(&bytes);
        }
        StateHash::taken(context.finish().as_ref())
    }
}

impl Receipt {
    /// Signs a receipt.
    #[must_use]
    pub fn sign(key: &SigningKey, occasion: Occasion, states: States) -> Self {
        let digest = States::digest(&states.accounts);
        let accounts = (states.accounts.len() <= LISTED_LIMIT).then_some(states.accounts);
        let extent = Extent { complete: states.complete, listed: accounts.is_some() };
        let signature = key.sign(&signed_bytes(&occasion, extent, &digest));
        let Occasion { server, sequence, at, mid, action, status } = occasion;
        let (mid, complete) = (RawMid(mid), states.complete);
        Self { server, sequence, at, mid, action, status, accounts, complete, digest, signature }
    }

    /// Whether that key signed exactly this receipt. Says nothing about whether it is the one that was waited for.
    ///
    /// # Errors
    /// [`ReceiptFault`].
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), ReceiptFault> {
        let bytes = signed_bytes(&self.occasion(), self.extent(), &self.digest);
        if !key.verifies(&bytes, &self.signature) {
            return Err(ReceiptFault::Signature);
        }
        match &self.accounts {
            Some(accounts) if States::digest(accounts) != self.digest => {
                Err(ReceiptFault::Accounts)
            }
            _ => Ok(()),
        }
    }

    fn extent(&self) -> Extent {
        Extent { complete: self.complete, listed: self.accounts.is_some() }
    }

    /// What it was given for.
    #[must_use]
    pub fn occasion(&self) -> Occasion {
        Occasion {
            server: self.server.clone(),
            sequence: self.sequence,
            at: self.at,
            mid: self.mid.0.clone(),
            action: self.action.clone(),
            status: self.status,
        }
    }

    /// When it was signed, by the server's clock, in seconds since the Unix epoch.
    #[must_use]
    pub fn at(&self) -> i64 {
        self.at
    }

    /// The server that it says it is of.
    #[must_use]
    pub fn server(&self) -> &ServerId {
        &self.server
    }

    /// The id of the action that it is about.
    #[must_use]
    pub fn mid(&self) -> &MessageId {
        &self.mid.0
    }

    /// The hash of the account's state, if the receipt lists it.
    #[must_use]
    pub fn state_of(&self, login: &Username) -> Option<StateHash> {
        self.accounts.as_ref()?.get(login).copied()
    }

    /// Whether it says that the account lets nobody in, and that nothing runs as it any more.
    #[must_use]
    pub fn ends_access(&self, login: &Username) -> bool {
        let Some(accounts) = &self.accounts else { return false };
        match accounts.get(login) {
            Some(hash) => [Standing::Absent, Standing::Locked]
                .into_iter()
                .any(|standing| StateOfAccount::no_access(login, standing).hash() == *hash),
            None => self.complete,
        }
    }
}

/// The bytes that are signed, numbers big-endian, every text with its length in front in 4 bytes.
fn signed_bytes(occasion: &Occasion, extent: Extent, digest: &StateHash) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    push(&mut bytes, DOMAIN);
    push(&mut bytes, occasion.server.as_str().as_bytes());
    bytes.extend_from_slice(&occasion.sequence.to_be_bytes());
    bytes.extend_from_slice(&occasion.at.to_be_bytes());
    push(&mut bytes, occasion.mid.as_json().as_bytes());
    push(&mut bytes, occasion.action.as_bytes());
    bytes.extend_from_slice(&occasion.status.code().to_be_bytes());
    bytes.push(u8::from(extent.complete) | u8::from(extent.listed) << 1);
    bytes.extend_from_slice(&digest.0);
    bytes
}

impl Serialize for RawMid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawMid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <Box<RawValue>>::deserialize(deserializer)?;
        MessageId::from_json(&raw).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
