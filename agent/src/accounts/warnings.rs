//! What people should know about an account that is made as asked: groups that are as good as root, shells that
//! are not in shells(5).
//!
//! Nothing here is refused. This file must not know how an account is made.

use bastio_protocol::{AccountSpec, is_root_equivalent};

use super::databases;

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
}
