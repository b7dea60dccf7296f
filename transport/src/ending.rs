//! How a connection ends: one reason, set once, known to all its parts; and [`Link`], which owns
//! the connection and ends it. Knows nothing about SSH.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::BoxFuture;

/// How long a goodbye may take to reach the socket.
const GOODBYE_LIMIT: Duration = Duration::from_secs(3);
/// How long a cut connection may take to free its socket.
const CUT_LIMIT: Duration = Duration::from_secs(3);
/// Begin of the text with which a server asks a client to come back later.
const RETRY_AFTER: &str = "bastio-retry-after=";
/// A longer pause is taken as this one: a wrong number must not lock a server out for ever.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed it in order, or its TCP connection ended.
    EndedByPeer,
    /// The peer did not answer keepalives.
    DeadPeer,
    /// The host asks to come back after this time.
    RetryAfter(Duration),
    /// Our own [`Reader`](crate::Reader) made no room for [`InboundBudget::wait`](crate::InboundBudget::wait).
    Stalled,
    /// The peer took no data for the stall limit.
    PeerStalled,
    /// This side closed it.
    ClosedHere,
    /// Anything else, e.g. a broken message or a panic; for the log.
    Failed(String),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndedByPeer => f.write_str("closed by the peer"),
            Self::DeadPeer => f.write_str("the peer no longer answers"),
            Self::RetryAfter(pause) => write!(f, "the host asks to come back in {pause:?}"),
            Self::Stalled => f.write_str("received data was not read in time"),
            Self::PeerStalled => f.write_str("the peer takes no data"),
            Self::ClosedHere => f.write_str("closed by this side"),
            Self::Failed(detail) => write!(f, "failed: {detail}"),
        }
    }
}

/// The text that asks a client to come back after `pause` (whole seconds, at least one).
pub(crate) fn retry_after_text(pause: Duration) -> String {
    format!("{RETRY_AFTER}{}", pause.as_secs().max(1))
}

/// Finds the pause in a banner or disconnect text. Never less than a second.
pub(crate) fn parse_retry_after(text: &str) -> Option<Duration> {
    let (_, rest) = text.split_once(RETRY_AFTER)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let seconds: u64 = rest.get(..digits)?.parse().ok()?;
    Some(Duration::from_secs(seconds.max(1)).min(RETRY_AFTER_MAX))
}

/// Shared by all parts of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Ending(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reason: watch::Sender<Option<CloseReason>>,
    /// Cut the socket now.
    cut: CancellationToken,
    /// The socket is free, so russh's task is over or in its last lines.
    gone: CancellationToken,
}

impl Ending {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            reason: watch::Sender::new(None),
            cut: CancellationToken::new(),
            gone: CancellationToken::new(),
        }))
    }

    /// Sets the reason unless there is one. The connection itself goes on for the moment.
    pub(crate) fn note(&self, reason: CloseReason) {
        self.0.reason.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(reason);
            }
            first
        });
    }

    /// Sets the reason unless there is one, and cuts the socket.
    pub(crate) fn cut(&self, reason: CloseReason) {
        self.note(reason);
        self.0.cut.cancel();
    }

    pub(crate) fn reason(&self) -> Option<CloseReason> {
        self.0.reason.borrow().clone()
    }

    pub(crate) async fn closed(&self) -> CloseReason {
        let mut reason = self.0.reason.subscribe();
        match reason.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(CloseReason::ClosedHere),
            Err(_) => CloseReason::ClosedHere,
        }
    }

    pub(crate) fn cut_token(&self) -> &CancellationToken {
        &self.0.cut
    }

    pub(crate) fn socket_gone(&self) {
        self.0.gone.cancel();
    }

    pub(crate) async fn wait_gone(&self) {
        self.0.gone.cancelled().await;
    }
}

/// Says goodbye on the connection: gives the disconnect message to russh.
pub(crate) type SayGoodbye = Box<dyn FnOnce(Goodbye) -> BoxFuture<'static, ()> + Send + Sync>;

/// What the disconnect message shall say.
#[derive(Debug)]
pub(crate) struct Goodbye {
    /// Its text; empty for an ordinary end.
    pub(crate) text: String,
    /// The client shall come back later.
    pub(crate) paced: bool,
}

/// Owns a connection. Dropping it cuts the connection at once; [`Link::close`] ends it in order.
pub struct Link {
    ending: Ending,
    say_goodbye: Option<SayGoodbye>,
}

impl Link {
    /// A link that can only cut.
    pub(crate) fn new(ending: Ending) -> Self {
        Self { ending, say_goodbye: None }
    }

    pub(crate) fn with_goodbye(mut self, say_goodbye: SayGoodbye) -> Self {
        self.say_goodbye = Some(say_goodbye);
        self
    }

    /// Waits for the end of the connection and says why it ended. May be cancelled and called again.
    pub async fn closed(&self) -> CloseReason {
        self.ending.closed().await
    }

    /// Ends the connection: data handed to a writer before goes out first. Waits until the socket
    /// is free, 6 s at most.
    pub async fn close(self) -> CloseReason {
        self.end(Goodbye { text: String::new(), paced: false }).await
    }

    /// For a server: ends the connection and asks the client to come back after `pause` (whole
    /// seconds, at least one). Waits as [`Link::close`] does.
    pub async fn disconnect_with_retry_after(self, pause: Duration) -> CloseReason {
        self.end(Goodbye { text: retry_after_text(pause), paced: true }).await
    }

    async fn end(mut self, goodbye: Goodbye) -> CloseReason {
        self.ending.note(CloseReason::ClosedHere);
        if let Some(say) = self.say_goodbye.take() {
            let said = async {
                say(goodbye).await;
                self.ending.wait_gone().await;
            };
            // Whether or not the goodbye got through in time, the cut follows.
            let _ = timeout(GOODBYE_LIMIT, said).await;
        }
        self.ending.cut(CloseReason::ClosedHere);
        let _ = timeout(CUT_LIMIT, self.ending.wait_gone()).await;
        self.ending.reason().unwrap_or(CloseReason::ClosedHere)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({:?})", self.ending.reason())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ending.cut(CloseReason::ClosedHere);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_back_and_kept_in_bounds() {
        let text = retry_after_text(Duration::from_secs(90));
        assert_eq!(text, "bastio-retry-after=90");
        assert_eq!(parse_retry_after(&text), Some(Duration::from_secs(90)));
        assert_eq!(parse_retry_after("busy; bastio-retry-after=5 s"), Some(Duration::from_secs(5)));
        assert_eq!(parse_retry_after("bastio-retry-after=0"), Some(Duration::from_secs(1)));
        assert_eq!(parse_retry_after("bastio-retry-after=999999999"), Some(RETRY_AFTER_MAX));
        for text in [
            "",
            "bastio-retry-after=",
            "bastio-retry-after=-1",
            "bastio-retry-after=99999999999999999999999",
        ] {
            assert_eq!(parse_retry_after(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn first_reason_stays() {
        let ending = Ending::new();
        ending.note(CloseReason::DeadPeer);
        ending.cut(CloseReason::ClosedHere);
        assert_eq!(ending.closed().await, CloseReason::DeadPeer);
        assert!(ending.cut_token().is_cancelled());
    }
}
