//! Requests about operators: what waits for a second one, their keys, and the sealed signing key.

use bastio_protocol::VerifyingKey;
use bastio_protocol::api::{
    Approve, NewOperatorKey, OperatorKey, Proposal, Reject, Unseal, Unsealed,
};
use ureq::http::Method;

use super::{Client, ClientError, WHOLE, answer};

impl Client {
    /// Opens the sealed signing key.
    pub fn unseal(&self, passphrase: &str) -> Result<Unsealed, ClientError> {
        self.send(Method::POST, "unseal", &Unseal { passphrase: passphrase.to_owned() })
    }

    /// What waits for another operator, and what did.
    pub fn proposals(&self) -> Result<Vec<Proposal>, ClientError> {
        self.get("proposals")
    }

    /// One of them.
    pub fn proposal(&self, id: i64) -> Result<Proposal, ClientError> {
        self.get(&format!("proposals/{id}"))
    }

    /// Approves one; the answer is that of the request.
    pub fn approve(&self, id: i64, word: &Approve) -> Result<serde_json::Value, ClientError> {
        let body = serde_json::to_vec(word).map_err(|_| ClientError::Unsendable)?;
        let path = format!("proposals/{id}/approve");
        answer::parse(&self.call(Method::POST, &path, Some(body), WHOLE)?)
    }

    /// Refuses one.
    pub fn reject(&self, id: i64, reason: &str) -> Result<Proposal, ClientError> {
        let word = Reject { reason: reason.to_owned() };
        self.send(Method::POST, &format!("proposals/{id}/reject"), &word)
    }

    /// The registered keys of operators.
    pub fn operator_keys(&self) -> Result<Vec<OperatorKey>, ClientError> {
        self.get("operator-keys")
    }

    /// Registers one's own.
    pub fn register(&self, public_key: VerifyingKey) -> Result<OperatorKey, ClientError> {
        self.send(Method::POST, "operator-keys", &NewOperatorKey { public_key })
    }
}
