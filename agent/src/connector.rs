//! The process with the network: one SSH connection to the backend on one side, the pipe to the
//! processor on the other. It carries out what [`link`](crate::link) decides, hands actions over,
//! and keeps feedbacks until the backend has them. It must not know accounts, keys of users or
//! anything that needs root.

mod dial;
mod intake;
pub mod lockdown;
mod outbox;
mod pipe_end;
mod report;
mod session;
mod ticker;

use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bastio_protocol::{AgentHello, BackendHello, Facts, Netstring, V2};
use bastio_transport::{BoxFuture, ClientConfig, CloseReason, ConnectError, PrivateKey, Subsystem};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Sleep, sleep, sleep_until};
use tracing::{debug, warn};

use self::dial::{client_config, dial, trouble};
use self::intake::Heard;
use self::outbox::{Drifts, Origin, Outbox};
pub use self::pipe_end::PipeEndError;
use self::pipe_end::{FromProcessor, ToProcessorEnd, ends};
use self::report::Reporter;
use self::session::{Session, Step};
use self::ticker::{EVERY, Ticker};
use crate::config::BackendSettings;
use crate::link::{Effect, Event, Link, Trouble};
use crate::pipe::{IN_FLIGHT, Obeys, ToConnector, ToProcessor};
use crate::{chance, notify};

/// How far the two clocks may differ before it is worth a warning, in seconds.
const CLOCK_LIMIT: i64 = 30;
/// At a stop: how long the processor may take for what it has in hand.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// At a stop: how long the backend may take to confirm the last feedbacks.
const FLUSH_LIMIT: Duration = Duration::from_millis(1500);

/// Why the connector ended otherwise than by a stop.
#[derive(Debug, Error)]
pub enum ConnectorError {
    /// No runtime, or no signals.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    /// The processor cannot be talked to any more.
    #[error(transparent)]
    Pipe(#[from] PipeEndError),
}

/// Connects the processor behind `pipe` with the backend, until a stop (SIGTERM, SIGINT, or the
/// processor's end).
///
/// # Errors
/// [`ConnectorError`] when the connector cannot start or the processor breaks the pipe's rules.
pub fn run(
    backend: &BackendSettings,
    key: PrivateKey,
    pipe: UnixStream,
    facts: Facts,
) -> Result<(), ConnectorError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .thread_keep_alive(Duration::from_secs(1))
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let connector = BackendConnector::new(backend, key, pipe, chance::fraction)?;
        connector.with_facts(facts).run(stop).await
    })
}

/// Carries the link's effects out. One task; everything it waits for is a branch of one loop.
pub struct BackendConnector {
    dialer: Arc<(ClientConfig, PrivateKey)>,
    link: Link,
    jitter: fn() -> f64,
    reporter: Reporter,
    from_processor: FromProcessor,
    to_processor: ToProcessorEnd,
    /// Actions handed to the processor and not answered yet.
    in_hand: usize,
    /// Whether the processor has handed over all that an earlier connector did not deliver.
    ready: bool,
    /// Whom the processor obeys, for our hello.
    obeys: Obeys,
    facts: Facts,
    processor_gone: bool,
    stop_heard: bool,
    outbox: Outbox,
    /// What the backend does not know yet, if it is one of version 2.
    drifts: Drifts,
    dialing: Option<BoxFuture<'static, Result<Subsystem, ConnectError>>>,
    session: Option<Session>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Set at a stop; when it is over, what is not delivered stays undelivered.
    deadline: Option<Pin<Box<Sleep>>>,
    exit: bool,
}

/// What the loop woke up for.
enum Wake {
    Stop,
    FromProcessor(Result<Option<ToConnector>, PipeEndError>),
    Handed(Result<(), PipeEndError>),
    Dialed(Result<Subsystem, ConnectError>),
    Step(Step),
    WaitOver,
    Deadline,
    Tick,
}

impl BackendConnector {
    /// A connector that has not begun yet. `jitter` draws an even fraction from 0 to 1.
    ///
    /// # Errors
    /// As the system says about the pipe.
    pub fn new(
        backend: &BackendSettings,
        key: PrivateKey,
        pipe: UnixStream,
        jitter: fn() -> f64,
    ) -> Result<Self, ConnectorError> {
        pipe.set_nonblocking(true)?;
        let (from_processor, to_processor) = ends(tokio::net::UnixStream::from_std(pipe)?);
        Ok(Self {
            dialer: Arc::new((client_config(backend), key)),
            link: Link::default(),
            jitter,
            reporter: Reporter::new(backend.address()),
            from_processor,
            to_processor,
            in_hand: 0,
            ready: false,
            obeys: Obeys::default(),
            facts: Facts::default(),
            processor_gone: false,
            stop_heard: false,
            outbox: Outbox::default(),
            drifts: Drifts::default(),
            dialing: None,
            session: None,
            timer: None,
            deadline: None,
            exit: false,
        })
    }

