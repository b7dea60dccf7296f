//! `bastio api-key`: keys for admins, and for servers that enrol.

use std::io;

use bastio_protocol::api::{ApiKey, CreatedApiKey, EnrollHint, NewApiKey, Role};
use bastio_protocol::audit::hex;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::commands::{Context, Format};
use crate::failure::{Ending, Failure};
use crate::table::Table;
use crate::text::{ago, one_line};

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an API key and show its secret this once
    Add(Add),
    /// List the API keys, without their secrets
    #[command(after_help = "Example:\n  bastio api-key ls")]
    #[command(alias = "list")]
    Ls,
    /// Remove an API key; from then on it opens nothing
    #[command(after_help = "Example:\n  bastio api-key rm rack-7")]
    #[command(aliases = ["remove", "delete"])]
    Rm {
        /// Its name
        name: String,
    },
}

/// An API key to make.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bastio api-key add rack-7 --role enroll         for servers; prints how they enrol
  bastio api-key add bob --role admin             a token for `bastio login`
  bastio api-key add prometheus --role metrics    a token for the scrapes of /metrics")]
pub struct Add {
    /// A name to know it by
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    name: String,
    /// What it opens
    #[arg(long)]
    role: RoleName,
    /// SHA-256 of the secret, made by whoever is to have it: nobody else sees it
    #[arg(long, value_name = "HEX")]
    secret_sha256: Option<String>,
}

/// [`Role`] as it is written on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// Everything that bastio can do
    Admin,
    /// The enrolment of servers, nothing else
    Enroll,
    /// The figures at /metrics, nothing else
    Metrics,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Admin => Self::Admin,
            RoleName::Enroll => Self::Enroll,
            RoleName::Metrics => Self::Metrics,
        }
    }
}

/// Carries out what was asked.
pub fn run(command: Command, context: &mut Context<'_>) -> Result<Ending, Failure> {
    match command {
        Command::Add(command) => add(context, command),
        Command::Ls => list(context),
        Command::Rm { name } => {
            let removed = context.client.remove_api_key(&name)?;
            match context.format {
                Format::Json => context.terminal.json(&removed)?,
                Format::Table => context.terminal.note(&format!("removed the API key {name}")),
            }
            Ok(Ending::AllDone)
        }
    }
}

fn add(context: &mut Context<'_>, command: Add) -> Result<Ending, Failure> {
    let Add { name, role, secret_sha256 } = command;
    let role = Role::from(role);
    // Where a second operator must approve it, the backend's answer would show the secret to that one.
    let own = (role == Role::Admin && secret_sha256.is_none()).then(secret).transpose()?;
    let secret_sha256 = own.as_deref().map(sha256).or(secret_sha256);
    let key = &NewApiKey { name, role, secret_sha256 };
    let mut created = match context.client.add_api_key(key) {
        Ok(created) => created,
        Err(error) => {
            if let (Some(own), Some(id)) = (&own, error.proposal()) {
                let note = format!("this secret opens nothing until proposal {id} is approved:");
                context.terminal.note(&note);
                match context.format {
                    Format::Json => {
                        context.terminal.json(&json!({ "proposal": id, "secret": own }))?;
                    }
                    Format::Table => context.terminal.print(&format!("{own}\n"))?,
                }
            }
            return Err(error.into());
        }
    };
    if let Some(own) = own {
        created.secret = own;
    }
    match context.format {
        Format::Json => context.terminal.json(&created)?,
        Format::Table if created.secret.is_empty() => {
            context.terminal.note(&format!("made the API key {}", key.name));
        }
        Format::Table => {
            let note = format!("made the API key {}; its secret is shown this once", key.name);
            context.terminal.note(&note);
            context.terminal.print(&(one_line(&created.secret) + "\n"))?;
            if let Some(hint) = &created.enroll {
                context.terminal.note("on the server to enrol:");
                context.terminal.print(&enrolment(&created, hint))?;
            }
        }
    }
    Ok(Ending::AllDone)
}

/// A new secret: `bst_` and 64 hexadecimal digits, 256 random bits.
fn secret() -> Result<String, Failure> {
    let random = ring::rand::generate::<[u8; 32]>(&ring::rand::SystemRandom::new());
    let random = random.map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(format!("bst_{}", hex(&random.expose())))
}

fn sha256(text: &str) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
}

/// The command that enrols a server. The secret goes through stdin: arguments can be read by
/// everyone on the machine, and sudo drops the environment.
fn enrolment(created: &CreatedApiKey, hint: &EnrollHint) -> String {
    format!(
        "\nsudo bastio-agent enroll --backend {} --host-key {} --api-key-file - <<'END'\n{}\nEND\n",
        quoted(&hint.backend),
        quoted(&hint.host_key),
        one_line(&created.secret),
    )
}

/// One word for a POSIX shell, quoted where it must be.
fn quoted(text: &str) -> String {
    let text = one_line(text);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:/+=@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn list(context: &mut Context<'_>) -> Result<Ending, Failure> {
    let keys = context.client.api_keys()?;
    context.list(&keys, "no API keys", table)
}

fn table(keys: &[ApiKey], now: i64) -> Table {
    let mut table = Table::new(&["NAME", "ROLE", "ADDED", "LAST USED"]);
    for key in keys {
        let role = match key.role {
            Role::Admin => "admin",
            Role::Enroll => "enroll",
            Role::Metrics => "metrics",
        };
        let used = key.last_used.map_or_else(|| "never".to_owned(), |at| ago(at, now));
        table.row([
            key.name.as_str().into(),
            role.into(),
            ago(key.created, now).into(),
            used.into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_shell_as_they_are() {
        for (text, expected) in [
            ("http://b:2358", "http://b:2358"),
            ("SHA256:a+b/c", "SHA256:a+b/c"),
            ("http://[::1]:1", "'http://[::1]:1'"),
            ("a; rm -rf /", "'a; rm -rf /'"),
            ("it's $x", r"'it'\''s $x'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
