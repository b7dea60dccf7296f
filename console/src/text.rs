//! Foreign text made fit for a terminal, and times for people. Pure: the time is passed in.

/// One line of printable text: control characters, line breaks and the marks that turn the writing
/// direction become single blanks, so that no text can move the cursor or pass for another one.
pub fn one_line(text: &str) -> String {
    let visible = text.chars().map(|c| if is_hidden(c) { ' ' } else { c }).collect::<String>();
    visible.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Control characters, line separators, and direction marks (Unicode TR 9).
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// How long ago `at` was at `now`, both in seconds since the Unix epoch. A time to come, which
/// means that two clocks differ, is `just now`.
pub fn ago(at: i64, now: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let seconds = now.saturating_sub(at);
    match seconds {
        ..10 => "just now".to_owned(),
        10..MINUTE => format!("{seconds} s ago"),
        MINUTE..HOUR => format!("{} min ago", seconds / MINUTE),
        HOUR..DAY => format!("{} h ago", seconds / HOUR),
        DAY..YEAR => count(seconds / DAY, "day") + " ago",
        YEAR.. => count(seconds / YEAR, "year") + " ago",
    }
}

/// A number with its noun: `1 server`, `2 servers`.
pub fn count(number: impl TryInto<u64>, noun: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_becomes_one_harmless_line() {
        for (text, expected) in [
            ("plain", "plain"),
            ("useradd: exit 9\nname in use\r\n", "useradd: exit 9 name in use"),
            ("\x1b[2J\x1b]0;owned\x07gone", "[2J ]0;owned gone"),
            ("\u{9b}31mred", "31mred"),
            ("a\u{202e}b\u{2066}c", "a b c"),
            ("  żółw  名前 ", "żółw 名前"),
            ("", ""),
        ] {
            assert_eq!(one_line(text), expected, "{text:?}");
        }
    }

    #[test]
    fn times_are_told_in_the_largest_fitting_unit() {
        for (seconds, expected) in [
            (-100, "just now"),
            (0, "just now"),
            (10, "10 s ago"),
            (59, "59 s ago"),
            (60, "1 min ago"),
            (3599, "59 min ago"),
            (3600, "1 h ago"),
            (86_399, "23 h ago"),
            (86_400, "1 day ago"),
            (2 * 86_400, "2 days ago"),
            (365 * 86_400, "1 year ago"),
            (800 * 86_400, "2 years ago"),
        ] {
            assert_eq!(ago(1_000_000_000, 1_000_000_000 + seconds), expected, "{seconds}");
        }
        assert_eq!(ago(i64::MIN, i64::MAX), "292471208677 years ago");
    }
}
