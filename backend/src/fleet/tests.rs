//! Edits as operators make them, and what they set in motion.

use bastio_protocol::api::{
    AuditRow, Change, Holder, NewApiKey, NewGrant, NewKeys, RemoveUser, Role, Terms, UpdateServer,
    UpdateUser,
};
use bastio_protocol::audit::{ChainedRow, LogFilter, Scope, Summary, Verdict, Verifier};
use bastio_protocol::{KeyOptions, KeyPolicy, PublicKey, Status};
use bastio_transport::{KeyKind, PrivateKey};

use super::*;
use crate::access::Enroller;
use crate::dispatch::{EndReason, Signal};
use crate::store::sql;
use crate::testing::{TestBackend, host, key, login, new_user, token_key};

/// What an edit has queued, as `SERVER ACTION LOGIN`.
fn todo(change: &Change) -> Vec<String> {
    let lines = change.servers.iter().flat_map(|server| {
        let actions = server.actions.iter();
        actions.map(move |a| format!("{} {} {}", server.server, a.action, a.username))
    });
    lines.collect()
}

async fn label(
    backend: &TestBackend,
    name: &str,
    pairs: &[(&str, &str)],
    unset: &[&str],
) -> Change {
    let update = UpdateServer {
        name: None,
        set_labels: pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        unset_labels: unset.iter().map(|label| (*label).into()).collect(),
    };
    backend.fleet.update_server(&backend.admin, &host(name), &update).await.expect("labelled")
}

fn grant(user: &str, on: &str, as_login: Option<&str>, sudo: bool) -> NewGrant {
    let on = on.parse().expect("a target");
    let (terms, reason) = (Terms::default(), "test".into());
    let holder = Holder::User(login(user));
    NewGrant { holder, on, login: as_login.map(login), sudo, terms, reason }
}

fn new_keys(keys: Vec<String>) -> NewKeys {
    NewKeys { keys, options: KeyOptions::default(), until: None }
}

#[tokio::test]
async fn a_person_added_by_label_comes_and_goes_with_the_label() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.enroll("db-1", 2).await;
    label(&backend, "web-1", &[("role", "web")], &[]).await;
    let added = backend.add_user("alice", &[key(10)], "role=web", true).await;
    assert_eq!(todo(&added), ["web-1 add-user alice", "web-1 add-key alice"]);
    assert!(!added.complete);
    let labelled = label(&backend, "db-1", &[("role", "web")], &[]).await;
    assert_eq!(todo(&labelled), ["db-1 add-user alice", "db-1 add-key alice"]);
    let web = backend.connect(1).await;
    backend.answer_all(&web, Status::Done).await;
    let unlabelled = label(&backend, "web-1", &[], &["role"]).await;
    assert_eq!(todo(&unlabelled), ["web-1 remove-user alice"]);
    let nothing = label(&backend, "web-1", &[("rack", "7")], &[]).await;
    assert!(todo(&nothing).is_empty() && nothing.complete);
}

#[tokio::test]
async fn a_server_enrolled_later_gets_what_its_labels_grant() {
    let backend = TestBackend::new().await;
    backend.add_user("alice", &[key(10)], "*", false).await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    assert_eq!(
        backend.answer_all(&session, Status::Done).await,
        ["add-user alice", "add-key alice"]
    );
}

#[tokio::test]
async fn a_repeated_command_waits_for_what_is_under_way_and_queues_nothing_twice() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let first = backend.add_user("alice", &[key(10)], "web-1", false).await;
    let second = backend.add_user("alice", &[key(10)], "web-1", false).await;
    assert_eq!(second.revision, first.revision + 1);
    assert_eq!(second.servers, first.servers, "the very same actions");
    let session = backend.connect(1).await;
    assert_eq!(backend.answer_all(&session, Status::Done).await.len(), 2);
    let third = backend.add_user("alice", &[key(10)], "web-1", false).await;
    assert!(third.servers.is_empty() && third.complete);
}

