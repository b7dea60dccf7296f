//! Wrong arguments end with 2 before anything is sent; help teaches.

use crate::backend::nobody;
use crate::runner::Machine;

const KEY: &str = "ssh-ed25519 \
                   AAAAC3NzaC1lZDI1NTE5AAAAIMINmOzSQZejrX3zSXobtT2icJMv/ftYuZKNVcnOxohl a@b";

/// Nobody listens at the backend's address: a command that tried to send would end with 3.
#[test]
fn wrong_arguments_end_with_2_and_a_reason() {
    let machine = Machine::new();
    let good = machine.file("good.pub", KEY);
    let bad = machine.file("bad.pub", &format!("# mine\n{KEY}\nssh-ed25519 AAAA cut\n"));
    let empty = machine.file("empty.pub", "# nothing\n\n");
    let private = machine.file("id", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n");
    let bad_line = format!("{bad}, line 3: the key is damaged");
    let url = nobody();
    for (arguments, reason) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&[], "Usage"),
        (&["user"], "Usage"),
        (&["user", "add"], "<USER>"),
        (&["user", "add", "Alice"], "place 1 of a user name"),
        (&["user", "add", "alice", "--on", ""], "no server named"),
        (&["user", "add", "alice", "--on", "web-1,role=web"], "not both"),
        (&["user", "add", "alice", "--sudo"], "--on <SERVERS>"),
        (&["user", "add", "alice", "--key", "/no/such/file"], "cannot read /no/such/file"),
        (&["user", "add", "alice", "--key", "/"], "cannot read /"),
        (&["user", "add", "alice", "--key", &good, "--key", &bad], &bad_line),
        (&["user", "add", "alice", "--key", &empty], "holds no key"),
        (&["user", "add", "alice", "--key", &private], "this is a PRIVATE key"),
        (&["user", "add", "alice", "--key", "-", "--key", "-"], "only once"),
        (&["user", "update", "alice"], "--full-name"),
        (&["user", "update", "alice", "--sudo", "--no-sudo"], "cannot be used with"),
        (&["key", "add", "alice"], "<FILE>"),
        (&["key", "add", "alice", &bad], &bad_line),
        (&["key", "rm", "alice", "SHA256:a"], "too short"),
        (&["key", "rm", "alice", "abcdef"], "cannot read abcdef"),
        (&["grant", "add", "alice"], "--on <SERVERS>"),
        (&["grant", "add", "--on", "*"], "USER"),
        (&["grant", "add", "alice", "--group", "ops", "--on", "*"], "cannot be used with"),
        (&["grant", "add", "--group", "two words", "--on", "*"], "a group's name"),
        (&["grant", "add", "alice", "--on", "role=web|"], "no condition on labels"),
        (&["group", "member", "add", "ops"], "<USER>"),
        (&["grant", "rm", "twelve"], "invalid value"),
        (&["server", "label", "web-1"], "<LABEL>"),
        (&["server", "label", "web-1", "role"], "is no label"),
        (&["server", "label", "web-1", "role=a", "role-"], "given twice"),
        (&["server", "rename", "web-1", "-x"], "unexpected argument"),
        (&["server", "rename", "web-1", "a b"], "is no server name"),
        (&["api-key", "add", "x"], "--role <ROLE>"),
        (&["api-key", "add", "x", "--role", "god"], "admin, enroll"),
        (&["log", "--limit", "0"], "0 is not in"),
        (&["status", "--timeout", "0"], "0 is not in"),
        (&["status", "--output", "xml"], "table, json"),
        (&["status", "--url", "backend:2358"], "not a URL of a backend"),
        (&["status", "--token-file", "/no/such/file"], "cannot read the token file"),
        (&["login"], "<URL>"),
        (&["login", "ftp://b"], "not a URL of a backend"),
        (&["login", "http://me:pw@b"], "without user and password"),
    ] {
        let run = machine.at(&url, arguments);
        assert_eq!(run.code, Some(2), "{arguments:?}: {run:?}");
        assert_eq!(run.stdout, "", "{arguments:?}");
        assert!(run.stderr.contains(reason), "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn malformed_variables_end_with_2_and_never_show_the_token() {
    let machine = Machine::new();
    for (variables, reason) in [
        (&[][..], "not logged in to any backend"),
        (&[("BASTIO_URL", ""), ("BASTIO_TOKEN", "")], "not logged in to any backend"),
        (&[("BASTIO_TOKEN", "bst_1")], "not logged in to any backend"),
        (&[("BASTIO_URL", "http://b")], "no token for http://b"),
        (&[("BASTIO_URL", "b"), ("BASTIO_TOKEN", "bst_1")], "BASTIO_URL: not a URL"),
        (&[("BASTIO_URL", "http://b"), ("BASTIO_TOKEN", "bst_1 2")], "BASTIO_TOKEN: the token"),
    ] {
        let run = machine.run(variables, &["status"], "");
        assert_eq!(run.code, Some(2), "{variables:?}: {run:?}");
        assert!(run.stderr.contains(reason), "{variables:?}: {}", run.stderr);
        assert!(!run.stderr.contains("bst_1"), "{}", run.stderr);
    }
}

#[test]
fn help_and_version_go_to_stdout_with_0() {
    let machine = Machine::new();
    for (arguments, expected) in [
        (&["--help"][..], "Exit codes:\n  0  all done"),
        (&["--help"], "3  the backend cannot be reached"),
        (&["-h"], "First steps:\n  bastio login http"),
        (&["user", "add", "--help"], "bastio user add alice --key alice.pub --on role=web --sudo"),
        (&["help", "server", "label"], "rack-"),
        (&["--version"], concat!("bastio ", env!("CARGO_PKG_VERSION"), "\n")),
    ] {
        let run = machine.run(&[("BASTIO_TOKEN", "bst_hidden")], arguments, "");
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(run.stdout.contains(expected), "{arguments:?}: {}", run.stdout);
        assert!(!run.stdout.contains("bst_hidden"), "{}", run.stdout);
    }
}

#[test]
fn completions_and_manual_pages_are_made_from_the_same_source() {
    let machine = Machine::new();
    let run = machine.run(&[], &["completions", "bash"], "");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("complete -F _bastio"), "{}", run.stdout);
    let folder = machine.home.path().to_str().expect("UTF-8");
    assert_eq!(machine.run(&[], &["man", folder], "").code, Some(0));
    let page =
        std::fs::read_to_string(machine.home.path().join("bastio-user-add.1")).expect("a page");
    assert!(page.contains("alice.pub"), "{page}");
    assert_eq!(machine.run(&[], &["man", "/no/such/folder"], "").code, Some(1));
}
