//! Sudo rules: whatever is taken becomes one comment line and one rule line, and nothing in it ends the rule early.
#![no_main]

use bastio_protocol::{SudoPolicy, Username};
use libfuzzer_sys::fuzz_target;

/// Splits a rule as sudo does: at commas without a backslash and outside quotes and parentheses.
fn split(rule: &str) -> Vec<String> {
    let (mut parts, mut quoted, mut inside) = (vec![String::new()], false, false);
    let mut chars = rule.chars();
    while let Some(c) = chars.next() {
        let part = parts.last_mut().expect("never empty");
        match c {
            '\\' => part.extend(chars.next()),
            '"' => quoted = !quoted,
            '(' if part.trim().is_empty() => inside = true,
            ')' => inside = false,
            ',' if !quoted && !inside => parts.push(String::new()),
            // A hash would begin a comment, an equals sign or a colon would end the command.
            '#' => panic!("a comment in {rule:?}"),
            _ => part.push(c),
        }
    }
    parts
}

fuzz_target!(|json: &[u8]| {
    let Ok(policy) = serde_json::from_slice::<SudoPolicy>(json) else { return };
    let written = serde_json::to_vec(&policy).expect("JSON");
    assert_eq!(serde_json::from_slice::<SudoPolicy>(&written).expect("what was written"), policy);
    let account = Username::parse("jean.luc").expect("a name");
    let text = policy.to_sudoers(&account, None).expect("what was read can be written");
    let rule = text.strip_prefix("# bastio: managed, do not edit\n").expect("the mark");
    let rule = rule.strip_suffix('\n').expect("a whole line");
    assert!(rule.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{rule:?}");
    let rule = rule.strip_prefix("\"jean.luc\" ALL=").expect("the account");
    assert_eq!(split(rule).len(), policy.commands.len().max(1), "{rule}");
    let _ = policy.warnings();
});
