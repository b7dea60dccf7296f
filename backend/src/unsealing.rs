//! Lets an operator open the sealed signing key while the backend runs: what was waiting is sent at
//! once.
//!
//! Successes and failures are in the audit log, passphrases nowhere. This file must not know HTTP, nor
//! how a key is sealed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bastio_protocol::VerifyingKey;
use bastio_protocol::api::Unsealed;
use thiserror::Error;

use crate::access::{AccessError, Admin};
use crate::audit::{self, Actor, Event};
use crate::dispatch::Dispatch;
use crate::sealed::{Passphrase, PassphraseError, SealError};
use crate::signing::{Attempt, NotNow, Signing, SigningKeyError, SigningKeys};
use crate::store::{self, Store, StoreError};

/// What everybody is told as long as nothing is signed.
pub const SEALED: &str = "the signing key is sealed; nothing is sent to agents that obey signed \
                          actions until an operator runs: bastio unseal";

/// The signing keys of a backend that runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Unsealing {
    signing: Signing,
    store: Store,
    dispatch: Dispatch,
}

/// Why the key stays sealed.
#[derive(Debug, Error)]
pub enum UnsealError {
    /// No passphrase at all.
    #[error(transparent)]
    NoPassphrase(#[from] PassphraseError),
    /// The wrong one.
    #[error("wrong passphrase")]
    Wrong,
    /// Not yet.
    #[error(transparent)]
    NotNow(#[from] NotNow),
    /// The file is not usable; the log says more.
    #[error("the sealed key cannot be opened: {0}")]
    Key(SigningKeyError),
    /// Only to be tried, which cannot be.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Unsealing {
    /// For these keys; `dispatch` must be over the same store.
    #[must_use]
    pub fn new(signing: Signing, store: Store, dispatch: Dispatch) -> Self {
        Self { signing, store, dispatch }
    }

    /// Whether nothing can be signed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.signing.keys().is_none()
    }

    /// The keys, unless they are sealed.
    #[must_use]
    pub fn keys(&self) -> Option<&Arc<SigningKeys>> {
        self.signing.keys()
    }

    /// The public half of the key that signs.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        self.signing.verifying_key()
    }

    /// Opens the keys, and lets every session send what waits.
    ///
    /// # Errors
    /// [`UnsealError`].
    pub async fn unseal(&self, proof: &Admin, text: &str) -> Result<Unsealed, UnsealError> {
        proof.must_be_meant()?;
        let with = Passphrase::parse(text)?;
        let already = !self.is_sealed();
        if !already {
            let attempt = self.signing.attempt(Instant::now())?;
            // Whoever asks may go away meanwhile: what was begun is ended and told all the same.
            let (here, actor) = (self.clone(), proof.actor().clone());
            let opening = tokio::spawn(async move { here.open(&actor, attempt, with).await });
            match opening.await {
                Ok(opened) => opened?,
                Err(failed) => std::panic::resume_unwind(failed.into_panic()),
            }
        }
        let (waiting, ..) = store::outcomes::counts(&mut *self.store.read().await?).await?;
        let signing_key = self.verifying_key().fingerprint();
        Ok(Unsealed { signing_key, already, waiting })
    }

    async fn open(
        &self,
        actor: &Actor,
        attempt: Attempt,
        with: Passphrase,
    ) -> Result<(), UnsealError> {
        match attempt.open(with).await {
            Ok(keys) => {
                // Told first: no key is opened without a trace.
                self.tell(actor, "signing-key.unseal").await?;
                self.signing.install(keys);
                self.dispatch.wake_all();
                tracing::info!(%actor, "the signing key is open");
                Ok(())
            }
            Err(SigningKeyError::Sealed { source: SealError::WrongPassphrase, .. }) => {
                self.tell(actor, "signing-key.unseal-refused").await?;
                tracing::warn!(%actor, "a wrong passphrase for the signing key");
                Err(UnsealError::Wrong)
            }
            Err(error) => Err(UnsealError::Key(error)),
        }
    }

    async fn tell(&self, actor: &Actor, action: &str) -> Result<(), StoreError> {
        let mut tx = self.store.write().await?;
        let detail = self.verifying_key().fingerprint();
        let event = Event { action, detail: &detail, ..Event::default() };
        audit::append(&mut tx, self.store.now(), actor, event).await?;
        Ok(tx.commit().await?)
    }
}

impl UnsealError {
    /// How long to wait, when there is nothing else to do.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::NotNow(NotNow::Busy) => Some(Duration::from_secs(1)),
            Self::NotNow(NotNow::TooMany(wait)) => Some(*wait),
            _ => None,
        }
    }
}
