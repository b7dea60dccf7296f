//! Fields, locks and sessions.

use super::*;

/// A day far ahead, since the Unix epoch.
const END: i64 = 40_000;

#[test]
fn an_account_is_made_and_changed_with_every_field() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let plant = "groupadd dev; groupadd ops; groupadd old; mkdir -p /srv/people /etc/skel.dev; \
                 echo hello > /etc/skel.dev/notes";
    host.exec(&["sh", "-ec", plant]).unwrap();
    let spec = json!({"group": "dev", "groups": ["ops", "old"], "shell": "/bin/sh", "comment": "Ann A.",
        "home": "/srv/people/ann", "skel": "/etc/skel.dev"});
    let new = json!({"spec": spec, "sudo_group": true, "uid": 4242, "expires": END * DAY - 1});
    done(&host, &create("ann", new));
    let passwd = fields(&host, "/etc/passwd", "ann");
    let gid = fields(&host, "/etc/group", "dev")[2].clone();
    let expected = ["ann", "x", "4242", &gid, "Ann A.", "/srv/people/ann", "/bin/sh"];
    assert_eq!(passwd, expected);
    let shadow = fields(&host, "/etc/shadow", "ann");
    assert_eq!((shadow[1].as_str(), shadow[7].as_str()), ("*", "40000"));
    assert_eq!(groups_of(&host, "ann"), set(&["dev", "ops", "old", "sudo", "bastio-managed"]));
    assert_eq!(host.read_file("/srv/people/ann/notes").unwrap(), b"hello\n");
    assert!(fields(&host, "/etc/group", "ann").len() < 2, "no group of her own was asked for");

    let facts = facts(&host, "ann");
    assert_eq!((facts.group.as_str(), facts.comment.as_str()), ("dev", "Ann A."));
    assert_eq!((facts.shell.as_str(), facts.expires), ("/bin/sh", Some(END * DAY)));
    assert_eq!((facts.groups, facts.locked), (set(&["ops", "old"]), false));
    assert!(facts.account.is_managed && !facts.account.is_system);

    let spec = json!({"group": "users", "groups": ["dev"], "shell": "/bin/bash", "comment": ""});
    let change =
        json!({"spec": spec, "drop_groups": ["old", "www-data"], "expires": (END + 1) * DAY});
    done(&host, &modify("ann", change));
    assert_eq!(groups_of(&host, "ann"), set(&["users", "dev", "ops", "sudo", "bastio-managed"]));
    let passwd = fields(&host, "/etc/passwd", "ann");
    assert_eq!(passwd[2..], ["4242", "100", "", "/srv/people/ann", "/bin/bash"]);
    assert_eq!(fields(&host, "/etc/shadow", "ann")[7], "40001");
    let before = look(&host);
    done(&host, &modify("ann", json!({})));
    assert_eq!(look(&host), before);
}

fn facts(host: &Host, name: &str) -> bastio_agent::reconcile::host::AccountFacts {
    let name = Username::parse(name).unwrap();
    host.within(move || SystemAccounts::default().facts(&name)).unwrap().unwrap().unwrap()
}

