//! Started without what it needs, the agent says what that is and ends.

use super::*;

/// `setpriv` as an ordinary account with no rights.
const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=games", "--regid=games", "--clear-groups"];

#[track_caller]
fn refused(host: &Host, words: &[&str], texts: &[&str]) {
    let finished = host.try_exec(words).unwrap();
    assert_eq!(finished.code(), Some(2), "{}", finished.stderr);
    for text in texts {
        assert!(finished.stderr.contains(text), "no {text:?} in: {}", finished.stderr);
    }
    assert!(!host.exec(&["ps", "-eo", "comm="]).unwrap().stdout.contains("bastio"));
}

#[test]
fn without_root_start_says_that_it_needs_root() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let host = site.host("web-1").without_sshd().start().unwrap();
    let start = [&AS_NOBODY[..], &["bastio-agent", "start"]].concat();
    refused(&host, &start, &["start needs root"]);
    fleet::prepare_agent(&host).unwrap();
    fleet::enroll_command(&host, &site.key).check().unwrap();
    refused(&host, &start, &["cannot read /etc/bastio/agent.toml", "hint: run it as root"]);
    let no_new_rights = [&AS_NOBODY[..], &["--no-new-privs", "bastio-agent", "processor"]].concat();
    refused(&host, &no_new_rights, &["error: "]);
}

#[test]
fn without_its_account_start_says_how_to_make_it() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let host = site.host("web-1").without_sshd().start().unwrap();
    fleet::enroll_command(&host, &site.key).check().unwrap();
    let hint = "hint: useradd --system --no-create-home --shell /usr/sbin/nologin bastio";
    refused(&host, &["bastio-agent", "start"], &["there is no user bastio", hint]);
    // What the hint says works.
    let words: Vec<&str> = hint.split_whitespace().skip(1).collect();
    host.exec(&words).unwrap();
    let agent = fleet::agent_command(&host).spawn_ready(LIMIT).unwrap();
    site.started(Server { host, agent });
}

#[test]
fn not_enrolled_start_says_how_to_enrol() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let host = site.host("web-1").without_sshd().start().unwrap();
    fleet::prepare_agent(&host).unwrap();
    refused(&host, &["bastio-agent", "start"], &["names no backend", "hint: bastio-agent enroll"]);
}
