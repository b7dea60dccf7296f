//! Who is handed what, and that nothing is forgotten or sent twice whatever comes between.

use std::time::Duration;

use bastio_protocol::api::{NewRequest, RequestKind};
use bastio_protocol::{Action, MessageId, Status};

use super::*;
use crate::dispatch::batch;
use crate::dispatch::{DispatchError, EndReason, FeedbackOutcome, Session, Signal};
use crate::store::actions::QueuedAction;
use crate::testing::{NOW, TestBackend, handed, host, key, login, signer};

/// A connected agent that obeys orders and has been told everything.
async fn obedient(backend: &TestBackend, number: u8) -> Session {
    let session = backend.connect_v2(number).await;
    session.obeys(signer());
    session
}

async fn pending(backend: &TestBackend, server: ServerId) -> Vec<QueuedAction> {
    let mut db = backend.store.read().await.expect("a reader");
    actions::pending_of_server(&mut db, server).await.expect("read")
}

fn users(messages: &[ActionMessage]) -> Vec<&str> {
    messages.iter().map(|message| message.username.as_str()).collect()
}

async fn signal(session: &mut Session) -> Signal {
    let signal = tokio::time::timeout(Duration::from_secs(20), session.signal());
    signal.await.expect("a signal")
}

/// One removal for each of these servers, of an account that is not there.
fn removals(servers: impl IntoIterator<Item = ServerId>) -> Vec<(ServerId, ActionMessage)> {
    let action = || Action::RemoveUser { removal: None };
    let message = |number| ActionMessage {
        mid: MessageId::from_number(number),
        username: login("nobody-here"),
        action: action(),
    };
    servers.into_iter().zip(1..).map(|(server, number)| (server, message(number))).collect()
}

/// Queued in a transaction that is not over.
async fn enqueue(
    backend: &TestBackend,
    messages: Vec<(ServerId, ActionMessage)>,
) -> (store::Tx, Prompt) {
    let mut tx = backend.store.write().await.expect("a writer");
    let revision = store::revisions::begin(&mut tx, "a test", NOW).await.expect("begun");
    let prompt = backend.dispatch.enqueue(&mut tx, revision, messages, NOW).await;
    (tx, prompt.expect("queued"))
}

#[tokio::test]
async fn who_obeys_is_handed_it_and_others_find_it_in_their_queue() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await.id;
    backend.enroll("db-1", 2).await;
    let away = backend.enroll("away-1", 3).await.id;
    let mut quick = obedient(&backend, 1).await;
    let mut slow = backend.connect_v2(2).await;
    let change = backend.add_user("alice", &[key(10)], "*", true).await;
    assert_eq!(change.servers.len(), 3);

    assert_eq!(signal(&mut quick).await, Signal::Handed);
    let given = handed(&quick);
    assert_eq!(users(&given), ["alice"]);
    let [sent] = &pending(&backend, web).await[..] else { panic!("one action") };
    assert_eq!((sent.tries, &sent.message), (1, &given[0]), "it is sent by then");
    assert!(handed(&quick).is_empty(), "once");
    assert!(quick.next(10).await.expect("a queue").is_empty(), "and nothing else waits");

    assert_eq!(signal(&mut slow).await, Signal::Work);
    assert!(handed(&slow).is_empty());
    assert_eq!(users(&slow.next(10).await.expect("a queue")), ["alice"]);
    assert_eq!(pending(&backend, away).await[0].tries, 0);

    let answer = given[0].reply(Status::Done, "as told");
    assert_eq!(quick.feedback(&answer).await.expect("taken"), FeedbackOutcome::Matched);
    assert!(pending(&backend, web).await.is_empty());
    backend.add_user("bob", &[key(11)], "web-1", false).await;
    assert_eq!(users(&handed(&quick)), ["bob"], "it has nothing to do again");
}

#[tokio::test]
async fn who_has_something_to_do_gets_the_next_behind_it() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    session.obeys(signer());
    backend.add_user("bob", &[key(11)], "web-1", false).await;
    assert!(handed(&session).is_empty(), "alice's is queued");
    let told = session.next(10).await.expect("a queue");
    assert_eq!(users(&told), ["alice", "bob"]);
    backend.add_user("carol", &[key(12)], "web-1", false).await;
    assert!(handed(&session).is_empty(), "the others' are not answered");
    assert_eq!(users(&session.next(10).await.expect("a queue")), ["carol"]);
}

