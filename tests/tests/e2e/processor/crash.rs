//! kill -9 and failing system calls at every step of writing a key file: what is there afterwards is the whole old
//! file or the whole new one, and the next attempt succeeds.

use super::*;

const SSH: &str = "/home/alice/.ssh";
const FILE: &str = "/home/alice/.ssh/authorized_keys";

/// The steps in which a key file is written.
const CALLS: [&str; 9] = [
    "mkdirat",
    "openat2",
    "write",
    "fchown",
    "fchmod",
    "fsync",
    "renameat",
    "unlinkat",
    "newfstatat",
];
/// The least points of a run.
const PROMISED: usize = 20;
/// More calls of one kind than a processor makes for one action.
const MOST_CALLS: usize = 40;

/// One run of a processor in which the `nth` call fails or kills. Its answer, if there was one.
fn add_key_with(host: &Host, call: &str, fault: &str, nth: usize) -> (Option<(u64, String)>, bool) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(LIMIT)).unwrap();
    // Its own journal, each time anew: the other processor keeps the usual one.
    host.exec(&["rm", "-rf", "/var/lib/second"]).unwrap();
    let inject = format!("inject={call}:{fault}:when={nth}");
    let processor = host
        .command("strace")
        .args(["-f", "-qq", "-o", "/run/strace.log", "-e", &format!("trace={call}"), "-e", &inject])
        .args(["/usr/bin/bastio-agent", "processor"])
        .env("BASTIO_AGENT_STATE", "/var/lib/second")
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    let mut connector = Connector { socket: ours, processor };
    let body = format!(
        r#"{{"type":"action","mid":"m","action":"add-key","username":"alice","public_key":"{KEY}"}}"#
    );
    // It may be dead already.
    let _ = connector.socket.write_all(format!("{}:{body},", body.len()).as_bytes());
    let first = connector.receive().filter(|message| message["type"] == "ready");
    let answer = first.and_then(|_| connector.receive()).map(|message| {
        (message["status"].as_u64().unwrap(), message["feedback"].as_str().unwrap().to_owned())
    });
    drop(connector.socket);
    connector.processor.wait(Duration::from_secs(20)).unwrap();
    let log = String::from_utf8(host.read_file("/run/strace.log").unwrap()).unwrap();
    (answer, log.contains("(INJECTED)") || log.contains("killed by SIGKILL"))
}

/// Tries each call of each kind, from a home with and without key files.
fn try_every_step(fault: &str) {
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("alice", false);
    let old = b"# the old file\nssh-rsa foreign line".to_vec();
    let new = format!("# the old file\nssh-rsa foreign line\n{KEY} bastio:managed\n").into_bytes();
    let fresh = format!("{KEY} bastio:managed\n").into_bytes();
    let mut faults = 0;
    for call in CALLS {
        for nth in 1..=MOST_CALLS {
            let mut hit = false;
            for with_file in [true, false] {
                host.exec(&["rm", "-rf", SSH]).unwrap();
                if with_file {
                    host.exec(&["install", "-d", "-o", "alice", "-g", "alice", "-m", "700", SSH])
                        .unwrap();
                    host.write_file(FILE, &old).unwrap();
                    host.exec(&["chown", "alice:alice", FILE]).unwrap();
                }
                let (answer, was_hit) = add_key_with(&host, call, fault, nth);
                let step = format!("{call} {nth} {fault}, file: {with_file}, answer: {answer:?}");
                let found = host.exists(FILE).unwrap().then(|| host.read_file(FILE).unwrap());
                let (before, after) = if with_file { (Some(&old), &new) } else { (None, &fresh) };
                assert!(
                    found.as_ref() == before || found.as_ref() == Some(after),
                    "{step}: {found:?}"
                );
                if matches!(answer, Some((200, _))) {
                    assert_eq!(found.as_ref(), Some(after), "{step}");
                }
                assert!(answer.is_some() || was_hit, "{step}");
                // The next attempt succeeds and leaves nothing behind.
                let (status, text) = connector.add_key("alice", KEY);
                assert!(status == 200 || status == 300, "{step}: {text}");
                assert_eq!(&host.read_file(FILE).unwrap(), after, "{step}");
                if status == 200 {
                    assert_eq!(
                        host.exec(&["ls", "-A", SSH]).unwrap().stdout,
                        "authorized_keys\n",
                        "{step}"
                    );
                }
                hit |= was_hit;
                faults += usize::from(was_hit);
            }
            if !hit {
                break;
            }
        }
    }
    eprintln!("PROOF | key file: {fault} | {faults} | points");
    assert!(faults >= PROMISED, "{faults} points of {PROMISED} that were promised");
}

#[test]
fn kill_9_at_every_step_of_a_write_tears_nothing() {
    require_root!();
    try_every_step("signal=SIGKILL");
}

#[test]
fn a_full_disk_at_every_step_of_a_write_tears_nothing() {
    require_root!();
    try_every_step("error=ENOSPC");
}
