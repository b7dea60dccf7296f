//! Peers that are slow, silent, dead or too many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::rig::{Known, Rig, bounded, ed25519, pin};
use crate::{
    Algorithms, ClientConfig, CloseReason, ConnectError, Connection, Handshake, SendError,
    ServerConfig, ServerSession, Subsystem, Tally, connect, establish, serve_one,
};

/// Sends one byte of `text` each 20 ms, then goes on with `x`, until the server closes.
async fn trickle(rig: &Rig, text: &[u8]) -> Duration {
    let (mut read, mut write) = TcpStream::connect(rig.address).await.unwrap().into_split();
    let begin = Instant::now();
    let sending = tokio::spawn({
        let text = text.to_vec();
        async move {
            for byte in text.into_iter().chain(std::iter::repeat(b'x')) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if write.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        }
    });
    let mut all = Vec::new();
    // The end may be a reset, as our bytes were not read.
    let _ = read.read_to_end(&mut all).await;
    sending.abort();
    begin.elapsed()
}

#[tokio::test]
async fn strangers_are_cut_after_the_grace_time() {
    bounded(async {
        let grace = Duration::from_millis(700);
        let rig = Rig::with(ed25519(), Algorithms::Modern, &[], |config| {
            config.login_grace = grace;
        })
        .await;
        // A length field of 100 after the greeting, so that the rest is one slow packet.
        let packet = b"SSH-2.0-slow\r\n\0\0\0\x64\x04";
        for text in [&b""[..], b"SSH-2.0-", packet] {
            let lasted = trickle(&rig, text).await;
            assert!(lasted >= grace, "{lasted:?}");
            assert!(lasted < grace * 20, "{lasted:?}");
        }
        rig.end().await;
    })
    .await;
}

