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
use sns_loadtest::fault::{Fault, Moment, Ongoing, expected, service_name};
use sns_loadtest::sim::journal::MessageKey;
use sns_loadtest::sim::script::Hold;
use sns_loadtest::sim::server::Controls;
use sns_loadtest::stage::{APP, Stage};
use sns_nas::client::message::{Channel, Message, Pairing, Subscription, Urgency};
use sns_nas::key::SenderKey;
use sns_nas::seal::{self, BodyCap};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::connections::wait_for_metric;
use crate::house::{House, KINDS};

/// Relays that run at once: most of their time is waiting.
const HOUSES: usize = 16;

/// Between two rounds of messages to the other push services.
const PAUSE: Duration = Duration::from_millis(100);

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
            assert!(theatre.accepted_in_the_end(kind).await, "{kind:?}: before any fault");
        }
        theatre
    }

    fn controls(&self, kind: DeviceKind) -> &Controls {
        self.house.stage.controls(kind)
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

    /// Pairs a browser whose subscription is at this endpoint.
    async fn browser_at(&self, endpoint: &str) -> (Device, String) {
        let device = self.house.device(DeviceKind::Browser).await;
        let subscription = Subscription { endpoint: endpoint.to_owned(), keys: None };
        let pairing = Pairing {
            app: APP.to_owned(),
            channel: Channel::WebPush { subscription },
            client: None,
            sender_key: self.sender.public(),
        };
        let paired = self.house.client.pair(&pairing).await.unwrap().paired().unwrap();
        (device, paired.endpoint)
    }

    /// Plays one cell of the matrix; gives what is wrong with it.
    async fn play(&self, fault: Fault, kind: DeviceKind, moment: Moment) -> Vec<String> {
        let journal = &self.controls(kind).journal;
        let (sent, mut wrong) =
            tokio::join!(self.send_into(fault, kind, moment), self.check_others(kind));
        let (key, heard, ongoing) = sent;
        let times = journal.acceptances().get(&key).copied().unwrap_or(0);
        if !expected(fault, kind, moment).contains(&heard.as_str()) {
            wrong.push(format!("the sender heard {heard}"));
        }
        let is_processed = heard == "accepted" || moment == Moment::After;
        if times > 1 || (is_processed && times == 0) {
            wrong.push(format!("the sender heard {heard}, and it arrived {times} times"));
        }
        ongoing.end();
        if !self.accepted_in_the_end(kind).await {
            wrong.push("nothing is accepted after it".to_owned());
        }
        // Again, and only now: what a hanging connection held may arrive when the fault is over.
        if journal.acceptances().get(&key).is_some_and(|times| *times > 1) {
            wrong.push("it arrived again when the fault was over".to_owned());
        }
        wrong
    }

    /// Sends a message that the fault meets at this moment.
    async fn send_into(
        &self,
        fault: Fault,
        kind: DeviceKind,
        moment: Moment,
    ) -> (MessageKey, String, Ongoing) {
        let controls = self.controls(kind);
        let (journal, script) = (&controls.journal, &controls.script);
        let (requests, accepted) = (journal.requests(), journal.accepted());
        // A fault of answers hits those of processed messages by itself.
        let meets = moment == Moment::Before || (moment == Moment::After && fault.hits_answers());
        if meets {
            let ongoing = fault.begin(controls, moment == Moment::After);
            ongoing.felt().await;
            if fault.keeps_connections_away() {
                self.wait_until_cut_off(kind).await;
            }
            let (key, heard) = self.push(kind).await;
            return (key, heard, ongoing);
        }
        script.hold(if moment == Moment::During { Hold::Requests } else { Hold::Answers });
        let strike = async {
            if moment == Moment::During {
                assert!(journal.wait_requests(requests + 1, PATIENCE).await);
                assert_eq!(journal.accepted(), accepted, "it is not processed yet");
            } else {
                assert!(journal.wait_accepted(accepted + 1, PATIENCE).await);
            }
            let ongoing = fault.begin(controls, moment == Moment::After);
            ongoing.felt().await;
            script.let_go();
            ongoing
        };
        let ((key, heard), ongoing) = tokio::join!(self.push(kind), strike);
        (key, heard, ongoing)
    }

    /// Waits until the relay knows that it has no connection to a push service any more.
    async fn wait_until_cut_off(&self, kind: DeviceKind) {
        let (label, others) = match kind {
            DeviceKind::Ios => ("apns", self.house.stage.apns_sandbox.connections().live()),
            DeviceKind::Android => ("fcm", 0),
            DeviceKind::Browser => ("webpush", 0),
        };
        let name = format!("sns_upstream_connections{{service=\"{label}\"}}");
        wait_for_metric(&self.house, &name, others as f64).await;
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
            sleep(PAUSE).await;
        }
        wrong
    }
}

