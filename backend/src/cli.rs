//! The command line of `bastio-backend`: what it understands, what it teaches, what it prints.

mod key;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use bastio_backend::admin_token::{self, AdminTokenError};
use bastio_backend::backup::{self, BackupError};
use bastio_backend::config::{Config, ConfigError, Flags};
use bastio_backend::logging::{self, Level};
use bastio_backend::serve::{Backend, ServeError, Welcome};
use bastio_backend::signing::SigningKeyError;
use bastio_backend::store::copy::Aftermath;
use bastio_protocol::api::utc;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Everything went well.
const DONE: u8 = 0;
/// The backend could not start or had to stop.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong; clap uses the same number.
const USAGE: u8 = 2;

const LEARN: &str = "\
Begin here:
  bastio-backend serve                 first start: makes keys and database, prints the admin token
  bastio login http://THIS-HOST:2358   on your own machine, with that token
  bastio api-key add web --role enroll  a key with which servers enrol
  bastio-agent enroll --backend http://THIS-HOST:2358   on each server
  bastio-backend admin-token           when the admin token is lost
  bastio-backend key seal              the key that signs, under a passphrase
  bastio-backend backup FILE           everything in one file, while the backend runs

Configuration (/etc/bastio/backend.toml, which has every key), those used most with their defaults:
  state = \"/var/lib/bastio\"            database, host keys; mode 0700, one backend at a time
  ssh.listen = \"0.0.0.0:2357\"          the agents' port
  http.listen = \"0.0.0.0:2358\"         API and enrolment; plain HTTP: put a TLS proxy in front
  http.public_url = \"http://HOST:2358\" under which URL that is reached
  legacy.listen                        port for version-1 agents; off unless set
  legacy.sha1 = false                  also SHA-1 there, for installations of 2013; weak
  limits.max_startups = 100            connections not logged in yet
  limits.max_startups_per_source = 20  the same from one address
  limits.login_grace = 20              seconds for a login
  limits.answer_within = 120           seconds for an agent to answer before all is sent again
  store.url, store.url_file            a PostgreSQL database instead of a file; or a file with its URL
  store.cluster_key_file               with it: seals the keys that several backends share
  orders.valid_for = 600               seconds in which an agent may obey what was signed
  approvals.needed_for = \"none\"        \"root\": what makes root waits for a second operator
  approvals.expire_days = 7            and is over after so many days
  approvals.root_groups                groups of the site's own whose members can become root
  signing.passphrase_file              a file (mode 600) with what opens a sealed signing key
  history.revisions = 1000             edits of the model that can be undone
  uids.from, uids.to = 59999           give login names the same uid on every server; off unless from is set
Each key is also a variable: ssh.listen is BASTIO_BACKEND_SSH_LISTEN. Flags win over variables,
variables over the file.

Exit codes: 0 stopped as asked, 1 failed, 2 wrong command line or configuration.";

const TOKEN_HELP: &str = "\
Run it at the backend's host, as the user who owns the state folder; `bastio log` tells that it
was done. A token that was lost still works: remove it with `bastio api-key rm NAME`.

Example:
  bastio-backend admin-token";

const BACKUP_HELP: &str = "\
The file holds everything: the database as of one moment, the host keys, and the key that signs what
agents obey. WHOEVER HAS IT CAN BE THIS BACKEND: keep it as safe as the state folder. It is a tar
archive; `tar -xOf FILE SHA256SUMS` shows what is in it.

A database in PostgreSQL is backed up by its own tools: see docs/operations.md.

Examples:
  bastio-backend backup /srv/backup/bastio-2026-11-22.tar
  bastio-backend backup /dev/shm/b.tar && age -r age1... -o b.tar.age /dev/shm/b.tar";

const RESTORE_HELP: &str = "\
Everything is verified first, and then put in place whole or not at all. Agents come back by themselves:
they know the keys. What was decided behind the backup is not in it, people who were removed since
among it; so nothing is sent to any server by itself, and each is shown as `restored` until it was
made as it should be:
  bastio server check --all     what a sync would change
  bastio server sync NAME       makes it so

Example:
  bastio-backend restore /srv/backup/bastio-2026-11-22.tar --state /var/lib/bastio";

/// Decides who may log in where: takes the agents' connections, queues what they have to do, and
/// serves the API.
#[derive(Debug, Parser)]
#[command(name = "bastio-backend", version, after_help = LEARN)]
pub struct Cli {
    /// Configuration file; /etc/bastio/backend.toml when it exists
    #[arg(long, value_name = "FILE", env = "BASTIO_BACKEND_CONFIG", global = true)]
    config: Option<PathBuf>,

