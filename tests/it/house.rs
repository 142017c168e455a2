//! A relay on its stage, and the senders and devices around it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sns_loadtest::device::{Device, DeviceKind};
use sns_loadtest::stage::{APP, Stage};
use sns_nas::client::RelayClient;
use sns_nas::client::message::{Channel, Environment, Pairing, Subscription};
use sns_nas::key::SenderKey;
use sns_relay::clock::Clock;
use sns_relay::config::Config;
use sns_relay::serve::{self, Running};

/// A relay that runs on a stage, under a clock that a test can set forward.
pub(crate) struct House {
    pub(crate) stage: Stage,
    pub(crate) client: RelayClient,
    pub(crate) url: String,
    pub(crate) admin_url: String,
    pub(crate) config_file: PathBuf,
    pub(crate) clock: Clock,
    ahead_ms: Arc<AtomicU64>,
    broken_clock: Arc<AtomicBool>,
    running: Option<Running>,
}

impl House {
    /// Builds a relay with the stage's configuration.
    pub(crate) async fn build() -> Self {
        Self::with(|_| {}).await
    }

    /// Builds a relay whose configuration a test has changed.
    pub(crate) async fn with(change: impl FnOnce(&mut Stage)) -> Self {
        Self::set_up("http", change).await
    }

    /// Builds a relay whose doors speak TLS under a certificate of the stage's authority.
    pub(crate) async fn with_tls(change: impl FnOnce(&mut Stage)) -> Self {
        Self::set_up("https", |stage| {
            let certificate = stage.ca.issue_server().unwrap();
            for (key, name, pem) in [
                ("certificate_file", "doors.pem", &certificate.certificate_pem),
                ("key_file", "doors.key", &certificate.key_pem),
            ] {
                let file = stage.folder().join(name);
                std::fs::write(&file, pem).unwrap();
                stage.set_key(&format!("server.tls.{key}"), file.to_str().unwrap());
            }
            change(stage);
        })
        .await
    }

    /// Builds a relay on a stage that a test has set.
    pub(crate) async fn on(stage: Stage) -> Self {
        Self::open("http", stage).await
    }

    async fn set_up(scheme: &str, change: impl FnOnce(&mut Stage)) -> Self {
        let mut stage = Stage::set().await.unwrap();
        change(&mut stage);
        Self::open(scheme, stage).await
    }

    async fn open(scheme: &str, mut stage: Stage) -> Self {
        sns_relay::keys::init(&stage.keys_folder(), &Clock::system()).unwrap();
        let listen = free_address();
        let url = format!("{scheme}://localhost:{}", listen.port());
        let admin = SocketAddr::from(([127, 0, 0, 1], 0));
        let config_file = stage.write_config(listen, admin, &url).unwrap();
        let ahead_ms = Arc::new(AtomicU64::new(0));
        let ahead = Arc::clone(&ahead_ms);
        let system = Clock::system();
        let broken_clock = Arc::new(AtomicBool::new(false));
        let broken = Arc::clone(&broken_clock);
        let clock = Clock::from_fn(move || {
            assert!(!broken.load(Ordering::Relaxed), "the clock is broken, as the test wants it");
            system.unix_ms() + ahead.load(Ordering::Relaxed)
        });
        let client = RelayClient::new(&url, Some(stage.ca.pem().as_bytes())).unwrap();
        let admin_url = String::new();
        let mut house = Self {
            stage,
            client,
            url,
            admin_url,
            config_file,
            clock,
            ahead_ms,
            broken_clock,
            running: None,
        };
        house.start().await;
        house
    }

