//! What the parts of a backend count while they run. Each part has its own meter; the metrics
//! read them all. This file must not know what is measured by them, nor who reads it.

use std::time::Duration;

use bastio_protocol::Status;
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramTimer, HistogramVec, IntCounterVec, Opts};

/// Measures until it is dropped.
pub type Timer = HistogramTimer;

/// Transactions last from parts of a millisecond to the patience of whoever waits for one: 10 s.
const STORE_BUCKETS: [f64; 12] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0];
/// An agent answers in milliseconds, or after a long `useradd`; after two minutes it is cut off.
const ANSWER_BUCKETS: [f64; 12] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0];
/// Queues wait for servers that are away: up to days. The times are whole seconds.
const ACTION_BUCKETS: [f64; 10] =
    [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0, 21_600.0, 86_400.0];

/// How long transactions take.
#[derive(Debug, Clone)]
pub struct StoreMeter {
    read: Histogram,
    write: Histogram,
    all: HistogramVec,
}

/// How long actions take.
#[derive(Debug, Clone)]
pub struct ActionMeter {
    ended: HistogramVec,
    answered: Histogram,
}

/// How many requests over HTTP were answered how.
#[derive(Debug, Clone)]
pub struct RequestMeter {
    answered: IntCounterVec,
}

impl StoreMeter {
    pub(crate) fn new() -> Self {
        let help = "Time from asking for a transaction to its end.";
        let all = histograms("bastio_store_duration_seconds", help, &STORE_BUCKETS, "kind");
        let of = |kind: &str| all.with_label_values(&[kind]);
        Self { read: of("read"), write: of("write"), all }
    }

    pub(crate) fn read(&self) -> Timer {
        self.read.start_timer()
    }

    pub(crate) fn write(&self) -> Timer {
        self.write.start_timer()
    }

    pub(crate) fn collectors(&self) -> [Box<dyn Collector>; 1] {
        [Box::new(self.all.clone())]
    }
}

impl ActionMeter {
    pub(crate) fn new() -> Self {
        let help = "Time from queueing an action to its answer, by the answer; whole seconds.";
        let name = "bastio_action_duration_seconds";
        let ended = histograms(name, help, &ACTION_BUCKETS, "result");
        for status in [Status::Done, Status::Unchanged, Status::Refused, Status::Failed] {
            // Seen as zero before there is the first one.
            let _ = ended.with_label_values(&[result(status)]);
        }
        let help = "Time from sending an action to its answer.";
        let options = HistogramOpts::new("bastio_action_answer_seconds", help);
        let answered = Histogram::with_opts(options.buckets(ANSWER_BUCKETS.to_vec()));
        Self { ended, answered: answered.expect(FIXED) }
    }

    /// An answer came for an action that was queued so many seconds ago. A clock that was set back
    /// makes that 0.
    pub(crate) fn ended(&self, status: Status, waited: i64) {
        let waited = u32::try_from(waited.max(0)).unwrap_or(u32::MAX);
        self.ended.with_label_values(&[result(status)]).observe(waited.into());
    }

    /// An answer came so long after its action was sent.
    pub fn answered(&self, took: Duration) {
        self.answered.observe(took.as_secs_f64());
    }

    pub(crate) fn collectors(&self) -> [Box<dyn Collector>; 2] {
        [Box::new(self.ended.clone()), Box::new(self.answered.clone())]
    }
}

impl RequestMeter {
    pub(crate) fn new() -> Self {
        let options = Opts::new("bastio_http_requests_total", "Requests answered.");
        let answered = IntCounterVec::new(options, &["method", "route", "status"]);
        Self { answered: answered.expect(FIXED) }
    }

    /// A request was answered. `method` and `route` must be from a closed list, as every
    /// combination is kept for ever.
    pub(crate) fn answered(&self, method: &str, route: &str, status: u16) {
        self.answered.with_label_values(&[method, route, &status.to_string()]).inc();
    }

    pub(crate) fn collectors(&self) -> [Box<dyn Collector>; 1] {
        [Box::new(self.answered.clone())]
    }
}

/// Why no metric can fail to be made.
pub(crate) const FIXED: &str = "names, labels and buckets are fixed and a test makes them all";

fn histograms(name: &str, help: &str, buckets: &[f64], label: &str) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    HistogramVec::new(options, &[label]).expect(FIXED)
}

fn result(status: Status) -> &'static str {
    match status {
        Status::Done => "done",
        Status::Unchanged => "unchanged",
        Status::Refused => "refused",
        Status::Failed => "failed",
    }
}
