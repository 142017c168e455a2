//! Many messages at once through the whole relay: streams, GOAWAY, cold start, slow push services.
//!
//! The simulators count: what was opened beyond a peer's limit, what was accepted how often.

use std::sync::Arc;
use std::time::Duration;

use sns_loadtest::device::{Device, DeviceKind};
use sns_loadtest::measure::crowd::{Crowd, Protocol};
use sns_loadtest::measure::letter::{Letter, Sender};
use sns_loadtest::sim::journal::{Journal, StreamOutcome};
use sns_loadtest::sim::script::{Cut, GoAway, Script, Step};
use sns_loadtest::sim::server::Connections;
use sns_loadtest::sim::webpush::{self, WebPushSim, WebPushSimConfig};
use sns_loadtest::stage::Stage;
use sns_nas::client::message::{Enrolment, Level, Notification, Outcome, Source, Target};
use sns_nas::key::SenderKey;
use sns_nas::seal::{self, BodyCap};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::house::{House, KINDS};

const MESSAGES: usize = 1_000;

/// Five connections of 250 streams carry a thousand requests below the door's own limit of 256.
const CROWD_CONNECTIONS: usize = 5;

/// No wait in these tests comes near it, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A crowd of senders, and one device that they all write to.
struct Fan {
    crowd: Arc<Crowd>,
    sender: Sender,
    device: Device,
    endpoint: String,
}

// === impl Fan ===

impl Fan {
    async fn gather(house: &House, kind: DeviceKind) -> Self {
        let sender = Sender::new(&house.url).unwrap();
        let (device, endpoint) = house.paired(kind, sender.key()).await;
        let connections = CROWD_CONNECTIONS;
        let crowd = Crowd::connect(&house.url, &house.stage.ca, Protocol::Http2, connections).await;
        Self { crowd: Arc::new(crowd.unwrap()), sender, device, endpoint }
    }

    /// Seals so many different messages.
    fn letters(&self, count: usize) -> Vec<Letter> {
        let letter = |number: usize| {
            let text = format!("message {number}");
            self.sender.letter(&self.device, &self.endpoint, text.as_bytes()).unwrap()
        };
        (0..count).map(letter).collect()
    }

    /// Sends all letters at once; the set yields each one's status.
    fn throw(&self, letters: Vec<Letter>) -> JoinSet<u16> {
        let mut flying = JoinSet::new();
        for letter in letters {
            let crowd = Arc::clone(&self.crowd);
            flying.spawn(async move { crowd.post(&letter).await.unwrap().status.as_u16() });
        }
        flying
    }
}

/// What the simulator of a kind of device shows and does.
struct Service<'a> {
    script: &'a Script,
    journal: &'a Journal,
    connections: &'a Connections,
}

// === impl Service ===

impl<'a> Service<'a> {
    fn of(house: &'a House, kind: DeviceKind) -> Self {
        let stage = &house.stage;
        let (script, journal, connections) = match kind {
            DeviceKind::Ios => {
                (stage.apns.script(), stage.apns.journal(), stage.apns.connections())
            }
            DeviceKind::Android => {
                (stage.fcm.script(), stage.fcm.journal(), stage.fcm.connections())
            }
            DeviceKind::Browser => {
                (stage.webpush.script(), stage.webpush.journal(), stage.webpush.connections())
            }
        };
        Self { script, journal, connections }
    }

    /// Panics unless so many different messages were accepted, each of them once.
    fn assert_each_once(&self, count: usize, what: &str) {
        let acceptances = self.journal.acceptances();
        assert_eq!(acceptances.len(), count, "{what}: messages accepted");
        let doubled = acceptances.values().filter(|times| **times != 1).count();
        assert_eq!(doubled, 0, "{what}: messages accepted more than once");
    }
}

