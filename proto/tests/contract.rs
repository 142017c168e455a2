//! The contract as its descriptor and its encoding show it.

#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use std::collections::{BTreeMap, HashMap};

use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet, Timestamp};
use sns_proto::{CONTENT_DESCRIPTOR_SET, FILE_DESCRIPTOR_SET, device, v1};

/// Gives a contract's own file, not those that it imports.
fn file_of(package: &str, set: &[u8]) -> FileDescriptorProto {
    let set = FileDescriptorSet::decode(set).unwrap();
    set.file.into_iter().find(|file| file.package() == package).unwrap()
}

fn contract() -> FileDescriptorProto {
    file_of("sns.relay.v1", FILE_DESCRIPTOR_SET)
}

#[test]
fn the_descriptor_has_the_service_with_its_five_methods() {
    let contract = contract();
    assert_eq!(contract.service.len(), 1);
    let service = &contract.service[0];
    assert_eq!(service.name(), "Relay");
    let methods: Vec<_> = service
        .method
        .iter()
        .map(|m| (m.name(), m.client_streaming(), m.server_streaming()))
        .collect();
    let once = |name| (name, false, false);
    let unary = ["Enrol", "Pair", "Push", "Notify"].map(once);
    assert_eq!(methods, [&unary[..], &[("Stream", true, true)]].concat());
}

/// Walks services, messages, fields, oneofs and enums by the paths of `descriptor.proto`.
#[test]
fn everything_in_both_contracts_has_a_comment() {
    assert!(comments_of(&contract()) > 100);
    assert!(comments_of(&file_of("sns.device.v1", CONTENT_DESCRIPTOR_SET)) > 30);
}

/// Gives how many names were seen; fails for one without a comment.
fn comments_of(contract: &FileDescriptorProto) -> usize {
    let locations = &contract.source_code_info.as_ref().unwrap().location;
    let comments: HashMap<&[i32], &str> =
        locations.iter().map(|at| (at.path.as_slice(), at.leading_comments())).collect();
    let mut named: BTreeMap<Vec<i32>, String> = BTreeMap::new();
    for (s, service) in (0..).zip(&contract.service) {
        named.insert(vec![6, s], service.name().to_owned());
        for (m, method) in (0..).zip(&service.method) {
            named.insert(vec![6, s, 2, m], method.name().to_owned());
        }
    }
    for (m, message) in (0..).zip(&contract.message_type) {
        named.insert(vec![4, m], message.name().to_owned());
        for (f, field) in (0..).zip(&message.field) {
            named.insert(vec![4, m, 2, f], format!("{}.{}", message.name(), field.name()));
        }
        for (o, oneof) in (0..).zip(&message.oneof_decl) {
            named.insert(vec![4, m, 8, o], format!("{}.{}", message.name(), oneof.name()));
        }
    }
    for (e, choice) in (0..).zip(&contract.enum_type) {
        named.insert(vec![5, e], choice.name().to_owned());
        for (v, value) in (0..).zip(&choice.value) {
            named.insert(vec![5, e, 2, v], value.name().to_owned());
        }
    }
    let silent = |path: &[i32]| comments.get(path).is_none_or(|text| text.trim().is_empty());
    let bare: Vec<_> = named.iter().filter(|(path, _)| silent(path)).map(|(_, n)| n).collect();
    assert!(bare.is_empty(), "without a comment: {bare:?}");
    named.len()
}

/// The relay shows its descriptor to whoever asks; what is under seal is no part of it.
#[test]
fn the_relays_descriptor_has_nothing_of_the_sealed_content() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    assert!(set.file.iter().all(|file| file.package() != "sns.device.v1"));
}

#[test]
fn a_streamed_notification_and_its_acknowledgement_survive_the_wire() {
    let notify = v1::NotifyRequest {
        id: "123e4567-e89b-12d3-a456-426614174000".to_owned(),
        source: v1::Source::Surveillance.into(),
        level: v1::Level::Error.into(),
        ttl_s: 86_400,
        collapse_key: "volume1".to_owned(),
        silent: true,
        content: Some(v1::Content {
            tag: "CameraLost".to_owned(),
            vars: HashMap::from([("%CAMERA%".to_owned(), "door".to_owned())]),
            ..v1::Content::default()
        }),
        targets: vec![v1::Target { handle: "AQ".to_owned(), sealed: vec![0, 255] }],
    };
    let message = Some(v1::stream_request::Message::Notify(notify));
    let request = v1::StreamRequest { sequence: u64::MAX, message };
    let read = v1::StreamRequest::decode(request.encode_to_vec().as_slice()).unwrap();
    assert_eq!(read, request);
    let result = v1::Result {
        outcome: v1::Outcome::Gone.into(),
        reason: "apns_unregistered".to_owned(),
        gone_since: Some(Timestamp { seconds: 1_764_000_000, nanos: 0 }),
        ..v1::Result::default()
    };
    let response = v1::StreamResponse { sequence: u64::MAX, results: vec![result] };
    let read = v1::StreamResponse::decode(response.encode_to_vec().as_slice()).unwrap();
    assert_eq!(read, response);
    assert_eq!(read.results[0].outcome(), v1::Outcome::Gone);
}

/// A peer that knows a later contract must not be misread.
#[test]
fn an_outcome_of_a_later_contract_is_none_of_the_six() {
    let result = v1::Result { outcome: 7, ..v1::Result::default() };
    let read = v1::Result::decode(result.encode_to_vec().as_slice()).unwrap();
    assert_eq!(v1::Outcome::try_from(read.outcome).ok(), None);
}

/// The numbers of the fields are what an app that was published years ago reads.
#[test]
fn a_sealed_content_has_the_bytes_that_its_contract_says() {
    let withdraw = device::v1::Withdraw { id: vec![2; 16] };
    let content = device::v1::Content {
        version: 1,
        id: vec![1; 16],
        sequence: 3,
        written_at_unix_ms: 300,
        body: Some(device::v1::content::Body::Withdraw(withdraw)),
    };
    let mut expected = vec![0x08, 1, 0x12, 16];
    expected.extend([1; 16]);
    expected.extend([0x18, 3, 0x20, 0xac, 0x02, 0x3a, 18, 0x0a, 16]);
    expected.extend([2; 16]);
    assert_eq!(content.encode_to_vec(), expected);
}
