//! What many sessions want of the database, done in one transaction: that they begin, the hellos, what is to be sent
//! next, and the answers that came.
//!
//! Only what is common is done here: actions for agents of version 2 that are as they were queued, and answers of
//! success that leave no doubt. All else is handed back, and its session does it alone, as [`super::session`] says; the
//! same happens to all when the transaction fails. This file must not know SSH.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bastio_protocol::api::{ActionState, AuditRow};
use bastio_protocol::{Action, ActionMessage, FeedbackMessage, Receipt, ServerName, VerifyingKey};

use super::arrivals::{self, Arrival};
use super::meeting::{self, Guest, Hello, Met};
use super::presence::Generation;
use super::session::{MAX_DETAIL, MAX_FEEDBACK, Session};
use super::{Dispatch, DispatchError, queue, receipts};
use crate::audit::{self, Actor, Event};
use crate::plan::{self, Accounts};
use crate::store::actions::{ActionId, Ending, KnownAction, step};
use crate::store::batch::{self, Place, Sent};
use crate::store::confirmed::{self, Change, Confirmed};
use crate::store::requests::detail_text;
use crate::store::{self, Connection, ServerId, StoreError, Tx};

/// So many actions that end together have a line each in the log; of more there is one that counts them. The audit log
/// has a row of each.
const LINES: usize = 64;

/// What a session wants.
#[derive(Debug)]
pub(super) enum Wanted {
    /// An agent is to be let in.
    Open(Box<Arrival>),
    /// A hello to be taken.
    Meet(Box<(Guest, Hello)>),
    /// What is to be sent next.
    HandOut(HandOut),
    /// An answer to be taken.
    Answer(Box<Answer>),
    /// To be noted: the agent of that server has gone.
    Gone(ServerId),
    /// Nothing here: its session has lost its lease, and finds that out alone.
    Lost,
}

/// What a session wants, with its server and epoch where there may be other nodes.
#[derive(Debug)]
pub(super) struct Slip {
    pub(super) wanted: Wanted,
    pub(super) lease: Option<Lease>,
}

/// A session among those of all nodes.
type Lease = (ServerId, i64);

/// A session of version 2 that can send so many more.
#[derive(Debug, Clone, Copy)]
pub(super) struct HandOut {
    pub(super) server: ServerId,
    pub(super) generation: Generation,
    pub(super) limit: usize,
}

/// What an agent has answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) server: ServerId,
    pub(super) name: ServerName,
    pub(super) address: IpAddr,
    /// What signs its receipts.
    pub(super) receipt_key: Option<VerifyingKey>,
    pub(super) feedback: FeedbackMessage,
    /// What it was asked, if its session knows.
    pub(super) asked: Option<Arc<ActionMessage>>,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Given {
    /// Its session, or why there is none.
    Opened(Box<Result<Session, DispatchError>>),
    /// What came of the hello.
    Met(Met),
    /// To be sent.
    Actions(Vec<ActionMessage>),
    /// The answer is taken, or what was to be noted is.
    Taken,
}

/// What one batch has to say once it is written.
#[derive(Default)]
struct Written {
    results: Vec<Option<Given>>,
    /// Which sessions have begun, and how many actions are sent again in each.
    opened: Vec<(usize, u64)>,
    /// How each answered action ended, and how long it had waited, for the meter and the log.
    ended: Vec<(usize, KnownAction)>,
}

/// What becomes of all of it.
pub(super) type Work = Pin<Box<dyn Future<Output = Vec<Option<Given>>> + Send>>;

/// Does all of it; `None` where it was not done.
pub(super) async fn work(dispatch: Dispatch, slips: Vec<Slip>) -> Vec<Option<Given>> {
    let count = slips.len();
    let (mut wanted, leases): (Vec<Wanted>, Vec<Option<Lease>>) =
        slips.into_iter().map(|slip| (slip.wanted, slip.lease)).unzip();
    match write(&dispatch, &mut wanted, &leases).await {
        Ok(written) => {
            for (place, again) in &written.opened {
                if let Some(Some(Given::Opened(opened))) = written.results.get(*place)
                    && let Ok(session) = &**opened
                {
                    arrivals::tell(session, *again);
                }
            }
            let few = written.ended.len() <= LINES;
            for (place, known) in &written.ended {
                if let Some(Wanted::Answer(answer)) = wanted.get(*place) {
                    tell(&dispatch, answer, known, few);
                }
            }
            if !few {
                tracing::info!(count = written.ended.len(), "actions of many servers ended");
            }
            dispatch.presence.step();
            written.results
        }
        Err(error) => {
            tracing::warn!(%error, count, "what many sessions want is tried for each of them alone");
            (0..count).map(|_| None).collect()
        }
    }
}

