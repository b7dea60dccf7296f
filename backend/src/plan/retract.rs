//! What an account was given and nobody names any more. Agents leave fields that are not named as they are, which is
//! right for what the host has chosen and wrong for what bastio gave: that is named once more, as nothing.
//! This file must not know where accounts are kept.

use std::collections::BTreeSet;

use super::{Accounts, More};

/// Names supplementary groups as none where they were given, by what is confirmed or under way, and are not wanted any
/// more: some of them make root. They stay named for as long as the account is there, or a whole-state sync would leave them.
///
/// A primary group is left: an account cannot be without one, and which it had otherwise is not known.
pub fn retract<'a>(wanted: &mut Accounts, given: impl IntoIterator<Item = &'a Accounts>) {
    for (login, account) in given.into_iter().flatten() {
        let More::Whole(had) = &account.more else { continue };
        let Some(now) = wanted.get_mut(login).filter(|_| had.spec.groups.is_some()) else {
            continue;
        };
        let mut whole = now.whole();
        // Who is given back gets back what was there, and nothing is said of the rest.
        if whole.spec.groups.is_none() && whole.release.is_none() {
            whole.spec.groups = Some(BTreeSet::new());
            *now = whole.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use bastio_protocol::{GroupName, WantedAccount};

    use super::*;
    use crate::plan::{Account, Step, confirm, difference};
    use crate::testing::login;

    fn with(groups: Option<&[&str]>) -> Account {
        let parse = |name: &&str| GroupName::parse(name).expect("a group");
        let mut wanted = WantedAccount::default();
        wanted.spec.groups = groups.map(|groups| groups.iter().map(parse).collect());
        wanted.into()
    }

    fn only(account: Account) -> Accounts {
        Accounts::from([(login("alice"), account)])
    }

    #[test]
    fn groups_that_were_given_and_are_not_named_any_more_are_none() {
        let none: Option<&[&str]> = None;
        for (had, wants, expected) in [
            (none, none, none),
            (Some(&["docker"][..]), none, Some(&[][..])),
            (Some(&[][..]), none, Some(&[][..])),
            (Some(&["docker"][..]), Some(&["audio"][..]), Some(&["audio"][..])),
            (none, Some(&["audio"][..]), Some(&["audio"][..])),
        ] {
            for given in [vec![only(with(had))], vec![only(with(none)), only(with(had))]] {
                let mut wanted = only(with(wants));
                retract(&mut wanted, &given);
                assert_eq!(wanted, only(with(expected)), "{had:?}, then {wants:?}");
            }
        }
    }

    #[test]
    fn who_is_given_back_keeps_what_is_not_named() {
        let released = WantedAccount { release: Some(Vec::new()), ..WantedAccount::default() };
        let mut wanted = only(released.clone().into());
        retract(&mut wanted, [&only(with(Some(&["docker"])))]);
        assert_eq!(wanted, only(released.into()));
    }

    #[test]
    fn they_are_taken_once_and_whoever_is_gone_needs_nothing() {
        let mut there = only(with(Some(&["docker"])));
        let mut gone = Accounts::new();
        retract(&mut gone, [&there]);
        assert!(gone.is_empty());
        for expected in [1, 0, 0] {
            let mut wanted = only(with(None));
            retract(&mut wanted, [&there]);
            let steps: Vec<Step> = difference(&wanted, &there);
            assert_eq!(steps.len(), expected, "{steps:?}");
            steps.iter().for_each(|step| confirm(&mut there, step));
        }
    }
}
