//! The audit log: filters, following, exports, and verifying them.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};

use bastio_protocol::Status;
use bastio_protocol::api::AuditRow;
use bastio_protocol::audit::ChainedRow;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::backend::{Answer, Backend, nobody};
use crate::runner::{Machine, Run};

fn chain(rows: i64) -> Vec<ChainedRow> {
    let mut chain = Vec::<ChainedRow>::new();
    for id in 1..=rows {
        let row = AuditRow {
            id,
            at: 1_795_319_449 + id,
            actor: "key:admin".into(),
            from: Some("192.0.2.7".into()),
            action: "grant.add".into(),
            user: Some("alice".into()),
            server: None,
            detail: format!("=row {id}, \"said\""),
            reason: (id % 2 == 0).then(|| "on call".into()),
            status: (id % 3 == 0).then_some(Status::Failed),
        };
        let before = chain.last().map(ChainedRow::head);
        chain.push(ChainedRow::behind(before.as_ref(), row));
    }
    chain
}

fn answer(rows: &[ChainedRow]) -> Answer {
    Answer::Json(200, serde_json::to_value(rows).expect("JSON"))
}

/// A backend whose log is exported once: the head, and two pages.
fn exporting(rows: &[ChainedRow]) -> Backend {
    let (first, second) = rows.split_at(rows.len() / 2);
    Backend::start(vec![answer(&rows[rows.len() - 1..]), answer(first), answer(second)])
}

/// Exports a log of six rows into a file; its path, and the lines.
fn exported(machine: &Machine) -> (String, Vec<String>) {
    let backend = exporting(&chain(6));
    let path = machine.home.path().join("audit.jsonl").display().to_string();
    let run = machine.at(&backend.url, &["log", "export", "--file", &path]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""), "{run:?}");
    let head = chain(6)[5].head().to_string();
    assert!(run.stderr.contains(&format!("6 rows written to {path}; the log's head is {head}")));
    let lines = [
        "GET /api/v1/log?limit=1",
        "GET /api/v1/log?limit=1000&after=0",
        "GET /api/v1/log?limit=1000&after=3",
    ];
    assert_eq!(backend.lines(), lines);
    let text = std::fs::read_to_string(&path).expect("written");
    (path, text.lines().map(str::to_owned).collect())
}

fn verify(machine: &Machine, lines: &[String], more: &[&str]) -> Run {
    let path = machine.file("copy.jsonl", &(lines.join("\n") + "\n"));
    // No backend, no login.
    machine.run(&[], &[&["log", "verify", &path], more].concat(), "")
}

#[test]
fn filters_become_a_query() {
    let backend = Backend::start(vec![answer(&chain(2))]);
    let arguments = [
        "log",
        "--limit",
        "7",
        "--user",
        "alice",
        "--server",
        "web-1",
        "--actor",
        "agent:*",
        "--action",
        "grant.",
        "--since",
        "1970-01-02",
        "--until",
        "2026-12-01T18:00:00Z",
    ];
    let run = Machine::new().at(&backend.url, &arguments);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("=row 2, \"said\"; why: on call\n"), "{run:?}");
    assert_eq!(
        backend.lines(),
        ["GET /api/v1/log?limit=7&user=alice&server=web-1&actor=agent%3A%2A&action=grant.%2A\
          &since=86400&until=1796148000"]
    );
    for (option, value, reason) in [
        ("--limit", "1001", "1001 is not in 1..=1000"),
        ("--action", "a*b", "its beginning (grant.*)"),
        ("--since", "yesterday", "how long ago"),
    ] {
        let run = Machine::new().at(&nobody(), &["log", option, value]);
        assert!(run.code == Some(2) && run.stderr.contains(reason), "{run:?}");
    }
}

#[test]
fn head_is_one_word() {
    let rows = chain(3);
    let backend = Backend::start(vec![answer(&rows[2..]), answer(&rows[2..])]);
    let run = Machine::new().at(&backend.url, &["log", "head"]);
    assert_eq!((run.code, run.stdout), (Some(0), format!("{}\n", rows[2].head())));
    let run = Machine::new().at(&backend.url, &["log", "head", "--output", "json"]);
    let json: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(json, json!({"id": 3, "hash": rows[2].hash}));
    let mut old = serde_json::to_value(&rows[2..]).expect("JSON");
    old[0].as_object_mut().expect("a row").remove("hash");
    let backend = Backend::start(vec![Answer::Json(200, old)]);
    let run = Machine::new().at(&backend.url, &["log", "head"]);
    assert!(run.code == Some(2) && run.stderr.contains("update the backend"), "{run:?}");
}

