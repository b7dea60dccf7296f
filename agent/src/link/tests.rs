//! The link as a table: each event in each state, and delays within their bounds.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Effect, Event, LONGEST, LONGEST_PACE, Link, PROVEN, SHORTEST, Trouble};

fn lost() -> Event {
    Event::Down(Trouble::Network("cut".to_owned()))
}

fn refused() -> Event {
    Event::Down(Trouble::Refused("unknown key".to_owned()))
}

fn wrong_key() -> Event {
    Event::Down(Trouble::WrongHostKey { pinned: vec!["a".to_owned()], seen: "b".to_owned() })
}

/// The wait among the effects, in seconds.
fn wait(effects: &[Effect]) -> Option<f64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Wait(time) => Some(time.as_secs_f64()),
        _ => None,
    })
}

fn names(effects: &[Effect]) -> Vec<&'static str> {
    let name = |effect: &Effect| match effect {
        Effect::Dial => "dial",
        Effect::ReportUp => "up",
        Effect::ReportDown { .. } => "down",
        Effect::Wait(_) => "wait",
        Effect::Drain => "drain",
        Effect::HangUp => "hang up",
        Effect::Exit => "exit",
    };
    effects.iter().map(name).collect()
}

#[test]
fn walks_through_its_phases() {
    let table: &[(&str, &[Event], &[&str])] = &[
        ("dials at once", &[], &["dial"]),
        ("comes up", &[Event::Connected], &["up"]),
        ("waits after a failed attempt", &[lost()], &["down", "wait"]),
        ("waits after a loss, too", &[Event::Connected, lost()], &["down", "wait"]),
        ("dials again after the wait", &[lost(), Event::WaitOver], &["dial"]),
        ("a new connection", &[Event::Connected, Event::Redial], &["hang up", "dial"]),
        ("a newer attempt", &[Event::Redial], &["dial"]),
        ("no wait any more", &[lost(), Event::Redial], &["dial"]),
        ("the wait given up", &[lost(), Event::Redial, Event::WaitOver], &[]),
        ("the new connection", &[Event::Connected, Event::Redial, Event::Connected], &["up"]),
        ("none at a stop", &[Event::Connected, Event::Stop, Event::Redial], &[]),
        ("stop while dialling", &[Event::Stop], &["exit"]),
        ("stop while waiting", &[lost(), Event::Stop], &["exit"]),
        ("stop while connected", &[Event::Connected, Event::Stop], &["drain"]),
        ("all delivered", &[Event::Connected, Event::Stop, Event::Drained], &["hang up", "exit"]),
        ("cut while delivering", &[Event::Connected, Event::Stop, lost()], &["exit"]),
        ("a second stop", &[Event::Connected, Event::Stop, Event::Stop], &[]),
        ("a stale wait", &[Event::WaitOver], &[]),
        ("a stale connection", &[Event::Stop, Event::Connected], &[]),
        ("no second start", &[Event::Connected, Event::Start], &[]),
    ];
    for (case, events, expected) in table {
        let mut link = Link::default();
        let now = Instant::now();
        let mut last = link.on(Event::Start, now, 0.5);
        for event in *events {
            last = link.on(event.clone(), now, 0.5);
        }
        assert_eq!(names(&last), *expected, "{case}");
    }
}

#[test]
fn ceiling_doubles_up_to_a_minute() {
    let mut link = Link::default();
    let now = Instant::now();
    link.on(Event::Start, now, 1.0);
    let mut waits = Vec::new();
    for _ in 0..8 {
        waits.extend(wait(&link.on(lost(), now, 1.0)));
        link.on(Event::WaitOver, now, 1.0);
    }
    assert_eq!(waits, [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]);
}

#[test]
fn only_a_connection_that_worked_resets_the_back_off() {
    for (lived, expected) in [
        (Duration::ZERO, 16.0),
        (PROVEN - Duration::from_millis(1), 16.0),
        (PROVEN, 2.0),
        (PROVEN * 100, 2.0),
    ] {
        let mut link = Link::default();
        let start = Instant::now();
        link.on(Event::Start, start, 1.0);
        for _ in 0..3 {
            link.on(lost(), start, 1.0);
            link.on(Event::WaitOver, start, 1.0);
        }
        link.on(Event::Connected, start, 1.0);
        let effects = link.on(lost(), start + lived, 1.0);
        assert_eq!(wait(&effects), Some(expected), "lived {lived:?}");
    }
}

#[test]
fn refusals_are_tried_again_slowly_for_ever() {
    for event in [wrong_key(), refused()] {
        let mut link = Link::default();
        let now = Instant::now();
        link.on(Event::Start, now, 0.0);
        for jitter in [0.0, 0.5, 1.0, 0.0] {
            let effects = link.on(event.clone(), now, jitter);
            assert_eq!(wait(&effects), Some(30.0 + 30.0 * jitter));
            assert_eq!(names(&link.on(Event::WaitOver, now, jitter)), ["dial"]);
        }
    }
}

#[test]
fn the_backend_sets_the_pace_within_bounds() {
    for (asked, jitter, expected) in [
        (0, 0.0, 1.0),
        (8, 0.0, 8.0),
        (8, 0.5, 10.0),
        (8, 1.0, 12.0),
        (600, 0.5, 600.0),
        (86_400, 0.0, 600.0),
    ] {
        let mut link = Link::default();
        let now = Instant::now();
        link.on(Event::Start, now, jitter);
        let paced = Trouble::Paced(Duration::from_secs(asked));
        let effects = link.on(Event::Down(paced), now, jitter);
        assert_eq!(wait(&effects), Some(expected), "asked for {asked} s");
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Start),
        Just(Event::Connected),
        Just(lost()),
        Just(refused()),
        Just(wrong_key()),
        Just(Event::WaitOver),
        (0_u64..1_000_000).prop_map(|s| Event::Down(Trouble::Paced(Duration::from_secs(s)))),
    ]
}

proptest! {
    #[test]
    fn waits_stay_within_bounds(
        events in proptest::collection::vec((any_event(), 0_u64..200, 0.0_f64..=1.0), 0..100)
    ) {
        let mut link = Link::default();
        let mut now = Instant::now();
        link.on(Event::Start, now, 0.5);
        for (event, seconds, jitter) in events {
            now += Duration::from_secs(seconds);
            let paced = matches!(event, Event::Down(Trouble::Paced(_)));
            let longest = if paced { LONGEST_PACE } else { LONGEST };
            let effects = link.on(event, now, jitter);
            if let Some(seconds) = wait(&effects) {
                prop_assert!(seconds >= SHORTEST.as_secs_f64());
                prop_assert!(seconds <= longest.as_secs_f64());
            }
        }
    }

    #[test]
    fn after_a_stop_it_never_dials(
        before in proptest::collection::vec(any_event(), 0..20),
        after in proptest::collection::vec(any_event(), 0..20),
    ) {
        let mut link = Link::default();
        let now = Instant::now();
        for event in before {
            link.on(event, now, 0.5);
        }
        link.on(Event::Stop, now, 0.5);
        for event in after {
            let effects = link.on(event, now, 0.5);
            prop_assert!(!effects.contains(&Effect::Dial));
            prop_assert!(!effects.iter().any(|effect| matches!(effect, Effect::Wait(_))));
        }
    }
}
