//! What an agent says in one frame of its session. Must not know what follows from it.

use std::sync::Arc;

use bastio_protocol::{AgentHello, DriftMessage, FeedbackMessage, KeyPolicy, Message};

use super::end::Garbage;

/// One frame. What is rare is behind a pointer: thousands of sessions wait with one of these at a time.
#[derive(Debug)]
pub(super) enum Told {
    /// The answer to something that it was sent.
    Answer(Arc<FeedbackMessage>),
    /// Who it is.
    Hello(Box<AgentHello>),
    /// What differs on its server.
    Drift(Box<DriftMessage>),
}

impl Told {
    /// Reads a frame's body; a hello only while one is waited for.
    ///
    /// # Errors
    /// [`Garbage`] that no agent says.
    pub(super) fn read(body: &[u8], awaits_hello: bool) -> Result<Self, Garbage> {
        if awaits_hello && let Some(hello) = AgentHello::parse(body) {
            return hello.map(Box::new).map(Self::Hello).map_err(Garbage::Hello);
        }
        if let Some(drift) = DriftMessage::parse(body) {
            return drift.map(Box::new).map(Self::Drift).map_err(Garbage::Drift);
        }
        match Message::parse(body, &KeyPolicy::ANY)? {
            Message::Feedback(feedback) => Ok(Self::Answer(Arc::new(feedback))),
            Message::Action(_) | Message::Host(_) => Err(Garbage::Action),
        }
    }
}