    /// Stops the relay, if it runs, and starts another on the same files and the same port.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    async fn start(&mut self) {
        let config = match Config::load(Some(&self.config_file), std::iter::empty()) {
            Ok(config) => config,
            Err(faults) => panic!("the stage's configuration has faults:\n{faults}"),
        };
        let running = serve::start(config, self.clock.clone()).await.unwrap();
        self.admin_url = format!("http://{}", running.admin_address);
        self.running = Some(running);
    }

    /// Gives where the doors are, for raw connections.
    pub(crate) fn address(&self) -> SocketAddr {
        address_of(&self.url)
    }

    /// Gives where the admin port is, for raw connections.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        address_of(&self.admin_url)
    }

    /// Sets the relay's clock forward.
    pub(crate) fn pass_time(&self, seconds: u64) {
        self.ahead_ms.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    /// Makes every request that asks for the time panic, or no longer.
    pub(crate) fn break_clock(&self, broken: bool) {
        self.broken_clock.store(broken, Ordering::Relaxed);
    }

    /// Sets the clocks of the relay and of all push services forward.
    pub(crate) fn pass_time_everywhere(&self, seconds: u64) {
        self.pass_time(seconds);
        let by = std::time::Duration::from_secs(seconds);
        let Stage { apns, apns_sandbox, fcm, webpush, .. } = &self.stage;
        apns.advance_clock(by);
        apns_sandbox.advance_clock(by);
        fcm.advance_clock(by);
        webpush.advance_clock(by);
    }

    /// Stops the relay as SIGTERM does.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// Makes a device of a kind and pairs it for a sender; gives the device and its push resource.
    pub(crate) async fn paired(&self, kind: DeviceKind, sender: &SenderKey) -> (Device, String) {
        let device = self.device(kind).await;
        let channel = self.channel(&device);
        let pairing =
            Pairing { app: APP.to_owned(), channel, client: None, sender_key: sender.public() };
        let paired = self.client.pair(&pairing).await.unwrap().paired().unwrap();
        (device, paired.endpoint)
    }

    /// Makes a device that its push service knows.
    pub(crate) async fn device(&self, kind: DeviceKind) -> Device {
        match kind {
            DeviceKind::Ios => Device::new_ios().unwrap(),
            DeviceKind::Android => Device::new_android().unwrap(),
            DeviceKind::Browser => {
                let app = self.client.app(APP).await.unwrap();
                let key = app.application_server_key.unwrap();
                let key = sns_nas::base64url::decode(&key).unwrap().try_into().unwrap();
                Device::new_browser(&self.stage.webpush, key).unwrap()
            }
        }
    }

    /// Gives what a device's app tells the relay when it pairs.
    pub(crate) fn channel(&self, device: &Device) -> Channel {
        let address = device.address().to_owned();
        match device.kind() {
            DeviceKind::Ios => {
                Channel::Apns { token: address, environment: Environment::Production }
            }
            DeviceKind::Android => Channel::Fcm { token: address },
            DeviceKind::Browser => {
                Channel::WebPush { subscription: Subscription { endpoint: address, keys: None } }
            }
        }
    }

    /// Gives the texts that a device has read so far.
    pub(crate) fn read_by(&self, device: &Device) -> Vec<String> {
        let delivered = match device.kind() {
            DeviceKind::Ios => self.stage.apns.delivered_to(device.address()),
            DeviceKind::Android => self.stage.fcm.delivered_to(device.address()),
            DeviceKind::Browser => self.stage.webpush.delivered_to(device.address()),
        };
        let open = |delivered| String::from_utf8(device.open(&delivered).unwrap()).unwrap();
        delivered.into_iter().map(open).collect()
    }
}

/// Every kind of device.
pub(crate) const KINDS: [DeviceKind; 3] = DeviceKind::ALL;

/// Gives the loopback address of a URL that names a port.
pub(crate) fn address_of(url: &str) -> SocketAddr {
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The public URL must be known before the port is bound, so a free port is found first: below the
/// ports that the system gives to clients, any of which may take one meanwhile. None is given
/// twice: a relay that is down for a moment comes back to its own.
pub(crate) fn free_address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = u16::try_from(10_000 + uuid::Uuid::new_v4().as_u128() % 20_000).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let is_new = GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
        if is_new && std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
