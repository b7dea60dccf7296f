//! The report on where a person's access has ended: for each account whether its server has signed that, and for the
//! others until when access can last. It can be verified without the backend, and an altered byte is found and named.
//!
//! The receipts are signed by the servers, the report around them by the backend. Pure.

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::api::{Presence, UserState};
use crate::order::push;
use crate::{
    Receipt, ReceiptFault, ServerId, ServerName, Signature, SigningKey, StateHash, Username,
    VerifyingKey,
};

/// What the backend signs begins with this.
const DOMAIN: &[u8] = b"bastio-access-report-v1";
/// The form of the report.
const FORM: u32 = 1;

/// Where a person's access stands. `GET /users/{name}/proof`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessReport {
    /// The form of this report: 1.
    pub bastio_access_report: u32,
    /// The person.
    pub user: Username,
    /// Whether the person may log in at all; absent when nobody of that name is on record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<UserState>,
    /// When the backend wrote this, in seconds since the Unix epoch.
    pub at: i64,
    /// The accounts, by server.
    pub accounts: Vec<AccessEntry>,
    /// The backend's signing key; absent while it has none to sign with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<VerifyingKey>,
    /// SHA-256 of all the above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<StateHash>,
    /// The backend's signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// One account of the person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessEntry {
    /// The server.
    pub server: ServerName,
    /// Its id, as in receipts.
    pub id: ServerId,
    /// The login name there.
    pub login: Username,
    /// Whether its agent is connected.
    pub presence: Presence,
    /// When its agent was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<i64>,
    /// How it stands.
    pub status: AccessStatus,
    /// Why not better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// For access that has not ended for sure: when the server itself ends it at the latest. Absent: not before the
    /// server is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts_until: Option<i64>,
    /// The key that signs this server's receipts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt_key: Option<VerifyingKey>,
    /// What the server has signed last about this account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<Receipt>>,
    /// SHA-256 of all the above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<StateHash>,
}

/// How one account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessStatus {
    /// The server has signed that nobody gets in and nothing runs any more.
    Proven,
    /// The agent says so, and nothing proves it.
    Unproven,
    /// Not answered yet.
    Pending,
    /// The server has failed to do it.
    Failed,
    /// The account is there for others; this person's keys are not in it.
    Shared,
    /// The person may log in, as the model wants.
    Open,
}

/// What is wrong with a report.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReportFault {
    /// Not one.
    #[error("this is no access report: {0}")]
    NoReport(String),
    /// Blanks, the order of members, or anything that changes no value.
    #[error(
        "the report is not written as bastio writes it: something between its values was altered"
    )]
    Spelling,
    /// The person, the time, the state, or which accounts there are.
    #[error("the report's head, or the list of its accounts, was altered")]
    Head,
    /// One account's entry.
    #[error("{login} on {server}: the entry was altered")]
    Entry {
        /// The server.
        server: ServerName,
        /// The account.
        login: Username,
    },
    /// A receipt that is none.
    #[error("{login} on {server}: {why}")]
    Receipt {
        /// The server.
        server: ServerName,
        /// The account.
        login: Username,
        /// What is wrong.
        why: String,
    },
    /// The backend's signature.
    #[error("the signature is not that of the key {0} over this report")]
    Signature(String),
    /// Nobody's signature.
    #[error("nobody has signed the report; only its receipts can be believed")]
    Unsigned,
    /// Signed by somebody else.
    #[error("the report is signed by the key {found}, not by {expected}")]
    OtherKey {
        /// The key's fingerprint.
        found: String,
        /// The fingerprint asked for.
        expected: String,
    },
}

impl AccessStatus {
    /// The name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Unproven => "unproven",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Shared => "shared",
            Self::Open => "open",
        }
    }
}

impl AccessEntry {
    /// Whether the receipt proves, by the key beside it, that access ended there.
    ///
    /// # Errors
    /// Why it does not, in words.
    pub fn prove(&self) -> Result<(), String> {
        let receipt = self.receipt.as_deref().ok_or("there is no receipt")?;
        self.check_receipt(receipt)?;
        if receipt.ends_access(&self.login) {
            Ok(())
        } else {
            Err("the receipt does not say that access has ended".to_owned())
        }
    }

