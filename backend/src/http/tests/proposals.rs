//! What makes root waits for a second operator, by whatever way it is asked for.

use std::sync::atomic::{AtomicI64, Ordering};

use bastio_protocol::api::{Approve, Proposal};
use bastio_protocol::{ApprovalStatement, GroupName, SigningKey};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;

use super::*;
use crate::testing::numbered_key;

/// Seconds until a proposal expires.
const WEEK: i64 = 7 * 86_400;
/// How much later it is in tests that let time pass; each test is a process of its own.
static LATER: AtomicI64 = AtomicI64::new(0);

fn clock() -> i64 {
    NOW + LATER.load(Ordering::SeqCst)
}

fn new_key() -> SigningKey {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random");
    SigningKey::from_pkcs8(document.as_ref()).expect("a key")
}

/// Two operators, admin and bob, each with a key of their own; one server, web-1.
struct Two {
    backend: TestBackend,
    router: Router,
    admin: String,
    bob: String,
    keys: [SigningKey; 2],
}

type Asked = (&'static str, &'static str, Value);

impl Two {
    async fn new() -> Self {
        let site = TestSite::before(TestBackend::with_clock(clock).await).await;
        let new = NewApiKey { name: "bob".into(), role: Role::Admin, secret_sha256: None };
        let (_, bob) = site.backend.keys.create(&site.backend.admin, &new).await.expect("made");
        let TestSite { backend, state, router, .. } = site;
        backend.enroll("web-1", 1).await;
        let (admin, bob) = (backend.token.clone(), bob.expose().to_owned());
        let keys = [new_key(), new_key()];
        let mut two = Self { backend, router, admin, bob, keys };
        for (token, key) in [(&two.admin, &two.keys[0]), (&two.bob, &two.keys[1])] {
            let body = json!({ "public_key": key.verifying_key() });
            assert_eq!(two.ask(token, "POST", "/operator-keys", &body).await.0, 200);
        }
        // Until here nothing needs approval.
        two.router = router_of(state);
        two
    }

