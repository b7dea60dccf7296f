//! The central program: who may log in where, decided in one place and queued durably.

pub mod access;
pub mod admin_token;
pub mod approvals;
pub mod audit;
pub mod backup;
pub mod cluster;
pub mod config;
pub mod dispatch;
pub mod fleet;
pub mod host_keys;
pub mod http;
pub mod logging;
pub mod meters;
pub mod metrics;
pub mod notify;
pub mod plan;
pub mod sealed;
pub mod serve;
pub mod signing;
pub mod ssh;
pub mod state_folder;
pub mod store;
pub mod unsealing;

#[cfg(test)]
mod testing;
