//! The thread that is told by the kernel when something changes (inotify(7)), and when a time has come (a timerfd on the
//! wall clock, which also tells when somebody sets that clock). It wakes up for these alone.
//!
//! In folders where others than root can write, a watch tells one change and is gone; it is set again just before the
//! look, about once a second at most. So nobody can keep this thread busy. This file must not know what a change means.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::Topic;
use super::pace::{Pace, Wait};
use super::spot::{Aim, OfIt, Spot};
use crate::wait::wait_ready;

/// Watches. Dropping it ends the thread.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    bell: Receiver<()>,
    /// Dropped to end the thread.
    alive: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// What has changed since it was last asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What it is about.
    pub topics: BTreeSet<Topic>,
    /// So much that some of it is not known: look at everything.
    pub everything: bool,
    /// The time that was asked for has come, or the clock was set.
    pub time: bool,
}

#[derive(Debug)]
struct Shared {
    /// Or why the kernel gives none (root has a number of them, fs.inotify.max_user_instances).
    inotify: Result<Inotify, Errno>,
    timer: OwnedFd,
    /// Readable as long as the bell was rung and not heard.
    rung: EventFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    aim: Aim,
    watched: BTreeMap<WatchDescriptor, Vec<(Topic, Spot)>>,
    pace: Pace,
    seen: Seen,
    /// Folders that the kernel does not watch, by topic, and why.
    blind: BTreeMap<Topic, (PathBuf, Errno)>,
}

