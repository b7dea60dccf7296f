//! Orders: what a backend asks for in version 2, signed so that the processor itself can tell.
//!
//! An order is an envelope (server, sequence, time limit, signature) around the exact text of a
//! message. Pure: whether a sequence is new or a time is over is the caller's to decide.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

mod together;

use self::together::InclusionPath;
use crate::signing::{Signature, SigningKey, VerifyingKey};
use crate::{
    ActionMessage, FeedbackMessage, HostMessage, KeyPolicy, Message, MessageError, MessageFault,
    MessageId, Status,
};

/// What is signed begins with this, so that no other use of the key can be taken for an order.
const DOMAIN: &[u8] = b"bastio-order-v1";
/// `type` of an order.
const KIND: &str = "order";
/// `type` of the payload that replaces the signing key.
const ROTATE: &str = "rotate-signing-key";
/// Longest id of a server, in bytes.
const MAX_SERVER: usize = 64;

/// An order came after its time limit. The text is the feedback, and both ends know it: such an
/// order was not obeyed because clocks differ, and is no failure of what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{LATE}{not_after} and it is {now} here (seconds since 1970); nothing was done")]
pub struct Late {
    /// Until when it was good, in seconds since the Unix epoch.
    pub not_after: i64,
    /// The clock of the server that refused it.
    pub now: i64,
}

/// How the feedback of [`Late`] begins.
const LATE: &str = "the order was good until ";

impl Late {
    /// Reads a feedback. `None` when it is about something else.
    #[must_use]
    pub fn parse(feedback: &str) -> Option<Self> {
        let (not_after, rest) = feedback.strip_prefix(LATE)?.split_once(" and it is ")?;
        let (now, _) = rest.split_once(" here")?;
        Some(Self { not_after: not_after.parse().ok()?, now: now.parse().ok()? })
    }
}

/// A server's id at its backend: what an order is bound to. A few printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ServerId(String);

/// Not an id of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a server's id is 1 to {MAX_SERVER} printable ASCII characters without blanks")]
pub struct ServerIdError;

/// One order. Until [`Order::verify`] has said yes, nothing in it may be believed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    #[serde(rename = "type")]
    kind: OrderKind,
    server: ServerId,
    sequence: u64,
    not_after: i64,
    payload: String,
    #[serde(default, skip_serializing_if = "InclusionPath::is_empty")]
    inclusion_path: InclusionPath,
    signature: Signature,
}

/// An order that nobody has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    server: ServerId,
    sequence: u64,
    not_after: i64,
    payload: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum OrderKind {
    #[serde(rename = "order")]
    Order,
}

/// What an order asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// An action.
    Action(ActionMessage),
    /// Something for the whole server.
    Host(HostMessage),
    /// From now on another key signs.
    RotateKey {
        /// Echoed by the feedback.
        mid: MessageId,
        /// The key to trust in place of the one that signed this.
        key: VerifyingKey,
    },
}

/// Why a payload is not obeyed although its signature is good.
#[derive(Debug, Error)]
pub enum PayloadError {
    /// No message that this program knows.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A feedback, which is nothing to obey.
    #[error("an order that asks for nothing")]
    NoAction,
    /// There is more in it than this program understands, and half an order is none.
    #[error("the order says more than this agent understands; update the agent")]
    Spelling,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRotation<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    mid: &'a RawValue,
    key: VerifyingKey,
}

