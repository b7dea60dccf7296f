//! Runs the processor process: takes the socket, serves one connector after another, keeps the
//! status file, and proves that it is alive by its own progress.
//!
//! Threads: this one carries out the actions; two more per connection move bytes, one waits for
//! signals. An idle processor wakes up for the heartbeat alone. This file must not know what an
//! action means.

use std::fmt;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bastio_protocol::{KeyPolicy, Removal, Username};
use crossbeam_channel::{never, select};
use thiserror::Error;

use super::end_point::EndPoint;
use super::listen::{Accepted, ListenError, Listener, Peers, take_given, take_stdin};
use super::once::{Once, Outcome};
use super::receipt::Notary;
use super::stop::{Signals, Stop};
use super::tend::Tender;
use super::verify::{Obedience, SuccessionError, Verifier, refuse_plain};
use super::work::Work;
use super::{Processor, System};
use crate::accounts::{Sweeper, SystemAccounts};
use crate::drift::Policy;
use crate::journal::{Journal, JournalError};
use crate::ledger::Ledger;
use crate::pipe::{IN_FLIGHT, LinkState, ToConnector, ToProcessor};
use crate::receipt_key;
use crate::sshd::KeyMode;
use crate::status::StatusFile;
use crate::sudoers::PlainSudo;

/// The most often that the heartbeat may wake an idle processor.
const SHORTEST_HEARTBEAT: Duration = Duration::from_secs(15);
/// How long nothing must come before the ledger is written down.
const QUIET: Duration = Duration::from_secs(2);
/// How long the answer to the action in hand may wait for room once a stop was asked for.
const LAST_ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Where the connector's socket comes from.
#[derive(Debug)]
pub enum SocketSource {
    /// Standard input.
    Inherited,
    /// One end of a socket pair of the caller's.
    Given(OwnedFd),
    /// Accepted at this path, one connector at a time.
    Listen(PathBuf),
}

/// What a processor needs to know.
pub struct ProcessorSettings {
    /// The account which, besides root, may connect.
    pub connector_user: Option<String>,
    /// Where the state is written for `status`.
    pub status_file: PathBuf,
    /// The folder of the journal.
    pub state: PathBuf,
    /// Whose orders are obeyed.
    pub obedience: Obedience,
    /// Which keys may be added.
    pub key_policy: KeyPolicy,
    /// Where keys lie.
    pub keys: KeyMode,
    /// What becomes of homes where an action does not say it.
    pub removal: Removal,
    /// How long homes in quarantine are kept, in days.
    pub quarantine_days: u32,
    /// What plain sudo rights are.
    pub plain_sudo: PlainSudo,
    /// The account that is never locked, ended or removed, and whose changes must be confirmed.
    pub break_glass: Option<Username>,
    /// How long that may take.
    pub confirm_within: Duration,
    /// What is done about drift.
    pub drift: Policy,
    /// Called when a connector can be served: readiness for a service manager.
    pub ready: Option<Hook>,
    /// Called again and again while the processor makes progress: a watchdog's food.
    pub heartbeat: Option<Heartbeat>,
}

/// Something to call.
pub type Hook = Box<dyn FnMut() + Send>;

/// A call that says "alive". It is made after each action, within one that is about many accounts
/// after each of them, and, when idle, every `every`; never
/// by another thread. One action may take minutes at worst (three tools at their limit of 30 s,
/// 5 s for processes), so a watchdog should allow at least three minutes.
pub struct Heartbeat {
    /// Time between calls when idle: half of the watchdog's. At least 15 s are kept.
    pub every: Duration,
    /// The call.
    pub beat: Hook,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat").field("every", &self.every).finish_non_exhaustive()
    }
}

/// Why the processor ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// SIGTERM or SIGINT.
    Stopped,
    /// The connector is gone (never when listening at a path).
    ConnectorGone,
}

