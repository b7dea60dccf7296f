//! The agent on each server: a root processor without network, and an unprivileged connector.

pub mod accounts;
pub mod keys_on_disk;
pub mod pipe;
pub mod processor;
pub mod status;
mod wait;