fn tell(dispatch: &Dispatch, answer: &Answer, known: &KnownAction, aloud: bool) {
    let waited = dispatch.store.now().saturating_sub(known.created);
    dispatch.meter.ended(answer.feedback.status, waited);
    if aloud {
        let message = &known.action.message;
        tracing::info!(server = %answer.name, mid = %message.mid.text(), action = message.action.name(),
            user = %message.username, status = answer.feedback.status.code(), "action ended");
    }
}

async fn write(
    dispatch: &Dispatch,
    wanted: &mut [Wanted],
    leases: &[Option<Lease>],
) -> Result<Written, StoreError> {
    let mut tx = dispatch.store.write().await?;
    let mut written = Written::default();
    written.results.resize_with(wanted.len(), || None);
    open(dispatch, &mut tx, wanted, &mut written).await?;
    strike_lost(&mut tx, wanted, leases).await?;
    meet(dispatch, &mut tx, wanted, &mut written).await?;
    hand_out(dispatch, &mut tx, wanted, &mut written).await?;
    take_answers(dispatch, &mut tx, wanted, &mut written).await?;
    note_gone(dispatch, &mut tx, (wanted, leases), &mut written).await?;
    if written.results.iter().any(Option::is_some) {
        tx.commit().await?;
    }
    Ok(written)
}

/// Lets agents in.
async fn open(
    dispatch: &Dispatch,
    tx: &mut Tx,
    wanted: &[Wanted],
    written: &mut Written,
) -> Result<(), StoreError> {
    let arrived = wanted.iter().enumerate().filter_map(|(place, wanted)| match wanted {
        Wanted::Open(arrival) => Some((place, &**arrival)),
        _ => None,
    });
    let (places, arrived): (Vec<usize>, Vec<&Arrival>) = arrived.unzip();
    if arrived.is_empty() {
        return Ok(());
    }
    let opened = arrivals::open(dispatch, tx, &arrived).await?;
    for (place, one) in places.into_iter().zip(opened) {
        let session = one.map(|(session, again)| {
            written.opened.push((place, again));
            session
        });
        set(written, place, Given::Opened(Box::new(session)));
    }
    Ok(())
}

/// Takes hellos.
async fn meet(
    dispatch: &Dispatch,
    tx: &mut Tx,
    wanted: &[Wanted],
    written: &mut Written,
) -> Result<(), StoreError> {
    let guests = wanted.iter().enumerate().filter_map(|(place, wanted)| match wanted {
        Wanted::Meet(guest) => Some((place, &**guest)),
        _ => None,
    });
    let (places, guests): (Vec<usize>, Vec<&(Guest, Hello)>) = guests.unzip();
    if guests.is_empty() {
        return Ok(());
    }
    let met = meeting::meet_all(tx, &guests, dispatch.store.now()).await?;
    for (place, met) in places.into_iter().zip(met) {
        set(written, place, Given::Met(met));
    }
    Ok(())
}

/// Takes out what sessions want that were overtaken, here or by another node. Until the transaction is committed none
/// can be.
async fn strike_lost(
    tx: &mut Tx,
    wanted: &mut [Wanted],
    leases: &[Option<Lease>],
) -> Result<(), StoreError> {
    let sessions: Vec<Lease> = leases.iter().flatten().copied().collect();
    let lost = store::leases::not_held(tx, &sessions).await?;
    for (wanted, lease) in wanted.iter_mut().zip(leases) {
        if lease.is_some_and(|lease| lost.contains(&lease)) {
            *wanted = Wanted::Lost;
        }
    }
    Ok(())
}

/// Marks what is next for each session as sent.
async fn hand_out(
    dispatch: &Dispatch,
    tx: &mut Tx,
    wanted: &[Wanted],
    written: &mut Written,
) -> Result<(), StoreError> {
    let asked = wanted.iter().enumerate().filter_map(|(place, wanted)| match wanted {
        Wanted::HandOut(asked) => Some((place, *asked)),
        _ => None,
    });
    let current = |asked: &HandOut| dispatch.presence.is_current(asked.server, asked.generation);
    let (held, asked): (Vec<_>, Vec<_>) = asked
        .filter(|(_, asked)| current(asked))
        .partition(|(_, asked)| dispatch.presence.holds_back(asked.server, asked.generation));
    held.iter().for_each(|(place, _)| set(written, *place, Given::Actions(Vec::new())));
    if asked.is_empty() {
        return Ok(());
    }
    let servers: Vec<ServerId> = asked.iter().map(|(_, asked)| asked.server).collect();
    let alone = batch::with_requests(tx, &servers).await?;
    let limit = asked.iter().map(|(_, asked)| asked.limit).max().unwrap_or(0);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut queues = batch::queued(tx, &servers, limit).await?;
    let mut sent = Vec::<ActionId>::new();
    for (place, asked) in asked.iter().filter(|(_, asked)| !alone.contains(&asked.server)) {
        let mut queued = queues.remove(&asked.server).unwrap_or_default();
        queued.truncate(asked.limit);
        sent.extend(queued.iter().map(|queued| queued.id));
        let messages = queued.into_iter().map(|queued| queued.message).collect();
        set(written, *place, Given::Actions(messages));
    }
    if sent.is_empty() {
        return Ok(());
    }
    batch::mark_sent(tx, &sent, dispatch.store.now()).await
}

