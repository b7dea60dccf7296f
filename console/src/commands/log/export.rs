//! `bastio log export`: the whole log, page by page, to stdout or into a file that appears when it
//! is whole.

use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use bastio_protocol::audit::{ChainedRow, EXPORT_VERSION, ExportHeader, Head, LogFilter};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tempfile::NamedTempFile;

use super::{Filter, csv, head, syslog};
use crate::client::LogPage;
use crate::commands::Context;
use crate::failure::{Ending, Failure};
use crate::terminal::Terminal;
use crate::text::count;

/// Rows of one answer.
const PAGE: u32 = 1000;

/// Which rows, how and where to.
#[derive(Debug, Args)]
#[command(after_help = "Only JSON lines (the default) can be verified. A file is for its owner \
alone (mode 0600) and appears when it is whole. In CSV, fields that a spreadsheet would take for a \
formula begin with '.

Examples:
  bastio log export --file audit-2026-11.jsonl
  bastio log export --format csv --since 30d --file audit.csv --force
  bastio log export --format syslog --action 'grant.*' > grants.log")]
pub struct Export {
    /// How rows are written
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
    format: ExportFormat,
    /// Write into this file; stdout when absent
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long, requires = "file")]
    force: bool,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// A line of JSON each, which `bastio log verify` reads
    Jsonl,
    /// RFC 4180, for spreadsheets
    Csv,
    /// RFC 5424, for log collectors
    Syslog,
}

/// Where an export goes.
#[derive(Debug)]
pub enum Sink {
    Stdout,
    File { partial: NamedTempFile, path: PathBuf, force: bool },
}

impl Export {
    /// Writes them.
    pub fn run(self, context: &mut Context<'_>) -> Result<Ending, Failure> {
        let mut sink = Sink::open(self.file, self.force)?;
        let filter = self.filter.at(context.now);
        let head = head(&context.client)?;
        let host = context.client.url().host();
        let begin = begin(self.format, context, &filter, head.clone())?;
        if !sink.write(context.terminal, &begin)? {
            return Ok(Ending::AllDone);
        }
        let last = head.as_ref().map_or(0, |head| head.id);
        let (mut after, mut rows) = (0_i64, 0_u64);
        while after < last {
            let asked = LogPage::After { id: after, limit: PAGE, wait: 0 };
            let page = context.client.log(&filter, asked)?;
            let Some(end) = page.last() else { break };
            after = end.row.id.max(after.saturating_add(1));
            let mut text = String::new();
            // What was appended meanwhile is behind the head that the export names.
            for row in page.iter().filter(|row| row.row.id <= last) {
                text.push_str(&line(self.format, row, &host)?);
                rows = rows.saturating_add(1);
            }
            if !sink.write(context.terminal, &text)? {
                return Ok(Ending::AllDone);
            }
            context.terminal.live(&count(rows, "row"));
        }
        if let Some(path) = sink.finish()? {
            let head = head.map(|head| format!("; the log's head is {head}")).unwrap_or_default();
            let text = format!("{} written to {}{head}", count(rows, "row"), path.display());
            context.terminal.note(&text);
        }
        Ok(Ending::AllDone)
    }
}

/// What comes before the rows.
fn begin(
    format: ExportFormat,
    context: &Context<'_>,
    filters: &LogFilter,
    head: Option<Head>,
) -> Result<String, Failure> {
    Ok(match format {
        ExportFormat::Csv => csv::HEADER.to_owned(),
        ExportFormat::Syslog => String::new(),
        ExportFormat::Jsonl => json_line(&ExportHeader {
            bastio_audit_export: EXPORT_VERSION,
            backend: context.client.url().to_string(),
            exported_at: context.now,
            filters: filters.clone(),
            head,
        })?,
    })
}

fn line(format: ExportFormat, row: &ChainedRow, host: &str) -> Result<String, Failure> {
    Ok(match format {
        ExportFormat::Jsonl => json_line(row)?,
        ExportFormat::Csv => csv::line(row),
        ExportFormat::Syslog => syslog::line(row, host),
    })
}

fn json_line(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string(value).map_err(io::Error::other)? + "\n")
}

impl Sink {
    /// A file, that must not be there unless it is to be replaced, or stdout.
    ///
    /// # Errors
    /// [`Failure::Exists`], [`Failure::Write`].
    pub fn open(path: Option<PathBuf>, force: bool) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::Stdout) };
        if !force && path.symlink_metadata().is_ok() {
            return Err(Failure::Exists { path });
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // Mode 0600: so tempfile makes its files.
        match NamedTempFile::new_in(folder.unwrap_or(Path::new("."))) {
            Ok(partial) => Ok(Self::File { partial, path, force }),
            Err(source) => Err(Failure::Write { path, source }),
        }
    }

    /// Whether somebody still reads.
    pub fn write(&mut self, terminal: &mut Terminal, text: &str) -> Result<bool, Failure> {
        match self {
            Self::Stdout => Ok(terminal.stream(text)?),
            Self::File { partial, path, .. } => match partial.write_all(text.as_bytes()) {
                Ok(()) => Ok(true),
                Err(source) => Err(Failure::Write { path: path.clone(), source }),
            },
        }
    }

    /// Puts the file in its place; which one that is.
    pub fn finish(self) -> Result<Option<PathBuf>, Failure> {
        let Self::File { partial, path, force } = self else { return Ok(None) };
        let done = partial.as_file().sync_all().and_then(|()| {
            let placed =
                if force { partial.persist(&path) } else { partial.persist_noclobber(&path) };
            placed.map(drop).map_err(|error| error.error)
        });
        match done {
            Ok(()) => Ok(Some(path)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Failure::Exists { path }),
            Err(source) => Err(Failure::Write { path, source }),
        }
    }
}
