//! Proofs by many tries: a racing attacker, a fault at every system call, random sequences of actions.
//!
//! A run of the usual tests does a small part of them. `BASTIO_PROOF=full` (`make proof`) does all, with the counts that
//! docs/proof.md tells; each prints a line that begins with `PROOF`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "these are tests; require_root! speaks to people"
)]

mod canaries;
mod faults;
mod hostile_home;
mod random;
mod rig;
mod surface;
mod tally;
mod tracer;
