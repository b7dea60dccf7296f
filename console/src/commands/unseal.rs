//! `bastio unseal`: opens the backend's sealed signing key.

use std::io::{self, Read as _};

use clap::Args;

use crate::commands::{Context, Format};
use crate::failure::{Ending, Failure};
use crate::terminal::Terminal;
use crate::text::count;

/// Longest passphrase that is read, in bytes.
const MAX: u64 = 4096;

/// Nothing to choose: a passphrase is no argument, which everybody on the machine can read.
#[derive(Debug, Args)]
#[command(
    after_help = "The passphrase is asked for without being shown, or read from stdin. It goes to the \
backend over HTTP: use a URL with https://, or run this at the backend's host. Each node of several is \
unsealed by itself, with its own --url. After wrong passphrases the next one has to wait.

Examples:
  bastio unseal
  bastio unseal --url https://node2.example.org < passphrase.txt"
)]
pub struct Unseal {}

impl Unseal {
    /// Asks for the passphrase, and sends it.
    pub fn run(self, context: &mut Context<'_>) -> Result<Ending, Failure> {
        if context.client.url().is_readable_on_the_way() {
            context
                .terminal
                .note("warning: with http:// everyone on the way can read the passphrase");
        }
        let passphrase = ask(context.terminal)?;
        let unsealed = context.client.unseal(passphrase.trim_end_matches(['\r', '\n']))?;
        match context.format {
            Format::Json => context.terminal.json(&unsealed)?,
            Format::Table => {
                let how = if unsealed.already { "was open already" } else { "is open" };
                context.terminal.note(&format!("the signing key {} {how}", unsealed.signing_key));
                if unsealed.waiting > 0 {
                    let waiting = count(unsealed.waiting, "action");
                    context.terminal.note(&format!("{waiting} waiting; see: bastio plan"));
                }
            }
        }
        Ok(Ending::AllDone)
    }
}

fn ask(terminal: &Terminal) -> Result<String, Failure> {
    if terminal.can_ask() {
        return Ok(rpassword::prompt_password("Passphrase of the signing key: ")?);
    }
    let mut text = String::new();
    io::stdin().lock().take(MAX).read_to_string(&mut text)?;
    Ok(text)
}
