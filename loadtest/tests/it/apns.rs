//! APNs: provider tokens, headers, payloads, certificates.

use std::time::Duration;

use serde_json::{Value, json};
use sns_loadtest::ca::TestCa;
use sns_loadtest::device::Device;
use sns_loadtest::sim::apns::{self, ApnsCredentials, ApnsSim, ApnsSimConfig, Environment};
use sns_loadtest::sim::script::Step;
use sns_nas::base64url;
use sns_nas::seal::{self, BodyCap};

use crate::client::{Client, Got};
use crate::sign::{Key, now_s};

const TOPIC: &str = "org.example.app";
const PAYLOAD: &[u8] = br#"{"aps":{"alert":{"body":"."},"mutable-content":1},"e":"AAAA"}"#;

pub(crate) struct Bench {
    pub(crate) ca: TestCa,
    pub(crate) credentials: ApnsCredentials,
    pub(crate) key: Key,
    pub(crate) sim: ApnsSim,
}

impl Bench {
    pub(crate) async fn start() -> Bench {
        Bench::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(adapt: impl FnOnce(&mut ApnsSimConfig)) -> Bench {
        let ca = TestCa::new().unwrap();
        let credentials = ApnsCredentials::generate(TOPIC).unwrap();
        let mut config = ApnsSimConfig::new(&credentials);
        adapt(&mut config);
        let sim = ApnsSim::start(&ca, config).await.unwrap();
        Bench { ca, key: Key::of(&credentials), credentials, sim }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.ca, self.sim.base_url()).await
    }

    fn header(&self) -> Value {
        json!({ "alg": "ES256", "kid": self.credentials.key_id })
    }

    fn claims(&self, issued_s: i64) -> Value {
        json!({ "iss": self.credentials.team_id, "iat": issued_s })
    }

    pub(crate) fn token(&self) -> String {
        self.token_of(now_s())
    }

    fn token_of(&self, issued_s: i64) -> String {
        format!("bearer {}", self.key.sign(&self.header(), &self.claims(issued_s)))
    }
}

pub(crate) async fn push(client: &mut Client, token: &str, device: &str) -> Got {
    push_with(client, device, &[("authorization", token)], PAYLOAD).await
}

