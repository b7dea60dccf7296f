//! The journal on a real disk: reopened, torn, damaged, compacted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

struct Sandbox(TempDir);

impl Sandbox {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Journal {
        Journal::open(&self.folder()).unwrap()
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("lib/agent")
    }

    fn file(&self) -> PathBuf {
        self.folder().join("journal")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[track_caller]
fn new(journal: &mut Journal, body: &str) -> Ticket {
    match journal.take(body.as_bytes(), 0) {
        Ok(Taken::New(ticket)) => ticket,
        other => panic!("{other:?}"),
    }
}

fn live(journal: &mut Journal, body: &str) -> Ticket {
    let ticket = new(journal, body);
    journal.done(ticket, body.as_bytes(), format!("did {body}").into_bytes(), None);
    journal.hand_over(Some(ticket));
    ticket
}

fn answers(journal: &mut Journal) -> Vec<String> {
    let answers = journal.new_connector();
    answers.into_iter().map(|(_, answer)| String::from_utf8(answer).unwrap()).collect()
}

#[test]
fn only_root_may_enter_it() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.folder()).unwrap();
    fs::set_permissions(sandbox.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    drop(sandbox.open());
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(sandbox.folder()), mode(sandbox.file())), (0o700, 0o600));
    assert_eq!(sandbox.names(), ["journal"]);
}

#[test]
fn numbers_go_on_and_a_compacted_journal_is_small() {
    let sandbox = Sandbox::new();
    let mut journal = sandbox.open();
    let first = live(&mut journal, "a");
    drop(journal);
    let mut journal = sandbox.open();
    assert_eq!(answers(&mut journal), ["did a"]);
    assert!(live(&mut journal, "b").0 > first.0);
    let body = "x".repeat(4000);
    let mut largest = 0;
    for number in 0..300 {
        live(&mut journal, &format!("{number}{body}"));
        journal.delivered(1);
        largest = largest.max(fs::metadata(sandbox.file()).unwrap().len());
    }
    assert!(largest.abs_diff(COMPACT_AT) < 16_384, "{largest}");
    assert_eq!(sandbox.names(), ["journal"]);
    drop(journal);
    let mut journal = sandbox.open();
    let left = answers(&mut journal);
    assert_eq!(left[0], "did a");
    assert_eq!(left.len(), 2, "of b or later, what was not delivered: {}", left.len());
}

#[test]
fn a_torn_record_is_cut_off_and_the_rest_goes_on() {
    let sandbox = Sandbox::new();
    let mut journal = sandbox.open();
    live(&mut journal, "a");
    live(&mut journal, "b");
    drop(journal);
    let bytes = fs::read(sandbox.file()).unwrap();
    for cut in 1..40 {
        fs::write(sandbox.file(), &bytes[..bytes.len() - cut]).unwrap();
        let mut journal = sandbox.open();
        assert_eq!(journal.unfinished().len(), 1, "{cut}");
        assert_eq!(answers(&mut journal), ["did a"]);
        live(&mut journal, "c");
        drop(journal);
        assert_eq!(answers(&mut sandbox.open()), ["did a", "did c"], "{cut}");
    }
    assert_eq!(sandbox.names(), ["journal"]);
}

#[test]
fn what_follows_damage_is_set_aside_and_the_sequence_never_goes_back() {
    let sandbox = Sandbox::new();
    let mut journal = sandbox.open();
    live(&mut journal, "a");
    let good = fs::read(sandbox.file()).unwrap().len();
    live(&mut journal, "b");
    journal.record_sequence(7);
    live(&mut journal, "c");
    drop(journal);
    let mut bytes = fs::read(sandbox.file()).unwrap();
    bytes[good + 5] ^= 0x10;
    fs::write(sandbox.file(), &bytes).unwrap();
    let mut journal = sandbox.open();
    assert_eq!(journal.highest_sequence().unwrap(), 7);
    assert_eq!(answers(&mut journal), ["did a"]);
    let names = sandbox.names();
    assert_eq!(names.len(), 2, "{names:?}");
    let kept = names.iter().find(|name| name.starts_with("journal.damaged-")).unwrap();
    assert_eq!(fs::read(sandbox.folder().join(kept)).unwrap(), bytes[good..]);
    drop(journal);
    assert_eq!(sandbox.open().highest_sequence().unwrap(), 7);
}

#[test]
fn the_sequence_is_written_down_with_the_action_that_has_it() {
    let sandbox = Sandbox::new();
    let mut journal = sandbox.open();
    journal.record_sequence(40);
    drop(journal);
    let mut journal = sandbox.open();
    assert_eq!(journal.highest_sequence().unwrap(), 0, "not taken, so the order may come again");
    journal.record_sequence(40);
    let ticket = new(&mut journal, "a");
    drop(journal);
    let mut journal = sandbox.open();
    assert_eq!(journal.highest_sequence().unwrap(), 40);
    assert_eq!(journal.unfinished().len(), 1, "it will be carried out without its order");
    journal.done(ticket, b"a", b"did a".to_vec(), None);
    // The same action, ordered anew under another number.
    journal.record_sequence(41);
    assert!(matches!(journal.take(b"a", 0), Ok(Taken::Known(..))));
    journal.acknowledge(&[ticket]);
    drop(journal);
    let mut journal = sandbox.open();
    assert_eq!(journal.highest_sequence().unwrap(), 41);
    journal.record_sequence(3);
    assert_eq!(journal.highest_sequence().unwrap(), 41);
}

#[test]
fn one_folder_has_one_keeper() {
    let sandbox = Sandbox::new();
    let journal = sandbox.open();
    assert!(matches!(Journal::open(&sandbox.folder()), Err(JournalError::InUse(_))));
    drop(journal);
    sandbox.open();
}

#[test]
fn a_link_in_the_journals_place_is_not_followed() {
    let sandbox = Sandbox::new();
    drop(sandbox.open());
    let precious = sandbox.0.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    fs::remove_file(sandbox.file()).unwrap();
    std::os::unix::fs::symlink(&precious, sandbox.file()).unwrap();
    let mut journal = sandbox.open();
    assert!(journal.take(b"a", 0).unwrap_err().to_string().contains("cannot open"));
    assert_eq!(fs::read_to_string(precious).unwrap(), "precious");
}

#[test]
fn the_disk_has_room_for_a_long_answer_before_the_action_begins() {
    use std::os::unix::fs::MetadataExt;
    let sandbox = Sandbox::new();
    let mut journal = sandbox.open();
    let room = 3 * 1024 * 1024;
    live(&mut journal, "a");
    let short = fs::metadata(sandbox.file()).unwrap().blocks() * 512;
    assert!(matches!(journal.take(b"b", room), Ok(Taken::New(_))));
    let long = fs::metadata(sandbox.file()).unwrap();
    assert!(short < room && long.blocks() * 512 >= long.len() + room, "{short} {long:?}");
}
