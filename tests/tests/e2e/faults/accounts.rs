//! Accounts that are not ours, accounts in use, and no room for keys.

use super::*;

#[test]
fn an_account_that_is_not_managed_is_left_alone_and_the_command_says_so() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let host = site.host("web-1").without_sshd().start().unwrap();
    host.exec(&["useradd", "-m", "-U", "-p", "secret-hash", "alice"]).unwrap();
    host.exec(&["install", "-d", "-o", "alice", "-g", "alice", "-m", "700", "/home/alice/.ssh"])
        .unwrap();
    host.write_file("/home/alice/.ssh/authorized_keys", "ssh-rsa her own\r\nno newline").unwrap();
    let agent = fleet::enroll_and_start(&host, &site.key).unwrap();
    let server = site.started(Server { host, agent });
    let look = || {
        let files = server.host.exec(&["stat", "-c", "%n %a %u:%g %y %i", "/home/alice/.ssh"]);
        let keys =
            server.host.exec(&["stat", "-c", "%a %u:%g %y %i", "/home/alice/.ssh/authorized_keys"]);
        (databases(&server.host), server.keys("alice"), files.unwrap().stdout, keys.unwrap().stdout)
    };
    let before = look();
    let (_, file) = person(&world, "alice");
    let text = "alice exists already and is not managed by bastio; to hand it over";
    site.fails(&["user", "add", "alice", "--key", &file, "--on", "web-1", "--sudo"], text);
    assert_eq!(look(), before);
    // Nor does taking the person away take the account away.
    site.bastio(&["user", "rm", "alice", "--yes"]);
    site.wait_answered(LIMIT);
    assert_eq!(look(), before);
}

#[test]
fn removing_a_person_ends_sessions_and_processes_and_closes_the_door() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let server = site.enrol(site.host("web-1"));
    let (key, file) = person(&world, "alice");
    site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1"]);
    let (alice, ip) = (SshClient::new(&world, &key), server.host.ip());
    let stubborn = "trap '' TERM HUP; : > /tmp/begun; while :; do sleep 1000; done";
    let mut session = alice.command("alice", ip, stubborn).spawn().unwrap();
    until(LIMIT, "the session has begun", || server.host.exists("/tmp/begun").unwrap());
    assert!(alice.run("alice", ip, "nohup sleep 1000 >/dev/null 2>&1 &").unwrap().success());

    site.done(&["user", "rm", "alice", "--yes"]);
    assert!(!session.wait(LIMIT).unwrap().success());
    assert!(!server.has_account("alice"));
    assert!(server.host.exists("/home/alice").unwrap(), "homes are kept unless said otherwise");
    let left = server.host.exec(&["ps", "-eo", "uid=,args="]).unwrap().stdout;
    assert!(!left.contains("1000"), "{left}");
    assert!(!alice.can_log_in("alice", ip).unwrap());
}

#[test]
fn a_full_disk_tears_no_key_file_and_the_same_command_works_once_there_is_room() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let server = site.enrol(site.host("web-1").home_tmpfs_size(256 << 10));
    let (old, old_file) = person(&world, "old");
    let (new, new_file) = person(&world, "new");
    site.done(&["user", "add", "alice", "--key", &old_file, "--on", "web-1"]);
    let before = server.keys("alice");
    server.host.write_file("/home/filler", vec![b'x'; 1 << 20]).unwrap_err();

    site.fails(
        &["key", "add", "alice", &new_file],
        "no space left for /home/alice/.ssh/authorized_keys",
    );
    assert_eq!(server.keys("alice"), before);
    assert_eq!(
        server.host.exec(&["ls", "-A", "/home/alice/.ssh"]).unwrap().stdout,
        "authorized_keys\n"
    );
    let can_log_in =
        |key| SshClient::new(&world, key).can_log_in("alice", server.host.ip()).unwrap();
    assert!(can_log_in(&old) && !can_log_in(&new));

    server.host.exec(&["rm", "/home/filler"]).unwrap();
    site.done(&["key", "add", "alice", &new_file]);
    assert!(can_log_in(&old) && can_log_in(&new));
}
