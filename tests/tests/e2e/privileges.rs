//! What the agent's two processes may do and hold while they serve, as the kernel tells; and where secrets are not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bastio_tests::{Host, SshKey, World, fleet, require_root};
use nix::unistd::Pid;

use crate::faults::{Server, Site};

/// A server whose agent has done some work and is idle now.
fn served<'w>(world: &'w World, site: &Site<'w>) -> Server {
    let server = site.enrol(site.host("web-1").without_sshd());
    let key = SshKey::generate(world, "alice", &["ed25519"]).unwrap();
    let file = key.public_file().display().to_string();
    site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1", "--sudo"]);
    server
}

/// A line of `/proc/PID/status`, without its name.
fn status(pid: Pid, name: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

/// What the open file handles of a process are.
fn handles(pid: Pid) -> Vec<String> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let target =
        |entry: std::io::Result<fs::DirEntry>| fs::read_link(entry.unwrap().path()).unwrap();
    folder.map(|entry| target(entry).display().to_string()).collect()
}

/// The sockets of a process by kind, as its network namespace knows them.
fn sockets(pid: Pid) -> Vec<&'static str> {
    let kinds =
        ["tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "icmp6", "unix", "packet", "netlink"];
    let handles = handles(pid);
    // Duplicates of one handle are one socket.
    let inodes: BTreeSet<&str> = handles
        .iter()
        .filter_map(|handle| handle.strip_prefix("socket:[")?.strip_suffix(']'))
        .collect();
    let kind_of = |inode: &str| {
        let lists = |kind: &&&str| {
            let table = fs::read_to_string(format!("/proc/{pid}/net/{kind}")).unwrap_or_default();
            table.lines().any(|line| line.split_whitespace().any(|word| word == inode))
        };
        kinds.iter().find(lists).copied().unwrap_or("unknown")
    };
    inodes.into_iter().map(kind_of).collect()
}

fn threads(pid: Pid) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap();
    tasks.map(|task| name(task.unwrap()).trim().to_owned()).collect()
}

#[test]
fn the_processor_is_root_with_one_socket_and_no_runtime() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let server = served(&world, &site);
    let processor = server.agent.pid();
    assert_eq!(status(processor, "Uid"), ["0"; 4]);
    assert_eq!(sockets(processor), ["unix"], "{:?}", handles(processor));
    let names =
        ["bastio-agent", "drift", "egress", "ingress", "signals", "sweeper"].map(str::to_owned);
    assert_eq!(threads(processor), BTreeSet::from(names));
    assert_eq!(status(processor, "Threads"), ["6"]);
    let handles = handles(processor);
    assert!(
        !handles.iter().any(|it| it.contains("eventpoll") || it.contains("io_uring")),
        "{handles:?}"
    );
    assert!(!handles.iter().any(|it| it.contains("agent.key")), "{handles:?}");
}

#[test]
fn the_connector_has_no_rights_and_cannot_get_any() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let server = served(&world, &site);
    let connector = server.connector();
    let id =
        |what: &str| server.host.exec(&["id", what, "bastio"]).unwrap().stdout.trim().to_owned();
    assert_eq!(status(connector, "Uid"), [id("-u"), id("-u"), id("-u"), id("-u")]);
    assert_eq!(status(connector, "Gid"), [id("-g"), id("-g"), id("-g"), id("-g")]);
    assert_ne!(id("-u"), "0");
    assert_ne!(id("-g"), "0");
    assert_eq!(status(connector, "Groups"), [""; 0]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(connector, set), ["0000000000000000"], "{set}");
    }
    assert_eq!(status(connector, "NoNewPrivs"), ["1"]);
    // The line to the backend, the pipe to the processor, and nothing that listens.
    let mut kinds = sockets(connector);
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, ["tcp", "unix"]);
    let listening = fs::read_to_string(format!("/proc/{connector}/net/tcp")).unwrap();
    assert!(
        !listening.lines().any(|line| line.split_whitespace().nth(3) == Some("0A")),
        "{listening}"
    );
}

#[test]
fn the_connector_cannot_read_the_agents_key_again() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let server = served(&world, &site);
    let connector = server.connector();
    let open = handles(connector);
    assert!(!open.iter().any(|it| it.contains("/etc/bastio")), "{open:?}");
    let receipts = "/var/lib/bastio-agent/receipt_key";
    assert!(!server.host.read_file(receipts).unwrap().is_empty());
    for file in ["/etc/bastio/agent.key", "/etc/bastio/agent.toml", receipts, "/etc/shadow"] {
        let words = ["setpriv", "--reuid=bastio", "--regid=bastio", "--clear-groups", "cat", file];
        let refused = server.host.try_exec(&words).unwrap();
        assert!(refused.stderr.contains("Permission denied"), "{file}: {}", refused.stderr);
        assert_eq!(refused.stdout, "", "{file}");
    }
    // Nor can another process of that account look into it.
    let pid = status(connector, "NSpid").pop().unwrap();
    let memory = format!("/proc/{pid}/mem");
    let words = ["setpriv", "--reuid=bastio", "--regid=bastio", "--clear-groups", "cat", &memory];
    assert!(server.host.try_exec(&words).unwrap().stderr.contains("Permission denied"));
}

