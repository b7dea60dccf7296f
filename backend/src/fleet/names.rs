//! Login names that belong to the system and are nobody's: refused here, once, and not by each
//! server. An operator who means to take such an account over allows its name in the configuration.

use std::collections::BTreeSet;

use bastio_protocol::Username;

use super::{Fleet, FleetError};

/// Accounts that Debian, Ubuntu, Fedora, RHEL and Alpine come with, or that their base packages
/// make.
const SYSTEM_NAMES: [&str; 48] = [
    "_apt",
    "_chrony",
    "adm",
    "avahi",
    "backup",
    "bastio",
    "bin",
    "chrony",
    "cron",
    "daemon",
    "dbus",
    "ftp",
    "games",
    "gnats",
    "guest",
    "halt",
    "irc",
    "list",
    "lp",
    "mail",
    "man",
    "messagebus",
    "news",
    "nobody",
    "ntp",
    "operator",
    "polkitd",
    "postfix",
    "proxy",
    "root",
    "rpc",
    "rpcuser",
    "shutdown",
    "sshd",
    "sssd",
    "sync",
    "sys",
    "syslog",
    "systemd-coredump",
    "systemd-network",
    "systemd-oom",
    "systemd-resolve",
    "systemd-timesync",
    "tcpdump",
    "tss",
    "uucp",
    "uuidd",
    "www-data",
];

impl Fleet {
    /// Lets these names of the system be logins all the same.
    #[must_use]
    pub fn with_system_names(mut self, allowed: BTreeSet<Username>) -> Self {
        self.system_names = allowed.into();
        self
    }

    /// Refuses names of accounts that belong to the system, unless they are allowed.
    pub(super) fn check_login(&self, login: &Username) -> Result<(), FleetError> {
        let of_system = SYSTEM_NAMES.binary_search(&login.as_str()).is_ok();
        if of_system && !self.system_names.contains(login) {
            return Err(FleetError::SystemName(login.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestBackend, key, login, new_user};

    #[test]
    fn the_list_is_sorted_and_of_names_that_a_login_could_have() {
        assert!(SYSTEM_NAMES.is_sorted());
        for name in SYSTEM_NAMES {
            assert_eq!(login(name).as_str(), name);
        }
    }

    #[tokio::test]
    async fn names_of_the_system_are_nobodys_unless_they_are_allowed() {
        let backend = TestBackend::new().await;
        for name in ["root", "sshd", "www-data", "_apt"] {
            let refused =
                backend.fleet.add_user(&backend.admin, &new_user(name, &[key(9)], "", false)).await;
            let refused = refused.expect_err(name);
            assert!(matches!(refused, FleetError::SystemName(_)), "{refused:?}");
            assert!(refused.hint().is_some_and(|hint| hint.contains("accounts.system_names")));
        }
        let allowed = BTreeSet::from([login("www-data")]);
        let fleet = backend.fleet.clone().with_system_names(allowed);
        let www = new_user("www-data", &[key(9)], "", false);
        fleet.add_user(&backend.admin, &www).await.expect("allowed");
        let root = fleet.add_user(&backend.admin, &new_user("root", &[key(9)], "", false)).await;
        assert!(root.is_err(), "only what is named");
    }
}
