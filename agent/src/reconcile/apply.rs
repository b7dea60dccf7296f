//! Takes the steps of a plan. A step that fails ends what would be given to its account; what only
//! takes is taken all the same, and the other accounts go on.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::{Detail, FailureNote, Username};

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
}

/// Takes the steps, one account after another. `beat` is called after each of them: proof that it
/// goes on.
pub fn apply(plan: &Plan, host: &impl Host, beat: &mut dyn FnMut()) -> Applied {
    let mut applied = Applied::default();
    applied.detail.failures.clone_from(&plan.refusals);
    applied.detail.warnings.clone_from(&plan.warnings);
    let mut has_admin = false;
    for account in &plan.accounts {
        if account.waits_for_admin && !has_admin {
            let text = "keeps its rights: nobody else has sudo rights and a key yet";
            applied.fail(&account.name, text.to_owned());
            continue;
        }
        if take(account, host, &mut applied) {
            has_admin |= account.becomes_admin;
        }
        beat();
    }
    applied
}

/// Takes the steps of one account; whether all went well.
fn take(account: &AccountPlan, host: &impl Host, applied: &mut Applied) -> bool {
    let name = &account.name;
    let mut is_well = true;
    for step in &account.steps {
        if !is_well && !step.only_takes() {
            continue;
        }
        match take_step(name, step, host) {
            Ok(fate) => {
                applied.detail.changes.extend(note::of(name, step));
                if let Some(fate) = fate {
                    applied.remember(name, fate);
                }
            }
            Err(error) => {
                applied.fail(name, error.to_string());
                is_well = false;
                if matches!(step, Step::Create(_) | Step::TakeOver) {
                    // There is nothing of ours to take from.
                    break;
                }
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
