//! From an edit to queued actions: reads the part of the model that it touches, lets
//! [`crate::plan`] work out the difference, and queues it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bastio_protocol::api::ActionState;
use bastio_protocol::{Action, ActionMessage, ServerName, Username, WantedAccount};

use super::candidate::{Candidate, Fates, Question, There, fitted, lay_over, message, steps};
use super::spread::spread;
use crate::plan::{self, Accounts, Conflict, Effect, Entitlement, Host, Reach, Step};
use crate::store::actions::{ActionId, QueuedAction};
use crate::store::speech::Speech;
use crate::store::{self, Connection, ServerId, StoreError};

/// What an edit touches. Failures outside it are left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// These accounts, on every server.
    Logins(BTreeSet<Username>),
    /// These accounts on one server; with `None` everything there, said again.
    Server(ServerId, Option<BTreeSet<Username>>),
}

impl Scope {
    fn server(&self) -> Option<ServerId> {
        match self {
            Self::Logins(_) => None,
            Self::Server(server, _) => Some(*server),
        }
    }

    /// The accounts, unless all of a server.
    pub(crate) fn logins(&self) -> Option<&BTreeSet<Username>> {
        match self {
            Self::Logins(logins) => Some(logins),
            Self::Server(_, logins) => logins.as_ref(),
        }
    }

    /// Whether a server is to be told everything again, also what it has confirmed.
    pub(super) fn is_whole_server(&self) -> bool {
        matches!(self, Self::Server(_, None))
    }

    pub(super) fn covers(&self, login: &Username) -> bool {
        self.logins().is_none_or(|logins| logins.contains(login))
    }
}

/// What came of planning anew.
#[derive(Debug, Default)]
pub(crate) struct Replanned {
    /// The servers that got something to do, or have less to do, by name.
    pub(crate) servers: Vec<Touched>,
    /// Grants that contradict each other; what they concern was left out.
    pub(crate) conflicts: Vec<Conflict>,
    /// What is to be queued, each server's in order.
    pub(crate) queue: Vec<(ServerId, ActionMessage)>,
    /// Whether the revision also waits for what was under way before.
    pub(crate) waits: bool,
}

/// A server for which planning anew changed something.
#[derive(Debug)]
pub(crate) struct Touched {
    /// Its number.
    pub(crate) id: ServerId,
    /// Its name.
    pub(crate) name: ServerName,
    /// What it will be told that it was not to be told before.
    pub(crate) steps: Arc<[Step]>,
    /// What becomes of its accounts, as far as the scope goes.
    pub(crate) effect: Arc<Effect>,
}

impl Replanned {
    /// Whether no server is told anything that may take access away.
    pub(crate) fn only_gives(&self) -> bool {
        self.servers.iter().all(|server| {
            let is_new = |step: &Step| server.effect.gained.contains(&step.login);
            let sets_new =
                |step: &Step| matches!(step.action, Action::SetUser { .. }) && is_new(step);
            server.steps.iter().all(|step| step.action.only_opens() || sets_new(step))
        })
    }
}

/// What is to be queued to lead from what the servers have, and have been told, to what the model wants. Takes back
/// what was never sent and is not wanted any more, and lets `revision` wait for all that is under way for the same
/// accounts.
pub(crate) async fn replan(
    db: &mut Connection,
    revision: i64,
    scope: &Scope,
    now: i64,
) -> Result<Replanned, StoreError> {
    if scope.logins().is_some_and(BTreeSet::is_empty) {
        return Ok(Replanned::default());
    }
    store::actions::supersede(db, scope.server(), scope.logins()).await?;
    let model = model(db, scope.logins(), now).await?;
    let removals = store::policies::removals(db).await?;
    let overlay = store::adoptions::overlay(db).await?;
    let mut present = Present::load(db, scope).await?;
    let reach = match scope {
        Scope::Logins(_) => plan::reach(&model),
        Scope::Server(..) => Reach::default(),
    };
    let mut there = present.servers();
    there.extend(overlay.keys().copied());
    let hosts = hosts(db, scope, &reach, there).await?;
    let ids: Vec<ServerId> = hosts.iter().map(|(server, _)| *server).collect();
    let spoken = store::speech::spoken(db, &ids).await?;
    let question = Question::new(plan::Index::new(&model), scope, &removals);
    let candidate = |(server, host)| {
        let (speech, adopted) = (spoken.by(server), overlay.get(&server));
        let there = present.take(server);
        Candidate { server, host, speech, adopted, there }
    };
    let all: Vec<Candidate<'_>> = hosts.into_iter().map(candidate).collect();
    let mut fates = Fates::default();
    let mut replanned = Replanned::default();
    for decided in spread(all, |server| question.decide(server)) {
        fates.extend(decided.fates);
        replanned.conflicts.extend(decided.conflicts);
        replanned.queue.extend(decided.queue.into_iter().map(|message| (decided.server, message)));
        replanned.servers.extend(decided.touched);
    }
    fates.end(db, revision, now).await?;
    store::actions::link(db, revision, &fates.under_way).await?;
    replanned.waits = !fates.under_way.is_empty();
    replanned.servers.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(replanned)
}

