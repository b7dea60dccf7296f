//! Requests through the real router with a fresh database; status and body are compared whole.

mod exposition;
mod faults;
mod on_postgres;
mod proposals;
mod unseal;
mod watch;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{Method, Request};
use bastio_protocol::Status;
use bastio_protocol::api::{CONFIRM_HEADER, NewApiKey, Role};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::*;
use crate::testing::{ADDRESS, NOW, TestBackend, key, rsa_key, token_key};

/// Who asks.
enum Actor {
    Nobody,
    Stranger,
    Admin,
    Enroller,
}

const SIGNING_KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

pub(super) struct TestSite {
    pub(super) backend: TestBackend,
    state: HttpState,
    router: Router,
    enroll_secret: String,
}

impl TestSite {
    pub(super) async fn new() -> Self {
        Self::before(TestBackend::new().await).await
    }

    /// On SQLite, for what only a file can have.
    pub(super) async fn on_file() -> Self {
        Self::before(TestBackend::on_file().await).await
    }

    async fn before(backend: TestBackend) -> Self {
        let new = NewApiKey { name: "site".into(), role: Role::Enroll, secret_sha256: None };
        let (_, secret) = backend.keys.create(&backend.admin, &new).await.expect("made");
        let site = Site {
            public_url: "http://backend.test:2358".into(),
            rsa_host_key: Some(rsa_key(9, 384)),
            ed25519_host_key: key(99),
            signing_key: SIGNING_KEY.parse().expect("a key"),
            ssh_port: 2357,
        };
        let ports = vec![("main", Arc::new(Tally::default()))];
        let state =
            HttpState::new(backend.store.clone(), backend.dispatch.clone(), site).with_ports(ports);
        let router = router(state.clone());
        Self { backend, state, router, enroll_secret: secret.expose().to_owned() }
    }

    async fn call(&self, actor: Actor, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send(actor, method, path, "application/json", body).await
    }

    async fn send(
        &self,
        actor: Actor,
        method: &str,
        path: &str,
        content: &str,
        body: Body,
    ) -> (u16, Value) {
        let token = match actor {
            Actor::Nobody => None,
            Actor::Stranger => Some("bst_made-up"),
            Actor::Admin => Some(self.backend.token.as_str()),
            Actor::Enroller => Some(self.enroll_secret.as_str()),
        };
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, content);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        // What stops an edit has tests of its own.
        request = request.header(CONFIRM_HEADER, "yes-really");
        let mut request = request.body(body).expect("a request");
        request.extensions_mut().insert(Peer(ADDRESS));
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (status, serde_json::from_slice(&bytes).expect("every answer is JSON"))
    }

    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Actor::Admin, "GET", path, Value::Null).await
    }

    async fn upload(&self, body: Value) -> (u16, Value) {
        self.call(Actor::Nobody, "POST", "/api/external/server/upload_key", body).await
    }
}

fn upload(api_key: &str, public: &PublicKey, old: &str) -> Value {
    json!({ "api_key": api_key, "public_key": public.without_comment(), "old_public_key": old })
}

/// Every route of `/api/v1` with its method.
const V1: [(&str, &str); 23] = [
    ("GET", "/api/v1/status"),
    ("GET", "/api/v1/log"),
    ("GET", "/api/v1/plan"),
    ("GET", "/api/v1/changes/1"),
    ("GET", "/api/v1/servers"),
    ("GET", "/api/v1/servers/web-1"),
    ("PATCH", "/api/v1/servers/web-1"),
    ("DELETE", "/api/v1/servers/web-1"),
    ("POST", "/api/v1/servers/web-1/sync"),
    ("GET", "/api/v1/users"),
    ("POST", "/api/v1/users"),
    ("GET", "/api/v1/users/alice"),
    ("PATCH", "/api/v1/users/alice"),
    ("DELETE", "/api/v1/users/alice"),
    ("POST", "/api/v1/users/alice/keys"),
    ("DELETE", "/api/v1/users/alice/keys/x"),
    ("GET", "/api/v1/groups"),
    ("GET", "/api/v1/groups/ops"),
    ("PATCH", "/api/v1/groups/ops"),
    ("DELETE", "/api/v1/groups/ops"),
    ("GET", "/api/v1/grants"),
    ("DELETE", "/api/v1/grants/1"),
    ("DELETE", "/api/v1/api-keys/admin"),
];

