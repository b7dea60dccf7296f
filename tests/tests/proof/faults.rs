//! A fault at every system call of the processor while it carries out an action: kill -9, a full disk, a failing disk.
//! After each, every file is the old one or the new one; and when the action is asked again, the server is what it would
//! be without the fault, with nothing left over.

mod accounts;
mod keys;
mod ledger;
mod sudoers;
mod whole;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use bastio_protocol::{Action, KeyPolicy, PublicKey};
use bastio_tests::{Host, require_root};

use crate::rig::{Rig, Said, Wish, succeeded};
use crate::surface::{self, DATABASES, Surface, Thing};
use crate::tally::{self, Tally};
use crate::tracer::{self, Fault, Point};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f proof";
/// Points of each scenario in a run of the usual tests, about.
const SOME: usize = 24;
/// The most points of each scenario in full.
const MOST: usize = 600;
/// Time for a tool to end whose processor was killed.
const TOOL_LIMIT: Duration = Duration::from_secs(20);

/// A wish, and what it meets.
struct Scenario {
    name: &'static str,
    /// The accounts that are bastio's, or become so.
    ours: &'static [&'static str],
    /// Carried out without a fault, for the state before.
    before: Vec<Wish>,
    /// As root, after that.
    script: &'static str,
    /// Carried out after that, by a processor that is killed before it writes the ledger.
    unsaved: Option<Wish>,
    wish: Wish,
    /// Faults come at calls on these paths, from the start of the processor; if there are none, at all calls from
    /// when the wish is said.
    paths: &'static [&'static str],
    faults: &'static [Fault],
    /// The least points in full.
    promised: usize,
}

impl Scenario {
    /// A server on which nothing was done.
    fn new(name: &'static str, ours: &'static [&'static str], wish: Wish) -> Self {
        let (before, script) = (Vec::new(), "true");
        Self {
            name,
            ours,
            before,
            script,
            unsaved: None,
            wish,
            paths: &[],
            faults: &Fault::ALL,
            promised: 150,
        }
    }
}

fn key() -> PublicKey {
    PublicKey::parse(KEY, &KeyPolicy::ANY).unwrap()
}

fn alice(action: Action) -> Wish {
    Wish::Action("alice", action)
}

/// Tries the points of a scenario: all of them, or some.
fn prove(scenario: &Scenario) {
    let rig = Rig::new();
    let Scenario { wish, paths, .. } = scenario;
    prepare(&rig, scenario);
    let old = Surface::of(&rig.host);

    let watched = rig.run(&as_words(&tracer::watching(paths)), &[wish.body(1)]);
    assert!(watched.answers.iter().all(succeeded), "{watched:?}");
    let new = Surface::of(&rig.host);
    assert_ne!(old, new, "the action does nothing");
    let since = if paths.is_empty() { watched.sent_at } else { 0.0 };
    let points = tracer::points_since(&tracer::log(&rig.host), since);

    let faults =
        scenario.faults.iter().flat_map(|fault| points.iter().map(move |point| (point, *fault)));
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
    let what = format!("points of {}, at {} kinds of calls", all.len(), kinds.len());
    tally::tell(&format!("faults: {}", scenario.name), hit, scenario.promised, &what);
    assert!(hit * 10 > chosen.len() * 9, "most points are reached again");
}

/// Makes the state before, and keeps it.
fn prepare(rig: &Rig, scenario: &Scenario) {
    let bodies: Vec<_> =
        (101..).zip(&scenario.before).map(|(number, wish)| wish.body(number)).collect();
    let first = rig.run(&[], &bodies);
    assert_eq!(first.answers.len(), bodies.len(), "{first:?}");
    assert!(first.answers.iter().all(succeeded), "{first:?}");
    rig.host.exec(&["sh", "-ec", scenario.script]).unwrap();
    if let Some(wish) = &scenario.unsaved {
        let before = rig.host.read_file(LEDGER).unwrap();
        let first_step = Point { call: "unlink".to_owned(), nth: 1 };
        let killed = tracer::failing(&first_step, Fault::Kill, &[LEDGER_ASIDE]);
        let said = rig.run(&as_words(&killed), &[wish.body(200)]);
        assert!(said.answers.iter().all(succeeded) && tracer::was_hit(&rig.host), "{said:?}");
        assert_eq!(rig.host.read_file(LEDGER).unwrap(), before, "the ledger is behind");
    }
    surface::save(&rig.host);
}

/// Of points, as many as are to be tried: those at which something is written, and an even part of the others. In a run
/// of the usual tests, an even part of those at which something is written.
fn choose<'a>(all: &[(&'a Point, Fault)]) -> Vec<(&'a Point, Fault)> {
    let (writing, reading): (Vec<_>, Vec<_>) =
        all.iter().copied().partition(|(point, _)| point.writes());
    let mut chosen = even_part(&writing, tally::rounds(SOME, MOST * 2 / 3));
    if tally::is_full() {
        chosen.extend(even_part(&reading, MOST - chosen.len()));
    }
    chosen
}

