//! What version 2 asks for, and what the ledger holds afterwards.

use std::collections::BTreeMap;

use bastio_protocol::{HostMessage, HostRequest, KeyGrant, Sudo, WantedAccount, WantedState};

use super::*;
use crate::reconcile::fake::{account, go_on, name};
use crate::reconcile::host::{AccountFacts, FoundKeys, SudoState};

const NOW: i64 = 1_000_000;

fn processor(folder: &tempfile::TempDir) -> Processor<Fake> {
    let ledger = Ledger::open(folder.path());
    let processor = Processor::new(Fake::default(), KeyPolicy::default()).keeping(ledger);
    Processor { clock: || NOW, ..processor }
}

/// There for the plain verbs and for reconciling.
fn insert_alice(fake: &Fake) {
    fake.accounts.borrow_mut().insert("alice".to_owned(), FakeAccount::default());
    fake.host.insert(account(&name("alice"), 1001));
}

fn sync(processor: &mut Processor<Fake>, wanted: &WantedState, dry_run: bool) -> FeedbackMessage {
    let request = HostRequest::Sync { wanted: Box::new(wanted.clone()), dry_run };
    let message = HostMessage { mid: MessageId::from("h-1"), request };
    let feedback = processor.process(&Work::Host(message), Extent::All, &mut go_on).unwrap();
    processor.save_ledger();
    feedback
}

fn ledger(folder: &tempfile::TempDir) -> BTreeMap<Username, WantedAccount> {
    Ledger::open(folder.path()).wanted().clone()
}

fn with_key() -> WantedAccount {
    WantedAccount { keys: [KeyGrant::plain(key("x"))].into(), ..WantedAccount::default() }
}

#[test]
fn an_account_is_made_as_wanted_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let mut processor = processor(&folder);
    let wanted = WantedAccount { sudo: Sudo::Plain, ..with_key() };
    let set = || Action::SetUser { wanted: Box::new(wanted.clone()) };
    let feedback = act(&mut processor, set());
    assert_eq!((feedback.status.code(), feedback.feedback.as_str()), (200, "2 changes on alice"));
    assert_eq!(feedback.detail.unwrap().changes.len(), 2);
    let feedback = act(&mut processor, set());
    assert_eq!(feedback.status.code(), 300);
    assert_eq!(feedback.feedback, "nothing to change on alice");
    assert_eq!(ledger(&folder), [(name("alice"), wanted)].into());
    assert_eq!(Ledger::open(folder.path()).uid_of(&name("alice")), Some(1000));
}

#[test]
fn a_refused_account_is_not_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let mut processor = processor(&folder);
    insert_alice(&processor.accounts);
    processor
        .accounts
        .host
        .accounts
        .borrow_mut()
        .get_mut(&name("alice"))
        .unwrap()
        .facts
        .account
        .is_managed = false;
    let feedback = act(&mut processor, Action::SetUser { wanted: Box::new(with_key()) });
    assert_eq!(feedback.status.code(), 500);
    assert!(feedback.feedback.contains("not managed by bastio"), "{}", feedback.feedback);
    assert_eq!(feedback.detail.unwrap().failures.len(), 1);
    assert!(ledger(&folder).is_empty());
}

#[test]
fn locks_and_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let mut processor = processor(&folder);
    assert_eq!(act(&mut processor, Action::LockUser).status.code(), 500, "there is none");
    insert_alice(&processor.accounts);
    for (action, status, changes) in [
        (Action::LockUser, 200, 1),
        (Action::LockUser, 300, 0),
        (Action::UnlockUser, 200, 1),
        (Action::UnlockUser, 300, 0),
        (Action::EndSessions, 200, 1),
    ] {
        let is_lock = action == Action::LockUser;
        let feedback = act(&mut processor, action);
        assert_eq!(feedback.status.code(), status, "{}", feedback.feedback);
        assert_eq!(feedback.detail.unwrap().changes.len(), changes);
        assert_eq!(ledger(&folder)[&name("alice")].locked, is_lock);
    }
    let by_hand: [fn(&mut AccountFacts); 3] =
        [|it| it.locked = true, |it| it.barred = true, |it| it.expires = Some(0)];
    for lock in by_hand {
        let mut alice = processor.accounts.host.get("alice").unwrap();
        lock(&mut alice.facts);
        processor.accounts.host.insert(alice);
        assert_eq!(act(&mut processor, Action::UnlockUser).status.code(), 200);
        assert_eq!(act(&mut processor, Action::UnlockUser).status.code(), 300);
    }
    let over = WantedAccount { until: Some(NOW), ..WantedAccount::default() };
    act(&mut processor, Action::SetUser { wanted: Box::new(over) });
    let feedback = act(&mut processor, Action::UnlockUser);
    assert!(feedback.feedback.starts_with("the time of alice was over"), "{}", feedback.feedback);
}

