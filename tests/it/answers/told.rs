//! Where else an outcome is told: in the results of the NAS door, and in the metrics.

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use sns_loadtest::device::{Device, DeviceKind};
use sns_loadtest::sim::apns;
use sns_loadtest::sim::fcm;
use sns_loadtest::sim::script::Step;
use sns_loadtest::sim::webpush;
use sns_nas::client::message::{
    Enrolment, Level, Message, Notification, Outcome, Source, Target, TargetResult, Urgency,
};
use sns_nas::key::SenderKey;
use sns_nas::seal::{self, BodyCap};

use super::Line;
use crate::house::House;

/// One device of a notification, what its push service does, and what the NAS reads.
struct Told {
    kind: DeviceKind,
    step: Step,
    outcome: Outcome,
    reason: Option<&'static str>,
    retry_after_s: Option<u64>,
    gone_since: Option<&'static str>,
}

fn told(kind: DeviceKind, step: Step, outcome: Outcome, reason: &'static str) -> Told {
    let reason = Some(reason);
    Told { kind, step, outcome, reason, retry_after_s: None, gone_since: None }
}

/// Each outcome at each push service that can give it.
fn table() -> Vec<Told> {
    use DeviceKind::{Android, Browser, Ios};
    use Outcome::{Accepted, Gone, Misconfigured, NotNow, Refused, Unknown};
    let accept = |kind| Told { reason: None, ..told(kind, Step::Accept, Accepted, "") };
    let waits = |told, seconds| Told { retry_after_s: Some(seconds), ..told };
    let says = Step::Answer;
    let reset = || Step::ResetStream(h2::Reason::INTERNAL_ERROR);
    let unregistered = told(Ios, says(apns::gone(1_629_000_000_123)), Gone, "apns_unregistered");
    let (ended, shut) = (webpush::mozilla(410, 106), webpush::mozilla(413, 104));
    vec![
        accept(Ios),
        Told { gone_since: Some("2021-08-15T04:00:00Z"), ..unregistered },
        told(Ios, says(apns::error(400, "BadDeviceToken")), Gone, "apns_bad_device_token"),
        waits(
            told(Ios, says(apns::error(429, "TooManyRequests")), NotNow, "apns_too_many_requests"),
            60,
        ),
        told(Ios, says(apns::error(413, "PayloadTooLarge")), Refused, "apns_payload_too_large"),
        told(Ios, says(apns::error(400, "BadTopic")), Misconfigured, "apns_bad_topic"),
        told(Ios, reset(), Unknown, "no_answer"),
        accept(Android),
        told(
            Android,
            says(fcm::error(404, "NOT_FOUND", Some("UNREGISTERED"))),
            Gone,
            "fcm_unregistered",
        ),
        waits(told(Android, says(fcm::device_quota_exceeded()), NotNow, "fcm_quota_exceeded"), 60),
        told(
            Android,
            says(fcm::error(400, "INVALID_ARGUMENT", Some("INVALID_ARGUMENT"))),
            Refused,
            "fcm_invalid_argument",
        ),
        told(
            Android,
            says(fcm::third_party_auth_error()),
            Misconfigured,
            "fcm_third_party_auth_error",
        ),
        told(Android, reset(), Unknown, "no_answer"),
        accept(Browser),
        told(Browser, says(ended), Gone, "webpush_subscription_expired"),
        waits(told(Browser, says(webpush::mozilla(503, 201)), NotNow, "webpush_unavailable"), 120),
        told(Browser, says(shut), Refused, "webpush_payload_too_large"),
        told(
            Browser,
            says(webpush::apple(403, "VapidPkHashMismatch")),
            Misconfigured,
            "webpush_vapid_key_mismatch",
        ),
        told(Browser, reset(), Unknown, "no_answer"),
    ]
}

