//! What is different where a person sits: questions, the live line, colours, the hidden token.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};

use crate::backend::{Answer, Backend, change, status};
use crate::runner::Machine;

const BASTIO: &str = env!("CARGO_BIN_EXE_bastio");

/// When to type.
enum Typing<'a> {
    Nothing,
    /// As soon as this is shown.
    After(&'a str, &'a str),
    /// As soon as this is shown and typed text is not shown any more.
    Hidden(&'a str, &'a str),
}

/// Runs a command on a terminal of its own; exit code and all that was shown. With
/// `quiet_stdout`, stdout is no terminal.
fn on_terminal(mut command: Command, typing: &Typing, quiet_stdout: bool) -> (Option<i32>, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("granted");
    unlockpt(&master).expect("unlocked");
    let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
    let side = || {
        let file = OpenOptions::new().read(true).write(true).open(&name).expect("its other side");
        Stdio::from(file)
    };
    let stdout = if quiet_stdout { Stdio::null() } else { side() };
    let mut child = command.stdin(side()).stdout(stdout).stderr(side()).spawn().expect("started");
    // The command holds copies of the other side; reading ends once all of them are closed.
    drop(command);
    let shown = converse(File::from(master), typing);
    (child.wait().expect("ended").code(), shown)
}

/// Reads all that is shown, and types when it is time to.
fn converse(mut master: File, typing: &Typing) -> String {
    let mut shown = String::new();
    let mut typed = false;
    let mut buffer = [0; 4096];
    // Reading fails with EIO once nobody holds the other side (pty(7)).
    while let Ok(read @ 1..) = master.read(&mut buffer) {
        let bytes = buffer.get(..read).expect("read that much");
        shown.push_str(std::str::from_utf8(bytes).expect("UTF-8"));
        let text = match typing {
            Typing::After(prompt, text) if !typed && shown.contains(prompt) => text,
            Typing::Hidden(prompt, text) if !typed && shown.contains(prompt) => {
                while echoes(&master) {
                    thread::sleep(Duration::from_millis(5));
                }
                text
            }
            Typing::Nothing | Typing::After(..) | Typing::Hidden(..) => continue,
        };
        master.write_all(text.as_bytes()).expect("typed");
        typed = true;
    }
    shown
}

fn echoes(terminal: &File) -> bool {
    tcgetattr(terminal).expect("a terminal").local_modes.contains(LocalModes::ECHO)
}

fn person() -> Value {
    let grant = |id: u32, on: &str| {
        json!({"id": id, "user": "alice", "on": on, "login": "alice", "sudo": false,
               "reason": "", "created": 1})
    };
    json!({"name": "alice", "full_name": "", "mail": "", "created": 1, "keys": [],
           "grants": [grant(1, "role=web"), grant(2, "web-1,web-2")]})
}

fn servers() -> Value {
    let server = |name: &str, role: &str| {
        json!({"name": name, "labels": {"role": role}, "presence": "connected", "last_seen": null,
               "address": null, "agent": null, "fingerprint": "SHA256:x", "created": 1,
               "pending": 0, "failed": 0})
    };
    json!([server("web-1", "web"), server("web-2", "x"), server("db-1", "db")])
}

fn bastio(machine: &Machine, url: &str, arguments: &[&str]) -> Command {
    let mut command = machine.command(BASTIO, arguments);
    command.env("BASTIO_URL", url).env("BASTIO_TOKEN", "bst_env").env("TERM", "xterm");
    command
}

#[test]
fn removing_a_person_asks_first_and_only_yes_is_yes() {
    let machine = Machine::new();
    for (typed, yes) in
        [("y\n", true), ("YES\n", true), ("\n", false), ("n\n", false), ("\x04", false)]
    {
        let mut answers = vec![Answer::Json(200, person()), Answer::Json(200, servers())];
        if yes {
            answers.push(Answer::Json(200, change(1, true, &[])));
        }
        let backend = Backend::start(answers);
        let command = bastio(&machine, &backend.url, &["user", "rm", "alice"]);
        let (code, shown) = on_terminal(command, &Typing::After("[y/N] ", typed), false);
        assert_eq!(code, Some(i32::from(!yes)), "{typed:?} {shown}");
        assert!(shown.contains("Remove alice from 2 servers? [y/N] "), "{shown}");
        assert_eq!(shown.contains("nothing was removed"), !yes, "{shown}");
        let removed = backend.lines().contains(&"DELETE /api/v1/users/alice".to_owned());
        assert_eq!(removed, yes, "{typed:?}");
    }
}