#[test]
fn an_export_is_private_whole_and_intact() {
    let machine = Machine::new();
    let (path, lines) = exported(&machine);
    assert_eq!(lines.len(), 7);
    let mode = std::fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let run = machine.run(&[], &["log", "verify", &path], "");
    let expected = format!("intact: 6 rows, 1 to 6; the last one's hash is {}\n", chain(6)[5].hash);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), expected.as_str()), "{run:?}");
    let text = lines.join("\n");
    let run = machine.run(&[], &["log", "verify", "-", "--output", "json"], &text);
    let json: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(
        (&json["verdict"], &json["rows"], &json["complete"]),
        (&json!("intact"), &json!(6), &json!(true))
    );
}

#[test]
fn an_export_never_takes_the_place_of_another_file_unasked() {
    let machine = Machine::new();
    let path = machine.file("audit.jsonl", "mine");
    let run = machine.at(&nobody(), &["log", "export", "--file", &path]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("is there already") && run.stderr.contains("--force"), "{run:?}");
    assert_eq!(std::fs::read_to_string(&path).expect("there"), "mine");
    // One that fails half-way leaves nothing behind and the old file as it was.
    let rows = chain(4);
    let backend = Backend::start(vec![answer(&rows[3..]), answer(&rows[..2]), Answer::Hangup]);
    let run = machine.at(&backend.url, &["log", "export", "--file", &path, "--force"]);
    assert_eq!(run.code, Some(3), "{run:?}");
    assert_eq!(std::fs::read_to_string(&path).expect("there"), "mine");
    let left = std::fs::read_dir(machine.home.path()).expect("a folder").count();
    assert_eq!(left, 1, "no partial file is left");
    let backend = exporting(&rows);
    let run = machine.at(&backend.url, &["log", "export", "--file", &path, "--force"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let run = machine.run(&[], &["log", "verify", &path], "");
    assert_eq!(run.code, Some(0), "{run:?}");
}

#[test]
fn what_was_done_to_an_export_is_named() {
    let machine = Machine::new();
    let (_, lines) = exported(&machine);
    let tampered = |edit: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        edit(&mut lines);
        lines
    };
    for (lines, expected) in [
        (
            tampered(&|l| l[3] = l[3].replace("row 3", "row 4")),
            "row 3 was changed (seen at line 4)",
        ),
        (tampered(&|l| l[3] = l[3].replace('{', "[")), "row 3 was changed (seen at line 4)"),
        (tampered(&|l| drop(l.remove(3))), "row 3 was removed (seen at line 4)"),
        (tampered(&|l| l.truncate(5)), "rows 5 to 6 were removed (seen at line 5)"),
        (tampered(&|l| l.swap(2, 4)), "row 4 stands where row 2 should be (seen at line 3)"),
        (tampered(&|l| l.insert(2, l[5].clone())), "row 5 was put in here (seen at line 3)"),
        (tampered(&|l| l.insert(4, "{}".into())), "no row of a log (seen at line 5)"),
    ] {
        let run = verify(&machine, &lines, &[]);
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.stdout.starts_with("broken: ") && run.stdout.contains(expected), "{run:?}");
    }
    let run = verify(&machine, &tampered(&|l| drop(l.remove(3))), &["--output", "json"]);
    let json: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(
        (&json["fault"], &json["first"], &json["line"]),
        (&json!("removed"), &json!(3), &json!(4))
    );
}

