//! The fault matrix: each fault at each push service before, during and after a send.
//!
//! A relay with all three push services; one of them has the fault, and the others are written to
//! all the while. What the sender hears is compared with `sns_loadtest::fault::expected`. Whatever
//! that is: a message that the relay called accepted has reached the push service, none has reached
//! it twice, no device is called gone, the other services' messages are all accepted, and once the
//! fault is over the next message is accepted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sns_loadtest::device::{Device, DeviceKind};
use sns_loadtest::fault::{Fault, Moment, expected, service_name};
use sns_loadtest::sim::journal::MessageKey;
use sns_loadtest::sim::server::Controls;
use sns_loadtest::stage::{APP, Stage};
use sns_nas::client::message::{Channel, Environment, Message, Pairing, Subscription, Urgency};
use sns_nas::key::SenderKey;
use sns_nas::seal::{self, BodyCap};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::house::{House, KINDS};

/// Relays that run at once: most of their time is waiting.
const HOUSES: usize = 10;

/// How long a message waits at the push service for the fault to strike.
const OPPORTUNITY: Duration = Duration::from_millis(300);

/// No recovery takes nearly as long with the limits that these relays have.
const PATIENCE: Duration = Duration::from_secs(20);

/// A relay, a device of each kind, and who writes to them.
struct Theatre {
    house: House,
    sender: SenderKey,
    seats: Vec<(DeviceKind, Device, String)>,
}

// === impl Theatre ===

impl Theatre {
    async fn open() -> Self {
        let house = House::with(impatient).await;
        let sender = SenderKey::generate().unwrap();
        let mut seats = Vec::new();
        for kind in KINDS {
            let (device, endpoint) = house.paired(kind, &sender).await;
            seats.push((kind, device, endpoint));
        }
        let theatre = Self { house, sender, seats };
        for kind in KINDS {
            theatre.accepted_in_the_end(kind).await;
        }
        theatre
    }

    fn controls(&self, kind: DeviceKind) -> &Controls {
        let stage = &self.house.stage;
        match kind {
            DeviceKind::Ios => stage.apns.controls(),
            DeviceKind::Android => stage.fcm.controls(),
            DeviceKind::Browser => stage.webpush.controls(),
        }
    }

    /// Sends a new message; gives its key at the push service and what the sender hears.
    async fn push(&self, kind: DeviceKind) -> (MessageKey, String) {
        let (_, device, endpoint) = self.seats.iter().find(|seat| seat.0 == kind).unwrap();
        let body = seal::seal(&device.keys().device(), b"text", BodyCap::default()).unwrap();
        let body = Bytes::from(body);
        let key = MessageKey::sealed(&body);
        let message = Message { ttl_s: 60, urgency: Urgency::High, topic: None, body };
        let answer = self.house.client.push(endpoint, &self.sender, &message).await.unwrap();
        (key, answer.code.unwrap_or_else(|| "accepted".to_owned()))
    }

