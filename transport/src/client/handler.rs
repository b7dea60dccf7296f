//! What russh calls on the client: checks the host key, stores received data, notes the end. Its
//! methods run inside russh's session loop, so each is short or has a limit.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use russh::client::{
    ChannelOpenHandle, DisconnectReason, Handler, Msg, RemoteDisconnectInfo, Session,
};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelId, Error};
use tokio::sync::oneshot;

use super::ClientConfig;
use crate::channel::{Ended, Inbound};
use crate::ending::{CloseReason, Ending, parse_retry_after};
use crate::error::{ConnectError, reason_of};
use crate::keys::{HostKeyPin, PublicKeyBlob};

/// What the handler saw that russh's errors do not tell.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Facts>);

#[derive(Debug, Default)]
struct Facts {
    wrong_host_key: Option<String>,
    retry_after: Option<Duration>,
}

impl Seen {
    fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retry_after
    }

    /// The error for the caller, when russh failed with `error` before the subsystem was open.
    pub(super) fn explain(&self, config: &ClientConfig, error: &Error) -> ConnectError {
        let facts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = &facts.wrong_host_key {
            let expected = config.host_keys.iter().map(HostKeyPin::fingerprint);
            return ConnectError::HostKeyMismatch {
                expected: expected.collect(),
                seen: seen.clone(),
            };
        }
        if let Some(retry_after) = facts.retry_after {
            return ConnectError::Paced { retry_after };
        }
        let address = config.address();
        match error {
            Error::IO(_) | Error::HUP | Error::Disconnect | Error::SendError => {
                ConnectError::Unreachable {
                    address,
                    detail: format!("the host closed the connection ({error})"),
                }
            }
            other => ConnectError::ProtocolError { address, detail: other.to_string() },
        }
    }
}

pub(super) struct ClientHandler {
    pins: Vec<HostKeyPin>,
    seen: std::sync::Arc<Seen>,
    ending: Ending,
    /// Gone after the host's end of data.
    inbound: Option<Inbound>,
    /// Gone after the answer to the request for the subsystem.
    answer: Option<oneshot::Sender<bool>>,
}

impl ClientHandler {
    pub(super) fn new(
        pins: Vec<HostKeyPin>,
        seen: std::sync::Arc<Seen>,
        ending: Ending,
        inbound: Inbound,
        answer: oneshot::Sender<bool>,
    ) -> Self {
        Self { pins, seen, ending, inbound: Some(inbound), answer: Some(answer) }
    }

    fn answered(&mut self, yes: bool) {
        if let Some(answer) = self.answer.take() {
            // The caller may have given up.
            let _ = answer.send(yes);
        }
    }

    fn host_ended(&mut self) {
        self.inbound = None;
        self.answer = None;
        self.ending.note(CloseReason::EndedByPeer);
    }

    fn told_to_go(&self, info: &RemoteDisconnectInfo) {
        let retry_after = parse_retry_after(&info.message);
        self.seen.update(|facts| facts.retry_after = retry_after);
        self.ending.note(match retry_after {
            Some(pause) => CloseReason::RetryAfter(pause),
            None => CloseReason::EndedByPeer,
        });
    }
}

impl Drop for ClientHandler {
    /// russh drops the handler when the session's task ends, also by a panic.
    fn drop(&mut self) {
        self.ending.note(CloseReason::Failed("the SSH session broke off".to_owned()));
    }
}

impl Handler for ClientHandler {
    type Error = Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Error> {
        let key = key.public_key();
        let known = PublicKeyBlob::try_of(&key)
            .is_ok_and(|blob| self.pins.iter().any(|pin| *pin.key() == blob));
        if !known {
            let seen = key.fingerprint(russh::keys::HashAlg::Sha256).to_string();
            self.seen.update(|facts| facts.wrong_host_key = Some(seen));
        }
        Ok(known)
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), Error> {
        let retry_after = parse_retry_after(banner);
        self.seen.update(|facts| facts.retry_after = retry_after);
        Ok(())
    }

    async fn channel_success(&mut self, _: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.answered(true);
        Ok(())
    }

    async fn channel_failure(&mut self, _: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.answered(false);
        Ok(())
    }

    async fn data(&mut self, _: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Error> {
        match &self.inbound {
            Some(inbound) => inbound.push(data).await.map_err(|Ended| Error::Disconnect),
            None => Ok(()),
        }
    }

    async fn channel_eof(&mut self, _: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.host_ended();
        Ok(())
    }

    async fn channel_close(&mut self, _: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.host_ended();
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Error>) -> Result<(), Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => self.told_to_go(&info),
            DisconnectReason::Error(error) => self.ending.note(reason_of(&error)),
        }
        Ok(())
    }

    // russh accepts channels opened by the host unless told otherwise. Dropping `reply` refuses.

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }
}