/// Waits for every answer; panics unless each is 201.
async fn assert_all_created(flying: JoinSet<u16>, what: &str) {
    let statuses = tokio::time::timeout(PATIENCE, flying.join_all()).await.expect(what);
    let others: Vec<&u16> = statuses.iter().filter(|status| **status != 201).collect();
    assert!(others.is_empty(), "{what}: {} not accepted: {:?}", others.len(), others.first());
}

/// A thousand messages at once to each push service, which allows 1, 2 or 100 streams.
#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_refused_for_too_many_streams() {
    for kind in KINDS {
        for limit in [1, 2, 100] {
            let what = format!("{kind:?} with {limit} streams");
            let house = House::build().await;
            let service = Service::of(&house, kind);
            service.connections.set_stream_limit(limit);
            let fan = Fan::gather(&house, kind).await;
            assert_all_created(fan.throw(fan.letters(MESSAGES)), &what).await;
            service.assert_each_once(MESSAGES, &what);
            let (excess, early) =
                (service.connections.excess_streams(), service.connections.early_streams());
            assert_eq!((excess, early), (0, 0), "{what}: streams beyond the limit");
            assert!(service.connections.streams_max() <= limit as usize, "{what}");
        }
    }
}

/// The limit goes down and up on live connections while a thousand messages are under way.
/// A stream that met a lowered limit on its way is refused by the peer and goes out again.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_limit_is_followed_up_and_down_under_load() {
    for kind in KINDS {
        let what = format!("{kind:?}");
        let house = House::build().await;
        let service = Service::of(&house, kind);
        service.connections.set_stream_limit(100);
        service.script.latency(Duration::from_millis(5));
        let fan = Fan::gather(&house, kind).await;
        let flying = fan.throw(fan.letters(MESSAGES));
        for (accepted, limit) in [(150, 2), (250, 50), (450, 1), (480, 100), (750, 10)] {
            assert!(service.journal.wait_accepted(accepted, PATIENCE).await, "{what}");
            service.connections.set_stream_limit(limit);
        }
        assert_all_created(flying, &what).await;
        service.assert_each_once(MESSAGES, &what);
        assert_eq!(service.connections.excess_streams(), 0, "{what}");
    }
}

/// Every live connection goes away three times in mid-load, gracefully or cutting streams off.
#[tokio::test(flavor = "multi_thread")]
async fn a_goaway_in_mid_load_loses_and_doubles_no_message() {
    for kind in KINDS {
        for (name, go_away) in [("graceful", GoAway::graceful()), ("cutting", GoAway::cutting())] {
            let what = format!("{kind:?}, {name}");
            let house = House::build().await;
            let service = Service::of(&house, kind);
            service.script.latency(Duration::from_millis(10));
            let fan = Fan::gather(&house, kind).await;
            let flying = fan.throw(fan.letters(MESSAGES));
            for accepted in [200, 400, 600] {
                assert!(service.journal.wait_accepted(accepted, PATIENCE).await, "{what}");
                service.connections.go_away(&go_away);
            }
            assert_all_created(flying, &what).await;
            service.assert_each_once(MESSAGES, &what);
            let stats = service.connections.stats();
            let gone = stats.iter().filter(|connection| connection.going_away).count();
            assert!(gone >= 3, "{what}: only {gone} connections went away");
            let entries = service.journal.entries();
            let disowned = entries.iter().any(|entry| entry.outcome == StreamOutcome::Disowned);
            // A graceful GOAWAY may disown some too: those that crossed it on the way.
            assert!(disowned || go_away.cut == Cut::AfterSeen, "{what}: no stream was cut off");
        }
    }
}

