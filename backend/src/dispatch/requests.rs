//! What is asked of a server as a whole, within its agent's session, and what it says unasked.
//!
//! A sync is put together when it is handed out, so that it never brings back what an edit has
//! taken meanwhile; sent again, it is another message with another id, and an answer to the old one
//! is none. What a rule asked for is not sent before the agent has told in this session what differs: it
//! may have been locked by hand meanwhile.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bastio_protocol::api::{ActionState, RequestKind};
use bastio_protocol::{
    Action, ChangeNote, Detail, DriftMessage, FailureNote, FeedbackMessage, HostMessage,
    HostRequest, V2_LIMIT, WantedState,
};

use tokio::time::Instant;

use super::mid::new_mid;
use super::queue;
use super::session::Session;
use super::{DispatchError, FeedbackOutcome};
use crate::audit::{self, Actor, Event};
use crate::plan::Step;
use crate::store::actions::Ending;
use crate::store::requests::{KnownRequest, OpenRequest, detail_text};
use crate::store::{self, Connection, StoreError};

/// Longest detail of a request that is kept, in bytes.
const MAX_DETAIL: usize = V2_LIMIT;
/// Longest detail of a drift that is kept, in bytes.
const MAX_DRIFT: usize = 64 * 1024;
/// Longest text in the audit log about a drift, in bytes.
const MAX_WORDS: usize = 1000;
/// After so long in its session, an agent that has told no drift has none to tell.
pub(super) const SILENCE: Duration = Duration::from_secs(300);
/// What an order adds to the message in it, in bytes, beside escaped quotes.
const ENVELOPE: usize = 1024;

impl Session {
    /// The next requests, on the disk as sent, and whether others were ended: those that cannot be sent.
    pub(super) async fn hand_out_requests(
        &self,
        db: &mut Connection,
        limit: i64,
    ) -> Result<(Vec<HostMessage>, bool), StoreError> {
        let (mut messages, mut ended) = (Vec::new(), false);
        for open in store::requests::queued(db, self.server.id, limit).await? {
            if open.by_rule && !self.has_told_drift() {
                continue;
            }
            if open.by_rule && self.take_back(db, &open).await? {
                ended = true;
                continue;
            }
            let request = self.compose(db, open).await?;
            let message = HostMessage { mid: new_mid(), request };
            if fits(&message) {
                store::requests::mark_sent(db, open.id, &message).await?;
                messages.push(message);
            } else {
                let feedback = "not sent: all that this server should have is more than one \
                                message can hold; the actions still reach it one by one";
                self.finish(db, &open, &refusal(feedback)).await?;
                ended = true;
            }
        }
        Ok((messages, ended))
    }

    /// Whether what is known of drift is what its agent says now. One that has nothing at all to tell is silent.
    fn has_told_drift(&self) -> bool {
        self.told_drift.load(Ordering::Relaxed) || Instant::now() >= self.silent_at
    }

    /// Ends what a rule asked for when it is not to be sent any more; whether it did.
    async fn take_back(&self, db: &mut Connection, open: &OpenRequest) -> Result<bool, StoreError> {
        let server = (self.server.id, &self.server.name);
        let sent = store::requests::last_sent(db, open.id).await?;
        let why = super::healing::refusal(db, server, sent.is_some()).await?;
        let Some(why) = why else { return Ok(false) };
        // What was sent of it in an earlier session may have been done.
        if let Some(HostRequest::Sync { wanted, dry_run: false }) = sent {
            self.half_synced(db, &wanted).await?;
        }
        self.finish(db, open, &refusal(&format!("not sent: {why}"))).await?;
        Ok(true)
    }

    async fn compose(
        &self,
        db: &mut Connection,
        open: OpenRequest,
    ) -> Result<HostRequest, StoreError> {
        if open.kind == RequestKind::Report {
            return Ok(HostRequest::ReportState);
        }
        let now = self.dispatch.store.now();
        let accounts = queue::wanted(db, self.server.id, now).await?;
        let wanted = WantedState {
            accounts,
            removal: None,
            reserved_uids: store::uids::reserved(db).await?,
            allow_no_admin: open.allow_no_admin,
        };
        let dry_run = open.kind == RequestKind::Check;
        Ok(HostRequest::Sync { wanted: Box::new(wanted), dry_run })
    }

