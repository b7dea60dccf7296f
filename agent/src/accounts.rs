//! What the system can do with accounts: a narrow trait of verbs, and what they can fail with.
//!
//! The rules (who may be touched, in which order, with which answer) are the processor's; the
//! system's own tools are behind [`SystemAccounts`]. This file must not know messages.

use std::path::PathBuf;

use bastio_protocol::{Change, PublicKey, Removal, Username};
use nix::errno::Errno;
use thiserror::Error;

use crate::keys_on_disk::{KeysOnDiskError, Owner};
use crate::reconcile::host::NewAccount;
use crate::sudoers::SudoersError;

mod create;
mod databases;
mod home;
mod host;
mod making;
mod modify;
mod processes;
mod quarantine;
mod removal;
mod sessions;
mod snapshot;
mod spool;
mod sweeper;
mod system;
mod tool;
mod tree;
mod warnings;

pub use databases::uid_min;
pub use home::HomeFate;
pub use quarantine::Swept;
pub use snapshot::{Databases, SUDO_GROUPS, is_login_shell, is_own_group};
pub use sweeper::Sweeper;
pub use system::SystemAccounts;
pub(crate) use tool::run_program;
pub use tool::{Tool, ToolError, ToolFault};
pub use warnings::warnings;

/// The group that marks the accounts which bastio made.
pub const MANAGED_GROUP: &str = "bastio-managed";

/// An account as the account database (passwd, NSS) has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its login name.
    pub name: Username,
    /// Its ids.
    pub owner: Owner,
    /// Its home folder, which need not exist.
    pub home: PathBuf,
    /// Whether the ids are the system's (root, or below `UID_MIN` of login.defs(5)).
    pub is_system: bool,
    /// Whether it is a member of [`MANAGED_GROUP`]: whether bastio made it.
    pub is_managed: bool,
}

/// A folder (or anything else) where a new account's home would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOver {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is: a name, or `uid N` when nobody has that id.
    pub owner: String,
}

/// The verbs. Each does one thing, and says truthfully what became of it.
pub trait Accounts {
    /// The account of that name. A look-up that fails is an error, never "there is none".
    ///
    /// # Errors
    /// [`AccountsError::LookUp`].
    fn find(&self, name: &Username) -> Result<Option<Account>, AccountsError>;

    /// Whether there is a group of that name.
    ///
    /// # Errors
    /// [`AccountsError::LookUp`].
    fn group_exists(&self, name: &Username) -> Result<bool, AccountsError>;

    /// What stands where the home of a new account would be.
    ///
    /// # Errors
    /// [`AccountsError::LookUp`].
    fn left_over_home(&self, name: &Username) -> Result<Option<LeftOver>, AccountsError>;

    /// Whether plain sudo rights can be given on this host.
    ///
    /// # Errors
    /// [`AccountsError::LookUp`].
    fn can_give_sudo(&self) -> Result<bool, AccountsError>;

    /// Makes a marked account with a home, its own group, and a password that no text matches; with
    /// plain sudo rights or without. After an error there is no account, unless the error says so.
    ///
    /// # Errors
    /// Any [`AccountsError`]; [`AccountsError::HalfMade`] when something could not be undone, and
    /// [`AccountsError::Unmarked`] when an account of that name is there without our mark.
    fn create_plain(
        &self,
        name: &Username,
        sudo: bool,
        new: NewAccount,
    ) -> Result<Account, AccountsError>;

    /// Gives the account plain sudo rights and no others, or takes all that bastio can take.
    ///
    /// # Errors
    /// [`AccountsError::Tool`], [`AccountsError::Sudoers`].
    fn set_plain_sudo(&self, account: &Account, sudo: bool) -> Result<Change, AccountsError>;

    /// Ends all access: the account expires, its keys are removed. `Ok` when the account has
    /// expired, with a note when the keys could not be reached safely.
    ///
    /// # Errors
    /// [`AccountsError::Tool`].
    fn close_access(&self, account: &Account) -> Result<Option<String>, AccountsError>;

    /// Undoes the expiry of [`Accounts::close_access`], and a lock of the password that bastio never sets.
    ///
    /// # Errors
    /// [`AccountsError::LookUp`] or [`AccountsError::Tool`].
    fn reopen_access(&self, account: &Account) -> Result<Change, AccountsError>;

    /// Ends every process of the account.
    ///
    /// # Errors
    /// [`AccountsError::StillRunning`] when some did not end.
    fn end_processes(&self, account: &Account) -> Result<(), AccountsError>;

