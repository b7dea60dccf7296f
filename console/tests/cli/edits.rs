//! Edits: the request that is sent, how servers are waited for, and what it comes to.

use std::time::Duration;

use serde_json::{Value, json};

use crate::backend::{Answer, Backend, change, nobody};
use crate::runner::Machine;

const GRANT: [&str; 5] = ["grant", "add", "alice", "--on", "role=web"];

fn ok(value: Value) -> Answer {
    Answer::Json(200, value)
}

fn with(arguments: &[&'static str]) -> Vec<&'static str> {
    arguments.iter().chain(&GRANT).copied().collect()
}

#[test]
fn every_edit_sends_its_request() {
    let machine = Machine::new();
    for (arguments, line, body) in [
        (
            &["user", "add", "alice", "--on", "role=web", "--sudo", "--reason", "r"][..],
            "POST /api/v1/users",
            json!({"name": "alice", "full_name": "", "mail": "", "keys": [], "on": "role=web",
                   "sudo": true, "reason": "r"}),
        ),
        (
            &["user", "add", "bob", "--full-name", "Bob Roe", "--mail", "b@example.org"],
            "POST /api/v1/users",
            json!({"name": "bob", "full_name": "Bob Roe", "mail": "b@example.org", "keys": [],
                   "on": null, "sudo": false, "reason": ""}),
        ),
        (
            &["user", "update", "alice", "--no-sudo", "--mail", ""],
            "PATCH /api/v1/users/alice",
            json!({"mail": "", "sudo": false}),
        ),
        (
            &["user", "update", "alice", "--sudo"],
            "PATCH /api/v1/users/alice",
            json!({"sudo": true}),
        ),
        (&["user", "rm", "alice"], "DELETE /api/v1/users/alice", Value::Null),
        (
            &["grant", "add", "alice", "--on", "web-1,web-2", "--login", "deploy"],
            "POST /api/v1/grants",
            json!({"user": "alice", "on": "web-1,web-2", "login": "deploy", "sudo": false,
                   "reason": ""}),
        ),
        (&["grant", "rm", "12"], "DELETE /api/v1/grants/12", Value::Null),
        (
            &["server", "label", "web-1", "role=web", "env=prod", "rack-"],
            "PATCH /api/v1/servers/web-1",
            json!({"set_labels": {"env": "prod", "role": "web"}, "unset_labels": ["rack"]}),
        ),
        (
            &["server", "rename", "web-1", "web-2"],
            "PATCH /api/v1/servers/web-1",
            json!({"name": "web-2", "set_labels": {}, "unset_labels": []}),
        ),
        (&["server", "rm", "web-1"], "DELETE /api/v1/servers/web-1", Value::Null),
        (&["server", "sync", "web-1"], "POST /api/v1/servers/web-1/sync", json!({})),
    ] {
        let backend = Backend::start(vec![ok(change(1, true, &[]))]);
        let run = machine.at(&backend.url, arguments);
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""), "{arguments:?} {run:?}");
        assert!(run.stderr.contains("alice was added (revision 7)\nno server"), "{}", run.stderr);
        let seen = backend.requests().pop().expect("a request");
        assert_eq!((seen.line.as_str(), seen.body), (line, body), "{arguments:?}");
    }
}

#[test]
fn long_polls_follow_the_servers_until_all_have_answered() {
    let backend = Backend::start(vec![
        ok(change(
            1,
            false,
            &[("web-1", "connected", &["sent"]), ("web-2", "connected", &["queued"])],
        )),
        ok(change(
            4,
            false,
            &[("web-1", "connected", &["done"]), ("web-2", "connected", &["sent"])],
        )),
        ok(change(
            5,
            true,
            &[("web-1", "connected", &["done"]), ("web-2", "connected", &["done"])],
        )),
    ]);
    let run = Machine::new().at(&backend.url, &GRANT);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(
        run.stdout,
        "SERVER  STATE  ACTIONS  FEEDBACK\n\
         web-1   done   1/1      added\n\
         web-2   done   1/1      added\n"
    );
    assert_eq!(run.stderr, "alice was added (revision 7)\n");
    assert_eq!(
        backend.lines(),
        [
            "POST /api/v1/grants",
            "GET /api/v1/changes/7?after=1&wait=30",
            "GET /api/v1/changes/7?after=4&wait=30",
        ]
    );
}