#[tokio::test]
async fn nothing_of_v1_is_open_to_anybody_else() {
    let site = TestSite::new().await;
    for (method, path) in V1 {
        let (status, body) = site.call(Actor::Nobody, method, path, json!({})).await;
        assert_eq!(
            (status, &body["error"]),
            (401, &json!("no API key was sent")),
            "{method} {path}"
        );
        assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("Bearer")), "{path}");
        let (status, body) = site.call(Actor::Stranger, method, path, json!({})).await;
        assert_eq!((status, &body["error"]), (401, &json!("unknown API key")), "{method} {path}");
        let answer = site.call(Actor::Enroller, method, path, json!({})).await;
        let expected = json!({
            "error": "this API key may only enrol servers",
            "hint": "use an API key of role admin",
        });
        assert_eq!(answer, (403, expected), "{method} {path}");
    }
}

#[tokio::test]
async fn other_schemes_and_broken_headers_are_no_token() {
    let site = TestSite::new().await;
    let token = &site.backend.token;
    for (header, expected) in [
        (format!("Basic {token}"), 401),
        (token.clone(), 401),
        ("Bearer".to_owned(), 401),
        (format!("Bearer {token}x"), 401),
        (format!("bearer {token}"), 200),
    ] {
        let request = Request::get("/api/v1/status").header(AUTHORIZATION, &header);
        let request = request.body(Body::empty()).expect("a request");
        let response = site.router.clone().oneshot(request).await.expect("an answer");
        assert_eq!(response.status(), expected);
        assert_eq!(response.headers().contains_key("www-authenticate"), expected == 401);
    }
}

#[tokio::test]
async fn the_original_endpoints_keep_their_status_codes() {
    let site = TestSite::new().await;
    let secret = site.enroll_secret.clone();
    let old = key(1).without_comment();
    let server = json!({ "server": { "id": 1, "name": "web-1", "signing_key": SIGNING_KEY } });
    let mut named = upload(&secret, &key(1), "");
    named["name"] = json!("web-1");
    assert_eq!(site.upload(named.clone()).await, (200, server.clone()), "a new server");
    assert_eq!(site.upload(named).await, (200, server.clone()), "the same again");
    assert_eq!(site.upload(upload(&secret, &key(1), &old)).await, (200, server.clone()));
    let (status, answer) = site.upload(upload(&secret, &key(2), &old)).await;
    assert_eq!(status, 403, "nothing says that the old key's holder wants this");
    let (error, hint) = (answer["error"].as_str(), answer["hint"].as_str());
    assert!(error.is_some_and(|error| error.contains("has not signed")), "{answer}");
    assert!(hint.is_some_and(|hint| hint.contains("upload-key --new-agent-key")), "{answer}");
    site.backend.connect_as(1, true).await.close().await.expect("closed");
    let replaced = site.upload(upload(&secret, &key(2), &old)).await;
    assert_eq!(replaced, (200, server.clone()), "an original agent's");
    assert_eq!(site.upload(upload(&secret, &key(2), &old)).await, (200, server), "asked again");
    let slash = "/api/external/server/upload_key/";
    let body = upload(&secret, &rsa_key(3, 256), "");
    let (status, answer) = site.call(Actor::Nobody, "POST", slash, body).await;
    assert_eq!((status, &answer["server"]["id"]), (200, &json!(2)));
    let mut other_secret = upload("bst_made-up", &key(4), "");
    let unknown = json!({
        "error": "unknown API key",
        "hint": "`bastio api-key add NAME --role enroll` makes an API key for agents",
    });
    assert_eq!(site.upload(other_secret.clone()).await, (403, unknown));
    other_secret["api_key"] = Value::Null;
    assert_eq!(site.upload(other_secret).await.0, 400, "no API key: null, as the original sends");
}

