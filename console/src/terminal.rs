//! The rules for talking: results to stdout, everything else to stderr, questions only where a
//! person sits, one live line, colours only where they are wanted.
//!
//! Must not know commands or the API.

use std::io::{self, BufRead as _, ErrorKind, IsTerminal as _, Read as _, Write as _};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use terminal_size::{Width, terminal_size_of};
use unicode_width::UnicodeWidthChar as _;

use crate::table::Table;
use crate::text::one_line;

/// Longest answer to a question, in bytes.
const MAX_ANSWER: u64 = 1024;

/// Stdin, stdout and stderr with what is known about them.
#[derive(Debug)]
pub struct Terminal {
    stdin_is_terminal: bool,
    stderr_is_terminal: bool,
    colour: bool,
    live: bool,
}

impl Terminal {
    /// Those of this process. Colours are off where stdout is no terminal, where `NO_COLOR` is set
    /// (no-color.org) and on a terminal that calls itself dumb.
    pub fn of_process() -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            stdin_is_terminal: io::stdin().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal() && !dumb,
            colour: io::stdout().is_terminal() && !dumb && !is_set("NO_COLOR"),
            live: false,
        }
    }

    /// Whether a person can be asked.
    pub fn can_ask(&self) -> bool {
        self.stdin_is_terminal
    }

    /// Prints a result as it is; the text must be clean already. A reader that has gone away
    /// (`bastio log | head`) is no error.
    ///
    /// # Errors
    /// What stdout says, but for a closed pipe.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        self.stream(text).map(drop)
    }

    /// Prints a part of a long result, as [`Terminal::print`]; whether somebody still reads.
    ///
    /// # Errors
    /// As [`Terminal::print`].
    pub fn stream(&mut self, text: &str) -> io::Result<bool> {
        self.clear_live();
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Whether stdout is a pipe that nobody reads any more (poll(2), POLLERR).
    pub fn is_unread(&self) -> bool {
        let stdout = io::stdout();
        let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut polled, Some(&at_once)).is_ok()
            && polled.iter().any(|fd| fd.revents().contains(PollFlags::ERR))
    }

    /// Prints a part of a long table whose columns were as wide as `widths` so far; whether somebody
    /// still reads.
    ///
    /// # Errors
    /// As [`Terminal::print`].
    pub fn stream_table(&mut self, table: &Table, widths: &mut Vec<usize>) -> io::Result<bool> {
        let text = table.render_on(widths, self.colour);
        self.stream(&text)
    }

    /// Prints a table.
    ///
    /// # Errors
    /// As [`Terminal::print`].
    pub fn table(&mut self, table: &Table) -> io::Result<()> {
        let text = table.render(self.colour);
        self.print(&text)
    }

    /// Prints one JSON document.
    ///
    /// # Errors
    /// As [`Terminal::print`].
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        self.print(&(text + "\n"))
    }

    /// Prints a line for people to stderr. Nobody is left to be told when that fails.
    pub fn note(&mut self, text: &str) {
        self.clear_live();
        drop(writeln!(io::stderr().lock(), "{}", one_line(text)));
    }

    /// Draws the live line anew; does nothing where stderr is no terminal.
    pub fn live(&mut self, text: &str) {
        if self.stderr_is_terminal {
            let columns = terminal_size_of(io::stderr()).map_or(80, |(Width(columns), _)| columns);
            let line = clip(&one_line(text), usize::from(columns).saturating_sub(1));
            let mut stderr = io::stderr().lock();
            drop(write!(stderr, "\r\x1b[2K{line}").and_then(|()| stderr.flush()));
            self.live = true;
        }
    }

    /// Takes the live line away, before anything else is written.
    fn clear_live(&mut self) {
        if std::mem::take(&mut self.live) {
            let mut stderr = io::stderr().lock();
            drop(write!(stderr, "\r\x1b[2K").and_then(|()| stderr.flush()));
        }
    }

    /// Asks a question whose safe answer is no.
    ///
    /// # Errors
    /// What stdin says.
    pub fn confirm(&mut self, question: &str) -> io::Result<bool> {
        let mut stderr = io::stderr().lock();
        drop(write!(stderr, "{} [y/N] ", one_line(question)).and_then(|()| stderr.flush()));
        let mut answer = String::new();
        io::stdin().lock().take(MAX_ANSWER).read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

/// As much of the text as fits into that many columns.
fn clip(text: &str, columns: usize) -> String {
    let mut used = 0;
    text.chars()
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= columns
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_live_line_never_wraps() {
        for (text, columns, expected) in
            [("abc", 5, "abc"), ("abcdef", 3, "abc"), ("名前x", 3, "名"), ("abc", 0, "")]
        {
            assert_eq!(clip(text, columns), expected, "{text} {columns}");
        }
    }
}
