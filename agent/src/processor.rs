//! The processor: looks up, decides, applies, answers. One feedback for each action, whatever
//! happens; the same action twice ends the same.
//!
//! U is the account, K the key line. "Ours" means: a member of the group `bastio-managed`.
//!
//! | state | add-user | update-user sudo / no sudo | remove-user | add-key | remove-key |
//! |---|---|---|---|---|---|
//! | absent | 200 was created | 500 does not exist | 300 does not exist | 500 | 500 |
//! | ours | 300, or 200 if rights or access changed | 200 / 200 member, 300 not | 200 was removed, and the home's fate | 200, 300 there already | 200, 300 not there |
//! | ours, home missing or unsafe | 500 | as above | 200, home left | 500 | 500 |
//! | not ours, or a system account | 500 | 500 | 500 | 500 | 500 |
//! | no sudo group on the host | 500 if sudo wanted | 500 / 300 | | | |
//! | absent, home or group U left over | 500, nothing made | 500 | 300 | 500 | 500 |
//! | look-up or tool fails | 500 | 500 | 500, access stays closed | 500 | 500 |
//!
//! What version 2 adds is worked out by [`crate::reconcile`]: see `wanted` and `report` below. What each
//! account is meant to be from then on is kept in the ledger (`book`).
//!
//! This room has no network, no async runtime and no SSH. It must not know how an account is
//! changed, only which verb the rules ask for ([`Accounts`]).

use bastio_protocol::{
    Action, ActionMessage, Change, Detail, FeedbackMessage, KeyPolicy, PublicKey, PublicKeyError,
    Removal, Status, Username,
};
use thiserror::Error;

use crate::accounts::{Account, Accounts, AccountsError, HomeFate, LeftOver};
use crate::ledger::Ledger;
use crate::reconcile::Refusal;
use crate::reconcile::host::Host;
use work::Extent;

mod book;
mod bounds;
mod end_point;
mod listen;
mod once;
mod receipt;
mod report;
mod run;
mod stop;
mod tend;
mod verify;
mod wanted;
mod work;

pub use end_point::EndPoint;
pub use run::{Ended, Heartbeat, ProcessorError, ProcessorSettings, SocketSource, main};
pub use stop::{Stop, StopHandle};
pub use verify::{Obedience, SuccessionError, forget_succession};

/// Carries out actions, one after another.
#[derive(Debug)]
pub struct Processor<A> {
    accounts: A,
    key_policy: KeyPolicy,
    removal: Removal,
    /// The account that is never locked, ended or removed.
    break_glass: Option<Username>,
    /// What each account is meant to be; none where nobody wants to know (tests of single actions).
    ledger: Option<Ledger>,
    /// Seconds since the Unix epoch.
    clock: fn() -> i64,
}

/// All that the processor needs of a server.
pub trait System: Accounts + Host {}

impl<T: Accounts + Host> System for T {}

/// An action that came to its end.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: Status,
    text: String,
    detail: Option<Box<Detail>>,
}

impl Answer {
    fn done(text: impl Into<String>) -> Self {
        Self { status: Status::Done, text: text.into(), detail: None }
    }

    fn unchanged(text: impl Into<String>) -> Self {
        Self { status: Status::Unchanged, text: text.into(), detail: None }
    }

    fn failed(failure: impl std::fmt::Display) -> Self {
        Self { status: Status::Failed, text: failure.to_string(), detail: None }
    }
}

