//! The configuration from outside: layers, faults, files, and the commands that read it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expects")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sns_relay::clock::Clock;
use sns_relay::config::{ApnsCredential, Config, EnrolmentPolicy, Faults, ServiceUrl};
use sns_relay::keys;
use sns_relay::push::AppName;
use tempfile::TempDir;

const NOW_MS: u64 = 1_764_000_000_000;

/// A certificate of `test.example` that signed itself, good until 2126, made for these tests.
const CERTIFICATE: &str = include_str!("config/test.example.pem");

/// The key of [`CERTIFICATE`]; nothing else trusts it.
const CERTIFICATE_KEY: &str = include_str!("config/test.example.key");

/// A folder with keys, credentials of every kind, and a configuration file that is without fault.
struct Folder(TempDir);

// === impl Folder ===

impl Folder {
    const CONFIG: &str = r#"
        [apps.chat]
        allow_plain = true
        [apps.chat.apns]
        topic = "com.example.chat"
        key_file = "keys/vapid.pem"
        key_id = "ABCDE12345"
        team_id = "TEAM123456"
        [apps.chat.fcm]
        service_account_file = "account.json"
        [apps.chat.webpush]
        subject = "mailto:push@example.com"
    "#;

    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        keys::init(&folder.path("keys"), &clock(NOW_MS)).unwrap();
        folder.write("account.json", &service_account("https://oauth2.example.com/token"));
        folder.write("relay.toml", Self::CONFIG);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(0o600)).unwrap();
    }

    fn load(&self, variables: &[(&str, &str)]) -> Result<Config, Faults> {
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Config::load(Some(&self.path("relay.toml")), variables)
    }

    /// Gives what the configuration is blamed for, by key.
    fn faults(&self, config: &str, variables: &[(&str, &str)]) -> BTreeMap<String, String> {
        self.write("relay.toml", config);
        let faults = self.load(variables).err().expect("a fault");
        let count = faults.0.len();
        let by_key: BTreeMap<_, _> = faults.0.into_iter().map(|f| (f.key, f.text)).collect();
        assert_eq!(by_key.len(), count, "a key is blamed once: {by_key:?}");
        by_key
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sns-relay"));
        command.env_clear().current_dir(self.0.path()).args(arguments).output().unwrap()
    }
}

fn clock(unix_ms: u64) -> Clock {
    Clock::from_fn(move || unix_ms)
}

fn service_account(token_uri: &str) -> String {
    let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der.as_ref())
    );
    serde_json::json!({
        "type": "service_account",
        "project_id": "example-1",
        "private_key_id": "0123456789abcdef",
        "private_key": pem,
        "client_email": "push@example-1.iam.gserviceaccount.com",
        "token_uri": token_uri,
    })
    .to_string()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn without_file_and_variables_there_are_the_defaults() {
    let config = Config::load(None, std::iter::empty()).ok().unwrap();
    assert_eq!(config.server.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.server.public_url.origin, "http://localhost:8080");
    assert!(config.server.tls.is_none());
    assert_eq!(config.server.request_timeout, Duration::from_secs(20));
    assert_eq!(config.authenticate.token_lifetime_max, Duration::from_secs(86400));
    assert_eq!(config.enrolment.policy, EnrolmentPolicy::Token);
    assert_eq!(config.pairing.handle_lifetime, Duration::from_secs(365 * 86400));
    let apple = ServiceUrl { host: "api.push.apple.com".to_owned(), port: 443 };
    assert_eq!(config.apns.production_url, apple);
    assert_eq!(config.store.place.name(), "data/identities.sqlite3");
    assert!(config.webpush.allow_hosts.contains(&"web.push.apple.com".to_owned()));
    assert!(!config.webpush.allow_hosts.contains(&".push.apple.com".to_owned()));
    assert!(config.apps.is_empty());
    assert_eq!(config.warnings[0].key, "apps");
}