#[tokio::test]
async fn what_is_asked_of_the_server_as_a_whole_comes_first() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = obedient(&backend, 1).await;
    let sync = NewRequest { kind: RequestKind::Sync, allow_no_admin: false };
    backend.fleet.request(&backend.admin, &host("web-1"), sync).await.expect("asked");
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    assert!(handed(&session).is_empty());
}

#[tokio::test]
async fn what_a_session_did_not_get_to_is_sent_by_the_next() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await.id;
    let session = obedient(&backend, 1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    let given = handed(&session);
    session.close().await.expect("closed");
    let next = backend.connect_v2(1).await;
    assert_eq!(next.next(10).await.expect("a queue"), given, "with the same id");

    // Handed over to a session that is over: the one that followed has found it.
    next.close().await.expect("closed");
    let session = obedient(&backend, 1).await;
    backend.answer_all(&session, Status::Done).await;
    let (tx, prompt) = enqueue(&backend, removals([web])).await;
    tx.commit().await.expect("committed");
    let next = obedient(&backend, 1).await;
    prompt.hand_over();
    assert!(session.handed().is_err() && handed(&next).is_empty());
    assert_eq!(users(&next.next(10).await.expect("a queue")), ["nobody-here"]);
}

/// Many sessions, and what is promised to each.
async fn many_promised(backend: &TestBackend) -> (Vec<Session>, store::Tx, Prompt) {
    let (mut servers, mut sessions) = (Vec::new(), Vec::new());
    for number in 0..130 {
        servers.push(backend.enroll(&format!("s{number}"), number).await.id);
        sessions.push(obedient(backend, number).await);
    }
    let (tx, prompt) = enqueue(backend, removals(servers)).await;
    (sessions, tx, prompt)
}

/// Many sessions that something was just handed over to.
async fn many_handed(backend: &TestBackend) -> Vec<Session> {
    let (sessions, tx, prompt) = many_promised(backend).await;
    tx.commit().await.expect("committed");
    prompt.hand_over();
    sessions
}

