//! Commit-confirm: a change that could cut the way back stands only when the agent has reached its backend by a new
//! connection after it; else what was before comes back.
//!
//! A state machine without I/O: events go in, effects come out. What is kept for the way back is in the ledger before
//! anything is changed, so it survives a crash. This file must not know how a change is made or a file written.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bastio_protocol::{Username, WantedAccount};
use serde::{Deserialize, Serialize};

pub mod file;

use file::SavedFile;

/// Everything that is needed for the way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// What was changed, for people.
    pub what: String,
    /// Until when it must be confirmed, in seconds since the Unix epoch.
    pub until: i64,
    /// The files as they were.
    pub files: Vec<SavedFile>,
    /// The account as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<SavedAccount>,
    /// The addition to sshd's configuration as it was, where keys are to lie elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sshd: Option<SavedFile>,
}

/// What an account had besides files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedAccount {
    /// Its name.
    pub name: Username,
    /// Whether it was a member of the sudo group.
    pub in_sudo_group: bool,
    /// What else decides over a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<SavedLogin>,
    /// What it was meant to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<WantedAccount>,
}

/// Shell and groups of an account: a shell that ends at once lets nobody in, and sshd may ask for a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedLogin {
    /// Its login shell.
    pub shell: String,
    /// Its primary group.
    pub group: String,
    /// Its supplementary groups, without bastio's own and the sudo group.
    pub groups: BTreeSet<String>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A change is about to be made.
    Before(Pending),
    /// It was made; or nothing was changed after all.
    Made {
        /// Whether anything is different now.
        is_changed: bool,
    },
    /// A new connection to the backend is up.
    Connected,
    /// Time has gone by.
    Tick,
    /// An earlier run of this program has left this, at this time (seconds since the Unix epoch).
    Found(Pending, i64),
}

/// What is to be done now, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write this down; if that fails, the change must not be made.
    Keep(Pending),
    /// Ask for a new connection.
    Reconnect,
    /// The change stands: forget what was before.
    Confirm(Pending),
    /// Nothing was changed: forget what was before.
    Forget,
    /// Bring back what was before, and then forget it.
    RollBack(Pending),
}

/// The state machine.
#[derive(Debug)]
pub struct Guard {
    /// How long a new connection may take.
    limit: Duration,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Idle,
    /// A change is being made; `since` when an earlier one waits, too.
    Making {
        pending: Pending,
        earlier: Option<Instant>,
    },
    Waiting {
        pending: Pending,
        until: Instant,
    },
}

impl Guard {
    /// Nothing is guarded yet.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { limit, state: State::Idle }
    }

    /// How long a new connection may take.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until, .. } => Some(*until),
            State::Idle | State::Making { .. } => None,
        }
    }

    /// Takes an event and says what is to be done. An event that means nothing now has no effect.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        let state = std::mem::replace(&mut self.state, State::Idle);
        let (state, effects) = self.next(state, event, now);
        self.state = state;
        effects
    }

    fn next(&self, state: State, event: Event, now: Instant) -> (State, Vec<Effect>) {
        match (state, event) {
            (State::Idle, Event::Before(pending)) => {
                let effects = vec![Effect::Keep(pending.clone())];
                (State::Making { pending, earlier: None }, effects)
            }
            (State::Waiting { pending, until }, Event::Before(newer)) => {
                let pending = pending.and(newer);
                let effects = vec![Effect::Keep(pending.clone())];
                (State::Making { pending, earlier: Some(until) }, effects)
            }
            (State::Making { pending, .. }, Event::Made { is_changed: true }) => {
                (State::Waiting { pending, until: now + self.limit }, vec![Effect::Reconnect])
            }
            (State::Making { pending, earlier: Some(until) }, Event::Made { .. }) => {
                (State::Waiting { pending, until }, Vec::new())
            }
            (State::Making { .. }, Event::Made { .. }) => (State::Idle, vec![Effect::Forget]),
            (State::Waiting { pending, .. }, Event::Connected) => {
                (State::Idle, vec![Effect::Confirm(pending)])
            }
            (State::Waiting { pending, until }, Event::Tick) if now >= until => {
                (State::Idle, vec![Effect::RollBack(pending)])
            }
            (State::Idle, Event::Found(pending, wall)) => {
                let left = u64::try_from(pending.until.saturating_sub(wall)).unwrap_or(0);
                // A clock that went back must not make it longer.
                let left = Duration::from_secs(left).min(self.limit);
                if left.is_zero() {
                    (State::Idle, vec![Effect::RollBack(pending)])
                } else {
                    (State::Waiting { pending, until: now + left }, Vec::new())
                }
            }
            (state, _) => (state, Vec::new()),
        }
    }
}

impl Pending {
    /// Both changes: what was first there counts.
    fn and(mut self, newer: Self) -> Self {
        let is_new = |file: &SavedFile| !self.files.iter().any(|saved| saved.path == file.path);
        let new: Vec<SavedFile> = newer.files.into_iter().filter(is_new).collect();
        self.files.extend(new);
        if self.what != newer.what {
            self.what = format!("{}; {}", self.what, newer.what);
        }
        Self {
            until: newer.until,
            account: self.account.or(newer.account),
            sshd: self.sshd.or(newer.sshd),
            ..self
        }
    }
}

#[cfg(test)]
mod tests;
