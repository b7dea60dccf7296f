//! Every file that an sshd may read, and all keys at once.

use bastio_protocol::{KeyGrant, KeyOptions};

use super::*;
use crate::sshd::{Pattern, Version};

const OTHER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICAhIiMkJSYnKCkqKywtLi8wMTIzNDU2Nzg5Ojs8PT4/";

impl Place {
    fn shape(&self, files: &[&str]) -> Shape {
        Shape::new(files.iter().map(|it| Pattern::new(*it)).collect(), Some(Version(9, 2)))
    }

    fn set(&self, shape: &Shape, wanted: &[KeyGrant]) -> Result<Change, KeysOnDiskError> {
        set_keys(&self.account(), shape, wanted)
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.home.join(file)).unwrap()
    }
}

fn grant(options: &str, until: Option<i64>) -> KeyGrant {
    let options = KeyOptions::parse(options).unwrap();
    KeyGrant { public_key: key(), options, until }
}

#[test]
fn keys_go_into_the_first_file_and_out_of_all() {
    let place = Place::new();
    let shape = place.shape(&["keys", ".config/ssh/%u", "%h/keys"]);
    insert_key(&place.account(), &shape, &key()).unwrap();
    assert_eq!(place.text("keys"), format!("{ED25519} alice at home bastio:managed\n"));
    assert!(!place.home.join(".config").exists());
    fs::create_dir_all(place.home.join(".config/ssh")).unwrap();
    fs::write(place.home.join(".config/ssh/alice"), format!("x\n{ED25519}\n")).unwrap();
    assert_eq!(remove_key(&place.account(), &shape, &key()).unwrap(), Change::Changed);
    assert_eq!(
        (place.text("keys"), place.text(".config/ssh/alice")),
        (String::new(), "x\n".into())
    );
}

#[test]
fn all_keys_are_set_by_one_write_and_read_back() {
    let place = Place::with_keys(b"# mine\nssh-rsa other\n");
    let shape = place.shape(&[".ssh/authorized_keys", "second"]);
    fs::write(place.home.join("second"), format!("{ED25519} by hand\n# stays\n")).unwrap();
    let wanted = [grant("restrict,pty", Some(1_782_903_600))];
    assert_eq!(place.set(&shape, &wanted).unwrap(), Change::Changed);
    let line = format!(
        "restrict,pty,expiry-time=\"20260701110000Z\" {ED25519} alice at home bastio:managed\n"
    );
    assert_eq!(place.text(".ssh/authorized_keys"), format!("# mine\nssh-rsa other\n{line}"));
    assert_eq!(place.text("second"), "# stays\n");
    let found = read_keys(&place.account(), &shape).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].grant.as_ref(), Some(&wanted[0]));
    assert_eq!((found[0].line.ours, &found[0].file), (true, &place.file()));

    let before = place.file().metadata().unwrap().ino();
    assert_eq!(place.set(&shape, &wanted).unwrap(), Change::Unchanged);
    assert_eq!(place.file().metadata().unwrap().ino(), before);
    assert_eq!(place.set(&shape, &[grant("", None)]).unwrap(), Change::Changed);
    assert_eq!(place.set(&shape, &[]).unwrap(), Change::Changed);
    assert_eq!(place.text(".ssh/authorized_keys"), "# mine\nssh-rsa other\n");
    assert_eq!(place.set(&shape, &[]).unwrap(), Change::Unchanged);
}

#[test]
fn a_line_of_others_for_a_wanted_key_becomes_ours() {
    let place = Place::with_keys(format!("{ED25519} by hand\n").as_bytes());
    place.set(&Shape::default(), &[grant("", None)]).unwrap();
    let ours = format!("{ED25519} alice at home bastio:managed\n");
    assert_eq!(place.text(".ssh/authorized_keys"), ours);
}

#[test]
fn keys_of_ours_move_to_the_first_file() {
    let place = Place::new();
    place.set(&place.shape(&["old"]), &[grant("restrict", None)]).unwrap();
    place.set(&place.shape(&["new", "old"]), &[grant("restrict", None)]).unwrap();
    assert_eq!(place.text("old"), "");
    assert!(place.text("new").starts_with("restrict ssh-ed25519"));
}

#[test]
fn what_this_sshd_does_not_understand_is_refused_and_never_written_without() {
    let place = Place::new();
    for (version, options, until, what) in [
        (Version(8, 1), "no-touch-required", None, "no-touch-required"),
        (Version(8, 3), "verify-required", None, "verify-required"),
        (Version(7, 1), "restrict", None, "restrict"),
        (Version(7, 6), "", Some(1), "expiry-time"),
    ] {
        let shape = Shape::new(vec![Pattern::new("keys")], Some(version));
        let error = place.set(&shape, &[grant(options, until)]).unwrap_err().to_string();
        let told = format!("cannot be used with {what}: this host has {version}");
        assert!(error.contains(&told), "{error}");
    }
    assert_eq!(names(&place.home), Vec::<String>::new());
}

