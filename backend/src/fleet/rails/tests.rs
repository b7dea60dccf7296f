//! What is only tried never was; what stops an edit stops it, and nothing else does.

use bastio_protocol::api::{Change, NewUser, Preview, RemoveUser, Role, UpdateUser, UserState};
use bastio_protocol::{Removal, Status};

use bastio_protocol::audit::{ChainedRow, LogFilter};

use super::*;
use crate::access::{AccessError, Admin, Intent};
use crate::plan::Rails;
use crate::store::audit::Page;
use crate::testing::{TestBackend, host, key, login, new_user};

async fn log(backend: &TestBackend) -> Result<Vec<ChainedRow>, FleetError> {
    backend.fleet.log(&backend.admin, &LogFilter::default(), Page::Last, 100).await
}

fn tries(backend: &TestBackend) -> Admin {
    backend.admin.clone().with_intent(Intent { dry_run: true, ..Intent::default() })
}

fn plainly(backend: &TestBackend) -> Admin {
    backend.admin.clone().with_intent(Intent::default())
}

fn preview(change: Change) -> Preview {
    assert!(change.complete && change.servers.is_empty(), "{change:?}");
    *change.preview.expect("only tried")
}

fn lines(preview: &Preview) -> Vec<String> {
    let lines = preview.servers.iter().flat_map(|server| {
        server.steps.iter().map(|step| {
            let line = format!("{} {} {}", server.server, step.action, step.username);
            format!("{line} {}", step.detail).trim_end().to_owned()
        })
    });
    lines.collect()
}

fn stopped(result: Result<Change, FleetError>) -> String {
    match result {
        Err(error @ FleetError::NeedsConfirmation(_)) => {
            assert!(error.hint().is_some_and(|hint| hint.contains("--yes-really")));
            error.to_string()
        }
        other => panic!("not stopped: {other:?}"),
    }
}

fn user(name: &str, number: u8, on: &str, sudo: bool) -> NewUser {
    new_user(name, &[key(number)], on, sudo)
}

#[tokio::test]
async fn what_is_only_tried_is_shown_and_never_was() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.enroll("web-2", 2).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let before = fleet.status(admin, String::new()).await.expect("read");
    let rows = log(&backend).await.expect("read");
    let new = user("alice", 10, "*", true);
    let tried = preview(fleet.add_user(&tries(&backend), &new).await.expect("tried"));
    let print = key(10).fingerprint();
    let key_line = format!("add-key alice {print} key10@test");
    assert_eq!(
        lines(&tried),
        [
            "web-1 add-user alice with sudo".to_owned(),
            format!("web-1 {key_line}"),
            "web-2 add-user alice with sudo".to_owned(),
            format!("web-2 {key_line}"),
        ]
    );
    let blast = BlastRadius {
        servers: 2,
        of: 2,
        logins: 1,
        gained: 2,
        sudo_gained: 2,
        ..BlastRadius::default()
    };
    assert_eq!((tried.blast, tried.stops.len()), (blast, 0));
    assert_eq!(fleet.status(admin, String::new()).await.expect("read"), before);
    assert_eq!(log(&backend).await.expect("read"), rows);
    let done = fleet.add_user(admin, &new).await.expect("done");
    assert_eq!(done.servers.len(), tried.servers.len(), "what was shown is what is done");
}

#[tokio::test]
async fn the_last_admin_of_a_server_goes_only_when_that_is_meant() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    let (fleet, plain) = (&backend.fleet, &plainly(&backend));
    backend.add_user("alice", &[key(10)], "*", true).await;
    backend.add_user("bob", &[key(11)], "*", false).await;
    backend.answer_all(&session, Status::Done).await;
    let expected =
        "this edit was stopped: nobody with sudo rights and a key would be left on web-1";
    let alice = &login("alice");
    let how = RemoveUser { home: Some(Removal::Keep) };
    assert_eq!(stopped(fleet.remove_user(plain, alice, how).await), expected);
    let print = key(10).fingerprint();
    assert_eq!(stopped(fleet.remove_key(plain, alice, &print).await), expected);
    for update in [
        UpdateUser { sudo: Some(false), ..UpdateUser::default() },
        UpdateUser { state: Some(UserState::Locked), ..UpdateUser::default() },
    ] {
        assert_eq!(stopped(fleet.update_user(plain, alice, &update).await), expected);
    }
    let tried = preview(fleet.remove_user(&tries(&backend), alice, how).await.expect("tried"));
    assert!(tried.servers[0].last_admin_lost && tried.blast.last_admin_lost == 1);
    assert_eq!(tried.stops.len(), 1);
    let bob = fleet.remove_user(plain, &login("bob"), RemoveUser::default()).await;
    bob.expect("no admin goes");
    fleet.remove_user(&backend.admin, alice, how).await.expect("meant");
}

