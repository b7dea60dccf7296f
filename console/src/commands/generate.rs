//! `bastio completions` and `bastio man`: for those who package bastio.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::{Ending, Failure};
use crate::terminal::Terminal;

/// For which shell.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  bastio completions bash > /usr/share/bash-completion/completions/bastio")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

/// Where to.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bastio man /usr/share/man/man1")]
pub struct Man {
    /// An existing folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Completions {
    /// Prints the script.
    pub fn run(self, terminal: &mut Terminal) -> Result<Ending, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "bastio", &mut script);
        terminal.print(&String::from_utf8_lossy(&script))?;
        Ok(Ending::AllDone)
    }
}

impl Man {
    /// Writes a page a command.
    pub fn run(self) -> Result<Ending, Failure> {
        clap_mangen::generate_to(Cli::command(), &self.folder)
            .map_err(|source| Failure::Write { path: self.folder, source })?;
        Ok(Ending::AllDone)
    }
}
