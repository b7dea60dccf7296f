//! Two nodes on one database: who may write, who is woken, what counts when hints are lost. Runs
//! with `tests/with-postgres` only.

use std::collections::BTreeSet;

use bastio_protocol::{Action, ActionMessage, MessageId, Status};

use super::*;
use crate::dispatch::arrivals::Arrival;
use crate::dispatch::batch::{self, Answer, Given, HandOut, Slip, Wanted};
use crate::dispatch::{DispatchError, Session, SessionInfo, Signal};
use crate::store::{self, ServerId, Store, sql};
use crate::testing::{ADDRESS, NOW, TestBackend, fresh_location, handed, key, login, signer};

/// Another node on the database of a backend.
async fn node_beside(backend: &TestBackend) -> Dispatch {
    assert!(backend.store.is_shared(), "these tests need PostgreSQL: tests/with-postgres");
    let store = Store::open_with_clock(&backend.location, || NOW).await.expect("a second node");
    Dispatch::new(store)
}

async fn connect(node: &Dispatch, number: u8) -> Session {
    let server = node.identify(&key(number)).await.expect("a store").expect("on record");
    let info = SessionInfo { address: ADDRESS, ident: "SSH-2.0-test".into(), legacy: false };
    node.open(&server, info).await.expect("opened")
}

async fn enqueue(store: &Store, server: ServerId, number: u64) -> store::Tx {
    let mid = MessageId::from_number(number);
    let action = Action::UpdateUser { sudo: true };
    let action = ActionMessage { mid, username: login("alice"), action };
    let mut tx = store.write().await.expect("a writer");
    store::actions::enqueue(&mut tx, &[], &[(server, action)], NOW).await.expect("queued");
    tx
}

#[tokio::test]
async fn a_node_that_lost_a_server_changes_nothing_any_more() {
    let backend = TestBackend::new().await;
    let other = node_beside(&backend).await;
    let server = backend.enroll("web-1", 1).await.id;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    let mut old = connect(&backend.dispatch, 1).await;
    let sent = old.next(10).await.expect("a queue");
    assert!(!sent.is_empty());

    let new = connect(&other, 1).await;
    let again = new.next(10).await.expect("a queue");
    assert_eq!(again, sent, "what was not answered is sent again");
    let refused = old.feedback(&sent[0].reply(Status::Done, "late")).await;
    assert!(matches!(refused, Err(DispatchError::TakenOver)), "{refused:?}");
    assert!(matches!(old.next(10).await, Err(DispatchError::TakenOver)));

    backend.dispatch.look((0, 0)).await.expect("looked");
    let signal = tokio::time::timeout(Duration::from_secs(1), old.signal()).await;
    assert_eq!(signal.expect("told"), Signal::End(EndReason::TakenOver));
    old.close().await.expect("closed");
    for action in &again {
        new.feedback(&action.reply(Status::Done, "done")).await.expect("taken");
    }
    let mut db = backend.store.read().await.expect("a reader");
    let open = store::actions::pending_of_server(&mut db, server).await.expect("read");
    assert!(open.is_empty(), "each was answered once: {open:?}");
}

#[tokio::test]
async fn what_is_to_be_sent_at_once_goes_to_the_node_that_has_the_server() {
    let backend = TestBackend::new().await;
    let other = node_beside(&backend).await;
    backend.enroll("web-1", 1).await;
    let old = connect(&backend.dispatch, 1).await;
    old.obeys(signer());
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    let given = handed(&old);
    assert_eq!(given.len(), 2, "it is here: {given:?}");
    for action in &given {
        old.feedback(&action.reply(Status::Done, "done")).await.expect("taken");
    }
    let new = connect(&other, 1).await;
    backend.add_user("bob", &[key(11)], "web-1", false).await;
    assert!(handed(&old).is_empty(), "it is the other's to send");
    assert_eq!(new.next(10).await.expect("a queue").len(), 2);
}

