//! Keys made here and by OpenSSH, read and refused.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A key file made by OpenSSH.
fn keygen(folder: &Path, options: &[&str]) -> PathBuf {
    let path = folder.join("key");
    let made = Command::new("ssh-keygen")
        .args(options)
        .args(["-q", "-C", "a comment", "-f"])
        .arg(&path)
        .status()
        .expect("these tests need OpenSSH's ssh-keygen");
    assert!(made.success());
    path
}

fn ssh_keygen_says(arguments: &[&str], path: &Path) -> String {
    let output = Command::new("ssh-keygen").args(arguments).arg(path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn openssh_reads_what_we_write() {
    for kind in [KeyKind::Ed25519, KeyKind::Rsa { bits: 2048 }] {
        let folder = folder();
        let path = folder.path().join("key");
        let key = PrivateKey::generate(kind).unwrap();
        key.write_new(&path).unwrap();
        let line = ssh_keygen_says(&["-y", "-f"], &path);
        assert_eq!(line.trim_end(), key.public_line());
        assert_eq!(key.public_line().split(' ').count(), 2);
        let fingerprint = ssh_keygen_says(&["-l", "-f"], &path);
        assert!(fingerprint.contains(&key.fingerprint()), "{fingerprint}");
        let again = PrivateKey::read(&path).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(again.is_rsa(), kind != KeyKind::Ed25519);
    }
}

#[test]
fn reads_the_formats_of_openssh() {
    for options in [
        &["-t", "ed25519", "-N", ""][..],
        &["-t", "rsa", "-b", "2048", "-N", ""],
        &["-t", "rsa", "-b", "2048", "-N", "", "-m", "PEM"],
        &["-t", "rsa", "-b", "2048", "-N", "", "-m", "PKCS8"],
    ] {
        let folder = folder();
        let path = keygen(folder.path(), options);
        let key = PrivateKey::read(&path).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        assert_eq!(line.parse::<PublicKeyBlob>().unwrap(), key.public());
        assert_eq!(line.trim_end(), format!("{} a comment", key.public_line()));
    }
}

#[test]
fn reads_pkcs8_ed25519() {
    // RFC 8410 section 10.3.
    let text = "-----BEGIN PRIVATE KEY-----\n\
                MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                -----END PRIVATE KEY-----\n";
    let key = PrivateKey::from_openssh(text).unwrap();
    assert_eq!(
        key.public_line(),
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBm/RAlphM3+hUG6wWfcO5bIUIaqMLa2ywxcOK1wMWbh"
    );
    assert!(!key.is_rsa());
}

#[test]
fn encrypted_keys_are_told_apart() {
    for format in ["RFC4716", "PEM", "PKCS8"] {
        let folder = folder();
        let path =
            keygen(folder.path(), &["-t", "rsa", "-b", "2048", "-N", "secret", "-m", format]);
        let error = PrivateKey::read(&path).unwrap_err();
        assert!(matches!(error, KeyError::Encrypted), "{format}: {error}");
    }
}

#[test]
fn small_and_foreign_keys_are_refused() {
    let folder = folder();
    let path = keygen(folder.path(), &["-t", "rsa", "-b", "1024", "-N", ""]);
    let error = PrivateKey::read(&path).unwrap_err();
    assert!(matches!(error, KeyError::BadSize { bits: 1024 }), "{error}");
    let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    let error = line.parse::<PublicKeyBlob>().unwrap_err();
    assert!(matches!(error, KeyError::BadSize { bits: 1024 }), "{error}");
    let error = PrivateKey::generate(KeyKind::Rsa { bits: 1024 }).unwrap_err();
    assert!(matches!(error, KeyError::BadSize { bits: 1024 }), "{error}");

    std::fs::remove_file(&path).unwrap();
    let path = keygen(folder.path(), &["-t", "ecdsa", "-N", ""]);
    let error = PrivateKey::read(&path).unwrap_err();
    assert!(matches!(error, KeyError::Unsupported(_)), "{error}");
    for text in ["", "ssh-ed25519", "ssh-ed25519 AAAA", "-----BEGIN PRIVATE KEY-----"] {
        assert!(text.parse::<PublicKeyBlob>().is_err(), "{text}");
        let error = PrivateKey::from_openssh(text).unwrap_err();
        assert!(matches!(error, KeyError::Unreadable(_)), "{error}");
    }
}

#[test]
fn files_others_can_read_are_refused() {
    let folder = folder();
    let path = folder.path().join("key");
    PrivateKey::generate(KeyKind::Ed25519).unwrap().write_new(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let error = PrivateKey::read(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
    PrivateKey::read(&path).unwrap();
}

#[test]
fn nothing_is_overwritten() {
    let folder = folder();
    let path = folder.path().join("key");
    std::fs::write(&path, "precious").unwrap();
    let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    assert!(matches!(key.write_new(&path), Err(KeyError::Exists(_))));
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &link).unwrap();
    assert!(matches!(key.write_new(&link), Err(KeyError::Exists(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    assert!(!folder.path().join("elsewhere").exists());
}

#[test]
fn debug_shows_no_secret() {
    let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    assert_eq!(format!("{key:?}"), format!("PrivateKey({})", key.fingerprint()));
}

#[test]
fn blobs_compare_without_comments() {
    let key = PrivateKey::generate(KeyKind::Ed25519).unwrap().public();
    let commented: PublicKeyBlob = format!("{key} somebody@somewhere").parse().unwrap();
    assert_eq!(commented, key);
    assert_eq!(PublicKeyBlob::from_bytes(key.as_bytes()).unwrap(), key);
    let pin: HostKeyPin = key.line().parse().unwrap();
    assert_eq!(pin.fingerprint(), key.fingerprint());
    assert_eq!(pin.to_string(), key.line());
}

const PURPOSE: &str = "bastio-replace-key";

/// `ssh-keygen -Y ...` with `message` on its standard input; whether it was content.
fn keygen_y(arguments: &[&str], message: &[u8]) -> bool {
    use std::io::Write as _;
    let mut child = Command::new("ssh-keygen")
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(message).unwrap();
    child.wait().unwrap().success()
}

#[test]
fn openssh_accepts_our_signatures() {
    for kind in [KeyKind::Ed25519, KeyKind::Rsa { bits: 2048 }] {
        let folder = folder();
        let key = PrivateKey::generate(kind).unwrap();
        let message = b"old line\nnew line\n";
        let (signature, signers) = (folder.path().join("sig"), folder.path().join("signers"));
        std::fs::write(&signature, key.sign(PURPOSE, message).unwrap()).unwrap();
        std::fs::write(&signers, format!("agent {}\n", key.public_line())).unwrap();
        let (signature, signers) = (signature.to_str().unwrap(), signers.to_str().unwrap());
        let check = ["-Y", "check-novalidate", "-n", PURPOSE, "-s", signature];
        assert!(keygen_y(&check, message), "{kind:?}");
        let verify = ["-Y", "verify", "-f", signers, "-I", "agent", "-n", PURPOSE, "-s", signature];
        assert!(keygen_y(&verify, message), "{kind:?}");
        assert!(!keygen_y(&verify, b"another text\n"), "{kind:?}");
    }
}

#[test]
fn openssh_signatures_are_accepted() {
    for options in [&["-t", "ed25519", "-N", ""][..], &["-t", "rsa", "-b", "2048", "-N", ""]] {
        let folder = folder();
        let path = keygen(folder.path(), options);
        let message = folder.path().join("message");
        std::fs::write(&message, "old line\nnew line\n").unwrap();
        let sign = ["-Y", "sign", "-f", path.to_str().unwrap(), "-n", PURPOSE];
        for hash in ["hashalg=sha512", "hashalg=sha256"] {
            let _ = std::fs::remove_file(folder.path().join("message.sig"));
            let sign = [&sign[..], &["-O", hash, message.to_str().unwrap()]].concat();
            assert!(keygen_y(&sign, b""), "{sign:?}");
            let signature = std::fs::read_to_string(folder.path().join("message.sig")).unwrap();
            let key = PrivateKey::read(&path).unwrap().public();
            key.verify(PURPOSE, b"old line\nnew line\n", &signature).unwrap();
        }
    }
}

#[test]
fn a_signature_is_good_for_one_key_one_text_and_one_purpose() {
    for kind in [KeyKind::Ed25519, KeyKind::Rsa { bits: 2048 }] {
        let (key, other) =
            (PrivateKey::generate(kind).unwrap(), PrivateKey::generate(kind).unwrap());
        let signature = key.sign(PURPOSE, b"text").unwrap();
        key.public().verify(PURPOSE, b"text", &signature).unwrap();
        let foreign = other.sign(PURPOSE, b"text").unwrap();
        let cut = signature.replace("-----END SSH SIGNATURE-----", "");
        for (purpose, text, signature) in [
            (PURPOSE, "text2", signature.as_str()),
            (PURPOSE, "", &signature),
            ("file", "text", &signature),
            ("", "text", &signature),
            (PURPOSE, "text", &foreign),
            (PURPOSE, "text", &cut),
            (PURPOSE, "text", ""),
        ] {
            let error = key.public().verify(purpose, text.as_bytes(), signature).unwrap_err();
            assert!(matches!(error, KeyError::BadSignature), "{error}");
        }
        assert!(matches!(key.sign("", b"text"), Err(KeyError::CannotSign(_))));
    }
}
