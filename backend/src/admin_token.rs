//! A new admin token for whoever lost theirs: whoever owns the state folder may have one.
//!
//! Goes to the database directly, also beside a running backend: SQLite lets one writer in at a
//! time, and the backend looks an API key up at every request. The database keeps its version, which
//! is the running backend's affair. This file must not know HTTP.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bastio_protocol::api::ApiKey;
use thiserror::Error;

use crate::access::{self, AccessError, Secret};
use crate::state_folder::{StateError, StateFolder};
use crate::store::{DatabaseUrl, Location, Store, StoreError};

/// Why there is no new token.
#[derive(Debug, Error)]
pub enum AdminTokenError {
    /// No backend has run with this folder.
    #[error(
        "there is no database in {}\nhint: name the folder with --state, or start the backend, which \
         prints a first token: bastio-backend serve", .0.display()
    )]
    NoDatabase(PathBuf),
    /// The folder is somebody else's.
    #[error(
        "{} belongs to user id {owner}\nhint: run this as its owner: sudo -u '#{owner}' bastio-backend \
         admin-token", path.display()
    )]
    ForeignOwner {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// This user may not even look into the folder.
    #[error(
        "{path} is closed to this user\nhint: run this as its owner: sudo -u \"$(stat -c %U {path})\" \
         bastio-backend admin-token", path = .0.display()
    )]
    Closed(PathBuf),
    /// The state folder cannot be used.
    #[error(transparent)]
    State(StateError),
    /// The database cannot be used.
    #[error("the database: {0}")]
    Store(#[from] StoreError),
    /// The API key cannot be made.
    #[error("the admin token: {0}")]
    Access(#[from] AccessError),
}

impl From<StateError> for AdminTokenError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::ForeignOwner { path, owner, .. } => Self::ForeignOwner { path, owner },
            StateError::Io { path, source } if source.kind() == ErrorKind::PermissionDenied => {
                Self::Closed(path)
            }
            other => Self::State(other),
        }
    }
}

/// Makes an API key of role admin in the database of that state folder, or in the shared one. The secret exists nowhere else in clear.
///
/// # Errors
/// [`AdminTokenError`]; nothing was made then.
pub async fn make(
    state: &Path,
    shared: Option<DatabaseUrl>,
) -> Result<(ApiKey, Secret), AdminTokenError> {
    let location = match (shared, StateFolder::existing_database(state)?) {
        (Some(url), _) => Location::Postgres(Box::new(url)),
        (None, Some(database)) => Location::File(database),
        (None, None) => return Err(AdminTokenError::NoDatabase(state.to_owned())),
    };
    let store = Store::open_as_it_is(location).await?;
    let made = access::another_admin_token(&store).await;
    store.close().await;
    Ok(made?)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn who_is_not_the_owner_is_told_how_to_be() {
        let path = || PathBuf::from("/var/lib/bastio");
        for (error, words) in [
            (StateError::ForeignOwner { path: path(), owner: 97, us: 0 }, "sudo -u '#97'"),
            (
                StateError::Io { path: path(), source: ErrorKind::PermissionDenied.into() },
                "sudo -u \"$(stat -c %U /var/lib/bastio)\"",
            ),
            (
                StateError::Io { path: path(), source: io::Error::other("disk on fire") },
                "disk on fire",
            ),
        ] {
            let text = AdminTokenError::from(error).to_string();
            assert!(text.contains(words), "{text}");
        }
    }
}
