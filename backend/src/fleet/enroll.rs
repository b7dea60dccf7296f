//! Enrolling servers: a new agent key makes a server, a known one finds it, and a new key beside
//! a known old one takes its place.
//!
//! A public key is no secret, so naming the old one is not enough to replace it: the old key must
//! have signed for the new one. Two may do without: an API key of role admin, which could remove
//! the server as well, and an original agent where there is a port for those, which cannot sign.

use bastio_protocol::api::{Question, QuestionKind};
use bastio_protocol::{
    Algorithm, PublicKey, RECEIPT_NAMESPACE, REPLACE_NAMESPACE, ServerName, VerifyingKey,
    receipt_key_text, replacement_text,
};
use bastio_transport::PublicKeyBlob;
use thiserror::Error;

use super::Fleet;
use super::edit::Edit;
use crate::access::Enroller;
use crate::dispatch::EndReason;
use crate::dispatch::queue::Scope;
use crate::store::questions::{self, Open};
use crate::store::{self, Connection, ServerId, StoreError};

/// Names tried with a number behind before a part of the key's fingerprint is taken.
const NUMBERED: u32 = 99;
/// How the original agent identifies itself over SSH; ours is `SSH-2.0-bastio-agent_VERSION`.
const ORIGINAL_IDENT: &str = "SSH-2.0-bastio-0.1";
/// Longest name asked for, so that a number fits behind it; in bytes.
const MAX_NAME: usize = 240;

/// What an agent asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// The key it will log in with.
    pub public_key: PublicKey,
    /// The key it has logged in with so far.
    pub old_public_key: Option<PublicKey>,
    /// What the server would like to be called.
    pub name: Option<ServerName>,
    /// Signature by the old key over [`replacement_text`] (PROTOCOL.sshsig), as PEM text.
    pub proof: Option<String>,
    /// The key that signs the server's receipts.
    pub receipt_key: Option<VerifyingKey>,
    /// Signature by `public_key` over [`receipt_key_text`], as PEM text.
    pub receipt_proof: Option<String>,
}

impl Enrolment {
    /// With that key, and nothing else said.
    #[cfg(test)]
    pub(crate) fn of(public_key: PublicKey) -> Self {
        let (old_public_key, name, proof) = (None, None, None);
        let (receipt_key, receipt_proof) = (None, None);
        Self { public_key, old_public_key, name, proof, receipt_key, receipt_proof }
    }
}

/// The server that a key now belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// Its number.
    pub id: ServerId,
    /// Its name.
    pub name: ServerName,
}

