//! Who may log in: the agents whose key is on record.
//!
//! The SSH user name is never looked at and never logged: version-1 agents send their API key
//! there.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use bastio_protocol::{KeyPolicy, PublicKey};
use bastio_transport::{Authenticate, BoxFuture, PublicKeyBlob, Unsure};
use tokio::time::Instant;
use tracing::{error, warn};

use super::refusals::{Line, Refusals};
use crate::dispatch::{Dispatch, ServerIdentity};

/// Asks dispatch whose key it is.
#[derive(Debug)]
pub(super) struct Login {
    dispatch: Dispatch,
    refusals: Mutex<Refusals>,
}

impl Login {
    pub(super) fn new(dispatch: Dispatch) -> Self {
        Self { dispatch, refusals: Mutex::new(Refusals::new(Instant::now())) }
    }

    async fn identify(
        &self,
        key: &PublicKeyBlob,
        peer: SocketAddr,
    ) -> Result<Option<ServerIdentity>, Unsure> {
        // The transport has let through Ed25519 and sound RSA keys only.
        let Ok(parsed) = PublicKey::parse(&key.line(), &KeyPolicy::ANY) else { return Ok(None) };
        let found = self.dispatch.identify(&parsed).await.map_err(|error| {
            error!(%error, address = %peer, "a login was cut off because the store failed");
            Unsure
        })?;
        if found.is_none() {
            self.log_refusal(key, peer);
        }
        Ok(found)
    }

    fn log_refusal(&self, key: &PublicKeyBlob, peer: SocketAddr) {
        let fingerprint = key.fingerprint();
        let line = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).refused(
            &fingerprint,
            peer.ip(),
            Instant::now(),
        );
        if let Line::Write { unlogged_before } = line {
            warn!(
                fingerprint,
                address = %peer,
                unlogged_before,
                "refused a login with an unknown key; enrol the server with bastio-agent enroll"
            );
        }
    }
}

impl Authenticate for Login {
    type Identity = ServerIdentity;

    fn authenticate<'a>(
        &'a self,
        _user: &'a str,
        key: &'a PublicKeyBlob,
        peer: SocketAddr,
    ) -> BoxFuture<'a, Result<Option<ServerIdentity>, Unsure>> {
        Box::pin(self.identify(key, peer))
    }
}
