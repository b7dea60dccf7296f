//! All of a server that the processor writes to, as it is and as it was. Knows nothing of actions.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bastio_tests::Host;

/// What is saved and brought back as a whole.
const SAVED: [&str; 9] = [
    "etc/passwd",
    "etc/shadow",
    "etc/group",
    "etc/gshadow",
    "etc/subuid",
    "etc/subgid",
    "etc/sudoers.d",
    "home",
    "var/lib/bastio-agent",
];
const ARCHIVE: &str = "/run/saved.tar";
/// The databases of accounts, which the system's own tools rewrite line by line.
pub const DATABASES: [&str; 6] =
    ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid"];

/// One thing in the file system: kind and mode, owner, group, and what it holds or leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    pub mode: u32,
    pub owner: (u32, u32),
    pub content: Vec<u8>,
}

/// What there is, by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surface(pub BTreeMap<PathBuf, Thing>);

impl Surface {
    pub fn of(host: &Host) -> Self {
        host.within(|| {
            let mut found = BTreeMap::new();
            for folder in ["/etc", "/etc/sudoers.d", "/etc/ssh", "/home", "/var/lib/bastio-agent"] {
                let is_deep = matches!(folder, "/home" | "/etc/ssh");
                look(Path::new(folder), is_deep, &mut found);
            }
            Self(found)
        })
        .unwrap()
    }

    pub fn get(&self, path: &str) -> &[u8] {
        self.0.get(Path::new(path)).map(|thing| thing.content.as_slice()).unwrap_or_default()
    }

    pub fn without(&self, path: &str) -> Self {
        let mut rest = self.clone();
        rest.0.remove(Path::new(path));
        rest
    }

    /// Everything that is otherwise in `other`, for people.
    pub fn difference(&self, other: &Self) -> String {
        let paths = self.0.keys().chain(other.0.keys().filter(|path| !self.0.contains_key(*path)));
        let changed = paths.filter(|path| self.0.get(*path) != other.0.get(*path));
        let tell = |thing: Option<&Thing>| {
            thing.map_or("nothing".to_owned(), |thing| {
                let text = String::from_utf8_lossy(&thing.content);
                format!("{:o} {:?} {text:?}", thing.mode, thing.owner)
            })
        };
        changed
            .map(|path| {
                let (before, after) = (tell(self.0.get(path)), tell(other.0.get(path)));
                format!("{}:\\n  {before}\\n  {after}\\n", path.display())
            })
            .collect()
    }
}

/// What changes on its own, or is no more than a tool's own copy or lock.
fn is_of_no_account(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with('-') || matches!(&*name, ".pwd.lock" | "journal" | "ld.so.cache")
}

fn look(path: &Path, is_deep: bool, found: &mut BTreeMap<PathBuf, Thing>) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(at) = fs::symlink_metadata(&path) else { continue };
        if is_of_no_account(&path) || (at.is_dir() && !is_deep) {
            continue;
        }
        let content = if at.is_file() {
            fs::read(&path).unwrap_or_default()
        } else if at.is_symlink() {
            fs::read_link(&path).unwrap_or_default().into_os_string().into_encoded_bytes()
        } else {
            Vec::new()
        };
        if at.is_dir() {
            look(&path, is_deep, found);
        }
        found.insert(path, Thing { mode: at.mode(), owner: (at.uid(), at.gid()), content });
    }
}

/// Keeps the server as it is for [`restore`].
pub fn save(host: &Host) {
    let there = SAVED.iter().filter(|path| host.exists(format!("/{path}")).unwrap());
    let words = ["tar", "-C", "/", "-cpf", ARCHIVE].into_iter().chain(there.copied());
    host.exec(&words.collect::<Vec<_>>()).unwrap();
}

/// Brings the server back to what it was when it was saved.
pub fn restore(host: &Host) {
    let script = format!(
        "rm -rf /home /var/lib/bastio-agent /etc/sudoers.d /etc/*.lock /etc/*+ /run/bastio-agent; \
         tar -C / -xpf {ARCHIVE}"
    );
    host.exec(&["sh", "-c", &script]).unwrap();
}