#[test]
fn a_key_that_the_policy_forbids_costs_itself_alone_however_it_is_asked_for() {
    let weak = PublicKey::parse(include_str!("rsa1024.pub"), &KeyPolicy::ANY).unwrap();
    let grants = [KeyGrant::plain(key("k")), KeyGrant::plain(weak.clone())];
    let wanted = WantedAccount { keys: grants.into(), ..WantedAccount::default() };
    let set = |processor: &mut Processor<_>| {
        act(processor, Action::SetUser { wanted: Box::new(wanted.clone()) })
    };
    let whole = |processor: &mut Processor<_>| {
        let accounts = [(name("alice"), wanted.clone())].into();
        let whole = WantedState { accounts, ..WantedState::default() };
        sync(processor, &whole, false)
    };
    let asked: [&dyn Fn(&mut Processor<_>) -> _; 2] = [&set, &whole];
    for ask in asked {
        let folder = tempfile::tempdir().unwrap();
        let mut processor = processor(&folder);
        let feedback: FeedbackMessage = ask(&mut processor);
        assert_eq!(feedback.status.code(), 500);
        let why = format!("alice: the key {}: ", weak.fingerprint());
        assert!(feedback.feedback.starts_with(&why), "{}", feedback.feedback);
        let failures = feedback.detail.unwrap().failures;
        assert_eq!((failures.len(), failures[0].username.as_ref()), (1, Some(&name("alice"))));
        let found = processor.accounts.host.get("alice").unwrap().keys.unwrap();
        assert_eq!(found.ours, [KeyGrant::plain(key("k"))], "the account has its other key");
    }
}

#[test]
fn break_glass_is_neither_locked_nor_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut processor = processor(&folder).sparing(Some(name("alice")));
    insert_alice(&processor.accounts);
    for action in [Action::LockUser, Action::RemoveUser { removal: None }] {
        let feedback = act(&mut processor, action);
        assert!(feedback.status.code() == 500 && feedback.feedback.contains("break-glass"));
    }
}

#[test]
fn plain_actions_edit_what_is_meant_and_learn_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut processor = processor(&folder);
    insert_alice(&processor.accounts);
    let mut there = processor.accounts.host.get("alice").unwrap();
    there.keys = Ok(FoundKeys { ours: vec![KeyGrant::plain(key("x"))], foreign: vec![] });
    there.sudo = SudoState::Group;
    processor.accounts.host.insert(there);
    let feedback = act(&mut processor, add_key());
    assert!(feedback.detail.is_none(), "as in version 1");
    let expected = WantedAccount { sudo: Sudo::Plain, ..with_key() };
    assert_eq!(ledger(&folder)[&name("alice")], expected);
    act(&mut processor, update_user(false));
    assert_eq!(ledger(&folder)[&name("alice")], with_key());
    act(&mut processor, remove_key());
    assert_eq!(ledger(&folder)[&name("alice")], WantedAccount::default());
    act(&mut processor, Action::RemoveUser { removal: None });
    assert!(ledger(&folder).is_empty());
    assert_eq!(Ledger::open(folder.path()).uid_of(&name("alice")), Some(1001), "for good");
}

#[test]
fn an_account_whose_sudo_is_a_rule_is_learned_from_the_action_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut processor = processor(&folder);
    insert_alice(&processor.accounts);
    let mut there = processor.accounts.host.get("alice").unwrap();
    there.sudo = SudoState::Rule("alice ALL=(ALL:ALL) NOPASSWD: ALL\n".to_owned());
    processor.accounts.host.insert(there);
    act(&mut processor, add_key());
    assert!(ledger(&folder).is_empty(), "nobody can tell what the rule is meant to be");
    act(&mut processor, update_user(true));
    let expected = WantedAccount { sudo: Sudo::Plain, ..WantedAccount::default() };
    assert_eq!(ledger(&folder)[&name("alice")], expected);
}

#[test]
fn a_sync_makes_the_server_so_and_a_dry_run_only_says_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut processor = processor(&folder);
    processor.accounts.host.insert(account(&name("old"), 1005));
    let accounts = [(name("ann"), with_key()), (name("bob"), WantedAccount::default())].into();
    let wanted = WantedState { accounts, ..WantedState::default() };
    let dry = sync(&mut processor, &wanted, true);
    let text = "dry run, nothing was touched: 4 changes on the server";
    assert_eq!((dry.status.code(), dry.feedback.as_str()), (200, text));
    assert!(processor.accounts.host.calls.borrow().is_empty() && ledger(&folder).is_empty());
    let real = sync(&mut processor, &wanted, false);
    assert_eq!((real.status.code(), real.feedback.as_str()), (200, "4 changes on the server"));
    assert_eq!(real.detail.unwrap().changes, dry.detail.unwrap().changes);
    assert_eq!(ledger(&folder), wanted.accounts);
    assert_eq!(Ledger::open(folder.path()).uid_of(&name("old")), Some(1005), "nobody else's");
    assert_eq!(sync(&mut processor, &wanted, false).status.code(), 300);
}

#[test]
fn failures_are_named_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut processor = processor(&folder);
    let names = ["ann", "bob", "cid", "dan", "eve"];
    names.iter().for_each(|name| processor.accounts.host.fail(&format!("create {name}")));
    let accounts = names.iter().map(|it| (name(it), with_key())).collect();
    let feedback = sync(&mut processor, &WantedState { accounts, ..Default::default() }, false);
    assert_eq!(feedback.status.code(), 500);
    assert!(feedback.feedback.starts_with("ann: cannot look up create ann"));
    assert!(feedback.feedback.ends_with("; and 2 more failures; nothing to change on the server"));
    assert_eq!(feedback.detail.unwrap().failures.len(), 5);
}

#[test]
fn an_account_that_comes_back_gets_its_numeric_id_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut processor = processor(&folder);
    let mut ledger = Ledger::open(folder.path());
    ledger.reserve(name("alice"), 1234).unwrap();
    ledger.reserve(name("bob"), 1000).unwrap();
    processor.ledger = Some(ledger);
    processor.accounts.host.homes.borrow_mut().insert(name("alice"), 1234);
    let place = processor.place_of(&name("alice")).unwrap();
    assert_eq!((place.uid, place.keep_home), (Some(1234), true));
    assert_eq!(place.avoid, [1000].into());
}