impl ServerId {
    /// Parses an id.
    ///
    /// # Errors
    /// [`ServerIdError`].
    pub fn parse(text: &str) -> Result<Self, ServerIdError> {
        let good = (1..=MAX_SERVER).contains(&text.len());
        if good && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ServerIdError)
        }
    }

    /// The id of the server with that number.
    #[must_use]
    pub fn from_number(number: i64) -> Self {
        Self(number.to_string())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ServerId {
    type Error = ServerIdError;

    fn try_from(text: String) -> Result<Self, ServerIdError> {
        Self::parse(&text)
    }
}

impl From<ServerId> for String {
    fn from(id: ServerId) -> Self {
        id.0
    }
}

impl Draft {
    /// An order for one server to do that, good until `not_after` (seconds since the Unix epoch).
    #[must_use]
    pub fn new(server: ServerId, sequence: u64, not_after: i64, action: &ActionMessage) -> Self {
        Self { server, sequence, not_after, payload: text(action.to_json()) }
    }

    fn signed_bytes(&self) -> Vec<u8> {
        signed_bytes(&self.server, self.sequence, self.not_after, &self.payload)
    }
}

impl Order {
    /// Signs an order for one server, good until `not_after` (seconds since the Unix epoch).
    #[must_use]
    pub fn sign(
        key: &SigningKey,
        server: ServerId,
        sequence: u64,
        not_after: i64,
        payload: &Payload,
    ) -> Self {
        let draft = Draft { server, sequence, not_after, payload: payload.to_json() };
        let signature = key.sign(&draft.signed_bytes());
        Self::signed(draft, InclusionPath::default(), signature)
    }

    /// Signs many orders, of any servers, with one signature (with more for more than 65,536): each of them is an order
    /// by itself, for agents that obey such ([`crate::AgentHello::together`]). They come in the order of the drafts.
    #[must_use]
    pub fn sign_together(key: &SigningKey, mut drafts: Vec<Draft>) -> Vec<Self> {
        let mut orders = Vec::with_capacity(drafts.len());
        while !drafts.is_empty() {
            let rest = drafts.split_off(drafts.len().min(together::MOST));
            orders.extend(Self::sign_tree(key, drafts));
            drafts = rest;
        }
        orders
    }

    fn sign_tree(key: &SigningKey, drafts: Vec<Draft>) -> Vec<Self> {
        let alone: Vec<Vec<u8>> = drafts.iter().map(Draft::signed_bytes).collect();
        let paths = together::paths(&alone);
        // All of them lead to the same.
        let first = alone.into_iter().zip(&paths).next();
        let Some(root) = first.map(|(alone, path)| path.signed(alone)) else { return Vec::new() };
        let signature = key.sign(&root);
        let signed = |(draft, path)| Self::signed(draft, path, signature);
        drafts.into_iter().zip(paths).map(signed).collect()
    }

    fn signed(draft: Draft, inclusion_path: InclusionPath, signature: Signature) -> Self {
        let Draft { server, sequence, not_after, payload } = draft;
        let kind = OrderKind::Order;
        Self { kind, server, sequence, not_after, payload, inclusion_path, signature }
    }

    /// Whether that key signed exactly this order, alone or together with others. Says nothing about the server, the
    /// sequence and the time, which the caller must look at, too.
    #[must_use]
    pub fn verify(&self, key: &VerifyingKey) -> bool {
        let alone = signed_bytes(&self.server, self.sequence, self.not_after, &self.payload);
        key.verifies(&self.inclusion_path.signed(alone), &self.signature)
    }

    /// Parses the body of a frame. `None` when its `type` is another.
    ///
    /// # Errors
    /// As the JSON of it is wrong; the members are closed, and each has one type.
    #[must_use = "nothing else is read from the body"]
    pub fn parse(body: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        is_kind(body, KIND).then(|| serde_json::from_slice(body))
    }

    /// The JSON body of this order.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialise")
    }

    /// The server it is for.
    #[must_use]
    pub fn server(&self) -> &ServerId {
        &self.server
    }

    /// Its number; each order of a server has a higher one than those before.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Until when it may be obeyed, in seconds since the Unix epoch.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// What it asks for. Keys are checked for their form only, as in an action without envelope.
    ///
    /// # Errors
    /// [`PayloadError`]: a payload is understood whole, to the letter, or not at all.
    pub fn payload(&self) -> Result<Payload, PayloadError> {
        let body = self.payload.as_bytes();
        let payload = if is_kind(body, ROTATE) {
            rotation(body)?
        } else {
            match Message::parse(body, &KeyPolicy::ANY)? {
                Message::Action(action) => Payload::Action(action),
                Message::Host(host) => Payload::Host(host),
                Message::Feedback(_) => return Err(PayloadError::NoAction),
            }
        };
        if payload.to_json() == self.payload { Ok(payload) } else { Err(PayloadError::Spelling) }
    }

    /// The id under which an answer to the order, obeyed or not, is waited for.
    #[must_use]
    pub fn mid(&self) -> Option<MessageId> {
        match self.payload() {
            Ok(payload) => Some(payload.mid().clone()),
            Err(PayloadError::Message(error)) => error.mid,
            Err(PayloadError::NoAction | PayloadError::Spelling) => {
                #[derive(Deserialize)]
                struct Mid<'a> {
                    #[serde(borrow)]
                    mid: &'a RawValue,
                }
                let found: Mid<'_> = serde_json::from_str(&self.payload).ok()?;
                MessageId::from_json(found.mid).ok()
            }
        }
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("server", &self.server)
            .field("sequence", &self.sequence)
            .field("not_after", &self.not_after)
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}

