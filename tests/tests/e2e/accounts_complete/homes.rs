//! What becomes of homes, and of the numeric ids that own them.

use super::*;

fn uid_of(host: &Host, name: &str) -> u32 {
    fields(host, "/etc/passwd", name)[2].parse().unwrap()
}

fn owner(host: &Host, path: &str) -> u32 {
    host.within(|| std::fs::symlink_metadata(path)).unwrap().unwrap().uid()
}

/// The one home in quarantine.
fn put_away(host: &Host) -> String {
    let names = host.exec(&["ls", "-A", "/home/.bastio-quarantine"]).unwrap().stdout;
    assert_eq!(names.lines().count(), 1, "{names}");
    format!("/home/.bastio-quarantine/{}", names.trim())
}

#[test]
fn a_kept_home_waits_for_its_owner_and_no_other() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    done(&host, &create("ann", json!({"sudo_group": true})));
    let uid = uid_of(&host, "ann");
    host.exec(&["chmod", "2755", "/home/ann"]).unwrap();
    host.exec(&["sh", "-ec", "echo mine > /home/ann/notes; chown ann: /home/ann/notes"]).unwrap();
    assert_eq!(done(&host, &remove("ann", "keep")), "its home was kept: /home/ann");
    assert_eq!(fields(&host, "/etc/passwd", "ann"), [""]);
    assert_eq!(owner(&host, "/home/ann/notes"), uid);
    // Whoever gets the number of her group reads nothing of hers.
    assert_eq!(host.exec(&["stat", "-c", "%a", "/home/ann"]).unwrap().stdout, "700\n");
    // The id that owns it is not the next one's, although nobody has it.
    done(&host, &create("bob", json!({})));
    assert_ne!(uid_of(&host, "bob"), uid);
    let found = host.within(|| {
        let name = Username::parse("ann").unwrap();
        SystemAccounts::default().found_home(&name, None)
    });
    let found = found.unwrap().unwrap().unwrap();
    assert_eq!((found.uid, found.is_folder), (uid, true));
    refused(&host, &create("ann", json!({})), "something is there already");
    refused(&host, &create("ann", json!({"uid": uid + 7, "keep_home": true})), "no folder of uid");
    let kept = create("ann", json!({"uid": uid, "keep_home": true}));
    done(&host, &kept);
    assert_eq!(uid_of(&host, "ann"), uid);
    assert_eq!(host.read_file("/home/ann/notes").unwrap(), b"mine\n");
    assert!(!groups_of(&host, "ann").contains("sudo"));
    // A link in its place is taken for nobody's home.
    done(&host, &remove("ann", "keep"));
    host.exec(&["sh", "-ec", "mv /home/ann /srv/ann; ln -s /srv/ann /home/ann"]).unwrap();
    refused(&host, &kept, "no folder of uid");
}

#[test]
fn a_making_that_fails_leaves_a_kept_home_alone() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    done(&host, &create("ann", json!({})));
    let uid = uid_of(&host, "ann");
    done(&host, &remove("ann", "keep"));
    host.exec(&["mv", "/usr/sbin/useradd", "/usr/sbin/useradd.real"]).unwrap();
    let script = "#!/bin/sh\n/usr/sbin/useradd.real \"$@\"\nexit 1\n";
    host.write_file("/usr/sbin/useradd", script).unwrap();
    host.exec(&["chmod", "755", "/usr/sbin/useradd"]).unwrap();
    refused(
        &host,
        &create("ann", json!({"uid": uid, "keep_home": true})),
        "useradd: cannot update",
    );
    assert!(host.exists("/home/ann/.bashrc").unwrap());
}

