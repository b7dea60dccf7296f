//! The local databases as a report shows them: accounts and groups, without passwords.

use std::path::Path;

use bastio_protocol::{FoundGroup, FoundUser, Username, is_root_equivalent};
use nix::unistd::{Gid, Uid};

use super::super::Account;
use super::{Databases, Passwd};
use crate::keys_on_disk::Owner;

/// Programs that are set as the shell of accounts that nobody may log in to.
const NO_SHELLS: [&str; 3] = ["nologin", "false", "sync"];

impl Databases {
    /// Every account, and what is needed to look for its keys: nothing for a name that bastio does
    /// not take. `now` in seconds since the Unix epoch.
    #[must_use]
    pub fn found_users(&self, now: i64) -> Vec<(FoundUser, Option<Account>)> {
        let user = |(name, line): (&String, &Passwd)| {
            let account = Username::parse(name).ok().map(|name| Account {
                is_system: self.is_system(line.uid),
                is_managed: self.is_managed(name.as_str()),
                owner: Owner { uid: Uid::from_raw(line.uid), gid: Gid::from_raw(line.gid) },
                home: line.home.clone(),
                name,
            });
            (self.found_user(name, line, now), account)
        };
        self.passwd.iter().map(user).collect()
    }

    fn found_user(&self, name: &str, line: &Passwd, now: i64) -> FoundUser {
        let is_over = self.expires(name).is_some_and(|day| day <= now);
        FoundUser {
            name: name.to_owned(),
            uid: line.uid,
            gid: line.gid,
            home: line.home.display().to_string(),
            shell: line.shell.clone(),
            comment: line.comment.clone(),
            managed: self.is_managed(name),
            locked: self.is_locked(name) || self.is_password_locked(name) || is_over,
            keys: Vec::new(),
            keys_unreadable: None,
        }
    }

    /// Groups with members, and those that are as good as root.
    #[must_use]
    pub fn found_groups(&self) -> Vec<FoundGroup> {
        let groups = self.groups.iter().map(|(name, group)| FoundGroup {
            name: name.clone(),
            gid: group.gid,
            members: group.members.iter().cloned().collect(),
            root_equivalent: is_root_equivalent(name),
        });
        groups.filter(|group| group.root_equivalent || !group.members.is_empty()).collect()
    }
}

/// Whether that shell lets people in; an empty one is `/bin/sh` (passwd(5)).
#[must_use]
pub fn is_login_shell(shell: &str) -> bool {
    let program = Path::new(shell).file_name().unwrap_or_default();
    !NO_SHELLS.iter().any(|no_shell| program == *no_shell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_and_groups_are_told_without_passwords() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nann:x:1001:1001:Ann:/home/ann:/bin/sh\n\
                      Bob:x:1002:1002::/home/bob:/bin/sh\n";
        let group = "root:x:0:\nann:x:1001:\nbastio-managed:x:900:ann\ndocker:x:901:\n";
        let shadow = "root:!:1:0:99999:7:::\nann:$y$secret:1:0:99999:7::1:\n";
        let all = Databases::parse(passwd, group, shadow);
        let users = all.found_users(0);
        let of = |name: &str| users.iter().find(|(user, _)| user.name == name).unwrap();
        assert!(of("root").0.locked && of("ann").0.locked && of("ann").0.managed);
        assert!(of("Bob").1.is_none() && !of("Bob").0.locked);
        assert_eq!(of("ann").1.as_ref().unwrap().owner.uid.as_raw(), 1001);
        assert!(!serde_json::to_string(&of("ann").0).unwrap().contains("secret"));
        let names: Vec<_> =
            all.found_groups().into_iter().map(|it| (it.name, it.root_equivalent)).collect();
        let expected = [("bastio-managed", false), ("docker", true), ("root", true)];
        assert_eq!(names, expected.map(|(name, root)| (name.to_owned(), root)));
    }

    #[test]
    fn shells_that_let_nobody_in() {
        for (shell, expected) in [
            ("/bin/bash", true),
            ("", true),
            ("/usr/sbin/nologin", false),
            ("/bin/false", false),
            ("/bin/sync", false),
        ] {
            assert_eq!(is_login_shell(shell), expected, "{shell}");
        }
    }
}
