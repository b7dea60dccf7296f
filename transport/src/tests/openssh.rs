//! The stock OpenSSH client against our server: what is offered, what works, what is refused.

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::rig::{Rig, bounded, ed25519, read_exactly, rsa};
use crate::{Algorithms, PrivateKey};

const SSH: &str = "/usr/bin/ssh";

/// A folder with the agent's key and the host's line, and `ssh` told to use nothing else.
struct Stock {
    folder: tempfile::TempDir,
    port: u16,
}

impl Stock {
    fn new(rig: &Rig, key: &PrivateKey) -> Self {
        assert!(Path::new(SSH).exists(), "these tests need OpenSSH's client at {SSH}");
        let folder = tempfile::tempdir().unwrap();
        key.write_new(&folder.path().join("key")).unwrap();
        let port = rig.address.port();
        let line = format!("[127.0.0.1]:{port} {}\n", rig.host_key.public_line());
        std::fs::write(folder.path().join("hosts"), line).unwrap();
        Self { folder, port }
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(SSH);
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        command
            .args(["-F", "none", "-p", &self.port.to_string(), "-i", &path("key")])
            .args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
            .args(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", &format!("UserKnownHostsFile={}", path("hosts"))])
            .args(["-o", "GlobalKnownHostsFile=/dev/null"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, options: &[&str]) -> (Output, String) {
        let output = self.command(options).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output, said)
    }
}

const SUBSYSTEM: [&str; 3] = ["-s", "agent@127.0.0.1", "bastio-agent"];

#[tokio::test]
async fn subsystem_works() {
    bounded(async {
        let key = ed25519();
        let mut rig = Rig::new(&[&key]).await;
        let stock = Stock::new(&rig, &key);
        let mut ssh = stock.command(&SUBSYSTEM);
        let mut ssh = ssh.stdin(Stdio::piped()).spawn().unwrap();
        let mut session = rig.sessions.recv().await.unwrap();
        assert!(session.client_version.starts_with("SSH-2.0-OpenSSH"));
        assert_eq!(session.protocol, None);
        let mut stdin = ssh.stdin.take().unwrap();
        stdin.write_all(b"question").await.unwrap();
        assert_eq!(read_exactly(&mut session.reader, 8).await, b"question");
        drop(stdin);
        assert_eq!(session.reader.recv().await, None, "end of the client's data");
        session.writer.send("answer after the end of input").await.unwrap();
        session.link.close().await;
        let mut answer = String::new();
        ssh.stdout.take().unwrap().read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer after the end of input");
        ssh.wait().await.unwrap();
        rig.end().await;
    })
    .await;
}

#[tokio::test]
async fn everything_else_is_refused() {
    bounded(async {
        let key = ed25519();
        let mut rig = Rig::new(&[&key]).await;
        let stock = Stock::new(&rig, &key);
        let to = "agent@127.0.0.1";
        for (options, expected) in [
            (&[to, "true"][..], "exec request failed"),
            (&["-T", to], "shell request failed"),
            (&["-tt", to], "PTY allocation request failed"),
            (&["-s", to, "sftp"], "subsystem request failed"),
            (&["-W", "127.0.0.1:1", to], "administratively prohibited"),
            (
                &["-N", "-R", "0:127.0.0.1:1", "-o", "ExitOnForwardFailure=yes", to],
                "remote port forwarding failed",
            ),
        ] {
            let (output, said) = stock.run(options).await;
            assert!(!output.status.success(), "{options:?}");
            assert!(said.contains(expected), "{options:?}: {said}");
        }
        assert!(rig.sessions.try_recv().is_err());
        rig.end().await;
    })
    .await;
}

#[tokio::test]
async fn password_is_not_offered() {
    bounded(async {
        let rig = Rig::new(&[]).await;
        let stock = Stock::new(&rig, &ed25519());
        let (_, said) = stock.run(&SUBSYSTEM).await;
        assert!(said.contains("Permission denied (publickey)."), "{said}");
        rig.end().await;
    })
    .await;
}

/// A login with a SHA-1 signature works on the SHA-1 listener only.
#[tokio::test]
async fn sha1_is_for_the_sha1_listener() {
    bounded(async {
        let key = rsa(2048);
        let signature = ["-o", "PubkeyAcceptedAlgorithms=ssh-rsa"];
        let all = [
            "-o",
            "KexAlgorithms=diffie-hellman-group-exchange-sha1",
            "-o",
            "HostKeyAlgorithms=ssh-rsa",
            "-o",
            "MACs=hmac-sha1",
            "-o",
            "Ciphers=aes128-ctr",
        ];
        for (algorithms, works) in [
            (Algorithms::Modern, false),
            (Algorithms::LegacyRsa, false),
            (Algorithms::LegacySha1, true),
        ] {
            let mut rig = Rig::with(rsa(2048), algorithms, &[&key], |_| {}).await;
            let stock = Stock::new(&rig, &key);
            let mut options = vec![&signature[..], &SUBSYSTEM[..]];
            if works {
                options.push(&all);
                options.swap(1, 2);
            }
            let mut ssh = stock.command(&options.concat()).spawn().unwrap();
            let session = tokio::select! {
                session = rig.sessions.recv() => session,
                _ = ssh.wait() => None,
            };
            assert_eq!(session.is_some(), works, "{algorithms:?}");
            rig.end().await;
        }
    })
    .await;
}

/// The name lists of the server's KEXINIT (RFC 4253 section 7.1), read from the socket.
async fn offered(rig: &Rig) -> Vec<Vec<String>> {
    let mut socket = TcpStream::connect(rig.address).await.unwrap();
    socket.write_all(b"SSH-2.0-test\r\n").await.unwrap();
    while socket.read_u8().await.unwrap() != b'\n' {}
    let length = socket.read_u32().await.unwrap() as usize;
    let mut packet = vec![0; length];
    socket.read_exact(&mut packet).await.unwrap();
    assert_eq!(packet[1], 20, "KEXINIT");
    let mut rest = &packet[18..];
    let mut lists = Vec::new();
    for _ in 0..10 {
        let (length, tail) = rest.split_at(4);
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let (list, tail) = tail.split_at(length);
        let list = String::from_utf8(list.to_vec()).unwrap();
        lists.push(list.split(',').map(str::to_owned).collect());
        rest = tail;
    }
    lists
}

#[tokio::test]
async fn offers_exactly_what_is_listed() {
    bounded(async {
        let extensions = "ext-info-s kex-strict-s-v00@openssh.com";
        let kex = "curve25519-sha256 curve25519-sha256@libssh.org ecdh-sha2-nistp256 \
                   ecdh-sha2-nistp384 ecdh-sha2-nistp521";
        let sha2 = "rsa-sha2-512 rsa-sha2-256";
        let ctr = "aes256-ctr aes192-ctr aes128-ctr";
        let macs = "hmac-sha2-512-etm@openssh.com hmac-sha2-256-etm@openssh.com \
                    hmac-sha2-512 hmac-sha2-256";
        for (algorithms, kex, keys, macs) in [
            (
                Algorithms::LegacyRsa,
                format!("{kex} {extensions}"),
                sha2.to_owned(),
                macs.to_owned(),
            ),
            (
                Algorithms::LegacySha1,
                format!("{kex} diffie-hellman-group-exchange-sha1 {extensions}"),
                format!("{sha2} ssh-rsa"),
                format!("{macs} hmac-sha1"),
            ),
        ] {
            let rig = Rig::with(rsa(2048), algorithms, &[], |_| {}).await;
            let lists = offered(&rig).await;
            let expected = [&kex, &keys, ctr, ctr, &macs, &macs, "none", "none"];
            for (list, expected) in lists.iter().zip(expected) {
                assert_eq!(list.join(" "), expected, "{algorithms:?}");
            }
            rig.end().await;
        }
    })
    .await;
}

#[tokio::test]
async fn modern_offers_no_sha1() {
    bounded(async {
        for (host_key, keys) in
            [(ed25519(), "ssh-ed25519"), (rsa(2048), "rsa-sha2-512 rsa-sha2-256")]
        {
            let rig = Rig::with(host_key, Algorithms::Modern, &[], |_| {}).await;
            let lists = offered(&rig).await;
            assert_eq!(lists[0][0], "mlkem768x25519-sha256");
            assert_eq!(lists[1].join(" "), keys);
            for name in lists.iter().flatten() {
                assert!(!name.ends_with("sha1") && !name.ends_with("cbc"), "{name}");
            }
            rig.end().await;
        }
    })
    .await;
}

#[tokio::test]
async fn legacy_listener_takes_one_rsa_key_only() {
    bounded(async {
        for algorithms in [Algorithms::LegacyRsa, Algorithms::LegacySha1] {
            let rig = Rig::with(ed25519(), algorithms, &[], |_| {}).await;
            rig.server.await.unwrap().unwrap_err();
            let both = |config: &mut crate::ServerConfig| config.host_keys.push(ed25519());
            let rig = Rig::with(rsa(2048), algorithms, &[], both).await;
            rig.server.await.unwrap().unwrap_err();
        }
    })
    .await;
}