#[tokio::test]
async fn who_asked_for_what_may_be_on_the_disk_begins_anew() {
    let backend = TestBackend::new().await;
    assert!(backend.store.is_shared(), "these tests need PostgreSQL: tests/with-postgres");
    backend.enroll("web-1", 1).await;
    let mut session = backend.connect_v2(1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    let (server, place) = (session.server().id, session.place());
    let asked = HandOut { server, generation: place.generation, limit: 10 };
    let mut wanted = [Wanted::HandOut(asked)];
    let lease = place.epoch.map(|epoch| (server, epoch));
    let written = batch::write(&backend.dispatch, &mut wanted, &[lease]).await;
    let (mut tx, written) = written.expect("written");
    let ours = sql::query_scalar("SELECT CAST(pg_backend_pid() AS BIGINT)").fetch_one(&mut tx);
    let ours: i64 = ours.await.expect("a process");
    let mut other = backend.store.read().await.expect("a reader");
    let kill = sql::query_scalar("SELECT pg_terminate_backend(CAST($1 AS INTEGER), 10000)");
    let killed: bool = kill.bind(ours).fetch_one(&mut other).await.expect("killed");
    assert!(killed);
    batch::commit(&backend.dispatch, tx, &wanted, written).await.err().expect("lost");
    let signal = tokio::time::timeout(Duration::from_secs(1), session.signal()).await;
    assert_eq!(signal.expect("told"), Signal::End(EndReason::Adrift));
    assert!(matches!(session.next(10).await, Err(DispatchError::TakenOver)));
}

#[tokio::test]
async fn of_many_that_write_together_only_who_lost_its_server_writes_nothing() {
    let backend = TestBackend::new().await;
    let other = node_beside(&backend).await;
    let mut sessions = Vec::new();
    for number in 1..=3 {
        backend.enroll(&format!("web-{number}"), number).await;
        sessions.push(backend.connect_v2(number).await);
    }
    backend.add_user("alice", &[key(10)], "*", false).await;
    let slip = |session: &Session, wanted| Slip {
        wanted,
        lease: session.place().epoch.map(|epoch| (session.server().id, epoch)),
    };
    let hand_out = |session: &Session| {
        let (server, generation) = (session.server().id, session.place().generation);
        slip(session, Wanted::HandOut(HandOut { server, generation, limit: 10 }))
    };
    let given =
        batch::work(backend.dispatch.clone(), sessions.iter().map(hand_out).collect()).await;
    let messages: Vec<_> = given
        .iter()
        .map(|given| match given {
            Some(Given::Actions(messages)) => {
                assert_eq!(messages.len(), 1);
                messages.first().expect("an account").clone()
            }
            given => panic!("{given:?}"),
        })
        .collect();

    // The second goes to the other node, which sends all of it again.
    let mut taken = connect(&other, 2).await;
    crate::testing::meet(&mut taken).await;
    let answers = |session: &Session, message: &ActionMessage| {
        let answer = Answer {
            server: session.server().id,
            name: session.server().name.clone(),
            address: ADDRESS,
            receipt_key: None,
            feedback: message.reply(Status::Done, "done").into(),
            asked: None,
        };
        slip(session, Wanted::Answer(Box::new(answer)))
    };
    let slips = sessions.iter().zip(&messages).map(|(session, message)| answers(session, message));
    let given = batch::work(backend.dispatch.clone(), slips.collect()).await;
    let done: Vec<_> = given.iter().map(|given| matches!(given, Some(Given::Taken))).collect();
    assert_eq!(done, [true, false, true]);
    let again = taken.next(10).await.expect("a queue");
    assert_eq!(again.first(), messages.get(1), "its answer was not taken");
    let refused = sessions[1].feedback(&messages[1].reply(Status::Done, "late")).await;
    assert!(matches!(refused, Err(DispatchError::TakenOver)), "{refused:?}");

    // Who goes gives the lease back, unless it is another's by now.
    let gone = |session: &Session| slip(session, Wanted::Gone(session.server().id));
    let given = batch::work(backend.dispatch.clone(), sessions.iter().map(gone).collect()).await;
    let done: Vec<_> = given.iter().map(|given| matches!(given, Some(Given::Taken))).collect();
    assert_eq!(done, [true, false, true]);
    let mut db = backend.store.read().await.expect("a reader");
    let lease = |session: &Session| (session.server().id, session.place().epoch.expect("shared"));
    for (session, held) in [(&sessions[0], false), (&taken, true), (&sessions[2], false)] {
        let (server, epoch) = lease(session);
        assert_eq!(leases::holds(&mut db, server, epoch).await.expect("read"), held, "{server:?}");
    }
    let mine = leases::mine(&mut db, backend.store.node()).await.expect("read");
    assert!(mine.is_empty(), "{mine:?}");
}

#[tokio::test]
async fn of_many_that_come_together_each_has_a_lease_and_of_one_server_only_the_last() {
    let backend = TestBackend::new().await;
    node_beside(&backend).await;
    for number in 1..=3 {
        backend.enroll(&format!("web-{number}"), number).await;
    }
    let before = connect(&backend.dispatch, 1).await;
    let mut slips = Vec::new();
    for number in [2, 1, 3, 2] {
        let server = backend.dispatch.identify(&key(number)).await.expect("a store");
        let info = SessionInfo { address: ADDRESS, ident: "SSH-2.0-test".into(), legacy: false };
        let arrival = Arrival { server: server.expect("on record"), info };
        slips.push(Slip { wanted: Wanted::Open(Box::new(arrival)), lease: None });
    }
    let mut sessions = vec![before];
    for given in batch::work(backend.dispatch.clone(), slips).await {
        let Some(Given::Opened(opened)) = given else { panic!("{given:?}") };
        sessions.push(opened.expect("let in"));
    }
    let leases: Vec<(ServerId, i64)> = sessions
        .iter()
        .map(|session| (session.server().id, session.place().epoch.expect("shared")))
        .collect();
    let mut db = backend.store.read().await.expect("a reader");
    let lost = leases::not_held(&mut db, &leases).await.expect("read");
    assert_eq!(lost, BTreeSet::from([leases[0], leases[1]]), "of {leases:?}");
}

#[tokio::test]
async fn every_node_knows_where_agents_are_until_the_node_is_gone() {
    let backend = TestBackend::new().await;
    let other = node_beside(&backend).await;
    let server = backend.enroll("web-1", 1).await.id;
    leases::beat(&other.store, other.store.node()).await.expect("alive");
    let session = connect(&other, 1).await;
    backend.dispatch.look((0, 0)).await.expect("looked");
    assert!(backend.dispatch.is_connected(server));
    assert_eq!(backend.dispatch.connected(), 1);
    // Killed: it says no more that it is alive, and closes nothing.
    std::mem::forget(session);
    let mut tx = backend.store.write().await.expect("a writer");
    sql::query("UPDATE nodes SET until = until - 11").execute(&mut tx).await.expect("aged");
    tx.commit().await.expect("committed");
    backend.dispatch.look((0, 0)).await.expect("looked");
    assert!(!backend.dispatch.is_connected(server));
    // The agent comes here, and goes.
    let session = connect(&backend.dispatch, 1).await;
    leases::beat(&backend.store, backend.store.node()).await.expect("alive");
    other.look((0, 0)).await.expect("looked");
    assert!(other.is_connected(server));
    session.close().await.expect("closed");
    other.look((0, 0)).await.expect("looked");
    assert!(!other.presence.elsewhere(server), "it was given back");
}

#[tokio::test]
async fn a_lease_without_a_session_is_given_back() {
    let backend = TestBackend::new().await;
    let server = backend.enroll("web-1", 1).await.id;
    let session = connect(&backend.dispatch, 1).await;
    let epoch = session.place().epoch.expect("shared");
    // As when the database was away while the session ended.
    backend.dispatch.presence.end_all(EndReason::Adrift);
    std::mem::forget(session);
    let mut db = backend.store.read().await.expect("a reader");
    assert!(leases::holds(&mut db, server, epoch).await.expect("read"));
    drop(db);
    backend.dispatch.look((0, 0)).await.expect("looked");
    let mut db = backend.store.read().await.expect("a reader");
    assert!(!leases::holds(&mut db, server, epoch).await.expect("read"));
}

#[tokio::test]
async fn what_one_node_queues_the_other_sends_with_and_without_hint() {
    let backend = TestBackend::new().await;
    let other = node_beside(&backend).await;
    let server = backend.enroll("web-1", 1).await.id;
    let mut session = connect(&backend.dispatch, 1).await;
    let (node, stop) = (backend.dispatch.clone(), CancellationToken::new());
    let (stopped, mut news) = (stop.clone(), backend.store.written());
    let task = tokio::spawn(async move { node.keep_leases(&stopped).await });
    // The first look of all; from then on it listens.
    news.changed().await.expect("open");
    sleep(Duration::from_millis(500)).await;
    for (number, hinted, limit) in [(1, true, 2), (2, false, 8)] {
        let tx = enqueue(&other.store, server, number).await;
        if hinted {
            tx.commit().await.expect("committed");
        } else {
            tx.commit_silently().await.expect("committed");
        }
        let sent = async {
            loop {
                assert_eq!(session.signal().await, Signal::Work);
                let sent = session.next(1).await.expect("a queue");
                if !sent.is_empty() {
                    return sent;
                }
            }
        };
        let sent = tokio::time::timeout(Duration::from_secs(limit), sent).await.expect("woken");
        assert_eq!(sent[0].mid, MessageId::from_number(number));
    }
    stop.cancel();
    task.await.expect("stopped");
}

#[tokio::test]
async fn a_removed_server_ends_on_whichever_node_it_is() {
    let backend = TestBackend::new().await;
    let other = node_beside(&backend).await;
    backend.enroll("web-1", 1).await;
    let mut session = connect(&other, 1).await;
    let name = crate::testing::host("web-1");
    backend.fleet.remove_server(&backend.admin, &name).await.expect("removed");
    other.look((0, 0)).await.expect("looked");
    let signal = tokio::time::timeout(Duration::from_secs(1), session.signal()).await;
    assert_eq!(signal.expect("told"), Signal::End(EndReason::TakenOver));
    assert!(matches!(session.next(1).await, Err(DispatchError::TakenOver)));
}

#[tokio::test]
async fn an_older_program_works_beside_a_newer_one_unless_that_says_no() {
    let dir = tempfile::tempdir().expect("a folder");
    let location = fresh_location(&dir).await;
    let store = Store::open(&location).await.expect("made");
    assert!(store.is_shared(), "these tests need PostgreSQL: tests/with-postgres");
    let mut tx = store.write().await.expect("a writer");
    for sql in [
        "ALTER TABLE servers ADD COLUMN of_tomorrow TEXT",
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'of tomorrow', TRUE, '\\x00', 0)",
    ] {
        sql::query(sql).execute(&mut tx).await.expect(sql);
    }
    tx.commit().await.expect("committed");
    let older = Store::open(&location).await.expect("an addition is no obstacle");
    let mut tx = older.write().await.expect("a writer");
    sql::query("UPDATE compatibility SET needs = 9999").execute(&mut tx).await.expect("set");
    tx.commit().await.expect("committed");
    let refused = Store::open(&location).await.expect_err("breaking").to_string();
    assert!(refused.contains("9999") && refused.contains("update bastio-backend"), "{refused}");
}
