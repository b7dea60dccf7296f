//! What an idle, connected agent takes from its server: memory of both processes, its program, and how often they
//! wake up. Promises: at most 6 MiB of each, and no wake-ups less than 15 s apart.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use bastio_tests::World;

use crate::{BenchError, Fleet, agent_program};

/// Memory of both processes together, in KiB (proportional set size, proc(5) `smaps_rollup`).
const PSS_LIMIT: u64 = 6 * 1024;
/// Size of the program as it ships, without symbols, in KiB.
const PROGRAM_LIMIT: u64 = 6 * 1024;
/// How long the processes are watched.
const WATCHED: Duration = Duration::from_secs(60);
/// Time for the agent to become idle after it has connected.
const SETTLE: Duration = Duration::from_secs(3);
/// System calls closer together than this, in seconds, are one wake-up.
const BURST: f64 = 1.0;
/// Least time between two wake-ups of a process, in seconds: 15 s less what a busy machine adds.
const GAP_LIMIT: f64 = 14.5;

/// Runs it and prints the table.
pub fn run() -> Result<(), BenchError> {
    let world = World::new()?;
    let fleet = Fleet::start(&world)?;
    std::thread::sleep(SETTLE);
    let processor = fleet.agent.pid().as_raw();
    let connector = child_of(processor)?;
    let named = [("processor", processor), ("connector", connector)];

    let over = [memory(&named)?, program()?];
    println!("\n{:<12} {:>14} {:>20}", "process", "wake-ups/60 s", "smallest gap s");
    let mut smallest = f64::INFINITY;
    let bursts = watch(&named.map(|(_, pid)| pid))?;
    for (name, pid) in named {
        let times = bursts.get(&pid).cloned().unwrap_or_default();
        let gap = times.windows(2).filter_map(|t| Some(t.last()? - t.first()?));
        let gap = gap.fold(f64::INFINITY, f64::min);
        smallest = smallest.min(gap);
        println!("{name:<12} {:>14} {gap:>20.1}", times.len());
    }
    if let Some(text) = over.into_iter().flatten().next() {
        return Err(BenchError::OverLimit(text));
    }
    if smallest < GAP_LIMIT {
        return Err(BenchError::OverLimit(format!("wake-ups {smallest:.1} s apart")));
    }
    Ok(())
}

/// Prints the memory of these processes; answers what is over the limit.
fn memory(named: &[(&str, i32)]) -> Result<Option<String>, BenchError> {
    println!("\nidle agent, connected\n\n{:<12} {:>10}", "process", "PSS KiB");
    let mut total = 0;
    for (name, pid) in named {
        let pss = pss(*pid)?;
        total += pss;
        println!("{name:<12} {pss:>10}");
    }
    println!("{:<12} {total:>10}   (limit {PSS_LIMIT})", "together");
    Ok((total > PSS_LIMIT).then(|| format!("{total} KiB of memory instead of {PSS_LIMIT}")))
}

/// Prints the size of the agent's program; answers what is over the limit.
fn program() -> Result<Option<String>, BenchError> {
    let path = agent_program()?;
    let data = fs::metadata(&path).map_err(|error| BenchError::File("the program", error))?;
    let size = data.len().div_ceil(1024);
    println!("{:<12} {size:>10}   (limit {PROGRAM_LIMIT}; {})", "program", path.display());
    Ok((size > PROGRAM_LIMIT)
        .then(|| format!("a program of {size} KiB instead of {PROGRAM_LIMIT}")))
}

/// The process that another one started.
pub fn child_of(pid: i32) -> Result<i32, BenchError> {
    let text = read(format!("/proc/{pid}/task/{pid}/children"))?;
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .map_err(|error| BenchError::File("threads of the processor", error))?;
    let all = threads.flatten().filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    let found = std::iter::once(text)
        .chain(all)
        .find_map(|text| text.split_ascii_whitespace().next().and_then(|child| child.parse().ok()));
    found.ok_or_else(|| BenchError::Action("the agent has no connector process".to_owned()))
}

/// Proportional set size of a process, in KiB: what it has for itself, and its share of what it has with others.
pub fn pss(pid: i32) -> Result<u64, BenchError> {
    rollup(pid, "Pss:")
}

/// What a process has written to itself (heap, stacks, relocated data), in KiB: no other process has a share in it.
pub fn anonymous(pid: i32) -> Result<u64, BenchError> {
    rollup(pid, "Anonymous:")
}

fn rollup(pid: i32, key: &str) -> Result<u64, BenchError> {
    let text = read(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let value = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
    value.ok_or_else(|| BenchError::Action(format!("smaps_rollup names no {key}")))
}

fn read(path: String) -> Result<String, BenchError> {
    fs::read_to_string(path).map_err(|error| BenchError::File("proc", error))
}

/// When each process (with all its threads) woke up, in seconds since the Unix epoch.
fn watch(pids: &[i32]) -> Result<BTreeMap<i32, Vec<f64>>, BenchError> {
    let mut found = BTreeMap::new();
    let tracers: Vec<_> = pids
        .iter()
        .map(|pid| {
            let mut strace = Command::new("timeout");
            strace.args(["--signal=INT", &WATCHED.as_secs().to_string(), "strace", "-f", "-ttt"]);
            strace.args(["-qq", "-p", &pid.to_string()]).stderr(Stdio::piped()).spawn()
        })
        .collect();
    for (pid, tracer) in pids.iter().zip(tracers) {
        let ended = tracer.and_then(std::process::Child::wait_with_output);
        let output = ended.map_err(|error| BenchError::File("strace", error))?;
        found.insert(*pid, bursts(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(found)
}

/// Beginnings of bursts of system calls; the first lines are the calls found waiting.
fn bursts(trace: &str) -> Vec<f64> {
    let times = trace.lines().filter(|line| !line.contains("restart_syscall")).filter_map(time_of);
    let mut starts: Vec<f64> = Vec::new();
    let mut last = f64::NEG_INFINITY;
    for time in times {
        if time - last > BURST {
            starts.push(time);
        }
        last = time;
    }
    // strace itself wakes the process when it attaches: those calls are its doing.
    if !starts.is_empty() {
        starts.remove(0);
    }
    starts
}

/// `[pid 12] 1700000000.123456 epoll_wait(...`
fn time_of(line: &str) -> Option<f64> {
    let rest = line.split_once("] ").map_or(line, |(_, rest)| rest);
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_close_together_are_one_wake_up() {
        let trace = "[pid 7] 100.000000 epoll_wait(3, <unfinished ...>\n\
                     [pid 7] 110.000000 <... epoll_wait resumed>) = 1\n\
                     110.100000 read(5, ...) = 3\n\
                     [pid 7] 125.000000 <... epoll_wait resumed>) = 1\n";
        assert_eq!(bursts(trace), vec![110.0, 125.0]);
    }
}
