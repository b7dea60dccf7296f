//! Changes of the account that is never locked out stand only when a new connection to the backend comes after them; else
//! what was before comes back, byte for byte, also after a crash. This side plays the connector.

use std::time::Instant;

use serde_json::Value;

use super::*;

const KEYS: &str = "/home/admin/.ssh/authorized_keys";
const OTHER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4e";
/// How long a confirmation may take, in seconds: the least that can be set.
const WITHIN: u64 = 5;

fn start(host: &Host) -> Connector {
    let within = WITHIN.to_string();
    Connector::start_with(host, &[("BREAK_GLASS", "admin"), ("CONFIRM_WITHIN", &within)])
}

/// The next word of this kind.
#[track_caller]
pub(super) fn word(connector: &mut Connector, kind: &str) -> Value {
    loop {
        let word = connector.next_word().expect(kind);
        if word["type"] == kind {
            return word;
        }
    }
}

pub(super) fn link_up(connector: &mut Connector) {
    let body = r#"{"type":"link","link":{"state":"connected","backend":"b:1","since":1}}"#;
    connector.socket.write_all(format!("{}:{body},", body.len()).as_bytes()).unwrap();
}

/// A server with admin, who has sudo rights, a key of ours and a line of his own, all of it confirmed.
fn site(host: &Host) -> Connector {
    let mut connector = start(host);
    expect(connector.add_user("admin", true), 200, "admin was created successfully");
    host.write_file(KEYS, "# a line of his own \\\n").unwrap();
    expect(connector.add_key("admin", KEY), 200, "added public key to admin successfully");
    word(&mut connector, "reconnect");
    link_up(&mut connector);
    // It was heard when the next answer comes.
    connector.remove_user("nobody-there");
    connector
}

/// Everything that decides who comes in as admin and what he may do: the key file, its owner and
/// mode, the databases.
type Access = (Vec<u8>, (u32, u32, u32), Vec<Vec<u8>>);

fn access(host: &Host) -> Access {
    (host.read_file(KEYS).unwrap(), owner_and_mode(host, KEYS), databases(host))
}

#[track_caller]
fn wait_for(host: &Host, what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        let log = String::from_utf8(host.read_file("/var/log/processor.log").unwrap()).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(WITHIN + 20), "{what}\n{log}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Both ways to lock admin out: another key in place of his, and no sudo rights.
fn change(connector: &mut Connector) {
    expect(connector.add_key("admin", OTHER), 200, "added public key to admin successfully");
    expect(connector.remove_key("admin", KEY), 200, "removed public key from admin successfully");
    let text = "admin was removed from the sudo group successfully";
    expect(connector.update_user("admin", false), 200, text);
}

#[test]
fn what_is_confirmed_stays() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = site(&host);
    change(&mut connector);
    word(&mut connector, "reconnect");
    link_up(&mut connector);
    let changed = access(&host);
    std::thread::sleep(Duration::from_secs(WITHIN + 1));
    assert_eq!(access(&host), changed);
    connector.finish();
}

#[test]
fn what_is_not_confirmed_comes_back_byte_for_byte_and_is_told() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = site(&host);
    let before = access(&host);
    let begun = Instant::now();
    change(&mut connector);
    assert_ne!(access(&host), before);
    wait_for(&host, "the old access", || access(&host) == before);
    let waited = begun.elapsed();
    eprintln!("rolled back after {} ms", waited.as_millis());
    assert!(waited >= Duration::from_secs(WITHIN), "{waited:?}");
    link_up(&mut connector);
    let text =
        "keys and sudo rights of admin: rolled back, since no new connection came within 5 s";
    while !word(&mut connector, "drift").to_string().contains(text) {}
    // Nothing but admin's own access is guarded.
    expect(connector.add_user("bob", false), 200, "bob was created successfully");
    connector.finish();
}

#[test]
fn a_crash_in_between_changes_nothing_about_that() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = site(&host);
    let before = access(&host);
    // Started again when the time is over, and before.
    for pause in [WITHIN + 1, 0] {
        change(&mut connector);
        connector.processor.kill().unwrap();
        assert_ne!(access(&host), before);
        std::thread::sleep(Duration::from_secs(pause));
        connector = start(&host);
        if pause > 0 {
            assert_eq!(access(&host), before, "before the first word");
        }
        wait_for(&host, "the old access", || access(&host) == before);
    }
    connector.finish();
}

/// The tool has made its change when the crash comes, and nothing says yet that the action is done.
#[test]
fn what_is_done_again_after_a_crash_must_be_confirmed_again() {
    require_root!();
    let world = World::new().unwrap();
    for pause in [0, WITHIN + 1] {
        let host = server(&world, &format!("web-{pause}")).without_sshd().start().unwrap();
        let connector = site(&host);
        let before = access(&host);
        let gpasswd = host.exec(&["sh", "-c", "command -v gpasswd"]).unwrap().stdout;
        let gpasswd = gpasswd.trim();
        let script = format!(
            "#!/bin/sh\n{gpasswd}.real \"$@\"\nmv {gpasswd}.real {gpasswd}\n: > /run/made\nexec sleep 60\n"
        );
        host.exec(&["mv", gpasswd, &format!("{gpasswd}.real")]).unwrap();
        host.write_file(gpasswd, script).unwrap();
        host.exec(&["chmod", "755", gpasswd]).unwrap();
        let Connector { mut socket, mut processor } = connector;
        let body = r#"{"type":"action","mid":"77","action":"update-user","username":"admin","sudo":false}"#;
        socket.write_all(format!("{}:{body},", body.len()).as_bytes()).unwrap();
        wait_for(&host, "the change is made", || host.exists("/run/made").unwrap());
        assert_ne!(access(&host), before);
        processor.kill().unwrap();
        std::thread::sleep(Duration::from_secs(pause));
        let within = WITHIN.to_string();
        let settings = [("BREAK_GLASS", "admin"), ("CONFIRM_WITHIN", within.as_str())];
        let (_connector, answers) = Connector::start_and_take(&host, &settings);
        let answer = answers.iter().find(|word| word["mid"] == "77").expect("its answer");
        if pause == 0 {
            assert_ne!(access(&host), before, "done again: {answer}");
        } else {
            assert_eq!(answer["status"], 500, "{answer}");
            assert!(answer["feedback"].as_str().unwrap().contains("was rolled back"), "{answer}");
        }
        wait_for(&host, "the old access", || access(&host) == before);
    }
}
