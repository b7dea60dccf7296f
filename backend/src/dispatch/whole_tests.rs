//! What version 2 adds: whole accounts, requests to servers, drift; and what version 1 is told of it.

use std::collections::BTreeSet;

use bastio_protocol::api::{
    ActionState, EndSessions, Holder, NamedPolicy, NewGrant, NewKeys, NewRequest, RemoveUser,
    RequestKind, Terms, UpdateUser, UserState,
};
use bastio_protocol::audit::LogFilter;
use bastio_protocol::{
    Action, ChangeKind, ChangeNote, Detail, DriftMessage, GroupName, HostMessage, HostRequest,
    KeyGrant, Payload, Status, WantedState,
};

use super::queue::Scope;
use super::*;
use crate::fleet::FleetError;
use crate::plan::Accounts;
use crate::store;
use crate::store::sql;
use crate::testing::{NOW, TestBackend, feedback, host, key, login, new_user};

fn terms(until: Option<i64>) -> Terms {
    Terms { until, ..Terms::default() }
}

fn grant(user: &str, on: &str, terms: Terms) -> NewGrant {
    let on = on.parse().expect("a target");
    let holder = Holder::User(login(user));
    NewGrant { holder, on, login: None, sudo: false, terms, reason: String::new() }
}

async fn confirmed(backend: &TestBackend, server: ServerId) -> Accounts {
    let mut db = backend.store.read().await.expect("a reader");
    store::accounts::of_server(&mut db, server).await.expect("read")
}

/// Lets the agent take everything; what it was sent.
async fn take_all(backend: &TestBackend, session: &Session) -> Vec<Action> {
    let _ = backend;
    let mut seen = Vec::new();
    loop {
        let sent = session.next(10).await.expect("a queue");
        if sent.is_empty() {
            return seen;
        }
        for message in sent {
            session.feedback(&message.reply(Status::Done, "done")).await.expect("taken");
            seen.push(message.action);
        }
    }
}

async fn next_request(session: &Session) -> HostMessage {
    let payloads = session.next_payloads(10).await.expect("a queue");
    match payloads.into_iter().next() {
        Some(Payload::Host(message)) => message,
        other => panic!("no request: {other:?}"),
    }
}

fn wanted_of(message: &HostMessage) -> &WantedState {
    match &message.request {
        HostRequest::Sync { wanted, dry_run: false } => wanted,
        other => panic!("no sync: {other:?}"),
    }
}

#[tokio::test]
async fn a_grant_that_ends_is_one_set_user_and_leaves_at_its_end() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    let mut new = new_user("alice", &[key(10)], "web-1", true);
    new.terms = terms(Some(NOW + 60));
    backend.fleet.add_user(&backend.admin, &new).await.expect("added");
    let sent = take_all(&backend, &session).await;
    let [Action::SetUser { wanted }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((wanted.until, wanted.keys.len()), (Some(NOW + 60), 1));
    let known = confirmed(&backend, web.id).await;
    assert_eq!(known[&login("alice")].whole(), **wanted);
    assert_eq!(backend.fleet.turn().await.expect("a store"), Some(NOW + 60));
    // The clock of these tests stands still: the grant's end comes to it.
    let mut tx = backend.store.write().await.expect("a writer");
    sql::query("UPDATE grants SET until = $1").bind(NOW).execute(&mut tx).await.expect("set");
    tx.commit().await.expect("written");
    assert_eq!(backend.fleet.turn().await.expect("a store"), None);
    let sent = take_all(&backend, &session).await;
    assert_eq!(sent, [Action::RemoveUser { removal: None }]);
    assert!(confirmed(&backend, web.id).await.is_empty());
    let grants = backend.fleet.grants(&backend.admin, None).await.expect("read");
    assert!(grants.is_empty());
}

