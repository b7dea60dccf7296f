//! Lives of actions, cut short at every point: a crash is a journal opened anew.

use std::path::Path;

use bastio_protocol::{
    Action, ActionMessage, HostMessage, HostRequest, KeyPolicy, MessageId, Username, WantedAccount,
    WantedState,
};
use tempfile::TempDir;

use super::super::tests::{Fake, message};
use super::*;
use crate::reconcile::fake::{account, go_on, name};

impl Once<Fake> {
    fn act(&mut self, action: &ActionMessage) -> Outcome {
        self.answer(&Work::Action(action.clone()), &mut go_on).unwrap()
    }
}

const ADD: Action = Action::AddUser { sudo: false };

fn once(folder: &TempDir) -> Once<Fake> {
    let journal = Journal::open(&folder.path().join("state")).unwrap();
    Once::new(Processor::new(Fake::default(), KeyPolicy::default()), journal)
}

/// The agent is killed and comes back: the accounts stay, everything in memory is gone.
fn crash(once: Once<Fake>, folder: &TempDir) -> Once<Fake> {
    let Once { processor, journal, .. } = once;
    drop(journal);
    let journal = Journal::open(&folder.path().join("state")).unwrap();
    let mut once = Once::new(processor, journal);
    redo(&mut once);
    once
}

fn redo(once: &mut Once<Fake>) {
    for begun in once.begun() {
        assert!(once.redo(&begun, &mut go_on));
    }
}

fn numbered(mid: u64, action: Action) -> ActionMessage {
    ActionMessage { mid: MessageId::from_number(mid), ..message(action) }
}

fn calls(once: &Once<Fake>) -> usize {
    once.processor.accounts.calls.borrow().len()
}

fn has_alice(once: &Once<Fake>) -> bool {
    once.processor.accounts.accounts.borrow().contains_key("alice")
}

#[track_caller]
fn feedback(answer: ToConnector) -> FeedbackMessage {
    match answer {
        ToConnector::Feedback(feedback) => feedback,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lost_ledger_reserves_the_ids_in_use_anew() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    for (text, reserved) in [("no ledger", Some(1007)), ("", Some(1007))] {
        let fake = Fake::default();
        fake.host.insert(account(&name("alice"), 1007));
        let journal = Journal::open(&state).unwrap();
        std::fs::write(state.join("ledger.json"), text).unwrap();
        let ledger = Ledger::open(&state);
        let mut once =
            Once::new(Processor::new(fake, KeyPolicy::default()).keeping(ledger), journal);
        once.save_ledger();
        assert_eq!(Ledger::open(&state).uid_of(&name("alice")), reserved);
    }
    // One that is there, or none yet, is believed.
    std::fs::remove_file(state.join("ledger.json")).unwrap();
    let fake = Fake::default();
    fake.host.insert(account(&name("alice"), 1007));
    let journal = Journal::open(&state).unwrap();
    let processor = Processor::new(fake, KeyPolicy::default()).keeping(Ledger::open(&state));
    let once = Once::new(processor, journal);
    assert_eq!(once.processor.ledger.as_ref().unwrap().uid_of(&name("alice")), None);
}

#[test]
fn the_same_action_twice_is_one_effect_and_two_equal_answers() {
    let folder = tempfile::tempdir().unwrap();
    let mut once = once(&folder);
    let first = once.act(&numbered(1, ADD));
    assert_eq!(first.carried_out, Some(Status::Done));
    let effects = calls(&once);
    let second = once.act(&numbered(1, ADD));
    assert_eq!((second.answer, second.carried_out), (first.answer, None));
    assert_eq!(calls(&once), effects);
    once.delivered(2);
    assert_eq!(once.act(&numbered(1, ADD)).carried_out, Some(Status::Unchanged), "on purpose");
}

#[test]
fn one_id_with_another_action_is_another_action() {
    let folder = tempfile::tempdir().unwrap();
    let mut once = once(&folder);
    for (action, status) in [
        (ADD, Status::Done),
        (Action::RemoveUser { removal: None }, Status::Done),
        // Equal to the first, which is not acknowledged; but it was undone since.
        (ADD, Status::Done),
        (ADD, Status::Done),
    ] {
        assert_eq!(feedback(once.act(&numbered(1, action)).answer).status, status);
    }
    assert!(has_alice(&once));
    assert_eq!(once.undelivered(), 4);
}

#[test]
fn killed_after_writing_it_down_it_is_carried_out_and_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut once = once(&folder);
    let action = numbered(1, ADD);
    assert!(matches!(once.journal.take(&action.to_json(), 0), Ok(Taken::New(_))));
    let mut once = crash(once, &folder);
    assert!(has_alice(&once));
    let left = once.new_connector();
    assert_eq!(left.len(), 1);
    assert_eq!(
        feedback(left[0].clone()),
        action.reply(Status::Done, "alice was created successfully")
    );
    once.new_line();
    let effects = calls(&once);
    assert_eq!(once.act(&action).answer, ToConnector::Answered);
    assert_eq!(calls(&once), effects);
}

