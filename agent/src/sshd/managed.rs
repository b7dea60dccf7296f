//! Managed mode: keys lie in `/etc/ssh/authorized_keys.d/NAME`, outside of homes, and sshd is told so
//! by an addition to its configuration. Switched on and off without a moment in which a key of
//! ours lets nobody in: first it is where sshd will look, then sshd looks there, then it goes from
//! where it was.
//!
//! An addition that sshd does not take, or with which a probe login fails, is taken back. What was
//! begun and not finished (a crash, a power cut) is taken back at the next start. This file must
//! not know what a key line says.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::daemon::{self, Daemon};
use super::probe::{self, Proof};
use super::source::{ADDITIONS, CONFIG};
use super::{Pattern, Shape, Version};
use crate::accounts::{Account, AccountsError, SystemAccounts};
use crate::files;
use crate::keys_on_disk::{self, KeysOnDiskError};
use crate::reconcile::host::AccountHost as _;

/// The files of managed mode, as sshd reads them.
const FILES: &str = "/etc/ssh/authorized_keys.d/%u";
/// The addition to sshd's configuration.
const ADDITION: &str = "10-bastio.conf";
/// The first line of the addition: without it, it is not ours.
const MARK: &str = "# bastio: managed, do not edit";
/// In the state folder: what the addition was before a change that is not confirmed yet.
const PENDING: &str = "sshd.pending";

/// Where keys lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyMode {
    /// Where this host's sshd reads them anyway: in homes, mostly.
    #[default]
    Home,
    /// In `/etc/ssh/authorized_keys.d`.
    Managed,
}

/// Why keys do not lie where the configuration wants them. They are where they were, and let in
/// whom they let in before.
#[derive(Debug, Error)]
pub enum ModeError {
    /// This host does not allow it.
    #[error("cannot change where keys lie: {0}")]
    Cannot(String),
    /// It was tried and taken back.
    #[error("where keys lie was changed and changed back: {0}")]
    Undone(String),
    /// It was tried, and taking it back failed.
    #[error(
        "sshd's configuration was changed, that failed ({why}), and changing it back failed: {undo}; look at {path}"
    )]
    Stuck {
        /// The failure.
        why: String,
        /// The failure of the way back.
        undo: String,
        /// The addition.
        path: String,
    },
    /// The accounts or their keys cannot be read.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
}

impl From<KeysOnDiskError> for ModeError {
    fn from(error: KeysOnDiskError) -> Self {
        Self::Cannot(error.to_string())
    }
}

/// Brings keys and sshd's configuration to the mode; does nothing when they are there already. Takes
/// back what an earlier run left unfinished. `state` is the agent's folder of its own.
///
/// # Errors
/// [`ModeError`].
pub fn settle(mode: KeyMode, state: &Path) -> Result<(), ModeError> {
    let switch = Switch { state, addition: Path::new(ADDITIONS).join(ADDITION) };
    switch.take_back_unfinished()?;
    let is_managed = switch.read()?.is_some();
    match (mode, is_managed) {
        (KeyMode::Home, false) | (KeyMode::Managed, true) => Ok(()),
        (KeyMode::Managed, false) => switch.turn_on(),
        (KeyMode::Home, true) => switch.turn_off(),
    }
}

struct Switch<'a> {
    state: &'a Path,
    addition: PathBuf,
}

