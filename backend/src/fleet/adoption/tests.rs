//! Accounts that somebody made by hand are taken over and given back.

use bastio_protocol::api::{NewRequest, RemoveUser};
use bastio_protocol::{Action, Detail, FoundGroup, Payload, Status};

use super::*;
use crate::access::Intent;
use crate::dispatch::Session;
use crate::testing::{TestBackend, host, key, login};

/// A server with an account that somebody has made by hand; `deploy` is in the group for sudo, and
/// alice's key logs in to it.
async fn site() -> (TestBackend, Session, i64) {
    let it = TestBackend::new().await;
    it.enroll("web-1", 1).await;
    let session = it.connect_v2(1).await;
    it.add_user("alice", &[key(10)], "", false).await;
    let request = report(&it, &session, found(false)).await;
    (it, session, request)
}

fn found(locked: bool) -> FoundUser {
    let own = |key: &bastio_protocol::PublicKey, options: &str| FoundKey {
        fingerprint: key.fingerprint(),
        algorithm: key.algorithm().name().to_owned(),
        managed: false,
        options: options.to_owned(),
        comment: "by hand".to_owned(),
        file: "/home/deploy/.ssh/authorized_keys".to_owned(),
    };
    FoundUser {
        name: "deploy".to_owned(),
        uid: 1001,
        gid: 1001,
        home: "/home/deploy".to_owned(),
        shell: "/bin/sh".to_owned(),
        comment: String::new(),
        managed: false,
        locked,
        keys: vec![own(&key(10), "no-pty"), own(&key(77), "")],
        keys_unreadable: None,
    }
}

async fn report(it: &TestBackend, session: &Session, account: FoundUser) -> i64 {
    let new = NewRequest { kind: RequestKind::Report, allow_no_admin: false };
    let id = it.fleet.request(&it.admin, &host("web-1"), new).await.unwrap().id;
    let group = |name: &str| FoundGroup {
        name: name.to_owned(),
        gid: 27,
        members: vec!["deploy".to_owned()],
        root_equivalent: true,
    };
    let report = HostReport {
        users: vec![account],
        groups: vec![group("sudo"), group("adm")],
        ..HostReport::default()
    };
    for payload in session.next_payloads(9).await.unwrap() {
        let Payload::Host(message) = payload else { panic!("{payload:?}") };
        let report = Some(Box::new(report.clone()));
        let mut answer = message.reply(Status::Done, "");
        answer.detail = Some(Box::new(Detail { report, ..Detail::default() }));
        session.feedback(&answer).await.unwrap();
    }
    id
}

fn take(request: i64) -> Adopt {
    let (login, user) = (login("deploy"), login("alice"));
    Adopt { login, user, request, no_sudo: false, reason: "ours".into() }
}

/// The next whole account that the agent is told, answered as done.
async fn told(session: &Session) -> WantedAccount {
    let messages = session.next(9).await.unwrap();
    let [message] = messages.as_slice() else { panic!("{messages:?}") };
    let Action::SetUser { wanted } = &message.action else { panic!("{message:?}") };
    session.feedback(&message.reply(Status::Done, "")).await.unwrap();
    (**wanted).clone()
}

#[tokio::test]
async fn an_account_is_found_taken_over_and_given_back() {
    let (it, session, request) = site().await;
    let found = it.fleet.candidates(&it.admin, &host("web-1"), request).await.unwrap();
    let [candidate] = found.as_slice() else { panic!("{found:?}") };
    assert!(candidate.sudo && candidate.adopted_by.is_none());
    assert_eq!(candidate.matches[0].user, login("alice"));

    let tried = it.admin.clone().with_intent(Intent { dry_run: true, ..Intent::default() });
    let preview = it.fleet.adopt(&tried, &host("web-1"), &take(request)).await.unwrap().preview;
    assert!(preview.unwrap().servers[0].steps[0].detail.contains("taken over"));
    assert!(session.next(9).await.unwrap().is_empty(), "it was only tried");
    it.fleet.adopt(&it.admin, &host("web-1"), &take(request)).await.unwrap();
    let wanted = told(&session).await;
    assert!(wanted.take_over && wanted.sudo == Sudo::Plain && wanted.keys.len() == 1);
    let found = it.fleet.candidates(&it.admin, &host("web-1"), request).await.unwrap();
    assert_eq!(found[0].adopted_by, Some(login("alice")));

    it.fleet.give_back(&it.admin, &host("web-1"), &login("deploy")).await.unwrap();
    let wanted = told(&session).await;
    let line = format!("no-pty {} by hand", key(10).without_comment());
    assert_eq!(wanted.release, Some(vec![line]), "the other line was never touched");
    assert!(wanted.sudo == Sudo::Plain && wanted.spec.is_empty() && wanted.keys.is_empty());
    let shown = it.fleet.server(&it.admin, &host("web-1")).await.unwrap();
    assert!(shown.accounts.is_empty());
    assert!(it.fleet.grants(&it.admin, None).await.unwrap().is_empty());
    let again = it.fleet.give_back(&it.admin, &host("web-1"), &login("deploy")).await;
    assert!(matches!(again, Err(FleetError::NotAdopted { .. })), "{again:?}");
}

