//! What an edit does to a server's accounts, counted, and when it must not happen by mistake.
//!
//! Pure. This room must not know what the edit was.

use std::collections::BTreeSet;
use std::fmt;

use bastio_protocol::Username;
use bastio_protocol::api::BlastRadius;
use bastio_protocol::{ServerName, Sudo};

use super::{Account, Accounts, More};

/// What happens to the accounts of one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    /// Accounts that come.
    pub gained: BTreeSet<Username>,
    /// Accounts that go or can no longer log in.
    pub lost: BTreeSet<Username>,
    /// Accounts that get sudo rights.
    pub sudo_gained: BTreeSet<Username>,
    /// Accounts that lose sudo rights.
    pub sudo_lost: BTreeSet<Username>,
    /// Whether there was an admin among the accounts looked at, and is none afterwards.
    pub loses_admins: bool,
}

/// How large an edit may be before it needs a confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rails {
    /// Share of the servers that one edit may concern, in percent.
    pub percent: u8,
    /// Fewer servers than this are never many.
    pub at_least: u32,
}

/// Why an edit needs a confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// It concerns much of the fleet.
    Large {
        /// Servers concerned.
        servers: u32,
        /// Servers that there are.
        of: u32,
        /// What is allowed without, in percent.
        percent: u8,
    },
    /// Nobody would be left on these servers who has sudo rights and a key.
    LastAdmin(Vec<ServerName>),
}

impl Default for Rails {
    fn default() -> Self {
        Self { percent: 50, at_least: 20 }
    }
}

impl Account {
    /// Whether somebody can log in to it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let locked = matches!(&self.more, More::Whole(whole) if whole.locked);
        !locked && !self.keys.is_empty()
    }

    /// Whether somebody can log in to it and do everything.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        let is_limited = matches!(&self.more, More::Whole(whole)
            if matches!(&whole.sudo, Sudo::Policy(policy) if !policy.commands.is_empty()));
        self.sudo && !is_limited && self.is_open()
    }
}

/// What leads from `before` to `after`.
#[must_use]
pub fn effect(before: &Accounts, after: &Accounts) -> Effect {
    let with = |accounts: &Accounts, fits: fn(&Account) -> bool| -> BTreeSet<Username> {
        accounts
            .iter()
            .filter(|(_, account)| fits(account))
            .map(|(login, _)| login.clone())
            .collect()
    };
    let open = |accounts: &Accounts| with(accounts, Account::is_open);
    let sudo = |accounts: &Accounts| with(accounts, |account| account.sudo);
    let (open_before, open_after) = (open(before), open(after));
    let (sudo_before, sudo_after) = (sudo(before), sudo(after));
    Effect {
        gained: after.keys().filter(|login| !before.contains_key(*login)).cloned().collect(),
        lost: open_before.difference(&open_after).cloned().collect(),
        sudo_gained: sudo_after.difference(&sudo_before).cloned().collect(),
        sudo_lost: sudo_before.difference(&sudo_after).cloned().collect(),
        loses_admins: before.values().any(Account::is_admin)
            && !after.values().any(Account::is_admin),
    }
}

impl Effect {
    /// Whether all it does is take from one login name: that is never held up for its size.
    #[must_use]
    pub fn only_takes_from(&self) -> Option<&Username> {
        let gives = !self.gained.is_empty() || !self.sudo_gained.is_empty();
        let mut taken = self.lost.union(&self.sudo_lost);
        let first = taken.next()?;
        (!gives && taken.next().is_none()).then_some(first)
    }
}