    /// With these facts in its hello.
    #[must_use]
    pub fn with_facts(self, facts: Facts) -> Self {
        Self { facts, ..self }
    }

    /// Runs until `stop` is over and everything owed is delivered, or until the processor ends.
    ///
    /// # Errors
    /// [`ConnectorError::Pipe`] when the processor breaks the pipe's rules.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), ConnectorError> {
        notify::ready();
        let mut stop = pin!(stop);
        let watched = notify::watchdog_interval().is_some();
        let mut ticker = Ticker::start(EVERY)?;
        self.to_processor.tell(self.reporter.begin());
        self.happen(Event::Start).await;
        while !self.exit {
            self.take_actions().await;
            self.send_feedbacks();
            self.finish_stop().await;
            if self.exit {
                break;
            }
            let read = self.may_take();
            let wake = tokio::select! {
                () = stop.as_mut(), if !self.stop_heard => Wake::Stop,
                message = self.from_processor.recv(), if !self.processor_gone => {
                    Wake::FromProcessor(message)
                }
                handed = self.to_processor.flush(), if !self.to_processor.is_idle() => {
                    Wake::Handed(handed)
                }
                dialed = maybe(self.dialing.as_mut()) => Wake::Dialed(dialed),
                step = step(self.session.as_mut(), read) => Wake::Step(step),
                () = maybe(self.timer.as_mut()) => Wake::WaitOver,
                () = maybe(self.deadline.as_mut()) => Wake::Deadline,
                ticked = ticker.tick() => {
                    ticked?;
                    if watched {
                        notify::alive();
                    }
                    Wake::Tick
                }
            };
            self.woke(wake).await?;
        }
        Ok(())
    }

    async fn woke(&mut self, wake: Wake) -> Result<(), ConnectorError> {
        match wake {
            Wake::Stop => {
                self.stop_heard = true;
                self.stop(ANSWER_LIMIT).await;
            }
            Wake::FromProcessor(Ok(message)) => self.heard_processor(message).await,
            Wake::Handed(Ok(())) => {}
            // The reading end, which may still hold answers, will notice the processor's end.
            Wake::Handed(Err(PipeEndError::Io(_))) => self.to_processor.close(),
            Wake::FromProcessor(Err(error)) | Wake::Handed(Err(error)) => return Err(error.into()),
            Wake::Dialed(dialed) => {
                self.dialing = None;
                self.dialed(dialed).await;
            }
            Wake::Step(Step::Arrived) => {}
            Wake::Step(Step::Confirmed(count)) => self.confirmed(count),
            Wake::Step(Step::Ended) => self.hang_up(None).await,
            Wake::WaitOver => {
                self.timer = None;
                self.happen(Event::WaitOver).await;
            }
            Wake::Deadline => {
                warn!(
                    feedbacks = self.outbox.len(),
                    actions = self.in_hand,
                    "stopping undelivered"
                );
                self.happen(Event::Drained).await;
            }
            Wake::Tick => {
                if let Some(session) = self.session.as_mut() {
                    session.keep_alive();
                }
            }
        }
        Ok(())
    }

    /// Whether another action fits: in the pipe, and later its answer in the outbox.
    fn may_take(&self) -> bool {
        self.session.is_some()
            && self.deadline.is_none()
            && self.ready
            && self.to_processor.is_open()
            && self.to_processor.is_idle()
            && self.in_hand + self.outbox.len() < IN_FLIGHT
    }

    /// Hands over what arrived, as long as there is room.
    async fn take_actions(&mut self) {
        while self.may_take() {
            let Some(session) = self.session.as_mut() else { return };
            match session.next() {
                Ok(Some(Heard::Action(action))) => {
                    self.in_hand += 1;
                    self.to_processor.push(&ToProcessor::Action(action));
                }
                Ok(Some(Heard::Host(host))) => {
                    self.in_hand += 1;
                    self.to_processor.push(&ToProcessor::Host(host));
                }
                Ok(Some(Heard::Order(order))) => {
                    self.in_hand += 1;
                    self.to_processor.push(&ToProcessor::Order(order));
                }
                Ok(Some(Heard::Hello(hello))) => self.greet(&hello),
                Ok(Some(Heard::Refused(answer))) => {
                    warn!(mid = %answer.mid, reason = answer.feedback, "a message was refused");
                    let frame = ToConnector::Feedback(answer).to_frame();
                    self.outbox.push(Origin::Connector, frame);
                }
                Ok(Some(Heard::Feedback)) => warn!("the backend sent a feedback: ignored"),
                Ok(None) => return,
                Err(error) => return self.hang_up(Some(error.to_string())).await,
            }
        }
    }

    /// Answers the hello of a backend that speaks version 2.
    fn greet(&mut self, hello: &BackendHello) {
        let now = unix_now();
        let off = hello.time.saturating_sub(now);
        if off.abs() > CLOCK_LIMIT {
            warn!(
                seconds = off,
                "the backend's clock differs from this one, which decides until when its orders are good"
            );
        }
        let answer = AgentHello {
            protocol: V2,
            facts: self.facts.clone(),
            last_sequence: self.obeys.last_sequence,
            signing_key: self.obeys.signing_key.clone(),
            receipt_key: self.obeys.receipt_key,
            time: Some(now),
            together: true,
        };
        if let Some(session) = self.session.as_mut() {
            session.answer_hello(Netstring::compose(&answer.to_json()));
        }
    }

    fn send_feedbacks(&mut self) {
        if let Some(session) = self.session.as_mut()
            && !session.is_sending()
        {
            let told = session.speaks_version_2() && !self.drifts.is_empty();
            if told || session.owes_hello() || !self.outbox.is_empty() {
                let drifts = if told { self.drifts.take() } else { Vec::new() };
                session.send(self.outbox.burst(), drifts);
            }
        }
    }

    /// The oldest feedbacks have arrived.
    fn confirmed(&mut self, count: usize) {
        let count = self.outbox.confirm(count);
        if count > 0 {
            self.to_processor.push(&ToProcessor::Delivered { count });
        }
    }

    async fn heard_processor(&mut self, message: Option<ToConnector>) {
        match message {
            Some(ToConnector::Ready) => self.ready = true,
            Some(ToConnector::Obeys(obeys)) => self.obeys = obeys,
            Some(message @ ToConnector::Feedback(_)) => {
                // What comes before the word is of an earlier connector.
                self.in_hand = self.in_hand.saturating_sub(usize::from(self.ready));
                self.outbox.push(Origin::Processor, message.to_frame());
            }
            Some(ToConnector::Drift(drift)) => self.drifts.put(&drift),
            Some(ToConnector::Reconnect) => self.happen(Event::Redial).await,
            Some(ToConnector::Answered) => {
                debug!("an action was sent again; its answer is on its way");
                self.in_hand = self.in_hand.saturating_sub(1);
            }
            Some(ToConnector::Stopping) | None => self.processor_ended().await,
        }
    }

    /// Nothing will be answered any more: deliver what there is and end.
    async fn processor_ended(&mut self) {
        self.processor_gone = true;
        self.in_hand = 0;
        self.to_processor.close();
        self.stop(FLUSH_LIMIT).await;
    }

    async fn stop(&mut self, limit: Duration) {
        notify::stopping();
        let until = tokio::time::Instant::now() + limit;
        if self.deadline.as_ref().is_none_or(|deadline| deadline.deadline() > until) {
            self.deadline = Some(Box::pin(sleep_until(until)));
        }
        self.happen(Event::Stop).await;
    }

    /// Tells the link when nothing is owed any more.
    async fn finish_stop(&mut self) {
        let delivered = self.in_hand == 0 && self.to_processor.is_idle() && self.outbox.is_empty();
        if self.deadline.is_some() && delivered {
            self.happen(Event::Drained).await;
        }
    }

    async fn dialed(&mut self, dialed: Result<Subsystem, ConnectError>) {
        match dialed {
            Ok(subsystem) => {
                self.session = Some(Session::new(subsystem));
                self.happen(Event::Connected).await;
            }
            Err(error) => self.happen(Event::Down(trouble(error))).await,
        }
    }

    /// Closes the connection; `fault` when what arrived cannot be read on.
    async fn hang_up(&mut self, fault: Option<String>) {
        let Some(session) = self.session.take() else { return };
        let reason = session.close().await;
        let trouble = match (fault, reason) {
            (Some(fault), _) => Trouble::Malformed(fault),
            (None, CloseReason::RetryAfter(pause)) => Trouble::Paced(pause),
            // The sign of life did not come in time.
            (None, CloseReason::PeerStalled | CloseReason::DeadPeer) => {
                Trouble::Network("the backend no longer answers".to_owned())
            }
            (None, reason) => Trouble::Network(reason.to_string()),
        };
        self.happen(Event::Down(trouble)).await;
    }

    /// Gives the link an event and carries out what it decides.
    async fn happen(&mut self, event: Event) {
        for effect in self.link.on(event, now(), (self.jitter)()) {
            match effect {
                Effect::Dial => {
                    self.timer = None;
                    self.dialing = Some(dial(Arc::clone(&self.dialer)));
                }
                Effect::ReportUp => self.to_processor.tell(self.reporter.up()),
                Effect::ReportDown { trouble, retry_in } => {
                    self.to_processor.tell(self.reporter.down(&trouble, retry_in));
                }
                Effect::Wait(time) => self.timer = Some(Box::pin(sleep(time))),
                Effect::Drain => {}
                Effect::HangUp => {
                    if let Some(session) = self.session.take() {
                        session.close().await;
                    }
                }
                Effect::Exit => self.exit = true,
            }
        }
    }
}

/// The time of the system's clock, in seconds since the Unix epoch.
fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The time by the runtime's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits for a future that may not be there.
async fn maybe<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn step(session: Option<&mut Session>, read: bool) -> Step {
    match session {
        Some(session) => session.step(read).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
