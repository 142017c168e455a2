//! Handles from outside: what does not open tells nothing, and what ages comes back fresh.

use std::time::Duration;

use serde_json::{Value, json};
use sns_loadtest::device::DeviceKind;
use sns_loadtest::stage::{APP, PLAIN_APP};
use sns_nas::base64url;
use sns_relay::keys;
use tokio::time;

use crate::forge::{Forge, handle_of, notification};
use crate::house::{House, KINDS};
use crate::wire::{Ask, PATIENCE, Told, ask_http1};

const DAY_S: u64 = 86_400;

/// Version, key id and nonce stand before the sealed part.
const KEY_ID: std::ops::Range<usize> = 1..5;
const HEADER_BYTES: usize = 17;

/// For what must not happen, also after the relay has read its keys again.
const LONGER_THAN_A_RELOAD: Duration = Duration::from_millis(1500);

/// Pushes to a handle at the application door.
async fn push(house: &House, sender: &Forge, handle: &str) -> Told {
    ask_http1(house.address(), &sender.push(&format!("http://x/push/{handle}"))).await
}

/// Notifies a handle at the NAS door; gives its result.
async fn notify(house: &House, nas: &Forge, handle: &str) -> Value {
    let ask = nas.json("POST", "/v1/notifications", &notification(handle));
    let told = ask_http1(house.address(), &ask).await;
    assert_eq!(told.status, 200, "{}", told.text());
    told.json()["results"][0].clone()
}

fn renewed(told: &Told) -> Option<String> {
    told.header("sns-renewed-handle").map(str::to_owned)
}

fn key_id(handle: &str) -> Vec<u8> {
    base64url::decode(handle).unwrap()[KEY_ID].to_vec()
}

/// Gives what is wrong with a handle in every way that a sender can bring about.
fn spoilt(handle: &str) -> Vec<String> {
    let mut wrong: Vec<String> = ["a", "AAAA", "!", "%00", "..", "self"].map(str::to_owned).into();
    let bytes = base64url::decode(handle).unwrap();
    // Cut at every length of the header, and at every thirteenth from there.
    let lengths = (1..bytes.len()).filter(|length| *length <= HEADER_BYTES + 1 || length % 13 == 0);
    wrong.extend(lengths.map(|length| base64url::encode(&bytes[..length])));
    wrong.push(handle[..handle.len() - 1].to_owned());
    wrong.push(base64url::encode([&bytes[..], &[0]].concat()));
    wrong.push(format!("{handle}{handle}"));
    wrong.push("A".repeat(4000));
    // One bit in every byte of the header and in every ninth of the rest.
    for at in
        (0..bytes.len()).filter(|at| *at < HEADER_BYTES || at % 9 == 0 || at + 1 == bytes.len())
    {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        wrong.push(base64url::encode(flipped));
    }
    for version in [0, 2, 255] {
        let mut other = bytes.clone();
        other[0] = version;
        wrong.push(base64url::encode(other));
    }
    wrong
}

/// Compares the whole answers: status, every header but the date, every byte of the body.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_does_not_open_gets_the_same_answer_byte_for_byte() {
    let house = House::build().await;
    let (owner, thief) = (Forge::for_house(&house), Forge::for_house(&house));
    assert_eq!(owner.enrol(&house).await.status, 201);
    let device = house.device(DeviceKind::Ios).await;
    let handle = handle_of(&owner.pair(&house, APP, &device).await);
    let mut told = push(&house, &thief, &handle).await;
    told.headers.remove("date");
    assert_eq!((told.status, told.code()), (404, "handle_invalid".to_owned()));
    let refusal = (told.status, told.headers, told.body);
    let same = |mut told: Told, what: &str| {
        told.headers.remove("date");
        assert_eq!((told.status, told.headers, told.body), refusal, "{what}");
    };
    let result = notify(&house, &owner, "garbage").await;
    assert_eq!(result["reason"], "handle_invalid");
    for wrong in spoilt(&handle) {
        same(push(&house, &owner, &wrong).await, &wrong);
    }
    for wrong in spoilt(&handle).iter().step_by(7) {
        assert_eq!(notify(&house, &owner, wrong).await, result, "{wrong}");
    }
    assert_eq!(push(&house, &owner, &handle).await.status, 201);
    house.pass_time_everywhere(365 * DAY_S);
    same(push(&house, &owner, &handle).await, "expired");
    assert_eq!(notify(&house, &owner, &handle).await, result);
    assert_eq!(house.stage.apns.delivered_to(device.address()).len(), 1);
}

/// The same device for two senders, under two apps: neither handle serves the other sender.
#[tokio::test(flavor = "multi_thread")]
async fn a_handle_serves_the_one_key_that_it_was_made_for() {
    let house = House::build().await;
    let (one, other) = (Forge::for_house(&house), Forge::for_house(&house));
    let device = house.device(DeviceKind::Android).await;
    let first = handle_of(&one.pair(&house, APP, &device).await);
    let second = handle_of(&other.pair(&house, PLAIN_APP, &device).await);
    for (sender, handle, status) in
        [(&one, &first, 201), (&one, &second, 404), (&other, &first, 404), (&other, &second, 201)]
    {
        assert_eq!(push(&house, sender, handle).await.status, status);
    }
    // Padding is tolerated (design §4): no sender is lost to its library's taste.
    let padding = "=".repeat((4 - first.len() % 4) % 4);
    assert_eq!(push(&house, &one, &format!("{first}{padding}")).await.status, 201);
}