#[test]
fn a_variable_beats_the_file_and_the_file_beats_the_default() {
    let folder = Folder::new();
    folder.write(
        "relay.toml",
        &format!("log.level = \"debug\"\nserver.targets_max = 7\n{}", Folder::CONFIG),
    );
    let config = folder
        .load(&[
            ("SNS_RELAY__SERVER__TARGETS_MAX", "8"),
            ("SNS_RELAY__APPS__CHAT__APNS__TOPIC", "com.example.other"),
            ("SNS_RELAY__APPS__CHAT__ALLOW_PLAIN", "false"),
            ("SNS_RELAY__WEBPUSH__ALLOW_HOSTS", "Push.Example.com, .example.net"),
            ("SNS_RELAY__APPS__CHAT-2__WEBPUSH__SUBJECT", "https://example.com"),
            ("SNS_RELAY_SERVICE_HOST", "not ours"),
        ])
        .map_err(|faults| faults.to_string())
        .ok()
        .unwrap();
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.server.targets_max, 8);
    assert_eq!(config.server.in_flight_max, 20000);
    assert_eq!(config.webpush.allow_hosts, ["push.example.com", ".example.net"]);
    let chat = &config.apps[&AppName::parse("chat").ok().unwrap()];
    assert!(!chat.allow_plain);
    assert_eq!(chat.apns.as_ref().unwrap().topic, "com.example.other");
    let other = &config.apps[&AppName::parse("chat-2").ok().unwrap()];
    assert!(other.webpush.is_some() && other.apns.is_none() && other.fcm.is_none());
}

