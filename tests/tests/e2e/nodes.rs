//! Two backends on one PostgreSQL, and real agents that know them by one name: a backend is killed, or the database fails
//! over, and people come and go all the same.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bastio_tests::fleet::{self, EnrollKey};
use bastio_tests::{
    Durability, Finished, Host, PlacedCommand, Postgres, Running, SshClient, SshKey, World, binary,
    require_root,
};
use serde_json::Value;

use crate::faults::until;

const LIMIT: Duration = Duration::from_secs(40);
/// How long agents of a killed node may be without one.
const SERVED_WITHIN: Duration = Duration::from_secs(15);
const PORT: u16 = 2358;

/// One backend with an address of its own.
struct Node<'w> {
    world: &'w World,
    process: Running,
    address: IpAddr,
}

/// Two of them, and a server that finds both under the name `backend`.
struct Pair<'w> {
    first: Node<'w>,
    second: Node<'w>,
    token: String,
    host: Host,
    _agent: Running,
}

impl<'w> Node<'w> {
    fn start(world: &'w World, name: &str, address: IpAddr, url: &str) -> Self {
        let folder = world.folder();
        let state = folder.join(name);
        let (state, key) = (state.display(), folder.join("cluster.key"));
        let text = format!(
            "state = \"{state}\"\n[ssh]\nlisten = \"{address}:2357\"\n[http]\nlisten = \"{address}:{PORT}\"\n\
             public_url = \"http://backend:{PORT}\"\n[store]\nurl = \"{url}\"\ncluster_key_file = \"{}\"\n",
            key.display()
        );
        let config = folder.join(format!("{name}.toml"));
        world.write_file(&config, text).unwrap();
        let command = world.command(binary("bastio-backend").unwrap());
        let command = command.arg("--config").arg(config).arg("serve");
        let command = command.log_to(folder.join(format!("{name}.log")));
        Self { world, process: command.spawn_ready(LIMIT).unwrap(), address }
    }

    fn console(&self, token: &str, words: &[&str]) -> PlacedCommand<'w> {
        let url = format!("http://{}:{PORT}", self.address);
        let command = self.world.command(binary("bastio").unwrap());
        command.env("BASTIO_URL", url).env("BASTIO_TOKEN", token).args(words)
    }
}

impl<'w> Pair<'w> {
    fn start(world: &'w World, postgres: &Postgres) -> Self {
        let second: IpAddr = [10, 77, 0, 2].into();
        let address = format!("{second}/24");
        world.command("ip").args(["addr", "add", &address, "dev", "lab0"]).check().unwrap();
        let key = world.command("openssl").args(["rand", "-base64", "32"]).check().unwrap().stdout;
        let path = world.folder().join("cluster.key");
        world.write_file(&path, key).unwrap();
        world.command("chmod").arg("0600").arg(path).check().unwrap();
        let first = Node::start(world, "first", world.ip(), &postgres.url());
        let log = world.read_file(world.folder().join("first.log")).unwrap();
        let log = String::from_utf8_lossy(&log);
        let token = log.lines().find_map(|line| line.split_once("admin token: ")).unwrap().1;
        let token = token.trim().to_owned();
        let second = Node::start(world, "second", second, &postgres.url());
        let host = world.host("web-1").binary(binary("bastio-agent").unwrap()).start().unwrap();
        let hosts = format!("{} backend\n{} backend\n", first.address, second.address);
        let own = format!("127.0.0.1 localhost\n{} web-1\n{hosts}", host.ip());
        host.write_file("/etc/hosts", own).unwrap();
        let made = first.console(&token, &["api-key", "add", "servers", "--role", "enroll"]);
        let made = json(&made.args(["--output", "json"]).check().unwrap());
        let text = |path: &str| made.pointer(path).and_then(Value::as_str).unwrap().to_owned();
        let key = EnrollKey {
            backend: text("/enroll/backend"),
            host_key: text("/enroll/host_key"),
            secret: text("/secret"),
        };
        let agent = fleet::enroll_and_start(&host, &key).unwrap();
        let pair = Self { first, second, token, host, _agent: agent };
        for node in [&pair.first, &pair.second] {
            until(LIMIT, "the agent is connected", || pair.status(node)["connected"] == 1);
        }
        pair
    }

    fn ask(&self, node: &Node<'w>, words: &[&str]) -> Finished {
        node.console(&self.token, words).run().unwrap()
    }