#[test]
fn killed_after_doing_it_it_is_found_done() {
    let folder = tempfile::tempdir().unwrap();
    let mut once = once(&folder);
    let action = numbered(1, ADD);
    assert!(matches!(once.journal.take(&action.to_json(), 0), Ok(Taken::New(_))));
    once.processor.process(&Work::Action(action.clone()), Extent::All, &mut go_on);
    let mut once = crash(once, &folder);
    let left = once.new_connector();
    assert_eq!(feedback(left[0].clone()).status, Status::Unchanged);
    assert_eq!(left.len(), 1);
}

#[test]
fn killed_before_the_backend_has_the_answers_each_is_handed_over_once_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut once = once(&folder);
    let actions =
        [numbered(1, ADD), numbered(2, Action::RemoveUser { removal: None }), numbered(3, ADD)];
    let answers = actions.each_ref().map(|action| once.act(action).answer);
    once.delivered(1);
    let mut once = crash(once, &folder);
    let effects = calls(&once);
    assert_eq!(once.new_connector(), answers[1..]);
    once.new_line();
    // The backend asks for what it does not know to be answered, and then for something new.
    for action in &actions[1..] {
        assert_eq!(once.act(action).answer, ToConnector::Answered);
    }
    assert_eq!(calls(&once), effects);
    assert!(has_alice(&once));
    assert_eq!(feedback(once.act(&numbered(4, ADD)).answer).status, Status::Unchanged);
    once.delivered(3);
    let mut once = crash(once, &folder);
    assert_eq!(once.new_connector(), []);
}

#[test]
fn an_answer_that_is_delivered_while_the_action_comes_again_is_not_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut once = once(&folder);
    once.act(&numbered(1, ADD));
    once.act(&numbered(2, Action::RemoveUser { removal: None }));
    once.new_line();
    once.delivered(2);
    let effects = calls(&once);
    assert_eq!(once.act(&numbered(1, ADD)).answer, ToConnector::Answered);
    assert_eq!(
        once.act(&numbered(2, Action::RemoveUser { removal: None })).answer,
        ToConnector::Answered
    );
    assert_eq!(calls(&once), effects);
    once.new_line();
    assert_eq!(once.act(&numbered(1, ADD)).carried_out, Some(Status::Done), "long forgotten");
}

/// The backend lost the answer to the first action after it was delivered.
#[test]
fn what_was_overtaken_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut once = once(&folder);
    let (remove, add) = (numbered(1, Action::RemoveUser { removal: None }), numbered(2, ADD));
    once.act(&remove);
    once.act(&add);
    once.delivered(1);
    once.new_line();
    assert_eq!(feedback(once.act(&remove).answer).status, Status::Done);
    assert_eq!(feedback(once.act(&add).answer).status, Status::Done);
    assert!(has_alice(&once), "the last word counts");
    // Also when that order is all that is left of it.
    let mut once = crash(once, &folder);
    once.new_connector();
    assert_eq!(once.act(&add).answer, ToConnector::Answered);
    assert_eq!(feedback(once.act(&remove).answer).status, Status::Done);
    assert_eq!(feedback(once.act(&add).answer).status, Status::Done);
    assert!(has_alice(&once));
}

/// A folder of that name cannot be made where a file stands.
fn block(state: &Path) {
    std::fs::write(state, "").unwrap();
}

#[test]
fn without_a_journal_only_what_closes_access_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    block(&state);
    let mut once = once(&folder);
    once.new_connector();
    let add_key = Action::AddKey { public_key: super::super::tests::key("x") };
    for action in [ADD, Action::UpdateUser { sudo: true }, add_key] {
        let refused = feedback(once.act(&message(action)).answer);
        assert_eq!(refused.status, Status::Failed);
        assert!(refused.feedback.starts_with("cannot keep the journal: "), "{}", refused.feedback);
        assert!(refused.feedback.ends_with("; nothing was done"), "{}", refused.feedback);
    }
    assert_eq!(calls(&once), 0);
    let add = Work::Action(message(Action::AddUser { sudo: true }));
    once.processor.process(&add, Extent::All, &mut go_on);
    let remove_key = Action::RemoveKey { public_key: super::super::tests::key("x") };
    for (action, status) in [
        (Action::UpdateUser { sudo: false }, Status::Done),
        (remove_key, Status::Unchanged),
        (Action::RemoveUser { removal: None }, Status::Done),
    ] {
        assert_eq!(feedback(once.act(&message(action)).answer).status, status);
    }
    assert!(!has_alice(&once));
    once.delivered(6);
    assert_eq!(once.undelivered(), 0);
    // As soon as it can be kept again, it is.
    std::fs::remove_file(&state).unwrap();
    assert_eq!(feedback(once.act(&message(ADD)).answer).status, Status::Done);
    let mut once = crash(once, &folder);
    assert_eq!(once.new_connector().len(), 1);
}

