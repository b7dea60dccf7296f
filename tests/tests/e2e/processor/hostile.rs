//! Homes whose owners plant links, pipes and folders where key files belong.

use super::*;

const SSH: &str = "/home/mallory/.ssh";
const FILE: &str = "/home/mallory/.ssh/authorized_keys";

/// A shape that the owner of a home can make there, as a shell command, and what the refusal says.
const SHAPES: [(&str, &str); 9] = [
    ("ln -s /etc/shadow $F", "authorized_keys is a symbolic link, not a plain file"),
    ("ln -s /root/.ssh/authorized_keys $F", "authorized_keys is a symbolic link, not a plain file"),
    ("mkfifo $F", "authorized_keys is a FIFO, not a plain file"),
    ("mkdir $F", "authorized_keys is a folder, not a plain file"),
    (
        "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => shift, Listen => 1)' $F",
        "is a socket",
    ),
    ("echo x > $F; ln $F /home/mallory/other", "authorized_keys has 2 names (hard links)"),
    ("rmdir $S; ln -s /etc $S", ".ssh is a symbolic link, not a folder"),
    ("rmdir $S; ln -s /root/.ssh $S", ".ssh is a symbolic link, not a folder"),
    ("rmdir $S; mkfifo $S", ".ssh is a FIFO, not a folder"),
];

/// All that must not change: content, owner and mode of what the links point at.
fn victims(host: &Host) -> Vec<(Vec<u8>, (u32, u32, u32))> {
    ["/etc/shadow", "/etc/passwd", "/root/.ssh/authorized_keys"]
        .iter()
        .map(|path| (host.read_file(path).unwrap(), owner_and_mode(host, path)))
        .collect()
}

fn names(host: &Host, folder: &str) -> String {
    host.exec(&["ls", "-A", folder]).unwrap().stdout
}

#[test]
fn every_planted_shape_is_named_and_nothing_behind_it_is_touched() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    host.exec(&["install", "-d", "-m", "700", "/root/.ssh"]).unwrap();
    host.write_file("/root/.ssh/authorized_keys", "root's own\n").unwrap();
    let mut connector = Connector::start(&host);
    for (shape, text) in SHAPES {
        expect(connector.add_user("mallory", false), 200, "mallory was created successfully");
        let script = format!("rm -f {FILE}; {shape}");
        host.command("setpriv")
            .args(["--reuid=mallory", "--regid=mallory", "--clear-groups", "sh", "-c", &script])
            .env("F", FILE)
            .env("S", SSH)
            .check()
            .unwrap();
        let before = victims(&host);
        let (etc, root) = (names(&host, "/etc"), names(&host, "/root/.ssh"));
        for found in [
            connector.add_key("mallory", KEY),
            connector.remove_key("mallory", KEY),
            connector.add_user("mallory", false),
        ] {
            expect_like(&found, 500, text);
        }
        assert_eq!(victims(&host), before, "{shape}");
        assert_eq!((names(&host, "/etc"), names(&host, "/root/.ssh")), (etc, root), "{shape}");

        let (status, removed) = connector.remove_user("mallory");
        assert_eq!(status, 200, "{shape}: {removed}");
        assert_eq!(line(&host, "/etc/passwd", "mallory"), None);
        assert!(!host.exists("/home/mallory").unwrap(), "{shape}");
        assert_eq!(
            host.read_file("/root/.ssh/authorized_keys").unwrap(),
            b"root's own\n",
            "{shape}"
        );
        assert_eq!(names(&host, "/root/.ssh"), "authorized_keys\n", "{shape}");
    }
}

#[test]
fn things_of_another_owner_are_refused() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("mallory", false);
    connector.add_key("mallory", KEY);
    let text = host.read_file(FILE).unwrap();
    for (path, owner) in [(FILE, "root"), (SSH, "games"), ("/home/mallory", "games")] {
        host.exec(&["chown", owner, path]).unwrap();
        let refused = format!("{path} belongs to uid ");
        for found in [connector.add_key("mallory", KEY), connector.remove_key("mallory", KEY)] {
            expect_like(&found, 500, &refused);
            expect_like(&found, 500, "give it to the account (chown) or remove it");
        }
        host.exec(&["chown", "mallory", path]).unwrap();
    }
    assert_eq!(host.read_file(FILE).unwrap(), text);
    expect(
        connector.remove_key("mallory", KEY),
        200,
        "removed public key from mallory successfully",
    );
}

#[test]
fn a_home_that_others_may_write_gets_no_key_but_gives_them_up() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("mallory", false);
    connector.add_key("mallory", KEY);
    host.exec(&["chmod", "g+w", "/home/mallory"]).unwrap();
    let text = "/home/mallory can be written by others, so sshd ignores its keys; run: chmod go-w /home/mallory";
    expect(connector.add_key("mallory", KEY), 500, text);
    expect(connector.add_user("mallory", false), 500, text);
    expect(
        connector.remove_key("mallory", KEY),
        200,
        "removed public key from mallory successfully",
    );
}

#[test]
fn a_file_system_mounted_over_ssh_is_not_entered() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("mallory", false);
    host.exec(&["mount", "-t", "tmpfs", "-o", "uid=mallory,mode=700", "tmpfs", SSH]).unwrap();
    expect_like(
        &connector.add_key("mallory", KEY),
        500,
        ".ssh is on a file system mounted over it",
    );
    // And at removal, what is mounted is not deleted through the home.
    host.write_file(format!("{SSH}/precious"), "x").unwrap();
    let found = connector.remove_user("mallory");
    expect_like(
        &found,
        200,
        "mallory was removed successfully; its home was left: /home/mallory has a file system",
    );
    assert!(host.exists(format!("{SSH}/precious")).unwrap());
}

/// The owner swaps `.ssh` and the file for links as fast as a shell can, while keys come and go.
#[test]
fn swaps_during_the_work_harm_only_the_swapper() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    host.exec(&["install", "-d", "-m", "700", "/root/.ssh"]).unwrap();
    host.write_file("/root/.ssh/authorized_keys", "root's own\n").unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("mallory", false);
    let before = victims(&host);
    let program = r#"my $h = "/home/mallory"; while (1) {
        rename("$h/.ssh", "$h/a"); symlink("/root/.ssh", "$h/.ssh"); unlink("$h/.ssh"); rename("$h/a", "$h/.ssh");
        unlink("$h/.ssh/authorized_keys"); symlink("/etc/shadow", "$h/.ssh/authorized_keys");
        unlink("$h/.ssh/authorized_keys"); link("$h/.profile", "$h/.ssh/authorized_keys"); }"#;
    let mut swapper = host
        .command("setpriv")
        .args(["--reuid=mallory", "--regid=mallory", "--clear-groups", "perl", "-e", program])
        .spawn()
        .unwrap();
    for _ in 0..300 {
        // Done or refused: both are right, as long as each gets its answer.
        connector.add_key("mallory", KEY);
        connector.add_user("mallory", false);
        connector.remove_key("mallory", KEY);
    }
    assert_eq!(swapper.ended().unwrap(), None);
    assert_eq!(victims(&host), before);
    assert_eq!(names(&host, "/root/.ssh"), "authorized_keys\n");
    let (status, text) = connector.remove_user("mallory");
    assert_eq!(status, 200, "{text}");
    assert!(swapper.wait(Duration::from_secs(5)).is_ok());
    assert_eq!(host.read_file("/root/.ssh/authorized_keys").unwrap(), b"root's own\n");
}
