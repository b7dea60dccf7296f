//! Accounts with everything that version 2 can say of them, by the agent's own verbs and the system's real tools.
//!
//! Verbs that end processes need the server's process ids, which a thread placed in it does not have: so this very
//! program is run inside the server, as [`verb_inside_a_server`], one verb a run.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use bastio_agent::accounts::{AccountsError, SystemAccounts};
use bastio_agent::reconcile::host::{AccountChange, AccountHost, DAY, NewAccount};
use bastio_protocol::{AccountSpec, Removal, Username};
use bastio_tests::{Host, HostBuilder, SshClient, SshKey, World, require_root};
use serde::Deserialize;
use serde_json::{Value, json};

mod homes;
mod lives;
mod rows;

/// Carries the verb to the run inside.
const VERB: &str = "BASTIO_TEST_VERB";
/// In front of the answer.
const ANSWER: &str = "the answer is ";

/// A verb with its words.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Verb {
    Create {
        name: Username,
        new: New,
    },
    /// All in a row, and stop behind the answer of that number.
    CreateRow {
        names: Vec<Username>,
        stop_behind: usize,
    },
    Modify {
        name: Username,
        change: Change,
    },
    TakeOver {
        name: Username,
    },
    Lock {
        name: Username,
    },
    Unlock {
        name: Username,
        expires: Option<i64>,
    },
    EndSessions {
        name: Username,
    },
    Remove {
        name: Username,
        removal: Removal,
    },
    /// So many days from now.
    Sweep {
        days: u64,
        keep: u32,
    },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct New {
    spec: AccountSpec,
    sudo_group: bool,
    expires: Option<i64>,
    locked: bool,
    uid: Option<u32>,
    avoid: BTreeSet<u32>,
    keep_home: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Change {
    spec: AccountSpec,
    drop_groups: BTreeSet<String>,
    expires: Option<Option<i64>>,
}

impl From<New> for NewAccount {
    fn from(new: New) -> Self {
        let New { spec, sudo_group, expires, locked, uid, avoid, keep_home } = new;
        Self { spec, sudo_group, expires, locked, uid, avoid, keep_home }
    }
}

impl From<Change> for AccountChange {
    fn from(change: Change) -> Self {
        let AccountSpec { group, groups, shell, comment, .. } = change.spec;
        let (add_groups, expires) = (groups.unwrap_or_default(), change.expires);
        Self { group, add_groups, drop_groups: change.drop_groups, shell, comment, expires }
    }
}

/// The other half of the tests here.
#[test]
#[ignore = "run inside a server by the tests of this file"]
fn verb_inside_a_server() {
    let verb = std::env::var(VERB).expect("only the tests of this file run it");
    match carry_out(serde_json::from_str(&verb).unwrap()) {
        Ok(text) => println!("\n{ANSWER}{}", json!({ "ok": text })),
        Err(error) => println!("\n{ANSWER}{}", json!({ "error": error.to_string() })),
    }
}

fn carry_out(verb: Verb) -> Result<String, AccountsError> {
    let accounts = SystemAccounts::default();
    let done = |()| "done".to_owned();
    match verb {
        Verb::Create { name, new } => accounts.create(&name, &new.into()).map(|_| done(())),
        Verb::CreateRow { names, stop_behind } => {
            let new = NewAccount::default();
            let row: Vec<_> = names.iter().map(|name| (name, &new)).collect();
            let mut told = Vec::new();
            accounts.create_row(&row, &mut |result| {
                told.push(result.map_or_else(|error| error.to_string(), |it| it.name.to_string()));
                let goes_on = told.len() < stop_behind;
                if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            Ok(told.join("|"))
        }
        Verb::Modify { name, change } => accounts.modify(&name, &change.into()).map(done),
        Verb::TakeOver { name } => accounts.take_over(&name).map(done),
        Verb::Lock { name } => accounts.lock(&name).map(done),
        Verb::Unlock { name, expires } => accounts.unlock(&name, expires).map(done),
        Verb::EndSessions { name } => accounts.end_sessions(&name).map(|count| count.to_string()),
        Verb::Remove { name, removal } => {
            accounts.remove(&name, removal).map(|fate| fate.to_string())
        }
        Verb::Sweep { days, keep } => {
            let now = SystemTime::now() + Duration::from_secs(days * 24 * 60 * 60);
            accounts.sweep_quarantine([], now, keep, &|| true).map(|swept| format!("{swept:?}"))
        }
    }
}

/// A server that shows this very program.
fn server<'w>(world: &'w World, name: &str) -> HostBuilder<'w> {
    world.host(name).binary(std::env::current_exe().unwrap())
}

/// Has a verb carried out.
fn ask(host: &Host, verb: &Value) -> Result<String, String> {
    let program = std::env::current_exe().unwrap();
    let program = format!("/usr/bin/{}", program.file_name().unwrap().to_str().unwrap());
    let test = "accounts_complete::verb_inside_a_server";
    let run = host.command(program).args(["--ignored", "--exact", test, "--nocapture"]);
    let told = run.env(VERB, verb.to_string()).limit(Duration::from_secs(60)).check().unwrap();
    let answer = told.stdout.lines().find_map(|line| line.strip_prefix(ANSWER)).unwrap();
    let answer: Value = serde_json::from_str(answer).unwrap();
    let text = |key: &str| answer[key].as_str().map(str::to_owned);
    text("ok").ok_or_else(|| text("error").unwrap())
}

#[track_caller]
fn done(host: &Host, verb: &Value) -> String {
    let answer = ask(host, verb);
    assert!(answer.is_ok(), "{verb}: {answer:?}");
    answer.unwrap()
}

/// The verb must be refused with this text, and the databases and homes must be as before.
#[track_caller]
fn refused(host: &Host, verb: &Value, text: &str) {
    let before = look(host);
    let error = ask(host, verb).expect_err(&format!("{verb} was done"));
    assert!(error.contains(text), "{verb}: {error}");
    assert_eq!(look(host), before, "{verb}");
}

fn create(name: &str, new: Value) -> Value {
    json!({"create": {"name": name, "new": new}})
}

fn modify(name: &str, change: Value) -> Value {
    json!({"modify": {"name": name, "change": change}})
}

fn remove(name: &str, removal: &str) -> Value {
    json!({"remove": {"name": name, "removal": removal}})
}

/// The databases, and what is where homes are.
fn look(host: &Host) -> String {
    let words = "cat /etc/passwd /etc/shadow /etc/group /etc/subuid; ls -laR /home /srv";
    host.exec(&["sh", "-c", words]).unwrap().stdout
}

/// The fields of an account's line.
fn fields(host: &Host, database: &str, name: &str) -> Vec<String> {
    let text = String::from_utf8(host.read_file(database).unwrap()).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
    line.unwrap_or_default().split(':').map(str::to_owned).collect()
}

fn groups_of(host: &Host, name: &str) -> BTreeSet<String> {
    let told = host.exec(&["id", "--name", "--groups", name]).unwrap().stdout;
    told.split_whitespace().map(str::to_owned).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
