//! Which version of the wire agents speak, as far as they have been heard. Must not know what follows from it.

use std::collections::BTreeMap;

use super::batch::push_ids;
use super::sql::QueryBuilder;
use super::{Connection, ServerId, StoreError};

/// Servers that the question names; about more of them all are asked, which is fewer words.
const NAMED_AT_MOST: usize = 500;

/// What an agent speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Speech {
    /// It has never connected.
    Unheard,
    /// It has connected, and never said the hello of version 2.
    Version1,
    /// It has said the hello of version 2.
    Version2,
}

/// What the agents of some servers speak.
#[derive(Debug, Default)]
pub struct Spoken {
    /// Those that do not speak version 2: they are few.
    others: BTreeMap<ServerId, Speech>,
}

impl Spoken {
    /// What the agent of one of the servers that were asked about speaks.
    #[must_use]
    pub fn by(&self, server: ServerId) -> Speech {
        self.others.get(&server).copied().unwrap_or(Speech::Version2)
    }
}

/// What the agents of these servers speak; none of them is removed.
pub async fn spoken(db: &mut Connection, servers: &[ServerId]) -> Result<Spoken, StoreError> {
    if servers.is_empty() {
        return Ok(Spoken::default());
    }
    let mut select = QueryBuilder::new(
        "SELECT id, last_seen IS NOT NULL FROM servers WHERE removed IS NULL AND facts IS NULL",
    );
    if servers.len() <= NAMED_AT_MOST {
        select.push(" AND id IN (");
        push_ids(&mut select, servers.iter().map(|id| id.0));
        select.push(")");
    }
    let rows: Vec<(ServerId, bool)> = select.build_query_as().fetch_all(db).await?;
    let speech = |was_here| if was_here { Speech::Version1 } else { Speech::Unheard };
    Ok(Spoken { others: rows.into_iter().map(|(id, was_here)| (id, speech(was_here))).collect() })
}

/// What the agent of one server speaks.
pub async fn spoken_by(db: &mut Connection, server: ServerId) -> Result<Speech, StoreError> {
    Ok(spoken(db, &[server]).await?.by(server))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestBackend;

    #[tokio::test]
    async fn an_agent_speaks_what_it_was_heard_to_speak() {
        let backend = TestBackend::new().await;
        let mut ids = Vec::new();
        for number in 1..=3 {
            ids.push(backend.enroll(&format!("web-{number}"), number).await.id);
        }
        let _old = backend.connect(2).await;
        let _new = backend.connect_v2(3).await;
        let mut db = backend.store.read().await.expect("a reader");
        let expected = [Speech::Unheard, Speech::Version1, Speech::Version2];
        let many = [ids.as_slice(), &[ServerId(i64::MAX); NAMED_AT_MOST]].concat();
        for asked in [ids.clone(), many] {
            let spoken = spoken(&mut db, &asked).await.expect("read");
            assert_eq!(ids.iter().map(|id| spoken.by(*id)).collect::<Vec<_>>(), expected);
        }
        for (id, expected) in ids.into_iter().zip(expected) {
            assert_eq!(spoken_by(&mut db, id).await.expect("read"), expected);
        }
    }
}
