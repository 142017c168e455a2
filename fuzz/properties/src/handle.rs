//! Handles: only what was sealed opens, and what opens seals back to the same.
//!
//! `r` and text: a handle as a sender gives it. `s` and bytes: the plain text of a handle, sealed
//! here under the ring's own key, with its sender made ours if the first byte is odd.
//! `t`, an offset and a mask: a good handle, damaged.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use std::time::Duration;

use sns_relay::outcome::Code;
use sns_relay::pair::Pairer;
use sns_relay::pair::seal::{Inside, Ring, RingKey};
use sns_relay::push::{Address, AppName, BASE64URL, Environment};

use crate::{NOW_UNIX_S, mode, sender};

const KEY: [u8; 32] = [7; 32];
const KEY_ID: [u8; 4] = *b"key1";
const HEADER_BYTES: usize = 17;
const AAD_BYTES: usize = 5;

/// The sizes that a plain text is padded to.
const CLASSES: [usize; 3] = [320, 768, 2304];

/// Checks one handle.
pub fn handle(data: &[u8]) {
    match mode(data, 3) {
        Some((0, text)) => raw(text),
        Some((1, plain)) => sealed(plain),
        Some((_, damage)) => damaged(damage),
        None => {}
    }
}

fn raw(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let opened = ring().open(text, NOW_UNIX_S);
    if let Ok(opened) = &opened {
        let bytes = BASE64URL.decode(text).expect("what opened is base64url");
        let canonical = BASE64URL.encode(bytes);
        assert_eq!(canonical, text.trim_end_matches('='), "one handle has one spelling");
        seals_back(&opened.inside);
    }
    pairer_agrees(text, opened.ok().map(|opened| opened.inside));
}

fn sealed(data: &[u8]) {
    let Some((bound, plain)) = data.split_first() else { return };
    let mut plain = plain.to_vec();
    let class = CLASSES.into_iter().find(|class| plain.len() <= *class).unwrap_or(CLASSES[2]);
    plain.resize(class, 0);
    if bound % 2 == 1 {
        plain[1..33].copy_from_slice(sender::sender().thumbprint().as_bytes());
    }
    let handle = seal(&plain);
    let opened = ring().open(&handle, NOW_UNIX_S);
    if let Ok(opened) = &opened {
        let again = seals_back(&opened.inside);
        assert_eq!(trimmed(&unseal(&again)), trimmed(&plain), "one device has one plain text");
    }
    assert!(other_ring().open(&handle, NOW_UNIX_S).is_err(), "another key opens it");
    pairer_agrees(&handle, opened.ok().map(|opened| opened.inside));
}

fn damaged(damage: &[u8]) {
    let Some((offset, masks)) = damage.split_first_chunk::<2>() else { return };
    let offset = usize::from(u16::from_be_bytes(*offset));
    let good = ring().seal(&inside(), NOW_UNIX_S).expect("a device fits");
    let mut bytes = BASE64URL.decode(&good).expect("a handle is base64url");
    let length = bytes.len();
    for (index, mask) in masks.iter().take(length).enumerate() {
        bytes[(offset + index) % length] ^= mask;
    }
    let damaged = BASE64URL.encode(bytes);
    assert_eq!(ring().open(&damaged, NOW_UNIX_S).is_ok(), damaged == good, "damage opens");
}

/// What opened seals, and opens to the same again; gives the new handle.
fn seals_back(inside: &Inside) -> String {
    let handle = ring().seal(inside, NOW_UNIX_S).expect("what opened seals back");
    let again = ring().open(&handle, NOW_UNIX_S).expect("what was sealed opens");
    assert!(again.inside == *inside, "what was sealed is what opens");
    handle
}

/// A device is given to its sender alone, in time alone; all else is one and the same refusal.
fn pairer_agrees(handle: &str, inside: Option<Inside>) {
    let lifetime = Duration::from_secs(86_400);
    let pairer = Pairer::new(ring(), lifetime);
    let ours = inside.filter(|inside| {
        inside.sender == sender::sender().thumbprint() && inside.expires_at_unix_s > NOW_UNIX_S
    });
    match (pairer.open(handle, &sender::sender(), NOW_UNIX_S), ours) {
        (Ok(device), Some(inside)) => {
            assert!(*device.address() == inside.address && *device.app() == inside.app);
            if let Some(renewed) = pairer.renewed(&device, NOW_UNIX_S) {
                let fresh = ring().open(&renewed, NOW_UNIX_S).expect("a renewed one opens");
                let expires_at_unix_s = NOW_UNIX_S + lifetime.as_secs();
                let expected = Inside { issued_at_unix_s: NOW_UNIX_S, expires_at_unix_s, ..inside };
                assert!(fresh.inside == expected, "only the times are renewed");
            }
        }
        (Err(refusal), None) => {
            assert_eq!(refusal.code, Code::HandleInvalid);
            assert_eq!(refusal.field.as_deref(), Some("handle"));
        }
        (Ok(_), None) => panic!("a device was given to another, or too late"),
        (Err(_), Some(_)) => panic!("a device was kept from its sender"),
    }
}

fn inside() -> Inside {
    let token = "0a".repeat(32);
    Inside {
        app: AppName::parse("chat").expect("a name"),
        address: Address::parse_apns(&token, Environment::Production).expect("a token"),
        sender: sender::sender().thumbprint(),
        issued_at_unix_s: NOW_UNIX_S,
        expires_at_unix_s: NOW_UNIX_S + 1000,
    }
}

fn ring() -> Ring {
    let key = RingKey::new(KEY_ID, &KEY, 0).expect("a key");
    Ring::new(vec![key]).expect("a ring")
}

/// A ring that knows the id, but another key.
fn other_ring() -> Ring {
    let key = RingKey::new(KEY_ID, &[8; 32], 0).expect("a key");
    Ring::new(vec![key]).expect("a ring")
}

fn cipher() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &KEY).expect("a key"))
}

/// Seals a plain text as the layout in `pair/seal.rs` has it, whatever is in it.
fn seal(plain: &[u8]) -> String {
    let mut handle = vec![1];
    handle.extend_from_slice(&KEY_ID);
    let aad: [u8; AAD_BYTES] = handle[..].try_into().expect("five bytes");
    let nonce = [9; 12];
    handle.extend_from_slice(&nonce);
    let mut sealed = plain.to_vec();
    cipher()
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed)
        .expect("sealing works");
    handle.extend_from_slice(&sealed);
    BASE64URL.encode(handle)
}

fn unseal(handle: &str) -> Vec<u8> {
    let bytes = BASE64URL.decode(handle).expect("a handle is base64url");
    let aad: [u8; AAD_BYTES] = bytes[..AAD_BYTES].try_into().expect("five bytes");
    let nonce = Nonce::try_assume_unique_for_key(&bytes[AAD_BYTES..HEADER_BYTES]).expect("a nonce");
    let mut sealed = bytes[HEADER_BYTES..].to_vec();
    cipher().open_in_place(nonce, Aad::from(aad), &mut sealed).expect("it opens").to_vec()
}

fn trimmed(plain: &[u8]) -> &[u8] {
    let end = plain.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &plain[..end]
}
