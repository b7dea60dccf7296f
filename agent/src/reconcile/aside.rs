//! One thread that writes key files while accounts are made: most of the time of a key file is waiting for the disk.
//!
//! This file must not know whose files they are, nor what came before.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::host::KeyWork;
use crate::accounts::AccountsError;
use crate::keys_on_disk::Unflushed;

/// How many files may wait; whoever hands over another then waits, too.
const WAITING: usize = 8;
/// How many files are flushed together; each is two open handles until then.
const TOGETHER: usize = 64;

/// Which account of the plan, and what became of its file.
type Written = (usize, Result<(), AccountsError>);

/// The thread. It ends with [`Aside::finish`].
pub(super) struct Aside<'scope> {
    work: SyncSender<(usize, KeyWork)>,
    thread: ScopedJoinHandle<'scope, Vec<Written>>,
}

impl<'scope> Aside<'scope> {
    /// None where the system gives no thread: nothing is done aside then.
    pub(super) fn start(scope: &'scope Scope<'scope, '_>) -> Option<Self> {
        let (work, waiting) = sync_channel(WAITING);
        let thread = Builder::new().name("keys".to_owned());
        let thread = thread.spawn_scoped(scope, move || write_all(&waiting));
        let thread = thread.inspect_err(|error| tracing::debug!(%error, "no thread")).ok()?;
        Some(Self { work, thread })
    }

    /// To be done soon, in the order of handing over.
    pub(super) fn hand_over(&self, index: usize, work: KeyWork) {
        // It goes only when a file made it panic, which `finish` passes on.
        let _ = self.work.send((index, work));
    }

    /// Waits until all is done.
    pub(super) fn finish(self) -> Vec<Written> {
        drop(self.work);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Writes the files, and flushes many of them together: whenever one waits for the disk, the making of accounts waits,
/// too. What a loss of power takes before that is written again, since nothing was answered yet.
fn write_all(waiting: &Receiver<(usize, KeyWork)>) -> Vec<Written> {
    let (mut written, mut unflushed) = (Vec::new(), Vec::new());
    for (index, work) in waiting {
        match work() {
            Ok(Some(file)) => unflushed.push((index, file)),
            done => written.push((index, done.map(drop))),
        }
        if unflushed.len() >= TOGETHER {
            written.extend(flush(&mut unflushed));
        }
    }
    written.extend(flush(&mut unflushed));
    written
}

fn flush(unflushed: &mut Vec<(usize, Unflushed)>) -> impl Iterator<Item = Written> {
    unflushed.drain(..).map(|(index, file)| (index, file.flush().map_err(AccountsError::from)))
}
