//! Which source wins, what is refused, and that texts say what to do.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bastio_protocol::Removal;

use super::KeyMode;
use super::layer::environment;
use super::value::Lines;
use super::{Backend, ConfigError, DEFAULT_PORT, Host, Layer, Secret, Settings, Signer, write};
use crate::drift::Policy;

const HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl4";

struct Sandbox(tempfile::TempDir);

impl Sandbox {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

fn env(pairs: &[(&str, &str)]) -> Layer {
    environment(Some(variables(pairs))).unwrap()
}

fn variables(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn load(file: &Path) -> Result<Settings, ConfigError> {
    Settings::merge(file, Layer::default(), Layer::default(), super::file::read(file)?)
}

#[test]
fn flags_beat_the_environment_beats_the_file_beats_defaults() {
    let sandbox = Sandbox::new();
    let text = format!("host = 'file'\nport = 1\nlog = 'error'\nhost_key = ['{HOST_KEY}']\n");
    let file = sandbox.file("agent.toml", 0o600, &text);
    let environment = env(&[("BASTIO_AGENT_HOST", "environment"), ("BASTIO_AGENT_PORT", "2")]);
    let flags = Layer { host: Some("flag".to_owned()), ..Layer::default() };
    let table = [
        (Layer::default(), Layer::default(), "file", 1),
        (Layer::default(), environment.clone(), "environment", 2),
        (flags, environment, "flag", 2),
    ];
    for (flags, environment, host, port) in table {
        let settings =
            Settings::merge(&file, flags, environment, super::file::read(&file).unwrap()).unwrap();
        let backend = settings.backend().unwrap();
        assert_eq!((backend.host.as_str(), backend.port.get()), (host, port));
        assert_eq!(settings.log, tracing::level_filters::LevelFilter::ERROR);
        assert_eq!(settings.user, "bastio");
        assert_eq!(settings.key_policy.min_rsa_bits, 2048);
        assert_eq!((settings.removal, settings.quarantine_days), (Removal::Keep, 30));
        assert_eq!((settings.confirm_within.as_secs(), settings.drift), (60, Policy::Report));
        assert_eq!(settings.break_glass, None);
        assert_eq!(settings.agent_key, Path::new("/etc/bastio/agent.key"));
    }
}

#[test]
fn an_absent_file_gives_defaults_and_no_backend() {
    let sandbox = Sandbox::new();
    let settings = load(&sandbox.0.path().join("none.toml")).unwrap();
    let error = settings.backend().unwrap_err();
    assert!(error.to_string().contains("bastio-agent enroll"), "{error}");
}

#[test]
fn a_secret_with_a_typing_error_is_not_shown() {
    let sandbox = Sandbox::new();
    for (name, text) in [
        ("a.toml", "host = 'b'\napi_key = bst_SECRET\n"),
        ("b.toml", "api_key = \"bst_SECRET\nhost = 'b'\n"),
        ("c.toml", "api_key = ['bst_SECRET']\n"),
        ("d.toml", "api_key = 'bst_SECRET'\napi_key = 'bst_SECRET'\n"),
        ("e.conf", "[agent]\napi_key = bst_SECRET\nbst_SECRET\n"),
        ("f.conf", "[agent\napi_key = bst_SECRET\n"),
    ] {
        let file = sandbox.file(name, 0o600, text);
        let error = super::file::read(&file).unwrap_err().to_string();
        assert!(!error.contains("SECRET"), "{name}: {error}");
    }
    let file = sandbox.file("told.toml", 0o600, "host = 'b'\napi_key = x\n");
    let error = super::file::read(&file).unwrap_err().to_string();
    assert!(error.contains("line 2, column 11") && error.contains("quoted"), "{error}");
}

#[test]
fn the_fate_of_homes_is_one_of_four() {
    for removal in [Removal::Lock, Removal::Keep, Removal::Quarantine, Removal::Delete] {
        let layer = env(&[("BASTIO_AGENT_REMOVAL", removal.name())]);
        assert_eq!(layer.removal, Some(removal));
    }
    let wrong = environment(Some(variables(&[("BASTIO_AGENT_REMOVAL", "burn")]))).unwrap_err();
    assert!(wrong.to_string().contains("burn"), "{wrong}");
}

#[test]
fn keys_lie_in_homes_unless_managed() {
    let mode = |text| super::value::key_mode(text).map_err(|error| error.to_string());
    assert_eq!((mode(None), mode(Some("home"))), (Ok(KeyMode::Home), Ok(KeyMode::Home)));
    assert_eq!(mode(Some("managed")), Ok(KeyMode::Managed));
    assert_eq!(mode(Some("Managed")), Err("keys: either home or managed".to_owned()));
    assert_eq!(env(&[("BASTIO_AGENT_KEYS", "managed")]).keys.as_deref(), Some("managed"));
}

#[test]
fn unknown_keys_are_refused_by_key_and_source() {
    let sandbox = Sandbox::new();
    for (name, text) in [("agent.toml", "hots = 'x'\n"), ("agent.conf", "[agent]\nhots = x\n")] {
        let file = sandbox.file(name, 0o600, text);
        let error = load(&file).unwrap_err().to_string();
        assert!(error.contains("hots") && error.contains(name), "{error}");
    }
    let unknown = environment(Some(variables(&[("BASTIO_AGENT_HOTS", "x")])));
    let error = unknown.unwrap_err().to_string();
    assert!(error.contains("hots") && error.contains("environment"), "{error}");
}

#[test]
fn wrong_values_are_refused() {
    let sandbox = Sandbox::new();
    let key = format!("host_key = '{HOST_KEY}'\n");
    for (text, expected) in [
        ("port = 0\n", "port"),
        ("port = 70000\n", "port"),
        ("port = 'many'\n", "port"),
        ("host = 'http://x/'\n", "host"),
        ("host = ''\n", "host"),
        ("host = 'x'\nhost_key = 'rubbish'\n", "host_key"),
        ("host = 'x'\nhost_key = []\n", "no host_key is pinned"),
        ("log = 'loud'\n", "log"),
        ("break_glass = '../root'\n", "break_glass"),
        ("confirm_within = 4\n", "confirm_within: between 5 and 3600"),
        ("confirm_within = -1\n", "confirm_within"),
        ("drift = 'fix'\n", "drift"),
        ("host = 'x'\napi_key = 'two words'\n", "api_key"),
        ("[sudo]\nplain = 'all'\n", "sudo.plain: one of group, nopasswd"),
        ("[sudo]\nplian = 'group'\n", "plian"),
        ("sudo = 'group'\n", "sudo"),
        ("no toml", "agent.toml"),
    ] {
        let whole = if text.contains("host_key") { text.to_owned() } else { key.clone() + text };
        let file = sandbox.file("agent.toml", 0o600, &whole);
        let error = load(&file).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn plain_sudo_is_the_groups_unless_said_otherwise_and_an_enrolment_keeps_it() {
    let sandbox = Sandbox::new();
    let host = Host::parse("backend.example").unwrap();
    for (text, expected) in [
        ("", crate::sudoers::PlainSudo::Group),
        ("[sudo]\n", crate::sudoers::PlainSudo::Group),
        ("[sudo]\nplain = 'group'\n", crate::sudoers::PlainSudo::Group),
        ("[sudo]\nplain = 'nopasswd'\n", crate::sudoers::PlainSudo::NoPassword),
    ] {
        let file = sandbox.file("agent.toml", 0o600, text);
        assert_eq!(load(&file).unwrap().plain_sudo, expected, "{text:?}");
        let found = Backend {
            host: &host,
            port: DEFAULT_PORT,
            host_key: HOST_KEY,
            api_key: None,
            signer: None,
            api_url: "http://b:1",
            agent_key: Path::new("/etc/bastio/agent.key"),
        };
        write(&file, &found).unwrap();
        assert_eq!(load(&file).unwrap().plain_sudo, expected, "{text:?}");
    }
}

#[test]
fn the_originals_file_is_read() {
    let sandbox = Sandbox::new();
    let common = format!(
        "agentkey = /etc/bastio/agent.key\nhost = backend.example\nport = 4000\n\
         minthreads = 3\nstacksize = 512\nhost_key = {HOST_KEY}\n"
    );
    for (name, key) in [("agent.conf", "apikey"), ("other.ini", "api_key")] {
        let text = format!("# a comment\n[agent]\n{key} = 50%%\n{common}");
        let settings = load(&sandbox.file(name, 0o600, &text)).unwrap();
        let backend = settings.backend().unwrap();
        assert_eq!(backend.address(), "backend.example:4000");
        assert_eq!(backend.login(), "50%");
        assert_eq!(settings.notes.len(), 2, "minthreads and stacksize");
    }
}

#[test]
fn the_login_is_the_api_key_only_where_there_is_one() {
    let sandbox = Sandbox::new();
    for (extra, login) in [("", "bastio-agent"), ("api_key = '007'\n", "007")] {
        let text = format!("host = '::1'\nhost_key = '{HOST_KEY}'\n{extra}");
        let settings = load(&sandbox.file("agent.toml", 0o600, &text)).unwrap();
        let backend = settings.backend().unwrap();
        assert_eq!(backend.login(), login);
        assert_eq!(backend.address(), "[::1]:2357");
        assert!(!format!("{settings:?}").contains("007"), "secrets do not show");
    }
}

#[test]
fn files_open_to_others_are_refused() {
    let sandbox = Sandbox::new();
    let plain = format!("host = 'x'\nhost_key = '{HOST_KEY}'\n");
    let secret = format!("{plain}api_key = 'secret'\n");
    for (text, mode, good) in [
        (&plain, 0o600, true),
        (&plain, 0o644, true),
        (&plain, 0o666, false),
        (&plain, 0o620, false),
        (&secret, 0o600, true),
        (&secret, 0o640, true),
        (&secret, 0o644, false),
    ] {
        let loaded = load(&sandbox.file("agent.toml", mode, text));
        assert_eq!(loaded.is_ok(), good, "mode {mode:o}");
        if let Err(error) = loaded {
            let text = error.to_string();
            assert!(text.contains("hint: chmod 600") && !text.contains("secret"), "{text}");
        }
    }
}

#[test]
fn several_host_keys_may_be_pinned() {
    let sandbox = Sandbox::new();
    let file = sandbox.0.path().join("none.toml");
    for lines in [
        Lines::One(format!("{HOST_KEY},{HOST_KEY} with a comment\n")),
        Lines::Many(vec![HOST_KEY.to_owned(), HOST_KEY.to_owned()]),
    ] {
        let flags = Layer { host: Some("x".to_owned()), host_key: Some(lines), ..Layer::default() };
        let settings = Settings::merge(&file, flags, Layer::default(), Layer::default()).unwrap();
        assert_eq!(settings.backend().unwrap().host_keys.len(), 2);
    }
}

#[test]
fn what_an_enrolment_writes_is_read_back_and_other_keys_stay() {
    let sandbox = Sandbox::new();
    let file = sandbox.file(
        "agent.toml",
        0o600,
        "user = 'other'\nmin_rsa_bits = 4096\nremoval = 'quarantine'\nquarantine_days = 7\n\
         break_glass = 'admin'\nconfirm_within = 7\ndrift = 'heal'\n",
    );
    let secret = Secret::new(" key\"with\\odd#signs \n");
    let host = Host::parse("backend.example").unwrap();
    for api_key in [Some(&secret), None] {
        let found = Backend {
            host: &host,
            port: DEFAULT_PORT,
            host_key: HOST_KEY,
            api_key,
            signer: None,
            api_url: "http://b:1",
            agent_key: Path::new("/elsewhere/agent.key"),
        };
        write(&file, &found).unwrap();
        let settings = load(&file).unwrap();
        let backend = settings.backend().unwrap();
        assert_eq!(backend.api_key.as_ref(), api_key);
        assert_eq!(backend.host, host);
        assert_eq!(settings.api_url.as_deref(), Some("http://b:1"));
        assert_eq!(settings.agent_key, Path::new("/elsewhere/agent.key"));
        assert_eq!((settings.user.as_str(), settings.key_policy.min_rsa_bits), ("other", 4096));
        assert_eq!((settings.removal, settings.quarantine_days), (Removal::Quarantine, 7));
        assert_eq!(settings.break_glass.unwrap().as_str(), "admin");
        assert_eq!((settings.confirm_within.as_secs(), settings.drift), (7, Policy::Heal));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn an_enrolment_does_not_overwrite_the_originals_file() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("agent.conf", 0o600, "[agent]\n");
    let host = Host::parse("x").unwrap();
    let found = Backend {
        host: &host,
        port: DEFAULT_PORT,
        host_key: HOST_KEY,
        api_key: None,
        signer: None,
        api_url: "u",
        agent_key: Path::new("x"),
    };
    assert!(write(&file, &found).is_err());
    assert_eq!(fs::read_to_string(&file).unwrap(), "[agent]\n");
}

const SIGNING_KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

#[test]
fn a_pinned_signer_makes_signatures_required_unless_said_otherwise() {
    let sandbox = Sandbox::new();
    let pinned = format!("server_id = '7'\nsigning_key = '{SIGNING_KEY}'\n");
    for (text, signed, required) in [
        (String::new(), false, false),
        ("require_signed = false\n".to_owned(), false, false),
        (pinned.clone(), true, true),
        (format!("{pinned}require_signed = true\n"), true, true),
        (format!("{pinned}require_signed = false\n"), true, false),
    ] {
        let settings = load(&sandbox.file("agent.toml", 0o600, &text)).unwrap();
        assert_eq!(
            (settings.signer.is_some(), settings.require_signed),
            (signed, required),
            "{text}"
        );
    }
    for (text, expected) in [
        ("require_signed = true\n", "require_signed"),
        ("server_id = '7'\n", "signing_key"),
        (&format!("signing_key = '{SIGNING_KEY}'\n"), "server_id"),
        ("server_id = '7'\nsigning_key = 'AAAA'\n", "signing_key"),
        (&format!("server_id = 'a b'\nsigning_key = '{SIGNING_KEY}'\n"), "server_id"),
    ] {
        let error = load(&sandbox.file("agent.toml", 0o600, text)).expect_err(text).to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn an_enrolment_pins_the_signer_and_another_backend_unpins_it() {
    let sandbox = Sandbox::new();
    let file = sandbox.0.path().join("agent.toml");
    let host = Host::parse("backend.example").unwrap();
    let signer =
        Signer { server: "7".to_owned().try_into().unwrap(), key: SIGNING_KEY.parse().unwrap() };
    for signer in [Some(&signer), None] {
        let found = Backend {
            host: &host,
            port: DEFAULT_PORT,
            host_key: HOST_KEY,
            api_key: None,
            signer,
            api_url: "http://b:1",
            agent_key: Path::new("/elsewhere/agent.key"),
        };
        write(&file, &found).unwrap();
        let settings = load(&file).unwrap();
        assert_eq!(settings.signer.as_ref(), signer);
        assert_eq!(settings.require_signed, signer.is_some());
    }
}
