//! `bastio key`: the public keys of a person.

use std::path::PathBuf;

use bastio_protocol::api::{Key, NewKeys};
use bastio_protocol::{KeyOptions, KeyPolicy, PublicKey, Username};
use clap::{Args, Subcommand};

use crate::commands::Context;
use crate::commands::grant::key_options;
use crate::failure::{Ending, Failure};
use crate::follow::settle;
use crate::key_input;
use crate::moment::{Moment, utc};
use crate::table::{Cell, Table};
use crate::text::ago;

/// How every fingerprint begins.
const PREFIX: &str = "SHA256:";
/// Fewest characters behind [`PREFIX`] that name a key, so that no slip of the hand does.
const SHORTEST: usize = 4;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add public keys to a person
    Add(Add),
    /// Remove keys of a person
    #[command(aliases = ["remove", "delete"])]
    Rm(Rm),
    /// List the keys of a person
    #[command(after_help = "Example:\n  bastio key ls alice")]
    #[command(alias = "list")]
    Ls {
        /// The person
        user: Username,
    },
}

/// Keys to add.
#[derive(Debug, Args)]
#[command(after_help = "A file may hold several keys, one a line; blank lines and comments (#) \
are skipped.

Examples:
  bastio key add alice laptop.pub desk.pub
  bastio key add alice loan.pub --until 7d --options no-agent-forwarding
  curl -fsS https://git.example.org/alice.keys | bastio key add alice -")]
pub struct Add {
    /// The person
    user: Username,
    /// Files with public keys, - for stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the keys may do everywhere, as in authorized_keys(5): from="10.0.0.0/8",restrict
    #[arg(long, value_name = "OPTIONS", value_parser = key_options)]
    options: Option<KeyOptions>,
    /// When they end: a duration (90s, 2h, 7d), a day (2026-12-01) or a time (RFC 3339)
    #[arg(long, value_name = "END")]
    until: Option<Moment>,
}

/// Keys to remove.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bastio key rm alice SHA256:5q1k
  bastio key rm alice old-laptop.pub")]
pub struct Rm {
    /// The person
    user: Username,
    /// Fingerprints (SHA256:..., the first characters suffice) or files with keys, - for stdin
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
}

/// A key to remove, as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// By its fingerprint or the beginning of it.
    Fingerprint(String),
    /// By itself.
    Key(PublicKey),
}

/// Carries out what was asked; `connect` is called once the input has been checked.
pub fn run<'a>(
    command: Command,
    connect: impl FnOnce() -> Result<Context<'a>, Failure>,
) -> Result<Ending, Failure> {
    match command {
        Command::Add(Add { user, files, options, until }) => {
            let keys = key_input::read_files(&files, &KeyPolicy::default())?;
            let mut context = connect()?;
            let keys = NewKeys {
                keys: keys.iter().map(ToString::to_string).collect(),
                options: options.unwrap_or_default(),
                until: until.map(|until| until.at(context.now)),
            };
            let change = context.client.add_keys(&user, &keys)?;
            settle(&mut context, vec![change])
        }
        Command::Rm(Rm { user, keys }) => {
            let wanted = parse_wanted(keys)?;
            remove(&mut connect()?, &user, &wanted)
        }
        Command::Ls { user } => list(&mut connect()?, &user),
    }
}

/// Tells fingerprints from files and reads the files.
fn parse_wanted(words: Vec<String>) -> Result<Vec<Wanted>, Failure> {
    let (fingerprints, files): (Vec<_>, Vec<_>) =
        words.into_iter().partition(|word| word.starts_with(PREFIX));
    if let Some(short) = fingerprints.iter().find(|text| text.len() < PREFIX.len() + SHORTEST) {
        return Err(Failure::Usage {
            message: format!("{short} is too short to name a key"),
            hint: "give at least 4 characters behind SHA256:",
        });
    }
    let mut wanted: Vec<Wanted> = fingerprints.into_iter().map(Wanted::Fingerprint).collect();
    let files: Vec<PathBuf> = files.into_iter().map(PathBuf::from).collect();
    // A key that is too weak to be added may still have to go.
    let keys = key_input::read_files(&files, &KeyPolicy::ANY)?;
    wanted.extend(keys.into_iter().map(Wanted::Key));
    Ok(wanted)
}

