//! What is listed and shown: tables for people, the backend's answer as JSON for scripts.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::backend::{Answer, Backend, status};
use crate::runner::Machine;

/// Three hours ago, in seconds since the Unix epoch.
fn hours_ago() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs() - 3 * 3600 - 60
}

fn server(name: &str, presence: &str, role: &str, failed: u32) -> Value {
    json!({"name": name, "labels": {"env": "prod", "role": role}, "presence": presence,
           "last_seen": hours_ago(), "address": "10.0.0.7:4711", "agent": "bastio-agent 0.2.0",
           "fingerprint": "SHA256:abc", "created": hours_ago(), "pending": 0, "failed": failed,
           "in_sync_at": 57})
}

fn grant() -> Value {
    json!({"id": 3, "user": "alice", "on": "role=web", "login": "alice", "sudo": true,
           "reason": "on\ncall", "created": hours_ago()})
}

fn key() -> Value {
    json!({"fingerprint": "SHA256:MVCe", "created": hours_ago(), "public_key": "ssh-ed25519 \
           AAAAC3NzaC1lZDI1NTE5AAAAIMINmOzSQZejrX3zSXobtT2icJMv/ftYuZKNVcnOxohl a@laptop"})
}

fn user() -> Value {
    json!({"name": "alice", "full_name": "Alice Ångström", "mail": "", "state": "active", "created": hours_ago(),
           "keys": [key()], "grants": [grant()]})
}

/// Asks twice: what people and what scripts get. Scripts must get the answer as it came.
fn shown(arguments: &[&str], answer: &Value, line: &str) -> String {
    let machine = Machine::new();
    let answers = vec![Answer::Json(200, answer.clone()), Answer::Json(200, answer.clone())];
    let backend = Backend::start(answers);
    let table = machine.at(&backend.url, arguments);
    assert_eq!(table.code, Some(0), "{table:?}");
    let json = machine.at(&backend.url, &[arguments, &["--output", "json"]].concat());
    assert_eq!((json.code, json.stderr.as_str()), (Some(0), ""), "{json:?}");
    assert_eq!(serde_json::from_str::<Value>(&json.stdout).expect("JSON"), *answer);
    assert_eq!(backend.lines(), [line, line]);
    table.stdout
}

#[test]
fn servers() {
    let mut list =
        json!([server("web-1", "connected", "web", 0), server("db-1", "offline", "db", 2)]);
    list[1]["failure"] = json!("add-user bob: exists, not ours");
    assert_eq!(
        shown(&["server", "ls"], &list, "GET /api/v1/servers"),
        "NAME   AGENT      LAST SEEN  STATE                                   WAITING  FAILED  LABELS\n\
         web-1  connected  now        in sync at 57                           0        0       env=prod,role=web\n\
         db-1   offline    3 h ago    failed: add-user bob: exists, not ours  0        2       env=prod,role=db\n"
    );
    let backend = Backend::start(vec![Answer::Json(200, list)]);
    let run = Machine::new().at(&backend.url, &["server", "ls", "role=db,env!=test"]);
    assert!(run.stdout.contains("db-1") && !run.stdout.contains("web-1"), "{run:?}");
}

#[test]
fn one_server_with_accounts_and_failures() {
    let mut detail = server("web-1", "offline", "web", 1);
    detail["accounts"] = json!([{"username": "alice", "sudo": true, "keys": ["SHA256:MVCe"]}]);
    detail["facts"] = json!({"os": "Debian GNU/Linux 12", "kernel": "Linux 6.1.0"});
    detail["failures"] = json!([{"action": "add-user", "username": "bob", "state": "failed",
        "tries": 2, "status": 400, "feedback": "exists, not ours", "mid": "m"}]);
    assert_eq!(
        shown(&["server", "show", "web-1"], &detail, "GET /api/v1/servers/web-1"),
        "name         web-1\n\
         labels       env=prod,role=web\n\
         state        offline, last seen 3 h ago\n\
         address      10.0.0.7:4711\n\
         agent        bastio-agent 0.2.0\n\
         agent's key  SHA256:abc\n\
         enrolled     3 h ago\n\
         actions      0 waiting, 1 failed\n\
         kernel       Linux 6.1.0\n\
         os           Debian GNU/Linux 12\n\
         \n\
         ACCOUNT  SUDO  KEY\n\
         alice    yes   SHA256:MVCe\n\
         \n\
         FAILED    ACCOUNT  TRIES    FEEDBACK\n\
         add-user  bob      2 times  exists, not ours\n"
    );
}

