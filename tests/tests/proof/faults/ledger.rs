//! The writer of the ledger, from the start of a processor to its end. Its system calls are made in `agent/src/ledger.rs`
//! and `agent/src/files.rs`.

use super::*;

/// All on which the ledger's reader and writer make calls.
const PATHS: &[&str] = &[LEDGER, LEDGER_ASIDE, "/var/lib/bastio-agent"];

#[test]
fn a_ledger_is_begun() {
    require_root!();
    let wish = Wish::Action("bob", Action::AddUser { sudo: true });
    prove(&Scenario {
        paths: PATHS,
        promised: 40,
        ..Scenario::new("ledger begun", &["bob"], wish)
    });
}

#[test]
fn a_ledger_is_replaced() {
    require_root!();
    prove(&Scenario {
        before: vec![alice(Action::AddUser { sudo: false })],
        paths: PATHS,
        promised: 40,
        ..Scenario::new("ledger replaced", &["alice"], alice(Action::AddKey { public_key: key() }))
    });
}

#[test]
fn a_ledger_that_is_behind_catches_up() {
    require_root!();
    prove(&Scenario {
        before: vec![alice(Action::AddUser { sudo: false })],
        unsaved: Some(alice(Action::AddKey { public_key: key() })),
        paths: PATHS,
        promised: 40,
        ..Scenario::new("ledger behind", &["alice"], alice(Action::UpdateUser { sudo: true }))
    });
}

#[test]
fn a_damaged_ledger_is_set_aside() {
    require_root!();
    prove(&Scenario {
        before: vec![alice(Action::AddUser { sudo: false })],
        script: "printf damaged > /var/lib/bastio-agent/ledger.json",
        paths: PATHS,
        promised: 40,
        ..Scenario::new("ledger damaged", &["alice"], alice(Action::AddKey { public_key: key() }))
    });
}
