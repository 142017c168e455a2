//! Requests that are right, to be spoilt in one place, and credentials wrong in one way each.

use std::time::Duration;

use serde_json::{Value, json};
use sns_loadtest::device::Device;
use sns_nas::base64url;
use sns_nas::key::SenderKey;
use sns_nas::seal::{self, BodyCap};
use sns_relay::clock::Clock;
use sns_relay::keys::{HandleKey, HandleKeys};
use sns_relay::pair::Pairer;
use sns_relay::pair::seal::{Ring, RingKey};
use sns_relay::push::{self, Address, AppName};

use crate::house::House;
use crate::wire::{Ask, Told, ask_http1};

/// Stands in every bad value; no answer may repeat it.
pub(crate) const MARK: &str = "zqmarkerzq";

/// What a NAS of these tests says its serial number is.
pub(crate) const SERIAL: &str = "2230ABC000001";

const JOSE: &str = r#"{"typ":"JWT","alg":"ES256"}"#;

/// A sender: its key, and the relay that its tokens are for.
pub(crate) struct Forge {
    pub(crate) key: SenderKey,
    pub(crate) audience: String,
    clock: Clock,
}

// === impl Forge ===

impl Forge {
    pub(crate) fn for_house(house: &House) -> Self {
        Self::new(house.url.clone(), house.clock.clone())
    }

    /// Takes the relay's URL and the clock that it goes by.
    pub(crate) fn new(audience: String, clock: Clock) -> Self {
        Self { key: SenderKey::generate().unwrap(), audience, clock }
    }

    fn now_s(&self) -> u64 {
        self.clock.unix_s()
    }

    /// Gives a good `Authorization`.
    pub(crate) fn authorization(&self) -> String {
        self.token(JOSE, &json!({ "aud": self.audience, "exp": self.now_s() + 3600 }).to_string())
    }

    /// Signs whatever it is given.
    pub(crate) fn token(&self, jose: &str, claims: &str) -> String {
        let signed = format!("{}.{}", base64url::encode(jose), base64url::encode(claims));
        let signature = base64url::encode(self.key.sign(signed.as_bytes()).unwrap());
        format!("vapid t={signed}.{signature}, k={}", self.key.public_base64url())
    }

