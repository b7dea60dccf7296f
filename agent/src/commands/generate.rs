//! `completions` and `man`, for those who package the agent: made from the command line's own
//! definition, so that they cannot say anything else.

use std::process::ExitCode;

use clap::CommandFactory;

use super::{CommandError, say};
use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::start::PROGRAM;

/// Prints the script.
pub(super) fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), PROGRAM, &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
    ExitCode::SUCCESS
}

/// Writes a page for each command.
pub(super) fn man(args: &ManArgs) -> Result<(), CommandError> {
    clap_mangen::generate_to(Cli::command(), &args.folder)
        .map_err(|error| CommandError::Failed(format!("{}: {error}", args.folder.display())))
}

#[cfg(test)]
mod tests {
    use super::man;
    use crate::cli::ManArgs;

    #[test]
    fn every_command_that_is_shown_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        man(&ManArgs { folder: folder.path().to_owned() }).unwrap();
        for (page, expected) in [
            ("bastio-agent.1", true),
            ("bastio-agent-enroll.1", true),
            ("bastio-agent-man.1", false),
        ] {
            assert_eq!(folder.path().join(page).exists(), expected, "{page}");
        }
    }
}
