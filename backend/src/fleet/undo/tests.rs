//! The model goes back, for all servers and for one.

use bastio_protocol::api::{
    Holder, Labels, Members, NamedPolicy, NewGrant, NewGroup, NewKeys, PolicyGrant, RemoveGroup,
    RemoveUser, Terms, UpdateGroup, UpdateServer, UpdateUser, UserState,
};
use bastio_protocol::{AccountSpec, KeyOptions, Status};

use super::*;
use crate::access::Intent;
use crate::testing::{TestBackend, host, key, login, new_user};

/// What of a model does not depend on the order of its grants.
fn sorted(mut model: Policy) -> Policy {
    if let Some(grants) = &mut model.grants {
        grants.sort_by_key(|grant| serde_json::to_string(grant).unwrap());
    }
    model
}

impl TestBackend {
    async fn model(&self) -> Policy {
        sorted(self.fleet.export(&self.admin).await.unwrap())
    }

    async fn model_at(&self, revision: i64) -> Policy {
        sorted(self.fleet.export_at(&self.admin, revision).await.unwrap())
    }

    async fn back_to(&self, to: i64, server: Option<&str>) -> Result<Change, FleetError> {
        let undo = Undo { to, server: server.map(host), reason: "too far".into() };
        self.fleet.undo(&self.admin, &undo).await
    }

    async fn labelled(&self, name: &str, set: &[(&str, &str)], unset: &[&str]) -> i64 {
        let set_labels: Labels = set.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let unset_labels = unset.iter().map(|label| (*label).into()).collect();
        let update = UpdateServer { name: None, set_labels, unset_labels };
        self.fleet.update_server(&self.admin, &host(name), &update).await.unwrap().revision
    }

    async fn granted(&self, holder: Holder, on: &str, sudo: bool) -> i64 {
        let (on, terms, reason) = (on.parse().unwrap(), Terms::default(), "why".to_owned());
        let grant = NewGrant { holder, on, login: None, sudo, terms, reason };
        self.fleet.add_grant(&self.admin, &grant).await.unwrap().revision
    }
}

fn user(name: &str) -> Holder {
    Holder::User(login(name))
}

fn group(name: &str) -> Holder {
    Holder::Group(name.parse().unwrap())
}

fn members(users: &[&str], groups: &[&str]) -> Members {
    Members {
        users: users.iter().map(|name| login(name)).collect(),
        groups: groups.iter().map(|name| name.parse().unwrap()).collect(),
    }
}

/// Edits of every kind; the model behind each of them.
async fn edits_of_every_kind(it: &TestBackend) -> Vec<(i64, Policy)> {
    let mut models = Vec::new();
    macro_rules! after {
        ($edit:expr) => {{
            let revision: i64 = $edit;
            models.push((revision, it.model().await));
        }};
    }
    let admin = &it.admin;
    after!(it.add_user("ann", &[key(10), key(11)], "role=web", true).await.revision);
    after!(it.add_user("bob", &[key(12)], "web-1,db-1", false).await.revision);
    let policy = NamedPolicy {
        name: "restart".parse().unwrap(),
        commands: vec!["/usr/bin/systemctl restart web".parse().unwrap()],
        run_as: Vec::new(),
        password: false,
    };
    it.fleet.add_policy(admin, &policy).await.unwrap();
    let new = NewGroup { name: "dba".parse().unwrap(), members: members(&["bob"], &[]) };
    after!(it.fleet.add_group(admin, &new).await.unwrap().revision);
    let new = NewGroup { name: "ops".parse().unwrap(), members: members(&["ann"], &["dba"]) };
    after!(it.fleet.add_group(admin, &new).await.unwrap().revision);
    let terms = Terms { sudo_policy: Some("restart".parse().unwrap()), ..Terms::default() };
    let (on, reason) = ("env=prod".parse().unwrap(), "on call".to_owned());
    let grant = NewGrant { holder: group("ops"), on, login: None, sudo: false, terms, reason };
    after!(it.fleet.add_grant(admin, &grant).await.unwrap().revision);
    after!(it.labelled("web-1", &[("role", "web"), ("env", "prod")], &[]).await);
    after!(it.labelled("web-1", &[("env", "test")], &["role"]).await);
    let shell = Some("/bin/zsh".to_owned().try_into().unwrap());
    let spec = AccountSpec { shell, ..AccountSpec::default() };
    let (full_name, mail) = (Some("Ann".into()), Some("ann@example.org".into()));
    let update = UpdateUser { full_name, mail, sudo: None, state: None, spec };
    after!(it.fleet.update_user(admin, &login("ann"), &update).await.unwrap().revision);
    let (sudo, state) = (Some(true), Some(UserState::Locked));
    let locked = UpdateUser { sudo, state, ..UpdateUser::default() };
    after!(it.fleet.update_user(admin, &login("bob"), &locked).await.unwrap().revision);
    let options = KeyOptions::parse("restrict").unwrap();
    let keys = NewKeys { keys: vec![key(13).to_string()], options, until: None };
    after!(it.fleet.add_keys(admin, &login("bob"), &keys).await.unwrap().revision);
    let old = key(10).fingerprint();
    after!(it.fleet.remove_key(admin, &login("ann"), &old).await.unwrap().revision);
    let update = UpdateGroup { add: members(&["ann"], &[]), remove: members(&["bob"], &[]) };
    after!(it.fleet.update_group(admin, &"dba".parse().unwrap(), &update).await.unwrap().revision);
    let grants = it.fleet.grants(admin, None).await.unwrap();
    let of_bob = grants.iter().find(|grant| grant.holder == user("bob")).unwrap().id;
    after!(it.fleet.remove_grant(admin, of_bob).await.unwrap().revision);
    let how = RemoveGroup { with_grants: true };
    after!(it.fleet.remove_group(admin, &"ops".parse().unwrap(), how).await.unwrap().revision);
    it.fleet.remove_policy(admin, &policy.name).await.unwrap();
    let gone = it.fleet.remove_user(admin, &login("ann"), RemoveUser::default()).await;
    after!(gone.unwrap().revision);
    after!(it.granted(user("bob"), "*", true).await);
    models
}

