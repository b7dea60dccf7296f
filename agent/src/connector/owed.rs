//! Actions that were taken and whose answers the backend has not confirmed. After a lost connection
//! a backend sends again what was not answered; what is still here has its answer coming, and is
//! not done a second time: the backend counts an action as done with its first answer, so a second
//! round that is cut short would leave behind what nobody knows of. This file must not know where
//! an action is on its way.

use std::collections::HashMap;

use bastio_protocol::{ActionMessage, MessageId};

/// The actions, by their id. Its bound is kept by the connector, which counts them.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Of the present connection: there, two equal messages are two.
    now: HashMap<MessageId, ActionMessage>,
    /// Of connections that were lost.
    earlier: HashMap<MessageId, ActionMessage>,
}

impl Owed {
    /// Takes an action; false when it is one of an earlier connection, sent again.
    pub(super) fn take(&mut self, action: &ActionMessage) -> bool {
        if self.earlier.get(&action.mid) == Some(action) {
            return false;
        }
        self.now.insert(action.mid.clone(), action.clone());
        true
    }

    /// The backend has the answer.
    pub(super) fn confirmed(&mut self, mid: &MessageId) {
        self.now.remove(mid);
        self.earlier.remove(mid);
        if self.now.is_empty() && self.earlier.is_empty() {
            *self = Self::default();
        }
    }

    /// The connection is lost.
    pub(super) fn line_lost(&mut self) {
        self.earlier.extend(self.now.drain());
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
    fn only_what_an_earlier_connection_brought_and_nobody_confirmed_is_known() {
        let mut owed = Owed::default();
        let first = action(1, Action::RemoveUser);
        assert!(owed.take(&first));
        assert!(owed.take(&first), "two on one connection are two");
        owed.line_lost();
        assert!(!owed.take(&first));
        assert!(owed.take(&action(2, Action::RemoveUser)));
        assert!(owed.take(&action(1, Action::AddUser { sudo: false })), "another one of that id");
        owed.line_lost();
        owed.confirmed(&first.mid);
        assert!(owed.take(&first), "answered, so it is asked for once more on purpose");
        assert!(!owed.take(&action(2, Action::RemoveUser)), "two connections ago");
    }
}
