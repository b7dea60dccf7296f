//! `bastio user`: people, with keys and a grant in one go.

pub mod access;

use std::path::PathBuf;

use bastio_protocol::api::{
    EndSessions, Grant, Membership, NewUser, RemoveUser, Server, Terms, UpdateUser, User,
    UserGroup, UserState,
};
use bastio_protocol::{
    AbsolutePath, AccountSpec, Comment, GroupName, KeyPolicy, Removal, Target, Username,
};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use crate::commands::{Context, Format, grant, key};
use crate::failure::{Ending, Failure};
use crate::follow::settle;
use crate::key_input;
use crate::moment::utc;
use crate::table::Table;
use crate::terminal::Terminal;
use crate::text::{ago, count};

/// What to do with people.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a person, with keys and a grant in one go
    Add(Box<Add>),
    /// Change a person
    Update(Box<Update>),
    /// Remove a person with all keys and grants, from every server
    #[command(after_help = "On a terminal it asks first; in a script it does not.

Whatever becomes of the home, access ends.

Examples:
  bastio user rm alice
  bastio user rm alice --home quarantine --yes")]
    #[command(aliases = ["remove", "delete"])]
    Rm(Rm),
    /// Let a person log in nowhere until unlocked; accounts, keys and grants stay
    #[command(after_help = "Sessions that are open stay: see bastio user end-sessions.