#[tokio::test]
async fn a_sync_says_everything_again_also_what_was_confirmed() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    backend.add_user("alice", &[key(10)], "web-1", true).await;
    backend.answer_all(&session, Status::Done).await;
    let again = backend.fleet.sync_server(&backend.admin, &host("web-1")).await.expect("planned");
    assert_eq!(todo(&again), ["web-1 add-user alice", "web-1 add-key alice"]);
    let twice = backend.fleet.sync_server(&backend.admin, &host("web-1")).await.expect("planned");
    assert_eq!(todo(&twice), todo(&again), "what waits already is not queued twice");
    backend.answer_all(&session, Status::Unchanged).await;
    let detail = backend.fleet.server(&backend.admin, &host("web-1")).await.expect("there");
    assert_eq!(detail.accounts.len(), 1);
    assert_eq!(detail.server.pending, 0);
}

#[tokio::test]
async fn two_people_of_one_login_share_an_account_and_not_their_keys() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    backend.add_user("alice", &[key(10)], "", false).await;
    backend.add_user("bob", &[key(11)], "", false).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    fleet.add_grant(admin, &grant("alice", "web-1", Some("deploy"), true)).await.expect("granted");
    fleet.add_grant(admin, &grant("bob", "*", Some("deploy"), false)).await.expect("granted");
    assert_eq!(
        backend.answer_all(&session, Status::Done).await,
        ["add-user deploy", "add-key deploy", "add-key deploy"]
    );
    let change =
        fleet.remove_user(admin, &login("alice"), RemoveUser::default()).await.expect("removed");
    assert_eq!(todo(&change), ["web-1 remove-key deploy", "web-1 update-user deploy"]);
    backend.answer_all(&session, Status::Done).await;
    let change =
        fleet.remove_user(admin, &login("bob"), RemoveUser::default()).await.expect("removed");
    assert_eq!(todo(&change), ["web-1 remove-user deploy"]);
}

#[tokio::test]
async fn one_of_two_grants_goes_and_the_account_stays() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    fleet.add_grant(admin, &grant("alice", "*", None, true)).await.expect("granted");
    backend.answer_all(&session, Status::Done).await;
    let grants = fleet.grants(admin, Some(&login("alice"))).await.expect("listed");
    let ids: Vec<i64> = grants.iter().map(|grant| grant.id).collect();
    let change = fleet.remove_grant(admin, ids[1]).await.expect("removed");
    assert_eq!(todo(&change), ["web-1 update-user alice"]);
    let change = fleet.remove_grant(admin, ids[0]).await.expect("removed");
    assert_eq!(todo(&change), ["web-1 remove-user alice"], "sudo needs no more taking");
    let gone = fleet.remove_grant(admin, ids[0]).await;
    assert!(matches!(gone, Err(FleetError::NoSuchGrant(id)) if id == ids[0]));
}

#[tokio::test]
async fn the_same_grant_again_adds_rights_and_never_takes_them() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.add_user("alice", &[key(10)], "web-1", true).await;
    backend.add_user("alice", &[key(11)], "web-1", false).await;
    let grants = backend.fleet.grants(&backend.admin, None).await.expect("listed");
    assert_eq!(grants.len(), 1);
    assert!(grants[0].sudo);
    let session = backend.connect(1).await;
    backend.answer_all(&session, Status::Done).await;
    let update = UpdateUser { sudo: Some(false), ..UpdateUser::default() };
    let change = backend.fleet.update_user(&backend.admin, &login("alice"), &update).await;
    assert_eq!(todo(&change.expect("updated")), ["web-1 update-user alice"]);
    assert!(!backend.fleet.grants(&backend.admin, None).await.expect("listed")[0].sudo);
}

