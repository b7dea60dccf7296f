//! The plan of one account. Pure; this file must not know the other accounts, save whose numeric
//! ids are reserved.
//!
//! | the account | |
//! |---|---|
//! | absent, wanted | made with everything but keys and rules, then these; nothing once its end has come |
//! | somebody else's | refused, or taken over where that is asked for |
//! | the system's | refused |
//! | ours, with another uid than wanted, or with fields that this host cannot have | only taken from |
//! | ours, and to be given back | as it was, then unmarked |
//! | never locked out, and to be locked or to end | refused |
//! | ours | locked first where it must be; given, then taken; unlocked last |

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::{FailureNote, GroupName, KeyGrant, PublicKey, Username, is_root_equivalent};

use super::aim::{Aim, Aims, Rules};
use super::host::{AccountChange, AccountFacts, AccountState, FoundKeys, NewAccount, SudoState};
use super::observe::{Around, Seen};
use super::plan::{KeyStep, Step};
use super::refusal::Refusal;
use crate::accounts::is_own_group;

/// What is to be done about one account.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) steps: Vec<Step>,
    pub(super) refusals: Vec<FailureNote>,
    pub(super) warnings: Vec<String>,
    /// Whether nothing about it is touched.
    pub(super) is_refused: bool,
    /// Whether it is only taken from, because what it should be cannot be had here.
    pub(super) is_closing: bool,
}

/// The plan of an account that is wanted.
pub(super) struct Planner<'a> {
    pub(super) name: &'a Username,
    pub(super) aim: &'a Aim,
    pub(super) aims: &'a Aims,
    pub(super) rules: &'a Rules,
}