    #[track_caller]
    fn done(&self, node: &Node<'w>, words: &[&str]) {
        let finished = self.ask(node, words);
        assert_eq!(finished.code(), Some(0), "{}\n{}", finished.stdout, finished.stderr);
    }

    fn status(&self, node: &Node<'w>) -> Value {
        json(&self.ask(node, &["status", "--output", "json"]))
    }

    fn has(&self, login: &str) -> bool {
        self.host.try_exec(&["id", login]).unwrap().success()
    }
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or(Value::Null)
}

#[test]
fn a_killed_nodes_agent_is_served_by_the_other_and_ends_access_there() {
    require_root!();
    let (world, postgres) = (World::new().unwrap(), Postgres::start(Durability::Fast).unwrap());
    let mut pair = Pair::start(&world, &postgres);
    let key = SshKey::generate(&world, "alice", &["ed25519"]).unwrap();
    let alice = SshClient::new(&world, &key);
    let file = key.public_file().display().to_string();
    pair.done(&pair.first, &["user", "add", "alice", "--key", &file, "--on", "web-1"]);
    assert!(alice.can_log_in("alice", pair.host.ip()).unwrap());

    // Its name leads to the first node first.
    pair.first.process.kill().unwrap();
    let killed = Instant::now();
    pair.done(&pair.second, &["--wait", "--timeout", "40", "user", "rm", "alice", "--yes"]);
    let took = killed.elapsed();
    assert!(took < SERVED_WITHIN, "served by the second node after {took:?}");
    assert!(!alice.can_log_in("alice", pair.host.ip()).unwrap());
    assert!(!pair.has("alice"));
    assert_eq!(pair.status(&pair.second)["connected"], 1);

    // The first comes back, and both edit.
    let first = Node::start(&world, "first", pair.first.address, &postgres.url());
    pair.first = first;
    pair.done(&pair.first, &["user", "add", "bob", "--key", &file, "--on", "web-1"]);
    assert!(alice.can_log_in("bob", pair.host.ip()).unwrap(), "the key is bob's now");
}

#[test]
fn a_database_that_fails_over_under_load_loses_nothing_that_was_acknowledged() {
    require_root!();
    let (world, mut postgres) = (World::new().unwrap(), Postgres::start(Durability::Fast).unwrap());
    let pair = Pair::start(&world, &postgres);
    let stop = AtomicBool::new(false);
    let (acknowledged, refused) = thread::scope(|scope| {
        let load = scope.spawn(|| edits(&pair, &stop));
        let count = || pair.status(&pair.second)["users"].as_u64().unwrap_or(0);
        until(LIMIT, "edits are made", || count() >= 3);
        postgres.crash().unwrap();
        thread::sleep(Duration::from_secs(2));
        postgres.start_again_as_standby().unwrap();
        // It is read, and takes nothing.
        until(LIMIT, "it is shown", || pair.status(&pair.second)["users"].is_u64());
        let refused = pair.ask(&pair.second, &["user", "add", "nobody-else"]);
        assert_ne!(refused.code(), Some(0), "{}", refused.stdout);
        let before = count();
        postgres.sql("SELECT pg_promote()").unwrap();
        until(LIMIT, "edits are made again", || count() >= before + 3);
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    assert!(refused > 0, "nothing was tried while it was away");
    until(LIMIT, "all is confirmed", || {
        let status = pair.status(&pair.first);
        status["queued"] == 0 && status["sent"] == 0 && status["failed"] == 0
    });
    for login in &acknowledged {
        assert!(pair.has(login), "{login} was acknowledged");
    }
    let accounts = json(&pair.ask(&pair.first, &["user", "ls", "--output", "json"]));
    let known = accounts.as_array().map_or(0, Vec::len);
    assert!(known >= acknowledged.len(), "{known} of {acknowledged:?}");
    assert_eq!(pair.status(&pair.second)["connected"], 1);
}

/// Adds one person after the other, at both nodes in turn: who was acknowledged, and how many were refused.
fn edits(pair: &Pair<'_>, stop: &AtomicBool) -> (Vec<String>, usize) {
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let login = format!("person{number}");
        let node = if number % 2 == 0 { &pair.first } else { &pair.second };
        let added = pair.ask(node, &["--no-wait", "user", "add", &login, "--on", "web-1"]);
        if added.success() {
            acknowledged.push(login);
        } else {
            refused += 1;
            thread::sleep(Duration::from_millis(100));
        }
    }
    (acknowledged, refused)
}
