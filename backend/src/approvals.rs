//! A second operator for what makes root: requests that wait, and who lets them be carried out.
//!
//! What makes root is found where an edit is made, and what waits is a whole request: nothing here
//! knows one kind of edit from another, nor HTTP.

mod error;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bastio_protocol::api::{Approve, NewOperatorKey, OperatorKey, Proposal, ProposalState};
use bastio_protocol::audit::hex;
use bastio_protocol::{ApprovalStatement, SignedApproval};
use ring::digest::{SHA256, digest};

use crate::access::Admin;
use crate::audit::{self, Actor, Event};
use crate::store::proposals::{self, NewProposal, ProposalRow};
use crate::store::{self, Connection, Store, StoreError};
pub use error::ApprovalError;

/// Most requests that wait at a time.
const MOST_OPEN: i64 = 100;
/// Proposals in one list, and the gains of each there; who looks at one sees all: they are signed.
const LISTED: i64 = 200;
const LISTED_GAINS: usize = 200;
/// Gains that stand in an error or in the audit log.
const TOLD_GAINS: usize = 5;
/// How far an approver's clock may be off, in seconds.
const CLOCKS: i64 = 600;

/// What an edit adds to what makes root: one text for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gains(pub BTreeSet<String>);

/// The proposals of a backend. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Approvals {
    store: Store,
    /// Seconds until a proposal expires; nothing needs approval when absent.
    valid_for: Option<i64>,
    /// Fingerprint of the backend's host key.
    backend: Arc<str>,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Its body.
    pub body: String,
    /// Whether it said that it is meant, however large.
    pub confirmed: bool,
}

/// A second operator's word, while the request is carried out for which it was given.
#[derive(Debug, Clone)]
pub struct Approval {
    id: i64,
    /// The API key that sent the request.
    pub proposer: String,
    /// The address it came from.
    pub from: Option<IpAddr>,
    /// Whether it said that it is meant.
    pub confirmed: bool,
    allowed: BTreeSet<String>,
    by: Actor,
    signed: SignedApproval,
}

impl fmt::Display for Gains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<&str> = self.0.iter().take(TOLD_GAINS).map(String::as_str).collect();
        f.write_str(&told.join("; "))?;
        match self.0.len().saturating_sub(told.len()) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Refuses what adds to what makes root, unless that needs nobody, or somebody has agreed to as much.
///
/// # Errors
/// All of what it adds.
pub fn check(
    needed: bool,
    approval: Option<&Approval>,
    gains: BTreeSet<String>,
) -> Result<(), Gains> {
    let agreed = approval.is_some_and(|approval| gains.is_subset(&approval.allowed));
    if !needed || agreed || gains.is_empty() { Ok(()) } else { Err(Gains(gains)) }
}

impl Approval {
    /// Ends the proposal within the transaction of what was proposed, and tells the audit log. False
    /// when it has ended before: then nothing may be done.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn carry_out(&self, db: &mut Connection, now: i64) -> Result<bool, StoreError> {
        let by = self.by.to_string();
        if !proposals::end(db, self.id, ProposalState::Approved, &by, now).await? {
            return Ok(false);
        }
        let detail = serde_json::to_string(&self.signed).expect("texts always serialise");
        let event = Event { action: "proposal.approve", detail: &detail, ..Event::default() };
        audit::append(db, now, &self.by, event).await?;
        Ok(true)
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }
}

impl Approvals {
    /// None of them is needed.
    #[must_use]
    pub fn new(store: Store, backend: &str) -> Self {
        Self { store, valid_for: None, backend: backend.into() }
    }

    /// What makes root waits for so many seconds; nothing waits without.
    #[must_use]
    pub fn with_validity(mut self, seconds: Option<i64>) -> Self {
        self.valid_for = seconds;
        self
    }

    /// Whether what makes root needs a second operator.
    #[must_use]
    pub fn are_needed(&self) -> bool {
        self.valid_for.is_some()
    }

