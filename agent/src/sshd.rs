//! What this host's sshd does with key files: where it reads them, what it understands in them,
//! and what else lets people in.
//!
//! Asked of sshd itself (`sshd -T`), once, and again when its configuration changes. This room must
//! not know what stands in a key file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bastio_protocol::Username;

mod clock;
mod daemon;
mod effective;
mod managed;
mod pattern;
mod probe;
mod source;
mod version;
mod ways;

pub use clock::Clock;
pub use managed::{KeyMode, ModeError, Switch};
pub use pattern::{Location, Pattern, PatternError};
pub use version::Version;

use crate::ask::{self, ask};
use effective::Effective;
use source::Source;

/// How long sshd may take to print its settings.
const LIMIT: Duration = Duration::from_secs(5);
/// How many accounts' own settings are kept.
const MAX_ACCOUNTS: usize = 4096;
/// What sshd reads unless its configuration says otherwise (sshd_config(5)).
const DEFAULT_FILES: [&str; 2] = [".ssh/authorized_keys", ".ssh/authorized_keys2"];
/// How sshd complains about the folder that its service makes for it.
const NO_FOLDER: &str = "Missing privilege separation directory: ";

/// What an sshd does with the keys of an account.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The files it reads, in its order; none for `AuthorizedKeysFile none`.
    pub files: Vec<Pattern>,
    /// Its version, if it tells one.
    pub version: Option<Version>,
    /// How it reads times.
    pub clock: Clock,
    /// What people should know about it.
    pub warnings: Vec<String>,
}

impl Default for Shape {
    /// An sshd without configuration, of a recent version.
    fn default() -> Self {
        Self::new(DEFAULT_FILES.map(Pattern::new).to_vec(), None)
    }
}

impl Shape {
    /// An sshd that reads these files.
    #[must_use]
    pub fn new(files: Vec<Pattern>, version: Option<Version>) -> Self {
        Self { files, version, clock: Clock::of(version), warnings: Vec::new() }
    }

    /// What this host's sshd does for accounts that its configuration does not single out. When sshd
    /// cannot be asked it is what it last said, or the default, with a warning.
    #[must_use]
    pub fn of_host() -> Arc<Self> {
        with_cache(|cache| cache.host.clone())
    }

    /// The same for one account: `Match` blocks count.
    #[must_use]
    pub fn of_account(name: &Username) -> Arc<Self> {
        with_cache(|cache| cache.of_account(name))
    }

    /// The same for an account that is not made yet: every file that some `Match` block names besides, since nobody
    /// knows which of them will count once it is there. Nothing of it is kept.
    #[must_use]
    pub fn of_coming(name: &Username) -> Self {
        with_cache(|cache| {
            let mut shape = if cache.source.is_open_ended {
                let shape = cache.of_account(name);
                cache.accounts.remove(name);
                (*shape).clone()
            } else {
                (*cache.host).clone()
            };
            shape.add_files(&cache.source.key_files);
            shape
        })
    }

    /// The same without the files that other accounts share.
    #[must_use]
    pub fn of_its_own(&self, name: &Username) -> Self {
        let mut shape = self.clone();
        shape.files.retain(|pattern| pattern.is_of(name.as_str()));
        shape
    }

    fn add_files(&mut self, files: &[Pattern]) {
        for file in files {
            if !self.files.contains(file) {
                self.files.push(file.clone());
            }
        }
    }

    fn from_effective(effective: &Effective, version: Option<Version>) -> Self {
        let mut shape = Self::new(effective.key_files(), version);
        if let Some(command) = effective.get("authorizedkeyscommand") {
            shape.warnings.push(format!(
                "sshd lets in the keys that {command} names, too (AuthorizedKeysCommand); bastio does not change them"
            ));
        }
        if !effective.is_on("pubkeyauthentication") {
            let text = "sshd takes no keys at all (PubkeyAuthentication no): they are written and let nobody in";
            shape.warnings.push(text.to_owned());
        }
        shape
    }

    fn with_warning(&self, warning: String) -> Self {
        let mut shape = self.clone();
        shape.warnings.retain(|known| *known != warning);
        shape.warnings.push(warning);
        shape
    }
}