/// Half a year and a day later: both doors give a fresh handle, which outlives the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_handle_past_half_its_life_comes_back_fresh() {
    for kind in KINDS {
        let house = House::build().await;
        let nas = Forge::for_house(&house);
        assert_eq!(nas.enrol(&house).await.status, 201);
        let device = house.device(kind).await;
        let old = handle_of(&nas.pair(&house, APP, &device).await);
        let young = push(&house, &nas, &old).await;
        assert_eq!((young.status, renewed(&young)), (201, None), "{kind:?}");
        assert_eq!(notify(&house, &nas, &old).await.get("renewed_handle"), None);
        house.pass_time_everywhere(183 * DAY_S);
        let told = push(&house, &nas, &old).await;
        assert_eq!(told.status, 201);
        let fresh = renewed(&told).expect("a fresh handle");
        assert_eq!(fresh.len(), old.len());
        let result = notify(&house, &nas, &old).await;
        assert!(result["renewed_handle"].is_string() && result["renewed_handle"] != json!(fresh));
        let told = push(&house, &nas, &fresh).await;
        assert_eq!((told.status, renewed(&told)), (201, None));
        house.pass_time_everywhere(183 * DAY_S);
        assert_eq!(push(&house, &nas, &old).await.status, 404, "the old one has expired");
        // Whatever a push service makes of a second leap in time: the fresh handle opens.
        assert_ne!(push(&house, &nas, &fresh).await.status, 404);
    }
}

/// Rotates the handle keys under a running relay, up to the loss of the first key.
#[tokio::test(flavor = "multi_thread")]
async fn a_handle_under_an_old_key_opens_until_its_key_is_gone() {
    let house = House::with(|stage| stage.set_key("keys.reload_interval_s", 1)).await;
    let nas = Forge::for_house(&house);
    let device = house.device(DeviceKind::Android).await;
    let pair = || async { handle_of(&nas.pair(&house, APP, &device).await) };
    let old = pair().await;
    let folder = house.stage.keys_folder();
    keys::rotate(&folder, 1, &house.clock).unwrap();
    time::sleep(LONGER_THAN_A_RELOAD).await;
    assert_eq!(key_id(&pair().await), key_id(&old), "the new key waits for all replicas");
    assert_eq!(renewed(&push(&house, &nas, &old).await), None);
    house.pass_time_everywhere(keys::SEALS_AFTER_S);
    let sealed_anew = async {
        while key_id(&pair().await) == key_id(&old) {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(PATIENCE, sealed_anew).await.expect("the new key seals");
    let told = push(&house, &nas, &old).await;
    assert_eq!(told.status, 201);
    let fresh = renewed(&told).expect("a handle under the new key");
    assert_eq!(key_id(&fresh), key_id(&pair().await));
    assert_eq!(renewed(&push(&house, &nas, &fresh).await), None);
    keys::rotate(&folder, 1, &house.clock).unwrap();
    let forgotten = async {
        while push(&house, &nas, &old).await.status == 201 {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(PATIENCE, forgotten).await.expect("the first key is gone");
    assert_eq!(push(&house, &nas, &old).await.code(), "handle_invalid");
    assert_eq!(push(&house, &nas, &fresh).await.status, 201);
}

/// A folder of keys that cannot be read leaves the keys in memory as they were.
#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_cannot_be_read_is_no_reason_to_forget_the_one_that_was() {
    let house = House::with(|stage| stage.set_key("keys.reload_interval_s", 1)).await;
    let nas = Forge::for_house(&house);
    let device = house.device(DeviceKind::Ios).await;
    let handle = handle_of(&nas.pair(&house, APP, &device).await);
    std::fs::write(house.stage.keys_folder().join("handle-keys.toml"), "keys = 1").unwrap();
    time::sleep(LONGER_THAN_A_RELOAD).await;
    assert_eq!(push(&house, &nas, &handle).await.status, 201);
}

/// Real shapes of all services, raw pairings: one length for all.
#[tokio::test(flavor = "multi_thread")]
async fn the_length_of_a_handle_does_not_tell_the_push_service() {
    let house = House::build().await;
    let sender_key = Forge::for_house(&house).key.public_base64url();
    let mozilla = format!("https://updates.push.services.mozilla.com/wpush/v2/{}", "g".repeat(182));
    let google = format!("https://fcm.googleapis.com/fcm/send/{}", "a".repeat(152));
    let mut lengths = Vec::new();
    for (app, service, member, value) in [
        (APP, "apns", "token", json!("ab".repeat(32))),
        (PLAIN_APP, "apns", "token", json!("ab".repeat(80))),
        (APP, "fcm", "token", json!("f".repeat(142))),
        (PLAIN_APP, "fcm", "token", json!("f".repeat(163))),
        (APP, "webpush", "subscription", json!({ "endpoint": mozilla })),
        (APP, "webpush", "subscription", json!({ "endpoint": google })),
    ] {
        let mut body = json!({ "app": app, "service": service, "sender_key": sender_key });
        body[member] = value;
        let ask = Ask::new("POST", "/v1/pairings")
            .header("content-type", "application/json")
            .body(body.to_string());
        let told = ask_http1(house.address(), &ask).await;
        assert_eq!(told.status, 201, "{}", told.text());
        lengths.push(told.json()["handle"].as_str().unwrap().len());
    }
    assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
}
