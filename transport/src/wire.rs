//! A socket with the limits russh lacks: it can be cut from outside, a write without progress ends,
//! and so does the wait for a peer that was told goodbye. Knows nothing about SSH.

use std::future::Future;
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::ending::{CloseReason, Ending};

/// No delay for small messages; unacknowledged data ends the connection after `limit`
/// (tcp(7), `TCP_USER_TIMEOUT`), also while russh itself is stuck in a write.
pub(crate) fn tune(socket: &TcpStream, limit: Duration) {
    let tuned = socket
        .set_nodelay(true)
        .and_then(|()| SockRef::from(socket).set_tcp_user_timeout(Some(limit)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "cannot set socket options");
    }
}

/// How long a peer may take to close its side after we closed ours.
const LINGER: Duration = Duration::from_secs(2);

/// The wrapped socket. Dropping it tells the [`Ending`] that the socket is free.
pub(crate) struct Wire<S> {
    socket: S,
    ending: Ending,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    stall_limit: Duration,
    /// Armed while a write waits for the peer.
    stall: Option<Pin<Box<Sleep>>>,
    /// Armed when our side was shut down.
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S> Wire<S> {
    pub(crate) fn new(socket: S, ending: Ending, stall_limit: Duration) -> Self {
        let cut = Box::pin(ending.cut_token().clone().cancelled_owned());
        Self { socket, ending, cut, stall_limit, stall: None, linger: None }
    }

    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        self.cut.as_mut().poll(cx).is_ready()
    }

    /// Gives a pending write its time limit, and a finished one none.
    fn limit_write<T>(&mut self, cx: &mut Context<'_>, result: Poll<Result<T>>) -> Poll<Result<T>> {
        if result.is_ready() {
            self.stall = None;
            return result;
        }
        let limit = self.stall_limit;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stall.as_mut().poll(cx));
        self.ending.cut(CloseReason::PeerStalled);
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<S> Drop for Wire<S> {
    fn drop(&mut self) {
        self.ending.socket_gone();
    }
}

fn cut_error() -> Error {
    ErrorKind::ConnectionAborted.into()
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(cut_error()));
        }
        if let Some(linger) = &mut self.linger
            && linger.as_mut().poll(cx).is_ready()
        {
            // End of file: russh waits for exactly this after its goodbye.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<Result<usize>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(cut_error()));
        }
        let result = Pin::new(&mut self.socket).poll_write(cx, data);
        self.limit_write(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(cut_error()));
        }
        let result = Pin::new(&mut self.socket).poll_flush(cx);
        self.limit_write(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.is_cut(cx) {
            // Nothing to say any more; the socket closes when it is dropped.
            return Poll::Ready(Ok(()));
        }
        if self.linger.is_none() {
            self.linger = Some(Box::pin(tokio::time::sleep_until(Instant::now() + LINGER)));
        }
        let result = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.limit_write(cx, result)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn write_without_progress_ends() {
        let (ours, _theirs) = tokio::io::duplex(8);
        let ending = Ending::new();
        let mut wire = Wire::new(ours, ending.clone(), Duration::from_secs(30));
        let begin = Instant::now();
        let error = wire.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(begin.elapsed().as_secs(), 30);
        assert_eq!(ending.closed().await, CloseReason::PeerStalled);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_progress_is_no_stall() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut wire = Wire::new(ours, Ending::new(), Duration::from_secs(30));
        let reader = tokio::spawn(async move {
            let mut all = vec![0; 64];
            for piece in all.chunks_mut(8) {
                tokio::time::sleep(Duration::from_secs(29)).await;
                theirs.read_exact(piece).await.unwrap();
            }
            all
        });
        wire.write_all(&[7; 64]).await.unwrap();
        assert_eq!(reader.await.unwrap(), [7; 64]);
    }

    #[tokio::test]
    async fn cut_ends_a_waiting_read_and_frees_the_socket() {
        let (ours, _theirs) = tokio::io::duplex(8);
        let ending = Ending::new();
        let mut wire = Wire::new(ours, ending.clone(), Duration::from_secs(30));
        let read = tokio::spawn(async move { wire.read_u8().await.unwrap_err().kind() });
        tokio::task::yield_now().await;
        ending.cut(CloseReason::ClosedHere);
        assert_eq!(read.await.unwrap(), ErrorKind::ConnectionAborted);
        ending.wait_gone().await;
    }

    #[tokio::test(start_paused = true)]
    async fn peer_that_never_closes_is_left() {
        let (ours, _theirs) = tokio::io::duplex(8);
        let mut wire = Wire::new(ours, Ending::new(), Duration::from_secs(30));
        wire.shutdown().await.unwrap();
        let begin = Instant::now();
        assert_eq!(wire.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(begin.elapsed(), LINGER);
    }
}
