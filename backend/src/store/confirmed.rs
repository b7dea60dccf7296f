//! What many servers have confirmed of accounts, written together: whole accounts where they changed, and single keys
//! where only those did. This file must not know what was done to them.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::PublicKey;

use super::accounts::{parse_key, parse_login};
use super::batch::{Place, push_places};
use super::sql::{Query, QueryBuilder};
use super::{Connection, ServerId, StoreError};
use crate::plan::Account;

/// Keys of one statement; four values each stay far below the engines' limits.
const KEYS_AT_ONCE: usize = 2000;

/// A confirmed account, and whether it is doubtful.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// The account.
    pub account: Account,
    /// Not what the plan counted on.
    pub doubtful: bool,
}

/// What has become of an account; `None` is no account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// As it is in the database.
    pub before: Option<Confirmed>,
    /// As it is to be there.
    pub after: Option<Confirmed>,
}

impl Change {
    /// Whether the account's own row stays as it is.
    fn keeps_row(&self) -> bool {
        let (Some(before), Some(after)) = (&self.before, &self.after) else { return false };
        before.account.is_plain()
            && after.account.is_plain()
            && before.account.sudo == after.account.sudo
            && before.doubtful == after.doubtful
    }

    /// Keys that one has and the other has not.
    fn keys<'a>(
        one: &'a Option<Confirmed>,
        other: &'a Option<Confirmed>,
    ) -> impl Iterator<Item = &'a PublicKey> {
        let has =
            |key: &PublicKey| other.as_ref().is_some_and(|other| other.account.keys.contains(key));
        one.iter().flat_map(|one| &one.account.keys).filter(move |key| !has(key))
    }
}

/// The keys that are confirmed of the accounts at these places.
pub async fn keys(
    db: &mut Connection,
    places: &[Place],
) -> Result<BTreeMap<Place, BTreeSet<PublicKey>>, StoreError> {
    let mut all = BTreeMap::<Place, BTreeSet<PublicKey>>::new();
    if places.is_empty() {
        return Ok(all);
    }
    let mut select = QueryBuilder::new(
        "SELECT server_id, login, public_key FROM account_keys WHERE (server_id, login) IN (",
    );
    push_places(&mut select, places);
    select.push(")");
    let rows: Vec<(ServerId, String, String)> =
        select.build().fetch_packed("server_id, login, public_key", db).await?;
    for (server, login, key) in rows {
        all.entry((server, parse_login(&login)?)).or_default().insert(parse_key(&key)?);
    }
    Ok(all)
}

/// What makes it so.
pub fn confirm(changes: &BTreeMap<Place, Change>) -> Vec<Query<'_>> {
    let (kept, rewritten): (Vec<_>, Vec<_>) =
        changes.iter().partition(|(_, change)| change.keeps_row());
    let (mut lost, mut gained) = (Vec::new(), Vec::new());
    for (place, change) in kept {
        lost.extend(Change::keys(&change.before, &change.after).map(|key| (place, key)));
        gained.extend(Change::keys(&change.after, &change.before).map(|key| (place, key)));
    }
    let there = |change: &&(&Place, &Change)| change.1.before.is_some();
    let gone: Vec<Place> =
        rewritten.iter().filter(there).map(|(place, _)| (*place).clone()).collect();
    let mut queries = Vec::from_iter(delete_accounts(&gone));
    let now = rewritten.iter().filter_map(|(place, change)| Some((*place, change.after.as_ref()?)));
    let now: Vec<(&Place, &Confirmed)> = now.collect();
    queries.extend(insert_accounts(&now));
    for (place, now) in now {
        gained.extend(now.account.keys.iter().map(|key| (place, key)));
    }
    queries.extend(lost.chunks(KEYS_AT_ONCE).map(delete_keys));
    queries.extend(gained.chunks(KEYS_AT_ONCE).map(insert_keys));
    queries
}

/// Their keys go with them.
fn delete_accounts<'q>(places: &[Place]) -> Option<Query<'q>> {
    if places.is_empty() {
        return None;
    }
    let mut delete = QueryBuilder::new("DELETE FROM accounts WHERE (server_id, login) IN (");
    push_places(&mut delete, places);
    delete.push(")");
    Some(delete.build())
}

fn insert_accounts<'q>(accounts: &[(&'q Place, &Confirmed)]) -> Option<Query<'q>> {
    if accounts.is_empty() {
        return None;
    }
    let mut insert =
        QueryBuilder::new("INSERT INTO accounts (server_id, login, sudo, doubtful, wanted) ");
    insert.push_values(accounts, |mut row, ((server, login), now)| {
        let whole = (!now.account.is_plain()).then(|| {
            serde_json::to_string(&now.account.whole())
                .expect("texts, numbers and lists always serialise")
        });
        row.push_bind(*server).push_bind(login.as_str()).push_bind(now.account.sudo);
        row.push_bind(now.doubtful).push_bind(whole);
    });
    Some(insert.build())
}

fn delete_keys<'q>(keys: &[(&'q Place, &PublicKey)]) -> Query<'q> {
    let mut delete =
        QueryBuilder::new("DELETE FROM account_keys WHERE (server_id, login, fingerprint) IN (");
    delete.push_values(keys, |mut row, ((server, login), key)| {
        row.push_bind(*server).push_bind(login.as_str()).push_bind(key.fingerprint());
    });
    delete.push(")");
    delete.build()
}

fn insert_keys<'q>(keys: &[(&'q Place, &'q PublicKey)]) -> Query<'q> {
    let mut insert =
        QueryBuilder::new("INSERT INTO account_keys (server_id, login, fingerprint, public_key) ");
    insert.push_values(keys, |mut row, ((server, login), key)| {
        row.push_bind(*server).push_bind(login.as_str());
        row.push_bind(key.fingerprint()).push_bind(key.line());
    });
    insert.build()
}