#[tokio::test]
async fn many_are_told_one_after_the_other_and_who_looks_before_finds_it() {
    let backend = TestBackend::new().await;
    let mut sessions = many_handed(&backend).await;
    let last = sessions.last_mut().expect("many");
    tokio::select! {
        biased;
        early = last.signal() => panic!("its turn comes later: {early:?}"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(handed(last).len(), 1);
    for session in &mut sessions {
        assert_eq!(signal(session).await, Signal::Handed);
    }
    let given: usize = sessions.iter().map(|session| handed(session).len()).sum();
    assert_eq!(given, 129, "each once");
}

/// How many hear at once of what the edit sends to them, while the database is far behind, and how long after its begin
/// that was.
async fn told_in_a_crowd<F: Future>(
    backend: &TestBackend,
    sessions: &mut [Session],
    edit: impl FnOnce() -> F,
) -> (usize, Duration) {
    let desk = &backend.dispatch.desk;
    desk.crowd(|| batch::Slip { wanted: batch::Wanted::Lost, lease: None }).await;
    let begun = Instant::now();
    edit().await;
    // The task that tells them has all the time that it does not wait for.
    for _ in sessions.iter() {
        tokio::task::yield_now().await;
    }
    let mut told = Vec::new();
    for session in sessions.iter_mut() {
        told.push(tokio::select! {
            biased;
            signal = session.signal() => Some(signal),
            () = std::future::ready(()) => None,
        });
    }
    assert!(desk.is_crowded());
    let heard = (told.iter().flatten().count(), begun.elapsed());
    for (session, told) in sessions.iter_mut().zip(told) {
        let told = if let Some(signal) = told { signal } else { signal(session).await };
        assert_eq!(told, Signal::Handed);
        for action in handed(session) {
            let answer = action.reply(Status::Done, "as told");
            session.feedback(&answer).await.expect("taken");
        }
    }
    heard
}

#[tokio::test]
async fn what_takes_access_away_does_not_wait_for_the_database() {
    let backend = TestBackend::new().await;
    let mut sessions = Vec::new();
    for number in 0..=u8::MAX {
        backend.enroll(&format!("s{number}"), number).await;
        sessions.push(obedient(&backend, number).await);
    }
    let keys = [key(10), key(11)];
    let grant = async || backend.add_user("alice", &keys, "*", false).await;
    let (told, after) = told_in_a_crowd(&backend, &mut sessions, grant).await;
    assert!(told == 2 * SLICE || after >= PATIENCE, "{told}: others answer first");
    let (alice, stolen) = (login("alice"), keys[0].fingerprint());
    let remove = async || backend.fleet.remove_key(&backend.admin, &alice, &stolen).await;
    let (told, _) = told_in_a_crowd(&backend, &mut sessions, remove).await;
    assert_eq!(told, sessions.len());
}

#[tokio::test]
async fn what_is_signed_ahead_has_a_number_that_nothing_else_has() {
    let backend = TestBackend::new().await;
    let (sessions, tx, prompt) = many_promised(&backend).await;
    prompt.ahead.as_ref().expect("many").wait_for(sessions.len()).await;
    tx.commit().await.expect("committed");
    prompt.hand_over();
    for mut session in sessions {
        let last = session.number().await.expect("a number");
        let again = session.number().await.expect("a number");
        assert_eq!(again, last + 1);
        let given = session.handed().expect("a session");
        let [Handed { order: Some(order), .. }] = &given[..] else { panic!("{given:?}") };
        assert!(order.number < last, "{} is behind {last}", order.number);
    }
}

#[tokio::test]
async fn a_session_that_is_over_is_not_told_that_nothing_was_handed_over() {
    let backend = TestBackend::new().await;
    let (session, tx, prompt) = promised(&backend).await;
    tx.commit().await.expect("committed");
    prompt.hand_over();
    // Something newer, which it may have taken out of the queue by now.
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    let newer = session.next(10).await.expect("a queue");
    backend.dispatch.end(session.server().id, EndReason::Adrift);
    assert_eq!(users(&newer), ["alice"]);
    assert!(matches!(session.handed(), Err(DispatchError::TakenOver)), "older than alice's");
}

/// A session that was sent a grant, which never arrived, and what a revocation sends behind it.
async fn passed(backend: &TestBackend) -> (Session, ActionMessage, Vec<ActionMessage>) {
    backend.enroll("web-1", 1).await;
    let session = obedient(backend, 1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    let [grant] = &handed(&session)[..] else { panic!("one action") };
    let alice = login("alice");
    backend.fleet.disable_user(&backend.admin, &alice, "gone").await.expect("disabled");
    let revocation = session.next(10).await.expect("a queue");
    assert!(!revocation.is_empty());
    (session, grant.clone(), revocation)
}

#[tokio::test]
async fn what_is_done_before_something_older_of_its_account_is_done_again_behind_it() {
    let backend = TestBackend::new().await;
    let (session, grant, revocation) = passed(&backend).await;
    let web = session.server().id;
    let all = [&[grant][..], &revocation].concat();
    let answer = revocation[0].reply(Status::Done, "gone");
    let early = session.answered(&answer.clone().into(), Some(revocation[0].clone().into())).await;
    assert_eq!(early.expect("taken"), FeedbackOutcome::Early);
    assert_eq!(pending(&backend, web).await.len(), all.len(), "the grant may be done after it");

    session.close().await.expect("closed");
    let next = obedient(&backend, 1).await;
    // The agent tells again what it was not confirmed.
    assert_eq!(next.feedback(&answer).await.expect("taken"), FeedbackOutcome::Early);
    let again = next.next(10).await.expect("a queue");
    assert_eq!(again, all, "in their order");
    for message in &again {
        let answer = message.reply(Status::Done, "as told");
        assert_eq!(next.feedback(&answer).await.expect("taken"), FeedbackOutcome::Matched);
    }
    assert!(pending(&backend, web).await.is_empty());
}

#[tokio::test]
async fn a_telling_that_is_given_up_is_finished_at_once() {
    let backend = TestBackend::new().await;
    let mut sessions = many_handed(&backend).await;
    backend.dispatch.tasks.lock().expect("nobody panics").abort_all();
    for session in &mut sessions {
        assert_eq!(signal(session).await, Signal::Handed);
    }
}

/// One server with an agent that obeys, and a removal that is promised to it.
async fn promised(backend: &TestBackend) -> (Session, store::Tx, Prompt) {
    let web = backend.enroll("web-1", 1).await.id;
    let session = obedient(backend, 1).await;
    let (tx, prompt) = enqueue(backend, removals([web])).await;
    assert!(prompt.includes(web));
    (session, tx, prompt)
}

/// What was held back may be taken out again, behind what was handed over.
async fn it_comes_before_alices(session: &mut Session) {
    assert_eq!(signal(session).await, Signal::Work, "it may look again");
    assert_eq!(users(&handed(session)), ["nobody-here"]);
    assert_eq!(users(&session.next(10).await.expect("a queue")), ["alice"]);
}

#[tokio::test]
async fn nothing_newer_is_taken_out_of_the_queue_before_it_is_handed_over() {
    let backend = TestBackend::new().await;
    let (mut session, tx, first) = promised(&backend).await;
    tx.commit().await.expect("committed");
    // Another edit is quicker than who is to hand over the first one's.
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    assert!(session.next(10).await.expect("a queue").is_empty(), "alice's is newer");
    first.hand_over();
    it_comes_before_alices(&mut session).await;
}

#[tokio::test]
async fn what_asks_for_the_whole_server_does_not_pass_it_either() {
    let backend = TestBackend::new().await;
    let (mut session, tx, first) = promised(&backend).await;
    tx.commit().await.expect("committed");
    let sync = NewRequest { kind: RequestKind::Sync, allow_no_admin: false };
    backend.fleet.request(&backend.admin, &host("web-1"), sync).await.expect("asked");
    assert!(session.next_payloads(10).await.expect("a queue").is_empty());
    first.hand_over();
    assert_eq!(signal(&mut session).await, Signal::Work);
    assert_eq!(users(&handed(&session)), ["nobody-here"]);
    assert_eq!(session.next_payloads(10).await.expect("a queue").len(), 1);
}

#[tokio::test]
async fn an_edit_that_never_was_leaves_nothing_and_holds_nothing_back() {
    let backend = TestBackend::new().await;
    let (session, tx, given_up) = promised(&backend).await;
    drop((tx, given_up));
    assert!(handed(&session).is_empty());
    assert!(session.next(10).await.expect("a queue").is_empty());
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    assert_eq!(users(&handed(&session)), ["alice"]);
}

#[tokio::test]
async fn an_edit_that_is_given_up_late_takes_nothing_of_the_next_one_back() {
    let backend = TestBackend::new().await;
    let (mut session, tx, given_up) = promised(&backend).await;
    drop(tx);
    let (tx, second) = enqueue(&backend, removals([session.server().id])).await;
    tx.commit().await.expect("committed");
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    drop(given_up);
    assert!(session.next(10).await.expect("a queue").is_empty(), "the second's comes first");
    second.hand_over();
    it_comes_before_alices(&mut session).await;
}

#[tokio::test]
async fn after_a_database_that_failed_nothing_is_in_doubt() {
    let backend = TestBackend::new().await;
    let (mut session, tx, failed) = promised(&backend).await;
    drop(tx);
    failed.has_failed();
    if backend.store.is_shared() {
        assert_eq!(signal(&mut session).await, Signal::End(EndReason::Adrift), "nobody knows");
        return;
    }
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    assert_eq!(users(&handed(&session)), ["alice"], "SQLite has not written it");
}

#[tokio::test]
async fn who_asked_for_an_edit_may_go_while_it_is_written() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await.id;
    let mut session = obedient(&backend, 1).await;
    let (begin, begun) = tokio::sync::oneshot::channel::<()>();
    let (tx, prompt) = enqueue(&backend, removals([web])).await;
    let dispatch = backend.dispatch.clone();
    let asked = tokio::spawn(async move {
        let work = async move {
            begun.await.expect("begun");
            tx.commit().await.expect("committed");
            prompt.hand_over();
        };
        dispatch.finish(work).await
    });
    tokio::task::yield_now().await;
    asked.abort();
    assert!(asked.await.expect_err("given up").is_cancelled());
    begin.send(()).expect("it goes on");
    assert_eq!(signal(&mut session).await, Signal::Handed);
    assert_eq!(users(&handed(&session)), ["nobody-here"]);
}

#[tokio::test]
async fn what_is_much_for_one_server_is_queued() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await.id;
    let session = obedient(&backend, 1).await;
    let (tx, prompt) = enqueue(&backend, removals([web; MOST + 1])).await;
    tx.commit().await.expect("committed");
    assert!(!prompt.includes(web));
    prompt.hand_over();
    assert!(handed(&session).is_empty());
    assert_eq!(session.next(100).await.expect("a queue").len(), MOST + 1);
}
