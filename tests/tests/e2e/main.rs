//! End-to-end tests: real programs on isolated servers. Each test builds its own world.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "these are tests; require_root! speaks to people"
)]

mod accounts_complete;
mod approvals;
mod audit;
mod faults;
mod groups;
mod lab;
mod limits;
mod main_job;
mod monitoring;
mod nodes;
mod orders;
mod people;
mod policy_file;
mod privileges;
mod processor;
mod revocation;
mod sealing;
mod sudo;
mod texts;
mod v1;
mod version_2;
