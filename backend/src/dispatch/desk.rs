//! Where sessions hand in what they want of the database. While one transaction is being written the next ones wait, and
//! then all of them are one, and while much comes the next waits a little for more: a fleet that answers at once costs a
//! few transactions, and a single answer does not wait for company.
//!
//! Whoever comes first does the work of all that wait. What is not of the common kind, or failed together with others, is
//! handed back, to be done alone. This file must not know what is wanted.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

/// The most that one transaction does: some 100 ms, for which whoever else writes may have to wait.
const AT_ONCE: usize = 1000;

/// How long more is let come for each that the last transaction did, and at most: a transaction costs much the same
/// however much is done in it. Who comes alone does not wait.
const LINGER_EACH: Duration = Duration::from_micros(250);
const LINGER: Duration = Duration::from_millis(50);

/// Those who wait: `W` is what is wanted, `T` what comes of it.
#[derive(Debug)]
pub(super) struct Desk<W, T> {
    waiting: Mutex<Vec<Slip<W, T>>>,
    /// Whose turn it is, and how much was done the last time.
    turn: tokio::sync::Mutex<usize>,
}

/// What somebody wants, and where the answer goes.
#[derive(Debug)]
struct Slip<W, T> {
    wanted: W,
    answer: oneshot::Sender<T>,
}

impl<W, T> Default for Desk<W, T> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }
}

impl<W, T> Desk<W, T> {
    /// Hands in `wanted` and waits for what comes of it; `None` when it is to be done alone. Whoever is
    /// first lets `work` do all that has come together, and as many answers must come of it, each `None`
    /// where it was not done.
    pub(super) async fn hand_in<F>(&self, wanted: W, work: impl Fn(Vec<W>) -> F) -> Option<T>
    where
        F: Future<Output = Vec<Option<T>>>,
    {
        let (answer, mut done) = oneshot::channel();
        self.lock().push(Slip { wanted, answer });
        loop {
            let mut turn = tokio::select! {
                biased;
                done = &mut done => return done.ok(),
                turn = self.turn.lock() => turn,
            };
            // Whoever had the turn before may have done ours as well.
            if let Ok(done) = done.try_recv() {
                return Some(done);
            }
            if *turn > 1 && self.lock().len() < AT_ONCE {
                let last = u32::try_from(*turn).unwrap_or(u32::MAX);
                sleep(LINGER.min(LINGER_EACH.saturating_mul(last))).await;
            }
            let slips = self.take();
            *turn = slips.len();
            if slips.is_empty() {
                return None;
            }
            let (wanted, answers): (Vec<W>, Vec<_>) =
                slips.into_iter().map(|slip| (slip.wanted, slip.answer)).unzip();
            // On the heap: of many that wait one works, and the others keep no room for it.
            let results = Box::pin(work(wanted)).await;
            for (answer, result) in answers.into_iter().zip(results) {
                if let Some(result) = result {
                    // Who does not wait any more does not want to know.
                    let _ = answer.send(result);
                }
            }
            drop(turn);
        }
    }

    fn take(&self) -> Vec<Slip<W, T>> {
        let mut waiting = self.lock();
        let count = waiting.len().min(AT_ONCE);
        waiting.drain(..count).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Slip<W, T>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_waits_is_done_together_and_answered_each_to_its_own() {
        let desk = Arc::new(Desk::<usize, usize>::default());
        let works = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..AT_ONCE + 2 {
            let (desk, works) = (Arc::clone(&desk), Arc::clone(&works));
            tasks.spawn(async move {
                let work = |all: Vec<usize>| {
                    works.fetch_add(1, Ordering::Relaxed);
                    async move {
                        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                        all.into_iter().map(|n| (n != 7).then_some(n * 2)).collect()
                    }
                };
                (number, desk.hand_in(number, work).await)
            });
        }
        while let Some(done) = tasks.join_next().await {
            let (number, answer) = done.unwrap();
            assert_eq!(answer, (number != 7).then_some(number * 2), "{number}");
        }
        assert_eq!(works.load(Ordering::Relaxed), 3, "the first alone, then as many as fit");
    }

    #[tokio::test]
    async fn who_goes_away_while_working_leaves_the_others_to_work_alone() {
        let desk = Arc::new(Desk::<u8, u8>::default());
        let other = Arc::clone(&desk);
        let first = tokio::spawn(async move {
            other.hand_in(1, |_| std::future::pending::<Vec<Option<u8>>>()).await
        });
        tokio::task::yield_now().await;
        let other = Arc::clone(&desk);
        let second = tokio::spawn(async move {
            let work = |all: Vec<u8>| async move { all.into_iter().map(Some).collect() };
            other.hand_in(2, work).await
        });
        tokio::task::yield_now().await;
        first.abort();
        assert_eq!(second.await.unwrap(), Some(2));
    }
}