/// A relay that has sent nothing yet gets a thousand messages for each push service at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_cold_start_takes_one_token_and_few_connections() {
    let house = House::build().await;
    let mut crowds = Vec::new();
    for kind in KINDS {
        let fan = Fan::gather(&house, kind).await;
        let letters = fan.letters(MESSAGES);
        crowds.push((kind, fan, letters));
    }
    let flying: Vec<_> =
        crowds.into_iter().map(|(kind, fan, letters)| (kind, fan.throw(letters))).collect();
    for (kind, flying) in flying {
        assert_all_created(flying, &format!("{kind:?}")).await;
    }
    assert_eq!(house.stage.fcm.journal().token_fetches(), 1, "OAuth tokens");
    for kind in KINDS {
        let service = Service::of(&house, kind);
        service.assert_each_once(MESSAGES, &format!("{kind:?}"));
        assert_eq!(service.journal.credentials_seen(), 1, "{kind:?}: credentials");
        // Google's token service shares FCM's origin here, but not its connections.
        let others = if kind == DeviceKind::Android { 1 } else { 0 };
        let opened = service.connections.opened();
        assert!(opened <= 4 + others, "{kind:?}: {opened} connections");
    }
}

/// An origin without HTTP/2 gets two hundred messages at once over a bounded set of connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_web_push_origin_without_http2_is_served() {
    let mut stage = Stage::set().await.unwrap();
    let config = WebPushSimConfig { protocol: webpush::Protocol::Http1, ..Default::default() };
    stage.webpush = WebPushSim::start(&stage.ca, config).await.unwrap();
    let origin = stage.webpush.base_url().trim_start_matches("https://").to_owned();
    stage.set_key("webpush.danger_allow_origins", vec![origin]);
    let house = House::on(stage).await;
    let service = Service::of(&house, DeviceKind::Browser);
    service.script.latency(Duration::from_millis(5));
    let fan = Fan::gather(&house, DeviceKind::Browser).await;
    assert_all_created(fan.throw(fan.letters(200)), "HTTP/1.1").await;
    service.assert_each_once(200, "HTTP/1.1");
    let opened = service.connections.opened();
    assert!((2..=64).contains(&opened), "{opened} connections");
}

/// FCM takes a request and never answers: the other results are theirs, FCM's is `unknown`.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_push_service_delays_only_its_own_result() {
    const TIMEOUT: Duration = Duration::from_millis(1_500);
    let house = House::with(|stage| stage.set_key("server.request_timeout_ms", 1_500)).await;
    house.stage.fcm.script().standing(Step::Stall);
    let nas = SenderKey::generate().unwrap();
    let enrolment =
        Enrolment { model: "DS923+".into(), serial: "2230ABC".into(), ..Default::default() };
    house.client.enrol(&nas, &enrolment).await.unwrap();
    let mut targets = Vec::new();
    for kind in [DeviceKind::Android, DeviceKind::Ios, DeviceKind::Browser] {
        let (device, endpoint) = house.paired(kind, &nas).await;
        let body = seal::seal(&device.keys().device(), b"disk full", BodyCap::default()).unwrap();
        let handle = endpoint.rsplit('/').next().unwrap().to_owned();
        targets.push(Target { handle, sealed: Some(body.into()) });
    }
    let notification = Notification {
        id: uuid::Uuid::new_v4(),
        source: Source::Dsm,
        level: Level::Error,
        ttl_s: 60,
        collapse_key: None,
        sound: true,
        content: None,
        targets,
    };
    let begun = Instant::now();
    let others = async {
        assert!(house.stage.apns.journal().wait_accepted(1, TIMEOUT).await);
        assert!(house.stage.webpush.journal().wait_accepted(1, TIMEOUT).await);
        begun.elapsed()
    };
    let (results, others_after) = tokio::join!(house.client.notify(&nas, &notification), others);
    let took = begun.elapsed();
    let results = results.unwrap();
    let outcomes: Vec<Outcome> = results.iter().map(|result| result.outcome).collect();
    assert_eq!(outcomes, [Outcome::Unknown, Outcome::Accepted, Outcome::Accepted]);
    assert_eq!(results[0].reason.as_deref(), Some("no_answer"));
    assert!(others_after < TIMEOUT, "the others went out after {others_after:?}");
    assert!(took >= TIMEOUT && took < TIMEOUT * 2, "the answer came after {took:?}");
}
