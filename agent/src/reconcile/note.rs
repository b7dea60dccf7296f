//! Steps in words: what a feedback says of each. No secrets: a key appears as its fingerprint.

use bastio_protocol::{ChangeKind, ChangeNote, KeyGrant, PublicKey, Username, civil_from_days};

use super::aim::GivenBack;
use super::host::{AccountChange, NewAccount, SudoState};
use super::plan::{KeyStep, Step};

/// Days, counted from 1970-01-01, that people have a date for: of the years 0 to 9998.
const DAYS_WITH_A_DATE: std::ops::RangeInclusive<i64> = -719_468..=2_932_532;

/// The note of one change.
#[must_use]
pub fn change_note(name: &Username, kind: ChangeKind, text: impl Into<String>) -> ChangeNote {
    ChangeNote { username: Some(name.clone()), kind, text: text.into() }
}

/// What a step says.
pub(super) fn of(name: &Username, step: &Step) -> Vec<ChangeNote> {
    let one = |kind, text: String| vec![change_note(name, kind, text)];
    match step {
        Step::Create(new) => one(ChangeKind::CreateUser, created(new)),
        Step::TakeOver => one(ChangeKind::TakeOver, "managed by bastio from now on".to_owned()),
        Step::GiveBack(what) => one(ChangeKind::GiveBack, given_back(what)),
        Step::Modify(change) => one(ChangeKind::ModifyUser, modified(change)),
        Step::Lock => one(ChangeKind::LockUser, "locked".to_owned()),
        Step::Unlock { expires } => {
            one(ChangeKind::UnlockUser, format!("unlocked{}", ends(*expires)))
        }
        Step::SetKeys(keys) => of_keys(name, keys),
        Step::SetSudo { until, state, .. } => {
            let (kind, text) = rights(state);
            one(kind, format!("{text}{}", ends(*until)))
        }
        Step::EndSessions => one(ChangeKind::EndSessions, "its sessions end".to_owned()),
        Step::Remove(removal) => {
            one(ChangeKind::RemoveUser, format!("removed ({})", removal.name()))
        }
    }
}

/// A time as people read it: `2026-11-22 01:45:00 UTC`; the number of seconds where there is no
/// such date.
#[must_use]
pub fn moment(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    if !DAYS_WITH_A_DATE.contains(&days) {
        return format!("{seconds} s");
    }
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

fn ends(until: Option<i64>) -> String {
    until.map(|until| format!(" until {}", moment(until))).unwrap_or_default()
}

fn given_back(what: &GivenBack) -> String {
    let mut words = "managed by bastio no more".to_owned();
    if !what.key_lines.is_empty() {
        words.push_str(&format!(", {} of its own key lines are back", what.key_lines.len()));
    }
    if what.sudo_group {
        words.push_str(", in the group for sudo as before");
    }
    words
}

fn created(new: &NewAccount) -> String {
    let mut words = vec!["created".to_owned()];
    words.extend(new.uid.map(|uid| format!("uid {uid}")));
    words.extend(new.spec.group.as_ref().map(|group| format!("group {group}")));
    words.extend(new.spec.groups.iter().flatten().map(|group| format!("member of {group}")));
    words.extend(new.sudo_group.then(|| "member of the sudo group".to_owned()));
    words.extend(new.spec.shell.as_ref().map(|shell| format!("shell {shell}")));
    words.extend(new.spec.home.as_ref().map(|home| format!("home {home}")));
    words.extend(new.keep_home.then(|| "with the home that it had".to_owned()));
    words.extend(new.locked.then(|| "locked".to_owned()));
    words.extend(new.expires.map(|day| format!("ends {}", moment(day))));
    words.join(", ")
}

fn modified(change: &AccountChange) -> String {
    let mut words = Vec::new();
    words.extend(change.group.as_ref().map(|group| format!("group {group}")));
    words.extend(change.add_groups.iter().map(|group| format!("joins {group}")));
    words.extend(change.drop_groups.iter().map(|group| format!("leaves {group}")));
    words.extend(change.shell.as_ref().map(|shell| format!("shell {shell}")));
    words.extend(change.comment.as_ref().map(|comment| format!("comment {:?}", comment.as_str())));
    words.extend(change.expires.map(|expires| match expires {
        Some(day) => format!("ends {}", moment(day)),
        None => "has no end".to_owned(),
    }));
    words.join(", ")
}

fn of_keys(name: &Username, step: &KeyStep) -> Vec<ChangeNote> {
    let grant = |kind, verb: &str, grant: &KeyGrant| {
        let options = if grant.options.is_empty() { "" } else { " with options" };
        let key = named(&grant.public_key);
        change_note(name, kind, format!("{key} {verb}{options}{}", ends(grant.until)))
    };
    let added = step.added.iter().map(|it| grant(ChangeKind::AddKey, "logs in", it));
    let changed = step.changed.iter().map(|it| grant(ChangeKind::ChangeKey, "logs in now", it));
    let removed = step.removed.iter().map(|key| {
        change_note(name, ChangeKind::RemoveKey, format!("{} logs in no more", named(key)))
    });
    added.chain(changed).chain(removed).collect()
}

fn named(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm().name(), key.fingerprint())
}

fn rights(state: &SudoState) -> (ChangeKind, &'static str) {
    match state {
        SudoState::None => (ChangeKind::RevokeSudo, "no sudo rights"),
        SudoState::Group => (ChangeKind::GrantSudo, "sudo rights by the sudo group"),
        SudoState::OtherGroup => (ChangeKind::GrantSudo, "sudo rights by another group"),
        SudoState::Rule(_) => (ChangeKind::GrantSudo, "sudo rights by a rule of its own"),
        SudoState::Both(_) => (ChangeKind::GrantSudo, "sudo rights by group and a rule"),
    }
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn times_read_as_date_says_them() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_795_311_900, "2026-11-22 01:45:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
            (i64::MAX, "9223372036854775807 s"),
        ] {
            assert_eq!(moment(seconds), text);
        }
    }
}
