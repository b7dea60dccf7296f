//! Runs `bastio` with nothing but what a test gives it: an empty environment and an empty
//! configuration folder.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A user's machine.
pub struct Machine {
    /// The configuration folder.
    pub home: TempDir,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// Exit code.
    pub code: Option<i32>,
    /// What stdout got.
    pub stdout: String,
    /// What stderr got.
    pub stderr: String,
}

impl Machine {
    /// One on which nobody has logged in.
    pub fn new() -> Self {
        Self { home: tempfile::tempdir().expect("a folder") }
    }

    /// Where the login is stored.
    pub fn login_file(&self) -> PathBuf {
        self.home.path().join("bastio/console.toml")
    }

    /// Writes a file and gives its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// The command, not started.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("XDG_CONFIG_HOME", self.home.path());
        command
    }

    /// Runs `bastio` with these variables, arguments and text on stdin.
    pub fn run(&self, variables: &[(&str, &str)], arguments: &[&str], stdin: &str) -> Run {
        let mut child = self
            .command(env!("CARGO_BIN_EXE_bastio"), arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut pipe = child.stdin.take().expect("a pipe");
        // A command that does not read its stdin may be gone already.
        drop(pipe.write_all(stdin.as_bytes()));
        drop(pipe);
        let output = child.wait_with_output().expect("ended");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs `bastio` against a backend, with a token in the environment.
    pub fn at(&self, url: &str, arguments: &[&str]) -> Run {
        self.run(&[("BASTIO_URL", url), ("BASTIO_TOKEN", "bst_env")], arguments, "")
    }
}
