//! What an edit comes to on one server: what leads there from what is there or under way to what the model wants. Servers
//! that nothing tells apart, since they have nothing of it yet and the same grants are about them, are decided once.
//!
//! This file must not know the database, nor what becomes of what is decided.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bastio_protocol::{Action, ActionMessage, Removal, Username};

use super::mid::new_mid;
use super::queue::{Scope, Touched};
use crate::plan::{self, Account, Accounts, Conflict, Effect, Host, Step};
use crate::store::ServerId;
use crate::store::actions::{ActionId, QueuedAction, step};
use crate::store::adoptions::Adopted;
use crate::store::speech::Speech;

/// What all servers of an edit are asked alike.
pub(super) struct Question<'a> {
    index: plan::Index<'a>,
    scope: &'a Scope,
    removals: &'a BTreeMap<Username, Removal>,
    fresh: Mutex<HashMap<Kind, Option<Change>>>,
}

/// What tells servers apart that have nothing yet: the grants that are about them, and what their agents understand.
type Kind = (Vec<usize>, Speech);

/// What is to be done on a server, and what its accounts come to.
#[derive(Clone)]
struct Change {
    steps: Arc<[Step]>,
    effect: Arc<Effect>,
}

/// A server that an edit may concern.
pub(super) struct Candidate<'a> {
    pub(super) server: ServerId,
    pub(super) host: Host,
    pub(super) speech: Speech,
    pub(super) adopted: Option<&'a Adopted>,
    pub(super) there: There,
}

/// What one server has, may have, and has been told, within a scope.
#[derive(Default)]
pub(super) struct There {
    pub(super) accounts: Accounts,
    pub(super) suspects: Accounts,
    pub(super) pending: Vec<QueuedAction>,
}

/// What an edit comes to on one server.
pub(super) struct Decided {
    pub(super) server: ServerId,
    pub(super) fates: Fates,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) queue: Vec<ActionMessage>,
    pub(super) touched: Option<Touched>,
}

/// What becomes of pending actions when the model has changed.
#[derive(Debug, Default)]
pub(super) struct Fates {
    /// Sent, or still to be sent.
    pub(super) under_way: Vec<ActionId>,
    /// Not wanted any more.
    pub(super) overtaken: Vec<ActionId>,
    /// Done by a sync before it was their turn.
    pub(super) there_already: Vec<ActionId>,
}

impl<'a> Question<'a> {
    /// Whether these grants change something within `scope`; `removals` is what becomes of homes.
    pub(super) fn new(
        index: plan::Index<'a>,
        scope: &'a Scope,
        removals: &'a BTreeMap<Username, Removal>,
    ) -> Self {
        Self { index, scope, removals, fresh: Mutex::default() }
    }

    /// What it comes to there.
    pub(super) fn decide(&self, candidate: Candidate<'_>) -> Decided {
        let grants = self.index.about(&candidate.host);
        if !candidate.is_fresh() {
            return self.decide_alone(candidate, &grants);
        }
        let kind = (grants, candidate.speech);
        if let Some(change) = self.known(&kind) {
            return self.decided(candidate, Fates::default(), Vec::new(), change);
        }
        let decided = self.decide_alone(candidate, &kind.0);
        // A contradiction names its server.
        if decided.conflicts.is_empty() {
            let change = decided.touched.as_ref().map(|touched| Change {
                steps: Arc::clone(&touched.steps),
                effect: Arc::clone(&touched.effect),
            });
            self.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, change);
        }
        decided
    }

    fn known(&self, kind: &Kind) -> Option<Option<Change>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).get(kind).cloned()
    }

    fn decide_alone(&self, mut candidate: Candidate<'_>, grants: &[usize]) -> Decided {
        let (speech, adopted) = (candidate.speech, candidate.adopted);
        let merged = self.index.merge_these(grants, &candidate.host);
        let (mut wanted, conflicts) = fitted(merged, speech);
        lay_over(&mut wanted, adopted, self.scope);
        let there = std::mem::take(&mut candidate.there);
        let (confirmed, accounts, pending) = there.beside(&wanted);
        let (sent, unsent): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|queued| queued.tries > 0);
        let after_sent = plan::projected(accounts, &steps(&sent));
        if speech != Speech::Version1 {
            plan::retract(&mut wanted, [&confirmed, &after_sent]);
        }
        let revised = revise(&wanted, &after_sent, &steps(&unsent), self.scope, speech);
        let mut fates = Fates::default();
        fates.under_way.extend(sent.iter().map(|queued| queued.id));
        fates.decide(&unsent, &revised.drop, &confirmed);
        let change = (!revised.add.is_empty() || !revised.drop.is_empty()).then(|| {
            let had_admins = after_sent.values().any(Account::is_admin);
            let before = plan::projected(after_sent, &steps(&unsent));
            let mut effect = plan::effect(&before, &wanted);
            // What was never sent is nobody's admin yet.
            effect.loses_admins &= had_admins;
            Change { steps: revised.add.into(), effect: effect.into() }
        });
        self.decided(candidate, fates, conflicts, change)
    }

    fn decided(
        &self,
        candidate: Candidate<'_>,
        fates: Fates,
        conflicts: Vec<Conflict>,
        change: Option<Change>,
    ) -> Decided {
        let Candidate { server, host, adopted, .. } = candidate;
        let steps = change.iter().flat_map(|change| change.steps.iter().cloned());
        let queue = steps.map(|step| message(step, self.removals, adopted)).collect();
        let touched = change.map(|Change { steps, effect }| Touched {
            id: server,
            name: host.name,
            steps,
            effect,
        });
        Decided { server, fates, conflicts, queue, touched }
    }
}

