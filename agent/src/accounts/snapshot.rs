//! The local account databases read at once: passwd(5), group(5), shadow(5), and the range of people's ids in
//! login.defs(5).
//!
//! One look serves any number of accounts. Parsing is pure and apart from reading. This file must not know accounts'
//! rules, nor sources behind NSS.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bastio_protocol::Username;

use super::create::NO_PASSWORD;
use super::databases::{self, CLOSED_DAY};
use super::{AccountsError, MANAGED_GROUP};
use crate::reconcile::host::DAY;

/// The files, in the order in which they are read.
const FILES: [&str; 4] = ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/login.defs"];
mod found;

pub use found::is_login_shell;

/// The groups that give sudo (Debian's, everyone else's), in the order in which they are looked for.
pub const SUDO_GROUPS: [&str; 2] = ["sudo", "wheel"];
/// A file changed so shortly before it was read may change again without a new time stamp.
const TICK: Duration = Duration::from_millis(100);

/// Whether a group is bastio's own business: its mark, or a group for sudo. Where a host has both, either may give
/// rights.
#[must_use]
pub fn is_own_group(group: &str) -> bool {
    group == MANAGED_GROUP || SUDO_GROUPS.contains(&group)
}

/// The local databases as they were at one moment.
#[derive(Debug, Default, Clone)]
pub struct Databases {
    passwd: BTreeMap<String, Passwd>,
    groups: BTreeMap<String, Group>,
    /// Supplementary groups by login name.
    memberships: BTreeMap<String, BTreeSet<String>>,
    shadow: BTreeMap<String, Shadow>,
    uids: databases::UidRange,
    stamps: Option<Stamps>,
}

/// One line of passwd(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Passwd {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) comment: String,
    pub(super) home: PathBuf,
    pub(super) shell: String,
}

/// One line of group(5).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    gid: u32,
    members: BTreeSet<String>,
}

/// What is of interest in a line of shadow(5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Shadow {
    /// The password field begins with `!`.
    password_locked: bool,
    /// And behind that stands what bastio gives accounts as a password.
    barred: bool,
    /// The day of expiry, since the Unix epoch.
    expires: Option<i64>,
}

/// What tells that the files are still those that were read.
type Stamps = [Option<(u64, u64, u64, i64, i64)>; FILES.len()];

impl Databases {
    /// Reads all of them.
    ///
    /// # Errors
    /// [`AccountsError::LookUp`].
    pub fn read() -> Result<Self, AccountsError> {
        let began = SystemTime::now();
        let stamps = stamps();
        let [passwd, group, shadow, defs] = FILES;
        let mut read = Self::parse(
            &databases::read_or_empty(passwd)?,
            &databases::read_or_empty(group)?,
            &databases::read_or_empty(shadow)?,
        );
        read.uids = databases::UidRange::parse(&databases::read_or_empty(defs)?);
        read.stamps = Some(stamps).filter(|stamps| are_settled(stamps, began));
        Ok(read)
    }

    /// Whether the files are certainly those that were read.
    pub(super) fn is_current(&self) -> bool {
        self.stamps.is_some_and(|read| read == stamps())
    }

