//! What many sessions want of the database, done in one transaction: that they begin, the hellos, what is to be sent
//! next, and the answers that came.
//!
//! Only what is common is done here: actions for agents of version 2 that are as they were queued, and answers of
//! success that leave no doubt. All else is handed back, and its session does it alone, as [`super::session`] says; the
//! same happens to all when the transaction fails. This file must not know SSH.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bastio_protocol::{ActionMessage, FeedbackMessage, ServerName, VerifyingKey};

use super::arrivals::{self, Arrival};
use super::meeting::{self, Guest, Hello, Met};
use super::presence::Generation;
use super::session::Session;
use super::{Dispatch, DispatchError, EndReason, certain};
use crate::store::actions::ActionId;
use crate::store::batch;
use crate::store::{self, ServerId, StoreError, Tx};

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
    pub(super) feedback: Arc<FeedbackMessage>,
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
pub(super) struct Written {
    results: Vec<Option<Given>>,
    /// Which sessions have begun, and how many actions are sent again in each.
    opened: Vec<(usize, u64)>,
    /// What was answered, for the meter and the log.
    pub(super) ended: Vec<Ended>,
}

/// An action that was answered.
#[derive(Debug)]
pub(super) struct Ended {
    /// Which of the batch is its answer.
    pub(super) place: usize,
    pub(super) message: Arc<ActionMessage>,
    /// When it was queued.
    pub(super) created: i64,
}

/// What becomes of all of it.
pub(super) type Work = Pin<Box<dyn Future<Output = Vec<Option<Given>>> + Send>>;

/// Does all of it; `None` where it was not done.
pub(super) async fn work(dispatch: Dispatch, slips: Vec<Slip>) -> Vec<Option<Given>> {
    let count = slips.len();
    let (mut wanted, leases): (Vec<Wanted>, Vec<Option<Lease>>) =
        slips.into_iter().map(|slip| (slip.wanted, slip.lease)).unzip();
    let written = match write(&dispatch, &mut wanted, &leases).await {
        Ok((tx, written)) => commit(&dispatch, tx, &wanted, written).await,
        Err(error) => Err(error),
    };
    match written {
        Ok(written) => {
            for (place, again) in &written.opened {
                if let Some(Some(Given::Opened(opened))) = written.results.get(*place)
                    && let Ok(session) = &**opened
                {
                    arrivals::tell(session, *again);
                }
            }
            let few = written.ended.len() <= LINES;
            for ended in &written.ended {
                if let Some(Wanted::Answer(answer)) = wanted.get(ended.place) {
                    tell(&dispatch, answer, ended, few);
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

fn tell(dispatch: &Dispatch, answer: &Answer, ended: &Ended, aloud: bool) {
    let waited = dispatch.store.now().saturating_sub(ended.created);
    dispatch.meter.ended(answer.feedback.status, waited);
    if aloud {
        let message = &ended.message;
        tracing::info!(server = %answer.name, mid = %message.mid.text(), action = message.action.name(),
            user = %message.username, status = answer.feedback.status.code(), "action ended");
    }
}

pub(super) async fn write(
    dispatch: &Dispatch,
    wanted: &mut [Wanted],
    leases: &[Option<Lease>],
) -> Result<(Tx, Written), StoreError> {
    let mut tx = dispatch.store.write().await?;
    let mut written = Written::default();
    written.results.resize_with(wanted.len(), || None);
    open(dispatch, &mut tx, wanted, &mut written).await?;
    strike_lost(&mut tx, wanted, leases).await?;
    meet(dispatch, &mut tx, wanted, &mut written).await?;
    hand_out(dispatch, &mut tx, wanted, &mut written).await?;
    certain::take_answers(dispatch, &mut tx, wanted, &mut written).await?;
    note_gone(dispatch, &mut tx, (wanted, leases), &mut written).await?;
    Ok((tx, written))
}

/// Makes it durable. If PostgreSQL fails just then, nobody knows whether something is on the disk as sent: the sessions that
/// asked for it are ended, and those that follow find out. SQLite has written nothing when it fails.
pub(super) async fn commit(
    dispatch: &Dispatch,
    tx: Tx,
    wanted: &[Wanted],
    written: Written,
) -> Result<Written, StoreError> {
    if written.results.iter().all(Option::is_none) {
        return Ok(written);
    }
    let committed = tx.commit().await;
    if committed.is_err() && dispatch.store.is_shared() {
        end_those_in_doubt(dispatch, wanted);
    }
    committed?;
    Ok(written)
}

/// Ends the sessions that something may be on the disk for as sent, without their knowing.
fn end_those_in_doubt(dispatch: &Dispatch, wanted: &[Wanted]) {
    for wanted in wanted {
        if let Wanted::HandOut(asked) = wanted {
            dispatch.presence.end_session(asked.server, asked.generation, EndReason::Adrift);
        }
    }
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

pub(super) fn set(written: &mut Written, place: usize, given: Given) {
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

#[cfg(test)]
mod tests;
