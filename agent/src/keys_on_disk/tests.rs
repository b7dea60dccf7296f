//! Real folders, owned by whoever runs the tests; shapes that only root can make need root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use std::path::{Path, PathBuf};

use bastio_protocol::{KeyPolicy, Username};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode as NixMode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;

mod shapes;

const ED25519: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

/// A home with what belongs to it.
struct Place {
    _folder: TempDir,
    home: PathBuf,
    owner: Owner,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The folder for temporary files may itself be reached through a link.
        let home = folder.path().canonicalize().unwrap().join("alice");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            _folder: folder,
            home,
            owner: Owner { uid: Uid::effective(), gid: Gid::effective() },
        }
    }

    fn with_keys(text: &[u8]) -> Self {
        let place = Self::new();
        fs::create_dir(place.ssh()).unwrap();
        fs::set_permissions(place.ssh(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(place.file(), text).unwrap();
        fs::set_permissions(place.file(), fs::Permissions::from_mode(0o600)).unwrap();
        place
    }

    fn ssh(&self) -> PathBuf {
        self.home.join(".ssh")
    }

    fn file(&self) -> PathBuf {
        self.ssh().join("authorized_keys")
    }

    fn account(&self) -> Account {
        account(&self.home, self.owner)
    }

    fn insert(&self) -> Result<Change, KeysOnDiskError> {
        insert_key(&self.account(), &Shape::default(), &key())
    }

    fn remove(&self) -> Result<Change, KeysOnDiskError> {
        remove_key(&self.account(), &Shape::default(), &key())
    }

    fn repair(&self) -> Result<(), KeysOnDiskError> {
        repair(&self.account(), &Shape::default())
    }

    /// Asserts that none of the verbs goes on, that each says why, and that nothing is left.
    #[track_caller]
    fn refuses_all(&self, expected: &str) {
        let before = names(&self.ssh());
        for (verb, result) in [
            ("insert", self.insert().map(drop)),
            ("remove", self.remove().map(drop)),
            ("empty", remove_all_keys(&self.account(), &Shape::default())),
            ("repair", self.repair()),
        ] {
            let error = result.expect_err(verb).to_string();
            assert!(error.contains(expected), "{verb}: {error}");
        }
        assert_eq!(names(&self.ssh()), before);
    }
}

fn account(home: &Path, owner: Owner) -> Account {
    let name = Username::parse("alice").unwrap();
    Account { name, owner, home: home.to_owned(), is_system: false, is_managed: true }
}

fn key() -> PublicKey {
    PublicKey::parse(&format!("{ED25519} alice at home"), &KeyPolicy::ANY).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

/// Whether shapes that only root can make can be tried; says so if not.
fn is_root() -> bool {
    let is_root = Uid::effective().is_root();
    if !is_root {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "must run as root in CI");
        eprintln!("NOT TESTED: this test needs root");
    }
    is_root
}

#[test]
fn the_first_key_makes_folder_and_file() {
    let place = Place::new();
    assert_eq!(place.insert().unwrap(), Change::Changed);
    let text = fs::read_to_string(place.file()).unwrap();
    assert_eq!(text, format!("{ED25519} alice at home bastio:managed\n"));
    assert_eq!((mode(&place.ssh()), mode(&place.file())), (0o700, 0o600));
    assert_eq!(names(&place.ssh()), ["authorized_keys"]);
    assert_eq!(place.insert().unwrap(), Change::Unchanged);
    assert_eq!(place.remove().unwrap(), Change::Changed);
    assert_eq!(fs::read(place.file()).unwrap(), b"");
    assert_eq!(place.remove().unwrap(), Change::Unchanged);
}

#[test]
fn foreign_lines_survive_byte_for_byte() {
    let foreign = b"# caf\xe9\r\n\n  from=\"10.*\" ssh-rsa AAAA broken\nno newline at the end";
    let place = Place::with_keys(foreign);
    place.insert().unwrap();
    let text = fs::read(place.file()).unwrap();
    assert!(text.starts_with(&[foreign.as_slice(), b"\nssh-ed25519 "].concat()));
    place.remove().unwrap();
    assert_eq!(fs::read(place.file()).unwrap(), [foreign.as_slice(), b"\n"].concat());
}

#[test]
fn an_unchanged_file_is_not_written() {
    let place = Place::with_keys(format!("{ED25519} other comment\n").as_bytes());
    let before = place.file().metadata().unwrap().ino();
    assert_eq!(place.insert().unwrap(), Change::Unchanged);
    assert_eq!(place.file().metadata().unwrap().ino(), before);
    assert_eq!(place.remove().unwrap(), Change::Changed);
    assert_ne!(place.file().metadata().unwrap().ino(), before);
}

#[test]
fn a_key_is_taken_out_of_the_second_file_of_sshd_too() {
    let place = Place::with_keys(b"");
    let second = place.ssh().join("authorized_keys2");
    fs::write(&second, format!("{ED25519}\n")).unwrap();
    assert_eq!(place.remove().unwrap(), Change::Changed);
    assert_eq!(fs::read(&second).unwrap(), b"");
    fs::write(&second, "ssh-rsa other\n").unwrap();
    remove_all_keys(&place.account(), &Shape::default()).unwrap();
    assert_eq!(fs::read(&second).unwrap(), b"");
}

#[test]
fn removing_makes_nothing() {
    let place = Place::new();
    assert_eq!(place.remove().unwrap(), Change::Unchanged);
    remove_all_keys(&place.account(), &Shape::default()).unwrap();
    assert!(!place.ssh().exists());
}

#[test]
fn repair_makes_what_is_missing_and_sets_modes() {
    let place = Place::new();
    place.repair().unwrap();
    assert_eq!((mode(&place.ssh()), mode(&place.file())), (0o700, 0o600));
    assert_eq!(fs::read(place.file()).unwrap(), b"");
    fs::write(place.file(), "kept\n").unwrap();
    fs::set_permissions(place.ssh(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o666)).unwrap();
    place.repair().unwrap();
    assert_eq!((mode(&place.ssh()), mode(&place.file())), (0o700, 0o600));
    assert_eq!(fs::read(place.file()).unwrap(), b"kept\n");
}

#[test]
fn a_stricter_mode_stays_and_a_wider_one_does_not() {
    for (before, after) in [(0o400, 0o400), (0o600, 0o600), (0o644, 0o600), (0o666, 0o600)] {
        let place = Place::with_keys(b"");
        fs::set_permissions(place.file(), fs::Permissions::from_mode(before)).unwrap();
        fs::set_permissions(place.ssh(), fs::Permissions::from_mode(0o775)).unwrap();
        place.insert().unwrap();
        assert_eq!((mode(&place.ssh()), mode(&place.file())), (0o700, after), "{before:o}");
    }
}

#[test]
fn ssh_as_a_link_is_refused_and_its_target_untouched() {
    let place = Place::new();
    let victim = Place::with_keys(b"victim\n");
    symlink(victim.ssh(), place.ssh()).unwrap();
    let found = ".ssh is a symbolic link, not a folder, and is left alone";
    for result in [place.insert().map(drop), place.remove().map(drop), place.repair()] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(found), "{error}");
    }
    assert_eq!(fs::read(victim.file()).unwrap(), b"victim\n");
    assert_eq!(names(&victim.ssh()), ["authorized_keys"]);
}

