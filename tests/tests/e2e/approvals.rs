//! Two operators: what makes root waits for the second one's signature.

use std::time::Duration;

use bastio_tests::{Finished, SshKey, World, require_root};
use serde_json::Value;

use crate::faults::Site;

const LIMIT: Duration = Duration::from_secs(40);

/// An operator with a login and a key of their own.
struct Operator<'s, 'w> {
    site: &'s Site<'w>,
    token: String,
    home: String,
}

impl Operator<'_, '_> {
    fn runs(&self, words: &[&str]) -> Finished {
        let command = self.site.backend.console(words).unwrap();
        let command = command.env("BASTIO_TOKEN", &self.token).env("XDG_CONFIG_HOME", &self.home);
        command.run().unwrap()
    }

    #[track_caller]
    fn ends(&self, words: &[&str], code: i32) -> Finished {
        let finished = self.runs(words);
        assert_eq!(finished.code(), Some(code), "{}\n{}", finished.stdout, finished.stderr);
        finished
    }
}

#[test]
fn what_makes_root_is_done_once_a_second_operator_has_signed_it() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start_with(&world, "[approvals]\nneeded_for = \"root\"\n");
    let server = site.enrol(site.host("web-1").without_sshd());
    site.backend.wait_connected(1, LIMIT).unwrap();
    let key = SshKey::generate(&world, "key", &["ed25519"]).unwrap();
    let key = key.public_file().display().to_string();
    let home = |name: &str| world.folder().join(name).display().to_string();
    let first =
        Operator { site: &site, token: site.backend.token().to_owned(), home: home("first") };
    first.ends(&["operator", "key"], 0);

    // A second operator is made by the backend's host, while there is only one.
    let config = world.folder().join("backend.toml");
    let backend = bastio_tests::binary("bastio-backend").unwrap();
    let made = world.command(backend).arg("--config").arg(config).arg("admin-token").check();
    let made = made.unwrap().stdout;
    let token = made.lines().find_map(|line| line.strip_prefix("admin token: ")).unwrap();
    let second = Operator { site: &site, token: token.to_owned(), home: home("second") };
    second.ends(&["operator", "key"], 0);

    let asked = ["user", "add", "alice", "--key", &key, "--on", "web-1", "--sudo"];
    let told = first.ends(&asked, 4).stderr;
    assert!(told.contains("proposal 1") && told.contains("alice on web-1 (#1): sudo"), "{told}");
    let is_there = || server.host.try_exec(&["id", "alice"]).unwrap().success();
    assert!(!is_there());
    assert!(second.ends(&["proposal", "ls"], 0).stdout.contains("POST /users"));
    let own = first.ends(&["proposal", "approve", "1", "--yes"], 1).stderr;
    assert!(own.contains("cannot approve it"), "{own}");
    second.ends(&["proposal", "approve", "1", "--yes"], 0);
    assert!(is_there());
    let groups = server.host.try_exec(&["id", "-nG", "alice"]).unwrap().stdout;
    assert!(groups.contains("sudo"), "{groups}");

    // Another API key waits, too, and opens nothing until then.
    let waits = first.ends(&["api-key", "add", "carol", "--role", "admin"], 4);
    let carol =
        Operator { site: &site, token: waits.stdout.trim().to_owned(), home: home("carol") };
    carol.ends(&["status"], 1);
    second.ends(&["proposal", "approve", "2", "--yes"], 0);
    carol.ends(&["status"], 0);

    // What was signed is in the log, and verified without the backend.
    let file = world.folder().join("audit.jsonl").display().to_string();
    first.ends(&["log", "export", "--file", &file], 0);
    let verified = first.ends(&["log", "verify", &file], 0);
    assert!(verified.stderr.contains("approvals: 2 signed"), "{}", verified.stderr);
    let text = String::from_utf8(world.read_file(&file).unwrap()).unwrap();
    let row = text.lines().find(|line| line.contains("proposal.approve")).unwrap();
    let row: Value = serde_json::from_str(row).unwrap();
    assert!(row["detail"].as_str().unwrap().contains("signature"), "{row}");
}
