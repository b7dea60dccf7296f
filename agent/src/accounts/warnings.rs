//! What people should know about an account that is made as asked: groups that are as good as root, shells that
//! are not in shells(5).
//!
//! Nothing here is refused. This file must not know how an account is made.

use bastio_protocol::AccountSpec;

use super::databases;

/// Groups whose members can make themselves root on common distributions, or read what only root may: by a daemon of
/// root's (docker, containerd, lxd, lxc, incus, microk8s, podman), machines with the host's disks (libvirt, kvm), raw
/// devices (disk, kmem), password hashes (shadow), logs (adm, systemd-journal), rules in sudoers (sudo, wheel, admin),
/// files of gid 0 (root), programs in /usr/local (staff on Debian).
const ROOT_EQUIVALENT: [&str; 20] = [
    "adm",
    "admin",
    "containerd",
    "disk",
    "docker",
    "incus",
    "incus-admin",
    "kmem",
    "kvm",
    "libvirt",
    "lxc",
    "lxd",
    "microk8s",
    "podman",
    "root",
    "shadow",
    "staff",
    "sudo",
    "systemd-journal",
    "wheel",
];

/// Whether members of a group of that name can usually make themselves root, or read its secrets.
#[must_use]
pub fn is_root_equivalent(group: &str) -> bool {
    ROOT_EQUIVALENT.contains(&group)
}

/// What to warn of in these fields. The list of shells that cannot be read warns of nothing.
#[must_use]
pub fn warnings(spec: &AccountSpec) -> Vec<String> {
    let shells = databases::read_or_empty("/etc/shells").unwrap_or_default();
    warnings_with(spec, &shells)
}

fn warnings_with(spec: &AccountSpec, shells: &str) -> Vec<String> {
    let groups = spec.group.iter().chain(spec.groups.iter().flatten());
    let groups = groups.filter(|group| is_root_equivalent(group.as_str())).map(|group| {
        format!("members of the group {group} can make themselves root or read its secrets")
    });
    let is_listed = |shell: &str| shells.lines().any(|line| line.trim() == shell);
    let shell = spec.shell.iter().filter(|shell| !is_listed(shell.as_str())).map(|shell| {
        format!("the shell {shell} is not in /etc/shells: chsh, su and FTP servers refuse it")
    });
    groups.chain(shell).collect()
}

#[cfg(test)]
mod tests {
    use bastio_protocol::{AbsolutePath, GroupName};

    use super::*;

    #[test]
    fn groups_as_good_as_root_and_unlisted_shells_are_told() {
        let group = |name| GroupName::parse(name).unwrap();
        let shell = |path| Some(AbsolutePath::parse(path).unwrap());
        let shells = "# shells\n/bin/sh\n/bin/bash \n";
        let spec = AccountSpec {
            group: Some(group("docker")),
            groups: Some([group("lxd"), group("developers")].into()),
            shell: shell("/opt/bin/fish"),
            ..AccountSpec::default()
        };
        let told = warnings_with(&spec, shells);
        assert_eq!(told.len(), 3, "{told:?}");
        for (text, name) in told.iter().zip(["docker", "lxd", "/opt/bin/fish"]) {
            assert!(text.contains(name), "{text}");
        }
        let plain = AccountSpec { shell: shell("/bin/bash"), ..AccountSpec::default() };
        assert!(warnings_with(&plain, shells).is_empty());
        assert!(warnings_with(&AccountSpec::default(), "").is_empty());
    }

    #[test]
    fn the_names_of_the_groups_are_whole() {
        for name in [
            "docker", "lxd", "lxc", "incus", "disk", "adm", "shadow", "sudo", "wheel", "root",
            "kmem", "libvirt", "kvm",
        ] {
            assert!(is_root_equivalent(name), "{name}");
        }
        for name in ["dock", "dockers", "Docker", "users", ""] {
            assert!(!is_root_equivalent(name), "{name}");
        }
    }
}
