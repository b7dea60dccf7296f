//! kill -9 and failing system calls at every system call that touches the journal, in a fresh one and in one that is
//! about to be compacted. Afterwards no action is lost, none has come undone, and each has one answer.
//!
//! strace counts the calls of one kind that touch the journal's files, and fails or kills at the nth. A point is one such
//! run. `BASTIO_PROOF=full` tries all of them, otherwise some.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

const STATE: &str = "/var/lib/bastio-agent";
const KEYS: &str = "/home/alice/.ssh/authorized_keys";
/// Every kind of call that touches the journal, but for closing.
const CALLS: [&str; 14] = [
    "mkdir",
    "openat",
    "statx",
    "fchmod",
    "flock",
    "lseek",
    "read",
    "unlink",
    "pwrite64",
    "fdatasync",
    "rename",
    "fsync",
    "fallocate",
    "ftruncate",
];
/// More calls of one kind than any run makes.
const MOST_CALLS: usize = 100;
/// Every so manieth point is tried when not all are.
const STRIDE: usize = 2;

/// What the backend wants, in order: the last word on the key is that it is there.
fn actions() -> [Value; 4] {
    let action = |mid: &str, action: &str| json!({"type": "action", "mid": mid, "action": action, "username": "alice"});
    let with = |mut body: Value, member: &str, value: Value| {
        body[member] = value;
        body
    };
    [
        with(action("1", "add-key"), "public_key", KEY.into()),
        with(action("2", "remove-key"), "public_key", KEY.into()),
        with(action("3", "update-user"), "sudo", false.into()),
        with(action("4", "add-key"), "public_key", KEY.into()),
    ]
}

/// The body as the pipe wants it spelled: members in the order of the protocol, which `Value` does not keep.
fn spelled(action: &Value) -> String {
    let mut text = String::from("{");
    for member in ["type", "mid", "action", "username", "sudo", "public_key"] {
        if let Some(value) = action.get(member) {
            text.push_str(&format!("\"{member}\":{value},"));
        }
    }
    text.pop();
    text + "}"
}

fn mid(message: &Value) -> String {
    message["mid"].as_str().unwrap().to_owned()
}

/// What one run of a processor said.
#[derive(Debug, Default)]
struct Said {
    /// Answers of an earlier run, before the first word.
    left: Vec<Value>,
    /// Answers to this run's actions, by their id.
    answers: BTreeMap<String, Value>,
    /// Whether it lived to the end.
    alive: bool,
}

/// Runs a processor to its end: each action is sent when the one before was answered and delivered.
fn run(host: &Host, wrapper: &[&str], actions: &[Value]) -> Said {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(LIMIT)).unwrap();
    let words = [wrapper, &["/usr/bin/bastio-agent", "processor"]].concat();
    let command = host.command(words[0]).args(&words[1..]).stdin(OwnedFd::from(theirs));
    let processor = command.log_to("/var/log/processor.log").spawn().unwrap();
    let mut connector = Connector { socket: ours, processor };
    let mut said = Said::default();
    said.alive = (|| {
        loop {
            let word = connector.receive()?;
            if word["type"] == "ready" {
                break;
            }
            said.left.push(word);
        }
        let link = r#"{"type":"link","link":{"state":"connected","backend":"b:1","since":1}}"#;
        connector.socket.write_all(format!("{}:{link},", link.len()).as_bytes()).ok()?;
        for _ in &said.left {
            connector.socket.write_all(DELIVERED).ok()?;
        }
        for action in actions {
            let body = spelled(action);
            connector.socket.write_all(format!("{}:{body},", body.len()).as_bytes()).ok()?;
            let answer = connector.receive()?;
            if answer["type"] == "feedback" {
                connector.socket.write_all(DELIVERED).ok()?;
            }
            said.answers.insert(mid(action), answer);
        }
        // Wait until everything delivered was taken note of: the end of its last word.
        connector.socket.shutdown(std::net::Shutdown::Write).ok()?;
        connector.receive().is_none().then_some(())
    })()
    .is_some();
    drop(connector.socket);
    let ended = connector.processor.wait(Duration::from_secs(20)).unwrap();
    said.alive &= ended.success();
    said
}

struct Lab {
    host: Host,
    /// A journal that will be compacted when what is done next has been acknowledged.
    full: Option<Vec<u8>>,
}

