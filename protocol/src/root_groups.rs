//! Groups that are as good as root: what an agent warns of, and what a second operator may have to agree to. Must not
//! know who asks.

/// Groups whose members can make themselves root on common distributions, or read what only root may: by a daemon of
/// root's (docker, containerd, lxd, lxc, incus, microk8s, podman), machines with the host's disks (libvirt, kvm), raw
/// devices (disk, kmem), password hashes (shadow), logs (adm, systemd-journal), rules in sudoers (sudo, wheel, admin),
/// files of gid 0 (root), programs in /usr/local (staff on Debian), the
/// system's own (sys).
const ROOT_EQUIVALENT: [&str; 21] = [
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
    "sys",
    "systemd-journal",
    "wheel",
];

/// Whether members of a group of that name can usually make themselves root, or read its secrets.
#[must_use]
pub fn is_root_equivalent(group: &str) -> bool {
    ROOT_EQUIVALENT.contains(&group)
}

#[cfg(test)]
mod tests {
    use super::*;

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
