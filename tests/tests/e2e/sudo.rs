//! Rules for sudo on a real server: what visudo lets pass, and what sudo makes of it over real logins.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bastio_agent::accounts::SystemAccounts;
use bastio_agent::reconcile::host::SudoHost;
use bastio_agent::sudoers::{PlainSudo, Sudoers, SudoersError};
use bastio_protocol::{Change, Sudo, SudoPolicy, Username};
use bastio_tests::{Host, HostBuilder, SshClient, SshKey, World, require_root};

mod broken;
mod windows;

/// Where alice's rule is.
const FILE: &str = "/etc/sudoers.d/bastio-alice";

/// A server with an account that logs in.
pub(crate) struct Place<'world> {
    pub(crate) host: Host,
    pub(crate) ssh: SshClient<'world>,
    name: &'static str,
}

impl<'world> Place<'world> {
    fn new(world: &'world World) -> Self {
        Self::with(world, world.host("web-1"), "alice")
    }

    pub(crate) fn with(world: &'world World, host: HostBuilder<'_>, name: &'static str) -> Self {
        let host = host.start().unwrap();
        let key = SshKey::generate(world, name, &["ed25519"]).unwrap();
        host.exec(&["useradd", "-m", "-U", "-p", "*", "-s", "/bin/bash", name]).unwrap();
        host.exec(&["install", "-d", "-o", name, "-m", "700", &format!("/home/{name}/.ssh")])
            .unwrap();
        host.write_file(format!("/home/{name}/.ssh/authorized_keys"), key.public()).unwrap();
        Self { host, ssh: SshClient::new(world, &key), name }
    }

    /// Gives these rights and no others, as the agent does it.
    fn set(&self, sudo: &Sudo, until: Option<i64>) -> Result<Change, String> {
        self.set_where(PlainSudo::Group, sudo, until)
    }

    fn set_where(
        &self,
        plain: PlainSudo,
        sudo: &Sudo,
        until: Option<i64>,
    ) -> Result<Change, String> {
        let name = Username::parse(self.name).unwrap();
        let set = || {
            let accounts = SystemAccounts::default().with_plain_sudo(plain);
            let intended = accounts.intended_sudo(&name, sudo, until);
            let set = accounts.set_sudo(&name, sudo, until).map_err(|error| error.to_string())?;
            // What was done is what was announced, and the same again is nothing.
            let account =
                bastio_agent::accounts::Accounts::find(&accounts, &name).unwrap().unwrap();
            assert_eq!(accounts.sudo(&account).unwrap(), intended.unwrap());
            assert_eq!(accounts.set_sudo(&name, sudo, until).unwrap(), Change::Unchanged);
            Ok(set)
        };
        self.host.within(set).unwrap()
    }

    fn set_policy(&self, json: &str) -> Result<Change, String> {
        self.set(&policy(json), None)
    }

    /// What `sudo -n` does with this over a real login: what it printed, or `None` when refused.
    fn sudo(&self, command: &str) -> Option<String> {
        let remote = format!("sudo -n {command}");
        let done = self.ssh.run(self.name, self.host.ip(), &remote).unwrap();
        let refused = done.stderr.contains("a password is required")
            || done.stderr.contains("not allowed to execute")
            || done.stderr.contains("may not run sudo");
        assert!(done.success() || refused, "{done:?}");
        done.success().then(|| done.stdout.trim().to_owned())
    }

    /// What the folder of rules holds.
    fn files(&self) -> String {
        self.host.exec(&["ls", "-A", "/etc/sudoers.d"]).unwrap().stdout
    }
}

fn policy(json: &str) -> Sudo {
    Sudo::Policy(Box::new(serde_json::from_str::<SudoPolicy>(json).unwrap()))
}

/// Seconds since the Unix epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

