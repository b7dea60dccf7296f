//! Why an account is left as it is. The texts are for people and say what to do.

use std::path::PathBuf;

use bastio_protocol::{GroupName, Username};
use thiserror::Error;

/// Why an account, or a part of it, is not touched.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Somebody else's.
    #[error(
        "{0} exists already and is not managed by bastio; to hand it over, make it a member of \
         the group bastio-managed (usermod --append --groups bastio-managed {0})"
    )]
    NotManaged(Username),
    /// The system's.
    #[error("{0} is an account of the system itself, which bastio never touches")]
    System(Username),
    /// The one that is never locked out.
    #[error("{0} is the break-glass account, which bastio never locks, ends or removes")]
    BreakGlass(Username),
    /// It has another numeric id, and is not renumbered.
    #[error("{name} has the uid {found}, not {wanted}; an account is never renumbered")]
    OtherUid {
        /// Its name.
        name: Username,
        /// What it has.
        found: u32,
        /// What it should have.
        wanted: u32,
    },
    /// The numeric id is another's.
    #[error("the uid {uid} belongs to {owner} here; choose another")]
    UidTaken {
        /// The id.
        uid: u32,
        /// Whose it is.
        owner: String,
    },
    /// The numeric id is for the system.
    #[error("the uid {uid} is for accounts of the system; people's begin at {min}")]
    SystemUid {
        /// The id.
        uid: u32,
        /// The first of people's.
        min: u32,
    },
    /// Something stands where the home would be.
    #[error(
        "{path} is there already and belongs to the uid {uid}; move it away and try again",
        path = .path.display()
    )]
    LeftOverHome {
        /// Where.
        path: PathBuf,
        /// Whose.
        uid: u32,
    },
    /// A group has the account's name.
    #[error("a group {0} exists already; remove it (groupdel {0}) or take another name")]
    GroupExists(Username),
    /// Groups that the host has not.
    #[error("there is no group {}; make it (groupadd) and try again", list(.0))]
    NoGroup(Vec<GroupName>),
    /// A group whose members are decided by other means.
    #[error("membership of {0} is not given by groups: bastio decides it by itself")]
    OwnGroup(GroupName),
    /// The host has no such shell.
    #[error("{0} is no program on this host; install it and try again")]
    NoShell(String),
    /// The rights cannot be given here.
    #[error("sudo: {0}")]
    Sudo(String),
    /// The key files cannot be read.
    #[error("keys: {0}")]
    Keys(String),
    /// Nobody would be left.
    #[error(
        "nothing was done: no account with sudo rights and a key would be left; leave one, or \
         allow it (allow_no_admin)"
    )]
    NoAdmin,
}

fn list(groups: &[GroupName]) -> String {
    groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(", ")
}
