//! Keys in real folders: made, replaced, sealed, and every point at which that may be cut off.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::signing::{Credentials, Signing};

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::parse(text).unwrap()
}

/// Sealed at next to no cost.
fn seal_at(folder: &Path, with: &str) -> Result<KeyFiles, SigningKeyError> {
    KeyFiles::seal_cheaply(folder, &passphrase(with))
}

fn all_sealed(files: &KeyFiles) -> bool {
    files.all().all(|file| file.sealed().is_some())
}

#[test]
fn a_key_is_made_once_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    // What a crash in the middle of the first start leaves behind.
    std::fs::write(folder.path().join(PART), "torn").unwrap();
    assert!(KeyFiles::read(folder.path()).unwrap().is_none());
    let made = KeyFiles::load_or_make(folder.path()).unwrap();
    assert_eq!(names(folder.path()), [FILE]);
    let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let read = KeyFiles::load_or_make(folder.path()).unwrap();
    assert_eq!(read.verifying_key(), made.verifying_key());
}

#[test]
fn old_keys_are_kept_until_nobody_needs_them() {
    let folder = tempfile::tempdir().unwrap();
    let first = KeyFiles::load_or_make(folder.path()).unwrap().verifying_key();
    let second = KeyFiles::rotate(folder.path(), None).unwrap().verifying_key();
    let mut files = KeyFiles::rotate(folder.path(), None).unwrap();
    assert_eq!(files.kept(), 2);
    for old in [first, second] {
        assert_ne!(old, files.verifying_key());
        let keys = files.open(None).unwrap();
        assert_eq!(keys.find(&old.fingerprint()).unwrap().verifying_key(), old);
    }
    files.forget_old(&BTreeSet::from([first.fingerprint()])).unwrap();
    assert!(files.open(None).unwrap().find(&second.fingerprint()).is_none());
    let read = KeyFiles::load_or_make(folder.path()).unwrap();
    assert_eq!((read.kept(), read.verifying_key()), (1, files.verifying_key()));
    assert_eq!(names(folder.path()), [FILE, "signing_key.old-1"]);
    files.forget_old(&BTreeSet::new()).unwrap();
    assert_eq!(names(folder.path()), [FILE]);
    let keys = files.open(None).unwrap();
    assert!(keys.find(&files.verifying_key().fingerprint()).is_some());
}

#[test]
fn a_crash_between_keeping_and_replacing_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let first = KeyFiles::load_or_make(folder.path()).unwrap().verifying_key();
    std::fs::hard_link(folder.path().join(FILE), folder.path().join("signing_key.old-1")).unwrap();
    let mut files = KeyFiles::load_or_make(folder.path()).unwrap();
    files.forget_old(&BTreeSet::from([first.fingerprint()])).unwrap();
    assert_eq!((files.verifying_key(), files.kept()), (first, 0));
}

#[test]
fn an_unusable_key_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    std::fs::write(&path, "torn").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let error = KeyFiles::load_or_make(folder.path()).unwrap_err();
    assert!(matches!(error, SigningKeyError::Key { .. }), "{error}");
    assert!(KeyFiles::rotate(folder.path(), None).is_err());
    assert!(seal_at(folder.path(), "correct horse").is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "torn");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let error = KeyFiles::load_or_make(folder.path()).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
}

