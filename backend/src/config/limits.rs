//! `[limits]`: how much strangers, and how much one agent may take. Must not know who keeps them.

use std::time::Duration;

use serde::Deserialize;

use super::{Limit, RivalPolicy, Seconds};

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// `limits.max_startups`: handshakes at a time. Default 100.
    pub max_startups: Limit,
    /// `limits.max_waiting`: connections that wait for theirs; further ones are told when to come
    /// back. Default 16384.
    pub max_waiting: Limit,
    /// `limits.max_startups_per_source`: connections of one address that are not logged in.
    /// Default 20.
    pub max_startups_per_source: Limit,
    /// `limits.max_failures_per_source`: connections without a login that one address may make in
    /// a minute, before it must stay away. Default 300.
    pub max_failures_per_source: Limit,
    /// `limits.login_grace`: seconds for a login. Default 20.
    pub login_grace: Seconds,
    /// `limits.answer_within`: seconds after which a connected agent that answers nothing loses
    /// its session, so that its actions are sent again. Default 120.
    pub answer_within: Seconds,
    /// `limits.take_within`: seconds in which a connected agent must take something off its
    /// connection, when there is something to take; then it is cut. Default 30.
    pub take_within: Seconds,
    /// `limits.keepalive`: seconds after which a silent connection is asked for a sign of life; after
    /// twice as long it is dropped. Default 30.
    pub keepalive: Seconds,
    /// `limits.max_sessions_per_key`: sessions of one agent's key at a time. Default 8.
    pub max_sessions_per_key: Limit,
    /// `limits.max_logins_per_key`: logins with one agent's key in a minute, before each must wait
    /// for 5 s. Default 10.
    pub max_logins_per_key: Limit,
    /// `limits.rivals`: what becomes of two sessions of one agent from two places. Default `newest`.
    pub rivals: RivalPolicy,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_startups: Limit::DEFAULT_STARTUPS,
            max_waiting: Limit::DEFAULT_WAITING,
            max_startups_per_source: Limit::DEFAULT_STARTUPS_PER_SOURCE,
            max_failures_per_source: Limit::DEFAULT_FAILURES_PER_SOURCE,
            login_grace: Seconds::DEFAULT_LOGIN_GRACE,
            answer_within: Seconds::DEFAULT_ANSWER_WITHIN,
            take_within: Seconds::DEFAULT_TAKE_WITHIN,
            keepalive: Seconds::DEFAULT_KEEPALIVE,
            max_sessions_per_key: Limit::DEFAULT_SESSIONS_PER_KEY,
            max_logins_per_key: Limit::DEFAULT_LOGINS_PER_KEY,
            rivals: RivalPolicy::default(),
        }
    }
}

impl Limits {
    /// [`Limits::answer_within`] as a duration.
    #[must_use]
    pub fn answer_within(&self) -> Duration {
        self.answer_within.get()
    }
}
