//! The backend's configuration: flags, then environment, then file, then defaults, parsed once
//! into strong types.
//!
//! Unknown keys are refused wherever they stand. This file must not know what is built from a
//! configuration: no sockets, no folders, no keys.

mod limits;
mod store;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use config::{File, FileFormat};
use serde::Deserialize;
use thiserror::Error;

use crate::plan;
use crate::store::uids::UidRange;
pub use limits::Limits;
pub use store::Database;
pub use values::{
    Count, Days, Limit, NeededFor, Percent, PublicUrl, RivalPolicy, RootGroups, Seconds,
    SystemNames,
};

/// Where the configuration is looked for when nobody names a file. It may be absent there.
pub const DEFAULT_FILE: &str = "/etc/bastio/backend.toml";

/// Every variable begins with this; `ssh.listen` is `BASTIO_BACKEND_SSH_LISTEN`.
const ENV_PREFIX: &str = "BASTIO_BACKEND_";

/// Variables with the prefix that are flags of the command and no keys of the file.
const ENV_OF_FLAGS: [&str; 2] = ["BASTIO_BACKEND_CONFIG", "BASTIO_BACKEND_LOG"];

/// Every key there is; the environment is read by this list.
const KEYS: [&str; 31] = [
    "state",
    "ssh.listen",
    "http.listen",
    "http.public_url",
    "legacy.listen",
    "legacy.sha1",
    "limits.max_startups",
    "limits.max_waiting",
    "limits.max_startups_per_source",
    "limits.max_failures_per_source",
    "limits.login_grace",
    "limits.answer_within",
    "limits.take_within",
    "limits.keepalive",
    "limits.max_sessions_per_key",
    "limits.max_logins_per_key",
    "limits.rivals",
    "orders.valid_for",
    "signing.passphrase_file",
    "approvals.needed_for",
    "approvals.expire_days",
    "approvals.root_groups",
    "store.url",
    "store.url_file",
    "store.cluster_key_file",
    "rails.percent",
    "rails.at_least",
    "history.revisions",
    "uids.from",
    "uids.to",
    "accounts.system_names",
];

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `state`: folder of the database and the host keys. Default `/var/lib/bastio`.
    pub state: PathBuf,
    /// `[ssh]`: the port of the agents.
    pub ssh: Ssh,
    /// `[http]`: the API.
    pub http: Http,
    /// `[legacy]`: the port of version-1 agents.
    pub legacy: Legacy,
    /// `[limits]`.
    pub limits: Limits,
    /// `[orders]`.
    pub orders: Orders,
    /// `[signing]`: the key that signs orders.
    pub signing: Signing,
    /// `[approvals]`: what needs a second operator.
    pub approvals: Approvals,
    /// `[rails]`: how large an edit may be before it needs a confirmation.
    pub rails: Rails,
    /// `[uids]`: numeric ids for login names, the same on every server.
    pub uids: Uids,
    /// `[accounts]`.
    pub accounts: Accounts,
    /// `[store]`: the database.
    pub store: Database,
    /// `[history]`: how far back the model is known.
    pub history: History,
}

/// `[ssh]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ssh {
    /// `ssh.listen`: default `0.0.0.0:2357`; port 0 takes any free one.
    pub listen: SocketAddr,
}

/// `[http]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// `http.listen`: default `0.0.0.0:2358`, since agents enrol over it. It speaks plain HTTP; a
    /// TLS proxy belongs in front of it wherever the network is not trusted.
    pub listen: SocketAddr,
    /// `http.public_url`: under which URL agents and people reach `http.listen`, e.g.
    /// `https://bastio.example.org`. Default: `http://` and the address.
    pub public_url: Option<PublicUrl>,
}

/// `[legacy]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Legacy {
    /// `legacy.listen`: off unless set.
    pub listen: Option<SocketAddr>,
    /// `legacy.sha1`: also offer SHA-1, for untouched installations of 2013. Default `false`.
    pub sha1: bool,
}

/// `[orders]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Orders {
    /// `orders.valid_for`: seconds in which an agent may obey an order after it was signed; what
    /// is sent again is signed anew. Default 600.
    pub valid_for: Seconds,
}

