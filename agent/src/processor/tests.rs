//! Every state of the table in the room's doc, against accounts that exist in memory only.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;

use bastio_protocol::MessageId;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid};

use super::work::Work;
use super::*;
use crate::accounts::{Tool, ToolError, ToolFault};
use crate::keys_on_disk::{KeysOnDiskError, Owner};
use crate::reconcile::fake::{FakeHost, go_on};
use crate::reconcile::host::NewAccount;

mod host;
mod receipts;
mod wanted;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

/// Accounts in memory. Each verb is noted by name; the one named by `fails` fails.
#[derive(Default)]
pub(super) struct Fake {
    pub accounts: RefCell<BTreeMap<String, FakeAccount>>,
    pub calls: RefCell<Vec<&'static str>>,
    left_over: bool,
    group: bool,
    no_sudo: bool,
    home_missing: bool,
    home_fate: Option<HomeFate>,
    fails: Cell<Option<&'static str>>,
    /// The accounts as reconciling sees them.
    pub host: FakeHost,
}

#[derive(Clone, Default)]
pub(super) struct FakeAccount {
    stranger: bool,
    system: bool,
    sudo: bool,
    closed: bool,
    keys: Vec<PublicKey>,
}

impl Fake {
    fn with(account: FakeAccount) -> Self {
        let fake = Self::default();
        fake.accounts.borrow_mut().insert("alice".to_owned(), account);
        fake
    }

    fn ours() -> Self {
        Self::with(FakeAccount::default())
    }

    fn verb(&self, name: &'static str) -> Result<(), AccountsError> {
        self.calls.borrow_mut().push(name);
        match self.fails.get() {
            Some(fails) if fails == name => Err(ToolError {
                tool: Tool::Usermod,
                fault: ToolFault::CannotUpdate,
                stderr: "usermod: cannot lock /etc/passwd".to_owned(),
            }
            .into()),
            _ => Ok(()),
        }
    }

    fn edit<T>(&self, account: &Account, edit: impl FnOnce(&mut FakeAccount) -> T) -> T {
        edit(self.accounts.borrow_mut().get_mut(account.name.as_str()).unwrap())
    }

    fn home(&self) -> Result<(), AccountsError> {
        if self.home_missing {
            return Err(KeysOnDiskError::HomeMissing(PathBuf::from("/home/alice")).into());
        }
        Ok(())
    }
}

fn changed(changed: bool) -> Change {
    if changed { Change::Changed } else { Change::Unchanged }
}

impl Accounts for Fake {
    fn find(&self, name: &Username) -> Result<Option<Account>, AccountsError> {
        if self.fails.get() == Some("find") {
            return Err(AccountsError::LookUp { what: "the account".into(), errno: Errno::EIO });
        }
        Ok(self.accounts.borrow().get(name.as_str()).map(|account| Account {
            name: name.clone(),
            owner: Owner { uid: Uid::from_raw(1000), gid: Gid::from_raw(1000) },
            home: PathBuf::from("/home").join(name.as_str()),
            is_system: account.system,
            is_managed: !account.stranger,
        }))
    }

    fn group_exists(&self, _: &Username) -> Result<bool, AccountsError> {
        Ok(self.group)
    }

    fn left_over_home(&self, name: &Username) -> Result<Option<LeftOver>, AccountsError> {
        let path = PathBuf::from("/home").join(name.as_str());
        Ok(self.left_over.then(|| LeftOver { path, owner: "carol".to_owned() }))
    }

    fn can_give_sudo(&self) -> Result<bool, AccountsError> {
        Ok(!self.no_sudo)
    }

    fn create_plain(
        &self,
        name: &Username,
        sudo: bool,
        _: NewAccount,
    ) -> Result<Account, AccountsError> {
        self.verb("create")?;
        let account = FakeAccount { sudo, ..FakeAccount::default() };
        self.accounts.borrow_mut().insert(name.to_string(), account);
        Ok(self.find(name)?.unwrap())
    }

    fn set_plain_sudo(&self, account: &Account, sudo: bool) -> Result<Change, AccountsError> {
        if self.edit(account, |account| account.sudo) == sudo {
            return Ok(Change::Unchanged);
        }
        self.verb(if sudo { "join" } else { "leave" })?;
        self.edit(account, |account| account.sudo = sudo);
        Ok(Change::Changed)
    }

