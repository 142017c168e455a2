//! A relay on its stage, and the senders and devices around it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
        let mut stage = Stage::set().await.unwrap();
        sns_relay::keys::init(&stage.keys_folder(), &Clock::system()).unwrap();
        change(&mut stage);
        let listen = free_address();
        let url = format!("http://localhost:{}", listen.port());
        let admin = SocketAddr::from(([127, 0, 0, 1], 0));
        let file = stage.write_config(listen, admin, &url).unwrap();
        let config = match Config::load(Some(&file), std::iter::empty()) {
            Ok(config) => config,
            Err(faults) => panic!("the stage's configuration has faults:\n{faults}"),
        };
        let ahead_ms = Arc::new(AtomicU64::new(0));
        let ahead = Arc::clone(&ahead_ms);
        let system = Clock::system();
        let broken_clock = Arc::new(AtomicBool::new(false));
        let broken = Arc::clone(&broken_clock);
        let clock = Clock::from_fn(move || {
            assert!(!broken.load(Ordering::Relaxed), "the clock is broken, as the test wants it");
            system.unix_ms() + ahead.load(Ordering::Relaxed)
        });
        let running = serve::start(config, clock).await.unwrap();
        let admin_url = format!("http://{}", running.admin_address);
        let client = RelayClient::new(&url, None).unwrap();
        Self { stage, client, url, admin_url, ahead_ms, broken_clock, running: Some(running) }
    }

    /// Sets the relay's clock forward.
    pub(crate) fn pass_time(&self, seconds: u64) {
        self.ahead_ms.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    /// Makes every request that asks for the time panic, or no longer.
    pub(crate) fn break_clock(&self, broken: bool) {
        self.broken_clock.store(broken, Ordering::Relaxed);
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
pub(crate) const KINDS: [DeviceKind; 3] =
    [DeviceKind::Ios, DeviceKind::Android, DeviceKind::Browser];

/// The public URL must be known before the port is bound, so a free port is found first.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}