impl Watcher {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the kernel gives no handle or thread.
    pub fn start() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let shared = Arc::new(Shared {
            inotify: Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK),
            timer: timerfd_create(TimerfdClockId::Realtime, flags)?,
            rung: EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            state: Mutex::default(),
        });
        let (ring, bell) = bounded(1);
        let (ended, alive) = io::pipe()?;
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("drift".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || of_thread.run(&ended, &ring))?;
        Ok(Self { shared, bell, alive: Some(alive), thread: Some(thread) })
    }

    /// Something is in it when [`Self::take`] has something to tell.
    #[must_use]
    pub fn bell(&self) -> &Receiver<()> {
        &self.bell
    }

    /// What has changed.
    #[must_use]
    pub fn take(&self) -> Seen {
        let mut state = self.shared.state();
        // Both may be empty: this was called for another reason.
        let _ = self.bell.try_recv();
        let _ = self.shared.rung.read();
        std::mem::take(&mut state.seen)
    }

    /// What cannot be watched, for people: how much it is, and why. None when all of it is.
    #[must_use]
    pub fn blind(&self) -> Option<String> {
        let state = self.shared.state();
        let (folder, error) = state.blind.values().next()?;
        let (count, of) = (state.blind.len(), state.aim.len());
        let hint = match error {
            Errno::ENOSPC => "; raise fs.inotify.max_user_watches (sysctl)",
            Errno::EMFILE => "; raise fs.inotify.max_user_instances (sysctl) and restart the agent",
            _ => "",
        };
        let folder = folder.display();
        Some(format!(
            "{count} of {of} places cannot be watched for drift, the first is {folder}: {error}{hint}"
        ))
    }

    /// Watches these from now on, and nothing else. What is new is to be looked at after this.
    pub fn aim(&self, aim: Aim) {
        let mut state = self.shared.state();
        if state.aim == aim {
            return;
        }
        let old = std::mem::replace(&mut state.aim, aim);
        let State { aim, pace, .. } = &mut *state;
        pace.keep_only(|topic| aim.contains_key(topic));
        let changed: Vec<Topic> = old
            .keys()
            .chain(aim.keys())
            .filter(|topic| old.get(topic) != aim.get(topic))
            .cloned()
            .collect();
        for topic in changed {
            self.shared.disarm(&mut state, &topic);
            self.shared.arm(&mut state, &topic);
        }
    }

    /// Tells when this time has come (seconds since the Unix epoch), or earlier when the clock is set.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn wake_at(&self, time: Option<i64>) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A time of zero would mean: never.
        let at = time.map_or(zero, |time| Timespec { tv_sec: time.max(1), tv_nsec: 0 });
        let once = Itimerspec { it_interval: zero, it_value: at };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        match timerfd_settime(&self.shared.timer, flags, &once) {
            // The clock was set since; the thread is told so, too.
            Ok(_) | Err(rustix::io::Errno::CANCELED) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Watcher {
    /// A handle that is readable when [`Self::take`] has something to tell.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.rung.as_fd()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.alive = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that watches for drift panicked");
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, ended: &PipeReader, ring: &Sender<()>) {
        loop {
            let Wait { listens, until } = self.state().pace.wait(Instant::now());
            let of_inotify = if listens { PollFlags::POLLIN } else { PollFlags::empty() };
            let mut fds = vec![
                PollFd::new(ended.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(self.inotify.iter().map(|it| PollFd::new(it.as_fd(), of_inotify)));
            if let Err(error) = wait_ready(&mut fds, until) {
                tracing::error!(%error, "drift is not watched any more");
                return;
            }
            let is_ready = |at: usize| fds.get(at).and_then(PollFd::any);
            if is_ready(0).unwrap_or(true) {
                return;
            }
            let mut state = self.state();
            if is_ready(1).unwrap_or(false) {
                self.take_time(&mut state);
            }
            self.take_events(&mut state);
            for topic in state.pace.take(Instant::now()) {
                // Before the look, so that no change falls between.
                self.disarm(&mut state, &topic);
                self.arm(&mut state, &topic);
                state.seen.topics.insert(topic);
            }
            if state.seen != Seen::default() {
                // Full: it was rung already.
                let _ = self.rung.write(1);
                let _ = ring.try_send(());
            }
        }
    }

    fn take_time(&self, state: &mut State) {
        let mut count = [0; 8];
        match rustix::io::read(&self.timer, &mut count) {
            // Nothing yet: somebody has asked for another time meanwhile.
            Err(rustix::io::Errno::AGAIN) => {}
            Ok(_) | Err(_) => state.seen.time = true,
        }
    }

    fn take_events(&self, state: &mut State) {
        let Ok(inotify) = &self.inotify else { return };
        // More than there is room for in the kernel's queue cannot be waiting.
        for _ in 0..1024 {
            let events = match inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return,
                Err(error) => {
                    tracing::error!(%error, "cannot read what has changed");
                    state.seen.everything = true;
                    return;
                }
            };
            let now = Instant::now();
            state.pace.heard(now);
            events.iter().for_each(|event| take_event(state, event, now));
        }
    }

    /// Sets the watches of a topic.
    fn arm(&self, state: &mut State, topic: &Topic) {
        let was_blind = state.blind.remove(topic).is_some();
        for spot in state.aim.get(topic).cloned().unwrap_or_default() {
            let mut at = Some(spot);
            while let Some(spot) = at {
                let inotify = self.inotify.as_ref().map_err(|error| *error);
                match inotify.and_then(|it| it.add_watch(&spot.folder, mask(&spot))) {
                    Ok(watch) => {
                        state.watched.entry(watch).or_default().push((topic.clone(), spot));
                        break;
                    }
                    // Not there, or something else: what it is in tells when that changes.
                    Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => at = spot.parent(),
                    Err(error) => {
                        if !was_blind && state.blind.is_empty() {
                            let folder = spot.folder.display();
                            tracing::warn!(%folder, %error, "not everything can be watched for drift");
                        }
                        state.blind.insert(topic.clone(), (spot.folder, error));
                        break;
                    }
                }
            }
        }
    }

    /// Takes the watches of a topic away, but for those that another topic has, too.
    fn disarm(&self, state: &mut State, topic: &Topic) {
        let mut unused = Vec::new();
        for (watch, spots) in &mut state.watched {
            let before = spots.len();
            spots.retain(|(of, _)| of != topic);
            if spots.is_empty() && before > 0 {
                unused.push(*watch);
            }
        }
        for watch in unused {
            state.watched.remove(&watch);
            // It is gone already when it has told what it had to.
            let _ = self.inotify.as_ref().map(|inotify| inotify.rm_watch(watch));
        }
    }
}

/// Whom an event concerns.
fn take_event(state: &mut State, event: &InotifyEvent, now: Instant) {
    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
        state.seen.everything = true;
        let all: Vec<Topic> = state.aim.keys().cloned().collect();
        all.iter().for_each(|topic| state.pace.changed(topic, now));
        return;
    }
    let is_gone = event.mask.contains(AddWatchFlags::IN_IGNORED);
    let State { watched, pace, .. } = state;
    for (topic, spot) in watched.get(&event.wd).into_iter().flatten() {
        // A watch that is gone may have missed something.
        if is_gone || spot.is_foreign || spot.wants(event.name.as_deref()) {
            pace.changed(topic, now);
        }
    }
    if is_gone {
        watched.remove(&event.wd);
    }
}

fn mask(spot: &Spot) -> AddWatchFlags {
    let itself = AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    let entries = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_MODIFY;
    let foreign = AddWatchFlags::IN_ONESHOT | AddWatchFlags::IN_DONT_FOLLOW;
    let mut mask = itself;
    if spot.of_it != OfIt::Itself {
        mask |= entries;
    }
    if spot.is_foreign {
        mask |= foreign;
    }
    mask
}

#[cfg(test)]
mod tests;
