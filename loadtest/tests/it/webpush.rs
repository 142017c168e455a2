//! Web Push: VAPID, headers, the body's form, opening, HTTP/1.1.

use serde_json::json;
use sns_loadtest::ca::TestCa;
use sns_loadtest::device::{Device, DeviceKind};
use sns_loadtest::sim::journal::Delivered;
use sns_loadtest::sim::script::Step;
use sns_loadtest::sim::webpush::{self, Flavour, Protocol, WebPushSim, WebPushSimConfig};
use sns_nas::base64url;
use sns_nas::seal::{self, BodyCap, ReceiverKeys};

use crate::client::{Client, Got, post_http1};
use crate::sign::{Key, now_s};

/// A header, its value, the body, the expected status and `errno`.
type Row<'a> = (&'static str, &'a str, &'a [u8], u16, Option<u64>);

pub(crate) struct Bench {
    pub(crate) ca: TestCa,
    pub(crate) key: Key,
    pub(crate) sim: WebPushSim,
    browser: Device,
    pub(crate) body: Vec<u8>,
}

impl Bench {
    pub(crate) async fn start(flavour: Flavour, protocol: Protocol) -> Bench {
        let ca = TestCa::new().unwrap();
        let key = Key::generate();
        let config = WebPushSimConfig { flavour, protocol, ..WebPushSimConfig::default() };
        let sim = WebPushSim::start(&ca, config).await.unwrap();
        let browser = Device::new_browser(&sim, key.point).unwrap();
        let cap = BodyCap::new(2744).unwrap();
        let body = seal::seal(&browser.keys().device(), b"hello", cap).unwrap();
        Bench { ca, key, sim, browser, body }
    }

    pub(crate) fn path(&self) -> &str {
        self.browser.address().strip_prefix(self.sim.base_url()).unwrap()
    }

    /// The good headers with these put over them.
    pub(crate) fn headers(
        &self,
        over: &[(&'static str, &str)],
        body: &[u8],
    ) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("authorization", self.key.vapid(self.sim.base_url())),
            ("ttl", "60".to_owned()),
            ("urgency", "high".to_owned()),
            ("topic", "t-_0".to_owned()),
            ("content-encoding", "aes128gcm".to_owned()),
            ("content-length", body.len().to_string()),
        ];
        all.retain(|(name, _)| over.iter().all(|(other, _)| other != name));
        all.extend(over.iter().map(|(name, value)| (*name, (*value).to_owned())));
        all.retain(|(_, value)| value != "(absent)");
        all
    }

