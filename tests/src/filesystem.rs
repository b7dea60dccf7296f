//! The file systems of places. Every function works on the calling thread's own mount namespace, which the caller has
//! made private first; the machine's mounts are never changed.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::unistd::{chdir, pivot_root};

const NONE: Option<&str> = None;

/// Cuts this mount namespace off from the machine's: no mount made here shows there.
pub(crate) fn make_private() -> Result<(), Errno> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
}

/// A fresh, empty file system in memory at `path`.
pub(crate) fn mount_tmpfs(path: &Path, options: &str) -> Result<(), Errno> {
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
}

/// What is special about a server's file system.
#[derive(Debug)]
pub(crate) struct Layout<'a> {
    /// Makes `/home` a file system of its own, in memory, with this many bytes.
    pub home_size: Option<u64>,
    /// A folder of the machine that is to be `/home`.
    pub home_folder: Option<&'a Path>,
    /// Programs of the machine that show up read-only in `/usr/bin`.
    pub binaries: Vec<&'a Path>,
}

/// Makes `lab/rootfs`, with changes kept in memory, the root of this mount namespace. `lab/mount` is an empty folder
/// to build it at.
pub(crate) fn enter_server_root(lab: &Path, layout: &Layout<'_>) -> io::Result<()> {
    umask(Mode::empty());
    chdir(lab)?;
    let flags = MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "mount", Some("tmpfs"), flags, Some("mode=0755"))?;
    for folder in ["upper", "work", "root"] {
        fs::create_dir(Path::new("mount").join(folder))?;
    }
    fs::set_permissions("mount/upper", fs::Permissions::from_mode(0o755))?;
    let layers = "lowerdir=rootfs,upperdir=mount/upper,workdir=mount/work";
    mount(Some("overlay"), "mount/root", Some("overlay"), MsFlags::empty(), Some(layers))?;
    let root = Path::new("mount/root");
    for binary in &layout.binaries {
        show_binary(binary, root)?;
    }
    if let Some(folder) = layout.home_folder {
        mount(Some(folder), &root.join("home"), NONE, MsFlags::MS_BIND, NONE)?;
    }
    chdir(root)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    mount_tmpfs(Path::new("/run"), "mode=0755")?;
    mount_tmpfs(Path::new("/tmp"), "mode=1777")?;
    if let Some(bytes) = layout.home_size {
        mount_tmpfs(Path::new("/home"), &format!("mode=0755,size={bytes}"))?;
    }
    fill_dev()?;
    umask(Mode::from_bits_truncate(0o022));
    Ok(())
}

fn show_binary(binary: &Path, root: &Path) -> io::Result<()> {
    let name = binary.file_name().ok_or_else(|| io::Error::other("a program needs a file name"))?;
    let target = root.join("usr/bin").join(name);
    fs::write(&target, [])?;
    mount(Some(binary), &target, NONE, MsFlags::MS_BIND, NONE)?;
    Ok(mount(
        NONE,
        &target,
        NONE,
        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
        NONE,
    )?)
}

/// The devices that programs expect, and nothing of the machine's hardware.
fn fill_dev() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), "/dev", Some("tmpfs"), flags, Some("mode=0755"))?;
    let everyone = Mode::from_bits_truncate(0o666);
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        mknod(&Path::new("/dev").join(name), SFlag::S_IFCHR, everyone, makedev(1, minor))?;
    }
    mknod("/dev/tty", SFlag::S_IFCHR, everyone, makedev(5, 0))?;
    fs::create_dir("/dev/pts")?;
    // Group 5 is `tty` on Debian.
    let options = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount(Some("devpts"), "/dev/pts", Some("devpts"), flags, Some(options))?;
    fs::create_dir("/dev/shm")?;
    mount_tmpfs(Path::new("/dev/shm"), "mode=1777")?;
    for (target, link) in [
        ("pts/ptmx", "/dev/ptmx"),
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        symlink(target, link)?;
    }
    Ok(())
}
