//! Every way to tamper with a chain, in tables and at random.

use proptest::prelude::*;

use super::*;
use crate::Status;

fn row(id: i64, detail: &str) -> AuditRow {
    AuditRow {
        id,
        at: 5,
        actor: "backend".into(),
        from: None,
        action: "user.add".into(),
        user: None,
        server: None,
        detail: detail.into(),
        reason: None,
        status: None,
    }
}

fn chain(details: &[&str]) -> Vec<ChainedRow> {
    let mut rows = Vec::<ChainedRow>::new();
    for (id, detail) in (1..).zip(details) {
        let before = rows.last().map(ChainedRow::head);
        rows.push(ChainedRow::behind(before.as_ref(), row(id, detail)));
    }
    rows
}

fn letters() -> Vec<ChainedRow> {
    chain(&["a", "b", "c", "d", "e", "f"])
}

/// The same row with hashes as if it had always been so.
fn forged(id: i64, prev_hash: &str) -> ChainedRow {
    let row = row(id, "forged");
    ChainedRow { hash: hash(prev_hash, &row), prev_hash: prev_hash.to_owned(), row }
}

fn walk(rows: &[ChainedRow], scope: Scope, end: Option<Head>, known: Option<Head>) -> Verdict {
    let mut verifier = Verifier::new(scope, end, known);
    rows.iter().for_each(|row| verifier.row(Some(row.clone())));
    verifier.finish()
}

/// The fault in what became of `original`, whose head is known.
fn fault(original: &[ChainedRow], rows: &[ChainedRow]) -> Option<Fault> {
    let end = original.last().map(ChainedRow::head);
    match walk(rows, Scope::Whole, end, None) {
        Verdict::Intact(_) => None,
        Verdict::Broken(place) => Some(place.fault),
    }
}

#[test]
fn the_hash_of_rows_of_old_stays_what_it_was() {
    // SHA-256 of `["ab",7,5,"key:admin","192.0.2.7","user.add","alice",null,"a \"b\""]`
    let mut old = row(7, "a \"b\"");
    old.actor = "key:admin".into();
    old.from = Some("192.0.2.7".into());
    old.user = Some("alice".into());
    assert_eq!(
        hash("ab", &old),
        "afbd28070dd32cdf67c8834ef138f432f4057753b872ccd9a7e9e2cca9a5beb5"
    );
    // The same with `,{"reason":"on call","status":200}` before the last bracket.
    old.reason = Some("on call".into());
    old.status = Some(Status::Done);
    assert_eq!(
        hash("ab", &old),
        "b7388eafc881d5c5d38a7566e9b7f3969a71d7086d94b63c7c51feb75633113f"
    );
}

#[test]
fn what_is_added_to_a_row_cannot_pass_for_something_else() {
    let mut hashes = std::collections::BTreeSet::new();
    for (detail, reason, status) in [
        ("", None, None),
        ("", Some(""), None),
        ("", Some("x"), None),
        ("x", None, None),
        ("", None, Some(Status::Done)),
        ("", Some("200"), None),
        ("", Some("x"), Some(Status::Failed)),
        ("", None, Some(Status::Failed)),
    ] {
        let more = AuditRow { reason: reason.map(str::to_owned), status, ..row(1, detail) };
        assert!(hashes.insert(hash("", &more)), "{more:?}");
    }
}

#[test]
fn an_untouched_chain_is_intact() {
    let rows = letters();
    let summary = Summary {
        first: Some(1),
        last: Some(rows[5].head()),
        rows: 6,
        left_out: 0,
        known_seen: true,
    };
    let (end, known) = (Some(rows[5].head()), Some(rows[2].head()));
    assert_eq!(walk(&rows, Scope::Whole, end, known), Verdict::Intact(summary));
    let Verdict::Intact(none) = walk(&[], Scope::Whole, None, None) else { panic!("no rows") };
    assert_eq!((none.first, none.last, none.rows), (None, None, 0));
}

#[test]
fn a_part_tells_how_much_it_leaves_out() {
    let rows = letters();
    let part = [rows[1].clone(), rows[2].clone(), rows[5].clone()];
    let Verdict::Intact(summary) = walk(&part, Scope::Part, None, Some(rows[0].head())) else {
        panic!("a part is intact")
    };
    assert_eq!((summary.first, summary.rows, summary.left_out), (Some(2), 3, 2));
    assert!(!summary.known_seen);
    for (rows, expected) in [
        (vec![rows[2].clone(), rows[1].clone()], Fault::Moved { row: 2, place: 4 }),
        (vec![rows[2].clone(), rows[2].clone()], Fault::Inserted(Some(3))),
        (vec![rows[2].clone(), forged(4, "x")], Fault::Changed(3)),
        (vec![ChainedRow { row: row(3, "x"), ..rows[2].clone() }], Fault::Changed(3)),
    ] {
        let Verdict::Broken(place) = walk(&rows, Scope::Part, None, None) else { panic!("broken") };
        assert_eq!(place.fault, expected);
    }
}

