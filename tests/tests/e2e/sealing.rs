//! The signing key under a passphrase: sealed, waited for, opened while the backend runs.

use std::time::Duration;

use bastio_tests::{Finished, SshKey, World, binary, require_root};

use crate::faults::Site;

const LIMIT: Duration = Duration::from_secs(40);
const PASSPHRASE: &str = "five words that nobody guesses";

fn on_backend(world: &World, words: &[&str], input: &str) -> Finished {
    let config = world.folder().join("backend.toml");
    let command = world.command(binary("bastio-backend").unwrap()).arg("--config").arg(config);
    command.args(words).input(input).run().unwrap()
}

#[test]
fn a_sealed_key_is_opened_while_the_backend_runs() {
    require_root!();
    let world = World::new().unwrap();
    let mut site = Site::start(&world);
    let server = site.enrol(site.host("web-1").without_sshd());
    let key = SshKey::generate(&world, "key", &["ed25519"]).unwrap();
    let key = key.public_file().display().to_string();
    site.backend.wait_connected(1, LIMIT).unwrap();
    assert!(on_backend(&world, &["key", "status"], "").stdout.contains("plain"));
    let seal = ["key", "seal", "--passphrase-file", "-"];
    let refused = on_backend(&world, &seal, PASSPHRASE);
    assert!(!refused.success() && refused.stderr.contains("another backend"), "{}", refused.stderr);
    assert!(site.backend.process().stop(LIMIT).unwrap().success());
    let short = on_backend(&world, &seal, "short");
    assert!(!short.success() && short.stderr.contains("at least 12"), "{}", short.stderr);
    let sealed = on_backend(&world, &seal, PASSPHRASE);
    assert!(sealed.success() && sealed.stdout.contains("sealed (Argon2id"), "{}", sealed.stderr);
    let file = world.read_file(site.backend.state_folder().join("signing_key")).unwrap();
    assert!(file.starts_with(b"bastio sealed signing key, version 1\n"));

    // Locked: the agent is connected, the edit is taken, nothing is done.
    site.backend.restart().unwrap();
    site.backend.wait_connected(1, LIMIT).unwrap();
    let status = site.backend.ask(&["status"]).unwrap();
    assert!(status["sealed"].as_str().unwrap().contains("bastio unseal"), "{status}");
    site.done(&["user", "add", "alice", "--key", &key, "--on", "web-1", "--no-wait"]);
    let is_there = || server.host.try_exec(&["id", "alice"]).unwrap().success();
    assert!(!is_there());
    let unseal = |with: &str| site.backend.console(&["unseal"]).unwrap().input(with).run().unwrap();
    let wrong = unseal("five words that somebody guesses");
    assert_eq!(wrong.code(), Some(1));
    assert!(wrong.stderr.contains("wrong passphrase"), "{}", wrong.stderr);
    assert!(!is_there());

    // Open: what waited is done, and what follows, without a restart.
    let opened = unseal(&format!("{PASSPHRASE}\n"));
    assert!(opened.success() && opened.stderr.contains("is open"), "{}", opened.stderr);
    site.done(&["user", "add", "bob", "--key", &key, "--on", "web-1"]);
    assert!(is_there());
    let log = site.backend.log().unwrap();
    assert!(log.contains("the signing key is sealed"), "{log}");
    let told = site.done(&["log", "--action", "signing-key.*", "--output", "json"]).stdout;
    assert!(told.contains("signing-key.unseal-refused"), "{told}");
    for words in ["nobody guesses", "somebody guesses"] {
        assert!(!log.contains(words) && !told.contains(words), "never logged");
    }

    // A rotation takes the passphrase; its file opens the next start.
    assert!(site.backend.process().stop(LIMIT).unwrap().success());
    let rotate = ["rotate-signing-key", "--passphrase-file", "-"];
    let refused = on_backend(&world, &rotate, "another five words here");
    assert!(
        !refused.success() && refused.stderr.contains("wrong passphrase"),
        "{}",
        refused.stderr
    );
    let rotated = on_backend(&world, &rotate, PASSPHRASE);
    assert!(rotated.success(), "{}", rotated.stderr);
    let file = world.folder().join("passphrase");
    world.write_file(&file, PASSPHRASE).unwrap();
    world.command("chmod").arg("600").arg(&file).check().unwrap();
    let config = world.folder().join("backend.toml");
    let text = String::from_utf8(world.read_file(&config).unwrap()).unwrap();
    let text = format!("{text}\n[signing]\npassphrase_file = \"{}\"\n", file.display());
    world.write_file(&config, text).unwrap();
    site.backend.restart().unwrap();
    site.backend.wait_connected(1, LIMIT).unwrap();
    site.done(&["user", "add", "carol", "--key", &key, "--on", "web-1"]);
    assert!(server.host.try_exec(&["id", "carol"]).unwrap().success());
}