#[tokio::test]
async fn uploads_with_a_fault_say_which() {
    let site = TestSite::new().await;
    let secret = site.enroll_secret.clone();
    let with = |field: &str, value: Value| {
        let mut body = upload(&secret, &key(1), "");
        body[field] = value;
        body
    };
    let small = rsa_key(1, 128).to_string();
    for (body, part) in [
        (json!({}), "api_key, public_key and old_public_key"),
        (json!([]), "api_key, public_key and old_public_key"),
        (with("public_key", json!(7)), "api_key, public_key and old_public_key"),
        (with("public_key", json!("")), "public_key: not a public key line"),
        (with("public_key", json!("ssh-rsa AAAA\nssh-rsa AAAA")), "control character"),
        (with("public_key", json!(small)), "1024 bits; at least 2048"),
        (with("public_key", json!(token_key().to_string())), "no key type for an agent"),
        (with("old_public_key", json!("x")), "old_public_key: not a public key line"),
        (with("old_public_key", json!(key(8).to_string())), "the old key belongs to no server"),
        (with("name", json!("a b")), "no server name"),
        (with("proof", json!(7)), "api_key, public_key and old_public_key"),
    ] {
        let (status, answer) = site.upload(body.clone()).await;
        let error = answer["error"].as_str().expect("an error");
        assert!(status == 400 && error.contains(part), "{body}: {status} {error}");
    }
    let path = "/api/external/server/upload_key";
    let text = Body::from("{not json");
    assert_eq!(site.send(Actor::Nobody, "POST", path, "application/json", text).await.0, 400);
    let (_, servers) = site.get("/api/v1/servers").await;
    assert_eq!(servers, json!([]), "nothing was enrolled");
}

#[tokio::test]
async fn host_keys_are_told_to_anybody() {
    let site = TestSite::new().await;
    let rsa = json!({ "payload": rsa_key(9, 384).without_comment() });
    let ed25519 = json!({ "payload": key(99).without_comment(), "port": 2357 });
    for (path, expected) in [
        ("/api/external/backend/host_key", &rsa),
        ("/api/external/backend/host_key/", &rsa),
        ("/api/external/backend/host_key?type=rsa", &rsa),
        ("/api/external/backend/host_key?type=ed25519", &ed25519),
    ] {
        let answer = site.call(Actor::Nobody, "GET", path, Value::Null).await;
        assert_eq!(answer, (200, expected.clone()), "{path}");
    }
    let path = "/api/external/backend/host_key?type=dsa";
    assert_eq!(site.call(Actor::Nobody, "GET", path, Value::Null).await.0, 400);
}

fn queued(action: &str, mid: &Value) -> Value {
    json!({
        "action": action, "username": "alice", "state": "queued", "tries": 0,
        "status": null, "feedback": null, "mid": mid,
    })
}

fn done(action: &str, mid: &Value) -> Value {
    json!({
        "action": action, "username": "alice", "state": "done", "tries": 1,
        "status": 200, "feedback": "as told", "mid": mid,
    })
}

