//! Where sessions hand in what they want of the database. While one transaction is being written the next ones wait, and
//! then all of them are one, and while much comes the next waits a little for more: a fleet that answers at once costs a
//! few transactions, and a single answer does not wait for company.
//!
//! Whoever comes first starts the work of all that wait, which ends when nobody does. A thread of the desk's own does it, and
//! all that follows from it: that gets its share of the processors, where a task would wait for its turn among thousands of
//! sessions, and so would the connection that it gives back. What is not of the common kind, or failed together with others,
//! is handed back, to be done alone. This file must not know what is wanted.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

/// The most that one transaction does: some 50 ms, for which whoever else writes may have to wait.
const AT_ONCE: usize = 1000;

/// With so much the next transaction is begun at once.
const ENOUGH: usize = 250;

/// With so many waiting the database is behind, and nobody has to bring more.
const CROWD: usize = 500;

/// How long more is let come for each that the last transaction did, and at most: a transaction costs much the same
/// however much is done in it. Who comes alone does not wait, nor does anybody once nobody comes for a while.
const LINGER_EACH: Duration = Duration::from_micros(250);
const LINGER: Duration = Duration::from_millis(20);
const WHILE: Duration = Duration::from_millis(4);

/// Those who wait: `W` is what is wanted, `T` what comes of it.
#[derive(Debug)]
pub(super) struct Desk<W, T> {
    room: Mutex<Room<W, T>>,
    thread: OwnThread,
    /// Told whenever those who wait are taken in.
    taken_in: Notify,
}

/// A thread for tasks that do not wait behind others; there from the first task on.
#[derive(Debug, Default)]
struct OwnThread(OnceLock<Option<Runtime>>);

#[derive(Debug)]
struct Room<W, T> {
    waiting: Vec<Slip<W, T>>,
    /// Whether somebody works.
    staffed: bool,
}

/// What somebody wants, and where the answer goes.
#[derive(Debug)]
struct Slip<W, T> {
    wanted: W,
    answer: oneshot::Sender<T>,
}

impl<W, T> Default for Desk<W, T> {
    fn default() -> Self {
        let room = Mutex::new(Room { waiting: Vec::new(), staffed: false });
        Self { room, thread: OwnThread::default(), taken_in: Notify::new() }
    }
}

impl OwnThread {
    /// Lets a task go on there; among all others if the system has no thread.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let own = self.0.get_or_init(|| {
            let thread = Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("desk")
                .enable_all()
                .build();
            thread.inspect_err(|error| tracing::warn!(%error, "no thread for a desk")).ok()
        });
        match own {
            Some(own) => own.spawn(task),
            None => tokio::spawn(task),
        };
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        if let Some(own) = self.0.take().flatten() {
            // Whoever waited for its work has gone.
            own.shutdown_background();
        }
    }
}

impl<W: Send + 'static, T: Send + 'static> Desk<W, T> {
    /// Hands in `wanted` and waits for what comes of it; `None` when it is to be done alone. Whoever is
    /// first lets `worker` make who does all that has come together, and as many answers must come of it, each `None`
    /// where it was not done.
    pub(super) async fn hand_in<F, Work>(
        self: &Arc<Self>,
        wanted: W,
        worker: impl FnOnce() -> Work,
    ) -> Option<T>
    where
        F: Future<Output = Vec<Option<T>>> + Send + 'static,
        Work: Fn(Vec<W>) -> F + Send + Sync + 'static,
    {
        let (answer, done) = oneshot::channel();
        let is_first = {
            let mut room = self.lock();
            room.waiting.push(Slip { wanted, answer });
            !std::mem::replace(&mut room.staffed, true)
        };
        if is_first {
            self.thread.spawn(Shift(Arc::clone(self)).work_off(worker()));
        }
        done.await.ok()
    }