impl Fates {
    /// Ends what will not be sent.
    async fn end(&self, db: &mut Connection, revision: i64, now: i64) -> Result<(), StoreError> {
        let reason = format!("not sent: revision {revision} took its place");
        store::actions::end_unsent(db, &self.overtaken, ActionState::Failed, &reason, now).await?;
        let reason = "not sent: the server has it so since a sync";
        store::actions::end_unsent(db, &self.there_already, ActionState::Done, reason, now).await
    }
}

/// The rights to these accounts, with the numeric ids that belong to them; to all when `None`.
async fn model(
    db: &mut Connection,
    logins: Option<&BTreeSet<Username>>,
    now: i64,
) -> Result<Vec<Entitlement>, StoreError> {
    let mut model = store::grants::entitlements(db, logins, now).await?;
    let uids = store::uids::pooled(db, logins).await?;
    for right in model.iter_mut().filter(|_| !uids.is_empty()) {
        right.rights.uid = uids.get(&right.login).copied();
    }
    Ok(model)
}

/// What a server must have, as its agent can be told.
pub(super) fn desired(
    model: &[Entitlement],
    host: &Host,
    speech: Speech,
) -> (Accounts, Vec<Conflict>) {
    fitted(plan::merge(model, host), speech)
}

/// Everything that a server must have now.
pub(super) async fn wanted(
    db: &mut Connection,
    server: ServerId,
    now: i64,
) -> Result<BTreeMap<Username, WantedAccount>, StoreError> {
    let scope = Scope::Server(server, None);
    let Some(host) = host(db, server).await? else { return Ok(BTreeMap::new()) };
    let model = model(db, None, now).await?;
    let mut accounts = plan::desired(&model, &host);
    let overlay = store::adoptions::overlay(db).await?;
    lay_over(&mut accounts, overlay.get(&server), &scope);
    let (confirmed, _, mut sent) = Present::load(db, &scope).await?.take(server).beside(&accounts);
    sent.retain(|queued| queued.tries > 0);
    let after_sent = plan::projected(confirmed.clone(), &steps(&sent));
    plan::retract(&mut accounts, [&confirmed, &after_sent]);
    Ok(accounts.into_iter().map(|(login, account)| (login, account.whole())).collect())
}

/// Brings an account in line once nothing is under way for it any more, without trying again what
/// has failed: after a failure, what was queued behind it was worked out from a state that never
/// came. What was given and failed may be there all the same: what of it nobody wants any more is
/// taken away. Failures whose wish is gone by now are forgotten. Edits that waited for the action
/// `ended` wait for what this queues. Whether something was queued.
pub(crate) async fn settle(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
    ended: ActionId,
    now: i64,
) -> Result<bool, StoreError> {
    if store::actions::is_pending(db, server, login).await? {
        return Ok(false);
    }
    let failed = store::actions::standing(db, server, login).await?;
    let doubtful = store::accounts::is_doubtful(db, server, login).await?;
    if failed.is_empty() && !doubtful && !store::suspects::any(db, server, login).await? {
        return Ok(false);
    }
    let scope = Scope::Server(server, Some(BTreeSet::from([login.clone()])));
    let Some(host) = host(db, server).await? else { return Ok(false) };
    let model = model(db, scope.logins(), now).await?;
    let speech = store::speech::spoken_by(db, server).await?;
    let (mut wanted, _) = desired(&model, &host, speech);
    let overlay = store::adoptions::overlay(db).await?;
    lay_over(&mut wanted, overlay.get(&server), &scope);
    let (confirmed, accounts, _) = Present::load(db, &scope).await?.take(server).beside(&wanted);
    if speech != Speech::Version1 {
        plan::retract(&mut wanted, [&confirmed]);
    }
    let todo = plan::difference(&wanted, &accounts);
    let wished = |failed: &Step| todo.iter().any(|todo| plan::same(todo, failed));
    for (id, _) in failed.iter().filter(|(_, step)| !wished(step)) {
        store::actions::forget_failure(db, *id).await?;
    }
    store::accounts::set_doubtful(db, server, login, false).await?;
    let removals = store::policies::removals(db).await?;
    let fresh =
        todo.into_iter().filter(|step| failed.iter().all(|(_, old)| !plan::same(old, step)));
    let queue: Vec<(ServerId, ActionMessage)> =
        fresh.map(|step| (server, message(step, &removals, overlay.get(&server)))).collect();
    let revisions = store::actions::revisions_of(db, ended).await?;
    store::actions::enqueue(db, &revisions, &queue, now).await?;
    Ok(!queue.is_empty())
}

/// The servers that a scope may be about: those within reach of its grants, and those with something `there`.
pub(super) async fn hosts(
    db: &mut Connection,
    scope: &Scope,
    reach: &Reach,
    there: BTreeSet<ServerId>,
) -> Result<Vec<(ServerId, Host)>, StoreError> {
    let Some(server) = scope.server() else {
        let reached = store::reached::reached(db, reach, there).await?;
        return Ok(reached
            .into_iter()
            .map(|(id, (name, labels))| (id, Host { name, labels }))
            .collect());
    };
    Ok(host(db, server).await?.map(|host| (server, host)).into_iter().collect())
}