/// `[signing]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Signing {
    /// `signing.passphrase_file`: a file, mode 600, with what opens a sealed signing key at the
    /// start. Default none: the systemd credential `signing_passphrase`, or else an operator.
    pub passphrase_file: Option<PathBuf>,
}

/// `[approvals]`. Only here: nobody switches it off over the API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Approvals {
    /// `approvals.needed_for`: `root` for what makes root. Default `none`.
    pub needed_for: NeededFor,
    /// `approvals.expire_days`: after so many days a proposal is over. Default 7.
    pub expire_days: Days,
    /// `approvals.root_groups`: groups of the site's own whose members can become root, beside those
    /// that are known to. Default none.
    pub root_groups: RootGroups,
}

impl Approvals {
    /// How long a proposal waits, in seconds; `None` when nothing does.
    #[must_use]
    pub fn valid_for(&self) -> Option<i64> {
        match self.needed_for {
            NeededFor::None => None,
            NeededFor::Root => Some(self.expire_days.seconds()),
        }
    }
}

/// `[accounts]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Accounts {
    /// `accounts.system_names`: accounts of the system that may be logins all the same, to be taken
    /// over. Default none.
    pub system_names: SystemNames,
}

/// `[rails]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rails {
    /// `rails.percent`: share of the servers that one edit may concern. Default 50; 100 is no limit.
    pub percent: Percent,
    /// `rails.at_least`: fewer servers than this are never many. Default 20.
    pub at_least: Limit,
}

/// `[history]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// `history.revisions`: so many edits can be undone. Default 1000.
    pub revisions: Count,
}

impl Default for History {
    fn default() -> Self {
        Self { revisions: Count::DEFAULT_REVISIONS }
    }
}

/// `[uids]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Uids {
    /// `uids.from`: the first id that is given out. Unless set, each server chooses by itself.
    pub from: Option<u32>,
    /// `uids.to`: the last one. Default 59999.
    pub to: Option<u32>,
}

impl Uids {
    /// The last id when none is said: below those of systemd, and of nobody.
    const LAST: u32 = 59_999;
    /// Ids of people, as login.defs(5) has them, up to what 32 bits with a sign hold.
    const POSSIBLE: std::ops::RangeInclusive<u32> = 1000..=2_147_483_647;

    /// The range, if ids are given out.
    #[must_use]
    pub fn get(self) -> Option<UidRange> {
        self.from.map(|from| UidRange { from, to: self.to.unwrap_or(Self::LAST) })
    }

    fn is_sound(self) -> bool {
        match self.get() {
            None => self.to.is_none(),
            Some(UidRange { from, to }) => {
                from <= to && Self::POSSIBLE.contains(&from) && Self::POSSIBLE.contains(&to)
            }
        }
    }
}

impl Rails {
    /// As the plan takes them.
    #[must_use]
    pub fn get(self) -> plan::Rails {
        let at_least = u32::try_from(self.at_least.get()).unwrap_or(u32::MAX);
        plan::Rails { percent: self.percent.get(), at_least }
    }
}

impl Default for Rails {
    fn default() -> Self {
        Self { percent: Percent::DEFAULT_RAIL, at_least: Limit::DEFAULT_RAIL }
    }
}

impl Default for Orders {
    fn default() -> Self {
        Self { valid_for: Seconds::DEFAULT_VALID_FOR }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: PathBuf::from("/var/lib/bastio"),
            ssh: Ssh::default(),
            http: Http::default(),
            legacy: Legacy::default(),
            limits: Limits::default(),
            orders: Orders::default(),
            signing: Signing::default(),
            approvals: Approvals::default(),
            rails: Rails::default(),
            uids: Uids::default(),
            accounts: Accounts::default(),
            store: Database::default(),
            history: History::default(),
        }
    }
}

impl Default for Ssh {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 2357)) }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 2358)), public_url: None }
    }
}

/// What the command line says; wins over everything else.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// `--state`.
    pub state: Option<PathBuf>,
    /// `--ssh-listen`.
    pub ssh_listen: Option<SocketAddr>,
    /// `--http-listen`.
    pub http_listen: Option<SocketAddr>,
}

