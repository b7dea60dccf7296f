//! Edits of the model in words, for people.

use std::collections::BTreeMap;
use std::fmt;

use bastio_protocol::api::{Members, NewGrant};

use super::ModelEdit;

/// How much of each kind there is: `2 users added, 1 grant removed`.
#[must_use]
pub fn in_numbers(edits: &[ModelEdit]) -> String {
    if edits.is_empty() {
        return "nothing to change".to_owned();
    }
    let mut kinds = BTreeMap::<(u8, &str, &str), usize>::new();
    for edit in edits {
        *kinds.entry(kind(edit)).or_default() += 1;
    }
    let plural = |what: &str| match what.strip_suffix('y') {
        Some(stem) if what == "sudo policy" => format!("{stem}ies"),
        _ => format!("{what}s"),
    };
    let words = kinds.into_iter().map(|((_, what, done), count)| match count {
        1 => format!("1 {what} {done}"),
        more => format!("{more} {} {done}", plural(what)),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// A number that puts the kinds in order, what it is, and what is done to it.
fn kind(edit: &ModelEdit) -> (u8, &'static str, &'static str) {
    match edit {
        ModelEdit::AddPolicy(..) => (0, "sudo policy", "added"),
        ModelEdit::ChangePolicy(..) => (1, "sudo policy", "changed"),
        ModelEdit::RemovePolicy(_) => (2, "sudo policy", "removed"),
        ModelEdit::AddUser(..) => (3, "user", "added"),
        ModelEdit::ChangeUser(..) => (4, "user", "changed"),
        ModelEdit::RemoveUser(_) => (5, "user", "removed"),
        ModelEdit::SetKey(..) => (6, "key", "set"),
        ModelEdit::RemoveKey(..) => (7, "key", "removed"),
        ModelEdit::AddGroup(_) => (8, "group", "added"),
        ModelEdit::AddMembers(..) => (9, "group", "with new members"),
        ModelEdit::RemoveMembers(..) => (10, "group", "with fewer members"),
        ModelEdit::RemoveGroup(_) => (11, "group", "removed"),
        ModelEdit::Label(..) => (12, "server", "labelled"),
        ModelEdit::SetDrift(..) => (13, "drift rule", "set"),
        ModelEdit::RemoveDrift(_) => (14, "drift rule", "removed"),
        ModelEdit::AddGrant(_) => (15, "grant", "added"),
        ModelEdit::ChangeGrant(_) => (16, "grant", "changed"),
        ModelEdit::RemoveGrant(_) => (17, "grant", "removed"),
    }
}

impl fmt::Display for ModelEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, _, done) = kind(self);
        match self {
            Self::AddPolicy(name, _) | Self::ChangePolicy(name, _) | Self::RemovePolicy(name) => {
                write!(f, "sudo policy {name}: {done}")
            }
            Self::AddUser(name, _) | Self::ChangeUser(name, _) | Self::RemoveUser(name) => {
                write!(f, "user {name}: {done}")
            }
            Self::SetKey(name, key) => {
                write!(f, "user {name}: key {} {done}", key.public_key.fingerprint())
            }
            Self::RemoveKey(name, key) => {
                write!(f, "user {name}: key {} {done}", key.fingerprint())
            }
            Self::AddGroup(name) | Self::RemoveGroup(name) => write!(f, "group {name}: {done}"),
            Self::AddMembers(name, members) => {
                write!(f, "group {name}: {} added", members_in_words(members))
            }
            Self::RemoveMembers(name, members) => {
                write!(f, "group {name}: {} removed", members_in_words(members))
            }
            Self::Label(name, set, unset) => {
                let set = set.iter().map(|(label, value)| format!("{label}={value}"));
                let unset = unset.iter().map(|label| format!("{label} removed"));
                let labels: Vec<String> = set.chain(unset).collect();
                write!(f, "server {name}: label {}", labels.join(", "))
            }
            Self::SetDrift(on, answer) => write!(f, "drift on {on}: {answer}"),
            Self::RemoveDrift(on) => write!(f, "drift on {on}: no rule any more"),
            Self::AddGrant(grant) | Self::ChangeGrant(grant) | Self::RemoveGrant(grant) => {
                write!(f, "{}: {done}", grant_in_words(grant))
            }
        }
    }
}

fn members_in_words(members: &Members) -> String {
    let users = members.users.iter().map(ToString::to_string);
    let groups = members.groups.iter().map(|group| format!("group {group}"));
    users.chain(groups).collect::<Vec<_>>().join(", ")
}

/// `user alice on role=web as deploy with sudo`
pub(in crate::plan) fn grant_in_words(grant: &NewGrant) -> String {
    let login = grant.login.as_ref().map(|login| format!(" as {login}")).unwrap_or_default();
    let sudo = match &grant.terms.sudo_policy {
        Some(policy) => format!(" with the sudo policy {policy}"),
        None if grant.sudo => " with sudo".to_owned(),
        None => String::new(),
    };
    format!("{} on {}{login}{sudo}", grant.holder, grant.on)
}
