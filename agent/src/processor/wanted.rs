//! What version 2 asks for: an account or the whole server exactly as wanted, locks, sessions.
//!
//! The plan and its steps are [`crate::reconcile`]'s; here they meet the server's own rules and the
//! ledger, and become an answer.

use std::ops::ControlFlow;
use std::sync::Arc;

use bastio_protocol::{
    ChangeKind, ChangeNote, Detail, FailureNote, FeedbackMessage, HostMessage, HostRequest, Status,
    Username, WantedAccount, WantedState,
};

use super::tend::Site;
use super::work::{Extent, Work};
use super::{Answer, Failure, Processor, System};
use crate::accounts::{AccountsError, uid_min};
use crate::reconcile::host::{AccountFacts, expiry_of};
use crate::reconcile::{
    Aims, Beat, Plan, Refusal, Rules, apply, change_note, moment, observe, plan,
};

/// How many failures the text names; all are in the detail.
const NAMED: usize = 3;

impl<A: System> Processor<A> {
    /// Does the work and answers it; no answer when it was stopped, with a part of it done. `beat` is called after
    /// each account of many.
    pub(super) fn process(
        &mut self,
        work: &Work,
        extent: Extent,
        beat: &mut Beat<'_>,
    ) -> Option<FeedbackMessage> {
        match work {
            Work::Action(message) => Some(self.process_action(message, extent)),
            Work::Host(message) => self.process_host(message, extent, beat),
        }
    }

    fn process_host(
        &mut self,
        message: &HostMessage,
        extent: Extent,
        beat: &mut Beat<'_>,
    ) -> Option<FeedbackMessage> {
        let answer = match &message.request {
            HostRequest::Sync { wanted, dry_run: true } => self.dry_run(wanted),
            HostRequest::Sync { wanted, dry_run: false } => self.sync(wanted, extent, beat),
            HostRequest::ReportState => self.report(),
        };
        let (mid, request) = (message.mid.text(), message.request.name());
        let answer = match answer {
            Err(Failure::Stopped) => {
                tracing::warn!(mid, request, "stopped before its end");
                return None;
            }
            answer => answer.unwrap_or_else(Answer::failed),
        };
        let (status, text) = (answer.status.code(), &answer.text);
        if answer.status.is_success() {
            tracing::info!(mid, request, status, text, "request done");
        } else {
            tracing::warn!(mid, request, status, why = text, "request failed");
        }
        let mut feedback = message.reply(answer.status, answer.text);
        feedback.detail = answer.detail;
        Some(feedback)
    }

    /// What the server itself says.
    fn rules(&self) -> Result<Rules, AccountsError> {
        Ok(Rules {
            now: (self.clock)(),
            removal: self.removal,
            break_glass: self.break_glass.clone(),
            key_policy: self.key_policy.clone(),
            uid_min: uid_min()?,
            reserved: self.ledger.as_ref().map(|it| Arc::clone(it.uids())).unwrap_or_default(),
        })
    }

    /// The aims, where what the ledger says was wanted until now.
    fn instead(&self, aims: Aims) -> Aims {
        match &self.ledger {
            Some(ledger) => aims.instead_of(ledger.wanted()),
            None => aims,
        }
    }

