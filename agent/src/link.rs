//! The life of the link to the backend, as a state machine without I/O: events go in, effects
//! come out, time and randomness are passed in. It decides when to dial, how long to wait and
//! when to end; it must not know sockets, SSH, files or logs.

use std::time::{Duration, Instant};

/// Shortest wait between two attempts.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// Longest wait that we choose ourselves.
pub const LONGEST: Duration = Duration::from_secs(60);
/// Longest wait that a backend may ask for.
pub const LONGEST_PACE: Duration = Duration::from_secs(600);
/// A connection that lived this long has worked: the back-off begins anew after it.
pub const PROVEN: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Begin.
    Start,
    /// Logged in, and the subsystem runs.
    Connected,
    /// The attempt failed, or the connection ended.
    Down(Trouble),
    /// The wait that [`Effect::Wait`] asked for is over.
    WaitOver,
    /// Whatever there is, a new connection is wanted, now.
    Redial,
    /// The program was told to stop.
    Stop,
    /// Everything owed to the backend was delivered, or the time for it is over.
    Drained,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Not reachable, timed out, cut: worth trying again soon.
    Network(String),
    /// The backend sent what is no netstring, or broke the SSH protocol.
    Malformed(String),
    /// The host has another key than the pinned ones. Never accepted, tried again slowly.
    WrongHostKey {
        /// Fingerprints of the pinned keys.
        pinned: Vec<String>,
        /// Fingerprint of the key that the host showed.
        seen: String,
    },
    /// The backend does not let this agent in. Tried again slowly.
    Refused(String),
    /// The backend asked to come back after this time.
    Paced(Duration),
}

/// What is to be done now, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Connect, log in, open the subsystem; answer with `Connected` or `Down`. An attempt or a wait under way is
    /// given up.
    Dial,
    /// Say that the link is up.
    ReportUp,
    /// Say that the link is down.
    ReportDown {
        /// Why.
        trouble: Trouble,
        /// How long until the next attempt.
        retry_in: Duration,
    },
    /// Answer with `WaitOver` after this time.
    Wait(Duration),
    /// Take no further action; deliver what is owed, then answer with `Drained`.
    Drain,
    /// Close the connection.
    HangUp,
    /// The link has ended; nothing comes after this.
    Exit,
}

/// Where the link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Disconnected,
    Connecting,
    Connected { since: Instant },
    BackingOff,
    Stopping,
}

/// The state machine.
#[derive(Debug)]
pub struct Link {
    phase: Phase,
    backoff: Backoff,
}

/// Full-jitter back-off: each wait is drawn evenly between [`SHORTEST`] and a ceiling that doubles
/// with every failure up to [`LONGEST`].
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait. `jitter` is drawn evenly from 0 to 1.
    pub fn next(&mut self, jitter: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let ceiling = 2_u32.checked_pow(self.failures).map_or(LONGEST, |factor| SHORTEST * factor);
        between(SHORTEST, ceiling.min(LONGEST), jitter)
    }

    /// Forgets the failures so far.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

impl Default for Link {
    fn default() -> Self {
        Self { phase: Phase::Disconnected, backoff: Backoff::default() }
    }
}

impl Link {
    /// Takes an event and says what is to be done. `jitter` is drawn evenly from 0 to 1. Events
    /// that mean nothing in the present phase (a wait that ends after a stop) have no effect.
    pub fn on(&mut self, event: Event, now: Instant, jitter: f64) -> Vec<Effect> {
        match (self.phase, event) {
            (Phase::Disconnected, Event::Start) | (Phase::BackingOff, Event::WaitOver) => {
                self.phase = Phase::Connecting;
                vec![Effect::Dial]
            }
            (Phase::Connected { .. }, Event::Redial) => {
                self.phase = Phase::Connecting;
                vec![Effect::HangUp, Effect::Dial]
            }
            // An attempt under way was begun too early.
            (Phase::Connecting | Phase::BackingOff, Event::Redial) => {
                self.phase = Phase::Connecting;
                vec![Effect::Dial]
            }
            (Phase::Connecting, Event::Connected) => {
                self.phase = Phase::Connected { since: now };
                vec![Effect::ReportUp]
            }
            (Phase::Connecting, Event::Down(trouble)) => self.back_off(trouble, jitter),
            (Phase::Connected { since }, Event::Down(trouble)) => {
                if now.saturating_duration_since(since) >= PROVEN {
                    self.backoff.reset();
                }
                self.back_off(trouble, jitter)
            }
            (Phase::Connected { .. }, Event::Stop) => {
                self.phase = Phase::Stopping;
                vec![Effect::Drain]
            }
            (Phase::Disconnected | Phase::Connecting | Phase::BackingOff, Event::Stop) => {
                self.phase = Phase::Stopping;
                vec![Effect::Exit]
            }
            (Phase::Stopping, Event::Drained) => vec![Effect::HangUp, Effect::Exit],
            (Phase::Stopping, Event::Down(_)) => vec![Effect::Exit],
            _ => Vec::new(),
        }
    }

    fn back_off(&mut self, trouble: Trouble, jitter: f64) -> Vec<Effect> {
        self.phase = Phase::BackingOff;
        let retry_in = match &trouble {
            // Many may have been asked the same at once: they must not come back at once.
            Trouble::Paced(asked) => {
                let asked = (*asked).clamp(SHORTEST, LONGEST_PACE);
                between(asked, asked + asked / 2, jitter).min(LONGEST_PACE)
            }
            Trouble::WrongHostKey { .. } | Trouble::Refused(_) => {
                between(LONGEST / 2, LONGEST, jitter)
            }
            Trouble::Network(_) | Trouble::Malformed(_) => self.backoff.next(jitter),
        };
        vec![Effect::ReportDown { trouble, retry_in }, Effect::Wait(retry_in)]
    }
}

fn between(low: Duration, high: Duration, jitter: f64) -> Duration {
    low + high.saturating_sub(low).mul_f64(jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests;
