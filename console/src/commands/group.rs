//! `bastio group`: groups of people, which grants are made to.

use bastio_protocol::Username;
use bastio_protocol::api::{Group, Members, NewGroup, RemoveGroup, UpdateGroup, UserGroup};
use clap::{Args, Subcommand};

use crate::commands::{Context, Format, grant};
use crate::failure::{Ending, Failure};
use crate::follow::settle;
use crate::table::Table;
use crate::text::ago;

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a group
    #[command(after_help = "Examples:
  bastio group add db-admins --member bob
  bastio group add ops --member alice,bob --group db-admins
  bastio grant add --group ops --on role=web --sudo")]
    Add {
        /// Its name
        name: UserGroup,
        #[command(flatten)]
        members: MemberArgs,
    },
    /// Remove a group; what it was granted ends for its people
    #[command(after_help = "Refused while the group has grants, unless they may end with it.

Examples:
  bastio group rm ops
  bastio group rm ops --with-grants --yes")]
    #[command(aliases = ["remove", "delete"])]
    Rm {
        /// The group
        name: UserGroup,
        /// End its grants, too
        #[arg(long)]
        with_grants: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Members of a group: add, remove
    #[command(subcommand)]
    Member(MemberCommand),
    /// List groups
    #[command(after_help = "Example:\n  bastio group ls")]
    #[command(alias = "list")]
    Ls,
    /// Show a group with everybody in it and its grants
    #[command(after_help = "Example:\n  bastio group show ops")]
    Show {
        /// The group
        name: UserGroup,
    },
}

/// What to do with members.
#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// Put people, or a group with all its people, into a group
    #[command(after_help = "Examples:
  bastio group member add ops alice carol
  bastio group member add ops --group db-admins")]
    Add(MemberEdit),
    /// Take people or a group out of a group; what they had through it ends at once
    #[command(after_help = "Examples:
  bastio group member rm ops alice
  bastio group member rm ops --group db-admins")]
    #[command(aliases = ["remove", "delete"])]
    Rm(MemberEdit),
}

/// First members of a group.
#[derive(Debug, Args)]
pub struct MemberArgs {
    /// People in it: alice,bob
    #[arg(long = "member", value_name = "USERS", value_delimiter = ',')]
    users: Vec<Username>,
    /// Groups whose people are in it, too
    #[arg(long = "group", value_name = "GROUPS", value_delimiter = ',')]
    groups: Vec<UserGroup>,
}

/// Members that come or go.
#[derive(Debug, Args)]
pub struct MemberEdit {
    /// The group
    name: UserGroup,
    /// People
    #[arg(value_name = "USER", required_unless_present = "groups")]
    users: Vec<Username>,
    /// Groups inside it
    #[arg(long = "group", value_name = "GROUPS", value_delimiter = ',')]
    groups: Vec<UserGroup>,
}

/// Carries out what was asked.
pub fn run(command: Command, context: &mut Context<'_>) -> Result<Ending, Failure> {
    match command {
        Command::Add { name, members: MemberArgs { users, groups } } => {
            let new = NewGroup { name, members: Members { users, groups } };
            let change = context.client.add_group(&new)?;
            let ending = settle(context, vec![change])?;
            let name = &new.name;
            context.hint(&format!(
                "let its people log in somewhere with: bastio grant add --group {name} --on SERVERS"
            ));
            Ok(ending)
        }
        Command::Rm { name, with_grants, yes } => {
            if !context.may_remove(yes, &format!("the group {name}"))? {
                return Ok(Ending::SomeFailed);
            }
            let change = context.client.remove_group(&name, RemoveGroup { with_grants })?;
            settle(context, vec![change])
        }
        Command::Member(MemberCommand::Add(MemberEdit { name, users, groups })) => {
            let add = Members { users, groups };
            update(context, &name, &UpdateGroup { add, remove: Members::default() })
        }
        Command::Member(MemberCommand::Rm(MemberEdit { name, users, groups })) => {
            let remove = Members { users, groups };
            update(context, &name, &UpdateGroup { add: Members::default(), remove })
        }
        Command::Ls => {
            let groups = context.client.groups()?;
            let empty = "no groups; add one with: bastio group add NAME --member USERS";
            context.list(&groups, empty, table)
        }
        Command::Show { name } => show(context, &name),
    }
}

fn update(
    context: &mut Context<'_>,
    name: &UserGroup,
    edit: &UpdateGroup,
) -> Result<Ending, Failure> {
    let change = context.client.update_group(name, edit)?;
    settle(context, vec![change])
}

fn show(context: &mut Context<'_>, name: &UserGroup) -> Result<Ending, Failure> {
    let group = context.client.group(name)?;
    if context.format == Format::Json {
        context.terminal.json(&group)?;
        return Ok(Ending::AllDone);
    }
    context.terminal.table(&Table::facts([
        ("name", group.name.to_string()),
        ("members", users(&group.members.users)),
        ("groups in it", groups(&group.members.groups)),
        ("everybody", users(&group.people)),
        ("added", ago(group.created, context.now)),
    ]))?;
    if !group.grants.is_empty() {
        context.terminal.print("\n")?;
        context.terminal.table(&grant::table(&group.grants, context.now))?;
    }
    Ok(Ending::AllDone)
}

fn table(all: &[Group], now: i64) -> Table {
    let mut table = Table::new(&["GROUP", "MEMBERS", "GROUPS IN IT", "PEOPLE", "GRANTS", "ADDED"]);
    for group in all {
        table.row([
            group.name.as_str().into(),
            users(&group.members.users).into(),
            groups(&group.members.groups).into(),
            group.people.len().to_string().into(),
            group.grants.len().to_string().into(),
            ago(group.created, now).into(),
        ]);
    }
    table
}

fn users(users: &[Username]) -> String {
    users.iter().map(Username::as_str).collect::<Vec<_>>().join(",")
}

fn groups(groups: &[UserGroup]) -> String {
    groups.iter().map(UserGroup::as_str).collect::<Vec<_>>().join(",")
}
