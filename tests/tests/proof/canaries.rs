//! Files outside a home that nobody may touch, and the proof that nobody did: what they hold, whose they are, their times,
//! and every event that inotify(7) has to tell of them. Knows nothing of attackers.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Where they are: on the file system of the homes, so that hard links to them can be made.
pub const FOLDER: &str = "/home/canaries";

/// A file or folder as it must stay.
#[derive(Debug, PartialEq, Eq)]
struct State {
    path: PathBuf,
    /// Owner, group, mode, length.
    owner: (u32, u32, u32, u64),
    /// When its content and anything of it was changed, and when it was read, in nanoseconds.
    times: [i64; 3],
}

/// Canaries under watch.
pub struct Canaries {
    contents: Vec<Option<Vec<u8>>>,
    before: Vec<State>,
    events: Inotify,
}

impl Canaries {
    /// Makes them and watches them. To be called on a thread that is inside the server; the user id is the attacker's.
    pub fn set_out(attacker: u32) -> Self {
        let folder = Path::new(FOLDER);
        for inner in ["ssh", "mine"] {
            fs::create_dir_all(folder.join(inner)).unwrap();
            fs::write(folder.join(inner).join("authorized_keys"), "a canary\n").unwrap();
        }
        fs::create_dir_all("/root/.ssh").unwrap();
        fs::write("/root/.ssh/authorized_keys", "root's own\n").unwrap();
        for (name, mode) in [("secret", 0o600), ("writable", 0o666)] {
            fs::write(folder.join(name), format!("{name}\n")).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        for path in [folder.join("mine"), folder.join("mine/authorized_keys")] {
            chown(path, Some(attacker), Some(attacker)).unwrap();
        }
        let contents = contents();
        Self { contents, before: states(), events: watch() }
    }

    /// Fails when one has been touched since. Looks without reading, so it can be called again and again.
    pub fn check(&self) {
        let events = self.events.read_events();
        assert!(matches!(events, Err(Errno::EAGAIN)), "a canary was touched: {events:?}");
        let now = states();
        assert_eq!(self.before.len(), now.len());
        for (before, now) in self.before.iter().zip(&now) {
            assert_eq!(before, now, "a canary has changed");
        }
    }

    /// The last look, at the content, too.
    pub fn check_all(self) {
        self.check();
        assert_eq!(self.contents, contents());
    }
}

/// All that nobody but root may open.
fn closed() -> Vec<PathBuf> {
    let folder = Path::new(FOLDER);
    let ours = ["secret", "ssh", "ssh/authorized_keys", "mine", "mine/authorized_keys"];
    let ours = ours.iter().map(|name| folder.join(name));
    let roots = ["/root/.ssh", "/root/.ssh/authorized_keys", "/etc/shadow", "/etc/shadow-"];
    ours.chain(roots.iter().map(PathBuf::from)).filter(|path| path.exists()).collect()
}

/// What can be linked to can be opened by another name; it is neither read nor written.
fn linkable() -> PathBuf {
    Path::new(FOLDER).join("writable")
}

fn watch() -> Inotify {
    let events = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
    for path in closed() {
        events.add_watch(&path, AddWatchFlags::IN_ALL_EVENTS).unwrap();
    }
    let read_or_written = AddWatchFlags::IN_ACCESS | AddWatchFlags::IN_MODIFY;
    events.add_watch(&linkable(), read_or_written).unwrap();
    events
}

fn all() -> impl Iterator<Item = PathBuf> {
    closed().into_iter().chain([linkable(), PathBuf::from(FOLDER)])
}

fn contents() -> Vec<Option<Vec<u8>>> {
    all().map(|path| path.is_file().then(|| fs::read(path).unwrap())).collect()
}

fn states() -> Vec<State> {
    all().map(state).collect()
}

fn state(path: PathBuf) -> State {
    let found = fs::symlink_metadata(&path).unwrap();
    let time = |seconds: i64, nanoseconds: i64| seconds * 1_000_000_000 + nanoseconds;
    let mut changed = time(found.ctime(), found.ctime_nsec());
    if path == linkable() {
        // Each hard link that the attacker makes changes it.
        changed = 0;
    }
    let (written, read) =
        (time(found.mtime(), found.mtime_nsec()), time(found.atime(), found.atime_nsec()));
    let owner = (found.uid(), found.gid(), found.mode(), found.len());
    State { path, owner, times: [written, changed, read] }
}
