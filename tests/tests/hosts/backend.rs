//! The backend and the console from their packages, and an agent beside them on the same host.

use bastio_tests::{BootedHost, World, require_root};

use crate::rig::{LIMIT, NEW, dpkg_install, package, show, wait_for};

const UNIT: &str = "bastio-backend.service";

#[test]
fn serves_once_its_administrator_starts_it() {
    require_root!();
    let world = World::new().unwrap();
    let host = BootedHost::start(&world, "backend-1", "bookworm").unwrap();
    for name in ["bastio-backend", "bastio"] {
        host.copy_in(package(&format!("{name}_{NEW}-1_amd64.deb")), "/tmp/it.deb").unwrap();
        host.exec(&["dpkg", "-i", "/tmp/it.deb"]).unwrap();
    }
    for file in ["alerts.yaml", "grafana-dashboard.json"] {
        let file = format!("/usr/share/bastio-backend/monitoring/{file}");
        assert!(host.exists(&file).unwrap(), "{file}");
    }
    assert_eq!(show(&host, UNIT, "ActiveState"), "inactive");
    assert_eq!(show(&host, UNIT, "UnitFileState"), "disabled");
    host.exec(&["systemctl", "enable", "--now", UNIT]).unwrap();

    let admin_token = ["sudo", "-u", "bastio-backend", "bastio-backend", "admin-token"];
    let told = host.exec(&admin_token).unwrap().stdout;
    let is_token = |word: &&str| word.starts_with("bst_");
    let token = told.split_whitespace().find(is_token).unwrap().to_owned();
    let console = |words: &[&str]| {
        let command = host.command("bastio").args(words).env("BASTIO_TOKEN", &token);
        command.env("BASTIO_URL", "http://127.0.0.1:2358").check().unwrap().stdout
    };
    let ask = |words: &[&str]| -> serde_json::Value {
        serde_json::from_str(&console(&[words, &["--output", "json"]].concat())).unwrap()
    };
    assert_eq!(ask(&["status"])["servers"], 0);
    let journal = host.exec(&["journalctl", "--no-pager", "--unit", UNIT]).unwrap().stdout;
    assert!(journal.contains("ready") && !journal.contains("bst_"), "{journal}");

    // A host may be a server of its own backend.
    dpkg_install(&host, NEW);
    let key = ask(&["api-key", "add", "self", "--role", "enroll"]);
    let text = |path: &str| key.pointer(path).unwrap().as_str().unwrap().to_owned();
    let enroll =
        host.command("bastio-agent").args(["enroll", "--backend", "http://127.0.0.1:2358"]);
    let enroll = enroll.args(["--host-key", &text("/enroll/host_key"), "--api-key-file", "-"]);
    enroll.input(text("/secret")).check().unwrap();
    host.exec(&["systemctl", "start", "bastio-agent"]).unwrap();
    wait_for("the agent is connected", || ask(&["status"])["connected"] == 1);

    host.exec(&["dpkg", "--purge", "bastio-backend"]).unwrap();
    assert!(!host.exists("/var/lib/bastio").unwrap());
    assert!(
        host.exists("/etc/bastio/agent.key").unwrap(),
        "the agent's files are not the backend's"
    );
    assert_eq!(
        host.command("id").arg("bastio-backend").limit(LIMIT).run().unwrap().code(),
        Some(0)
    );
}
