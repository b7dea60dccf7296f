//! Who can become root where, now or at a time to come, and what of that an edit adds.
//!
//! Pure. Whatever cannot be told to be as much as before counts as more. This room must not know who
//! must agree to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

use bastio_protocol::api::utc;
use bastio_protocol::{
    AccountSpec, GroupName, KeyOptions, Sudo, SudoPolicy, Username, is_root_equivalent,
};

use super::{Entitlement, Host, Rights};

/// A grant as the plan sees it, also one that begins later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lasting {
    /// From when on, in seconds since the Unix epoch.
    pub from: Option<i64>,
    /// What it gives.
    pub grant: Entitlement,
}

/// What tells beside the grants who can become root.
#[derive(Debug, Clone)]
pub struct Beside<Id: Ord> {
    /// Accounts that were on their servers before, with whatever they have.
    pub adopted: BTreeSet<(Id, Username)>,
    /// A site's own groups whose members can become root.
    pub groups: Arc<BTreeSet<GroupName>>,
}

/// Shells that let nobody in.
const NO_SHELLS: [&str; 5] =
    ["/bin/false", "/sbin/nologin", "/usr/bin/false", "/usr/bin/nologin", "/usr/sbin/nologin"];

/// Something that makes an account root, or lets somebody in to one that is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Sudo,
    /// An account that was there, with whatever it has.
    TakenOver,
    /// A policy: its JSON, so that another content is another way.
    Policy(String),
    Group(String),
    /// A home where others have theirs not, or one that begins with files of another folder than
    /// /etc/skel: both can be root's own.
    Home(String),
    /// Files that come from there.
    Skel(String),
    /// A key, by fingerprint, and the options in front of it.
    Key(String, String),
    /// A shell: without one, keys and rights are of no use.
    Shell(String),
}

/// From when until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    from: i64,
    until: i64,
}

/// Who can become root, on servers by their number.
#[derive(Debug, Clone, Default)]
pub struct Roots<Id: Ord>(BTreeMap<(Id, Username), BTreeMap<Way, Vec<Window>>>);

impl Window {
    fn covers(self, other: Self) -> bool {
        self.from <= other.from && other.until <= self.until
    }
}

impl Way {
    /// Whether who has this has the other, too.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sudo, Self::Policy(_)) => true,
            (Self::Key(key, options), Self::Key(other, _)) => key == other && options.is_empty(),
            _ => false,
        }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Sudo => "sudo".to_owned(),
            Self::TakenOver => "an account that is there, with whatever it may do".to_owned(),
            Self::Policy(policy) => format!("sudo by a policy: {policy}"),
            Self::Group(group) => format!("the group {group}"),
            Self::Home(folder) => format!("the home {folder}"),
            Self::Skel(folder) => format!("files from {folder}"),
            Self::Key(key, options) if options.is_empty() => format!("the key {key}"),
            Self::Key(key, options) => format!("the key {key} with {options}"),
            Self::Shell(shell) => format!("the shell {shell}"),
        }
    }
}

/// Whether members of that group can become root; `own` are a site's own.
fn makes_root(group: &GroupName, own: &BTreeSet<GroupName>) -> bool {
    is_root_equivalent(group.as_str()) || own.contains(group)
}

/// What makes root by the old fields, and is not named any more by the new ones: agents leave what is
/// not named as it is, so the account keeps it. Supplementary groups are taken, see [`super::retract`].
#[must_use]
pub fn left_behind(
    old: &AccountSpec,
    new: &AccountSpec,
    own: &BTreeSet<GroupName>,
) -> Option<String> {
    let primary = old.group.iter().filter(|_| new.group.is_none());
    let mut groups = primary.filter(|group| makes_root(group, own));
    let home = old.home.iter().filter(|home| new.home.is_none() && is_strange(home.as_str()));
    let group = groups.next().map(|group| format!("the group {group}"));
    group.or_else(|| home.map(|home| format!("the home {home}")).next())
}

/// Whether a home is where others have theirs not.
fn is_strange(home: &str) -> bool {
    !home.starts_with("/home/")
}

