//! A fault at every system call of the processor while it carries out an action: kill -9, a full disk, a failing disk.
//! After each, every file is the old one or the new one; and when the action is asked again, the server is what it would
//! be without the fault, with nothing left over.

mod sudoers;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use bastio_protocol::{Action, KeyGrant, KeyOptions, KeyPolicy, PublicKey, Sudo, WantedAccount};
use bastio_tests::{Host, require_root};

use crate::rig::{Rig, Said, body, succeeded};
use crate::surface::{self, DATABASES, Surface, Thing};
use crate::tally::{self, Tally};
use crate::tracer::{self, Fault, Point};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f proof";
/// Points of each scenario in a run of the usual tests, about.
const SOME: usize = 24;
/// Time for a tool to end whose processor was killed.
const TOOL_LIMIT: Duration = Duration::from_secs(20);

/// An action, and what it meets.
struct Scenario {
    name: &'static str,
    user: &'static str,
    /// Carried out without a fault, for the state before.
    before: Vec<Action>,
    /// As root, after that.
    script: &'static str,
    action: Action,
}

fn key() -> PublicKey {
    PublicKey::parse(KEY, &KeyPolicy::ANY).unwrap()
}

/// Tries the points of a scenario: all of them, or some.
fn prove(scenario: &Scenario) {
    let rig = Rig::new();
    let Scenario { user, action, .. } = scenario;
    let bodies = |actions: &[Action]| {
        (1..).zip(actions).map(|(n, action)| body(100 + n, user, action)).collect::<Vec<_>>()
    };
    let first = rig.run(&[], &bodies(&scenario.before));
    assert!(first.answers.iter().all(succeeded), "{first:?}");
    rig.host.exec(&["sh", "-c", scenario.script]).unwrap();
    surface::save(&rig.host);
    let old = Surface::of(&rig.host);

    let watched = rig.run(&as_words(&tracer::watching()), &[body(1, user, action)]);
    assert!(watched.answers.iter().all(succeeded), "{watched:?}");
    let new = Surface::of(&rig.host);
    assert_ne!(old, new, "the action does nothing");
    let points = tracer::points_since(&tracer::log(&rig.host), watched.sent_at);

    let faults =
        Fault::ALL.iter().flat_map(|fault| points.iter().map(move |point| (point, *fault)));
    let all: Vec<_> = faults.filter(|(point, fault)| fault.is_possible_at(point)).collect();
    let chosen = choose(&all);
    let trial = Trial { rig: &rig, scenario, old: &old, new: &new };
    let mut tally = Tally::default();
    for (point, fault) in &chosen {
        tally.count(trial.run(point, *fault));
    }
    eprintln!("{}: {} points of {}\n{tally}", scenario.name, chosen.len(), all.len());
    let hit = chosen.len() - tally.of(NOT_REACHED);
    let kinds: BTreeSet<_> = chosen.iter().map(|(point, _)| &point.call).collect();
    tally::tell(scenario.name, hit, &format!("points at {} kinds of calls", kinds.len()));
    assert!(hit * 10 > chosen.len() * 9, "most points are reached again");
}

/// All points, or some of those at which something is written.
fn choose<'a>(all: &[(&'a Point, Fault)]) -> Vec<(&'a Point, Fault)> {
    if tally::is_full() {
        return all.to_vec();
    }
    let writing: Vec<_> = all.iter().filter(|(point, _)| point.writes()).copied().collect();
    let step = writing.len().div_ceil(SOME);
    writing.into_iter().step_by(step).collect()
}

/// Written after an action, and read by nobody before the next one.
const LEDGER: &str = "/var/lib/bastio-agent/ledger.json";
/// Number of an action that is asked once more.
const ONCE_MORE: u64 = 50;
const TOLD: &str = "done, and the answer says what is left";
const NOT_REACHED: &str = "not reached";

/// One scenario, ready to be run again and again.
struct Trial<'a> {
    rig: &'a Rig,
    scenario: &'a Scenario,
    old: &'a Surface,
    new: &'a Surface,
}

