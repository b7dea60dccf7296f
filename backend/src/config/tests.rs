//! Which source wins, what is refused, and that texts say what to do.

use std::time::Duration;

use super::*;

fn parse(text: &str, environment: &[(&str, &str)], flags: Flags) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backend.toml");
    std::fs::write(&file, text).unwrap();
    let flags = Flags { file: Some(file), ..flags };
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::assemble(&flags, environment, Path::new("/nonexistent/backend.toml"))
}

fn parse_file(text: &str) -> Result<Config, ConfigError> {
    parse(text, &[], Flags::default())
}

#[test]
fn nothing_configured_is_the_defaults() {
    assert_eq!(parse_file("").unwrap(), Config::default());
    let absent = Config::assemble(&Flags::default(), std::iter::empty(), Path::new("/nonexistent"));
    assert_eq!(absent.unwrap(), Config::default());
    assert_eq!(Config::default().ssh.listen.to_string(), "0.0.0.0:2357");
    assert_eq!(Config::default().http.listen.to_string(), "0.0.0.0:2358");
}

#[test]
fn every_key_is_read_from_the_file() {
    let config = parse_file(
        r#"
        state = "/srv/bastio"
        [ssh]
        listen = "[::]:22"
        [http]
        listen = "127.0.0.1:0"
        public_url = "https://bastio.example.org/base/"
        [legacy]
        listen = "0.0.0.0:2359"
        sha1 = true
        [limits]
        max_startups = 7
        max_startups_per_source = 3
        login_grace = 5
        answer_within = 60
        take_within = 15
        keepalive = 7
        max_sessions_per_key = 2
        max_logins_per_key = 4
        [orders]
        valid_for = 90
        "#,
    )
    .unwrap();
    assert_eq!(config.state, PathBuf::from("/srv/bastio"));
    assert_eq!(config.ssh.listen.to_string(), "[::]:22");
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:0");
    assert_eq!(config.http.public_url.unwrap().as_str(), "https://bastio.example.org/base");
    assert_eq!(config.legacy.listen.unwrap().to_string(), "0.0.0.0:2359");
    assert!(config.legacy.sha1);
    assert_eq!(config.limits.max_startups.get(), 7);
    assert_eq!(config.limits.max_startups_per_source.get(), 3);
    assert_eq!(config.limits.login_grace.get(), Duration::from_secs(5));
    assert_eq!(config.limits.answer_within(), Duration::from_secs(60));
    assert_eq!(config.limits.take_within.get(), Duration::from_secs(15));
    assert_eq!(config.limits.keepalive.get(), Duration::from_secs(7));
    assert_eq!(config.limits.max_sessions_per_key.get(), 2);
    assert_eq!(config.limits.max_logins_per_key.get(), 4);
    assert_eq!(config.orders.valid_for.get(), Duration::from_secs(90));
}

#[test]
fn every_key_is_read_from_the_environment() {
    let config = parse(
        "",
        &[
            ("BASTIO_BACKEND_STATE", "/srv/bastio"),
            ("BASTIO_BACKEND_SSH_LISTEN", "127.0.0.1:1"),
            ("BASTIO_BACKEND_HTTP_LISTEN", "127.0.0.1:2"),
            ("BASTIO_BACKEND_HTTP_PUBLIC_URL", "http://b.example"),
            ("BASTIO_BACKEND_LEGACY_LISTEN", "127.0.0.1:3"),
            ("BASTIO_BACKEND_LEGACY_SHA1", "true"),
            ("BASTIO_BACKEND_LIMITS_MAX_STARTUPS", "4"),
            ("BASTIO_BACKEND_LIMITS_MAX_STARTUPS_PER_SOURCE", "5"),
            ("BASTIO_BACKEND_LIMITS_LOGIN_GRACE", "6"),
            ("BASTIO_BACKEND_LIMITS_ANSWER_WITHIN", "7"),
            ("BASTIO_BACKEND_LOG", "debug"),
            ("BASTIO_BACKEND_CONFIG", "/etc/other.toml"),
        ],
        Flags::default(),
    )
    .unwrap();
    let file = parse_file(
        r#"
        state = "/srv/bastio"
        ssh.listen = "127.0.0.1:1"
        http.listen = "127.0.0.1:2"
        http.public_url = "http://b.example"
        legacy.listen = "127.0.0.1:3"
        legacy.sha1 = true
        limits.max_startups = 4
        limits.max_startups_per_source = 5
        limits.login_grace = 6
        limits.answer_within = 7
        "#,
    )
    .unwrap();
    assert_eq!(config, file);
}