#[tokio::test]
async fn a_person_from_request_to_server_and_back() {
    let site = TestSite::new().await;
    site.backend.enroll("web-1", 1).await;
    let new = json!({
        "name": "alice", "full_name": "Alice A.", "mail": "a@example.org",
        "keys": [key(10).to_string()], "on": "web-1", "sudo": true, "reason": "on call",
    });
    let (status, change) = site.call(Actor::Admin, "POST", "/api/v1/users", new).await;
    let actions = &change["servers"][0]["actions"];
    let expected = json!({
        "revision": 2,
        "summary": "user alice: 1 key added, granted web-1 as alice with sudo",
        "progress": 2,
        "complete": false,
        "servers": [{
            "server": "web-1", "presence": "never-seen",
            "actions": [queued("add-user", &actions[0]["mid"]), queued("add-key", &actions[1]["mid"])],
        }],
    });
    assert_eq!((status, &change), (200, &expected));
    let session = site.backend.connect(1).await;
    site.backend.answer_all(&session, Status::Done).await;
    let (_, change) = site.get("/api/v1/changes/2?after=2&wait=30").await;
    let expected = json!({
        "revision": 2,
        "summary": "user alice: 1 key added, granted web-1 as alice with sudo",
        "progress": 6,
        "complete": true,
        "servers": [{
            "server": "web-1", "presence": "connected",
            "actions": [done("add-user", &actions[0]["mid"]), done("add-key", &actions[1]["mid"])],
        }],
    });
    assert_eq!(change, expected);
    let grant = json!({
        "id": 1, "user": "alice", "on": "web-1", "login": "alice", "sudo": true,
        "reason": "on call", "created": NOW,
    });
    let user = json!({
        "name": "alice", "full_name": "Alice A.", "mail": "a@example.org", "state": "active",
        "created": NOW,
        "keys": [{
            "fingerprint": key(10).fingerprint(), "public_key": key(10).to_string(), "created": NOW,
            "origin": "key:admin",
        }],
        "grants": [grant],
    });
    assert_eq!(site.get("/api/v1/users/alice").await, (200, user.clone()));
    assert_eq!(site.get("/api/v1/users").await, (200, json!([user])));
    assert_eq!(site.get("/api/v1/users/alice/keys").await, (200, user["keys"].clone()));
    assert_eq!(site.get("/api/v1/grants?user=alice").await, (200, user["grants"].clone()));
    let fingerprint = key(10).fingerprint().replace('/', "%2F").replace('+', "%2B");
    let path = format!("/api/v1/users/alice/keys/{fingerprint}");
    let (status, change) = site.call(Actor::Admin, "DELETE", &path, Value::Null).await;
    assert_eq!(
        (status, &change["servers"][0]["actions"][0]["action"]),
        (200, &json!("remove-key"))
    );
    let (status, change) =
        site.call(Actor::Admin, "DELETE", "/api/v1/users/alice", Value::Null).await;
    assert_eq!((status, &change["summary"]), (200, &json!("user alice: removed")));
    assert_eq!(site.get("/api/v1/users/alice").await.0, 404);
}

#[tokio::test]
async fn a_server_with_what_is_on_it() {
    let site = TestSite::new().await;
    site.backend.enroll("web-1", 1).await;
    let patch = json!({ "name": "front", "set_labels": { "role": "web" } });
    let (status, change) = site.call(Actor::Admin, "PATCH", "/api/v1/servers/web-1", patch).await;
    let expected = json!({
        "revision": 2, "summary": "server web-1: renamed to front, label role=web",
        "progress": 0, "complete": true, "servers": [],
    });
    assert_eq!((status, change), (200, expected));
    site.backend.add_user("alice", &[key(10)], "role=web", false).await;
    let session = site.backend.connect(1).await;
    site.backend.answer_all(&session, Status::Done).await;
    let mut server = json!({
        "name": "front", "labels": { "role": "web" }, "presence": "connected", "last_seen": NOW,
        "address": ADDRESS.to_string(), "agent": "SSH-2.0-test",
        "fingerprint": key(1).fingerprint(), "created": NOW, "pending": 0, "failed": 0,
        "in_sync_at": 3,
    });
    assert_eq!(site.get("/api/v1/servers").await, (200, json!([server])));
    server["accounts"] =
        json!([{ "username": "alice", "sudo": false, "keys": [key(10).fingerprint()] }]);
    server["failures"] = json!([]);
    server["facts"] = json!({});
    assert_eq!(site.get("/api/v1/servers/front").await, (200, server));
    let path = "/api/v1/servers/front/sync";
    let (status, change) = site.call(Actor::Admin, "POST", path, json!({})).await;
    assert_eq!((status, &change["complete"]), (200, &json!(false)));
    let actions = change.pointer("/servers/0/actions").and_then(Value::as_array);
    assert_eq!(actions.map(Vec::len), Some(2), "everything is said again");
    let path = "/api/v1/servers/front";
    assert_eq!(site.call(Actor::Admin, "DELETE", path, Value::Null).await.0, 200);
    assert_eq!(site.get(path).await.0, 404);
}