impl Lab {
    fn start(world: &World, full: bool) -> Self {
        let host = server(world, "web-1").without_sshd().start().unwrap();
        let mut connector = Connector::start(&host);
        connector.add_user("alice", false);
        connector.finish();
        let full = full.then(|| fill(&host));
        Self { host, full }
    }

    fn reset(&self) {
        let script =
            format!("rm -rf {STATE} /home/alice/.ssh /var/log/processor.log /run/strace.log");
        self.host.exec(&["sh", "-c", &script]).unwrap();
        if let Some(bytes) = &self.full {
            self.host.exec(&["install", "-d", "-m", "700", STATE]).unwrap();
            self.host.write_file(format!("{STATE}/journal"), bytes).unwrap();
        }
    }

    fn log(&self) -> String {
        String::from_utf8(self.host.read_file("/var/log/processor.log").unwrap()).unwrap()
    }

    fn has_key(&self) -> bool {
        let there = self.host.exists(KEYS).unwrap();
        let text = if there { self.host.read_file(KEYS).unwrap() } else { Vec::new() };
        let count = String::from_utf8(text).unwrap().matches(KEY).count();
        assert!(count <= 1, "the key is there {count} times");
        count == 1
    }

    /// One point: a run with a fault at the nth call, then what a backend and `start` do after it. False when the run
    /// has fewer calls.
    fn try_point(&self, calls: &str, fault: &str) -> bool {
        self.reset();
        let inject = format!("inject={calls}:{fault}");
        let [folder, file, aside] =
            ["", "/journal", "/journal.new"].map(|it| format!("{STATE}{it}"));
        let wrapper = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/run/strace.log",
            "-P",
            &folder,
            "-P",
            &file,
            "-P",
            &aside,
            "-e",
            &inject,
        ];
        let first = run(&self.host, &wrapper, &actions());
        let strace = String::from_utf8(self.host.read_file("/run/strace.log").unwrap()).unwrap();
        let was_hit = strace.contains("(INJECTED)") || strace.contains("killed by SIGKILL");
        if was_hit {
            self.check_after(&first, &format!("{inject}\n{strace}"));
        }
        was_hit
    }

    fn check_after(&self, first: &Said, step: &str) {
        let unanswered: Vec<Value> = actions()
            .into_iter()
            .filter(|action| !first.answers.contains_key(&mid(action)))
            .collect();
        let second = run(&self.host, &[], &unanswered);
        let step = format!("{step}\n{first:#?}\n{second:#?}\n{}", self.log());
        assert!(second.alive, "{step}");
        let mut answers = first.answers.clone();
        for left in &second.left {
            // What was perhaps not delivered comes again, and says the same.
            let before = answers.insert(mid(left), left.clone());
            assert!(before.is_none_or(|before| before == *left), "{step}");
        }
        for (mid, answer) in &second.answers {
            let has_come = answers.contains_key(mid);
            assert_eq!(answer["type"] == "answered", has_come, "one answer each: {step}");
            answers.entry(mid.clone()).or_insert(answer.clone());
        }
        let succeeded = |mid: &str| {
            let answer = &answers[mid];
            match answer["status"].as_u64().unwrap() {
                200 | 300 => true,
                _ => {
                    let text = answer["feedback"].as_str().unwrap();
                    assert!(text.starts_with("cannot keep the journal: "), "{step}");
                    false
                }
            }
        };
        assert_eq!(answers.len(), actions().len(), "an action is lost: {step}");
        assert!(succeeded("2") && succeeded("3"), "closing access must not fail: {step}");
        assert_eq!(self.has_key(), succeeded("4"), "{step}");
        let names = self.host.exec(&["ls", STATE]).unwrap().stdout;
        assert!(!names.contains("damaged"), "{names} {step}");
        // Nothing is done twice, but for the one that was cut short.
        let log = self.log();
        let done = log.lines().filter(|line| line.contains("action done")).count();
        let wanted = ["1", "2", "3", "4"].iter().filter(|mid| succeeded(mid)).count();
        assert!(
            done == wanted || (done == wanted + 1 && log.contains("cut short")),
            "{done}: {step}"
        );
        let third = run(&self.host, &[], &[]);
        assert!(third.alive && third.left.is_empty(), "{third:?} {step}");
    }

    /// Each kind of call by itself, or (for what does not go away again) all from their nth on.
    fn try_every_call(&self, name: &str, fault: &str, from_then_on: bool) {
        let full = std::env::var("BASTIO_PROOF").is_ok_and(|value| value == "full");
        let step = if full { 1 } else { STRIDE };
        let all = [CALLS.join(",")];
        let each = CALLS.map(str::to_owned);
        let (kinds, and_more) = if from_then_on { (&all[..], "+") } else { (&each[..], "") };
        let mut points = 0;
        for calls in kinds {
            let hits = (1..=MOST_CALLS)
                .step_by(step)
                .take_while(|nth| self.try_point(calls, &format!("{fault}:when={nth}{and_more}")));
            points += hits.count();
        }
        eprintln!(
            "PROOF | journal: {name} | {points} | points{}",
            if full { "" } else { " (BASTIO_PROOF=full tries all)" }
        );
        assert!(points * step >= 10, "{points} points");
    }
}