#[test]
fn a_sites_own_groups_are_a_list_or_a_text() {
    let groups = |config: Config| {
        let groups = config.approvals.root_groups.get();
        groups.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let list = parse_file("approvals.root_groups = [\"ops\", \"dba\"]").unwrap();
    assert_eq!(groups(list), ["dba", "ops"]);
    let variable = ("BASTIO_BACKEND_APPROVALS_ROOT_GROUPS", "ops, dba");
    assert_eq!(groups(parse("", &[variable], Flags::default()).unwrap()), ["dba", "ops"]);
}

#[test]
fn flags_win_over_environment_and_environment_over_file() {
    let text = "ssh.listen = \"127.0.0.1:1\"\nhttp.listen = \"127.0.0.1:1111\"\nstate = \"/file\"";
    let environment =
        [("BASTIO_BACKEND_SSH_LISTEN", "127.0.0.1:2"), ("BASTIO_BACKEND_STATE", "/env")];
    let flags = Flags { state: Some("/flag".into()), ..Flags::default() };
    let config = parse(text, &environment, flags).unwrap();
    assert_eq!(config.ssh.listen.port(), 2);
    assert_eq!(config.http.listen.port(), 1111);
    assert_eq!(config.state, PathBuf::from("/flag"));
}

#[test]
fn what_is_wrong_is_refused_and_named() {
    let cases = [
        ("stat = \"/x\"", "stat"),
        ("approvals.root_groups = [\"a b\"]", "names of groups"),
        ("[ssh]\nport = 22", "port"),
        ("[tls]\nkey = 1", "tls"),
        ("ssh.listen = \"localhost\"", "ssh.listen"),
        ("ssh.listen = 2357", "ssh.listen"),
        ("limits.login_grace = 0", "1 to 3600"),
        ("limits.login_grace = 3601", "1 to 3600"),
        ("limits.max_startups = 0", "1 to 100000"),
        ("limits.max_startups = -1", "max_startups"),
        ("limits.max_startups = \"many\"", "max_startups"),
        ("http.public_url = \"bastio.example\"", "http://"),
        ("http.public_url = \"http://\"", "http://"),
        ("http.public_url = \"https://x/?a=b\"", "http://"),
        ("http.public_url = \"https://user@x\"", "http://"),
        ("legacy.sha1 = \"perhaps\"", "sha1"),
        ("legacy.sha1 = true", "legacy.listen"),
        ("state = \"var\"", "absolute"),
        ("ssh.listen = \"0.0.0.0:2358\"", "same address"),
        ("legacy.listen = \"0.0.0.0:2357\"", "same address"),
        ("legacy.listen = \"0.0.0.0:2358\"", "same address"),
        ("history.revisions = 0", "1 to 1000000"),
        ("uids.to = 5", "from and to"),
        ("uids.from = 999", "from 1000 on"),
        ("uids.from = 60000", "from not above to"),
        ("uids.from = -1", "from"),
        ("uids.from = 2147483648\nuids.to = 2147483648", "from 1000 on"),
        ("state = ", "line"),
    ];
    for (text, named) in cases {
        let error = parse_file(text).unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
    let two_free_ports = "ssh.listen = \"127.0.0.1:0\"\nhttp.listen = \"127.0.0.1:0\"";
    assert!(parse_file(two_free_ports).is_ok());
}

#[test]
fn unknown_variable_and_missing_named_file_are_refused() {
    let error = parse("", &[("BASTIO_BACKEND_SHH_LISTEN", "x")], Flags::default()).unwrap_err();
    assert!(error.to_string().contains("BASTIO_BACKEND_SSH_LISTEN"), "{error}");
    let flags = Flags { file: Some("/nonexistent/b.toml".into()), ..Flags::default() };
    let error = Config::assemble(&flags, std::iter::empty(), Path::new("/nonexistent"));
    assert!(error.unwrap_err().to_string().contains("/nonexistent/b.toml"));
}

#[test]
fn a_shared_database_needs_one_url_and_a_cluster_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.url");
    let path = file.display();
    std::fs::write(&file, "postgres://bastio:s3cret@db.example.org/fleet\n").unwrap();
    for (text, named) in [
        (r#"url = "postgres://db/fleet""#.to_owned(), "cluster_key_file"),
        (format!("url = \"postgres://db/fleet\"\nurl_file = \"{path}\""), "keep one of them"),
        (r#"url = "mysql://s3cret@db/fleet""#.to_owned(), "begins with postgres://"),
    ] {
        let error = parse_file(&format!("[store]\n{text}")).unwrap_err().to_string();
        assert!(error.contains(named) && !error.contains("s3cret"), "{error}");
    }
    let text = format!("[store]\nurl_file = \"{path}\"\ncluster_key_file = \"/nonexistent\"");
    let config = parse_file(&text).unwrap();
    let url = config.store.shared().unwrap().unwrap();
    assert_eq!(url.to_string(), "postgres://bastio@db.example.org:5432/fleet");
    assert!(!format!("{config:?} {url:?}").contains("s3cret"));
    let error = config.store.cluster_key().unwrap_err().to_string();
    assert!(error.contains("store.cluster_key_file: /nonexistent"), "{error}");
    assert_eq!(Config::default().store.shared().unwrap(), None);
}
