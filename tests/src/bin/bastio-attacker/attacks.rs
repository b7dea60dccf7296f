//! When something is swapped, and against what. Knows nothing of how the shapes are made.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, openat, renameat, renameat_with, statat, unlinkat,
};

use crate::shapes::{self, LINKS_AND_FILES, POOLED, Shape};

const FOLDER: &str = ".ssh";
const FILE: &str = "authorized_keys";
/// What the names of files in the making begin with.
const IN_THE_MAKING: &str = ".bastio-new-";
/// Longest time that a shape stands before it is swapped out again, in turns of a loop (some 50 µs).
const LONGEST: u64 = 1_000;

/// One attacker at work in the current folder, perhaps beside others.
pub struct Attacker {
    canaries: PathBuf,
    /// Its own folder in the home.
    space: PathBuf,
    random: u64,
    counts: BTreeMap<String, u64>,
}

impl Attacker {
    /// Makes what is needed in the home.
    pub fn prepare(canaries: &str, seed: u64) -> io::Result<Self> {
        let canaries = PathBuf::from(canaries);
        let space = PathBuf::from(format!("space-{seed}"));
        fs::create_dir(&space)?;
        for shape in POOLED {
            shapes::make(shape, &space.join(shape), &canaries)?;
        }
        Ok(Self { canaries, space, random: seed | 1, counts: BTreeMap::new() })
    }

    /// How often each swap succeeded.
    pub fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// One swap, or one there and back.
    pub fn strike(&mut self) {
        let Some(folder) = open_folder() else {
            let _ = fs::DirBuilder::new().mode(0o700).create(FOLDER);
            clear(Path::new(FOLDER));
            return;
        };
        if statat(&folder, FILE, AtFlags::SYMLINK_NOFOLLOW).is_err() {
            let _ = openat(&folder, FILE, OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR);
        }
        match self.below(10) {
            0..=2 => self.swap("the folder", CWD, OsStr::new(FOLDER)),
            3..=5 => self.swap("the file", &folder, OsStr::new(FILE)),
            6..=8 => self.swap_in_the_making(&folder),
            9 if self.below(2) == 0 => self.take_away(CWD, OsStr::new(FOLDER)),
            _ => self.take_away(&folder, OsStr::new(FILE)),
        }
    }

    /// Puts a shape where `name` is, in one step, and after a while what was there back.
    fn swap(&mut self, what: &str, folder: impl AsFd, name: &OsStr) {
        let shape = self.any_shape();
        let is_pooled = POOLED.contains(&shape);
        let aside = if is_pooled { self.space.join(shape) } else { self.aside() };
        if !is_pooled && shapes::make(shape, &aside, &self.canaries).is_err() {
            clear(&aside);
            return;
        }
        let exchange = || renameat_with(CWD, &aside, &folder, name, RenameFlags::EXCHANGE).is_ok();
        if exchange() {
            self.count(&format!("{what}: {shape}"));
            self.dawdle();
            exchange();
        }
        let was_replaced = fs::symlink_metadata(&aside).is_ok_and(|found| found.is_file());
        if !is_pooled || was_replaced {
            clear(&aside);
        }
        if is_pooled && was_replaced {
            // A writer has put its file over the shape.
            let _ = shapes::make(shape, &aside, &self.canaries);
        }
    }

    /// Swaps the file that is being written, or takes its place.
    fn swap_in_the_making(&mut self, folder: &OwnedFd) {
        for _ in 0..20 {
            for name in files_in_the_making(folder) {
                let aside = self.aside();
                match self.below(4) {
                    0 if unlinkat(folder, &name, AtFlags::empty()).is_ok() => {
                        self.count("in the making: removed");
                    }
                    1 if renameat(folder, &name, folder, FILE).is_ok() => {
                        self.count("in the making: renamed too early");
                    }
                    2 if renameat(folder, &name, CWD, &aside).is_ok() => {
                        self.count("in the making: taken away");
                        clear(&aside);
                    }
                    _ => self.swap("in the making", folder, &name),
                }
            }
        }
    }

    /// The folder or the file is not there for a while.
    fn take_away(&mut self, folder: impl AsFd, name: &OsStr) {
        let aside = self.aside();
        if renameat(&folder, name, CWD, &aside).is_ok() {
            self.count("taken away and brought back");
            self.dawdle();
            let _ = renameat_with(CWD, &aside, &folder, name, RenameFlags::NOREPLACE);
        }
        clear(&aside);
    }

    fn aside(&self) -> PathBuf {
        self.space.join("aside")
    }

    fn any_shape(&mut self) -> Shape {
        // Large ones are slow.
        let rare = self.below(8) == 0;
        let shapes: &[Shape] = if rare { &POOLED } else { &LINKS_AND_FILES };
        let chosen = self.below(shapes.len());
        shapes.get(chosen).copied().unwrap_or("file")
    }

    fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    fn dawdle(&mut self) {
        for _ in 0..self.next() % LONGEST {
            std::hint::spin_loop();
        }
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % end.max(1)
    }

    /// xorshift64: no more is needed to be unpredictable for a program that does not look.
    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// By handle: through a link that another attacker puts there, this one would harm the canaries himself.
fn open_folder() -> Option<OwnedFd> {
    openat(CWD, FOLDER, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn files_in_the_making(folder: &OwnedFd) -> Vec<OsString> {
    let names = Dir::read_from(folder).into_iter().flatten().flatten().take(20);
    names
        .map(|entry| OsString::from_vec(entry.file_name().to_bytes().to_vec()))
        .filter(|name| name.to_string_lossy().starts_with(IN_THE_MAKING))
        .collect()
}

/// Removes whatever is there.
fn clear(place: &Path) {
    if fs::remove_file(place).is_err() && fs::symlink_metadata(place).is_ok() {
        let _ = fs::remove_dir_all(place);
    }
}
