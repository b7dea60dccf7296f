//! One command of a sudo rule: an absolute path with arguments, or `sudoedit` with files.
//!
//! Written as people type it, with the wildcards of sudoers(5); what sudoers(5) reads otherwise than it
//! looks is refused, what it wants escaped is escaped here. This file must not know rules.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{SudoPolicyError, fault};

/// Longest command with its arguments, in bytes.
const MAX_LEN: usize = 1024;
/// Characters with a meaning in sudoers(5), which a backslash takes away.
const ESCAPED: [char; 4] = [',', ':', '=', '#'];
/// The wildcards of sudoers(5).
const WILDCARDS: [char; 4] = ['*', '?', '[', ']'];
/// Programs that run or change anything for whoever may run them with arguments of their choice.
const AS_GOOD_AS_ROOT: [&str; 34] = [
    "apt",
    "apt-get",
    "awk",
    "bash",
    "busybox",
    "chmod",
    "chown",
    "cp",
    "dash",
    "dd",
    "docker",
    "dpkg",
    "env",
    "find",
    "install",
    "less",
    "man",
    "more",
    "mount",
    "mv",
    "nano",
    "perl",
    "python3",
    "rsync",
    "rpm",
    "sh",
    "su",
    "sudo",
    "systemctl",
    "tar",
    "tee",
    "vi",
    "vim",
    "visudo",
];

/// A command that may be run with sudo: an absolute path, and arguments if those alone are allowed.
///
/// `*`, `?` and `[...]` are wildcards (in arguments they match blanks and slashes, too); `""` as the only
/// argument allows none; `\*`, `\?`, `\[` and `\]` stand for the characters themselves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SudoCommand(String);

impl SudoCommand {
    /// Parses a command.
    ///
    /// # Errors
    /// [`SudoPolicyError`] with what to write instead.
    pub fn parse(text: &str) -> Result<Self, SudoPolicyError> {
        let wrong = |why: &str| Err(fault(format!("{text:?}: {why}")));
        if text.len() > MAX_LEN {
            return Err(fault(format!("a command of more than {MAX_LEN} bytes; give a script")));
        }
        if !text.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
            return wrong("a command has printable ASCII characters only");
        }
        if text.split(' ').any(str::is_empty) {
            return wrong("one blank separates arguments, and none stands around them");
        }
        let (program, arguments) = text.split_once(' ').unwrap_or((text, ""));
        if program == "sudoedit" {
            check_files(arguments)?;
        } else {
            check_path(program)?;
            if program.ends_with("/sudoedit") {
                return wrong("write sudoedit without a path");
            }
        }
        if arguments.starts_with('^') {
            return wrong(
                "arguments that begin with ^ are a pattern to some versions of sudo only",
            );
        }
        // `""` says that there are no arguments.
        check_characters(program)?;
        if arguments != "\"\"" {
            check_characters(arguments)?;
        }
        Ok(Self(text.to_owned()))
    }

    /// The command as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The command for a line of sudoers(5).
    pub(super) fn escaped(&self) -> String {
        let mut escaped = String::with_capacity(self.0.len());
        for c in self.0.chars() {
            if ESCAPED.contains(&c) {
                escaped.push('\\');
            }
            escaped.push(c);
        }
        escaped
    }

    /// What it gives beyond what it looks like.
    pub(super) fn warnings(&self) -> Vec<String> {
        let (program, arguments) = self.0.split_once(' ').unwrap_or((&self.0, ""));
        let mut warnings = Vec::new();
        if has_wildcard(program) {
            warnings
                .push(format!("{self}: a wildcard in the path allows whatever comes to match it"));
        }
        if has_wildcard(arguments) {
            warnings.push(format!(
                "{self}: a wildcard in the arguments also matches blanks, slashes and further arguments"
            ));
        }
        let name = program.rsplit('/').next().unwrap_or_default();
        let free = arguments.is_empty() || has_wildcard(arguments);
        if free && AS_GOOD_AS_ROOT.contains(&name) {
            warnings.push(format!("{self}: {name} with any arguments can run or change anything"));
        }
        warnings
    }
}

/// An absolute path to a program, wildcards allowed.
fn check_path(path: &str) -> Result<(), SudoPolicyError> {
    let parts = path.strip_prefix('/').map(|rest| rest.split('/'));
    if parts.is_some_and(|mut parts| parts.all(|part| !matches!(part, "" | "." | ".."))) {
        return Ok(());
    }
    Err(fault(format!(
        "{path:?} is no absolute path of a program; no '!', no folders, no '..'; \
         what is not listed is not allowed"
    )))
}

/// Files to edit: absolute, and exactly those.
fn check_files(files: &str) -> Result<(), SudoPolicyError> {
    if files.is_empty() || has_wildcard(files) {
        return Err(fault("sudoedit needs the files to edit, without wildcards".to_owned()));
    }
    files.split(' ').try_for_each(check_path)
}

fn check_characters(text: &str) -> Result<(), SudoPolicyError> {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let good = match c {
            '"' | '\'' => false,
            '\\' => chars.next().is_some_and(|next| WILDCARDS.contains(&next)),
            _ => true,
        };
        if !good {
            return Err(fault(format!(
                "{text:?}: sudo takes quotes and backslashes to the letter; leave them out, \
                 but for \\* \\? \\[ \\] and \"\" as the only argument"
            )));
        }
    }
    match brackets(text) {
        true => Ok(()),
        false => Err(fault(format!("{text:?}: write [...] with letters, digits and - inside"))),
    }
}

/// Whether each `[` has its `]`, and nothing between them that sudoers(5) reads as the end of a command.
fn brackets(text: &str) -> bool {
    let text = text.replace("\\[", "").replace("\\]", "");
    let mut rest = text.as_str();
    while let Some(start) = rest.find(['[', ']']) {
        let Some((inside, behind)) = rest
            .get(start..)
            .and_then(|found| found.strip_prefix('['))
            .and_then(|found| found.split_once(']'))
        else {
            return false;
        };
        let inside = inside.strip_prefix('!').unwrap_or(inside);
        if inside.is_empty()
            || !inside.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        {
            return false;
        }
        rest = behind;
    }
    true
}

fn has_wildcard(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            _ if WILDCARDS.contains(&c) => return true,
            _ => {}
        }
    }
    false
}

impl fmt::Display for SudoCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SudoCommand {
    type Error = SudoPolicyError;

    fn try_from(text: String) -> Result<Self, SudoPolicyError> {
        Self::parse(&text)
    }
}

impl std::str::FromStr for SudoCommand {
    type Err = SudoPolicyError;

    fn from_str(text: &str) -> Result<Self, SudoPolicyError> {
        Self::parse(text)
    }
}

impl From<SudoCommand> for String {
    fn from(command: SudoCommand) -> Self {
        command.0
    }
}