    /// How much to log
    #[arg(long, value_enum, default_value = "info", env = "BASTIO_BACKEND_LOG", global = true)]
    log: Level,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the backend until SIGTERM or Ctrl-C
    Serve(Overrides),
    /// Reads the configuration, says what is wrong with it, starts nothing
    Check(Overrides),
    /// Replaces the key that signs what agents are ordered to do; the backend must be stopped
    #[command(after_help = key::ROTATE_HELP)]
    RotateSigningKey {
        #[command(flatten)]
        overrides: Overrides,
        #[command(flatten)]
        passphrase: key::PassphraseFrom,
    },
    /// The key that signs what agents are ordered to do: show, seal with a passphrase, unseal
    #[command(subcommand)]
    Key(key::Command),
    /// Makes a new admin token, for when the first one is lost; the backend may be running
    #[command(after_help = TOKEN_HELP)]
    AdminToken {
        /// Folder of the database and the host keys
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
    /// Writes the whole state, secrets included, into one file; the backend may be running
    #[command(after_help = BACKUP_HELP)]
    Backup {
        /// A new file, for its owner alone (mode 0600)
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Folder of the database and the host keys
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
    /// Makes a state folder of a backup; one that holds a state is refused
    #[command(after_help = RESTORE_HELP)]
    Restore {
        /// A file that `backup` has written
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Folder to make
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
    /// Prints a script that completes commands in a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Writes the manual pages into a folder
    #[command(hide = true)]
    Man {
        /// An existing folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Overrides {
    /// Folder of the database and the host keys
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Address and port for agents; port 0 takes any free one
    #[arg(long, value_name = "ADDR")]
    ssh_listen: Option<SocketAddr>,
    /// Address and port of the API; port 0 takes any free one
    #[arg(long, value_name = "ADDR")]
    http_listen: Option<SocketAddr>,
}

/// Why the command failed.
#[derive(Debug, Error)]
enum Failure {
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    AdminToken(#[from] AdminTokenError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    SigningKey(#[from] SigningKeyError),
    #[error("there is no signing key in {}\nhint: name the folder with --state; the first start makes one", .0.display())]
    NoKey(PathBuf),
    #[error("these were two passphrases\nhint: nothing was changed; try again")]
    NotTheSame,
    #[error(
        "there is no terminal to ask for the passphrase\nhint: --passphrase-file FILE, or - for stdin"
    )]
    NoTerminal,
    #[error("the system: {0}")]
    System(#[from] std::io::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::NotTheSame | Self::NoTerminal => USAGE,
            Self::Serve(_)
            | Self::AdminToken(_)
            | Self::Backup(_)
            | Self::SigningKey(_)
            | Self::NoKey(_)
            | Self::System(_) => FAILED,
        }
    }
}

/// Runs the command and says how it went, on stderr when it failed.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(overrides) => flags(cli.config, overrides).and_then(|flags| {
            logging::start(cli.log);
            serve(&flags)
        }),
        Command::Check(overrides) => flags(cli.config, overrides).and_then(|flags| check(&flags)),
        Command::RotateSigningKey { overrides, passphrase } => {
            flags(cli.config, overrides).and_then(|flags| key::rotate(&flags, &passphrase))
        }
        Command::Key(command) => {
            state_flags(cli.config, command.state()).and_then(|flags| command.run(&flags))
        }
        Command::AdminToken { state } => {
            state_flags(cli.config, state).and_then(|flags| admin_token(&flags))
        }
        Command::Backup { file, state } => {
            state_flags(cli.config, state).and_then(|flags| back_up(&flags, &file))
        }
        Command::Restore { file, state } => {
            state_flags(cli.config, state).and_then(|flags| restore(&flags, &file))
        }
        Command::Completions { shell } => completions(shell),
        Command::Man { folder } => {
            clap_mangen::generate_to(Cli::command(), folder).map_err(Failure::from)
        }
    };
    match result {
        Ok(()) => ExitCode::from(DONE),
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn flags(file: Option<PathBuf>, overrides: Overrides) -> Result<Flags, Failure> {
    let Overrides { state, ssh_listen, http_listen } = overrides;
    // Typed in a shell, a path is meant from where one stands.
    let state = state.map(std::path::absolute).transpose()?;
    Ok(Flags { file, state, ssh_listen, http_listen })
}

fn state_flags(file: Option<PathBuf>, state: Option<PathBuf>) -> Result<Flags, Failure> {
    flags(file, Overrides { state, ssh_listen: None, http_listen: None })
}

fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "bastio-backend", &mut script);
    Ok(say(&String::from_utf8_lossy(&script))?)
}

