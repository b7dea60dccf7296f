//! Accounts of which version 1 cannot say everything, and grants that meet in one account.

use bastio_protocol::{KeyOptions, SudoPolicy};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;

fn options(text: &str) -> KeyOptions {
    if text.is_empty() {
        return KeyOptions::default();
    }
    KeyOptions::parse(text).expect("options")
}

fn policy(command: &str) -> Sudo {
    Sudo::Policy(Box::new(SudoPolicy {
        commands: vec![command.parse().expect("a command")],
        run_as: Vec::new(),
        password: false,
        not_before: None,
        not_after: None,
    }))
}

fn sudo() -> impl Strategy<Value = Sudo> {
    prop_oneof![
        2 => Just(Sudo::None),
        2 => Just(Sudo::Plain),
        1 => Just(policy("/bin/a")),
        1 => Just(policy("/bin/b")),
    ]
}

fn ends() -> impl Strategy<Value = Option<i64>> {
    option::of(1_i64..4)
}

fn key_grants() -> impl Strategy<Value = Vec<KeyGrant>> {
    let words = prop_oneof![3 => Just(""), 1 => Just("no-pty"), 1 => Just("restrict")];
    let one = (0_u8..4, words, ends()).prop_map(|(number, words, until)| KeyGrant {
        public_key: key(number),
        options: options(words),
        until,
    });
    vec(one, 0..3)
}

fn some_rights() -> impl Strategy<Value = Rights> {
    let words = prop_oneof![3 => Just(""), 1 => Just("no-pty"), 1 => Just("restrict")];
    (sudo(), ends(), words, key_grants(), any::<bool>()).prop_map(
        |(sudo, until, words, keys, locked)| Rights {
            sudo,
            until,
            key_options: options(words),
            keys,
            locked,
            ..Rights::default()
        },
    )
}

/// Accounts as grants make them, plain ones and others.
fn whole_accounts() -> impl Strategy<Value = Accounts> {
    let grants = vec((logins(), some_rights()), 0..5);
    let granted = grants.prop_map(|grants| desired(&model_of(grants), &web(&[])));
    (granted, accounts(), any::<bool>()).prop_map(|(granted, plain, mixed)| {
        let mut all = if mixed { plain } else { Accounts::new() };
        all.extend(granted);
        all
    })
}

fn model_of(grants: Vec<(Username, Rights)>) -> Vec<Entitlement> {
    let everywhere = |(login, rights)| Entitlement { on: on("*"), login, rights };
    grants.into_iter().map(everywhere).collect()
}

/// Whether the account lets the key in at `now`, and whether without any restriction.
fn lets_in(whole: &WantedAccount, public_key: &PublicKey, now: i64) -> Option<bool> {
    let key = whole.keys.iter().find(|key| key.public_key == *public_key)?;
    let open = !whole.locked && whole.key_until(key).is_none_or(|until| until > now);
    open.then(|| key.options.is_empty())
}

/// The same of one grant.
fn grants_it(rights: &Rights, public_key: &PublicKey, now: i64) -> Option<bool> {
    let keys = rights.keys.iter().filter(|key| key.public_key == *public_key);
    let open = |until: Option<i64>| until.is_none_or(|until| until > now);
    let ways = keys.filter(|key| !rights.locked && open(rights.until) && open(key.until));
    ways.map(|key| key.options.is_empty() && rights.key_options.is_empty()).max()
}