#[tokio::test]
async fn another_admin_counts_once_the_server_has_confirmed_it() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    let (fleet, plain) = (&backend.fleet, &plainly(&backend));
    backend.add_user("alice", &[key(10)], "*", true).await;
    backend.answer_all(&session, Status::Done).await;
    backend.add_user("carol", &[key(12)], "*", true).await;
    let alice = &login("alice");
    stopped(fleet.remove_user(plain, alice, RemoveUser::default()).await);
    backend.answer_all(&session, Status::Done).await;
    fleet.remove_user(plain, alice, RemoveUser::default()).await.expect("carol is there");
    let carol = &login("carol");
    stopped(fleet.remove_user(plain, carol, RemoveUser::default()).await);
}

#[tokio::test]
async fn much_of_a_fleet_at_once_must_be_meant() {
    let mut backend = TestBackend::new().await;
    backend.fleet = backend.fleet.clone().with_rails(Rails { percent: 50, at_least: 3 });
    for number in 1..=4 {
        backend.enroll(&format!("web-{number}"), number).await;
    }
    let (fleet, plain) = (&backend.fleet, &plainly(&backend));
    fleet.add_user(plain, &user("alice", 10, "web-1,web-2", false)).await.expect("half");
    let text = stopped(fleet.add_user(plain, &user("bob", 11, "*", false)).await);
    assert_eq!(text, "this edit was stopped: it concerns 4 of 4 servers, more than 50 %");
    fleet.add_user(&backend.admin, &user("bob", 11, "*", false)).await.expect("meant");
    fleet.remove_user(plain, &login("bob"), RemoveUser::default()).await.expect("a leaver");
}

#[tokio::test]
async fn what_cannot_be_tried_is_not_done() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let _session = backend.connect_v2(1).await;
    let (tries, fleet) = (tries(&backend), &backend.fleet);
    let new = bastio_protocol::api::NewApiKey {
        name: "second".into(),
        role: Role::Admin,
        secret_sha256: None,
    };
    assert!(matches!(backend.keys.create(&tries, &new).await, Err(AccessError::NotTriable)));
    let sync = fleet.sync_server(&tries, &host("web-1")).await;
    assert!(matches!(sync, Err(FleetError::NotTriable)), "{sync:?}");
    let keys = backend.keys.list(&tries).await.expect("listed");
    assert!(keys.iter().all(|key| key.name != "second"));
}

#[tokio::test]
async fn each_server_tells_up_to_which_revision_it_is_in_sync() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.enroll("web-2", 2).await;
    let session = backend.connect(1).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let first = backend.add_user("alice", &[key(10)], "*", false).await.revision;
    backend.answer_all(&session, Status::Done).await;
    let second = backend.add_user("bob", &[key(11)], "web-1", false).await.revision;
    backend.answer_all(&session, Status::Failed).await;
    let plan = fleet.convergence(admin, None).await.expect("read");
    let seen: Vec<(String, i64, usize)> = plan
        .iter()
        .map(|server| (server.server.to_string(), server.in_sync_at, server.open.len()))
        .collect();
    assert_eq!(seen, [("web-1".to_owned(), second - 1, 2), ("web-2".to_owned(), first - 1, 2)]);
    let one = fleet.convergence(admin, Some(&host("web-2"))).await.expect("read");
    assert_eq!(one, plan[1..]);
    let none = fleet.convergence(admin, Some(&host("web-9"))).await;
    assert!(matches!(none, Err(FleetError::NoSuchServer(_))));
}