    async fn ask(&self, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        let request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        let request = request.header(CONTENT_TYPE, "application/json");
        let mut request =
            request.header(CONFIRM_HEADER, "yes-really").body(Body::from(text)).expect("a request");
        request.extensions_mut().insert(Peer(ADDRESS));
        let answer = self.router.clone().oneshot(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.expect("a body");
        (status, serde_json::from_slice(&bytes).expect("JSON"))
    }

    async fn proposes(&self, (method, path, body): &Asked) -> (u16, Value) {
        self.ask(&self.admin, method, path, body).await
    }

    async fn proposal(&self, id: i64) -> Proposal {
        let (_, found) =
            self.ask(&self.bob, "GET", &format!("/proposals/{id}"), &Value::Null).await;
        serde_json::from_value(found).expect("a proposal")
    }

    /// What bob would sign for it.
    async fn statement(&self, id: i64) -> ApprovalStatement {
        let statement = self.proposal(id).await.statement;
        ApprovalStatement { approver: "bob".into(), at: clock(), ..statement }
    }

    async fn approve_as(
        &self,
        (token, key): (&str, &SigningKey),
        id: i64,
        statement: ApprovalStatement,
    ) -> (u16, Value) {
        let signed = statement.sign(key);
        let word = Approve { statement: signed.statement, signature: signed.signature };
        let word = serde_json::to_value(&word).expect("JSON");
        self.ask(token, "POST", &format!("/proposals/{id}/approve"), &word).await
    }

    async fn bob_approves(&self, id: i64) -> (u16, Value) {
        let statement = self.statement(id).await;
        self.approve_as((&self.bob, &self.keys[1]), id, statement).await
    }

    async fn revision(&self) -> i64 {
        let (_, status) = self.ask(&self.admin, "GET", "/status", &Value::Null).await;
        status["revision"].as_i64().expect("a number")
    }

    async fn told(&self, action: &str) -> Vec<String> {
        let (_, rows) =
            self.ask(&self.admin, "GET", &format!("/log?action={action}"), &Value::Null).await;
        let rows = rows.as_array().expect("rows").iter();
        rows.map(|row| row["detail"].as_str().expect("a text").to_owned()).collect()
    }
}

/// With approvals for what makes root.
fn router_of(state: HttpState) -> Router {
    let own = GroupName::parse("sysops").expect("a group");
    router(state.with_approvals(Some(WEEK)).with_root_groups([own].into()))
}

fn user(name: &str, number: usize) -> Asked {
    ("POST", "/users", json!({ "name": name, "keys": [numbered_key(number).to_string()] }))
}

fn grant(body: Value) -> Asked {
    ("POST", "/grants", body)
}

fn alice_with_sudo() -> Vec<Asked> {
    vec![user("alice", 1), grant(json!({ "user": "alice", "on": "web-1", "sudo": true }))]
}

/// What it is, what was there before (made by both operators), and the request.
type Way = (&'static str, Vec<Asked>, Asked);

/// Alice on web-1 with sudo.
fn sudo() -> Value {
    json!({ "user": "alice", "on": "web-1", "sudo": true })
}

fn until(until: i64) -> Asked {
    let terms = json!({ "until": until });
    grant(json!({ "user": "alice", "on": "web-1", "sudo": true, "terms": terms }))
}

fn plainly() -> Asked {
    grant(json!({ "user": "alice", "on": "web-1" }))
}

/// A policy and a grant of it.
fn by_policy() -> [Asked; 2] {
    let terms = json!({ "sudo_policy": "p" });
    [
        ("POST", "/sudo-policies", json!({ "name": "p", "commands": ["/bin/true"] })),
        grant(json!({ "user": "alice", "on": "web-1", "terms": terms })),
    ]
}

fn by_grants() -> Vec<Way> {
    let alice = || user("alice", 1);
    let [policy, of_policy] = by_policy();
    let later = json!({
        "user": "alice", "on": "web-1", "sudo": true, "terms": { "from": NOW + 1000 }
    });
    let taken = json!({ "user": "alice", "on": "web-1", "terms": { "take_over": true } });
    let mut bobs = alice_with_sudo();
    bobs.push(user("bob", 2));
    let into = grant(json!({ "user": "bob", "on": "web-1", "login": "alice" }));
    vec![
        ("a grant", vec![alice()], grant(sudo())),
        ("a sudo policy", vec![alice(), policy], of_policy),
        ("somebody else's way into the account", bobs, into),
        ("a begin to come", vec![alice()], grant(later)),
        ("a later end", vec![alice(), until(NOW + 1000)], until(NOW + 2000)),
        ("an account that is there already", vec![alice()], grant(taken)),
    ]
}

fn by_people() -> Vec<Way> {
    let alice = || user("alice", 1);
    let whole = json!({ "name": "alice", "on": "web-1", "sudo": true });
    let docker = json!({ "spec": { "groups": ["docker"] } });
    let sysops = json!({ "spec": { "groups": ["sysops"] } });
    let shell = |shell: &str| json!({ "spec": { "shell": shell } });
    let mut without_shell = alice_with_sudo();
    without_shell.push(("PATCH", "/users/alice", shell("/usr/sbin/nologin")));
    let new_key = json!({ "keys": [numbered_key(9).to_string()] });
    let ops = vec![
        alice(),
        ("POST", "/groups", json!({ "name": "ops" })),
        grant(json!({ "group": "ops", "on": "web-1", "sudo": true })),
    ];
    let member = json!({ "add": { "users": ["alice"] } });
    let mut disabled = alice_with_sudo();
    disabled.push(("POST", "/users/alice/disable", json!({})));
    let mut locked = alice_with_sudo();
    locked.push(("PATCH", "/users/alice", json!({ "state": "locked" })));
    let active = json!({ "state": "active" });
    let patch = |body: Value| ("PATCH", "/users/alice", body);
    vec![
        ("a user with a grant", vec![], ("POST", "/users", whole)),
        ("sudo for grants", vec![alice(), plainly()], patch(json!({ "sudo": true }))),
        ("a group like docker", vec![alice(), plainly()], patch(docker)),
        ("a group of the site's own", vec![alice(), plainly()], patch(sysops)),
        ("a shell", without_shell, patch(shell("/bin/bash"))),
        ("a member of a group", ops, ("PATCH", "/groups/ops", member)),
        ("a key", alice_with_sudo(), ("POST", "/users/alice/keys", new_key)),
        ("enabling", disabled, ("POST", "/users/alice/enable", json!({}))),
        ("unlocking", locked, patch(active)),
    ]
}

fn by_others() -> Vec<Way> {
    let alice = || user("alice", 1);
    let [policy, of_policy] = by_policy();
    let file = json!({ "version": 1, "grants": [sudo()] });
    let rule = json!({ "version": 1, "sudo-policies": { "p": { "commands": ["/bin/sh"] } } });
    let by_label = grant(json!({ "user": "alice", "on": "role=db", "sudo": true }));
    let label = json!({ "set_labels": { "role": "db" } });
    let mut undone = alice_with_sudo();
    undone.push(("PATCH", "/users/alice", json!({ "sudo": false })));
    let hash = "0".repeat(64);
    let api_key = json!({ "name": "eve", "role": "admin", "secret_sha256": hash });
    let key = json!({ "public_key": SIGNING_KEY });
    vec![
        ("a label", vec![alice(), by_label], ("PATCH", "/servers/web-1", label)),
        ("a file", vec![alice()], ("POST", "/policy", file)),
        ("another content", vec![alice(), policy, of_policy], ("POST", "/policy", rule)),
        ("going back", undone, ("POST", "/undo", json!({ "to": 3 }))),
        ("an API key of role admin", vec![], ("POST", "/api-keys", api_key)),
        ("another operator key", vec![], ("POST", "/operator-keys", key)),
    ]
}

/// What begins later begins by itself, and nobody is asked then.
fn by_what_begins_later() -> Vec<Way> {
    let alice = || user("alice", 1);
    let later = |on: &str, mut terms: Value| {
        terms["from"] = json!(NOW + 60);
        let sudo = terms.get("sudo_policy").is_none();
        grant(json!({ "user": "alice", "on": on, "sudo": sudo, "terms": terms }))
    };
    let of_file = json!({ "user": "alice", "on": "web-1", "sudo": true, "from": NOW + 60 });
    let file = json!({ "version": 1, "grants": [of_file] });
    let keys = [1, 9].map(|number| numbered_key(number).to_string());
    let key = json!({ "version": 1, "users": { "alice": { "keys": keys } } });
    let rule = json!({ "version": 1, "sudo-policies": { "p": { "commands": ["/bin/sh"] } } });
    let label = json!({ "set_labels": { "role": "db" } });
    let by_label = later("role=db", json!({}));
    let [policy, _] = by_policy();
    let of_policy = later("web-1", json!({ "sudo_policy": "p" }));
    let known = vec![alice(), later("web-1", json!({}))];
    vec![
        ("a file, to come", vec![alice()], ("POST", "/policy", file)),
        ("a key in a file, to come", known, ("POST", "/policy", key)),
        ("another content, to come", vec![alice(), policy, of_policy], ("POST", "/policy", rule)),
        ("a label, to come", vec![alice(), by_label], ("PATCH", "/servers/web-1", label)),
    ]
}

/// Carries out what is there before, with both operators where it needs them.
async fn prepare(two: &Two, before: &[Asked]) {
    for asked in before {
        let (status, answer) = two.proposes(asked).await;
        if let Some(id) = answer["proposal"].as_i64() {
            let (status, answer) = two.bob_approves(id).await;
            assert_eq!(status, 200, "{asked:?}: {answer}");
        } else {
            assert_eq!(status, 200, "{asked:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn every_way_to_root_waits_for_a_second_operator() {
    for (what, before, asked) in
        [by_grants(), by_people(), by_others(), by_what_begins_later()].concat()
    {
        let two = Two::new().await;
        prepare(&two, &before).await;
        let revision = two.revision().await;
        let (status, answer) = two.proposes(&asked).await;
        let id = answer["proposal"].as_i64();
        assert_eq!((status, id.is_some()), (409, true), "{what}: {answer}");
        assert_eq!(two.revision().await, revision, "{what}: nothing is done");
        let id = id.expect("a proposal");
        let proposal = two.proposal(id).await;
        assert!(!proposal.gains.is_empty() && proposal.proposer == "admin", "{what}: {proposal:?}");
        let (status, answer) = two.bob_approves(id).await;
        assert_eq!(status, 200, "{what}: {answer}");
        assert_eq!(two.proposal(id).await.state.name(), "approved", "{what}");
        // What is there by now needs nobody any more, and nothing is approved twice.
        let (status, answer) = two.bob_approves(id).await;
        assert!(status == 409 && answer.to_string().contains("does not wait"), "{what}: {answer}");
        if asked.1 == "/grants" || asked.1 == "/policy" {
            let (status, answer) = two.proposes(&asked).await;
            assert_eq!(status, 200, "{what}, once more: {answer}");
        }
    }
}

#[tokio::test]
async fn what_does_not_make_root_and_what_takes_waits_for_nobody() {
    let two = Two::new().await;
    prepare(&two, &alice_with_sudo()).await;
    for asked in [
        user("carol", 3),
        grant(json!({ "user": "carol", "on": "web-1" })),
        ("POST", "/users/carol/keys", json!({ "keys": [numbered_key(8).to_string()] })),
        ("PATCH", "/users/carol", json!({ "spec": { "groups": ["audio"] } })),
        ("PATCH", "/servers/web-1", json!({ "set_labels": { "role": "db" } })),
        ("PATCH", "/servers/web-1", json!({ "name": "web-9" })),
        ("POST", "/servers/web-9/sync", json!({})),
        ("PATCH", "/users/alice", json!({ "state": "locked" })),
        ("POST", "/users/alice/disable", json!({})),
        ("PATCH", "/users/alice", json!({ "sudo": false })),
        ("DELETE", "/users/alice", Value::Null),
        ("POST", "/api-keys", json!({ "name": "rack", "role": "enroll" })),
        ("POST", "/sudo-policies", json!({ "name": "p", "commands": ["/bin/true"] })),
        ("DELETE", "/api-keys/rack", Value::Null),
    ] {
        let (status, answer) = two.proposes(&asked).await;
        assert_eq!(status, 200, "{asked:?}: {answer}");
    }
}

#[tokio::test]
async fn an_edit_that_is_tried_says_what_it_would_need() {
    let two = Two::new().await;
    prepare(&two, &[user("alice", 1)]).await;
    let body = json!({ "user": "alice", "on": "web-1", "sudo": true }).to_string();
    let request = Request::builder().method("POST").uri("/api/v1/grants");
    let request = request.header(AUTHORIZATION, format!("Bearer {}", two.admin));
    let request = request.header(CONTENT_TYPE, "application/json");
    let request =
        request.header(bastio_protocol::api::DRY_RUN_HEADER, "yes").body(Body::from(body));
    let answer = two.router.clone().oneshot(request.expect("a request")).await.expect("answered");
    assert_eq!(answer.status(), 200);
    let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.expect("a body");
    let change: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(change["preview"]["approval"][0], "alice on web-1 (#1): sudo");
    let (_, all) = two.ask(&two.admin, "GET", "/proposals", &Value::Null).await;
    assert_eq!(all, json!([]));
}

/// A request that is proposed as number 1.
async fn proposed() -> Two {
    let two = Two::new().await;
    prepare(&two, &[user("alice", 1)]).await;
    let body = json!({ "user": "alice", "on": "web-1", "sudo": true, "reason": "ticket 7" });
    let (_, answer) = two.proposes(&grant(body)).await;
    assert_eq!(answer["proposal"], 1, "{answer}");
    two
}

#[tokio::test]
async fn only_another_admins_own_signature_of_exactly_this_counts() {
    let two = proposed().await;
    let good = two.statement(1).await;
    let proposal = two.proposal(1).await;
    assert_eq!((proposal.reason.as_str(), proposal.request.as_str()), ("ticket 7", "POST /grants"));
    let (admin, bob) = ((two.admin.as_str(), &two.keys[0]), (two.bob.as_str(), &two.keys[1]));
    let own = ApprovalStatement { approver: "admin".into(), ..good.clone() };
    let altered: [(&str, (&str, &SigningKey), ApprovalStatement, u16); 9] = [
        ("one's own", admin, own.clone(), 403),
        ("one's own, in another's name", admin, good.clone(), 403),
        ("another's key", (bob.0, &two.keys[0]), good.clone(), 403),
        ("of another request", bob, ApprovalStatement { request: "0".into(), ..good.clone() }, 409),
        ("of other gains", bob, ApprovalStatement { gains: "0".into(), ..good.clone() }, 409),
        ("of another backend", bob, ApprovalStatement { backend: "x".into(), ..good.clone() }, 409),
        ("of another number", bob, ApprovalStatement { proposal: 2, ..good.clone() }, 409),
        ("in another's name", bob, own, 409),
        ("of long ago", bob, ApprovalStatement { at: NOW - 601, ..good.clone() }, 409),
    ];
    let count = altered.len();
    for (what, who, statement, expected) in altered {
        let (status, answer) = two.approve_as(who, 1, statement).await;
        assert_eq!(status, expected, "{what}: {answer}");
    }
    // A signature of something else beside the right statement.
    let other = ApprovalStatement { at: NOW + 1, ..good.clone() }.sign(&two.keys[1]);
    let word = Approve { statement: good.clone(), signature: other.signature };
    let word = serde_json::to_value(&word).expect("JSON");
    assert_eq!(two.ask(&two.bob, "POST", "/proposals/1/approve", &word).await.0, 403);
    assert_eq!(two.told("proposal.refuse").await.len(), count + 1, "each is told");
    assert_eq!(two.proposal(1).await.state.name(), "open");
    // The right one; what it says can be verified from the log alone.
    assert_eq!(two.approve_as(bob, 1, good).await.0, 200);
    let told = two.told("proposal.approve").await.concat();
    let signed: bastio_protocol::SignedApproval = serde_json::from_str(&told).expect("JSON");
    assert!(signed.is_genuine() && signed.key == two.keys[1].verifying_key());
    let (_, log) = two.ask(&two.admin, "GET", "/log?action=grant.add", &Value::Null).await;
    assert_eq!(log[0]["actor"], "key:admin", "{log}");
    let keys = two.told("operator-key.add").await;
    assert!(keys.iter().any(|text| *text == format!("bob {}", signed.key)), "{keys:?}");
}

#[tokio::test]
async fn who_has_no_operator_key_and_who_may_not_edit_approves_nothing() {
    let two = proposed().await;
    let hash = ring::digest::digest(&ring::digest::SHA256, b"bst_carol");
    let hash = bastio_protocol::audit::hex(hash.as_ref());
    let new = json!({ "name": "carol", "role": "admin", "secret_sha256": hash });
    prepare(&two, &[("POST", "/api-keys", new)]).await;
    let statement = two.statement(1).await;
    let (status, answer) = two.approve_as(("bst_carol", &new_key()), 1, statement.clone()).await;
    assert!(status == 403 && answer.to_string().contains("bastio operator key"), "{answer}");
    // Nobody registers what is another's.
    let body = json!({ "public_key": two.keys[1].verifying_key() });
    assert_eq!(two.ask("bst_carol", "POST", "/operator-keys", &body).await.0, 409);
    let none = two.approve_as(("bst_made-up", &two.keys[1]), 1, statement).await;
    assert_eq!(none.0, 401);
    // An API key of role admin has no secret that its approver would see.
    let asked = ("POST", "/api-keys", json!({ "name": "dora", "role": "admin" }));
    let (status, answer) = two.proposes(&asked).await;
    assert!(status == 400 && answer.to_string().contains("made by whoever"), "{answer}");
}

#[tokio::test]
async fn what_has_grown_since_is_looked_at_again() {
    let two = Two::new().await;
    let ops = json!({ "name": "ops", "members": { "users": ["alice"] } });
    prepare(&two, &[user("alice", 1), user("mallory", 2), ("POST", "/groups", ops)]).await;
    let asked = grant(json!({ "group": "ops", "on": "web-1", "sudo": true }));
    let id = two.proposes(&asked).await.1["proposal"].as_i64().expect("a proposal");
    let seen = two.statement(id).await;
    // No root yet: this waits for nobody.
    let more = ("PATCH", "/groups/ops", json!({ "add": { "users": ["mallory"] } }));
    prepare(&two, &[more]).await;
    let revision = two.revision().await;
    let bob = (two.bob.as_str(), &two.keys[1]);
    let (status, answer) = two.approve_as(bob, id, seen.clone()).await;
    assert_eq!(status, 409, "{answer}");
    let text = answer.to_string();
    assert!(text.contains("look again") && text.contains("mallory"), "{text}");
    assert_eq!(two.revision().await, revision);
    let (status, answer) = two.approve_as(bob, id, seen).await;
    assert!(status == 409 && answer.to_string().contains("look at the proposal again"), "{answer}");
    assert!(two.proposal(id).await.gains.concat().contains("mallory"));
    assert_eq!(two.bob_approves(id).await.0, 200, "seen, and meant");
}

/// A name leads to another server by now; renaming needs nobody.
#[tokio::test]
async fn what_was_approved_for_one_server_is_not_done_on_another() {
    let two = Two::new().await;
    two.backend.enroll("db-prod", 2).await;
    prepare(&two, &[user("alice", 1)]).await;
    let id = two.proposes(&grant(sudo())).await.1["proposal"].as_i64().expect("a proposal");
    let rename = |path, name: &str| ("PATCH", path, json!({ "name": name }));
    let swap = [rename("/servers/web-1", "web-0"), rename("/servers/db-prod", "web-1")];
    prepare(&two, &swap).await;
    let (status, answer) = two.bob_approves(id).await;
    assert!(status == 409 && answer.to_string().contains("look again"), "{answer}");
    assert!(two.proposal(id).await.gains.concat().contains("(#2)"));
}

/// All that is signed is shown, however much it is.
#[tokio::test]
async fn who_looks_at_a_proposal_sees_all_of_it() {
    let two = Two::new().await;
    let keys: Vec<String> = (1..=250).map(|number| numbered_key(number).to_string()).collect();
    let alice = json!({ "name": "alice", "on": "web-1", "sudo": true, "keys": keys });
    let (_, answer) = two.proposes(&("POST", "/users", alice)).await;
    assert_eq!(answer["proposal"], 1, "{answer}");
    let proposal = two.proposal(1).await;
    assert_eq!((proposal.gains.len(), proposal.gained, proposal.confirmed), (251, 251, true));
    let (_, all) = two.ask(&two.bob, "GET", "/proposals", &Value::Null).await;
    assert_eq!(all[0]["gains"].as_array().expect("a list").len(), 200);
}

/// Agents leave what is not named: then the account would be root, and the model would not know.
#[tokio::test]
async fn what_makes_root_is_taken_away_and_not_left_to_the_host() {
    let two = Two::new().await;
    let patch = |spec: Value| ("PATCH", "/users/alice", json!({ "spec": spec }));
    let is = |group: &str| patch(json!({ "group": group }));
    prepare(&two, &[user("alice", 1), plainly(), is("disk")]).await;
    let key = numbered_key(1).to_string();
    let unnamed =
        ("POST", "/policy", json!({ "version": 1, "users": { "alice": { "keys": [key] } } }));
    let (status, answer) = two.proposes(&unnamed).await;
    assert!(status == 409 && answer.to_string().contains("the group disk"), "{answer}");
    assert!(answer["hint"].to_string().contains("in its place"), "{answer}");
    for asked in [is("users"), unnamed.clone()] {
        let (status, answer) = two.proposes(&asked).await;
        assert_eq!(status, 200, "{answer}");
    }
    // Supplementary groups are taken by not being named.
    prepare(&two, &[patch(json!({ "groups": ["docker"] }))]).await;
    for asked in [unnamed.clone(), unnamed] {
        let (status, answer) = two.proposes(&asked).await;
        assert_eq!(status, 200, "{answer}");
    }
}

#[tokio::test]
async fn what_is_rejected_or_too_old_is_over() {
    let two = proposed().await;
    let body = json!({ "reason": "not on production" });
    let (status, answer) = two.ask(&two.bob, "POST", "/proposals/1/reject", &body).await;
    assert_eq!((status, &answer["state"]), (200, &json!("rejected")), "{answer}");
    assert_eq!(two.bob_approves(1).await.0, 409);
    assert_eq!(two.ask(&two.bob, "POST", "/proposals/1/reject", &body).await.0, 409);
    assert_eq!(two.ask(&two.bob, "POST", "/proposals/9/reject", &body).await.0, 404);

    let body = json!({ "user": "alice", "on": "web-1", "sudo": true });
    assert_eq!(two.proposes(&grant(body)).await.1["proposal"], 2);
    let old = two.statement(2).await;
    LATER.store(WEEK, Ordering::SeqCst);
    let late = ApprovalStatement { at: clock(), ..old };
    let (status, answer) = two.approve_as((&two.bob, &two.keys[1]), 2, late).await;
    assert!(status == 409 && answer.to_string().contains("expired"), "{answer}");
    assert_eq!(two.told("proposal.expire").await, ["2"]);
    let (_, all) = two.ask(&two.admin, "GET", "/proposals", &Value::Null).await;
    let states: Vec<&str> =
        all.as_array().expect("a list").iter().filter_map(|one| one["state"].as_str()).collect();
    assert_eq!(states, ["expired", "rejected"]);
}

/// The proposer's API key is gone: what it asked for is not done in its name.
#[tokio::test]
async fn what_a_removed_api_key_proposed_is_not_carried_out() {
    let two = proposed().await;
    let (status, _) = two.ask(&two.bob, "DELETE", "/api-keys/admin", &Value::Null).await;
    assert_eq!(status, 200);
    let (status, answer) = two.bob_approves(1).await;
    assert!(status == 404 && answer.to_string().contains("admin"), "{answer}");
    assert_eq!(two.proposal(1).await.state.name(), "open");
}
