//! The NAS side before the real relay: the daemon, three devices, faults on the way.

use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use sns_loadtest::device::{Device, DeviceKind, Inbox};
use sns_loadtest::measure::letter::Sender;
use sns_loadtest::sim::apns;
use sns_loadtest::sim::script::{Answer, Step};
use sns_loadtest::stage::Stage;
use sns_nas::base64url;
use sns_nas::catalogue::Catalogue;
use sns_nas::client::RelayClient;
use sns_nas::client::message::{Enrolment, Level};
use sns_nas::clock::now_unix_ms;
use sns_nas::courier::Courier;
use sns_nas::daemon::{self, Pace, Socket, SocketError, hand_in};
use sns_nas::desk::{Desk, Request};
use sns_nas::event::Raised;
use sns_nas::journal::devices::{NAS, NewDevice};
use sns_nas::journal::recall::{Counts, Query};
use sns_nas::journal::{Journal, Limits};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time;
use uuid::Uuid;

use crate::house::{House, KINDS};

mod kill;

/// Longer than the ten seconds and a quarter that a push service may ask the NAS to wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// An enrolled NAS with a device of each kind, and its daemon in a runtime that can be torn away.
struct Nas {
    folder: TempDir,
    url: String,
    ca_pem: String,
    devices: Vec<Device>,
    daemon: Option<Runtime>,
}

