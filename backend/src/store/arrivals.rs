//! Statements about agents that come, for many of them at once: whose keys these are, that they are here, and what is
//! known of what they will say.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::api::Labels;
use bastio_protocol::{ServerName, VerifyingKey};

use super::batch::push_ids;
use super::servers::parse_name;
use super::sql::QueryBuilder;
use super::{Connection, ServerId, StoreError, corrupt};

/// What is on record of what an agent says in its hello.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Introduced {
    /// Its facts, as JSON; empty when it was never there.
    pub facts: String,
    /// Fingerprint of the signing key that it obeys.
    pub signing_key: Option<String>,
    /// The highest number of an order that was given out.
    pub sequence: i64,
    /// The machine that it is on.
    pub machine: Option<String>,
    /// How far its clock was ahead of ours, in seconds.
    pub clock_offset: Option<i64>,
    /// What signs its receipts.
    pub receipt_key: Option<VerifyingKey>,
}

/// The servers of these keys, by fingerprint.
pub async fn find_by_keys(
    db: &mut Connection,
    fingerprints: impl Iterator<Item = &str>,
) -> Result<BTreeMap<String, (ServerId, ServerName)>, StoreError> {
    let mut select = QueryBuilder::new(
        "SELECT k.fingerprint, s.id, s.name FROM server_keys k JOIN servers s \
         ON s.id = k.server_id WHERE s.removed IS NULL AND k.fingerprint IN (",
    );
    let mut list = select.separated(", ");
    for fingerprint in fingerprints {
        list.push_bind(fingerprint.to_owned());
    }
    select.push(")");
    let rows: Vec<(String, ServerId, String)> = select.build_query_as().fetch_all(db).await?;
    rows.into_iter().map(|(key, id, name)| Ok((key, (id, parse_name(&name)?)))).collect()
}

/// Of these servers those whose agents are kept waiting.
pub async fn held(
    db: &mut Connection,
    servers: &[ServerId],
) -> Result<BTreeSet<ServerId>, StoreError> {
    if servers.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut select =
        QueryBuilder::new("SELECT server_id FROM questions WHERE holds = TRUE AND server_id IN (");
    push_ids(&mut select, servers.iter().map(|id| id.0));
    select.push(")");
    let rows: Vec<ServerId> = select.build_query_scalar().fetch_all(db).await?;
    Ok(rows.into_iter().collect())
}

/// Notes that sessions of these servers began, from which address and by which program, and reserves so many numbers
/// for the orders of each.
pub async fn seen(
    db: &mut Connection,
    arrivals: &[(ServerId, String, String)],
    numbers: u32,
    now: i64,
) -> Result<(), StoreError> {
    let mut update = QueryBuilder::new(
        "UPDATE servers SET address = arrival.column2, agent = arrival.column3, last_seen = ",
    );
    update.push_bind(now).push(", sequence = sequence + ").push_bind(i64::from(numbers));
    update.push(" FROM (");
    update.push_values(arrivals, |mut row, (server, address, agent)| {
        row.push_bind(*server).push_bind(address).push_bind(agent);
    });
    update.push(") AS arrival WHERE servers.id = arrival.column1");
    update.build().execute(db).await?;
    Ok(())
}

/// Queues again what was sent to these servers and not answered; how many actions of each.
pub async fn requeue_sent(
    db: &mut Connection,
    servers: &[ServerId],
) -> Result<BTreeMap<ServerId, u64>, StoreError> {
    let pending = "state = 'sent' AND state IN ('queued', 'sent') AND server_id IN (";
    let mut update =
        QueryBuilder::new("UPDATE actions SET state = 'queued', steps = steps + 1 WHERE ");
    update.push(pending);
    push_ids(&mut update, servers.iter().map(|id| id.0));
    update.push(") RETURNING server_id");
    let rows: Vec<ServerId> = update.build_query_scalar().fetch_all(&mut *db).await?;
    let mut counts = BTreeMap::new();
    for server in rows {
        *counts.entry(server).or_default() += 1;
    }
    let mut update = QueryBuilder::new("UPDATE requests SET state = 'queued' WHERE ");
    update.push(pending);
    push_ids(&mut update, servers.iter().map(|id| id.0));
    update.push(")");
    update.build().execute(db).await?;
    Ok(counts)
}

/// What a session begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// The highest number of an order that is reserved.
    pub sequence: u64,
    /// What signs the server's receipts, if anything does.
    pub receipt_key: Option<VerifyingKey>,
}