#[test]
fn yes_is_not_asked_again() {
    let machine = Machine::new();
    for arguments in [["user", "rm", "alice", "--yes"], ["server", "rm", "web-1", "-y"]] {
        let backend = Backend::start(vec![Answer::Json(200, change(1, true, &[]))]);
        let (code, shown) =
            on_terminal(bastio(&machine, &backend.url, &arguments), &Typing::Nothing, false);
        assert_eq!(code, Some(0), "{shown}");
        assert!(!shown.contains("[y/N]"), "{shown}");
        assert_eq!(backend.lines().len(), 1);
    }
}

#[test]
fn removing_a_server_asks_first() {
    let machine = Machine::new();
    // Refused by the person: the backend is not even asked.
    let command = bastio(&machine, "http://127.0.0.1:1", &["server", "rm", "web-1"]);
    let (code, shown) = on_terminal(command, &Typing::After("[y/N] ", "\n"), false);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("Remove the server web-1? [y/N] "), "{shown}");
    let (before, _) = shown.split_once("Remove the server").expect("a question");
    assert!(before.contains("accounts and keys stay on the host"), "{shown}");
    assert!(before.contains("bastio grant rm"), "{shown}");
}

#[test]
fn the_live_line_is_drawn_at_each_step_and_taken_away() {
    let machine = Machine::new();
    let steps = || {
        let step = |progress, complete, one, two| {
            let servers: &[(&str, &str, &[&str])] =
                &[("web-1", "connected", &[one]), ("web-2", "connected", &[two])];
            Answer::Json(200, change(progress, complete, servers))
        };
        let first = step(1, false, "sent", "sent");
        vec![first, step(2, false, "sent", "done"), step(3, true, "done", "done")]
    };
    let backend = Backend::start(steps());
    let arguments = ["grant", "add", "alice", "--on", "role=web"];
    let (code, shown) =
        on_terminal(bastio(&machine, &backend.url, &arguments), &Typing::Nothing, true);
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(
        shown,
        "\r\x1b[2K0 of 2 servers answered (0 of 2 actions); waiting for web-1, web-2\
         \r\x1b[2K1 of 2 servers answered (1 of 2 actions); waiting for web-1\
         \r\x1b[2Kalice was added (revision 7)\r\n"
    );
    assert_eq!(backend.lines().len(), 3);
}

#[test]
fn colours_show_on_terminals_unless_unwanted() {
    let machine = Machine::new();
    let answer = || change(1, true, &[("web-1", "connected", &["done"])]);
    for (name, value, coloured) in [
        ("TERM", "xterm", true),
        ("NO_COLOR", "", true),
        ("NO_COLOR", "1", false),
        ("TERM", "dumb", false),
    ] {
        let backend = Backend::start(vec![Answer::Json(200, answer())]);
        let mut command = bastio(&machine, &backend.url, &["server", "sync", "web-1"]);
        command.env(name, value);
        let (code, shown) = on_terminal(command, &Typing::Nothing, false);
        assert_eq!(code, Some(0), "{shown}");
        assert_eq!(shown.contains("\x1b[32mdone\x1b[0m"), coloured, "{name}={value} {shown}");
        drop(backend);
    }
}

#[test]
fn the_token_is_asked_for_without_being_shown() {
    let machine = Machine::new();
    let backend = Backend::start(vec![Answer::Json(200, status())]);
    // setsid(1) makes the terminal the controlling one, which /dev/tty names.
    let arguments = ["--wait", "--ctty", BASTIO, "login", &backend.url];
    let mut command = machine.command("setsid", &arguments);
    command.env("PATH", "/usr/bin:/bin").env("TERM", "xterm");
    let (code, shown) = on_terminal(command, &Typing::Hidden("Token for ", "bst_typed\n"), false);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains(&format!("Token for {}: ", backend.url)), "{shown}");
    assert!(!shown.contains("bst_typed"), "{shown}");
    let seen = backend.requests().pop().expect("a request");
    assert_eq!(seen.authorization, "Bearer bst_typed");
}
