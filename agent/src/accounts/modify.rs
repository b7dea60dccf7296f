//! Changing an account that is there: one usermod(8) for all fields, gpasswd(1) for each group that is left, and
//! the expiry that is bastio's lock.
//!
//! This file must not decide who may be changed.

use bastio_protocol::Username;

use super::create::{NO_PASSWORD, check_group, check_shell, expiry_day};
use super::databases::CLOSED_DAY;
use super::snapshot::Databases;
use super::{AccountsError, Tool, is_own_group};
use crate::reconcile::host::{AccountChange, DAY};

/// Changes fields. A lock stays, whatever end is asked for. All is looked at before the first change.
pub(super) fn modify(
    all: &Databases,
    name: &Username,
    change: &AccountChange,
) -> Result<(), AccountsError> {
    for group in change.group.iter().chain(&change.add_groups) {
        check_group(all, group.as_str())?;
    }
    if let Some(group) = change.drop_groups.iter().find(|group| is_own_group(group)) {
        return Err(AccountsError::GroupReserved(group.clone()));
    }
    if let Some(shell) = &change.shell {
        check_shell(shell)?;
    }
    let fields = fields(change, all.is_locked(name.as_str()));
    if !fields.is_empty() {
        usermod(name, &fields)?;
    }
    let dropped = change.drop_groups.iter().filter(|group| all.is_member(name.as_str(), group));
    for (done, group) in dropped.enumerate() {
        let left = Tool::Gpasswd.run(&["--delete", name.as_str(), group]);
        left.map_err(|error| match (fields.is_empty(), done) {
            (true, 0) => error.into(),
            _ => AccountsError::Partly { cause: Box::new(error.into()) },
        })?;
    }
    Ok(())
}

/// Lets nobody in.
pub(super) fn lock(name: &Username) -> Result<(), AccountsError> {
    usermod(name, &["--expiredate".to_owned(), CLOSED_DAY.to_string()])
}

/// Undoes a lock, whoever set it, and nothing else: the account ends at `expires`, or never.
pub(super) fn unlock(
    all: &Databases,
    name: &Username,
    expires: Option<i64>,
) -> Result<(), AccountsError> {
    let (name_text, mut options) = (name.as_str(), Vec::new());
    if all.is_locked(name_text) || all.expires(name_text) != expires.map(|it| expiry_day(it) * DAY)
    {
        options.extend(["--expiredate".to_owned(), day_text(expires)]);
    }
    if all.is_barred(name_text) {
        options.extend(["--password".to_owned(), NO_PASSWORD.to_owned()]);
    }
    if options.is_empty() {
        return Ok(());
    }
    usermod(name, &options)
}

/// Options of usermod(8).
fn fields(change: &AccountChange, is_locked: bool) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            arguments.extend([name.to_owned(), value]);
        }
    };
    option("--gid", change.group.as_ref().map(ToString::to_string));
    option("--shell", change.shell.as_ref().map(ToString::to_string));
    option("--comment", change.comment.as_ref().map(ToString::to_string));
    option("--expiredate", change.expires.filter(|_| !is_locked).map(day_text));
    let groups: Vec<_> = change.add_groups.iter().map(ToString::to_string).collect();
    if !groups.is_empty() {
        arguments.extend(["--append".to_owned(), "--groups".to_owned(), groups.join(",")]);
    }
    arguments
}

/// As usermod takes it: empty is never.
fn day_text(expires: Option<i64>) -> String {
    expires.map(|expires| expiry_day(expires).to_string()).unwrap_or_default()
}

fn usermod(name: &Username, options: &[String]) -> Result<(), AccountsError> {
    let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
    arguments.extend(["--", name.as_str()]);
    Ok(Tool::Usermod.run(&arguments)?)
}

#[cfg(test)]
mod tests {
    use bastio_protocol::{AbsolutePath, Comment, GroupName};

    use super::*;

    #[test]
    fn one_usermod_says_it_all() {
        let group = |name| GroupName::parse(name).unwrap();
        let change = AccountChange {
            group: Some(group("staff")),
            add_groups: [group("dev"), group("ops")].into(),
            drop_groups: ["old".to_owned()].into(),
            shell: Some(AbsolutePath::parse("/bin/sh").unwrap()),
            comment: Some(Comment::parse("").unwrap()),
            expires: Some(Some(20_000 * DAY)),
        };
        let all =
            "--gid staff --shell /bin/sh --comment  --expiredate 20000 --append --groups dev,ops";
        assert_eq!(fields(&change, false).join(" "), all);
        assert_eq!(fields(&change, true).join(" "), all.replace("--expiredate 20000 ", ""));
        assert!(fields(&AccountChange::default(), false).is_empty());
        let forever = AccountChange { expires: Some(None), ..AccountChange::default() };
        assert_eq!(fields(&forever, false), ["--expiredate", ""]);
    }

    #[test]
    fn what_is_bastios_own_is_not_changed_as_a_group() {
        let name = Username::parse("nobody-here").unwrap();
        let change = AccountChange {
            drop_groups: [super::super::MANAGED_GROUP.to_owned()].into(),
            ..AccountChange::default()
        };
        let refused = modify(&Databases::default(), &name, &change);
        assert!(matches!(refused, Err(AccountsError::GroupReserved(_))));
    }
}
