//! Opening by handle without following links, on kernels with openat2 (5.6) and without.
//!
//! This file must not know what is opened, nor why.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use nix::NixPath;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag};

/// Opens the folder at an absolute path; fails with `ELOOP` or `ENOTDIR` when any part of it is
/// a symbolic link.
pub(crate) fn open_without_links(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    if !path.is_absolute() {
        return Err(Errno::ENOTDIR);
    }
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(AT_FDCWD, path, how) {
        Err(errno) if is_unsupported(errno) => walk(path, flags),
        opened => opened,
    }
}

/// Opens `name`, one component, in a folder for reading: no link is followed, and no mount
/// (which could be a file system run by the owner) is entered.
pub(crate) fn open_beneath<N: ?Sized + NixPath>(
    folder: impl AsFd,
    name: &N,
    flags: OFlag,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_XDEV;
    match openat2(&folder, name, OpenHow::new().flags(flags).resolve(resolve)) {
        Err(errno) if is_unsupported(errno) => openat(&folder, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// Old kernels say ENOSYS; some containers' system call filters say EPERM to what they don't know.
fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSYS | Errno::EPERM)
}

/// The same as openat2 with `RESOLVE_NO_SYMLINKS`, folder by folder.
pub(super) fn walk(path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let mut handle = open("/", flags, Mode::empty())?;
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => handle = openat(&handle, name, flags, Mode::empty())?,
            Component::ParentDir | Component::Prefix(_) => return Err(Errno::ENOTDIR),
        }
    }
    Ok(handle)
}

/// Whether a folder holds nothing. One that cannot be listed counts as holding something.
pub(super) fn is_empty(folder: &OwnedFd) -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Dir::openat(folder, ".", flags, Mode::empty()).is_ok_and(|mut listing| {
        listing.iter().all(|entry| {
            entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b".."))
        })
    })
}

/// The kind of a file.
pub(crate) fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// The kind of a file, for people.
pub(crate) fn name_of(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFREG => "a plain file",
        SFlag::S_IFDIR => "a folder",
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFBLK | SFlag::S_IFCHR => "a device",
        _ => "something unknown",
    }
}
