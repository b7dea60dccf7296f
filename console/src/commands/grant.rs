//! `bastio grant`: who may log in where.

use bastio_protocol::api::{Grant, Holder, NewGrant, PolicyName, Terms, UserGroup};
use bastio_protocol::{KeyOptions, Target, Username};
use clap::{Args, Subcommand};

use crate::commands::{Context, yes_or_no};
use crate::failure::{Ending, Failure};
use crate::follow::settle;
use crate::moment::{Moment, utc};
use crate::table::{Cell, Table};
use crate::text::ago;

/// What to do with grants.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Let a person, or everybody in a group, log in to servers
    Add(Box<Add>),
    /// Take a grant back
    #[command(after_help = "Example:\n  bastio grant rm 12")]
    #[command(aliases = ["remove", "delete"])]
    Rm {
        /// The grant's number, as `bastio grant ls` shows it
        #[arg(value_parser = clap::value_parser!(i64).range(0..))]
        id: i64,
    },
    /// List all grants
    #[command(after_help = "Example:\n  bastio grant ls")]
    #[command(alias = "list")]
    Ls,
}

/// A grant to make.
#[derive(Debug, Args)]
#[command(
    after_help = "Servers that get a fitting label later are included. What ends, ends on the servers by themselves,
also when nothing can reach them.

Ends, policies, key options and take-over need agents of version 2; others refuse such a grant. Begins
need nothing.