fn check(flags: &Flags) -> Result<(), Failure> {
    let config = Config::load(flags)?;
    say(&format!(
        "the configuration is good\nstate:  {}\nssh:    {}\nhttp:   {}\nlegacy: {}\n",
        config.state.display(),
        config.ssh.listen,
        config.http.listen,
        match (config.legacy.listen, config.legacy.sha1) {
            (None, _) => "off".to_owned(),
            (Some(listen), false) => listen.to_string(),
            (Some(listen), true) => format!("{listen}, with SHA-1: weak, switch it off soon"),
        }
    ))?;
    Ok(())
}

fn admin_token(flags: &Flags) -> Result<(), Failure> {
    let config = Config::load(flags)?;
    let shared = config.store.shared()?;
    close_to_others();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (key, token) = runtime.block_on(admin_token::make(&config.state, shared))?;
    say(&format!(
        "admin token: {}\n\nThe token is shown this once; keep it safe. Its API key is named {}. \
         Next, on your own machine:\n  bastio login URL\n  bastio api-key ls        to see the \
         lost one, and: bastio api-key rm NAME\n",
        token.expose(),
        key.name
    ))?;
    Ok(())
}

/// The state folder, where the database is in it.
fn own_state(flags: &Flags) -> Result<PathBuf, Failure> {
    let config = Config::load(flags)?;
    match config.store.shared()? {
        None => Ok(config.state),
        Some(_) => Err(BackupError::OnPostgres.into()),
    }
}

fn back_up(flags: &Flags, file: &Path) -> Result<(), Failure> {
    let state = own_state(flags)?;
    close_to_others();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let made = runtime.block_on(backup::backup(&state, file))?;
    say(&format!(
        "{}: {} bytes, mode 0600: {}\nwhoever has this file can be this backend; keep it as safe as {}\n",
        made.path.display(),
        made.length,
        made.entries.join(", "),
        state.display()
    ))?;
    Ok(())
}

fn restore(flags: &Flags, file: &Path) -> Result<(), Failure> {
    let state = own_state(flags)?;
    close_to_others();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let restored = runtime.block_on(backup::restore(file, &state, now))?;
    let Aftermath { revision, last, servers, dropped } = restored.aftermath;
    say(&format!(
        "restored into {}: {}\nthe model is that of revision {revision}, {} UTC; what was decided \
         later is NOT in it, also who was removed\n{dropped} actions that were on their way are \
         forgotten; nothing is sent by itself\n\nNext: start the backend, wait for the agents, and look \
         at each of the {servers} servers before it is told anything:\n  bastio server check --all\n  \
         bastio server sync NAME\n",
        restored.state.display(),
        restored.entries.join(", "),
        utc(last),
    ))?;
    Ok(())
}

/// Whatever is made from here on is nobody else's.
fn close_to_others() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

fn serve(flags: &Flags) -> Result<(), Failure> {
    let config = Config::load(flags)?;
    close_to_others();
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = tokio::spawn(stop_on_signal(stop.clone())?);
        let backend = Backend::start(&config).await?;
        greet(backend.welcome())?;
        let served = backend.run(&stop).await;
        signals.abort();
        Ok(served?)
    })
}

/// Waits for SIGTERM or SIGINT. The handlers stand before the future is first polled.
fn stop_on_signal(
    stop: CancellationToken,
) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM"),
            _ = interrupt.recv() => info!("SIGINT"),
        }
        stop.cancel();
    })
}

/// One open file a session: the soft limit of 1024 would keep half a fleet out.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn greet(welcome: &Welcome) -> std::io::Result<()> {
    let Some(token) = &welcome.admin_token else {
        return Ok(());
    };
    let mut text = format!(
        "first start: keys and database are in {}\n\nadmin token: {}\nhost key: {} (port {})\n\
         signing key: {}\n",
        welcome.state.display(),
        token.expose(),
        welcome.host_key,
        welcome.listening.ssh.port(),
        welcome.signing_key,
    );
    if let (Some(key), Some(legacy)) = (&welcome.legacy_host_key, welcome.listening.legacy) {
        text.push_str(&format!("legacy host key: {key} (port {})\n", legacy.port()));
    }
    text.push_str(&format!(
        "\nThe token is shown this once; keep it safe. Next, on your own machine:\n  \
         bastio login {}\n",
        welcome.listening.url
    ));
    say(&text)
}

fn say(text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn complain(failure: &Failure) {
    use std::io::Write;
    // When stderr is gone, the log and the exit code are all there is.
    let _ = writeln!(std::io::stderr(), "error: {failure}");
}