Example:
  bastio user lock alice")]
    Lock {
        /// The person
        user: Username,
    },
    /// End the sessions of every account that a person may use
    #[command(after_help = "Examples:
  bastio user end-sessions alice
  bastio user end-sessions alice --on role=web")]
    EndSessions {
        /// The person
        user: Username,
        /// Only there: names (web-1,web-2), labels (role=web) or *
        #[arg(long, value_name = "SERVERS")]
        on: Option<Target>,
    },
    /// End a person's keys, sudo rights and sessions everywhere, at once
    Disable(access::State),
    /// Let a disabled person in again, as before
    Enable(access::State),
    /// Show what proves that a person's access has ended, server by server
    #[command(visible_alias = "access")]
    Proof(access::Proof),
    /// Verify the file of a proof: needs no backend and no login
    Verify(access::Verify),
    /// Let a locked person log in again
    #[command(after_help = "Example:\n  bastio user unlock alice")]
    Unlock {
        /// The person
        user: Username,
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

/// A person to remove.
#[derive(Debug, Args)]
pub struct Rm {
    /// The person
    user: Username,
    /// What becomes of the home; each server's own rule (keep, unless configured) when absent
    #[arg(long, value_enum, value_name = "FATE")]
    home: Option<Home>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// What becomes of an account that goes, and of its home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Home {
    /// The home stays where it is
    Keep,
    /// The home is moved to a folder of root's and deleted after some weeks
    Quarantine,
    /// The home is deleted
    Delete,
    /// Account and home stay, locked and without keys and rights
    Lock,
}

impl From<Home> for Removal {
    fn from(home: Home) -> Self {
        match home {
            Home::Keep => Self::Keep,
            Home::Quarantine => Self::Quarantine,
            Home::Delete => Self::Delete,
            Home::Lock => Self::Lock,
        }
    }
}

/// What the accounts of a person's own name must be.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "The person's accounts (agents of version 2)")]
pub struct SpecArgs {
    /// Numeric id
    #[arg(long, value_name = "NUMBER", group = "change")]
    uid: Option<u32>,
    /// Primary group; one of the account's own name when absent
    #[arg(long, value_name = "NAME", group = "change", value_parser = field(GroupName::parse))]
    group: Option<GroupName>,
    /// All supplementary groups: docker,adm
    #[arg(long, value_name = "NAMES", group = "change", value_delimiter = ',')]
    #[arg(value_parser = field(GroupName::parse))]
    groups: Option<Vec<GroupName>>,
    /// Login shell
    #[arg(long, value_name = "PATH", group = "change", value_parser = field(AbsolutePath::parse))]
    shell: Option<AbsolutePath>,
    /// GECOS field
    #[arg(long, value_name = "TEXT", group = "change", value_parser = field(Comment::parse))]
    comment: Option<Comment>,
    /// Home folder
    #[arg(long, value_name = "PATH", group = "change", value_parser = field(AbsolutePath::parse))]
    home: Option<AbsolutePath>,
    /// Folder whose files a new home begins with
    #[arg(long, value_name = "PATH", group = "change", value_parser = field(AbsolutePath::parse))]
    skel: Option<AbsolutePath>,
}

impl From<SpecArgs> for AccountSpec {
    fn from(args: SpecArgs) -> Self {
        let SpecArgs { uid, group, groups, shell, comment, home, skel } = args;
        let groups = groups.map(|groups| groups.into_iter().collect());
        Self { uid, group, groups, shell, comment, home, skel }
    }
}

/// A parser for clap out of one of the protocol.
fn field<T>(
    parse: fn(&str) -> Result<T, bastio_protocol::AccountFieldError>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: 'static,
{
    move |text| parse(text).map_err(|error| error.to_string())
}

/// A person to add.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").multiple(true))]
#[command(
    after_help = "A person who exists already gets the keys and the grant in addition. A key \
file may hold several keys, one a line; blank lines and comments (#) are skipped.

Examples:
  bastio user add alice --key alice.pub --on role=web --sudo
  bastio user add bob --full-name 'Bob Roe' --mail bob@example.org
  bastio user add dora --key dora.pub --on web-1 --until 7d --uid 5001 --shell /bin/bash
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
    #[arg(long, requires = "on", conflicts_with = "sudo_policy")]
    sudo: bool,
    #[command(flatten)]
    terms: grant::TermsArgs,
    #[command(flatten)]
    spec: SpecArgs,
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
  bastio user update alice --mail alice@example.org
  bastio user update alice --shell /usr/bin/zsh --groups docker,adm")]
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
    #[command(flatten)]
    spec: SpecArgs,
}

/// Carries out what was asked; `with` is called once the input has been checked.
pub fn run<'a>(
    command: Command,
    format: Format,
    terminal: &'a mut Terminal,
    with: impl FnOnce(&'a mut Terminal) -> Result<Context<'a>, Failure>,
) -> Result<Ending, Failure> {
    match command {
        Command::Add(add) => {
            let mut add = *add;
            let terms = std::mem::take(&mut add.terms);
            let mut user = read(add)?;
            let mut context = with(terminal)?;
            user.terms = terms.at(context.now);
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
        Command::Update(edit) => {
            let Update { user, full_name, mail, sudo, no_sudo, spec } = *edit;
            let sudo = (sudo || no_sudo).then_some(sudo);
            let spec = spec.into();
            let edit = UpdateUser { full_name, mail, sudo, state: None, spec };
            update(&mut with(terminal)?, &user, &edit)
        }
        Command::Rm(rm) => remove(&mut with(terminal)?, &rm),
        Command::Lock { user } => {
            let mut context = with(terminal)?;
            let ending = set_state(&mut context, &user, UserState::Locked)?;
            context.hint(&format!(
                "sessions that are open stay; end them with: bastio user end-sessions {user}"
            ));
            Ok(ending)
        }
        Command::EndSessions { user, on } => {
            let mut context = with(terminal)?;
            let change = context.client.end_sessions(&user, &EndSessions { on })?;
            settle(&mut context, vec![change])
        }
        Command::Disable(who) => access::disable(&mut with(terminal)?, &who),
        Command::Enable(who) => access::enable(&mut with(terminal)?, &who),
        Command::Proof(asked) => access::proof(&mut with(terminal)?, &asked),
        Command::Verify(verify) => verify.run(format, terminal),
        Command::Unlock { user } => set_state(&mut with(terminal)?, &user, UserState::Active),
        Command::Ls => list(&mut with(terminal)?),
        Command::Show { user } => show(&mut with(terminal)?, &user),
    }
}

fn update(
    context: &mut Context<'_>,
    user: &Username,
    edit: &UpdateUser,
) -> Result<Ending, Failure> {
    let change = context.client.update_user(user, edit)?;
    settle(context, vec![change])
}

fn set_state(
    context: &mut Context<'_>,
    user: &Username,
    state: UserState,
) -> Result<Ending, Failure> {
    update(context, user, &UpdateUser { state: Some(state), ..UpdateUser::default() })
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
        terms: Terms::default(),
        spec: add.spec.into(),
        reason: add.reason,
    })
}