#[test]
fn what_cannot_be_had_is_named_and_nothing_is_made() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let plant = "groupadd bob; useradd -m -U -u 1500 carl; groupadd --system bastio-managed; \
                 echo carl:200000:65536 > /etc/subuid; mkdir -m 777 /srv/open; mkdir /srv/real; \
                 ln -s real /srv/link; mkdir /home/left";
    host.exec(&["sh", "-ec", plant]).unwrap();
    for (spec, text) in [
        (json!({"groups": ["nowhere"]}), "no local group nowhere; make it (groupadd nowhere)"),
        (json!({"group": "nowhere"}), "no local group nowhere"),
        (json!({"groups": ["sudo"]}), "ask for sudo rights"),
        (json!({"group": "bastio-managed"}), "bastio's own business"),
        (json!({"shell": "/bin/nothing"}), "/bin/nothing cannot be a shell: no program is there"),
        (json!({"shell": "/etc/passwd"}), "/etc/passwd cannot be a shell"),
        (json!({"home": "/ann"}), "/ann cannot be a home: a home is at least two folders"),
        (json!({"home": "/nowhere/ann"}), "/nowhere cannot be the folder of a home"),
        (json!({"home": "/srv/open/ann"}), "/srv/open cannot be the folder of a home"),
        (json!({"home": "/srv/link/ann"}), "reached through a symbolic link"),
        (json!({"home": "/home/carl"}), "the home of carl"),
        (json!({"home": "/home/carl/ann"}), "/home/carl cannot be the folder of a home"),
        (json!({"home": "/home/left"}), "something is there already, of uid 0"),
        (json!({"skel": "/srv/open"}), "/srv/open cannot be the beginning of a home"),
    ] {
        refused(&host, &create("ann", json!({"spec": spec})), text);
    }
    for (new, text) in [
        (json!({"uid": 1500}), "the uid 1500 cannot be given: it belongs to carl here"),
        (json!({"uid": 0}), "the uid 0 cannot be given: it is one of the system's own"),
        (json!({"uid": 1700, "avoid": [1700]}), "reserved for somebody else"),
        (json!({"uid": 200_001}), "among the subordinate ids of carl"),
        (json!({"uid": 1600, "keep_home": true}), "No such file or directory"),
    ] {
        refused(&host, &create("ann", new), text);
    }
    refused(
        &host,
        &create("bob", json!({})),
        "a group bob exists already; remove it (groupdel bob)",
    );
    refused(&host, &create("carl", json!({})), "carl exists already");
    // An account of others, and the system's own, are never changed.
    for name in ["carl", "daemon", "root"] {
        refused(&host, &json!({"lock": {"name": name}}), "not managed by bastio");
        refused(&host, &json!({"end-sessions": {"name": name}}), "not managed by bastio");
        refused(&host, &modify(name, json!({"spec": {"comment": "x"}})), "not managed by bastio");
        for removal in ["lock", "keep", "quarantine", "delete"] {
            refused(&host, &remove(name, removal), "not managed by bastio");
        }
    }
    refused(&host, &remove("ann", "delete"), "ann does not exist");
    refused(&host, &json!({"take-over": {"name": "daemon"}}), "an account of the system");
    done(&host, &json!({"take-over": {"name": "carl"}}));
    assert!(groups_of(&host, "carl").contains("bastio-managed"));
    for group in ["sudo", "bastio-managed"] {
        refused(&host, &modify("carl", json!({"spec": {"groups": [group]}})), "own business");
        refused(&host, &modify("carl", json!({"drop_groups": [group]})), "own business");
    }
    refused(&host, &modify("carl", json!({"spec": {"groups": ["nowhere"]}})), "no local group");
}

#[test]
fn a_failing_tool_says_what_stands() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    host.exec(&["groupadd", "old"]).unwrap();
    done(&host, &create("ann", json!({"spec": {"groups": ["old"]}})));
    let fails = |tool: &str| {
        let real = format!("/usr/bin/{tool}");
        let real = if host.exists(&real).unwrap() { real } else { format!("/usr/sbin/{tool}") };
        host.exec(&["mv", &real, "/root/real"]).unwrap();
        host.write_file(&real, "#!/bin/sh\necho no luck >&2\nexit 1\n").unwrap();
        host.exec(&["chmod", "755", &real]).unwrap();
        real
    };
    let change = modify("ann", json!({"spec": {"comment": "Ann"}, "drop_groups": ["old"]}));
    let usermod = fails("usermod");
    refused(&host, &change, "usermod: cannot update the account database");
    refused(&host, &json!({"lock": {"name": "ann"}}), "no luck");
    host.exec(&["mv", "/root/real", &usermod]).unwrap();

    let gpasswd = fails("gpasswd");
    let error = ask(&host, &change).unwrap_err();
    assert!(error.contains("a part was changed, but gpasswd"), "{error}");
    assert_eq!(fields(&host, "/etc/passwd", "ann")[4], "Ann");
    host.exec(&["mv", "/root/real", &gpasswd]).unwrap();

    let userdel = fails("userdel");
    let error = ask(&host, &remove("ann", "delete")).unwrap_err();
    assert!(error.contains("userdel: cannot update"), "{error}");
    assert!(host.exists("/home/ann").unwrap(), "the home goes only after the account");
    assert_eq!(fields(&host, "/etc/shadow", "ann")[7], "1", "access is closed all the same");
    host.exec(&["mv", "/root/real", &userdel]).unwrap();
    let useradd = fails("useradd");
    refused(&host, &create("bob", json!({})), "useradd: cannot update");
    host.exec(&["mv", "/root/real", &useradd]).unwrap();
}