    /// The answer to a request.
    pub(super) async fn request_feedback(
        &self,
        feedback: &FeedbackMessage,
    ) -> Result<FeedbackOutcome, DispatchError> {
        let mut tx = self.write().await?;
        let server = self.server.id;
        let Some(known) = store::requests::find_sent(&mut tx, server, &feedback.mid).await? else {
            return Ok(FeedbackOutcome::Unknown);
        };
        if known.state != ActionState::Sent {
            return Ok(FeedbackOutcome::Duplicate);
        }
        self.take_request_answer(&mut tx, &known, feedback).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.dispatch.presence.step();
        Ok(FeedbackOutcome::Matched)
    }

    async fn take_request_answer(
        &self,
        db: &mut Connection,
        known: &KnownRequest,
        feedback: &FeedbackMessage,
    ) -> Result<(), StoreError> {
        let success = feedback.status.is_success();
        if let HostRequest::Sync { wanted, dry_run: false } = &known.request {
            if success {
                self.synced(db, wanted).await?;
                self.take_sync_receipt(db, wanted, feedback).await?;
            } else {
                self.half_synced(db, wanted).await?;
            }
        }
        let detail = feedback.detail.as_deref();
        if let HostRequest::Sync { dry_run: true, .. } = &known.request
            && success
            && detail.is_none_or(|detail| detail.changes.is_empty() && detail.failures.is_empty())
        {
            store::standing::verified(db, self.server.id).await?;
        }
        let ending = Ending {
            state: if success { ActionState::Done } else { ActionState::Failed },
            status: Some(feedback.status),
            feedback: super::for_people(&feedback.feedback),
            detail: detail.and_then(|detail| detail_text(detail, MAX_DETAIL)),
        };
        let kind = match &known.request {
            HostRequest::Sync { dry_run: false, .. } => RequestKind::Sync,
            HostRequest::Sync { dry_run: true, .. } => RequestKind::Check,
            HostRequest::ReportState => RequestKind::Report,
        };
        let open = OpenRequest { id: known.id, kind, allow_no_admin: false, by_rule: false };
        self.finish(db, &open, &ending).await
    }

    /// The server is exactly as it was asked to be.
    async fn synced(&self, db: &mut Connection, wanted: &WantedState) -> Result<(), StoreError> {
        let server = self.server.id;
        store::accounts::replace(db, server, &wanted.accounts).await?;
        let given_back = wanted.accounts.iter().filter(|(_, account)| account.release.is_some());
        for (login, _) in given_back {
            store::adoptions::forget(db, server, login).await?;
        }
        store::suspects::clear(db, server).await?;
        store::requests::set_drift(db, server, None).await?;
        store::standing::verified(db, server).await?;
        store::actions::supersede(db, Some(server), None).await
    }

    /// Whatever of it was to change may have changed.
    async fn half_synced(
        &self,
        db: &mut Connection,
        wanted: &WantedState,
    ) -> Result<(), StoreError> {
        let server = self.server.id;
        let confirmed = store::accounts::of_server(db, server).await?;
        for (login, account) in &wanted.accounts {
            if confirmed.get(login).is_some_and(|known| known.whole() == *account) {
                continue;
            }
            let action = Action::SetUser { wanted: Box::new(account.clone()) };
            store::suspects::add(db, server, &Step { login: login.clone(), action }).await?;
        }
        Ok(())
    }

    async fn finish(
        &self,
        db: &mut Connection,
        request: &OpenRequest,
        ending: &Ending,
    ) -> Result<(), StoreError> {
        let now = self.dispatch.store.now();
        store::requests::finish(db, request.id, ending, now).await?;
        let done = ending.state == ActionState::Done;
        let status = ending.status.map(|status| format!(" {status}")).unwrap_or_default();
        let detail = format!("{}:{status} {}", request.kind.name(), ending.feedback);
        let event = Event {
            action: if done { "request.done" } else { "request.failed" },
            server: Some(&self.server.name),
            detail: detail.trim_end(),
            status: ending.status,
            ..Event::default()
        };
        let actor = Actor::agent(&self.server.name, self.info.address);
        audit::append(db, now, &actor, event).await
    }

