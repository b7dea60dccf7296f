//! What the managed accounts must be. Knows nothing of how actions are carried out.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::{Action, PublicKey, Sudo};
use bastio_tests::Host;

use super::{FOREIGN, KEYS, USERS, key};

/// The managed accounts, by name.
#[derive(Debug, Default)]
pub struct Model(pub BTreeMap<String, Managed>);

/// One of them.
#[derive(Debug, Default)]
pub struct Managed {
    pub sudo: bool,
    pub keys: BTreeSet<usize>,
    /// Lines that others wrote into its key file, in order.
    pub foreign: Vec<Vec<u8>>,
}

impl Model {
    /// Carries an action out here; whether it must succeed there.
    pub fn apply(&mut self, user: &str, action: &Action) -> bool {
        if user == FOREIGN {
            return false;
        }
        if let Action::AddUser { sudo } = action {
            self.0.entry(user.to_owned()).or_default().sudo = *sudo;
            return true;
        }
        if let Action::SetUser { wanted } = action {
            let managed = self.0.entry(user.to_owned()).or_default();
            managed.sudo = wanted.sudo != Sudo::None;
            managed.keys = wanted.keys.iter().map(|grant| number_of(&grant.public_key)).collect();
            return true;
        }
        if let Action::RemoveUser { .. } = action {
            self.0.remove(user);
            return true;
        }
        let Some(managed) = self.0.get_mut(user) else { return false };
        match action {
            Action::UpdateUser { sudo } => managed.sudo = *sudo,
            Action::AddKey { public_key } => drop(managed.keys.insert(number_of(public_key))),
            Action::RemoveKey { public_key } => drop(managed.keys.remove(&number_of(public_key))),
            _ => unreachable!("no such action is made"),
        }
        true
    }

    /// Fails when the server is otherwise.
    #[track_caller]
    pub fn check(&self, host: &Host) {
        let text = |path: &str| String::from_utf8(host.read_file(path).unwrap()).unwrap();
        let (passwd, group) = (text("/etc/passwd"), text("/etc/group"));
        let members = |name: &str| -> BTreeSet<String> {
            let line = group.lines().find(|line| line.starts_with(&format!("{name}:")));
            let members = line.and_then(|line| line.rsplit(':').next()).unwrap_or_default();
            members.split(',').map(str::to_owned).collect()
        };
        let (ours, sudo) = (members("bastio-managed"), members("sudo"));
        for user in USERS.iter().filter(|user| **user != FOREIGN) {
            let is_there = passwd.lines().any(|line| line.starts_with(&format!("{user}:")));
            let wanted = self.0.get(*user);
            assert_eq!(
                (is_there, ours.contains(*user)),
                (wanted.is_some(), wanted.is_some()),
                "{user}"
            );
            let may_sudo = wanted.is_some_and(|wanted| wanted.sudo);
            assert_eq!(sudo.contains(*user), may_sudo, "{user} and sudo");
            if let Some(wanted) = wanted {
                wanted.check_keys(host, user);
            }
        }
    }
}

impl Managed {
    #[track_caller]
    fn check_keys(&self, host: &Host, user: &str) {
        let path = key_file(user);
        let bytes =
            if host.exists(&path).unwrap() { host.read_file(&path).unwrap() } else { Vec::new() };
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec);
        let (ours, foreign): (Vec<_>, Vec<_>) =
            lines.partition(|line| line.trim_ascii_end().ends_with(b" bastio:managed"));
        assert_eq!(foreign, self.foreign, "foreign lines of {user}");
        let keys: Vec<_> = (0..KEYS).filter(|number| self.keys.contains(number)).collect();
        let found = |number: &usize| {
            let text = format!("{} bastio:managed\n", key(*number));
            ours.iter().filter(|line| **line == text.as_bytes()).count()
        };
        assert!(keys.iter().all(|number| found(number) == 1), "{user}: {keys:?} in {ours:?}");
        assert_eq!(ours.len(), keys.len(), "{user}: {ours:?}");
    }
}

/// Where the keys of an account are.
pub fn key_file(user: &str) -> String {
    format!("/home/{user}/.ssh/authorized_keys")
}

fn number_of(wanted: &PublicKey) -> usize {
    (0..KEYS).find(|number| key(*number) == *wanted).unwrap()
}
