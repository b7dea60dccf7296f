//! Answers that leave no doubt, of many sessions at once: their actions end, and what is known of the accounts follows. All
//! others are left to [`super::answers`]. This file must not know how answers come in.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bastio_protocol::api::{ActionState, AuditRow};
use bastio_protocol::{Action, ActionMessage, FeedbackMessage, Receipt};

use super::batch::{Answer, Ended, Given, Wanted, Written, set};
use super::session::{MAX_DETAIL, MAX_FEEDBACK};
use super::{Dispatch, queue, receipts};
use crate::audit::{self, Actor, Event};
use crate::plan::{self, Accounts};
use crate::store::actions::{ActionId, Ending};
use crate::store::batch::{self, Place, Sent};
use crate::store::confirmed::{self, Change, Confirmed};
use crate::store::requests::detail_text;
use crate::store::sql::execute_all;
use crate::store::{self, Connection, StoreError, Tx};

/// An answer with the action that it is about.
struct Matched<'a> {
    place: usize,
    answer: &'a Answer,
    action: ActionId,
    message: Arc<ActionMessage>,
    /// When it was queued.
    created: i64,
    /// The account as it is confirmed; `None` is no account.
    before: Option<Confirmed>,
    /// A receipt of the account is kept.
    certified: bool,
}

impl Matched<'_> {
    /// Whether the answer has the receipt that it must have, and a good one.
    fn is_proved(&self) -> bool {
        let Some(key) = &self.answer.receipt_key else { return true };
        let (message, status) = (&*self.message, self.answer.feedback.status);
        self.answer.feedback.receipt.as_deref().is_some_and(|receipt| {
            receipts::check(receipt, key, self.answer.server, message, status).is_ok()
        })
    }

    /// What is to be kept of it.
    fn receipt(&self) -> Option<Box<Receipt>> {
        self.answer.feedback.receipt.clone().filter(|_| self.answer.receipt_key.is_some())
    }

    fn account(&self) -> Place {
        (self.answer.server, self.message.username.clone())
    }
}

/// Takes the answers of success that leave no doubt.
pub(super) async fn take_answers(
    dispatch: &Dispatch,
    tx: &mut Tx,
    wanted: &[Wanted],
    written: &mut Written,
) -> Result<(), StoreError> {
    let matched = certain(tx, wanted).await?;
    if matched.is_empty() {
        return Ok(());
    }
    let mut changes = BTreeMap::new();
    let (mut done, mut rows) = (Vec::new(), Vec::new());
    let (mut receipts, mut outdated) = (Vec::new(), Vec::new());
    let now = dispatch.store.now();
    for mut matched in matched {
        let place = matched.account();
        let before = matched.before.take();
        let Some(after) = after(&place, before.as_ref(), &matched.message) else { continue };
        outdated.extend(matched.certified.then(|| place.clone()));
        receipts.extend(matched.receipt().map(|receipt| (place.clone(), receipt)));
        if after != before {
            changes.insert(place, Change { before, after });
        }
        let ending = ending(&matched.answer.feedback);
        rows.push(row(&matched, &ending, now));
        done.push((matched.action, ending));
        set(written, matched.place, Given::Taken);
        let Matched { place, message, created, .. } = matched;
        written.ended.push(Ended { place, message, created });
    }
    if done.is_empty() {
        return Ok(());
    }
    let head = store::audit::head(tx).await?;
    let mut queries = confirmed::confirm(&changes);
    queries.extend(batch::forget_receipts(&outdated));
    queries.extend(batch::keep_receipts(&receipts, now)?);
    queries.push(batch::finish(&done, now));
    // While the database works, what it is asked last is prepared.
    let (executed, append) =
        tokio::join!(execute_all(queries, tx), async { batch::append(head, rows) });
    executed?;
    append.execute(tx).await?;
    Ok(())
}