impl Planner<'_> {
    pub(super) fn plan(&self, seen: &Seen) -> Outcome {
        let mut outcome = Outcome { warnings: self.aim.warnings.clone(), ..Outcome::default() };
        let is_managed = seen.state.as_ref().is_some_and(|state| state.facts.account.is_managed);
        let steps = match &seen.state {
            // It is nobody's business any more.
            _ if self.aim.release.is_some() && !is_managed => Ok(Vec::new()),
            _ if self.would_lock_out() => Err(Refusal::BreakGlass(self.name.clone())),
            None if self.aim.ended => {
                let text = format!("{} was not created: its time is over", self.name);
                outcome.warnings.push(text);
                Ok(Vec::new())
            }
            None => self.create(&seen.around, &mut outcome),
            Some(state) => self.change(state, &seen.around, &mut outcome),
        };
        match steps {
            Ok(steps) => outcome.steps = steps,
            Err(refusal) => {
                let refusals = vec![self.note(refusal.to_string())];
                return Outcome { refusals, is_refused: true, ..Outcome::default() };
            }
        }
        outcome
    }

    /// Whether the account that is never locked out is to be locked, or to end, now or later.
    fn would_lock_out(&self) -> bool {
        self.rules.break_glass.as_ref() == Some(self.name)
            && (self.aim.locked || self.aim.expires.is_some())
    }

    fn note(&self, text: String) -> FailureNote {
        FailureNote { username: Some(self.name.clone()), text }
    }

    fn create(&self, around: &Around, outcome: &mut Outcome) -> Result<Vec<Step>, Refusal> {
        let (name, aim) = (self.name, self.aim);
        let uid = self.choose_uid(around)?;
        self.check_spec(around)?;
        if around.own_group {
            return Err(Refusal::GroupExists(name.clone()));
        }
        let keep_home = match &around.home {
            None => false,
            Some(home) if home.is_folder && Some(home.uid) == uid => true,
            Some(home) => {
                return Err(Refusal::LeftOverHome { path: home.path.clone(), uid: home.uid });
            }
        };
        let sudo = around.sudo.clone().map_err(Refusal::Sudo)?;
        let reserved = self.aims.reserved.iter().map(|(other, uid)| (other, Some(*uid)));
        let asked = self.aims.accounts.iter().map(|(other, aim)| (other, aim.spec.uid));
        let avoid = reserved.chain(asked).filter(|(other, _)| *other != name);
        let new = NewAccount {
            spec: aim.spec.clone(),
            sudo_group: sudo.has_group(),
            expires: aim.expires.filter(|_| !aim.locked),
            locked: aim.locked,
            uid,
            avoid: avoid.filter_map(|(_, uid)| uid).collect(),
            keep_home,
        };
        self.warn_of_root(aim.spec.groups.iter().flatten(), outcome);
        let mut steps = vec![Step::Create(Box::new(new))];
        // A home that is taken again may hold key files.
        let found = FoundKeys::default();
        steps.extend(self.keys(&found, outcome));
        if !matches!(sudo, SudoState::None | SudoState::Group) {
            steps.push(self.set_sudo(sudo));
        }
        Ok(steps)
    }

    fn change(
        &self,
        state: &AccountState,
        around: &Around,
        outcome: &mut Outcome,
    ) -> Result<Vec<Step>, Refusal> {
        let (name, aim, facts) = (self.name, self.aim, &state.facts);
        self.check_owned(facts)?;
        let unfit = self.check_uid_kept(facts).and_then(|()| self.check_spec(around)).err();
        let mut steps = Vec::new();
        if !facts.account.is_managed {
            if let Some(refusal) = unfit {
                return Err(refusal);
            }
            steps.push(Step::TakeOver);
            outcome.warnings.extend(foreign_keys(name, state));
            outcome.warnings.extend(kept_groups(name, aim, facts));
        }
        if aim.locked && !facts.locked {
            steps.push(Step::Lock);
        }
        let mut middle = Vec::new();
        middle.extend(self.modify(facts, outcome));
        match &state.keys {
            Ok(found) => middle.extend(self.keys(found, outcome)),
            // Nothing is wanted, and whatever is there lets nobody into a locked account.
            Err(_) if aim.keys.is_empty() && aim.locked && facts.locked => {}
            Err(why) => {
                outcome.refusals.push(self.note(Refusal::Keys(why.clone()).to_string()));
            }
        }
        match &around.sudo {
            Ok(wanted) if *wanted == state.sudo => {}
            Ok(wanted) => middle.push(self.set_sudo(wanted.clone())),
            Err(why) => {
                outcome.refusals.push(self.note(Refusal::Sudo(why.clone()).to_string()));
            }
        }
        middle.sort_by_key(Step::only_takes);
        steps.extend(middle);
        if aim.ended && (!facts.locked || around.is_running) {
            steps.push(Step::EndSessions);
        }
        if !aim.locked && (facts.locked || facts.barred) {
            steps.push(Step::Unlock { expires: aim.expires });
        }
        if let Some(release) = &aim.release {
            steps.push(Step::GiveBack(release.clone()));
        }
        if let Some(refusal) = unfit {
            // Nothing is given, and what is to be taken does not wait for it.
            outcome.refusals.push(self.note(refusal.to_string()));
            outcome.is_closing = true;
            steps = steps.into_iter().filter_map(Step::closing).collect();
        }
        Ok(steps)
    }

    /// Whether the account that is there may be touched.
    fn check_owned(&self, facts: &AccountFacts) -> Result<(), Refusal> {
        let (name, account) = (self.name, &facts.account);
        if account.is_system {
            return Err(Refusal::System(name.clone()));
        }
        if !account.is_managed && !self.aim.take_over {
            return Err(Refusal::NotManaged(name.clone()));
        }
        Ok(())
    }

    fn check_uid_kept(&self, facts: &AccountFacts) -> Result<(), Refusal> {
        let found = facts.account.owner.uid.as_raw();
        match self.aim.spec.uid {
            Some(wanted) if wanted != found => {
                Err(Refusal::OtherUid { name: self.name.clone(), found, wanted })
            }
            _ => Ok(()),
        }
    }

    /// The id asked for, or else the reserved one; none where the host is to choose, also since the reserved one
    /// became somebody else's.
    fn choose_uid(&self, around: &Around) -> Result<Option<u32>, Refusal> {
        if let Some(uid) = self.aim.spec.uid {
            return self.check_new_uid(uid, around).map(|()| Some(uid));
        }
        let reserved = self.aims.reserved.get(self.name).copied();
        Ok(reserved.filter(|uid| self.check_new_uid(*uid, around).is_ok()))
    }

    fn check_new_uid(&self, uid: u32, around: &Around) -> Result<(), Refusal> {
        // Of the system: nobody's, and the two that mean "no id" (systemd's UIDS-GIDS).
        if uid < self.rules.uid_min || matches!(uid, 65_534 | 65_535 | u32::MAX) {
            return Err(Refusal::SystemUid { uid, min: self.rules.uid_min });
        }
        if let Some(owner) = &around.uid_holder {
            return Err(Refusal::UidTaken { uid, owner: owner.clone() });
        }
        let others = self.aims.reserved.iter().filter(|(other, _)| *other != self.name);
        let asked = self.aims.accounts.iter().filter(|(other, _)| *other != self.name);
        let mut owners = others
            .map(|(other, uid)| (other, Some(*uid)))
            .chain(asked.map(|(other, aim)| (other, aim.spec.uid)));
        match owners.find(|(_, theirs)| *theirs == Some(uid)) {
            Some((owner, _)) => Err(Refusal::UidTaken { uid, owner: owner.to_string() }),
            None => Ok(()),
        }
    }

    /// Whether the host has what the fields name.
    fn check_spec(&self, around: &Around) -> Result<(), Refusal> {
        let spec = &self.aim.spec;
        let own = |group: &&GroupName| is_own_group(group.as_str());
        let mut named = spec.group.iter().chain(spec.groups.iter().flatten());
        if let Some(group) = named.find(own) {
            return Err(Refusal::OwnGroup(group.clone()));
        }
        if !around.missing_groups.is_empty() {
            return Err(Refusal::NoGroup(around.missing_groups.iter().cloned().collect()));
        }
        match &spec.shell {
            Some(shell) if around.no_shell => Err(Refusal::NoShell(shell.to_string())),
            _ => Ok(()),
        }
    }

    fn set_sudo(&self, state: SudoState) -> Step {
        Step::SetSudo { sudo: self.aim.sudo.clone(), until: self.aim.sudo_until, state }
    }

    fn modify(&self, facts: &AccountFacts, outcome: &mut Outcome) -> Option<Step> {
        let (spec, mut change) = (&self.aim.spec, AccountChange::default());
        change.group = spec.group.clone().filter(|group| group.as_str() != facts.group);
        change.shell = spec.shell.clone().filter(|shell| shell.as_str() != facts.shell);
        change.comment = spec.comment.clone().filter(|comment| comment.as_str() != facts.comment);
        if let Some(groups) = &spec.groups {
            let is_new = |group: &&GroupName| !facts.groups.contains(group.as_str());
            change.add_groups = groups.iter().filter(is_new).cloned().collect();
            let kept: BTreeSet<&str> = groups.iter().map(GroupName::as_str).collect();
            let gone = facts.groups.iter().filter(|group| !kept.contains(group.as_str()));
            change.drop_groups = gone.cloned().collect();
        }
        // The account database has one field for locks and ends; a lock comes first.
        if !self.aim.locked && !facts.locked && !facts.barred && facts.expires != self.aim.expires {
            change.expires = Some(self.aim.expires);
        }
        if let Some(home) = &spec.home
            && facts.account.home.as_os_str() != home.as_str()
        {
            let found = facts.account.home.display();
            outcome.warnings.push(format!("{} keeps its home {found}, not {home}", self.name));
        }
        self.warn_of_root(change.add_groups.iter().chain(&change.group), outcome);
        (!change.is_empty()).then(|| Step::Modify(Box::new(change)))
    }

    fn warn_of_root<'g>(&self, groups: impl Iterator<Item = &'g GroupName>, outcome: &mut Outcome) {
        let roots = groups.filter(|group| is_root_equivalent(group.as_str()));
        outcome.warnings.extend(roots.map(|group| {
            let name = self.name;
            format!("{name} joins {group}: its members can make themselves root")
        }));
    }

    /// What leads from the keys that are there to those that are wanted.
    fn keys(&self, found: &FoundKeys, outcome: &mut Outcome) -> Option<Step> {
        let ours: BTreeMap<&PublicKey, &KeyGrant> =
            found.ours.iter().map(|grant| (&grant.public_key, grant)).collect();
        let mut step = KeyStep::default();
        for (key, grant) in &self.aim.keys {
            match (ours.get(key), self.aim.weak.get(key)) {
                (None, Some(weak)) => {
                    outcome.refusals.push(weak.clone());
                    continue;
                }
                (Some(_), Some(weak)) => {
                    outcome.warnings.push(format!("{}: {}; it stays", self.name, weak.text));
                }
                (_, None) => {}
            }
            step.keys.push(grant.clone());
            let lines = found.ours.iter().filter(|line| line.public_key == *key).count();
            match ours.get(key) {
                None => step.added.push(grant.clone()),
                Some(line) if *line != grant || lines > 1 || found.foreign.contains(key) => {
                    step.changed.push(grant.clone());
                }
                Some(_) => {}
            }
        }
        for (key, grant) in ours {
            if self.aim.keys.contains_key(key) {
                step.kept.push(grant.clone());
            } else {
                step.removed.push(key.clone());
            }
        }
        // Of a line of others that lets it in, nobody would be told once it is not wanted.
        let others = self.aim.gone.iter().filter(|key| found.foreign.contains(key));
        for key in others {
            if !step.removed.contains(key) {
                step.removed.push(key.clone());
            }
        }
        let is_same = step.added.is_empty() && step.changed.is_empty() && step.removed.is_empty();
        (!is_same).then(|| Step::SetKeys(Box::new(step)))
    }
}

fn foreign_keys(name: &Username, state: &AccountState) -> Option<String> {
    let count = state.keys.as_ref().map_or(0, |keys| keys.foreign.len());
    (count > 0).then(|| format!("{name} has {count} keys that others wrote; they stay"))
}

/// The groups that an account keeps when it is taken over: nobody else would tell what they give.
fn kept_groups(name: &Username, aim: &Aim, facts: &AccountFacts) -> Option<String> {
    let groups = facts.groups.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    (aim.spec.groups.is_none() && !groups.is_empty())
        .then(|| format!("{name} is a member of {groups}; it stays so"))
}
