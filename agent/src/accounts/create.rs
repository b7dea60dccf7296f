//! Making an account: everything is looked at first, then one useradd(8) does all of it.
//!
//! What is asked for and cannot be had is an error that names it; nothing is made then. This file must not know who may
//! be made, nor keys.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bastio_protocol::{AbsolutePath, Username};
use nix::unistd::{Gid, Group, Uid, User};

use super::databases::{self, CLOSED_DAY};
use super::snapshot::Databases;
use super::tool::RunningTool;
use super::{Account, AccountsError, MANAGED_GROUP, Tool, home, is_own_group};
use crate::keys_on_disk::Owner;
use crate::reconcile::host::{DAY, NewAccount};

/// The shell of new accounts where the host has it; else useradd's own default.
const SHELL: &str = "/bin/bash";
/// A password field that no password matches (shadow(5)); unlike `!` it does not make sshd call
/// the account locked.
pub(super) const NO_PASSWORD: &str = "*";
/// Write bits of group and others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What useradd is told: all of it looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    uid: u32,
    home: PathBuf,
    keep_home: bool,
    primary: Option<String>,
    groups: Vec<String>,
    shell: Option<String>,
    comment: Option<String>,
    skel: Option<String>,
    expiry_day: Option<i64>,
}

/// The day of shadow(5) for an end in seconds since the Unix epoch: whole days, rounded up; never the day that
/// says "locked", nor the one before it, which some programs take for "never".
pub(super) fn expiry_day(expires: i64) -> i64 {
    let days = expires.div_euclid(DAY) + i64::from(expires.rem_euclid(DAY) != 0);
    days.max(CLOSED_DAY + 1)
}

impl Recipe {
    /// Looks whether all of it can be had; nothing is changed. `taken` is an id that is about to be somebody's.
    pub(super) fn look(
        all: &Databases,
        name: &Username,
        new: &NewAccount,
        taken: Option<u32>,
    ) -> Result<Self, AccountsError> {
        let spec = &new.spec;
        let primary = spec.group.as_ref().map(|group| group.to_string());
        match &primary {
            Some(group) => check_group(all, group)?,
            None if all.has_group(name.as_str()) || is_group_elsewhere(name)? => {
                return Err(AccountsError::GroupInTheWay(name.clone()));
            }
            None => {}
        }
        let home = match &spec.home {
            Some(home) => PathBuf::from(home.as_str()),
            None => databases::home_base()?.join(name.as_str()),
        };
        let uid = choose_uid(all, new, taken, &home)?;
        check_home(name, &home, spec.home.is_some(), new.keep_home.then_some(uid))?;
        if let Some(shell) = &spec.shell {
            check_shell(shell)?;
        }
        if let Some(skel) = &spec.skel {
            check_skel(skel)?;
        }
        let end = new.expires.map(expiry_day);
        Ok(Self {
            uid,
            home,
            keep_home: new.keep_home,
            primary,
            groups: supplementary(all, new)?,
            shell: match &spec.shell {
                Some(shell) => Some(shell.to_string()),
                None => usual_shell()?,
            },
            comment: spec.comment.as_ref().map(ToString::to_string),
            skel: spec.skel.as_ref().map(ToString::to_string),
            expiry_day: if new.locked { Some(CLOSED_DAY) } else { end },
        })
    }

    /// The account as it will be, for looking at files outside its home. Its group is not made yet: root's stands for it.
    pub(super) fn coming(&self, name: &Username) -> Account {
        let owner = Owner { uid: Uid::from_raw(self.uid), gid: Gid::from_raw(0) };
        let (name, home) = (name.clone(), self.home.clone());
        Account { name, owner, home, is_system: false, is_managed: false }
    }

