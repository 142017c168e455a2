//! Sealing and opening, against the RFCs' own examples and another implementation.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use sns_nas::base64url::decode;
use sns_nas::seal::{
    BODY_BYTES_MAX, BodyCap, DeviceKeys, OVERHEAD_BYTES, ReceiverKeys, SealError, open,
    open_records, seal, seal_with,
};
use web_push_native::{Auth, p256};

const RFC8291: &str = include_str!("vectors/rfc8291.json");
const RFC8188: &str = include_str!("vectors/rfc8188.json");

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn bytes<const N: usize>(value: &Value) -> [u8; N] {
    decode(value["b64url"].as_str().unwrap()).unwrap().try_into().unwrap()
}

fn rfc_receiver(vector: &Value) -> ReceiverKeys {
    let inputs = &vector["inputs"];
    ReceiverKeys::from_raw(&bytes(&inputs["ua_private"]), bytes(&inputs["auth_secret"])).unwrap()
}

#[test]
fn the_example_of_rfc_8291_seals_to_the_same_bytes_and_opens() {
    let vector = json(RFC8291);
    let inputs = &vector["inputs"];
    let receiver = rfc_receiver(&vector);
    assert_eq!(receiver.p256dh(), bytes::<65>(&inputs["ua_public"]));
    assert_eq!(receiver.auth(), bytes::<16>(&inputs["auth_secret"]));
    let message = vector["plaintext_utf8"].as_str().unwrap().as_bytes();
    let expected = decode(vector["outputs"]["body"]["b64url"].as_str().unwrap()).unwrap();
    let as_private = bytes(&inputs["as_private"]);
    let body = seal_with(&receiver.device(), message, &as_private, bytes(&inputs["salt"])).unwrap();
    assert_eq!(body, expected);
    assert_eq!(open(&receiver, &body).unwrap(), message);
}

#[test]
fn the_examples_of_rfc_8188_open() {
    let vectors = json(RFC8188);
    let vectors = vectors["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let ikm = bytes::<16>(&vector["ikm"]);
        let body = decode(vector["body"]["b64url"].as_str().unwrap()).unwrap();
        let expected = vector["plaintext_utf8"].as_str().unwrap().as_bytes();
        assert_eq!(open_records(&ikm, &body).unwrap(), expected, "{}", vector["section"]);
        // Without its last record or its last byte it is truncated, never a shorter message.
        assert_eq!(open_records(&ikm, &body[..body.len() - 1]), Err(SealError::Unreadable));
    }
    let two = &vectors[1];
    let body = decode(two["body"]["b64url"].as_str().unwrap()).unwrap();
    let one_record = &body[..23 + 25];
    assert_eq!(open_records(&bytes::<16>(&two["ikm"]), one_record), Err(SealError::Unreadable));
}

#[test]
fn another_implementation_opens_what_we_seal() {
    let secret = p256::SecretKey::random(&mut p256::elliptic_curve::rand_core::OsRng);
    let auth = [7; 16];
    let point = p256::EncodedPoint::from(secret.public_key());
    let device = DeviceKeys::new(point.as_bytes().try_into().unwrap(), auth).unwrap();
    for message_bytes in [0, 1, 409, 410, 2641] {
        let message = vec![0; message_bytes];
        let body = seal(&device, &message, BodyCap::default()).unwrap();
        let opened = web_push_native::decrypt(body, &secret, Auth::from_slice(&auth)).unwrap();
        assert_eq!(opened, message);
    }
}

#[test]
fn what_another_implementation_seals_opens() {
    let receiver = ReceiverKeys::generate().unwrap();
    let public = p256::PublicKey::from_sec1_bytes(&receiver.p256dh()).unwrap();
    let auth = receiver.auth();
    let body =
        web_push_native::encrypt(b"melon".to_vec(), &public, Auth::from_slice(&auth)).unwrap();
    assert_eq!(open(&receiver, &body).unwrap(), b"melon");
}

