//! One attempt to reach the backend: how it is made, and what a failure means to the link. This file must not know when
//! an attempt is made.

use std::sync::Arc;
use std::time::Duration;

use bastio_protocol::V2;
use bastio_transport::{BoxFuture, ClientConfig, ConnectError, PrivateKey, Subsystem, connect};

use crate::config::BackendSettings;
use crate::link::Trouble;

/// How long the backend may take for a sign of life. With the time to the next tick, a dead one is
/// noticed within 45 s.
const SIGN_OF_LIFE: Duration = Duration::from_secs(29);
/// Long enough that the transport's own keepalives never run.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The subsystem that agents open.
const SUBSYSTEM: &str = "bastio-agent";

pub(super) fn client_config(backend: &BackendSettings) -> ClientConfig {
    let mut config = ClientConfig::new(
        backend.host.as_str(),
        backend.port.get(),
        backend.login(),
        env!("CARGO_PKG_VERSION"),
        backend.host_keys.clone(),
    );
    // Our own tick asks for the sign of life, so that the process wakes up once and not thrice.
    config.keepalive_interval = NEVER;
    config.stall_limit = SIGN_OF_LIFE;
    config.protocol = Some(V2);
    config
}

pub(super) fn dial(
    dialer: Arc<(ClientConfig, PrivateKey)>,
) -> BoxFuture<'static, Result<Subsystem, ConnectError>> {
    Box::pin(async move {
        let (config, key) = dialer.as_ref();
        connect(config, key).await?.open_subsystem(SUBSYSTEM).await
    })
}

pub(super) fn trouble(error: ConnectError) -> Trouble {
    match error {
        ConnectError::HostKeyMismatch { expected, seen } => {
            Trouble::WrongHostKey { pinned: expected, seen }
        }
        ConnectError::LoginRefused { .. } | ConnectError::SubsystemRefused { .. } => {
            Trouble::Refused(error.to_string())
        }
        ConnectError::Paced { retry_after } => Trouble::Paced(retry_after),
        ConnectError::ProtocolError { .. } => Trouble::Malformed(error.to_string()),
        other => Trouble::Network(other.to_string()),
    }
}