#[tokio::test]
async fn groups_that_nobody_names_any_more_are_taken_also_from_who_was_away() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    let mut new = new_user("alice", &[key(10)], "web-1", false);
    new.spec.groups = Some([GroupName::parse("docker").expect("a group")].into());
    backend.fleet.add_user(&backend.admin, &new).await.expect("added");
    let sent = take_all(&backend, &session).await;
    let [Action::SetUser { wanted }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(wanted.spec.groups, new.spec.groups);
    session.close().await.expect("closed");

    // While the server is away she goes, and comes back without.
    let removal = RemoveUser::default();
    backend.fleet.remove_user(&backend.admin, &login("alice"), removal).await.expect("gone");
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    let session = backend.connect_v2(1).await;
    let sent = take_all(&backend, &session).await;
    let [Action::SetUser { wanted }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(wanted.spec.groups, Some(BTreeSet::new()));

    // What has been taken is not taken again, and a sync says the same.
    let again = Scope::Logins(BTreeSet::from([login("alice")]));
    let mut tx = backend.store.write().await.expect("a writer");
    let replanned = queue::replan(&mut tx, 1, &again, NOW).await.expect("planned");
    assert!(replanned.servers.is_empty(), "{replanned:?}");
    drop(tx);
    let mut db = backend.store.read().await.expect("a reader");
    let wanted = queue::wanted(&mut db, web.id, NOW).await.expect("read");
    assert_eq!(wanted[&login("alice")].spec.groups, Some(BTreeSet::new()));
}

#[tokio::test]
async fn an_agent_of_version_1_is_never_given_a_right_without_its_end() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    let mut new = new_user("alice", &[key(10)], "web-1", false);
    new.terms = terms(Some(NOW + 60));
    let change = backend.fleet.add_user(&backend.admin, &new).await.expect("added");
    assert!(session.next(10).await.expect("a queue").is_empty());
    let change = backend
        .fleet
        .change(&backend.admin, change.revision, None, std::time::Duration::ZERO)
        .await
        .expect("there");
    let report = &change.servers[0].actions[0];
    assert_eq!((report.action.as_str(), report.state), ("set-user", ActionState::Failed));
    assert!(report.feedback.as_deref().expect("a reason").contains("version 1"));
}

#[tokio::test]
async fn a_lock_closes_the_account_or_takes_the_keys_where_nothing_can_be_locked() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.enroll("web-2", 2).await;
    let (new, old) = (backend.connect_v2(1).await, backend.connect(2).await);
    backend.add_user("alice", &[key(10)], "*", true).await;
    take_all(&backend, &new).await;
    take_all(&backend, &old).await;
    let set = |state| UpdateUser { state: Some(state), ..UpdateUser::default() };
    let alice = login("alice");
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    fleet.update_user(admin, &alice, &set(UserState::Locked)).await.expect("locked");
    let sent = take_all(&backend, &new).await;
    let [Action::SetUser { wanted }] = &sent[..] else { panic!("{sent:?}") };
    assert!(wanted.locked && wanted.keys.contains(&KeyGrant::plain(key(10))));
    assert_eq!(
        take_all(&backend, &old).await,
        [Action::RemoveKey { public_key: key(10) }, Action::UpdateUser { sudo: false }]
    );
    fleet.update_user(admin, &alice, &set(UserState::Active)).await.expect("unlocked");
    let sent = take_all(&backend, &new).await;
    let [Action::SetUser { wanted }] = &sent[..] else { panic!("{sent:?}") };
    assert!(wanted.is_plain());
    assert_eq!(
        take_all(&backend, &old).await,
        [Action::AddKey { public_key: key(10) }, Action::UpdateUser { sudo: true }]
    );
}