/// One notification to as many devices as there are rows; results come in the order of the targets.
#[tokio::test(flavor = "multi_thread")]
async fn the_nas_reads_one_result_for_each_target_with_all_that_its_outcome_holds() {
    let house = House::build().await;
    let nas = SenderKey::generate().unwrap();
    let enrolment =
        Enrolment { model: "DS923+".into(), serial: "2230ABC".into(), ..Enrolment::default() };
    house.client.enrol(&nas, &enrolment).await.unwrap();
    // A bad token is believed beside working ones alone, and Apple's answers come in any order.
    let (device, endpoint) = house.paired(DeviceKind::Ios, &nas).await;
    let body = seal::seal(&device.keys().device(), b"first", BodyCap::default()).unwrap().into();
    let first = Message { ttl_s: 60, urgency: Urgency::High, topic: None, body };
    assert_eq!(house.client.push(&endpoint, &nas, &first).await.unwrap().status, 201);
    let table = table();
    let mut targets = Vec::new();
    for row in &table {
        let (device, endpoint) = house.paired(row.kind, &nas).await;
        script_for(&house, &device, row.step.clone());
        let keys = device.keys().device();
        let sealed = seal::seal(&keys, b"volume 1 crashed", BodyCap::default()).unwrap();
        targets.push(Target { handle: handle(&endpoint), sealed: Some(sealed.into()) });
    }
    let notification = Notification {
        id: uuid::Uuid::new_v4(),
        source: Source::Dsm,
        level: Level::Error,
        ttl_s: 3600,
        collapse_key: None,
        sound: true,
        content: None,
        targets,
    };
    let results = house.client.notify(&nas, &notification).await.unwrap();
    assert_eq!(results.len(), table.len());
    for (row, result) in table.iter().zip(&results) {
        check(row, result);
    }
}

fn check(row: &Told, result: &TargetResult) {
    let name = format!("{:?} {:?} {:?}", row.kind, row.outcome, row.reason);
    assert_eq!(result.outcome, row.outcome, "{name}");
    assert_eq!(result.reason.as_deref(), row.reason, "{name}");
    assert_eq!(result.retry_after_s, row.retry_after_s, "{name}");
    assert_eq!(result.gone_since.as_deref(), row.gone_since, "{name}");
    let is_accepted = row.outcome == Outcome::Accepted;
    assert_eq!(result.provider_message_id.is_some(), is_accepted, "{name}");
    assert_eq!(result.renewed_handle, None, "{name}");
}

fn script_for(house: &House, device: &Device, step: Step) {
    let script = match device.kind() {
        DeviceKind::Ios => house.stage.apns.script(),
        DeviceKind::Android => house.stage.fcm.script(),
        DeviceKind::Browser => house.stage.webpush.script(),
    };
    script.for_token(device.address(), step);
}

fn handle(endpoint: &str) -> String {
    endpoint.rsplit('/').next().unwrap().to_owned()
}

/// Two accepted, one gone, one that meets another's fault; then the operator's page is read.
#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_counted_by_app_service_and_code_and_name_no_device() {
    let cases = [
        (DeviceKind::Ios, apns::gone(1_629_000_000_123), "apns", ("gone", "apns_unregistered")),
        (
            DeviceKind::Android,
            fcm::device_quota_exceeded(),
            "fcm",
            ("not_now", "fcm_quota_exceeded"),
        ),
        (
            DeviceKind::Browser,
            webpush::apple(403, "BadJwtToken"),
            "webpush",
            ("misconfigured", "webpush_vapid_rejected"),
        ),
    ];
    for (kind, says, service, (outcome, code)) in cases {
        let line = Line::to(kind).await;
        line.push().await;
        line.push().await;
        line.script().next(1, Step::Answer(says));
        line.push().await;
        let metrics = metrics(&line.house).await;
        let mut counted: Vec<&str> =
            metrics.lines().filter(|text| text.starts_with("sns_outcomes_total{")).collect();
        counted.sort_unstable();
        let count = |outcome, code, count| {
            format!(
                "sns_outcomes_total{{app=\"chat\",code=\"{code}\",outcome=\"{outcome}\",\
                 service=\"{service}\"}} {count}"
            )
        };
        let mut expected = [count("accepted", "accepted", 2), count(outcome, code, 1)];
        expected.sort();
        assert_eq!(counted, expected, "{kind:?}");
        assert_names_nobody(&line, &metrics);
    }
}

/// No label holds a device, a handle, an endpoint or a key.
fn assert_names_nobody(line: &Line, metrics: &str) {
    let handle = handle(&line.endpoint);
    let last = |address: &str| address.rsplit(['/', ':']).next().unwrap().to_owned();
    let secrets = [
        line.device.address().to_owned(),
        last(line.device.address()),
        line.endpoint.clone(),
        handle[..16].to_owned(),
        handle[handle.len() - 16..].to_owned(),
        line.sender.public_base64url(),
        line.authorization.clone(),
    ];
    for secret in secrets {
        assert!(!metrics.contains(&secret), "{:?}: the metrics name {secret}", line.kind);
    }
    assert!(!metrics.contains("/push/") && !metrics.contains("localhost"), "{:?}", line.kind);
}

/// Reads the operator's page.
async fn metrics(house: &House) -> String {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let page: Uri = format!("{}/metrics", house.admin_url).parse().unwrap();
    let answer = client.get(page).await.unwrap();
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.into()).unwrap()
}