impl Switch<'_> {
    fn turn_on(&self) -> Result<(), ModeError> {
        let daemon = Daemon::find().map_err(ModeError::Cannot)?;
        let before = Shape::of_host();
        let mut files = vec![FILES.to_owned()];
        files.extend(before.files.iter().map(ToString::to_string).filter(|it| it != FILES));
        keys_on_disk::make_folder(Path::new(FILES))?;
        let text = format!("{MARK}\nAuthorizedKeysFile {}\n", files.join(" "));
        let accounts = accounts()?;
        // What lay there before sshd read it may have been revoked since.
        clear(&accounts, before.version)?;
        let proof = self.change(Some(&text), &daemon, || {
            let shape = Shape::of_host();
            match shape.files.first() {
                Some(first) if first.to_string() == FILES => {
                    probe::log_in(&daemon, &accounts, &only(&shape, |it| it == FILES), self.state)
                }
                _ => Err(not_included()),
            }
        });
        if proof.is_err() {
            clear(&accounts, before.version)?;
        }
        let proof = proof?;
        tell(KeyMode::Managed, &proof);
        for account in &accounts {
            gather(account);
        }
        Ok(())
    }

    fn turn_off(&self) -> Result<(), ModeError> {
        let daemon = Daemon::find().map_err(ModeError::Cannot)?;
        let accounts = accounts()?;
        for account in &accounts {
            let shape = Shape::of_account(&account.name);
            let ours = keys_on_disk::ours(account, &shape)?;
            keys_on_disk::set_keys(account, &only(&shape, |it| it != FILES), &ours)?;
        }
        let rest = only(&Shape::of_host(), |it| it != FILES);
        let probed = || probe::log_in(&daemon, &accounts, &rest, self.state);
        let proof = self.change(None, &daemon, probed).inspect_err(|_| {
            accounts.iter().for_each(gather);
        })?;
        tell(KeyMode::Home, &proof);
        clear(&accounts, rest.version)
    }

    /// Puts another addition in place, lets sshd check and read it, and has it tried; the one before
    /// comes back when any of that fails.
    fn change(
        &self,
        text: Option<&str>,
        daemon: &Daemon,
        tried: impl FnOnce() -> Result<Proof, String>,
    ) -> Result<Proof, ModeError> {
        let before = self.read()?;
        let kept = before.as_deref().unwrap_or_default();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(self.state);
        made.map_err(|error| cannot(self.state, &error))?;
        files::replace_secret(&self.pending(), kept.as_bytes())
            .map_err(|e| cannot(&self.pending(), &e))?;
        self.write(text).map_err(ModeError::Cannot)?;
        let done = daemon.check().and_then(|()| daemon.reload()).and_then(|()| tried());
        match done {
            Ok(proof) => self.confirm().map(|()| proof),
            Err(why) => Err(match self.restore(before.as_deref(), daemon) {
                Ok(()) => ModeError::Undone(why),
                Err(undo) => {
                    ModeError::Stuck { why, undo, path: self.addition.display().to_string() }
                }
            }),
        }
    }

    fn restore(&self, before: Option<&str>, daemon: &Daemon) -> Result<(), String> {
        self.write(before)?;
        daemon.check()?;
        daemon.reload()?;
        self.confirm().map_err(|error| error.to_string())
    }

    /// What was begun and never confirmed is as if it had failed.
    fn take_back_unfinished(&self) -> Result<(), ModeError> {
        let before = match std::fs::read_to_string(self.pending()) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(cannot(&self.pending(), &error)),
        };
        tracing::warn!("a change of sshd's configuration was not finished; it is taken back");
        let daemon = Daemon::find().map_err(ModeError::Cannot)?;
        let before = (!before.is_empty()).then_some(before.as_str());
        self.restore(before, &daemon).map_err(ModeError::Cannot)?;
        let accounts = accounts()?;
        match before {
            Some(_) => accounts.iter().for_each(gather),
            None => clear(&accounts, None)?,
        }
        Ok(())
    }

    fn confirm(&self) -> Result<(), ModeError> {
        std::fs::remove_file(self.pending()).map_err(|error| cannot(&self.pending(), &error))
    }

    fn pending(&self) -> PathBuf {
        self.state.join(PENDING)
    }

    /// Our addition, if there is one.
    fn read(&self) -> Result<Option<String>, ModeError> {
        match std::fs::read_to_string(&self.addition) {
            Ok(text) if text.starts_with(MARK) => Ok(Some(text)),
            Ok(_) => {
                let path = self.addition.display();
                Err(ModeError::Cannot(format!("{path} is not bastio's; move it away")))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot(&self.addition, &error)),
        }
    }

    fn write(&self, text: Option<&str>) -> Result<(), String> {
        let done = match text {
            Some(text) => files::replace_secret(&self.addition, text.as_bytes()),
            None => match std::fs::remove_file(&self.addition) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        done.map_err(|error| format!("cannot write {}: {error}", self.addition.display()))
    }
}

fn cannot(path: &Path, error: &std::io::Error) -> ModeError {
    ModeError::Cannot(format!("{}: {error}", path.display()))
}

fn not_included() -> String {
    let text = std::fs::read_to_string(CONFIG).unwrap_or_default();
    if daemon::includes_additions(&text) {
        format!(
            "another AuthorizedKeysFile stands before that of {ADDITIONS}/{ADDITION}, and the first one counts; remove it"
        )
    } else {
        format!(
            "{CONFIG} does not read {ADDITIONS}; add this as its first line: Include {ADDITIONS}/*.conf"
        )
    }
}

/// All accounts of ours.
fn accounts() -> Result<Vec<Account>, ModeError> {
    let system = SystemAccounts::default();
    let mut accounts = Vec::new();
    for name in system.managed()? {
        let facts = system.facts(&name)?;
        accounts.extend(facts.map(|facts| facts.account).filter(|account| !account.is_system));
    }
    Ok(accounts)
}

/// The shape with some of its files only.
fn only(shape: &Shape, keep: impl Fn(&str) -> bool) -> Shape {
    let mut shape = shape.clone();
    shape.files.retain(|file| keep(&file.to_string()));
    shape
}

/// Takes the keys of ours out of the files that sshd does not read (any more, or yet).
fn clear(accounts: &[Account], version: Option<Version>) -> Result<(), ModeError> {
    let managed = Shape::new(vec![Pattern::new(FILES)], version);
    for account in accounts {
        keys_on_disk::set_keys(account, &managed, &[])?;
    }
    Ok(())
}

/// Moves the keys of ours to the first file that sshd reads. Where that fails they stay where they
/// are, which sshd reads, too.
fn gather(account: &Account) {
    let shape = Shape::of_account(&account.name);
    let moved = keys_on_disk::ours(account, &shape)
        .and_then(|ours| keys_on_disk::set_keys(account, &shape, &ours));
    if let Err(error) = moved {
        tracing::warn!(user = %account.name, %error, "keys stay where they are");
    }
}

fn tell(mode: KeyMode, proof: &Proof) {
    tracing::info!(?mode, "keys lie where they should, proved by {proof}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addition_of_others_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let switch =
            Switch { state: folder.path(), addition: folder.path().join("10-bastio.conf") };
        assert_eq!(switch.read().unwrap(), None);
        switch.write(Some("# bastio: managed, do not edit\nX\n")).unwrap();
        assert!(switch.read().unwrap().unwrap().ends_with("X\n"));
        switch.write(None).unwrap();
        switch.write(None).unwrap();
        std::fs::write(&switch.addition, "Port 22\n").unwrap();
        assert!(switch.read().unwrap_err().to_string().contains("is not bastio's"));
    }

    #[test]
    fn a_shape_can_be_cut_down() {
        let shape = Shape::new(vec![Pattern::new(FILES), Pattern::new("k")], None);
        assert_eq!(only(&shape, |it| it == FILES).files, [Pattern::new(FILES)]);
        assert_eq!(only(&shape, |it| it != FILES).files, [Pattern::new("k")]);
    }
}