#[tokio::test]
async fn a_sync_says_what_is_wanted_when_it_is_sent_and_confirms_all_of_it() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    backend.add_user("alice", &[key(10)], "web-1", true).await;
    backend.answer_all(&session, Status::Failed).await;
    let asked = backend.fleet.sync_server(&backend.admin, &host("web-1")).await.expect("asked");
    let asked = asked.request.expect("one request");
    let first = next_request(&session).await;
    assert_eq!(wanted_of(&first).accounts.len(), 1);
    drop(session);
    let session = backend.connect_v2(1).await;
    backend.add_user("bob", &[key(11)], "web-1", false).await;
    let again = next_request(&session).await;
    assert_eq!(wanted_of(&again).accounts.len(), 2, "bob has come meanwhile");
    let late = session.feedback(&first.reply(Status::Done, "late")).await.expect("taken");
    assert_eq!(late, FeedbackOutcome::Unknown, "an answer to what is not wanted any more");
    let mut answer = again.reply(Status::Done, "2 accounts, 3 changes");
    let text = "alice was made".to_owned();
    let note = ChangeNote { username: Some(login("alice")), kind: ChangeKind::CreateUser, text };
    answer.detail = Some(Box::new(Detail { changes: vec![note], ..Detail::default() }));
    let outcome = session.feedback(&answer).await.expect("taken");
    assert_eq!(outcome, FeedbackOutcome::Matched);
    let twice = session.feedback(&answer).await.expect("taken");
    assert_eq!(twice, FeedbackOutcome::Duplicate);
    let known = confirmed(&backend, web.id).await;
    assert!(known[&login("alice")].sudo && known.contains_key(&login("bob")));
    let server = backend.fleet.server(&backend.admin, &host("web-1")).await.expect("there");
    assert_eq!(server.server.failed, 0);
    let wait = std::time::Duration::ZERO;
    let report = backend.fleet.await_request(&backend.admin, asked.id, wait).await.expect("there");
    assert_eq!((report.state, report.tries), (ActionState::Done, 2));
    assert_eq!(report.detail.expect("kept").changes.len(), 1);
}

/// The command that waits for it must not be told that it failed.
#[tokio::test]
async fn what_a_sync_has_done_before_its_turn_counts_as_done() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    backend.fleet.sync_server(&backend.admin, &host("web-1")).await.expect("asked");
    let (bob, carol) = (login("bob"), login("carol"));
    let added = backend.add_user("bob", &[key(11)], "web-1", false).await;
    let sync = next_request(&session).await;
    assert!(wanted_of(&sync).accounts.contains_key(&bob));
    let late = backend.add_user("carol", &[key(12)], "web-1", false).await;
    session.feedback(&sync.reply(Status::Done, "1 account")).await.expect("taken");
    for name in [&bob, &carol] {
        let gone = backend.fleet.remove_user(&backend.admin, name, RemoveUser::default()).await;
        gone.expect("removed");
    }
    for (change, state, text) in [
        (added, ActionState::Done, "not sent: the server has it so since a sync"),
        (late, ActionState::Failed, "not sent: revision 5 took its place"),
    ] {
        let wait = std::time::Duration::ZERO;
        let change = backend.fleet.change(&backend.admin, change.revision, None, wait).await;
        let change = change.expect("there");
        assert!(change.complete && !change.servers[0].actions.is_empty());
        for action in &change.servers[0].actions {
            assert_eq!((action.state, action.feedback.as_deref()), (state, Some(text)));
        }
    }
}

#[tokio::test]
async fn a_sync_that_failed_half_way_leaves_nothing_trusted() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    backend.add_user("alice", &[key(10)], "web-1", true).await;
    backend.fleet.sync_server(&backend.admin, &host("web-1")).await.expect("asked");
    let sync = next_request(&session).await;
    session.feedback(&sync.reply(Status::Failed, "half of it")).await.expect("taken");
    take_all(&backend, &session).await;
    let removed = bastio_protocol::api::RemoveUser::default();
    backend.fleet.remove_user(&backend.admin, &login("alice"), removed).await.expect("removed");
    let sent = take_all(&backend, &session).await;
    assert_eq!(sent, [Action::RemoveUser { removal: None }]);
}

