//! Groups of people: what is asked of the backend, and how it is shown.

use serde_json::{Value, json};

use crate::backend::{Answer, Backend, change};
use crate::runner::Machine;

fn group(name: &str, users: &[&str], groups: &[&str], people: &[&str]) -> Value {
    json!({"name": name, "members": {"users": users, "groups": groups}, "people": people,
           "grants": [{"id": 3, "group": name, "on": "role=web", "sudo": true, "reason": "",
                       "created": 1}],
           "created": 1})
}

#[test]
fn every_edit_of_groups_sends_its_request() {
    let members = |users: &[&str], groups: &[&str]| json!({"users": users, "groups": groups});
    let nobody = members(&[], &[]);
    for (arguments, line, body) in [
        (
            &["group", "add", "ops", "--member", "alice,bob", "--group", "dba"][..],
            "POST /api/v1/groups",
            json!({"name": "ops", "members": members(&["alice", "bob"], &["dba"])}),
        ),
        (
            &["group", "member", "add", "ops", "carol", "dora"],
            "PATCH /api/v1/groups/ops",
            json!({"add": members(&["carol", "dora"], &[]), "remove": nobody}),
        ),
        (
            &["group", "member", "rm", "ops", "--group", "dba"],
            "PATCH /api/v1/groups/ops",
            json!({"add": nobody, "remove": members(&[], &["dba"])}),
        ),
        (&["group", "rm", "ops"], "DELETE /api/v1/groups/ops", Value::Null),
        (
            &["group", "rm", "ops", "--with-grants", "--yes"],
            "DELETE /api/v1/groups/ops?with_grants=true",
            Value::Null,
        ),
        (
            &["grant", "add", "--group", "ops", "--on", "role in (web,db)", "--login", "deploy"],
            "POST /api/v1/grants",
            json!({"group": "ops", "on": "role=db|web", "login": "deploy", "sudo": false,
                   "reason": ""}),
        ),
        (
            &["grant", "add", "bob", "--on", "web-1", "--from", "2026-12-01T18:00Z"],
            "POST /api/v1/grants",
            json!({"user": "bob", "on": "web-1", "login": null, "sudo": false, "reason": "",
                   "terms": {"from": 1_796_148_000}}),
        ),
    ] {
        let answer = change(1, true, &[("web-1", "connected", &["done"])]);
        let backend = Backend::start(vec![Answer::Json(200, answer)]);
        let run = Machine::new().at(&backend.url, arguments);
        assert_eq!(run.code, Some(0), "{arguments:?} {run:?}");
        let seen = backend.requests();
        assert_eq!((seen[0].line.as_str(), &seen[0].body), (line, &body), "{arguments:?}");
    }
}

#[test]
fn groups_are_shown_with_everybody_in_them() {
    let ops = group("ops", &["alice"], &["dba"], &["alice", "bob"]);
    let answers = vec![
        Answer::Json(200, json!([ops])),
        Answer::Json(200, ops.clone()),
        Answer::Json(200, ops.clone()),
    ];
    let backend = Backend::start(answers);
    let machine = Machine::new();
    let list = machine.at(&backend.url, &["group", "ls"]).stdout;
    let rows: Vec<Vec<&str>> =
        list.lines().map(|line| line.split("  ").filter(|c| !c.is_empty()).collect()).collect();
    assert_eq!(rows[0], ["GROUP", "MEMBERS", "GROUPS IN IT", "PEOPLE", "GRANTS", "ADDED"]);
    assert_eq!(rows[1][..3], ["ops", "alice", "dba"]);
    let shown = machine.at(&backend.url, &["group", "show", "ops"]).stdout;
    assert!(shown.contains("everybody") && shown.contains("alice,bob"), "{shown}");
    assert!(shown.contains("role=web") && shown.contains("their own"), "{shown}");
    let json = machine.at(&backend.url, &["group", "show", "ops", "--output", "json"]).stdout;
    assert_eq!(serde_json::from_str::<Value>(&json).expect("JSON"), ops);
    assert_eq!(
        backend.lines(),
        ["GET /api/v1/groups", "GET /api/v1/groups/ops", "GET /api/v1/groups/ops"]
    );
}

#[test]
fn a_person_is_shown_with_groups_and_with_what_begins_later() {
    let user = json!({"name": "bob", "full_name": "", "mail": "", "state": "active", "created": 1,
        "keys": [], "groups": [{"group": "dba"}, {"group": "ops", "through": ["dba"]}],
        "grants": [{"id": 3, "group": "ops", "on": "*", "sudo": true, "reason": "", "created": 1},
                   {"id": 4, "user": "bob", "on": "db-1", "login": "bob", "sudo": false,
                    "terms": {"from": 1_796_148_000}, "reason": "", "created": 1}]});
    let answers = vec![Answer::Json(200, user.clone()), Answer::Json(200, json!([user]))];
    let backend = Backend::start(answers);
    let machine = Machine::new();
    let shown = machine.at(&backend.url, &["user", "show", "bob"]).stdout;
    assert!(shown.contains("groups     dba, ops (through dba)"), "{shown}");
    assert!(shown.contains("GROUP") && shown.contains("FROM (UTC)"), "{shown}");
    assert!(shown.contains("2026-12-01 18:00:00"), "{shown}");
    let list = machine.at(&backend.url, &["user", "ls"]).stdout;
    assert!(list.contains("* (group ops, sudo); db-1 (from 2026-12-01 18:00:00 UTC)"), "{list}");
    assert_eq!(backend.lines().len(), 2);
}
