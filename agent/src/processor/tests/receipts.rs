//! What a receipt says of each action, and when there is none.

use bastio_protocol::{
    HostMessage, HostRequest, KeyGrant, Receipt, ServerId, SigningKey, Standing, StateOfAccount,
    WantedAccount, WantedState,
};

use super::super::receipt::Notary;
use super::*;
use crate::reconcile::fake::{account, name};

const NOW: i64 = 1_000_000;

fn notary() -> Notary {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let key = SigningKey::from_pkcs8(&[&head[..], &[7; 32]].concat()).unwrap();
    Notary::new(ServerId::from_number(7), key)
}

fn processor(folder: &tempfile::TempDir) -> Processor<Fake> {
    let ledger = Ledger::open(folder.path());
    let processor = Processor::new(Fake::default(), KeyPolicy::default()).keeping(ledger);
    processor.accounts.accounts.borrow_mut().insert("alice".to_owned(), FakeAccount::default());
    processor.accounts.host.insert(account(&name("alice"), 1001));
    Processor { clock: || NOW, ..processor }
}

/// The receipt of the answer, which is the key's own and about this action, or none.
fn receipt(processor: &mut Processor<Fake>, work: &Work) -> Option<Receipt> {
    let mut feedback = processor.process(work, Extent::All, &mut go_on).unwrap();
    processor.certify(&notary(), work, &mut feedback, 12);
    let receipt = feedback.receipt?;
    assert_eq!(receipt.verify(&notary().verifying_key()), Ok(()));
    let occasion = receipt.occasion();
    assert_eq!((occasion.sequence, occasion.at), (12, NOW));
    assert_eq!((occasion.mid, occasion.status), (feedback.mid, feedback.status));
    assert_eq!((occasion.server.as_str(), occasion.action.as_str()), ("7", work.name()));
    Some(*receipt)
}

fn of(processor: &mut Processor<Fake>, action: Action) -> Option<Receipt> {
    receipt(processor, &Work::Action(message(action)))
}

#[track_caller]
fn says(receipt: Option<Receipt>, standing: Standing<'_>, sessions_ended: bool) {
    let alice = name("alice");
    let state = StateOfAccount { login: &alice, standing, sessions_ended };
    assert_eq!(receipt.unwrap().state_of(&alice), Some(state.hash()), "{}", state.text());
}

#[test]
fn an_account_is_certified_as_it_is_meant_to_be_after_each_action() {
    let folder = tempfile::tempdir().unwrap();
    let mut processor = processor(&folder);
    let with_sudo = WantedAccount { sudo: bastio_protocol::Sudo::Plain, ..Default::default() };
    says(of(&mut processor, update_user(true)), Standing::Present(&with_sudo), false);
    says(of(&mut processor, Action::EndSessions), Standing::Present(&with_sudo), true);
    says(of(&mut processor, Action::LockUser), Standing::Locked, false);
    says(of(&mut processor, Action::LockUser), Standing::Locked, false);
    let wanted = WantedAccount { keys: [KeyGrant::plain(key("x"))].into(), ..Default::default() };
    let set = Action::SetUser { wanted: Box::new(wanted.clone()) };
    says(of(&mut processor, set), Standing::Present(&wanted), false);
    let over = WantedAccount { until: Some(NOW), ..wanted };
    let set = Action::SetUser { wanted: Box::new(over) };
    says(of(&mut processor, set), Standing::Locked, true);
}

#[test]
fn removal_ends_access_whatever_becomes_of_the_account() {
    use bastio_protocol::Removal;
    for (removal, standing) in [
        (Some(Removal::Lock), Standing::Locked),
        (Some(Removal::Keep), Standing::Absent),
        (None, Standing::Absent),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut processor = processor(&folder);
        let first = of(&mut processor, Action::RemoveUser { removal }).unwrap();
        assert!(first.ends_access(&name("alice")) && !first.ends_access(&name("bob")));
        says(Some(first), standing, true);
        processor.accounts.accounts.borrow_mut().clear();
        let again = of(&mut processor, Action::RemoveUser { removal });
        says(again, Standing::Absent, true);
    }
}

#[test]
fn what_failed_or_only_looked_is_certified_by_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut processor = processor(&folder);
    processor.accounts.fails.set(Some("close_access"));
    let failed = of(&mut processor, Action::RemoveUser { removal: None });
    assert_eq!(failed, None);
    let wanted = || Box::new(WantedState::default());
    for request in [HostRequest::ReportState, HostRequest::Sync { wanted: wanted(), dry_run: true }]
    {
        let work = Work::Host(HostMessage { mid: MessageId::from("h-1"), request });
        assert_eq!(receipt(&mut processor, &work), None);
    }
}

#[test]
fn a_sync_certifies_all_of_the_server_or_what_of_it_went_well() {
    let folder = tempfile::tempdir().unwrap();
    let mut processor = processor(&folder);
    let wanted = WantedAccount { keys: [KeyGrant::plain(key("x"))].into(), ..Default::default() };
    let accounts = ["ann", "bob"].map(|it| (name(it), wanted.clone())).into();
    let request = HostRequest::Sync {
        wanted: Box::new(WantedState { accounts, ..WantedState::default() }),
        dry_run: false,
    };
    let work = Work::Host(HostMessage { mid: MessageId::from("h-1"), request });
    processor.accounts.host.fail("create bob");
    let part = receipt(&mut processor, &work).unwrap();
    let login = name("ann");
    let standing = Standing::Present(&wanted);
    let ann = StateOfAccount { login: &login, standing, sessions_ended: false };
    assert_eq!(part.state_of(&login), Some(ann.hash()));
    assert_eq!(part.state_of(&name("bob")), None);
    assert!(part.ends_access(&name("alice")), "it was removed");
    assert!(!part.ends_access(&name("carl")), "nothing is known of others");

    processor.accounts.host.fail("");
    let folder = tempfile::tempdir().unwrap();
    let mut processor = self::processor(&folder);
    let whole = receipt(&mut processor, &work).unwrap();
    for (who, ends) in [("ann", false), ("bob", false), ("alice", true), ("carl", true)] {
        assert_eq!(whole.ends_access(&name(who)), ends, "{who}");
    }
}