#[tokio::test]
async fn what_nobody_has_any_more_is_locked_and_never_deleted() {
    let (it, session, request) = site().await;
    it.fleet.adopt(&it.admin, &host("web-1"), &take(request)).await.unwrap();
    told(&session).await;
    let how = RemoveUser { home: Some(bastio_protocol::Removal::Delete) };
    it.fleet.remove_user(&it.admin, &login("alice"), how).await.unwrap();
    let wanted = told(&session).await;
    assert!(wanted.locked && wanted.keys.is_empty() && wanted.release.is_none(), "{wanted:?}");
    it.fleet.give_back(&it.admin, &host("web-1"), &login("deploy")).await.unwrap();
    let wanted = told(&session).await;
    assert_eq!(wanted.release, Some(Vec::new()), "alice's key was taken on purpose");
}

/// What an account had before nobody knows here.
#[tokio::test]
async fn a_way_into_what_was_there_makes_root_and_so_does_giving_it_back() {
    let (it, _session, request) = site().await;
    let take = Adopt { no_sudo: true, ..take(request) };
    it.fleet.adopt(&it.admin, &host("web-1"), &take).await.unwrap();
    let grant = it.fleet.grants(&it.admin, None).await.unwrap().remove(0);
    it.fleet.remove_grant(&it.admin, grant.id).await.unwrap();
    let strict = it.fleet.clone().with_approvals(true);
    let again = NewGrant {
        holder: grant.holder,
        on: grant.on,
        login: grant.login,
        sudo: false,
        terms: Terms::default(),
        reason: String::new(),
    };
    let refused = strict.add_grant(&it.admin, &again).await;
    assert!(matches!(refused, Err(FleetError::NeedsApproval(_))), "{refused:?}");
    let refused = strict.give_back(&it.admin, &host("web-1"), &login("deploy")).await;
    assert!(matches!(refused, Err(FleetError::NeedsApproval(_))), "{refused:?}");
}

#[tokio::test]
async fn what_cannot_be_taken_over_or_given_back_is_refused() {
    let (it, session, request) = site().await;
    let adopt = |adopt: Adopt| {
        let it = &it;
        async move { it.fleet.adopt(&it.admin, &host("web-1"), &adopt).await.unwrap_err() }
    };
    assert!(matches!(adopt(take(request + 1)).await, FleetError::NoReport(_)));
    let nobody = Adopt { login: login("nosuch"), ..take(request) };
    assert!(matches!(adopt(nobody).await, FleetError::NotToBeTaken { .. }));
    let root = Adopt { login: login("root"), ..take(request) };
    assert!(matches!(adopt(root).await, FleetError::SystemName(_)));
    let of_nobody = Adopt { user: login("zoe"), ..take(request) };
    assert!(matches!(adopt(of_nobody).await, FleetError::NoSuchUser(_)));
    let locked = report(&it, &session, found(true)).await;
    assert!(matches!(adopt(take(locked)).await, FleetError::NotToBeTaken { .. }));

    it.fleet.adopt(&it.admin, &host("web-1"), &take(request)).await.unwrap();
    it.add_user("deploy", &[key(11)], "*", false).await;
    let wanted = it.fleet.give_back(&it.admin, &host("web-1"), &login("deploy")).await;
    assert!(matches!(wanted, Err(FleetError::Wanted { .. })), "{wanted:?}");
}