impl Nas {
    async fn of(stage: &Stage, url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&folder.path().join("nas.sqlite3"), limits()).unwrap();
        let ca_pem = stage.ca.pem().to_owned();
        let client = RelayClient::new(url, Some(ca_pem.as_bytes())).unwrap();
        let sender = Sender::new(url).unwrap();
        journal.add_sender(NAS, sender.key(), now_unix_ms()).unwrap();
        let enrolment =
            Enrolment { model: "DS923+".into(), serial: "2230ABC".into(), ..Enrolment::default() };
        client.enrol(sender.key(), &enrolment).await.unwrap();
        let mut devices = Vec::new();
        for kind in KINDS {
            let (device, endpoint) = sender.pair(&client, stage, kind).await.unwrap();
            let new = NewDevice {
                name: name_of(kind).to_owned(),
                sender: NAS.to_owned(),
                handle: endpoint,
                keys: Some((device.p256dh(), device.auth())),
                body_bytes_max: 2744,
            };
            journal.add_device(&new, now_unix_ms()).unwrap();
            devices.push(device);
        }
        Self { folder, url: url.to_owned(), ca_pem, devices, daemon: None }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("nas.sqlite3")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("nas.sock")
    }

    fn journal(&self) -> Journal {
        Journal::open_existing(&self.file(), limits()).unwrap()
    }

    /// Starts the daemon and waits until it listens.
    async fn start(&mut self) {
        // One that was torn away may still hold the lock for a moment.
        let locked = async {
            loop {
                match daemon::lock(&self.file()) {
                    Ok(lock) => break lock,
                    Err(_) => time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let lock = time::timeout(PATIENCE, locked).await.expect("the lock comes free");
        let (journal, socket) = (self.journal(), self.socket());
        let relay = RelayClient::new(&self.url, Some(self.ca_pem.as_bytes())).unwrap();
        let relay = relay.with_timeout(Duration::from_secs(5));
        let courier = Courier::new(relay, &journal).unwrap();
        let desk = Desk::new(journal, Catalogue::load(None).unwrap(), "attic".to_owned());
        let runtime = Runtime::new().unwrap();
        let (up, listens) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let _lock = lock;
            let (_socket, asks) = Socket::listen(&socket).unwrap();
            up.send(()).unwrap();
            let never = std::future::pending();
            daemon::run(desk, courier, Pace::default(), asks, now_unix_ms, never).await.unwrap();
        });
        self.daemon = Some(runtime);
        listens.await.unwrap();
    }

    /// Tears the daemon away wherever it stands.
    fn tear_away(&mut self) {
        if let Some(runtime) = self.daemon.take() {
            runtime.shutdown_background();
        }
    }

    /// Hands a request in until it is taken; gives its id.
    async fn ask(&self, request: &Request) -> Uuid {
        let taken = async {
            loop {
                match hand_in(&self.socket(), request).await {
                    Ok(taken) => break taken.id,
                    Err(SocketError::Absent { .. } | SocketError::Io { .. }) => {
                        time::sleep(Duration::from_millis(5)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        time::timeout(PATIENCE, taken).await.expect("the daemon takes it")
    }

    async fn notify(&self, text: &str) -> Uuid {
        let raised = Raised {
            id: Some(Uuid::new_v4()),
            level: Some(Level::Error),
            text: Some(text.to_owned()),
            ..Raised::default()
        };
        self.ask(&Request::Notify(raised)).await
    }

    async fn until(&self, wanted: impl Fn(&Counts) -> bool) {
        let reached = async {
            while !wanted(&self.journal().counts().unwrap()) {
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        let reached = time::timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "{:?}", self.journal().counts().unwrap());
    }

    /// Gives what a device shows after all that was delivered to it.
    fn screen(&self, stage: &Stage, kind: DeviceKind) -> Inbox {
        let device = self.devices.iter().find(|device| device.kind() == kind).unwrap();
        let mut inbox = Inbox::default();
        for delivered in stage.controls(kind).journal.delivered_to(device.address()) {
            inbox.take(&device.open(&delivered).unwrap()).unwrap();
        }
        inbox
    }
}

impl Drop for Nas {
    fn drop(&mut self) {
        self.tear_away();
    }
}

fn limits() -> Limits {
    Limits::default()
}

fn name_of(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Ios => "phone",
        DeviceKind::Android => "tablet",
        DeviceKind::Browser => "browser",
    }
}

fn is_done(counts: &Counts) -> bool {
    counts.oldest_pending_ms.is_none()
}

fn room(stage: &mut Stage) {
    stage.make_room();
    stage.set_key("server.request_timeout_ms", 2000);
}

/// A throttle at Google, a failure at Apple, an answer that never comes from Mozilla, a relay that
/// restarts, and a daemon that is torn away four times: each device shows each text once.
#[tokio::test(flavor = "multi_thread")]
async fn every_device_shows_every_notification_once_whatever_fails_on_the_way() {
    let mut house = House::with(room).await;
    let mut nas = Nas::of(&house.stage, &house.url).await;
    nas.start().await;
    let mut expected = Vec::new();
    for n in 0..40 {
        match n {
            5 => {
                let busy = Answer::page(StatusCode::SERVICE_UNAVAILABLE);
                house.stage.fcm.script().next(2, Step::Answer(busy));
            }
            10 => house.stage.webpush.script().next(1, Step::Stall),
            15 => house.stage.apns.script().next(2, Step::Answer(apns::error(503, "Shutdown"))),
            20 => house.restart().await,
            8 | 18 | 28 | 38 => {
                nas.tear_away();
                nas.start().await;
            }
            _ => {}
        }
        let text = format!("notification {n:02}");
        nas.notify(&text).await;
        expected.push(text);
    }
    nas.until(is_done).await;
    for kind in KINDS {
        let inbox = nas.screen(&house.stage, kind);
        let mut texts = inbox.texts();
        texts.sort_unstable();
        assert_eq!(texts, expected, "{kind:?}");
    }
    let records = nas.journal().recall(&Query::default(), now_unix_ms()).unwrap();
    let mut fates = records.iter().flat_map(|record| &record.deliveries);
    assert!(fates.all(|fate| fate.state == "accepted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withdrawn_or_replaced_is_so_on_every_device() {
    let house = House::with(room).await;
    let mut nas = Nas::of(&house.stage, &house.url).await;
    nas.start().await;
    let wrong = nas.notify("a false alarm").await;
    let old = nas.notify("1 of 4 disks").await;
    nas.notify("stays").await;
    nas.until(is_done).await;
    for kind in KINDS {
        assert_eq!(nas.screen(&house.stage, kind).texts().len(), 3, "{kind:?}");
    }
    nas.ask(&Request::Withdraw { id: wrong }).await;
    let event = Raised { text: Some("2 of 4 disks".to_owned()), ..Raised::default() };
    nas.ask(&Request::Replace { id: old, event }).await;
    nas.until(is_done).await;
    for kind in KINDS {
        assert_eq!(nas.screen(&house.stage, kind).texts(), ["stays", "2 of 4 disks"], "{kind:?}");
    }
}

/// Apple says that the phone has been gone since before it was paired, then since after.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_gone_is_dropped_unless_it_was_paired_since() {
    let house = House::with(room).await;
    let mut nas = Nas::of(&house.stage, &house.url).await;
    let (before_ms, after_ms) = (now_unix_ms() - 3_600_000, now_unix_ms() + 3_600_000);
    house.stage.apns.script().next(1, Step::Answer(apns::gone(before_ms)));
    nas.start().await;
    nas.notify("first").await;
    nas.until(|counts| counts.deliveries.contains(&("accepted".to_owned(), 2))).await;
    let is_gone = |nas: &Nas| nas.journal().device("phone").unwrap().unwrap().gone_ms.is_some();
    nas.until(|_| {
        let records = nas.journal().recall(&Query::default(), now_unix_ms()).unwrap();
        records[0].deliveries[0].attempts == 1
    })
    .await;
    assert!(!is_gone(&nas), "it was paired after that");
    house.stage.apns.script().next(1, Step::Answer(apns::gone(after_ms)));
    nas.notify("second").await;
    nas.until(is_done).await;
    assert!(is_gone(&nas));
    let records = nas.journal().recall(&Query::default(), now_unix_ms()).unwrap();
    for record in &records {
        let states: Vec<&str> = record.deliveries.iter().map(|fate| fate.state.as_str()).collect();
        assert_eq!(states, ["gone", "accepted", "accepted"]);
    }
}

/// The names of the NAS's devices, its texts and its tags are in no push service's journal.
#[tokio::test(flavor = "multi_thread")]
async fn no_push_service_sees_what_the_nas_says() {
    let house = House::with(room).await;
    let mut nas = Nas::of(&house.stage, &house.url).await;
    nas.start().await;
    let raised = Raised {
        tag: Some("StgMgrVolumeCrash".to_owned()),
        text: Some("the secret text".to_owned()),
        collapse_key: Some("secret key".to_owned()),
        ..Raised::default()
    };
    nas.ask(&Request::Notify(raised)).await;
    nas.until(is_done).await;
    let mut seen = Vec::new();
    for entry in house.stage.apns.journal().entries() {
        seen.extend_from_slice(&entry.body);
        seen.extend_from_slice(format!("{:?}{}", entry.headers, entry.path).as_bytes());
    }
    for entry in house.stage.fcm.journal().entries() {
        seen.extend_from_slice(&entry.body);
    }
    for entry in house.stage.webpush.journal().entries() {
        seen.extend_from_slice(&entry.body);
        seen.extend_from_slice(format!("{:?}{}", entry.headers, entry.path).as_bytes());
    }
    assert!(!seen.is_empty());
    for word in ["secret text", "secret key", "StgMgrVolumeCrash", "phone", "attic"] {
        for form in [word.to_owned(), base64url::encode(word)] {
            let found = seen.windows(form.len()).any(|window| window == form.as_bytes());
            assert!(!found, "{word}");
        }
    }
}