fn set(written: &mut Written, place: usize, given: Given) {
    if let Some(result) = written.results.get_mut(place) {
        *result = Some(given);
    }
}

/// Notes when these agents were here last, and gives their leases back.
async fn note_gone(
    dispatch: &Dispatch,
    tx: &mut Tx,
    (wanted, leases): (&[Wanted], &[Option<Lease>]),
    written: &mut Written,
) -> Result<(), StoreError> {
    let gone = wanted.iter().enumerate().filter_map(|(place, wanted)| match wanted {
        Wanted::Gone(server) => Some((place, *server)),
        _ => None,
    });
    let (places, servers): (Vec<usize>, Vec<ServerId>) = gone.unzip();
    if servers.is_empty() {
        return Ok(());
    }
    batch::seen_last(tx, &servers, dispatch.store.now()).await?;
    let given_back: Vec<Lease> =
        places.iter().filter_map(|place| leases.get(*place).copied().flatten()).collect();
    store::leases::release_all(tx, &given_back).await?;
    places.into_iter().for_each(|place| set(written, place, Given::Taken));
    Ok(())
}

/// An answer with the action that it is about.
struct Matched<'a> {
    place: usize,
    answer: &'a Answer,
    known: KnownAction,
    /// The account as it is confirmed; `None` is no account.
    before: Option<Confirmed>,
    /// A receipt of the account is kept.
    certified: bool,
}

impl Matched<'_> {
    /// Whether the answer has the receipt that it must have, and a good one.
    fn is_proved(&self) -> bool {
        let Some(key) = &self.answer.receipt_key else { return true };
        let (message, status) = (&self.known.action.message, self.answer.feedback.status);
        self.answer.feedback.receipt.as_deref().is_some_and(|receipt| {
            receipts::check(receipt, key, self.answer.server, message, status).is_ok()
        })
    }

    /// What is to be kept of it.
    fn receipt(&self) -> Option<Box<Receipt>> {
        self.answer.feedback.receipt.clone().filter(|_| self.answer.receipt_key.is_some())
    }

    fn account(&self) -> Place {
        (self.answer.server, self.known.action.message.username.clone())
    }
}

/// Takes the answers of success that leave no doubt.
async fn take_answers(
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
        let Some(after) = after(&place, before.as_ref(), &matched.known) else { continue };
        outdated.extend(matched.certified.then(|| place.clone()));
        receipts.extend(matched.receipt().map(|receipt| (place.clone(), receipt)));
        if after != before {
            changes.insert(place, Change { before, after });
        }
        let ending = ending(&matched.answer.feedback);
        rows.push(row(&matched, &ending, now));
        done.push((matched.known.action.id, ending));
        set(written, matched.place, Given::Taken);
        written.ended.push((matched.place, matched.known));
    }
    if done.is_empty() {
        return Ok(());
    }
    let head = store::audit::head(tx).await?;
    // While the database works, what it is asked next is prepared.
    let (confirmed, (finish, append)) = tokio::join!(confirmed::confirm(tx, &changes), async {
        let finish = batch::finish(&done, now);
        tokio::task::yield_now().await;
        (finish, batch::append(head, rows))
    });
    confirmed?;
    batch::forget_receipts(tx, &outdated).await?;
    batch::keep_receipts(tx, &receipts, now).await?;
    finish.execute(tx).await?;
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
    let asked = answers.iter().map(|(_, answer)| (&answer.feedback.mid, answer.asked.as_deref()));
    let mut sent = batch::find_sent(tx, &asked.collect::<Vec<_>>()).await?;
    let mut accounts = BTreeSet::new();
    let mut matched = Vec::new();
    for (place, answer) in answers {
        let Some(sent) = sent.remove(&(answer.server, answer.feedback.mid.text())) else {
            continue;
        };
        let Sent { known, before, uncertain, certified } = sent;
        let waits = matches!(known.state, ActionState::Queued | ActionState::Sent)
            && known.action.message.mid == answer.feedback.mid;
        let one = Matched { place, answer, known, before, certified };
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
    known: &KnownAction,
) -> Option<Option<Confirmed>> {
    let message = &known.action.message;
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
    plan::confirm(&mut accounts, &step(message.clone()));
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
    let message = &matched.known.action.message;
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

#[cfg(test)]
mod tests;