    fn parse(passwd: &str, group: &str, shadow: &str) -> Self {
        let groups: BTreeMap<_, _> = lines(group).filter_map(parse_group).collect();
        let mut memberships: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, group) in &groups {
            for member in &group.members {
                memberships.entry(member.clone()).or_default().insert(name.clone());
            }
        }
        Self {
            passwd: first_of_each(lines(passwd).filter_map(parse_passwd)),
            groups,
            memberships,
            shadow: first_of_each(lines(shadow).filter_map(parse_shadow)),
            ..Self::default()
        }
    }

    /// The members of bastio's group that have an account, sorted.
    #[must_use]
    pub fn managed(&self) -> Vec<Username> {
        let names = self.passwd.keys().filter(|name| self.is_managed(name));
        names.filter_map(|name| Username::parse(name).ok()).collect()
    }

    /// Whether an account is a member of bastio's group.
    #[must_use]
    pub fn is_managed(&self, name: &str) -> bool {
        let Some(group) = self.groups.get(MANAGED_GROUP) else { return false };
        let primary = self.passwd.get(name).is_some_and(|account| account.gid == group.gid);
        primary || group.members.contains(name)
    }

    /// The group of this host for sudo.
    #[must_use]
    pub fn sudo_group(&self) -> Option<&'static str> {
        SUDO_GROUPS.into_iter().find(|name| self.groups.contains_key(*name))
    }

    /// The groups for sudo of which the account is listed as a member, also those that are not the one of this host.
    pub fn sudo_groups_of(&self, name: &str) -> impl Iterator<Item = &'static str> {
        SUDO_GROUPS.into_iter().filter(move |group| self.is_member(name, group))
    }

    /// Whether there is a local group of that name.
    #[must_use]
    pub fn has_group(&self, name: &str) -> bool {
        self.groups.contains_key(name)
    }

    /// The login name with that numeric id.
    #[must_use]
    pub fn holder_of(&self, uid: u32) -> Option<&str> {
        self.passwd.iter().find_map(|(name, found)| (found.uid == uid).then_some(name.as_str()))
    }

    /// Whether the numeric id is one of the system's.
    #[must_use]
    pub fn is_system(&self, uid: u32) -> bool {
        uid < self.uids.min
    }

    /// Whether bastio's lock is on the account: it expired on the day that we set, and on no other.
    #[must_use]
    pub fn is_locked(&self, name: &str) -> bool {
        self.shadow.get(name).is_some_and(|found| found.expires == Some(CLOSED_DAY))
    }

    /// Whether somebody else locked the password (`passwd -l`). It says nothing of keys.
    #[must_use]
    pub fn is_password_locked(&self, name: &str) -> bool {
        self.shadow.get(name).is_some_and(|found| found.password_locked)
    }

    /// Whether somebody else locked an account without password (`usermod -L` where bastio has given `*`).
    #[must_use]
    pub fn is_barred(&self, name: &str) -> bool {
        self.shadow.get(name).is_some_and(|found| found.barred)
    }

    /// From when the account lets nobody in, in seconds since the Unix epoch; none when never, and when locked by us.
    #[must_use]
    pub fn expires(&self, name: &str) -> Option<i64> {
        let day = self.shadow.get(name)?.expires.filter(|day| *day != CLOSED_DAY)?;
        Some(day.saturating_mul(DAY))
    }

    /// The supplementary groups that are not bastio's own business.
    #[must_use]
    pub fn supplementary(&self, name: &str) -> BTreeSet<String> {
        let mut groups = self.memberships.get(name).cloned().unwrap_or_default();
        groups.retain(|group| !is_own_group(group));
        groups
    }

    /// Whether the account is listed as a member of the group.
    #[must_use]
    pub fn is_member(&self, name: &str, group: &str) -> bool {
        self.memberships.get(name).is_some_and(|groups| groups.contains(group))
    }

    pub(super) fn account(&self, name: &str) -> Option<&Passwd> {
        self.passwd.get(name)
    }

    pub(super) fn group_name(&self, gid: u32) -> Option<&str> {
        self.groups.iter().find_map(|(name, group)| (group.gid == gid).then_some(name.as_str()))
    }

    /// Ids for people that are free here, the best first: behind the highest in use as useradd(8) has it, then
    /// whatever gap there is. `avoided` are never among them.
    pub(super) fn free_uids<'a>(
        &'a self,
        avoided: &'a BTreeSet<u32>,
    ) -> impl Iterator<Item = u32> + 'a {
        let databases::UidRange { min, max } = self.uids;
        let taken: BTreeSet<u32> = self.passwd.values().map(|account| account.uid).collect();
        let in_range = taken.iter().chain(avoided).filter(|uid| (min..=max).contains(*uid));
        let next = in_range.max().map_or(min, |highest| highest.saturating_add(1));
        (next..=max)
            .chain(min..next.min(max.saturating_add(1)))
            .filter(move |uid| !taken.contains(uid) && !avoided.contains(uid))
    }
}