impl Candidate<'_> {
    /// Whether it has nothing within the scope, of ours or of others.
    fn is_fresh(&self) -> bool {
        let There { accounts, suspects, pending } = &self.there;
        let nothing = accounts.is_empty() && suspects.is_empty() && pending.is_empty();
        nothing && self.adopted.is_none()
    }
}

impl There {
    /// Its accounts as it has confirmed them, the same with what may be there and is not wanted, and what is under way.
    pub(super) fn beside(self, wanted: &Accounts) -> (Accounts, Accounts, Vec<QueuedAction>) {
        let accounts = plan::with_suspects(self.accounts.clone(), &self.suspects, wanted);
        (self.accounts, accounts, self.pending)
    }
}

impl Fates {
    /// `dropped` are places in `unsent`.
    fn decide(&mut self, unsent: &[QueuedAction], dropped: &[usize], confirmed: &Accounts) {
        for (place, queued) in unsent.iter().enumerate() {
            let fate = if !dropped.contains(&place) {
                &mut self.under_way
            } else if plan::is_so(confirmed, &step(queued.message.clone())) {
                &mut self.there_already
            } else {
                &mut self.overtaken
            };
            fate.push(queued.id);
        }
    }

    /// Adds those of another server.
    pub(super) fn extend(&mut self, other: Self) {
        self.under_way.extend(other.under_way);
        self.overtaken.extend(other.overtaken);
        self.there_already.extend(other.there_already);
    }
}

/// What is added to a server's queue and dropped from it.
fn revise(
    wanted: &Accounts,
    after_sent: &Accounts,
    unsent: &[Step],
    scope: &Scope,
    speech: Speech,
) -> plan::Revised {
    let mut revised = plan::revise(wanted, after_sent, unsent);
    if speech == Speech::Version2 {
        revised.add = plan::at_once(revised.add, wanted);
    }
    if scope.is_whole_server() {
        let mut again = plan::repeat(wanted, after_sent);
        again.retain(|step| !unsent.contains(step) && !revised.add.contains(step));
        revised.add.extend(again);
    }
    revised
}

/// Accounts as agents of that speech can be told.
pub(super) fn fitted(
    (mut wanted, conflicts): (Accounts, Vec<Conflict>),
    speech: Speech,
) -> (Accounts, Vec<Conflict>) {
    if speech == Speech::Version1 {
        plan::for_version_1(&mut wanted);
    }
    (wanted, conflicts)
}

/// Puts what others made beside what is wanted, where no grant wants it.
pub(super) fn lay_over(wanted: &mut Accounts, adopted: Option<&Adopted>, scope: &Scope) {
    for (login, account) in adopted.into_iter().flat_map(|adopted| &adopted.wanted) {
        if scope.covers(login) {
            wanted.entry(login.clone()).or_insert_with(|| account.clone().into());
        }
    }
}

/// What these actions do.
pub(super) fn steps(queue: &[QueuedAction]) -> Vec<Step> {
    queue.iter().map(|queued| step(queued.message.clone())).collect()
}

