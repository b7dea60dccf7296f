//! Who may read the metrics, also while the database does not answer: that is when they are
//! needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bastio_protocol::api::Role;
use tokio::time::{Instant, timeout};

use super::{AccessError, ApiKeys, secret};
use crate::store::StoreError;

/// How long the database may take to know an API key.
const PATIENCE: Duration = Duration::from_secs(2);
/// For how long an API key counts as known if the database cannot be asked.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// Most API keys that are remembered.
const MOST: usize = 16;

/// Proof that a request may read the metrics. Only [`ApiKeys::watcher`] makes it.
#[derive(Debug)]
pub struct Watcher(());

/// The hashes of secrets that opened this door, and when they last did.
#[derive(Debug, Clone, Default)]
pub(super) struct Watchers(Arc<Mutex<HashMap<String, Instant>>>);

impl ApiKeys {
    /// Checks a secret for reading the metrics, in 2 s at most.
    ///
    /// # Errors
    /// [`AccessError::Unknown`], [`AccessError::EnrolsOnly`]; [`AccessError::Store`] when the
    /// database cannot be asked and the API key was not known within the last ten minutes.
    pub async fn watcher(&self, secret: &str) -> Result<Watcher, AccessError> {
        let hash = secret::hash(secret);
        let timed_out = || AccessError::Store(StoreError::Database(sqlx::Error::PoolTimedOut));
        let verified = timeout(PATIENCE, self.verify(secret)).await;
        let refusal = match verified.unwrap_or_else(|_| Err(timed_out())) {
            Ok(key) => match key.role {
                Role::Admin | Role::Metrics => {
                    self.watchers.remember(hash);
                    return Ok(Watcher(()));
                }
                Role::Enroll => AccessError::EnrolsOnly,
            },
            Err(AccessError::Store(_)) if self.watchers.knows(&hash) => return Ok(Watcher(())),
            Err(error @ AccessError::Store(_)) => return Err(error),
            Err(error) => error,
        };
        self.watchers.forget(&hash);
        Err(refusal)
    }
}

impl Watchers {
    fn remember(&self, hash: String) {
        let now = Instant::now();
        let mut known = self.lock();
        known.retain(|_, at| now.duration_since(*at) < REMEMBERED);
        if known.len() < MOST || known.contains_key(&hash) {
            known.insert(hash, now);
        }
    }

    fn knows(&self, hash: &str) -> bool {
        self.lock().get(hash).is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn forget(&self, hash: &str) {
        self.lock().remove(hash);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
