//! What both ends of bastio must agree on: frames, messages, names, keys, and the text of
//! `authorized_keys`.
//!
//! This room is pure. It must not know files, sockets, clocks, randomness, accounts or any
//! async runtime: bytes and values go in, values and bytes come out.

pub mod api;
mod hello;
mod key_file;
mod message;
mod message_id;
mod netstring;
mod order;
mod public_key;
mod replacement;
mod signing;
mod ssh_blob;
mod target;
mod username;

pub use hello::{AgentHello, BackendHello, Facts, V2, V2_LIMIT};
pub use key_file::{Change, KeyFile, KeyLine};
pub use message::{
    Action, ActionMessage, FeedbackMessage, Message, MessageError, MessageFault, Status,
};
pub use message_id::{MessageId, MessageIdError};
pub use netstring::{Netstring, NetstringDecoder, NetstringError, V1_LIMIT};
pub use order::{Order, Payload, PayloadError, ServerId, ServerIdError};
pub use public_key::{Algorithm, KeyPolicy, PublicKey, PublicKeyError};
pub use replacement::{REPLACE_NAMESPACE, replacement_text};
pub use signing::{Signature, SigningError, SigningKey, VerifyingKey};
pub use target::{Requirement, ServerName, Target, TargetError, parse_label};
pub use username::{Username, UsernameError};
