//! Reconciling: what a server has, what it should have, and the way from the one to the other.
//!
//! This room must not know messages' frames, the journal, or how an account is changed: only the
//! verbs of [`host`].

pub mod host;
