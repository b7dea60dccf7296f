//! What is signed about the state that an action has left: by the root processor, from what it has in hand.
//!
//! | answered with | the receipt says |
//! |---|---|
//! | 200 or 300 to an action on an account | what the account is meant to be now, which it is |
//! | to `remove-user` | that it is gone, or lets nobody in |
//! | to `sync` | each account of which nothing failed; all of the server when nothing failed at all |
//! | 500 to an action, a report, a dry run | there is none |
//!
//! Nothing is looked up for it. This file must not know how a receipt reaches the backend.

use std::collections::BTreeSet;

use bastio_protocol::{
    Action, ActionMessage, ChangeKind, Detail, FeedbackMessage, HostMessage, HostRequest, Occasion,
    Receipt, Removal, ServerId, SigningKey, Standing, StateOfAccount, States, Status, Username,
    VerifyingKey, WantedAccount, WantedState,
};

use super::work::Work;
use super::{Processor, System};

/// Signs receipts.
#[derive(Debug)]
pub(super) struct Notary {
    server: ServerId,
    key: SigningKey,
}

impl Notary {
    pub(super) fn new(server: ServerId, key: SigningKey) -> Self {
        Self { server, key }
    }

    /// The key with which its receipts can be verified.
    pub(super) fn verifying_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// A receipt for the answer. `sequence` is the highest number of an order that was obeyed.
    fn certify(
        &self,
        feedback: &FeedbackMessage,
        action: &str,
        states: States,
        sequence: u64,
        at: i64,
    ) -> Receipt {
        let (server, mid) = (self.server.clone(), feedback.mid.clone());
        let (action, status) = (action.to_owned(), feedback.status);
        let occasion = Occasion { server, sequence, at, mid, action, status };
        Receipt::sign(&self.key, occasion, states)
    }
}

impl<A: System> Processor<A> {
    /// Puts a receipt into the answer, where there is something to certify. To be called before the answer is cut.
    pub(super) fn certify(
        &self,
        notary: &Notary,
        work: &Work,
        feedback: &mut FeedbackMessage,
        sequence: u64,
    ) {
        let now = (self.clock)();
        if let Some(states) = self.states(work, feedback, now) {
            let receipt = notary.certify(feedback, work.name(), states, sequence, now);
            feedback.receipt = Some(Box::new(receipt));
        }
    }

    fn states(&self, work: &Work, feedback: &FeedbackMessage, now: i64) -> Option<States> {
        match work {
            Work::Action(message) => self.state_left(message, feedback, now),
            Work::Host(HostMessage { request, .. }) => match request {
                HostRequest::Sync { wanted, dry_run: false } => {
                    let removal = wanted.removal.unwrap_or(self.removal);
                    whole(wanted, feedback.detail.as_deref()?, removal, now)
                }
                HostRequest::Sync { dry_run: true, .. } | HostRequest::ReportState => None,
            },
        }
    }

    fn state_left(
        &self,
        message: &ActionMessage,
        feedback: &FeedbackMessage,
        now: i64,
    ) -> Option<States> {
        if !feedback.status.is_success() {
            return None;
        }
        let login = &message.username;
        let state = match &message.action {
            Action::RemoveUser { removal } => {
                let was_there = feedback.status == Status::Done;
                let removal = Some(removal.unwrap_or(self.removal)).filter(|_| was_there);
                StateOfAccount { login, standing: left_by(removal), sessions_ended: true }
            }
            action => {
                let ended = matches!(action, Action::EndSessions)
                    || ended_sessions(feedback.detail.as_deref()).contains(login);
                of_wanted(login, self.wanted(login)?, ended, now)
            }
        };
        let mut states = States::default();
        states.add(&state);
        Some(states)
    }
}

/// What removal leaves; none: there was no account.
fn left_by(removal: Option<Removal>) -> Standing<'static> {
    match removal {
        Some(Removal::Lock) => Standing::Locked,
        Some(Removal::Keep | Removal::Quarantine | Removal::Delete) | None => Standing::Absent,
    }
}

fn of_wanted<'a>(
    login: &'a Username,
    wanted: &'a WantedAccount,
    sessions_ended: bool,
    now: i64,
) -> StateOfAccount<'a> {
    let is_over = wanted.until.is_some_and(|until| until <= now);
    let standing =
        if wanted.locked || is_over { Standing::Locked } else { Standing::Present(wanted) };
    StateOfAccount { login, standing, sessions_ended }
}

/// The accounts whose sessions an action has ended.
fn ended_sessions(detail: Option<&Detail>) -> BTreeSet<&Username> {
    let changes = detail.map(|detail| detail.changes.as_slice()).unwrap_or_default();
    let ended = changes.iter().filter(|change| change.kind == ChangeKind::EndSessions);
    ended.filter_map(|change| change.username.as_ref()).collect()
}

/// What a sync has left; none when nobody can tell what it has touched.
fn whole(wanted: &WantedState, detail: &Detail, removal: Removal, now: i64) -> Option<States> {
    let failed: Option<BTreeSet<&Username>> =
        detail.failures.iter().map(|failure| failure.username.as_ref()).collect();
    let failed = failed?;
    let ended = ended_sessions(Some(detail));
    let mut states = States { complete: failed.is_empty(), ..States::default() };
    for (login, account) in wanted.accounts.iter().filter(|(login, _)| !failed.contains(login)) {
        states.add(&of_wanted(login, account, ended.contains(login), now));
    }
    let changed = detail.changes.iter().filter_map(|change| change.username.as_ref());
    for login in changed.filter(|it| !wanted.accounts.contains_key(it) && !failed.contains(it)) {
        let standing = left_by(Some(removal));
        states.add(&StateOfAccount { login, standing, sessions_ended: true });
    }
    Some(states)
}