fn stamps() -> Stamps {
    FILES.map(|path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
    })
}

/// Whether each file changed longer ago than a tick of its clock.
fn are_settled(stamps: &Stamps, now: SystemTime) -> bool {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    stamps.iter().flatten().all(|(_, _, _, seconds, nanoseconds)| {
        let seconds = u64::try_from(*seconds).unwrap_or(0);
        let changed = Duration::new(seconds, u32::try_from(*nanoseconds).unwrap_or(0));
        now.checked_sub(changed).is_some_and(|age| age >= TICK)
    })
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    // `+` and `-` are NIS's, which nothing reads any more where files are followed by NSS.
    let is_entry = |line: &&str| !line.is_empty() && !line.starts_with(['#', '+', '-']);
    text.lines().filter(is_entry).map(|line| line.split(':').collect())
}

/// As the C library reads them: of two lines with one name the first counts.
fn first_of_each<T>(entries: impl Iterator<Item = (String, T)>) -> BTreeMap<String, T> {
    let mut kept = BTreeMap::new();
    for (name, entry) in entries {
        kept.entry(name).or_insert(entry);
    }
    kept
}

fn parse_passwd(fields: Vec<&str>) -> Option<(String, Passwd)> {
    let [name, _, uid, gid, comment, home, shell, ..] = fields.as_slice() else { return None };
    let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
    let (comment, home, shell) = ((*comment).to_owned(), PathBuf::from(home), (*shell).to_owned());
    Some(((*name).to_owned(), Passwd { uid, gid, comment, home, shell }))
}

fn parse_group(fields: Vec<&str>) -> Option<(String, Group)> {
    let [name, _, gid, members, ..] = fields.as_slice() else { return None };
    let members = members.split(',').map(str::trim).filter(|member| !member.is_empty());
    let members = members.map(str::to_owned).collect();
    Some(((*name).to_owned(), Group { gid: gid.parse().ok()?, members }))
}

