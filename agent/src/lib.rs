//! The agent on each server: a root processor without network, and an unprivileged connector.

pub mod pipe;