#[tokio::test]
async fn api_keys_show_their_secret_once() {
    let site = TestSite::new().await;
    let new = json!({ "name": "rack-7", "role": "enroll" });
    let (status, made) = site.call(Actor::Admin, "POST", "/api/v1/api-keys", new.clone()).await;
    let secret = made["secret"].as_str().expect("a secret").to_owned();
    let expected = json!({
        "name": "rack-7", "role": "enroll", "created": NOW, "last_used": null, "secret": secret,
        "enroll": { "backend": "http://backend.test:2358", "host_key": key(99).fingerprint() },
    });
    assert_eq!((status, made), (200, expected));
    let body = upload(&secret, &key(1), "");
    assert_eq!(site.upload(body.clone()).await.0, 200);
    let (_, listed) = site.get("/api/v1/api-keys").await;
    assert!(!listed.to_string().contains(&secret));
    assert_eq!(listed.as_array().map(Vec::len), Some(3));
    assert_eq!(site.call(Actor::Admin, "POST", "/api/v1/api-keys", new).await.0, 409);
    let path = "/api/v1/api-keys/rack-7";
    let (status, gone) = site.call(Actor::Admin, "DELETE", path, Value::Null).await;
    assert_eq!((status, &gone["name"]), (200, &json!("rack-7")));
    assert_eq!(site.upload(body).await.0, 403, "revoked at once");
    let path = "/api/v1/api-keys/admin";
    assert_eq!(site.call(Actor::Admin, "DELETE", path, Value::Null).await.0, 409, "the last admin");
}

#[tokio::test]
async fn status_and_log_are_served() {
    let site = TestSite::new().await;
    site.backend.enroll("web-1", 1).await;
    site.backend.add_user("alice", &[key(10)], "web-1", false).await;
    let session = site.backend.connect(1).await;
    session.next(1).await.expect("a queue");
    let expected = json!({
        "version": env!("CARGO_PKG_VERSION"), "host_key": key(99).fingerprint(), "revision": 2,
        "servers": 1, "connected": 1, "users": 1, "grants": 1, "queued": 1, "sent": 1, "failed": 0,
        "drifted": 0, "keep_drifting": 0, "clocks_off": 0, "undecided": 0, "in_sync": 0, "pending_servers": 1,
        "failed_servers": 0,
    });
    assert_eq!(site.get("/api/v1/status").await, (200, expected));
    let row = json!({
        "id": 6, "at": NOW, "actor": "key:admin", "from": ADDRESS.to_string(),
        "action": "grant.add", "user": "alice", "server": null,
        "detail": "granted web-1 as alice",
    });
    let (status, mut rows) = site.get("/api/v1/log?limit=1").await;
    let last = rows[0].as_object_mut().expect("a row");
    let hashes = (last.remove("prev_hash"), last.remove("hash"));
    assert!(matches!(hashes, (Some(Value::String(_)), Some(Value::String(_)))), "{hashes:?}");
    assert_eq!((status, rows), (200, json!([row])));
}