    fn close_access(&self, account: &Account) -> Result<Option<String>, AccountsError> {
        self.verb("close_access")?;
        self.edit(account, |account| account.closed = true);
        Ok(None)
    }

    fn reopen_access(&self, account: &Account) -> Result<Change, AccountsError> {
        let was_closed = self.edit(account, |account| std::mem::take(&mut account.closed));
        Ok(changed(was_closed))
    }

    fn end_processes(&self, _: &Account) -> Result<(), AccountsError> {
        if self.fails.get() == Some("end_processes") {
            return Err(AccountsError::StillRunning { count: 2, seconds: 5 });
        }
        self.verb("end_processes")
    }

    fn delete(&self, account: &Account, _: Removal) -> Result<HomeFate, AccountsError> {
        self.verb("delete")?;
        self.accounts.borrow_mut().remove(account.name.as_str());
        Ok(self.home_fate.clone().unwrap_or(HomeFate::Removed))
    }

    fn repair_key_files(&self, _: &Account) -> Result<(), AccountsError> {
        self.home()?;
        self.verb("repair")
    }

    fn insert_key(&self, account: &Account, key: &PublicKey) -> Result<Change, AccountsError> {
        self.home()?;
        self.verb("insert_key")?;
        Ok(self.edit(account, |account| {
            let is_new = !account.keys.contains(key);
            account.keys.push(key.clone());
            changed(is_new)
        }))
    }

    fn remove_key(&self, account: &Account, key: &PublicKey) -> Result<Change, AccountsError> {
        self.home()?;
        self.verb("remove_key")?;
        Ok(self.edit(account, |account| {
            let before = account.keys.len();
            account.keys.retain(|found| found != key);
            changed(account.keys.len() < before)
        }))
    }
}

pub(super) fn key(comment: &str) -> PublicKey {
    PublicKey::parse(&format!("{KEY} {comment}"), &KeyPolicy::ANY).unwrap()
}

pub(super) fn message(action: Action) -> ActionMessage {
    let username = Username::parse("alice").unwrap();
    ActionMessage { mid: MessageId::from("m-1"), username, action }
}

fn add_user(sudo: bool) -> Action {
    Action::AddUser { sudo }
}

fn update_user(sudo: bool) -> Action {
    Action::UpdateUser { sudo }
}

fn add_key() -> Action {
    Action::AddKey { public_key: key("at home") }
}

fn remove_key() -> Action {
    Action::RemoveKey { public_key: key("at work") }
}

fn act(processor: &mut Processor<Fake>, action: Action) -> FeedbackMessage {
    let feedback =
        processor.process(&Work::Action(message(action)), Extent::All, &mut go_on).unwrap();
    processor.save_ledger();
    feedback
}

/// Processes one action; status, text, and the verbs that changed something.
fn process(fake: Fake, action: Action) -> (u16, String, Vec<&'static str>, Processor<Fake>) {
    let mut processor = Processor::new(fake, KeyPolicy::default());
    let feedback = act(&mut processor, action);
    assert_eq!(feedback.mid, MessageId::from("m-1"));
    let calls = processor.accounts.calls.take();
    (feedback.status.code(), feedback.feedback, calls, processor)
}

#[track_caller]
fn check(fake: Fake, action: Action, status: u16, text: &str, calls: &[&str]) {
    let name = action.name();
    let (found_status, found_text, found_calls, _) = process(fake, action);
    assert_eq!((found_status, found_calls.as_slice()), (status, calls), "{name}: {found_text}");
    assert!(found_text.starts_with(text), "{name}: {found_text}");
}

#[test]
fn add_user_makes_what_is_absent() {
    for sudo in [false, true] {
        let (status, text, _, processor) = process(Fake::default(), add_user(sudo));
        assert_eq!((status, text.as_str()), (200, "alice was created successfully"));
        assert_eq!(processor.accounts.accounts.borrow()["alice"].sudo, sudo);
    }
}

#[test]
fn add_user_refuses_before_anything_is_made() {
    let left_over = Fake { left_over: true, ..Fake::default() };
    let text = "a folder is left over at /home/alice, it belongs to carol; move it away";
    check(left_over, add_user(false), 500, text, &[]);
    let group = Fake { group: true, ..Fake::default() };
    check(group, add_user(false), 500, "a group alice exists already", &[]);
    let no_sudo = || Fake { no_sudo: true, ..Fake::default() };
    check(no_sudo(), add_user(true), 500, "this host has neither a group sudo nor wheel", &[]);
    check(no_sudo(), add_user(false), 200, "alice was created successfully", &["create"]);
}

