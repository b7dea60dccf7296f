//! Programs that stand for sshd, and what is made of their answers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

fn fake(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("sshd");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn files(shape: &Shape) -> Vec<String> {
    shape.files.iter().map(ToString::to_string).collect()
}

#[test]
fn the_default_is_what_sshd_does_without_configuration() {
    let shape = Shape::default();
    assert_eq!(files(&shape), DEFAULT_FILES);
    assert!(shape.warnings.is_empty());
}

#[test]
fn what_lets_in_others_or_nobody_is_told() {
    let text = "authorizedkeysfile /etc/k/%u none\npubkeyauthentication no\nauthorizedkeyscommand /bin/x\n";
    let shape = Shape::from_effective(&Effective::parse(text).unwrap(), Some(Version(8, 4)));
    assert_eq!(files(&shape), ["/etc/k/%u"]);
    assert!(shape.warnings[0].contains("/bin/x names, too (AuthorizedKeysCommand)"));
    assert!(shape.warnings[1].contains("PubkeyAuthentication no"));
    assert!(matches!(shape.clock, Clock::Local(_)));
}

#[test]
fn an_account_is_asked_for_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let program = fake(folder.path(), r#"echo "authorizedkeysfile /k/$1/$2/$3""#);
    let of = |account| settings(&program, account).unwrap().key_files()[0].to_string();
    assert_eq!(of(None), "/k/-T//");
    let asked = of(Some("alice"));
    assert!(asked.starts_with("/k/-T/-C/user=alice,host=localhost,addr=127.0.0.1"), "{asked}");
}

#[test]
fn a_newer_sshd_is_asked_without_its_host_keys() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"[ "$1" = -G ] && echo authorizedkeysfile k && exit 0
        echo "sshd: no hostkeys available -- exiting." >&2; exit 1"#;
    let program = fake(folder.path(), script);
    assert_eq!(settings(&program, None).unwrap().key_files(), [Pattern::new("k")]);
}

#[test]
fn what_sshd_complains_about_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for (script, why) in [
        ("echo 'line 3: bad' >&2; exit 255", "line 3: bad"),
        ("exit 0", "its settings are not to be read"),
        ("exit 7", "exit code 7"),
        ("echo 'Missing privilege separation directory: /etc/passwd' >&2; exit 255", NO_FOLDER),
    ] {
        let program = fake(folder.path(), script);
        assert!(settings(&program, None).unwrap_err().starts_with(why), "{script}");
    }
    assert!(settings(Path::new("/nonexistent/sshd"), None).is_err());
}

#[test]
fn the_version_is_found_on_either_output() {
    let folder = tempfile::tempdir().unwrap();
    let program = fake(folder.path(), "echo OpenSSH_9.9p1, OpenSSL 3");
    assert_eq!(version(&program), Some(Version(9, 9)));
    let program = fake(folder.path(), "echo OpenSSH_8.0p1 >&2; exit 1");
    assert_eq!(version(&program), Some(Version(8, 0)));
}