#[test]
fn a_failed_server_shows_its_feedback_and_makes_it_1() {
    let servers: &[(&str, &str, &[&str])] = &[
        ("web-1", "connected", &["done", "failed", "failed"]),
        ("web-2", "connected", &["done"]),
        ("db-1", "offline", &["queued"]),
    ];
    let backend = Backend::start(vec![ok(change(3, false, servers))]);
    let run = Machine::new().at(&backend.url, &GRANT);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert_eq!(
        run.stdout,
        "SERVER  STATE    ACTIONS  FEEDBACK\n\
         web-1   failed   1/3      web-1: disk [31mfull\n\
         web-2   done     1/1      added\n\
         db-1    offline  0/1      will follow when it is back\n"
    );
    assert_eq!(backend.lines().len(), 1, "nobody that could answer is left");
}

#[test]
fn servers_that_are_away_do_not_block_and_are_no_failure() {
    let servers: &[(&str, &str, &[&str])] =
        &[("web-1", "offline", &["sent"]), ("new-1", "never-seen", &["queued"])];
    let backend = Backend::start(vec![ok(change(1, false, servers))]);
    let run = Machine::new().at(&backend.url, &GRANT);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(
        run.stderr.ends_with(
            "offline, will follow when it is back: web-1\n\
             never seen, will follow once its agent is started: new-1\n"
        ),
        "{}",
        run.stderr
    );
    assert_eq!(backend.lines().len(), 1);
}

#[test]
fn a_connected_server_that_does_not_answer_in_time_makes_it_1() {
    let waiting = change(1, false, &[("web-1", "connected", &["sent"])]);
    let backend = Backend::start(vec![
        ok(waiting.clone()),
        Answer::Late(Duration::from_millis(1100), waiting),
    ]);
    let run = Machine::new().at(&backend.url, &with(&["--timeout", "1"]));
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stdout.contains("web-1   waiting  0/1"), "{}", run.stdout);
    let note = "connected, but no answer within 1 s: web-1; the backend goes on by itself, see: \
                bastio server show web-1\n";
    assert!(run.stderr.ends_with(note), "{}", run.stderr);
    assert_eq!(backend.lines().pop().as_deref(), Some("GET /api/v1/changes/7?after=1&wait=1"));
}

#[test]
fn no_wait_prints_the_revision_and_asks_no_further() {
    for (arguments, expected) in
        [(with(&["--no-wait"]), "7\n"), (with(&["--wait", "--no-wait"]), "7\n")]
    {
        let answer = change(1, false, &[("web-1", "connected", &["failed", "sent"])]);
        let backend = Backend::start(vec![ok(answer)]);
        let run = Machine::new().at(&backend.url, &arguments);
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), expected), "{run:?}");
        assert_eq!(backend.lines(), ["POST /api/v1/grants"]);
    }
}

#[test]
fn json_output_is_the_change_and_nothing_else() {
    let before = change(1, false, &[("web-1", "connected", &["sent"])]);
    let after = change(2, true, &[("web-1", "connected", &["done"])]);
    let expected = r#"{
  "revision": 7,
  "summary": "alice was added",
  "progress": 2,
  "complete": true,
  "servers": [
    {
      "server": "web-1",
      "presence": "connected",
      "actions": [
        {
          "action": "add-user",
          "username": "alice",
          "state": "done",
          "tries": 1,
          "status": 200,
          "feedback": "added",
          "mid": "m1"
        }
      ]
    }
  ]
}
"#;
    let backend = Backend::start(vec![ok(before.clone()), ok(after)]);
    let run = Machine::new().at(&backend.url, &with(&["--output", "json"]));
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(0), expected, ""));
    assert_eq!(backend.lines().len(), 2);

    let backend = Backend::start(vec![ok(before.clone())]);
    let run = Machine::new().at(&backend.url, &with(&["--output", "json", "--no-wait"]));
    let printed: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!((run.code, printed), (Some(0), before));
}

#[test]
fn a_backend_that_comes_back_while_servers_work_is_asked_again() {
    let backend = Backend::start(vec![
        ok(change(1, false, &[("web-1", "connected", &["sent"])])),
        Answer::Hangup,
        Answer::Text(502, "<html>bad gateway"),
        ok(change(2, true, &[("web-1", "connected", &["done"])])),
    ]);
    let run = Machine::new().at(&backend.url, &GRANT);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(backend.lines().len(), 4);
}

