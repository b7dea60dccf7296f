//! Links, pipes, folders and foreign owners where key files belong, from the console to the disk and back.

use super::*;

const FILE: &str = "/home/mallory/.ssh/authorized_keys";
const SSH: &str = "/home/mallory/.ssh";
const VICTIM: &str = "/root/.ssh/authorized_keys";

/// What stands in the way, as shell commands of root's that put it there, and what the console says about it.
const SHAPES: [(&str, &str); 9] = [
    ("ln -s /root/.ssh/authorized_keys $F", "authorized_keys is a symbolic link, not a plain file"),
    ("ln -s /etc/shadow $F", "authorized_keys is a symbolic link, not a plain file"),
    ("mkdir $F", "authorized_keys is a folder, not a plain file"),
    ("mkfifo $F", "authorized_keys is a FIFO, not a plain file"),
    ("mv $F.aside $F; chown games $F", "/home/mallory/.ssh/authorized_keys belongs to uid "),
    ("mv $S $S.aside; ln -s /root/.ssh $S", ".ssh is a symbolic link, not a folder"),
    ("mv $S $S.aside; mkfifo $S", ".ssh is a FIFO, not a folder"),
    ("mv $S $S.aside; : > $S", ".ssh is a plain file, not a folder"),
    ("chown games $S", "/home/mallory/.ssh belongs to uid "),
];

/// Takes it away again, and leaves the home as it was.
const TIDY: &str = "if [ -e $S.aside ]; then rm -f $S; mv $S.aside $S; fi; chown mallory $S; \
                    if [ -e $F.aside ]; then rm -rf $F; mv $F.aside $F; fi; chown mallory $F";

#[test]
fn what_is_planted_at_a_key_file_is_named_and_nothing_behind_it_is_touched() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let server = site.server("web-1");
    server.host.exec(&["install", "-d", "-m", "700", "/root/.ssh"]).unwrap();
    server.host.write_file(VICTIM, "root's own\n").unwrap();
    let (_, first) = person(&world, "first");
    let (_, second) = person(&world, "second");
    site.done(&["user", "add", "mallory", "--key", &first, "--on", "web-1"]);
    let before = server.keys("mallory").unwrap();
    let sh = |script: &str| {
        let command = server.host.command("sh").args(["-ec", script]);
        command.env("F", FILE).env("S", SSH).check().unwrap();
    };
    let victims = || {
        let stat = "stat -c '%n %a %u:%g %s %y %i' /root/.ssh /root/.ssh/* /etc/shadow";
        (
            server.host.exec(&["sh", "-c", stat]).unwrap().stdout,
            server.host.read_file(VICTIM).unwrap(),
        )
    };
    for (shape, text) in SHAPES {
        sh(&format!("mv $F $F.aside; {shape}"));
        let untouched = victims();
        site.fails(&["key", "add", "mallory", &second], text);
        assert_eq!(victims(), untouched, "{shape}");
        sh(TIDY);
        assert_eq!(server.keys("mallory").as_ref(), Some(&before), "{shape}");

        // The agent does not hang on it: the next command works, and so does the same once more.
        site.done(&["key", "add", "mallory", &second]);
        assert_eq!(server.keys("mallory").unwrap().lines().count(), 2, "{shape}");
        site.done(&["key", "rm", "mallory", &second]);
        assert_eq!(server.keys("mallory").as_ref(), Some(&before), "{shape}");
    }
}
