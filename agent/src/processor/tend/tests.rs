//! What the processor does by itself, with accounts in memory.

use super::*;
use crate::reconcile::fake::{FakeHost, account, go_on, name, rules};

const NOW: i64 = 1_000_000;

/// The failures in the last word, if there is one.
fn failures(words: &[ToConnector]) -> Option<Vec<String>> {
    match words.last()? {
        ToConnector::Drift(drift) => {
            Some(drift.detail.failures.iter().map(|it| it.text.clone()).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_over_and_cannot_be_taken_is_told_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let host = FakeHost::default();
    host.insert(account(&name("alice"), 1001));
    host.running.borrow_mut().insert(name("alice"));
    host.fail("end_sessions alice");
    let mut ledger = Ledger::open(folder.path());
    let over = WantedAccount { until: Some(NOW - 1), ..WantedAccount::default() };
    ledger.set(name("alice"), over);
    let mut tender =
        Tender::new(Policy::Report, Duration::from_secs(60), folder.path().to_owned()).unwrap();
    let mut site = Site { host: &host, ledger: &mut ledger, rules: rules(NOW) };

    let begun = Instant::now();
    let told = failures(&tender.look(&mut site, &mut go_on)).unwrap();
    assert!(told[0].starts_with("its time is over, and this was not done: "), "{told:?}");
    assert!(host.get("alice").unwrap().facts.locked, "the rest was done");
    let deadline = tender.deadline().unwrap();
    assert!(
        deadline >= begun + Duration::from_secs(9) && deadline < begun + Duration::from_secs(60)
    );
    let tries = || host.calls.borrow().iter().filter(|it| *it == "end_sessions alice").count();
    // Not before its time.
    assert_eq!((failures(&tender.look(&mut site, &mut go_on)), tries()), (None, 1));
    tender.retry.make_due();
    assert_eq!((failures(&tender.look(&mut site, &mut go_on)), tries()), (None, 2));
    host.fails.borrow_mut().clear();
    tender.retry.make_due();
    assert_eq!((failures(&tender.look(&mut site, &mut go_on)), tries()), (Some(vec![]), 3));
    assert!(host.running.borrow().is_empty());
    assert_eq!(tender.deadline(), None);
}

#[test]
fn a_stop_does_not_wait_until_all_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let host = FakeHost::default();
    let mut ledger = Ledger::open(folder.path());
    for text in ["alice", "bob", "cid"] {
        host.insert(account(&name(text), 1001));
        let over = WantedAccount { until: Some(NOW - 1), ..WantedAccount::default() };
        ledger.set(name(text), over);
    }
    let mut tender =
        Tender::new(Policy::Report, Duration::from_secs(60), folder.path().to_owned()).unwrap();
    let mut site = Site { host: &host, ledger: &mut ledger, rules: rules(NOW) };
    tender.look(&mut site, &mut || std::ops::ControlFlow::Break(()));
    let locked = |text| host.get(text).unwrap().facts.locked;
    assert_eq!([locked("alice"), locked("bob"), locked("cid")], [true, false, false]);
}
