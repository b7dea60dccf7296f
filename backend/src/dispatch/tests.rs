//! At least once, in order, matched by id within one server, and one session a server.

use bastio_protocol::api::{ActionState, RemoveUser, Role, UpdateUser};
use bastio_protocol::audit::LogFilter;
use bastio_protocol::{Action, ActionMessage, Algorithm, MessageId, Status};

use super::*;
use crate::plan::Accounts;
use crate::store;
use crate::store::actions::QueuedAction;
use crate::testing::{ADDRESS, NOW, TestBackend, feedback, host, key, login, rsa_key};

async fn confirmed(backend: &TestBackend, server: ServerId) -> Accounts {
    let mut db = backend.store.read().await.expect("a reader");
    store::accounts::of_server(&mut db, server).await.expect("read")
}

async fn pending(backend: &TestBackend, server: ServerId) -> Vec<QueuedAction> {
    let mut db = backend.store.read().await.expect("a reader");
    store::actions::pending_of_server(&mut db, server).await.expect("read")
}

fn names(messages: &[bastio_protocol::ActionMessage]) -> Vec<&'static str> {
    messages.iter().map(|message| message.action.name()).collect()
}

#[tokio::test]
async fn only_keys_on_record_log_in() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let found = backend.dispatch.identify(&key(1)).await.expect("a store").expect("on record");
    assert_eq!((found.id, found.name), (web.id, host("web-1")));
    assert_eq!(backend.dispatch.identify(&key(2)).await.expect("a store"), None);
}

#[tokio::test]
async fn actions_go_out_in_order_and_answers_are_believed() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    backend.add_user("alice", &[key(10), key(11)], "web-1", true).await;
    let session = backend.connect(1).await;
    let first = session.next(2).await.expect("a queue");
    assert_eq!(names(&first), ["add-user", "add-key"]);
    let second = session.next(2).await.expect("a queue");
    assert_eq!(names(&second), ["add-key"]);
    assert!(session.next(2).await.expect("a queue").is_empty());
    for message in first.iter().chain(&second) {
        let outcome = session.feedback(&message.reply(Status::Done, "ok")).await.expect("taken");
        assert_eq!(outcome, FeedbackOutcome::Matched);
    }
    let accounts = confirmed(&backend, web.id).await;
    assert_eq!(accounts.len(), 1);
    let alice = &accounts[&login("alice")];
    assert!(alice.sudo);
    assert_eq!(alice.keys, [key(10), key(11)].into());
}

#[tokio::test]
async fn what_was_not_answered_is_sent_again_in_order_after_a_kill() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.add_user("alice", &[key(10), key(11)], "web-1", false).await;
    let session = backend.connect(1).await;
    let sent = session.next(2).await.expect("a queue");
    session.feedback(&sent[0].reply(Status::Done, "")).await.expect("taken");
    std::mem::forget(session);
    let backend = backend.after_kill().await;
    let session = backend.connect(1).await;
    let again = session.next(10).await.expect("a queue");
    assert_eq!(again[0], sent[1], "the same message, with the same id");
    assert_eq!(names(&again), ["add-key", "add-key"]);
    for message in &again {
        session.feedback(&message.reply(Status::Unchanged, "")).await.expect("taken");
    }
    assert!(session.next(10).await.expect("a queue").is_empty());
}

#[tokio::test]
async fn an_answer_that_comes_after_the_connection_counts() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    backend.add_user("alice", &[], "web-1", false).await;
    let first = backend.connect(1).await;
    let sent = first.next(1).await.expect("a queue");
    first.close().await.expect("closed");
    let second = backend.connect(1).await;
    let outcome = second.feedback(&sent[0].reply(Status::Done, "")).await.expect("taken");
    assert_eq!(outcome, FeedbackOutcome::Matched);
    assert!(second.next(1).await.expect("a queue").is_empty(), "not sent again");
    assert!(confirmed(&backend, web.id).await.contains_key(&login("alice")));
}

