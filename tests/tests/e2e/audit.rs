//! The audit log from an edit to a verified export, through a real backend.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use bastio_tests::{World, require_root};

use crate::faults::Site;

#[test]
fn an_export_shows_what_was_done_to_it() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    site.done(&["user", "add", "alice"]);
    site.done(&["user", "update", "alice", "--mail", "alice@example.org"]);
    let head = site.done(&["log", "head"]).stdout.trim().to_owned();
    site.done(&["grant", "add", "alice", "--on", "role=web", "--reason", "on call"]);
    let path = world.folder().join("audit.jsonl").display().to_string();
    site.done(&["log", "export", "--file", &path]);
    let intact = site.done(&["log", "verify", &path, "--head", &head]);
    assert!(intact.stdout.starts_with("intact: 5 rows, 1 to 5;"), "{}", intact.stdout);

    let text = String::from_utf8(world.read_file(&path).unwrap()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let (line, at) = (lines[5], lines[5].find("on call").unwrap());
    let one_byte = format!("{}0{}", &line[..at], &line[at + 1..]);
    let mut changed = lines.clone();
    changed[5] = &one_byte;
    let mut removed = lines.clone();
    removed.remove(3);
    let mut reordered = lines.clone();
    reordered.swap(2, 3);
    let cut = lines[..4].to_vec();
    for (lines, expected) in [
        (changed, "row 5 was changed (seen at line 6)"),
        (removed, "row 3 was removed"),
        (reordered, "row 3 stands where row 2 should be"),
        (cut, "rows 4 to 5 were removed"),
    ] {
        world.write_file(&path, lines.join("\n") + "\n").unwrap();
        let broken = site.bastio(&["log", "verify", &path]);
        assert_eq!(broken.code(), Some(1), "{}", broken.stderr);
        assert!(broken.stdout.contains(expected), "{expected}: {}", broken.stdout);
    }
}

#[test]
fn following_shows_an_edit_when_it_happens() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let words = ["log", "-f", "--output", "json", "--action", "user.*"];
    let console = site.backend.console(&words).unwrap();
    let mut follower = console.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.take_stdout().expect("a pipe")).lines();
    for name in ["alice", "bob"] {
        site.done(&["user", "add", name, "--reason", "new here"]);
        let line = lines.next().expect("a line").unwrap();
        assert!(line.contains(name) && line.contains("new here"), "{line}");
    }
    follower.kill().unwrap();
}
