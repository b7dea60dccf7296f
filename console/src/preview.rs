//! What an edit would do, for eyes: a line a server, and the whole in numbers. Pure.
//!
//! Must not know how it was worked out.

use bastio_protocol::api::{BlastRadius, Preview, ServerPreview};

use crate::table::{Cell, Table, Tone};
use crate::text::count;

/// One line for each thing that a server would be told.
pub fn table(preview: &Preview) -> Table {
    let mut table = Table::new(&["SERVER", "ACCOUNT", "WOULD DO", "DETAIL"]);
    for server in &preview.servers {
        for (number, step) in server.steps.iter().enumerate() {
            let first = if number == 0 { server.server.as_str() } else { "" };
            table.row([
                first.into(),
                step.username.as_str().into(),
                step.action.as_str().into(),
                step.detail.as_str().into(),
            ]);
        }
        if server.steps.is_empty() {
            let words = "what was not sent yet is taken back";
            table.row([server.server.as_str().into(), "".into(), "nothing".into(), words.into()]);
        }
        if server.last_admin_lost {
            table.row(["".into(), "".into(), alarm(), no_admin(server).into()]);
        }
    }
    table
}

fn alarm() -> Cell {
    Cell::new("LOCKOUT", Tone::Bad)
}

fn no_admin(server: &ServerPreview) -> String {
    format!("nobody with sudo rights and a key would be left on {}", server.server)
}

/// The whole in numbers, in one line.
pub fn summary(blast: &BlastRadius) -> String {
    let mut words = vec![
        format!("{} of {}", blast.servers, count(blast.of, "server")),
        count(blast.logins, "login"),
    ];
    for (number, what) in [
        (blast.gained, "come"),
        (blast.lost, "go"),
        (blast.sudo_gained, "get sudo"),
        (blast.sudo_lost, "lose sudo"),
    ] {
        if number > 0 {
            words.push(format!("{} {what}", count(number, "account")));
        }
    }
    if blast.last_admin_lost > 0 {
        words.push(format!("{} without an admin", count(blast.last_admin_lost, "server")));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use bastio_protocol::api::{Presence, StepPreview};
    use bastio_protocol::{ServerName, Username};

    use super::*;

    #[test]
    fn each_server_with_its_steps_and_its_alarm() {
        let server = |name: &str, steps: &[(&str, &str)], last_admin_lost| ServerPreview {
            server: ServerName::parse(name).expect("a name"),
            presence: Presence::Connected,
            steps: steps
                .iter()
                .map(|(action, detail)| StepPreview {
                    username: Username::parse("alice").expect("a name"),
                    action: (*action).to_owned(),
                    detail: (*detail).to_owned(),
                })
                .collect(),
            last_admin_lost,
        };
        let preview = Preview {
            servers: vec![
                server("web-1", &[("add-user", "with sudo"), ("add-key", "SHA256:x")], false),
                server("web-2", &[("remove-user", "")], true),
                server("web-3", &[], false),
            ],
            ..Preview::default()
        };
        assert_eq!(
            table(&preview).render(false),
            "SERVER  ACCOUNT  WOULD DO     DETAIL\n\
             web-1   alice    add-user     with sudo\n\
             -       alice    add-key      SHA256:x\n\
             web-2   alice    remove-user  -\n\
             -       -        LOCKOUT      nobody with sudo rights and a key would be left on web-2\n\
             web-3   -        nothing      what was not sent yet is taken back\n"
        );
    }

    #[test]
    fn only_what_happens_is_counted() {
        let blast = BlastRadius { servers: 1, of: 3, logins: 1, lost: 1, ..BlastRadius::default() };
        assert_eq!(summary(&blast), "1 of 3 servers, 1 login, 1 account go");
        let blast = BlastRadius {
            servers: 2,
            of: 2,
            logins: 3,
            gained: 4,
            lost: 0,
            sudo_gained: 1,
            sudo_lost: 2,
            last_admin_lost: 1,
        };
        assert_eq!(
            summary(&blast),
            "2 of 2 servers, 3 logins, 4 accounts come, 1 account get sudo, 2 accounts lose sudo, \
             1 server without an admin"
        );
    }
}
