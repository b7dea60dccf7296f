//! What the system knows about this process. Linux' `/proc` (proc(5)) and getrusage(2).

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;

/// This process now; what cannot be read is left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Process {
    /// User and system time so far, in seconds.
    pub(super) cpu: Option<f64>,
    /// In bytes.
    pub(super) resident: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
}

impl Process {
    pub(super) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").ok();
        let fds = std::fs::read_dir("/proc/self/fd").ok();
        Self {
            cpu: cpu(),
            resident: status.as_deref().and_then(resident),
            // One of them is the folder itself.
            open_fds: fds.map(|fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }
    }
}

/// Seconds since the Unix epoch, for when the process began.
pub(super) fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn cpu() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    u64::try_from(micros).ok().map(|micros| std::time::Duration::from_micros(micros).as_secs_f64())
}

/// `VmRSS:     1234 kB`
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_in_bytes() {
        let status = "Name:\tbastio\nVmHWM:\t   9000 kB\nVmRSS:\t   5120 kB\nThreads:\t4\n";
        assert_eq!(resident(status), Some(5120 * 1024));
        for odd in ["", "VmRSS: x kB", "VmRSS: 12", "VmRSS: 99999999999999999999 kB"] {
            assert_eq!(resident(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn everything_is_known_about_this_process() {
        let process = Process::now();
        assert!(process.cpu.is_some_and(|cpu| cpu > 0.0));
        assert!(process.resident.is_some_and(|bytes| bytes > 1024 * 1024));
        assert!(process.open_fds.is_some_and(|fds| fds >= 3));
        assert!(process.max_fds >= process.open_fds);
    }
}