#[tokio::test]
async fn keys_come_and_go_by_what_they_are() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    let session = backend.connect(1).await;
    backend.answer_all(&session, Status::Done).await;
    let (fleet, admin, alice) = (&backend.fleet, &backend.admin, login("alice"));
    let same = new_keys(vec![format!("{} other comment", key(10).without_comment())]);
    assert!(todo(&fleet.add_keys(admin, &alice, &same).await.expect("known")).is_empty());
    let two = new_keys(vec![key(11).to_string(), key(12).to_string()]);
    let change = fleet.add_keys(admin, &alice, &two).await.expect("added");
    assert_eq!(todo(&change), ["web-1 add-key alice", "web-1 add-key alice"]);
    backend.answer_all(&session, Status::Done).await;
    let bare = key(10).fingerprint().replace("SHA256:", "");
    let change = fleet.remove_key(admin, &alice, &bare).await.expect("removed");
    assert_eq!(todo(&change), ["web-1 remove-key alice"]);
    let again = fleet.remove_key(admin, &alice, &bare).await;
    assert!(matches!(again, Err(FleetError::NoSuchKey { .. })));
    let bad = new_keys(vec![key(13).to_string(), "ssh-rsa AAAA".into()]);
    let refused = fleet.add_keys(admin, &alice, &bad).await;
    assert!(matches!(refused, Err(FleetError::BadKey { number: 2, .. })));
    let none = fleet.add_keys(admin, &alice, &new_keys(vec![])).await;
    assert!(matches!(none, Err(FleetError::NoKeys)));
    assert_eq!(fleet.user(admin, &alice).await.expect("there").keys.len(), 2, "all or none");
}

#[tokio::test]
async fn a_grant_follows_its_server_when_it_is_renamed() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.enroll("web-2", 2).await;
    backend.add_user("alice", &[key(10)], "web-1,web-2", false).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let rename = |name: &str| UpdateServer { name: Some(host(name)), ..UpdateServer::default() };
    let change =
        fleet.update_server(admin, &host("web-1"), &rename("front")).await.expect("renamed");
    assert!(todo(&change).is_empty(), "nothing changes on the server");
    let grants = fleet.grants(admin, None).await.expect("listed");
    assert_eq!(grants[0].on.to_string(), "front,web-2");
    let taken = fleet.update_server(admin, &host("front"), &rename("web-2")).await;
    assert!(matches!(taken, Err(FleetError::NameTaken(name)) if name == host("web-2")));
}

#[tokio::test]
async fn a_removed_server_leaves_its_name_without_rights() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.enroll("web-2", 2).await;
    let session = backend.connect(1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    backend.answer_all(&session, Status::Done).await;
    let waiting = backend.add_user("bob", &[key(11)], "web-1,web-2", false).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let change = fleet.remove_server(admin, &host("web-1")).await.expect("removed");
    let stay = "its agent is refused, and accounts and keys stay on the host until they are removed \
                there (userdel): alice";
    assert!(change.summary.ends_with(stay), "{}", change.summary);
    let grants = fleet.grants(admin, None).await.expect("listed");
    let left: Vec<String> = grants.iter().map(|g| format!("{} {}", g.holder, g.on)).collect();
    assert_eq!(left, ["user bob web-2"]);
    let wait = std::time::Duration::ZERO;
    let waiting = fleet.change(admin, waiting.revision, None, wait).await.expect("there");
    let texts = waiting.servers[0].actions.iter().map(|a| a.feedback.clone());
    assert!(texts.flatten().all(|text| text == "not sent: the server was removed"));
    let anew = backend.enroll("web-1", 3).await;
    let detail = fleet.server(admin, &anew.name).await.expect("there");
    assert_eq!((detail.server.pending, detail.accounts.len()), (0, 0), "no right is inherited");
}

#[tokio::test]
async fn a_name_mistyped_grants_nothing() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let new = new_user("alice", &[key(10)], "web-1,web-2", false);
    let refused = backend.fleet.add_user(&backend.admin, &new).await;
    assert!(matches!(refused, Err(FleetError::NoSuchServer(name)) if name == host("web-2")));
    let users = backend.fleet.users(&backend.admin).await.expect("listed");
    assert!(users.is_empty(), "all or nothing");
}