/// Why a key was not taken.
#[derive(Debug, Error)]
pub enum EnrollError {
    /// A key that no agent can log in with.
    #[error("{0} is no key type for an agent; use ssh-ed25519, ecdsa or ssh-rsa")]
    UnfitKey(&'static str),
    /// The old key is on no server's record, and the new one neither.
    #[error("the old key belongs to no server; enrol without it")]
    OldKeyUnknown,
    /// The new key is another server's.
    #[error("the new key belongs to another server; make a fresh one")]
    KeyOfAnother,
    /// Nobody showed that the old key's holder wants the new one.
    #[error("this API key may not replace a server's key that has not signed for the new one")]
    NoProof,
    /// The agent's key has not signed for the receipt key.
    #[error("the agent's key has not signed for the receipt key")]
    NoReceiptProof,
    /// The model could not be edited.
    #[error(transparent)]
    Fleet(#[from] super::FleetError),
}

impl From<StoreError> for EnrollError {
    fn from(error: StoreError) -> Self {
        Self::Fleet(error.into())
    }
}

impl Fleet {
    /// Enrols a server or replaces its key. Doing it twice ends the same.
    ///
    /// # Errors
    /// [`EnrollError`].
    pub async fn enroll(
        &self,
        proof: &Enroller,
        request: &Enrolment,
    ) -> Result<Enrolled, EnrollError> {
        check_type(&request.public_key)?;
        let mut edit = Edit::begin_as(self, proof.actor()).await?;
        let holder = holder(edit.db(), Some(&request.public_key)).await?;
        let old_holder = holder_of_old(edit.db(), request).await?;
        match (holder, old_holder) {
            (Some(known), None) => Ok(known),
            (Some(known), Some(old)) if known == old => Ok(known),
            (Some(_), Some(_)) => Err(EnrollError::KeyOfAnother),
            (None, Some(server)) => {
                let right = self.right_to_replace(edit.db(), proof, server.id, request).await?;
                replace(edit, server, &request.public_key, right).await
            }
            (None, None) if request.old_public_key.is_some() => Err(EnrollError::OldKeyUnknown),
            (None, None) => insert(edit, request).await,
        }
    }

    /// Why a server's key may be replaced, for the audit log.
    async fn right_to_replace(
        &self,
        db: &mut Connection,
        proof: &Enroller,
        server: ServerId,
        request: &Enrolment,
    ) -> Result<&'static str, EnrollError> {
        if is_signed(request) {
            return Ok("signed by the old key");
        }
        if proof.is_admin() {
            return Ok("not signed, by an API key of role admin");
        }
        let agent = store::servers::agent(db, server).await?.unwrap_or_default();
        if self.original_agents && agent.starts_with(ORIGINAL_IDENT) {
            return Ok("not signed, of an original agent");
        }
        Err(EnrollError::NoProof)
    }

    /// Notes which signing key the agent of a server is given, so that it is kept as long as that
    /// agent may obey no other.
    ///
    /// # Errors
    /// [`EnrollError::Fleet`].
    pub async fn hand_signing_key(
        &self,
        _proof: &Enroller,
        server: ServerId,
        fingerprint: &str,
    ) -> Result<(), EnrollError> {
        let mut tx = self.store.write().await?;
        store::servers::handed_key(&mut tx, server, fingerprint).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }
}

impl Fleet {
    /// Takes note of the key that signs a server's receipts, on the word of its agent's key.
    ///
    /// # Errors
    /// [`EnrollError::NoReceiptProof`], [`EnrollError::Fleet`].
    pub async fn take_receipt_key(
        &self,
        proof: &Enroller,
        server: &Enrolled,
        request: &Enrolment,
    ) -> Result<(), EnrollError> {
        let Some(key) = &request.receipt_key else { return Ok(()) };
        if !is_vouched_for(request, key) {
            return Err(EnrollError::NoReceiptProof);
        }
        let mut edit = Edit::begin_as(self, proof.actor()).await?;
        if store::receipts::key(edit.db(), server.id).await?.as_ref() == Some(key) {
            return Ok(());
        }
        store::receipts::pin(edit.db(), server.id, key).await?;
        let detail = format!("{}, signed by its agent's key", key.fingerprint());
        edit.note("server.receipt-key", None, Some(&server.name), &detail).await?;
        Ok(edit.keep().await?)
    }
}

fn is_vouched_for(request: &Enrolment, key: &VerifyingKey) -> bool {
    let Some(proof) = &request.receipt_proof else { return false };
    let agent = request.public_key.without_comment();
    let text = receipt_key_text(&agent, key);
    let checked = agent
        .parse::<PublicKeyBlob>()
        .and_then(|agent| agent.verify(RECEIPT_NAMESPACE, text.as_bytes(), proof));
    checked.is_ok()
}

fn check_type(key: &PublicKey) -> Result<(), EnrollError> {
    match key.algorithm() {
        Algorithm::Ed25519
        | Algorithm::Rsa
        | Algorithm::EcdsaP256
        | Algorithm::EcdsaP384
        | Algorithm::EcdsaP521 => Ok(()),
        held @ (Algorithm::SkEd25519 | Algorithm::SkEcdsaP256) => {
            Err(EnrollError::UnfitKey(held.name()))
        }
    }
}

/// Whether the old key has signed for the new one. Keys that no agent of ours has cannot.
fn is_signed(request: &Enrolment) -> bool {
    let (Some(old), Some(proof)) = (&request.old_public_key, &request.proof) else { return false };
    let old = old.without_comment();
    let text = replacement_text(&old, &request.public_key.without_comment());
    let checked = old
        .parse::<PublicKeyBlob>()
        .and_then(|key| key.verify(REPLACE_NAMESPACE, text.as_bytes(), proof));
    checked.is_ok()
}

async fn holder_of_old(
    db: &mut Connection,
    request: &Enrolment,
) -> Result<Option<Enrolled>, StoreError> {
    holder(db, request.old_public_key.as_ref()).await
}

async fn holder(
    db: &mut Connection,
    key: Option<&PublicKey>,
) -> Result<Option<Enrolled>, StoreError> {
    let Some(key) = key else { return Ok(None) };
    let found = store::servers::find_by_key(db, &key.fingerprint()).await?;
    Ok(found.map(|(id, name)| Enrolled { id, name }))
}

async fn replace(
    mut edit: Edit<'_>,
    server: Enrolled,
    key: &PublicKey,
    right: &str,
) -> Result<Enrolled, EnrollError> {
    let now = edit.now();
    store::servers::replace_key(edit.db(), server.id, key, now).await?;
    let detail = format!("new key {}, {right}", key.fingerprint());
    edit.note("server.replace-key", None, Some(&server.name), &detail).await?;
    edit.end_session(server.id, EndReason::KeyReplaced);
    let summary = format!("server {}: key replaced", server.name);
    edit.commit(&summary, &Scope::Server(server.id, Some(Default::default()))).await?;
    Ok(server)
}

async fn insert(mut edit: Edit<'_>, request: &Enrolment) -> Result<Enrolled, EnrollError> {
    let now = edit.now();
    let name = free_name(edit.db(), request).await?;
    let id = store::servers::insert(edit.db(), &name, &request.public_key, now).await?;
    let detail = format!("key {}", request.public_key.fingerprint());
    edit.note("server.add", None, Some(&name), &detail).await?;
    let other =
        |asked: &&ServerName| !asked.as_str().chars().take(MAX_NAME).eq(name.as_str().chars());
    if let Some(asked) = request.name.as_ref().filter(other) {
        ask(&mut edit, id, &name, asked).await?;
    }
    edit.commit(&format!("server {name}: enrolled"), &Scope::Server(id, None)).await?;
    Ok(Enrolled { id, name })
}

/// A machine that calls itself as another server does may be that one, set up anew, another one, or
/// somebody who would like to be taken for it: an operator decides, and it gets nothing before.
async fn ask(
    edit: &mut Edit<'_>,
    server: ServerId,
    name: &ServerName,
    asked: &ServerName,
) -> Result<(), EnrollError> {
    let text = format!(
        "it calls itself {asked}, and there is a server of that name: the same one, set up anew \
         (bastio server replace {asked} --with {name}), or another (bastio server accept {name})?"
    );
    let (kind, since) = (QuestionKind::SameName, edit.now());
    let question = Question { kind, holds: true, text, since };
    let open = Open { question, subject: asked.to_string() };
    questions::ask(edit.db(), server, &open).await?;
    Ok(edit.note("server.question", None, Some(name), &open.question.text).await?)
}

/// The name asked for, or one made from the key, with something behind it when it is taken.
async fn free_name(db: &mut Connection, request: &Enrolment) -> Result<ServerName, StoreError> {
    let id = short_id(&request.public_key);
    let base = match &request.name {
        Some(name) => name.as_str().chars().take(MAX_NAME).collect(),
        None => format!("server-{id}"),
    };
    let numbered = (2..=NUMBERED).map(|number| format!("{base}-{number}"));
    let candidates = std::iter::once(base.clone()).chain(numbered);
    for candidate in candidates.chain([format!("{base}-{id}")]) {
        let name = parse(&candidate)?;
        if !store::servers::name_is_taken(db, &name).await? {
            return Ok(name);
        }
    }
    parse(&format!("server-{:016x}", rand::random::<u64>()))
}

fn parse(text: &str) -> Result<ServerName, StoreError> {
    ServerName::parse(text).map_err(|_| StoreError::Corrupt { what: "a server name made here" })
}

/// Eight hexadecimal digits that tell keys apart.
fn short_id(key: &PublicKey) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, key.blob());
    bastio_protocol::audit::hex(hash.as_ref()).chars().take(8).collect()
}