/// The secrets of a site: the API key, the administrator's token, and the agent's private key, line by line.
fn secrets(site: &Site<'_>, host: &Host) -> Vec<String> {
    let key = String::from_utf8(host.read_file("/etc/bastio/agent.key").unwrap()).unwrap();
    // The first line of the body holds the key's type and nothing secret.
    let body = key.lines().filter(|line| !line.starts_with("-----")).skip(1).map(str::to_owned);
    let mut secrets = vec![site.key.secret.clone(), site.backend.token().to_owned()];
    secrets.extend(body.filter(|line| line.len() > 20));
    assert!(secrets.len() > 3, "a key has more lines");
    secrets
}

fn holds(bytes: &[u8], secrets: &[String]) -> bool {
    let holds = |secret: &String| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
    secrets.iter().any(holds)
}

#[test]
fn secrets_are_in_no_argument_no_environment_and_no_log() {
    require_root!();
    let world = World::new().unwrap();
    let mut site = Site::start(&world);
    let host = site.host("web-1").without_sshd().start().unwrap();
    fleet::prepare_agent(&host).unwrap();
    // Everything that is ever run, with its arguments and its environment; the enrolment reads its API key as input.
    let traced = ["-f", "-qq", "-v", "-s", "100000", "-e", "trace=execve", "-o"];
    let strace = |log: &str| host.command("strace").args(traced).arg(log);
    let agent = ["bastio-agent", "--log", "trace"];
    let enrol = ["enroll", "--name", "web-1", "--backend", &site.key.backend];
    let pin = ["--host-key", &site.key.host_key, "--api-key-file", "-"];
    let enrolled = strace("/root/enrol").args(agent).args(enrol).args(pin);
    let enrolled = enrolled.input(site.key.secret.as_bytes()).check().unwrap();
    let log = "/root/agent.log";
    let start =
        strace("/root/start").args(agent).arg("start").env("BASTIO_API_KEY", &site.key.secret);
    let mut agent = start.log_to(log).spawn_ready(std::time::Duration::from_secs(40)).unwrap();
    site.backend.wait_connected(1, std::time::Duration::from_secs(40)).unwrap();
    let key = SshKey::generate(&world, "alice", &["ed25519"]).unwrap();
    let file = key.public_file().display().to_string();
    let added = site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1", "--sudo"]);
    let shown = site.done(&["log"]).stdout + &site.done(&["server", "show", "web-1"]).stdout;
    site.done(&["user", "rm", "alice", "--yes", "--yes-really"]);

    let secrets = secrets(&site, &host);
    for text in [&enrolled.stdout, &enrolled.stderr, &added.stdout, &added.stderr, &shown] {
        assert!(!holds(text.as_bytes(), &secrets), "{text}");
    }
    assert!(!holds(&host.read_file(log).unwrap(), &secrets), "the agent's log");
    let run = |trace: &str| String::from_utf8(host.read_file(trace).unwrap()).unwrap();
    let begun = run("/root/start");
    assert!(begun.contains("\"connector\"") && begun.contains("useradd"), "{begun}");
    assert!(!holds(run("/root/enrol").as_bytes(), &secrets), "arguments of enroll");
    // The operator put one into the environment of `start`, the first line; nobody inherits it.
    assert!(begun.lines().next().is_some_and(|start| holds(start.as_bytes(), &secrets)));
    let children: String = begun.lines().skip(1).collect();
    assert!(!holds(children.as_bytes(), &secrets), "{children}");
    // The token is shown once, on the first start, to whoever starts the backend.
    let log = site.backend.log().unwrap();
    let others: String = log.lines().filter(|line| !line.starts_with("admin token: ")).collect();
    assert!(!holds(others.as_bytes(), &secrets), "{others}");
    let backend = site.backend.process().pid();
    for file in ["cmdline", "environ"] {
        assert!(!holds(&fs::read(format!("/proc/{backend}/{file}")).unwrap(), &secrets), "{file}");
    }
    agent.kill().unwrap();
}

#[test]
fn secrets_are_in_no_file_that_others_may_read() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let server = served(&world, &site);
    let secrets = secrets(&site, &server.host);
    let patterns = secrets.join("\n");
    let find = |place: &bastio_tests::Place, folders: &[&str]| {
        let grep = place.command("grep").args(["-rlFs", "-f", "-", "--"]).args(folders);
        grep.input(patterns.as_bytes()).run().unwrap().stdout
    };
    // Where programs and documentation lie, nothing of ours is written.
    let folders = ["/etc", "/home", "/root", "/run", "/srv", "/tmp", "/var"];
    assert_eq!(find(&server.host, &folders), "/etc/bastio/agent.key\n");
    let mode = server.host.exec(&["stat", "-c", "%a %u:%g", "/etc/bastio/agent.key"]).unwrap();
    assert_eq!(mode.stdout, "600 0:0\n");
    // The backend keeps only hashes. Its log is the test's own, and holds the line with the token.
    assert_eq!(find(&world, &["/run/lab"]), "/run/lab/backend.log\n");
    let state = site.backend.state_folder();
    assert!(Path::new(&state).starts_with("/run/lab"));
    let stat = ["-c", "%a"];
    let mode = world.command("stat").args(stat).arg(state).check().unwrap();
    assert_eq!(mode.stdout, "700\n");
}
