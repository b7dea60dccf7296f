//! The way from what is there to what is wanted, as values: steps, account by account, in the order
//! in which they are taken.

use std::collections::BTreeSet;

use bastio_protocol::{
    ChangeNote, Detail, FailureNote, KeyGrant, PublicKey, Removal, Sudo, Username,
};

use super::aim::GivenBack;
use super::host::{AccountChange, AccountFacts, NewAccount, SudoState};
use super::note;
use crate::accounts::is_login_shell;

/// What is to be done, and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The accounts that change, in order.
    pub accounts: Vec<AccountPlan>,
    /// What is left as it is, and why.
    pub refusals: Vec<FailureNote>,
    /// What people should know.
    pub warnings: Vec<String>,
    /// The accounts that are not touched at all, whatever was wanted of them.
    pub refused: BTreeSet<Username>,
    /// Whether nothing at all is done, because nobody would be left who can.
    pub is_refused: bool,
}

/// The steps of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountPlan {
    /// The account.
    pub name: Username,
    /// In order; never empty.
    pub steps: Vec<Step>,
    /// Whether it has sudo rights and a key once all is done.
    pub becomes_admin: bool,
    /// Whether it is the last one that has rights, and must keep them until another has some.
    pub waits_for_admin: bool,
}

/// One verb of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the account.
    Create(Box<NewAccount>),
    /// Mark it as managed.
    TakeOver,
    /// It is managed no more, and has what it had of its own.
    GiveBack(GivenBack),
    /// Change fields.
    Modify(Box<AccountChange>),
    /// Let nobody in.
    Lock,
    /// Let people in again.
    Unlock {
        /// When the account database has it end.
        expires: Option<i64>,
    },
    /// Make the keys exactly these.
    SetKeys(Box<KeyStep>),
    /// Give these rights and no others.
    SetSudo {
        /// As it is wanted.
        sudo: Sudo,
        /// Until when.
        until: Option<i64>,
        /// What it leads to.
        state: SudoState,
    },
    /// End what runs.
    EndSessions,
    /// Remove the account.
    Remove(Removal),
}

/// A change of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyStep {
    /// All keys of bastio's from now on.
    pub keys: Vec<KeyGrant>,
    /// Those among them that are new.
    pub added: Vec<KeyGrant>,
    /// Those among them whose line changes.
    pub changed: Vec<KeyGrant>,
    /// Those that log in no more.
    pub removed: Vec<PublicKey>,
    /// The lines of bastio's that are there and not removed, as they stand.
    pub kept: Vec<KeyGrant>,
}

impl Plan {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Every change, in order.
    #[must_use]
    pub fn notes(&self) -> Vec<ChangeNote> {
        let notes = |account: &AccountPlan| {
            let name = account.name.clone();
            account.steps.clone().into_iter().flat_map(move |step| note::of(&name, &step))
        };
        self.accounts.iter().flat_map(notes).collect()
    }

    /// What a dry run answers.
    #[must_use]
    pub fn detail(&self) -> Detail {
        Detail {
            changes: self.notes(),
            warnings: self.warnings.clone(),
            failures: self.refusals.clone(),
            report: None,
        }
    }

    /// The part of it that closes access: for when nothing else may be done.
    #[must_use]
    pub fn closing(self) -> Self {
        let closing = |mut account: AccountPlan| {
            account.steps = account.steps.into_iter().filter_map(Step::closing).collect();
            account.becomes_admin = false;
            (!account.steps.is_empty()).then_some(account)
        };
        Self { accounts: self.accounts.into_iter().filter_map(closing).collect(), ..self }
    }

    /// All of it but what lets in again where an administrator of the host shut the account (`facts`) by hand: for when
    /// nobody asked for that. And whether there was something of that kind.
    #[must_use]
    pub fn leaving_shut(mut self, facts: &AccountFacts) -> (Self, bool) {
        let before = self.accounts.clone();
        let accounts = self.accounts.into_iter().filter_map(|mut account| {
            let of_it = account.name == facts.account.name;
            let left = account.steps.into_iter();
            let leaving = |step: Step| if of_it { step.leaving_shut(facts) } else { Some(step) };
            account.steps = left.filter_map(leaving).collect();
            (!account.steps.is_empty()).then_some(account)
        });
        self.accounts = accounts.collect();
        let is_shut = self.accounts != before;
        (self, is_shut)
    }
}

impl AccountPlan {
    /// Whether the account only loses.
    #[must_use]
    pub fn only_takes(&self) -> bool {
        self.steps.iter().all(Step::only_takes)
    }
}

impl Step {
    /// Whether it gives nothing to anybody.
    #[must_use]
    pub fn only_takes(&self) -> bool {
        match self {
            Self::Create(_)
            | Self::TakeOver
            | Self::GiveBack(_)
            | Self::Modify(_)
            | Self::Unlock { .. } => false,
            Self::Lock | Self::EndSessions | Self::Remove(_) => true,
            Self::SetKeys(keys) => keys.added.is_empty() && keys.changed.is_empty(),
            Self::SetSudo { state, .. } => state.is_none(),
        }
    }

    /// What of it does not let in where somebody shut the account.
    fn leaving_shut(self, facts: &AccountFacts) -> Option<Self> {
        match self {
            Self::Unlock { .. } => None,
            Self::Modify(mut change) => {
                let later = |wanted: &Option<i64>| {
                    facts.expires.is_some_and(|found| wanted.is_none_or(|wanted| wanted > found))
                };
                change.expires = change.expires.filter(|wanted| !later(wanted));
                change.shell = change.shell.filter(|_| is_login_shell(&facts.shell));
                (!change.is_empty()).then_some(Self::Modify(change))
            }
            step => Some(step),
        }
    }

    /// What it takes, if anything.
    pub(super) fn closing(self) -> Option<Self> {
        match self {
            Self::SetKeys(step) if !step.removed.is_empty() => {
                let KeyStep { removed, kept, .. } = *step;
                let step = KeyStep { keys: kept.clone(), removed, kept, ..KeyStep::default() };
                Some(Self::SetKeys(Box::new(step)))
            }
            step => step.only_takes().then_some(step),
        }
    }
}
