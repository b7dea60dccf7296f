//! What is done about servers that report drift: shown, left, or healed by a sync, a few times an hour.
//!
//! [`crate::plan`] decides; here it is looked up and asked for. Whoever calls this wakes the session afterwards.

use std::collections::BTreeMap;

use bastio_protocol::api::DriftAnswer;
use bastio_protocol::{Detail, ServerName};

use crate::audit::{self, Actor, Event};
use crate::plan::{HEALS, Heals, drift_answer};
use crate::store::speech::Speech;
use crate::store::{self, Connection, ServerId, StoreError};

/// How a server stands that differs from what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drifting {
    /// What is done about it.
    pub(crate) answer: DriftAnswer,
    /// Whether it differs still although it was brought back, and nothing is on its way.
    pub(crate) keeps: bool,
    /// When it is brought back without any news of it, if ever.
    heal_at: Option<i64>,
}

impl Drifting {
    /// Whether somebody should look at it.
    pub(crate) fn is_trouble(self) -> bool {
        self.answer != DriftAnswer::Leave
    }
}

/// The servers that differ now.
pub(crate) async fn drifting(
    db: &mut Connection,
    now: i64,
) -> Result<BTreeMap<ServerId, Drifting>, StoreError> {
    let drifted = store::requests::drifted(db).await?;
    let rules = store::drift::rules(db).await?;
    if drifted.is_empty() || rules.is_empty() {
        let shown = Drifting { answer: DriftAnswer::Show, keeps: false, heal_at: None };
        return Ok(drifted.into_iter().map(|server| (server, shown)).collect());
    }
    let servers = store::servers::names_and_labels(db).await?;
    let syncing = store::drift::syncing(db).await?;
    let undecided = store::questions::all(db).await?;
    let drifted: Vec<ServerId> = drifted.into_iter().collect();
    let spoken = store::speech::spoken(db, &drifted).await?;
    let mut tries = store::drift::tries(db).await?;
    let mut all = BTreeMap::new();
    for server in drifted {
        let Some((name, labels)) = servers.get(&server) else { continue };
        let answer = drift_answer(&rules, name, labels);
        let heals = Heals::new(tries.remove(&server).unwrap_or_default(), now);
        let healing = answer == DriftAnswer::Heal && !syncing.contains(&server);
        let told = if healing { store::requests::drift(db, server).await? } else { None };
        let healing = told.is_some_and(|drift| can_be_healed(&drift.detail));
        let keeps = healing && !heals.tries().is_empty();
        let may =
            healing && !undecided.contains_key(&server) && spoken.by(server) != Speech::Version1;
        let heal_at = may.then(|| heals.again_at().unwrap_or(now));
        all.insert(server, Drifting { answer, keeps, heal_at });
    }
    Ok(all)
}

/// Whether a sync is the answer. What its agent tells beside changes is for people: an account that was locked by hand
/// must not be opened by a rule, and folders that cannot be watched are not helped by any sync.
fn can_be_healed(detail: &Detail) -> bool {
    !detail.changes.is_empty() && detail.failures.is_empty()
}

/// When the next server is to be brought back without any news of it.
pub(crate) async fn next(db: &mut Connection, now: i64) -> Result<Option<i64>, StoreError> {
    Ok(drifting(db, now).await?.into_values().filter_map(|drifting| drifting.heal_at).min())
}

/// Has every server brought back for which it is time; which.
pub(crate) async fn heal_due(db: &mut Connection, now: i64) -> Result<Vec<ServerId>, StoreError> {
    let mut healed = Vec::new();
    for (server, drifting) in drifting(db, now).await? {
        if drifting.heal_at.is_some_and(|at| at <= now) {
            let heals = Heals::new(store::drift::tries_of(db, server).await?, now);
            let Some(name) = store::servers::name(db, server).await? else { continue };
            heal(db, (server, &name), heals, now).await?;
            healed.push(server);
        }
    }
    Ok(healed)
}

/// What becomes of drift that a server has just reported; in words, for the audit log.
pub(super) async fn answer(
    db: &mut Connection,
    (server, name): (ServerId, &ServerName),
    detail: &Detail,
    now: i64,
) -> Result<String, StoreError> {
    let rules = store::drift::rules(db).await?;
    let labels = store::servers::labels(db, server).await?;
    match drift_answer(&rules, name, &labels) {
        DriftAnswer::Show => return Ok(String::new()),
        DriftAnswer::Leave => return Ok("left so by a rule".to_owned()),
        DriftAnswer::Heal => {}
    }
    if !can_be_healed(detail) {
        return Ok("not healed: somebody must look at it".to_owned());
    }
    if store::drift::is_syncing(db, server).await? {
        return Ok("a sync is on its way".to_owned());
    }
    if !store::questions::of_server(db, server).await?.is_empty() {
        return Ok("not healed: somebody must decide about this server first".to_owned());
    }
    let heals = Heals::new(store::drift::tries_of(db, server).await?, now);
    if !heals.may_at_once(now) {
        return Ok(format!("keeps drifting: {HEALS} syncs within an hour did not last"));
    }
    heal(db, (server, name), heals, now).await?;
    Ok("to be healed".to_owned())
}

/// Why the sync that a rule asked for is not to be sent any more, if so: much may have happened while it waited. One
/// that was `sent` before and not answered is also sent to learn what came of it.
pub(super) async fn refusal(
    db: &mut Connection,
    (server, name): (ServerId, &ServerName),
    sent: bool,
) -> Result<Option<&'static str>, StoreError> {
    let rules = store::drift::rules(db).await?;
    let labels = store::servers::labels(db, server).await?;
    if drift_answer(&rules, name, &labels) != DriftAnswer::Heal {
        return Ok(Some("no rule wants it any more"));
    }
    match store::requests::drift(db, server).await? {
        None if sent => {}
        Some(drift) if !drift.healed => {
            if !drift.detail.failures.is_empty() {
                return Ok(Some("somebody must look at it"));
            }
        }
        None | Some(_) => return Ok(Some("nothing is to be put right any more")),
    }
    let undecided = !store::questions::of_server(db, server).await?.is_empty();
    Ok(undecided.then_some("somebody must decide about this server first"))
}

async fn heal(
    db: &mut Connection,
    (server, name): (ServerId, &ServerName),
    heals: Heals,
    now: i64,
) -> Result<(), StoreError> {
    store::drift::insert_sync(db, server, now).await?;
    let heals = heals.and(now);
    store::drift::set_tries(db, server, heals.tries()).await?;
    let detail = format!("sync {} of at most {HEALS} within an hour", heals.recent(now));
    let event =
        Event { action: "drift.heal", server: Some(name), detail: &detail, ..Event::default() };
    audit::append(db, now, &Actor::backend(), event).await
}
