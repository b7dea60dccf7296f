//! Rows as lines of syslog (RFC 5424). Must not know files or sockets.
//!
//! Facility 13, the log audit (section 6.2.1); severity notice, or warning for what failed. A line
//! ends where the record ends (RFC 6587 section 3.4.2): control characters become blanks.

use bastio_protocol::api::utc;
use bastio_protocol::audit::ChainedRow;

use crate::text::one_line;

/// `log audit` * 8.
const FACILITY: u8 = 13 * 8;
const WARNING: u8 = 4;
const NOTICE: u8 = 5;
/// In front of messages in UTF-8 (section 6.4).
const BOM: char = '\u{feff}';
/// Longest MSGID and HOSTNAME (section 6).
const MAX_MSGID: usize = 32;
const MAX_HOST: usize = 255;

/// A row's line; `host` is the backend's.
pub fn line(chained: &ChainedRow, host: &str) -> String {
    let row = &chained.row;
    let failed =
        row.status.is_some_and(|status| !status.is_success()) || row.action.ends_with(".failed");
    let priority = FACILITY + if failed { WARNING } else { NOTICE };
    let time = utc(row.at).replace(' ', "T") + "Z";
    let (host, msgid) = (header_field(host, MAX_HOST), header_field(&row.action, MAX_MSGID));
    let mut data = String::new();
    for (name, value) in [
        ("id", Some(row.id.to_string())),
        ("actor", Some(row.actor.clone())),
        ("from", row.from.clone()),
        ("action", Some(row.action.clone())),
        ("user", row.user.clone()),
        ("server", row.server.clone()),
        ("status", row.status.map(|status| status.code().to_string())),
        ("reason", row.reason.clone()),
        ("prev_hash", Some(chained.prev_hash.clone())),
        ("hash", Some(chained.hash.clone())),
    ] {
        if let Some(value) = value {
            data.push_str(&format!(" {name}=\"{}\"", param_value(&value)));
        }
    }
    let words = [row.user.as_deref(), row.server.as_deref(), Some(row.detail.as_str())];
    let words: Vec<&str> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    let message = one_line(&format!("{} {} {}", row.actor, row.action, words.join(" ")));
    format!("<{priority}>1 {time} {host} bastio - {msgid} [bastio@32473{data}] {BOM}{message}\n")
}

/// Printable ASCII, or `-` for nothing (section 6, NILVALUE).
fn header_field(text: &str, limit: usize) -> String {
    let fit: String = text.chars().filter(char::is_ascii_graphic).take(limit).collect();
    if fit.is_empty() { "-".to_owned() } else { fit }
}

/// PARAM-VALUE: `"`, `\` and `]` with a backslash before them (section 6.3.3).
fn param_value(text: &str) -> String {
    let mut value = String::new();
    for letter in text.chars() {
        match letter {
            '"' | '\\' | ']' => value.extend(['\\', letter]),
            letter if letter.is_control() => value.push(' '),
            letter => value.push(letter),
        }
    }
    value
}

#[cfg(test)]
pub(super) mod tests {
    use bastio_protocol::Status;
    use bastio_protocol::api::AuditRow;

    use super::*;

    pub fn row() -> ChainedRow {
        let row = AuditRow {
            id: 7,
            at: 1_795_319_449,
            actor: "key:admin".into(),
            from: Some("192.0.2.7".into()),
            action: "action.failed".into(),
            user: Some("alice".into()),
            server: Some("web-1".into()),
            detail: "add-user: 500 a]b\\c\nd".into(),
            reason: Some("he said \"go\"".into()),
            status: Some(Status::Failed),
        };
        ChainedRow { row, prev_hash: "aa".into(), hash: "bb".into() }
    }

    #[test]
    fn a_line_is_as_the_rfc_has_it() {
        assert_eq!(
            line(&row(), "backend.example.org"),
            "<108>1 2026-11-22T03:50:49Z backend.example.org bastio - action.failed \
             [bastio@32473 id=\"7\" actor=\"key:admin\" from=\"192.0.2.7\" \
             action=\"action.failed\" user=\"alice\" server=\"web-1\" status=\"500\" \
             reason=\"he said \\\"go\\\"\" prev_hash=\"aa\" hash=\"bb\"] \
             \u{feff}key:admin action.failed alice web-1 add-user: 500 a]b\\c d\n"
        );
        let mut plain = row();
        plain.row.status = None;
        plain.row.action = "user.add".into();
        assert!(line(&plain, "").starts_with("<109>1 2026-11-22T03:50:49Z - bastio - user.add ["));
    }

    #[test]
    fn no_value_leaves_its_quotes_or_its_line() {
        for (text, expected) in [
            ("a\"] x=\"", "a\\\"\\] x=\\\""),
            ("\\", "\\\\"),
            ("a\r\nb\u{85}c", "a  b c"),
            ("é", "é"),
        ] {
            assert_eq!(param_value(text), expected);
        }
        for (text, expected) in [("", "-"), ("a b\n", "ab"), ("é", "-"), ("::1", "::1")] {
            assert_eq!(header_field(text, 5), expected);
        }
    }
}