#[tokio::test]
async fn requests_are_refused_where_nobody_can_answer_them() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let check = NewRequest { kind: RequestKind::Check, allow_no_admin: false };
    let web = host("web-1");
    let refused = backend.fleet.request(&backend.admin, &web, check).await;
    assert!(matches!(refused, Err(FleetError::NotConnected(_))), "{refused:?}");
    let _session = backend.connect(1).await;
    let refused = backend.fleet.request(&backend.admin, &web, check).await;
    assert!(matches!(refused, Err(FleetError::Version1(_))), "{refused:?}");
    let nothing = backend.fleet.await_request(&backend.admin, 9, std::time::Duration::ZERO).await;
    assert!(matches!(nothing, Err(FleetError::NoSuchRequest(9))), "{nothing:?}");
}

#[tokio::test]
async fn drift_is_kept_until_it_is_gone_and_told_in_the_audit_log() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    let text = "a key that bastio did not put there".to_owned();
    let note = ChangeNote { username: Some(login("alice")), kind: ChangeKind::RemoveKey, text };
    let detail = Detail { changes: vec![note], ..Detail::default() };
    let found = DriftMessage { at: NOW, healed: false, detail };
    let gone = DriftMessage { at: NOW, healed: false, detail: Detail::default() };
    session.drifted(&gone).await.expect("none was there: no news");
    session.drifted(&found).await.expect("taken");
    session.drifted(&found).await.expect("the same after a reconnect: no news");
    let web = host("web-1");
    let shown = backend.fleet.server(&backend.admin, &web).await.expect("there");
    assert_eq!((shown.server.drifted, shown.drift.as_deref()), (true, Some(&found)));
    let status = backend.fleet.status(&backend.admin, String::new()).await.expect("read");
    assert_eq!(status.drifted, 1);
    session.drifted(&DriftMessage { healed: true, ..found.clone() }).await.expect("taken");
    assert!(!backend.fleet.servers(&backend.admin).await.expect("read")[0].drifted);
    session.drifted(&found).await.expect("the same again, and not put right this time");
    assert!(backend.fleet.servers(&backend.admin).await.expect("read")[0].drifted);
    session.drifted(&gone).await.expect("taken");
    let shown = backend.fleet.server(&backend.admin, &web).await.expect("there");
    assert_eq!(shown.drift, None);
    let drifts = Some("drift.*".parse().expect("a pattern"));
    let log = backend.log(&LogFilter { action: drifts, ..LogFilter::default() }).await;
    let actions: Vec<&str> = log.iter().map(|chained| chained.row.action.as_str()).collect();
    assert_eq!(actions, ["drift.found", "drift.healed", "drift.found", "drift.gone"]);
    let words =
        "a sync would put it right by alice: remove-key (a key that bastio did not put there)";
    assert_eq!(log[0].row.detail, words);
}

#[tokio::test]
async fn an_agent_that_connects_anew_gets_no_more_of_the_audit_log() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let drift = |number: u32| {
        let text = format!("key {number}");
        let note = ChangeNote { username: Some(login("alice")), kind: ChangeKind::AddKey, text };
        let detail = Detail { changes: vec![note], ..Detail::default() };
        DriftMessage { at: NOW, healed: false, detail }
    };
    for number in 0..100 {
        let session = backend.connect_v2(1).await;
        session.drifted(&drift(number)).await.expect("taken");
    }
    let web = host("web-1");
    let shown = backend.fleet.server(&backend.admin, &web).await.expect("there");
    assert_eq!(
        shown.drift.as_deref(),
        Some(&drift(99)),
        "what is known is the last of it all the same"
    );
    let drifts = Some("drift.*".parse().expect("a pattern"));
    let log = backend.log(&LogFilter { action: drifts, ..LogFilter::default() }).await;
    assert_eq!(log.len(), 30);
}

#[tokio::test]
async fn sessions_are_ended_where_the_person_may_log_in() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.enroll("web-2", 2).await;
    let session = backend.connect_v2(1).await;
    backend.add_user("alice", &[key(10)], "web-1", true).await;
    take_all(&backend, &session).await;
    let everywhere = EndSessions::default();
    let change = backend.fleet.end_sessions(&backend.admin, &login("alice"), &everywhere).await;
    assert_eq!(change.expect("asked").servers.len(), 1);
    // An edit that replans the account leaves it in the queue.
    backend.add_user("alice", &[key(11)], "web-1", true).await;
    let sent = take_all(&backend, &session).await;
    assert_eq!(sent, [Action::EndSessions, Action::AddKey { public_key: key(11) }]);
}

