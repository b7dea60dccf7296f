//! Aligned columns for eyes. Pure: cells in, text out.
//!
//! Every cell passes through [`one_line`], so nothing foreign reaches the terminal raw.

use unicode_width::UnicodeWidthStr;

use crate::text::one_line;

/// How a cell looks where colours are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// Green.
    Good,
    /// Red.
    Bad,
    /// Yellow.
    Warn,
    /// Bold.
    Head,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

/// Rows under a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Tone {
    /// The SGR parameter (ECMA-48 section 8.3.117).
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Bad => Some("31"),
            Self::Warn => Some("33"),
            Self::Head => Some("1"),
        }
    }
}

impl Cell {
    /// A cell of that tone; an empty text shows as `-`.
    pub fn new(text: &str, tone: Tone) -> Self {
        let text = one_line(text);
        Self { text: if text.is_empty() { "-".to_owned() } else { text }, tone }
    }

    fn render(&self, width: usize, colour: bool) -> String {
        let padding = " ".repeat(width.saturating_sub(self.text.width()));
        match self.tone.code() {
            Some(code) if colour => format!("\x1b[{code}m{}\x1b[0m{padding}", self.text),
            _ => format!("{}{padding}", self.text),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(&text, Tone::Plain)
    }
}

impl Table {
    /// A table with that header.
    pub fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|name| Cell::new(name, Tone::Head)).collect()] }
    }

    /// Lines of name and value, without a header.
    pub fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let row =
            |(name, value): (&'a str, String)| vec![Cell::new(name, Tone::Head), value.into()];
        Self { rows: facts.into_iter().map(row).collect() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }

    /// The text, each line with its line break and without blanks at its end.
    pub fn render(&self, colour: bool) -> String {
        self.render_on(&mut Vec::new(), colour)
    }

    /// The text as the next part of a table whose columns are as wide as `widths`, which grow as
    /// they must.
    pub fn render_on(&self, widths: &mut Vec<usize>, colour: bool) -> String {
        self.widen(widths);
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(column, cell)| {
                    let last = column + 1 == row.len();
                    let width = widths.get(column).copied().filter(|_| !last);
                    cell.render(width.unwrap_or(0), colour)
                })
                .collect();
            text.push_str(&cells.join("  "));
            text.push('\n');
        }
        text
    }

    fn widen(&self, widths: &mut Vec<usize>) {
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_what_the_eye_sees() {
        let mut table = Table::new(&["NAME", "STATE", "WORDS"]);
        table.row(["名前".into(), Cell::new("done", Tone::Good), "".into()]);
        table.row(["żółw-1".into(), "x".into(), "a\nb\x1b[31m".into()]);
        assert_eq!(
            table.render(false),
            "NAME    STATE  WORDS\n\
             名前    done   -\n\
             żółw-1  x      a b [31m\n"
        );
    }

    #[test]
    fn what_follows_keeps_to_the_columns() {
        let mut widths = Vec::new();
        let mut table = Table::new(&["A", "B"]);
        table.row(["long", "x"].map(Cell::from));
        assert_eq!(table.render_on(&mut widths, false), "A     B\nlong  x\n");
        let mut more = Table::facts([]);
        more.row(["s", "y"].map(Cell::from));
        assert_eq!(more.render_on(&mut widths, false), "s     y\n");
    }

    #[test]
    fn colours_do_not_shift_columns() {
        let mut table = Table::new(&["A", "B"]);
        table.row([Cell::new("ok", Tone::Good), "1".into()]);
        assert_eq!(table.render(true), "\x1b[1mA\x1b[0m   \x1b[1mB\x1b[0m\n\x1b[32mok\x1b[0m  1\n");
    }
}
