//! A new account in one step: with its keys, or not at all. This file must not know who understands that.

use std::collections::BTreeSet;

use bastio_protocol::{Action, Username};

use super::{Accounts, Step, set};

/// The same steps, for an agent of version 2: where one of them makes an account and others give it keys, one set-user
/// does all of it. Steps for accounts that are there stay as they are: each changes what was asked for and nothing
/// beside it, also where somebody has locked the account by hand.
#[must_use]
pub fn at_once(steps: Vec<Step>, desired: &Accounts) -> Vec<Step> {
    let made: BTreeSet<Username> = steps
        .iter()
        .filter(|step| matches!(step.action, Action::AddUser { .. }))
        .filter(|step| desired.get(&step.login).is_some_and(|wanted| !wanted.keys.is_empty()))
        .map(|step| step.login.clone())
        .collect();
    let mut fewer = Vec::with_capacity(steps.len());
    for step in steps {
        match desired.get(&step.login).filter(|_| made.contains(&step.login)) {
            None => fewer.push(step),
            Some(wanted) if matches!(step.action, Action::AddUser { .. }) => {
                let actions = set(wanted).into_iter();
                fewer.extend(actions.map(|action| Step { login: step.login.clone(), action }));
            }
            // It is in there.
            Some(_) => {}
        }
    }
    fewer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Account, difference, projected, revise};
    use crate::testing::{key, login};

    fn account(sudo: bool, keys: &[u8]) -> Account {
        let keys = keys.iter().map(|number| key(*number)).collect();
        Account { sudo, keys, ..Account::default() }
    }

    fn names(steps: &[Step]) -> Vec<String> {
        steps.iter().map(|step| format!("{} {}", step.action.name(), step.login)).collect()
    }

    #[test]
    fn a_new_account_comes_with_its_keys_in_one_step_and_others_change_step_by_step() {
        let present = Accounts::from([
            (login("dan"), account(false, &[])),
            (login("eve"), account(false, &[1])),
        ]);
        let wanted = Accounts::from([
            (login("ann"), account(true, &[1, 2])),
            (login("bob"), account(true, &[])),
            (login("eve"), account(true, &[2])),
        ]);
        let plain = difference(&wanted, &present);
        let steps = at_once(plain.clone(), &wanted);
        let expected = [
            "remove-user dan",
            "set-user ann",
            "add-user bob",
            "add-key eve",
            "remove-key eve",
            "update-user eve",
        ];
        assert_eq!(names(&steps), expected);
        assert_eq!(projected(present.clone(), &steps), wanted);
        assert_eq!(projected(present.clone(), &plain), wanted);
        // What waits is enough.
        assert_eq!(revise(&wanted, &present, &steps), crate::plan::Revised::default());
    }
}