#[test]
fn a_rule_with_one_command_allows_exactly_that() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    assert_eq!(place.sudo("/usr/bin/id -u"), None);
    assert_eq!(place.set_policy(r#"{"commands":["/usr/bin/id -u"]}"#), Ok(Change::Changed));
    assert_eq!(place.sudo("/usr/bin/id -u").as_deref(), Some("0"));
    assert_eq!(place.sudo("-u bin /usr/bin/id -u").as_deref(), Some("2"));
    assert_eq!(place.sudo("/usr/bin/id -g"), None);
    assert_eq!(place.sudo("/usr/bin/id"), None);
    assert_eq!(place.sudo("/bin/sh -c id"), None);
    let found = place.host.within(|| std::fs::symlink_metadata(FILE)).unwrap().unwrap();
    assert_eq!((found.uid(), found.gid(), found.permissions().mode() & 0o7777), (0, 0, 0o440));

    // The same rule again writes nothing; another takes its place; none takes it away.
    assert_eq!(place.set_policy(r#"{"commands":["/usr/bin/id -u"]}"#), Ok(Change::Unchanged));
    let same = place.host.within(|| std::fs::symlink_metadata(FILE)).unwrap().unwrap();
    assert_eq!(same.ino(), found.ino());
    assert_eq!(place.set_policy(r#"{"commands":["/usr/bin/id -g"]}"#), Ok(Change::Changed));
    assert_eq!(
        (place.sudo("/usr/bin/id -u"), place.sudo("/usr/bin/id -g").as_deref()),
        (None, Some("0"))
    );
    assert_eq!(place.set(&Sudo::None, None), Ok(Change::Changed));
    assert_eq!(place.sudo("/usr/bin/id -g"), None);
    assert_eq!(place.files(), "README\n");
}

#[test]
fn where_there_are_two_groups_for_sudo_both_are_left() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    let has = |group: &str| {
        let id = place.host.exec(&["id", "-nG", "alice"]).unwrap().stdout;
        id.split_whitespace().any(|it| it == group)
    };
    place.host.exec(&["groupadd", "--system", "wheel"]).unwrap();
    place.host.exec(&["gpasswd", "--add", "alice", "wheel"]).unwrap();
    place.host.write_file("/etc/sudoers.d/wheel", "%wheel ALL=(ALL) NOPASSWD: ALL\n").unwrap();
    assert_eq!(place.sudo("/usr/bin/id -u").as_deref(), Some("0"));
    assert_eq!(place.set(&Sudo::None, None), Ok(Change::Changed));
    assert_eq!((has("sudo"), has("wheel"), place.sudo("/usr/bin/id -u")), (false, false, None));
    place.host.exec(&["gpasswd", "--add", "alice", "wheel"]).unwrap();
    place.host.exec(&["gpasswd", "--add", "alice", "sudo"]).unwrap();
    assert_eq!(place.set(&Sudo::None, None), Ok(Change::Changed));
    assert!(!has("sudo") && !has("wheel"));
    // A rule of her own is not to be more than it says, either.
    place.host.exec(&["gpasswd", "--add", "alice", "wheel"]).unwrap();
    place.set_policy(r#"{"commands":["/usr/bin/id -u"]}"#).unwrap();
    assert_eq!((has("wheel"), place.sudo("/usr/bin/id -g")), (false, None));
    place.host.exec(&["gpasswd", "--add", "alice", "wheel"]).unwrap();
    assert_eq!(place.set(&Sudo::Plain, None), Ok(Change::Changed));
    assert!(has("sudo"));
}

#[test]
fn run_as_is_kept_to() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    place.set_policy(r#"{"run_as":["games"]}"#).unwrap();
    assert_eq!(place.sudo("-u games /usr/bin/id -un").as_deref(), Some("games"));
    assert_eq!(place.sudo("-u bin /usr/bin/id -un"), None);
    assert_eq!(place.sudo("/usr/bin/id -un"), None);
}

#[test]
fn a_name_with_dots_gets_a_file_that_sudo_reads() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::with(&world, world.host("web-1"), "al.i.ce");
    // This is why: sudo does not read such a name, though it is a good rule.
    place
        .host
        .write_file("/etc/sudoers.d/bastio-al.i.ce", "al.i.ce ALL=(ALL) NOPASSWD: ALL\n")
        .unwrap();
    place.host.exec(&["chmod", "0440", "/etc/sudoers.d/bastio-al.i.ce"]).unwrap();
    assert_eq!(place.sudo("id -u"), None);
    place.set(&policy("{}"), None).unwrap();
    assert_eq!(place.sudo("id -u").as_deref(), Some("0"));
    assert_eq!(place.files(), "README\nbastio-al.i.ce\nbastio-al=2ei=2ece\n");
    let all = place.host.within(|| Sudoers::system().all().unwrap()).unwrap();
    assert_eq!(all, [Username::parse("al.i.ce").unwrap()]);
    place.set(&Sudo::None, None).unwrap();
    assert_eq!(place.sudo("id -u"), None);
}

#[test]
fn plain_rights_are_the_groups_or_a_rule_and_never_both() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::with(&world, world.host("web-1").sudo_without_password(), "alice");
    let in_group = || {
        let groups = place.host.exec(&["id", "-nG", "alice"]).unwrap().stdout;
        groups.split_whitespace().any(|group| group == "sudo")
    };
    let has_rule = || place.host.exists(FILE).unwrap();
    for (plain, until, group) in [
        (PlainSudo::Group, None, true),
        (PlainSudo::NoPassword, None, false),
        (PlainSudo::Group, None, true),
        // Membership cannot end by itself.
        (PlainSudo::Group, Some(now() + 1000), false),
        (PlainSudo::NoPassword, Some(now() + 1000), false),
    ] {
        place.set_where(plain, &Sudo::Plain, until).unwrap();
        assert_eq!((in_group(), has_rule()), (group, !group), "{plain:?} {until:?}");
        assert_eq!(place.sudo("id -u").as_deref(), Some("0"), "{plain:?} {until:?}");
    }
    place.set(&Sudo::Plain, None).unwrap();
    place.set_policy(r#"{"commands":["/usr/bin/id -u"]}"#).unwrap();
    assert_eq!((in_group(), has_rule()), (false, true));
    place.set(&Sudo::None, None).unwrap();
    assert_eq!((in_group(), has_rule(), place.sudo("id -u")), (false, false, None));
}

#[test]
fn where_the_groups_members_are_asked_for_a_password_so_is_a_rule_with_an_end() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    place.set(&Sudo::Plain, Some(now() + 1000)).unwrap();
    assert_eq!(place.sudo("id -u"), None);
    let text = String::from_utf8(place.host.read_file(FILE).unwrap()).unwrap();
    assert!(text.contains(" PASSWD: ALL"), "{text}");
}
