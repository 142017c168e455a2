//! A stage for one relay: the simulated push services, an app's credentials, and a configuration
//! that points at them, in a folder of its own that goes when the stage goes.
//!
//! Tests, the demo and the load tester play on the same stage. The relay itself is the caller's to
//! start.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use toml::{Table, Value};

use crate::ca::{CaError, ServerCertificate, TestCa};
use crate::device::DeviceKind;
use crate::sim::SimError;
use crate::sim::apns::{self, ApnsCredentials, ApnsSim, ApnsSimConfig};
use crate::sim::fcm::{FcmCredentials, FcmSim, FcmSimConfig};
use crate::sim::server::Controls;
use crate::sim::smtp::{Security, SmtpServer};
use crate::sim::webpush::{WebPushSim, WebPushSimConfig};

/// The app that the stage's relay serves, with credentials for all three push services.
pub const APP: &str = "chat";

/// An app that takes plain text, and has no Web Push.
pub const PLAIN_APP: &str = "alerts";

/// The simulated push services and the files of a relay that uses them.
pub struct Stage {
    /// Who certifies the simulated push services.
    pub ca: TestCa,
    /// Apple, production.
    pub apns: ApnsSim,
    /// Apple, sandbox.
    pub apns_sandbox: ApnsSim,
    /// Google.
    pub fcm: FcmSim,
    /// Mozilla.
    pub webpush: WebPushSim,
    folder: PathBuf,
    /// Goes when the stage goes.
    _temporary: Option<TempDir>,
    config: Table,
}

/// What a stage is set with.
pub struct Props {
    /// Who certifies.
    pub ca: TestCa,
    /// The app's credentials at Apple.
    pub apple: ApnsCredentials,
    /// Those at Google; new ones where there are none.
    pub google: Option<FcmCredentials>,
    /// The ports of Apple, Apple's sandbox, Google and Mozilla; 0 for a free one.
    pub ports: [u16; 4],
}

