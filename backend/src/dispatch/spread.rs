//! Work on many things, spread over the processors. This file must not know what is worked on.

use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// A thread costs as much as work on some of them: fewer are not spread.
const WORTHWHILE: usize = 256;

/// What `work` makes of each, in their order. Where the system has no more threads, those that there are do it all.
pub(super) fn spread<T: Send, U: Send>(all: Vec<T>, work: impl Fn(T) -> U + Sync) -> Vec<U> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let parts = in_parts(all, threads);
    let others = parts.len().saturating_sub(1);
    let (to_do, done) = (Mutex::new(parts), Mutex::new(Vec::new()));
    let work_off = || {
        while let Some((place, part)) = next(&to_do) {
            let made: Vec<U> = part.into_iter().map(&work).collect();
            lock(&done).push((place, made));
        }
    };
    thread::scope(|scope| {
        let begin = |_| thread::Builder::new().spawn_scoped(scope, work_off).ok();
        let begun: Vec<_> = (0..others).map_while(begin).collect();
        work_off();
        for other in begun {
            other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().flat_map(|(_, made)| made).collect()
}

/// At most so many parts, each with its place; the last first.
fn in_parts<T>(mut all: Vec<T>, count: usize) -> Vec<(usize, Vec<T>)> {
    let each = all.len().div_ceil(count).max(WORTHWHILE);
    let mut parts = Vec::with_capacity(count);
    for place in (0..all.len().div_ceil(each)).rev() {
        parts.push((place, all.split_off(place * each)));
    }
    parts
}

fn next<P>(parts: &Mutex<Vec<P>>) -> Option<P> {
    lock(parts).pop()
}

fn lock<P>(shared: &Mutex<P>) -> MutexGuard<'_, P> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn each_is_worked_on_once_and_they_stay_in_order() {
        for count in [0, 1, WORTHWHILE, WORTHWHILE + 1, 10 * WORTHWHILE + 7] {
            let all: Vec<usize> = (0..count).collect();
            let doubled: Vec<usize> = all.iter().map(|number| 2 * number).collect();
            assert_eq!(spread(all, |number| 2 * number), doubled, "{count}");
        }
    }

    #[test]
    fn many_have_all_processors_at_once() {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let all: Vec<usize> = (0..processors * WORTHWHILE).collect();
        // Nobody goes on before each has begun with its part.
        let together = Barrier::new(processors);
        let threads: HashSet<_> = spread(all, |number| {
            if number.is_multiple_of(WORTHWHILE) {
                together.wait();
            }
            thread::current().id()
        })
        .into_iter()
        .collect();
        assert_eq!(threads.len(), processors);
    }

    #[test]
    #[should_panic(expected = "of this test")]
    fn a_panic_is_not_lost() {
        spread(vec![0; 2 * WORTHWHILE], |_| panic!("of this test"));
    }
}
