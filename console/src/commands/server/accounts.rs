//! The accounts of one server as a table. What hardly any account has, has a column only where one does.

use bastio_protocol::api::Account;
use bastio_protocol::{KeyGrant, Sudo, SudoPolicy, Username, WantedAccount};

use crate::commands::yes_or_no;
use crate::moment::utc;
use crate::table::{Cell, Table, Tone};

/// A row a key; an account without keys has one row.
pub fn table(accounts: &[Account]) -> Table {
    let rows: Vec<Row<'_>> = accounts.iter().flat_map(Row::all).collect();
    let any = |has: fn(&Row<'_>) -> bool| rows.iter().any(has);
    let numbered = any(|row| row.uid().is_some());
    let locked = any(|row| row.is_locked());
    let ends = any(|row| row.until().is_some());
    let restricts = any(|row| !row.options().is_empty());
    let mut header = vec!["ACCOUNT"];
    header.extend(numbered.then_some("UID"));
    header.extend(locked.then_some("STATE"));
    header.push("SUDO");
    header.extend(ends.then_some("UNTIL (UTC)"));
    header.push("KEY");
    header.extend(restricts.then_some("KEY OPTIONS"));
    let mut table = Table::new(&header);
    for row in &rows {
        let mut cells: Vec<Cell> = vec![row.account.username.as_str().into()];
        cells.extend(
            numbered.then(|| row.uid().map(|uid| uid.to_string()).unwrap_or_default().into()),
        );
        cells.extend(locked.then(|| row.state()));
        cells.push(sudo(row.account));
        cells.extend(ends.then(|| row.until().map(utc).unwrap_or_default().into()));
        cells.push(row.key.into());
        cells.extend(restricts.then(|| row.options().into()));
        table.row(cells);
    }
    table
}

/// One key of an account.
struct Row<'a> {
    account: &'a Account,
    /// Its fingerprint; empty when the account has none.
    key: &'a str,
    /// The same with what it says beyond itself.
    grant: Option<&'a KeyGrant>,
}

impl<'a> Row<'a> {
    fn all(account: &'a Account) -> Vec<Self> {
        if account.keys.is_empty() {
            return vec![Row { account, key: "", grant: None }];
        }
        let grants = || account.wanted.iter().flat_map(|wanted| &wanted.keys);
        let row = |key: &'a String| Row {
            account,
            key,
            grant: grants().find(|grant| grant.public_key.fingerprint() == *key),
        };
        account.keys.iter().map(row).collect()
    }

    fn uid(&self) -> Option<u32> {
        self.account.wanted.as_ref().and_then(|wanted| wanted.spec.uid)
    }

    fn is_locked(&self) -> bool {
        self.account.wanted.as_ref().is_some_and(|wanted| wanted.locked)
    }

    fn state(&self) -> Cell {
        if self.is_locked() { Cell::new("locked", Tone::Warn) } else { "open".into() }
    }

    /// The end of this key, be it that of the account.
    fn until(&self) -> Option<i64> {
        let account = self.account.wanted.as_ref().and_then(|wanted| wanted.until);
        let key = self.grant.and_then(|grant| grant.until);
        [account, key].into_iter().flatten().min()
    }

    fn options(&self) -> &str {
        self.grant.map(|grant| grant.options.as_str()).unwrap_or_default()
    }
}

fn sudo(account: &Account) -> Cell {
    match account.wanted.as_deref() {
        Some(WantedAccount { sudo: Sudo::Policy(policy), .. }) => in_words(policy).into(),
        _ => yes_or_no(account.sudo),
    }
}

/// `/usr/bin/id (as root, until 2026-12-01 18:00:00 UTC)`
fn in_words(policy: &SudoPolicy) -> String {
    let commands: Vec<String> = policy.commands.iter().map(ToString::to_string).collect();
    let commands = if commands.is_empty() { "all".to_owned() } else { commands.join(", ") };
    let run_as: Vec<&str> = policy.run_as.iter().map(Username::as_str).collect();
    let mut limits = Vec::new();
    limits.extend((!run_as.is_empty()).then(|| format!("as {}", run_as.join(" or "))));
    limits.extend(policy.password.then(|| "with password".to_owned()));
    limits.extend(policy.not_before.map(|at| format!("from {} UTC", utc(at))));
    limits.extend(policy.not_after.map(|at| format!("until {} UTC", utc(at))));
    if limits.is_empty() { commands } else { format!("{commands} ({})", limits.join(", ")) }
}