    /// Removes the account, with what would run later in its name, and does with its home as the
    /// policy says where that is safe. With [`Removal::Lock`] it only leaves its groups.
    ///
    /// # Errors
    /// [`AccountsError::Tool`], [`AccountsError::Spool`]; the account is still there.
    fn delete(&self, account: &Account, removal: Removal) -> Result<HomeFate, AccountsError>;

    /// Makes or repairs `.ssh` and `authorized_keys`.
    ///
    /// # Errors
    /// [`AccountsError::Keys`].
    fn repair_key_files(&self, account: &Account) -> Result<(), AccountsError>;

    /// Lets a key log in.
    ///
    /// # Errors
    /// [`AccountsError::Keys`].
    fn insert_key(&self, account: &Account, key: &PublicKey) -> Result<Change, AccountsError>;

    /// Lets a key log in no more.
    ///
    /// # Errors
    /// [`AccountsError::Keys`].
    fn remove_key(&self, account: &Account, key: &PublicKey) -> Result<Change, AccountsError>;
}

/// Why a verb was not carried out.
#[derive(Debug, Error)]
pub enum AccountsError {
    /// Nobody knows: the caller must change nothing.
    #[error("cannot look up {what}: {errno}; nothing was changed, try again later")]
    LookUp {
        /// What was looked up.
        what: String,
        /// The system's answer.
        errno: Errno,
    },
    /// One of the system's tools failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The key files were not touched.
    #[error(transparent)]
    Keys(#[from] KeysOnDiskError),
    /// Sudo rights are as they were.
    #[error(transparent)]
    Sudoers(#[from] SudoersError),
    /// Processes outlived SIGKILL (stuck in the kernel), or new ones came faster than they ended.
    #[error("{count} processes did not end within {seconds} s")]
    StillRunning {
        /// How many.
        count: usize,
        /// How long was waited for them.
        seconds: u64,
    },
    /// What runs later in the account's name (crontab, at jobs) is still there.
    #[error("cannot remove {path}: {reason}; remove it by hand and try again", path = .path.display())]
    Spool {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// There is no such account.
    #[error("{0} does not exist")]
    Absent(Username),
    /// There is one, which was not asked for.
    #[error("{0} exists already")]
    Exists(Username),
    /// It is not bastio's, or one of the system's own.
    #[error(
        "{0} is not managed by bastio, or is an account of the system itself, and was left alone"
    )]
    NotOurs(Username),
    /// A directory service knows it, and the tools change local accounts alone.
    #[error("{0} is not in /etc/passwd but in a directory service; change it there")]
    NotLocal(Username),
    /// The numeric id cannot be had.
    #[error("the uid {uid} cannot be given: {reason}; choose another")]
    Uid {
        /// The id.
        uid: u32,
        /// Why, with the name of its holder.
        reason: String,
    },
    /// All ids of people are taken or reserved.
    #[error("no uid is free between UID_MIN and UID_MAX; raise UID_MAX in /etc/login.defs")]
    NoUid,
    /// A group that the account should be in.
    #[error("there is no local group {0}; make it (groupadd {0}) and try again")]
    GroupMissing(String),
    /// A group that is given in other ways.
    #[error("the group {0} is bastio's own business; ask for sudo rights, not for this group")]
    GroupReserved(String),
    /// The account's own group cannot be made.
    #[error("a group {0} exists already; remove it (groupdel {0}) or name another primary group")]
    GroupInTheWay(Username),
    /// A path that cannot be a home, a shell, or the beginning of a home.
    #[error("{path} cannot be {what}: {reason}", path = .path.display())]
    Path {
        /// What it should be.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The rest was not done.
    #[error("a part was changed, but {cause}; the rest stays as it was, try again")]
    Partly {
        /// The failure.
        cause: Box<AccountsError>,
    },
    /// Making an account failed, and so did taking back what was made.
    #[error("{cause}; the account that was half made could not be removed again: {undo}")]
    HalfMade {
        /// The failure.
        cause: Box<AccountsError>,
        /// The failure of the way back.
        undo: Box<AccountsError>,
    },
    /// Making an account failed, and now there is one of that name without the mark of ours: half
    /// made by the tool, or somebody else's made meanwhile. It was left alone.
    #[error(
        "{cause}; there is an account {name} now that is not in the group {MANAGED_GROUP}: it may \
         be half made or somebody else's, and was left as it is; look at it, and if nobody needs it: \
         userdel {name}"
    )]
    Unmarked {
        /// Its login name.
        name: Username,
        /// The failure.
        cause: Box<AccountsError>,
    },
}