/// The fingerprints meant, each once.
fn select(user: &Username, keys: &[Key], wanted: &[Wanted]) -> Result<Vec<String>, Failure> {
    let mut selected: Vec<String> = Vec::new();
    for wanted in wanted {
        let fits = |key: &&Key| match wanted {
            Wanted::Fingerprint(prefix) => key.fingerprint.starts_with(prefix),
            Wanted::Key(wanted) => key.public_key == *wanted,
        };
        let mut fitting = keys.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => {
                if !selected.contains(&key.fingerprint) {
                    selected.push(key.fingerprint.clone());
                }
            }
            (None, _) => {
                return Err(Failure::NoSuchKey { user: user.to_string(), key: wanted.to_string() });
            }
            (Some(_), Some(_)) => {
                return Err(Failure::Usage {
                    message: format!("{wanted} fits several keys of {user}"),
                    hint: "give more of the fingerprint, as `bastio key ls USER` shows it",
                });
            }
        }
    }
    Ok(selected)
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fingerprint(prefix) => f.write_str(prefix),
            Self::Key(key) => f.write_str(&key.fingerprint()),
        }
    }
}

/// Removes all of them, once it is certain that each is there.
fn remove(
    context: &mut Context<'_>,
    user: &Username,
    wanted: &[Wanted],
) -> Result<Ending, Failure> {
    let keys = context.client.keys(user)?;
    let changes = select(user, &keys, wanted)?
        .iter()
        .map(|fingerprint| context.client.remove_key(user, fingerprint))
        .collect::<Result<_, _>>()?;
    settle(context, changes)
}

fn list(context: &mut Context<'_>, user: &Username) -> Result<Ending, Failure> {
    let keys = context.client.keys(user)?;
    let empty = format!("{user} has no keys; add one with: bastio key add {user} FILE");
    context.list(&keys, &empty, table)
}

/// Keys with a row each.
pub fn table(keys: &[Key], now: i64) -> Table {
    let mut header = vec!["KEY", "TYPE", "ADDED"];
    let ends = keys.iter().any(|key| key.until.is_some());
    let known = keys.iter().any(|key| !key.origin.is_empty());
    header.extend(known.then_some("BY"));
    let restricts = keys.iter().any(|key| !key.options.is_empty());
    header.extend(ends.then_some("UNTIL (UTC)"));
    header.extend(restricts.then_some("OPTIONS"));
    header.push("COMMENT");
    let mut table = Table::new(&header);
    for key in keys {
        let mut row: Vec<Cell> = vec![
            key.fingerprint.as_str().into(),
            key.public_key.algorithm().name().into(),
            ago(key.created, now).into(),
        ];
        row.extend(known.then(|| key.origin.as_str().into()));
        row.extend(ends.then(|| key.until.map(utc).unwrap_or_default().into()));
        row.extend(restricts.then(|| key.options.as_str().into()));
        row.push(key.public_key.comment().into());
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fingerprint: &str) -> Key {
        let line =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMINmOzSQZejrX3zSXobtT2icJMv/ftYuZKNVcnOxohl";
        let public_key = PublicKey::parse(line, &KeyPolicy::default()).expect("a key");
        let (options, until) = (KeyOptions::default(), None);
        let (fingerprint, origin) = (fingerprint.to_owned(), String::new());
        Key { fingerprint, public_key, options, until, created: 0, origin }
    }

    #[test]
    fn fingerprints_must_name_one_key() {
        let alice = Username::parse("alice").expect("a name");
        let keys = [key("SHA256:abcd1"), key("SHA256:abcd2"), key("SHA256:xyzw3")];
        let ask = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            parse_wanted(words).and_then(|wanted| select(&alice, &keys, &wanted))
        };
        assert_eq!(ask(&["SHA256:xyzw", "SHA256:xyzw3"]).ok(), Some(vec!["SHA256:xyzw3".into()]));
        assert_eq!(
            ask(&["SHA256:abcd1", "SHA256:xyzw"]).ok(),
            Some(vec!["SHA256:abcd1".into(), "SHA256:xyzw3".into()])
        );
        for (words, message, code) in [
            (&["SHA256:abcd"][..], "SHA256:abcd fits several keys of alice", 2),
            (&["SHA256:xyzw", "SHA256:none"], "alice has no key SHA256:none", 1),
            (&["SHA256:"], "SHA256: is too short to name a key", 2),
            (&["SHA256:xyz"], "SHA256:xyz is too short to name a key", 2),
        ] {
            let failure = ask(words).expect_err(message);
            assert_eq!((failure.to_string().as_str(), failure.code()), (message, code));
        }
    }
}