#[test]
fn a_home_in_quarantine_is_roots_until_its_days_are_over() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    done(&host, &create("ann", json!({})));
    let uid = uid_of(&host, "ann");
    let plant = "mkdir -p /home/ann/a/b; ln -s /etc /home/ann/a/link; chown -hR ann: /home/ann/a";
    host.exec(&["sh", "-ec", plant]).unwrap();
    let told = done(&host, &remove("ann", "quarantine"));
    let home = put_away(&host);
    assert_eq!(told, format!("its home was moved to quarantine: {home}"));
    assert!(home.starts_with(&format!("/home/.bastio-quarantine/ann-{uid}-")), "{home}");
    assert!(!host.exists("/home/ann").unwrap() && host.exists(format!("{home}/a/b")).unwrap());
    let mode = host.exec(&["stat", "-c", "%U %a", "/home/.bastio-quarantine"]).unwrap().stdout;
    assert_eq!(mode.trim(), "root 700");
    // The name is free again, for a new home.
    done(&host, &create("ann", json!({})));
    assert!(host.exists("/home/ann/.bashrc").unwrap());

    let etc = host.exec(&["ls", "/etc"]).unwrap().stdout;
    let sweep = |days: u64| done(&host, &json!({"sweep": {"days": days, "keep": 30}}));
    assert!(!sweep(29).contains("ann-"), "its days are not over");
    assert!(host.exists(&home).unwrap());
    assert!(sweep(31).contains(&format!("deleted: [\"{home}\"]")));
    assert!(!host.exists(&home).unwrap() && host.exists("/home/ann/.bashrc").unwrap());
    assert_eq!(host.exec(&["ls", "/etc"]).unwrap().stdout, etc, "links are not followed");
}

#[test]
fn a_locked_account_keeps_all_but_its_rights() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    done(&host, &create("ann", json!({"sudo_group": true})));
    host.exec(&["usermod", "--append", "--groups", "adm,disk", "ann"]).unwrap();
    let told = done(&host, &remove("ann", "lock"));
    assert_eq!(told, "the account stays, locked, with its home /home/ann");
    assert_eq!(groups_of(&host, "ann"), set(&["ann", "bastio-managed"]));
    assert_eq!(fields(&host, "/etc/shadow", "ann")[7], "1");
    assert_eq!(done(&host, &remove("ann", "lock")), told, "and again");
    assert_eq!(done(&host, &remove("ann", "delete")), "home removed");
    assert!(!host.exists("/home/ann").unwrap());
}

/// Homes that must stay, whatever is asked: what makes them so, and why they are left.
const STAYING: [(&str, &str); 7] = [
    ("usermod -d / ann", "/ is no folder of one person"),
    ("usermod -d /srv ann", "/srv is no folder of one person"),
    (
        "mount -t tmpfs -o uid=$(id -u ann) tmpfs /home/ann",
        "has a file system mounted at /home/ann",
    ),
    ("mkdir /home/ann/m; mount -t tmpfs tmpfs /home/ann/m", "mounted at /home/ann/m"),
    ("useradd -M -d /home/ann svc", "holds the home of svc"),
    ("chown games /home/ann", "belongs to uid 5"),
    ("mv /home/ann /srv/ann; ln -s /srv/ann /home/ann", "is no real folder"),
];

#[test]
fn homes_that_are_more_than_one_persons_are_neither_moved_nor_deleted() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    for removal in ["quarantine", "delete"] {
        for (change, reason) in STAYING {
            done(&host, &create("ann", json!({})));
            host.exec(&["sh", "-ec", change]).unwrap();
            let told = done(&host, &remove("ann", removal));
            assert!(told.contains("its home was left: ") && told.contains(reason), "{told}");
            assert_eq!(fields(&host, "/etc/passwd", "ann"), [""], "{change}");
            assert!(host.exists("/home/ann").unwrap() || change.starts_with("mv"), "{change}");
            assert!(!host.exists("/home/.bastio-quarantine").unwrap(), "{change}");
            let clean =
                "umount /home/ann/m /home/ann; userdel svc; rm -rf /home/ann /srv/ann; true";
            host.exec(&["sh", "-c", clean]).unwrap();
        }
    }
}
