//! What is read from the system's own text files, because no library call tells it: login.defs(5),
//! useradd's defaults, expiry in shadow(5), the homes in passwd(5), subuid(5), the mounts.
//!
//! Parsing is pure and apart from reading. This file must not know accounts' rules.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Uid;

use super::AccountsError;

/// `UID_MIN` where login.defs says nothing (login.defs(5)).
const DEFAULT_UID_MIN: u32 = 1000;
/// `UID_MAX` where login.defs says nothing (login.defs(5)).
const DEFAULT_UID_MAX: u32 = 60_000;
/// The folder of homes where useradd's defaults say nothing (useradd(8)).
const DEFAULT_BASE: &str = "/home";
/// The day on which a locked account expired: 2 January 1970.
pub(super) const CLOSED_DAY: i64 = 1;

/// The ids of people's accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UidRange {
    pub(super) min: u32,
    pub(super) max: u32,
}

impl Default for UidRange {
    fn default() -> Self {
        Self { min: DEFAULT_UID_MIN, max: DEFAULT_UID_MAX }
    }
}

impl UidRange {
    /// Reads login.defs(5).
    pub(super) fn parse(text: &str) -> Self {
        let min = parse_number(text, "UID_MIN").unwrap_or(DEFAULT_UID_MIN);
        Self { min, max: parse_number(text, "UID_MAX").unwrap_or(DEFAULT_UID_MAX) }
    }
}

/// The first id of people's accounts.
///
/// # Errors
/// [`AccountsError::LookUp`].
pub fn uid_min() -> Result<u32, AccountsError> {
    Ok(UidRange::parse(&read_or_empty("/etc/login.defs")?).min)
}

/// The folder in which useradd makes homes.
pub(super) fn home_base() -> Result<PathBuf, AccountsError> {
    let text = read_or_empty("/etc/default/useradd")?;
    Ok(PathBuf::from(parse_home_base(&text).unwrap_or(DEFAULT_BASE)))
}

/// The ids that the account may use in user namespaces (subuid(5)); never those of accounts.
pub(super) fn subordinate_uids(name: &str, uid: Uid) -> Result<Vec<Range<u32>>, AccountsError> {
    let passwd = read_or_empty("/etc/passwd")?;
    Ok(parse_subordinate(&read_or_empty("/etc/subuid")?, &passwd, name, uid))
}

/// Who may use the id in user namespaces.
pub(super) fn subordinate_holder(uid: u32) -> Result<Option<String>, AccountsError> {
    let text = read_or_empty("/etc/subuid")?;
    let holder = text.lines().find(|line| parse_range(line).is_some_and(|ids| ids.contains(&uid)));
    Ok(holder.and_then(|line| line.split(':').next()).map(str::to_owned))
}

/// Another account in passwd whose home is this folder or lies in it.
pub(super) fn other_account_in(home: &Path, name: &str) -> Result<Option<String>, AccountsError> {
    Ok(find_other(&read_or_empty("/etc/passwd")?, home, name))
}

/// A mount point that is this folder or lies in it.
pub(super) fn mount_in(folder: &Path) -> Result<Option<PathBuf>, AccountsError> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| look_up("/proc/self/mountinfo", &error))?;
    Ok(find_mount(&text, folder))
}

pub(super) fn read_or_empty(path: &str) -> Result<String, AccountsError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(look_up(path, &error)),
    }
}

/// A look-up that failed in reading a file.
pub(super) fn look_up(what: &str, error: &std::io::Error) -> AccountsError {
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    AccountsError::LookUp { what: what.to_owned(), errno }
}

fn parse_number(text: &str, key: &str) -> Option<u32> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix(key))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .find_map(|rest| rest.split_whitespace().next()?.parse().ok())
}

fn parse_home_base(text: &str) -> Option<&str> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("HOME="))
        .map(|value| value.trim().trim_matches('"').trim_end_matches('/'))
        .find(|value| value.starts_with('/'))
}

