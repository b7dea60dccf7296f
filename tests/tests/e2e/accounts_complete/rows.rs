//! Accounts that are made in a row: each is looked after while the next one is made.

use super::*;

fn row(names: &[&str], stop_behind: usize) -> Value {
    json!({"create-row": {"names": names, "stop_behind": stop_behind}})
}

/// Those of `names` that are managed accounts with an id and a home of their own.
fn whole(host: &Host, names: &[&str]) -> Vec<String> {
    let mut uids = BTreeSet::new();
    let is_whole = |name: &&str| {
        let line = fields(host, "/etc/passwd", name);
        let Some(uid) = line.get(2) else { return false };
        let home = host.exec(&["stat", "--format=%u", &format!("/home/{name}")]).unwrap().stdout;
        assert_eq!(home.trim(), uid, "{name}");
        assert!(groups_of(host, name).contains("bastio-managed"), "{name}");
        assert!(uids.insert(uid.clone()), "{name} has the id of another");
        true
    };
    names.iter().copied().filter(is_whole).map(str::to_owned).collect()
}

#[test]
fn each_of_a_row_is_made_or_told_why_not() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    host.exec(&["groupadd", "bob"]).unwrap();
    host.exec(&["mkdir", "/home/dan"]).unwrap();
    host.exec(&["useradd", "eve"]).unwrap();
    let names = ["ann", "bob", "cid", "dan", "eve", "fay", "gus"];
    let told = done(&host, &row(&names, 99));
    let told: Vec<&str> = told.split('|').collect();
    let words =
        ["ann", "group bob exists", "cid", "something is there", "eve exists", "fay", "gus"];
    assert_eq!(told.len(), words.len(), "{told:?}");
    for (told, word) in told.iter().zip(words) {
        assert!(told.contains(word), "{told} does not say: {word}");
    }
    let made = ["ann", "cid", "fay", "gus"];
    assert_eq!(whole(&host, &made), made);
    let strangers = ["bob", "dan"].map(|name| fields(&host, "/etc/passwd", name).len());
    assert_eq!(strangers, [1, 1], "no account was made of these");
    assert!(!groups_of(&host, "eve").contains("bastio-managed"), "somebody else's stays so");
}

#[test]
fn a_row_that_is_stopped_leaves_nothing_half_made() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let names = ["ann", "bob", "cid", "dan", "eve"];
    let told = done(&host, &row(&names, 2));
    let told: Vec<&str> = told.split('|').collect();
    assert!((2..=3).contains(&told.len()), "{told:?}");
    assert_eq!(whole(&host, &names), told, "what was told is there, and nothing else");
}

/// What looks good while the account before it is made may be spoilt by that very account: its tool runs slowly here.
#[test]
fn what_changes_while_another_is_made_is_seen() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let (tool, real) = ("/usr/sbin/useradd", "/usr/sbin/useradd.real");
    host.exec(&["mv", tool, real]).unwrap();
    // While ann is made, somebody else makes a folder at the home of bob and takes the name of cid.
    let script = format!(
        "#!/bin/sh\nfor name; do :; done\n{real} \"$@\" || exit\ncase $name in\n\
         ann) sleep 1; mkdir /home/bob;;\ndan) sleep 1; {real} eve;;\nesac\n"
    );
    host.write_file(tool, script.as_bytes()).unwrap();
    host.exec(&["chmod", "755", tool]).unwrap();
    let told = done(&host, &row(&["ann", "bob", "dan", "eve"], 99));
    let told: Vec<&str> = told.split('|').collect();
    for (told, word) in told.iter().zip(["ann", "something is there", "dan", "the name is taken"]) {
        assert!(told.contains(word), "{told} does not say: {word}");
    }
    assert_eq!(told.len(), 4);
    assert_eq!(whole(&host, &["ann", "dan"]), ["ann", "dan"]);
    assert_eq!(fields(&host, "/etc/passwd", "bob").len(), 1);
    assert!(!groups_of(&host, "eve").contains("bastio-managed"), "somebody else's stays so");
}