/// Everything of these grants that makes root on these servers. What has begun counts from `now` on.
#[must_use]
pub fn roots<Id: Ord + Copy>(
    model: &[Lasting],
    hosts: &BTreeMap<Id, Host>,
    beside: &Beside<Id>,
    now: i64,
) -> Roots<Id> {
    let mut all = Roots(BTreeMap::new());
    let free: Vec<&Lasting> = model.iter().filter(|one| !one.grant.rights.locked).collect();
    for (id, host) in hosts {
        let mut of = BTreeMap::<&Username, Vec<&Lasting>>::new();
        for one in free.iter().filter(|one| one.grant.on.includes(&host.name, &host.labels)) {
            of.entry(&one.grant.login).or_default().push(one);
        }
        for (login, grants) in of {
            let account = (*id, login.clone());
            let is_adopted = beside.adopted.contains(&account);
            let ways = of_account(&grants, is_adopted, &beside.groups, now);
            if !ways.is_empty() {
                all.0.insert(account, ways);
            }
        }
    }
    all
}

/// The ways of one account; none when nothing makes it root.
fn of_account(
    grants: &[&Lasting],
    is_adopted: bool,
    own: &BTreeSet<GroupName>,
    now: i64,
) -> BTreeMap<Way, Vec<Window>> {
    let mut ways = BTreeMap::<Way, Vec<Window>>::new();
    for one in grants {
        let rights = &one.grant.rights;
        let taken_over = (is_adopted || rights.take_over).then_some(Way::TakenOver);
        for way in ways_to_root(rights, own).into_iter().chain(taken_over) {
            ways.entry(way).or_default().push(window(one, None, now));
        }
    }
    if ways.is_empty() {
        return ways;
    }
    // Whoever gets in by another grant of the same login is root there, too.
    for one in grants {
        for key in &one.grant.rights.keys {
            let options = options(&one.grant.rights.key_options, &key.options);
            let way = Way::Key(key.public_key.fingerprint(), options);
            ways.entry(way).or_default().push(window(one, key.until, now));
        }
        let shell = one.grant.rights.spec.shell.iter().map(ToString::to_string);
        for shell in shell.filter(|shell| !NO_SHELLS.contains(&shell.as_str())) {
            ways.entry(Way::Shell(shell)).or_default().push(window(one, None, now));
        }
    }
    ways
}

fn ways_to_root(rights: &Rights, own: &BTreeSet<GroupName>) -> Vec<Way> {
    let mut ways = match &rights.sudo {
        Sudo::None => Vec::new(),
        Sudo::Plain => vec![Way::Sudo],
        Sudo::Policy(policy) => vec![Way::Policy(policy_text(policy))],
    };
    let groups = rights.spec.group.iter().chain(rights.spec.groups.iter().flatten());
    let groups = groups.filter(|group| makes_root(group, own));
    ways.extend(groups.map(|group| Way::Group(group.to_string())));
    let home = rights.spec.home.iter().filter(|home| is_strange(home.as_str()));
    let skel = rights.spec.skel.iter().filter(|skel| skel.as_str() != "/etc/skel");
    ways.extend(home.map(|folder| Way::Home(folder.to_string())));
    ways.extend(skel.map(|folder| Way::Skel(folder.to_string())));
    ways
}

fn policy_text(policy: &SudoPolicy) -> String {
    serde_json::to_string(policy).expect("a policy always serialises")
}

fn options(of_grant: &KeyOptions, of_key: &KeyOptions) -> String {
    let texts = [of_grant.as_str(), of_key.as_str()];
    texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(",")
}

fn window(one: &Lasting, also_until: Option<i64>, now: i64) -> Window {
    let end = |until: Option<i64>| until.unwrap_or(i64::MAX);
    let until = end(one.grant.rights.until).min(end(also_until));
    Window { from: one.from.unwrap_or(now).max(now), until }
}

/// What is there after an edit and was not before, in words that name all of it: one text for each
/// account, server and way. Servers are named with their number, which no other ever has: names change.
#[must_use]
pub fn gained<Id: Ord + Copy + Display>(
    before: &Roots<Id>,
    after: &Roots<Id>,
    hosts: &BTreeMap<Id, Host>,
    now: i64,
) -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    for ((id, login), ways) in &after.0 {
        let known = before.0.get(&(*id, login.clone()));
        let known: Vec<(&Way, Window)> = known
            .into_iter()
            .flatten()
            .flat_map(|(way, windows)| windows.iter().map(move |window| (way, *window)))
            .collect();
        let Some(host) = hosts.get(id) else { continue };
        for (way, window) in ways.iter().flat_map(|(way, all)| all.iter().map(move |w| (way, *w))) {
            let had = |(old, span): &(&Way, Window)| {
                (*old == way || old.covers(way)) && span.covers(window)
            };
            if !known.iter().any(had) {
                let times = in_words(window, now);
                let (host, way) = (&host.name, way.in_words());
                texts.insert(format!("{login} on {host} (#{id}): {way}{times}"));
            }
        }
    }
    texts
}

