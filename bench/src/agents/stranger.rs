//! Half-open connections: they greet, say nothing more, and come again when they are cut. Must not know what it does to
//! others.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use super::talk;

/// Strangers have the addresses 127.3.0.0 and on, eight for each: a crowd, and no single source.
const FIRST: usize = 0x2_0000;
const EACH: usize = 8;
const PAUSE: Duration = Duration::from_secs(1);

/// So many strangers; they go away when it is dropped.
pub fn crowd(target: SocketAddr, count: usize) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    for number in 0..count {
        crowd.spawn(async move {
            loop {
                // To be cut, or not to be let in, is all that a stranger gets.
                let _ = linger(target, FIRST + number / EACH).await;
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    crowd
}

async fn linger(target: SocketAddr, source: usize) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((talk::source(source), 0).into())?;
    let mut stream = socket.connect(target).await?;
    stream.write_all(b"SSH-2.0-stranger\r\n").await?;
    let mut rest = [0; 512];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}