#[test]
fn a_backend_that_stays_away_makes_it_3() {
    let machine = Machine::new();
    let run = machine.at(&nobody(), &GRANT);
    assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
    assert!(run.stderr.starts_with("error: cannot reach http://127.0.0.1:"), "{}", run.stderr);
    assert!(run.stderr.contains("\nhint: is the backend running"), "{}", run.stderr);

    let waiting = change(1, false, &[("web-1", "connected", &["sent"])]);
    let backend = Backend::start(vec![ok(waiting)]);
    let run = machine.at(&backend.url, &with(&["--timeout", "1"]));
    assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
    assert!(run.stderr.contains("error: revision 7 was taken, but"), "{}", run.stderr);
}

#[test]
fn what_the_backend_refuses_makes_it_1_with_its_words() {
    let machine = Machine::new();
    for (answer, expected) in [
        (
            Answer::Json(404, json!({"error": "no user alice", "hint": "bastio user ls"})),
            "error: no user alice\nhint: bastio user ls\n",
        ),
        (
            Answer::Json(409, json!({"error": "bad\u{1b}[2J\nerror: forged"})),
            "error: bad [2J error: forged\n",
        ),
        (
            Answer::Text(404, "nginx"),
            "error: the backend answered 404 Not Found\n\
             hint: is this URL a bastio backend, and of a version near this one?\n",
        ),
        (Answer::Text(500, "oops"), "error: the backend answered 500 Internal Server Error\n"),
        (
            Answer::Text(200, "<html>"),
            "error: the answer is not what this version of bastio understands: \
             expected value at line 1 column 1\n\
             hint: is this URL a bastio backend, and of a version near this one?\n",
        ),
    ] {
        let backend = Backend::start(vec![answer]);
        let run = machine.at(&backend.url, &GRANT);
        assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(1), "", expected));
    }
}

#[test]
fn what_changed_nothing_says_what_may_be_meant() {
    let none = || Backend::start(vec![ok(change(1, true, &[]))]);
    let by_label = "hint: no server has role=wbe, or those that have it need no change; see: \
                    bastio server ls 'role=wbe'; servers labelled so later follow by themselves\n";
    let no_key = "hint: unless alice has a key already, no login is possible; give one with: \
                  bastio key add alice FILE\n";
    for (arguments, ends) in [
        (&["grant", "add", "alice", "--on", "role=wbe"][..], vec![by_label]),
        (&["user", "add", "alice", "--on", "role=wbe"], vec![by_label, no_key]),
        (&["user", "add", "alice", "--on", "web-1"], vec![no_key]),
        (&["grant", "add", "alice", "--on", "web-1"], vec![]),
        (&["--no-wait", "user", "add", "alice", "--on", "role=wbe"], vec![]),
        (&["--output", "json", "user", "add", "alice", "--on", "role=wbe"], vec![]),
    ] {
        let run = Machine::new().at(&none().url, arguments);
        assert_eq!(run.code, Some(0), "{arguments:?} {run:?}");
        let hints = run.stderr.find("hint: ").map_or("", |at| &run.stderr[at..]);
        assert_eq!(hints, ends.concat(), "{arguments:?}");
    }
}

#[test]
fn the_words_of_other_tools_are_taken_too() {
    for (words, line) in [
        (["user", "remove", "alice"], "DELETE /api/v1/users/alice"),
        (["server", "delete", "web-1"], "DELETE /api/v1/servers/web-1"),
    ] {
        let backend = Backend::start(vec![ok(change(1, true, &[]))]);
        assert_eq!(Machine::new().at(&backend.url, &words).code, Some(0));
        assert_eq!(backend.lines(), [line]);
    }
    let backend = Backend::start(vec![ok(json!([]))]);
    assert_eq!(Machine::new().at(&backend.url, &["server", "list"]).code, Some(0));
    assert_eq!(backend.lines(), ["GET /api/v1/servers"]);
}

#[test]
fn an_unknown_token_is_answered_with_the_ways_to_a_good_one() {
    let api = json!({"error": "unknown API key", "hint": "send `Authorization: Bearer TOKEN`"});
    let backend = Backend::start(vec![Answer::Json(401, api)]);
    let run = Machine::new().at(&backend.url, &["status"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert_eq!(
        run.stderr,
        "error: unknown API key\nhint: log in with a token of role admin: bastio login URL; if none \
         is left, the backend's host makes one: bastio-backend admin-token\n"
    );
}
