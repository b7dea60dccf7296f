//! Takes the steps of a plan. A step that fails ends what would be given to its account; what only
//! takes is taken all the same, and the other accounts go on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bastio_protocol::{Detail, FailureNote, Username};

use super::aside::Aside;
use super::host::Host;
use super::note;
use super::plan::{AccountPlan, Plan, Step};
use crate::accounts::{AccountsError, HomeFate};

/// What became of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// What was changed, and what was not.
    pub detail: Detail,
    /// The accounts of which a step failed.
    pub failed: BTreeSet<Username>,
    /// What became of the homes of the accounts that were removed.
    pub homes: BTreeMap<Username, HomeFate>,
    /// Whether it was stopped with accounts left.
    pub is_stopped: bool,
}

/// What is called after each account: proof that it goes on. Whether it shall.
pub type Beat<'a> = dyn FnMut() -> ControlFlow<()> + 'a;

/// Takes the steps, one account after another; only the key file of a new account is written while the next account is
/// made. `beat` is called after each of them, and may end it there.
pub fn apply(plan: &Plan, host: &impl Host, beat: &mut Beat<'_>) -> Applied {
    let mut applied = Applied::default();
    applied.detail.failures.clone_from(&plan.refusals);
    applied.detail.warnings.clone_from(&plan.warnings);
    let parts = std::thread::scope(|scope| {
        let is_worth_it = plan.accounts.iter().filter_map(made_with_keys).nth(1).is_some();
        let aside = is_worth_it.then(|| Aside::start(scope)).flatten();
        let mut parts = take_all(plan, host, aside.as_ref(), beat);
        for (index, result) in aside.into_iter().flat_map(Aside::finish) {
            let account = plan.accounts.get(index).and_then(made_with_keys);
            if let (Some((name, _, step)), Some(part)) = (account, parts.get_mut(index)) {
                part.note(name, step, result.map(|()| None));
            }
        }
        parts
    });
    applied.is_stopped = parts.len() < plan.accounts.len();
    parts.into_iter().for_each(|part| applied.add(part));
    applied
}

/// What became of each account, up to where it was stopped; the key files that are written aside are missing in it.
fn take_all(
    plan: &Plan,
    host: &impl Host,
    aside: Option<&Aside<'_>>,
    beat: &mut Beat<'_>,
) -> Vec<Applied> {
    let mut has_admin = false;
    let mut take_one = |index: usize, account: &AccountPlan| {
        let mut part = Applied::default();
        if account.waits_for_admin && !has_admin {
            let text = "keeps its rights: nobody else has sudo rights and a key yet";
            part.fail(&account.name, text.to_owned());
            return part;
        }
        match (aside, made_with_keys(account)) {
            (Some(aside), Some(made)) => make(index, made, host, aside, &mut part),
            _ if take(account, host, &mut part) => has_admin |= account.becomes_admin,
            _ => {}
        }
        part
    };
    let mut parts = Vec::new();
    for (index, account) in plan.accounts.iter().enumerate() {
        parts.push(take_one(index, account));
        if beat().is_break() {
            break;
        }
    }
    parts
}

/// Of an account that is made and gets its keys, and nothing behind them: its name and both steps. Not of an admin whom
/// another waits for.
fn made_with_keys(account: &AccountPlan) -> Option<(&Username, &Step, &Step)> {
    match account.steps.as_slice() {
        [made @ Step::Create(_), keys @ Step::SetKeys(_)] if !account.becomes_admin => {
            Some((&account.name, made, keys))
        }
        _ => None,
    }
}

/// Makes an account, and has its keys written aside.
fn make(
    index: usize,
    (name, made, keys): (&Username, &Step, &Step),
    host: &impl Host,
    aside: &Aside<'_>,
    part: &mut Applied,
) {
    let Step::SetKeys(wanted) = keys else { return };
    if part.note(name, made, take_step(name, made, host)) {
        match host.first_keys(name, &wanted.keys, &wanted.removed) {
            Ok(work) => aside.hand_over(index, work),
            Err(error) => part.fail(name, error.to_string()),
        }
    }
}

/// Takes the steps of one account; whether all went well.
fn take(account: &AccountPlan, host: &impl Host, applied: &mut Applied) -> bool {
    let name = &account.name;
    let mut is_well = true;
    for step in &account.steps {
        if !is_well && !step.only_takes() {
            continue;
        }
        if !applied.note(name, step, take_step(name, step, host)) {
            is_well = false;
            if matches!(step, Step::Create(_) | Step::TakeOver) {
                // There is nothing of ours to take from.
                break;
            }
        }
    }
    is_well
}

fn take_step(
    name: &Username,
    step: &Step,
    host: &impl Host,
) -> Result<Option<HomeFate>, AccountsError> {
    match step {
        Step::Create(new) => host.create(name, new)?,
        Step::TakeOver => host.take_over(name)?,
        Step::Modify(change) => host.modify(name, change)?,
        Step::Lock => host.lock(name)?,
        Step::Unlock { expires } => host.unlock(name, *expires)?,
        Step::SetKeys(step) => drop(host.set_keys(name, &step.keys, &step.removed)?),
        Step::SetSudo { sudo, until, .. } => drop(host.set_sudo(name, sudo, *until)?),
        Step::EndSessions => drop(host.end_sessions(name)?),
        Step::Remove(removal) => return host.remove(name, *removal).map(Some),
    }
    Ok(None)
}

impl Applied {
    /// What became of a step; whether it went well.
    fn note(
        &mut self,
        name: &Username,
        step: &Step,
        result: Result<Option<HomeFate>, AccountsError>,
    ) -> bool {
        match result {
            Ok(fate) => {
                self.detail.changes.extend(note::of(name, step));
                if let Some(fate) = fate {
                    self.remember(name, fate);
                }
                true
            }
            Err(error) => {
                self.fail(name, error.to_string());
                false
            }
        }
    }

    fn add(&mut self, part: Self) {
        self.detail.changes.extend(part.detail.changes);
        self.detail.warnings.extend(part.detail.warnings);
        self.detail.failures.extend(part.detail.failures);
        self.failed.extend(part.failed);
        self.homes.extend(part.homes);
    }

    fn fail(&mut self, name: &Username, text: String) {
        self.detail.failures.push(FailureNote { username: Some(name.clone()), text });
        self.failed.insert(name.clone());
    }

    fn remember(&mut self, name: &Username, fate: HomeFate) {
        if let HomeFate::Left(_) = &fate {
            self.detail.warnings.push(format!("{name}: {fate}"));
        }
        self.homes.insert(name.clone(), fate);
    }
}