    /// Keeps a request that was refused for what it adds; its number.
    ///
    /// # Errors
    /// [`ApprovalError::TooMany`], [`ApprovalError::Store`].
    pub async fn propose(
        &self,
        proof: &Admin,
        kept: &Kept,
        gains: &Gains,
    ) -> Result<i64, ApprovalError> {
        let (mut tx, now) = (self.store.write().await?, self.store.now());
        self.expire(&mut tx, now).await?;
        if proposals::open(&mut tx).await? >= MOST_OPEN {
            return Err(ApprovalError::TooMany);
        }
        let new = NewProposal {
            proposer: name(proof)?,
            origin: proof.actor().from().map(|from| from.to_string()),
            created: now,
            expires: now.saturating_add(self.valid_for.unwrap_or_default()),
            revision: store::revisions::current(&mut tx).await?,
            reason: reason(&kept.body),
            method: kept.method.clone(),
            path: kept.path.clone(),
            body: kept.body.clone(),
            confirmed: kept.confirmed,
            gains: gains.0.clone(),
        };
        let id = proposals::insert(&mut tx, &new).await?;
        let Kept { method, path, .. } = kept;
        let detail = format!("{id}: {method} {path}, sha256 {}: {gains}", request_hash(&new));
        self.tell(&mut tx, proof, "proposal.add", &detail, &new.reason).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(id)
    }

