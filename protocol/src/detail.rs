//! What a feedback of version 2 says for programs: changes, warnings, and the state of a server.
//!
//! This file must not know how any of it was found.

use serde::{Deserialize, Serialize};

use crate::Username;

/// Longest JSON of a detail, in bytes: with the longest text for people beside it, a feedback fits a
/// frame ([`crate::V2_LIMIT`]).
pub const DETAIL_LIMIT: usize = 900 * 1024;
/// So many keys of each account are kept as long as others have more.
const FEW_KEYS: usize = 8;
/// Said where something was left out.
const LEFT_OUT: &str = "not everything fits one answer; ask for the server's state";

/// Details of a feedback or of a drift.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detail {
    /// What was changed, in order; with `dry_run` what would be, in the same words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangeNote>,
    /// What people should know although it went well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What was not done, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<FailureNote>,
    /// Everything found on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<HostReport>>,
}

impl Detail {
    /// Leaves out what does not fit [`DETAIL_LIMIT`], of the longest lists first, and says so: with
    /// `truncated` in a report, else with a warning.
    pub fn fit(&mut self) {
        let mut cut = false;
        while length(self) > DETAIL_LIMIT {
            self.halve_longest();
            cut = true;
        }
        if !cut {
            return;
        }
        match &mut self.report {
            Some(report) => report.truncated = true,
            None => self.warnings.push(LEFT_OUT.to_owned()),
        }
    }

    fn halve_longest(&mut self) {
        let own = [length(&self.changes), length(&self.warnings), length(&self.failures)];
        let longest = own.into_iter().max().unwrap_or_default();
        match &mut self.report {
            Some(report) if length(report) > longest => report.halve_longest(),
            _ if length(&self.changes) == longest => halve(&mut self.changes),
            _ if length(&self.failures) == longest => halve(&mut self.failures),
            _ => halve(&mut self.warnings),
        }
    }
}

impl HostReport {
    fn halve_longest(&mut self) {
        let (users, groups) = (length(&self.users), length(&self.groups));
        let (rules, sshd) = (length(&self.sudo_rules), length(&self.sshd));
        let longest = users.max(groups).max(rules).max(sshd);
        if users == longest {
            self.halve_users();
        } else if groups == longest {
            halve(&mut self.groups);
        } else if rules == longest {
            halve(&mut self.sudo_rules);
        } else {
            self.sshd.clear();
        }
    }

    /// Those with many keys lose keys first.
    fn halve_users(&mut self) {
        let most = self.users.iter().map(|user| user.keys.len()).max().unwrap_or_default();
        if most > FEW_KEYS {
            self.users.iter_mut().for_each(|user| user.keys.truncate(most / 2));
        } else {
            halve(&mut self.users);
        }
    }
}

fn halve<T>(list: &mut Vec<T>) {
    list.truncate(list.len() / 2);
}

/// Bytes as JSON.
fn length(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |json| json.len())
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeNote {
    /// The account; absent for what concerns the whole server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Username>,
    /// Which kind of change.
    pub kind: ChangeKind,
    /// In words, without secrets; keys appear as fingerprints.
    pub text: String,
}

/// Kinds of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// An account was made.
    CreateUser,
    /// An account of others is managed from now on.
    TakeOver,
    /// An account that was taken over is managed no more.
    GiveBack,
    /// Fields of the account database were changed.
    ModifyUser,
    /// An account lets nobody in any more.
    LockUser,
    /// A locked account lets people in again.
    UnlockUser,
    /// A key logs in.
    AddKey,
    /// A key logs in with other options or another end.
    ChangeKey,
    /// A key logs in no more.
    RemoveKey,
    /// Sudo rights were given or changed.
    GrantSudo,
    /// Sudo rights were taken.
    RevokeSudo,
    /// Sessions were ended.
    EndSessions,
    /// An account was removed.
    RemoveUser,
    /// The server's own configuration was changed.
    Configure,
}

/// Something that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureNote {
    /// The account; absent for what concerns the whole server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Username>,
    /// Why, and what to do.
    pub text: String,
}