/// Why a stage cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A simulator.
    #[error("a simulated push service cannot be started")]
    Sim(#[from] SimError),
    /// A certificate.
    #[error("a certificate cannot be made")]
    Ca(#[from] CaError),
    /// A file.
    #[error("a file of the stage cannot be written")]
    File(#[from] io::Error),
}

// === impl Stage ===

impl Stage {
    /// Starts the push services and writes the app's credentials.
    /// Errors: [`StageError`].
    pub async fn set() -> Result<Self, StageError> {
        let folder = tempfile::tempdir()?;
        let props = Props::new()?;
        let path = folder.path().to_owned();
        Ok(Self { _temporary: Some(folder), ..Self::set_in(path, props).await? })
    }

    /// Does the same with given props in a folder that stays.
    /// Errors: [`StageError`].
    pub async fn set_in(folder: PathBuf, props: Props) -> Result<Self, StageError> {
        let Props { ca, apple: credentials, google, ports } = props;
        let production = ApnsSimConfig::new(&credentials);
        let mut sandbox = ApnsSimConfig::new(&credentials);
        sandbox.environment = apns::Environment::Sandbox;
        let apns = ApnsSim::start_at(&ca, production, ports[0]).await?;
        let apns_sandbox = ApnsSim::start_at(&ca, sandbox, ports[1]).await?;
        let fcm = FcmSim::start_at(&ca, FcmSimConfig::default(), ports[2]).await?;
        let webpush = WebPushSim::start_at(&ca, WebPushSimConfig::default(), ports[3]).await?;
        let google = match google {
            Some(google) => {
                fcm.know(&google);
                google
            }
            None => fcm.credentials()?,
        };
        let write = |name: &str, text: &str| secret_file(&folder.join(name), text);
        write("ca.pem", ca.pem())?;
        write("AuthKey.p8", &credentials.key_pem)?;
        write("service-account.json", &google.service_account_json)?;
        let (config, _temporary) = (Table::new(), None);
        let mut stage = Self { ca, apns, apns_sandbox, fcm, webpush, folder, _temporary, config };
        stage.configure(&credentials);
        Ok(stage)
    }

    /// Sets one key of the configuration: `server.request_timeout_ms`.
    pub fn set_key(&mut self, key: &str, value: impl Into<Value>) {
        let mut path: Vec<&str> = key.split('.').collect();
        let last = path.pop().unwrap_or_default();
        let mut table = &mut self.config;
        for part in path {
            let entry = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = entry else { return };
            table = inner;
        }
        table.insert(last.to_owned(), value.into());
    }

    /// Lets the app that takes plain text send mails by an SMTP server.
    /// Errors: the password's file cannot be written.
    pub fn serve_mail(
        &mut self,
        server: &SmtpServer,
        security: Security,
        login: Option<(&str, &str)>,
    ) -> Result<(), StageError> {
        self.set_key("email.host", "localhost");
        self.set_key("email.port", i64::from(server.port()));
        self.set_key("email.security", security.label());
        self.set_key("email.ca_file", "ca.pem");
        self.set_key("apps.alerts.email.from_address", "nas@example.com");
        self.set_key("apps.alerts.email.from_name", "Owner's NAS");
        if let Some((username, password)) = login {
            secret_file(&self.folder.join("smtp-password"), password)?;
            self.set_key("email.username", username);
            self.set_key("email.password_file", "smtp-password");
        }
        Ok(())
    }

    /// Gives every sender and device room for a load: their rates are not what is measured.
    pub fn make_room(&mut self) {
        for rate in ["sender.ordinary", "sender.alarm", "device.ordinary", "device.alarm"] {
            self.set_key(&format!("limits.{rate}_per_minute"), 10_000_000);
            self.set_key(&format!("limits.{rate}_burst"), 1_000_000);
        }
    }

    /// Lets the relay's doors speak TLS, with a certificate for `localhost` under the stage's CA.
    /// Errors: the certificate cannot be made or written.
    pub fn serve_tls(&mut self) -> Result<(), StageError> {
        let ServerCertificate { certificate_pem, key_pem } = self.ca.issue_server()?;
        secret_file(&self.folder().join("door.pem"), &certificate_pem)?;
        secret_file(&self.folder().join("door.key"), &key_pem)?;
        self.set_key("server.tls.certificate_file", "door.pem");
        self.set_key("server.tls.key_file", "door.key");
        Ok(())
    }

    /// Gives what steers the push service of a kind of device.
    pub fn controls(&self, kind: DeviceKind) -> &Controls {
        match kind {
            DeviceKind::Ios => self.apns.controls(),
            DeviceKind::Android => self.fcm.controls(),
            DeviceKind::Browser => self.webpush.controls(),
        }
    }

    /// Gives the folder of the relay's files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Gives the folder where `sns-relay keys init` makes the keys.
    pub fn keys_folder(&self) -> PathBuf {
        self.folder.join("keys")
    }

    /// Writes the configuration of a relay with doors at `listen`, called `public_url`.
    /// Errors: the file cannot be written.
    pub fn write_config(
        &mut self,
        listen: SocketAddr,
        admin: SocketAddr,
        public_url: &str,
    ) -> Result<PathBuf, StageError> {
        self.set_key("server.listen", listen.to_string());
        self.set_key("server.public_url", public_url);
        self.set_key("admin.listen", admin.to_string());
        let path = self.folder.join("relay.toml");
        fs::write(&path, self.config.to_string())?;
        Ok(path)
    }

    fn configure(&mut self, credentials: &ApnsCredentials) {
        let webpush_origin = self.webpush.base_url().trim_start_matches("https://").to_owned();
        let texts = [
            ("apns.production_url", self.apns.base_url().to_owned()),
            ("apns.sandbox_url", self.apns_sandbox.base_url().to_owned()),
            ("apns.ca_file", "ca.pem".to_owned()),
            ("fcm.base_url", self.fcm.base_url().to_owned()),
            ("fcm.ca_file", "ca.pem".to_owned()),
            ("webpush.ca_file", "ca.pem".to_owned()),
            ("keys.directory", "keys".to_owned()),
            ("store.file", "data/identities.sqlite3".to_owned()),
            ("enrolment.policy", "open".to_owned()),
            ("apps.chat.webpush.subject", "mailto:push@example.com".to_owned()),
        ];
        for (key, value) in texts {
            self.set_key(key, value);
        }
        for app in [APP, PLAIN_APP] {
            let apns = [
                ("topic", credentials.topic.as_str()),
                ("key_file", "AuthKey.p8"),
                ("key_id", credentials.key_id.as_str()),
                ("team_id", credentials.team_id.as_str()),
            ];
            for (key, value) in apns {
                self.set_key(&format!("apps.{app}.apns.{key}"), value);
            }
            self.set_key(&format!("apps.{app}.fcm.service_account_file"), "service-account.json");
        }
        self.set_key("apps.alerts.allow_plain", true);
        self.set_key("webpush.danger_allow_origins", vec![Value::from(webpush_origin)]);
    }
}

// === impl Props ===

impl Props {
    /// Makes new ones, with free ports.
    /// Errors: a key or a certificate cannot be made.
    pub fn new() -> Result<Self, StageError> {
        let apple = ApnsCredentials::generate("com.example.chat")?;
        Ok(Self { ca: TestCa::new()?, apple, google: None, ports: [0; 4] })
    }
}

/// A key file that others can read would earn a warning.
fn secret_file(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}
