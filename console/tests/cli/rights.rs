//! What agents of version 2 understand: ends, policies, options, locks, and questions about a server as a whole. Tables for
//! people, JSON for scripts, and how each goes wrong.

use serde_json::{Value, json};

use crate::backend::{Answer, Backend, Seen, change};
use crate::runner::{Machine, Run};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMINmOzSQZejrX3zSXobtT2icJMv/ftYuZKNVcnOxohl";
/// 2026-12-01 18:00:00 UTC.
const END: i64 = 1_796_148_000;

fn asks(arguments: &[&str], answers: Vec<Value>) -> (Run, Vec<Seen>) {
    let answers = answers.into_iter().map(|answer| Answer::Json(200, answer)).collect();
    let backend = Backend::start(answers);
    let run = Machine::new().at(&backend.url, arguments);
    (run, backend.requests())
}

/// A request of a server, answered or not.
fn request(kind: &str, state: &str, detail: &Value) -> Value {
    let status = match state {
        "done" => json!(200),
        "failed" => json!(500),
        _ => Value::Null,
    };
    json!({"id": 4, "server": "web-1", "kind": kind, "connected": true, "state": state,
           "tries": 1, "status": status, "feedback": "2 changes", "detail": detail,
           "created": 1, "finished": null})
}

fn changes() -> Value {
    json!({
        "changes": [{"username": "ann", "kind": "add-key", "text": "SHA256:abc"},
                    {"kind": "configure", "text": "sshd reads keys elsewhere"}],
        "warnings": ["docker is as good as root"],
    })
}

#[test]
fn every_right_sends_its_request() {
    for (arguments, line, body) in [
        (
            &[
                "grant",
                "add",
                "bob",
                "--on",
                "web-1",
                "--until",
                "2026-12-01T18:00:00Z",
                "--sudo-policy",
                "nginx",
                "--key-options",
                "restrict,from=\"10.0.0.0/8\"",
                "--take-over",
            ][..],
            "POST /api/v1/grants",
            json!({"user": "bob", "on": "web-1", "login": null, "sudo": false, "reason": "",
                   "terms": {"until": END, "sudo_policy": "nginx", "take_over": true,
                             "key_options": "restrict,from=\"10.0.0.0/8\""}}),
        ),
        (
            &[
                "user", "update", "bob", "--uid", "5001", "--shell", "/bin/zsh", "--groups",
                "adm,web",
            ],
            "PATCH /api/v1/users/bob",
            json!({"spec": {"uid": 5001, "shell": "/bin/zsh", "groups": ["adm", "web"]}}),
        ),
        (&["user", "lock", "bob"], "PATCH /api/v1/users/bob", json!({"state": "locked"})),
        (&["user", "unlock", "bob"], "PATCH /api/v1/users/bob", json!({"state": "active"})),
        (
            &["user", "end-sessions", "bob", "--on", "role=web"],
            "POST /api/v1/users/bob/end-sessions",
            json!({"on": "role=web"}),
        ),
        (
            &["user", "rm", "bob", "--home", "lock"],
            "DELETE /api/v1/users/bob?home=lock",
            Value::Null,
        ),
    ] {
        let (run, seen) =
            asks(arguments, vec![change(1, true, &[("web-1", "connected", &["done"])])]);
        assert_eq!(run.code, Some(0), "{arguments:?} {run:?}");
        assert_eq!((seen[0].line.as_str(), &seen[0].body), (line, &body), "{arguments:?}");
    }
}

#[test]
fn wrong_rights_are_refused_before_anything_is_sent() {
    for (arguments, words) in [
        (&["--until", "soon"][..], "give a duration"),
        (&["--until", "2026-13-01"], "give a duration"),
        (&["--key-options", "restrict,nonsense"], "nonsense"),
        (&["--key-options", "expiry-time=\"20270101\""], "until"),
        (&["--sudo", "--sudo-policy", "nginx"], "cannot be used with"),
        (&["--sudo-policy", "a b"], "a policy's name"),
    ] {
        let words_before = ["grant", "add", "bob", "--on", "web-1"];
        let run = Machine::new().at("http://127.0.0.1:1", &[&words_before[..], arguments].concat());
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{arguments:?} {run:?}");
        assert!(run.stderr.contains(words), "{arguments:?} {}", run.stderr);
    }
}

