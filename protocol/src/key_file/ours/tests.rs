//! All lines of ours at once: tables of single edits, and random files in which nothing else may change.

use proptest::prelude::*;

use super::*;
use crate::{Algorithm, KeyPolicy};

/// Key number `number`; the number is its bytes.
fn key(number: u8) -> PublicKey {
    use base64::Engine as _;
    let mut blob = Vec::new();
    crate::ssh_blob::write_string(&mut blob, Algorithm::Ed25519.name().as_bytes());
    crate::ssh_blob::write_string(&mut blob, &[number; 32]);
    let line =
        format!("ssh-ed25519 {} k{number}", base64::engine::general_purpose::STANDARD.encode(blob));
    PublicKey::parse(&line, &KeyPolicy::ANY).expect("a key")
}

fn spec(number: u8, options: &str, until: Option<i64>) -> KeyLineSpec {
    let options = KeyOptions::parse(options).expect("options");
    KeyLineSpec { key: key(number), options, expiry: until.map(KeyExpiry::utc) }
}

fn ours(spec: &KeyLineSpec) -> String {
    format!("{spec} bastio:managed\n")
}

fn edit(before: &str, wanted: &[KeyLineSpec]) -> (String, KeyEdit) {
    let mut file = KeyFile::parse(before.as_bytes());
    let edit = file.set_ours(wanted);
    let after = String::from_utf8(file.to_bytes()).expect("text");
    assert_eq!(after == before, edit.is_empty(), "an edit is what changes the text");
    let mut again = KeyFile::parse(after.as_bytes());
    assert!(again.set_ours(wanted).is_empty(), "twice is as once");
    (after, edit)
}

#[test]
fn a_line_holds_options_end_key_comment_and_mark() {
    let spec = spec(1, "no-pty,from=\"10.0.0.0/8\"", Some(1_795_315_849));
    let line = format!("no-pty,from=\"10.0.0.0/8\",expiry-time=\"20261122025049Z\" {}", key(1));
    assert_eq!(spec.to_string(), line);
    assert_eq!(KeyLineSpec::plain(key(1)).to_string(), key(1).to_string());
    let (after, _) = edit("", std::slice::from_ref(&spec));
    let read = KeyFile::parse(after.as_bytes()).keys().next().expect("a line");
    assert_eq!(read.spec(), Ok(spec));
}

#[test]
fn keys_are_added_changed_and_removed_in_one_edit() {
    let before =
        format!("# mine\n{}{}{}", ours(&spec(1, "", None)), ours(&spec(2, "", None)), "other\r\n");
    let wanted = [spec(2, "no-pty", None), spec(3, "", Some(1 << 31))];
    let (after, edited) = edit(&before, &wanted);
    assert_eq!(after, format!("# mine\n{}other\r\n{}", ours(&wanted[0]), ours(&wanted[1])));
    let expected = KeyEdit { added: vec![key(3)], changed: vec![key(2)], removed: vec![key(1)] };
    assert_eq!(edited, expected);
}

#[test]
fn another_comment_is_no_change() {
    let before = format!("{} other words bastio:managed\n", key(1).without_comment());
    assert_eq!(edit(&before, &[spec(1, "", None)]), (before, KeyEdit::default()));
}

#[test]
fn ends_and_options_are_compared_as_sshd_reads_them() {
    let before = format!("NO-PTY,expiry-time=\"20261122025049Z\" {} bastio:managed\n", key(1));
    let same = [spec(1, "no-pty", Some(1_795_315_849))];
    assert_eq!(edit(&before, &same), (before.clone(), KeyEdit::default()));
    for other in [
        spec(1, "no-pty", Some(1_795_315_850)),
        spec(1, "no-pty", None),
        spec(1, "", Some(1_795_315_849)),
    ] {
        let (after, edited) = edit(&before, std::slice::from_ref(&other));
        assert_eq!((after, edited.changed), (ours(&other), vec![key(1)]));
    }
}

#[test]
fn a_line_of_ours_that_others_edited_is_put_right() {
    let wanted = spec(1, "restrict", None);
    for edited in ["cert-authority", "restrict,pty", "nonsense", "command=\"x\",command=\"y\""] {
        let before = format!("{edited} {} bastio:managed\n", key(1));
        assert_eq!(edit(&before, std::slice::from_ref(&wanted)).0, ours(&wanted), "{edited}");
        assert_eq!(
            edit(&before, &[]),
            (String::new(), KeyEdit { removed: vec![key(1)], ..KeyEdit::default() })
        );
    }
}

#[test]
fn a_key_stands_once_and_the_first_of_two_wishes_counts() {
    let wanted = [spec(1, "no-pty", None), spec(1, "", None)];
    let twice = format!("{}{}", ours(&wanted[1]), ours(&wanted[0]));
    let (after, edited) = edit(&twice, &wanted);
    assert_eq!((after, edited.changed), (ours(&wanted[0]), vec![key(1)]));
    assert_eq!(edit("", &wanted).0, ours(&wanted[0]));
}