#[tokio::test]
async fn options_that_a_key_cannot_have_are_refused_whole() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    backend.add_user("alice", &[key(10)], "", false).await;
    let options = |text: &str| bastio_protocol::KeyOptions::parse(text).expect("options");
    let terms = |text: &str| Terms { key_options: options(text), ..Terms::default() };
    // key(10) is on no token.
    let refused = fleet.add_grant(admin, &grant("alice", "web-1", terms("verify-required"))).await;
    assert!(matches!(refused, Err(FleetError::UnfitOptions { .. })), "{refused:?}");
    let keys = vec![key(11).to_string()];
    let new = NewKeys { keys, options: options("no-touch-required"), until: None };
    let refused = fleet.add_keys(admin, &login("alice"), &new).await;
    assert!(matches!(refused, Err(FleetError::UnfitOptions { .. })), "{refused:?}");

    let new = NewKeys { options: options("from=\"10.0.0.0/8\""), ..new };
    fleet.add_keys(admin, &login("alice"), &new).await.expect("taken");
    let twice = terms("from=\"192.0.2.0/24\"");
    let refused = fleet.add_grant(admin, &grant("alice", "web-1", twice)).await;
    assert!(matches!(refused, Err(FleetError::TwoOptions { .. })), "{refused:?}");
    assert_eq!(fleet.grants(admin, None).await.expect("read"), []);
    fleet.add_grant(admin, &grant("alice", "web-1", terms("restrict"))).await.expect("both hold");
    assert_eq!(fleet.user(admin, &login("alice")).await.expect("read").keys.len(), 2);
}

#[tokio::test]
async fn taking_sudo_from_a_person_takes_policies_too() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let policy: NamedPolicy =
        serde_json::from_str(r#"{"name":"who","commands":["/usr/bin/id"],"run_as":["root"]}"#)
            .expect("a policy");
    fleet.add_policy(admin, &policy).await.expect("added");
    backend.add_user("alice", &[key(10)], "", false).await;
    let terms = Terms { sudo_policy: Some(policy.name), ..Terms::default() };
    fleet.add_grant(admin, &grant("alice", "web-1", terms)).await.expect("granted");
    let none = UpdateUser { sudo: Some(false), ..UpdateUser::default() };
    fleet.update_user(admin, &login("alice"), &none).await.expect("taken");
    let left = fleet.grants(admin, None).await.expect("read");
    assert!(!left[0].sudo && left[0].terms.is_empty(), "{left:?}");
}

#[tokio::test]
async fn edits_that_cannot_hold_are_refused_whole() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let refused = fleet.add_user(admin, &new_user("root", &[key(10)], "web-1", true)).await;
    assert!(matches!(refused, Err(FleetError::SystemName(_))), "{refused:?}");
    backend.add_user("alice", &[key(10)], "", false).await;
    let options = |text: &str| {
        let key_options = bastio_protocol::KeyOptions::parse(text).expect("options");
        Terms { key_options, ..Terms::default() }
    };
    fleet.add_grant(admin, &grant("alice", "*", options("no-pty"))).await.expect("granted");
    let refused = fleet.add_grant(admin, &grant("alice", "web-1", options("restrict"))).await;
    assert!(matches!(refused, Err(FleetError::Conflict(_))), "{refused:?}");
    let past = fleet.add_grant(admin, &grant("alice", "web-1", terms(Some(NOW)))).await;
    assert!(matches!(past, Err(FleetError::Past)), "{past:?}");
    assert_eq!(fleet.grants(admin, None).await.expect("read").len(), 1);
    let stray = feedback("1", Status::Done, "");
    let session = backend.connect_v2(1).await;
    assert_eq!(session.feedback(&stray).await.expect("taken"), FeedbackOutcome::Unknown);
}
