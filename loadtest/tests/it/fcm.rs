//! FCM: the OAuth grant and the message.

use std::time::Duration;

use serde_json::{Value, json};
use sns_loadtest::ca::TestCa;
use sns_loadtest::device::Device;
use sns_loadtest::sim::fcm::{self, FcmCredentials, FcmSim, FcmSimConfig};
use sns_loadtest::sim::script::Step;
use sns_nas::base64url;
use sns_nas::seal::{self, BodyCap};

use crate::client::{Client, Got, post_http1};
use crate::sign::{now_s, sign_rs256};

pub(crate) struct Bench {
    ca: TestCa,
    credentials: FcmCredentials,
    pub(crate) sim: FcmSim,
}

pub(crate) const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("content-type", "application/json");

impl Bench {
    pub(crate) async fn start() -> Bench {
        let ca = TestCa::new().unwrap();
        let sim = FcmSim::start(&ca, FcmSimConfig::default()).await.unwrap();
        let credentials = sim.credentials().unwrap();
        Bench { ca, credentials, sim }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.ca, self.sim.base_url()).await
    }

    fn file(&self) -> Value {
        serde_json::from_str(&self.credentials.service_account_json).unwrap()
    }

    pub(crate) fn claims(&self) -> Value {
        let file = self.file();
        json!({ "iss": file["client_email"], "aud": file["token_uri"], "iat": now_s(),
            "scope": "https://www.googleapis.com/auth/firebase.messaging",
            "exp": now_s() + 3600 })
    }

    pub(crate) fn grant(&self, claims: &Value) -> String {
        let assertion = sign_rs256(self.file()["private_key"].as_str().unwrap(), claims);
        format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
        )
    }

    pub(crate) async fn bearer(&self, client: &mut Client) -> String {
        let grant = self.grant(&self.claims());
        let got = client.post("/token", &[FORM], grant.as_bytes()).await.unwrap();
        assert_eq!(got.status, 200);
        assert_eq!(got.json()["expires_in"], 3600);
        format!("Bearer {}", got.json()["access_token"].as_str().unwrap())
    }

    pub(crate) async fn send(&self, client: &mut Client, bearer: &str, message: &Value) -> Got {
        let path = format!("/v1/projects/{}/messages:send", self.credentials.project_id);
        let headers = [("authorization", bearer), JSON];
        client.post(&path, &headers, message.to_string().as_bytes()).await.unwrap()
    }
}

/// A granted token sends a message, which the device opens.
#[tokio::test]
async fn a_good_message_is_delivered_and_opens() {
    let bench = Bench::start().await;
    let phone = Device::new_android().unwrap();
    let body = seal::seal(&phone.keys().device(), b"hello", BodyCap::new(2744).unwrap()).unwrap();
    let mut client = bench.client().await;
    let bearer = bench.bearer(&mut client).await;
    let message = json!({ "message": { "token": phone.address(),
        "data": { "e": base64url::encode(&body) },
        "android": { "priority": "HIGH", "ttl": "3600s", "collapseKey": "k" } } });
    let got = bench.send(&mut client, &bearer, &message).await;
    assert_eq!(got.status, 200);
    assert!(got.json()["name"].as_str().unwrap().starts_with("projects/"));
    let delivered = bench.sim.delivered_to(phone.address());
    assert_eq!(phone.open(&delivered[0]).unwrap(), b"hello");
    assert_eq!((bench.sim.journal().accepted(), bench.sim.journal().token_fetches()), (1, 1));
}