impl Payload {
    /// The id of the message.
    #[must_use]
    pub fn mid(&self) -> &MessageId {
        match self {
            Self::Action(action) => &action.mid,
            Self::Host(host) => &host.mid,
            Self::RotateKey { mid, .. } => mid,
        }
    }

    /// The answer to it.
    #[must_use]
    pub fn reply(&self, status: Status, feedback: impl Into<String>) -> FeedbackMessage {
        FeedbackMessage::new(self.mid().clone(), status, feedback)
    }

    /// The JSON text that an order carries.
    #[must_use]
    pub fn to_json(&self) -> String {
        text(match self {
            Self::Action(action) => action.to_json(),
            Self::Host(host) => host.to_json(),
            Self::RotateKey { mid, key } => {
                let mid = serde_json::from_str(mid.as_json()).expect("a mid is JSON");
                let wire = WireRotation { kind: ROTATE.to_owned(), mid, key: *key };
                serde_json::to_vec(&wire).expect("strings always serialise")
            }
        })
    }
}

fn text(json: Vec<u8>) -> String {
    String::from_utf8(json).expect("JSON is UTF-8")
}

fn rotation(body: &[u8]) -> Result<Payload, PayloadError> {
    let fault = |fault: MessageFault| MessageError { mid: None, fault };
    let wire: WireRotation<'_> =
        serde_json::from_slice(body).map_err(|error| fault(MessageFault::NotAnObject(error)))?;
    let mid = MessageId::from_json(wire.mid).map_err(|error| fault(error.into()))?;
    Ok(Payload::RotateKey { mid, key: wire.key })
}

/// Whether the body is an object of that `type`.
pub(crate) fn is_kind(body: &[u8], wanted: &str) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
    }
    // serde would read a list as an object without names.
    body.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<Kind<'_>>(body).is_ok_and(|found| found.kind == wanted)
}

/// The bytes that are signed. Every text has its length in front, in 4 bytes, so that none can
/// run into the next; numbers are 8 bytes; all of it big-endian.
fn signed_bytes(server: &ServerId, sequence: u64, not_after: i64, payload: &str) -> Vec<u8> {
    let texts = [DOMAIN, server.as_str().as_bytes()];
    let mut bytes = Vec::with_capacity(payload.len() + 128);
    for text in texts {
        push(&mut bytes, text);
    }
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&not_after.to_be_bytes());
    push(&mut bytes, payload.as_bytes());
    bytes
}

/// A text behind its length, in 4 bytes.
pub(crate) fn push(bytes: &mut Vec<u8>, text: &[u8]) {
    let length = u32::try_from(text.len()).expect("a frame is far shorter than 4 GiB");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(text);
}

#[cfg(test)]
mod tests;