/// All effects of an edit in numbers; `concerned` are the logins that servers would be told of.
#[must_use]
pub fn radius<'a>(
    effects: impl IntoIterator<Item = &'a Effect>,
    concerned: &BTreeSet<&Username>,
    of: u32,
) -> BlastRadius {
    let mut all = BlastRadius { of, logins: number(concerned.len()), ..BlastRadius::default() };
    for effect in effects {
        all.servers += 1;
        all.gained += number(effect.gained.len());
        all.lost += number(effect.lost.len());
        all.sudo_gained += number(effect.sudo_gained.len());
        all.sudo_lost += number(effect.sudo_lost.len());
    }
    all
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Rails {
    /// Whether an edit with these effects concerns too much of the fleet. Taking the rights of one
    /// login name away never does: whoever must go is out everywhere, at once.
    #[must_use]
    pub fn large(self, effects: &[&Effect], of: u32) -> Option<Stop> {
        let servers = number(effects.len());
        let is_large = servers >= self.at_least
            && u64::from(servers) * 100 > u64::from(of) * u64::from(self.percent);
        let mut takers = effects.iter().map(|effect| effect.only_takes_from());
        let first = takers.next().flatten();
        let ends_one = first.is_some() && takers.all(|login| login == first);
        (is_large && !ends_one).then_some(Stop::Large { servers, of, percent: self.percent })
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Large { servers, of, percent } => {
                write!(f, "it concerns {servers} of {of} servers, more than {percent} %")
            }
            Self::LastAdmin(servers) => {
                let names: Vec<&str> = servers.iter().take(5).map(ServerName::as_str).collect();
                let more = servers.len().saturating_sub(names.len());
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                let names = names.join(", ");
                write!(f, "nobody with sudo rights and a key would be left on {names}{more}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bastio_protocol::{SudoPolicy, WantedAccount};

    use super::*;
    use crate::testing::{host, key, login};

    fn account(sudo: bool, keys: &[u8]) -> Account {
        Account { sudo, keys: keys.iter().copied().map(key).collect(), more: More::Nothing }
    }

    fn accounts(list: &[(&str, Account)]) -> Accounts {
        list.iter().map(|(name, account)| (login(name), account.clone())).collect()
    }

    fn locked() -> Account {
        let wanted = WantedAccount { locked: true, ..account(true, &[1]).whole() };
        wanted.into()
    }

    fn may_restart() -> Account {
        let command = "/usr/bin/systemctl restart nginx".parse().expect("a command");
        let policy = SudoPolicy {
            commands: vec![command],
            run_as: Vec::new(),
            password: false,
            not_before: None,
            not_after: None,
        };
        let sudo = Sudo::Policy(Box::new(policy));
        WantedAccount { sudo, ..account(false, &[1]).whole() }.into()
    }

    #[test]
    fn what_comes_and_what_goes_is_counted_by_what_it_allows() {
        let names =
            |set: &BTreeSet<Username>| set.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (before, after, gained, lost, sudo_gained, sudo_lost, no_admin) in [
            (None, Some(account(true, &[1])), true, false, true, false, false),
            (Some(account(true, &[1])), None, false, true, false, true, true),
            (
                Some(account(true, &[1])),
                Some(account(false, &[1])),
                false,
                false,
                false,
                true,
                true,
            ),
            (Some(account(true, &[1])), Some(account(true, &[])), false, true, false, false, true),
            (Some(account(true, &[1])), Some(locked()), false, true, false, false, true),
            (Some(account(true, &[1])), Some(may_restart()), false, false, false, false, true),
            (
                Some(account(true, &[1])),
                Some(account(true, &[2])),
                false,
                false,
                false,
                false,
                false,
            ),
            (Some(account(true, &[])), None, false, false, false, true, false),
            (Some(account(false, &[1])), None, false, true, false, false, false),
            (None, Some(account(false, &[])), true, false, false, false, false),
        ] {
            let one = |account: &Option<Account>| match account {
                Some(account) => accounts(&[("alice", account.clone())]),
                None => Accounts::new(),
            };
            let found = effect(&one(&before), &one(&after));
            let expected = |there: bool| if there { vec!["alice".to_owned()] } else { Vec::new() };
            let what = format!("{before:?} {after:?}");
            assert_eq!(names(&found.gained), expected(gained), "gained {what}");
            assert_eq!(names(&found.lost), expected(lost), "lost {what}");
            assert_eq!(names(&found.sudo_gained), expected(sudo_gained), "sudo gained {what}");
            assert_eq!(names(&found.sudo_lost), expected(sudo_lost), "sudo lost {what}");
            assert_eq!(found.loses_admins, no_admin, "admin {what}");
        }
    }

    #[test]
    fn another_admin_is_enough() {
        let bob = ("bob", account(true, &[2]));
        let before = accounts(&[("alice", account(true, &[1])), bob.clone()]);
        assert!(!effect(&before, &accounts(&[bob])).loses_admins);
        assert!(effect(&before, &accounts(&[("bob", locked())])).loses_admins);
    }

    #[test]
    fn much_of_a_large_fleet_stops_and_one_leaver_does_not() {
        let gives = effect(&Accounts::new(), &accounts(&[("alice", account(false, &[1]))]));
        let takes = |name| effect(&accounts(&[(name, account(false, &[1]))]), &Accounts::new());
        let rails = Rails { percent: 50, at_least: 20 };
        for (servers, of, large) in
            [(19, 19, false), (20, 20, true), (20, 40, false), (21, 40, true)]
        {
            let effects = vec![&gives; servers];
            assert_eq!(rails.large(&effects, of).is_some(), large, "{servers} of {of}");
        }
        let (alice, bob) = (takes("alice"), takes("bob"));
        assert_eq!(rails.large(&vec![&alice; 100], 100), None);
        let mut two = vec![&alice; 99];
        two.push(&bob);
        let stop = rails.large(&two, 100).expect("two people are no leaver");
        assert_eq!(stop.to_string(), "it concerns 100 of 100 servers, more than 50 %");
    }

    #[test]
    fn long_lists_of_servers_are_cut() {
        let names = |count: u8| (1..=count).map(|n| host(&format!("s{n}"))).collect();
        assert_eq!(
            Stop::LastAdmin(names(7)).to_string(),
            "nobody with sudo rights and a key would be left on s1, s2, s3, s4, s5 and 2 more"
        );
        assert!(Stop::LastAdmin(names(2)).to_string().ends_with("left on s1, s2"));
    }
}