/// Why an action was not carried out. The text is the feedback.
#[derive(Debug, Error)]
enum Failure {
    #[error("{0} does not exist")]
    Absent(Username),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("the time of {name} was over at {at}; give it a later end")]
    Ended { name: Username, at: String },
    #[error(
        "a folder is left over at {path}, it belongs to {owner}; move it away and try again",
        path = .0.path.display(), owner = .0.owner
    )]
    LeftOverHome(LeftOver),
    #[error("a group {0} exists already; remove it (groupdel {0}) or take another name")]
    GroupExists(Username),
    #[error("this host has neither a group sudo nor wheel; install sudo and try again")]
    NoSudoGroup,
    #[error("{0}")]
    WeakKey(#[from] PublicKeyError),
    #[error("access of {name} is closed, but the account could not be removed: {cause}")]
    NotRemoved { name: Username, cause: AccountsError },
    #[error("{0}")]
    Accounts(#[from] AccountsError),
    /// The processor ends: the rest is done when it is back.
    #[error("stopped before its end")]
    Stopped,
}

impl<A: System> Processor<A> {
    /// A processor that changes these accounts, and lets in only keys that the policy allows.
    pub fn new(accounts: A, key_policy: KeyPolicy) -> Self {
        let removal = Removal::default();
        Self { accounts, key_policy, removal, break_glass: None, ledger: None, clock: work::now }
    }

    /// The same, and it never locks, ends or removes that account.
    #[must_use]
    pub fn sparing(self, break_glass: Option<Username>) -> Self {
        Self { break_glass, ..self }
    }

    /// The same, and it writes down what each account is meant to be.
    #[must_use]
    pub fn keeping(self, ledger: Ledger) -> Self {
        Self { ledger: Some(ledger), ..self }
    }

    /// The same with another rule for the homes of removed accounts, where an action says none.
    #[must_use]
    pub fn removing(self, removal: Removal) -> Self {
        Self { removal, ..self }
    }

    /// Carries out one action, writes down what the account is meant to be now, and answers.
    fn process_action(&mut self, message: &ActionMessage, extent: Extent) -> FeedbackMessage {
        let answer = self.decide(message, extent).unwrap_or_else(Answer::failed);
        log(message, &answer);
        if answer.status.is_success() {
            self.note_action(message, answer.status);
        }
        let mut feedback = message.reply(answer.status, answer.text);
        feedback.detail = answer.detail;
        feedback
    }

    fn decide(&mut self, message: &ActionMessage, extent: Extent) -> Result<Answer, Failure> {
        let name = &message.username;
        let account = match &message.action {
            // Also where it is somebody else's, which may be taken over.
            Action::SetUser { .. } => None,
            _ => self.look_up(name)?,
        };
        match (&message.action, account) {
            (Action::AddUser { sudo }, None) => self.create(name, *sudo),
            (Action::AddUser { sudo }, Some(account)) => self.bring_in_line(&account, *sudo),
            (Action::RemoveUser { .. }, None) => {
                Ok(Answer::unchanged(format!("{name} does not exist")))
            }
            (Action::RemoveUser { removal }, Some(account)) => {
                self.remove(&account, removal.unwrap_or(self.removal))
            }
            (Action::SetUser { wanted }, _) => Ok(self.set_user(name, wanted, extent)?),
            (_, None) => Err(Failure::Absent(name.clone())),
            (Action::UpdateUser { sudo }, Some(account)) => self.update(&account, *sudo),
            (Action::AddKey { public_key }, Some(account)) => self.add_key(&account, public_key),
            (Action::RemoveKey { public_key }, Some(account)) => {
                self.remove_key(&account, public_key)
            }
            (Action::LockUser, Some(_)) => self.lock(name),
            (Action::UnlockUser, Some(_)) => self.unlock(name),
            (Action::EndSessions, Some(_)) => self.end_sessions(name),
        }
    }

    /// The account, if it may be touched; `None` if there is none.
    fn look_up(&self, name: &Username) -> Result<Option<Account>, Failure> {
        match self.accounts.find(name)? {
            Some(account) if account.is_system => Err(Refusal::System(name.clone()).into()),
            Some(account) if !account.is_managed => Err(Refusal::NotManaged(name.clone()).into()),
            account => Ok(account),
        }
    }

    fn create(&self, name: &Username, sudo: bool) -> Result<Answer, Failure> {
        if sudo && !self.accounts.can_give_sudo()? {
            return Err(Failure::NoSudoGroup);
        }
        let new = self.place_of(name)?;
        if let Some(left_over) = self.accounts.left_over_home(name)?
            && !new.keep_home
        {
            return Err(Failure::LeftOverHome(left_over));
        }
        if self.accounts.group_exists(name)? {
            return Err(Failure::GroupExists(name.clone()));
        }
        self.accounts.create_plain(name, sudo, new)?;
        Ok(Answer::done(format!("{name} was created successfully")))
    }

    /// add-user on an account of ours: it ends as if it were made just now.
    fn bring_in_line(&self, account: &Account, sudo: bool) -> Result<Answer, Failure> {
        let name = &account.name;
        self.accounts.repair_key_files(account)?;
        let rights = self.set_sudo(account, sudo)?;
        let access = self.accounts.reopen_access(account)?;
        Ok(match (access, rights) {
            (Change::Changed, _) => {
                Answer::done(format!("{name} already exists; its access was opened again"))
            }
            (Change::Unchanged, Change::Changed) => {
                Answer::done(format!("{name} already exists; its sudo rights were changed"))
            }
            (Change::Unchanged, Change::Unchanged) => {
                Answer::unchanged(format!("{name} already exists"))
            }
        })
    }

    fn update(&self, account: &Account, sudo: bool) -> Result<Answer, Failure> {
        let name = &account.name;
        let change = self.set_sudo(account, sudo)?;
        Ok(match (sudo, change) {
            (true, _) => Answer::done(format!("{name} was added to the sudo group successfully")),
            (false, Change::Changed) => {
                Answer::done(format!("{name} was removed from the sudo group successfully"))
            }
            (false, Change::Unchanged) => {
                Answer::unchanged(format!("{name} is not a member of the sudo group"))
            }
        })
    }

    fn set_sudo(&self, account: &Account, sudo: bool) -> Result<Change, Failure> {
        if sudo && !self.accounts.can_give_sudo()? {
            return Err(Failure::NoSudoGroup);
        }
        Ok(self.accounts.set_plain_sudo(account, sudo)?)
    }

    /// Access ends first, so that a removal which fails half-way still shuts the person out.
    fn remove(&self, account: &Account, removal: Removal) -> Result<Answer, Failure> {
        let name = account.name.clone();
        if self.break_glass.as_ref() == Some(&name) {
            return Err(Refusal::BreakGlass(name).into());
        }
        let keys_note = self.accounts.close_access(account)?;
        let ended = self.accounts.end_processes(account);
        let removed = ended.and_then(|()| self.accounts.delete(account, removal));
        match removed {
            Err(cause) => Err(Failure::NotRemoved { name, cause }),
            Ok(fate) if fate.is_there() || matches!(fate, HomeFate::Quarantined(_)) => {
                let keys = keys_note.map(|note| format!("; {note}")).unwrap_or_default();
                Ok(Answer::done(format!("{name} was removed successfully; {fate}{keys}")))
            }
            Ok(_) => Ok(Answer::done(format!("{name} was removed successfully"))),
        }
    }

    fn add_key(&self, account: &Account, key: &PublicKey) -> Result<Answer, Failure> {
        let name = &account.name;
        PublicKey::parse(&key.to_string(), &self.key_policy)?;
        Ok(match self.accounts.insert_key(account, key)? {
            Change::Changed => Answer::done(format!("added public key to {name} successfully")),
            Change::Unchanged => {
                let others = match self.line_of_others(account, key) {
                    true => {
                        "; that line is not bastio's: it stays as it is until the key is removed"
                    }
                    false => "",
                };
                Answer::unchanged(format!("public key `{key}` for {name} already exists{others}"))
            }
        })
    }

    /// Every line of the key goes, whoever wrote it: who takes a key means that it lets nobody in any more.
    fn remove_key(&self, account: &Account, key: &PublicKey) -> Result<Answer, Failure> {
        let name = &account.name;
        let others = match self.line_of_others(account, key) {
            true => "; a line with it that others wrote went, too",
            false => "",
        };
        Ok(match self.accounts.remove_key(account, key)? {
            Change::Changed => {
                Answer::done(format!("removed public key from {name} successfully{others}"))
            }
            Change::Unchanged => Answer::unchanged(format!("public key for {name} does not exist")),
        })
    }

    /// Whether a line that others wrote lets the key in, as far as that can be read.
    fn line_of_others(&self, account: &Account, key: &PublicKey) -> bool {
        self.accounts.keys(account).is_ok_and(|found| found.foreign.contains(key))
    }
}

/// The one line that each action logs. A key appears as its fingerprint, also in what a set-user has changed.
fn log(message: &ActionMessage, answer: &Answer) {
    let key = match &message.action {
        Action::AddKey { public_key } | Action::RemoveKey { public_key } => {
            Some(public_key.fingerprint())
        }
        _ => None,
    };
    let (mid, action, user) = (message.mid.text(), message.action.name(), &message.username);
    let (status, key) = (answer.status.code(), key.as_deref());
    let changes = answer.detail.iter().flat_map(|detail| &detail.changes);
    let changes: Vec<&str> = changes.map(|change| change.text.as_str()).collect();
    let changes = (!changes.is_empty()).then(|| changes.join("; "));
    if answer.status.is_success() {
        tracing::info!(mid, action, %user, status, key, changes, "action done");
    } else {
        tracing::warn!(mid, action, %user, status, key, why = answer.text, "action failed");
    }
}

#[cfg(test)]
mod tests;