/// The token endpoint takes HTTP/1.1 too, and only a right assertion.
#[tokio::test]
async fn grants_are_checked_as_documented() {
    let bench = Bench::start().await;
    let check = async |claims: Value, status: u16| {
        let grant = bench.grant(&claims);
        let url = bench.sim.base_url();
        let got = post_http1(&bench.ca, url, "/token", &[FORM], grant.as_bytes()).await;
        assert_eq!(got.status, status, "{claims}");
    };
    let with = |name: &str, value: Value| {
        let mut claims = bench.claims();
        claims[name] = value;
        claims
    };
    check(bench.claims(), 200).await;
    check(with("iss", json!("nobody@example.com")), 400).await;
    check(with("aud", json!("https://oauth2.googleapis.com/token")), 200).await;
    check(with("aud", json!("https://localhost/token")), 400).await;
    check(with("scope", json!("https://www.googleapis.com/auth/drive")), 400).await;
    check(with("exp", json!(now_s() + 7200)), 400).await;
    check(with("exp", json!(now_s() - 1)), 400).await;
    bench.sim.oauth_script().next(1, Step::Answer(fcm::oauth_error(503, "unavailable")));
    check(bench.claims(), 503).await;
    assert_eq!(bench.sim.journal().token_fetches(), 8);
}

/// A missing, invented, expired or revoked access token is 401; another project's is 403.
#[tokio::test]
async fn access_tokens_are_checked() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    let message = json!({ "message": { "token": "t", "data": { "e": "AA" } } });
    let bearer = bench.bearer(&mut client).await;
    let other = bench.sim.credentials().unwrap();
    let path = format!("/v1/projects/{}/messages:send", other.project_id);
    let headers = [("authorization", bearer.as_str()), JSON];
    let got = client.post(&path, &headers, message.to_string().as_bytes()).await.unwrap();
    assert_eq!(got.status, 403);
    for bearer in ["Bearer ya29.invented", "bearer"] {
        assert_eq!(bench.send(&mut client, bearer, &message).await.status, 401);
    }
    assert_eq!(bench.send(&mut client, &bearer, &message).await.status, 200);
    bench.sim.advance_clock(Duration::from_secs(3601));
    let got = bench.send(&mut client, &bearer, &message).await;
    assert_eq!(got.status, 401);
    assert_eq!(got.json()["error"]["details"][0]["reason"], "ACCESS_TOKEN_EXPIRED");
}

/// One row per documented refusal of a message.
#[tokio::test]
async fn messages_are_checked_as_documented() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    let bearer = bench.bearer(&mut client).await;
    let long = "A".repeat(4096);
    let rows = [
        (json!({ "token": "t", "data": { "e": "AA" } }), 200),
        (json!({ "token": "t", "data": { "e": &long[1..] } }), 200),
        (json!({ "token": "t", "data": { "e": long } }), 400),
        (json!({ "token": "t", "data": { "n": 1 } }), 400),
        (json!({ "token": "t", "data": { "from": "x" } }), 400),
        (json!({ "token": "t", "data": { "google.x": "x" } }), 400),
        (json!({ "token": "t", "topic": "x" }), 400),
        (json!({ "data": { "e": "AA" } }), 400),
        (json!({ "token": "" }), 400),
        (json!({ "token": "t", "colour": "red" }), 400),
        (json!({ "token": "t", "android": { "ttl": "3600" } }), 400),
        (json!({ "token": "t", "android": { "ttl": 3600 } }), 400),
        (json!({ "token": "t", "android": { "ttl": "2419201s" } }), 400),
        (json!({ "token": "t", "android": { "ttl": "2419200s" } }), 200),
        (json!({ "token": "t", "android": { "priority": "LOUD" } }), 400),
    ];
    for (message, status) in rows {
        let got = bench.send(&mut client, &bearer, &json!({ "message": message })).await;
        assert_eq!(got.status, status, "{message}");
    }
    let dry = json!({ "validateOnly": true, "message": { "token": "t" } });
    assert_eq!(bench.send(&mut client, &bearer, &dry).await.status, 200);
    assert_eq!(bench.sim.journal().accepted(), 3);
    bench.sim.script().next(1, Step::Answer(fcm::error(404, "NOT_FOUND", Some("UNREGISTERED"))));
    let good = json!({ "message": { "token": "t" } });
    let got = bench.send(&mut client, &bearer, &good).await;
    assert_eq!(got.json()["error"]["details"][0]["errorCode"], "UNREGISTERED");
}