#[tokio::test]
async fn the_model_of_every_revision_is_known_and_comes_back() {
    let it = TestBackend::new().await;
    it.enroll("web-1", 1).await;
    it.enroll("db-1", 2).await;
    let empty = it.model().await;
    let begin = it.fleet.status(&it.admin, String::new()).await.unwrap().revision;
    // A policy comes and goes without a revision of its own: that belongs to the next.
    let models = edits_of_every_kind(&it).await;
    for (revision, model) in &models {
        assert_eq!(it.model_at(*revision).await, *model, "{revision}");
    }
    let last = it.model().await;
    let newest = models.last().unwrap().0;
    for (revision, model) in models.iter().rev().step_by(3) {
        let change = it.back_to(*revision, None).await.unwrap();
        assert_eq!(it.model().await, *model, "{revision}");
        assert!(change.revision >= newest);
    }
    it.back_to(begin, None).await.unwrap();
    assert_eq!(it.model().await, empty);
    // Going back can be gone back on.
    it.back_to(newest, None).await.unwrap();
    assert_eq!(it.model().await, last);
    let none = it.back_to(newest, None).await.unwrap();
    assert_eq!(none.summary, "nothing to change");
}

#[tokio::test]
async fn what_servers_were_told_is_taken_back_and_only_tried_when_only_tried() {
    let it = TestBackend::new().await;
    it.enroll("web-1", 1).await;
    let session = it.connect_v2(1).await;
    let before = it.add_user("ann", &[key(10)], "*", true).await.revision;
    it.answer_all(&session, Status::Done).await;
    it.add_user("eve", &[key(11)], "*", true).await;
    it.answer_all(&session, Status::Done).await;
    let timid = it.admin.clone().with_intent(Intent { dry_run: true, ..Intent::default() });
    let undo = Undo { to: before, server: None, reason: String::new() };
    let tried = it.fleet.undo(&timid, &undo).await.unwrap().preview.unwrap();
    assert_eq!(tried.edits, ["user eve on * with sudo: removed", "user eve: removed"]);
    assert_eq!((tried.blast.servers, tried.blast.sudo_lost), (1, 1));
    assert!(session.next(10).await.unwrap().is_empty());
    it.back_to(before, None).await.unwrap();
    assert_eq!(it.answer_all(&session, Status::Done).await, ["remove-user eve"]);
    // The rails are those of any edit.
    let timid = it.admin.clone().with_intent(Intent::default());
    let to_nothing = Undo { to: before - 1, server: None, reason: String::new() };
    let stopped = it.fleet.undo(&timid, &to_nothing).await;
    assert!(matches!(stopped, Err(FleetError::NeedsConfirmation(_))), "{stopped:?}");
    let log = it.log(&bastio_protocol::audit::LogFilter::default()).await;
    let row = log.iter().find(|row| row.row.action == "model.undo").unwrap();
    assert_eq!(row.row.detail, format!("back to revision {before}"));
    assert_eq!(row.row.reason.as_deref(), Some("too far"));
    let revisions = it.fleet.revisions(&it.admin, None, 2).await.unwrap();
    assert_eq!(revisions[0].summary.split(':').next(), Some(row.row.detail.as_str()));
    assert_eq!(revisions[0].by.as_deref(), Some("key:admin"));
    assert!(revisions[1].known && revisions[1].revision == before + 1);
}

