//! `bastio server`: the servers and their labels.

use bastio_protocol::api::{
    DriftAnswer, Labels, NewRequest, Presence, RequestKind, Server, ServerDetail, UpdateServer,
};
use bastio_protocol::{ServerName, Target, parse_label};
use clap::{Args, Subcommand};

use crate::commands::{Context, Format, request};
use crate::failure::{Ending, Failure};
use crate::follow::settle;
use crate::moment::utc;
use crate::table::{Cell, Table, Tone};
use crate::text::{ago, count};

mod accounts;
mod doubts;

/// What to do with servers.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List servers
    #[command(after_help = "Examples:
  bastio server ls
  bastio server ls role=web      whom `--on role=web` reaches")]
    #[command(alias = "list")]
    Ls {
        /// Only these: names (web-1,web-2), labels (role=web) or *
        #[arg(value_name = "SERVERS")]
        on: Option<Target>,
    },
    /// Show a server with its accounts and what failed there
    #[command(after_help = "Example:\n  bastio server show web-1")]
    Show {
        /// The server
        server: ServerName,
    },
    /// Give a server another name
    #[command(after_help = "Example:\n  bastio server rename ip-10-0-0-7 web-1")]
    Rename {
        /// The server
        server: ServerName,
        /// Its new name
        new_name: ServerName,
    },
    /// Set and remove labels of a server
    Label(Label),
    /// Remove a server: its agent is not let in any more
    #[command(after_help = AFTER_RM)]
    #[command(aliases = ["remove", "delete"])]
    Rm {
        /// The server
        server: ServerName,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Decide that all is well with a server about which something was asked
    #[command(
        after_help = "`bastio server show NAME` tells what is asked. Until it is decided the server's agent waits;
afterwards it comes back by itself.

Example:\n  bastio server accept web-1"
    )]
    Accept {
        /// The server
        server: ServerName,
    },
    /// Let a server that was set up anew take the place of the one it was before
    #[command(
        after_help = "The new one gets the name, the labels and the grants of the old one, whose agent is not let in any
more.

Example:\n  bastio server replace web-1 --with web-1-2"
    )]
    Replace {
        /// The server that was there
        server: ServerName,
        /// The same, as it was enrolled anew
        #[arg(long, value_name = "SERVER")]
        with: ServerName,
    },
    /// Let a server become exactly what it should be, also where something failed before
    #[command(
        after_help = "Refused as a whole when nobody with sudo rights and a key would be left: a server without an
admin is repaired only at its console.

Examples:
  bastio server check web-1      first: what would change
  bastio server sync web-1"
    )]
    Sync {
        /// The server
        server: ServerName,
        /// Also when nobody with sudo rights and a key is left there
        #[arg(long)]
        allow_no_admin: bool,
    },
    /// Ask servers what a sync would change, and change nothing
    #[command(
        after_help = "Ends with 0 when all is as it should be, with 1 when something differs.

Examples:
  bastio server check web-1
  bastio server check --all"
    )]
    Check {
        /// The servers
        #[arg(value_name = "SERVER", required_unless_present = "all")]
        servers: Vec<ServerName>,
        /// All servers that are connected
        #[arg(long, conflicts_with = "servers")]
        all: bool,
    },
    /// Show everything on a server that has to do with who may log in
    #[command(
        after_help = "Accounts, keys, groups, sudo rules and sshd's settings, whoever made them.

Examples:
  bastio server report web-1
  bastio server report web-1 --output json"
    )]
    Report {
        /// The server
        server: ServerName,
    },
}

/// What removing a server does not do.
const STAYS: &str = "accounts and keys stay on the host, which takes no orders any more; to take \
                     them away first, end the grants on it: bastio grant ls, bastio grant rm";
const AFTER_RM: &str = "\
Accounts and keys stay on the host, and its agent takes no orders any more. To take them away,
end the grants on it first, and wait until it shows no account:
  bastio grant ls
  bastio grant rm ID
  bastio server show web-1

