//! The plan of everything that was asked for: each account's, the order among them, and the rule
//! that the last admin stays.
//!
//! Order: accounts that only lose come first, since a revocation is urgent; then the others. An
//! admin (sudo rights to everything and a key, not locked, not ended) who stops being one comes last, behind
//! those who become one, unless another is one all the while. Pure.

use std::collections::BTreeMap;

use bastio_protocol::{FailureNote, PublicKey, Removal, Username};

use super::aim::{Aim, Aims, Rules};
use super::host::{AccountState, FoundKeys};
use super::observe::{Observed, Seen};
use super::one::{Outcome, Planner};
use super::plan::{AccountPlan, Plan, Step};
use super::refusal::Refusal;

/// Who can administer the host, before and after.
#[derive(Debug, Clone, Copy)]
struct Admin {
    before: bool,
    after: bool,
}

/// The way from what was observed to what is wanted.
#[must_use]
pub fn plan(aims: &Aims, observed: &Observed, rules: &Rules) -> Plan {
    let mut plan = Plan::default();
    let mut admins = BTreeMap::new();
    for (name, seen) in &observed.accounts {
        let outcome = match seen {
            Err(why) => refused(name, why.clone()),
            Ok(seen) => of_account(name, seen, aims, rules),
        };
        if let Ok(seen) = seen {
            admins.insert(name, admin(name, seen, aims, &outcome, rules));
        }
        if outcome.is_refused {
            plan.refused.insert(name.clone());
        }
        plan.refusals.extend(outcome.refusals);
        plan.warnings.extend(outcome.warnings);
        if !outcome.steps.is_empty() {
            plan.accounts.push(AccountPlan {
                name: name.clone(),
                steps: outcome.steps,
                becomes_admin: false,
                waits_for_admin: false,
            });
        }
    }
    let is_lost = admins.values().any(|it| it.before) && !admins.values().any(|it| it.after);
    if is_lost && !aims.allow_no_admin {
        let refusal = FailureNote { username: None, text: Refusal::NoAdmin.to_string() };
        plan.refusals.insert(0, refusal);
        plan.accounts.clear();
        plan.is_refused = true;
        return plan;
    }
    put_in_order(&mut plan.accounts, &admins, aims.allow_no_admin);
    plan
}

fn put_in_order(
    accounts: &mut [AccountPlan],
    admins: &BTreeMap<&Username, Admin>,
    allow_no_admin: bool,
) {
    let someone_stays = admins.values().any(|it| it.before && it.after);
    for account in &mut *accounts {
        let admin = admins.get(&account.name);
        account.becomes_admin = admin.is_some_and(|it| !it.before && it.after);
        account.waits_for_admin =
            !allow_no_admin && !someone_stays && admin.is_some_and(|it| it.before && !it.after);
    }
    // Stable: by name within each.
    accounts.sort_by_key(|account| (account.waits_for_admin, !account.only_takes()));
}

fn of_account(name: &Username, seen: &Seen, aims: &Aims, rules: &Rules) -> Outcome {
    match (aims.accounts.get(name), &seen.state, aims.removal) {
        (Some(aim), _, _) => Planner { name, aim, aims, rules }.plan(seen),
        (None, Some(state), Some(removal)) => {
            unwanted(name, state, seen.around.is_running, removal, rules)
        }
        (None, _, _) => Outcome::default(),
    }
}

/// An account that is managed, or never locked out, and not wanted.
fn unwanted(
    name: &Username,
    state: &AccountState,
    is_running: bool,
    removal: Removal,
    rules: &Rules,
) -> Outcome {
    let account = &state.facts.account;
    if !account.is_managed {
        return Outcome::default();
    }
    if rules.break_glass.as_ref() == Some(name) {
        return refused(name, Refusal::BreakGlass(name.clone()).to_string());
    }
    if account.is_system {
        return refused(name, Refusal::System(name.clone()).to_string());
    }
    let is_bare = state.facts.locked
        && !is_running
        && state.sudo.is_none()
        && state.facts.groups.is_empty()
        && state.keys.as_ref().is_ok_and(|keys| keys.ours.is_empty());
    if removal == Removal::Lock && is_bare {
        return Outcome::default();
    }
    Outcome { steps: vec![Step::Remove(removal)], ..Outcome::default() }
}

fn refused(name: &Username, text: String) -> Outcome {
    let refusals = vec![FailureNote { username: Some(name.clone()), text }];
    Outcome { refusals, is_refused: true, ..Outcome::default() }
}

fn admin(name: &Username, seen: &Seen, aims: &Aims, outcome: &Outcome, rules: &Rules) -> Admin {
    let before = seen.state.as_ref().is_some_and(|state| is_admin(state, rules));
    let after = match aims.accounts.get(name) {
        _ if outcome.is_refused => before,
        Some(_) if outcome.is_closing && !before => false,
        Some(aim) => will_be_admin(aim, seen, outcome),
        None => before && outcome.steps.is_empty(),
    };
    Admin { before, after }
}

fn is_admin(state: &AccountState, rules: &Rules) -> bool {
    let over = |until: Option<i64>| until.is_some_and(|until| until <= rules.now);
    let has_key = |keys: &FoundKeys| {
        !keys.foreign.is_empty() || keys.ours.iter().any(|grant| !over(grant.until))
    };
    let facts = &state.facts;
    let counts =
        facts.account.is_managed || rules.break_glass.as_ref() == Some(&facts.account.name);
    counts
        && !facts.locked
        && !over(facts.expires)
        && state.sudo.is_admins()
        && state.keys.as_ref().is_ok_and(has_key)
}

fn will_be_admin(aim: &Aim, seen: &Seen, outcome: &Outcome) -> bool {
    let found = match seen.state.as_ref().map(|state| &state.keys) {
        Some(Ok(found)) => found,
        Some(Err(_)) => return false,
        None => &FoundKeys::default(),
    };
    let is_ours = |key: &PublicKey| found.ours.iter().any(|grant| grant.public_key == *key);
    let adds = |key: &PublicKey| !outcome.is_closing && !aim.weak.contains_key(key);
    let lets_in = |key: &PublicKey| adds(key) || is_ours(key);
    // Lines of others stay, save those of keys that were ours.
    let has_key = aim.keys.keys().any(lets_in) || found.foreign.iter().any(|key| !is_ours(key));
    let had_sudo = seen.state.as_ref().is_some_and(|state| state.sudo.is_admins());
    let sudo = match &seen.around.sudo {
        Ok(state) if outcome.is_closing => had_sudo && !state.is_none(),
        Ok(state) => state.is_admins(),
        Err(_) => had_sudo,
    };
    let exists = seen.state.is_some() || !outcome.steps.is_empty();
    exists && !aim.locked && has_key && sudo
}
