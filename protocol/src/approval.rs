//! A second operator's word for what another has proposed: the exact bytes that are signed, and whether
//! a signature is theirs.
//!
//! This file must not know what is proposed, nor who may approve.

use serde::{Deserialize, Serialize};

use crate::{Signature, SigningKey, VerifyingKey};

/// What the signed bytes begin with: a signature made for anything else begins otherwise.
const DOMAIN: &str = "bastio approval of a proposal, version 1\n";

/// What is signed. Every text is one line; no field can be mistaken for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalStatement {
    /// Fingerprint of the backend's host key.
    pub backend: String,
    /// The proposal's number there.
    pub proposal: i64,
    /// SHA-256 of the request, in hexadecimal digits.
    pub request: String,
    /// SHA-256 of what it gives, in hexadecimal digits.
    pub gains: String,
    /// API key of whoever proposed it.
    pub proposer: String,
    /// API key of whoever approves it.
    pub approver: String,
    /// When, in seconds since the Unix epoch.
    pub at: i64,
}

/// A statement with its signature: the detail of the audit row `proposal.approve`, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedApproval {
    /// What was signed.
    pub statement: ApprovalStatement,
    /// The approver's key.
    pub key: VerifyingKey,
    /// Its signature.
    pub signature: Signature,
}

impl ApprovalStatement {
    /// The bytes that are signed: a line for the purpose, and one for each field.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { backend, proposal, request, gains, proposer, approver, at } = self;
        // Whatever a text holds, it stays on its line.
        let lines = [
            ("backend", backend.clone()),
            ("proposal", proposal.to_string()),
            ("request", request.clone()),
            ("gains", gains.clone()),
            ("proposer", proposer.clone()),
            ("approver", approver.clone()),
            ("at", at.to_string()),
        ];
        let lines = lines.map(|(name, value)| format!("{name}: {}\n", value.escape_default()));
        format!("{DOMAIN}{}", lines.concat()).into_bytes()
    }

    /// Signs it.
    #[must_use]
    pub fn sign(self, key: &SigningKey) -> SignedApproval {
        let signature = key.sign(&self.to_bytes());
        SignedApproval { statement: self, key: key.verifying_key(), signature }
    }
}

impl SignedApproval {
    /// Whether the signature is that of the key, for exactly this statement.
    #[must_use]
    pub fn is_genuine(&self) -> bool {
        self.key.verifies(&self.statement.to_bytes(), &self.signature)
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::Ed25519KeyPair;

    use super::*;

    fn key() -> SigningKey {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random");
        SigningKey::from_pkcs8(document.as_ref()).expect("a key")
    }

    fn statement() -> ApprovalStatement {
        ApprovalStatement {
            backend: "SHA256:abc".into(),
            proposal: 7,
            request: "00ff".into(),
            gains: "ff00".into(),
            proposer: "alice".into(),
            approver: "bob".into(),
            at: 1_800_000_000,
        }
    }

    #[test]
    fn the_signed_bytes_are_these() {
        let bytes = String::from_utf8(statement().to_bytes()).expect("text");
        assert_eq!(
            bytes,
            "bastio approval of a proposal, version 1\nbackend: SHA256:abc\nproposal: 7\n\
             request: 00ff\ngains: ff00\nproposer: alice\napprover: bob\nat: 1800000000\n"
        );
        let odd = ApprovalStatement { proposer: "a\napprover: bob".into(), ..statement() };
        assert_eq!(odd.to_bytes().iter().filter(|byte| **byte == b'\n').count(), 8);
    }

    #[test]
    fn no_field_can_be_altered() {
        let signed = statement().sign(&key());
        assert!(signed.is_genuine());
        let text = serde_json::to_string(&signed).expect("JSON");
        assert_eq!(serde_json::from_str::<SignedApproval>(&text).expect("read"), signed);
        let alterations: [fn(&mut ApprovalStatement); 7] = [
            |it| it.backend.push('x'),
            |it| it.proposal += 1,
            |it| it.request.push('0'),
            |it| it.gains.push('0'),
            |it| it.proposer = "eve".into(),
            |it| it.approver = "eve".into(),
            |it| it.at += 1,
        ];
        for alter in alterations {
            let mut altered = signed.clone();
            alter(&mut altered.statement);
            assert!(!altered.is_genuine(), "{altered:?}");
        }
        assert!(!SignedApproval { key: key().verifying_key(), ..signed }.is_genuine());
    }
}
