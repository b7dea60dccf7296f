//! Which key signs a session's orders: what the agent says that it obeys, and how it is brought to obey our new one.
//! This file must not know what is ordered.

use std::sync::Arc;

use bastio_protocol::{AgentHello, FeedbackMessage, MessageId, Payload, SigningKey};
use tracing::{error, info};

use super::{Owner, Phase};
use crate::dispatch;
use crate::ssh::end::End;

impl Owner {
    /// Takes the agent's hello.
    pub(super) async fn met(&mut self, hello: AgentHello) -> Result<(), End> {
        self.session.met(&hello).await?;
        (self.more, self.together) = (true, hello.together);
        let Some(known) = hello.signing_key else {
            let server = &self.session.server().name;
            info!(%server, "this agent pins no signing key; enrol it again for signed actions");
            self.phase = Phase::Plain;
            return Ok(());
        };
        self.phase = Phase::Locked(known);
        self.agree().await
    }

    /// Sees to it that the agent obeys the key that signs, once that can.
    pub(super) async fn agree(&mut self) -> Result<(), End> {
        let Phase::Locked(known) = &self.phase else { return Ok(()) };
        // Who opens the keys wakes every session after that.
        let Some(keys) = self.orders.signing.keys() else { return Ok(()) };
        let (new, server) = (Arc::clone(keys.current()), &self.session.server().name);
        match keys.find(known).cloned() {
            Some(old) if old.verifying_key() != new.verifying_key() => {
                let mid = MessageId::from_number(rand::random());
                let key = new.verifying_key();
                let payload = Payload::RotateKey { mid: mid.clone(), key };
                let signer = self.orders.signer(Arc::clone(&old));
                let order = self.sign(&signer, &payload).await?;
                self.push(payload, &order);
                self.phase = Phase::Rotating { mid, old, new };
            }
            Some(_) => self.obeys(new),
            None => {
                error!(
                    %server, known,
                    "the agent obeys a signing key that is not ours; enrol it again"
                );
                self.obeys(new);
            }
        }
        Ok(())
    }

    /// Orders signed by that key go out from now on.
    fn obeys(&mut self, key: Arc<SigningKey>) {
        let signer = self.orders.signer(key).together(self.together);
        self.session.obeys(signer.clone());
        self.phase = Phase::Signed(signer);
    }

    /// The answer to whether the agent obeys our new key.
    pub(super) async fn rotated(
        &mut self,
        (old, new): (Arc<SigningKey>, Arc<SigningKey>),
        feedback: &FeedbackMessage,
    ) -> Result<(), End> {
        let server = &self.session.server().name;
        let key = if feedback.status.is_success() {
            let key = new.verifying_key().fingerprint();
            self.session.obeys_key(&key).await?;
            info!(%server, key, "the agent obeys the new signing key");
            new
        } else {
            let why = dispatch::for_people(&feedback.feedback);
            error!(%server, why, "the agent refuses the new signing key; the old one signs on");
            old
        };
        self.obeys(key);
        Ok(())
    }
}
