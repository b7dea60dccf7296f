//! Our client against our server.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::rig::{Rig, bounded, ed25519, pattern, pin, read_exactly, rsa};
use crate::{Algorithms, CloseReason, ConnectError, InboundBudget, PrivateKey, SendError, connect};

async fn greets(host_key: PrivateKey, algorithms: Algorithms, key: PrivateKey) {
    let mut rig = Rig::with(host_key, algorithms, &[&key], |_| {}).await;
    let mut config = rig.client();
    config.protocol = Some(2);
    let (mut client, mut server) = rig.session(&config, &key).await;
    assert_eq!(server.identity, key.fingerprint());
    assert_eq!(server.user.as_str(), "agent");
    assert_eq!(server.protocol, Some(2));
    assert_eq!(server.client_version, "SSH-2.0-bastio-agent_9.8.7");
    client.writer.send("from the client").await.unwrap();
    server.writer.send("from the server").await.unwrap();
    assert_eq!(read_exactly(&mut server.reader, 15).await, b"from the client");
    assert_eq!(read_exactly(&mut client.reader, 15).await, b"from the server");
    client.writer.confirm().await.unwrap();
    assert_eq!(client.link.close().await, CloseReason::ClosedHere);
    assert_eq!(server.reader.recv().await, None);
    assert_eq!(server.link.closed().await, CloseReason::EndedByPeer);
    assert_eq!(server.writer.send("late").await, Err(SendError::Closed));
    rig.end().await;
}

#[tokio::test]
async fn ed25519_host_and_agent() {
    bounded(greets(ed25519(), Algorithms::Modern, ed25519())).await;
}

#[tokio::test]
async fn rsa_host_and_agent() {
    bounded(greets(rsa(2048), Algorithms::Modern, rsa(2048))).await;
}

#[tokio::test]
async fn legacy_host_serves_new_agents_too() {
    bounded(greets(rsa(2048), Algorithms::LegacyRsa, ed25519())).await;
    bounded(greets(rsa(2048), Algorithms::LegacyRsa, rsa(3072))).await;
}

#[tokio::test]
async fn another_host_key_is_told_and_no_login_is_tried() {
    bounded(async {
        for (real, pinned) in [(ed25519(), ed25519()), (rsa(2048), rsa(2048))] {
            let key = ed25519();
            let rig = Rig::with(real.clone(), Algorithms::Modern, &[&key], |_| {}).await;
            let mut config = rig.client();
            config.host_keys = vec![pin(&pinned)];
            let error = connect(&config, &key).await.unwrap_err();
            assert_eq!(
                error,
                ConnectError::HostKeyMismatch {
                    expected: vec![pinned.fingerprint()],
                    seen: real.fingerprint(),
                }
            );
            assert_eq!(rig.known.asked.load(Ordering::SeqCst), 0);
            config.host_keys.push(pin(&real));
            connect(&config, &key).await.unwrap().close().await;
            rig.end().await;
        }
    })
    .await;
}

#[tokio::test]
async fn host_key_of_another_type_is_never_taken() {
    bounded(async {
        let key = ed25519();
        let rig = Rig::new(&[&key]).await;
        let mut config = rig.client();
        config.host_keys = vec![pin(&rsa(2048))];
        let error = connect(&config, &key).await.unwrap_err();
        assert!(matches!(error, ConnectError::ProtocolError { .. }), "{error}");
        config.host_keys.clear();
        let error = connect(&config, &key).await.unwrap_err();
        assert!(matches!(error, ConnectError::ProtocolError { .. }), "{error}");
        assert_eq!(rig.known.asked.load(Ordering::SeqCst), 0);
        rig.end().await;
    })
    .await;
}