    /// The last proposals, the newest first.
    ///
    /// # Errors
    /// [`ApprovalError::Store`].
    pub async fn list(&self, _proof: &Admin) -> Result<Vec<Proposal>, ApprovalError> {
        self.expire_now().await?;
        let rows = proposals::list(&mut *self.store.read().await?, LISTED).await?;
        Ok(rows.into_iter().map(|row| self.view(row, LISTED_GAINS)).collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// [`ApprovalError::NoSuch`], [`ApprovalError::Store`].
    pub async fn show(&self, _proof: &Admin, id: i64) -> Result<Proposal, ApprovalError> {
        self.expire_now().await?;
        let row = proposals::find(&mut *self.store.read().await?, id).await?;
        Ok(self.view(row.ok_or(ApprovalError::NoSuch(id))?, usize::MAX))
    }

    /// Takes another operator's word for a proposal: what is to be carried out now. Refusals are told
    /// the audit log.
    ///
    /// # Errors
    /// [`ApprovalError`].
    pub async fn approve(
        &self,
        proof: &Admin,
        id: i64,
        word: &Approve,
    ) -> Result<(Kept, Approval), ApprovalError> {
        let (mut tx, now) = (self.store.write().await?, self.store.now());
        self.expire(&mut tx, now).await?;
        let judged = self.judge(&mut tx, proof, id, word, now).await;
        if let Err(why) = &judged
            && !matches!(why, ApprovalError::Store(_))
        {
            self.tell(&mut tx, proof, "proposal.refuse", &format!("{id}: {why}"), "").await?;
        }
        tx.commit().await.map_err(StoreError::from)?;
        judged
    }

    async fn judge(
        &self,
        db: &mut Connection,
        proof: &Admin,
        id: i64,
        word: &Approve,
        now: i64,
    ) -> Result<(Kept, Approval), ApprovalError> {
        proof.must_be_meant()?;
        let row = proposals::find(db, id).await?.ok_or(ApprovalError::NoSuch(id))?;
        if row.state != ProposalState::Open {
            return Err(ApprovalError::Ended(id, row.state));
        }
        let approver = name(proof)?;
        if approver == row.what.proposer {
            return Err(ApprovalError::Own);
        }
        let keys = proposals::operator_keys(db).await?;
        let key = keys.iter().find(|key| key.api_key == approver);
        let key = key.ok_or_else(|| ApprovalError::NoKey(approver.clone()))?.public_key;
        let Approve { statement, signature } = word.clone();
        let signed = SignedApproval { statement, key, signature };
        if !signed.is_genuine() {
            return Err(ApprovalError::BadSignature);
        }
        let at = signed.statement.at;
        if signed.statement != (ApprovalStatement { approver, at, ..self.statement(&row) }) {
            return Err(ApprovalError::OtherStatement);
        }
        if now.abs_diff(at) > CLOCKS.unsigned_abs() {
            return Err(ApprovalError::Clock);
        }
        let NewProposal { proposer, origin, method, path, body, confirmed, gains, .. } = row.what;
        let from = origin.and_then(|origin| origin.parse().ok());
        let by = proof.actor().clone();
        let kept = Kept { method, path, body, confirmed };
        Ok((kept, Approval { id, proposer, from, confirmed, allowed: gains, by, signed }))
    }

    /// Ends a proposal whose request was carried out and changed nothing.
    ///
    /// # Errors
    /// [`ApprovalError::Store`].
    pub async fn finish(&self, approval: &Approval) -> Result<(), ApprovalError> {
        let (mut tx, now) = (self.store.write().await?, self.store.now());
        approval.carry_out(&mut tx, now).await?;
        Ok(tx.commit().await.map_err(StoreError::from)?)
    }

    /// A proposal gives more by now than was approved: it waits on, with that.
    ///
    /// # Errors
    /// [`ApprovalError::Store`].
    pub async fn grown(&self, proof: &Admin, id: i64, gains: &Gains) -> Result<(), ApprovalError> {
        let mut tx = self.store.write().await?;
        proposals::set_gains(&mut tx, id, &gains.0).await?;
        let detail = format!("{id}: it gives more by now: {gains}");
        self.tell(&mut tx, proof, "proposal.refuse", &detail, "").await?;
        Ok(tx.commit().await.map_err(StoreError::from)?)
    }

    /// Ends a proposal for good; also the proposer may.
    ///
    /// # Errors
    /// [`ApprovalError`].
    pub async fn reject(
        &self,
        proof: &Admin,
        id: i64,
        reason: &str,
    ) -> Result<Proposal, ApprovalError> {
        proof.must_be_meant()?;
        if reason.len() > 1000 || reason.contains(char::is_control) {
            return Err(ApprovalError::BadReason);
        }
        let (mut tx, now) = (self.store.write().await?, self.store.now());
        self.expire(&mut tx, now).await?;
        let row = proposals::find(&mut tx, id).await?.ok_or(ApprovalError::NoSuch(id))?;
        let by = proof.actor().to_string();
        if !proposals::end(&mut tx, id, ProposalState::Rejected, &by, now).await? {
            return Err(ApprovalError::Ended(id, row.state));
        }
        self.tell(&mut tx, proof, "proposal.reject", &id.to_string(), reason).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.show(proof, id).await
    }

    /// The registered keys of operators.
    ///
    /// # Errors
    /// [`ApprovalError::Store`].
    pub async fn operator_keys(&self, _proof: &Admin) -> Result<Vec<OperatorKey>, ApprovalError> {
        Ok(proposals::operator_keys(&mut *self.store.read().await?).await?)
    }

    /// Registers an operator's key for the API key that asks. Another in its place needs another
    /// operator, where root does.
    ///
    /// # Errors
    /// [`ApprovalError`].
    pub async fn register(
        &self,
        proof: &Admin,
        new: &NewOperatorKey,
    ) -> Result<OperatorKey, ApprovalError> {
        proof.must_be_meant()?;
        let (mut tx, now) = (self.store.write().await?, self.store.now());
        let api_key = name(proof)?;
        let known = proposals::operator_keys(&mut tx).await?;
        if let Some(same) = known.iter().find(|key| key.public_key == new.public_key) {
            let own = same.api_key == api_key;
            return if own { Ok(same.clone()) } else { Err(ApprovalError::KeyOfAnother) };
        }
        let replaces = known.iter().any(|key| key.api_key == api_key);
        let fingerprint = new.public_key.fingerprint();
        if replaces {
            let gain = format!("the operator key of {api_key} becomes {fingerprint}");
            check(self.are_needed(), proof.approval().map(AsRef::as_ref), BTreeSet::from([gain]))
                .map_err(ApprovalError::Needed)?;
        }
        let key = OperatorKey { api_key, public_key: new.public_key, since: now };
        proposals::set_operator_key(&mut tx, &key).await?;
        let detail = format!("{} {}", key.api_key, key.public_key);
        let action = if replaces { "operator-key.replace" } else { "operator-key.add" };
        self.tell(&mut tx, proof, action, &detail, "").await?;
        if let Some(approval) = proof.approval()
            && !approval.carry_out(&mut tx, now).await?
        {
            return Err(ApprovalError::Ended(approval.id, ProposalState::Approved));
        }
        tx.commit().await.map_err(StoreError::from)?;
        Ok(key)
    }

    async fn expire_now(&self) -> Result<(), StoreError> {
        let now = self.store.now();
        let any_over = proposals::any_over(&mut *self.store.read().await?, now).await?;
        if any_over {
            let mut tx = self.store.write().await?;
            self.expire(&mut tx, now).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    async fn expire(&self, db: &mut Connection, now: i64) -> Result<(), StoreError> {
        for id in proposals::expire(db, now).await? {
            let detail = id.to_string();
            let event = Event { action: "proposal.expire", detail: &detail, ..Event::default() };
            audit::append(db, now, &Actor::backend(), event).await?;
        }
        Ok(())
    }

    async fn tell(
        &self,
        db: &mut Connection,
        proof: &Admin,
        action: &str,
        detail: &str,
        reason: &str,
    ) -> Result<(), StoreError> {
        let event = Event { action, detail, reason, ..Event::default() };
        audit::append(db, self.store.now(), proof.actor(), event).await
    }

    /// What an approver signs; who that is, and when, is for them to say.
    fn statement(&self, row: &ProposalRow) -> ApprovalStatement {
        let gains = serde_json::to_string(&row.what.gains).expect("texts always serialise");
        ApprovalStatement {
            backend: self.backend.to_string(),
            proposal: row.id,
            request: request_hash(&row.what),
            gains: sha256(gains.as_bytes()),
            proposer: row.what.proposer.clone(),
            approver: String::new(),
            at: 0,
        }
    }

    fn view(&self, row: ProposalRow, most_gains: usize) -> Proposal {
        let statement = self.statement(&row);
        let ProposalRow { id, state, what, ended } = row;
        Proposal {
            id,
            state,
            proposer: what.proposer,
            from: what.origin,
            created: what.created,
            expires: what.expires,
            revision: what.revision,
            reason: what.reason,
            request: format!("{} {}", what.method, what.path),
            body: what.body,
            confirmed: what.confirmed,
            gained: u32::try_from(what.gains.len()).unwrap_or(u32::MAX),
            gains: what.gains.into_iter().take(most_gains).collect(),
            statement,
            ended: ended.as_ref().map(|(at, _)| *at),
            ended_by: ended.map(|(_, by)| by),
        }
    }
}

/// The API key of whoever asks.
fn name(proof: &Admin) -> Result<String, ApprovalError> {
    proof.actor().api_key_name().map(str::to_owned).ok_or(ApprovalError::NoApiKey)
}

/// The reason that a request gives, if it does.
fn reason(body: &str) -> String {
    let body: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let reason = body.as_ref().and_then(|body| body.get("reason")?.as_str());
    reason.unwrap_or_default().chars().filter(|c| !c.is_control()).take(1000).collect()
}

/// The hash of the exact request.
fn request_hash(new: &NewProposal) -> String {
    let NewProposal { method, path, confirmed, body, .. } = new;
    sha256(format!("{method} {path}\nconfirmed: {confirmed}\n{body}").as_bytes())
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}
