//! What russh calls on the server: login, the one channel with the one subsystem, received data.
//! Its methods run inside russh's session loop and their futures are part of each session's
//! memory, so they are short, and what waits is boxed and has a limit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{Algorithm, ssh_key};
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, Disconnect, Error, Pty};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::connection::Phase;
use super::{
    Authenticate, BoxFuture, Handshake, LoginName, PROTOCOL_VARIABLE, ServerSession, ServerWriter,
    Shared, Unsure,
};
use crate::channel::{Ended, Inbound};
use crate::ending::{CloseReason, Ending, Goodbye, Link};
use crate::keys::PublicKeyBlob;

/// How long a new session may wait for the program to take it.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);
/// How long a client may take to end the connection after its channel was closed.
const CLIENT_ENDS: Duration = Duration::from_secs(1);
/// An SSH identification has at most this many bytes (RFC 4253 section 4.2).
const IDENTIFICATION_MAX: usize = 255;

pub(super) struct ServerHandler<A: Authenticate> {
    shared: Arc<Shared<A>>,
    peer: SocketAddr,
    ending: Ending,
    phase: watch::Sender<Phase>,
    /// Set by the login, taken by the session.
    login: Option<(LoginName, A::Identity)>,
    protocol: Option<u32>,
    /// The only channel.
    channel: Option<ChannelId>,
    /// There while the subsystem is open and the client has not ended its data.
    inbound: Option<Inbound>,
}

impl<A: Authenticate> ServerHandler<A> {
    pub(super) fn new(
        shared: Arc<Shared<A>>,
        peer: SocketAddr,
        ending: Ending,
        phase: watch::Sender<Phase>,
    ) -> Self {
        Self {
            shared,
            peer,
            ending,
            phase,
            login: None,
            protocol: None,
            channel: None,
            inbound: None,
        }
    }

    fn identify<'a>(
        &self,
        user: &'a str,
        key: &'a ssh_key::PublicKey,
        algorithm: &'a Algorithm,
    ) -> BoxFuture<'a, Result<Option<A::Identity>, Unsure>> {
        let (shared, ending) = (Arc::clone(&self.shared), self.ending.clone());
        Box::pin(identify(shared, self.peer, ending, user, key, algorithm))
    }

    /// Takes the request for the subsystem. `false` refuses it.
    async fn open(&mut self, channel: ChannelId, session: &mut Session) -> Result<bool, Error> {
        let room = timeout(HAND_OVER_LIMIT, self.shared.sessions.reserve()).await;
        let Ok(Ok(place)) = room else {
            warn!(address = %self.peer, "no room for another session, client refused");
            return Ok(false);
        };
        let Some((user, identity)) = self.login.take() else {
            return Ok(false);
        };
        session.channel_success(channel)?;
        let (inbound, reader) = Inbound::new(self.shared.config.inbound, self.ending.clone());
        self.inbound = Some(inbound);
        let handle = session.handle();
        let stall_limit = self.shared.config.stall_limit;
        place.send(ServerSession {
            identity,
            user,
            peer: self.peer,
            client_version: identification(session.remote_sshid()),
            protocol: self.protocol,
            reader,
            writer: ServerWriter::new(handle.clone(), channel, self.ending.clone(), stall_limit),
            link: link(self.ending.clone(), handle, channel),
        });
        self.phase.send_replace(Phase::Open);
        self.shared.config.tally.note(Handshake::Opened);
        Ok(true)
    }

    /// Refuses a key. The keeper is not woken for it: the time for the login runs on.
    fn refuse(&self) -> Auth {
        self.phase.send_if_modified(|phase| {
            *phase = Phase::KeyRefused;
            false
        });
        Auth::reject()
    }
}