#[test]
fn ssh_as_a_file_or_fifo_is_refused() {
    let place = Place::new();
    fs::write(place.ssh(), "").unwrap();
    place.refuses_all(".ssh is a plain file, not a folder");
    let place = Place::new();
    mkfifo(&place.ssh(), NixMode::S_IRWXU).unwrap();
    place.refuses_all(".ssh is a FIFO, not a folder");
}

#[test]
fn the_file_as_a_link_is_refused_and_its_target_untouched() {
    let place = Place::with_keys(b"");
    let target = place.home.join("target");
    fs::write(&target, "root's own\n").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
    fs::remove_file(place.file()).unwrap();
    symlink(&target, place.file()).unwrap();
    place.refuses_all("authorized_keys is a symbolic link, not a plain file");
    assert_eq!(fs::read(&target).unwrap(), b"root's own\n");
    assert_eq!(mode(&target), 0o640);
}

#[test]
fn the_file_as_a_folder_fifo_or_socket_is_refused() {
    let place = Place::with_keys(b"");
    fs::remove_file(place.file()).unwrap();
    fs::create_dir(place.file()).unwrap();
    place.refuses_all("authorized_keys is a folder, not a plain file");
    fs::remove_dir(place.file()).unwrap();
    mkfifo(&place.file(), NixMode::S_IRWXU).unwrap();
    place.refuses_all("authorized_keys is a FIFO, not a plain file");
    fs::remove_file(place.file()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.file()).unwrap();
    place.refuses_all("authorized_keys is a socket, not a plain file");
}

