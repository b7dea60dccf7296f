//! The backend in numbers, in Prometheus' text format (version 0.0.4): what its parts have counted,
//! and what the database says at the time of the scrape.
//!
//! A database that does not answer costs a scrape two seconds and the figures that stand in it; all
//! others are there. This room must not know HTTP. docs/monitoring.md tells what each figure means.

mod process;

use std::sync::Arc;
use std::time::Duration;

use bastio_protocol::api::{CLOCK_LIMIT, QuestionKind};
use bastio_transport::{Handshake, Tally};
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, Gauge, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::dispatch::{Dispatch, healing};
use crate::meters::{FIXED, RequestMeter};
use crate::store::{self, Store, StoreError};
use crate::unsealing::Unsealing;
use process::Process;

/// How long a scrape waits for the database; Prometheus gives up after 10 s.
const PATIENCE: Duration = Duration::from_secs(2);

/// Everything that a scrape reads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    counted: Registry,
    requests: RequestMeter,
    store: Store,
    dispatch: Dispatch,
    ports: Vec<(&'static str, Arc<Tally>)>,
    signing: Option<Unsealing>,
    started: f64,
}

/// What the database says.
#[derive(Debug)]
struct Figures {
    revision: i64,
    servers: u32,
    behind: u32,
    drifted: usize,
    keep_drifting: usize,
    /// Servers whose clock is off, and by how much the worst is.
    clocks_off: usize,
    worst_clock: u64,
    /// What somebody must decide, by kind.
    questions: [(&'static str, u64); 3],
    queued: u32,
    sent: u32,
    failed: u32,
    /// Age of the oldest action of a server that is connected, and of one that is not; in seconds.
    oldest: [i64; 2],
}

impl Metrics {
    /// The metrics of these parts; `dispatch` must be over the same store.
    #[must_use]
    pub fn new(store: Store, dispatch: Dispatch) -> Self {
        let (counted, requests) = (Registry::new(), RequestMeter::new());
        let collectors = store.meter().collectors().into_iter();
        let collectors = collectors.chain(dispatch.meter().collectors());
        for collector in collectors.chain(requests.collectors()) {
            counted.register(collector).expect(FIXED);
        }
        let (ports, signing, started) = (Vec::new(), None, process::unix_now());
        Self { counted, requests, store, dispatch, ports, signing, started }
    }

    /// Also what these ports for agents have counted, under their names.
    #[must_use]
    pub fn with_ports(mut self, ports: Vec<(&'static str, Arc<Tally>)>) -> Self {
        self.ports = ports;
        self
    }

    /// Also whether the signing key is sealed.
    #[must_use]
    pub fn with_signing(mut self, signing: Unsealing) -> Self {
        self.signing = Some(signing);
        self
    }

    /// Where requests are counted.
    #[must_use]
    pub fn requests(&self) -> &RequestMeter {
        &self.requests
    }

    /// All figures as text; takes two seconds at most.
    pub async fn scrape(&self) -> String {
        let figures = match tokio::time::timeout(PATIENCE, self.figures()).await {
            Ok(Ok(figures)) => Some(figures),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a scrape without the figures of the database");
                None
            }
            Err(_) => {
                tracing::warn!("a scrape without the figures of the database: it is too slow");
                None
            }
        };
        let mut families = self.now(figures.as_ref());
        families.extend(self.counted.gather());
        TextEncoder::new().encode_to_string(&families).expect(FIXED)
    }

    async fn figures(&self) -> Result<Figures, StoreError> {
        let mut db = self.store.read().await?;
        let (queued, sent, failed) = store::outcomes::counts(&mut db).await?;
        let now = self.store.now();
        let mut oldest = [0; 2];
        for (server, created) in store::outcomes::oldest_pending(&mut db).await? {
            let [connected, away] = &mut oldest;
            let age = if self.dispatch.is_connected(server) { connected } else { away };
            *age = now.saturating_sub(created).max(*age);
        }
        let clocks = store::clocks::off(&mut db, CLOCK_LIMIT).await?;
        let kinds = [QuestionKind::SameName, QuestionKind::Machine, QuestionKind::Rivals];
        let mut questions = kinds.map(|kind| (kind.name(), 0));
        for open in store::questions::all(&mut db).await?.into_values().flatten() {
            for (_, count) in questions.iter_mut().filter(|(kind, _)| *kind == open.kind.name()) {
                *count += 1;
            }
        }
        let drifting = healing::drifting(&mut db, now).await?;
        Ok(Figures {
            revision: store::revisions::current(&mut db).await?,
            servers: store::servers::count(&mut db).await?,
            behind: store::outcomes::servers_behind(&mut db).await?,
            drifted: drifting.values().filter(|it| it.is_trouble()).count(),
            keep_drifting: drifting.values().filter(|it| it.keeps).count(),
            clocks_off: clocks.len(),
            worst_clock: clocks.values().map(|offset| offset.unsigned_abs()).max().unwrap_or(0),
            questions,
            queued,
            sent,
            failed,
            oldest,
        })
    }

    /// What is true at the time of the scrape.
    fn now(&self, figures: Option<&Figures>) -> Vec<MetricFamily> {
        let mut families = Families::default();
        let version = env!("CARGO_PKG_VERSION");
        let help = "The version that runs.";
        families.labelled("bastio_build_info", help, "version", &[(version, 1.0)]);
        let up = if figures.is_some() { 1.0 } else { 0.0 };
        families.gauge("bastio_database_up", "Whether the database answered this scrape.", up);
        let connected = whole(self.dispatch.connected());
        families.gauge("bastio_agents_connected", "Agents with a session.", connected);
        let sealed = self.signing.as_ref().is_some_and(Unsealing::is_sealed);
        let help = "Whether the signing key is sealed, so that nothing signed is sent.";
        families.gauge("bastio_signing_key_sealed", help, if sealed { 1.0 } else { 0.0 });
        if let Some(figures) = figures {
            families.database(figures);
        }
        self.handshakes(&mut families);
        families.process(&Process::now(), self.started);
        families.0.gather()
    }

    fn handshakes(&self, families: &mut Families) {
        let help = "Connections that are not logged in now.";
        let startups = Opts::new("bastio_ssh_startups", help);
        let startups = IntGaugeVec::new(startups, &["port"]).expect(FIXED);
        let help = "Connections of agents by what became of them.";
        let ends = Opts::new("bastio_handshakes_total", help);
        let ends = IntCounterVec::new(ends, &["port", "result"]).expect(FIXED);
        for (port, tally) in &self.ports {
            let open = i64::try_from(tally.startups()).unwrap_or(i64::MAX);
            startups.with_label_values(&[port]).set(open);
            for end in Handshake::ALL {
                ends.with_label_values(&[port, result(end)]).inc_by(tally.count(end));
            }
        }
        families.add(startups);
        families.add(ends);
    }
}

/// Metrics of one scrape.
#[derive(Default)]
struct Families(Registry);

impl Families {
    fn add(&mut self, collector: impl Collector + 'static) {
        self.0.register(Box::new(collector)).expect(FIXED);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::new(name, help).expect(FIXED);
        gauge.set(value);
        self.add(gauge);
    }

    fn labelled(&mut self, name: &str, help: &str, label: &str, values: &[(&str, f64)]) {
        let gauges = GaugeVec::new(Opts::new(name, help), &[label]).expect(FIXED);
        for (text, value) in values {
            gauges.with_label_values(&[text]).set(*value);
        }
        self.add(gauges);
    }

    fn database(&mut self, figures: &Figures) {
        let revision = u64::try_from(figures.revision).unwrap_or(0);
        self.gauge("bastio_model_revision", "Edits of the model so far.", whole(revision));
        self.gauge("bastio_servers", "Servers on record.", figures.servers.into());
        let help = "Servers that have not confirmed everything: pending or failed actions.";
        self.gauge("bastio_servers_behind", help, figures.behind.into());
        let help = "Servers where others changed something that was not put right.";
        self.gauge("bastio_drifted_servers", help, whole(figures.drifted));
        let help = "Servers that drift again, although they were brought back.";
        self.gauge("bastio_keep_drifting_servers", help, whole(figures.keep_drifting));
        let help = "Servers whose clock differs from the backend's by more than 30 s.";
        self.gauge("bastio_clocks_off", help, whole(figures.clocks_off));
        let help = "By how much the worst of these clocks is off; 0 when none is.";
        self.gauge("bastio_clock_skew_seconds", help, whole(figures.worst_clock));
        let questions = figures.questions.map(|(kind, count)| (kind, whole(count)));
        let help = "What somebody must decide about servers, by what it is.";
        self.labelled("bastio_questions", help, "kind", &questions);
        self.gauge("bastio_actions_queued", "Actions to be sent.", figures.queued.into());
        self.gauge("bastio_actions_sent", "Actions sent, not answered.", figures.sent.into());
        let help = "Actions that failed and were not taken up again.";
        self.gauge("bastio_actions_failed", help, figures.failed.into());
        let [connected, away] = figures.oldest.map(|age| whole(u64::try_from(age).unwrap_or(0)));
        let ages = [("connected", connected), ("away", away)];
        let help = "Age of the oldest action without an answer, by where its agent is.";
        self.labelled("bastio_oldest_pending_action_seconds", help, "agent", &ages);
    }

    /// Under the names that all client libraries use.
    fn process(&mut self, process: &Process, started: f64) {
        if let Some(cpu) = process.cpu {
            let help = "User and system time so far.";
            let counter = Counter::new("process_cpu_seconds_total", help).expect(FIXED);
            counter.inc_by(cpu);
            self.add(counter);
        }
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory.", process.resident),
            ("process_open_fds", "Open file descriptors.", process.open_fds),
            ("process_max_fds", "Most file descriptors that may be open.", process.max_fds),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                self.gauge(name, help, whole(value));
            }
        }
        let help = "When the process began, since the Unix epoch.";
        self.gauge("process_start_time_seconds", help, started);
    }
}

/// A number as Prometheus has them; exact up to 2^53.
fn whole(number: impl TryInto<u64>) -> f64 {
    number.try_into().unwrap_or(u64::MAX) as f64
}

fn result(end: Handshake) -> &'static str {
    match end {
        Handshake::Opened => "opened",
        Handshake::KeyRefused => "key_refused",
        Handshake::TimedOut => "timed_out",
        Handshake::Failed => "failed",
        Handshake::Crowded => "crowded",
    }
}