#[test]
fn what_is_missing_at_either_end_shows_by_the_head() {
    let rows = letters();
    assert_eq!(fault(&rows, &rows[2..]), Some(Fault::Removed { first: 1, last: 2 }));
    assert_eq!(fault(&rows, &rows[..4]), Some(Fault::Removed { first: 5, last: 6 }));
    assert_eq!(fault(&rows, &[]), Some(Fault::Removed { first: 1, last: 6 }));
    let more = [letters(), vec![forged(7, &rows[5].hash)]].concat();
    assert_eq!(fault(&rows, &more), Some(Fault::Inserted(Some(7))));
    let known = Some(Head { id: 9, hash: rows[5].hash.clone() });
    let Verdict::Broken(place) = walk(&rows, Scope::Whole, None, known) else { panic!("cut") };
    assert_eq!(place, Place { fault: Fault::Removed { first: 7, last: 9 }, position: 6 });
}

#[test]
fn a_chain_written_anew_is_not_the_one_that_was_known() {
    let anew = chain(&["a", "X", "c", "d", "e", "f"]);
    for id in [3_usize, 6] {
        let known = letters()[id - 1].head();
        let Verdict::Broken(place) = walk(&anew, Scope::Whole, None, Some(known)) else {
            panic!("it is another one")
        };
        let position = u64::try_from(id).expect("small");
        let id = i64::try_from(id).expect("small");
        assert_eq!(place, Place { fault: Fault::OtherHead(id), position });
    }
    let known = letters()[0].head();
    assert!(matches!(walk(&anew, Scope::Whole, None, Some(known)), Verdict::Intact(_)));
}

#[test]
fn a_row_rewritten_with_its_hash_is_named() {
    let rows = letters();
    for changed in 0..6 {
        let mut tampered = letters();
        let id = rows[changed].row.id;
        tampered[changed] = forged(id, &rows[changed].prev_hash);
        let expected = if id == 6 { Fault::OtherHead(6) } else { Fault::Changed(id) };
        assert_eq!(fault(&rows, &tampered), Some(expected));
        tampered[changed] = forged(id, "x");
        let expected = match fault(&rows, &tampered) {
            Some(Fault::Changed(found)) if id == 6 => found == 5 || found == 6,
            Some(Fault::Changed(found)) => found == id,
            _ => false,
        };
        assert!(expected, "row {id} with another hash of the row before");
    }
}

#[test]
fn a_line_that_is_no_row_is_a_fault() {
    let rows = letters();
    let lines = [Some(rows[0].clone()), None, Some(rows[1].clone())];
    let mut verifier = Verifier::new(Scope::Whole, None, None);
    lines.into_iter().for_each(|row| verifier.row(row));
    let place = Place { fault: Fault::Inserted(None), position: 2 };
    assert_eq!(verifier.finish(), Verdict::Broken(place));
    let mut verifier = Verifier::new(Scope::Whole, None, None);
    [Some(&rows[0]), None, Some(&rows[2])].iter().for_each(|row| verifier.row(row.cloned()));
    let place = Place { fault: Fault::Changed(2), position: 2 };
    assert_eq!(verifier.finish(), Verdict::Broken(place));
}

#[test]
fn lines_hold_a_row_and_nothing_else() {
    let row = &letters()[1];
    let line = serde_json::to_string(row).expect("JSON");
    assert_eq!(ChainedRow::parse(&line).as_ref(), Some(row));
    for bad in [
        line.replacen('{', "{\"x\":1,", 1),
        line.replacen('{', "{\"detail\":\"y\",", 1),
        line.replace("\"from\":null,", ""),
        line.replace("\"id\":2", "\"id\":2.0"),
        line.replace("\"id\":2", "\"id\":\"2\""),
        format!("{line},"),
        String::new(),
        "[]".to_owned(),
    ] {
        assert_eq!(ChainedRow::parse(&bad), None, "{bad}");
    }
}