#[test]
fn people_keys_and_grants() {
    assert_eq!(
        shown(&["user", "ls"], &json!([user()]), "GET /api/v1/users"),
        "NAME   FULL NAME       KEYS  ADDED    MAY LOG IN ON\n\
         alice  Alice Ångström  1     3 h ago  role=web (sudo)\n"
    );
    assert_eq!(
        shown(&["user", "show", "alice"], &user(), "GET /api/v1/users/alice"),
        "name       alice\n\
         full name  Alice Ångström\n\
         mail       -\n\
         state      active\n\
         added      3 h ago\n\
         \n\
         KEY          TYPE         ADDED    COMMENT\n\
         SHA256:MVCe  ssh-ed25519  3 h ago  a@laptop\n\
         \n\
         GRANT  USER   ON        LOGIN  SUDO  ADDED    REASON\n\
         3      alice  role=web  alice  yes   3 h ago  on call\n"
    );
    let keys = shown(&["key", "ls", "alice"], &json!([key()]), "GET /api/v1/users/alice/keys");
    assert!(keys.contains("SHA256:MVCe  ssh-ed25519  3 h ago  a@laptop\n"), "{keys}");
    let grants = shown(&["grant", "ls"], &json!([grant()]), "GET /api/v1/grants");
    assert!(grants.contains("3      alice  role=web  alice  yes   3 h ago  on call\n"), "{grants}");
}

#[test]
fn status_and_log() {
    let text = shown(&["status"], &status(), "GET /api/v1/status");
    assert!(text.contains("host key  SHA256:abc\n"), "{text}");
    assert!(text.contains("servers   2 connected of 3, 1 in sync, 2 that failed\n"), "{text}");
    assert!(text.contains("actions   0 waiting, 0 sent, 2 failed\n"), "{text}");
    let row = json!({"id": 1, "at": hours_ago(), "actor": "key:admin", "from": "10.0.0.1",
        "action": "user.add", "user": "alice", "server": null, "detail": "one key",
        "prev_hash": "", "hash": "aa"});
    let arguments = ["log", "--limit", "5", "--user", "alice", "--server", "web-1"];
    assert_eq!(
        shown(&arguments, &json!([row]), "GET /api/v1/log?limit=5&user=alice&server=web-1"),
        "WHEN     WHO        FROM      WHAT      USER   SERVER  DETAIL\n\
         3 h ago  key:admin  10.0.0.1  user.add  alice  -       one key\n"
    );
}

#[test]
fn an_empty_list_says_what_to_do() {
    for (arguments, hint) in [
        (&["server", "ls"][..], "bastio api-key add NAME --role enroll"),
        (&["user", "ls"], "bastio user add NAME"),
        (&["grant", "ls"], "bastio grant add USER"),
        (&["key", "ls", "alice"], "bastio key add alice FILE"),
    ] {
        let backend = Backend::start(vec![Answer::Json(200, json!([]))]);
        let run = Machine::new().at(&backend.url, arguments);
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""), "{run:?}");
        assert!(run.stderr.contains(hint), "{run:?}");
    }
}

#[test]
fn a_new_api_key_shows_its_secret_once_and_the_command_that_enrols() {
    let created = json!({"name": "rack-7", "role": "enroll", "created": 1, "last_used": null,
        "secret": "bst_rack", "enroll": {"backend": "http://b:2358", "host_key": "SHA256:h+k/"}});
    let backend = Backend::start(vec![Answer::Json(200, created)]);
    let run = Machine::new().at(&backend.url, &["api-key", "add", "rack-7", "--role", "enroll"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(
        run.stdout,
        "bst_rack\n\
         \n\
         sudo bastio-agent enroll --backend http://b:2358 --host-key SHA256:h+k/ \
         --api-key-file - <<'END'\n\
         bst_rack\n\
         END\n"
    );
    assert!(!run.stderr.contains("bst_rack"), "{}", run.stderr);
    let seen = backend.requests().pop().expect("a request");
    assert_eq!(seen.line, "POST /api/v1/api-keys");
    assert_eq!(seen.body, json!({"name": "rack-7", "role": "enroll"}));
}

#[test]
fn api_keys_are_listed_and_removed() {
    let keys = json!([{"name": "admin", "role": "admin", "created": hours_ago(),
                       "last_used": null}]);
    assert_eq!(
        shown(&["api-key", "ls"], &keys, "GET /api/v1/api-keys"),
        "NAME   ROLE   ADDED    LAST USED\n\
         admin  admin  3 h ago  never\n"
    );
    let removed = json!({"name": "rack 7/x", "role": "enroll", "created": 1, "last_used": 2});
    let text =
        shown(&["api-key", "rm", "rack 7/x"], &removed, "DELETE /api/v1/api-keys/rack%207%2Fx");
    assert_eq!(text, "");
}
