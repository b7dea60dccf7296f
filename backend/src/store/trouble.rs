//! What kind of trouble a database is in, and whether its file is still the one that was opened.
//!
//! Pure but for one look at the file. This file must not know what was asked of the database.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::StoreError;

/// Why a database does not do what is asked of it, as far as somebody can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No space is left.
    Full,
    /// Others hold it, or it is too slow.
    Busy,
    /// It cannot be reached, written, or is not where it was.
    Gone,
    /// It holds what no database holds.
    Damaged,
    /// Something else.
    Other,
}

/// Which file a database is: an open file that was removed, or hidden by a mount, still takes what
/// is written, and the next start would not find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileIdentity {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl StoreError {
    /// What kind of trouble it is.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Database(error) => of_sqlx(error),
            Self::File(_) => Trouble::Gone,
            Self::Corrupt { .. } => Trouble::Damaged,
            _ => Trouble::Other,
        }
    }
}

fn of_sqlx(error: &sqlx::Error) -> Trouble {
    match error {
        sqlx::Error::PoolTimedOut => Trouble::Busy,
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed | sqlx::Error::Io(_) => Trouble::Gone,
        sqlx::Error::Database(error) => error.code().map_or(Trouble::Other, |code| of_code(&code)),
        _ => Trouble::Other,
    }
}

/// SQLite's result codes are numbers (sqlite.org/rescode.html; the lowest byte is the kind);
/// PostgreSQL's have five characters (its manual, appendix A; the first two are the class).
fn of_code(code: &str) -> Trouble {
    if code.len() == 5 {
        return match (code, code.get(..2).unwrap_or_default()) {
            ("53100", _) => Trouble::Full,
            ("55P03" | "57014" | "40001" | "40P01", _) | (_, "53") => Trouble::Busy,
            // A node that became a standby; connections that are refused, cut or ended.
            ("25006", _) | (_, "08" | "28" | "57" | "58") => Trouble::Gone,
            (_, "XX") => Trouble::Damaged,
            _ => Trouble::Other,
        };
    }
    match code.parse::<u32>().map(|code| code & 0xff) {
        // BUSY, LOCKED
        Ok(5 | 6) => Trouble::Busy,
        // READONLY, IOERR, CANTOPEN
        Ok(8 | 10 | 14) => Trouble::Gone,
        // CORRUPT, NOTADB
        Ok(11 | 26) => Trouble::Damaged,
        // FULL
        Ok(13) => Trouble::Full,
        _ => Trouble::Other,
    }
}

impl FileIdentity {
    /// The file that is there now.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Refuses when another file is there by now, or none.
    pub(super) fn check(&self) -> Result<(), sqlx::Error> {
        if Self::of(&self.path).is_ok_and(|found| found == *self) {
            return Ok(());
        }
        let path = self.path.display();
        let reason = format!("{path} was removed or replaced while it was open");
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::NotFound, reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_engines_say_what_somebody_can_do() {
        for (code, trouble) in [
            ("13", Trouble::Full),
            ("5", Trouble::Busy),
            ("517", Trouble::Busy),
            ("6", Trouble::Busy),
            ("14", Trouble::Gone),
            ("1032", Trouble::Gone),
            ("778", Trouble::Gone),
            ("11", Trouble::Damaged),
            ("26", Trouble::Damaged),
            ("2067", Trouble::Other),
            ("53100", Trouble::Full),
            ("53300", Trouble::Busy),
            ("55P03", Trouble::Busy),
            ("57P01", Trouble::Gone),
            ("08006", Trouble::Gone),
            ("25006", Trouble::Gone),
            ("28000", Trouble::Gone),
            ("XX001", Trouble::Damaged),
            ("23505", Trouble::Other),
            ("", Trouble::Other),
        ] {
            assert_eq!(of_code(code), trouble, "{code}");
        }
    }

    #[test]
    fn a_file_in_the_place_of_another_is_not_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bastio.db");
        std::fs::write(&path, "1").expect("written");
        let identity = FileIdentity::of(&path).expect("there");
        assert!(identity.check().is_ok());
        let aside = folder.path().join("aside");
        std::fs::rename(&path, &aside).expect("moved");
        assert_eq!(StoreError::from(identity.check().expect_err("gone")).trouble(), Trouble::Gone);
        std::fs::write(&path, "1").expect("written");
        assert!(identity.check().is_err(), "a new file of that name");
        std::fs::rename(&aside, &path).expect("moved back");
        assert!(identity.check().is_ok());
    }
}
