//! All keys of an account at once: what stands on disk, and making it what is wanted.
//!
//! This file must not know how a file is found or written.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bastio_protocol::{Change, KeyFile, KeyGrant, KeyLine, KeyLineSpec, PublicKey};

use super::{KeyFolder, KeysOnDiskError, Unflushed, in_first, places};
use crate::accounts::Account;
use crate::sshd::{Location, Shape};

/// A line that gives access, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLine {
    /// The line.
    pub line: KeyLine,
    /// The key as bastio would have granted it, its end as this sshd reads it; `None` when bastio
    /// would never have written such options.
    pub grant: Option<KeyGrant>,
    /// The file.
    pub file: PathBuf,
}

/// Every line that gives access to the account, in sshd's order. A place that is not there, or that
/// root cannot look into, holds nothing of ours; it is an error when no other place can be read.
///
/// # Errors
/// [`KeysOnDiskError`].
pub fn read_keys(account: &Account, shape: &Shape) -> Result<Vec<FoundLine>, KeysOnDiskError> {
    let (mut lines, mut first, mut reached) = (Vec::new(), None, false);
    for place in places::of(account, shape) {
        match place.and_then(|location| read_place(account, shape, &location)) {
            Ok(found) => {
                reached = true;
                lines.extend(found);
            }
            Err(error) if error.is_about_the_place() => {
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    first.filter(|_| !reached).map_or(Ok(lines), Err)
}

/// The keys of ours as they were granted, wherever they stand, each once.
///
/// # Errors
/// As [`read_keys`], and [`KeysOnDiskError::Altered`].
pub fn ours(account: &Account, shape: &Shape) -> Result<Vec<KeyGrant>, KeysOnDiskError> {
    let mut ours = Vec::new();
    for found in read_keys(account, shape)?.into_iter().filter(|found| found.line.ours) {
        let grant = found.grant.ok_or(KeysOnDiskError::Altered { path: found.file })?;
        if !ours.contains(&grant) {
            ours.push(grant);
        }
    }
    Ok(ours)
}

fn read_place(
    account: &Account,
    shape: &Shape,
    location: &Location,
) -> Result<Vec<FoundLine>, KeysOnDiskError> {
    let Some(folder) = places::find(account, location)? else { return Ok(Vec::new()) };
    let Some(stored) = folder.read(location.file())? else { return Ok(Vec::new()) };
    let file = folder.path_of(location.file());
    let found = |line: KeyLine| {
        let grant = line.spec().ok().and_then(|spec| grant(shape, spec));
        FoundLine { line, grant, file: file.clone() }
    };
    Ok(KeyFile::parse(&stored.bytes).keys().map(found).collect())
}

fn grant(shape: &Shape, spec: KeyLineSpec) -> Option<KeyGrant> {
    let until = match &spec.expiry {
        Some(expiry) => Some(shape.clock.moment(expiry)?),
        None => None,
    };
    Some(KeyGrant { public_key: spec.key, options: spec.options, until })
}

/// Makes the lines of ours exactly these, by one write of a file at most: first they are all in
/// the first usable file, then they go from the others. `until` in each is final already.
///
/// # Errors
/// [`KeysOnDiskError`]; the first file is as it was, or another could not be cleared after it.
pub fn set_keys(
    account: &Account,
    shape: &Shape,
    wanted: &[KeyGrant],
) -> Result<Change, KeysOnDiskError> {
    let edit_flushed = |folder: &KeyFolder, file: &str, edit: Edit<'_>| {
        folder.edit(file, edit).map(|change| (change, None))
    };
    set(account, shape, wanted, edit_flushed).map(|(change, _)| change)
}

/// The same for an account that was just made, which has no keys to lose: the first file is on the disk only once
/// that is flushed.
///
/// # Errors
/// As [`set_keys`].
pub fn set_first_keys(
    account: &Account,
    shape: &Shape,
    wanted: &[KeyGrant],
) -> Result<Option<Unflushed>, KeysOnDiskError> {
    let edit_unflushed = |folder: &KeyFolder, file: &str, edit: Edit<'_>| {
        let unflushed = folder.edit_unflushed(file, edit)?;
        Ok((changed(unflushed.is_none()), unflushed))
    };
    set(account, shape, wanted, edit_unflushed).map(|(_, unflushed)| unflushed)
}

/// Puts lines of others into the first usable file, save those of keys that some line there is for.
///
/// # Errors
/// [`KeysOnDiskError`]; the file is as it was.
pub fn put_back(
    account: &Account,
    shape: &Shape,
    lines: &[String],
) -> Result<Change, KeysOnDiskError> {
    if lines.is_empty() {
        return Ok(Change::Unchanged);
    }
    let put = |keys: &mut KeyFile| {
        let before = keys.clone();
        for line in lines {
            let _ = keys.put_back(line);
        }
        changed(*keys == before)
    };
    in_first(account, shape, |folder, file| folder.edit(file, put)).map(|(_, change)| change)
}

type Edit<'a> = &'a dyn Fn(&mut KeyFile) -> Change;
type Edited = (Change, Option<Unflushed>);

fn set(
    account: &Account,
    shape: &Shape,
    wanted: &[KeyGrant],
    write: impl Fn(&KeyFolder, &str, Edit<'_>) -> Result<Edited, KeysOnDiskError>,
) -> Result<Edited, KeysOnDiskError> {
    let specs = wanted.iter().map(|grant| spec(shape, grant)).collect::<Result<Vec<_>, _>>()?;
    let gone = no_longer_wanted(&read_keys(account, shape).or_else(none_yet)?, wanted);
    let (first, (mut change, unflushed)) = if specs.is_empty() {
        (None, (Change::Unchanged, None))
    } else {
        let (location, edited) = in_first(account, shape, |folder, file| {
            write(folder, file, &|keys| edit_first(keys, &specs, &gone))
        })?;
        (Some(location), edited)
    };
    for location in places::of(account, shape).into_iter().flatten() {
        if Some(&location) == first.as_ref() {
            continue;
        }
        let clear = |folder: KeyFolder| {
            folder.edit(location.file(), |keys| edit_other(keys, &specs, &gone))
        };
        match places::find(account, &location).and_then(|it| it.map(clear).transpose()) {
            Ok(Some(Change::Changed)) => change = Change::Changed,
            Ok(_) => {}
            // Nothing of ours can be there.
            Err(error) if error.is_about_the_place() => {}
            Err(error) => return Err(error),
        }
    }
    Ok((change, unflushed))
}

/// Where nothing can be read there is nothing of ours; whether a key can be written shows itself.
fn none_yet(error: KeysOnDiskError) -> Result<Vec<FoundLine>, KeysOnDiskError> {
    if error.is_about_the_place() { Ok(Vec::new()) } else { Err(error) }
}

/// The keys on lines of ours that are not wanted any more.
fn no_longer_wanted(found: &[FoundLine], wanted: &[KeyGrant]) -> BTreeSet<PublicKey> {
    let is_wanted = |key: &PublicKey| wanted.iter().any(|grant| grant.public_key == *key);
    let ours = found.iter().filter(|found| found.line.ours).map(|found| &found.line.key);
    ours.filter(|key| !is_wanted(key)).cloned().collect()
}

/// Of a wanted key only our line stays: a line of others would outlive it.
fn edit_first(keys: &mut KeyFile, specs: &[KeyLineSpec], gone: &BTreeSet<PublicKey>) -> Change {
    let before = keys.clone();
    let is_doubled = |line: &KeyLine| !line.ours && specs.iter().any(|it| it.key == line.key);
    let doubled: Vec<PublicKey> = keys.keys().filter(is_doubled).map(|line| line.key).collect();
    remove_each(keys, gone.iter().chain(&doubled));
    let _ = keys.set_ours(specs);
    changed(*keys == before)
}

/// In the files behind the first one there is no line of a key that is wanted or was ours.
fn edit_other(keys: &mut KeyFile, specs: &[KeyLineSpec], gone: &BTreeSet<PublicKey>) -> Change {
    let before = keys.clone();
    let wanted = specs.iter().map(|spec| &spec.key);
    remove_each(keys, gone.iter().chain(wanted));
    changed(*keys == before)
}

fn remove_each<'a>(file: &mut KeyFile, keys: impl Iterator<Item = &'a PublicKey>) {
    for key in keys {
        file.remove(key);
    }
}

fn changed(same: bool) -> Change {
    if same { Change::Unchanged } else { Change::Changed }
}

/// The line for a key, in words that this sshd understands. One that it would not understand is
/// refused: written without the option it would give more than is wanted.
fn spec(shape: &Shape, grant: &KeyGrant) -> Result<KeyLineSpec, KeysOnDiskError> {
    let key = &grant.public_key;
    if let Some(version) = shape.version {
        let unknown = version.unknown_option(grant.options.as_str()).map(str::to_owned);
        let algorithm = key.algorithm().name();
        let unknown = unknown
            .or_else(|| (!version.knows_algorithm(algorithm)).then(|| algorithm.to_owned()))
            .or_else(|| {
                (grant.until.is_some() && !version.has_expiry()).then(|| "expiry-time".to_owned())
            });
        if let Some(what) = unknown {
            let key = key.fingerprint();
            return Err(KeysOnDiskError::NotUnderstood { key, what, has: version.to_string() });
        }
    }
    Ok(KeyLineSpec {
        key: key.clone(),
        options: grant.options.clone(),
        expiry: grant.until.map(|until| shape.clock.expiry(until)),
    })
}