    /// The home that is taken again, as its coming owner's. The owner's group is not made yet: the home's own counts.
    pub(super) fn kept_home(&self, name: &Username) -> Result<Option<Account>, AccountsError> {
        if !self.keep_home {
            return Ok(None);
        }
        let found = self.home.symlink_metadata();
        let found = found.map_err(|error| databases::look_up("the kept home", &error))?;
        let mut home = self.coming(name);
        home.owner.gid = Gid::from_raw(found.gid());
        Ok(Some(home))
    }

    /// The numeric id of the account.
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// Begins to make the account. The tool may fail half-way: the caller takes back what is there then.
    ///
    /// # Errors
    /// [`AccountsError::Path`] when something stands by now where the home is to be, and the tool's own.
    pub(super) fn begin(&self, name: &Username) -> Result<RunningTool, AccountsError> {
        if !self.keep_home && self.home.symlink_metadata().is_ok() {
            return unusable("a home", &self.home, "something is there by now".to_owned());
        }
        let arguments = self.arguments(name);
        Ok(Tool::Useradd.begin(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?)
    }

    fn arguments(&self, name: &Username) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                arguments.extend([name.to_owned(), value]);
            }
        };
        option("--uid", Some(self.uid.to_string()));
        option("--home-dir", Some(self.home.display().to_string()));
        option("--password", Some(NO_PASSWORD.to_owned()));
        option("--groups", Some(self.groups.join(",")));
        option("--gid", self.primary.clone());
        option("--shell", self.shell.clone());
        option("--comment", self.comment.clone());
        option("--skel", self.skel.clone().filter(|_| !self.keep_home));
        option("--expiredate", self.expiry_day.map(|day| day.to_string()));
        let home = if self.keep_home { "--no-create-home" } else { "--create-home" };
        let group = if self.primary.is_some() { "--no-user-group" } else { "--user-group" };
        arguments.extend([home, group, "--", name.as_str()].map(str::to_owned));
        arguments
    }
}

/// bastio's mark, sudo's group, and those asked for.
fn supplementary(all: &Databases, new: &NewAccount) -> Result<Vec<String>, AccountsError> {
    let mut groups = vec![MANAGED_GROUP.to_owned()];
    if new.sudo_group {
        let group = all.sudo_group().ok_or_else(|| AccountsError::GroupMissing("sudo".into()))?;
        groups.push(group.to_owned());
    }
    for group in new.spec.groups.iter().flatten() {
        check_group(all, group.as_str())?;
        groups.push(group.to_string());
    }
    Ok(groups)
}

/// A group that an account can be given: in the local files, which are all that the tools change.
pub(super) fn check_group(all: &Databases, group: &str) -> Result<(), AccountsError> {
    if is_own_group(group) {
        return Err(AccountsError::GroupReserved(group.to_owned()));
    }
    if !all.has_group(group) {
        return Err(AccountsError::GroupMissing(group.to_owned()));
    }
    Ok(())
}

fn is_group_elsewhere(name: &Username) -> Result<bool, AccountsError> {
    let found = Group::from_name(name.as_str());
    let found = found
        .map_err(|errno| AccountsError::LookUp { what: format!("the group {name}"), errno })?;
    Ok(found.is_some())
}

/// The id asked for, if it can be had; else one that nobody has, nobody is promised, and that owns nothing where
/// homes are: a home that was kept must not fall to a stranger.
fn choose_uid(
    all: &Databases,
    new: &NewAccount,
    taken: Option<u32>,
    home: &Path,
) -> Result<u32, AccountsError> {
    if let Some(uid) = new.uid {
        return check_uid(all, new, uid).map(|()| uid);
    }
    let mut avoided = new.avoid.clone();
    avoided.extend(taken);
    if let Some(folder) = home.parent() {
        avoided.extend(owners_in(folder)?);
    }
    for uid in all.free_uids(&avoided) {
        if holder_of(all, uid)?.is_none() {
            return Ok(uid);
        }
    }
    Err(AccountsError::NoUid)
}