#[tokio::test]
async fn foreign_made_up_unsent_and_double_answers_change_nothing() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let db = backend.enroll("db-1", 2).await;
    backend.add_user("alice", &[key(10)], "*", false).await;
    let (on_web, on_db) = (backend.connect(1).await, backend.connect(2).await);
    let for_web = on_web.next(1).await.expect("a queue");
    let unsent = pending(&backend, web.id).await;
    let unsent = &unsent.last().expect("one is queued").message;
    for (what, answer) in [
        ("another server's", for_web[0].reply(Status::Done, "")),
        ("made up", feedback("12345", Status::Done, "")),
        ("empty", feedback("", Status::Done, "")),
    ] {
        let outcome = on_db.feedback(&answer).await.expect("taken");
        assert_eq!(outcome, FeedbackOutcome::Unknown, "{what}");
    }
    let early = on_web.feedback(&unsent.reply(Status::Done, "")).await.expect("taken");
    assert_eq!(early, FeedbackOutcome::Unknown, "answered before it was sent");
    assert!(confirmed(&backend, web.id).await.is_empty());
    assert!(confirmed(&backend, db.id).await.is_empty());
    let good = for_web[0].reply(Status::Done, "");
    assert_eq!(on_web.feedback(&good).await.expect("taken"), FeedbackOutcome::Matched);
    let late = for_web[0].reply(Status::Failed, "no, after all");
    assert_eq!(on_web.feedback(&late).await.expect("taken"), FeedbackOutcome::Duplicate);
    assert!(confirmed(&backend, web.id).await.contains_key(&login("alice")));
}

#[tokio::test]
async fn a_number_does_not_answer_for_a_text() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await.id;
    let (mid, action) = (MessageId::from_number(7), Action::RemoveUser { removal: None });
    let asked = (web, ActionMessage { mid, username: login("alice"), action });
    let mut tx = backend.store.write().await.expect("a writer");
    store::actions::enqueue(&mut tx, &[], &[asked], NOW).await.expect("queued");
    tx.commit().await.expect("committed");
    let session = backend.connect(1).await;
    assert_eq!(session.next(1).await.expect("a queue").len(), 1);
    let json = r#"{"type":"feedback","mid":7,"status":200,"feedback":""}"#;
    let parsed = bastio_protocol::Message::parse(json.as_bytes(), &bastio_protocol::KeyPolicy::ANY);
    let bastio_protocol::Message::Feedback(answer) = parsed.expect("a message") else {
        unreachable!("it says feedback")
    };
    assert_eq!(session.feedback(&answer).await.expect("taken"), FeedbackOutcome::Unknown);
}

#[tokio::test]
async fn a_second_session_takes_over() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    let mut old = backend.connect(1).await;
    let sent = old.next(1).await.expect("a queue");
    let new = backend.connect(1).await;
    assert_eq!(old.signal().await, Signal::End(EndReason::TakenOver));
    assert_eq!(old.signal().await, Signal::End(EndReason::TakenOver), "it stays so");
    assert!(matches!(old.next(1).await, Err(DispatchError::TakenOver)));
    old.close().await.expect("closed");
    assert!(backend.dispatch.is_connected(web.id), "the old one's end is not the new one's");
    let again = new.next(10).await.expect("a queue");
    assert_eq!(again[0], sent[0]);
    assert_eq!(again.len(), 2);
    new.close().await.expect("closed");
    assert!(!backend.dispatch.is_connected(web.id));
}

#[tokio::test]
async fn a_dropped_session_is_gone() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    assert!(backend.dispatch.is_connected(web.id));
    drop(session);
    assert!(!backend.dispatch.is_connected(web.id));
}

#[tokio::test]
async fn an_edit_wakes_the_session_and_nobody_else() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.enroll("db-1", 2).await;
    let (mut web, mut db) = (backend.connect(1).await, backend.connect(2).await);
    backend.add_user("alice", &[], "web-1", false).await;
    assert_eq!(web.signal().await, Signal::Work);
    let woken = std::time::Duration::from_millis(50);
    assert!(tokio::time::timeout(woken, db.signal()).await.is_err(), "db-1 has nothing to do");
}

#[tokio::test]
async fn a_removed_server_is_out() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let identity = backend.dispatch.identify(&key(1)).await.expect("a store").expect("on record");
    let mut session = backend.connect(1).await;
    backend.fleet.remove_server(&backend.admin, &host("web-1")).await.expect("removed");
    assert_eq!(session.signal().await, Signal::End(EndReason::Removed));
    assert!(session.next(1).await.is_err());
    assert_eq!(backend.dispatch.identify(&key(1)).await.expect("a store"), None);
    let info = SessionInfo { address: ADDRESS, ident: String::new(), legacy: false };
    let late = backend.dispatch.open(&identity, info).await;
    assert!(matches!(late, Err(DispatchError::NotOnRecord)), "logged in before, opened after");
}