/// How people can log in here, in sshd's own words: setting to value, and `version`. Empty when
/// sshd cannot be asked.
#[must_use]
pub fn report() -> BTreeMap<String, String> {
    with_cache(|cache| {
        let mut report = cache.effective.report();
        if let Some(version) = cache.host.version {
            report.insert("version".to_owned(), version.to_string());
        }
        report
    })
}

/// What was found out, and from what.
struct Cache {
    source: Source,
    effective: Effective,
    host: Arc<Shape>,
    accounts: HashMap<Username, Arc<Shape>>,
}

fn with_cache<T>(look: impl FnOnce(&mut Cache) -> T) -> T {
    static CACHE: Mutex<Option<Cache>> = Mutex::new(None);
    let mut held = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = match held.take() {
        Some(cache) if cache.source.is_current() => cache,
        // A configuration that sshd cannot read is not yet that of the sshd which runs.
        old => Cache::fill(old.as_ref().map(|cache| &*cache.host)),
    };
    look(held.insert(cache))
}

impl Cache {
    /// Asks sshd. The files are looked at first, so that a change meanwhile is seen next time.
    fn fill(before: Option<&Shape>) -> Self {
        let program = ask::find("sshd");
        let source = Source::look(program.as_deref());
        let version = program.as_deref().and_then(version);
        let asked = match &program {
            Some(program) => settings(program, None),
            None => Err("there is no sshd on this host".to_owned()),
        };
        let (host, effective) = match asked {
            Ok(effective) => (Shape::from_effective(&effective, version), effective),
            Err(why) => {
                let default = Shape::new(DEFAULT_FILES.map(Pattern::new).to_vec(), version);
                let warning = format!(
                    "cannot ask sshd where it reads keys ({why}); the usual files are taken"
                );
                (before.unwrap_or(&default).with_warning(warning), Effective::default())
            }
        };
        for warning in &host.warnings {
            tracing::warn!("{warning}");
        }
        Self { source, effective, host: Arc::new(host), accounts: HashMap::new() }
    }

    fn of_account(&mut self, name: &Username) -> Arc<Shape> {
        if !self.source.has_match {
            return self.host.clone();
        }
        if let Some(shape) = self.accounts.get(name) {
            return shape.clone();
        }
        let asked = match ask::find("sshd") {
            Some(program) => settings(&program, Some(name.as_str())),
            None => return self.host.clone(),
        };
        let shape = Arc::new(match asked {
            Ok(effective) => Shape::from_effective(&effective, self.host.version),
            Err(why) => self.host.with_warning(format!(
                "cannot ask sshd where it reads the keys of {name} ({why}); the files of all others are taken"
            )),
        });
        if self.accounts.len() >= MAX_ACCOUNTS {
            self.accounts.clear();
        }
        self.accounts.insert(name.clone(), shape.clone());
        shape
    }
}

fn version(program: &Path) -> Option<Version> {
    let answer = ask(program, &["-V"], LIMIT).ok()?;
    Version::parse(&answer.stderr).or_else(|| Version::parse(&answer.stdout))
}

/// The settings of all accounts, or of one.
fn settings(program: &Path, account: Option<&str>) -> Result<Effective, String> {
    let told = ask_settings(program, "-T", account);
    let Err(why) = told else { return told };
    if let Some(folder) = why.strip_prefix(NO_FOLDER)
        && Path::new(folder).parent() == Some(Path::new("/run"))
        && std::fs::create_dir(folder).is_ok()
    {
        // Its service would have made it; nothing ever stands in it.
        return ask_settings(program, "-T", account);
    }
    // Since OpenSSH 9.3: needs no host keys.
    ask_settings(program, "-G", account).map_err(|_| why)
}

fn ask_settings(program: &Path, flag: &str, account: Option<&str>) -> Result<Effective, String> {
    let whom = account
        .map(|name| format!("user={name},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22"));
    let mut arguments = vec![flag];
    arguments.extend(whom.iter().flat_map(|whom| ["-C", whom]));
    let answer = ask(program, &arguments, LIMIT).map_err(|error| error.to_string())?;
    if !answer.is_good() {
        return Err(answer.complaint());
    }
    Effective::parse(&answer.stdout).ok_or_else(|| "its settings are not to be read".to_owned())
}

#[cfg(test)]
mod tests;