#[tokio::test]
async fn what_cannot_be_done_is_said_with_the_right_status() {
    let site = TestSite::new().await;
    site.backend.enroll("web-1", 1).await;
    site.backend.enroll("web-2", 2).await;
    let alice = json!({ "name": "alice" });
    assert_eq!(site.call(Actor::Admin, "POST", "/api/v1/users", alice).await.0, 200);
    for (method, path, body, status, part) in [
        ("GET", "/api/v1/servers/db-9", Value::Null, 404, "no server named db-9"),
        ("GET", "/api/v1/servers/-x", Value::Null, 400, "no server name"),
        ("GET", "/api/v1/users/bob", Value::Null, 404, "no user named bob"),
        ("GET", "/api/v1/users/B%2F", Value::Null, 400, "user name"),
        ("GET", "/api/v1/grants?user=bob", Value::Null, 404, "no user named bob"),
        ("GET", "/api/v1/groups/ops", Value::Null, 404, "no group named ops"),
        ("DELETE", "/api/v1/groups/ops?with_grants=true", Value::Null, 404, "ops"),
        ("DELETE", "/api/v1/groups/ops?with=true", Value::Null, 400, "with"),
        ("POST", "/api/v1/grants", json!({ "on": "*" }), 422, ""),
        ("DELETE", "/api/v1/grants/77", Value::Null, 404, "no grant 77"),
        ("DELETE", "/api/v1/grants/x", Value::Null, 400, ""),
        ("DELETE", "/api/v1/users/alice/keys/abc", Value::Null, 404, "no key SHA256:abc"),
        ("GET", "/api/v1/changes/77", Value::Null, 404, "no revision 77"),
        ("GET", "/api/v1/changes/1?wait=-1", Value::Null, 400, ""),
        ("GET", "/api/v1/log?limt=1", Value::Null, 400, "limt"),
        ("GET", "/api/v1/log?action=a*b", Value::Null, 400, "its beginning (grant.*)"),
        ("GET", "/api/v1/log?wait=1", Value::Null, 400, "wait needs after"),
        ("PATCH", "/api/v1/servers/web-1", json!({ "name": "web-2" }), 409, "web-2 already"),
        (
            "PATCH",
            "/api/v1/servers/web-1",
            json!({ "set_labels": { "a=b": "c" } }),
            400,
            "no label",
        ),
        ("PATCH", "/api/v1/servers/web-1", json!({ "nmae": "x" }), 422, "nmae"),
        ("POST", "/api/v1/users", json!({ "name": "Alice" }), 422, "user name"),
        ("POST", "/api/v1/users", json!({ "name": "a", "on": "" }), 422, "no server named"),
        ("POST", "/api/v1/users", json!({ "name": "a", "on": "web-9" }), 404, "web-9"),
        (
            "POST",
            "/api/v1/users",
            json!({ "name": "a", "keys": ["x"] }),
            400,
            "key 1: not a public",
        ),
        ("POST", "/api/v1/users/alice/keys", json!({ "keys": [] }), 400, "holds no key"),
        ("POST", "/api/v1/grants", json!({ "user": "bob", "on": "*" }), 404, "no user named bob"),
        (
            "POST",
            "/api/v1/api-keys",
            json!({ "name": "a b", "role": "admin" }),
            400,
            "name of an API",
        ),
        ("GET", "/api/v1/nothing", Value::Null, 404, "nothing at this address"),
        ("GET", "/", Value::Null, 404, "nothing at this address"),
        ("PUT", "/api/v1/users", Value::Null, 405, "no such method"),
    ] {
        let (found, answer) = site.call(Actor::Admin, method, path, body).await;
        let error = answer["error"].as_str().expect("an error");
        assert!(found == status && error.contains(part), "{method} {path}: {found} {answer}");
    }
    let bad =
        site.send(Actor::Admin, "POST", "/api/v1/users", "text/plain", Body::from("{}")).await;
    assert_eq!(bad.0, 415);
    let torn = Body::from("{\"name\":");
    let bad = site.send(Actor::Admin, "POST", "/api/v1/users", "application/json", torn).await;
    assert_eq!(bad.0, 400);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let site = TestSite::new().await;
    let big = json!({ "name": "alice", "reason": "x".repeat(MAX_BODY) });
    assert_eq!(site.call(Actor::Admin, "POST", "/api/v1/users", big.clone()).await.0, 413);
    // Less is taken from whom nobody knows yet.
    let path = "/api/external/server/upload_key";
    let big = json!({ "api_key": "x".repeat(MAX_EXTERNAL_BODY) });
    assert_eq!(site.call(Actor::Nobody, "POST", path, big).await.0, 413);
}

