//! Labels out of facts, and the rights that come and go with them.

use bastio_protocol::api::{Labels, UpdateServer};
use bastio_protocol::audit::LogFilter;
use bastio_protocol::{AgentHello, Facts, Status, V2};

use super::*;
use crate::dispatch::session::Session;
use crate::fleet::FleetError;
use crate::testing::{TestBackend, host, key};

async fn tells(session: &mut Session, pairs: &[(&str, &str)]) {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let facts = Facts::from(pairs.collect::<BTreeMap<_, _>>());
    let hello = AgentHello {
        protocol: V2,
        facts,
        last_sequence: 0,
        signing_key: None,
        receipt_key: None,
        time: None,
        together: false,
    };
    session.met(&hello).await.expect("a store");
}

async fn labels(backend: &TestBackend) -> Labels {
    let servers = backend.fleet.servers(&backend.admin).await.expect("read");
    servers[0].labels.clone()
}

#[tokio::test]
async fn rights_by_what_an_agent_tells_begin_and_end_with_it() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let set_labels = Labels::from([("role".into(), "web".into())]);
    let update = UpdateServer { set_labels, ..UpdateServer::default() };
    backend.fleet.update_server(&backend.admin, &host("web-1"), &update).await.expect("labelled");
    backend.add_user("alice", &[key(10)], "host/os=debian|ubuntu", false).await;
    backend.add_user("bob", &[key(11)], "host/os!=*", false).await;
    let mut session = backend.connect(1).await;
    assert_eq!(backend.answer_all(&session, Status::Done).await, ["add-user bob", "add-key bob"]);
    tells(&mut session, &[("os_id", "debian"), ("os_version", "12")]).await;
    assert_eq!(
        backend.answer_all(&session, Status::Done).await,
        ["remove-user bob", "set-user alice"]
    );
    let expected = [("host/os", "debian"), ("host/os-version", "12"), ("role", "web")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(labels(&backend).await, Labels::from(expected));
    let revision = || async {
        backend.fleet.status(&backend.admin, String::new()).await.expect("read").revision
    };
    let before = revision().await;
    tells(&mut session, &[("os_id", "debian"), ("os_version", "13")]).await;
    assert_eq!(revision().await, before, "nobody's rights are about that");
    tells(&mut session, &[("os_id", "plan9")]).await;
    assert_eq!(backend.answer_all(&session, Status::Done).await, ["remove-user alice"]);
    assert_eq!(labels(&backend).await.len(), 2);
    let action = Some("server.facts".parse().expect("a pattern"));
    let filter = LogFilter { action, server: Some(host("web-1")), ..LogFilter::default() };
    let told: Vec<_> = backend.log(&filter).await.into_iter().map(|told| told.row).collect();
    assert_eq!(told.len(), 3);
    assert_eq!(told[2].actor, "agent:web-1");
    assert_eq!(told[2].detail, "label host/os-version removed, label host/os=plan9");
}

#[tokio::test]
async fn operators_neither_set_nor_take_what_agents_tell() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let set_labels = Labels::from([("host/os".into(), "debian".into())]);
    for update in [
        UpdateServer { set_labels, ..UpdateServer::default() },
        UpdateServer { unset_labels: vec!["host/os".into()], ..UpdateServer::default() },
    ] {
        let refused = backend.fleet.update_server(&backend.admin, &host("web-1"), &update).await;
        assert!(matches!(refused, Err(FleetError::HostLabel(_))), "{refused:?}");
    }
    assert_eq!(labels(&backend).await, Labels::new());
}