/// The answers of success to what waits for them, at accounts where nothing else is to be thought of; of each account
/// one.
async fn certain<'a>(
    tx: &mut Connection,
    wanted: &'a [Wanted],
) -> Result<Vec<Matched<'a>>, StoreError> {
    let answers: Vec<(usize, &Answer)> = wanted
        .iter()
        .enumerate()
        .filter_map(|(place, wanted)| match wanted {
            Wanted::Answer(answer) => Some((place, &**answer)),
            _ => None,
        })
        .filter(|(_, answer)| answer.feedback.status.is_success())
        .collect();
    if answers.is_empty() {
        return Ok(Vec::new());
    }
    let asked = answers.iter().map(|(_, answer)| (&answer.feedback.mid, answer.asked.as_ref()));
    let mut sent = batch::find_sent(tx, &asked.collect::<Vec<_>>()).await?;
    let mut accounts = HashSet::new();
    let mut matched = Vec::new();
    for (place, answer) in answers {
        let Some(sent) = sent.remove(&(answer.server, answer.feedback.mid.text())) else {
            continue;
        };
        let Sent { id: action, message, state, created, before, uncertain, certified } = sent;
        let waits = matches!(state, ActionState::Queued | ActionState::Sent)
            && message.mid == answer.feedback.mid;
        let one = Matched { place, answer, action, message, created, before, certified };
        if waits && !uncertain && one.is_proved() && accounts.insert(one.account()) {
            matched.push(one);
        }
    }
    keep_going_on(tx, &mut matched).await?;
    with_keys(tx, &mut matched).await?;
    Ok(matched)
}

/// Takes out those whose receipts are older than what is known of their accounts.
async fn keep_going_on(
    tx: &mut Connection,
    matched: &mut Vec<Matched<'_>>,
) -> Result<(), StoreError> {
    let signed = matched.iter().filter(|one| one.receipt().is_some());
    let signed: Vec<Place> = signed.map(Matched::account).collect();
    let known = store::receipts::sequences(tx, &signed).await?;
    matched.retain(|one| {
        one.receipt().is_none_or(|receipt| {
            receipts::goes_on(&receipt, known.get(&one.account()).copied()).is_ok()
        })
    });
    Ok(())
}

/// Puts the keys to the accounts.
async fn with_keys(tx: &mut Connection, matched: &mut [Matched<'_>]) -> Result<(), StoreError> {
    let there = matched.iter().filter(|one| one.before.is_some());
    let there: Vec<Place> = there.map(Matched::account).collect();
    let mut keys = confirmed::keys(tx, &there).await?;
    for one in matched {
        let found = keys.remove(&one.account());
        if let (Some(before), Some(found)) = (&mut one.before, found) {
            before.account.keys.extend(found);
        }
    }
    Ok(())
}

/// The account as it is confirmed now; `None` when that is not for here to say.
fn after(
    (_, login): &Place,
    before: Option<&Confirmed>,
    message: &ActionMessage,
) -> Option<Option<Confirmed>> {
    let makes = matches!(message.action, Action::AddUser { .. } | Action::SetUser { .. });
    let ends = matches!(message.action, Action::RemoveUser { .. });
    let surprising = before.is_none() && !makes && !ends;
    // An account that is given back is also forgotten as adopted.
    let given_back =
        matches!(&message.action, Action::SetUser { wanted } if wanted.release.is_some());
    if surprising || given_back || before.is_some_and(|before| before.doubtful) {
        return None;
    }
    let mut accounts = Accounts::new();
    accounts.extend(before.map(|before| (login.clone(), before.account.clone())));
    plan::confirm_action(&mut accounts, login, &message.action);
    Some(accounts.remove(login).map(|account| Confirmed { account, doubtful: false }))
}

fn ending(feedback: &FeedbackMessage) -> Ending {
    Ending {
        state: ActionState::Done,
        status: Some(feedback.status),
        feedback: queue::for_people(&feedback.feedback, MAX_FEEDBACK),
        detail: feedback.detail.as_deref().and_then(|detail| detail_text(detail, MAX_DETAIL)),
    }
}

fn row(matched: &Matched<'_>, ending: &Ending, now: i64) -> AuditRow {
    let answer = matched.answer;
    let message = &*matched.message;
    let detail = audit::of_action(message.action.name(), ending.status, &ending.feedback);
    let event = Event {
        action: "action.done",
        user: Some(&message.username),
        server: Some(&answer.name),
        detail: &detail,
        status: ending.status,
        ..Event::default()
    };
    audit::row(now, &Actor::agent(&answer.name, answer.address), event)
}