#[test]
fn policies_are_added_listed_and_removed() {
    let policy = json!({"name": "nginx", "commands": ["/usr/bin/systemctl restart nginx", "/bin/ls"],
                        "run_as": ["root"], "password": false});
    let add = [
        "sudo-policy",
        "add",
        "nginx",
        "--command",
        "/usr/bin/systemctl restart nginx",
        "--command",
        "/bin/ls",
        "--run-as",
        "root",
    ];
    let (run, seen) = asks(&add, vec![policy.clone()]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), "sudo policy nginx added\n"), "{run:?}");
    assert_eq!((seen[0].line.as_str(), &seen[0].body), ("POST /api/v1/sudo-policies", &policy));

    let (run, _) = asks(&["sudo-policy", "ls"], vec![json!([policy])]);
    assert_eq!(
        run.stdout,
        "POLICY  COMMANDS                                   RUN AS  PASSWORD\n\
         nginx   /usr/bin/systemctl restart nginx; /bin/ls  root    no\n"
    );
    let (run, seen) =
        asks(&["--output", "json", "sudo-policy", "rm", "nginx"], vec![policy.clone()]);
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).expect("JSON"), policy);
    assert_eq!(seen[0].line, "DELETE /api/v1/sudo-policies/nginx");

    for command in ["ls", "systemctl restart nginx", "/usr/bin/", "!/bin/su"] {
        let add = ["sudo-policy", "add", "nginx", "--command", command];
        let run = Machine::new().at("http://127.0.0.1:1", &add);
        assert_eq!(run.code, Some(2), "{command}: {run:?}");
        assert!(run.stderr.contains("--command"), "{command}: {}", run.stderr);
    }
}

#[test]
fn a_check_tells_what_would_change_and_ends_with_1() {
    let arguments = ["server", "check", "web-1"];
    let sent = request("check", "sent", &Value::Null);
    let (run, seen) = asks(&arguments, vec![sent, request("check", "done", &changes())]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert_eq!(
        run.stdout,
        "web-1: 2 changes\n\
         ACCOUNT  WHAT       DETAILS\n\
         ann      add-key    SHA256:abc\n\
         -        configure  sshd reads keys elsewhere\n"
    );
    assert_eq!(run.stderr, "warning: docker is as good as root\n");
    assert_eq!(seen[0].line, "POST /api/v1/servers/web-1/requests");
    assert_eq!(seen[0].body, json!({"kind": "check", "allow_no_admin": false}));
    assert_eq!(seen[1].line, "GET /api/v1/requests/4?wait=30");

    let (run, _) = asks(&arguments, vec![request("check", "done", &Value::Null)]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "web-1: as it should be\n"));
    let json = ["--output", "json", "server", "check", "web-1"];
    let answer = request("check", "done", &changes());
    let (run, _) = asks(&json, vec![answer]);
    let printed: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!((run.code, &printed[0]["detail"]), (Some(1), &changes()), "{printed}");
}

#[test]
fn a_sync_tells_what_it_changed_and_what_it_could_not() {
    let failed = json!({"failures": [{"username": "bob", "text": "disk full"}]});
    for (arguments, line, body, wrapped) in [
        (&["server", "sync", "web-1"][..], "POST /api/v1/servers/web-1/sync", json!({}), true),
        (
            &["server", "sync", "web-1", "--allow-no-admin"],
            "POST /api/v1/servers/web-1/requests",
            json!({"kind": "sync", "allow_no_admin": true}),
            false,
        ),
    ] {
        for (state, detail, code, row) in [
            ("done", changes(), 0, "ann      add-key    SHA256:abc\n"),
            ("failed", failed.clone(), 1, "bob      failed  disk full\n"),
        ] {
            let asked = request("sync", state, &detail);
            let mut first = change(0, true, &[]);
            first["request"] = asked.clone();
            let (run, seen) = asks(arguments, vec![if wrapped { first } else { asked }]);
            assert_eq!(run.code, Some(code), "{run:?}");
            assert!(run.stdout.contains(row), "{run:?}");
            assert!(run.stderr.contains("web-1: 2 changes\n"), "{run:?}");
            assert_eq!((seen[0].line.as_str(), &seen[0].body), (line, &body));
        }
    }
}

