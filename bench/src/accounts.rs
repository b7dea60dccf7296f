//! Accounts: one added by the processor, journal and all, against the bare useradd(8) with the same arguments; and 200 at
//! once with two keys each, against 200 bare useradds, and again when nothing changes.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bastio_protocol::{
    Action, HostRequest, KeyGrant, KeyOptions, KeyPolicy, PublicKey, Removal, Username,
    WantedAccount, WantedState,
};
use bastio_tests::World;

use crate::processor::{Bench, server};
use crate::round_trip::{line, percentile, row};
use crate::{BenchError, over};

/// Accounts added and removed again, in turn with the bare tool.
const ROUNDS: usize = 100;
/// Rounds before counting begins.
const WARM_UP: usize = 10;
/// The whole path may take so much longer than the bare tool.
const ADD_LIMIT: f64 = 1.15;
/// Accounts of the state that is brought about at once.
const MANY: u32 = 200;
const KEYS_EACH: u32 = 2;
/// How often, each time with the bare tool before or behind it.
const SYNC_ROUNDS: usize = 5;
/// All of it may take so much longer than the bare tool for each.
const SYNC_LIMIT: f64 = 1.1;
/// When there is nothing to do.
const UNCHANGED_LIMIT: Duration = Duration::from_millis(200);

/// Runs both and prints the tables.
pub fn run() -> Result<(), BenchError> {
    let added = add();
    sync().and(added)
}

fn add() -> Result<(), BenchError> {
    let world = World::new()?;
    let mut bench = Bench::start(&world, "web-1")?;
    // So that the group is there, which the tool is told.
    bench.act("first", Action::AddUser { sudo: false })?;
    let (mut path, mut bare) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let took = bench.act("alice", Action::AddUser { sudo: false })?;
        bench.act("alice", Action::RemoveUser { removal: Some(Removal::Delete) })?;
        let tool = bench.host.within(|| useradd("alice", 4000))??;
        bench.host.exec(&["userdel", "--remove", "alice"])?;
        if round >= WARM_UP {
            path.push(took);
            bare.push(tool);
        }
    }
    path.sort();
    bare.sort();
    println!("\nadd-user, the processor alone ({ROUNDS} rounds, in turn with the tool)\n");
    println!("{:<44} {:>10} {:>10}", "", "p50 ms", "p99 ms");
    row("floor: useradd with the same arguments", &bare);
    row("processor: journal, useradd, key file", &path);
    let ratio = percentile(&path, 50).as_secs_f64() / percentile(&bare, 50).as_secs_f64();
    println!("\nratio of the medians: {ratio:.2} (promised: at most {ADD_LIMIT})");
    over(ratio > ADD_LIMIT, || format!("add-user takes {ratio:.2} times the bare useradd"))
}

/// One round: the tool and the processor in turn, each on a server of its own, both new.
struct Round {
    tools: Duration,
    all: Duration,
    unchanged: Duration,
}

fn sync() -> Result<(), BenchError> {
    let rounds = (0..SYNC_ROUNDS).map(sync_once).collect::<Result<Vec<_>, _>>()?;
    let median = |of: &dyn Fn(&Round) -> f64| {
        let mut values: Vec<_> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let ratio_of = |round: &Round| round.all.as_secs_f64() / round.tools.as_secs_f64();
    let (ratio, unchanged) = (median(&ratio_of), median(&|round| ms(round.unchanged)));
    println!(
        "\nsync of {MANY} accounts with {KEYS_EACH} keys each (medians of {SYNC_ROUNDS} rounds)\n"
    );
    let floor = format!("floor: {MANY} times useradd");
    println!("{floor:<44} {:>10.0} ms", median(&|round| ms(round.tools)));
    println!("{:<44} {:>10.0} ms", "the whole state, from nothing", median(&|round| ms(round.all)));
    println!("{:<44} {unchanged:>10.1} ms", "again, nothing to do (p50 of 20)");
    let each: Vec<_> = rounds.iter().map(|round| format!("{:.2}", ratio_of(round))).collect();
    println!("\nratio: {ratio:.2} of {} (promised: at most {SYNC_LIMIT})", each.join(", "));
    over(ratio > SYNC_LIMIT, || format!("sync takes {ratio:.2} times {MANY} useradds"))?;
    let is_slow = unchanged > ms(UNCHANGED_LIMIT);
    over(is_slow, || format!("nothing to do takes {unchanged:.1} ms"))
}

fn sync_once(round: usize) -> Result<Round, BenchError> {
    let world = World::new()?;
    // Whoever is second finds the disk as the first left it: so they take turns.
    if round.is_multiple_of(2) {
        let tools = bare(&world)?;
        let (all, unchanged) = whole(&world)?;
        return Ok(Round { tools, all, unchanged });
    }
    let (all, unchanged) = whole(&world)?;
    Ok(Round { tools: bare(&world)?, all, unchanged })
}

fn bare(world: &World) -> Result<Duration, BenchError> {
    let bare = server(world, "web-1")?;
    bare.exec(&["groupadd", "--system", "bastio-managed"])?;
    bare.within(|| (0..MANY).map(|number| useradd(&name(number), 4000 + number)).sum())?
}

/// How long the state takes from nothing, and when it is there already.
fn whole(world: &World) -> Result<(Duration, Duration), BenchError> {
    let mut bench = Bench::start(world, "web-2")?;
    let request = || -> Result<_, BenchError> {
        Ok(HostRequest::Sync { wanted: Box::new(wanted()?), dry_run: false })
    };
    let (all, _) = bench.request(request()?)?;
    let mut again = Vec::new();
    for _ in 0..20 {
        again.push(bench.request(request()?)?.0);
    }
    again.sort();
    let file = bench.host.read_file("/home/user199/.ssh/authorized_keys")?;
    let lines = file.split_inclusive(|byte| *byte == b'\n').count();
    over(lines != KEYS_EACH as usize, || format!("{lines} keys instead of {KEYS_EACH}"))?;
    Ok((all, percentile(&again, 50)))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn name(number: u32) -> String {
    format!("user{number}")
}

fn wanted() -> Result<WantedState, BenchError> {
    let mut accounts = BTreeMap::new();
    for number in 0..MANY {
        let keys = (0..KEYS_EACH).map(|key| grant(number * KEYS_EACH + key));
        let keys = keys.collect::<Result<BTreeSet<_>, _>>()?;
        let username = Username::parse(&name(number));
        let username = username.map_err(|error| BenchError::Action(error.to_string()))?;
        accounts.insert(username, WantedAccount { keys, ..WantedAccount::default() });
    }
    Ok(WantedState { accounts, ..WantedState::default() })
}

fn grant(number: u32) -> Result<KeyGrant, BenchError> {
    let key = PublicKey::parse(&line(number), &KeyPolicy::ANY);
    let public_key = key.map_err(|error| BenchError::Action(error.to_string()))?;
    Ok(KeyGrant { public_key, options: KeyOptions::default(), until: None })
}

/// What the processor tells the tool, no more and no less.
fn useradd(name: &str, uid: u32) -> Result<Duration, BenchError> {
    let mut command = Command::new("/usr/sbin/useradd");
    command.args(["--uid", &uid.to_string(), "--home-dir", &format!("/home/{name}")]);
    command.args(["--password", "*", "--groups", "bastio-managed", "--shell", "/bin/bash"]);
    command.args(["--create-home", "--user-group", "--", name]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status().map_err(|error| BenchError::File("useradd", error))?;
    let took = start.elapsed();
    if status.success() {
        return Ok(took);
    }
    Err(BenchError::Action(format!("useradd {name}: {status}")))
}
