//! The client against a relay that answers from a script: what it says, what it understands.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod script;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use script::{Answer, Script};
use serde_json::{Value, json};
use sns_nas::base64url;
use sns_nas::client::message::{
    Client, Content, Environment, Level, ServiceInfo, Source, Subscription, Target, Urgency,
};
use sns_nas::client::{
    Channel, ClientError, Enrolment, Message, Notification, Outcome, PairAnswer, Pairing,
    RelayClient,
};
use sns_nas::key::SenderKey;
use uuid::Uuid;

fn client(script: &Script) -> RelayClient {
    RelayClient::new(&script.url, None).unwrap()
}

fn message() -> Message {
    Message {
        ttl_s: 60,
        urgency: Urgency::High,
        topic: Some("t1".to_owned()),
        body: vec![1, 2, 3].into(),
    }
}

fn notification(targets: usize) -> Notification {
    let target = Target { handle: "h".to_owned(), sealed: Some(vec![0xfb, 0xff].into()) };
    Notification {
        id: Uuid::nil(),
        source: Source::Dsm,
        level: Level::Error,
        ttl_s: 86400,
        collapse_key: None,
        sound: true,
        content: None,
        targets: vec![target; targets],
    }
}

/// Reads the claims out of `vapid t=…, k=…`.
fn claims(authorization: &str) -> Value {
    let payload = authorization.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64url::decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn enrolling_says_only_what_is_known_and_tells_new_from_known() {
    let identity = json!({"ds_id": "ds_a", "enrolled_at": "2026-01-01T00:00:00Z", "new": 1});
    let script = Script::start(vec![Answer::json(201, &identity), Answer::json(200, &identity)]);
    let (client, key) = (client(&script), SenderKey::generate().unwrap());
    let enrolment =
        Enrolment { model: "DS1".to_owned(), serial: "S1".to_owned(), ..Enrolment::default() };
    let first = client.enrol(&key, &enrolment).await.unwrap();
    let second = client.enrol(&key, &enrolment).await.unwrap();
    assert_eq!((first.ds_id.as_str(), first.created), ("ds_a", true));
    assert_eq!((second.ds_id.as_str(), second.created), ("ds_a", false));
    let requests = script.requests();
    assert_eq!(requests[0].line, "POST /v1/nas HTTP/1.1");
    assert_eq!(requests[0].json(), json!({"model": "DS1", "serial": "S1"}));
    let authorization = requests[0].header("authorization");
    assert_eq!(claims(authorization)["aud"], script.url);
    assert!(authorization.ends_with(&format!(", k={}", key.public_base64url())));
    assert_eq!(requests[1].header("authorization"), authorization, "signed once");
}

#[tokio::test]
async fn the_record_the_app_and_a_new_key_travel_as_the_contract_says() {
    let record = json!({"ds_id": "ds_a", "enrolled_at": "2026-01-01T00:00:00Z", "model": "DS1"});
    let app = json!({"app": "chat", "application_server_key": null,
        "services": {"apns": {"max_body_bytes": 2744}}});
    let script = Script::start(vec![
        Answer::json(200, &record),
        Answer::json(200, &app),
        Answer::json(200, &record),
    ]);
    let client = client(&script);
    let (old, new) = (SenderKey::generate().unwrap(), SenderKey::generate().unwrap());
    assert_eq!(client.identity(&old).await.unwrap().others["model"], "DS1");
    let app = client.app("chat").await.unwrap();
    assert_eq!(app.application_server_key, None);
    let apns = ("apns".to_owned(), ServiceInfo { max_body_bytes: 2744 });
    assert_eq!(app.services, BTreeMap::from([apns]));
    client.rotate_key(&old, &new).await.unwrap();

    let requests = script.requests();
    assert_eq!(requests[0].line, "GET /v1/nas/self HTTP/1.1");
    assert_eq!(requests[1].line, "GET /v1/apps/chat HTTP/1.1");
    assert_eq!(requests[1].header("authorization"), "", "asking needs no key");
    assert_eq!(requests[2].line, "PUT /v1/nas/self/key HTTP/1.1");
    assert!(requests[2].header("authorization").ends_with(&old.public_base64url()));
    let body = requests[2].json();
    assert_eq!(body["new_key"], new.public_base64url());
    let proof = body["proof"].as_str().unwrap();
    assert_eq!(claims(proof)["aud"], script.url);
    assert!(proof.starts_with("vapid t=") && proof.ends_with(&new.public_base64url()));
}

#[tokio::test]
async fn pairing_sends_the_channel_of_each_push_service() {
    let paired = json!({"handle": "h", "endpoint": "https://r/push/h",
        "expires_at": "2027-01-01T00:00:00Z", "max_body_bytes": 2744});
    let paired = Answer::json(201, &paired);
    let sent = Answer::json(202, &json!({}));
    let script = Script::start(vec![paired.clone(), paired.clone(), paired, sent]);
    let client = client(&script);
    let key = SenderKey::generate().unwrap();
    let subscription = Subscription { endpoint: "https://p/1".to_owned(), keys: None };
    let channels = [
        Channel::Apns { token: "ab".to_owned(), environment: Environment::Sandbox },
        Channel::Fcm { token: "f".to_owned() },
        Channel::WebPush { subscription },
        Channel::Email { address: "a@example.net".to_owned() },
    ];
    let mut answers = Vec::new();
    for channel in channels {
        let about = Client { os: Some("iOS".to_owned()), ..Client::default() };
        let app = "chat".to_owned();
        let pairing = Pairing { app, channel, client: Some(about), sender_key: key.public() };
        answers.push(client.pair(&pairing).await.unwrap());
    }
    assert!(matches!(answers.pop(), Some(PairAnswer::TravelsToDevice)));
    let paired = answers.pop().and_then(PairAnswer::paired).unwrap();
    assert_eq!((paired.handle.as_str(), paired.max_body_bytes), ("h", 2744));

    let expected = [
        json!({"service": "apns", "token": "ab", "environment": "sandbox"}),
        json!({"service": "fcm", "token": "f"}),
        json!({"service": "webpush", "subscription": {"endpoint": "https://p/1"}}),
        json!({"service": "email", "address": "a@example.net"}),
    ];
    for (request, mut expected) in script.requests().iter().zip(expected) {
        assert_eq!(request.line, "POST /v1/pairings HTTP/1.1");
        expected["app"] = "chat".into();
        expected["client"] = json!({"os": "iOS"});
        expected["sender_key"] = key.public_base64url().into();
        assert_eq!(request.json(), expected);
    }
}

#[tokio::test]
async fn a_push_is_a_web_push_request_to_the_origin_of_its_endpoint() {
    let accepted = Answer::json(201, &json!({}))
        .with("Location", "https://r/message/1")
        .with("Sns-Renewed-Handle", "h2");
    let script = Script::start(vec![accepted]);
    let relay = RelayClient::new("https://elsewhere.example", None).unwrap();
    let key = SenderKey::generate().unwrap();
    let answer = relay.push(&format!("{}/push/h", script.url), &key, &message()).await.unwrap();
    assert_eq!((answer.status, answer.outcome), (201, Outcome::Accepted));
    assert_eq!(answer.location.as_deref(), Some("https://r/message/1"));
    assert_eq!(answer.renewed_handle.as_deref(), Some("h2"));
    let request = &script.requests()[0];
    assert_eq!(request.line, "POST /push/h HTTP/1.1");
    assert_eq!(claims(request.header("authorization"))["aud"], script.url);
    assert_eq!(request.header("ttl"), "60");
    assert_eq!(request.header("urgency"), "high");
    assert_eq!(request.header("topic"), "t1");
    assert_eq!(request.header("content-encoding"), "aes128gcm");
    assert_eq!(request.body, [1, 2, 3]);
}

#[tokio::test]
async fn each_status_of_the_application_door_is_one_outcome() {
    let cases = [
        (400, Outcome::Refused),
        (401, Outcome::Refused),
        (403, Outcome::Refused),
        (404, Outcome::Refused),
        (410, Outcome::Gone),
        (413, Outcome::Refused),
        (429, Outcome::NotNow),
        (502, Outcome::Misconfigured),
        (503, Outcome::NotNow),
        (504, Outcome::Unknown),
    ];
    let problem = json!({"code": "a_code", "field": "ttl", "gone_since": "2026-01-01T00:00:00Z"});
    let answer = |status| Answer::problem(status, &problem).with("Retry-After", "7");
    let script = Script::start(cases.iter().map(|(status, _)| answer(*status)).collect());
    let (client, key) = (client(&script), SenderKey::generate().unwrap());
    for (status, outcome) in cases {
        let endpoint = format!("{}/push/h", script.url);
        let answer = client.push(&endpoint, &key, &message()).await.unwrap();
        assert_eq!((answer.status, answer.outcome), (status, outcome));
        assert_eq!(answer.code.as_deref(), Some("a_code"));
        assert_eq!(answer.field.as_deref(), Some("ttl"));
        assert_eq!(answer.retry_after_s, Some(7));
        assert_eq!(answer.gone_since.as_deref(), Some("2026-01-01T00:00:00Z"));
    }
}

/// A captive portal or a proxy answers instead of the relay.
#[tokio::test]
async fn what_is_not_the_relays_own_answer_gives_no_device_up() {
    let page = |status| Answer::new(status, "text/html", b"<html>gone</html>");
    let bare = Answer::json(410, &json!({"code": "gone"}));
    let codeless = Answer::problem(410, &json!({"title": "Gone"}));
    let answers =
        vec![page(410), page(404), page(200), page(302), page(500), page(503), bare, codeless];
    let count = answers.len();
    let script = Script::start(answers);
    let (client, key) = (client(&script), SenderKey::generate().unwrap());
    for at in 0..count {
        let answer = client.push(&format!("{}/push/h", script.url), &key, &message()).await;
        assert!(matches!(answer, Err(ClientError::Malformed { .. })), "answer {at}");
    }
}

#[tokio::test]
async fn a_notification_gives_one_result_per_target_in_order() {
    let results = json!({"results": [
        {"outcome": "accepted", "provider_message_id": "p1", "renewed_handle": "h2"},
        {"outcome": "not_now", "reason": "overloaded", "retry_after_s": 30},
    ]});
    let script = Script::start(vec![Answer::json(200, &results), Answer::json(200, &results)]);
    let (client, key) = (client(&script), SenderKey::generate().unwrap());
    let outcomes = client.notify(&key, &notification(2)).await.unwrap();
    assert_eq!(outcomes[0].outcome, Outcome::Accepted);
    assert_eq!(outcomes[0].renewed_handle.as_deref(), Some("h2"));
    assert_eq!(outcomes[1].outcome, Outcome::NotNow);
    assert_eq!(outcomes[1].reason.as_deref(), Some("overloaded"));
    assert_eq!(outcomes[1].retry_after_s, Some(30));

    let content = Content { tag: "T".to_owned(), ..Content::default() };
    let three = Notification { content: Some(content), ..notification(3) };
    let short = client.notify(&key, &three).await;
    assert!(matches!(short, Err(ClientError::Malformed { status: 200, .. })));

    let requests = script.requests();
    assert_eq!(requests[0].line, "POST /v1/notifications HTTP/1.1");
    let target = json!({"handle": "h", "sealed": "-_8"});
    let expected = json!({"id": "00000000-0000-0000-0000-000000000000", "source": "dsm",
        "level": "error", "ttl_s": 86400, "sound": true, "targets": [target, target]});
    assert_eq!(requests[0].json(), expected);
    assert_eq!(requests[1].json()["content"], json!({"tag": "T", "title": "", "text": ""}));
}

#[tokio::test]
async fn a_refusal_keeps_its_code_field_and_wait() {
    let problem = json!({"type": "about:blank", "status": 429, "code": "overloaded",
        "field": "serial", "detail": "wait", "retry_after_s": 9});
    let script = Script::start(vec![Answer::problem(429, &problem)]);
    let (client, key) = (client(&script), SenderKey::generate().unwrap());
    let error = client.enrol(&key, &Enrolment::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "the relay refuses: 429 overloaded (serial)");
    let ClientError::Problem(problem) = error else { unreachable!("{error}") };
    assert_eq!((problem.status, problem.retry_after_s), (429, Some(9)));
    assert_eq!(problem.detail.as_deref(), Some("wait"));
}

#[tokio::test]
async fn a_relay_that_is_away_or_silent_is_told_apart_and_no_endpoint_is_in_the_text() {
    let key = SenderKey::generate().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let endpoint = format!("{url}/push/capability");
    let client = RelayClient::new(&url, None).unwrap().with_timeout(Duration::from_millis(200));
    let silent = client.push(&endpoint, &key, &message()).await.err().unwrap();
    assert!(matches!(silent, ClientError::TimedOut { .. }), "{silent}");
    drop(listener);
    let away = client.push(&endpoint, &key, &message()).await.err().unwrap();
    assert!(matches!(away, ClientError::Unreachable { .. }), "{away}");
    for error in [silent, away] {
        let mut cause: Option<&dyn Error> = Some(&error);
        while let Some(error) = cause {
            assert!(!format!("{error} {error:?}").contains("capability"));
            cause = error.source();
        }
    }
}

#[tokio::test]
async fn a_relay_under_an_extra_ca_is_trusted_only_when_the_ca_is_given() {
    let script = Script::start_tls(vec![Answer::json(202, &json!({}))]);
    assert!(script.url.starts_with("https://"));
    let pairing = Pairing {
        app: "chat".to_owned(),
        channel: Channel::Fcm { token: "f".to_owned() },
        client: None,
        sender_key: SenderKey::generate().unwrap().public(),
    };
    let refused = client(&script).pair(&pairing).await.err().unwrap();
    assert!(matches!(refused, ClientError::Unreachable { .. }), "{refused}");
    let trusting = RelayClient::new(&script.url, Some(script::CERTIFICATE_PEM)).unwrap();
    assert!(matches!(trusting.pair(&pairing).await, Ok(PairAnswer::TravelsToDevice)));
}

#[tokio::test]
async fn arguments_that_cannot_be_sent_are_named() {
    let name = |result: Result<(), ClientError>| match result {
        Err(ClientError::BadArgument { name, .. }) => name,
        Err(ClientError::BadCa) => "extra_ca_pem",
        _ => "",
    };
    let key = SenderKey::generate().unwrap();
    let url = "http://127.0.0.1:1";
    let relay = RelayClient::new(url, None).unwrap();
    assert_eq!(name(RelayClient::new("relay.example", None).map(drop)), "base_url");
    for pem in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert_eq!(name(RelayClient::new(url, Some(pem.as_bytes())).map(drop)), "extra_ca_pem");
    }
    assert_eq!(name(relay.app("../nas/self").await.map(drop)), "app");
    assert_eq!(name(relay.push("/push/h", &key, &message()).await.map(drop)), "endpoint");
    let bad = Message { topic: Some("a\r\nb".to_owned()), ..message() };
    assert_eq!(name(relay.push(url, &key, &bad).await.map(drop)), "topic");
}