#[test]
fn where_sshd_reads_no_file_no_key_goes_in_and_nothing_else_fails() {
    let place = Place::new();
    let none = place.shape(&[]);
    let error = place.set(&none, &[grant("", None)]).unwrap_err().to_string();
    assert!(error.contains("cannot change the keys of alice: sshd reads none"), "{error}");
    assert!(matches!(
        insert_key(&place.account(), &none, &key()),
        Err(KeysOnDiskError::NoFiles(_))
    ));
    assert_eq!(place.set(&none, &[]).unwrap(), Change::Unchanged);
    assert_eq!(remove_key(&place.account(), &none, &key()).unwrap(), Change::Unchanged);
    repair(&place.account(), &none).unwrap();
    assert_eq!(read_keys(&place.account(), &none).unwrap(), []);
    let odd = place.shape(&["%x"]);
    let error = remove_all_keys(&place.account(), &odd).unwrap_err().to_string();
    assert!(error.starts_with("%x in AuthorizedKeysFile is not known"), "{error}");
}

/// Folders of root's, below a folder that stands for `/`.
fn below(place: &Place, path: &str, make: bool) -> Result<Option<KeyFolder>, KeysOnDiskError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let base = nix::fcntl::open(&place.home, flags, NixMode::empty()).unwrap();
    let account = Owner { uid: Uid::from_raw(54321), gid: Gid::from_raw(54321) };
    places::walk_below(base, &place.home, Path::new(path), account, make)
}

#[test]
fn a_folder_of_roots_is_made_and_its_files_are_readable() {
    let place = Place::new();
    assert!(below(&place, "/keys/alice", false).unwrap().is_none());
    let folder = below(&place, "/keys/alice", true).unwrap().unwrap();
    assert_eq!(mode(&place.home.join("keys/alice")), 0o755);
    folder.edit("k", |keys| keys.insert(&key())).unwrap();
    let file = place.home.join("keys/alice/k");
    assert_eq!(mode(&file), 0o644);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let other = PublicKey::parse(OTHER, &KeyPolicy::ANY).unwrap();
    folder.edit("k", |keys| keys.insert(&other)).unwrap();
    assert_eq!(mode(&file), 0o644);
    folder.empty("k").unwrap();
    folder.empty("k").unwrap();
    assert!(!file.exists());
}

#[test]
fn lines_of_others_that_wait_for_an_account_are_told_from_our_own() {
    let place = Place::new();
    let folder = below(&place, "/keys", true).unwrap().unwrap();
    let ours = format!("{ED25519} x bastio:managed\n");
    for (text, expected) in [
        ("", Some(false)),
        (" # a note\n\n\t\n", Some(false)),
        (&ours, Some(true)),
        (&format!("# a note\n{ours}"), Some(true)),
        (&format!("{ours}{OTHER}\n"), None),
        (OTHER, None),
        // Of a kind that is not known here, or no key at all.
        ("cert-authority ssh-new AAAA", None),
    ] {
        fs::write(place.home.join("keys/alice"), text).unwrap();
        let found = stale::is_stale(&folder, "alice");
        match (found, expected) {
            (Ok(found), Some(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(error), None) => {
                assert!(error.to_string().contains("keys/alice has keys of others"), "{error}");
            }
            (found, _) => panic!("{text}: {found:?}"),
        }
    }
    fs::remove_file(place.home.join("keys/alice")).unwrap();
    assert!(!stale::is_stale(&folder, "alice").unwrap());
}

#[test]
fn a_file_that_was_given_to_the_account_stays_its_own() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let folder = below(&place, "/keys", true).unwrap().unwrap();
    let file = place.home.join("keys/alice");
    fs::write(&file, "x\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&file, Some(54321), Some(54321)).unwrap();
    folder.edit("alice", |keys| keys.insert(&key())).unwrap();
    assert_eq!((file.metadata().unwrap().uid(), mode(&file)), (54321, 0o600));
    std::os::unix::fs::chown(&file, Some(54322), None).unwrap();
    let error = folder.edit("alice", |keys| keys.insert(&key())).unwrap_err().to_string();
    assert!(error.contains("belongs to uid 54322"), "{error}");
}

#[test]
fn a_folder_of_roots_that_others_may_change_is_refused() {
    let place = Place::new();
    fs::create_dir(place.home.join("keys")).unwrap();
    for bits in [0o775, 0o757, 0o1777] {
        fs::set_permissions(place.home.join("keys"), fs::Permissions::from_mode(bits)).unwrap();
        let error = below(&place, "/keys/alice", true).err().unwrap().to_string();
        assert!(error.contains("keys can be written by others than root"), "{error}");
    }
    assert_eq!(names(&place.home.join("keys")), Vec::<String>::new());
    symlink("keys", place.home.join("link")).unwrap();
    let error = below(&place, "/link/alice", true).err().unwrap().to_string();
    assert!(error.contains("reached through a symbolic link"), "{error}");
    if is_root() {
        std::os::unix::fs::chown(place.home.join("keys"), Some(54321), None).unwrap();
        let error = below(&place, "/keys", false).err().unwrap().to_string();
        assert!(error.contains("keys does not belong to root"), "{error}");
    }
}

#[test]
fn what_root_may_not_do_and_a_read_only_disk_are_told_as_such() {
    for (errno, told) in [
        (Errno::EROFS, "its file system is read-only"),
        (Errno::EACCES, "not even root may (EACCES: Permission denied), as on NFS"),
        (Errno::EPERM, "set keys = \"managed\" in agent.toml"),
    ] {
        let error = KeysOnDiskError::system("write", Path::new("/h/k"), errno);
        assert!(error.is_about_the_place());
        assert!(error.to_string().contains(told), "{error}");
    }
}
