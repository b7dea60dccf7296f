//! `bastio-backend key` and `rotate-signing-key`: what is done to the key that signs, while the backend
//! is stopped. Passphrases come from the terminal, a file or stdin.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use bastio_backend::cluster;
use bastio_backend::config::{Config, Flags};
use bastio_backend::sealed::Passphrase;
use bastio_backend::serve::ServeError;
use bastio_backend::signing::{KeyFile, KeyFiles, SigningKeyError, read_passphrase};
use bastio_backend::state_folder::StateFolder;
use bastio_backend::store::Store;
use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::{Failure, close_to_others, say};

const SEAL_HELP: &str = "\
Asks for a new passphrase twice. From then on the backend starts locked, unless it is given the passphrase:
by the systemd credential `signing_passphrase` (see bastio-backend.service), by signing.passphrase_file, or
by an operator with `bastio unseal`. Locked, it serves and takes edits, and sends nothing that must be signed.

A LOST PASSPHRASE IS A LOST KEY: then every agent is enrolled again. Backups made before hold the plain key.

Examples:
  bastio-backend key seal
  bastio-backend key seal --passphrase-file /root/passphrase";

const UNSEAL_HELP: &str = "\
Makes the keys in the state folder plain again. A backend that runs is opened by `bastio unseal`, which leaves
the file sealed.

Example:
  bastio-backend key unseal";

pub(super) const ROTATE_HELP: &str = "\
The old key signs the change, so each agent takes the new one over when it connects next. Old keys
are kept in the state folder until no server needs them. What an agent has taken over stays valid;
an agent that knows neither key is enrolled again. A sealed key is replaced by one that is sealed with
the same passphrase.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows the signing keys, and whether they are sealed
    #[command(after_help = "Example:\n  bastio-backend key status")]
    Status {
        /// Folder of the database and the host keys
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
    /// Seals the signing keys with a passphrase; the backend must be stopped
    #[command(after_help = SEAL_HELP)]
    Seal(Sealing),
    /// Makes sealed signing keys plain again; the backend must be stopped
    #[command(after_help = UNSEAL_HELP)]
    Unseal(Sealing),
}

#[derive(Debug, Args)]
pub(super) struct Sealing {
    /// Folder of the database and the host keys
    #[arg(long, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
    #[command(flatten)]
    pub(super) passphrase: PassphraseFrom,
}

#[derive(Debug, Args)]
pub(super) struct PassphraseFrom {
    /// A file with the passphrase (mode 0600), or - for stdin; the terminal is asked without
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseFrom {
    fn get(&self) -> Result<Passphrase, Failure> {
        match &self.passphrase_file {
            Some(file) => Ok(read_passphrase(file)?),
            None => ask("Passphrase of the signing key: "),
        }
    }

    /// One that shall seal: typed twice.
    fn get_new(&self) -> Result<Passphrase, Failure> {
        let wrong = |source| SigningKeyError::Passphrase { from: "the new one".into(), source };
        let Some(file) = &self.passphrase_file else {
            let typed = ask_line("New passphrase of the signing key: ")?;
            let passphrase = Passphrase::parse_new(&typed).map_err(wrong)?;
            let again = ask("The same again: ")?;
            return if passphrase.is(&again) { Ok(passphrase) } else { Err(Failure::NotTheSame) };
        };
        let passphrase = read_passphrase(file)?;
        passphrase.check_new().map_err(wrong)?;
        Ok(passphrase)
    }
}

fn ask_line(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::NoTerminal);
    }
    Ok(Zeroizing::new(rpassword::prompt_password(prompt)?))
}

fn ask(prompt: &str) -> Result<Passphrase, Failure> {
    let wrong = |source| SigningKeyError::Passphrase { from: "the terminal".into(), source };
    Ok(Passphrase::parse(&ask_line(prompt)?).map_err(wrong)?)
}

impl Command {
    pub(super) fn state(&self) -> Option<PathBuf> {
        match self {
            Self::Status { state } | Self::Seal(Sealing { state, .. }) => state.clone(),
            Self::Unseal(Sealing { state, .. }) => state.clone(),
        }
    }

