//! What is there: everything that a plan looks at, asked of the host once. Changes nothing.
//!
//! What cannot be looked up about one account is that account's failure, never "there is none".

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::{GroupName, Username};

use super::aim::{Aim, Aims, Rules};
use super::host::{AccountFacts, AccountState, FoundHome, Host, SudoState};
use crate::accounts::AccountsError;

/// What was found on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every account that is wanted, managed, or never locked out; or why it cannot be looked up.
    pub accounts: BTreeMap<Username, Result<Seen, String>>,
}

/// What was found of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The account, if there is one.
    pub state: Option<AccountState>,
    /// What matters for making or changing it.
    pub around: Around,
}

/// What matters for making or changing an account that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around {
    /// What the wanted rights lead to on this host, or why they cannot be given.
    pub sudo: Result<SudoState, String>,
    /// Wanted groups that the host has not.
    pub missing_groups: BTreeSet<GroupName>,
    /// Whether a group has the account's name (looked up for new accounts).
    pub own_group: bool,
    /// Who has the numeric id of a new account.
    pub uid_holder: Option<String>,
    /// What stands where the home of a new account would be.
    pub home: Option<FoundHome>,
    /// Whether the host lacks the wanted shell.
    pub no_shell: bool,
    /// Whether something runs as an account that lets nobody in and is over, or not wanted: what was begun and not
    /// finished.
    pub is_running: bool,
}

impl Default for Around {
    fn default() -> Self {
        Self {
            sudo: Ok(SudoState::None),
            missing_groups: BTreeSet::new(),
            own_group: false,
            uid_holder: None,
            home: None,
            no_shell: false,
            is_running: false,
        }
    }
}

/// Looks at everything that the aims are about.
///
/// # Errors
/// [`AccountsError`] when nobody knows which accounts are managed.
pub fn observe(host: &impl Host, aims: &Aims, rules: &Rules) -> Result<Observed, AccountsError> {
    let mut names: BTreeSet<Username> = aims.accounts.keys().cloned().collect();
    if aims.removal.is_some() {
        names.extend(host.managed()?);
        names.extend(rules.break_glass.clone());
    }
    let look = |name: Username| {
        let seen = see(host, &name, aims).map_err(|error| error.to_string());
        (name, seen)
    };
    Ok(Observed { accounts: names.into_iter().map(look).collect() })
}

fn see(host: &impl Host, name: &Username, aims: &Aims) -> Result<Seen, AccountsError> {
    let state = host.state(name)?;
    let around = match aims.accounts.get(name) {
        None => Around { is_running: runs_on(host, name, state.as_ref())?, ..Around::default() },
        Some(aim) => look_around(host, name, aim, state.as_ref(), aims)?,
    };
    Ok(Seen { state, around })
}

fn look_around(
    host: &impl Host,
    name: &Username,
    aim: &Aim,
    state: Option<&AccountState>,
    aims: &Aims,
) -> Result<Around, AccountsError> {
    let spec = &aim.spec;
    let mut around = Around {
        sudo: host
            .intended_sudo(name, &aim.sudo, aim.sudo_until)
            .map_err(|error| error.to_string()),
        ..Around::default()
    };
    for group in spec.group.iter().chain(spec.groups.iter().flatten()) {
        let known = state.is_some_and(|it| {
            it.facts.group == group.as_str() || it.facts.groups.contains(group.as_str())
        });
        if !known && !host.has_group(group.as_str())? {
            around.missing_groups.insert(group.clone());
        }
    }
    if let Some(shell) = &spec.shell
        && state.is_none_or(|it| it.facts.shell != shell.as_str())
    {
        around.no_shell = !host.has_program(shell)?;
    }
    if aim.ended {
        around.is_running = runs_on(host, name, state)?;
    }
    if state.is_none() {
        around.own_group = spec.group.is_none() && host.has_group(name.as_str())?;
        around.home = host.found_home(name, spec.home.as_ref())?;
        if let Some(uid) = spec.uid.or_else(|| aims.reserved.get(name).copied()) {
            around.uid_holder = host.holder_of_uid(uid)?;
        }
    }
    Ok(around)
}

/// Whether something runs as an account of ours that is locked.
fn runs_on(
    host: &impl Host,
    name: &Username,
    state: Option<&AccountState>,
) -> Result<bool, AccountsError> {
    let is_ours = |facts: &AccountFacts| facts.account.is_managed && !facts.account.is_system;
    match state.map(|state| &state.facts) {
        Some(facts) if facts.locked && is_ours(facts) => host.is_running(name),
        _ => Ok(false),
    }
}
