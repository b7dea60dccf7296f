//! What must hold for every model and every state of a server.

use bastio_protocol::Target;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;

mod whole;

use crate::testing::{host, key, login};

fn on(text: &str) -> Target {
    text.parse().expect("a target")
}

fn web(labels: &[(&str, &str)]) -> Host {
    let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Host { name: host("web-1"), labels }
}

fn entitlement(target: &str, name: &str, sudo: bool, keys: &[u8]) -> Entitlement {
    let keys = keys.iter().copied().map(key).collect();
    Entitlement { on: on(target), login: login(name), rights: rights(sudo, keys) }
}

fn rights(sudo: bool, keys: Vec<PublicKey>) -> Rights {
    let keys = keys.into_iter().map(KeyGrant::plain).collect();
    Rights { sudo: plain_sudo(sudo), keys, ..Rights::default() }
}

fn account(sudo: bool, keys: &[u8]) -> Account {
    let keys = keys.iter().copied().map(key).collect();
    Account { sudo, keys, ..Account::default() }
}

fn words(steps: &[Step]) -> Vec<String> {
    let word = |step: &Step| match &step.action {
        Action::AddUser { sudo } => format!("add-user {} {sudo}", step.login),
        Action::UpdateUser { sudo } => format!("update-user {} {sudo}", step.login),
        Action::RemoveUser { .. } => format!("remove-user {}", step.login),
        Action::AddKey { public_key } => format!("add-key {} {}", step.login, public_key.comment()),
        Action::RemoveKey { public_key } => {
            format!("remove-key {} {}", step.login, public_key.comment())
        }
        other => format!("{} {}", other.name(), step.login),
    };
    steps.iter().map(word).collect()
}

#[test]
fn grants_of_one_login_become_one_account() {
    let model = [
        entitlement("web-1", "deploy", false, &[1]),
        entitlement("role=web", "deploy", true, &[2]),
        entitlement("role=db", "deploy", false, &[3]),
        entitlement("*", "alice", false, &[1]),
    ];
    let expected = Accounts::from([
        (login("deploy"), account(true, &[1, 2])),
        (login("alice"), account(false, &[1])),
    ]);
    assert_eq!(desired(&model, &web(&[("role", "web")])), expected);
}

#[test]
fn no_grant_means_nobody() {
    assert_eq!(desired(&[], &web(&[])), Accounts::new());
    assert_eq!(desired(&[entitlement("web-2", "a", false, &[1])], &web(&[])), Accounts::new());
}

#[test]
fn gives_before_it_takes() {
    let wanted = Accounts::from([
        (login("alice"), account(false, &[2])),
        (login("bob"), account(true, &[3])),
    ]);
    let present = Accounts::from([
        (login("alice"), account(true, &[1])),
        (login("eve"), account(true, &[4])),
    ]);
    assert_eq!(
        words(&difference(&wanted, &present)),
        [
            "remove-user eve",
            "add-key alice key2@test",
            "remove-key alice key1@test",
            "update-user alice false",
            "add-user bob true",
            "add-key bob key3@test",
        ]
    );
}

#[test]
fn what_is_under_way_for_no_account_does_not_count() {
    let step = |action| Step { login: login("alice"), action };
    let pending = [
        step(Action::AddKey { public_key: key(1) }),
        step(Action::UpdateUser { sudo: true }),
        step(Action::RemoveKey { public_key: key(2) }),
    ];
    assert_eq!(projected(Accounts::new(), &pending), Accounts::new());
}

#[test]
fn a_key_that_was_given_is_never_forgotten() {
    let mut accounts = Accounts::new();
    let action = Action::AddKey { public_key: key(1) };
    confirm(&mut accounts, &Step { login: login("alice"), action });
    assert_eq!(accounts, Accounts::from([(login("alice"), account(false, &[1]))]));
}

fn logins() -> impl Strategy<Value = Username> {
    prop_oneof![Just("alice"), Just("bob"), Just("carol")].prop_map(login)
}