    /// Takes what the agent says unasked of what others have changed on its server. Each new connection
    /// begins with it; what is known already is no news.
    ///
    /// # Errors
    /// [`DispatchError::Store`].
    pub async fn drifted(&self, drift: &DriftMessage) -> Result<(), DispatchError> {
        let nothing = drift.detail == Detail::default();
        let action = match (nothing, drift.healed) {
            (true, _) => "drift.gone",
            (false, true) => "drift.healed",
            (false, false) => "drift.found",
        };
        let mut kept = drift.clone();
        if detail_text(&kept.detail, MAX_DRIFT).is_none() {
            kept.detail = shortened(&drift.detail);
        }
        let how = if drift.healed { "put right by" } else { "a sync would put it right by" };
        let words =
            if nothing { String::new() } else { format!("{how} {}", in_words(&drift.detail)) };
        let mut tx = self.write().await?;
        let known = Some(&kept).filter(|_| !nothing);
        let before = store::requests::drift(&mut tx, self.server.id).await?;
        let is_news = match (&before, known) {
            (None, None) => false,
            (Some(before), Some(now)) => now.healed || before.healed || before.detail != now.detail,
            (Some(_), None) | (None, Some(_)) => true,
        };
        let is_first = !self.told_drift.load(Ordering::Relaxed);
        if !is_news {
            let is_awaited = is_first && store::drift::waits(&mut tx, self.server.id).await?;
            drop(tx);
            self.told_drift.store(true, Ordering::Relaxed);
            if is_awaited {
                self.dispatch.wake(self.server.id);
            }
            return Ok(());
        }
        store::requests::set_drift(&mut tx, self.server.id, known).await?;
        let mut words = words;
        if !nothing && !drift.healed {
            let (server, now) = ((self.server.id, &self.server.name), self.dispatch.store.now());
            let answer = super::healing::answer(&mut tx, server, &drift.detail, now).await?;
            if !answer.is_empty() {
                words = format!("{answer}; {words}");
            }
        }
        if let Some(unwritten) = self.dispatch.drift_rows.row(self.server.id, Instant::now()) {
            self.log_drift(&mut tx, action, &words, unwritten).await?;
        }
        tx.commit().await.map_err(StoreError::from)?;
        self.told_drift.store(true, Ordering::Relaxed);
        self.dispatch.wake(self.server.id);
        self.dispatch.presence.step();
        Ok(())
    }

    async fn log_drift(
        &self,
        db: &mut Connection,
        action: &'static str,
        words: &str,
        unwritten: u64,
    ) -> Result<(), StoreError> {
        let words = counting(queue::for_people(words, MAX_WORDS), unwritten);
        tracing::warn!(server = %self.server.name, action, words, "drift");
        let server = Some(&self.server.name);
        let event = Event { action, server, detail: &words, ..Event::default() };
        let actor = Actor::agent(&self.server.name, self.info.address);
        audit::append(db, self.dispatch.store.now(), &actor, event).await
    }
}

fn refusal(feedback: &str) -> Ending {
    let feedback = feedback.to_owned();
    Ending { state: ActionState::Failed, status: None, feedback, detail: None }
}

/// Whether the message, written into an order as text, is within the limit of a frame.
fn fits(message: &HostMessage) -> bool {
    let json = message.to_json();
    let escaped = json.iter().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    json.len() + escaped + ENVELOPE <= V2_LIMIT
}

/// What is kept of a detail that is too long: that something has changed, and that something cannot be put right, if so.
fn shortened(detail: &Detail) -> Detail {
    let change = detail
        .changes
        .iter()
        .take(1)
        .map(|note| ChangeNote { text: queue::for_people(&note.text, MAX_WORDS), ..note.clone() });
    let failure = detail.failures.iter().take(1).map(|note| FailureNote {
        username: note.username.clone(),
        text: queue::for_people(&note.text, MAX_WORDS),
    });
    Detail { changes: change.collect(), failures: failure.collect(), ..Detail::default() }
}

/// The words of a row, and how many rows before it are missing.
fn counting(words: String, unwritten: u64) -> String {
    let missing = format!("{unwritten} more before this were not written down");
    match (unwritten, words.is_empty()) {
        (0, _) => words,
        (_, true) => missing,
        (_, false) => format!("{words}; {missing}"),
    }
}

/// What a detail says, in one line.
fn in_words(detail: &Detail) -> String {
    let of = |user: &Option<bastio_protocol::Username>, text: &str| match user {
        Some(user) => format!("{user}: {text}"),
        None => text.to_owned(),
    };
    let change = |note: &ChangeNote| {
        let kind = serde_json::to_value(note.kind).ok();
        let kind = kind.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
        of(&note.username, &format!("{kind} ({})", note.text))
    };
    let changes = detail.changes.iter().map(change);
    let failures =
        detail.failures.iter().map(|note| of(&note.username, &format!("failed ({})", note.text)));
    changes.chain(failures).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::counting;

    #[test]
    fn rows_that_are_missing_are_counted() {
        for (words, unwritten, expected) in [
            ("", 0, ""),
            ("alice", 0, "alice"),
            ("", 7, "7 more before this were not written down"),
            ("alice", 7, "alice; 7 more before this were not written down"),
        ] {
            assert_eq!(counting(words.to_owned(), unwritten), expected);
        }
    }
}