#[test]
fn what_was_begun_before_the_journal_was_out_of_reach_is_not_done_behind_what_followed() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let mut before = once(&folder);
    before.journal.take(&numbered(1, ADD).to_json(), 0).unwrap();
    drop(before);
    let away = folder.path().join("away");
    std::fs::rename(&state, &away).unwrap();
    block(&state);
    let mut once = once(&folder);
    redo(&mut once);
    once.act(&numbered(2, Action::RemoveUser { removal: None }));
    std::fs::remove_file(&state).unwrap();
    std::fs::rename(&away, &state).unwrap();
    once.act(&numbered(3, Action::RemoveUser { removal: None }));
    let once = crash(once, &folder);
    assert!(!has_alice(&once), "it must not come back");
}

#[test]
fn what_the_journal_holds_and_nobody_can_read_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let mut once = once(&folder);
    once.journal.take(b"of another version", 0).unwrap();
    let mut once = crash(once, &folder);
    assert_eq!(once.new_connector(), []);
    let once = crash(once, &folder);
    assert!(once.journal.unfinished().is_empty());
}

fn sync(names: &[&str], dry_run: bool) -> Work {
    let account = |name: &&str| (Username::parse(name).unwrap(), WantedAccount::default());
    let accounts = names.iter().map(account).collect();
    let wanted = Box::new(WantedState { accounts, ..WantedState::default() });
    let request = HostRequest::Sync { wanted, dry_run };
    Work::Host(HostMessage { mid: MessageId::from_number(9), request })
}

fn host_accounts(once: &Once<Fake>) -> Vec<String> {
    once.processor.accounts.host.accounts.borrow().keys().map(ToString::to_string).collect()
}

#[test]
fn a_sync_cut_short_is_done_again_and_answered_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut once = once(&folder);
    let work = sync(&["ann", "bob"], false);
    assert!(matches!(once.journal.take(&work.to_json(), 0), Ok(Taken::New(_))));
    let mut once = crash(once, &folder);
    assert_eq!(host_accounts(&once), ["ann", "bob"]);
    let left = once.new_connector();
    assert_eq!(left.len(), 1);
    let answer = feedback(left[0].clone());
    assert_eq!((answer.status, answer.detail.unwrap().changes.len()), (Status::Done, 2));
    once.new_line();
    assert_eq!(once.answer(&work, &mut go_on).unwrap().answer, ToConnector::Answered);
}

#[test]
fn a_sync_that_is_stopped_has_no_answer_and_is_finished_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut once = once(&folder);
    let work = sync(&["ann", "bob", "cid"], false);
    let mut stop = || std::ops::ControlFlow::Break(());
    assert!(once.answer(&work, &mut stop).is_none());
    assert_eq!((host_accounts(&once), once.undelivered()), (vec!["ann".to_owned()], 0));
    // Stopped again while it is finished.
    let Once { processor, journal, .. } = once;
    drop(journal);
    let journal = Journal::open(&folder.path().join("state")).unwrap();
    let mut once = Once::new(processor, journal);
    let begun = once.begun();
    assert_eq!(begun.len(), 1);
    assert!(!once.redo(&begun[0], &mut stop));
    assert!(once.new_connector().is_empty());
    let mut once = crash(once, &folder);
    assert_eq!(host_accounts(&once), ["ann", "bob", "cid"]);
    let left = once.new_connector();
    assert_eq!(left.len(), 1);
    assert_eq!(feedback(left[0].clone()).status, Status::Done);
    assert!(once.begun().is_empty());
}

#[test]
fn without_a_journal_a_sync_only_closes_access() {
    let folder = tempfile::tempdir().unwrap();
    block(&folder.path().join("state"));
    let mut once = once(&folder);
    for name in ["ann", "bob"] {
        let name = Username::parse(name).unwrap();
        once.processor.accounts.host.insert(crate::reconcile::fake::account(&name, 1001));
    }
    let dry = feedback(once.answer(&sync(&["ann", "cid"], true), &mut go_on).unwrap().answer);
    assert_eq!(dry.status, Status::Done, "looking needs no journal");
    let real = feedback(once.answer(&sync(&["ann", "cid"], false), &mut go_on).unwrap().answer);
    assert_eq!(real.status, Status::Failed);
    assert!(real.feedback.starts_with("cannot keep the journal: "), "{}", real.feedback);
    assert!(real.feedback.ends_with("1 change on the server, closing access only"));
    assert_eq!(host_accounts(&once), ["ann"]);
}

mod kept;
