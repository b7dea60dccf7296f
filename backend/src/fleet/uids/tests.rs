//! Login names get their numbers once and for good.

use bastio_protocol::api::{NewGrant, RemoveUser, Terms, UpdateUser};
use bastio_protocol::{AccountSpec, Action, ActionMessage, Status};

use super::*;
use crate::dispatch::Session;
use crate::testing::{NOW, TestBackend, key, login, new_user};

const RANGE: UidRange = UidRange { from: 20_000, to: 20_003 };

async fn numbered() -> TestBackend {
    let mut backend = TestBackend::new().await;
    backend.fleet = backend.fleet.with_uids(Some(RANGE));
    backend
}

/// What the agent is told of uids, each answered as done: `alice 20000`.
async fn told(session: &Session) -> Vec<String> {
    let mut told = Vec::new();
    for message in session.next(10).await.unwrap() {
        let ActionMessage { username, action, .. } = &message;
        told.push(match action {
            Action::SetUser { wanted } => {
                format!("{username} {}", wanted.spec.uid.map_or("none".into(), |it| it.to_string()))
            }
            other => format!("{username} {}", other.name()),
        });
        session.feedback(&message.reply(Status::Done, "")).await.unwrap();
    }
    told
}

async fn remove(backend: &TestBackend, name: &str) {
    let how = RemoveUser::default();
    backend.fleet.remove_user(&backend.admin, &login(name), how).await.unwrap();
}

#[tokio::test]
async fn a_login_has_one_id_for_good_and_nobody_else_gets_it() {
    let backend = numbered().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    backend.add_user("ann", &[], "", false).await;
    let shown = backend.fleet.user(&backend.admin, &login("ann")).await.unwrap();
    assert_eq!(shown.uid, None, "without a grant there is no account");
    backend.add_user("bob", &[key(2)], "*", false).await;
    backend.add_user("ann", &[key(3)], "*", true).await;
    assert_eq!(told(&session).await, ["bob 20000", "ann 20001"]);
    let shown = backend.fleet.user(&backend.admin, &login("ann")).await.unwrap();
    assert_eq!(shown.uid, Some(20_001));
    let all = backend.fleet.users(&backend.admin).await.unwrap();
    assert_eq!(all.iter().map(|user| user.uid).collect::<Vec<_>>(), [Some(20_001), Some(20_000)]);

    remove(&backend, "ann").await;
    assert_eq!(told(&session).await, ["ann remove-user"]);
    let mut db = backend.store.read().await.unwrap();
    let reserved = store::uids::reserved(&mut db).await.unwrap();
    assert_eq!(reserved.get(&login("ann")), Some(&20_001), "reserved after the removal");
    drop(db);
    backend.add_user("carol", &[key(4)], "*", false).await;
    backend.add_user("ann", &[key(5)], "*", false).await;
    assert_eq!(told(&session).await, ["carol 20002", "ann 20001"]);
}

#[tokio::test]
async fn an_id_said_by_an_operator_wins_and_belongs_to_one_alone() {
    let backend = numbered().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    let with = |name: &str, uid: u32| {
        let mut new = new_user(name, &[key(7)], "*", false);
        new.spec.uid = Some(uid);
        new
    };
    backend.fleet.add_user(&backend.admin, &with("ann", 20_000)).await.unwrap();
    backend.add_user("bob", &[key(2)], "*", false).await;
    assert_eq!(told(&session).await, ["ann 20000", "bob 20001"]);
    let taken = backend.fleet.add_user(&backend.admin, &with("eve", 20_001)).await.unwrap_err();
    assert!(
        matches!(&taken, FleetError::UidTaken { uid: 20_001, owner } if *owner == login("bob"))
    );
    remove(&backend, "ann").await;
    let update = |uid| {
        let spec = AccountSpec { uid: Some(uid), ..AccountSpec::default() };
        UpdateUser { spec, ..UpdateUser::default() }
    };
    let of_gone = backend.fleet.update_user(&backend.admin, &login("bob"), &update(20_000)).await;
    assert!(matches!(of_gone, Err(FleetError::UidTaken { .. })), "{of_gone:?}");
    backend.fleet.update_user(&backend.admin, &login("bob"), &update(5000)).await.unwrap();
    assert_eq!(told(&session).await, ["ann remove-user", "bob 5000"]);
}

#[tokio::test]
async fn accounts_that_servers_have_numbered_themselves_are_left_alone() {
    let mut backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.enroll("old-1", 2).await;
    let (session, old) = (backend.connect_v2(1).await, backend.connect(2).await);
    backend.add_user("ann", &[key(3)], "web-1", false).await;
    assert_eq!(told(&session).await, ["ann none"]);
    backend.fleet = backend.fleet.with_uids(Some(RANGE));
    backend.add_user("ann", &[], "*", true).await;
    backend.add_user("bob", &[key(4)], "*", false).await;
    assert_eq!(told(&session).await, ["ann update-user", "bob 20000"]);
    let version_1 = backend.answer_all(&old, Status::Done).await;
    let expected = ["add-user ann", "add-key ann", "add-user bob", "add-key bob"];
    assert_eq!(version_1, expected, "who cannot be told an id chooses one");
}

#[tokio::test]
async fn an_account_that_is_taken_over_keeps_its_own_id() {
    let backend = numbered().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    backend.add_user("ann", &[key(3)], "", false).await;
    let grant = NewGrant {
        holder: bastio_protocol::api::Holder::User(login("ann")),
        on: "*".parse().unwrap(),
        login: None,
        sudo: false,
        terms: Terms { take_over: true, ..Terms::default() },
        reason: String::new(),
    };
    backend.fleet.add_grant(&backend.admin, &grant).await.unwrap();
    assert_eq!(told(&session).await, ["ann none"]);
}

#[tokio::test]
async fn a_range_that_is_used_up_stops_the_edit_and_skips_what_is_nobodys() {
    let mut backend = numbered().await;
    backend.enroll("web-1", 1).await;
    for name in ["a", "b", "c", "d"] {
        backend.add_user(name, &[], "*", false).await;
    }
    let refused = backend.fleet.add_user(&backend.admin, &new_user("e", &[], "*", false)).await;
    assert!(matches!(refused, Err(FleetError::NoUidLeft(name)) if name == login("e")));
    let nobody = UidRange { from: 65_534, to: 65_536 };
    backend.fleet = backend.fleet.with_uids(Some(nobody));
    backend.add_user("f", &[], "*", false).await;
    let shown = backend.fleet.user(&backend.admin, &login("f")).await.unwrap();
    assert_eq!(shown.uid, Some(65_536));

    // The gaps come last.
    let mut tx = backend.store.write().await.unwrap();
    let gaps = UidRange { from: 30_000, to: 30_002 };
    store::uids::keep(&mut tx, &login("x"), 30_002, true, NOW).await.unwrap();
    assert_eq!(store::uids::free(&mut tx, gaps).await.unwrap(), Some(30_000));
}