fn remove(context: &mut Context<'_>, rm: &Rm) -> Result<Ending, Failure> {
    let Rm { user, home, yes } = rm;
    let yes = *yes;
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
    let change = context.client.remove_user(user, RemoveUser { home: home.map(Removal::from) })?;
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
    let grant = |grant: &Grant| {
        let mut words = Vec::new();
        words.extend(grant.holder.group().map(|group| format!("group {group}")));
        words.extend(grant.sudo.then(|| "sudo".to_owned()));
        words.extend(grant.terms.sudo_policy.as_ref().map(|policy| format!("sudo: {policy}")));
        words.extend(grant.terms.from.map(|from| format!("from {} UTC", utc(from))));
        words.extend(grant.terms.until.map(|until| format!("until {} UTC", utc(until))));
        if words.is_empty() {
            grant.on.to_string()
        } else {
            format!("{} ({})", grant.on, words.join(", "))
        }
    };
    let grants = user.grants.iter().map(grant).collect::<Vec<_>>().join("; ");
    match user.state {
        UserState::Active => grants,
        state => format!("{}; else: {grants}", state.name()),
    }
}

fn show(context: &mut Context<'_>, name: &Username) -> Result<Ending, Failure> {
    let user = context.client.user(name)?;
    if context.format == Format::Json {
        context.terminal.json(&user)?;
        return Ok(Ending::AllDone);
    }
    let mut facts = vec![
        ("name", user.name.to_string()),
        ("full name", user.full_name.clone()),
        ("mail", user.mail.clone()),
        ("state", user.state.name().to_owned()),
        ("added", ago(user.created, context.now)),
    ];
    facts.extend((!user.groups.is_empty()).then(|| ("groups", groups(&user.groups))));
    context.terminal.table(&Table::facts(facts))?;
    let spec = spec(&AccountSpec { uid: user.uid.or(user.spec.uid), ..user.spec.clone() });
    if !spec.is_empty() {
        context.terminal.print("\n")?;
        context.terminal.table(&Table::facts(spec))?;
    }
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

/// `dba, ops (through dba)`
fn groups(memberships: &[Membership]) -> String {
    let words = memberships.iter().map(|membership| {
        let way: Vec<&str> = membership.through.iter().map(UserGroup::as_str).collect();
        match way.as_slice() {
            [] => membership.group.to_string(),
            _ => format!("{} (through {})", membership.group, way.join(" > ")),
        }
    });
    words.collect::<Vec<_>>().join(", ")
}

/// What the person's accounts must be, a row a field.
fn spec(spec: &AccountSpec) -> Vec<(&'static str, String)> {
    let AccountSpec { uid, group, groups, shell, comment, home, skel } = spec;
    let groups = groups
        .as_ref()
        .map(|groups| groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(","));
    let fields = [
        ("uid", uid.map(|uid| uid.to_string())),
        ("group", group.as_ref().map(ToString::to_string)),
        ("groups", groups),
        ("shell", shell.as_ref().map(ToString::to_string)),
        ("comment", comment.as_ref().map(ToString::to_string)),
        ("home", home.as_ref().map(ToString::to_string)),
        ("skel", skel.as_ref().map(ToString::to_string)),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
