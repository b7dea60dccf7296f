//! The writer of key files against the owners of homes who swap `.ssh`, the file, and the file in the making, in processes
//! of their own, as fast as they can: nothing outside the home is read, written, given away or opened to others, and no
//! round takes long.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::lchown;
use std::process::{ChildStdout, Stdio};
use std::time::{Duration, Instant};

use bastio_agent::accounts::Account;
use bastio_agent::keys_on_disk::{self, KeysOnDiskError, Owner};
use bastio_agent::sshd::Shape;
use bastio_protocol::{Change, KeyPolicy, PublicKey, Username};
use bastio_tests::{Host, Running, World, binary, require_root};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid};

use crate::canaries::{Canaries, FOLDER};
use crate::tally::{self, Tally};

const HOME: &str = "/home/mallory";
const UID: u32 = 7001;
/// Attackers at once, one for each processor of a small machine.
const ATTACKERS: u64 = 2;
/// The longest that one round may take: far more than it does, far less than for ever.
const ROUND_LIMIT: Duration = Duration::from_secs(10);
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f proof";
/// Rounds in full.
const PROMISED: usize = 200_000;
/// Rounds between two gifts of a device to each attacker.
const GIVE_EVERY: usize = 20;
/// Rounds between two looks at the canaries.
const LOOK_EVERY: usize = 500;

/// What was seen in all rounds.
struct Seen {
    outcomes: Tally,
    slowest: Duration,
}

#[test]
fn a_racing_owner_harms_only_himself() {
    require_root!();
    let rounds = tally::rounds(5_000, PROMISED);
    let seed = tally::seed();
    let world = World::new().unwrap();
    let host = world.host("web-1").binary(binary("bastio-attacker").unwrap()).without_sshd();
    let host = host.start().unwrap();
    make_home(&host);
    let canaries = host.within(|| Canaries::set_out(UID)).unwrap();
    let mut attackers: Vec<_> = (0..ATTACKERS).map(|n| Attacker::start(&host, seed + n)).collect();
    let seen = host.within(|| work(rounds, seed, &canaries)).unwrap();
    let swaps: Vec<_> = attackers.iter_mut().map(Attacker::stop).collect();
    report(rounds, &seen, &swaps);
    host.within(|| {
        canaries.check_all();
        is_usable_again();
    })
    .unwrap();
}

/// A file system of its own with devices allowed, as a careless administrator would have it.
fn make_home(host: &Host) {
    host.exec(&["useradd", "--no-create-home", "--uid", &UID.to_string(), "mallory"]).unwrap();
    host.exec(&["mount", "-t", "tmpfs", "-o", "dev,mode=755,strictatime", "tmpfs", "/home"])
        .unwrap();
    host.exec(&["install", "-d", "-m", "755", "-o", "mallory", "-g", "mallory", HOME]).unwrap();
}

/// One process that swaps.
struct Attacker {
    process: Running,
    words: BufReader<ChildStdout>,
}