proptest! {
    #[test]
    fn the_difference_leads_there_also_where_more_is_to_be_said(
        wanted in whole_accounts(), present in whole_accounts(),
    ) {
        let steps = difference(&wanted, &present);
        prop_assert_eq!(&projected(present.clone(), &steps), &wanted);
        prop_assert!(difference(&wanted, &wanted).is_empty());
        for step in &steps {
            let plain = |all: &Accounts| all.get(&step.login).is_none_or(Account::is_plain);
            let is_set = matches!(step.action, Action::SetUser { .. });
            let is_removal = matches!(step.action, Action::RemoveUser { .. });
            let needs_set = !plain(&wanted) || !plain(&present);
            prop_assert!(is_removal || is_set == needs_set, "{step:?}");
        }
    }

    #[test]
    fn a_revised_queue_leads_there_too(
        present in whole_accounts(), first in whole_accounts(), second in whole_accounts(),
        speaks_version_2 in any::<bool>(),
    ) {
        let mut queue = vec![Step { login: login("alice"), action: Action::EndSessions }];
        for wanted in [first, second] {
            queue = revised(&wanted, &present, &queue, speaks_version_2);
            prop_assert_eq!(&projected(present.clone(), &queue), &wanted);
            prop_assert!(queue.iter().any(|step| step.action == Action::EndSessions));
        }
    }

    #[test]
    fn what_nobody_is_sure_of_is_said_again_as_a_whole(
        wanted in whole_accounts(), present in whole_accounts(), suspects in whole_accounts(),
    ) {
        let mut suspects = suspects;
        suspects.values_mut().for_each(|account| account.more = More::Unsure);
        let counted = with_suspects(present, &suspects, &wanted);
        let steps = difference(&wanted, &counted);
        for login in suspects.keys() {
            let action = match wanted.get(login) {
                Some(wanted) => Action::SetUser { wanted: Box::new(wanted.whole()) },
                None => Action::RemoveUser { removal: None },
            };
            let told = steps.contains(&Step { login: login.clone(), action });
            prop_assert!(told, "{login}");
        }
    }

    #[test]
    fn an_account_gives_nothing_that_no_grant_gives(grants in vec(some_rights(), 1..5)) {
        let model = model_of(grants.iter().map(|rights| (login("a"), rights.clone())).collect());
        let (accounts, conflicts) = merge(&model, &web(&[]));
        let whole = accounts[&login("a")].whole();
        for now in 0..5 {
            let open = |until: Option<i64>| until.is_none_or(|until| until > now);
            for number in 0..4 {
                let key = key(number);
                let given = grants.iter().filter_map(|rights| grants_it(rights, &key, now)).max();
                let got = lets_in(&whole, &key, now);
                prop_assert!(got <= given, "{key} at {now}: {got:?} of {given:?}");
            }
            let plain = |rights: &Rights| !rights.locked && rights.sudo == Sudo::Plain;
            let anything = grants.iter().any(|rights| plain(rights) && open(rights.until));
            let unlimited = match &whole.sudo {
                Sudo::None => false,
                Sudo::Plain => true,
                Sudo::Policy(policy) => policy.commands.is_empty(),
            };
            let holds = unlimited && !whole.locked && open(whole.sudo_until());
            prop_assert!(!holds || anything, "sudo at {now}");
        }
        // At the beginning everybody who may come comes, but for what contradicts itself.
        if conflicts.is_empty() {
            for number in 0..4 {
                let key = key(number);
                let given = grants.iter().filter_map(|rights| grants_it(rights, &key, 0)).max();
                prop_assert_eq!(lets_in(&whole, &key, 0), given);
            }
        }
    }

    #[test]
    fn the_order_of_grants_does_not_matter(
        grants in vec((logins(), some_rights()), 0..5).prop_shuffle(),
    ) {
        let mut turned = grants.clone();
        turned.reverse();
        let (host, grants) = (web(&[]), model_of(grants));
        prop_assert_eq!(desired(&grants, &host), desired(&model_of(turned), &host));
    }
}