#[cfg(test)]
mod tests {
    use bastio_protocol::{KeyGrant, WantedAccount};

    use super::*;
    use crate::store::accounts;
    use crate::store::sql::execute_all;
    use crate::testing::{TestBackend, key, login, numbered_key};

    fn plain(sudo: bool, keys: &[u8]) -> Option<Confirmed> {
        let keys = keys.iter().map(|number| key(*number)).collect();
        let account = Account { sudo, keys, ..Account::default() };
        Some(Confirmed { account, doubtful: false })
    }

    fn whole() -> Option<Confirmed> {
        let wanted = WantedAccount {
            keys: BTreeSet::from([KeyGrant::plain(key(1))]),
            locked: true,
            ..WantedAccount::default()
        };
        Some(Confirmed { account: wanted.into(), doubtful: false })
    }

    #[tokio::test]
    async fn whatever_was_there_what_is_confirmed_is_there_then_and_nobody_elses_changes() {
        let backend = TestBackend::new().await;
        let server = backend.enroll("web-1", 1).await.id;
        let other: Place = (server, login("bob"));
        let doubtful = plain(false, &[1]).map(|now| Confirmed { doubtful: true, ..now });
        let kinds = [
            None,
            plain(false, &[]),
            plain(false, &[1]),
            plain(false, &[1, 2, 3]),
            plain(true, &[2]),
            doubtful,
            whole(),
        ];
        let mut tx = backend.store.write().await.expect("a writer");
        let made = Change { before: None, after: plain(true, &[1, 2]) };
        let made = BTreeMap::from([(other, made)]);
        execute_all(confirm(&made), &mut tx).await.expect("confirmed");
        for (from, before) in kinds.iter().enumerate() {
            for (to, after) in kinds.iter().enumerate() {
                let place: Place = (server, login(&format!("u{from}-{to}")));
                let steps = [(None, before.clone()), (before.clone(), after.clone())];
                for (before, after) in steps {
                    let change = Change { before, after };
                    let changes = BTreeMap::from([(place.clone(), change)]);
                    execute_all(confirm(&changes), &mut tx).await.expect("confirmed");
                }
                let stored = accounts::of_server(&mut tx, server).await.expect("read");
                let expected = after.as_ref().map(|now| &now.account);
                assert_eq!(stored.get(&place.1), expected, "{from} to {to}");
                let in_doubt =
                    accounts::is_doubtful(&mut tx, server, &place.1).await.expect("read");
                assert_eq!(
                    in_doubt,
                    after.as_ref().is_some_and(|now| now.doubtful),
                    "{from} to {to}"
                );
                let keys = keys(&mut tx, std::slice::from_ref(&place)).await.expect("read");
                let expected = expected.map(|account| account.keys.clone()).unwrap_or_default();
                assert_eq!(
                    keys.get(&place).cloned().unwrap_or_default(),
                    expected,
                    "{from} to {to}"
                );
                let bob = plain(true, &[1, 2]).map(|now| now.account);
                assert_eq!(stored.get(&login("bob")), bob.as_ref(), "{from} to {to}");
            }
        }
    }

    #[tokio::test]
    async fn changes_of_all_kinds_are_confirmed_in_one_go() {
        let backend = TestBackend::new().await;
        let server = backend.enroll("web-1", 1).await.id;
        let kinds = [None, plain(false, &[1]), plain(false, &[2, 3]), plain(true, &[2]), whole()];
        let all = kinds.iter().enumerate().flat_map(|(from, before)| {
            kinds.iter().enumerate().map(move |(to, after)| (from, before, to, after))
        });
        let (mut made, mut changed) = (BTreeMap::new(), BTreeMap::new());
        for (from, before, to, after) in all {
            let place: Place = (server, login(&format!("u{from}-{to}")));
            made.insert(place.clone(), Change { before: None, after: before.clone() });
            changed.insert(place, Change { before: before.clone(), after: after.clone() });
        }
        let mut tx = backend.store.write().await.expect("a writer");
        for step in [&made, &changed] {
            execute_all(confirm(step), &mut tx).await.expect("confirmed");
            let stored = accounts::of_server(&mut tx, server).await.expect("read");
            let expected = step.iter().filter_map(|((_, login), change)| {
                Some((login.clone(), change.after.as_ref()?.account.clone()))
            });
            assert_eq!(stored, expected.collect());
        }
    }

    #[tokio::test]
    async fn more_keys_than_one_statement_takes_come_and_go() {
        const KEYS: usize = KEYS_AT_ONCE + 3;
        let backend = TestBackend::new().await;
        let server = backend.enroll("web-1", 1).await.id;
        let place: Place = (server, login("alice"));
        let of = |numbers: std::ops::Range<usize>| {
            let keys = numbers.map(numbered_key).collect();
            Some(Confirmed { account: Account { keys, ..Account::default() }, doubtful: false })
        };
        let mut tx = backend.store.write().await.expect("a writer");
        let mut before = None;
        for after in [of(0..1), of(0..KEYS), of(KEYS..2 * KEYS), of(0..0)] {
            let changes =
                BTreeMap::from([(place.clone(), Change { before, after: after.clone() })]);
            execute_all(confirm(&changes), &mut tx).await.expect("confirmed");
            let stored = accounts::of_server(&mut tx, server).await.expect("read");
            let expected = after.as_ref().map(|now| &now.account);
            assert!(stored.get(&place.1) == expected, "{:?}", stored.len());
            before = after;
        }
    }
}