#[test]
fn a_head_kept_elsewhere_tells_another_log() {
    let machine = Machine::new();
    let (_, lines) = exported(&machine);
    let good = chain(6)[3].head().to_string();
    let run = verify(&machine, &lines, &["--head", &good]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let other = format!("4:{}", "0".repeat(64));
    let run = verify(&machine, &lines, &["--head", &other]);
    assert!(run.code == Some(1) && run.stdout.contains("row 4 is not the one"), "{run:?}");
    let later = format!("9:{}", "0".repeat(64));
    let run = verify(&machine, &lines, &["--head", &later]);
    assert!(run.code == Some(1) && run.stdout.contains("rows 7 to 9 were removed"), "{run:?}");
}

#[test]
fn what_is_no_export_ends_with_2() {
    let machine = Machine::new();
    let row = serde_json::to_string(&chain(1)[0]).expect("JSON");
    let newer = r#"{"bastio_audit_export":2}"#.to_owned();
    for (text, reason) in [
        ("", "no JSON"),
        ("id,time\n", "no JSON"),
        (row.as_str(), "not the header"),
        ("[1]", "not the header"),
        (newer.as_str(), "version 2; update bastio"),
        (r#"{"bastio_audit_export":1}"#, "missing field"),
    ] {
        let run = verify(&machine, &[text.to_owned()], &[]);
        assert!(run.code == Some(2) && run.stderr.contains(reason), "{text} {run:?}");
        assert!(run.stderr.contains("bastio log export"), "{run:?}");
    }
    let run = machine.run(&[], &["log", "verify", "/no/such/file"], "");
    assert!(run.code == Some(2) && run.stderr.contains("cannot read"), "{run:?}");
}

#[test]
fn a_filtered_export_says_that_it_is_a_part() {
    let machine = Machine::new();
    let rows = chain(6);
    let part = [rows[1].clone(), rows[4].clone()];
    let backend = Backend::start(vec![answer(&rows[5..]), answer(&part), answer(&[])]);
    let arguments = ["log", "export", "--user", "alice"];
    let run = machine.at(&backend.url, &arguments);
    assert_eq!(run.code, Some(0), "{run:?}");
    let lines: Vec<String> = run.stdout.lines().map(str::to_owned).collect();
    assert!(lines[0].contains(r#""filters":{"user":"alice"}"#), "{}", lines[0]);
    let run = verify(&machine, &lines, &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("2 rows, 2 to 5") && run.stderr.contains("filtered"), "{run:?}");
    let mut changed = lines;
    changed[2] = changed[2].replace("on call", "x").replace("row 5", "row x");
    let run = verify(&machine, &changed, &[]);
    assert!(run.code == Some(1) && run.stdout.contains("row 5 was changed"), "{run:?}");
}

#[test]
fn csv_and_syslog() {
    let rows = chain(2);
    let run = |format: &str| {
        let backend = exporting(&rows);
        let run = Machine::new().at(&backend.url, &["log", "export", "--format", format]);
        assert_eq!(run.code, Some(0), "{run:?}");
        run.stdout
    };
    let csv = run("csv");
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert!(lines[0].starts_with("id,time,actor,from,action,"), "{csv}");
    assert!(lines[1].contains(",\"'=row 1, \"\"said\"\"\","), "{csv}");
    assert_eq!((lines.len(), lines[3]), (4, ""));
    let syslog = run("syslog");
    let first = "<109>1 2026-11-22T03:50:50Z 127.0.0.1 bastio - grant.add [bastio@32473 id=\"1\" ";
    assert!(syslog.starts_with(first), "{syslog}");
    assert_eq!(syslog.lines().count(), 2);
}

fn following(machine: &Machine, backend: &Backend, arguments: &[&str]) -> Child {
    let mut command = machine.command(env!("CARGO_BIN_EXE_bastio"), arguments);
    command.env("BASTIO_URL", &backend.url).env("BASTIO_TOKEN", "bst_env");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started")
}

#[test]
fn following_goes_on_until_it_is_ended() {
    let rows = chain(4);
    let backend = Backend::start(vec![
        answer(&rows[1..2]),
        answer(&rows[..2]),
        answer(&rows[2..3]),
        answer(&rows[3..]),
        Answer::Late(std::time::Duration::from_secs(2), json!([])),
    ]);
    let machine = Machine::new();
    let mut child = following(&machine, &backend, &["log", "-f", "--output", "json"]);
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    for row in &rows {
        let line = lines.next().expect("a line").expect("read");
        assert_eq!(serde_json::from_str::<ChainedRow>(&line).expect("JSON"), *row);
    }
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).expect("there");
    let output = child.wait_with_output().expect("ended");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "it ends without a word");
    assert!(!output.status.success());
}

#[test]
fn following_ends_when_nobody_reads() {
    let rows = chain(4);
    let nothing_new = json!([]);
    let backend = Backend::start(vec![
        answer(&rows[1..2]),
        answer(&rows[..2]),
        Answer::Late(std::time::Duration::from_millis(300), nothing_new),
    ]);
    let machine = Machine::new();
    let mut child = following(&machine, &backend, &["log", "--follow"]);
    let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("the header");
    assert!(line.starts_with("WHEN"), "{line}");
    drop(reader);
    let output = child.wait_with_output().expect("ended");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