/// Times of a relay that lets nothing wait long, so that faults and recoveries are quick; and yet
/// longer than a machine with other work to do may keep a healthy push service waiting.
fn impatient(stage: &mut Stage) {
    stage.make_room();
    for (key, value) in [
        ("server.request_timeout_ms", 4_000),
        ("upstream.connect_timeout_ms", 1_000),
        ("upstream.ping_timeout_s", 3),
        ("upstream.wedge_ms", 3_000),
        ("upstream.patience_ms", 2_000),
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

/// Every fault that a running push service can have, at each of them, at each moment, each with a
/// relay of its own. Making keys for one relay must not hold up the others: hence the threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn no_fault_loses_doubles_or_disowns_a_message_or_harms_another_push_service() {
    let places = Arc::new(Semaphore::new(HOUSES));
    let mut plays = JoinSet::new();
    for fault in Fault::ALL.into_iter().filter(|fault| fault.can_begin()) {
        for (kind, moment) in KINDS.into_iter().flat_map(|kind| Moment::ALL.map(|m| (kind, m))) {
            let places = Arc::clone(&places);
            plays.spawn(async move {
                let _place = places.acquire_owned().await.unwrap();
                let cell = format!("{fault:?}, {}, {}", service_name(kind), moment.name());
                let wrong = Theatre::open().await.play(fault, kind, moment).await;
                wrong.into_iter().map(move |what| format!("{cell}: {what}")).collect::<Vec<_>>()
            });
        }
    }
    let mut wrong: Vec<String> = plays.join_all().await.into_iter().flatten().collect();
    wrong.sort();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The relay is configured with a name that does not resolve.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve_is_told_and_nothing_is_sent() {
    for kind in KINDS {
        let house = House::with(|stage| {
            impatient(stage);
            match kind {
                DeviceKind::Ios => stage.set_key("apns.production_url", "https://push.invalid"),
                DeviceKind::Android => stage.set_key("fcm.base_url", "https://push.invalid"),
                DeviceKind::Browser => {
                    stage.set_key("webpush.allow_hosts", vec!["push.invalid"]);
                }
            }
        })
        .await;
        let sender = SenderKey::generate().unwrap();
        let mut theatre = Theatre { house, sender, seats: Vec::new() };
        for other in KINDS {
            let seat = if other == kind && kind == DeviceKind::Browser {
                theatre.browser_at("https://push.invalid/w/1").await
            } else {
                theatre.house.paired(other, &theatre.sender).await
            };
            theatre.seats.push((other, seat.0, seat.1));
        }
        let ((key, heard), wrong) = tokio::join!(theatre.push(kind), theatre.check_others(kind));
        let expected = expected(Fault::NameUnresolved, kind, Moment::Before);
        assert!(expected.contains(&heard.as_str()), "{}: {heard}", service_name(kind));
        assert!(wrong.is_empty(), "{}: {}", service_name(kind), wrong.join("\n"));
        assert!(!theatre.controls(kind).journal.acceptances().contains_key(&key));
    }
}
