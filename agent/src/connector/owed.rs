//! Actions that were taken and may be sent once more although their answers are on their way. After
//! a lost connection a backend sends again what was not answered; what is still here is not done a
//! second time: the backend counts an action as done with its first answer, so a second round that
//! is cut short would leave behind what nobody knows of. This file must not know where an action
//! is on its way.

use std::collections::HashMap;

use bastio_protocol::{ActionMessage, MessageId};

/// The actions, by their id. Its bound is kept by the connector, which counts them.
#[derive(Debug, Default)]
pub(super) struct Owed(HashMap<MessageId, Entry>);

#[derive(Debug)]
struct Entry {
    action: ActionMessage,
    /// A connection was lost since it was taken, and it has not come again since.
    may_come_again: bool,
    /// Its answer has arrived at the backend, on this connection.
    confirmed: bool,
}

impl Owed {
    /// Takes an action; false when it is one of an earlier connection, sent again. On one
    /// connection, two equal messages are two.
    pub(super) fn take(&mut self, action: &ActionMessage) -> bool {
        if let Some(entry) = self.0.get_mut(&action.mid)
            && entry.may_come_again
            && entry.action == *action
        {
            entry.may_come_again = false;
            if entry.confirmed {
                self.0.remove(&action.mid);
            }
            return false;
        }
        let entry = Entry { action: action.clone(), may_come_again: false, confirmed: false };
        self.0.insert(action.mid.clone(), entry);
        true
    }

    /// The answer has arrived. The backend may have sent the action again before it read that.
    pub(super) fn confirmed(&mut self, mid: &MessageId) {
        match self.0.get_mut(mid) {
            Some(entry) if entry.may_come_again => entry.confirmed = true,
            Some(_) => drop(self.0.remove(mid)),
            None => {}
        }
        if self.0.is_empty() {
            self.0.shrink_to_fit();
        }
    }

    /// The connection is lost. An action whose answer had arrived comes again only if the backend
    /// has lost that answer, and is then to be done.
    pub(super) fn line_lost(&mut self) {
        self.0.retain(|_, entry| !entry.confirmed);
        self.0.values_mut().for_each(|entry| entry.may_come_again = true);
    }
}

#[cfg(test)]
mod tests {
    use bastio_protocol::{Action, ActionMessage, MessageId, Username};

    use super::Owed;

    fn action(mid: u64, action: Action) -> ActionMessage {
        let username = Username::parse("alice").unwrap();
        ActionMessage { mid: MessageId::from_number(mid), username, action }
    }

    #[test]
    fn only_what_an_earlier_connection_brought_is_known_and_only_once() {
        let mut owed = Owed::default();
        let first = action(1, Action::RemoveUser);
        assert!(owed.take(&first));
        assert!(owed.take(&first), "two on one connection are two");
        owed.line_lost();
        assert!(!owed.take(&first));
        assert!(owed.take(&first), "asked for once more on purpose");
        owed.line_lost();
        assert!(owed.take(&action(1, Action::AddUser { sudo: false })), "another one of that id");
        assert!(owed.take(&action(2, Action::RemoveUser)));
        owed.line_lost();
        owed.line_lost();
        assert!(!owed.take(&action(2, Action::RemoveUser)), "two connections ago");
    }

    #[test]
    fn an_answer_and_a_second_sending_may_cross() {
        let mut owed = Owed::default();
        let first = action(1, Action::RemoveUser);
        owed.take(&first);
        owed.line_lost();
        owed.confirmed(&first.mid);
        assert!(!owed.take(&first), "sent before the backend had read the answer");
        assert!(owed.take(&first), "the crossing is over");
        owed.confirmed(&first.mid);
        owed.line_lost();
        assert!(owed.take(&first), "the backend has lost the answer");
        owed.line_lost();
        owed.confirmed(&first.mid);
        owed.line_lost();
        assert!(owed.take(&first), "and once more");
    }
}
