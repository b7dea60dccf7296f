//! The guard as a table: each event in each state.

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

fn pending(what: &str, files: &[(&str, &str)], until: i64) -> Pending {
    let file = |(path, bytes): &(&str, &str)| SavedFile {
        path: path.into(),
        was: Some(file::Content { bytes: bytes.as_bytes().to_vec(), mode: 0o600, uid: 0, gid: 0 }),
    };
    let files = files.iter().map(file).collect();
    Pending { what: what.to_owned(), until, files, account: None, sshd: None }
}

fn one() -> Pending {
    pending("keys of admin", &[("/k", "old")], 1060)
}

fn names(effects: &[Effect]) -> Vec<&'static str> {
    let name = |effect: &Effect| match effect {
        Effect::Keep(_) => "keep",
        Effect::Reconnect => "reconnect",
        Effect::Confirm(_) => "confirm",
        Effect::Forget => "forget",
        Effect::RollBack(_) => "roll back",
    };
    effects.iter().map(name).collect()
}

#[test]
fn walks_through_its_states() {
    use Event::{Before, Connected, Found, Made, Tick};
    let (yes, no) = (Made { is_changed: true }, Made { is_changed: false });
    // Each event with the second in which it comes, and the effects of the last one.
    type Row<'a> = (&'a str, &'a [(u64, Event)], &'a [&'a str]);
    let table: &[Row] = &[
        ("kept before anything is changed", &[(0, Before(one()))], &["keep"]),
        ("asks for a connection", &[(0, Before(one())), (1, yes.clone())], &["reconnect"]),
        ("nothing changed", &[(0, Before(one())), (1, no.clone())], &["forget"]),
        ("confirmed", &[(0, Before(one())), (1, yes.clone()), (60, Connected)], &["confirm"]),
        ("not yet", &[(0, Before(one())), (1, yes.clone()), (60, Tick)], &[]),
        ("time over", &[(0, Before(one())), (1, yes.clone()), (61, Tick)], &["roll back"]),
        ("once", &[(0, Before(one())), (1, yes.clone()), (61, Tick), (62, Tick)], &[]),
        ("too late", &[(0, Before(one())), (1, yes.clone()), (61, Tick), (62, Connected)], &[]),
        ("a connection while changing", &[(0, Before(one())), (0, Connected)], &[]),
        ("nothing to confirm", &[(0, Connected)], &[]),
        ("nothing to roll back", &[(99, Tick)], &[]),
        ("nothing made", &[(0, yes.clone())], &[]),
        ("found too late", &[(0, Found(one(), 1060))], &["roll back"]),
        ("found in time", &[(0, Found(one(), 1050))], &[]),
        ("found, confirmed", &[(0, Found(one(), 1050)), (9, Connected)], &["confirm"]),
        ("found, time over", &[(0, Found(one(), 1050)), (10, Tick)], &["roll back"]),
        ("found, clock gone back", &[(0, Found(one(), -99)), (60, Tick)], &["roll back"]),
        (
            "a second change begins anew",
            &[
                (0, Before(one())),
                (0, yes.clone()),
                (50, Before(one())),
                (50, yes.clone()),
                (100, Tick),
            ],
            &[],
        ),
        (
            "a second one that changes nothing does not",
            &[(0, Before(one())), (0, yes), (50, Before(one())), (50, no), (60, Tick)],
            &["roll back"],
        ),
    ];
    for (case, events, expected) in table {
        let begun = Instant::now();
        let mut guard = Guard::new(LIMIT);
        let mut last = Vec::new();
        for (second, event) in *events {
            last = guard.on(event.clone(), begun + Duration::from_secs(*second));
        }
        assert_eq!(names(&last), *expected, "{case}");
    }
}

#[test]
fn the_deadline_is_there_only_while_it_waits() {
    let begun = Instant::now();
    let mut guard = Guard::new(LIMIT);
    assert_eq!(guard.deadline(), None);
    guard.on(Event::Before(one()), begun);
    assert_eq!(guard.deadline(), None);
    guard.on(Event::Made { is_changed: true }, begun);
    assert_eq!(guard.deadline(), Some(begun + LIMIT));
    guard.on(Event::Connected, begun);
    assert_eq!(guard.deadline(), None);
}

#[test]
fn of_two_changes_what_was_first_there_comes_back() {
    let begun = Instant::now();
    let mut guard = Guard::new(LIMIT);
    guard.on(Event::Before(one()), begun);
    guard.on(Event::Made { is_changed: true }, begun);
    let second = pending("sshd", &[("/k", "between"), ("/s", "old")], 2000);
    guard.on(Event::Before(second), begun);
    guard.on(Event::Made { is_changed: true }, begun);
    let effects = guard.on(Event::Tick, begun + LIMIT);
    let expected = pending("keys of admin; sshd", &[("/k", "old"), ("/s", "old")], 2000);
    assert_eq!(effects, [Effect::RollBack(expected)]);
}

#[test]
fn where_keys_lay_comes_back_with_what_was_changed_meanwhile() {
    let begun = Instant::now();
    let mut guard = Guard::new(LIMIT);
    let addition = file::SavedFile { path: "/a".into(), was: None };
    let sshd = Pending { sshd: Some(addition.clone()), ..pending("where keys lie", &[], 1060) };
    guard.on(Event::Before(sshd), begun);
    guard.on(Event::Made { is_changed: true }, begun);
    guard.on(Event::Before(one()), begun);
    guard.on(Event::Made { is_changed: true }, begun);
    let effects = guard.on(Event::Tick, begun + LIMIT);
    let [Effect::RollBack(both)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((&both.sshd, both.files.len()), (&Some(addition), 1));
    let text = serde_json::to_string(both).unwrap();
    assert_eq!(serde_json::from_str::<Pending>(&text).unwrap(), *both);
    let earlier = r#"{"what":"w","until":1,"files":[]}"#;
    assert_eq!(serde_json::from_str::<Pending>(earlier).unwrap().sshd, None, "of older agents");
}
