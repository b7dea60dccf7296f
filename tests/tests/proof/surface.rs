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

    /// All but what has a name that begins so.
    pub fn without(&self, begin: &str) -> Self {
        let is_other =
            |path: &Path| !path.as_os_str().as_encoded_bytes().starts_with(begin.as_bytes());
        let rest = self.0.iter().filter(|(path, _)| is_other(path));
        Self(rest.map(|(path, thing)| (path.clone(), thing.clone())).collect())
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
                format!("{}:\n  {before}\n  {after}\n", path.display())
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
            without_revision(&path, fs::read(&path).unwrap_or_default())
        } else if at.is_symlink() {
            fs::read_link(&path).unwrap_or_default().into_os_string().into_encoded_bytes()
        } else {
            Vec::new()
        };
        if at.is_dir() {
            look(&path, is_deep, found);
        }
        let thing = Thing { mode: at.mode(), owner: (at.uid(), at.gid()), content };
        let before = found.insert(without_time(&path), thing);
        assert_eq!(before, None, "{} is there twice", path.display());
    }
}

/// How often the ledger was changed on the way to what it says depends on the faults on the way.
fn without_revision(path: &Path, content: Vec<u8>) -> Vec<u8> {
    let is_ledger = path.file_name().is_some_and(|name| name == "ledger.json");
    let book = serde_json::from_slice::<serde_json::Value>(&content).ok().filter(|_| is_ledger);
    let Some(serde_json::Value::Object(mut book)) = book else { return content };
    book.remove("revision");
    serde_json::to_vec(&book).unwrap()
}

/// Homes that were put away and files that were set aside have the time in their names, which is never the same.
fn without_time(path: &Path) -> PathBuf {
    let mut is_stamped = false;
    let plain = path.iter().map(|part| {
        let text = part.to_string_lossy();
        let stamped = std::mem::replace(&mut is_stamped, text == ".bastio-quarantine");
        match text.rsplit_once('-') {
            Some((name, time))
                if (stamped || name.ends_with(".damaged")) && time.parse::<u128>().is_ok() =>
            {
                format!("{name}-TIME").into()
            }
            _ => part.to_owned(),
        }
    });
    plain.collect()
}

#[test]
fn times_in_names_are_left_out() {
    for (path, plain) in [
        ("/home/.bastio-quarantine/a-1000-17/b-1", "/home/.bastio-quarantine/a-1000-TIME/b-1"),
        ("/var/ledger.json.damaged-17", "/var/ledger.json.damaged-TIME"),
        ("/home/b-1", "/home/b-1"),
    ] {
        assert_eq!(without_time(Path::new(path)), Path::new(plain));
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
