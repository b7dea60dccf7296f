//! Managed mode: keys lie in `/etc/ssh/authorized_keys.d/NAME`, outside of homes, and sshd is told so
//! by an addition to its configuration. Switched on and off without a moment in which a key of
//! ours lets nobody in: first it is where sshd will look, then sshd looks there, then it goes from
//! where it was.
//!
//! An addition that sshd does not take, with which a probe login fails, or which takes a way in from
//! somebody, is taken back at once. What was begun and not proved (a crash, a power cut) is taken
//! back at the next start. What is proved must be confirmed by others, who keep the way back.
//! This file must not know what a key line says, nor what confirms.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use bastio_protocol::Username;
use thiserror::Error;

use super::daemon::{self, Daemon};
use super::probe::{self, Proof};
use super::source::{ADDITIONS, CONFIG};
use super::ways::Ways;
use super::{Pattern, Shape, Version};
use crate::accounts::{Account, AccountsError, SystemAccounts};
use crate::files;
use crate::guard::file::SavedFile;
use crate::keys_on_disk::{self, KeysOnDiskError};
use crate::reconcile::host::AccountHost as _;

/// The files of managed mode, as sshd reads them.
const FILES: &str = "/etc/ssh/authorized_keys.d/%u";
/// The addition to sshd's configuration.
const ADDITION: &str = "10-bastio.conf";
/// The first line of the addition: without it, it is not ours.
const MARK: &str = "# bastio: managed, do not edit";
/// In the state folder: what the addition was before a change that is not proved yet.
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

/// The way from one mode to the other, and back.
#[derive(Debug)]
pub struct Switch {
    /// The agent's folder of its own.
    state: PathBuf,
    addition: PathBuf,
    /// The account that must not lose a way in.
    break_glass: Option<Username>,
}

impl Switch {
    /// On this host; `state` is the agent's folder of its own. Nothing is done yet.
    #[must_use]
    pub fn new(state: PathBuf, break_glass: Option<Username>) -> Self {
        Self { state, addition: Path::new(ADDITIONS).join(ADDITION), break_glass }
    }

    /// Where keys lie now.
    ///
    /// # Errors
    /// [`ModeError`] when nobody can tell.
    pub fn mode(&self) -> Result<KeyMode, ModeError> {
        Ok(if self.read()?.is_some() { KeyMode::Managed } else { KeyMode::Home })
    }

    /// Has sshd read keys as the other mode has it, and proves it. `keep` gets what brings it back, once it is proved:
    /// from then on it must be confirmed. Until [`Self::finish`] keys stay where they are besides.
    ///
    /// # Errors
    /// [`ModeError`]; nothing must be confirmed.
    pub fn to(
        &self,
        mode: KeyMode,
        keep: impl FnOnce(SavedFile) -> Result<(), String>,
    ) -> Result<(), ModeError> {
        let proof = match mode {
            KeyMode::Managed => self.turn_on(keep),
            KeyMode::Home => self.turn_off(keep),
        }?;
        tracing::info!(?mode, "sshd reads keys where they are to lie, proved by {proof}");
        Ok(())
    }

    /// It is confirmed: keys move to where they are to lie.
    ///
    /// # Errors
    /// [`ModeError`] when nobody knows whose; sshd reads them where they are, too.
    pub fn finish(&self) -> Result<(), ModeError> {
        accounts()?.iter().for_each(gather);
        Ok(())
    }

    /// It is not confirmed: keys and sshd's configuration are as they were, with the changes of keys since. What of it
    /// could not be done, account by account.
    ///
    /// # Errors
    /// [`ModeError`] when sshd's configuration could not be brought back.
    pub fn back(&self, saved: &SavedFile) -> Result<Vec<String>, ModeError> {
        let daemon = Daemon::find().map_err(ModeError::Cannot)?;
        let mut accounts = accounts()?;
        let mut failures = Vec::new();
        if saved.was.is_none() {
            accounts.retain(|account| match copy_home(account) {
                Ok(()) => true,
                Err(error) => {
                    failures.push(format!("keys of {}: {error}", account.name));
                    false
                }
            });
        }
        saved.put_back().map_err(|error| cannot(&saved.path, &error))?;
        daemon.check().and_then(|()| daemon.reload()).map_err(ModeError::Cannot)?;
        match saved.was {
            Some(_) => accounts.iter().for_each(gather),
            // A key that could not go home must at least not be lost.
            None => clear(&accounts, Shape::of_host().version)?,
        }
        Ok(failures)
    }