#[tokio::test]
async fn feedback_for_people_is_one_clean_bounded_line() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let change = backend.add_user("alice", &[], "web-1", false).await;
    let session = backend.connect(1).await;
    let sent = session.next(1).await.expect("a queue");
    let long = format!("\u{1b}[31mred\r\nline\u{202e}x{}\n", "é".repeat(1024 * 1024));
    session.feedback(&sent[0].reply(Status::Failed, long)).await.expect("taken");
    let wait = std::time::Duration::ZERO;
    let change = backend.fleet.change(&backend.admin, change.revision, None, wait).await;
    let change = change.expect("there");
    let report = &change.servers[0].actions[0];
    let text = report.feedback.as_deref().expect("a feedback");
    assert!(
        text.starts_with(" [31mred  line xé") || text.starts_with("[31mred  line xé"),
        "{}",
        &text[..30]
    );
    assert!(text.len() <= 4096 && text.len() > 4000);
    assert!(!text.chars().any(char::is_control));
    assert_eq!((report.state, report.status), (ActionState::Failed, Some(Status::Failed)));
}

#[tokio::test]
async fn failures_are_left_alone_until_somebody_asks_again() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    assert_eq!(
        backend.answer_all(&session, Status::Failed).await,
        ["add-user alice", "add-key alice"]
    );
    let detail = backend.fleet.server(&backend.admin, &host("web-1")).await.expect("there");
    assert_eq!((detail.server.pending, detail.server.failed), (0, 2));
    backend.add_user("bob", &[key(11)], "web-1", false).await;
    assert_eq!(backend.answer_all(&session, Status::Done).await, ["add-user bob", "add-key bob"]);
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    assert_eq!(
        backend.answer_all(&session, Status::Failed).await,
        ["add-user alice", "add-key alice"]
    );
    backend.fleet.sync_server(&backend.admin, &host("web-1")).await.expect("planned");
    assert_eq!(
        backend.answer_all(&session, Status::Done).await,
        ["add-user alice", "add-key alice", "add-user bob", "add-key bob"]
    );
    let detail = backend.fleet.server(&backend.admin, &host("web-1")).await.expect("there");
    assert_eq!((detail.server.failed, detail.failures.len()), (0, 0));
    assert_eq!(confirmed(&backend, web.id).await.len(), 2);
}

#[tokio::test]
async fn a_failed_removal_does_not_leave_an_old_key_behind_a_new_account() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    backend.answer_all(&session, Status::Done).await;
    backend
        .fleet
        .remove_user(&backend.admin, &login("alice"), RemoveUser::default())
        .await
        .expect("removed");
    let mut sent = session.next(10).await.expect("a queue");
    let change = backend.add_user("alice", &[key(11)], "web-1", false).await;
    sent.extend(session.next(10).await.expect("a queue"));
    assert_eq!(names(&sent), ["remove-user", "add-user", "add-key"]);
    session.feedback(&sent[0].reply(Status::Failed, "busy")).await.expect("taken");
    session.feedback(&sent[1].reply(Status::Unchanged, "")).await.expect("taken");
    session.feedback(&sent[2].reply(Status::Done, "")).await.expect("taken");
    let more = session.next(10).await.expect("a queue");
    let old = Action::RemoveKey { public_key: key(10) };
    assert_eq!(more.iter().map(|m| m.action.clone()).collect::<Vec<_>>(), [old]);
    let wait = std::time::Duration::ZERO;
    let seen =
        backend.fleet.change(&backend.admin, change.revision, None, wait).await.expect("there");
    assert!(!seen.complete, "the edit waits for the old key to go");
    session.feedback(&more[0].reply(Status::Done, "")).await.expect("taken");
    assert_eq!(confirmed(&backend, web.id).await[&login("alice")].keys, [key(11)].into());
}

