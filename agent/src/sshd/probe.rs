//! Tries whether sshd lets in by a key that lies where keys are to lie: a real login of one of our
//! accounts with a key that is made for it, can run nothing but true(1), and ends by itself.
//!
//! The processor has no network under systemd, so there the system's ssh runs as a unit of its own.
//! Without ssh, what sshd says of itself must do. This file must not know why it is tried.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bastio_protocol::{KeyGrant, KeyOptions, KeyPolicy, PublicKey, Username};

use super::daemon::Daemon;
use super::{Shape, settings};
use crate::accounts::{Account, SystemAccounts};
use crate::ask::{self, Answer, ask};
use crate::keys_on_disk;
use crate::reconcile::host::AccountHost as _;

/// What the key may do.
const OPTIONS: &str = "restrict,command=\"/bin/true\"";
/// When it ends, should it outlive the probe.
const LIFE: Duration = Duration::from_secs(120);
/// How many accounts are tried at most: one that gets in proves it.
const MAX_ACCOUNTS: usize = 3;
/// How long one login may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Pauses between tries: sshd takes a moment to read its configuration.
const PAUSES: [u64; 4] = [200, 400, 800, 1600];
/// The exit code with which ssh itself failed.
const FAILED: i32 = 255;

/// How it was proved.
#[derive(Debug)]
pub(super) enum Proof {
    /// This account got in.
    Login(String),
    /// Only by what sshd says, for this reason.
    Settings(&'static str),
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login(name) => write!(f, "a probe login of {name}"),
            Self::Settings(why) => write!(f, "sshd's own word, without a login ({why})"),
        }
    }
}

/// Logs in by a key in the first file of the shape. `must` gets in, if it is one of the accounts and may; of the
/// others one that does is enough.
///
/// # Errors
/// Why nobody got in, for people.
pub(super) fn log_in(
    daemon: &Daemon,
    accounts: &[Account],
    must: Option<&Username>,
    shape: &Shape,
    state: &Path,
) -> Result<Proof, String> {
    let mut usable: Vec<&Account> = accounts.iter().filter(|it| may_log_in(it, shape)).collect();
    usable.sort_by_key(|account| Some(&account.name) != must);
    if usable.is_empty() {
        return by_settings(daemon, shape, "there is no account of ours to log in with");
    }
    let tools = ask::find("ssh").zip(ask::find("ssh-keygen"));
    let (Some((ssh, keygen)), Some(address)) = (tools, daemon.address()) else {
        return by_settings(daemon, shape, "there is no ssh on this host");
    };
    let folder =
        Folder::make(state).map_err(|error| format!("cannot make a probe key: {error}"))?;
    let key = folder.make_key(&keygen, &daemon.host_keys())?;
    let mut why = String::new();
    for account in usable.into_iter().take(MAX_ACCOUNTS) {
        let words = folder.words(address, account.name.as_str());
        let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        let outcome = with_key(account, shape, &key, || try_in(&ssh, &arguments));
        match outcome.unwrap_or_else(Outcome::Refused) {
            Outcome::In => return Ok(Proof::Login(account.name.to_string())),
            Outcome::NotRun => return by_settings(daemon, shape, "ssh cannot be run from here"),
            Outcome::Refused(said) => {
                why = format!("a probe login of {} failed: {said}", account.name);
                if Some(&account.name) == must {
                    break;
                }
            }
        }
    }
    Err(why)
}

enum Outcome {
    In,
    Refused(String),
    NotRun,
}

/// Tries again while sshd may still be reading.
fn try_in(ssh: &Path, arguments: &[&str]) -> Outcome {
    let mut outcome = once(ssh, arguments);
    for pause in PAUSES {
        if !matches!(outcome, Outcome::Refused(_)) {
            break;
        }
        sleep(Duration::from_millis(pause));
        outcome = once(ssh, arguments);
    }
    outcome
}