#[test]
fn a_file_with_a_second_name_is_refused() {
    let place = Place::with_keys(b"shared\n");
    fs::hard_link(place.file(), place.home.join("second")).unwrap();
    place.refuses_all("authorized_keys has 2 names (hard links)");
    assert_eq!(fs::read(place.file()).unwrap(), b"shared\n");
}

#[test]
fn a_file_over_the_limit_is_refused() {
    let place = Place::with_keys(&vec![b'#'; 1024 * 1024 + 1]);
    place.refuses_all_but_repair("is larger than 1048576 bytes");
    let place = Place::with_keys(&vec![b'#'; 1024 * 1024]);
    assert_eq!(place.insert().unwrap(), Change::Changed);
}

impl Place {
    #[track_caller]
    fn refuses_all_but_repair(&self, expected: &str) {
        for result in [self.insert(), self.remove()] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

#[test]
fn a_home_that_others_may_write_gets_no_key_but_gives_them_up() {
    for bits in [0o775, 0o757, 0o777] {
        let place = Place::with_keys(format!("{ED25519}\n").as_bytes());
        fs::set_permissions(&place.home, fs::Permissions::from_mode(bits)).unwrap();
        let expected = "can be written by others, so sshd ignores its keys; run: chmod go-w";
        for result in [place.insert().map(drop), place.repair()] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(place.remove().unwrap(), Change::Changed);
        assert_eq!(fs::read(place.file()).unwrap(), b"");
    }
}

#[test]
fn a_home_that_is_missing_a_link_or_behind_one_is_refused() {
    let place = Place::new();
    let link = place.home.with_file_name("link");
    symlink(&place.home, &link).unwrap();
    let nested = link.join("inner");
    fs::create_dir(&nested).unwrap();
    for (home, expected) in [
        (place.home.join("nowhere"), "is missing; make it again"),
        (link, "reached through a symbolic link"),
        (nested, "reached through a symbolic link"),
        (PathBuf::from("relative/home"), "not a plain folder"),
    ] {
        let error = insert_key(&account(&home, place.owner), &Shape::default(), &key())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn without_openat2_links_are_refused_just_the_same() {
    let place = Place::new();
    let link = place.home.with_file_name("link");
    symlink(&place.home, &link).unwrap();
    fs::create_dir(place.home.join("inner")).unwrap();
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    assert!(handles::walk(&place.home.join("inner"), flags).is_ok());
    assert!(handles::walk(&link, flags).is_err());
    assert!(handles::walk(&link.join("inner"), flags).is_err());
    assert!(handles::walk(&place.home.join("../alice"), flags).is_err());
}

#[test]
fn what_a_crash_left_is_swept_and_nothing_else() {
    let place = Place::with_keys(b"");
    let ours = ".bastio-new-0123456789abcdef";
    let others =
        [".bastio-new-0123456789abcde", ".bastio-new-0123456789ABCDEF", "id_ed25519", "config"];
    for name in others.into_iter().chain([ours]) {
        fs::write(place.ssh().join(name), "x").unwrap();
    }
    let folder = ".bastio-new-ffffffffffffffff";
    fs::create_dir(place.ssh().join(folder)).unwrap();
    let link = ".bastio-new-eeeeeeeeeeeeeeee";
    symlink("/etc/passwd", place.ssh().join(link)).unwrap();
    place.insert().unwrap();
    let mut expected = vec!["authorized_keys", folder, link];
    expected.extend(others);
    expected.sort_unstable();
    assert_eq!(names(&place.ssh()), expected);
}

#[test]
fn a_folder_that_cannot_be_written_keeps_the_old_file() {
    let place = Place::with_keys(b"old\n");
    let location = Location::Home { folders: vec![".ssh".to_owned()], file: String::new() };
    let folder = places::find(&place.account(), &location).unwrap().unwrap();
    // A name that cannot be renamed over stands for every failure of the last step.
    fs::create_dir(place.ssh().join("in the way")).unwrap();
    let error = folder.replace("in the way", b"new", None).unwrap_err().to_string();
    assert!(error.contains("the keys are unchanged"), "{error}");
    assert_eq!(names(&place.ssh()), ["authorized_keys", "in the way"]);
    assert_eq!(fs::read(place.file()).unwrap(), b"old\n");
}

#[test]
fn a_full_disk_is_told_as_such() {
    for errno in [Errno::ENOSPC, Errno::EDQUOT] {
        let error = KeysOnDiskError::system("write", Path::new("/h/k"), errno).to_string();
        assert!(error.starts_with("no space left for /h/k; the old file is unchanged"), "{error}");
    }
}

#[test]
fn what_belongs_to_another_is_refused() {
    let mut place = Place::with_keys(b"mine\n");
    let mine = place.owner;
    place.owner.uid = Uid::from_raw(mine.uid.as_raw() + 1);
    place.refuses_all("and is left alone; give it to the account (chown)");
    assert_eq!(fs::read(place.file()).unwrap(), b"mine\n");
}

#[test]
fn inner_things_of_another_are_refused() {
    if !is_root() {
        return;
    }
    let account = Owner { uid: Uid::from_raw(54321), gid: Gid::from_raw(54322) };
    for foreign in ["file", "folder"] {
        let mut place = Place::with_keys(b"x\n");
        place.owner = account;
        let chown = |path: &Path| {
            std::os::unix::fs::chown(path, Some(54321), Some(54322)).unwrap();
        };
        chown(&place.home);
        if foreign == "file" {
            chown(&place.ssh());
        } else {
            chown(&place.file());
        }
        place.refuses_all("belongs to uid 0, not to the account (uid 54321)");
    }
}

#[test]
fn an_empty_folder_that_a_crash_left_to_root_is_given_to_the_account() {
    if !is_root() {
        return;
    }
    let mut place = Place::new();
    place.owner = Owner { uid: Uid::from_raw(54321), gid: Gid::from_raw(54322) };
    std::os::unix::fs::chown(&place.home, Some(54321), Some(54322)).unwrap();
    fs::create_dir(place.ssh()).unwrap();
    fs::write(place.ssh().join("note"), "").unwrap();
    assert!(place.insert().unwrap_err().to_string().contains("belongs to uid 0"));
    fs::remove_file(place.ssh().join("note")).unwrap();
    place.insert().unwrap();
    let metadata = place.ssh().symlink_metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), mode(&place.ssh())), (54321, 54322, 0o700));
}

#[test]
fn what_root_makes_is_given_to_the_account() {
    if !is_root() {
        return;
    }
    let mut place = Place::new();
    place.owner = Owner { uid: Uid::from_raw(54321), gid: Gid::from_raw(54322) };
    std::os::unix::fs::chown(&place.home, Some(54321), Some(54322)).unwrap();
    place.insert().unwrap();
    for path in [place.ssh(), place.file()] {
        let metadata = path.symlink_metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (54321, 54322), "{}", path.display());
    }
}

/// A hostile owner swaps `.ssh` and the file for links as fast as possible while keys are added
/// and removed: the target of the links is never touched.
#[test]
fn swapping_while_we_work_harms_only_the_swapper() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let place = Place::with_keys(b"");
    let victim = Place::with_keys(b"victim\n");
    let stop = AtomicBool::new(false);
    let (ssh, file, aside) = (place.ssh(), place.file(), place.home.join("aside"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = fs::rename(&ssh, &aside);
                let _ = symlink(victim.ssh(), &ssh);
                let _ = fs::remove_file(&ssh);
                let _ = fs::rename(&aside, &ssh);
                let _ = fs::remove_file(&file);
                let _ = symlink(victim.file(), &file);
                let _ = fs::remove_file(&file);
            }
        });
        for _ in 0..500 {
            // Success or refusal: both are fine, as long as the victim is.
            let _ = (place.insert(), place.repair(), place.remove());
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read(victim.file()).unwrap(), b"victim\n");
    assert_eq!(names(&victim.ssh()), ["authorized_keys"]);
    assert_eq!((mode(&victim.ssh()), mode(&victim.file())), (0o700, 0o600));
}
