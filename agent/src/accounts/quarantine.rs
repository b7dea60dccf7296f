//! Homes that are put away: moved by one rename to a folder of root's beside them, and deleted after some days.
//!
//! All steps are relative to handles of folders that only root can change; nothing is ever copied. This file must not
//! know why a home goes, nor whether it may: [`super::home::judge`] comes first.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bastio_protocol::Username;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{fsync, geteuid};
use thiserror::Error;

use super::tree::{self, Progress};
use super::{Account, databases};
use crate::keys_on_disk::handles::{open_beneath, open_without_links};

/// The folder beside homes.
pub const FOLDER: &str = ".bastio-quarantine";
/// Seconds of a day.
pub(super) const DAY: u64 = 24 * 60 * 60;
/// Write bits of group and others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why a home stays where it is.
#[derive(Debug, Error)]
pub(super) enum NotMoved {
    #[error("{path} can be changed by others than root", path = .0.display())]
    ParentNotRoots(PathBuf),
    #[error("{path} is not the folder of root's that it should be", path = .0.display())]
    FolderNotRoots(PathBuf),
    #[error("somebody put another folder in its place")]
    Swapped,
    #[error("it lies on a file system of its own")]
    OtherFileSystem,
    #[error("cannot move it: {0}")]
    System(#[from] Errno),
}

/// What a sweep did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Swept {
    /// Homes that are gone now.
    pub deleted: Vec<PathBuf>,
    /// Homes that could not be deleted, and why.
    pub failed: Vec<(PathBuf, String)>,
    /// Whether it was interrupted before all was done.
    pub unfinished: bool,
}

