//! Rules for sudo: one file an account in `/etc/sudoers.d`, checked by visudo(8) before it counts.
//!
//! A file that is not good sudoers(5) can shut everybody out of sudo, and one that sudo does not
//! read gives nothing though all seems well. So nothing is written unless sudo will read it, a new
//! file is checked by itself under a name that sudo leaves out, and afterwards everything together;
//! if that is broken by us, what was before comes back. Files of others are never touched, whatever
//! their names. Taking rights away needs none of these checks, and works where giving is refused.
//!
//! This room must not know messages, nor who may have which rights.

use std::path::{Path, PathBuf};

use bastio_protocol::{Change, SudoPolicy, SudoPolicyError, Username};
use nix::errno::Errno;
use thiserror::Error;

use crate::accounts::ToolFault;

mod folder;
mod group_rule;
mod host;
mod includes;
mod name;
mod visudo;

use folder::{Folder, Stored};
use visudo::Verdict;

/// The first line of every file of ours. Files without it are never changed.
const MARK: &str = "# bastio: managed, do not edit";
/// sudo's folder of rules.
const FOLDER: &str = "/etc/sudoers.d";

/// The rules of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sudoers {
    folder: PathBuf,
    /// The file that sudo reads first.
    main: PathBuf,
}

/// What plain sudo rights are on this host: the key `plain` of `[sudo]` in the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PlainSudo {
    /// Membership of the group `sudo` or `wheel`: what that gives is the host's own decision.
    #[default]
    Group,
    /// A rule that allows everything and asks for no password.
    NoPassword,
}

/// A file of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The whole of it.
    pub text: String,
    /// Whether owner and mode are as they were written (root, 0440): then sudo reads it, and only
    /// root can have changed it.
    pub is_sound: bool,
}

/// Why a rule was not written or removed. What was before holds on after each of these, save where
/// the text says otherwise.
#[derive(Debug, Error)]
pub enum SudoersError {
    /// There is no visudo: no sudo, then.
    #[error("this host has no visudo; install sudo and try again")]
    NoVisudo,
    /// Neither of the groups whose members may use sudo.
    #[error("this host has neither a group sudo nor wheel; install sudo and try again")]
    NoSudoGroup,
    /// sudo would not read the file.
    #[error(
        "cannot give sudo rights: {main} does not include {folder}; \
         add the line `@includedir {folder}` to it (visudo) and try again",
        main = .main.display(), folder = .folder.display()
    )]
    NotIncluded {
        /// The file that sudo reads first.
        main: PathBuf,
        /// Our folder.
        folder: PathBuf,
    },
    /// The folder is not there.
    #[error("cannot give sudo rights: {path} is missing; run: install -d -m 0750 {path}", path = .0.display())]
    FolderMissing(PathBuf),
    /// Others than root decide what is in the folder.
    #[error("cannot give sudo rights: {path} {why}; mend that (chown root, chmod go-w) and try again", path = .path.display())]
    FolderUnsafe {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something that bastio did not write has the name of our file.
    #[error("{path} is {found} and is left alone; remove it and try again", path = .path.display())]
    Foreign {
        /// The thing.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The rule cannot be said.
    #[error(transparent)]
    Policy(#[from] SudoPolicyError),
    /// visudo refuses the file by itself.
    #[error("sudo on this host does not understand the rule: {said}; nothing was changed")]
    RuleRefused {
        /// What visudo said.
        said: String,
    },
    /// The file is good, but not together with the others.
    #[error("the rule breaks sudo's other rules and was taken back: {said}")]
    Conflict {
        /// What visudo said.
        said: String,
    },
    /// sudo's rules are broken without us.
    #[error(
        "sudo's rules on this host are broken by others: {said}; {outcome}; mend them (visudo -c) and try again"
    )]
    BrokenByOthers {
        /// What visudo said.
        said: String,
        /// What became of the rule.
        outcome: &'static str,
    },
    /// visudo could not be asked.
    #[error("visudo: {0}; what was before holds on")]
    Visudo(ToolFault),
    /// The new state had to be taken back, and that failed.
    #[error("{cause}; it could not be taken back: {undo}")]
    NotTakenBack {
        /// Why it had to be.
        cause: Box<SudoersError>,
        /// The failure of the way back.
        undo: Box<SudoersError>,
    },
    /// The file system takes no changes.
    #[error("cannot {step} {path}: the file system is read-only; make it writable (mount -o remount,rw) and try again", path = .path.display())]
    ReadOnly {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("no space left for {path}; the old rule holds on; free some space and try again", path = .0.display())]
    NoSpace(PathBuf),
    /// The change is made, but perhaps not for good.
    #[error("{path} was changed, but the system does not confirm it ({errno}); try again", path = .path.display())]
    Unconfirmed {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        errno: Errno,
    },
    /// The system refused a step.
    #[error("cannot {step} {path}: {errno}; the old rule holds on", path = .path.display())]
    System {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's answer.
        errno: Errno,
    },
}