Example:
  bastio server rm web-1 --yes";

/// Labels to set and to remove.
#[derive(Debug, Args)]
#[command(
    after_help = "Grants by label follow at once: who may log in to role=web can log in to a \
server that gets that label.

Examples:
  bastio server label web-1 role=web env=prod
  bastio server label web-1 rack-                removes the label rack"
)]
pub struct Label {
    /// The server
    server: ServerName,
    /// NAME=VALUE sets, NAME- removes
    #[arg(required = true, value_name = "LABEL")]
    labels: Vec<LabelEdit>,
}

/// One edit of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LabelEdit {
    Set(String, String),
    Unset(String),
}

impl std::str::FromStr for LabelEdit {
    type Err = bastio_protocol::TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_suffix('-').filter(|_| !text.contains('=')) {
            // A name is good when it would be good in a label.
            Some(name) => parse_label(&format!("{name}=x"))
                .map(|(name, _)| Self::Unset(name))
                .map_err(|_| bastio_protocol::TargetError::Label(text.to_owned())),
            None => parse_label(text).map(|(name, value)| Self::Set(name, value)),
        }
    }
}

/// Carries out what was asked; `connect` is called once the arguments have been checked.
pub fn run<'a>(
    command: Command,
    connect: impl FnOnce() -> Result<Context<'a>, Failure>,
) -> Result<Ending, Failure> {
    match command {
        Command::Ls { on } => list(&mut connect()?, on.as_ref()),
        Command::Show { server } => show(&mut connect()?, &server),
        Command::Rename { server, new_name } => {
            let edit = UpdateServer { name: Some(new_name), ..UpdateServer::default() };
            update(&mut connect()?, &server, &edit)
        }
        Command::Label(Label { server, labels }) => {
            let edit = collect(labels)?;
            update(&mut connect()?, &server, &edit)
        }
        Command::Rm { server, yes } => remove(&mut connect()?, &server, yes),
        Command::Accept { server } => {
            let mut context = connect()?;
            let change = context.client.accept_server(&server)?;
            settle(&mut context, vec![change])
        }
        Command::Replace { server, with } => {
            let mut context = connect()?;
            let change = context.client.replace_server(&server, with)?;
            settle(&mut context, vec![change])
        }
        Command::Sync { server, allow_no_admin } => sync(&mut connect()?, &server, allow_no_admin),
        Command::Check { servers, all } => {
            let mut context = connect()?;
            let servers = if all { connected(&mut context)? } else { servers };
            request::check(&mut context, &servers)
        }
        Command::Report { server } => request::report(&mut connect()?, &server),
    }
}

/// A server of version 1 gets the actions that it lacks, which is no request.
fn sync(
    context: &mut Context<'_>,
    server: &ServerName,
    allow_no_admin: bool,
) -> Result<Ending, Failure> {
    if allow_no_admin {
        let new = NewRequest { kind: RequestKind::Sync, allow_no_admin };
        let asked = context.client.request(server, new)?;
        return request::follow_sync(context, asked);
    }
    let mut change = context.client.sync_server(server)?;
    match change.request.take() {
        Some(asked) => request::follow_sync(context, *asked),
        None => settle(context, vec![change]),
    }
}

/// Every server that can be asked now; people hear of the others.
fn connected(context: &mut Context<'_>) -> Result<Vec<ServerName>, Failure> {
    let servers = context.client.servers()?.into_iter();
    let (there, away): (Vec<_>, Vec<_>) =
        servers.partition(|server| server.presence == Presence::Connected);
    if !away.is_empty() {
        let away: Vec<&str> = away.iter().map(|server| server.name.as_str()).collect();
        context.terminal.note(&format!("not connected, so not checked: {}", away.join(", ")));
    }
    Ok(there.into_iter().map(|server| server.name).collect())
}

