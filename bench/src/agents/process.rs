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
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_err(|error| BenchError::File("proc", error))?;
    // The program's name may hold anything; what follows its parenthesis is numbers.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut next = || fields.next().and_then(|field| field.parse::<f64>().ok());
    match (next(), next()) {
        (Some(user), Some(system)) => Ok((user + system) / TICKS_A_SECOND),
        _ => Err(BenchError::Child("proc tells no processor time".to_owned())),
    }
}

/// Share of one core that a process takes in a while, in percent.
pub fn idle_percent(pid: i32, watched: Duration) -> Result<f64, BenchError> {
    let (begin, before) = (Instant::now(), cpu_seconds(pid)?);
    std::thread::sleep(watched);
    Ok((cpu_seconds(pid)? - before) / begin.elapsed().as_secs_f64() * 100.0)
}
