//! The model and real hosts: numeric ids that are the same everywhere, going back to a revision, accounts that
//! were there before, and a backend from a backup.

use std::time::Duration;

use bastio_tests::{SshClient, SshKey, World, require_root};

use crate::faults::{Server, Site, until};

const LIMIT: Duration = Duration::from_secs(40);

/// A person with a key, who may log in nowhere yet.
fn person<'w>(site: &Site<'w>, name: &str) -> SshClient<'w> {
    let key = SshKey::generate(site.world, name, &["ed25519"]).unwrap();
    let file = key.public_file().display().to_string();
    site.done(&["user", "add", name, "--key", &file]);
    SshClient::new(site.world, &key)
}

fn uid(server: &Server, user: &str) -> String {
    server.host.exec(&["id", "-u", user]).unwrap().stdout.trim().to_owned()
}

#[test]
fn a_uid_is_the_same_everywhere_and_never_taken_from_a_hosts_own_account() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start_with(&world, "[uids]\nfrom = 20000\n");
    let (web, db) = (site.enrol(site.host("web-1")), site.enrol(site.host("db-1")));
    db.host.exec(&["useradd", "--create-home", "--uid", "20000", "backup2"]).unwrap();
    let before = db.host.read_file("/etc/passwd").unwrap();
    let alice = person(&site, "alice");
    let refused = site.bastio(&["grant", "add", "alice", "--on", "*"]);
    assert_eq!(refused.code(), Some(1), "{}", refused.stdout);
    assert!(web.lets_in(&alice, "alice") && uid(&web, "alice") == "20000");
    assert_eq!(db.host.read_file("/etc/passwd").unwrap(), before, "it is the host's own");
    let collision = "the uid 20000 belongs to backup2 here";
    for words in [&["plan", "--behind"][..], &["server", "show", "db-1"]] {
        let shown = site.done(words).stdout;
        assert!(shown.contains(collision), "{shown}");
    }
    let shown = site.done(&["user", "show", "alice"]).stdout;
    assert!(shown.contains("20000"), "{shown}");

    // Freed there, it is alice's there, too.
    db.host.exec(&["userdel", "--remove", "backup2"]).unwrap();
    site.done(&["server", "sync", "db-1"]);
    assert!(db.lets_in(&alice, "alice") && uid(&db, "alice") == "20000");

    // Whoever has left keeps the number; whoever comes back has it again.
    site.done(&["user", "rm", "alice", "--yes"]);
    let bob = person(&site, "bob");
    site.done(&["grant", "add", "bob", "--on", "*"]);
    assert!(uid(&web, "bob") == "20001" && uid(&db, "bob") == "20001");
    let taken = site.bastio(&["user", "update", "bob", "--uid", "20000"]);
    assert!(taken.stderr.contains("belongs to alice"), "{}", taken.stderr);
    let key = SshKey::generate(&world, "alice-again", &["ed25519"]).unwrap();
    let file = key.public_file().display().to_string();
    site.done(&["user", "add", "alice", "--key", &file, "--on", "*"]);
    let alice = SshClient::new(&world, &key);
    assert!(web.lets_in(&alice, "alice") && uid(&web, "alice") == "20000");
    assert!(web.lets_in(&bob, "bob"));
}

#[test]
fn going_back_takes_people_out_and_lets_them_in_again() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let (web, db) = (site.enrol(site.host("web-1")), site.enrol(site.host("db-1")));
    let (alice, eve) = (person(&site, "alice"), person(&site, "eve"));
    site.done(&["grant", "add", "alice", "--on", "*", "--sudo"]);
    let revision = || site.backend.ask(&["status"]).unwrap()["revision"].to_string();
    let good = revision();
    site.done(&["grant", "add", "eve", "--on", "web-1,db-1", "--sudo"]);
    let both = revision();
    site.done(&["user", "rm", "alice", "--yes"]);
    assert!(web.lets_in(&eve, "eve") && !web.lets_in(&alice, "alice"));

    let tried = site.done(&["undo", "--to", &good, "--dry-run"]);
    assert!(tried.stderr.contains("user alice: added"), "{}", tried.stderr);
    assert!(!web.lets_in(&alice, "alice"), "it was only tried");
    site.done(&["undo", "--to", &good, "--reason", "a mistake", "--yes-really"]);
    for server in [&web, &db] {
        until(LIMIT, "alice is back", || server.lets_in(&alice, "alice"));
        assert!(!server.lets_in(&eve, "eve"));
    }
    // Back on going back, on one server alone.
    site.done(&["undo", "--to", &both, "--server", "web-1"]);
    assert!(web.lets_in(&eve, "eve") && !db.lets_in(&eve, "eve"));
    let listed = site.done(&["revisions", "--limit", "3"]).stdout;
    assert!(listed.contains(&format!("back to revision {both} on web-1")), "{listed}");
    assert!(listed.contains("key:admin"), "{listed}");
    let then = site.done(&["export", "--revision", &good]).stdout;
    assert!(then.contains("alice") && then.matches("user: ").count() == 1, "{then}");
    let log = site.done(&["log", "--action", "model.undo"]).stdout;
    assert!(log.contains("a mistake"), "{log}");
    site.done(&["server", "check", "--all"]);
}

