//! Whether sudo asks members of a group for a password: what the rules that others wrote say, as far
//! as that is written plainly.
//!
//! Aliases, continued lines and `Defaults` are not followed: then the answer is that a password is
//! asked for, which is the safe side. This file must not know where the rules are.

/// Whether the last rule for the whole group (`%group ... ALL`) says NOPASSWD. `texts` in the order
/// in which sudo reads them: of several rules the last one counts (sudoers(5)).
pub(super) fn needs_no_password<'a>(texts: impl IntoIterator<Item = &'a str>, group: &str) -> bool {
    let is_of_group = |line: &&str| {
        let mut words = line.split_whitespace();
        let first = words.next().and_then(|word| word.strip_prefix('%'));
        first == Some(group) && words.next_back().is_some_and(|word| word.ends_with("ALL"))
    };
    let lines = texts.into_iter().flat_map(str::lines);
    lines.filter(is_of_group).last().is_some_and(|line| line.contains("NOPASSWD:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_of_the_group_counts() {
        const ASKS: &str = "%sudo\tALL=(ALL:ALL) ALL\n";
        const FREE: &str = "root ALL=ALL\n%sudo ALL=(ALL:ALL) NOPASSWD: ALL\n";
        for (texts, expected) in [
            (vec![], false),
            (vec![ASKS], false),
            (vec![FREE], true),
            (vec![ASKS, FREE], true),
            (vec![FREE, ASKS], false),
            (vec!["%sudo ALL=(ALL) NOPASSWD:ALL"], true),
            (vec!["%sudoers ALL=(ALL) NOPASSWD: ALL"], false),
            (vec!["#%sudo ALL=(ALL) NOPASSWD: ALL"], false),
            (vec![ASKS, "%sudo ALL=(root) NOPASSWD: /bin/ls"], false),
            (vec!["%sudo ALL=(root) NOPASSWD: ALL, !/bin/sh"], false),
        ] {
            assert_eq!(needs_no_password(texts.clone(), "sudo"), expected, "{texts:?}");
        }
    }
}
