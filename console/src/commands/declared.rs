//! `bastio apply` and `bastio export`: the model as a file.

use std::path::PathBuf;

use clap::Args;

use crate::commands::log::Sink;
use crate::commands::{Context, Format};
use crate::failure::{Ending, Failure};
use crate::follow::settle;
use crate::policy_file;

/// What to make so.
#[derive(Debug, Args)]
#[command(
    after_help = "A section that is not in the files (users, groups, servers, grants, sudo-policies, drift) is left alone.
What a section names is made exactly so; what it does not name stays, unless --prune is given.
docs/operations.md has an example of everything.

Examples:
  bastio apply -f policy.yaml --dry-run
  bastio apply -f people.yaml -f grants.yaml
  bastio apply -f policy.yaml --prune
  bastio export | bastio apply -f -"
)]
pub struct Apply {
    /// A file in YAML or JSON, - for stdin; may be given several times, together they are one
    #[arg(long = "file", short, value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Remove what the sections in the files do not name: users, keys, groups, members, labels, grants,
    /// drift rules
    #[arg(long)]
    prune: bool,
}

/// Where to write the model.
#[derive(Debug, Args)]
#[command(after_help = "YAML, or JSON with --output json; apply takes both.

Examples:
  bastio export > policy.yaml
  bastio export --file policy.yaml --force
  bastio export --output json
  bastio export --revision 57      as it was then: see bastio revisions")]
pub struct Export {
    /// Write into this file, for its owner alone (mode 0600); stdout when absent
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long, requires = "file")]
    force: bool,
    /// As it was at that revision
    #[arg(long, value_name = "REVISION")]
    revision: Option<i64>,
}

impl Apply {
    /// Reads the files, and only then asks for the backend.
    pub fn run<'a>(
        self,
        context: impl FnOnce() -> Result<Context<'a>, Failure>,
    ) -> Result<Ending, Failure> {
        let policy = policy_file::read(&self.files)?;
        let mut context = context()?;
        let change = context.client.apply(&policy, self.prune)?;
        settle(&mut context, vec![change])
    }
}

impl Export {
    /// Writes it.
    pub fn run(self, context: &mut Context<'_>) -> Result<Ending, Failure> {
        let mut sink = Sink::open(self.file, self.force)?;
        // Asked first: whatever is edited in between is in the file, and refuses an edit all the same.
        let revision = match self.revision {
            Some(revision) => revision,
            None => context.client.status()?.revision,
        };
        let policy = context.client.policy(self.revision)?;
        let text = match context.format {
            Format::Json => policy_file::to_json(&policy)?,
            Format::Table => {
                let yaml = policy_file::to_yaml(&policy)?;
                format!(
                    "# revision {revision}; to refuse edits in between: --if-revision {revision}\n{yaml}"
                )
            }
        };
        sink.write(context.terminal, &text)?;
        if let Some(path) = sink.finish()? {
            context.terminal.note(&format!("written to {}", path.display()));
        }
        Ok(Ending::AllDone)
    }
}