#[tokio::test]
async fn an_original_agent_gets_only_what_it_knows() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = backend.connect_as(1, true).await;
    backend.add_user("jean-luc", &[rsa_key(1, 256)], "web-1", false).await;
    let change = backend.add_user("alice", &[key(10), rsa_key(2, 256)], "web-1", false).await;
    let sent = session.next(10).await.expect("a queue");
    assert_eq!(names(&sent), ["add-user", "add-key"]);
    assert!(sent.iter().all(|message| message.username == login("alice")));
    let Action::AddKey { public_key } = &sent[1].action else { unreachable!("named add-key") };
    assert_eq!((public_key.algorithm(), public_key.comment()), (Algorithm::Rsa, ""));
    for message in &sent {
        session.feedback(&message.reply(Status::Done, "")).await.expect("taken");
    }
    assert!(session.next(10).await.expect("a queue").is_empty());
    let wait = std::time::Duration::ZERO;
    let seen =
        backend.fleet.change(&backend.admin, change.revision, None, wait).await.expect("there");
    let failed: Vec<&str> = seen.servers[0]
        .actions
        .iter()
        .filter(|action| action.state == ActionState::Failed)
        .filter_map(|action| action.feedback.as_deref())
        .collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].contains("RSA keys only"), "{failed:?}");
    assert!(seen.complete);
    assert_eq!(confirmed(&backend, web.id).await.len(), 1);
}

#[tokio::test]
async fn an_original_agents_removal_is_asked_twice() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = backend.connect_as(1, true).await;
    backend.add_user("alice", &[], "web-1", false).await;
    backend.answer_all(&session, Status::Done).await;
    backend
        .fleet
        .remove_user(&backend.admin, &login("alice"), RemoveUser::default())
        .await
        .expect("removed");
    let sent = session.next(1).await.expect("a queue");
    session.feedback(&sent[0].reply(Status::Failed, "mail spool not found")).await.expect("taken");
    let again = session.next(1).await.expect("a queue");
    assert_eq!(again, sent);
    session
        .feedback(&again[0].reply(Status::Unchanged, "alice does not exist"))
        .await
        .expect("taken");
    assert!(confirmed(&backend, web.id).await.is_empty());
    backend.add_user("bob", &[], "web-1", false).await;
    backend.answer_all(&session, Status::Done).await;
    backend
        .fleet
        .remove_user(&backend.admin, &login("bob"), RemoveUser::default())
        .await
        .expect("removed");
    assert_eq!(
        backend.answer_all(&session, Status::Failed).await,
        ["remove-user bob", "remove-user bob"]
    );
    assert!(confirmed(&backend, web.id).await.contains_key(&login("bob")), "it runs a process");
}

#[tokio::test]
async fn an_original_agents_existing_account_is_asked_for_sudo_once_more() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = backend.connect_as(1, true).await;
    backend.add_user("alice", &[], "web-1", true).await;
    let sent = session.next(10).await.expect("a queue");
    session
        .feedback(&sent[0].reply(Status::Unchanged, "alice already exists"))
        .await
        .expect("taken");
    let more = session.next(10).await.expect("a queue");
    assert_eq!(more.len(), 1);
    assert_eq!(more[0].action, Action::UpdateUser { sudo: true });
    session.feedback(&more[0].reply(Status::Done, "")).await.expect("taken");
    assert!(confirmed(&backend, web.id).await[&login("alice")].sudo);
}

#[tokio::test]
async fn times_of_sessions_are_on_record() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    session.close().await.expect("closed");
    let mut db = backend.store.read().await.expect("a reader");
    let row = store::servers::find(&mut db, &host("web-1")).await.expect("read").expect("there");
    assert_eq!(row.last_seen, Some(NOW));
    assert_eq!(row.address, Some(ADDRESS.to_string()));
    assert_eq!(row.agent.as_deref(), Some("SSH-2.0-test"));
    assert_eq!(backend.keys.list(&backend.admin).await.expect("listed")[0].role, Role::Admin);
}

