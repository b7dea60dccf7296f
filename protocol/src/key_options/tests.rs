//! Options as sshd(8) has them: what is taken in which spelling, what is refused, and there and back.

use proptest::prelude::*;

use super::*;
use crate::KeyPolicy;

fn spelled(text: &str) -> String {
    KeyOptions::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

#[test]
fn each_list_has_one_spelling() {
    for (text, expected) in [
        ("", ""),
        ("restrict", "restrict"),
        ("RESTRICT,Pty", "restrict,pty"),
        ("no-pty,restrict,no-user-rc", "restrict"),
        ("pty,agent-forwarding", ""),
        ("no-x11-forwarding,no-pty", "no-pty,no-X11-forwarding"),
        ("restrict,x11-forwarding,port-forwarding", "restrict,port-forwarding,X11-forwarding"),
        ("no-pty,no-pty", "no-pty"),
        (
            r#"COMMAND="say \"hi\" \n",from="10.0.0.0/8""#,
            r#"from="10.0.0.0/8",command="say \"hi\" \n""#,
        ),
        (r#"command="a\\"b""#, r#"command="a\\"b""#),
        (r#"command="printf 'a, b'=""#, r#"command="printf 'a, b'=""#),
        (r#"environment="B=2",environment="A=""#, r#"environment="A=",environment="B=2""#),
        (
            r#"permitopen="b:1",permitopen="a:2",permitopen="b:1""#,
            r#"permitopen="a:2",permitopen="b:1""#,
        ),
        (r#"permitopen="[::1]:80",permitopen="*:*""#, r#"permitopen="*:*",permitopen="[::1]:80""#),
        (
            r#"permitlisten="8080",permitlisten="lo*:*""#,
            r#"permitlisten="8080",permitlisten="lo*:*""#,
        ),
        (r#"tunnel="ANY""#, r#"tunnel="any""#),
        (r#"tunnel="0""#, r#"tunnel="0""#),
        (r#"verify-required,NO-touch-required"#, "no-touch-required,verify-required"),
    ] {
        assert_eq!(spelled(text), expected, "{text}");
        assert_eq!(spelled(expected), expected);
    }
}

#[test]
fn addresses_and_patterns_are_taken_as_sshd_takes_them() {
    for value in [
        "*",
        "192.0.2.7",
        "192.0.2.0/24",
        "0.0.0.0/0",
        "::/0",
        "2001:db8::/32",
        "::1",
        "192.0.2.*",
        "*.example.org",
        "!bad.example.org,*.example.org",
        "fe80::?",
        "host_1",
        "10.0.0.1,10.0.0.2",
    ] {
        let text = format!("from=\"{value}\"");
        assert_eq!(spelled(&text), text);
    }
    for value in [
        "",
        ",",
        "a,",
        "!",
        "!a",
        "!a,!b",
        "192.0.2.7/24",
        "2001:db8::1/32",
        "192.0.2.0/33",
        "::/129",
        "192.0.2.0/024",
        "192.0.2.0/+8",
        "192.0.2.0/",
        "/8",
        "10.1",
        "010.0.0.1",
        "0x0a000001",
        "256.0.0.1",
        "1",
        "a b",
        "fe80::1%eth0",
        "a;b",
        "é",
        "a/8",
    ] {
        assert!(KeyOptions::parse(&format!("from=\"{value}\"")).is_err(), "{value}");
    }
    assert!(KeyOptions::parse(&format!("from=\"{}\"", "a".repeat(1023))).is_ok());
    assert!(KeyOptions::parse(&format!("from=\"{}\"", "a".repeat(1024))).is_err());
}

/// What sshd refuses, or reads otherwise than it looks.
const REFUSED: &[&str] = &[
    ",",
    "no-pty,",
    ",no-pty",
    "no-pty,,no-user-rc",
    " no-pty",
    "no-pty ",
    "no-pty, no-user-rc",
    "no-pty no-user-rc",
    "\tno-pty",
    "no-pty\n",
    "no-pty\0",
    "command=\"a\u{1b}\"",
    "ptyx",
    "no-",
    "no-restrict",
    "no-no-pty",
    "touch-required",
    "no-verify-required",
    "hello",
    "pty=\"yes\"",
    "restrict=\"\"",
    "command",
    "command=",
    "command=ls",
    "command='ls'",
    "command=\"ls",
    "command=\"ls\\\"",
    "command=\"ls\"x",
    "command=\"ls\"\"x\"",
    "command=\"\"",
    "command=\"  \"",
    "command=\"a\",command=\"a\"",
    "from=\"a\",FROM=\"b\"",
    "tunnel=\"0\",tunnel=\"1\"",
    "tunnel=\"\"",
    "tunnel=\"-1\"",
    "tunnel=\"00\"",
    "tunnel=\"2147483646\"",
    "environment=\"\"",
    "environment=\"A\"",
    "environment=\"=1\"",
    "environment=\"1A=1\"",
    "environment=\"A B=1\"",
    "environment=\"A=1\",environment=\"A=1\"",
    "permitopen=\"80\"",
    "permitopen=\"a:0\"",
    "permitopen=\"a:65536\"",
    "permitopen=\"a:http\"",
    "permitopen=\":80\"",
    "permitopen=\"::1:80\"",
    "permitopen=\"[a]:80\"",
    "permitopen=\"a*:80\"",
    "permitopen=\"a/80\"",
    "permitopen=\"a:080\"",
    "permitlisten=\"\"",
    "permitlisten=\"a\"",
    "permitlisten=\"a b:1\"",
    "pty,no-pty",
    "no-pty,PTY",
    "pty,restrict",
    "expiry-time=\"20300101\"",
    "cert-authority",
    "principals=\"a\"",
    "agent-forwarding,restrict",
    "no-pty\"\"",
    "=\"a\"",
];

#[test]
fn what_sshd_refuses_or_reads_otherwise_than_it_looks_is_refused() {
    for text in REFUSED {
        assert!(KeyOptions::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn errors_say_what_to_write_instead() {
    for (text, hint) in [
        ("expiry-time=\"20300101\"", "until"),
        ("pty,restrict", "restrict first"),
        ("cert-authority", "people's own keys"),
        ("from=\"10.1\"", "all four numbers"),
        ("no-pity", "known are"),
    ] {
        let error = KeyOptions::parse(text).expect_err(text).to_string();
        assert!(error.contains(hint), "{error}");
    }
}

#[test]
fn the_length_is_limited() {
    let command = |len: usize| format!("command=\"{}\"", "x".repeat(len - 10));
    assert!(KeyOptions::parse(&command(4096)).is_ok());
    assert!(KeyOptions::parse(&command(4097)).is_err());
    // Each quote takes two bytes.
    assert!(KeyOptions::parse(&format!("command=\"{}\"", "\\\"".repeat(2044))).is_err());
}

#[test]
fn token_options_fit_keys_on_tokens_only() {
    let vectors = include_str!("../../../docs/vectors/public_keys.json");
    let vectors: serde_json::Value = serde_json::from_str(vectors).expect("vectors");
    let lines = vectors.as_array().expect("a list").iter().filter_map(|it| it["line"].as_str());
    let keys: Vec<_> =
        lines.filter_map(|line| PublicKey::parse(line, &KeyPolicy::ANY).ok()).collect();
    let on_token = |key: &&PublicKey| key.algorithm().name().starts_with("sk-");
    let (token, other): (Vec<_>, Vec<_>) = keys.iter().partition(on_token);
    assert!(token.len() >= 2 && other.len() >= 5);
    for text in ["verify-required", "no-touch-required", "restrict,verify-required"] {
        let options = KeyOptions::parse(text).expect(text);
        assert!(token.iter().all(|key| options.fits(key).is_ok()), "{text}");
        assert!(other.iter().all(|key| options.fits(key).is_err()), "{text}");
    }
    let named = KeyOptions::parse("command=\"verify-required\"").expect("a command");
    assert!(keys.iter().all(|key| named.fits(key).is_ok()));
}

/// Lists that are taken, in any order and case of names.
fn lists() -> impl Strategy<Value = String> {
    let flag = prop::sample::select(vec![
        "no-pty",
        "no-user-rc",
        "NO-PORT-FORWARDING",
        "no-agent-forwarding",
        "no-X11-forwarding",
        "restrict",
        "verify-required",
        "no-touch-required",
    ]);
    let command = "[ -~äß]{1,40}".prop_filter_map("blank", |text| {
        (!text.trim().is_empty() && !text.ends_with('\\')).then(|| quote("command", &text))
    });
    let value = prop_oneof![
        command,
        (0..=32_u32).prop_map(|bits| format!("from=\"0.0.0.0/{bits}\"")),
        ("[A-Z_][A-Z0-9_]{0,5}", "[ -!#-~]{0,10}a")
            .prop_map(|(name, value)| quote("environment", &format!("{name}={value}"))),
        (any::<std::net::Ipv6Addr>(), 1..=u16::MAX)
            .prop_map(|(ip, port)| format!("permitopen=\"[{ip}]:{port}\"")),
        any::<u16>().prop_map(|number| format!("tunnel=\"{number}\"")),
    ];
    let one = prop_oneof![flag.prop_map(str::to_owned), value];
    prop::collection::vec(one, 0..6).prop_map(|all| all.join(","))
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(text in lists()) {
        if let Ok(options) = KeyOptions::parse(&text) {
            prop_assert_eq!(KeyOptions::parse(options.as_str()), Ok(options.clone()));
            prop_assert!(options.as_str().len() <= MAX_LEN);
        }
    }

    #[test]
    fn a_command_survives_to_the_letter(command in "[ -~äß\\\\\"]{1,60}") {
        prop_assume!(!command.trim().is_empty() && !command.ends_with('\\'));
        let written = quote("command", &command);
        let options = Options::parse(&written).expect("a command");
        prop_assert_eq!(options.command, Some(command));
        prop_assert_eq!(KeyOptions::parse(&written).expect("a command").to_string(), written);
    }

    #[test]
    fn noise_never_panics_and_what_is_taken_is_one_word(text in "[a-z=\",!\\\\ -]{0,40}|.{0,40}") {
        if let Ok(options) = KeyOptions::parse(&text) {
            prop_assert_eq!(crate::key_file::options_len(options.as_str().as_bytes()), options.as_str().len());
        }
    }
}
