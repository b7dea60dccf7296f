//! Rules against the text that sudoers(5) wants; the real visudo reads them in the end-to-end tests.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Username {
    Username::parse(text).expect("a name")
}

fn command(text: &str) -> SudoCommand {
    SudoCommand::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn rule(policy: &SudoPolicy, until: Option<i64>) -> String {
    let text = policy.to_sudoers(&name("jean.luc"), until).expect("a rule");
    let rule =
        text.strip_prefix("# bastio: managed, do not edit\n").expect("the mark").strip_suffix('\n');
    rule.expect("a whole line").to_owned()
}

fn commands(texts: &[&str]) -> SudoPolicy {
    SudoPolicy {
        commands: texts.iter().map(|text| command(text)).collect(),
        ..SudoPolicy::default()
    }
}

#[test]
fn an_empty_policy_allows_everything() {
    assert_eq!(rule(&SudoPolicy::default(), None), r#""jean.luc" ALL=(ALL:ALL) NOPASSWD: ALL"#);
}

#[test]
fn every_member_has_its_place() {
    let policy = SudoPolicy {
        commands: vec![command("/bin/ls"), command("/bin/cat /etc/a,b:c=d#e x*")],
        run_as: vec![name("root"), name("www-data")],
        password: true,
        not_before: Some(1_795_315_849),
        not_after: Some(1_795_315_909),
    };
    let head =
        r#"("root", "www-data") NOTBEFORE=20261122025049Z NOTAFTER=20261122025149Z PASSWD: "#;
    let expected = format!(r#""jean.luc" ALL={head}/bin/ls, {head}/bin/cat /etc/a\,b\:c\=d\#e x*"#);
    assert_eq!(rule(&policy, None), expected);
    assert_eq!(rule(&policy, Some(i64::MAX)), expected);
    assert!(rule(&policy, Some(1_795_315_848)).contains("NOTAFTER=20261122025048Z"));
}

#[test]
fn an_end_of_the_account_ends_the_rule() {
    let expected = r#""jean.luc" ALL=(ALL:ALL) NOTAFTER=19700102000001Z NOPASSWD: ALL"#;
    assert_eq!(rule(&SudoPolicy::default(), Some(0)), expected);
}

#[test]
fn commands_are_taken_as_they_are_typed() {
    for text in [
        "/bin/ls",
        "/usr/bin/*",
        "/bin/ls \"\"",
        "/bin/ls -l /x{a}",
        "/bin/x \\* \\? \\[ \\]",
        "/bin/x [a-z] [!0]",
        "/bin/a ! $x ~y %z @w (v) <u> & | ; `t`",
        "sudoedit /etc/hosts /etc/motd",
        "/bin/x a^b$",
        "/opt/a\\*b",
    ] {
        assert_eq!(command(text).to_string(), text);
    }
}

#[test]
fn what_sudo_reads_otherwise_than_it_looks_is_refused() {
    for text in [
        "",
        " ",
        "ls",
        "!/bin/ls",
        "ALL",
        "/",
        "//bin/ls",
        "/bin/",
        "/bin/../ls",
        "/bin/./ls",
        "/bin/ls ",
        " /bin/ls",
        "/bin/ls  -l",
        "/bin/ls\t-l",
        "/bin/ls\n",
        "/bin/ls\nALL",
        "/bin/l\u{0}",
        "/bin/ä",
        "/bin/ls \"a b\"",
        "/bin/ls 'a'",
        "/bin/ls \\",
        "/bin/ls a\\ b",
        "/bin/ls \\,",
        "/bin/ls \\\\",
        "/bin/\"ls\"",
        "sudoedit",
        "sudoedit x",
        "sudoedit /etc/*",
        "sudoedit /home/../etc/shadow",
        "sudoedit \"\"",
        "/usr/bin/sudoedit /etc/hosts",
        "/bin/ls ^a$",
        "/bin/ls ^",
        "/bin/x [a:b]",
        "/bin/x [",
        "/bin/x ]",
        "/bin/x []",
        "/bin/x [a",
        "/bin/x \\[a]",
        "/bin/x [[a]]",
        "sha224:abc /bin/ls",
        "%wheel",
        "#0",
        "@include /x",
        "^/bin/.*$",
        "/bin/ls \"\" a",
    ] {
        assert!(SudoCommand::parse(text).is_err(), "{text:?}");
    }
    assert!(SudoCommand::parse(&format!("/{}", "x".repeat(1023))).is_ok());
    assert!(SudoCommand::parse(&format!("/{}", "x".repeat(1024))).is_err());
}

#[test]
fn members_that_do_not_fit_together_are_refused_when_read() {
    let read = |json: &str| serde_json::from_str::<SudoPolicy>(json);
    assert_eq!(read("{}").expect("all commands"), SudoPolicy::default());
    let many = format!(r#"{{"commands":[{}]}}"#, vec![r#""/x""#; 65].join(","));
    let runners = format!(r#"{{"run_as":[{}]}}"#, vec![r#""x""#; 17].join(","));
    for json in [
        r#"{"not_before":2,"not_after":2}"#,
        r#"{"commands":["ls"]}"#,
        r#"{"run_as":["Root"]}"#,
        r#"{"tags":[]}"#,
        r#"{"password":1}"#,
        r#"{"commands":[1]}"#,
        r#"{"not_after":1.5}"#,
        &many,
        &runners,
    ] {
        assert!(read(json).is_err(), "{json}");
    }
    let late = SudoPolicy { not_before: Some(2), not_after: Some(1), ..SudoPolicy::default() };
    assert!(late.to_sudoers(&name("a"), None).is_err());
}

#[test]
fn what_gives_more_than_it_looks_is_said() {
    for (text, count) in [
        ("/bin/ls", 0),
        ("/bin/cat \\*", 0),
        ("/usr/bin/vim", 1),
        ("/usr/bin/vim \"\"", 0),
        ("/usr/bin/vim /etc/motd", 0),
        ("/usr/bin/vim /etc/*", 2),
        ("/usr/bin/*", 1),
        ("/bin/cat /var/log/*", 1),
        ("sudoedit /etc/motd", 0),
    ] {
        assert_eq!(commands(&[text]).warnings().len(), count, "{text}");
    }
    assert_eq!(commands(&["/bin/su", "/bin/su"]).warnings().len(), 1);
    assert_eq!(SudoPolicy { password: true, ..SudoPolicy::default() }.warnings().len(), 1);
}

proptest! {
    #[test]
    fn any_rule_is_one_line(text in "/[ -~]{1,30}", account in "[a-z][a-z.-]{0,10}[a-z]", until: Option<i64>) {
        if let Ok(command) = SudoCommand::parse(&text) {
            prop_assert_eq!(SudoCommand::parse(command.as_str()), Ok(command.clone()));
            let policy = SudoPolicy { commands: vec![command], ..SudoPolicy::default() };
            let written = policy.to_sudoers(&name(&account), until).expect("a rule");
            prop_assert_eq!(written.matches('\n').count(), 2);
            prop_assert!(written.is_ascii() && written.ends_with('\n'));
        }
    }
}