/// Asks the authenticator. A SHA-1 signature and a short key are refused before.
async fn identify<A: Authenticate>(
    shared: Arc<Shared<A>>,
    peer: SocketAddr,
    ending: Ending,
    user: &str,
    key: &ssh_key::PublicKey,
    algorithm: &Algorithm,
) -> Result<Option<A::Identity>, Unsure> {
    let sha1 = matches!(algorithm, Algorithm::Rsa { hash: None });
    if sha1 && !shared.config.algorithms.allows_sha1() {
        info!(address = %peer, "login with a SHA-1 signature refused");
        return Ok(None);
    }
    let key = match PublicKeyBlob::try_of(key) {
        Ok(key) => key,
        Err(error) => {
            info!(address = %peer, %error, "login refused");
            return Ok(None);
        }
    };
    let asked = shared.authenticator.authenticate(user, &key, peer);
    tokio::select! {
        identity = timeout(shared.config.login_grace, asked) => identity.unwrap_or(Err(Unsure)),
        () = ending.cut_token().cancelled() => Err(Unsure),
    }
}

/// Ends a connection whose login cannot be decided.
fn cut_off(_: Unsure) -> Error {
    Error::Disconnect
}

fn identification(bytes: &[u8]) -> String {
    let bytes = bytes.get(..IDENTIFICATION_MAX).unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    text.trim_end().replace(|c: char| c.is_control(), "?")
}

fn link(ending: Ending, handle: russh::server::Handle, channel: ChannelId) -> Link {
    let seen = ending.clone();
    Link::new(ending).with_goodbye(Box::new(move |goodbye: Goodbye| {
        Box::pin(say_goodbye(goodbye, seen, handle, channel))
    }))
}

/// An ordinary end closes the channel first and leaves it to the client to disconnect: OpenSSH
/// throws away what it has not yet written out when it is disconnected. A session that is gone
/// needs no goodbye, so errors mean nothing here.
async fn say_goodbye(
    goodbye: Goodbye,
    ending: Ending,
    handle: russh::server::Handle,
    channel: ChannelId,
) {
    let mut reason = Disconnect::TooManyConnections;
    if !goodbye.paced {
        reason = Disconnect::ByApplication;
        let _ = handle.eof(channel).await;
        let _ = handle.close(channel).await;
        let _ = timeout(CLIENT_ENDS, ending.wait_gone()).await;
    }
    let _ = handle.disconnect(reason, goodbye.text, String::new()).await;
}

impl<A: Authenticate> Handler for ServerHandler<A> {
    type Error = Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Error> {
        let identity = self.identify(user, offer.public_key, offer.algorithm).await;
        Ok(match identity.map_err(cut_off)? {
            Some(_) => Auth::Accept,
            None => self.refuse(),
        })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Error> {
        let identity = self.identify(user, key.public_key, key.algorithm).await;
        Ok(match identity.map_err(cut_off)? {
            Some(identity) => {
                self.login = Some((LoginName(user.to_owned()), identity));
                Auth::Accept
            }
            None => self.refuse(),
        })
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Error> {
        self.phase.send_replace(Phase::LoggedIn);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        // Dropping `reply` refuses. The channel object is dropped in any case: unread, it would
        // stop the session; data comes through `data`.
        if self.channel.is_none() {
            self.channel = Some(channel.id());
            reply.accept().await;
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        if name == PROTOCOL_VARIABLE
            && let Ok(protocol) = value.parse()
        {
            self.protocol = Some(protocol);
            return session.channel_success(channel);
        }
        session.channel_failure(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        // Once a session took the login, there is no second one.
        let fits = self.channel == Some(channel)
            && self.login.is_some()
            && name == self.shared.config.subsystem;
        if fits && Box::pin(self.open(channel, session)).await? {
            return Ok(());
        }
        session.channel_failure(channel)
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Error> {
        match &self.inbound {
            Some(inbound) if self.channel == Some(channel) => {
                inbound.push(data).await.map_err(|Ended| Error::Disconnect)
            }
            _ => Ok(()),
        }
    }

    async fn channel_eof(&mut self, _: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.inbound = None;
        Ok(())
    }

    async fn channel_close(&mut self, _: ChannelId, session: &mut Session) -> Result<(), Error> {
        self.inbound = None;
        self.ending.note(CloseReason::EndedByPeer);
        session.disconnect(Disconnect::ByApplication, "", "")
    }

    // russh leaves requests it does not know without an answer; these are to be refused aloud.

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(channel)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(channel)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(channel)
    }
}
