//! The files that an sshd's settings come from, so that sshd is asked again when they change and
//! not before: one stat(2) each.
//!
//! This file must not know what a setting means, but for `Include`, `Match` and `AuthorizedKeysFile`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::pattern::Pattern;

/// The main file.
pub const CONFIG: &str = "/etc/ssh/sshd_config";
/// The folder of additions which the main file includes on most distributions.
pub const ADDITIONS: &str = "/etc/ssh/sshd_config.d";
/// Where relative names of `Include` begin (sshd_config(5)).
const BASE: &str = "/etc/ssh";
/// What `Match Group` and `Match User` depend on besides.
const DATABASES: [&str; 2] = ["/etc/passwd", "/etc/group"];
/// How deep files may include others (sshd's own limit).
const MAX_DEPTH: usize = 16;
/// How many files are watched at most.
const MAX_FILES: usize = 1024;

/// What makes a file another one.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// The files, as they were at one moment.
#[derive(Debug)]
pub struct Source {
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    /// Whether settings may differ between accounts.
    pub has_match: bool,
    /// What any `AuthorizedKeysFile` names, also in a `Match` block.
    pub key_files: Vec<Pattern>,
    /// Whether files may be included from folders that are not watched.
    pub is_open_ended: bool,
}

impl Source {
    /// Looks at the configuration of this host, and at the program itself.
    pub fn look(program: Option<&Path>) -> Self {
        let mut source = Self::look_at(Path::new(CONFIG), Path::new(ADDITIONS));
        let databases = DATABASES.iter().map(Path::new).filter(|_| source.has_match);
        for path in program.into_iter().chain(databases).collect::<Vec<_>>() {
            source.watch(path);
        }
        source
    }

    fn look_at(config: &Path, additions: &Path) -> Self {
        let mut source = Self {
            stamps: Vec::new(),
            has_match: false,
            key_files: Vec::new(),
            is_open_ended: false,
        };
        source.watch(additions);
        source.read(config, 0);
        source
    }

    /// Whether nothing has changed since.
    pub fn is_current(&self) -> bool {
        !self.is_open_ended && self.stamps.iter().all(|(path, stamp)| stamp_of(path) == *stamp)
    }

    /// True when the path was not watched before.
    fn watch(&mut self, path: &Path) -> bool {
        if self.stamps.iter().any(|(known, _)| known == path) {
            return false;
        }
        if self.stamps.len() >= MAX_FILES {
            self.is_open_ended = true;
            return false;
        }
        self.stamps.push((path.to_owned(), stamp_of(path)));
        true
    }

    fn read(&mut self, file: &Path, depth: usize) {
        if depth > MAX_DEPTH || !self.watch(file) {
            return;
        }
        let text = fs::read(file).unwrap_or_default();
        for line in String::from_utf8_lossy(&text).lines() {
            let mut words = line.split(['=', ' ', '\t', '"']).filter(|word| !word.is_empty());
            match words.next().map(str::to_ascii_lowercase).as_deref() {
                Some("match") => self.has_match = true,
                Some("authorizedkeysfile") => {
                    let files = words.take_while(|word| !word.starts_with('#'));
                    self.key_files.extend(files.filter(|word| *word != "none").map(Pattern::new));
                }
                Some("include") => words.for_each(|word| self.include(word, depth)),
                _ => {}
            }
        }
    }

    /// Reads every file of the folder that is named, or the one file: too many do no harm.
    fn include(&mut self, pattern: &str, depth: usize) {
        let path = Path::new(BASE).join(pattern);
        let Some(folder) = path.parent().filter(|_| is_wild(&path)) else {
            return self.read(&path, depth + 1);
        };
        if is_wild(folder) {
            self.is_open_ended = true;
            self.has_match = true;
            return;
        }
        self.watch(folder);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
                self.read(&entry.path(), depth + 1);
            }
        }
    }
}

fn is_wild(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '[', '\\'])
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let it = fs::metadata(path).ok()?;
    let times = ((it.mtime(), it.mtime_nsec()), (it.ctime(), it.ctime_nsec()));
    Some((it.dev(), it.ino(), it.size(), times.0, times.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new(config: &str) -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs::create_dir(place.path("sshd_config.d")).unwrap();
            place.write("sshd_config", &config.replace("HERE", place.0.path().to_str().unwrap()));
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }

        fn look(&self) -> Source {
            Source::look_at(&self.path("sshd_config"), &self.path("sshd_config.d"))
        }
    }

    #[test]
    fn every_change_of_a_file_or_folder_is_seen() {
        let place = Place::new("Include HERE/sshd_config.d/*.conf\nPort 22\n");
        let mut source = place.look();
        assert!(source.is_current() && !source.has_match);
        let steps: [&dyn Fn(); 5] = [
            &|| place.write("sshd_config.d/10.conf", "# match nothing"),
            &|| place.write("sshd_config.d/10.conf", "  mAtch user alice"),
            &|| place.write("sshd_config.d/10.conf.new", ""),
            &|| {
                fs::rename(
                    place.path("sshd_config.d/10.conf.new"),
                    place.path("sshd_config.d/10.conf"),
                )
                .unwrap()
            },
            &|| fs::remove_file(place.path("sshd_config.d/10.conf")).unwrap(),
        ];
        for (step, has_match) in steps.iter().zip([false, true, true, false, false]) {
            step();
            assert!(!source.is_current());
            source = place.look();
            assert!(source.is_current());
            assert_eq!(source.has_match, has_match);
        }
    }

    #[test]
    fn included_files_are_followed_and_circles_end() {
        let place = Place::new("include \"HERE/one\"\nInclude=HERE/sshd_config\n");
        place.write("one", &format!("Include {}\n", place.path("two").display()));
        place.write("two", "Match=Group x\n");
        assert!(place.look().has_match);
        let source = place.look();
        place.write("two", "Port 2222\n");
        assert!(!source.is_current());
        assert!(!place.look().has_match);
    }

    #[test]
    fn every_key_file_of_any_block_is_named() {
        let place = Place::new(
            "Match User a\n  authorizedKeysFile=\"/k/%u\" .ssh/k # all\nInclude HERE/one\n",
        );
        place.write(
            "one",
            "AuthorizedKeysFile none\n#AuthorizedKeysFile /off/%u\nAuthorizedKeysFile /g/%U\n",
        );
        let files: Vec<String> = place.look().key_files.iter().map(ToString::to_string).collect();
        assert_eq!(files, ["/k/%u", ".ssh/k", "/g/%U"]);
    }

    #[test]
    fn folders_that_cannot_be_watched_are_asked_again_every_time() {
        let place = Place::new("Include HERE/*/x.conf\n");
        let source = place.look();
        assert!(source.has_match && !source.is_current());
        let missing = Source::look_at(Path::new("/nonexistent/c"), Path::new("/nonexistent/d"));
        assert!(missing.is_current() && !missing.has_match);
    }
}
