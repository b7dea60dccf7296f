//! The same for the rules of sudo. Their system calls are made in `agent/src/sudoers/folder.rs` and by visudo(8).

use super::*;

/// Plain rights are a rule from here on; of others, there is one, too.
macro_rules! with_rules {
    ($rest:literal) => {
        concat!(
            "mkdir -p /etc/bastio; printf '[sudo]\\nplain = \"nopasswd\"\\n' > /etc/bastio/agent.toml; \
             chmod 600 /etc/bastio/agent.toml; printf 'foreign ALL=(ALL) ALL\\n' > /etc/sudoers.d/foreign; \
             chmod 440 /etc/sudoers.d/foreign; ",
            $rest
        )
    };
}

const OLD_RULE: &str = with_rules!(
    "printf '# bastio: managed, do not edit\\n\"alice\" ALL=(ALL) NOPASSWD: /usr/bin/id\\n' > /etc/sudoers.d/bastio-alice; \
     chmod 440 /etc/sudoers.d/bastio-alice"
);

fn prove_rule(name: &'static str, script: &'static str, sudo: bool) {
    prove(&Scenario {
        before: vec![alice(Action::AddUser { sudo: false })],
        script,
        ..Scenario::new(name, &["alice"], alice(Action::UpdateUser { sudo }))
    });
}

#[test]
fn a_rule_is_given() {
    require_root!();
    prove_rule("rule given", with_rules!("true"), true);
}

#[test]
fn a_rule_takes_the_place_of_another() {
    require_root!();
    prove_rule("rule replaced", OLD_RULE, true);
}

#[test]
fn a_rule_is_taken() {
    require_root!();
    prove_rule("rule taken", OLD_RULE, false);
}
