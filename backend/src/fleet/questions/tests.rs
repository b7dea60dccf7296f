//! A server under the name of another: nothing is given before somebody has decided, and the decision
//! is carried out whole.

use bastio_protocol::Status;
use bastio_protocol::api::UpdateServer;
use bastio_protocol::audit::LogFilter;

use super::*;
use crate::dispatch::{DispatchError, Session, SessionInfo};
use crate::testing::{ADDRESS, TestBackend, host, key};

async fn open(backend: &TestBackend, number: u8) -> Result<Session, DispatchError> {
    let server =
        backend.dispatch.identify(&key(number)).await?.ok_or(DispatchError::NotOnRecord)?;
    let info = SessionInfo { address: ADDRESS, ident: "SSH-2.0-test".into(), legacy: false };
    backend.dispatch.open(&server, info).await
}

/// web-1 with a label and two people, and a second one that calls itself web-1, too.
async fn twins() -> TestBackend {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let mut update = UpdateServer::default();
    update.set_labels.insert("role".into(), "web".into());
    backend.fleet.update_server(&backend.admin, &host("web-1"), &update).await.expect("labelled");
    backend.add_user("alice", &[key(10)], "web-1", true).await;
    backend.add_user("bob", &[key(11)], "role=web", false).await;
    backend.add_user("carol", &[key(12)], "*", false).await;
    let session = backend.connect(1).await;
    backend.answer_all(&session, Status::Done).await;
    assert_eq!(backend.enroll("web-1", 2).await.name, host("web-1-2"));
    backend
}

#[tokio::test]
async fn a_second_server_of_one_name_waits_and_inherits_nothing() {
    let backend = twins().await;
    for _ in 0..2 {
        let held = open(&backend, 2).await;
        assert!(matches!(held, Err(DispatchError::Held)), "{held:?}");
    }
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let shown = fleet.server(admin, &host("web-1-2")).await.expect("read").server;
    let text = &shown.questions[0].text;
    assert!(text.contains("bastio server replace web-1 --with web-1-2"), "{text}");
    let id = backend.dispatch.identify(&key(2)).await.expect("read").expect("known").id;
    assert_eq!(fleet.waits_for(&backend.enroller, id).await.expect("read").as_ref(), Some(text));
    assert_eq!(fleet.status(admin, String::new()).await.expect("read").undecided, 1);
    // The one that was there goes on.
    open(&backend, 1).await.expect("served");

    fleet.accept_server(admin, &host("web-1-2")).await.expect("accepted");
    let session = open(&backend, 2).await.expect("let in");
    let told = backend.answer_all(&session, Status::Done).await;
    assert_eq!(told, ["add-user carol", "add-key carol"], "what every server has, and no more");
    let again = fleet.accept_server(admin, &host("web-1-2")).await;
    assert!(matches!(again, Err(FleetError::NothingAsked(_))), "{again:?}");
    assert_eq!(fleet.waits_for(&backend.enroller, id).await.expect("read"), None);
}

#[tokio::test]
async fn a_server_set_up_anew_takes_its_own_place() {
    let backend = twins().await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let old = open(&backend, 1).await.expect("served");
    fleet.replace_server(admin, &host("web-1"), &host("web-1-2")).await.expect("replaced");
    assert!(!backend.dispatch.is_connected(old.server().id), "the old one is out");
    assert!(matches!(open(&backend, 1).await, Err(DispatchError::NotOnRecord)));
    let session = open(&backend, 2).await.expect("let in");
    assert_eq!(session.server().name, host("web-1"));
    let mut told = backend.answer_all(&session, Status::Done).await;
    told.retain(|action| action.starts_with("add-user"));
    told.sort_unstable();
    assert_eq!(told, ["add-user alice", "add-user bob", "add-user carol"]);
    let servers = fleet.servers(admin).await.expect("read");
    assert_eq!(servers.len(), 1);
    assert_eq!(servers[0].labels["role"], "web");
    assert!(servers[0].questions.is_empty());
    let log = backend.log(&LogFilter::default()).await;
    let row = log.iter().find(|row| row.row.action == "server.replace").expect("on record");
    assert!(row.row.detail.contains(&key(2).fingerprint()), "{}", row.row.detail);
    let grants = fleet.grants(admin, None).await.expect("read");
    assert_eq!(grants.len(), 3, "grants by name follow the name");
}

#[tokio::test]
async fn no_server_takes_the_place_of_one_that_it_was_not_enrolled_as() {
    let backend = twins().await;
    backend.enroll("db-1", 3).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    for (name, with) in [("web-1", "db-1"), ("db-1", "web-1-2"), ("web-1-2", "web-1-2")] {
        let refused = fleet.replace_server(admin, &host(name), &host(with)).await;
        let refused = refused.expect_err(name);
        assert!(
            matches!(refused, FleetError::NotAsked { .. } | FleetError::NothingAsked(_)),
            "{refused:?}"
        );
    }
    // Turned away, it is as if it had never come.
    fleet.remove_server(admin, &host("web-1-2")).await.expect("removed");
    assert!(matches!(open(&backend, 2).await, Err(DispatchError::NotOnRecord)));
    assert_eq!(fleet.status(admin, String::new()).await.expect("read").undecided, 0);
}
