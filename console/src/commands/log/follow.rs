//! `bastio log --follow`: rows as they come, by long polls that answer when there is something.

use std::thread;
use std::time::{Duration, Instant};

use bastio_protocol::api::utc;
use bastio_protocol::audit::{ChainedRow, LogFilter};

use super::{fill, head, header};
use crate::client::LogPage;
use crate::commands::{Context, Format};
use crate::failure::{Ending, Failure};
use crate::table::Table;
use crate::terminal::Terminal;

/// Rows of one answer.
const PAGE: u32 = 1000;
/// How long one request waits, in seconds.
const WAIT: u64 = 30;
/// Pause after an answer that came at once and told nothing, or did not come at all.
const PAUSE: Duration = Duration::from_secs(1);

/// What has been printed so far shapes what comes.
struct Printer {
    format: Format,
    widths: Vec<usize>,
    begun: bool,
}

/// Prints the last rows and then new ones, until nobody reads any more or the process is ended.
/// A backend that goes away is waited for.
pub fn run(context: &mut Context<'_>, filter: &LogFilter, limit: u32) -> Result<Ending, Failure> {
    let mut printer = Printer { format: context.format, widths: Vec::new(), begun: false };
    let mut after = head(&context.client)?.map_or(0, |head| head.id);
    let mut rows = context.client.log(filter, LogPage::Last(limit))?;
    let mut lost = false;
    loop {
        after = rows.last().map_or(after, |last| after.max(last.row.id));
        let read = rows.is_empty() || printer.print(context.terminal, &rows)?;
        if !read || context.terminal.is_unread() {
            return Ok(Ending::AllDone);
        }
        let asked = Instant::now();
        match context.client.log(filter, LogPage::After { id: after, limit: PAGE, wait: WAIT }) {
            Ok(newer) => {
                if newer.is_empty() && asked.elapsed() < PAUSE {
                    thread::sleep(PAUSE);
                }
                (rows, lost) = (newer, false);
            }
            Err(error) if error.is_unreachable() => {
                if !lost {
                    context.terminal.note(&format!("{error}; trying again"));
                }
                (rows, lost) = (Vec::new(), true);
                thread::sleep(PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

impl Printer {
    /// Whether somebody still reads.
    fn print(&mut self, terminal: &mut Terminal, rows: &[ChainedRow]) -> Result<bool, Failure> {
        if self.format == Format::Json {
            let mut text = String::new();
            for row in rows {
                text.push_str(&serde_json::to_string(row).map_err(std::io::Error::other)?);
                text.push('\n');
            }
            return Ok(terminal.stream(&text)?);
        }
        let first = !std::mem::replace(&mut self.begun, true);
        let mut table = if first { header() } else { Table::facts([]) };
        fill(&mut table, rows, utc);
        Ok(terminal.stream_table(&table, &mut self.widths)?)
    }
}
