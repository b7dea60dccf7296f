//! Accepts connections and serves them, with limits on their number, in all and from one source, on
//! slow heads, and on how long one may last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::REQUEST_LIMIT;
use super::extract::Peer;
use super::sources::Sources;

/// What the server grants to all clients together, and to a slow one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections served at once; more wait in the kernel's queue.
    pub(super) connections: usize,
    /// Of these, connections of one source.
    pub(super) each_source: usize,
    /// Longest time for the head of a request, and for an idle connection.
    pub(super) head: Duration,
    /// How long a connection may last. Then the request under way has as long as any other; a
    /// client that does not read its answers would else hold its place for ever.
    pub(super) life: Duration,
    /// How long requests under way may take once the server stops.
    pub(super) stop: Duration,
}

const LIMITS: Limits = Limits {
    connections: 512,
    each_source: 128,
    head: Duration::from_secs(15),
    life: Duration::from_secs(300),
    stop: Duration::from_secs(2),
};
/// For the request under way at the end of a connection's life, until its answer was read.
const LAST_REQUEST: Duration = REQUEST_LIMIT.saturating_add(Duration::from_secs(15));
/// Pause after a failure to accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `stop`; then requests under way have 2 s left.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    serve_within(LIMITS, listener, router, stop).await;
}

pub(super) async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let sources = Sources::new(limits.each_source);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let Some(counted) = sources.enter(peer.ip()) else {
            tracing::debug!(address = %peer, "too many connections from one source");
            continue;
        };
        let connection = connection(stream, peer, router.clone(), limits, stop.clone());
        connections.spawn(async move {
            connection.await;
            drop((place, counted));
        });
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.stop, all).await.is_err() {
        connections.shutdown().await;
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            tracing::warn!(%error, "no connection accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip().to_canonical()));
        router.clone().oneshot(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
        () = tokio::time::sleep(limits.life) => {
            served.as_mut().graceful_shutdown();
            match tokio::time::timeout(LAST_REQUEST, served).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!(address = %peer, "a client that does not read was cut"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(address = %peer, %error, "connection ended");
    }
}
