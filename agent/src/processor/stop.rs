//! Stopping: one handle whose end every thread notices, and the signals that end it.
//!
//! SIGTERM and SIGINT are blocked and read from a signalfd by a thread of their own: no handler
//! runs in the middle of anything, and nothing looks for a signal now and then. The blocked mask
//! is inherited by the account tools on purpose: a stop of the whole service (or a Ctrl-C) must
//! not cut a useradd in half. This file must not know what is stopped.

use std::convert::Infallible;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::wait::wait_ready;

/// What threads look at: as an event among other handles, or among channels.
#[derive(Debug, Clone)]
pub struct Stop {
    channel: Receiver<Infallible>,
    pipe: Arc<PipeReader>,
}

/// Dropping it stops.
#[derive(Debug)]
pub struct StopHandle {
    _channel: Sender<Infallible>,
    _pipe: PipeWriter,
}

impl Stop {
    /// A stop that has not happened yet, and its handle.
    ///
    /// # Errors
    /// When no pipe can be made.
    pub fn new() -> std::io::Result<(StopHandle, Self)> {
        let (sender, channel) = bounded(0);
        let (reader, writer) = std::io::pipe()?;
        let handle = StopHandle { _channel: sender, _pipe: writer };
        Ok((handle, Self { channel, pipe: Arc::new(reader) }))
    }

    /// Whether it has happened.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.channel.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// A channel that never carries anything and is disconnected when it happens.
    #[must_use]
    pub fn channel(&self) -> &Receiver<Infallible> {
        &self.channel
    }
}

impl AsFd for Stop {
    /// A handle that hangs up when it happens.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Turns the first SIGTERM or SIGINT into a stop, for as long as it lives.
#[derive(Debug)]
pub(super) struct Signals {
    before: SigSet,
    /// Dropped to end the thread.
    alive: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Signals {
    /// Blocks the signals in this thread and those it starts later, and watches for them. Must
    /// come before any other thread is started.
    pub(super) fn catch(handle: StopHandle) -> std::io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        let before = mask.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC)?;
        let (ended, alive) = std::io::pipe()?;
        let thread = std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || watch(&signals, &ended, handle))?;
        Ok(Self { before, alive: Some(alive), thread: Some(thread) })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.alive = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // It can fail for no valid set; a process about to end keeps its mask then.
        let _ = self.before.thread_set_mask();
    }
}

fn watch(signals: &SignalFd, ended: &PipeReader, handle: StopHandle) {
    let mut fds = [
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        PollFd::new(ended.as_fd(), PollFlags::POLLIN),
    ];
    let ready = wait_ready(&mut fds, None);
    let [signal, _] = fds;
    if ready.is_ok() && signal.any().unwrap_or(false) {
        // Taken, so that it does not hit us when the mask is set back.
        let _ = signals.read_signal();
        tracing::info!("asked to stop: finishing the account in hand");
    }
    drop(handle);
}