    pub(crate) async fn post(&self, over: &[(&'static str, &str)], body: &[u8]) -> Got {
        let headers = self.headers(over, body);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
        let mut client = Client::connect(&self.ca, self.sim.base_url()).await;
        client.post(self.path(), &headers, body).await.unwrap()
    }
}

/// A good push is answered 201 with Location and TTL, and the browser opens it.
#[tokio::test]
async fn a_good_push_is_delivered_and_opens() {
    let bench = Bench::start(Flavour::Mozilla, Protocol::Both).await;
    let got = bench.post(&[("ttl", "9999999")], &bench.body).await;
    assert_eq!(got.status, 201);
    assert_eq!(got.headers["ttl"], "2592000");
    assert!(got.headers.contains_key("location"));
    let delivered = bench.sim.delivered_to(bench.browser.address());
    assert_eq!(bench.browser.open(&delivered[0]).unwrap(), b"hello");
}

/// The RFC 8291 §5 message opens with the RFC's keys.
#[tokio::test]
async fn the_vector_of_rfc_8291_opens() {
    let raw = |text: &str| base64url::decode(text).unwrap();
    let private = raw("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94");
    let auth = raw("BTBZMqHH6r4Tts7J_aSIgg");
    let keys =
        ReceiverKeys::from_raw(&private.try_into().unwrap(), auth.try_into().unwrap()).unwrap();
    let browser = Device::with_keys(DeviceKind::Browser, "https://push.example.net/p", keys);
    let body = [
        raw("DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLoc\
             InmYWAmS6TlzAC8wEqKK6PBru3jl7A8"),
        raw("8pfeW0KbunFT06SuDKoJH9Ql87S1QUrdirN6GcG7sFz1y1sqLgVi1VhjVkHsUoEsbI_0LpXMuGvnzQ"),
    ]
    .concat();
    let delivered = Delivered::WebPush { body: body.into(), headers: http::HeaderMap::new() };
    let opened = browser.open(&delivered).unwrap();
    assert_eq!(opened, b"When I grow up, I want to be a watermelon");
}

/// One row per documented refusal of a header or a body.
#[tokio::test]
async fn headers_and_bodies_are_checked_as_documented() {
    let bench = Bench::start(Flavour::Mozilla, Protocol::Both).await;
    let long_topic = "t".repeat(33);
    let mut wrong_key = bench.body.clone();
    wrong_key[30] ^= 1;
    let mut two_records = bench.body.clone();
    two_records[16..20].copy_from_slice(&18_u32.to_be_bytes());
    let large = [bench.body.clone(), vec![0; 4096]].concat();
    let good = bench.body.as_slice();
    let rows: &[Row] = &[
        ("ttl", "(absent)", good, 400, Some(111)),
        ("ttl", "-1", good, 400, Some(111)),
        ("ttl", "0", good, 201, None),
        ("urgency", "loud", good, 400, None),
        ("urgency", "(absent)", good, 201, None),
        ("topic", &long_topic, good, 400, Some(113)),
        ("topic", "a b", good, 400, Some(113)),
        ("content-encoding", "aesgcm", good, 400, Some(110)),
        ("content-encoding", "(absent)", good, 400, Some(110)),
        ("crypto-key", "dh=x", good, 400, Some(110)),
        ("content-length", "(absent)", good, 411, None),
        ("ttl", "60", b"plain text", 400, Some(110)),
        ("ttl", "60", &wrong_key, 400, Some(110)),
        ("ttl", "60", &two_records, 400, Some(110)),
        ("ttl", "60", &large, 413, Some(104)),
        ("authorization", "(absent)", good, 401, Some(109)),
    ];
    for (name, value, body, status, errno) in rows {
        let got = bench.post(&[(name, value)], body).await;
        assert_eq!(got.status, *status, "{name}: {value}");
        if *status != 201 {
            assert_eq!(got.json()["errno"].as_u64(), *errno, "{name}: {value}");
        }
    }
}

/// Each VAPID fault in Apple's words.
#[tokio::test]
async fn vapid_is_checked_as_documented() {
    let bench = Bench::start(Flavour::Apple, Protocol::Both).await;
    let aud = bench.sim.base_url();
    let (exp, sub) = (now_s() + 3600, "mailto:push@example.com");
    let check = async |authorization: String, status: u16, reason: &str| {
        let got = bench.post(&[("authorization", &authorization)], &bench.body).await;
        assert_eq!(got.reason(), (status, reason.to_owned()));
    };
    let claim = |claims: serde_json::Value| bench.key.vapid_claiming(&claims);
    check(bench.key.vapid(aud), 201, "").await;
    check(claim(json!({ "aud": aud, "exp": exp, "sub": "https://a.example" })), 201, "").await;
    let bad = "BadJwtToken";
    check(claim(json!({ "aud": "https://localhost", "exp": exp, "sub": sub })), 403, bad).await;
    check(claim(json!({ "aud": format!("{aud}/"), "exp": exp, "sub": sub })), 403, bad).await;
    check(claim(json!({ "aud": aud, "exp": now_s() + 90_000, "sub": sub })), 403, bad).await;
    check(claim(json!({ "aud": aud, "exp": now_s() - 1, "sub": sub })), 403, bad).await;
    check(claim(json!({ "aud": aud, "exp": exp })), 403, bad).await;
    check(claim(json!({ "aud": aud, "exp": exp, "sub": "mailto: <a@b.c>" })), 403, bad).await;
    check(Key::generate().vapid(aud), 400, "VapidPkHashMismatch").await;
    check("bearer x".to_owned(), 400, "BadAuthorizationHeader").await;
}

/// A server without HTTP/2 checks and delivers the same.
#[tokio::test]
async fn http1_alone_works_too() {
    let bench = Bench::start(Flavour::Google, Protocol::Http1).await;
    let headers = bench.headers(&[], &bench.body);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
    let url = bench.sim.base_url();
    let got = post_http1(&bench.ca, url, bench.path(), &headers, &bench.body).await;
    assert_eq!(got.status, 201);
    bench.sim.script().next(1, Step::Answer(webpush::google(410, "gone")));
    let got = post_http1(&bench.ca, url, bench.path(), &headers, &bench.body).await;
    assert_eq!((got.status.as_u16(), &got.body[..]), (410, &b"gone"[..]));
    bench.sim.unsubscribe(bench.browser.address());
    let got = post_http1(&bench.ca, url, bench.path(), &headers, &bench.body).await;
    assert_eq!(got.status, 410);
    assert_eq!(bench.sim.journal().accepted(), 1);
}