#[test]
fn add_user_on_an_account_of_ours_brings_it_in_line() {
    let with = |sudo, closed| Fake::with(FakeAccount { sudo, closed, ..FakeAccount::default() });
    check(with(false, false), add_user(false), 300, "alice already exists", &["repair"]);
    check(with(true, false), add_user(true), 300, "alice already exists", &["repair"]);
    let rights = "alice already exists; its sudo rights were changed";
    check(with(false, false), add_user(true), 200, rights, &["repair", "join"]);
    check(with(true, false), add_user(false), 200, rights, &["repair", "leave"]);
    let access = "alice already exists; its access was opened again";
    check(with(false, true), add_user(false), 200, access, &["repair"]);
}

#[test]
fn a_missing_home_is_an_error_with_a_hint() {
    for action in [add_user(false), add_key(), remove_key()] {
        let fake = Fake { home_missing: true, ..Fake::ours() };
        check(fake, action, 500, "the home /home/alice is missing; make it again", &[]);
    }
}

#[test]
fn update_user_ends_as_asked() {
    let with = |sudo| Fake::with(FakeAccount { sudo, ..FakeAccount::default() });
    let added = "alice was added to the sudo group successfully";
    check(with(false), update_user(true), 200, added, &["join"]);
    check(with(true), update_user(true), 200, added, &[]);
    let removed = "alice was removed from the sudo group successfully";
    check(with(true), update_user(false), 200, removed, &["leave"]);
    let not_a_member = "alice is not a member of the sudo group";
    check(with(false), update_user(false), 300, not_a_member, &[]);
    let no_sudo = || Fake { no_sudo: true, ..Fake::ours() };
    check(no_sudo(), update_user(true), 500, "this host has neither", &[]);
    check(no_sudo(), update_user(false), 300, not_a_member, &[]);
}

#[test]
fn remove_user_closes_ends_and_deletes_in_this_order() {
    let all = ["close_access", "end_processes", "delete"];
    check(
        Fake::ours(),
        Action::RemoveUser { removal: None },
        200,
        "alice was removed successfully",
        &all,
    );
    let home_fate = Some(HomeFate::Left("/home/alice belongs to uid 0".to_owned()));
    let left = Fake { home_fate, ..Fake::ours() };
    let text = "alice was removed successfully; its home was left: /home/alice belongs to uid 0";
    check(left, Action::RemoveUser { removal: None }, 200, text, &all);
    for (fate, told) in [
        (HomeFate::Kept("/home/alice".into()), "its home was kept: /home/alice"),
        (
            HomeFate::Locked("/home/alice".into()),
            "the account stays, locked, with its home /home/alice",
        ),
        (HomeFate::Quarantined("/home/q".into()), "its home was moved to quarantine: /home/q"),
    ] {
        let fake = Fake { home_fate: Some(fate), ..Fake::ours() };
        let text = format!("alice was removed successfully; {told}");
        check(fake, Action::RemoveUser { removal: None }, 200, &text, &all);
    }
    check(Fake::default(), Action::RemoveUser { removal: None }, 300, "alice does not exist", &[]);
}

#[test]
fn a_removal_that_fails_leaves_access_closed_and_says_so() {
    for fails in ["end_processes", "delete"] {
        let fake = Fake { fails: Cell::new(Some(fails)), ..Fake::ours() };
        let (status, text, _, mut processor) = process(fake, Action::RemoveUser { removal: None });
        assert_eq!(status, 500, "{text}");
        assert!(text.starts_with("access of alice is closed, but"), "{text}");
        assert!(processor.accounts.accounts.borrow()["alice"].closed);
        // The same again, with the cause gone, ends as it should have.
        processor.accounts.fails.set(None);
        assert_eq!(act(&mut processor, Action::RemoveUser { removal: None }).status, Status::Done);
    }
}

