//! Whole accounts and whole servers. What is done, and in which order, is decided in `agent/src/reconcile`.

use bastio_protocol::{
    AccountSpec, Comment, KeyGrant, Removal, Sudo, Username, WantedAccount, WantedState,
};

use super::*;

/// An account with a key and a sudo rule.
fn whole() -> WantedAccount {
    let keys = [KeyGrant::plain(key())].into();
    WantedAccount { keys, sudo: Sudo::Plain, ..WantedAccount::default() }
}

fn set_user(user: &'static str, wanted: WantedAccount) -> Wish {
    Wish::Action(user, Action::SetUser { wanted: Box::new(wanted) })
}

#[test]
fn a_whole_account_is_made() {
    require_root!();
    let wish = set_user("bob", whole());
    let scenario = Scenario::new("whole account made", &["bob"], wish);
    prove(&Scenario { script: "useradd foreign", ..scenario });
}

#[test]
fn an_account_becomes_another() {
    require_root!();
    prove(&Scenario {
        before: vec![alice(Action::AddUser { sudo: false })],
        script: "printf '# a note\nssh-rsa foreign line' >> /home/alice/.ssh/authorized_keys",
        ..Scenario::new("account changed as a whole", &["alice"], set_user("alice", whole()))
    });
}

#[test]
fn an_account_of_others_is_taken_over() {
    require_root!();
    let wanted = WantedAccount { take_over: true, ..whole() };
    prove(&Scenario {
        script: "useradd -m -s /bin/sh -c 'made by hand' alice; useradd foreign; \
                 install -d -o alice -g alice -m 700 /home/alice/.ssh; cd /home/alice/.ssh; \
                 printf '# a note\nssh-rsa foreign line\n' > authorized_keys; \
                 chown alice:alice authorized_keys; chmod 600 authorized_keys",
        ..Scenario::new("account taken over", &["alice"], set_user("alice", wanted))
    });
}

/// One account is made, two with keys more, one changes, one goes; others' stay.
#[test]
fn a_server_becomes_another() {
    require_root!();
    let spec =
        AccountSpec { comment: Some(Comment::parse("Alice").unwrap()), ..AccountSpec::default() };
    let accounts = [
        ("alice", WantedAccount { spec, ..whole() }),
        ("bob", whole()),
        ("cleo", whole()),
        ("dan", WantedAccount::default()),
    ];
    let accounts = accounts.map(|(name, wanted)| (Username::parse(name).unwrap(), wanted));
    let removal = Some(Removal::Quarantine);
    let wanted = WantedState { accounts: accounts.into(), removal, ..WantedState::default() };
    prove(&Scenario {
        before: vec![
            alice(Action::AddUser { sudo: false }),
            Wish::Action("eve", Action::AddUser { sudo: true }),
            Wish::Action("eve", Action::AddKey { public_key: key() }),
        ],
        // What fails for one account of many is told, and does not end the others.
        faults: &[Fault::Kill],
        // Which range of ids a new account gets must not depend on whether eve has gone already.
        script: "useradd --groups sudo foreign; sed -i /^eve:/d /etc/subuid /etc/subgid",
        ..Scenario::new(
            "server changed as a whole",
            &["alice", "bob", "cleo", "dan", "eve"],
            Wish::State(Box::new(wanted)),
        )
    });
}