/// Everything found on a server that has to do with who may log in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostReport {
    /// Accounts with a login shell or keys, and all that bastio manages.
    pub users: Vec<FoundUser>,
    /// Groups with members among them, and groups that are as good as root.
    pub groups: Vec<FoundGroup>,
    /// Lines of sudoers(5) that give rights, as `file: line`, comments left out.
    pub sudo_rules: Vec<String>,
    /// What `sshd -T` says of how people log in: name to value.
    pub sshd: std::collections::BTreeMap<String, String>,
    /// Whether something was left out because it would not have fitted a frame.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// An account that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundUser {
    /// Login name, whatever it looks like.
    pub name: String,
    /// Numeric id.
    pub uid: u32,
    /// Primary group's numeric id.
    pub gid: u32,
    /// Home.
    pub home: String,
    /// Shell.
    pub shell: String,
    /// GECOS field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether bastio manages it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub managed: bool,
    /// Whether it is locked or expired, as far as can be told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
    /// The keys that log in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<FoundKey>,
    /// Why the keys could not be read, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_unreadable: Option<String>,
}

/// A key that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundKey {
    /// `SHA256:...`
    pub fingerprint: String,
    /// `ssh-ed25519`...
    pub algorithm: String,
    /// Whether bastio wrote the line.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub managed: bool,
    /// Options in front of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub options: String,
    /// What stands behind it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The file.
    pub file: String,
}

/// A group that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundGroup {
    /// Its name.
    pub name: String,
    /// Numeric id.
    pub gid: u32,
    /// Its members, without those whose primary group it is.
    pub members: Vec<String>,
    /// Whether its members can make themselves root (docker, lxd, disk...).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub root_equivalent: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize, keys: usize) -> FoundUser {
        let key = FoundKey {
            fingerprint: format!("SHA256:{}", "x".repeat(43)),
            algorithm: "ssh-ed25519".to_owned(),
            managed: true,
            options: String::new(),
            comment: "somebody@example.org".to_owned(),
            file: "/home/somebody/.ssh/authorized_keys".to_owned(),
        };
        FoundUser {
            name: format!("somebody{number}"),
            uid: 1000,
            gid: 1000,
            home: "/home/somebody".to_owned(),
            shell: "/bin/bash".to_owned(),
            comment: String::new(),
            managed: true,
            locked: false,
            keys: vec![key; keys],
            keys_unreadable: None,
        }
    }

    fn report(users: Vec<FoundUser>) -> Detail {
        let report = HostReport { users, ..HostReport::default() };
        Detail { report: Some(Box::new(report)), ..Detail::default() }
    }

    fn change(text: &str) -> ChangeNote {
        ChangeNote { username: None, kind: ChangeKind::AddKey, text: text.to_owned() }
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let mut detail = report((0..1500).map(|number| user(number, 2)).collect());
        detail.changes = vec![change("x"); 100];
        let before = detail.clone();
        detail.fit();
        assert_eq!(detail, before);
    }

    #[test]
    fn many_keys_of_one_go_before_accounts_of_many() {
        let mut detail = report((0..500).map(|number| user(number, 2)).collect());
        detail.report.as_mut().unwrap().users.push(user(0, 7000));
        detail.fit();
        let report = detail.report.as_ref().unwrap();
        assert!(report.truncated && length(&detail) <= DETAIL_LIMIT);
        assert_eq!(report.users.len(), 501);
        assert!(report.users.iter().all(|user| user.keys.len() >= 2));
    }

    #[test]
    fn whatever_is_too_long_fits_in_the_end_and_that_is_said() {
        let long = "x".repeat(DETAIL_LIMIT);
        let parts = |text: &str| vec![text.to_owned(); 3];
        let failure = FailureNote { username: None, text: long.clone() };
        let group = FoundGroup {
            name: "g".to_owned(),
            gid: 1,
            members: parts(&long),
            root_equivalent: true,
        };
        let host = HostReport {
            users: (0..3000).map(|number| user(number, 3)).collect(),
            groups: vec![group],
            sudo_rules: parts(&long),
            sshd: [("banner".to_owned(), long.clone())].into(),
            truncated: false,
        };
        for detail in [
            Detail { changes: vec![change(&long)], ..Detail::default() },
            Detail { warnings: parts(&long), ..Detail::default() },
            Detail { failures: vec![failure], report: Some(Box::new(host)), ..Detail::default() },
        ] {
            let mut short = detail.clone();
            short.fit();
            assert!(length(&short) <= DETAIL_LIMIT);
            let said = short.report.as_ref().is_some_and(|report| report.truncated);
            assert!(said || short.warnings == [LEFT_OUT]);
        }
    }
}
