//! Requests made by rule: whatever keeps the rules is let in, whatever a NAS seals is taken.

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use sns_nas::seal::{self, BodyCap, ReceiverKeys};
use sns_relay::ingress::json;
use sns_relay::ingress::wire::{NotifyRequest, PairRequest};
use sns_relay::push::Sealed;

use crate::runner;

/// Any text: of every plane, with controls and quotes.
fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..20).prop_map(String::from_iter)
}

fn notification() -> impl Strategy<Value = Value> {
    let plain = (text(), text(), text(), btree_map(text(), text(), 0..4)).prop_map(
        |(tag, title, text, vars)| json!({"tag": tag, "title": title, "text": text, "vars": vars}),
    );
    let target = (text(), option::of(text()))
        .prop_map(|(handle, sealed)| json!({"handle": handle, "sealed": sealed}));
    let words = (select(&["dsm", "srm", "surveillance"]), select(&["info", "warn", "error"]));
    (text(), words, any::<u64>(), option::of(plain), vec(target, 0..5)).prop_map(
        |(id, (source, level), ttl_s, content, targets)| {
            json!({"id": id, "source": source, "level": level, "ttl_s": ttl_s, "content": content,
                   "targets": targets})
        },
    )
}

fn pairing() -> impl Strategy<Value = Value> {
    let subscription = (text(), option::of(any::<u64>())).prop_map(
        |(endpoint, time)| json!({"endpoint": endpoint, "expirationTime": time, "keys": {}}),
    );
    (text(), text(), option::of(text()), option::of(subscription), text()).prop_map(
        |(app, service, token, subscription, key)| {
            json!({"app": app, "service": service, "token": token, "subscription": subscription,
                   "sender_key": key})
        },
    )
}

/// Method: notifications of random texts, written compactly and with white space.
#[test]
fn a_notification_that_keeps_the_form_is_read() {
    runner()
        .run(&notification(), |value| {
            for body in [value.to_string(), format!("{value:#}")] {
                prop_assert!(json::read::<NotifyRequest>(body.as_bytes()).is_ok());
                sns_properties::notification(body.as_bytes());
            }
            Ok(())
        })
        .unwrap();
}

/// Method: pairings of random texts, written compactly and with white space.
#[test]
fn a_pairing_that_keeps_the_form_is_read() {
    runner()
        .run(&pairing(), |value| {
            for body in [value.to_string(), format!("{value:#}")] {
                prop_assert!(json::read::<PairRequest>(body.as_bytes()).is_ok());
                sns_properties::pairing(body.as_bytes());
            }
            Ok(())
        })
        .unwrap();
}

/// Method: messages of random bytes and caps are sealed for a device by the NAS's own code.
#[test]
fn whatever_a_nas_seals_passes_for_sealed() {
    let device = ReceiverKeys::generate().unwrap().device();
    runner()
        .run(&(vec(any::<u8>(), 0..2600), 104_usize..=4096), |(message, cap_bytes)| {
            let cap = BodyCap::new(cap_bytes).unwrap();
            let message = &message[..message.len().min(cap.message_bytes_max())];
            let body = seal::seal(&device, message, cap).unwrap();
            sns_properties::content(&body);
            prop_assert!(Sealed::parse(Bytes::from(body)).is_ok());
            Ok(())
        })
        .unwrap();
}
