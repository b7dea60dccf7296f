//! The program: reads the command line and leaves with the command's exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    bastio_agent::commands::run(&bastio_agent::cli::Cli::parse())
}
