//! What is done about drift: rules that operators give, and bringing back what no news comes from.

use bastio_protocol::Target;
use bastio_protocol::api::{Change, DriftAnswer, DriftRule, DriftRuleInForce};

use super::edit::Edit;
use super::history::Thing;
use super::{Fleet, FleetError};
use crate::access::Admin;
use crate::audit::Actor;
use crate::dispatch::healing;
use crate::dispatch::queue::Scope;
use crate::plan::drift_answer;
use crate::store;

impl Fleet {
    /// All rules, and how many servers each means.
    ///
    /// # Errors
    /// [`FleetError::Store`].
    pub async fn drift_rules(&self, _proof: &Admin) -> Result<Vec<DriftRuleInForce>, FleetError> {
        let mut db = self.store.read().await?;
        let rules = store::drift::rules(&mut db).await?;
        let servers = store::servers::names_and_labels(&mut db).await?;
        let in_force = |(on, answer): (&Target, &DriftAnswer)| {
            let (mut meant, mut overruled) = (0, 0);
            for (name, labels) in servers.values().filter(|(name, it)| on.includes(name, it)) {
                meant += 1;
                overruled += u32::from(drift_answer(&rules, name, labels) < *answer);
            }
            DriftRuleInForce { on: on.clone(), answer: *answer, servers: meant, overruled }
        };
        Ok(rules.iter().map(in_force).collect())
    }

    /// Adds a rule, or makes the one of these servers so.
    ///
    /// # Errors
    /// [`FleetError::NoSuchServer`], [`FleetError::Store`].
    pub async fn set_drift_rule(
        &self,
        proof: &Admin,
        rule: &DriftRule,
    ) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let rules = store::drift::rules(edit.db()).await?;
        if rules.get(&rule.on) == Some(&rule.answer) {
            return edit.unchanged().await;
        }
        set(&mut edit, &rule.on, rule.answer).await?;
        let summary = format!("drift on {}: {}", rule.on, rule.answer);
        edit.commit(&summary, &Scope::Logins(Default::default())).await
    }

    /// Takes a rule away.
    ///
    /// # Errors
    /// [`FleetError::NoSuchDriftRule`], [`FleetError::Store`].
    pub async fn remove_drift_rule(
        &self,
        proof: &Admin,
        on: &Target,
    ) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        if !store::drift::rules(edit.db()).await?.contains_key(on) {
            return Err(FleetError::NoSuchDriftRule(on.clone()));
        }
        remove(&mut edit, on).await?;
        let summary = format!("drift on {on}: no rule any more");
        edit.commit(&summary, &Scope::Logins(Default::default())).await
    }

    /// Has servers brought back that are to be and from which no news comes: those that drifted before there was a
    /// rule, and those where a sync did not help. When the next is due.
    pub(super) async fn heal_due(&self) -> Result<Option<i64>, FleetError> {
        let now = self.store.now();
        let mut db = self.store.read().await?;
        let next = healing::next(&mut db, now).await?;
        // Those of agents that have nothing to tell: nothing else would have them sent.
        for server in store::drift::waiting(&mut db).await? {
            self.dispatch.wake(server);
        }
        drop(db);
        if next.is_none_or(|next| next > now) {
            return Ok(next);
        }
        let actor = Actor::backend();
        let mut edit = Edit::begin_as(self, &actor).await?;
        for server in healing::heal_due(edit.db(), now).await? {
            edit.wake(server);
        }
        let next = healing::next(edit.db(), now).await?;
        edit.keep().await?;
        Ok(next)
    }
}

/// Adds a rule within an edit. Servers named must exist, as for grants.
pub(super) async fn set(
    edit: &mut Edit<'_>,
    on: &Target,
    answer: DriftAnswer,
) -> Result<(), FleetError> {
    if let Target::Names(names) = on {
        for name in names {
            edit.server(name).await?;
        }
    }
    edit.remember(Thing::Drift).await?;
    store::drift::set_rule(edit.db(), on, answer).await?;
    edit.note("drift-rule.set", None, None, &format!("{on}: {answer}")).await
}

/// Takes a rule away within an edit.
pub(super) async fn remove(edit: &mut Edit<'_>, on: &Target) -> Result<(), FleetError> {
    edit.remember(Thing::Drift).await?;
    store::drift::remove_rule(edit.db(), on).await?;
    edit.note("drift-rule.remove", None, None, &on.to_string()).await
}

/// Lets rules follow a server that gets another name, or goes. Two that mean the same servers thereby become one, the
/// more cautious.
pub(super) async fn follow(
    edit: &mut Edit<'_>,
    old: &bastio_protocol::ServerName,
    new: Option<&bastio_protocol::ServerName>,
) -> Result<(), FleetError> {
    for (on, answer) in store::drift::rules(edit.db()).await? {
        let Target::Names(mut names) = on.clone() else { continue };
        if !names.remove(old) {
            continue;
        }
        names.extend(new.cloned());
        if new.is_none() {
            edit.remember(Thing::Drift).await?;
        }
        store::drift::remove_rule(edit.db(), &on).await?;
        if names.is_empty() {
            continue;
        }
        let on = Target::Names(names);
        let known = store::drift::rules(edit.db()).await?.get(&on).copied();
        store::drift::set_rule(edit.db(), &on, known.map_or(answer, |it| it.min(answer))).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