#[test]
fn keys_are_compared_without_their_comments() {
    let with_key =
        || Fake::with(FakeAccount { keys: vec![key("other")], ..FakeAccount::default() });
    check(Fake::ours(), add_key(), 200, "added public key to alice successfully", &["insert_key"]);
    let exists = format!("public key `{KEY} at home` for alice already exists");
    check(with_key(), add_key(), 300, &exists, &["insert_key"]);
    let removed = "removed public key from alice successfully";
    check(with_key(), remove_key(), 200, removed, &["remove_key"]);
    let absent = "public key for alice does not exist";
    check(Fake::ours(), remove_key(), 300, absent, &["remove_key"]);
}

#[test]
fn a_line_of_others_is_told_as_such() {
    let with_key = || {
        let fake = Fake::with(FakeAccount { keys: vec![key("other")], ..FakeAccount::default() });
        let mut alice = crate::reconcile::fake::account(&Username::parse("alice").unwrap(), 1001);
        alice.keys.as_mut().unwrap().foreign.push(key("other"));
        fake.host.insert(alice);
        fake
    };
    let exists = format!(
        "public key `{KEY} at home` for alice already exists; that line is not bastio's: it stays as it \
         is until the key is removed"
    );
    check(with_key(), add_key(), 300, &exists, &["insert_key"]);
    let removed =
        "removed public key from alice successfully; a line with it that others wrote went, too";
    check(with_key(), remove_key(), 200, removed, &["remove_key"]);
}

#[test]
fn a_key_below_the_policy_is_refused_and_can_still_be_removed() {
    let rsa = include_str!("tests/rsa1024.pub");
    let public_key = PublicKey::parse(rsa, &KeyPolicy::ANY).unwrap();
    let add = Action::AddKey { public_key: public_key.clone() };
    check(Fake::ours(), add, 500, "an RSA key of 1024 bits; at least 2048 are required", &[]);
    let keys = vec![public_key.clone()];
    let fake = Fake::with(FakeAccount { keys, ..FakeAccount::default() });
    check(fake, Action::RemoveKey { public_key }, 200, "removed public key", &["remove_key"]);
}

#[test]
fn absent_accounts_are_said_to_be_absent() {
    for action in [update_user(true), update_user(false), add_key(), remove_key()] {
        check(Fake::default(), action, 500, "alice does not exist", &[]);
    }
}

fn every_action() -> [Action; 7] {
    [
        add_user(false),
        add_user(true),
        update_user(false),
        update_user(true),
        Action::RemoveUser { removal: None },
        add_key(),
        remove_key(),
    ]
}

#[test]
fn strangers_and_the_system_are_never_touched() {
    for action in every_action() {
        let stranger = FakeAccount { stranger: true, ..FakeAccount::default() };
        let text = "alice exists already and is not managed by bastio; to hand it over,";
        check(Fake::with(stranger), action.clone(), 500, text, &[]);
        let system = FakeAccount { system: true, ..FakeAccount::default() };
        let text = "alice is an account of the system itself";
        check(Fake::with(system), action, 500, text, &[]);
    }
}

#[test]
fn a_failed_look_up_is_never_read_as_absent() {
    for action in every_action() {
        let fake = Fake { fails: Cell::new(Some("find")), ..Fake::default() };
        check(fake, action, 500, "cannot look up the account: EIO", &[]);
    }
}

#[test]
fn a_failing_tool_is_answered_with_its_words() {
    for (fails, action) in [
        ("create", add_user(false)),
        ("join", update_user(true)),
        ("close_access", Action::RemoveUser { removal: None }),
        ("insert_key", add_key()),
    ] {
        let fake = if fails == "create" { Fake::default() } else { Fake::ours() };
        fake.fails.set(Some(fails));
        let (status, text, ..) = process(fake, action);
        assert_eq!(status, 500);
        assert!(text.contains("(usermod: cannot lock /etc/passwd)"), "{text}");
    }
}

#[test]
fn every_action_done_twice_ends_the_same() {
    for action in every_action() {
        let mut processor = Processor::new(Fake::ours(), KeyPolicy::default());
        let mut state = Vec::new();
        for _ in 0..2 {
            let feedback = act(&mut processor, action.clone());
            assert!(feedback.status.is_success(), "{}", feedback.feedback);
            let accounts = processor.accounts.accounts.borrow();
            let account = accounts.get("alice");
            state.push(account.map(|a| (a.sudo, a.closed, a.keys.contains(&key("")))));
        }
        assert_eq!(state[0], state[1], "{}", action.name());
    }
}