#[test]
fn grants_that_contradict_each_other_are_named_and_give_less() {
    let rights = |sudo: Sudo, words: &str| Rights {
        sudo,
        key_options: options(words),
        keys: vec![KeyGrant::plain(key(1))],
        ..Rights::default()
    };
    let two = |one, other| {
        let model = model_of(vec![(login("a"), one), (login("a"), other)]);
        let (accounts, conflicts) = merge(&model, &web(&[]));
        (accounts[&login("a")].whole(), conflicts)
    };
    let (whole, conflicts) = two(rights(policy("/bin/a"), ""), rights(policy("/bin/b"), ""));
    assert_eq!((whole.sudo, conflicts.len()), (Sudo::None, 1));
    assert_eq!(conflicts[0].to_string(), "a on web-1: the grants give two different sudo policies");
    let (whole, conflicts) = two(rights(Sudo::None, "no-pty"), rights(Sudo::None, "restrict"));
    assert!(whole.keys.is_empty());
    assert!(matches!(conflicts[0].why, Clash::Options(_)));
    let (whole, conflicts) = two(rights(Sudo::Plain, "no-pty"), rights(policy("/bin/a"), ""));
    assert_eq!((whole.sudo.clone(), conflicts), (Sudo::Plain, vec![]));
    assert_eq!(whole.keys, [KeyGrant::plain(key(1))].into());
}

#[test]
fn options_of_a_key_and_of_a_grant_together_never_allow_more_than_each() {
    let joined = |of_key: &str, of_grant: &str| {
        let key = KeyGrant { options: options(of_key), ..KeyGrant::plain(key(1)) };
        let key_options = options(of_grant);
        let rights = Rights { keys: vec![key], key_options, ..Rights::default() };
        let (accounts, conflicts) = merge(&model_of(vec![(login("a"), rights)]), &web(&[]));
        let whole = accounts[&login("a")].whole();
        assert_eq!(whole.keys.is_empty(), !conflicts.is_empty());
        whole.keys.first().map(|key| key.options.to_string())
    };
    let is = |text: &str| Some(text.to_owned());
    assert_eq!(joined("restrict", "restrict,from=\"10.0.0.1\""), is("restrict,from=\"10.0.0.1\""));
    assert_eq!(joined("no-pty", "from=\"10.0.0.1\""), is("no-pty,from=\"10.0.0.1\""));
    assert_eq!(joined("restrict,pty", "restrict,pty"), is("restrict,pty"));
    for (of_key, of_grant) in [
        ("restrict", "restrict,pty"),
        ("restrict,pty", "restrict"),
        ("restrict,pty", "restrict,port-forwarding"),
        ("permitopen=\"a:1\"", "permitopen=\"b:2\""),
        ("permitlisten=\"1\"", "no-pty,permitlisten=\"2\""),
    ] {
        assert_eq!(joined(of_key, of_grant), None, "{of_key} and {of_grant}");
    }
}

#[test]
fn a_grant_that_ends_beside_one_that_stays_takes_its_rights_along() {
    let stays = Rights { keys: vec![KeyGrant::plain(key(1))], ..Rights::default() };
    let ends = Rights { sudo: Sudo::Plain, until: Some(7), ..stays.clone() };
    let model = model_of(vec![(login("a"), stays.clone()), (login("a"), ends)]);
    let whole = desired(&model, &web(&[]))[&login("a")].whole();
    assert_eq!((whole.until, whole.sudo_until()), (None, Some(7)));
    assert_eq!(whole.keys, [KeyGrant::plain(key(1))].into());
}

#[test]
fn a_locked_person_brings_nothing_to_an_account_that_others_have() {
    let open = Rights { keys: vec![KeyGrant::plain(key(1))], ..Rights::default() };
    let locked = Rights {
        keys: vec![KeyGrant::plain(key(2))],
        sudo: Sudo::Plain,
        locked: true,
        ..Rights::default()
    };
    let model =
        model_of(vec![(login("a"), open), (login("a"), locked.clone()), (login("b"), locked)]);
    let mut accounts = desired(&model, &web(&[]));
    assert_eq!(accounts[&login("a")], account(false, &[1]));
    let alone = accounts[&login("b")].whole();
    assert!(alone.locked && alone.keys.len() == 1, "locked with all that it has");
    for_version_1(&mut accounts);
    assert_eq!(accounts[&login("b")], account(false, &[]));
}