impl SudoersError {
    fn system(step: &'static str, path: &Path, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::ENOSPC | Errno::EDQUOT => Self::NoSpace(path),
            Errno::EROFS => Self::ReadOnly { step, path },
            errno => Self::System { step, path, errno },
        }
    }

    fn from_io(step: &'static str, path: &Path, error: &std::io::Error) -> Self {
        Self::system(step, path, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }
}

impl Sudoers {
    /// The rules of this machine: `/etc/sudoers` and `/etc/sudoers.d`.
    #[must_use]
    pub fn system() -> Self {
        Self::at(Path::new(FOLDER))
    }

    /// Rules in another folder, whose main file `sudoers` lies beside it.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), main: folder.with_file_name("sudoers") }
    }

    /// Where the account's file is, if it has one.
    #[must_use]
    pub fn file_of(&self, name: &Username) -> PathBuf {
        self.folder.join(name::of_account(name))
    }

    /// The account's file; `None` when there is none.
    ///
    /// # Errors
    /// [`SudoersError::Foreign`] when something of others has its name.
    pub fn read(&self, name: &Username) -> Result<Option<Rule>, SudoersError> {
        match Folder::open(&self.folder)? {
            Some(folder) => find(&folder, name),
            None => Ok(None),
        }
    }

    /// The accounts that have a file of ours, sorted.
    ///
    /// # Errors
    /// [`SudoersError::System`] when the folder cannot be read.
    pub fn all(&self) -> Result<Vec<Username>, SudoersError> {
        let Some(folder) = Folder::open(&self.folder)? else { return Ok(Vec::new()) };
        let mut accounts = Vec::new();
        for name in folder.names()?.iter().filter_map(|file| name::to_account(file)) {
            match find(&folder, &name) {
                Ok(Some(_)) => accounts.push(name),
                Ok(None) | Err(SudoersError::Foreign { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        accounts.sort();
        Ok(accounts)
    }

    /// Whether a rule for the account could be written here: sudo is there and would read the file,
    /// and nothing of others has its name. Changes nothing.
    ///
    /// # Errors
    /// [`SudoersError`] with the reason.
    pub fn check_ready(&self, name: &Username) -> Result<(), SudoersError> {
        find(&self.open_to_give()?, name).map(drop)
    }

    /// Gives the account exactly this, until `until` at most (seconds since the Unix epoch). The
    /// same once more writes nothing.
    ///
    /// # Errors
    /// [`SudoersError`]. Of [`SudoersError::BrokenByOthers`] the text says what became of the rule.
    pub fn write(
        &self,
        name: &Username,
        policy: &SudoPolicy,
        until: Option<i64>,
    ) -> Result<Change, SudoersError> {
        let text = policy.to_sudoers(name, until)?;
        let folder = self.open_to_give()?;
        let old = find(&folder, name)?;
        if old.as_ref().is_some_and(|old| old.is_sound && old.text == text) {
            // What a crash left over.
            let _ = folder.discard_aside();
            return Ok(Change::Unchanged);
        }
        self.replace(&folder, &name::of_account(name), &text, old.as_ref())?;
        Ok(Change::Changed)
    }

    /// Takes the account's file away.
    ///
    /// # Errors
    /// [`SudoersError::Foreign`] when what has its name is not ours, and those of the system.
    pub fn remove(&self, name: &Username) -> Result<Change, SudoersError> {
        let Some(folder) = Folder::open(&self.folder)? else { return Ok(Change::Unchanged) };
        if find(&folder, name)?.is_none() {
            return Ok(Change::Unchanged);
        }
        folder.remove(&name::of_account(name))?;
        Ok(Change::Changed)
    }

    /// Whether sudo asks members of this group for no password, as far as that is written plainly.
    fn lets_group_in(&self, group: &str) -> Result<bool, SudoersError> {
        let mut texts = vec![self.main_text()?];
        if let Some(folder) = Folder::open(&self.folder)? {
            let mut names = folder.names()?;
            names.retain(|name| !name.contains('.') && !name.ends_with('~'));
            names.sort();
            // What cannot be read says nothing: then a password is asked for.
            let read = names.iter().filter_map(|name| folder.read(name).ok().flatten());
            texts.extend(read.map(|file| String::from_utf8_lossy(&file.bytes).into_owned()));
        }
        Ok(group_rule::needs_no_password(texts.iter().map(String::as_str), group))
    }

    fn main_text(&self) -> Result<String, SudoersError> {
        match std::fs::read(&self.main) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => Err(SudoersError::from_io("read", &self.main, &error)),
        }
    }

    /// The folder, where sudo will read what is written into it.
    fn open_to_give(&self) -> Result<Folder, SudoersError> {
        if !visudo::is_installed() {
            return Err(SudoersError::NoVisudo);
        }
        let folder = Folder::open(&self.folder)?
            .ok_or_else(|| SudoersError::FolderMissing(self.folder.clone()))?;
        folder.check_owner()?;
        if includes::has_folder(&self.main_text()?, &self.main, &self.folder) {
            return Ok(folder);
        }
        let (main, folder) = (self.main.clone(), self.folder.clone());
        Err(SudoersError::NotIncluded { main, folder })
    }

    /// Puts a new file in the place of the old one, unless that would break anything.
    fn replace(
        &self,
        folder: &Folder,
        file: &str,
        text: &str,
        old: Option<&Rule>,
    ) -> Result<(), SudoersError> {
        let before = visudo::check(&self.main)?;
        if let (Verdict::Bad(said), None) = (&before, old) {
            let outcome = "nothing was changed";
            return Err(SudoersError::BrokenByOthers { said: said.clone(), outcome });
        }
        check_alone(folder, file, text)?;
        folder.put_in_place(file)?;
        let cause = match (visudo::check(&self.main), before) {
            (Ok(Verdict::Good), _) => return Ok(()),
            // It may take rights away, so it stays although nobody can tell how sudo reads it.
            (Ok(Verdict::Bad(said)), Verdict::Bad(_)) => {
                let outcome = "the new rule is in its place";
                return Err(SudoersError::BrokenByOthers { said, outcome });
            }
            (Ok(Verdict::Bad(said)), Verdict::Good) => SudoersError::Conflict { said },
            (Err(error), _) => error,
        };
        match take_back(folder, file, old) {
            Ok(()) => Err(cause),
            Err(undo) => {
                Err(SudoersError::NotTakenBack { cause: Box::new(cause), undo: Box::new(undo) })
            }
        }
    }
}

/// Writes the file aside; it stays there only when visudo takes it.
fn check_alone(folder: &Folder, file: &str, text: &str) -> Result<(), SudoersError> {
    let aside = folder.write_aside(text.as_bytes())?;
    let checked = visudo::check(&aside).and_then(|verdict| match verdict {
        Verdict::Good => Ok(()),
        Verdict::Bad(said) => {
            let said = said
                .replace(&aside.display().to_string(), &folder.path_of(file).display().to_string());
            Err(SudoersError::RuleRefused { said })
        }
    });
    if checked.is_err() {
        // The refusal is what counts; a left-over is overwritten next time.
        let _ = folder.discard_aside();
    }
    checked
}

fn take_back(folder: &Folder, file: &str, old: Option<&Rule>) -> Result<(), SudoersError> {
    match old {
        None => folder.remove(file),
        Some(old) => {
            folder.write_aside(old.text.as_bytes())?;
            folder.put_in_place(file)
        }
    }
}

/// The account's file in the folder.
fn find(folder: &Folder, name: &Username) -> Result<Option<Rule>, SudoersError> {
    let file = name::of_account(name);
    let Some(Stored { bytes, is_sound }) = folder.read(&file)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if text.lines().next() == Some(MARK) {
        return Ok(Some(Rule { text, is_sound }));
    }
    let found = match text.is_empty() {
        true => "empty",
        false => "not written by bastio (its first line says so)",
    };
    Err(SudoersError::Foreign { path: folder.path_of(&file), found })
}

#[cfg(test)]
mod tests;