    /// Where many wait here, waits until some of them are taken in, or until then: for who would bring more.
    pub(super) async fn has_room(&self, until: Instant) {
        // Made before the look, it hears of what happens behind it.
        let taken_in = self.taken_in.notified();
        // A timer that is over may still take until its thread comes round.
        if Instant::now() < until && self.lock().waiting.len() > CROWD {
            // After that they may come all the same.
            let _ = timeout_at(until, taken_in).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Room<W, T>> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody works at the desk. Should the work panic, those who wait are handed back.
struct Shift<W: Send + 'static, T: Send + 'static>(Arc<Desk<W, T>>);

impl<W: Send + 'static, T: Send + 'static> Shift<W, T> {
    async fn work_off<F>(self, work: impl Fn(Vec<W>) -> F + Send + Sync)
    where
        F: Future<Output = Vec<Option<T>>> + Send + 'static,
    {
        let mut last = 0;
        loop {
            self.let_come(last).await;
            let Some(slips) = self.next() else { return };
            last = slips.len();
            let (wanted, answers): (Vec<W>, Vec<_>) =
                slips.into_iter().map(|slip| (slip.wanted, slip.answer)).unzip();
            for (answer, result) in answers.into_iter().zip(work(wanted).await) {
                if let Some(result) = result {
                    // Who does not wait any more does not want to know.
                    let _ = answer.send(result);
                }
            }
        }
    }

    /// Lets more come, after a transaction that did so many.
    async fn let_come(&self, last: usize) {
        if last <= 1 {
            return;
        }
        let most = LINGER_EACH.saturating_mul(u32::try_from(last).unwrap_or(u32::MAX));
        let until = Instant::now() + LINGER.min(most);
        let waiting = || self.0.lock().waiting.len();
        let mut before = waiting();
        while before < ENOUGH && Instant::now() < until {
            sleep_until(until.min(Instant::now() + WHILE)).await;
            let now = waiting();
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// What is to be done next; with nothing the desk is left.
    fn next(&self) -> Option<Vec<Slip<W, T>>> {
        let mut room = self.0.lock();
        let count = room.waiting.len().min(AT_ONCE);
        room.staffed = count > 0;
        self.0.taken_in.notify_waiters();
        (count > 0).then(|| room.waiting.drain(..count).collect())
    }
}

impl<W: Send + 'static, T: Send + 'static> Drop for Shift<W, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut room = self.0.lock();
            room.staffed = false;
            room.waiting.clear();
        }
    }
}

#[cfg(test)]
impl<W, T> Desk<W, T> {
    /// Lets so many wait that it has no room, and nobody work before somebody hands in more.
    pub(super) async fn crowd(&self, wanted: impl Fn() -> W) {
        while !self.is_crowded() {
            tokio::task::yield_now().await;
            let mut room = self.room.lock().expect("nobody panics");
            if !room.staffed {
                let slip = |_| Slip { wanted: wanted(), answer: oneshot::channel().0 };
                room.waiting.extend((0..=CROWD).map(slip));
            }
        }
    }

    /// Whether all who were let wait do.
    pub(super) fn is_crowded(&self) -> bool {
        self.room.lock().expect("nobody panics").waiting.len() > CROWD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_done_together_and_answered_each_to_its_own() {
        const ALL: usize = 2 * AT_ONCE + 3;
        let desk = Arc::new(Desk::<usize, usize>::default());
        let works = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..ALL {
            let (desk, works) = (Arc::clone(&desk), Arc::clone(&works));
            tasks.spawn(async move {
                let waiting = Arc::clone(&desk);
                let work = move |all: Vec<usize>| {
                    works.lock().unwrap().push(all.len());
                    let waiting = (works.lock().unwrap().len() == 1).then(|| Arc::clone(&waiting));
                    async move {
                        // The first work takes until all the others wait.
                        while waiting
                            .as_ref()
                            .is_some_and(|desk| desk.lock().waiting.len() + all.len() < ALL)
                        {
                            tokio::task::yield_now().await;
                        }
                        all.into_iter().map(|n| (n != 7).then_some(n * 2)).collect()
                    }
                };
                (number, desk.hand_in(number, || work).await)
            });
        }
        while let Some(done) = tasks.join_next().await {
            let (number, answer) = done.unwrap();
            assert_eq!(answer, (number != 7).then_some(number * 2), "{number}");
        }
        let works = works.lock().unwrap();
        let first = works[0];
        assert!(first <= AT_ONCE);
        assert_eq!(works[1], AT_ONCE.min(ALL - first), "as many as fit");
        assert_eq!(works.iter().sum::<usize>(), ALL, "each once: {works:?}");
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_others_their_answers() {
        let desk = Arc::new(Desk::<u8, u8>::default());
        let (begun, wait) =
            (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
        let (other, told, held) = (Arc::clone(&desk), Arc::clone(&begun), Arc::clone(&wait));
        let first = tokio::spawn(async move {
            let work = move |all: Vec<u8>| {
                let (told, held) = (Arc::clone(&told), Arc::clone(&held));
                async move {
                    told.notify_one();
                    held.notified().await;
                    all.into_iter().map(Some).collect()
                }
            };
            other.hand_in(1, || work).await
        });
        begun.notified().await;
        let other = Arc::clone(&desk);
        let second = tokio::spawn(async move { other.hand_in(2, || never).await });
        tokio::task::yield_now().await;
        first.abort();
        wait.notify_one();
        begun.notified().await;
        wait.notify_one();
        assert_eq!(second.await.unwrap(), Some(2));
        assert!(!desk.lock().staffed || desk.lock().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_bring_more_waits_while_many_wait_and_not_for_ever() {
        let desk = Arc::new(Desk::<usize, usize>::default());
        let waiting = |count| {
            let slip = |wanted| Slip { wanted, answer: oneshot::channel().0 };
            desk.lock().waiting = (0..count).map(slip).collect();
        };
        let begun = Instant::now();
        waiting(CROWD);
        let (soon, until) = (Duration::from_millis(25), begun + Duration::from_millis(100));
        desk.has_room(until).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "so many are no crowd");

        waiting(CROWD + 1);
        let work = Shift(Arc::clone(&desk));
        let taken_in = async {
            tokio::time::sleep(soon).await;
            work.next().map(|taken| taken.len())
        };
        let ((), taken) = tokio::join!(desk.has_room(until), taken_in);
        assert_eq!(taken, Some(CROWD + 1));
        assert_eq!(begun.elapsed(), soon, "goes on once they are taken in");

        waiting(CROWD + 1);
        for what in ["nobody is taken in", "it is over"] {
            desk.has_room(until).await;
            assert_eq!(Instant::now(), until, "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn more_is_let_come_while_it_comes_and_in_proportion() {
        let desk = Arc::new(Desk::<usize, usize>::default());
        let work = Shift(Arc::clone(&desk));
        let come = |count| {
            let slip = |wanted| Slip { wanted, answer: oneshot::channel().0 };
            desk.lock().waiting.extend((0..count).map(slip));
        };
        let lingered = async |last| {
            let begun = Instant::now();
            work.let_come(last).await;
            begun.elapsed()
        };
        assert_eq!(lingered(1).await, Duration::ZERO, "who comes alone does not wait");
        assert_eq!(lingered(4).await, LINGER_EACH * 4);
        assert_eq!(lingered(AT_ONCE).await, WHILE, "nobody comes");
        let coming = async {
            loop {
                come(1);
                tokio::time::sleep(WHILE / 2).await;
            }
        };
        tokio::select! {
            biased;
            () = coming => {}
            took = lingered(AT_ONCE) => assert_eq!(took, LINGER),
        }
        come(ENOUGH);
        assert_eq!(lingered(AT_ONCE).await, Duration::ZERO, "it is enough");
    }

    async fn never(_: Vec<u8>) -> Vec<Option<u8>> {
        unreachable!("somebody works already")
    }

    #[tokio::test]
    async fn after_a_panic_all_are_handed_back_and_the_next_is_served() {
        let desk = Arc::new(Desk::<u8, u8>::default());
        let failed = desk.hand_in(1, || |_| async { panic!("of this test") }).await;
        assert_eq!(failed, None);
        while desk.lock().staffed {
            tokio::task::yield_now().await;
        }
        let work = |all: Vec<u8>| async move { all.into_iter().map(Some).collect() };
        assert_eq!(desk.hand_in(2, || work).await, Some(2));
    }
}