    pub(super) fn run(&self, flags: &Flags) -> Result<(), Failure> {
        let config = Config::load(flags)?;
        match self {
            Self::Status { .. } => status(&config.state),
            Self::Seal(sealing) => {
                let folder = begin(&config)?;
                let keys = there(folder.path())?;
                let with = match keys.is_sealed() {
                    // Sealing was cut off: it is ended with the same passphrase.
                    true => sealing.passphrase.get()?,
                    false => sealing.passphrase.get_new()?,
                };
                let keys = change(&config, &folder, |folder| KeyFiles::seal(folder, &with))?;
                say(&format!(
                    "{}the backend starts locked now, unless it is given the passphrase; then: bastio \
                     unseal\nkeep the passphrase safe: without it every agent is enrolled again. \
                     Backups made before hold the plain key\n",
                    table(&keys)
                ))?;
                Ok(())
            }
            Self::Unseal(sealing) => {
                let folder = begin(&config)?;
                if !there(folder.path())?.is_sealed() {
                    say("the signing key is plain already\n")?;
                    return Ok(());
                }
                let with = sealing.passphrase.get()?;
                let keys = change(&config, &folder, |folder| KeyFiles::unseal(folder, &with))?;
                say(&table(&keys))?;
                Ok(())
            }
        }
    }
}

/// Replaces the signing key.
pub(super) fn rotate(flags: &Flags, from: &PassphraseFrom) -> Result<(), Failure> {
    let config = Config::load(flags)?;
    let folder = begin(&config)?;
    let sealed = KeyFiles::read(folder.path())?.is_some_and(|keys| keys.is_sealed());
    let with = if sealed { Some(from.get()?) } else { None };
    let keys = change(&config, &folder, |folder| KeyFiles::rotate(folder, with.as_ref()))?;
    let key = keys.verifying_key().fingerprint();
    say(&format!("signing key: {key}\nagents take it over when they connect next\n"))?;
    Ok(())
}

/// The lock keeps a running backend from signing on with other keys, unaware.
fn begin(config: &Config) -> Result<StateFolder, Failure> {
    close_to_others();
    let folder = StateFolder::open(&config.state).map_err(ServeError::from)?;
    if config.store.shared()?.is_some() {
        on_shared(config, &folder, || Ok(()), false)?;
    }
    Ok(folder)
}

fn change(
    config: &Config,
    folder: &StateFolder,
    change: impl FnOnce(&Path) -> Result<KeyFiles, SigningKeyError>,
) -> Result<KeyFiles, Failure> {
    match config.store.shared()? {
        None => Ok(change(folder.path())?),
        Some(_) => on_shared(config, folder, || change(folder.path()), true),
    }
}

/// The keys of all nodes, which must all be stopped: those of the database count, and are those of the
/// folder afterwards.
fn on_shared<T>(
    config: &Config,
    folder: &StateFolder,
    change: impl FnOnce() -> Result<T, SigningKeyError>,
    share: bool,
) -> Result<T, Failure> {
    let cluster_key = config.store.cluster_key()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let changed = runtime.block_on(async {
        let store = Store::open(config.store.location(folder.database())?).await?;
        cluster::fetch(&store, &cluster_key, folder.path()).await?;
        let changed = change()?;
        if share {
            cluster::share(&store, &cluster_key, folder.path()).await?;
        }
        store.close().await;
        Ok::<_, ServeError>(changed)
    });
    Ok(changed?)
}

fn there(folder: &Path) -> Result<KeyFiles, Failure> {
    KeyFiles::read(folder)?.ok_or_else(|| Failure::NoKey(folder.to_owned()))
}

fn status(folder: &Path) -> Result<(), Failure> {
    match there(folder) {
        Err(Failure::SigningKey(SigningKeyError::CredentialGone { fingerprint, .. })) => {
            Ok(say(&format!("signing_key: {fingerprint}, a credential of systemd's\n"))?)
        }
        keys => Ok(say(&table(&keys?))?),
    }
}

fn table(keys: &KeyFiles) -> String {
    keys.all().map(line).collect()
}

fn line(file: &KeyFile) -> String {
    let how = match file.sealed() {
        None => "plain".to_owned(),
        Some(sealed) => format!("sealed (Argon2id {})", sealed.cost()),
    };
    format!("{}: {}, {how}\n", file.path().display(), file.verifying_key().fingerprint())
}