impl Trial<'_> {
    /// Says what became of the action.
    fn run(&self, point: &Point, fault: Fault) -> String {
        let Self { rig, scenario: Scenario { user, action, .. }, .. } = self;
        surface::restore(&rig.host);
        let wrapper = tracer::failing(point, fault);
        let said = rig.run(&as_words(&wrapper), &[body(1, user, action)]);
        if !tracer::was_hit(&rig.host) {
            return NOT_REACHED.to_owned();
        }
        wait_for_tools(&rig.host);
        let step = format!("{}: {fault:?} at {} {}", self.scenario.name, point.call, point.nth);
        let found = Surface::of(&rig.host);
        self.check_untorn(&found, &step);
        let outcome = self.outcome(&said, &found, &step);
        if outcome == TOLD {
            return outcome;
        }
        let last = rig.insist(&said, user, action);
        assert!(succeeded(&last), "{step}: {last}\n{}", rig.log());
        let mut after = Surface::of(&rig.host);
        if after != *self.new && after.without(LEDGER) == self.new.without(LEDGER) {
            // Where the ledger could not be written, it is behind until the next action.
            let again = rig.run(&[], &[body(ONCE_MORE, user, action)]);
            assert!(again.answers.iter().all(succeeded), "{step}: {again:?}");
            after = Surface::of(&rig.host);
        }
        assert_eq!(after, *self.new, "{step}: {}\n{}", self.new.difference(&after), rig.log());
        outcome
    }

    /// Every file is the old or the new one; in a database of accounts, that is true of all foreign lines.
    fn check_untorn(&self, found: &Surface, step: &str) {
        for (path, thing) in &found.0 {
            let whole = [self.old, self.new].map(|surface| surface.0.get(path));
            let is_whole = whole.contains(&Some(thing));
            let is_ok = is_whole || self.is_under_way(path, thing);
            assert!(is_ok, "{step}: {} is torn: {thing:?}\nnot one of {whole:?}", path.display());
        }
        for (path, old) in &self.old.0 {
            let is_lost = !found.0.contains_key(path) && self.new.0.get(path) == Some(old);
            assert!(!is_lost, "{step}: {} is lost", path.display());
        }
        for path in DATABASES {
            let kept = |surface: &Surface| self.foreign_lines(surface.get(path));
            assert_eq!(kept(found), kept(self.old), "{step}: {path}");
        }
    }

    /// What may be half-way after a fault: a file beside its place, and what the system's tools make step by step.
    fn is_under_way(&self, path: &Path, thing: &Thing) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_aside = name.contains("bastio-new-") || name.ends_with(".new");
        // Left by a tool that was ended; the next one removes it.
        let is_tools = path.parent() == Some(Path::new("/etc"))
            && (name.ends_with(".lock") || name.ends_with('+'));
        let is_ledger = path == Path::new(LEDGER)
            && serde_json::from_slice::<serde_json::Value>(&thing.content).is_ok();
        let is_database = DATABASES.iter().any(|database| Path::new(database) == path);
        // Of a home that is being made, nothing is there that will not be there; of one that goes, nothing is new.
        let is_homes = path.starts_with("/home") && thing.content.is_empty();
        is_aside || is_tools || is_ledger || is_database || is_homes
    }

    fn foreign_lines(&self, database: &[u8]) -> Vec<String> {
        let user = self.scenario.user;
        let text = String::from_utf8_lossy(database).into_owned();
        let ours = [user, "bastio-managed"].map(|name| format!("{name}:"));
        let lines = text.lines().filter(|line| !ours.iter().any(|name| line.starts_with(name)));
        // As a member of groups, the account comes and goes.
        let without = |line: &str| {
            let (head, members) = line.rsplit_once(':').unwrap_or((line, ""));
            let others: Vec<_> = members.split(',').filter(|member| *member != user).collect();
            format!("{head}:{}", others.join(","))
        };
        lines.map(without).collect()
    }

    fn outcome(&self, said: &Said, found: &Surface, step: &str) -> String {
        let found = &found.without(LEDGER);
        let state = match found {
            found if *found == self.new.without(LEDGER) => "new",
            found if *found == self.old.without(LEDGER) => "old",
            _ => "under way",
        };
        let Some(answer) = said.answers.first() else { return format!("no answer, {state}") };
        if succeeded(answer) {
            if state != "new" && says_what_is_left(answer) {
                return TOLD.to_owned();
            }
            assert_eq!(state, "new", "{step}: {answer}\n{}", self.new.difference(found));
        }
        format!("answer {}, {state}", answer["status"])
    }
}

