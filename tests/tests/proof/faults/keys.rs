//! Keys that come and go. Their system calls are made in `agent/src/keys_on_disk`.

use super::*;

const FOREIGN_LINES: &str =
    "printf '# a note\nssh-rsa foreign line' >> /home/alice/.ssh/authorized_keys";

#[test]
fn the_first_key() {
    require_root!();
    prove(&Scenario {
        before: vec![alice(Action::AddUser { sudo: false })],
        script: "rm -r /home/alice/.ssh",
        ..Scenario::new("first key", &["alice"], alice(Action::AddKey { public_key: key() }))
    });
}

#[test]
fn a_further_key() {
    require_root!();
    prove(&Scenario {
        before: vec![alice(Action::AddUser { sudo: false })],
        script: FOREIGN_LINES,
        ..Scenario::new("further key", &["alice"], alice(Action::AddKey { public_key: key() }))
    });
}

#[test]
fn a_key_is_taken_out() {
    require_root!();
    prove(&Scenario {
        before: vec![
            alice(Action::AddUser { sudo: false }),
            alice(Action::AddKey { public_key: key() }),
        ],
        script: FOREIGN_LINES,
        ..Scenario::new("key taken out", &["alice"], alice(Action::RemoveKey { public_key: key() }))
    });
}