    /// The server as it is tended; none where no ledger is kept, and while nobody knows the server's own rules.
    pub(super) fn site(&mut self) -> Option<Site<'_, A>> {
        let rules = self.rules();
        let rules =
            rules.inspect_err(|error| tracing::error!(%error, "not looking for drift")).ok()?;
        Some(Site { host: &self.accounts, ledger: self.ledger.as_mut()?, rules })
    }

    pub(super) fn set_user(
        &mut self,
        name: &Username,
        wanted: &WantedAccount,
        extent: Extent,
    ) -> Result<Answer, AccountsError> {
        let rules = self.rules()?;
        let aims = self.instead(Aims::one(name, wanted, &rules));
        let observed = observe(&self.accounts, &aims, &rules)?;
        let plan = narrow(plan(&aims, &observed, &rules), extent);
        let applied = apply(&plan, &self.accounts, &mut || ControlFlow::Continue(()));
        if extent == Extent::All && !plan.refused.contains(name) {
            match &wanted.release {
                None => self.note_wanted(name, wanted),
                Some(_) if applied.detail.failures.is_empty() => self.note_given_back(name),
                Some(_) => {}
            }
        }
        Ok(answer(name.as_str(), applied.detail, extent))
    }

    fn sync(
        &mut self,
        wanted: &WantedState,
        extent: Extent,
        beat: &mut Beat<'_>,
    ) -> Result<Answer, Failure> {
        let rules = self.rules()?;
        let aims = self.instead(Aims::whole(wanted, &rules));
        let observed = observe(&self.accounts, &aims, &rules)?;
        let plan = narrow(plan(&aims, &observed, &rules), extent);
        self.reserve_found(&observed);
        let applied = apply(&plan, &self.accounts, beat);
        if applied.is_stopped {
            return Err(Failure::Stopped);
        }
        if extent == Extent::All && !plan.is_refused {
            self.note_state(wanted, &plan, &applied);
        }
        Ok(answer("the server", applied.detail, extent))
    }

    fn dry_run(&self, wanted: &WantedState) -> Result<Answer, Failure> {
        let rules = self.rules()?;
        let aims = self.instead(Aims::whole(wanted, &rules));
        let plan = plan(&aims, &observe(&self.accounts, &aims, &rules)?, &rules);
        let mut answer = answer("the server", plan.detail(), Extent::All);
        answer.text = format!("dry run, nothing was touched: {}", answer.text);
        Ok(answer)
    }

    pub(super) fn lock(&self, name: &Username) -> Result<Answer, Failure> {
        if self.break_glass.as_ref() == Some(name) {
            return Err(Refusal::BreakGlass(name.clone()).into());
        }
        if self.is_locked(name)? {
            return Ok(with_change(Answer::unchanged(format!("{name} is locked already")), None));
        }
        self.accounts.lock(name)?;
        let note = change_note(name, ChangeKind::LockUser, "locked");
        let text = format!("{name} was locked; what runs as {name} goes on");
        Ok(with_change(Answer::done(text), Some(note)))
    }

    pub(super) fn unlock(&self, name: &Username) -> Result<Answer, Failure> {
        let until = self.wanted(name).and_then(|wanted| wanted.until);
        if let Some(until) = until.filter(|until| *until <= (self.clock)()) {
            return Err(Failure::Ended { name: name.clone(), at: moment(until) });
        }
        if !self.is_shut(name)? {
            return Ok(with_change(Answer::unchanged(format!("{name} is not locked")), None));
        }
        self.accounts.unlock(name, until.map(expiry_of))?;
        let note = change_note(name, ChangeKind::UnlockUser, "unlocked");
        Ok(with_change(Answer::done(format!("{name} was unlocked")), Some(note)))
    }

    pub(super) fn end_sessions(&self, name: &Username) -> Result<Answer, Failure> {
        Ok(match self.accounts.end_sessions(name)? {
            0 => with_change(Answer::unchanged(format!("nothing runs as {name}")), None),
            count => {
                let note = change_note(name, ChangeKind::EndSessions, "its sessions end");
                let text = format!("the sessions of {name} were ended ({count} processes)");
                with_change(Answer::done(text), Some(note))
            }
        })
    }

    fn is_locked(&self, name: &Username) -> Result<bool, Failure> {
        Ok(self.accounts.facts(name)?.is_some_and(|facts| facts.locked))
    }

    /// Whether it lets nobody in, by bastio's lock or by one that was set by hand.
    fn is_shut(&self, name: &Username) -> Result<bool, Failure> {
        let now = (self.clock)();
        let is_shut = |facts: AccountFacts| {
            facts.locked || facts.barred || facts.expires.is_some_and(|end| end <= now)
        };
        Ok(self.accounts.facts(name)?.is_some_and(is_shut))
    }
}

fn narrow(plan: Plan, extent: Extent) -> Plan {
    match extent {
        Extent::All => plan,
        Extent::Closing => plan.closing(),
    }
}

fn with_change(answer: Answer, change: Option<ChangeNote>) -> Answer {
    let detail = Detail { changes: change.into_iter().collect(), ..Detail::default() };
    Answer { detail: Some(Box::new(detail)), ..answer }
}

/// The answer that says what became of `whom`.
fn answer(whom: &str, detail: Detail, extent: Extent) -> Answer {
    let changes = match detail.changes.len() {
        0 => format!("nothing to change on {whom}"),
        1 => format!("1 change on {whom}"),
        count => format!("{count} changes on {whom}"),
    };
    let status = match (detail.failures.as_slice(), detail.changes.as_slice()) {
        ([_, ..], _) => Status::Failed,
        (_, [_, ..]) => Status::Done,
        ([], []) => Status::Unchanged,
    };
    let text = match extent {
        _ if status == Status::Failed => format!("{}; {changes}", failures(&detail.failures)),
        Extent::All => changes,
        Extent::Closing => format!("{changes}, closing access only"),
    };
    Answer { status, text, detail: Some(Box::new(detail)) }
}

fn failures(all: &[FailureNote]) -> String {
    let named = all.iter().take(NAMED).map(|failure| match &failure.username {
        Some(name) => format!("{name}: {}", failure.text),
        None => failure.text.clone(),
    });
    let more = all.len().saturating_sub(NAMED);
    let more = (more > 0).then(|| format!("and {more} more failures"));
    named.chain(more).collect::<Vec<_>>().join("; ")
}