#[tokio::test]
async fn texts_for_people_are_lines() {
    let backend = TestBackend::new().await;
    for text in ["two\nlines", "\u{1b}[2J", &"x".repeat(1001)] {
        let new = bastio_protocol::api::NewUser {
            full_name: text.into(),
            ..new_user("a", &[], "", false)
        };
        let refused = backend.fleet.add_user(&backend.admin, &new).await;
        assert!(matches!(refused, Err(FleetError::BadText { what: "the full name", .. })));
    }
}

#[tokio::test]
async fn every_edit_is_on_record_in_an_unbroken_chain() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    backend.add_user("alice", &[key(10)], "web-1", true).await;
    backend.answer_all(&session, Status::Done).await;
    backend
        .fleet
        .remove_user(&backend.admin, &login("alice"), RemoveUser::default())
        .await
        .expect("removed");
    backend.answer_all(&session, Status::Failed).await;
    let chain = backend.log(&LogFilter::default()).await;
    let rows: Vec<AuditRow> = chain.iter().map(|chained| chained.row.clone()).collect();
    let lines: Vec<String> =
        rows.iter().map(|row| format!("{} {}", row.actor, row.action)).collect();
    assert_eq!(
        lines,
        [
            "backend api-key.add",
            "key:admin server.add",
            "key:admin user.add",
            "key:admin key.add",
            "key:admin grant.add",
            "agent:web-1 action.done",
            "agent:web-1 action.done",
            "key:admin user.remove",
            "agent:web-1 action.failed",
        ]
    );
    assert_eq!(rows[8].detail, "remove-user: 500 as told");
    assert_eq!(
        (rows[8].user.as_deref(), rows[8].server.as_deref()),
        (Some("alice"), Some("web-1"))
    );
    assert_eq!(rows[2].from.as_deref(), Some("192.0.2.7"));
    assert_eq!((rows[8].status, rows[5].status), (Some(Status::Failed), Some(Status::Done)));
    let head = chain.last().map(ChainedRow::head);
    let mut verifier = Verifier::new(Scope::Whole, head.clone(), None);
    chain.iter().for_each(|row| verifier.row(Some(row.clone())));
    let summary = Summary { first: Some(1), last: head, rows: 9, left_out: 0, known_seen: false };
    assert_eq!(verifier.finish(), Verdict::Intact(summary));
}

/// Whether a task is still waiting after everything else that can run has run.
async fn still_waits<T>(task: &mut tokio::task::JoinHandle<T>) -> bool {
    tokio::time::timeout(std::time::Duration::from_millis(50), task).await.is_err()
}

#[tokio::test]
async fn waiting_for_an_edit_ends_with_news_or_the_end_or_the_time() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let edit = backend.add_user("alice", &[], "web-1", false).await;
    let (fleet, admin) = (backend.fleet.clone(), backend.admin.clone());
    let short = std::time::Duration::from_millis(20);
    let long = std::time::Duration::from_secs(3600);
    let none = fleet.change(&admin, edit.revision, Some(edit.progress), short).await;
    assert_eq!(none.expect("there"), edit);
    let revision = edit.revision;
    let wait = || {
        let (fleet, admin) = (fleet.clone(), admin.clone());
        tokio::spawn(async move {
            fleet.change(&admin, revision, Some(edit.progress), long).await.expect("there")
        })
    };
    let mut waiter = wait();
    assert!(still_waits(&mut waiter).await, "nothing has happened yet");
    let session = backend.connect(1).await;
    let came = waiter.await.expect("not panicked");
    assert_eq!(came.servers.first().map(|server| server.presence), Some(Presence::Connected));
    assert_eq!(came.progress, edit.progress);
    let waiter = wait();
    session.next(1).await.expect("a queue");
    let news = waiter.await.expect("not panicked");
    assert!(news.progress > edit.progress);
    backend.answer_all(&session, Status::Done).await;
    session.close().await.expect("closed");
    let missing = backend.fleet.change(&backend.admin, 99, None, long).await;
    assert!(matches!(missing, Err(FleetError::NoSuchRevision(99))));
}

