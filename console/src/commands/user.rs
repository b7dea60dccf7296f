//! `bastio user`: people, with keys and a grant in one go.

use std::path::PathBuf;

use bastio_protocol::api::{Grant, NewUser, Server, UpdateUser, User};
use bastio_protocol::{KeyPolicy, Target, Username};
use clap::{ArgGroup, Args, Subcommand};

use crate::commands::{Context, Format, grant, key};
use crate::failure::{Ending, Failure};
use crate::follow::settle;
use crate::key_input;
use crate::table::Table;
use crate::text::{ago, count};

/// What to do with people.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a person, with keys and a grant in one go
    Add(Add),
    /// Change a person
    Update(Update),
    /// Remove a person with all keys and grants, from every server
    #[command(after_help = "On a terminal it asks first; in a script it does not.

Examples:
  bastio user rm alice
  bastio user rm alice --yes")]
    #[command(aliases = ["remove", "delete"])]
    Rm {
        /// The person
        user: Username,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// List people
    #[command(after_help = "Example:\n  bastio user ls")]
    #[command(alias = "list")]
    Ls,
    /// Show a person with keys and grants
    #[command(after_help = "Example:\n  bastio user show alice")]
    Show {
        /// The person
        user: Username,
    },
}

/// A person to add.
#[derive(Debug, Args)]
#[command(
    after_help = "A person who exists already gets the keys and the grant in addition. A key \
file may hold several keys, one a line; blank lines and comments (#) are skipped.

Examples:
  bastio user add alice --key alice.pub --on role=web --sudo
  bastio user add bob --full-name 'Bob Roe' --mail bob@example.org
  ssh-add -L | bastio user add carol --key - --on web-1,web-2 --reason 'ticket 4711'"
)]
pub struct Add {
    /// The person's name, also the login name
    user: Username,
    /// A file with public keys, - for stdin; may be given several times
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Let the person log in there: names (web-1,web-2), labels (role=web) or *
    #[arg(long, value_name = "SERVERS")]
    on: Option<Target>,
    /// With sudo rights there
    #[arg(long, requires = "on")]
    sudo: bool,
    /// Name for people
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    full_name: String,
    /// Mail address
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    mail: String,
    /// Why, for the log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

/// Changes of a person.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
#[command(after_help = "Examples:
  bastio user update alice --no-sudo
  bastio user update alice --mail alice@example.org")]
pub struct Update {
    /// The person
    user: Username,
    /// Name for people
    #[arg(long, value_name = "TEXT", group = "change")]
    full_name: Option<String>,
    /// Mail address
    #[arg(long, value_name = "ADDRESS", group = "change")]
    mail: Option<String>,
    /// Sudo rights with every grant that the person has
    #[arg(long, group = "change", conflicts_with = "no_sudo")]
    sudo: bool,
    /// No sudo rights anywhere
    #[arg(long, group = "change")]
    no_sudo: bool,
}

/// Carries out what was asked; `connect` is called once the input has been checked.
pub fn run<'a>(
    command: Command,
    connect: impl FnOnce() -> Result<Context<'a>, Failure>,
) -> Result<Ending, Failure> {
    match command {
        Command::Add(add) => {
            let user = read(add)?;
            let mut context = connect()?;
            let change = context.client.add_user(&user)?;
            let reached = !change.servers.is_empty();
            let ending = settle(&mut context, vec![change])?;
            if let Some(on) = user.on.as_ref().filter(|_| !reached) {
                context.tell_nobody_matched(on);
            }
            if user.keys.is_empty() {
                let name = &user.name;
                context.hint(&format!(
                    "unless {name} has a key already, no login is possible; give one with: \
                     bastio key add {name} FILE"
                ));
            }
            Ok(ending)
        }
        Command::Update(Update { user, full_name, mail, sudo, no_sudo }) => {
            let sudo = (sudo || no_sudo).then_some(sudo);
            let mut context = connect()?;
            let change =
                context.client.update_user(&user, &UpdateUser { full_name, mail, sudo })?;
            settle(&mut context, vec![change])
        }
        Command::Rm { user, yes } => remove(&mut connect()?, &user, yes),
        Command::Ls => list(&mut connect()?),
        Command::Show { user } => show(&mut connect()?, &user),
    }
}

/// Reads the key files of a person to add.
fn read(add: Add) -> Result<NewUser, Failure> {
    let keys = key_input::read_files(&add.keys, &KeyPolicy::default())?;
    Ok(NewUser {
        name: add.user,
        full_name: add.full_name,
        mail: add.mail,
        keys: keys.iter().map(ToString::to_string).collect(),
        on: add.on,
        sudo: add.sudo,
        reason: add.reason,
    })
}

fn remove(context: &mut Context<'_>, user: &Username, yes: bool) -> Result<Ending, Failure> {
    if !yes && context.terminal.can_ask() {
        let person = context.client.user(user)?;
        let reached = reached(&person, &context.client.servers()?);
        let what = match reached {
            0 => user.to_string(),
            reached => format!("{user} from {}", count(reached, "server")),
        };
        if !context.may_remove(yes, &what)? {
            return Ok(Ending::SomeFailed);
        }
    }
    let change = context.client.remove_user(user)?;
    settle(context, vec![change])
}

/// How many servers a person's grants reach.
fn reached(person: &User, servers: &[Server]) -> usize {
    let granted = |server: &&Server| {
        person.grants.iter().any(|grant| grant.on.includes(&server.name, &server.labels))
    };
    servers.iter().filter(granted).count()
}

fn list(context: &mut Context<'_>) -> Result<Ending, Failure> {
    let users = context.client.users()?;
    let empty = "nobody yet; add someone with: bastio user add NAME --key FILE --on SERVERS";
    context.list(&users, empty, table)
}

fn table(users: &[User], now: i64) -> Table {
    let mut table = Table::new(&["NAME", "FULL NAME", "KEYS", "ADDED", "MAY LOG IN ON"]);
    for user in users {
        table.row([
            user.name.as_str().into(),
            user.full_name.as_str().into(),
            user.keys.len().to_string().into(),
            ago(user.created, now).into(),
            grants(user).into(),
        ]);
    }
    table
}

/// Where a person may log in, in one line.
fn grants(user: &User) -> String {
    let grant = |grant: &Grant| format!("{}{}", grant.on, if grant.sudo { " (sudo)" } else { "" });
    user.grants.iter().map(grant).collect::<Vec<_>>().join("; ")
}

fn show(context: &mut Context<'_>, name: &Username) -> Result<Ending, Failure> {
    let user = context.client.user(name)?;
    if context.format == Format::Json {
        context.terminal.json(&user)?;
        return Ok(Ending::AllDone);
    }
    context.terminal.table(&Table::facts([
        ("name", user.name.to_string()),
        ("full name", user.full_name.clone()),
        ("mail", user.mail.clone()),
        ("added", ago(user.created, context.now)),
    ]))?;
    if !user.keys.is_empty() {
        context.terminal.print("\n")?;
        context.terminal.table(&key::table(&user.keys, context.now))?;
    }
    if !user.grants.is_empty() {
        context.terminal.print("\n")?;
        context.terminal.table(&grant::table(&user.grants, context.now))?;
    }
    Ok(Ending::AllDone)
}
