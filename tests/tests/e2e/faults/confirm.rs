//! Commit-confirm over the whole path: a change of the account that is never locked out reaches the server, and then
//! the line is dead, or it is not.

use bastio_tests::Direction;

use super::*;

const KEYS: &str = "/home/admin/.ssh/authorized_keys";
/// How long a confirmation may take: the least that can be set.
const WITHIN: Duration = Duration::from_secs(5);

/// A server on which admin is never locked out, behind a proxy; admin has a key and a line of his own, all confirmed.
fn guarded(site: &Site<'_>, proxy: &Proxy) -> Server {
    let host = site.host("web-1").start().unwrap();
    fleet::prepare_agent(&host).unwrap();
    fleet::enroll_through(&host, &site.key, proxy.address()).check().unwrap();
    let file = "/etc/bastio/agent.toml";
    let enrolled = String::from_utf8(host.read_file(file).unwrap()).unwrap();
    let within = WITHIN.as_secs();
    let more = format!("break_glass = \"admin\"\nconfirm_within = {within}\n{enrolled}");
    host.write_file(file, more).unwrap();
    let agent = fleet::agent_command(&host).spawn_ready(LIMIT).unwrap();
    let server = site.started(Server { host, agent });
    let (_, key) = person(site.world, "admin");
    site.done(&["user", "add", "admin", "--key", &key, "--on", "web-1", "--sudo"]);
    let (_, second) = person(site.world, "second");
    site.done(&["key", "add", "admin", &second]);
    settle(site, &server);
    server
}

/// Waits until everything is done, confirmed and told; a new connection takes its moment.
fn settle(site: &Site<'_>, server: &Server) {
    site.wait_answered(LIMIT);
    until(LIMIT, "nothing is left to be confirmed", || !ledger(server).contains("\"guard\":{"));
    server.wait_log("confirmed by a new connection", LIMIT);
    site.wait_presence("web-1", "connected", LIMIT);
}

fn ledger(server: &Server) -> String {
    let ledger = server.host.read_file("/var/lib/bastio-agent/ledger.json").unwrap();
    String::from_utf8(ledger).unwrap().replace("\": ", "\":")
}

/// Everything that decides whether admin comes in and what he may do.
fn access(server: &Server) -> [String; 2] {
    let read = |file| String::from_utf8(server.host.read_file(file).unwrap()).unwrap();
    [KEYS, "/etc/group"].map(read)
}

fn logs_in(site: &Site<'_>, server: &Server, key: &SshKey) -> bool {
    let ssh = SshClient::new(site.world, key);
    ssh.run("admin", server.host.ip(), "true").unwrap().success()
}

#[test]
fn a_change_stands_when_the_agent_reaches_its_backend_after_it() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let proxy = site.proxy();
    let server = guarded(&site, &proxy);
    let before = access(&server);
    let (third_key, third) = person(&world, "third");
    let accepted = proxy.accepted();
    site.done(&["key", "add", "admin", &third]);
    settle(&site, &server);
    let after = access(&server);
    assert_ne!(after, before);
    assert!(proxy.accepted() > accepted);
    std::thread::sleep(WITHIN + Duration::from_secs(2));
    assert_eq!(access(&server), after);
    assert!(logs_in(&site, &server, &third_key));
    assert!(!server.log().contains("rolled back"), "{}", server.log());
}

#[test]
fn a_change_is_undone_byte_for_byte_when_the_line_is_dead_after_it() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let proxy = site.proxy();
    let server = guarded(&site, &proxy);
    let before = access(&server);
    let (third_key, third) = person(&world, "third");
    // The order still arrives; nothing comes back, and no new connection gets anywhere.
    proxy.hold(Direction::ToServer);
    site.bastio(&["key", "add", "admin", &third, "--no-wait"]);
    until(LIMIT, "the change", || access(&server) != before);
    let changed = Instant::now();
    until(LIMIT, "the way back", || access(&server) == before);
    let waited = changed.elapsed();
    eprintln!("rolled back after {waited:?}");
    assert!(waited + Duration::from_secs(1) > WITHIN, "{waited:?}");
    assert!(!logs_in(&site, &server, &third_key));
    server.wait_log("rolled back, since no new connection came within 5 s", LIMIT);

    // Back on the line, the backend learns what is not as it wanted it.
    proxy.resume();
    until(Duration::from_secs(60), "the drift is told", || {
        site.show("web-1").to_string().contains("rolled back, since no new connection came")
    });
    assert_eq!(access(&server), before);
}