#[test]
fn patterns_and_heads_as_people_write_them() {
    let exactly = |text: &str| Some(Pattern::Exactly(text.to_owned()));
    let beginning = |text: &str| Some(Pattern::Beginning(text.to_owned()));
    for (text, expected) in [
        ("grant.add", exactly("grant.add")),
        ("grant.*", beginning("grant.")),
        ("grant.", beginning("grant.")),
        ("gr*", beginning("gr")),
        ("*", None),
        ("", None),
        ("*.add", None),
        ("a\nb", None),
    ] {
        assert_eq!(text.parse::<Pattern>().ok(), expected, "{text}");
    }
    assert_eq!(beginning("grant.").expect("one").to_string(), "grant.*");
    let hash = "0a".repeat(32);
    let head = Head { id: 7, hash: hash.clone() };
    assert_eq!(format!("7:{hash}").parse(), Ok(head.clone()));
    assert_eq!(head.to_string(), format!("7:{hash}"));
    for bad in
        ["", "7", "7:", ":ab", &format!("0:{hash}"), &format!("7:{hash}0"), &"7:0A".repeat(32)]
    {
        assert_eq!(bad.parse::<Head>(), Err(HeadError), "{bad}");
    }
}

prop_compose! {
    fn any_chain()(details in prop::collection::vec("[a-z\"\\\\é ]{0,6}", 2..12)) -> Vec<ChainedRow> {
        let details: Vec<&str> = details.iter().map(String::as_str).collect();
        chain(&details)
    }
}

/// Changes one value of a row.
fn change(row: &mut ChainedRow, which: usize) {
    match which % 12 {
        0 => row.row.id += 1,
        1 => row.row.at -= 1,
        2 => row.row.actor.push('x'),
        3 => row.row.from = Some(String::new()),
        4 => row.row.action.push('x'),
        5 => row.row.user = Some(String::new()),
        6 => row.row.server = Some("x".into()),
        7 => row.row.detail.push('x'),
        8 => row.row.reason = Some(String::new()),
        9 => row.row.status = Some(Status::Done),
        10 => row.prev_hash.push('0'),
        _ => row.hash = "0".repeat(64),
    }
}

proptest! {
    #[test]
    fn one_changed_value_names_its_row(rows in any_chain(), at: prop::sample::Index, which: usize) {
        let at = at.index(rows.len());
        let mut tampered = rows.clone();
        change(&mut tampered[at], which);
        prop_assert_eq!(fault(&rows, &tampered), Some(Fault::Changed(rows[at].row.id)));
    }

    #[test]
    fn removed_rows_are_named(rows in any_chain(), a: prop::sample::Index, b: prop::sample::Index) {
        let (a, b) = (a.index(rows.len()), b.index(rows.len()));
        let (first, last) = (a.min(b), a.max(b));
        let mut tampered = rows.clone();
        tampered.drain(first..=last);
        let expected = Fault::Removed { first: rows[first].row.id, last: rows[last].row.id };
        prop_assert_eq!(fault(&rows, &tampered), Some(expected));
    }

    #[test]
    fn exchanged_rows_are_named(rows in any_chain(), a: prop::sample::Index, b: prop::sample::Index) {
        let (a, b) = (a.index(rows.len()), b.index(rows.len()));
        prop_assume!(a != b);
        let mut tampered = rows.clone();
        tampered.swap(a, b);
        let (row, place) = (rows[a.max(b)].row.id, rows[a.min(b)].row.id);
        prop_assert_eq!(fault(&rows, &tampered), Some(Fault::Moved { row, place }));
    }

    #[test]
    fn a_row_moved_elsewhere_is_found(rows in any_chain(), a: prop::sample::Index, b: prop::sample::Index) {
        let (from, to) = (a.index(rows.len()), b.index(rows.len()));
        prop_assume!(from != to);
        let mut tampered = rows.clone();
        let moved = tampered.remove(from);
        tampered.insert(to, moved.clone());
        let found = fault(&rows, &tampered);
        let named = matches!(found, Some(Fault::Moved { row, place })
            if row == moved.row.id || place == moved.row.id);
        prop_assert!(named, "{found:?}");
    }

    #[test]
    fn a_row_repeated_is_named(rows in any_chain(), a: prop::sample::Index, b: prop::sample::Index) {
        let (from, to) = (a.index(rows.len()), b.index(rows.len() + 1));
        let mut tampered = rows.clone();
        tampered.insert(to, rows[from].clone());
        prop_assert_eq!(fault(&rows, &tampered), Some(Fault::Inserted(Some(rows[from].row.id))));
    }

    #[test]
    fn a_row_put_in_is_named(rows in any_chain(), at: prop::sample::Index, id in 1_i64..30, linked: bool, whole: bool) {
        let at = at.index(rows.len() + 1);
        let before = at.checked_sub(1).map_or("", |before| rows[before].hash.as_str());
        let mut strange = forged(id, if linked { before } else { "x" });
        if !whole {
            strange.hash = "0".repeat(64);
        }
        let mut tampered = rows.clone();
        tampered.insert(at, strange);
        let found = fault(&rows, &tampered);
        let named = match found {
            Some(Fault::Inserted(found)) => found == Some(id),
            Some(Fault::Moved { row, .. }) => whole && row == id,
            _ => false,
        };
        prop_assert!(named, "{found:?}");
    }
}
