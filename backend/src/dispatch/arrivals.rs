//! Agents that have logged in: whose keys these are, and their sessions begin. Many come at once after a restart, and
//! are then looked up and let in together. This file must not know what they say.

use std::collections::BTreeMap;

use super::numbers::{self, Numbers};
use super::session::Session;
use super::{Dispatch, DispatchError, MAX_IDENT, ServerIdentity, SessionInfo, queue};
use crate::store::arrivals::{self, Beginning};
use crate::store::{self, Connection, ServerId, StoreError, Tx};

/// One that is to be let in.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) server: ServerIdentity,
    pub(super) info: SessionInfo,
}

/// Whether it may begin its session, and how many actions are sent again in it.
pub(super) type Opened = Result<(Session, u64), DispatchError>;

/// The servers of these fingerprints.
pub(super) async fn identify(
    db: &mut Connection,
    fingerprints: &[String],
) -> Result<Vec<Option<ServerIdentity>>, StoreError> {
    let found = arrivals::find_by_keys(db, fingerprints.iter().map(String::as_str)).await?;
    let identity = |fingerprint: &String| {
        let (id, name) = found.get(fingerprint)?.clone();
        Some(ServerIdentity { id, name, fingerprint: fingerprint.clone() })
    };
    Ok(fingerprints.iter().map(identity).collect())
}

/// Lets all of them in, as far as they may. Until the transaction is committed no other session of the same servers can
/// get anything to send; when it is not, the sessions are dropped.
pub(super) async fn open(
    dispatch: &Dispatch,
    tx: &mut Tx,
    arrived: &[&Arrival],
) -> Result<Vec<Opened>, StoreError> {
    let keys = arrived.iter().map(|arrival| arrival.server.fingerprint.as_str());
    let on_record = arrivals::find_by_keys(tx, keys).await?;
    let is_on_record = |arrival: &Arrival| {
        let found = on_record.get(&arrival.server.fingerprint);
        found.is_some_and(|(id, _)| *id == arrival.server.id)
    };
    let there: Vec<&Arrival> = arrived.iter().copied().filter(|one| is_on_record(one)).collect();
    let servers: Vec<ServerId> = there.iter().map(|arrival| arrival.server.id).collect();
    let held = arrivals::held(tx, &servers).await?;
    let welcome: BTreeMap<ServerId, &Arrival> = there
        .into_iter()
        .filter(|arrival| !held.contains(&arrival.server.id))
        .map(|arrival| (arrival.server.id, arrival))
        .collect();
    let again = note(dispatch, tx, &welcome).await?;
    let there: Vec<ServerId> = welcome.keys().copied().collect();
    let mut beginnings = arrivals::beginnings(tx, &there).await?;
    let mut epochs = match dispatch.store.is_shared() {
        true => store::leases::take_all(tx, &there, dispatch.store.node()).await?,
        false => BTreeMap::new(),
    };
    let mut opened = Vec::with_capacity(arrived.len());
    for arrival in arrived {
        opened.push(if !is_on_record(arrival) {
            Err(DispatchError::NotOnRecord)
        } else if held.contains(&arrival.server.id) {
            Err(DispatchError::Held)
        } else {
            // Known before any hello: no answer counts without the receipt that it must have.
            let beginning = beginnings.get_mut(&arrival.server.id).map(|beginning| {
                // Of two sessions that begin at once for one server only the first has these numbers.
                let sequence = std::mem::take(&mut beginning.sequence);
                Beginning { sequence, ..*beginning }
            });
            let epoch = match epochs.remove(&arrival.server.id) {
                Some(epoch) => Some(epoch),
                // Its second session of these, or there are no other nodes.
                None => take_alone(dispatch, tx, arrival.server.id).await?,
            };
            let session = begin(dispatch, arrival, epoch, beginning);
            Ok((session, again.get(&arrival.server.id).copied().unwrap_or(0)))
        });
    }
    Ok(opened)
}

/// Notes that they are here, and queues again what they did not answer.
async fn note(
    dispatch: &Dispatch,
    tx: &mut Tx,
    welcome: &BTreeMap<ServerId, &Arrival>,
) -> Result<BTreeMap<ServerId, u64>, StoreError> {
    if welcome.is_empty() {
        return Ok(BTreeMap::new());
    }
    let row = |(server, arrival): (&ServerId, &&Arrival)| {
        (
            *server,
            arrival.info.address.to_string(),
            queue::for_people(&arrival.info.ident, MAX_IDENT),
        )
    };
    let rows: Vec<_> = welcome.iter().map(row).collect();
    arrivals::seen(tx, &rows, numbers::AT_ONCE, dispatch.store.now()).await?;
    let servers: Vec<ServerId> = welcome.keys().copied().collect();
    arrivals::requeue_sent(tx, &servers).await
}

async fn take_alone(
    dispatch: &Dispatch,
    tx: &mut Tx,
    server: ServerId,
) -> Result<Option<i64>, StoreError> {
    if !dispatch.store.is_shared() {
        return Ok(None);
    }
    Ok(Some(store::leases::take(tx, server, dispatch.store.node()).await?))
}

/// Called while the writer is held: from here on no older session gets anything to send.
fn begin(
    dispatch: &Dispatch,
    arrival: &Arrival,
    epoch: Option<i64>,
    beginning: Option<Beginning>,
) -> Session {
    let (place, inbox) = dispatch.presence.enter(arrival.server.id, epoch);
    let (server, info) = (arrival.server.clone(), arrival.info.clone());
    let numbers = beginning.map(|beginning| Numbers::up_to(beginning.sequence));
    let known = (numbers.unwrap_or_default(), beginning.and_then(|known| known.receipt_key));
    Session::new(dispatch.clone(), server, info, known, (place, inbox))
}

/// For the log.
pub(super) fn tell(session: &Session, again: u64) {
    let (server, address) = (&session.server().name, session.address());
    let agent = queue::for_people(&session.info.ident, MAX_IDENT);
    tracing::info!(%server, %address, agent, again, "agent connected");
}
