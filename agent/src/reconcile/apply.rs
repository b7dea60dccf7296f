//! Takes the steps of a plan. A step that fails ends what would be given to its account; what only
//! takes is taken all the same, and the other accounts go on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bastio_protocol::{Detail, FailureNote, Username};

use super::aside::Aside;
use super::host::{Asked, Host, NewAccount};
use super::note;
use super::plan::{AccountPlan, KeyStep, Plan, Step};
use crate::accounts::{Account, AccountsError, HomeFate};

/// What became of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// What was changed, and what was not.
    pub detail: Detail,
    /// The accounts of which a step failed.
    pub failed: BTreeSet<Username>,
    /// What became of the homes of the accounts that were removed.
    pub homes: BTreeMap<Username, HomeFate>,
    /// The accounts that were made, and their numeric ids.
    pub made: BTreeMap<Username, u32>,
    /// Whether it was stopped with accounts left.
    pub is_stopped: bool,
}

/// What is called after each account: proof that it goes on. Whether it shall.
pub type Beat<'a> = dyn FnMut() -> ControlFlow<()> + 'a;

/// Takes the steps, one account after another; only a row of new accounts is made as the host makes it best, and the key
/// files of such a row are written meanwhile. `beat` is called after each account, and may end it there.
pub fn apply(plan: &Plan, host: &impl Host, beat: &mut Beat<'_>) -> Applied {
    let mut applied = Applied::default();
    applied.detail.failures.clone_from(&plan.refusals);
    applied.detail.warnings.clone_from(&plan.warnings);
    let parts = std::thread::scope(|scope| {
        let is_worth_it = plan.accounts.iter().filter_map(NewOne::of).nth(1).is_some();
        let aside = is_worth_it.then(|| Aside::start(scope)).flatten();
        let mut parts = take_all(plan, host, aside.as_ref(), beat);
        for (index, result) in aside.into_iter().flat_map(Aside::finish) {
            let account = plan.accounts.get(index).and_then(NewOne::of);
            if let (Some(it), Some(part)) = (account, parts.get_mut(index)) {
                part.note(it.name, it.keys_step, result.map(|()| Done::Step));
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
    let is_new = |account: &AccountPlan| aside.is_some() && NewOne::of(account).is_some();
    let (mut parts, mut has_admin) = (Vec::new(), false);
    for row in plan.accounts.chunk_by(|one, next| is_new(one) && is_new(next)) {
        let flow = match aside.filter(|_| row.first().is_some_and(is_new)) {
            Some(aside) => make_row(row, host, aside, &mut parts, beat),
            None => row.iter().try_for_each(|account| {
                parts.push(take_one(account, host, &mut has_admin));
                beat()
            }),
        };
        if flow.is_break() {
            break;
        }
    }
    parts
}

fn take_one(account: &AccountPlan, host: &impl Host, has_admin: &mut bool) -> Applied {
    let mut part = Applied::default();
    if account.waits_for_admin && !*has_admin {
        let text = "keeps its rights: nobody else has sudo rights and a key yet";
        part.fail(&account.name, text.to_owned());
    } else if take(account, host, &mut part) {
        *has_admin |= account.becomes_admin;
    }
    part
}

/// An account that is made and gets its keys, and nothing behind them; not an admin whom another waits for.
struct NewOne<'a> {
    name: &'a Username,
    new: &'a NewAccount,
    made_step: &'a Step,
    keys: &'a KeyStep,
    keys_step: &'a Step,
}

impl<'a> NewOne<'a> {
    fn of(account: &'a AccountPlan) -> Option<Self> {
        match account.steps.as_slice() {
            [made_step @ Step::Create(new), keys_step @ Step::SetKeys(keys)]
                if !account.becomes_admin =>
            {
                Some(Self { name: &account.name, new, made_step, keys, keys_step })
            }
            _ => None,
        }
    }
}

/// Makes new accounts, and has the keys of each written aside.
fn make_row(
    row: &[AccountPlan],
    host: &impl Host,
    aside: &Aside<'_>,
    parts: &mut Vec<Applied>,
    beat: &mut Beat<'_>,
) -> ControlFlow<()> {
    let row: Vec<NewOne<'_>> = row.iter().filter_map(NewOne::of).collect();
    let asked: Vec<Asked<'_>> = row.iter().map(|it| (it.name, it.new)).collect();
    let (mut waiting, mut flow) = (row.iter(), ControlFlow::Continue(()));
    host.create_row(&asked, &mut |result| {
        let Some(it) = waiting.next() else { return ControlFlow::Break(()) };
        let mut part = Applied::default();
        let keys = result.as_ref().ok().map(|account| {
            let work = host.first_keys(account, &it.keys.keys, &it.keys.removed);
            work.map(|work| aside.hand_over(parts.len(), work))
        });
        part.note(it.name, it.made_step, result.map(Done::Made));
        if let Some(Err(error)) = keys {
            part.fail(it.name, error.to_string());
        }
        parts.push(part);
        flow = beat();
        flow
    });
    flow
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

/// What came of a step.
enum Done {
    /// What it says.
    Step,
    /// This account.
    Made(Account),
    /// An account went, and this became of its home.
    Removed(HomeFate),
}

fn take_step(name: &Username, step: &Step, host: &impl Host) -> Result<Done, AccountsError> {
    match step {
        Step::Create(new) => return host.create(name, new).map(Done::Made),
        Step::TakeOver => host.take_over(name)?,
        Step::GiveBack(what) => {
            host.put_back(name, &what.key_lines)?;
            host.give_back(name, what.sudo_group)?;
        }
        Step::Modify(change) => host.modify(name, change)?,
        Step::Lock => host.lock(name)?,
        Step::Unlock { expires } => host.unlock(name, *expires)?,
        Step::SetKeys(step) => drop(host.set_keys(name, &step.keys, &step.removed)?),
        Step::SetSudo { sudo, until, .. } => drop(host.set_sudo(name, sudo, *until)?),
        Step::EndSessions => drop(host.end_sessions(name)?),
        Step::Remove(removal) => return host.remove(name, *removal).map(Done::Removed),
    }
    Ok(Done::Step)
}

impl Applied {
    /// What became of a step; whether it went well.
    fn note(&mut self, name: &Username, step: &Step, result: Result<Done, AccountsError>) -> bool {
        match result {
            Ok(done) => {
                self.detail.changes.extend(note::of(name, step));
                match done {
                    Done::Step => {}
                    Done::Made(account) => {
                        self.made.insert(name.clone(), account.owner.uid.as_raw());
                    }
                    Done::Removed(fate) => self.remember(name, fate),
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
        self.made.extend(part.made);
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