fn accounts() -> impl Strategy<Value = Accounts> {
    let keys = btree_set((0_u8..5).prop_map(key), 0..4);
    let account =
        (any::<bool>(), keys).prop_map(|(sudo, keys)| Account { sudo, keys, ..Account::default() });
    btree_map(logins(), account, 0..4)
}

fn targets() -> impl Strategy<Value = Target> {
    prop_oneof![Just("*"), Just("web-1"), Just("web-2"), Just("role=web"), Just("role!=web")]
        .prop_map(on)
}

/// Entitlements with the number of the person: each person has keys of their own.
fn model() -> impl Strategy<Value = Vec<(u8, Entitlement)>> {
    let grant =
        (0_u8..4, targets(), logins(), any::<bool>()).prop_map(|(user, on, login, sudo)| {
            let keys = vec![key(10 * user), key(10 * user + 1)];
            (user, Entitlement { on, login, rights: rights(sudo, keys) })
        });
    vec(grant, 0..8)
}

proptest! {
    #[test]
    fn the_difference_leads_to_what_is_wanted(wanted in accounts(), present in accounts()) {
        let steps = difference(&wanted, &present);
        let reached = projected(present.clone(), &steps);
        prop_assert_eq!(&reached, &wanted);
        prop_assert!(difference(&wanted, &reached).is_empty());
        let mut confirmed = present;
        steps.iter().for_each(|step| confirm(&mut confirmed, step));
        prop_assert_eq!(confirmed, wanted);
    }

    #[test]
    fn what_is_suspected_and_not_wanted_goes(
        wanted in accounts(), present in accounts(), suspects in accounts(),
    ) {
        let counted = with_suspects(present.clone(), &suspects, &wanted);
        let steps = difference(&wanted, &counted);
        // Whether it is there or not, the removals and the wish hold in the end.
        let mut real = counted.clone();
        steps.iter().for_each(|step| confirm(&mut real, step));
        prop_assert_eq!(&real, &wanted);
        for (login, suspect) in &suspects {
            let told = |action: Action| steps.contains(&Step { login: login.clone(), action });
            match (wanted.get(login), present.get(login)) {
                (None, _) => {
                    let goes = told(Action::RemoveUser { removal: None });
                    prop_assert!(goes, "{login} does not go");
                }
                (Some(wanted), None) => {
                    let comes = told(Action::AddUser { sudo: wanted.sudo });
                    prop_assert!(comes, "{login} does not come first");
                }
                (Some(wanted), Some(present)) => {
                    for key in suspect.keys.difference(&wanted.keys) {
                        let goes = told(Action::RemoveKey { public_key: key.clone() });
                        prop_assert!(goes, "{key} stays");
                    }
                    let sudo = (suspect.sudo || present.sudo) && !wanted.sudo;
                    prop_assert_eq!(told(Action::UpdateUser { sudo: false }), sudo);
                }
            }
        }
    }

    #[test]
    fn what_is_suspected_and_wanted_is_given_again(
        wanted in accounts(), present in accounts(), suspects in accounts(),
    ) {
        let counted = with_suspects(present.clone(), &suspects, &wanted);
        let gifts = |present: &Accounts| -> Vec<Step> {
            difference(&wanted, present).into_iter().filter(gives).collect()
        };
        prop_assert_eq!(gifts(&counted), gifts(&present));
        prop_assert_eq!(with_suspects(present.clone(), &wanted, &wanted), present);
    }

    #[test]
    fn nothing_is_done_twice(wanted in accounts()) {
        prop_assert!(difference(&wanted, &wanted).is_empty());
    }

    #[test]
    fn only_known_accounts_are_removed_or_changed(wanted in accounts(), present in accounts()) {
        for step in difference(&wanted, &present) {
            let known = present.contains_key(&step.login);
            prop_assert!(known || wanted.contains_key(&step.login));
            let takes = matches!(step.action, Action::RemoveUser { .. } | Action::RemoveKey { .. });
            prop_assert!(known || !takes);
        }
    }

    #[test]
    fn nobody_loses_the_last_key_before_the_new_one_works(
        wanted in accounts(), present in accounts(),
    ) {
        let stays = |login: &Username| {
            [&wanted, &present].iter().all(|a| a.get(login).is_some_and(|a| !a.keys.is_empty()))
        };
        let mut now = present.clone();
        for step in difference(&wanted, &present) {
            confirm(&mut now, &step);
            for (login, account) in &now {
                prop_assert!(!stays(login) || !account.keys.is_empty());
            }
        }
    }

    #[test]
    fn the_order_of_edits_does_not_matter(
        model in model().prop_shuffle(), labelled in any::<bool>(),
    ) {
        let host = web(if labelled { &[("role", "web")] } else { &[] });
        let mut grants: Vec<Entitlement> = model.into_iter().map(|(_, grant)| grant).collect();
        let before = desired(&grants, &host);
        grants.sort_by_key(|grant| (grant.login.clone(), grant.on.to_string(), grant.rights.sudo.clone()));
        prop_assert_eq!(desired(&grants, &host), before);
    }

    #[test]
    fn removing_a_person_removes_every_path(model in model(), gone in 0_u8..4) {
        let host = web(&[("role", "web")]);
        let all: Vec<Entitlement> = model.iter().map(|(_, grant)| grant.clone()).collect();
        let rest: Vec<Entitlement> =
            model.into_iter().filter(|(user, _)| *user != gone).map(|(_, grant)| grant).collect();
        let mut present = desired(&all, &host);
        let steps = difference(&desired(&rest, &host), &present);
        steps.iter().for_each(|step| confirm(&mut present, step));
        let theirs = [key(10 * gone), key(10 * gone + 1)];
        for account in present.values() {
            prop_assert!(theirs.iter().all(|key| !account.keys.contains(key)));
            prop_assert!(!account.keys.is_empty(), "an account without anybody stays");
        }
    }

    #[test]
    fn a_revised_queue_leads_to_what_is_wanted(
        present in accounts(), first in accounts(), second in accounts(), third in accounts(),
        spoken in vec(any::<bool>(), 3),
    ) {
        let mut queue = Vec::new();
        for (wanted, speaks_version_2) in [first, second, third].into_iter().zip(spoken) {
            queue = revised(&wanted, &present, &queue, speaks_version_2);
            prop_assert_eq!(&projected(present.clone(), &queue), &wanted);
            prop_assert_eq!(revise(&wanted, &present, &queue), Revised::default());
            let mut now = present.clone();
            for step in &queue {
                let known = wanted.contains_key(&step.login) || present.contains_key(&step.login);
                prop_assert!(known, "{step:?} for nobody");
                confirm(&mut now, step);
                let stays = |a: &Accounts| a.get(&step.login).is_some_and(|a| !a.keys.is_empty());
                prop_assert!(!stays(&wanted) || !stays(&present) || stays(&now), "no key left");
                if let Action::AddKey { public_key } = &step.action {
                    prop_assert!(wanted[&step.login].keys.contains(public_key), "a key not wanted");
                }
            }
        }
    }
}

/// The queue after an edit.
fn revised(
    wanted: &Accounts,
    present: &Accounts,
    queue: &[Step],
    speaks_version_2: bool,
) -> Vec<Step> {
    let Revised { drop, mut add } = revise(wanted, present, queue);
    if speaks_version_2 {
        add = at_once(add, wanted);
    }
    let kept = queue.iter().enumerate().filter(|(place, _)| !drop.contains(place));
    kept.map(|(_, step)| step.clone()).chain(add).collect()
}

#[test]
fn what_is_still_needed_keeps_its_place() {
    let nobody = Accounts::new();
    let first = Accounts::from([(login("alice"), account(true, &[2]))]);
    let queue = revised(&first, &nobody, &[], false);
    assert_eq!(words(&queue), ["add-user alice true", "add-key alice key2@test"]);
    let more = Accounts::from([(login("alice"), account(true, &[1, 2]))]);
    let change = revise(&more, &nobody, &queue);
    assert_eq!(change.drop, [0_usize; 0]);
    assert_eq!(words(&change.add), ["add-key alice key1@test"]);
    let gone = revise(&nobody, &nobody, &queue);
    assert_eq!(gone, Revised { drop: vec![0, 1], add: vec![] });
}
