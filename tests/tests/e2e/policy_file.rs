//! The model as a file: from `bastio apply` to a real login, again for nothing, and gone with `--prune`.

use bastio_tests::{SshClient, SshKey, World, require_root};

use crate::faults::Site;

#[test]
fn a_file_lets_people_in_and_without_them_takes_them_out() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let server = site.enrol(site.host("web-1"));
    let person = |name: &str| {
        let key = SshKey::generate(&world, name, &["ed25519"]).unwrap();
        let text = format!("  {name}:\n    keys:\n    - {}\n", key.public());
        (SshClient::new(&world, &key), text)
    };
    let ((alice, alices), (bob, bobs)) = (person("alice"), person("bob"));
    let path = world.folder().join("policy.yaml");
    let write = |text: &str| world.write_file(&path, text).unwrap();
    let file = path.display().to_string();
    let rest = "servers:\n  web-1: {labels: {role: web}}\ngroups:\n";
    let grants = "grants:\n- {user: alice, on: role=web, sudo: true}\n";
    let whole = format!(
        "version: 1\nusers:\n{alices}{bobs}{rest}  dev: {{users: [bob]}}\n{grants}- {{group: dev, on: role=web}}\n"
    );
    write(&whole);

    let tried = site.done(&["apply", "-f", &file, "--dry-run"]).stderr;
    assert!(tried.contains("user alice: added") && tried.contains("2 users added"), "{tried}");
    site.done(&["apply", "-f", &file]);
    assert!(server.lets_in(&alice, "alice") && server.lets_in(&bob, "bob"));

    let again = site.done(&["apply", "-f", &file, "--prune"]);
    assert!(again.stderr.contains("nothing to change"), "{} {}", again.stdout, again.stderr);
    let export = site.done(&["export"]).stdout;
    write(&export);
    let again = site.done(&["apply", "-f", &file, "--prune"]);
    assert!(again.stderr.contains("nothing to change"), "{export} {}", again.stderr);

    write(&format!(
        "version: 1\nusers:\n{alices}{rest}  dev: {{}}\n{grants}- {{group: dev, on: role=web}}\n"
    ));
    let kept = site.done(&["apply", "-f", &file]);
    assert!(kept.stderr.contains("nothing to change"), "{}", kept.stderr);
    let tried = site.done(&["apply", "-f", &file, "--prune", "--dry-run"]);
    assert!(tried.stderr.contains("user bob: removed"), "{}", tried.stderr);
    assert!(tried.stdout.contains("remove-user"), "{}", tried.stdout);
    assert!(server.lets_in(&bob, "bob"), "it was only tried");
    site.done(&["apply", "-f", &file, "--prune"]);
    assert!(!server.lets_in(&bob, "bob") && server.lets_in(&alice, "alice"));

    write("version: 1\nusers:\n  alice: {}\n  alice: {}\n");
    let twice = site.bastio(&["apply", "-f", &file]);
    assert_eq!(twice.code(), Some(2), "{}", twice.stderr);
    assert!(twice.stderr.contains("line 4"), "{}", twice.stderr);
    write("version: 1\ngrants:\n- {user: zoe, on: web-9}\n");
    let unknown = site.bastio(&["apply", "-f", &file]);
    assert_eq!(unknown.code(), Some(1), "{}", unknown.stderr);
    assert!(
        unknown.stderr.contains("no user named zoe; grants: user zoe on web-9: there is no server"),
        "{}",
        unknown.stderr
    );
    site.done(&["server", "check", "web-1"]);
}
