//! What an edit adds to what makes root: the model as it was before beside the model as it is within
//! the edit. This room must not know who must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bastio_protocol::GroupName;

use crate::dispatch::queue::Scope;
use crate::plan::{self, Beside, Host, Roots};
use crate::store::{self, Connection, ServerId, Store, StoreError};

/// What the edit under way in `db` adds within its scope; `groups` are a site's own that make root.
pub(super) async fn gained(
    store: &Store,
    db: &mut Connection,
    scope: &Scope,
    groups: &Arc<BTreeSet<GroupName>>,
    now: i64,
) -> Result<BTreeSet<String>, StoreError> {
    if scope.logins().is_some_and(BTreeSet::is_empty) {
        return Ok(BTreeSet::new());
    }
    // Nobody else writes meanwhile: what is committed is what was before.
    let mut committed = store.read().await?;
    let (before, _) = roots(&mut committed, scope, groups, now).await?;
    drop(committed);
    let (after, hosts) = roots(db, scope, groups, now).await?;
    Ok(plan::gained(&before, &after, &hosts, now))
}

async fn roots(
    db: &mut Connection,
    scope: &Scope,
    groups: &Arc<BTreeSet<GroupName>>,
    now: i64,
) -> Result<(Roots<ServerId>, BTreeMap<ServerId, Host>), StoreError> {
    let only = match scope {
        Scope::Server(server, None) => Some(*server),
        Scope::Server(..) | Scope::Logins(_) => None,
    };
    let model = store::grants::entitlements_to_come(db, scope.logins(), now).await?;
    let hosts = store::servers::names_and_labels(db).await?.into_iter();
    let hosts = hosts.filter(|(id, _)| only.is_none_or(|only| only == *id));
    let hosts = hosts.map(|(id, (name, labels))| (id, Host { name, labels })).collect();
    let adopted = store::adoptions::all(db).await?;
    let beside = Beside { adopted, groups: Arc::clone(groups) };
    Ok((plan::roots(&model, &hosts, &beside, now), hosts))
}