fn check_uid(all: &Databases, new: &NewAccount, uid: u32) -> Result<(), AccountsError> {
    let refused = |reason: &str| Err(AccountsError::Uid { uid, reason: reason.to_owned() });
    if all.is_system(uid) {
        return refused("it is one of the system's own (below UID_MIN of /etc/login.defs)");
    }
    if let Some(holder) = holder_of(all, uid)? {
        return refused(&format!("it belongs to {holder} here"));
    }
    if new.avoid.contains(&uid) {
        return refused("it is reserved for somebody else");
    }
    if let Some(holder) = databases::subordinate_holder(uid)? {
        return refused(&format!("it is among the subordinate ids of {holder} (/etc/subuid)"));
    }
    Ok(())
}

/// Who has the id, in the local files or behind them.
pub(super) fn holder_of(all: &Databases, uid: u32) -> Result<Option<String>, AccountsError> {
    if let Some(name) = all.holder_of(uid) {
        return Ok(Some(name.to_owned()));
    }
    let found = User::from_uid(Uid::from_raw(uid));
    let found =
        found.map_err(|errno| AccountsError::LookUp { what: format!("the uid {uid}"), errno })?;
    Ok(found.map(|user| user.name))
}

fn owners_in(folder: &Path) -> Result<BTreeSet<u32>, AccountsError> {
    let failed = |error| databases::look_up(&folder.display().to_string(), &error);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.map_err(failed)?,
    };
    let mut owners = BTreeSet::new();
    for entry in entries {
        // What goes away meanwhile belongs to nobody.
        owners.extend(entry.map_err(failed)?.metadata().map(|found| found.uid()));
    }
    Ok(owners)
}

/// `keeper`: the home of that uid is there and taken as it is.
fn check_home(
    name: &Username,
    path: &Path,
    is_chosen: bool,
    keeper: Option<u32>,
) -> Result<(), AccountsError> {
    let refused = |reason: String| unusable("a home", path, reason);
    if !home::is_plain_absolute(path) {
        return refused("a home is at least two folders below the root".to_owned());
    }
    if is_chosen || keeper.is_some() {
        check_roots_own(path.parent().unwrap_or(Path::new("/")), "the folder of a home")?;
    }
    if let Some(other) = databases::other_account_in(path, name.as_str())? {
        return refused(format!("it is, or holds, the home of {other}"));
    }
    match (path.symlink_metadata(), keeper) {
        (Err(error), None) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        (Err(error), _) => refused(error.to_string()),
        (Ok(found), Some(uid)) if found.is_dir() && found.uid() == uid => Ok(()),
        (Ok(found), Some(uid)) => {
            refused(format!("it is no folder of uid {uid} (it belongs to uid {})", found.uid()))
        }
        (Ok(found), None) => {
            refused(format!("something is there already, of uid {}; move it away", found.uid()))
        }
    }
}

/// A folder that is there, spelled without links, which root alone can change, with all above it.
fn check_roots_own(folder: &Path, what: &'static str) -> Result<(), AccountsError> {
    match folder.canonicalize() {
        Ok(real) if real == folder => {}
        Ok(_) => return unusable(what, folder, "it is reached through a symbolic link".to_owned()),
        Err(error) => return unusable(what, folder, error.to_string()),
    }
    for part in folder.ancestors() {
        let found = match part.symlink_metadata() {
            Ok(found) => found,
            Err(error) => return unusable(what, part, error.to_string()),
        };
        if !found.is_dir() || found.uid() != 0 || found.mode() & WRITABLE_BY_OTHERS != 0 {
            return unusable(what, part, "it is no folder that root alone can change".to_owned());
        }
    }
    Ok(())
}

/// Whether a program stands there, links followed.
pub(super) fn is_program(path: &AbsolutePath) -> Result<bool, AccountsError> {
    match std::fs::metadata(path.as_str()) {
        Ok(found) => Ok(found.is_file() && found.permissions().mode() & 0o111 != 0),
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Ok(false),
            _ => Err(databases::look_up(path.as_str(), &error)),
        },
    }
}