/// Moves the home away; where it is now.
pub(super) fn put_away(account: &Account, now: SystemTime) -> Result<PathBuf, NotMoved> {
    let (Some(parent_path), Some(name)) = (account.home.parent(), account.home.file_name()) else {
        return Err(NotMoved::OtherFileSystem);
    };
    let parent = open_without_links(parent_path)?;
    if !is_roots(&fstat(&parent)?) {
        return Err(NotMoved::ParentNotRoots(parent_path.to_owned()));
    }
    let home = open_beneath(&parent, name, OFlag::O_DIRECTORY).map_err(|errno| match errno {
        Errno::EXDEV => NotMoved::OtherFileSystem,
        errno => errno.into(),
    })?;
    let found = fstat(&home)?;
    if found.st_uid != account.owner.uid.as_raw() {
        return Err(NotMoved::Swapped);
    }
    let folder_path = parent_path.join(FOLDER);
    let folder = make_folder(&parent, &folder_path)?;
    let new_name = Label::new(account, now).to_string();
    renameat(&parent, name, &folder, new_name.as_str())?;
    fsync(&folder)?;
    fsync(&parent)?;
    let moved = fstatat(&folder, new_name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if (moved.st_dev, moved.st_ino) != (found.st_dev, found.st_ino) {
        return Err(NotMoved::Swapped);
    }
    Ok(folder_path.join(new_name))
}

fn make_folder(parent: &OwnedFd, path: &Path) -> Result<OwnedFd, NotMoved> {
    match mkdirat(parent, FOLDER, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let folder = open_roots(parent, FOLDER)?;
    folder.ok_or_else(|| NotMoved::FolderNotRoots(path.to_owned()))
}

/// Opens a folder of root's and shuts it to all others; none when it is no such folder.
fn open_roots(parent: &OwnedFd, name: &str) -> Result<Option<OwnedFd>, Errno> {
    let folder = match open_beneath(parent, name, OFlag::O_DIRECTORY) {
        Ok(folder) => folder,
        Err(Errno::ELOOP | Errno::ENOTDIR | Errno::EXDEV) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let stat = fstat(&folder)?;
    if !is_roots(&stat) {
        return Ok(None);
    }
    if stat.st_mode & 0o7777 != 0o700 {
        fchmod(&folder, Mode::S_IRWXU)?;
    }
    Ok(Some(folder))
}

/// Only root changes what is in it. (Root is whom we run as: tests are somebody else.)
fn is_roots(stat: &FileStat) -> bool {
    stat.st_uid == geteuid().as_raw() && stat.st_mode & WRITABLE_BY_OTHERS == 0
}

/// The folders in which homes of this host are, or were when bastio put them away.
pub(super) fn default_places(homes: impl Iterator<Item = PathBuf>) -> BTreeSet<PathBuf> {
    let base = databases::home_base().ok();
    base.into_iter().chain(homes.filter_map(|home| home.parent().map(Path::to_owned))).collect()
}

/// Deletes what was put away `days` ago or earlier in folders beside homes, as long as it may go on.
pub(super) fn sweep(
    places: &BTreeSet<PathBuf>,
    now: SystemTime,
    days: u32,
    go_on: &dyn Fn() -> bool,
) -> Swept {
    let kept_since = seconds(now).saturating_sub(u64::from(days) * DAY);
    let mut swept = Swept::default();
    for place in places {
        let path = place.join(FOLDER);
        match open_in_place(place) {
            Ok(Some(folder)) => sweep_folder(&folder, &path, kept_since, go_on, &mut swept),
            // Nothing was ever put away there.
            Ok(None) | Err(NotMoved::System(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR)) => {}
            Err(error) => swept.failed.push((path, error.to_string())),
        }
    }
    swept
}

/// The folder for homes that were put away, if there can be one in this place.
fn open_in_place(place: &Path) -> Result<Option<OwnedFd>, NotMoved> {
    let handle = open_without_links(place)?;
    if !is_roots(&fstat(&handle)?) {
        return Ok(None);
    }
    let folder = open_roots(&handle, FOLDER)?;
    folder.map(Some).ok_or_else(|| NotMoved::FolderNotRoots(place.join(FOLDER)))
}

fn sweep_folder(
    folder: &OwnedFd,
    path: &Path,
    kept_since: u64,
    go_on: &dyn Fn() -> bool,
    swept: &mut Swept,
) {
    let due = match labels(folder) {
        Ok(found) => found.into_iter().filter(|(label, _)| label.time <= kept_since),
        Err(errno) => return swept.failed.push((path.to_owned(), errno.to_string())),
    };
    for (label, name) in due {
        let home = path.join(label.to_string());
        match delete(folder, &label, &name, &home, go_on) {
            Ok(Progress::Gone) => swept.deleted.push(home),
            Ok(Progress::Interrupted) => return swept.unfinished = true,
            Err(reason) => swept.failed.push((home, reason)),
        }
    }
}

/// Deletes one home that was put away: by its own name, of the owner in its name, without mounts.
fn delete(
    folder: &OwnedFd,
    label: &Label,
    name: &CString,
    path: &Path,
    go_on: &dyn Fn() -> bool,
) -> Result<Progress, String> {
    let owner = fstatat(folder, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
    let owner = owner.map_err(|errno| errno.to_string())?.st_uid;
    if owner != label.uid {
        return Err(format!("belongs to uid {owner}, not to {}", label.uid));
    }
    if let Some(point) = databases::mount_in(path).map_err(|error| error.to_string())? {
        return Err(format!("has a file system mounted at {}", point.display()));
    }
    tree::delete(folder, name, go_on).map_err(|errno| errno.to_string())
}

fn labels(folder: &OwnedFd) -> Result<Vec<(Label, CString)>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut found = Vec::new();
    for entry in Dir::openat(folder, ".", flags, Mode::empty())?.iter() {
        let name = entry?.file_name().to_owned();
        found.extend(name.to_str().ok().and_then(Label::parse).map(|label| (label, name.clone())));
    }
    Ok(found)
}

/// The name of a home that was put away: `NAME-UID-TIME`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Label {
    name: Username,
    uid: u32,
    /// Seconds since the Unix epoch.
    time: u64,
}

impl Label {
    fn new(account: &Account, now: SystemTime) -> Self {
        let uid = account.owner.uid.as_raw();
        Self { name: account.name.clone(), uid, time: seconds(now) }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.rsplitn(3, '-');
        let (time, uid) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let label = Self { name: Username::parse(parts.next()?).ok()?, uid, time };
        // Nothing but what we write, byte for byte.
        (label.to_string() == text).then_some(label)
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.name, self.uid, self.time)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Duration;

    use nix::unistd::{Gid, getegid};

    use super::*;
    use crate::keys_on_disk::Owner;

    const NOW: u64 = 1_800_000_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn account(home: PathBuf) -> Account {
        let owner = Owner { uid: geteuid(), gid: Gid::from_raw(getegid().as_raw()) };
        let name = Username::parse("a-n-n").unwrap();
        Account { name, owner, home, is_system: false, is_managed: true }
    }

    /// A folder of homes, with one that holds a file.
    fn place() -> (tempfile::TempDir, Account) {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("ann")).unwrap();
        fs::write(place.path().join("ann/file"), "x").unwrap();
        let account = account(place.path().join("ann"));
        (place, account)
    }

    fn sweep_at(place: &Path, now: u64) -> Swept {
        sweep(&BTreeSet::from([place.to_owned()]), at(now), 30, &|| true)
    }

    #[test]
    fn a_home_is_put_away_kept_and_deleted_when_its_days_are_over() {
        let (place, account) = place();
        let now_at = put_away(&account, at(NOW)).unwrap();
        let expected = format!(".bastio-quarantine/a-n-n-{}-{NOW}", geteuid());
        assert_eq!(now_at, place.path().join(expected));
        assert!(!account.home.exists() && now_at.join("file").exists());
        let mode = fs::metadata(now_at.parent().unwrap()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        // What has another name is nobody's to delete.
        fs::create_dir(now_at.with_file_name("kept-by-root")).unwrap();
        assert_eq!(sweep_at(place.path(), NOW + 30 * DAY - 1), Swept::default());
        let swept = sweep_at(place.path(), NOW + 30 * DAY);
        assert_eq!(swept, Swept { deleted: vec![now_at.clone()], ..Swept::default() });
        assert!(!now_at.exists() && now_at.with_file_name("kept-by-root").exists());
        assert_eq!(sweep_at(place.path(), NOW + 30 * DAY), Swept::default());
    }

    #[test]
    fn what_others_can_change_is_no_place_to_move_to() {
        let (place, account) = place();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(put_away(&account, at(NOW)), Err(NotMoved::ParentNotRoots(_))));
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("ann", place.path().join(FOLDER)).unwrap();
        assert!(matches!(put_away(&account, at(NOW)), Err(NotMoved::FolderNotRoots(_))));
        assert_eq!(sweep_at(place.path(), NOW).failed.len(), 1);
        assert!(account.home.join("file").exists());
    }

    #[test]
    fn what_belongs_to_another_uid_is_neither_moved_nor_deleted() {
        let (place, mut account) = place();
        account.owner.uid = nix::unistd::Uid::from_raw(4_000_000);
        assert!(matches!(put_away(&account, at(NOW)), Err(NotMoved::Swapped)));
        assert!(account.home.join("file").exists());
        let stranger = place.path().join(FOLDER).join("ann-4000000-1");
        fs::create_dir_all(&stranger).unwrap();
        let failed = sweep_at(place.path(), NOW).failed;
        assert!(
            matches!(failed.as_slice(), [(path, why)] if *path == stranger && why.contains("belongs to uid"))
        );
        assert!(stranger.exists());
    }

    #[test]
    fn only_names_of_ours_are_taken_for_such() {
        for text in ["ann-1000-1800000000", "a-n-n-0-0", "x-4294967295-1"] {
            assert_eq!(Label::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "ann",
            "ann-1000",
            "ann-1000-",
            "ann-01000-1",
            "ann-+1-1",
            "-1-1",
            "a/b-1-1",
            "ann-4294967296-1",
        ] {
            assert_eq!(Label::parse(text), None, "{text}");
        }
    }
}
