//! Rows as CSV (RFC 4180): lines end with CR LF, fields with special characters stand in quotes,
//! quotes are doubled. Must not know files.
//!
//! CSV is opened with spreadsheets, and these take what begins with `=`, `+`, `-`, `@`, a tab or a
//! carriage return for a formula. Much of the log is others' words: such a field gets `'` in front.

use bastio_protocol::api::utc;
use bastio_protocol::audit::ChainedRow;

/// The first line.
pub const HEADER: &str =
    "id,time,actor,from,action,user,server,status,reason,detail,prev_hash,hash\r\n";

/// A row's line.
pub fn line(chained: &ChainedRow) -> String {
    let row = &chained.row;
    let text = |text: &Option<String>| field(text.as_deref().unwrap_or_default());
    let fields = [
        row.id.to_string(),
        utc(row.at).replace(' ', "T") + "Z",
        field(&row.actor),
        text(&row.from),
        field(&row.action),
        text(&row.user),
        text(&row.server),
        row.status.map(|status| status.code().to_string()).unwrap_or_default(),
        text(&row.reason),
        field(&row.detail),
        field(&chained.prev_hash),
        field(&chained.hash),
    ];
    fields.join(",") + "\r\n"
}

fn field(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if text.contains(['"', ',', '\r', '\n']) {
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    } else {
        format!("{guard}{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_never_formulas() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("a b", "a b"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("a\r\nb", "\"a\r\nb\""),
            ("=1+1", "'=1+1"),
            ("=HYPERLINK(\"x\",1)", "\"'=HYPERLINK(\"\"x\"\",1)\""),
            ("-2", "'-2"),
            ("+2", "'+2"),
            ("@x", "'@x"),
            ("\tx", "'\tx"),
            ("x=1", "x=1"),
        ] {
            assert_eq!(field(text), expected);
        }
    }

    #[test]
    fn a_line_has_a_field_for_each_of_the_header() {
        let row = crate::commands::log::syslog::tests::row();
        assert_eq!(
            line(&row),
            "7,2026-11-22T03:50:49Z,key:admin,192.0.2.7,action.failed,alice,web-1,500,\
             \"he said \"\"go\"\"\",\"add-user: 500 a]b\\c\nd\",aa,bb\r\n"
        );
        assert_eq!(HEADER.matches(',').count(), 11);
    }
}
