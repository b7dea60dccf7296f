//! Files as people write them, with every mistake named, and as they are written for them.

use std::time::{Duration, Instant};

use super::*;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEgJ0ePcM0yDbCVGXSpYzMSBsOtRCZXNWBvsGaPRc7lr";

fn read_text(text: &str) -> Result<Policy, String> {
    parse("policy.yaml", text).map_err(|error| error.to_string())
}

#[test]
fn every_mistake_is_named_with_its_line() {
    for (text, line, expected) in [
        ("version: 1\npeople: {}\n", 2, "people"),
        ("version: 1\nusers:\n  alice:\n    keys: []\n    age: 7\n", 5, "age"),
        ("version: 1\nusers:\n  alice: {}\n  bob: {}\n  alice: {}\n", 5, "alice"),
        ("version: 1\nusers: {}\nusers: {}\n", 3, "users"),
        ("version: 1\nusers:\n  alice:\n    mail: a\n    mail: b\n", 5, "mail"),
        ("version: 2\n", 1, "the version of this format is 1"),
        ("version: 1\nusers:\n  Not A Name: {}\n", 3, ""),
        ("version: 1\nusers:\n  alice:\n    keys:\n    - ssh-rsa\n", 5, "not a public key line"),
        ("version: 1\ngrants:\n- on: '*'\n", 3, "either a user or a group"),
        ("version: 1\ngrants:\n- {user: alice, on: web-1, color: red}\n", 3, "color"),
        ("version: 1\ngrants:\n- user: alice\n  on: ''\n", 4, "no server named"),
        ("version: 1\ngrants:\n- user: alice\n  on: a\n  until: soon\n", 5, "is no time"),
        ("version: 1\ngrants:\n- user: alice\n  on: a\n  sudo: yes\n", 5, ""),
        ("version: 1\nusers:\n  a:\n    <<: {mail: x}\n", 4, "merge"),
        ("version: 1\nusers:\n  a: &a {mail: x}\n  b: *a\n", 3, "anchor"),
        ("version: 1\nusers:\n\talice: {}\n", 3, ""),
    ] {
        let error = read_text(text).expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.contains(&format!("line {line}")), "{text}: {error}");
    }
    assert!(read_text("").is_err() && read_text("[]").is_err());
    assert!(read_text("version: 1\n---\nversion: 1\n").is_err());
}

#[test]
fn several_files_are_one_and_say_each_thing_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let a = file("a.yaml", "version: 1\nusers:\n  alice: {}\ngrants:\n- {user: alice, on: a}\n");
    let b =
        file("b.json", r#"{"version":1,"users":{"bob":{}},"grants":[{"user":"bob","on":"*"}]}"#);
    let both = read(&[a.clone(), b.clone()]).expect("one policy");
    assert_eq!(both.users.map(|users| users.len()), Some(2));
    assert_eq!(both.grants.map(|grants| grants.len()), Some(2));
    assert_eq!(both.groups, None);
    let c = file("c.yaml", "version: 1\nusers:\n  bob: {}\n");
    let error = read(&[a, b, c]).expect_err("bob is there twice").to_string();
    assert!(error.starts_with("users: bob is in ") && error.contains("c.yaml"), "{error}");
    let twice = read(&["-".into(), "-".into()]);
    assert!(matches!(twice, Err(PolicyFileError::StdinTwice)));
    assert!(matches!(read(&["/nowhere".into()]), Err(PolicyFileError::Read { .. })));
}

#[test]
fn what_looks_like_something_else_is_written_so_that_it_is_read_as_it_was() {
    for word in [
        "no",
        "~",
        "null",
        "true",
        "0x1F",
        "1e3",
        "2026-12-01",
        "- a",
        "a: b",
        "#",
        " x ",
        "",
        "<<",
        "é\u{85}",
        "\"",
        "'",
    ] {
        let json = serde_json::json!({
            "version": 1,
            "users": {
                "no": {"full-name": word, "mail": word, "keys": [format!("{KEY} {word}").trim_end()]},
                "null": {},
            },
            "servers": {"1.5": {"labels": {"role": "no", "on": "1"}}},
            "grants": [{"user": "no", "on": "*", "reason": word, "until": "2026-12-01T18:00:00Z"}],
        });
        let policy: Policy = serde_json::from_value(json).expect("a policy");
        let yaml = to_yaml(&policy).expect("YAML");
        assert_eq!(parse("it", &yaml).expect("read again"), policy, "{yaml}");
        let json = to_json(&policy).expect("JSON");
        assert_eq!(parse("it", &json).expect("read again"), policy, "{json}");
    }
}

#[test]
fn the_example_of_the_manual_is_understood() {
    let manual = include_str!("../../../docs/operations.md");
    let (_, rest) = manual.split_once("```yaml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let policy = read_text(example).expect("the example");
    let Policy { sudo_policies, users, groups, servers, grants, .. } = policy;
    assert!(sudo_policies.is_some() && users.is_some() && groups.is_some());
    assert!(servers.is_some() && grants.is_some());
}

#[test]
fn a_hundred_thousand_lines_are_read_in_seconds() {
    let mut text = String::from("version: 1\nusers:\n");
    for number in 0..20_000 {
        text.push_str(&format!(
            "  user{number}:\n    full-name: User {number}\n    keys:\n    - {KEY}\n"
        ));
    }
    text.push_str("grants:\n");
    for number in 0..10_000 {
        text.push_str(&format!("- user: user{number}\n  on: role=web\n"));
    }
    assert!(text.lines().count() > 100_000);
    let begun = Instant::now();
    let policy = read_text(&text).expect("a policy");
    assert_eq!(policy.users.map(|users| users.len()), Some(20_000));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// What is short to write and endless to read, or deep enough to cost the stack.
#[test]
fn bombs_are_refused_at_once() {
    let mut laughs = String::from("version: 1\nx0: &x0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]\n");
    for number in 1..20 {
        let before = format!("*x{},", number - 1).repeat(9);
        laughs.push_str(&format!("x{number}: &x{number} [{before}]\n"));
    }
    for bomb in [
        laughs,
        format!("version: 1\nusers: {}", "[".repeat(1_000_000)),
        format!("version: 1\nusers: {}", "{a: ".repeat(1_000_000)),
        format!("version: 1\n{}", "? ".repeat(1_000_000)),
        format!("version: 1\nusers:\n{}", "- ".repeat(1_000_000)),
        (0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect(),
        "version: 1\nusers: !include /etc/shadow\n".to_owned(),
        "---\n".repeat(1_000_000),
    ] {
        let begun = Instant::now();
        let error = read_text(&bomb).expect_err("refused");
        assert!(!error.contains("root:"), "{error}");
        assert!(error.len() < 2000, "{}", error.len());
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_file_beyond_the_limit_is_not_read_to_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policy.yaml");
    File::create(&path).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
    let refused = read(&[path]);
    assert!(matches!(refused, Err(PolicyFileError::TooLarge(_))), "{refused:?}");
}