    /// Gives each wrong `Authorization` with the status and the code that it earns.
    pub(crate) fn wrong(&self) -> Vec<(String, u16, &'static str)> {
        let good = self.authorization();
        let (token, key) = good.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
        let other = SenderKey::generate().unwrap().public_base64url();
        let mut off_curve = self.key.public();
        off_curve[64] ^= 1;
        let off_curve = base64url::encode(off_curve);
        let claims = |claims: Value| self.token(JOSE, &claims.to_string());
        let (aud, exp) = (&self.audience, self.now_s() + 3600);
        let tampered = base64url::encode(json!({ "aud": aud, "exp": exp + 1 }).to_string());
        let mut parts: Vec<&str> = token.split('.').collect();
        parts[1] = &tampered;
        let tampered = parts.join(".");
        let signature_at = token.rfind('.').unwrap() + 1;
        let signature = &token[signature_at..];
        let malformed = [
            String::new(),
            format!("Bearer {MARK}"),
            "vapid".to_owned(),
            format!("vapid t={MARK}"),
            format!("vapid t={MARK}, k={key}"),
            format!("vapid t={token}"),
            format!("vapid k={key}"),
            format!("vapid t={token}, t={token}, k={key}"),
            format!("vapid t={token}, k={key}, k={key}"),
            format!("vapid t={}, k={key}", &token[..signature_at - 1]),
            format!("{good}, x={}", MARK.repeat(200)),
            self.token(r#"{"typ":"JWT","alg":"none"}"#, "{}"),
            self.token(r#"{"typ":"JWT","alg":"HS256"}"#, "{}"),
            self.token(MARK, "{}"),
            self.token(JOSE, MARK),
            claims(json!({ "aud": aud })),
            claims(json!({ "exp": exp })),
            claims(json!({ "aud": [aud], "exp": exp })),
            claims(json!({ "aud": aud, "exp": MARK })),
            claims(json!({ "aud": aud, "exp": -1 })),
        ];
        let mut wrong: Vec<_> =
            malformed.into_iter().map(|value| (value, 401, "vapid_malformed")).collect();
        for value in [MARK, &off_curve, &key[..86], ""] {
            wrong.push((format!("vapid t={token}, k={value}"), 401, "vapid_key_invalid"));
        }
        for value in [
            format!("vapid t={token}, k={other}"),
            format!("vapid t={tampered}, k={key}"),
            format!("vapid t={}, k={key}", &token[..token.len() - 2]),
            format!("vapid t={}., k={key}", &token[..signature_at - 1]),
            format!("vapid t={token}AAAA, k={key}"),
            format!("vapid t={}{}, k={key}", &token[..signature_at], reversed(signature)),
        ] {
            wrong.push((value, 401, "vapid_signature_invalid"));
        }
        let long = self.now_s() + 86_400 + 600;
        let foreign = "https://zqmarkerzq.example";
        wrong.extend([
            (claims(json!({ "aud": aud, "exp": self.now_s() - 600 })), 401, "vapid_expired"),
            (claims(json!({ "aud": aud, "exp": 0 })), 401, "vapid_expired"),
            (claims(json!({ "aud": aud, "exp": long })), 401, "vapid_lifetime_too_long"),
            (claims(json!({ "aud": aud, "exp": u64::MAX })), 401, "vapid_lifetime_too_long"),
            (claims(json!({ "aud": foreign, "exp": exp })), 403, "vapid_audience_wrong"),
            (claims(json!({ "aud": format!("{aud}/"), "exp": exp })), 403, "vapid_audience_wrong"),
            (
                claims(json!({ "aud": aud, "exp": exp, "sub": format!("tel:{MARK}") })),
                401,
                "vapid_subject_invalid",
            ),
        ]);
        wrong
    }

    /// `POST` or `PUT` of JSON, signed.
    pub(crate) fn json(&self, method: &'static str, path: &str, body: &Value) -> Ask {
        Ask::new(method, path)
            .header("content-type", "application/json")
            .header("authorization", self.authorization())
            .body(body.to_string())
    }

    /// `POST /push/{handle}` of a sealed message.
    pub(crate) fn push(&self, endpoint: &str) -> Ask {
        Ask::new("POST", path_of(endpoint))
            .header("authorization", self.authorization())
            .header("ttl", "60")
            .header("content-encoding", "aes128gcm")
            .body(sealed("hello"))
    }

    /// Pairs a device for this sender; gives the push resource.
    pub(crate) async fn pair(&self, house: &House, app: &str, device: &Device) -> String {
        let channel = house.channel(device);
        let app = app.to_owned();
        let sender_key = self.key.public();
        let pairing = sns_nas::client::message::Pairing { app, channel, client: None, sender_key };
        house.client.pair(&pairing).await.unwrap().paired().unwrap().endpoint
    }

    /// Enrols this sender as a NAS.
    pub(crate) async fn enrol(&self, house: &House) -> Told {
        let body = json!({ "model": "DS923+", "serial": SERIAL });
        ask_http1(house.address(), &self.json("POST", "/v1/nas", &body)).await
    }
}

/// Gives a body that any push service takes, sealed for nobody in particular.
pub(crate) fn sealed(text: &str) -> Vec<u8> {
    let device = Device::new_ios().unwrap();
    seal::seal(&device.keys().device(), text.as_bytes(), BodyCap::default()).unwrap()
}

/// Gives the path of an endpoint.
pub(crate) fn path_of(endpoint: &str) -> String {
    let (_, rest) = endpoint.split_once("://").unwrap();
    rest[rest.find('/').unwrap()..].to_owned()
}

/// Gives the handle of an endpoint.
pub(crate) fn handle_of(endpoint: &str) -> String {
    endpoint.rsplit('/').next().unwrap().to_owned()
}

/// Gives the good notification for one target.
pub(crate) fn notification(endpoint: &str) -> Value {
    json!({
        "id": uuid::Uuid::new_v4().to_string(), "source": "dsm", "level": "warn", "ttl_s": 60,
        "targets": [
            { "handle": handle_of(endpoint), "sealed": base64url::encode(sealed("hello")) },
        ],
    })
}

fn reversed(text: &str) -> String {
    // The last character carries two bits only, so it stays where it is.
    let (head, last) = text.split_at(text.len() - 1);
    head.chars().rev().chain(last.chars()).collect()
}

/// Makes a handle for a mail address without a mail to it, under the relay's own keys.
pub(crate) fn mail_handle(house: &House, app: &str, address: &str, key: &SenderKey) -> String {
    let keys = HandleKeys::load(&house.stage.keys_folder()).unwrap();
    let ring_key =
        |key: &HandleKey| RingKey::new(key.id, key.key.expose(), key.seals_from_unix_s).unwrap();
    let ring = Ring::new(keys.iter().map(ring_key).collect()).unwrap();
    let pairer = Pairer::new(ring, Duration::from_secs(86_400));
    let app = AppName::parse(app).unwrap();
    let address = Address::parse_email(address).ok().unwrap();
    let sender = push::SenderKey::from_point(&key.public()).unwrap().thumbprint();
    pairer.pair(app, address, sender, house.clock.unix_s()).ok().unwrap().handle
}
