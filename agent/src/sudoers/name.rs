//! File names for login names, and back.
//!
//! sudo leaves out of its folder every file whose name has a dot or ends in `~` (sudoers(5),
//! "Including other files"), so a dot of a login name is written as `=2e`; no login name has a `=`.
//! This file must not know what the files hold.

use bastio_protocol::Username;

/// What the names begin with.
const PREFIX: &str = "bastio-";
/// A dot.
const DOT: &str = "=2e";

/// The name of the account's file.
pub(super) fn of_account(name: &Username) -> String {
    format!("{PREFIX}{}", name.as_str().replace('.', DOT))
}

/// The account whose file has this name; `None` when no account's has.
pub(super) fn to_account(file: &str) -> Option<Username> {
    let name = Username::parse(&file.strip_prefix(PREFIX)?.replace(DOT, ".")).ok()?;
    (of_account(&name) == file).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_written_so_that_sudo_reads_them() {
        for (name, file) in [
            ("alice", "bastio-alice"),
            ("a.b.c", "bastio-a=2eb=2ec"),
            ("a-b_c", "bastio-a-b_c"),
            ("a2e", "bastio-a2e"),
        ] {
            let name = Username::parse(name).unwrap();
            assert_eq!(of_account(&name), file);
            assert_eq!(to_account(file), Some(name));
        }
    }

    #[test]
    fn other_names_are_nobodys() {
        for file in
            ["README", "alice", "bastio-", "bastio-a.b", "bastio-a~", "bastio-a=2E", "bastio-=2ea"]
        {
            assert_eq!(to_account(file), None, "{file}");
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back(text in "[a-z_]([a-z0-9_.-]{0,29}[a-z0-9_])?") {
            let name = Username::parse(&text).unwrap();
            let file = of_account(&name);
            prop_assert!(!file.contains('.') && !file.ends_with('~'), "{}", file);
            prop_assert_eq!(to_account(&file), Some(name));
        }
    }
}