#[test]
fn an_account_made_by_hand_is_taken_over_and_given_back_as_it_was() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let web = site.enrol(site.host("web-1"));
    let (alice, friend) =
        (person(&site, "alice"), SshKey::generate(&world, "friend", &["ed25519"]));
    let friend = friend.unwrap();
    let alices = site.backend.ask(&["key", "ls", "alice"]).unwrap();
    let alices = alices[0]["public_key"].as_str().unwrap().to_owned();
    let host = &web.host;
    for words in [
        &["useradd", "--create-home", "--shell", "/bin/sh", "--groups", "sudo,adm", "deploy"][..],
        &["usermod", "--password", "*", "deploy"],
        &["install", "-d", "-m", "700", "-o", "deploy", "-g", "deploy", "/home/deploy/.ssh"],
    ] {
        host.exec(words).unwrap();
    }
    let file = "/home/deploy/.ssh/authorized_keys";
    let by_hand = format!("# made by hand\nno-pty {alices}\n{}\n", friend.public());
    host.write_file(file, &by_hand).unwrap();
    host.exec(&["chown", "deploy:deploy", file]).unwrap();
    host.exec(&["chmod", "600", file]).unwrap();
    let friend = SshClient::new(&world, &friend);
    assert!(web.lets_in(&alice, "deploy") && web.lets_in(&friend, "deploy"));
    let facts = || host.exec(&["sh", "-c", "getent passwd deploy; id -nG deploy"]).unwrap().stdout;
    let (uid_before, before) = (uid(&web, "deploy"), facts());

    let listed = site.done(&["adopt", "ls", "web-1"]).stdout;
    let line = listed.lines().find(|line| line.starts_with("deploy ")).unwrap_or_default();
    assert!(line.contains("alice") && line.contains("key") && line.contains("others'"), "{listed}");
    let take = ["adopt", "take", "web-1", "deploy", "--as", "alice", "--yes"];
    let tried = site.done(&[&take[..], &["--dry-run"]].concat());
    assert!(tried.stdout.contains("taken over"), "{}", tried.stdout);
    assert_eq!(facts(), before, "it was only tried");
    site.done(&take);
    assert!(web.lets_in(&alice, "deploy") && web.lets_in(&friend, "deploy"));
    assert!(facts().contains("bastio-managed") && uid(&web, "deploy") == uid_before);
    let listed = site.done(&["adopt", "ls", "web-1"]).stdout;
    assert!(listed.contains("taken over by alice"), "{listed}");
    site.done(&["server", "check", "web-1"]);

    site.done(&["adopt", "release", "web-1", "deploy", "--yes-really"]);
    assert!(web.lets_in(&alice, "deploy") && web.lets_in(&friend, "deploy"));
    let sorted = |text: &str| {
        let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        words.sort();
        words
    };
    assert_eq!(sorted(&facts()), sorted(&before));
    let mut lines: Vec<String> = String::from_utf8(host.read_file(file).unwrap())
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    let mut expected: Vec<String> = by_hand.lines().map(str::to_owned).collect();
    expected.sort();
    assert_eq!(lines, expected);
    site.done(&["server", "check", "web-1"]);
    // What nobody has any more is shut, not deleted.
    site.done(&take);
    site.done(&["user", "rm", "alice", "--yes", "--yes-really"]);
    assert!(!web.lets_in(&alice, "deploy") && !web.lets_in(&friend, "deploy"));
    assert!(host.exists("/home/deploy").unwrap() && uid(&web, "deploy") == uid_before);
    site.done(&["adopt", "release", "web-1", "deploy"]);
    assert!(web.lets_in(&friend, "deploy") && !web.lets_in(&alice, "deploy"));
}

#[test]
fn a_backend_from_a_backup_goes_on_and_lets_nobody_in_again_silently() {
    require_root!();
    let world = World::new().unwrap();
    let mut site = Site::start(&world);
    let web = site.enrol(site.host("web-1"));
    let (alice, eve) = (person(&site, "alice"), person(&site, "eve"));
    site.done(&["grant", "add", "alice", "--on", "*", "--sudo"]);
    site.done(&["grant", "add", "eve", "--on", "*"]);
    let state = site.backend.state_folder();
    let (state, file) = (state.display().to_string(), world.folder().join("b.tar"));
    let file = file.display().to_string();
    let program = bastio_tests::binary("bastio-backend").unwrap();
    let backend = |words: &[&str]| {
        world.command(&program).args(words).args(["--state", &state]).run().unwrap()
    };
    let made = backend(&["backup", &file]);
    assert!(
        made.success() && made.stdout.contains("signing_key"),
        "{}{}",
        made.stdout,
        made.stderr
    );
    // Decided behind the backup.
    site.done(&["user", "rm", "eve", "--yes"]);
    assert!(!web.lets_in(&eve, "eve"));
    let in_use = backend(&["restore", &file]);
    assert!(in_use.stderr.contains("holds a state already"), "{}", in_use.stderr);

    site.backend.process().kill().unwrap();
    world.command("mv").args([&state, &format!("{state}.old")]).check().unwrap();
    let restored = backend(&["restore", &file]);
    assert!(restored.success(), "{}", restored.stderr);
    assert!(restored.stdout.contains("NOT in it"), "{}", restored.stdout);
    site.backend.restart().unwrap();
    site.wait_presence("web-1", "connected", LIMIT);
    let listed = site.done(&["server", "ls"]).stdout;
    assert!(listed.contains("restored: check it"), "{listed}");
    assert!(!web.lets_in(&eve, "eve") && web.lets_in(&alice, "alice"));
    let differs = site.bastio(&["server", "check", "web-1"]);
    assert_eq!(differs.code(), Some(1), "{}", differs.stdout);
    assert!(differs.stdout.contains("eve"), "{}", differs.stdout);
    // The operator puts into the model what it misses.
    site.done(&["user", "rm", "eve", "--yes"]);
    site.done(&["server", "sync", "web-1"]);
    assert!(!web.lets_in(&eve, "eve") && web.lets_in(&alice, "alice"));
    let listed = site.done(&["server", "ls"]).stdout;
    assert!(listed.contains("in sync at"), "{listed}");
}
