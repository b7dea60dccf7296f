//! strace as the one who makes system calls fail. Knows its words and its log, not what is traced.
//!
//! Only the first thread of a program is traced: the one that carries actions out. Its tools are not.

use bastio_tests::Host;

const LOG: &str = "/run/strace.log";
/// Calls that manage memory, signals and threads: none of them writes, and a program dies of a failure.
const NOT_OF_INTEREST: [&str; 16] = [
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "brk",
    "futex",
    "rt_sigaction",
    "rt_sigprocmask",
    "sigaltstack",
    "clock_gettime",
    "sched_yield",
    "sched_getaffinity",
    "exit_group",
    "close",
    "gettid",
];
/// Calls whose failure would not be the system's but a mistake in the program.
const NEVER_FAIL: [&str; 9] = [
    "wait4",
    "waitid",
    "poll",
    "ppoll",
    "fcntl",
    "lseek",
    "getrandom",
    "geteuid",
    "restart_syscall",
];

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill -9.
    Kill,
    /// The disk is full.
    Full,
    /// The disk fails.
    Broken,
}

/// One call of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub call: String,
    /// Counted from the start of the program, among calls of this kind.
    pub nth: usize,
}

impl Point {
    /// Whether such calls change something.
    pub fn writes(&self) -> bool {
        self.begins_with(&["clone", "vfork"])
            || (self.may_need_room() && !self.begins_with(&["open"]))
    }

    /// Whether such calls may find the disk full.
    fn may_need_room(&self) -> bool {
        self.begins_with(&[
            "open",
            "write",
            "pwrite",
            "fsync",
            "fdatasync",
            "ftruncate",
            "fallocate",
            "rename",
            "unlink",
            "mkdir",
            "fch",
        ])
    }

    fn begins_with(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.call.starts_with(word))
    }
}

impl Fault {
    pub const ALL: [Self; 3] = [Self::Kill, Self::Full, Self::Broken];

    fn as_word(self) -> &'static str {
        match self {
            Self::Kill => "signal=SIGKILL",
            Self::Full => "error=ENOSPC",
            Self::Broken => "error=EIO",
        }
    }

    /// Whether this can happen at that call.
    pub fn is_possible_at(self, point: &Point) -> bool {
        match self {
            Self::Kill => true,
            Self::Full => point.may_need_room(),
            Self::Broken => !NEVER_FAIL.contains(&point.call.as_str()),
        }
    }
}

/// The words before a program that let it run and write down its calls: all, or those on these paths.
pub fn watching(paths: &[&str]) -> Vec<String> {
    let words = ["strace", "-ttt", "-qq", "-o", LOG].map(str::to_owned);
    words.into_iter().chain(on(paths)).collect()
}

/// The words before a program that make a call fail: the nth of all, or of those on these paths.
pub fn failing(point: &Point, fault: Fault, paths: &[&str]) -> Vec<String> {
    let Point { call, nth } = point;
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:{}:when={nth}", fault.as_word());
    let words = ["strace", "-qq", "-o", LOG, "-e", &trace, "-e", &inject].map(str::to_owned);
    words.into_iter().chain(on(paths)).collect()
}

fn on(paths: &[&str]) -> impl Iterator<Item = String> {
    paths.iter().flat_map(|path| ["-P".to_owned(), (*path).to_owned()])
}

/// Whether the fault came.
pub fn was_hit(host: &Host) -> bool {
    let log = log(host);
    log.contains("(INJECTED)") || log.contains("killed by SIGKILL")
}

pub fn log(host: &Host) -> String {
    String::from_utf8_lossy(&host.read_file(LOG).unwrap()).into_owned()
}

/// Every call of the watched run since that time, in order.
pub fn points_since(log: &str, since: f64) -> Vec<Point> {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    let mut points = Vec::new();
    for line in log.lines() {
        let Some((time, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.split_once('(') else { continue };
        if !call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let nth = counts.entry(call).or_default();
        *nth += 1;
        let is_late = time.parse::<f64>().is_ok_and(|time| time >= since);
        if is_late && !NOT_OF_INTEREST.contains(&call) {
            points.push(Point { call: call.to_owned(), nth: *nth });
        }
    }
    points
}

#[test]
fn calls_are_counted_from_the_start_and_kept_from_a_time_on() {
    let log = "10.5 openat(AT_FDCWD, \"a(\") = 3\n11.0 --- SIGCHLD {} ---\n\
               11.5 openat(AT_FDCWD, \"b\") = 3\n11.6 mmap(NULL) = 0\n12.0 +++ exited with 0 +++\n";
    assert_eq!(points_since(log, 11.0), [Point { call: "openat".into(), nth: 2 }]);
}