#[test]
fn an_app_is_read_with_its_credentials_and_defaults() {
    let folder = Folder::new();
    let config = folder.load(&[]).ok().unwrap();
    let chat = &config.apps[&AppName::parse("chat").ok().unwrap()];
    assert!(chat.allow_plain);
    let apns = chat.apns.as_ref().unwrap();
    assert_eq!(
        (apns.loc_key.as_str(), apns.sound.as_deref()),
        ("SNS_NEW_MESSAGE", Some("default"))
    );
    assert_eq!(apns.title_loc_key, None);
    let ApnsCredential::Token { key_id, team_id, .. } = &apns.credential else {
        panic!("a token key");
    };
    assert_eq!((key_id.as_str(), team_id.as_str()), ("ABCDE12345", "TEAM123456"));
    let fcm = chat.fcm.as_ref().unwrap();
    assert_eq!(fcm.project_id, "example-1");
    assert_eq!((fcm.token_url.host.as_str(), fcm.token_url.port), ("oauth2.example.com", 443));
    assert_eq!(fcm.token_path, "/token");
    assert_eq!(fcm.token_uri, "https://oauth2.example.com/token");
    let webpush = chat.webpush.as_ref().unwrap();
    let vapid = fs::read_to_string(folder.path("keys/vapid.pem")).unwrap();
    assert_eq!(webpush.vapid_key_pem.expose(), &vapid, "the default is the folder's key");
    assert_eq!(webpush.body_bytes_max, 4096);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

/// A configuration with a fault of every kind.
const FAULTY: &str = r#"
        store = 3
        [server]
        listen = "localhost"
        public_url = "https://push.example.com/path"
        connections_max = 0
        targets_max = "64"
        body_bytes_max = -1
        [server.tls]
        certificate_file = "chain.pem"
        [server.drain_timeout_ms]
        [admin]
        lisen = "127.0.0.1:9090"
        [log]
        level = "trace"
        [upstream]
        backoff_min_ms = 500
        backoff_max_ms = 400
        breaker_open_min_ms = 5000
        breaker_open_max_ms = 4999
        breaker_failure_percent = 0
        prewarm = 1001
        proxy_url = "https://anna:c2VjcmV0@proxy.example:3128"
        [apns]
        production_url = "http://api.push.apple.com"
        ca_file = "broken.pem"
        [webpush]
        allow_hosts = ["https://push.example.com"]
        danger_allow_origins = ["localhost"]
        [unknown]
        [apps.chat]
        proof_of_possession = "required"
        [apps.chat.apns]
        key_file = "broken.pem"
        key_id = "short"
        [apps.chat.fcm]
        service_account_file = "missing.json"
        [apps.chat.webpush]
        vapid_key_file = """-----BEGIN PRIVATE KEY-----
c2VjcmV0"""
        subject = "mailto:push@localhost"
        body_bytes_max = 5000
        [email]
        host = "smtp.example.com:25"
        security = "ssl"
        username = "relay"
        [apps.chat.email]
        from_address = "NAS <nas@example.com>"
        [apps.none]
        [apps.Wrong_Name.fcm]
        service_account_file = "account.json"
        "#;

/// What [`FAULTY`] and two variables are blamed for.
const BLAMED: [(&str, &str); 37] = [
    ("store", "is a section, not a key"),
    ("server.listen", "must be an address and port"),
    ("server.public_url", "must be a URL"),
    ("server.connections_max", "must be a whole number from 1 to 1000000"),
    ("server.targets_max", "must be a whole number from 1 to 1000"),
    ("server.body_bytes_max", "must be a whole number from 4096 to 16777216"),
    ("server.tls.key_file", "is required where server.tls.certificate_file is set"),
    ("server.drain_timeout_ms", "is a key, not a section"),
    ("admin.lisen", "is no known key; did you mean admin.listen?"),
    ("log.level", "must be error, warn, info or debug"),
    ("upstream.backoff_max_ms", "must not be below upstream.backoff_min_ms"),
    ("upstream.breaker_open_max_ms", "must not be below upstream.breaker_open_min_ms"),
    ("upstream.breaker_failure_percent", "must be a whole number from 1 to 100"),
    ("upstream.prewarm", "must be a whole number from 0 to 1000"),
    ("upstream.proxy_url", "must be empty, http://host:port or socks5://host:port"),
    ("apns.production_url", "must be a URL"),
    ("apns.ca_file", "must hold at least one certificate"),
    ("webpush.allow_hosts", "must be a list of host names"),
    ("webpush.danger_allow_origins", "must be a list of host:port pairs"),
    ("unknown", "is no known section"),
    ("apps.chat.proof_of_possession", "must be off: proof of possession is there for e-mail alone"),
    ("apps.chat.apns.topic", "must be the app's bundle id"),
    ("apps.chat.apns.key_file", "must hold a P-256 key"),
    ("apps.chat.apns.key_id", "must be the 10 characters"),
    ("apps.chat.apns.team_id", "must be the 10 characters"),
    ("apps.chat.fcm.service_account_file", "cannot be read: No such file"),
    ("apps.chat.webpush.vapid_key_file", "must be the name of a file, not its content"),
    ("apps.chat.webpush.subject", "must be mailto:address or https://URL"),
    ("apps.chat.webpush.body_bytes_max", "must be a whole number from 1024 to 4096"),
    ("email.host", "must be a host name"),
    ("email.security", "must be starttls, tls or cleartext"),
    ("email.password_file", "is required where email.username is set"),
    ("apps.chat.email.from_address", "must be a mail address"),
    ("apps.none", "needs at least one of the sections apns, fcm, webpush and email"),
    ("apps.Wrong_Name", "an app's name must be 1 to 32 of a-z, 0-9 and \"-\""),
    ("keys.reload_interval_s", "must be a whole number from 1 to 60"),
    ("x.y", "is no known key"),
];

#[test]
fn every_kind_of_fault_is_told_in_one_go() {
    let folder = Folder::new();
    folder
        .write("broken.pem", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
    folder.write("account.json", r#"{"type": "user", "project_id": "a/b", "token_uri": "x"}"#);
    let faults = folder.faults(
        FAULTY,
        &[("SNS_RELAY__KEYS__RELOAD_INTERVAL_S", "soon"), ("SNS_RELAY__X__Y", "1")],
    );
    for (key, text) in BLAMED {
        let fault = faults.get(key).unwrap_or_else(|| panic!("{key} is not blamed: {faults:#?}"));
        assert!(fault.starts_with(text), "{key}: {fault}");
    }
    assert_eq!(faults.len(), BLAMED.len(), "{faults:#?}");
    assert!(!format!("{faults:?}").contains("c2VjcmV0"), "no fault repeats a secret");
}

#[test]
fn a_service_account_is_checked_member_by_member() {
    let folder = Folder::new();
    folder.write("account.json", r#"{"type": "user", "project_id": "a/b", "token_uri": "x"}"#);
    let faults = folder.load(&[]).err().unwrap().to_string();
    for text in [
        "lacks the member client_email",
        "lacks the member private_key_id",
        "lacks the member private_key",
        "the member type must be service_account",
        "the member project_id must be a project's id",
        "the member token_uri must be an https URL",
    ] {
        let line = format!("apps.chat.fcm.service_account_file: {text}");
        assert!(faults.lines().any(|fault| fault.starts_with(&line)), "{text}: {faults}");
    }
}

#[test]
fn an_apns_credential_is_one_of_two() {
    let folder = Folder::new();
    let base = "[apps.a.apns]\ntopic = \"a\"\n";
    let certificate = "apps.a.apns.certificate_file";
    for (keys, blamed, text) in [
        ("", "apps.a.apns.key_file", "is required"),
        ("key_file = \"keys/vapid.pem\"\ncertificate_file = \"x\"", certificate, "must not be set"),
        (
            "certificate_file = \"keys/vapid.pem\"",
            certificate,
            "must hold at least one certificate",
        ),
    ] {
        let faults = folder.faults(&format!("{base}{keys}"), &[]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[blamed].starts_with(text), "{faults:?}");
    }
}

#[test]
fn certificates_and_their_keys_are_taken_from_files() {
    let folder = Folder::new();
    folder.write("chain.pem", CERTIFICATE);
    folder.write("key.pem", CERTIFICATE_KEY);
    folder.write("both.pem", &format!("{CERTIFICATE}{CERTIFICATE_KEY}"));
    let config = r#"
        server.tls = { certificate_file = "chain.pem", key_file = "key.pem" }
        apns.ca_file = "chain.pem"
        apps.a.apns = { topic = "a", certificate_file = "both.pem" }
    "#;
    folder.write("relay.toml", config);
    let read = folder.load(&[]).map_err(|faults| faults.to_string()).ok().unwrap();
    let tls = read.server.tls.unwrap();
    assert_eq!(tls.certificate_file, folder.path("chain.pem"));
    assert_eq!(tls.key_file, folder.path("key.pem"));
    assert_eq!(read.apns.ca_file, Some(folder.path("chain.pem")));
    let app = &read.apps[&AppName::parse("a").ok().unwrap()];
    let credential = &app.apns.as_ref().unwrap().credential;
    assert!(matches!(credential, ApnsCredential::Certificate { .. }));

    let other_key = config.replace("key_file = \"key.pem\"", "key_file = \"keys/vapid.pem\"");
    let faults = folder.faults(&other_key, &[]);
    assert_eq!(faults["server.tls.key_file"], "the private key does not belong to the certificate");
    let faults = folder.faults(&config.replace("both.pem", "chain.pem"), &[]);
    assert_eq!(faults["apps.a.apns.certificate_file"], "must hold a private key in PEM");
    let key_alone = "server.tls.key_file = \"key.pem\"";
    let blamed = folder.faults(key_alone, &[]).into_keys().collect::<Vec<_>>();
    assert_eq!(blamed, ["server.tls.certificate_file"]);
}

#[test]
fn relative_names_start_where_they_were_written() {
    let folder = Folder::new();
    let config = folder.load(&[("SNS_RELAY__STORE__FILE", "x.sqlite3")]).ok().unwrap();
    assert_eq!(config.store.place.name(), "x.sqlite3");
    assert_eq!(config.keys.directory, folder.path("keys"), "a default, beside the file");
    fs::remove_file(folder.path("keys/vapid.pem")).unwrap();
    let app = "[apps.a.webpush]\nsubject = \"https://example.com\"";
    let faults = folder.faults(app, &[]);
    assert!(faults["apps.a.webpush.vapid_key_file"].contains("sns-relay keys init"));
}

#[test]
fn doors_and_admin_do_not_share_a_port() {
    let folder = Folder::new();
    let doors = ("SNS_RELAY__SERVER__LISTEN", "0.0.0.0:9090");
    assert_eq!(folder.load(&[doors]).err().unwrap().0[0].key, "admin.listen");
    let any = [("SNS_RELAY__SERVER__LISTEN", "[::1]:0"), ("SNS_RELAY__ADMIN__LISTEN", "[::1]:0")];
    assert!(folder.load(&any).is_ok());
}

#[test]
fn broken_toml_names_file_and_line() {
    let folder = Folder::new();
    folder.write("relay.toml", "[server]\nlisten = \"127.0.0.1:1\"\nlisten = hunter2\n");
    let faults = folder.load(&[]).err().unwrap().to_string();
    let place = format!("{}:3: ", folder.path("relay.toml").display());
    assert!(faults.starts_with(&place) && !faults.contains("hunter2"), "{faults}");
    let missing = folder.path("missing.toml");
    let faults = Config::load(Some(&missing), std::iter::empty()).err().unwrap();
    assert_eq!(faults.0[0].key, missing.display().to_string());
}

#[test]
fn a_secret_file_that_others_may_read_is_warned_of() {
    let folder = Folder::new();
    fs::set_permissions(folder.path("account.json"), Permissions::from_mode(0o640)).unwrap();
    let config = folder.load(&[]).ok().unwrap();
    let keys: Vec<&str> = config.warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(keys, ["apps.chat.fcm.service_account_file"]);
}

#[test]
fn a_pipe_is_no_file_and_nobody_waits_for_its_writer() {
    let folder = Folder::new();
    let made = Command::new("mkfifo").arg(folder.path("pipe")).status().unwrap();
    assert!(made.success());
    let faults = folder.faults("[apns]\nca_file = \"pipe\"", &[]);
    assert_eq!(faults["apns.ca_file"], "must be a file");
}

#[test]
fn check_config_prints_a_summary_without_secrets() {
    let folder = Folder::new();
    let output = folder.run(&["check-config", "--config", "relay.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with("ok\ndoors: 127.0.0.1:8080 (cleartext), http://localhost:8080\n"));
    assert!(text.contains("\napp chat: apns (token), fcm, webpush\n"), "{text}");
    assert_eq!(stderr(&output), "");
    let ring = folder.path("keys/handle-keys.toml");
    fs::set_permissions(ring, Permissions::from_mode(0o644)).unwrap();
    let output = folder.run(&["check-config", "--config", "relay.toml"]);
    let warning = "warning: keys.directory: handle-keys.toml is open to other users";
    assert!(output.status.success() && stderr(&output).starts_with(warning));
}

#[test]
fn check_config_exits_64_with_all_faults() {
    let folder = Folder::new();
    folder.write("relay.toml", "server.listen = \"x\"\nadmin.listen = \"y\"\n");
    let output = folder.run(&["check-config", "--config", "relay.toml"]);
    assert_eq!(output.status.code(), Some(64));
    let text = stderr(&output);
    assert!(text.contains("server.listen: must be an address and port, like 0.0.0.0:8080\n"));
    assert!(text.contains("admin.listen: must be an address and port"), "{text}");
    assert_eq!(stdout(&output), "");

    folder.write("relay.toml", Folder::CONFIG);
    fs::remove_file(folder.path("keys/handle-keys.toml")).unwrap();
    fs::remove_file(folder.path("keys/serial-pepper")).unwrap();
    let output = folder.run(&["check-config", "--config", "relay.toml"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(stderr(&output).matches("keys.directory: ").count(), 2, "{}", stderr(&output));
}

#[test]
fn the_commands_for_keys_and_wrong_usage_have_exit_codes() {
    let folder = Folder::new();
    for (arguments, code) in [
        (&["keys", "init", "new/keys"][..], 0),
        (&["keys", "init", "new/keys"], 1),
        (&["keys", "rotate", "new/keys"], 0),
        (&["keys", "rotate", "new/keys"], 1),
        (&["keys", "rotate", "nowhere"], 1),
        (&["keys", "rotate", "new/keys", "--keep", "many"], 64),
        (&["keys"], 64),
        (&["fly"], 64),
        (&[], 64),
        (&["--help"], 0),
        (&["--version"], 0),
    ] {
        let output = folder.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {}", stderr(&output));
    }
}

#[test]
fn an_app_with_mail_needs_a_server_and_plain_text_and_no_password_goes_in_the_clear() {
    let folder = Folder::new();
    folder.write("password", "correct horse\n");
    let app = "[apps.dsm.email]\nfrom_address = \"nas@example.com\"\n";
    let faults = folder.faults(app, &[]);
    assert!(faults["email.host"].starts_with("is required where apps.dsm.email is set"));
    assert!(faults["apps.dsm.allow_plain"].starts_with("must be true where the app has e-mail"));
    let clear = "[email]\nhost = \"smtp.example.com\"\nsecurity = \"cleartext\"\n\
                 username = \"relay\"\npassword_file = \"password\"\n";
    let faults = folder.faults(clear, &[]);
    assert!(faults["email.security"].starts_with("must be starttls or tls"), "{faults:?}");
    let alone = "[email]\npassword_file = \"password\"\n";
    assert!(folder.faults(alone, &[])["email.username"].starts_with("is required"));
}
