//! Who may ask the backend for what: API keys, and the proofs that only checking one can make.
//!
//! A secret has 256 random bits and is stored as its SHA-256 alone; it is looked up by that hash,
//! so that no comparison tells by its duration how close a guess was. This room must not know
//! HTTP, servers or grants.

mod secret;
mod watch;

use std::iter;
use std::net::IpAddr;
use std::sync::Arc;

use bastio_protocol::api::{ApiKey, NewApiKey, Role};
use thiserror::Error;

use crate::approvals::{self, Approval, Gains};
use crate::audit::{self, Actor, Event};
use crate::store::{self, Connection, Store, StoreError};
pub use secret::Secret;
pub use watch::Watcher;
use watch::Watchers;

/// Name of the API key that the first start makes.
const FIRST_ADMIN: &str = "admin";
/// How exact `last_used` is, in seconds.
const USE_NOTED_EVERY: i64 = 60;
/// Longest name of an API key, in bytes.
const MAX_NAME: usize = 64;

/// The API keys.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    store: Store,
    watchers: Watchers,
    /// Whether another API key of role admin needs a second operator.
    needs_approval: bool,
}

/// Proof that a request may do everything. Only [`ApiKeys::admin`] makes it.
#[derive(Debug, Clone)]
pub struct Admin {
    actor: Actor,
    intent: Intent,
    /// A second operator's word for this very request.
    approval: Option<Arc<Approval>>,
}

/// How serious a request is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Intent {
    /// Only to see what would happen.
    pub dry_run: bool,
    /// Whoever sends it knows that it concerns much of the fleet, or locks somebody out.
    pub confirmed: bool,
    /// Only if the model is at that revision still.
    pub if_revision: Option<i64>,
}

/// Proof that a request may enrol servers. Only [`ApiKeys::enroller`] makes it.
#[derive(Debug, Clone)]
pub struct Enroller {
    actor: Actor,
    role: Role,
}

