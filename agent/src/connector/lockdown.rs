//! Gives up every right that the connector does not need, before any thread or runtime exists.
//! What comes after this file runs without root, without capabilities and cannot get them back.
//! This file must not know what the process does afterwards.

use capctl::{CapState, ambient, bounding, prctl};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User, geteuid, setgroups, setresgid, setresuid};
use thiserror::Error;

/// Processes and threads that the connector's account may have in all, on the whole machine: the
/// look-up of host names takes a thread.
const MAX_PROCESSES: u64 = 256;

/// The account that the connector becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    uid: Uid,
    gid: Gid,
}

/// Why the connector must not run.
#[derive(Debug, Error)]
pub enum LockdownError {
    /// The account is not there.
    #[error(
        "there is no user {0}, which the half with the network runs as\n\
         hint: useradd --system --no-create-home --shell /usr/sbin/nologin {0}"
    )]
    NoUser(String),
    /// The account is one that others use, too, or one with rights.
    #[error(
        "the user {name} must not run the half with the network: {reason}\n\
         hint: useradd --system --no-create-home --shell /usr/sbin/nologin bastio, and set user = \"bastio\""
    )]
    WrongUser {
        /// Its name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// The account database did not answer.
    #[error("cannot look up the user {name}: {source}")]
    LookUp {
        /// The name.
        name: String,
        /// What the system said.
        source: nix::Error,
    },
    /// The system refused to take rights away.
    #[error("cannot give up {what}: {reason}")]
    Refused {
        /// Which right.
        what: &'static str,
        /// What the system said.
        reason: String,
    },
}

impl Identity {
    /// Looks up the account.
    ///
    /// # Errors
    /// [`LockdownError`] when it is missing, root, or `nobody`, which other services use, too.
    pub fn find(name: &str) -> Result<Self, LockdownError> {
        let found = User::from_name(name)
            .map_err(|source| LockdownError::LookUp { name: name.to_owned(), source })?;
        let user = found.ok_or_else(|| LockdownError::NoUser(name.to_owned()))?;
        let wrong = |reason| Err(LockdownError::WrongUser { name: name.to_owned(), reason });
        match (user.uid.as_raw(), user.gid.as_raw()) {
            (0, _) | (_, 0) => wrong("it is root"),
            (65_534, _) => wrong("other services share it"),
            _ if name == "nobody" => wrong("other services share it"),
            _ => Ok(Self { uid: user.uid, gid: user.gid }),
        }
    }
}

/// Whether this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Gives up all rights. A process that is root becomes `identity`; any other (under systemd) stays
/// who it is.
///
/// # Errors
/// [`LockdownError::Refused`]: the process must end.
pub fn lock_down(identity: Option<&Identity>) -> Result<(), LockdownError> {
    limit(Resource::RLIMIT_CORE, 0, "core dumps")?;
    limit(Resource::RLIMIT_NPROC, MAX_PROCESSES, "processes")?;
    check("new privileges", prctl::set_no_new_privs())?;
    if let Some(identity) = identity {
        check("the bounding set", bounding::clear())?;
        check("groups", setgroups(&[]))?;
        check("the group", setresgid(identity.gid, identity.gid, identity.gid))?;
        check("the user", setresuid(identity.uid, identity.uid, identity.uid))?;
    }
    check("ambient capabilities", ambient::clear())?;
    // A service manager's filter refuses the call where there is nothing left to give up.
    if !holds_nothing() {
        check("capabilities", CapState::empty().set_current())?;
    }
    // After the change of user, which would reset both.
    check("debugging", prctl::set_dumpable(false))?;
    check("outliving", prctl::set_pdeathsig(Some(Signal::SIGTERM as i32)))?;
    verify()
}

/// Trusts nothing: reads back what the kernel holds.
fn verify() -> Result<(), LockdownError> {
    if is_root() || !holds_nothing() {
        let reason = "the kernel still shows rights".to_owned();
        return Err(LockdownError::Refused { what: "root", reason });
    }
    Ok(())
}

/// Whether the kernel says that this process has no capability.
fn holds_nothing() -> bool {
    CapState::get_current().is_ok_and(|caps| {
        caps.effective.is_empty() && caps.permitted.is_empty() && caps.inheritable.is_empty()
    })
}

fn limit(resource: Resource, most: u64, what: &'static str) -> Result<(), LockdownError> {
    let (_, hard) = nix::sys::resource::getrlimit(resource)
        .map_err(|error| LockdownError::Refused { what, reason: error.to_string() })?;
    let most = most.min(hard);
    check(what, setrlimit(resource, most, most))
}

fn check<T, E: ToString>(what: &'static str, result: Result<T, E>) -> Result<(), LockdownError> {
    result.map(|_| ()).map_err(|error| LockdownError::Refused { what, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::{Identity, LockdownError};

    #[test]
    fn only_an_account_of_its_own_will_do() {
        for name in ["root", "nobody"] {
            assert!(matches!(Identity::find(name), Err(LockdownError::WrongUser { .. })), "{name}");
        }
        let error = Identity::find("no-such-user-here").unwrap_err();
        assert!(matches!(error, LockdownError::NoUser(_)));
        let hint = "useradd --system --no-create-home --shell /usr/sbin/nologin no-such-user-here";
        assert!(error.to_string().contains(hint), "{error}");
    }
}