#[tokio::test]
async fn enrolling_twice_ends_the_same() {
    let backend = TestBackend::new().await;
    let first = backend.enroll("web", 1).await;
    let again = backend.enroll("another-name", 1).await;
    assert_eq!(first, again);
    let second = backend.enroll("web", 2).await;
    assert_eq!(second.name, host("web-2"));
    let request = Enrolment::of(key(3));
    let unnamed = backend.fleet.enroll(&backend.enroller, &request).await.expect("enrolled");
    assert!(unnamed.name.as_str().starts_with("server-") && unnamed.name.as_str().len() == 15);
}

#[tokio::test]
async fn a_key_is_replaced_once_and_by_its_own_server() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let other = backend.enroll("web-2", 2).await;
    let mut session = backend.connect(1).await;
    let request = |new, old| replacement(&key(new), &key(old), None);
    let (fleet, enroller) = (&backend.fleet, &backend.enroller);
    let same = fleet.enroll(enroller, &request(1, 1)).await.expect("the same key as old and new");
    assert_eq!(same, web);
    assert_eq!(fleet.enroll(enroller, &request(5, 1)).await.expect("replaced"), web);
    assert_eq!(session.signal().await, Signal::End(EndReason::KeyReplaced));
    assert_eq!(backend.dispatch.identify(&key(1)).await.expect("a store"), None);
    let repeated = fleet.enroll(enroller, &request(5, 1)).await.expect("its answer was lost");
    assert_eq!(repeated, web);
    let stolen = fleet.enroll(enroller, &request(5, 2)).await;
    assert!(matches!(stolen, Err(EnrollError::KeyOfAnother)), "{other:?}");
    let unknown = fleet.enroll(enroller, &request(6, 7)).await;
    assert!(matches!(unknown, Err(EnrollError::OldKeyUnknown)));
    let token = Enrolment::of(token_key());
    let unfit = fleet.enroll(enroller, &token).await;
    assert!(matches!(unfit, Err(EnrollError::UnfitKey(_))));
    let servers = fleet.servers(&backend.admin).await.expect("listed");
    assert_eq!(servers.len(), 2);
}

fn replacement(new: &PublicKey, old: &PublicKey, proof: Option<String>) -> Enrolment {
    Enrolment { old_public_key: Some(old.clone()), proof, ..Enrolment::of(new.clone()) }
}

fn public(key: &PrivateKey) -> PublicKey {
    PublicKey::parse(&key.public_line(), &KeyPolicy::ANY).expect("a key line")
}

/// What `old` signs so that `new` takes its place.
fn signed(old: &PrivateKey, new: &PrivateKey) -> Option<String> {
    let text = bastio_protocol::replacement_text(&old.public_line(), &new.public_line());
    Some(old.sign(bastio_protocol::REPLACE_NAMESPACE, text.as_bytes()).expect("signed"))
}

async fn enroll_only(backend: &TestBackend) -> Enroller {
    let new = NewApiKey { name: "hosts".to_owned(), role: Role::Enroll, secret_sha256: None };
    let (_, secret) = backend.keys.create(&backend.admin, &new).await.expect("made");
    backend.keys.enroller(secret.expose(), None).await.expect("known")
}

