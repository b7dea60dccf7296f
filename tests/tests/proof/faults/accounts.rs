//! Accounts that come, change and go. Their system calls are made in `agent/src/accounts` and by useradd(8) and its like.

use bastio_protocol::Removal;

use super::*;

/// Work of alice's, and somebody who is not to be touched.
const HOME_AT_WORK: &str = "useradd --groups sudo foreign; mkdir -p /home/alice/a/b; \
                            echo x > /home/alice/a/b/c; chown -R alice: /home/alice/a";

#[test]
fn an_account_is_made() {
    require_root!();
    let wish = Wish::Action("bob", Action::AddUser { sudo: true });
    prove(&Scenario { script: "useradd foreign", ..Scenario::new("account made", &["bob"], wish) });
}

fn prove_sudo(name: &'static str, sudo: bool) {
    prove(&Scenario {
        before: vec![alice(Action::AddUser { sudo: !sudo })],
        script: "useradd --groups sudo foreign",
        ..Scenario::new(name, &["alice"], alice(Action::UpdateUser { sudo }))
    });
}

#[test]
fn sudo_is_given() {
    require_root!();
    prove_sudo("sudo given", true);
}

#[test]
fn sudo_is_taken() {
    require_root!();
    prove_sudo("sudo taken", false);
}

fn prove_removal(name: &'static str, removal: Removal) {
    let removal = Some(removal);
    prove(&Scenario {
        before: vec![
            alice(Action::AddUser { sudo: true }),
            alice(Action::AddKey { public_key: key() }),
        ],
        script: HOME_AT_WORK,
        ..Scenario::new(name, &["alice"], alice(Action::RemoveUser { removal }))
    });
}

#[test]
fn an_account_is_removed_and_its_home_kept() {
    require_root!();
    prove_removal("account removed, home kept", Removal::Keep);
}

#[test]
fn an_account_is_removed_and_its_home_put_away() {
    require_root!();
    prove_removal("account removed, home put away", Removal::Quarantine);
}

#[test]
fn an_account_is_removed_with_its_home() {
    require_root!();
    prove_removal("account removed, home deleted", Removal::Delete);
}

#[test]
fn an_account_is_locked() {
    require_root!();
    prove(&Scenario {
        before: vec![
            alice(Action::AddUser { sudo: true }),
            alice(Action::AddKey { public_key: key() }),
        ],
        ..Scenario::new("account locked", &["alice"], alice(Action::LockUser))
    });
}

#[test]
fn an_account_is_unlocked() {
    require_root!();
    prove(&Scenario {
        before: vec![
            alice(Action::AddUser { sudo: true }),
            alice(Action::AddKey { public_key: key() }),
            alice(Action::LockUser),
        ],
        ..Scenario::new("account unlocked", &["alice"], alice(Action::UnlockUser))
    });
}
