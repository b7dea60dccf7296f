//! Whether the approvals in an export are the approvers' own: each row `proposal.approve` holds what was
//! signed, and rows `operator-key.*` say whose which key is. Pure.

use std::collections::BTreeMap;

use bastio_protocol::audit::ChainedRow;
use bastio_protocol::{SignedApproval, VerifyingKey};

/// The rows of an export as far as they were seen.
#[derive(Debug, Default)]
pub struct Approvals {
    /// The operators' keys, by API key.
    keys: BTreeMap<String, VerifyingKey>,
    good: u64,
    unknown: u64,
    bad: Option<i64>,
}

impl Approvals {
    /// Looks at the next row.
    pub fn row(&mut self, chained: &ChainedRow) {
        let row = &chained.row;
        if row.action.starts_with("operator-key.") {
            let named = row.detail.split_once(' ');
            if let Some((name, Ok(key))) = named.map(|(name, key)| (name, key.parse())) {
                self.keys.insert(name.to_owned(), key);
            }
        } else if row.action == "proposal.approve" {
            let signed: Option<SignedApproval> = serde_json::from_str(&row.detail).ok();
            let genuine = signed.filter(|signed| {
                signed.is_genuine() && row.actor == format!("key:{}", signed.statement.approver)
            });
            let Some(signed) = genuine else {
                self.bad.get_or_insert(row.id);
                return;
            };
            match self.keys.get(&signed.statement.approver) {
                Some(key) if *key == signed.key => self.good += 1,
                Some(_) => drop(self.bad.get_or_insert(row.id)),
                // The key was registered before this export begins.
                None => self.unknown += 1,
            }
        }
    }

    /// The first approval that is not what its approver has signed.
    pub fn bad(&self) -> Option<i64> {
        self.bad
    }

    /// For programs: how many are signed by their approvers, and how many by keys that are not in this export.
    pub fn numbers(&self) -> serde_json::Value {
        serde_json::json!({ "signed": self.good, "unknown": self.unknown })
    }

    /// For people; nothing when nothing was approved.
    pub fn in_words(&self) -> Option<String> {
        let unknown = match self.unknown {
            0 => String::new(),
            unknown => format!(
                ", {unknown} signed by keys whose registration is not in this export: compare them \
                 with `bastio operator ls`"
            ),
        };
        (self.good + self.unknown > 0)
            .then(|| format!("approvals: {} signed by their approvers{unknown}", self.good))
    }
}

#[cfg(test)]
mod tests {
    use bastio_protocol::api::AuditRow;
    use bastio_protocol::{ApprovalStatement, SigningKey};
    use ring::rand::SystemRandom;
    use ring::signature::Ed25519KeyPair;

    use super::*;

    fn key() -> SigningKey {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random");
        SigningKey::from_pkcs8(document.as_ref()).expect("a key")
    }

    fn row(id: i64, actor: &str, action: &str, detail: String) -> ChainedRow {
        let row = AuditRow {
            id,
            at: 1,
            actor: actor.to_owned(),
            from: None,
            action: action.to_owned(),
            user: None,
            server: None,
            detail,
            reason: None,
            status: None,
        };
        ChainedRow { row, prev_hash: String::new(), hash: String::new() }
    }

    #[test]
    fn an_approval_counts_when_the_approvers_registered_key_has_signed_it() {
        let (bobs, other) = (key(), key());
        let statement = ApprovalStatement {
            backend: "b".into(),
            proposal: 1,
            request: "r".into(),
            gains: "g".into(),
            proposer: "alice".into(),
            approver: "bob".into(),
            at: 1,
        };
        let approve = |actor: &str, signed: &SignedApproval| {
            let detail = serde_json::to_string(signed).expect("JSON");
            row(2, actor, "proposal.approve", detail)
        };
        let good = statement.clone().sign(&bobs);
        let mut altered = good.clone();
        altered.statement.proposal = 2;
        let added =
            || row(1, "key:bob", "operator-key.add", format!("bob {}", bobs.verifying_key()));
        for (what, rows, bad, words) in [
            ("good", vec![added(), approve("key:bob", &good)], None, "1 signed"),
            ("unknown", vec![approve("key:bob", &good)], None, "compare them"),
            ("altered", vec![added(), approve("key:bob", &altered)], Some(2), ""),
            ("by another", vec![added(), approve("key:eve", &good)], Some(2), ""),
            (
                "another key",
                vec![added(), approve("key:bob", &statement.sign(&other))],
                Some(2),
                "",
            ),
            ("none", vec![added(), row(2, "key:bob", "proposal.approve", "x".into())], Some(2), ""),
        ] {
            let mut approvals = Approvals::default();
            rows.iter().for_each(|row| approvals.row(row));
            assert_eq!(approvals.bad(), bad, "{what}");
            assert!(approvals.in_words().unwrap_or_default().contains(words), "{what}");
        }
    }
}