#[tokio::test]
async fn too_many_strangers_are_sent_away() {
    bounded(async {
        for (all, each) in [(2, 100), (100, 2)] {
            let key = ed25519();
            let mut rig = Rig::with(ed25519(), Algorithms::Modern, &[&key], |config| {
                config.max_startups = all;
                config.max_waiting = 0;
                config.max_startups_per_source = each;
            })
            .await;
            let config = rig.client();
            // Sessions that are logged in do not count.
            let _open = rig.session(&config, &key).await;
            let _second = rig.session(&config, &key).await;
            let mut strangers = Vec::new();
            for _ in 0..2 {
                let mut stranger = TcpStream::connect(rig.address).await.unwrap();
                assert_eq!(stranger.read_u8().await.unwrap(), b'S');
                strangers.push(stranger);
            }
            let error = connect(&config, &key).await.unwrap_err();
            let retry_after = Duration::from_secs(if all == 2 { 2 } else { 5 });
            assert_eq!(error, ConnectError::Paced { retry_after });
            strangers.pop();
            // The server sees the closed socket a moment later.
            let connected = loop {
                match connect(&config, &key).await {
                    Err(ConnectError::Paced { .. } | ConnectError::Unreachable { .. }) => {}
                    other => break other,
                }
            };
            connected.unwrap().close().await;
            rig.end().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_crowd_of_strangers_does_not_reach_those_who_are_served() {
    bounded(async {
        let key = ed25519();
        let mut rig = Rig::with(ed25519(), Algorithms::Modern, &[&key], |config| {
            config.max_startups = 10;
            config.max_waiting = 200;
            config.max_startups_per_source = 10_000;
            config.max_failures_per_source = 10_000;
        })
        .await;
        let config = rig.client();
        let (mut client, mut server) = rig.session(&config, &key).await;
        let mut strangers = Vec::new();
        // Of those who find no room, no more than can be told so at a time.
        for _ in 0..400 {
            let mut stranger = TcpStream::connect(rig.address).await.unwrap();
            // Those who find no room may be gone by now.
            let _ = stranger.write_all(b"SSH-2.0-stranger\r\n").await;
            strangers.push(stranger);
        }
        let begin = Instant::now();
        for _ in 0..100 {
            server.writer.send(&b"order"[..]).await.unwrap();
            assert_eq!(client.reader.recv().await.unwrap(), "order");
            client.writer.send(&b"answer"[..]).await.unwrap();
            assert_eq!(server.reader.recv().await.unwrap(), "answer");
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        let refused = connect(&config, &key).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Paced { .. }), "{refused}");
        drop(strangers);
        while let Err(error) = connect(&config, &key).await {
            let sent_away =
                matches!(error, ConnectError::Paced { .. } | ConnectError::Unreachable { .. });
            assert!(sent_away, "{error}");
        }
        rig.end().await;
    })
    .await;
}

#[tokio::test]
async fn every_connection_is_counted_once_by_its_end() {
    bounded(async {
        let (key, tally) = (ed25519(), Arc::new(Tally::default()));
        let mut rig = Rig::with(ed25519(), Algorithms::Modern, &[&key], |config| {
            config.tally = Arc::clone(&tally);
            // russh takes a second to refuse a key.
            config.login_grace = Duration::from_secs(3);
            config.max_startups = 1;
            config.max_waiting = 0;
        })
        .await;
        let config = rig.client();
        let (_client, _server) = rig.session(&config, &key).await;
        let counted = |end, count| {
            let tally = Arc::clone(&tally);
            async move {
                while tally.count(end) != count || tally.startups() > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        counted(Handshake::Opened, 1).await;
        connect(&config, &ed25519()).await.unwrap_err();
        counted(Handshake::KeyRefused, 1).await;
        let mut garbage = TcpStream::connect(rig.address).await.unwrap();
        garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        garbage.shutdown().await.unwrap();
        counted(Handshake::Failed, 1).await;
        let mut silent = TcpStream::connect(rig.address).await.unwrap();
        assert_eq!(silent.read_u8().await.unwrap(), b'S');
        assert_eq!(tally.startups(), 1);
        connect(&config, &key).await.unwrap_err();
        counted(Handshake::TimedOut, 1).await;
        let all = Handshake::ALL.map(|end| tally.count(end));
        assert_eq!(all, [1; 5], "{:?}", Handshake::ALL);
        rig.end().await;
        assert_eq!(Handshake::ALL.map(|end| tally.count(end)), all, "our end is nobody's failure");
    })
    .await;
}

/// A client and a server in paused time, and a network between them that can be frozen.
struct Lab {
    client: Subsystem,
    server: ServerSession<String>,
    freeze: CancellationToken,
}

impl Lab {
    async fn new(change: impl FnOnce(&mut ClientConfig, &mut ServerConfig)) -> Self {
        let (connection, mut sessions, freeze) = logged_in(change).await;
        Self {
            client: connection.open_subsystem("bastio-agent").await.unwrap(),
            server: sessions.recv().await.unwrap(),
            freeze,
        }
    }
}

async fn logged_in(
    change: impl FnOnce(&mut ClientConfig, &mut ServerConfig),
) -> (Connection, mpsc::Receiver<ServerSession<String>>, CancellationToken) {
    let (host_key, key) = (ed25519(), ed25519());
    let mut server = ServerConfig::new(vec![host_key.clone()], "1", Algorithms::Modern);
    let mut client = ClientConfig::new("test", 1, "agent", "1", vec![pin(&host_key)]);
    change(&mut client, &mut server);
    let freeze = CancellationToken::new();
    let (client_end, client_network) = duplex(1 << 16);
    let (server_end, server_network) = duplex(1 << 16);
    tokio::spawn(network(client_network, server_network, freeze.clone()));
    let (sender, sessions) = mpsc::channel(1);
    let known = Arc::new(Known::of(&[&key]));
    tokio::spawn(serve_one(server, known, sender, server_end));
    let connection = establish(&client, &key, client_end).await.unwrap();
    (connection, sessions, freeze)
}

/// Carries bytes until frozen; then neither side hears anything more, not even an end.
async fn network(mut a: DuplexStream, mut b: DuplexStream, freeze: CancellationToken) {
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut a, &mut b) => {}
        () = freeze.cancelled() => std::future::pending().await,
    }
}

#[tokio::test(start_paused = true)]
async fn login_without_a_subsystem_is_cut_too() {
    for (seconds, works) in [(19, true), (21, false)] {
        let (connection, mut sessions, _freeze) = logged_in(|_, _| {}).await;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        match connection.open_subsystem("bastio-agent").await {
            Ok(client) => {
                assert!(works, "after {seconds} s");
                let _server = sessions.recv().await.unwrap();
                // Once it is open, there is no such limit.
                tokio::time::sleep(Duration::from_secs(100)).await;
                client.writer.confirm().await.unwrap();
            }
            Err(error) => {
                assert!(!works, "after {seconds} s: {error}");
                assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dead_peer_is_noticed_by_both_sides() {
    let lab = Lab::new(|_, _| {}).await;
    let begin = tokio::time::Instant::now();
    lab.freeze.cancel();
    assert_eq!(lab.client.link.closed().await, CloseReason::DeadPeer);
    let client = begin.elapsed();
    assert!(client <= Duration::from_millis(45_100), "{client:?}");
    assert!(client >= Duration::from_secs(30), "{client:?}: too hasty");
    assert_eq!(lab.server.link.closed().await, CloseReason::DeadPeer);
    let server = begin.elapsed();
    assert!((45..=90).contains(&server.as_secs()), "{server:?}");
    assert_eq!(lab.client.writer.send("x").await, Err(SendError::Closed));
}

#[tokio::test(start_paused = true)]
async fn dead_peer_is_noticed_while_sending() {
    let lab = Lab::new(|_, _| {}).await;
    let begin = tokio::time::Instant::now();
    lab.freeze.cancel();
    let mut count = 0;
    let error = loop {
        match lab.client.writer.send(vec![0; 16 << 10]).await {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(count < 100, "queued {count} packets for a dead peer");
    assert!(begin.elapsed() <= Duration::from_secs(46), "{error}");
    let reason = lab.client.link.closed().await;
    assert!(matches!(reason, CloseReason::PeerStalled | CloseReason::DeadPeer), "{reason}");
    let confirm = lab.client.writer.confirm().await;
    assert_eq!(confirm, Err(SendError::Closed));
}

/// Whoever sends may have other things to do in between; for the peer's time limit they do not count.
#[tokio::test(start_paused = true)]
async fn a_send_that_is_cancelled_and_begun_again_waits_no_longer() {
    let lab = Lab::new(|_, _| {}).await;
    lab.freeze.cancel();
    let now = tokio::time::Instant::now;
    let mut since = now();
    let ended = loop {
        let sending = lab.server.writer.send_since(vec![0; 16 << 10], since);
        match tokio::time::timeout(Duration::from_secs(4), sending).await {
            Ok(Ok(())) => since = now(),
            Ok(Err(error)) => break error,
            Err(_) => assert!(since.elapsed() < Duration::from_secs(36), "it begins anew"),
        }
    };
    assert_eq!(ended, SendError::Stalled);
    assert!(since.elapsed() <= Duration::from_secs(31), "{:?}", since.elapsed());
}

/// An agent that sends nothing by itself lives on, as long as it answers the server's keepalives;
/// and so does a server that sends none.
#[tokio::test(start_paused = true)]
async fn silence_alone_is_no_death() {
    let never = Duration::from_secs(1_000_000);
    for client_is_silent in [true, false] {
        let mut lab = Lab::new(|client, server| match client_is_silent {
            true => client.keepalive_interval = never,
            false => server.keepalive_interval = never,
        })
        .await;
        tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
        lab.client.writer.send("still here").await.unwrap();
        assert_eq!(lab.server.reader.recv().await.unwrap(), "still here");
    }
}

/// Closing takes a bounded time also when the peer hears nothing.
#[tokio::test(start_paused = true)]
async fn close_is_bounded() {
    let lab = Lab::new(|_, _| {}).await;
    lab.freeze.cancel();
    let begin = tokio::time::Instant::now();
    lab.client.link.close().await;
    assert!(begin.elapsed() <= Duration::from_secs(6));
    let begin = tokio::time::Instant::now();
    let pause = Duration::from_secs(9);
    lab.server.link.disconnect_with_retry_after(pause).await;
    assert!(begin.elapsed() <= Duration::from_secs(6));
}
