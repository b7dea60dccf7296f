//! Hosts whose sudo is broken, foreign or missing: nothing of others is touched, nothing is left half-done, and rights
//! can still be taken away.

use super::*;

const FOREIGN: &str = "/etc/sudoers.d/foreign";
const VISUDO: &str = "/usr/sbin/visudo";

fn refused(place: &Place<'_>, expected: &str) {
    let error = place.set(&policy("{}"), None).unwrap_err();
    assert!(error.contains(expected), "{error}");
}

/// Puts a script in visudo's place.
fn replace_visudo(place: &Place<'_>, script: &str) {
    place.host.exec(&["rm", "-f", VISUDO]).unwrap();
    place.host.write_file(VISUDO, format!("#!/bin/sh\n{script}\n")).unwrap();
    place.host.exec(&["chmod", "755", VISUDO]).unwrap();
}

#[test]
fn where_others_broke_sudo_nothing_new_is_given_and_rights_can_still_be_taken() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    place.host.write_file(FOREIGN, "alice ALL=(ALL:ALL NOPASSWD: ALL\n").unwrap();
    place.host.exec(&["chmod", "0440", FOREIGN]).unwrap();
    refused(&place, "broken by others: /etc/sudoers.d/foreign:1:");
    assert_eq!(place.files(), "README\nforeign\n");

    place.host.exec(&["mv", FOREIGN, "/root/"]).unwrap();
    place.set(&policy("{}"), None).unwrap();
    place.host.exec(&["mv", "/root/foreign", FOREIGN]).unwrap();
    // Less than before: the new rule counts, and the trouble is told.
    let error = place.set_policy(r#"{"commands":["/usr/bin/id"]}"#).unwrap_err();
    assert!(error.contains("the new rule is in its place"), "{error}");
    let text = String::from_utf8(place.host.read_file(FILE).unwrap()).unwrap();
    assert!(text.contains("/usr/bin/id"), "{text}");
    assert_eq!(place.set(&Sudo::None, None), Ok(Change::Changed));
    assert_eq!(place.files(), "README\nforeign\n");
}

#[test]
fn a_rule_of_ours_that_somebody_broke_is_mended() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    place.set(&policy("{}"), None).unwrap();
    place.host.exec(&["sed", "-i", "s/ALL=/ALL/", FILE]).unwrap();
    assert!(!place.host.try_exec(&["visudo", "-c"]).unwrap().success());
    assert_eq!(place.set(&policy("{}"), None), Ok(Change::Changed));
    assert_eq!(place.sudo("id -u").as_deref(), Some("0"));
    place.host.exec(&["visudo", "-c"]).unwrap();
}

#[test]
fn a_foreign_file_of_our_name_stays() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    let theirs = "alice ALL=(ALL) NOPASSWD: /usr/bin/id\n";
    place.host.write_file(FILE, theirs).unwrap();
    refused(&place, "bastio-alice is not written by bastio");
    let error = place.set(&Sudo::None, None).unwrap_err();
    assert!(error.contains("is left alone; remove it and try again"), "{error}");
    assert_eq!(place.host.read_file(FILE).unwrap(), theirs.as_bytes());
    place.host.exec(&["rm", FILE]).unwrap();
    place.host.exec(&["ln", "-s", "/etc/shadow", FILE]).unwrap();
    let shadow = place.host.read_file("/etc/shadow").unwrap();
    refused(&place, "bastio-alice is a symbolic link and is left alone");
    assert_eq!(place.host.read_file("/etc/shadow").unwrap(), shadow);
}

#[test]
fn a_folder_that_sudo_does_not_read_or_others_write_is_refused() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    place.set(&policy("{}"), None).unwrap();
    place.host.exec(&["chmod", "0777", "/etc/sudoers.d"]).unwrap();
    refused(&place, "/etc/sudoers.d can be written by others than root");
    place.host.exec(&["chmod", "0750", "/etc/sudoers.d"]).unwrap();
    place.host.exec(&["sed", "-i", "/includedir/d", "/etc/sudoers"]).unwrap();
    refused(&place, "/etc/sudoers does not include /etc/sudoers.d; add the line `@includedir");
    assert_eq!(place.set(&Sudo::None, None), Ok(Change::Changed));
    place.host.exec(&["rm", "-r", "/etc/sudoers.d"]).unwrap();
    refused(&place, "/etc/sudoers.d is missing; run: install -d");
    assert_eq!(place.set(&Sudo::None, None), Ok(Change::Unchanged));
}

#[test]
fn without_visudo_nothing_is_given_and_rights_can_still_be_taken() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    place.set(&policy("{}"), None).unwrap();
    place.host.exec(&["rm", VISUDO]).unwrap();
    refused(&place, "this host has no visudo; install sudo and try again");
    assert_eq!(place.set(&Sudo::None, None), Ok(Change::Changed));
    assert_eq!(place.files(), "README\n");
}

#[test]
fn what_visudo_refuses_never_counts() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    place.set_policy(r#"{"commands":["/usr/bin/id"]}"#).unwrap();
    let before = place.host.read_file(FILE).unwrap();
    // It knows no NOTAFTER, say.
    replace_visudo(
        &place,
        "case $3 in *.bastio.new) echo \"$3:2:1: syntax error\" >&2; exit 1;; esac",
    );
    refused(&place, "does not understand the rule: /etc/sudoers.d/bastio-alice:2:1: syntax error");
    assert_eq!(place.host.read_file(FILE).unwrap(), before);
    // Good by itself, and bad together with the others: only once it is in its place.
    let script = "case $3 in /etc/sudoers) ! grep -q 'PASSWD: ALL' /etc/sudoers.d/bastio-alice || { echo clash >&2; exit 1; };; esac";
    replace_visudo(&place, script);
    refused(&place, "breaks sudo's other rules and was taken back: clash");
    assert_eq!(place.host.read_file(FILE).unwrap(), before);
    place.set(&Sudo::None, None).unwrap();
    replace_visudo(
        &place,
        "case $3 in /etc/sudoers) [ ! -e /etc/sudoers.d/bastio-alice ] || exit 1;; esac",
    );
    refused(&place, "was taken back");
    replace_visudo(&place, "kill -9 $$");
    refused(&place, "visudo: was ended by signal 9");
    assert_eq!(place.files(), "README\n");
}

#[test]
fn a_read_only_folder_is_named() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    place.set_policy(r#"{"commands":["/usr/bin/id"]}"#).unwrap();
    let before = place.host.read_file(FILE).unwrap();
    place.host.exec(&["mount", "--bind", "/etc/sudoers.d", "/etc/sudoers.d"]).unwrap();
    place.host.exec(&["mount", "-o", "remount,ro,bind", "/etc/sudoers.d"]).unwrap();
    refused(&place, "the file system is read-only; make it writable");
    let error = place.set(&Sudo::None, None).unwrap_err();
    assert!(
        error.contains("cannot remove /etc/sudoers.d/bastio-alice: the file system is read-only"),
        "{error}"
    );
    assert_eq!(place.host.read_file(FILE).unwrap(), before);
}

#[test]
fn errors_have_the_reason_for_whoever_must_decide() {
    require_root!();
    let world = World::new().unwrap();
    let place = Place::new(&world);
    let ready =
        || Sudoers::at(Path::new("/etc/sudoers.d")).check_ready(&Username::parse("alice").unwrap());
    assert!(place.host.within(ready).unwrap().is_ok());
    place.host.exec(&["rm", VISUDO]).unwrap();
    assert!(matches!(place.host.within(ready).unwrap(), Err(SudoersError::NoVisudo)));
}