/// Why there is no usable configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file, a key or a value is wrong; the text names it.
    #[error("{0}")]
    Invalid(#[from] config::ConfigError),
    /// The named file cannot be read.
    #[error("{path}: {source}\nhint: name the configuration with --config FILE", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A variable with our prefix that is none of ours.
    #[error("unknown variable {name}\nhint: known are {}", known_variables())]
    UnknownVariable {
        /// Its name.
        name: String,
    },
    /// A path that must be absolute is not.
    #[error("state: {} is not an absolute path", .0.display())]
    RelativeState(PathBuf),
    /// Two ports are to listen on one address.
    #[error("{0} and {1} are the same address {2}\nhint: give each its own port")]
    SameAddress(&'static str, &'static str, SocketAddr),
    /// A range of ids that is none.
    #[error("uids: from and to are ids from 1000 on, from not above to\nhint: uids.from = 20000")]
    Uids,
    /// A file that should hold a secret does not.
    #[error("{key}: {path}: {reason}", path = path.display())]
    Secret {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Both `store.url` and `store.url_file`.
    #[error("store.url and store.url_file both say where the database is\nhint: keep one of them")]
    TwoUrls,
    /// PostgreSQL without a cluster key.
    #[error(
        "a store on PostgreSQL needs store.cluster_key_file: it seals the keys that all nodes \
         share\nhint: openssl rand -base64 32 > FILE, mode 600, the same file on each node"
    )]
    NoClusterKey,
    /// `legacy.sha1` without `legacy.listen`.
    #[error(
        "legacy.sha1 does nothing without legacy.listen\nhint: set it, e.g. to \"0.0.0.0:2359\""
    )]
    Sha1WithoutPort,
}

impl Config {
    /// Reads the configuration of this process.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, variable or file and what to do.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(ENV_PREFIX));
        Self::assemble(flags, environment, Path::new(DEFAULT_FILE))
    }

    fn assemble(
        flags: &Flags,
        environment: impl Iterator<Item = (String, String)>,
        default_file: &Path,
    ) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder();
        if let Some(text) = read_file(flags.file.as_deref(), default_file)? {
            builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
        }
        for (name, value) in environment {
            if let Some(key) = KEYS.iter().find(|key| variable(key) == name) {
                builder = builder.set_override(*key, value)?;
            } else if !ENV_OF_FLAGS.contains(&name.as_str()) {
                return Err(ConfigError::UnknownVariable { name });
            }
        }
        let mut config: Self = builder.build()?.try_deserialize()?;
        config.obey(flags);
        config.check()?;
        Ok(config)
    }

    fn obey(&mut self, flags: &Flags) {
        let Flags { file: _, state, ssh_listen, http_listen } = flags;
        if let Some(state) = state {
            self.state.clone_from(state);
        }
        if let Some(listen) = ssh_listen {
            self.ssh.listen = *listen;
        }
        if let Some(listen) = http_listen {
            self.http.listen = *listen;
        }
    }

    /// Looks across keys.
    fn check(&self) -> Result<(), ConfigError> {
        if !self.state.is_absolute() {
            return Err(ConfigError::RelativeState(self.state.clone()));
        }
        self.store.check()?;
        if self.legacy.sha1 && self.legacy.listen.is_none() {
            return Err(ConfigError::Sha1WithoutPort);
        }
        if !self.uids.is_sound() {
            return Err(ConfigError::Uids);
        }
        let ssh = ("ssh.listen", self.ssh.listen);
        let http = ("http.listen", self.http.listen);
        let mut pairs = vec![(ssh, http)];
        if let Some(listen) = self.legacy.listen {
            let legacy = ("legacy.listen", listen);
            pairs.extend([(ssh, legacy), (http, legacy)]);
        }
        for ((name, address), (other_name, other)) in pairs {
            if address == other && address.port() != 0 {
                return Err(ConfigError::SameAddress(name, other_name, address));
            }
        }
        Ok(())
    }
}

/// The text of the configuration file; `None` when nobody named one and the default is absent.
fn read_file(named: Option<&Path>, default: &Path) -> Result<Option<String>, ConfigError> {
    let path = named.unwrap_or(default);
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
    }
}

fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn known_variables() -> String {
    KEYS.iter().map(|key| variable(key)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