fn in_words(window: Window, now: i64) -> String {
    let mut words = String::new();
    if window.from > now {
        words.push_str(&format!(" from {} UTC", utc(window.from)));
    }
    if window.until < i64::MAX {
        words.push_str(&format!(" until {} UTC", utc(window.until)));
    }
    words
}

#[cfg(test)]
mod tests {
    use bastio_protocol::api::Labels;
    use bastio_protocol::{GroupName, KeyGrant, Target};

    use super::*;
    use crate::testing::{host, key, login};

    const NOW: i64 = 1000;

    fn hosts() -> BTreeMap<u8, Host> {
        let one = |name: &str| Host { name: host(name), labels: Labels::new() };
        BTreeMap::from([(1, one("web-1")), (2, one("web-2"))])
    }

    fn lasting(name: &str, on: &str, change: impl FnOnce(&mut Rights)) -> Lasting {
        let keys = vec![KeyGrant::plain(key(1))];
        let mut rights = Rights { keys, ..Rights::default() };
        change(&mut rights);
        let on: Target = on.parse().expect("servers");
        Lasting { from: None, grant: Entitlement { on, login: login(name), rights } }
    }

    fn sudo(name: &str, on: &str) -> Lasting {
        lasting(name, on, |rights| rights.sudo = Sudo::Plain)
    }

    /// On web-2, the account old was there before; sysops is a group of the site's own.
    fn beside() -> Beside<u8> {
        let groups = BTreeSet::from([GroupName::parse("sysops").expect("a group")]);
        Beside { adopted: BTreeSet::from([(2, login("old"))]), groups: groups.into() }
    }

    fn gains(before: &[Lasting], after: &[Lasting]) -> Vec<String> {
        let (hosts, beside) = (hosts(), beside());
        let of = |model| roots(model, &hosts, &beside, NOW);
        let (before, after) = (of(before), of(after));
        gained(&before, &after, &hosts, NOW).into_iter().collect()
    }

    #[test]
    fn each_way_to_root_is_named_for_each_server() {
        assert_eq!(gains(&[], &[lasting("alice", "*", |_| {})]), [""; 0]);
        let found = gains(&[], &[sudo("alice", "*")]);
        let key = key(1).fingerprint();
        let expected = ["web-1 (#1)", "web-2 (#2)"].map(|server| {
            [format!("alice on {server}: sudo"), format!("alice on {server}: the key {key}")]
        });
        assert_eq!(found, expected.concat());
        for group in ["docker", "lxd", "disk", "adm", "wheel", "microk8s", "sysops"] {
            let member = lasting("alice", "web-1", |rights| {
                rights.spec.groups = Some([GroupName::parse(group).expect("a group")].into());
            });
            let found = gains(&[], &[member]);
            assert_eq!(found.first(), Some(&format!("alice on web-1 (#1): the group {group}")));
            let primary = lasting("alice", "web-1", |rights| {
                rights.spec.group = Some(GroupName::parse(group).expect("a group"));
            });
            assert_eq!(gains(&[], &[primary]), found);
        }
    }

    #[test]
    fn what_is_not_named_any_more_is_left_behind() {
        let spec = |group: Option<&str>, groups: Option<&[&str]>, home: Option<&str>| {
            let parse = |name: &str| GroupName::parse(name).expect("a group");
            AccountSpec {
                group: group.map(parse),
                groups: groups.map(|groups| groups.iter().map(|name| parse(name)).collect()),
                home: home.map(|home| home.to_owned().try_into().expect("a path")),
                ..AccountSpec::default()
            }
        };
        let none = || spec(None, None, None);
        for (old, new, left) in [
            (none(), none(), None),
            (spec(None, Some(&["docker"]), None), none(), None),
            (spec(Some("disk"), None, None), none(), Some("the group disk")),
            (spec(Some("sysops"), None, None), none(), Some("the group sysops")),
            (spec(Some("audio"), None, None), none(), None),
            (spec(Some("disk"), None, None), spec(Some("users"), None, None), None),
            (spec(None, None, Some("/root")), none(), Some("the home /root")),
            (spec(None, None, Some("/home/a")), none(), None),
        ] {
            let found = left_behind(&old, &new, &beside().groups);
            assert_eq!(found.as_deref(), left, "{old:?}");
        }
    }