#[tokio::test]
async fn names_of_servers_follow_and_a_new_server_of_an_old_name_gets_nothing() {
    let it = TestBackend::new().await;
    it.enroll("web-1", 1).await;
    it.enroll("web-2", 2).await;
    it.add_user("ann", &[key(10)], "web-1,web-2", true).await;
    let before = it.labelled("web-1", &[("role", "web")], &[]).await;
    it.labelled("web-1", &[("role", "db")], &[]).await;
    let rename = UpdateServer { name: Some(host("front-1")), ..UpdateServer::default() };
    it.fleet.update_server(&it.admin, &host("web-1"), &rename).await.unwrap();
    it.fleet.remove_server(&it.admin, &host("web-2")).await.unwrap();
    it.enroll("web-2", 3).await;
    it.fleet.remove_user(&it.admin, &login("ann"), RemoveUser::default()).await.unwrap();
    it.back_to(before, None).await.unwrap();
    let model = it.model().await;
    assert_eq!(model.servers.as_ref().unwrap()[&host("front-1")].labels["role"], "web");
    let [PolicyGrant(grant)] = model.grants.unwrap().try_into().unwrap();
    assert_eq!(grant.on.to_string(), "front-1", "web-2 is another server now");
}

#[tokio::test]
async fn one_server_goes_back_alone() {
    let it = TestBackend::new().await;
    for (number, name) in [(1, "web-1"), (2, "web-2")] {
        it.enroll(name, number).await;
        it.labelled(name, &[("role", "web")], &[]).await;
    }
    it.add_user("ann", &[key(10)], "role=web", false).await;
    let before = it.add_user("bob", &[key(11)], "web-1", true).await.revision;
    // Since then: another label, one grant gone, one for both, a key.
    it.labelled("web-1", &[("role", "db")], &[]).await;
    let grants = it.fleet.grants(&it.admin, None).await.unwrap();
    let of_bob = grants.iter().find(|grant| grant.holder == user("bob")).unwrap().id;
    it.fleet.remove_grant(&it.admin, of_bob).await.unwrap();
    it.add_user("eve", &[key(12)], "web-1,web-2", false).await;
    let keys =
        NewKeys { keys: vec![key(13).to_string()], options: KeyOptions::default(), until: None };
    it.fleet.add_keys(&it.admin, &login("ann"), &keys).await.unwrap();
    let only_tried = it.admin.clone().with_intent(Intent { dry_run: true, ..Intent::default() });
    let undo = Undo { to: before, server: Some(host("web-1")), reason: String::new() };
    let told = it.fleet.undo(&only_tried, &undo).await.unwrap().preview.unwrap().servers;
    assert_eq!(told.iter().map(|it| it.server.as_str()).collect::<Vec<_>>(), ["web-1"]);
    it.back_to(before, Some("web-1")).await.unwrap();
    let model = it.model().await;
    assert_eq!(model.servers.as_ref().unwrap()[&host("web-1")].labels["role"], "web");
    let mut grants: Vec<String> = model
        .grants
        .iter()
        .flatten()
        .map(|PolicyGrant(grant)| {
            format!("{} on {}{}", grant.holder, grant.on, if grant.sudo { " sudo" } else { "" })
        })
        .collect();
    grants.sort();
    assert_eq!(grants, ["user ann on role=web", "user bob on web-1 sudo", "user eve on web-2"]);
    assert_eq!(model.users.unwrap()[&login("ann")].keys.len(), 2, "people are the same everywhere");

    it.granted(user("eve"), "role=web", false).await;
    let stuck = it.back_to(before, Some("web-1")).await.unwrap_err();
    assert!(stuck.to_string().contains("user eve on role=web"), "{stuck}");
}

#[tokio::test]
async fn what_is_too_long_ago_or_never_was_is_refused() {
    let mut it = TestBackend::new().await;
    it.fleet = it.fleet.with_history(3);
    it.enroll("web-1", 1).await;
    let mut last = 0;
    for name in ["a", "b", "c", "d", "e"] {
        last =
            it.fleet.add_user(&it.admin, &new_user(name, &[], "", false)).await.unwrap().revision;
    }
    for unknown in [-1, last + 1, i64::MAX] {
        let error = it.back_to(unknown, None).await.unwrap_err();
        assert!(matches!(error, FleetError::NoSuchRevision(_)), "{error}");
    }
    let error = it.back_to(last - 4, None).await.unwrap_err();
    assert!(matches!(error, FleetError::TooLongAgo { first, .. } if first == last - 3), "{error}");
    let known: Vec<bool> =
        it.fleet.revisions(&it.admin, None, 5).await.unwrap().iter().map(|it| it.known).collect();
    assert_eq!(known, [true, true, true, true, false]);
    it.back_to(last - 3, None).await.unwrap();
    assert_eq!(it.model().await.users.unwrap().len(), 2);
    let elsewhere = it.back_to(last, Some("web-9")).await.unwrap_err();
    assert!(matches!(elsewhere, FleetError::NoSuchServer(_)));
}