/// Why an API key does not open the door, or was not changed.
#[derive(Debug, Error)]
pub enum AccessError {
    /// No such API key.
    #[error("unknown API key")]
    Unknown,
    /// The API key may only enrol servers.
    #[error("this API key may only enrol servers")]
    EnrolsOnly,
    /// The API key may only read metrics.
    #[error("this API key may only read metrics")]
    WatchesOnly,
    /// A name that cannot be used.
    #[error("the name of an API key has 1 to {MAX_NAME} letters, digits, '-', '.' or '_'")]
    BadName,
    /// The name is taken.
    #[error("there is an API key named {0}")]
    NameTaken(String),
    /// No API key of that name.
    #[error("there is no API key named {0}")]
    NoSuchKey(String),
    /// A request that was only to be tried, and does not know how.
    #[error("this cannot be tried without being done")]
    NotTriable,
    /// An API key of role admin that a second operator must approve, so that its secret would be shown
    /// to the wrong person.
    #[error("the secret of an API key of role admin is made by whoever is to have it")]
    HashWanted,
    /// No SHA-256.
    #[error("secret_sha256 is 64 hexadecimal digits, in small letters")]
    BadHash,
    /// It needs another operator's approval.
    #[error("this needs another operator's approval: {0}")]
    NeedsApproval(Gains),
    /// What was approved was carried out, or refused, meanwhile.
    #[error("proposal {0} does not wait any more")]
    Ended(i64),
    /// The last key that may do everything.
    #[error("{0} is the last API key of role admin")]
    LastAdmin(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Admin {
    /// Who this is, for the audit log.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The same proof for a request that is as serious as this.
    #[must_use]
    pub fn with_intent(self, intent: Intent) -> Self {
        Self { intent, ..self }
    }

    /// A second operator's word for it, if it is carried out for that.
    #[must_use]
    pub fn approval(&self) -> Option<&Arc<Approval>> {
        self.approval.as_ref()
    }

    /// How serious the request is.
    #[must_use]
    pub fn intent(&self) -> Intent {
        self.intent
    }

    /// Refuses what cannot be tried without being done.
    ///
    /// # Errors
    /// [`AccessError::NotTriable`].
    pub(crate) fn must_be_meant(&self) -> Result<(), AccessError> {
        if self.intent.dry_run { Err(AccessError::NotTriable) } else { Ok(()) }
    }
}

impl Enroller {
    /// Who this is, for the audit log.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Whether the API key opens everything else, too.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }
}

impl ApiKeys {
    /// The API keys of a store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, watchers: Watchers::default(), needs_approval: false }
    }

    /// Whether another API key of role admin needs a second operator.
    #[must_use]
    pub fn with_approvals(mut self, needed: bool) -> Self {
        self.needs_approval = needed;
        self
    }

    /// The proof of whoever sent the request that was approved, as long as that API key is there.
    ///
    /// # Errors
    /// [`AccessError::NoSuchKey`], [`AccessError::Store`].
    pub async fn approved(&self, approval: Arc<Approval>) -> Result<Admin, AccessError> {
        let keys = store::api_keys::list(&mut *self.store.read().await?).await?;
        let is_there = |key: &ApiKey| key.name == approval.proposer && key.role == Role::Admin;
        if !keys.iter().any(is_there) {
            return Err(AccessError::NoSuchKey(approval.proposer.clone()));
        }
        let actor = Actor::api_key(&approval.proposer, approval.from);
        let intent = Intent { confirmed: approval.confirmed, ..Intent::default() };
        Ok(Admin { actor, intent, approval: Some(approval) })
    }

    /// Checks a secret for everything.
    ///
    /// # Errors
    /// [`AccessError::Unknown`], [`AccessError::EnrolsOnly`], [`AccessError::WatchesOnly`],
    /// [`AccessError::Store`].
    pub async fn admin(&self, secret: &str, from: Option<IpAddr>) -> Result<Admin, AccessError> {
        let key = self.verify(secret).await?;
        match key.role {
            Role::Admin => {
                let actor = Actor::api_key(&key.name, from);
                Ok(Admin { actor, intent: Intent::default(), approval: None })
            }
            Role::Enroll => Err(AccessError::EnrolsOnly),
            Role::Metrics => Err(AccessError::WatchesOnly),
        }
    }

    /// Checks a secret for enrolling servers.
    ///
    /// # Errors
    /// [`AccessError::Unknown`], [`AccessError::WatchesOnly`], [`AccessError::Store`].
    pub async fn enroller(
        &self,
        secret: &str,
        from: Option<IpAddr>,
    ) -> Result<Enroller, AccessError> {
        let key = self.verify(secret).await?;
        match key.role {
            role @ (Role::Admin | Role::Enroll) => {
                Ok(Enroller { actor: Actor::api_key(&key.name, from), role })
            }
            Role::Metrics => Err(AccessError::WatchesOnly),
        }
    }

    /// All API keys, by name.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn list(&self, _proof: &Admin) -> Result<Vec<ApiKey>, AccessError> {
        let mut db = self.store.read().await?;
        Ok(store::api_keys::list(&mut db).await?)
    }

    /// Makes an API key; its secret is known here and now only.
    ///
    /// # Errors
    /// [`AccessError::BadName`], [`AccessError::NameTaken`], [`AccessError::NotTriable`],
    /// [`AccessError::Store`].
    pub async fn create(
        &self,
        proof: &Admin,
        new: &NewApiKey,
    ) -> Result<(ApiKey, Secret), AccessError> {
        proof.must_be_meant()?;
        let (mut tx, now) = (self.store.write().await?, self.store.now());
        let made = insert(&mut tx, proof.actor(), new, now).await?;
        if self.needs_approval && new.role == Role::Admin {
            let Some(hash) = &new.secret_sha256 else { return Err(AccessError::HashWanted) };
            let gain = format!("the API key {} of role admin, secret sha256 {hash}", new.name);
            approvals::check(true, proof.approval().map(AsRef::as_ref), [gain].into())
                .map_err(AccessError::NeedsApproval)?;
        }
        if let Some(approval) = proof.approval()
            && !approval.carry_out(&mut tx, now).await?
        {
            return Err(AccessError::Ended(approval.id()));
        }
        tx.commit().await.map_err(StoreError::from)?;
        Ok(made)
    }

