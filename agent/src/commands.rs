//! The commands: each reads its settings, does one thing and says what it did. Here, and in the
//! files below, the program talks to people; nothing else prints.

mod check;
mod generate;
mod keys;
mod status;

use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use bastio_transport::{KeyError, PrivateKey};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use thiserror::Error;

use crate::cli::{Cli, Command, ConnectorArgs, ProcessorArgs};
use crate::config::{ConfigError, Layer, Settings};
use crate::connector::lockdown::{self, Identity, LockdownError};
use crate::connector::{self, ConnectorError};
use crate::enroll::EnrollError;
use crate::processor::{self, ProcessorError, SocketSource};
use crate::start::{self, StartError};
use crate::{facts, logging, notify};

/// Why a command failed.
#[derive(Debug, Error)]
enum CommandError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The agent's key cannot be used.
    #[error("the agent's key: {0}{hint}", hint = key_hint(.0))]
    Key(#[from] KeyError),
    /// Something on the command line.
    #[error("{0}")]
    Usage(String),
    /// The account for the connector, or its rights.
    #[error(transparent)]
    Lockdown(#[from] LockdownError),
    /// The command itself.
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Processor(#[from] ProcessorError),
    #[error(transparent)]
    Connector(#[from] ConnectorError),
}

impl CommandError {
    /// 1 failed; 2 wrong usage, or a configuration, key or account that is missing or unusable.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::Key(_)
            | Self::Usage(_)
            | Self::Lockdown(LockdownError::NoUser(_) | LockdownError::WrongUser { .. })
            | Self::Enroll(EnrollError::Config(_) | EnrollError::Key(_))
            | Self::Start(StartError::Unusable) => 2,
            _ => 1,
        }
    }
}

/// Runs the command and says how it ended.
#[must_use]
pub fn run(cli: &Cli) -> ExitCode {
    dispatch(cli).unwrap_or_else(|error| {
        complain(&error.to_string());
        ExitCode::from(error.exit_code())
    })
}

fn dispatch(cli: &Cli) -> Result<ExitCode, CommandError> {
    let done = |()| ExitCode::SUCCESS;
    match &cli.command {
        Command::Enroll(args) => keys::enroll(args, &load(cli)?).map(done),
        Command::GenerateKey(args) => keys::generate(args, &load(cli)?).map(done),
        Command::UploadKey(args) => keys::upload(args, &load(cli)?).map(done),
        Command::Start => start(cli, &load(cli)?).map(done),
        Command::Processor(args) => processor(args, &load(cli)?).map(done),
        Command::Connector(args) => connector(args, &load(cli)?).map(done),
        Command::Status(args) => Ok(status::status(args, &load_for_everyone(cli)?)),
        Command::Check => Ok(check::check(cli)),
        Command::Completions(args) => Ok(generate::completions(args)),
        Command::Man(args) => generate::man(args).map(done),
    }
}

/// The state may be read by everyone, the configuration by root alone.
fn load_for_everyone(cli: &Cli) -> Result<Settings, ConfigError> {
    match load(cli) {
        Err(ConfigError::Unreadable { .. }) => {
            Settings::without_file(&cli.config, Layer::default())
        }
        loaded => loaded,
    }
}

fn load(cli: &Cli) -> Result<Settings, ConfigError> {
    let flags =
        Layer { agent_key: cli.agent_key.clone(), log: cli.log.clone(), ..Layer::default() };
    Settings::load(&cli.config, flags)
}

fn start(cli: &Cli, settings: &Settings) -> Result<(), CommandError> {
    if !lockdown::is_root() {
        let text = "start needs root, which its processor half keeps\nhint: run it as root";
        return Err(CommandError::Usage(text.to_owned()));
    }
    // Everything that the child will need, found out here where a person reads the message.
    settings.backend()?;
    PrivateKey::read(&settings.agent_key)?;
    Identity::find(&settings.user)?;
    begin(settings);
    Ok(start::start(cli, settings)?)
}

fn processor(args: &ProcessorArgs, settings: &Settings) -> Result<(), CommandError> {
    begin(settings);
    let source = match &args.listen {
        Some(path) => SocketSource::Listen(path.clone()),
        None => SocketSource::Inherited,
    };
    let told = start::processor_settings(settings, Some(notify::ready));
    let ended = processor::main(source, told);
    notify::stopping();
    ended?;
    Ok(())
}

fn connector(args: &ConnectorArgs, settings: &Settings) -> Result<(), CommandError> {
    let backend = settings.backend()?;
    let key = read_key(&settings.agent_key)?;
    let identity = lockdown::is_root().then(|| Identity::find(&settings.user)).transpose()?;
    logging::init(settings.log);
    // `start` runs this program by another path, which the process would be named after. A name
    // is for people only.
    let _ = capctl::prctl::set_name(start::PROGRAM);
    let facts = facts::gather();
    lockdown::lock_down(identity.as_ref())?;
    let pipe = match &args.connect {
        Some(path) => dial_processor(path)?,
        None => inherited_pipe()?,
    };
    Ok(connector::run(backend, key, pipe, facts)?)
}

/// Reads the agent's key. A service manager's credential (systemd.exec(5), LoadCredential=) may show
/// group bits for what is an access list of one user, so only there the mode says nothing.
fn read_key(path: &Path) -> Result<PrivateKey, KeyError> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    if !credentials.is_some_and(|folder| path.starts_with(folder)) {
        return PrivateKey::read(path);
    }
    let text = std::fs::read_to_string(path)
        .map_err(|source| KeyError::Io { path: path.to_owned(), source })?;
    PrivateKey::from_openssh(&text)
}

/// Starts the log, and says in it what a person should know about the configuration.
fn begin(settings: &Settings) {
    logging::init(settings.log);
    for note in &settings.notes {
        tracing::warn!(file = %settings.file.display(), "{note}");
    }
}

/// The processor's socket, which must be root's (or, for trying things out, our own).
fn dial_processor(path: &Path) -> Result<UnixStream, CommandError> {
    let failed = |error: String| {
        CommandError::Failed(format!("the processor's socket {}: {error}", path.display()))
    };
    let pipe = UnixStream::connect(path).map_err(|error| failed(error.to_string()))?;
    let peer = getsockopt(&pipe, PeerCredentials).map_err(|error| failed(error.to_string()))?;
    if peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw() {
        Ok(pipe)
    } else {
        Err(failed(format!("it belongs to the user {}, not to root", peer.uid())))
    }
}

fn inherited_pipe() -> Result<UnixStream, CommandError> {
    let no_socket = || {
        let text = "standard input is no socket\nhint: use `start`, or give --connect PATH";
        CommandError::Usage(text.to_owned())
    };
    let stdin: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().map_err(|_| no_socket())?;
    let pipe = UnixStream::from(stdin);
    pipe.peer_addr().map_err(|_| no_socket())?;
    Ok(pipe)
}

fn key_hint(error: &KeyError) -> &'static str {
    match error {
        KeyError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            "\nhint: bastio-agent enroll, or bastio-agent generate-key"
        }
        KeyError::Exists(_) => "\nhint: --force replaces it; the backend will not know the new one",
        _ => "",
    }
}

#[allow(clippy::print_stderr)] // this is where errors reach people
fn complain(text: &str) {
    eprintln!("error: {text}");
}

/// Where results reach people. Whoever reads no further (`| head`) has what was wanted.
fn say(text: &str) {
    let written = writeln!(std::io::stdout(), "{text}");
    if let Err(error) = written
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        complain(&format!("the output cannot be written: {error}"));
    }
}
