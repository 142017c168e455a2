//! Rates, holds, duplicates and deadlines, seen from the sender's side.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use sns_loadtest::device::{Device, DeviceKind};
use sns_loadtest::sim::apns;
use sns_loadtest::sim::fcm;
use sns_loadtest::sim::script::Step;
use sns_nas::client::PushAnswer;
use sns_nas::client::message::{
    Enrolment, Level, Message, Notification, Outcome, Source, Target, TargetResult, Urgency,
};
use sns_nas::key::SenderKey;
use sns_nas::seal::{self, BodyCap};
use uuid::Uuid;

use crate::house::House;

/// One paired device with its sender, who is an enrolled NAS.
struct Pairing {
    nas: SenderKey,
    device: Device,
    endpoint: String,
}

impl Pairing {
    async fn of(house: &House, kind: DeviceKind) -> Self {
        let nas = SenderKey::generate().unwrap();
        let enrolment = Enrolment {
            model: "DS923+".into(),
            serial: "2230ABC".into(),
            os_version: None,
            unique_ids: Vec::new(),
            enrolment_token: None,
        };
        house.client.enrol(&nas, &enrolment).await.unwrap();
        let (device, endpoint) = house.paired(kind, &nas).await;
        Self { nas, device, endpoint }
    }

    fn sealed(&self) -> Bytes {
        let keys = self.device.keys().device();
        Bytes::from(seal::seal(&keys, b"text", BodyCap::default()).unwrap())
    }

    async fn push(&self, house: &House, urgency: Urgency) -> PushAnswer {
        let message = Message { ttl_s: 60, urgency, topic: None, body: self.sealed() };
        house.client.push(&self.endpoint, &self.nas, &message).await.unwrap()
    }

    async fn notify(&self, house: &House, id: Uuid, level: Level) -> TargetResult {
        let handle = self.endpoint.rsplit('/').next().unwrap().to_owned();
        let notification = Notification {
            id,
            source: Source::Dsm,
            level,
            ttl_s: 60,
            collapse_key: None,
            sound: true,
            content: None,
            targets: vec![Target { handle, sealed: Some(self.sealed()) }],
        };
        house.client.notify(&self.nas, &notification).await.unwrap().pop().unwrap()
    }
}

/// Requests to Google but for those for access tokens.
fn messages_to_google(house: &House) -> u64 {
    let journal = house.stage.fcm.journal();
    journal.requests() - journal.token_fetches()
}

/// The fourth message at once is refused with a wait, and an alarm still goes out.
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_over_its_rate_is_told_to_wait_and_its_alarms_pass() {
    let house = House::with(|stage| {
        stage.set_key("limits.sender.ordinary_per_minute", 6);
        stage.set_key("limits.sender.ordinary_burst", 3);
    })
    .await;
    let pairing = Pairing::of(&house, DeviceKind::Ios).await;
    for _ in 0..3 {
        assert_eq!(pairing.push(&house, Urgency::Normal).await.status, 201);
    }
    let refused = pairing.push(&house, Urgency::Normal).await;
    assert_eq!((refused.status, refused.code.as_deref()), (429, Some("sender_rate_exceeded")));
    assert!((8..=10).contains(&refused.retry_after_s.unwrap()), "{:?}", refused.retry_after_s);
    let alarm = pairing.notify(&house, Uuid::new_v4(), Level::Error).await;
    assert_eq!(alarm.outcome, Outcome::Accepted);
    let another = Pairing::of(&house, DeviceKind::Ios).await;
    assert_eq!(another.push(&house, Urgency::Normal).await.status, 201);
}

/// Two senders to one device share the device's rate, whichever handle they use.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_over_its_rate_is_spared() {
    let house = House::with(|stage| {
        stage.set_key("limits.device.ordinary_per_minute", 1);
        stage.set_key("limits.device.ordinary_burst", 1);
    })
    .await;
    let pairing = Pairing::of(&house, DeviceKind::Android).await;
    assert_eq!(pairing.push(&house, Urgency::High).await.status, 201);
    let refused = pairing.push(&house, Urgency::High).await;
    assert_eq!((refused.status, refused.code.as_deref()), (429, Some("device_rate_exceeded")));
    assert_eq!(messages_to_google(&house), 1);
}