    fn check_receipt(&self, receipt: &Receipt) -> Result<(), String> {
        let key = self.receipt_key.as_ref().ok_or("there is no key to verify the receipt with")?;
        receipt.verify(key).map_err(|fault: ReceiptFault| fault.to_string())?;
        if *receipt.server() != self.id {
            return Err(format!("the receipt is of the server {}", receipt.server()));
        }
        Ok(())
    }

    fn hash(&self) -> StateHash {
        hash(&Self { digest: None, ..self.clone() })
    }

    fn faults(&self) -> Option<ReportFault> {
        let (server, login) = (self.server.clone(), self.login.clone());
        if self.digest != Some(self.hash()) {
            return Some(ReportFault::Entry { server, login });
        }
        let proven = match (self.status, &self.receipt) {
            (AccessStatus::Proven, _) => self.prove(),
            // One that was refused is shown as it came.
            _ => Ok(()),
        };
        proven.err().map(|why| ReportFault::Receipt { server, login, why })
    }
}

impl AccessReport {
    /// A report, closed by hashes and, when there is a key, signed.
    #[must_use]
    pub fn seal(
        user: Username,
        state: Option<UserState>,
        at: i64,
        mut accounts: Vec<AccessEntry>,
        key: Option<&SigningKey>,
    ) -> Self {
        for entry in &mut accounts {
            entry.digest = Some(entry.hash());
        }
        let signed_by = key.map(SigningKey::verifying_key);
        let (bastio_access_report, digest, signature) = (FORM, None, None);
        let mut report =
            Self { bastio_access_report, user, state, at, accounts, signed_by, digest, signature };
        let digest = report.hash();
        report.digest = Some(digest);
        report.signature = key.map(|key| key.sign(&signed_bytes(&digest)));
        report
    }

    /// The report as it stands in a file.
    #[must_use]
    pub fn to_file(&self) -> String {
        let text = serde_json::to_string_pretty(self);
        text.expect("texts, numbers and checked raw JSON always serialise") + "\n"
    }

    /// Reads a file and looks for everything that was altered in it. `key` is the fingerprint that the backend's
    /// signing key must have.
    ///
    /// # Errors
    /// Each [`ReportFault`] that was found.
    pub fn verify(file: &[u8], key: Option<&str>) -> Result<Self, Vec<ReportFault>> {
        let no_report = |why: String| vec![ReportFault::NoReport(why)];
        let report: Self =
            serde_json::from_slice(file).map_err(|error| no_report(error.to_string()))?;
        if report.bastio_access_report != FORM {
            return Err(no_report(format!("form {}", report.bastio_access_report)));
        }
        let mut faults: Vec<ReportFault> =
            report.accounts.iter().filter_map(AccessEntry::faults).collect();
        let digest = report.hash();
        let is_whole = report.digest == Some(digest);
        if !is_whole && faults.is_empty() {
            faults.push(ReportFault::Head);
        }
        faults.extend(report.signature_fault(&digest, key).filter(|_| is_whole));
        if faults.is_empty() && report.to_file().as_bytes() != file {
            faults.push(ReportFault::Spelling);
        }
        if faults.is_empty() { Ok(report) } else { Err(faults) }
    }

    fn signature_fault(&self, digest: &StateHash, expected: Option<&str>) -> Option<ReportFault> {
        let (Some(key), Some(signature)) = (&self.signed_by, &self.signature) else {
            return Some(ReportFault::Unsigned);
        };
        let found = key.fingerprint();
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Some(ReportFault::OtherKey { found, expected: expected.to_owned() });
        }
        let good = key.verifies(&signed_bytes(digest), signature);
        (!good).then_some(ReportFault::Signature(found))
    }

    fn hash(&self) -> StateHash {
        hash(&Self { digest: None, signature: None, ..self.clone() })
    }
}

fn hash(value: &impl Serialize) -> StateHash {
    let json = serde_json::to_vec(value);
    let json = json.expect("texts, numbers and checked raw JSON always serialise");
    StateHash::taken(digest(&SHA256, &json).as_ref())
}

