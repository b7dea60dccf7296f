//! What was measured, and what is promised of it. Must not know how it was measured.

use std::fmt;

use super::Engine;

/// Times of one fan-out, in seconds from its begin.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// Until half of the agents had answered.
    pub p50: f64,
    /// Until 99 % had.
    pub p99: f64,
    /// Until all had.
    pub max: f64,
}

/// One fan-out and its floor.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Servers concerned.
    pub servers: usize,
    /// Orders for each of them.
    pub orders: usize,
    /// When agents had answered.
    pub times: Times,
    /// Until the backend had all answers on its disk.
    pub confirmed: f64,
    /// Until the API had answered the request.
    pub request: f64,
    /// The same messages from the bare server.
    pub floor: Times,
}

/// All of a run.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub count: usize,
    pub engine: Engine,
    pub enrolled: f64,
    pub connected: f64,
    pub pss: f64,
    pub pss_after: f64,
    pub idle_cpu: f64,
    /// How long after the last login the backend became quiet.
    pub settled: f64,
    pub stopped: f64,
    pub back: f64,
    pub floor_connected: f64,
    pub floor_pss: f64,
    /// Until as many actions as servers, one each, were queued durably.
    pub enqueued: f64,
    pub points: Vec<Point>,
    /// The largest fan-out once more, beside so many half-open connections.
    pub crowded: Option<(usize, Point)>,
}

/// A promise, its figure, and whether it holds.
#[derive(Debug, Clone)]
pub struct Promise {
    pub what: String,
    pub limit: f64,
    pub figure: f64,
    pub unit: &'static str,
}

impl Times {
    /// Of the moments at which each agent had answered; `begun` and they are microseconds.
    pub fn since(begun: u64, mut at: Vec<u64>) -> Self {
        at.sort_unstable();
        #[allow(clippy::cast_precision_loss, reason = "a run takes far less than 2^53 us")]
        let seconds = |at: u64| at.saturating_sub(begun) as f64 / 1e6;
        let share = |percent: usize| {
            let place = (at.len() * percent).div_ceil(100).saturating_sub(1);
            at.get(place).copied().map_or(0.0, seconds)
        };
        Self { p50: share(50), p99: share(99), max: share(100) }
    }
}

impl Promise {
    /// Whether it is kept.
    pub fn holds(&self) -> bool {
        self.figure <= self.limit
    }

    /// A promise about a figure.
    pub fn new(what: impl Into<String>, limit: f64, figure: f64, unit: &'static str) -> Self {
        Self { what: what.into(), limit, figure, unit }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, limit, figure, unit } = self;
        let holds = if self.holds() { "yes" } else { "NO" };
        write!(f, "{what:<58} {limit:>9.2} {figure:>9.2} {unit:<4} {holds}")
    }
}

impl Figures {
    /// The promises of this run.
    pub fn promises(&self) -> Vec<Promise> {
        let mut all = vec![
            Promise::new("backend PSS, idle", 600.0, self.pss, "MiB"),
            Promise::new("  against 1.6 x the bare server", self.floor_pss * 1.6, self.pss, "MiB"),
            Promise::new("idle CPU of one core", 3.0, self.idle_cpu, "%"),
            Promise::new(
                "restart, all back, against 1.3 x bare handshakes",
                self.floor_connected * 1.3,
                self.back,
                "s",
            ),
        ];
        if let Some(point) = self.points.iter().find(|point| point.servers == self.count) {
            all.push(Promise::new(
                format!("{} actions, one a server, planned and queued durably", self.count),
                1.0,
                self.enqueued,
                "s",
            ));
            all.push(Promise::new(
                format!("grant on {} confirmed, against 2 x bare echo", point.servers),
                point.floor.max * 2.0,
                point.confirmed,
                "s",
            ));
            if let Some((strangers, crowded)) = &self.crowded {
                all.push(Promise::new(
                    format!("the same grant beside {strangers} half-open connections, 1.5 x"),
                    point.confirmed * 1.5,
                    crowded.confirmed,
                    "s",
                ));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_sorted_moments() {
        let at = (1..=100).rev().map(|n| 1_000_000 + n * 10_000).collect();
        let times = Times::since(1_000_000, at);
        assert!((times.p50 - 0.5).abs() < 1e-9 && (times.p99 - 0.99).abs() < 1e-9);
        assert!((times.max - 1.0).abs() < 1e-9);
        assert!(Times::since(5, Vec::new()).max.abs() < 1e-9);
    }

    #[test]
    fn a_figure_at_its_limit_holds() {
        assert!(Promise::new("x", 3.0, 3.0, "s").holds());
        assert!(!Promise::new("x", 3.0, 3.1, "s").holds());
    }
}
