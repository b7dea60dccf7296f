//! What both ends of bastio must agree on: frames, messages, names, keys, and the text of
//! `authorized_keys`.
//!
//! This room is pure. It must not know files, sockets, clocks, randomness, accounts or any
//! async runtime: bytes and values go in, values and bytes come out.

mod access_report;
mod account;
pub mod api;
mod approval;
pub mod audit;
mod detail;
mod hello;
mod host;
mod key_file;
mod key_options;
mod message;
mod message_id;
mod netstring;
mod order;
mod public_key;
mod receipt;
mod replacement;
mod root_groups;
mod signing;
mod ssh_blob;
mod stamp;
mod sudo_policy;
mod target;
mod username;
mod wanted;

pub use access_report::{AccessEntry, AccessReport, AccessStatus, ReportFault};
pub use account::{
    AbsolutePath, AccountFieldError, AccountSpec, Comment, GroupName, KeyGrant, Removal, Sudo,
    WantedAccount,
};
pub use approval::{ApprovalStatement, SignedApproval};
pub use detail::{
    ChangeKind, ChangeNote, DETAIL_LIMIT, Detail, FailureNote, FoundGroup, FoundKey, FoundUser,
    HostReport,
};
pub use hello::{AgentHello, BackendHello, Facts, V2, V2_LIMIT};
pub use host::{DriftMessage, HostMessage, HostRequest, WantedState};
pub use key_file::{Change, KeyEdit, KeyFile, KeyLine, KeyLineSpec};
pub use key_options::{KeyExpiry, KeyOptions, KeyOptionsError};
pub use message::{
    Action, ActionMessage, FeedbackMessage, Message, MessageError, MessageFault, Status,
};
pub use message_id::{MessageId, MessageIdError};
pub use netstring::{Netstring, NetstringDecoder, NetstringError, V1_LIMIT};
pub use order::{Draft, Late, Order, Payload, PayloadError, ServerId, ServerIdError};
pub use public_key::{Algorithm, KeyPolicy, PublicKey, PublicKeyError};
pub use receipt::{
    LISTED_LIMIT, Occasion, Receipt, ReceiptFault, Standing, StateHash, StateHashError,
    StateOfAccount, States,
};
pub use replacement::{RECEIPT_NAMESPACE, REPLACE_NAMESPACE, receipt_key_text, replacement_text};
pub use root_groups::is_root_equivalent;
pub use signing::{Signature, SigningError, SigningKey, VerifyingKey};
pub use stamp::{civil_from_days, days_from_civil};
pub use sudo_policy::{SudoCommand, SudoPolicy, SudoPolicyError};
pub use target::{Requirement, ServerName, Target, TargetError, parse_label};
pub use username::{Username, UsernameError};
pub use wanted::{WANTED_LIMIT, WantedError};
