//! Whether a main sudoers file takes in a folder: pure text (sudoers(5), "Including other files").
//!
//! This file must not know where the files are.

use std::path::Path;

/// Whether `text`, the file at `main`, says `@includedir` or `#includedir` of `folder`.
pub(super) fn has_folder(text: &str, main: &Path, folder: &Path) -> bool {
    let base = main.parent().unwrap_or(Path::new("/"));
    text.lines().filter_map(named_folder).any(|named| base.join(named) == folder)
}

/// What one line includes, without quotes and escapes.
fn named_folder(line: &str) -> Option<String> {
    let rest = line.trim().strip_prefix(['@', '#'])?.strip_prefix("includedir")?;
    let path = rest.strip_prefix([' ', '\t'])?.trim();
    let bare = path.strip_prefix('"').and_then(|path| path.strip_suffix('"'));
    let path = bare.map_or_else(|| path.replace('\\', ""), str::to_owned);
    Some(path.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_folder_as_sudoers_names_it() {
        for (text, expected) in [
            ("@includedir /etc/sudoers.d\n", true),
            ("root ALL=ALL\n#includedir /etc/sudoers.d", true),
            ("  @includedir\t\"/etc/sudoers.d/\"  \n", true),
            ("@includedir sudoers.d\n", true),
            ("# includedir /etc/sudoers.d\n", false),
            ("## @includedir /etc/sudoers.d\n", false),
            ("@include /etc/sudoers.d\n", false),
            ("@includedir /etc/sudoers.d.old\n", false),
            ("@includedir /etc/sudo\\ ers.d\n", false),
            ("@includedir/etc/sudoers.d\n", false),
            ("", false),
        ] {
            let (main, folder) = (Path::new("/etc/sudoers"), Path::new("/etc/sudoers.d"));
            assert_eq!(has_folder(text, main, folder), expected, "{text:?}");
        }
    }
}