/// After Apple's 429 for one device the next message to it is answered without asking Apple again.
#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_device_is_not_asked_for_again_and_others_are_served() {
    let house = House::build().await;
    let pairing = Pairing::of(&house, DeviceKind::Ios).await;
    let throttled = apns::error(429, "TooManyRequests");
    house.stage.apns.script().next(1, Step::Answer(throttled));
    let first = pairing.push(&house, Urgency::Normal).await;
    assert_eq!((first.status, first.code.as_deref()), (429, Some("apns_too_many_requests")));
    let second = pairing.push(&house, Urgency::Normal).await;
    assert_eq!((second.status, second.code.as_deref()), (429, Some("apns_too_many_requests")));
    assert!(second.retry_after_s.unwrap() <= first.retry_after_s.unwrap());
    assert_eq!(house.stage.apns.journal().requests(), 1);
    let another = Pairing::of(&house, DeviceKind::Ios).await;
    assert_eq!(another.push(&house, Urgency::Normal).await.status, 201);
}

/// After Google's 429 for the project no message goes to Google until the named wait is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_project_is_left_alone_for_as_long_as_it_said() {
    let house = House::build().await;
    let pairing = Pairing::of(&house, DeviceKind::Android).await;
    let throttled = fcm::project_quota_exceeded()
        .with_header(http::header::RETRY_AFTER, http::HeaderValue::from_static("30"));
    house.stage.fcm.script().next(1, Step::Answer(throttled));
    let first = pairing.push(&house, Urgency::Normal).await;
    assert_eq!((first.status, first.retry_after_s), (429, Some(30)));
    let another = Pairing::of(&house, DeviceKind::Android).await;
    let second = another.push(&house, Urgency::Normal).await;
    assert_eq!(second.code.as_deref(), Some("fcm_project_quota_exceeded"));
    assert_eq!(messages_to_google(&house), 1);
    let phone = Pairing::of(&house, DeviceKind::Ios).await;
    assert_eq!(phone.push(&house, Urgency::Normal).await.status, 201);
}

/// The same notification twice: once on the wire, accepted twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_notification_sent_twice_reaches_its_device_once() {
    let house = House::build().await;
    let pairing = Pairing::of(&house, DeviceKind::Ios).await;
    let id = Uuid::new_v4();
    let first = pairing.notify(&house, id, Level::Warn).await;
    let second = pairing.notify(&house, id, Level::Warn).await;
    assert_eq!((first.outcome, second.outcome), (Outcome::Accepted, Outcome::Accepted));
    assert_eq!(first.provider_message_id, second.provider_message_id);
    assert_eq!(house.stage.apns.journal().requests(), 1);
    pairing.notify(&house, Uuid::new_v4(), Level::Warn).await;
    assert_eq!(house.stage.apns.journal().requests(), 2);
}

/// A twin that comes while the first is under way waits for its outcome.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_twins_are_sent_once() {
    let house = House::build().await;
    let pairing = Pairing::of(&house, DeviceKind::Android).await;
    house.stage.fcm.script().latency(Duration::from_millis(200));
    let id = Uuid::new_v4();
    let (one, two, three) = tokio::join!(
        pairing.notify(&house, id, Level::Warn),
        pairing.notify(&house, id, Level::Warn),
        pairing.notify(&house, id, Level::Warn),
    );
    for result in [one, two, three] {
        assert_eq!(result.outcome, Outcome::Accepted);
    }
    assert_eq!(messages_to_google(&house), 1);
}

/// What was not accepted is not remembered: the retry is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_what_failed_is_sent() {
    let house = House::build().await;
    let pairing = Pairing::of(&house, DeviceKind::Ios).await;
    let down = apns::error(503, "ServiceUnavailable");
    house.stage.apns.script().next(1, Step::Answer(down));
    let id = Uuid::new_v4();
    assert_eq!(pairing.notify(&house, id, Level::Warn).await.outcome, Outcome::NotNow);
    assert_eq!(pairing.notify(&house, id, Level::Warn).await.outcome, Outcome::Accepted);
    assert_eq!(house.stage.apns.journal().requests(), 2);
}

/// Every token is refused as in the wrong environment: no sender is told that its device is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_environment_reports_no_device_gone() {
    let house = House::build().await;
    let bad = apns::error(400, "BadDeviceToken");
    house.stage.apns.script().standing(Step::Answer(bad));
    for _ in 0..30 {
        let answer = Pairing::of(&house, DeviceKind::Ios).await.push(&house, Urgency::Normal).await;
        assert_eq!((answer.status, answer.code.as_deref()), (502, Some("mass_gone_suspected")));
    }
    house.stage.apns.script().reset();
    let pairing = Pairing::of(&house, DeviceKind::Ios).await;
    for _ in 0..40 {
        assert_eq!(pairing.push(&house, Urgency::Normal).await.status, 201);
    }
    let script = house.stage.apns.script();
    let unregistered = apns::gone(1_700_000_000_000);
    script.for_token(pairing.device.address(), Step::Answer(unregistered));
    let dead = pairing.push(&house, Urgency::Normal).await;
    assert_eq!(dead.status, StatusCode::GONE.as_u16());
}