#[test]
fn a_report_has_a_table_for_each_thing_and_json_for_scripts() {
    let found = json!({
        "users": [{"name": "ann", "uid": 1001, "gid": 1001, "home": "/home/ann", "shell": "/bin/sh",
                   "comment": "", "managed": true, "locked": false, "keys": [
                       {"fingerprint": "SHA256:abc", "algorithm": "ssh-ed25519", "options": "restrict",
                        "managed": true, "file": "/home/ann/.ssh/authorized_keys"}]}],
        "groups": [{"name": "docker", "gid": 99, "members": ["ann"], "root_equivalent": true}],
        "sudo_rules": ["ann ALL=(root) /bin/ls"],
        "sshd": {"PermitRootLogin": "no"},
    });
    let answer = || request("report", "done", &json!({"report": found}));
    let (run, _) = asks(&["server", "report", "web-1"], vec![answer()]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for row in [
        "ann   1001  yes      open   1",
        "ann   SHA256:abc  yes        restrict",
        "docker  99",
        "ann ALL=(root) /bin/ls",
        "PermitRootLogin  no",
    ] {
        assert!(run.stdout.contains(row), "{row}: {}", run.stdout);
    }
    let (run, _) = asks(&["server", "report", "web-1", "--output", "json"], vec![answer()]);
    let printed: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(printed["users"][0]["keys"][0]["fingerprint"], "SHA256:abc", "{printed}");

    let backend = Backend::start(vec![Answer::Json(
        409,
        json!({"error": "the agent of web-1 speaks version 1, which cannot be asked that",
               "hint": "update the agent on that server"}),
    )]);
    let run = Machine::new().at(&backend.url, &["server", "report", "web-1"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:?}");
    assert!(run.stderr.ends_with("\nhint: update the agent on that server\n"), "{run:?}");
}

#[test]
fn a_server_shows_all_that_its_accounts_may_and_its_drift() {
    let fingerprint = "SHA256:hl4yn20xrPRXXqVPbLHTYlJ6KiC/dzbYtJJQqOgFKz8";
    let key = bastio_protocol::PublicKey::parse(KEY, &bastio_protocol::KeyPolicy::default());
    let fingerprint = key.map_or_else(|_| fingerprint.to_owned(), |key| key.fingerprint());
    let wanted = json!({
        "spec": {"uid": 5001}, "until": END, "locked": true,
        "sudo": {"policy": {"commands": ["/bin/ls"], "run_as": ["root"]}},
        "keys": [{"public_key": KEY, "options": "restrict"}],
    });
    let server = json!({"name": "web-1", "labels": {}, "presence": "connected", "last_seen": 1,
        "address": null, "agent": null, "fingerprint": "SHA256:abc", "created": 1, "pending": 0,
        "failed": 0, "drifted": true, "facts": {}, "failures": [],
        "accounts": [
            {"username": "ann", "sudo": true, "keys": [fingerprint], "wanted": wanted},
            {"username": "bob", "sudo": false, "keys": []},
        ],
        "drift": {"type": "drift", "at": END, "healed": false, "detail": changes()}});
    let (run, _) = asks(&["server", "show", "web-1"], vec![server.clone()]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let width = fingerprint.len();
    let tail = format!(
        "\n\
         ACCOUNT  UID   STATE   SUDO               UNTIL (UTC)          {:width$}  KEY OPTIONS\n\
         ann      5001  locked  /bin/ls (as root)  2026-12-01 18:00:00  {fingerprint}  restrict\n\
         bob      -     open    no                 -                    {:width$}  -\n\
         \n\
         Drift found at 2026-12-01 18:00:00 UTC, and there still:\n\
         ACCOUNT  WHAT       DETAILS\n\
         ann      add-key    SHA256:abc\n\
         -        configure  sshd reads keys elsewhere\n",
        "KEY", "-"
    );
    assert!(run.stdout.ends_with(&tail), "{}\n---\n{tail}", run.stdout);
    assert!(run.stderr.contains("hint: ") && run.stderr.contains("bastio server sync web-1"));
    assert!(run.stdout.contains("state        connected, drifted (see below)\n"), "{}", run.stdout);
    let (run, _) = asks(&["server", "ls"], vec![json!([server])]);
    assert!(run.stdout.contains("web-1  connected  now        drifted"), "{}", run.stdout);
}

#[test]
fn of_several_servers_one_that_cannot_be_asked_keeps_no_answer_back() {
    let refused = || Answer::Json(409, json!({"error": "db-1 is not connected", "hint": "later"}));
    let done = || Answer::Json(200, request("check", "done", &Value::Null));
    let backend = Backend::start(vec![refused(), done()]);
    let run = Machine::new().at(&backend.url, &["server", "check", "db-1", "web-1"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), "web-1: as it should be\n"), "{run:?}");
    assert_eq!(run.stderr, "db-1: not checked: db-1 is not connected\n");

    let backend = Backend::start(vec![refused()]);
    let run = Machine::new().at(&backend.url, &["server", "check", "db-1"]);
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (Some(1), "error: db-1 is not connected\nhint: later\n")
    );
}