/// A step as a message; where an account goes, with what becomes of its home. What others made is
/// never deleted.
pub(super) fn message(
    step: Step,
    removals: &BTreeMap<Username, Removal>,
    adopted: Option<&Adopted>,
) -> ActionMessage {
    let mid = new_mid();
    let is_adopted = adopted.is_some_and(|adopted| adopted.logins.contains(&step.login));
    let action = match step.action {
        Action::RemoveUser { .. } if is_adopted => {
            Action::RemoveUser { removal: Some(Removal::Lock) }
        }
        Action::RemoveUser { .. } => {
            Action::RemoveUser { removal: removals.get(&step.login).copied() }
        }
        action => action,
    };
    ActionMessage { mid, username: step.login, action }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use bastio_protocol::KeyGrant;

    use super::*;
    use crate::plan::{Entitlement, Rights};
    use crate::testing::{host, key, login};

    fn grant(on: &str, number: u8, sudo: bool) -> Entitlement {
        let rights = Rights {
            sudo: if sudo { bastio_protocol::Sudo::Plain } else { bastio_protocol::Sudo::None },
            keys: vec![KeyGrant::plain(key(number))],
            ..Rights::default()
        };
        let who = ["ann", "bob"][usize::from(number % 2)];
        Entitlement { on: on.parse().expect("a target"), login: login(who), rights }
    }

    /// Servers of few kinds, of which some have an account or something adopted.
    fn servers() -> impl Strategy<Value = Vec<(usize, u8, bool)>> {
        proptest::collection::vec((0..3_usize, 0..4_u8, any::<bool>()), 1..30)
    }

    fn candidate<'a>(
        number: usize,
        (label, there, version_1): (usize, u8, bool),
        adopted: &'a Adopted,
    ) -> Candidate<'a> {
        let name = host(&format!("s{number}"));
        let labels = [("role".to_owned(), ["web", "db", "mail"][label].to_owned())].into();
        let account = |sudo| Account { sudo, keys: [key(9)].into(), ..Account::default() };
        let accounts = |fits| [(login("ann"), account(false))].into_iter().filter(move |_| fits);
        Candidate {
            server: ServerId(i64::try_from(number).expect("few")),
            host: Host { name, labels },
            speech: if version_1 { Speech::Version1 } else { Speech::Version2 },
            adopted: (there == 2).then_some(adopted),
            there: There {
                accounts: accounts(there == 1).collect(),
                suspects: accounts(there == 3).collect(),
                pending: Vec::new(),
            },
        }
    }

    /// All that is decided, but for the ids, which are each message's own.
    fn told(decided: &Decided) -> String {
        let queue: Vec<_> =
            decided.queue.iter().map(|message| (&message.username, &message.action)).collect();
        format!("{:?} {queue:?} {:?} {:?}", decided.server, decided.conflicts, decided.touched)
    }

    proptest! {
        #[test]
        fn what_is_decided_once_for_several_is_what_each_alone_comes_to(
            grants in proptest::collection::vec((0..5_usize, 0..4_u8, any::<bool>()), 0..6),
            servers in servers(),
        ) {
            const ON: [&str; 5] = ["*", "role=web", "role=web|db", "role!=mail", "s0,s1,s2"];
            let model: Vec<Entitlement> =
                grants.iter().map(|(on, number, sudo)| grant(ON[*on], *number, *sudo)).collect();
            let scope = Scope::Logins([login("ann"), login("bob")].into());
            let adopted = Adopted {
                logins: BTreeSet::from([login("bob")]),
                wanted: BTreeMap::from([(login("bob"), Default::default())]),
            };
            let removals = BTreeMap::new();
            let question = || Question::new(plan::Index::new(&model), &scope, &removals);
            let together = question();
            let mut ids = BTreeSet::new();
            for (number, server) in servers.iter().enumerate() {
                let one = together.decide(candidate(number, *server, &adopted));
                let alone = question().decide(candidate(number, *server, &adopted));
                prop_assert_eq!(told(&one), told(&alone), "{:?}", server);
                for message in &one.queue {
                    prop_assert!(ids.insert(message.mid.clone()), "an id of its own");
                }
            }
            let kinds = together.fresh.lock().expect("no panic").len();
            prop_assert!(kinds <= 3 * 2 * 2, "{kinds} kinds of servers");
        }
    }

    #[test]
    fn a_contradiction_is_told_of_each_server() {
        let options = |text| bastio_protocol::KeyOptions::parse(text).expect("options");
        let limited = |text| {
            let mut entitlement = grant("*", 0, false);
            entitlement.rights.key_options = options(text);
            entitlement
        };
        let model = [limited("no-pty"), limited("no-agent-forwarding")];
        let scope = Scope::Logins([login("ann")].into());
        let removals = BTreeMap::new();
        let question = Question::new(plan::Index::new(&model), &scope, &removals);
        let adopted = Adopted::default();
        for number in 0..3 {
            let decided = question.decide(candidate(number, (0, 0, false), &adopted));
            let servers: Vec<String> =
                decided.conflicts.iter().map(|one| one.server.to_string()).collect();
            assert_eq!(servers, [format!("s{number}")]);
        }
    }
}
