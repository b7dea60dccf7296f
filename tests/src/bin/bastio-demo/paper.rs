//! How the demo looks: numbered steps, the commands as typed, what they answered, how long it took.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

const WIDTH: usize = 80;

/// Writes to standard output. If nobody reads it, the demo goes on and its exit code tells.
#[derive(Debug)]
pub struct Paper {
    colours: bool,
    steps: Vec<(String, Duration)>,
    current: Option<(String, Instant)>,
}

impl Paper {
    /// With colours or without.
    pub fn new(colours: bool) -> Self {
        Self { colours, steps: Vec::new(), current: None }
    }

    /// A plain line.
    pub fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // See above: a reader that went away changes nothing.
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }

    /// Starts a step.
    pub fn step(&mut self, title: &str) {
        let number = self.steps.len() + 1;
        self.line("");
        self.line(&self.paint("1", &format!("{number}. {title}")));
        self.current = Some((title.to_owned(), Instant::now()));
    }

    /// Ends the step: prints its time and keeps it for the summary.
    pub fn done(&mut self) {
        if let Some((title, start)) = self.current.take() {
            let took = start.elapsed();
            self.line(&self.paint("2", &format!("   {:>w$}", milliseconds(took), w = WIDTH - 3)));
            self.steps.push((title, took));
        }
    }

    /// A command as a person would type it at `prompt`.
    pub fn command(&self, prompt: &str, line: &str) {
        self.line(&format!("   {} {}", self.paint("2", prompt), self.paint("36", line)));
    }

    /// What a command answered, indented.
    pub fn answer(&self, text: &str) {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            self.line(&format!("     {}", line.trim_end()));
        }
    }

    /// A remark.
    pub fn remark(&self, text: &str) {
        self.line(&format!("   {}", self.paint("2", text)));
    }

    /// What went wrong.
    pub fn problem(&self, text: &str) {
        self.line("");
        self.line(&self.paint("31", &format!("The demo failed: {text}")));
    }

    /// All steps with their times.
    pub fn summary(&self) {
        let mut table = String::new();
        for (number, (title, took)) in self.steps.iter().enumerate() {
            let room = WIDTH.saturating_sub(17);
            // Writing to a string can't fail.
            let _ =
                writeln!(table, "   {:>2}. {title:<room$}{:>10}", number + 1, milliseconds(*took));
        }
        let total: Duration = self.steps.iter().map(|(_, took)| *took).sum();
        self.line("");
        self.line(&self.paint("1", "Summary"));
        self.line(table.trim_end_matches('\n'));
        self.line(&format!("   {:<w$}{:>10}", "    all", milliseconds(total), w = WIDTH - 13));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A time for people.
pub fn milliseconds(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