/// A removed account is gone even where its home could not be cleared: the answer names what to do.
fn says_what_is_left(answer: &serde_json::Value) -> bool {
    let text = answer["feedback"].as_str().unwrap_or_default();
    ["try again", "by hand", "was left"].iter().any(|words| text.contains(words))
}

fn as_words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// A tool whose processor was killed goes on by itself.
fn wait_for_tools(host: &Host) {
    let start = Instant::now();
    // One that has not become its tool yet has the processor's name.
    let tools = "bastio-agent|useradd|usermod|userdel|groupadd|gpasswd|chage|visudo";
    while host.try_exec(&["pgrep", "-x", tools]).unwrap().success() {
        assert!(start.elapsed() < TOOL_LIMIT, "a tool does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_first_key() {
    require_root!();
    prove(&Scenario {
        name: "first key",
        user: "alice",
        before: vec![Action::AddUser { sudo: false }],
        script: "rm -r /home/alice/.ssh",
        action: Action::AddKey { public_key: key() },
    });
}

#[test]
fn a_further_key() {
    require_root!();
    prove(&Scenario {
        name: "further key",
        user: "alice",
        before: vec![Action::AddUser { sudo: false }],
        script: "printf '# a note\nssh-rsa foreign line' >> /home/alice/.ssh/authorized_keys",
        action: Action::AddKey { public_key: key() },
    });
}

#[test]
fn a_key_is_taken_out() {
    require_root!();
    prove(&Scenario {
        name: "key taken out",
        user: "alice",
        before: vec![Action::AddUser { sudo: false }, Action::AddKey { public_key: key() }],
        script: "printf '# a note\nssh-rsa foreign line' >> /home/alice/.ssh/authorized_keys",
        action: Action::RemoveKey { public_key: key() },
    });
}

#[test]
fn an_account_is_made() {
    require_root!();
    prove(&Scenario {
        name: "account made",
        user: "bob",
        before: Vec::new(),
        script: "useradd foreign",
        action: Action::AddUser { sudo: true },
    });
}

#[test]
fn sudo_is_given() {
    require_root!();
    prove(&Scenario {
        name: "sudo given",
        user: "alice",
        before: vec![Action::AddUser { sudo: false }],
        script: "useradd --groups sudo foreign",
        action: Action::UpdateUser { sudo: true },
    });
}

#[test]
fn sudo_is_taken() {
    require_root!();
    prove(&Scenario {
        name: "sudo taken",
        user: "alice",
        before: vec![Action::AddUser { sudo: true }],
        script: "useradd --groups sudo foreign",
        action: Action::UpdateUser { sudo: false },
    });
}

#[test]
fn a_whole_account_is_made() {
    require_root!();
    prove(&Scenario {
        name: "whole account made",
        user: "bob",
        before: Vec::new(),
        script: "useradd foreign",
        action: Action::SetUser { wanted: Box::new(whole()) },
    });
}

#[test]
fn an_account_becomes_another() {
    require_root!();
    prove(&Scenario {
        name: "account changed as a whole",
        user: "alice",
        before: vec![Action::AddUser { sudo: false }],
        script: "printf '# a note\nssh-rsa foreign line' >> /home/alice/.ssh/authorized_keys",
        action: Action::SetUser { wanted: Box::new(whole()) },
    });
}

/// An account with a key and a sudo rule.
fn whole() -> WantedAccount {
    let key = KeyGrant { public_key: key(), options: KeyOptions::default(), until: None };
    WantedAccount { keys: [key].into(), sudo: Sudo::Plain, ..WantedAccount::default() }
}

#[test]
fn an_account_is_removed() {
    require_root!();
    prove(&Scenario {
        name: "account removed",
        user: "alice",
        before: vec![Action::AddUser { sudo: true }, Action::AddKey { public_key: key() }],
        script: "useradd --groups sudo foreign; mkdir -p /home/alice/a/b; echo x > /home/alice/a/b/c; chown -R alice: /home/alice/a",
        action: Action::RemoveUser { removal: None },
    });
}
