//! The ports where agents log in. One task owns each agent's session.
//!
//! This room turns what dispatch has queued into netstrings and netstrings into feedback. It must
//! not know users, grants, HTTP or how anything is stored, and no russh type.

mod end;
mod host;
mod login;
mod outlet;
mod port;
mod refusals;
mod rivals;
mod session;
mod told;
mod window;

pub use port::{Port, PortError, PortKind};

#[cfg(test)]
mod tests;
