//! The actions that an agent has been sent and has not answered: how many may be on their way,
//! and how long an agent may keep silent.
//!
//! Pure: the time is passed in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bastio_protocol::{ActionMessage, MessageId};
use tokio::time::Instant;

/// Something that was sent.
#[derive(Debug)]
struct Sent {
    at: Instant,
    /// The action, if it is one.
    action: Option<Arc<ActionMessage>>,
}

/// Actions on their way to one agent.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    answer_within: Duration,
    unanswered: HashMap<MessageId, Sent>,
    /// Since when the agent owes an answer: the last answer, or the first action after none was
    /// owed.
    owed_since: Option<Instant>,
}

impl Window {
    /// At most `size` actions unanswered, each answer at most `answer_within` after the one
    /// before: agents work on one action at a time, so the last of several may wait long.
    pub(super) fn new(size: usize, answer_within: Duration) -> Self {
        Self { size, answer_within, unanswered: HashMap::new(), owed_since: None }
    }

    /// How many more may be sent now.
    pub(super) fn room(&self) -> usize {
        self.size.saturating_sub(self.unanswered.len())
    }

    /// How many are unanswered.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    pub(super) fn sent(&mut self, mid: MessageId, action: Option<ActionMessage>, now: Instant) {
        self.unanswered.insert(mid, Sent { at: now, action: action.map(Arc::new) });
        self.owed_since.get_or_insert(now);
    }

    /// The action that was sent under that id and is not answered.
    pub(super) fn action(&self, mid: &MessageId) -> Option<Arc<ActionMessage>> {
        self.unanswered.get(mid)?.action.clone()
    }

    /// Whether an answer to that is owed.
    pub(super) fn is_owed(&self, mid: &MessageId) -> bool {
        self.unanswered.contains_key(mid)
    }

    /// Returns how long the answer took, if it was owed.
    pub(super) fn answered(&mut self, mid: &MessageId, now: Instant) -> Option<Duration> {
        let sent = self.unanswered.remove(mid);
        if self.unanswered.is_empty() {
            self.owed_since = None;
        } else if sent.is_some() {
            self.owed_since = Some(now);
        }
        sent.map(|sent| now.saturating_duration_since(sent.at))
    }

    /// When the agent has kept silent for too long; `None` while it owes nothing.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.owed_since.map(|since| since + self.answer_within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(120);

    fn mid(number: u64) -> MessageId {
        MessageId::from_number(number)
    }

    #[test]
    fn room_shrinks_with_what_is_sent_and_grows_with_answers() {
        let now = Instant::now();
        let mut window = Window::new(2, LIMIT);
        assert_eq!(window.room(), 2);
        window.sent(mid(1), None, now);
        window.sent(mid(2), None, now);
        assert_eq!(window.room(), 0);
        assert_eq!(window.answered(&mid(1), now), Some(Duration::ZERO));
        assert_eq!((window.room(), window.unanswered()), (1, 1));
    }

    #[test]
    fn answer_that_nobody_waits_for_makes_no_room_and_no_time() {
        let now = Instant::now();
        let mut window = Window::new(1, LIMIT);
        assert_eq!(window.answered(&mid(9), now), None);
        assert_eq!(window.room(), 1);
        window.sent(mid(1), None, now);
        assert_eq!(window.answered(&mid(9), now + LIMIT / 2), None);
        assert_eq!(window.room(), 0);
        assert_eq!(window.deadline(), Some(now + LIMIT));
        assert!(window.answered(&mid(1), now).is_some());
        assert_eq!(window.answered(&mid(1), now), None, "a second answer is not owed");
    }

    #[test]
    fn deadline_moves_with_answers_and_goes_with_the_last() {
        let begin = Instant::now();
        let later = begin + Duration::from_secs(100);
        let mut window = Window::new(16, LIMIT);
        assert_eq!(window.deadline(), None);
        window.sent(mid(1), None, begin);
        window.sent(mid(2), None, later);
        assert_eq!(window.deadline(), Some(begin + LIMIT), "sending more buys no time");
        assert!(window.answered(&mid(1), later).is_some_and(|took| !took.is_zero()));
        assert_eq!(window.deadline(), Some(later + LIMIT));
        window.answered(&mid(2), later);
        assert_eq!(window.deadline(), None);
    }
}
