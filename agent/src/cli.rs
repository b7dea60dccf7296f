//! The command line. It must not know what the commands do.

use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::DEFAULT_FILE;

/// What `--version` shows: also the versions of the protocol with the backend.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (protocol 2)");

/// Keeps this server's accounts and keys as its backend says.
#[derive(Debug, Parser)]
#[command(name = "bastio-agent", version = VERSION, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  Enrol this server; the API key comes from `bastio api-key add`:
    bastio-agent enroll --backend http://backend.example:2358 \\
        --api-key-file enroll.key --host-key SHA256:...
  Then run the agent:
    bastio-agent start
  See how it is:
    bastio-agent status

Settings come from flags, then from the environment (BASTIO_AGENT_HOST, ...), then from the
file, then from defaults.
Exit codes: 0 done; 1 failed; 2 wrong usage, or a configuration or key that is missing or unusable.")]
pub struct Cli {
    /// Configuration file
    #[arg(short, long, global = true, value_name = "FILE", default_value = DEFAULT_FILE)]
    pub config: PathBuf,
    /// The agent's private key [default: /etc/bastio/agent.key]
    #[arg(short = 'k', long, global = true, value_name = "FILE")]
    pub agent_key: Option<PathBuf>,
    /// What is logged: off, error, warn, info, debug or trace [default: info]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this server known to a backend: key, upload, host key, configuration in one step
    Enroll(EnrollArgs),
    /// Make the agent's private key
    GenerateKey(GenerateKeyArgs),
    /// Upload the agent's public key, or replace it by a new one
    UploadKey(UploadKeyArgs),
    /// Run the agent in the foreground: both processes
    Start,
    /// Run the half with the rights alone: root, no network
    Processor(ProcessorArgs),
    /// Run the half with the network alone: no rights
    Connector(ConnectorArgs),
    /// Show whether the running agent is connected
    #[command(after_help = "Exit codes: 0 connected; 1 not connected, or not running.")]
    Status(StatusArgs),
    /// Check the configuration, the key, the account and the tools that the agent needs
    #[command(after_help = "\
Exit codes: 0 all is well; 1 something is missing; 2 the configuration cannot be used.")]
    Check,
    /// Print a script that completes commands in a shell
    #[command(hide = true)]
    Completions(CompletionsArgs),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man(ManArgs),
}

/// `enroll`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  bastio-agent enroll --backend http://backend.example:2358 --api-key-file - < enroll.key

The key is made if it is missing. Enrolling again with the same key changes nothing.
Without --host-key the first key seen is pinned: compare the fingerprint that is printed.")]
pub struct EnrollArgs {
    /// The backend's HTTP side, or the full base URL of a version-1 API
    #[arg(long, value_name = "URL")]
    pub backend: String,
    /// Where the API key comes from.
    #[command(flatten)]
    pub api_key: ApiKeyArgs,
    /// Refuse any other host key of the backend
    #[arg(long, value_name = "SHA256:FINGERPRINT", value_parser = fingerprint)]
    pub host_key: Option<String>,
    /// The server's name at the backend [default: this host's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Host of the backend's SSH side [default: the URL's host]
    #[arg(long)]
    pub host: Option<String>,
    /// Port of the backend's SSH side [default: what the backend says, else 2357]
    #[arg(long)]
    pub port: Option<NonZeroU16>,
    /// Kind of key to make if it is missing
    #[arg(long = "type", value_enum, default_value_t)]
    pub kind: Kind,
}

/// An API key never stands on the command line, where other users can read it.
#[derive(Debug, Args)]
pub struct ApiKeyArgs {
    /// File with the API key; `-` reads it from standard input [default: env BASTIO_API_KEY]
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
}

/// `generate-key`
#[derive(Debug, Args)]
pub struct GenerateKeyArgs {
    /// Kind of key
    #[arg(long = "type", value_enum, default_value_t)]
    pub kind: Kind,
    /// Bits of an RSA key [default: 3072]
    #[arg(long)]
    pub bits: Option<usize>,
    /// Replace an existing key. The backend will not know the new one
    #[arg(long)]
    pub force: bool,
}

/// `upload-key`
#[derive(Debug, Args)]
#[command(after_help = "\
Replacing the key:
  bastio-agent --agent-key new.key generate-key
  bastio-agent upload-key --new-agent-key new.key --api-key-file FILE
  systemctl restart bastio-agent
Once the backend has accepted it, the new key takes the place of the old one, which is not kept.")]
pub struct UploadKeyArgs {
    /// The backend's HTTP side [default: where this server was enrolled]
    #[arg(long, value_name = "URL")]
    pub backend: Option<String>,
    /// Where the API key comes from.
    #[command(flatten)]
    pub api_key: ApiKeyArgs,
    /// Private key that is to replace the present one
    #[arg(short, long, value_name = "FILE")]
    pub new_agent_key: Option<PathBuf>,
}

/// `processor`
#[derive(Debug, Args)]
pub struct ProcessorArgs {
    /// Listen on this socket [default: standard input is the socket]
    #[arg(long, value_name = "PATH")]
    pub listen: Option<PathBuf>,
}

/// `connector`
#[derive(Debug, Args)]
pub struct ConnectorArgs {
    /// Connect to the processor's socket [default: standard input is the socket]
    #[arg(long, value_name = "PATH")]
    pub connect: Option<PathBuf>,
}

/// `status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// `completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// `man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// An existing folder
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// A kind of key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Ed25519.
    #[default]
    Ed25519,
    /// RSA.
    Rsa,
}

/// How to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// A fingerprint as OpenSSH prints it: 32 bytes are 43 characters of base64.
fn fingerprint(text: &str) -> Result<String, &'static str> {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    match text.strip_prefix("SHA256:") {
        Some(hash) if hash.len() == 43 && hash.chars().all(is_base64) => Ok(text.to_owned()),
        _ => Err("a fingerprint is `SHA256:` and 43 characters, as `bastio status` shows it"),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Cli, Command};

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in [
            ["bastio-agent", "-c", "x.toml", "-k", "x.key", "start"],
            ["bastio-agent", "start", "-c", "x.toml", "-k", "x.key"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.config.to_str(), Some("x.toml"));
            assert_eq!(cli.agent_key.unwrap().to_str(), Some("x.key"));
            assert!(matches!(cli.command, Command::Start));
        }
    }

    #[test]
    fn usage_errors_have_their_own_code() {
        for line in [&["bastio-agent"][..], &["bastio-agent", "dance"], &["bastio-agent", "enroll"]]
        {
            assert_eq!(Cli::try_parse_from(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
    }

    #[test]
    fn a_fingerprint_that_is_none_is_a_usage_error_and_no_alarm() {
        let enroll = |host_key: &str| {
            let line = ["bastio-agent", "enroll", "--backend", "http://b", "--api-key-file", "-"];
            Cli::try_parse_from(line.into_iter().chain(["--host-key", host_key]))
        };
        assert!(enroll("SHA256:/YNEUo24S/W4NXRbQAm+g/KfWC0EHi4wk1MXkVQaUcI").is_ok());
        for wrong in
            ["eeebAF", "SHA256:", "SHA256:abc", "MD5:/YNEUo24S/W4NXRbQAm+g/KfWC0EHi4wk1MXkVQaUcI"]
        {
            assert_eq!(enroll(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