/// A journal of almost 256 KiB, all of it acknowledged.
fn fill(host: &Host) -> Vec<u8> {
    let mut connector = Connector::start(host);
    let comment = "x".repeat(900);
    let size =
        || host.within(|| std::fs::metadata(format!("{STATE}/journal")).unwrap().len()).unwrap();
    let mut number = 0;
    while size() < 256 * 1024 - 1400 {
        let rest = format!(r#","public_key":"{KEY} {comment}""#);
        connector.ask("remove-key", &format!("user{number}"), &rest);
        number += 1;
    }
    connector.finish();
    let bytes = host.read_file(format!("{STATE}/journal")).unwrap();
    assert!(bytes.len() > 256 * 1024 - 1500 && bytes.len() < 256 * 1024, "{}", bytes.len());
    bytes
}

fn prove(name: &str, full: bool, fault: &str, from_then_on: bool) {
    let world = World::new().unwrap();
    Lab::start(&world, full).try_every_call(name, fault, from_then_on);
}

#[test]
fn kill_9_at_every_call_of_a_new_journal() {
    require_root!();
    prove("kill -9, new journal", false, "signal=SIGKILL", false);
}

#[test]
fn kill_9_at_every_call_of_a_journal_that_is_compacted() {
    require_root!();
    prove("kill -9, compaction", true, "signal=SIGKILL", false);
}

#[test]
fn a_full_disk_at_every_call_of_a_new_journal() {
    require_root!();
    prove("ENOSPC once, new journal", false, "error=ENOSPC", false);
}

#[test]
fn a_full_disk_at_every_call_of_a_journal_that_is_compacted() {
    require_root!();
    prove("ENOSPC once, compaction", true, "error=ENOSPC", false);
}

#[test]
fn a_disk_that_fails_at_every_call_of_a_new_journal() {
    require_root!();
    prove("EIO once, new journal", false, "error=EIO", false);
}

#[test]
fn a_disk_that_fails_at_every_call_of_a_journal_that_is_compacted() {
    require_root!();
    prove("EIO once, compaction", true, "error=EIO", false);
}

#[test]
fn a_disk_that_is_full_from_any_call_on() {
    require_root!();
    prove("ENOSPC from then on", true, "error=ENOSPC", true);
}

#[test]
fn a_disk_that_fails_from_any_call_on() {
    require_root!();
    prove("EIO from then on", true, "error=EIO", true);
}

#[test]
fn a_read_only_state_folder_refuses_what_opens_access_and_nothing_else() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("alice", true);
    connector.add_key("alice", KEY);
    drop(connector);
    host.exec(&["mount", "-t", "tmpfs", "-o", "ro,mode=700", "tmpfs", STATE]).unwrap();
    let mut connector = Connector::start(&host);
    let refused = format!(
        "cannot keep the journal: cannot make {STATE}/journal.new: Read-only file system (os error 30); make it \
         writable (mount -o remount,rw) and try again; nothing was done"
    );
    expect(connector.add_user("bob", false), 500, &refused);
    expect(connector.update_user("alice", true), 500, &refused);
    expect(connector.remove_key("alice", KEY), 200, "removed public key from alice successfully");
    let text = "alice was removed from the sudo group successfully";
    expect(connector.update_user("alice", false), 200, text);
    expect(connector.remove_user("alice"), 200, "alice was removed successfully");
    assert_eq!(line(&host, "/etc/passwd", "bob"), None);
    // What the hint says helps, and the same processor goes on.
    host.exec(&["mount", "-o", "remount,rw", STATE]).unwrap();
    expect(connector.add_user("bob", false), 200, "bob was created successfully");
}