/// The edits as one request; two edits of one label contradict each other.
fn collect(edits: Vec<LabelEdit>) -> Result<UpdateServer, Failure> {
    let mut update = UpdateServer::default();
    for edit in edits {
        let (LabelEdit::Set(name, _) | LabelEdit::Unset(name)) = &edit;
        if update.set_labels.contains_key(name) || update.unset_labels.contains(name) {
            return Err(Failure::Usage {
                message: format!("the label {name} is given twice"),
                hint: "give each label once: NAME=VALUE to set it, NAME- to remove it",
            });
        }
        match edit {
            LabelEdit::Set(name, value) => drop(update.set_labels.insert(name, value)),
            LabelEdit::Unset(name) => update.unset_labels.push(name),
        }
    }
    Ok(update)
}

fn update(
    context: &mut Context<'_>,
    server: &ServerName,
    edit: &UpdateServer,
) -> Result<Ending, Failure> {
    let change = context.client.update_server(server, edit)?;
    settle(context, vec![change])
}

fn remove(context: &mut Context<'_>, server: &ServerName, yes: bool) -> Result<Ending, Failure> {
    if !yes {
        context.terminal.note(STAYS);
    }
    if !context.may_remove(yes, &format!("the server {server}"))? {
        return Ok(Ending::SomeFailed);
    }
    let change = context.client.remove_server(server)?;
    settle(context, vec![change])
}

fn list(context: &mut Context<'_>, on: Option<&Target>) -> Result<Ending, Failure> {
    let mut servers = context.client.servers()?;
    servers.retain(|server| on.is_none_or(|on| on.includes(&server.name, &server.labels)));
    let empty = match on {
        Some(_) => "no server fits",
        None => "no servers yet; enrol one with: bastio api-key add NAME --role enroll",
    };
    context.list(&servers, empty, table)
}

fn table(servers: &[Server], now: i64) -> Table {
    let mut table =
        Table::new(&["NAME", "AGENT", "LAST SEEN", "STATE", "WAITING", "FAILED", "LABELS"]);
    for server in servers {
        let failed = if server.failed > 0 { Tone::Bad } else { Tone::Plain };
        table.row([
            server.name.as_str().into(),
            presence(server.presence),
            last_seen(server, now).into(),
            state(server),
            server.pending.to_string().into(),
            Cell::new(&server.failed.to_string(), failed),
            labels(&server.labels).into(),
        ]);
    }
    table
}

/// How far a server is with the model: `in sync at 57`.
fn state(server: &Server) -> Cell {
    if let Some(cell) = doubts::cell(server) {
        return cell;
    }
    if let Some(failure) = &server.failure {
        return Cell::new(&format!("failed: {failure}"), Tone::Bad);
    }
    if server.keeps_drifting {
        return Cell::new("keeps drifting", Tone::Bad);
    }
    if server.drifted {
        return Cell::new("drifted", Tone::Bad);
    }
    match server.pending {
        0 => Cell::new(&format!("in sync at {}", server.in_sync_at), Tone::Good),
        _ => Cell::new(&format!("pending since {}", server.in_sync_at), Tone::Warn),
    }
}

fn show(context: &mut Context<'_>, name: &ServerName) -> Result<Ending, Failure> {
    let detail = context.client.server(name)?;
    if context.format == Format::Json {
        context.terminal.json(&detail)?;
        return Ok(Ending::AllDone);
    }
    context.terminal.table(&facts(&detail, context.now))?;
    if let Some(hint) = doubts::hint(&detail.server) {
        context.hint(&hint);
    }
    if !detail.accounts.is_empty() {
        context.terminal.print("\n")?;
        context.terminal.table(&accounts::table(&detail.accounts))?;
    }
    if !detail.failures.is_empty() {
        context.terminal.print("\n")?;
        context.terminal.table(&failures(&detail))?;
    }
    if let Some(drift) = &detail.drift {
        let at = utc(drift.at);
        context
            .terminal
            .print(&format!("\n{}:\n", drift_words(&detail.server, drift.healed, &at)))?;
        context.terminal.table(&request::detail_table(&drift.detail))?;
        if !drift.healed {
            context.hint(&format!(
                "what must be done to undo it is shown; do so with: bastio server sync {name}"
            ));
        }
    }
    Ok(Ending::AllDone)
}