    /// Revokes an API key: from now on it opens nothing. The last one of role admin stays.
    ///
    /// # Errors
    /// [`AccessError::NoSuchKey`], [`AccessError::LastAdmin`], [`AccessError::NotTriable`],
    /// [`AccessError::Store`].
    pub async fn revoke(&self, proof: &Admin, name: &str) -> Result<ApiKey, AccessError> {
        proof.must_be_meant()?;
        let mut tx = self.store.write().await?;
        let keys = store::api_keys::list(&mut tx).await?;
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            return Err(AccessError::NoSuchKey(shorten(name)));
        };
        let admins = keys.iter().filter(|key| key.role == Role::Admin).count();
        if key.role == Role::Admin && admins == 1 {
            return Err(AccessError::LastAdmin(key.name.clone()));
        }
        store::api_keys::remove(&mut tx, name).await?;
        let event = Event { action: "api-key.remove", detail: name, ..Event::default() };
        audit::append(&mut tx, self.store.now(), proof.actor(), event).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(key.clone())
    }

    async fn verify(&self, secret: &str) -> Result<ApiKey, AccessError> {
        let hash = secret::hash(secret);
        let mut db = self.store.read().await?;
        let key = store::api_keys::find_by_hash(&mut db, &hash).await?;
        drop(db);
        let key = key.ok_or(AccessError::Unknown)?;
        if let Err(error) = self.note_use(&key).await {
            // A full disk must not keep anybody from looking.
            tracing::warn!(%error, key = key.name, "the use of an API key was not noted");
        }
        Ok(key)
    }

    async fn note_use(&self, key: &ApiKey) -> Result<(), StoreError> {
        let now = self.store.now();
        if key.last_used.is_none_or(|last| now - last >= USE_NOTED_EVERY) {
            let mut tx = self.store.write().await?;
            store::api_keys::used(&mut tx, &key.name, now).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

/// At the first start, when there is no API key yet: makes one that may do everything. It is
/// shown once and never again.
///
/// # Errors
/// [`AccessError::Store`].
pub async fn first_admin_token(store: &Store) -> Result<Option<Secret>, AccessError> {
    let mut tx = store.write().await?;
    if !store::api_keys::list(&mut tx).await?.is_empty() {
        return Ok(None);
    }
    let new = NewApiKey { name: FIRST_ADMIN.to_owned(), role: Role::Admin, secret_sha256: None };
    let (_, secret) = insert(&mut tx, &Actor::backend(), &new, store.now()).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(Some(secret))
}

/// For whoever lost every token: makes one more API key of role admin, under the first free name.
/// The others stay as they are.
///
/// # Errors
/// [`AccessError::Store`].
pub async fn another_admin_token(store: &Store) -> Result<(ApiKey, Secret), AccessError> {
    let mut tx = store.write().await?;
    let taken = store::api_keys::list(&mut tx).await?;
    let name = iter::once(FIRST_ADMIN.to_owned())
        .chain((2_u64..).map(|number| format!("{FIRST_ADMIN}-{number}")))
        .find(|name| taken.iter().all(|key| key.name != *name))
        .expect("there are more numbers than API keys");
    let new = NewApiKey { name, role: Role::Admin, secret_sha256: None };
    let made = insert(&mut tx, &Actor::state_owner(), &new, store.now()).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(made)
}

async fn insert(
    db: &mut Connection,
    actor: &Actor,
    new: &NewApiKey,
    now: i64,
) -> Result<(ApiKey, Secret), AccessError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if new.name.is_empty() || new.name.len() > MAX_NAME || !new.name.chars().all(fits) {
        return Err(AccessError::BadName);
    }
    let is_hash = |hash: &&String| {
        hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let (secret, hash) = match &new.secret_sha256 {
        Some(hash) if !is_hash(&hash) => return Err(AccessError::BadHash),
        Some(hash) => (Secret::none(), hash.clone()),
        None => {
            let secret = Secret::random();
            let hash = secret::hash(secret.expose());
            (secret, hash)
        }
    };
    if !store::api_keys::insert(db, &new.name, new.role, &hash, now).await? {
        return Err(AccessError::NameTaken(new.name.clone()));
    }
    let detail = match new.role {
        Role::Admin => format!("{}, role admin", new.name),
        Role::Enroll => format!("{}, role enroll", new.name),
        Role::Metrics => format!("{}, role metrics", new.name),
    };
    let event = Event { action: "api-key.add", detail: &detail, ..Event::default() };
    audit::append(db, now, actor, event).await?;
    Ok((ApiKey { name: new.name.clone(), role: new.role, created: now, last_used: None }, secret))
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests;