#[test]
fn a_changed_byte_anywhere_or_a_missing_one_does_not_open() {
    let receiver = ReceiverKeys::generate().unwrap();
    let body = seal(&receiver.device(), b"volume 1 crashed", BodyCap::default()).unwrap();
    // The record size (bytes 16..20) is a bound, not covered by the tag: larger is harmless.
    for at in (0..16).chain(20..body.len()) {
        let mut forged = body.clone();
        forged[at] ^= 1;
        assert_eq!(open(&receiver, &forged), Err(SealError::Unreadable), "byte {at}");
    }
    for end in [0, 15, 16, 20, 21, 85, 86, 102, body.len() - 1] {
        assert_eq!(open(&receiver, &body[..end]), Err(SealError::Unreadable), "{end} bytes");
    }
    let stranger = ReceiverKeys::generate().unwrap();
    assert_eq!(open(&stranger, &body), Err(SealError::Unreadable));
}

#[test]
fn the_same_message_never_seals_to_the_same_body() {
    let device = ReceiverKeys::generate().unwrap().device();
    let one = seal(&device, b"same", BodyCap::default()).unwrap();
    let two = seal(&device, b"same", BodyCap::default()).unwrap();
    assert_ne!(one[..16], two[..16], "salt");
    assert_ne!(one[21..86], two[21..86], "ephemeral key");
    assert_ne!(one[86..], two[86..], "record");
}

#[test]
fn a_body_shows_its_size_class_and_not_the_length_of_the_message() {
    let receiver = ReceiverKeys::generate().unwrap();
    let check = |cap_bytes: usize, message_bytes: usize, body_bytes: usize| {
        let message = vec![0; message_bytes];
        let cap = BodyCap::new(cap_bytes).unwrap();
        let body = seal(&receiver.device(), &message, cap).unwrap();
        assert_eq!(body.len(), body_bytes, "{message_bytes} bytes under {cap_bytes}");
        assert_eq!(open(&receiver, &body).unwrap(), message);
    };
    check(2744, 0, 512);
    check(2744, 512 - OVERHEAD_BYTES, 512);
    check(2744, 513 - OVERHEAD_BYTES, 1024);
    check(2744, 1025 - OVERHEAD_BYTES, 2048);
    check(2744, 2049 - OVERHEAD_BYTES, 2744);
    check(2744, 2744 - OVERHEAD_BYTES, 2744);
    check(4096, 2745 - OVERHEAD_BYTES, 4096);
    check(4096, 4096 - OVERHEAD_BYTES, 4096);
    check(300, 0, 300);
    check(512, 1, 512);
    check(600, 410, 600);
}

#[test]
fn what_does_not_fit_is_refused_with_the_room_there_is() {
    let device = ReceiverKeys::generate().unwrap().device();
    let cap = BodyCap::default();
    assert_eq!(cap.message_bytes_max(), 2641);
    assert_eq!(
        seal(&device, &[0; 2642], cap),
        Err(SealError::TooLong { message_bytes: 2642, message_bytes_max: 2641 })
    );
    for cap_bytes in [0, OVERHEAD_BYTES - 1, BODY_BYTES_MAX + 1] {
        assert_eq!(BodyCap::new(cap_bytes), Err(SealError::BadCap { cap_bytes }));
    }
}

#[test]
fn device_keys_are_read_as_browsers_write_them_and_checked() {
    let vector = json(RFC8291);
    let p256dh = vector["inputs"]["ua_public"]["b64url"].as_str().unwrap().to_owned();
    let auth = vector["inputs"]["auth_secret"]["b64url"].as_str().unwrap().to_owned();
    let standard = |text: &str| text.replace('-', "+").replace('_', "/");
    let check = |p256dh: &str, auth: &str, expect: Option<&str>| {
        let field = match DeviceKeys::parse(p256dh, auth) {
            Ok(_) => None,
            Err(SealError::BadKey { field, .. }) => Some(field),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(field, expect);
    };
    check(&p256dh, &auth, None);
    check(&format!("{p256dh}="), &format!("{auth}=="), None);
    check(&standard(&p256dh), &standard(&auth), None);
    check("", &auth, Some("p256dh"));
    check(&p256dh[..86], &auth, Some("p256dh"));
    check(&p256dh, "", Some("auth"));
    check(&p256dh, &auth[..20], Some("auth"));

    let point = bytes::<65>(&vector["inputs"]["ua_public"]);
    let refused = |point: [u8; 65]| DeviceKeys::new(point, [0; 16]).is_err();
    let mut off_curve = point;
    off_curve[64] ^= 1;
    assert!(refused(off_curve));
    let mut hybrid = point;
    hybrid[0] = 6;
    assert!(refused(hybrid));
    assert!(refused([0; 65]));
    assert!(!refused(point));
}
