//! Clocks that are off are told when they become so; another machine is asked about and gets nothing.

use bastio_protocol::audit::LogFilter;
use bastio_protocol::{AgentHello, Facts, Status, V2};

use super::*;
use crate::dispatch::Session;
use crate::testing::{NOW, TestBackend, host, key};

fn hello(machine: &str, time: Option<i64>) -> AgentHello {
    let facts = BTreeMap::from([(MACHINE.to_owned(), machine.to_owned())]);
    AgentHello {
        protocol: V2,
        facts: Facts::from(facts),
        last_sequence: 0,
        signing_key: None,
        receipt_key: None,
        time,
        together: false,
    }
}

async fn rows(backend: &TestBackend, action: &str) -> Vec<String> {
    let rows = backend.log(&LogFilter::default()).await.into_iter();
    rows.filter(|row| row.row.action == action).map(|row| row.row.detail).collect()
}

async fn meet(backend: &TestBackend, machine: &str, time: Option<i64>) -> Session {
    let mut session = backend.connect(1).await;
    session.met(&hello(machine, time)).await.expect("met");
    session
}

#[tokio::test]
async fn a_clock_that_is_off_is_told_when_it_begins_changes_and_ends() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let shown = async || {
        let server = backend.fleet.server(&backend.admin, &host("web-1")).await.expect("read");
        server.server.clock_offset
    };
    for (time, offset, told) in [
        (None, None, 0),
        (Some(NOW + 30), None, 0),
        (Some(NOW + 86_400), Some(86_400), 1),
        (Some(NOW + 86_401), Some(86_401), 1),
        (Some(NOW - 3600), Some(-3600), 2),
        (None, Some(-3600), 2),
        (Some(NOW - 2), None, 3),
        (Some(i64::MIN), Some(i64::MIN), 4),
        (Some(NOW), None, 5),
    ] {
        drop(meet(&backend, "m1", time).await);
        assert_eq!(shown().await, offset, "{time:?}");
        assert_eq!(rows(&backend, "server.clock").await.len(), told, "{time:?}");
    }
    let told = rows(&backend, "server.clock").await;
    assert_eq!(told[0], "its clock is 86400 s ahead of the backend's");
    assert_eq!(told[1], "its clock is 3600 s behind the backend's");
    assert_eq!(told[2], "its clock agrees with the backend's again");
    meet(&backend, "m1", Some(NOW + 60)).await;
    let status = backend.fleet.status(&backend.admin, String::new()).await.expect("read");
    assert_eq!((status.clocks_off, status.undecided), (1, 0));
}

#[tokio::test]
async fn a_key_on_another_machine_gets_nothing_before_somebody_has_decided() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await.id;
    backend.add_user("alice", &[key(10)], "web-1", true).await;
    let session = meet(&backend, "first", None).await;
    assert_eq!(backend.answer_all(&session, Status::Done).await.len(), 2);
    backend.add_user("bob", &[key(11)], "web-1", false).await;
    drop(session);

    let mut other = backend.connect(1).await;
    let held = other.met(&hello("second", None)).await;
    assert!(matches!(held, Err(DispatchError::Held)), "{held:?}");
    drop(other);
    // Neither the other one nor the right one is let in: who is who, nobody here knows.
    let identity = backend.dispatch.identify(&key(1)).await.expect("read").expect("known");
    for _ in 0..2 {
        let info = crate::dispatch::SessionInfo {
            address: crate::testing::ADDRESS,
            ident: "SSH-2.0-test".into(),
            legacy: false,
        };
        let refused = backend.dispatch.open(&identity, info).await;
        assert!(matches!(refused, Err(DispatchError::Held)), "{refused:?}");
    }
    let asked = rows(&backend, "server.question").await;
    assert_eq!(asked.len(), 1, "once: {asked:?}");
    assert!(asked[0].contains("second") && asked[0].contains("first"), "{asked:?}");
    let shown = backend.fleet.server(&backend.admin, &host("web-1")).await.expect("read").server;
    assert_eq!(shown.questions.len(), 1);
    assert!(shown.questions[0].holds && shown.questions[0].kind == QuestionKind::Machine);
    assert_eq!(shown.pending, 1, "bob's account waits");

    // Accepted: the new machine is told everything, also what the first one has confirmed.
    backend.fleet.accept_server(&backend.admin, &host("web-1")).await.expect("accepted");
    let session = meet(&backend, "second", None).await;
    let mut told = backend.answer_all(&session, Status::Done).await;
    told.sort_unstable();
    assert_eq!(told, ["add-key alice", "add-user alice", "set-user bob"]);
    assert!(session.server().id == web);
    drop(session);
    let mut first = backend.connect(1).await;
    assert!(first.met(&hello("first", None)).await.is_err(), "now this is the other one");
}

#[tokio::test]
async fn who_tells_no_machine_is_not_asked_about() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    for machine in ["", "", "m1", "m1"] {
        drop(meet(&backend, machine, None).await);
    }
    assert!(rows(&backend, "server.question").await.is_empty());
}

#[tokio::test]
async fn who_tells_no_machine_any_more_gets_nothing_before_somebody_has_decided() {
    for version_2 in [true, false] {
        let backend = TestBackend::new().await;
        backend.enroll("web-1", 1).await;
        backend.add_user("alice", &[key(10)], "web-1", true).await;
        let greet = async |session: &mut Session| match version_2 {
            true => session.met(&hello("", None)).await,
            false => session.says_no_hello().await,
        };
        let mut session = backend.connect(1).await;
        greet(&mut session).await.expect("of no machine so far");
        drop(session);
        drop(meet(&backend, "m1", None).await);

        let mut session = backend.connect(1).await;
        let held = greet(&mut session).await;
        assert!(matches!(held, Err(DispatchError::Held)), "{held:?}");
        drop(session);
        let asked = rows(&backend, "server.question").await;
        assert_eq!(asked.len(), 1);
        assert!(asked[0].starts_with("its agent tells no machine id any more"), "{asked:?}");

        // Accepted: it tells none, and the next machine that tells one is it.
        backend.fleet.accept_server(&backend.admin, &host("web-1")).await.expect("accepted");
        let mut session = backend.connect(1).await;
        greet(&mut session).await.expect("accepted");
        assert_eq!(backend.answer_all(&session, Status::Done).await.len(), 2);
        drop(session);
        drop(meet(&backend, "m2", None).await);
        let mut session = backend.connect(1).await;
        session.met(&hello("m1", None)).await.expect_err("another one");
    }
}
