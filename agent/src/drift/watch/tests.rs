//! Real folders and the kernel's own events.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bastio_protocol::Username;
use tempfile::TempDir;

use super::*;
use crate::drift::spot::of_account;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);
/// Longer than a look may wait.
const QUIET: Duration = Duration::from_millis(1500);

fn alice() -> Topic {
    Topic::Account(Username::parse("alice").unwrap())
}

struct Sandbox {
    folder: TempDir,
    watcher: Watcher,
}

impl Sandbox {
    /// A home with a key file, and a folder of rules; both are watched.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("home/.ssh")).unwrap();
        fs::write(folder.path().join("home/.ssh/authorized_keys"), "old").unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        let sandbox = Self { folder, watcher: Watcher::start().unwrap() };
        let etc = sandbox.path("etc");
        let rules = Spot::names(etc.to_str().unwrap(), &["rules"]);
        sandbox.watcher.aim(Aim::from([
            (Topic::Sudo, [rules].into()),
            (
                alice(),
                of_account(&sandbox.path("home"), &[sandbox.path("home/.ssh/authorized_keys")]),
            ),
        ]));
        sandbox
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    #[track_caller]
    fn sees(&self, topics: &[Topic]) {
        let mut seen = BTreeSet::new();
        while seen.len() < topics.len() {
            self.watcher.bell().recv_timeout(LONG).unwrap();
            seen.extend(self.watcher.take().topics);
        }
        assert_eq!(seen, topics.iter().cloned().collect());
    }

    /// How often the bell is rung within a time.
    fn rings(&self, time: Duration) -> usize {
        let end = Instant::now() + time;
        let mut rings = 0;
        while self.watcher.bell().recv_deadline(end).is_ok() {
            let _ = self.watcher.take();
            rings += 1;
        }
        rings
    }
}

#[test]
fn every_way_to_change_a_key_file_is_seen_again_and_again() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("home/.ssh/authorized_keys");
    let ssh = sandbox.path("home/.ssh");
    let other = sandbox.path("home/other");
    let aside = sandbox.path("home/.ssh/aside");
    let changes: &[&dyn Fn()] = &[
        &|| fs::write(&file, "in place").unwrap(),
        &|| {
            fs::write(&aside, "new").unwrap();
            fs::rename(&aside, &file).unwrap();
        },
        &|| fs::remove_file(&file).unwrap(),
        &|| fs::write(&file, "again").unwrap(),
        &|| fs::rename(&ssh, &other).unwrap(),
        &|| fs::create_dir(&ssh).unwrap(),
        &|| fs::write(&file, "in a new folder").unwrap(),
        &|| fs::remove_dir_all(&ssh).unwrap(),
        &|| std::os::unix::fs::symlink(&other, &ssh).unwrap(),
        &|| fs::remove_file(&ssh).unwrap(),
        &|| fs::rename(&other, &ssh).unwrap(),
        &|| fs::write(&file, "in the first folder").unwrap(),
        &|| fs::rename(sandbox.path("home"), sandbox.path("moved")).unwrap(),
        &|| fs::create_dir_all(&ssh).unwrap(),
        &|| fs::write(&file, "in a new home").unwrap(),
    ];
    for change in changes {
        change();
        sandbox.sees(&[alice()]);
    }
}

#[test]
fn other_names_and_reading_are_no_change() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("etc/rules-"), "a copy").unwrap();
    fs::write(sandbox.path("home/.bash_history"), "ls").unwrap();
    fs::read(sandbox.path("home/.ssh/authorized_keys")).unwrap();
    assert_eq!(sandbox.rings(QUIET), 0);
    fs::write(sandbox.path("etc/rules"), "one").unwrap();
    sandbox.sees(&[Topic::Sudo]);
}

