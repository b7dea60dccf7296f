//! The floor: an SSH server of nothing but russh, which lets every key in, sends what it is told and counts the echoes.
//! Must not know bastio.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bastio_transport::KeyKind;
use bytes::Bytes;
use russh::keys::PrivateKey;
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, Error};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::emulator::{questions, tell};
use super::talk::{self, Ask, Tell};
use crate::BenchError;

type Clients = Arc<Mutex<Vec<(Handle, ChannelId)>>>;

struct Echo {
    clients: Clients,
    place: Option<usize>,
    echoes: mpsc::Sender<usize>,
}

impl Handler for Echo {
    type Error = Error;

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        self.place = Some(clients.len());
        clients.push((session.handle(), channel));
        Ok(())
    }

    async fn data(&mut self, _: ChannelId, _: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        if let Some(place) = self.place {
            let _ = self.echoes.send(place).await;
        }
        Ok(())
    }
}

/// Runs until its input ends.
pub fn run() -> Result<(), BenchError> {
    talk::raise_open_files().map_err(|error| BenchError::Child(format!("open files: {error}")))?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| BenchError::File("a runtime", error))?;
    let ended = runtime.block_on(serve());
    runtime.shutdown_background();
    ended
}

async fn serve() -> Result<(), BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::Child(error.to_string());
    let made = bastio_transport::PrivateKey::generate(KeyKind::Ed25519).map_err(|e| failed(&e))?;
    let host_key = made.public_line();
    let text = made.to_openssh().map_err(|error| failed(&error))?;
    let key = PrivateKey::from_openssh(text.as_bytes()).map_err(|error| failed(&error))?;
    let config = Arc::new(Config {
        keys: vec![key],
        auth_rejection_time_initial: Some(Duration::ZERO),
        inactivity_timeout: None,
        keepalive_interval: Some(Duration::from_secs(30)),
        ..Config::default()
    });
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| failed(&error))?;
    let ssh = listener.local_addr().map_err(|error| failed(&error))?;
    tell(&Tell::Listening { ssh, host_key });
    let clients = Clients::default();
    let (sender, mut echoes) = mpsc::channel(1024);
    let mut questions = questions();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let _ = socket.set_nodelay(true);
                let echo = Echo { clients: clients.clone(), place: None, echoes: sender.clone() };
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    if let Ok(session) = russh::server::run_stream(config, socket, echo).await {
                        let _ = session.await;
                    }
                });
            }
            ask = questions.recv() => match ask {
                Some(Ask::FanOut { agents, bodies }) => {
                    tell(&fan_out(&clients, agents, &bodies, &mut echoes).await);
                }
                Some(_) => return Err(BenchError::Child("no question for this server".to_owned())),
                None => return Ok(()),
            },
        }
    }
}

async fn fan_out(
    clients: &Clients,
    agents: usize,
    bodies: &[String],
    echoes: &mut mpsc::Receiver<usize>,
) -> Tell {
    let frames: Vec<Bytes> =
        bodies.iter().map(|body| format!("{}:{body},", body.len()).into()).collect();
    let chosen: Vec<(Handle, ChannelId)> = {
        let clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.iter().take(agents).cloned().collect()
    };
    let count = chosen.len();
    let begun = talk::micros();
    tokio::spawn(async move {
        for (handle, channel) in chosen {
            for frame in &frames {
                let _ = handle.data(channel, frame.clone()).await;
            }
        }
    });
    let (mut given, mut at) = (vec![0; count], vec![0; count]);
    let mut missing = count;
    while missing > 0
        && let Some(place) = echoes.recv().await
    {
        if let (Some(given), Some(at)) = (given.get_mut(place), at.get_mut(place)) {
            *given += 1;
            if *given == bodies.len() {
                *at = talk::micros();
                missing -= 1;
            }
        }
    }
    Tell::Echoed { begun, at }
}