#[tokio::test]
async fn served_over_tcp_until_stopped() {
    let site = TestSite::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, site.router.clone(), stop.clone()));
    let body = upload(&site.enroll_secret, &key(1), "").to_string();
    let head = format!(
        "POST /api/external/server/upload_key HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut kept = TcpStream::connect(address).await.expect("connected");
    kept.write_all(format!("{head}{body}").as_bytes()).await.expect("sent");
    let mut answer = [0; 15];
    kept.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    stop.cancel();
    server.await.expect("stopped although a connection was kept open");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    let (_, log) = site.get("/api/v1/log?limit=1").await;
    assert_eq!((&log[0]["action"], &log[0]["from"]), (&json!("server.add"), &json!("127.0.0.1")));
}

/// A served site with short limits: its address, its stop, and its end.
async fn serve_shortly(
    site: &TestSite,
    limits: serve::Limits,
) -> (std::net::SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let stop = CancellationToken::new();
    let served = serve::serve_within(limits, listener, site.router.clone(), stop.clone());
    (address, stop, tokio::spawn(served))
}

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(60);
const LIMITS: serve::Limits =
    serve::Limits { connections: 9, each_source: 9, head: LONG, life: LONG, stop: LONG };

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_are_cut() {
    let site = TestSite::new().await;
    let limits = serve::Limits { connections: 1, head: SHORT, ..LIMITS };
    let (address, stop, server) = serve_shortly(&site, limits).await;
    let mut nothing = Vec::new();
    for text in ["", "GET /api/v1/status HTTP/1.1\r\nHos"] {
        let mut slow = TcpStream::connect(address).await.expect("connected");
        slow.write_all(text.as_bytes()).await.expect("sent");
        // One place only: the second is served because the first was cut.
        slow.read_to_end(&mut nothing).await.expect("cut");
    }
    stop.cancel();
    server.await.expect("stopped");
}

#[tokio::test]
async fn a_connection_lasts_only_so_long() {
    let site = TestSite::new().await;
    let limits = serve::Limits { life: SHORT, ..LIMITS };
    let (address, stop, server) = serve_shortly(&site, limits).await;
    let mut idle = TcpStream::connect(address).await.expect("connected");
    let mut rest = Vec::new();
    // Long before the time for a head is over.
    idle.read_to_end(&mut rest).await.expect("ended");
    stop.cancel();
    server.await.expect("stopped");
}

#[tokio::test]
async fn a_long_poll_does_not_hold_the_stop_up() {
    let site = TestSite::new().await;
    site.backend.enroll("web-1", 1).await;
    let edit = site.backend.add_user("alice", &[], "web-1", false).await;
    let limits = serve::Limits { stop: SHORT, ..LIMITS };
    let (address, stop, server) = serve_shortly(&site, limits).await;
    let mut waiting = TcpStream::connect(address).await.expect("connected");
    let head = format!(
        "GET /api/v1/changes/{}?after={}&wait=30 HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {}\r\n\r\n",
        edit.revision, edit.progress, site.backend.token
    );
    waiting.write_all(head.as_bytes()).await.expect("sent");
    let begun = Instant::now();
    stop.cancel();
    server.await.expect("stopped");
    assert!(begun.elapsed() < Duration::from_secs(10));
    let mut rest = Vec::new();
    let _ = waiting.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "it was cut, not answered");
}
