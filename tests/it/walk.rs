//! A push's walk from a NAS to a device, through both doors.

use bytes::Bytes;
use sns_loadtest::device::Device;
use sns_nas::client::message::{
    Enrolment, Level, Message, Notification, Outcome, Source, Target, Urgency,
};
use sns_nas::key::SenderKey;
use sns_nas::seal::{self, BodyCap};

use crate::house::{House, KINDS};

fn sealed(device: &Device, text: &str) -> Bytes {
    let keys = device.keys().device();
    Bytes::from(seal::seal(&keys, text.as_bytes(), BodyCap::default()).unwrap())
}

fn message(body: Bytes) -> Message {
    Message { ttl_s: 60, urgency: Urgency::High, topic: None, body }
}

/// Each kind of device gets one message through the application door and reads it.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_message_reaches_each_kind_of_device() {
    let house = House::build().await;
    let sender = SenderKey::generate().unwrap();
    for kind in KINDS {
        let (device, endpoint) = house.paired(kind, &sender).await;
        let body = sealed(&device, "hello from the NAS");
        let answer = house.client.push(&endpoint, &sender, &message(body)).await.unwrap();
        assert_eq!((answer.status, answer.outcome), (201, Outcome::Accepted), "{kind:?}");
        assert!(answer.location.is_some());
        assert_eq!(house.read_by(&device), ["hello from the NAS"], "{kind:?}");
    }
}

/// An enrolled NAS notifies three devices in one request; results come in the order of the targets.
#[tokio::test(flavor = "multi_thread")]
async fn a_notification_reaches_three_devices_at_once() {
    let house = House::build().await;
    let nas = SenderKey::generate().unwrap();
    let enrolment = Enrolment {
        model: "DS923+".into(),
        serial: "2230ABC".into(),
        os_version: None,
        unique_ids: Vec::new(),
        enrolment_token: None,
    };
    assert!(house.client.enrol(&nas, &enrolment).await.unwrap().created);
    let mut devices = Vec::new();
    let mut targets = Vec::new();
    for kind in KINDS {
        let (device, endpoint) = house.paired(kind, &nas).await;
        let handle = endpoint.rsplit('/').next().unwrap().to_owned();
        targets.push(Target { handle, sealed: Some(sealed(&device, "volume 1 crashed")) });
        devices.push(device);
    }
    let notification = Notification {
        id: uuid::Uuid::new_v4(),
        source: Source::Dsm,
        level: Level::Error,
        ttl_s: 3600,
        collapse_key: Some("volume1".into()),
        sound: true,
        content: None,
        targets,
    };
    let results = house.client.notify(&nas, &notification).await.unwrap();
    let outcomes: Vec<Outcome> = results.iter().map(|result| result.outcome).collect();
    assert_eq!(outcomes, [Outcome::Accepted; 3]);
    for device in &devices {
        assert_eq!(house.read_by(device), ["volume 1 crashed"]);
    }
}