#[test]
fn a_locked_account_lets_nobody_in_until_it_is_unlocked() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").start().unwrap();
    let key = SshKey::generate(&world, "ann", &["ed25519"]).unwrap();
    let ssh = SshClient::new(&world, &key);
    done(&host, &create("ann", json!({"expires": END * DAY})));
    let keys = "install -d -o ann -g ann -m 700 /home/ann/.ssh; \
                cat > /home/ann/.ssh/authorized_keys; chown ann: /home/ann/.ssh/authorized_keys";
    host.command("sh").args(["-ec", keys]).input(key.public()).check().unwrap();
    let can_log_in = || ssh.run("ann", host.ip(), "true").unwrap().success();
    assert!(can_log_in(), "{}", host.sshd_log().unwrap());
    for _ in 0..2 {
        done(&host, &json!({"lock": {"name": "ann"}}));
        assert!(!can_log_in());
    }
    let found = facts(&host, "ann");
    assert_eq!((found.locked, found.expires), (true, None));
    // A change of the end does not open a locked account.
    done(&host, &modify("ann", json!({"expires": (END + 2) * DAY})));
    assert!(!can_log_in());
    for _ in 0..2 {
        done(&host, &json!({"unlock": {"name": "ann", "expires": (END + 1) * DAY}}));
        assert!(can_log_in(), "the key stayed");
        assert_eq!(facts(&host, "ann").expires, Some((END + 1) * DAY));
    }
    // An end in the past of somebody else's is no lock of ours; who orders to unlock means that one, too.
    host.exec(&["usermod", "--expiredate", "2020-01-01", "ann"]).unwrap();
    assert!(!can_log_in());
    let found = facts(&host, "ann");
    assert_eq!((found.locked, found.expires), (false, Some(18_262 * DAY)));
    done(&host, &json!({"unlock": {"name": "ann", "expires": null}}));
    assert!(can_log_in());
    assert_eq!(facts(&host, "ann").expires, None);
    done(&host, &create("bob", json!({"locked": true, "expires": END * DAY})));
    assert!(facts(&host, "bob").locked, "locked from the first moment");
}

#[test]
fn the_sessions_of_one_account_end_and_no_others() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    for name in ["ann", "bob"] {
        done(&host, &create(name, json!({})));
    }
    let sleep = |name: &str| {
        let reuid = format!("--reuid={name}");
        let words = [&reuid, "--clear-groups", "sh", "-c", "trap '' TERM; sleep 1000; sleep 1000"];
        host.command("setpriv").args(words).spawn().unwrap()
    };
    let (mut hers, mut his) = (sleep("ann"), sleep("bob"));
    let begun = "until [ $(ps -u ann,bob -o comm= | grep -c sleep) = 2 ]; do sleep 0.05; done";
    host.command("sh").args(["-c", begun]).limit(Duration::from_secs(20)).check().unwrap();
    assert_eq!(done(&host, &json!({"end-sessions": {"name": "ann"}})), "2");
    assert!(hers.wait(Duration::from_secs(2)).is_ok());
    assert_eq!(his.ended().unwrap(), None);
    assert_eq!(done(&host, &json!({"end-sessions": {"name": "ann"}})), "0");
    his.kill().unwrap();
}

#[test]
fn of_two_hundred_accounts_each_is_found_as_it_is_now() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let plant = "groupadd --system bastio-managed; for n in $(seq 200); do uid=$((2000 + n)); \
                 echo p$n:x:$uid:$uid:Person $n:/home/p$n:/bin/bash >> /etc/passwd; \
                 echo p$n:*:20000:0:99999:7::: >> /etc/shadow; echo p$n:x:$uid: >> /etc/group; done; \
                 sed -i \"s/^bastio-managed:.*/&$(seq -s, -f p%g 200)/\" /etc/group";
    host.exec(&["sh", "-ec", plant]).unwrap();
    let found = host
        .within(|| {
            let accounts = SystemAccounts::default();
            let names = accounts.managed().unwrap();
            for name in &names {
                let facts = accounts.facts(name).unwrap().unwrap();
                assert!(facts.account.is_managed && facts.group == *name.as_str());
            }
            names.len()
        })
        .unwrap();
    assert_eq!(found, 200);
    // What changes meanwhile is seen.
    let accounts = SystemAccounts::default();
    let name = Username::parse("p7").unwrap();
    let comment = |text: &str| {
        host.exec(&["usermod", "--comment", text, "p7"]).unwrap();
        let name = name.clone();
        let accounts = accounts.clone();
        host.within(move || accounts.facts(&name).unwrap().unwrap().comment).unwrap()
    };
    assert_eq!((comment("one"), comment("two")), ("one".to_owned(), "two".to_owned()));
}