async fn host(db: &mut Connection, server: ServerId) -> Result<Option<Host>, StoreError> {
    let Some(name) = store::servers::name(db, server).await? else { return Ok(None) };
    let labels = store::servers::labels(db, server).await?;
    Ok(Some(Host { name, labels }))
}

/// Foreign text made fit for terminals and tables: one line, no control or direction characters,
/// at most `limit` bytes.
pub(crate) fn for_people(text: &str, limit: usize) -> String {
    let harmless = |c: char| {
        let turns_direction = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns_direction || c == '\u{2028}' || c == '\u{2029}' {
            ' '
        } else {
            c
        }
    };
    let mut clean = String::with_capacity(text.len().min(limit));
    for c in text.trim().chars().map(harmless) {
        if clean.len() + c.len_utf8() > limit {
            break;
        }
        clean.push(c);
    }
    clean.truncate(clean.trim_end().len());
    clean
}

/// What servers have, may have, and have been told, within a scope.
#[derive(Default)]
struct Present {
    accounts: BTreeMap<ServerId, Accounts>,
    suspects: BTreeMap<ServerId, Accounts>,
    pending: BTreeMap<ServerId, Vec<QueuedAction>>,
}

impl Present {
    async fn load(db: &mut Connection, scope: &Scope) -> Result<Self, StoreError> {
        match scope {
            Scope::Logins(logins) => Self::of_logins(db, logins).await,
            Scope::Server(server, _) => Self::of_server(db, *server, scope).await,
        }
    }

    async fn of_logins(
        db: &mut Connection,
        logins: &BTreeSet<Username>,
    ) -> Result<Self, StoreError> {
        let mut present = Self::default();
        for login in logins {
            for (server, accounts) in store::accounts::of_login(db, login).await? {
                present.accounts.entry(server).or_default().extend(accounts);
            }
            for (server, suspects) in store::suspects::of_login(db, login).await? {
                present.suspects.entry(server).or_default().extend(suspects);
            }
            for (server, actions) in store::actions::pending_of_login(db, login).await? {
                present.pending.entry(server).or_default().extend(actions);
            }
        }
        Ok(present)
    }

    async fn of_server(
        db: &mut Connection,
        server: ServerId,
        scope: &Scope,
    ) -> Result<Self, StoreError> {
        let mut accounts = store::accounts::of_server(db, server).await?;
        accounts.retain(|login, _| scope.covers(login));
        let mut suspects = store::suspects::of_server(db, server).await?;
        suspects.retain(|login, _| scope.covers(login));
        let mut pending = store::actions::pending_of_server(db, server).await?;
        pending.retain(|queued| scope.covers(&queued.message.username));
        Ok(Self {
            accounts: BTreeMap::from([(server, accounts)]),
            suspects: BTreeMap::from([(server, suspects)]),
            pending: BTreeMap::from([(server, pending)]),
        })
    }

    /// The servers that there is something of.
    fn servers(&self) -> BTreeSet<ServerId> {
        let ids = self.accounts.keys().chain(self.suspects.keys()).chain(self.pending.keys());
        ids.copied().collect()
    }

    /// What there is of one server.
    fn take(&mut self, server: ServerId) -> There {
        There {
            accounts: self.accounts.remove(&server).unwrap_or_default(),
            suspects: self.suspects.remove(&server).unwrap_or_default(),
            pending: self.pending.remove(&server).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{host, key, login};

    /// One server that is told this about alice, whose account comes with it or is there.
    fn telling(action: Action, is_new: bool) -> Replanned {
        let gained = is_new.then(|| login("alice")).into_iter().collect();
        let steps = Arc::new([Step { login: login("alice"), action }]);
        let effect = Arc::new(Effect { gained, ..Effect::default() });
        let touched = Touched { id: ServerId(1), name: host("web-1"), steps, effect };
        Replanned { servers: vec![touched], ..Replanned::default() }
    }

    #[test]
    fn what_gives_takes_nothing_from_anybody_who_is_there() {
        let set = || Action::SetUser { wanted: Box::new(plan::Account::default().whole()) };
        for (action, gives) in [
            (Action::AddUser { sudo: true }, true),
            (Action::AddKey { public_key: key(1) }, true),
            (Action::UpdateUser { sudo: true }, true),
            (Action::UnlockUser, true),
            (Action::RemoveUser { removal: None }, false),
            (Action::RemoveKey { public_key: key(1) }, false),
            (Action::UpdateUser { sudo: false }, false),
            (set(), false),
            (Action::LockUser, false),
            (Action::EndSessions, false),
        ] {
            let replanned = telling(action, false);
            assert_eq!(replanned.only_gives(), gives, "{replanned:?}");
        }
        assert!(telling(set(), true).only_gives());
        assert!(!telling(Action::RemoveUser { removal: None }, true).only_gives());
    }
}