    #[test]
    fn files_of_roots_are_a_way_too() {
        let with = |home: Option<&str>, skel: Option<&str>| {
            let folder = |text: &str| text.to_owned().try_into().expect("a path");
            lasting("alice", "web-1", |rights| {
                rights.spec.home = home.map(folder);
                rights.spec.skel = skel.map(folder);
            })
        };
        let count = |grant| gains(&[], &[grant]).len();
        assert_eq!(count(with(Some("/home/a"), Some("/etc/skel"))), 0);
        assert_eq!(count(with(Some("/root"), None)), 2);
        assert_eq!(count(with(None, Some("/root"))), 2);
        let (skel, both) = (with(None, Some("/srv/x")), with(Some("/srv/x"), Some("/srv/x")));
        assert_eq!(gains(&[skel], &[both]).len(), 1, "its home is another way than what is copied");
    }

    #[test]
    fn what_was_there_is_no_gain_and_what_is_more_of_it_is() {
        let until = |until| {
            lasting("alice", "web-1", move |rights| {
                rights.sudo = Sudo::Plain;
                rights.until = until;
            })
        };
        let from = |from| Lasting { from, ..sudo("alice", "web-1") };
        let with = |keys: &[u8]| {
            let keys: Vec<KeyGrant> = keys.iter().map(|n| KeyGrant::plain(key(*n))).collect();
            lasting("alice", "web-1", move |rights| {
                rights.sudo = Sudo::Plain;
                rights.keys = keys;
            })
        };
        let other_key = lasting("alice", "web-1", |rights| {
            rights.keys = vec![KeyGrant::plain(key(2))];
        });
        let limited = lasting("alice", "web-1", |rights| {
            rights.sudo = Sudo::Plain;
            rights.key_options = KeyOptions::parse("restrict").expect("options");
        });
        let locked = lasting("alice", "web-1", |rights| {
            rights.sudo = Sudo::Plain;
            rights.locked = true;
        });
        let shell = |shell: &str| {
            let shell = shell.to_owned().try_into().expect("a path");
            lasting("alice", "web-1", move |rights| {
                rights.sudo = Sudo::Plain;
                rights.spec.shell = Some(shell);
            })
        };
        let plain = || vec![sudo("alice", "web-1")];
        let nologin = || vec![shell("/usr/sbin/nologin")];
        for (what, before, after, count) in [
            ("the same", plain(), plain(), 0),
            ("another server", plain(), vec![sudo("alice", "*")], 2),
            ("less", vec![sudo("alice", "*")], plain(), 0),
            ("an end", plain(), vec![until(Some(2000))], 0),
            ("a later end", vec![until(Some(2000))], vec![until(Some(3000))], 2),
            ("no end", vec![until(Some(2000))], vec![until(None)], 2),
            ("a begin to come", vec![], vec![from(Some(5000))], 2),
            ("an earlier begin", vec![from(Some(5000))], vec![from(Some(4000))], 2),
            ("a begin that is over", vec![from(Some(10))], plain(), 0),
            ("one more key", plain(), vec![with(&[1, 2])], 1),
            ("a key by a grant without sudo", plain(), vec![sudo("alice", "web-1"), other_key], 1),
            ("fewer options", vec![limited.clone()], plain(), 1),
            ("more options", plain(), vec![limited], 0),
            ("a shell", nologin(), vec![shell("/bin/bash")], 1),
            ("no shell", vec![shell("/bin/bash")], nologin(), 0),
            ("the shell of the host", nologin(), plain(), 0),
            ("an account that was there", vec![], vec![lasting("old", "*", |_| {})], 2),
            ("unlocked", vec![locked.clone()], plain(), 2),
            ("locked", plain(), vec![locked], 0),
        ] {
            assert_eq!(gains(&before, &after).len(), count, "{what}");
        }
    }

    #[test]
    fn a_policy_is_less_than_sudo_and_another_content_is_another_policy() {
        let by = |command: &str| {
            let policy = SudoPolicy {
                commands: vec![command.parse().expect("a command")],
                run_as: Vec::new(),
                password: false,
                not_before: None,
                not_after: None,
            };
            lasting("alice", "web-1", |rights| rights.sudo = Sudo::Policy(Box::new(policy)))
        };
        let (one, two) = (by("/bin/one"), by("/bin/two"));
        assert_eq!(gains(&[], std::slice::from_ref(&one)).len(), 2);
        assert_eq!(gains(&[sudo("alice", "web-1")], std::slice::from_ref(&one)).len(), 0);
        let found = gains(std::slice::from_ref(&one), std::slice::from_ref(&two));
        assert!(found.len() == 1 && found.concat().contains("/bin/two"), "{found:?}");
        assert_eq!(gains(&[one], &[sudo("alice", "web-1")]), ["alice on web-1 (#1): sudo"]);
    }
}