#[test]
fn lines_of_others_for_a_wanted_key_stay_only_when_they_say_the_same() {
    let (plain, limited) = (spec(1, "", None), spec(1, "no-pty", None));
    let free = format!("{}\n", key(1).without_comment());
    let bound = format!("from=\"10.0.0.1\" {free}");
    let changed = KeyEdit { changed: vec![key(1)], ..KeyEdit::default() };
    for (before, wanted, after) in [
        (free.clone(), &plain, None),
        (format!("{free}{free}"), &plain, None),
        (format!("{}{free}", ours(&plain)), &plain, None),
        (free.clone(), &limited, Some(ours(&limited))),
        (bound.clone(), &plain, Some(ours(&plain))),
        (format!("{bound}{free}"), &plain, Some(ours(&plain))),
        (format!("{free}{}", ours(&plain)), &limited, Some(ours(&limited))),
        (format!("{free}{}", ours(&limited)), &limited, Some(ours(&limited))),
        (format!("{free}{}", ours(&limited)), &plain, Some(free.clone())),
        (
            bound.clone(),
            &spec(1, "from=\"10.0.0.1\"", None),
            Some(ours(&spec(1, "from=\"10.0.0.1\"", None))),
        ),
    ] {
        let expected =
            after.map_or((before.clone(), KeyEdit::default()), |after| (after, changed.clone()));
        assert_eq!(edit(&before, std::slice::from_ref(wanted)), expected, "{before}");
    }
}

#[test]
fn a_key_that_was_ours_goes_with_all_its_lines() {
    let odd = key(1).without_comment().replacen("AAAA", "AA\u{c}AA", 1);
    let before = format!("{}{odd}\nno-pty {}\n# {}\n", ours(&spec(1, "", None)), key(1), key(1));
    assert_eq!(edit(&before, &[]).0, format!("# {}\n", key(1)));
    let foreign = format!("{odd}\nno-pty {}\n", key(1));
    assert_eq!(edit(&foreign, &[]), (foreign, KeyEdit::default()));
}

#[test]
fn a_missing_newline_is_added_before_a_new_line_only() {
    assert_eq!(edit("# mine", &[]).0, "# mine");
    assert_eq!(
        edit("# mine", &[spec(1, "", None)]).0,
        format!("# mine\n{}", ours(&spec(1, "", None)))
    );
    let last = ours(&spec(1, "no-pty", None));
    assert_eq!(edit(last.trim_end(), &[spec(1, "no-pty", None)]).0, last.trim_end());
    assert_eq!(edit(last.trim_end(), &[spec(1, "", None)]).0, ours(&spec(1, "", None)));
}

const OPTIONS: [&str; 4] =
    ["", "restrict", "no-pty,from=\"10.0.0.0/8\"", "command=\"say \\\"a b\\\"\""];

fn wishes() -> impl Strategy<Value = Vec<KeyLineSpec>> {
    let one = (0..6_u8, prop::sample::select(&OPTIONS[..]), prop::option::of(0..1_i64 << 33));
    prop::collection::vec(
        one.prop_map(|(number, options, until)| spec(number, options, until)),
        0..5,
    )
}

/// Lines of ours, lines of others with the same keys and with others, comments and noise.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let any_spec = (0..9_u8, prop::sample::select(&OPTIONS[..]), prop::option::of(0..1_i64 << 33))
        .prop_map(|(number, options, until)| spec(number, options, until));
    let end = prop::sample::select(vec!["\n", "\r\n", " \n"]);
    prop_oneof![
        any_spec.clone().prop_map(|spec| ours(&spec).into_bytes()),
        (any_spec.clone(), end).prop_map(|(spec, end)| format!("{spec}{end}").into_bytes()),
        any_spec.prop_map(|spec| format!("#{spec} bastio:managed\n").into_bytes()),
        prop::collection::vec(any::<u8>(), 0..30),
    ]
}

proptest! {
    #[test]
    fn our_lines_are_what_is_wanted_and_all_else_survives(
        lines in prop::collection::vec(line(), 0..10), wanted in wishes()
    ) {
        let before = KeyFile::parse(&lines.concat());
        let mut after = before.clone();
        let edit = after.set_ours(&wanted);
        prop_assert_eq!(edit.is_empty(), after == before);
        let named = |line: &Vec<u8>| lenient::key_of(line).is_some_and(|key| {
            [&edit.added, &edit.changed, &edit.removed].into_iter().flatten().any(|it| *it == key)
        });
        // All lines of keys that were not touched are there, in their order, byte for byte; only a newline was added.
        let rest = |file: &KeyFile| file.lines.iter().filter(|line| !named(line)).cloned().collect::<Vec<_>>();
        let (mut old, mut new) = (rest(&before), rest(&after));
        for line in old.iter_mut().chain(&mut new).filter(|line| !line.ends_with(b"\n")) {
            line.push(b'\n');
        }
        prop_assert_eq!(old, new);
        // Each wanted key is there, and whatever gives access to it gives what was wanted first.
        let mut first = BTreeMap::new();
        wanted.iter().for_each(|spec| { first.entry(spec.key.clone()).or_insert(spec); });
        for spec in first.values() {
            let found: Vec<_> = after.keys().filter(|line| line.key == spec.key).collect();
            prop_assert!(!found.is_empty());
            prop_assert!(found.iter().all(|line| line.spec().as_ref() == Ok(*spec)));
        }
        // Nothing else is ours.
        prop_assert!(after.keys().filter(|line| line.ours).all(|line| first.contains_key(&line.key)));
        let mut again = KeyFile::parse(&after.to_bytes());
        prop_assert!(again.set_ours(&wanted).is_empty());
    }
}