#[test]
fn a_flood_in_one_home_is_a_look_now_and_then_and_holds_up_nobody() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("home/.ssh/authorized_keys");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                fs::write(&file, "x").unwrap();
            }
        }
    });
    let rings = sandbox.rings(Duration::from_secs(3));
    let begun = Instant::now();
    fs::write(sandbox.path("etc/rules"), "one").unwrap();
    while !sandbox.watcher.take().topics.contains(&Topic::Sudo) {
        sandbox.watcher.bell().recv_timeout(LONG).unwrap();
    }
    let waited = begun.elapsed();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    flood.join().unwrap();
    assert!((1..=5).contains(&rings), "{rings}");
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

#[test]
fn a_folder_that_is_not_there_yet_is_seen_when_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let watcher = Watcher::start().unwrap();
    let rules = folder.path().join("a/b/rules.d");
    watcher.aim(Aim::from([(Topic::Sudo, [Spot::all(rules.to_str().unwrap())].into())]));
    for part in ["a", "a/b", "a/b/rules.d", "a/b/rules.d/one"] {
        fs::create_dir(folder.path().join(part)).unwrap();
        watcher.bell().recv_timeout(LONG).unwrap();
        assert_eq!(watcher.take().topics, [Topic::Sudo].into(), "{part}");
    }
}

#[test]
fn what_is_no_longer_aimed_at_is_not_seen() {
    let sandbox = Sandbox::new();
    let rules = Spot::names(sandbox.path("etc").to_str().unwrap(), &["rules"]);
    sandbox.watcher.aim(Aim::from([(Topic::Sudo, [rules].into())]));
    fs::write(sandbox.path("home/.ssh/authorized_keys"), "new").unwrap();
    fs::write(sandbox.path("etc/rules"), "one").unwrap();
    sandbox.sees(&[Topic::Sudo]);
    assert_eq!(sandbox.rings(QUIET), 0);
    let state = sandbox.watcher.shared.state();
    assert_eq!(state.watched.len(), 1);
}

#[test]
fn a_time_that_has_come_is_told_once() {
    let watcher = Watcher::start().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let now = i64::try_from(now).unwrap();
    watcher.wake_at(Some(now + 3600)).unwrap();
    assert!(watcher.bell().recv_timeout(Duration::from_millis(50)).is_err());
    for time in [now + 1, now - 100, -5] {
        watcher.wake_at(Some(time)).unwrap();
        watcher.bell().recv_timeout(LONG).unwrap();
        assert_eq!(watcher.take(), Seen { time: true, ..Seen::default() });
        assert!(watcher.bell().recv_timeout(Duration::from_millis(50)).is_err(), "told once");
    }
    watcher.wake_at(None).unwrap();
}

#[test]
fn more_than_the_kernel_keeps_means_everything() {
    let sandbox = Sandbox::new();
    let mut state = sandbox.watcher.shared.state();
    let overflow = InotifyEvent {
        wd: *state.watched.keys().next().unwrap(),
        mask: AddWatchFlags::IN_Q_OVERFLOW,
        cookie: 0,
        name: None,
    };
    take_event(&mut state, &overflow, Instant::now());
    assert!(state.seen.everything);
    assert_eq!(state.pace.take(Instant::now() + LONG), [Topic::Sudo, alice()]);
}

#[test]
fn the_thread_ends_with_it() {
    let sandbox = Sandbox::new();
    let shared = Arc::clone(&sandbox.watcher.shared);
    assert_eq!(Arc::strong_count(&shared), 3);
    drop(sandbox);
    assert_eq!(Arc::strong_count(&shared), 1);
}

#[test]
fn what_cannot_be_watched_is_said_until_it_can_be() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.watcher.blind(), None);
    let there = Spot::all(sandbox.path("etc").to_str().unwrap());
    let too_long = Spot::all(&format!("/{}", "x".repeat(300)));
    let aim = Aim::from([(Topic::Sshd, [too_long].into()), (Topic::Sudo, [there.clone()].into())]);
    sandbox.watcher.aim(aim);
    let told = sandbox.watcher.blind().unwrap();
    assert!(told.starts_with("1 of 2 places cannot be watched for drift, the first is /xx"));
    sandbox.watcher.aim(Aim::from([(Topic::Sshd, [there].into())]));
    assert_eq!(sandbox.watcher.blind(), None);
}
