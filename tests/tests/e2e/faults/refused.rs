//! Who is not who they should be: agents that the backend does not know, and backends that the agent does not know.

use super::*;

/// A refused agent waits at least this long, in seconds, and so does one that meets a wrong host key.
const SLOWLY: u64 = 30;
/// What an agent says whose key the backend does not know.
const REFUSED: &str = "refused the login: is this server's key enrolled?";

#[test]
fn an_agent_whose_server_was_removed_is_refused_says_so_and_comes_back_slowly() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let server = site.server("web-1");
    let (_, file) = person(&world, "alice");
    site.done(&["server", "rm", "web-1", "--yes"]);
    server.wait_log(REFUSED, LIMIT);
    let refusals =
        || site.backend.log().unwrap().matches("refused a login with an unknown key").count();
    until(LIMIT, "the backend's log tells of it", || refusals() > 0);
    assert_eq!(slow(&server)["state"], "disconnected");

    // A connector of its own tries at once, and is refused as well.
    server.kill_connector();
    until(LIMIT, "a second refusal", || server.log().matches(REFUSED).count() == 2);
    let link = slow(&server);
    assert!(link["reason"].as_str().unwrap().contains(REFUSED), "{link}");
    let status = server.host.try_exec(&["bastio-agent", "status"]).unwrap();
    assert_eq!(status.code(), Some(1), "{}", status.stdout);
    let told = site.done(&["user", "add", "alice", "--key", &file, "--on", "*"]);
    assert!(told.stderr.contains("no server is concerned"), "{}", told.stderr);
    assert_eq!(site.backend.ask(&["status"]).unwrap()["connected"], 0);
    assert!(!server.has_account("alice"));
}

/// The link once the agent has settled for trying slowly.
fn slow(server: &Server) -> Value {
    let is_slow = |link: &Value| link["retry_in"].as_u64().is_some_and(|wait| wait >= SLOWLY);
    until(LIMIT, "the agent keeps a slow pace", || is_slow(&server.link()));
    server.link()
}

/// Puts another backend in the place of the right one: with a copy of its store, so that it knows the servers and the
/// administrator, and with host keys of its own.
fn put_impostor(site: &mut Site<'_>) {
    swap_state(site, "cp -a $S $S.right; rm $S/ssh_host_*");
}

fn put_right_one_back(site: &mut Site<'_>) {
    swap_state(site, "mv $S $S.wrong; mv $S.right $S");
}

fn swap_state(site: &mut Site<'_>, script: &str) {
    site.backend.process().kill().unwrap();
    let sh = site.world.command("sh").args(["-ec", script]);
    sh.env("S", site.backend.state_folder()).check().unwrap();
    site.backend.restart().unwrap();
}

fn refusals(server: &Server) -> usize {
    server.log().matches("not connecting").count()
}

/// Three agents wait for different times: the first tries again, and is refused again, before the right backend is
/// back; the next comes in by itself once it is.
#[test]
fn a_backend_with_another_host_key_gets_nowhere_and_the_right_one_is_taken_back() {
    require_root!();
    let world = World::new().unwrap();
    let mut site = Site::start(&world);
    let proxy = site.proxy();
    let start = |name| site.enrol_through(site.host(name).without_sshd(), &proxy);
    let servers = ["web-1", "web-2", "web-3"].map(start);
    for server in &servers {
        let name = server.host.name();
        until(LIMIT, "its hello is stored", || site.show(name)["facts"]["hostname"] == name);
    }
    let right = site.key.host_key.clone();
    put_impostor(&mut site);
    let wrong = site.backend.enroll_key("wrong").unwrap().host_key;
    assert_ne!(right, wrong);
    let (_, file) = person(&world, "mallory");
    let told = site.done(&["user", "add", "mallory", "--key", &file, "--on", "*", "--sudo"]);
    assert!(told.stderr.contains("offline, will follow"), "{}", told.stderr);
    for server in &servers {
        server.wait_log("not connecting", LIMIT);
        let log = server.log();
        let line = log.lines().find(|line| line.contains("not connecting")).unwrap();
        let advice = format!("bastio-agent enroll --host-key {wrong}");
        for part in [&wrong, &right, &advice, "ERROR"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        slow(server);
    }
    // More attempts: new connectors try at once.
    for seen in 2..=3 {
        servers[0].kill_connector();
        until(LIMIT, "one more refusal", || refusals(&servers[0]) == seen);
    }
    // And one that an agent makes by itself, when its time has come.
    proxy.wait_for_connections(proxy.accepted() + 1, Duration::from_secs(65)).unwrap();
    until(LIMIT, "all agents wait again", || {
        servers.iter().all(|server| server.link()["retry_in"] != 0)
    });
    assert_eq!(site.backend.ask(&["status"]).unwrap()["connected"], 0);
    assert_eq!(site.backend.ask(&["status"]).unwrap()["queued"], 3);

    put_right_one_back(&mut site);
    site.backend.wait_connected(1, Duration::from_secs(65)).unwrap();
    for server in servers.iter().filter(|server| server.link()["state"] != "connected") {
        server.kill_connector();
    }
    site.backend.wait_connected(3, LIMIT).unwrap();
    let (_, file) = person(&world, "alice");
    site.done(&["user", "add", "alice", "--key", &file, "--on", "*"]);
    for server in &servers {
        assert!(server.has_account("alice") && !server.has_account("mallory"));
        assert_eq!(server.carried_out(), 1, "{}", server.log());
    }
}
