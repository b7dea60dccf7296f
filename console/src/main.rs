//! The operator's command: a client of the backend's HTTP API.
//!
//! Must not know SSH, agents or the store.

fn main() {}
