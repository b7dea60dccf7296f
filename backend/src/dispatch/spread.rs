//! Work on many things, spread over the processors. This file must not know what is worked on.

use std::num::NonZero;
use std::thread;

/// A thread costs as much as work on some of them: fewer are not spread.
const WORTHWHILE: usize = 256;

/// What `work` makes of each, in their order.
pub(super) fn spread<T: Send, U: Send>(all: Vec<T>, work: impl Fn(T) -> U + Sync) -> Vec<U> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let each = all.len().div_ceil(threads).max(WORTHWHILE);
    let mut parts = Vec::with_capacity(threads);
    let mut rest = all;
    while rest.len() > each {
        let behind = rest.split_off(each);
        parts.push(std::mem::replace(&mut rest, behind));
    }
    let on_each = |part: Vec<T>| part.into_iter().map(&work).collect::<Vec<U>>();
    thread::scope(|scope| {
        let begun: Vec<_> = parts.into_iter().map(|part| scope.spawn(|| on_each(part))).collect();
        let last = on_each(rest);
        let mut made = Vec::new();
        for part in begun {
            made.extend(part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        made.extend(last);
        made
    })
}

#[cfg(test)]
mod tests {
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
    fn many_have_more_than_one_thread() {
        let all = vec![(); 4 * WORTHWHILE];
        let threads: std::collections::HashSet<_> =
            spread(all, |()| thread::current().id()).into_iter().collect();
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        assert_eq!(threads.len(), processors.min(4));
    }

    #[test]
    #[should_panic(expected = "of this test")]
    fn a_panic_is_not_lost() {
        spread(vec![0; 2 * WORTHWHILE], |_| panic!("of this test"));
    }
}