/// What sessions of these servers begin with.
pub async fn beginnings(
    db: &mut Connection,
    servers: &[ServerId],
) -> Result<BTreeMap<ServerId, Beginning>, StoreError> {
    if servers.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut select =
        QueryBuilder::new("SELECT id, sequence, receipt_key FROM servers WHERE id IN (");
    push_ids(&mut select, servers.iter().map(|id| id.0));
    select.push(")");
    let rows: Vec<(ServerId, i64, Option<String>)> =
        select.build().fetch_packed("id, sequence, receipt_key", db).await?;
    let read = |(id, sequence, key): (ServerId, i64, Option<String>)| {
        let receipt_key = key.map(|key| key.parse()).transpose();
        let beginning = Beginning {
            sequence: u64::try_from(sequence).map_err(corrupt("the number of an order"))?,
            receipt_key: receipt_key.map_err(corrupt("a receipt key"))?,
        };
        Ok((id, beginning))
    };
    rows.into_iter().map(read).collect()
}

/// What is new of what an agent says: nothing where nothing was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News<'a> {
    /// The server.
    pub server: ServerId,
    /// Its facts, as JSON.
    pub facts: &'a str,
    /// Fingerprint of the signing key that its agent obeys.
    pub signing_key: Option<&'a str>,
    /// The highest number of an order that the agent has obeyed; ours must be above.
    pub sequence: i64,
    /// The machine that it is on.
    pub machine: Option<String>,
    /// How far its clock is ahead of ours, in seconds.
    pub clock_offset: Option<i64>,
}

/// Notes all of it.
pub async fn note(db: &mut Connection, news: &[News<'_>]) -> Result<(), StoreError> {
    if news.is_empty() {
        return Ok(());
    }
    let mut update = QueryBuilder::new(
        "UPDATE servers SET facts = news.column2, \
         signing_key = COALESCE(news.column3, signing_key), \
         sequence = CASE WHEN sequence < news.column4 THEN news.column4 ELSE sequence END, \
         machine_id = COALESCE(news.column5, machine_id), \
         clock_offset = COALESCE(news.column6, clock_offset) FROM (",
    );
    update.push_values(news, |mut row, one| {
        row.push_bind(one.server).push_bind(one.facts.to_owned());
        row.push_bind(one.signing_key.map(str::to_owned)).push_bind(one.sequence);
        row.push_bind(one.machine.clone()).push_bind(one.clock_offset);
    });
    update.push(") AS news WHERE servers.id = news.column1");
    update.build().execute(db).await?;
    Ok(())
}

/// Labels of one INSERT; three values each stay far below the engines' limits.
const LABELS_AT_ONCE: usize = 5000;

/// Makes the labels of these servers exactly these.
pub async fn set_labels(
    db: &mut Connection,
    servers: &[(ServerId, &Labels)],
) -> Result<(), StoreError> {
    let mut delete = QueryBuilder::new("DELETE FROM labels WHERE server_id IN (");
    push_ids(&mut delete, servers.iter().map(|(server, _)| server.0));
    delete.push(")");
    delete.build().execute(&mut *db).await?;
    let labels: Vec<(ServerId, &String, &String)> = servers
        .iter()
        .flat_map(|(server, labels)| labels.iter().map(|(name, value)| (*server, name, value)))
        .collect();
    for some in labels.chunks(LABELS_AT_ONCE) {
        let mut insert = QueryBuilder::new("INSERT INTO labels (server_id, name, value) ");
        insert.push_values(some, |mut row, (server, name, value)| {
            row.push_bind(*server).push_bind(*name).push_bind(*value);
        });
        insert.build().execute(&mut *db).await?;
    }
    Ok(())
}

/// What these servers' agents are known to say.
pub async fn introduced(
    db: &mut Connection,
    servers: &[ServerId],
) -> Result<BTreeMap<ServerId, Introduced>, StoreError> {
    let mut select = QueryBuilder::new(
        "SELECT id, facts, signing_key, sequence, machine_id, clock_offset, receipt_key \
         FROM servers WHERE id IN (",
    );
    push_ids(&mut select, servers.iter().map(|id| id.0));
    select.push(")");
    type Columns = (
        ServerId,
        Option<String>,
        Option<String>,
        i64,
        Option<String>,
        Option<i64>,
        Option<String>,
    );
    let rows: Vec<Columns> = select.build_query_as().fetch_all(db).await?;
    let read = |(id, facts, signing_key, sequence, machine, clock_offset, key): Columns| {
        let receipt_key = key.map(|key| key.parse()).transpose();
        let introduced = Introduced {
            facts: facts.unwrap_or_default(),
            signing_key,
            sequence,
            machine,
            clock_offset,
            receipt_key: receipt_key.map_err(corrupt("a receipt key"))?,
        };
        Ok((id, introduced))
    };
    rows.into_iter().map(read).collect()
}