#[tokio::test]
async fn unknown_key_is_refused() {
    bounded(async {
        for key in [ed25519(), rsa(2048)] {
            let rig = Rig::new(&[&ed25519()]).await;
            let error = connect(&rig.client(), &key).await.unwrap_err();
            assert!(matches!(error, ConnectError::LoginRefused { .. }), "{error}");
            assert!(rig.known.users.lock().unwrap().contains("agent"));
            rig.end().await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_cannot_be_decided_about_is_cut_off_and_not_refused() {
    bounded(async {
        let key = ed25519();
        let rig = Rig::new(&[&key]).await;
        let mut config = rig.client();
        config.username = "unsure".to_owned();
        let error = connect(&config, &key).await.unwrap_err();
        let refused =
            matches!(error, ConnectError::LoginRefused { .. } | ConnectError::Paced { .. });
        assert!(!refused && rig.known.asked.load(Ordering::SeqCst) > 0, "{error}");
        rig.end().await;
    })
    .await;
}

#[tokio::test]
async fn nobody_there() {
    bounded(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let key = ed25519();
        let rig = Rig::new(&[&key]).await;
        let mut config = rig.client();
        config.port = listener.local_addr().unwrap().port();
        config.connect_timeout = Duration::from_millis(300);
        // Accepted by the kernel, but nobody answers.
        let error = connect(&config, &key).await.unwrap_err();
        assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
        // Giving up closes the socket: the host finds our greeting and the end.
        let (mut socket, _) = listener.accept().unwrap();
        let mut greeting = String::new();
        std::io::Read::read_to_string(&mut socket, &mut greeting).unwrap();
        assert_eq!(greeting, "SSH-2.0-bastio-agent_9.8.7\r\n");
        drop(listener);
        let error = connect(&config, &key).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
        rig.end().await;
    })
    .await;
}

#[tokio::test]
async fn only_the_one_subsystem_and_only_once() {
    bounded(async {
        let key = ed25519();
        let mut rig = Rig::new(&[&key]).await;
        let connection = connect(&rig.client(), &key).await.unwrap();
        let error = connection.open_subsystem("sftp").await.unwrap_err();
        assert!(matches!(error, ConnectError::SubsystemRefused { .. }), "{error}");
        assert!(rig.sessions.try_recv().is_err());

        let connection = connect(&rig.client(), &key).await.unwrap();
        let [same_channel, other_channel] = connection.ask_for_more("bastio-agent").await;
        assert!(!same_channel, "a second request on the same channel");
        assert!(!other_channel, "a second channel");
        rig.sessions.recv().await.unwrap();
        assert!(rig.sessions.try_recv().is_err());
        rig.end().await;
    })
    .await;
}

#[tokio::test]
async fn single_bytes_arrive_in_order() {
    bounded(async {
        let key = ed25519();
        let mut rig = Rig::new(&[&key]).await;
        let (mut client, mut server) = rig.session(&rig.client(), &key).await;
        let sent = pattern(3000);
        for byte in sent.chunks(1) {
            client.writer.send(byte.to_vec()).await.unwrap();
        }
        assert_eq!(read_exactly(&mut server.reader, sent.len()).await, sent);
        let writer = server.writer.clone();
        let copy = sent.clone();
        let sending = tokio::spawn(async move {
            for byte in copy.chunks(1) {
                writer.send(byte.to_vec()).await.unwrap();
            }
        });
        assert_eq!(read_exactly(&mut client.reader, sent.len()).await, sent);
        sending.await.unwrap();
        rig.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_megabyte_each_way_at_once() {
    bounded(async {
        let key = ed25519();
        let mut rig = Rig::new(&[&key]).await;
        let (mut client, mut server) = rig.session(&rig.client(), &key).await;
        let sent = pattern(1 << 20);
        let (up, down) = (sent.clone(), sent.clone());
        let up = async { client.writer.send(up).await.unwrap() };
        let down = async { server.writer.send(down).await.unwrap() };
        let (_, _, at_client, at_server) = tokio::join!(
            up,
            down,
            read_exactly(&mut client.reader, sent.len()),
            read_exactly(&mut server.reader, sent.len())
        );
        assert!(at_client == sent && at_server == sent);
        rig.end().await;
    })
    .await;
}

/// New session keys in the middle of traffic lose nothing.
#[tokio::test]
async fn new_session_keys_under_load() {
    bounded(async {
        let key = ed25519();
        let mut rig = Rig::new(&[&key]).await;
        let (mut client, mut server) = rig.session(&rig.client(), &key).await;
        let sent = pattern(1 << 20);
        let up = async {
            for piece in sent.chunks(16 << 10) {
                client.writer.send(piece.to_vec()).await.unwrap();
                client.writer.rekey().await;
            }
            client.writer.confirm().await.unwrap();
        };
        let down = async {
            for piece in sent.chunks(1 << 10) {
                server.writer.send(piece.to_vec()).await.unwrap();
            }
        };
        let ((), (), at_client, at_server) = tokio::join!(
            up,
            down,
            read_exactly(&mut client.reader, sent.len()),
            read_exactly(&mut server.reader, sent.len())
        );
        assert!(at_client == sent && at_server == sent);
        rig.end().await;
    })
    .await;
}

/// Sends 5 MiB to a reader that does not read at first: the sender is held up, nothing is lost.
#[tokio::test]
async fn slow_reader_holds_up_the_sender_and_loses_nothing() {
    bounded(async {
        let key = ed25519();
        let mut rig = Rig::new(&[&key]).await;
        let (mut client, mut server) = rig.session(&rig.client(), &key).await;
        let sent = pattern(5 << 20);
        for upward in [true, false] {
            let (client_writer, server_writer) = (client.writer.clone(), server.writer.clone());
            let data = sent.clone();
            let (progress, mut seen) = tokio::sync::watch::channel(0);
            let sending = tokio::spawn(async move {
                for (n, piece) in data.chunks(16 << 10).enumerate() {
                    let piece = piece.to_vec();
                    if upward {
                        client_writer.send(piece).await.unwrap();
                    } else {
                        server_writer.send(piece).await.unwrap();
                    }
                    progress.send_replace(n);
                }
            });
            // Until there is no progress for a while.
            let pause = Duration::from_millis(500);
            while let Ok(changed) = tokio::time::timeout(pause, seen.changed()).await {
                assert!(changed.is_ok(), "5 MiB went out although nobody read");
            }
            assert!(!sending.is_finished());
            let reader = match upward {
                true => &mut server.reader,
                false => &mut client.reader,
            };
            assert!(read_exactly(reader, sent.len()).await == sent);
            sending.await.unwrap();
        }
        rig.end().await;
    })
    .await;
}

#[tokio::test]
async fn reader_that_never_reads_ends_the_session() {
    bounded(async {
        let key = ed25519();
        let budget =
            InboundBudget { messages: 4, bytes: 1 << 16, wait: Duration::from_millis(300) };
        let mut rig = Rig::with(ed25519(), Algorithms::Modern, &[&key], |config| {
            config.inbound = budget;
        })
        .await;
        let mut config = rig.client();
        let (client, server) = rig.session(&config, &key).await;
        for _ in 0..20 {
            // Ends when the server has given up.
            if client.writer.send("12345").await.is_err() {
                break;
            }
        }
        assert_eq!(server.link.closed().await, CloseReason::Stalled);
        assert_eq!(client.link.closed().await, CloseReason::EndedByPeer);

        config.inbound = budget;
        let (client, server) = rig.session(&config, &key).await;
        for _ in 0..20 {
            if server.writer.send("12345").await.is_err() {
                break;
            }
        }
        assert_eq!(client.link.closed().await, CloseReason::Stalled);
        rig.end().await;
    })
    .await;
}

/// Confirms only what the peer's SSH layer has taken.
#[tokio::test]
async fn confirm_waits_for_the_peer() {
    bounded(async {
        let key = ed25519();
        let mut rig = Rig::with(ed25519(), Algorithms::Modern, &[&key], |config| {
            config.inbound.messages = 1;
        })
        .await;
        let (client, mut server) = rig.session(&rig.client(), &key).await;
        client.writer.send("first").await.unwrap();
        client.writer.confirm().await.unwrap();
        client.writer.send("second").await.unwrap();
        let confirm = client.writer.confirm();
        tokio::pin!(confirm);
        let early = tokio::time::timeout(Duration::from_millis(300), &mut confirm).await;
        assert!(early.is_err(), "confirmed although the second message has no room");
        assert_eq!(server.reader.recv().await.unwrap(), "first");
        confirm.await.unwrap();
        assert_eq!(server.reader.recv().await.unwrap(), "second");

        // Not confirmed when the connection ends instead.
        client.writer.send("third").await.unwrap();
        client.writer.send("fourth").await.unwrap();
        let confirm = client.writer.confirm();
        tokio::pin!(confirm);
        let early = tokio::time::timeout(Duration::from_millis(100), &mut confirm).await;
        assert!(early.is_err());
        drop(server.link);
        assert_eq!(confirm.await, Err(SendError::Closed));
        rig.end().await;
    })
    .await;
}

#[tokio::test]
async fn host_asks_to_come_back_later() {
    bounded(async {
        let key = ed25519();
        let mut rig = Rig::new(&[&key]).await;
        let (mut client, server) = rig.session(&rig.client(), &key).await;
        server.writer.send("last words").await.unwrap();
        let pause = Duration::from_secs(77);
        server.link.disconnect_with_retry_after(pause).await;
        assert_eq!(read_exactly(&mut client.reader, 10).await, b"last words");
        assert_eq!(client.reader.recv().await, None);
        assert_eq!(client.link.closed().await, CloseReason::RetryAfter(pause));
        rig.end().await;
    })
    .await;
}

#[tokio::test]
async fn dropped_link_cuts_at_once() {
    bounded(async {
        let key = ed25519();
        let mut rig = Rig::new(&[&key]).await;
        let (client, mut server) = rig.session(&rig.client(), &key).await;
        let begin = Instant::now();
        drop(client.link);
        assert_eq!(server.reader.recv().await, None);
        server.link.closed().await;
        assert_eq!(client.writer.confirm().await, Err(SendError::Closed));

        let (mut client, server) = rig.session(&rig.client(), &key).await;
        drop(server.link);
        assert_eq!(client.reader.recv().await, None);
        client.link.closed().await;
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        rig.end().await;
    })
    .await;
}

#[tokio::test]
async fn shutdown_ends_every_connection() {
    bounded(async {
        let key = ed25519();
        let mut rig = Rig::new(&[&key]).await;
        let config = rig.client();
        let (reading, server_reading) = rig.session(&config, &key).await;
        let (client, server) = rig.session(&config, &key).await;
        let _stranger = tokio::net::TcpStream::connect(rig.address).await.unwrap();
        let without_subsystem = connect(&config, &key).await.unwrap();
        rig.stop.cancel();
        rig.server.await.unwrap().unwrap();
        for reason in [reading.link.closed().await, client.link.closed().await] {
            assert_eq!(reason, CloseReason::EndedByPeer);
        }
        for link in [server.link, server_reading.link] {
            assert_eq!(link.closed().await, CloseReason::ClosedHere);
        }
        without_subsystem.close().await;
        connect(&config, &key).await.unwrap_err();
    })
    .await;
}

/// The handler's panic ends that connection alone.
#[tokio::test]
async fn panic_in_one_connection_leaves_the_others() {
    bounded(async {
        let key = ed25519();
        let mut rig = Rig::new(&[&key]).await;
        let mut config = rig.client();
        let (client, mut server) = rig.session(&config, &key).await;
        config.username = "panic".to_owned();
        let error = connect(&config, &key).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
        client.writer.send("still here").await.unwrap();
        assert_eq!(read_exactly(&mut server.reader, 10).await, b"still here");
        rig.end().await;
    })
    .await;
}