Examples:
  bastio grant add alice --on db-1
  bastio grant add alice --on role=web,env!=test --sudo --reason 'on call'
  bastio grant add alice --on 'role=web|db,env!=prod|stage'
  bastio grant add alice --on '*' --login deploy
  bastio grant add bob --on role=web --until 2h --sudo-policy restart-nginx
  bastio grant add --group ops --on role=web --sudo
  bastio grant add --group ops --on '*' --login deploy      one account that all of them share
  bastio grant add bob --on db-1 --from 2026-12-01T08:00Z --until 2026-12-01T18:00Z
  bastio grant add ci --on web-1 --until 2026-12-01 --key-options 'from=\"10.0.0.0/8\",restrict'"
)]
pub struct Add {
    /// The person
    #[arg(required_unless_present = "group", conflicts_with = "group")]
    user: Option<Username>,
    /// Everybody in this group, each with an own account unless --login names one for all
    #[arg(long, value_name = "GROUP")]
    group: Option<UserGroup>,
    /// Servers: names (web-1,web-2), labels (role=web) or *
    #[arg(long, value_name = "SERVERS")]
    on: Target,
    /// With sudo rights
    #[arg(long, conflicts_with = "sudo_policy")]
    sudo: bool,
    #[command(flatten)]
    terms: TermsArgs,
    /// Login name on the servers, when it is not the person's name
    #[arg(long, value_name = "NAME")]
    login: Option<Username>,
    /// Why, for the log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

/// What a grant says beyond who, where and plain sudo.
#[derive(Debug, Default, Args)]
pub struct TermsArgs {
    /// With the sudo rights of this policy (bastio sudo-policy ls)
    #[arg(long, value_name = "POLICY", requires = "on")]
    sudo_policy: Option<PolicyName>,
    /// When it begins: as the end; at once when absent
    #[arg(long, value_name = "BEGIN", requires = "on")]
    from: Option<Moment>,
    /// When it ends: a duration (90s, 2h, 7d), a day (2026-12-01) or a time (RFC 3339)
    #[arg(long, value_name = "END", requires = "on")]
    until: Option<Moment>,
    /// What the person's keys may do there, as in authorized_keys(5): from="10.0.0.0/8",restrict
    #[arg(long, value_name = "OPTIONS", value_parser = key_options, requires = "on")]
    key_options: Option<KeyOptions>,
    /// Manage an account of that name that is there already and was not made by bastio
    #[arg(long, requires = "on")]
    take_over: bool,
}

impl TermsArgs {
    /// As the backend takes it.
    pub fn at(self, now: i64) -> Terms {
        Terms {
            from: self.from.map(|from| from.at(now)),
            until: self.until.map(|until| until.at(now)),
            sudo_policy: self.sudo_policy,
            key_options: self.key_options.unwrap_or_default(),
            take_over: self.take_over,
        }
    }
}

/// Options of keys, checked.
pub fn key_options(text: &str) -> Result<KeyOptions, String> {
    KeyOptions::parse(text).map_err(|error| error.to_string())
}

/// Carries out what was asked.
pub fn run(command: Command, context: &mut Context<'_>) -> Result<Ending, Failure> {
    match command {
        Command::Add(add) => {
            let Add { user, group, on, sudo, terms, login, reason } = *add;
            let terms = terms.at(context.now);
            let holder = holder(user, group)?;
            let grant = NewGrant { holder, on, login, sudo, terms, reason };
            let change = context.client.add_grant(&grant)?;
            let reached = !change.servers.is_empty();
            let ending = settle(context, vec![change])?;
            match grant.terms.from.filter(|from| *from > context.now) {
                Some(from) => context.hint(&format!("it begins at {} UTC", utc(from))),
                None if !reached => context.tell_nobody_matched(&grant.on),
                None => {}
            }
            Ok(ending)
        }
        Command::Rm { id } => {
            let change = context.client.remove_grant(id)?;
            settle(context, vec![change])
        }
        Command::Ls => list(context),
    }
}

/// The command line lets exactly one of them through.
fn holder(user: Option<Username>, group: Option<UserGroup>) -> Result<Holder, Failure> {
    let holder = group.map(Holder::Group).or_else(|| user.map(Holder::User));
    holder.ok_or_else(|| Failure::Usage {
        message: "nobody is named".to_owned(),
        hint: "name a user, or a group with --group",
    })
}

fn list(context: &mut Context<'_>) -> Result<Ending, Failure> {
    let grants = context.client.grants()?;
    let empty = "no grants yet; make one with: bastio grant add USER --on SERVERS";
    context.list(&grants, empty, table)
}

/// Grants with a row each; what hardly any grant says has a column only where one does.
pub fn table(grants: &[Grant], now: i64) -> Table {
    let mut header = vec!["GRANT", "USER"];
    let in_groups = grants.iter().any(|grant| grant.holder.group().is_some());
    header.extend(in_groups.then_some("GROUP"));
    header.extend(["ON", "LOGIN", "SUDO", "ADDED"]);
    let begins = grants.iter().any(|grant| grant.terms.from.is_some());
    let ends = grants.iter().any(|grant| grant.terms.until.is_some());
    let restricts = grants.iter().any(|grant| !grant.terms.key_options.is_empty());
    header.extend(begins.then_some("FROM (UTC)"));
    header.extend(ends.then_some("UNTIL (UTC)"));
    header.extend(restricts.then_some("KEY OPTIONS"));
    header.push("REASON");
    let mut table = Table::new(&header);
    for grant in grants {
        let user = grant.holder.user().map(Username::as_str).unwrap_or_default();
        let mut row: Vec<Cell> = vec![grant.id.to_string().into(), user.into()];
        let group = grant.holder.group().map(UserGroup::as_str).unwrap_or_default();
        row.extend(in_groups.then(|| group.into()));
        row.extend([
            grant.on.to_string().into(),
            grant.login.as_ref().map_or("their own", Username::as_str).into(),
            grant
                .terms
                .sudo_policy
                .as_ref()
                .map_or_else(|| yes_or_no(grant.sudo), |policy| policy.as_str().into()),
            ago(grant.created, now).into(),
        ]);
        row.extend(begins.then(|| grant.terms.from.map(utc).unwrap_or_default().into()));
        row.extend(ends.then(|| grant.terms.until.map(utc).unwrap_or_default().into()));
        row.extend(restricts.then(|| grant.terms.key_options.as_str().into()));
        row.push(grant.reason.as_str().into());
        table.row(row);
    }
    table
}