#[tokio::test]
async fn nobody_comes_to_a_server_after_the_right_to_it_has_ended() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let added = backend.add_user("alice", &[key(10)], "web-1", true).await;
    let removed =
        backend.fleet.remove_user(&backend.admin, &login("alice"), RemoveUser::default()).await;
    let removed = removed.expect("removed");
    assert!(removed.complete && removed.servers.is_empty());
    let session = backend.connect(1).await;
    assert!(session.next(10).await.expect("a queue").is_empty());
    let wait = std::time::Duration::ZERO;
    let added = backend.fleet.change(&backend.admin, added.revision, None, wait).await;
    let added = added.expect("there");
    assert!(added.complete);
    for action in &added.servers[0].actions {
        let text = action.feedback.as_deref();
        assert_eq!((action.state, action.tries), (ActionState::Failed, 0));
        assert_eq!(text, Some("not sent: revision 3 took its place"));
    }
    let detail = backend.fleet.server(&backend.admin, &host("web-1")).await.expect("there");
    assert_eq!((detail.server.pending, detail.server.failed), (0, 0));
}

#[tokio::test]
async fn a_key_given_to_an_account_thought_absent_is_taken_back() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    let sent = session.next(10).await.expect("a queue");
    session.feedback(&sent[0].reply(Status::Failed, "half made")).await.expect("taken");
    let print = key(10).fingerprint();
    let removed = backend.fleet.remove_key(&backend.admin, &login("alice"), &print).await;
    assert!(!removed.expect("removed").complete);
    session.feedback(&sent[1].reply(Status::Done, "")).await.expect("taken");
    assert_eq!(
        backend.answer_all(&session, Status::Done).await,
        ["add-user alice", "remove-key alice"]
    );
    assert!(confirmed(&backend, web.id).await[&login("alice")].keys.is_empty());
}

/// What the audit log tells of one account.
async fn audited(backend: &TestBackend, name: &str) -> Vec<String> {
    let rows = backend.log(&LogFilter { user: Some(login(name)), ..LogFilter::default() }).await;
    rows.into_iter().map(|chained| chained.row.action).collect()
}

#[tokio::test]
async fn a_key_whose_giving_failed_is_taken_away_all_the_same() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    let sent = session.next(10).await.expect("a queue");
    session.feedback(&sent[0].reply(Status::Done, "")).await.expect("taken");
    session.feedback(&sent[1].reply(Status::Failed, "cannot sync .ssh")).await.expect("taken");
    // Who asks again gets it again.
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    assert_eq!(backend.answer_all(&session, Status::Failed).await, ["add-key alice"]);
    let print = key(10).fingerprint();
    let removed = backend.fleet.remove_key(&backend.admin, &login("alice"), &print).await;
    assert!(!removed.expect("removed").complete);
    // While its removal fails, a failure says so.
    assert_eq!(backend.answer_all(&session, Status::Failed).await, ["remove-key alice"]);
    let detail = backend.fleet.server(&backend.admin, &host("web-1")).await.expect("there");
    assert_eq!(detail.server.failed, 1);
    backend.fleet.sync_server(&backend.admin, &host("web-1")).await.expect("planned");
    assert_eq!(
        backend.answer_all(&session, Status::Unchanged).await,
        ["remove-key alice", "add-user alice"]
    );
    assert!(confirmed(&backend, web.id).await[&login("alice")].keys.is_empty());
    backend.fleet.sync_server(&backend.admin, &host("web-1")).await.expect("planned");
    assert_eq!(backend.answer_all(&session, Status::Unchanged).await, ["add-user alice"]);
}

#[tokio::test]
async fn rights_whose_giving_failed_are_taken_away_all_the_same() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    backend.add_user("alice", &[], "web-1", false).await;
    backend.answer_all(&session, Status::Done).await;
    let update = |sudo| UpdateUser { sudo: Some(sudo), ..UpdateUser::default() };
    let (fleet, admin, alice) = (&backend.fleet, &backend.admin, login("alice"));
    fleet.update_user(admin, &alice, &update(true)).await.expect("planned");
    assert_eq!(backend.answer_all(&session, Status::Failed).await, ["update-user alice"]);
    fleet.update_user(admin, &alice, &update(false)).await.expect("planned");
    let sent = session.next(10).await.expect("a queue");
    assert_eq!(sent[0].action, Action::UpdateUser { sudo: false });
}