    fn turn_on(
        &self,
        keep: impl FnOnce(SavedFile) -> Result<(), String>,
    ) -> Result<Proof, ModeError> {
        let daemon = Daemon::find().map_err(ModeError::Cannot)?;
        let before = Shape::of_host();
        let mut files = vec![FILES.to_owned()];
        files.extend(before.files.iter().map(ToString::to_string).filter(|it| it != FILES));
        keys_on_disk::make_folder(Path::new(FILES))?;
        let text = format!("{MARK}\nAuthorizedKeysFile {}\n", files.join(" "));
        let accounts = accounts()?;
        // What lay there before sshd read it may have been revoked since.
        clear(&accounts, before.version)?;
        let ways = Ways::look(&accounts, self.break_glass.as_ref())?;
        let tried = || {
            let shape = Shape::of_host();
            if shape.files.first().is_none_or(|first| first.to_string() != FILES) {
                return Err(not_included());
            }
            ways.lead_in("")?;
            self.probe(&daemon, &accounts, &only(&shape, |it| it == FILES))
        };
        let proof = self.change(Some(&text), &daemon, tried, keep);
        if proof.is_err() {
            clear(&accounts, before.version)?;
        }
        proof
    }

    fn turn_off(
        &self,
        keep: impl FnOnce(SavedFile) -> Result<(), String>,
    ) -> Result<Proof, ModeError> {
        let daemon = Daemon::find().map_err(ModeError::Cannot)?;
        let accounts = accounts()?;
        let ways = Ways::look(&accounts, self.break_glass.as_ref())?;
        for account in &accounts {
            copy_home(account)?;
        }
        let rest = only(&Shape::of_host(), |it| it != FILES);
        let tried = || {
            ways.lead_in(FILES)?;
            self.probe(&daemon, &accounts, &rest)
        };
        let proof = self.change(None, &daemon, tried, keep).inspect_err(|_| {
            accounts.iter().for_each(gather);
        })?;
        // Nobody would take a revoked key out of what sshd does not read.
        clear(&accounts, rest.version)?;
        Ok(proof)
    }

    fn probe(&self, daemon: &Daemon, accounts: &[Account], shape: &Shape) -> Result<Proof, String> {
        probe::log_in(daemon, accounts, self.break_glass.as_ref(), shape, &self.state)
    }

    /// Puts another addition in place, lets sshd check and read it, has it tried, and what was before kept; that comes
    /// back when any of it fails.
    fn change(
        &self,
        text: Option<&str>,
        daemon: &Daemon,
        tried: impl FnOnce() -> Result<Proof, String>,
        keep: impl FnOnce(SavedFile) -> Result<(), String>,
    ) -> Result<Proof, ModeError> {
        let before = self.read()?;
        let kept = before.as_deref().unwrap_or_default();
        let saved = SavedFile::take(&self.addition).map_err(|e| cannot(&self.addition, &e))?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.state);
        made.map_err(|error| cannot(&self.state, &error))?;
        files::replace_secret(&self.pending(), kept.as_bytes())
            .map_err(|e| cannot(&self.pending(), &e))?;
        let done = self
            .write(text)
            .and_then(|()| daemon.check())
            .and_then(|()| daemon.reload())
            .and_then(|()| tried())
            .and_then(|proof| keep(saved).map(|()| proof));
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

    /// What was begun and never proved (a crash) is as if it had failed; whether there was such a thing.
    ///
    /// # Errors
    /// [`ModeError`]; it is tried again by the next call.
    pub fn take_back_unfinished(&self) -> Result<bool, ModeError> {
        let before = match std::fs::read_to_string(self.pending()) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
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
        Ok(true)
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

/// Brings the keys of ours to where they would be without managed mode.
fn copy_home(account: &Account) -> Result<(), KeysOnDiskError> {
    let shape = Shape::of_account(&account.name);
    let ours = keys_on_disk::ours(account, &shape)?;
    keys_on_disk::set_keys(account, &only(&shape, |it| it != FILES), &ours).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addition_of_others_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let addition = folder.path().join("10-bastio.conf");
        let switch = Switch { state: folder.path().to_owned(), addition, break_glass: None };
        assert_eq!(switch.read().unwrap(), None);
        assert_eq!(switch.mode().unwrap(), KeyMode::Home);
        switch.write(Some("# bastio: managed, do not edit\nX\n")).unwrap();
        assert!(switch.read().unwrap().unwrap().ends_with("X\n"));
        assert_eq!(switch.mode().unwrap(), KeyMode::Managed);
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
