//! What accounts are meant to be, kept by the journal until the ledger is saved: cut short at every point.

use std::fs;
use std::path::PathBuf;

use super::super::super::tests::FakeAccount;
use super::*;
use crate::reconcile::fake::{account, name};

fn state(folder: &TempDir) -> PathBuf {
    folder.path().join("state")
}

fn keeping(accounts: Fake, folder: &TempDir) -> Once<Fake> {
    let journal = Journal::open(&state(folder)).unwrap();
    let ledger = Ledger::open(&state(folder));
    Once::new(Processor::new(accounts, KeyPolicy::default()).keeping(ledger), journal)
}

/// With an account of ours, alice.
fn begin(folder: &TempDir) -> Once<Fake> {
    let once = keeping(Fake::default(), folder);
    let fake = &once.processor.accounts;
    fake.accounts.borrow_mut().insert("alice".to_owned(), FakeAccount::default());
    fake.host.insert(account(&name("alice"), 1001));
    once
}

/// As after kill -9: only what is on disk is there again. The ledger is as it is before anything is done by itself.
fn killed(once: Once<Fake>, folder: &TempDir) -> Once<Fake> {
    let Once { processor, journal, .. } = once;
    drop(journal);
    let mut once = keeping(processor.accounts, folder);
    redo(&mut once);
    once
}

/// Whether alice is meant to be locked; none where nobody knows.
fn meant(once: &Once<Fake>) -> Option<bool> {
    once.processor.wanted(&name("alice")).map(|wanted| wanted.locked)
}

fn is_locked(once: &Once<Fake>) -> bool {
    once.processor.accounts.host.get("alice").unwrap().facts.locked
}

#[test]
fn an_answer_leaves_without_the_ledger_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut once = begin(&folder);
    once.act(&numbered(1, Action::LockUser));
    assert!(once.is_ledger_behind() && !state(&folder).join("ledger.json").exists());
    once.delivered(1);
    let mut once = killed(once, &folder);
    assert_eq!(meant(&once), Some(true));
    once.save_ledger();
    assert!(!once.is_ledger_behind());
    assert!(once.journal.edits().unwrap().is_empty());
    assert_eq!(meant(&killed(once, &folder)), Some(true));
}

#[test]
fn cut_anywhere_the_ledger_says_what_was_done() {
    for [first, second] in
        [[Action::LockUser, Action::UnlockUser], [Action::UnlockUser, Action::LockUser]]
    {
        let folder = tempfile::tempdir().unwrap();
        let mut once = begin(&folder);
        once.act(&numbered(1, first));
        let before = fs::read(state(&folder).join("journal")).unwrap().len();
        let second = numbered(2, second);
        let mut received = Vec::new();
        crate::journal::record::Record::Received { number: 2, sequence: 0, body: second.to_json() }
            .encode(&mut received);
        once.act(&second);
        let bytes = fs::read(state(&folder).join("journal")).unwrap();
        assert!(before + received.len() < bytes.len());
        for cut in before + received.len()..=bytes.len() {
            fs::write(state(&folder).join("journal"), &bytes[..cut]).unwrap();
            once = killed(once, &folder);
            assert_eq!(meant(&once), Some(is_locked(&once)), "{cut}");
        }
    }
}

#[test]
fn edits_that_a_saved_ledger_has_never_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut once = begin(&folder);
    once.act(&numbered(1, Action::LockUser));
    let journal = fs::read(state(&folder).join("journal")).unwrap();
    once.act(&numbered(2, Action::UnlockUser));
    once.save_ledger();
    // The newer records were never flushed.
    fs::write(state(&folder).join("journal"), journal).unwrap();
    assert_eq!(meant(&killed(once, &folder)), Some(false));
}

#[test]
fn behind_damage_nobody_knows_what_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let mut once = begin(&folder);
    once.act(&numbered(1, Action::LockUser));
    once.act(&numbered(2, Action::UnlockUser));
    let mut bytes = fs::read(state(&folder).join("journal")).unwrap();
    bytes[40] ^= 1;
    fs::write(state(&folder).join("journal"), bytes).unwrap();
    let mut once = killed(once, &folder);
    assert_eq!(meant(&once), None);
    once.act(&numbered(3, Action::LockUser));
    assert_eq!(meant(&killed(once, &folder)), Some(true), "learned anew");
}

#[test]
fn what_the_journal_cannot_keep_the_ledger_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut once = begin(&folder);
    let work = Work::Action(numbered(1, Action::LockUser));
    let error = JournalError::InUse(state(&folder));
    once.without_journal(&work, &error, &mut crate::reconcile::fake::go_on);
    assert!(!once.is_ledger_behind());
    assert_eq!(meant(&killed(once, &folder)), Some(true));
}