#[test]
fn keys_are_sealed_and_made_plain_again_old_ones_too() {
    let folder = tempfile::tempdir().unwrap();
    let first = KeyFiles::load_or_make(folder.path()).unwrap().verifying_key();
    let current = KeyFiles::rotate(folder.path(), None).unwrap().verifying_key();
    let plain = std::fs::read(folder.path().join(FILE)).unwrap();
    let files = seal_at(folder.path(), "correct horse").unwrap();
    assert!(all_sealed(&files) && files.is_sealed());
    assert_eq!(names(folder.path()), [FILE, "signing_key.old-1"]);
    for name in names(folder.path()) {
        let mode = std::fs::metadata(folder.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(files.verifying_key(), current, "known without the passphrase");
    assert!(matches!(files.open(None), Err(SigningKeyError::Locked)));
    let wrong = files.open(Some(&passphrase("another one")));
    assert!(matches!(
        wrong,
        Err(SigningKeyError::Sealed { source: SealError::WrongPassphrase, .. })
    ));
    let keys = files.open(Some(&passphrase("correct horse"))).unwrap();
    assert_eq!(keys.verifying_key(), current);
    assert!(keys.find(&first.fingerprint()).is_some());

    // Neither a second passphrase nor a wrong one changes anything.
    assert!(seal_at(folder.path(), "another one").is_err());
    assert!(KeyFiles::unseal(folder.path(), &passphrase("another one")).is_err());
    assert!(all_sealed(&KeyFiles::load_or_make(folder.path()).unwrap()));
    let files = KeyFiles::unseal(folder.path(), &passphrase("correct horse")).unwrap();
    assert!(!files.is_sealed());
    assert_eq!(std::fs::read(folder.path().join(FILE)).unwrap(), plain);
}

#[test]
fn what_takes_a_sealed_keys_place_is_sealed_like_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = KeyFiles::load_or_make(folder.path()).unwrap().verifying_key();
    seal_at(folder.path(), "correct horse").unwrap();
    for with in [None, Some(passphrase("another one"))] {
        assert!(KeyFiles::rotate(folder.path(), with.as_ref()).is_err());
        assert_eq!(names(folder.path()), [FILE]);
    }
    let with = passphrase("correct horse");
    let files = KeyFiles::rotate(folder.path(), Some(&with)).unwrap();
    assert!(all_sealed(&files));
    let keys = files.open(Some(&with)).unwrap();
    assert_ne!(keys.verifying_key(), first);
    assert!(keys.find(&first.fingerprint()).is_some());
    // Nobody needs the passphrase to see which old ones are needed.
    let mut files = KeyFiles::load_or_make(folder.path()).unwrap();
    files.forget_old(&BTreeSet::new()).unwrap();
    assert_eq!(names(folder.path()), [FILE]);
}

/// Cut off before each step in turn, in both directions: each key is there, plain or sealed, and what
/// was begun can be ended.
#[test]
fn wherever_sealing_is_cut_off_every_key_is_there_and_it_can_be_ended() {
    type Doing = fn(&Path, &Passphrase, &mut Work<'_>) -> Result<KeyFiles, SigningKeyError>;
    let with = passphrase("correct horse");
    for (doing, back) in [(seal_all as Doing, unseal_all as Doing), (unseal_all, seal_all)] {
        let mut cuts = 0;
        for cut in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let first = KeyFiles::load_or_make(folder.path()).unwrap().verifying_key();
            let current = KeyFiles::rotate(folder.path(), None).unwrap().verifying_key();
            let mut whole = Work { cost: Cost::TEST, step: &mut || Ok(()) };
            // Where it begins: sealed for one direction, plain for the other.
            back(folder.path(), &with, &mut whole).unwrap();
            let begun = KeyFiles::load_or_make(folder.path()).unwrap().is_sealed();
            let mut steps = 0;
            let mut step = || {
                steps += 1;
                if steps > cut { Err(SigningKeyError::NoRandomness) } else { Ok(()) }
            };
            let mut work = Work { cost: Cost::TEST, step: &mut step };
            let done = doing(folder.path(), &with, &mut work).is_ok();
            let files = KeyFiles::load_or_make(folder.path()).unwrap();
            assert_eq!(names(folder.path()), [FILE, "signing_key.old-1"], "cut {cut}");
            let keys = files.open(Some(&with)).unwrap();
            assert_eq!(keys.verifying_key(), current, "cut {cut}");
            assert!(keys.find(&first.fingerprint()).is_some(), "cut {cut}");
            if done {
                assert_ne!(files.is_sealed(), begun);
                break;
            }
            let mut work = Work { cost: Cost::TEST, step: &mut || Ok(()) };
            let files = doing(folder.path(), &with, &mut work).unwrap();
            assert_eq!(files.is_sealed(), !begun, "cut {cut}");
            assert!(files.all().all(|file| file.sealed().is_some() != begun), "cut {cut}");
            cuts += 1;
        }
        assert_eq!(cuts, 6, "three steps for each of two keys");
    }
}

#[test]
fn a_sealed_key_that_is_damaged_or_of_another_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    KeyFiles::load_or_make(folder.path()).unwrap();
    seal_at(folder.path(), "correct horse").unwrap();
    let path = folder.path().join(FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    for (content, expected) in [
        (text.replacen("version 1", "version 7", 1), "version 7"),
        (text.get(..100).unwrap().to_owned(), "damaged"),
        (format!("{text}{}", "x".repeat(5000)), "longer than"),
    ] {
        std::fs::write(&path, &content).unwrap();
        let error = KeyFiles::load_or_make(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content, "left as it is");
    }
}

#[test]
fn a_key_that_is_a_credential_is_in_no_file_and_is_missed_when_it_is_gone() {
    let (folder, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path().join(FILE);
    let first = KeyFiles::load_or_make(folder.path()).unwrap().verifying_key();
    let given = Credentials::in_folder(credentials.path());
    assert!(given.key().unwrap().is_none());
    std::fs::copy(&path, credentials.path().join("signing_key")).unwrap();
    let key = || given.key().unwrap().unwrap();
    // Both are the same: taken, with a warning.
    KeyFiles::with_credential(folder.path(), key()).unwrap();
    std::fs::remove_file(&path).unwrap();
    for _ in 0..2 {
        let files = KeyFiles::with_credential(folder.path(), key()).unwrap();
        let (signing, why) = Signing::new(files, None);
        assert!(why.is_none());
        assert_eq!(signing.keys().unwrap().verifying_key(), first);
        assert_eq!(names(folder.path()), [MARK]);
    }
    // Without it no other key is made, which no agent would obey.
    for error in [
        KeyFiles::load_or_make(folder.path()).unwrap_err(),
        KeyFiles::rotate(folder.path(), None).unwrap_err(),
        seal_at(folder.path(), "correct horse").unwrap_err(),
    ] {
        assert!(matches!(error, SigningKeyError::CredentialGone { .. }), "{error}");
    }
    assert_eq!(names(folder.path()), [MARK]);
    // Two keys are no key.
    let other = tempfile::tempdir().unwrap();
    KeyFiles::load_or_make(other.path()).unwrap();
    let error = KeyFiles::with_credential(other.path(), key()).unwrap_err();
    assert!(matches!(error, SigningKeyError::TwoKeys { .. }), "{error}");
    std::fs::write(credentials.path().join("signing_key"), "torn").unwrap();
    assert!(matches!(given.key(), Err(SigningKeyError::Key { .. })));
}