/// Why the processor could not run on.
#[derive(Debug, Error)]
pub enum ProcessorError {
    /// There is no socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Another processor is at work.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Nobody knows whose orders are to be obeyed.
    #[error(transparent)]
    Succession(#[from] SuccessionError),
    /// Threads, pipes or signals could not be set up.
    #[error("cannot start the processor: {0}")]
    System(#[from] std::io::Error),
}

/// Runs until a signal, or until the connector is gone. Must be called before other threads are
/// started: it blocks SIGTERM and SIGINT for all of them. The mask is set back at the end.
///
/// # Errors
/// [`ProcessorError`].
pub fn main(source: SocketSource, settings: ProcessorSettings) -> Result<Ended, ProcessorError> {
    let (handle, stop) = Stop::new()?;
    let _signals = Signals::catch(handle)?;
    let _sweeper = Sweeper::start(settings.quarantine_days)?;
    let accounts = SystemAccounts::default().with_plain_sudo(settings.plain_sudo);
    let tender = Tender::new(settings.drift, settings.confirm_within, settings.state.clone())?;
    run(source, settings, accounts, stop, Some(tender))
}

/// The same for any accounts and any stop, and without anything that is done by itself if `tender` is none.
pub(super) fn run<A: System>(
    source: SocketSource,
    settings: ProcessorSettings,
    accounts: A,
    stop: Stop,
    tender: Option<Tender>,
) -> Result<Ended, ProcessorError> {
    let peers = Peers::with(settings.connector_user.as_deref())?;
    let mut ready = settings.ready;
    let pause = settings.heartbeat.as_ref().map(|it| it.every.max(SHORTEST_HEARTBEAT));
    let journal = Journal::open(&settings.state)?;
    let notary = notary(&settings.obedience, &settings.state);
    let verifier = Verifier::new(settings.obedience, &settings.state)?;
    let mut service = Service {
        pause,
        once: Once::new(
            Processor::new(accounts, settings.key_policy)
                .removing(settings.removal)
                .sparing(settings.break_glass)
                .keeping(Ledger::open(&settings.state)),
            journal,
        )
        .flushing_first(settings.drift == Policy::Heal)
        .certifying(notary),
        verifier,
        status: StatusFile::new(settings.status_file),
        heartbeat: settings.heartbeat,
        stop,
        tender,
        words: Vec::new(),
    };
    service.status.write();
    let is_rolled_back = service.begin_tending(settings.keys);
    service.finish_begun(is_rolled_back);
    service.once.save_ledger();
    let mut say_ready = || ready.iter_mut().for_each(|ready| ready());
    let socket = match source {
        SocketSource::Inherited => take_stdin()?,
        SocketSource::Given(socket) => take_given(socket),
        SocketSource::Listen(path) => {
            let listener = Listener::bind(&path, peers)?;
            say_ready();
            return service.serve_all(&listener, peers);
        }
    };
    peers.check(&socket)?;
    say_ready();
    service.serve(socket)
}

/// Who signs receipts: nobody where no backend's id is pinned, or there is no key to sign with. The work goes on without.
fn notary(obedience: &Obedience, state: &Path) -> Option<Notary> {
    let server = obedience.signer.as_ref()?.server.clone();
    let key = receipt_key::read_or_make(state);
    let key = key.inspect_err(|error| tracing::error!(%error, "no receipts will be given"));
    Some(Notary::new(server, key.ok()?))
}

struct Service<A> {
    /// Time between heartbeats when idle.
    pause: Option<Duration>,
    once: Once<A>,
    verifier: Verifier,
    status: StatusFile,
    heartbeat: Option<Heartbeat>,
    stop: Stop,
    /// What is done without being asked for.
    tender: Option<Tender>,
    /// To be said behind the next answer.
    words: Vec<ToConnector>,
}

impl<A: System> Service<A> {
    fn serve_all(&mut self, listener: &Listener, peers: Peers) -> Result<Ended, ProcessorError> {
        loop {
            let pause = self.pause.map(|pause| Instant::now() + pause);
            let deadline = pause.into_iter().chain(self.tending_deadline()).min();
            let bell = self.tender.as_ref().map(AsFd::as_fd);
            match listener.accept(peers, &self.stop, bell, deadline)? {
                Accepted::TimeOver => drop(self.look_around()),
                Accepted::Stopped => return Ok(Ended::Stopped),
                Accepted::Connector(socket) => {
                    if self.serve(socket)? == Ended::Stopped {
                        return Ok(Ended::Stopped);
                    }
                }
            }
            self.beat();
        }
    }

    /// Serves one connector to its end.
    fn serve(&mut self, socket: UnixStream) -> Result<Ended, ProcessorError> {
        let end_point = EndPoint::start(socket, self.stop.clone())?;
        let ended = if self.welcome(&end_point) { self.work(&end_point) } else { self.gone() };
        if ended == Ended::Stopped {
            // A connector that is gone, or full, learns it from the closed socket.
            let _ = end_point.egress.try_send(ToConnector::Stopping);
        }
        end_point.finish();
        self.once.save_ledger();
        let reason = "the connector is not running".to_owned();
        self.status.set_link(LinkState::Disconnected { reason, retry_in: 0 });
        Ok(ended)
    }

    /// Hands over what an earlier connector did not deliver; false when nobody takes it.
    fn welcome(&mut self, end_point: &EndPoint) -> bool {
        let left = self.once.new_connector();
        self.verifier.new_line();
        let words = self.obeys().into_iter().chain([ToConnector::Ready]);
        left.into_iter().chain(words).all(|word| self.say(word, end_point))
    }

    fn gone(&self) -> Ended {
        if self.stop.is_over() { Ended::Stopped } else { Ended::ConnectorGone }
    }

    fn work(&mut self, end_point: &EndPoint) -> Ended {
        loop {
            // Looked at first: of several ready channels, select takes any.
            if self.stop.is_over() {
                return Ended::Stopped;
            }
            let idle = self.pause.map_or_else(never, crossbeam_channel::after);
            let due = self.tending_deadline().map_or_else(never, crossbeam_channel::at);
            let quiet = if self.once.is_ledger_behind() {
                crossbeam_channel::after(QUIET)
            } else {
                never()
            };
            let silent = never();
            let bell = self.tender.as_ref().map_or(&silent, Tender::bell);
            let message = select! {
                recv(end_point.ingress) -> message => match message {
                    Ok(message) => Some(message),
                    Err(_) => return self.gone(),
                },
                recv(self.stop.channel()) -> _ => return Ended::Stopped,
                recv(idle) -> _ => None,
                recv(quiet) -> _ => {
                    self.once.save_ledger();
                    continue;
                }
                recv(bell) -> _ => None,
                recv(due) -> _ => None,
            };
            match message {
                Some(ToProcessor::Link(link)) => {
                    let is_up = matches!(link, LinkState::Connected { .. });
                    if is_up {
                        self.once.new_line();
                        self.verifier.new_line();
                    }
                    self.status.set_link(link);
                    let words = if is_up { self.connected() } else { Vec::new() };
                    if !self.say_obeys(end_point) || !self.say_all(words, end_point) {
                        return self.gone();
                    }
                }
                Some(ToProcessor::Delivered { count }) => self.once.delivered(count),
                Some(ToProcessor::Order(order)) if !self.obey(&order, end_point) => {
                    return self.gone();
                }
                Some(message) => {
                    if let Some(work) = Work::from_message(message)
                        && !self.act(&work, end_point)
                    {
                        return self.gone();
                    }
                }
                None => {
                    let words = self.look_around();
                    if !self.say_all(words, end_point) {
                        return self.gone();
                    }
                }
            }
            self.beat();
        }
    }

    /// Does what nobody has signed, if that is enough here, and hands over its answer; false when
    /// nobody takes it any more, or there is none yet.
    fn act(&mut self, work: &Work, end_point: &EndPoint) -> bool {
        if self.is_crowded() {
            return false;
        }
        let outcome = match self.verifier.plain() {
            Ok(()) => self.answer(work),
            Err(refusal) => Some(self.once.reply(refuse_plain(work, &refusal))),
        };
        outcome.is_some_and(|outcome| self.hand_over(outcome, end_point))
    }

    /// Does the work; the heart beats on meanwhile.
    fn carry_out(&mut self, work: &Work) -> Option<Outcome> {
        let Self { once, heartbeat, stop, .. } = self;
        once.answer(work, &mut || pulse(heartbeat.as_mut(), stop))
    }

    /// Whether the connector hands over more than it may.
    fn is_crowded(&self) -> bool {
        let crowded = self.once.undelivered() >= IN_FLIGHT;
        if crowded {
            tracing::error!("ending the connector: it hands over more than it may have in flight");
        }
        crowded
    }

    fn hand_over(&mut self, outcome: Outcome, end_point: &EndPoint) -> bool {
        if let Some(status) = outcome.carried_out {
            self.status.count(status);
        }
        let words = std::mem::take(&mut self.words);
        let is_heard = self.say(outcome.answer, end_point) && self.say_all(words, end_point);
        // Nobody has to wait for that.
        if outcome.carried_out.is_some() {
            self.schedule();
        }
        is_heard
    }

    fn say(&self, word: ToConnector, end_point: &EndPoint) -> bool {
        select! {
            send(end_point.egress, word.clone()) -> sent => sent.is_ok(),
            recv(self.stop.channel()) -> _ => {
                end_point.egress.send_timeout(word, LAST_ANSWER_LIMIT).is_ok()
            }
        }
    }

    fn beat(&mut self) {
        if let Some(heartbeat) = &mut self.heartbeat {
            (heartbeat.beat)();
        }
    }
}

/// Within what takes long: the heart beats on, and a stop is heeded.
fn pulse(heartbeat: Option<&mut Heartbeat>, stop: &Stop) -> ControlFlow<()> {
    if let Some(heartbeat) = heartbeat {
        (heartbeat.beat)();
    }
    if stop.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

mod obey;
mod tending;
#[cfg(test)]
mod tests;
