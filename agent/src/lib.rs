//! The agent on each server: a root processor without network, and an unprivileged connector.

pub mod accounts;
pub mod ask;
pub mod chance;
pub mod cli;
pub mod commands;
pub mod config;
pub mod connector;
pub mod drift;
pub mod enroll;
pub mod facts;
pub mod files;
pub mod guard;
pub mod journal;
pub mod keys_on_disk;
pub mod ledger;
pub mod link;
pub mod logging;
pub mod notify;
pub mod pipe;
pub mod processor;
pub mod reconcile;
pub mod selinux;
pub mod sshd;
pub mod start;
pub mod status;
pub mod sudoers;
mod wait;
