//! What can stand where `.ssh`, a key file or a file in the making belongs. Knows nothing of when it is put there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

/// A name for each shape.
pub type Shape = &'static str;

/// Shapes made anew for each use: they cost a call or two.
pub const LINKS_AND_FILES: [Shape; 16] = [
    "link to a canary",
    "link to a canary's folder",
    "link to shadow",
    "link to /root",
    "link to a folder of one's own outside",
    "link to itself",
    "link to nowhere",
    "link to a device",
    "link to a process",
    "hard link to a canary",
    "hard link to one's own",
    "FIFO",
    "folder",
    "file",
    "huge file",
    "device",
];
/// Shapes that are made once and moved in and out.
pub const POOLED: [Shape; 3] = ["deep tree", "crowded folder", "socket"];

/// How deep the deep tree is.
const DEPTH: usize = 300;
/// How many entries the crowded folder has; a writer may look at each.
const CROWD: usize = 6000;

/// Makes the shape at `path`.
pub fn make(shape: Shape, path: &Path, canaries: &Path) -> io::Result<()> {
    match shape {
        "link to a canary" => symlink(canaries.join("secret"), path),
        "link to a canary's folder" => symlink(canaries.join("ssh"), path),
        "link to shadow" => symlink("/etc/shadow", path),
        "link to /root" => symlink("/root/.ssh", path),
        "link to a folder of one's own outside" => symlink(canaries.join("mine"), path),
        "link to itself" => symlink(path.file_name().unwrap_or_default(), path),
        "link to nowhere" => symlink(canaries.join("not-there"), path),
        "link to a device" => symlink("/dev/zero", path),
        "link to a process" => symlink("/proc/self/mem", path),
        "hard link to a canary" => fs::hard_link(canaries.join("writable"), path),
        "hard link to one's own" => {
            let own = path.with_file_name("own");
            fs::write(&own, "# linked\n")?;
            fs::hard_link(own, path)
        }
        "device" => fs::rename(path.with_file_name("given"), path),
        "FIFO" => Ok(mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?),
        "folder" => fs::create_dir(path),
        "file" => fs::write(path, "# mine\n"),
        "huge file" => File::create(path)?.set_len(1 << 40),
        "socket" => UnixListener::bind(path).map(drop),
        "deep tree" => deep_tree(path),
        "crowded folder" => crowd(path),
        other => Err(io::Error::other(format!("no shape {other}"))),
    }
}

fn deep_tree(path: &Path) -> io::Result<()> {
    fs::create_dir_all(vec!["d"; DEPTH].iter().fold(path.to_owned(), |at, name| at.join(name)))?;
    fs::write(path.join("authorized_keys"), "# deep\n")
}

/// Names like those of files in the making, among others.
fn crowd(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    for number in 0..CROWD {
        let prefix = if number % 2 == 0 { ".bastio-new-" } else { "other-" };
        File::create(path.join(format!("{prefix}{number:016x}")))?;
    }
    Ok(())
}
