//! `bastio log verify`: whether an export is as it was written. Offline: the file is all it knows.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use bastio_protocol::audit::{
    ChainedRow, EXPORT_VERSION, ExportHeader, Fault, Head, Place, Scope, Summary, Verdict, Verifier,
};
use clap::Args;
use serde_json::{Value, json};

use super::approvals::Approvals;
use crate::commands::Format;
use crate::failure::{Ending, Failure};
use crate::terminal::Terminal;
use crate::text::count;

/// Longest line, in bytes; rows are far shorter.
const MAX_LINE: u64 = 1024 * 1024;

/// Which export.
#[derive(Debug, Args)]
#[command(
    after_help = "Says that every row is as it was written, or names the first one that was \
changed, removed, moved or put in, and ends with 1. Whoever can write the backend's database can \
write a whole chain anew: keep `bastio log head` elsewhere, and give it here with --head.

Examples:
  bastio log verify audit-2026-11.jsonl
  bastio log export | bastio log verify -
  bastio log verify audit.jsonl --head \
17:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)]
pub struct Verify {
    /// JSON lines of `bastio log export`; - is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What `bastio log head` has printed at that time or before
    #[arg(long, value_name = "ID:HASH")]
    head: Option<Head>,
}

/// An export as far as it was read.
struct Lines<'a> {
    path: &'a Path,
    reader: Box<dyn BufRead>,
}

impl Verify {
    /// Walks along the rows.
    pub fn run(self, format: Format, terminal: &mut Terminal) -> Result<Ending, Failure> {
        let mut lines = Lines::open(&self.file)?;
        let header = lines.header()?;
        let scope = if header.filters.is_empty() { Scope::Whole } else { Scope::Part };
        let mut verifier = Verifier::new(scope, header.head.clone(), self.head.clone());
        let mut approvals = Approvals::default();
        while let Some(line) = lines.line()? {
            let row = std::str::from_utf8(&line).ok().and_then(ChainedRow::parse);
            row.iter().for_each(|row| approvals.row(row));
            verifier.row(row);
        }
        let summary = match verifier.finish() {
            Verdict::Broken(place) => return tell_broken(format, terminal, &place),
            Verdict::Intact(summary) => summary,
        };
        if let Some(id) = approvals.bad() {
            return tell_forged(format, terminal, id);
        }
        if let Some(words) = approvals.in_words().filter(|_| format == Format::Table) {
            terminal.note(&words);
        }
        self.tell_intact(format, terminal, &header, &summary, &approvals)
    }

    fn tell_intact(
        &self,
        format: Format,
        terminal: &mut Terminal,
        header: &ExportHeader,
        summary: &Summary,
        approvals: &Approvals,
    ) -> Result<Ending, Failure> {
        let whole = header.filters.is_empty();
        let known_missed = self.head.is_some() && !summary.known_seen;
        if format == Format::Json {
            let last = summary.last.as_ref();
            terminal.json(&json!({
                "verdict": "intact", "complete": whole, "rows": summary.rows,
                "first": summary.first, "last": last.map(|head| head.id),
                "hash": last.map(|head| &head.hash), "left_out": summary.left_out,
                "head_seen": self.head.as_ref().map(|_| summary.known_seen),
                "approvals": approvals.numbers(),
            }))?;
        } else {
            terminal.print(&intact(summary))?;
        }
        if !whole {
            terminal.note(
                "this export was filtered: each row is as it was written, but whether all that \
                 passed the filter are there cannot be verified",
            );
        }
        if known_missed {
            let row = self.head.as_ref().map_or(0, |head| head.id);
            terminal.note(&format!("row {row}, which --head names, is not in this export"));
            return Ok(Ending::SomeFailed);
        }
        Ok(Ending::AllDone)
    }
}

fn intact(summary: &Summary) -> String {
    match (summary.first, &summary.last) {
        (Some(first), Some(last)) => format!(
            "intact: {}, {first} to {}; the last one's hash is {}\n",
            count(summary.rows, "row"),
            last.id,
            last.hash
        ),
        _ => "intact: no rows\n".to_owned(),
    }
}

fn tell_broken(format: Format, terminal: &mut Terminal, place: &Place) -> Result<Ending, Failure> {
    // The first line is the header.
    let line = place.position.saturating_add(1);
    let text = in_words(&place.fault);
    match format {
        Format::Json => {
            let (fault, first, last) = in_names(&place.fault);
            terminal.json(&json!({
                "verdict": "broken", "fault": fault, "first": first, "last": last, "line": line,
                "text": text,
            }))?;
        }
        Format::Table => terminal.print(&format!("broken: {text} (seen at line {line})\n"))?,
    }
    Ok(Ending::SomeFailed)
}

/// The chain is whole, and yet somebody wrote an approval that nobody gave.
fn tell_forged(format: Format, terminal: &mut Terminal, id: i64) -> Result<Ending, Failure> {
    let text = format!("row {id} is an approval that its approver has not signed");
    match format {
        Format::Json => terminal.json(&json!({
            "verdict": "broken", "fault": "forged-approval", "first": id, "last": id, "text": text,
        }))?,
        Format::Table => terminal.print(&format!("broken: {text}\n"))?,
    }
    Ok(Ending::SomeFailed)
}

fn in_words(fault: &Fault) -> String {
    match fault {
        Fault::Changed(id) => format!("row {id} was changed"),
        Fault::Removed { first, last } if first == last => format!("row {first} was removed"),
        Fault::Removed { first, last } => format!("rows {first} to {last} were removed"),
        Fault::Moved { row, place } => {
            format!("rows are not in their order: row {row} stands where row {place} should be")
        }
        Fault::Inserted(Some(id)) => format!("row {id} was put in here"),
        Fault::Inserted(None) => "a line was put in that is no row of a log".to_owned(),
        Fault::OtherHead(id) => format!(
            "row {id} is not the one that was known: it, or rows before it, were written anew"
        ),
    }
}

/// The fault with the rows concerned, for programs.
fn in_names(fault: &Fault) -> (&'static str, Value, Value) {
    match fault {
        Fault::Changed(id) => ("changed", json!(id), json!(id)),
        Fault::Removed { first, last } => ("removed", json!(first), json!(last)),
        Fault::Moved { row, .. } => ("moved", json!(row), json!(row)),
        Fault::Inserted(id) => ("inserted", json!(id), json!(id)),
        Fault::OtherHead(id) => ("other-head", json!(id), json!(id)),
    }
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<Self, Failure> {
        let reader: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            let file = File::open(path);
            let failed = |source| Failure::Read { path: path.to_owned(), source };
            Box::new(BufReader::new(file.map_err(failed)?))
        };
        Ok(Self { path, reader })
    }

    /// The next line without its end; one that is too long comes in pieces, none of which is a row.
    fn line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let mut line = Vec::new();
        let read = self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        read.map_err(|source| Failure::Read { path: self.path.to_owned(), source })?;
        Ok(Some(line).filter(|line| !line.is_empty()))
    }

    fn header(&mut self) -> Result<ExportHeader, Failure> {
        let line = self.line()?.unwrap_or_default();
        let path = self.path;
        let not = |reason: &str| Failure::NotAnExport {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let value: Value =
            serde_json::from_slice(&line).map_err(|_| not("its first line is no JSON"))?;
        match value.get("bastio_audit_export").and_then(Value::as_u64) {
            Some(version) if version == u64::from(EXPORT_VERSION) => {
                serde_json::from_value(value).map_err(|error| not(&error.to_string()))
            }
            Some(version) => Err(not(&format!("it is of version {version}; update bastio"))),
            None => Err(not("its first line is not the header of an export")),
        }
    }
}
