//! Several nodes on one PostgreSQL, and one of them killed in the middle of a grant on all servers: nothing is lost,
//! nothing is done twice, and how long its agents are without a node. Must not know what the nodes do inside.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::child::{LIMIT, Talker};
use super::cluster::Cluster;
use super::document;
use super::figures::{Promise, Times};
use super::svg::{Series, curve};
use super::talk::{Ask, Counts, Tell, micros};
use super::{Options, connect, emulator, enroll, new_key, told_rate, unexpected};
use crate::BenchError;

/// How long agents of a killed node may be without one, in seconds.
const SERVED_WITHIN: f64 = 15.0;
/// Time between two looks at how much is confirmed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Fleets smaller than this say nothing about a fleet.
const SMALLEST: usize = 100;

/// One fleet whose node was killed.
#[derive(Debug, Clone, Default)]
struct Takeover {
    agents: usize,
    connected: f64,
    /// Agents of the node that was killed.
    moved: usize,
    /// How much was confirmed then, of all.
    confirmed_before: usize,
    /// When they were served by another, from the kill on.
    served: Times,
    /// Until everything was confirmed, from the request on.
    confirmed: f64,
    /// When the node was killed, from the request on.
    killed: f64,
    /// Orders that never reached their agent.
    lost: u64,
    counts: Counts,
    /// Confirmed orders by seconds from the request on.
    progress: Vec<(f64, f64)>,
}

/// Runs all sizes.
pub fn run(options: &Options) -> Result<(), BenchError> {
    let smaller = options.curve.iter().filter(|count| (SMALLEST..options.count).contains(count));
    let mut fleets = Vec::new();
    for count in smaller.chain([&options.count]) {
        fleets.push(kill_one(options, *count)?);
    }
    let promises = promises(&fleets);
    println!("\n{:<58} {:>9} {:>9}      holds", "promise", "limit", "figure");
    promises.iter().for_each(|promise| println!("{promise}"));
    if let Some(docs) = &options.docs {
        write(docs, options, &fleets)?;
    }
    match promises.iter().filter(|promise| !promise.holds()).count() {
        0 => Ok(()),
        broken => Err(BenchError::OverLimit(format!("{broken} of the promises above"))),
    }
}

fn kill_one(options: &Options, count: usize) -> Result<Takeover, BenchError> {
    let cluster = Cluster::start()?;
    let first = Backend::start(&cluster.configuration())?;
    let mut nodes = vec![first];
    for _ in 1..options.nodes {
        nodes.extend(nodes.first().map(|first| first.join(&cluster.configuration())).transpose()?);
    }
    let targets = nodes.iter().map(|node| node.listening.ssh).collect();
    let mut victim = nodes.remove(0);
    let survivor = nodes.first().ok_or_else(|| BenchError::Child("one node".to_owned()))?;
    let mut emulator = emulator(options, count, targets, survivor.host_key()?)?;
    enroll(&mut emulator, survivor, count)?;
    let connected = connect(&mut emulator, options.parallel)?;
    told_rate("nodes", count, connected);
    await_all(survivor, count)?;
    survivor.add_user("person", &new_key()?)?;
    let mut found = Takeover { agents: count, connected, ..Takeover::default() };
    let before = cluster.cpu_seconds()?;
    fan_out(&mut victim, survivor, &mut emulator, &mut found)?;
    let database = cluster.cpu_seconds()? - before;
    found.counts = match emulator.answer(&Ask::Count)? {
        Tell::Counts(counts) => counts,
        told => return Err(unexpected(&told)),
    };
    let wanted = u64::try_from(count).unwrap_or(u64::MAX);
    found.lost = wanted.saturating_sub(found.counts.obeyed.saturating_sub(found.counts.doubled));
    report(&found, database);
    Ok(found)
}

/// Every node looks at the others every five seconds at least.
fn await_all(node: &Backend, count: usize) -> Result<(), BenchError> {
    let begin = Instant::now();
    while node.connected()? != u64::try_from(count).unwrap_or(u64::MAX) {
        if begin.elapsed() > LIMIT {
            return Err(BenchError::Child("the nodes do not see all agents".to_owned()));
        }
        sleep(LOOK_EVERY);
    }
    Ok(())
}

/// A grant on all; the victim is killed when a third of it is confirmed.
fn fan_out(
    victim: &mut Backend,
    survivor: &Backend,
    emulator: &mut Talker,
    found: &mut Takeover,
) -> Result<(), BenchError> {
    let (begun, _) = survivor.grant("person", "*")?;
    let all = u64::try_from(found.agents).unwrap_or(u64::MAX);
    let mut killed = None;
    loop {
        let left = survivor.outstanding()?;
        let now = Times::since(begun, vec![micros()]).max;
        let confirmed = all.saturating_sub(left);
        #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^53 orders")]
        found.progress.push((now, confirmed as f64));
        if killed.is_none() && confirmed * 3 >= all {
            // Whom it serves is noted first, then it is killed.
            emulator.answer(&Ask::AwaitMoved { node: 0 })?;
            let at = micros();
            victim.crash()?;
            killed = Some(at);
            found.killed = Times::since(begun, vec![at]).max;
            found.confirmed_before = usize::try_from(confirmed).unwrap_or(usize::MAX);
        }
        if left == 0 {
            found.confirmed = now;
            break;
        }
        sleep(LOOK_EVERY);
    }
    let killed = killed.ok_or_else(|| BenchError::Child("no third was confirmed".to_owned()))?;
    match emulator.told()? {
        Tell::Moved { at } if at.is_empty() => {
            Err(BenchError::Child("the dead node served nobody".to_owned()))
        }
        Tell::Moved { at } => {
            found.moved = at.len();
            found.served = Times::since(killed, at);
            Ok(())
        }
        told => Err(unexpected(&told)),
    }
}