impl Attacker {
    fn start(host: &Host, seed: u64) -> Self {
        let command = host.command("setpriv").args([
            "--reuid=mallory",
            "--regid=mallory",
            "--clear-groups",
            "bastio-attacker",
            HOME,
            FOLDER,
            &seed.to_string(),
        ]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.stderr(Stdio::inherit()).spawn().unwrap();
        let mut words = BufReader::new(process.take_stdout().unwrap());
        let mut first = String::new();
        words.read_line(&mut first).unwrap();
        assert_eq!(first, "ready\n");
        Self { process, words }
    }

    /// How often it has swapped what.
    fn stop(&mut self) -> BTreeMap<String, u64> {
        drop(self.process.take_stdin());
        let mut text = String::new();
        self.words.read_to_string(&mut text).unwrap();
        assert!(self.process.wait(Duration::from_secs(10)).unwrap().success());
        serde_json::from_str(&text).unwrap()
    }
}

/// The rounds. The test runner ends a round that hangs; one that is merely slow fails here.
fn work(rounds: usize, seed: u64, canaries: &Canaries) -> Seen {
    let key = PublicKey::parse(KEY, &KeyPolicy::ANY).unwrap();
    let mut seen = Seen { outcomes: Tally::default(), slowest: Duration::ZERO };
    for round in 0..rounds {
        let start = Instant::now();
        let (action, result) = act(round, &key);
        seen.slowest = seen.slowest.max(start.elapsed());
        assert!(start.elapsed() < ROUND_LIMIT, "{action} took {:?}", start.elapsed());
        let outcome = result.map_or_else(|error| kind_of(&error), str::to_owned);
        seen.outcomes.count(format!("{action}: {outcome}"));
        if round % GIVE_EVERY == 0 {
            (0..ATTACKERS).for_each(|number| give_device(seed + number));
        }
        if round % LOOK_EVERY == 0 {
            canaries.check();
        }
    }
    seen
}

fn act(round: usize, key: &PublicKey) -> (&'static str, Result<&'static str, KeysOnDiskError>) {
    let (account, shape) = (account(), Shape::default());
    let told = |change| if change == Change::Changed { "changed" } else { "unchanged" };
    match round % 7 {
        0 | 2 | 4 => ("insert", keys_on_disk::insert_key(&account, &shape, key).map(told)),
        1 | 3 => ("remove", keys_on_disk::remove_key(&account, &shape, key).map(told)),
        5 => ("repair", keys_on_disk::repair(&account, &shape).map(|()| "done")),
        _ => ("remove all", keys_on_disk::remove_all_keys(&account, &shape).map(|()| "done")),
    }
}

fn account() -> Account {
    Account {
        name: Username::parse("alice").unwrap(),
        owner: Owner { uid: Uid::from_raw(UID), gid: Gid::from_raw(UID) },
        home: HOME.into(),
        is_system: false,
        is_managed: true,
    }
}

/// The variant's name, and for what the system refused also which step and why.
fn kind_of(error: &KeysOnDiskError) -> String {
    let text = format!("{error:?}");
    let name = text.split(|c: char| !c.is_alphanumeric()).next().unwrap();
    match error {
        KeysOnDiskError::System { step, errno, .. } => format!("cannot {step}: {errno:?}"),
        KeysOnDiskError::WrongKind { found, .. } => format!("{name}: {found}"),
        _ => name.to_owned(),
    }
}

/// Only root can make a device; this one reads without an end.
fn give_device(attacker: u64) {
    let path = format!("{HOME}/space-{attacker}/given");
    let everyone = Mode::from_bits_truncate(0o666);
    if mknod(path.as_str(), SFlag::S_IFCHR, everyone, makedev(1, 5)).is_ok() {
        // It may be in use already.
        let _ = lchown(path, Some(UID), Some(UID));
    }
}

fn report(rounds: usize, seen: &Seen, swaps: &[BTreeMap<String, u64>]) {
    let mut by_kind = BTreeMap::<&str, u64>::new();
    for (kind, count) in swaps.iter().flatten() {
        *by_kind.entry(kind).or_default() += count;
    }
    let swaps: u64 = by_kind.values().sum();
    eprintln!("outcomes of {rounds} rounds:\n{}", seen.outcomes);
    eprintln!("{swaps} swaps:");
    for (kind, count) in &by_kind {
        eprintln!("{count:>9}  {kind}");
    }
    let what = format!(
        "rounds against {swaps} swaps of {} kinds, {} outcomes, slowest {:.0} ms",
        by_kind.len(),
        seen.outcomes.kinds(),
        seen.slowest.as_secs_f64() * 1e3
    );
    tally::tell("hostile home", rounds, PROMISED, &what);
    // A race that nobody wins or loses proves nothing.
    assert!(swaps > rounds as u64 / 10, "{swaps} swaps");
    assert!(by_kind.len() > 30, "{} kinds of swaps", by_kind.len());
    assert!(seen.outcomes.of("insert: changed") > rounds / 100);
    assert!(seen.outcomes.kinds() > 15);
}

/// With the attackers gone and their leavings cleared away, a key goes in as ever.
fn is_usable_again() {
    let _ = fs::remove_dir_all(format!("{HOME}/.ssh"));
    let _ = fs::remove_file(format!("{HOME}/.ssh"));
    let key = PublicKey::parse(KEY, &KeyPolicy::ANY).unwrap();
    let change = keys_on_disk::insert_key(&account(), &Shape::default(), &key).unwrap();
    assert_eq!(change, Change::Changed);
    let names = fs::read_dir(format!("{HOME}/.ssh")).unwrap();
    assert_eq!(names.count(), 1);
}
