//! Everything on the server that has to do with who may log in, for the backend. Reads only, and
//! tells nothing that is secret: no password hashes, keys as fingerprints.

use std::path::{Path, PathBuf};

use bastio_protocol::{Detail, FoundKey, FoundUser, HostReport};

use super::{Answer, Failure, Processor, System};
use crate::accounts::{Account, AccountsError, Databases, is_login_shell};
use crate::keys_on_disk::{FoundLine, read_keys};
use crate::sshd::{self, Shape};

/// sudo's main file, and its folder.
const SUDOERS: &str = "/etc/sudoers";
const SUDOERS_FOLDER: &str = "/etc/sudoers.d";

impl<A: System> Processor<A> {
    pub(super) fn report(&self) -> Result<Answer, Failure> {
        let (report, warnings) = gather((self.clock)())?;
        let text = format!("{} accounts, {} groups", report.users.len(), report.groups.len());
        let report = Some(Box::new(report));
        let detail = Detail { report, warnings, ..Detail::default() };
        Ok(Answer { detail: Some(Box::new(detail)), ..Answer::done(text) })
    }
}

fn gather(now: i64) -> Result<(HostReport, Vec<String>), AccountsError> {
    let databases = Databases::read()?;
    let with_keys = |(user, account): (FoundUser, Option<Account>)| with_keys(user, account);
    let users = databases
        .found_users(now)
        .into_iter()
        .map(with_keys)
        .filter(|user| user.managed || is_login_shell(&user.shell) || !user.keys.is_empty());
    let (sudo_rules, warnings) = sudo_rules();
    let report = HostReport {
        users: users.collect(),
        groups: databases.found_groups(),
        sudo_rules,
        sshd: sshd::report(),
        truncated: false,
    };
    Ok((report, warnings))
}

fn with_keys(mut user: FoundUser, account: Option<Account>) -> FoundUser {
    let Some(account) = account else {
        user.keys_unreadable = Some("bastio does not take this login name".to_owned());
        return user;
    };
    match read_keys(&account, &Shape::of_account(&account.name)) {
        Ok(lines) => user.keys = lines.into_iter().map(found_key).collect(),
        Err(error) => user.keys_unreadable = Some(error.to_string()),
    }
    user
}

fn found_key(found: FoundLine) -> FoundKey {
    let key = &found.line.key;
    FoundKey {
        fingerprint: key.fingerprint(),
        algorithm: key.algorithm().name().to_owned(),
        managed: found.line.ours,
        comment: key.comment().to_owned(),
        file: found.file.display().to_string(),
        options: found.line.options,
    }
}

/// The lines of sudoers(5) that mean something, as `file: line`, and what could not be read.
fn sudo_rules() -> (Vec<String>, Vec<String>) {
    let (mut rules, mut warnings) = (Vec::new(), Vec::new());
    for path in sudo_files() {
        match std::fs::read(&path) {
            Ok(text) => {
                let lines = meaningful(&String::from_utf8_lossy(&text));
                rules.extend(lines.iter().map(|line| format!("{}: {line}", path.display())));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => warnings.push(format!("cannot read {}: {error}", path.display())),
        }
    }
    (rules, warnings)
}

/// sudo leaves out names with a dot, and those that end with a tilde.
fn sudo_files() -> Vec<PathBuf> {
    let listed = std::fs::read_dir(SUDOERS_FOLDER).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = listed
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            is_file && !name.contains('.') && !name.ends_with('~')
        })
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files.insert(0, Path::new(SUDOERS).to_owned());
    files
}

/// Lines without comments and empty ones; continued lines as one.
fn meaningful(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    // A `#` is no comment in front of a numeric id and of `include`.
    let means = |line: &&str| match line.strip_prefix('#') {
        None => !line.is_empty(),
        Some(rest) => rest.starts_with("include") || rest.starts_with(|c: char| c.is_ascii_digit()),
    };
    lines.filter(means).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_told_without_comments() {
        let text = "# about\n\nDefaults env_reset\n ann ALL=(ALL) \\\n  NOPASSWD: ALL\n\
                    #includedir /etc/sudoers.d\n#1000 ALL=(ALL) ALL\n";
        let expected = [
            "Defaults env_reset",
            "ann ALL=(ALL)    NOPASSWD: ALL",
            "#includedir /etc/sudoers.d",
            "#1000 ALL=(ALL) ALL",
        ];
        assert_eq!(meaningful(text), expected);
    }
}
