//! Edits that wait for a second operator.

use serde::{Deserialize, Serialize};

use crate::{ApprovalStatement, Signature, VerifyingKey};

/// Something that waits for another operator's word, or did. `GET /proposals`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Its number.
    pub id: i64,
    /// How far it is.
    pub state: ProposalState,
    /// API key of whoever proposed it.
    pub proposer: String,
    /// The address it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// When.
    pub created: i64,
    /// Until when it can be approved.
    pub expires: i64,
    /// The model's revision then.
    pub revision: i64,
    /// Why, in the proposer's words; empty when nothing was said.
    pub reason: String,
    /// The request: `POST /grants`.
    pub request: String,
    /// Its body, as it was sent.
    pub body: String,
    /// Whether the proposer meant it however large it is: nothing stops it for its size.
    #[serde(default)]
    pub confirmed: bool,
    /// What it gives; in a list the first 200 of it.
    pub gains: Vec<String>,
    /// How much it gives in all.
    pub gained: u32,
    /// What is to be signed, but for who and when: these two are the approver's.
    pub statement: ApprovalStatement,
    /// Who ended it, when it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<i64>,
}

/// How far a proposal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProposalState {
    /// It waits.
    Open,
    /// It was approved and carried out.
    Approved,
    /// Somebody refused it.
    Rejected,
    /// Nobody approved it in time.
    Expired,
}

impl ProposalState {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
        }
    }
}

/// An operator's word for a proposal. `POST /proposals/{id}/approve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// What was signed.
    pub statement: ApprovalStatement,
    /// By the key that is registered for the approver's API key.
    pub signature: Signature,
}

/// An operator's word against a proposal. `POST /proposals/{id}/reject`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reject {
    /// Why; one line.
    pub reason: String,
}

/// The public half of an operator's own key. `POST /operator-keys` registers it for the API key that asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOperatorKey {
    /// The key.
    pub public_key: VerifyingKey,
}

/// A registered key. `GET /operator-keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorKey {
    /// The API key whose it is.
    pub api_key: String,
    /// The key.
    pub public_key: VerifyingKey,
    /// Since when.
    pub since: i64,
}