fn parse_shadow(fields: Vec<&str>) -> Option<(String, Shadow)> {
    let [name, password, _, _, _, _, _, expires, ..] = fields.as_slice() else { return None };
    // shadow(5): empty is never, and so are the negative numbers that some tools write.
    let expires = expires.trim().parse().ok().filter(|day| *day >= 0);
    let password_locked = password.starts_with('!');
    let barred = password_locked && password.trim_start_matches('!') == NO_PASSWORD;
    Some(((*name).to_owned(), Shadow { password_locked, barred, expires }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        ann:x:1000:1000:Ann A.,,,:/home/ann:/bin/bash\n\
        ann:x:0:0::/root:/bin/sh\n\
        bob:x:1002:50::/srv/bob:\n\
        odd:x:many:1::/:/bin/sh\n\
        +nis::::::\n\
        Upper:x:1003:1003::/home/Upper:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:ann\nstaff:x:50:ann, bob,\nann:x:1000:\n\
        wheel:x:99:ann\nbastio-managed:x:998:ann,gone,bob,Upper\ntorn:x\n";
    const SHADOW: &str = "root:!*:1:0:99999:7:::\nann:*:1:0:99999:7::1:\nbob:*:1:0:99999:7::20000:\n\
        Upper:*:1:0:99999:7::-1:\ntorn:*\n";

    fn databases() -> Databases {
        let mut databases = Databases::parse(PASSWD, GROUP, SHADOW);
        databases.uids = databases::UidRange { min: 1000, max: 1004 };
        databases
    }

    #[test]
    fn an_account_is_put_together_from_all_files() {
        let all = databases();
        let ann = all.account("ann").unwrap();
        assert_eq!((ann.uid, ann.gid, ann.comment.as_str()), (1000, 1000, "Ann A.,,,"));
        assert_eq!((all.group_name(ann.gid), all.group_name(77)), (Some("ann"), None));
        // wheel may give rights also where sudo is the group for sudo.
        assert_eq!(all.supplementary("ann"), BTreeSet::from(["staff".to_owned()]));
        assert_eq!(all.sudo_groups_of("ann").collect::<Vec<_>>(), ["sudo", "wheel"]);
        assert_eq!(all.sudo_groups_of("bob").count(), 0);
        assert_eq!(all.supplementary("nobody"), BTreeSet::new());
        assert_eq!(all.sudo_group(), Some("sudo"));
        assert!(all.is_member("ann", "sudo") && !all.is_member("bob", "sudo"));
        assert!(["sudo", "wheel", MANAGED_GROUP].into_iter().all(is_own_group));
        assert!(!is_own_group("staff"));
        assert_eq!((all.account("odd"), all.account("+nis")), (None, None));
    }

    #[test]
    fn the_managed_are_those_with_an_account_and_a_name_of_ours() {
        let names: Vec<_> = databases().managed().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["ann", "bob"]);
        let by_primary = PASSWD.replace(":1002:50:", ":1002:998:");
        let all = Databases::parse(&by_primary, "bastio-managed:x:998:\n", "");
        assert!(all.is_managed("bob") && !all.is_managed("ann"));
        assert!(Databases::parse(PASSWD, "", "").managed().is_empty());
    }

    #[test]
    fn our_lock_is_no_end_and_an_end_is_no_lock() {
        let all = databases();
        assert_eq!((all.is_locked("ann"), all.expires("ann")), (true, None));
        assert_eq!((all.is_locked("bob"), all.expires("bob")), (false, Some(20_000 * DAY)));
        assert_eq!((all.is_locked("Upper"), all.expires("Upper")), (false, None));
        assert_eq!((all.is_locked("torn"), all.expires("torn")), (false, None));
        assert!(all.is_password_locked("root") && !all.is_password_locked("bob"));
        let shadow =
            "ann:!*:1::::::\nbob:!!*:1::::::\nUpper:!:1::::::\nroot:!$y$x:1::::::\nodd:*:1::::::\n";
        let all = Databases::parse(PASSWD, GROUP, shadow);
        let barred = ["ann", "bob", "Upper", "root", "odd"].map(|name| all.is_barred(name));
        assert_eq!(barred, [true, true, false, false, false]);
    }

    #[test]
    fn a_new_id_is_behind_all_and_never_an_avoided_one() {
        let all = databases();
        let free =
            |avoided: &[u32]| all.free_uids(&avoided.iter().copied().collect()).collect::<Vec<_>>();
        assert_eq!(free(&[]), [1004, 1001]);
        assert_eq!(free(&[1004]), [1001]);
        assert_eq!(free(&[1001, 5000]), [1004]);
        assert_eq!(free(&[1001, 1004]), [0; 0]);
        assert_eq!(all.holder_of(1002), Some("bob"));
        assert_eq!(all.holder_of(1001), None);
        assert!(all.is_system(999) && !all.is_system(1000));
    }

    proptest! {
        /// Whatever stands in the files, and wherever they are torn.
        #[test]
        fn torn_files_are_read_as_far_as_they_make_sense(
            passwd in "([a-z+#]{0,3}(:[a-z0-9,/-]{0,5}){0,7}\n){0,6}",
            group in "([a-z]{0,3}(:[a-z0-9, ]{0,5}){0,4}\n){0,6}",
            shadow in "([a-z]{0,3}(:[0-9!*-]{0,20}){0,9}\n){0,6}",
        ) {
            let all = Databases::parse(&passwd, &group, &shadow);
            for name in all.passwd.keys() {
                let begin = format!("{name}:");
                prop_assert!(passwd.lines().any(|line| line.starts_with(&begin)));
                prop_assert!(!(all.is_locked(name) && all.expires(name).is_some()));
                for group in all.supplementary(name) {
                    prop_assert!(all.has_group(&group) && all.is_member(name, &group));
                }
            }
        }
    }

    #[test]
    fn files_that_changed_a_moment_ago_are_not_trusted_to_stay() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let changed =
            |seconds, nanoseconds| [Some((1, 2, 3, seconds, nanoseconds)), None, None, None];
        assert!(are_settled(&changed(99, 0), now));
        assert!(!are_settled(&changed(99, 950_000_000), now));
        assert!(!are_settled(&changed(101, 0), now));
    }
}
