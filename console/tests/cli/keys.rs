//! Public keys from files and stdin, several at once, and their removal.

use serde_json::{Value, json};

use crate::backend::{Answer, Backend, change};
use crate::runner::Machine;

const ONE: &str = "ssh-ed25519 \
                   AAAAC3NzaC1lZDI1NTE5AAAAIMINmOzSQZejrX3zSXobtT2icJMv/ftYuZKNVcnOxohl";
const TWO: &str = "ssh-ed25519 \
                   AAAAC3NzaC1lZDI1NTE5AAAAIEgJ0ePcM0yDbCVGXSpYzMSBsOtRCZXNWBvsGaPRc7lr";

/// The fingerprint as `ssh-keygen -l` shows it.
fn fingerprint(key: &str) -> String {
    let key = bastio_protocol::PublicKey::parse(key, &bastio_protocol::KeyPolicy::default());
    key.expect("a key").fingerprint()
}

fn done() -> Answer {
    Answer::Json(200, change(1, true, &[("web-1", "connected", &["done"])]))
}

#[test]
fn keys_come_from_several_files_and_stdin_each_once() {
    let machine = Machine::new();
    let file = machine.file("a.pub", &format!("# desk\n\n{ONE} a@desk\r\n{ONE} again\n"));
    for arguments in [
        vec!["user", "add", "alice", "--key", &file, "--key", "-"],
        vec!["key", "add", "alice", &file, "-"],
    ] {
        let backend = Backend::start(vec![done()]);
        let variables = [("BASTIO_URL", backend.url.as_str()), ("BASTIO_TOKEN", "bst_env")];
        let run = machine.run(&variables, &arguments, &format!("{TWO} a@phone"));
        assert_eq!(run.code, Some(0), "{run:?}");
        let body = backend.requests().pop().expect("a request").body;
        let expected = json!([format!("{ONE} a@desk"), format!("{TWO} a@phone")]);
        assert_eq!(body.get("keys"), Some(&expected));
    }
}

#[test]
fn keys_are_removed_by_fingerprint_prefix_or_file_in_one_go() {
    let machine = Machine::new();
    let file = machine.file("two.pub", TWO);
    let (one, two) = (fingerprint(ONE), fingerprint(TWO));
    let keys = Answer::Json(
        200,
        json!([{"fingerprint": one, "public_key": ONE, "created": 1},
               {"fingerprint": two, "public_key": TWO, "created": 1}]),
    );
    let prefix: String = one.chars().take(12).collect();
    let backend = Backend::start(vec![keys, done(), done()]);
    let arguments = ["--output", "json", "key", "rm", "alice", &prefix, &one, &file];
    let run = machine.at(&backend.url, &arguments);
    assert_eq!(run.code, Some(0), "{run:?}");
    let printed: Value = serde_json::from_str(&run.stdout).expect("one document");
    let actions = printed.pointer("/servers/0/actions").and_then(Value::as_array);
    assert_eq!(actions.map(Vec::len), Some(2), "both edits on one server: {printed}");
    let escaped = |text: &str| text.replace(':', "%3A").replace('+', "%2B").replace('/', "%2F");
    assert_eq!(
        backend.lines(),
        [
            "GET /api/v1/users/alice/keys".to_owned(),
            format!("DELETE /api/v1/users/alice/keys/{}", escaped(&one)),
            format!("DELETE /api/v1/users/alice/keys/{}", escaped(&two)),
        ]
    );
}

#[test]
fn nothing_is_removed_when_one_of_the_keys_is_not_there() {
    let machine = Machine::new();
    let file = machine.file("two.pub", TWO);
    let one = fingerprint(ONE);
    let keys = json!([{"fingerprint": one, "public_key": ONE, "created": 1}]);
    let backend = Backend::start(vec![Answer::Json(200, keys)]);
    let run = machine.at(&backend.url, &["key", "rm", "alice", &one, &file]);
    assert_eq!(run.code, Some(1), "{run:?}");
    let expected =
        format!("error: alice has no key {}\nhint: see: bastio key ls alice\n", fingerprint(TWO));
    assert_eq!(run.stderr, expected);
    assert_eq!(backend.lines(), ["GET /api/v1/users/alice/keys"]);
}
