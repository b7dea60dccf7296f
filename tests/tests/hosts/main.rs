//! The packages on whole hosts: booted by systemd, installed by dpkg or rpm. Run by `make hosts`, which builds the
//! packages first; `make test` leaves these tests out and says so.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod accounts;
mod agent;
mod alone;
mod backend;
mod credentials;
mod life;
mod managed;
mod orders;
mod packages;
mod rig;
mod rpm;
