//! Whose orders are obeyed: the root processor's own look at each, so that a stolen connector, a
//! stolen host key of the backend or a replay gets nothing done.
//!
//! | an order | |
//! |---|---|
//! | for another server's id, signed by another key, or altered | refused |
//! | older than its time limit, with 60 s for clocks that differ | refused |
//! | with a number that is not above all that were obeyed | refused |
//! | whose payload is not understood to the letter | refused |
//! | an action without an order around it, where signatures are required | refused |
//!
//! What is refused changes nothing. This file must not know what an action does, nor how the
//! numbers that were obeyed survive a crash.

use std::io;
use std::path::{Path, PathBuf};

use bastio_protocol::{
    FeedbackMessage, Late, MessageId, Order, Payload, PayloadError, ServerId, Status, VerifyingKey,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::work::Work;
use crate::config::Signer;
use crate::{chance, files};

/// How far this host's clock may be ahead of the backend's, in seconds.
const SKEW: i64 = 60;
/// In the state folder: the key that has taken the place of the pinned one.
const FILE: &str = "signing_key";

/// Decides whose orders are obeyed.
#[derive(Debug)]
pub(super) struct Verifier {
    trusted: Option<Trusted>,
    require_signed: bool,
    file: PathBuf,
    /// The first order of this connection that came too late.
    late: Option<Late>,
}

/// Whom to obey, as told to the processor.
#[derive(Debug, Clone, Default)]
pub struct Obedience {
    /// Who signs.
    pub signer: Option<Signer>,
    /// Whether actions that nobody has signed are refused.
    pub require_signed: bool,
}

/// The key that is obeyed now.
#[derive(Debug)]
struct Trusted {
    server: ServerId,
    key: VerifyingKey,
    /// The key in the configuration, from which the way to `key` began.
    pinned: VerifyingKey,
    /// The number of the order that named `key`; 0 when it is the pinned one.
    sequence: u64,
}

/// The file that says which key has taken the place of the pinned one. It counts only for the
/// server and the pinned key that it names: another enrolment makes it void.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Succession {
    server: ServerId,
    pinned: VerifyingKey,
    key: VerifyingKey,
    sequence: u64,
}

/// The file cannot be used. Nothing is obeyed then, rather than a key that was replaced.
#[derive(Debug, Error)]
#[error(
    "cannot read which key signs orders, {}: {reason}\n\
     hint: remove the file and enrol again: bastio-agent enroll", path.display()
)]
pub struct SuccessionError {
    path: PathBuf,
    reason: String,
}

/// Why something is not obeyed. The text is the feedback.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("not signed, and this server obeys signed actions only; nothing was done")]
    NotSigned,
    #[error("this server pins no signing key, so it obeys no order; enrol it again")]
    NoKey,
    #[error("an order for the server {found}, not for this one; nothing was done")]
    OtherServer { found: ServerId },
    #[error("the signature is not that of the pinned key {known}; nothing was done")]
    BadSignature { known: String },
    #[error(transparent)]
    Expired(#[from] Late),
    #[error(
        "the order has the number {sequence}, but {highest} was obeyed already; nothing was done"
    )]
    Replayed { sequence: u64, highest: u64 },
    #[error("{0}; nothing was done")]
    Unreadable(#[from] PayloadError),
    #[error("the journal does not tell which orders were obeyed: {0}; nothing was done")]
    Forgotten(String),
}

impl Verifier {
    /// A verifier that obeys as told, or the key that has taken the pinned one's place.
    ///
    /// # Errors
    /// [`SuccessionError`] when a file says so and cannot be read.
    pub(super) fn new(told: Obedience, state: &Path) -> Result<Self, SuccessionError> {
        let file = state.join(FILE);
        let Obedience { signer, require_signed } = told;
        let trusted = match signer {
            None => None,
            Some(Signer { server, key: pinned }) => {
                let heir = read(&file)?.filter(|it| it.server == server && it.pinned == pinned);
                let (key, sequence) = heir.map_or((pinned, 0), |it| (it.key, it.sequence));
                Some(Trusted { server, key, pinned, sequence })
            }
        };
        Ok(Self { trusted, require_signed, file, late: None })
    }

