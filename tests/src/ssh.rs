//! The stock OpenSSH client, used from inside a world with keys and known hosts of its own.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::{Finished, LabError, PlacedCommand, World};

/// A key pair of a person, kept in a world.
#[derive(Debug, Clone)]
pub struct SshKey {
    private: PathBuf,
    public: String,
}

impl SshKey {
    /// Makes a pair with ssh-keygen: `kind` and its options as `-t` takes them, e.g. `&["ed25519"]` or
    /// `&["rsa", "-b", "2048"]`.
    ///
    /// # Errors
    /// [`LabError`] when that fails.
    pub fn generate(world: &World, name: &str, kind: &[&str]) -> Result<Self, LabError> {
        let private = world.folder().join(format!("{name}.key"));
        let keygen =
            world.command("ssh-keygen").args(["-q", "-N", "", "-C", name, "-t"]).args(kind);
        keygen.arg("-f").arg(&private).check()?;
        let bytes = world.read_file(world.folder().join(format!("{name}.key.pub")))?;
        Ok(Self { private, public: String::from_utf8_lossy(&bytes).trim().to_owned() })
    }

    /// The public key as one line of an authorized_keys file.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Path of the file with the public key, in the world.
    #[must_use]
    pub fn public_file(&self) -> PathBuf {
        self.private.with_extension("key.pub")
    }

    /// Path of the file with the private key, in the world.
    #[must_use]
    pub fn private_file(&self) -> &Path {
        &self.private
    }
}

/// Logs in with one key; asks nothing, uses no configuration and no agent.
#[derive(Debug)]
pub struct SshClient<'world> {
    world: &'world World,
    key: SshKey,
}

impl<'world> SshClient<'world> {
    /// A client in `world` with this key.
    #[must_use]
    pub fn new(world: &'world World, key: &SshKey) -> Self {
        Self { world, key: key.clone() }
    }

    /// The ssh command that would run `remote` (one string for the remote shell, as ssh has it) as `user` on `host`.
    #[must_use]
    pub fn command(&self, user: &str, host: IpAddr, remote: &str) -> PlacedCommand<'world> {
        let known =
            format!("UserKnownHostsFile={}", self.world.folder().join("known_hosts").display());
        self.world
            .command("ssh")
            .args([
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "ConnectTimeout=10",
            ])
            .args([
                "-o",
                "StrictHostKeyChecking=accept-new",
                "-o",
                "GlobalKnownHostsFile=none",
                "-o",
                &known,
            ])
            .args(["-o", "LogLevel=ERROR", "-i"])
            .arg(self.key.private_file())
            .args(["-l", user, &host.to_string(), remote])
    }

    /// Runs `remote` as `user` on `host`. Exit code 255: ssh itself failed, e.g. the login was refused.
    ///
    /// # Errors
    /// [`LabError`] when ssh can't be run.
    pub fn run(&self, user: &str, host: IpAddr, remote: &str) -> Result<Finished, LabError> {
        self.command(user, host, remote).run()
    }

    /// Whether `user` can log in to `host` with this key; any failure but a refused login is an error.
    ///
    /// # Errors
    /// [`LabError::Failed`] when sshd can't be reached or the session fails.
    pub fn can_log_in(&self, user: &str, host: IpAddr) -> Result<bool, LabError> {
        let finished = self.run(user, host, "true")?;
        if finished.success() {
            return Ok(true);
        }
        if finished.code() == Some(255) && finished.stderr.contains("Permission denied") {
            return Ok(false);
        }
        Err(LabError::Failed {
            command: finished.command,
            status: finished.status.to_string(),
            output: finished.stderr,
        })
    }
}