/// Sends a good request with these headers put over the good ones.
async fn push_with(
    client: &mut Client,
    device: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Got {
    let mut all = vec![("apns-topic", TOPIC), ("apns-push-type", "alert")];
    all.retain(|(name, _)| headers.iter().all(|(other, _)| other != name));
    all.extend_from_slice(headers);
    all.retain(|(_, value)| *value != "(absent)");
    client.post(&format!("/3/device/{device}"), &all, body).await.unwrap()
}

fn device() -> String {
    "ab".repeat(32)
}

/// A good push is answered 200 with its id and reaches the device, which opens it.
#[tokio::test]
async fn a_good_push_is_delivered_and_opens() {
    let bench = Bench::start().await;
    let phone = Device::new_ios().unwrap();
    let body = seal::seal(&phone.keys().device(), b"hello", BodyCap::new(2744).unwrap()).unwrap();
    let payload = json!({ "aps": { "alert": { "loc-key": "NEW" }, "mutable-content": 1 },
        "e": base64url::encode(&body) });
    let id = "123e4567-e89b-12d3-a456-426614174000";
    let headers = [("authorization", bench.token()), ("apns-id", id.to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut client = bench.client().await;
    let got =
        push_with(&mut client, phone.address(), &headers, payload.to_string().as_bytes()).await;
    assert_eq!(got.reason(), (200, String::new()));
    assert_eq!(got.headers["apns-id"], id);
    let delivered = bench.sim.delivered_to(phone.address());
    assert_eq!(phone.open(&delivered[0]).unwrap(), b"hello");
    let other = Device::new_ios().unwrap();
    assert!(other.open(&delivered[0]).is_err());
    let journal = bench.sim.journal();
    assert_eq!((journal.requests(), journal.accepted(), journal.credentials_seen()), (1, 1, 1));
    let key = sns_loadtest::sim::journal::MessageKey::sealed(&body);
    assert_eq!(journal.acceptances().get(&key), Some(&1));
}

/// Only an RFC 7515 ES256 token of a known key and team passes.
#[tokio::test]
async fn provider_tokens_are_checked_as_documented() {
    let bench = Bench::start().await;
    let (header, claims) = (bench.header(), bench.claims(now_s()));
    let stranger = Key::generate();
    let check = async |authorization: &str, reason: &str| {
        let mut client = bench.client().await;
        let got = push(&mut client, authorization, &device()).await;
        let status = if reason.is_empty() { 200 } else { 403 };
        assert_eq!(got.reason(), (status, reason.to_owned()));
    };
    let bearer = |token: String| format!("bearer {token}");
    let invalid = "InvalidProviderToken";
    check(&bearer(bench.key.sign(&header, &claims)), "").await;
    check("(absent)", "MissingProviderToken").await;
    check(&bearer(bench.key.sign_der(&header, &claims)), invalid).await;
    check(&bearer(bench.key.sign_padded(&header, &claims)), invalid).await;
    check(&bearer(stranger.sign(&header, &claims)), invalid).await;
    let other_kid = json!({ "alg": "ES256", "kid": "ABCDEFGHIJ" });
    check(&bearer(bench.key.sign(&other_kid, &claims)), invalid).await;
    let none = json!({ "alg": "none", "kid": bench.credentials.key_id });
    check(&bearer(bench.key.sign(&none, &claims)), invalid).await;
    let other_team = json!({ "iss": "ABCDEFGHIJ", "iat": now_s() });
    check(&bearer(bench.key.sign(&header, &other_team)), invalid).await;
    let text_iat = json!({ "iss": bench.credentials.team_id, "iat": now_s().to_string() });
    check(&bearer(bench.key.sign(&header, &text_iat)), invalid).await;
    check(&bench.token_of(now_s() - 3700), "ExpiredProviderToken").await;
    check(&bench.token_of(now_s() + 3700), "ExpiredProviderToken").await;
}

/// A second key is refused on the connection of the first; a new token comes at most each 20 min.
#[tokio::test]
async fn a_connection_is_bound_to_one_key_and_its_token_changes_rarely() {
    let mut second = None;
    let bench = Bench::start_with(|config| {
        let team = config.keys[0].team_id.clone();
        let other = ApnsCredentials::generate_for(&team, TOPIC).unwrap();
        config.keys.push(other.registered());
        second = Some(other);
    })
    .await;
    let second = second.unwrap();
    let mut client = bench.client().await;
    let first = bench.token();
    assert_eq!(push(&mut client, &first, &device()).await.status, 200);
    let header = json!({ "alg": "ES256", "kid": second.key_id });
    let other = format!("bearer {}", Key::of(&second).sign(&header, &bench.claims(now_s())));
    let got = push(&mut client, &other, &device()).await;
    assert_eq!(got.reason(), (403, "UnrelatedKeyIdInToken".to_owned()));
    let got = push(&mut client, &bench.token(), &device()).await;
    assert_eq!(got.reason(), (429, "TooManyProviderTokenUpdates".to_owned()));
    assert_eq!(push(&mut client, &first, &device()).await.status, 200);
    bench.sim.advance_clock(Duration::from_secs(1300));
    let renewed = bench.token_of(now_s() + 1300);
    assert_eq!(push(&mut client, &renewed, &device()).await.status, 200);
    bench.sim.advance_clock(Duration::from_secs(3700));
    let got = push(&mut client, &renewed, &device()).await;
    assert_eq!(got.reason(), (403, "ExpiredProviderToken".to_owned()));
}

/// One row per documented refusal of a header or a payload.
#[tokio::test]
async fn headers_and_payloads_are_checked_as_documented() {
    let bench = Bench::start().await;
    let token = bench.token();
    let mut client = bench.client().await;
    let long = format!(r#"{{"aps":{{"alert":"x"}},"e":"{}"}}"#, "A".repeat(4096));
    let milliseconds = (now_s() * 1000).to_string();
    let collapse = "c".repeat(65);
    let rows: &[(&str, &str, &[u8], u16, &str)] = &[
        ("apns-topic", "(absent)", PAYLOAD, 400, "MissingTopic"),
        ("apns-topic", "org.example.other", PAYLOAD, 400, "TopicDisallowed"),
        ("apns-topic", "org example", PAYLOAD, 400, "BadTopic"),
        ("apns-push-type", "(absent)", PAYLOAD, 400, "InvalidPushType"),
        ("apns-push-type", "loud", PAYLOAD, 400, "InvalidPushType"),
        ("apns-push-type", "background", PAYLOAD, 400, "BadPriority"),
        ("apns-priority", "7", PAYLOAD, 400, "BadPriority"),
        ("apns-expiration", "-1", PAYLOAD, 400, "BadExpirationDate"),
        ("apns-expiration", "3600", PAYLOAD, 400, "BadExpirationDate"),
        ("apns-expiration", &milliseconds, PAYLOAD, 400, "BadExpirationDate"),
        ("apns-collapse-id", &collapse, PAYLOAD, 400, "BadCollapseId"),
        ("apns-id", "123E4567-E89B-12D3-A456-426614174000", PAYLOAD, 400, "BadMessageId"),
        ("apns-priority", "10", b"", 400, "PayloadEmpty"),
        ("apns-priority", "10", br#"{"e":"AAAA"}"#, 400, "PayloadEmpty"),
        ("apns-priority", "10", long.as_bytes(), 413, "PayloadTooLarge"),
        ("apns-expiration", "0", PAYLOAD, 200, ""),
    ];
    for (name, value, body, status, reason) in rows {
        let headers = [("authorization", token.as_str()), (name, value)];
        let got = push_with(&mut client, &device(), &headers, body).await;
        assert_eq!(got.reason(), (*status, (*reason).to_owned()), "{name}: {value}");
        assert!(got.headers.contains_key("apns-id"));
    }
    let twice = [("authorization", token.as_str()), ("apns-priority", "5"), ("apns-priority", "5")];
    let got = push_with(&mut client, &device(), &twice, PAYLOAD).await;
    assert_eq!(got.reason(), (400, "DuplicateHeaders".to_owned()));
    for bad in ["xyz", "abc", &"ab".repeat(101)] {
        let got = push(&mut client, &token, bad).await;
        assert_eq!(got.reason(), (400, "BadDeviceToken".to_owned()));
    }
    assert_eq!(bench.sim.journal().accepted(), 1);
}

/// A device token of the other environment, or of another app, is refused by its own reason.
#[tokio::test]
async fn device_tokens_belong_to_an_environment_and_an_app() {
    let bench = Bench::start_with(|config| config.registered_only = true).await;
    let (known, foreign, other_app) = ("aa".repeat(32), "bb".repeat(32), "cc".repeat(32));
    bench.sim.register(&known);
    bench.sim.register_foreign(&foreign);
    bench.sim.register_for(&other_app, "org.example.other");
    let (mut client, token) = (bench.client().await, bench.token());
    let mut check = async |device: &str, status: u16, reason: &str| {
        let got = push(&mut client, &token, device).await;
        assert_eq!(got.reason(), (status, reason.to_owned()));
    };
    check(&known, 200, "").await;
    check(&foreign, 400, "BadDeviceToken").await;
    check(&other_app, 400, "DeviceTokenNotForTopic").await;
    check(&"dd".repeat(32), 400, "BadDeviceToken").await;
}

/// A client certificate needs no provider token, and its topic is its own.
#[tokio::test]
async fn a_client_certificate_stands_for_a_provider_token() {
    let bench = Bench::start().await;
    let certificate = bench.ca.issue_client(TOPIC).unwrap();
    let base_url = bench.sim.base_url();
    let mut client = Client::connect_as(&bench.ca, base_url, Some(&certificate)).await;
    let headers = [("apns-topic", "(absent)")];
    let got = push_with(&mut client, &device(), &headers, PAYLOAD).await;
    assert_eq!(got.reason(), (200, String::new()));
    let headers = [("apns-topic", "org.example.other")];
    let got = push_with(&mut client, &device(), &headers, PAYLOAD).await;
    assert_eq!(got.reason(), (400, "TopicDisallowed".to_owned()));
}

/// A key of the other environment is told so; the sandbox adds its own header.
#[tokio::test]
async fn the_sandbox_knows_its_keys() {
    let bench = Bench::start_with(|config| config.environment = Environment::Sandbox).await;
    let got = push(&mut bench.client().await, &bench.token(), &device()).await;
    assert!(got.headers.contains_key("apns-unique-id"));
    let bench = Bench::start_with(|config| {
        config.keys[0].environment = Some(Environment::Sandbox);
    })
    .await;
    let got = push(&mut bench.client().await, &bench.token(), &device()).await;
    assert_eq!(got.reason(), (403, "BadEnvironmentKeyInToken".to_owned()));
}

/// Queue before token map before standing step.
#[tokio::test]
async fn the_script_answers_in_order() {
    let bench = Bench::start().await;
    let (mut client, token) = (bench.client().await, bench.token());
    let script = bench.sim.script();
    script.standing(Step::Answer(apns::error(503, "ServiceUnavailable")));
    script.for_token(&device(), Step::Answer(apns::gone(1_700_000_000_000)));
    script.next(1, Step::Answer(apns::error(429, "TooManyRequests")));
    let got = push(&mut client, &token, &device()).await;
    assert_eq!(got.reason(), (429, "TooManyRequests".to_owned()));
    let got = push(&mut client, &token, &device()).await;
    assert_eq!(got.reason(), (410, "Unregistered".to_owned()));
    assert_eq!(got.json()["timestamp"], 1_700_000_000_000_u64);
    let got = push(&mut client, &token, &"cd".repeat(32)).await;
    assert_eq!(got.reason(), (503, "ServiceUnavailable".to_owned()));
    assert_eq!(bench.sim.journal().accepted(), 0);
    assert_eq!(bench.sim.journal().answers().len(), 3);
}