    /// A new connection: what was refused as too late comes again, in order.
    pub(super) fn new_line(&mut self) {
        self.late = None;
    }

    /// Whether an action without an order around it may be obeyed.
    pub(super) fn plain(&self) -> Result<(), Refusal> {
        if self.require_signed { Err(Refusal::NotSigned) } else { Ok(()) }
    }

    /// What the order asks for, if it is to be obeyed. `highest` is the highest number obeyed so
    /// far, `now` the time in seconds since the Unix epoch. Behind one that came too late nothing is obeyed before
    /// [`Verifier::new_line`]: that one comes again, and must not be done after what was ordered later.
    pub(super) fn check(
        &mut self,
        order: &Order,
        highest: u64,
        now: i64,
    ) -> Result<Payload, Refusal> {
        let trusted = self.trusted.as_ref().ok_or(Refusal::NoKey)?;
        if *order.server() != trusted.server {
            return Err(Refusal::OtherServer { found: order.server().clone() });
        }
        if !order.verify(&trusted.key) {
            return Err(Refusal::BadSignature { known: trusted.key.fingerprint() });
        }
        let (sequence, not_after) = (order.sequence(), order.not_after());
        if self.late.is_none() && now > not_after.saturating_add(SKEW) {
            self.late = Some(Late { not_after, now });
        }
        if let Some(late) = self.late {
            return Err(late.into());
        }
        let highest = highest.max(trusted.sequence);
        if sequence <= highest {
            return Err(Refusal::Replayed { sequence, highest });
        }
        Ok(order.payload()?)
    }

    /// Obeys another key from now on; on the disk before this returns.
    ///
    /// # Errors
    /// As the system says; the old key is then obeyed on.
    pub(super) fn obey_instead(&mut self, key: VerifyingKey, sequence: u64) -> io::Result<()> {
        let Some(trusted) = &mut self.trusted else { return Ok(()) };
        let (server, pinned) = (trusted.server.clone(), trusted.pinned);
        let text = serde_json::to_vec(&Succession { server, pinned, key, sequence })
            .expect("texts and numbers always serialise");
        files::replace_secret(&self.file, &text)?;
        (trusted.key, trusted.sequence) = (key, sequence);
        Ok(())
    }

    /// Fingerprint of the key that is obeyed.
    pub(super) fn key(&self) -> Option<String> {
        self.trusted.as_ref().map(|trusted| trusted.key.fingerprint())
    }

    /// The higher of that number and the one of the order that named the key.
    pub(super) fn at_least(&self, highest: u64) -> u64 {
        highest.max(self.trusted.as_ref().map_or(0, |trusted| trusted.sequence))
    }
}

/// Forgets which key has taken the pinned one's place: another enrolment begins anew.
///
/// # Errors
/// As the system says; a file that is not there is fine.
pub fn forget_succession(state: &Path) -> io::Result<()> {
    match std::fs::remove_file(state.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The answer to an order that is not obeyed: under the id in its payload, which is for nothing but
/// this answer, or under one of our own.
pub(super) fn refuse(order: &Order, refusal: &Refusal) -> FeedbackMessage {
    let mid = order.mid().unwrap_or_else(|| MessageId::from_number(chance::number()));
    tracing::warn!(
        mid = mid.text(), server = %order.server(), sequence = order.sequence(), why = %refusal,
        "an order was refused"
    );
    FeedbackMessage::new(mid, Status::Failed, refusal.to_string())
}

/// The answer to an action that nobody has signed.
pub(super) fn refuse_plain(work: &Work, refusal: &Refusal) -> FeedbackMessage {
    tracing::warn!(
        mid = work.mid().text(), action = work.name(), why = %refusal, "an action was refused"
    );
    work.reply(Status::Failed, refusal.to_string())
}

fn read(path: &Path) -> Result<Option<Succession>, SuccessionError> {
    let failed = |reason: String| SuccessionError { path: path.to_owned(), reason };
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error.to_string())),
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests;
