//! Names and labels of the servers that an edit can reach, without reading all of them.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::ServerName;
use bastio_protocol::api::Labels;

use super::batch::push_ids;
use super::servers::{names_and_labels, parse_name};
use super::sql::QueryBuilder;
use super::{Connection, ServerId, StoreError};
use crate::plan::Reach;

/// Values that one query names.
const AT_ONCE: usize = 5000;
/// From so many servers on it is less work to read all.
const MANY: usize = 20_000;

/// Names and labels of the servers within reach, and of `also`.
pub async fn reached(
    db: &mut Connection,
    reach: &Reach,
    also: BTreeSet<ServerId>,
) -> Result<BTreeMap<ServerId, (ServerName, Labels)>, StoreError> {
    if reach.everywhere || reach.names.len() + also.len() > MANY {
        return names_and_labels(db).await;
    }
    let mut ids = also;
    let names: Vec<&ServerName> = reach.names.iter().collect();
    for some in names.chunks(AT_ONCE) {
        let mut select =
            QueryBuilder::new("SELECT id FROM servers WHERE removed IS NULL AND name IN (");
        let mut list = select.separated(", ");
        for name in some {
            list.push_bind(name.to_string());
        }
        select.push(")");
        let found: Vec<ServerId> = select.build_query_scalar().fetch_all(&mut *db).await?;
        ids.extend(found);
    }
    for (name, value) in &reach.labels {
        let mut select = QueryBuilder::new("SELECT server_id FROM labels WHERE name = ");
        select.push_bind(name.clone()).push(" AND value = ").push_bind(value.clone());
        let found: Vec<ServerId> = select.build_query_scalar().fetch_all(&mut *db).await?;
        ids.extend(found);
    }
    let ids: Vec<ServerId> = ids.into_iter().collect();
    let mut servers = BTreeMap::new();
    for some in ids.chunks(AT_ONCE) {
        read(db, some, &mut servers).await?;
    }
    Ok(servers)
}

async fn read(
    db: &mut Connection,
    ids: &[ServerId],
    servers: &mut BTreeMap<ServerId, (ServerName, Labels)>,
) -> Result<(), StoreError> {
    let mut select =
        QueryBuilder::new("SELECT id, name FROM servers WHERE removed IS NULL AND id IN (");
    push_ids(&mut select, ids.iter().map(|id| id.0));
    select.push(")");
    let rows: Vec<(ServerId, String)> = select.build().fetch_packed("id, name", &mut *db).await?;
    for (id, name) in rows {
        servers.insert(id, (parse_name(&name)?, Labels::new()));
    }
    let mut select =
        QueryBuilder::new("SELECT server_id, name, value FROM labels WHERE server_id IN (");
    push_ids(&mut select, ids.iter().map(|id| id.0));
    select.push(")");
    let rows: Vec<(ServerId, String, String)> =
        select.build().fetch_packed("server_id, name, value", db).await?;
    for (id, name, value) in rows {
        if let Some((_, labels)) = servers.get_mut(&id) {
            labels.insert(name, value);
        }
    }
    Ok(())
}