/// So many of them, or all.
fn even_part<T: Copy>(all: &[T], most: usize) -> Vec<T> {
    let most = most.min(all.len());
    (0..most).filter_map(|number| all.get(number * all.len() / most).copied()).collect()
}

/// Written after an action, and read by nobody before the next one.
const LEDGER: &str = "/var/lib/bastio-agent/ledger.json";
/// The same in the making.
const LEDGER_ASIDE: &str = "/var/lib/bastio-agent/ledger.json.new";
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
        let Self { rig, scenario: Scenario { wish, paths, .. }, .. } = self;
        surface::restore(&rig.host);
        let wrapper = tracer::failing(point, fault, paths);
        let said = rig.run(&as_words(&wrapper), &[wish.body(1)]);
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
        let last = rig.insist(&said, wish);
        assert!(succeeded(&last), "{step}: {last}\n{}", rig.log());
        let mut after = Surface::of(&rig.host);
        if after != *self.new && after.without(LEDGER) == self.new.without(LEDGER) {
            // Where the ledger could not be written, it is behind until the next action.
            let again = rig.run(&[], &[wish.body(ONCE_MORE)]);
            assert!(again.answers.iter().all(succeeded), "{step}: {again:?}");
            after = Surface::of(&rig.host);
        }
        assert!(after == *self.new, "{step}:\n{}{}", self.new.difference(&after), rig.log());
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
        // Where keys could not be taken out of a home before it was put away, they went with it.
        let is_moved = path.starts_with("/home/.bastio-quarantine")
            && self.old.0.values().any(|old| old == thing);
        is_moved || is_aside || is_tools || is_ledger || is_database || is_homes
    }

    fn foreign_lines(&self, database: &[u8]) -> Vec<String> {
        let is_ours = |name: &str| self.scenario.ours.contains(&name) || name == "bastio-managed";
        let text = String::from_utf8_lossy(database).into_owned();
        let lines =
            text.lines().filter(|line| !is_ours(line.split(':').next().unwrap_or_default()));
        // As a member of groups, an account comes and goes.
        let without = |line: &str| {
            let (head, members) = line.rsplit_once(':').unwrap_or((line, ""));
            let others: Vec<_> = members.split(',').filter(|member| !is_ours(member)).collect();
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
            assert_eq!(
                state,
                "new",
                "{step}: {answer}\n{}{}",
                self.new.difference(found),
                self.rig.log()
            );
        }
        format!("answer {}, {state}", answer["status"])
    }
}

/// A removed account is gone even where its home could not be cleared: the answer says so.
fn says_what_is_left(answer: &serde_json::Value) -> bool {
    let text = answer["feedback"].as_str().unwrap_or_default();
    ["try again", "by hand", "was left", "cannot"].iter().any(|words| text.contains(words))
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
