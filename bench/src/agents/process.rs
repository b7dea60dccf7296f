//! Memory and processor time of a process, from proc(5). Must not know which.

use std::fs;
use std::time::{Duration, Instant};

use crate::BenchError;
use crate::footprint::pss;

/// Processor time is told in hundredths of a second (`USER_HZ` of Linux).
const TICKS_A_SECOND: f64 = 100.0;

/// Proportional set size in MiB.
pub fn pss_mib(pid: i32) -> Result<f64, BenchError> {
    #[allow(clippy::cast_precision_loss, reason = "kibibytes of a process are far below 2^53")]
    Ok(pss(pid)? as f64 / 1024.0)
}

/// Processor time so far, in seconds.
pub fn cpu_seconds(pid: i32) -> Result<f64, BenchError> {
    ticks(pid, 2)
}

/// The same with that of its children, those that have ended included.
pub fn cpu_seconds_of_family(pid: i32) -> Result<f64, BenchError> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).map_err(|error| BenchError::File("proc", error))?;
    let children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok());
    // One that ends meanwhile is told of by its parent next time.
    let alive: f64 = children.filter_map(|child| ticks(child, 2).ok()).sum();
    Ok(ticks(pid, 4)? + alive)
}

/// The sum of so many of: its own time in programs and in the system, the same of its ended children.
fn ticks(pid: i32, fields: usize) -> Result<f64, BenchError> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_err(|error| BenchError::File("proc", error))?;
    // The program's name may hold anything; what follows its parenthesis is numbers.
    let numbers = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let numbers = numbers.split_ascii_whitespace().skip(11).take(fields);
    let numbers: Vec<f64> = numbers.filter_map(|number| number.parse().ok()).collect();
    if numbers.len() == fields {
        return Ok(numbers.iter().sum::<f64>() / TICKS_A_SECOND);
    }
    Err(BenchError::Child("proc tells no processor time".to_owned()))
}

/// Share of one core that a process takes in a while, in percent.
pub fn idle_percent(pid: i32, watched: Duration) -> Result<f64, BenchError> {
    let (begin, before) = (Instant::now(), cpu_seconds(pid)?);
    std::thread::sleep(watched);
    Ok((cpu_seconds(pid)? - before) / begin.elapsed().as_secs_f64() * 100.0)
}