fn report(found: &Takeover, database: f64) {
    println!(
        "{} agents: node killed after {:.2} s with {} of {} orders confirmed; its {} agents were served by another after \
         p50 {:.2} s, p99 {:.2} s, last {:.2} s; all confirmed after {:.2} s, {database:.1} s of CPU of the database",
        found.agents,
        found.killed,
        found.confirmed_before,
        found.agents,
        found.moved,
        found.served.p50,
        found.served.p99,
        found.served.max,
        found.confirmed
    );
    println!("emulator: {:?}", found.counts);
}

#[allow(clippy::cast_precision_loss, reason = "far fewer than 2^53 orders")]
fn promises(fleets: &[Takeover]) -> Vec<Promise> {
    let of = |found: &Takeover| {
        let agents = found.agents;
        [
            Promise::new(
                format!("{agents} agents: the last of the dead node's is served"),
                SERVED_WITHIN,
                found.served.max,
                "s",
            ),
            Promise::new(format!("{agents} agents: orders lost"), 0.0, found.lost as f64, ""),
            Promise::new(
                format!("{agents} agents: done twice, under two ids"),
                0.0,
                found.counts.doubled as f64,
                "",
            ),
        ]
    };
    fleets.iter().flat_map(of).collect()
}

fn write(docs: &Path, options: &Options, fleets: &[Takeover]) -> Result<(), BenchError> {
    let file = |error| BenchError::File("docs", error);
    let takeover =
        curve("A node killed: until its agents are served", "agents", "seconds", &served(fleets));
    std::fs::write(docs.join("nodes-takeover.svg"), takeover).map_err(file)?;
    if let Some(largest) = fleets.last() {
        let points = largest.progress.clone();
        let lines = [Series { name: "orders confirmed", colour: "#b22", points }];
        let title =
            format!("A grant on {}, a node killed at {:.1} s", largest.agents, largest.killed);
        let progress = curve(&title, "seconds from the request", "orders", &lines);
        std::fs::write(docs.join("nodes-progress.svg"), progress).map_err(file)?;
    }
    document::replace(docs, "nodes", &section(options, fleets))
}

#[allow(clippy::cast_precision_loss, reason = "far fewer than 2^53 agents")]
fn served(fleets: &[Takeover]) -> [Series; 2] {
    let series = |name, colour, of: fn(&Takeover) -> f64| {
        let points = fleets.iter().map(|found| (found.agents as f64, of(found))).collect();
        Series { name, colour, points }
    };
    [
        series("the last agent", "#b22", |found| found.served.max),
        series("half of them", "#07c", |found| found.served.p50),
    ]
}

fn section(options: &Options, fleets: &[Takeover]) -> String {
    let row = |found: &Takeover| {
        let orders = found.agents;
        format!(
            "| {} | {:.1} | {:.2}, {} of {orders} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {} | {} |",
            found.agents,
            found.connected,
            found.killed,
            found.confirmed_before,
            found.moved,
            found.served.p50,
            found.served.p99,
            found.served.max,
            found.confirmed,
            found.counts.repeated,
            found.counts.doubled,
            found.lost
        )
    };
    let rows: Vec<String> = fleets.iter().map(row).collect();
    format!(
        "{} nodes on one PostgreSQL. Seconds; \"served\" counts from the kill, \"confirmed\" from the request.\n\n{}\n\n\
         | agents | connected | killed at | its agents | served p50 | p99 | last | all confirmed | sent twice | done twice | lost |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n{}\n\n\
         ![until agents are served](nodes-takeover.svg)\n\n![orders confirmed](nodes-progress.svg)",
        options.nodes,
        document::promises(&promises(fleets)),
        rows.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_order_and_one_done_twice_break_a_promise() {
        let held =
            |found: &Takeover| promises(std::slice::from_ref(found)).iter().all(Promise::holds);
        let good = Takeover { agents: 100, ..Takeover::default() };
        assert!(held(&good));
        assert!(!held(&Takeover { lost: 1, ..good.clone() }));
        let counts = Counts { doubled: 1, ..Counts::default() };
        assert!(!held(&Takeover { counts, ..good.clone() }));
        let served = Times { max: 15.1, ..Times::default() };
        assert!(!held(&Takeover { served, ..good }));
    }
}
