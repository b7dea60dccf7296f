//! `[sudo] plain = "nopasswd"`: plain rights are a rule, and the answers are those of version 1.

use super::*;

const RULE: &str = "/etc/sudoers.d/bastio-alice";

#[test]
fn plain_rights_as_a_rule_are_answered_as_ever_and_end_with_the_account() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").start().unwrap();
    host.exec(&["mkdir", "-p", "/etc/bastio"]).unwrap();
    host.write_file("/etc/bastio/agent.toml", "[sudo]\nplain = 'nopasswd'\n").unwrap();
    let key = SshKey::generate(&world, "alice", &["ed25519"]).unwrap();
    let ssh = SshClient::new(&world, &key);
    let mut connector = Connector::start(&host);
    let sudo = || ssh.run("alice", host.ip(), "sudo -n id -u").unwrap().success();
    let has_rule = || host.exists(RULE).unwrap();

    expect(connector.add_user("alice", true), 200, "alice was created successfully");
    connector.add_key("alice", key.public());
    assert!(sudo());
    assert!(!line(&host, "/etc/group", "sudo").unwrap().contains("alice"));
    let taken = "alice was removed from the sudo group successfully";
    expect(connector.update_user("alice", false), 200, taken);
    expect(connector.update_user("alice", false), 300, "alice is not a member of the sudo group");
    assert!(!has_rule() && !sudo());
    let given = "alice was added to the sudo group successfully";
    expect(connector.update_user("alice", true), 200, given);
    expect(connector.update_user("alice", true), 200, given);
    assert!(has_rule() && sudo());
    assert_eq!(connector.remove_user("alice").0, 200);
    assert!(!has_rule());

    // What an account of that name left over is not the next one's.
    let rule = "# bastio: managed, do not edit\nalice ALL=(ALL) NOPASSWD: ALL\n";
    host.write_file(RULE, rule).unwrap();
    host.exec(&["rm", "-rf", "/home/alice"]).unwrap();
    expect(connector.add_user("alice", false), 200, "alice was created successfully");
    assert!(!has_rule());
    connector.remove_user("alice");
    // Where there is no sudo, there is no account with rights, either.
    host.exec(&["rm", "/usr/sbin/visudo"]).unwrap();
    host.exec(&["rm", "-rf", "/home/alice"]).unwrap();
    expect_like(&connector.add_user("alice", true), 500, "install sudo and try again");
    assert_eq!(line(&host, "/etc/passwd", "alice"), None);
}