fn signed_bytes(digest: &StateHash) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    push(&mut bytes, DOMAIN);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MessageId, Occasion, Standing, StateOfAccount, States, Status};

    fn key(seed: u8) -> SigningKey {
        let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        SigningKey::from_pkcs8(&[&head[..], &[seed; 32]].concat()).expect("a key")
    }

    fn entry(server: &str, number: i64, standing: Standing<'static>) -> AccessEntry {
        let login = Username::parse("ann").expect("a name");
        let mut states = States::default();
        states.add(&StateOfAccount::no_access(&login, standing));
        let occasion = Occasion {
            server: ServerId::from_number(number),
            sequence: 3,
            at: 1000,
            mid: MessageId::from_number(9),
            action: "end-sessions".to_owned(),
            status: Status::Done,
        };
        let signer = key(u8::try_from(number).expect("small"));
        AccessEntry {
            server: ServerName::parse(server).expect("a name"),
            id: ServerId::from_number(number),
            login,
            presence: Presence::Connected,
            last_seen: Some(990),
            status: AccessStatus::Proven,
            why: None,
            lasts_until: None,
            receipt_key: Some(signer.verifying_key()),
            receipt: Some(Box::new(Receipt::sign(&signer, occasion, states))),
            digest: None,
        }
    }

    fn report(signer: Option<&SigningKey>) -> AccessReport {
        let mut offline = entry("web-2", 8, Standing::Locked);
        offline.status = AccessStatus::Pending;
        offline.receipt = None;
        offline.presence = Presence::Offline;
        offline.lasts_until = Some(2000);
        let accounts = vec![entry("web-1", 7, Standing::Absent), offline];
        let user = Username::parse("ann").expect("a name");
        AccessReport::seal(user, Some(UserState::Disabled), 1010, accounts, signer)
    }

    #[test]
    fn a_report_is_verified_from_its_file_alone() {
        let signer = key(1);
        let sealed = report(Some(&signer));
        let file = sealed.to_file();
        let fingerprint = signer.verifying_key().fingerprint();
        for expected in [None, Some(fingerprint.as_str())] {
            assert_eq!(AccessReport::verify(file.as_bytes(), expected), Ok(sealed.clone()));
        }
        let other = AccessReport::verify(file.as_bytes(), Some("SHA256:x")).expect_err("another");
        assert!(matches!(other.as_slice(), [ReportFault::OtherKey { .. }]), "{other:?}");
        let unsigned = AccessReport::verify(report(None).to_file().as_bytes(), None);
        assert_eq!(unsigned, Err(vec![ReportFault::Unsigned]));
    }

    #[test]
    fn every_altered_byte_is_found() {
        let file = report(Some(&key(1))).to_file().into_bytes();
        for at in 0..file.len() {
            for flip in [1, 0x20] {
                let mut altered = file.clone();
                altered[at] ^= flip;
                let found = AccessReport::verify(&altered, None);
                assert!(found.is_err(), "byte {at}: {:?}", altered.get(at));
            }
        }
    }

    #[test]
    fn what_was_altered_is_named() {
        let file = report(Some(&key(1))).to_file();
        for (from, to, words) in [
            ("\"web-2\"", "\"web-3\"", "ann on web-3: the entry was altered"),
            ("\"lasts_until\": 2000", "\"lasts_until\": 1000", "ann on web-2: the entry was"),
            ("\"at\": 1010", "\"at\": 1011", "the report's head"),
            ("\"disabled\"", "\"active\"", "the report's head"),
            ("  \"user\"", " \"user\"", "between its values"),
        ] {
            assert!(file.contains(from), "{from}");
            let faults = AccessReport::verify(file.replacen(from, to, 1).as_bytes(), None);
            let faults = faults.expect_err(from);
            assert!(faults[0].to_string().contains(words), "{from}: {faults:?}");
        }
    }

    #[test]
    fn a_proof_that_is_none_is_named_also_where_the_backend_has_signed_it() {
        let wrong: [fn(&mut AccessEntry); 4] = [
            |entry| entry.id = ServerId::from_number(5),
            |entry| entry.receipt_key = Some(key(5).verifying_key()),
            |entry| entry.login = Username::parse("bob").expect("a name"),
            |entry| entry.receipt = None,
        ];
        for spoil in wrong {
            let mut spoilt = entry("web-1", 7, Standing::Absent);
            spoil(&mut spoilt);
            let user = Username::parse("ann").expect("a name");
            let sealed = AccessReport::seal(user, None, 1010, vec![spoilt], Some(&key(1)));
            let faults = AccessReport::verify(sealed.to_file().as_bytes(), None);
            let faults = faults.expect_err("no proof");
            assert!(matches!(faults.as_slice(), [ReportFault::Receipt { .. }]), "{faults:?}");
        }
    }
}