fn drift_words(server: &Server, healed: bool, at: &str) -> String {
    if healed {
        return format!("Drift put right at {at} UTC");
    }
    let rule = match server.drift_answer {
        _ if server.keeps_drifting => ", although it was brought back (see bastio log)",
        DriftAnswer::Show => "",
        DriftAnswer::Leave => ", and left so by a rule (bastio drift ls)",
        DriftAnswer::Heal => ", to be healed (bastio drift ls)",
    };
    format!("Drift found at {at} UTC, and there still{rule}")
}

fn facts(detail: &ServerDetail, now: i64) -> Table {
    let server = &detail.server;
    let state = match server.presence {
        Presence::Connected if server.keeps_drifting => {
            "connected, keeps drifting (see below)".to_owned()
        }
        Presence::Connected if server.drifted => "connected, drifted (see below)".to_owned(),
        Presence::Connected => "connected".to_owned(),
        Presence::Offline => format!("offline, last seen {}", last_seen(server, now)),
        Presence::NeverSeen => "never seen".to_owned(),
    };
    let mut rows = vec![
        ("name", server.name.to_string()),
        ("labels", labels(&server.labels)),
        ("state", state),
        ("address", server.address.clone().unwrap_or_default()),
        ("agent", server.agent.clone().unwrap_or_default()),
        ("agent's key", server.fingerprint.clone()),
        ("enrolled", ago(server.created, now)),
        ("actions", format!("{} waiting, {} failed", server.pending, server.failed)),
    ];
    rows.extend(doubts::rows(server, now));
    rows.extend(detail.facts.iter().map(|(name, value)| (name.as_str(), value.clone())));
    Table::facts(rows)
}

fn failures(detail: &ServerDetail) -> Table {
    let mut table = Table::new(&["FAILED", "ACCOUNT", "TRIES", "FEEDBACK"]);
    for failure in &detail.failures {
        table.row([
            Cell::new(&failure.action, Tone::Bad),
            failure.username.as_str().into(),
            count(failure.tries, "time").into(),
            failure.feedback.as_deref().unwrap_or_default().into(),
        ]);
    }
    table
}

fn presence(presence: Presence) -> Cell {
    match presence {
        Presence::Connected => Cell::new("connected", Tone::Good),
        Presence::Offline => Cell::new("offline", Tone::Warn),
        Presence::NeverSeen => Cell::new("never seen", Tone::Warn),
    }
}

fn last_seen(server: &Server, now: i64) -> String {
    match (server.presence, server.last_seen) {
        (Presence::Connected, _) => "now".to_owned(),
        (_, Some(at)) => ago(at, now),
        (_, None) => "never".to_owned(),
    }
}

fn labels(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Option<UpdateServer> {
        let edits = words.iter().map(|word| word.parse()).collect::<Result<Vec<_>, _>>().ok()?;
        collect(edits).ok()
    }

    #[test]
    fn labels_are_set_and_removed_in_one_go() {
        let update = parse(&["role=web", "env=a-b-", "rack-", "a-b-"]).expect("labels");
        assert_eq!(labels(&update.set_labels), "env=a-b-,role=web");
        assert_eq!(update.unset_labels, ["rack", "a-b"]);
    }

    #[test]
    fn refuses_labels_that_are_none_or_contradict_each_other() {
        for words in [
            &["role"][..],
            &["-"],
            &["role="],
            &["=web"],
            &["a b-"],
            &["role=web", "role-"],
            &["role-", "role=web"],
            &["role=web", "role=db"],
        ] {
            assert_eq!(parse(words), None, "{words:?}");
        }
    }
}
