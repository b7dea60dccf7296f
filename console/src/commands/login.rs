//! `bastio login` and `bastio logout`.

use std::io::{self, Read as _};

use clap::Args;

use crate::client::{Client, Intent};
use crate::failure::{Ending, Failure};
use crate::login_file;
use crate::settings::{Access, BackendUrl, Environment, Flags, read_token_file};
use crate::terminal::Terminal;
use crate::text::count;
use crate::token::{self, Token};

/// Which backend.
#[derive(Debug, Args)]
#[command(after_help = "The token is asked for without being shown, or read from stdin; it is \
checked with the backend and stored for you alone in $XDG_CONFIG_HOME/bastio/console.toml (or \
~/.config/bastio/console.toml).

Examples:
  bastio login http://backend.example.org:2358
  bastio login https://bastio.example.org < token.txt")]
pub struct Login {
    /// The backend's base URL
    #[arg(value_name = "URL")]
    backend: BackendUrl,
}

impl Login {
    /// Asks for the token, tries it, stores it.
    pub fn run(
        self,
        flags: &Flags,
        environment: &Environment,
        terminal: &mut Terminal,
    ) -> Result<Ending, Failure> {
        if flags.url.is_some() {
            return Err(Failure::Usage {
                message: "login takes the URL as its argument, not as --url".to_owned(),
                hint: "bastio login URL",
            });
        }
        let file = environment.login_file()?;
        if self.backend.is_readable_on_the_way() {
            terminal.note("warning: with http:// everyone on the way can read the token");
        }
        let token = match &flags.token_file {
            Some(path) => read_token_file(path)?,
            None => ask_for_token(terminal, &self.backend)?,
        };
        let access = Access { url: self.backend, token };
        let status = Client::new(&access, Intent::default())?.status()?;
        file.save(&login_file::Login { url: access.url.clone(), token: access.token })?;
        terminal.note(&format!(
            "logged in to {}, version {}, with {}",
            access.url,
            status.version,
            count(status.servers, "server")
        ));
        Ok(Ending::AllDone)
    }
}

fn ask_for_token(terminal: &Terminal, url: &BackendUrl) -> Result<Token, Failure> {
    let text = if terminal.can_ask() {
        rpassword::prompt_password(format!("Token for {url}: "))?
    } else {
        let limit = u64::try_from(2 * token::MAX_LEN).unwrap_or(u64::MAX);
        let mut text = String::new();
        io::stdin().lock().take(limit).read_to_string(&mut text)?;
        text
    };
    Ok(Token::parse(&text)?)
}

/// Removes the stored login. The token itself stays good until it is removed at the backend.
pub fn logout(environment: &Environment, terminal: &mut Terminal) -> Result<Ending, Failure> {
    let file = environment.login_file()?;
    if file.remove()? {
        terminal.note(&format!("removed {}", file.path().display()));
        terminal.note("hint: the token is still good; `bastio api-key rm NAME` ends it");
    } else {
        terminal.note("there was no login");
    }
    Ok(Ending::AllDone)
}
