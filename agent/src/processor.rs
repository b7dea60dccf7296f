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
//! This room has no network, no async runtime and no SSH. It must not know how an account is
//! changed, only which verb the rules ask for ([`Accounts`]).

use bastio_protocol::{
    Action, ActionMessage, Change, FeedbackMessage, KeyPolicy, PublicKey, PublicKeyError, Removal,
    Status, Username,
};
use thiserror::Error;

use crate::accounts::{Account, Accounts, AccountsError, HomeFate, LeftOver};

mod end_point;
mod listen;
mod once;
mod run;
mod stop;
mod verify;

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
}

/// An action that came to its end.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: Status,
    text: String,
}

impl Answer {
    fn done(text: impl Into<String>) -> Self {
        Self { status: Status::Done, text: text.into() }
    }

    fn unchanged(text: impl Into<String>) -> Self {
        Self { status: Status::Unchanged, text: text.into() }
    }
}

/// Why an action was not carried out. The text is the feedback.
#[derive(Debug, Error)]
enum Failure {
    #[error("not known")]
    Unknown,
    #[error("{0} does not exist")]
    Absent(Username),
    #[error(
        "{0} exists already and is not managed by bastio; to hand it over, make it a member of \
         the group bastio-managed (usermod --append --groups bastio-managed {0})"
    )]
    NotManaged(Username),
    #[error("{0} is an account of the system itself, which bastio never touches")]
    System(Username),
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
}

impl<A: Accounts> Processor<A> {
    /// A processor that changes these accounts, and lets in only keys that the policy allows.
    pub fn new(accounts: A, key_policy: KeyPolicy) -> Self {
        Self { accounts, key_policy, removal: Removal::default() }
    }

    /// The same with another rule for the homes of removed accounts, where an action says none.
    #[must_use]
    pub fn removing(self, removal: Removal) -> Self {
        Self { removal, ..self }
    }

    /// Carries out one action and answers it.
    pub fn process(&mut self, message: &ActionMessage) -> FeedbackMessage {
        let name = &message.username;
        let answer = self.look_up(name).and_then(|account| match (&message.action, account) {
            (Action::AddUser { sudo }, None) => self.create(name, *sudo),
            (Action::AddUser { sudo }, Some(account)) => self.bring_in_line(&account, *sudo),
            (Action::RemoveUser { .. }, None) => {
                Ok(Answer::unchanged(format!("{name} does not exist")))
            }
            (Action::RemoveUser { removal }, Some(account)) => {
                self.remove(&account, removal.unwrap_or(self.removal))
            }
            (
                Action::SetUser { .. }
                | Action::LockUser
                | Action::UnlockUser
                | Action::EndSessions,
                _,
            ) => Err(Failure::Unknown),
            (_, None) => Err(Failure::Absent(name.clone())),
            (Action::UpdateUser { sudo }, Some(account)) => self.update(&account, *sudo),
            (Action::AddKey { public_key }, Some(account)) => self.add_key(&account, public_key),
            (Action::RemoveKey { public_key }, Some(account)) => {
                self.remove_key(&account, public_key)
            }
        });
        let answer = answer
            .unwrap_or_else(|failure| Answer { status: Status::Failed, text: failure.to_string() });
        log(message, &answer);
        message.reply(answer.status, answer.text)
    }

    /// The account, if it may be touched; `None` if there is none.
    fn look_up(&self, name: &Username) -> Result<Option<Account>, Failure> {
        match self.accounts.find(name)? {
            Some(account) if account.is_system => Err(Failure::System(name.clone())),
            Some(account) if !account.is_managed => Err(Failure::NotManaged(name.clone())),
            account => Ok(account),
        }
    }

    fn create(&self, name: &Username, sudo: bool) -> Result<Answer, Failure> {
        if sudo && !self.accounts.can_give_sudo()? {
            return Err(Failure::NoSudoGroup);
        }
        if let Some(left_over) = self.accounts.left_over_home(name)? {
            return Err(Failure::LeftOverHome(left_over));
        }
        if self.accounts.group_exists(name)? {
            return Err(Failure::GroupExists(name.clone()));
        }
        self.accounts.create(name, sudo)?;
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
        let keys_note = self.accounts.close_access(account)?;
        let ended = self.accounts.end_processes(account);
        let removed = ended.and_then(|()| self.accounts.delete(account, removal));
        match removed {
            Err(cause) => Err(Failure::NotRemoved { name, cause }),
            Ok(fate) if fate.is_there() => {
                let keys = keys_note.map(|note| format!("; {note}")).unwrap_or_default();
                Ok(Answer::done(format!("{name} was removed successfully; {fate}{keys}")))
            }
            Ok(HomeFate::Quarantined(home)) => {
                let fate = HomeFate::Quarantined(home);
                Ok(Answer::done(format!("{name} was removed successfully; {fate}")))
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
                Answer::unchanged(format!("public key `{key}` for {name} already exists"))
            }
        })
    }

    fn remove_key(&self, account: &Account, key: &PublicKey) -> Result<Answer, Failure> {
        let name = &account.name;
        Ok(match self.accounts.remove_key(account, key)? {
            Change::Changed => Answer::done(format!("removed public key from {name} successfully")),
            Change::Unchanged => Answer::unchanged(format!("public key for {name} does not exist")),
        })
    }
}

/// The one line that each action logs. A key appears as its fingerprint.
fn log(message: &ActionMessage, answer: &Answer) {
    let key = match &message.action {
        Action::AddKey { public_key } | Action::RemoveKey { public_key } => {
            Some(public_key.fingerprint())
        }
        _ => None,
    };
    let (mid, action, user) = (message.mid.text(), message.action.name(), &message.username);
    let (status, key) = (answer.status.code(), key.as_deref());
    if answer.status.is_success() {
        tracing::info!(mid, action, %user, status, key, "action done");
    } else {
        tracing::warn!(mid, action, %user, status, key, why = answer.text, "action failed");
    }
}

#[cfg(test)]
mod tests;