    async fn accepted_in_the_end(&self, kind: DeviceKind) -> bool {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if self.push(kind).await.1 == "accepted" {
                return true;
            }
            sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// Plays one cell of the matrix; gives what is wrong with it.
    async fn play(&self, fault: Fault, kind: DeviceKind, moment: Moment) -> Vec<String> {
        let controls = self.controls(kind);
        let script = &controls.script;
        let struck = async {
            let (requests, accepted) = (controls.journal.requests(), controls.journal.accepted());
            match moment {
                Moment::Before => {
                    let ongoing = fault.begin(controls, false);
                    (self.push(kind).await, ongoing)
                }
                Moment::During => {
                    script.latency(OPPORTUNITY);
                    let strike = async {
                        assert!(controls.journal.wait_requests(requests + 1, PATIENCE).await);
                        fault.begin(controls, false)
                    };
                    tokio::join!(self.push(kind), strike)
                }
                Moment::After if fault.hits_answers() => {
                    let ongoing = fault.begin(controls, true);
                    (self.push(kind).await, ongoing)
                }
                Moment::After => {
                    script.answer_delay(OPPORTUNITY);
                    let strike = async {
                        assert!(controls.journal.wait_accepted(accepted + 1, PATIENCE).await);
                        fault.begin(controls, true)
                    };
                    tokio::join!(self.push(kind), strike)
                }
            }
        };
        let (((key, heard), ongoing), mut wrong) = tokio::join!(struck, self.check_others(kind));
        if !expected(fault, kind, moment).contains(&heard.as_str()) {
            wrong.push(format!("the sender heard {heard}"));
        }
        ongoing.end();
        if !self.accepted_in_the_end(kind).await {
            wrong.push("nothing is accepted after it".to_owned());
        }
        // Only now: what a hanging connection holds may arrive once the fault is over.
        let times = controls.journal.acceptances().get(&key).copied().unwrap_or(0);
        if times > 1 || (heard == "accepted" && times == 0) {
            wrong.push(format!("the sender heard {heard}, and it arrived {times} times"));
        }
        wrong
    }

    /// Writes to the other push services for as long as the message may be under way.
    async fn check_others(&self, but: DeviceKind) -> Vec<String> {
        let mut wrong = Vec::new();
        for _ in 0..4 {
            for kind in KINDS.into_iter().filter(|kind| *kind != but) {
                let (_, heard) = self.push(kind).await;
                if heard != "accepted" {
                    wrong.push(format!("a message to {} met {heard}", service_name(kind)));
                }
            }
            sleep(OPPORTUNITY / 3).await;
        }
        wrong
    }
}

/// Times of a relay that lets nothing wait long, so that faults and recoveries are quick.
fn impatient(stage: &mut Stage) {
    stage.make_room();
    for (key, value) in [
        ("server.request_timeout_ms", 1_200),
        ("upstream.connect_timeout_ms", 500),
        ("upstream.ping_timeout_s", 1),
        ("upstream.wedge_ms", 1_000),
        ("upstream.patience_ms", 500),
        ("upstream.backoff_min_ms", 20),
        ("upstream.backoff_max_ms", 200),
        ("upstream.breaker_open_min_ms", 50),
        ("upstream.breaker_open_max_ms", 200),
        ("upstream.credential_probe_s", 1),
        ("feedback.hold_s_max", 1),
    ] {
        stage.set_key(key, value);
    }
}

/// Every fault that a running push service can have, at each of them, at each moment.
#[tokio::test(flavor = "multi_thread")]
async fn no_fault_loses_doubles_or_disowns_a_message_or_harms_another_push_service() {
    let places = Arc::new(Semaphore::new(HOUSES));
    let mut plays = JoinSet::new();
    for fault in Fault::ALL.into_iter().filter(|fault| fault.can_begin()) {
        for kind in KINDS {
            let places = Arc::clone(&places);
            plays.spawn(async move {
                let _place = places.acquire_owned().await.unwrap();
                let theatre = Theatre::open().await;
                let mut wrong = Vec::new();
                for moment in Moment::ALL {
                    let cell = format!("{fault:?}, {}, {}", service_name(kind), moment.name());
                    let faults = theatre.play(fault, kind, moment).await;
                    wrong.extend(faults.into_iter().map(|what| format!("{cell}: {what}")));
                }
                wrong
            });
        }
    }
    let mut wrong: Vec<String> = plays.join_all().await.into_iter().flatten().collect();
    wrong.sort();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The relay is configured with names that do not resolve.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve_is_told_and_nothing_is_sent() {
    for kind in KINDS {
        let house = House::with(|stage| {
            impatient(stage);
            stage.set_key("webpush.allow_hosts", vec!["push.invalid"]);
            match kind {
                DeviceKind::Ios => stage.set_key("apns.production_url", "https://push.invalid"),
                DeviceKind::Android => stage.set_key("fcm.base_url", "https://push.invalid"),
                DeviceKind::Browser => {}
            }
        })
        .await;
        let sender = SenderKey::generate().unwrap();
        let device = house.device(kind).await;
        let address = device.address().to_owned();
        let channel = match kind {
            DeviceKind::Ios => {
                Channel::Apns { token: address, environment: Environment::Production }
            }
            DeviceKind::Android => Channel::Fcm { token: address },
            DeviceKind::Browser => {
                let endpoint = "https://push.invalid/w/1".to_owned();
                Channel::WebPush { subscription: Subscription { endpoint, keys: None } }
            }
        };
        let pairing =
            Pairing { app: APP.to_owned(), channel, client: None, sender_key: sender.public() };
        let endpoint = house.client.pair(&pairing).await.unwrap().paired().unwrap().endpoint;
        let theatre = Theatre { house, sender, seats: vec![(kind, device, endpoint)] };
        let (_, heard) = theatre.push(kind).await;
        let expected = expected(Fault::NameUnresolved, kind, Moment::Before);
        assert!(expected.contains(&heard.as_str()), "{}: {heard}", service_name(kind));
    }
}