pub(super) fn check_shell(shell: &AbsolutePath) -> Result<(), AccountsError> {
    if is_program(shell)? {
        return Ok(());
    }
    unusable("a shell", Path::new(shell.as_str()), "no program is there; install it".to_owned())
}

/// useradd copies from it as root: what others put there could be anything.
fn check_skel(skel: &AbsolutePath) -> Result<(), AccountsError> {
    check_roots_own(Path::new(skel.as_str()), "the beginning of a home")
}

fn unusable<T>(what: &'static str, path: &Path, reason: String) -> Result<T, AccountsError> {
    Err(AccountsError::Path { what, path: path.to_owned(), reason })
}

fn usual_shell() -> Result<Option<String>, AccountsError> {
    let is_there = Path::new(SHELL).try_exists();
    is_there
        .map(|is_there| is_there.then(|| SHELL.to_owned()))
        .map_err(|error| databases::look_up(SHELL, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            uid: 1005,
            home: "/home/ann".into(),
            keep_home: false,
            primary: None,
            groups: vec![MANAGED_GROUP.to_owned()],
            shell: None,
            comment: None,
            skel: None,
            expiry_day: None,
        }
    }

    fn told(recipe: &Recipe) -> String {
        recipe.arguments(&Username::parse("ann").unwrap()).join(" ")
    }

    #[test]
    fn one_useradd_says_it_all() {
        assert_eq!(
            told(&recipe()),
            "--uid 1005 --home-dir /home/ann --password * --groups bastio-managed \
             --create-home --user-group -- ann"
        );
        let full = Recipe {
            primary: Some("staff".into()),
            groups: vec![MANAGED_GROUP.to_owned(), "sudo".into(), "dev".into()],
            shell: Some("/bin/sh".into()),
            comment: Some("Ann A.".into()),
            skel: Some("/etc/skel.dev".into()),
            expiry_day: Some(20_000),
            ..recipe()
        };
        assert_eq!(
            told(&full),
            "--uid 1005 --home-dir /home/ann --password * --groups bastio-managed,sudo,dev \
             --gid staff --shell /bin/sh --comment Ann A. --skel /etc/skel.dev --expiredate 20000 \
             --create-home --no-user-group -- ann"
        );
        let kept = told(&Recipe { keep_home: true, ..full });
        assert!(kept.contains("--no-create-home") && !kept.contains("--skel"), "{kept}");
    }

    #[test]
    fn an_end_is_never_taken_for_the_lock() {
        for (expires, day) in
            [(i64::MIN, 2), (0, 2), (1, 2), (DAY, 2), (DAY + 1, 2), (2 * DAY, 2), (2 * DAY + 1, 3)]
        {
            assert_eq!(expiry_day(expires), day, "{expires}");
        }
    }

    #[test]
    fn folders_that_others_can_change_hold_no_homes() {
        let error = |path| check_roots_own(Path::new(path), "x").unwrap_err().to_string();
        assert!(error("/tmp").contains("root alone"), "{}", error("/tmp"));
        assert!(error("/proc/self/cwd").contains("symbolic link"));
        assert!(error("/nowhere/at/all").contains("No such file"));
        check_roots_own(Path::new("/usr/bin"), "x").unwrap();
    }

    #[test]
    fn only_programs_are_shells() {
        let check = |path| check_shell(&AbsolutePath::parse(path).unwrap());
        check("/bin/sh").unwrap();
        for path in ["/etc/passwd", "/bin", "/bin/sh/x", "/nowhere"] {
            assert!(check(path).unwrap_err().to_string().contains("no program"), "{path}");
        }
    }

    #[test]
    fn groups_that_are_not_there_or_not_to_be_given_are_named() {
        let all = Databases::default();
        let error = |group| check_group(&all, group).unwrap_err().to_string();
        assert!(error("dev").contains("no local group dev"));
        assert!(error(MANAGED_GROUP).contains(MANAGED_GROUP));
    }
}
