//! Rules that hold for a time, and rules of which the file is gone: sudo itself decides, nobody else runs.

use super::*;

#[test]
fn a_rule_holds_within_its_time_and_no_longer() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    let now = now();
    for (from, until, holds) in [
        (None, Some(now - 1), false),
        (None, Some(now + 1000), true),
        (Some(now - 1000), None, true),
        (Some(now + 1000), None, false),
        (Some(now - 1000), Some(now + 1000), true),
        (Some(now - 1000), Some(now - 1), false),
        (Some(now + 1000), Some(now + 2000), false),
    ] {
        let window = SudoPolicy { not_before: from, not_after: until, ..SudoPolicy::default() };
        place.set(&Sudo::Policy(Box::new(window)), None).unwrap();
        let found = place.sudo("id -u").is_some();
        assert_eq!(found, holds, "from {from:?} until {until:?}, now {now}");
    }
}

#[test]
fn the_earlier_of_two_ends_counts() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    let late = SudoPolicy { not_after: Some(now() + 1000), ..SudoPolicy::default() };
    let late = Sudo::Policy(Box::new(late));
    place.set(&late, Some(now() + 2000)).unwrap();
    assert_eq!(place.sudo("id -u").as_deref(), Some("0"));
    place.set(&late, Some(now() - 1)).unwrap();
    assert_eq!(place.sudo("id -u"), None);
}

#[test]
fn a_rule_whose_file_is_gone_or_emptied_gives_nothing_and_is_written_again() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    place.set(&policy("{}"), None).unwrap();
    place.host.exec(&["rm", FILE]).unwrap();
    assert_eq!(place.sudo("id -u"), None);
    assert_eq!(place.set(&policy("{}"), None), Ok(Change::Changed));
    assert_eq!(place.sudo("id -u").as_deref(), Some("0"));
    // Good for visudo, and worth nothing.
    place.host.exec(&["truncate", "--size=0", FILE]).unwrap();
    place.host.exec(&["visudo", "-c", "-f", FILE]).unwrap();
    assert_eq!(place.sudo("id -u"), None);
    let error = place.set(&policy("{}"), None).unwrap_err();
    assert!(error.contains("bastio-alice is empty and is left alone; remove it"), "{error}");
}

#[test]
fn a_rule_that_others_could_write_is_written_again() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    place.set(&policy("{}"), None).unwrap();
    for spoil in [["chmod", "0666", FILE], ["chown", "alice", FILE]] {
        place.host.exec(&spoil).unwrap();
        assert_eq!(
            place.ssh.run("alice", place.host.ip(), "sudo -n id -u").unwrap().code(),
            Some(1)
        );
        assert_eq!(place.set(&policy("{}"), None), Ok(Change::Changed), "{spoil:?}");
        assert_eq!(place.sudo("id -u").as_deref(), Some("0"), "{spoil:?}");
    }
}
