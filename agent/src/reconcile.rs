//! Reconciling: what a server has, what it should have, and the way from the one to the other.
//!
//! `aim` says what is wanted at this moment, `observe` what is there, `plan` (pure) which steps lead
//! from the one to the other and what is refused, `apply` takes them. A dry run is the plan alone.
//! This room must not know messages' frames, the journal, or how an account is changed: only the
//! verbs of [`host`].

mod aim;
mod apply;
mod aside;
pub mod host;
mod note;
mod observe;
mod one;
mod plan;
mod refusal;
mod whole;

pub use aim::{Aim, Aims, GivenBack, Rules};
pub use apply::{Applied, Beat, apply};
pub use note::{change_note, moment};
pub use observe::{Around, Observed, Seen, observe};
pub use plan::{AccountPlan, Plan, Step};
pub use refusal::Refusal;
pub use whole::plan;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
