//! Real folders, owned by whoever runs the tests. What visudo says of a rule is tested on whole
//! servers (tests/tests/e2e/sudo.rs).

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::sys::stat::Mode as NixMode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;

struct Place {
    _folder: TempDir,
    sudoers: Sudoers,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("sudoers.d");
        fs::create_dir(&path).unwrap();
        Self { _folder: folder, sudoers: Sudoers::at(&path) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.sudoers.folder.join(name)
    }

    fn put(&self, file: &str, text: &str) {
        fs::write(self.file(file), text).unwrap();
        fs::set_permissions(self.file(file), Permissions::from_mode(0o440)).unwrap();
    }

    /// What the folder holds, sorted.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.sudoers.folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// What stands at alice's name is neither read nor removed.
    #[track_caller]
    fn refuses(&self, expected: &str) {
        let before = self.names();
        let alice = account("alice");
        for result in [self.sudoers.read(&alice).map(drop), self.sudoers.remove(&alice).map(drop)] {
            let error = result.unwrap_err();
            assert!(matches!(error, SudoersError::Foreign { .. }), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert_eq!(self.sudoers.all().unwrap(), []);
        assert_eq!(self.names(), before);
    }
}

fn account(name: &str) -> Username {
    Username::parse(name).unwrap()
}

fn ours() -> String {
    format!("{MARK}\nalice ALL=(ALL:ALL) ALL\n")
}

#[test]
fn files_of_ours_are_read_listed_and_removed() {
    let place = Place::new();
    place.put("bastio-alice", &ours());
    place.put("bastio-bob=2eb", &ours());
    place.put("README", "theirs\n");
    let alice = account("alice");
    let found = place.sudoers.read(&alice).unwrap().unwrap();
    assert_eq!(found, Rule { text: ours(), is_sound: true });
    assert_eq!(place.sudoers.all().unwrap(), [alice.clone(), account("bob.b")]);
    assert_eq!(place.sudoers.remove(&alice).unwrap(), Change::Changed);
    assert_eq!(place.sudoers.remove(&alice).unwrap(), Change::Unchanged);
    assert_eq!(place.sudoers.read(&alice).unwrap(), None);
    assert_eq!(place.names(), ["README", "bastio-bob=2eb"]);
}

#[test]
fn another_mode_is_told() {
    let place = Place::new();
    place.put("bastio-alice", &ours());
    for (mode, is_sound) in [(0o440, true), (0o400, false), (0o644, false), (0o460, false)] {
        fs::set_permissions(place.file("bastio-alice"), Permissions::from_mode(mode)).unwrap();
        let found = place.sudoers.read(&account("alice")).unwrap().unwrap();
        assert_eq!(found.is_sound, is_sound, "{mode:o}");
    }
}

#[test]
fn files_of_others_with_our_name_are_left_alone() {
    for text in ["alice ALL=(ALL) ALL\n", &format!(" {MARK}\n"), &format!("{MARK}!\n")] {
        let place = Place::new();
        place.put("bastio-alice", text);
        place.refuses("bastio-alice is not written by bastio");
        assert_eq!(fs::read_to_string(place.file("bastio-alice")).unwrap(), text);
    }
}

#[test]
fn what_is_no_plain_file_is_left_alone() {
    let place = Place::new();
    place.put("target", &ours());
    symlink(place.file("target"), place.file("bastio-alice")).unwrap();
    place.refuses("is a symbolic link and is left alone");
    let place = Place::new();
    mkfifo(&place.file("bastio-alice"), NixMode::S_IRWXU).unwrap();
    place.refuses("is a FIFO and is left alone");
    let place = Place::new();
    place.put("bastio-alice", "");
    place.refuses("is empty and is left alone");
    let place = Place::new();
    fs::create_dir(place.file("bastio-alice")).unwrap();
    place.refuses("is a folder and is left alone");
    let place = Place::new();
    place.put("bastio-alice", &format!("{MARK}\n{}", "#\n".repeat(40_000)));
    place.refuses("larger than any file of bastio's");
}

#[test]
fn without_a_folder_there_is_nothing_to_take() {
    let place = Place::new();
    fs::remove_dir(&place.sudoers.folder).unwrap();
    assert_eq!(place.sudoers.read(&account("alice")).unwrap(), None);
    assert_eq!(place.sudoers.remove(&account("alice")).unwrap(), Change::Unchanged);
    assert_eq!(place.sudoers.all().unwrap(), []);
}

#[test]
fn a_folder_that_is_a_link_is_refused() {
    let place = Place::new();
    let link = place.sudoers.folder.with_file_name("link.d");
    symlink(&place.sudoers.folder, &link).unwrap();
    let error = Sudoers::at(&link).all().unwrap_err().to_string();
    assert!(error.contains("reached through a symbolic link"), "{error}");
}

#[test]
fn what_is_written_aside_is_for_sudo_to_leave_out_and_replaces_a_left_over() {
    let place = Place::new();
    let folder = Folder::open(&place.sudoers.folder).unwrap().unwrap();
    place.put(".bastio.new", "left over");
    let aside = folder.write_aside(ours().as_bytes()).unwrap();
    assert!(aside.file_name().unwrap().to_str().unwrap().contains('.'));
    assert_eq!(place.sudoers.all().unwrap(), []);
    folder.put_in_place("bastio-alice").unwrap();
    assert_eq!(place.names(), ["bastio-alice"]);
    let found = place.sudoers.read(&account("alice")).unwrap().unwrap();
    assert_eq!(found, Rule { text: ours(), is_sound: true });
}

#[test]
fn a_folder_that_others_may_write_is_refused_for_giving_and_not_for_taking() {
    let place = Place::new();
    place.put("bastio-alice", &ours());
    fs::set_permissions(&place.sudoers.folder, Permissions::from_mode(0o777)).unwrap();
    let folder = Folder::open(&place.sudoers.folder).unwrap().unwrap();
    let error = folder.check_owner().unwrap_err().to_string();
    assert!(error.contains("can be written by others than root"), "{error}");
    assert_eq!(place.sudoers.remove(&account("alice")).unwrap(), Change::Changed);
}