fn parse_subordinate(subuid: &str, passwd: &str, name: &str, uid: Uid) -> Vec<Range<u32>> {
    let accounts: Vec<u32> =
        passwd.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect();
    let uid = uid.to_string();
    let is_its = |line: &&str| line.split(':').next().is_some_and(|it| it == name || it == uid);
    let holds_accounts = |ids: &Range<u32>| accounts.iter().any(|uid| ids.contains(uid));
    let ranges = subuid.lines().filter(is_its).filter_map(parse_range);
    ranges.filter(|ids| !holds_accounts(ids)).collect()
}

/// The ids in a line of subuid(5).
fn parse_range(line: &str) -> Option<Range<u32>> {
    let mut fields = line.split(':').skip(1);
    let start: u32 = fields.next()?.trim().parse().ok()?;
    let count: u32 = fields.next()?.trim().parse().ok()?;
    Some(start..start.saturating_add(count))
}

fn find_other(passwd: &str, home: &Path, name: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let other = fields.next().filter(|other| *other != name && !other.starts_with('#'))?;
        let other_home = Path::new(fields.nth(4)?);
        other_home.starts_with(home).then(|| other.to_owned())
    })
}

fn find_mount(mountinfo: &str, folder: &Path) -> Option<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .find(|point| point.starts_with(folder))
}

/// proc(5) writes blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_range_of_ids_as_login_defs_writes_it() {
        for (text, expected) in [
            ("UID_MIN\t\t\t 1000\nUID_MAX 60000\n", Some(1000)),
            ("# UID_MIN 5\n  UID_MIN 500", Some(500)),
            ("UID_MINIMUM 5\nSYS_UID_MIN 101\n", None),
            ("UID_MIN many\n", None),
            ("", None),
        ] {
            assert_eq!(parse_number(text, "UID_MIN"), expected, "{text:?}");
        }
    }

    #[test]
    fn ids_have_a_range_also_where_nothing_is_said() {
        let range = UidRange::parse("UID_MIN 500\nUID_MAX\t700\nSYS_UID_MAX 499\n");
        assert_eq!(range, UidRange { min: 500, max: 700 });
        assert_eq!(UidRange::parse(""), UidRange { min: 1000, max: 60_000 });
    }

    #[test]
    fn reads_the_base_of_homes() {
        for (text, expected) in [
            ("SHELL=/bin/sh\nHOME=/srv/people/\n", Some("/srv/people")),
            ("HOME=\"/home\"\n", Some("/home")),
            ("# HOME=/nowhere\n", None),
            ("HOME=relative\n", None),
        ] {
            assert_eq!(parse_home_base(text), expected, "{text:?}");
        }
    }

    #[test]
    fn subordinate_ids_are_the_accounts_alone() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        let subuid = "ann:100000:65536\nanna:165536:65536\n1000:300000:1\nann:0:2000\nann:x\n";
        let found = parse_subordinate(subuid, passwd, "ann", Uid::from_raw(1000));
        assert_eq!(found, [100_000..165_536, 300_000..300_001]);
    }

    #[test]
    fn another_account_in_the_home_is_found() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1:1::/home/ann:/bin/sh\n\
                      bob:x:2:2::/home/annabel:/bin/sh\nsvc:x:3:3::/home/ann/svc:/bin/sh\n";
        assert_eq!(find_other(passwd, Path::new("/home/ann"), "ann").as_deref(), Some("svc"));
        assert_eq!(find_other(passwd, Path::new("/home/annabel"), "bob"), None);
        assert_eq!(find_other(passwd, Path::new("/root"), "ann").as_deref(), Some("root"));
    }

    #[test]
    fn a_mount_on_or_in_the_folder_is_found() {
        let mounts = "22 1 0:1 / / rw - ext4 /dev/a rw\n23 22 0:2 / /home rw - tmpfs t rw\n\
                      24 23 0:3 / /home/ann/my\\040disk rw - fuse f rw\n";
        let found = |folder| find_mount(mounts, Path::new(folder));
        assert_eq!(found("/home/ann"), Some(PathBuf::from("/home/ann/my disk")));
        assert_eq!(found("/home/ann/my disk"), Some(PathBuf::from("/home/ann/my disk")));
        assert_eq!(found("/home/bob"), None);
        assert_eq!(found("/home/an"), None);
    }
}
