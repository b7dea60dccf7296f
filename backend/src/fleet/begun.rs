//! What an edit has come to in the moment in which it is written, from memory: to read thousands of actions again takes time
//! from those who send them. This file must not know what becomes of them afterwards.

use std::collections::HashMap;

use bastio_protocol::ActionMessage;
use bastio_protocol::api::{ActionReport, ActionState, Change, Presence, ServerOutcome};

use super::Fleet;
use crate::dispatch::prompt::Prompt;
use crate::dispatch::queue::Replanned;
use crate::store::ServerId;

/// The actions of an edit that has nothing but what it has queued itself, by server name.
pub(super) struct Begun(Vec<(ServerId, ServerOutcome)>);

impl Begun {
    /// What is planned and put into the queues. `None` when the edit waits for more than that.
    pub(super) fn of(planned: &Replanned, prompt: &Prompt) -> Option<Self> {
        if planned.waits {
            return None;
        }
        let mut actions = HashMap::<ServerId, Vec<ActionReport>>::new();
        for (server, message) in prompt.messages() {
            let sent = prompt.includes(server);
            actions.entry(server).or_default().push(report(message, sent));
        }
        let outcomes = planned.servers.iter().filter_map(|touched| {
            let (actions, server) = (actions.remove(&touched.id)?, touched.name.clone());
            let presence = Presence::Connected;
            Some((touched.id, ServerOutcome { server, presence, actions }))
        });
        let outcomes = outcomes.collect();
        // Whoever is told nothing of a server would believe that it has nothing to do.
        actions.is_empty().then_some(Self(outcomes))
    }

    /// The same for people. `None` when a server is not connected: when that ended is on the disk.
    pub(super) fn change(self, fleet: &Fleet, revision: i64, summary: &str) -> Option<Change> {
        let Self(outcomes) = self;
        if !outcomes.iter().all(|(server, _)| fleet.dispatch.is_connected(*server)) {
            return None;
        }
        let servers: Vec<ServerOutcome> =
            outcomes.into_iter().map(|(_, outcome)| outcome).collect();
        let steps = |action: &ActionReport| 1 + u64::from(action.tries);
        let progress = servers.iter().flat_map(|server| &server.actions).map(steps).sum();
        let (summary, complete) = (summary.to_owned(), servers.is_empty());
        let (request, preview) = (None, None);
        Some(Change { revision, summary, progress, complete, servers, request, preview })
    }
}

fn report(message: &ActionMessage, sent: bool) -> ActionReport {
    ActionReport {
        action: message.action.name().to_owned(),
        username: message.username.clone(),
        state: if sent { ActionState::Sent } else { ActionState::Queued },
        tries: u32::from(sent),
        status: None,
        feedback: None,
        detail: None,
        mid: message.mid.text(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bastio_protocol::KeyOptions;
    use bastio_protocol::api::NewKeys;

    use super::*;
    use crate::testing::{TestBackend, key, login, signer};

    /// The same as the database has it.
    async fn stored(backend: &TestBackend, revision: i64) -> Change {
        let change = backend.fleet.change(&backend.admin, revision, None, Duration::ZERO).await;
        change.expect("on record")
    }

    fn states(change: &Change) -> Vec<(&str, ActionState)> {
        let of = |server: &ServerOutcome| {
            server.actions.iter().map(|action| action.state).collect::<Vec<_>>()
        };
        let servers = change.servers.iter();
        servers
            .flat_map(|server| of(server).into_iter().map(|state| (server.server.as_str(), state)))
            .collect()
    }

    #[tokio::test]
    async fn an_edit_is_told_from_memory_as_the_database_has_it() {
        use ActionState::{Queued, Sent};
        let backend = TestBackend::new().await;
        for (name, number) in [("web-2", 1), ("web-1", 2), ("db-1", 3)] {
            backend.enroll(name, number).await;
        }
        let obedient = [backend.connect_v2(1).await, backend.connect_v2(2).await];
        obedient.iter().for_each(|session| session.obeys(signer()));
        let old = backend.connect(3).await;

        let first = backend.add_user("alice", &[key(10), key(11)], "*", true).await;
        let expected = [
            ("db-1", Queued),
            ("db-1", Queued),
            ("db-1", Queued),
            ("web-1", Sent),
            ("web-2", Sent),
        ];
        assert_eq!(states(&first), expected);
        assert_eq!((first.progress, first.complete), (7, false));
        assert_eq!(stored(&backend, first.revision).await, first);

        let nobody = backend.add_user("bob", &[key(12)], "role=none", false).await;
        assert!(nobody.complete && nobody.servers.is_empty());
        assert_eq!(stored(&backend, nobody.revision).await, nobody);

        // For what is under way it waits, too.
        let carol = backend.add_user("carol", &[key(13)], "web-1", false).await;
        assert_eq!(stored(&backend, carol.revision).await, carol);
        let keys = NewKeys {
            keys: vec![key(15).to_string()],
            options: KeyOptions::default(),
            until: None,
        };
        let more = backend.fleet.add_keys(&backend.admin, &login("alice"), &keys).await;
        let more = more.expect("added");
        let web = states(&more).into_iter().filter(|(server, _)| *server == "web-1");
        assert_eq!(web.collect::<Vec<_>>(), [("web-1", Sent), ("web-1", Queued)]);
        assert_eq!(stored(&backend, more.revision).await, more);
        old.close().await.expect("closed");
        let away = backend.add_user("dave", &[key(14)], "*", false).await;
        assert!(matches!(away.servers[0].presence, Presence::Offline), "{away:?}");
        assert_eq!(stored(&backend, away.revision).await, away);
    }
}