#[tokio::test]
async fn an_account_whose_making_failed_is_removed_all_the_same() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    backend.answer_all(&session, Status::Failed).await;
    assert!(confirmed(&backend, web.id).await.is_empty());
    let backend = backend.after_kill().await;
    let session = backend.connect(1).await;
    backend
        .fleet
        .remove_user(&backend.admin, &login("alice"), RemoveUser::default())
        .await
        .expect("removed");
    assert_eq!(backend.answer_all(&session, Status::Done).await, ["remove-user alice"]);
    backend.fleet.sync_server(&backend.admin, &host("web-1")).await.expect("planned");
    assert!(session.next(10).await.expect("a queue").is_empty(), "it is known to be gone");
    assert!(!audited(&backend, "alice").await.contains(&"account.unknown".to_owned()));
}

#[tokio::test]
async fn a_strangers_account_is_asked_for_once_and_then_let_go() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    backend.answer_all(&session, Status::Failed).await;
    let removed =
        backend.fleet.remove_user(&backend.admin, &login("alice"), RemoveUser::default()).await;
    let revision = removed.expect("removed").revision;
    assert_eq!(backend.answer_all(&session, Status::Failed).await, ["remove-user alice"]);
    // Whoever removed it sees the failure; afterwards nothing stands and nothing is tried again.
    let wait = std::time::Duration::ZERO;
    let seen = backend.fleet.change(&backend.admin, revision, None, wait).await.expect("there");
    assert_eq!(seen.servers[0].actions[0].state, ActionState::Failed);
    let detail = backend.fleet.server(&backend.admin, &host("web-1")).await.expect("there");
    assert_eq!((detail.server.pending, detail.server.failed), (0, 0));
    backend.fleet.sync_server(&backend.admin, &host("web-1")).await.expect("planned");
    assert!(session.next(10).await.expect("a queue").is_empty());
    let told = audited(&backend, "alice").await;
    assert_eq!(told.iter().filter(|action| *action == "account.unknown").count(), 1);
}

#[tokio::test]
async fn what_was_never_sent_is_not_suspected() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_as(1, true).await;
    backend.add_user("jean-luc", &[key(10)], "web-1", false).await;
    assert!(session.next(10).await.expect("a queue").is_empty(), "version 1 knows no such name");
    backend
        .fleet
        .remove_user(&backend.admin, &login("jean-luc"), RemoveUser::default())
        .await
        .expect("removed");
    let detail = backend.fleet.server(&backend.admin, &host("web-1")).await.expect("there");
    assert_eq!((detail.server.pending, detail.server.failed), (0, 0));
}

#[tokio::test]
async fn answers_that_nobody_waits_for_do_not_wait_for_the_writer() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.add_user("alice", &[], "web-1", false).await;
    let session = backend.connect(1).await;
    let sent = session.next(1).await.expect("a queue");
    let answer = sent[0].reply(Status::Done, "");
    assert_eq!(session.feedback(&answer).await.expect("taken"), FeedbackOutcome::Matched);
    let writer = backend.store.write().await.expect("a writer");
    let strange = feedback("never-sent", Status::Done, "");
    assert_eq!(session.feedback(&strange).await.expect("taken"), FeedbackOutcome::Unknown);
    assert_eq!(session.feedback(&answer).await.expect("taken"), FeedbackOutcome::Duplicate);
    drop(writer);
}

#[tokio::test]
async fn a_renamed_server_has_its_new_name_in_its_open_session() {
    let backend = TestBackend::new().await;
    backend.enroll("ip-10-0-0-7", 1).await;
    let mut session = backend.connect(1).await;
    backend.add_user("alice", &[key(10)], "*", false).await;
    let name = Some(host("web-1"));
    let update = bastio_protocol::api::UpdateServer { name, ..Default::default() };
    backend.fleet.update_server(&backend.admin, &host("ip-10-0-0-7"), &update).await.expect("done");
    assert_eq!(session.signal().await, Signal::Work);
    assert_eq!(session.server().name, host("web-1"));
    backend.answer_all(&session, Status::Done).await;
    let filter = LogFilter { server: Some(host("web-1")), ..LogFilter::default() };
    let rows = backend.log(&filter).await;
    let told: Vec<_> = rows.iter().filter(|row| row.row.action == "action.done").collect();
    assert_eq!(told.len(), 2, "{rows:?}");
    assert!(told.iter().all(|row| row.row.actor == "agent:web-1"), "{told:?}");
}
