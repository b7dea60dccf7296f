//! The ledger on a real disk: kept, damaged, in the way, unwritable.

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::guard::file::{Content, SavedFile};

fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

fn account(until: i64) -> WantedAccount {
    WantedAccount { until: Some(until), ..WantedAccount::default() }
}

fn guard() -> Pending {
    let was = Some(Content { bytes: b"old \xff".to_vec(), mode: 0o600, uid: 1, gid: 1 });
    let files = vec![SavedFile { path: "/k".into(), was }];
    Pending { what: "keys of alice".to_owned(), until: 5, files, account: None, sshd: None }
}

/// A ledger with one of everything, saved.
fn full(folder: &Path) -> Ledger {
    let mut ledger = Ledger::open(folder);
    ledger.set(name("alice"), account(7));
    ledger.reserve(name("alice"), 1001).unwrap();
    ledger.set_guard(Some(guard()));
    ledger.save().unwrap();
    ledger
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_saved_is_there_again_and_only_root_may_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = full(folder.path());
    let again = Ledger::open(folder.path());
    assert_eq!(again.book, ledger.book);
    assert!(!again.was_lost());
    assert_eq!(again.wanted()[&name("alice")], account(7));
    assert_eq!(again.uid_of(&name("alice")), Some(1001));
    assert_eq!(again.owner_of(1001), Some(&name("alice")));
    assert_eq!(again.guard(), Some(&guard()));
    let mode = fs::metadata(folder.path().join(NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(names(&folder), [NAME]);
}

#[test]
fn nothing_is_written_when_nothing_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = full(folder.path());
    fs::remove_file(folder.path().join(NAME)).unwrap();
    ledger.set(name("alice"), account(7));
    ledger.forget(&name("bob"));
    ledger.reserve(name("alice"), 1001).unwrap();
    ledger.set_guard(Some(guard()));
    let accounts = [(name("alice"), account(7))].into();
    ledger.replace(&WantedState { accounts, ..WantedState::default() });
    ledger.save().unwrap();
    assert!(names(&folder).is_empty());
    ledger.forget(&name("alice"));
    ledger.save().unwrap();
    let again = Ledger::open(folder.path());
    assert!(again.wanted().is_empty());
    assert_eq!(again.uid_of(&name("alice")), Some(1001), "the id stays hers");
}

#[test]
fn an_id_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = full(folder.path());
    let taken = ledger.reserve(name("bob"), 1001).unwrap_err();
    assert_eq!(taken.to_string(), "the uid 1001 belongs to alice here; choose another");
    ledger.reserve(name("alice"), 2001).unwrap();
    ledger.reserve(name("bob"), 1001).unwrap();
    let reserved_uids = [(name("carol"), 2001), (name("dave"), 1004)].into();
    ledger.replace(&WantedState { reserved_uids, ..WantedState::default() });
    let uids: Vec<Option<u32>> =
        ["alice", "bob", "carol", "dave"].map(|it| ledger.uid_of(&name(it))).into();
    assert_eq!(uids, [Some(2001), Some(1001), None, Some(1004)]);
    assert!(ledger.wanted().is_empty());
}

#[test]
fn damage_is_set_aside_and_a_new_ledger_begun() {
    let good = {
        let folder = tempfile::tempdir().unwrap();
        full(folder.path());
        fs::read_to_string(folder.path().join(NAME)).unwrap()
    };
    let torn = good[..good.len() - 9].to_owned();
    let unknown = good.replacen("{", r#"{"more":1,"#, 1);
    let foreign = good.replace(r#""until":7"#, r#""until":7,"admin":true"#);
    let later = good.replace(r#""form":1"#, r#""form":2"#);
    let bad_name = good.replace("alice", "../alice");
    for text in ["", "null", "[]", &torn, &unknown, &foreign, &later, &bad_name] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), text).unwrap();
        let mut ledger = Ledger::open(folder.path());
        assert!(ledger.was_lost() && ledger.wanted().is_empty(), "{text}");
        let kept = names(&folder);
        assert!(kept.len() == 1 && kept[0].starts_with("ledger.json.damaged-"), "{kept:?}");
        assert_eq!(fs::read_to_string(folder.path().join(&kept[0])).unwrap(), text);
        ledger.set(name("bob"), account(1));
        ledger.save().unwrap();
        assert_eq!(names(&folder).len(), 2);
        assert!(Ledger::open(folder.path()).wanted().contains_key(&name("bob")));
    }
}

#[test]
fn a_link_a_folder_and_a_giant_in_its_place_are_not_read() {
    let make: [fn(&Path); 3] = [
        |path| std::os::unix::fs::symlink("/etc/passwd", path).unwrap(),
        |path| fs::create_dir(path).unwrap(),
        |path| File::create(path).unwrap().set_len(LIMIT + 1).unwrap(),
    ];
    for make in make {
        let folder = tempfile::tempdir().unwrap();
        make(&folder.path().join(NAME));
        let mut ledger = Ledger::open(folder.path());
        assert!(ledger.was_lost());
        ledger.reserve(name("bob"), 1).unwrap();
        ledger.save().unwrap();
        assert_eq!(Ledger::open(folder.path()).uid_of(&name("bob")), Some(1));
    }
}

#[test]
fn what_could_not_be_written_is_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = full(folder.path());
    // A folder stands where the new file would be written.
    let aside = folder.path().join("ledger.json.new");
    fs::create_dir(&aside).unwrap();
    ledger.set(name("bob"), account(1));
    assert!(ledger.save().unwrap_err().to_string().starts_with("cannot write "));
    assert_eq!(Ledger::open(folder.path()).wanted().len(), 1);
    fs::remove_dir(&aside).unwrap();
    ledger.save().unwrap();
    assert_eq!(Ledger::open(folder.path()).wanted().len(), 2);
}

#[test]
fn edits_bring_an_older_file_up_to_date_and_a_newer_one_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = full(folder.path());
    let saved = ledger.revision();
    ledger.set(name("bob"), account(1));
    ledger.reserve(name("bob"), 1002).unwrap();
    let first = ledger.take_edits().unwrap();
    ledger.forget(&name("alice"));
    ledger.set(name("bob"), account(2));
    let second = ledger.take_edits().unwrap();
    assert!(ledger.take_edits().is_none() && !ledger.must_save() && ledger.is_behind());
    let mut again = Ledger::open(folder.path());
    assert_eq!(again.revision(), saved);
    for _ in 0..2 {
        for (revision, edits) in [&first, &second] {
            again.redo(*revision, edits).unwrap();
        }
        assert_eq!(again.book, ledger.book);
    }
    ledger.replace(&WantedState::default());
    assert!(ledger.must_save(), "a whole state is in no edit");
    ledger.save().unwrap();
    let mut again = Ledger::open(folder.path());
    again.redo(first.0, &first.1).unwrap();
    assert_eq!(again.book, ledger.book);
    assert!(again.redo(u64::MAX, b"{").is_err());
}

#[test]
fn in_doubt_the_ids_stay_and_what_is_unread_is_never_done() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = full(folder.path());
    ledger.set(name("bob"), account(1));
    let (revision, edits) = ledger.take_edits().unwrap();
    let mut again = Ledger::open(folder.path());
    again.doubt();
    again.save().unwrap();
    let mut again = Ledger::open(folder.path());
    again.redo(revision, &edits).unwrap();
    assert!(again.wanted().is_empty());
    assert_eq!(again.uid_of(&name("alice")), Some(1001));
}