async fn replacements(backend: &TestBackend) -> Vec<String> {
    let replaced = Some("server.replace-key".parse().expect("a pattern"));
    let rows = backend.log(&LogFilter { action: replaced, ..LogFilter::default() }).await;
    rows.iter()
        .map(|chained| chained.row.detail.rsplit(", ").next().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn a_public_key_and_an_enrolling_api_key_take_no_server_over() {
    let backend = TestBackend::new().await;
    let enroller = enroll_only(&backend).await;
    let make = |kind| PrivateKey::generate(kind).expect("a key");
    let rsa = KeyKind::Rsa { bits: 2048 };
    let (old, new, third) = (make(rsa), make(KeyKind::Ed25519), make(KeyKind::Ed25519));
    let first = Enrolment { old_public_key: None, ..replacement(&public(&old), &key(1), None) };
    let fleet = backend.fleet.clone().with_original_agents(true);
    let server = fleet.enroll(&enroller, &first).await.expect("enrolled");
    let for_other_purpose = old.sign("file", b"x").expect("signed");
    for proof in [
        None,
        Some(String::new()),
        Some("yes".to_owned()),
        Some(for_other_purpose),
        signed(&new, &new),
        signed(&old, &third),
    ] {
        let asked = replacement(&public(&new), &public(&old), proof);
        let refused = fleet.enroll(&enroller, &asked).await;
        assert!(matches!(refused, Err(EnrollError::NoProof)), "{asked:?}: {refused:?}");
    }
    assert!(backend.dispatch.identify(&public(&old)).await.expect("a store").is_some());
    assert_eq!(replacements(&backend).await, [""; 0]);

    let asked = replacement(&public(&new), &public(&old), signed(&old, &new));
    assert_eq!(fleet.enroll(&enroller, &asked).await.expect("replaced"), server);
    let unsigned = replacement(&public(&third), &public(&new), None);
    assert_eq!(fleet.enroll(&backend.enroller, &unsigned).await.expect("replaced"), server);
    let expected = ["signed by the old key", "by an API key of role admin"];
    assert_eq!(replacements(&backend).await, expected);
}

#[tokio::test]
async fn an_original_agent_cannot_sign_and_need_not_where_it_has_a_port() {
    let backend = TestBackend::new().await;
    let enroller = enroll_only(&backend).await;
    backend.enroll("old-1", 1).await;
    backend.connect_as(1, true).await.close().await.expect("closed");
    let asked = replacement(&key(2), &key(1), None);
    let refused = backend.fleet.enroll(&enroller, &asked).await;
    assert!(matches!(refused, Err(EnrollError::NoProof)), "no port for it: {refused:?}");
    let fleet = backend.fleet.clone().with_original_agents(true);
    fleet.enroll(&enroller, &asked).await.expect("replaced");
    assert_eq!(replacements(&backend).await, ["of an original agent"]);
    // Once it has been updated it can sign, and has to.
    backend.connect(2).await.close().await.expect("closed");
    let refused = fleet.enroll(&enroller, &replacement(&key(3), &key(2), None)).await;
    assert!(matches!(refused, Err(EnrollError::NoProof)), "{refused:?}");
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_passes() {
    let backend = TestBackend::on_file().await;
    backend.enroll("web-1", 1).await;
    let mut tx = backend.store.write().await.expect("a writer");
    let pages: i64 =
        sql::query_scalar("PRAGMA page_count").fetch_one(&mut tx).await.expect("counted");
    let full = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
    sql::query(full).execute(&mut tx).await.expect("set");
    drop(tx);
    let many: Vec<_> = (10..200).map(key).collect();
    let new = new_user("alice", &many, "web-1", false);
    let full = backend.fleet.add_user(&backend.admin, &new).await;
    assert!(matches!(full, Err(FleetError::Store(_))), "{full:?}");
    assert!(backend.fleet.users(&backend.admin).await.expect("listed").is_empty());
    let status = backend.fleet.status(&backend.admin, "SHA256:x".to_owned()).await.expect("read");
    assert_eq!((status.revision, status.host_key.as_str()), (1, "SHA256:x"));
    let mut tx = backend.store.write().await.expect("a writer");
    sql::query("PRAGMA max_page_count = 1000000").execute(&mut tx).await.expect("set");
    drop(tx);
    let change = backend.fleet.add_user(&backend.admin, &new).await.expect("added");
    assert_eq!(todo(&change).len(), 191);
}

#[tokio::test]
async fn a_value_that_nobody_stored_is_an_error() {
    let backend = TestBackend::new().await;
    backend.add_user("alice", &[key(10)], "", false).await;
    let mut tx = backend.store.write().await.expect("a writer");
    sql::query("UPDATE user_keys SET public_key = 'x'").execute(&mut tx).await.expect("set");
    tx.commit().await.expect("committed");
    let read = backend.fleet.users(&backend.admin).await;
    let corrupt = crate::store::StoreError::Corrupt { what: "a public key" };
    assert_eq!(read.expect_err("not a key").to_string(), corrupt.to_string());
}
