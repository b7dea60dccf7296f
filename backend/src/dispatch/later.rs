//! Grants that begin later and then contradict others: found when they are made, as nobody is there
//! to be asked when they begin.

use std::collections::BTreeSet;

use super::queue::{Scope, hosts};
use crate::plan::{self, Conflict, Reach};
use crate::store::{self, Connection, StoreError};

/// So many begins to come are looked at, the nearest first.
const BEGINS: u32 = 100;

/// The first contradiction that a begin to come makes within the scope, and when that is, in seconds
/// since the Unix epoch.
pub(crate) async fn conflict_to_come(
    db: &mut Connection,
    scope: &Scope,
    now: i64,
) -> Result<Option<(i64, Conflict)>, StoreError> {
    if scope.logins().is_some_and(|logins| logins.is_empty()) {
        return Ok(None);
    }
    let begins = store::grants::begins_after(db, now, BEGINS).await?;
    if begins.is_empty() {
        return Ok(None);
    }
    let everywhere = Reach { everywhere: true, ..Reach::default() };
    let hosts = hosts(db, scope, &everywhere, BTreeSet::new()).await?;
    for begin in begins {
        let model = store::grants::entitlements(db, scope.logins(), begin).await?;
        let conflicts = hosts.iter().flat_map(|(_, host)| plan::merge(&model, host).1);
        if let Some(conflict) = conflicts.into_iter().next() {
            return Ok(Some((begin, conflict)));
        }
    }
    Ok(None)
}