fn once(ssh: &Path, arguments: &[&str]) -> Outcome {
    let answer = match ask::find("systemd-run")
        .filter(|_| Path::new("/run/systemd/system").exists())
    {
        Some(systemd_run) => {
            let unit = ["--quiet", "--pipe", "--wait", "--collect", "--property=RuntimeMaxSec=10"];
            let ssh = ssh.to_string_lossy();
            let arguments = [&unit, &["--", &ssh][..], arguments].concat();
            ask(&systemd_run, &arguments, LIMIT)
        }
        None => ask(ssh, arguments, LIMIT),
    };
    match answer {
        Ok(Answer { code: FAILED, stderr, .. }) => {
            Outcome::Refused(Answer { code: FAILED, stderr, ..Answer::default() }.complaint())
        }
        Ok(answer) if !answer.is_good() && answer.stderr.starts_with("Failed to ") => {
            Outcome::NotRun
        }
        // Also where the shell then runs nothing, as nologin(8).
        Ok(_) => Outcome::In,
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// Has the key let in for as long as `work` takes.
fn with_key<T>(
    account: &Account,
    shape: &Shape,
    key: &PublicKey,
    work: impl FnOnce() -> T,
) -> Result<T, String> {
    let told = |error: keys_on_disk::KeysOnDiskError| error.to_string();
    let whole = Shape::of_account(&account.name);
    let ours = keys_on_disk::ours(account, &whole).map_err(told)?;
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + LIFE;
    let options = KeyOptions::parse(OPTIONS).map_err(|error| error.to_string())?;
    let until = i64::try_from(end.as_secs()).ok();
    let probe = KeyGrant { public_key: key.clone(), options, until };
    let with_probe: Vec<KeyGrant> = ours.iter().cloned().chain([probe]).collect();
    keys_on_disk::set_keys(account, shape, &with_probe).map_err(told)?;
    let done = work();
    keys_on_disk::set_keys(account, shape, &ours).map_err(told)?;
    Ok(done)
}

/// Whether nothing but the keys decides over a login, as far as can be told.
fn may_log_in(account: &Account, shape: &Shape) -> bool {
    if Shape::of_account(&account.name).files.first() != shape.files.first() {
        return false;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let facts = SystemAccounts::default().facts(&account.name);
    facts.is_ok_and(|facts| {
        facts.is_some_and(|it| !it.locked && it.expires.is_none_or(|end| end > now))
    })
}

/// Whether sshd says that it reads the file, and is there.
fn by_settings(daemon: &Daemon, shape: &Shape, why: &'static str) -> Result<Proof, String> {
    let program = ask::find("sshd").ok_or("there is no sshd on this host")?;
    let told = settings(&program, None)?;
    let wanted = shape.files.first();
    if !told.key_files().iter().any(|file| Some(file) == wanted) {
        return Err("sshd does not say that it reads the file".to_owned());
    }
    // Time to read it, or to fail over it.
    sleep(Duration::from_millis(PAUSES[0]));
    if daemon.was_running && daemon.pid().is_none() {
        return Err("sshd ended when it was to read its configuration".to_owned());
    }
    Ok(Proof::Settings(why))
}

/// A folder of root's alone for the key, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn make(state: &Path) -> std::io::Result<Self> {
        let path = state.join("probe");
        // One that a crash left over.
        let _ = fs::remove_dir_all(&path);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }

    fn make_key(&self, keygen: &Path, host_keys: &[String]) -> Result<PublicKey, String> {
        let told = |error: std::io::Error| format!("cannot make a probe key: {error}");
        let file = self.file("key");
        let arguments = ["-q", "-t", "ed25519", "-N", "", "-C", "bastio-probe", "-f", &file];
        let answer = ask(keygen, &arguments, LIMIT).map_err(told)?;
        if !answer.is_good() {
            return Err(format!("ssh-keygen: {}", answer.complaint()));
        }
        let known: Vec<String> = host_keys.iter().map(|key| format!("probe {key}\n")).collect();
        fs::write(self.0.join("known_hosts"), known.concat()).map_err(told)?;
        let text = fs::read_to_string(self.0.join("key.pub")).map_err(told)?;
        PublicKey::parse(text.trim(), &KeyPolicy::ANY).map_err(|error| error.to_string())
    }

    fn words(&self, address: std::net::SocketAddr, name: &str) -> Vec<String> {
        let mut words: Vec<String> =
            ["-F", "none", "-T", "-i"].iter().map(|it| (*it).to_owned()).collect();
        words.push(self.file("key"));
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "PreferredAuthentications=publickey",
            "GlobalKnownHostsFile=none",
            "StrictHostKeyChecking=yes",
            "HostKeyAlias=probe",
            "ConnectTimeout=5",
            "LogLevel=ERROR",
            &format!("UserKnownHostsFile={}", self.file("known_hosts")),
        ] {
            words.extend(["-o".to_owned(), option.to_owned()]);
        }
        words.extend(["-p".to_owned(), address.port().to_string()]);
        words.extend(["-l".to_owned(), name.to_owned(), address.ip().to_string()]);
        words.push("true".to_owned());
        words
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Root's alone, and its key ends by itself; the next probe clears it away.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_answers_is_told_apart() {
        let sh = Path::new("/bin/sh");
        let tried = |script: &str| match ask(sh, &["-c", script], LIMIT) {
            Ok(_) => once(sh, &["-c", script]),
            Err(error) => Outcome::Refused(error.to_string()),
        };
        if Path::new("/run/systemd/system").exists() {
            // There systemd-run stands between, which these lines do not try.
            return;
        }
        assert!(matches!(tried("exit 0"), Outcome::In));
        assert!(matches!(tried("echo not available; exit 1"), Outcome::In));
        assert!(matches!(tried("echo 'Failed to connect' >&2; exit 1"), Outcome::NotRun));
        let Outcome::Refused(why) = tried("echo a: Permission denied >&2; exit 255") else {
            panic!("a refused login got in");
        };
        assert_eq!(why, "a: Permission denied");
    }

    #[test]
    fn the_key_may_do_nothing() {
        assert_eq!(KeyOptions::parse(OPTIONS).unwrap().as_str(), OPTIONS);
    }
}
