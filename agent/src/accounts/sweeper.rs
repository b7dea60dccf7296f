//! Deletes homes whose days in quarantine are over: at the start, and once a day from then on.
//!
//! A thread of its own, because a large home takes long to delete and nobody waits for it. It sleeps all day. This file
//! must not know how a home is deleted.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use super::SystemAccounts;

/// Time between two sweeps.
const PAUSE: Duration = Duration::from_secs(super::quarantine::DAY);

/// The thread. Dropping it ends it: a deletion in hand goes on the next time.
#[derive(Debug)]
pub struct Sweeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    /// Sweeps from now on what was put away `days` ago or earlier.
    ///
    /// # Errors
    /// As the system says when there can be no thread.
    pub fn start(days: u32) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let thread = std::thread::Builder::new().name("sweeper".to_owned());
        let thread = thread.spawn(move || run(days, &stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the sweeper of homes in quarantine had ended by a panic");
        }
    }
}

fn run(days: u32, stopped: &Receiver<()>) {
    let go_on = || stopped.try_recv() == Err(TryRecvError::Empty);
    loop {
        sweep(days, &go_on);
        if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn sweep(days: u32, go_on: &dyn Fn() -> bool) {
    match SystemAccounts::default().sweep_quarantine([], SystemTime::now(), days, go_on) {
        Err(error) => tracing::warn!(%error, "homes in quarantine were not looked at"),
        Ok(swept) => {
            for home in swept.deleted {
                tracing::info!(home = %home.display(), "deleted: its days in quarantine are over");
            }
            for (home, why) in swept.failed {
                tracing::warn!(home = %home.display(), why, "in quarantine, and cannot be deleted");
            }
        }
    }
}
