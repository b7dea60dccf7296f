//! The keeper of one connection: gives it its time limits, ends it at shutdown, and says why it
//! ended. russh does the rest in a task of its own, which ends when the wire is cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::Disconnect;
use russh::server::RunningSession;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::gate::{Startup, refuse};
use super::handler::ServerHandler;
use super::{Authenticate, Handshake, Shared};
use crate::ending::{CloseReason, Ending, Link};
use crate::error::reason_of;
use crate::wire::Wire;

/// How long a goodbye may take at shutdown, and how long a cut connection may take to end.
const GOODBYE_LIMIT: Duration = Duration::from_secs(3);

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    LoggingIn,
    /// Still logging in; a key was refused.
    KeyRefused,
    LoggedIn,
    Open,
}

pub(super) struct Keeper<A: Authenticate> {
    shared: Arc<Shared<A>>,
    peer: SocketAddr,
    ending: Ending,
    /// Cuts the wire when the keeper is dropped, e.g. by a panic or an aborted shutdown.
    _link: Link,
}

impl<A: Authenticate> Keeper<A> {
    pub(super) fn new(shared: Arc<Shared<A>>, peer: SocketAddr) -> Self {
        let ending = Ending::new();
        Self { shared, peer, _link: Link::new(ending.clone()), ending }
    }

    /// Waits for its turn, then serves the client; one whose turn does not come is sent away.
    pub(super) async fn wait_and_run(self, socket: TcpStream, mut startup: Startup) {
        let config = &self.shared.config;
        let came = tokio::select! {
            () = startup.turn() => true,
            () = tokio::time::sleep(config.wait_limit) => false,
            () = self.shared.shutdown.cancelled() => return startup.excused(),
        };
        if came {
            return self.run(socket, startup).await;
        }
        config.tally.note(Handshake::Crowded);
        debug!(address = %self.peer, "no turn in time");
        let retry_after = startup.sent_away();
        refuse(socket, config.identification(), retry_after, None).await;
    }

    pub(super) async fn run<S>(self, socket: S, startup: Startup)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let deadline = Instant::now() + self.shared.config.login_grace;
        let (phase, phases) = watch::channel(Phase::LoggingIn);
        let shared = Arc::clone(&self.shared);
        let handler =
            ServerHandler::new(Arc::clone(&shared), self.peer, self.ending.clone(), phase);
        let wire = Wire::new(socket, self.ending.clone(), self.shared.config.stall_limit);
        let begin = russh::server::run_stream(Arc::clone(&self.shared.russh), wire, handler);
        let session = tokio::select! {
            session = Box::pin(begin) => session,
            () = sleep_until(deadline) => {
                shared.config.tally.note(Handshake::TimedOut);
                return debug!(address = %self.peer, "no SSH greeting in time");
            }
            () = self.shared.shutdown.cancelled() => return startup.excused(),
        };
        match session {
            Ok(session) => self.keep(session, phases, deadline, startup).await,
            Err(error) => {
                shared.config.tally.note(Handshake::Failed);
                debug!(address = %self.peer, %error, "connection failed before SSH began");
            }
        }
    }

    async fn keep(
        self,
        mut session: RunningSession<ServerHandler<A>>,
        mut phases: watch::Receiver<Phase>,
        mut deadline: Instant,
        startup: Startup,
    ) {
        let mut startup = Some(startup);
        let shared = &self.shared;
        let mut timed_out = false;
        let result = loop {
            let limited = *phases.borrow_and_update() != Phase::Open;
            tokio::select! {
                result = &mut session => break Some(result),
                Ok(()) = phases.changed() => {
                    if let Some(startup) = startup.take() {
                        startup.logged_in();
                    }
                    deadline = Instant::now() + shared.config.login_grace;
                }
                () = sleep_until(deadline), if limited => {
                    let what = if startup.is_some() { "no login in time" } else { "no subsystem in time" };
                    timed_out = true;
                    self.ending.cut(CloseReason::Failed(what.to_owned()));
                    break ended(&mut session).await;
                }
                () = shared.shutdown.cancelled() => {
                    self.ending.note(CloseReason::ClosedHere);
                    let goodbye = said_goodbye(&mut session).await;
                    if goodbye.is_some() {
                        break goodbye;
                    }
                    self.ending.cut(CloseReason::ClosedHere);
                    break ended(&mut session).await;
                }
            }
        };
        self.ending.cut(match &result {
            Some(Ok(())) => CloseReason::EndedByPeer,
            Some(Err(error)) => reason_of(error),
            None => CloseReason::Failed("the SSH session does not end".to_owned()),
        });
        if let Some(startup) = startup.filter(|_| shared.shutdown.is_cancelled()) {
            startup.excused();
        }
        let phase = *phases.borrow();
        match phase {
            // The handler has counted it; and nobody is to blame for our shutdown.
            Phase::Open => {}
            _ if shared.shutdown.is_cancelled() => {}
            _ if timed_out => shared.config.tally.note(Handshake::TimedOut),
            Phase::KeyRefused => shared.config.tally.note(Handshake::KeyRefused),
            Phase::LoggingIn | Phase::LoggedIn => shared.config.tally.note(Handshake::Failed),
        }
        debug!(address = %self.peer, reason = ?self.ending.reason(), "connection ended");
    }
}

async fn said_goodbye<A: Authenticate>(
    session: &mut RunningSession<ServerHandler<A>>,
) -> Option<Result<(), russh::Error>> {
    let handle = session.handle();
    let goodbye = handle.disconnect(Disconnect::ByApplication, String::new(), String::new());
    timeout(GOODBYE_LIMIT, goodbye).await.ok()?.ok()?;
    ended(session).await
}

/// How the session ended, if it does in time.
async fn ended<A: Authenticate>(
    session: &mut RunningSession<ServerHandler<A>>,
) -> Option<Result<(), russh::Error>> {
    timeout(GOODBYE_LIMIT, session).await.ok()
}
